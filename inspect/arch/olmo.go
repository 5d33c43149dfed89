package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

var _ = register(
	&Arch{Name: "olmo", Rope: model.RopeNeoX, EvenHeads: true, Quant: QuantQuirk{Layers70B: 80}, Load: loadClamp, Build: wiring{layer: true, noBiasO: true}.model, Tensors: (*wants).olmo, Needs: "attention.layer_norm_epsilon", Source: "src/models/olmo.cpp@v0.5.0"},
	&Arch{Name: "olmo2", Rope: model.RopeNeoX, EvenHeads: true, Load: loadOlmo2, Build: olmo2, Tensors: (*wants).olmo2, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/olmo2.cpp@v0.5.0"},
	&Arch{Name: "olmoe", Rope: model.RopeNeoX, EvenHeads: true, Build: olmoe, Tensors: (*wants).olmoe, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/olmoe.cpp@v0.5.0"},
	&Arch{Name: "openelm", Rope: model.RopeNeoX, Build: openelm, Tensors: (*wants).openelm, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/openelm.cpp@v0.5.0"},
)

func loadClamp(k *Keys, h *model.HParams) { h.ClampKQV = k.Float("attention.clamp_kqv", 0) }

func loadOlmo2(k *Keys, h *model.HParams) {
	if n := k.Int("attention.sliding_window", 0); n > 0 {
		h.NSWA, h.SWAType = n, model.SWAStandard
		k.pattern(h, 4)
	}
}

// flatQKV projects, norms queries and keys across all heads, and rotates.
func (b *Builder) flatQKV(cur, pos *graph.Tensor, il int) (q, k, v *graph.Tensor) {
	d, nq, nk, n := int64(b.NEmbdHeadV(0)), int64(b.NHead(0)), int64(b.NHeadKV(0)), int64(b.NTokens)
	q, k, v = b.QKVFlat(cur, int(d*nq), int(d*nk), int(d*nk), il)
	q, k = b.LayerNorm(q, "attn_q_norm", NormRMS, il), b.LayerNorm(k, "attn_k_norm", NormRMS, il)
	q, k, v = b.Reshape3D(q, d, nq, n), b.Reshape3D(k, d, nk, n), b.Reshape3D(v, d, nk, n)
	return b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0)), v
}

// postNormed is a trunk that norms what attention and feed-forward return, and
// nothing before them.
func (b *Builder) postNormed(qkv func(cur, pos *graph.Tensor, il int) (q, k, v *graph.Tensor)) *graph.Tensor {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.attendKV()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA := inpL
		q, k, v := qkv(inpL, pos, il)
		a := Attn{Q: q, K: k, V: v}.WithOut(b, il)
		a.WOB = nil
		cur := attn(a, il)
		b.LastRows(il, outIDs, &cur, &inpSA)
		cur = b.LayerNorm(cur, "post_attention_norm", NormRMS, il)
		ffnInp := b.Add(cur, inpSA)
		cur = b.FeedForward(ffnInp, b.LayerFFN(il, "", ActSiLU), il)
		cur = b.Norm(cur, b.W(il, "post_ffw_norm.weight"), nil, NormRMS, -1)
		inpL = b.CVec(b.Add(cur, ffnInp), il)
		b.Name(inpL, "l_out", il)
	}
	return b.LayerNormOut(inpL, NormRMS)
}

func olmo2(b *Builder) { b.lmHead(b.postNormed(b.flatQKV)) }

func olmoe(b *Builder) {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedKV()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA := inpL
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		q, k, v := b.flatQKV(cur, pos, il)
		a := Attn{Q: q, K: k, V: v}.WithOut(b, il)
		a.WOB = nil
		cur = attn(a, il)
		b.LastRows(il, outIDs, &cur, &inpSA)
		ffnInp := b.Add(cur, inpSA)
		cur = b.rawExperts(b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il), il)
		inpL = b.CVec(b.Add(cur, ffnInp), il)
		b.Name(inpL, "l_out", il)
	}
	b.lmHead(b.LayerNormOut(inpL, NormRMS))
}

