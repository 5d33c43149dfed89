package check

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"weigh/formats"
	"weigh/inspect"
)

// A Piece is the data of one stored tensor.
type Piece struct {
	Name   string
	Type   formats.DType
	Shape  []uint64 // as the format writes it
	File   int      // index into Inspection.Files
	Offset int64
	Bytes  uint64
}

// Pieces goes through the stored tensors of a model.
func Pieces(ins *inspect.Inspection) iter.Seq[Piece] {
	return func(yield func(Piece) bool) {
		if ins.GGUF != nil {
			for i, t := range ins.GGUF.Tensors() {
				if !yield(Piece{t.Name, t.Type, t.Shape, i, ins.GGUF.Files[i].DataOffset + int64(t.Offset), t.Bytes}) {
					return
				}
			}
			return
		}
		for i := range ins.HF.Files {
			for j := range ins.HF.Files[i].Tensors {
				t := &ins.HF.Files[i].Tensors[j]
				if !yield(Piece{t.Name, t.Type, t.Shape, i, t.Offset, t.Bytes}) {
					return
				}
			}
		}
	}
}

// chunkBytes is about how much is read at once.
const chunkBytes = 4 << 20

// Data reads all weights on all cores and lists the tensors with values that
// are no numbers, with block scales that are none, and those that are all
// zero. read, which may be nil, counts the bytes as they are read.
//
// What makes a block invalid is as in ggml/src/ggml-quants.c@v0.5.0,
// ggml_validate_row_data (llama.cpp's --check-tensors).
func Data(ctx context.Context, ins *inspect.Inspection, read *atomic.Uint64) ([]Problem, error) {
	if ins.GGUF != nil && ins.GGUF.Files[0].BigEndian {
		return []Problem{{formats.Problem{Severity: formats.SeverityWarning, Code: "big-endian", Field: "tensors", Offset: -1, Message: "the values are not looked at: they are big-endian"}, ins.Files[0].Path}}, nil
	}
	pieces := slices.Collect(Pieces(ins))
	found := make([]*tally, len(pieces))
	err := each(ctx, ins, len(pieces), func(ctx context.Context, files []*os.File, i int) error {
		p := &pieces[i]
		scan := scanners[p.Type]
		_, block := p.Type.Block()
		if scan == nil || block == 0 || p.Bytes == 0 {
			return nil
		}
		t := &tally{at: -1, zero: true}
		found[i] = t
		step := chunkBytes / block * block
		return chunks(ctx, files[p.File], p, step, read, func(b []byte, at int64) { scan(t, b, at) })
	})
	if err != nil {
		return nil, err
	}
	var problems []Problem
	for i, t := range found {
		if t == nil {
			continue
		}
		p := &pieces[i]
		add := func(severity, code string, at int64, format string, args ...any) {
			problems = append(problems, Problem{formats.Problem{Severity: severity, Code: code, Field: p.Name, Offset: at, Message: fmt.Sprintf(format, args...)}, ins.Files[p.File].Path})
		}
		what := "value"
		if p.Type.Quantized() {
			what = "block scale"
		}
		if t.bad > 0 {
			add(formats.SeverityError, "not-a-number", t.at, "%d %ss of %s are NaN or infinite, the first at byte %d", t.bad, what, p.Type, t.at)
		}
		if t.zero {
			add(formats.SeverityWarning, "all-zero", p.Offset, "all values of %s are zero", p.Type)
		}
	}
	return problems, nil
}

