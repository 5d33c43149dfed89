package estimate

import (
	"errors"
	"strings"
	"testing"

	"weigh/formats"
	"weigh/inspect/model"
)

// adapter returns an adapter of rank 16 for every matrix of m's blocks.
func adapter(m *model.Model) Companion {
	const rank = 16
	c := Companion{Name: "adapter"}
	add := func(name string, shape ...uint64) {
		c.Tensors = append(c.Tensors, model.Tensor{Name: name, Type: formats.F32, Shape: shape})
	}
	for _, t := range m.Tensors {
		if !strings.HasPrefix(t.Name, "blk.") || len(t.Shape) < 2 {
			continue
		}
		add(t.Name+".lora_a", append([]uint64{t.Shape[0], rank}, t.Shape[2:]...)...)
		add(t.Name+".lora_b", append([]uint64{rank, t.Shape[1]}, t.Shape[2:]...)...)
	}
	return c
}

// The sizes are those that llama.cpp v0.5.0 reserved with such adapters set, on
// a CPU with AVX-512.
func TestAdaptersGrowTheGraph(t *testing.T) {
	one, f := 1, false
	for _, tt := range []struct {
		model       string
		plain, lora uint64
	}{
		{"llama-Q4_K_M", 38285344, 42479648},
		{"qwen3moe-moe-Q4_K_M", 42479648, 50868256},
	} {
		m := load(t, tt.model)
		o := Options{NCtx: 512, NParallel: 1, KVUnified: &f, NOutputs: &one, Allocated: true, Repack: RepackAVX512}
		run := func() uint64 {
			t.Helper()
			b, err := Run(m, o)
			if err != nil {
				t.Fatal(err)
			}
			return hostCompute(b)
		}
		if got := run(); got != tt.plain {
			t.Errorf("%s: %d bytes without adapters, want %d", tt.model, got, tt.plain)
		}
		o.ControlVector = true
		if got := run(); got != tt.plain {
			t.Errorf("%s: %d bytes with a control vector, want %d", tt.model, got, tt.plain)
		}
		o.ControlVector, o.LoRA = false, []Companion{adapter(m)}
		if got := run(); got != tt.lora {
			t.Errorf("%s: %d bytes with an adapter, want %d", tt.model, got, tt.lora)
		}
		o.LoRA[0].Tensors = o.LoRA[0].Tensors[1:]
		var refused *RefusedError
		if _, err := Run(m, o); !errors.As(err, &refused) {
			t.Errorf("%s: half a pair: error %v, want a refusal", tt.model, err)
		}
	}
}
