package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

var _ = register(
	&Arch{Name: "chatglm", Rope: model.RopeNorm, Build: wiring{noBiasO: true, ffn: (*Builder).fusedSwiGLU}.model, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/chatglm.cpp@v0.5.0"},
	&Arch{Name: "glm4", Rope: model.RopeNorm, NextN: NextNNever, Load: loadGLM4, Build: glm4, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/glm4.cpp@v0.5.0"},
)

// fusedSwiGLU is a block whose gate and up projection are one matrix.
func (b *Builder) fusedSwiGLU(cur *graph.Tensor, il int) *graph.Tensor {
	return b.FeedForward(cur, FFN{Up: b.W(il, "ffn_up.weight"), Down: b.W(il, "ffn_down.weight"), Act: ActSwiGLU, Seq: true}, il)
}

func loadGLM4(k *Keys, h *model.HParams) {
	loadSections(k, h)
	if h.UseMRoPE() {
		h.RopeType = model.RopeMRoPE
	}
}

// glm4 norms before and after both attention and feed-forward.
func glm4(b *Builder) {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedKV()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA := inpL
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		q, k, v := b.QKV(cur, b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(0), il)
		q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
		a := Attn{Q: q, K: k, V: v}.WithOut(b, il)
		a.WOB = nil
		cur = attn(a, il)
		b.LastRows(il, outIDs, &cur, &inpSA)
		ffnInp := b.Add(b.LayerNorm(cur, "post_attention_norm", NormRMS, il), inpSA)
		cur = b.fusedSwiGLU(b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il), il)
		cur = b.LayerNorm(cur, "post_ffw_norm", NormRMS, il)
		inpL = b.CVec(b.Add(cur, ffnInp), il)
		b.Name(inpL, "l_out", il)
	}
	b.lmHead(b.LayerNormOut(inpL, NormRMS))
}
