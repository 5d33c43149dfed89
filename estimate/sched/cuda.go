package sched

import (
	"fmt"

	"weigh/formats"
	"weigh/inspect/graph"
)

// amd is added to the architecture number of AMD's devices
// (GGML_CUDA_CC_OFFSET_AMD).
const amd = 0x1000000

// CUDAOptions are what CUDA's rules depend on besides the architecture.
type CUDAOptions struct {
	Integrated bool // the GPU shares the host's memory
	NoFusion   bool // GGML_CUDA_DISABLE_FUSION is set
}

// CUDA returns the rules of the i-th NVIDIA GPU of the given compute
// capability, times 100 (890 is 8.9; 0 stands for it). A capability above that
// of the build runs as the highest one that was built, which changes nothing
// here.
//
// Source: ggml/src/ggml-cuda/ggml-cuda.cu@v0.5.0,
// ggml_backend_cuda_buffer_type_* and ggml_backend_cuda_device_*.
func CUDA(i, capability int, o CUDAOptions) Device {
	if capability == 0 {
		capability = 890
	}
	return cudaDevice("CUDA", i, capability, o)
}

// ROCm returns the rules of the i-th AMD GPU of the given architecture, as the
// digits of its gfx name in hexadecimal (0x1100 is gfx1100).
func ROCm(i, gfx int, o CUDAOptions) Device {
	return cudaDevice("ROCm", i, amd+gfx, o)
}

func cudaDevice(kind string, i, cc int, o CUDAOptions) Device {
	d := Device{
		Name:     fmt.Sprintf("%s%d", kind, i),
		Kind:     kind,
		Local:    true,
		Pinned:   &BufferType{Name: kind + "_Host", Align: hostAlign, Host: true},
		Shared:   o.Integrated,
		Async:    true,
		Supports: func(op *graph.Tensor) bool { return cudaSupports(cc, op) },
		Offload:  func(op *graph.Tensor) bool { return batch(op) >= offloadBatch },
	}
	d.Buffer = BufferType{Name: d.Name, Align: 128, Size: func(t *graph.Tensor) uint64 { return cudaSize(cc, t) }}
	if !o.NoFusion {
		d.Optimize = cudaOptimize
	}
	return d
}

// cudaSize returns the bytes that t takes: the last row of quantized weights
// is padded to a whole 512 elements, and flash attention has room for keys and
// values in 16 bits.
//
// Source: ggml_backend_cuda_buffer_type_get_alloc_size.
func cudaSize(cc int, t *graph.Tensor) uint64 {
	n := t.Bytes()
	if t.Op == graph.OpFlashAttnExt {
		n = attentionSize(cc, t)
	}
	if r := t.Ne[0] % 512; r != 0 && t.Type.Quantized() {
		n += graph.RowSize(t.Type, 512-r)
	}
	return n
}

