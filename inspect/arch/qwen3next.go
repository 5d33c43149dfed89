package arch

import (
	"cmp"

	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// Qwen3-Next and Qwen3.5: gated delta nets, and gated attention in every
// fourth layer.
var _ = register(
	&Arch{
		Name: "qwen3next", Rope: model.RopeNeoX, Hybrid: true, Budget: deltaBudget,
		Load:    loadQwen3Next,
		Memory:  deltaMemory,
		Build:   qwenHybrid{linear: (*Builder).qwen3NextLinear, ffn: (*Builder).gatedSharedExperts, split: true}.model,
		Tensors: (*wants).qwen3next,
		Needs:   "attention.layer_norm_rms_epsilon ssm.conv_kernel ssm.inner_size ssm.state_size ssm.time_step_rank ssm.group_count",
		Source:  "src/models/qwen3next.cpp@v0.5.0",
	},
	&Arch{
		Name: "qwen35", Rope: model.RopeIMRoPE, Hybrid: true, Rollback: true, Budget: deltaBudget,
		Load:    loadQwen35,
		Memory:  deltaMemory,
		Build:   qwenHybrid{linear: (*Builder).qwen35Linear, ffn: denseFFN(ActSiLU)}.model,
		Tensors: (*wants).qwen35,
		Needs:   "attention.layer_norm_rms_epsilon ssm.conv_kernel ssm.inner_size ssm.state_size ssm.time_step_rank ssm.group_count rope.dimension_sections",
		Source:  "src/models/qwen35.cpp@v0.5.0",
	},
	&Arch{
		Name: "qwen35moe", Rope: model.RopeIMRoPE, Hybrid: true, Rollback: true, Budget: deltaBudget,
		Load:    loadQwen35,
		Memory:  deltaMemory,
		Build:   qwenHybrid{linear: (*Builder).qwen35Linear, ffn: (*Builder).gatedSharedExperts}.model,
		Tensors: (*wants).qwen35moe,
		Needs:   "attention.layer_norm_rms_epsilon ssm.conv_kernel ssm.inner_size ssm.state_size ssm.time_step_rank ssm.group_count rope.dimension_sections",
		Source:  "src/models/qwen35moe.cpp@v0.5.0",
	},
)

func loadQwen3Next(k *Keys, h *model.HParams) {
	loadExpertFF(k, h)
	loadSSM(k, h, true)
	recurrentInterval(k, h, 4)
}

func loadQwen35(k *Keys, h *model.HParams) {
	loadQwen3Next(k, h)
	loadSections(k, h)
	for il := h.NLayer(); il < len(h.Layers); il++ {
		h.Layers[il].Recr = false // NextN blocks attend, whatever the file says
	}
}

// deltaMemory is a hybrid memory of the trunk; an MTP context has a cache of
// the NextN blocks only.
func deltaMemory(m *model.Model, c *Context) *Memory {
	if c.MTP {
		return PlainMemory(m, c, CacheOptions{Filter: func(il int) bool { return il >= m.NLayer() }})
	}
	return HybridMemory(m, c,
		func(il int) bool { return il < m.NLayer() && !m.IsRecr(il) },
		func(il int) bool { return il < m.NLayer() && m.IsRecr(il) })
}

// qwenHybrid says how the three differ.
type qwenHybrid struct {
	linear func(b *Builder, in *RSInput, cur *graph.Tensor, il int) *graph.Tensor
	ffn    func(b *Builder, cur *graph.Tensor, il int) *graph.Tensor
	split  bool // queries and gates are split by heads first; MTP graphs crop before the experts
}

func (w qwenHybrid) model(b *Builder) {
	if b.U.Kind == GraphMTP {
		w.mtp(b)
		return
	}
	inpL := b.InpEmbd()
	in := b.InpHybrid()
	pos := b.InpPos()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA := inpL
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		b.Expand(cur)
		if b.IsRecr(il) {
			cur = w.linear(b, in.RS, cur, il)
		} else {
			cur = b.gatedAttention(in.Attn, cur, pos, w.split, il)
		}
		inpL = b.CVec(w.block(b, b.Add(cur, inpSA), il), il)
		b.Name(inpL, "l_out", il)
	}
	cur := b.Norm(inpL, b.OutputNorm(), nil, NormRMS, -1)
	b.HNextN(cur)
	cur = b.GetRows(cur, outIDs)
	b.Embd(cur)
	b.Logits(b.MM(b.OutputW(), cur, b.T("output.scale")))
}

// block norms the attention's output and adds the feed-forward block to it.
func (w qwenHybrid) block(b *Builder, cur *graph.Tensor, il int) *graph.Tensor {
	return b.Add(w.ffn(b, b.LayerNorm(cur, "post_attention_norm", NormRMS, il), il), cur)
}

