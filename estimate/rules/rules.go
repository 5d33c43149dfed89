// Package rules computes what published rules of thumb and other calculators say
// of a model, as published, so that they can stand beside the exact figure. Its
// decimals are theirs.
package rules

import (
	"math"

	"weigh/formats"
)

// A Model is what the rules know of a model. What a model does not have is 0;
// the rules that need it then have no answer.
type Model struct {
	Parameters   uint64 // logical weights
	Bits         int    // nominal bits per weight: 4 for Q4_K_M and AWQ, 16 for BF16
	WeightBytes  uint64 // as stored
	FileBytes    uint64 // of the files, headers and vocabulary included; 0: WeightBytes
	GGUF         *GGUF  // what hf-mem reads of a GGUF; nil for safetensors
	Hidden       int    // n_embd
	FF           int    // n_ff
	Layers       int    // n_layer
	Heads        int    // n_head
	HeadsKV      int    // n_head_kv
	HeadDim      int    // of a key
	Vocab        int    // n_vocab
	FullLayers   int    // layers that a configuration calls full attention; 0: all
	States       int    // layers that keep a state instead of tokens
	Latent       bool   // keys and values are kept as one row for all heads
	Window       int    // sliding_window; 0: none
	OutputTensor uint64 // parameters of an output matrix apart from the token embedding
	LargestLayer uint64 // parameters of the largest block, or of the embedding when that is larger
}

// GGUF is what hf-mem reads of a GGUF file. It has no answer for heads that
// differ from layer to layer, nor for element types that it does not know.
type GGUF struct {
	Blocks      int    // block_count
	PerLayer    bool   // head_count or head_count_kv is a list
	WeightBytes uint64 // sum of HFMemBytes; 0 where it knows not all types
}

// A Run is how the model is run.
type Run struct {
	Context   int    // tokens of a sequence
	Batch     int    // sequences
	Ubatch    int    // tokens of a micro-batch
	CacheBits int    // of a cached element: 16, 8 or 4
	GPULayers int    // layers on the GPU, without the output
	GPUMemory uint64 // of the card; 0: unknown
	GPUUsed   uint64 // of that, already taken
}

// A Purpose is what a rule's figure is to be compared with.
type Purpose string

// The purposes.
const (
	Loading   Purpose = "weights"   // the weights alone
	Inference Purpose = "inference" // all that running takes
	Training  Purpose = "training"  // all that training every weight takes
)

// A Rule is a published rule of thumb.
type Rule struct {
	Name    string
	Source  string // where it is published
	Formula string
	Purpose Purpose
	// Bytes applies the rule; ok is false where it says nothing.
	Bytes func(Model, Run) (n uint64, ok bool)
	Why   string // how it differs from the exact figure
	Blind []Fact // what of a model it does not see; Reason says what that is
}

// GB and GiB are the units that the rules count in.
const (
	gb  = 1e9
	gib = 1 << 30
	mib = 1 << 20
)

// round returns x as bytes: the nearest integer, within what a uint64 holds.
func round(x float64) uint64 {
	switch {
	case !(x > 0):
		return 0
	case x >= math.MaxUint64:
		return math.MaxUint64
	}
	return uint64(math.Round(x))
}

// always makes the function of a rule that has an answer for every model whose
// parameters and bits are known.
func always(f func(m Model, r Run) float64) func(Model, Run) (uint64, bool) {
	return func(m Model, r Run) (uint64, bool) { return round(f(m, r)), m.Parameters > 0 && m.Bits > 0 }
}

// shaped makes the function of a rule that needs the widths of the model too.
func shaped(f func(m Model, r Run) float64) func(Model, Run) (uint64, bool) {
	return func(m Model, r Run) (uint64, bool) {
		ok := m.Parameters > 0 && m.Bits > 0 && m.Layers > 0 && m.Hidden > 0 && m.Heads > 0
		if !ok {
			return 0, false
		}
		return round(f(m, r)), true
	}
}

// file returns the size that rules go by which look at files.
func (m Model) file() float64 {
	if m.FileBytes > 0 {
		return float64(m.FileBytes)
	}
	return float64(m.WeightBytes)
}

// weights returns P × bits / 8.
func weights(m Model) float64 { return float64(m.Parameters) * float64(m.Bits) / 8 }

// atLeast returns the narrowest of the types that a rule knows, each given by its
// bits in rising order, that is no narrower than the model's; the widest when
// there is none.
func atLeast(m Model, known ...int) float64 {
	for _, bits := range known {
		if m.Bits <= bits {
			return float64(bits)
		}
	}
	return float64(known[len(known)-1])
}

