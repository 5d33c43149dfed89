package graph

import (
	"math"

	"weigh/formats"
)

// Arange counts from start to below stop: F32.
func (g *Graph) Arange(start, stop, step float32) *Tensor {
	n := math.Ceil(float64((stop - start) / step))
	if !(stop > start) || !(n >= 0 && n <= maxDim) {
		g.fail(OpArange, "cannot count from %v to %v by %v", start, stop, step)
	}
	return g.node(OpArange, formats.F32, [4]int64{int64(n), 1, 1, 1})
}

// TimestepEmbedding gives each of the timesteps an embedding: F32 of [dim,
// n]. Params: 0 dim.
func (g *Graph) TimestepEmbedding(timesteps *Tensor, dim int) *Tensor {
	g.need(OpTimestepEmbedding, timesteps, timesteps)
	t := g.node(OpTimestepEmbedding, formats.F32, [4]int64{int64(dim), timesteps.Ne[0], 1, 1})
	t.Src[0] = timesteps
	t.Params[0] = int32(dim)
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
