package sched

import (
	"slices"

	"weigh/formats"
	"weigh/inspect/graph"
)

// MetalOptions are what Metal's rules depend on. The zero value is Apple
// silicon.
type MetalOptions struct {
	MaxBuffer   uint64 // maxBufferLength, bytes; 0 for no limit
	Private     bool   // memory of its own: a GPU in an Intel Mac
	NoBFloat    bool   // no bfloat16
	NoReduction bool   // no reductions over a SIMD group (before family Apple7 and Metal 3)
	NoMatrix    bool   // no matrix operations of a SIMD group (before family Apple7)
	NoReorder   bool   // GGML_METAL_GRAPH_OPTIMIZE_DISABLE is set
}

// Metal returns the rules of Apple's GPU.
//
// Source: ggml/src/ggml-metal/ggml-metal.cpp@v0.5.0; ggml-metal-device.m,
// ggml_metal_device_supports_op.
func Metal(o MetalOptions) Device {
	d := Device{
		Name:     "MTL0",
		Kind:     "Metal",
		Buffer:   BufferType{Name: "MTL0", Align: 32, MaxSize: o.MaxBuffer, Size: metalSize},
		Async:    true,
		Supports: o.supports,
		Offload: func(op *graph.Tensor) bool {
			return (op.Op == graph.OpMulMat || op.Op == graph.OpMulMatID) && batch(op) >= offloadBatch
		},
		Optimize: func(s *Section) {
			metalKeep(s)
			if !o.NoReorder {
				metalReorder(s)
			}
		},
	}
	if o.Private {
		d.Buffer.Name = "MTL0_Private"
	}
	return d
}

// metalSize returns the bytes that t takes, with the room that its kernel
// works in.
//
// Source: ggml/src/ggml-metal/ggml-metal.cpp@v0.5.0,
// ggml_backend_metal_buffer_type_get_alloc_size.
func metalSize(t *graph.Tensor) uint64 {
	n := t.Bytes()
	switch t.Op {
	case graph.OpMulMatID:
		experts, tokens := uint64(t.Src[0].Ne[2]), uint64(t.Src[2].Ne[1])
		n += 4*experts + 4*experts*tokens + 8 + 4*256
	case graph.OpFlashAttnExt:
		n += metalAttention(t)
	case graph.OpCumsum, graph.OpArgsort:
		n *= 2
	case graph.OpTopK:
		n = 8 * uint64(t.Src[0].Elements())
	}
	return n
}

// metalAttention returns the bytes that flash attention works in: padded ends
// of keys, values and mask, a map of the mask's blocks, partial results, keys
// and values in 16 bits, and lists of what the mask leaves.
//
// Source: ggml/src/ggml-metal/ggml-metal-ops.cpp@v0.5.0,
// ggml_metal_op_flash_attn_ext_extra_*.
func metalAttention(op *graph.Tensor) uint64 {
	q, k, v, mask := op.Src[0], op.Src[1], op.Src[2], op.Src[3]
	count := func(ns ...int64) uint64 {
		n := uint64(1)
		for _, x := range ns {
			n *= uint64(x)
		}
		return n
	}
	pad := func(n, to uint64) uint64 { return (n + to - 1) &^ (to - 1) }
	sameMemory := v.ViewSrc != nil && (v.ViewSrc == k || v.ViewSrc == k.ViewSrc && v.ViewOffs == k.ViewOffs)

	rowK, rowV := k.Nb[1], v.Nb[1]
	if q.Ne[1] >= 32 && oneOf(k.Type, formats.Q4_0, formats.Q4_1, formats.Q5_0, formats.Q5_1, formats.Q8_0) {
		rowK, rowV = 2*uint64(k.Ne[0]), 2*uint64(v.Ne[0])
		if sameMemory {
			rowV = rowK
		}
	}
	ends := rowK*count(k.Ne[2], k.Ne[3]) + rowV*count(v.Ne[2], v.Ne[3])
	n := uint64(0)
	if mask != nil {
		ends += 2 * count(mask.Ne[1], mask.Ne[2], mask.Ne[3])
		rows, cols := int64(8), int64(64)
		if q.Ne[1] < 20 && q.Ne[0]%32 == 0 {
			rows, cols = 1, 32
		}
		n += pad(count((mask.Ne[0]+cols-1)/cols, (q.Ne[1]+rows-1)/rows, mask.Ne[2], mask.Ne[3]), 32)
		if most := metalSparse(op); most > 0 {
			n += pad(4*pad(uint64(most), 32)*count(mask.Ne[1], mask.Ne[2], mask.Ne[3]), 16)
		}
	}
	n += 64*ends + 4*count(min(q.Ne[1], 32), q.Ne[2], q.Ne[3], 32, v.Ne[0]+2) + pad(2*uint64(k.Elements()), 16)
	if !sameMemory {
		n += pad(2*uint64(v.Elements()), 16)
	}
	return n
}

