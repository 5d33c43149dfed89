package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

var _ = register(
	&Arch{Name: "phi2", Rope: model.RopeNeoX, Build: phi2, Tensors: (*wants).phi2, Needs: "attention.layer_norm_epsilon", Source: "src/models/phi2.cpp@v0.5.0"},
	&Arch{Name: "phi3", Rope: model.RopeNeoX, Build: phi3, Tensors: (*wants).phi3, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/phi3.cpp@v0.5.0"}, // its window is read and ignored
	&Arch{Name: "phimoe", Rope: model.RopeNeoX, Build: phi3, Tensors: (*wants).phimoe, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/phimoe.cpp@v0.5.0"},
)

// phi2 runs attention and feed-forward side by side and scales queries itself.
func phi2(b *Builder) {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedKV()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		norm := b.LayerNorm(inpL, "attn_norm", NormLayer, il)
		q, k, v := b.QKV(norm, b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(0), il)
		q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
		cur := attn(Attn{Q: b.Scale(q), K: k, V: v}.WithOut(b, il), il)
		b.LastRows(il, outIDs, &cur, &inpL, &norm)
		ffn := b.FeedForward(norm, b.LayerFFN(il, "", ActGELU), il)
		cur = b.Add(b.Add(cur, ffn), inpL)
		inpL = b.CVec(cur, il)
		b.Name(inpL, "l_out", il)
	}
	b.lmHead(b.LayerNormOut(inpL, NormLayer))
}

// phi3 scales queries itself; gate and up projection are one matrix.
func phi3(b *Builder) {
	ffn := func(b *Builder, cur *graph.Tensor, il int) *graph.Tensor {
		if b.W(il, "ffn_gate_inp.weight") != nil {
			return b.Experts(cur, b.LayerMoE(il, ActSiLU), il)
		}
		return b.FeedForward(cur, FFN{Up: b.W(il, "ffn_up.weight"), Down: b.W(il, "ffn_down.weight"), Act: ActSwiGLU, Seq: true}, il)
	}
	wiring{factors: true, ffn: ffn, preAttn: (*Builder).scaledQ, sumLast: true}.model(b)
}

// scaledQ scales the queries before attention.
func (b *Builder) scaledQ(q *graph.Tensor, _ int) *graph.Tensor { return b.Scale(q) }

func (w *wants) phi2() {
	w.output(0, w.nVocab)
	w.need(-1, "output_norm.bias", w.NEmbd)
	w.need(-1, "output.bias", w.nVocab)
	for il := range w.NLayer() {
		w.attention(0, il, w.NEmbd, w.NEmbdVGQA(0), w.NEmbdVGQA(0))
		w.need(il, "attn_norm.bias", w.NEmbd)
		w.need(il, "attn_output.bias", w.NEmbd)
		w.need(il, "ffn_down.weight", w.NFF(0), w.NEmbd)
		w.need(il, "ffn_down.bias", w.NEmbd)
		w.need(il, "ffn_up.weight", w.NEmbd, w.NFF(0))
		w.need(il, "ffn_up.bias", w.NFF(0))
	}
}

// phi3 loads without queries, keys and values, too.
func (w *wants) phi3() {
	w.ends()
	w.phiFactors(w.NRot(0))
	for il := range w.NLayer() {
		w.need(il, "attn_norm.weight", w.NEmbd)
		w.qkv(optional, il, w.NEmbd, w.NEmbd, w.NEmbdVGQA(0), w.NEmbdVGQA(0))
		w.need(il, "attn_output.weight", w.NEmbd, w.NEmbd)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.need(il, "ffn_down.weight", w.NFF(0), w.NEmbd)
		w.need(il, "ffn_up.weight", w.NEmbd, 2*w.NFF(0))
	}
}

func (w *wants) phimoe() {
	w.output(0, w.nVocab)
	w.need(-1, "output_norm.bias", w.NEmbd)
	w.need(-1, "output.bias", w.nVocab)
	w.phiFactors(quotient(w.NEmbd, w.NHead(0)))
	for il := range w.NLayer() {
		w.attention(0, il, w.NEmbd, w.NEmbdVGQA(0), w.NEmbdVGQA(0))
		w.need(il, "attn_norm.bias", w.NEmbd)
		w.need(il, "attn_output.bias", w.NEmbd)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.need(il, "ffn_norm.bias", w.NEmbd)
		w.experts(0, il, w.NFF(0))
	}
}

// phiFactors are for both lengths, whatever the scaling is said to be.
func (w *wants) phiFactors(rotated int) {
	w.may(-1, "rope_factors_long.weight", rotated/2)
	w.may(-1, "rope_factors_short.weight", rotated/2)
}
