package arch

import (
	"cmp"

	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// Mixtures of experts with a sliding window, and their kin.
var _ = register(
	&Arch{
		Name: "gpt-oss", Rope: model.RopeNeoX, Load: loadGPTOSS,
		Build:   gptOSS,
		Tensors: (*wants).gptOSS,
		Needs:   "attention.layer_norm_rms_epsilon attention.sliding_window expert_feed_forward_length",
		Source:  "src/models/openai-moe.cpp@v0.5.0",
	},
	&Arch{Name: "llama4", Rope: model.RopeNorm, EvenHeads: true, Quirk: Quirk{WeightBeforeFFN: true, SelectLogits: true}, Load: loadLlama4, Build: llama4, Tensors: (*wants).llama4, Needs: "attention.layer_norm_rms_epsilon expert_feed_forward_length interleave_moe_layer_step", Source: "src/models/llama4.cpp@v0.5.0"},
	&Arch{Name: "smallthinker", Rope: model.RopeNeoX, EvenHeads: true, Load: loadSmallThinker, Build: smallThinker, Tensors: (*wants).smallThinker, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/smallthinker.cpp@v0.5.0"},
	&Arch{Name: "minimax-m2", Rope: model.RopeNeoX, Load: loadMoE(model.GatingNone), Build: minimaxM2, Tensors: (*wants).minimaxM2, Needs: "attention.layer_norm_rms_epsilon expert_feed_forward_length", Source: "src/models/minimax-m2.cpp@v0.5.0"},
	&Arch{Name: "paddleocr", Rope: model.RopeMRoPE, EvenHeads: true, Load: loadSections, Build: wiring{}.model, Tensors: (*wants).ernie, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/paddleocr.cpp@v0.5.0"},
	&Arch{
		Name: "mellum", Rope: model.RopeNeoX, EvenHeads: true, Load: loadMellum,
		Build:   wiring{attend: (*Builder).attendKV, qkNorm: qkBefore}.model,
		Tensors: (*wants).mellum,
		Needs:   "attention.layer_norm_rms_epsilon expert_feed_forward_length",
		Source:  "src/models/mellum.cpp@v0.5.0",
	},
	&Arch{
		Name: "maple", Rope: model.RopeNeoX, Quirk: Quirk{ClampedMoE: true}, Load: loadMaple,
		Build:   maple,
		Tensors: (*wants).maple,
		Needs:   "attention.layer_norm_rms_epsilon attention.sliding_window expert_feed_forward_length attention.sliding_window_pattern swiglu_clamp_exp",
		Source:  "src/models/maple.cpp@v0.5.0",
	},
	&Arch{Name: "hy_v3", Rope: model.RopeNeoX, EvenHeads: true, Always: nextNFFN, Load: loadMoE(model.GatingSigmoid), Build: hyV3, Tensors: (*wants).hyV3, Needs: "attention.layer_norm_rms_epsilon expert_feed_forward_length", Source: "src/models/hy-v3.cpp@v0.5.0"},
	&Arch{Name: "mimo2", Rope: model.RopeNeoX, Load: loadMimo2, Build: mimo2, Tensors: (*wants).mimo2, Needs: "attention.layer_norm_rms_epsilon attention.sliding_window expert_feed_forward_length attention.sliding_window_pattern", Source: "src/models/mimo2.cpp@v0.5.0"},
	&Arch{Name: "cohere2moe", Rope: model.RopeNorm, EvenHeads: true, Always: []string{"nextn.embed_tokens", "nextn.shared_head_head", "nextn.shared_head_norm"}, Load: loadCohere2MoE, Build: cohere2MoE, Tensors: (*wants).cohere2MoE, Needs: "logit_scale attention.sliding_window leading_dense_block_count expert_feed_forward_length", Source: "src/models/cohere2moe.cpp@v0.5.0"},
	&Arch{Name: "glm4moe", Rope: model.RopeNeoX, Load: loadGLM4MoE, Build: glm4MoE, Tensors: (*wants).glm4MoE, Needs: "attention.layer_norm_rms_epsilon expert_feed_forward_length expert_shared_count", Source: "src/models/glm4-moe.cpp@v0.5.0"},
)

func loadGPTOSS(k *Keys, h *model.HParams) {
	loadExpertFF(k, h)
	k.window(h, "attention.sliding_window")
	k.pattern(h, 2)
}

// gptOSS weights its experts by a softmax over the chosen ones.
func gptOSS(b *Builder) {
	experts := func(b *Builder, cur *graph.Tensor, il int) *graph.Tensor {
		m := b.LayerMoE(il, ActSwiGLUOAI)
		m.GateInpB = b.W(il, "ffn_gate_inp.bias")
		m.UpB, m.GateB, m.DownB = b.W(il, "ffn_up_exps.bias"), b.W(il, "ffn_gate_exps.bias"), b.W(il, "ffn_down_exps.bias")
		m.NormW, m.Gating = false, model.GatingSoftmaxWeight
		return b.Experts(cur, m, il)
	}
	wiring{attend: (*Builder).cachedISWA, heads: headsRot, sinks: true, ffnNorm: "post_attention_norm", rows: rowsBeforeNorm, ffn: experts}.model(b)
}

func loadLlama4(k *Keys, h *model.HParams) {
	loadExpertFF(k, h)
	h.NMoELayerStep = k.Need("interleave_moe_layer_step")
	if k.Has("attention.sliding_window") && k.Int("attention.sliding_window", 0) == 0 {
		h.NNoRopeLayerStep = h.NLayer()
	} else {
		h.SWAType, h.NSWA = model.SWAChunked, 8192
		h.AttnTempFloorScale = 8192
		h.AttnTempScale = 0.1
		k.pattern(h, 4)
	}
	h.UseKQNorm = h.NExpert != 128
}

func llama4(b *Builder) {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	var temp *graph.Tensor
	if b.AttnTempScale != 0 {
		temp = b.InpAttnScale()
	}
	attn := b.attendKV()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA := inpL
		rope := b.NNoRopeLayerStep > 0 && (il+1)%b.NNoRopeLayerStep != 0
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		f := b.RopeFactors(il)
		q, k, v := b.QKV(cur, b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(0), il)
		if rope {
			q, k = b.Rot(q, pos, f, b.NRot(0)), b.Rot(k, pos, f, b.NRot(0))
		} else if temp != nil {
			q = b.Mul(q, temp)
		}
		if rope && b.UseKQNorm {
			q, k = b.RMSNorm(q), b.RMSNorm(k)
		}
		cur = attn(Attn{Q: q, K: k, V: v}.WithOut(b, il), il)
		b.LastRows(il, outIDs, &cur, &inpSA)
		ffnInp := b.Add(cur, inpSA)
		cur = b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il)
		if b.W(il, "ffn_gate_inp.weight") == nil {
			cur = b.FeedForward(cur, b.LayerFFN(il, "", ActSiLU), il)
		} else {
			m := b.LayerMoE(il, ActSiLU)
			m.NormW, m.Gating = false, model.GatingSigmoid
			out := b.Experts(cur, m, il)
			cur = b.Add(out, b.FeedForward(cur, b.LayerFFN(il, "_shexp", ActSiLU), il))
		}
		inpL = b.CVec(b.Add(cur, ffnInp), il)
		b.Name(inpL, "l_out", il)
	}
	b.lmHead(b.LayerNormOut(inpL, NormRMS))
}

func loadSmallThinker(k *Keys, h *model.HParams) {
	loadMoE(model.GatingNone)(k, h)
	if k.Int("attention.sliding_window", 0) > 0 {
		k.optionalWindow(h, 4, true)
		h.NSWA = 4096
	} else {
		h.NNoRopeLayerStep = h.NLayer()
	}
}

// smallThinker routes by the layer's input, before attention.
func smallThinker(b *Builder) {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.attendKV()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA := inpL
		probs := b.MM(b.W(il, "ffn_gate_inp.weight"), inpL, nil)
		b.Name(probs, "ffn_moe_logits", il)
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		q, k, v := b.QKV(cur, b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(0), il)
		if b.NNoRopeLayerStep == b.NLayer() || il%b.NNoRopeLayerStep != 0 {
			q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
		}
		cur = attn(Attn{Q: q, K: k, V: v}.WithOut(b, il), il)
		b.LastRows(il, outIDs, &cur, &inpSA, &probs)
		ffnInp := b.Add(cur, inpSA)
		cur = b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il)
		m := b.LayerMoE(il, ActReLU)
		m.Probs, m.Gating = probs, b.ExpertGating
		cur = b.Experts(cur, m, il)
		inpL = b.CVec(b.Add(cur, ffnInp), il)
		b.Name(inpL, "l_out", il)
	}
	b.lmHead(b.LayerNormOut(inpL, NormRMS))
}

