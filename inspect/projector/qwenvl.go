package projector

import (
	"slices"

	"weigh/formats"
	"weigh/inspect/graph"
)

// qwenVL reads the parameters of Qwen-VL towers.
func qwenVL(windowed bool) func(k *keys, h *hparams) {
	return func(k *keys, h *hparams) {
		h.merge = k.int("spatial_merge_size", 2)
		if h.window = k.int("n_wa_pattern", 0); windowed {
			h.window = k.need("n_wa_pattern")
		}
	}
}

// A windowing is attention within windows: patches are put in their order,
// four at a time.
type windowing struct{ mask, inverse *graph.Tensor }

// enter brings the patches in into the order of windows.
func (b *builder) enter(in *graph.Tensor) (windowing, *graph.Tensor) {
	w := windowing{inverse: b.ids(b.n / 4), mask: b.input(f32, b.n, b.n)}
	if b.flash {
		w.mask = b.Cast(w.mask, formats.F16)
	}
	in = b.GetRows(b.Reshape2D(in, b.e*4, b.n/4), w.inverse)
	return w, b.Reshape3D(in, b.e, b.n, 1)
}

// leave brings tokens back into their order.
func (b *builder) leave(cur *graph.Tensor) *graph.Tensor {
	width := int64(b.projector)
	cur = b.GetRows(b.Reshape2D(cur, width, b.n/4), b.ids(b.n/4))
	return b.Reshape3D(cur, width, b.n/4, 1)
}

// qwenLayers appends the layers, with attention everywhere in the layers that
// full names.
func (b *builder) qwenLayers(in *graph.Tensor, rms bool, mask *graph.Tensor, full func(il int) bool, after func(cur *graph.Tensor, il int)) *graph.Tensor {
	heads := int64(b.heads)
	rot := b.ropeVision()
	for il := range b.layers {
		cur := b.layerNorm(il, "ln1", in, rms)
		var q, k, v *graph.Tensor
		if w := b.lw(il, "attn_qkv.weight"); w != nil {
			kv := int64(b.headsKV)
			cur = b.bias(b.mm(w, cur), b.lw(il, "attn_qkv.bias"))
			part := func(heads int64, offset uint64) *graph.Tensor {
				return b.View3D(cur, b.dh, heads, b.n, row(b.dh), cur.Nb[1], offset)
			}
			q, k, v = part(heads, 0), part(kv, row(b.e)), part(kv, row(b.e+b.dh*kv))
		} else {
			part := func(name string) *graph.Tensor {
				t := b.Add(b.mm(b.lw(il, name+".weight"), cur), b.lw(il, name+".bias"))
				return b.Reshape3D(t, b.dh, heads, b.n)
			}
			q, k, v = part("attn_q"), part("attn_k"), part("attn_v")
		}
		a := b.layerAttn(il)
		if !full(il) {
			a.mask = mask
		}
		in = b.Add(b.attend(rot(q), rot(k), v, a), in)
		cur = b.layerNorm(il, "ln2", in, rms)
		in = b.Add(in, b.feed(cur, b.layerFFN(il), b.act))
		if after != nil {
			after(in, il)
		}
	}
	return in
}

// inPattern reports which layers see the whole image.
func (b *builder) inPattern(il int) bool { return b.window == 0 || (il+1)%b.window == 0 }

// qwen2VL is Qwen2-VL and, with windows, Qwen2.5-VL.
//
// Source: tools/mtmd/models/qwen2vl.cpp@v0.5.0.
func qwen2VL(b *builder) *graph.Tensor {
	rms := b.t.Type == "qwen2.5vl_merger"
	in := b.twoFrames()
	if w := b.w("v.pre_ln.weight"); w != nil {
		in = b.norm(in, w, b.w("v.pre_ln.bias"), rms)
	}
	return b.windowedQwen(in, rms)
}

func (b *builder) windowedQwen(in *graph.Tensor, rms bool) *graph.Tensor {
	var w windowing
	if b.window > 0 {
		w, in = b.enter(in)
	}
	cur := b.postNorm(b.qwenLayers(in, rms, w.mask, b.inPattern, nil), rms)
	cur = b.feed(b.Reshape3D(cur, b.e*4, b.n/4, 1), b.mlp("mm.0", "mm.2"), gelu)
	if b.window > 0 {
		cur = b.leave(cur)
	}
	return cur
}

// exaone is as Qwen2.5-VL with shared key heads.
//
// Source: tools/mtmd/models/exaone4_5.cpp@v0.5.0.
func exaone(b *builder) *graph.Tensor { return b.windowedQwen(b.twoFrames(), true) }

