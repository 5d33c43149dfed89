package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// Mamba, Mamba-2 and the models that put their layers beside attention.
var _ = register(
	&Arch{
		Name: "mamba", Rope: model.RopeNone, Recurrent: true, Scan: true,
		Load: func(k *Keys, h *model.HParams) {
			loadSSM(k, h, false)
			needDoubled(k, h)
			h.SSMDtBCRMS = k.Bool("ssm.dt_b_c_rms", false)
		},
		Build:   func(b *Builder) { b.mambaModel((*Builder).Mamba) },
		Tensors: (*wants).mamba,
		Needs:   "attention.layer_norm_rms_epsilon ssm.conv_kernel ssm.inner_size ssm.state_size ssm.time_step_rank",
		Source:  "src/models/mamba.cpp@v0.5.0",
	},
	&Arch{
		Name: "mamba2", Rope: model.RopeNone, Recurrent: true, Scan: true,
		Load:    func(k *Keys, h *model.HParams) { loadSSM(k, h, true) },
		Build:   func(b *Builder) { b.mambaModel((*Builder).Mamba2) },
		Tensors: (*wants).mamba2,
		Needs:   "attention.layer_norm_rms_epsilon ssm.conv_kernel ssm.inner_size ssm.state_size ssm.time_step_rank ssm.group_count",
		Source:  "src/models/mamba2.cpp@v0.5.0",
	},
	&Arch{
		Name: "jamba", Rope: model.RopeNone, Hybrid: true, Scan: true,
		Load: func(k *Keys, h *model.HParams) {
			loadSSM(k, h, false)
			needDoubled(k, h)
			recurrentWithoutKV(h)
		},
		Build:   jamba,
		Tensors: (*wants).jamba,
		Needs:   "attention.layer_norm_rms_epsilon ssm.conv_kernel ssm.inner_size ssm.state_size ssm.time_step_rank",
		Source:  "src/models/jamba.cpp@v0.5.0",
	},
	&Arch{
		Name: "falcon-h1", Rope: model.RopeNeoX, Hybrid: true, Scan: true,
		Load: func(k *Keys, h *model.HParams) {
			loadSSM(k, h, true)
			for il := range h.Layers {
				h.Layers[il].Recr = true
			}
		},
		Memory: func(m *model.Model, c *Context) *Memory {
			every := func(int) bool { return true }
			return HybridMemory(m, c, every, every)
		},
		Build:   falconH1,
		Tensors: (*wants).falconH1,
		Needs:   "attention.layer_norm_rms_epsilon ssm.conv_kernel ssm.inner_size ssm.state_size ssm.time_step_rank ssm.group_count",
		Source:  "src/models/falcon-h1.cpp@v0.5.0",
	},
	&Arch{
		Name: "granitehybrid", Rope: model.RopeNorm, Hybrid: true, Scan: true,
		Load:    loadGraniteHybrid,
		Build:   graniteHybrid,
		Tensors: (*wants).graniteHybrid,
		Needs:   "attention.layer_norm_rms_epsilon ssm.conv_kernel ssm.inner_size ssm.state_size ssm.time_step_rank ssm.group_count",
		Source:  "src/models/granite-hybrid.cpp@v0.5.0",
	},
)

// needDoubled rejects inner values that are not twice as many as the model is
// wide.
func needDoubled(k *Keys, h *model.HParams) {
	if h.SSMDInner != 2*h.NEmbd {
		k.fail("ssm.inner_size", "%d, llama.cpp wants twice a width of %d", h.SSMDInner, h.NEmbd)
	}
}

// A recurrentLayer appends a recurrent layer.
type recurrentLayer func(b *Builder, in *RSInput, cur *graph.Tensor, il int) *graph.Tensor

// mambaModel is a stack of such layers, each with a norm and a residual.
func (b *Builder) mambaModel(layer recurrentLayer) {
	inpL := b.InpEmbd()
	in := b.InpRS()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		cur := layer(b, in, b.LayerNorm(inpL, "attn_norm", NormRMS, il), il)
		b.LastRows(il, outIDs, &cur, &inpL)
		inpL = b.CVec(b.Add(cur, inpL), il)
		b.Name(inpL, "l_out", il)
	}
	b.lmHead(b.LayerNormOut(inpL, NormRMS))
}

