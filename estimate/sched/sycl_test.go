package sched

import (
	"testing"

	"weigh/formats"
	"weigh/inspect/graph"
)

func TestSYCLAttention(t *testing.T) {
	const (
		out   = 128 * 32 * 512 * 4 // of 512 queries of 32 heads of 128
		keys  = 128 * 4096 * 8 * 2 // 4096 keys in 16 bits
		dense = 128 * 32 * 512 * 2 // the queries, or the result, in 16 bits
	)
	tests := map[string]struct {
		o    SYCLOptions
		op   *graph.Tensor
		runs bool
		size uint64
	}{
		"oneDNN reads keys in 16 bits in place, not queries": {
			SYCLOptions{}, attend(128, 128, 32, 8, 512, 4096, formats.F16), true, out + dense + 128 + dense,
		},
		"oneDNN reads other keys in 16 bits": {
			SYCLOptions{}, attend(128, 128, 32, 8, 512, 4096, formats.Q8_0), true, out + dense + 2*keys + 128 + dense,
		},
		"no oneDNN for keys in BF16": {
			SYCLOptions{}, attend(128, 128, 32, 8, 512, 4096, formats.BF16), true, out + 2*keys,
		},
		"without oneDNN nothing is copied in 16 bits": {
			SYCLOptions{NoDNN: true}, attend(128, 128, 32, 8, 512, 4096, formats.F16), true, out,
		},
		"Alchemist runs heads of 64 without oneDNN": {
			SYCLOptions{Alchemist: true}, attend(64, 64, 64, 8, 512, 4096, formats.F16), true, out,
		},
		"Alchemist runs other heads with it": {
			SYCLOptions{Alchemist: true}, attend(128, 128, 32, 8, 512, 4096, formats.F16), true, out + dense + 128 + dense,
		},
		"heads of 48 run for a prompt": {
			SYCLOptions{}, attend(48, 48, 32, 8, 512, 4096, formats.F16), true, (out+2*dense)*48/128 + 128,
		},
		"heads of 48 do not for a token": {
			SYCLOptions{}, attend(48, 48, 32, 8, 1, 4096, formats.F16), false, 48*32*4 + 2*48*32*2 + 128,
		},
		"latent attention has a padded cache": {
			SYCLOptions{}, attend(576, 512, 16, 1, 1, 4000, formats.F16), false, 512 * 16 * 4,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d := SYCL(0, test.o)
			if got := d.Supports(test.op); got != test.runs {
				t.Errorf("runs: %v", got)
			}
			if got := d.Buffer.AllocSize(test.op); got != test.size {
				t.Errorf("%d bytes, want %d", got, test.size)
			}
		})
	}
}

func TestSYCLCopies(t *testing.T) {
	tests := []struct {
		from, to formats.DType
		want     bool
	}{
		{formats.F32, formats.Q8_0, true},
		{formats.F32, formats.Q4_K, false},
		{formats.BF16, formats.Q8_0, false},
		{formats.BF16, formats.Q5_0, true},
		{formats.IQ4_NL, formats.F32, false},
		{formats.Q4_K, formats.Q4_K, true},
		{formats.IQ2_S, formats.IQ2_S, false},
		{formats.TQ1_0, formats.TQ1_0, false},
	}
	for _, test := range tests {
		if got := syclCopies(test.from, test.to); got != test.want {
			t.Errorf("%v to %v: %v", test.from, test.to, got)
		}
	}
}
