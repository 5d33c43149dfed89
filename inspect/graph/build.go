package graph

import (
	"fmt"
	"math/bits"

	"weigh/formats"
)

// maxDim is the largest dimension a tensor may have. It is far above anything
// a machine could hold and low enough for sums of two to be safe.
const maxDim = 1 << 40

// A ShapeError says that an operator was given tensors it cannot take, which
// is what a model with wrong dimensions leads to. ggml would abort.
type ShapeError struct {
	Op  Op
	Msg string
}

func (e *ShapeError) Error() string {
	if e.Op == OpNone {
		return "compute graph: " + e.Msg
	}
	return "compute graph: " + e.Op.String() + ": " + e.Msg
}

// Try runs f and returns the ShapeError an operator met in it. Other panics
// pass through.
func Try(f func()) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case *ShapeError:
			err = r
		default:
			panic(r)
		}
	}()
	f()
	return nil
}

// Build returns the graph that f builds, or the ShapeError an operator met.
// n is about how many tensors there will be.
func Build(n int, f func(g *Graph)) (*Graph, error) {
	g := New(n)
	if err := Try(func() { f(g) }); err != nil {
		return nil, err
	}
	return g, nil
}

// fail stops the building of the graph.
func (g *Graph) fail(op Op, format string, args ...any) {
	panic(&ShapeError{Op: op, Msg: fmt.Sprintf(format, args...)})
}

// need fails unless both operands exist.
func (g *Graph) need(op Op, a, b *Tensor) {
	if a == nil || b == nil {
		g.fail(op, "an operand is missing")
	}
}

// need3 fails unless the three operands exist.
func (g *Graph) need3(op Op, a, b, c *Tensor) {
	if a == nil || b == nil || c == nil {
		g.fail(op, "an operand is missing")
	}
}

// must fails with both shapes unless ok.
func (g *Graph) must(op Op, ok bool, want string, a, b *Tensor) {
	if !ok {
		g.fail(op, "%s: got %v %v and %v %v", want, a.Type, a.Ne, b.Type, b.Ne)
	}
}

// must1 fails with the shape unless ok.
func (g *Graph) must1(op Op, ok bool, want string, a *Tensor) {
	if !ok {
		g.fail(op, "%s: got %v %v", want, a.Type, a.Ne)
	}
}

// shape gives t its type, dimensions and packed strides, and returns the bytes
// of its data. It fails when they do not fit in 63 bits.
func (g *Graph) shape(t *Tensor, op Op, typ formats.DType, ne [4]int64) uint64 {
	e, b := typ.Block()
	if e == 0 {
		g.fail(op, "element type %v has no known size", typ)
	}
	n := uint64(1)
	for i, d := range ne {
		if d < 0 || d > maxDim {
			g.fail(op, "dimension %d of %v is out of range", i, ne)
		}
		f := uint64(d)
		if i == 0 {
			f = RowSize(typ, d)
		}
		hi, lo := bits.Mul64(n, f)
		if hi != 0 || lo > 1<<62 {
			g.fail(op, "dimensions %v of %v are too large to address", ne, typ)
		}
		n = lo
	}
	t.Op, t.Type, t.Ne = op, typ, ne
	t.Nb[0] = b
	t.Nb[1] = b * (uint64(ne[0]) / e)
	t.Nb[2] = t.Nb[1] * uint64(ne[1])
	t.Nb[3] = t.Nb[2] * uint64(ne[2])
	return n
}

// RowSize returns the bytes of n elements (below 2^48) in a row. A view of a
// quantized cache can be of heads that are no whole number of blocks: the byte
// that its last block shares with the next head's is not counted. The bytes of
// an unknown type are 0.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_row_size.
func RowSize(t formats.DType, n int64) uint64 {
	e, b := t.Block()
	if e == 0 {
		return 0
	}
	return b * uint64(n) / e
}

// node returns a packed result with memory of its own, in which a row is made
// of whole blocks.
func (g *Graph) node(op Op, typ formats.DType, ne [4]int64) *Tensor {
	t := g.alloc()
	g.shape(t, op, typ, ne)
	if e, _ := typ.Block(); uint64(ne[0])%e != 0 {
		g.fail(op, "row of %d elements is not made of whole blocks of %d (%v)", ne[0], e, typ)
	}
	return t
}

