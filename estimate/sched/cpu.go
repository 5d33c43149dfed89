package sched

import (
	"weigh/formats"
	"weigh/inspect/graph"
)

// hostAlign is the alignment of tensors in host memory, bytes
// (ggml/src/ggml-impl.h@v0.5.0, TENSOR_ALIGNMENT).
const hostAlign = 32

// CPU returns the rules of ggml's CPU backend.
//
// Source: ggml/src/ggml-cpu/ggml-cpu.cpp@v0.5.0,
// ggml_backend_cpu_device_supports_op.
func CPU() Device {
	return Device{
		Name:     "CPU",
		Kind:     "CPU",
		Buffer:   BufferType{Name: "CPU", Align: hostAlign, Host: true},
		Supports: cpuSupports,
	}
}

// Repacked returns the CPU's memory for weights in the layout of its matrix
// kernels: set it as the Packed of [CPU]. Which weights go there is for the
// caller to say.
//
// Source: ggml/src/ggml-cpu/repack.cpp@v0.5.0, extra_buffer_type::supports_op.
func Repacked() *BufferType {
	return &BufferType{Name: "CPU_REPACK", Align: hostAlign, Runs: func(op *graph.Tensor) bool {
		return (op.Op == graph.OpMulMat || op.Op == graph.OpMulMatID) && op.Src[1].Type == formats.F32
	}}
}

func cpuSupports(op *graph.Tensor) bool {
	a, b := op.Src[0], op.Src[1]
	switch op.Op {
	case graph.OpCpy, graph.OpSetRows:
		switch op.Type {
		case formats.IQ3_XXS, formats.IQ3_S, formats.IQ2_XXS, formats.IQ2_XS, formats.IQ2_S, formats.IQ1_S, formats.IQ1_M:
			return false
		}
	case graph.OpMulMat:
		if op.Params[1] == hintHadamard && a.Type == formats.F32 && op.Type == formats.F32 {
			return b.Type == formats.F32 || b.Type == formats.F16
		}
		return b.Type == formats.F32 || b.Type == dotType(a.Type)
	case graph.OpSoftMaxBack:
		return a.Type == formats.F32 && b.Type == formats.F32 && op.Params[1] == 0
	case graph.OpIm2colBack:
		return a.Type == formats.F32 && float(b)
	case graph.OpGetRowsBack:
		return float(a)
	case graph.OpOutProd:
		return (a.Type == formats.F32 || (a.Type == formats.F16 || a.Type.Quantized()) && a.Ne[2] == b.Ne[2] && a.Ne[3] == b.Ne[3]) &&
			b.Type == formats.F32 && op.Type == formats.F32
	case graph.OpConv2D:
		return a.Contiguous()
	case graph.OpSSMScan:
		return op.Params[0] == 1 || op.Src[3].Ne[0] == 1
	}
	return true
}

// hintHadamard marks a matrix that a fast transform can replace
// (GGML_HINT_SRC0_IS_HADAMARD), in Params[1] of a matrix product.
const hintHadamard = 1

// dotType returns the type that a row of weights is multiplied with on the CPU.
//
// Source: ggml/src/ggml-cpu/ggml-cpu.c@v0.5.0, type_traits_cpu.
func dotType(t formats.DType) formats.DType {
	switch t {
	case formats.F32, formats.F16, formats.BF16:
		return t
	case formats.Q4_1, formats.Q5_1:
		return formats.Q8_1
	case formats.Q4_0, formats.Q5_0, formats.Q8_0, formats.IQ4_NL, formats.MXFP4, formats.NVFP4, formats.Q1_0, formats.Q2_0:
		return formats.Q8_0
	}
	return formats.Q8_K
}

// float reports whether t is in 32 or 16 bits, bfloat16 not counted.
func float(t *graph.Tensor) bool { return t.Type == formats.F32 || t.Type == formats.F16 }

// oneOf reports whether t is one of the types.
func oneOf(t formats.DType, types ...formats.DType) bool {
	for _, o := range types {
		if t == o {
			return true
		}
	}
	return false
}

// typeSize returns the bytes of a block of t.
func typeSize(t formats.DType) uint64 {
	_, b := t.Block()
	return b
}

// batch returns how many columns of input an operator has, which decides
// whether fetching its weights pays.
//
// Source: ggml/src/ggml-cuda/ggml-cuda.cu@v0.5.0, get_op_batch_size.
func batch(op *graph.Tensor) int64 {
	switch op.Op {
	case graph.OpGetRows:
		return 0
	case graph.OpMulMat:
		return op.Ne[1]
	case graph.OpMulMatID, graph.OpRope, graph.OpRopeBack:
		return op.Ne[2]
	}
	return op.Rows()
}

// offloadBatch is the batch from which weights are fetched (the default of
// GGML_OP_OFFLOAD_MIN_BATCH).
const offloadBatch = 32
