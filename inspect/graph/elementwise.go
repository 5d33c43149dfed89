package graph

import "weigh/formats"

// Numbers that change neither a shape nor what a backend supports (an epsilon,
// a scale, a bound) are not arguments here.

// broadcast returns a result of a's shape; b is repeated to it.
func (g *Graph) broadcast(op Op, a, b *Tensor) *Tensor {
	g.need(op, a, b)
	g.must(op, canRepeat(b, a), "the second cannot be repeated to the first", a, b)
	t := g.like(op, a)
	t.Src[1] = b
	return t
}

// broadcastOver is broadcast in the memory of a.
func (g *Graph) broadcastOver(op Op, a, b *Tensor) *Tensor {
	g.need(op, a, b)
	g.must(op, canRepeat(b, a), "the second cannot be repeated to the first", a, b)
	t := g.over(op, a)
	t.Src[1] = b
	return t
}

// Add returns a + b; b is repeated to the shape of a.
func (g *Graph) Add(a, b *Tensor) *Tensor { return g.broadcast(OpAdd, a, b) }

// AddInplace is Add in the memory of a.
func (g *Graph) AddInplace(a, b *Tensor) *Tensor { return g.broadcastOver(OpAdd, a, b) }

// AddCast returns a + b in type typ; a is F16, BF16 or quantized.
func (g *Graph) AddCast(a, b *Tensor, typ formats.DType) *Tensor {
	g.need(OpAdd, a, b)
	g.must(OpAdd, a.Ne[0] == b.Ne[0] && canRepeat(b, a), "the rows of the second cannot be repeated to the first", a, b)
	g.must1(OpAdd, a.Type.Quantized() || a.Type == formats.F16 || a.Type == formats.BF16, "want a type below F32", a)
	t := g.node(OpAdd, typ, a.Ne)
	t.Src[0], t.Src[1] = a, b
	return t
}

// AddID adds to each row of a [n, n_expert_used, n_tokens] the row of b that
// ids [n_expert_used, n_tokens] (I32) names.
func (g *Graph) AddID(a, b, ids *Tensor) *Tensor {
	g.need3(OpAddID, a, b, ids)
	g.must(OpAddID, a.Ne[0] == b.Ne[0], "want rows of one length", a, b)
	g.must(OpAddID, a.Ne[1] == ids.Ne[0] && a.Ne[2] == ids.Ne[1] && ids.Type == formats.I32, "want an I32 number for each row", a, ids)
	t := g.like(OpAddID, a)
	t.Src[1], t.Src[2] = b, ids
	return t
}

// Add1 adds the single element b to each of a.
func (g *Graph) Add1(a, b *Tensor) *Tensor {
	g.need(OpAdd1, a, b)
	g.must(OpAdd1, b.Ne == [4]int64{1, 1, 1, 1} && a.paddedRows(), "want a single element", a, b)
	t := g.like(OpAdd1, a)
	t.Src[1] = b
	return t
}

// Sub returns a - b; b is repeated to the shape of a.
func (g *Graph) Sub(a, b *Tensor) *Tensor { return g.broadcast(OpSub, a, b) }

// SubInplace is Sub in the memory of a.
func (g *Graph) SubInplace(a, b *Tensor) *Tensor { return g.broadcastOver(OpSub, a, b) }

// Mul returns a * b by element; b is repeated to the shape of a.
func (g *Graph) Mul(a, b *Tensor) *Tensor { return g.broadcast(OpMul, a, b) }

// MulInplace is Mul in the memory of a.
func (g *Graph) MulInplace(a, b *Tensor) *Tensor { return g.broadcastOver(OpMul, a, b) }

// Div returns a / b; b is repeated to the shape of a.
func (g *Graph) Div(a, b *Tensor) *Tensor { return g.broadcast(OpDiv, a, b) }

// DivInplace is Div in the memory of a.
func (g *Graph) DivInplace(a, b *Tensor) *Tensor { return g.broadcastOver(OpDiv, a, b) }

// Scale multiplies a by a number.
func (g *Graph) Scale(a *Tensor) *Tensor {
	t := g.like(OpScale, a)
	g.must1(OpScale, a.paddedRows(), "want packed rows", a)
	return t
}

