package arch

import (
	"weigh/formats"
	"weigh/inspect/model"
)

// A Memory is what a context keeps between micro-batches.
type Memory struct {
	Class string // llama.cpp's class, for people: "kv", "iswa", "recurrent", "hybrid", …

	KV   *Cache // attention keys and values; of the full-attention layers where SWA is set
	SWA  *Cache // of the sliding-window layers
	Idx  *Cache // indexer keys (DSA, MSA, hybrid with an indexer)
	CSA  *Cache // DeepSeek-V4: compressed keys
	HCA  *Cache
	RS   *State
	More []Held // anything else, by layer
}

// A Held tensor is kept for one layer.
type Held struct {
	Name  string
	Layer int
	Type  formats.DType
	Ne    [3]int64
}

// A Cache is a llama_kv_cache: keys and values of some layers.
//
// Keys are [NEmbdKGQA][Size][Streams] elements of TypeK; values are the same
// with NEmbdVGQA and TypeV, padded to the widest layer when they are stored
// transposed. There are no values when the keys serve as values (MLA).
//
// Source: src/llama-kv-cache.cpp@v0.5.0, llama_kv_cache::llama_kv_cache.
type Cache struct {
	Name         string // prefix of its tensors' names
	Size         int    // cells of one stream
	Streams      int
	VTrans       bool
	NoV          bool // keys only
	TypeK, TypeV formats.DType
	Layers       []CacheLayer
	At           []int // index into Layers for each layer of the model, -1 for none
	RotK, RotV   int   // side of the Hadamard rotation of quantized keys and values, 0 for none
	H            *model.HParams
}

// A CacheLayer is one layer's share of a cache.
type CacheLayer struct {
	Layer        int
	NEmbdK       int // elements of all KV heads for one cell
	NEmbdV       int
	HeadK, HeadV int // width of one head
	HeadsKV      int
	SharedWith   bool // the tensors belong to the target's cache
	TargetLayer  int
}

// CacheOptions say how a cache differs from the context's plain one.
type CacheOptions struct {
	Name   string
	Size   int               // cells of one stream; 0 means the context's
	Filter func(il int) bool // layers that have it; nil means all
	Reuse  func(il int) int  // layer whose cache il uses, -1 for its own
	H      *model.HParams    // other widths than the model's
	Share  func(il int) int  // layer of Other that il uses, -1 for its own
	Other  *Cache            // the target context's cache
	Rotate bool              // keys are rotated whatever their type (lightning indexers)
	Types  [2]formats.DType  // other types than the context's
	HasTyp bool              // Types is set
}

// NewCache lays out a llama_kv_cache.
func NewCache(m *model.Model, c *Context, o CacheOptions) *Cache {
	h := &m.HParams
	if o.H != nil {
		h = o.H
	}
	k := &Cache{Name: o.Name, Size: o.Size, Streams: c.NSeqMax, VTrans: c.VTrans, TypeK: c.TypeK, TypeV: c.TypeV, H: h}
	if o.HasTyp {
		k.TypeK, k.TypeV = o.Types[0], o.Types[1]
	}
	if k.Size == 0 {
		k.Size = c.NCtxSeq
	}
	if o.Other != nil {
		k.Size, k.TypeK, k.TypeV = o.Other.Size, o.Other.TypeK, o.Other.TypeV
	}
	if c.KVUnified {
		k.Streams = 1
	}
	k.NoV = h.IsMLA()
	k.At = make([]int, h.NLayerAll)
	headK, headV := 0, 0
	for il := range k.At {
		k.At[il] = -1
		if !h.HasKV(il) || (o.Filter != nil && !o.Filter(il)) {
			continue
		}
		l := CacheLayer{
			Layer: il, NEmbdK: h.NEmbdKGQA(il), NEmbdV: h.NEmbdVGQA(il),
			HeadK: h.NEmbdHeadK(il), HeadV: h.NEmbdHeadV(il), HeadsKV: h.NHeadKV(il),
		}
		if o.Share != nil && o.Other != nil {
			if t := o.Share(il); t >= 0 && t < len(o.Other.At) && o.Other.At[t] >= 0 {
				from := o.Other.Layers[o.Other.At[t]]
				l.SharedWith, l.TargetLayer, l.NEmbdK, l.NEmbdV = true, from.Layer, from.NEmbdK, from.NEmbdV
				k.At[il] = len(k.Layers)
				k.Layers = append(k.Layers, l)
				continue
			}
		}
		if k.VTrans {
			l.NEmbdV = h.NEmbdVGQAMax()
		}
		headK = same(headK, l.HeadK)
		if !k.NoV {
			headV = same(headV, l.HeadV)
		}
		k.At[il] = len(k.Layers)
		k.Layers = append(k.Layers, l)
	}
	if o.Reuse != nil {
		for il := range k.At {
			if r := o.Reuse(il); r >= 0 && r < len(k.At) && (o.Filter == nil || o.Filter(il)) {
				k.At[il] = k.At[r]
			}
		}
	}
	if o.Other != nil {
		k.RotK, k.RotV = o.Other.RotK, o.Other.RotV
		return k
	}
	if (headK > 0 && k.TypeK.Quantized() && h.NEmbdHeadK(0)%64 == 0) || o.Rotate {
		n := 64
		for headK%(2*n) == 0 && headK > 0 {
			n *= 2
		}
		k.RotK = n
	}
	if headV > 0 && k.TypeV.Quantized() && h.NEmbdHeadV(0)%64 == 0 {
		k.RotV = 64
	}
	return k
}

