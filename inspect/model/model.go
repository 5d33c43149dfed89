// Package model is what a weight file says of its model, in plain data: the
// hyper-parameters, layer by layer, and the stored tensors. It reads nothing.
//
// Names follow llama.cpp (src/llama-hparams.h at v0.5.0), so that a figure can
// be traced to its source: NHeadKV is n_head_kv, NEmbdHeadK is n_embd_head_k.
package model

// A Model is one model, whatever files it came from.
type Model struct {
	Arch   string // general.architecture
	Name   string // general.name, or the file's name
	NVocab int    // tokens of the vocabulary
	HParams
	Tensors []Tensor
	Index   *Index // of Tensors, by name
	Meta    Meta
	Notes   []string // what a reader should know: unknown architecture, odd values …
}

// SWAType says how a sliding window masks.
type SWAType uint8

// The kinds of sliding window (enum llama_swa_type).
const (
	SWANone SWAType = iota
	SWAStandard
	SWAChunked
	SWASymmetric
)

// RopeType says how rotary positions pair the head's values; its numbers are
// ggml's modes.
type RopeType int8

// The kinds of rotary embedding (enum llama_rope_type).
const (
	RopeNone   RopeType = -1
	RopeNorm   RopeType = 0
	RopeNeoX   RopeType = 2
	RopeMRoPE  RopeType = 8
	RopeVision RopeType = 24
	RopeIMRoPE RopeType = 40
)

// Pooling says how the token embeddings of a sequence become one.
type Pooling int8

// The kinds of pooling (enum llama_pooling_type).
const (
	PoolingUnspecified Pooling = iota - 1
	PoolingNone
	PoolingMean
	PoolingCLS
	PoolingLast
	PoolingRank
)

// ExpertGating says how router logits become expert weights.
type ExpertGating uint8

// The gating functions (enum llama_expert_gating_func_type).
const (
	GatingNone ExpertGating = iota
	GatingSoftmax
	GatingSigmoid
	GatingSoftmaxWeight
	GatingSqrtSoftplus
)

