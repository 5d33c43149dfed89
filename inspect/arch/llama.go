package arch

import (
	"weigh/inspect/model"
)

var _ = register(
	&Arch{
		Name: "llama", Rope: model.RopeNorm, Quant: QuantQuirk{Layers70B: 80, Grouped70B: true},
		Load:    loadLlama,
		Build:   wiring{factors: true}.model,
		Tensors: (*wants).llama,
		Needs:   "attention.layer_norm_rms_epsilon",
		Source:  "src/models/llama.cpp@v0.5.0",
	},
	&Arch{
		Name: "llama-embed", Rope: model.RopeNorm, Quant: QuantQuirk{Layers70B: 80, Grouped70B: true},
		Load:    loadLlama,
		Build:   func(b *Builder) { b.Expand(b.decoder(wiring{factors: true, attend: (*Builder).uncached})) },
		Tensors: (*wants).llama,
		Needs:   "attention.layer_norm_rms_epsilon",
		Source:  "src/models/llama.cpp@v0.5.0, graph<true>",
	},
)

// loadLlama rejects what llama.cpp rejects: heads that are rotated in part.
func loadLlama(k *Keys, h *model.HParams) {
	if h.NHead(0) > 0 && h.NRotFull != h.NEmbdHeadKFull {
		k.fail("rope.dimension_count", "%d, llama.cpp wants the head's %d", h.NRotFull, h.NEmbdHeadKFull)
	}
}

// llama is the plain decoder with a dense block or experts.
func (w *wants) llama() {
	w.ends()
	for il := range w.NLayer() {
		q := w.NEmbdHeadK(0) * w.NHead(0)
		w.need(il, "attn_norm.weight", w.NEmbd)
		w.qkv(0, il, w.NEmbd, q, w.NEmbdKGQA(0), w.NEmbdVGQA(0))
		w.need(il, "attn_output.weight", q, w.NEmbd)
		w.may(il, "attn_output.bias", w.NEmbd)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.ropeFactors()
		if w.NExpert == 0 {
			w.ffn(0, il, "", w.NFF(0))
			w.ffnBiases(il, w.NFF(0))
			continue
		}
		w.need(il, "ffn_gate_inp.weight", w.NEmbd, w.NExpert)
		w.may(il, "ffn_gate_exps.weight", w.NEmbd, w.NFF(0), w.NExpert)
		w.need(il, "ffn_down_exps.weight", w.NFF(0), w.NEmbd, w.NExpert)
		w.need(il, "ffn_up_exps.weight", w.NEmbd, w.NFF(0), w.NExpert)
		if w.NFFShexp > 0 {
			w.ffn(0, il, "_shexp", w.NFFShexp)
		}
	}
}
