package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// RWKV 6 and 7, and Qwen models whose attention they replace.
var _ = register(
	&Arch{
		Name: "rwkv6", Rope: model.RopeNone, Recurrent: true,
		Load: loadRWKV(2), Build: func(b *Builder) { b.rwkv((*Builder).timeMix6, (*Builder).channelMix6) },
		Tensors: (*wants).rwkv6,
		Needs:   "time_mix_extra_dim time_decay_extra_dim wkv.head_size",
		Source:  "src/models/rwkv6.cpp@v0.5.0",
	},
	&Arch{
		Name: "rwkv7", Rope: model.RopeNone, Recurrent: true,
		Load: loadRWKV(2), Build: func(b *Builder) { b.rwkv(b.timeMix7(), (*Builder).channelMix7) },
		Tensors: (*wants).rwkv7,
		Needs:   "wkv.head_size attention.decay_lora_rank attention.iclr_lora_rank attention.value_residual_mix_lora_rank",
		Source:  "src/models/rwkv7.cpp@v0.5.0",
	},
	&Arch{
		Name: "rwkv6qwen2", Rope: model.RopeNone, Recurrent: true,
		Load: loadRWKV(1), Build: func(b *Builder) { b.rwkvQwen((*Builder).timeMix6) },
		Tensors: (*wants).rwkv6Qwen2,
		Needs:   "time_mix_extra_dim time_decay_extra_dim wkv.head_size",
		Source:  "src/models/rwkv6qwen2.cpp@v0.5.0",
	},
	&Arch{
		Name: "arwkv7", Rope: model.RopeNone, Recurrent: true,
		Load: loadRWKV(1), Build: func(b *Builder) { b.rwkvQwen(b.timeMix7()) },
		Tensors: (*wants).arwkv7,
		Needs:   "wkv.head_size attention.decay_lora_rank attention.iclr_lora_rank attention.value_residual_mix_lora_rank",
		Source:  "src/models/arwkv7.cpp@v0.5.0",
	},
)

// loadRWKV reads the widths of an architecture that keeps the last token of so
// many places in each layer.
func loadRWKV(shifts int) func(k *Keys, h *model.HParams) {
	return func(k *Keys, h *model.HParams) {
		h.WKVHeadSize = k.Need("wkv.head_size")
		if h.WKVHeadSize < 1 {
			k.fail("wkv.head_size", "%d", h.WKVHeadSize)
		}
		h.RescaleEveryNLayers = k.Int("rescale_every_n_layers", 0)
		h.TokenShiftCount = k.Int("token_shift_count", 2)
		if h.TokenShiftCount != shifts {
			k.fail("token_shift_count", "%d, llama.cpp wants %d", h.TokenShiftCount, shifts)
		}
	}
}

// A timeMix is RWKV's linear attention over cur and the tokens before, prev,
// both [NEmbd][tokens][seqs].
type timeMix func(b *Builder, in *RSInput, cur, prev *graph.Tensor, il int) *graph.Tensor

// loadShift returns the last tokens of the batch before,
// [NEmbd][TokenShiftCount][seqs]. (build_rwkv_token_shift_load)
func (b *Builder) loadShift(in *RSInput, il int) *graph.Tensor {
	t := b.RS(in, b.StateR(il), b.Mem.RS.NEmbdR, b.U.NSeqs, nil)
	return b.Reshape3D(t, int64(b.NEmbd), int64(b.TokenShiftCount), b.seqs())
}

// storeShift appends the store of the last tokens.
// (build_rwkv_token_shift_store)
func (b *Builder) storeShift(t *graph.Tensor, il int) {
	n := int64(b.Mem.RS.NEmbdR) * b.seqs()
	b.Expand(b.Cpy(b.View1D(t, n, 0), b.View1D(b.StateR(il), n, 0)))
}

// shifted puts first before all tokens of t but the last.
func (b *Builder) shifted(first, t *graph.Tensor) *graph.Tensor {
	return b.Concat(first, b.View3D(t, int64(b.NEmbd), b.seqTokens()-1, b.seqs(), t.Nb[1], t.Nb[2], 0), 1)
}