// ScaleInplace is Scale in the memory of a.
func (g *Graph) ScaleInplace(a *Tensor) *Tensor {
	t := g.over(OpScale, a)
	g.must1(OpScale, a.paddedRows(), "want packed rows", a)
	return t
}

// ScaleBias multiplies a by a number and adds another: the same operator.
func (g *Graph) ScaleBias(a *Tensor) *Tensor { return g.Scale(a) }

// Sqr squares each element.
func (g *Graph) Sqr(a *Tensor) *Tensor { return g.like(OpSqr, a) }

// Sqrt takes the square root of each element.
func (g *Graph) Sqrt(a *Tensor) *Tensor { return g.like(OpSqrt, a) }

// Log takes the natural logarithm of each element.
func (g *Graph) Log(a *Tensor) *Tensor { return g.like(OpLog, a) }

// Sin takes the sine of each element.
func (g *Graph) Sin(a *Tensor) *Tensor { return g.like(OpSin, a) }

// Cos takes the cosine of each element.
func (g *Graph) Cos(a *Tensor) *Tensor { return g.like(OpCos, a) }

// Clamp bounds each element. Like ggml's default, it has memory of its own.
func (g *Graph) Clamp(a *Tensor) *Tensor { return g.like(OpClamp, a) }

// ClampInplace is Clamp in the memory of a.
func (g *Graph) ClampInplace(a *Tensor) *Tensor { return g.over(OpClamp, a) }

// LeakyReLU scales the negative elements.
func (g *Graph) LeakyReLU(a *Tensor) *Tensor { return g.like(OpLeakyReLU, a) }

// LeakyReLUInplace is LeakyReLU in the memory of a.
func (g *Graph) LeakyReLUInplace(a *Tensor) *Tensor { return g.over(OpLeakyReLU, a) }

// Sum adds all elements into one.
func (g *Graph) Sum(a *Tensor) *Tensor {
	g.need(OpSum, a, a)
	t := g.node(OpSum, a.Type, [4]int64{1, 1, 1, 1})
	t.Src[0] = a
	return t
}

// SumRows adds the elements of each row.
func (g *Graph) SumRows(a *Tensor) *Tensor {
	g.need(OpSumRows, a, a)
	t := g.node(OpSumRows, a.Type, [4]int64{1, a.Ne[1], a.Ne[2], a.Ne[3]})
	t.Src[0] = a
	return t
}

// Mean averages the elements of each row, as F32.
func (g *Graph) Mean(a *Tensor) *Tensor {
	g.need(OpMean, a, a)
	t := g.node(OpMean, formats.F32, [4]int64{1, a.Ne[1], a.Ne[2], a.Ne[3]})
	t.Src[0] = a
	return t
}

// Cumsum adds to each element of a row (F32) those before it.
func (g *Graph) Cumsum(a *Tensor) *Tensor {
	t := g.like(OpCumsum, a)
	g.must1(OpCumsum, a.Type == formats.F32, "want F32", a)
	return t
}

// Argmax gives the index of the largest element of each row of the matrix a,
// as I32.
func (g *Graph) Argmax(a *Tensor) *Tensor {
	g.need(OpArgmax, a, a)
	g.must1(OpArgmax, a.matrix() && a.Ne[0] <= 1<<31-1, "want a matrix", a)
	t := g.node(OpArgmax, formats.I32, [4]int64{a.Ne[1], 1, 1, 1})
	t.Src[0] = a
	return t
}

// Norm centres and scales each row.
func (g *Graph) Norm(a *Tensor) *Tensor { return g.like(OpNorm, a) }

// NormInplace is Norm in the memory of a.
func (g *Graph) NormInplace(a *Tensor) *Tensor { return g.over(OpNorm, a) }

// RMSNorm scales each row by its root mean square.
func (g *Graph) RMSNorm(a *Tensor) *Tensor { return g.like(OpRMSNorm, a) }

// RMSNormInplace is RMSNorm in the memory of a.
func (g *Graph) RMSNormInplace(a *Tensor) *Tensor { return g.over(OpRMSNorm, a) }