// qwen3VL adds the outputs of some layers to the embeddings' width.
//
// Source: tools/mtmd/models/qwen3vl.cpp@v0.5.0.
func qwen3VL(b *builder) *graph.Tensor {
	in := b.Add(b.twoFrames(), b.need("v.patch_embd.bias"))
	in = b.Add(in, b.regroup(b.positions(graph.ScaleBilinear|graph.ScaleAlignCorners), 2))
	if w := b.w("v.pre_ln.weight"); w != nil {
		in = b.norm(in, w, b.w("v.pre_ln.bias"), false)
	}
	m := max(int64(b.merge*b.merge), 1)
	var deep *graph.Tensor
	cur := b.qwenLayers(in, false, nil, func(int) bool { return true }, func(cur *graph.Tensor, il int) {
		if b.w(at("v.deepstack.%d.fc1.weight", il)) == nil {
			return
		}
		name := func(s string) *graph.Tensor { return b.w(at("v.deepstack.%d.%s", il, s)) }
		f := b.Reshape3D(cur, b.e*m, b.n/m, 1)
		f = b.norm(f, name("norm.weight"), name("norm.bias"), false)
		f = b.feed(f, ffn{up: name("fc1.weight"), upB: name("fc1.bias"), down: name("fc2.weight"), downB: name("fc2.bias")}, gelu)
		if deep == nil {
			deep = f
			return
		}
		deep = b.Concat(deep, f, 0)
	})
	cur = b.Reshape3D(b.postNorm(cur, false), b.e*4, b.n/4, 1)
	cur = b.feed(cur, b.mlp("mm.0", "mm.2"), gelu)
	if deep != nil {
		cur = b.Concat(cur, deep, 0)
	}
	return cur
}

func youtu(k *keys, h *hparams) {
	h.merge = k.int("spatial_merge_size", 2)
	k.need("window_size")
	h.full = k.ints("wa_layer_indexes")
}

// youtuVL embeds patches by a product.
//
// Source: tools/mtmd/models/youtuvl.cpp@v0.5.0.
func youtuVL(b *builder) *graph.Tensor {
	const m = 2
	p, hm, wm := int64(b.patch), b.py/m, b.px/m
	in := b.Permute(b.Reshape4D(b.raw(3), wm*m*p, m*p, hm, 3), 1, 2, 3, 0)
	in = b.Permute(b.Cont4D(in, m*p*3, wm, m*p, hm), 0, 2, 1, 3)
	in = b.Permute(b.Cont4D(in, m*p*3, p, m, hm*wm), 1, 0, 2, 3)
	in = b.Permute(b.Cont4D(in, p, 3, p, hm*wm*m*m), 2, 0, 1, 3)
	in = b.Cont3D(in, 3*p*p, hm*wm*m*m, 1)
	in = b.bias(b.mm(b.need("v.patch_embd.weight"), in), b.w("v.patch_embd.bias"))
	in = b.Reshape2D(in, b.e, b.n)
	if w := b.w("v.pre_ln.weight"); w != nil {
		in = b.norm(in, w, b.w("v.pre_ln.bias"), false)
	}
	var w windowing
	if len(b.full) > 0 {
		w, in = b.enter(in)
	}
	cur := b.qwenLayers(in, false, w.mask, func(il int) bool { return len(b.full) == 0 || slices.Contains(b.full, il) }, nil)
	if len(b.full) > 0 {
		cur = b.GetRows(b.Reshape2D(cur, b.e*4, b.n/4), b.ids(b.n/4))
		cur = b.Reshape3D(cur, b.e, b.n, 1)
	}
	cur = b.norm(b.postNorm(cur, false), b.need("mm.input_norm.weight"), nil, true)
	return b.feed(b.Reshape3D(cur, b.e*4, b.n/4, 1), b.mlp("mm.0", "mm.2"), gelu)
}

func mimo(k *keys, h *hparams) {
	h.merge, h.headsKV = k.int("spatial_merge_size", 2), k.need("attention.head_count_kv")
	k.need("window_size")
	h.modes = k.ints("wa_pattern_mode")
}