// lastToken is the last token of each sequence in t.
func (b *Builder) lastToken(t *graph.Tensor) *graph.Tensor {
	return b.View3D(t, int64(b.NEmbd), 1, b.seqs(), t.Nb[1], t.Nb[2], f32Row((b.seqTokens()-1)*int64(b.NEmbd)))
}

// rwkv alternates time mixing and channel mixing, each over the tokens before.
func (b *Builder) rwkv(time timeMix, channel func(b *Builder, cur, prev *graph.Tensor, il int) *graph.Tensor) {
	embd, tokens := int64(b.NEmbd), int64(b.NTokens)
	inpL := b.Norm(b.InpEmbd(), b.T("token_embd_norm.weight"), b.T("token_embd_norm.bias"), NormLayer, 0)
	in := b.InpRS()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpL = b.perSeq(inpL)
		shift := b.loadShift(in, il)
		place := func(i int64) *graph.Tensor {
			return b.View3D(shift, embd, 1, b.seqs(), shift.Nb[1], shift.Nb[2], f32Row(i*embd))
		}
		att := b.LayerNorm(inpL, "attn_norm", NormLayer, il)
		cur := time(b, in, att, b.shifted(place(0), att), il)
		ffnInp := b.Add(cur, inpL)
		ffn := b.LayerNorm(ffnInp, "attn_norm_2", NormLayer, il)
		prev := b.shifted(place(1), ffn)
		b.storeShift(b.Concat(b.lastToken(att), b.lastToken(ffn), 1), il)

		ffnInp, ffn, prev = b.Reshape2D(ffnInp, embd, tokens), b.Reshape2D(ffn, embd, tokens), b.Reshape2D(prev, embd, tokens)
		b.LastRows(il, outIDs, &ffnInp, &ffn, &prev)
		cur = b.Add(channel(b, ffn, prev, il), ffnInp)
		if n := b.RescaleEveryNLayers; n > 0 && (il+1)%n == 0 {
			cur = b.Scale(cur)
		}
		inpL = b.CVec(cur, il)
		b.Name(inpL, "l_out", il)
	}
	b.Head(inpL, NormLayer)
}

// rwkvQwen puts time mixing where Qwen has attention.
func (b *Builder) rwkvQwen(time timeMix) {
	embd, tokens := int64(b.NEmbd), int64(b.NTokens)
	inpL := b.InpEmbd()
	in := b.InpRS()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpL = b.perSeq(inpL)
		shift := b.loadShift(in, il)
		att := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		cur := time(b, in, att, b.shifted(shift, att), il)
		b.storeShift(b.lastToken(att), il)
		ffnInp := b.Reshape2D(b.Add(cur, inpL), embd, tokens)
		b.LastRows(il, outIDs, &ffnInp)
		cur = b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il)
		cur = b.FeedForward(cur, b.LayerFFN(il, "", ActSiLU), il)
		inpL = b.CVec(b.Add(cur, ffnInp), il)
		b.Name(inpL, "l_out", il)
	}
	b.Head(inpL, NormRMS)
}

// channelMix6 is RWKV 6's feed-forward block.
func (b *Builder) channelMix6(cur, prev *graph.Tensor, il int) *graph.Tensor {
	sx := b.Sub(prev, cur)
	lerp := func(name string) *graph.Tensor { return b.Add(b.Mul(sx, b.W(il, name)), cur) }
	r := b.Sigmoid(b.MM(b.W(il, "channel_mix_receptance.weight"), lerp("channel_mix_lerp_r.weight"), nil))
	k := b.MM(b.W(il, "channel_mix_key.weight"), lerp("channel_mix_lerp_k.weight"), nil)
	return b.Mul(r, b.MM(b.W(il, "channel_mix_value.weight"), b.Sqr(b.ReLU(k)), nil))
}

