package arch

import (
	"cmp"

	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// Nemotron-H: each layer is Mamba-2, attention without positions, or a
// feed-forward block.
var _ = register(
	&Arch{
		Name: "nemotron_h", Rope: model.RopeNone, Hybrid: true, Scan: true, Rollback: true,
		Load:    loadNemotronH,
		Memory:  func(m *model.Model, c *Context) *Memory { return nemotronHMemory(m, c) },
		Build:   nemotronH,
		Tensors: (*wants).nemotronH,
		Needs:   "attention.layer_norm_epsilon ssm.conv_kernel ssm.inner_size ssm.state_size ssm.time_step_rank ssm.group_count",
		Source:  "src/models/nemotron-h.cpp@v0.5.0",
	},
	&Arch{
		Name: "nemotron_h_moe", Rope: model.RopeNone, Hybrid: true, Scan: true, Rollback: true,
		Load: loadNemotronH,
		Memory: func(m *model.Model, c *Context) *Memory {
			if c.MTP {
				return PlainMemory(m, c, CacheOptions{Filter: func(il int) bool { return il >= m.NLayer() }})
			}
			return nemotronHMemory(m, c)
		},
		Build: func(b *Builder) {
			if b.U.Kind == GraphMTP {
				nemotronHMTP(b)
				return
			}
			nemotronH(b)
		},
		Tensors: (*wants).nemotronH,
		Needs:   "attention.layer_norm_epsilon ssm.conv_kernel ssm.inner_size ssm.state_size ssm.time_step_rank ssm.group_count",
		Source:  "src/models/nemotron-h-moe.cpp@v0.5.0",
	},
)

func loadNemotronH(k *Keys, h *model.HParams) {
	loadSSM(k, h, true)
	loadExpertFF(k, h)
	h.NExpertShared = k.Int("expert_shared_count", 0)
	h.ExpertWeightsNorm = k.Bool("expert_weights_norm", false)
	h.ExpertWeightsScale = k.Float("expert_weights_scale", 0)
	h.MoELatentSize = k.Int("moe_latent_size", 0)
	for il := range h.NLayer() {
		h.Layers[il].Recr = h.NHeadKV(il) == 0 && h.NFF(il) == 0
	}
}

func nemotronHMemory(m *model.Model, c *Context) *Memory {
	return HybridMemory(m, c,
		func(il int) bool { return !m.IsRecr(il) && m.NFF(il) == 0 },
		func(il int) bool { return m.IsRecr(il) && m.NFF(il) == 0 })
}

func nemotronH(b *Builder) {
	inpL := b.InpEmbd()
	in := b.InpHybrid()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA := inpL
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		switch {
		case b.IsRecr(il):
			cur = b.Mamba2(in.RS, cur, il)
		case b.NFF(il) == 0:
			cur = b.nemotronHAttn(in.Attn, cur, il)
		case b.W(il, "ffn_gate_inp.weight") == nil:
			cur = b.CVec(b.FeedForward(cur, b.LayerFFN(il, "", ActReLUSqr), il), il)
		default:
			cur = b.CVec(b.latentExperts(cur, b.NExpertUsed(il), il), il)
		}
		inpL = b.Add(cur, inpSA)
	}
	cur := b.Norm(inpL, b.OutputNorm(), nil, NormRMS, -1)
	b.HNextN(cur)
	cur = b.GetRows(cur, outIDs)
	b.Embd(cur)
	b.Logits(b.MM(b.OutputW(), cur, b.T("output.scale")))
}

func (b *Builder) nemotronHAttn(in *KVInput, cur *graph.Tensor, il int) *graph.Tensor {
	q, k, v := b.QKV(cur, b.NEmbdHeadV(0), b.NHead(il), b.NHeadKV(il), il)
	return b.AttendKV(in, Attn{Q: q, K: k, V: v}.WithOut(b, il), il)
}

// latentExperts routes to experts that work at a width of their own, and adds
// a shared expert.
func (b *Builder) latentExperts(cur *graph.Tensor, used, il int) *graph.Tensor {
	m := b.LayerMoE(il, ActReLUSqr)
	m.Gate, m.GateS = nil, nil
	m.ProbsB = b.W(il, "exp_probs_b.bias")
	m.Probs = b.MM(m.GateInp, cur, nil)
	m.NUsed, m.NormW, m.Gating = used, b.ExpertWeightsNorm, model.GatingSigmoid
	b.Name(m.Probs, "ffn_moe_logits", il)
	latent := cur
	if w := b.W(il, "ffn_latent_down.weight"); w != nil {
		latent = b.MulMat(w, cur)
	}
	out := b.Experts(latent, m, il)
	if w := b.W(il, "ffn_latent_up.weight"); w != nil {
		out = b.MulMat(w, out)
	}
	return b.Add(out, b.FeedForward(cur, b.LayerFFN(il, "_shexp", ActReLUSqr), il))
}

