package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// Decoders with a turn that nobody else takes.
var _ = register(
	&Arch{Name: "deci", Rope: model.RopeNorm, Quant: QuantQuirk{Layers70B: 80}, Load: loadLlama, Build: deci, Tensors: (*wants).deci, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/deci.cpp@v0.5.0"},
	&Arch{Name: "bitnet", Rope: model.RopeNeoX, Tie: TieShare, Build: bitnet, Tensors: (*wants).bitnet, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/bitnet.cpp@v0.5.0"},
	&Arch{Name: "chameleon", Rope: model.RopeNorm, EvenHeads: true, Load: loadChameleon, Build: chameleon, Tensors: (*wants).chameleon, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/chameleon.cpp@v0.5.0"},
	&Arch{Name: "cogvlm", Rope: model.RopeNeoX, EvenHeads: true, Build: cogvlm, Tensors: (*wants).cogvlm, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/cogvlm.cpp@v0.5.0"},
)

// deci has layers without attention, with a matrix in its place, or without a
// feed-forward block.
func deci(b *Builder) {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedKV()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA, cur := inpL, inpL
		nq, nk := b.NHead(il), b.NHeadKV(il)
		if nq > 0 {
			cur = b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		}
		switch {
		case nq > 0 && nk == 0:
			cur = b.MM(b.W(il, "attn_output.weight"), cur, nil)
		case nq > 0:
			f := b.RopeFactors(il)
			q, k, v := b.QKV(cur, b.NEmbdHeadV(0), nq, nk, il)
			q, k = b.Rot(q, pos, f, b.NRot(0)), b.Rot(k, pos, f, b.NRot(0))
			cur = attn(Attn{Q: q, K: k, V: v}.WithOut(b, il), il)
		}
		b.LastRows(il, outIDs, &cur, &inpSA)
		if b.NFF(il) == 0 {
			continue
		}
		ffnInp := cur
		if nq > 0 {
			ffnInp = b.Add(cur, inpSA)
		}
		cur = b.FeedForward(b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il), b.LayerFFN(il, "", ActSiLU), il)
		inpL = b.CVec(b.Add(cur, ffnInp), il)
		b.Name(inpL, "l_out", il)
	}
	b.lmHead(b.LayerNormOut(inpL, NormRMS))
}

// bitnet norms once more before the output projection of attention and of the
// feed-forward block; the embeddings are its output matrix.
func bitnet(b *Builder) {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedKV()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA := inpL
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		q, k, v := b.QKV(cur, b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(0), il)
		q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
		cur = attn(Attn{Q: q, K: k, V: v}, il)
		cur = b.LayerNorm(cur, "attn_sub_norm", NormRMS, il)
		cur = b.project(cur, Attn{}.WithOut(b, il))
		b.LastRows(il, outIDs, &cur, &inpSA)
		ffnInp := b.Add(cur, inpSA)
		f := b.LayerFFN(il, "", ActSiLU)
		f.Down, f.DownB, f.DownS = nil, nil, nil
		cur = b.FeedForward(b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il), f, il)
		cur = b.LayerNorm(cur, "ffn_sub_norm", NormRMS, il)
		cur = b.MM(b.W(il, "ffn_down.weight"), cur, b.W(il, "ffn_down.scale"))
		inpL = b.Add(cur, ffnInp)
		b.Name(inpL, "l_out", il)
	}
	b.Logits(b.MM(b.TokEmbd(), b.LayerNormOut(inpL, NormRMS), nil))
}

func loadChameleon(k *Keys, h *model.HParams) { h.SwinNorm = k.Bool("swin_norm", false) }

// chameleon may norm after attention and feed-forward instead of before, and
// masks the logits of image tokens.
func chameleon(b *Builder) {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedKV()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA, cur := inpL, inpL
		if !b.SwinNorm {
			cur = b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		}
		q, k, v := b.QKV(cur, b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(0), il)
		if b.W(il, "attn_q_norm.weight") != nil {
			q = b.LayerNorm(q, "attn_q_norm", NormLayer, il)
		}
		if b.W(il, "attn_k_norm.weight") != nil {
			k = b.LayerNorm(k, "attn_k_norm", NormLayer, il)
		}
		q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
		a := Attn{Q: q, K: k, V: v}.WithOut(b, il)
		a.WOB = nil
		cur = attn(a, il)
		b.LastRows(il, outIDs, &cur, &inpSA)
		if b.SwinNorm {
			cur = b.LayerNorm(cur, "attn_norm", NormRMS, il)
		}
		ffnInp := b.Add(cur, inpSA)
		cur = ffnInp
		if !b.SwinNorm {
			cur = b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il)
		}
		cur = b.FeedForward(cur, b.LayerFFN(il, "", ActSiLU), il)
		if b.SwinNorm {
			cur = b.LayerNorm(cur, "ffn_norm", NormRMS, il)
		}
		inpL = b.CVec(b.Add(cur, ffnInp), il)
		b.Name(inpL, "l_out", il)
	}
	cur := b.MM(b.OutputW(), b.LayerNormOut(inpL, NormRMS), b.T("output.scale"))
	const firstImage, lastImage = 4, 8196
	mask := b.Clamp(b.Leaf("img_logits", cur.Type, lastImage-firstImage))
	b.Logits(b.Set1D(cur, mask, firstImage*cur.Nb[0]))
}

