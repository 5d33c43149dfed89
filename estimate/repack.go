package estimate

import (
	"weigh/formats"
	"weigh/inspect/graph"
)

// Repack says which weight layouts the host's CPU backend has: what its
// instruction set decides. The zero value is a 64-bit x86 with AVX2 and AVX-512.
type Repack uint8

// The kinds of CPU that repack differently.
const (
	RepackAVX512  Repack = iota // AVX2 and AVX-512
	RepackAVX2                  // AVX2 only
	RepackNone                  // older x86: nothing is repacked
	RepackI8MM                  // Arm with NEON and 8-bit matrix products
	RepackDotProd               // Arm with NEON and dot products
)

// packs reports whether weights that op reads are kept in another layout.
//
// Source: ggml/src/ggml-cpu/repack.cpp@v0.5.0,
// ggml_repack_get_optimal_repack_type and extra_buffer_type::supports_op.
func (r Repack) packs(op graph.Op, typ formats.DType, ne [4]int64) bool {
	matrix := ne[1] > 1 && ne[2] == 1 && ne[3] == 1
	experts := ne[2] > 1 && ne[3] == 1
	if !(op == graph.OpMulMat && matrix || op == graph.OpMulMatID && experts) {
		return false
	}
	by8, by4 := ne[1]%8 == 0, ne[1]%4 == 0
	avx2 := r == RepackAVX512 || r == RepackAVX2
	arm := r == RepackI8MM || r == RepackDotProd
	switch typ {
	case formats.Q4_0, formats.IQ4_NL, formats.MXFP4:
		return avx2 && by8 || arm && by4
	case formats.Q4_K:
		return (avx2 || arm) && by8
	case formats.Q2_K:
		return r == RepackAVX512 && by8
	case formats.Q5_K, formats.Q6_K:
		return arm && by8
	case formats.Q8_0, formats.Q1_0:
		return arm && by4
	}
	return false
}
