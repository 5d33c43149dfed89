// Package safetensors reads the header of safetensors files and the index of
// sharded ones. It reads no tensor data.
package safetensors

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strconv"

	"weigh/formats"
	"weigh/formats/internal/jsonscan"
)

const format = "safetensors"

// MaxHeader is the largest header length that the reference reads.
//
// Source: safetensors/src/tensor.rs@24b0b28, MAX_HEADER_SIZE.
const MaxHeader = 100_000_000

// maxProblems bounds the faults, and the warnings, listed of one file.
const maxProblems = 100

// A File is the header of one safetensors file.
type File struct {
	HeaderBytes int64             // length of the JSON header; the data begins 8 bytes later
	Metadata    map[string]string // "__metadata__"; nil when the file has none
	Tensors     []Tensor          // in the order of their data
	Problems    []formats.Problem // what is odd about a file that can be read
}

// A Tensor is one entry of the header.
type Tensor struct {
	Name   string
	Type   formats.DType
	Shape  []uint64 // as written: slowest dimension first
	Bytes  uint64   // stored bytes
	Offset int64    // of the data, from the start of the file
}

// Elements returns the product of the shape as stored; packed types hold
// several weights in each element.
func (t *Tensor) Elements() uint64 {
	n, _ := formats.Elements(t.Shape)
	return n
}

// DataBytes returns the stored bytes of all tensors.
func (f *File) DataBytes() (n uint64) {
	for i := range f.Tensors {
		n += f.Tensors[i].Bytes
	}
	return n
}

// Read reads the header of the safetensors file of size bytes in src. It
// accepts what the reference accepts and returns the first fault of any other
// file as a *formats.Error, or a *formats.LFSPointer.
func Read(src io.ReaderAt, size int64) (*File, error) {
	f, problems, err := read(src, size)
	if err != nil {
		return nil, err
	}
	for i, p := range problems {
		if p.Severity == formats.SeverityError {
			return nil, &formats.Error{Format: format, Offset: p.Offset, Field: p.Field, Err: errors.New(problems[i].Message)}
		}
	}
	f.Problems = problems
	return f, nil
}

// Check lists every fault of the file of size bytes in src, in the order of
// their offsets as far as they have one. A file whose JSON cannot be followed
// has that one fault. The error is for trouble in reading, not in the file.
func Check(src io.ReaderAt, size int64) ([]formats.Problem, error) {
	_, problems, err := read(src, size)
	var ferr *formats.Error
	var lfs *formats.LFSPointer
	switch {
	case errors.As(err, &lfs):
		problems = append(problems, formats.Problem{
			Severity: formats.SeverityError, Code: "lfs-pointer", Message: lfs.Error(), Field: "file", Offset: 0,
		})
	case errors.As(err, &ferr):
		problems = append(problems, formats.Problem{
			Severity: formats.SeverityError, Code: "header", Message: ferr.Err.Error(), Field: ferr.Field, Offset: ferr.Offset,
		})
	case err != nil:
		return nil, err
	}
	slices.SortStableFunc(problems, func(a, b formats.Problem) int { return cmp.Compare(a.Offset, b.Offset) })
	return problems, nil
}

// entry is a tensor as its header entry states it.
type entry struct {
	Tensor
	at         int64 // byte offset of its name in the file
	begin, end uint64
	sized      bool // dtype, shape and data_offsets could all be read
}

// Room is made at once for as many entries as a header of usual ones holds, up to
// a bound.
const (
	leastUsual  = 96 // bytes of an entry
	maxExpected = 1 << 17
)

// reader gathers what is wrong on the way.
type reader struct {
	*jsonscan.Scanner
	entries  []entry
	dims     []uint64 // of the shape that is read
	shapes   []uint64 // shapes are cut from here
	metadata map[string]string
	seenMeta bool
	problems []formats.Problem
	errors   int // faults among the problems, those not listed included
}

