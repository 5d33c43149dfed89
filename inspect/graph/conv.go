package graph

import "weigh/formats"

// maxStep bounds strides, paddings, dilations and window sizes.
const maxStep = 1 << 20

// sliding returns how many positions a window of ks elements has on ins
// elements with stride s, padding p and dilation d.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_calc_conv_output_size.
func (g *Graph) sliding(op Op, ins, ks int64, s, p, d int) int64 {
	if s <= 0 || s > maxStep || p < 0 || p > maxStep || d < 0 || d > maxStep {
		g.fail(op, "stride %d, padding %d or dilation %d is out of range", s, p, d)
	}
	n := (ins+2*int64(p)-int64(d)*(ks-1)-1)/int64(s) + 1
	if n <= 0 || ks <= 0 {
		g.fail(op, "a kernel of %d elements does not fit on %d", ks, ins)
	}
	return n
}

// columnType is the type that a convolution with kernel a unfolds into.
func columnType(a *Tensor) formats.DType {
	if a.Type == formats.BF16 {
		return formats.F32
	}
	return formats.F16
}

// Im2col unfolds b [w, h, c, n] into the columns that the kernel a [kw, kh, c,
// ...] sees: [c*kh*kw, ow, oh, n] of type typ; without is2D, b [w, c, n] into
// [c*kw, ow, n]. Params: 0 and 1 strides, 2 and 3 paddings, 4 and 5 dilations.
func (g *Graph) Im2col(a, b *Tensor, s0, s1, p0, p1, d0, d1 int, is2D bool, typ formats.DType) *Tensor {
	g.need(OpIm2col, a, b)
	var ne [4]int64
	if is2D {
		g.must(OpIm2col, a.Ne[2] == b.Ne[2], "want as many channels in kernel and data", a, b)
		ne = [4]int64{product([4]int64{a.Ne[0], a.Ne[1], a.Ne[2], 1}), 0, g.sliding(OpIm2col, b.Ne[1], a.Ne[1], s1, p1, d1), b.Ne[3]}
	} else {
		g.must(OpIm2col, a.Ne[1] == b.Ne[1] && b.Ne[3] == 1, "want as many channels in kernel and data", a, b)
		ne = [4]int64{product([4]int64{a.Ne[0], a.Ne[1], 1, 1}), 0, b.Ne[2], 1}
	}
	ne[1] = g.sliding(OpIm2col, b.Ne[0], a.Ne[0], s0, p0, d0)
	t := g.node(OpIm2col, typ, ne)
	t.Src[0], t.Src[1] = a, b
	t.Params = [6]int32{int32(s0), int32(s1), int32(p0), int32(p1), int32(d0), int32(d1)}
	return t
}

// Conv1D convolves b [l, c_in, n] with the kernel a [k, c_in, c_out]: [l_out,
// c_out, n] by unfolding and a matrix product.
func (g *Graph) Conv1D(a, b *Tensor, s0, p0, d0 int) *Tensor {
	g.need(OpIm2col, a, b)
	col := g.Im2col(a, b, s0, 0, p0, 0, d0, 0, false, columnType(a))
	t := g.MulMat(
		g.Reshape2D(col, col.Ne[0], product([4]int64{col.Ne[2], col.Ne[1], 1, 1})),
		g.Reshape2D(a, product([4]int64{a.Ne[0], a.Ne[1], 1, 1}), a.Ne[2]))
	return g.Reshape3D(t, col.Ne[1], a.Ne[2], col.Ne[2])
}

// Conv1DPh is Conv1D with half a kernel of padding.
func (g *Graph) Conv1DPh(a, b *Tensor, s, d int) *Tensor {
	return g.Conv1D(a, b, s, g.half(a, 0), d)
}

