package plan

import (
	"bytes"
	"fmt"
	"testing"

	"weigh/estimate"
	"weigh/estimate/hw"
	"weigh/fixtures"
	"weigh/formats/gguf"
	"weigh/inspect/arch"
	"weigh/inspect/model"
)

// meta gives a file's metadata in the model's terms.
type meta struct{ f *gguf.File }

func (m meta) Lookup(key string) (any, bool) {
	v, ok := m.f.Lookup(key)
	if n, is := v.(gguf.Len); is {
		return model.Len(n), ok
	}
	return v, ok
}

// fixture returns a model of the fixtures.
func fixture(t testing.TB, name string) *model.Model {
	t.Helper()
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
	return m
}

// cards returns CUDA cards of these sizes, all free.
func cards(mib ...uint64) []hw.Device {
	d := make([]hw.Device, len(mib))
	for i, n := range mib {
		size := n << 20
		d[i] = hw.Device{Index: i, Name: fmt.Sprintf("card %d", i), Backend: hw.CUDA, ComputeCapability: hw.Capability{Major: 8, Minor: 9}, MemoryTotal: &size, MemoryFree: &size, Assumed: true}
	}
	return d
}

func host(gib uint64) hw.Host {
	n := gib << 30
	return hw.Host{MemoryTotal: &n, MemoryAvailable: &n}
}

func BenchmarkBest(b *testing.B) {
	for _, c := range []struct {
		model string
		cards []uint64
	}{
		{"Llama-3.1-8B-Q4_K_M", []uint64{24576}},
		{"Llama-3.1-8B-Q4_K_M", []uint64{4096}},
		{"Qwen3-30B-A3B-Q4_K_M", []uint64{12288}},
		{"DeepSeek-R1-671B-Q4_K_M", []uint64{24576, 24576, 24576, 24576, 24576, 24576}},
	} {
		m := fixture(b, c.model)
		b.Run(fmt.Sprint(c.model, " on ", len(c.cards)), func(b *testing.B) {
			for b.Loop() {
				r, err := Best(m, estimate.Options{Devices: cards(c.cards...), NParallel: 1}, Want{})
				if err != nil || len(r.Plans) == 0 {
					b.Fatal(err, r)
				}
			}
		})
	}
}

func TestScratch(t *testing.T) {
	for _, c := range []struct {
		model string
		cards []uint64
	}{
		{"Llama-3.1-8B-Q4_K_M", []uint64{24576}},
		{"Llama-3.1-8B-Q4_K_M", []uint64{4096}},
		{"Qwen3-30B-A3B-Q4_K_M", []uint64{12288}},
		{"DeepSeek-R1-671B-Q4_K_M", []uint64{24576, 24576, 24576, 24576, 24576, 24576}},
	} {
		m := fixture(t, c.model)
		r, err := Best(m, estimate.Options{Devices: cards(c.cards...), NParallel: 1}, Want{Alternatives: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range r.Steps {
			t.Log("  ", s)
		}
		for _, p := range r.Plans {
			t.Log(p.Role, p.Why, p.Options.TensorSplit, p.Lean, p.Kept, p.Speed.Decode, p.Speed.Prefill)
		}
	}
}
