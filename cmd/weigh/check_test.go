package main

import (
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"weigh/fixtures"
	"weigh/formats"
	"weigh/inspect/check"
)

// tinyLlama is a model of one layer that llama.cpp would load, with its data.
func tinyLlama() *fixtures.GGUF {
	g := (&fixtures.GGUF{}).Set("general.architecture", "llama").Set("llama.block_count", uint32(1)).Set("llama.context_length", uint32(64)).
		Set("llama.embedding_length", uint32(32)).Set("llama.feed_forward_length", uint32(64)).Set("llama.attention.head_count", uint32(2)).
		Set("llama.attention.layer_norm_rms_epsilon", float32(1e-5)).Set("tokenizer.ggml.model", "no_vocab").Set("llama.vocab_size", uint32(64))
	g.Add("token_embd.weight", formats.F32, 32, 64).Add("output_norm.weight", formats.F32, 32)
	for _, name := range []string{"attn_norm", "ffn_norm"} {
		g.Add("blk.0."+name+".weight", formats.F32, 32)
	}
	for _, name := range []string{"attn_q", "attn_k", "attn_v", "attn_output"} {
		g.Add("blk.0."+name+".weight", formats.F32, 32, 32)
	}
	return g.Add("blk.0.ffn_gate.weight", formats.F32, 32, 64).Add("blk.0.ffn_up.weight", formats.F32, 32, 64).Add("blk.0.ffn_down.weight", formats.F32, 64, 32)
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	config := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(config, []byte(`{"architectures":["LlamaForCausalLM"],"hidden_size":1e30}`), 0o600); err != nil {
		t.Fatal(err)
	}
	whole := modelFile(t, "Llama-3.2-1B-Q4_K_M")
	bytes := tinyLlama().Bytes()
	tests := map[string]struct {
		path     string
		args     []string
		code     int
		valid    bool
		loadable string // "true", "false" or "null"
		problem  string // of the first problem; "" for none at all
	}{
		"a whole model":                  {whole, nil, 0, true, "true", ""},
		"a folder":                       {hfFolder(t, "qwen3-0.6b"), nil, 0, true, "true", ""},
		"a download that stopped":        {file("cut.gguf", bytes[:len(bytes)-100]), nil, 1, false, "null", "truncated-data"},
		"the same, its data asked for":   {file("cut.gguf", bytes[:len(bytes)-100]), []string{"--data"}, 1, false, "null", "truncated-data"},
		"half a header":                  {file("half.gguf", bytes[:500]), nil, 1, false, "null", "truncated-header"},
		"bytes that follow":              {file("more.gguf", append(bytes[:len(bytes):len(bytes)], make([]byte, 100)...)), nil, 0, true, "true", "trailing-bytes"},
		"a pointer":                      {file("lfs.gguf", []byte("version https://git-lfs.github.com/spec/v1\noid sha256:"+strings.Repeat("a", 64)+"\nsize 123\n")), nil, 1, false, "null", "lfs-pointer"},
		"a pointer for safetensors":      {file("lfs.safetensors", []byte("version https://git-lfs.github.com/spec/v1\noid sha256:"+strings.Repeat("a", 64)+"\nsize 123\n")), nil, 1, false, "null", "lfs-pointer"},
		"an empty file":                  {file("empty.gguf", nil), nil, 1, false, "null", "truncated-header"},
		"weights of zeros":               {file("zero.gguf", bytes), []string{"--data"}, 0, true, "true", "all-zero"},
		"refused by llama.cpp":           {file("bare.gguf", (&fixtures.GGUF{}).Set("general.architecture", "llama").Bytes()), nil, 0, true, "false", "bad-metadata"},
		"refused by llama.cpp, strict":   {file("bare.gguf", (&fixtures.GGUF{}).Set("general.architecture", "llama").Bytes()), []string{"--strict"}, 1, true, "false", "bad-metadata"},
		"a configuration that cannot be": {config, nil, 0, true, "false", "bad-metadata"},
		"a configuration, strict":        {config, []string{"--strict"}, 1, true, "false", "bad-metadata"},
		"a template that reaches":        {file("jinja.gguf", fixtures.Model("llama-Q4_K_M").Set("tokenizer.chat_template", "{{ x.__class__ }}").Bytes()), nil, 1, false, "null", "truncated-data"},
		"a layout that needs -fa off":    {modelFile(t, "plm-Q4_K_M"), nil, 0, true, "true", "needs-fa-off"},
		"a draft, which runs on others":  {modelFile(t, "eagle3-Q4_K_M"), nil, 0, true, "null", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var d checkDocument
			weighJSON(t, tt.code, &d, append([]string{"check", tt.path}, tt.args...)...)
			loadable := "null"
			if d.Loadable != nil {
				loadable = map[bool]string{true: "true", false: "false"}[*d.Loadable]
			}
			problem := ""
			if len(d.Problems) > 0 {
				problem = d.Problems[0].Code
			}
			if d.Valid != tt.valid || loadable != tt.loadable || problem != tt.problem {
				t.Errorf("valid %v, loadable %s, problems %+v; want %v, %s, %q", d.Valid, loadable, d.Problems, tt.valid, tt.loadable, tt.problem)
			}
		})
	}
}

