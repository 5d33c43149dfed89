package plan

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"testing"

	"weigh/estimate"
	"weigh/estimate/hw"
	"weigh/estimate/speed"
	"weigh/fixtures"
	"weigh/formats"
	"weigh/formats/gguf"
	"weigh/inspect"
	"weigh/inspect/model"
)

// fixture returns a model of the fixtures.
func fixture(t testing.TB, name string) *model.Model {
	t.Helper()
	b := fixtures.Model(name).Build()
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
				r, err := Best(b.Context(), m, estimate.Options{Devices: cards(c.cards...), NParallel: 1}, Want{})
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
			r, err := Best(t.Context(), m, tt.o, tt.w)
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
		"a speed that is no number":      {estimate.Options{Devices: cards(24576)}, Want{MinTPS: math.NaN()}},
		"a speed without end":            {estimate.Options{Devices: cards(24576)}, Want{MinTPS: math.Inf(1)}},
		"a depth beyond the context":     {estimate.Options{Devices: cards(24576), NCtx: 4096}, Want{Speed: speed.Query{Depth: 8192}}},
		"a prompt beyond the context":    {estimate.Options{Devices: cards(24576), NCtx: 4096, NParallel: 2}, Want{Speed: speed.Query{Prompt: 4096}}},
		"a device of unknown memory":     {estimate.Options{Devices: unknown}, Want{}},
		"a context beyond any":           {estimate.Options{Devices: cards(24576), NCtx: 1 << 40}, Want{}},
		"a split that is no number":      {estimate.Options{Devices: cards(24576, 24576), TensorSplit: []float32{-1, 1}}, Want{}},
		"a split mode without support":   {estimate.Options{Devices: cards(24576, 24576), SplitMode: estimate.SplitRow}, Want{}},
	} {
		if r, err := Best(t.Context(), m, tt.o, tt.w); err == nil {
			t.Errorf("%s: %+v, want an error", name, r)
		}
	}
}

// A search that is called off ends with the estimate that it is at.
func TestBestStopsWithItsContext(t *testing.T) {
	m := fixture(t, "Llama-3.2-1B-Q4_K_M")
	steps := 0
	for _, after := range []int{0, 1, 3, 8} {
		ctx := &calledOff{Context: t.Context(), after: after}
		r, err := Best(ctx, m, estimate.Options{Devices: cards(1536), NParallel: 1}, Want{Alternatives: true})
		if r != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("called off after %d steps: %+v, %v, want %v", after, r, err, context.Canceled)
		}
		steps = ctx.asked
	}
	if steps > 100 {
		t.Errorf("it goes on for %d steps", steps)
	}
}

// calledOff is a context that is cancelled after its error was asked for so many
// times.
type calledOff struct {
	context.Context
	after, asked int
}

func (c *calledOff) Err() error {
	if c.asked++; c.asked > c.after {
		return context.Canceled
	}
	return nil
}

// A model that does not say what it was trained on is asked for with a context
// only, as llama.cpp wants it; one of a single token is planned like any other.
func TestShortTrainedContexts(t *testing.T) {
	m := fixture(t, "Llama-3.2-1B-Q4_K_M")
	for train, want := range map[int]string{0: "-c", 1: "", 3: ""} {
		m.NCtxTrain = train
		r, err := Best(t.Context(), m, estimate.Options{Devices: cards(24576)}, Want{Alternatives: true})
		var refused *estimate.RefusedError
		switch {
		case want != "" && (!errors.As(err, &refused) || refused.Setting != want):
			t.Errorf("trained on %d tokens: error %v, want %s refused", train, err, want)
		case want == "" && (err != nil || len(r.Plans) == 0):
			t.Errorf("trained on %d tokens: %v, %+v, want a plan", train, err, r)
		}
	}
	m.NCtxTrain = 0
	if r, err := Best(t.Context(), m, estimate.Options{Devices: cards(24576), NCtx: 4096}, Want{}); err != nil || len(r.Plans) == 0 {
		t.Errorf("a context that is asked for: %v, %+v, want a plan", err, r)
	}
}

