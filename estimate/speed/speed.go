// Package speed estimates tokens per second: the bytes that a token really
// reads over the bandwidth of the memory they lie in, the operations of a prompt
// over the throughput of the device that does them. Its efficiencies are fitted
// to users' reports and never let a figure exceed what the memory can deliver.
package speed

import (
	"cmp"
	"fmt"
	"slices"

	"weigh/estimate"
	"weigh/estimate/hw"
	"weigh/inspect/model"
)

// A Range is tokens per second: Mid is the estimate, and four of five reports lie
// between Low and High. High never exceeds what peak bandwidth allows.
type Range struct{ Low, Mid, High float64 }

// A Query says at which lengths the speed is asked for.
type Query struct {
	Depth   int      // tokens in the cache while generating; 0: 4096, at most half a sequence's context
	Prompt  int      // tokens of the prompt; 0: 2048, at most a sequence's context
	Factors *Factors // nil: [Fitted]
}

// A Term is a part of the time of one generated token.
type Term struct {
	Name    string
	Bytes   uint64  // read
	Seconds float64 // of the token
	Why     string
}

// A Speed is what a placement delivers for one sequence.
type Speed struct {
	Decode, Prefill Range    // tokens per second
	FirstToken      float64  // seconds until the prompt is read, from Prefill.Mid
	Depth, Prompt   int      // that it holds for
	Terms           []Term   // of a generated token, the estimate
	Basis           string   // where the efficiencies are from, and what was assumed
	Assumed         []string // bandwidths that are not known
}

// Figures taken where the machine does not say its own.
const (
	assumedDevice  = 448e9 // bytes per second of a device of unknown make: a card of the middle class
	assumedHost    = 51.2e9
	assumedLink    = 12.6e9 // PCIe 3.0 x16 less its protocol
	assumedCores   = 8
	coreFlops      = 100e9 // of a core with 256-bit vectors, in matrix products
	flopsPerByte   = 80    // of a device of which only the bandwidth is known
	appleFlops     = 38    // the same of Apple's, which have no matrix units before the fifth generation
	linkEfficiency = 0.8
	switchSeconds  = 15e-6  // from one backend to another and the copy between
	remoteSeconds  = 200e-6 // the same over a network
	offloadTokens  = 32     // a batch from which weights of the host are sent to a device (ggml-cuda's op offload)
)

// Estimate returns the speed of m with the settings o.
func Estimate(m *model.Model, o estimate.Options, q Query) (*Speed, error) {
	uses, err := estimate.Uses(m, o)
	if err != nil {
		return nil, err
	}
	return Of(m, &o, uses, q), nil
}

// A place is a device, or the host, as the speed depends on it.
type place struct {
	factor   *Factor
	name     string
	bps      float64 // peak bandwidth, bytes per second
	flops    float64 // peak matrix rate
	link     float64 // bytes per second from the host
	remote   bool
	assumed  string  // what was taken for its bandwidth, where that is not known
	work     Work    // for a token
	ops      float64 // multiplications for a token, caches apart
	cacheOps float64 // of attention, at the depth
	resident uint64  // weights, all experts
	layers   int     // that run here
	partial  int     // layers that run elsewhere with weights or caches from here
}

// Of is [Estimate] for uses that are already known. Of a model that generates
// nothing, Decode is the speed of single tokens.
func Of(m *model.Model, o *estimate.Options, uses []estimate.Use, q Query) *Speed {
	f := q.Factors
	if f == nil {
		f = Fitted()
	}
	s := &Speed{Depth: q.Depth, Prompt: q.Prompt, Basis: f.Source}
	seq := cmp.Or(o.NCtx, m.NCtxTrain)
	if o.NParallel > 1 && (o.KVUnified == nil || !*o.KVUnified) {
		seq /= o.NParallel
	}
	if s.Depth == 0 {
		s.Depth = min(4096, max(seq/2, 1))
	}
	if s.Prompt == 0 {
		s.Prompt = min(2048, max(seq, 1))
	}
	places := s.places(o, f)
	s.tally(places, uses, m.NLayerAll)
	for i := range places {
		if p := &places[i]; p.assumed != "" && p.layers+p.partial > 0 && !slices.Contains(s.Assumed, p.assumed) {
			s.Assumed = append(s.Assumed, p.assumed)
		}
	}
	s.decode(places, m)
	s.prefill(places, o)
	return s
}