// Conv1DDW convolves each channel of b [l, c, n] with its own kernel of a [k,
// 1, c].
func (g *Graph) Conv1DDW(a, b *Tensor, s0, p0, d0 int) *Tensor {
	g.need(OpIm2col, a, b)
	rows := g.Reshape4D(b, b.Ne[0], 1, b.Ne[1], b.Ne[2])
	t := g.MulMat(g.Im2col(a, rows, s0, 0, p0, 0, d0, 0, false, columnType(a)), a)
	return g.Reshape3D(t, t.Ne[0], t.Ne[2], 1)
}

// Conv1DDWPh is Conv1DDW with half a kernel of padding.
func (g *Graph) Conv1DDWPh(a, b *Tensor, s0, d0 int) *Tensor {
	return g.Conv1DDW(a, b, s0, g.half(a, 0), d0)
}

// half returns half the length of dimension i of the kernel a.
func (g *Graph) half(a *Tensor, i int) int {
	g.need(OpIm2col, a, a)
	return int(min(a.Ne[i]/2, maxStep+1))
}

// Col2im1D folds the columns a [k*oc, l] with stride s0 and padding p0 into
// [l_out, oc]. Params: 0 s0, 1 oc, 2 p0.
func (g *Graph) Col2im1D(a *Tensor, s0, oc, p0 int) *Tensor {
	g.need(OpCol2im1D, a, a)
	g.must1(OpCol2im1D, a.matrix() && a.Contiguous() && (a.Type == formats.F32 || a.Type == formats.F16 || a.Type == formats.BF16),
		"want a packed float matrix", a)
	if s0 <= 0 || s0 > maxStep || oc <= 0 || p0 < 0 || p0 > maxStep || !divides(int64(oc), a.Ne[0]) {
		g.fail(OpCol2im1D, "stride %d, %d channels or padding %d do not fit %v", s0, oc, p0, a.Ne)
	}
	k := a.Ne[0] / int64(oc)
	n := (a.Ne[1]-1)*int64(s0) + k - 2*int64(p0)
	if k <= 0 || n <= 0 {
		g.fail(OpCol2im1D, "nothing is left of %v", a.Ne)
	}
	t := g.node(OpCol2im1D, a.Type, [4]int64{n, int64(oc), 1, 1})
	t.Src[0] = a
	t.Params = [6]int32{int32(s0), int32(oc), int32(p0)}
	return t
}

// ConvTranspose1D spreads b [l, c_in] with the kernel a [k, c_out, c_in] and
// stride s0: F32 of [l_out, c_out, b.Ne[2]]. Params: 0 s0.
func (g *Graph) ConvTranspose1D(a, b *Tensor, s0 int) *Tensor {
	g.need(OpConvTranspose1D, a, b)
	g.must(OpConvTranspose1D, b.matrix() && a.Ne[2] == b.Ne[1] && a.Ne[3] == 1, "want as many channels in kernel and data", a, b)
	t := g.node(OpConvTranspose1D, formats.F32, [4]int64{g.spread(OpConvTranspose1D, b.Ne[0], a.Ne[0], s0), a.Ne[1], b.Ne[2], 1})
	t.Src[0], t.Src[1] = a, b
	t.Params[0] = int32(s0)
	return t
}

// ConvTranspose2DP0 spreads b [w, h, c_in, n] with the kernel a [kw, kh, c_out,
// c_in]: F32 of [w_out, h_out, c_out, n]. Params: 0 stride.
func (g *Graph) ConvTranspose2DP0(a, b *Tensor, stride int) *Tensor {
	g.need(OpConvTranspose2D, a, b)
	g.must(OpConvTranspose2D, a.Ne[3] == b.Ne[2], "want as many channels in kernel and data", a, b)
	t := g.node(OpConvTranspose2D, formats.F32, [4]int64{
		g.spread(OpConvTranspose2D, b.Ne[0], a.Ne[0], stride),
		g.spread(OpConvTranspose2D, b.Ne[1], a.Ne[1], stride),
		a.Ne[2], b.Ne[3],
	})
	t.Src[0], t.Src[1] = a, b
	t.Params[0] = int32(stride)
	return t
}

