package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// LFM2: short convolutions and attention.
var _ = register(
	&Arch{
		Name: "lfm2", Rope: model.RopeNeoX, Hybrid: true, Rollback: true,
		Load: loadLFM2, Build: lfm2, Layer: lfm2Layer,
		Tensors: (*wants).lfm2,
		Needs:   "attention.layer_norm_rms_epsilon shortconv.l_cache",
		Source:  "src/models/lfm2.cpp@v0.5.0",
	},
	&Arch{
		Name: "lfm2moe", Rope: model.RopeNeoX, Hybrid: true, Rollback: true,
		Load: loadLFM2MoE, Build: lfm2, Layer: lfm2Layer,
		Tensors: (*wants).lfm2,
		Needs:   "attention.layer_norm_rms_epsilon shortconv.l_cache expert_feed_forward_length expert_gating_func",
		Source:  "src/models/lfm2moe.cpp@v0.5.0",
	},
)

func loadLFM2(k *Keys, h *model.HParams) {
	h.NShortconvLCache = k.Need("shortconv.l_cache")
	recurrentWithoutKV(h)
	h.NLayerDenseLead = h.NLayer()
	h.NSWA = k.Int("attention.sliding_window", 0)
	if h.NSWA > 0 {
		h.SWAType = model.SWAStandard
		for il := range h.NLayer() {
			h.Layers[il].SWA = !h.IsRecr(il)
		}
	}
	needEqualKV(k, h)
}

func loadLFM2MoE(k *Keys, h *model.HParams) {
	h.NShortconvLCache = k.Need("shortconv.l_cache")
	recurrentWithoutKV(h)
	loadExpertFF(k, h)
	h.NLayerDenseLead = k.Int("leading_dense_block_count", 0)
	h.ExpertGating = model.ExpertGating(min(k.Need("expert_gating_func"), 255))
	needEqualKV(k, h)
}

// needEqualKV rejects keys and values of different widths.
func needEqualKV(k *Keys, h *model.HParams) {
	for il := range h.NLayer() {
		if !h.IsRecr(il) && h.NEmbdKGQA(0) != h.NEmbdVGQA(0) {
			k.fail("attention.value_length", "keys and values of different widths, llama.cpp wants the same")
		}
	}
}

// lfm2Layer places the output's norm, which LFM2 files name after the
// embeddings, with the output.
func lfm2Layer(m *model.Model, name string, il int) int {
	if name == "token_embd_norm.weight" {
		return m.NLayerAll
	}
	return il
}

func lfm2(b *Builder) {
	cur := b.InpEmbd()
	var rs *RSInput
	var attn attend
	if b.SWAType != model.SWANone {
		in := b.InpHybridISWA()
		rs, attn = in.RS, func(a Attn, il int) *graph.Tensor { return b.AttendISWA(in.ISWA, a, il) }
	} else {
		in := b.InpHybrid()
		rs, attn = in.RS, func(a Attn, il int) *graph.Tensor { return b.AttendKV(in.Attn, a, il) }
	}
	pos := b.InpPos()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		prev := cur
		cur = b.LayerNorm(cur, "attn_norm", NormRMS, il)
		if b.IsRecr(il) {
			cur = b.shortConv(rs, cur, il)
		} else {
			q, k, v := b.QKV(cur, b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(il), il)
			q, k = b.LayerNorm(q, "attn_q_norm", NormRMS, il), b.LayerNorm(k, "attn_k_norm", NormRMS, il)
			a := Attn{Q: b.Rot(q, pos, nil, b.NRot(0)), K: b.Rot(k, pos, nil, b.NRot(0)), V: v}.WithOut(b, il)
			a.WOB = nil
			cur = attn(a, il)
		}
		b.LastRows(il, outIDs, &cur, &prev)
		cur = b.Add(prev, cur)
		norm := b.LayerNorm(cur, "ffn_norm", NormRMS, il)
		var ffn *graph.Tensor
		if il >= b.NLayerDenseLead {
			m := b.LayerMoE(il, ActSiLU)
			m.ProbsB, m.Gating = b.W(il, "exp_probs_b.bias"), b.ExpertGating
			ffn = b.Experts(norm, m, il)
		} else {
			ffn = b.FeedForward(norm, b.LayerFFN(il, "", ActSiLU), il)
		}
		cur = b.CVec(b.Add(cur, ffn), il)
		b.Name(cur, "l_out", il)
	}
	cur = b.Norm(cur, b.T("token_embd_norm.weight"), nil, NormRMS, -1)
	b.Embd(cur)
	if b.C.Embeddings {
		b.Expand(cur)
		return
	}
	b.Logits(b.MM(b.OutputW(), cur, b.T("output.scale")))
}

