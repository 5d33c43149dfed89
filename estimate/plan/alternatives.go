package plan

import (
	"fmt"

	"weigh/estimate"
	"weigh/formats"
)

// maxAlternatives is the number of plans besides the best.
const maxAlternatives = 2

// alternatives returns plans that are better than the best in one thing, with
// what they cost. What cannot be found is left out.
func (s *search) alternatives(best *Plan) []Plan {
	var plans []Plan
	for _, find := range []func(*Plan) *Plan{s.longerContext, s.faster, s.safer, s.fasterPrompt} {
		if len(plans) == maxAlternatives {
			break
		}
		if p := find(best); p != nil {
			plans = append(plans, *p)
		}
	}
	return plans
}

// again searches a placement for other settings, without telling.
func (s *search) again(o estimate.Options) (*Plan, *layout) {
	p, l, err := s.place(o)
	if err != nil {
		return nil, nil // llama.cpp refuses the settings
	}
	return p, l
}

// open returns the settings asked for with what the best plan chose besides the
// placement.
func (s *search) open(best *Plan) estimate.Options {
	o := s.o
	o.NCtx = best.Breakdown.Settings.NCtx
	o.TypeK, o.TypeV, o.NUBatch, o.NoKVOffload = best.Options.TypeK, best.Options.TypeV, best.Options.NUBatch, best.Options.NoKVOffload
	return o
}

func (s *search) quantizable(o *estimate.Options) bool {
	return s.o.TypeK == nil && s.o.TypeV == nil && o.TypeK == nil && s.w.Prefer != Quality && s.o.FlashAttn != estimate.FlashAttnOff
}

var q8 = formats.Q8_0

// longerContext has a cache of half the size or leaves more on the host.
func (s *search) longerContext(best *Plan) *Plan {
	most := s.m.NCtxTrain * s.streams()
	ctx := best.Breakdown.Settings.NCtx
	if s.o.NCtx != 0 && best.Options.NCtx >= most || ctx >= most {
		return nil
	}
	o := s.open(best)
	quantized := s.quantizable(&o)
	if quantized {
		o.TypeK, o.TypeV = &q8, &q8
	}
	p, l := s.again(o)
	if p == nil {
		return nil
	}
	if l == nil || l.full() {
		if q, err := s.longest(p, o); err == nil && q != nil {
			p = q
		}
	}
	if p.Breakdown.Settings.NCtx < 2*ctx { // what a smaller cache allows is not much: move weights out
		o.NCtx = min(4*ctx, most)
		if q, _ := s.again(o); q != nil {
			p = q
		}
	}
	n := p.Breakdown.Settings.NCtx
	if n < ctx+ctx/4 {
		return nil
	}
	p.Role = "longer context"
	p.Why = fmt.Sprintf("%d tokens instead of %d, at %.1f tokens per second instead of %.1f", n, ctx, p.Speed.Decode.Mid, best.Speed.Decode.Mid)
	if quantized {
		p.Why += ", with a cache in q8_0"
	}
	return p
}

// faster gives up half of the context, or 16 bits of the cache.
func (s *search) faster(best *Plan) *Plan {
	o := s.open(best)
	var found *Plan
	why := ""
	try := func(v estimate.Options, name string) {
		if p, _ := s.again(v); p != nil && p.Speed.Decode.Mid > 1.05*best.Speed.Decode.Mid && (found == nil || p.Speed.Decode.Mid > 1.05*found.Speed.Decode.Mid) {
			found, why = p, name
		}
	}
	if s.quantizable(&o) {
		v := o
		v.TypeK, v.TypeV = &q8, &q8
		try(v, "a cache in q8_0")
	}
	if s.perSeq(o.NCtx) > 4096 {
		v := o
		v.NCtx = max(o.NCtx/4, 4096*s.streams())
		try(v, fmt.Sprintf("a context of %d", v.NCtx))
	}
	if found == nil {
		return nil
	}
	found.Role = "faster"
	found.Why = fmt.Sprintf("%.1f tokens per second instead of %.1f, with %s", found.Speed.Decode.Mid, best.Speed.Decode.Mid, why)
	return found
}

// llamaReserve is what llama.cpp's --fit leaves free of each device.
const llamaReserve = 1 << 30

// safer leaves as much free as llama.cpp does, and the overheads besides.
func (s *search) safer(best *Plan) *Plan {
	if len(s.room) == 0 || s.w.Reserve != nil && *s.w.Reserve >= llamaReserve {
		return nil
	}
	w := s.w
	reserve := uint64(llamaReserve)
	w.Reserve = &reserve
	t, err := newSearch(s.ctx, s.m, s.o, w)
	if err != nil {
		return nil
	}
	o := s.open(best)
	p, l := t.again(o)
	if s.o.NCtx == 0 && best.full && (p == nil || l != nil && !l.full()) { // a shorter context rather than layers on the host
		for ctx := o.NCtx / 2; p == nil || !l.full(); ctx /= 2 {
			if s.perSeq(ctx) < 4096 {
				break
			}
			o.NCtx = ctx / 256 * 256
			p, l = t.again(o)
		}
	}
	if p == nil || p.Breakdown.Settings.NCtx == o.NCtx && o.NCtx == best.Breakdown.Settings.NCtx && p.Speed.Decode.Mid >= best.Speed.Decode.Mid {
		return nil // the best leaves as much already
	}
	p.Role = "safer"
	p.Why = fmt.Sprintf("leaves 1 GiB of each device besides the overheads, as llama.cpp's --fit does: %d tokens of context, %.1f tokens per second instead of %.1f",
		p.Breakdown.Settings.NCtx, p.Speed.Decode.Mid, best.Speed.Decode.Mid)
	return p
}

