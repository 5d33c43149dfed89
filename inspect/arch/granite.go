package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// The Granite line: Llama with scales on embeddings, residuals and logits.
var _ = register(
	&Arch{Name: "granite", Rope: model.RopeNorm, Load: loadGranite, Build: granite, Source: "src/models/granite.cpp@v0.5.0"},
	&Arch{Name: "granitemoe", Rope: model.RopeNorm, Load: loadGraniteMoE, Build: granite, Source: "src/models/granite-moe.cpp@v0.5.0"},
	&Arch{Name: "minicpm", Rope: model.RopeNorm, Load: loadMiniCPM, Build: granite, Source: "src/models/minicpm.cpp@v0.5.0"},
)

func loadGraniteMoE(k *Keys, h *model.HParams) {
	h.LogitScale = k.Float("logit_scale", 0)
	h.ResidualScale = k.Float("residual_scale", 0)
	h.EmbeddingScale = k.Float("embedding_scale", 0)
	h.NFFShexp = k.Int("expert_shared_feed_forward_length", 0)
}

func loadGranite(k *Keys, h *model.HParams) {
	loadGraniteMoE(k, h)
	seen := map[int]bool{}
	for i, v := range k.Ints("deepstack_mapping") {
		if i >= len(h.Layers) {
			break
		}
		h.Layers[i].Deepstack = v
		if v >= 0 {
			seen[v] = true
		}
	}
	h.NDeepstackLayers = len(seen)
	for v := range seen {
		if v > len(seen) {
			k.fail("deepstack_mapping", "input %d of %d", v, len(seen))
		}
	}
	k.noRopeUnlessFinetuned(h, true)
}

func loadMiniCPM(k *Keys, h *model.HParams) {
	loadGraniteMoE(k, h)
	h.EmbeddingScale = k.Float("embedding_scale", 12)
	h.ResidualScale = k.Float("residual_scale", 1)
	h.LogitScale = k.Float("logit_scale", 1)
}

// noRopeUnlessFinetuned takes the flag by which Granite models say that their
// layers rotate at all.
func (k *Keys) noRopeUnlessFinetuned(h *model.HParams, def bool) {
	on := k.Bool("rope.scaling.finetuned", def)
	for i := range h.Layers {
		h.Layers[i].NoRope = !on
	}
}

func granite(b *Builder) {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedKV()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		if at := b.Layers[il].Deepstack; il > 0 && at >= 0 {
			in := b.inpEmbd
			inpL = b.Add(inpL, b.View2D(in, int64(b.NEmbd), int64(b.NTokens), in.Nb[1], uint64(at)*uint64(b.NEmbd)*4))
		}
		inpSA := inpL
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		cur = b.graniteAttn(cur, pos, attn, il)
		b.LastRows(il, outIDs, &cur, &inpSA)
		inpL = b.graniteFFN(cur, inpSA, il)
	}
	cur := b.MM(b.OutputW(), b.LayerNormOut(inpL, NormRMS), b.T("output.scale"))
	b.Logits(b.Scale(cur))
}

// graniteAttn is attention of layer il.
func (b *Builder) graniteAttn(cur, pos *graph.Tensor, attn attend, il int) *graph.Tensor {
	q, k, v := b.QKV(cur, b.NEmbdHeadV(0), b.NHead(il), b.NHeadKV(il), il)
	if !b.Layers[il].NoRope {
		f := b.RopeFactors(il)
		q, k = b.Rot(q, pos, f, b.NRot(0)), b.Rot(k, pos, f, b.NRot(0))
	}
	return attn(Attn{Q: q, K: k, V: v}.WithOut(b, il), il)
}

// graniteFFN is the rest of layer il, with scaled residuals.
func (b *Builder) graniteFFN(cur, inpSA *graph.Tensor, il int) *graph.Tensor {
	cur = b.residual(cur)
	ffnInp := b.Add(cur, inpSA)
	cur = b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il)
	if b.W(il, "ffn_gate_inp.weight") == nil {
		cur = b.FeedForward(cur, b.LayerFFN(il, "", ActSiLU), il)
	} else {
		in := cur
		m := b.LayerMoE(il, ActSiLU)
		m.UpS, m.GateS, m.DownS = nil, nil, nil
		cur = b.Experts(in, m, il)
		if b.NFFShexp > 0 {
			cur = b.Add(cur, b.FeedForward(in, b.LayerFFN(il, "_shexp", ActSiLU), il))
		}
	}
	cur = b.Add(b.residual(cur), ffnInp)
	cur = b.CVec(cur, il)
	b.Name(cur, "l_out", il)
	return cur
}

// residual scales what is added to the residual stream, where the model says so.
func (b *Builder) residual(cur *graph.Tensor) *graph.Tensor {
	if b.ResidualScale == 0 {
		return cur
	}
	return b.Scale(cur)
}
