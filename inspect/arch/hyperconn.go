package arch

import (
	"weigh/formats"
	"weigh/inspect/graph"
)

// Hyper-connections keep several residual streams, [NEmbd][streams][tokens]:
// each block reads a weighted sum of them, and its output is spread over all.

// maxStreams bounds the residual streams, which hyper-connections handle one
// by one.
const maxStreams = 64

// streams reads the number of residual streams.
func (k *Keys) streams() int {
	n := k.Need("hyper_connection.count")
	if k.err == nil && (n < 1 || n > maxStreams) {
		k.fail("hyper_connection.count", "%d, want 1 to %d", n, maxStreams)
	}
	return n
}

// hcMixes projects the normed streams x to the coefficients of a connection.
func (b *Builder) hcMixes(x, fn *graph.Tensor) *graph.Tensor {
	return b.MulMat(fn, b.RMSNorm(b.Reshape2D(x, x.Ne[0]*x.Ne[1], x.Ne[2])))
}

// hcAffine scales and shifts n coefficients from element at on, by the i-th
// scale of a connection.
func (b *Builder) hcAffine(mixes, scale, base *graph.Tensor, n, at, i int64) *graph.Tensor {
	t := b.View2D(mixes, n, mixes.Ne[1], mixes.Nb[1], f32Row(at))
	return b.Add(b.Mul(t, b.View1D(scale, 1, f32Row(i))), b.View1D(base, n, f32Row(at)))
}

// hcPre reduces the streams x to a block's input, and returns the weights and
// the matrix that spread its output again. (build_hc_pre)
func (b *Builder) hcPre(x *graph.Tensor, name string, il int) (cur, post, comb *graph.Tensor) {
	hc := int64(b.DSV4HCMult)
	if hc != 4 {
		b.Fail("%d residual streams, llama.cpp builds four", hc)
	}
	scale, base := b.need(il, name+"_scale.weight"), b.need(il, name+"_base.weight")
	mixes := b.hcMixes(x, b.W(il, name+"_fn.weight"))
	pre := b.ScaleBias(b.Sigmoid(b.hcAffine(mixes, scale, base, hc, 0, 0)))
	post = b.Scale(b.Sigmoid(b.hcAffine(mixes, scale, base, hc, hc, 1)))
	if b.C.NoFusedHCComb {
		comb = b.hcAffine(mixes, scale, base, hc*hc, 2*hc, 2)
		comb = b.sinkhorn(b.Reshape3D(comb, hc, hc, x.Ne[2]))
	} else {
		comb = b.DSV4HCComb(mixes, scale, base)
		b.Fuse(comb, FusedHCComb, il)
	}
	if b.C.NoFusedHCPre {
		return b.hcSum(x, pre), post, comb
	}
	cur = b.DSV4HCPre(x, pre)
	b.Fuse(cur, FusedHCPre, il)
	return cur, post, comb
}

// sinkhorn balances the rows and columns of comb. (build_hc_sinkhorn)
func (b *Builder) sinkhorn(comb *graph.Tensor) *graph.Tensor {
	comb = b.SoftMax(comb)
	eps := b.Fill(b.Leaf("eps", formats.F32, 1))
	comb = b.Add(comb, eps)
	for i := range max(1, b.DSV4HCSinkhornIters) {
		if i > 0 {
			comb = b.Div(comb, b.Add(b.SumRows(comb), eps))
		}
		sum := b.SumRows(b.Cont(b.Permute(comb, 1, 0, 2, 3)))
		comb = b.Div(comb, b.Permute(b.Add(sum, eps), 1, 0, 2, 3))
	}
	return comb
}

// hcSum sums the streams x, weighted by w [streams][tokens].
func (b *Builder) hcSum(x, w *graph.Tensor) *graph.Tensor {
	var sum *graph.Tensor
	for i := range uint64(x.Ne[1]) {
		cur := b.Mul(b.View2D(x, x.Ne[0], x.Ne[2], x.Nb[2], i*x.Nb[1]), b.View2D(w, 1, x.Ne[2], w.Nb[1], i*w.Nb[0]))
		if sum != nil {
			cur = b.Add(sum, cur)
		}
		sum = cur
	}
	return sum
}

