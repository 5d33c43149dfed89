package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

var _ = register(
	&Arch{
		Name: "llama", Rope: model.RopeNorm,
		Load:   func(k *Keys, h *model.HParams) { k.llamaRot(h) },
		Build:  func(b *Builder) { b.Logits(b.MM(b.OutputW(), b.llama(b.cachedKV), b.T("output.scale"))) },
		Source: "src/models/llama.cpp@v0.5.0",
	},
	&Arch{
		Name: "llama-embed", Rope: model.RopeNorm,
		Load:   func(k *Keys, h *model.HParams) { k.llamaRot(h) },
		Build:  func(b *Builder) { b.Expand(b.llama(b.uncached)) },
		Source: "src/models/llama.cpp@v0.5.0, graph<true>",
	},
)

// llamaRot rejects what llama.cpp rejects: heads that are rotated in part.
func (k *Keys) llamaRot(h *model.HParams) {
	if h.NHead(0) > 0 && h.NRotFull != h.NEmbdHeadKFull {
		k.fail("rope.dimension_count", "%d, llama.cpp wants the head's %d", h.NRotFull, h.NEmbdHeadKFull)
	}
	h.AttentionScale = k.Float("attention.scale", 0)
}

// An attend appends the attention of one layer.
type attend func(a Attn, il int) *graph.Tensor

// cachedKV attends over the one cache.
func (b *Builder) cachedKV() attend {
	in := b.InpKV()
	return func(a Attn, il int) *graph.Tensor { return b.AttendKV(in, a, il) }
}

// cachedISWA attends over the full-size and the window cache.
func (b *Builder) cachedISWA() attend {
	in := b.InpISWA()
	return func(a Attn, il int) *graph.Tensor { return b.AttendISWA(in, a, il) }
}

// uncached attends within the batch.
func (b *Builder) uncached() attend {
	in := b.InpNoCache()
	return func(a Attn, il int) *graph.Tensor { return b.AttendNoCache(in, a, il) }
}

// llama is the graph of the Llama family: RMS norms before attention and
// feed-forward, rotary positions, gated or expert feed-forward. It returns the
// normed embeddings.
func (b *Builder) llama(inputs func() attend) *graph.Tensor {
	head := b.NEmbdHeadV(0)
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := inputs()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA := inpL
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		b.Name(cur, "attn_norm", il)
		factors := b.RopeFactors(il)
		q, k, v := b.QKV(cur, head, b.NHead(0), b.NHeadKV(0), il)
		q = b.Rot(q, pos, factors, b.NRot(0))
		k = b.Rot(k, pos, factors, b.NRot(0))
		if b.UseKQNorm {
			q, k = b.RMSNorm(q), b.RMSNorm(k)
		}
		cur = attn(Attn{Q: q, K: k, V: v}.WithOut(b, il), il)
		b.Name(cur, "attn_out", il)
		b.LastRows(il, outIDs, &cur, &inpSA)
		ffnInp := b.Add(cur, inpSA)
		b.Name(ffnInp, "ffn_inp", il)
		cur = b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il)
		b.Name(cur, "ffn_norm", il)
		if b.W(il, "ffn_gate_inp.weight") == nil {
			cur = b.FeedForward(cur, b.LayerFFN(il, "", ActSiLU), il)
			b.Name(cur, "ffn_out", il)
		} else {
			cur = b.Experts(cur, b.LayerMoE(il, ActSiLU), il)
		}
		cur = b.Add(cur, ffnInp)
		cur = b.CVec(cur, il)
		b.Name(cur, "l_out", il)
		inpL = cur
	}
	cur := b.Norm(inpL, b.OutputNorm(), nil, NormRMS, -1)
	b.Name(cur, "result_norm", -1)
	b.Embd(cur)
	return cur
}
