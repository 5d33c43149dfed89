package vllm

import (
	"math"
	"slices"
	"sort"
)

// perToken returns the bytes that one GPU keeps of a token in a layer of
// attention.
//
// Source: vllm/v1/kv_cache_interface.py, AttentionSpec and MLAAttentionSpec.
func (l *Layer) perToken(tp int, t CacheType) uint64 {
	heads := uint64(max(1, l.HeadsKV/tp))
	dims := uint64(l.KeyDim) + uint64(l.ValueDim)
	if l.Kind == LatentAttention {
		heads = 1
	}
	switch t {
	case FP8:
		return mul(heads, dims)
	case PerTokenHead:
		return mul(heads, add(dims, 2*4))
	case NVFP4:
		return mul(heads, add(dims/2, dims/16))
	case FP8DeepSeek:
		if l.Kind == LatentAttention {
			return 656
		}
		return mul(heads, dims)
	}
	return mul(heads, dims, 2)
}

// A group is layers that remember alike and so share their page tables.
type group struct {
	Layer
	layers int
}

// groups sorts the layers of a stage by what they remember.
func groups(layers []Layer) (gs []group) {
	for _, l := range layers {
		if l.Kind == Stateless {
			continue
		}
		i := slices.IndexFunc(gs, func(g group) bool { return g.Layer == l })
		if i < 0 {
			i = len(gs)
			gs = append(gs, group{Layer: l})
		}
		gs[i].layers++
	}
	return gs
}

// pages fills in the cache: pages of one size, each for a group of as many
// layers as the rarest kind has; the kinds with more take several groups. A page
// holds a block of tokens, or a sequence's whole state, to which the block is
// stretched.
//
// Source: vllm/v1/core/kv_cache_utils.py, get_kv_cache_groups, get_num_blocks and
// unify_kv_cache_spec_page_size; vllm/platforms/interface.py, update_block_size_for_backend.
func (m *Model) pages(e *Estimate) {
	o := &e.Options
	starts := stages(len(m.Layers), o.PipelineParallel)
	e.BlocksLow, e.BlocksHigh = math.MaxUint64, math.MaxUint64
	e.MaxLenLow, e.MaxLenHigh = m.ContextLength, m.ContextLength
	remembers := false
	for stage := range o.PipelineParallel {
		gs := groups(m.Layers[starts[stage]:starts[stage+1]])
		if len(gs) == 0 {
			continue
		}
		remembers = true
		s := layout(gs, o)
		low, high := s.blocks(e.KVLow), s.blocks(e.KVHigh)
		if request := s.request(gs, o, o.MaxModelLen); low < e.BlocksLow || e.PageBytes == 0 {
			e.PageBytes, e.BlockLayers, e.Groups, e.RequestBlocks = s.page, s.layers, s.groups, request
			o.BlockSize = s.block
		}
		e.BlocksLow, e.BlocksHigh = min(e.BlocksLow, low), min(e.BlocksHigh, high)
		e.MaxLenLow = min(e.MaxLenLow, s.longest(gs, o, low, m.ContextLength))
		e.MaxLenHigh = min(e.MaxLenHigh, s.longest(gs, o, high, m.ContextLength))
	}
	if !remembers {
		e.BlocksLow, e.BlocksHigh = 0, 0
	}
}

// A sheet is how a stage's cache is cut into pages.
type sheet struct {
	page   uint64 // bytes of a block in one layer
	block  int    // tokens of a block
	layers int    // layers that a block spans
	groups int    // groups of so many layers
}

func layout(gs []group, o *Options) sheet {
	s := sheet{block: o.BlockSize}
	var perToken, state uint64
	fewest, most := gs[0].layers, gs[0].layers
	for i := range gs {
		g := &gs[i]
		fewest, most = min(fewest, g.layers), max(most, g.layers)
		if g.Kind == Recurrent {
			state = max(state, ceil(g.StateBytes, uint64(o.TensorParallel)))
		} else {
			perToken = max(perToken, g.perToken(o.TensorParallel, o.Cache))
		}
	}
	s.layers = fewest
	if 4*most < 5*fewest { // padding the rarer kinds is cheaper than more groups
		s.layers = most
	}
	for _, g := range gs {
		s.groups += int(ceil(uint64(g.layers), uint64(s.layers)))
	}
	if perToken > 0 {
		if need := ceil(state, perToken); need > uint64(s.block) {
			s.block = int(min(roundUp(need, 16), math.MaxInt32))
		}
	}
	s.page = max(state, mul(perToken, uint64(s.block)))
	return s
}

func (s *sheet) blocks(bytes uint64) uint64 {
	return bytes / max(mul(s.page, uint64(s.layers)), 1)
}

// request returns the most blocks that a sequence of n tokens takes.
//
// Source: vllm/v1/kv_cache_interface.py, max_memory_usage_bytes of each kind.
func (s *sheet) request(gs []group, o *Options, n int) (blocks uint64) {
	for _, g := range gs {
		var each uint64
		block := uint64(s.block)
		tokens, window := uint64(n), uint64(max(g.Window, 1))
		step := uint64(o.MaxBatchedTokens)
		switch g.Kind {
		case SlidingAttention:
			each = ceil(min(window-1+step, tokens), block) + 1
		case ChunkedAttention:
			each = ceil(min(window+step, tokens), block)
		case Recurrent:
			each = 1
		default:
			each = ceil(tokens, block)
		}
		blocks = add(blocks, mul(each, ceil(uint64(g.layers), uint64(s.layers))))
	}
	return blocks
}

// longest returns the most tokens, up to limit, whose pages are no more than
// blocks.
//
// Source: vllm/v1/core/kv_cache_utils.py, estimate_max_model_len.
func (s *sheet) longest(gs []group, o *Options, blocks uint64, limit int) int {
	return sort.Search(max(limit, 0), func(n int) bool { return s.request(gs, o, n+1) > blocks })
}