// spread returns how many elements a window of ks elements covers in ins
// positions with stride s.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_calc_conv_transpose_output_size.
func (g *Graph) spread(op Op, ins, ks int64, s int) int64 {
	if s <= 0 || s > maxStep {
		g.fail(op, "stride %d is out of range", s)
	}
	return (ins-1)*int64(s) + ks
}

// Conv2D convolves b [w, h, c_in, n] with the kernel a [kw, kh, c_in, c_out]:
// [ow, oh, c_out, n] by unfolding and a matrix product.
func (g *Graph) Conv2D(a, b *Tensor, s0, s1, p0, p1, d0, d1 int) *Tensor {
	g.need(OpIm2col, a, b)
	col := g.Im2col(a, b, s0, s1, p0, p1, d0, d1, true, columnType(a))
	t := g.MulMat(
		g.Reshape2D(col, col.Ne[0], product([4]int64{col.Ne[3], col.Ne[2], col.Ne[1], 1})),
		g.Reshape2D(a, product([4]int64{a.Ne[0], a.Ne[1], a.Ne[2], 1}), a.Ne[3]))
	t = g.Reshape4D(t, col.Ne[1], col.Ne[2], col.Ne[3], a.Ne[3])
	return g.Cont(g.Permute(t, 0, 1, 3, 2))
}

// Conv2DSkP0 is Conv2D with the kernel's size as stride and no padding.
func (g *Graph) Conv2DSkP0(a, b *Tensor) *Tensor {
	g.need(OpIm2col, a, b)
	return g.Conv2D(a, b, int(min(a.Ne[0], maxStep+1)), int(min(a.Ne[1], maxStep+1)), 0, 0, 1, 1)
}

// Conv2DS1Ph is Conv2D with stride one and half a kernel of padding.
func (g *Graph) Conv2DS1Ph(a, b *Tensor) *Tensor {
	return g.Conv2D(a, b, 1, 1, g.half(a, 0), g.half(a, 1), 1, 1)
}

// Conv2DDW convolves each channel of b [w, h, c, n] with its own kernel of a
// [kw, kh, 1, c] by unfolding and a matrix product.
func (g *Graph) Conv2DDW(a, b *Tensor, s0, s1, p0, p1, d0, d1 int) *Tensor {
	g.need(OpIm2col, a, b)
	kernel := g.Reshape4D(a, a.Ne[0], a.Ne[1], 1, product([4]int64{a.Ne[2], a.Ne[3], 1, 1}))
	data := g.Reshape4D(b, b.Ne[0], b.Ne[1], 1, product([4]int64{b.Ne[2], b.Ne[3], 1, 1}))
	col := g.Im2col(kernel, data, s0, s1, p0, p1, d0, d1, true, columnType(a))
	rows := g.Reshape4D(col, col.Ne[0], product([4]int64{col.Ne[2], col.Ne[1], 1, 1}), b.Ne[2], b.Ne[3])
	kernel = g.Reshape4D(kernel, product([4]int64{kernel.Ne[0], kernel.Ne[1], 1, 1}), kernel.Ne[2], kernel.Ne[3], 1)
	return g.Reshape4D(g.MulMat(kernel, rows), col.Ne[1], col.Ne[2], b.Ne[2], b.Ne[3])
}

