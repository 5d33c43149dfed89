package training

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"
)

// add and mul saturate: what does not fit in 64 bits fits on no machine.
func add(a, b uint64) uint64 {
	sum, carry := bits.Add64(a, b, 0)
	if carry != 0 {
		return math.MaxUint64
	}
	return sum
}

func mul(factors ...uint64) uint64 {
	n := uint64(1)
	for _, f := range factors {
		hi, lo := bits.Mul64(n, f)
		if hi != 0 {
			return math.MaxUint64
		}
		n = lo
	}
	return n
}

func ceil(a, b uint64) uint64 {
	if a == 0 {
		return 0
	}
	return (a-1)/b + 1
}

// part is what of a model a tensor is.
type part uint8

const (
	vector    part = iota // norms, biases, scalars
	linear                // matrices of linear layers
	embedding             // token tables and the output matrix, which optimizers and quantizers spare
)

// A weight is a tensor that is trained or frozen, with the shape that optimizers
// see: count matrices of rows × columns.
type weight struct {
	name                 string
	part                 part
	elements             uint64
	rows, columns, count uint64
}

func newWeight(name string, shape []uint64) weight {
	w := weight{name: name, elements: mul(shape...), rows: 1, columns: 1, count: 1}
	for len(shape) > 1 && shape[len(shape)-1] == 1 {
		shape = shape[:len(shape)-1]
	}
	if len(shape) > 0 {
		w.columns = shape[0]
	}
	if len(shape) > 1 {
		w.rows, w.count = shape[1], mul(shape[2:]...)
	}
	switch {
	case strings.Contains(name, "token_embd.") || name == "output.weight" || strings.HasPrefix(name, "position_embd."):
		w.part = embedding
	case len(shape) > 1 && strings.HasSuffix(name, ".weight") && !strings.Contains(name, "conv1d") && !strings.Contains(name, "_norm."):
		w.part = linear
	}
	return w
}

// unit returns what of a name tells which unit FSDP wraps it in: its block, or
// the root.
func unit(name string) string {
	if rest, ok := strings.CutPrefix(name, "blk."); ok {
		n, _, _ := strings.Cut(rest, ".")
		return n
	}
	return ""
}

// widths are the bytes of a trained parameter's parts.
type widths struct{ weight, copies, gradient, master, state uint64 }

// table holds the bytes per trained parameter: with AdamW's two states they sum
// to 16, 18, 16 and 8.
//
// Source: arXiv 1910.02054 §3.1 (Mixed); Hugging Face transformers
// docs/source/en/model_memory_anatomy.md (Autocast); torch.optim.AdamW, whose
// states take the type of the parameter (FP32, BF16).
var table = map[Precision]widths{
	Mixed:    {weight: 2, gradient: 2, master: 4, state: 4},
	Autocast: {weight: 4, copies: 2, gradient: 4, state: 4},
	FP32:     {weight: 4, gradient: 4, state: 4},
	BF16:     {weight: 2, gradient: 2, state: 2},
}

// A builder collects the terms of one estimate.
type builder struct {
	m         *Model
	r         *Recipe
	e         *Estimate
	width     widths   // of trained parameters
	base      []weight // the model's weights
	adapters  []weight // what LoRA adds
	trained   []weight // adapters, or base
	frozen    []weight // base beside adapters
	units     uint64   // parameters of the largest unit that FSDP wraps
	perLayer  uint64   // adapted matrices of a layer
	modelSize uint64   // parameters of the model without adapters
}

func (b *builder) term(t Term) {
	if t.Bytes > 0 {
		b.e.Terms = append(b.e.Terms, t)
	}
}