// metalSparse returns how many keys each row of the mask leaves at most, if
// there is a kernel that gathers them, and 0 otherwise.
func metalSparse(op *graph.Tensor) int32 {
	k, v := op.Src[1], op.Src[2]
	most := op.Params[4]
	if most <= 0 || most > 4096 || !keyType(k.Type) {
		return 0
	}
	switch [2]int64{k.Ne[0], v.Ne[0]} {
	case [2]int64{32, 32}, [2]int64{64, 64}, [2]int64{96, 96}, [2]int64{96, 64}, [2]int64{128, 128}, [2]int64{192, 128},
		[2]int64{192, 192}, [2]int64{256, 256}, [2]int64{320, 256}, [2]int64{512, 512}, [2]int64{576, 512}:
		return most
	}
	return 0
}

// supports says whether the GPU runs op.
//
// Source: ggml/src/ggml-metal/ggml-metal-device.m@v0.5.0,
// ggml_metal_device_supports_op.
func (o MetalOptions) supports(op *graph.Tensor) bool {
	a, b := op.Src[0], op.Src[1]
	if o.NoBFloat {
		for _, t := range [...]*graph.Tensor{op, a, b, op.Src[2]} {
			if t != nil && t.Type == formats.BF16 {
				return false
			}
		}
	}
	f32 := func(ts ...*graph.Tensor) bool {
		for _, t := range ts {
			if t.Type != formats.F32 {
				return false
			}
		}
		return true
	}
	switch op.Op {
	case graph.OpScale, graph.OpFill, graph.OpClamp, graph.OpSqr, graph.OpSqrt, graph.OpSin, graph.OpCos, graph.OpLog:
		return a.ContiguousRows() && float(a)
	case graph.OpUnary:
		return op.Sub <= graph.UnaryTrunc && a.ContiguousRows() && float(a)
	case graph.OpSiLUBack:
		return f32(a, b, op) && a.Contiguous() && b.Contiguous() && op.Contiguous() && a.SameShape(b)
	case graph.OpGLU:
		return op.Sub <= graph.GLUSwiGLUClamp && a.ContiguousFrom(1) && float(a)
	case graph.OpConcat:
		return a.Type == b.Type && a.Type == op.Type && oneOf(a.Type, formats.F32, formats.F16, formats.BF16, formats.I8,
			formats.I16, formats.I32, formats.I64, formats.Q4_0, formats.Q4_1, formats.Q5_0, formats.Q5_1, formats.Q8_0)
	case graph.OpAdd, graph.OpSub, graph.OpMul, graph.OpDiv, graph.OpAddID:
		return a.ContiguousRows() && b.ContiguousRows() && float(a) && a.Type == b.Type
	case graph.OpAcc:
		return a.ContiguousRows() && b.ContiguousRows() && f32(a)
	case graph.OpConvTranspose2D:
		return a.Contiguous() && b.Contiguous() && float(a) && f32(b, op)
	case graph.OpCol2im1D:
		return (float(a) || a.Type == formats.BF16) && op.Type == a.Type && a.Contiguous() && op.Contiguous()
	case graph.OpConv3D:
		return a.Contiguous() && b.Contiguous() && float(a) && f32(b)
	case graph.OpSum:
		return !o.NoReduction && a.Contiguous()
	case graph.OpTri:
		return a.ContiguousRows()
	case graph.OpSumRows, graph.OpCumsum, graph.OpMean, graph.OpSoftMax, graph.OpGroupNorm, graph.OpL2Norm, graph.OpNorm,
		graph.OpRMSNorm:
		return !o.NoReduction && a.ContiguousRows()
	case graph.OpCountEqual:
		return !o.NoReduction && a.Type == formats.I32 && b.Type == formats.I32 && op.Type == formats.I64
	case graph.OpArgmax, graph.OpSSMScan, graph.OpSSMConv, graph.OpOptStepAdamw, graph.OpOptStepSGD:
		return !o.NoReduction
	case graph.OpIm2col:
		return b.Contiguous() && f32(b) && float(op)
	case graph.OpConv2D:
		return a.Contiguous() && f32(b, op) && float(a)
	case graph.OpConv2DDw:
		return f32(b, op) && float(a)
	case graph.OpUpscale, graph.OpPool2D, graph.OpPadReflect1D, graph.OpTimestepEmbedding:
		return f32(a)
	case graph.OpPool1D:
		return a.Contiguous() && f32(a)
	case graph.OpPad:
		return op.Params == [6]int32{} // padding in front, or with repeated data, is not there
	case graph.OpLeakyReLU:
		return float(a)
	case graph.OpRoll:
		return a.Contiguous()
	case graph.OpFlashAttnExt:
		return !o.NoMatrix && metalAttends(op)
	case graph.OpLightningIndexer:
		k, w, m := b, op.Src[2], op.Src[3]
		return a.Ne[0] == 128 && a.Ne[1] == 64 && !o.NoMatrix && f32(a, w, op) && m.Type == formats.F16 &&
			a.ContiguousRows() && k.ContiguousRows() && w.ContiguousRows() && m.ContiguousRows() && keyType(k.Type)
	case graph.OpDSV4HCComb:
		c := op.Src[2]
		return !o.NoReduction && f32(a, b, c, op) && a.Ne[0] == 24 && b.Ne[0] >= 3 && c.Ne[0] == 24 && a.ContiguousRows() && b.ContiguousRows() && c.ContiguousRows()
	case graph.OpDSV4HCPre:
		return !o.NoReduction && f32(a, b, op) && a.ContiguousRows() && b.ContiguousRows()
	case graph.OpDSV4HCPost:
		c, d := op.Src[2], op.Src[3]
		return !o.NoReduction && f32(a, b, c, op) && b.Ne[1] == 4 && c.Ne[0] == 4 && a.ContiguousRows() && b.ContiguousRows() && c.ContiguousRows() &&
			(d == nil || f32(d) && d.Ne[0] == 4 && d.Ne[1] == 4 && d.ContiguousRows())
	case graph.OpGatedDeltaNet:
		return !o.NoReduction && op.Src[2].Ne[0]%32 == 0
	case graph.OpSolveTri:
		return !o.NoReduction && f32(a)
	case graph.OpMulMat, graph.OpMulMatID:
		return !o.NoReduction && o.multiplies(op)
	case graph.OpSet, graph.OpCpy, graph.OpDup, graph.OpCont:
		return metalCopies(a.Type, op.Type)
	case graph.OpGetRows:
		return !oneOf(a.Type, formats.NVFP4, formats.TQ1_0)
	case graph.OpSetRows:
		if a.Type == formats.F16 {
			return op.Type == formats.F16
		}
		return f32(a) && oneOf(op.Type, formats.F32, formats.F16, formats.BF16, formats.Q8_0, formats.Q4_0, formats.Q4_1,
			formats.Q5_0, formats.Q5_1, formats.IQ4_NL, formats.TQ2_0)
	case graph.OpNone, graph.OpReshape, graph.OpView, graph.OpTranspose, graph.OpPermute, graph.OpRepeat,
		graph.OpConvTranspose1D, graph.OpRope, graph.OpRopeBack, graph.OpArgsort, graph.OpTopK, graph.OpArange,
		graph.OpRWKVWKV6, graph.OpRWKVWKV7, graph.OpDiag:
		return true
	}
	return false
}

