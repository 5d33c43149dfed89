package estimate

import (
	"testing"

	"weigh/estimate/hw"
)

// TestTemporariesByKernel holds what products take besides: cards without a kernel
// that reads quantized weights write the largest matrix out in 16 bits first.
func TestTemporariesByKernel(t *testing.T) {
	const matrix = 2 * 4096 * 14336 // of a feed-forward layer
	dense, moe := load(t, "Llama-3.1-8B-Q4_K_M"), load(t, "Mixtral-8x7B-Q4_K_M")
	for name, tt := range map[string]struct {
		card     string
		whole    bool // the dense model's matrices are written out
		anExpert bool // one of the other's experts is
	}{
		"no products of bytes":              {"Tesla P100-PCIE-16GB", true, true},
		"products of four bytes":            {"Tesla P40", false, false},
		"tensor cores for 16 bits only":     {"Tesla V100-PCIE-32GB", true, true},
		"tensor cores for integers":         {"RTX 2080 Ti", false, false},
		"large batches of 6 bits, RDNA 3":   {"RX 7900 XTX", true, true},
		"RDNA 4":                            {"RX 9070 XT", false, false},
		"large batches of k-quants, CDNA 2": {"Instinct MI210", true, true},
		"CDNA 3":                            {"Instinct MI300X", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			card, err := hw.Lookup(tt.card)
			if err != nil {
				t.Fatal(err)
			}
			d, err := card.Device()
			if err != nil {
				t.Fatal(err)
			}
			room := uint64(1 << 40)
			d.MemoryTotal, d.MemoryFree = &room, &room
			for m, written := range map[string]bool{"dense": tt.whole, "experts": tt.anExpert} {
				model := dense
				if m == "experts" {
					model = moe
				}
				b, err := Run(model, Options{Devices: []hw.Device{d}, NCtx: 4096, NParallel: 1})
				if err != nil {
					t.Fatal(err)
				}
				got := termOf(&b.Devices[0], "temporaries")
				if (got > matrix) != written || got > 4*matrix {
					t.Errorf("%s model: temporaries of %d bytes, a matrix in 16 bits has %d; want it written out: %v", m, got, matrix, written)
				}
			}
		})
	}
}
