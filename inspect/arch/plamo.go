package arch

import (
	"weigh/inspect/model"
)

var _ = register(
	&Arch{Name: "plamo", Rope: model.RopeNeoX, EvenHeads: true, Build: plamo, Tensors: (*wants).plamo, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/plamo.cpp@v0.5.0"},
	&Arch{Name: "plamo3", Rope: model.RopeNeoX, Load: loadPlamo3, Build: plamo3, Tensors: (*wants).plamo3, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/plamo3.cpp@v0.5.0"},
)

// plamo runs attention and feed-forward side by side.
func plamo(b *Builder) {
	head := b.NEmbdHeadV(0)
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedKV()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		in := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		q, k, v := b.QKV(in, head, b.NHead(0), b.NHeadKV(0), il)
		q, k = b.Rot(q, pos, nil, head), b.Rot(k, pos, nil, head)
		out := attn(Attn{Q: q, K: k, V: v}.WithOut(b, il), il)
		b.LastRows(il, outIDs, &out, &in, &inpL)
		cur := b.FeedForward(in, b.LayerFFN(il, "", ActSiLU), il)
		cur = b.Add(b.Add(cur, out), inpL)
		inpL = b.CVec(cur, il)
		b.Name(inpL, "l_out", il)
	}
	b.lmHead(b.LayerNormOut(inpL, NormRMS))
}

func loadPlamo3(k *Keys, h *model.HParams) {
	if n := k.Int("attention.sliding_window", 0); n > 0 {
		h.NSWA, h.SWAType = n, model.SWAStandard
		k.pattern(h, 8)
	}
}

// plamo3 norms what attention and feed-forward return.
func plamo3(b *Builder) {
	dq, dv := b.NEmbdHeadK(0), b.NEmbdHeadV(0)
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.attendKV()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		residual := inpL
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		q, k, v := b.QKVDims(cur, dq, b.NHead(il), dq, b.NHeadKV(il), dv, b.NHeadKV(il), il)
		q, k = b.LayerNorm(q, "attn_q_norm", NormRMS, il), b.LayerNorm(k, "attn_k_norm", NormRMS, il)
		q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
		cur = attn(Attn{Q: q, K: k, V: v}.WithOut(b, il), il)
		b.LastRows(il, outIDs, &cur, &residual)
		cur = b.Add(b.Norm(cur, b.W(il, "post_attention_norm"), nil, NormRMS, il), residual)
		residual = cur
		cur = b.LayerNorm(cur, "ffn_norm", NormRMS, il)
		cur = b.FeedForward(cur, FFN{Up: b.W(il, "ffn_up.weight"), Down: b.W(il, "ffn_down.weight"), Act: ActSwiGLU, Seq: true}, il)
		cur = b.Add(b.Norm(cur, b.W(il, "post_ffw_norm"), nil, NormRMS, il), residual)
		inpL = b.CVec(cur, il)
		b.Name(inpL, "l_out", il)
	}
	b.lmHead(b.LayerNormOut(inpL, NormRMS))
}

func (w *wants) plamo() {
	w.output(0, w.nVocab)
	for il := range w.NLayer() {
		w.attention(0, il, w.NEmbd, w.NEmbdVGQA(0), w.NEmbdVGQA(0))
		w.ffn(0, il, "", w.NFF(0))
	}
}

func (w *wants) plamo3() {
	w.ends()
	dq, dv := w.NEmbdHeadK(0), w.NEmbdHeadV(0)
	for il := range w.NLayer() {
		n, kv := w.NHead(il), w.NHeadKV(il)
		w.need(il, "attn_norm.weight", w.NEmbd)
		w.need(il, "attn_qkv.weight", w.NEmbd, dq*(n+kv)+dv*kv)
		w.headNorms(0, il)
		w.need(il, "attn_output.weight", dv*n, w.NEmbd)
		w.plamoFFN(il, w.NFF(il))
	}
}

// plamoFFN are the norms around a block of width nFF, and its two matrices.
func (w *wants) plamoFFN(il, nFF int) {
	w.need(il, "post_attention_norm", w.NEmbd)
	w.need(il, "ffn_norm.weight", w.NEmbd)
	w.need(il, "ffn_down.weight", nFF, w.NEmbd)
	w.need(il, "ffn_up.weight", w.NEmbd, 2*nFF)
	w.need(il, "post_ffw_norm", w.NEmbd)
}