func (r *reader) problem(severity, code, field string, at int64, format string, args ...any) {
	if severity == formats.SeverityError {
		r.errors++
	}
	if severity == formats.SeverityError && r.errors <= maxProblems || len(r.problems)-r.errors < maxProblems {
		r.problems = append(r.problems, formats.Problem{
			Severity: severity, Code: code, Field: field, Offset: at, Message: fmt.Sprintf(format, args...),
		})
	}
}

func (r *reader) fault(code, field string, at int64, format string, args ...any) {
	r.problem(formats.SeverityError, code, field, at, format, args...)
}

// read parses the header and applies the reference's checks.
//
// Source: safetensors/src/tensor.rs@24b0b28, SafeTensors::read_metadata and
// Metadata::validate.
func read(src io.ReaderAt, size int64) (*File, []formats.Problem, error) {
	fail := func(field string, msg string, args ...any) error {
		return &formats.Error{Format: format, Offset: 0, Field: field, Err: fmt.Errorf(msg, args...)}
	}
	var head [8]byte
	if size < int64(len(head)) {
		return nil, nil, fail("header length", "need 8 bytes, the file has %d", size)
	}
	if _, err := src.ReadAt(head[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, fail("header length", "%w", err)
	}
	if p := formats.ReadLFSPointer(src, size); p != nil {
		return nil, nil, p
	}
	n := binary.LittleEndian.Uint64(head[:])
	switch {
	case n > MaxHeader:
		return nil, nil, fail("header length", "%d is over the limit of %d bytes; this is not a safetensors file", n, MaxHeader)
	case int64(n) > size-8:
		return nil, nil, fail("header length", "%d bytes do not fit in the %d bytes that follow; the file is cut short or not safetensors", n, size-8)
	}
	r := &reader{Scanner: jsonscan.New(src, 8, 8+int64(n), format, "header")}
	r.entries = make([]entry, 0, min(n/leastUsual, maxExpected))
	r.Known = append(entryFields[:], "BF16", "F16", "F32", "U8", "I32", "F8_E4M3")
	if k := r.Kind(); k != jsonscan.Object {
		r.Fail(r.Offset(), "%v, want a JSON object", k)
	}
	r.Object(r.member)
	r.End()
	if err := r.Err(); err != nil {
		return nil, r.problems, err
	}
	r.dropDuplicates()
	r.check(size - 8 - int64(n))
	f := &File{HeaderBytes: int64(n), Metadata: r.metadata, Tensors: make([]Tensor, len(r.entries))}
	for i := range r.entries {
		e := &r.entries[i]
		e.Offset = 8 + int64(n) + int64(e.begin)
		f.Tensors[i] = e.Tensor
	}
	return f, r.problems, nil
}

// member reads one member of the header object.
func (r *reader) member(key string, at int64) {
	if key == "__metadata__" {
		r.readMetadata(at)
		return
	}
	const perTensor = 200 // of entry, Tensor and shape, roughly
	r.Charge(perTensor)
	e := entry{Tensor: Tensor{Name: key}, at: at}
	r.readEntry(&e)
	r.entries = append(r.entries, e)
}

// readMetadata reads the value of "__metadata__": null, or strings by name, of
// which the last of a name counts.
func (r *reader) readMetadata(at int64) {
	const field = "__metadata__"
	if r.seenMeta {
		r.fault("duplicate-metadata", field, at, "a second __metadata__")
	}
	r.seenMeta = true
	switch k := r.Kind(); k {
	case jsonscan.Null:
		r.Null()
	case jsonscan.Object:
		r.metadata = map[string]string{}
		r.Object(func(key string, at int64) {
			if k := r.Kind(); k != jsonscan.String {
				r.fault("metadata-type", field, at, "%q has %v as its value, want a string", key, k)
				r.Skip()
				return
			}
			r.Charge(64)
			r.metadata[key] = r.String()
		})
	default:
		r.fault("metadata-type", field, at, "%v, want an object of strings", k)
		r.Skip()
	}
}

// The fields of a tensor entry, in the order that an entry written as an array
// has them.
var entryFields = [...]string{"dtype", "shape", "data_offsets"}

// readEntry reads a tensor's entry: an object, or, as the reference's JSON
// library also allows, an array of the three values.
func (r *reader) readEntry(e *entry) {
	var seen, good [len(entryFields)]bool
	read := func(i int) {
		switch seen[i] = true; i {
		case 0:
			good[i] = r.readType(e)
		case 1:
			good[i] = r.readShape(e)
		case 2:
			good[i] = r.readOffsets(e)
		}
	}
	switch k := r.Kind(); k {
	case jsonscan.Object:
		r.Object(func(key string, at int64) {
			i := slices.Index(entryFields[:], key)
			switch {
			case i < 0:
				r.Skip()
			case seen[i]:
				r.fault("duplicate-field", e.field(key), at, "given twice")
				r.Skip()
			default:
				read(i)
			}
		})
	case jsonscan.Array:
		r.Array(func(i int) {
			if i >= len(entryFields) {
				r.fault("entry-type", e.field("entry"), e.at, "an array of more than %d values", len(entryFields))
				r.Skip()
				return
			}
			read(i)
		})
	default:
		r.fault("entry-type", e.field("entry"), e.at, "%v, want an object with dtype, shape and data_offsets", k)
		r.Skip()
		return
	}
	for i, name := range entryFields {
		if !seen[i] {
			r.fault("missing-field", e.field(name), e.at, "missing")
		}
	}
	e.sized = good == [len(entryFields)]bool{true, true, true}
}

// field names a field of the entry for a message.
func (e *entry) field(name string) string {
	return "tensor " + strconv.QuoteToASCII(e.Name[:min(len(e.Name), 200)]) + " " + name
}

// readType reads a dtype: a name, or the one-member object {"F32":null} that
// the reference's JSON library also takes for it.
func (r *reader) readType(e *entry) bool {
	var name string
	r.Peek()
	at := r.Offset()
	switch k := r.Kind(); k {
	case jsonscan.String:
		name = r.String()
	case jsonscan.Object:
		members := 0
		r.Object(func(key string, _ int64) {
			members++
			name = key
			if r.Kind() != jsonscan.Null {
				members = 2
			}
			r.Skip()
		})
		if members != 1 {
			r.fault("dtype", e.field("dtype"), at, "an object, want a type's name")
			return false
		}
	default:
		r.fault("dtype", e.field("dtype"), at, "%v, want a type's name", k)
		r.Skip()
		return false
	}
	t, ok := formats.ParseDType(name)
	if !ok || !inSafetensors(t) {
		r.fault("unknown-dtype", e.field("dtype"), at, "unknown type %.40q", name)
		return false
	}
	e.Type = t
	return true
}

// inSafetensors reports whether the format has the type.
//
// Source: safetensors/src/tensor.rs@24b0b28, enum Dtype.
func inSafetensors(t formats.DType) bool {
	switch t {
	case formats.F32, formats.F16, formats.BF16, formats.F64, formats.I8, formats.I16, formats.I32, formats.I64:
		return true
	}
	return t >= formats.BOOL
}

// readShape reads the list of dimensions.
func (r *reader) readShape(e *entry) bool {
	r.dims = r.dims[:0]
	ok := r.readUints(e, "shape", func(_ int, n uint64) {
		r.Charge(8)
		r.dims = append(r.dims, n)
	})
	if len(r.dims) > cap(r.shapes)-len(r.shapes) {
		r.shapes = make([]uint64, 0, max(len(r.dims), 4096))
	}
	first := len(r.shapes)
	r.shapes = append(r.shapes, r.dims...)
	e.Shape = slices.Clip(r.shapes[first:])
	return ok
}

// readOffsets reads the pair of data offsets.
func (r *reader) readOffsets(e *entry) bool {
	r.Peek()
	at, count := r.Offset(), 0
	ok := r.readUints(e, "data_offsets", func(i int, n uint64) {
		switch count++; i {
		case 0:
			e.begin = n
		case 1:
			e.end = n
		}
	})
	if ok && count != 2 {
		r.fault("data-offsets", e.field("data_offsets"), at, "%d values, want 2", count)
		return false
	}
	return ok
}

// readUints reads an array of whole numbers, the named field of an entry.
func (r *reader) readUints(e *entry, name string, each func(i int, n uint64)) bool {
	r.Peek()
	at := r.Offset()
	if k := r.Kind(); k != jsonscan.Array {
		r.fault("number-list", e.field(name), at, "%v, want an array of whole numbers", k)
		r.Skip()
		return false
	}
	good := true
	r.Array(func(i int) {
		r.Peek()
		at := r.Offset()
		if k := r.Kind(); k != jsonscan.Number {
			r.fault("number-list", e.field(name), at, "%v at index %d, want a whole number", k, i)
			r.Skip()
			good = false
			return
		}
		n, ok := r.Uint()
		if !ok {
			r.fault("number-list", e.field(name), at, "index %d is not a whole number from 0 to 2^64-1", i)
			good = false
			return
		}
		each(i, n)
	})
	return good
}

// dropDuplicates keeps the last of the entries that share a name, as the
// reference does, and reports the others. The format's description forbids
// them, but no reader in use rejects them.
func (r *reader) dropDuplicates() {
	order := make([]int32, len(r.entries))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(r.entries[a].Name, r.entries[b].Name) })
	var drop []int32
	for i := 1; i < len(order); i++ {
		if a, b := &r.entries[order[i-1]], &r.entries[order[i]]; a.Name == b.Name {
			drop = append(drop, order[i-1])
			r.problem(formats.SeverityWarning, "duplicate-tensor", b.field("entry"), b.at,
				"the name was used at byte %d already; readers take the last", a.at)
		}
	}
	slices.Sort(drop)
	kept, d := r.entries[:0], 0
	for i, e := range r.entries {
		if d < len(drop) && int(drop[d]) == i {
			d++
			continue
		}
		kept = append(kept, e)
	}
	r.entries = kept
}

