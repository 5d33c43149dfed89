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
	Name         string
	Shape        []uint64 // as written: slowest dimension first; not to be changed, as others may share it
	Bytes        uint64   // stored bytes
	Offset       int64    // of the data, from the start of the file
	HeaderOffset uint32   // of this entry, from the start of the file
	Type         formats.DType
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

// Check is Read for a file that may have faults: it lists every one, in the order
// of their offsets as far as they have one. A file whose JSON cannot be followed
// has that one fault. The file is nil when there is an error among them; the
// error returned is for trouble in reading.
func Check(src io.ReaderAt, size int64) (*File, []formats.Problem, error) {
	f, problems, err := read(src, size)
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
		return nil, nil, err
	}
	slices.SortStableFunc(problems, func(a, b formats.Problem) int { return cmp.Compare(a.Offset, b.Offset) })
	if slices.ContainsFunc(problems, func(p formats.Problem) bool { return p.Severity == formats.SeverityError }) {
		return nil, problems, nil
	}
	f.Problems = problems
	return f, problems, nil
}

// What may cost memory. A tensor costs what this package and those that make a
// model of it keep, its name apart.
const (
	costTensor   = 240
	costMetadata = 100
	maxName      = 64 << 10 // bytes of a tensor's name
	maxValue     = 1 << 20  // bytes that are kept of a value of the metadata
	maxDims      = 1 << 16
)

// reader gathers what is wrong on the way.
type reader struct {
	*jsonscan.Scanner
	header   int64               // its bytes
	tensors  []Tensor            // Offset is of the data's start in the buffer
	unsized  map[uint32]bool     // by HeaderOffset: dtype, shape and data_offsets could not all be read
	dims     []uint64            // of the shape that is read
	key      []byte              // the same, as bytes
	shapes   map[string][]uint64 // that were read, by those bytes
	metadata map[string]string
	seenMeta bool
	problems []formats.Problem
	errors   int // faults, those not listed included
	warnings int
}

func (r *reader) problem(severity, code, field string, at int64, format string, args ...any) {
	listed := &r.warnings
	if severity == formats.SeverityError {
		listed = &r.errors
	}
	if *listed++; *listed <= maxProblems {
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
	r := &reader{Scanner: jsonscan.New(src, 8, 8+int64(n), format, "header"), header: int64(n), shapes: map[string][]uint64{}}
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
	for i := range r.tensors {
		r.tensors[i].Offset += 8 + int64(n)
	}
	return &File{HeaderBytes: int64(n), Metadata: r.metadata, Tensors: r.tensors}, r.problems, nil
}

// member reads one member of the header object.
func (r *reader) member(key string, at int64) {
	if key == "__metadata__" {
		r.readMetadata(at)
		return
	}
	if len(key) > maxName {
		r.Fail(at, "a tensor's name of %d bytes, more than the %d that this reader takes", len(key), maxName)
	}
	r.Charge(costTensor)
	t := Tensor{Name: key, HeaderOffset: uint32(at)}
	if !r.readEntry(&t) {
		if r.unsized == nil {
			r.unsized = map[uint32]bool{}
		}
		r.Charge(costMetadata)
		r.unsized[t.HeaderOffset] = true
	}
	r.tensors = append(formats.Grow(r.tensors, r.Offset()-8, r.header), t)
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
			r.Charge(costMetadata)
			r.Peek()
			at = r.Offset()
			value, n := r.Head(maxValue)
			if n > maxValue {
				r.problem(formats.SeverityWarning, "long-metadata", field, at, "%.200q has a value of %d bytes; the first %d are kept", key, n, len(value))
			}
			r.metadata[key] = value
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
// library also allows, an array of the three values. It reports whether dtype,
// shape and data_offsets could all be read.
func (r *reader) readEntry(t *Tensor) bool {
	var seen, good [len(entryFields)]bool
	read := func(i int) {
		switch seen[i] = true; i {
		case 0:
			good[i] = r.readType(t)
		case 1:
			good[i] = r.readShape(t)
		case 2:
			good[i] = r.readOffsets(t)
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
				r.fault("duplicate-field", t.field(key), at, "given twice")
				r.Skip()
			default:
				read(i)
			}
		})
	case jsonscan.Array:
		r.Array(func(i int) {
			if i >= len(entryFields) {
				r.fault("entry-type", t.field("entry"), int64(t.HeaderOffset), "an array of more than %d values", len(entryFields))
				r.Skip()
				return
			}
			read(i)
		})
	default:
		r.fault("entry-type", t.field("entry"), int64(t.HeaderOffset), "%v, want an object with dtype, shape and data_offsets", k)
		r.Skip()
		return false
	}
	for i, name := range entryFields {
		if !seen[i] {
			r.fault("missing-field", t.field(name), int64(t.HeaderOffset), "missing")
		}
	}
	return good == [len(entryFields)]bool{true, true, true}
}

// field names a field of the entry for a message.
func (t *Tensor) field(name string) string {
	return "tensor " + strconv.QuoteToASCII(t.Name[:min(len(t.Name), 200)]) + " " + name
}

