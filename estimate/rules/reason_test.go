package rules

import (
	"strings"
	"testing"
)

func TestReason(t *testing.T) {
	gemma := Model{
		Parameters: 3880099328, WeightBytes: 2480000000, Bits: 4, Hidden: 2560, Layers: 34, Heads: 8, HeadsKV: 4, HeadDim: 256, FullLayers: 5, Window: 1024,
	}
	hybrid := gemma
	hybrid.FullLayers, hybrid.States, hybrid.Window, hybrid.OutputTensor = 8, 26, 0, 622_000_000
	latent := gemma
	latent.FullLayers, latent.Latent, latent.HeadsKV, latent.HeadDim = 34, true, 1, 576
	for _, tt := range []struct {
		rule string
		m    Model
		want []string
		not  string
	}{
		{"parameters × precision", gemma, []string{"a weight takes 5.11 bits, not 4"}, "layers"},
		{"CPU memory", gemma, []string{"weights of 4 bits count as 16", "8 heads share 4 keys", "29 of 34 layers keep 1024 tokens"}, "state"},
		{"Ollama", gemma, []string{"a head is 256 wide, not 320", "29 of 34 layers"}, "bits"},
		{"hf-mem", hybrid, []string{"26 of 34 layers keep a state"}, "tokens of"},
		{"Accelerate, total", hybrid, []string{"leaves out 0.62 B"}, "state"},
		{"Ollama", latent, []string{"one latent row"}, "wide"},
		{"NVIDIA", Model{Parameters: 1e9, WeightBytes: 2e9, Bits: 16}, nil, "here"},
	} {
		r := rule(t, tt.rule)
		got := r.Reason(tt.m)
		if !strings.HasPrefix(got, r.Why) || strings.Contains(strings.TrimPrefix(got, r.Why), tt.not) {
			t.Errorf("%s: %q", tt.rule, got)
		}
		for _, want := range tt.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q does not say %q", tt.rule, got, want)
			}
		}
	}
}
