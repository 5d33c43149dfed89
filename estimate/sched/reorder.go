package sched

import (
	"slices"

	"weigh/formats"
	"weigh/inspect/graph"
)

// vulkanRouters are the choices of experts that Vulkan runs as one operator,
// in the order in which it looks for them.
//
// Source: ggml/src/ggml-vulkan/ggml-vulkan-types.h@v0.5.0, topk_moe_*.
var vulkanRouters = func() [][]graph.Op {
	norm := []graph.Op{graph.OpReshape, graph.OpSumRows, graph.OpClamp, graph.OpDiv, graph.OpReshape}
	chosen := []graph.Op{graph.OpArgsort, graph.OpView, graph.OpGetRows}
	softmax := slices.Concat([]graph.Op{graph.OpSoftMax, graph.OpReshape}, chosen)
	biased := slices.Concat([]graph.Op{graph.OpReshape, graph.OpAdd}, chosen, norm)
	return [][]graph.Op{
		slices.Concat(softmax, norm),
		slices.Concat([]graph.Op{graph.OpUnary}, biased),
		slices.Concat([]graph.Op{graph.OpUnary, graph.OpSqrt}, biased),
		softmax,
		slices.Concat(chosen, []graph.Op{graph.OpReshape, graph.OpSoftMax, graph.OpReshape}),
	}
}()

// vulkanChoice is a choice of blocks to attend to; it is kept together from any
// of its nodes on.
var vulkanChoice = []graph.Op{graph.OpGetRows, graph.OpPermute, graph.OpCont, graph.OpCpy, graph.OpReshape, graph.OpAdd, graph.OpTopK}

// vulkanRuns are other operators that Vulkan runs as one.
var vulkanRuns = [][]graph.Op{
	{graph.OpMul, graph.OpSin, graph.OpSqr, graph.OpMul, graph.OpAdd},
	vulkanChoice,
	{graph.OpRMSNorm, graph.OpMul, graph.OpAdd, graph.OpMul},
	{graph.OpRMSNorm, graph.OpMul, graph.OpAdd},
	{graph.OpRMSNorm, graph.OpMul, graph.OpRope, graph.OpView, graph.OpSetRows},
	{graph.OpRMSNorm, graph.OpView, graph.OpSetRows},
	{graph.OpRope, graph.OpView, graph.OpSetRows},
}

// vulkanNear is how far Vulkan looks ahead for a node to run next, and
// vulkanFar for one that can run together with it.
const vulkanNear, vulkanFar = 20, 15

// reordering is Vulkan's search for an order in which neighbours do not wait
// for each other.
type reordering struct {
	s     *Section
	nodes []*graph.Tensor
	used  []bool // by position
	done  map[*graph.Tensor]bool
	order []*graph.Tensor
	first int // first node that is not used
	set   []int
}

// vulkanOptimize reorders a section so that neighbours can overlap. Whatever is
// read by operators that run as one stays until they have run.
//
// Source: ggml/src/ggml-vulkan/ggml-vulkan.cpp@v0.5.0, ggml_vk_graph_optimize.
func vulkanOptimize(s *Section) {
	r := &reordering{
		s: s, nodes: s.Nodes, used: make([]bool, len(s.Nodes)), done: make(map[*graph.Tensor]bool, len(s.Nodes)),
		order: make([]*graph.Tensor, 0, len(s.Nodes)),
	}
	for r.first < len(r.nodes) {
		if r.keepRun() {
			continue
		}
		r.set = append(r.set[:0], r.first)
		r.takeWork()
		if r.nodes[r.set[len(r.set)-1]].Op != graph.OpAdd {
			r.takeViews()
		}
		r.push(r.set)
	}
	copy(s.Nodes, r.order)
}

func (r *reordering) push(set []int) {
	for _, i := range set {
		r.order = append(r.order, r.nodes[i])
		r.done[r.nodes[i]] = true
		r.used[i] = true
	}
	for r.first < len(r.nodes) && r.used[r.first] {
		r.first++
	}
}

func (r *reordering) matches(ops []graph.Op, start int) bool {
	if start < 0 || start+len(ops) > len(r.nodes) {
		return false
	}
	for i, op := range ops {
		if r.nodes[start+i].Op != op || r.used[start+i] {
			return false
		}
	}
	return true
}