// check sorts the entries by their data and checks that sizes are right and
// that the data fills the buffer of the given length without a gap.
func (r *reader) check(buffer int64) {
	slices.SortStableFunc(r.entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end))
	})
	var end uint64
	for i := range r.entries {
		e := &r.entries[i]
		if !e.sized {
			end = max(end, e.end)
			continue
		}
		if e.begin != end || e.end < e.begin {
			r.fault("data-offsets", e.field("data_offsets"), e.at,
				"[%d, %d], want to begin at %d where the data before it ends", e.begin, e.end, end)
		}
		end = max(end, e.end)
		e.Bytes = e.end - min(e.begin, e.end)
		nbits, ok := bitSize(e.Type, e.Shape)
		switch {
		case !ok:
			r.fault("shape-overflow", e.field("shape"), e.at, "the bits of %v elements do not fit in 64 bits", e.Shape[:min(len(e.Shape), 8)])
		case nbits%8 != 0:
			r.fault("partial-byte", e.field("shape"), e.at, "%d bits of %v are not whole bytes", nbits, e.Type)
		case nbits/8 != e.Bytes:
			r.fault("size", e.field("data_offsets"), e.at, "%d bytes, but %v of shape %v takes %d", e.Bytes, e.Type, e.Shape[:min(len(e.Shape), 8)], nbits/8)
		}
	}
	switch {
	case end > uint64(buffer):
		r.fault("truncated", "data", -1, "the tensors take %d bytes, the file has %d after its header; it is cut short", end, buffer)
	case end < uint64(buffer):
		r.fault("trailing-data", "data", -1, "%d bytes follow the last tensor", uint64(buffer)-end)
	}
}

// bitSize returns the bits of a tensor. The product is taken from left to right
// and an overflow on the way counts even when a later dimension is 0.
//
// Source: safetensors/src/tensor.rs@24b0b28, Metadata::validate.
func bitSize(t formats.DType, shape []uint64) (n uint64, ok bool) {
	elems, bytes := t.Block()
	n = 1
	for i := range len(shape) + 1 {
		d := bytes * 8 / elems
		if i < len(shape) {
			d = shape[i]
		}
		hi, lo := bits.Mul64(n, d)
		if hi != 0 {
			return 0, false
		}
		n = lo
	}
	return n, true
}
