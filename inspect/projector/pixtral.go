package projector

import (
	"weigh/formats"
	"weigh/inspect/graph"
)

// pixtral also stands for Mistral Small 3.1 and LightOnOCR.
//
// Source: tools/mtmd/models/pixtral.cpp@v0.5.0.
func pixtral(b *builder) *graph.Tensor {
	m := int64(b.merge)
	h, w := b.ids(b.n), b.ids(b.n)
	inp := b.patches()
	cur := b.vit(inp, b.n, vit{rms: true, act: b.act, rot: b.rope2D(h, w, graph.RopeNormal)})
	if merger := b.w("mm.patch_merger.weight"); merger != nil {
		cur = b.Mul(b.RMSNorm(cur), b.need("mm.input_norm.weight"))
		cur = b.Cont(b.Permute(b.Reshape3D(cur, b.e, b.px, b.py), 2, 0, 1, 3))
		kernel := b.View3D(cur, m, m, cur.Ne[2], 0, 0, 0)
		cur = b.Im2col(kernel, cur, b.merge, b.merge, 0, 0, 1, 1, true, formats.F32)
		cur = b.mm(merger, b.Reshape2D(cur, cur.Ne[0], cur.Ne[1]*cur.Ne[2]))
	}
	cur = b.feed(cur, b.mlp("mm.1", "mm.2"), gelu)
	if tok := b.w("v.token_embd.img_break"); tok != nil && b.t.Type == "pixtral" {
		px, py, e := b.px/m, b.py/m, cur.Ne[0]
		rows := b.Reshape3D(cur, e, px, py)
		end := b.Add(b.Scale(b.Leaf("", rows.Type, e, 1, py)), tok)
		cur = b.View2D(b.Concat(rows, end, 1), e, px*py+py-1, row(e), 0)
	}
	return cur
}

// kimiVL norms patches before it merges them.
//
// Source: tools/mtmd/models/kimivl.cpp@v0.5.0.
func kimiVL(b *builder) *graph.Tensor {
	h, w := b.ids(b.n), b.ids(b.n)
	pos := b.positions(stretch)
	cur := b.vit(b.patches(), b.n, vit{act: b.act, pos: pos, rot: b.rope2D(w, h, graph.RopeNormal)})
	return b.kimiMerge(cur)
}

func (b *builder) kimiMerge(cur *graph.Tensor) *graph.Tensor {
	m := int64(b.merge)
	cur = b.shuffle(cur)
	wide, n := cur.Ne[0], cur.Ne[1]
	cur = b.View2D(cur, b.e, n*m*m, row(b.e), 0)
	cur = b.affine(cur, "mm.input_norm")
	cur = b.View2D(cur, wide, n, row(wide), 0)
	return b.feed(cur, b.mlp("mm.1", "mm.2"), gelu)
}

func kimiK25Sizes(k *keys, h *hparams) {
	h.merge = k.int("projector.scale_factor", 1)
	lo, hi := k.int("image_min_pixels", 0), k.int("image_max_pixels", 0)
	if lo > 0 && hi > 0 {
		h.maxPixels, h.warm = hi, isqrt(hi)
		return
	}
	h.limit(4096)
}

// kimiK25 keeps its positions as a grid.
//
// Source: tools/mtmd/models/kimik25.cpp@v0.5.0.
func kimiK25(b *builder) *graph.Tensor {
	h, w := b.ids(b.n), b.ids(b.n)
	pos := b.need("v.position_embd.weight")
	if pos.Ne[1] != b.px || pos.Ne[2] != b.py {
		pos = b.Interpolate(b.Permute(pos, 2, 1, 0, 3), b.py, b.px, b.e, 1, graph.ScaleBicubic)
		pos = b.Permute(pos, 2, 1, 0, 3)
	}
	pos = b.Cont2D(pos, b.e, b.n)
	inp := b.Add(b.patches(), pos)
	return b.kimiMerge(b.vit(inp, b.n, vit{act: b.act, rot: b.rope2D(w, h, graph.RopeNormal)}))
}

// paddleOCR rotates as Qwen2-VL does.
//
// Source: tools/mtmd/models/paddleocr.cpp@v0.5.0.
func paddleOCR(b *builder) *graph.Tensor {
	rot := b.ropeVision()
	pos := b.positions(stretch)
	cur := b.vit(b.patches(), b.n, vit{act: b.act, pos: pos, rot: rot})
	return b.feed(b.shuffle(b.normNamed(cur, "mm.input_norm", false)), b.mlp("mm.1", "mm.2"), b.act)
}

func dots3Note(k *keys, h *hparams) {
	h.merge, h.expert = k.need("spatial_merge_size"), k.need("expert_used_count")
	h.pixels(k)
	h.warmUp(46)
}

// dotsOCR may have experts.
//
// Source: tools/mtmd/models/dotsocr.cpp@v0.5.0.
func dotsOCR(b *builder) *graph.Tensor {
	rot := b.ropeVision()
	cur := b.vit(b.patches(), b.n, vit{rms: true, act: b.act, rot: rot})
	return b.feed(b.shuffle(b.normNamed(cur, "mm.input_norm", false)), b.mlp("mm.0", "mm.2"), geluErf)
}
