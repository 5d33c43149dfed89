package sched

import (
	"slices"

	"weigh/formats"
	"weigh/inspect/graph"
)

// metalMost is the most nodes that Metal runs as one (GGML_METAL_FUSION_MAX).
const metalMost = 16

// A metalRun is operators that Metal can run as one.
type metalRun struct {
	all   []graph.Op // with views
	ops   []graph.Op // without
	chain bool       // each reads the one before it and has its shape, and nothing else reads those in between
	check func(s *Section, at []int, r *metalRun) bool
}

// metalRuns are tried in this order.
//
// Source: ggml/src/ggml-metal/ggml-metal-fusion.cpp@v0.5.0,
// ggml_metal_fusions.
var metalRuns = func() []metalRun {
	var runs []metalRun
	add := func(chain bool, check func(*Section, []int, *metalRun) bool, all ...graph.Op) {
		r := metalRun{all: all, chain: chain, check: check}
		for _, op := range all {
			if !isView(op) {
				r.ops = append(r.ops, op)
			}
		}
		runs = append(runs, r)
	}
	for _, norm := range [...]graph.Op{graph.OpNorm, graph.OpRMSNorm} {
		add(true, metalNorm, norm, graph.OpMul)
		add(true, metalNorm, norm, graph.OpMul, graph.OpAdd)
		add(true, metalNormScale, norm, graph.OpScale)
	}
	for n := 2; n <= 7; n++ {
		add(true, metalAdds, slices.Repeat([]graph.Op{graph.OpAdd}, n)...)
	}
	add(true, metalSnake, graph.OpMul, graph.OpSin, graph.OpSqr, graph.OpMul, graph.OpAdd)
	add(false, metalDelta, graph.OpGatedDeltaNet, graph.OpCpy)
	softmax := []graph.Op{graph.OpSoftMax, graph.OpReshape, graph.OpArgsort, graph.OpView, graph.OpGetRows}
	norm := slices.Concat(softmax, []graph.Op{graph.OpReshape, graph.OpSumRows, graph.OpClamp, graph.OpDiv, graph.OpReshape})
	for _, ops := range [...][]graph.Op{softmax, norm} {
		add(false, metalRouter, ops...)
		add(false, metalRouter, slices.Concat(ops, []graph.Op{graph.OpScale})...)
	}
	for n := 2; n <= 8; n++ {
		add(false, metalSum, slices.Concat([]graph.Op{graph.OpMul}, slices.Repeat([]graph.Op{graph.OpView}, n),
			slices.Repeat([]graph.Op{graph.OpAdd}, n-1))...)
	}
	add(true, metalConv, graph.OpSSMConv, graph.OpUnary)
	return runs
}()

// metalNorm wants a weight and bias as wide as a normalised row.
func metalNorm(s *Section, at []int, r *metalRun) bool {
	for j := 1; j < len(at); j++ {
		t := s.Nodes[at[j]]
		if t.Src[0] != s.Nodes[at[j-1]] || t.Src[1].Ne[0] != s.Nodes[at[0]].Ne[0] || !t.Src[1].ContiguousRows() || t.Type != formats.F32 {
			return false
		}
	}
	return true
}

func metalNormScale(s *Section, at []int, r *metalRun) bool {
	t := s.Nodes[at[1]]
	return t.Src[0] == s.Nodes[at[0]] && t.Src[1] == nil && t.Type == formats.F32
}

// metalAdds wants addends of one layout.
func metalAdds(s *Section, at []int, r *metalRun) bool {
	for j := 1; j < len(at); j++ {
		t, prev := s.Nodes[at[j]], s.Nodes[at[j-1]]
		if t.Src[0] != prev {
			return false
		}
		if a, b := t.Src[1], prev.Src[1]; a.Type != b.Type || a.Ne != b.Ne || a.Nb != b.Nb {
			return false
		}
	}
	return true
}

