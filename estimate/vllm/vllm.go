// Package vllm computes what vLLM and transformers would hold on each GPU:
// weights under tensor and pipeline parallelism and the paged cache, which are
// exact, and what profiling leaves for activations, graphs and the driver, which
// is a range. It knows models by GGUF's tensor names.
package vllm

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"

	"weigh/formats"
)

// A Tensor is one weight as stored, its scales included.
type Tensor struct {
	Name  string        // as GGUF names it
	Type  formats.DType // element type; MXFP4 experts are padded
	Shape []uint64      // fastest dimension first, unquantized
	Bytes uint64
}

// A LayerKind is what a layer remembers of the tokens before.
type LayerKind string

// The kinds of layers.
const (
	FullAttention    LayerKind = "full"    // every token
	SlidingAttention LayerKind = "sliding" // the last Window tokens
	ChunkedAttention LayerKind = "chunked" // the tokens of one chunk of Window
	LatentAttention  LayerKind = "latent"  // every token, once for all heads (MLA)
	Recurrent        LayerKind = "state"   // a state of fixed size
	Stateless        LayerKind = ""        // nothing
)

// A Layer is one block of the model.
type Layer struct {
	Kind       LayerKind
	Window     int
	HeadsKV    int    // key and value heads; 1 for latent attention
	KeyDim     int    // of a key; the latent rank with the rotary part for latent attention
	ValueDim   int    // of a value; 0 for latent attention
	StateBytes uint64 // of one sequence's state, on all GPUs together
	IndexDim   int    // of the key by which an indexer picks the tokens to attend to; 0 without
}

// A Model is what of a model the engines' memory depends on.
type Model struct {
	Tensors       []Tensor
	Layers        []Layer
	Hidden        int
	FF            int // width of the widest feed-forward network that a token passes
	Vocab         int
	Heads         int
	Experts       int // per layer; 0 for a dense model
	ContextLength int // max_position_embeddings
	RotaryDim     int // rotated part of a head; 0 without rotary embedding
	Tied          bool
}

// A CacheType is the element type of the cache.
type CacheType string

// The types of the cache.
const (
	Auto         CacheType = "auto"               // 16 bits
	FP8          CacheType = "fp8"                // 8 bits
	PerTokenHead CacheType = "fp8_per_token_head" // 8 bits and a 32-bit scale per head, of keys and of values
	FP8DeepSeek  CacheType = "fp8_ds_mla"         // 656 bytes per token of a latent cache
	NVFP4        CacheType = "nvfp4"              // 4 bits and an 8-bit scale per 16
)

// Options are vLLM's settings. The zero value of a field is the default named in
// its comment.
type Options struct {
	TensorParallel   int       // GPUs that share each layer; 1
	PipelineParallel int       // groups of layers; 1
	ExpertParallel   bool      // whole experts on each GPU, not a share of all
	Utilization      float64   // --gpu-memory-utilization; 0.92
	MaxModelLen      int       // tokens of a sequence; the model's context length
	MaxNumSeqs       int       // sequences at once; 1024 on cards from 70 GiB, but for the A100, else 256
	MaxBatchedTokens int       // tokens of a step; 8192 on such cards, else 2048
	BlockSize        int       // tokens of a page; 16
	Cache            CacheType // Auto
}

// A GPU is the card, all of one kind.
type GPU struct {
	Total uint64
	Free  uint64 // 0: all of it
	A100  bool   // has the smaller defaults in spite of its size
}

const gib = 1 << 30

// DefaultUtilization is the part of a GPU that vLLM takes unless told otherwise.
const DefaultUtilization = 0.92

