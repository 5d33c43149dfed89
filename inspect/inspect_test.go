package inspect_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weigh/fixtures"
	"weigh/formats"
	"weigh/formats/gguf"
	"weigh/inspect"
	"weigh/inspect/hf"
)

const (
	small = "Llama-3.2-1B-Q4_K_M"
	label = "llama-3.1-8b" // a folder of fixtures.HF
)

// A dir is a folder that a test fills.
type dir struct {
	testing.TB
	path string
}

func newDir(t testing.TB) dir { return dir{t, t.TempDir()} }

func (d dir) at(name string) string { return filepath.Join(d.path, name) }

func (d dir) must(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

func (d dir) write(name, text string) dir {
	d.Helper()
	d.must(os.MkdirAll(filepath.Dir(d.at(name)), 0o755))
	d.must(os.WriteFile(d.at(name), []byte(text), 0o644))
	return d
}

func (d dir) link(to, name string) dir {
	d.Helper()
	if err := os.Symlink(to, d.at(name)); err != nil {
		d.Skip("links cannot be made here:", err)
	}
	return d
}

func (d dir) gguf(name string) dir {
	d.Helper()
	d.must(fixtures.Model(small).WriteSparse(d.at(name)))
	return d
}

// shards writes a model of three shards, the first without tensors.
func (d dir) shards() dir {
	d.Helper()
	whole := fixtures.Model(small)
	half := len(whole.Tensors) / 2
	for i, tensors := range [][]fixtures.Tensor{nil, whole.Tensors[:half], whole.Tensors[half:]} {
		g := &fixtures.GGUF{Tensors: tensors}
		if i == 0 {
			g.KVs = whole.KVs
		}
		g.Set("split.no", uint16(i)).Set("split.count", uint16(3)).Set("split.tensors.count", int32(len(whole.Tensors)))
		d.must(g.WriteSparse(d.at(shard(i))))
	}
	return d
}

func shard(i int) string { return fmt.Sprintf("m-%05d-of-00003.gguf", i+1) }

func (d dir) hf(name string) dir {
	d.Helper()
	d.must(fixtures.WriteHF(d.path, name))
	return d
}

func (d dir) safetensors(name string) dir {
	d.Helper()
	tensors := []fixtures.SafeTensor{{Name: "a.weight", Type: formats.BF16, Shape: []uint64{4, 8}}}
	d.must(fixtures.WriteSafetensors(d.at(name), tensors, nil))
	return d
}

func (d dir) remove(name string) dir {
	d.Helper()
	d.must(os.Remove(d.at(name)))
	return d
}

// opened tells whether a model is what the fixture says.
type opened struct {
	format string
	files  int
	arch   string // "" when there is no Model
}

func TestOpen(t *testing.T) {
	smol, llama := opened{inspect.GGUF, 1, "llama"}, opened{inspect.Safetensors, 4, "llama"}
	tests := map[string]struct {
		fill func(dir) dir
		path string
		want opened
	}{
		"a GGUF file":                         {func(d dir) dir { return d.gguf("m.gguf") }, "m.gguf", smol},
		"a GGUF file of another name":         {func(d dir) dir { return d.gguf("sha256-4242") }, "sha256-4242", smol},
		"a GGUF file with an upper-case name": {func(d dir) dir { return d.gguf("M.GGUF") }, ".", smol},
		"a link to a GGUF file":               {func(d dir) dir { return d.gguf("m").link("m", "l.gguf") }, "l.gguf", smol},
		"a folder of one GGUF file":           {func(d dir) dir { return d.gguf("m.gguf").write("README.md", "x") }, ".", smol},
		"a folder with a projector beside":    {func(d dir) dir { return d.gguf("m.gguf").gguf("mmproj-m.gguf") }, ".", smol},
		"the first shard":                     {dir.shards, shard(0), opened{inspect.GGUF, 3, "llama"}},
		"the last shard":                      {dir.shards, shard(2), opened{inspect.GGUF, 3, "llama"}},
		"a folder of shards":                  {dir.shards, ".", opened{inspect.GGUF, 3, "llama"}},
		"a folder of safetensors":             {func(d dir) dir { return d.hf(label) }, ".", llama},
		"the index of safetensors":            {func(d dir) dir { return d.hf(label) }, "model.safetensors.index.json", llama},
		"a shard of safetensors":              {func(d dir) dir { return d.hf(label) }, "model-00002-of-00004.safetensors", llama},
		"a configuration":                     {func(d dir) dir { return d.hf(label) }, "config.json", llama},
		"a configuration alone":               {func(d dir) dir { return d.hf("exaone-4.0-32b") }, ".", opened{inspect.Safetensors, 0, "exaone4"}},
		"a safetensors file alone":            {func(d dir) dir { return d.safetensors("m.safetensors") }, "m.safetensors", opened{inspect.Safetensors, 1, ""}},
		"a safetensors file of another name":  {func(d dir) dir { return d.safetensors("blob") }, "blob", opened{inspect.Safetensors, 1, ""}},
		"an adapter":                          {func(d dir) dir { return d.hf("lora-tinyllama-r16") }, ".", opened{inspect.Safetensors, 1, ""}},
		"a name with control characters":      {func(d dir) dir { return d.gguf("m\x1b[31m\n.gguf") }, "m\x1b[31m\n.gguf", smol},
		"a folder that links to itself":       {func(d dir) dir { return d.gguf("m.gguf").link(".", "self") }, "self/self/self", smol},
		"a pipeline that is a part of itself": {func(d dir) dir { return pipeline(d, ".", "self", "unet").link(".", "self") }, ".", opened{inspect.Safetensors, 1, ""}},
		"a pipeline with a pipeline in it":    {func(d dir) dir { return pipeline(d, "unet", "a").write("a/model_index.json", `{"..":["x","Y"]}`) }, ".", opened{inspect.Safetensors, 1, ""}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := newDir(t)
			tt.fill(d)
			m, err := inspect.Open(d.at(tt.path))
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			got := opened{format: m.Format, files: len(m.Files)}
			if m.Model != nil {
				got.arch = m.Model.Arch
			}
			if got != tt.want {
				t.Errorf("Open() = %+v (%v), want %+v", got, m.Reason, tt.want)
			}
			if (m.Model == nil) == (m.Reason == nil) || (m.GGUF == nil) == (m.HF == nil) {
				t.Errorf("model %v, reason %v, GGUF %v, HF %v: want one of each two", m.Model, m.Reason, m.GGUF, m.HF)
			}
			if tt.want.files > 0 && (m.TensorBytes() == 0 || m.Parameters() == 0 || m.FileBytes() < m.TensorBytes()) {
				t.Errorf("%d parameters in %d bytes of %d", m.Parameters(), m.TensorBytes(), m.FileBytes())
			}
		})
	}
}