// TestHardwareHoldsTheModel checks each proposal by an estimate of its own.
func TestHardwareHoldsTheModel(t *testing.T) {
	m := fixture(t, "Qwen3-30B-A3B-Q4_K_M")
	all, err := Hardware(t.Context(), m, estimate.Options{NCtx: 16384, NParallel: 1, Host: host(64)}, Want{})
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

// TestHardwareIsFastEnough looks for cards that reach a speed.
func TestHardwareIsFastEnough(t *testing.T) {
	m := fixture(t, "Llama-3.1-8B-Q8_0")
	all, err := Hardware(t.Context(), m, estimate.Options{NCtx: 8192, NParallel: 1, Host: host(64)}, Want{MinTPS: 80})
	if err != nil || len(all) == 0 {
		t.Fatalf("%d proposals, %v", len(all), err)
	}
	for _, p := range all {
		if p.Speed.Decode.Mid < 80 {
			t.Errorf("%d x %s: %.1f tokens per second, want 80", p.Count, p.Card.Name, p.Speed.Decode.Mid)
		}
	}
}

// TestLoweredPromptCacheIsSaid plans where the host has room for part of the prompt
// cache: the longer context keeps the limit that made it fit.
func TestLoweredPromptCacheIsSaid(t *testing.T) {
	m := fixture(t, "Mistral-7B-v0.3-Q4_K_M")
	r, err := Best(t.Context(), m, estimate.Options{Devices: cards(81920), Host: host(2), NParallel: 1}, Want{Alternatives: true})
	if err != nil || len(r.Plans) == 0 {
		t.Fatal(err, r)
	}
	for i := range r.Plans {
		p := &r.Plans[i]
		holds(t, p)
		if p.CacheRAM == nil || p.Options.CacheRAM == nil || *p.CacheRAM != *p.Options.CacheRAM {
			t.Errorf("%s: a prompt cache of %v MiB, estimated with %v", p.Role, p.CacheRAM, p.Options.CacheRAM)
		}
	}
	if n := r.Plans[0].Breakdown.Settings.NCtx; n != 32768 {
		t.Errorf("a context of %d, want the trained one of 32768: the device has room", n)
	}
}

// TestPipelineCopiesAreAvoided plans a long context on two cards, whose compute
// buffers fit only where batches are not split over them.
func TestPipelineCopiesAreAvoided(t *testing.T) {
	m := fixture(t, "Gemma-4-26B-A4B-Q4_K_M")
	kv, outputs := true, 4
	r, err := Best(t.Context(), m, estimate.Options{Devices: cards(24576, 24576), NCtx: 1 << 20, NParallel: 4, KVUnified: &kv, NOutputs: &outputs}, Want{Prefer: Quality})
	if err != nil || len(r.Plans) == 0 {
		t.Fatal(err, r)
	}
	p := &r.Plans[0]
	holds(t, p)
	for _, u := range p.Breakdown.Host {
		if u.Model > 1<<30 || u.Context > 0 {
			t.Errorf("%d bytes of weights and %d of the cache are on the host, want them on the cards: %s", u.Model, u.Context, p.Why)
		}
	}
	if p.Breakdown.Settings.Pipeline {
		t.Errorf("batches are split over the cards: %s", p.Why)
	}
}

// TestUnequalCards holds plans for cards of different speed against the choice of
// llama.cpp's --fit.
func TestUnequalCards(t *testing.T) {
	for name, tt := range map[string]struct {
		model string
		cards []string
		free  []uint64 // MiB
		ctx   int
	}{
		"a slow card between others":   {"Qwen3.5-35B-A3B-Q4_K_M", []string{"RTX 4090", "GTX 1080 Ti", "Tesla T4"}, []uint64{24064, 8713, 15018}, 743936},
		"two that the model just fits": {"gpt-oss-20b-MXFP4", []string{"RTX 3060", "Tesla T4"}, []uint64{12032, 15018}, 426496},
		"a fast card with little left": {"Qwen2.5-32B-Q4_K_M", []string{"RTX 5090", "RTX 3060"}, []uint64{12288, 12032}, 8192},
		"a card that need not be used": {"Gemma-4-E4B-Q4_K_M", []string{"RTX 3060", "RTX 4090", "RTX 3060"}, []uint64{8192, 8192, 8192}, 8192},
	} {
		t.Run(name, func(t *testing.T) {
			m := fixture(t, tt.model)
			o := estimate.Options{NParallel: 1, NCtx: tt.ctx}
			for i, n := range tt.cards {
				c, err := hw.Lookup(n)
				if err != nil {
					t.Fatal(err)
				}
				d, err := c.Device()
				if err != nil {
					t.Fatal(err)
				}
				free := tt.free[i] << 20
				d.Index, d.MemoryFree = i, &free
				o.Devices = append(o.Devices, d)
			}
			theirs, _, err := estimate.Fit(m, o, estimate.FitOptions{})
			if err != nil {
				t.Fatal(err)
			}
			s, err := newSearch(t.Context(), m, o, Want{})
			if err != nil {
				t.Fatal(err)
			}
			want, err := speed.Estimate(m, theirs, s.w.Speed)
			if err != nil {
				t.Fatal(err)
			}
			r, err := Best(t.Context(), m, o, Want{})
			if err != nil || len(r.Plans) == 0 {
				t.Fatal(err, r)
			}
			p := &r.Plans[0]
			holds(t, p)
			if x := p.Speed.Decode.Mid / want.Decode.Mid; x < .99999 {
				t.Errorf("%.3f of the speed of llama.cpp's choice %.1f, -ts %v: %s, -ts %v", x, want.Decode.Mid, theirs.TensorSplit, p.Why, p.Options.TensorSplit)
			}
		})
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
			r, err := Best(t.Context(), m, estimate.Options{Devices: cards(uint64(a), uint64(b)), Host: host(uint64(gib)), NCtx: ctx, NParallel: 1}, Want{Alternatives: true})
			if err != nil {
				return
			}
			for i := range r.Plans {
				holds(t, &r.Plans[i])
			}
		}
	})
}