// Mamba is a layer with a state for each channel. (build_mamba_layer)
//
// Source: src/models/mamba-base.cpp@v0.5.0.
func (b *Builder) Mamba(in *RSInput, cur *graph.Tensor, il int) *graph.Tensor {
	conv, inner, state, rank := int64(b.SSMDConv), int64(b.SSMDInner), int64(b.SSMDState), int64(b.SSMDtRank)
	tokens, seqs := b.seqTokens(), b.seqs()
	allR, allS := b.StateR(il), b.StateS(il)

	old := b.RS(in, allR, b.Mem.RS.NEmbdR, b.U.NSeqs, nil)
	old = b.Reshape3D(old, conv-1, inner, seqs)
	xz := b.MM(b.W(il, "ssm_in.weight"), b.perSeq(cur), b.W(il, "ssm_in.scale"))
	half := func(i int64) *graph.Tensor {
		return b.View3D(xz, inner, xz.Ne[1], xz.Ne[2], xz.Nb[1], xz.Nb[2], f32Row(i*inner))
	}
	x, z := half(0), half(1)
	input := b.Concat(old, b.Transpose(x), 0)
	last := b.View3D(input, conv-1, inner, seqs, input.Nb[1], input.Nb[2], uint64(tokens)*input.Nb[0])
	b.Expand(b.Cpy(last, b.View1D(allR, (conv-1)*inner*seqs, 0)))
	x = b.SiLU(b.Add(b.SSMConv(input, b.need(il, "ssm_conv1d.weight")), b.W(il, "ssm_conv1d.bias")))

	db := b.MM(b.W(il, "ssm_x.weight"), x, nil)
	dt := b.View3D(db, rank, tokens, seqs, db.Nb[1], db.Nb[2], 0)
	part := func(at int64) *graph.Tensor {
		return b.View4D(db, state, 1, tokens, seqs, uint64(state)*db.Nb[0], db.Nb[1], db.Nb[2], f32Row(at))
	}
	mB, mC := part(rank), part(rank+state)
	dtNorm, bNorm, cNorm := b.W(il, "ssm_dt_norm.weight"), b.W(il, "ssm_b_norm.weight"), b.W(il, "ssm_c_norm.weight")
	if b.SSMDtBCRMS || (dtNorm != nil && bNorm != nil && cNorm != nil) {
		dt = b.Norm(dt, dtNorm, nil, NormRMS, il)
		mB, mC = b.Norm(mB, bNorm, nil, NormRMS, il), b.Norm(mC, cNorm, nil, NormRMS, il)
	} else {
		dt = b.Cont(dt)
	}
	dt = b.Add(b.MM(b.W(il, "ssm_dt.weight"), dt, nil), b.W(il, "ssm_dt.bias"))
	flat := x
	x = b.Reshape4D(x, 1, inner, tokens, seqs)
	scanned := b.RS(in, allS, b.Mem.RS.NEmbdS, b.U.NSeqs, func(states, ids *graph.Tensor) *graph.Tensor {
		s := b.Reshape4D(states, state, 1, inner, int64(in.State.Cells))
		return b.SSMScan(s, x, dt, b.W(il, "ssm_a"), mB, mC, ids, 1)
	})
	b.Expand(b.Cpy(b.View1D(scanned, state*inner*seqs, x.Nb[3]*uint64(x.Ne[3])), b.View1D(allS, state*inner*seqs, 0)))
	y := b.View3D(scanned, inner, tokens, seqs, x.Nb[2], x.Nb[3], 0)
	y = b.Add(y, b.Mul(flat, b.W(il, "ssm_d")))
	y = b.SwiGLUSplit(b.Cont(z), y)
	cur = b.MM(b.W(il, "ssm_out.weight"), y, b.W(il, "ssm_out.scale"))
	return b.Reshape2D(cur, cur.Ne[0], tokens*seqs)
}

