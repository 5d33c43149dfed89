package sched

import (
	"fmt"

	"weigh/formats"
	"weigh/inspect/graph"
)

// SYCLOptions are what SYCL's rules depend on besides the backend.
type SYCLOptions struct {
	// MaxAllocation is the device's max_mem_alloc_size in bytes, 0 for
	// SYCLAllocation. Of a BMG-G31 it is six tenths of what the driver says.
	MaxAllocation uint64
	Alchemist     bool // a DG2 (Arc A-series): oneDNN's attention has no heads of 64
	NoDNN         bool // built without oneDNN
}

// SYCLAllocation is the largest allocation of the Intel GPUs that address
// memory with 32 bits, which is the smallest of all: 4 GiB less two pages.
const SYCLAllocation = 1<<32 - 1<<13

// SYCL returns the rules of the i-th GPU of the SYCL backend, as it is built and
// set by default. Like any device it has pinned host memory, but it reads none,
// even where the GPU shares the host's. It reorders nothing.
//
// Source: ggml/src/ggml-sycl/ggml-sycl.cpp@v0.5.0,
// ggml_backend_sycl_buffer_type_*, ggml_backend_sycl_host_buffer_type_* and
// ggml_backend_sycl_device_*.
func SYCL(i int, o SYCLOptions) Device {
	if o.MaxAllocation == 0 {
		o.MaxAllocation = SYCLAllocation
	}
	d := Device{
		Name:     fmt.Sprintf("SYCL%d", i),
		Kind:     "SYCL",
		Pinned:   &BufferType{Name: "SYCL_Host", Align: hostAlign, MaxSize: o.MaxAllocation, Host: true},
		Async:    true,
		Supports: func(op *graph.Tensor) bool { return o.supports(op) },
		Offload:  func(op *graph.Tensor) bool { return batch(op) >= offloadBatch },
	}
	d.Buffer = BufferType{Name: d.Name, Align: 128, MaxSize: o.MaxAllocation, Size: o.size}
	return d
}

// size returns the bytes that t takes: the last row of quantized tensors is
// padded to a whole 512 elements, and behind the result of flash attention is
// what any of its kernels copies in 16 bits.
//
// Source: ggml_backend_sycl_buffer_type_get_alloc_size; fattn.cpp,
// ggml_sycl_fattn_get_extra.
func (o *SYCLOptions) size(t *graph.Tensor) uint64 {
	n := t.Bytes()
	if t.Op == graph.OpFlashAttnExt {
		n = o.attentionSize(t)
	}
	if r := t.Ne[0] % 512; r != 0 && t.Type.Quantized() {
		n += graph.RowSize(t.Type, 512-r)
	}
	return n
}

func (o *SYCLOptions) attentionSize(op *graph.Tensor) uint64 {
	q, k, v := op.Src[0], op.Src[1], op.Src[2]
	end := op.Bytes()
	reserve := func(n int64) {
		if n > 0 {
			end = (end+127)&^127 + 2*uint64(n)
		}
	}
	fused := o.fuses(op)
	bound := k.Type == formats.F16 && v.Type == formats.F16 // read in place
	for _, t := range []*graph.Tensor{k, v} {
		bound = bound && t.Nb[0] == 2 && t.Nb[1]%2 == 0 && t.Nb[2]%2 == 0 && t.Nb[3]%2 == 0
	}
	copied := func(t *graph.Tensor) bool { return t.Type != formats.F16 || fused && !bound }
	query := k.Ne[0] * q.Ne[1] * q.Ne[2]

	if fused {
		reserve(query)
	}
	if copied(k) {
		reserve(k.Elements())
	}
	sameMemory := v.ViewSrc != nil && (v.ViewSrc == k || v.ViewSrc == k.ViewSrc && v.ViewOffs == k.ViewOffs)
	if copied(v) && (fused || !sameMemory) {
		reserve(v.Elements())
	}
	if fused {
		reserve(1) // the scale
		reserve(query)
	}
	return end
}

// fuses reports whether oneDNN computes the attention op for some number of
// queries and keys.
//
// Source: ggml/src/ggml-sycl/fattn-onednn.cpp@v0.5.0,
// ggml_sycl_flash_attn_ext_onednn_supported.
func (o *SYCLOptions) fuses(op *graph.Tensor) bool {
	q, k, v, mask, sinks := op.Src[0], op.Src[1], op.Src[2], op.Src[3], op.Src[4]
	if o.NoDNN || o.Alchemist && k.Ne[0] == 64 {
		return false
	}
	converted := func(t *graph.Tensor) bool { return keyType(t.Type) && !oneOf(t.Type, formats.F16, formats.BF16) }
	if !(k.Type == formats.F16 && v.Type == formats.F16) && !(converted(k) && converted(v)) {
		return false
	}
	return mask != nil && mask.Type == formats.F16 && mask.Ne[2] == 1 && mask.Ne[3] == 1 && sinks == nil &&
		op.Params[1] == 0 && op.Params[2] == 0 && v.Ne[0] == k.Ne[0] && q.Ne[3] == 1 && q.Ne[2]%k.Ne[2] == 0
}

