package plan

import (
	"bytes"
	"fmt"
	"testing"

	"weigh/estimate"
	"weigh/estimate/hw"
	"weigh/fixtures"
	"weigh/formats"
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

func TestPlans(t *testing.T) {
	q4 := formats.Q4_0
	tests := map[string]struct {
		model string
		cards []uint64 // MiB
		host  uint64   // GiB
		o     estimate.Options
		w     Want
		check func(p *Plan) bool // nil: nothing fits
	}{
		"a model that fits takes the trained context": {
			"Llama-3.1-8B-Q4_K_M",
			[]uint64{24576},
			64,
			estimate.Options{},
			Want{},
			func(p *Plan) bool { return p.full && p.Breakdown.Settings.NCtx == 131072 },
		},
		"a context that is asked for is kept": {
			"Llama-3.1-8B-Q4_K_M",
			[]uint64{24576},
			64,
			estimate.Options{NCtx: 16384},
			Want{},
			func(p *Plan) bool { return p.full && p.Breakdown.Settings.NCtx == 16384 },
		},
		"experts go to the host before attention": {
			"Qwen3-30B-A3B-Q4_K_M",
			[]uint64{12288},
			64,
			estimate.Options{},
			Want{},
			func(p *Plan) bool { return p.Lean > 0 && *p.Options.NGPULayers == 49 },
		},
		"a type that is set is kept": {
			"Llama-3.1-8B-Q4_K_M",
			[]uint64{6144},
			64,
			estimate.Options{NCtx: 32768, TypeK: &q4, TypeV: &q4},
			Want{},
			func(p *Plan) bool { return *p.Options.TypeK == q4 },
		},
		"quality leaves the cache at 16 bits": {
			"Llama-3.1-8B-Q4_K_M",
			[]uint64{4096},
			64,
			estimate.Options{},
			Want{Prefer: Quality},
			func(p *Plan) bool { return p.Options.TypeK == nil },
		},
		"context takes a longer one than speed": {
			"Llama-3.1-8B-Q4_K_M",
			[]uint64{8192},
			64,
			estimate.Options{},
			Want{Prefer: Context},
			func(p *Plan) bool { return p.Breakdown.Settings.NCtx > 40000 },
		},
		"layers that are set are kept": {
			"Llama-3.1-8B-Q4_K_M",
			[]uint64{24576},
			64,
			estimate.Options{NCtx: 4096, NGPULayers: new(7)},
			Want{},
			func(p *Plan) bool { return *p.Options.NGPULayers == 7 },
		},
		"uneven cards get uneven shares": {
			"Qwen2.5-32B-Q4_K_M",
			[]uint64{24576, 8192},
			64,
			estimate.Options{NCtx: 16384},
			Want{},
			func(p *Plan) bool { return p.full && p.Options.TensorSplit[0] > 2*p.Options.TensorSplit[1] },
		},
		"no card is a plan for the CPU": {
			"Llama-3.1-8B-Q4_K_M", nil, 16,
			estimate.Options{},
			Want{},
			func(p *Plan) bool { return len(p.Breakdown.Devices) == 0 },
		},
		"layers that are set and do not fit":      {"Llama-3.1-8B-Q8_0", []uint64{4096}, 64, estimate.Options{NCtx: 4096, NGPULayers: new(99)}, Want{}, nil},
		"a host too small for the rest":           {"Qwen2.5-32B-Q4_K_M", []uint64{8192}, 8, estimate.Options{}, Want{}, nil},
		"a model too big for everything":          {"DeepSeek-R1-671B-Q4_K_M", []uint64{24576, 24576}, 64, estimate.Options{}, Want{}, nil},
		"a card with no memory left":              {"Llama-3.1-8B-Q4_K_M", []uint64{0}, 64, estimate.Options{}, Want{}, nil},
		"a machine with no memory":                {"Llama-3.2-1B-Q4_K_M", nil, 0, estimate.Options{}, Want{}, nil},
		"a speed that no placement reaches":       {"Llama-3.1-8B-Q4_K_M", []uint64{24576}, 64, estimate.Options{}, Want{MinTPS: 1e6}, nil},
		"a reserve larger than the card is taken": {"Llama-3.1-8B-Q4_K_M", []uint64{24576}, 64, estimate.Options{}, Want{Reserve: new(uint64(25 << 30))}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := fixture(t, tt.model)
			tt.o.Devices, tt.o.Host, tt.o.NParallel = cards(tt.cards...), host(tt.host), 1
			tt.w.Alternatives = true
			r, err := Best(m, tt.o, tt.w)
			if err != nil {
				t.Fatal(err)
			}
			if tt.check == nil {
				if len(r.Plans) > 0 || r.Why == "" {
					t.Errorf("%d plans, reason %q, want none and a reason", len(r.Plans), r.Why)
				}
				for _, c := range r.Changes {
					holds(t, c.Plan)
				}
				return
			}
			if len(r.Plans) == 0 {
				t.Fatalf("no plan: %s; %q", r.Why, r.Steps)
			}
			if !tt.check(&r.Plans[0]) {
				t.Errorf("the best plan is %s: %+v", r.Plans[0].Why, r.Plans[0].Breakdown.Settings)
			}
			for i := range r.Plans {
				holds(t, &r.Plans[i])
			}
		})
	}
}

