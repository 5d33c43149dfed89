package arch

import (
	"weigh/formats"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// DFlash drafts a block of tokens at once, on hidden states of the target that
// it keeps as keys and values. DSpark adds a Markov head, and may be made of
// DeepSeek-V4's layers.
var _ = register(&Arch{
	Name: "dflash", Rope: model.RopeNeoX, Tie: TieCopy, Quirk: Quirk{ClampedSwiGLU: true, ClampedMoE: true},
	Load: loadDflash, Build: dflash, Budget: dflashBudget, Tensors: (*wants).dflash, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/dflash.cpp@v0.5.0",
})

func loadDflash(k *Keys, h *model.HParams) {
	h.EmbeddingScale = k.Float("embedding_scale", 0)
	h.HiddenAct = k.Str("hidden_activation", "silu")
	switch h.HiddenAct {
	case "silu", "gelu", "gelu_pytorch_tanh":
	default:
		k.fail("hidden_activation", "%.40q, llama.cpp knows silu and gelu", h.HiddenAct)
	}
	h.LogitScale = k.Float("logit_scale", 0)
	h.FinalSoftcap = k.Float("final_logit_softcapping", 0)
	h.DflashBlockSize = k.Int("block_size", 0)
	h.DflashConvKernel, h.DflashConvGroup = k.Int("conv_kernel_size", 0), k.Int("conv_group_size", 0)
	h.DflashSelectorRank, h.DflashSelectorTopK = k.Int("selector_rank", 0), k.Int("selector_top_k", 0)
	h.NEmbdInpEncImpl = len(k.Ints("target_layers")) * h.NEmbd
	if h.NEmbdInpEncImpl == 0 {
		k.fail("target_layers", "missing: the target's layers that the draft reads")
	}
	if k.index.Global("selector_hidden.weight") >= 0 {
		checkSelector(k, h)
	}
	sections := k.PerLayer("rope.dimension_sections", 4, 0)
	copy(h.RopeSections[:], sections)
	if h.DSV4HCMult = k.Int("hyper_connection.count", 0); h.DSV4HCMult > 0 {
		h.RopeType = model.RopeNorm
		k.must("expert_feed_forward_length expert_shared_count expert_weights_scale expert_weights_norm expert_gating_func swiglu_clamp_exp hyper_connection.epsilon")
		loadV4Layers(k, h)
		if h.NSWA < 1 {
			k.fail("attention.sliding_window", "%d, want at least 1", h.NSWA)
		}
		for il, r := range k.Ints("attention.compress_ratios") {
			if r != 0 && il < h.NLayerAll {
				k.fail("attention.compress_ratios", "%d in layer %d, llama.cpp wants none in a draft", r, il)
			}
		}
	} else if n := k.Int("attention.sliding_window", 0); n > 0 {
		h.NSWA, h.SWAType = n, model.SWAStandard
		k.windowPattern(h)
	}
	if h.RopeSections != [4]int{} {
		h.RopeType = model.RopeMRoPE
	}
}

// checkSelector rejects a selector without the widths it needs.
func checkSelector(k *Keys, h *model.HParams) {
	for _, of := range []struct {
		key string
		n   int
	}{
		{"selector_rank", h.DflashSelectorRank},
		{"block_size", h.DflashBlockSize},
		{"selector_top_k", h.DflashSelectorTopK},
		{"conv_kernel_size", h.DflashConvKernel},
		{"conv_group_size", h.DflashConvGroup},
	} {
		if of.n < 1 {
			k.fail(of.key, "%d, want at least 1 for a draft with a selector", of.n)
			return
		}
	}
	if h.NEmbd%h.DflashConvGroup != 0 {
		k.fail("conv_group_size", "%d does not divide a width of %d", h.DflashConvGroup, h.NEmbd)
	}
	if n := h.DflashSelectorTopK; n*(n+1) > h.NEmbd {
		k.fail("selector_top_k", "%d, too many for a width of %d", n, h.NEmbd)
	}
}

func dflashBudget(m *model.Model) (perToken, perTensor int) {
	switch {
	case m.DSV4HCMult > 0:
		return deltaBudget(m)
	case m.DflashSelectorRank > 0:
		return 0, 12
	}
	return 0, 8
}

func dflash(b *Builder) {
	pos := b.InpPos()
	if b.DSV4HCMult > 0 {
		dflashV4(b, pos)
		return
	}
	attn := b.attendKV()
	tokens := b.InputT("inp_tokens", formats.I32, int64(b.NTokens))
	inpL := b.GetRows(b.draftEmbd(), tokens)
	if b.EmbeddingScale != 0 {
		inpL = b.Scale(inpL)
	}
	act := ActGELU
	if b.HiddenAct == "silu" {
		act = ActSiLU
	}
	for il := range b.NLayer() {
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		cur, after := b.blockConv(cur, "attn_conv", il)
		cur = after(attn(b.dflashQKV(cur, pos, il), il))
		cur = b.optionalNorm(cur, "post_attention_norm.weight", il)
		ffnInp := b.Add(cur, inpL)
		cur = b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il)
		cur, after = b.blockConv(cur, "ffn_conv", il)
		cur = after(b.FeedForward(cur, b.LayerFFN(il, "", act), il))
		cur = b.Add(b.optionalNorm(cur, "post_ffw_norm.weight", il), ffnInp)
		if s := b.W(il, "layer_output_scale.weight"); s != nil {
			cur = b.Mul(cur, s)
		}
		inpL = cur
	}
	cur := b.Norm(inpL, b.OutputNorm(), nil, NormRMS, -1)
	b.Embd(cur)
	w, scale := b.draftOutput()
	cur = b.MM(w, cur, scale)
	if b.T("selector_hidden.weight") != nil {
		if b.LogitScale != 0 {
			cur = b.Scale(cur)
		}
		if b.FinalSoftcap > 0 {
			cur = b.softcap(cur)
		}
	}
	b.Logits(b.unmap(cur))
	b.markovHead(tokens)
	b.selector(tokens)
}

