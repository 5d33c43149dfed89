package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// Multi-head latent attention: keys and values come from one compressed row
// for each token, kept as it is (the keys' decompression is folded into the
// queries) or decompressed before it is kept.
var _ = register(
	&Arch{Name: "deepseek2", Rope: model.RopeNorm, Load: loadDeepseek2, Build: deepseek2, Tensors: (*wants).deepseek2, Needs: "attention.layer_norm_rms_epsilon attention.kv_lora_rank expert_feed_forward_length expert_shared_count", Source: "src/models/deepseek2.cpp@v0.5.0"},
	&Arch{Name: "mistral4", Rope: model.RopeNorm, Quirk: Quirk{MoEDownF32: true}, Load: loadDeepseek2, Build: deepseek2, Tensors: (*wants).deepseek2, Needs: "attention.layer_norm_rms_epsilon attention.q_lora_rank attention.kv_lora_rank expert_feed_forward_length expert_shared_count", Source: "src/models/mistral4.cpp@v0.5.0"},
	&Arch{
		Name: "deepseek2-ocr", Rope: model.RopeNorm, Load: loadMoE(model.GatingSoftmax), Build: deepseek2OCR,
		Tensors: (*wants).deepseek2OCR,
		Needs:   "attention.layer_norm_rms_epsilon expert_feed_forward_length expert_shared_count",
		Source:  "src/models/deepseek2ocr.cpp, src/models/deepseek2.cpp@v0.5.0",
	},
	&Arch{Name: "plm", Rope: model.RopeNorm, Load: loadPLM, Build: plm, Tensors: (*wants).plm, Needs: "attention.layer_norm_rms_epsilon attention.kv_lora_rank", Source: "src/models/plm.cpp@v0.5.0"},
	&Arch{Name: "minicpm3", Rope: model.RopeNeoX, Load: loadMiniCPM3, Build: miniCPM3, Tensors: (*wants).miniCPM3, Needs: "attention.layer_norm_rms_epsilon attention.q_lora_rank attention.kv_lora_rank", Source: "src/models/minicpm3.cpp@v0.5.0"},
)

// loadMLA reads the widths of latent attention.
func loadMLA(k *Keys, h *model.HParams) {
	h.NLoraKV = k.Need("attention.kv_lora_rank")
	h.NEmbdHeadKMLA = k.Count("attention.key_length_mla", 0)
	h.NEmbdHeadVMLA = k.Count("attention.value_length_mla", 0)
}

// needUnrotated rejects keys that are rotated as a whole.
func needUnrotated(k *Keys, h *model.HParams) {
	if h.HeadKMLA() <= h.NRot(0) {
		k.fail("rope.dimension_count", "%d of %d values of a key, llama.cpp wants some that are not rotated", h.NRot(0), h.HeadKMLA())
	}
}

func loadDeepseek2(k *Keys, h *model.HParams) {
	vocab := k.Int("vocab_size", 0)
	if vocab == 0 {
		vocab = k.arrayLen("tokenizer.ggml.tokens")
	}
	n := h.NLayer()
	if lite := n == 26 || n == 27 || n == 48 && vocab == 128256; !lite {
		h.NLoraQ = k.Need("attention.q_lora_rank")
	}
	gating := model.GatingSoftmax
	if (n == 47 || n == 48) && vocab == 154880 { // GLM 4.7 Lite
		gating = model.GatingSigmoid
	}
	loadMLA(k, h)
	needUnrotated(k, h)
	loadMoE(gating)(k, h)
	h.AttnTempScale = k.Float("attention.temperature_scale", 0)
}

func loadPLM(k *Keys, h *model.HParams) { h.NLoraKV = k.Need("attention.kv_lora_rank") }

func loadMiniCPM3(k *Keys, h *model.HParams) {
	h.NLoraQ = k.Need("attention.q_lora_rank")
	h.NLoraKV = k.Need("attention.kv_lora_rank")
}

// latent are the widths of one layer's latent attention: a head's keys and
// values once decompressed, the rotated end of its keys, the compressed row.
type latent struct{ k, v, rope, rank, heads int64 }

func (b *Builder) latent() latent {
	return latent{
		k: int64(b.HeadKMLA()), v: int64(b.HeadVMLA()), rope: int64(b.NRot(0)),
		rank: int64(b.NLoraKV), heads: int64(b.NHead(0)),
	}
}

