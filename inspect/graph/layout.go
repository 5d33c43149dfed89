package graph

import "weigh/formats"

// Dup copies a.
func (g *Graph) Dup(a *Tensor) *Tensor { return g.like(OpDup, a) }

// DupTensor returns a new leaf of a's type and shape.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_dup_tensor.
func (g *Graph) DupTensor(a *Tensor) *Tensor {
	g.need(OpNone, a, a)
	return g.node(OpNone, a.Type, a.Ne)
}

// ViewTensor returns a leaf that shares a's memory, shape and strides.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_view_tensor.
func (g *Graph) ViewTensor(a *Tensor) *Tensor {
	t := g.over(OpNone, a)
	t.Src[0] = nil
	return t
}

// Cpy copies a into the memory of b, converting to b's type. The result has
// b's shape and memory.
func (g *Graph) Cpy(a, b *Tensor) *Tensor {
	g.need(OpCpy, a, b)
	g.must(OpCpy, a.Elements() == b.Elements(), "want as many elements in both", a, b)
	t := g.over(OpCpy, b)
	t.Src[0], t.Src[1] = a, b
	return t
}

// Cast copies a into a packed tensor of type typ. Like ggml's, the result is
// its own second operand.
func (g *Graph) Cast(a *Tensor, typ formats.DType) *Tensor {
	g.need(OpCpy, a, a)
	t := g.node(OpCpy, typ, a.Ne)
	t.Src[0], t.Src[1] = a, t
	return t
}

// Cont copies a into packed memory.
func (g *Graph) Cont(a *Tensor) *Tensor { return g.like(OpCont, a) }

// Cont1D copies a into packed memory with one dimension.
func (g *Graph) Cont1D(a *Tensor, ne0 int64) *Tensor { return g.Cont4D(a, ne0, 1, 1, 1) }

// Cont2D copies a into packed memory with two dimensions.
func (g *Graph) Cont2D(a *Tensor, ne0, ne1 int64) *Tensor { return g.Cont4D(a, ne0, ne1, 1, 1) }

// Cont3D copies a into packed memory with three dimensions.
func (g *Graph) Cont3D(a *Tensor, ne0, ne1, ne2 int64) *Tensor {
	return g.Cont4D(a, ne0, ne1, ne2, 1)
}

// Cont4D copies a into packed memory with four dimensions.
func (g *Graph) Cont4D(a *Tensor, ne0, ne1, ne2, ne3 int64) *Tensor {
	ne := [4]int64{ne0, ne1, ne2, ne3}
	g.sameElements(OpCont, a, ne)
	t := g.node(OpCont, a.Type, ne)
	t.Src[0] = a
	return t
}

// sameElements fails unless ne holds as many elements as a.
func (g *Graph) sameElements(op Op, a *Tensor, ne [4]int64) {
	g.need(op, a, a)
	if product(ne) != a.Elements() {
		g.fail(op, "%v does not hold the elements of %v", ne, a.Ne)
	}
}

// Reshape gives the packed tensor a the dimensions of b.
func (g *Graph) Reshape(a, b *Tensor) *Tensor {
	g.need(OpReshape, a, b)
	return g.reshape(a, b.Ne)
}

// Reshape1D gives the packed tensor a one dimension.
func (g *Graph) Reshape1D(a *Tensor, ne0 int64) *Tensor {
	return g.reshape(a, [4]int64{ne0, 1, 1, 1})
}

// Reshape2D gives the packed tensor a two dimensions.
func (g *Graph) Reshape2D(a *Tensor, ne0, ne1 int64) *Tensor {
	return g.reshape(a, [4]int64{ne0, ne1, 1, 1})
}

// Reshape3D gives the packed tensor a three dimensions.
func (g *Graph) Reshape3D(a *Tensor, ne0, ne1, ne2 int64) *Tensor {
	return g.reshape(a, [4]int64{ne0, ne1, ne2, 1})
}

// Reshape4D gives the packed tensor a four dimensions.
func (g *Graph) Reshape4D(a *Tensor, ne0, ne1, ne2, ne3 int64) *Tensor {
	return g.reshape(a, [4]int64{ne0, ne1, ne2, ne3})
}

func (g *Graph) reshape(a *Tensor, ne [4]int64) *Tensor {
	g.sameElements(OpReshape, a, ne)
	g.must1(OpReshape, a.Contiguous(), "want packed memory", a)
	return g.window(OpReshape, a, ne, 0)
}

// View1D returns ne0 elements of a from byte offset on.
func (g *Graph) View1D(a *Tensor, ne0 int64, offset uint64) *Tensor {
	return g.window(OpView, a, [4]int64{ne0, 1, 1, 1}, offset)
}

// View2D returns rows of ne0 elements of a, nb1 bytes apart, from byte offset
// on.
func (g *Graph) View2D(a *Tensor, ne0, ne1 int64, nb1, offset uint64) *Tensor {
	nb2 := g.span(nb1, ne1)
	return g.view(a, [4]int64{ne0, ne1, 1, 1}, nb1, nb2, nb2, offset)
}

