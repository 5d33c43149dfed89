// Package jsonscan reads JSON one token at a time from a file, with byte
// offsets, duplicate keys kept, a depth limit and a memory budget. It builds no
// values; the formats do.
package jsonscan

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"weigh/formats"
)

// MaxDepth is the number of arrays and objects that may be open at once, that
// of serde_json, which the safetensors reference uses.
//
// Source: serde_json 1.0 src/de.rs, Deserializer.remaining_depth.
const MaxDepth = 127

// maxNumber bounds the digits of one number, maxString the bytes of one string
// that is returned whole.
const (
	maxNumber = 4096
	maxString = 4 << 20
)

// budget is what the text of one file may cost in memory at first.
const budget = 32 << 20

// A Scanner reads one JSON text. The first fault stays: every later call
// returns zero values at once, so loops end and the caller checks Err once.
type Scanner struct {
	// Python admits the bare words that Python's json module writes and reads:
	// NaN, Infinity and -Infinity.
	Python bool
	// Budget is how many bytes of strings and charges the text may still cost.
	Budget int64
	// Known strings are returned without a copy of their own.
	Known []string

	format  string
	field   string
	src     io.ReaderAt
	next    int64 // file offset of the first byte after buf
	end     int64
	buf     []byte // the unread window
	window  []byte
	depth   int
	scratch []byte
	err     error
}

// New returns a scanner over the bytes [off, end) of src. Errors name the
// format and field.
func New(src io.ReaderAt, off, end int64, format, field string) *Scanner {
	return &Scanner{
		format: format, field: field, src: src, next: off, end: end,
		window: make([]byte, min(max(end-off, 0), 64<<10)), Budget: budget,
	}
}

// Err returns the first fault as a *formats.Error, or nil.
func (s *Scanner) Err() error { return s.err }

// Offset returns the file offset of the next byte.
func (s *Scanner) Offset() int64 { return s.next - int64(len(s.buf)) }

// Fail records a fault at byte offset at, unless there is one already.
func (s *Scanner) Fail(at int64, format string, args ...any) {
	if s.err == nil {
		s.err = &formats.Error{Format: s.format, Offset: at, Field: s.field, Err: fmt.Errorf(format, args...)}
	}
}

// Charge takes n bytes from the budget.
func (s *Scanner) Charge(n int) {
	if s.Budget -= int64(n); s.Budget < 0 {
		s.Fail(s.Offset(), "describes more than this reader will hold in memory")
	}
}

// Refund gives back what a string cost that is not kept.
func (s *Scanner) Refund(text string) { s.Budget += int64(len(text)) }

// fill makes at least one byte available; false at the end or on a fault.
func (s *Scanner) fill() bool {
	if len(s.buf) > 0 {
		return s.err == nil
	}
	n := min(int64(len(s.window)), s.end-s.next)
	if n <= 0 || s.err != nil {
		return false
	}
	got, err := s.src.ReadAt(s.window[:n], s.next)
	if int64(got) < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		s.Fail(s.next+int64(got), "%w", err)
		return false
	}
	s.buf, s.next = s.window[:n], s.next+n
	return true
}

// Peek skips white space and returns the next byte, 0 at the end of the text.
func (s *Scanner) Peek() byte {
	for s.fill() {
		for i, c := range s.buf {
			switch c {
			case ' ', '\t', '\r', '\n':
				continue
			case 0:
				s.buf = s.buf[i:]
				s.Fail(s.Offset(), "a NUL byte, want JSON")
				return 0
			}
			s.buf = s.buf[i:]
			return c
		}
		s.buf = nil
	}
	return 0
}

// End checks that only white space is left.
func (s *Scanner) End() {
	if c := s.Peek(); c != 0 {
		s.Fail(s.Offset(), "%q after the end of the JSON text", c)
	}
}

// want consumes the byte c.
func (s *Scanner) want(c byte) bool {
	if got := s.Peek(); got != c {
		s.unexpected(got, strconv.QuoteRune(rune(c)))
		return false
	}
	s.buf = s.buf[1:]
	return true
}

func (s *Scanner) unexpected(got byte, want string) {
	if got == 0 {
		s.Fail(s.Offset(), "the text ends, want %s", want)
		return
	}
	s.Fail(s.Offset(), "%q, want %s", got, want)
}

// enter opens an array or object.
func (s *Scanner) enter(open byte) bool {
	if !s.want(open) {
		return false
	}
	if s.depth++; s.depth > MaxDepth {
		s.Fail(s.Offset()-1, "nested more than %d deep", MaxDepth)
	}
	return s.err == nil
}

// more says whether another element follows, the i-th.
func (s *Scanner) more(i int, end byte) bool {
	c := s.Peek()
	switch {
	case s.err != nil:
		return false
	case c == end:
		s.buf = s.buf[1:]
		s.depth--
		return false
	case i == 0:
		return true
	case c != ',':
		s.unexpected(c, fmt.Sprintf("',' or %q", end))
		return false
	}
	s.buf = s.buf[1:]
	if s.Peek() == end {
		s.Fail(s.Offset(), "a comma before %q", end)
	}
	return s.err == nil
}