func TestCheckCannotAnswer(t *testing.T) {
	for name, path := range map[string]string{"no such file": filepath.Join(t.TempDir(), "gone.gguf"), "an empty folder": t.TempDir()} {
		if out, trouble, code := weigh(t, "check", path); code != exitError || out != "" || trouble == "" {
			t.Errorf("%s: exit code %d, output %q, trouble %q; want %d and an error", name, code, out, trouble, exitError)
		}
	}
}

func TestCheckReadsTemplatesWithinBounds(t *testing.T) {
	const read = 100 << 10
	for name, tt := range map[string]struct {
		sizes  []int
		listed int
		unread string
	}{
		"two":            {[]int{read, read}, 2, ""},
		"one too long":   {[]int{check.MaxTemplates}, 1, "default"},
		"together":       {[]int{read, read, read, read, read, read, read}, 6, "5"},
		"short and many": {make([]int, 2000), 513, "512"},
	} {
		t.Run(name, func(t *testing.T) {
			g := tinyLlama()
			for i, n := range tt.sizes {
				key := "tokenizer.chat_template"
				if i > 0 {
					key += "." + strconv.Itoa(i)
				}
				g.Set(key, strings.Repeat("{{ a }}", n/7))
			}
			path := filepath.Join(t.TempDir(), "m.gguf")
			if err := os.WriteFile(path, g.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			var d checkDocument
			weighJSON(t, 0, &d, "check", path)
			unread := ""
			for _, p := range d.Problems {
				if p.Code == "template-too-long" {
					unread += strings.TrimPrefix(p.Field, "chat template ")
				}
			}
			if len(d.Templates) != tt.listed || unread != tt.unread {
				t.Errorf("%d templates, unread %q; want %d, %q", len(d.Templates), unread, tt.listed, tt.unread)
			}
		})
	}
}

func TestCheckReadsEveryTemplateOfAFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a[1]*")
	for name, text := range map[string]string{
		"config.json": "{}", "chat_template.jinja/is a folder": "", "additional_chat_templates/tools.jinja": "{{ x.__class__ }}",
		"tokenizer_config.json": `{"chat_template":[{"name":"rag","template":"{{ y }}"}]}`,
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	var d checkDocument
	weighJSON(t, exitOK, &d, "check", dir)
	var got []string
	for _, t := range d.Templates {
		got = append(got, t.Name)
	}
	for _, p := range d.Problems {
		if strings.HasPrefix(p.Code, "template") {
			got = append(got, p.Code)
		}
	}
	want := []string{"chat_template.jinja", "tools.jinja", "rag", "template-unread", "template-reaches-internals"}
	if !slices.Equal(got, want) {
		t.Errorf("templates and their problems: %q, want %q", got, want)
	}
}

func TestCheckConformance(t *testing.T) {
	// What the reference's reader accepts, asked for the header alone, and
	// loading would not.
	stricter := map[string]bool{"data_not_enough.gguf": true}
	for _, format := range []string{"gguf", "safetensors"} {
		dir := filepath.Join("..", "..", "fixtures", "conformance", format)
		verdicts, err := os.ReadFile(filepath.Join(dir, "verdicts.tsv"))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for line := range strings.Lines(string(verdicts)) {
			f := strings.Split(strings.TrimSpace(line), "\t")
			if len(f) < 2 || f[0] == "file" {
				continue
			}
			path := filepath.Join(dir, f[0])
			if _, err := os.Stat(path); err != nil {
				path = unpacked(t, path+".gz")
			}
			n++
			want := 1
			if f[1] == "ACCEPT" && !stricter[f[0]] {
				want = 0
			}
			if _, trouble, code := weigh(t, "check", path); code != want {
				t.Errorf("%s: exit code %d, want %d; %s", f[0], code, want, trouble)
			}
		}
		if n < 50 {
			t.Errorf("%s: %d files were checked", format, n)
		}
	}
}

// unpacked unpacks a file and returns where to.
func unpacked(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), strings.TrimSuffix(filepath.Base(path), ".gz"))
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestCheckManifest(t *testing.T) {
	data := tinyLlama().Bytes()
	path := filepath.Join(t.TempDir(), "m.gguf")
	manifest := filepath.Join(t.TempDir(), "m.json")
	write := func() {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write()
	if _, trouble, code := weigh(t, "check", path, "--write-manifest", manifest); code != 0 {
		t.Fatalf("exit code %d: %s", code, trouble)
	}
	if out, _, code := weigh(t, "check", path, "--manifest", manifest); code != 0 {
		t.Errorf("the same file: exit code %d\n%s", code, out)
	}
	data[len(data)-1]++
	write()
	if out, _, code := weigh(t, "check", path, "--manifest", manifest); code != 1 || !strings.Contains(out, "manifest-mismatch") {
		t.Errorf("a changed byte: exit code %d\n%s", code, out)
	}
}

func TestCheckWritesOverNothingButAManifest(t *testing.T) {
	dir := t.TempDir()
	data := tinyLlama().Bytes()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string][]byte{"m.gguf": data, "config.json": []byte("{}"), "empty.json": nil} {
		if err := os.WriteFile(at(name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("m.gguf", at("link.json")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		code int
	}{{"m.gguf", 2}, {"link.json", 2}, {"config.json", 2}, {"", 2}, {"gone/m.json", 2}, {"m.gguf/m.json", 2}, {"empty.json", 0}, {"new.json", 0}, {"new.json", 0}} {
		out, trouble, code := weigh(t, "check", at("m.gguf"), "--write-manifest", at(tt.name))
		if code != tt.code || code == 2 && (out != "" || !strings.Contains(trouble, "--write-manifest")) {
			t.Errorf("%s: exit code %d, want %d: %s", tt.name, code, tt.code, trouble)
		}
	}
	if now, err := os.ReadFile(at("m.gguf")); err != nil || string(now) != string(data) {
		t.Errorf("the model was written over: %v", err)
	}
}

func TestCheckText(t *testing.T) {
	g := fixtures.Model("llama-Q4_K_M").Set("tokenizer.chat_template", "{% for m in messages %}{{ m['content'] | trim }}{{ m.__class__\x1b[2J }}{% endfor %}")
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := g.WriteSparse(path); err != nil {
		t.Fatal(err)
	}
	out, _, code := weigh(t, "check", path)
	if code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	golden(t, "check/template", []byte(strings.ReplaceAll(out, filepath.Dir(path), "")))
}