// fusesNow reports whether oneDNN computes op with its queries and keys.
func (o *SYCLOptions) fusesNow(op *graph.Tensor) bool {
	k := op.Src[1]
	return op.Src[0].Ne[1] >= 32 && (k.Type == formats.F16 || k.Ne[1] >= 1024) && o.fuses(op)
}

// Multiplies reports whether the attention op is computed by oneMKL's products,
// which have temporaries.
//
// Source: ggml/src/ggml-sycl/fattn.cpp@v0.5.0, ggml_sycl_get_best_fattn_kernel.
func (o *SYCLOptions) Multiplies(op *graph.Tensor) bool {
	q, k, v, mask, sinks := op.Src[0], op.Src[1], op.Src[2], op.Src[3], op.Src[4]
	return !o.fusesNow(op) && mask != nil && sinks == nil && q.Ne[2]/k.Ne[2] >= 2 &&
		q.Ne[0]%64 == 0 && q.Ne[0] >= 64 && q.Ne[0] <= 512 && q.Ne[0] == v.Ne[0] && q.Ne[1] >= 32 && k.Ne[1] >= 1024 &&
		op.Params[1] == 0 && op.Params[2] == 0 && (q.Ne[3] == k.Ne[3] || k.Ne[3] == 1) && wholeRows(k) && wholeRows(v)
}

// wholeRows reports whether rows of 16 bits are a whole number of rows apart.
func wholeRows(t *graph.Tensor) bool {
	return t.Type != formats.F16 || t.Nb[1]%uint64(2*t.Ne[0]) == 0
}

// attends reports whether any kernel computes the attention op.
//
// Source: ggml/src/ggml-sycl/fattn.cpp@v0.5.0, ggml_sycl_get_best_fattn_kernel.
func (o *SYCLOptions) attends(op *graph.Tensor) bool {
	q, k, v, mask := op.Src[0], op.Src[1], op.Src[2], op.Src[3]
	if o.fusesNow(op) || o.Multiplies(op) {
		return true
	}
	switch k.Ne[0] {
	case 40, 64, 72, 80, 96, 112, 128, 256, 512:
		if v.Ne[0] != k.Ne[0] {
			return false
		}
	case 576:
		grouped := q.Ne[2]/k.Ne[2] >= 2 && mask != nil && op.Params[1] == 0 && k.Ne[1]%256 == 0 && rows16(q) && rows16(k) && rows16(v) && rows16(mask)
		if v.Ne[0] != 512 || !grouped {
			return false
		}
	default:
		return false
	}
	return keyType(k.Type) && (mask == nil || mask.Ne[2] == 1)
}