// places returns the host at 0 and device i at i+1.
func (s *Speed) places(o *estimate.Options, f *Factors) []place {
	p := make([]place, len(o.Devices)+1)
	h := &p[0]
	*h = place{factor: &f.Host, name: "host", bps: float64(o.Host.BandwidthBps)}
	cores := o.Host.Cores
	if cores == 0 {
		cores = assumedCores
	}
	h.flops = float64(cores) * coreFlops
	for i := range o.Devices {
		d := &o.Devices[i]
		v := &p[i+1]
		*v = place{factor: f.of(d), name: d.Name, bps: float64(d.BandwidthBps), flops: float64(max(d.FP16Flops, d.FP32Flops)), remote: d.Remote != ""}
		if v.bps == 0 {
			v.bps = assumedDevice
			v.assumed = fmt.Sprintf("%.0f GB/s for %s", v.bps/1e9, d.Name)
		}
		if v.flops == 0 {
			v.flops = flopsPerByte * v.bps
			if d.Backend == hw.Metal {
				v.flops = appleFlops * v.bps
			}
		}
		v.link = float64(d.PCIe.Bps()) * linkEfficiency
		switch {
		case v.remote:
			v.link = float64(d.LinkBps)
		case d.Unified:
			v.link = v.bps
			h.bps = max(h.bps, v.bps)
		}
		if v.link == 0 {
			v.link = assumedLink * linkEfficiency
		}
	}
	if h.bps == 0 {
		h.bps = assumedHost
		h.assumed = fmt.Sprintf("%.1f GB/s for the host's memory", h.bps/1e9)
	}
	return p
}

// What is read, as index into a Work's bytes.
const (
	readWeights = iota
	readExperts
	readCaches
)

// Work is what a token asks of a device.
type Work struct {
	bytes     [3]uint64  // read
	unpacked  [2]float64 // weights among the first two
	operators int
}

// Add adds a use, at a depth.
func (w *Work) Add(u *estimate.Use, depth int) {
	w.operators += u.Operators
	if u.Tensor < 0 {
		n := u.Read
		if u.Cells > 0 {
			n *= uint64(min(max(depth, 1), u.Cells))
		}
		w.bytes[readCaches] += n
		return
	}
	kind := readWeights
	if u.Experts {
		kind = readExperts
	}
	w.bytes[kind] += u.Read
	w.unpacked[kind] += float64(u.Ops)
}

// read returns the seconds that reading and unpacking one kind of w take.
func (f *Factor) read(w *Work, kind int, bps float64) float64 {
	part := [...]float64{f.Weights, f.Experts, f.Cache}[kind]
	n := float64(w.bytes[kind])
	if kind < len(w.unpacked) {
		n += f.Unpack * w.unpacked[kind]
	}
	return n / (part * bps)
}

// A Rate says how fast a device is.
type Rate struct {
	f   Factor
	bps float64
	Hop float64 // seconds to hand it a token's hidden state
}

// Seconds is the time that the device takes for w.
func (r *Rate) Seconds(w *Work) float64 {
	t := float64(w.operators) * r.f.Operator
	for kind := range w.bytes {
		t += r.f.read(w, kind, r.bps)
	}
	return t
}

// Rates returns the rates of the host first, then of each device.
func Rates(m *model.Model, o *estimate.Options, f *Factors) []Rate {
	if f == nil {
		f = Fitted()
	}
	places := (&Speed{}).places(o, f)
	r := make([]Rate, len(places))
	for i := range places {
		p := &places[i]
		r[i] = Rate{f: *p.factor, bps: p.bps, Hop: p.hop(m)}
	}
	return r
}

// hop is the time to hand a token's hidden state to the place.
func (p *place) hop(m *model.Model) float64 {
	each, link := switchSeconds, p.link
	if p.remote {
		each = remoteSeconds
	}
	if link == 0 {
		link = assumedLink
	}
	return each + float64(4*m.NEmbd)/link
}

// tally sums what is read from each place.
func (s *Speed) tally(places []place, uses []estimate.Use, layers int) {
	counted, partial := make([]bool, layers+1), make([]bool, len(places)*(layers+1))
	for i := range uses {
		u := &uses[i]
		p := &places[u.Device+1]
		p.work.Add(u, s.Depth)
		switch {
		case u.Operators > 0:
			continue
		case u.Tensor < 0:
			if u.Cells == 0 {
				continue
			}
			p.cacheOps += float64(u.Ops) * float64(min(s.Depth, u.Cells))
		case u.Ops == 0:
			continue
		default:
			p.ops += float64(u.Ops)
			p.resident += u.Bytes
			if u.Bytes == 0 { // shared with another use
				p.resident += u.Read
			}
		}
		if u.Layer < 0 || u.Layer > layers {
			continue
		}
		if !counted[u.Layer] {
			counted[u.Layer] = true
			places[u.Home+1].layers++
		}
		if at := (u.Device+1)*(layers+1) + u.Layer; u.Device != u.Home && !partial[at] {
			partial[at] = true
			p.partial++
		}
	}
}

