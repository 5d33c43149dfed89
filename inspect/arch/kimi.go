package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// Kimi delta attention, a gated delta rule with a decay for each channel,
// beside latent attention.
var _ = register(
	&Arch{
		Name: "kimi-linear", OneSeq: true, Rope: model.RopeNone, Hybrid: true, Budget: deltaBudget,
		Load: loadKDA, Build: kimiLinear,
		Tensors: (*wants).kimiLinear,
		Needs:   "attention.layer_norm_rms_epsilon attention.kv_lora_rank expert_feed_forward_length expert_shared_count expert_gating_func attention.key_length_mla attention.value_length_mla kda.head_dim ssm.conv_kernel",
		Source:  "src/models/kimi-linear.cpp@v0.5.0",
	},
	&Arch{
		Name: "kimi-k3", Rope: model.RopeNone, Hybrid: true, Rollback: true,
		Budget: func(*model.Model) (perToken, perTensor int) { return 160, 64 },
		Load:   loadKimiK3, Build: kimiK3,
		Tensors: (*wants).kimiK3,
		Needs:   "attention.layer_norm_rms_epsilon attention.kv_lora_rank expert_feed_forward_length expert_shared_count expert_gating_func attention.key_length_mla attention.value_length_mla kda.head_dim ssm.conv_kernel attn_res.block_size activation.situ_beta activation.situ_linear_beta",
		Source:  "src/models/kimi-k3.cpp@v0.5.0",
	},
	&Arch{
		Name: "bailingmoe3", Rope: model.RopeNorm, Hybrid: true, Rollback: true, Budget: deltaBudget, Quant: QuantQuirk{NamedExperts: true},
		Load: loadBailing3, Build: bailing3,
		Memory: func(m *model.Model, c *Context) *Memory {
			if c.MTP {
				return deltaMemory(m, c)
			}
			return HybridMemory(m, c, nil, nil)
		},
		Tensors: (*wants).bailing3,
		Needs:   "attention.layer_norm_rms_epsilon attention.kv_lora_rank leading_dense_block_count expert_feed_forward_length expert_shared_count expert_gating_func attention.key_length_mla attention.value_length_mla kda.head_dim ssm.conv_kernel kda.gate_lower_bound",
		Source:  "src/models/bailingmoe3.cpp@v0.5.0",
	},
)

// loadKDA reads the widths of both kinds of attention and of the experts.
func loadKDA(k *Keys, h *model.HParams) {
	loadMLA(k, h)
	loadMoE(model.GatingNone)(k, h)
	h.SSMDConv = k.Need("ssm.conv_kernel")
	h.NEmbdHeadKDA = k.Need("kda.head_dim")
	recurrentWithoutKV(h)
}

func loadKimiK3(k *Keys, h *model.HParams) {
	loadKDA(k, h)
	h.KDAGateBound = k.Has("kda.gate_lower_bound")
	h.NLoraQ = k.Count("attention.q_lora_rank", 0)
	h.NEmbdHeadVFull = h.NLoraKV
	h.NExpertLatent = k.Count("expert_latent_length", 0)
	h.AttnResBlockSize = k.Need("attn_res.block_size")
	h.SituLinearBeta = k.Float("activation.situ_linear_beta", 0)
}

func loadBailing3(k *Keys, h *model.HParams) {
	loadKDA(k, h)
	h.KDAGateBound = true
	if !k.Bool("kda.safe_gate", true) {
		k.fail("kda.safe_gate", "false, llama.cpp knows safe gates only")
	}
	if bound := k.Float("kda.gate_lower_bound", 0); bound >= 0 {
		k.fail("kda.gate_lower_bound", "%g, want less than 0", bound)
	}
	if h.NFFShexp == 0 {
		h.NFFShexp = h.NFFExp(0) * max(h.NExpertShared, 1)
	}
	h.NLoraQ = k.Count("attention.q_lora_rank", 0)
	for il, v := range k.Floats("swiglu_clamp_exp", h.NLayerAll) {
		h.Layers[il].SwigluClampExp = v
	}
	for il, v := range k.Floats("swiglu_clamp_shexp", h.NLayerAll) {
		h.Layers[il].SwigluClampShexp = v
	}
}

