package estimate

import (
	"fmt"

	"weigh/estimate/hw"
	"weigh/formats"
	"weigh/inspect/graph"
)

// What CUDA takes besides buffers, bytes.
const (
	cudaGranule    = 2 << 20  // cudaMalloc rounds a buffer up to it
	cublasSpace    = 4 << 20  // workspace of cuBLAS
	cublasSpace90  = 32 << 20 // from compute capability 9.0
	attentionSpace = 8 << 20  // partial results of flash attention
	unknownPool    = 64 << 20 // temporaries where the graph is not known
	rocblasSpace   = 32 << 20 // workspace of rocBLAS
	vulkanRuntime  = 64 << 20 // instance, descriptors and pipelines, a round figure
	vulkanPartials = 32 << 20 // partial results of products and attention that are split over the shader cores
	metalRuntime   = 32 << 20 // command buffers and the shader library, a round figure
)

// Defaults of llama-server (common/common.h@v0.5.0).
const (
	defaultCacheRAM    = 8192 // MiB
	defaultCheckpoints = 32
)

// overheads adds what llama.cpp's breakdown does not count.
func (r *run) overheads(b *Breakdown) {
	for i := range b.Devices {
		m := &b.Devices[i]
		d := r.p.devices[i]
		if n, why := hw.Context(d); n > 0 {
			m.add(Overhead, "CUDA context", n, Modelled, why)
		}
		switch d.Backend {
		case hw.Vulkan:
			m.add(Overhead, "runtime", vulkanRuntime, Modelled, "a round figure for Vulkan's instance, descriptors and pipelines")
			m.add(Overhead, "temporaries", r.vulkanPool(i), Modelled, "the largest product's operands as its shader reads them, and partial results of split work")
			continue
		case hw.Metal:
			m.add(Overhead, "runtime", metalRuntime, Modelled, "a round figure for Metal's command buffers and shaders")
			continue
		case hw.CUDA, hw.ROCm:
		default:
			continue
		}
		pool, blas, why := r.pool(i)
		if blas && d.Backend == hw.ROCm {
			m.add(Overhead, "rocBLAS workspace", rocblasSpace, Modelled, "rocBLAS's default size; some products go through it")
		}
		if blas && d.Backend == hw.CUDA {
			n := uint64(cublasSpace)
			if d.ComputeCapability.Major >= 9 {
				n = cublasSpace90
			}
			m.add(Overhead, "cuBLAS workspace", n, Modelled, "ggml-cuda's fixed size for this compute capability; some products go through cuBLAS")
		}
		m.add(Overhead, "temporaries", pool, Modelled, why)
		buffers := 0
		for _, n := range []uint64{m.Model, m.Context, m.Compute} {
			if n > 0 {
				buffers++
			}
		}
		m.add(Overhead, "rounding", uint64(buffers)*cudaGranule, Modelled, fmt.Sprintf("%d buffers, each up to a multiple of 2 MiB", buffers))
	}
	r.hostOverheads(b)
}

// pool returns the most that a product on device i needs for its operands in
// another type, whether cuBLAS is used, and why.
//
// Source: ggml/src/ggml-cuda/mmq.cu@v0.5.0, ggml_cuda_mul_mat_q (activations in
// blocks of 36 bytes for 32 elements, rows padded to 512); ggml-cuda.cu,
// ggml_cuda_op_mul_mat_cublas (weights and activations in 16 bits).
func (r *run) pool(i int) (bytes uint64, blas bool, why string) {
	if r.g == nil {
		return unknownPool, true, "a round figure: the graph is not known"
	}
	cc := r.p.devices[i].ComputeCapability
	mmq := !cc.Known() || cc.Major >= 7
	var most uint64
	for _, n := range r.g.Nodes {
		if n.Op != graph.OpMulMat && n.Op != graph.OpMulMatID || int(r.result.Device[n.ID]) != i {
			continue
		}
		a, x := n.Src[0], n.Src[1]
		rows := uint64(x.Rows())
		if n.Op == graph.OpMulMatID {
			rows = uint64(n.Src[2].Ne[0] * n.Src[2].Ne[1])
		}
		var need uint64
		switch {
		case a.Type.Quantized() && mmq && a.Type != formats.IQ1_M:
			need = rows * ((uint64(x.Ne[0]) + 511) / 512 * 512) * 36 / 32
		case a.Type == formats.F32:
			blas = true
		default:
			blas = true
			need = 2*rows*uint64(x.Ne[0]) + 2*uint64(n.Elements())
			if a.Type.Quantized() {
				need += 2 * uint64(a.Elements())
			}
		}
		most = max(most, need)
	}
	return (most + attentionSpace + cudaGranule - 1) / cudaGranule * cudaGranule, blas, "the largest product's operands in the type its kernel reads, and flash attention's partial results"
}

