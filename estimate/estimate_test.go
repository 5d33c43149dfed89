package estimate

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"weigh/estimate/hw"
	"weigh/fixtures"
	"weigh/formats"
	"weigh/formats/gguf"
	"weigh/inspect"
	"weigh/inspect/arch"
	"weigh/inspect/model"
)

// load returns a model of the fixtures.
func load(t testing.TB, name string) *model.Model {
	t.Helper()
	return read(t, fixtures.Model(name))
}

func read(t testing.TB, g *fixtures.GGUF) *model.Model {
	t.Helper()
	b := g.Build()
	f, err := gguf.Read(bytes.NewReader(b.Data), b.Size())
	if err != nil {
		t.Fatal(err)
	}
	m, err := inspect.Load(&gguf.Set{Files: []*gguf.File{f}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// cards returns n GPUs of 24 GiB, all free.
func cards(n int) []hw.Device {
	size := uint64(24) << 30
	d := make([]hw.Device, n)
	for i := range d {
		d[i] = hw.Device{Index: i, Backend: hw.CUDA, ComputeCapability: hw.Capability{Major: 8, Minor: 9}, MemoryTotal: &size, MemoryFree: &size, Assumed: true}
	}
	return d
}

func TestRefusedSettings(t *testing.T) {
	llama, deepseek := load(t, "Llama-3.2-1B-Q4_K_M"), load(t, "DeepSeek-V2-Lite-Q4_K_M")
	untrained := read(t, fixtures.Model("llama-Q4_K_M").Set("llama.context_length", uint32(0)))
	q8 := formats.Q8_0
	tests := map[string]struct {
		m    *model.Model
		o    Options
		flag string
	}{
		"quantized values without flash attention": {llama, Options{TypeV: &q8, FlashAttn: FlashAttnOff}, "-ctv"},
		"different cache types of an MLA model":    {deepseek, Options{TypeK: &q8}, "-ctk"},
		"more sequences than llama.cpp has":        {llama, Options{NParallel: 257}, "-np"},
		"fewer outputs than sequences":             {llama, Options{NParallel: 2, NOutputs: new(1)}, "n_outputs_max"},
		"a batch of fewer tokens than sequences":   {llama, Options{NParallel: 4, NBatch: 2}, "-b"},
		"no output for each of the sequences":      {llama, Options{NParallel: 4, NCtx: 2, NOutputs: new(0)}, "-c"},
		"a negative context":                       {llama, Options{NCtx: -1}, "-c"},
		"a context that nothing says":              {untrained, Options{}, "-c"},
		"a context of a billion":                   {llama, Options{NCtx: 1 << 30}, "-c"},
		"a main GPU that is not there":             {llama, Options{Devices: cards(2), SplitMode: SplitNone, MainGPU: 2}, "-mg"},
		"rows split over CUDA devices":             {llama, Options{Devices: cards(2), SplitMode: SplitRow}, "-sm row"},
		"an override that is no pattern":           {llama, Options{Overrides: []Override{{"(", "CPU"}}}, "-ot"},
		"an override to no buffer":                 {llama, Options{Overrides: []Override{{"x", "CUDA7"}}}, "-ot"},
		"a negative share":                         {llama, Options{Devices: cards(2), TensorSplit: []float32{-1, 1}}, "-ts"},
		"drafting layers that are not there":       {llama, Options{MTP: true, MTPContext: true}, "--spec-type"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Run(tt.m, tt.o)
			var refused *RefusedError
			if !errors.As(err, &refused) {
				t.Fatalf("Run() error = %v, want a *RefusedError", err)
			}
			if refused.Setting != tt.flag {
				t.Errorf("Run() refused %s, want %s: %v", refused.Setting, tt.flag, err)
			}
		})
	}
}

// llama-server has an output for each sequence however short the context is.
// The figures are llama.cpp v0.5.0's.
func TestContextsShorterThanSequences(t *testing.T) {
	for ctx, want := range map[int]uint64{1: 297120, 2: 389280, 3: 533664, 5: 778464} {
		m := read(t, fixtures.Model("llama-Q4_K_M").Set("llama.context_length", uint32(ctx)))
		b, err := Run(m, Options{})
		if err != nil {
			t.Errorf("%d tokens: %v", ctx, err)
			continue
		}
		var got uint64
		for i := range b.Host {
			got += b.Host[i].Compute
		}
		if got != want || b.Settings.NOutputs != 4 {
			t.Errorf("%d tokens: compute buffers of %d bytes for %d outputs, want %d for 4", ctx, got, b.Settings.NOutputs, want)
		}
	}
}

// What llama.cpp does but this package does not know is no refusal of llama.cpp.
func TestNotModelled(t *testing.T) {
	other := cards(1)
	other[0].Backend = "cann"
	for name, o := range map[string]Options{
		"tensors split over devices": {Devices: cards(2), SplitMode: SplitTensor},
		"another backend":            {Devices: other},
	} {
		_, err := Run(load(t, "Llama-3.2-1B-Q4_K_M"), o)
		var refused *RefusedError
		if err == nil || errors.As(err, &refused) {
			t.Errorf("%s: got error %v, want one that is no *RefusedError", name, err)
		}
	}
}

// Mesa's software device binds at most 128 MiB: less than the state that
// llama.cpp asks about for RWKV6's bonus of the first token, which then stays
// in plain host memory. Asked of llama.cpp.
func TestWhereRWKV6sBonusIs(t *testing.T) {
	mesa := cards(1)
	mesa[0].Backend, mesa[0].Name = hw.Vulkan, "llvmpipe"
	b, err := Run(load(t, "rwkv6-Q4_K_M"), Options{Devices: mesa, NGPULayers: new(0), NCtx: 1000, NParallel: 1})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, m := range b.Host {
		got[m.Name] = m.Model
	}
	if got["Vulkan_Host"] != 395726848 || got["CPU"] != 65536 {
		t.Errorf("host weights are %v, want 395726848 of Vulkan_Host and 65536 of CPU", got)
	}
}

func TestSYCLIsExact(t *testing.T) {
	m, q8 := load(t, "Qwen3-8B-Q4_K_M"), formats.Q8_0
	for typ, compute := range map[*formats.DType]uint64{nil: 100673664, &q8: 109144192} { // asked of llama.cpp
		o := Options{Devices: cards(1), NCtx: 8192, TypeK: typ, TypeV: typ}
		cuda, err := Run(m, o)
		if err != nil {
			t.Fatal(err)
		}
		o.Devices = cards(1)
		o.Devices[0].Backend = hw.SYCL
		sycl, err := Run(m, o)
		if err != nil {
			t.Fatal(err)
		}
		if sycl.Basis.Model != Exact || sycl.Basis.Context != Exact || sycl.Basis.Compute != Exact {
			t.Errorf("the basis is %+v, want all exact but the overhead", sycl.Basis)
		}
		a, b := sycl.Devices[0], cuda.Devices[0]
		if a.Name != "SYCL0" || a.Model != b.Model || a.Context != b.Context || a.Compute != compute || a.Overhead == 0 {
			t.Errorf("%s has model %d, context %d, compute %d, overhead %d; CUDA0 model %d, context %d",
				a.Name, a.Model, a.Context, a.Compute, a.Overhead, b.Model, b.Context)
		}
	}
}

func TestNotes(t *testing.T) {
	m := load(t, "Qwen3-8B-Q4_K_M")
	tests := map[string]struct {
		o    Options
		want string
	}{
		"context over the trained one":     {Options{NCtx: 65536, NParallel: 1}, "longer than the 40960"},
		"micro-batch over the batch":       {Options{NBatch: 256, NUBatch: 512}, "-ub 512 is more than a batch"},
		"an override that matches nothing": {Options{Overrides: []Override{{"no_such_tensor", "CPU"}}}, "matches no tensor"},
		"a pattern as it was written":      {Options{Overrides: []Override{{`blk\.99\.`, "CPU"}}}, `'blk\.99\.' matches`},
		"experts of a dense model":         {Options{Overrides: NCPUMoE(4)}, "-ncmoe 4 changes nothing"},
		"shares for devices that are not":  {Options{Devices: cards(1), TensorSplit: []float32{1, 1}}, "-ts names 2 devices"},
		"layers on devices that are not":   {Options{NGPULayers: new(20)}, "-ngl 20 without a device"},
		"a context that is no multiple":    {Options{NCtx: 1000, NParallel: 1}, "makes the context of 1000 tokens 1024"},
		"host weights are mapped":          {Options{Devices: cards(1)}, "mapped from the file"},
		"a prompt cache without limit":     {Options{CacheRAM: new(-1)}, "no limit"},
		"weights in AMX's layout":          {Options{Host: hw.Host{SIMD: []string{"avx2", "avx512", "amx"}}}, "AMX"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b, err := Run(m, tt.o)
			if err != nil {
				t.Fatal(err)
			}
			if all := strings.Join(b.Notes, "\n"); !strings.Contains(all, tt.want) {
				t.Errorf("notes are %q, want one with %q", all, tt.want)
			}
		})
	}
}

// Every figure is the sum of its terms.
func TestTermsSum(t *testing.T) {
	for _, name := range []string{"Llama-3.1-8B-Q4_K_M", "Gemma-3-4B-Q4_K_M", "Qwen3-30B-A3B-Q4_K_M", "Qwen3.5-27B-Q4_K_M", "Mamba-2.8B-Q4_K_M", "DeepSeek-R1-671B-Q4_K_M"} {
		m := load(t, name)
		for _, ngl := range []int{0, 12, -1} {
			b, err := Run(m, Options{Devices: cards(2), NGPULayers: &ngl, NCtx: 8192})
			if err != nil {
				t.Fatal(err)
			}
			for _, list := range [][]Memory{b.Devices, b.Host} {
				for _, row := range list {
					var sum [4]uint64
					for _, term := range row.Terms {
						sum[term.Part] += term.Bytes
						if term.Why == "" || term.Name == "" || term.Basis == "" {
							t.Errorf("%s: term %+v does not say what it is", name, term)
						}
					}
					if want := [4]uint64{row.Model, row.Context, row.Compute, row.Overhead}; sum != want {
						t.Errorf("%s ngl %d: %s: terms sum to %v, want %v", name, ngl, row.Name, sum, want)
					}
				}
			}
		}
	}
}

// The upper bound is not below what the graph takes, for any architecture.
func TestUpperBoundIsOne(t *testing.T) {
	for _, name := range fixtures.Models() {
		m := load(t, name)
		if row := arch.Lookup(m.Arch); row == nil || row.Build == nil {
			continue
		}
		for label, o := range map[string]Options{
			"one GPU":          {Devices: cards(1), NCtx: 8192},
			"half offloaded":   {Devices: cards(1), NCtx: 8192, NGPULayers: new(m.NLayerAll / 2)},
			"four sequences":   {Devices: cards(1), NCtx: 8192, NParallel: 4, KVUnified: new(false), NOutputs: new(0)},
			"two GPUs":         {Devices: cards(2), NCtx: 4096, NOutputs: new(0)},
			"without flash":    {Devices: cards(1), NCtx: 16384, FlashAttn: FlashAttnOff},
			"no GPU":           {NCtx: 4096},
			"a large batch":    {Devices: cards(1), NCtx: 4096, NUBatch: 2048},
			"experts on a CPU": {Devices: cards(1), NCtx: 4096, Overrides: []Override{CPUMoE()}},
		} {
			exact, err := Run(m, o)
			if err != nil {
				continue
			}
			bound, err := UpperBound(m, o)
			if err != nil {
				t.Errorf("%s, %s: %v", name, label, err)
				continue
			}
			for i := range exact.Devices {
				if e, u := exact.Devices[i].Compute, bound.Devices[i].Compute; u < e {
					t.Errorf("%s, %s: bound of %d is below the %d of %s", name, label, u, e, exact.Devices[i].Name)
				}
			}
			if e, u := hostCompute(exact), hostCompute(bound); u < e {
				t.Errorf("%s, %s: bound of %d is below the %d of the host", name, label, u, e)
			}
		}
	}
}

func hostCompute(b *Breakdown) (n uint64) {
	for i := range b.Host {
		n += b.Host[i].Compute
	}
	return n
}

// llama70B has the shapes of Llama 3.3 70B.
func llama70B(t testing.TB) *model.Model {
	g := &fixtures.GGUF{NoData: true}
	g.Set("general.architecture", "llama").Set("llama.block_count", uint32(80)).Set("llama.context_length", uint32(131072)).
		Set("llama.embedding_length", uint32(8192)).Set("llama.feed_forward_length", uint32(28672)).
		Set("llama.attention.head_count", uint32(64)).Set("llama.attention.head_count_kv", uint32(8)).
		Set("llama.rope.dimension_count", uint32(128)).Set("llama.vocab_size", uint32(128256))
	g.Add("token_embd.weight", formats.Q4_K, 8192, 128256)
	g.Add("output.weight", formats.Q6_K, 8192, 128256)
	g.Add("output_norm.weight", formats.F32, 8192)
	g.Add("rope_freqs.weight", formats.F32, 64)
	for il := range 80 {
		add := func(name string, typ formats.DType, ne ...uint64) {
			g.Add(fmt.Sprintf("blk.%d.%s.weight", il, name), typ, ne...)
		}
		add("attn_norm", formats.F32, 8192)
		add("attn_q", formats.Q4_K, 8192, 8192)
		add("attn_k", formats.Q4_K, 8192, 1024)
		add("attn_v", formats.Q6_K, 8192, 1024)
		add("attn_output", formats.Q4_K, 8192, 8192)
		add("ffn_norm", formats.F32, 8192)
		add("ffn_gate", formats.Q4_K, 8192, 28672)
		add("ffn_up", formats.Q4_K, 8192, 28672)
		add("ffn_down", formats.Q6_K, 28672, 8192)
	}
	return read(t, g)
}

func BenchmarkRun(b *testing.B) {
	for name, m := range map[string]*model.Model{"llama-70b": llama70B(b), "deepseek-r1": load(b, "DeepSeek-R1-671B-Q4_K_M")} {
		b.Run(name, func(b *testing.B) {
			o := Options{Devices: cards(2), NCtx: 32768}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Run(m, o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestRemoteDevicesNameTheirServer holds that a device of an rpc-server takes
// what CUDA would, under llama.cpp's name for it, and pins no host memory.
func TestRemoteDevicesNameTheirServer(t *testing.T) {
	m := load(t, "Llama-3.2-1B-Q4_K_M")
	local, err := Run(m, Options{Devices: cards(1), NGPULayers: new(99), NCtx: 4096})
	if err != nil {
		t.Fatal(err)
	}
	size := uint64(24) << 30
	remote, err := Run(m, Options{Devices: []hw.Device{hw.Remote("10.0.0.2:50052", &size, &size, "flag")}, NGPULayers: new(99), NCtx: 4096})
	if err != nil {
		t.Fatal(err)
	}
	a, b := local.Devices[0], remote.Devices[0]
	if b.Name != "RPC0[10.0.0.2:50052]" || b.Model != a.Model || b.Context != a.Context || b.Compute < a.Compute {
		t.Errorf("remote %s %d %d %d, local %d %d %d", b.Name, b.Model, b.Context, b.Compute, a.Model, a.Context, a.Compute)
	}
	for _, h := range remote.Host {
		if h.Name == "CUDA_Host" {
			t.Errorf("host memory is pinned for a device elsewhere: %+v", h)
		}
	}
}
