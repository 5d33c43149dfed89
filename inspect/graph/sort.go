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
