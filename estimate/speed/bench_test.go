package speed

import (
	"bytes"
	_ "embed"
	"strings"
	"testing"

	"weigh/estimate"
	"weigh/estimate/hw"
	"weigh/fixtures"
	"weigh/formats/gguf"
	"weigh/inspect"
	"weigh/inspect/model"
)

// benches are speeds that others measured and published, mostly by llama-bench, of
// cards and models that the reports have few of: the fixture or shape and
// quantization, tokens in the cache, tokens per second, and where it was read. A
// name after the source is the quantization that was measured, where the fixture has
// another of about the same size.
//
//go:embed testdata/benches.csv
var benches string

var loaded = map[string]*model.Model{}

func fixture(t testing.TB, name string) *model.Model {
	t.Helper()
	if m := loaded[name]; m != nil {
		return m
	}
	b := fixtures.Model(name).Build()
	f, err := gguf.Read(bytes.NewReader(b.Data), b.Size())
	if err != nil {
		t.Fatal(err)
	}
	m, err := inspect.Load(&gguf.Set{Files: []*gguf.File{f}})
	if err != nil {
		t.Fatal(err)
	}
	loaded[name] = m
	return m
}

// measured returns the benchmarks of models that are at hand.
func measured(t testing.TB) []report {
	var all []report
	for _, r := range table(t, benches) {
		card, err := hw.Lookup(r["card"])
		if err != nil {
			t.Fatal(err)
		}
		d, err := card.Device()
		if err != nil {
			t.Fatal(err)
		}
		d.Backend = r["backend"]
		if shape, quant, ok := strings.Cut(r["model"], " "); ok {
			for _, k := range table(t, shapes) {
				if k["pattern"] == shape {
					uses := shapeUses(k, perWeight[quant], 2)
					rep := report{group: r["card"] + " " + r["backend"] + " " + r["model"], device: d, uses: uses, depth: int(number(r["depth"])), tps: number(r["tps"])}
					rep.model.NLayerAll = int(number(k["layers"]))
					all = append(all, rep)
				}
			}
			continue
		}
		m := fixture(t, r["model"])
		uses, err := estimate.Uses(m, estimate.Options{Devices: []hw.Device{d}, NCtx: 16384, NParallel: 1})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, report{group: r["card"] + " " + r["backend"] + " " + r["model"], device: d, uses: uses, model: *m, depth: int(number(r["depth"])), tps: number(r["tps"])})
	}
	return all
}

// prompts are speeds of reading 512 tokens of a Llama 3.1 8B in Q4_K_M, from the
// sources of benches.
var prompts = []struct {
	card, backend string
	tps           float64
}{
	{"RTX 3090", hw.CUDA, 4030},
	{"RTX 4090", hw.CUDA, 7139},
	{"RTX 4080", hw.CUDA, 5390},
	{"RTX 3080", hw.CUDA, 3729},
	{"RTX 4070 Ti", hw.CUDA, 3936},
	{"RTX 3070", hw.CUDA, 2403},
	{"RX 7900 XTX", hw.ROCm, 3227},
	{"RX 9070 XT", hw.Vulkan, 4802},
	{"Radeon 8050S 128GB", hw.Vulkan, 833},
	{"Radeon 780M 32GB", hw.Vulkan, 254},
	{"M1 8GB", hw.Metal, 94},
	{"M1 Max 64GB", hw.Metal, 500},
	{"M2 Ultra 192GB", hw.Metal, 994},
	{"M3 Max (40-core GPU) 64GB", hw.Metal, 693},
}

// TestPromptsAreMet holds the time of prompts against benchmarks, four of five
// within a factor of 1.5.
func TestPromptsAreMet(t *testing.T) {
	m := fixture(t, "Llama-3.1-8B-Q4_K_M")
	met := 0
	for _, r := range prompts {
		card, err := hw.Lookup(r.card)
		if err != nil {
			t.Fatal(err)
		}
		d, err := card.Device()
		if err != nil {
			t.Fatal(err)
		}
		d.Backend = r.backend
		s, err := Estimate(m, estimate.Options{Devices: []hw.Device{d}, NCtx: 4096, NParallel: 1}, Query{Prompt: 512})
		if err != nil {
			t.Fatal(err)
		}
		x := s.Prefill.Mid / r.tps
		if x <= 1.5 && x >= 1/1.5 {
			met++
		} else {
			t.Logf("%.2f %s: %.0f", x, r.card, s.Prefill.Mid)
		}
	}
	if met*5 < len(prompts)*4 {
		t.Errorf("%d of %d prompts are within a factor of 1.5, want four of five", met, len(prompts))
	}
}