// metalSnake wants x + sin(a*x)^2/b with a and b per channel.
func metalSnake(s *Section, at []int, r *metalRun) bool {
	mul, sin, sqr, div, sum := s.Nodes[at[0]], s.Nodes[at[1]], s.Nodes[at[2]], s.Nodes[at[3]], s.Nodes[at[4]]
	x, a := mul.Src[0], mul.Src[1]
	if !mul.SameShape(x) {
		x, a = a, x
	}
	b := div.Src[0]
	if b == sqr {
		b = div.Src[1]
	}
	back := sum.Src[0]
	if back == div {
		back = sum.Src[1]
	}
	flat := func(t *graph.Tensor) bool { return t.Ne[2] == 1 && t.Ne[3] == 1 && t.Contiguous() }
	for _, t := range [...]*graph.Tensor{mul, sin, sqr, div, sum} {
		if t.Type != x.Type {
			return false
		}
	}
	return (float(x) || x.Type == formats.BF16) && a.Type == formats.F32 && b.Type == formats.F32 && a.SameShape(b) &&
		a.Ne[0] == 1 && a.Ne[1] == x.Ne[1] && flat(x) && flat(sum) && flat(a) && flat(b) && back == x
}

// metalDelta wants the copy of a delta net's last states to its cache.
func metalDelta(s *Section, at []int, r *metalRun) bool {
	net, cpy := s.Nodes[at[0]], s.Nodes[at[1]]
	if net.Type != formats.F32 || net.Is(graph.Output) || cpy.Is(graph.Output) {
		return false
	}
	v := net.Src[2].Ne
	tail := uint64(v[0]*v[1]*v[2]*v[3]) * 4
	d := v[0] * v[0] * v[1]
	from, to := cpy.Src[0], cpy.Src[1]
	return from.Op == graph.OpView && from.ViewSrc == net && from.ViewOffs == tail && from.Contiguous() &&
		to.Type == formats.F32 && to.Ne == [4]int64{d, v[3], min(v[2], int64(net.Params[0])), 1} &&
		to.Nb[0] == 4 && to.Nb[1] == uint64(d)*4
}

// metalRouter wants the choice of experts by plain softmax.
func metalRouter(s *Section, at []int, r *metalRun) bool {
	start := at[0]
	if start+len(r.all) > len(s.Nodes) {
		return false
	}
	// Behind a normalisation there is a reshape that the nodes without views
	// do not show; views among the others would make the run longer.
	end := at[len(at)-1]
	if r.all[len(r.all)-1] == graph.OpReshape {
		end++
	}
	if end-start+1 != len(r.all) {
		return false
	}
	n := s.Nodes[start : start+len(r.all)]
	soft, ids, out := n[0], n[3], n[len(n)-1]
	logits := soft.Src[0]
	experts, tokens, used := logits.Ne[0], logits.Ne[1], ids.Ne[0]
	switch {
	case soft.Params[1] != 0 || soft.Src[1] != nil || soft.Src[2] != nil,
		logits.Type != formats.F32 || soft.Type != formats.F32 || out.Type != formats.F32 || ids.Type != formats.I32,
		used > experts || experts > 1024,
		logits.Ne[2] != 1 || logits.Ne[3] != 1 || ids.Ne != [4]int64{used, tokens, 1, 1},
		out.Ne != [4]int64{1, used, tokens, 1},
		!logits.Contiguous() || !out.Contiguous() || ids.Nb[0] != 4 || ids.Nb[1] != uint64(experts)*4,
		n[1].Src[0] != soft || n[2].Src[0] != soft || ids.Src[0] != n[2] || n[4].Src[0] != n[1] || n[4].Src[1] != ids:
		return false
	}
	for j := 5; j < len(n); j++ {
		operand := n[j-1]
		if n[j].Op == graph.OpDiv {
			if n[j].Src[1] != n[j-1] {
				return false
			}
			operand = n[5]
		}
		if n[j].Src[0] != operand {
			return false
		}
	}
	return s.fusesNodes(n, r.all, 3, len(n)-1)
}

