package hf

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"weigh/fixtures"
	"weigh/formats"
	"weigh/formats/hfconfig"
	"weigh/inspect/model"
)

// open writes a fixture's folder and opens it.
func openFixture(t *testing.T, name string) *Model {
	t.Helper()
	dir := t.TempDir()
	if err := fixtures.WriteHF(dir, name); err != nil {
		t.Fatal(err)
	}
	m, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// key returns a whole-number key of the model's architecture, 0 when absent.
func key(m *Model, name string) int64 {
	v, _ := m.Source.Meta.Lookup(m.Arch + "." + name)
	n, _ := hfconfig.AsInt(v)
	return n
}

// expected is what the fixtures' authors derived by hand.
type expected struct {
	Arch          string `json:"gguf_arch"`
	Kind          string
	Layers        int64 `json:"n_layer"`
	Width         int64 `json:"n_embd"`
	Heads         int64 `json:"n_head"`
	HeadsKV       any   `json:"n_head_kv"`
	HeadDim       int64 `json:"head_dim"`
	Vocabulary    int64 `json:"n_vocab"`
	Context       int64 `json:"n_ctx_train"`
	Experts       int64 `json:"n_expert"`
	ExpertsUsed   int64 `json:"n_expert_used"`
	SlidingWindow int64 `json:"sliding_window"`
	TieFlag       *bool `json:"tie_flag_in_config"`
	Tied          *bool `json:"tied_effective"`
	Stored        *struct {
		Tensors       int
		TensorBytes   uint64  `json:"tensor_bytes"`
		NaiveElements uint64  `json:"naive_stored_elements"`
		Params        uint64  `json:"logical_params_in_files"`
		BitsPerWeight float64 `json:"bits_per_weight"`
	}
	Rank int    `json:"r"`
	Base string `json:"base_model_name_or_path"`
}

func TestFoldersHaveTheFiguresDerivedByHand(t *testing.T) {
	names := fixtures.HFNames()
	if len(names) < 23 {
		t.Fatalf("%d folders, want 23", len(names))
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			b, err := fs.ReadFile(fixtures.HF, path.Join("hf", name, "expected.json"))
			if err != nil {
				t.Fatal(err)
			}
			var want expected
			if err := json.Unmarshal(b, &want); err != nil {
				t.Fatal(err)
			}
			m := openFixture(t, name)
			if s := want.Stored; s != nil {
				if m.StoredTensors != s.Tensors || m.Bytes != s.TensorBytes || m.StoredElements != s.NaiveElements || m.Params != s.Params {
					t.Errorf("stored %d tensors, %d bytes, %d elements, %d parameters, want %+v", m.StoredTensors, m.Bytes, m.StoredElements, m.Params, *s)
				}
				if math.Abs(m.BitsPerWeight-s.BitsPerWeight) > 1e-6 {
					t.Errorf("%f bits per weight, want %f", m.BitsPerWeight, s.BitsPerWeight)
				}
			}
			if want.Kind == "lora_adapter" {
				if m.Adapter == nil || m.Adapter.Rank() != want.Rank || m.Adapter.Base != want.Base || m.Source != nil {
					t.Errorf("adapter %+v, source %v, want rank %d of %s", m.Adapter, m.Source, want.Rank, want.Base)
				}
				return
			}
			compareArchitecture(t, m, &want)
		})
	}
}

