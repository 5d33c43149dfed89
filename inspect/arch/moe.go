package arch

import (
	"cmp"

	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// Decoders whose later layers hold experts, most with a shared one beside.
var _ = register(
	&Arch{Name: "arctic", Rope: model.RopeNorm, EvenHeads: true, Build: arctic, Tensors: (*wants).arctic, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/arctic.cpp@v0.5.0"},
	&Arch{Name: "dbrx", Rope: model.RopeNeoX, EvenHeads: true, Load: loadClamp, Build: wiring{layer: true, noBiasO: true, ffnNorm: "attn_output_norm"}.model, Tensors: (*wants).dbrx, Needs: "attention.layer_norm_epsilon attention.clamp_kqv", Source: "src/models/dbrx.cpp@v0.5.0"},
	&Arch{Name: "grok", Rope: model.RopeNeoX, EvenHeads: true, NoFlash: true, Quirk: Quirk{ScoreTanh: true}, Load: loadGrok, Build: grok, Tensors: (*wants).grok, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/grok.cpp@v0.5.0"},
	&Arch{Name: "deepseek", Rope: model.RopeNorm, EvenHeads: true, Load: loadMoE(model.GatingSoftmax), Build: wiring{factors: true, ffn: sharedExperts(routing{rawW: true})}.model, Tensors: (*wants).deepseek, Needs: "attention.layer_norm_rms_epsilon expert_feed_forward_length expert_shared_count", Source: "src/models/deepseek.cpp@v0.5.0"},
	&Arch{Name: "dots1", Rope: model.RopeNeoX, EvenHeads: true, Load: loadMoE(model.GatingNone), Build: wiring{qkNorm: qkBefore, ffn: sharedExperts(routing{})}.model, Tensors: (*wants).dots1, Needs: "attention.layer_norm_rms_epsilon expert_feed_forward_length expert_shared_count", Source: "src/models/dots1.cpp@v0.5.0"},
	&Arch{Name: "ernie4_5", Rope: model.RopeNorm, EvenHeads: true, Build: wiring{noBiasO: true}.model, Tensors: (*wants).ernie, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/ernie4-5.cpp@v0.5.0"},
	&Arch{Name: "ernie4_5-moe", Rope: model.RopeNorm, EvenHeads: true, Load: loadErnieMoE, Build: wiring{noBiasO: true, ffn: (*Builder).ernieExperts}.model, Tensors: (*wants).ernieMoE, Needs: "attention.layer_norm_rms_epsilon expert_feed_forward_length interleave_moe_layer_step", Source: "src/models/ernie4-5-moe.cpp@v0.5.0"},
	&Arch{Name: "bailingmoe", Rope: model.RopeNorm, Load: loadMoE(model.GatingSoftmax), Build: bailing, Tensors: (*wants).bailing, Needs: "attention.layer_norm_rms_epsilon expert_feed_forward_length expert_shared_count", Source: "src/models/bailingmoe.cpp@v0.5.0"},
	&Arch{
		Name: "bailingmoe2", Rope: model.RopeNeoX, NextN: NextNNever, Load: loadMoE(model.GatingNone),
		Build:   wiring{qkNorm: qkBefore, ffn: sharedExperts(routing{})}.model,
		Tensors: (*wants).bailing2,
		Needs:   "attention.layer_norm_rms_epsilon expert_feed_forward_length expert_shared_count expert_gating_func",
		Source:  "src/models/bailingmoe2.cpp@v0.5.0",
	},
	&Arch{Name: "exaone-moe", Rope: model.RopeNeoX, EvenHeads: true, NextN: NextNNever, Load: loadExaoneMoE, Build: exaoneMoE, Tensors: (*wants).exaoneMoE, Needs: "attention.layer_norm_rms_epsilon attention.sliding_window expert_feed_forward_length expert_gating_func", Source: "src/models/exaone-moe.cpp@v0.5.0"},
	&Arch{
		Name: "grovemoe", Rope: model.RopeNeoX, EvenHeads: true, Quirk: Quirk{SelectSigmoid: true, ExpertGroups: true}, Load: loadGrove,
		Build:   wiring{qkNorm: qkBefore, ffn: (*Builder).groveExperts}.model,
		Tensors: (*wants).grove,
		Needs:   "attention.layer_norm_rms_epsilon expert_feed_forward_length expert_group_scale experts_per_group",
		Source:  "src/models/grovemoe.cpp@v0.5.0",
	},
)

// loadMoE reads what mixtures of experts say of themselves; def is the gating
// where the file names none.
func loadMoE(def model.ExpertGating) func(*Keys, *model.HParams) {
	return func(k *Keys, h *model.HParams) {
		loadExpertFF(k, h)
		h.NLayerDenseLead = k.Int("leading_dense_block_count", 0)
		h.NExpertShared = k.Int("expert_shared_count", 0)
		h.ExpertWeightsScale = k.Float("expert_weights_scale", 0)
		h.ExpertWeightsNorm = k.Bool("expert_weights_norm", false)
		h.ExpertGating = def
		if g := k.Int("expert_gating_func", 0); g > 0 {
			h.ExpertGating = model.ExpertGating(min(g, 255))
		}
	}
}

// routing says how a layer's experts are weighted.
type routing struct {
	rawW   bool // weights are never normalised; otherwise the model says
	normW  bool // weights are always normalised
	shared bool // a shared expert is added even where tensors of it are missing
}

// sharedExperts is a block of experts, with a shared expert where the layer has
// one, or a dense block where it has no router.
func sharedExperts(r routing) func(*Builder, *graph.Tensor, int) *graph.Tensor {
	return func(b *Builder, cur *graph.Tensor, il int) *graph.Tensor {
		if b.W(il, "ffn_gate_inp.weight") == nil {
			return b.FeedForward(cur, b.LayerFFN(il, "", ActSiLU), il)
		}
		out := b.Experts(cur, b.routed(il, r), il)
		if !r.shared && b.W(il, "ffn_up_shexp.weight") == nil {
			return out
		}
		return b.Add(out, b.FeedForward(cur, b.LayerFFN(il, "_shexp", ActSiLU), il))
	}
}

// routed collects the experts of layer il with the model's own routing.
func (b *Builder) routed(il int, r routing) MoE {
	m := b.LayerMoE(il, ActSiLU)
	m.ProbsB = b.W(il, "exp_probs_b.bias")
	if m.ProbsB == nil {
		m.ProbsB = b.W(il, "exp_probs_b") // hy_v3 has no suffix
	}
	m.NormW = r.normW || !r.rawW && b.ExpertWeightsNorm
	m.Gating = b.ExpertGating
	return m
}

// arctic runs experts on the layer's input beside a dense block.
func arctic(b *Builder) {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedKV()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA := inpL
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		q, k, v := b.QKV(cur, b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(0), il)
		q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
		cur = attn(Attn{Q: q, K: k, V: v}.WithOut(b, il), il)
		b.LastRows(il, outIDs, &cur, &inpSA)
		ffnInp := b.Add(cur, inpSA)
		cur = b.FeedForward(b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il), b.LayerFFN(il, "", ActSiLU), il)
		ffnOut := b.Add(cur, ffnInp)
		cur = b.Experts(b.LayerNorm(inpSA, "ffn_norm_exps", NormRMS, il), b.LayerMoE(il, ActSiLU), il)
		inpL = b.CVec(b.Add(cur, ffnOut), il)
		b.Name(inpL, "l_out", il)
	}
	b.lmHead(b.LayerNormOut(inpL, NormRMS))
}

func loadGrok(k *Keys, h *model.HParams) {
	loadExpertFF(k, h)
	h.LogitScale = k.Float("logit_scale", 0.5773502691896257)
	h.EmbeddingScale = k.Float("embedding_scale", 78.38367176906169)
	h.LogitSoftcap = k.Float("attn_logit_softcapping", 30)
	h.FinalSoftcap = k.Float("final_logit_softcapping", 0)
}

// grok norms after attention and after its experts, which may run beside a
// dense block.
func grok(b *Builder) {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedKV()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA := inpL
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		q, k, v := b.QKV(cur, b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(0), il)
		q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
		cur = attn(Attn{Q: q, K: k, V: v}.WithOut(b, il), il)
		b.LastRows(il, outIDs, &cur, &inpSA)
		ffnInp := b.Add(b.LayerNorm(cur, "attn_output_norm", NormRMS, il), inpSA)
		cur = b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il)
		out := b.Experts(cur, b.LayerMoE(il, ActGELU), il)
		if b.W(il, "ffn_up.weight") != nil {
			dense := b.FeedForward(cur, b.LayerFFN(il, "", ActGELU), il)
			out = b.Scale(b.Add(dense, out))
		}
		post := b.W(il, "layer_output_norm.weight")
		if post == nil {
			post = b.W(il, "post_ffw_norm.weight")
		}
		cur = b.Norm(out, post, nil, NormRMS, il)
		inpL = b.CVec(b.Add(cur, ffnInp), il)
		b.Name(inpL, "l_out", il)
	}
	cur := b.MM(b.OutputW(), b.LayerNormOut(inpL, NormRMS), b.T("output.scale"))
	cur = b.Scale(cur)
	if b.FinalSoftcap != 0 {
		cur = b.softcap(cur)
	}
	b.Logits(cur)
}