// supports says whether a device runs op.
//
// Source: do_ggml_backend_sycl_device_supports_op.
func (o *SYCLOptions) supports(op *graph.Tensor) bool {
	a, b := op.Src[0], op.Src[1]
	f32 := func(ts ...*graph.Tensor) bool {
		for _, t := range ts {
			if t != nil && t.Type != formats.F32 {
				return false
			}
		}
		return true
	}
	switch op.Op {
	case graph.OpConvTranspose1D:
		return f32(a, b)
	case graph.OpUnary:
		return op.Sub <= graph.UnaryTrunc
	case graph.OpGLU:
		return op.Sub <= graph.GLUSwiGLUClamp && a.ContiguousFrom(1)
	case graph.OpMulMat, graph.OpMulMatID:
		if a.Ne[3] != b.Ne[3] || oneOf(a.Type, formats.TQ1_0, formats.TQ2_0) {
			return false
		}
		if a.Type != formats.F16 {
			return true
		}
		if a.Permuted() {
			return a.Contiguous() || a.Ne[2] == 1 || a.Ne[3] == 1
		}
		return !(b.Permuted() && b.Ne[2] > 1 && b.Ne[3] > 1 && a.Ne[0] > 128 && a.Ne[2] == 1)
	case graph.OpOutProd:
		return f32(op, b) && (f32(a) || a.Type == formats.Q1_0 && a.Ne[2] == b.Ne[2] && a.Ne[3] == b.Ne[3])
	case graph.OpGetRows:
		return float(a) || oneOf(a.Type, formats.BF16, formats.I32) || a.Type.Quantized() &&
			!oneOf(a.Type, formats.Q2_0, formats.Q8_1, formats.Q8_K, formats.TQ1_0, formats.TQ2_0)
	case graph.OpGetRowsBack:
		return f32(op) && float(a) && b.Type == formats.I32 && op.Ne[2] == 1 && op.Ne[3] == 1
	case graph.OpSet:
		return f32(op, a, b)
	case graph.OpSetRows:
		return !oneOf(op.Type, formats.TQ1_0, formats.TQ2_0) &&
			(float(a) || a.Type == formats.BF16) && oneOf(b.Type, formats.I32, formats.I64)
	case graph.OpDSV4HCPre, graph.OpDSV4HCComb, graph.OpDSV4HCPost:
		return f32(op) && f32(op.Src[:4]...)
	case graph.OpLightningIndexer:
		return f32(op, a, op.Src[2]) && op.Src[3].Type == formats.F16 && (keyType(b.Type) || b.Type == formats.IQ4_NL) && a.Ne[0] == 128
	case graph.OpCpy:
		return syclCopies(a.Type, b.Type)
	case graph.OpRepeatBack:
		return f32(a)
	case graph.OpPadReflect1D:
		return a.Contiguous() && f32(op, a)
	case graph.OpRMSNormBack, graph.OpSum, graph.OpSumRows, graph.OpMean:
		return a.Contiguous()
	case graph.OpTri:
		return f32(op) && a.Contiguous()
	case graph.OpSoftMaxBack:
		return op.Params[1] == 0
	case graph.OpCol2im1D:
		return a.Contiguous() && (float(op) || op.Type == formats.BF16) && a.Type == op.Type
	case graph.OpConv3D:
		return f32(op, b) && float(a) && a.Contiguous() && b.Contiguous()
	case graph.OpTopK:
		return op.Type == formats.I32 && f32(a) && a.Contiguous() && op.Ne[0] > 0 && op.Ne[0] <= a.Ne[0]
	case graph.OpPad:
		return op.Params[4] == 0
	case graph.OpSSMConv:
		return f32(op, a, b)
	case graph.OpRoll, graph.OpArange:
		return f32(op)
	case graph.OpSSMScan:
		return op.Src[3].Ne[0] == 1 && (a.Ne[0] == 128 || a.Ne[0] == 256) && a.Ne[1]%16 == 0
	case graph.OpSolveTri:
		return a.Ne[0] <= 64 && b.Ne[0] <= 64
	case graph.OpFlashAttnExt:
		return o.attends(op)
	case graph.OpConv2D, graph.OpConv2DDw, graph.OpConvTranspose2D, graph.OpConcat, graph.OpDup, graph.OpArgmax,
		graph.OpNone, graph.OpReshape, graph.OpView, graph.OpPermute, graph.OpTranspose, graph.OpAdd, graph.OpAdd1,
		graph.OpAddID, graph.OpSub, graph.OpCountEqual, graph.OpMul, graph.OpDiv, graph.OpRepeat, graph.OpSqr,
		graph.OpSqrt, graph.OpSin, graph.OpCos, graph.OpClamp, graph.OpLog, graph.OpNorm, graph.OpL2Norm,
		graph.OpGroupNorm, graph.OpRMSNorm, graph.OpScale, graph.OpCont, graph.OpDiagMaskInf, graph.OpSoftMax,
		graph.OpRope, graph.OpRopeBack, graph.OpIm2col, graph.OpIm2col3D, graph.OpUpscale, graph.OpArgsort,
		graph.OpPool2D, graph.OpPool1D, graph.OpAcc, graph.OpLeakyReLU, graph.OpTimestepEmbedding, graph.OpRWKVWKV6,
		graph.OpRWKVWKV7, graph.OpGatedLinearAttn, graph.OpGatedDeltaNet, graph.OpOptStepAdamw, graph.OpOptStepSGD,
		graph.OpFill, graph.OpCumsum, graph.OpDiag, graph.OpCrossEntropyLoss, graph.OpCrossEntropyLossBack:
		return true
	}
	return false
}

// syclCopies reports whether a tensor is copied from one type to another.
func syclCopies(from, to formats.DType) bool {
	super := func(t formats.DType) bool { // blocks of 256
		return oneOf(t, formats.Q2_K, formats.Q3_K, formats.Q4_K, formats.Q5_K, formats.Q6_K, formats.IQ1_S, formats.IQ1_M,
			formats.IQ2_XXS, formats.IQ2_XS, formats.IQ2_S, formats.IQ3_XXS, formats.IQ3_S, formats.IQ4_XS)
	}
	ternary := func(t formats.DType) bool { return oneOf(t, formats.TQ1_0, formats.TQ2_0) }
	switch {
	case ternary(from), ternary(to),
		oneOf(from, formats.F32, formats.F16, formats.BF16) && super(to),
		from == formats.BF16 && oneOf(to, formats.Q4_0, formats.Q4_1, formats.Q8_0),
		to == formats.F32 && (super(from) || oneOf(from, formats.Q1_0, formats.NVFP4, formats.IQ4_NL)):
		return false
	}
	return from != to || !oneOf(from, formats.IQ1_S, formats.IQ1_M, formats.IQ2_XXS, formats.IQ2_XS, formats.IQ2_S,
		formats.IQ3_XXS, formats.IQ3_S)
}