// channelMix7 is RWKV 7's feed-forward block.
func (b *Builder) channelMix7(cur, prev *graph.Tensor, il int) *graph.Tensor {
	xk := b.Add(b.Mul(b.Sub(prev, cur), b.W(il, "channel_mix_lerp_k.weight")), cur)
	k := b.MM(b.W(il, "channel_mix_key.weight"), xk, nil)
	return b.MM(b.W(il, "channel_mix_value.weight"), b.Sqr(b.ReLU(k)), nil)
}

// wkvState loads the state of layer il.
func (b *Builder) wkvState(in *RSInput, il int) *graph.Tensor {
	return b.RS(in, b.StateS(il), b.Mem.RS.NEmbdS, b.U.NSeqs, nil)
}

// splitWKV appends the store of the new state, and returns the outputs.
func (b *Builder) splitWKV(res *graph.Tensor, il int) *graph.Tensor {
	n, state := int64(b.NEmbd)*int64(b.NTokens), int64(b.Mem.RS.NEmbdS)*b.seqs()
	out := b.View1D(res, n, 0)
	b.Expand(b.Cpy(b.View1D(res, state, f32Row(n)), b.View1D(b.StateS(il), state, 0)))
	return out
}

// wkvNorm norms the outputs head by head, where the layer has such a norm.
func (b *Builder) wkvNorm(cur *graph.Tensor, heads int64, on bool, il int) *graph.Tensor {
	embd, tokens := int64(b.NEmbd), int64(b.NTokens)
	if !on {
		return b.Reshape2D(cur, embd, tokens)
	}
	cur = b.Reshape3D(cur, embd/heads, heads, tokens)
	cur = b.Reshape2D(b.Graph.Norm(cur), embd, tokens)
	return b.Add(b.Mul(cur, b.W(il, "time_mix_ln.weight")), b.W(il, "time_mix_ln.bias"))
}

// timeMix6 is RWKV 6's time mixing; without time_mix_first it is a gated
// linear attention. (build_rwkv6_time_mix)
//
// Source: src/models/rwkv6-base.cpp@v0.5.0.
func (b *Builder) timeMix6(in *RSInput, cur, prev *graph.Tensor, il int) *graph.Tensor {
	embd, tokens, size := int64(b.NEmbd), int64(b.NTokens), int64(b.WKVHeadSize)
	heads, kv := embd/size, int64(b.NHeadKV(il))
	if heads < 1 {
		b.Fail("wkv.head_size is %d, wider than the embeddings", size)
	}
	first := b.W(il, "time_mix_first.weight")

	sx := b.Reshape2D(b.Sub(prev, cur), embd, tokens)
	cur = b.Reshape2D(cur, embd, tokens)
	w1, w2 := b.need(il, "time_mix_w1.weight"), b.need(il, "time_mix_w2.weight")
	xxx := b.Add(b.Mul(sx, b.W(il, "time_mix_lerp_x.weight")), cur)
	xxx = b.Reshape4D(b.Tanh(b.MulMat(w1, xxx)), w1.Ne[1]/5, 1, 5, tokens)
	xxx = b.Cont(b.Permute(xxx, 0, 1, 3, 2))
	xxx = b.MulMat(b.Reshape4D(w2, w2.Ne[0], w2.Ne[1], 1, 5), xxx)

	fused := b.W(il, "time_mix_lerp_fused.weight")
	if fused != nil {
		sx, cur = b.Reshape3D(sx, embd, 1, tokens), b.Reshape3D(cur, embd, 1, tokens)
		xxx = b.Add(b.Mul(b.Add(xxx, fused), sx), cur)
	}
	mixed := func(i int64, name string) *graph.Tensor {
		x := b.View2D(xxx, embd, tokens, xxx.Nb[1], f32Row(i*embd*tokens))
		if fused == nil {
			x = b.Add(b.Mul(b.Add(x, b.W(il, name)), sx), cur)
		}
		return x
	}
	xw, xk, xv := mixed(0, "time_mix_lerp_w.weight"), mixed(1, "time_mix_lerp_k.weight"), mixed(2, "time_mix_lerp_v.weight")
	xr, xg := mixed(3, "time_mix_lerp_r.weight"), mixed(4, "time_mix_lerp_g.weight")

	biased := func(name string, x *graph.Tensor) *graph.Tensor {
		x = b.MM(b.W(il, name+".weight"), x, nil)
		if bias := b.W(il, name+".bias"); bias != nil {
			x = b.Add(x, bias)
		}
		return x
	}
	r, k, v := biased("time_mix_receptance", xr), biased("time_mix_key", xk), biased("time_mix_value", xv)
	g := b.MM(b.W(il, "time_mix_gate.weight"), xg, nil)
	if first == nil {
		g = b.Sigmoid(g)
	} else {
		g = b.SiLU(g)
	}
	if kv != 0 && kv != heads {
		k = b.Repeat4D(b.Reshape4D(k, size, 1, kv, tokens), size, heads/kv, kv, tokens)
		v = b.Repeat4D(b.Reshape4D(v, size, 1, kv, tokens), size, heads/kv, kv, tokens)
	}
	split := func(t *graph.Tensor) *graph.Tensor { return b.Reshape3D(t, size, heads, tokens) }
	k, v, r = split(k), split(v), split(r)
	w := b.MulMat(b.W(il, "time_mix_decay_w2.weight"), b.Tanh(b.MulMat(b.W(il, "time_mix_decay_w1.weight"), xw)))
	w = b.Add(w, b.W(il, "time_mix_decay.weight"))
	w = split(b.Exp(b.Neg(b.Exp(w))))
	if first == nil {
		k = b.Sub(k, b.Mul(k, w))
	}
	state := b.wkvState(in, il)
	var res *graph.Tensor
	if first == nil {
		res = b.GatedLinearAttn(k, v, r, w, state)
	} else {
		res = b.RWKVWKV6(k, v, r, first, w, state)
	}
	cur = b.wkvNorm(b.splitWKV(res, il), heads, first != nil, il)
	cur = b.MM(b.W(il, "time_mix_output.weight"), b.Mul(cur, g), nil)
	return b.perSeq(cur)
}

