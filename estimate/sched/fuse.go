package sched

import (
	"slices"

	"weigh/formats"
	"weigh/inspect/graph"
)

// next returns the node behind the section, nil at the end of the graph.
func (s *Section) next() *graph.Tensor {
	all := s.w.nodes[:len(s.w.nodes)]
	i := slices.Index(all, s.Nodes[len(s.Nodes)-1])
	if i+1 < len(all) {
		return all[i+1]
	}
	return nil
}

// fuses reports whether the nodes from start on have the given operators, and
// none but outputs (given by position) is read outside of them.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_can_fuse_subgraph_ext.
func (s *Section) fuses(start int, ops []graph.Op, outputs ...int) bool {
	if start+len(ops) > len(s.Nodes) {
		return false
	}
	return s.fusesNodes(s.Nodes[start:start+len(ops)], ops, outputs...)
}

// fusesNodes is fuses for nodes that need not follow each other; outputs are
// positions in nodes.
func (s *Section) fusesNodes(nodes []*graph.Tensor, ops []graph.Op, outputs ...int) bool {
	for i, t := range nodes {
		if t.Op != ops[i] {
			return false
		}
		if slices.Contains(outputs, i) {
			continue
		}
		if t.Is(graph.Output) {
			return false
		}
		uses := 0
		for _, o := range nodes[i+1:] {
			for _, src := range o.Src {
				if src == t {
					uses++
				}
			}
		}
		if uses != s.Uses(t) {
			return false
		}
		if v := t.ViewSrc; v != nil && !slices.Contains(nodes, v) && !(v.Buf >= 0 && v.Is(graph.Weight)) {
			return false
		}
	}
	return true
}

// cudaOptimize keeps what CUDA's fused operators read until they have run.
//
// Source: ggml/src/ggml-cuda/ggml-cuda.cu@v0.5.0,
// ggml_backend_cuda_graph_optimize.
func cudaOptimize(s *Section) {
	for i := 0; i < len(s.Nodes); i++ {
		if m, ok := s.weightedSum(i); ok {
			for _, t := range m.reads {
				s.Keep(t, m.sum)
			}
			i += m.nodes - 1
		}
		if n := s.router(i); n > 0 {
			if until := s.at(i + n); until != nil {
				for _, t := range s.Nodes[i : i+n] {
					s.Keep(t, until)
					for _, o := range t.Src {
						if o != nil {
							s.Keep(o, until)
						}
					}
				}
			}
			i += n - 1
		}
	}
}

// at returns the i-th node, where the one past the end is the next section's.
func (s *Section) at(i int) *graph.Tensor {
	if i < len(s.Nodes) {
		return s.Nodes[i]
	}
	return s.next()
}

// weighted is a sum of weighted experts, which runs as one operator.
type weighted struct {
	reads []*graph.Tensor // experts, router weights and, if there are any, scales
	sum   *graph.Tensor
	nodes int
}

// weightedSum matches the multiplication of the chosen experts by their weights
// and the sum of the products.
//
// Source: ggml/src/ggml-cuda/ggml-cuda.cu@v0.5.0,
// ggml_cuda_match_moe_weighted_reduction.
func (s *Section) weightedSum(i int) (weighted, bool) {
	first := s.Nodes[i]
	if first.Op != graph.OpMul || first.Type != formats.F32 || !first.Contiguous() {
		return weighted{}, false
	}
	product, muls := first, 1
	full, factor, ok := expertsAndWeights(first)
	var reads []*graph.Tensor
	if i+1 < len(s.Nodes) && ok {
		second := s.Nodes[i+1]
		if second.Op == graph.OpMul && second.Type == formats.F32 && second.Contiguous() {
			if scaled, route, ok2 := expertsAndWeights(second); ok2 && scaled == first {
				product, muls = second, 2
				reads = []*graph.Tensor{full, route, factor}
			}
		}
	}
	if !ok {
		return weighted{}, false
	}
	if reads == nil {
		reads = []*graph.Tensor{full, factor}
	}
	used := int(product.Ne[1])
	tokens := product.Ne[2] * product.Ne[3]
	if used < 2 || used > 15 || tokens <= 0 {
		return weighted{}, false
	}
	n := 2*used + muls - 1
	if i+n > len(s.Nodes) {
		return weighted{}, false
	}
	ops := make([]graph.Op, n)
	for j := range muls {
		ops[j] = graph.OpMul
	}
	var views []*graph.Tensor
	var sum *graph.Tensor
	adds := 0
	for j := muls; j < n; j++ {
		t := s.Nodes[i+j]
		ops[j] = t.Op
		switch {
		case t.Op == graph.OpView:
			if len(views) >= used || t.Src[0] != product || t.ViewSrc != product || t.Type != formats.F32 ||
				t.Ne != [4]int64{product.Ne[0], tokens, 1, 1} || t.Nb[0] != product.Nb[0] || t.Nb[1] != product.Nb[2] ||
				t.ViewOffs != uint64(len(views))*product.Nb[1] {
				return weighted{}, false
			}
			views = append(views, t)
		case t.Op != graph.OpAdd || len(views) < 2 || adds+1 >= len(views) || t.Type != formats.F32:
			return weighted{}, false
		default:
			left := sum
			if adds == 0 {
				left = views[0]
			}
			if t.Src[0] != left || t.Src[1] != views[adds+1] {
				return weighted{}, false
			}
			sum = t
			adds++
		}
	}
	if len(views) != used || adds != used-1 || !sum.Contiguous() || sum.Ne != [4]int64{product.Ne[0], tokens, 1, 1} {
		return weighted{}, false
	}
	return weighted{reads, sum, n}, s.fuses(i, ops, n-1)
}

