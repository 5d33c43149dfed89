package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// Decoders that gate what attention returns, element by element or head by
// head.
var _ = register(
	&Arch{Name: "afmoe", Rope: model.RopeNeoX, Load: loadAFMoE, Build: afmoe, Tensors: (*wants).afmoe, Needs: "attention.layer_norm_rms_epsilon expert_feed_forward_length expert_shared_count", Source: "src/models/afmoe.cpp@v0.5.0"},
	&Arch{Name: "muse-glimmer", Rope: model.RopeNorm, Load: loadMuse, Build: muse, Tensors: (*wants).muse, Needs: "attention.layer_norm_rms_epsilon logit_scale attention.sliding_window", Source: "src/models/muse-glimmer.cpp@v0.5.0"},
	&Arch{Name: "laguna", Rope: model.RopeNeoX, Load: loadLaguna, Build: laguna, Tensors: (*wants).laguna, Needs: "attention.layer_norm_rms_epsilon leading_dense_block_count expert_feed_forward_length", Source: "src/models/laguna.cpp@v0.5.0"},
	&Arch{Name: "step35", Rope: model.RopeNeoX, Always: append([]string{"attn_q_norm", "attn_k_norm", "attn_gate"}, nextNFFN...), Load: loadStep35, Build: step35, Tensors: (*wants).step35, Needs: "attention.layer_norm_rms_epsilon attention.sliding_window expert_feed_forward_length attention.sliding_window_pattern", Source: "src/models/step35.cpp@v0.5.0"},
)

// optionalWindow reads a window that the model may not have.
func (k *Keys) optionalWindow(h *model.HParams, period int, denseFirst bool) {
	n := k.Int("attention.sliding_window", 0)
	if n <= 0 {
		return
	}
	h.NSWA, h.SWAType = n, model.SWAStandard
	k.patternOf(h, period, denseFirst)
}

// patternOf is pattern for periods that may begin with their layer without the
// window.
func (k *Keys) patternOf(h *model.HParams, period int, denseFirst bool) {
	k.pattern(h, period)
	if v, ok := k.get("attention.sliding_window_pattern"); denseFirst && (!ok || isScalar(v)) {
		h.SetSWAPattern(k.Int("attention.sliding_window_pattern", period), true)
	}
}

func isScalar(v any) bool { _, ok := toInt(v); return ok }

func loadAFMoE(k *Keys, h *model.HParams) {
	loadMoE(model.GatingSigmoid)(k, h)
	k.optionalWindow(h, 4, false)
}

// gateAll multiplies by the gate's sigmoid and projects.
func (b *Builder) gateAll(cur, gate *graph.Tensor, il int) *graph.Tensor {
	cur = b.Mul(cur, b.Sigmoid(gate))
	return b.MM(b.W(il, "attn_output.weight"), cur, b.W(il, "attn_output.scale"))
}

// gateHeads multiplies each head by one number.
func (b *Builder) gateHeads(cur, gate *graph.Tensor, d, heads int64) *graph.Tensor {
	n := cur.Ne[1]
	cur = b.Reshape3D(cur, d, heads, n)
	cur = b.Mul(cur, b.Reshape3D(gate, 1, heads, n))
	return b.Reshape2D(cur, d*heads, n)
}

func afmoe(b *Builder) {
	inpL := b.Scale(b.InpEmbd())
	pos := b.InpPos()
	attn := b.cachedISWA()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA := inpL
		in := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		q, k, v := b.QKV(in, b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(0), il)
		gate := b.MM(b.W(il, "attn_gate.weight"), in, nil)
		q, k = b.LayerNorm(q, "attn_q_norm", NormRMS, il), b.LayerNorm(k, "attn_k_norm", NormRMS, il)
		if (il+1)%4 != 0 {
			q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
		}
		cur := b.gateAll(attn(Attn{Q: q, K: k, V: v}, il), gate, il)
		cur = b.LayerNorm(cur, "post_attention_norm", NormRMS, il)
		b.LastRows(il, outIDs, &cur, &inpSA)
		ffnInp := b.Add(cur, inpSA)
		cur = sharedExperts(routing{})(b, b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il), il)
		cur = b.LayerNorm(cur, "post_ffw_norm", NormRMS, il)
		inpL = b.CVec(b.Add(cur, ffnInp), il)
		b.Name(inpL, "l_out", il)
	}
	b.lmHead(b.LayerNormOut(inpL, NormRMS))
}

func loadMuse(k *Keys, h *model.HParams) {
	k.window(h, "attention.sliding_window")
	k.pattern(h, 4)
	h.LogitScale = k.Float("logit_scale", 0)
	h.FinalSoftcap = k.Float("final_logit_softcapping", 30)
}