// kda says how the architectures' delta attention differs.
type kda struct {
	decay block // logits of the decays, without the bias
	gate  block // the gate of the outputs
	plain bool  // bounded decays take ssm_a as it is; otherwise its sign is turned first
	flat  bool  // the new states are stored as one row
	older bool  // snapshots from before the batch are stored as well
}

// layer appends Kimi delta attention of layer il.
func (w kda) layer(b *Builder, in *RSInput, cur *graph.Tensor, il int) *graph.Tensor {
	d, n := int64(b.NEmbdHeadKDA), int64(b.NHead(0))
	tokens, seqs := b.seqTokens(), b.seqs()
	old := b.RS(in, b.StateR(il), b.Mem.RS.NEmbdR, b.U.NSeqs, nil)
	qkv := b.projectKDA(cur, d*n, il)
	var conv [3]*graph.Tensor
	for i, name := range [3]string{"ssm_conv1d_q.weight", "ssm_conv1d_k.weight", "ssm_conv1d_v.weight"} {
		x := b.convKDA(in, old, qkv[i], int64(i), name, w.older, il)
		conv[i] = b.Reshape4D(x, d, n, tokens, seqs)
	}
	g := w.decays(b, w.decay(cur, il), d, n, il)
	beta := b.MulMat(b.W(il, "ssm_beta.weight"), cur)
	beta = b.Sigmoid(b.Reshape4D(beta, 1, n, tokens, seqs))
	all := b.StateS(il)
	state := b.RS(in, all, b.Mem.RS.NEmbdS, b.U.NSeqs, nil)
	state = b.Reshape4D(state, d, d, n, seqs)
	q, k := b.gdnNorm(conv[0]), b.gdnNorm(conv[1])
	var out *graph.Tensor
	if w.flat {
		out, state = b.DeltaNet(q, k, conv[2], g, beta, state)
		size := int64(b.Mem.RS.NEmbdS) * seqs
		out = b.Cont(out)
		b.Expand(b.Cpy(state, b.View1D(all, size, 0)))
	} else {
		out = b.Cont(b.RecurrentAttn(q, k, conv[2], g, beta, state, il))
	}
	gate := b.Reshape3D(w.gate(cur, il), d, n, int64(b.NTokens))
	out = b.Reshape3D(out, d, n, int64(b.NTokens))
	out = b.Mul(b.LayerNorm(out, "ssm_norm", NormRMS, il), b.Sigmoid(gate))
	return b.MulMat(b.W(il, "attn_output.weight"), b.Cont2D(out, d*n, int64(b.NTokens)))
}

// projectKDA returns the three projections of layer il, fused or apart.
func (b *Builder) projectKDA(cur *graph.Tensor, inner int64, il int) (qkv [3]*graph.Tensor) {
	if w := b.W(il, "attn_qkv.weight"); w != nil {
		all := b.MulMat(w, cur)
		for i := range qkv {
			qkv[i] = b.Cont(b.View2D(all, inner, int64(b.NTokens), all.Nb[1], f32Row(int64(i)*inner)))
		}
		return qkv
	}
	for i, name := range [3]string{"attn_q.weight", "attn_k.weight", "attn_v.weight"} {
		qkv[i] = b.MulMat(b.W(il, name), cur)
	}
	return qkv
}

