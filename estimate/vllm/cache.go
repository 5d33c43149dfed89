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
	return add(l.keysAndValues(tp, t), l.indexKey())
}

// indexKey returns the bytes of a token's key for the indexer: 8 bits an element
// and a 32-bit scale per 128, on every GPU.
//
// Source: vllm/model_executor/models/deepseek_v2.py, Indexer and DeepseekV32IndexerCache.
func (l *Layer) indexKey() uint64 {
	n := uint64(max(l.IndexDim, 0))
	return add(n, mul(4, n/128))
}

func (l *Layer) keysAndValues(tp int, t CacheType) uint64 {
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

// A group is layers that remember alike.
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

// pages fills in the cache of the stage that holds the fewest blocks.
func (m *Model) pages(e *Estimate) {
	o := &e.Options
	starts := stages(len(m.Layers), o.PipelineParallel)
	e.BlocksLow, e.BlocksHigh = math.MaxUint64, math.MaxUint64
	e.MaxLenLow, e.MaxLenHigh = m.ContextLength, m.ContextLength
	block := o.BlockSize
	for stage := range o.PipelineParallel {
		s := layout(m.Layers[starts[stage]:starts[stage+1]], o)
		if s.page == 0 {
			continue
		}
		low, high := s.blocks(e.KVLow), s.blocks(e.KVHigh)
		if low < e.BlocksLow || e.PageBytes == 0 {
			e.PageBytes, e.BlockLayers, e.Groups = s.page, s.layers, s.groups()
			e.RequestBlocks = s.request(o, o.MaxModelLen)
			block = s.block
		}
		e.BlocksLow, e.BlocksHigh = min(e.BlocksLow, low), min(e.BlocksHigh, high)
		e.MaxLenLow = min(e.MaxLenLow, s.longest(o, low, m.ContextLength))
		e.MaxLenHigh = min(e.MaxLenHigh, s.longest(o, high, m.ContextLength))
	}
	o.BlockSize = block
	if e.PageBytes == 0 {
		e.BlocksLow, e.BlocksHigh = 0, 0
	}
}

// A sheet is how a stage's cache is cut into pages: blocks of tokens, or a
// sequence's whole state, in as many layers as the rarest kind has. The kinds
// with more layers take several groups of so many.
type sheet struct {
	page   uint64  // bytes of a block in one layer
	block  int     // tokens of a block
	layers int     // layers that a block spans
	kinds  []group // groups of layers of each kind
}

func (s *sheet) groups() (n int) {
	for _, k := range s.kinds {
		n += k.layers
	}
	return n
}

// layout cuts the cache of layers. Pages are all of the size of the largest; a
// state stretches the block until a page of tokens is as large. Layers that
// differ only in width share one page with room for all.
//
// Source: vllm/v1/core/kv_cache_utils.py, get_kv_cache_groups and
// unify_kv_cache_spec_page_size; vllm/model_executor/models/config.py,
// HybridAttentionMambaModelConfig.
func layout(layers []Layer, o *Options) sheet {
	gs := groups(layers)
	if len(gs) == 0 {
		return sheet{}
	}
	s := sheet{block: o.BlockSize}
	var perToken, together, state uint64
	fewest, most, alike := gs[0].layers, gs[0].layers, true
	for i := range gs {
		g := &gs[i]
		fewest, most = min(fewest, g.layers), max(most, g.layers)
		alike = alike && g.Kind == gs[0].Kind && g.Window == gs[0].Window && g.Kind != Recurrent
		if g.Kind == Recurrent {
			state = max(state, ceil(g.StateBytes, uint64(o.TensorParallel)))
			continue
		}
		bytes := g.perToken(o.TensorParallel, o.Cache)
		perToken, together = max(perToken, bytes), add(together, mul(bytes, uint64(g.layers)))
	}
	if alike && len(gs) > 1 {
		s.page, s.layers, s.kinds = mul(together, uint64(s.block)), 1, []group{{gs[0].Layer, 1}}
		return s
	}
	s.layers = fewest
	if 2*most < 3*fewest { // padding the rarer kinds is cheaper than more groups
		s.layers = most
	}
	for _, g := range gs {
		s.kinds = append(s.kinds, group{g.Layer, int(ceil(uint64(g.layers), uint64(s.layers)))})
	}
	if perToken > 0 {
		if need := ceil(state, perToken); need > uint64(s.block) {
			s.block = int(min(roundUp(need, stateAlignment), math.MaxInt32))
		}
	}
	s.page = max(state, mul(perToken, uint64(s.block)))
	return s
}

// stateAlignment is what a block stretched to a state's size is a multiple of.
const stateAlignment = 16

func (s *sheet) blocks(bytes uint64) uint64 {
	return bytes / max(mul(s.page, uint64(s.layers)), 1)
}

// request returns the most blocks that a sequence of n tokens takes.
//
// Source: vllm/v1/kv_cache_interface.py, max_memory_usage_bytes of each kind.
func (s *sheet) request(o *Options, n int) (blocks uint64) {
	block, tokens, step := uint64(s.block), uint64(n), uint64(o.MaxBatchedTokens)
	for _, k := range s.kinds {
		each, window := ceil(tokens, block), uint64(max(k.Window, 1))
		switch k.Kind {
		case SlidingAttention:
			each = ceil(min(window-1+step, tokens), block) + 1
		case ChunkedAttention:
			each = ceil(min(window+step, tokens), block)
		case Recurrent:
			each = 1
		}
		blocks = add(blocks, mul(each, uint64(k.layers)))
	}
	return blocks
}

// longest returns the most tokens, up to limit, whose pages are no more than
// blocks.
//
// Source: vllm/v1/core/kv_cache_utils.py, estimate_max_model_len.
func (s *sheet) longest(o *Options, blocks uint64, limit int) int {
	return sort.Search(max(limit, 0), func(n int) bool { return s.request(o, n+1) > blocks })
}