// readType reads a dtype: a name, or the one-member object {"F32":null} that
// the reference's JSON library also takes for it.
func (r *reader) readType(t *Tensor) bool {
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
			r.fault("dtype", t.field("dtype"), at, "an object, want a type's name")
			return false
		}
	default:
		r.fault("dtype", t.field("dtype"), at, "%v, want a type's name", k)
		r.Skip()
		return false
	}
	typ, ok := formats.ParseDType(name)
	if !ok || !inSafetensors(typ) {
		r.fault("unknown-dtype", t.field("dtype"), at, "unknown type %.40q", name)
		return false
	}
	t.Type = typ
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
func (r *reader) readShape(t *Tensor) bool {
	r.dims = r.dims[:0]
	r.key = r.key[:0]
	ok := r.readUints(t, "shape", func(_ int, n uint64) {
		if len(r.dims) == maxDims {
			r.Fail(int64(t.HeaderOffset), "a shape of more than %d dimensions", maxDims)
			return
		}
		r.dims = append(r.dims, n)
		r.key = binary.LittleEndian.AppendUint64(r.key, n)
	})
	shape, known := r.shapes[string(r.key)]
	if !known {
		r.Charge(costMetadata + 2*len(r.key))
		shape = slices.Clone(r.dims)
		r.shapes[string(r.key)] = shape
	}
	t.Shape = slices.Clip(shape)
	return ok
}

// readOffsets reads the pair of data offsets.
func (r *reader) readOffsets(t *Tensor) bool {
	r.Peek()
	at, count := r.Offset(), 0
	var begin, end uint64
	ok := r.readUints(t, "data_offsets", func(i int, n uint64) {
		switch count++; i {
		case 0:
			begin = n
		case 1:
			end = n
		}
	})
	t.Offset, t.Bytes = int64(begin), end-begin
	if ok && count != 2 {
		r.fault("data-offsets", t.field("data_offsets"), at, "%d values, want 2", count)
		return false
	}
	return ok
}

// readUints reads an array of whole numbers, the named field of an entry.
func (r *reader) readUints(t *Tensor, name string, each func(i int, n uint64)) bool {
	r.Peek()
	at := r.Offset()
	if k := r.Kind(); k != jsonscan.Array {
		r.fault("number-list", t.field(name), at, "%v, want an array of whole numbers", k)
		r.Skip()
		return false
	}
	good := true
	r.Array(func(i int) {
		r.Peek()
		at := r.Offset()
		if k := r.Kind(); k != jsonscan.Number {
			r.fault("number-list", t.field(name), at, "%v at index %d, want a whole number", k, i)
			r.Skip()
			good = false
			return
		}
		n, ok := r.Uint()
		if !ok {
			r.fault("number-list", t.field(name), at, "index %d is not a whole number from 0 to 2^64-1", i)
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
	order := make([]int32, len(r.tensors))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(r.tensors[a].Name, r.tensors[b].Name) })
	var drop []int32
	for i := 1; i < len(order); i++ {
		if a, b := &r.tensors[order[i-1]], &r.tensors[order[i]]; a.Name == b.Name {
			drop = append(drop, order[i-1])
			r.problem(formats.SeverityWarning, "duplicate-tensor", b.field("entry"), int64(b.HeaderOffset),
				"the name was used at byte %d already; readers take the last", a.HeaderOffset)
		}
	}
	slices.Sort(drop)
	kept, d := r.tensors[:0], 0
	for i, t := range r.tensors {
		if d < len(drop) && int(drop[d]) == i {
			d++
			continue
		}
		kept = append(kept, t)
	}
	r.tensors = kept
}

// check sorts the tensors by their data and checks that sizes are right and
// that the data fills the buffer of the given length without a gap.
func (r *reader) check(buffer int64) {
	span := func(t *Tensor) (begin, end uint64) { return uint64(t.Offset), uint64(t.Offset) + t.Bytes }
	slices.SortStableFunc(r.tensors, func(a, b Tensor) int {
		aBegin, aEnd := span(&a)
		bBegin, bEnd := span(&b)
		return cmp.Or(cmp.Compare(aBegin, bBegin), cmp.Compare(aEnd, bEnd))
	})
	var last uint64
	for i := range r.tensors {
		t := &r.tensors[i]
		at := int64(t.HeaderOffset)
		begin, end := span(t)
		if r.unsized[t.HeaderOffset] {
			last, t.Bytes = max(last, end), 0
			continue
		}
		if begin != last || end < begin {
			r.fault("data-offsets", t.field("data_offsets"), at,
				"[%d, %d], want to begin at %d where the data before it ends", begin, end, last)
		}
		last = max(last, end)
		t.Bytes = end - min(begin, end)
		nbits, ok := bitSize(t.Type, t.Shape)
		switch {
		case !ok:
			r.fault("shape-overflow", t.field("shape"), at, "the bits of %v elements do not fit in 64 bits", t.Shape[:min(len(t.Shape), 8)])
		case nbits%8 != 0:
			r.fault("partial-byte", t.field("shape"), at, "%d bits of %v are not whole bytes", nbits, t.Type)
		case nbits/8 != t.Bytes:
			r.fault("size", t.field("data_offsets"), at, "%d bytes, but %v of shape %v takes %d", t.Bytes, t.Type, t.Shape[:min(len(t.Shape), 8)], nbits/8)
		}
	}
	switch {
	case last > uint64(buffer):
		r.fault("truncated", "data", -1, "the tensors take %d bytes, the file has %d after its header; it is cut short", last, buffer)
	case last < uint64(buffer):
		r.fault("trailing-data", "data", -1, "%d bytes follow the last tensor", uint64(buffer)-last)
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
