package rules

import "math"

// A Calculator is a line of the table that a calculator prints, bytes.
type Calculator struct {
	DType        string
	Bits         int
	LargestLayer uint64 // 0 where the calculator has none
	Total        uint64
	Inference    uint64 // 0 where the calculator has none
	Training     uint64 // with Adam; 0 where the calculator has none
}

var calculatorTypes = []Calculator{{DType: "float32", Bits: 32}, {DType: "float16/bfloat16", Bits: 16}, {DType: "int8", Bits: 8}, {DType: "int4", Bits: 4}}

// Accelerate is the table of accelerate estimate-memory.
//
// Source: accelerate, commands/estimate.py: total ÷ 1, 2, 4, 8; the largest part
// of training, 4 × in FP32, 2 × the FP32 total in 16 bits, none below.
func Accelerate(m Model) (rows []Calculator) {
	for _, c := range calculatorTypes {
		c.LargestLayer = round(float64(m.LargestLayer) * float64(c.Bits) / 8)
		c.Total = round(accelerate(m) * float64(c.Bits) / 32)
		if c.Bits >= 16 {
			c.Training = 4 * c.Total
		}
		rows = append(rows, c)
	}
	return rows
}

// CanItRun is the table of can-it-run-llm.
//
// Source: Vokturz/can-it-run-llm: total ÷ 1, 2, 4, 8; × 1.2 to run, × 4 to train.
func CanItRun(m Model) (rows []Calculator) {
	for _, c := range calculatorTypes {
		total := float64(m.Parameters) * float64(c.Bits) / 8
		c.Total, c.Inference, c.Training = round(total), round(1.2*total), round(4*total)
		rows = append(rows, c)
	}
	return rows
}

// LoRA returns can-it-run-llm's memory for training a share of the parameters,
// given in percent, as adapters beside the frozen model.
//
// Source: Vokturz/can-it-run-llm: (total GB + billions of parameters × share × 2 × 4) × 1.2.
func LoRA(m Model, percent float64) (uint64, bool) {
	if m.Parameters == 0 || m.Bits == 0 {
		return 0, false
	}
	total := float64(m.Parameters) * atLeast(m, 4, 8, 16, 32) / 8
	return round(1.2 * (total + float64(m.Parameters)*percent/100*2*4)), true
}

// GPUs returns how many cards of so much memory hold n bytes: can-it-run-llm's
// ceil(n ÷ memory). It is 0 for cards without memory.
func GPUs(n, memory uint64) int {
	if memory == 0 {
		return 0
	}
	count := n / memory
	if n%memory > 0 {
		count++
	}
	return int(min(count, math.MaxInt32))
}

// LMStudioLayers returns how many layers LM Studio's rule puts on a card: those
// whose share of P × bits ÷ 8 fits beside overhead, which it gives as 1 to 5 GB.
// The rest, and a copy of all, is in the system's memory.
func LMStudioLayers(m Model, r Run, overhead uint64) (layers int, ok bool) {
	if m.Layers == 0 || m.Parameters == 0 || m.Bits == 0 || r.GPUMemory == 0 {
		return 0, false
	}
	free := float64(r.GPUMemory) - float64(r.GPUUsed) - float64(overhead)
	return int(min(max(free, 0)/(weights(m)/float64(m.Layers)), float64(m.Layers))), true
}

// KoboldCppLayers returns how many layers KoboldCpp puts on a card: a ratio of
// its memory to the file's size, scaled by context, or to file and cache.
//
// Source: LostRuins/koboldcpp, koboldcpp.py of October 2024, autoset_gpu_layers.
func KoboldCppLayers(m Model, r Run) (layers int, ok bool) {
	if m.Layers == 0 || m.WeightBytes == 0 || r.GPUMemory == 0 {
		return 0, false
	}
	context := float64(r.Context)
	scale := 1.0
	switch {
	case r.Context >= 8192:
		scale = context / 4096
	case r.Context > 4096:
		scale = 1.8
	case r.Context > 2048:
		scale = 1.2
	}
	n, head := float64(m.Layers), float64(m.HeadDim)
	if m.HeadDim == 0 {
		head = 128
	}
	batches := 4.0
	if r.Ubatch > 512 {
		batches = float64(r.Ubatch) / 128
	}
	memory, used, size := float64(r.GPUMemory), float64(r.GPUUsed), m.file()
	ratio := (memory - used) / (size * scale * 1.55)
	if m.HeadsKV > 0 {
		reserved := max(1.5*gib, 0.5*gib+used)
		compute := n * batches * head * context * 4 * 1.5
		cache := n * float64(m.HeadsKV) * head * context * 4 * 1.1
		ratio = max(ratio, (memory-reserved-compute)/(size+cache))
	}
	return int(max(min(ratio*n, n+3), 0)), true
}

