package arch

import (
	"weigh/formats"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// MiniMax-01: lightning attention, and softmax attention in every eighth
// layer.
var _ = register(&Arch{
	Name: "minimax-01", OneSeq: true, Rope: model.RopeNeoX, Hybrid: true, Budget: deltaBudget,
	Load:    loadMiniMax01,
	Memory:  deltaMemory,
	Build:   miniMax01,
	Tensors: (*wants).miniMax01,
	Needs:   "attention.layer_norm_rms_epsilon residual_scale",
	Source:  "src/models/minimax-01.cpp@v0.5.0",
})

func loadMiniMax01(k *Keys, h *model.HParams) {
	h.ResidualScale = k.Float("residual_scale", 0)
	h.NEmbdHeadLA = h.NEmbdHeadKFull
	recurrentInterval(k, h, 8)
}

func miniMax01(b *Builder) {
	inpL := b.InpEmbd()
	in := b.InpHybrid()
	pos := b.InpPos()
	outIDs := b.InpOutIDs()
	la := b.inpLightning()
	for il := range b.NLayer() {
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		residual := cur
		if b.IsRecr(il) {
			cur = b.lightning(in.RS, la, cur, il)
		} else {
			q, k, v := b.QKV(cur, b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(0), il)
			q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
			a := Attn{Q: q, K: k, V: v}.WithOut(b, il)
			a.WOB = nil
			cur = b.AttendKV(in.Attn, a, il)
		}
		b.LastRows(il, outIDs, &cur, &residual)
		cur = b.LayerNorm(b.Add(cur, b.Scale(residual)), "ffn_norm", NormRMS, il)
		inpL = b.CVec(b.Add(b.Experts(cur, b.LayerMoE(il, ActSiLU), il), b.Scale(cur)), il)
		b.Name(inpL, "l_out", il)
	}
	b.lmHead(b.LayerNormOut(inpL, NormRMS))
}

// lightningInput are the decays of lightning attention: of each head, and of
// the batch's queries, keys and pairs of them.
type lightningInput struct{ slopes, q, k, pairs *graph.Tensor }

// inpLightning returns the inputs of lightning attention
// (llm_graph_input_la). The pairs grow with the square of a sequence's tokens:
// a batch of one sequence needs the most.
func (b *Builder) inpLightning() lightningInput {
	n := int64(b.NHead(0))
	tokens, seqs := b.seqTokens(), b.seqs()
	return lightningInput{
		slopes: b.InputT("slopes", formats.F32, n),
		q:      b.InputT("q_decay_exp", formats.F32, 1, n, tokens, seqs),
		k:      b.InputT("k_decay_exp", formats.F32, 1, n, tokens, seqs),
		pairs:  b.InputT("diag_decay_exp", formats.F32, tokens, tokens, n, seqs),
	}
}

// lightning is lightning attention of layer il: linear attention with a decay
// for each head.
func (b *Builder) lightning(in *RSInput, la lightningInput, cur *graph.Tensor, il int) *graph.Tensor {
	d, n := int64(b.NEmbdHeadV(0)), int64(b.NHead(0))
	tokens, seqs := b.seqTokens(), b.seqs()
	b.RS(in, b.StateR(il), b.Mem.RS.NEmbdR, b.U.NSeqs, nil)
	slope := b.Scale(la.slopes)

	cur = b.Reshape4D(cur, cur.Ne[0], tokens, 1, seqs)
	qkv := b.SiLU(b.MM(b.W(il, "attn_qkv.weight"), cur, nil))
	qkv = b.Reshape4D(qkv, 3*d, n, tokens, seqs)
	part := func(i int64) *graph.Tensor {
		return b.View4D(qkv, d, n, tokens, seqs, qkv.Nb[1], qkv.Nb[2], qkv.Nb[3], f32Row(i*d))
	}
	q, k, v := part(0), part(1), part(2)
	all := b.StateS(il)
	old := b.RS(in, all, b.Mem.RS.NEmbdS, b.U.NSeqs, nil)
	old = b.Reshape4D(old, d, d, n, seqs)

	decay := func(t *graph.Tensor) *graph.Tensor { return b.Exp(b.Scale(t)) }
	qDecay, kDecay, pairs := decay(la.q), decay(la.k), decay(la.pairs)
	before := b.MulMat(old, b.Permute(b.Mul(q, qDecay), 0, 2, 1, 3))
	qk := b.MulMat(b.Permute(k, 0, 2, 1, 3), b.Permute(q, 0, 2, 1, 3))
	vt := b.Cont(b.Permute(v, 1, 2, 0, 3))
	out := b.Add(before, b.MulMat(vt, b.Mul(qk, pairs)))
	b.Expand(out)

	block := b.Reshape3D(b.Exp(b.Scale(slope)), 1, 1, n)
	kt := b.Cont(b.Permute(b.Mul(k, kDecay), 1, 2, 0, 3))
	state := b.Add(b.Mul(old, block), b.MulMat(kt, vt))
	size := int64(b.Mem.RS.NEmbdS) * seqs
	b.Expand(b.Cpy(state, b.View1D(all, size, 0)))

	out = b.Cont(b.Permute(out, 0, 2, 1, 3))
	out = b.Reshape4D(out, out.Ne[0]*out.Ne[1], out.Ne[2], 1, out.Ne[3])
	out = b.LayerNorm(out, "attn_norm_2", NormRMS, il)
	gate := b.Sigmoid(b.MM(b.W(il, "attn_gate.weight"), cur, nil))
	cur = b.MM(b.W(il, "attn_output.weight"), b.Mul(gate, out), nil)
	return b.Reshape2D(cur, cur.Ne[0], tokens*seqs)
}

func (w *wants) miniMax01() {
	w.ends()
	q := w.qWidth()
	for il := range w.NLayer() {
		w.need(il, "attn_norm.weight", w.NEmbd)
		if w.IsRecr(il) {
			w.need(il, "attn_norm_2.weight", q)
			w.need(il, "attn_qkv.weight", w.NEmbd, 3*q)
			w.tensor(unscaled, il, "attn_gate.weight", w.NEmbd, q)
		} else {
			w.qkv(0, il, w.NEmbd, q, w.NEmbdKGQA(0), w.NEmbdVGQA(0))
		}
		w.need(il, "attn_output.weight", q, w.NEmbd)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.ungatedExps(il)
	}
}
