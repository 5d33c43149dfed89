// Package bin reads binary headers from an io.ReaderAt within bounds. Its
// reader keeps the first error, with the byte offset of the field that caused
// it, and holds one window of the file whatever the file says of its own size.
package bin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"weigh/formats"
)

const (
	window   = 32 << 10 // bytes read at once: a system call is cheap beside them, and they stay in a core's cache
	maxFetch = 1 << 28  // bytes read before a header is refused: it bounds the time
)

// Why a field was refused, for errors.Is on what Err returns.
var (
	ErrTruncated = errors.New("the file ends too early")
	ErrLimit     = errors.New("over the limit")
	ErrIO        = errors.New("read failed")
)

// A fault is a refusal and its kind, for errors.Is.
type fault struct {
	error
	kind error
}

func (f fault) Unwrap() []error {
	if f.kind == nil {
		return []error{f.error}
	}
	return []error{f.error, f.kind}
}

// A Reader walks a file of known size forwards. After the first error every
// read returns a zero value.
type Reader struct {
	format  string
	src     io.ReaderAt
	size    int64
	big     bool
	store   []byte // backs win
	win     []byte // file bytes [base, base+len(win))
	base    int64
	pos     int   // next byte, as an index into win
	fetched int64 // bytes read so far
	at      int64 // offset of the field last begun
	err     *formats.Error
}

// NewReader returns a little-endian reader at the start of src, which holds
// size bytes. The format names the errors.
func NewReader(format string, src io.ReaderAt, size int64) *Reader {
	return &Reader{format: format, src: src, size: max(size, 0)}
}

// SetBigEndian makes the numbers that follow big-endian.
func (r *Reader) SetBigEndian() { r.big = true }

// SetOffset continues reading at the byte offset off, which may be the end of
// the file.
func (r *Reader) SetOffset(off int64) {
	if d := off - r.base; d >= 0 && d <= int64(len(r.win)) {
		r.pos = int(d)
		return
	}
	r.base, r.win, r.pos = off, nil, 0
}

// Offset returns the byte offset of the next field.
func (r *Reader) Offset() int64 { return r.base + int64(r.pos) }

// Left returns the bytes from the next field to the end of the file.
func (r *Reader) Left() uint64 { return uint64(max(r.size-r.Offset(), 0)) }

// Err returns the first error, or nil.
func (r *Reader) Err() *formats.Error { return r.err }

// Fail refuses the field last read, unless an earlier one was refused.
func (r *Reader) Fail(field, format string, args ...any) {
	r.fail(field, nil, format, args...)
}

func (r *Reader) fail(field string, kind error, format string, args ...any) {
	if r.err == nil {
		r.err = &formats.Error{
			Format: r.format, Offset: r.at, Field: field,
			Err: fault{fmt.Errorf(format, args...), kind},
		}
	}
}

// need begins a field of n bytes and reports whether the window holds them.
func (r *Reader) need(field string, n int) bool {
	if r.err != nil {
		return false
	}
	r.at = r.Offset()
	return len(r.win)-r.pos >= n || r.fill(field, n)
}

// fill reads a new window at the next byte, with at least n bytes.
func (r *Reader) fill(field string, n int) bool {
	off, left := r.Offset(), r.Left()
	if left < uint64(n) {
		r.fail(field, ErrTruncated, "need %d bytes, %d left", n, left)
		return false
	}
	if r.fetched > maxFetch {
		r.fail(field, ErrLimit, "the header takes more than %d bytes to read", int64(maxFetch))
		return false
	}
	get := int(min(uint64(max(n, window)), left))
	if cap(r.store) < get {
		r.store = make([]byte, get)
	}
	r.win, r.base, r.pos = r.store[:get], off, 0
	k, err := r.src.ReadAt(r.win, off)
	r.win = r.win[:k]
	r.fetched += int64(k)
	if k >= n {
		return true
	}
	if err == nil || err == io.EOF {
		r.fail(field, ErrTruncated, "the file ended at byte %d of %d while it was read: it changed", off+int64(k), r.size)
		return false
	}
	r.err = &formats.Error{Format: r.format, Offset: r.at, Field: field, Err: fmt.Errorf("%w: %w", ErrIO, err)}
	return false
}

// U8 reads one byte.
func (r *Reader) U8(field string) uint8 {
	if !r.need(field, 1) {
		return 0
	}
	r.pos++
	return r.win[r.pos-1]
}