// withDefaults fills in vLLM's defaults for the card.
//
// Source: vllm/engine/arg_utils.py, EngineArgs.get_batch_defaults; vllm/config/cache.py, CacheConfig.
func (o Options) withDefaults(m *Model, g GPU) (Options, error) {
	seqs, tokens := 256, 2048
	if g.Total >= 70*gib && !g.A100 {
		seqs, tokens = 1024, 8192
	}
	for _, f := range []struct {
		field *int
		name  string
		def   int
	}{
		{&o.TensorParallel, "tensor parallel size", 1},
		{&o.PipelineParallel, "pipeline parallel size", 1},
		{&o.MaxModelLen, "max model len", max(m.ContextLength, 1)},
		{&o.MaxNumSeqs, "max num seqs", seqs},
		{&o.MaxBatchedTokens, "max num batched tokens", tokens},
		{&o.BlockSize, "block size", 16},
	} {
		if *f.field < 0 {
			return o, fmt.Errorf("%s %d is negative", f.name, *f.field)
		}
		if *f.field == 0 {
			*f.field = f.def
		}
	}
	if o.Utilization == 0 {
		o.Utilization = DefaultUtilization
	}
	if !(o.Utilization > 0 && o.Utilization <= 1) {
		return o, fmt.Errorf("gpu memory utilization %v is not above 0 and at most 1", o.Utilization)
	}
	if o.Cache == "" {
		o.Cache = Auto
	}
	switch o.Cache {
	case Auto, FP8, PerTokenHead, FP8DeepSeek, NVFP4:
	default:
		return o, fmt.Errorf("cache type %q is not one of %v", o.Cache, []CacheType{Auto, FP8, PerTokenHead, FP8DeepSeek, NVFP4})
	}
	if err := m.parallel(o.TensorParallel); err != nil {
		return o, err
	}
	if o.PipelineParallel > len(m.Layers) {
		return o, fmt.Errorf("%d layers do not divide into %d pipeline stages", len(m.Layers), o.PipelineParallel)
	}
	return o, nil
}

// parallel reports why a tensor parallel size does not suit the model.
//
// Source: vllm/config/model.py, verify_with_parallel_config; vllm/model_executor/layers/linear.py, QKVParallelLinear.
func (m *Model) parallel(tp int) error {
	if m.Heads%tp != 0 {
		return fmt.Errorf("%d attention heads do not divide among %d GPUs", m.Heads, tp)
	}
	for _, l := range m.Layers {
		if l.HeadsKV > 1 && l.HeadsKV%tp != 0 && tp%l.HeadsKV != 0 {
			return fmt.Errorf("%d key-value heads neither divide among %d GPUs nor repeat evenly", l.HeadsKV, tp)
		}
	}
	if m.FF%tp != 0 {
		return fmt.Errorf("a feed-forward width of %d does not divide among %d GPUs", m.FF, tp)
	}
	return nil
}

// TensorParallelSizes returns the sizes up to most that suit the model.
func (m *Model) TensorParallelSizes(most int) (sizes []int) {
	for tp := 1; tp <= most; tp++ {
		if m.parallel(tp) == nil {
			sizes = append(sizes, tp)
		}
	}
	return sizes
}

// A Term is one part of a GPU's memory. Low and High are equal when it is exact.
type Term struct {
	Name      string
	Low, High uint64
	Formula   string
	Source    string
}

// An Estimate is what each GPU holds, the fullest one's part where they differ.
type Estimate struct {
	Options Options // with vLLM's defaults filled in
	Terms   []Term  // weights, activations, graphs and driver
	// Budget is what vLLM may take of the card, all terms and the cache.
	Budget uint64
	// KV is what is left for the cache.
	KVLow, KVHigh uint64
	// PageBytes is a block of tokens in one layer, BlockLayers the layers that a
	// block spans, and Groups how many such groups a request takes blocks for.
	PageBytes   uint64
	BlockLayers int
	Groups      int
	// BlocksLow is for KVLow, BlocksHigh for KVHigh.
	BlocksLow, BlocksHigh uint64
	// RequestBlocks is what one sequence of MaxModelLen takes at most.
	RequestBlocks uint64
	// MaxLenLow is the longest sequence that fits in BlocksLow, at most the
	// model's context length; MaxLenHigh in BlocksHigh.
	MaxLenLow, MaxLenHigh int
}

// Fits reports whether one sequence of MaxModelLen surely fits.
func (e *Estimate) Fits() bool { return e.BlocksLow > 0 && e.RequestBlocks <= e.BlocksLow }