// hcPost spreads a block's output over the streams, which comb mixes.
// (build_hc_post)
func (b *Builder) hcPost(x, residual, post, comb *graph.Tensor, il int) *graph.Tensor {
	if !b.C.NoFusedHCPost {
		out := b.DSV4HCPost(x, residual, post, comb)
		b.Fuse(out, FusedHCPost, il)
		return out
	}
	n := x.Ne[1]
	var out *graph.Tensor
	for dst := range uint64(residual.Ne[1]) {
		cur := b.Mul(x, b.View2D(post, 1, n, post.Nb[1], dst*post.Nb[0]))
		for src := range uint64(residual.Ne[1]) {
			r := b.View2D(residual, residual.Ne[0], n, residual.Nb[2], src*residual.Nb[1])
			c := b.View2D(comb, 1, n, comb.Nb[2], dst*comb.Nb[0]+src*comb.Nb[1])
			cur = b.Add(cur, b.Mul(r, c))
		}
		cur = b.Reshape3D(cur, residual.Ne[0], 1, n)
		if out != nil {
			cur = b.Concat(out, cur, 1)
		}
		out = cur
	}
	return out
}

// hcHeadWeights are the weights by which the streams are summed before the
// output.
func (b *Builder) hcHeadWeights(x *graph.Tensor) *graph.Tensor {
	mixes := b.hcMixes(x, b.T("output_hc_fn.weight"))
	pre := b.Add(b.Mul(mixes, b.T("output_hc_scale.weight")), b.T("output_hc_base.weight"))
	return b.ScaleBias(b.Sigmoid(pre))
}

// hcHead sums the streams before the output. (build_hc_head)
func (b *Builder) hcHead(x *graph.Tensor) *graph.Tensor { return b.hcSum(x, b.hcHeadWeights(x)) }

// ihcPre is hcPre without the matrix that mixes the streams.
func (b *Builder) ihcPre(x *graph.Tensor, name string, il int) (cur, post *graph.Tensor) {
	hc := int64(b.DSV4HCMult)
	scale, base := b.need(il, name+"_scale.weight"), b.need(il, name+"_base.weight")
	mixes := b.hcMixes(x, b.W(il, name+"_fn.weight"))
	pre := b.ScaleBias(b.Sigmoid(b.hcAffine(mixes, scale, base, hc, 0, 0)))
	post = b.ScaleBias(b.Scale(b.Sigmoid(b.hcAffine(mixes, scale, base, hc, hc, 1))))
	return b.ihcSum(x, pre), post
}

// ihcSum is hcSum in F32, whatever the streams' type.
func (b *Builder) ihcSum(x, w *graph.Tensor) *graph.Tensor {
	return b.Cast(b.hcSum(b.Cast(x, formats.F32), w), x.Type)
}

// ihcPost adds a block's output to each stream, weighted by its gate.
func (b *Builder) ihcPost(cur, residual, post *graph.Tensor) *graph.Tensor {
	n := cur.Ne[1]
	x, w, res := b.Cast(cur, formats.F32), b.Cast(post, formats.F32), b.Cast(residual, formats.F32)
	var out *graph.Tensor
	for i := range uint64(residual.Ne[1]) {
		one := b.View2D(res, res.Ne[0], n, res.Nb[2], i*res.Nb[1])
		one = b.Add(one, b.Mul(x, b.View2D(w, 1, n, w.Nb[1], i*w.Nb[0])))
		one = b.Reshape3D(one, res.Ne[0], 1, n)
		if out != nil {
			one = b.Concat(out, one, 1)
		}
		out = one
	}
	return b.Cast(out, residual.Type)
}