// View3D returns ne2 matrices of a, nb2 bytes apart, from byte offset on; their
// rows are nb1 bytes apart.
func (g *Graph) View3D(a *Tensor, ne0, ne1, ne2 int64, nb1, nb2, offset uint64) *Tensor {
	return g.view(a, [4]int64{ne0, ne1, ne2, 1}, nb1, nb2, g.span(nb2, ne2), offset)
}

// View4D returns the elements of a from byte offset on with the strides nb1,
// nb2 and nb3 in bytes.
func (g *Graph) View4D(a *Tensor, ne0, ne1, ne2, ne3 int64, nb1, nb2, nb3, offset uint64) *Tensor {
	return g.view(a, [4]int64{ne0, ne1, ne2, ne3}, nb1, nb2, nb3, offset)
}

func (g *Graph) view(a *Tensor, ne [4]int64, nb1, nb2, nb3, offset uint64) *Tensor {
	t := g.window(OpView, a, ne, offset)
	g.span(nb1, ne[1])
	g.span(nb2, ne[2])
	g.span(nb3, ne[3])
	t.Nb[1], t.Nb[2], t.Nb[3] = nb1, nb2, nb3
	return t
}

// maxStride bounds the bytes between two elements, so that sums of four spans
// stay within 64 bits.
const maxStride = 1 << 60

// span returns nb*ne bytes.
func (g *Graph) span(nb uint64, ne int64) uint64 {
	if nb > maxStride || ne < 0 || ne > 0 && nb > maxStride/uint64(ne) {
		g.fail(OpView, "%d times a stride of %d bytes is too large to address", ne, nb)
	}
	return nb * uint64(ne)
}

// Permute moves dimension i of a to the i-th of the given axes.
func (g *Graph) Permute(a *Tensor, axis0, axis1, axis2, axis3 int) *Tensor {
	axes := [4]int{axis0, axis1, axis2, axis3}
	used := 0
	for _, x := range axes {
		if x < 0 || x > 3 {
			g.fail(OpPermute, "axes %v are out of range", axes)
		}
		used |= 1 << x
	}
	if used != 15 {
		g.fail(OpPermute, "axes %v name a dimension twice", axes)
	}
	t := g.over(OpPermute, a)
	for i, x := range axes {
		t.Ne[x], t.Nb[x] = a.Ne[i], a.Nb[i]
	}
	return t
}

// Transpose swaps the first two dimensions of a.
func (g *Graph) Transpose(a *Tensor) *Tensor {
	t := g.over(OpTranspose, a)
	t.Ne[0], t.Ne[1] = a.Ne[1], a.Ne[0]
	t.Nb[0], t.Nb[1] = a.Nb[1], a.Nb[0]
	return t
}

// GetRows gathers the rows of a that b (I32) names: F32, or I32 from I32. The
// result is [a.Ne[0], b.Ne[0], b.Ne[1], b.Ne[2]].
func (g *Graph) GetRows(a, b *Tensor) *Tensor {
	g.need(OpGetRows, a, b)
	g.must(OpGetRows, b.Type == formats.I32 && a.Ne[2] == b.Ne[1] && a.Ne[3] == b.Ne[2] && b.Ne[3] == 1,
		"want I32 row numbers for each matrix", a, b)
	typ := formats.F32
	if a.Type == formats.I32 {
		typ = formats.I32
	}
	t := g.node(OpGetRows, typ, [4]int64{a.Ne[0], b.Ne[0], b.Ne[1], b.Ne[2]})
	t.Src[0], t.Src[1] = a, b
	return t
}

// SetRows writes the rows of b into the rows of a that c (I64 or I32) names.
// The result has a's shape and memory; its operands are b, c, a in that order.
func (g *Graph) SetRows(a, b, c *Tensor) *Tensor {
	g.need3(OpSetRows, a, b, c)
	g.must(OpSetRows, a.Ne[0] == b.Ne[0] && a.Ne[2] == b.Ne[2] && a.Ne[3] == b.Ne[3],
		"want rows that fit the destination", a, b)
	g.must(OpSetRows, b.Ne[1] == c.Ne[0] && divides(c.Ne[1], b.Ne[2]) && divides(c.Ne[2], b.Ne[3]) && c.Ne[3] == 1 &&
		(c.Type == formats.I64 || c.Type == formats.I32) && (b.Type == formats.F32 || b.Type == formats.F16),
		"want an integer row number for each F32 or F16 row", b, c)
	g.must(OpSetRows, a.ContiguousRows() && b.ContiguousRows(), "want packed rows", a, b)
	t := g.over(OpSetRows, a)
	t.Src[0], t.Src[1], t.Src[2] = b, c, a
	return t
}

