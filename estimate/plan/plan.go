// Package plan searches the settings with which a model runs best on a machine:
// which layers and experts are where, how long the context is and of which type
// its cache, with the exact estimate as the judge. It proposes nothing that the
// estimate says does not fit, overheads and reserve included, and bounds the
// host's memory as well.
package plan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"weigh/estimate"
	"weigh/estimate/hw"
	"weigh/estimate/speed"
	"weigh/formats"
	"weigh/inspect/model"
)

// A Preference says what a plan gives most weight to.
type Preference string

// The preferences.
const (
	Speed   Preference = "speed"   // the fastest at the context asked for
	Context Preference = "context" // the longest context that stays usable
	Quality Preference = "quality" // like Speed, with nothing quantized that is not
)

// DefaultReserve is what a plan leaves free of each device: what a measurement
// can be off, and little things that come and go. Overheads are counted by
// themselves, so it is less than llama.cpp's 1 GiB.
const DefaultReserve = 256 << 20

// minContext is the context of a sequence that a plan is made for where none is
// asked for and the model was trained on as much.
const minContext = 8192

// A Want is what the user asks for beyond llama.cpp's settings. What these set is
// kept: layers, split, overrides, types, micro-batch, context.
type Want struct {
	MinTPS       float64    // least tokens per second when generating; 0: any
	Prefer       Preference // "": Speed
	Reserve      *uint64    // bytes to leave free of each device; nil: DefaultReserve
	KeepKVOnGPU  bool       // -kvo was said
	Speed        speed.Query
	Alternatives bool // look for two more plans, or for what would make one possible
}

// A Plan is one way to run the model.
type Plan struct {
	Role      string // "best", "longer context", "faster", "safer" …
	Why       string // it won, or lost against the best
	Options   estimate.Options
	Lean      int                 // --n-cpu-moe, of a dense model --n-cpu-ffn
	Kept      []estimate.Override // exceptions from Lean
	Breakdown *estimate.Breakdown
	Speed     *speed.Speed
	CacheRAM  *int // -cram that the host has room for, MiB; nil: the default fits
	full      bool // all layers are whole and on devices
}

// A Change is what would make a plan possible, the less harmful first.
type Change struct {
	What string
	Args []string // llama-server's flags for it
	Plan *Plan    // nil where the change is not to the settings
}

// A Result is what the search found.
type Result struct {
	Plans   []Plan   // best first; none when nothing fits
	Steps   []string // how it was found
	Changes []Change // when nothing fits
	Why     string   // nothing fits, or is fast enough
	Slow    bool     // something fits, but is not as fast as asked
}