// parameters sorts the model's weights into trained and frozen ones.
func (b *builder) parameters() error {
	b.width = table[b.r.Precision]
	if b.r.FP32Gradients {
		b.width.gradient = 4
	}
	perUnit := map[string]uint64{}
	for _, t := range b.m.Tensors {
		w := newWeight(t.Name, t.Shape)
		b.base = append(b.base, w)
		b.modelSize = add(b.modelSize, w.elements)
		perUnit[unit(w.name)] = add(perUnit[unit(w.name)], w.elements)
		b.e.largest = max(b.e.largest, w.elements)
	}
	for _, n := range perUnit {
		b.units = max(b.units, n)
	}
	if b.modelSize > 1<<56 {
		return fmt.Errorf("the model has more than 2^56 parameters")
	}
	b.trained = b.base
	b.e.Total = b.modelSize
	if b.r.Method != Full {
		b.frozen = b.base
		if err := b.adapt(); err != nil {
			return err
		}
		if len(b.adapters) == 0 {
			return fmt.Errorf("the model has no linear layers to adapt")
		}
		b.trained = b.adapters
		b.e.Total = add(b.e.Total, count(b.adapters))
		if b.r.Precision != BF16 {
			b.width = widths{weight: 4, gradient: 4, state: 4}
		}
	}
	b.e.Trainable = count(b.trained)
	return nil
}

func count(ws []weight) (n uint64) {
	for _, w := range ws {
		n = add(n, w.elements)
	}
	return n
}

// adapt adds the adapters: rank × (in + out) parameters to a matrix.
//
// Source: arXiv 2106.09685 §4.1; arXiv 2402.09353 §4 (magnitudes of DoRA).
func (b *builder) adapt() error {
	rank := uint64(b.r.Rank)
	layers := map[string]uint64{}
	hit := make([]bool, len(b.r.Targets))
	for _, w := range b.base {
		if w.part != linear || !b.targeted(w.name, hit) {
			continue
		}
		layers[unit(w.name)]++
		for _, shape := range [][]uint64{{w.columns, rank, w.count}, {rank, w.rows, w.count}} {
			b.adapters = append(b.adapters, newWeight(w.name, shape))
		}
		if b.r.DoRA {
			b.adapters = append(b.adapters, newWeight(w.name, []uint64{mul(w.rows, w.count)}))
		}
	}
	for _, n := range layers {
		b.perLayer = max(b.perLayer, n)
	}
	if i := slices.Index(hit, false); i >= 0 {
		return fmt.Errorf("no matrix of the model has %q in its name", b.r.Targets[i])
	}
	return nil
}

// allLinear is PEFT's name for every linear layer.
const allLinear = "all-linear"

// modules are Hugging Face's names of linear layers, and parts of the names that
// GGUF has for them.
var modules = map[string][]string{
	"q_proj": {"attn_q."}, "k_proj": {"attn_k."}, "v_proj": {"attn_v."}, "o_proj": {"attn_output."}, "qkv_proj": {"attn_qkv."},
	"q_a_proj": {"attn_q_a."}, "q_b_proj": {"attn_q_b."}, "kv_a_proj_with_mqa": {"attn_kv_a_mqa."}, "kv_b_proj": {"attn_kv_b.", "attn_k_b.", "attn_v_b."},
	"gate_proj": {"ffn_gate.", "ffn_gate_exps.", "ffn_gate_shexp."}, "up_proj": {"ffn_up.", "ffn_up_exps.", "ffn_up_shexp."},
	"down_proj": {"ffn_down.", "ffn_down_exps.", "ffn_down_shexp."}, "gate_up_proj": {"ffn_up.", "ffn_gate_up_exps."},
	"c_attn": {"attn_qkv."}, "query_key_value": {"attn_qkv."}, "in_proj": {"ssm_in."}, "out_proj": {"ssm_out."},
}

// targeted reports whether a matrix of that name is adapted, and marks in hit
// the targets that it answers to.
func (b *builder) targeted(name string, hit []bool) bool {
	found := len(b.r.Targets) == 0
	for i, t := range b.r.Targets {
		parts, ok := modules[t]
		if !ok {
			parts = []string{t}
		}
		if t == allLinear || slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(name, p) }) {
			hit[i], found = true, true
		}
	}
	return found
}

const sourceZeRO = "arXiv 1910.02054 §5 (ZeRO); deepspeed.readthedocs.io/en/stable/memory.html"