// fasterPrompt reads prompts in larger micro-batches.
func (s *search) fasterPrompt(best *Plan) *Plan {
	if s.o.NUBatch != 0 {
		return nil
	}
	o := s.open(best)
	o.NUBatch = 2048
	p, _ := s.again(o)
	if p == nil || p.Speed.Prefill.Mid < 1.1*best.Speed.Prefill.Mid {
		return nil
	}
	p.Role = "faster prompt"
	p.Why = fmt.Sprintf("prompts at %.0f tokens per second instead of %.0f, answers at %.1f instead of %.1f",
		p.Speed.Prefill.Mid, best.Speed.Prefill.Mid, p.Speed.Decode.Mid, best.Speed.Decode.Mid)
	return p
}

// changes returns what would make the model fit, in order of harm: changes of
// flags that cost little first, then those that cost quality or context, then
// giving up what the user fixed.
func (s *search) changes() (c []Change) {
	type change struct {
		what string
		args []string
		set  func(o *estimate.Options, w *Want)
	}
	none := uint64(0)
	q4 := formats.Q4_0
	half := func(o *estimate.Options, n int) { o.NCtx = max(pad(n), 256*s.streams()) }
	list := []change{
		{"leave nothing free of the devices", []string{"--reserve", "0B"}, func(_ *estimate.Options, w *Want) { w.Reserve = &none }},
		{"a micro-batch of 128", []string{"-ub", "128"}, func(o *estimate.Options, _ *Want) { o.NUBatch = 128 }},
		{"a cache in q8_0", []string{"-ctk", "q8_0", "-ctv", "q8_0"}, func(o *estimate.Options, _ *Want) { o.TypeK, o.TypeV = &q8, &q8 }},
		{"let the placement be chosen", nil, func(o *estimate.Options, _ *Want) { o.NGPULayers, o.TensorSplit, o.Overrides = nil, nil, nil }},
		{"the cache in host memory", []string{"-nkvo"}, func(o *estimate.Options, _ *Want) { o.NoKVOffload = true }},
	}
	if len(s.o.Devices) > 0 {
		list = append(list, change{"leave the devices alone and run on the CPU", []string{"-dev", "none"}, func(o *estimate.Options, _ *Want) {
			own := len(o.Devices) - o.Spare
			o.Devices, o.NGPULayers, o.TensorSplit, o.Overrides = o.Devices[own:], nil, nil, nil
			if p := o.MMProj; p != nil && (o.MMProjDevice == nil || *o.MMProjDevice < own) { // it follows the model
				onCPU := *p
				onCPU.OnCPU = true
				o.MMProj, o.MMProjDevice = &onCPU, nil
			} else if p != nil {
				at := *o.MMProjDevice - own
				o.MMProjDevice = &at
			}
		}})
	}
	asked := s.o.NCtx
	if asked == 0 {
		asked = s.wanted()
	}
	for n := asked / 2; s.perSeq(n) >= 1024; n /= 2 {
		list = append(list, change{fmt.Sprintf("a context of %d", pad(n)), []string{"-c", fmt.Sprint(pad(n))}, func(o *estimate.Options, _ *Want) { half(o, n) }})
	}
	list = append(list, change{"a cache in q4_0 and a context of 4096", []string{"-c", "4096", "-ctk", "q4_0", "-ctv", "q4_0"}, func(o *estimate.Options, _ *Want) {
		o.TypeK, o.TypeV = &q4, &q4
		half(o, min(4096*s.streams(), asked))
	}})
	seen := map[string]bool{}
	for _, ch := range list {
		kind := ch.what
		if len(ch.args) > 1 {
			kind = ch.args[0]
		}
		if seen[kind] { // a shorter context still
			continue
		}
		o, w := s.o, s.w
		w.Alternatives = false
		o.NCtx = asked
		ch.set(&o, &w)
		t, err := newSearch(s.ctx, s.m, o, w)
		if err != nil {
			continue
		}
		p, l := t.again(o)
		if p == nil || p.Speed.Decode.Mid < s.w.MinTPS {
			continue
		}
		seen[kind] = true
		p.Role, p.Why = "change", t.summary(p, l)
		c = append(c, Change{What: ch.what, Args: ch.args, Plan: p})
	}
	return c
}

func pad(n int) int { return (n + 255) / 256 * 256 }