// mimoVL has windows by rows (mode 0) and by columns (mode 1), with sinks.
//
// Source: tools/mtmd/models/mimovl.cpp@v0.5.0.
func mimoVL(b *builder) *graph.Tensor {
	heads, kv, m := int64(b.heads), int64(b.headsKV), int64(b.merge*b.merge)
	first := b.need("v.blk.0.attn_qkv.weight")
	if heads+2*kv == 0 || m == 0 || b.n%m != 0 {
		b.Fail("%d and %d heads with %d patches", heads, kv, b.n)
	}
	d, units := first.Ne[1]/(heads+2*kv), b.n/m
	exact := func(w, x *graph.Tensor) *graph.Tensor { return b.mm(w, x).SetPrec(graph.PrecF32) }
	in := b.twoFrames()
	byRow, byCol := b.ids(b.n*4), b.ids(b.n*4)
	order := b.input(f32, units)
	toCol, toRow := b.Cast(order, formats.I32), b.Argsort(order, 0)
	mask := b.input(f32, b.n, b.n)
	if b.flash {
		mask = b.Cast(mask, formats.F16)
	}
	reorder := func(x, ids *graph.Tensor) *graph.Tensor {
		return b.Reshape3D(b.GetRows(b.Reshape2D(x, b.e*m, units), ids), b.e, b.n, 1)
	}
	before := -1
	for il := range b.layers {
		mode := b.modes[il]
		switch {
		case mode == 1 && before != 1:
			in = reorder(in, toCol)
		case mode != 1 && before == 1:
			in = reorder(in, toRow)
		}
		before = mode
		cur := b.layerNorm(il, "ln1", in, true)
		cur = b.bias(exact(b.lw(il, "attn_qkv.weight"), cur), b.lw(il, "attn_qkv.bias"))
		part := func(heads, offset int64) *graph.Tensor {
			return b.View3D(cur, d, heads, b.n, row(d), cur.Nb[1], row(offset*d))
		}
		pos := byRow
		if mode == 1 {
			pos = byCol
		}
		rot := func(x *graph.Tensor) *graph.Tensor { return b.RopeMulti(x, pos, nil, int(d/2), graph.RopeVision) }
		a := b.layerAttn(il)
		if mode != -1 {
			a.mask, a.sinks = mask, b.lw(il, "attn_sinks")
		}
		in = b.Add(b.attend(rot(part(heads, 0)), rot(part(kv, heads)), part(kv, heads+kv), a), in)
		in = b.Add(in, b.feed(b.layerNorm(il, "ln2", in, true), b.layerFFN(il), b.act))
	}
	if before == 1 {
		in = reorder(in, toRow)
	}
	in = b.normNamed(in, "v.post_ln", false)
	f := b.mlp("mm.0", "mm.2")
	f.upB, f.downB = nil, nil
	return b.feed(b.Reshape3D(in, b.e*m, units, 1), f, gelu)
}

// glm4V convolves squares of patches into tokens.
//
// Source: tools/mtmd/models/glm4v.cpp@v0.5.0.
func glm4V(b *builder) *graph.Tensor {
	m := int64(b.merge)
	rot := b.ropeVision()
	in := b.Add(b.twoFrames(), b.need("v.patch_embd.bias"))
	in = b.normNamed(in, "v.norm_embd", true)
	var pos *graph.Tensor
	if b.w("v.position_embd.weight") != nil {
		pos = b.regroup(b.positions(graph.ScaleBicubic), 2)
	}
	cur := b.vit(in, b.n, vit{rms: true, act: b.act, pos: pos, rot: rot})
	n := b.n / m / m
	cur = b.Cont(b.Permute(b.Reshape4D(cur, b.e, m, m, n), 2, 0, 1, 3))
	cur = b.conv(b.need("mm.patch_merger.weight"), cur, b.merge, 0)
	cur = b.Add(b.Reshape2D(cur, cur.Ne[2], n), b.need("mm.patch_merger.bias"))
	cur = b.mm(b.need("mm.model.fc.weight"), cur)
	cur = b.GELUErf(b.affine(cur, "mm.post_norm"))
	f := b.mlp("mm.up", "mm.down")
	f.gate, f.gateB = b.need("mm.gate.weight"), b.w("mm.gate.bias")
	return b.feed(cur, f, b.act)
}

// miniMax rotates two thirds of each head.
//
// Source: tools/mtmd/models/minimax-m3.cpp@v0.5.0.
func miniMax(b *builder) *graph.Tensor {
	m := int64(b.merge)
	raw := b.raw(3)
	in := b.Add(b.conv(b.need("v.patch_embd.weight"), raw, b.patch, 0), b.conv(b.need("v.patch_embd.weight.1"), raw, b.patch, 0))
	in = b.regroup(b.Permute(in, 1, 2, 0, 3), m)
	h, w := b.ids(b.n), b.ids(b.n)
	rot := func(x *graph.Tensor) *graph.Tensor {
		axis := 2 * ((2 * (int(x.Ne[0]) / 2) / 3) / 2)
		x = b.RopeSetOffset(b.Rope(x, h, nil, axis, graph.RopeNeoX), axis)
		return b.RopeSetOffset(b.Rope(x, w, nil, axis, graph.RopeNeoX), 2*axis)
	}
	cur := b.vit(in, b.n, vit{act: geluErf, rot: rot})
	cur = b.feed(cur, b.mlp("mm.1", "mm.2"), geluErf)
	cur = b.Reshape2D(cur, cur.Ne[0]*m*m, b.n/(m*m))
	return b.feed(cur, b.mlp("mm.merger.fc1", "mm.merger.fc2"), geluErf)
}