// latentQ appends the compressed queries of layer il, normed.
func (b *Builder) latentQ(cur *graph.Tensor, il int) *graph.Tensor {
	return b.Norm(b.MulMat(b.W(il, "attn_q_a.weight"), cur), b.W(il, "attn_q_a_norm.weight"), nil, NormRMS, il)
}

// expandedQ appends the queries of layer il, which are compressed on the way
// where the layer has no direct projection.
func (b *Builder) expandedQ(cur *graph.Tensor, il int) *graph.Tensor {
	if w := b.W(il, "attn_q.weight"); w != nil {
		return b.MulMat(w, cur)
	}
	return b.MulMat(b.W(il, "attn_q_b.weight"), b.latentQ(cur, il))
}

// latentKV appends the compressed row of layer il, normed, and the part of the
// keys that all heads share, not yet rotated.
func (b *Builder) latentKV(cur *graph.Tensor, w latent, il int) (kv, kPE *graph.Tensor) {
	all := b.MulMat(b.W(il, "attn_kv_a_mqa.weight"), cur)
	n := int64(b.NTokens)
	kv = b.View2D(all, w.rank, n, all.Nb[1], 0)
	kPE = b.View3D(all, w.rope, 1, n, all.Nb[1], all.Nb[1], f32Row(w.rank))
	return b.Norm(kv, b.W(il, "attn_kv_a_norm.weight"), nil, NormRMS, il), kPE
}

// absorbed returns attention over compressed rows: queries q of all heads pass
// the keys' decompression, and the compressed row kv serves as key and value.
// The shared key kPE is rotated; pos is nil where nothing is.
func (b *Builder) absorbed(q, kv, kPE, pos *graph.Tensor, w latent, il int) Attn {
	n := int64(b.NTokens)
	nope, row := w.k-w.rope, f32Row(w.k)
	qNope := b.View3D(q, nope, w.heads, n, row, row*uint64(w.heads), 0)
	qPE := b.View3D(q, w.rope, w.heads, n, row, row*uint64(w.heads), f32Row(nope))
	if pos != nil {
		qPE = b.Rot(qPE, pos, nil, b.NRot(0))
	}
	qNope = b.MulMat(b.W(il, "attn_k_b.weight"), b.Permute(qNope, 0, 2, 1, 3))
	qNope = b.Permute(qNope, 0, 2, 1, 3)
	v := b.Reshape3D(kv, w.rank, 1, n)
	return Attn{Q: b.Concat(qNope, qPE, 0), K: b.Concat(v, kPE, 0), V: v, VMLA: b.W(il, "attn_v_b.weight")}
}

// decompressed returns attention over decompressed keys and values; q is split
// into heads, the shared key kPE is rotated.
func (b *Builder) decompressed(q, kv, kPE, pos, factors *graph.Tensor, w latent, il int) Attn {
	n := int64(b.NTokens)
	nope := w.k - w.rope
	all := b.MulMat(b.W(il, "attn_kv_b.weight"), kv)
	row := f32Row(nope + w.v)
	kNope := b.View3D(all, nope, w.heads, n, row, row*uint64(w.heads), 0)
	v := b.Cont(b.View3D(all, w.v, w.heads, n, row, row*uint64(w.heads), f32Row(nope)))
	q = b.RopeSetOffset(b.Rot(q, pos, factors, b.NRot(0)), int(nope))
	k := b.Concat(kNope, b.Repeat4D(kPE, w.rope, w.heads, n, 1), 0)
	return Attn{Q: q, K: k, V: v}
}

// withOut adds the output projection of layer il, without its bias.
func (a Attn) withOut(b *Builder, il int) Attn {
	a = a.WithOut(b, il)
	a.WOB = nil
	return a
}

// A block appends one half of a layer.
type block func(cur *graph.Tensor, il int) *graph.Tensor

// trunk appends the layers of a pre-norm decoder with blocks of its own;
// residual is applied to what a block adds, nil for nothing.
func (b *Builder) trunk(inpL, outIDs *graph.Tensor, attn, ffn block, residual func(*graph.Tensor) *graph.Tensor) *graph.Tensor {
	for il := range b.NLayer() {
		inpSA := inpL
		cur := attn(b.LayerNorm(inpL, "attn_norm", NormRMS, il), il)
		b.LastRows(il, outIDs, &cur, &inpSA)
		if residual != nil {
			cur = residual(cur)
		}
		ffnInp := b.Add(cur, inpSA)
		cur = ffn(b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il), il)
		if residual != nil {
			cur = residual(cur)
		}
		inpL = b.CVec(b.Add(cur, ffnInp), il)
		b.Name(inpL, "l_out", il)
	}
	return inpL
}

