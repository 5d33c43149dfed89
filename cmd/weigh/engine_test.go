package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestEngineVLLM(t *testing.T) {
	path := modelFile(t, "Llama-3.2-1B-F16")
	var one, two otherEngineDocument
	weighJSON(t, 0, &one, "estimate", path, "--engine", "vllm", "--gpu", "24GiB", "--max-model-len", "8192")
	weighJSON(t, 0, &two, "estimate", path, "--engine", "vllm", "--gpu", "2x 24GiB", "--max-model-len", "8192")
	if one.Engine.Name != "vllm" || len(one.Devices) != 1 || len(two.Devices) != 2 {
		t.Fatalf("engine %+v on %d and %d devices", one.Engine, len(one.Devices), len(two.Devices))
	}
	// 16 bits a weight, all on one GPU; two share all but the norms.
	if w := one.Devices[0].Model; w < 2_471_000_000 || w > 2_480_000_000 {
		t.Errorf("weights are %d bytes", w)
	}
	if a, b := one.Devices[0].Model, two.Devices[0].Model; b < a/2 || b > a/2+a/100 {
		t.Errorf("one GPU has %d bytes of weights, each of two %d", a, b)
	}
	for _, d := range []*otherEngineDocument{&one, &two} {
		if d.KV == nil || d.KV.BlocksLow == 0 || d.KV.BlocksLow > d.KV.BlocksHigh || d.KV.RequestBlocks != 8192/16 {
			t.Errorf("cache %+v", d.KV)
		}
		for _, term := range d.Terms {
			if term.Low > term.High || term.Formula == "" {
				t.Errorf("term %+v", term)
			}
		}
	}
	weighJSON(t, 1, &one, "estimate", path, "--engine", "vllm", "--gpu", "3GiB")
	if one.Fits {
		t.Error("a model fits that does not")
	}
}

func TestEngineTransformers(t *testing.T) {
	var d otherEngineDocument
	weighJSON(t, 0, &d, "estimate", hfFolder(t, "qwen3-0.6b"), "--engine", "transformers", "--gpu", "8GiB", "-c", "4096")
	// 28 layers of 8 key and value heads of 128, 16 bits.
	cache := uint64(0)
	for _, term := range d.Terms {
		if strings.Contains(term.Name, "cache") {
			cache += term.High
		}
	}
	if want := uint64(4096 * 28 * 2 * 8 * 128 * 2); cache != want {
		t.Errorf("the cache is %d bytes, want %d; terms %+v", cache, want, d.Terms)
	}
	if len(d.Devices) != 1 || d.Devices[0].Context != cache {
		t.Errorf("devices %+v", d.Devices)
	}
}

func TestEnginePacked(t *testing.T) {
	var d otherEngineDocument
	folder := hfFolder(t, "qwen3-14b-mlx-4bit")
	weighJSON(t, 0, &d, "estimate", folder, "--engine", "vllm", "--gpu", "80GiB")
	stored := *d.Model.FileBytes
	if w := d.Devices[0].Model; w > stored+stored/20 || w < stored-stored/20 {
		t.Errorf("weights are %d bytes in files of %d", w, stored)
	}
}

// Weights on one GPU: packed and plain matrices as stored, the head once where
// it is the embedding, without the blocks that predict further tokens.
func TestEngineFolders(t *testing.T) {
	for folder, want := range map[string]uint64{
		"qwen3-0.6b":            1192099840,
		"gpt-oss-20b":           13761264768,
		"llama-2-13b-chat-gptq": 7255009280,
		"granite-3.3-8b-fp8-ct": 8375746560,
	} {
		var d otherEngineDocument
		weighJSON(t, 0, &d, "estimate", hfFolder(t, folder), "--engine", "transformers", "--gpu", "80GiB", "-c", "4096")
		if got := d.Devices[0].Model; got != want {
			t.Errorf("%s: %d bytes of weights, want %d", folder, got, want)
		}
	}
}

// Layers are shared among the GPUs that there are.
func TestEngineTransformersOnTwo(t *testing.T) {
	path := modelFile(t, "Llama-3.2-1B-F16")
	var one, two otherEngineDocument
	weighJSON(t, 1, &one, "estimate", path, "--engine", "transformers", "--gpu", "4GiB", "-c", "8192")
	weighJSON(t, 0, &two, "estimate", path, "--engine", "transformers", "--gpu", "2x 4GiB", "-c", "8192")
	a, b := one.Devices[0], two.Devices[1]
	if b.Context != a.Context/2 || b.Model <= a.Model/2 || b.Model > a.Model*7/10 || b.Compute != a.Compute {
		t.Errorf("on one GPU %+v, on each of two %+v", a, b)
	}
}

