// Package training computes the memory that fine-tuning a model takes on each
// GPU and on the host: weights, gradients, optimizer states, activations,
// logits and what the frameworks keep beside them. States follow from shapes and
// are exact for the recipe; activations and overhead are modelled, and each term
// says how.
package training

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// A Tensor is one weight of the model.
type Tensor struct {
	Name  string   // as GGUF names it
	Shape []uint64 // fastest dimension first, unquantized
}

// A Model is what of a model decides the memory of its training.
type Model struct {
	Tensors []Tensor
	Hidden  int // width of the residual stream (n_embd)
	Vocab   int // columns of the logits (n_vocab)
	Layers  []Layer
}

// A Layer is one block: what it keeps of every token until its backward pass.
type Layer struct {
	Query    int  // width of the queries of all heads; the inner width of a recurrent layer
	KeyValue int  // width of the keys, and of the values, of all heads
	Heads    int  // attention heads, each with its scores; 0 without attention
	FF       int  // width of the feed-forward network, summed over the experts that a token visits
	Gated    bool // gate and up projection, as in SwiGLU
	Experts  int  // routed experts that a token visits; 0 for a dense layer
}

// A Method is what is trained.
type Method string

// The methods.
const (
	Full  Method = "full"  // every weight
	LoRA  Method = "lora"  // adapters of low rank beside frozen 16-bit weights
	QLoRA Method = "qlora" // the same beside frozen 4-bit weights
)

// A Precision says in which types weights, gradients and states are kept.
type Precision string

// The precisions. With adapters they are the adapters' own: BF16 is 16 bits,
// the others 32.
const (
	Mixed    Precision = "mixed"    // 16-bit weights and gradients, a 32-bit master copy and 32-bit states
	Autocast Precision = "autocast" // 32-bit weights with a 16-bit copy, 32-bit gradients and states
	FP32     Precision = "fp32"     // everything in 32 bits
	BF16     Precision = "bf16"     // everything in 16 bits
)

// An Optimizer is a rule of update by the states it keeps.
type Optimizer string

// The optimizers.
const (
	AdamW       Optimizer = "adamw"
	AdamW8bit   Optimizer = "adamw-8bit"
	SGD         Optimizer = "sgd"
	SGDMomentum Optimizer = "sgd-momentum"
	Adafactor   Optimizer = "adafactor"
	Lion        Optimizer = "lion"
	Lion8bit    Optimizer = "lion-8bit"
	Muon        Optimizer = "muon"
)

// A Sharding says what is divided among the GPUs.
type Sharding string

// The shardings.
const (
	DDP         Sharding = "ddp"          // nothing: each GPU holds everything
	ZeRO1       Sharding = "zero1"        // optimizer states
	ZeRO2       Sharding = "zero2"        // and gradients
	ZeRO3       Sharding = "zero3"        // and weights
	FSDP        Sharding = "fsdp"         // as ZeRO3: FULL_SHARD
	FSDPGradOp  Sharding = "fsdp-grad-op" // as ZeRO2: SHARD_GRAD_OP
	HybridShard Sharding = "fsdp-hybrid"  // as FSDP, within each node
)

// An Offload says what is kept on the host.
type Offload string

// The offloads.
const (
	NoOffload        Offload = "none"
	OffloadOptimizer Offload = "optimizer" // optimizer states, and gradients once reduced
	OffloadAll       Offload = "all"       // and weights, which needs them sharded
)

// A Recipe says how a model is trained. The zero value of a field is the
// default named in its comment.
type Recipe struct {
	Method    Method    // Full
	Precision Precision // Mixed
	Optimizer Optimizer // AdamW
	Sharding  Sharding  // DDP
	Offload   Offload   // NoOffload
	GPUs      int       // over all nodes; 1
	PerNode   int       // GPUs of a node; GPUs
	Batch     int       // sequences per GPU and step; 1
	Sequence  int       // tokens per sequence; 2048

	Checkpointing bool // keep only each layer's input and compute the rest again
	EagerAttn     bool // attention that keeps its scores, not flash attention
	Fused         bool // fused norms, and logits in chunks (Liger kernels)
	FP32Gradients bool // accumulate 16-bit gradients in 32 bits

	Rank        int      // of the adapters; 16
	Targets     []string // matrices adapted, by parts of their names ("attn_q") or as PEFT names them ("q_proj"); all linear layers
	DoRA        bool     // adapters with a magnitude per output
	SingleQuant bool     // QLoRA without double quantization
}

