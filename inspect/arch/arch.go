// Package arch is the table of architectures: how each one's metadata is read,
// what its layers keep in memory, and how its graph is wired. One file holds a
// family; adding an architecture touches one file.
//
// The builders stand here, beside the hyper-parameters they depend on, rather
// than in estimate: the two halves of an architecture change together.
package arch

import (
	"fmt"

	"weigh/inspect/model"
)

// MaxLayers is the most blocks that llama.cpp loads (LLAMA_MAX_LAYERS).
const MaxLayers = 512

// maxExperts is the most experts that it loads (LLAMA_MAX_EXPERTS).
const maxExperts = 1024

// Tie says what serves as the output matrix when the file has none.
type Tie uint8

// The ways of llama.cpp to do without output.weight.
const (
	TieCopy  Tie = iota // token_embd is loaded once more, where the output layer is (TENSOR_DUPLICATED)
	TieShare            // token_embd itself is used, wherever it is
	TieNone             // the architecture has no output matrix
	TieTwice            // TieCopy, but there are two even in one buffer: the copy is made first
	TieInput            // without token_embd, output.weight is loaded once more, where it is
)

// NextN says when an architecture's NextN blocks are loaded.
type NextN uint8

// The ways of llama.cpp with NextN blocks (TENSOR_SKIP in load_arch_tensors).
const (
	NextNMTP   NextN = iota // loaded for multi-token prediction only
	NextNNever              // never loaded
	NextNKeep               // always loaded
)

// nextNFFN are the feed-forward tensors of NextN blocks that some architectures
// load without multi-token prediction too.
var nextNFFN = []string{
	"ffn_gate", "ffn_down", "ffn_up", "ffn_gate_inp", "exp_probs_b", "ffn_gate_exps", "ffn_down_exps", "ffn_up_exps",
	"ffn_gate_up_exps", "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp", "nextn.embed_tokens", "nextn.shared_head_head",
	"nextn.shared_head_norm",
}

// A Quirk is a turn that llama.cpp's shared blocks take for few architectures
// only (the tests of "arch ==" in src/llama-graph.cpp@v0.5.0).
type Quirk struct {
	WeightBeforeFFN bool // expert weights are applied to the experts' input
	SelectLogits    bool // experts are chosen by the raw logits
	SelectSigmoid   bool // experts are chosen by the logits' sigmoid
	ExpertGroups    bool // chosen experts map to groups of adjugate experts
	ClampedSwiGLU   bool // one operator clamps and gates, in dense layers
	ClampedMoE      bool // the same in experts
	MoEDownF32      bool // the experts' down projection asks for an F32 operand
	ScoreTanh       bool // attention scores pass a tanh of their own
	RankMean        bool // reranking pools by the mean
	RankSoftmax     bool // reranking ends in a softmax
}

// A QuantQuirk is a turn that llama-quantize takes for few architectures only
// (the tests of "arch ==" in src/llama-quant.cpp@v0.5.0, the types that
// load_arch_hparams names).
type QuantQuirk struct {
	FewerBits    bool // outputs of attention and of feed-forward blocks get fewer bits, the output matrix Q8_0
	NamedExperts bool // experts are told by their names: other matrices have three dimensions too
	Layers70B    int  // a model of so many layers is of the 70B class; 0: none is
	Grouped70B   bool // it is only with fewer KV heads than heads, and not with 8 experts
}

// An Arch is one row of the table.
type Arch struct {
	Name      string         // value of general.architecture
	Rope      model.RopeType // unless Load sets another one
	Recurrent bool           // every layer is recurrent (llm_arch_is_recurrent)
	Hybrid    bool           // attention and recurrent layers (llm_arch_is_hybrid)
	NoMemory  bool           // neither cache nor state
	Rollback  bool           // the recurrent state supports partial rollback (llm_arch_supports_rs_rollback)
	Scan      bool           // ssm_a goes into a state-space scan (LLM_TENSOR_SSM_A, not _NOSCAN)
	Encoder   bool           // has an encoder pass of its own (llama_model_has_encoder)
	NoFlash   bool           // llama.cpp forces flash attention off
	OneSeq    bool           // one long sequence can take a larger graph than several short ones, and is reserved too
	EvenHeads bool           // keys, values and rotation must have one width
	SameKV    bool           // keys and values must be cached in one type; MLA implies it
	Tie       Tie
	NextN     NextN
	Always    []string // tensors of NextN blocks, without suffix, that are loaded in any case
	Needs     string   // keys beside those of all architectures that llama.cpp does not load it without
	Quirk     Quirk
	Quant     QuantQuirk

	// Load reads the hyper-parameters that the common ones do not cover.
	Load func(k *Keys, h *model.HParams)
	// Tensors asks for what llama.cpp's loader of the architecture asks for.
	Tensors func(w *wants)
	// Memory returns what a context keeps; nil stands for the default of the
	// architecture's kind.
	Memory func(m *model.Model, c *Context) *Memory
	// Build appends the graph of one micro-batch.
	Build func(b *Builder)
	// Skip reports further tensors of layer il that llama.cpp does not load for
	// this context kind; NextN already says what becomes of NextN blocks.
	Skip func(m *model.Model, name string, il int, mtp bool) bool
	// Layer overrides the layer that a tensor is placed with.
	Layer func(m *model.Model, name string, il int) int

	// Budget returns how many nodes llama.cpp sets aside room for: for each token
	// of a micro-batch and for each tensor of the model, whichever is more; nil
	// stands for 8 for each tensor and at least 1024
	// (llama_context::graph_max_nodes).
	Budget func(m *model.Model) (perToken, perTensor int)

	Source string // where the facts were read
}

