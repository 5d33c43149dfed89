package render

import (
	"bytes"
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	tests := map[string]struct{ in, want string }{
		"plain":                   {"Llama 3.1 (8B)", "Llama 3.1 (8B)"},
		"letters of any script":   {"模型 é", "模型 é"},
		"an escape sequence":      {"a\x1b[31mb", "a\ufffd[31mb"},
		"a title of the terminal": {"\x1b]0;x\x07", "\ufffd]0;x\ufffd"},
		"a C1 control":            {"a\u009bb", "a\ufffdb"},
		"line breaks":             {"a\r\nb\tc", "a  b c"},
		"turned direction":        {"a\u202eb", "a\ufffdb"},
		"zero width":              {"a\u200bb", "a\ufffdb"},
		"no UTF-8":                {"a\xffb", "a\ufffdb"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Text(tt.in); got != tt.want {
				t.Errorf("Text(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

func TestColumns(t *testing.T) {
	var b bytes.Buffer
	Columns(&b, [][]string{{"name", "size"}, {"é", "1 GiB"}, {"longer", ""}}, 1)
	if got, want := b.String(), "name     size\né       1 GiB\nlonger\n"; got != want {
		t.Errorf("Columns() wrote\n%q, want\n%q", got, want)
	}
}

func TestStyle(t *testing.T) {
	plain := StyleOf(&bytes.Buffer{})
	if plain != (Style{}) || plain.Bold("x") != "x" || plain.Bar(1, 2, 10) != "" {
		t.Errorf("a buffer is written in style %+v", plain)
	}
	full := Style{Bars: true}
	if got := full.Bar(1, 4, 8); got != "██░░░░░░" {
		t.Errorf("Bar(1, 4, 8) = %s", got)
	}
	if got := full.Bar(9, 4, 8); got != strings.Repeat("█", 8) {
		t.Errorf("Bar(9, 4, 8) = %s", got)
	}
}
