package graph

import "weigh/formats"

// A Prec is a precision that a matrix product must at least have (enum
// ggml_prec).
type Prec = int32

// The precisions.
const (
	PrecUndefined Prec = 0
	PrecF32       Prec = 10
	PrecBF16      Prec = 15
	PrecF16       Prec = 20
	PrecQ8        Prec = 30
)

// MulMat multiplies each row of b [k, m, ...] by each row of a [k, n, ...]: F32
// of [n, m, b.Ne[2], b.Ne[3]]; a is repeated to b above the matrices. Params: 0
// the precision of sums, 1 the hint (enum ggml_op_hint), 3 the precision of b.
func (g *Graph) MulMat(a, b *Tensor) *Tensor {
	g.need(OpMulMat, a, b)
	g.must(OpMulMat, canMulMat(a, b) && !a.Transposed(), "cannot be multiplied", a, b)
	t := g.node(OpMulMat, formats.F32, [4]int64{a.Ne[1], b.Ne[1], b.Ne[2], b.Ne[3]})
	t.Src[0], t.Src[1] = a, b
	return t
}

// canMulMat reports whether rows have one length and a can be repeated to b.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_can_mul_mat.
func canMulMat(a, b *Tensor) bool {
	return a.Ne[0] == b.Ne[0] && divides(a.Ne[2], b.Ne[2]) && divides(a.Ne[3], b.Ne[3])
}

// MulMatID multiplies each row of b [k, n_expert_used or 1, n_tokens] by the
// matrix of as [k, n, n_expert] that ids [n_expert_used, n_tokens] (I32) names:
// F32 of [n, n_expert_used, n_tokens]. Params as for MulMat.
func (g *Graph) MulMatID(as, b, ids *Tensor) *Tensor {
	g.need3(OpMulMatID, as, b, ids)
	g.must(OpMulMatID, as.Ne[0] == b.Ne[0] && as.Ne[3] == 1 && b.Ne[3] == 1 && !as.Transposed(), "cannot be multiplied", as, b)
	g.must(OpMulMatID, ids.Type == formats.I32 && ids.matrix() && ids.Ne[1] == b.Ne[2] && divides(b.Ne[1], ids.Ne[0]),
		"want I32 expert numbers for each row", b, ids)
	t := g.node(OpMulMatID, formats.F32, [4]int64{as.Ne[1], ids.Ne[0], b.Ne[2], 1})
	t.Src[0], t.Src[1], t.Src[2] = as, b, ids
	return t
}

// OutProd sums the outer products of the rows of a and b: F32 of [a.Ne[0],
// b.Ne[0], b.Ne[2], b.Ne[3]].
func (g *Graph) OutProd(a, b *Tensor) *Tensor {
	g.need(OpOutProd, a, b)
	g.must(OpOutProd, a.Ne[1] == b.Ne[1] && divides(a.Ne[2], b.Ne[2]) && divides(a.Ne[3], b.Ne[3]) && !a.Transposed(),
		"cannot be multiplied", a, b)
	t := g.node(OpOutProd, formats.F32, [4]int64{a.Ne[0], b.Ne[0], b.Ne[2], b.Ne[3]})
	t.Src[0], t.Src[1] = a, b
	return t
}

// SetPrec records the precision of sums of a matrix product (Params 0) or of a
// flash attention (Params 3); on other operators it does nothing.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_prec_set_acc.
func (t *Tensor) SetPrec(p Prec) *Tensor {
	switch t.Op {
	case OpMulMat, OpMulMatID:
		t.Params[0] = p
	case OpFlashAttnExt:
		t.Params[3] = p
	}
	return t
}

// SetPrecSrc records the precision to which a matrix product may convert its
// second operand (Params 3); for other operands and operators it does nothing.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_prec_set_src.
func (t *Tensor) SetPrecSrc(p Prec, idx int) *Tensor {
	if idx == 1 && (t.Op == OpMulMat || t.Op == OpMulMatID) {
		t.Params[3] = p
	}
	return t
}

// SetHint records the hint of a matrix product (Params 1).
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_mul_mat_set_hint.
func (g *Graph) SetHint(t *Tensor, hint int32) *Tensor {
	g.need(OpMulMat, t, t)
	if t.Op != OpMulMat {
		g.fail(t.Op, "only matrix products take a hint")
	}
	t.Params[1] = hint
	return t
}
