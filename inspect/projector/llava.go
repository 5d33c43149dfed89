package projector

import (
	"slices"

	"weigh/inspect/graph"
)

// llava stops before the last layer, or stacks the outputs of several.
//
// Source: tools/mtmd/models/llava.cpp@v0.5.0.
func llava(b *builder) *graph.Tensor {
	class := b.w("v.class_embd")
	nPos := b.n
	if class != nil {
		nPos++
	}
	last := b.layers - 1
	if b.t.Type == "adapter" {
		last = b.layers
	}
	if len(b.features) > 0 && slices.Max(b.features) >= 0 {
		last = slices.Max(b.features)
	}
	inp := b.patches()
	if class != nil {
		inp = b.Concat(inp, class, 1)
	}
	inp = b.Add(inp, b.GetRows(b.need("v.position_embd.weight"), b.ids(nPos)))
	if w := b.w("v.pre_ln.weight"); w != nil {
		inp = b.norm(inp, w, b.w("v.pre_ln.bias"), false)
	}
	var outs []*graph.Tensor
	for il := range last {
		if b.isFeature(il) {
			outs = append(outs, inp)
		}
		cur := b.layerNorm(il, "ln1", inp, false)
		heads := int64(b.heads)
		part := func(name string) *graph.Tensor {
			t := b.bias(b.mm(b.lw(il, name+".weight"), cur), b.lw(il, name+".bias"))
			return b.Reshape3D(t, b.dh, heads, nPos)
		}
		q, k, v := part("attn_q"), part("attn_k"), part("attn_v")
		inp = b.Add(b.attend(q, k, v, b.layerAttn(il)), inp)
		cur = b.layerNorm(il, "ln2", inp, false)
		inp = b.Add(inp, b.feed(cur, b.layerFFN(il), b.act))
	}
	cur := b.postNorm(inp, false)
	if b.isFeature(last) {
		outs = append(outs, cur)
	}
	if len(outs) > 0 {
		cur = outs[0]
		for _, o := range outs[1:] {
			cur = b.Concat(cur, o, 0)
		}
	}
	if b.t.Type == "adapter" {
		return b.glmEdge(cur)
	}
	cur = b.GetRows(b.Reshape2D(cur, cur.Ne[0], cur.Ne[1]), b.ids(b.n))
	switch {
	case b.t.Type == "ldp":
		return b.ldp(cur)
	case b.t.Type == "ldpv2":
		return b.ldpv2(cur)
	case b.w("mm.3.weight") != nil: // as in Yi-VL
		cur = b.linear(cur, "mm.0")
		cur = b.GELU(b.affine(cur, "mm.1"))
		return b.affine(b.linear(cur, "mm.3"), "mm.4")
	}
	cur = b.GELU(b.linear(cur, "mm.0"))
	if b.w("mm.2.weight") != nil {
		cur = b.linear(cur, "mm.2")
	}
	return cur
}

// linear multiplies by a matrix and adds its bias.
func (b *builder) linear(cur *graph.Tensor, name string) *graph.Tensor {
	return b.bias(b.mm(b.need(name+".weight"), cur), b.w(name+".bias"))
}

// affine norms, scales and shifts.
func (b *builder) affine(cur *graph.Tensor, name string) *graph.Tensor {
	return b.norm(cur, b.need(name+".weight"), b.w(name+".bias"), false)
}

// ldpSide is the side of the patch grid that MobileVLM's projectors take.
const ldpSide = 24

// ldp is the projector of MobileVLM.
func (b *builder) ldp(cur *graph.Tensor) *graph.Tensor {
	cur = b.linear(b.GELU(b.linear(cur, "mm.model.mlp.1")), "mm.model.mlp.3")
	in := b.Permute(cur, 1, 0, 2, 3)
	in = b.Cont4D(in, ldpSide, ldpSide, in.Ne[1], in.Ne[2])
	return b.ldpBlock(b.Add(in, b.ldpBlock(in, 1)), 2)
}