// cudaSupports says whether a device runs op.
//
// Source: ggml_backend_cuda_device_supports_op.
func cudaSupports(cc int, op *graph.Tensor) bool {
	a, b := op.Src[0], op.Src[1]
	switch op.Op {
	case graph.OpUnary:
		return op.Sub <= graph.UnaryTrunc && a.Contiguous()
	case graph.OpGLU:
		return op.Sub <= graph.GLUSwiGLUClamp && a.ContiguousFrom(1)
	case graph.OpMulMat, graph.OpMulMatID:
		if a.Nb[0] != typeSize(a.Type) || b.Nb[0] != typeSize(b.Type) ||
			b.Type == formats.F16 && a.Type != formats.F16 ||
			op.Op == graph.OpMulMatID && op.Params[3] == graph.PrecF32 {
			return false
		}
		return float(a) || a.Type == formats.BF16 ||
			a.Type.Quantized() && !oneOf(a.Type, formats.Q8_1, formats.TQ1_0, formats.TQ2_0)
	case graph.OpOutProd:
		return op.Type == formats.F32 && a.Type == formats.F32 && b.Type == formats.F32
	case graph.OpGetRows:
		if oneOf(a.Type, formats.IQ4_NL, formats.MXFP4) {
			return a.Ne[0]%256 == 0
		}
		return float(a) || oneOf(a.Type, formats.BF16, formats.I32) ||
			a.Type.Quantized() && !oneOf(a.Type, formats.Q8_1, formats.Q8_K, formats.TQ1_0, formats.TQ2_0, formats.NVFP4)
	case graph.OpGetRowsBack:
		return op.Type == formats.F32 && a.Type == formats.F32 && op.Ne[2] == 1 && op.Ne[3] == 1
	case graph.OpSetRows:
		return (a.Type == formats.F32 && (float(op) || oneOf(op.Type, formats.BF16, formats.Q4_0, formats.Q4_1, formats.Q5_0,
			formats.Q5_1, formats.Q8_0, formats.IQ4_NL)) || a.Type == formats.F16 && op.Type == formats.F16) &&
			oneOf(b.Type, formats.I64, formats.I32)
	case graph.OpSet:
		return oneOf(op.Type, formats.F32, formats.I32) && a.Type == op.Type && b.Type == op.Type
	case graph.OpCpy:
		return cudaCopies(a, b)
	case graph.OpRepeat:
		return float(a)
	case graph.OpRepeatBack:
		return op.Type == formats.F32 && a.Ne[2]*a.Ne[3] <= 1<<15
	case graph.OpConcat:
		return cudaConcats(op)
	case graph.OpConvTranspose1D:
		return a.Type == formats.F32 && b.Type == formats.F32
	case graph.OpCol2im1D:
		return (float(a) || a.Type == formats.BF16) && op.Type == a.Type && a.Contiguous() && op.Contiguous()
	case graph.OpSiLUBack:
		return a.Contiguous() && a.Type == formats.F32
	case graph.OpNorm, graph.OpRMSNorm, graph.OpL2Norm:
		return a.ContiguousRows()
	case graph.OpRMSNormBack, graph.OpGroupNorm:
		return a.Contiguous()
	case graph.OpAdd, graph.OpSub, graph.OpMul, graph.OpDiv:
		return float(a) && float(b) && float(op)
	case graph.OpSSMScan:
		if op.Src[3].Ne[0] == 1 {
			return (a.Ne[0] == 128 || a.Ne[0] == 256) && a.Ne[1]%16 == 0
		}
		return op.Params[0] <= 1 && a.Ne[0] == 16 && a.Ne[1] == 1 && a.Ne[2]%128 == 0 && op.Src[4].Ne[1] == 1
	case graph.OpSSMConv:
		return a.Ne[1]%128 == 0
	case graph.OpSoftMaxBack:
		return op.Params[1] == 0
	case graph.OpRoll:
		return a.Type == formats.F32 && a.Contiguous()
	case graph.OpRope, graph.OpRopeBack:
		return a.Nb[0] == typeSize(a.Type) && a.ContiguousFrom(2)
	case graph.OpIm2col, graph.OpIm2col3D, graph.OpConv2D, graph.OpAcc:
		return a.Contiguous() && b.Contiguous()
	case graph.OpConv2DDw:
		return a.Type == formats.F32
	case graph.OpSum:
		return a.ContiguousRows()
	case graph.OpArgsort:
		return cc < amd || a.Ne[0] <= 1024
	case graph.OpSumRows, graph.OpMean:
		return a.Type == formats.F32 && op.Type == formats.F32 && a.ContiguousRows()
	case graph.OpDSV4HCComb, graph.OpDSV4HCPre, graph.OpDSV4HCPost:
		for _, s := range op.Src {
			if s != nil && s.Type != formats.F32 {
				return false
			}
		}
		return op.Type == formats.F32
	case graph.OpFlashAttnExt:
		return bestAttention(cc, op) != attentionNone
	case graph.OpLightningIndexer:
		return cudaIndexes(op)
	case graph.OpNone, graph.OpReshape, graph.OpView, graph.OpPermute, graph.OpTranspose, graph.OpAddID, graph.OpAdd1,
		graph.OpScale, graph.OpSqr, graph.OpSqrt, graph.OpSin, graph.OpCos, graph.OpClamp, graph.OpLog, graph.OpDup,
		graph.OpArgmax, graph.OpCountEqual, graph.OpCont, graph.OpDiagMaskInf, graph.OpSoftMax,
		graph.OpConvTranspose2D, graph.OpPool1D, graph.OpPool2D, graph.OpTopK, graph.OpPad, graph.OpUpscale,
		graph.OpPadReflect1D, graph.OpArange, graph.OpTimestepEmbedding, graph.OpLeakyReLU, graph.OpRWKVWKV6,
		graph.OpGatedLinearAttn, graph.OpRWKVWKV7, graph.OpGatedDeltaNet, graph.OpCrossEntropyLoss,
		graph.OpCrossEntropyLossBack, graph.OpOptStepAdamw, graph.OpOptStepSGD, graph.OpFill, graph.OpCumsum,
		graph.OpTri, graph.OpDiag, graph.OpSolveTri:
		return true
	}
	return false
}