// each opens the model's files and calls f for 0 to n-1 on all cores; the first
// error ends all by their context. What was read of a file that changed meanwhile is of no model:
// that is an error too.
func each(ctx context.Context, ins *inspect.Inspection, n int, f func(ctx context.Context, files []*os.File, i int) error) error {
	files := make([]*os.File, len(ins.Files))
	defer func() {
		for _, file := range files {
			if file != nil {
				file.Close()
			}
		}
	}()
	before := make([]fs.FileInfo, len(files))
	for i := range files {
		file, size, err := openRegular(ins.Files[i].Path)
		if err != nil {
			return fmt.Errorf("%s: %w", ins.Files[i].Path, err)
		}
		files[i] = file
		if was := ins.Files[i].Bytes; size != was {
			return fmt.Errorf("%s: %d bytes, %d when its header was read: wait until it is written", file.Name(), size, was)
		}
		if before[i], err = file.Stat(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), max(n, 1)) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := f(ctx, files, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	for i, file := range files {
		after, err := file.Stat()
		if err != nil {
			return err
		}
		if after.Size() != before[i].Size() || !after.ModTime().Equal(before[i].ModTime()) {
			return fmt.Errorf("%s: changed while it was read: wait until it is written", file.Name())
		}
	}
	return nil
}

// buffers are reused between tensors.
var buffers = sync.Pool{New: func() any { b := make([]byte, chunkBytes); return &b }}

// chunks reads a tensor's data, step bytes at a time.
func chunks(ctx context.Context, file *os.File, p *Piece, step uint64, read *atomic.Uint64, f func(b []byte, at int64)) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for done := uint64(0); done < p.Bytes; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b := (*buf)[:min(step, p.Bytes-done)]
		at := p.Offset + int64(done)
		if n, err := file.ReadAt(b, at); n < len(b) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			what := ""
			if p.Name != "" {
				what = fmt.Sprintf("tensor %.80q ", p.Name)
			}
			return fmt.Errorf("%s: %sat byte %d: %w", file.Name(), what, at+int64(n), bare(err))
		}
		f(b, at)
		done += uint64(len(b))
		if read != nil {
			read.Add(uint64(len(b)))
		}
	}
	return nil
}

// A tally is what was found in one tensor.
type tally struct {
	bad  uint64 // values or scales that are no numbers
	at   int64  // byte offset of the first
	zero bool   // nothing but zeros so far
}

func (t *tally) found(at int64) {
	if t.bad == 0 {
		t.at = at
	}
	t.bad++
}

// floats returns a scanner of numbers of size bytes that are NaN or infinite
// where all bits of exponent are set. Eight bytes are looked at at once.
func floats(size int, exponent, sign uint64) func(t *tally, b []byte, at int64) {
	lanes := uint64(1)
	for i := size; i < 8; i += size {
		lanes |= 1 << (8 * i)
	}
	mask, signs := lanes*exponent, lanes*sign
	below := signs - lanes // the largest number below the sign, in each lane
	return func(t *tally, b []byte, at int64) {
		var word [8]byte
		var any uint64
		for i := 0; i < len(b); i += 8 {
			var x uint64
			if i+8 <= len(b) {
				x = binary.LittleEndian.Uint64(b[i:])
			} else {
				word = [8]byte{}
				copy(word[:], b[i:])
				x = binary.LittleEndian.Uint64(word[:])
			}
			any |= x &^ signs
			// A lane of y is zero where the exponent is all ones; any other carries
			// into its sign.
			y := ^x & mask
			if (y+below)&signs == signs {
				continue
			}
			for lane := 0; lane < 8; lane += size {
				if y>>(8*lane)&exponent == 0 {
					t.found(at + int64(i+lane))
				}
			}
		}
		if any != 0 {
			t.zero = false
		}
	}
}

// halves returns a scanner of blocks that hold 16-bit scales at the offsets.
func halves(t formats.DType, offsets ...int) func(t *tally, b []byte, at int64) {
	_, n := t.Block()
	block := int(n)
	return func(t *tally, b []byte, at int64) {
		for i := 0; i+block <= len(b); i += block {
			for _, o := range offsets {
				d := binary.LittleEndian.Uint16(b[i+o:])
				if d&0x7c00 == 0x7c00 {
					t.found(at + int64(i+o))
				}
				if d&0x7fff != 0 {
					t.zero = false
				}
			}
		}
	}
}

// mxfp4 scans MXFP4, whose scale is a power of two in one byte.
func mxfp4(t *tally, b []byte, at int64) {
	const block = 17
	for i := 0; i+block <= len(b); i += block {
		if b[i] == 0xff {
			t.found(at + int64(i))
		}
	}
	integers(t, b, at)
}

// except returns a scanner of bytes of which one value is no number.
func except(nan byte) func(t *tally, b []byte, at int64) {
	return func(t *tally, b []byte, at int64) {
		for i, v := range b {
			if v == nan {
				t.found(at + int64(i))
			}
		}
		integers(t, b, at)
	}
}