// convKDA convolves projection i of layer il with the inputs before, which are
// a third of the rolling state each.
func (b *Builder) convKDA(in *RSInput, old, x *graph.Tensor, i int64, name string, older bool, il int) *graph.Tensor {
	kernel := int64(b.SSMDConv)
	inner := int64(b.NEmbdHeadKDA) * int64(b.NHead(0))
	size := (kernel - 1) * inner
	all := b.StateR(il)
	third := func(t *graph.Tensor, at uint64) *graph.Tensor {
		return b.View3D(t, kernel-1, inner, b.seqs(), f32Row(kernel-1), f32Row(3*size), at+f32Row(i*size))
	}
	before := third(old, 0)
	x = b.Reshape3D(x, inner, b.seqTokens(), b.seqs())
	input := b.Concat(before, b.Transpose(x), 0)
	slots := int64(b.C.NRsSeq) + 1
	if !older {
		slots = min(slots, b.seqTokens())
	}
	for slot := range slots {
		at := uint64(max(0, b.seqTokens()-slot)) * input.Nb[0]
		last := b.View3D(input, kernel-1, inner, b.seqs(), input.Nb[1], input.Nb[2], at)
		b.Expand(b.Cpy(last, third(all, uint64(slot)*uint64(in.State.Cells)*f32Row(3*size))))
	}
	x = b.SSMConv(input, b.Reshape2D(b.need(il, name), kernel, inner))
	return b.SiLU(b.Reshape2D(x, inner, int64(b.NTokens)))
}

// decays turns logits into decays, with a lower bound or without.
func (w kda) decays(b *Builder, logits *graph.Tensor, d, n int64, il int) *graph.Tensor {
	g := b.Add(logits, b.W(il, "ssm_dt.bias"))
	a := b.Reshape3D(b.need(il, "ssm_a"), 1, n, 1)
	split := func(t *graph.Tensor) *graph.Tensor { return b.Reshape3D(t, d, n, int64(b.NTokens)) }
	if !b.KDAGateBound {
		g = b.Mul(split(b.Softplus(g)), a)
	} else {
		g = b.Mul(split(g), a)
		if !w.plain {
			g = b.Scale(g)
		}
		g = b.Scale(b.Sigmoid(g))
	}
	return b.Reshape4D(g, d, n, b.seqTokens(), b.seqs())
}

// kimiAttn is latent attention without positions; the output projection is
// left to the caller.
func (b *Builder) kimiAttn(cur *graph.Tensor, il int) Attn {
	w := b.latent()
	q := b.expandedQ(cur, il)
	kv, kPE := b.latentKV(cur, w, il)
	if b.W(il, "attn_kv_b.weight") == nil {
		return b.absorbed(q, kv, kPE, nil, w, il)
	}
	n, nope := int64(b.NTokens), w.k-w.rope
	all := b.MulMat(b.W(il, "attn_kv_b.weight"), kv)
	row := f32Row(nope + w.v)
	kNope := b.View3D(all, nope, w.heads, n, row, row*uint64(w.heads), 0)
	v := b.Cont(b.View3D(all, w.v, w.heads, n, row, row*uint64(w.heads), f32Row(nope)))
	k := b.Concat(b.Repeat4D(kPE, w.rope, w.heads, n, 1), kNope, 0)
	return Attn{Q: b.Reshape3D(q, w.k, w.heads, n), K: k, V: v}
}

// inpKDA returns the inputs of both kinds of attention.
func (b *Builder) inpKDA() (*RSInput, attend) {
	if b.IsMLA() {
		in := b.InpHybridK()
		return in.RS, func(a Attn, il int) *graph.Tensor { return b.AttendK(in.Attn, a, il) }
	}
	in := b.InpHybrid()
	return in.RS, func(a Attn, il int) *graph.Tensor { return b.AttendKV(in.Attn, a, il) }
}

// lowRank appends two projections, the first onto few dimensions.
func (b *Builder) lowRank(first, second string) block {
	return func(cur *graph.Tensor, il int) *graph.Tensor {
		return b.MulMat(b.W(il, second), b.MulMat(b.W(il, first), cur))
	}
}