func cudaCopies(a, b *graph.Tensor) bool {
	wide := func(t *graph.Tensor) bool { return float(t) || t.Type == formats.BF16 }
	small := func(t *graph.Tensor) bool {
		return oneOf(t.Type, formats.Q8_0, formats.Q4_0, formats.Q4_1, formats.Q5_0, formats.Q5_1, formats.I32)
	}
	switch {
	case wide(a) && wide(b),
		a.Type == formats.F32 && (small(b) || b.Type == formats.IQ4_NL),
		b.Type == formats.F32 && small(a),
		a.Type == formats.I32 && b.Type == formats.I32:
		return true
	}
	return a.Type == b.Type && a.Contiguous() && b.Contiguous()
}

func cudaConcats(op *graph.Tensor) bool {
	a, b := op.Src[0], op.Src[1]
	if a.Type != b.Type || a.Type != op.Type {
		return false
	}
	if !a.Type.Quantized() {
		s := typeSize(a.Type)
		return s == 1 || s == 2 || s == 4 || s == 8
	}
	e, _ := a.Type.Block()
	if a.Ne[0]%int64(e) != 0 || b.Ne[0]%int64(e) != 0 {
		return false
	}
	if op.Params[0] == 3 {
		return a.Contiguous() && b.Contiguous()
	}
	return packedTo3(a) && packedTo3(b)
}

// packedTo3 reports whether the first three dimensions of t are packed.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_is_contiguous_to_3.
func packedTo3(t *graph.Tensor) bool {
	e, b := t.Type.Block()
	if t.Ne[0] != int64(e) && t.Nb[0] != b {
		return false
	}
	next := b * (uint64(t.Ne[0]) / e)
	for i := 1; i < 3; i++ {
		if t.Ne[i] != 1 && t.Nb[i] != next {
			return false
		}
		next *= uint64(t.Ne[i])
	}
	return true
}

// cudaIndexes reports whether the sparse indexer runs.
//
// Source: ggml/src/ggml-cuda/lightning-indexer.cu@v0.5.0,
// ggml_cuda_lightning_indexer_supported.
func cudaIndexes(op *graph.Tensor) bool {
	q, k := op.Src[0], op.Src[1]
	if q.Ne[0] != 128 || q.Ne[1] != 64 && q.Ne[1] != 32 {
		return false
	}
	return rows16(q) && rows16(k) && keyType(k.Type)
}

// rows16 reports whether all strides above the first are multiples of 16 bytes,
// which only matters for types that are not quantized.
func rows16(t *graph.Tensor) bool {
	return t == nil || t.Type.Quantized() || t.Nb[1]%16 == 0 && t.Nb[2]%16 == 0 && t.Nb[3]%16 == 0
}

// keyType reports whether CUDA's attention reads keys or values of the type.
func keyType(t formats.DType) bool {
	return oneOf(t, formats.F32, formats.F16, formats.BF16, formats.Q4_0, formats.Q4_1, formats.Q5_0, formats.Q5_1, formats.Q8_0)
}

// attention is the kernel that CUDA takes for flash attention.
type attention uint8

const (
	attentionNone attention = iota
	attentionVec            // one query at a time, reads keys and values as they are
	attentionTile           // the others read them in 16 bits
	attentionMMA
)

