package estimate

import (
	"fmt"
	"slices"

	"weigh/estimate/hw"
)

// remarks adds what a reader should know of the settings: what llama.cpp warns
// of, and what it settles differently from what was asked for.
func (r *run) remarks(b *Breakdown) {
	note := func(format string, args ...any) { b.Notes = append(b.Notes, fmt.Sprintf(format, args...)) }
	s := r.s
	if r.m.NCtxTrain > 0 && s.NCtxSeq > r.m.NCtxTrain {
		note("the context of %d tokens for a sequence is longer than the %d the model was trained on", s.NCtxSeq, r.m.NCtxTrain)
	}
	if r.o.NUBatch > s.NUBatch {
		note("-ub %d is more than a batch: llama.cpp takes %d", r.o.NUBatch, s.NUBatch)
	}
	if r.o.NCtx != 0 && r.o.NCtx != s.NCtx {
		note("llama.cpp makes the context of %d tokens %d", r.o.NCtx, s.NCtx)
	}
	if n := len(r.o.TensorSplit); n > len(r.p.devices) && n > 0 {
		note("-ts names %d devices, there are %d: the others are ignored", n, len(r.p.devices))
	}
	// Of the layers that --n-cpu-moe and --n-cpu-ffn count, some may be dense.
	layers := map[string]int{moePattern: 0, ffnPattern: 0}
	hits := map[string]int{}
	for i, hit := range r.p.hit {
		pattern := r.o.Overrides[i].Pattern
		for rest, n := range layers {
			if pattern == layerPattern(n, rest) {
				layers[rest]++
				if hit {
					hits[rest]++
				}
				pattern = ""
				break
			}
		}
		if !hit && pattern != "" {
			note("-ot pattern '%.80s' matches no tensor", pattern)
		}
	}
	if n := layers[moePattern]; n > 0 && hits[moePattern] == 0 {
		note("-ncmoe %d changes nothing: no experts are there", n)
	}
	if n := layers[ffnPattern]; n > 0 && hits[ffnPattern] == 0 {
		note("-ncffn %d changes nothing: no feed-forward weights are there", n)
	}
	if s.FlashAttnAuto && !s.FlashAttn && r.result != nil {
		note("flash attention stays off: a device cannot run it for this model where its layers are")
	}
	if i := slices.IndexFunc(r.p.devices, func(d hw.Device) bool { return d.Remote != "" && d.Backend == "" }); i >= 0 {
		note("the GPU behind %s is not known: its memory is taken to follow CUDA's rules", r.p.devices[i].Remote)
	}
	if len(r.p.devices) == 0 && r.o.NGPULayers != nil && *r.o.NGPULayers > 0 {
		note("-ngl %d without a device: everything stays on the CPU", *r.o.NGPULayers)
	}
	var host uint64
	for i := range r.p.bytes {
		if i >= len(r.p.devices) && i != r.p.c.Packed {
			host += r.p.bytes[i]
		}
	}
	if slices.Contains(r.o.Host.SIMD, "amx") && !r.o.NoRepack && r.p.lists[len(r.p.devices)][0] != r.p.c.Pinned {
		note("this processor has AMX: a llama.cpp built for it keeps most of the CPU's weights in a layout that takes up to an eighth more (Q8_0), which is not counted")
	}
	if host > 0 && !r.o.NoMmap {
		note("host weights are mapped from the file: the system can evict their pages")
	}
}