// pipeline writes a diffusers folder whose only weights are the unet's.
func pipeline(d dir, parts ...string) dir {
	d.Helper()
	index := `{"_class_name":"P"`
	for _, p := range parts {
		index += fmt.Sprintf(`,%q:["x","Y"]`, p)
	}
	return d.write("model_index.json", index+"}").write("unet/config.json", "{}").safetensors("unet/model.safetensors")
}

func TestOpenRefuses(t *testing.T) {
	tests := map[string]struct {
		fill func(dir) dir
		path string
		want any // an error, a pointer to an error's type, or a part of its text
	}{
		"nothing":                        {func(d dir) dir { return d }, "none.gguf", fs.ErrNotExist},
		"a name with a NUL":              {func(d dir) dir { return d }, "a\x00b.gguf", "invalid argument"},
		"an empty folder":                {func(d dir) dir { return d }, ".", "no model here"},
		"several models":                 {func(d dir) dir { return d.gguf("a.gguf").gguf("b.gguf") }, ".", new(*inspect.SeveralModelsError)},
		"an empty file":                  {func(d dir) dir { return d.write("m.gguf", "") }, "m.gguf", new(*formats.Error)},
		"a link to nothing":              {func(d dir) dir { return d.link("none", "m.gguf") }, "m.gguf", fs.ErrNotExist},
		"a link to itself":               {func(d dir) dir { return d.link("m.gguf", "m.gguf") }, "m.gguf", "m.gguf"},
		"a model folder of such links":   {func(d dir) dir { return d.link("m.gguf", "m.gguf") }, ".", "m.gguf"},
		"a file as a folder":             {func(d dir) dir { return d.gguf("m.gguf") }, "m.gguf/x", "m.gguf"},
		"a missing shard":                {func(d dir) dir { return d.shards().remove(shard(1)) }, shard(0), fs.ErrNotExist},
		"a shard that is a folder":       {func(d dir) dir { return d.shards().remove(shard(1)).write(shard(1)+"/x", "") }, shard(0), formats.ErrNotRegular},
		"a shard that is a link to it":   {func(d dir) dir { return d.shards().remove(shard(1)).link(shard(1), shard(1)) }, shard(0), shard(1)},
		"a shard of another model":       {func(d dir) dir { return d.shards().remove(shard(1)).gguf(shard(1)) }, shard(0), new(*formats.Error)},
		"a shard that points to LFS":     {func(d dir) dir { return d.shards().write(shard(1), pointer) }, shard(0), new(*formats.LFSPointer)},
		"a GGUF that points to LFS":      {func(d dir) dir { return d.write("m.gguf", pointer) }, "m.gguf", new(*formats.LFSPointer)},
		"a safetensors file of LFS":      {func(d dir) dir { return d.write("model.safetensors", pointer) }, ".", new(*formats.LFSPointer)},
		"a missing shard of safetensors": {func(d dir) dir { return d.hf(label).remove("model-00002-of-00004.safetensors") }, ".", "the file is missing"},
		"a config.json that is a folder": {func(d dir) dir { return d.safetensors("model.safetensors").write("config.json/x", "") }, "config.json", "no model here"},
		"a configuration that is none":   {func(d dir) dir { return d.safetensors("model.safetensors").write("config.json", "[") }, ".", new(*formats.Error)},
		"a pickle":                       {func(d dir) dir { return d.write("m.pt", "PK\x03\x04 and more") }, "m.pt", "a zip archive"},
		"a page that says 404":           {func(d dir) dir { return d.write("m.gguf", "<!DOCTYPE html>") }, "m.gguf", "an HTML page"},
		"a pipeline of itself alone":     {func(d dir) dir { return d.write("model_index.json", `{".":["a","b"]}`) }, ".", hf.ErrNoModel},
		"a pipeline outside its folder":  {func(d dir) dir { return d.write("model_index.json", `{"..":["a","b"],"/":["a","b"]}`) }, ".", hf.ErrNoModel},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := newDir(t)
			tt.fill(d)
			refuses(t, d.at(tt.path), tt.want)
		})
	}
}