// withDefaults returns the recipe with its defaults filled in, or what is wrong
// with it.
func (r Recipe) withDefaults() (Recipe, error) {
	for _, f := range []struct {
		field *int
		name  string
		def   int
	}{
		{&r.GPUs, "GPUs", 1},
		{&r.Batch, "batch", 1},
		{&r.Sequence, "sequence", 2048},
		{&r.Rank, "rank", 16},
	} {
		if *f.field < 0 {
			return r, fmt.Errorf("%s %d is negative", f.name, *f.field)
		}
		if *f.field == 0 {
			*f.field = f.def
		}
	}
	if r.PerNode == 0 {
		r.PerNode = r.GPUs
	}
	if r.PerNode < 0 || r.GPUs%r.PerNode != 0 {
		return r, fmt.Errorf("%d GPUs are no whole number of nodes of %d", r.GPUs, r.PerNode)
	}
	err := firstError(
		choice("method", &r.Method, Full, LoRA, QLoRA),
		choice("precision", &r.Precision, Mixed, Autocast, FP32, BF16),
		choice("optimizer", &r.Optimizer, AdamW, AdamW8bit, SGD, SGDMomentum, Adafactor, Lion, Lion8bit, Muon),
		choice("sharding", &r.Sharding, DDP, ZeRO1, ZeRO2, ZeRO3, FSDP, FSDPGradOp, HybridShard),
		choice("offload", &r.Offload, NoOffload, OffloadOptimizer, OffloadAll),
	)
	switch {
	case err != nil:
	case r.Offload == OffloadOptimizer && r.Sharding == DDP:
		err = fmt.Errorf("offload %q wants sharding: zero1 serves one GPU too", r.Offload)
	case r.Offload == OffloadOptimizer && !r.deepSpeed():
		err = fmt.Errorf("offload %q is DeepSpeed's: with %s it is all or none", r.Offload, r.Sharding)
	case r.Offload == OffloadAll && !r.shardsWeights():
		err = fmt.Errorf("offload %q wants the weights sharded: zero3 or fsdp, not %s", r.Offload, r.Sharding)
	}
	return r, err
}

// choice sets an empty field to the first of its values, and refuses one that
// is none of them.
func choice[T ~string](name string, field *T, values ...T) error {
	if *field == "" {
		*field = values[0]
	}
	if !slices.Contains(values, *field) {
		return fmt.Errorf("%s %q is not one of %v", name, *field, values)
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *Recipe) shardsWeights() bool {
	return r.Sharding == ZeRO3 || r.Sharding == FSDP || r.Sharding == HybridShard
}

func (r *Recipe) shardsGradients() bool {
	return r.shardsWeights() || r.Sharding == ZeRO2 || r.Sharding == FSDPGradOp
}

func (r *Recipe) deepSpeed() bool { return strings.HasPrefix(string(r.Sharding), "zero") }

// shards is the number of GPUs that what is sharded is divided among.
func (r *Recipe) shards() uint64 {
	if r.Sharding == HybridShard {
		return uint64(r.PerNode)
	}
	return uint64(r.GPUs)
}

// A Kind is what a term's memory is for.
type Kind string

// The kinds of terms.
const (
	Weights     Kind = "weights"
	Gradients   Kind = "gradients"
	States      Kind = "optimizer"
	Activations Kind = "activations"
	Logits      Kind = "logits"
	Overhead    Kind = "overhead"
)

// A Term is one addend of an estimate.
type Term struct {
	Kind    Kind
	Name    string // what is held
	Bytes   uint64 // per GPU, or per node when Host
	Host    bool   // in the host's memory
	Formula string // how Bytes came about, with the numbers in it
	Source  string // where the formula was read
}

// An Estimate is the memory that a recipe takes.
type Estimate struct {
	Recipe    Recipe // with its defaults filled in
	Trainable uint64 // parameters that are trained
	Total     uint64 // parameters of the model, adapters included
	Terms     []Term
	// OverheadLow is the overhead at the lower end of what has been observed;
	// the term of that name has the upper end.
	OverheadLow uint64

	largest uint64 // parameters of the largest tensor
}

// PerGPU returns the bytes that each GPU holds of the given kinds, of all kinds
// when none is given.
func (e *Estimate) PerGPU(kinds ...Kind) uint64 { return e.sum(false, kinds) }

// PerNode returns the bytes that each node's host holds.
func (e *Estimate) PerNode() uint64 { return e.sum(true, nil) }

func (e *Estimate) sum(host bool, kinds []Kind) (n uint64) {
	for _, t := range e.Terms {
		if t.Host == host && (len(kinds) == 0 || slices.Contains(kinds, t.Kind)) {
			n = add(n, t.Bytes)
		}
	}
	return n
}

// New estimates the memory of training m by recipe r. It fails on a recipe that
// no framework takes.
func New(m Model, r Recipe) (*Estimate, error) {
	r, err := r.withDefaults()
	if err != nil {
		return nil, err
	}
	b := builder{m: &m, r: &r, e: &Estimate{Recipe: r}}
	if err := b.parameters(); err != nil {
		return nil, err
	}
	b.weights()
	b.gradients()
	b.optimizer()
	b.activations()
	b.logits()
	b.overhead()
	return b.e, nil
}

// Fit returns the estimate with the largest batch, or the longest sequence, that
// keeps a GPU within perGPU bytes and a node's host within perNode; ok is false
// when not even one sequence, or one token, fits.
func Fit(m Model, r Recipe, perGPU, perNode uint64, vary Variable) (e *Estimate, ok bool, err error) {
	try := func(n int) (*Estimate, bool, error) {
		switch vary {
		case Batch:
			r.Batch = n
		case Sequence:
			r.Sequence = n
		}
		e, err := New(m, r)
		return e, err == nil && e.PerGPU() <= perGPU && e.PerNode() <= perNode, err
	}
	e, ok, err = try(1)
	if !ok {
		return e, false, err
	}
	low, high := 1, math.MaxInt32
	for high-low > 1 {
		mid := low + (high-low)/2
		next, fits, err := try(mid)
		if err != nil {
			return nil, false, err
		}
		if fits {
			low, e = mid, next
		} else {
			high = mid
		}
	}
	return e, true, nil
}

// A Variable is what Fit varies.
type Variable int

// The variables.
const (
	Batch Variable = iota
	Sequence
)