// minimaxM2 norms queries and keys across all heads.
func minimaxM2(b *Builder) {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedKV()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA := inpL
		q, k, v := b.flatQKV(b.LayerNorm(inpL, "attn_norm", NormRMS, il), pos, il)
		cur := attn(Attn{Q: q, K: k, V: v}.WithOut(b, il), il)
		b.LastRows(il, outIDs, &cur, &inpSA)
		ffnInp := b.Add(cur, inpSA)
		cur = b.Experts(b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il), b.routed(il, routing{normW: true}), il)
		inpL = b.CVec(b.Add(cur, ffnInp), il)
		b.Name(inpL, "l_out", il)
	}
	b.lmHead(b.LayerNormOut(inpL, NormRMS))
}

func loadMellum(k *Keys, h *model.HParams) {
	loadExpertFF(k, h)
	k.optionalWindow(h, 4, false)
}

func loadMaple(k *Keys, h *model.HParams) {
	loadExpertFF(k, h)
	k.window(h, "attention.sliding_window")
	k.windowPattern(h)
	for i, v := range k.Floats("swiglu_clamp_exp", h.NLayerAll) {
		h.Layers[i].SwigluClampExp = v
	}
}

func maple(b *Builder) {
	full := func(b *Builder, il int) bool { return !b.IsSWA(il) }
	wiring{attend: (*Builder).cachedISWA, qkNorm: qkBefore, noRope: full, noBiasO: true}.model(b)
}

