package estimate

import (
	"fmt"

	"weigh/formats"
	"weigh/inspect/graph"
)

// A group is a kind of weights that a breakdown tells apart.
type group uint8

const (
	groupLayers group = iota
	groupExperts
	groupInput
	groupOutput
	groupCopies
	groupCount
)

var groupNames = [groupCount]struct{ name, why string }{
	groupLayers:  {"layers", "attention, dense feed-forward, norms"},
	groupExperts: {"experts", "experts' matrices"},
	groupInput:   {"embeddings", "looked up, not multiplied: they stay on the host"},
	groupOutput:  {"output", "output matrix and norm"},
	groupCopies:  {"copies", "a tensor that more than one place needs: tied embeddings as the output matrix, rotary factors"},
}

func groupOf(k kind) group {
	switch {
	case k.layer == inInput:
		return groupInput
	case k.layer == inOutput:
		return groupOutput
	case k.op == graph.OpMulMatID || k.op == graph.OpAddID:
		return groupExperts
	}
	return groupLayers
}

// A tally is a number of tensors and their bytes.
type tally struct {
	n     int
	bytes uint64
}

// A cacheTally sums the tensors of one kind and shape in one buffer.
type cacheTally struct {
	buffer int
	name   string
	typ    formats.DType
	ne     [3]int64
	tally
}

// tallyCache counts a tensor of the context.
func (r *run) tallyCache(buffer int, name string, typ formats.DType, ne [3]int64, bytes uint64) {
	for i := range r.caches {
		if t := &r.caches[i]; t.buffer == buffer && t.name == name && t.typ == typ && t.ne == ne {
			t.n++
			t.bytes += bytes
			return
		}
	}
	r.caches = append(r.caches, cacheTally{buffer, name, typ, ne, tally{1, bytes}})
}

var cacheNames = map[string]string{
	"K": "keys", "V": "values", "R": "rolling state", "S": "recurrent state", "P": "per-layer-embedding history",
}

// terms takes the figures of one buffer apart, which are as sure as basis says.
func (r *run) terms(buffer int, compute uint64, basis Bases) []Term {
	terms := make([]Term, 0, 8)
	add := func(p Part, name string, bytes uint64, basis Basis, format string, args ...any) {
		if bytes > 0 {
			terms = append(terms, Term{p, name, bytes, basis, fmt.Sprintf(format, args...)})
		}
	}
	align := r.p.c.Buffers[buffer].Align
	for g, t := range r.p.groups[buffer] {
		add(Weights, groupNames[g].name, t.bytes, basis.Model, "%s, each padded to %d bytes: %s", counted(t.n, "tensor"), align, groupNames[g].why)
	}
	for i := range r.caches {
		t := &r.caches[i]
		if t.buffer != buffer {
			continue
		}
		name := cacheNames[t.name]
		if name == "" {
			name = t.name
		}
		add(Context, name, t.bytes, basis.Context, "%s x %d elements x %d cells x %s in %v", counted(t.n, "layer"), t.ne[0], t.ne[1], counted(t.ne[2], "stream"), t.typ)
	}
	if r.result == nil {
		add(Compute, "graph", compute, basis.Compute, "an upper bound from the tensors")
		return terms
	}
	add(Compute, "graph", compute, basis.Compute, "the peak of %d nodes in %s for a micro-batch of %d tokens, %d of them with outputs",
		r.s.Nodes, counted(r.s.Splits, "split"), r.c.NUBatch, min(r.c.NUBatch, r.s.NOutputs))
	return terms
}

// counted writes a number of things.
func counted[N int | int64 | uint64](n N, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