func TestABadValueIsNamedAsTheConfigurationNamesIt(t *testing.T) {
	const llama = `"architectures":["LlamaForCausalLM"],"hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"intermediate_size":128,"max_position_embeddings":256,"rms_norm_eps":1e-5,"vocab_size":96`
	const nested = `"architectures":["LlavaForConditionalGeneration"],"text_config":{"model_type":"llama",` + llama
	const mla = `"architectures":["DeepseekV2ForCausalLM"],"hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,"qk_nope_head_dim":16,"qk_rope_head_dim":16,"v_head_dim":16,"intermediate_size":128,"max_position_embeddings":256,"rms_norm_eps":1e-5,"vocab_size":96`
	tests := map[string]struct{ file, text, want string }{
		"a number no count can be":     {"config.json", llama + `,"hidden_size":1e30`, "config.json: hidden_size: 1e+30, want a whole number"},
		"no number":                    {"config.json", llama + `,"hidden_size":NaN`, "config.json: hidden_size: NaN, want a whole number"},
		"a count that is too large":    {"config.json", llama + `,"hidden_size":4294967296`, "config.json: hidden_size: 4294967296, want a whole number of at most 2147483648"},
		"a negative count":             {"config.json", llama + `,"num_attention_heads":-1`, "config.json: num_attention_heads: -1, want a count"},
		"text":                         {"config.json", llama + `,"intermediate_size":"\u001b[31m"`, `config.json: intermediate_size: text "\x1b[31m", want`},
		"an object":                    {"config.json", llama + `,"vocab_size":{}`, "config.json: vocab_size: an object, want"},
		"lists in a list":              {"config.json", llama + `,"num_key_value_heads":[[1],2]`, "config.json: num_key_value_heads: an array, want"},
		"a list that is too short":     {"config.json", llama + `,"num_key_value_heads":[2]`, "config.json: num_key_value_heads: 1 values, want 2"},
		"no layers":                    {"config.json", llama + `,"num_hidden_layers":0`, "config.json: num_hidden_layers: 0 layers"},
		"too many layers":              {"config.json", llama + `,"num_hidden_layers":99999`, "config.json: num_hidden_layers: 99999, want"},
		"layers by another name":       {"config.json", llama + `,"n_layers":true`, "config.json: n_layers: true, want"},
		"a field that is not there":    {"config.json", strings.Replace(llama, `"hidden_size"`, `"hidden"`, 1), "config.json: hidden_size: missing"},
		"in the text's configuration":  {"config.json", nested + `,"hidden_size":1e30}`, "config.json: text_config.hidden_size: 1e+30"},
		"of the rotary embedding":      {"config.json", llama + `,"rope_scaling":{"type":"linear","factor":"x"}`, `config.json: rope_scaling.factor: text "x", want`},
		"one of several that are read": {"config.json", mla + `,"q_lora_rank":32,"kv_lora_rank":1e30`, "config.json: kv_lora_rank: 1e+30, want"},
		"in Mistral's own file":        {"params.json", `"dim":1e30,"n_layers":2,"n_heads":4,"hidden_dim":128,"vocab_size":96,"norm_eps":1e-5`, "params.json: dim: 1e+30, want"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := newDir(t).write(tt.file, "{"+tt.text+"}")
			m, err := inspect.Open(d.at("."))
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if m.Model != nil || m.Reason == nil || !strings.Contains(m.Reason.Error(), tt.want) {
				t.Errorf("model %v, reason %v; want %s", m.Model != nil, m.Reason, tt.want)
			}
		})
	}
}