// bestAttention returns the kernel for op on an architecture.
//
// Source: ggml/src/ggml-cuda/fattn.cu@v0.5.0, ggml_cuda_get_best_fattn_kernel.
func bestAttention(cc int, op *graph.Tensor) attention {
	q, k, v, mask := op.Src[0], op.Src[1], op.Src[2], op.Src[3]
	head, alibi := q.Ne[0], op.Params[1] != 0
	gqa := q.Ne[2] / k.Ne[2]
	striped := k.Ne[1]%256 == 0
	grouped := gqa >= 2 && mask != nil && !alibi && striped && rows16(q) && rows16(k) && rows16(v) && rows16(mask)

	switch k.Ne[0] {
	case 40, 64, 72, 80, 96, 112, 128, 256:
		if v.Ne[0] != k.Ne[0] {
			return attentionNone
		}
	case 192:
		if v.Ne[0] != 128 || !grouped || gqa%8 != 0 {
			return attentionNone
		}
	case 320:
		if v.Ne[0] != 256 || !grouped || gqa%32 != 0 {
			return attentionNone
		}
	case 512, 576:
		if v.Ne[0] != 512 || !grouped {
			return attentionNone
		}
	default:
		return attentionNone
	}
	if !keyType(k.Type) || !keyType(v.Type) || mask != nil && mask.Ne[2] != 1 {
		return attentionNone
	}

	quantized := k.Type.Quantized() || v.Type.Quantized()
	vec := head <= 256 && head%64 == 0 && head != 192 && striped
	odd := head == 40 || head == 72
	nvidia := cc < amd
	if nvidia && cc >= 750 && !odd {
		if !vec {
			return attentionMMA
		}
		ada := cc >= 890
		switch {
		case quantized && (q.Ne[1] == 1 || ada && q.Ne[1] <= 2):
			return attentionVec
		case !quantized && ada && q.Ne[1] == 1 && q.Ne[3] == 1 && !(gqa > 4 && (head >= 256 || k.Ne[1] >= 8192)) &&
			!(grouped && gqa > 4 && sparse(op)):
			return attentionVec
		case !grouped && q.Ne[1] == 1:
			return attentionVec
		}
		return attentionMMA
	}

	most := int64(8)
	switch head {
	case 320:
		most = 32
	case 576, 192:
		most = 16
	}
	eff := int64(1)
	for gqa%(2*eff) == 0 && eff < most {
		eff *= 2
	}
	cols := q.Ne[1] * eff
	if nvidia && cc >= 700 && !odd {
		switch {
		case vec && cols <= 2:
			return attentionVec
		case cols <= 16:
			return attentionTile
		}
		return attentionMMA
	}
	if !nvidia && head <= 256 && !odd {
		gfx := cc - amd
		cdna := gfx >= 0x908 && gfx < 0x1010 && gfx != 0x909 && gfx != 0x90c
		if cdna && (head <= 64 && cols > 8 || head <= 128 && cols > 16 || cols > 64) {
			return attentionMMA
		}
		if gfx >= 0x1100 && grouped && (head <= 128 && cols > 8 || cols > 16) {
			return attentionMMA
		}
	}
	if vec && (quantized && q.Ne[1] <= 2 || !quantized && q.Ne[1] == 1 && !grouped) {
		return attentionVec
	}
	return attentionTile
}

// sparse reports whether a single query would gather only the keys that its
// mask leaves, which has a kernel for some head sizes.
//
// Source: ggml/src/ggml-cuda/fattn.cu@v0.5.0,
// ggml_cuda_flash_attn_ext_mma_f16_shall_use_sparse; fattn-mma-f16.cuh,
// ggml_cuda_flash_attn_ext_mma_f16_may_use_sparse.
func sparse(op *graph.Tensor) bool {
	q, k, v, mask := op.Src[0], op.Src[1], op.Src[2], op.Src[3]
	most := int64(op.Params[4])
	return k.Ne[0] == v.Ne[0] && (k.Ne[0] == 256 || k.Ne[0] == 512) &&
		most > 0 && op.Params[1] == 0 && op.Params[2] == 0 &&
		mask.Ne[0] == k.Ne[1] && mask.Ne[1] >= q.Ne[1] && mask.Ne[2] == 1 &&
		k.Ne[1] >= max(4096, 2*min(q.Ne[1], 8)*most)
}

// attentionSize returns the bytes of flash attention's result and of the keys
// and values in 16 bits behind it, where the kernel needs them so.
//
// Source: ggml/src/ggml-cuda/fattn.cu@v0.5.0,
// ggml_cuda_flash_attn_ext_get_alloc_size; fattn-common.cuh,
// ggml_cuda_flash_attn_ext_get_f16_extra_data. Vector kernels exist for the
// default of GGML_CUDA_FA_QUANTS.
func attentionSize(cc int, op *graph.Tensor) uint64 {
	k, v := op.Src[1], op.Src[2]
	var wideK, wideV bool
	switch bestAttention(cc, op) {
	case attentionTile, attentionMMA:
		wideK, wideV = true, true
	case attentionVec:
		has := vecType(k.Type) == vecType(v.Type) &&
			oneOf(vecType(k.Type), formats.F16, formats.BF16, formats.Q4_0, formats.Q8_0)
		wideK = k.Type == formats.F32 || !has
		wideV = v.Type == formats.F32 || !has
	}
	end := op.Bytes()
	pad := func() { end = (end + 127) &^ 127 }
	if wideK && k.Type != formats.F16 {
		pad()
		end += uint64(k.Elements()) * 2
	}
	sameMemory := v.ViewSrc != nil && (v.ViewSrc == k || v.ViewSrc == k.ViewSrc && v.ViewOffs == k.ViewOffs)
	if wideV && v.Type != formats.F16 && !sameMemory {
		pad()
		end += uint64(v.Elements()) * 2
	}
	return end
}

// vecType returns the type that a vector kernel reads instead of t.
func vecType(t formats.DType) formats.DType {
	if t == formats.F32 {
		return formats.F16
	}
	return t
}
