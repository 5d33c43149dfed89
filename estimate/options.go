// Package estimate computes what llama.cpp v0.5.0 allocates for a model with
// given settings: bytes for each device and kind of host memory, without a
// file, a driver or a GPU. It follows llama.cpp step by step (placement of
// weights, caches, worst-case graphs), so that its figures are the same to the
// byte where they are called exact.
//
// Stability: before version 1.0 of weigh a release may change what this package
// exports; the changelog names every such change. The figures are those of one
// release of llama.cpp and follow it when weigh does.
package estimate

import (
	"fmt"

	"weigh/estimate/hw"
	"weigh/formats"
	"weigh/inspect/arch"
	"weigh/inspect/model"
)

// SplitMode says how a model is spread over devices (enum llama_split_mode).
type SplitMode uint8

// The split modes.
const (
	SplitLayer SplitMode = iota
	SplitNone
	SplitRow
	SplitTensor
)

var splitNames = [...]string{"layer", "none", "row", "tensor"}

// String returns the mode as llama.cpp's flag spells it.
func (s SplitMode) String() string { return splitNames[s] }

// FlashAttn says whether flash attention is used (enum llama_flash_attn_type).
type FlashAttn uint8

// The choices of flash attention.
const (
	FlashAttnAuto FlashAttn = iota
	FlashAttnOn
	FlashAttnOff
)

// An Override sends the tensors whose names a pattern matches to a buffer type
// (--override-tensor). The first that matches a tensor's name counts.
type Override struct {
	Pattern string // regular expression, matched anywhere in the name
	Buffer  string // "CPU", "CUDA0", …
}

// CPUMoE returns the override of --cpu-moe: all experts stay on the CPU.
//
// Source: common/common.h@v0.5.0, LLM_FFN_EXPS_REGEX.
func CPUMoE() Override { return Override{`\.ffn_(up|down|gate|gate_up)_(ch|)exps`, "CPU"} }

// NCPUMoE returns the overrides of --n-cpu-moe n: the experts of the first n
// layers stay on the CPU.
func NCPUMoE(n int) []Override { return firstLayers(n, moePattern) }

// NCPUFFN returns the overrides of --n-cpu-ffn n: the dense feed-forward weights
// of the first n layers stay on the CPU.
func NCPUFFN(n int) []Override { return firstLayers(n, ffnPattern) }

// What --n-cpu-moe and --n-cpu-ffn name in each layer.
//
// Source: common/common.h@v0.5.0, LLM_FFN_EXPS_REGEX and LLM_FFN_DENSE_REGEX.
const (
	moePattern = `ffn_(up|down|gate|gate_up)_(ch|)exps`
	ffnPattern = `ffn_(up|down|gate)\.`
)

func firstLayers(n int, rest string) []Override {
	o := make([]Override, 0, max(n, 0))
	for i := range n {
		o = append(o, Override{layerPattern(i, rest), "CPU"})
	}
	return o
}

func layerPattern(il int, rest string) string { return fmt.Sprintf(`blk\.%d\.%s`, il, rest) }

// Options are llama-server's parameters as far as memory depends on them. The
// zero value is llama-server's default on a machine without a GPU.
type Options struct {
	Devices []hw.Device // GPUs in the order that llama.cpp lists them
	Spare   int         // GPUs at the end of Devices that only a draft or a projector may use
	Host    hw.Host
	Repack  Repack // weight layouts of the host's CPU backend

	NCtx                              int   // tokens of all sequences; 0: as trained
	NBatch                            int   // 0: 2048
	NUBatch                           int   // 0: 512; negative: NBatch
	NParallel                         int   // sequences; 0: 4 that share one cache
	KVUnified                         *bool // sequences share one cache; nil: when NParallel is 0
	NOutputs                          *int  // outputs of a batch that the graph is sized for (n_outputs_max); nil: as llama-server sets it; 0: NBatch
	NRsSeq                            int   // snapshots of recurrent state for speculative decoding
	FlashAttn                         FlashAttn
	TypeK                             *formats.DType // nil: F16
	TypeV                             *formats.DType
	NoKVOffload, NoOpOffload, SWAFull bool
	Embeddings                        bool
	Pooling                           *model.Pooling // nil: the model's

	NGPULayers  *int // layers on devices, the output layer counts; nil or negative: all
	SplitMode   SplitMode
	MainGPU     int       // device of SplitNone
	TensorSplit []float32 // shares of the devices; none or all zero: their free memory
	Overrides   []Override
	NoHost      bool // no pinned host memory
	NoRepack    bool // no repacked weights on the CPU
	MTP         bool // load the multi-token-prediction layers (load_mtp)
	MTPContext  bool // the context of a draft with those layers (ctx_type mtp)

	CacheRAM      *int        // limit of the host's prompt cache, MiB; nil: 8192; negative: none
	Checkpoints   *int        // most context checkpoints of a sequence; nil: 32
	NoMmap        bool        // weights are read into memory instead of mapped
	LoRA          []Companion // adapters
	ControlVector bool        // control vectors are loaded; any number takes the same memory
	MMProj        *Companion  // projector of images or audio
	MMProjDevice  *int        // index into Devices; nil: the first that is not integrated
	Draft         *Extra      // speculative draft; its context is the model's

	// Target is the model that a draft reads embeddings or caches of, and
	// TargetOptions what it runs with.
	Target        *model.Model
	TargetOptions *Options

	// Allocated asks for compute buffers as they are when memory is really
	// allocated, which llama.cpp's own measurement can exceed or miss by little.
	Allocated bool

	Explain bool // say what lay in each compute buffer at its peak
}

