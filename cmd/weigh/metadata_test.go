package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"weigh/fixtures"
	"weigh/formats"
)

// A meter counts what is written and the most memory that is live meanwhile.
type meter struct {
	bytes, next int
	live        uint64
}

func (m *meter) Write(b []byte) (int, error) {
	if m.bytes += len(b); m.bytes >= m.next {
		m.next = m.bytes + 4<<20
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		m.live = max(m.live, s.HeapAlloc)
	}
	return len(b), nil
}

func TestInspectHoldsNoMetadata(t *testing.T) {
	g := &fixtures.GGUF{}
	for i := range 12 {
		g.Set(fmt.Sprintf("tokenizer.text%02d", i), strings.Repeat("weigh\u00e9", 300<<10))
		g.Set(fmt.Sprintf("tokenizer.ints%02d", i), make([]int32, 256<<10))
	}
	for i := range 2000 {
		g.Add(fmt.Sprintf("blk.%d.%s.weight", i, strings.Repeat("x", 40)), formats.F32, 4)
	}
	data := g.Bytes()
	path := filepath.Join(t.TempDir(), "text.gguf")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	size := len(data)
	g, data = nil, nil
	for name, args := range map[string][]string{
		"json": {"--metadata", "--full", "--tensors", "--json"},
		"text": {"--metadata", "--full", "--tensors"},
		"diff": nil,
	} {
		t.Run(name, func(t *testing.T) {
			runtime.GC()
			var s runtime.MemStats
			runtime.ReadMemStats(&s)
			m := &meter{}
			args := append([]string{"inspect", path}, args...)
			if name == "diff" {
				other := filepath.Join(t.TempDir(), "other.gguf")
				g := (&fixtures.GGUF{}).Set("general.name", "other")
				if err := os.WriteFile(other, g.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
				args = []string{"diff", path, other, "--json"}
			}
			if code := run(args, m, m); code == exitError {
				t.Fatalf("exit code %d", code)
			}
			if name != "diff" && m.bytes < size*3/4 {
				t.Errorf("%d bytes are written of a file of %d", m.bytes, size)
			}
			if m.live > s.HeapAlloc+16<<20 {
				t.Errorf("%d bytes of memory are held for a header of %d", m.live-s.HeapAlloc, size)
			}
		})
	}
}

func TestInspectWritesValuesWhole(t *testing.T) {
	long := strings.Repeat("\u65e5\u672c\x1b\"\\<", 20<<10)
	g := (&fixtures.GGUF{}).
		Set("a.long", long).Set("a.cut", strings.Repeat("x", maxPiece-1)+"\u65e5").Set("a.bytes", "\xff\xfe"+strings.Repeat("\x80", maxPiece)).
		Set("a.none", []int32{}).Set("a.ints", []int64{-1, 1 << 62}).Set("a.texts", []string{"", "\x00", "<&>"}).
		Set("a.float", 1e21).Set("a.bool", true).Set("a.many", make([]uint8, 100))
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := os.WriteFile(path, g.Add("t", formats.F32, 4).Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	var d struct {
		Schema   int
		Tensors  []tensorDocument
		Metadata map[string]any
	}
	weighJSON(t, 0, &d, "inspect", path, "--metadata", "--tensors")
	want := map[string]any{
		"a.long": long, "a.cut": strings.Repeat("x", maxPiece-1) + "\u65e5", "a.bytes": strings.Repeat("\ufffd", maxPiece+2),
		"a.none": []any{}, "a.ints": []any{-1.0, float64(1 << 62)}, "a.texts": []any{"", "\x00", "<&>"},
		"a.float": 1e21, "a.bool": true, "a.many": map[string]any{"type": "arr[u8]", "length": 100.0},
	}
	for k, v := range want {
		x, _ := json.Marshal(v)
		if y, _ := json.Marshal(d.Metadata[k]); string(x) != string(y) {
			t.Errorf("%s is %.80s, want %.80s", k, y, x)
		}
	}
	if len(d.Metadata) != len(want) || len(d.Tensors) != 1 || d.Tensors[0].Name != "t" {
		t.Errorf("%d entries and tensors %+v", len(d.Metadata), d.Tensors)
	}
}

func TestJSONHoldsEveryNumberOfAConfiguration(t *testing.T) {
	dir := t.TempDir()
	text := `{"architectures":["LlamaForCausalLM"],"a":NaN,"b":[Infinity,{"c":-Infinity}],"d":"\u009b\u202e"}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var d struct {
		Metadata map[string]any `json:"metadata"`
	}
	out, _, _ := weigh(t, "inspect", dir, "--json", "--metadata")
	if strings.ContainsAny(out, "\u009b\u202e") {
		t.Errorf("what a terminal obeys is written as it is:\n%q", out)
	}
	weighJSON(t, exitOK, &d, "inspect", dir, "--metadata")
	want := map[string]any{"a": "NaN", "b": []any{"+Inf", map[string]any{"c": "-Inf"}}, "d": "\u009b\u202e"}
	for key, v := range want {
		if !reflect.DeepEqual(d.Metadata[key], v) {
			t.Errorf("%s: %v, want %v", key, d.Metadata[key], v)
		}
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "config.json"), []byte(`{"a":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var diff diffDocument
	weighJSON(t, exitNo, &diff, "diff", dir, other)
}