// place adds a term of bytes over all GPUs, divided among them when sharded,
// and on the host when offloaded.
func (b *builder) place(kind Kind, name string, bytes uint64, sharded, offloaded bool, formula, source string) {
	t := Term{Kind: kind, Name: name, Bytes: bytes, Formula: formula, Source: source}
	if n := b.r.shards(); sharded && n > 1 {
		t.Bytes = ceil(bytes, n)
		t.Formula += fmt.Sprintf(" ÷ %d GPUs", n)
		t.Source += "; " + sourceZeRO
	}
	if offloaded {
		t.Host = true
		if n := uint64(b.r.PerNode); n > 1 {
			t.Bytes = mul(t.Bytes, n)
			t.Formula += fmt.Sprintf(" × %d GPUs of a node", n)
		}
	}
	b.term(t)
}

func (b *builder) weights() {
	sharded, offloaded := b.r.shardsWeights(), b.r.Offload == OffloadAll
	if b.frozen != nil {
		b.frozenWeights(sharded, offloaded)
	}
	n, name := b.e.Trainable, "weights"
	if b.frozen != nil {
		name = "adapters"
	}
	b.place(Weights, name, mul(n, b.width.weight), sharded, offloaded,
		fmt.Sprintf("%d parameters × %d B", n, b.width.weight), b.sourceTable())
	b.place(Weights, "16-bit copy for autocast", mul(n, b.width.copies), sharded, false,
		fmt.Sprintf("%d parameters × %d B", n, b.width.copies), b.sourceTable())
}

func (b *builder) sourceTable() string {
	switch {
	case b.frozen != nil:
		return "peft LoraConfig, autocast_adapter_dtype"
	case b.r.Precision == Mixed:
		return "arXiv 1910.02054 §3.1"
	case b.r.Precision == Autocast:
		return "transformers, model_memory_anatomy.md"
	}
	return "torch.optim: states take the parameter's type"
}

// NF4's blocks: 64 elements share a 32-bit scale, or an 8-bit scale of which 256
// share a 32-bit one.
//
// Source: arXiv 2305.14314 §3; bitsandbytes, functional.quantize_4bit.
const (
	blockNF4  = 64
	blockNest = 256
)

func nf4Bytes(n uint64, double bool) uint64 {
	scales := ceil(n, blockNF4)
	if double {
		return add(ceil(n, 2), add(scales, mul(4, ceil(scales, blockNest))))
	}
	return add(ceil(n, 2), mul(4, scales))
}

func (b *builder) frozenWeights(sharded, offloaded bool) {
	if b.r.Method == LoRA {
		width := uint64(2)
		if b.r.Precision == FP32 {
			width = 4
		}
		b.place(Weights, "frozen weights", mul(b.modelSize, width), sharded, offloaded,
			fmt.Sprintf("%d parameters × %d B", b.modelSize, width), "arXiv 2106.09685 §4.2")
		return
	}
	var packed, quantized, largest, rest uint64
	for _, w := range b.frozen {
		if w.part != linear {
			rest = add(rest, w.elements)
			continue
		}
		quantized = add(quantized, w.elements)
		packed = add(packed, nf4Bytes(w.elements, !b.r.SingleQuant))
		largest = max(largest, mul(w.rows, w.columns))
	}
	scales := "½ B, a byte per 64 and 4 B per 16384"
	if b.r.SingleQuant {
		scales = "½ B and 4 B per 64"
	}
	b.place(Weights, "frozen 4-bit weights", packed, sharded, offloaded,
		fmt.Sprintf("%d parameters × (%s)", quantized, scales), "arXiv 2305.14314 §3; bitsandbytes functional.quantize_4bit")
	b.place(Weights, "frozen embeddings and norms", mul(2, rest), sharded, offloaded,
		fmt.Sprintf("%d parameters × 2 B", rest), "bitsandbytes: only linear layers are packed")
	b.place(Weights, "their cast to 32 bits", mul(2, rest), sharded, offloaded,
		fmt.Sprintf("%d parameters × 2 B more", rest), "peft prepare_model_for_kbit_training")
	b.term(Term{
		Kind: Overhead, Name: "one matrix dequantized", Bytes: mul(2, largest),
		Formula: fmt.Sprintf("%d elements × 2 B", largest), Source: "bitsandbytes autograd MatMul4Bit",
	})
}

