package projector

import (
	"fmt"
	"math"

	"weigh/inspect/graph"
)

// Fail stops the building of the graph: the file's tensors and keys contradict
// each other.
func (b *builder) Fail(format string, args ...any) {
	panic(&graph.ShapeError{Msg: fmt.Sprintf(format, args...)})
}

func isqrt(n int) int { return int(math.Sqrt(float64(n))) }