// Mamba2 is a layer with heads that share a state matrix in groups.
// (build_mamba2_layer)
//
// Source: src/models/mamba-base.cpp@v0.5.0.
func (b *Builder) Mamba2(in *RSInput, cur *graph.Tensor, il int) *graph.Tensor {
	conv, inner, state := int64(b.SSMDConv), int64(b.SSMDInner), int64(b.SSMDState)
	heads, groups := int64(b.SSMDtRank), int64(b.SSMNGroup)
	dim, group := b.per(b.SSMDInner, b.SSMDtRank, "ssm.time_step_rank"), b.per(b.SSMDInner, b.SSMNGroup, "ssm.group_count")
	channels := inner + 2*groups*state
	tokens, seqs, cells := b.seqTokens(), b.seqs(), uint64(b.Mem.RS.Cells)
	snaps := int64(b.C.NRsSeq) + 1
	written := min(tokens, snaps)
	allR, allS := b.StateR(il), b.StateS(il)

	old := b.RS(in, allR, b.Mem.RS.NEmbdR, b.U.NSeqs, nil)
	old = b.Reshape3D(old, conv-1, channels, seqs)
	all := b.perSeq(b.MM(b.W(il, "ssm_in.weight"), cur, b.W(il, "ssm_in.scale")))
	z := b.View4D(all, dim, heads, tokens, seqs, uint64(dim)*all.Nb[0], all.Nb[1], all.Nb[2], 0)
	xbc := b.View3D(all, channels, tokens, seqs, all.Nb[1], all.Nb[2], f32Row(inner))
	dt := b.View3D(all, heads, tokens, seqs, all.Nb[1], all.Nb[2], f32Row(inner+channels))

	input := b.Concat(old, b.Transpose(xbc), 0)
	row := (conv - 1) * channels
	for slot := range written {
		last := b.View3D(input, conv-1, channels, seqs, input.Nb[1], input.Nb[2], uint64(tokens-slot)*input.Nb[0])
		b.Expand(b.Cpy(last, b.View2D(allR, row, seqs, allR.Nb[1], uint64(slot)*cells*f32Row(row))))
	}
	xbc = b.SiLU(b.Add(b.SSMConv(input, b.need(il, "ssm_conv1d.weight")), b.W(il, "ssm_conv1d.bias")))

	part := func(d, n, at int64) *graph.Tensor {
		return b.View4D(xbc, d, n, tokens, seqs, uint64(d)*xbc.Nb[0], xbc.Nb[1], xbc.Nb[2], f32Row(at))
	}
	x, mB, mC := part(dim, heads, 0), part(state, groups, inner), part(state, groups, inner+groups*state)
	dt = b.Add(b.Cont(dt), b.W(il, "ssm_dt.bias"))
	scanned := b.RS(in, allS, b.Mem.RS.NEmbdS, b.U.NSeqs, func(states, ids *graph.Tensor) *graph.Tensor {
		s := b.Reshape4D(states, state, dim, heads, allS.Ne[1])
		return b.SSMScan(s, x, dt, b.W(il, "ssm_a"), mB, mC, ids, snaps)
	})
	d := state * inner
	src := b.View3D(scanned, d, seqs, written, f32Row(d), f32Row(d*seqs), f32Row(x.Elements()))
	b.Expand(b.Cpy(src, b.View3D(allS, d, seqs, written, allS.Nb[1], cells*f32Row(d), 0)))
	y := b.View4D(scanned, dim, heads, tokens, seqs, x.Nb[1], uint64(heads)*x.Nb[1], uint64(tokens*heads)*x.Nb[1], 0)
	y = b.Add(y, b.Mul(x, b.W(il, "ssm_d")))
	y = b.SwiGLUSplit(b.Cont(z), y)
	if w := b.W(il, "ssm_norm.weight"); w != nil {
		y = b.Reshape4D(y, group, groups, tokens, seqs)
		y = b.Norm(y, w, nil, NormRMS, il)
	}
	y = b.Reshape2D(y, inner, tokens*seqs)
	return b.MM(b.W(il, "ssm_out.weight"), y, b.W(il, "ssm_out.scale"))
}

// jamba alternates Mamba and attention without positions.
func jamba(b *Builder) {
	inpL := b.InpEmbd()
	in := b.InpHybrid()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		if b.IsRecr(il) {
			cur = b.Mamba(in.RS, cur, il)
		} else {
			q, k, v := b.QKV(cur, b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(il), il)
			a := Attn{Q: q, K: k, V: v}.WithOut(b, il)
			a.WOB = nil
			cur = b.AttendKV(in.Attn, a, il)
		}
		b.LastRows(il, outIDs, &cur, &inpL)
		ffnInp := b.Add(inpL, cur)
		cur = b.rawFFN(b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il), il)
		inpL = b.CVec(b.Add(ffnInp, cur), il)
		b.Name(inpL, "l_out", il)
	}
	b.lmHead(b.LayerNormOut(inpL, NormRMS))
}