// HParams are the hyper-parameters (llama_hparams). Widths and counts are in
// elements; 0 means absent unless a field says otherwise.
type HParams struct {
	NCtxTrain  int // tokens the model was trained on
	NEmbd      int // width of the residual stream
	NLayerAll  int // blocks in the file, NextN (multi-token prediction) blocks included
	NLayerNext int // NextN blocks, at the end

	RouterLayer        int // granite-switch: index of its router's KV layer, -1 for none
	NLayerKVFromStart  int // only the first so many layers keep a KV cache; -1 for all
	NExpert            int
	NRelAttnBkts       int
	NEmbdHeadKFull     int // key width of a head in full-attention layers
	NEmbdHeadVFull     int
	NEmbdHeadKSWA      int // the same in sliding-window layers
	NEmbdHeadVSWA      int
	NRotFull, NRotSWA  int // rotated dimensions of a head
	NEmbdHeadKMLA      int // MLA: key and value widths after decompression, 0 when not MLA
	NEmbdHeadVMLA      int
	NShortconvLCache   int
	NLayerDenseLead    int // leading dense layers of a mixture of experts
	NLoraQ, NLoraKV    int
	NFFShexp, NFFChexp int
	NExpertShared      int
	NNormGroups        int
	NExpertGroups      int
	NGroupUsed         int
	NGroupExperts      int
	NLoraKVSWA         int
	NEmbdHeadKMLASWA   int
	NEmbdHeadVMLASWA   int
	ExpertGroupScale   float32
	ExpertWeightsScale float32
	ExpertWeightsNorm  bool
	ExpertGating       ExpertGating
	MoEEveryNLayers    int
	MoELatentSize      int

	LogitSoftcap, RouterSoftcap, FinalSoftcap float32 // attention, router, output
	AttnSoftCap                               bool

	RescaleEveryNLayers int
	TimeMixExtraDim     int
	TimeDecayExtraDim   int
	WKVHeadSize         int
	TokenShiftCount     int
	NLoraDecay          int
	NLoraICLR           int
	NLoraValueResMix    int
	NLoraGate           int

	RopeType         RopeType
	RopeSections     [4]int
	RopeScalingLong  bool // rope scaling type longrope
	RopeScalingYarn  bool // rope scaling type yarn
	NCtxOrigYarn     int
	RopeFreqScale    float32 // 1/factor; 1 when unscaled
	RopeScalingAlpha float32

	SWAType SWAType
	NSWA    int // window, tokens

	SSMDConv, SSMDInner, SSMDState, SSMDtRank, SSMNGroup int
	SSMDtBCRMS                                           bool
	NEmbdHeadLA                                          int  // minimax-01 linear attention
	NEmbdHeadKDA                                         int  // Kimi delta attention
	KDAGateBound                                         bool // its decay has a lower bound
	NExpertLatent                                        int
	AttnResBlockSize                                     int
	SituLinearBeta                                       float32

	ClampKQV, MaxAlibiBias, LogitScale            float32
	ResidualScale, EmbeddingScale, AttentionScale float32
	AttnOutScale, AttnValueScale                  float32
	AttnTempLength                                int
	CausalAttn, UseAlibi, UseKQNorm, UseParRes    bool
	SwinNorm, NormBeforeResidual, NormBeforeFC    bool
	NormLayer                                     bool // layer norms where the family has RMS norms
	NClsOut                                       int
	NEmbdInpImpl, NEmbdInpEncImpl, NEmbdOutImpl   int
	NMoELayerStep, NNoRopeLayerStep               int
	AttnTempFloorScale                            int
	AttnTempScale                                 float32
	NAltup, IAltupAct, LaurelRank, NEmbdAltup     int
	IndexerNHead, IndexerHeadSize, IndexerTopK    int
	IndexerBlockSize, IndexerLocalBlocks          int
	DSV4OGroupCount, DSV4OLoraRank, DSV4HCMult    int
	DSV4HCSinkhornIters, DSV4HashLayerCount       int
	HCLowRank                                     int
	PLENgramSize, PLEHeadsPerNgram, PLEConvKernel int
	PLENHeads, PLEHeadDim                         int
	NDeepstackLayers, NEmbdPerLayer               int
	DecNLayer                                     int
	Pooling                                       Pooling
	NHRMLayersPerStack, NHRMHCycles, NHRMLCycles  int
	DflashBlockSize, DflashConvKernel             int
	DflashConvGroup                               int
	DflashSelectorRank, DflashSelectorTopK        int
	PosnetNEmbd, PosnetNLayer                     int
	ConvnextNEmbd, ConvnextNLayer                 int
	HiddenAct                                     string // <arch>.hidden_activation

	Layers []Layer // NLayerAll of them
}

// A Layer holds what may differ from block to block.
type Layer struct {
	NHead, NHeadKV   int
	NFF              int // dense feed-forward width
	NFFExp           int // width of one expert
	NExpertUsed      int
	SWA              bool // sliding-window attention
	Recr             bool // recurrent instead of attention
	NoRope           bool // positions are not rotated
	IndexerFull      bool // owns an indexer of its own
	PLE              bool
	Deepstack        int // input embedding injected here, -1 for none
	SwigluClampExp   float32
	SwigluClampShexp float32
	CompressRatio    int     // DeepSeek-V4 compressed attention
	XIELUAlphaN      float32 // present when not zero
}

// NLayer returns the blocks of the trunk, NextN blocks excluded.
func (h *HParams) NLayer() int { return h.NLayerAll - h.NLayerNext }

// NHead returns the query heads of layer il.
func (h *HParams) NHead(il int) int { return h.Layers[il].NHead }

