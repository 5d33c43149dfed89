package arch

import (
	"weigh/formats"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// Drafts of speculative decoding, which lean on the model they draft for: its
// embeddings, its output matrix, or its caches.
var _ = register(
	&Arch{
		Name: "gemma4-assistant", Rope: model.RopeNeoX, NextN: NextNKeep, Load: loadGemma4Assistant, Memory: targetsCaches,
		Build: gemma4Assistant, Layer: fullAttnFactors, Tensors: (*wants).gemma4Assistant, Needs: "attention.layer_norm_rms_epsilon attention.sliding_window attention.key_length_swa attention.value_length_swa attention.sliding_window_pattern", Source: "src/models/gemma4-assistant.cpp@v0.5.0",
	},
	&Arch{
		Name: "eagle3", Rope: model.RopeNorm, Tie: TieNone, Load: loadEagle3, Build: eagle3,
		Tensors: (*wants).eagle3,
		Needs:   "attention.layer_norm_rms_epsilon target_hidden_size",
		Source:  "src/models/eagle3.cpp@v0.5.0",
	},
)

// SpecTypes returns the kind of speculative decoding (--spec-type) that a draft's
// file stands for.
//
// Source: common/speculative.cpp@v0.5.0, common_speculative_types_from_gguf.
func SpecTypes(m *model.Model) []string {
	switch {
	case m.Arch == "dflash" && m.Index.Global("markov_w1.weight") >= 0:
		return []string{"draft-dspark"}
	case m.Arch == "dflash":
		return []string{"draft-dflash"}
	case m.Index.Layer(m.NLayerAll-1, "nextn.eh_proj.weight") >= 0:
		return []string{"draft-mtp"}
	}
	return nil
}

// target returns a tensor of the model drafted for as its layer il sees it, nil
// when there is none.
func (b *Builder) target(name string, il int) *graph.Tensor {
	if b.C.Target == nil {
		b.Fail("this is a draft without %s of its own: estimate it with the model that it drafts for", name)
	}
	i := b.C.Target.Index.Global(name)
	if i < 0 {
		return nil
	}
	return b.leaf(&b.C.Target.Tensors[i], b.place.TargetWeight(i, il))
}

// targetEmbd returns the embeddings of the model drafted for.
func (b *Builder) targetEmbd() *graph.Tensor { return b.target("token_embd.weight", -1) }

// targetOutput returns the output matrix of the model drafted for, and its
// scale.
func (b *Builder) targetOutput() (w, scale *graph.Tensor) {
	if w = b.target("output.weight", -1); w != nil {
		return w, b.target("output.scale", -1)
	}
	return b.target("token_embd.weight", b.C.Target.NLayerAll), nil
}

// unmap spreads values of the draft's own tokens over the whole vocabulary,
// where it has fewer.
func (b *Builder) unmap(cur *graph.Tensor) *graph.Tensor {
	ids := b.T("d2t")
	if ids == nil {
		return cur
	}
	if ids.Type != formats.I64 {
		b.Fail("d2t is of type %s, llama.cpp wants %s", ids.Type, formats.I64)
	}
	own, n, all := cur.Ne[0], cur.Ne[1], int64(b.M.NVocab)
	full := b.Fill(b.Leaf("", formats.F32, 1, all, n))
	full = b.SetRows(full, b.Reshape3D(cur, 1, own, n), b.Reshape3D(ids, own, 1, 1))
	return b.Reshape2D(full, all, n)
}

func loadGemma4Assistant(k *Keys, h *model.HParams) {
	h.NEmbdInpImpl = h.NEmbdOut()
	k.window(h, "attention.sliding_window")
	k.windowPattern(h)
	h.NEmbdHeadKSWA, h.NEmbdHeadVSWA = k.Need("attention.key_length_swa"), k.Need("attention.value_length_swa")
	if h.NEmbdHeadK(0) != h.NEmbdHeadV(0) || h.NEmbdHeadKSWA != h.NEmbdHeadVSWA {
		k.fail("attention.value_length", "keys and values of different widths, llama.cpp wants the same")
	}
	if h.NEmbdOut() == h.NEmbd {
		k.fail("embedding_length_out", "%d, llama.cpp wants the width of the model drafted for", h.NEmbdOut())
	}
}

// targetsCaches reads the last two caches of the target, one of each kind, and
// keeps none.
func targetsCaches(m *model.Model, c *Context) *Memory {
	t := c.TargetMemory
	if t == nil || t.KV == nil || t.SWA == nil {
		panic(&graph.ShapeError{Msg: "this is a draft that reads the caches of the Gemma 4 model it drafts for: estimate it with that model"})
	}
	n := c.Target.NLayer()
	part := func(other *Cache, swa bool, back int) *Cache {
		return NewCache(m, c, CacheOptions{
			Other:  other,
			Filter: func(il int) bool { return m.IsSWA(il) == swa && (m.NLayer() == 0 || c.MTP == (il >= m.NLayer())) },
			Share:  func(int) int { return n - back },
		})
	}
	return &Memory{Class: "iswa", KV: part(t.KV, false, 1), SWA: part(t.SWA, true, 2)}
}

func gemma4Assistant(b *Builder) {
	n := int64(b.NTokens)
	tokens := b.InputT("inp_tokens", formats.I32, n)
	hidden := b.InputT("inp_h", formats.F32, int64(b.NEmbdInp()), n)
	x := b.Scale(b.GetRows(b.targetEmbd(), tokens))
	inpL := b.MulMat(b.T("nextn.pre_projection.weight"), b.Concat(x, hidden, 0))
	iswa := b.InpISWA()
	pos := b.InpPos()
	outIDs := b.InpOutIDs()
	for il := range b.NLayerNext {
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		q := b.Reshape3D(b.MM(b.W(il, "attn_q.weight"), cur, nil), int64(b.NEmbdHeadK(il)), int64(b.NHead(il)), n)
		q = b.LayerNorm(q, "attn_q_norm", NormRMS, il)
		var factors *graph.Tensor
		if !b.IsSWA(il) {
			factors = b.Shared("rope_freqs.weight", il)
		}
		q = b.Rot(q, pos, factors, b.NRot(il))
		cur = b.AttendISWA(iswa, Attn{Q: q, WO: b.W(il, "attn_output.weight")}, il)
		if il == b.NLayerNext-1 {
			cur, inpL = b.GetRows(cur, outIDs), b.GetRows(inpL, outIDs)
		}
		attn := b.Add(b.LayerNorm(cur, "post_attention_norm", NormRMS, il), inpL)
		cur = b.Add(gegluNormed(b, b.LayerNorm(attn, "ffn_norm", NormRMS, il), il), attn)
		inpL = b.Mul(cur, b.W(il, "layer_output_scale.weight"))
	}
	cur := b.Norm(inpL, b.OutputNorm(), nil, NormRMS, -1)
	logits := b.MM(b.OutputW(), cur, nil)
	next := b.MulMat(b.T("nextn.post_projection.weight"), cur)
	b.HNextN(next)
	b.Logits(logits)
	b.Expand(next)
}

func loadEagle3(k *Keys, h *model.HParams) {
	if n := len(k.Ints("target_layers")); n != 3 {
		k.fail("target_layers", "%d layers, llama.cpp wants 3", n)
	}
	if h.NLayer() != 1 {
		k.fail("block_count", "%d layers, llama.cpp wants one", h.NLayer())
	}
	h.NEmbdInpEncImpl = 3 * k.Need("target_hidden_size")
	h.NormBeforeResidual = k.Bool("norm_before_residual", false)
	h.NormBeforeFC = k.Bool("norm_before_fc", false)
}

// eagle3 is one layer on the next tokens beside the hidden state of the model
// drafted for.
func eagle3(b *Builder) {
	n, d := int64(b.NTokens), int64(b.NEmbdHeadV(0))
	tokens := b.GetRows(b.draftEmbd(), b.InputT("inp_tokens", formats.I32, n))
	hidden := b.InputT("inp_g_embeddings", formats.F32, int64(b.NEmbd), n)
	pos := b.InpPos()
	attn := b.cachedKV()

	tokens = b.LayerNorm(tokens, "attn_norm", NormRMS, 0)
	normed := b.Norm(hidden, b.W(0, "attn_norm_2.weight"), nil, NormRMS, -1)
	inpSA := hidden
	if b.NormBeforeResidual {
		inpSA = normed
	}
	cur := b.Concat(tokens, normed, 0)
	q, k, v := b.MulMat(b.W(0, "attn_q.weight"), cur), b.MulMat(b.W(0, "attn_k.weight"), cur), b.MulMat(b.W(0, "attn_v.weight"), cur)
	q, k, v = b.Reshape3D(q, d, int64(b.NHead(0)), n), b.Reshape3D(k, d, int64(b.NHeadKV(0)), n), b.Reshape3D(v, d, int64(b.NHeadKV(0)), n)
	f := b.RopeFactors(0)
	q, k = b.Rot(q, pos, f, b.NRot(0)), b.Rot(k, pos, f, b.NRot(0))
	ffnInp := b.Add(attn(Attn{Q: q, K: k, V: v, WO: b.W(0, "attn_output.weight")}, 0), inpSA)
	cur = bertFFN(ActSiLU, false)(b, b.LayerNorm(ffnInp, "ffn_norm", NormRMS, 0), 0)
	cur = b.Add(cur, ffnInp)
	b.HNextN(cur)
	cur = b.Norm(cur, b.OutputNorm(), nil, NormRMS, -1)
	out := b.T("output.weight")
	if out == nil {
		out, _ = b.targetOutput()
	}
	b.Logits(b.unmap(b.MM(out, cur, nil)))
}

func (w *wants) gemma4Assistant() {
	w.need(-1, "token_embd.weight", w.NEmbd, w.nVocab)
	w.need(-1, "output_norm.weight", w.NEmbd)
	w.may(-1, "masked_embd_centroids.weight")
	w.may(-1, "masked_embd_ordering")
	w.need(-1, "nextn.post_projection.weight", w.NEmbd, w.NEmbdInp())
	for il := range w.NLayerNext {
		if il == 0 {
			w.need(-1, "nextn.pre_projection.weight", 2*w.NEmbdInp(), w.NEmbd)
		}
		d := w.NEmbdHeadK(il)
		w.need(il, "attn_norm.weight", w.NEmbd)
		w.need(il, "attn_q.weight", w.NEmbd, d*w.NHead(il))
		w.need(il, "attn_output.weight", d*w.NHead(il), w.NEmbd)
		w.need(il, "attn_q_norm.weight", d)
		w.need(il, "post_attention_norm.weight", w.NEmbd)
		w.need(il, "layer_output_scale.weight", 1)
		if !w.IsSWA(il) {
			w.need(-1, "rope_freqs.weight", d/2)
		}
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.ffn(0, il, "", w.NFF(il))
		w.need(il, "post_ffw_norm.weight", w.NEmbd)
	}
}

func (w *wants) eagle3() {
	own := w.dim(-1, "d2t", 0, w.nVocab) // tokens of the draft
	if w.has(-1, "d2t") {
		w.need(-1, "d2t", own)
	}
	w.need(-1, "fc.weight", w.NEmbdInpEnc(), w.NEmbd)
	if w.NormBeforeFC {
		w.need(-1, "enc.output_norm.weight", w.NEmbdInpEnc())
	}
	w.need(-1, "output_norm.weight", w.NEmbd)
	w.may(-1, "output.weight", w.NEmbd, own)
	w.may(-1, "token_embd.weight", w.NEmbd, w.dim(-1, "token_embd.weight", 1, 0))
	w.may(-1, "rope_freqs.weight", w.NRot(0)/2)
	for il := range w.NLayer() {
		q := w.qWidth()
		w.need(il, "attn_norm.weight", w.NEmbd)
		w.need(il, "attn_norm_2.weight", w.NEmbd)
		w.need(il, "attn_q.weight", 2*w.NEmbd, q)
		w.need(il, "attn_k.weight", 2*w.NEmbd, w.NEmbdKGQA(0))
		w.need(il, "attn_v.weight", 2*w.NEmbd, w.NEmbdVGQA(0))
		w.need(il, "attn_output.weight", q, w.NEmbd)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.ffn(0, il, "", w.NFF(0))
	}
}