// rawFFN is a gated SiLU block, or experts with weights as the router gives
// them.
func (b *Builder) rawFFN(cur *graph.Tensor, il int) *graph.Tensor {
	if b.W(il, "ffn_gate_inp.weight") == nil {
		return b.FeedForward(cur, b.LayerFFN(il, "", ActSiLU), il)
	}
	return b.rawExperts(cur, il)
}

// falconH1 runs attention and Mamba-2 beside each other in every layer.
func falconH1(b *Builder) {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	in := b.InpHybrid()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		q, k, v := b.QKV(cur, b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(0), il)
		q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
		a := Attn{Q: q, K: k, V: v}.WithOut(b, il)
		a.WOB = nil
		attn := b.AttendKV(in.Attn, a, il)
		ssm := b.Mamba2(in.RS, b.LayerNorm(inpL, "attn_norm", NormRMS, il), il)
		cur = b.Add(attn, ssm)
		ffnInp := b.Add(cur, inpL)
		b.LastRows(il, outIDs, &ffnInp)
		cur = b.Norm(ffnInp, b.W(il, "ffn_norm"), nil, NormRMS, il)
		cur = b.FeedForward(cur, b.LayerFFN(il, "", ActSiLU), il)
		inpL = b.CVec(b.Add(cur, ffnInp), il)
		b.Name(inpL, "l_out", il)
	}
	b.lmHead(b.LayerNormOut(inpL, NormRMS))
}

func loadGraniteHybrid(k *Keys, h *model.HParams) {
	h.LogitScale = k.Float("logit_scale", 0)
	h.ResidualScale = k.Float("residual_scale", 0)
	h.EmbeddingScale = k.Float("embedding_scale", 0)
	h.NFFShexp = k.Int("expert_shared_feed_forward_length", 0)
	loadSSM(k, h, true)
	needDoubled(k, h)
	recurrentWithoutKV(h)
	rope := k.Bool("rope.scaling.finetuned", true)
	for il := range h.Layers {
		h.Layers[il].NoRope = !rope
	}
}

// graniteHybrid is Granite with Mamba-2 in most layers.
func graniteHybrid(b *Builder) {
	inpL := b.InpEmbd()
	in := b.InpHybrid()
	outIDs := b.InpOutIDs()
	pos := b.InpPos()
	attn := func(a Attn, il int) *graph.Tensor { return b.AttendKV(in.Attn, a, il) }
	for il := range b.NLayer() {
		inpSA := inpL
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		if b.IsRecr(il) {
			cur = b.Mamba2(in.RS, cur, il)
		} else {
			cur = b.graniteAttn(cur, pos, attn, il)
		}
		b.LastRows(il, outIDs, &cur, &inpSA)
		inpL = b.graniteFFN(cur, inpSA, il)
	}
	cur := b.MM(b.OutputW(), b.LayerNormOut(inpL, NormRMS), b.T("output.scale"))
	if b.LogitScale != 0 {
		cur = b.Scale(cur)
	}
	b.Logits(cur)
}

// mamba1 asks for a layer with a state for each channel.
func (w *wants) mamba1(il int) {
	inner, state, rank := w.SSMDInner, w.SSMDState, w.SSMDtRank
	w.need(il, "ssm_in.weight", w.NEmbd, 2*inner)
	w.need(il, "ssm_conv1d.weight", w.SSMDConv, inner)
	w.need(il, "ssm_conv1d.bias", inner)
	w.need(il, "ssm_x.weight", inner, rank+2*state)
	w.need(il, "ssm_dt.weight", rank, inner)
	w.need(il, "ssm_dt.bias", inner)
	w.need(il, "ssm_a", state, inner)
	w.need(il, "ssm_d", inner)
	w.need(il, "ssm_out.weight", inner, w.NEmbd)
}