// GroupNorm normalises nGroups groups of channels. Params: 0 nGroups.
func (g *Graph) GroupNorm(a *Tensor, nGroups int) *Tensor {
	t := g.like(OpGroupNorm, a)
	t.Params[0] = int32(nGroups)
	return t
}

// L2Norm scales each row to length one.
func (g *Graph) L2Norm(a *Tensor) *Tensor { return g.like(OpL2Norm, a) }

// Unary applies op to each element; rows are packed. Sub is op.
func (g *Graph) Unary(a *Tensor, op UnaryOp) *Tensor {
	t := g.like(OpUnary, a)
	g.must1(OpUnary, a.ContiguousRows(), "want packed rows", a)
	t.Sub = op
	return t
}

// UnaryInplace is Unary in the memory of a.
func (g *Graph) UnaryInplace(a *Tensor, op UnaryOp) *Tensor {
	t := g.over(OpUnary, a)
	g.must1(OpUnary, a.ContiguousRows(), "want packed rows", a)
	t.Sub = op
	return t
}

// Abs takes the absolute value.
func (g *Graph) Abs(a *Tensor) *Tensor { return g.Unary(a, UnaryAbs) }

// Sgn takes the sign.
func (g *Graph) Sgn(a *Tensor) *Tensor { return g.Unary(a, UnarySgn) }

// Neg changes the sign.
func (g *Graph) Neg(a *Tensor) *Tensor { return g.Unary(a, UnaryNeg) }

// Step is 1 for positive elements and 0 for others.
func (g *Graph) Step(a *Tensor) *Tensor { return g.Unary(a, UnaryStep) }

// Tanh takes the hyperbolic tangent.
func (g *Graph) Tanh(a *Tensor) *Tensor { return g.Unary(a, UnaryTanh) }

// ELU is the exponential linear unit.
func (g *Graph) ELU(a *Tensor) *Tensor { return g.Unary(a, UnaryELU) }

// ReLU is the rectified linear unit.
func (g *Graph) ReLU(a *Tensor) *Tensor { return g.Unary(a, UnaryReLU) }

// ReLUInplace is ReLU in the memory of a.
func (g *Graph) ReLUInplace(a *Tensor) *Tensor { return g.UnaryInplace(a, UnaryReLU) }

// Sigmoid is the logistic function.
func (g *Graph) Sigmoid(a *Tensor) *Tensor { return g.Unary(a, UnarySigmoid) }

// GELU is the Gaussian error linear unit by its tanh approximation.
func (g *Graph) GELU(a *Tensor) *Tensor { return g.Unary(a, UnaryGELU) }

// GELUInplace is GELU in the memory of a.
func (g *Graph) GELUInplace(a *Tensor) *Tensor { return g.UnaryInplace(a, UnaryGELU) }

// GELUErf is the exact Gaussian error linear unit.
func (g *Graph) GELUErf(a *Tensor) *Tensor { return g.Unary(a, UnaryGELUErf) }

// GELUQuick is the Gaussian error linear unit by its sigmoid approximation.
func (g *Graph) GELUQuick(a *Tensor) *Tensor { return g.Unary(a, UnaryGELUQuick) }

// SiLU is the sigmoid linear unit.
func (g *Graph) SiLU(a *Tensor) *Tensor { return g.Unary(a, UnarySiLU) }

// SiLUInplace is SiLU in the memory of a.
func (g *Graph) SiLUInplace(a *Tensor) *Tensor { return g.UnaryInplace(a, UnarySiLU) }

// Hardswish is the piecewise linear SiLU.
func (g *Graph) Hardswish(a *Tensor) *Tensor { return g.Unary(a, UnaryHardswish) }

// Hardsigmoid is the piecewise linear sigmoid.
func (g *Graph) Hardsigmoid(a *Tensor) *Tensor { return g.Unary(a, UnaryHardsigmoid) }

// Exp takes the exponential.
func (g *Graph) Exp(a *Tensor) *Tensor { return g.Unary(a, UnaryExp) }

// Expm1 takes the exponential less one.
func (g *Graph) Expm1(a *Tensor) *Tensor { return g.Unary(a, UnaryExpm1) }

// Softplus is log(1 + exp(x)).
func (g *Graph) Softplus(a *Tensor) *Tensor { return g.Unary(a, UnarySoftplus) }

