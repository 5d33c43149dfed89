package parser_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	gguf_parser "github.com/gpustack/gguf-parser-go"

	"weigh/formats/gguf"
	"weigh/formats/gguf/parser"
)

// TestModels is a developer's check: the headers of full-size models, restored
// as sparse files, read as the library reads them.
func TestModels(t *testing.T) {
	shared := os.Getenv("WEIGH_SHARED")
	if shared == "" {
		t.Skip("WEIGH_SHARED names no folder of model headers")
	}
	dir := filepath.Join(shared, "models")
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var models map[string]struct {
		FileBytes int64  `json:"file_bytes"`
		Header    int64  `json:"header_bytes"`
		Tensors   int    `json:"n_tensors"`
		Params    uint64 `json:"n_params"`
	}
	if err := json.Unmarshal(data, &models); err != nil {
		t.Fatal(err)
	}
	for name, m := range models {
		t.Run(name, func(t *testing.T) {
			header, err := exec.Command("xz", "-dc", filepath.Join(dir, name+".hdr.xz")).Output()
			if err != nil {
				t.Fatal(err)
			}
			file, err := os.Create(filepath.Join(t.TempDir(), "m.gguf"))
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			if _, err := file.Write(header); err != nil {
				t.Fatal(err)
			}
			if err := file.Truncate(m.FileBytes); err != nil {
				t.Fatal(err)
			}
			if problems := gguf.Check(file, m.FileBytes); len(problems) > 0 {
				t.Errorf("Check() = %v", problems)
			}
			f, err := gguf.Read(file, m.FileBytes)
			if err != nil {
				t.Fatal(err)
			}
			got := parser.File(f)
			if f.DataOffset != m.Header || len(f.Tensors) != m.Tensors || uint64(got.ModelParameters) != m.Params {
				t.Errorf("data at %d, %d tensors, %d parameters, want %+v", f.DataOffset, len(f.Tensors), got.ModelParameters, m)
			}
			for i := range f.Tensors {
				if a, b := f.Tensors[i].Bytes, got.TensorInfos[i].Bytes(); a != b {
					t.Errorf("%s has %d bytes, the library says %d", f.Tensors[i].Name, a, b)
				}
			}
			want, err := gguf_parser.ParseGGUFFile(file.Name(), gguf_parser.UseMMap())
			if err != nil {
				t.Fatal(err)
			}
			compare(t, parser.Metadata, got, trimmed(want.Metadata(), &got.Header))
			compare(t, parser.Architecture, got, want.Architecture())
			compare(t, parser.Tokenizer, got, want.Tokenizer())
			if !reflect.DeepEqual(got.TensorInfos, want.TensorInfos) {
				t.Error("the tensors differ")
			}
			tokens(t, f, want)
		})
	}
}

// trimmed undoes nothing but checks that the library's trimmed name is ours,
// trimmed.
func trimmed(m gguf_parser.GGUFMetadata, h *gguf_parser.GGUFHeader) gguf_parser.GGUFMetadata {
	if kv, ok := h.MetadataKV.Get("general.name"); ok && strings.TrimSpace(kv.ValueString()) == m.Name {
		m.Name = kv.ValueString()
	}
	return m
}

// tokens compares the vocabulary with the library's, which is trimmed.
func tokens(t *testing.T, f *gguf.File, want *gguf_parser.GGUFFile) {
	kv, ok := want.Header.MetadataKV.Get("tokenizer.ggml.tokens")
	if !ok {
		return
	}
	a, err := f.Array("tokenizer.ggml.tokens")
	if err != nil {
		t.Fatal(err)
	}
	list, i := kv.ValueArray().ValuesString(), 0
	for token, err := range a.Strings() {
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(string(token)); got != list[i] {
			t.Fatalf("token %d is %q, want %q", i, got, list[i])
		}
		i++
	}
	if i != len(list) {
		t.Errorf("%d tokens, want %d", i, len(list))
	}
}