// Set returns a with the elements of b written over part of it.
// Params: 0 to 3 the strides nb1, nb2, nb3 and the offset, bytes; 4 in place.
func (g *Graph) Set(a, b *Tensor, nb1, nb2, nb3, offset uint64) *Tensor {
	return g.set(g.like(OpSet, a), a, b, nb1, nb2, nb3, offset, 0)
}

// SetInplace is Set in the memory of a.
func (g *Graph) SetInplace(a, b *Tensor, nb1, nb2, nb3, offset uint64) *Tensor {
	return g.set(g.over(OpSet, a), a, b, nb1, nb2, nb3, offset, 1)
}

// Set1D is Set with the strides of a.
func (g *Graph) Set1D(a, b *Tensor, offset uint64) *Tensor {
	g.need(OpSet, a, b)
	return g.Set(a, b, a.Nb[1], a.Nb[2], a.Nb[3], offset)
}

// Set2D is Set with rows nb1 bytes apart and the other strides of a.
func (g *Graph) Set2D(a, b *Tensor, nb1, offset uint64) *Tensor {
	g.need(OpSet, a, b)
	return g.Set(a, b, nb1, a.Nb[2], a.Nb[3], offset)
}

func (g *Graph) set(t, a, b *Tensor, nb1, nb2, nb3, offset uint64, inplace int32) *Tensor {
	g.need(OpSet, a, b)
	g.must(OpSet, a.Elements() >= b.Elements(), "want no more elements than the destination has", a, b)
	if offset >= 1<<30 {
		g.fail(OpSet, "offset %d is not below 2^30", offset)
	}
	t.Src[1] = b
	t.Params = [6]int32{int32(nb1), int32(nb2), int32(nb3), int32(offset), inplace}
	return t
}

// Acc returns a with the elements of b added to part of it.
// Params: 0 to 3 the strides nb1, nb2, nb3 and the offset, bytes; 4 in place.
func (g *Graph) Acc(a, b *Tensor, nb1, nb2, nb3, offset uint64) *Tensor {
	return g.acc(g.like(OpAcc, a), a, b, nb1, nb2, nb3, offset, 0)
}

// AccInplace is Acc in the memory of a.
func (g *Graph) AccInplace(a, b *Tensor, nb1, nb2, nb3, offset uint64) *Tensor {
	return g.acc(g.over(OpAcc, a), a, b, nb1, nb2, nb3, offset, 1)
}

func (g *Graph) acc(t, a, b *Tensor, nb1, nb2, nb3, offset uint64, inplace int32) *Tensor {
	g.need(OpAcc, a, b)
	g.must(OpAcc, a.Elements() >= b.Elements() && a.Contiguous() && a.Type == formats.F32 && b.Type == formats.F32,
		"want F32 and no more elements than the packed destination has", a, b)
	t.Src[1] = b
	t.Params = [6]int32{int32(nb1), int32(nb2), int32(nb3), int32(offset), inplace}
	return t
}

// Repeat tiles a to the shape of b.
func (g *Graph) Repeat(a, b *Tensor) *Tensor {
	g.need(OpRepeat, a, b)
	return g.Repeat4D(a, b.Ne[0], b.Ne[1], b.Ne[2], b.Ne[3])
}

// Repeat4D tiles a to the given shape.
func (g *Graph) Repeat4D(a *Tensor, ne0, ne1, ne2, ne3 int64) *Tensor {
	g.need(OpRepeat, a, a)
	ne := [4]int64{ne0, ne1, ne2, ne3}
	if !a.Empty() && (ne0%a.Ne[0] != 0 || ne1%a.Ne[1] != 0 || ne2%a.Ne[2] != 0 || ne3%a.Ne[3] != 0) {
		g.fail(OpRepeat, "%v cannot be repeated to %v", a.Ne, ne)
	}
	t := g.node(OpRepeat, a.Type, ne)
	t.Src[0] = a
	return t
}

// Concat joins a and b along dimension dim. Params: 0 dim.
func (g *Graph) Concat(a, b *Tensor, dim int) *Tensor {
	g.need(OpConcat, a, b)
	if dim < 0 || dim > 3 {
		g.fail(OpConcat, "dimension %d is out of range", dim)
	}
	ne := a.Ne
	ne[dim] = b.Ne[dim]
	g.must(OpConcat, a.Type == b.Type && ne == b.Ne, "want one type and the same other dimensions", a, b)
	ne[dim] += a.Ne[dim]
	t := g.node(OpConcat, a.Type, ne)
	t.Src[0], t.Src[1] = a, b
	t.Params[0] = int32(dim)
	return t
}

// Diag spreads the row a over the diagonal of a square matrix.
func (g *Graph) Diag(a *Tensor) *Tensor {
	g.need(OpDiag, a, a)
	g.must1(OpDiag, a.Ne[1] == 1, "want one row", a)
	t := g.node(OpDiag, a.Type, [4]int64{a.Ne[0], a.Ne[0], a.Ne[2], a.Ne[3]})
	t.Src[0] = a
	return t
}