// gradients are reduced in place and stay on the GPU until they move to the
// host's optimizer, which keeps its share in 32 bits.
func (b *builder) gradients() {
	n, width := b.e.Trainable, b.width.gradient
	offloaded := b.r.Offload != NoOffload && b.r.shardsGradients()
	if offloaded {
		width = 4
	}
	b.place(Gradients, "gradients", mul(n, width), b.r.shardsGradients(), offloaded,
		fmt.Sprintf("%d parameters × %d B", n, width), b.sourceTable())
}

// minEightBit is the fewest elements of a tensor whose states an 8-bit optimizer
// keeps in 8 bits, and block is how many share a 32-bit scale.
//
// Source: bitsandbytes, optim/optimizer.py (min_8bit_size) and functional.optimizer_update_8bit_blockwise.
const (
	minEightBit   = 4096
	blockEightBit = 256
)

// optimizer adds the states, and the master copy that a mixed recipe updates.
func (b *builder) optimizer() {
	offloaded := b.r.Offload != NoOffload
	sharded := b.r.Sharding != DDP
	n := b.e.Trainable
	b.place(States, "32-bit master copy", mul(n, b.width.master), sharded, offloaded,
		fmt.Sprintf("%d parameters × %d B", n, b.width.master), b.sourceTable())
	var bytes uint64
	for _, w := range b.trained {
		bytes = add(bytes, b.states(w))
	}
	b.place(States, string(b.r.Optimizer)+" states", bytes, sharded, offloaded, b.formulaStates(), sourceStates[b.r.Optimizer])
}

var sourceStates = map[Optimizer]string{
	AdamW:       "arXiv 1711.05101: two moments",
	AdamW8bit:   "arXiv 2110.02861; bitsandbytes functional.optimizer_update_8bit_blockwise",
	SGD:         "torch.optim.SGD: no state",
	SGDMomentum: "torch.optim.SGD: one momentum",
	Adafactor:   "arXiv 1804.04235 §3: a row and a column of second moments per matrix",
	Lion:        "arXiv 2302.06675: one momentum",
	Lion8bit:    "arXiv 2302.06675; bitsandbytes functional.optimizer_update_8bit_blockwise",
	Muon:        "torch.optim.Muon: one momentum per matrix, AdamW for the rest",
}

func (b *builder) formulaStates() string {
	n, s := b.e.Trainable, b.width.state
	switch b.r.Optimizer {
	case AdamW:
		return fmt.Sprintf("%d parameters × 2 × %d B", n, s)
	case AdamW8bit:
		return fmt.Sprintf("%d parameters × 2 × (1 B + 4 B per 256), 4 B each in tensors under 4096", n)
	case Lion8bit:
		return fmt.Sprintf("%d parameters × (1 B + 4 B per 256), 4 B each in tensors under 4096", n)
	case Adafactor:
		return "4 B × (rows + columns) of each matrix, 4 B × length of each vector"
	case Muon:
		return fmt.Sprintf("%d B per element of a matrix, 2 × %d B per other parameter", s, s)
	}
	return fmt.Sprintf("%d parameters × %d B", n, s)
}

// states returns the bytes of a weight's optimizer states.
func (b *builder) states(w weight) uint64 {
	n, s := w.elements, b.width.state
	switch b.r.Optimizer {
	case SGD:
		return 0
	case SGDMomentum, Lion:
		return mul(n, s)
	case AdamW8bit:
		return mul(2, eightBit(n))
	case Lion8bit:
		return eightBit(n)
	case Adafactor:
		if w.rows == 1 {
			return mul(4, n)
		}
		return mul(4, w.count, add(w.rows, w.columns))
	case Muon:
		if w.part == linear || w.part == vector && w.rows > 1 {
			return mul(n, s)
		}
	}
	return mul(2, n, s)
}

func eightBit(n uint64) uint64 {
	if n < minEightBit {
		return mul(4, n)
	}
	return add(n, mul(4, ceil(n, blockEightBit)))
}

// tokens is how many tokens a GPU takes in a step.
func (b *builder) tokens() uint64 { return mul(uint64(b.r.Batch), uint64(b.r.Sequence)) }