// draftEmbd returns the draft's own embeddings, or the target's.
func (b *Builder) draftEmbd() *graph.Tensor {
	if t := b.TokEmbd(); t != nil {
		return t
	}
	return b.targetEmbd()
}

// draftOutput returns the draft's own output matrix and its scale, or the
// target's.
func (b *Builder) draftOutput() (w, scale *graph.Tensor) {
	if w = b.OutputW(); w != nil {
		return w, b.T("output.scale")
	}
	return b.targetOutput()
}

func (b *Builder) optionalNorm(cur *graph.Tensor, name string, il int) *graph.Tensor {
	if w := b.W(il, name); w != nil {
		cur = b.Norm(cur, w, nil, NormRMS, il)
	}
	return cur
}

func (b *Builder) dflashQKV(cur, pos *graph.Tensor, il int) Attn {
	d, n := int64(b.NEmbdHeadV(0)), int64(b.NTokens)
	one := func(name string) *graph.Tensor { return b.MM(b.W(il, name+".weight"), cur, b.W(il, name+".scale")) }
	split := func(t *graph.Tensor, heads int) *graph.Tensor { return b.Reshape3D(t, d, int64(heads), n) }
	rot := func(t *graph.Tensor) *graph.Tensor {
		if b.RopeType == model.RopeMRoPE {
			return b.RopeMulti(t, pos, nil, b.NRot(0), int(b.RopeType))
		}
		return b.Rot(t, pos, b.Shared("rope_freqs.weight", 0), b.NRot(0))
	}
	q, k := one("attn_q"), one("attn_k")
	a := Attn{Sinks: b.W(il, "attn_sinks.weight")}.WithOut(b, il)
	a.WOB = nil
	if b.W(il, "attn_v.weight") != nil {
		a.V = split(one("attn_v"), b.NHeadKV(0))
	} else {
		a.V = b.RMSNorm(split(k, b.NHeadKV(0)))
	}
	q, k = split(q, b.NHead(0)), split(k, b.NHeadKV(0))
	a.Q, a.K = rot(b.LayerNorm(q, "attn_q_norm", NormRMS, il)), rot(b.LayerNorm(k, "attn_k_norm", NormRMS, il))
	return a
}