// softcap squeezes values smoothly into a range.
func (b *Builder) softcap(cur *graph.Tensor) *graph.Tensor { return b.Scale(b.Tanh(b.Scale(cur))) }

func loadErnieMoE(k *Keys, h *model.HParams) {
	loadMoE(model.GatingSoftmax)(k, h)
	h.NMoELayerStep = k.Need("interleave_moe_layer_step")
	if h.NMoELayerStep < 1 {
		k.fail("interleave_moe_layer_step", "%d, want at least 1", h.NMoELayerStep)
	}
}

func (b *Builder) ernieExperts(cur *graph.Tensor, il int) *graph.Tensor {
	if il < b.NLayerDenseLead || (il+1)%b.NMoELayerStep != 0 {
		return b.FeedForward(cur, b.LayerFFN(il, "", ActSiLU), il)
	}
	return sharedExperts(routing{normW: true})(b, cur, il)
}

// bailing has heads of their own width.
func bailing(b *Builder) {
	wiring{factors: true, ffn: sharedExperts(routing{})}.model(b)
}

func loadExaoneMoE(k *Keys, h *model.HParams) {
	loadMoE(model.GatingNone)(k, h)
	k.window(h, "attention.sliding_window")
	k.pattern(h, 4)
}

// exaoneMoE rotates in the layers with a window only.
func exaoneMoE(b *Builder) {
	full := func(b *Builder, il int) bool { return !b.IsSWA(il) }
	wiring{attend: (*Builder).cachedISWA, factors: true, qkNorm: qkBefore, noRope: full, noBiasO: true, ffn: sharedExperts(routing{})}.model(b)
}

