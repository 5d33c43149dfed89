package arch

import (
	"cmp"

	"weigh/inspect/graph"
	"weigh/inspect/model"
)

var _ = register(
	&Arch{Name: "hunyuan-dense", Rope: model.RopeNeoX, EvenHeads: true, Load: loadHunyuan, Build: wiring{factors: true, qkNorm: qkAfter, ffn: denseFFN(ActSiLU)}.model, Tensors: stack{output: maybe, more: each{(*wants).qkNorms}}.ask, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/hunyuan-dense.cpp@v0.5.0"},
	&Arch{Name: "hunyuan_vl", Rope: model.RopeNeoX, EvenHeads: true, Load: loadHunyuanVL, Build: wiring{factors: true, qkNorm: qkAfter, ffn: denseFFN(ActSiLU)}.model, Tensors: stack{output: maybe, more: each{(*wants).qkNorms}}.ask, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/hunyuan-vl.cpp@v0.5.0"},
	&Arch{Name: "hunyuan-moe", Rope: model.RopeNeoX, EvenHeads: true, Load: loadExpertFF, Build: wiring{factors: true, qkNorm: qkAfter, ffn: (*Builder).hunyuanExperts}.model, Tensors: stack{output: maybe, ffn: (*wants).hunyuanExperts, more: each{(*wants).qkNorms}}.ask, Needs: "attention.layer_norm_rms_epsilon expert_feed_forward_length", Source: "src/models/hunyuan-moe.cpp@v0.5.0"},
)

// loadHunyuan takes a single expert for a dense block.
func loadHunyuan(_ *Keys, h *model.HParams) {
	if h.NExpert <= 1 {
		h.NExpert = 0
		for i := range h.Layers {
			h.Layers[i].NExpertUsed = 0
		}
	}
}

func loadHunyuanVL(k *Keys, h *model.HParams) {
	loadHunyuan(k, h)
	loadSections(k, h)
	if h.UseMRoPE() {
		h.RopeType = model.RopeMRoPE
	}
}

// hunyuanExperts runs the shared expert before the others.
func (b *Builder) hunyuanExperts(cur *graph.Tensor, il int) *graph.Tensor {
	shared := b.FeedForward(cur, b.LayerFFN(il, "_shexp", ActSiLU), il)
	m := b.LayerMoE(il, ActSiLU)
	return b.Add(b.Experts(cur, m, il), shared)
}

// hunyuanExperts has a shared expert as wide as the others when no key says
// how wide.
func (w *wants) hunyuanExperts(il int) {
	w.need(il, "ffn_gate_inp.weight", w.NEmbd, w.NExpert)
	w.need(il, "ffn_gate_exps.weight", w.NEmbd, w.NFF(0), w.NExpert)
	w.need(il, "ffn_down_exps.weight", w.NFF(0), w.NEmbd, w.NExpert)
	w.need(il, "ffn_up_exps.weight", w.NEmbd, w.NFF(0), w.NExpert)
	w.ffn(0, il, "_shexp", cmp.Or(w.NFFShexp, w.NFF(il)))
}
