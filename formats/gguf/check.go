package gguf

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode"
	"unicode/utf8"

	"weigh/formats"
	"weigh/formats/internal/bin"
)

// maxProblems bounds the report of one file.
const maxProblems = 1000

// Check reads the header of the GGUF file of size bytes in src and returns
// every fault of its structure in file order, not only the first; a fault that
// hides where the next field is ends it. No problem of severity error means
// that Read succeeds with a little-endian file whose types are all known.
func Check(src io.ReaderAt, size int64) []formats.Problem {
	p := newParser(src, size)
	p.all = true
	p.parse()
	return p.problems
}

// A parser reads one header for Read or Check.
type parser struct {
	*bin.Reader
	file *File
	all  bool           // Check: go on after a fault and list it
	err  *formats.Error // the first fault that Read fails on

	problems []formats.Problem
	part     string // "key" or "tensor": what is being read
	index    int
	name     string // of that part, once known
	keyBytes uint64
	keptLeft uint64
}

func newParser(src io.ReaderAt, size int64) *parser {
	return &parser{
		Reader:   bin.NewReader("gguf", src, size),
		file:     &File{Size: size, src: src, Alignment: defaultAlignment},
		keptLeft: maxKeptAll,
	}
}

// stopped reports whether there is nothing more to read: after a fault of
// structure, or for Read after any.
func (p *parser) stopped() bool { return p.Err() != nil || p.err != nil && !p.all }

// finish turns the fault that stopped the reader into a problem.
func (p *parser) finish() {
	err := p.Err()
	if err == nil {
		return
	}
	err.Field = p.field(err.Field)
	code := "malformed-header"
	var lfs *formats.LFSPointer
	switch {
	case errors.As(err, &lfs):
		code = "lfs-pointer"
	case errors.Is(err, bin.ErrTruncated):
		code = "truncated-header"
	case errors.Is(err, bin.ErrLimit):
		code = "over-limit"
	case errors.Is(err, bin.ErrIO):
		code = "read-failed"
	}
	p.add(formats.SeverityError, code, err)
	p.err = cmp.Or(p.err, err)
}

// reject reports a fault that Read fails on.
func (p *parser) reject(code string, offset int64, field, format string, args ...any) {
	if p.stopped() {
		return
	}
	err := &formats.Error{Format: "gguf", Offset: offset, Field: p.field(field), Err: fmt.Errorf(format, args...)}
	p.add(formats.SeverityError, code, err)
	p.err = cmp.Or(p.err, err)
}

// mark reports what llama.cpp refuses and Read keeps.
func (p *parser) mark(code string, offset int64, field, format string, args ...any) {
	p.note(formats.SeverityError, code, offset, field, format, args...)
}

// warn reports what is odd and loads.
func (p *parser) warn(code string, offset int64, field, format string, args ...any) {
	p.note(formats.SeverityWarning, code, offset, field, format, args...)
}

func (p *parser) note(s string, code string, offset int64, field, format string, args ...any) {
	if p.all && p.Err() == nil {
		p.add(s, code, &formats.Error{Offset: offset, Field: p.field(field), Err: fmt.Errorf(format, args...)})
	}
}

func (p *parser) add(s string, code string, err *formats.Error) {
	switch n := len(p.problems); {
	case !p.all || n > maxProblems:
	case n == maxProblems:
		p.problems = append(p.problems, formats.Problem{
			Severity: formats.SeverityError, Code: "too-many-problems", Field: err.Field, Offset: err.Offset,
			Message: fmt.Sprintf("%d problems are listed; there are more", maxProblems),
		})
	default:
		p.problems = append(p.problems, formats.Problem{Severity: s, Code: code, Field: err.Field, Offset: err.Offset, Message: err.Err.Error()})
	}
}

// field names a field with the key or tensor it belongs to.
func (p *parser) field(field string) string {
	switch {
	case p.part == "":
		return field
	case p.name == "":
		return p.part + " " + strconv.Itoa(p.index) + " " + field
	case p.part == "key":
		return printable(p.name) + " " + field
	}
	return p.part + " " + strconv.Itoa(p.index) + " (" + printable(p.name) + ") " + field
}

// printable returns s for an error message: quoted where a byte of it could
// act on a terminal, and cut to 80 bytes.
func printable(s string) string {
	const most = 80
	cut := len(s) > most
	if cut {
		s = s[:most]
	}
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			s = strconv.QuoteToASCII(s)
			break
		}
	}
	if cut {
		s += "…"
	}
	return s
}