// mtp drafts with the NextN block: a layer with gated attention.
func (w qwenHybrid) mtp(b *Builder) {
	b.onlyNextN()
	inpSA, il := b.nextN(NormRMS)
	pos := b.InpPos()
	outIDs := b.InpOutIDs()
	in := b.InpKV()
	cur := b.LayerNorm(inpSA, "attn_norm", NormRMS, il)
	cur = b.gatedAttention(in, cur, pos, false, il)
	if w.split {
		cur, inpSA = b.GetRows(cur, outIDs), b.GetRows(inpSA, outIDs)
		outIDs = nil
	}
	cur = w.block(b, b.Add(cur, inpSA), il)
	b.Logits(b.nextNHead(cur, outIDs, b.OutputNorm(), NormRMS, il))
}

// gatedAttention is attention whose query projection holds a gate for each
// head's output beside its query.
func (b *Builder) gatedAttention(in *KVInput, cur, pos *graph.Tensor, split bool, il int) *graph.Tensor {
	d, n, tokens := b.NEmbdHeadV(0), int64(b.NHead(0)), int64(b.NTokens)
	kv := b.NHeadKV(0)
	full, k, v := b.QKVFlat(cur, 2*d*b.NHead(0), d*kv, d*kv, il)
	if split {
		full = b.Reshape4D(full, int64(2*d), n, tokens, 1)
	}
	half := func(i int) *graph.Tensor {
		return b.View3D(full, int64(d), n, tokens, f32Row(int64(2*d)), f32Row(int64(2*d)*n), f32Row(int64(i*d)))
	}
	q, gate := half(0), half(1)
	k = b.Reshape3D(k, int64(d), int64(kv), tokens)
	v = b.Reshape3D(v, int64(d), int64(kv), tokens)
	q, k = b.LayerNorm(q, "attn_q_norm", NormRMS, il), b.LayerNorm(k, "attn_k_norm", NormRMS, il)
	q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
	cur = b.AttendKV(in, Attn{Q: q, K: k, V: v}, il)
	cur = b.Mul(cur, b.Sigmoid(b.Cont2D(gate, int64(d)*n, tokens)))
	return b.MM(b.W(il, "attn_output.weight"), cur, b.W(il, "attn_output.scale"))
}

// gatedSharedExperts routes to experts, and adds a shared one through a gate
// of its own.
func (b *Builder) gatedSharedExperts(cur *graph.Tensor, il int) *graph.Tensor {
	if b.W(il, "ffn_gate_inp.weight") == nil {
		return b.FeedForward(cur, b.LayerFFN(il, "", ActSiLU), il)
	}
	m := b.LayerMoE(il, ActSiLU)
	m.GateUp = b.W(il, "ffn_gate_up_exps.weight")
	out := b.Experts(cur, m, il)
	if b.W(il, "ffn_up_shexp.weight") == nil {
		return out
	}
	shared := b.FeedForward(cur, b.LayerFFN(il, "_shexp", ActSiLU), il)
	gate := b.Sigmoid(b.MM(b.W(il, "ffn_gate_inp_shexp.weight"), cur, nil))
	return b.Add(out, b.Mul(shared, gate))
}

// heads are the widths of a gated delta net.
type deltaHeads struct{ k, v, nk, nv int64 }

func (b *Builder) deltaHeads() deltaHeads {
	return deltaHeads{
		k: int64(b.SSMDState), v: b.per(b.SSMDInner, b.SSMDtRank, "ssm.time_step_rank"),
		nk: int64(b.SSMNGroup), nv: int64(b.SSMDtRank),
	}
}

// qwen3NextLinear is the linear attention of Qwen3-Next: step sizes and gates
// come from one projection, grouped by key heads.
func (b *Builder) qwen3NextLinear(in *RSInput, cur *graph.Tensor, il int) *graph.Tensor {
	h := b.deltaHeads()
	group := b.per(int(h.nv), int(h.nk), "ssm.group_count")
	qkv, z := b.qkvz(cur, h, group, il)
	ba := b.MM(b.W(il, "ssm_ba.weight"), cur, nil)
	ba = b.Reshape4D(ba, 2*group, h.nk, b.seqTokens(), b.seqs())
	half := func(i int64) *graph.Tensor {
		return b.View4D(ba, group, h.nk, b.seqTokens(), b.seqs(), ba.Nb[1], ba.Nb[2], ba.Nb[3], f32Row(i*group))
	}
	beta := b.Reshape4D(b.Sigmoid(b.Cont(half(0))), 1, h.nv, b.seqTokens(), b.seqs())
	alpha := b.Cont3D(half(1), h.nv, b.seqTokens(), b.seqs())
	return b.gatedDelta(in, qkv, z, beta, alpha, h, deltaWay{spread: h.nk != h.nv, gate: b.SiLU}, il)
}

