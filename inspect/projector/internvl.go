package projector

import "weigh/inspect/graph"

// internVL has a class token, which it drops at the end.
//
// Source: tools/mtmd/models/internvl.cpp@v0.5.0.
func internVL(b *builder) *graph.Tensor {
	class, m := b.need("v.class_embd"), int64(b.merge)
	inp := b.Concat(b.patches(), b.Repeat4D(class, class.Ne[0], 1, b.batch, 1), 1)
	rms := b.embd == 3200 && b.layers == 45
	cur := b.vit(inp, b.n+1, vit{rms: rms, act: b.act, pos: b.need("v.position_embd.weight")})
	cur = b.Cont(b.View3D(cur, b.e, b.n, b.batch, cur.Nb[1], cur.Nb[2], 0))
	cur = b.Permute(b.Reshape4D(cur, b.e*m, b.py/m, b.px, b.batch), 0, 2, 1, 3)
	cur = b.Permute(b.Cont4D(cur, b.e*m*m, b.py/m, b.px/m, b.batch), 0, 2, 1, 3)
	cur = b.Cont3D(cur, b.e*m*m, cur.Ne[1]*cur.Ne[2], cur.Ne[3])
	return b.feed(b.affine(cur, "mm.model.mlp.0"), b.mlp("mm.model.mlp.1", "mm.model.mlp.3"), gelu)
}

// nemotron has several class tokens, in front.
//
// Source: tools/mtmd/models/nemotron-v2-vl.cpp@v0.5.0.
func nemotron(b *builder) *graph.Tensor {
	class := b.need("v.class_embd")
	inp := b.Concat(class, b.Add(b.patches(), b.need("v.position_embd.weight")), 1)
	cur := b.vit(inp, b.n+class.Ne[1], vit{act: b.act})
	cur = b.shuffle(b.View2D(cur, b.e, b.n, row(b.e), uint64(class.Ne[1])*row(b.e)))
	cur = b.norm(cur, b.need("mm.model.mlp.0.weight"), nil, true)
	return b.feed(cur, ffn{up: b.need("mm.model.mlp.1.weight"), down: b.need("mm.model.mlp.3.weight")}, reluSqr)
}

// llama4 unfolds patches in full precision.
//
// Source: tools/mtmd/models/llama4.cpp@v0.5.0.
func llama4(b *builder) *graph.Tensor {
	m, patch := int64(b.merge), int64(b.patch)
	h, w := b.ids(b.n+1), b.ids(b.n+1)
	kernel := b.need("v.patch_embd.weight")
	inp := b.Im2col(b.Reshape4D(kernel, patch, patch, 3, b.e), b.raw(3), b.patch, b.patch, 0, 0, 1, 1, true, f32)
	inp = b.Reshape2D(b.mm(kernel, inp), b.e, b.n)
	inp = b.Concat(inp, b.need("v.class_embd"), 1)
	cur := b.vit(inp, b.n+1, vit{act: b.act, pos: b.need("v.position_embd.weight"), rot: b.rope2D(w, h, graph.RopeNormal)})
	cur = b.View2D(cur, b.e, b.n, row(b.e), 0)
	cur = b.Permute(b.Reshape4D(cur, b.e*m, b.px/m, b.py, 1), 0, 2, 1, 3)
	cur = b.Cont4D(cur, b.e*m*m, b.px/m, b.py/m, 1)
	cur = b.Cont2D(cur, b.e*m*m, b.n/m/m)
	cur = b.GELU(b.mm(b.need("mm.model.mlp.1.weight"), cur))
	cur = b.GELU(b.mm(b.need("mm.model.mlp.2.weight"), cur))
	return b.mm(b.need("mm.model.fc.weight"), cur)
}