// keepRun takes the operators at the first unused node as they are if they run
// as one.
func (r *reordering) keepRun() bool {
	for _, ops := range vulkanRouters {
		if !r.matches(ops, r.first) {
			continue
		}
		run := r.nodes[r.first : r.first+len(ops)]
		until := run[len(run)-1]
		if n := r.first + len(ops); n < len(r.nodes) && r.nodes[n].Op == graph.OpScale {
			until = r.nodes[n]
		}
		seen := map[*graph.Tensor]bool{}
		for _, t := range run {
			for _, o := range t.Src {
				if o != nil && !seen[o] {
					seen[o] = true
					r.s.Keep(o, until)
				}
			}
			seen[t] = true
		}
		r.pushRun(len(ops))
		return true
	}
	for _, ops := range vulkanRuns {
		if r.matches(ops, r.first) {
			r.pushRun(len(ops))
			return true
		}
	}
	return false
}

func (r *reordering) pushRun(n int) {
	r.set = r.set[:0]
	for i := range n {
		r.set = append(r.set, r.first+i)
	}
	r.push(r.set)
}

// inRun reports whether node i must stay where it is.
func (r *reordering) inRun(i int) bool {
	for _, ops := range vulkanRouters {
		if r.matches(ops, i) {
			return true
		}
	}
	for _, ops := range vulkanRuns {
		if r.matches(ops, i) {
			return true
		}
	}
	for o := 1; o < len(vulkanChoice); o++ {
		if r.matches(vulkanChoice, i-o) {
			return true
		}
	}
	return false
}

// idle reports whether the operator does nothing.
func idle(t *graph.Tensor) bool { return t.Op == graph.OpNone || isView(t.Op) }

// root returns the tensor whose memory t uses.
func root(t *graph.Tensor) *graph.Tensor {
	if t.ViewSrc != nil {
		return t.ViewSrc
	}
	return t
}

// waits reports whether t may not run before o.
func waits(t, o *graph.Tensor) bool {
	work := !idle(t) && !idle(o)
	for i, s := range t.Src {
		if s == o && s != nil {
			return true
		}
		if !work {
			continue
		}
		if s != nil && root(s) == root(o) || o.Src[i] != nil && root(t) == root(o.Src[i]) {
			return true
		}
	}
	return root(t) == root(o)
}

// joins reports whether node j may follow the last chosen node c although it
// reads it, because they run as one.
func (r *reordering) joins(c, j int) bool {
	if c != r.set[len(r.set)-1] {
		return false
	}
	a, b := r.nodes[c].Op, r.nodes[j].Op
	switch {
	case (a == graph.OpRMSNorm || a == graph.OpUnary) && b == graph.OpMul:
		for v := c + 1; v < j; v++ {
			if !r.used[v] && !idle(r.nodes[v]) {
				return false
			}
		}
		return true
	case j != c+1:
		return false
	case a == graph.OpMulMat, a == graph.OpAdd:
		return b == graph.OpAdd
	case a == graph.OpMulMatID:
		return b == graph.OpAddID || b == graph.OpMul
	case a == graph.OpSSMConv:
		return b == graph.OpAdd || b == graph.OpUnary
	}
	return false
}

// takeWork chooses nodes that wait for none that has not run.
func (r *reordering) takeWork() {
	for j := r.first + 1; j < min(r.first+vulkanNear, len(r.nodes)); j++ {
		if r.used[j] || idle(r.nodes[j]) || r.inRun(j) {
			continue
		}
		ok := true
		for c := r.first; c < j && ok; c++ {
			ok = r.used[c] || !waits(r.nodes[j], r.nodes[c]) || r.joins(c, j)
		}
		if ok {
			r.set = append(r.set, j)
			r.pull(j)
		}
	}
}

// take chooses a node out of turn.
func (r *reordering) take(i int) {
	r.set = append(r.set, i)
	r.used[i] = true
}

// ready reports whether t is there: not computed at all, or already.
func (r *reordering) ready(t *graph.Tensor) bool {
	return t == nil || t.Op == graph.OpNone || r.done[t]
}

// find returns the first node behind i, not too far, for which f holds; -1 for
// none.
func (r *reordering) find(i int, f func(*graph.Tensor) bool) int {
	for k := i + 1; k < min(i+vulkanFar, len(r.nodes)); k++ {
		if f(r.nodes[k]) {
			return k
		}
	}
	return -1
}