// qkvz returns the linear attention's joint projection and its output gate.
func (b *Builder) qkvz(cur *graph.Tensor, h deltaHeads, group int64, il int) (qkv, z *graph.Tensor) {
	if w := b.W(il, "attn_qkv.weight"); w != nil {
		qkv = b.perSeq(b.MM(w, cur, b.W(il, "attn_qkv.scale")))
		return qkv, b.MM(b.W(il, "attn_gate.weight"), cur, b.W(il, "attn_gate.scale"))
	}
	vals := h.v * group
	all := b.MM(b.W(il, "ssm_in.weight"), cur, nil)
	all = b.Reshape4D(all, 2*h.k+2*vals, h.nk, b.seqTokens(), b.seqs())
	part := func(n, at int64) *graph.Tensor {
		return b.View4D(all, n, h.nk, b.seqTokens(), b.seqs(), all.Nb[1], all.Nb[2], all.Nb[3], f32Row(at))
	}
	flat := func(t *graph.Tensor) *graph.Tensor {
		return b.Cont3D(t, t.Ne[0]*h.nk, b.seqTokens(), b.seqs())
	}
	q, k, v := flat(part(h.k, 0)), flat(part(h.k, h.k)), flat(part(vals, 2*h.k))
	z = b.Cont(part(vals, 2*h.k+vals))
	return b.Concat(b.Concat(q, k, 0), v, 0), z
}

// qwen35Linear is the linear attention of Qwen3.5.
func (b *Builder) qwen35Linear(in *RSInput, cur *graph.Tensor, il int) *graph.Tensor {
	h := b.deltaHeads()
	qkv, z := b.qkvz(cur, h, 0, il)
	beta := b.MM(b.W(il, "ssm_beta.weight"), cur, b.W(il, "ssm_beta.scale"))
	beta = b.Sigmoid(b.Reshape4D(beta, 1, h.nv, b.seqTokens(), b.seqs()))
	alpha := b.perSeq(b.MM(b.W(il, "ssm_alpha.weight"), cur, b.W(il, "ssm_alpha.scale")))
	return b.gatedDelta(in, qkv, z, beta, alpha, h, deltaWay{gate: b.SiLU}, il)
}

// A deltaWay says how an architecture's delta rule differs.
type deltaWay struct {
	spread bool                                                          // queries and keys are repeated for the values' heads
	gate   func(*graph.Tensor) *graph.Tensor                             // of the output
	conv   func(qkv *graph.Tensor, kernel, channels int64) *graph.Tensor // the rolling state; nil: ConvState
}

// gatedDelta convolves the projection, applies the delta rule and gates its
// output by z; spread repeats queries and keys for the value heads of their
// group.
func (b *Builder) gatedDelta(in *RSInput, qkv, z, beta, alpha *graph.Tensor, h deltaHeads, w deltaWay, il int) *graph.Tensor {
	tokens, seqs := b.seqTokens(), b.seqs()
	gate := b.Softplus(b.Add(alpha, b.W(il, "ssm_dt.bias")))
	gate = b.Mul(gate, b.W(il, "ssm_a"))
	gate = b.Reshape4D(gate, 1, h.nv, tokens, seqs)

	kernel := b.need(il, "ssm_conv1d.weight")
	channels := int64(b.SSMDInner) + 2*h.nk*h.k
	var input *graph.Tensor
	if w.conv != nil {
		input = w.conv(qkv, kernel.Ne[0], channels)
	} else {
		input = b.ConvState(in, qkv, kernel.Ne[0], channels, il)
	}
	state := b.RS(in, b.StateS(il), b.Mem.RS.NEmbdS, b.U.NSeqs, nil)
	state = b.Reshape4D(state, h.v, h.v, h.nv, seqs)
	mix := b.SiLU(b.SSMConv(input, kernel))
	row := f32Row(2*h.k*h.nk + h.v*h.nv)
	part := func(d, n, at int64) *graph.Tensor {
		return b.View4D(mix, d, n, tokens, seqs, f32Row(d), row, row*uint64(tokens), f32Row(at))
	}
	unit := func(at int64) *graph.Tensor {
		t := b.gdnNorm(part(h.k, h.nk, at))
		if !w.spread {
			return t
		}
		t = b.Reshape4D(t, h.k, 1, h.nk, tokens*seqs)
		t = b.Repeat4D(t, h.k, h.nv/h.nk, h.nk, tokens*seqs)
		return b.Reshape4D(t, h.k, h.nv/h.nk*h.nk, tokens, seqs)
	}
	q, k := unit(0), unit(h.k*h.nk)
	v := part(h.v, h.nv, 2*h.k*h.nk)
	out := b.RecurrentAttn(q, k, v, gate, beta, state, il)

	z = b.Reshape4D(z, h.v, h.nv, tokens, seqs)
	out = b.Mul(b.LayerNorm(out, "ssm_norm", NormRMS, il), w.gate(z))
	out = b.Reshape3D(out, h.v*h.nv, tokens, seqs)
	out = b.MM(b.W(il, "ssm_out.weight"), out, b.W(il, "ssm_out.scale"))
	return b.Reshape2D(out, int64(b.NEmbd), tokens*seqs)
}

