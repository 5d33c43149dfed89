package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// TestDrafts holds drafts, which run with the settings of the model they draft
// for and read its weights and caches, to llama.cpp v0.5.0's own figures.
func TestDrafts(t *testing.T) {
	onMachine(t, "rx7900xtx")
	tests := map[string]struct {
		args []string
		want []buffer // of the draft
	}{
		"EAGLE-3 on the embeddings of a Llama": {
			[]string{modelFile(t, "llama-Q4_K_M"), "-md", modelFile(t, "eagle3-Q4_K_M")},
			[]buffer{{"CUDA0", 87166976, 16777216, 73924608}, {"CUDA_Host", 0, 0, 12595200}},
		},
		"DFlash, a block at once": {
			[]string{modelFile(t, "llama-Q4_K_M"), "-md", modelFile(t, "dflash-swa-Q4_K_M")},
			[]buffer{{"CUDA0", 114758656, 41943040, 73924608}, {"CUDA_Host", 0, 0, 9981952}},
		},
		"a Gemma 4 assistant on the caches of its model": {
			[]string{modelFile(t, "gemma4-Q4_K_M"), "-md", modelFile(t, "gemma4-assistant-Q4_K_M")},
			[]buffer{{"CUDA0", 72765952, 0, 38799488}, {"CUDA_Host", 26880000, 0, 13635616}},
		},
		"a model of its own": {
			[]string{modelFile(t, "Qwen3-8B-Q4_K_M"), "-md", modelFile(t, "Qwen3-0.6B-Q8_0")},
			[]buffer{{"CUDA0", 633499648, 939524096, 31467648}, {"CUDA_Host", 165306368, 0, 8400928}},
		},
		"multi-token prediction on the model's own weights": {
			[]string{modelFile(t, "qwen35-mtp-Q4_K_M"), "--spec-type", "draft-mtp"},
			[]buffer{{"CUDA0", 0, 16777216, 46153856}, {"CUDA_Host", 0, 0, 12601376}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"estimate"}, tt.args...)
			out, trouble, code := weigh(t, append(args, "--json", "--gpu", "24GiB", "-c", "8192", "-np", "2", "--fit", "off", "--host-memory", "64GiB")...)
			if code != 0 {
				t.Fatalf("exit code %d: %s", code, trouble)
			}
			var d estimateDocument
			if err := json.Unmarshal([]byte(out), &d); err != nil {
				t.Fatal(err)
			}
			if len(d.Parts) != 1 || d.Parts[0].Kind != "draft" || !slices.Equal(d.Parts[0].Use, tt.want) {
				t.Errorf("the parts are %+v, want one draft with %+v", d.Parts, tt.want)
			}
		})
	}
}

// TestTroubleIsSaid holds that a driver that fails is not passed over in silence
// where a model is then planned for the CPU.
func TestTroubleIsSaid(t *testing.T) {
	onMachine(t, "mixed") // with an NVIDIA card that has no driver
	out, trouble, code := weigh(t, "estimate", modelFile(t, "Llama-3.2-1B-Q4_K_M"), "-c", "4096", "--json")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, trouble)
	}
	var d estimateDocument
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(d.Notes, func(n string) bool {
		return strings.Contains(n, "no NVIDIA driver") && strings.Contains(n, "weigh doctor")
	}) {
		t.Errorf("notes are %q, want one of the card without a driver", d.Notes)
	}
	if notes := strings.Join(d.Notes, "; "); !strings.Contains(notes, "built for rocm and vulkan") {
		t.Errorf("notes are %q, want one of the two backends that its cards want", notes)
	}
}

// TestNamedMachines holds that a machine named by its chip has all the memory
// that was sold with it, not only what its GPU may take.
func TestNamedMachines(t *testing.T) {
	onMachine(t, "rx7900xtx")
	const gib = 1 << 30
	for gpu, want := range map[string]struct{ device, host uint64 }{
		"M4 Max 128GB":         {96 * gib, 128 * gib},
		"Radeon 8060S 128GB":   {64 * gib, 128 * gib},
		"GB10":                 {128 * gib, 128 * gib},
		"RTX 4090":             {24 * gib, 65536000 << 10},
		"2x RTX 3090:free=1GB": {24 * gib, 65536000 << 10},
	} {
		t.Run(gpu, func(t *testing.T) {
			out, _, _ := weigh(t, "estimate", modelFile(t, "Llama-3.2-1B-Q4_K_M"), "-c", "4096", "--json", "--gpu", gpu)
			var d estimateDocument
			if err := json.Unmarshal([]byte(out), &d); err != nil {
				t.Fatal(err)
			}
			if d.Devices[0].MemoryTotal == nil || *d.Devices[0].MemoryTotal != want.device || d.Host.MemoryTotal == nil || *d.Host.MemoryTotal != want.host || d.Host.MemoryFree == nil || *d.Host.MemoryFree > want.host {
				t.Errorf("device and host are %+v, %+v, want %d and %d bytes", d.Devices[0], d.Host, want.device, want.host)
			}
		})
	}
}
