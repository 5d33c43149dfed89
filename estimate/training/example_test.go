package training_test

import (
	"fmt"

	"weigh/estimate/training"
)

// A toy model of one layer, trained whole on one GPU.
func ExampleNew() {
	m := training.Model{
		Hidden: 64, Vocab: 1000,
		Layers: []training.Layer{{Query: 64, KeyValue: 64, Heads: 4, FF: 256, Gated: true}},
		Tensors: []training.Tensor{
			{Name: "token_embd.weight", Shape: []uint64{64, 1000}},
			{Name: "blk.0.attn_q.weight", Shape: []uint64{64, 64}},
		},
	}
	e, err := training.New(m, training.Recipe{Sequence: 128})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, t := range e.Terms[:4] {
		fmt.Printf("%s: %d bytes = %s\n", t.Name, t.Bytes, t.Formula)
	}
	// Output:
	// weights: 136192 bytes = 68096 parameters × 2 B
	// gradients: 136192 bytes = 68096 parameters × 2 B
	// 32-bit master copy: 272384 bytes = 68096 parameters × 4 B
	// adamw states: 544768 bytes = 68096 parameters × 2 × 4 B
}