// Conv2DDWDirect is Conv2DDW in one operator. The result has b's order of
// channels. Params as for Im2col.
func (g *Graph) Conv2DDWDirect(a, b *Tensor, s0, s1, p0, p1, d0, d1 int) *Tensor {
	g.need(OpConv2DDw, a, b)
	g.must(OpConv2DDw, a.Ne[2] == 1 && a.Ne[3] == b.Ne[2], "want a kernel for each channel", a, b)
	t := g.node(OpConv2DDw, b.Type, [4]int64{
		g.sliding(OpConv2DDw, b.Ne[0], a.Ne[0], s0, p0, d0),
		g.sliding(OpConv2DDw, b.Ne[1], a.Ne[1], s1, p1, d1),
		b.Ne[2], b.Ne[3],
	})
	if e, size := b.Type.Block(); b.Nb[0] > b.Nb[2] && b.Nb[1] > b.Nb[0] && b.Nb[2] == size {
		g.must(OpConv2DDw, e == 1, "want single elements", a, b)
		t.Nb[0] = uint64(t.Ne[2]) * size
		t.Nb[1] = uint64(t.Ne[0]) * t.Nb[0]
		t.Nb[2] = size
	}
	t.Src[0], t.Src[1] = a, b
	t.Params = [6]int32{int32(s0), int32(s1), int32(p0), int32(p1), int32(d0), int32(d1)}
	return t
}

// Conv2DDirect is Conv2D in one operator. Params as for Im2col.
func (g *Graph) Conv2DDirect(a, b *Tensor, s0, s1, p0, p1, d0, d1 int) *Tensor {
	g.need(OpConv2D, a, b)
	g.must(OpConv2D, a.Ne[2] == b.Ne[2], "want as many channels in kernel and data", a, b)
	t := g.node(OpConv2D, b.Type, [4]int64{
		g.sliding(OpConv2D, b.Ne[0], a.Ne[0], s0, p0, d0),
		g.sliding(OpConv2D, b.Ne[1], a.Ne[1], s1, p1, d1),
		a.Ne[3], b.Ne[3],
	})
	t.Src[0], t.Src[1] = a, b
	t.Params = [6]int32{int32(s0), int32(s1), int32(p0), int32(p1), int32(d0), int32(d1)}
	return t
}

// The functions of Pool1D and Pool2D (enum ggml_op_pool).
const (
	PoolMax = 0
	PoolAvg = 1
)

// Pool1D reduces windows of k0 elements: F32. Params: 0 op, 1 k0, 2 s0, 3 p0.
func (g *Graph) Pool1D(a *Tensor, op, k0, s0, p0 int) *Tensor {
	g.need(OpPool1D, a, a)
	t := g.node(OpPool1D, formats.F32, [4]int64{g.pooled(OpPool1D, a.Ne[0], k0, s0, float32(p0)), a.Ne[1], a.Ne[2], a.Ne[3]})
	t.Src[0] = a
	t.Params = [6]int32{int32(op), int32(k0), int32(s0), int32(p0)}
	return t
}

// Pool2D reduces windows of k0 by k1 elements: F32. Params: 0 op, 1 k0, 2 k1,
// 3 s0, 4 s1.
func (g *Graph) Pool2D(a *Tensor, op, k0, k1, s0, s1 int, p0, p1 float32) *Tensor {
	g.need(OpPool2D, a, a)
	t := g.node(OpPool2D, formats.F32, [4]int64{
		g.pooled(OpPool2D, a.Ne[0], k0, s0, p0),
		g.pooled(OpPool2D, a.Ne[1], k1, s1, p1),
		a.Ne[2], a.Ne[3],
	})
	t.Src[0] = a
	t.Params = [6]int32{int32(op), int32(k0), int32(k1), int32(s0), int32(s1)}
	return t
}

// pooled returns how many windows of k elements there are; like ggml it counts
// in single precision.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_calc_pool_output_size.
func (g *Graph) pooled(op Op, ins int64, k, s int, p float32) int64 {
	if s <= 0 || s > maxStep || k <= 0 || k > maxStep || !(p >= 0 && p <= maxStep) {
		g.fail(op, "window %d, stride %d or padding %v is out of range", k, s, p)
	}
	n := int64((float32(ins)+2*p-float32(k))/float32(s) + 1)
	if n <= 0 {
		g.fail(op, "a window of %d elements does not fit on %d", k, ins)
	}
	return n
}
