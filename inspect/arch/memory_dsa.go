package arch

import (
	"weigh/inspect/model"
)

// Memories that keep an indexer's keys beside those of attention.

// indexerHParams are the widths of an indexer's keys: one head for each layer.
func indexerHParams(h *model.HParams) *model.HParams {
	idx := *h
	idx.NEmbdHeadKFull = h.IndexerHeadSize
	idx.Layers = make([]model.Layer, len(h.Layers))
	for i, l := range h.Layers {
		l.NHeadKV = 1
		idx.Layers[i] = l
	}
	return &idx
}

// newIndexerCache lays out the cache of an indexer's keys; lightning indexers
// rotate them whatever their type.
func newIndexerCache(m *model.Model, c *Context, lightning bool, filter func(il int) bool) *Cache {
	return NewCache(m, c, CacheOptions{Name: "idx", H: indexerHParams(&m.HParams), Filter: filter, Rotate: lightning})
}

// DSAMemory is the memory of sparse attention with a lightning indexer in the
// layers that full takes; an MTP context keeps the NextN blocks' keys only.
//
// Source: src/llama-kv-cache-dsa.cpp@v0.5.0, llama_kv_cache_dsa::llama_kv_cache_dsa.
func DSAMemory(m *model.Model, c *Context, lightning bool, full func(il int) bool) *Memory {
	if m.NLayerNext > 0 && c.MTP {
		return &Memory{Class: "kv", KV: NewCache(m, c, CacheOptions{Filter: trunk(&m.HParams, c)})}
	}
	return &Memory{
		Class: "dsa",
		KV:    NewCache(m, c, CacheOptions{Filter: inTrunk(m)}),
		Idx:   newIndexerCache(m, c, lightning, full),
	}
}

// inTrunk selects the trunk's layers.
func inTrunk(m *model.Model) func(il int) bool {
	n := m.NLayer()
	return func(il int) bool { return il < n }
}

// indexerLayers selects the trunk's layers that own an indexer.
func indexerLayers(m *model.Model) func(il int) bool {
	n := m.NLayer()
	return func(il int) bool { return il < n && m.Layers[il].IndexerFull }
}

// DSAISWAMemory is [DSAMemory] for the layers with full attention, and a
// window for the others.
//
// Source: src/llama-kv-cache-dsa-iswa.cpp@v0.5.0,
// llama_kv_cache_dsa_iswa::llama_kv_cache_dsa_iswa.
func DSAISWAMemory(m *model.Model, c *Context) *Memory {
	if m.NLayerNext > 0 && c.MTP {
		return &Memory{Class: "kv", KV: NewCache(m, c, CacheOptions{Filter: trunk(&m.HParams, c)})}
	}
	mem := &Memory{Class: "dsa-iswa"}
	mem.KV, mem.SWA = NewISWA(m, c, CacheOptions{Filter: inTrunk(m)})
	mem.Idx = newIndexerCache(m, c, true, indexerLayers(m))
	return mem
}

// MSAMemory keeps an indexer's keys, and values it never uses, for the layers
// behind the leading dense ones.
//
// Source: src/llama-kv-cache-msa.cpp@v0.5.0, llama_kv_cache_msa::llama_kv_cache_msa.
func MSAMemory(m *model.Model, c *Context) *Memory {
	return &Memory{
		Class: "msa",
		KV:    NewCache(m, c, CacheOptions{}),
		Idx:   newIndexerCache(m, c, false, func(il int) bool { return il >= m.NLayerDenseLead }),
	}
}

// HybridIdxMemory is a hybrid memory that keeps an indexer's keys for the
// layers with attention.
//
// Source: src/llama-memory-hybrid-idx.cpp@v0.5.0,
// llama_memory_hybrid_idx::llama_memory_hybrid_idx.
func HybridIdxMemory(m *model.Model, c *Context) *Memory {
	in := inTrunk(m)
	attn := func(il int) bool { return in(il) && !m.IsRecr(il) }
	mem := HybridMemory(m, c, attn, func(il int) bool { return in(il) && m.IsRecr(il) })
	mem.Class = "hybrid-idx"
	h := indexerHParams(&m.HParams)
	h.NEmbdHeadKMLA, h.NEmbdHeadVMLA = h.IndexerHeadSize, h.IndexerHeadSize
	mem.Idx = NewCache(m, c, CacheOptions{Name: "idx", H: h, Filter: attn})
	return mem
}
