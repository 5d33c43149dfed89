package arch

import (
	"weigh/formats"
	"weigh/inspect/model"
)

// The compression ratios of DeepSeek-V4's layers: blocks that overlap, and
// long ones that do not.
const (
	ratioCSA = 4
	ratioHCA = 128
)

// A compressor turns runs of tokens into one compressed key each. Its rolling
// state is kept in two tensors of each layer, [Width][Rows·sequences·(1 +
// rollback snapshots)] of F32.
type compressor struct {
	name    string
	ratio   int
	overlap bool
	Width   int
	Rows    int // of one sequence
}

func compressors(h *model.HParams) (csa, hca, lid compressor) {
	head := h.NEmbdHeadK(0)
	csa = compressor{name: "csa", ratio: ratioCSA, overlap: true, Width: 2 * head, Rows: 2 * ratioCSA}
	hca = compressor{name: "hca", ratio: ratioHCA, Width: head, Rows: ratioHCA}
	lid = compressor{name: "lid", ratio: ratioCSA, overlap: true, Width: 2 * h.IndexerHeadSize, Rows: 2 * ratioCSA}
	return csa, hca, lid
}

// DSV4Memory is the memory of DeepSeek-V4: a window of keys for all layers,
// compressed keys and the compressors' state for those that look further back.
// Each sequence has its own, even when the cache is unified. An MTP context has
// plain caches.
//
// Source: src/llama-kv-cache-dsv4.cpp@v0.5.0,
// llama_kv_cache_dsv4::llama_kv_cache_dsv4.
func DSV4Memory(m *model.Model, c *Context) *Memory {
	h := &m.HParams
	if c.MTP {
		base, swa := NewISWA(m, c, CacheOptions{Filter: trunk(h, c)})
		return &Memory{Class: "iswa", KV: base, SWA: swa}
	}
	own := *c
	own.KVUnified = false
	keysOnly := func(h model.HParams) *model.HParams {
		h.NEmbdHeadKMLA, h.NEmbdHeadVMLA = h.NEmbdHeadK(0), h.NEmbdHeadK(0)
		return &h
	}
	rotated := func(h *model.HParams) bool { return h.NEmbdHeadKFull == h.IndexerHeadSize }
	mem := &Memory{Class: "dsv4"}
	plain := keysOnly(*h)
	mem.KV, mem.SWA = NewISWA(m, &own, CacheOptions{H: plain, Rotate: rotated(plain)})

	idx := *indexerHParams(h)
	idx.NEmbdHeadVFull, idx.NEmbdHeadKSWA, idx.NEmbdHeadVSWA = h.IndexerHeadSize, h.IndexerHeadSize, h.IndexerHeadSize
	compressed := func(name string, h *model.HParams, ratio int) *Cache {
		size := max(1, (c.NCtxSeq+ratio-1)/ratio)
		return NewCache(m, &own, CacheOptions{Name: name, H: h, Size: pad256(size), Filter: withRatio(m, ratio), Rotate: rotated(h)})
	}
	mem.CSA = compressed("csa", plain, ratioCSA)
	mem.HCA = compressed("hca", plain, ratioHCA)
	mem.Idx = compressed("lid", keysOnly(idx), ratioCSA)

	csa, hca, lid := compressors(h)
	for _, s := range []compressor{csa, hca, lid} {
		for il := range h.NLayer() {
			if h.Layers[il].CompressRatio != s.ratio {
				continue
			}
			for _, what := range []string{"kv", "score"} {
				ne := [3]int64{int64(s.Width), int64(s.Rows), int64(c.NSeqMax * (1 + c.NRsSeq))}
				mem.More = append(mem.More, Held{Name: s.name + " state " + what, Layer: il, Type: formats.F32, Ne: ne})
			}
		}
	}
	return mem
}

func withRatio(m *model.Model, ratio int) func(il int) bool {
	return func(il int) bool { return m.Layers[il].CompressRatio == ratio }
}