// openelm has heads and widths of their own in every layer.
func openelm(b *Builder) {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedKV()
	outIDs := b.InpOutIDs()
	d, n := int64(b.NEmbdHeadV(0)), int64(b.NTokens)
	for il := range b.NLayer() {
		residual := inpL
		nq, nk := int64(b.NHead(il)), int64(b.NHeadKV(il))
		qkv := b.MM(b.W(il, "attn_qkv.weight"), b.LayerNorm(inpL, "attn_norm", NormRMS, il), nil)
		qkv = b.Reshape3D(qkv, int64(b.NEmbdHeadK(0)), nq+2*nk, n)
		q := b.View3D(qkv, d, nq, n, qkv.Nb[1], qkv.Nb[2], 0)
		k := b.View3D(qkv, d, nk, n, qkv.Nb[1], qkv.Nb[2], qkv.Nb[1]*uint64(nq))
		v := b.View3D(qkv, d, nk, n, qkv.Nb[1], qkv.Nb[2], qkv.Nb[1]*uint64(nq+nk))
		q, k = b.LayerNorm(q, "attn_q_norm", NormRMS, il), b.LayerNorm(k, "attn_k_norm", NormRMS, il)
		q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
		cur := attn(Attn{Q: q, K: k, V: v}.WithOut(b, il), il)
		b.LastRows(il, outIDs, &residual, &cur)
		ffnInp := b.Add(residual, cur)
		cur = b.FeedForward(b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il), b.LayerFFN(il, "", ActSiLU), il)
		inpL = b.CVec(b.Add(cur, ffnInp), il)
		b.Name(inpL, "l_out", il)
	}
	b.lmHead(b.LayerNormOut(inpL, NormRMS))
}

func (w *wants) olmo() {
	w.need(-1, "token_embd.weight", w.NEmbd, w.nVocab)
	w.may(-1, "output.weight", w.NEmbd, w.nVocab)
	for il := range w.NLayer() {
		w.qkv(0, il, w.NEmbd, w.NEmbd, w.NEmbdVGQA(0), w.NEmbdVGQA(0))
		w.need(il, "attn_output.weight", w.NEmbd, w.NEmbd)
		w.ffn(0, il, "", w.NFF(0))
	}
}

func (w *wants) olmo2() {
	w.output(0, w.nVocab)
	for il := range w.NLayer() {
		w.qkv(0, il, w.NEmbd, w.NEmbd, w.NEmbdVGQA(0), w.NEmbdVGQA(0))
		w.need(il, "attn_output.weight", w.NEmbd, w.NEmbd)
		w.need(il, "attn_q_norm.weight", w.NEmbd)
		w.need(il, "attn_k_norm.weight", w.NHeadKV(0)*quotient(w.NEmbd, w.NHead(0)))
		w.need(il, "post_attention_norm.weight", w.NEmbd)
		w.ffn(0, il, "", w.NFF(0))
		w.need(il, "post_ffw_norm.weight", w.NEmbd)
	}
}

func (w *wants) olmoe() {
	w.output(0, w.nVocab)
	for il := range w.NLayer() {
		w.attention(0, il, w.NEmbd, w.NEmbdVGQA(0), w.NEmbdVGQA(0))
		w.need(il, "attn_q_norm.weight", w.NEmbd)
		w.need(il, "attn_k_norm.weight", w.NEmbd)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.experts(0, il, w.NFF(0))
	}
}

func (w *wants) openelm() {
	w.need(-1, "token_embd.weight", w.NEmbd, w.nVocab)
	w.need(-1, "output_norm.weight", w.NEmbd)
	d := w.NEmbdHeadK(0)
	for il := range w.NLayer() {
		w.need(il, "attn_norm.weight", w.NEmbd)
		w.need(il, "attn_qkv.weight", w.NEmbd, d*(w.NHead(il)+2*w.NHeadKV(il)))
		w.headNorms(0, il)
		w.need(il, "attn_output.weight", d*w.NHead(il), w.NEmbd)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.ffn(0, il, "", w.NFF(il))
	}
}
