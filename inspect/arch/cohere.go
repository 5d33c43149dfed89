package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

var _ = register(
	&Arch{Name: "command-r", Rope: model.RopeNorm, Load: loadLogitScale, Build: commandR, Tensors: (*wants).commandR, Needs: "attention.layer_norm_epsilon", Source: "src/models/command-r.cpp@v0.5.0"},
	&Arch{Name: "cohere2", Rope: model.RopeNorm, Load: loadCohere2, Build: cohere2, Tensors: stack{norms: "attn_norm", attn: (*wants).square}.ask, Needs: "attention.layer_norm_epsilon logit_scale attention.sliding_window", Source: "src/models/cohere2.cpp@v0.5.0"},
)

func loadLogitScale(k *Keys, h *model.HParams) { h.LogitScale = k.Float("logit_scale", 0) }

func loadCohere2(k *Keys, h *model.HParams) {
	k.window(h, "attention.sliding_window")
	k.pattern(h, 4)
	h.LogitScale = k.Float("logit_scale", 0)
}

// parallel runs attention and feed-forward side by side on one layer norm;
// qk rotates, and norms where it must.
func (b *Builder) parallel(inputs func(*Builder) attend, qk func(q, k, pos *graph.Tensor, il int) (qr, kr *graph.Tensor)) *graph.Tensor {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := inputs(b)
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		in := b.LayerNorm(inpL, "attn_norm", NormLayer, il)
		q, k, v := b.QKV(in, b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(0), il)
		q, k = qk(q, k, pos, il)
		out := attn(Attn{Q: q, K: k, V: v}.WithOut(b, il), il)
		b.LastRows(il, outIDs, &out, &inpL, &in)
		cur := b.FeedForward(in, b.LayerFFN(il, "", ActSiLU), il)
		cur = b.Add(b.Add(cur, inpL), out)
		inpL = b.CVec(cur, il)
		b.Name(inpL, "l_out", il)
	}
	return b.LayerNormOut(inpL, NormLayer)
}

func commandR(b *Builder) {
	b.scaledHead(b.parallel((*Builder).cachedKV, func(q, k, pos *graph.Tensor, il int) (qr, kr *graph.Tensor) {
		one := func(t *graph.Tensor, name string) *graph.Tensor {
			if w := b.W(il, name); w != nil {
				t = b.Norm(t, w, nil, NormLayer, il)
			}
			return b.Rot(t, pos, nil, b.NRot(0))
		}
		return one(q, "attn_q_norm.weight"), one(k, "attn_k_norm.weight")
	}))
}

// cohere2 rotates in the layers with a window only.
func cohere2(b *Builder) {
	b.scaledHead(b.parallel((*Builder).cachedISWA, func(q, k, pos *graph.Tensor, il int) (qr, kr *graph.Tensor) {
		if !b.IsSWA(il) {
			return q, k
		}
		f := b.RopeFactors(il)
		return b.Rot(q, pos, f, b.NRot(0)), b.Rot(k, pos, f, b.NRot(0))
	}))
}

// commandR has norms of queries and keys in models of 64 layers or more.
func (w *wants) commandR() {
	s := stack{norms: "attn_norm", attn: (*wants).square}
	if w.NLayer() >= 64 {
		s.more = each{(*wants).normsByHead}
	}
	s.ask(w)
}

// normsByHead asks for norms of queries and keys with weights of each head's own.
func (w *wants) normsByHead(il int) {
	w.need(il, "attn_q_norm.weight", w.NEmbdHeadK(0), w.NHead(0))
	w.need(il, "attn_k_norm.weight", w.NEmbdHeadK(0), w.NHeadKV(0))
}
