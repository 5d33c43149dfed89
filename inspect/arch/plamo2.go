package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// PLaMo 2: Mamba layers with heads, and attention.
var _ = register(&Arch{
	Name: "plamo2", Rope: model.RopeNeoX, Hybrid: true, Scan: true,
	Load:    loadPlamo2,
	Build:   plamo2,
	Tensors: (*wants).plamo2,
	Needs:   "attention.layer_norm_rms_epsilon ssm.conv_kernel ssm.inner_size ssm.state_size ssm.time_step_rank ssm.group_count",
	Source:  "src/models/plamo2.cpp@v0.5.0",
})

func loadPlamo2(k *Keys, h *model.HParams) {
	loadSSM(k, h, true)
	if h.SSMNGroup != 0 {
		k.fail("ssm.group_count", "%d, llama.cpp wants 0", h.SSMNGroup)
	}
	h.NEmbdHeadKFull = k.Int("attention.key_length", h.NEmbdHeadKFull)
	h.NEmbdHeadVFull = k.Int("attention.value_length", h.NEmbdHeadVFull)
	recurrentWithoutKV(h)
}

// plamo2Rank is the width of the step sizes before their projection.
func plamo2Rank(nEmbd int) int { return max(64, nEmbd/16) }

func plamo2(b *Builder) {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	in := b.InpHybrid()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		residual := inpL
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		if b.IsRecr(il) {
			cur = b.plamo2Mamba(in.RS, cur, il)
		} else {
			cur = b.plamo2Attn(in.Attn, pos, cur, il)
		}
		b.LastRows(il, outIDs, &cur, &residual)
		cur = b.Norm(cur, b.W(il, "post_attention_norm"), nil, NormRMS, il)
		cur = b.Add(cur, residual)
		residual = cur
		cur = b.LayerNorm(cur, "ffn_norm", NormRMS, il)
		cur = b.FeedForward(cur, FFN{Up: b.W(il, "ffn_up.weight"), Down: b.W(il, "ffn_down.weight"), Act: ActSwiGLU, Seq: true}, il)
		cur = b.Norm(cur, b.W(il, "post_ffw_norm"), nil, NormRMS, il)
		inpL = b.Add(cur, residual)
	}
	b.lmHead(b.LayerNormOut(inpL, NormRMS))
}

func (b *Builder) plamo2Attn(in *KVInput, pos, cur *graph.Tensor, il int) *graph.Tensor {
	dk, dv, n, kv := int64(b.NEmbdHeadK(0)), int64(b.NEmbdHeadV(0)), int64(b.NHead(il)), int64(b.NHeadKV(il))
	qkv := b.MM(b.W(il, "attn_qkv.weight"), cur, nil)
	part := func(d, heads, at int64) *graph.Tensor {
		return b.View3D(qkv, d, heads, int64(b.NTokens), f32Row(d), qkv.Nb[1], f32Row(at))
	}
	q, k, v := part(dk, n, 0), part(dk, kv, dk*n), part(dv, kv, dk*(n+kv))
	q = b.Rot(b.LayerNorm(q, "attn_q_norm", NormRMS, il), pos, nil, b.NRot(0))
	k = b.Rot(b.LayerNorm(k, "attn_k_norm", NormRMS, il), pos, nil, b.NRot(0))
	a := Attn{Q: q, K: k, V: v}.WithOut(b, il)
	a.WOB = nil
	return b.AttendKV(in, a, il)
}