// metalSum wants the weighted sum of experts.
func metalSum(s *Section, at []int, r *metalRun) bool {
	start, used := at[0], len(r.all)/2
	if start+len(r.all) > len(s.Nodes) || at[len(at)-1] != start+len(r.all)-1 || len(r.ops) != used {
		return false
	}
	n := s.Nodes[start : start+len(r.all)]
	mul, sum := n[0], n[len(n)-1]
	x, w := mul.Src[0], mul.Src[1]
	embd, tokens := x.Ne[0], x.Ne[2]
	for i, t := range n {
		if t.Op != r.all[i] {
			return false
		}
	}
	switch {
	case mul.Type != formats.F32 || x.Type != formats.F32 || w.Type != formats.F32 || sum.Type != formats.F32,
		x.Ne != [4]int64{embd, int64(used), tokens, 1} || w.Ne != [4]int64{1, int64(used), tokens, 1},
		sum.Ne != [4]int64{embd, tokens, 1, 1},
		!x.Contiguous() || !w.Contiguous() || !sum.Contiguous():
		return false
	}
	for i := range used {
		v := n[1+i]
		if v.ViewSrc != mul || v.Src[0] != mul || v.ViewOffs != uint64(i)*mul.Nb[1] || v.Ne[0] != embd || v.Ne[1] != tokens ||
			v.Nb[1] != mul.Nb[2] {
			return false
		}
	}
	left := n[1]
	for j := 1; j < used; j++ {
		t := n[used+j]
		if t.Src[0] != left || t.Src[1] != n[1+j] {
			return false
		}
		left = t
	}
	return s.fusesNodes(n, r.all, len(n)-1)
}

// metalConv wants SiLU of a convolution.
func metalConv(s *Section, at []int, r *metalRun) bool {
	conv, act := s.Nodes[at[0]], s.Nodes[at[1]]
	return act.Src[0] == conv && act.Src[1] == nil && act.Sub == graph.UnarySiLU && conv.Type == formats.F32 &&
		act.Type == formats.F32 && act.ContiguousRows()
}

// metalKeep holds what the longest run of operators at each node reads until it
// has run, by the operators alone.
//
// Source: ggml/src/ggml-metal/ggml-metal-fusion.cpp@v0.5.0,
// ggml_metal_fusion_add_alloc_deps.
func metalKeep(s *Section) {
	for i := 0; i < len(s.Nodes); i++ {
		best := 0
		for _, r := range metalRuns {
			if len(r.all) > best && s.has(i, r.all) {
				best = len(r.all)
			}
		}
		if best == 0 {
			continue
		}
		run := s.Nodes[i : i+best]
		seen := map[*graph.Tensor]bool{}
		for _, t := range run {
			for _, o := range t.Src {
				if o != nil && !seen[o] {
					seen[o] = true
					s.Keep(o, run[best-1])
				}
			}
			seen[t] = true
		}
		i += best - 1
	}
}

func (s *Section) has(start int, ops []graph.Op) bool {
	if start+len(ops) > len(s.Nodes) {
		return false
	}
	for i, op := range ops {
		if s.Nodes[start+i].Op != op {
			return false
		}
	}
	return true
}

// metalFused returns how many nodes from i on Metal runs as one, or one run
// after the other, views between them included.
//
// Source: ggml/src/ggml-metal/ggml-metal-fusion.cpp@v0.5.0,
// ggml_metal_fusion_max and ggml_metal_fusion_next.
func metalFused(s *Section, i int) int {
	busy := func(t *graph.Tensor) bool { return !idle(t) && t.Elements() > 0 }
	if !busy(s.Nodes[i]) {
		return 1
	}
	var at []int
	for j := i; j < len(s.Nodes) && len(at) < metalMost; j++ {
		if busy(s.Nodes[j]) {
			at = append(at, j)
		}
	}
	total := 0
	for total < len(at) {
		n := metalNext(s, at[total:])
		if n < 2 || total+n > metalMost {
			break
		}
		total += n
	}
	if total == 0 {
		return 1
	}
	return min(metalMost, at[total-1]-i+1)
}