// hyV3 and its NextN block.
func hyV3(b *Builder) {
	w := wiring{factors: true, qkNorm: qkBefore, rows: rowsAfterNorm, ffn: sharedExperts(routing{shared: true})}
	if b.U.Kind != GraphMTP {
		w.model(b)
		return
	}
	cur, il := b.nextN(NormRMS)
	pos := b.InpPos()
	attn := b.cachedKV()
	inpSA := cur
	f := b.RopeFactors(il)
	q, k, v := b.QKV(b.LayerNorm(cur, "attn_norm", NormRMS, il), b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(0), il)
	q, k = b.LayerNorm(q, "attn_q_norm", NormRMS, il), b.LayerNorm(k, "attn_k_norm", NormRMS, il)
	q, k = b.Rot(q, pos, f, b.NRot(0)), b.Rot(k, pos, f, b.NRot(0))
	ffnInp := b.Add(attn(Attn{Q: q, K: k, V: v}.WithOut(b, il), il), inpSA)
	cur = w.ffn(b, b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il), il)
	b.Logits(b.nextNHead(b.Add(cur, ffnInp), b.InpOutIDs(), b.OutputNorm(), NormRMS, il))
}

func loadMimo2(k *Keys, h *model.HParams) {
	loadExpertFF(k, h)
	k.window(h, "attention.sliding_window")
	k.windowPattern(h)
	if v := k.Float("attention.value_scale", 0); v != 1 {
		h.AttnValueScale = v
	}
}

// mimo2 has keys wider than values, and may scale what attention returns.
func mimo2(b *Builder) {
	if b.U.Kind == GraphMTP {
		mimo2MTP(b)
		return
	}
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedISWA()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA := inpL
		cur := b.mimo2Attn(b.LayerNorm(inpL, "attn_norm", NormRMS, il), pos, attn, il)
		b.LastRows(il, outIDs, &cur, &inpSA)
		ffnInp := b.Add(cur, inpSA)
		cur = b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il)
		if b.W(il, "ffn_gate_inp.weight") == nil {
			cur = b.FeedForward(cur, b.LayerFFN(il, "", ActSiLU), il)
		} else {
			m := b.LayerMoE(il, ActSiLU)
			m.ProbsB, m.Gating = b.W(il, "exp_probs_b.bias"), model.GatingSigmoid
			cur = b.Experts(cur, m, il)
		}
		inpL = b.CVec(b.Add(cur, ffnInp), il)
		b.Name(inpL, "l_out", il)
	}
	b.lmHead(b.LayerNormOut(inpL, NormRMS))
}

