package estimate

import (
	"weigh/formats"
	"weigh/inspect/arch"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// A Growth is how a model's memory grows with the context of one sequence:
// bytes of F16 keys and values for each token, in the layers that keep all of
// them and in those that keep a window, and of the state that does not grow.
type Growth struct {
	Full, Window, State uint64
}

// CacheGrowth returns how the model's memory grows; false when it cannot be
// laid out.
func CacheGrowth(m *model.Model) (g Growth, ok bool) {
	const tokens = 1 << 16 // a multiple of every padding and compression
	err := graph.Try(func() {
		long, short := memoryOf(m, 2*tokens), memoryOf(m, tokens)
		g = Growth{(long.Full - short.Full) / tokens, (long.Window - short.Window) / tokens, short.State}
	})
	return g, err == nil
}

// memoryOf returns the bytes that a sequence of n tokens takes.
func memoryOf(m *model.Model, n int) (g Growth) {
	mem := arch.NewMemory(m, &arch.Context{
		NCtx: n, NCtxSeq: n, NBatch: 512, NUBatch: 512, NSeqMax: 1, FlashAttn: true, OffloadKQV: true, SWAFull: true, CausalAttn: m.CausalAttn, TypeK: formats.F16, TypeV: formats.F16,
	})
	if mem == nil {
		return g
	}
	for _, k := range mem.Caches() {
		into := &g.Full
		if k == mem.SWA {
			into = &g.Window
		}
		for _, l := range k.Layers {
			if l.SharedWith {
				continue
			}
			row := k.TypeK.RowBytes(uint64(max(l.NEmbdK, 0)))
			if !k.NoV {
				row += k.TypeV.RowBytes(uint64(max(l.NEmbdV, 0)))
			}
			*into += row * uint64(max(k.Size*k.Streams, 0))
		}
	}
	if s := mem.RS; s != nil {
		for _, il := range s.Layers {
			n := s.NEmbdR + s.NEmbdS
			if s.PLE[il] {
				n += s.NEmbdP
			}
			g.State += 4 * uint64(max(n*s.Rows, 0))
		}
	}
	for _, t := range mem.More {
		g.State += t.Type.RowBytes(uint64(max(t.Ne[0]*t.Ne[1]*t.Ne[2], 0)))
	}
	return g
}
