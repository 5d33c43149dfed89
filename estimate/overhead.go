package estimate

import (
	"fmt"
	"slices"
	"strings"

	"weigh/estimate/hw"
	"weigh/estimate/sched"
	"weigh/formats"
	"weigh/inspect/graph"
)

// What CUDA takes besides buffers, bytes.
const (
	cudaGranule    = 2 << 20   // cudaMalloc rounds a buffer up to it
	cublasSpace    = 4 << 20   // workspace of cuBLAS
	cublasSpace90  = 32 << 20  // from compute capability 9.0
	attentionSpace = 8 << 20   // partial results of flash attention
	unknownPool    = 64 << 20  // temporaries where the graph is not known
	rocblasSpace   = 32 << 20  // workspace of rocBLAS
	vulkanRuntime  = 64 << 20  // instance, descriptors and pipelines, a round figure
	vulkanPartials = 32 << 20  // partial results of products and attention that are split over the shader cores
	metalRuntime   = 32 << 20  // command buffers and the shader library, a round figure
	syclRuntime    = 128 << 20 // Level Zero's context and the kernels compiled for the device, a round figure
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
		case hw.SYCL:
			m.add(Overhead, "runtime", syclRuntime, Modelled, "a round figure for Level Zero's context and the compiled kernels")
			m.add(Overhead, "temporaries", r.syclPool(i), Modelled, "operands of products and attention in the types that their kernels read; the pool keeps every size")
			continue
		case hw.CUDA, hw.ROCm, "": // what an rpc-server has is taken to be CUDA
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
	d := &r.p.devices[i]
	var most uint64
	for _, n := range r.g.Nodes {
		if n.Op != graph.OpMulMat && n.Op != graph.OpMulMatID || int(r.result.Device[n.ID]) != i {
			continue
		}
		a, x := n.Src[0], n.Src[1]
		rows, columns, experts := uint64(x.Rows()), uint64(x.Ne[1]), uint64(1)
		if n.Op == graph.OpMulMatID {
			rows, columns, experts = uint64(n.Src[2].Ne[0]*n.Src[2].Ne[1]), uint64(n.Src[2].Ne[1]), uint64(max(a.Ne[2], 1))
		}
		var need uint64
		switch {
		case a.Type.Quantized() && readsQuantized(d, a.Type, columns, experts):
			need = rows * ((uint64(x.Ne[0]) + 511) / 512 * 512) * 36 / 32
		case a.Type == formats.F32:
			blas = true
		default:
			blas = true
			need = 2*rows*uint64(x.Ne[0]) + 2*uint64(n.Elements())
			if a.Type.Quantized() {
				need += 2 * uint64(a.Elements()) / experts
			}
			if experts > 1 { // the tokens of each expert side by side, and what comes of them
				need += 4*rows*uint64(x.Ne[0]) + 4*uint64(n.Elements())
			}
		}
		most = max(most, need)
	}
	return (most + attentionSpace + cudaGranule - 1) / cudaGranule * cudaGranule, blas, "the largest product's operands in the type its kernel reads, and flash attention's partial results"
}