func (b *Builder) mimo2Attn(cur, pos *graph.Tensor, attn attend, il int) *graph.Tensor {
	dk, dv := b.NEmbdHeadK(0), b.NEmbdHeadV(0)
	q, k, v := b.QKVDims(cur, dk, b.NHead(il), dk, b.NHeadKV(il), dv, b.NHeadKV(il), il)
	q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
	a := Attn{Q: q, K: k, V: v, Sinks: b.W(il, "attn_sinks.weight")}.WithOut(b, il)
	a.WOB = nil
	cur = attn(a, il)
	if b.AttnValueScale != 0 {
		cur = b.Scale(cur)
	}
	return cur
}

func mimo2MTP(b *Builder) {
	cur, il := b.nextN(NormRMS)
	pos := b.InpPos()
	outIDs := b.InpOutIDs()
	attn := b.cachedISWA()
	inpSA := cur
	ffnInp := b.Add(b.mimo2Attn(b.LayerNorm(cur, "attn_norm", NormRMS, il), pos, attn, il), inpSA)
	cur = b.FeedForward(b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il), b.LayerFFN(il, "", ActSiLU), il)
	cur = b.GetRows(b.Add(cur, ffnInp), outIDs)
	b.HNextN(cur)
	norm := b.OutputNorm()
	for _, name := range []string{"layer_output_norm.weight", "nextn.shared_head_norm.weight"} {
		if w := b.W(il, name); w != nil {
			norm = w
		}
	}
	cur = b.Norm(cur, norm, nil, NormRMS, -1)
	head, scale := b.W(il, "nextn.shared_head_head.weight"), b.W(il, "nextn.shared_head_head.scale")
	if head == nil {
		head, scale = b.OutputW(), b.T("output.scale")
	}
	b.Logits(b.MM(head, cur, scale))
}

func loadCohere2MoE(k *Keys, h *model.HParams) {
	loadMoE(model.GatingSigmoid)(k, h)
	k.window(h, "attention.sliding_window")
	k.patternOf(h, 4, true)
	if !k.Has("attention.layer_norm_epsilon") && !k.Has("attention.layer_norm_rms_epsilon") {
		k.fail("attention.layer_norm_rms_epsilon", "missing, and attention.layer_norm_epsilon as well")
	}
	h.LogitScale = k.Float("logit_scale", 0)
	if k.Float("attention.layer_norm_rms_epsilon", 0) == 0 {
		h.NormLayer = true
	}
}

// cohere2MoE runs attention beside experts on one norm.
func cohere2MoE(b *Builder) {
	typ := NormRMS
	if b.NormLayer {
		typ = NormLayer
	}
	mtp := b.U.Kind == GraphMTP
	var inpL *graph.Tensor
	il := 0
	if mtp {
		inpL, il = b.nextN(typ)
	} else {
		inpL = b.InpEmbd()
	}
	pos := b.InpPos()
	outIDs := b.InpOutIDs()
	attn := b.cachedISWA()
	layer := func(inpL *graph.Tensor, il int) *graph.Tensor {
		in := b.LayerNorm(inpL, "attn_norm", typ, il)
		q, k, v := b.QKV(in, b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(0), il)
		if mtp || b.IsSWA(il) || il < b.NLayerDenseLead {
			f := b.RopeFactors(il)
			q, k = b.Rot(q, pos, f, b.NRot(0)), b.Rot(k, pos, f, b.NRot(0))
		}
		out := attn(Attn{Q: q, K: k, V: v}.WithOut(b, il), il)
		cur := sharedExperts(routing{})(b, in, il)
		if b.W(il, "ffn_gate_inp.weight") != nil && b.W(il, "ffn_up_shexp.weight") != nil {
			cur = b.Scale(cur)
		}
		return b.Add(b.Add(cur, inpL), out)
	}
	if mtp {
		cur := b.nextNHead(layer(inpL, il), outIDs, b.OutputNorm(), typ, il)
		if b.LogitScale != 0 {
			cur = b.Scale(cur)
		}
		b.Logits(cur)
		return
	}
	for il := range b.NLayer() {
		inpL = b.CVec(layer(inpL, il), il)
		b.Name(inpL, "l_out", il)
	}
	b.scaledHead(b.trunkOut(inpL, outIDs, rowsAfterNorm, typ))
}

func loadGLM4MoE(k *Keys, h *model.HParams) {
	loadMoE(model.GatingSigmoid)(k, h)
	loadGLM4(k, h)
}