// U16 reads a 16-bit number.
func (r *Reader) U16(field string) uint16 {
	if !r.need(field, 2) {
		return 0
	}
	v := binary.LittleEndian.Uint16(r.win[r.pos:])
	r.pos += 2
	if r.big {
		v = bits.ReverseBytes16(v)
	}
	return v
}

// U32 reads a 32-bit number.
func (r *Reader) U32(field string) uint32 {
	if !r.need(field, 4) {
		return 0
	}
	v := binary.LittleEndian.Uint32(r.win[r.pos:])
	r.pos += 4
	if r.big {
		v = bits.ReverseBytes32(v)
	}
	return v
}

// U64 reads a 64-bit number.
func (r *Reader) U64(field string) uint64 {
	if !r.need(field, 8) {
		return 0
	}
	v := binary.LittleEndian.Uint64(r.win[r.pos:])
	r.pos += 8
	if r.big {
		v = bits.ReverseBytes64(v)
	}
	return v
}

// Uint reads a number of width 1, 2, 4 or 8 bytes.
func (r *Reader) Uint(field string, width uint64) uint64 {
	switch width {
	case 1:
		return uint64(r.U8(field))
	case 2:
		return uint64(r.U16(field))
	case 4:
		return uint64(r.U32(field))
	}
	return r.U64(field)
}

// Count reads a 64-bit record count. It refuses a count over limit, and one
// of which the rest of the file cannot hold the records at minBytes each.
func (r *Reader) Count(field string, minBytes, limit uint64) uint64 {
	n := r.U64(field)
	switch {
	case r.err != nil:
		return 0
	case n > r.Left()/minBytes:
		r.fail(field, ErrTruncated, "%d records of at least %d bytes do not fit in %d bytes", n, minBytes, r.Left())
		return 0
	case n > limit:
		r.fail(field, ErrLimit, "%d records are over the limit of %d", n, limit)
		return 0
	}
	return n
}

// Length reads a 64-bit byte count, at most limit and what the file still
// holds.
func (r *Reader) Length(field string, limit uint64) uint64 {
	n := r.U64(field)
	switch {
	case r.err != nil:
		return 0
	case n > r.Left():
		r.fail(field, ErrTruncated, "need %d bytes, %d left", n, r.Left())
		return 0
	case n > limit:
		r.fail(field, ErrLimit, "length %d is over the limit of %d bytes", n, limit)
		return 0
	}
	return n
}

// Bytes reads n bytes, at most limit. The slice holds until the next call.
func (r *Reader) Bytes(field string, n, limit uint64) []byte {
	if r.err != nil {
		return nil
	}
	if n > limit {
		r.at = r.Offset()
		r.fail(field, ErrLimit, "length %d is over the limit of %d bytes", n, limit)
		return nil
	}
	if n > r.Left() {
		r.at = r.Offset()
		r.fail(field, ErrTruncated, "need %d bytes, %d left", n, r.Left())
		return nil
	}
	if !r.need(field, int(n)) {
		return nil
	}
	r.pos += int(n)
	return r.win[r.pos-int(n) : r.pos]
}

// Skip passes over n bytes without reading them.
func (r *Reader) Skip(field string, n uint64) {
	if r.err != nil {
		return
	}
	if n > r.Left() {
		r.at = r.Offset()
		r.fail(field, ErrTruncated, "need %d bytes, %d left", n, r.Left())
		return
	}
	r.SetOffset(r.Offset() + int64(n))
}

// SkipStrings passes over n strings, each a 64-bit length and that many
// bytes, and checks every length against limit and the end of the file.
func (r *Reader) SkipStrings(field string, n, limit uint64) {
	for left := n; left > 0 && r.err == nil; left-- {
		if left = r.skipInWindow(left, limit); left == 0 {
			return
		}
		size := r.Length(field, limit)
		if r.err != nil {
			r.err.Field = fmt.Sprintf("%s element %d length", field, n-left)
			return
		}
		r.Skip(field, size)
	}
}

// skipInWindow passes over the strings that lie whole in the window, up to n,
// and returns how many of n remain.
func (r *Reader) skipInWindow(n, limit uint64) uint64 {
	win, pos := r.win, r.pos
	for ; n > 0 && pos <= len(win)-8; n-- {
		size := binary.LittleEndian.Uint64(win[pos:])
		if r.big {
			size = bits.ReverseBytes64(size)
		}
		if size > uint64(len(win)-8-pos) || size > limit {
			break
		}
		pos += 8 + int(size)
	}
	r.pos = pos
	return n
}