func (w *wants) qwen3next() {
	w.qwenHybrid(func(flags, il int) {
		if w.IsRecr(il) {
			w.tensor(flags|optional, il, "ssm_in.weight", w.NEmbd, 2*(w.deltaMix()-w.SSMDState*w.SSMNGroup))
			w.tensor(flags, il, "ssm_ba.weight", w.NEmbd, 2*w.SSMDtRank)
		}
		w.gatedShared(flags, il, w.NFF(il))
	})
}

func (w *wants) qwen35() {
	w.qwenHybrid(func(flags, il int) {
		w.qwen35Steps(flags, il)
		w.ffn(flags, il, "", w.NFF(0))
	})
}

func (w *wants) qwen35moe() {
	w.qwenHybrid(func(flags, il int) {
		w.qwen35Steps(flags, il)
		w.gatedShared(flags, il, w.NFF(0))
	})
}

// qwenHybrid asks for gated delta nets, gated attention, and what rest does for
// each layer.
func (w *wants) qwenHybrid(rest func(flags, il int)) {
	w.ends()
	trunk, _ := w.parts()
	for il := range w.NLayerAll {
		flags := trunk
		if il >= w.NLayer() {
			flags = skipped
			w.nextN(flags, flags, il)
		}
		w.tensor(flags, il, "attn_norm.weight", w.NEmbd)
		w.tensor(flags, il, "post_attention_norm.weight", w.NEmbd)
		if w.IsRecr(il) {
			w.delta(flags, flags|optional, il)
		} else {
			w.gatedAttention(flags, il)
		}
		rest(flags, il)
	}
}

// gatedAttention is attention with gates in its queries' projection.
func (w *wants) gatedAttention(flags, il int) {
	w.qkv(flags, il, w.NEmbd, 2*w.qWidth(), w.NEmbdKGQA(0), w.NEmbdVGQA(0))
	w.tensor(flags, il, "attn_output.weight", w.qWidth(), w.NEmbd)
	w.headNorms(flags, il)
}

// deltaMix returns the width of a delta net's queries, keys and values.
func (w *wants) deltaMix() int { return w.SSMDState * (2*w.SSMNGroup + w.SSMDtRank) }

// delta is a gated delta net without its step sizes; joint are the flags of the
// joint projection and the gate.
func (w *wants) delta(flags, joint, il int) {
	heads, values := w.SSMDtRank, w.SSMDState*w.SSMDtRank
	w.tensor(joint, il, "attn_qkv.weight", w.NEmbd, w.deltaMix())
	w.tensor(joint, il, "attn_gate.weight", w.NEmbd, values)
	w.tensor(flags, il, "ssm_conv1d.weight", w.SSMDConv, w.deltaMix())
	w.tensor(flags, il, "ssm_dt.bias", heads)
	w.tensor(flags, il, "ssm_a", heads)
	w.tensor(flags, il, "ssm_norm.weight", w.SSMDState)
	w.tensor(flags, il, "ssm_out.weight", values, w.NEmbd)
}

// qwen35Steps are the step sizes of a delta net, where layer il is one.
func (w *wants) qwen35Steps(flags, il int) {
	if w.IsRecr(il) {
		w.tensor(flags, il, "ssm_beta.weight", w.NEmbd, w.SSMDtRank)
		w.tensor(flags, il, "ssm_alpha.weight", w.NEmbd, w.SSMDtRank)
	}
}

// gatedShared are experts and a shared one with a gate; dense is its width where
// the model does not say.
func (w *wants) gatedShared(flags, il, dense int) {
	nFF := w.expertFF()
	w.tensor(flags, il, "ffn_gate_inp.weight", w.NEmbd, w.NExpert)
	w.tensor(flags, il, "ffn_down_exps.weight", nFF, w.NEmbd, w.NExpert)
	w.gateUpExps(flags, il, w.NEmbd, nFF, w.NExpert)
	w.tensor(flags, il, "ffn_gate_inp_shexp.weight", w.NEmbd)
	w.ffn(flags, il, "_shexp", cmp.Or(w.NFFShexp, dense))
}