func compareArchitecture(t *testing.T, m *Model, want *expected) {
	t.Helper()
	if !slices.Contains(strings.Split(want.Arch, " or "), m.Arch) {
		t.Fatalf("architecture %q, want %s; %v", m.Arch, want.Arch, m.Notes)
	}
	head := key(m, "attention.key_length")
	if head == 0 {
		head = key(m, "embedding_length") / key(m, "attention.head_count")
	}
	vocabulary, _ := m.Source.Meta.Lookup("tokenizer.ggml.tokens")
	tokens, _ := vocabulary.(model.Len)
	got := expected{
		Arch: want.Arch, Layers: key(m, "block_count") - key(m, "nextn_predict_layers"), Width: key(m, "embedding_length"), Heads: key(m, "attention.head_count"),
		HeadDim: head, Vocabulary: int64(tokens), Context: m.Context, Experts: key(m, "expert_count"), ExpertsUsed: key(m, "expert_used_count"),
		SlidingWindow: key(m, "attention.sliding_window"),
	}
	if got.Experts == 0 {
		got.ExpertsUsed = 0 // a key that nothing reads
	}
	w := *want
	w.Kind, w.HeadsKV, w.TieFlag, w.Tied, w.Stored = "", nil, nil, nil, nil
	if got != w {
		t.Errorf("got  %+v\nwant %+v", got, w)
	}
	if !reflect.DeepEqual(m.TieFlag, want.TieFlag) {
		t.Errorf("tie flag %v, want %v", m.TieFlag, want.TieFlag)
	}
	if want.Tied != nil && m.Tied != *want.Tied {
		t.Errorf("tied %v, want %v", m.Tied, *want.Tied)
	}
	heads := make([]any, want.Layers)
	list, _ := m.Source.Meta.Lookup(m.Arch + ".attention.head_count_kv")
	recurrent, _ := m.Source.Meta.Lookup(m.Arch + ".attention.recurrent_layers")
	for i := range heads {
		n, _ := hfconfig.AsInt(list)
		if l, ok := list.([]int64); ok {
			n = l[i]
		} else if list == nil {
			n = want.Heads
		}
		if r, ok := recurrent.([]bool); ok && r[i] {
			n = 0
		}
		heads[i] = float64(n)
	}
	wantKV := want.HeadsKV
	if n, ok := wantKV.(float64); ok {
		wantKV = slices.Repeat([]any{n}, len(heads))
	}
	if !reflect.DeepEqual(any(heads), wantKV) {
		t.Errorf("key-value heads %v, want %v", heads, wantKV)
	}
}

// TestClassesWriteTheConvertersKeys compares every class's keys with those that
// llama.cpp's converter wrote for the same configuration.
func TestClassesWriteTheConvertersKeys(t *testing.T) {
	golden := readGolden(t, "hf/classes.json.gz")
	shared, classes := golden.Object("config"), golden.Object("classes")
	if len(classes) < 200 {
		t.Fatalf("%d classes, want all", len(classes))
	}
	for class := range classes {
		t.Run(class, func(t *testing.T) {
			g := classes.Object(class)
			config := shared.Merge(g.Object("config"))
			config["architectures"] = []any{class}
			for _, k := range g.Strings("without") {
				delete(config, k)
			}
			m := openConfig(t, config, nil, 0)
			if m.Source == nil || m.Fault != nil {
				t.Fatalf("no architecture: %v, %v", m.Notes, m.Fault)
			}
			compareKeys(t, m, g.Object("meta"))
		})
	}
}

// TestConverterTensors compares the names, types and shapes of the tensors with
// what llama.cpp's converter wrote for the same lists.
func TestConverterTensors(t *testing.T) {
	golden := readGolden(t, "hf/converted.json.gz")
	if len(golden) < 70 {
		t.Fatalf("%d models, want 70", len(golden))
	}
	for name := range golden {
		t.Run(name, func(t *testing.T) {
			g := golden.Object(name)
			var tensors []fixtures.SafeTensor
			for _, v := range g.List("stored") {
				f := v.([]any)
				typ, ok := formats.ParseDType(f[1].(string))
				if !ok {
					t.Fatalf("type %v", f[1])
				}
				tensors = append(tensors, fixtures.SafeTensor{Name: f[0].(string), Type: typ, Shape: shapeOf(f[2])})
			}
			tokens, _ := g.Int("tokens")
			m := openConfig(t, g.Object("config"), tensors, int(tokens))
			if m.Source == nil || m.Fault != nil {
				t.Fatalf("no architecture: %v, %v", m.Notes, m.Fault)
			}
			compareKeys(t, m, g.Object("meta"))
			var got, want []string
			for i := range m.Source.Tensors {
				x := &m.Source.Tensors[i]
				got = append(got, fmt.Sprint(x.Name, " ", x.Type, " ", x.Shape))
			}
			for _, v := range g.List("tensors") {
				f := v.([]any)
				want = append(want, fmt.Sprint(f[0], " ", f[1], " ", shapeOf(f[2])))
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%d tensors, want %d:\nonly here  %v\nonly there %v", len(got), len(want), onlyIn(got, want), onlyIn(want, got))
			}
		})
	}
}

