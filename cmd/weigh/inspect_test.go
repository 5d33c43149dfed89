package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"weigh/fixtures"
	"weigh/formats"
)

// TestInspectOnRealFolders compares the document with figures derived by hand.
func TestInspectOnRealFolders(t *testing.T) {
	for _, name := range fixtures.HFNames() {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := fixtures.WriteHF(dir, name); err != nil {
				t.Fatal(err)
			}
			var want struct {
				Kind    string `json:"kind"`
				Full    uint64 `json:"kv_bytes_per_token_f16_full_layers"`
				Window  uint64 `json:"kv_bytes_per_token_f16_swa_layers"`
				State   uint64 `json:"recurrent_state_bytes_per_sequence"`
				Layers  int    `json:"n_layer"`
				Width   int    `json:"n_embd"`
				Vocab   int    `json:"n_vocab"`
				Context int    `json:"n_ctx_train"`
				Tied    *bool  `json:"tied_effective"`
				Base    string `json:"base_model_name_or_path"`
				Rank    int    `json:"r"`
				Stored  *struct {
					Params uint64  `json:"logical_params_in_files"`
					Bytes  uint64  `json:"tensor_bytes"`
					Bits   float64 `json:"bits_per_weight"`
				} `json:"stored"`
			}
			b, err := fs.ReadFile(fixtures.HF, "hf/"+name+"/expected.json")
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(b, &want); err != nil {
				t.Fatal(err)
			}
			var d inspectDocument
			weighJSON(t, 0, &d, "inspect", dir)
			if s := want.Stored; s != nil {
				if *d.Parameters != s.Params || *d.TensorBytes != s.Bytes || fmt.Sprintf("%.5f", *d.Quantization.BitsPerWeight) != fmt.Sprintf("%.5f", s.Bits) {
					t.Errorf("%d parameters in %d bytes, %f bits each; want %+v", *d.Parameters, *d.TensorBytes, *d.Quantization.BitsPerWeight, *s)
				}
			}
			if want.Kind == "lora_adapter" {
				if a := d.Adapter; a == nil || a.Base != want.Base || a.Rank != want.Rank || len(a.Modules) != 7 {
					t.Errorf("adapter %+v, want rank %d of %s in 7 kinds of modules", a, want.Rank, want.Base)
				}
				return
			}
			if *d.NLayer != want.Layers || *d.NEmbd != want.Width || *d.NVocab != want.Vocab || *d.NCtxTrain != want.Context {
				t.Errorf("%d layers, %d wide, %d tokens, context %d; want %+v", *d.NLayer, *d.NEmbd, *d.NVocab, *d.NCtxTrain, want)
			}
			if got, w := *d.Cache, (cacheDocument{want.Full, want.Window, want.State}); got != w {
				t.Errorf("caches %+v, want %+v", got, w)
			}
			if want.Tied != nil && *d.Tied != *want.Tied {
				t.Errorf("tied %v, want %v", *d.Tied, *want.Tied)
			}
		})
	}
}