func loadGrove(k *Keys, h *model.HParams) {
	loadExpertFF(k, h)
	h.NFFChexp = k.Int("expert_chunk_feed_forward_length", 0)
	h.NGroupExperts = k.Need("experts_per_group")
	if h.NGroupExperts < 1 {
		k.fail("experts_per_group", "%d, want at least 1", h.NGroupExperts)
	}
}

// groveExperts runs the chosen experts and then, on what they return, the
// adjugate experts of their groups, by the same router logits.
func (b *Builder) groveExperts(cur *graph.Tensor, il int) *graph.Tensor {
	probs := b.MulMat(b.W(il, "ffn_gate_inp.weight"), cur)
	b.Name(probs, "ffn_moe_logits", il)
	m := b.LayerMoE(il, ActSiLU)
	m.Probs = probs
	out := b.Experts(cur, m, il)
	c := m
	c.Up, c.Gate, c.Down = b.W(il, "ffn_up_chexps.weight"), b.W(il, "ffn_gate_chexps.weight"), b.W(il, "ffn_down_chexps.weight")
	c.UpS, c.GateS, c.DownS = nil, nil, nil
	c.NExpert = b.NExpert / b.NGroupExperts
	c.NUsed = min(m.NUsed, c.NExpert)
	return b.Add(out, b.Scale(b.Experts(out, c, il)))
}

func (w *wants) arctic() {
	w.ends()
	for il := range w.NLayer() {
		w.attention(0, il, w.NEmbd, w.NEmbdVGQA(0), w.NEmbdVGQA(0))
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.ffn(0, il, "", w.NEmbd)
		w.need(il, "ffn_norm_exps.weight", w.NEmbd)
		w.experts(0, il, w.NFF(0))
	}
}

func (w *wants) dbrx() {
	w.output(0, w.nVocab)
	for il := range w.NLayer() {
		w.need(il, "attn_norm.weight", w.NEmbd)
		w.need(il, "attn_qkv.weight", w.NEmbd, w.NEmbd+2*w.NEmbdVGQA(0))
		w.need(il, "attn_output.weight", w.NEmbd, w.NEmbd)
		w.need(il, "attn_output_norm.weight", w.NEmbd)
		w.experts(0, il, w.NFF(0))
	}
}

func (w *wants) grok() {
	w.ends()
	for il := range w.NLayer() {
		w.attention(0, il, w.NEmbd, w.NEmbdVGQA(0), w.NEmbdVGQA(0))
		w.need(il, "attn_output_norm.weight", w.NEmbd)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.ffn(optional, il, "", w.NFF(0))
		w.someExperts(il, cmp.Or(w.NFFExp(0), w.NFF(0)))
		if !w.may(il, "layer_output_norm.weight", w.NEmbd) {
			w.need(il, "post_ffw_norm.weight", w.NEmbd)
		}
	}
}

// someExperts are experts that may have no gates.
func (w *wants) someExperts(il, nFF int) {
	w.need(il, "ffn_gate_inp.weight", w.NEmbd, w.NExpert)
	w.may(il, "ffn_gate_exps.weight", w.NEmbd, nFF, w.NExpert)
	w.need(il, "ffn_down_exps.weight", nFF, w.NEmbd, w.NExpert)
	w.need(il, "ffn_up_exps.weight", w.NEmbd, nFF, w.NExpert)
}

