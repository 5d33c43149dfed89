// Package render writes for people: text that is safe on a terminal, sizes,
// columns and bars.
package render

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode"

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

// StyleOf returns the style of a writer: plain unless it is a terminal, and
// without colour when NO_COLOR is set or the terminal is dumb.
func StyleOf(w io.Writer) Style {
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
// apart. Columns listed in right are set to the right.
func Columns(w io.Writer, rows [][]string, right ...int) {
	var width []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], len([]rune(cell)))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-len([]rune(cell)))
			if i > 0 {
				line.WriteString("  ")
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