// TokensLow is how many tokens the cache surely holds, over all sequences, when
// every layer keeps them all.
//
// Source: vllm/v1/core/kv_cache_utils.py, "GPU KV cache size".
func (e *Estimate) TokensLow() uint64 {
	return mul(e.BlocksLow/uint64(max(e.Groups, 1)), uint64(e.Options.BlockSize))
}

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

func sub(a, b uint64) uint64 { return a - min(a, b) }

func ceil(a, b uint64) uint64 {
	if a == 0 {
		return 0
	}
	return (a-1)/b + 1
}

func roundUp(n, to uint64) uint64 { return mul(ceil(n, to), to) }

// New estimates vLLM on cards like g. It fails on settings that vLLM refuses.
func New(m Model, g GPU, o Options) (*Estimate, error) {
	o, err := o.withDefaults(&m, g)
	if err != nil {
		return nil, err
	}
	e := &Estimate{Options: o}
	e.Budget = uint64(float64(g.Total) * o.Utilization)
	if g.Free > 0 && g.Free < e.Budget {
		return nil, fmt.Errorf("%d bytes of %d are free, fewer than the %d that a utilization of %v asks for", g.Free, g.Total, e.Budget, o.Utilization)
	}
	e.Terms = []Term{m.weights(&o), m.padding(&o), m.absorbed(&o), m.rotary(), m.activations(&o), graphs(), driver(o.TensorParallel * o.PipelineParallel)}
	var low, high uint64
	for _, t := range e.Terms {
		low, high = add(low, t.Low), add(high, t.High)
	}
	e.KVLow, e.KVHigh = sub(e.Budget, high), sub(e.Budget, low)
	m.pages(e)
	return e, nil
}

// role returns a tensor's name without its layer.
func role(name string) string {
	if layerOf(name) < 0 {
		return name
	}
	_, rest, _ := strings.Cut(name[len("blk."):], ".")
	return rest
}

// layerOf returns the layer that a tensor's name puts it in, -1 for none.
func layerOf(name string) int {
	if rest, ok := strings.CutPrefix(name, "blk."); ok {
		digits, _, _ := strings.Cut(rest, ".")
		if n, err := strconv.Atoi(digits); err == nil && n >= 0 {
			return n
		}
	}
	return -1
}

// stages returns the first layer of each pipeline stage and, last, the number of
// layers: those that do not divide go to the stages before the last.
//
// Source: vllm/distributed/utils.py, get_pp_indices.
func stages(layers, pp int) []int {
	starts := make([]int, pp+1)
	extra := layers % pp
	for i := range pp {
		n := layers / pp
		if last := pp - 1 - i; last >= 1 && last <= extra {
			n++
		}
		starts[i+1] = starts[i] + n
	}
	return starts
}

// weights returns the bytes of the fullest GPU.
func (m *Model) weights(o *Options) Term {
	n := m.fullest(o, func(t *Tensor) uint64 { return m.share(t, o, padRows) })
	return Term{
		"weights", n, n,
		fmt.Sprintf("sharded ÷ %d, norms, routers and latent down-projections whole", o.TensorParallel),
		"vllm/model_executor/layers/{linear,vocab_parallel_embedding,fused_moe/layer}.py",
	}
}

// padding returns what MXFP4 experts take more where both their widths are
// padded.
func (m *Model) padding(o *Options) Term {
	n := m.fullest(o, func(t *Tensor) uint64 { return sub(m.share(t, o, padBoth), m.share(t, o, padRows)) })
	return Term{
		"MXFP4 padding", 0, n, "both widths padded to 256, on Blackwell and ROCm",
		"vllm/model_executor/layers/quantization/mxfp4.py, create_weights",
	}
}

// absorbed returns the copies in 16 bits that latent attention makes of packed
// up-projections, which it applies to queries and outputs.
func (m *Model) absorbed(o *Options) Term {
	n := m.fullest(o, func(t *Tensor) uint64 {
		n := mul(t.Shape...)
		if !hasPrefix(role(t.Name), latentUp) || t.Bytes >= mul(2, n) {
			return 0
		}
		return ceil(mul(2, n), uint64(o.TensorParallel))
	})
	return Term{
		"latent projections in 16 bits", n, n, "packed up-projections of keys and values, 2 B each",
		"vllm/model_executor/layers/attention/mla_attention.py, process_weights_after_loading",
	}
}

