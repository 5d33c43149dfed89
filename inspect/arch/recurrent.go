package arch

import (
	"weigh/formats"
	"weigh/inspect/graph"
)

// RSInput are the inputs of recurrent layers. (llm_graph_input_rs)
type RSInput struct {
	State *State
	Main  *graph.Tensor // states of the batch's sequences
	Extra *graph.Tensor // states that only move
}

// InpRS returns the inputs of recurrent layers. (build_rs_inp)
func (b *Builder) InpRS() *RSInput {
	s := b.Mem.RS
	b.kept(s != nil)
	seqs := int64(b.U.NSeqs)
	ids := b.InputT("rs_s_copy", formats.I32, int64(s.Cells))
	return &RSInput{
		State: s,
		Main:  b.View1D(ids, seqs, 0),
		Extra: b.View1D(ids, int64(s.Cells)-seqs, uint64(seqs)*ids.Nb[0]),
	}
}

// HybridInput are the inputs of a graph with attention and recurrent layers.
type HybridInput struct {
	RS   *RSInput
	Attn *KVInput
	ISWA *ISWAInput
}

// InpHybrid returns the inputs of recurrent layers and of attention over a
// plain cache. (build_inp_mem_hybrid)
func (b *Builder) InpHybrid() *HybridInput {
	rs := b.InpRS()
	return &HybridInput{RS: rs, Attn: b.InpKV()}
}

// InpHybridK is InpHybrid for a cache whose keys serve as values.
// (build_inp_mem_hybrid_k)
func (b *Builder) InpHybridK() *HybridInput {
	rs := b.InpRS()
	return &HybridInput{RS: rs, Attn: b.InpK()}
}

// InpHybridISWA is InpHybrid with a sliding window. Quantized keys and values
// are not rotated here.
// (build_inp_mem_hybrid_iswa)
func (b *Builder) InpHybridISWA() *HybridInput {
	in := &HybridInput{RS: b.InpRS(), ISWA: b.InpISWA()}
	for _, k := range []*KVInput{in.ISWA.Base, in.ISWA.SWA} {
		k.RotK, k.RotV = nil, nil
	}
	return in
}

// StateR returns the rolling state of layer il, [NEmbdR][rows].
func (b *Builder) StateR(il int) *graph.Tensor { return b.state(il, 'R', b.Mem.RS.NEmbdR) }

// StateS returns the recurrent state of layer il, [NEmbdS][rows].
func (b *Builder) StateS(il int) *graph.Tensor { return b.state(il, 'S', b.Mem.RS.NEmbdS) }

// StateP returns the per-layer-embedding history of layer il.
func (b *Builder) StateP(il int) *graph.Tensor { return b.state(il, 'P', b.Mem.RS.NEmbdP) }

func (b *Builder) state(il int, what byte, n int) *graph.Tensor {
	if il >= len(b.Mem.RS.Has) || !b.Mem.RS.Has[il] {
		b.Fail("layer %d has no recurrent state", il)
	}
	key := cacheKey{b.Mem.RS, il, what}
	if t := b.caches[key]; t != nil {
		return t
	}
	t := b.Leaf("state", formats.F32, int64(n), int64(b.Mem.RS.Rows))
	t.Buf, t.Layer = b.place.Cache(il), int32(il)
	b.caches[key] = t
	return t
}

// RS appends the load of the sequences' states from s: get turns the states
// and the sequences' rows into what the layer continues with; nil stands for
// copying the rows. (build_rs)
func (b *Builder) RS(in *RSInput, s *graph.Tensor, size, nSeqs int, get func(states, ids *graph.Tensor) *graph.Tensor) *graph.Tensor {
	states := b.Reshape2D(s, int64(size), s.Ne[1])
	zero := b.View1D(states, int64(size), 0)
	b.Expand(b.ScaleInplace(zero))
	if get == nil {
		get = b.GetRows
	}
	out := get(states, in.Main)
	b.Expand(out)
	extra := b.GetRows(states, in.Extra)
	rest := b.View2D(s, int64(size), int64(in.State.Cells-nSeqs), s.Nb[1], uint64(nSeqs)*s.Nb[1])
	b.Expand(b.Cpy(extra, rest))
	return out
}