// same folds a width into what all layers have in common: 0 unknown yet, -1
// when they differ.
func same(all, w int) int {
	switch {
	case all == 0:
		return w
	case all > 0 && all != w:
		return -1
	}
	return all
}

// A State is a llama_memory_recurrent: rolling and recurrent state of some
// layers, always F32.
//
// Source: src/llama-memory-recurrent.cpp@v0.5.0,
// llama_memory_recurrent::llama_memory_recurrent.
type State struct {
	Cells  int // sequences
	Rows   int // Cells·(1 + rollback snapshots)
	NEmbdR int
	NEmbdS int
	NEmbdP int // per-layer-embedding history, of the layers that have one
	Layers []int
	Has    []bool
	PLE    []bool
}

// NewState lays out the recurrent state of the trunk layers that filter takes.
func NewState(m *model.Model, c *Context, filter func(il int) bool) *State {
	h := &m.HParams
	s := &State{Cells: max(1, c.NSeqMax), NEmbdR: h.NEmbdR(), NEmbdS: h.NEmbdS(), NEmbdP: h.PLEConvState()}
	s.Rows = s.Cells * (1 + c.NRsSeq)
	s.Has, s.PLE = make([]bool, h.NLayerAll), make([]bool, h.NLayerAll)
	for il := range h.NLayer() {
		if filter != nil && !filter(il) {
			continue
		}
		s.Layers = append(s.Layers, il)
		s.Has[il] = true
		s.PLE[il] = s.NEmbdP > 0 && h.Layers[il].PLE
	}
	return s
}

// pad256 rounds n up to a multiple of 256.
func pad256(n int) int { return (n + 255) / 256 * 256 }

// NewISWA lays out a llama_kv_cache_iswa: full-size for the layers with full
// attention, the window plus a micro-batch for the others.
//
// Source: src/llama-kv-cache-iswa.cpp@v0.5.0,
// llama_kv_cache_iswa::llama_kv_cache_iswa.
func NewISWA(m *model.Model, c *Context, o CacheOptions) (base, swa *Cache) {
	h := &m.HParams
	filter := func(want bool) func(int) bool {
		return func(il int) bool { return h.IsSWA(il) == want && (o.Filter == nil || o.Filter(il)) }
	}
	b, s := o, o
	b.Filter, s.Filter = filter(false), filter(true)
	s.Size = SWASize(h, c)
	return NewCache(m, c, b), NewCache(m, c, s)
}

// SWASize returns the cells of a sliding-window cache.
func SWASize(h *model.HParams, c *Context) int {
	if c.SWAFull {
		return c.NCtxSeq
	}
	window := h.NSWA
	if c.KVUnified {
		window *= c.NSeqMax
	}
	return pad256(min(c.NCtxSeq, window+c.NUBatch))
}