// nemotronHMTP drafts with the NextN block: attention and experts.
func nemotronHMTP(b *Builder) {
	b.onlyNextN()
	inpSA, il := b.nextN(NormRMS)
	outIDs := b.InpOutIDs()
	in := b.InpKV()
	cur := b.nemotronHAttn(in, b.LayerNorm(inpSA, "attn_norm", NormRMS, il), il)
	cur = b.GetRows(b.Add(cur, inpSA), outIDs)
	ffn := b.latentExperts(b.LayerNorm(cur, "post_attention_norm", NormRMS, il), b.NExpertUsed(0), il)
	b.Logits(b.nextNHead(b.Add(ffn, cur), nil, nil, NormLayer, il))
}

func (w *wants) nemotronH() {
	w.ends()
	trunk, _ := w.parts()
	inner, heads, mix := w.SSMDInner, w.SSMDtRank, w.SSMDInner+2*w.SSMNGroup*w.SSMDState
	for il := range w.NLayer() {
		nFF := w.NFF(il)
		w.tensor(trunk, il, "attn_norm.weight", w.NEmbd)
		switch {
		case w.IsRecr(il):
			w.tensor(trunk, il, "ssm_in.weight", w.NEmbd, inner+mix+heads)
			w.tensor(trunk, il, "ssm_conv1d.weight", w.SSMDConv, mix)
			w.may(il, "ssm_conv1d.bias", mix)
			w.tensor(trunk, il, "ssm_dt.bias", heads)
			w.tensor(trunk, il, "ssm_a", 1, heads)
			w.tensor(trunk, il, "ssm_d", 1, heads)
			w.tensor(trunk, il, "ssm_norm.weight", quotient(inner, w.SSMNGroup), w.SSMNGroup)
			w.tensor(trunk, il, "ssm_out.weight", inner, w.NEmbd)
		case nFF == 0:
			w.nemotronHAttn(trunk, 0, il)
		case w.NExpert > 0:
			w.latentExperts(trunk, 0, il, cmp.Or(w.NFFExp(il), quotient(nFF, w.NExpertUsed(il))))
		default:
			w.tensor(trunk, il, "ffn_down.weight", nFF, w.NEmbd)
			w.tensor(trunk, il, "ffn_up.weight", w.NEmbd, nFF)
			w.may(il, "ffn_down.bias", w.NEmbd)
			w.may(il, "ffn_up.bias", nFF)
		}
	}
	for il := w.NLayer(); il < w.NLayerAll; il++ {
		for _, name := range []string{"nextn.enorm", "nextn.hnorm", "nextn.shared_head_norm", "attn_norm", "post_attention_norm"} {
			w.tensor(skipped, il, name+".weight", w.NEmbd)
		}
		w.tensor(skipped, il, "nextn.eh_proj.weight", 2*w.NEmbd, w.NEmbd)
		w.nemotronHAttn(skipped, skipped, il)
		w.latentExperts(skipped, skipped, il, cmp.Or(w.NFFExp(il), quotient(w.NFF(0), w.NExpertUsed(il))))
	}
}

// nemotronHAttn is attention without its norm; may are the flags of what may be
// missing in any case.
func (w *wants) nemotronHAttn(flags, may, il int) {
	q := w.NEmbdHeadK(0) * w.NHead(il)
	w.qkv(flags, il, w.NEmbd, q, w.NEmbdKGQA(il), w.NEmbdVGQA(il))
	w.tensor(flags, il, "attn_output.weight", q, w.NEmbd)
	w.tensor(may|optional, il, "attn_output.bias", w.NEmbd)
}

// latentExperts are experts of width nFF without gates, which may work at a
// width of their own.
func (w *wants) latentExperts(flags, may, il, nFF int) {
	latent := cmp.Or(w.MoELatentSize, w.NEmbd)
	w.tensor(flags, il, "ffn_gate_inp.weight", w.NEmbd, w.NExpert)
	w.tensor(flags, il, "exp_probs_b.bias", w.NExpert)
	w.tensor(may|optional, il, "ffn_latent_down.weight", w.NEmbd, latent)
	w.tensor(may|optional, il, "ffn_latent_up.weight", latent, w.NEmbd)
	w.tensor(flags, il, "ffn_down_exps.weight", nFF, latent, w.NExpert)
	w.tensor(flags, il, "ffn_up_exps.weight", latent, nFF, w.NExpert)
	w.tensor(flags, il, "ffn_down_shexp.weight", w.NFFShexp, w.NEmbd)
	w.tensor(flags, il, "ffn_up_shexp.weight", w.NEmbd, w.NFFShexp)
}