// timeMix7 returns RWKV 7's time mixing; all layers mix in the first one's
// values. (build_rwkv7_time_mix)
//
// Source: src/models/rwkv7-base.cpp@v0.5.0.
func (b *Builder) timeMix7() timeMix {
	var firstV *graph.Tensor
	return func(b *Builder, in *RSInput, cur, prev *graph.Tensor, il int) *graph.Tensor {
		embd, tokens, size := int64(b.NEmbd), int64(b.NTokens), int64(b.WKVHeadSize)
		heads := embd / size
		if heads < 1 {
			b.Fail("wkv.head_size is %d, wider than the embeddings", size)
		}
		w := func(name string) *graph.Tensor { return b.W(il, "time_mix_"+name+".weight") }
		lora := func(name string, act func(*graph.Tensor) *graph.Tensor, x *graph.Tensor) *graph.Tensor {
			x = b.MulMat(w(name+"1"), x)
			if act != nil {
				x = act(x)
			}
			return b.MulMat(w(name+"2"), x)
		}
		gated := w("g1") != nil && w("g2") != nil
		mixes := int64(5)
		if gated {
			mixes = 6
		}
		sx := b.Repeat4D(b.Sub(prev, cur), embd, b.seqTokens(), b.seqs(), mixes)
		xxx := b.Add(b.Mul(sx, w("lerp_fused")), cur)
		mixed := func(i int64) *graph.Tensor { return b.View2D(xxx, embd, tokens, xxx.Nb[1], f32Row(i*embd*tokens)) }

		r := b.MM(w("receptance"), mixed(0), nil)
		decay := b.Add(lora("w", b.Tanh, mixed(1)), w("w0"))
		decay = b.Exp(b.Scale(b.Sigmoid(decay)))
		k, xv := b.MM(w("key"), mixed(2), nil), mixed(3)
		v := b.MM(w("value"), xv, nil)
		if firstV == nil {
			firstV = v
		} else {
			mix := b.Sigmoid(b.Add(lora("v", nil, xv), w("v0")))
			v = b.Add(v, b.Mul(b.Sub(firstV, v), mix))
		}
		a := b.Sigmoid(b.Add(lora("a", nil, mixed(4)), w("a0")))
		split := func(t *graph.Tensor) *graph.Tensor { return b.Reshape3D(t, size, heads, tokens) }
		kk := b.L2Norm(split(b.Mul(k, w("k_k"))))
		ka := b.Mul(k, w("k_a"))
		k = b.Add(k, b.Sub(b.Mul(a, ka), ka))
		r, decay, k, v, a = split(r), split(decay), split(k), split(v), split(a)

		state := b.wkvState(in, il)
		res := b.RWKVWKV7(r, decay, k, v, b.Neg(kk), b.Mul(kk, a), state)
		cur = b.wkvNorm(b.splitWKV(res, il), heads, w("ln") != nil && b.W(il, "time_mix_ln.bias") != nil, il)
		rk := b.SumRows(b.Mul(b.Mul(k, r), b.Reshape2D(b.need(il, "time_mix_r_k.weight"), size, heads)))
		cur = b.Add(cur, b.Reshape2D(b.Mul(v, rk), embd, tokens))
		if gated {
			cur = b.Mul(cur, lora("g", b.Sigmoid, mixed(5)))
		}
		return b.perSeq(b.MM(w("output"), cur, nil))
	}
}

