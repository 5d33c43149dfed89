// Package render writes for people: text that is safe on a terminal, sizes,
// columns and bars.
package render

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
	"github.com/dustin/go-humanize"
	"golang.org/x/term"
)

// Text returns untrusted text for one line of a terminal: what cannot be
// printed, escape sequences and characters that turn the direction of writing
// among them, becomes U+FFFD, and line breaks become spaces.
func Text(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// JSON returns a JSON text in which what cannot be printed is escaped: the text
// may be written to a terminal, and JSON itself allows characters that one obeys.
func JSON(text []byte) []byte {
	odd := func(r rune) bool { return r >= 0x7f && !unicode.IsPrint(r) }
	if bytes.IndexFunc(text, odd) < 0 {
		return text
	}
	out := make([]byte, 0, len(text)+len(text)/8)
	for _, r := range string(text) {
		if !odd(r) {
			out = utf8.AppendRune(out, r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			out = fmt.Appendf(out, "\\u%04x", unit)
		}
	}
	return out
}

// Bytes returns a size in binary units with three digits, such as "18.2 GiB".
func Bytes(n uint64) string { return humanize.IBytesN(n, 3) }

// Size returns a size, or "unknown".
func Size(n *uint64) string {
	if n == nil {
		return "unknown"
	}
	return Bytes(*n)
}

// A Style says how a writer may be written to. The zero value is plain text.
type Style struct {
	Color bool // colours and emphasis
	Bars  bool // bars of block characters
	Width int  // columns; 0: as wide as the text
}

// Wide is a writer that nothing is broken or cut for.
type Wide struct{ io.Writer }

// StyleOf returns the style of a writer: plain unless it is a terminal, and
// without colour when NO_COLOR is set or the terminal is dumb.
func StyleOf(w io.Writer) Style {
	if v, ok := w.(Wide); ok {
		s := StyleOf(v.Writer)
		s.Width = 0
		return s
	}
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return Style{}
	}
	s := Style{Color: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb", Bars: true}
	if width, _, err := term.GetSize(int(f.Fd())); err == nil {
		s.Width = width
	}
	return s
}

// Bold emphasises text where the style has colours.
func (s Style) Bold(text string) string { return s.sgr("1", text) }

// Red colours text where the style has colours.
func (s Style) Red(text string) string { return s.sgr("31", text) }

// Green colours text where the style has colours.
func (s Style) Green(text string) string { return s.sgr("32", text) }

// Yellow colours text where the style has colours.
func (s Style) Yellow(text string) string { return s.sgr("33", text) }

// Dim greys text where the style has colours.
func (s Style) Dim(text string) string { return s.sgr("2", text) }

func (s Style) sgr(code, text string) string {
	if !s.Color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// Bar returns a bar of width columns of which part/whole is filled, and "" in a
// style without bars.
func (s Style) Bar(part, whole uint64, width int) string {
	if !s.Bars || whole == 0 {
		return ""
	}
	filled := int(float64(min(part, whole)) / float64(whole) * float64(width))
	return strings.Repeat("█", filled) + strings.Repeat("░", width-filled)
}

// Columns writes rows as columns as wide as their longest cell, two spaces
// apart. Columns listed in right are set to the right. On a terminal that is too
// narrow the others, but for the first, are broken between words, the widest
// before all, and then the first is cut in its middle.
func Columns(w io.Writer, rows [][]string, right ...int) {
	columns(w, StyleOf(w).Width, rows, right)
}

const (
	gap       = 2  // between columns
	leastCell = 10 // columns that a broken or cut cell keeps
)

func columns(w io.Writer, limit int, rows [][]string, right []int) {
	var width []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], Width(cell))
		}
	}
	over := -limit
	for i, n := range width {
		over += n + gap*min(i, 1)
	}
	for limit > 0 && over > 0 {
		widest := 0
		for i := range width {
			if i > 0 && width[i] > max(leastCell, width[widest]*min(widest, 1)) && !slices.Contains(right, i) {
				widest = i
			}
		}
		if widest == 0 && (width[0] <= leastCell || slices.Contains(right, 0)) {
			break
		}
		width[widest]--
		over--
	}
	for _, row := range rows {
		cells := make([][]string, len(row))
		lines := 1
		for i, cell := range row {
			switch {
			case Width(cell) <= width[i]:
				cells[i] = []string{cell}
			case i == 0:
				cells[i] = []string{Cut(cell, width[i])}
			default:
				cells[i] = fold(cell, width[i], true)
			}
			lines = max(lines, len(cells[i]))
		}
		for n := range lines {
			var line strings.Builder
			for i := range row {
				cell := ""
				if n < len(cells[i]) {
					cell = cells[i][n]
				}
				pad := strings.Repeat(" ", max(width[i]-Width(cell), 0))
				if i > 0 {
					line.WriteString(strings.Repeat(" ", gap))
				}
				if slices.Contains(right, i) {
					line.WriteString(pad + cell)
				} else {
					line.WriteString(cell + pad)
				}
			}
			fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
		}
	}
}

// Prose writes a line of words, broken on a terminal to its width; what follows
// the first line is indented by hang.
func Prose(w io.Writer, hang int, text string) { StyleOf(w).Prose(w, hang, text) }

// Prose is [Prose] for a terminal of s.
func (s Style) Prose(w io.Writer, hang int, text string) {
	width := s.Width
	if width == 0 || Width(text) <= width {
		fmt.Fprintln(w, text)
		return
	}
	words := strings.TrimLeft(text, " ")
	indent := text[:len(text)-len(words)]
	for i, line := range fold(words, max(width-len(indent)-hang, leastCell), false) {
		fmt.Fprintln(w, indent+strings.Repeat(" ", hang*min(i, 1))+line)
	}
}

// fold breaks text between words into lines of at most width columns. A word
// that is wider has a line for itself, or is broken anywhere if hard is set.
func fold(text string, width int, hard bool) (lines []string) {
	line, at := "", 0
	for _, word := range strings.Split(text, " ") {
		if n := Width(word); hard && n > width {
			if line != "" {
				lines = append(lines, line)
			}
			parts := strings.Split(ansi.Hardwrap(word, width, true), "\n")
			lines = append(lines, parts[:len(parts)-1]...)
			line = parts[len(parts)-1]
			at = Width(line)
			continue
		}
		n := Width(word)
		switch {
		case line == "":
			line, at = word, n
		case at+1+n > width:
			lines = append(lines, line)
			line, at = word, n
		default:
			line += " " + word
			at += 1 + n
		}
	}
	return append(lines, line)
}

// Width is how many columns of a terminal text takes; colours take none.
func Width(text string) int { return ansi.StringWidth(text) }

// Cut shortens plain text to width columns by leaving out some of its middle:
// names begin alike and end in what tells them apart, so more of the end stays.
func Cut(text string, width int) string {
	if Width(text) <= width {
		return text
	}
	head := max(width/3, 0)
	tail := max(width-head-1, 0)
	r := []rune(text)
	from := len(r)
	for from > 0 && Width(string(r[from-1:])) <= tail {
		from--
	}
	return ansi.Truncate(text, head, "") + "…" + string(r[from:])
}