// blockConv convolves along the tokens of each block with weights that depend
// on cur, before a part of a layer and, by after, behind it. Without weights
// for it both return what they are given. (build_dflash2_conv)
func (b *Builder) blockConv(cur *graph.Tensor, name string, il int) (before *graph.Tensor, after func(*graph.Tensor) *graph.Tensor) {
	w := b.W(il, name+"_proj.weight")
	if w == nil {
		return cur, func(t *graph.Tensor) *graph.Tensor { return t }
	}
	if b.DflashConvKernel < 1 || b.DflashConvGroup < 1 || int(cur.Ne[0])%b.DflashConvGroup != 0 {
		b.Fail("a convolution of %d taps in groups of %d does not fit rows of %d", b.DflashConvKernel, b.DflashConvGroup, cur.Ne[0])
	}
	dynamic := b.MM(w, cur, nil)
	base := b.need(il, name+"_base")
	side := func(i int) func(*graph.Tensor) *graph.Tensor {
		return func(t *graph.Tensor) *graph.Tensor { return b.convSide(t, dynamic, base, uint64(i)) }
	}
	return side(0)(cur), side(1)
}

func (b *Builder) convSide(hidden, dynamic, base *graph.Tensor, side uint64) *graph.Tensor {
	width, n, blocks := hidden.Ne[0], hidden.Ne[1], int64(b.U.NSeqs)
	taps, group := int64(b.DflashConvKernel), int64(b.DflashConvGroup)
	groups, size := width/group, n/blocks
	if !hidden.Contiguous() {
		hidden = b.Cont2D(hidden, width, n)
	}
	rows := b.Reshape3D(hidden, width, size, blocks)
	c := b.Reshape4D(dynamic, groups, taps, 2, n)
	c = b.Cont(b.View3D(c, groups, taps, n, c.Nb[1], c.Nb[3], side*c.Nb[2]))
	c = b.Repeat4D(b.Reshape4D(c, 1, groups, taps, n), group, groups, taps, n)
	weights := b.Add(c, b.Reshape4D(b.View1D(base, width*taps, side*base.Nb[2]), group, groups, taps, 1))
	var out *graph.Tensor
	for tap := range taps {
		values := rows
		if tap > 0 {
			values = b.Fill(b.Leaf("", hidden.Type, width, min(tap, size), blocks))
			if tap < size {
				values = b.Concat(values, b.View3D(rows, width, size-tap, blocks, rows.Nb[1], rows.Nb[2], 0), 1)
			}
		}
		values = b.Reshape2D(values, width, n)
		w := b.View4D(weights, group, groups, 1, n, weights.Nb[1], weights.Nb[2], weights.Nb[3], uint64(tap)*weights.Nb[2])
		term := b.Mul(b.Reshape2D(b.Cont(w), width, n), values)
		if out == nil {
			out = term
		} else {
			out = b.Add(out, term)
		}
	}
	return out
}

// join appends t to the columns of all, which may be none yet.
func (b *Builder) join(all, t *graph.Tensor) *graph.Tensor {
	if all == nil {
		return t
	}
	return b.Concat(all, t, 1)
}

// markovHead biases the logits of each position by the token before it, and
// scores the confidence in them. (build_dspark_markov_head)
func (b *Builder) markovHead(tokens *graph.Tensor) {
	w1, w2, conf := b.T("markov_w1.weight"), b.T("markov_w2.weight"), b.T("conf_proj.weight")
	base, blocks := b.logits, int64(b.U.NSeqs)
	size := int64(b.NTokens) / blocks
	if w1 == nil || size > int64(b.DflashBlockSize) {
		return
	}
	vocab := base.Ne[0]
	stride := uint64(size) * base.Nb[1]
	at := func(i int64) *graph.Tensor { return b.View2D(base, vocab, blocks, stride, uint64(i)*base.Nb[1]) }
	prev := b.Cont1D(b.View2D(tokens, 1, blocks, uint64(size)*tokens.Nb[0], 0), blocks)
	var all, confs *graph.Tensor
	first := int64(0)
	if v, ok := b.M.Meta.Lookup("dflash.sample_from_anchor"); ok && v != true {
		first = 1
		all = b.Cont(at(0))
		if conf != nil {
			confs = b.Sigmoid(b.Cont(b.View2D(base, 1, blocks, stride, 0)))
		}
	}
	for i := first; i < size; i++ {
		state := b.GetRows(w1, prev)
		col := b.Add(at(i), b.unmap(b.MM(w2, state, b.T("markov_w2.scale"))))
		all = b.join(all, col)
		if conf != nil {
			e := b.embd
			h := b.Cont(b.View2D(e, e.Ne[0], blocks, uint64(size)*e.Nb[1], uint64(i)*e.Nb[1]))
			c := b.MulMat(conf, b.Concat(h, state, 0))
			if bias := b.T("conf_proj.bias"); bias != nil {
				c = b.Add(c, bias)
			}
			confs = b.join(confs, b.Sigmoid(c))
		}
		if i+1 < size {
			prev = b.Argmax(col)
		}
	}
	inOrder := func(t *graph.Tensor, width int64) *graph.Tensor {
		t = b.Reshape3D(t, width, blocks, size)
		return b.Reshape2D(b.Cont(b.Permute(t, 0, 2, 1, 3)), width, int64(b.NTokens))
	}
	out := inOrder(all, vocab)
	if conf != nil {
		c := b.Repeat(inOrder(confs, 1), b.embd)
		b.HNextN(c)
		b.Expand(c)
	}
	b.Logits(out)
}