// ldpBlock is a convolution with squeeze and excitation: the first gives its
// result in the form of its input, the second flat.
func (b *builder) ldpBlock(in *graph.Tensor, i int) *graph.Tensor {
	name := func(s string) string { return "mm.model.mb_block." + string(rune('0'+i)) + ".block." + s }
	cur := b.Conv2DDW(b.need(name("0.0.weight")), in, i, i, 1, 1, 1, 1)
	cur = b.Cont(b.Permute(cur, 1, 2, 0, 3))
	cur = b.affine(cur, name("0.1"))
	cur = b.Cont(b.Permute(cur, 2, 0, 1, 3))
	hw := b.Hardswish(cur)
	w, h := int(hw.Ne[0]), int(hw.Ne[1])
	cur = b.Pool2D(hw, graph.PoolAvg, w, h, w, h, 0, 0)
	cur = b.Reshape2D(cur, cur.Ne[0]*cur.Ne[1]*cur.Ne[2], cur.Ne[3])
	cur = b.linear(b.ReLU(b.linear(cur, name("1.fc1"))), name("1.fc2"))
	cur = b.Hardsigmoid(cur)
	cur = b.Mul(hw, b.Reshape4D(cur, 1, 1, cur.Ne[0], cur.Ne[1]))
	x, y := cur.Ne[0], cur.Ne[1]
	cur = b.Cont(b.Permute(b.Reshape3D(cur, x*y, cur.Ne[2], cur.Ne[3]), 1, 0, 2, 3))
	cur = b.mm(b.need(name("2.0.weight")), cur)
	cur = b.affine(b.Reshape4D(cur, cur.Ne[0], x, y, cur.Ne[3]), name("2.1"))
	if i == 1 {
		return b.Cont(b.Permute(cur, 2, 0, 1, 3))
	}
	return b.Reshape3D(cur, cur.Ne[0], cur.Ne[1]*cur.Ne[2], cur.Ne[3])
}

// ldpv2 is the projector of MobileVLM V2.
func (b *builder) ldpv2(cur *graph.Tensor) *graph.Tensor {
	cur = b.linear(b.GELU(b.linear(cur, "mm.model.mlp.0")), "mm.model.mlp.2")
	cur = b.Permute(cur, 1, 0, 2, 3)
	cur = b.Cont4D(cur, ldpSide, ldpSide, cur.Ne[1], cur.Ne[2])
	cur = b.Pool2D(cur, graph.PoolAvg, 2, 2, 2, 2, 0, 0)
	peg := b.Conv2DDW(b.need("mm.model.peg.0.weight"), cur, 1, 1, 1, 1, 1, 1)
	peg = b.Add(b.Cont(b.Permute(peg, 1, 2, 0, 3)), b.need("mm.model.peg.0.bias"))
	peg = b.Add(peg, b.Cont(b.Permute(cur, 1, 2, 0, 3)))
	return b.Reshape3D(peg, peg.Ne[0], peg.Ne[1]*peg.Ne[2], peg.Ne[3])
}

// glmEdge is the projector of GLM-Edge.
func (b *builder) glmEdge(cur *graph.Tensor) *graph.Tensor {
	side := int64(0)
	for (side+1)*(side+1) <= cur.Ne[1] {
		side++
	}
	cur = b.Permute(cur, 1, 0, 2, 3)
	cur = b.Cont3D(cur, side, side, cur.Ne[1])
	cur = b.conv(b.need("adapter.conv.weight"), cur, 2, 0)
	cur = b.Reshape3D(cur, cur.Ne[0]*cur.Ne[1], cur.Ne[2], 1)
	cur = b.Add(b.Cont(b.Permute(cur, 1, 0, 2, 3)), b.need("adapter.conv.bias"))
	cur = b.mm(b.need("adapter.linear.linear.weight"), cur)
	cur = b.GELUInplace(b.affine(cur, "adapter.linear.norm1"))
	gate := b.mm(b.need("adapter.linear.gate.weight"), cur)
	cur = b.SwiGLUSplit(gate, b.mm(b.need("adapter.linear.dense_h_to_4h.weight"), cur))
	cur = b.mm(b.need("adapter.linear.dense_4h_to_h.weight"), cur)
	return b.Concat(b.Concat(b.need("adapter.boi"), cur, 1), b.need("adapter.eoi"), 1)
}
