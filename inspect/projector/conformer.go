package projector

import "weigh/inspect/graph"

// conformer is LFM2's audio encoder.
//
// Source: tools/mtmd/models/conformer.cpp@v0.5.0.
func conformer(b *builder) *graph.Tensor {
	posRows := ((((b.nx+1)/2)+1)/2+1)/2*2 - 1
	pos := b.input(f32, 512, posRows)
	b.Expand(pos)
	conv := func(i int) (w, bias *graph.Tensor) {
		return b.need(at("a.conv1d.%d.weight", i)), b.need(at("a.conv1d.%d.bias", i))
	}
	w, bias := conv(0)
	cur := b.Cont(b.Transpose(b.raw(1)))
	cur = b.ReLUInplace(b.Add(b.conv(w, cur, 2, 1), bias))
	for _, i := range []int{2, 5} {
		w, bias = conv(i)
		cur = b.Add(b.Conv2DDWDirect(w, cur, 2, 2, 1, 1, 1, 1), bias)
		w, bias = conv(i + 1)
		cur = b.ReLUInplace(b.Add(b.Conv2DDirect(w, cur, 1, 1, 0, 0, 1, 1), bias))
	}
	cur = b.Cont(b.Permute(cur, 0, 2, 1, 3))
	cur = b.Reshape2D(cur, cur.Ne[0]*cur.Ne[1], cur.Ne[2])
	cur = b.linear(cur, "a.pre_encode.out")
	heads := int64(b.heads)
	for il := range b.layers {
		res := cur
		cur = b.feed(b.layerNorm(il, "ffn_norm", cur, false), b.layerFFN(il), silu)
		res = b.Add(res, b.Scale(cur))
		res = b.Add(res, b.relative(b.layerNorm(il, "ln1", res, false), pos, heads, il))
		res = b.Add(res, b.gatedConv(b.layerNorm(il, "norm_conv", res, false), il))
		f := ffn{b.lw(il, "ffn_up_1.weight"), b.lw(il, "ffn_up_1.bias"), nil, nil, b.lw(il, "ffn_down_1.weight"), b.lw(il, "ffn_down_1.bias")}
		cur = b.feed(b.layerNorm(il, "ffn_norm_1", res, false), f, silu)
		cur = b.layerNorm(il, "ln2", b.Add(res, b.Scale(cur)), false)
	}
	return b.feed(b.affine(cur, "mm.a.mlp.0"), b.mlp("mm.a.mlp.1", "mm.a.mlp.3"), geluErf)
}

// relative is attention with relative positions pos.
func (b *builder) relative(cur, pos *graph.Tensor, heads int64, il int) *graph.Tensor {
	part := func(name string) *graph.Tensor {
		t := b.bias(b.mm(b.lw(il, name+".weight"), cur), b.lw(il, name+".bias"))
		return b.Reshape3D(t, b.dh, heads, t.Ne[1])
	}
	q := part("attn_q")
	u := b.Permute(b.bias(q, b.lw(il, "pos_bias_u")), 0, 2, 1, 3)
	v := b.Permute(b.bias(q, b.lw(il, "pos_bias_v")), 0, 2, 1, 3)
	k := b.Cont(b.Permute(part("attn_k"), 0, 2, 1, 3))
	value := b.Cont(b.Permute(part("attn_v"), 1, 2, 0, 3))
	ac := b.Cont(b.Permute(b.MulMat(u, k), 1, 0, 2, 3))
	p := b.mm(b.lw(il, "linear_pos.weight"), pos)
	p = b.Permute(b.Reshape3D(p, b.dh, heads, p.Ne[1]), 0, 2, 1, 3)
	bd := b.Cont(b.Permute(b.MulMat(v, p), 1, 0, 2, 3))
	n, qn, h := bd.Ne[0], bd.Ne[1], bd.Ne[2]
	bd = b.Reshape3D(b.Roll(b.Pad(bd, 1, 0, 0, 0), 1, 0, 0, 0), qn, n+1, h)
	bd = b.Cont3D(b.View3D(bd, qn, n, h, bd.Nb[1], bd.Nb[2], bd.Nb[0]*uint64(qn)), n, qn, h)
	bd = b.View3D(bd, ac.Ne[0], bd.Ne[1], bd.Ne[2], bd.Nb[1], bd.Nb[2], 0)
	x := b.MulMat(b.SoftMax(b.Scale(b.Add(ac, bd))), value)
	x = b.Permute(x, 2, 0, 1, 3)
	x = b.Cont2D(x, x.Ne[0]*x.Ne[1], x.Ne[2])
	a := b.layerAttn(il)
	return b.bias(b.mm(a.out, x), a.outB)
}

// gatedConv is a depthwise convolution between gated products.
func (b *builder) gatedConv(cur *graph.Tensor, il int) *graph.Tensor {
	x := b.bias(b.mm(b.lw(il, "conv_pw1.weight"), cur), b.lw(il, "conv_pw1.bias"))
	d := x.Ne[0] / 2
	gate := b.Sigmoid(b.View2D(x, d, x.Ne[1], x.Nb[1], row(d)))
	x = b.Mul(b.View2D(x, d, x.Ne[1], x.Nb[1], 0), gate)
	x = b.Cont(b.Transpose(x))
	x = b.Pad(x, 4, 0, 0, 0)
	x = b.Pad(b.Roll(x, 4, 0, 0, 0), 4, 0, 0, 0)
	kernel := b.lw(il, "conv_dw.weight")
	if kernel == nil {
		b.Fail("tensor conv_dw.weight of layer %d is missing", il)
	}
	x = b.bias(b.SSMConv(x, kernel), b.lw(il, "conv_dw.bias"))
	x = b.bias(b.scaled(x, il, "conv_norm.weight"), b.lw(il, "conv_norm.bias"))
	return b.bias(b.mm(b.lw(il, "conv_pw2.weight"), b.SiLU(x)), b.lw(il, "conv_pw2.bias"))
}
