package formats

import (
	"fmt"
	"math/bits"
)

// A DType is an element type. Values below 64 are ggml's own numbers
// (ggml/include/ggml.h, enum ggml_type, at llama.cpp v0.5.0); the others exist
// in safetensors only. A type without a table row is unknown: its size is not.
type DType uint32

// The types of ggml, by their wire numbers.
const (
	F32     DType = 0
	F16     DType = 1
	Q4_0    DType = 2
	Q4_1    DType = 3
	Q5_0    DType = 6
	Q5_1    DType = 7
	Q8_0    DType = 8
	Q8_1    DType = 9
	Q2_K    DType = 10
	Q3_K    DType = 11
	Q4_K    DType = 12
	Q5_K    DType = 13
	Q6_K    DType = 14
	Q8_K    DType = 15
	IQ2_XXS DType = 16
	IQ2_XS  DType = 17
	IQ3_XXS DType = 18
	IQ1_S   DType = 19
	IQ4_NL  DType = 20
	IQ3_S   DType = 21
	IQ2_S   DType = 22
	IQ4_XS  DType = 23
	I8      DType = 24
	I16     DType = 25
	I32     DType = 26
	I64     DType = 27
	F64     DType = 28
	IQ1_M   DType = 29
	BF16    DType = 30
	TQ1_0   DType = 34
	TQ2_0   DType = 35
	MXFP4   DType = 39
	NVFP4   DType = 40
	Q1_0    DType = 41
	Q2_0    DType = 42
)

// The types that only safetensors has.
const (
	BOOL        DType = 64
	U8          DType = 65
	U16         DType = 66
	U32         DType = 67
	U64         DType = 68
	C64         DType = 69
	F4          DType = 70
	F6_E2M3     DType = 71
	F6_E3M2     DType = 72
	F8_E5M2     DType = 73
	F8_E4M3     DType = 74
	F8_E8M0     DType = 75
	F8_E4M3FNUZ DType = 76
	F8_E5M2FNUZ DType = 77
)

// maxGGML is one above the last type number that ggml knows.
const maxGGML = 43

// layout says that elems elements are stored in bytes bytes.
type layout struct {
	name  string
	elems uint32
	bytes uint32
}

var layouts = [...]layout{
	F32:         {"F32", 1, 4},
	F16:         {"F16", 1, 2},
	Q4_0:        {"Q4_0", 32, 18},
	Q4_1:        {"Q4_1", 32, 20},
	Q5_0:        {"Q5_0", 32, 22},
	Q5_1:        {"Q5_1", 32, 24},
	Q8_0:        {"Q8_0", 32, 34},
	Q8_1:        {"Q8_1", 32, 36},
	Q2_K:        {"Q2_K", 256, 84},
	Q3_K:        {"Q3_K", 256, 110},
	Q4_K:        {"Q4_K", 256, 144},
	Q5_K:        {"Q5_K", 256, 176},
	Q6_K:        {"Q6_K", 256, 210},
	Q8_K:        {"Q8_K", 256, 292},
	IQ2_XXS:     {"IQ2_XXS", 256, 66},
	IQ2_XS:      {"IQ2_XS", 256, 74},
	IQ3_XXS:     {"IQ3_XXS", 256, 98},
	IQ1_S:       {"IQ1_S", 256, 50},
	IQ4_NL:      {"IQ4_NL", 32, 18},
	IQ3_S:       {"IQ3_S", 256, 110},
	IQ2_S:       {"IQ2_S", 256, 82},
	IQ4_XS:      {"IQ4_XS", 256, 136},
	I8:          {"I8", 1, 1},
	I16:         {"I16", 1, 2},
	I32:         {"I32", 1, 4},
	I64:         {"I64", 1, 8},
	F64:         {"F64", 1, 8},
	IQ1_M:       {"IQ1_M", 256, 56},
	BF16:        {"BF16", 1, 2},
	TQ1_0:       {"TQ1_0", 256, 54},
	TQ2_0:       {"TQ2_0", 256, 66},
	MXFP4:       {"MXFP4", 32, 17},
	NVFP4:       {"NVFP4", 64, 36},
	Q1_0:        {"Q1_0", 128, 18},
	Q2_0:        {"Q2_0", 64, 18},
	BOOL:        {"BOOL", 1, 1},
	U8:          {"U8", 1, 1},
	U16:         {"U16", 1, 2},
	U32:         {"U32", 1, 4},
	U64:         {"U64", 1, 8},
	C64:         {"C64", 1, 8},
	F4:          {"F4", 2, 1},
	F6_E2M3:     {"F6_E2M3", 4, 3},
	F6_E3M2:     {"F6_E3M2", 4, 3},
	F8_E5M2:     {"F8_E5M2", 1, 1},
	F8_E4M3:     {"F8_E4M3", 1, 1},
	F8_E8M0:     {"F8_E8M0", 1, 1},
	F8_E4M3FNUZ: {"F8_E4M3FNUZ", 1, 1},
	F8_E5M2FNUZ: {"F8_E5M2FNUZ", 1, 1},
}

// Known reports whether the size of the type's elements is known.
func (t DType) Known() bool { return int(t) < len(layouts) && layouts[t].elems > 0 }

// GGML reports whether ggml has the type.
func (t DType) GGML() bool { return t < maxGGML && t.Known() }

// Quantized reports whether elements come in blocks with shared scales.
func (t DType) Quantized() bool { return t.GGML() && layouts[t].elems > 1 }

// String returns the type's name, or "unknown(N)".
func (t DType) String() string {
	if !t.Known() {
		return fmt.Sprintf("unknown(%d)", uint32(t))
	}
	return layouts[t].name
}

// Block returns how many elements a block holds and how many bytes it takes;
// 0, 0 for an unknown type.
func (t DType) Block() (elems, bytes uint64) {
	if !t.Known() {
		return 0, 0
	}
	return uint64(layouts[t].elems), uint64(layouts[t].bytes)
}

// RowBytes returns the bytes of n elements in a row, rounded up to whole
// blocks; 0 for an unknown type. It does not check for overflow: n is at most
// 2^56.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_row_size (which requires whole blocks).
func (t DType) RowBytes(n uint64) uint64 {
	if !t.Known() {
		return 0
	}
	e, b := uint64(layouts[t].elems), uint64(layouts[t].bytes)
	return (n + e - 1) / e * b
}

// Elements returns the product of the dimensions; ok is false when it does not
// fit in 63 bits. No dimensions are one element.
func Elements(shape []uint64) (n uint64, ok bool) {
	n = 1
	for _, d := range shape {
		hi, lo := bits.Mul64(n, d)
		if hi != 0 || lo > 1<<63-1 {
			return 0, false
		}
		n = lo
	}
	return n, true
}

// ParseDType returns the type with the given name; names are spelled as the
// formats spell them.
func ParseDType(name string) (DType, bool) {
	for i, l := range layouts {
		if l.elems > 0 && l.name == name {
			return DType(i), true
		}
	}
	return 0, false
}