// floating returns the bytes of an element under rules that know FP32 and FP16.
func floating(m Model) float64 { return atLeast(m, 16, 32) / 8 }

// cells returns layers × batch × tokens × hidden, of which the rules' caches and
// activations are multiples.
func cells(m Model, r Run) float64 {
	return float64(m.Layers) * float64(r.Batch) * float64(r.Context) * float64(m.Hidden)
}

// working returns cache and activations of the CPU and GPU formulas.
func working(m Model, r Run) float64 { return 3 * cells(m, r) * floating(m) }

// All are the rules, in the order in which they are shown.
var All = []Rule{
	{
		Name: "parameters × precision", Source: "common; the table of 1B to 70B", Formula: "P × bits ÷ 8", Purpose: Loading,
		Bytes: always(func(m Model, _ Run) float64 { return weights(m) }),
		Why:   "nominal bits: block scales and the tensors kept in more bits are not counted",
		Blind: []Fact{Bits},
	},
	{
		Name: "NVIDIA", Source: "NVIDIA, GPU memory essentials", Formula: "P × bytes × 2", Purpose: Inference,
		Bytes: always(func(m Model, _ Run) float64 { return 2 * weights(m) }),
		Why:   "doubles the weights for everything else, whatever the context",
		Blind: []Fact{Bits},
	},
	{
		Name: "20% overhead", Source: "common", Formula: "P × bits ÷ 8 × 1.2", Purpose: Inference,
		Bytes: always(func(m Model, _ Run) float64 { return 1.2 * weights(m) }),
		Why:   "a fifth for everything else, whatever the context; the cache alone can exceed it",
		Blind: []Fact{Bits},
	},
	{
		Name: "EleutherAI", Source: "blog.eleuther.ai/transformer-math", Formula: "weights × 1.2", Purpose: Inference,
		Bytes: func(m Model, _ Run) (uint64, bool) { return round(1.2 * float64(m.WeightBytes)), m.WeightBytes > 0 },
		Why:   "the weights are exact, the fifth for everything else is not",
	},
	{
		Name: "CPU memory", Source: "reference formula for FP32 and FP16", Formula: "(base + working + 50% of base) × 1.2; working = 3 × layers × batch × context × hidden × bytes", Purpose: Inference,
		Bytes: shaped(func(m Model, r Run) float64 {
			return 1.2 * (1.5*float64(m.Parameters)*floating(m) + working(m, r))
		}),
		Why:   "for FP32 and FP16 only: quantized weights count as FP16, and keys of grouped heads as if each head had its own",
		Blind: []Fact{Floats, Groups, Layers},
	},
	{
		Name: "GPU memory", Source: "reference formula for FP32 and FP16", Formula: "(base + 15% of base + working) × 1.2; working = 3 × layers × batch × context × hidden × bytes", Purpose: Inference,
		Bytes: shaped(func(m Model, r Run) float64 {
			return 1.2 * (1.15*float64(m.Parameters)*floating(m) + working(m, r))
		}),
		Why:   "for FP32 and FP16 only: quantized weights count as FP16, and keys of grouped heads as if each head had its own",
		Blind: []Fact{Floats, Groups, Layers},
	},
	{
		Name: "LM Studio, least", Source: "LM Studio, GPU offload", Formula: "P × bits ÷ 8 + 1 GB", Purpose: Inference,
		Bytes: always(func(m Model, _ Run) float64 { return weights(m) + 1*gb }),
		Why:   "nominal bits, and a constant for cache and buffers",
		Blind: []Fact{Bits},
	},
	{
		Name: "LM Studio, most", Source: "LM Studio, GPU offload", Formula: "P × bits ÷ 8 + 5 GB", Purpose: Inference,
		Bytes: always(func(m Model, _ Run) float64 { return weights(m) + 5*gb }),
		Why:   "nominal bits, and a constant for cache and buffers",
		Blind: []Fact{Bits},
	},
	{
		Name: "Accelerate, total", Source: "accelerate estimate-memory", Formula: "4 B × parameters without the output matrix ÷ 1, 2, 4 or 8", Purpose: Loading,
		Bytes: always(func(m Model, _ Run) float64 { return accelerate(m) * atLeast(m, 4, 8, 16, 32) / 32 }),
		Why:   "loads the base model without an untied output matrix; no block scales, cache or buffers",
		Blind: []Fact{Bits, Output},
	},
	{
		Name: "Accelerate, largest layer", Source: "accelerate estimate-memory", Formula: "4 B × parameters of the largest layer ÷ 1, 2, 4 or 8", Purpose: Loading,
		Bytes: func(m Model, _ Run) (uint64, bool) {
			return round(float64(m.LargestLayer) * atLeast(m, 4, 8, 16, 32) / 8), m.LargestLayer > 0 && m.Bits > 0
		},
		Why: "what offloading must hold at once, not what the model takes",
	},
	{
		Name: "can-it-run-llm", Source: "LLM.deploy(), Vokturz/can-it-run-llm", Formula: "4 B × P ÷ 1, 2, 4 or 8 × 1.2", Purpose: Inference,
		Bytes: always(func(m Model, _ Run) float64 { return 1.2 * float64(m.Parameters) * atLeast(m, 4, 8, 16, 32) / 8 }),
		Why:   "no context and no cache; a fifth for everything",
		Blind: []Fact{Bits},
	},
	{
		Name: "VRAM Estimator", Source: "vram.asmirnov.xyz, app/_lib/index.ts", Formula: "1000 MiB + 2 or 4 B × P + logits of all tokens + activations of one layer", Purpose: Inference,
		Bytes: shaped(asmirnov),
		Why:   "no cache and no quantization; a layer's scores grow with the square of the context, dropout masks included",
		Blind: []Fact{Floats},
	},
	{
		Name: "hf-mem", Source: "hf-mem --experimental", Formula: "weights + 2 × (full × context + sliding × window) × kv heads × head size × bytes × batch; of a GGUF: weights + 2 × blocks × kv heads × ⌊hidden ÷ heads⌋ × context × batch × bytes", Purpose: Inference,
		Bytes: hfMem,
		Why:   "no buffers; linear-attention layers count as sliding ones, or full ones without a window, and latent attention as ordinary; in a GGUF every layer is full and rounded bits stand for blocks",
		Blind: []Fact{Layers},
	},
	{
		Name: "oobabooga", Source: "oobabooga.github.io/blog/posts/gguf-vram-formula", Formula: "(MiB per layer − 18.0 + 3.149e-5 × kv heads × cache bits × context) × (layers + max(0.97, cache bits − ⌊50.8 × hidden ÷ context⌋ − 9.99)) + 1516.5", Purpose: Inference,
		Bytes: oobabooga,
		Why:   "a regression over measured loads, median error 365 MiB: head size, windows, latent attention and micro-batch are unknown to it",
		Blind: []Fact{Layers, HeadSize},
	},
	{
		Name: "oobabooga, 95%", Source: "oobabooga.github.io/blog/posts/gguf-vram-formula", Formula: "the same + 577 MiB", Purpose: Inference,
		Bytes: func(m Model, r Run) (uint64, bool) {
			n, ok := oobabooga(m, r)
			return round(float64(n) + 577*mib), ok
		},
		Why:   "the same with the margin under which 95% of its loads worked",
		Blind: []Fact{Layers, HeadSize},
	},
	{
		Name: "Ollama", Source: "ollama, PredictServerVRAM", Formula: "file + 2 × layers × kv heads × hidden ÷ heads × context × 2 B", Purpose: Inference,
		Bytes: shaped(func(m Model, r Run) float64 {
			return m.file() + 2*float64(m.Layers)*float64(m.HeadsKV)*float64(m.Hidden/m.Heads)*float64(r.Context)*2
		}),
		Why:   "no buffers; a head's size is taken for hidden ÷ heads, and every layer for full attention in F16",
		Blind: []Fact{Layers, HeadSize},
	},
	{
		Name: "KolosalAI", Source: "KolosalAI memory calculator", Formula: "file + cache + 0.02 GB per B parameters + 0.15 GB", Purpose: Inference,
		Bytes: shaped(func(m Model, r Run) float64 {
			return m.file() + cache(m, r, float64(r.Context)*float64(m.Layers)) + 0.02*float64(m.Parameters) + 0.15*gb
		}),
		Why:   "buffers by parameter count, and every layer as full attention",
		Blind: []Fact{Layers},
	},
	{
		Name: "llmfit", Source: "llmfit", Formula: "P × bytes by quantization + 2 × layers × kv heads × head size × context × bytes + 0.5 GB", Purpose: Inference,
		Bytes: shaped(func(m Model, r Run) float64 {
			return float64(m.Parameters)*llmfitBytes(m.Bits) + cache(m, r, float64(r.Context)*float64(m.Layers)) + 0.5*gb
		}),
		Why:   "an average size per quantization, and a constant for buffers",
		Blind: []Fact{Layers},
	},
	{
		Name: "whichllm", Source: "whichllm", Formula: "weights + 3.5 MiB × B parameters × context ÷ 1000 + 400 MB + 0.08 B × P + 150 MB per 4k of context", Purpose: Inference,
		Bytes: always(func(m Model, r Run) float64 {
			context := float64(r.Context)
			return float64(m.WeightBytes) + 3.5*mib*float64(m.Parameters)/1e9*context/1000 +
				400e6 + 0.08*float64(m.Parameters) + 150e6*context/4096
		}),
		Why: "cache and buffers by parameter count, whatever the heads",
	},
	{
		Name: "training, AdamW", Source: "common", Formula: "4 × P × bytes: weights, gradients and two moments", Purpose: Training,
		Bytes: training(4),
		Why:   "no activations, logits or master copy; not for quantized weights",
	},
	{
		Name: "training, SGD", Source: "common", Formula: "3 × P × bytes: weights, gradients and a momentum", Purpose: Training,
		Bytes: training(3),
		Why:   "no activations or logits; not for quantized weights",
	},
	{
		Name: "Accelerate, training", Source: "accelerate estimate-memory", Formula: "4 × total in FP32, 2 × the FP32 total in 16 bits", Purpose: Training,
		Bytes: func(m Model, _ Run) (uint64, bool) {
			if m.Parameters == 0 || m.Bits < 16 {
				return 0, false
			}
			return round(accelerate(m) * 4 * atLeast(m, 16, 32) / 32), true
		},
		Why:   "no activations or logits, the base model without an untied output matrix; prints its largest part, not the sum",
		Blind: []Fact{Output},
	},
	{
		Name: "can-it-run-llm, training", Source: "LLM.deploy(), Vokturz/can-it-run-llm", Formula: "4 × 4 B × P ÷ 1, 2, 4 or 8", Purpose: Training,
		Bytes: always(func(m Model, _ Run) float64 { return 4 * float64(m.Parameters) * atLeast(m, 4, 8, 16, 32) / 8 }),
		Why:   "no activations; quantized weights are taken to train in their own bits",
	},
	{
		Name: "VRAM Estimator, training", Source: "vram.asmirnov.xyz, app/_lib/index.ts", Formula: "1000 MiB + 6 or 4 B × P + gradients and two moments of 4 B × P + twice the logits + activations of every layer", Purpose: Training,
		Bytes: shaped(func(m Model, r Run) float64 { return asmirnovTraining(m, r) }),
		Why:   "eager attention's scores and dropout masks; gradients always in 32 bits",
	},
}