// TestAConfigurationAloneIsWeighed compares the estimate of a configuration with
// that of the whole folder.
func TestAConfigurationAloneIsWeighed(t *testing.T) {
	onMachine(t, "rx7900xtx")
	for _, name := range []string{"llama-3.1-8b", "mixtral-8x7b", "gemma-2-2b-it", "gpt-oss-20b", "phi3-mini-slerp", "granite-3.3-8b-fp8-ct", "kimi-k2.5-cut2"} {
		t.Run(name, func(t *testing.T) {
			config, err := fs.ReadFile(fixtures.HF, "hf/"+name+"/config.json")
			if err != nil {
				t.Fatal(err)
			}
			var alone, whole estimateDocument
			args := []string{"--gpu", "80GiB", "--gpu", "80GiB", "--host-memory", "512GiB", "-c", "4096", "-np", "1"}
			weighJSON(t, 0, &alone, append([]string{"estimate", folder(t, map[string]string{"config.json": string(config)}, nil)}, args...)...)
			weighJSON(t, 0, &whole, append([]string{"estimate", hfFolder(t, name)}, args...)...)
			if alone.Model.FileBytes != nil || alone.Basis["model"] != "modelled" || alone.Basis["context"] != "exact" {
				t.Errorf("file of %v bytes, basis %v", alone.Model.FileBytes, alone.Basis)
			}
			for i := range whole.Devices {
				a, b := alone.Devices[i], whole.Devices[i]
				if a.Model != b.Model || a.Context != b.Context || a.Compute != b.Compute {
					t.Errorf("%s: model %d, context %d, compute %d; with weights %d, %d, %d", a.Name, a.Model, a.Context, a.Compute, b.Model, b.Context, b.Compute)
				}
			}
			if a, b := alone.Host, whole.Host; a.Model != b.Model || a.Context != b.Context || a.Compute != b.Compute {
				t.Errorf("host %+v, with weights %+v", a, b)
			}
		})
	}
	if _, trouble, code := weigh(t, "estimate", "../../fixtures/hf/qwen3.5-27b", "--mtp", "--gpu", "80GiB"); code != exitError || !strings.Contains(trouble, "multi-token prediction") {
		t.Errorf("exit code %d, trouble %q", code, trouble)
	}
	dir := folder(t, map[string]string{"config.json": `{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,"intermediate_size":128,"vocab_size":100,"max_position_embeddings":128}`}, nil)
	out, trouble, code := weigh(t, dir)
	if code != 0 || !strings.Contains(out, "no weights here") || !strings.Contains(out, "It would fit. Once its weights are here, run:") {
		t.Errorf("exit code %d, output\n%s%s", code, out, trouble)
	}
}