// onlyIn returns the first entries of a that b lacks.
func onlyIn(a, b []string) []string {
	out := slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
	return out[:min(len(out), 5)]
}

func shapeOf(v any) []uint64 {
	shape := []uint64{}
	for _, d := range v.([]any) {
		shape = append(shape, uint64(d.(int64)))
	}
	return shape
}

func readGolden(t *testing.T, name string) hfconfig.Object {
	t.Helper()
	b, err := fs.ReadFile(fixtures.HF, name)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if b, err = io.ReadAll(z); err != nil {
		t.Fatal(err)
	}
	o, err := hfconfig.Parse(b, name)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// openConfig opens a folder with the configuration, the tensors, and a
// tokenizer of so many tokens when that is not 0.
func openConfig(t *testing.T, config hfconfig.Object, tensors []fixtures.SafeTensor, tokens int) *Model {
	t.Helper()
	dir := t.TempDir()
	b, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	if tokens > 0 {
		vocabulary := map[string]int{}
		for i := range tokens {
			vocabulary[fmt.Sprint(i)] = i
		}
		b, _ := json.Marshal(map[string]any{"added_tokens": []int{}, "model": map[string]any{"vocab": vocabulary}})
		if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if tensors != nil {
		if err := fixtures.WriteSafetensors(filepath.Join(dir, "model.safetensors"), tensors, nil); err != nil {
			t.Fatal(err)
		}
	}
	m, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// compareKeys compares the architecture's keys.
func compareKeys(t *testing.T, m *Model, want hfconfig.Object) {
	t.Helper()
	got := m.Source.Meta.(meta)
	for k, w := range want {
		if g := got[k]; !sameValue(g, w) {
			t.Errorf("%s = %v, want %v", k, g, w)
		}
	}
	for k, g := range got {
		if _, ok := want[k]; !ok && strings.HasPrefix(k, m.Arch+".") {
			t.Errorf("%s = %v, which the converter does not write", k, g)
		}
	}
}

// sameValue compares a key's value with its form in JSON; numbers to the six
// digits that a float32 keeps.
func sameValue(got, want any) bool {
	if w, ok := want.([]any); ok {
		g := reflect.ValueOf(got)
		if g.Kind() != reflect.Slice || g.Len() != len(w) {
			return false
		}
		for i := range w {
			if !sameValue(g.Index(i).Interface(), w[i]) {
				return false
			}
		}
		return true
	}
	g, gok := hfconfig.AsFloat(got)
	w, wok := hfconfig.AsFloat(want)
	if gok && wok {
		return g == w || math.Abs(g-w) <= 1e-6*math.Abs(w)
	}
	return got == want
}

func TestOpenRefuses(t *testing.T) {
	tests := map[string]struct {
		files map[string]string
		path  string
		want  string
	}{
		"an empty folder":        {nil, "", "no config.json and no safetensors file"},
		"a pickle":               {map[string]string{"pytorch_model.bin": "x"}, "", "is a pickle"},
		"a broken configuration": {map[string]string{"config.json": `{"a": `}, "", "config.json: config.json: JSON at byte 6"},
		"a pointer of Git LFS":   {map[string]string{"model.safetensors": "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 99\n"}, "", "the real file is 99 bytes"},
		"a missing shard":        {map[string]string{"config.json": "{}", "model.safetensors.index.json": `{"weight_map":{"a":"model-1.safetensors"}}`}, "", "the file is missing"},
		"a shard outside":        {map[string]string{"config.json": "{}", "model.safetensors.index.json": `{"weight_map":{"a":"../x.safetensors"}}`}, "", "outside the folder"},
		"several models":         {map[string]string{"a.safetensors": "", "b.safetensors": ""}, "", "name the one to read"},
		"a cut file":             {map[string]string{"a.safetensors": "\x10\x00\x00\x00\x00\x00\x00\x00{}"}, "a.safetensors", "do not fit"},
		"a file of another kind": {map[string]string{"notes.txt": "some text, not a model"}, "notes.txt", "not a safetensors file"},
		"nothing there":          {nil, "none", "no such file"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for n, text := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, n), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			m, err := Open(filepath.Join(dir, tt.path))
			if err == nil || m != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Open() = %v, %v, want …%s…", m, err, tt.want)
			}
		})
	}
	if _, err := Open(t.TempDir()); !errors.Is(err, ErrNoModel) {
		t.Errorf("Open() error = %v, want ErrNoModel", err)
	}
}