// training makes the function of a rule that multiplies floating weights.
func training(times float64) func(Model, Run) (uint64, bool) {
	return func(m Model, _ Run) (uint64, bool) {
		return round(times * weights(m)), m.Parameters > 0 && m.Bits >= 16
	}
}

// accelerate returns the bytes in FP32 of what AutoModel builds, which has no
// output matrix.
func accelerate(m Model) float64 {
	return 4 * float64(m.Parameters-min(m.OutputTensor, m.Parameters))
}

// cache returns the bytes of keys and values of so many cells of a layer.
func cache(m Model, r Run, cells float64) float64 {
	return 2 * cells * float64(r.Batch) * float64(m.HeadsKV) * float64(m.HeadDim) * float64(r.CacheBits) / 8
}

// hfMemBits are the bits per weight that hf-mem rounds or mistakes; it has the
// block's own for the other types.
//
// Source: hf-mem, gguf/types.py, GGUFDtypeBitsPerWeight.
var hfMemBits = map[formats.DType]float64{
	formats.Q8_K: 8.03125, formats.IQ3_S: 3.44, formats.IQ3_XXS: 3.06, formats.IQ2_XXS: 2.06,
	formats.IQ2_S: 2.5, formats.IQ2_XS: 2.31, formats.IQ1_S: 1.56,
}