// folder writes a folder of side files and of safetensors, by name.
func folder(t *testing.T, side map[string]string, weights map[string][]fixtures.SafeTensor) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "folder")
	for name, text := range side {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, tensors := range weights {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := fixtures.WriteSafetensors(filepath.Join(dir, name), tensors, nil); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestInspectSaysHowWeightsArePacked(t *testing.T) {
	dir := folder(t, map[string]string{"config.json": `{"model_type":"x","quantization_config":{"quant_method":"gptq","bits":4,"group_size":128}}`}, map[string][]fixtures.SafeTensor{"model.safetensors": {
		{Name: "m.qweight", Type: formats.I32, Shape: []uint64{32, 512}},
		{Name: "m.qzeros", Type: formats.I32, Shape: []uint64{2, 64}},
		{Name: "m.scales", Type: formats.F16, Shape: []uint64{2, 512}},
		{Name: "lm_head.weight", Type: formats.F16, Shape: []uint64{100, 256}},
	}})
	var d inspectDocument
	weighJSON(t, 0, &d, "inspect", dir)
	q := d.Quantization
	if q.Method != "gptq" || q.Bits != 4 || q.Group != 128 || q.Packed != 1 || q.PackedParameters != 256*512 || q.PackedBits != 4.15625 || !slices.Equal(q.Plain, []string{"lm_head.weight"}) || q.PlainParameters != 25600 || !*q.Convertible {
		t.Errorf("packing %+v", q.packingDocument)
	}
	out, _, _ := weigh(t, "inspect", dir)
	if want := "packed by gptq · groups of 128 · 1 weight, 131 k parameters at 4.16 bits · 25.6 k left unpacked"; !strings.Contains(out, want) {
		t.Errorf("screen\n%s\nwants %q", out, want)
	}
}

func TestInspectShowsThePartsOfAPipeline(t *testing.T) {
	dir := folder(t, map[string]string{"model_index.json": `{"_class_name":"FluxPipeline","vae":["diffusers","AutoencoderKL"],"transformer":["diffusers","FluxTransformer2DModel"]}`}, map[string][]fixtures.SafeTensor{
		"vae/diffusion_pytorch_model.safetensors":         {{Name: "a.weight", Type: formats.F32, Shape: []uint64{4}}},
		"vae/diffusion_pytorch_model.fp16.safetensors":    {{Name: "a.weight", Type: formats.F16, Shape: []uint64{4}}},
		"transformer/diffusion_pytorch_model.safetensors": {{Name: "b.weight", Type: formats.BF16, Shape: []uint64{8}}},
	})
	var d inspectDocument
	weighJSON(t, 0, &d, "inspect", dir)
	want := []componentDocument{{"transformer", "FluxTransformer2DModel", 1, 8, 16}, {"vae", "AutoencoderKL", 1, 4, 16}}
	if !reflect.DeepEqual(d.Components, want) || *d.Parameters != 12 || *d.TensorBytes != 32 {
		t.Errorf("%+v, %d parameters in %d bytes, want %+v", d.Components, *d.Parameters, *d.TensorBytes, want)
	}
}

func TestInspectNamesWhatIsOdd(t *testing.T) {
	a := []fixtures.SafeTensor{{Name: "a.weight", Type: formats.F16, Shape: []uint64{4}}}
	for name, tt := range map[string]struct {
		side    map[string]string
		weights map[string][]fixtures.SafeTensor
		code    int
		want    string
	}{
		"a wrong total": {
			map[string]string{"config.json": `{"model_type":"x"}`, "model.safetensors.index.json": `{"metadata":{"total_size":9},"weight_map":{"a.weight":"m.safetensors"}}`},
			map[string][]fixtures.SafeTensor{"m.safetensors": a},
			0, "note: metadata.total_size: 9, but the tensors take 8 bytes",
		},
		"the same weights in another form": {
			map[string]string{"config.json": `{"model_type":"x"}`}, map[string][]fixtures.SafeTensor{"model.safetensors": a, "consolidated.safetensors": a}, 0, "not part of the model: consolidated.safetensors",
		},
		"a missing shard without an index": {
			map[string]string{"config.json": `{"model_type":"x"}`}, map[string][]fixtures.SafeTensor{"model-00001-of-00002.safetensors": a}, 2, "model-00002-of-00002.safetensors: the file is missing",
		},
		"an index of nothing": {
			map[string]string{"config.json": `{"model_type":"x"}`, "model.safetensors.index.json": `{"weight_map":{}}`}, map[string][]fixtures.SafeTensor{"model.safetensors": a}, 2, "the index lists no tensors",
		},
		"an adapter of another rank": {
			map[string]string{"adapter_config.json": `{"peft_type":"LORA","r":8}`}, map[string][]fixtures.SafeTensor{"adapter_model.safetensors": {
				{Name: "m.lora_A.weight", Type: formats.F32, Shape: []uint64{16, 4}}, {Name: "m.lora_B.weight", Type: formats.F32, Shape: []uint64{4, 16}},
			}}, 0, "adapter_config.json says rank 8, the tensors have rank 16",
		},
		"weights in a pickle": {
			map[string]string{"config.json": `{"architectures":["LlamaForCausalLM"],"hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,"intermediate_size":128,"vocab_size":100,"max_position_embeddings":128}`, "pytorch_model.bin": "x"}, nil, 0, "note: pytorch_model.bin is a pickle",
		},
		"a part of a pipeline in a pickle": {
			map[string]string{"model_index.json": `{"_class_name":"P","vae":["d","V"],"unet":["d","U"]}`, "vae/config.json": "{}", "vae/diffusion_pytorch_model.bin": "x"}, map[string][]fixtures.SafeTensor{"unet/diffusion_pytorch_model.safetensors": a}, 0, "note: vae is not counted: diffusion_pytorch_model.bin is a pickle",
		},
		"an adapter's configuration alone": {map[string]string{"adapter_config.json": `{"peft_type":"LORA","r":8,"base_model_name_or_path":"org/base"}`}, nil, 0, "LORA adapter of rank 8 · for org/base"},
		"a model whose context nothing says": {
			map[string]string{"params.json": `{"dim":256,"n_layers":1,"head_dim":32,"hidden_dim":512,"n_heads":8,"n_kv_heads":2,"norm_eps":1e-05,"vocab_size":1000}`}, nil, 0, "1 layers · hidden 256 · heads 8, KV 2",
		},
	} {
		t.Run(name, func(t *testing.T) {
			out, trouble, code := weigh(t, "inspect", folder(t, tt.side, tt.weights))
			if code != tt.code || !strings.Contains(out+trouble, tt.want) {
				t.Errorf("exit code %d, want %d; output\n%s%s\nwants %q", code, tt.code, out, trouble, tt.want)
			}
		})
	}
}