// mambaHeads asks for a Mamba-2 layer, of which bias flags the convolution's
// bias and norm the norm.
func (w *wants) mambaHeads(il, bias, norm int) {
	inner, heads := w.SSMDInner, w.SSMDtRank
	conv := inner + 2*w.SSMNGroup*w.SSMDState
	w.need(il, "ssm_in.weight", w.NEmbd, inner+conv+heads)
	w.need(il, "ssm_conv1d.weight", w.SSMDConv, conv)
	w.tensor(bias, il, "ssm_conv1d.bias", conv)
	w.need(il, "ssm_dt.bias", heads)
	w.need(il, "ssm_a", 1, heads)
	w.need(il, "ssm_d", 1, heads)
	w.tensor(norm, il, "ssm_norm.weight", quotient(inner, w.SSMNGroup), w.SSMNGroup)
	w.need(il, "ssm_out.weight", inner, w.NEmbd)
}

func (w *wants) mamba() {
	w.ends()
	for il := range w.NLayer() {
		w.need(il, "attn_norm.weight", w.NEmbd)
		w.mamba1(il)
	}
}

func (w *wants) mamba2() {
	w.ends()
	for il := range w.NLayer() {
		w.need(il, "attn_norm.weight", w.NEmbd)
		w.mambaHeads(il, 0, 0)
	}
}

func (w *wants) jamba() {
	w.ends()
	for il := range w.NLayer() {
		w.need(il, "attn_norm.weight", w.NEmbd)
		if w.NHeadKV(il) == 0 {
			w.mamba1(il)
			w.need(il, "ssm_dt_norm.weight", w.SSMDtRank)
			w.need(il, "ssm_b_norm.weight", w.SSMDState)
			w.need(il, "ssm_c_norm.weight", w.SSMDState)
		} else {
			w.qkv(0, il, w.NEmbd, w.NEmbd, w.NEmbdVGQA(il), w.NEmbdVGQA(il))
			w.need(il, "attn_output.weight", w.NEmbd, w.NEmbd)
		}
		w.need(il, "ffn_norm.weight", w.NEmbd)
		if w.may(il, "ffn_gate_inp.weight", w.NEmbd, w.NExpert) {
			w.experts(0, il, w.NFF(0))
		} else {
			w.ffn(0, il, "", w.NFF(0))
		}
	}
}

func (w *wants) falconH1() {
	w.ends()
	w.may(-1, "rope_freqs.weight", w.NRot(0)/2)
	q := w.qWidth()
	for il := range w.NLayer() {
		w.need(il, "attn_norm.weight", w.NEmbd)
		w.mambaHeads(il, optional, optional)
		w.qkv(0, il, w.NEmbd, q, w.NEmbdKGQA(0), w.NEmbdVGQA(0))
		w.need(il, "attn_output.weight", q, w.NEmbd)
		w.may(il, "attn_output.bias", w.NEmbd)
		w.need(il, "ffn_norm", w.NEmbd)
		w.ffn(0, il, "", w.NFF(0))
		w.ffnBiases(il, w.NFF(0))
	}
}

func (w *wants) graniteHybrid() {
	w.ends()
	w.may(-1, "rope_freqs.weight", w.NRot(0)/2)
	for il := range w.NLayer() {
		w.need(il, "attn_norm.weight", w.NEmbd)
		if w.IsRecr(il) {
			w.mambaHeads(il, optional, 0)
		} else {
			q := w.NEmbdHeadK(0) * w.NHead(il)
			w.qkv(0, il, w.NEmbd, q, w.NEmbdKGQA(il), w.NEmbdVGQA(il))
			w.need(il, "attn_output.weight", q, w.NEmbd)
			w.may(il, "attn_output.bias", w.NEmbd)
		}
		w.need(il, "ffn_norm.weight", w.NEmbd)
		if w.NExpert == 0 {
			w.ffn(0, il, "", w.NFF(0))
			w.ffnBiases(il, w.NFF(0))
			continue
		}
		w.ungatedExps(il)
		if w.NFFShexp > 0 {
			w.ffn(0, il, "_shexp", w.NFFShexp)
		}
	}
}

// ungatedExps asks for experts of the dense width, which may have no gate.
func (w *wants) ungatedExps(il int) {
	w.need(il, "ffn_gate_inp.weight", w.NEmbd, w.NExpert)
	w.may(il, "ffn_gate_exps.weight", w.NEmbd, w.NFF(0), w.NExpert)
	w.need(il, "ffn_down_exps.weight", w.NFF(0), w.NEmbd, w.NExpert)
	w.need(il, "ffn_up_exps.weight", w.NEmbd, w.NFF(0), w.NExpert)
}