// deepseekFFN is a dense block in the leading layers, and experts with a
// shared one in the others; where scaled is not set, the weights' own scales
// are left out.
func (b *Builder) deepseekFFN(scaled bool) block {
	dense := func(cur *graph.Tensor, suffix string, il int) *graph.Tensor {
		f := b.LayerFFN(il, suffix, ActSiLU)
		f.UpB, f.GateB, f.DownB = nil, nil, nil
		if !scaled {
			f.UpS, f.GateS, f.DownS = nil, nil, nil
		}
		return b.FeedForward(cur, f, il)
	}
	return func(cur *graph.Tensor, il int) *graph.Tensor {
		if il < b.NLayerDenseLead {
			return dense(cur, "", il)
		}
		m := b.routed(il, routing{})
		m.GateUp = b.W(il, "ffn_gate_up_exps.weight")
		if !scaled {
			m.UpS, m.GateS, m.DownS = nil, nil, nil
		}
		return b.Add(b.Experts(cur, m, il), dense(cur, "_shexp", il))
	}
}

// plainHead norms the trunk's output, the hidden state of NextN blocks, and
// appends the output matrix without its scale.
func (b *Builder) plainHead(cur *graph.Tensor) {
	cur = b.Norm(cur, b.OutputNorm(), nil, NormRMS, -1)
	b.HNextN(cur)
	b.Embd(cur)
	b.Logits(b.MulMat(b.OutputW(), cur))
}

func deepseek2(b *Builder) {
	if b.U.Kind == GraphMTP {
		latentMTP(b, b.deepseekFFN(false))
		return
	}
	w := b.latent()
	n := int64(b.NTokens)
	inpL := b.InpEmbd()
	var scale *graph.Tensor
	if b.AttnTempScale != 0 {
		scale = b.InpAttnScale()
	}
	pos := b.InpPos()
	attn := b.cachedMLA()
	outIDs := b.InpOutIDs()
	cur := b.trunk(inpL, outIDs, func(cur *graph.Tensor, il int) *graph.Tensor {
		q := b.Reshape3D(b.expandedQ(cur, il), w.k, w.heads, n)
		kv, kPE := b.latentKV(cur, w, il)
		kPE = b.Rot(kPE, pos, nil, b.NRot(0))
		var a Attn
		if b.IsMLA() {
			a = b.absorbed(q, kv, kPE, pos, w, il)
		} else {
			a = b.decompressed(q, kv, kPE, pos, nil, w, il)
		}
		if scale != nil {
			a.Q = b.Mul(a.Q, scale)
		}
		return attn(a.withOut(b, il), il)
	}, b.deepseekFFN(false), nil)
	b.plainHead(cur)
}

// cachedMLA attends over the one cache, whose keys serve as values where
// decompression is absorbed.
func (b *Builder) cachedMLA() attend {
	if !b.IsMLA() {
		return b.cachedKV()
	}
	in := b.InpK()
	return func(a Attn, il int) *graph.Tensor { return b.AttendK(in, a, il) }
}

// latentMTP drafts with a NextN block: a layer with latent attention, without
// an indexer even where the trunk has one.
func latentMTP(b *Builder, ffn block) {
	b.onlyNextN()
	if !b.IsMLA() {
		b.Fail("llama.cpp builds an MTP graph for latent attention only")
	}
	w := b.latent()
	inpSA, il := b.nextN(NormRMS)
	pos := b.InpPos()
	outIDs := b.InpOutIDs()
	in := b.InpK()
	cur := b.LayerNorm(inpSA, "attn_norm", NormRMS, il)
	q := b.expandedQ(cur, il)
	kv, kPE := b.latentKV(cur, w, il)
	a := b.absorbed(q, kv, b.Rot(kPE, pos, nil, b.NRot(0)), pos, w, il)
	cur = b.Add(b.AttendK(in, a.withOut(b, il), il), inpSA)
	cur = b.Add(ffn(b.LayerNorm(cur, "ffn_norm", NormRMS, il), il), cur)
	b.Logits(b.nextNHead(cur, outIDs, b.OutputNorm(), NormRMS, il))
}

// deepseek2OCR has plain attention.
func deepseek2OCR(b *Builder) {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedKV()
	outIDs := b.InpOutIDs()
	d := int(b.per(b.NEmbd, b.NHead(0), "attention.head_count"))
	cur := b.trunk(inpL, outIDs, func(cur *graph.Tensor, il int) *graph.Tensor {
		q, k, v := b.QKV(cur, d, b.NHead(0), b.NHead(0), il)
		rope := func(t *graph.Tensor) *graph.Tensor { return b.Rope(t, pos, nil, d, int(model.RopeNeoX)) }
		return attn(Attn{Q: rope(q), K: rope(k), V: v}.withOut(b, il), il)
	}, b.deepseekFFN(false), nil)
	b.plainHead(cur)
}