// selector scores pairs of candidates of neighbouring positions.
// (build_dflash2_selector)
func (b *Builder) selector(tokens *graph.Tensor) {
	w := b.T("selector_hidden.weight")
	if w == nil {
		return
	}
	n, blocks, embd := int64(b.NTokens), int64(b.U.NSeqs), int64(b.NEmbd)
	k, rank, all := int64(b.DflashSelectorTopK), int64(b.DflashSelectorRank), n/blocks
	size := min(all, int64(b.DflashBlockSize))
	if k < 1 || rank < 1 || size < 1 || embd < k*(k+1) {
		b.Fail("a selector of %d candidates and rank %d does not fit rows of %d", k, rank, embd)
	}
	best := b.TopK(b.logits, k)
	unary := b.Reshape2D(b.GetRows(b.Reshape3D(b.logits, 1, b.logits.Ne[0], n), best), k, n)
	gate := b.MM(w, b.embd, nil)
	best = b.Reshape3D(best, k, all, blocks)
	unary, gate = b.Reshape3D(unary, k, all, blocks), b.Reshape3D(gate, rank, all, blocks)

	score := func(at, count int64, before *graph.Tensor) *graph.Tensor {
		run := func(t *graph.Tensor) *graph.Tensor {
			return b.Cont(b.View3D(t, t.Ne[0], count, blocks, t.Nb[1], t.Nb[2], uint64(at)*t.Nb[1]))
		}
		cand, one, g := run(best), run(unary), run(gate)
		preds := before.Ne[0] / (count * blocks)
		next := b.GetRows(b.T("selector_successor.weight"), b.Reshape1D(cand, k*count*blocks))
		next = b.Reshape4D(next, rank, k, count, blocks)
		prev := b.Reshape4D(b.GetRows(b.T("selector_predecessor.weight"), before), rank, preds, count, blocks)
		prev = b.Mul(prev, b.Repeat(b.Reshape4D(g, rank, 1, count, blocks), prev))
		s := b.MulMat(next, prev)
		if preds == 1 {
			s = b.Repeat4D(s, k, k, count, blocks)
		}
		s = b.Add(s, b.Repeat(b.Reshape4D(one, k, 1, count, blocks), s))
		row := b.Concat(b.Cast(cand, formats.F32), b.Reshape3D(s, k*k, count, blocks), 0)
		return b.Pad(row, int(embd-k-k*k), 0, 0, 0)
	}
	packed := b.Fill(b.Leaf("", formats.F32, embd, 1, blocks))
	if size > 1 {
		anchors := b.Cont1D(b.View2D(tokens, 1, blocks, uint64(all)*tokens.Nb[0], 0), blocks)
		packed = b.Concat(packed, score(1, 1, anchors), 1)
	}
	if size > 2 {
		prev := b.Cont(b.View3D(best, k, size-2, blocks, best.Nb[1], best.Nb[2], best.Nb[1]))
		packed = b.Concat(packed, score(2, size-2, b.Reshape1D(prev, k*(size-2)*blocks)), 1)
	}
	packed = b.Reshape2D(packed, embd, size*blocks)
	b.HNextN(packed)
	b.Expand(packed)
}