// Best returns the best plan and, if asked for, two others. An error means that
// the question cannot be answered: llama.cpp refuses a setting, the flags
// contradict each other, or the memory of a device is not known.
//
// The search takes some tens of milliseconds, of many sequences and long contexts
// half a second; it stops with ctx, whose error it returns.
func Best(ctx context.Context, m *model.Model, o estimate.Options, w Want) (*Result, error) {
	s, err := newSearch(ctx, m, o, w)
	if err != nil {
		return nil, err
	}
	best, err := s.best()
	if err != nil {
		return nil, err
	}
	r := &Result{}
	switch {
	case best == nil:
		r.Why, r.Slow = s.why, s.slow
		if w.Alternatives {
			r.Changes = s.changes()
		}
	default:
		best.Role = "best"
		r.Plans = append(r.Plans, *best)
		if w.Alternatives {
			r.Plans = append(r.Plans, s.alternatives(best)...)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err // what was not found may be what was not looked for
	}
	r.Steps = s.steps
	return r, nil
}

// A search is a plan in the making.
type search struct {
	ctx   context.Context // of the call that it is for
	m     *model.Model
	o     estimate.Options
	w     Want
	room  []int64 // bytes of each device, reserve and what a system keeps taken off
	host  *uint64
	names []string // of the devices' buffers
	steps []string
	why   string  // the last try did not fit
	slow  bool    // what fits is too slow
	taken []int64 // of each device by compute buffers and overheads, at the last placement
}

func newSearch(ctx context.Context, m *model.Model, o estimate.Options, w Want) (*search, error) {
	s := &search{ctx: ctx, m: m, o: o, w: w}
	switch w.Prefer {
	case "":
		s.w.Prefer = Speed
	case Speed, Context, Quality:
	default:
		return nil, fmt.Errorf("--prefer %s: want speed, context or quality", w.Prefer)
	}
	if !(w.MinTPS >= 0) || math.IsInf(w.MinTPS, 1) {
		return nil, fmt.Errorf("--min-tps %v: want 0 or more", w.MinTPS)
	}
	if o.NCtx == 0 && m.NCtxTrain == 0 {
		return nil, estimate.NoContext()
	}
	most := s.perSeq(cmp.Or(o.NCtx, max(m.NCtxTrain, minContext)*s.streams()))
	if n := max(w.Speed.Depth, w.Speed.Prompt); n > most {
		return nil, fmt.Errorf("--depth and --prompt-tokens: %d tokens are more than the %d that a sequence holds", n, most)
	}
	reserve := uint64(DefaultReserve)
	if w.Reserve != nil {
		reserve = *w.Reserve
	}
	for i := range o.Devices {
		d := &o.Devices[i]
		b := hw.Usable(*d, reserve)
		if !b.Known {
			return nil, fmt.Errorf("device %d (%.80q): its free memory is not known: say it, as in --gpu %q or --rpc-memory", i, d.Name, "24GiB")
		}
		var room int64
		for _, l := range b.Lines {
			if l.Name != "own CUDA context" { // the estimate counts it
				room += l.Bytes
			}
		}
		s.room = append(s.room, room)
	}
	if b, _, ok := o.Host.Usable(); ok {
		s.host = &b
	}
	if s.w.Speed.Depth == 0 {
		s.w.Speed.Depth = min(4096, max(s.perSeq(cmp.Or(o.NCtx, s.wanted()))/2, 1))
	}
	return s, nil
}

// streams is the number of sequences that have a context of their own.
func (s *search) streams() int {
	if s.o.NParallel > 1 && (s.o.KVUnified == nil || !*s.o.KVUnified) {
		return s.o.NParallel
	}
	return 1
}

func (s *search) perSeq(ctx int) int { return ctx / s.streams() }

// wanted is the context to plan for where none is asked for.
func (s *search) wanted() int {
	return max(min(minContext, s.m.NCtxTrain), 1) * s.streams()
}

func (s *search) say(format string, args ...any) {
	s.steps = append(s.steps, fmt.Sprintf(format, args...))
}

func size(n int64) string {
	if n < 0 {
		return "-" + humanize.IBytesN(uint64(-n), 3)
	}
	return humanize.IBytesN(uint64(n), 3)
}

// fixed reports whether the user placed the layers.
func (s *search) fixed() bool {
	return s.o.NGPULayers != nil || len(s.o.Overrides) > 0 || slices.ContainsFunc(s.o.TensorSplit, func(f float32) bool { return f != 0 })
}

// estimate is one step of the search, of which nearly all of its time is made.
func (s *search) estimate(o estimate.Options) (*estimate.Breakdown, error) {
	if err := s.ctx.Err(); err != nil {
		return nil, err
	}
	return estimate.Run(s.m, o)
}

// run judges settings. over is by how much each device's room is exceeded, the
// host's last.
func (s *search) run(o *estimate.Options) (b *estimate.Breakdown, over []int64, fits bool, err error) {
	if b, err = s.estimate(*o); err != nil {
		return nil, nil, false, err
	}
	if over, fits = s.judge(b); !fits {
		return b, over, false, nil
	}
	if err := estimate.Grow(s.m, *o, b); err != nil {
		return nil, nil, false, err
	}
	over, fits = s.judge(b)
	return b, over, fits, nil
}

// judge holds a breakdown against the rooms.
func (s *search) judge(b *estimate.Breakdown) (over []int64, fits bool) {
	over = make([]int64, len(s.room)+1)
	fits = true
	var shared uint64
	for i := range b.Devices {
		d := &b.Devices[i]
		over[d.Device] = int64(d.Total()) - s.room[d.Device]
		if over[d.Device] > 0 {
			fits = false
			s.why = fmt.Sprintf("%s needs %s and has %s", d.Name, size(int64(d.Total())), size(max(s.room[d.Device], 0)))
		}
		shared += s.o.Devices[d.Device].OnHost(d.Total())
	}
	must, _ := hostNeed(b)
	if s.host != nil && must+shared > *s.host {
		fits = false
		over[len(s.room)] = int64(must + shared - *s.host)
		s.why = fmt.Sprintf("the host needs %s and has %s", size(int64(must+shared)), size(int64(*s.host)))
	}
	return over, fits
}

// hostNeed returns what the host must hold, and what may grow besides: the prompt
// cache and checkpoints.
func hostNeed(b *estimate.Breakdown) (must, grows uint64) {
	for i := range b.Host {
		must += b.Host[i].Total()
		for _, t := range b.Host[i].Terms {
			if t.Name == "prompt cache" || t.Name == "checkpoints" {
				grows += t.Bytes
			}
		}
	}
	return must - grows, grows
}

// plan makes a plan of settings that fit.
func (s *search) plan(o estimate.Options, l *layout, b *estimate.Breakdown) (*Plan, error) {
	p := &Plan{Options: o, Breakdown: b}
	if l != nil {
		p.full = l.full()
		p.Kept = l.exceptions(s.names)
		// Of the plan's own patterns some are for layers that have no such tensor.
		b.Notes = slices.DeleteFunc(b.Notes, func(n string) bool { return strings.HasPrefix(n, "-ot pattern") })
		if l.lean > l.cpu {
			p.Lean = min(l.lean, s.m.NLayerAll)
		}
	}
	sp, err := speed.Estimate(s.m, o, s.w.Speed)
	if err != nil {
		return nil, err
	}
	p.Speed = sp
	s.bound(p)
	return p, nil
}

// bound lowers the prompt cache to what the host has room for.
func (s *search) bound(p *Plan) {
	must, _ := hostNeed(p.Breakdown)
	if s.host == nil {
		return
	}
	for i := range p.Breakdown.Devices {
		d := &p.Breakdown.Devices[i]
		must += p.Options.Devices[d.Device].OnHost(d.Total())
	}
	for i := range p.Breakdown.Host {
		for _, t := range p.Breakdown.Host[i].Terms {
			switch t.Name {
			case "checkpoints":
				must += t.Bytes
			case "prompt cache":
				defer func() {
					if left := *s.host - min(must, *s.host); left < t.Bytes {
						mib := int(left >> 20)
						p.CacheRAM, p.Options.CacheRAM = &mib, &mib
						p.lowerCache(t.Bytes, uint64(mib)<<20)
					}
				}()
			}
		}
	}
}

// lowerCache puts the new limit of the prompt cache into the breakdown.
func (p *Plan) lowerCache(from, to uint64) {
	for i := range p.Breakdown.Host {
		h := &p.Breakdown.Host[i]
		for j := range h.Terms {
			if t := &h.Terms[j]; t.Name == "prompt cache" {
				t.Bytes = to
				h.Overhead -= from - to
			}
		}
	}
}

// place finds the fastest layout for the settings; nil when none fits.
func (s *search) place(o estimate.Options) (*Plan, *layout, error) {
	if s.fixed() || len(s.room) == 0 || o.SplitMode == estimate.SplitRow || o.SplitMode == estimate.SplitTensor {
		b, _, ok, err := s.run(&o)
		if err != nil || !ok {
			return nil, nil, err
		}
		p, err := s.plan(o, nil, b)
		return p, nil, err
	}
	t, err := s.table(o)
	if err != nil {
		return nil, nil, err
	}
	if s.host != nil {
		if all, have := t.everything(), s.everywhere(); all > have {
			s.why = fmt.Sprintf("weights and caches take %s, the devices and the host have %s", size(int64(all)), size(int64(have)))
			return nil, nil, nil
		}
	}
	// First everything on devices: what the graph takes is known after a run.
	open := slices.Repeat([]int64{1 << 60}, len(s.room))
	for i := len(open) - o.Spare; i < len(open); i++ {
		open[i] = -1 // not the model's
	}
	first := &layout{counts: t.spread(open, 0, 0)}
	if o.SplitMode == estimate.SplitNone {
		first.counts = make([]int, len(s.room))
		first.counts[min(max(o.MainGPU, 0), len(s.room)-1)] = len(t.layers)
	} else if s.names != nil && t.total() > s.rooms() {
		return s.settle(o, t, nil)
	}
	taken, err := s.besides(&o, first)
	if err != nil {
		return nil, nil, err
	}
	return s.settle(o, t, taken)
}

// everywhere is what the host and the devices with memory of their own have.
func (s *search) everywhere() uint64 {
	n := *s.host
	for i, r := range s.room {
		if !s.o.Devices[i].Unified {
			n += uint64(max(r, 0))
		}
	}
	return n
}

// rooms is the sum of the devices' rooms.
func (s *search) rooms() (n int64) {
	for _, r := range s.room {
		n += max(r, 0)
	}
	return n
}

// table measures the layers. Where the context can still grow, devices are filled
// equally, for that leaves room on each.
func (s *search) table(o estimate.Options) (*table, error) {
	return newTable(s.m, o, s.w.Speed, s.o.NCtx != 0)
}

// besides returns what each device holds besides weights and caches under a
// layout.
func (s *search) besides(o *estimate.Options, l *layout) ([]int64, error) {
	b, err := s.estimate(l.options(s.m, *o, s.names))
	if err != nil {
		return nil, err
	}
	if s.names == nil {
		s.names = make([]string, len(s.room))
	}
	for i := range b.Devices {
		s.names[b.Devices[i].Device] = b.Devices[i].Name
	}
	s.judge(b) // says why, should no layout be found
	return s.held(b), nil
}

// held returns what each device holds besides weights and caches. Of one that runs
// nothing yet it says the most of the others.
func (s *search) held(b *estimate.Breakdown) []int64 {
	held := make([]int64, len(s.room))
	for i := range held {
		held[i] = 1 << 60 // a device that is not used
	}
	var most uint64
	for i := range b.Devices {
		most = max(most, b.Devices[i].Compute)
	}
	for i := range b.Devices {
		d := &b.Devices[i]
		if d.Device >= len(s.room)-s.o.Spare {
			continue // not the model's
		}
		n := d.Compute + d.Overhead
		if d.Compute == 0 {
			n += most
		}
		for _, part := range b.Parts {
			for _, u := range part.Use {
				if u.Name == d.Name {
					n += u.Model + u.Context
				}
			}
		}
		held[d.Device] = int64(n)
	}
	return held
}

// left returns the rooms less what is taken of them.
func (s *search) left(taken []int64) []int64 {
	rooms := make([]int64, len(s.room))
	for i := range rooms {
		rooms[i] = s.room[i] - taken[i]
	}
	return rooms
}

// tries is how often a layout is drawn again after the estimate found it too
// large.
const tries = 6

// settle draws layouts until one fits: first those with all layers whole and on
// devices, unless what they hold besides is not given, then others. Their graph is
// another one, and llama.cpp splits no batch over several devices for it, which at
// long contexts takes less than a quarter of the compute buffers; so everything on
// devices can be among them too, with more on the faster of unequal devices.
func (s *search) settle(o estimate.Options, t *table, taken []int64) (best *Plan, at *layout, err error) {
	for _, whole := range []bool{true, false} {
		if whole && taken == nil {
			continue
		}
		if !whole {
			if taken == nil {
				taken = make([]int64, len(s.room))
			}
			l := s.draw(&o, t, s.left(taken), false)
			if l == nil {
				l = &layout{cpu: len(t.layers), counts: make([]int, len(s.room))}
			}
			if taken, err = s.besides(&o, l); err != nil {
				return nil, nil, err
			}
		}
		var last *layout
		for try := range tries {
			l := s.draw(&o, t, s.left(taken), whole)
			if l == nil {
				break
			}
			ro := l.options(s.m, o, s.names)
			b, over, ok, err := s.run(&ro)
			if err != nil {
				return nil, nil, err
			}
			if ok {
				p, err := s.plan(ro, l, b)
				if err != nil || whole && t.even() {
					s.taken = taken
					return p, l, err
				}
				if best == nil || p.Speed.Decode.Mid > best.Speed.Decode.Mid {
					s.taken = taken
					best, at = p, l
				}
				break
			}
			if over[len(s.room)] > 0 && !slices.ContainsFunc(over[:len(s.room)], func(n int64) bool { return n > 0 }) {
				return best, at, nil // the host has no room, and the devices are full
			}
			again := last != nil && l.cpu == last.cpu && l.lean == last.lean && slices.Equal(l.counts, last.counts)
			for i, n := range s.held(b) {
				if try > 0 {
					n = max(n, taken[i])
				}
				if again && over[i] > 0 {
					n += over[i]
				}
				taken[i] = n
			}
			last = l
		}
	}
	return best, at, nil
}

// draw returns the layout that reads fastest among those that fit the rooms by
// the table: for every number of layers on the host the fewest that must be lean.
// Either all layers are whole and on devices, or one at least is not by its flags.
func (s *search) draw(o *estimate.Options, t *table, rooms []int64, whole bool) *layout {
	var best *layout
	var most float64
	worse := 0
	for cpu := 0; cpu <= len(t.layers); cpu++ {
		lean, ok := t.leanest(rooms, cpu)
		if whole && (!ok || lean > 0) {
			return nil
		}
		if !ok {
			continue
		}
		l := &layout{cpu: cpu, lean: lean}
		switch {
		case lean == 0 && !whole:
			l.lean = 1
		case lean == cpu:
			l.lean = 0
		}
		if l.counts = t.spread(rooms, cpu, l.lean); l.counts == nil {
			continue
		}
		t.keep(l, rooms)
		sp := speed.Of(s.m, o, t.moved(l, o.NoKVOffload), s.w.Speed)
		if worse++; best == nil || sp.Decode.Mid > most {
			best, most, worse = l, sp.Decode.Mid, 0
		}
		if whole || worse == 8 { // more layers on the host only add to the time
			break
		}
	}
	return best
}

// promise returns the speed that a layout by the table alone has, with what the
// last placement held besides.
func (s *search) promise(o estimate.Options) float64 {
	t, err := s.table(o)
	if err != nil {
		return 0
	}
	l := s.draw(&o, t, s.left(s.taken), true)
	if l == nil {
		if l = s.draw(&o, t, s.left(s.taken), false); l == nil {
			return 0
		}
	}
	return speed.Of(s.m, &o, t.moved(l, o.NoKVOffload), s.w.Speed).Decode.Mid
}

// best returns the best plan, nil when none fits.
func (s *search) best() (*Plan, error) {
	o := s.o
	auto := o.NCtx == 0
	if auto {
		o.NCtx = s.wanted()
		s.say("no context is asked for: the placement is made for %d tokens", o.NCtx)
	}
	p, l, err := s.place(o)
	if err != nil {
		return nil, err
	}
	s.tell(p, l, &o)
	for _, v := range s.variants(p, l) {
		vo := o
		v.set(&vo)
		if p != nil && l != nil && v.byTable {
			if mid := s.promise(vo); mid < .98*v.worth*p.Speed.Decode.Mid {
				s.say("%s would give %.1f tokens per second instead of %.1f: not worth it", v.name, mid, p.Speed.Decode.Mid)
				continue
			}
		}
		q, ql, err := s.place(vo)
		if err != nil {
			var refused *estimate.RefusedError
			if errors.As(err, &refused) {
				continue
			}
			return nil, err
		}
		switch {
		case q == nil:
			s.say("with %s it does not fit either: %s", v.name, s.why)
		case p == nil || q.Speed.Decode.Mid >= v.worth*p.Speed.Decode.Mid:
			s.say("with %s: %s", v.name, s.summary(q, ql))
			p, l, o = q, ql, vo
		default:
			s.say("%s would give %.1f tokens per second instead of %.1f: not worth it", v.name, q.Speed.Decode.Mid, p.Speed.Decode.Mid)
		}
	}
	if p == nil {
		return nil, nil
	}
	if auto && s.w.Prefer == Context {
		if q, ql, qo := s.stretch(p, o); q != nil {
			p, l, o = q, ql, qo
		}
	}
	if auto {
		if p, err = s.lengthen(p, l, o); err != nil {
			return nil, err
		}
	}
	if p.Speed.Decode.Mid < s.w.MinTPS {
		s.slow = true
		s.why = fmt.Sprintf("the fastest placement gives %.1f tokens per second, %.1f are asked for", p.Speed.Decode.Mid, s.w.MinTPS)
		s.say("%s", s.why)
		return nil, nil
	}
	p.Why = s.summary(p, l)
	return p, nil
}

// tell narrates a placement.
func (s *search) tell(p *Plan, l *layout, o *estimate.Options) {
	if p == nil {
		s.say("at %d tokens nothing fits: %s", o.NCtx, s.why)
		return
	}
	for i := range p.Breakdown.Devices {
		d := &p.Breakdown.Devices[i]
		s.say("%s: %s weights + %s cache + %s compute + %s overhead = %s of %s", d.Name, size(int64(d.Model)), size(int64(d.Context)),
			size(int64(d.Compute)), size(int64(d.Overhead)), size(int64(d.Total())), size(s.room[d.Device]))
	}
	s.say("%s", s.summary(p, l))
}

// summary says where the layers are and how fast that is.
func (s *search) summary(p *Plan, l *layout) string {
	where := "placed as asked"
	what := "feed-forward weights"
	if s.m.NExpert > 0 {
		what = "experts"
	}
	switch {
	case l == nil && len(s.room) == 0:
		where = "all on the CPU"
	case l == nil:
	case l.full():
		where = fmt.Sprintf("all %d layers and the output on devices", s.m.NLayerAll)
	case l.allKept:
		where = fmt.Sprintf("all %d layers and the output on devices, named one by one so that batches are not split over them", s.m.NLayerAll)
	case l.lean > l.cpu && l.cpu == 0:
		where = fmt.Sprintf("all layers on devices, %s of the first %d on the host", what, min(l.lean, s.m.NLayerAll))
	case l.lean > l.cpu:
		where = fmt.Sprintf("%d layers on the host, %s of the next %d too", l.cpu, what, min(l.lean, s.m.NLayerAll)-l.cpu)
	default:
		where = fmt.Sprintf("%d of %d layers on the host", min(l.cpu, s.m.NLayerAll), s.m.NLayerAll)
	}
	if l != nil && len(l.kept) > 0 && !l.allKept {
		tensors := "1 tensor"
		if n := len(l.kept); n > 1 {
			tensors = fmt.Sprintf("%d tensors", n)
		}
		where += fmt.Sprintf(", but for %s there is room", tensors)
	}
	if s.o.TypeK == nil && p.Options.TypeK != nil {
		where += fmt.Sprintf(", a cache in %s", strings.ToLower(p.Options.TypeK.String()))
	}
	if !s.o.NoKVOffload && p.Options.NoKVOffload {
		where += ", the cache in host memory"
	}
	if s.o.NUBatch == 0 && p.Options.NUBatch != 0 {
		where += fmt.Sprintf(", a micro-batch of %d", p.Options.NUBatch)
	}
	if !s.m.CausalAttn {
		return fmt.Sprintf("%s: reads about %.0f tokens per second", where, p.Speed.Prefill.Mid)
	}
	return fmt.Sprintf("%s: about %.1f tokens per second", where, p.Speed.Decode.Mid)
}

// A variant is another setting that may make the rest faster.
type variant struct {
	name    string
	worth   float64 // times the speed that it must bring
	byTable bool    // its compute buffers are about the same
	set     func(o *estimate.Options)
}

// variants returns what is worth a try after a first placement.
func (s *search) variants(p *Plan, l *layout) (v []variant) {
	if p != nil && (l == nil || l.full()) {
		return nil
	}
	q8 := formats.Q8_0
	if s.o.TypeK == nil && s.o.TypeV == nil && s.w.Prefer != Quality && s.o.FlashAttn != estimate.FlashAttnOff {
		v = append(v, variant{"a cache in q8_0", 1.1, true, func(o *estimate.Options) { o.TypeK, o.TypeV = &q8, &q8 }})
	}
	if !s.o.NoKVOffload && !s.w.KeepKVOnGPU && len(s.room) > 0 {
		v = append(v, variant{"the cache in host memory", 1.1, true, func(o *estimate.Options) { o.NoKVOffload = true }})
	}
	if s.o.NUBatch == 0 && (p == nil || s.computes(p) > .03) {
		v = append(v, variant{"a micro-batch of 256", 1.1, false, func(o *estimate.Options) { o.NUBatch = 256 }})
	}
	return v
}

// stretch returns a placement for the longest context, the trained one or a half,
// a quarter … of it, that generates at least half as fast as p; with a cache in
// q8_0 where 16 bits do not. It returns nil when p's is the longest.
func (s *search) stretch(p *Plan, o estimate.Options) (*Plan, *layout, estimate.Options) {
	least := max(p.Speed.Decode.Mid/2, s.w.MinTPS)
	for n := s.m.NCtxTrain * s.streams(); n > o.NCtx; n /= 2 {
		c := o
		c.NCtx = n
		for range 2 {
			if q, l := s.again(c); q != nil && q.Speed.Decode.Mid >= least {
				s.say("%d tokens at %.1f tokens per second, more than half of the %.1f at %d", n, q.Speed.Decode.Mid, p.Speed.Decode.Mid, o.NCtx)
				return q, l, c
			}
			if !s.quantizable(&c) {
				break
			}
			c.TypeK, c.TypeV = &q8, &q8
		}
	}
	return nil, nil, o
}

// lengthen gives the context what the devices have left when all layers are on
// them already.
func (s *search) lengthen(p *Plan, l *layout, o estimate.Options) (*Plan, error) {
	if l != nil && !l.full() {
		return p, nil // it would cost speed
	}
	longer, err := s.longest(p, o)
	if err != nil || longer == nil {
		return p, err
	}
	s.say("memory is left: the context grows from %d to %d tokens", p.Breakdown.Settings.NCtx, longer.Breakdown.Settings.NCtx)
	return longer, nil
}

// cachesFit reports whether the host has room for its caches at their limits too.
func (s *search) cachesFit(b *estimate.Breakdown) bool {
	must, grows := hostNeed(b)
	for i := range b.Devices {
		d := &b.Devices[i]
		must += s.o.Devices[d.Device].OnHost(d.Total())
	}
	return s.host == nil || must+grows <= *s.host
}

// longest returns the plan with the longest context at the placement of p, nil
// when p has it.
func (s *search) longest(p *Plan, o estimate.Options) (*Plan, error) {
	streams := s.streams()
	lo, hi := p.Breakdown.Settings.NCtx, s.m.NCtxTrain*streams
	if hi <= lo {
		return nil, nil
	}
	po := p.Options
	po.CacheRAM = s.o.CacheRAM
	lowered := p.CacheRAM != nil // the host's prompt cache has what is left, however long the context
	if !lowered && !s.cachesFit(p.Breakdown) {
		return nil, nil
	}
	var best *estimate.Breakdown
	try := func(ctx int) (bool, []int64, error) {
		po.NCtx = ctx
		b, over, ok, err := s.run(&po)
		if ok = ok && (lowered || s.cachesFit(b)); ok {
			best, lo = b, ctx
		}
		return ok, over, err
	}
	ok, over, err := try(hi)
	if err != nil {
		return nil, err
	}
	base := p.Breakdown
	for range 12 {
		if ok || hi-lo <= 256*streams {
			break
		}
		// Memory is a straight line of the context but for rounding: aim at where
		// the fullest device is full.
		next := hi
		for i := range base.Devices {
			d := &base.Devices[i]
			if over[d.Device] <= 0 {
				continue
			}
			left := s.room[d.Device] - int64(d.Total())
			span := over[d.Device] + left
			next = min(next, p.Breakdown.Settings.NCtx+int(float64(hi-p.Breakdown.Settings.NCtx)*float64(left)/float64(max(span, 1))))
		}
		next = next / (256 * streams) * (256 * streams)
		if next <= lo || next >= hi {
			next = (lo + hi) / 2 / (256 * streams) * (256 * streams)
		}
		if next <= lo {
			break
		}
		fits, o2, err := try(next)
		if err != nil {
			return nil, err
		}
		if !fits {
			hi, over = next, o2
		} else if hi-next > hi/32 {
			continue
		} else {
			break
		}
	}
	if best == nil {
		return nil, nil
	}
	po.NCtx = lo
	q, err := s.plan(po, nil, best)
	if err != nil {
		return nil, err
	}
	q.Lean, q.Kept, q.full = p.Lean, p.Kept, p.full
	return q, nil
}

// computes is the part of the devices' rooms that compute buffers take.
func (s *search) computes(p *Plan) float64 {
	var compute, room float64
	for i := range p.Breakdown.Devices {
		d := &p.Breakdown.Devices[i]
		compute += float64(d.Compute)
		room += float64(max(s.room[d.Device], 0))
	}
	return compute / max(room, 1)
}