// readsQuantized reports whether a product with columns of activations reads
// quantized weights as they are. Otherwise they are first written out in 16 bits,
// one expert's at a time.
//
// Source: ggml/src/ggml-cuda/mmq.cu@v0.5.0, ggml_cuda_should_use_mmq; common.cuh,
// turing_mma_available, fp16_mma_hardware_available, amd_mfma_available.
func readsQuantized(d *hw.Device, t formats.DType, columns, experts uint64) bool {
	const (
		vectors = 8  // MMVQ_MAX_BATCH_SIZE: products of vectors read every type that follows as it is
		few     = 64 // MMQ_DP4A_MAX_BATCH_SIZE
	)
	switch {
	case t == formats.TQ1_0 || t == formats.TQ2_0:
		return false
	case columns <= vectors:
		return true
	case t == formats.IQ1_M:
		return false
	}
	switch a := d.Arch; {
	case d.Backend != hw.ROCm:
		c := d.ComputeCapability
		n := 10*c.Major + c.Minor
		switch {
		case !c.Known() || n >= 75: // integer tensor cores
			return true
		case n < 61: // no products of four bytes at once
			return false
		}
		return n < 70 || columns < few // Volta's tensor cores do 16 bits only
	case a == "gfx908" || a == "gfx90a":
		switch t {
		case formats.Q4_0, formats.Q4_1, formats.Q5_0, formats.Q5_1:
			return true
		case formats.Q4_K, formats.Q5_K:
			return experts > few || columns <= 256
		}
		return experts > few || columns <= 128
	case strings.HasPrefix(a, "gfx11") && experts < few:
		switch t {
		case formats.Q2_K, formats.IQ2_XS, formats.IQ2_S, formats.Q6_K:
			return columns <= 128
		}
	}
	return true
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

// syclPool returns the bytes that the pool of device i grows to over a
// micro-batch: a temporary gets the smallest free block that holds it, or a new
// one that is never given back.
//
// Source: ggml/src/ggml-sycl/ggml-sycl.cpp@v0.5.0, ggml_sycl_pool_leg.
func (r *run) syclPool(i int) (total uint64) {
	if r.g == nil || r.result == nil {
		return unknownPool
	}
	total = attentionSpace
	sycl := syclOptions(r.p.devices[i])
	var free []uint64
	for _, n := range r.g.Nodes {
		if int(r.result.Device[n.ID]) != i {
			continue
		}
		var taken []uint64
		for _, size := range syclTemporaries(n, sycl) {
			at := -1
			for j, b := range free {
				if b >= size && (at < 0 || b < free[at]) {
					at = j
				}
			}
			if at < 0 {
				taken = append(taken, size+size/20)
				total += size + size/20
				continue
			}
			taken = append(taken, free[at])
			free = slices.Delete(free, at, at+1)
		}
		free = append(free, taken...)
	}
	return total
}

// syclTemporaries returns the bytes of each temporary that op has at once, in a
// build that computes products in 32 bits (GGML_SYCL_F16 is off), by whichever
// kernel it may take.
//
// Source: ggml/src/ggml-sycl/ggml-sycl.cpp@v0.5.0, ggml_sycl_op_mul_mat_sycl,
// ggml_sycl_mul_mat_batched_sycl and ggml_sycl_mul_mat_id; fattn-mkl.cpp,
// ggml_sycl_flash_attn_ext_mkl.
func syclTemporaries(op *graph.Tensor, sycl sched.SYCLOptions) []uint64 {
	const vectors = 8 // columns up to which quantized weights are read as they are (MMVQ_MAX_BATCH_SIZE)
	a, x := op.Src[0], op.Src[1]
	matrix := func(columns uint64) []uint64 { // one product of a matrix of a
		in, out := uint64(a.Ne[0]), uint64(a.Ne[1])
		switch {
		case a.Type == formats.F32:
			return nil
		case a.Type == formats.BF16:
			return []uint64{2 * columns * in}
		case a.Type.Quantized() && columns <= vectors:
			return []uint64{columns * ((in + 511) / 512 * 512) * 36 / 32}
		}
		return []uint64{4 * in * out}
	}
	switch op.Op {
	case graph.OpMulMat:
		if a.Type == formats.F16 && x.Ne[2]*x.Ne[3] > 1 {
			return []uint64{2 * uint64(x.Elements()), 2 * uint64(op.Elements())}
		}
		return matrix(uint64(x.Ne[1]))
	case graph.OpMulMatID:
		rows := uint64(op.Src[2].Ne[0] * op.Src[2].Ne[1])
		return append([]uint64{4 * rows * uint64(x.Ne[0]), 4 * rows * uint64(op.Ne[0])}, matrix(rows)...)
	case graph.OpFlashAttnExt:
		if !sycl.Multiplies(op) {
			return nil
		}
		const mostKeys, mostQueries = 8192, 8192
		keys, rows := uint64(x.Ne[1]), uint64(a.Ne[1]*(a.Ne[2]/x.Ne[2]))
		head, headV := uint64(x.Ne[0]), uint64(op.Src[2].Ne[0])
		tile := min(rows, mostQueries) * min(keys, mostKeys)
		return []uint64{
			4 * tile, 2 * tile, 4 * min(rows, mostQueries) * headV, 4 * rows * headV, 4 * rows, 4 * rows,
			2 * rows * head, 2 * min(keys, mostKeys) * head, 2 * min(keys, mostKeys) * headV,
		}
	}
	return nil
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