// compute is the bytes of an activation's element.
func (b *builder) compute() uint64 {
	if b.r.Precision == FP32 {
		return 4
	}
	return 2
}

// kept returns the bytes that a layer keeps until its backward pass: the inputs
// of both norms and of the projections, queries, keys, values and the attention's
// output, and of the feed-forward network the projections, the activation and
// the product.
//
// Source: arXiv 2205.05198 §4 (which counts a GELU network with dropout),
// redone for RMSNorm, SwiGLU and grouped queries; flash attention keeps a 32-bit
// sum per head and token (arXiv 2205.14135 alg. 1), eager attention the scores
// twice and their 32-bit softmax.
func (b *builder) kept(l Layer) uint64 {
	w, t := b.compute(), b.tokens()
	width := mul(4, uint64(b.m.Hidden)) + mul(2, uint64(l.Query)) + mul(2, uint64(l.KeyValue))
	inner := uint64(2)
	if l.Gated {
		inner = 4
	}
	width = add(width, mul(inner, uint64(l.FF)))
	width = add(width, mul(uint64(l.Experts), uint64(b.m.Hidden)))
	width = add(width, mul(b.perLayer, uint64(b.r.Rank)*min(1, b.perLayer)))
	n := mul(t, w, width)
	if b.r.EagerAttn {
		n = add(n, mul(uint64(l.Heads), t, uint64(b.r.Sequence), 2*w+4))
	} else {
		n = add(n, mul(4, uint64(l.Heads), t))
	}
	if !b.r.Fused {
		n = add(n, mul(8, uint64(b.m.Hidden), t))
	}
	return n
}

const sourceActivations = "arXiv 2205.05198 §4, redone for RMSNorm, SwiGLU and grouped queries"

func (b *builder) activations() {
	var all, largest uint64
	for _, l := range b.m.Layers {
		n := b.kept(l)
		all, largest = add(all, n), max(largest, n)
	}
	t, layers := b.tokens(), uint64(len(b.m.Layers))
	if !b.r.Checkpointing {
		b.term(Term{
			Kind: Activations, Name: "activations of all layers", Bytes: all,
			Formula: fmt.Sprintf("%d tokens × %d layers × %d B at most", t, layers, largest/max(t, 1)), Source: sourceActivations,
		})
		return
	}
	w := b.compute()
	b.term(Term{
		Kind: Activations, Name: "inputs of all layers", Bytes: mul(w, t, uint64(b.m.Hidden), layers),
		Formula: fmt.Sprintf("%d tokens × %d layers × %d × %d B", t, layers, b.m.Hidden, w), Source: "arXiv 2205.05198 §5 (full recomputation)",
	})
	b.term(Term{
		Kind: Activations, Name: "one layer computed again", Bytes: largest,
		Formula: fmt.Sprintf("%d tokens × %d B", t, largest/max(t, 1)), Source: sourceActivations,
	})
}

// logits adds the output's logits, their 32-bit copy, its softmax and gradient.
// Fused kernels take them in chunks of a power of two tokens.
//
// Source: transformers loss_utils.ForCausalLMLoss, torch cross_entropy;
// Liger-Kernel ops/fused_linear_cross_entropy.py.
func (b *builder) logits() {
	t, v, h := b.tokens(), uint64(b.m.Vocab), uint64(b.m.Hidden)
	source := "transformers loss_utils.ForCausalLMLoss: logits, 32-bit copy, softmax, gradient"
	if b.r.Fused && h > 0 && v > 0 && t > 0 {
		chunk := ceil(t, ceil(v, h))
		t = 1 << bits.Len64(chunk-1)
		source = "Liger-Kernel fused_linear_cross_entropy: one chunk of the logits"
	}
	b.term(Term{
		Kind: Logits, Name: "logits and their gradient", Bytes: mul(12, t, v),
		Formula: fmt.Sprintf("%d tokens × %d × 12 B", t, v), Source: source,
	})
}

// The buckets and limits that frameworks work with by default.
const (
	bucketElements = 500_000_000   // DeepSpeed reduce_bucket_size and allgather_bucket_size
	liveParameters = 1_000_000_000 // DeepSpeed stage3_max_live_parameters
)