// write writes a safetensors file of BF16 tensors.
func write(t *testing.T, file string, tensors ...fixtures.SafeTensor) {
	t.Helper()
	for i := range tensors {
		if tensors[i].Type == 0 && tensors[i].Data == nil {
			tensors[i].Type = formats.BF16
		}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := fixtures.WriteSafetensors(file, tensors, nil); err != nil {
		t.Fatal(err)
	}
}

func tensorOf(name string, shape ...uint64) fixtures.SafeTensor {
	return fixtures.SafeTensor{Name: name, Shape: shape}
}

func TestAShardStandsForItsModel(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "model-00001-of-00002.safetensors"), tensorOf("a", 2))
	write(t, filepath.Join(dir, "model-00002-of-00002.safetensors"), tensorOf("b", 3))
	for _, p := range []string{dir, filepath.Join(dir, "model-00002-of-00002.safetensors")} {
		m, err := Open(p)
		if err != nil || m.Params != 5 {
			t.Errorf("Open(%s) = %+v, %v, want 5 parameters", p, m, err)
		}
	}
}

func TestTheSameWeightsTwiceCountOnce(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "model.safetensors"), tensorOf("a", 2))
	write(t, filepath.Join(dir, "consolidated.safetensors"), tensorOf("a", 2))
	m, err := Open(dir)
	if err != nil || m.Params != 2 || !slices.Equal(m.LeftOut, []string{"consolidated.safetensors"}) {
		t.Errorf("Open() = %+v, %v, want 2 parameters and consolidated.safetensors left out", m, err)
	}
}

func TestPipelineByComponent(t *testing.T) {
	dir := t.TempDir()
	index := `{"_class_name":"StableDiffusionPipeline","unet":["diffusers","UNet2DConditionModel"],"vae":["diffusers","AutoencoderKL"],"scheduler":["diffusers","PNDM"],"feature_extractor":[null,null],"..":["a","b"]}`
	if err := os.WriteFile(filepath.Join(dir, "model_index.json"), []byte(index), 0o644); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "unet", "diffusion_pytorch_model.safetensors"), tensorOf("conv_in.weight", 4, 4))
	write(t, filepath.Join(dir, "vae", "diffusion_pytorch_model.safetensors"), tensorOf("encoder.weight", 3))
	m, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []Component{{"unet", "UNet2DConditionModel", 1, 16, 32}, {"vae", "AutoencoderKL", 1, 3, 6}}
	if !slices.Equal(m.Components, want) || m.Params != 19 || m.Source != nil {
		t.Errorf("components %+v of %d parameters, want %+v", m.Components, m.Params, want)
	}
}

func TestCheckpointByComponent(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sdxl.safetensors")
	write(t, file, tensorOf("model.diffusion_model.in.weight", 4), tensorOf("first_stage_model.x", 2), tensorOf("conditioner.embedders.0.y", 1))
	m, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range m.Components {
		got = append(got, fmt.Sprintf("%s %d", c.Name, c.Params))
	}
	slices.Sort(got)
	if want := []string{"VAE 2", "diffusion model 4", "text encoder 1"}; !slices.Equal(got, want) {
		t.Errorf("components %q, want %q", got, want)
	}
}

func TestCheckpointWithoutPrefixes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "flux.safetensors")
	write(t, file, tensorOf("double_blocks.0.img_attn.qkv.weight", 4), tensorOf("img_in.weight", 2))
	m, err := Open(file)
	if err != nil || !m.Diffusion || len(m.Components) != 1 || m.Components[0].Name != "diffusion model" || m.Components[0].Params != 6 {
		t.Errorf("Open() = %+v, %v, want a diffusion model of 6 parameters", m, err)
	}
}

