package sched

import (
	"weigh/formats"
	"weigh/inspect/graph"
)

// SYCL returns rules for the i-th GPU of the SYCL backend, which was ported from
// CUDA's and shares its buffers' alignment and padding. The operators it runs
// and fuses are taken to be CUDA's, which they are but nearly: a figure that
// follows from these rules is modelled, not exact. Flash attention's copies are
// the most that any of its kernels takes.
//
// Source: ggml/src/ggml-sycl/ggml-sycl.cpp@v0.5.0,
// ggml_backend_sycl_buffer_type_get_alloc_size; fattn.cpp,
// ggml_sycl_fattn_get_extra.
func SYCL(i int) Device {
	d := cudaDevice("SYCL", i, 890, CUDAOptions{})
	padded := d.Buffer.Size
	d.Buffer.Size = func(t *graph.Tensor) uint64 {
		if t.Op != graph.OpFlashAttnExt {
			return padded(t)
		}
		q, k, v := t.Src[0], t.Src[1], t.Src[2]
		end := t.Bytes()
		add := func(n int64) { end = (end+127)&^127 + 2*uint64(n) }
		query := k.Ne[0] * q.Ne[1] * q.Ne[2] // of one sequence
		add(query)
		if k.Type != formats.F16 {
			add(k.Elements())
		}
		if v.Type != formats.F16 {
			add(v.Elements())
		}
		add(1) // the scale
		add(query)
		return end
	}
	return d
}
