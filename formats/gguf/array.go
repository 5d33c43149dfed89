package gguf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"

	"weigh/formats"
	"weigh/formats/internal/bin"
)

// errTooLong says that a value is not read into memory.
var errTooLong = fmt.Errorf("longer than %d bytes", maxText)

// bytes returns the bytes of a string or a numeric array, not to be changed.
func (f *File) bytes(kv *KV) ([]byte, error) {
	if kv.kept != nil || kv.Bytes == 0 {
		return kv.kept, nil
	}
	if kv.Bytes > maxText {
		return nil, errTooLong
	}
	b := make([]byte, kv.Bytes)
	if n, err := f.src.ReadAt(b, kv.ValueOffset); n < len(b) {
		return nil, f.readError(kv, kv.ValueOffset+int64(n), err)
	}
	return b, nil
}

// SameBytes reports whether two values of the same length are stored alike. What
// cannot be read is not.
func SameBytes(f *File, a *KV, g *File, b *KV) bool {
	switch {
	case a.Bytes != b.Bytes:
		return false
	case a.kept != nil && b.kept != nil:
		return bytes.Equal(a.kept, b.kept)
	}
	step := min(a.Bytes, 32<<10)
	x, y := make([]byte, step), make([]byte, step)
	for done := uint64(0); done < a.Bytes; {
		n := min(step, a.Bytes-done)
		i, _ := f.src.ReadAt(x[:n], a.ValueOffset+int64(done))
		j, _ := g.src.ReadAt(y[:n], b.ValueOffset+int64(done))
		if uint64(i) < n || uint64(j) < n || !bytes.Equal(x[:n], y[:n]) {
			return false
		}
		done += n
	}
	return true
}

func (f *File) readError(kv *KV, off int64, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return &formats.Error{Format: "gguf", Offset: off, Field: printable(kv.Key), Err: err}
}

// An ArrayReader reads the elements of one array from the file.
type ArrayReader struct {
	Elem  Type
	Count uint64

	file *File
	kv   *KV
}

// Array returns a reader of the array under key.
func (f *File) Array(key string) (*ArrayReader, error) {
	kv, ok := f.KV(key)
	if !ok {
		return nil, &formats.Error{Format: "gguf", Offset: -1, Field: printable(key), Err: errors.New("no such key")}
	}
	if kv.Type != Array {
		return nil, &formats.Error{
			Format: "gguf", Offset: kv.ValueOffset, Field: printable(key),
			Err: fmt.Errorf("is %v, want an array", kv.Type),
		}
	}
	return &ArrayReader{kv.Elem, kv.Count, f, kv}, nil
}

// At returns element i as bool, int64, uint64 (only above the range of int64),
// float64 or string. It reads a number where it lies, but walks to a string
// from the first one.
func (a *ArrayReader) At(i uint64) (any, error) {
	if i >= a.Count {
		return nil, &formats.Error{
			Format: "gguf", Offset: a.kv.ValueOffset, Field: printable(a.kv.Key),
			Err: fmt.Errorf("no element %d of %d", i, a.Count),
		}
	}
	for v, err := range a.from(i) {
		return v, err
	}
	panic("gguf: an array without the element it counts")
}

// All yields the elements in order, as At returns them. An error ends it.
func (a *ArrayReader) All() iter.Seq2[any, error] { return a.from(0) }

// from yields the elements from i on.
func (a *ArrayReader) from(i uint64) iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		r := a.reader()
		w := a.Elem.width()
		if a.Elem == String {
			r.SkipStrings("strings", i, maxString)
		} else {
			r.Skip("numbers", i*w)
		}
		for ; i < a.Count; i++ {
			var v any
			if a.Elem == String {
				v = string(r.Bytes("element", r.Length("element length", maxText), maxText))
			} else {
				v = number(a.Elem, r.Uint("element", w))
			}
			if err := r.Err(); err != nil {
				err.Field = fmt.Sprintf("%s %s %d", printable(a.kv.Key), err.Field, i)
				yield(nil, err)
				return
			}
			if !yield(v, nil) {
				return
			}
		}
	}
}

// Strings yields the elements of an array of strings, byte for byte. The bytes
// hold until the next element. An error ends it.
func (a *ArrayReader) Strings() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		r := a.reader()
		if a.Elem != String {
			r.Fail(printable(a.kv.Key), "elements are %v, want str", a.Elem)
			yield(nil, r.Err())
			return
		}
		for i := range a.Count {
			b := r.Bytes("element", r.Length("element length", maxText), maxText)
			if err := r.Err(); err != nil {
				err.Field = fmt.Sprintf("%s %s %d", printable(a.kv.Key), err.Field, i)
				yield(nil, err)
				return
			}
			if !yield(b[:len(b):len(b)], nil) {
				return
			}
		}
	}
}

// Floats returns n elements from element i on as float64, whatever numeric
// type they are stored in; bools are 0 and 1.
func (a *ArrayReader) Floats(i, n uint64) ([]float64, error) {
	return numbers(a, i, n, func(bits uint64) (float64, bool) {
		if a.Elem == Float32 || a.Elem == Float64 {
			return float(a.Elem, bits), true
		}
		v, ok := integer(a.Elem, bits)
		if !ok {
			return float64(bits), true
		}
		return float64(v), true
	})
}

// Ints returns n elements from element i on as int64; bools are 0 and 1. An
// array of floats, and a number over the range of int64, is an error.
func (a *ArrayReader) Ints(i, n uint64) ([]int64, error) {
	return numbers(a, i, n, func(bits uint64) (int64, bool) {
		if a.Elem == Float32 || a.Elem == Float64 {
			return 0, false
		}
		return integer(a.Elem, bits)
	})
}

// numbers reads n numbers from element i on through convert.
func numbers[T any](a *ArrayReader, i, n uint64, convert func(uint64) (T, bool)) ([]T, error) {
	r := a.reader()
	w := a.Elem.width()
	switch {
	case w == 0:
		r.Fail(printable(a.kv.Key), "elements are %v, want numbers", a.Elem)
	case i > a.Count || n > a.Count-i:
		r.Fail(printable(a.kv.Key), "no elements %d to %d of %d", i, i+n, a.Count)
	case n > maxText/8:
		r.Fail(printable(a.kv.Key), "%d elements are over the limit of %d at once", n, maxText/8)
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	r.Skip("numbers", i*w)
	out := make([]T, n)
	for j := range out {
		v, ok := convert(r.Uint(printable(a.kv.Key), w))
		if !ok {
			r.Fail(printable(a.kv.Key), "element %d is no 64-bit signed integer", i+uint64(j))
		}
		if err := r.Err(); err != nil {
			return nil, err
		}
		out[j] = v
	}
	return out, nil
}

// reader returns a reader at the first element that ends with the array.
func (a *ArrayReader) reader() *bin.Reader {
	r := bin.NewReader("gguf", a.file.src, a.kv.ValueOffset+int64(a.kv.Bytes))
	r.SetOffset(a.kv.ValueOffset)
	if a.file.BigEndian {
		r.SetBigEndian()
	}
	return r
}
