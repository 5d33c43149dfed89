package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

var _ = register(
	&Arch{Name: "exaone", Rope: model.RopeNeoX, EvenHeads: true, Build: wiring{factors: true}.model, Tensors: stack{output: maybe, more: each{(*wants).freqs}}.ask, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/exaone.cpp@v0.5.0"},
	&Arch{Name: "exaone4", Rope: model.RopeNeoX, EvenHeads: true, NextN: NextNNever, Load: loadExaone4, Build: exaone4, Tensors: (*wants).exaone4, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/exaone4.cpp@v0.5.0"},
)

// loadExaone4 tells the model with a window by its layers.
func loadExaone4(k *Keys, h *model.HParams) {
	if h.NLayer() == 64 {
		h.SWAType = model.SWAStandard
		h.NSWA = k.Int("attention.sliding_window", 4096)
		k.pattern(h, 4)
	}
}

// exaone4 leaves the layers with full attention without positions where others
// have a window.
func exaone4(b *Builder) {
	b.lmHead(b.postNormed(func(cur, pos *graph.Tensor, il int) (q, k, v *graph.Tensor) {
		f := b.RopeFactors(il)
		q, k, v = b.QKV(cur, b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(0), il)
		q, k = b.LayerNorm(q, "attn_q_norm", NormRMS, il), b.LayerNorm(k, "attn_k_norm", NormRMS, il)
		if b.IsSWA(il) || b.SWAType == model.SWANone {
			q, k = b.Rot(q, pos, f, b.NRot(0)), b.Rot(k, pos, f, b.NRot(0))
		}
		return q, k, v
	}))
}

func (w *wants) exaone4() {
	w.ends()
	w.freqs(0)
	for il := range w.NLayerAll {
		flags := 0
		if il >= w.NLayer() {
			flags = skipped
		}
		w.qkv(flags, il, w.NEmbd, w.NEmbdHeadK(0)*w.NHead(0), w.NEmbdKGQA(0), w.NEmbdVGQA(0))
		w.tensor(flags, il, "attn_output.weight", w.NEmbd, w.NEmbd)
		w.tensor(flags, il, "attn_q_norm.weight", w.NEmbdHeadK(0))
		w.tensor(flags, il, "attn_k_norm.weight", w.NEmbdHeadK(0))
		w.tensor(flags, il, "post_attention_norm.weight", w.NEmbd)
		w.ffn(flags, il, "", w.NFF(0))
		w.tensor(flags, il, "post_ffw_norm.weight", w.NEmbd)
		if il < w.NLayer() {
			continue
		}
		w.tensor(skipped, il, "nextn.eh_proj.weight", 2*w.NEmbd, w.NEmbd)
		w.tensor(skipped, il, "nextn.enorm.weight", w.NEmbd)
		w.tensor(skipped, il, "nextn.hnorm.weight", w.NEmbd)
		w.tensor(skipped|optional, il, "nextn.shared_head_norm.weight", w.NEmbd)
	}
}