// muse rotates in the layers with a window only.
func muse(b *Builder) {
	inpL := b.RMSNorm(b.InpEmbd())
	pos := b.InpPos()
	attn := b.cachedISWA()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA := inpL
		in := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		q, k, v := b.QKV(in, b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(0), il)
		gate := b.MM(b.W(il, "attn_gate.weight"), in, nil)
		q, k = b.LayerNorm(q, "attn_q_norm", NormRMS, il), b.LayerNorm(k, "attn_k_norm", NormRMS, il)
		if b.IsSWA(il) {
			q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
		}
		cur := b.gateAll(attn(Attn{Q: q, K: k, V: v}, il), gate, il)
		cur = b.Mul(b.RMSNorm(cur), b.W(il, "post_attention_norm.weight"))
		b.LastRows(il, outIDs, &cur, &inpSA)
		ffnInp := b.Add(cur, inpSA)
		cur = b.FeedForward(b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il), b.LayerFFN(il, "", ActSiLU), il)
		cur = b.Mul(b.RMSNorm(cur), b.W(il, "post_ffw_norm.weight"))
		inpL = b.CVec(b.Add(cur, ffnInp), il)
		b.Name(inpL, "l_out", il)
	}
	cur := b.Scale(b.MM(b.OutputW(), b.LayerNormOut(inpL, NormRMS), b.T("output.scale")))
	if b.FinalSoftcap != 0 {
		cur = b.softcap(cur)
	}
	b.Logits(cur)
}

func loadLaguna(k *Keys, h *model.HParams) {
	loadMoE(model.GatingSigmoid)(k, h)
	h.NExpertShared = k.Int("expert_shared_count", 1)
	if h.NFFShexp == 0 {
		h.NFFShexp = h.NFFExp(0) * h.NExpertShared
	}
	k.optionalWindow(h, 4, true)
}

func laguna(b *Builder) {
	d := b.NEmbdHeadV(0)
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.attendKV()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA := inpL
		in := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		heads := int64(b.NHead(il))
		q, k, v := b.QKV(in, d, b.NHead(il), b.NHeadKV(il), il)
		w := b.W(il, "attn_gate.weight")
		gate := b.MM(w, in, nil)
		q, k = b.LayerNorm(q, "attn_q_norm", NormRMS, il), b.LayerNorm(k, "attn_k_norm", NormRMS, il)
		q, k = b.Rot(q, pos, nil, b.NRot(il)), b.Rot(k, pos, nil, b.NRot(il))
		cur := attn(Attn{Q: q, K: k, V: v}, il)
		gate = b.Softplus(gate)
		if w.Ne[1] == heads {
			cur = b.gateHeads(cur, gate, int64(d), heads)
		} else {
			cur = b.Mul(cur, gate)
		}
		cur = b.MM(b.W(il, "attn_output.weight"), cur, b.W(il, "attn_output.scale"))
		b.LastRows(il, outIDs, &cur, &inpSA)
		ffnInp := b.Add(cur, inpSA)
		cur = sharedExperts(routing{})(b, b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il), il)
		inpL = b.CVec(b.Add(cur, ffnInp), il)
		b.Name(inpL, "l_out", il)
	}
	b.Logits(b.MM(b.OutputW(), b.LayerNormOut(inpL, NormRMS), nil))
}

func loadStep35(k *Keys, h *model.HParams) {
	loadMoE(model.GatingSigmoid)(k, h)
	h.NRotFull /= 2
	k.window(h, "attention.sliding_window")
	k.windowPattern(h)
	for i, v := range k.Floats("swiglu_clamp_exp", h.NLayerAll) {
		h.Layers[i].SwigluClampExp = v
	}
	for i, v := range k.Floats("swiglu_clamp_shexp", h.NLayerAll) {
		h.Layers[i].SwigluClampShexp = v
	}
}

func step35(b *Builder) {
	if b.U.Kind == GraphMTP {
		step35MTP(b)
		return
	}
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedISWA()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpL = b.CVec(b.step35Layer(inpL, pos, attn, il), il)
		b.Name(inpL, "l_out", il)
	}
	b.lmHead(b.trunkOut(inpL, outIDs, rowsBeforeNorm, NormRMS))
}

func step35MTP(b *Builder) {
	cur, il := b.nextN(NormRMS)
	pos := b.InpPos()
	attn := b.cachedISWA()
	cur = b.step35Layer(cur, pos, attn, il)
	cur = b.GetRows(cur, b.InpOutIDs())
	b.HNextN(cur)
	norm := b.W(il, "nextn.shared_head_norm.weight")
	if norm == nil {
		norm = b.OutputNorm()
	}
	cur = b.Norm(cur, norm, nil, NormRMS, -1)
	head := b.W(il, "nextn.shared_head_head.weight")
	if head == nil {
		head = b.OutputW()
	}
	b.Logits(b.MM(head, cur, nil))
}

