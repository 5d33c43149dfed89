package vllm_test

import (
	"fmt"

	"weigh/estimate/vllm"
	"weigh/formats"
)

// The cache that two layers of eight key-value heads leave room for on a card
// of 8 GiB.
func ExampleNew() {
	attention := vllm.Layer{Kind: vllm.FullAttention, HeadsKV: 8, KeyDim: 128, ValueDim: 128}
	m := vllm.Model{
		Hidden: 1024, FF: 4096, Vocab: 32000, Heads: 16, ContextLength: 4096,
		Layers:  []vllm.Layer{attention, attention},
		Tensors: []vllm.Tensor{{Name: "token_embd.weight", Type: formats.BF16, Shape: []uint64{1024, 32000}, Bytes: 65536000}},
	}
	e, err := vllm.New(m, vllm.GPU{Total: 8 << 30}, vllm.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(e.PageBytes, e.BlockLayers, e.RequestBlocks, e.Fits())
	// Output: 65536 2 256 true
}
