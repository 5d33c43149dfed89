// Package graph describes the compute graph of one micro-batch as shapes: what
// ggml's operators would produce, in the order in which they would run. Nothing
// is computed and no memory is held for data.
//
// The operators and their shape rules are those of ggml (ggml/src/ggml.c at
// llama.cpp v0.5.0).
package graph

import "weigh/formats"

// MaxSrc is the most operands an operator takes (GGML_MAX_SRC).
const MaxSrc = 10

// Flags mark what a tensor is to the scheduler and the allocator.
type Flags uint8

// The flags of a tensor.
const (
	Input  Flags = 1 << iota // filled by the host before the graph runs (ggml_set_input)
	Output                   // read by the host after it (ggml_set_output); its memory is never reused
	Weight                   // lives in a weights buffer (GGML_BACKEND_BUFFER_USAGE_WEIGHTS)
)

// Unplaced is the Buf of a tensor that the graph's allocator has to place.
const Unplaced = -1

// A Tensor is a node or leaf of the graph. Dimensions and strides are those of
// ggml: Ne[0] is the fastest, Nb is in bytes.
type Tensor struct {
	Ne       [4]int64
	Nb       [4]uint64
	Src      [MaxSrc]*Tensor
	ViewSrc  *Tensor // the tensor whose memory this one shares, never itself a view
	ViewOffs uint64  // offset into ViewSrc, bytes
	Name     string  // as llama.cpp's callback names it, without the layer: "Qcur", "norm", "kqv_out"
	Type     formats.DType
	Layer    int32 // layer the name belongs to, -1 for none
	Op       Op
	Sub      uint8 // UnaryOp or GLUOp of OpUnary and OpGLU
	Flags    Flags
	Buf      int16    // memory that holds the tensor before the graph is packed: an id given by the estimate; Unplaced otherwise
	Backend  int8     // backend the graph's author demands, -1 for none (ggml_backend_sched_set_tensor_backend)
	Params   [6]int32 // the operator's parameters that shapes or backends depend on; each operator says which
	ID       int32    // position in the order of creation
}

// Bytes returns the bytes from the first to the last element.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_nbytes.
func (t *Tensor) Bytes() uint64 {
	for _, n := range t.Ne {
		if n <= 0 {
			return 0
		}
	}
	e, b := t.Type.Block()
	if e == 1 {
		n := b
		for i := range t.Ne {
			n += uint64(t.Ne[i]-1) * t.Nb[i]
		}
		return n
	}
	n := uint64(t.Ne[0]) * t.Nb[0] / e
	for i := 1; i < 4; i++ {
		n += uint64(t.Ne[i]-1) * t.Nb[i]
	}
	return n
}

// Elements returns the number of elements.
func (t *Tensor) Elements() int64 { return t.Ne[0] * t.Ne[1] * t.Ne[2] * t.Ne[3] }

// Rows returns the number of rows.
func (t *Tensor) Rows() int64 { return t.Ne[1] * t.Ne[2] * t.Ne[3] }

// Contiguous reports whether the elements lie without gaps in the order of
// their indices.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_is_contiguous_n(t, 0).
func (t *Tensor) Contiguous() bool { return t.ContiguousFrom(0) }

// ContiguousFrom reports whether dimensions above n are packed without gaps;
// those up to n may have any stride.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_is_contiguous_n.
func (t *Tensor) ContiguousFrom(n int) bool {
	e, b := t.Type.Block()
	next := b
	if t.Ne[0] != int64(e) && t.Nb[0] != next {
		return false
	}
	next *= uint64(t.Ne[0]) / e
	for i := 1; i < 4; i++ {
		if i > n {
			if t.Ne[i] != 1 && t.Nb[i] != next {
				return false
			}
			next *= uint64(t.Ne[i])
		} else {
			next = uint64(t.Ne[i]) * t.Nb[i]
		}
	}
	return true
}

// Is reports whether all of the flags in f are set.
func (t *Tensor) Is(f Flags) bool { return t.Flags&f == f }

// SameShape reports whether both have the same dimensions.
func (t *Tensor) SameShape(o *Tensor) bool { return t.Ne == o.Ne }

// A Graph is a list of nodes in the order of execution, and the leafs (inputs,
// weights, caches) they start from.
type Graph struct {
	Nodes []*Tensor
	Leafs []*Tensor

	// FusedNodes are those that llama.cpp asks the backends about before it
	// settles on a fused operator.
	FusedNodes []FusedNode

	slab  []Tensor
	count int32
	seen  []bool
}

// A FusedNode is a fused operator of a layer (llm_graph_fused_node).
type FusedNode struct {
	Tensor *Tensor
	What   uint8 // which fused operator, as the graph's author numbers them
	Layer  int32
}

// New returns an empty graph with room for about n tensors.
func New(n int) *Graph {
	return &Graph{slab: make([]Tensor, 0, n), seen: make([]bool, 0, n), Nodes: make([]*Tensor, 0, n)}
}

// alloc returns a zero tensor that belongs to no operator yet.
func (g *Graph) alloc() *Tensor {
	if len(g.slab) == cap(g.slab) {
		g.slab = make([]Tensor, 0, 512)
	}
	g.slab = g.slab[:len(g.slab)+1]
	t := &g.slab[len(g.slab)-1]
	t.Buf, t.Backend, t.Layer, t.ID = Unplaced, -1, -1, g.count
	g.count++
	g.seen = append(g.seen, false)
	return t
}

// Leaf returns a new tensor without an operator: an input, a weight or a cache.
func (g *Graph) Leaf(name string, typ formats.DType, ne ...int64) *Tensor {
	dims := [4]int64{1, 1, 1, 1}
	if copy(dims[:], ne) < len(ne) {
		g.fail(OpNone, "%q has %d dimensions, want at most 4", name, len(ne))
	}
	t := g.node(OpNone, typ, dims)
	t.Name = name
	return t
}

// Expand appends t and all it depends on, operands first, that is not in the
// graph yet.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_build_forward_expand and
// ggml_visit_parents_graph (left to right).
func (g *Graph) Expand(t *Tensor) {
	if t == nil || g.seen[t.ID] {
		return
	}
	g.seen[t.ID] = true
	for _, s := range t.Src {
		if s != nil {
			g.Expand(s)
		}
	}
	if t.Op == OpNone {
		g.Leafs = append(g.Leafs, t)
		return
	}
	g.Nodes = append(g.Nodes, t)
}

// Select appends all of ts, as alternatives of which one will be computed, and
// returns the one with index idx. All of them get memory.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_build_forward_select.
func (g *Graph) Select(idx int, ts ...*Tensor) *Tensor {
	for _, t := range ts {
		g.Expand(t)
	}
	return ts[idx]
}