var table = map[string]*Arch{}

// register adds rows; the families call it from their init.
func register(rows ...*Arch) struct{} {
	for _, r := range rows {
		if table[r.Name] != nil {
			panic("arch: two rows for " + r.Name)
		}
		table[r.Name] = r
	}
	return struct{}{}
}

// Lookup returns the row of an architecture, nil when there is none.
func Lookup(name string) *Arch { return table[name] }

// Names returns the architectures of the table, in no order.
func Names() []string {
	names := make([]string, 0, len(table))
	for n := range table {
		names = append(names, n)
	}
	return names
}

// Load turns what the files say into a model. An architecture without a row
// gets the common hyper-parameters and a note. Errors name the key.
//
// Source: src/llama-model.cpp@v0.5.0, llama_model_base::load_hparams.
func Load(src model.Source) (*model.Model, error) {
	m := &model.Model{Tensors: src.Tensors, Index: model.NewIndex(src.Tensors), Meta: src.Meta}
	k := &Keys{meta: src.Meta, index: m.Index}
	m.Arch = k.text("general.architecture")
	if m.Arch == "" {
		return nil, &KeyError{"general.architecture", "missing or not text: not a language model's file"}
	}
	k.arch = m.Arch
	m.Name = k.text("general.name")
	m.NVocab = vocabulary(k, src.Tensors)

	row := Row(m.Arch)
	if row == unknown {
		m.Notes = append(m.Notes, fmt.Sprintf("llama.cpp v0.5.0 has no architecture %.40q and does not load it: weights and caches are what its header shows at most", m.Arch))
		if name := k.borrowed(); name != "" {
			k.arch = name
			m.Notes = append(m.Notes, fmt.Sprintf("it has the keys of %s, which are read", name))
		}
	}
	h := &m.HParams
	common(k, h, row)
	if k.err == nil && row.Load != nil {
		row.Load(k, h)
	}
	if k.err == nil && row != unknown {
		row.refuse(k, h)
	}
	if k.err != nil {
		return nil, k.err
	}
	if h.MaxAlibiBias > 0 {
		h.UseAlibi = true
	}
	return m, nil
}

// vocabulary returns the number of tokens: the tokenizer's, or the rows of the
// embeddings.
func vocabulary(k *Keys, tensors []model.Tensor) int {
	if n := k.arrayLen("tokenizer.ggml.tokens"); n > 0 {
		return n
	}
	if v := k.Int("vocab_size", 0); v > 0 {
		return v
	}
	for i := range tensors {
		if t := &tensors[i]; t.Name == "token_embd.weight" && len(t.Shape) > 1 {
			return int(min(t.Shape[1], 1<<40))
		}
	}
	return 0
}

