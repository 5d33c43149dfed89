package projector

import "weigh/inspect/graph"

// gemma4V clips the products' operands and results.
//
// Source: tools/mtmd/models/gemma4v.cpp@v0.5.0.
func gemma4V(b *builder) *graph.Tensor {
	b.clamp = true
	inp := b.flat(b.conv(b.need("v.patch_embd.weight"), b.ScaleBias(b.raw(3)), b.patch, 0))
	x, y := b.ids(b.n), b.ids(b.n)
	inp = b.gridPositions(inp, x, y)
	cur := b.vit(inp, b.n, vit{rms: true, act: b.act, rot: b.rope2D(x, y, graph.RopeNeoX), vRMS: true})
	m := int64(b.merge)
	cur = b.Cont4D(b.Transpose(cur), b.px, b.py, b.e, b.batch)
	cur = b.Pool2D(cur, graph.PoolAvg, b.merge, b.merge, b.merge, b.merge, 0, 0)
	cur = b.Reshape3D(cur, (b.px/m)*(b.py/m), b.e, b.batch)
	cur = b.Scale(b.Cont(b.Transpose(cur)))
	if bias, scale := b.w("v.std_bias"), b.w("v.std_scale"); bias != nil && scale != nil {
		cur = b.Mul(b.Sub(cur, bias), scale)
	}
	return b.mm(b.need("mm.input_projection.weight"), b.RMSNorm(cur))
}

// gridPositions adds a learned embedding for each coordinate.
func (b *builder) gridPositions(inp, x, y *graph.Tensor) *graph.Tensor {
	pos := b.need("v.position_embd.weight")
	nb := pos.Nb[1]
	rows := pos.Ne[1]
	tx := b.View2D(pos, b.e, rows, nb, 0)
	ty := b.View2D(pos, b.e, rows, nb, uint64(rows)*nb)
	ex, ey := b.GetRows(tx, x), b.GetRows(ty, y)
	return b.Add(b.Add(inp, ex), ey)
}

func gemma4Unified(k *keys, h *hparams) {
	h.merge = k.int("projector.scale_factor", 3)
	h.patch, h.merge = min(h.patch, 1<<16)*min(h.merge, 1<<16), 1
	h.limit(1120)
	h.warmUp(16)
}

// gemma4UV embeds patches without a transformer.
//
// Source: tools/mtmd/models/gemma4uv.cpp@v0.5.0.
func gemma4UV(b *builder) *graph.Tensor {
	raw, patch := b.raw(3), int64(b.patch)
	inp := b.Im2col(b.Leaf("", f32, patch, patch, 3), raw, b.patch, b.patch, 0, 0, 1, 1, true, f32)
	inp = b.Reshape2D(inp, inp.Ne[0], inp.Ne[1]*inp.Ne[2]*inp.Ne[3])
	inp = b.affine(inp, "v.patch_norm.1")
	inp = b.Add(b.MulMat(b.need("v.patch_embd.weight"), inp), b.need("v.patch_embd.bias"))
	inp = b.affine(inp, "v.patch_norm.2")
	x, y := b.ids(b.n), b.ids(b.n)
	inp = b.affine(b.gridPositions(inp, x, y), "v.patch_norm.3")
	return b.mm(b.need("mm.input_projection.weight"), b.RMSNorm(inp))
}

// gemma4UA embeds frames of audio without a transformer.
//
// Source: tools/mtmd/models/gemma4ua.cpp@v0.5.0.
func gemma4UA(b *builder) *graph.Tensor {
	cur := b.RMSNorm(b.Cont(b.Permute(b.raw(1), 1, 0, 2, 3)))
	return b.mm(b.need("mm.a.input_projection.weight"), cur)
}