// like returns a packed result of a's type and shape; a is its first operand.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_dup_tensor.
func (g *Graph) like(op Op, a *Tensor) *Tensor {
	g.need(op, a, a)
	t := g.node(op, a.Type, a.Ne)
	t.Src[0] = a
	return t
}

// window returns a packed result within the memory of a, offs bytes after a's
// first; a is its first operand.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_new_tensor_impl.
func (g *Graph) window(op Op, a *Tensor, ne [4]int64, offs uint64) *Tensor {
	g.need(op, a, a)
	t := g.alloc()
	size := g.shape(t, op, a.Type, ne)
	t.Src[0], t.ViewSrc, t.ViewOffs = a, a, offs
	if a.ViewSrc != nil {
		t.ViewSrc, t.ViewOffs = a.ViewSrc, a.ViewOffs+offs
	}
	if size > 0 {
		if have := t.ViewSrc.Bytes(); t.ViewOffs > have || size > have-t.ViewOffs {
			g.fail(op, "%d bytes at byte %d do not fit in the %d bytes of %v %v", size, t.ViewOffs, have, t.ViewSrc.Type, t.ViewSrc.Ne)
		}
	}
	return t
}

// over returns a result that takes a's place in memory; a is its first operand.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_view_tensor.
func (g *Graph) over(op Op, a *Tensor) *Tensor {
	g.need(op, a, a)
	t := g.window(op, a, a.Ne, 0)
	t.Nb = a.Nb
	return t
}

// SetInput marks t as filled by the host before the graph runs.
func (t *Tensor) SetInput() *Tensor {
	t.Flags |= Input
	return t
}

// SetOutput marks t as read by the host after the graph ran.
func (t *Tensor) SetOutput() *Tensor {
	t.Flags |= Output
	return t
}

// SetName names t.
func (t *Tensor) SetName(name string) *Tensor {
	t.Name = name
	return t
}

// Transposed reports whether rows and columns are swapped.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_is_transposed.
func (t *Tensor) Transposed() bool { return t.Nb[0] > t.Nb[1] }

// Permuted reports whether the strides do not ascend.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_is_permuted.
func (t *Tensor) Permuted() bool {
	return t.Nb[0] > t.Nb[1] || t.Nb[1] > t.Nb[2] || t.Nb[2] > t.Nb[3]
}

// ContiguousRows reports whether the elements of a row lie without gaps.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_is_contiguous_rows.
func (t *Tensor) ContiguousRows() bool {
	e, b := t.Type.Block()
	return t.Ne[0] == int64(e) || t.Nb[0] == b
}

// paddedRows reports whether only rows may have gaps between them.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_is_padded_1d.
func (t *Tensor) paddedRows() bool {
	_, b := t.Type.Block()
	return t.Nb[0] == b && t.Nb[2] == t.Nb[1]*uint64(t.Ne[1]) && t.Nb[3] == t.Nb[2]*uint64(t.Ne[2])
}

// Empty reports whether there are no elements.
func (t *Tensor) Empty() bool {
	return t.Ne[0] == 0 || t.Ne[1] == 0 || t.Ne[2] == 0 || t.Ne[3] == 0
}

// vector reports whether all dimensions but the first are 1.
func (t *Tensor) vector() bool { return t.Ne[1] == 1 && t.matrix() }

// matrix reports whether the third and fourth dimension are 1.
func (t *Tensor) matrix() bool { return t.Ne[2] == 1 && t.Ne[3] == 1 }

// divides reports whether b is a multiple of a.
func divides(a, b int64) bool { return a != 0 && b%a == 0 }

// canRepeat reports whether copies of a fill b.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_can_repeat.
func canRepeat(a, b *Tensor) bool {
	if a.Empty() {
		return b.Empty()
	}
	return b.Ne[0]%a.Ne[0] == 0 && b.Ne[1]%a.Ne[1] == 0 && b.Ne[2]%a.Ne[2] == 0 && b.Ne[3]%a.Ne[3] == 0
}

// product returns the number of elements of the dimensions, -1 when a dimension
// is out of range or the product does not fit in 62 bits.
func product(ne [4]int64) int64 {
	n := uint64(1)
	for _, d := range ne {
		if d < 0 || d > maxDim {
			return -1
		}
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 || lo > 1<<62 {
			return -1
		}
		n = lo
	}
	return int64(n)
}