// common reads what load_hparams reads for every architecture.
func common(k *Keys, h *model.HParams, row *Arch) {
	h.RouterLayer, h.NLayerKVFromStart = -1, -1
	h.LogitSoftcap, h.RouterSoftcap, h.FinalSoftcap = 50, 30, 30
	h.TokenShiftCount = 2
	h.NNoRopeLayerStep = 4
	h.NAltup, h.LaurelRank, h.NEmbdAltup = 4, 64, 256
	h.NClsOut = 1
	h.ExpertGroupScale = 0.05
	h.Pooling = model.PoolingNone
	h.RopeType = row.Rope

	h.NCtxTrain = k.Need("context_length")
	h.NEmbd = k.Need("embedding_length")
	h.NEmbdOutImpl = k.Count("embedding_length_out", 0)
	h.CausalAttn = k.Bool("attention.causal", true)
	if v := k.Int("pooling_type", -2); v != -2 {
		h.Pooling = model.Pooling(v)
	}
	h.NLayerAll = k.Need("block_count")
	if k.err == nil && (h.NLayerAll < 1 || h.NLayerAll > MaxLayers) {
		k.fail("block_count", "%d layers, llama.cpp loads 1 to %d", h.NLayerAll, MaxLayers)
	}
	if k.err != nil {
		return
	}
	h.NLayerNext = k.Int("nextn_predict_layers", 0)
	if h.NLayerNext < 0 || h.NLayerNext > h.NLayerAll {
		k.fail("nextn_predict_layers", "%d of %d layers", h.NLayerNext, h.NLayerAll)
		return
	}
	h.NExpert = k.Count("expert_count", 0)
	h.NExpertGroups = k.Count("expert_group_count", 0)
	h.NGroupUsed = k.Count("expert_group_used_count", 0)

	h.Layers = make([]model.Layer, h.NLayerAll)
	used := k.counts("expert_used_count", h.NLayerAll)
	ff := k.counts("feed_forward_length", h.NLayerAll)
	heads := k.counts("attention.head_count", h.NLayerAll)
	kv := heads
	if k.Has("attention.head_count_kv") {
		kv = k.counts("attention.head_count_kv", h.NLayerAll)
	}
	for i := range h.Layers {
		h.Layers[i] = model.Layer{
			NExpertUsed: used[i], NFF: ff[i], NHead: heads[i], NHeadKV: kv[i],
			Recr: row.Recurrent, Deepstack: -1,
		}
	}

	h.NCtxOrigYarn = k.Int("rope.scaling.original_context_length", h.NCtxTrain)
	switch k.Str("rope.scaling.type", "linear") {
	case "longrope":
		h.RopeScalingLong = true
	case "yarn":
		h.RopeScalingYarn = true
	case "none", "linear":
	default:
		if row != unknown {
			k.fail("rope.scaling.type", "%.40q is none that llama.cpp knows", k.Str("rope.scaling.type", ""))
		}
	}
	h.RopeScalingAlpha = k.Float("rope.scaling.alpha", 0)
	h.RopeFreqScale = 1
	if f := k.Float("rope.scaling.factor", k.Float("rope.scale_linear", 0)); f != 0 {
		h.RopeFreqScale = 1 / f
	}

	headWidths(k, h)
	if n := k.arrayLen(k.arch + ".classifier.output_labels"); n > 0 {
		h.NClsOut = n
	}
}

// refuse rejects what llama.cpp's own checks reject, of counts that contradict
// each other.
//
// Source: src/llama-model.cpp@v0.5.0, load_hparams and create_memory; the graphs'
// n_embd_head == n_rot.
func (a *Arch) refuse(k *Keys, h *model.HParams) {
	used := 0
	for i := range h.Layers {
		used = max(used, h.NExpertUsed(i))
	}
	groups, n, d := h.NExpertGroups, h.NExpert, h.NEmbdHeadV(0)
	switch {
	case n > maxExperts:
		k.fail("expert_count", "%d experts, llama.cpp takes %d", n, maxExperts)
	case used > n:
		k.fail("expert_used_count", "%d of %d experts", used, n)
	case n > 0 && used == 0:
		k.fail("expert_used_count", "no layer uses any of %d experts", n)
	case groups > 0 && groups >= n, groups > 1 && n%groups != 0:
		k.fail("expert_group_count", "%d groups of %d experts", groups, n)
	case groups > 1 && (h.NGroupUsed < 1 || h.NGroupUsed >= groups):
		k.fail("expert_group_used_count", "%d of %d groups", h.NGroupUsed, groups)
	case a.EvenHeads && h.NEmbdHeadK(0) != d:
		k.fail("attention.key_length", "%d, llama.cpp wants the values' %d", h.NEmbdHeadK(0), d)
	case a.EvenHeads && h.NRot(0) != d:
		k.fail("rope.dimension_count", "%d, llama.cpp wants the head's %d", h.NRot(0), d)
	case h.SWAType != model.SWANone && !h.AnySWA() && a.Memory == nil && !a.Recurrent && !a.Hybrid && !a.NoMemory:
		k.fail("attention.sliding_window_pattern", "no layer has the window")
	}
}

// headWidths reads the widths of the heads, or splits the embedding's among
// them.
func headWidths(k *Keys, h *model.HParams) {
	if n := h.NHead(0); n > 0 {
		h.NEmbdHeadKFull = k.Int("attention.key_length", h.NEmbd/n)
		h.NEmbdHeadVFull = k.Int("attention.value_length", h.NEmbd/n)
		h.NRotFull = k.Int("rope.dimension_count", h.NEmbdHeadKFull)
	}
	h.NEmbdHeadKSWA = k.Int("attention.key_length_swa", h.NEmbdHeadKFull)
	h.NEmbdHeadVSWA = k.Int("attention.value_length_swa", h.NEmbdHeadVFull)
	h.NRotSWA = k.Int("rope.dimension_count_swa", h.NRotFull)
}