// vulkanPool returns the most that a product on device i needs beside its
// buffers: activations as 16-bit numbers, weights that do not lie row by row
// copied so, and partial results.
//
// Source: ggml/src/ggml-vulkan/ggml-vulkan.cpp@v0.5.0, ggml_vk_mul_mat_q_f16
// (prealloc_x, prealloc_y, prealloc_split_k).
func (r *run) vulkanPool(i int) uint64 {
	if r.g == nil {
		return unknownPool + vulkanPartials
	}
	var most uint64
	for _, n := range r.g.Nodes {
		if n.Op != graph.OpMulMat && n.Op != graph.OpMulMatID || int(r.result.Device[n.ID]) != i {
			continue
		}
		need := 2 * uint64(n.Src[1].Elements())
		if !n.Src[0].Contiguous() {
			need += 2 * uint64(n.Src[0].Elements())
		}
		most = max(most, need)
	}
	return most + vulkanPartials
}

// hostOverheads adds what llama-server keeps in host memory.
func (r *run) hostOverheads(b *Breakdown) {
	host := r.hostRow(b)
	perSeq := uint64(r.m.NVocab)
	if r.o.Embeddings {
		perSeq += uint64(r.m.NEmbdOut())
	}
	host.add(Overhead, "outputs", 4*perSeq*uint64(r.c.NSeqMax), Exact,
		fmt.Sprintf("logits of %d tokens for each of %d sequences in 4 bytes (llama_context::output_reserve)", r.m.NVocab, r.c.NSeqMax))
	if r.o.Embeddings {
		return
	}
	cache := defaultCacheRAM
	if r.o.CacheRAM != nil {
		cache = *r.o.CacheRAM
	}
	switch {
	case cache < 0:
		b.Notes = append(b.Notes, "the prompt cache has no limit (-cram -1): it is not counted")
	case cache > 0:
		host.add(Overhead, "prompt cache", uint64(min(cache, maxTokens))<<20, Modelled, "its limit (-cram); it grows as prompts come")
	}
	n := defaultCheckpoints
	if r.o.Checkpoints != nil {
		n = max(*r.o.Checkpoints, 0)
	}
	if size := r.checkpoint(); size > 0 && n > 0 {
		n = min(n, 1<<16)
		host.add(Overhead, "checkpoints", size*uint64(n)*uint64(r.c.NSeqMax), Modelled,
			fmt.Sprintf("at most %d for each of %d sequences, %d bytes each (-ctxcp)", n, r.c.NSeqMax, size))
	}
}

// checkpoint returns the bytes of one sequence's state that cannot be rolled
// back: recurrent states and the window of the sliding-window layers.
//
// Source: tools/server/server-context.cpp@v0.5.0 (do_checkpoint);
// src/llama-kv-cache-iswa.cpp@v0.5.0, llama_kv_cache_iswa::state_write.
func (r *run) checkpoint() (bytes uint64) {
	if r.mem == nil {
		return 0
	}
	if s := r.mem.RS; s != nil {
		bytes += 4 * uint64(len(s.Layers)) * uint64(s.NEmbdR+s.NEmbdS)
	}
	if k := r.mem.SWA; k != nil && !r.o.SWAFull {
		cells := uint64(min(k.Size, r.m.NSWA+r.c.NUBatch))
		for _, l := range k.Layers {
			bytes += cells * k.TypeK.RowBytes(uint64(l.NEmbdK))
			if !k.NoV {
				bytes += cells * k.TypeV.RowBytes(uint64(l.NEmbdV))
			}
		}
	}
	return bytes
}

// hostRow returns the row of plain host memory.
func (r *run) hostRow(b *Breakdown) *Memory {
	name := r.p.c.Buffers[r.p.c.CPU].Name
	for i := range b.Host {
		if b.Host[i].Name == name {
			return &b.Host[i]
		}
	}
	b.Host = append(b.Host, Memory{Name: name, Device: -1})
	return &b.Host[len(b.Host)-1]
}

// add counts a term that no total holds yet.
func (m *Memory) add(p Part, name string, bytes uint64, basis Basis, why string) {
	if bytes == 0 {
		return
	}
	m.Terms = append(m.Terms, Term{p, name, bytes, basis, why})
	switch p {
	case Weights:
		m.Model += bytes
	case Context:
		m.Context += bytes
	case Compute:
		m.Compute += bytes
	default:
		m.Overhead += bytes
	}
}