// decode sets the time of one generated token.
func (s *Speed) decode(places []place, m *model.Model) {
	var mid, bound float64 // seconds
	add := func(name string, bytes uint64, seconds float64, format string, args ...any) {
		if seconds > 1e-7 {
			s.Terms = append(s.Terms, Term{name, bytes, seconds, fmt.Sprintf(format, args...)})
		}
		mid += seconds
	}
	for i := range places {
		p := &places[i]
		f := p.factor
		for kind, n := range p.work.bytes {
			what := [...]string{"weights", "experts", "cache"}[kind]
			seconds := f.read(&p.work, kind, p.bps)
			add(p.name+" "+what, n, seconds, "at %.0f%% of %.0f GB/s", 100*float64(n)/max(seconds*p.bps, 1), p.bps/1e9)
			bound += float64(n) / p.bps
		}
		if i == 0 { // a processor can be slower than its memory
			read := f.read(&p.work, readWeights, p.bps) + f.read(&p.work, readExperts, p.bps)
			add("host products", 0, max(2*p.ops/(p.flops*f.Compute)-read, 0), "%d million operations take longer than the reading", int(2*p.ops/1e6))
			add("host attention", 0, 2*p.cacheOps/(p.flops*f.Compute), "%d million operations", int(2*p.cacheOps/1e6))
		}
		n := p.work.operators
		add(p.name+" operators", 0, float64(n)*f.Operator, "%d operators, %.1f µs each whatever their size", n, f.Operator*1e6)
		add("to "+p.name+" and back", 0, 2*float64(p.partial)*p.hop(m), "%d layers are partly there", p.partial)
		if i > 0 && p.layers > 0 {
			add("to "+p.name, 0, p.hop(m), "one hidden state")
		}
	}
	spread := s.spread(places)
	s.Decode = rates(mid, bound, spread)
}

// assumedSpread is how far a speed can be off where a bandwidth that it hangs on
// was assumed.
const assumedSpread = 2

// spread returns how far reports lie from the estimate: the most of all places
// that weights are read from.
func (s *Speed) spread(places []place) float64 {
	spread := 1.0
	for i := range places {
		p := &places[i]
		if p.layers+p.partial == 0 {
			continue
		}
		spread = max(spread, p.factor.Spread)
		if p.assumed != "" {
			spread = max(spread, assumedSpread)
		}
	}
	return spread
}

// rates turns seconds per token, and those that nothing can undercut, into a
// range.
func rates(seconds, bound, spread float64) Range {
	if seconds <= 0 {
		return Range{}
	}
	r := Range{Low: 1 / seconds / spread, Mid: 1 / seconds, High: spread / seconds}
	if bound > 0 {
		r.High = min(r.High, 1/bound)
		r.Mid = min(r.Mid, r.High)
	}
	return r
}

// prefill sets the time to read a prompt.
func (s *Speed) prefill(places []place, o *estimate.Options) {
	batch := min(cmp.Or(o.NUBatch, 512), cmp.Or(o.NBatch, 2048), s.Prompt)
	batches := (s.Prompt + batch - 1) / batch
	tokens := float64(s.Prompt)
	main := 0 // device that takes products of the host's weights
	if len(o.Devices) > 0 && !o.NoOpOffload && batch >= offloadTokens && !places[1].remote {
		main = 1
	}
	var total, bound, slowest float64
	for i := range places {
		p := &places[i]
		if p.resident == 0 && p.cacheOps == 0 {
			continue
		}
		at := p
		var stream float64
		if i == 0 && main > 0 {
			at = &places[main]
			stream = float64(p.resident) / at.link * float64(batches)
		}
		ops := 2 * p.ops * tokens
		compute := ops / (at.flops * at.factor.Compute)
		compute += 2 * p.cacheOps / float64(max(s.Depth, 1)) * tokens * tokens / 2 / (p.flops * p.factor.Compute)
		read := float64(p.resident) / (at.factor.Weights * at.bps) * float64(batches)
		own := max(compute, read) + stream + float64(p.work.operators*batches)*p.factor.Operator
		total += own
		slowest = max(slowest, own)
		bound += ops / at.flops
	}
	if devices := len(o.Devices); devices > 1 && places[0].layers == 0 && batches > 1 {
		total = total/float64(batches) + slowest*float64(batches-1)/float64(batches)
	}
	if total <= 0 {
		return
	}
	s.Prefill = rates(total/tokens, bound/tokens/float64(max(len(o.Devices), 1)), max(s.spread(places), 1.5))
	s.FirstToken = tokens / s.Prefill.Mid
}