// normed asks for a norm of n values with a bias.
func (w *wants) normed(flags, il int, name string, n int) {
	w.tensor(flags, il, name+".weight", n)
	w.tensor(flags, il, name+".bias", n)
}

// rwkvEnds asks for what RWKV has outside its blocks.
func (w *wants) rwkvEnds() {
	w.output(0, w.nVocab)
	w.normed(0, -1, "token_embd_norm", w.NEmbd)
	w.need(-1, "output_norm.bias", w.NEmbd)
}

// timeMix6 asks for RWKV 6's time mixing, with keys and values of kv values.
func (w *wants) timeMix6(il, kv int) {
	mix, decay := w.Int("time_mix_extra_dim", 0), w.Int("time_decay_extra_dim", 0)
	w.need(il, "time_mix_w1.weight", w.NEmbd, 5*mix)
	w.need(il, "time_mix_w2.weight", mix, w.NEmbd, 5)
	w.need(il, "time_mix_lerp_x.weight", w.NEmbd)
	w.need(il, "time_mix_decay.weight", w.NEmbd)
	w.need(il, "time_mix_decay_w1.weight", w.NEmbd, decay)
	w.need(il, "time_mix_decay_w2.weight", decay, w.NEmbd)
	w.need(il, "time_mix_key.weight", w.NEmbd, kv)
	w.need(il, "time_mix_value.weight", w.NEmbd, kv)
	w.need(il, "time_mix_receptance.weight", w.NEmbd, w.NEmbd)
	w.need(il, "time_mix_gate.weight", w.NEmbd, w.NEmbd)
	w.need(il, "time_mix_output.weight", w.NEmbd, w.NEmbd)
}

// timeMix7 asks for RWKV 7's time mixing, with so many lerps in one tensor.
func (w *wants) timeMix7(il, gate, lerps int) {
	iclr := w.Int("attention.iclr_lora_rank", 0)
	values := iclr // of a first layer, which has no values to mix in
	if il > 0 {
		values = w.Int("attention.value_residual_mix_lora_rank", 0)
	}
	lora := func(flags int, name string, rank int) {
		w.tensor(flags, il, name+"1.weight", w.NEmbd, rank)
		w.tensor(flags, il, name+"2.weight", rank, w.NEmbd)
	}
	lora(0, "time_mix_w", w.Int("attention.decay_lora_rank", 0))
	lora(0, "time_mix_a", iclr)
	lora(0, "time_mix_v", values)
	lora(gate, "time_mix_g", w.Int("attention.gate_lora_rank", 0))
	for _, name := range []string{"w0", "a0", "v0", "k_k", "k_a", "r_k"} {
		w.need(il, "time_mix_"+name+".weight", w.NEmbd)
	}
	w.need(il, "time_mix_lerp_fused.weight", w.NEmbd, 1, 1, lerps)
	for _, name := range []string{"key", "value", "receptance", "output"} {
		w.need(il, "time_mix_"+name+".weight", w.NEmbd, w.NEmbd)
	}
}