// holds checks that a plan fits by an estimate of its own.
func holds(t *testing.T, p *Plan) {
	t.Helper()
	for i := range p.Breakdown.Devices {
		d := &p.Breakdown.Devices[i]
		if d.Total() > *p.Options.Devices[d.Device].MemoryFree {
			t.Errorf("%s: %s takes %d of %d bytes", p.Role, d.Name, d.Total(), *p.Options.Devices[d.Device].MemoryFree)
		}
	}
	must, grows := hostNeed(p.Breakdown)
	if free, _, ok := p.Options.Host.Usable(); ok && must+grows > free && p.CacheRAM == nil {
		t.Errorf("%s: the host holds %d and grows by %d, it has %d", p.Role, must, grows, free)
	}
}

func TestBestRefuses(t *testing.T) {
	m := fixture(t, "Llama-3.2-1B-Q4_K_M")
	unknown := cards(24576)
	unknown[0].MemoryFree, unknown[0].MemoryTotal = nil, nil
	for name, tt := range map[string]struct {
		o estimate.Options
		w Want
	}{
		"a preference that there is not": {estimate.Options{Devices: cards(24576)}, Want{Prefer: "price"}},
		"a negative speed":               {estimate.Options{Devices: cards(24576)}, Want{MinTPS: -1}},
		"a device of unknown memory":     {estimate.Options{Devices: unknown}, Want{}},
		"a context beyond any":           {estimate.Options{Devices: cards(24576), NCtx: 1 << 40}, Want{}},
		"a split that is no number":      {estimate.Options{Devices: cards(24576, 24576), TensorSplit: []float32{-1, 1}}, Want{}},
		"a split mode without support":   {estimate.Options{Devices: cards(24576, 24576), SplitMode: estimate.SplitRow}, Want{}},
	} {
		if r, err := Best(m, tt.o, tt.w); err == nil {
			t.Errorf("%s: %+v, want an error", name, r)
		}
	}
}

// TestHardwareHoldsTheModel checks each proposal by an estimate of its own.
func TestHardwareHoldsTheModel(t *testing.T) {
	m := fixture(t, "Qwen3-30B-A3B-Q4_K_M")
	all, err := Hardware(m, estimate.Options{NCtx: 16384, NParallel: 1, Host: host(64)}, Want{})
	if err != nil || len(all) == 0 {
		t.Fatalf("%d proposals, %v", len(all), err)
	}
	for _, p := range all {
		d, err := p.Card.Device()
		if err != nil {
			t.Fatal(err)
		}
		if p.Card.PCIe.Gen == 3 || p.Card.FP16Flops == 0 {
			t.Errorf("%s is proposed, which is no longer made", p.Card.Name)
		}
		if p.Need > *d.MemoryFree {
			t.Errorf("%d x %s: needs %d of %d bytes", p.Count, p.Card.Name, p.Need, *d.MemoryFree)
		}
	}
}

// FuzzBest plans for any sizes of cards and host: what is proposed fits.
func FuzzBest(f *testing.F) {
	f.Add(uint16(8000), uint16(0), uint16(16), 8192)
	f.Add(uint16(3000), uint16(12000), uint16(64), 0)
	m := fixture(f, "Qwen2.5-0.5B-Q4_K_M")
	moe := fixture(f, "qwen3moe-moe-Q4_K_M")
	f.Fuzz(func(t *testing.T, a, b, gib uint16, ctx int) {
		for _, m := range []*model.Model{m, moe} {
			r, err := Best(m, estimate.Options{Devices: cards(uint64(a), uint64(b)), Host: host(uint64(gib)), NCtx: ctx, NParallel: 1}, Want{Alternatives: true})
			if err != nil {
				return
			}
			for i := range r.Plans {
				holds(t, &r.Plans[i])
			}
		}
	})
}
