package projector

import "weigh/inspect/graph"

// siglip appends a plain vision transformer with learned positions.
//
// Source: tools/mtmd/models/siglip.cpp@v0.5.0.
func (b *builder) siglip(resize bool) *graph.Tensor {
	inp := b.patches()
	var pos *graph.Tensor
	if resize {
		pos = b.positions(stretch)
	} else {
		pos = b.w("v.position_embd.weight")
	}
	return b.vit(inp, b.n, vit{act: b.act, pos: pos})
}

func gemma3(b *builder) *graph.Tensor {
	cur := b.siglip(false)
	cur = b.Cont4D(b.Transpose(cur), b.px, b.px, b.e, 1)
	cur = b.Pool2D(cur, graph.PoolAvg, b.merge, b.merge, b.merge, b.merge, 0, 0)
	cur = b.Reshape3D(cur, cur.Ne[0]*cur.Ne[0], b.e, 1)
	cur = b.Cont(b.Transpose(cur))
	cur = b.Mul(b.RMSNorm(cur), b.need("mm.soft_emb_norm.weight"))
	return b.MulMat(b.Cont(b.Transpose(b.need("mm.input_projection.weight"))), cur)
}

func idefics3(b *builder) *graph.Tensor {
	return b.mm(b.need("mm.model.fc.weight"), b.shuffle(b.siglip(false)))
}

func lfm2(b *builder) *graph.Tensor {
	cur := b.shuffle(b.siglip(true))
	if w := b.w("mm.input_norm.weight"); w != nil {
		cur = b.Mul(b.Norm(cur), w)
	}
	cur = b.bias(cur, b.w("mm.input_norm.bias"))
	return b.feed(cur, b.mlp("mm.1", "mm.2"), gelu)
}

func janus(b *builder) *graph.Tensor { return b.feed(b.siglip(false), b.mlp("mm.0", "mm.1"), b.act) }

func phi4(b *builder) *graph.Tensor { return b.feed(b.siglip(true), b.mlp("mm.0", "mm.2"), gelu) }