func metalAttends(op *graph.Tensor) bool {
	q, k, v := op.Src[0], op.Src[1], op.Src[2]
	switch q.Ne[0] {
	case 32, 40, 48, 64, 72, 80, 96, 112, 128, 192, 256, 320, 512, 576:
	default:
		return false
	}
	return (k.Ne[0] != 72 || v.Ne[0] == 72) && k.Ne[0] >= v.Ne[0] && k.Type == v.Type && keyType(k.Type)
}

// multiplies reports whether there is a kernel for a matrix product.
//
// Source: ggml/src/ggml-metal/ggml-metal-device.m@v0.5.0,
// ggml_metal_supports_mul_mat_op; ggml-metal-common.cpp,
// ggml_metal_op_mul_mat_use_mm, _id_use_mm and _use_fwht.
func (o MetalOptions) multiplies(op *graph.Tensor) bool {
	a, b := op.Src[0], op.Src[1]
	single := op.Op == graph.OpMulMat
	if single && a.Type == formats.F32 && b.Type == formats.F16 && op.Params[1] == hintHadamard && op.Type == formats.F32 &&
		b.Contiguous() && op.Contiguous() && b.SameShape(op) && slices.Contains([]int64{64, 128, 256, 512}, b.Ne[0]) {
		return true
	}
	if oneOf(a.Type, formats.NVFP4, formats.TQ1_0) {
		return false
	}
	if b.Type != formats.F16 {
		return true
	}
	if a.Type == formats.BF16 {
		return false
	}
	if single {
		return a.Type == formats.F16 || !a.Transposed() && !b.Transposed() && !o.NoMatrix && a.Ne[0] >= 64 && b.Ne[1] > 8
	}
	return !o.NoMatrix && a.Ne[0] >= 64 && op.Src[2].Ne[1] >= 32
}

func metalCopies(from, to formats.DType) bool {
	switch from {
	case formats.F32:
		return oneOf(to, formats.F32, formats.F16, formats.BF16, formats.Q8_0, formats.Q1_0, formats.Q2_0, formats.Q4_0,
			formats.Q4_1, formats.Q5_0, formats.Q5_1, formats.IQ4_NL, formats.TQ2_0, formats.I32)
	case formats.BF16:
		return oneOf(to, formats.F32, formats.BF16)
	case formats.F16, formats.Q1_0, formats.Q2_0, formats.Q4_0, formats.Q4_1, formats.Q5_0, formats.Q5_1, formats.Q8_0,
		formats.TQ2_0:
		return oneOf(to, formats.F32, formats.F16)
	case formats.I32:
		return oneOf(to, formats.F32, formats.I32)
	}
	return false
}