// single appends one projection.
func (b *Builder) single(name string) block {
	return func(cur *graph.Tensor, il int) *graph.Tensor { return b.MulMat(b.W(il, name), cur) }
}

func kimiLinear(b *Builder) {
	inpL := b.InpEmbd()
	rs, attn := b.inpKDA()
	outIDs := b.InpOutIDs()
	gate := b.lowRank("ssm_g_a.weight", "ssm_g_b.weight")
	linear := kda{
		decay: b.lowRank("ssm_f_a.weight", "ssm_f_b.weight"), flat: true,
		gate: func(cur *graph.Tensor, il int) *graph.Tensor { return gate(b.bySeqAndBack(cur), il) },
	}
	mix := func(cur *graph.Tensor, il int) *graph.Tensor {
		b.Expand(cur)
		if b.IsRecr(il) {
			return linear.layer(b, rs, cur, il)
		}
		return attn(b.kimiAttn(cur, il).withOut(b, il), il)
	}
	ffn := sharedExperts(routing{normW: true, shared: true})
	cur := b.trunk(inpL, outIDs, mix, func(cur *graph.Tensor, il int) *graph.Tensor { return ffn(b, cur, il) }, nil)
	b.Logits(b.MulMat(b.OutputW(), b.LayerNormOut(cur, NormRMS)))
}

// bySeqAndBack splits the tokens by sequence and joins them again, as Kimi's
// graphs do.
func (b *Builder) bySeqAndBack(cur *graph.Tensor) *graph.Tensor {
	return b.Reshape2D(b.perSeq(cur), cur.Ne[0], int64(b.NTokens))
}

// kimiK3 mixes the residual streams of earlier blocks into the input of each
// half of a layer.
func kimiK3(b *Builder) {
	inpL := b.InpEmbd()
	rs, attn := b.inpKDA()
	outIDs := b.InpOutIDs()
	gate := b.single("ssm_g.weight")
	linear := kda{
		decay: b.lowRank("ssm_f_a.weight", "ssm_f_b.weight"), older: true,
		gate: func(cur *graph.Tensor, il int) *graph.Tensor { return gate(b.bySeqAndBack(cur), il) },
	}
	var bank *graph.Tensor // the streams so far, [NEmbd][blocks][tokens]
	every := b.AttnResBlockSize
	for il := range b.NLayer() {
		stream := inpL
		cur := stream
		if every > 0 {
			cur = b.mixStreams(bank, cur, b.W(il, "attn_res_score.weight"))
		}
		restart := every > 0 && il%every == 0
		if restart {
			bank = b.bankStream(bank, stream)
		}
		cur = b.LayerNorm(cur, "attn_norm", NormRMS, il)
		b.Expand(cur)
		if b.IsRecr(il) {
			cur = linear.layer(b, rs, cur, il)
		} else {
			out := attn(b.kimiAttn(cur, il), il)
			if w := b.W(il, "attn_gate.weight"); w != nil {
				out = b.Mul(out, b.Sigmoid(b.MulMat(w, cur)))
			}
			cur = b.MulMat(b.W(il, "attn_output.weight"), out)
		}
		if restart {
			stream = cur
		} else {
			stream = b.Add(stream, cur)
		}
		cur = stream
		if every > 0 {
			cur = b.mixStreams(bank, cur, b.W(il, "ffn_res_score.weight"))
		}
		cur = b.LayerNorm(cur, "ffn_norm", NormRMS, il)
		if il < b.NLayerDenseLead {
			cur = b.situ(cur, "", il)
		} else {
			cur = b.kimiExperts(cur, il)
		}
		inpL = b.CVec(b.Add(stream, cur), il)
		b.Name(inpL, "l_out", il)
	}
	cur := inpL
	if every > 0 {
		cur = b.mixStreams(bank, cur, b.T("output_res_score.weight"))
	}
	cur = b.LayerNormOut(b.GetRows(cur, outIDs), NormRMS)
	b.Logits(b.MulMat(b.OutputW(), cur))
}