func TestShapesAloneMakeAModel(t *testing.T) {
	file := filepath.Join(t.TempDir(), "some.safetensors")
	tensors := []fixtures.SafeTensor{tensorOf("model.embed_tokens.weight", 1000, 256), tensorOf("model.norm.weight", 256)}
	for i := range 2 {
		l := fmt.Sprintf("model.layers.%d.", i)
		tensors = append(tensors, tensorOf(l+"self_attn.q_proj.weight", 512, 256), tensorOf(l+"self_attn.k_proj.weight", 128, 256), tensorOf(l+"self_attn.v_proj.weight", 128, 256),
			tensorOf(l+"self_attn.o_proj.weight", 256, 512), tensorOf(l+"self_attn.q_norm.weight", 64), tensorOf(l+"self_attn.k_norm.weight", 64),
			tensorOf(l+"mlp.gate_proj.weight", 640, 256), tensorOf(l+"mlp.up_proj.weight", 640, 256), tensorOf(l+"mlp.down_proj.weight", 256, 640),
			tensorOf(l+"input_layernorm.weight", 256), tensorOf(l+"post_attention_layernorm.weight", 256))
	}
	write(t, file, tensors...)
	m, err := Open(file)
	if err != nil || m.Source == nil {
		t.Fatalf("Open() = %+v, %v, want a model", m, err)
	}
	if m.Arch != "qwen3" || key(m, "block_count") != 2 || key(m, "attention.head_count") != 8 || key(m, "attention.head_count_kv") != 2 ||
		key(m, "attention.key_length") != 64 || key(m, "feed_forward_length") != 640 || key(m, "context_length") != 0 {
		t.Errorf("%s %v", m.Arch, m.Source.Meta)
	}
}