// cogvlm has a second set of weights for image tokens; text is the worst case
// that is reserved.
func cogvlm(b *Builder) {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedKV()
	d, n := int64(b.NEmbdHeadV(0)), int64(b.NTokens)
	for il := range b.NLayer() {
		inpSA := inpL
		qkv := b.MM(b.W(il, "attn_qkv.weight"), b.LayerNorm(inpSA, "attn_norm", NormRMS, il), nil)
		part := func(heads, at int) *graph.Tensor {
			return b.View3D(qkv, d, int64(heads), n, uint64(d)*4, qkv.Nb[1], uint64(at)*uint64(b.NEmbd)*4)
		}
		q, k, v := part(b.NHead(0), 0), part(b.NHeadKV(0), 1), part(b.NHeadKV(0), 2)
		q, k = b.Rot(q, pos, nil, int(d)), b.Rot(k, pos, nil, int(d))
		a := Attn{Q: q, K: k, V: v}.WithOut(b, il)
		a.WOB = nil
		ffnInp := b.Add(attn(a, il), inpSA)
		cur := b.FeedForward(b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il), b.LayerFFN(il, "", ActSiLU), il)
		inpL = b.Add(cur, ffnInp)
	}
	b.lmHead(b.LayerNormOut(inpL, NormRMS))
}

func (w *wants) deci() {
	w.ends()
	w.ropeFactors()
	for il := range w.NLayer() {
		nff := w.NFF(il)
		switch q := w.NEmbdHeadK(0) * w.NHead(il); {
		case w.NHeadKV(il) > 0:
			w.norm(unasked, il, "attn_norm")
			w.attn(il, q, w.NEmbdKGQA(il), w.NEmbdVGQA(il))
		case w.NHead(il) > 0:
			w.norm(unasked, il, "attn_norm")
			w.need(il, "attn_output.weight", w.NEmbd, w.NEmbd)
		}
		w.may(il, "attn_output.bias", w.NEmbd)
		if nff > 0 {
			w.norm(unasked, il, "ffn_norm")
			w.ffn(0, il, "", nff)
		}
		w.ffnBiases(il, nff)
	}
}

func (w *wants) bitnet() {
	stack{norms: "attn_norm attn_sub_norm ffn_norm", attn: func(w *wants, il int) {
		w.need(il, "attn_q.weight", w.NEmbd, w.NEmbd)
		w.need(il, "attn_k.weight", w.NEmbd, w.NEmbdVGQA(0))
		w.need(il, "attn_v.weight", w.NEmbd, w.NEmbdVGQA(0))
		w.need(il, "attn_output.weight", w.NEmbd, w.NEmbd)
		w.need(il, "ffn_sub_norm.weight", w.NFF(0))
	}}.ask(w)
}

func (w *wants) chameleon() {
	stack{output: maybe, attn: (*wants).square, more: each{(*wants).normsByHead, func(w *wants, il int) {
		w.may(il, "attn_q_norm.bias", w.NEmbdHeadK(0), w.NHead(0))
		w.may(il, "attn_k_norm.bias", w.NEmbdHeadK(0), w.NHeadKV(0))
	}}}.ask(w)
}

func (w *wants) cogvlm() {
	q := w.NEmbdHeadK(0) * w.NHead(0)
	stack{output: maybe, more: each{(*wants).freqs}, attn: func(w *wants, il int) {
		for _, of := range []string{"", "vis_"} {
			w.need(il, of+"attn_qkv.weight", w.NEmbd, 3*q)
			w.need(il, of+"attn_output.weight", q, w.NEmbd)
		}
		w.need(il, "vis_gate.weight", w.NEmbd, w.NFF(0))
		w.need(il, "vis_down.weight", w.NFF(0), w.NEmbd)
		w.need(il, "vis_up.weight", w.NEmbd, w.NFF(0))
	}}.ask(w)
}