// expertsAndWeights tells the operands of a product apart: one is the experts'
// output, the other has one number for each expert and token.
func expertsAndWeights(mul *graph.Tensor) (experts, weights *graph.Tensor, ok bool) {
	plain := func(t *graph.Tensor) bool { return t != nil && t.Type == formats.F32 && t.Contiguous() }
	one := func(t *graph.Tensor) bool {
		return plain(t) && t.Ne == [4]int64{1, mul.Ne[1], mul.Ne[2], mul.Ne[3]}
	}
	a, b := mul.Src[0], mul.Src[1]
	switch {
	case plain(a) && a.SameShape(mul) && one(b):
		return a, b, true
	case plain(b) && b.SameShape(mul) && one(a):
		return b, a, true
	}
	return nil, nil, false
}

// router matches the choice of experts and returns how many nodes it takes, 0
// if the nodes at i are not one or do not run as one operator.
//
// Source: ggml/src/ggml-cuda/ggml-cuda.cu@v0.5.0, ggml_cuda_topk_moe_fusion and
// its use in ggml_backend_cuda_graph_optimize; topk-moe.cu,
// ggml_cuda_should_use_topk_moe.
func (s *Section) router(start int) int {
	gate := s.Nodes[start]
	i := start
	after := func(op graph.Op, operand *graph.Tensor) bool {
		return i < len(s.Nodes) && s.Nodes[i].Op == op && s.Nodes[i].Src[0] == operand
	}
	ops := []graph.Op{gate.Op}
	switch {
	case gate.Op == graph.OpSoftMax, gate.Op == graph.OpUnary && gate.Sub == graph.UnarySigmoid:
	case gate.Op == graph.OpUnary && gate.Sub == graph.UnarySoftplus:
		i++
		if !after(graph.OpSqrt, gate) {
			return 0
		}
		ops = append(ops, graph.OpSqrt)
	default:
		return 0
	}
	probs := s.Nodes[i]
	i++
	if !after(graph.OpReshape, probs) {
		return 0
	}
	reshaped := s.Nodes[i]
	i++
	ops = append(ops, graph.OpReshape)
	scores := probs
	if after(graph.OpAdd, probs) {
		scores = s.Nodes[i]
		i++
		ops = append(ops, graph.OpAdd)
	}
	if !after(graph.OpArgsort, scores) {
		return 0
	}
	sorted := s.Nodes[i]
	i++
	if !after(graph.OpView, sorted) {
		return 0
	}
	ids := s.Nodes[i]
	out := len(ops) + 1
	i++
	if !after(graph.OpGetRows, reshaped) || s.Nodes[i].Src[1] != ids {
		return 0
	}
	i++
	ops = append(ops, graph.OpArgsort, graph.OpView, graph.OpGetRows)
	if i < len(s.Nodes) && s.Nodes[i].Op == graph.OpReshape {
		norm := []graph.Op{graph.OpReshape, graph.OpSumRows, graph.OpClamp, graph.OpDiv, graph.OpReshape}
		n := 0
		for n < 5 && i+n < len(s.Nodes) && s.Nodes[i+n].Op == norm[n] {
			t := s.Nodes[i+n]
			if n == 3 && (t.Src[1] != s.Nodes[i+2] || t.Src[0] != s.Nodes[i]) || n != 3 && t.Src[0] != s.Nodes[i+n-1] {
				break
			}
			n++
		}
		if n == 5 {
			ops = append(ops, norm...)
			i += 5
		} else {
			i = len(s.Nodes) // no scale is looked for behind half a normalisation
		}
	}
	if i < len(s.Nodes) && after(graph.OpScale, s.Nodes[i-1]) {
		ops = append(ops, graph.OpScale)
	}
	last := start + len(ops) - 1
	if !s.fuses(start, ops, out, len(ops)-1) || !routes(gate, s.Nodes[last], gate.Src[0], ids) {
		return 0
	}
	return len(ops)
}

// routes reports whether the operator for a choice of experts was built for
// these tensors. A mask or bias never comes with a scale of the logits here.
func routes(gate, weights, logits, ids *graph.Tensor) bool {
	n := int64(ids.Nb[1] / max(ids.Nb[0], 1))
	if (n&(n-1) != 0 || n > 512) && n != 288 && n != 576 {
		return false
	}
	if !weights.Contiguous() || !logits.Contiguous() {
		return false
	}
	return gate.Op != graph.OpSoftMax || gate.Params[1] == 0 && gate.Src[1] == nil && gate.Src[2] == nil
}