// step35Layer is one whole layer, of the trunk or NextN.
func (b *Builder) step35Layer(inpL, pos *graph.Tensor, attn attend, il int) *graph.Tensor {
	dk, dv, heads, kv, n := int64(b.NEmbdHeadK(0)), int64(b.NEmbdHeadV(0)), int64(b.NHead(il)), int64(b.NHeadKV(il)), int64(b.NTokens)
	in := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
	q, k, v := b.QKVFlat(in, int(dk*heads), int(dk*kv), int(dv*kv), il)
	q, k, v = b.Reshape3D(q, dk, heads, n), b.Reshape3D(k, dk, kv, n), b.Reshape3D(v, dv, kv, n)
	if w := b.W(il, "attn_q_norm.weight"); w != nil {
		q = b.Norm(q, w, nil, NormRMS, il)
	}
	if w := b.W(il, "attn_k_norm.weight"); w != nil {
		k = b.Norm(k, w, nil, NormRMS, il)
	}
	var factors *graph.Tensor
	if !b.IsSWA(il) {
		factors = b.RopeFactors(il)
	}
	q, k = b.Rot(q, pos, factors, b.NRot(il)), b.Rot(k, pos, factors, b.NRot(il))
	cur := attn(Attn{Q: q, K: k, V: v}, il)
	if w := b.W(il, "attn_gate.weight"); w != nil {
		cur = b.gateHeads(cur, b.Sigmoid(b.MM(w, in, nil)), dv, heads)
	}
	cur = b.MM(b.W(il, "attn_output.weight"), cur, b.W(il, "attn_output.scale"))
	ffnInp := b.Add(cur, inpL)
	cur = sharedExperts(routing{shared: true})(b, b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il), il)
	return b.Add(cur, ffnInp)
}

// gated asks for attention with a gate for each value and norms on both sides
// of a block.
func (w *wants) gated(il int) {
	q := w.qWidth()
	w.attention(0, il, q, w.NEmbdKGQA(0), w.NEmbdVGQA(0))
	w.need(il, "post_attention_norm.weight", w.NEmbd)
	w.headNorms(0, il)
	w.need(il, "attn_gate.weight", w.NEmbd, q)
	w.need(il, "ffn_norm.weight", w.NEmbd)
	w.need(il, "post_ffw_norm.weight", w.NEmbd)
}

func (w *wants) afmoe() {
	w.ends()
	for il := range w.NLayer() {
		w.gated(il)
		if il < w.NLayerDenseLead {
			w.ffn(0, il, "", w.NFF(0))
			continue
		}
		w.routed(il)
		if w.NExpertShared > 0 {
			w.ffn(0, il, "_shexp", w.NFFExp(0)*w.NExpertShared)
		}
	}
}

// routed asks for experts and a router with a bias.
func (w *wants) routed(il int) {
	w.experts(0, il, w.NFFExp(0))
	w.need(il, "exp_probs_b.bias", w.NExpert)
}

func (w *wants) muse() {
	w.output(0, w.nVocab)
	for il := range w.NLayer() {
		w.gated(il)
		w.ffn(0, il, "", w.NFF(0))
	}
}

func (w *wants) laguna() {
	w.ends()
	d := w.NEmbdHeadK(0)
	for il := range w.NLayer() {
		q := d * w.NHead(il)
		w.attention(0, il, q, d*w.NHeadKV(il), w.NEmbdHeadV(0)*w.NHeadKV(il))
		w.headNorms(0, il)
		gates := w.NHead(il)
		if w.dim(il, "attn_gate.weight", 1, 0) == q {
			gates = q // for each value
		}
		w.need(il, "attn_gate.weight", w.NEmbd, gates)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		if il < w.NLayerDenseLead {
			w.ffn(0, il, "", w.NFF(0))
			continue
		}
		w.routed(il)
		w.ffn(0, il, "_shexp", w.NFFShexp)
	}
}

// step35 can do without any part of a feed-forward block.
func (w *wants) step35() {
	trunk, _ := w.parts()
	w.output(trunk, w.nVocab)
	rot := 0
	for il := range w.NLayer() {
		rot = max(rot, w.NRot(il))
	}
	if rot == 0 {
		rot = w.NRot(0)
	}
	if w.RopeScalingLong {
		w.may(-1, "rope_factors_long.weight", rot/2)
		w.may(-1, "rope_factors_short.weight", rot/2)
	} else {
		w.may(-1, "rope_freqs.weight", rot/2)
	}
	w.blocks(func(flags, il int) {
		dk, dv, heads := w.NEmbdHeadK(0), w.NEmbdHeadV(0), w.NHead(il)
		w.tensor(flags, il, "attn_norm.weight", w.NEmbd)
		w.headNorms(optional, il)
		w.qkv(flags, il, w.NEmbd, dk*heads, w.NEmbdKGQA(il), w.NEmbdVGQA(il))
		w.tensor(flags, il, "attn_output.weight", dv*heads, w.NEmbd)
		w.may(il, "attn_gate.weight", w.NEmbd, heads)
		w.tensor(flags, il, "ffn_norm.weight", w.NEmbd)
		w.ffn(optional, il, "", w.NFF(0))
		w.experts(optional, il, w.NFFExp(0))
		w.may(il, "exp_probs_b.bias", w.NExpert)
		w.ffn(optional, il, "_shexp", w.NFFShexp)
		if il >= w.NLayer() {
			w.nextN(flags, 0, il)
		}
	})
}
