package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weigh/fixtures"
	"weigh/formats"
)

// A wholeDiff is the document with its tensors.
type wholeDiff struct {
	diffDocument
	Tensors []tensorChange `json:"tensors"`
}

func TestDiff(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, build func(g *fixtures.GGUF), data byte) string {
		g := (&fixtures.GGUF{}).Set("general.architecture", "llama").Set("llama.block_count", uint32(1)).
			Set("tokenizer.ggml.tokens", []string{"a", "b"}).Set("weights", []float32{1, 2})
		g.Add("token_embd.weight", formats.F16, 32, 2).Add("output_norm.weight", formats.F32, 32)
		if build != nil {
			build(g)
		}
		b := g.Build()
		for i := b.DataOffset; i < len(b.Data); i++ {
			b.Data[i] = data
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b.Data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	a := file("a.gguf", nil, 1)
	tests := map[string]struct {
		b    string
		args []string
		diff []string // keys and tensors with what differs
	}{
		"itself":               {a, nil, nil},
		"a copy":               {file("copy.gguf", nil, 1), []string{"--data"}, nil},
		"other weights":        {file("data.gguf", nil, 2), []string{"--data"}, []string{"output_norm.weight data", "token_embd.weight data"}},
		"other weights unread": {file("data.gguf", nil, 2), nil, nil},
		"a value":              {file("value.gguf", func(g *fixtures.GGUF) { g.Set("llama.block_count", uint32(2)) }, 1), nil, []string{"llama.block_count"}},
		"a key more":           {file("key.gguf", func(g *fixtures.GGUF) { g.Set("general.name", "x") }, 1), nil, []string{"general.name"}},
		"a token":              {file("token.gguf", func(g *fixtures.GGUF) { g.Set("tokenizer.ggml.tokens", []string{"a", "c"}) }, 1), nil, []string{"tokenizer.ggml.tokens"}},
		"a number of an array": {file("array.gguf", func(g *fixtures.GGUF) { g.Set("weights", []float32{1, 3}) }, 1), nil, []string{"weights"}},
		"a type":               {file("type.gguf", func(g *fixtures.GGUF) { g.Tensors[0].Type = formats.Q8_0 }, 1), nil, []string{"token_embd.weight type"}},
		"a shape and a tensor": {file("shape.gguf", func(g *fixtures.GGUF) { g.Tensors[1].Shape = []uint64{64}; g.Add("x", formats.F32, 1) }, 1), nil, []string{"output_norm.weight shape", "x only in b"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var d wholeDiff
			code := exitOK
			if tt.diff != nil {
				code = exitNo
			}
			weighJSON(t, code, &d, append([]string{"diff", a, tt.b}, tt.args...)...)
			var got []string
			for _, c := range d.Metadata {
				got = append(got, c.Key)
			}
			for _, c := range d.Tensors {
				got = append(got, c.Name+" "+strings.Join(c.What, ", "))
			}
			if !slices.Equal(got, tt.diff) || d.Same != (tt.diff == nil) {
				t.Errorf("differs: %q, want %q", got, tt.diff)
			}
		})
	}
	if out, _, code := weigh(t, "diff", a, file("value.gguf", func(g *fixtures.GGUF) { g.Set("llama.block_count", uint32(2)) }, 1), "--quiet"); out != "" || code != exitNo {
		t.Errorf("--quiet wrote %q, exit code %d", out, code)
	}
	if _, trouble, code := weigh(t, "diff", a, filepath.Join(dir, "gone.gguf")); code != exitError || trouble == "" {
		t.Errorf("a missing file: exit code %d, %q", code, trouble)
	}
}

func TestDiffOfAModelCutOtherwise(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	g := tinyLlama()
	whole, shard := write("whole.gguf", g.Bytes()), ""
	for i, tensors := range [][]fixtures.Tensor{g.Tensors[:4], g.Tensors[4:]} {
		cut := &fixtures.GGUF{Tensors: tensors}
		if i == 0 {
			cut.KVs = slices.Clone(g.KVs)
		}
		cut.Set("split.no", uint16(i)).Set("split.count", uint16(2)).Set("split.tensors.count", int32(len(g.Tensors)))
		shard = write(fmt.Sprintf("cut-%05d-of-00002.gguf", i+1), cut.Bytes())
	}
	tensor := func(name string) string { return `"` + name + `":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}` }
	st := func(name, metadata string, tensors ...string) {
		text := `{"__metadata__":{"format":"` + metadata + `"},` + strings.Join(tensors, ",") + "}"
		text = strings.ReplaceAll(text, `"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]`, fmt.Sprintf(`"b":{"dtype":"F32","shape":[2],"data_offsets":[%d,%d]`, 8*len(tensors)-8, 8*len(tensors)))
		write(name, append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), make([]byte, 8*len(tensors))...))
	}
	st("one/model.safetensors", "pt", tensor("a"), tensor("b"))
	for folder, metadata := range map[string]string{"two": "pt", "other": "mlx"} {
		st(folder+"/model-00001-of-00002.safetensors", "pt", tensor("a"))
		st(folder+"/model-00002-of-00002.safetensors", metadata, tensor("b"))
	}
	for _, tt := range []struct {
		a, b string
		code int
	}{{whole, shard, exitOK}, {filepath.Join(dir, "one"), filepath.Join(dir, "two"), exitOK}, {filepath.Join(dir, "one"), filepath.Join(dir, "other"), exitNo}} {
		if out, trouble, code := weigh(t, "diff", tt.a, tt.b, "--data"); code != tt.code {
			t.Errorf("%s and %s: exit code %d, want %d\n%s%s", tt.a, tt.b, code, tt.code, out, trouble)
		}
	}
}

func TestDiffAcrossFormats(t *testing.T) {
	folder, file := hfFolder(t, "qwen3-0.6b"), modelFile(t, "Qwen3-0.6B-BF16")
	var d wholeDiff
	out, trouble, code := weigh(t, "diff", folder, file)
	if code == exitError {
		t.Fatal(trouble)
	}
	golden(t, "diff/qwen3-0.6b", []byte(out))
	weighJSON(t, code, &d, "diff", folder, file)
	for _, c := range d.Tensors {
		if slices.Contains(c.What, "shape") {
			t.Errorf("%s: %+v and %+v", c.Name, c.A, c.B)
		}
	}
	if _, trouble, code := weigh(t, "diff", folder, file, "--data"); code != exitError || !strings.Contains(trouble, "--data") {
		t.Errorf("--data across formats: exit code %d, %q", code, trouble)
	}
}