const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:1f2e\nsize 4920734272\n"

// refuses opens path and compares the error.
func refuses(t *testing.T, path string, want any) {
	t.Helper()
	m, err := inspect.Open(path)
	if err == nil {
		m.Close()
		t.Fatalf("Open() succeeds, want %v", want)
	}
	ok := false
	switch want := want.(type) {
	case string:
		ok = strings.Contains(err.Error(), want)
	case error:
		ok = errors.Is(err, want)
	default:
		ok = errors.As(err, want)
	}
	if !ok {
		t.Errorf("Open() error = %v, want %v (%T)", err, want, want)
	}
}

func TestAFileThatShrinksAfterwardsGivesCounts(t *testing.T) {
	d := newDir(t).gguf("m.gguf")
	m, err := inspect.Open(d.at("m.gguf"))
	d.must(err)
	defer m.Close()
	tokens, err := m.GGUF.Files[0].Array("tokenizer.ggml.tokens")
	d.must(err)
	if err := os.Truncate(d.at("m.gguf"), 64); err != nil {
		t.Skip("an open file cannot be cut here:", err)
	}
	if v, ok := m.GGUF.Lookup("tokenizer.ggml.tokens"); !ok || v != gguf.Len(tokens.Count) {
		t.Errorf("Lookup() = %T, %v of a file that was cut, want the count %d", v, ok, tokens.Count)
	}
	if _, err := tokens.At(0); err == nil {
		t.Error("a token was read from a file that was cut")
	}
}

// A value that is computed from a configuration is named by what it is made of.
func TestDerivedValuesAreNamedByTheirFields(t *testing.T) {
	const jamba = `{"architectures":["JambaForCausalLM"],"num_hidden_layers":8,"hidden_size":4096,"num_attention_heads":32,"num_key_value_heads":8,
		"intermediate_size":64,"vocab_size":64,"max_position_embeddings":512,"attn_layer_offset":4,"attn_layer_period":8,"mamba_expand":%s}`
	const mamba = `{"architectures":["MambaForCausalLM"],"num_hidden_layers":8,"hidden_size":%s,"vocab_size":64}`
	for name, tt := range map[string]struct{ config, want string }{
		"a factor that is negative":       {fmt.Sprintf(jamba, "-1"), "config.json: mamba_expand: the jamba.ssm.inner_size made of it: -4096 is negative"},
		"a factor that is too large":      {fmt.Sprintf(jamba, "1000000"), "config.json: mamba_expand: the jamba.ssm.inner_size made of it: "},
		"a width that is negative itself": {fmt.Sprintf(mamba, "-64"), "config.json: hidden_size: "},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(tt.config), 0o600); err != nil {
			t.Fatal(err)
		}
		ins, err := inspect.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		ins.Close()
		if ins.Reason == nil || !strings.HasPrefix(ins.Reason.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", name, ins.Reason, tt.want)
		}
	}
}