// metalNext returns how many of the nodes at the given positions the longest
// run takes, 1 for none.
func metalNext(s *Section, at []int) int {
	best := 1
	for k := range metalRuns {
		r := &metalRuns[k]
		n := len(r.ops)
		if n <= best || n > len(at) || s.Nodes[at[0]].Op != r.ops[0] {
			continue
		}
		nodes := make([]*graph.Tensor, n)
		ok := true
		for j := range nodes {
			t := s.Nodes[at[j]]
			nodes[j] = t
			ok = ok && t.Op == r.ops[j]
			if r.chain && j > 0 {
				prev := nodes[j-1]
				ok = ok && (t.Src[0] == prev || t.Src[1] == prev) && t.SameShape(prev)
			}
		}
		if ok && (!r.chain || s.fusesNodes(nodes, r.ops, n-1)) && r.check(s, at[:n], r) {
			best = n
		}
	}
	return best
}

// ranges is a set of memory that nodes read or write. Tensors with memory of
// their own never overlap: what llama.cpp sees as a conflict of neighbours in
// a cache is not modelled.
type ranges struct {
	seen  []int32 // round in which the tensor was added last, by ID
	wrote []bool
	round int32
}

func (r *ranges) add(t *graph.Tensor, write bool) {
	id := root(t).ID
	if r.seen[id] != r.round {
		r.seen[id], r.wrote[id] = r.round, false
	}
	r.wrote[id] = r.wrote[id] || write
}

// free reports whether t can be used while the set is.
func (r *ranges) free(t *graph.Tensor, write bool) bool {
	id := root(t).ID
	return r.seen[id] != r.round || !write && !r.wrote[id]
}

// metalReorder moves nodes forward that can run beside those before them.
//
// Source: ggml/src/ggml-metal/ggml-metal-common.cpp@v0.5.0,
// ggml_graph_optimize and ggml_metal_graph_optimize_reorder.
func metalReorder(s *Section) {
	const ahead = 64
	var groups [][]*graph.Tensor
	for i := 0; i < len(s.Nodes); {
		n := metalFused(s, i)
		groups = append(groups, s.Nodes[i:i+n:i+n])
		i += n
	}
	visit := func(g []*graph.Tensor, f func(*graph.Tensor, bool) bool) bool {
		for _, t := range g {
			for _, o := range t.Src {
				if o != nil && !slices.Contains(g, o) && !f(o, false) {
					return false
				}
			}
		}
		for _, t := range g {
			if !f(t, true) {
				return false
			}
		}
		return true
	}
	newRanges := func() *ranges {
		return &ranges{seen: make([]int32, s.w.count), wrote: make([]bool, s.w.count), round: 1}
	}
	now, later := newRanges(), newRanges()
	add := func(r *ranges, g []*graph.Tensor) {
		visit(g, func(t *graph.Tensor, w bool) bool { r.add(t, w); return true })
	}
	order := make([]*graph.Tensor, 0, len(s.Nodes))
	used := make([]bool, len(groups))
	for i, g := range groups {
		if used[i] {
			continue
		}
		if !idle(g[0]) && !visit(g, now.free) {
			later.round++
			add(later, g)
			for j := i + 1; j < min(i+ahead, len(groups)); j++ {
				if used[j] {
					continue
				}
				o := groups[j]
				if !metalMoves(o[0].Op) {
					break
				}
				if (idle(o[0]) || visit(o, now.free)) && visit(o, later.free) {
					add(now, o)
					order = append(order, o...)
					used[j] = true
				} else {
					add(later, o)
				}
			}
			now.round++
		}
		add(now, g)
		order = append(order, g...)
	}
	copy(s.Nodes, order)
}

// metalMoves reports whether Metal moves nodes across an operator.
func metalMoves(op graph.Op) bool {
	switch op {
	case graph.OpMulMat, graph.OpMulMatID, graph.OpRope, graph.OpNorm, graph.OpRMSNorm, graph.OpGroupNorm, graph.OpL2Norm,
		graph.OpSumRows, graph.OpSSMConv, graph.OpSSMScan, graph.OpClamp, graph.OpTri, graph.OpDiag, graph.OpMul, graph.OpAdd,
		graph.OpSub, graph.OpDiv, graph.OpGLU, graph.OpScale, graph.OpUnary, graph.OpGetRows, graph.OpSetRows, graph.OpSet,
		graph.OpCpy, graph.OpCont, graph.OpRepeat, graph.OpNone:
		return true
	}
	return isView(op)
}