// HFMemBytes returns what hf-mem takes so many elements of a GGUF's tensor for;
// ok is false for types that it does not know.
func HFMemBytes(t formats.DType, elements uint64) (n uint64, ok bool) {
	bits, ok := hfMemBits[t]
	if !ok {
		switch t {
		case formats.NVFP4, formats.Q1_0, formats.Q2_0:
			return 0, false
		}
		block, bytes := t.Block()
		if block == 0 || !t.GGML() {
			return 0, false
		}
		bits = 8 * float64(bytes) / float64(block)
	}
	return uint64(bits / 8 * float64(elements)), true
}

// hfMemGGUF takes every block for full attention, and a head for hidden ÷ heads.
func hfMemGGUF(m Model, r Run) (uint64, bool) {
	g := m.GGUF
	if g.WeightBytes == 0 || g.PerLayer || g.Blocks == 0 || m.Heads == 0 || m.HeadsKV == 0 {
		return 0, false
	}
	bits := float64(r.CacheBits)
	if r.CacheBits < 16 {
		bits += 0.5 // Q8_0, Q4_0
	}
	perToken := 2 * float64(g.Blocks) * float64(m.HeadsKV) * float64(m.Hidden/m.Heads)
	return round(float64(g.WeightBytes) + perToken*float64(r.Context)*float64(r.Batch)*bits/8), true
}

