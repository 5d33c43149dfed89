package arch

import (
	"weigh/inspect/model"
)

var _ = register(
	&Arch{
		Name: "llama", Rope: model.RopeNorm, Quant: QuantQuirk{Layers70B: 80, Grouped70B: true},
		Load:   loadLlama,
		Build:  wiring{factors: true}.model,
		Needs:  "attention.layer_norm_rms_epsilon",
		Source: "src/models/llama.cpp@v0.5.0",
	},
	&Arch{
		Name: "llama-embed", Rope: model.RopeNorm, Quant: QuantQuirk{Layers70B: 80, Grouped70B: true},
		Load:   loadLlama,
		Build:  func(b *Builder) { b.Expand(b.decoder(wiring{factors: true, attend: (*Builder).uncached})) },
		Needs:  "attention.layer_norm_rms_epsilon",
		Source: "src/models/llama.cpp@v0.5.0, graph<true>",
	},
)

// loadLlama rejects what llama.cpp rejects: heads that are rotated in part.
func loadLlama(k *Keys, h *model.HParams) {
	if h.NHead(0) > 0 && h.NRotFull != h.NEmbdHeadKFull {
		k.fail("rope.dimension_count", "%d, llama.cpp wants the head's %d", h.NRotFull, h.NEmbdHeadKFull)
	}
}