// pull chooses what runs as one with node j.
func (r *reordering) pull(j int) {
	t := r.nodes[j]
	prev := r.nodes[j-1].Op
	rope := j
	if t.Op == graph.OpMul && prev == graph.OpRMSNorm {
		if k := r.find(j, func(n *graph.Tensor) bool {
			return n.Op == graph.OpRope && n.Src[0] == t && n.Src[1].Op == graph.OpNone &&
				(n.Src[2] == nil || n.Src[2].Op == graph.OpNone)
		}); k >= 0 {
			rope = k
			r.take(k)
		}
	}
	if op := r.nodes[rope].Op; op == graph.OpRope || op == graph.OpRMSNorm {
		r.pullStore(rope)
	}
	if t.Op == graph.OpAddID && prev == graph.OpMulMatID {
		r.takeIf(r.find(j, func(n *graph.Tensor) bool { return n.Op == graph.OpMul && n.Src[0] == t && r.ready(n.Src[1]) }))
	}
	if t.Op == graph.OpAdd && prev == graph.OpMulMat {
		r.takeIf(r.find(j, func(n *graph.Tensor) bool { return n.Op == graph.OpAdd && n.Src[0] == t && r.ready(n.Src[1]) }))
	}
	if t.Op == graph.OpAdd && prev == graph.OpSSMConv {
		r.takeIf(r.find(j, func(n *graph.Tensor) bool { return n.Op == graph.OpUnary && n.Src[0] == t }))
	}
	if t.Op == graph.OpUnary {
		r.takeIf(r.find(j, func(n *graph.Tensor) bool {
			if n.Op != graph.OpMul || n.Src[0] != t && n.Src[1] != t {
				return false
			}
			other := n.Src[0]
			if other == t {
				other = n.Src[1]
			}
			return r.ready(other) && gates(t, n, other)
		}))
	}
}

func (r *reordering) takeIf(i int) {
	if i >= 0 {
		r.take(i)
	}
}

// pullStore chooses the view of a node's result and the operator that stores it
// in a cache.
func (r *reordering) pullStore(from int) {
	view, store := -1, -1
	for k := from + 1; k < min(from+vulkanFar, len(r.nodes)); k++ {
		n := r.nodes[k]
		switch {
		case r.used[k]:
		case view < 0 && n.Op == graph.OpView && n.Src[0] == r.nodes[from]:
			view = k
		case view >= 0 && n.Op == graph.OpSetRows && n.Src[0] == r.nodes[view]:
			store = k
		}
		if store >= 0 {
			break
		}
	}
	if store < 0 {
		return
	}
	run := []*graph.Tensor{r.nodes[from], r.nodes[view], r.nodes[store]}
	if !r.s.fusesNodes(run, []graph.Op{run[0].Op, graph.OpView, graph.OpSetRows}, 2) {
		return
	}
	for c := from + 1; c < store; c++ {
		if !r.used[c] && c != view && !idle(r.nodes[c]) && waits(r.nodes[store], r.nodes[c]) {
			return
		}
	}
	r.take(view)
	r.take(store)
}

// gates reports whether an activation and the product with other run as one.
//
// Source: ggml/src/ggml-vulkan/ggml-vulkan.cpp@v0.5.0,
// ggml_vk_can_fuse_unary_mul.
func gates(act, mul, other *graph.Tensor) bool {
	switch act.Sub {
	case graph.UnaryGELU, graph.UnarySigmoid, graph.UnarySiLU, graph.UnarySoftplus:
	default:
		return false
	}
	if !oneOf(act.Type, formats.F32, formats.F16) || act.Type != mul.Type || other == nil || other.Type != act.Type ||
		!other.ContiguousFrom(1) || !act.Src[0].ContiguousFrom(1) {
		return false
	}
	small, big := act, mul.Src[0]
	if mul.Src[0] == act {
		small, big = other, act
	}
	for i := range small.Ne {
		if small.Ne[i] == 0 || big.Ne[i]%small.Ne[i] != 0 {
			return false
		}
	}
	return true
}

// takeViews chooses views of what has run or was chosen.
func (r *reordering) takeViews() {
	for j := r.first + 1; j < min(r.first+vulkanNear, len(r.nodes)); j++ {
		if r.used[j] || !idle(r.nodes[j]) {
			continue
		}
		ok := true
		for c := r.first; c < j && ok; c++ {
			ok = r.used[c] || !waits(r.nodes[j], r.nodes[c]) || slices.Contains(r.set, c)
		}
		if ok {
			r.set = append(r.set, j)
		}
	}
}