func TestPoolingOfSentenceTransformers(t *testing.T) {
	dir := t.TempDir()
	if err := fixtures.WriteHF(dir, "bert-base-uncased"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "1_Pooling"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"modules.json":          `[{"type":"sentence_transformers.models.Transformer","path":""},{"type":"sentence_transformers.models.Pooling","path":"1_Pooling"}]`,
		"1_Pooling/config.json": `{"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":false}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m, err := Open(dir)
	if err != nil || key(m, "pooling_type") != 2 {
		t.Errorf("Open() = %v, pooling %d, want 2", err, key(m, "pooling_type"))
	}
}

func TestMissingKeysMeanTheClassesDefaults(t *testing.T) {
	tests := map[string]struct {
		config string
		want   map[string]int64
	}{
		"Gemma 3 with a few keys of its text model": {
			`{"architectures":["Gemma3ForConditionalGeneration"],"model_type":"gemma3","text_config":{"hidden_size":2560,"intermediate_size":10240,"model_type":"gemma3_text","num_hidden_layers":34,"rope_scaling":{"factor":8.0,"rope_type":"linear"},"sliding_window":1024}}`,
			map[string]int64{"block_count": 34, "attention.head_count": 8, "attention.head_count_kv": 4, "attention.key_length": 256, "context_length": 131072, "attention.sliding_window": 1024},
		},
		"LLaVA with a Llama inside": {
			`{"architectures":["LlavaForConditionalGeneration"],"model_type":"llava","text_config":{"architectures":["LlamaForCausalLM"],"model_type":"llama","max_position_embeddings":4096,"vocab_size":32064}}`,
			map[string]int64{"block_count": 32, "embedding_length": 4096, "attention.head_count": 32, "context_length": 4096, "vocab_size": 32064},
		},
		"Falcon with one key-value head": {
			`{"architectures":["FalconForCausalLM"],"model_type":"falcon","multi_query":true,"num_kv_heads":71}`,
			map[string]int64{"block_count": 32, "attention.head_count": 71, "attention.head_count_kv": 1, "embedding_length": 4544},
		},
		"a model without its class": {
			`{"model_type":"qwen3","num_hidden_layers":4,"hidden_size":1024}`,
			map[string]int64{"block_count": 4, "attention.key_length": 128, "attention.head_count": 32},
		},
		"Mamba in its authors' form": {
			`{"d_model":2560,"n_layer":64,"vocab_size":50277,"ssm_cfg":{}}`,
			map[string]int64{"block_count": 64, "embedding_length": 2560, "ssm.inner_size": 5120, "ssm.time_step_rank": 160},
		},
		"BLOOM under its older names": {
			`{"architectures":["BloomForCausalLM"],"model_type":"bloom","n_embed":4096,"num_attention_heads":32,"n_layer":30,"seq_length":2048}`,
			map[string]int64{"block_count": 30, "embedding_length": 4096, "attention.head_count": 32, "feed_forward_length": 16384},
		},
		"the text model's class before the outer one": {
			`{"architectures":["Mistral3ForConditionalGeneration"],"model_type":"mistral3","text_config":{"model_type":"ministral3","hidden_size":5120,"num_hidden_layers":40}}`,
			map[string]int64{"block_count": 40, "attention.head_count_kv": 8, "attention.key_length": 128, "context_length": 262144},
		},
		"a text model that is the outer class's own": {
			`{"architectures":["Qwen3_5ForConditionalGeneration"],"model_type":"qwen3_5","text_config":{"hidden_size":2560,"intermediate_size":9216}}`,
			map[string]int64{"block_count": 32, "attention.head_count": 16, "attention.head_count_kv": 4, "attention.key_length": 256, "ssm.inner_size": 4096, "full_attention_interval": 4},
		},
		"Gemma 4 without layer_types": {
			`{"architectures":["Gemma4ForConditionalGeneration"],"model_type":"gemma4","text_config":{"model_type":"gemma4_text","num_hidden_layers":35}}`,
			map[string]int64{"block_count": 35, "attention.key_length": 512, "attention.key_length_swa": 256, "attention.sliding_window": 512},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			config, err := hfconfig.Parse([]byte(tt.config), "config.json")
			if err != nil {
				t.Fatal(err)
			}
			m := openConfig(t, config, nil, 0)
			if m.Source == nil {
				t.Fatal(m.Notes)
			}
			for k, want := range tt.want {
				if got := key(m, k); got != want {
					t.Errorf("%s = %d, want %d", k, got, want)
				}
			}
		})
	}
}

func TestLayersOfGemma4WithoutTheirTypes(t *testing.T) {
	m := openConfig(t, hfconfig.Object{"architectures": []any{"Gemma4ForCausalLM"}, "model_type": "gemma4_text", "num_hidden_layers": int64(8)}, nil, 0)
	got, _ := m.Source.Meta.Lookup("gemma4.attention.sliding_window_pattern")
	if want := []bool{true, true, true, true, true, false, true, false}; !reflect.DeepEqual(got, want) {
		t.Errorf("sliding layers %v, want %v", got, want)
	}
}

func TestVocabularyOfMambaIsRoundedUp(t *testing.T) {
	for want, config := range map[int64]string{
		50280: `{"d_model":64,"n_layer":1,"vocab_size":50277,"ssm_cfg":{}}`,
		50288: `{"d_model":64,"n_layer":1,"vocab_size":50277,"ssm_cfg":{"layer":"Mamba2"}}`,
		50304: `{"d_model":64,"n_layer":1,"vocab_size":50277,"ssm_cfg":{},"pad_vocab_size_multiple":64}`,
	} {
		o, err := hfconfig.Parse([]byte(config), "config.json")
		if err != nil {
			t.Fatal(err)
		}
		n, _ := openConfig(t, o, nil, 0).Source.Meta.Lookup("tokenizer.ggml.tokens")
		if n != model.Len(want) {
			t.Errorf("%s: %v tokens, want %d", config, n, want)
		}
	}
}

func TestMistralsOwnFiles(t *testing.T) {
	dir := t.TempDir()
	params := `{"dim":256,"n_layers":1,"head_dim":32,"hidden_dim":512,"n_heads":8,"n_kv_heads":2,"norm_eps":1e-05,"vocab_size":1000,"rope_theta":1000000.0,"quantization":{"qformat_weight":"fp8_e4m3"}}`
	if err := os.WriteFile(filepath.Join(dir, "params.json"), []byte(params), 0o644); err != nil {
		t.Fatal(err)
	}
	fp8 := tensorOf("layers.0.attention.wq.weight", 256, 256)
	fp8.Type = formats.F8_E4M3
	scale := tensorOf("layers.0.attention.wq.qscale_weight")
	scale.Type, scale.Data = formats.F32, []byte{0, 0, 128, 63}
	write(t, filepath.Join(dir, "consolidated.safetensors"), tensorOf("tok_embeddings.weight", 1000, 256), tensorOf("norm.weight", 256), tensorOf("output.weight", 1000, 256), fp8, scale,
		tensorOf("layers.0.attention.wk.weight", 64, 256), tensorOf("layers.0.attention.wv.weight", 64, 256), tensorOf("layers.0.attention.wo.weight", 256, 256),
		tensorOf("layers.0.feed_forward.w1.weight", 512, 256), tensorOf("layers.0.feed_forward.w2.weight", 256, 512), tensorOf("layers.0.feed_forward.w3.weight", 512, 256),
		tensorOf("layers.0.attention_norm.weight", 256), tensorOf("layers.0.ffn_norm.weight", 256))
	m, err := Open(dir)
	if err != nil || m.Source == nil {
		t.Fatalf("Open() = %+v, %v, want a model", m, err)
	}
	if m.Arch != "llama" || key(m, "block_count") != 1 || key(m, "embedding_length") != 256 || key(m, "attention.head_count_kv") != 2 || len(m.Source.Tensors) != 12 {
		t.Errorf("%s with %d tensors, %v, %v", m.Arch, len(m.Source.Tensors), m.Source.Meta, m.Notes)
	}
	for i := range m.Source.Tensors {
		if x := &m.Source.Tensors[i]; !strings.HasPrefix(x.Name, "blk.0.") && !slices.Contains([]string{"token_embd.weight", "output.weight", "output_norm.weight"}, x.Name) {
			t.Errorf("tensor %s has no name in a GGUF", x.Name)
		}
	}
	if m.Quant == nil || m.Quant.Method != "fp8" || m.Quant.Weights != 1 || m.Refused != "" {
		t.Errorf("packing %+v, refused %q", m.Quant, m.Refused)
	}
}

func TestCheckListsFaultsOfAllFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "model-00001-of-00003.safetensors"), tensorOf("a", 2), tensorOf("extra", 1))
	if err := os.WriteFile(filepath.Join(dir, "model-00002-of-00003.safetensors"), []byte("\x02\x00\x00\x00\x00\x00\x00\x00{}x"), 0o644); err != nil {
		t.Fatal(err)
	}
	index := `{"metadata":{"total_size":9},"weight_map":{"a":"model-00001-of-00003.safetensors","c":"model-00003-of-00003.safetensors"}}`
	if err := os.WriteFile(filepath.Join(dir, "model.safetensors.index.json"), []byte(index), 0o644); err != nil {
		t.Fatal(err)
	}
	codes := func() (got []string) {
		_, problems, err := Check(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			got = append(got, p.Code)
		}
		return got
	}
	if got, want := codes(), []string{"tensor-not-in-index", "missing-shard"}; !slices.Equal(got, want) {
		t.Errorf("codes %v, want %v", got, want)
	}
	if err := os.Rename(filepath.Join(dir, "model-00002-of-00003.safetensors"), filepath.Join(dir, "model-00003-of-00003.safetensors")); err != nil {
		t.Fatal(err)
	}
	if got, want := codes(), []string{"trailing-data"}; !slices.Contains(got, want[0]) {
		t.Errorf("codes %v, want %v among them", got, want)
	}
	pointer := "version https://git-lfs.github.com/spec/v1\noid sha256:1f2e\nsize 4920734272\n"
	for _, name := range []string{"tokenizer.json", "picture.png"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(pointer), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := codes(); strings.Count(strings.Join(got, " "), "lfs-pointer") != 1 {
		t.Errorf("codes %v, want one pointer among them", got)
	}
}

func TestABlobIsReadWhateverItsName(t *testing.T) {
	file := filepath.Join(t.TempDir(), "4d7a9f")
	write(t, file, tensorOf("a", 2))
	m, err := Open(file)
	if err != nil || m.Params != 2 {
		t.Errorf("Open() = %+v, %v, want 2 parameters", m, err)
	}
}