// glm4MoE and its NextN block.
func glm4MoE(b *Builder) {
	mtp := b.U.Kind == GraphMTP
	var inpL *graph.Tensor
	il := 0
	if mtp {
		inpL, il = b.nextN(NormRMS)
	} else {
		inpL = b.InpEmbd()
	}
	pos := b.InpPos()
	attn := b.cachedKV()
	outIDs := b.InpOutIDs()
	layer := func(inpL *graph.Tensor, il int) *graph.Tensor {
		inpSA := inpL
		q, k, v := b.QKV(b.LayerNorm(inpL, "attn_norm", NormRMS, il), b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(0), il)
		if w := b.W(il, "attn_q_norm.weight"); w != nil {
			q = b.Norm(q, w, nil, NormRMS, il)
		}
		if w := b.W(il, "attn_k_norm.weight"); w != nil {
			k = b.Norm(k, w, nil, NormRMS, il)
		}
		q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
		a := Attn{Q: q, K: k, V: v}.WithOut(b, il)
		a.WOB = nil
		cur := attn(a, il)
		if !mtp {
			b.LastRows(il, outIDs, &cur, &inpSA)
		}
		ffnInp := b.Add(cur, inpSA)
		cur = sharedExperts(routing{})(b, b.LayerNorm(ffnInp, "post_attention_norm", NormRMS, il), il)
		return b.Add(cur, ffnInp)
	}
	if mtp {
		b.Logits(b.nextNHead(layer(inpL, il), outIDs, b.OutputNorm(), NormRMS, il))
		return
	}
	for il := range b.NLayer() {
		inpL = b.CVec(layer(inpL, il), il)
		b.Name(inpL, "l_out", il)
	}
	cur := b.LayerNormOut(inpL, NormRMS)
	b.HNextN(cur)
	b.lmHead(cur)
}

func (w *wants) gptOSS() {
	w.output(0, w.nVocab)
	d, nFF := w.NRot(0), w.NFFExp(0)
	for il := range w.NLayer() {
		w.attention(0, il, d*w.NHead(0), d*w.NHeadKV(0), d*w.NHeadKV(0))
		w.need(il, "attn_output.bias", w.NEmbd)
		w.need(il, "attn_sinks.weight", w.NHead(0))
		w.need(il, "post_attention_norm.weight", w.NEmbd)
		w.experts(0, il, nFF)
		w.need(il, "ffn_gate_inp.bias", w.NExpert)
		w.need(il, "ffn_gate_exps.bias", nFF, w.NExpert)
		w.need(il, "ffn_down_exps.bias", w.NEmbd, w.NExpert)
		w.need(il, "ffn_up_exps.bias", nFF, w.NExpert)
	}
}

func (w *wants) llama4() {
	w.ends()
	w.may(-1, "rope_freqs.weight", w.NRot(0)/2)
	for il := range w.NLayer() {
		w.attention(0, il, w.qWidth(), w.NEmbdKGQA(0), w.NEmbdVGQA(0))
		w.need(il, "ffn_norm.weight", w.NEmbd)
		if w.NMoELayerStep > 0 && (il+1)%w.NMoELayerStep == 0 {
			w.experts(0, il, w.NFFExp(0))
			w.ffn(0, il, "_shexp", w.NFFExp(0))
		} else {
			w.ffn(0, il, "", w.NFF(0))
		}
	}
}

func (w *wants) smallThinker() {
	w.ends()
	for il := range w.NLayer() {
		w.attention(0, il, w.qWidth(), w.NEmbdVGQA(0), w.NEmbdVGQA(0))
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.experts(0, il, w.NFFExp(0))
	}
}

// minimaxM2 has experts as wide as a dense block.
func (w *wants) minimaxM2() {
	w.output(0, w.nVocab)
	for il := range w.NLayer() {
		w.attention(0, il, w.qWidth(), w.NEmbdVGQA(0), w.NEmbdVGQA(0))
		w.need(il, "attn_q_norm.weight", w.qWidth())
		w.need(il, "attn_k_norm.weight", w.NEmbdKGQA(0))
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.experts(0, il, w.NFF(0))
		w.need(il, "exp_probs_b.bias", w.NExpert)
	}
}

func (w *wants) mellum() {
	w.output(0, w.nVocab)
	w.normedExperts(w.qWidth(), w.expertFF())
}

func (w *wants) maple() {
	w.output(0, w.nVocab)
	kv := w.NEmbdKGQA(0)
	for il := range w.NLayer() {
		w.attention(0, il, w.qWidth(), kv, kv)
		w.headNorms(0, il)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.experts(0, il, w.NFFExp(0))
	}
}