// fullest returns the bytes of the pipeline stage that holds most, by what each
// GPU holds of a tensor.
func (m *Model) fullest(o *Options, share func(*Tensor) uint64) (most uint64) {
	starts := stages(len(m.Layers), o.PipelineParallel)
	for stage := range o.PipelineParallel {
		var n uint64
		for i := range m.Tensors {
			if t := &m.Tensors[i]; m.onStage(t.Name, stage, o.PipelineParallel, starts) {
				n = add(n, share(t))
			}
		}
		most = max(most, n)
	}
	return most
}

// onStage reports whether a pipeline stage holds a tensor. The first has the
// embedding, the last the output; a tied embedding serves both.
func (m *Model) onStage(name string, stage, stages int, starts []int) bool {
	layer := layerOf(name)
	switch {
	case layer >= 0:
		return layer >= starts[stage] && layer < starts[stage+1]
	case name == "output.weight" && m.Tied:
		return false
	case strings.HasPrefix(name, "output"):
		return stage == stages-1
	case name == "token_embd.weight" && m.Tied:
		return stage == 0 || stage == stages-1
	}
	return stage == 0
}

// vocabPadding is what vLLM pads the vocabulary to before sharding it.
//
// Source: vllm/model_executor/layers/vocab_parallel_embedding.py, DEFAULT_VOCAB_PADDING_SIZE.
const vocabPadding = 64

// expertPadding is what a width of MXFP4 experts is padded to for the kernels.
// Measured with gpt-oss on Hopper: 6.3 to 6.7% more than stored, one width's.
const expertPadding = 256

// share returns the bytes of a tensor that each GPU holds, experts as pad has
// them.
func (m *Model) share(t *Tensor, o *Options, pad func(*Tensor) uint64) uint64 {
	tp, role := uint64(o.TensorParallel), role(t.Name)
	switch {
	case t.Name == "token_embd.weight" || t.Name == "output.weight" || t.Name == "per_layer_token_embd.weight":
		if len(t.Shape) < 2 || t.Shape[1] == 0 {
			return t.Bytes
		}
		padded := roundUp(t.Shape[1], vocabPadding)
		return ceil(mul(t.Bytes/t.Shape[1], padded), tp)
	case strings.Contains(role, "_exps."):
		n := pad(t)
		if o.ExpertParallel && m.Experts > 0 {
			return mul(ceil(n, uint64(m.Experts)), ceil(uint64(m.Experts), tp))
		}
		return ceil(n, tp)
	case hasPrefix(role, keyValue):
		kv := uint64(1)
		if l := layerOf(t.Name); l >= 0 && l < len(m.Layers) {
			kv = uint64(max(m.Layers[l].HeadsKV, 1))
		}
		return ceil(mul(t.Bytes, max(1, kv/tp)), kv)
	case hasPrefix(role, fused):
		return m.shareFused(t, tp)
	case hasPrefix(role, sharded):
		return ceil(t.Bytes, tp)
	}
	return t.Bytes
}

// The tensors that tensor parallelism divides, by the starts of their names in a
// layer: by key-value heads, by query heads and key-value heads, or evenly. All
// others are whole on every GPU, as are the biases of row-parallel layers.
var (
	keyValue = []string{"attn_k.", "attn_v."}
	fused    = []string{"attn_qkv."}
	latentUp = []string{"attn_kv_b.", "attn_k_b.", "attn_v_b."}
	sharded  = []string{
		"attn_q.", "attn_q_b.", "attn_kv_b.", "attn_k_b.", "attn_v_b.", "attn_output.weight", "attn_gate.", "attn_sinks.",
		"ffn_up.", "ffn_gate.", "ffn_down.weight", "ffn_up_shexp.", "ffn_gate_shexp.", "ffn_down_shexp.weight",
		"ssm_in.", "ssm_out.weight", "ssm_conv1d", "ssm_a", "ssm_d", "ssm_alpha.", "ssm_beta.", "ssm_ba.",
		"shortconv.in_proj.", "shortconv.out_proj.", "shortconv.conv.",
	}
)