// An Extra is a second model, or a second context on the model's own weights,
// that drafts for it.
type Extra struct {
	Name    string
	Model   *model.Model
	Shares  bool // on the model's own weights (multi-token prediction)
	Options      // without Devices: the model's
}

// A RefusedError is a setting that llama.cpp refuses.
type RefusedError struct {
	Setting string // as the flag is spelled
	Why     string // what llama.cpp says, and what to do
}

func (e *RefusedError) Error() string { return e.Setting + ": " + e.Why }

// A ModelError is what of a model llama.cpp would refuse, or abort on: it
// contradicts itself, or holds what llama.cpp cannot take.
type ModelError struct {
	Tensor string // that it is about; "" for the graph as a whole
	Err    error
}

func (e *ModelError) Error() string {
	if e.Tensor == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("tensor %.80q: %v", e.Tensor, e.Err)
}

func (e *ModelError) Unwrap() error { return e.Err }

// A DraftError is an error about the model that drafts.
type DraftError struct{ Err error }

func (e *DraftError) Error() string { return "draft: " + e.Err.Error() }

func (e *DraftError) Unwrap() error { return e.Err }

func badTensor(name, format string, args ...any) error {
	return &ModelError{name, fmt.Errorf(format, args...)}
}

// NoContext is the error for a model that is to have the context it was trained
// with and does not say which.
func NoContext() error {
	return refuse("-c", "the trained context is not known: say how many tokens")
}

func refuse(setting, format string, args ...any) error {
	return &RefusedError{setting, fmt.Sprintf(format, args...)}
}

// Settings are the parameters that llama.cpp settles on.
type Settings struct {
	NCtx, NCtxSeq    int
	NBatch, NUBatch  int
	NParallel        int
	KVUnified        bool
	NOutputs         int
	NGPULayers       int // layers on devices, at most all and the output layer
	FlashAttn        bool
	FlashAttnAuto    bool // FlashAttn was llama.cpp's choice
	TypeK, TypeV     formats.DType
	Pipeline         bool // several micro-batches run at once on several devices
	Nodes, NodesTG   int  // nodes of the prompt's and of the generation graph
	Splits, SplitsTG int
	MemoryClass      string // of caches: "kv", "iswa", "hybrid", …; "none"
	LayersOn         []int  // layers on each device, the output layer counts
}

// maxSeq is the most sequences of a context (LLAMA_MAX_SEQ).
const maxSeq = 256

// maxTokens bounds token counts, so that sizes stay far below 64 bits.
const maxTokens = 1 << 28

