package arch

import (
	"fmt"

	"weigh/inspect/graph"
)

// Fail stops the building of the graph: the model's tensors and keys
// contradict each other.
func (b *Builder) Fail(format string, args ...any) {
	panic(&graph.ShapeError{Msg: fmt.Sprintf(format, args...)})
}

// need returns a weight of layer il that must be there.
func (b *Builder) need(il int, name string) *graph.Tensor {
	t := b.W(il, name)
	if t == nil {
		b.Fail("blk.%d.%s: missing", il, name)
	}
	return t
}

// kept stops the building of a graph that reads what the context does not keep:
// the model's keys describe another kind of memory.
func (b *Builder) kept(ok bool) {
	if !ok {
		b.Fail("the graph needs a cache or state that the memory of this model does not have")
	}
}