// A CardClass is what published advice runs on a card of so much memory.
type CardClass struct {
	GB         int
	Parameters uint64 // the largest model advised
	Advice     string
}

// CardClasses are the classes of cards, smallest first. The last has no largest
// model.
var CardClasses = []CardClass{
	{8, 1_500_000_000, "0.5B to 1.5B at INT8 or INT4"},
	{16, 7_000_000_000, "to 7B at INT8"},
	{24, 13_000_000_000, "to 13B at INT8"},
	{32, 33_000_000_000, "to 33B at INT8"},
	{48, 1<<64 - 1, "70B and above, on 48 GB and more"},
}

// ClassFor returns the smallest class of cards advised for so many parameters.
// Names round: a tenth over is still of the class.
func ClassFor(parameters uint64) CardClass {
	for _, c := range CardClasses {
		if parameters <= c.Parameters || parameters-c.Parameters <= c.Parameters/10 {
			return c
		}
	}
	return CardClasses[len(CardClasses)-1]
}

// WhenMemoryRunsOut is what published advice tries, in order.
var WhenMemoryRunsOut = []string{
	"stronger quantization",
	"a smaller batch",
	"gradient checkpointing, when training",
	"a smaller model",
	"a shorter input",
	"keeping half of the system's memory for everything else",
}

// A Precision is a number format as the rules name it.
type Precision struct {
	Name           string
	Elements, Size uint64 // so many elements in so many bytes
	Use            string
}

// PercentOfFP32 returns the size relative to FP32.
func (p Precision) PercentOfFP32() float64 { return float64(p.Size) * 100 / float64(4*p.Elements) }

// Precisions are the number formats of weights; llama.cpp's block types are in
// package formats.
var Precisions = []Precision{
	{"FP64", 1, 8, "scientific computing; no model needs it"},
	{"FP32", 1, 4, "training's master weights and optimizer states"},
	{"TF32", 1, 4, "matrix products of FP32 on tensor cores: 19 bits used, 32 stored"},
	{"BF16", 1, 2, "training and inference: FP32's range, 8 bits of precision"},
	{"FP16", 1, 2, "inference, and training with loss scaling: 11 bits of precision"},
	{"FP8 E4M3", 1, 1, "weights and activations, on Ada, Hopper and later"},
	{"FP8 E5M2", 1, 1, "gradients, on Hopper and later"},
	{"INT8", 1, 1, "weights, or weights and activations, with scales beside"},
	{"NVFP4", 16, 9, "weights on Blackwell: 4 bits and an FP8 scale per 16"},
	{"MXFP4", 32, 17, "weights of gpt-oss: 4 bits and a power of two per 32"},
	{"FP4", 2, 1, "4 bits without their scales"},
	{"INT4", 2, 1, "weights, with scales beside: GPTQ, AWQ, Q4"},
}

// A TableRow is a line of the table of parameters × precision: bytes of the
// weights alone.
type TableRow struct {
	Billions               int
	FP32, FP16, INT8, INT4 uint64
}

// Table is the table of parameters × precision, from 1B to 70B.
func Table() (rows []TableRow) {
	for _, billions := range []int{1, 2, 7, 13, 32, 70} {
		n := uint64(billions) * gb
		rows = append(rows, TableRow{billions, 4 * n, 2 * n, n, n / 2})
	}
	return rows
}