// NewMemory returns what a context of the model keeps, nil for nothing.
//
// Source: src/llama-model.cpp@v0.5.0, llama_model::create_memory.
func NewMemory(m *model.Model, c *Context) *Memory {
	row := Row(m.Arch)
	switch {
	case row.NoMemory:
		return nil
	case row.Memory != nil:
		return row.Memory(m, c)
	case row.Recurrent:
		return &Memory{Class: "recurrent", RS: NewState(m, c, nil)}
	case row.Hybrid:
		return HybridMemory(m, c, nil, nil)
	}
	return PlainMemory(m, c, CacheOptions{})
}

// PlainMemory is the memory of an attention-only architecture: one cache, or
// two with a sliding window. NextN layers are kept apart from the trunk.
func PlainMemory(m *model.Model, c *Context, o CacheOptions) *Memory {
	h := &m.HParams
	if o.Filter == nil && h.NLayerNext > 0 && h.NLayer() > 0 && h.RouterLayer < 0 {
		o.Filter = trunk(h, c)
	}
	if h.SWAType == model.SWANone {
		return &Memory{Class: "kv", KV: NewCache(m, c, o)}
	}
	base, swa := NewISWA(m, c, o)
	return &Memory{Class: "iswa", KV: base, SWA: swa}
}

// trunk selects the trunk's layers, or the NextN layers in an MTP context.
func trunk(h *model.HParams, c *Context) func(int) bool {
	return func(il int) bool { return (il >= h.NLayer()) == c.MTP }
}

// HybridMemory is the memory of an architecture with attention and recurrent
// layers; nil filters split them by Layer.Recr.
//
// Source: src/llama-memory-hybrid.cpp@v0.5.0, llama_memory_hybrid::llama_memory_hybrid.
func HybridMemory(m *model.Model, c *Context, attn, recr func(il int) bool) *Memory {
	h := &m.HParams
	if attn == nil {
		attn = func(il int) bool { return !h.IsRecr(il) }
	}
	if recr == nil {
		recr = func(il int) bool { return h.IsRecr(il) }
	}
	mem := &Memory{Class: "hybrid", RS: NewState(m, c, recr)}
	if h.SWAType != model.SWANone {
		mem.Class = "hybrid-iswa"
		mem.KV, mem.SWA = NewISWA(m, c, CacheOptions{Filter: attn})
		return mem
	}
	mem.KV = NewCache(m, c, CacheOptions{Filter: attn})
	return mem
}

// Tensors calls f for every tensor that the memory allocates.
func (mem *Memory) Tensors(f func(layer int, typ formats.DType, ne [3]int64, name string)) {
	if mem == nil {
		return
	}
	for _, k := range mem.Caches() {
		for _, l := range k.Layers {
			if l.SharedWith {
				continue
			}
			f(l.Layer, k.TypeK, [3]int64{int64(l.NEmbdK), int64(k.Size), int64(k.Streams)}, "K")
			if !k.NoV {
				f(l.Layer, k.TypeV, [3]int64{int64(l.NEmbdV), int64(k.Size), int64(k.Streams)}, "V")
			}
		}
	}
	if s := mem.RS; s != nil {
		for _, il := range s.Layers {
			f(il, formats.F32, [3]int64{int64(s.NEmbdR), int64(s.Rows), 1}, "R")
			f(il, formats.F32, [3]int64{int64(s.NEmbdS), int64(s.Rows), 1}, "S")
			if s.PLE[il] {
				f(il, formats.F32, [3]int64{int64(s.NEmbdP), int64(s.Rows), 1}, "P")
			}
		}
	}
	for _, t := range mem.More {
		f(t.Layer, t.Type, t.Ne, t.Name)
	}
}

// Caches returns the memory's key/value caches.
func (mem *Memory) Caches() []*Cache {
	var all []*Cache
	for _, k := range []*Cache{mem.KV, mem.SWA, mem.Idx, mem.CSA, mem.HCA} {
		if k != nil {
			all = append(all, k)
		}
	}
	return all
}