// shortConv gates a convolution over the last few tokens from both sides.
func (b *Builder) shortConv(in *RSInput, cur *graph.Tensor, il int) *graph.Tensor {
	embd, conv := int64(b.NEmbd), int64(b.NShortconvLCache)-1
	if conv < 1 {
		b.Fail("shortconv.l_cache is %d", b.NShortconvLCache)
	}
	bcx := b.MM(b.W(il, "shortconv.in_proj.weight"), b.perSeq(cur), nil)
	chunk := bcx.Ne[0] / 3
	part := func(i int64) *graph.Tensor {
		return b.View3D(bcx, chunk, bcx.Ne[1], bcx.Ne[2], bcx.Nb[1], bcx.Nb[2], f32Row(i*chunk))
	}
	gate, c, x := part(0), part(1), part(2)
	bx := b.Transpose(b.Mul(gate, x))

	all := b.StateR(il)
	old := b.RS(in, all, b.Mem.RS.NEmbdR, b.U.NSeqs, nil)
	old = b.Reshape3D(old, conv, embd, b.seqs())
	snaps := int64(1)
	if b.HParams.CausalAttn {
		bx = b.Concat(old, bx, 0)
		snaps += int64(b.C.NRsSeq)
	} else {
		pad := conv / 2
		left := b.Cont(b.View3D(old, pad, embd, b.seqs(), old.Nb[1], old.Nb[2], uint64(conv-pad)*old.Nb[0]))
		bx = b.PadExt(b.Concat(left, bx, 0), 0, int(pad), 0, 0, 0, 0, 0, 0)
	}
	for slot := range min(b.seqTokens(), snaps) {
		last := b.View3D(bx, conv, bx.Ne[1], bx.Ne[2], bx.Nb[1], bx.Nb[2], f32Row(bx.Ne[0]-conv-slot))
		at := uint64(slot) * uint64(in.State.Cells) * f32Row(conv*embd)
		b.Expand(b.Cpy(last, b.View2D(all, conv*embd, b.seqs(), all.Nb[1], at)))
	}
	y := b.Mul(c, b.SSMConv(bx, b.need(il, "shortconv.conv.weight")))
	y = b.MM(b.W(il, "shortconv.out_proj.weight"), y, nil)
	return b.Reshape2D(y, y.Ne[0], b.seqTokens()*b.seqs())
}

// lfm2 has the last norm under the name of the embeddings'.
func (w *wants) lfm2() {
	w.need(-1, "token_embd.weight", w.NEmbd, w.nVocab)
	w.need(-1, "token_embd_norm.weight", w.NEmbd)
	w.may(-1, "output.weight", w.NEmbd, w.nVocab)
	w.may(-1, "dense_2.weight", w.NEmbd, w.NEmbdOut())
	w.may(-1, "dense_2.bias", w.NEmbdOut())
	for il := range w.NLayer() {
		w.need(il, "attn_norm.weight", w.NEmbd)
		if w.IsRecr(il) {
			w.need(il, "shortconv.conv.weight", w.NShortconvLCache, w.NEmbd)
			w.need(il, "shortconv.in_proj.weight", w.NEmbd, 3*w.NEmbd)
			w.need(il, "shortconv.out_proj.weight", w.NEmbd, w.NEmbd)
		} else {
			w.headNorms(0, il)
			w.qkv(0, il, w.NEmbd, w.NEmbd, w.NEmbdKGQA(il), w.NEmbdVGQA(il))
			w.need(il, "attn_output.weight", w.NEmbd, w.NEmbd)
		}
		w.need(il, "ffn_norm.weight", w.NEmbd)
		if il < w.NLayerDenseLead {
			w.ffn(0, il, "", w.NFF(0))
		} else {
			w.routed(il)
		}
	}
}