func hfMem(m Model, r Run) (uint64, bool) {
	if m.GGUF != nil {
		return hfMemGGUF(m, r)
	}
	if m.WeightBytes == 0 || m.Layers == 0 || m.HeadsKV == 0 || m.HeadDim == 0 {
		return 0, false
	}
	full, window := m.FullLayers, r.Context
	if full == 0 {
		full = m.Layers
	}
	if m.Window > 0 {
		window = min(m.Window, r.Context)
	}
	cells := float64(full)*float64(r.Context) + float64(m.Layers-full)*float64(window)
	return round(float64(m.WeightBytes) + cache(m, r, cells)), true
}

// oobabooga knows no more layers than the model has, and caches of 16, 8 and 4
// bits.
func oobabooga(m Model, r Run) (uint64, bool) {
	if m.WeightBytes == 0 || m.Layers == 0 || m.HeadsKV == 0 || r.Context == 0 {
		return 0, false
	}
	bits := 16.0
	if r.CacheBits == 8 || r.CacheBits == 4 {
		bits = float64(r.CacheBits)
	}
	perLayer := m.file() / mib / float64(m.Layers)
	perLayer += 3.148552680382576e-05*float64(m.HeadsKV)*bits*float64(r.Context) - 17.99552795246051
	more := bits - (math.Floor(50.77817218646521*float64(m.Hidden)/float64(r.Context)) + 9.987899908205632)
	layers := float64(min(r.GPULayers, m.Layers)) + max(0.9690636483914102, more)
	return round((perLayer*layers + 1516.522943869404) * mib), true
}

// llmfitBytes are its bytes per parameter.
func llmfitBytes(bits int) float64 {
	switch {
	case bits <= 2:
		return 0.37
	case bits == 3:
		return 0.48
	case bits == 4:
		return 0.58
	case bits == 5:
		return 0.68
	case bits == 6:
		return 0.80
	case bits <= 8:
		return 1.05
	}
	return float64(bits) / 8
}

// asmirnovLayer returns the activations of a layer, whose elements have width
// bytes and whose dropout masks have one.
func asmirnovLayer(m Model, r Run, width float64) float64 {
	b, s, h := float64(r.Batch), float64(r.Context), float64(m.Hidden)
	heads, kv := float64(m.Heads), float64(m.HeadsKV)
	head, scores := h/heads, b*heads*s*s
	attention := width*b*s*h + 2*width*b*s*head*heads + 2*width*b*s*head*kv + (2*width+1)*scores + b*s*h
	mlp := width*b*s*h + 2*width*b*s*float64(m.FF) + b*s*h
	return attention + mlp + 2*width*b*s*h
}

func asmirnov(m Model, r Run) float64 {
	width := floating(m)
	logits := 4 * float64(r.Batch) * float64(r.Context) * float64(m.Vocab)
	return 1000*mib + width*float64(m.Parameters) + logits + asmirnovLayer(m, r, width)
}

// asmirnovTraining is mixed training with Adam, or full for FP32 weights.
func asmirnovTraining(m Model, r Run) float64 {
	width, perParameter := 2.0, 6.0
	if m.Bits > 16 {
		width, perParameter = 4, 4
	}
	logits := 2 * 4 * float64(r.Batch) * float64(r.Context) * float64(m.Vocab)
	return 1000*mib + (perParameter+3*4)*float64(m.Parameters) + logits + float64(m.Layers)*asmirnovLayer(m, r, width)
}