// What vLLM asks for is at most what is free.
func TestEngineVLLMOnAUsedGPU(t *testing.T) {
	path := modelFile(t, "Llama-3.2-1B-F16")
	var d otherEngineDocument
	weighJSON(t, 0, &d, "estimate", path, "--engine", "vllm", "--gpu", "24GiB:free=20GiB", "-c", "8192")
	if u := d.Settings["gpu_memory_utilization"]; u != 0.83 || !strings.Contains(strings.Join(d.Notes, "\n"), "--gpu-memory-utilization 0.83") {
		t.Errorf("utilization %v, notes %q; want 20 of 24 GiB, 0.83", u, d.Notes)
	}
	_, trouble, code := weigh(t, "estimate", path, "--engine", "vllm", "--gpu", "24GiB:free=20GiB", "--gpu-memory-utilization", "0.9")
	if code != exitError || !strings.Contains(trouble, "0.9") {
		t.Errorf("what is not free is asked for: exit code %d, %q", code, trouble)
	}
}

// A plan for a folder serves the folder, with its weights as they are packed.
func TestPlanVLLMOfFolder(t *testing.T) {
	folder := hfFolder(t, "llama-2-13b-chat-gptq")
	var d vllmDocument
	weighJSON(t, 0, &d, "plan", filepath.Join(folder, "model-00001-of-00002.safetensors"), "--engine", "vllm", "--gpu", "24GiB")
	if !strings.HasPrefix(d.Plans[0].Command, "vllm serve "+folder+" ") {
		t.Errorf("the command is %s", d.Plans[0].Command)
	}
	if p := d.Plans[0].Parts[0]; p.Name != "weights" || p.Low != 7255009280 {
		t.Errorf("%+v, want the 7255009280 bytes that are stored", p)
	}
}

// FP8 weights are unpacked where the GPU has no FP8.
func TestEngineUnpacks(t *testing.T) {
	folder := hfFolder(t, "deepseek-v3-cut4")
	var ada, ampere otherEngineDocument
	weighJSON(t, 0, &ada, "estimate", folder, "--engine", "transformers", "--gpu", "80GiB", "-c", "512")
	weighJSON(t, 0, &ampere, "estimate", folder, "--engine", "transformers", "--gpu", "80GiB:cc=8.6", "-c", "512")
	// Four layers of latent attention, three dense networks, one of 256 experts and
	// a shared one, its router, embedding and head.
	const (
		attention = 7168*1536 + 1536*128*192 + 7168*576 + 512*128*256 + 128*128*7168
		experts   = 257*3*7168*2048 + 256*7168
		matrices  = 4*attention + 3*3*7168*18432 + experts + 2*129280*7168
	)
	if got := ampere.Devices[0].Model; got < 2*matrices || got > 2*matrices+1e6 || ada.Devices[0].Model > got*6/10 {
		t.Errorf("%d bytes with FP8, %d without, want 2 bytes each of %d and the norms", ada.Devices[0].Model, got, uint64(matrices))
	}
}

func TestEngineText(t *testing.T) {
	out, _, code := weigh(t, "estimate", modelFile(t, "Llama-3.1-8B-Q8_0"), "--engine", "vllm", "--gpu", "2x 24GiB", "-c", "8192")
	if code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	golden(t, "engine/vllm", []byte(out))
}

func TestEngineRefuses(t *testing.T) {
	path := modelFile(t, "Llama-3.2-1B-F16")
	for args, want := range map[string]string{
		"--engine exllama":                                     "exllama",
		"--engine vllm --gpu none":                             "needs a GPU",
		"--engine vllm --gpu 24GiB --tensor-parallel-size 2":   "wants 2 GPUs",
		"--engine vllm --gpu 24GiB --gpu-memory-utilization 2": "utilization",
		"--engine vllm --gpu 24GiB --kv-cache-dtype q8":        "q8",
		"--engine vllm --gpu 24GiB --max-num-seqs -4":          "negative",
		"--engine transformers --gpu 24GiB --generate-batch 0": "--generate-batch",
		"--engine vllm --gpu 3x24GiB --tensor-parallel-size 3": "3 GPUs",
	} {
		out, trouble, code := weigh(t, append([]string{"estimate", path}, strings.Fields(args)...)...)
		if code != exitError || out != "" || !strings.Contains(trouble, want) {
			t.Errorf("%s: exit code %d, output %q, trouble %q; want %d, nothing and %q", args, code, out, trouble, exitError, want)
		}
	}
}
