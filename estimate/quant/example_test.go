package quant_test

import (
	"fmt"

	"weigh/estimate/quant"
	"weigh/formats"
)

// Two matrices of a model in F16, as Q4_K_M would have them.
func ExampleSource_Plan() {
	m := quant.Model{Arch: "llama", Layers: 32, HeadCount: 32, HeadCountKV: 8, Tensors: []quant.Tensor{
		{Name: "output.weight", Type: formats.F16, Shape: []uint64{4096, 128256}},
		{Name: "blk.0.attn_q.weight", Type: formats.F16, Shape: []uint64{4096, 4096}},
	}}
	s, err := quant.New(m)
	if err != nil {
		fmt.Println(err)
		return
	}
	r, err := s.Plan(quant.Q4_K_M, quant.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.Types, r.DataBytes)
	// Output: [Q6_K Q4_K] 440377344
}