// Object reads an object. It calls member with each key and the key's offset;
// member reads the value.
func (s *Scanner) Object(member func(key string, at int64)) {
	if !s.enter('{') {
		return
	}
	for i := 0; s.more(i, '}'); i++ {
		s.Peek()
		at := s.Offset()
		key := s.String()
		if !s.want(':') {
			return
		}
		member(key, at)
	}
}

// Array reads an array. It calls element with each index; element reads the
// value.
func (s *Scanner) Array(element func(i int)) {
	if !s.enter('[') {
		return
	}
	for i := 0; s.more(i, ']'); i++ {
		element(i)
	}
}

// String reads a string and takes its length from the budget.
func (s *Scanner) String() string {
	s.Peek()
	at := s.Offset()
	text, n := s.Head(maxString)
	if n > maxString {
		s.Fail(at, "a string of %d bytes, more than the %d that this reader takes", n, maxString)
		return ""
	}
	return text
}

// Head reads a string of n bytes and returns the first most of them, whole
// characters only, which it takes from the budget.
func (s *Scanner) Head(most int) (head string, n int64) {
	n = s.text(most)
	if s.err != nil {
		return "", 0
	}
	for n > int64(most) && len(s.scratch) > 0 {
		if r, size := utf8.DecodeLastRune(s.scratch); r != utf8.RuneError || size > 1 {
			break
		}
		s.scratch = s.scratch[:len(s.scratch)-1]
	}
	for _, k := range s.Known {
		if k == string(s.scratch) {
			return k, n
		}
	}
	return string(s.scratch), n
}

// text reads a string of n bytes, the first of which, up to most, into scratch.
func (s *Scanner) text(most int) (n int64) {
	if !s.want('"') {
		return 0
	}
	s.scratch = s.scratch[:0]
	keep := func(b []byte) {
		n += int64(len(b))
		if len(s.scratch) >= most {
			return
		}
		if room := most - len(s.scratch); len(b) > room {
			b = b[:room]
			most = 0 // nothing follows what is cut
		}
		s.Charge(len(b))
		s.scratch = append(s.scratch, b...)
	}
	utf := utf8check{}
	for s.fill() {
		i := 0
		for i < len(s.buf) && s.buf[i] != '"' && s.buf[i] != '\\' && s.buf[i] >= 0x20 {
			i++
		}
		if i > 0 {
			if bad := utf.add(s.buf[:i]); bad >= 0 {
				s.Fail(s.Offset()+int64(bad), "not UTF-8 inside a string")
				return n
			}
			keep(s.buf[:i])
			s.buf = s.buf[i:]
		}
		if len(s.buf) == 0 {
			continue
		}
		if utf.partial() {
			s.Fail(s.Offset(), "not UTF-8 inside a string")
			return n
		}
		switch c := s.buf[0]; c {
		case '"':
			s.buf = s.buf[1:]
			return n
		case '\\':
			s.buf = s.buf[1:]
			var char [utf8.UTFMax]byte
			keep(char[:utf8.EncodeRune(char[:], s.escape())])
		default:
			s.Fail(s.Offset(), "control character %q inside a string", c)
			return n
		}
	}
	s.Fail(s.Offset(), "the text ends inside a string")
	return n
}

// escape reads what follows a backslash.
func (s *Scanner) escape() rune {
	at := s.Offset() - 1
	if !s.fill() {
		s.Fail(at, "the text ends inside a string")
		return 0
	}
	c := s.buf[0]
	s.buf = s.buf[1:]
	switch c {
	case '"', '\\', '/':
		return rune(c)
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'u':
		r := s.hex4(at)
		if !utf16.IsSurrogate(r) {
			return r
		}
		if s.byte() == '\\' && s.byte() == 'u' {
			if r = utf16.DecodeRune(r, s.hex4(at)); r != utf8.RuneError {
				return r
			}
		}
		s.Fail(at, "a lone surrogate escape inside a string")
		return 0
	}
	s.Fail(at, "unknown escape %q inside a string", c)
	return 0
}

// byte reads one byte, 0 at the end.
func (s *Scanner) byte() byte {
	if !s.fill() {
		return 0
	}
	c := s.buf[0]
	s.buf = s.buf[1:]
	return c
}

func (s *Scanner) hex4(at int64) (r rune) {
	for range 4 {
		c := s.byte()
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			s.Fail(at, "\\u without four hexadecimal digits")
			return 0
		}
		r = r<<4 | rune(c)
	}
	return r
}