// plamo2Mamba is a Mamba layer whose channels are grouped into heads, each
// with one decay.
func (b *Builder) plamo2Mamba(in *RSInput, cur *graph.Tensor, il int) *graph.Tensor {
	conv, inner, state, heads := int64(b.SSMDConv), int64(b.SSMDInner), int64(b.SSMDState), int64(b.SSMDtRank)
	dim := b.per(b.SSMDInner, b.SSMDtRank, "ssm.time_step_rank")
	rank := int64(plamo2Rank(b.NEmbd))
	tokens, seqs := b.seqTokens(), b.seqs()
	allR, allS := b.StateR(il), b.StateS(il)

	old := b.RS(in, allR, b.Mem.RS.NEmbdR, b.U.NSeqs, nil)
	old = b.Reshape3D(old, conv-1, inner, seqs)
	zx := b.MM(b.W(il, "ssm_in.weight"), b.perSeq(cur), nil)
	zx = b.Cont4D(b.Permute(zx, 0, 2, 1, 3), 2*dim, heads, tokens, seqs)
	half := func(at int64) *graph.Tensor {
		return b.View4D(zx, dim, heads, tokens, seqs, zx.Nb[1], zx.Nb[2], zx.Nb[3], f32Row(at))
	}
	x, z := b.Cont3D(half(dim), dim*heads, tokens, seqs), half(0)
	input := b.Concat(old, b.Transpose(x), 0)
	last := b.View3D(input, conv-1, inner, seqs, input.Nb[1], input.Nb[2], uint64(tokens)*input.Nb[0])
	b.Expand(b.Cpy(last, b.View1D(allR, (conv-1)*inner*seqs, 0)))
	x = b.SiLU(b.SSMConv(input, b.need(il, "ssm_conv1d.weight")))

	bcdt := b.MM(b.W(il, "ssm_x.weight"), x, nil)
	part := func(n, at int64, norm string) *graph.Tensor {
		t := b.View3D(bcdt, n, tokens, seqs, bcdt.Nb[1], bcdt.Nb[2], f32Row(at))
		return b.Norm(t, b.W(il, norm), nil, NormRMS, il)
	}
	mB, mC, dt := part(state, 0, "ssm_b_norm"), part(state, state, "ssm_c_norm"), part(rank, 2*state, "ssm_dt_norm")
	dt = b.Add(b.MM(b.W(il, "ssm_dt.weight"), dt, nil), b.W(il, "ssm_dt.bias"))
	mA := b.Reshape2D(b.need(il, "ssm_a"), 1, heads)
	split := func(t *graph.Tensor, d, n int64) *graph.Tensor {
		return b.View4D(t, d, n, tokens, seqs, f32Row(d), f32Row(d*n), f32Row(d*n*tokens), 0)
	}
	x = split(x, dim, heads)
	mB, mC = split(mB, state, 1), split(mC, state, 1)
	scanned := b.RS(in, allS, b.Mem.RS.NEmbdS, b.U.NSeqs, func(states, ids *graph.Tensor) *graph.Tensor {
		s := b.Reshape4D(states, state, dim, heads, int64(in.State.Cells))
		return b.SSMScan(s, x, dt, mA, mB, mC, ids, 1)
	})
	n := heads * dim * state * seqs
	b.Expand(b.Cpy(b.View1D(scanned, n, f32Row(heads*dim*tokens*seqs)), b.View1D(allS, n, 0)))
	y := split(scanned, dim, heads)
	y = b.Add(y, b.Mul(x, b.Reshape2D(b.need(il, "ssm_d"), 1, heads)))
	y = b.SwiGLUSplit(b.Cont(z), y)
	y = b.View3D(y, dim*heads, tokens, seqs, y.Nb[2], y.Nb[3], 0)
	cur = b.MM(b.W(il, "ssm_out.weight"), y, nil)
	return b.Reshape2D(cur, cur.Ne[0], tokens*seqs)
}

func (w *wants) plamo2() {
	w.ends()
	inner, state, heads, rank := w.SSMDInner, w.SSMDState, w.SSMDtRank, plamo2Rank(w.NEmbd)
	dq, dv := w.NEmbdHeadK(0), w.NEmbdHeadV(0)
	for il := range w.NLayer() {
		w.need(il, "attn_norm.weight", w.NEmbd)
		if w.IsRecr(il) {
			w.need(il, "ssm_in.weight", w.NEmbd, 2*inner)
			w.need(il, "ssm_conv1d.weight", w.SSMDConv, inner)
			w.need(il, "ssm_x.weight", inner, rank+2*state)
			w.need(il, "ssm_dt.weight", rank, heads)
			w.need(il, "ssm_dt.bias", heads)
			w.need(il, "ssm_a", heads)
			w.need(il, "ssm_d", heads)
			w.need(il, "ssm_out.weight", inner, w.NEmbd)
			w.need(il, "ssm_dt_norm", rank)
			w.need(il, "ssm_b_norm", state)
			w.need(il, "ssm_c_norm", state)
		} else {
			n, kv := w.NHead(il), w.NHeadKV(il)
			w.need(il, "attn_qkv.weight", w.NEmbd, dq*(n+kv)+dv*kv)
			w.need(il, "attn_q_norm.weight", dq, n)
			w.need(il, "attn_k_norm.weight", dq, kv)
			w.need(il, "attn_output.weight", dv*n, w.NEmbd)
		}
		w.plamoFFN(il, w.NFF(0))
	}
}
