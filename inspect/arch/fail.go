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