// Number reads a number and returns its text, valid until the next call. A
// number that overflows a double is a fault, as it is for serde_json.
func (s *Scanner) Number() []byte {
	c := s.Peek()
	at := s.Offset()
	s.scratch = s.scratch[:0]
	if s.Python && (c == 'N' || c == 'I') {
		return s.pythonNumber()
	}
	take := func() {
		if len(s.scratch) == maxNumber {
			s.Fail(at, "a number of more than %d characters", maxNumber)
		}
		s.scratch = append(s.scratch, s.byte())
	}
	peek := func() byte {
		if !s.fill() {
			return 0
		}
		return s.buf[0]
	}
	digits := func() {
		if d := peek(); d < '0' || d > '9' {
			s.unexpected(d, "a digit")
		}
		for d := peek(); d >= '0' && d <= '9'; d = peek() {
			take()
		}
	}
	if c == '-' {
		take()
		if s.Python && peek() == 'I' {
			return s.pythonNumber()
		}
	}
	if peek() == '0' {
		take()
		if d := peek(); d >= '0' && d <= '9' {
			s.Fail(at, "a number with a leading zero")
		}
	} else {
		digits()
	}
	real := false
	if peek() == '.' {
		real = true
		take()
		digits()
	}
	if e := peek(); e == 'e' || e == 'E' {
		real = true
		take()
		if sign := peek(); sign == '+' || sign == '-' {
			take()
		}
		digits()
	}
	if s.err != nil {
		return nil
	}
	if real || len(s.scratch) > 300 {
		if _, err := strconv.ParseFloat(string(s.scratch), 64); err != nil {
			s.Fail(at, "number %.40s is out of range", s.scratch)
			return nil
		}
	}
	return s.scratch
}

// pythonNumber reads NaN or Infinity after the sign in scratch.
func (s *Scanner) pythonNumber() []byte {
	word := "Infinity"
	if s.buf[0] == 'N' {
		word = "NaN"
	}
	s.literal(word)
	s.scratch = append(s.scratch, word...)
	return s.scratch
}

// Uint reads a number that must be a whole one from 0 to 2^64-1, in digits
// alone. ok is false, and the value consumed, when it is another number.
func (s *Scanner) Uint() (n uint64, ok bool) {
	n, err := strconv.ParseUint(string(s.Number()), 10, 64)
	return n, err == nil && s.err == nil
}

// Null reads null.
func (s *Scanner) Null() { s.literal("null") }

// Bool reads true or false.
func (s *Scanner) Bool() bool {
	if s.Peek() == 't' {
		s.literal("true")
		return s.err == nil
	}
	s.literal("false")
	return false
}

func (s *Scanner) literal(word string) {
	at := s.Offset()
	for i := range len(word) {
		if s.byte() != word[i] {
			s.Fail(at, "want %s", word)
			return
		}
	}
}

// A Kind tells values apart by their first byte.
type Kind byte

// The kinds of value.
const (
	None   Kind = iota // the end of the text, or no value
	Object             // {
	Array              // [
	String             // "
	Number             // a digit or -, and with Python also N and I
	Bool               // t or f
	Null               // n
)

// String names the kind as an error message does.
func (k Kind) String() string {
	return [...]string{"no value", "an object", "an array", "a string", "a number", "a boolean", "null"}[k]
}

// Kind returns the kind of the next value.
func (s *Scanner) Kind() Kind {
	switch c := s.Peek(); {
	case c == '{':
		return Object
	case c == '[':
		return Array
	case c == '"':
		return String
	case c == '-', c >= '0' && c <= '9', s.Python && (c == 'N' || c == 'I'):
		return Number
	case c == 't', c == 'f':
		return Bool
	case c == 'n':
		return Null
	}
	return None
}

// Skip reads past the next value, whatever it is.
func (s *Scanner) Skip() {
	switch s.Kind() {
	case Object:
		if s.enter('{') {
			for i := 0; s.more(i, '}'); i++ {
				s.Peek()
				s.text(0)
				if !s.want(':') {
					return
				}
				s.Skip()
			}
		}
	case Array:
		s.Array(func(int) { s.Skip() })
	case String:
		s.text(0)
	case Number:
		s.Number()
	case Bool:
		s.Bool()
	case Null:
		s.Null()
	default:
		s.unexpected(s.Peek(), "a value")
	}
}

// utf8check validates text that arrives in pieces.
type utf8check struct {
	rest [utf8.UTFMax]byte
	n    int
}

// add returns the index in b near which the text stops being UTF-8, or -1.
func (u *utf8check) add(b []byte) int {
	i := 0
	for u.n > 0 && i < len(b) {
		u.rest[u.n] = b[i]
		u.n++
		i++
		if utf8.FullRune(u.rest[:u.n]) {
			if r, size := utf8.DecodeRune(u.rest[:u.n]); r == utf8.RuneError && size == 1 {
				return i - 1
			}
			u.n = 0
		}
	}
	if utf8.Valid(b[i:]) {
		return -1
	}
	for i < len(b) {
		r, size := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && size == 1 {
			if utf8.FullRune(b[i:]) {
				return i
			}
			u.n = copy(u.rest[:], b[i:])
			return -1
		}
		i += size
	}
	return -1
}

// partial reports whether a character is cut.
func (u *utf8check) partial() bool { return u.n > 0 }