// bankStream keeps the residual stream for later layers.
func (b *Builder) bankStream(bank, cur *graph.Tensor) *graph.Tensor {
	t := b.Reshape3D(cur, int64(b.NEmbd), 1, int64(b.NTokens))
	if bank == nil {
		return t
	}
	return b.Concat(bank, t, 1)
}

// mixStreams weighs the banked streams and the current one by their scores.
func (b *Builder) mixStreams(bank, cur, score *graph.Tensor) *graph.Tensor {
	if bank == nil {
		return cur
	}
	n, tokens := bank.Ne[1], int64(b.NTokens)
	of := func(t *graph.Tensor) *graph.Tensor { return b.SumRows(b.Mul(b.RMSNorm(t), score)) }
	scores := b.Concat(b.Reshape2D(of(bank), n, tokens), of(cur), 0)
	probs := b.SoftMax(scores)
	part := func(k, at int64) *graph.Tensor {
		return b.Cont(b.View2D(probs, k, tokens, probs.Nb[1], f32Row(at)))
	}
	out := b.DSV4HCPre(bank, part(n, 0))
	return b.Add(out, b.Mul(cur, part(1, n)))
}

// situ is a dense block with Kimi's activation: both branches are bounded by a
// tanh.
func (b *Builder) situ(cur *graph.Tensor, suffix string, il int) *graph.Tensor {
	gate := b.MulMat(b.W(il, "ffn_gate"+suffix+".weight"), cur)
	up := b.MulMat(b.W(il, "ffn_up"+suffix+".weight"), cur)
	act := b.Mul(b.Scale(b.Tanh(b.Scale(gate))), b.Sigmoid(gate))
	if b.SituLinearBeta > 0 {
		up = b.Scale(b.Tanh(b.Scale(up)))
	}
	return b.MulMat(b.W(il, "ffn_down"+suffix+".weight"), b.Mul(act, up))
}

// kimiExperts routes to experts of a width of their own, and adds a shared one.
func (b *Builder) kimiExperts(cur *graph.Tensor, il int) *graph.Tensor {
	m := b.routed(il, routing{})
	m.Act, m.Probs = ActSiTU, b.MulMat(m.GateInp, cur)
	m.UpS, m.GateS, m.DownS = nil, nil, nil
	b.Name(m.Probs, "ffn_moe_logits", il)
	in := cur
	if w := b.W(il, "ffn_routed_down.weight"); w != nil {
		in = b.MulMat(w, cur)
	}
	out := b.Experts(in, m, il)
	if w := b.W(il, "ffn_routed_norm.weight"); w != nil {
		out = b.Norm(out, w, nil, NormRMS, il)
	}
	if w := b.W(il, "ffn_routed_up.weight"); w != nil {
		out = b.MulMat(w, out)
	}
	if b.W(il, "ffn_gate_shexp.weight") != nil {
		out = b.Add(out, b.situ(cur, "_shexp", il))
	}
	return out
}

// bailing3 is Ling with delta attention in most layers.
func bailing3(b *Builder) {
	ffn := sharedExperts(routing{})
	experts := func(cur *graph.Tensor, il int) *graph.Tensor { return ffn(b, cur, il) }
	if b.U.Kind == GraphMTP {
		b.onlyNextN()
		inpSA, il := b.nextN(NormRMS)
		pos, outIDs, in := b.InpPos(), b.InpOutIDs(), b.InpK()
		attn := func(a Attn, il int) *graph.Tensor { return b.AttendK(in, a, il) }
		cur := b.bailingAttn(attn, b.LayerNorm(inpSA, "attn_norm", NormRMS, il), pos, il)
		ffnInp := b.Add(cur, inpSA)
		cur = b.Add(experts(b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il), il), ffnInp)
		b.Logits(b.nextNHead(cur, outIDs, b.W(il, "layer_output_norm.weight"), NormRMS, il))
		return
	}
	inpL := b.InpEmbd()
	rs, attn := b.inpKDA()
	pos := b.InpPos()
	outIDs := b.InpOutIDs()
	linear := kda{decay: b.single("ssm_f_a.weight"), gate: b.single("ssm_g_a.weight"), plain: true}
	mix := func(cur *graph.Tensor, il int) *graph.Tensor {
		if b.IsRecr(il) {
			return linear.layer(b, rs, cur, il)
		}
		return b.bailingAttn(attn, cur, pos, il)
	}
	cur := b.trunk(inpL, nil, mix, experts, nil)
	cur = b.Norm(cur, b.OutputNorm(), nil, NormRMS, -1)
	b.HNextN(cur)
	cur = b.GetRows(cur, outIDs)
	b.Embd(cur)
	b.Logits(b.MulMat(b.OutputW(), cur))
}