func plm(b *Builder) {
	w := b.latent()
	n := int64(b.NTokens)
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedKV()
	outIDs := b.InpOutIDs()
	cur := b.trunk(inpL, outIDs, func(cur *graph.Tensor, il int) *graph.Tensor {
		q := b.Reshape3D(b.MulMat(b.W(il, "attn_q.weight"), cur), w.k, w.heads, n)
		kv, kPE := b.latentKV(cur, w, il)
		a := b.decompressed(q, kv, b.Rot(kPE, pos, nil, b.NRot(0)), pos, nil, w, il)
		a.V = b.View2D(a.V, w.v*w.heads, n, f32Row(w.v*w.heads), 0)
		return attn(a.withOut(b, il), il)
	}, func(cur *graph.Tensor, il int) *graph.Tensor {
		f := FFN{Up: b.W(il, "ffn_up.weight"), Down: b.W(il, "ffn_down.weight"), Act: ActReLUSqr, Seq: true}
		return b.FeedForward(cur, f, il)
	}, nil)
	cur = b.Norm(cur, b.OutputNorm(), nil, NormRMS, -1)
	b.Embd(cur)
	b.Logits(b.MM(b.OutputW(), cur, b.T("output.scale")))
}

// miniCPM3 scales embeddings, residuals and output.
func miniCPM3(b *Builder) {
	w := b.latent()
	n := int64(b.NTokens)
	inpL := b.Scale(b.InpEmbd())
	pos := b.InpPos()
	attn := b.cachedKV()
	outIDs := b.InpOutIDs()
	cur := b.trunk(inpL, outIDs, func(cur *graph.Tensor, il int) *graph.Tensor {
		factors := b.RopeFactors(il)
		q := b.MulMat(b.W(il, "attn_q_b.weight"), b.latentQ(cur, il))
		q = b.Reshape3D(q, w.k, w.heads, n)
		kv, kPE := b.latentKV(cur, w, il)
		a := b.decompressed(q, kv, b.Rot(kPE, pos, factors, b.NRot(0)), pos, factors, w, il)
		return attn(a.withOut(b, il), il)
	}, func(cur *graph.Tensor, il int) *graph.Tensor {
		return b.FeedForward(cur, FFN{Up: b.W(il, "ffn_up.weight"), Gate: b.W(il, "ffn_gate.weight"), Down: b.W(il, "ffn_down.weight")}, il)
	}, b.Scale)
	cur = b.Norm(cur, b.OutputNorm(), nil, NormRMS, -1)
	b.Embd(cur)
	b.Logits(b.MM(b.OutputW(), b.Scale(cur), b.T("output.scale")))
}

// blocks calls block for each layer with its flags.
func (w *wants) blocks(block func(flags, il int)) {
	trunk, next := w.parts()
	for il := range w.NLayerAll {
		if il < w.NLayer() {
			block(trunk, il)
		} else {
			block(next, il)
		}
	}
}

// nextNInput asks for what joins the next tokens with the hidden state.
func (w *wants) nextNInput(flags, il int) {
	w.tensor(flags, il, "nextn.eh_proj.weight", 2*w.NEmbd, w.NEmbd)
	w.tensor(flags, il, "nextn.enorm.weight", w.NEmbd)
	w.tensor(flags, il, "nextn.hnorm.weight", w.NEmbd)
}

// latentQ asks for compressed queries of n values.
func (w *wants) latentQ(flags, il, n int) {
	w.tensor(flags, il, "attn_q_a.weight", w.NEmbd, w.NLoraQ)
	w.tensor(flags, il, "attn_q_a_norm.weight", w.NLoraQ)
	w.tensor(flags, il, "attn_q_b.weight", w.NLoraQ, n)
}

// anyQ asks for queries of n values, which are compressed where the model says
// to what width.
func (w *wants) anyQ(flags, il, n int) {
	if w.NLoraQ > 0 {
		w.latentQ(flags, il, n)
	} else {
		w.tensor(flags, il, "attn_q.weight", w.NEmbd, n)
	}
}

