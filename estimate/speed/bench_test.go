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
	"weigh/inspect/arch"
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

type meta struct{ f *gguf.File }

func (m meta) Lookup(key string) (any, bool) {
	v, ok := m.f.Lookup(key)
	if n, is := v.(gguf.Len); is {
		return model.Len(n), ok
	}
	return v, ok
}

var loaded = map[string]*model.Model{}

func fixture(t testing.TB, name string) *model.Model {
	t.Helper()
	if m := loaded[name]; m != nil {
		return m
	}
	b := fixtures.Model(name).Build()
	f, err := gguf.Read(bytes.NewReader(b.Data), int64(b.DataOffset)+int64(b.DataBytes))
	if err != nil {
		t.Fatal(err)
	}
	src := model.Source{Meta: meta{f}}
	for _, x := range f.Tensors {
		src.Tensors = append(src.Tensors, model.Tensor{Name: x.Name, Type: x.Type, Shape: x.Shape, Bytes: x.Bytes})
	}
	m, err := arch.Load(src)
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