// gemma4A is a conformer with attention in chunks.
//
// Source: tools/mtmd/models/gemma4a.cpp@v0.5.0.
func gemma4A(b *builder) *graph.Tensor {
	cur := b.Cont(b.Transpose(b.raw(1)))
	b.clamp = true
	for i := range 2 {
		cur = b.conv(b.need(at("a.conv1d.%d.weight", i)), cur, 2, 1)
		cur = b.bias(cur, b.w(at("a.conv1d.%d.bias", i)))
		if w := b.w(at("a.conv1d.%d.norm.weight", i)); w != nil {
			cur = b.Mul(b.Norm(b.Cont(b.Permute(cur, 1, 2, 0, 3))), w)
			cur = b.Cont(b.Permute(cur, 2, 0, 1, 3))
		}
		cur = b.ReLU(cur)
	}
	cur = b.Cont(b.Permute(cur, 1, 2, 0, 3))
	cur = b.Reshape2D(cur, cur.Ne[0]*cur.Ne[1], cur.Ne[2])
	cur = b.linear(cur, "a.input_projection")
	const chunk, past = 12, 12
	n, heads := cur.Ne[1], int64(b.heads)
	const s, r = chunk + past, past + 1
	blocks := (n + chunk - 1) / chunk
	padded := blocks * chunk
	pos, mask := b.input(f32, heads*b.dh, r), b.input(f32, s, chunk, blocks)
	half := func(res *graph.Tensor, il int, suffix string) *graph.Tensor {
		w := func(name string) *graph.Tensor { return b.lw(il, name+suffix+".weight") }
		if w("ffn_norm") == nil || w("ffn_up") == nil || w("ffn_down") == nil {
			return res
		}
		cur := b.feed(b.norm(res, w("ffn_norm"), nil, true), ffn{up: w("ffn_up"), down: w("ffn_down")}, silu)
		if p := w("ffn_post_norm"); p != nil {
			cur = b.norm(cur, p, nil, true)
		}
		return b.Add(res, b.Scale(cur))
	}
	windows := func(t *graph.Tensor) *graph.Tensor {
		t = b.Pad(t, 0, 0, int(s*blocks-n), 0)
		t = b.Cont(b.Roll(t, 0, 0, past, 0))
		return b.Cont(b.View4D(t, b.dh, heads, s, blocks, t.Nb[1], t.Nb[2], chunk*t.Nb[2], 0))
	}
	for il := range b.layers {
		res := half(cur, il, "")
		norm := b.lw(il, "attn_pre_norm.weight")
		if norm == nil {
			norm = b.lw(il, "ln1.weight")
		}
		cur = res
		if norm != nil {
			cur = b.norm(res, norm, nil, true)
		}
		part := func(name, scale string) *graph.Tensor {
			t := b.Reshape3D(b.mm(b.lw(il, name), cur), b.dh, heads, n)
			if scale == "" {
				return t
			}
			t = b.Scale(t)
			if w := b.lw(il, scale); w != nil {
				t = b.Mul(t, b.Reshape3D(w, b.dh, 1, 1))
			}
			return t
		}
		q, k, v := part("attn_q.weight", "per_dim_scale.weight"), part("attn_k.weight", "per_dim_k_scale.weight"), part("attn_v.weight", "")
		q = b.Reshape4D(b.Pad(q, 0, 0, int(padded-n), 0), b.dh, heads, chunk, blocks)
		q = b.Cont(b.Permute(q, 0, 3, 1, 2))
		k = b.Cont(b.Permute(windows(k), 0, 3, 1, 2))
		v = b.Cont(b.Permute(windows(v), 1, 3, 0, 2))
		scores := b.MulMat(k, q)
		if rel := b.lw(il, "attn_k_rel.weight"); rel != nil {
			p := b.Cont(b.Permute(b.Reshape3D(b.MulMat(rel, pos), b.dh, heads, r), 0, 2, 1, 3))
			bd := b.MulMat(p, b.Reshape3D(q, b.dh, chunk*blocks, heads))
			bd = b.Pad(b.Reshape4D(bd, r, chunk, blocks, heads), s+1-r, 0, 0, 0)
			bd = b.Reshape3D(bd, (s+1)*chunk, blocks, heads)
			bd = b.Cont(b.View3D(bd, chunk*s, blocks, heads, bd.Nb[1], bd.Nb[2], 0))
			scores = b.Add(scores, b.Reshape4D(bd, s, chunk, blocks, heads))
		}
		scores = b.Scale(b.Tanh(b.Scale(scores)))
		x := b.MulMat(v, b.SoftMax(b.Add(scores, mask)))
		x = b.Cont(b.Permute(x, 0, 2, 3, 1))
		x = b.Cont2D(x, b.dh*heads, padded)
		if padded > n {
			x = b.Cont(b.View2D(x, b.dh*heads, n, x.Nb[1], 0))
		}
		x = b.bias(b.mm(b.lw(il, "attn_out.weight"), x), b.lw(il, "attn_out.bias"))
		if w := b.lw(il, "attn_post_norm.weight"); w != nil {
			x = b.norm(x, w, nil, true)
		}
		res = b.Add(res, x)
		if w := b.lw(il, "conv_norm.weight"); w != nil {
			res = b.Add(res, b.lightConv(b.norm(res, w, nil, true), il))
		}
		cur = half(res, il, "_1")
		if w := b.lw(il, "ln2.weight"); w != nil {
			cur = b.norm(cur, w, nil, true)
		}
	}
	if w := b.w("a.pre_encode.out.weight"); w != nil {
		cur = b.linear(cur, "a.pre_encode.out")
	}
	cur = b.RMSNorm(cur)
	if w := b.w("mm.a.soft_emb_norm.weight"); w != nil {
		cur = b.Mul(cur, w)
	}
	return b.mm(b.need("mm.a.input_projection.weight"), cur)
}

// lightConv is Gemma 4's gated causal convolution.
func (b *builder) lightConv(cur *graph.Tensor, il int) *graph.Tensor {
	x := b.mm(b.lw(il, "conv_pw1.weight"), cur)
	d := x.Ne[0] / 2
	gate := b.Sigmoid(b.Cont(b.View2D(x, d, x.Ne[1], x.Nb[1], row(d))))
	x = b.Mul(b.View2D(x, d, x.Ne[1], x.Nb[1], 0), gate)
	x = b.Cont(b.Transpose(x))
	x = b.Roll(b.Pad(x, 4, 0, 0, 0), 4, 0, 0, 0)
	kernel := b.lw(il, "conv_dw.weight")
	if kernel == nil {
		b.Fail("tensor conv_dw.weight of layer %d is missing", il)
	}
	x = b.bias(b.SSMConv(x, kernel), b.lw(il, "conv_dw.bias"))
	if w := b.lw(il, "norm_conv.weight"); w != nil {
		x = b.Mul(b.RMSNorm(x), w)
	}
	return b.mm(b.lw(il, "conv_pw2.weight"), b.SiLU(x))
}