// NHeadKV returns the key/value heads of layer il.
func (h *HParams) NHeadKV(il int) int { return h.Layers[il].NHeadKV }

// NFF returns the dense feed-forward width of layer il.
func (h *HParams) NFF(il int) int { return h.Layers[il].NFF }

// NFFExp returns the width of one expert of layer il.
func (h *HParams) NFFExp(il int) int { return h.Layers[il].NFFExp }

// NExpertUsed returns the experts that a token passes in layer il.
func (h *HParams) NExpertUsed(il int) int { return h.Layers[il].NExpertUsed }

// IsSWA reports whether layer il attends through the sliding window.
func (h *HParams) IsSWA(il int) bool { return h.Layers[il].SWA }

// IsRecr reports whether layer il is recurrent.
func (h *HParams) IsRecr(il int) bool { return h.Layers[il].Recr }

// NEmbdHeadK returns the key width of a head of layer il.
func (h *HParams) NEmbdHeadK(il int) int {
	if h.Layers[il].SWA {
		return h.NEmbdHeadKSWA
	}
	return h.NEmbdHeadKFull
}

// NEmbdHeadV returns the value width of a head of layer il.
func (h *HParams) NEmbdHeadV(il int) int {
	if h.Layers[il].SWA {
		return h.NEmbdHeadVSWA
	}
	return h.NEmbdHeadVFull
}

// NRot returns the rotated dimensions of a head of layer il.
func (h *HParams) NRot(il int) int {
	if h.Layers[il].SWA {
		return h.NRotSWA
	}
	return h.NRotFull
}

// NEmbdKGQA returns the key width of all KV heads of layer il.
func (h *HParams) NEmbdKGQA(il int) int { return h.NEmbdHeadK(il) * h.NHeadKV(il) }

// NEmbdVGQA returns the value width of all KV heads of layer il.
func (h *HParams) NEmbdVGQA(il int) int { return h.NEmbdHeadV(il) * h.NHeadKV(il) }

// NEmbdVGQAMax returns the widest NEmbdVGQA of all layers.
func (h *HParams) NEmbdVGQAMax() int {
	m := 0
	for il := range h.Layers {
		m = max(m, h.NEmbdVGQA(il))
	}
	return m
}

// VariableVGQA reports whether NEmbdVGQA differs between layers.
func (h *HParams) VariableVGQA() bool {
	for il := range h.Layers {
		if h.NEmbdVGQA(il) != h.NEmbdVGQA(0) {
			return true
		}
	}
	return false
}

// IsMLA reports whether the cache holds compressed keys that serve as values.
func (h *HParams) IsMLA() bool { return h.NEmbdHeadKMLA != 0 && h.NEmbdHeadVMLA != 0 }

// HeadKMLA returns the key width of a head after decompression.
func (h *HParams) HeadKMLA() int {
	if h.IsMLA() {
		return h.NEmbdHeadKMLA
	}
	return h.NEmbdHeadK(0)
}

// HeadVMLA returns the value width of a head after decompression.
func (h *HParams) HeadVMLA() int {
	if h.IsMLA() {
		return h.NEmbdHeadVMLA
	}
	return h.NEmbdHeadV(0)
}

// HasKV reports whether layer il keeps a KV cache of its own.
func (h *HParams) HasKV(il int) bool {
	return h.NLayerKVFromStart < 0 || il < h.NLayerKVFromStart
}

// AnySWA reports whether some layer attends through the sliding window.
func (h *HParams) AnySWA() bool {
	for i := range h.Layers {
		if h.Layers[i].SWA {
			return true
		}
	}
	return false
}

// NEmbdInp returns the width of the input embeddings, auxiliary ones included.
func (h *HParams) NEmbdInp() int {
	if h.NEmbdInpImpl > 0 {
		return h.NEmbdInpImpl
	}
	return h.NEmbd * (1 + h.NDeepstackLayers)
}