// integers is the scanner of types whose every value is valid.
func integers(t *tally, b []byte, _ int64) {
	for _, v := range b {
		if v != 0 {
			t.zero = false
			return
		}
	}
}

// iq1m scans IQ1_M, whose scale is spread over the upper four bits of four
// 16-bit words.
func iq1m(t *tally, b []byte, at int64) {
	const block, scales = 56, 48
	for i := 0; i+block <= len(b); i += block {
		word := func(k int) uint16 { return binary.LittleEndian.Uint16(b[i+scales+2*k:]) }
		d := word(0)>>12 | word(1)>>8&0x00f0 | word(2)>>4&0x0f00 | word(3)&0xf000
		if d&0x7c00 == 0x7c00 {
			t.found(at + int64(i+scales))
		}
		if d&0x7fff != 0 {
			t.zero = false
		}
	}
}

// q8k scans Q8_K, whose scale is a 32-bit number.
func q8k(t *tally, b []byte, at int64) {
	const block = 292
	for i := 0; i+block <= len(b); i += block {
		d := binary.LittleEndian.Uint32(b[i:])
		if d&0x7f800000 == 0x7f800000 {
			t.found(at + int64(i))
		}
		if d&0x7fffffff != 0 {
			t.zero = false
		}
	}
}

// scanners know where each type keeps what can be invalid.
//
// Source: ggml/src/ggml-common.h@v0.5.0, the block structures.
var scanners = map[formats.DType]func(t *tally, b []byte, at int64){
	formats.F64:         floats(8, 0x7ff0000000000000, 1<<63),
	formats.F32:         floats(4, 0x7f800000, 1<<31),
	formats.F16:         floats(2, 0x7c00, 1<<15),
	formats.BF16:        floats(2, 0x7f80, 1<<15),
	formats.F8_E5M2:     floats(1, 0x7c, 1<<7),
	formats.F8_E4M3:     floats(1, 0x7f, 1<<7),
	formats.F8_E5M2FNUZ: except(0x80),
	formats.F8_E4M3FNUZ: except(0x80),
	formats.F8_E8M0:     except(0xff),
	formats.F4:          integers,
	formats.F6_E2M3:     integers,
	formats.F6_E3M2:     integers,
	formats.C64:         floats(4, 0x7f800000, 1<<31),
	formats.BOOL:        integers,
	formats.I8:          integers,
	formats.I16:         integers,
	formats.I32:         integers,
	formats.I64:         integers,
	formats.U8:          integers,
	formats.U16:         integers,
	formats.U32:         integers,
	formats.U64:         integers,
	formats.Q4_0:        halves(formats.Q4_0, 0),
	formats.Q4_1:        halves(formats.Q4_1, 0, 2),
	formats.Q5_0:        halves(formats.Q5_0, 0),
	formats.Q5_1:        halves(formats.Q5_1, 0, 2),
	formats.Q8_0:        halves(formats.Q8_0, 0),
	formats.Q2_K:        halves(formats.Q2_K, 80, 82),
	formats.Q3_K:        halves(formats.Q3_K, 108),
	formats.Q4_K:        halves(formats.Q4_K, 0, 2),
	formats.Q5_K:        halves(formats.Q5_K, 0, 2),
	formats.Q6_K:        halves(formats.Q6_K, 208),
	formats.Q8_K:        q8k,
	formats.IQ1_S:       halves(formats.IQ1_S, 0),
	formats.IQ1_M:       iq1m,
	formats.IQ2_XXS:     halves(formats.IQ2_XXS, 0),
	formats.IQ2_XS:      halves(formats.IQ2_XS, 0),
	formats.IQ2_S:       halves(formats.IQ2_S, 0),
	formats.IQ3_XXS:     halves(formats.IQ3_XXS, 0),
	formats.IQ3_S:       halves(formats.IQ3_S, 0),
	formats.IQ4_NL:      halves(formats.IQ4_NL, 0),
	formats.IQ4_XS:      halves(formats.IQ4_XS, 0),
	formats.TQ1_0:       halves(formats.TQ1_0, 52),
	formats.TQ2_0:       halves(formats.TQ2_0, 64),
	formats.Q1_0:        halves(formats.Q1_0, 0),
	formats.Q2_0:        halves(formats.Q2_0, 0),
	formats.MXFP4:       mxfp4,
	formats.NVFP4:       integers,
}