// bailingAttn is latent attention with a gate for each head.
func (b *Builder) bailingAttn(attn attend, cur, pos *graph.Tensor, il int) *graph.Tensor {
	w, n := b.latent(), int64(b.NTokens)
	q := b.expandedQ(cur, il)
	kv, kPE := b.latentKV(cur, w, il)
	kPE = b.Rot(kPE, pos, nil, b.NRot(0))
	out := attn(b.absorbed(q, kv, kPE, pos, w, il), il)
	gate := b.MulMat(b.W(il, "attn_gate.weight"), cur)
	gate = b.Sigmoid(b.Reshape3D(gate, 1, w.heads, n))
	out = b.Mul(b.Reshape3D(out, w.v, w.heads, n), gate)
	return b.MulMat(b.W(il, "attn_output.weight"), b.Cont2D(out, w.v*w.heads, n))
}

// kda asks for what delta attention always has: inner values in heads of d.
func (w *wants) kda(flags, il, inner int) {
	for _, part := range []string{"q", "k", "v"} {
		w.tensor(flags, il, "ssm_conv1d_"+part+".weight", w.SSMDConv, 1, inner)
	}
	w.qkv(flags, il, w.NEmbd, inner, inner, inner)
	w.tensor(flags, il, "ssm_beta.weight", w.NEmbd, w.NHead(0))
	w.tensor(flags, il, "ssm_dt.bias", inner)
	w.tensor(flags, il, "ssm_norm.weight", w.NEmbdHeadKDA)
	w.tensor(flags, il, "attn_output.weight", inner, w.NEmbd)
}

// lowRank asks for a projection to n values through heads' width.
func (w *wants) lowRank(il int, name string, n int) {
	w.need(il, name+"_a.weight", w.NEmbd, w.NEmbdHeadKDA)
	w.need(il, name+"_b.weight", w.NEmbdHeadKDA, n)
}

// kimiLatent asks for latent attention in the form that the file has it in.
func (w *wants) kimiLatent(il int) {
	l := w.latent()
	if w.has(il, "attn_q_a_norm.weight") {
		w.latentQ(0, il, int(l.heads*l.k))
	} else {
		w.need(il, "attn_q.weight", w.NEmbd, int(l.heads*l.k))
	}
	w.latentKV(0, il, l)
	if !w.decompressed(optional, il, l) {
		w.absorbed(0, il, l)
	}
}

// kimiShared asks for the shared expert, which the model may lack.
func (w *wants) kimiShared(il int) {
	w.ffn(optional, il, "_shexp", w.NFFExp(0)*max(w.NExpertShared, 1))
}

func (w *wants) kimiLinear() {
	w.output(0, w.nVocab)
	inner := w.NEmbdHeadKDA * w.NHead(0)
	for il := range w.NLayer() {
		w.need(il, "attn_norm.weight", w.NEmbd)
		if w.IsRecr(il) {
			w.kda(0, il, inner)
			w.lowRank(il, "ssm_f", inner)
			w.lowRank(il, "ssm_g", inner)
			w.need(il, "ssm_a", 1, w.NHead(0))
		} else {
			w.kimiLatent(il)
		}
		w.need(il, "ffn_norm.weight", w.NEmbd)
		if il < w.NLayerDenseLead {
			w.ffn(0, il, "", w.NFF(0))
			continue
		}
		w.routed(il)
		w.kimiShared(il)
	}
}