// sharedExperts asks for the dense block of a leading layer, or for experts and
// shared ones of width shared.
func (w *wants) sharedExperts(flags, il, shared int) {
	if il < w.NLayerDenseLead {
		w.ffn(flags, il, "", w.NFF(0))
		return
	}
	w.experts(flags, il, w.NFFExp(0))
	w.ffn(flags, il, "_shexp", shared)
}

func (w *wants) deepseek() {
	w.ends()
	for il := range w.NLayer() {
		w.attention(0, il, w.NEmbd, w.NEmbdVGQA(0), w.NEmbdVGQA(0))
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.sharedExperts(0, il, w.NFFExp(0)*w.NExpertShared)
	}
}

func (w *wants) dots1() {
	w.output(0, w.nVocab)
	for il := range w.NLayer() {
		w.attention(0, il, w.qWidth(), w.qWidth(), w.qWidth())
		w.headNorms(0, il)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.sharedExperts(0, il, w.NFFExp(0)*w.NExpertShared)
		if il >= w.NLayerDenseLead {
			w.may(il, "exp_probs_b.bias", w.NExpert)
		}
	}
}

func (w *wants) ernie() { w.ernieLayers(w.NLayer()) }

func (w *wants) ernieMoE() { w.ernieLayers(w.NLayerDenseLead) }

// ernieLayers are dense layers, of which the first ones only have no experts.
func (w *wants) ernieLayers(dense int) {
	w.ends()
	for il := range w.NLayer() {
		w.attention(0, il, w.qWidth(), w.NEmbdVGQA(0), w.NEmbdVGQA(0))
		w.may(il, "attn_output.bias", w.NEmbd)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		if il < dense {
			w.ffn(0, il, "", w.NFF(0))
			continue
		}
		w.may(il, "exp_probs_b.bias", w.NExpert)
		w.someExperts(il, w.NFFExp(0))
		if w.NFFShexp > 0 {
			w.ffn(0, il, "_shexp", w.NFFShexp)
		}
	}
}

func (w *wants) bailing() {
	w.output(0, w.nVocab)
	d := w.NRot(0)
	for il := range w.NLayer() {
		w.attention(0, il, d*w.NHead(0), d*w.NHeadKV(0), d*w.NHeadKV(0))
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.experts(0, il, w.NFFExp(0))
		w.ffn(0, il, "_shexp", w.NFFExp(0)*w.NExpertShared)
	}
}

func (w *wants) bailing2() {
	w.output(0, w.nVocab)
	for il := range w.NLayerAll {
		flags := 0
		if il >= w.NLayer() {
			flags = skipped
			w.nextN(flags, flags, il)
			w.tensor(flags, il, "layer_output_norm.weight", w.NEmbd)
		}
		w.tensor(flags, il, "attn_norm.weight", w.NEmbd)
		w.tensor(flags, il, "attn_qkv.weight", w.NEmbd, w.NEmbd+2*w.NEmbdVGQA(0))
		w.tensor(flags, il, "attn_output.weight", w.qWidth(), w.NEmbd)
		w.headNorms(flags, il)
		w.tensor(flags, il, "ffn_norm.weight", w.NEmbd)
		w.sharedExperts(flags, il, cmp.Or(w.NFFShexp, w.NFFExp(0))*w.NExpertShared)
		if il >= w.NLayerDenseLead {
			w.tensor(flags|optional, il, "exp_probs_b.bias", w.NExpert)
		}
	}
}

func (w *wants) exaoneMoE() {
	w.output(0, w.nVocab)
	kv := w.NEmbdKGQA(0)
	for il := range w.NLayerAll {
		flags := 0
		if il >= w.NLayer() {
			flags = skipped
			w.nextN(flags, flags, il)
			w.ffn(flags, il, "", w.NFF(0))
		} else {
			w.sharedExperts(0, il, cmp.Or(w.NFFShexp, w.NFFExp(0)))
			if il >= w.NLayerDenseLead {
				w.may(il, "exp_probs_b.bias", w.NExpert)
			}
		}
		w.attention(flags, il, w.qWidth(), kv, kv)
		w.headNorms(flags, il)
		w.tensor(flags, il, "ffn_norm.weight", w.NEmbd)
	}
	if w.NLayerNext == 0 { // each NextN block counts them once more
		w.may(-1, "rope_freqs.weight", w.NRot(0)/2)
	}
}

func (w *wants) grove() {
	w.qwen3moe()
	chunk, n := cmp.Or(w.NFFChexp, w.NEmbdHeadK(0)), quotient(w.NExpert, w.NGroupExperts)
	for il := range w.NLayer() {
		w.need(il, "ffn_gate_chexps.weight", w.NEmbd, chunk, n)
		w.need(il, "ffn_down_chexps.weight", chunk, w.NEmbd, n)
		w.need(il, "ffn_up_chexps.weight", w.NEmbd, chunk, n)
	}
}
