package quant

import (
	"fmt"
	"strconv"
	"strings"

	"weigh/formats"
)

// A FileType is a type that llama-quantize can write, by the number that
// general.file_type holds.
//
// Source: include/llama.h@v0.5.0, enum llama_ftype; tools/quantize/quantize.cpp@v0.5.0, QUANT_OPTIONS.
type FileType uint32

// The file types of llama-quantize.
const (
	F32      FileType = 0
	F16      FileType = 1
	Q4_0     FileType = 2
	Q4_1     FileType = 3
	Q8_0     FileType = 7
	Q5_0     FileType = 8
	Q5_1     FileType = 9
	Q2_K     FileType = 10
	Q3_K_S   FileType = 11
	Q3_K_M   FileType = 12
	Q3_K_L   FileType = 13
	Q4_K_S   FileType = 14
	Q4_K_M   FileType = 15
	Q5_K_S   FileType = 16
	Q5_K_M   FileType = 17
	Q6_K     FileType = 18
	IQ2_XXS  FileType = 19
	IQ2_XS   FileType = 20
	Q2_K_S   FileType = 21
	IQ3_XS   FileType = 22
	IQ3_XXS  FileType = 23
	IQ1_S    FileType = 24
	IQ4_NL   FileType = 25
	IQ3_S    FileType = 26
	IQ3_M    FileType = 27
	IQ2_S    FileType = 28
	IQ2_M    FileType = 29
	IQ4_XS   FileType = 30
	IQ1_M    FileType = 31
	BF16     FileType = 32
	TQ1_0    FileType = 36
	TQ2_0    FileType = 37
	MXFP4MoE FileType = 38
	Q1_0     FileType = 40
	Q2_0     FileType = 41
)

// row is what a file type is called and the type of a tensor that no rule
// singles out.
type row struct {
	name string
	def  formats.DType
}

// rows is indexed by FileType; a row without a name is not a type that
// llama-quantize writes.
//
// Source: src/llama-quant.cpp@v0.5.0, llama_ftype_get_default_type.
var rows = [...]row{
	F32:      {"F32", formats.F32},
	F16:      {"F16", formats.F16},
	Q4_0:     {"Q4_0", formats.Q4_0},
	Q4_1:     {"Q4_1", formats.Q4_1},
	Q8_0:     {"Q8_0", formats.Q8_0},
	Q5_0:     {"Q5_0", formats.Q5_0},
	Q5_1:     {"Q5_1", formats.Q5_1},
	Q2_K:     {"Q2_K", formats.Q2_K},
	Q3_K_S:   {"Q3_K_S", formats.Q3_K},
	Q3_K_M:   {"Q3_K_M", formats.Q3_K},
	Q3_K_L:   {"Q3_K_L", formats.Q3_K},
	Q4_K_S:   {"Q4_K_S", formats.Q4_K},
	Q4_K_M:   {"Q4_K_M", formats.Q4_K},
	Q5_K_S:   {"Q5_K_S", formats.Q5_K},
	Q5_K_M:   {"Q5_K_M", formats.Q5_K},
	Q6_K:     {"Q6_K", formats.Q6_K},
	IQ2_XXS:  {"IQ2_XXS", formats.IQ2_XXS},
	IQ2_XS:   {"IQ2_XS", formats.IQ2_XS},
	Q2_K_S:   {"Q2_K_S", formats.Q2_K},
	IQ3_XS:   {"IQ3_XS", formats.IQ3_S},
	IQ3_XXS:  {"IQ3_XXS", formats.IQ3_XXS},
	IQ1_S:    {"IQ1_S", formats.IQ1_S},
	IQ4_NL:   {"IQ4_NL", formats.IQ4_NL},
	IQ3_S:    {"IQ3_S", formats.IQ3_S},
	IQ3_M:    {"IQ3_M", formats.IQ3_S},
	IQ2_S:    {"IQ2_S", formats.IQ2_XS},
	IQ2_M:    {"IQ2_M", formats.IQ2_S},
	IQ4_XS:   {"IQ4_XS", formats.IQ4_XS},
	IQ1_M:    {"IQ1_M", formats.IQ1_M},
	BF16:     {"BF16", formats.BF16},
	TQ1_0:    {"TQ1_0", formats.TQ1_0},
	TQ2_0:    {"TQ2_0", formats.TQ2_0},
	MXFP4MoE: {"MXFP4_MOE", formats.MXFP4},
	Q1_0:     {"Q1_0", formats.Q1_0},
	Q2_0:     {"Q2_0", formats.Q2_0},
}

// aliases are the names that llama-quantize takes for another type.
var aliases = map[string]FileType{"Q3_K": Q3_K_M, "Q4_K": Q4_K_M, "Q5_K": Q5_K_M}

// Valid reports whether llama-quantize writes the type.
func (t FileType) Valid() bool { return int(t) < len(rows) && rows[t].name != "" }

// String returns llama-quantize's name of the type, or "unknown(N)".
func (t FileType) String() string {
	if !t.Valid() {
		return fmt.Sprintf("unknown(%d)", uint32(t))
	}
	return rows[t].name
}

// FileTypes returns every type that llama-quantize writes, by its number.
func FileTypes() []FileType {
	var all []FileType
	for t := range FileType(len(rows)) {
		if t.Valid() {
			all = append(all, t)
		}
	}
	return all
}

// ParseFileType returns the type with the given name, in any case, alias
// (Q4_K for Q4_K_M) or number.
func ParseFileType(s string) (FileType, error) {
	name := strings.ToUpper(s)
	if t, ok := aliases[name]; ok {
		return t, nil
	}
	for _, t := range FileTypes() {
		if rows[t].name == name {
			return t, nil
		}
	}
	if n, err := strconv.ParseUint(s, 10, 32); err == nil && FileType(n).Valid() {
		return FileType(n), nil
	}
	return 0, fmt.Errorf("%q is not a type of llama-quantize: want one of %v", s, FileTypes())
}