// latent returns the widths of latent attention.
func (w *wants) latent() latent {
	return latent{
		k: int64(w.HeadKMLA()), v: int64(w.HeadVMLA()), rope: int64(w.NRot(0)),
		rank: int64(w.NLoraKV), heads: int64(w.NHead(0)),
	}
}

// latentKV asks for compressed rows and the output matrix.
func (w *wants) latentKV(flags, il int, l latent) {
	w.tensor(flags, il, "attn_kv_a_mqa.weight", w.NEmbd, int(l.rank+l.rope))
	w.tensor(flags, il, "attn_kv_a_norm.weight", int(l.rank))
	w.tensor(flags, il, "attn_output.weight", int(l.heads*l.v), w.NEmbd)
}

// absorbed asks for the decompression of keys and of values, head by head.
func (w *wants) absorbed(flags, il int, l latent) {
	w.tensor(flags, il, "attn_k_b.weight", int(l.k-l.rope), int(l.rank), int(l.heads))
	w.tensor(flags, il, "attn_v_b.weight", int(l.rank), int(l.v), int(l.heads))
}

// decompressed asks for the decompression of keys and values together, which
// the file may lack with the flag optional; it reports whether it is there.
func (w *wants) decompressed(flags, il int, l latent) bool {
	return w.tensor(flags, il, "attn_kv_b.weight", int(l.rank), int(l.heads*(l.k-l.rope+l.v)))
}

// deepseekFFN asks for a dense block in the leading layers and experts with a
// shared one in the others; bias flags the router's bias, fused experts may have
// their gate and up projections in one.
func (w *wants) deepseekFFN(flags, bias, il int, fused bool) {
	if il < w.NLayerDenseLead {
		w.ffn(flags, il, "", w.NFF(0))
		return
	}
	w.tensor(flags|bias, il, "exp_probs_b.bias", w.NExpert)
	if fused {
		w.tensor(flags, il, "ffn_gate_inp.weight", w.NEmbd, w.NExpert)
		w.tensor(flags, il, "ffn_down_exps.weight", w.NFFExp(0), w.NEmbd, w.NExpert)
		w.gateUpExps(flags, il, w.NEmbd, w.NFFExp(0), w.NExpert)
	} else {
		w.experts(flags, il, w.NFFExp(0))
	}
	w.ffn(flags, il, "_shexp", w.NFFExp(0)*w.NExpertShared)
}

func (w *wants) deepseek2() {
	w.ends()
	l := w.latent()
	w.blocks(func(flags, il int) {
		w.tensor(flags, il, "attn_norm.weight", w.NEmbd)
		w.anyQ(flags, il, int(l.heads*l.k))
		w.latentKV(flags, il, l)
		if w.IsMLA() {
			w.absorbed(flags, il, l)
		} else {
			w.decompressed(flags, il, l)
		}
		w.tensor(flags, il, "ffn_norm.weight", w.NEmbd)
		w.deepseekFFN(flags, optional, il, true)
		if il >= w.NLayer() {
			w.nextN(flags, flags, il)
		}
	})
}

func (w *wants) deepseek2OCR() {
	w.ends()
	for il := range w.NLayer() {
		w.need(il, "attn_norm.weight", w.NEmbd)
		w.qkv(0, il, w.NEmbd, w.NEmbd, w.NEmbd, w.NEmbd)
		w.need(il, "attn_output.weight", w.NEmbd, w.NEmbd)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.deepseekFFN(0, optional, il, true)
	}
}

func (w *wants) plm() {
	w.need(-1, "token_embd.weight", w.NEmbd, w.nVocab)
	w.need(-1, "output_norm.weight", w.NEmbd)
	l := w.latent()
	for il := range w.NLayer() {
		w.need(il, "attn_norm.weight", w.NEmbd)
		w.need(il, "attn_q.weight", w.NEmbd, int(l.heads*l.k))
		w.latentKV(0, il, l)
		w.decompressed(0, il, l)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.need(il, "ffn_down.weight", w.NFF(0), w.NEmbd)
		w.need(il, "ffn_up.weight", w.NEmbd, w.NFF(0))
	}
}

func (w *wants) miniCPM3() {
	w.ends()
	l := w.latent()
	w.may(-1, "rope_factors_long.weight", int(l.rope/2))
	w.may(-1, "rope_factors_short.weight", int(l.rope/2))
	for il := range w.NLayer() {
		w.need(il, "attn_norm.weight", w.NEmbd)
		w.latentQ(0, il, int(l.heads*l.k))
		w.latentKV(0, il, l)
		w.decompressed(0, il, l)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.ffn(0, il, "", w.NFF(0))
	}
}