// Floor rounds down.
func (g *Graph) Floor(a *Tensor) *Tensor { return g.Unary(a, UnaryFloor) }

// Ceil rounds up.
func (g *Graph) Ceil(a *Tensor) *Tensor { return g.Unary(a, UnaryCeil) }

// Round rounds to the nearest integer.
func (g *Graph) Round(a *Tensor) *Tensor { return g.Unary(a, UnaryRound) }

// Trunc rounds towards zero.
func (g *Graph) Trunc(a *Tensor) *Tensor { return g.Unary(a, UnaryTrunc) }

// XIELU is the expanded integral of the exponential linear unit.
func (g *Graph) XIELU(a *Tensor) *Tensor {
	t := g.like(OpUnary, a)
	t.Sub = UnaryXIELU
	return t
}

// GLU gates one half of each row of a by the other: rows of half the length.
// Sub is op. Params: 1 swapped, 1 when the gate is the second half.
func (g *Graph) GLU(a *Tensor, op GLUOp, swapped bool) *Tensor {
	g.need(OpGLU, a, a)
	g.must1(OpGLU, a.ContiguousFrom(1), "want packed rows", a)
	t := g.node(OpGLU, a.Type, [4]int64{a.Ne[0] / 2, a.Ne[1], a.Ne[2], a.Ne[3]})
	t.Src[0], t.Sub = a, op
	if swapped {
		t.Params[1] = 1
	}
	return t
}

// GLUSplit gates b by the activation of a, of the same type and shape. Sub is
// op.
func (g *Graph) GLUSplit(a, b *Tensor, op GLUOp) *Tensor {
	g.need(OpGLU, a, b)
	g.must(OpGLU, a.Ne == b.Ne && a.Type == b.Type && a.ContiguousFrom(1) && b.ContiguousFrom(1),
		"want one type and shape, and packed rows", a, b)
	t := g.like(OpGLU, a)
	t.Src[1], t.Sub = b, op
	return t
}

// ReGLU is GLU with ReLU.
func (g *Graph) ReGLU(a *Tensor) *Tensor { return g.GLU(a, GLUReGLU, false) }

// ReGLUSplit is GLUSplit with ReLU.
func (g *Graph) ReGLUSplit(a, b *Tensor) *Tensor { return g.GLUSplit(a, b, GLUReGLU) }

// GEGLU is GLU with GELU.
func (g *Graph) GEGLU(a *Tensor) *Tensor { return g.GLU(a, GLUGEGLU, false) }

// GEGLUSplit is GLUSplit with GELU.
func (g *Graph) GEGLUSplit(a, b *Tensor) *Tensor { return g.GLUSplit(a, b, GLUGEGLU) }

// GEGLUErfSplit is GLUSplit with GELUErf.
func (g *Graph) GEGLUErfSplit(a, b *Tensor) *Tensor { return g.GLUSplit(a, b, GLUGEGLUErf) }

// GEGLUQuickSplit is GLUSplit with GELUQuick.
func (g *Graph) GEGLUQuickSplit(a, b *Tensor) *Tensor { return g.GLUSplit(a, b, GLUGEGLUQuick) }

// SwiGLU is GLU with SiLU.
func (g *Graph) SwiGLU(a *Tensor) *Tensor { return g.GLU(a, GLUSwiGLU, false) }

// SwiGLUSwapped is GLU with SiLU and the gate in the second half.
func (g *Graph) SwiGLUSwapped(a *Tensor) *Tensor { return g.GLU(a, GLUSwiGLU, true) }

// SwiGLUSplit is GLUSplit with SiLU.
func (g *Graph) SwiGLUSplit(a, b *Tensor) *Tensor { return g.GLUSplit(a, b, GLUSwiGLU) }

// SwiGLUOAI is GLUSplit with the bounded and shifted SiLU of gpt-oss.
func (g *Graph) SwiGLUOAI(a, b *Tensor) *Tensor { return g.GLUSplit(a, b, GLUSwiGLUOAI) }

// SwiGLUClamp is GLUSplit with a bounded SiLU.
func (g *Graph) SwiGLUClamp(a, b *Tensor) *Tensor { return g.GLUSplit(a, b, GLUSwiGLUClamp) }