// dflashV4 drafts with layers of DeepSeek-V4.
func dflashV4(b *Builder, pos *graph.Tensor) {
	hc, embd, n := int64(b.DSV4HCMult), int64(b.NEmbd), int64(b.NTokens)
	in := &dsv4{pos: pos, mtp: b.InpKISWA()}
	tokens := b.InputT("inp_tokens", formats.I32, n)
	inpL := b.GetRows(b.draftEmbd(), tokens)
	inpL = b.Repeat4D(b.Reshape3D(inpL, embd, 1, n), embd, hc, n, 1)
	for il := range b.NLayer() {
		inpL = b.dsv4Layer(in, inpL, il)
	}
	cur := b.hcHead(inpL)
	b.Embd(cur)
	cur = b.Norm(cur, b.OutputNorm(), nil, NormRMS, -1)
	w, scale := b.draftOutput()
	b.Logits(b.MM(w, cur, scale))
	b.markovHead(tokens)
}

func (w *wants) dflash() {
	own := w.dim(-1, "d2t", 0, w.nVocab) // tokens of the draft
	if w.has(-1, "d2t") {
		w.need(-1, "d2t", own)
	}
	if w.may(-1, "token_embd.weight", w.NEmbd, w.nVocab) && own != w.nVocab {
		w.need(-1, "output.weight", w.NEmbd, own) // the embeddings do not fit
	} else {
		w.may(-1, "output.weight", w.NEmbd, own)
	}
	if w.has(-1, "markov_w1.weight") {
		rank := w.dim(-1, "markov_w1.weight", 0, 0)
		w.need(-1, "markov_w1.weight", rank, w.nVocab)
		w.need(-1, "markov_w2.weight", rank, own)
		w.may(-1, "markov_w2.scale", 1)
		w.may(-1, "conf_proj.weight", w.NEmbd+rank, 1)
		w.may(-1, "conf_proj.bias", 1)
	}
	selects := w.has(-1, "selector_hidden.weight")
	if selects {
		w.need(-1, "selector_predecessor.weight", w.DflashSelectorRank, w.nVocab)
		w.need(-1, "selector_successor.weight", w.DflashSelectorRank, w.nVocab)
		w.need(-1, "selector_hidden.weight", w.NEmbd, w.DflashSelectorRank)
	}
	w.need(-1, "fc.weight", w.NEmbdInpEnc(), w.NEmbd)
	w.may(-1, "fc.scale", 1)
	w.need(-1, "enc.output_norm.weight", w.NEmbd)
	w.need(-1, "output_norm.weight", w.NEmbd)
	if w.DSV4HCMult > 0 {
		w.hyperHead()
		for il := range w.NLayer() {
			w.v4Block(0, il)
			w.need(il, "exp_probs_b.bias", w.NExpert)
		}
		return
	}
	d, q := w.NEmbdHeadK(0), w.qWidth()
	w.may(-1, "rope_freqs.weight", d/2)
	for il := range w.NLayer() {
		w.need(il, "attn_norm.weight", w.NEmbd)
		w.need(il, "attn_q.weight", w.NEmbd, q)
		w.need(il, "attn_k.weight", w.NEmbd, w.NEmbdKGQA(0))
		w.may(il, "attn_v.weight", w.NEmbd, w.NEmbdVGQA(0))
		w.need(il, "attn_output.weight", q, w.NEmbd)
		w.headNorms(0, il)
		w.may(il, "post_attention_norm.weight", w.NEmbd)
		w.may(il, "post_ffw_norm.weight", w.NEmbd)
		w.may(il, "layer_output_scale.weight", 1)
		w.may(il, "attn_sinks.weight", w.NHead(0))
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.ffn(0, il, "", w.NFF(0))
		if !selects {
			continue
		}
		for _, part := range []string{"attn_conv", "ffn_conv"} {
			w.need(il, part+"_base", w.NEmbd, w.DflashConvKernel, 2)
			w.need(il, part+"_proj.weight", w.NEmbd, 2*w.DflashConvKernel*quotient(w.NEmbd, w.DflashConvGroup))
		}
	}
}
