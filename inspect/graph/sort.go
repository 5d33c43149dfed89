package graph

import (
	"math"

	"weigh/formats"
)

// The orders of Argsort (enum ggml_sort_order).
const (
	SortAsc  = 0
	SortDesc = 1
)

// Argsort gives the indices that sort each row, as I32. Params: 0 order.
func (g *Graph) Argsort(a *Tensor, order int) *Tensor {
	g.need(OpArgsort, a, a)
	g.must1(OpArgsort, a.Ne[0] <= math.MaxInt32, "rows are too long to sort", a)
	t := g.node(OpArgsort, formats.I32, a.Ne)
	t.Src[0] = a
	t.Params[0] = int32(order)
	return t
}

// ArgsortTopK gives the indices of the k largest elements of each row in
// order, as a view of a descending Argsort.
func (g *Graph) ArgsortTopK(a *Tensor, k int64) *Tensor {
	g.need(OpArgsort, a, a)
	g.must1(OpArgsort, a.Ne[0] >= k, "fewer elements than are asked for", a)
	t := g.Argsort(a, SortDesc)
	return g.View4D(t, k, t.Ne[1], t.Ne[2], t.Ne[3], t.Nb[1], t.Nb[2], t.Nb[3], 0)
}

// TopK gives the indices of the k largest elements of each row in any order,
// as I32.
func (g *Graph) TopK(a *Tensor, k int64) *Tensor {
	g.need(OpTopK, a, a)
	g.must1(OpTopK, a.Ne[0] >= k, "fewer elements than are asked for", a)
	t := g.node(OpTopK, formats.I32, [4]int64{k, a.Ne[1], a.Ne[2], a.Ne[3]})
	t.Src[0] = a
	return t
}

// The parts of Tri (enum ggml_tri_type).
const (
	TriUpperDiag = 0
	TriUpper     = 1
	TriLowerDiag = 2
	TriLower     = 3
)

// Tri keeps a triangle of the packed square matrices a (F32). Params: 0 part.
func (g *Graph) Tri(a *Tensor, part int) *Tensor {
	t := g.like(OpTri, a)
	g.must1(OpTri, a.Type == formats.F32 && a.Contiguous() && a.Ne[0] == a.Ne[1], "want packed square F32", a)
	t.Params[0] = int32(part)
	return t
}

// Fill sets every element of a packed tensor of a's shape, F32 or F16.
func (g *Graph) Fill(a *Tensor) *Tensor { return g.fill(g.like(OpFill, a), a) }

// FillInplace is Fill in the memory of a.
func (g *Graph) FillInplace(a *Tensor) *Tensor { return g.fill(g.over(OpFill, a), a) }

func (g *Graph) fill(t, a *Tensor) *Tensor {
	g.must1(OpFill, (a.Type == formats.F32 || a.Type == formats.F16) && a.Contiguous(), "want packed F32 or F16", a)
	return t
}
