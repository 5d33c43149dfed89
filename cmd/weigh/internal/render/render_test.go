package render

import (
	"bytes"
	"encoding/json"
	"slices"
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

func TestJSON(t *testing.T) {
	for name, text := range map[string]string{
		"plain":            "Llama 3.1 (8B) 模型 é\n<&>",
		"a C1 control":     "a\u009bb\x7f",
		"turned direction": "a\u202eb\u200b",
		"a tag":            "a\U000e0041b",
	} {
		var in bytes.Buffer
		e := json.NewEncoder(&in)
		e.SetEscapeHTML(false)
		if err := e.Encode(text); err != nil {
			t.Fatal(err)
		}
		out := JSON(in.Bytes())
		var got string
		if err := json.Unmarshal(out, &got); err != nil || got != text {
			t.Errorf("%s: JSON() = %q reads as %q, %v; want %q", name, out, got, err, text)
		}
		if clean := strings.TrimSuffix(string(out), "\n"); Text(clean) != clean {
			t.Errorf("%s: JSON() = %q holds what cannot be printed", name, out)
		}
	}
}

func TestColumns(t *testing.T) {
	var b bytes.Buffer
	Columns(&b, [][]string{{"name", "size"}, {"é", "1 GiB"}, {"longer", ""}}, 1)
	if got, want := b.String(), "name     size\né       1 GiB\nlonger\n"; got != want {
		t.Errorf("Columns() wrote\n%q, want\n%q", got, want)
	}
}

// TestColumnsOfANarrowTerminal holds that every line fits and every word stays.
func TestColumnsOfANarrowTerminal(t *testing.T) {
	rows := [][]string{
		{"a name of some length", "10.0 GiB", "why that is so, in a few more words than there is room for", "done"},
		{"模型 with a name as long", "1 GiB", "short", "\x1b[32mfits, with colours\x1b[0m"},
		{"x", "7 B", "a-word-that-is-far-too-long-for-its-column-and-cannot-be-broken", ""},
	}
	for _, limit := range []int{50, 60, 80, 100} {
		var b bytes.Buffer
		columns(&b, limit, rows, []int{1})
		var words []string
		for line := range strings.Lines(b.String()) {
			if n := Width(strings.TrimSuffix(line, "\n")); n > limit {
				t.Errorf("%d columns of %d: %s", n, limit, line)
			}
			words = append(words, strings.Fields(line)...)
		}
		for _, word := range []string{"10.0", "why", "there", "for", "done", "short", "7"} {
			if !slices.Contains(words, word) {
				t.Errorf("at %d columns %q is gone:\n%s", limit, word, b.String())
			}
		}
	}
	var wide, whole bytes.Buffer
	columns(&wide, 200, rows, []int{1})
	columns(&whole, 0, rows, []int{1})
	if wide.String() != whole.String() {
		t.Errorf("a wide terminal changes the table to\n%s", wide.String())
	}
}

func TestCut(t *testing.T) {
	for _, width := range []int{5, 8, 20} {
		for _, name := range []string{"CUDA0 GeForce RTX 3060", "模型的名字很长很长很长"} {
			got := Cut(name, width)
			if Width(got) > width || !strings.Contains(got, "…") && Width(name) > width {
				t.Errorf("Cut(%q, %d) = %q", name, width, got)
			}
		}
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