// Overhead of the driver's context, NCCL and the allocator's fragmentation, as
// observed: from half to one and a half GB, and 5 to 10% of the rest.
const (
	contextLow, contextHigh         = 500_000_000, 1_500_000_000
	fragmentDivLow, fragmentDivHigh = 20, 10
)

func (b *builder) overhead() {
	b.communication()
	if b.r.Offload != NoOffload && b.r.deepSpeed() {
		b.term(Term{
			Kind: Overhead, Name: "host buffers", Bytes: b.e.PerNode() / 2, Host: true,
			Formula: "half of what is offloaded", Source: "DeepSpeed estimate_zero3_model_states_mem_needs: additional_buffer_factor 1.5",
		})
	}
	rest := b.e.PerGPU()
	b.e.OverheadLow = add(b.e.PerGPU(Overhead), add(contextLow, rest/fragmentDivLow))
	b.term(Term{
		Kind: Overhead, Name: "context, NCCL and fragmentation", Bytes: add(contextHigh, rest/fragmentDivHigh),
		Formula: "1.5 GB and 10% of the rest, the upper end of 0.5 to 1.5 GB and 5 to 10%", Source: "observed; modelled",
	})
}

// communication adds what moves between GPUs, or between a GPU and the host.
func (b *builder) communication() {
	n := b.e.Trainable
	width := b.width.weight
	switch {
	case b.r.deepSpeed():
		elements := min(bucketElements, n)
		b.term(Term{
			Kind: Overhead, Name: "communication bucket", Bytes: mul(elements, width),
			Formula: fmt.Sprintf("%d elements × %d B", elements, width), Source: "DeepSpeed reduce_bucket_size",
		})
		if b.r.Sharding == ZeRO3 {
			live := min(liveParameters, b.modelSize)
			b.term(Term{
				Kind: Overhead, Name: "gathered weights", Bytes: mul(live, b.gathered()),
				Formula: fmt.Sprintf("%d parameters × %d B", live, b.gathered()), Source: "DeepSpeed stage3_max_live_parameters",
			})
		}
	case b.r.shardsWeights() && b.r.Method == QLoRA:
		n := b.packedUnit()
		b.term(Term{
			Kind: Overhead, Name: "two gathered units", Bytes: mul(2, n),
			Formula: fmt.Sprintf("2 × %d B, packed", n), Source: "torch FSDP: the largest unit, and the next prefetched; bitsandbytes Params4bit, quant_storage",
		})
	case b.r.shardsWeights():
		b.term(Term{
			Kind: Overhead, Name: "two gathered units and a unit's gradients", Bytes: mul(b.units, add(mul(2, b.gathered()), b.unitGradient())),
			Formula: fmt.Sprintf("%d parameters × (2 × %d B + %d B)", b.units, b.gathered(), b.unitGradient()), Source: "torch FSDP: the largest unit, and the next prefetched",
		})
	case b.r.GPUs > 1 && b.r.Sharding == DDP:
		b.term(Term{
			Kind: Overhead, Name: "gradient buckets", Bytes: mul(n, b.width.gradient),
			Formula: fmt.Sprintf("%d parameters × %d B", n, b.width.gradient), Source: "torch DDP Reducer (gradient_as_bucket_view=False)",
		})
	}
}

// packedUnit returns the bytes of the largest unit of a model in 4 bits.
func (b *builder) packedUnit() (most uint64) {
	units := map[string]uint64{}
	for _, w := range b.frozen {
		n := mul(4, w.elements)
		if w.part == linear {
			n = nf4Bytes(w.elements, !b.r.SingleQuant)
		}
		units[unit(w.name)] = add(units[unit(w.name)], n)
	}
	for _, n := range units {
		most = max(most, n)
	}
	return most
}

// gathered is the bytes of a parameter while a layer's weights are whole.
func (b *builder) gathered() uint64 {
	switch {
	case b.frozen == nil:
		return b.width.weight
	case b.r.Method == LoRA && b.r.Precision == FP32:
		return 4
	}
	return 2
}

func (b *builder) unitGradient() uint64 {
	if b.frozen != nil {
		return 0
	}
	return b.width.gradient
}
