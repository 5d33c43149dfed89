package arch

import (
	"weigh/formats"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// GraphKind says which of an architecture's graphs is built.
type GraphKind uint8

// The kinds of graph (enum llm_graph_type).
const (
	GraphDefault GraphKind = iota
	GraphEncoder
	GraphDecoder
	GraphMTP // the NextN blocks of a multi-token-prediction context
)

// A Context holds the settings of one llama.cpp context that memory and graphs
// depend on (llama_cparams, after its constructor has settled them).
type Context struct {
	NCtx, NCtxSeq   int // cells in all, cells for each stream
	NBatch, NUBatch int
	NSeqMax         int
	NRsSeq          int // rollback snapshots of recurrent state
	KVUnified       bool
	FlashAttn       bool // what the graph uses
	VTrans          bool // the value cache is transposed: flash attention was off when the cache was made
	OffloadKQV      bool
	SWAFull         bool
	CausalAttn      bool
	Embeddings      bool
	MTP             bool // ctx_type mtp
	TypeK, TypeV    formats.DType
	Pooling         model.Pooling

	// Fused operators that llama.cpp falls back from when a backend lacks them.
	NoFusedHCPre, NoFusedHCComb, NoFusedHCPost bool

	// LoRA are the adapters in use, each by the name of the weight it adapts.
	LoRA []map[string]Adapter
	// ControlVector holds the buffer of each layer's control vector; layers
	// without one are negative. nil: none.
	ControlVector []int16

	// Target is the model that a draft context reads layers or caches of; nil
	// for none.
	Target *model.Model
	// TargetMemory is the memory of the target's context.
	TargetMemory *Memory
}

// An Adapter is a pair of matrices whose product is added to a weight
// (llama_adapter_lora_weight), both in buffer Buf.
type Adapter struct {
	A, B *model.Tensor
	Buf  int16
}

// A Batch is the shape of one micro-batch (llama_ubatch).
type Batch struct {
	NTokens    int // NSeqTokens·NSeqs
	NSeqTokens int
	NSeqs      int
	NOutputs   int
	Kind       GraphKind
}

// Placer answers where things live. The estimate implements it.
type Placer interface {
	// Weight returns the buffer of tensor i of the model. Layer is the layer
	// that uses it, for the few tensors that every device keeps a copy of:
	// NLayerAll is the output layer, -1 the input.
	Weight(i, layer int) int16
	// Cache returns the buffer of layer il's cache or state.
	Cache(il int) int16
	// TargetWeight is Weight for a tensor of the context's target model.
	TargetWeight(i, layer int) int16
	// TargetCache is Cache for a layer of the target's context.
	TargetCache(il int) int16
	// LayerBackend returns the backend of layer il's device.
	LayerBackend(il int) int8
	// CPU returns the CPU backend.
	CPU() int8
	// Supports reports whether a backend can run t.
	Supports(backend int8, t *graph.Tensor) bool
	// PinNorms reports whether norms are pinned to their layer's device for
	// batches of any size: every layer is offloaded.
	PinNorms() bool
}