// context settles the context's parameters.
//
// Source: src/llama-context.cpp@v0.5.0, llama_init_from_model and
// llama_context::llama_context.
func (o *Options) context(m *model.Model, row *arch.Arch) (*arch.Context, *Settings, error) {
	c := &arch.Context{
		NCtx: o.NCtx, NBatch: o.NBatch, NUBatch: o.NUBatch, NSeqMax: o.NParallel,
		OffloadKQV: !o.NoKVOffload, SWAFull: o.SWAFull, CausalAttn: m.CausalAttn,
		Embeddings: o.Embeddings, MTP: o.MTPContext,
		TypeK: formats.F16, TypeV: formats.F16, Pooling: m.Pooling, Target: o.Target,
	}
	if o.TypeK != nil {
		c.TypeK = *o.TypeK
	}
	if o.TypeV != nil {
		c.TypeV = *o.TypeV
	}
	if o.Pooling != nil {
		c.Pooling = *o.Pooling
	}
	if c.Pooling == model.PoolingUnspecified {
		c.Pooling = model.PoolingNone
	}
	if c.NSeqMax == 0 {
		c.NSeqMax, c.KVUnified = 4, true
	}
	if o.KVUnified != nil {
		c.KVUnified = *o.KVUnified
	}
	if c.NBatch == 0 {
		c.NBatch = 2048
	}
	switch {
	case c.NUBatch == 0:
		c.NUBatch = 512
	case c.NUBatch < 0:
		c.NUBatch = c.NBatch
	}
	if c.NCtx == 0 {
		if c.NCtx = m.NCtxTrain; c.NCtx == 0 {
			return nil, nil, NoContext()
		}
	}
	for _, v := range []struct {
		flag string
		n    int
	}{{"-c", c.NCtx}, {"-b", c.NBatch}, {"-ub", c.NUBatch}} {
		if v.n < 1 || v.n > maxTokens {
			return nil, nil, refuse(v.flag, "%d tokens, want 1 to %d", v.n, maxTokens)
		}
	}
	if c.NSeqMax < 0 || c.NSeqMax > maxSeq {
		return nil, nil, refuse("-np", "%d sequences, llama.cpp takes 1 to %d", c.NSeqMax, maxSeq)
	}
	if row.Rollback {
		c.NRsSeq = max(o.NRsSeq, 0)
	}
	s := &Settings{NParallel: c.NSeqMax, KVUnified: c.KVUnified}
	// llama-server takes the batch as it is asked for (server_output_limits).
	s.NOutputs = min(c.NSeqMax, c.NBatch)
	if o.Embeddings {
		s.NOutputs = c.NBatch
	}
	asked := c.NBatch
	if c.CausalAttn {
		c.NBatch = min(c.NBatch, c.NCtx)
	}
	c.NUBatch = min(c.NUBatch, c.NBatch)
	if o.NOutputs != nil {
		s.NOutputs = *o.NOutputs
	}
	if s.NOutputs <= 0 || row.Encoder {
		s.NOutputs = c.NBatch
	}
	if s.NOutputs < c.NSeqMax {
		setting := "n_outputs_max"
		switch s.NOutputs {
		case asked:
			setting = "-b"
		case c.NBatch: // cut to the context
			setting = "-c"
		}
		return nil, nil, refuse(setting, "%d outputs are fewer than the %d sequences: llama.cpp aborts (llama_context::output_reserve)", s.NOutputs, c.NSeqMax)
	}

	c.NCtx = pad(c.NCtx, 256)
	c.NCtxSeq = c.NCtx
	if !c.KVUnified {
		c.NCtxSeq = pad(c.NCtx/c.NSeqMax, 256)
		c.NCtx = c.NCtxSeq * c.NSeqMax
	}
	fa := o.FlashAttn
	if row.NoFlash {
		fa = FlashAttnOff
	}
	if (m.IsMLA() || row.SameKV) && c.TypeK != c.TypeV {
		return nil, nil, refuse("-ctk", "this model does not support different K (%v) and V (%v) cache types: give -ctk and -ctv the same type", c.TypeK, c.TypeV)
	}
	if c.TypeV.Quantized() {
		if fa == FlashAttnOff {
			return nil, nil, refuse("-ctv", "quantized V cache (%v) requires flash attention: use -fa on or -ctv f16", c.TypeV)
		}
		fa = FlashAttnOn
	}
	if fa != FlashAttnOff {
		for _, t := range []struct {
			flag string
			typ  formats.DType
			head func(int) int
		}{{"-ctk", c.TypeK, m.NEmbdHeadK}, {"-ctv", c.TypeV, m.NEmbdHeadV}} {
			e, _ := t.typ.Block()
			for il := 0; t.typ.Quantized() && il < m.NLayer(); il++ {
				if n := t.head(il); uint64(n)%e != 0 {
					return nil, nil, refuse(t.flag, "cache type %v has blocks of %d elements, which do not divide the head of %d of layer %d", t.typ, e, n, il)
				}
			}
		}
	}
	if o.MTPContext && (m.NLayerNext == 0 || m.RouterLayer >= 0) {
		return nil, nil, refuse("--spec-type", "the model has no multi-token-prediction layers")
	}
	c.FlashAttn = fa != FlashAttnOff
	c.VTrans = !c.FlashAttn
	s.NCtx, s.NCtxSeq, s.NBatch, s.NUBatch = c.NCtx, c.NCtxSeq, c.NBatch, c.NUBatch
	s.TypeK, s.TypeV = c.TypeK, c.TypeV
	s.FlashAttn, s.FlashAttnAuto = c.FlashAttn, fa == FlashAttnAuto
	return c, s, nil
}

func pad(n, to int) int { return (n + to - 1) / to * to }

// An override with its pattern compiled.
type override struct {
	*Pattern
	buffer int // index into sched.Config.Buffers
	cpu    bool
}