func hasPrefix(name string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// shareFused divides queries by heads, and keys and values by their own.
func (m *Model) shareFused(t *Tensor, tp uint64) uint64 {
	l := layerOf(t.Name)
	if l < 0 || l >= len(m.Layers) || m.Layers[l].HeadsKV == 0 || m.Heads == 0 {
		return ceil(t.Bytes, tp)
	}
	kv, q := uint64(m.Layers[l].HeadsKV), uint64(m.Heads)
	local := q/tp + 2*max(1, kv/tp)
	return ceil(mul(t.Bytes, local), q+2*kv)
}

// padRows returns the bytes of MXFP4 experts with their own width padded: the
// rows of gate and up, the columns of down.
func padRows(t *Tensor) uint64 {
	if strings.Contains(t.Name, "ffn_down_") {
		return padDimension(t, t.Bytes, 0)
	}
	return padDimension(t, t.Bytes, 1)
}

// padBoth returns the bytes with the model's width padded too.
func padBoth(t *Tensor) uint64 { return padDimension(t, padDimension(t, t.Bytes, 0), 1) }

func padDimension(t *Tensor, bytes uint64, i int) uint64 {
	if t.Type != formats.MXFP4 || len(t.Shape) < 3 || t.Shape[i] == 0 {
		return bytes
	}
	return mul(ceil(bytes, t.Shape[i]), roundUp(t.Shape[i], expertPadding))
}

// rotary returns the table of cosines and sines, one on every GPU.
func (m *Model) rotary() Term {
	n := mul(uint64(max(m.ContextLength, 0)), uint64(max(m.RotaryDim, 0)), 2)
	return Term{
		"rotary table", n, n, fmt.Sprintf("%d positions × %d × 2 B", m.ContextLength, m.RotaryDim),
		"vllm/model_executor/layers/rotary_embedding/base.py, cos_sin_cache",
	}
}

// Bytes per sequence and word of the vocabulary that the dummy sampler run at
// start has been measured to leave as its peak: from 7.2 (vLLM after 0.11, 256
// sequences) and 17 to 39.6 (0.11, 1024 sequences).
const samplerLow, samplerHigh = 7, 40

// activations returns the peak of the profiling run: the sampler's logits in 32
// bits with their sorted copies, or the widest layer.
func (m *Model) activations(o *Options) Term {
	logits := mul(uint64(o.MaxNumSeqs), uint64(m.Vocab))
	layer := mul(uint64(o.MaxBatchedTokens), 2, add(mul(3, uint64(m.Hidden)), mul(3, ceil(uint64(m.FF), uint64(o.TensorParallel)))))
	return Term{
		"activations", max(mul(samplerLow, logits), layer), max(mul(samplerHigh, logits), mul(2, layer)),
		fmt.Sprintf("%d to %d B × %d sequences × %d words, or the widest layer of %d tokens", samplerLow, samplerHigh, o.MaxNumSeqs, m.Vocab, o.MaxBatchedTokens),
		"vllm/v1/worker/gpu_model_runner.py, profile_run; measured on 8 models",
	}
}

// graphs returns what CUDA graphs take, which profiling may not see.
func graphs() Term {
	return Term{"CUDA graphs", 0, 11 * gib / 10, "up to 1.1 GiB", "vllm/v1/worker/gpu_model_runner.py, capture_model; measured: none to 1.03 GiB"}
}

// driver returns what is taken outside of torch.
func driver(gpus int) Term {
	t := Term{"driver and NCCL", 12 * gib / 100, 25 * gib / 100, "0.12 to 0.25 GiB", "measured: 0.13 to 0.15 GiB on one GPU"}
	if gpus > 1 {
		t = Term{"driver and NCCL", 5 * gib / 10, 7 * gib / 10, "0.5 to 0.7 GiB", "measured: 0.54 to 0.6 GiB on two GPUs"}
	}
	return t
}