// NEmbdInpEnc returns the width of the encoder's input embeddings.
func (h *HParams) NEmbdInpEnc() int {
	if h.NEmbdInpEncImpl > 0 {
		return h.NEmbdInpEncImpl
	}
	return h.NEmbdInp()
}

// NEmbdOut returns the width of the output embeddings.
func (h *HParams) NEmbdOut() int {
	if h.NEmbdOutImpl > 0 {
		return h.NEmbdOutImpl
	}
	return h.NEmbd
}

// NPosPerEmbd returns the positions stored for each token.
func (h *HParams) NPosPerEmbd() int {
	if h.RopeType == RopeMRoPE || h.RopeType == RopeIMRoPE {
		return 4
	}
	return 1
}

// UseMRoPE reports whether the rotary sections ask for multi-axis positions.
func (h *HParams) UseMRoPE() bool { return h.RopeSections[0] > 0 && h.RopeSections[1] > 0 }

// NEmbdR returns the elements of a recurrent layer's rolling state for one
// sequence (convolution or token shift).
//
// Source: src/llama-hparams.cpp@v0.5.0, llama_hparams::n_embd_r.
func (h *HParams) NEmbdR() int {
	switch {
	case h.WKVHeadSize != 0:
		return h.TokenShiftCount * h.NEmbd
	case h.NShortconvLCache != 0:
		return h.NEmbd * (h.NShortconvLCache - 1)
	case h.NEmbdHeadKDA != 0:
		conv := 3
		if h.SSMDConv > 0 {
			conv = h.SSMDConv - 1
		}
		return 3 * conv * h.NHead(0) * h.NEmbdHeadKDA
	}
	return max(h.SSMDConv-1, 0) * (h.SSMDInner + 2*h.SSMNGroup*h.SSMDState)
}

// NEmbdS returns the elements of a recurrent layer's state for one sequence.
//
// Source: src/llama-hparams.cpp@v0.5.0, llama_hparams::n_embd_s.
func (h *HParams) NEmbdS() int {
	switch {
	case h.WKVHeadSize != 0:
		return h.NEmbd * h.WKVHeadSize
	case h.NEmbdHeadKDA != 0:
		return h.NEmbdHeadKDA * h.NEmbdHeadKDA * h.NHead(0)
	case h.NEmbdHeadLA != 0:
		return h.NEmbdHeadLA * h.NEmbdHeadLA * h.NHead(0)
	}
	return h.SSMDState * h.SSMDInner
}

// PLEConvState returns the elements of the per-layer embedding's convolution
// history for one sequence.
//
// Source: src/llama-hparams.cpp@v0.5.0, llama_hparams::ple_conv_state.
func (h *HParams) PLEConvState() int {
	if h.PLENHeads == 0 || h.PLEConvKernel == 0 {
		return 0
	}
	return (h.PLEConvKernel - 1) * h.PLENgramSize * h.DSV4HCMult * h.NEmbd
}

// SetSWAPattern gives every n-th trunk layer full attention and the others the
// window; n 0 gives all of them the window.
//
// Source: src/llama-hparams.cpp@v0.5.0, llama_hparams::set_swa_pattern.
func (h *HParams) SetSWAPattern(n int, denseFirst bool) {
	for il := range h.Layers {
		h.Layers[il].SWA = il < h.NLayer() && inPattern(il, n, denseFirst)
	}
}

// SetRecrPattern makes all but every n-th trunk layer recurrent.
//
// Source: src/llama-hparams.cpp@v0.5.0, llama_hparams::set_recr_pattern.
func (h *HParams) SetRecrPattern(n int, denseFirst bool) {
	for il := range h.Layers {
		h.Layers[il].Recr = il < h.NLayer() && inPattern(il, n, denseFirst)
	}
}

func inPattern(il, n int, denseFirst bool) bool {
	switch {
	case n == 0:
		return true
	case denseFirst:
		return il%n != 0
	}
	return il%n < n-1
}