func (w *wants) kimiK3() {
	w.output(0, w.nVocab)
	inner, latent := w.NEmbdHeadKDA*w.NHead(0), w.NEmbd
	if w.NExpertLatent > 0 {
		latent = w.NExpertLatent
	}
	if w.AttnResBlockSize > 0 {
		w.need(-1, "output_res_score.weight", w.NEmbd)
	}
	for il := range w.NLayer() {
		w.need(il, "attn_norm.weight", w.NEmbd)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		if w.AttnResBlockSize > 0 {
			w.need(il, "attn_res_score.weight", w.NEmbd)
			w.need(il, "ffn_res_score.weight", w.NEmbd)
		}
		if w.IsRecr(il) {
			w.kda(0, il, inner)
			w.lowRank(il, "ssm_f", inner)
			w.need(il, "ssm_g.weight", w.NEmbd, inner)
			w.need(il, "ssm_a", w.NHead(0))
		} else {
			w.kimiLatent(il)
			w.may(il, "attn_gate.weight", w.NEmbd, w.NHead(0)*w.HeadVMLA())
		}
		if il < w.NLayerDenseLead {
			w.ffn(0, il, "", w.NFF(0))
			continue
		}
		w.need(il, "ffn_gate_inp.weight", w.NEmbd, w.NExpert)
		w.need(il, "exp_probs_b.bias", w.NExpert)
		w.need(il, "ffn_gate_exps.weight", latent, w.NFFExp(0), w.NExpert)
		w.need(il, "ffn_down_exps.weight", w.NFFExp(0), latent, w.NExpert)
		w.need(il, "ffn_up_exps.weight", latent, w.NFFExp(0), w.NExpert)
		if w.NExpertLatent > 0 {
			w.need(il, "ffn_routed_down.weight", w.NEmbd, latent)
			w.need(il, "ffn_routed_up.weight", latent, w.NEmbd)
			w.may(il, "ffn_routed_norm.weight", latent)
		}
		w.kimiShared(il)
	}
}

// bailing3 has latent attention and experts in its NextN blocks.
func (w *wants) bailing3() {
	w.ends()
	inner, l := w.NEmbdHeadKDA*w.NHead(0), w.latent()
	w.blocks(func(flags, il int) {
		next := il >= w.NLayer()
		w.tensor(flags, il, "attn_norm.weight", w.NEmbd)
		if !next && w.IsRecr(il) {
			w.kda(flags, il, inner)
			w.tensor(flags, il, "ssm_f_a.weight", w.NEmbd, inner)
			w.tensor(flags, il, "ssm_g_a.weight", w.NEmbd, inner)
			w.tensor(flags, il, "ssm_a", 1, w.NHead(0))
		} else {
			w.anyQ(flags, il, int(l.heads*l.k))
			w.latentKV(flags, il, l)
			w.absorbed(flags, il, l)
			w.tensor(flags, il, "attn_gate.weight", w.NEmbd, int(l.heads))
		}
		w.tensor(flags, il, "ffn_norm.weight", w.NEmbd)
		if !next && il < w.NLayerDenseLead {
			w.ffn(flags, il, "", w.NFF(0))
			return
		}
		w.experts(flags, il, w.NFFExp(0))
		w.tensor(flags, il, "exp_probs_b.bias", w.NExpert)
		w.ffn(flags, il, "_shexp", w.NFFShexp)
		if next {
			w.nextNInput(flags, il)
			w.tensor(flags, il, "layer_output_norm.weight", w.NEmbd)
		}
	})
}