// channelMix asks for RWKV's feed-forward block.
func (w *wants) channelMix(il int) {
	w.need(il, "channel_mix_lerp_k.weight", w.NEmbd)
	w.need(il, "channel_mix_key.weight", w.NEmbd, w.NFF(0))
	w.need(il, "channel_mix_value.weight", w.NFF(0), w.NEmbd)
}

// first asks for the bonus of the present token, head by head.
func (w *wants) first(flags, il int) {
	w.tensor(flags, il, "time_mix_first.weight", w.WKVHeadSize, quotient(w.NEmbd, w.WKVHeadSize))
}

func (w *wants) rwkv6() {
	w.rwkvEnds()
	for il := range w.NLayer() {
		w.normed(0, il, "attn_norm", w.NEmbd)
		w.normed(0, il, "attn_norm_2", w.NEmbd)
		w.timeMix6(il, w.NEmbd)
		w.first(0, il)
		w.normed(0, il, "time_mix_ln", w.NEmbd)
		apart := 0 // the lerps, which may be in one
		if w.may(il, "time_mix_lerp_fused.weight", w.NEmbd, 1, 1, 5) {
			apart = optional
		}
		w.tensor(apart, il, "time_mix_lerp_w.weight", w.NEmbd)
		for _, name := range []string{"k", "v", "r", "g"} {
			w.may(il, "time_mix_lerp_"+name+".weight", w.NEmbd)
		}
		w.channelMix(il)
		w.need(il, "channel_mix_lerp_r.weight", w.NEmbd)
		w.need(il, "channel_mix_receptance.weight", w.NEmbd, w.NEmbd)
	}
}

func (w *wants) rwkv7() {
	w.rwkvEnds()
	for il := range w.NLayer() {
		w.normed(0, il, "attn_norm", w.NEmbd)
		w.normed(0, il, "attn_norm_2", w.NEmbd)
		w.timeMix7(il, 0, 6)
		w.normed(0, il, "time_mix_ln", w.NEmbd)
		w.channelMix(il)
	}
}

func (w *wants) rwkv6Qwen2() {
	w.output(0, w.nVocab)
	w.may(-1, "output_norm.bias", w.NEmbd)
	kv := w.NEmbd
	if n := w.NHeadKV(0); n != 0 && quotient(w.NEmbd, w.WKVHeadSize) != n {
		kv = n * w.WKVHeadSize
	}
	for il := range w.NLayer() {
		w.need(il, "attn_norm.weight", w.NEmbd)
		w.timeMix6(il, kv)
		w.first(optional, il)
		w.need(il, "time_mix_lerp_fused.weight", w.NEmbd, 1, 1, 5)
		w.may(il, "time_mix_key.bias", kv)
		w.may(il, "time_mix_value.bias", kv)
		w.may(il, "time_mix_receptance.bias", w.NEmbd)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.ffn(0, il, "", w.NFF(0))
	}
}

// arwkv7 can do without gates, and without a lerp for them.
func (w *wants) arwkv7() {
	w.output(0, w.nVocab)
	for il := range w.NLayer() {
		w.need(il, "attn_norm.weight", w.NEmbd)
		lerps := 6
		if w.dim(il, "time_mix_lerp_fused.weight", 3, 0) == 5 {
			lerps = 5
		}
		w.timeMix7(il, optional, lerps)
		w.normed(optional, il, "time_mix_ln", w.NEmbd)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.ffn(0, il, "", w.NFF(0))
	}
}