// hyV3 takes any block's feed-forward tensors that there are, those of NextN
// blocks too.
func (w *wants) hyV3() {
	w.ends()
	trunk, next := w.parts()
	nFF := w.expertFF()
	if nFF == 0 && w.NExpertUsed(0) == 0 {
		nFF = w.NFF(0)
	}
	for il := range w.NLayerAll {
		flags := trunk
		if il >= w.NLayer() {
			flags = next
			w.nextN(flags, 0, il)
		}
		w.attention(flags, il, w.qWidth(), w.NEmbdKGQA(0), w.NEmbdVGQA(0))
		w.headNorms(flags, il)
		w.tensor(flags, il, "ffn_norm.weight", w.NEmbd)
		w.ffn(optional, il, "", w.NFF(0))
		w.may(il, "ffn_gate_inp.weight", w.NEmbd, w.NExpert)
		w.may(il, "exp_probs_b", w.NExpert)
		w.may(il, "ffn_down_exps.weight", nFF, w.NEmbd, w.NExpert)
		w.gateUpExps(optional, il, w.NEmbd, nFF, w.NExpert)
		w.ffn(optional, il, "_shexp", cmp.Or(w.NFFShexp, nFF))
	}
}

func (w *wants) mimo2() {
	w.output(0, w.nVocab)
	_, next := w.parts()
	for il := range w.NLayerAll {
		flags := 0
		if il >= w.NLayer() {
			flags = next
			w.nextN(flags, flags, il)
			w.tensor(flags|optional, il, "layer_output_norm.weight", w.NEmbd)
		}
		n := w.NHead(il)
		w.tensor(flags, il, "attn_norm.weight", w.NEmbd)
		w.qkv(flags, il, w.NEmbd, w.NEmbdHeadK(0)*n, w.NEmbdKGQA(il), w.NEmbdVGQA(il))
		w.tensor(flags, il, "attn_output.weight", w.NEmbdHeadV(0)*n, w.NEmbd)
		w.tensor(flags|optional, il, "attn_sinks.weight", n)
		w.tensor(flags, il, "ffn_norm.weight", w.NEmbd)
		w.ffn(flags|optional, il, "", w.NFF(0))
		w.experts(flags|optional, il, w.NFFExp(0))
		w.tensor(flags|optional, il, "exp_probs_b.bias", w.NExpert)
	}
}

func (w *wants) cohere2MoE() {
	w.ends()
	trunk, next := w.parts()
	nFF := cmp.Or(w.NFFExp(0), w.NFF(0))
	for il := range w.NLayerAll {
		flags := trunk
		if il >= w.NLayer() {
			flags = next
			w.nextN(flags, 0, il)
		}
		w.attention(flags, il, w.qWidth(), w.NEmbdVGQA(0), w.NEmbdVGQA(0))
		if il < min(w.NLayerDenseLead, w.NLayer()) {
			w.ffn(flags, il, "", w.NFF(0))
			continue
		}
		w.tensor(flags, il, "ffn_gate_inp.weight", w.NEmbd, w.NExpert)
		w.tensor(flags, il, "ffn_down_exps.weight", nFF, w.NEmbd, w.NExpert)
		w.gateUpExps(flags, il, w.NEmbd, nFF, w.NExpert)
		if w.NExpertShared > 0 {
			w.ffn(flags, il, "_shexp", cmp.Or(w.NFFShexp, nFF*w.NExpertShared))
		}
	}
}

func (w *wants) glm4MoE() {
	w.ends()
	trunk, next := w.parts()
	nFF := w.expertFF()
	for il := range w.NLayerAll {
		flags := trunk
		if il >= w.NLayer() {
			flags = next
			w.nextN(flags, flags, il)
		}
		w.attention(flags, il, w.qWidth(), w.NEmbdKGQA(0), w.NEmbdVGQA(0))
		w.headNorms(flags|optional, il)
		w.tensor(flags, il, "post_attention_norm.weight", w.NEmbd)
		if il < w.NLayerDenseLead {
			w.ffn(flags, il, "", w.NFF(0))
			continue
		}
		w.experts(flags, il, nFF)
		w.tensor(flags, il, "exp_probs_b.bias", w.NExpert)
		if w.NExpertShared > 0 {
			w.ffn(flags, il, "_shexp", nFF*w.NExpertShared)
		}
	}
}