// cogVLM norms after attention and after feed-forward.
//
// Source: tools/mtmd/models/cogvlm.cpp@v0.5.0.
func cogVLM(b *builder) *graph.Tensor {
	in := b.Add(b.Concat(b.patches(), b.need("v.class_embd"), 1), b.need("v.position_embd.weight"))
	for il := range b.layers {
		cur := b.Add(b.mm(b.lw(il, "attn_qkv.weight"), in), b.need(at("v.blk.%d.attn_qkv.bias", il)))
		part := func(i uint64) *graph.Tensor {
			return b.View3D(cur, b.dh, int64(b.heads), b.n+1, row(b.dh), cur.Nb[1], i*row(b.e))
		}
		cur = b.attend(part(0), part(1), part(2), b.layerAttn(il))
		in = b.Add(b.layerNorm(il, "ln1", cur, false), in)
		cur = b.feed(in, b.layerFFN(il), b.act)
		in = b.Add(b.layerNorm(il, "ln2", cur, false), in)
	}
	cur := b.mm(b.need("mm.model.fc.weight"), b.View2D(in, b.e, b.n, row(b.e), 0))
	cur = b.GELUInplace(b.affine(cur, "mm.post_fc_norm"))
	up := b.mm(b.need("mm.up.weight"), cur)
	cur = b.SwiGLUSplit(b.mm(b.need("mm.gate.weight"), cur), up)
	cur = b.mm(b.need("mm.down.weight"), cur)
	return b.Concat(b.Concat(b.need("v.boi"), cur, 1), b.need("v.eoi"), 1)
}

func hunyuan(k *keys, h *hparams) {
	h.merge, h.act = 2, gelu
	h.limit(16384)
	h.merge = k.int("spatial_merge_size", 2)
	h.maxPixels = k.int("image_max_pixels", h.maxPixels)
	h.warmUp(32)
}

// hunyuanVL convolves patches into tokens and ends each row with a token.
//
// Source: tools/mtmd/models/hunyuanvl.cpp@v0.5.0.
func hunyuanVL(b *builder) *graph.Tensor {
	m := int64(b.merge)
	pos := b.input(f32, b.e, b.n)
	cur := b.vit(b.patches(), b.n, vit{act: b.act, pos: pos})
	cur = b.norm(cur, b.need("mm.pre_norm.weight"), nil, true)
	cur = b.Cont(b.Permute(b.Reshape3D(cur, b.e, b.px, b.py), 2, 0, 1, 3))
	conv := func(x *graph.Tensor, name string, s int) *graph.Tensor {
		x = b.conv(b.need(name+".weight"), x, s, 0)
		if w := b.w(name + ".bias"); w != nil {
			x = b.Add(x, b.Reshape3D(w, 1, 1, w.Ne[0]))
		}
		return x
	}
	cur = conv(b.GELU(conv(cur, "mm.0", b.merge)), "mm.2", 1)
	ow, oh, c := b.px/m, b.py/m, cur.Ne[2]
	end := b.Repeat4D(b.Reshape4D(b.need("v.image_newline"), 1, 1, c, 1), 1, oh, c, 1)
	cur = b.Permute(b.Concat(cur, end, 0), 1, 2, 0, 3)
	cur = b.linear(b.Cont2D(cur, c, (ow+1)*oh), "mm.model.fc")
	begin, last := b.need("mm.image_begin"), b.need("mm.image_end")
	cur = b.Concat(b.Reshape2D(begin, begin.Ne[0], 1), cur, 1)
	cur = b.Concat(cur, b.Reshape2D(last, last.Ne[0], 1), 1)
	return b.norm(cur, b.need("mm.post_norm.weight"), nil, true)
}

func step3Sizes(k *keys, h *hparams) { h.merge = k.int("projector.scale_factor", 4) }

// step3VL halves the grid of patches twice.
//
// Source: tools/mtmd/models/step3vl.cpp@v0.5.0.
func step3VL(b *builder) *graph.Tensor {
	h, w := b.ids(b.n), b.ids(b.n)
	inp := b.patches()
	cur := b.vit(inp, b.n, vit{act: b.act, pos: b.positions(stretch), rot: b.rope2D(w, h, graph.RopeNormal)})
	cur = b.Cont3D(b.Permute(cur, 1, 0, 2, 3), b.px, b.py, b.e)
	for _, name := range []string{"mm.0", "mm.1"} {
		cur = b.conv(b.need(name+".weight"), cur, 2, 1)
		if bias := b.w(name + ".bias"); bias != nil {
			w, h, c := cur.Ne[0], cur.Ne[1], cur.Ne[2]
			cur = b.Add(b.Cont(b.Transpose(b.Reshape2D(cur, w*h, c))), bias)
			cur = b.Reshape3D(b.Cont(b.Transpose(cur)), w, h, c)
		}
	}
	cur = b.Reshape3D(cur, cur.Ne[0]*cur.Ne[1], cur.Ne[2], cur.Ne[3])
	return b.MulMat(b.need("mm.model.fc.weight"), b.Cont(b.Permute(cur, 1, 0, 2, 3)))
}
