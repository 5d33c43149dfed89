package estimate

import (
	"fmt"
	"math"
	"slices"

	"weigh/estimate/hw"
	"weigh/inspect/model"
)

// FitOptions are the parameters of --fit. The zero value is llama-server's
// default.
type FitOptions struct {
	Target []uint64 // bytes to leave free on each device (--fit-target); the last counts for the rest; none: 1 GiB
	MinCtx int      // context for each stream below which it is not reduced (--fit-ctx); 0: 4096
}

// An UnfitError says why --fit could not place the model. llama.cpp then goes
// on with the settings as they are, the context maybe reduced.
type UnfitError struct{ Why string }

func (e *UnfitError) Error() string { return "--fit: " + e.Why }

// DefaultFitTarget is what --fit leaves free on each device, bytes, and
// defaultFitCtx the context that it keeps (common/common.h@v0.5.0,
// common_params).
const (
	DefaultFitTarget = 1 << 30
	defaultFitCtx    = 4096
)

// maxOverrides is the most override patterns that llama.cpp holds, the
// terminating one included (llama_max_tensor_buft_overrides).
const maxOverrides = 4096

// Fit returns the settings that llama-server chooses for what is left open in
// o, so that every device keeps its target free, and how it comes to them. With
// an [*UnfitError] the options are those it goes on with.
//
// Source: common/fit.cpp@v0.5.0, common_params_fit_impl.
func Fit(m *model.Model, o Options, f FitOptions) (Options, []string, error) {
	t := &fitter{m: m, o: o, f: f}
	err := t.fit()
	return t.o, t.steps, err
}

// A fraction is the part of a mixture-of-experts layer that stays on its
// device; the rest overflows.
type fraction uint8

const (
	fractionMoE  fraction = iota // all but the experts
	fractionAttn                 // attention only
	fractionUp                   // attention and up
	fractionGate                 // attention, up and gate
)

// pattern returns the tensors of layer il that overflow.
func (f fraction) pattern(il int) string {
	rest := [...]string{`(up|down|gate_up|gate)_(ch|)exps`, `(gate|up|gate_up|down).*`, `(gate|gate_up|down).*`, `down.*`}[f]
	return fmt.Sprintf(`blk\.%d\.ffn_%s`, il, rest)
}

func (f fraction) String() string {
	return [...]string{"all but its experts", "attention", "attention and up", "attention, up and gate"}[f]
}

// A share is what one device holds.
type share struct {
	layers  int // whole and partial ones
	partial int // of them, those that overflow in part; the first by overflow, the others by their experts
	first   fraction
	to      int // device that the first partial layer overflows to, -1 for the CPU
}

func (s *share) full() int { return s.layers - s.partial }

// use is the memory of one measurement.
type use struct {
	names       []string // of the devices
	total       []int64  // by device, bytes
	weights     []int64  // of total
	model       int64    // weights on all devices
	host        int64
	hostWeights int64 // of host
}

func (u *use) sum() (n int64) {
	for _, b := range u.total {
		n += b
	}
	return n
}

type fitter struct {
	m     *model.Model
	o     Options
	f     FitOptions
	steps []string

	extra    *use // of the draft, at extraCtx
	extraCtx int

	devices []hw.Device
	names   []string
	layers  int // hp_ngl: the layers that are loaded
	free    []int64
	target  []int64 // most memory to use, by device
	shares  []share
	mem     []int64
}

func (t *fitter) say(format string, args ...any) {
	t.steps = append(t.steps, fmt.Sprintf(format, args...))
}

// measure returns what the model takes with the options, and the extra one at
// the same context; llama.cpp measures a draft without the model it drafts for.
func (t *fitter) measure(o *Options) (*use, error) {
	u, err := measure(t.m, o)
	if err != nil || t.o.Draft == nil {
		return u, err
	}
	if t.extra == nil || t.extraCtx != o.NCtx {
		t.extraCtx = o.NCtx
		e := t.o.Draft.Options
		e.NCtx = o.NCtx
		if e.Devices == nil {
			e.Devices, e.Spare = o.Devices, o.Spare
		}
		t.extra = &use{total: make([]int64, len(u.total)), names: u.names}
		measured, err := measure(t.o.Draft.Model, &e)
		if err != nil {
			t.say("the draft cannot be measured, fitting without it: %v", err)
		} else {
			t.extra.lay(measured, t.o.Draft.Shares)
		}
	}
	for i := range u.total {
		u.total[i] += t.extra.total[i]
	}
	u.model += t.extra.model
	u.host += t.extra.host
	return u, nil
}

// lay adds on the devices of u what another model takes of them, whose weights
// are u's own when it shares them.
func (u *use) lay(other *use, shares bool) {
	u.host += other.host
	if shares {
		u.host -= other.hostWeights
	}
	for j, name := range other.names {
		i := slices.Index(u.names, name)
		if i < 0 {
			continue
		}
		u.total[i] += other.total[j]
		if shares {
			u.total[i] -= other.weights[j]
		} else {
			u.model += other.weights[j]
		}
	}
}

func measure(m *model.Model, o *Options) (*use, error) {
	b, err := measured(m, o)
	if err != nil {
		return nil, err
	}
	u := &use{total: make([]int64, len(b.Devices)), weights: make([]int64, len(b.Devices))}
	for i := range b.Devices {
		d := &b.Devices[i]
		u.names = append(u.names, d.Name)
		u.total[i] = int64(d.Model + d.Context + d.Compute)
		u.weights[i] = int64(d.Model)
		u.model += int64(d.Model)
	}
	for i := range b.Host {
		if h := &b.Host[i]; h.Name != "CPU_REPACK" { // llama.cpp does not take it for host memory
			u.host += int64(h.Model + h.Context + h.Compute)
			u.hostWeights += int64(h.Model)
		}
	}
	return u, nil
}

func mib(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }

func (t *fitter) fit() error {
	if t.o.SplitMode == SplitTensor {
		return &UnfitError{"not implemented for -sm tensor"}
	}
	devices, c, err := machine(&t.o)
	if err != nil {
		return err
	}
	t.devices = devices
	for i := range devices {
		t.names = append(t.names, c.Devices[i].Name)
	}
	nd := len(devices)
	seqs, unified := t.o.NParallel, t.o.NParallel == 0
	if seqs == 0 {
		seqs = 4
	}
	if t.o.KVUnified != nil {
		unified = *t.o.KVUnified
	}
	streams := seqs
	if unified {
		streams = 1
	}
	t.layers = t.m.NLayer()
	if t.o.MTP {
		t.layers = t.m.NLayerAll
	}
	minCtx := t.f.MinCtx
	if minCtx == 0 {
		minCtx = defaultFitCtx
	}
	auto := t.o.NCtx == 0
	maxCtx := min(t.m.NCtxTrain*seqs, math.MaxUint32)
	minTotal := min(minCtx*streams, math.MaxUint32)
	if auto {
		t.o.NCtx = min(maxCtx, maxTokens)
	}
	full, err := t.measure(&t.o)
	if err != nil {
		return err
	}
	margins := make([]int64, max(nd, 1))
	for i := range margins {
		margins[i] = DefaultFitTarget
		if n := len(t.f.Target); n > 0 {
			margins[i] = int64(min(t.f.Target[min(i, n-1)], math.MaxInt64/4))
		}
	}
	if t.o.MMProj != nil {
		p, err := t.o.projection()
		if err != nil {
			return err
		}
		i, n := p.target()
		if i < len(margins) {
			margins[i] += int64(min(n, math.MaxInt64/4))
			t.say("%s are left free for the projector", mib(int64(n)))
		}
	}

	var sumFree, sumUsed, surplus int64
	enough := true
	if nd == 0 {
		sumUsed = full.host
		if t.o.Host.MemoryTotal == nil {
			return &UnfitError{"the host's memory is not known"}
		}
		sumFree = int64(*t.o.Host.MemoryTotal)
		surplus = sumFree - sumUsed - margins[0]
		enough = surplus >= 0
	}
	for i, d := range devices {
		f := int64(free(d, t.o.Host))
		t.free = append(t.free, f)
		t.target = append(t.target, f-margins[i])
		sumFree += f
		sumUsed += full.total[i]
		surplus += f - full.total[i] - margins[i]
		enough = enough && f-full.total[i] >= margins[i]
	}
	if enough {
		t.say("everything fits with %s to spare: nothing is changed", mib(surplus))
		return nil
	}
	if surplus < 0 {
		t.say("%s too much at a context of %d", mib(-surplus), t.o.NCtx)
		done, err := t.reduceContext(auto, maxCtx, minTotal, streams, full, sumFree, sumUsed, margins)
		if done || err != nil {
			return err
		}
	}
	if err := t.open(nd); err != nil {
		return err
	}
	return t.fill(full)
}

// open checks that the placement is for --fit to choose.
func (t *fitter) open(nd int) error {
	if nd == 0 {
		return &UnfitError{"the model does not fit into system memory by reducing the context"}
	}
	if n := t.o.NGPULayers; n != nil && *n != -1 {
		return &UnfitError{fmt.Sprintf("-ngl is set to %d already", *n)}
	}
	if nd > 1 {
		for _, v := range t.o.TensorSplit {
			if v != 0 {
				return &UnfitError{"-ts is set already"}
			}
		}
		if t.o.SplitMode == SplitRow {
			return &UnfitError{"not implemented for -sm row"}
		}
	}
	if len(t.o.Overrides) > 0 {
		return &UnfitError{"-ot is set already"}
	}
	return nil
}

// reduceContext lowers the context, between what is asked for and the minimum,
// to what a linear interpolation of memory says would fit.
func (t *fitter) reduceContext(auto bool, maxCtx, minTotal, streams int, full *use, sumFree, sumUsed int64, margins []int64) (done bool, err error) {
	switch {
	case !auto:
		t.say("the context of %d was asked for: it stays", t.o.NCtx)
		return false, nil
	case maxCtx <= minTotal:
		t.say("the context of %d is at the minimum: it stays", maxCtx)
		return false, nil
	}
	nd := len(t.devices)
	goal := sumFree
	for _, m := range margins {
		goal -= m
	}
	if nd > 1 {
		layers := uint32(t.layers)
		if t.o.NGPULayers != nil {
			layers = min(layers, uint32(*t.o.NGPULayers))
		}
		if layers > 0 {
			perLayer := full.model / int64(layers)
			waste := int64(2)
			if t.m.NExpert > 0 {
				waste = 6
			}
			goal -= int64(nd+1) * perLayer / waste
		}
	}
	t.o.NCtx = minTotal
	least, err := t.measure(&t.o)
	if err != nil {
		return false, err
	}
	usedMin := least.sum()
	if nd == 0 {
		usedMin = least.host
	}
	if goal <= usedMin || sumUsed == usedMin {
		t.say("context reduced from %d to the minimum of %d: %s less", maxCtx, minTotal, mib(sumUsed-usedMin))
		return false, nil
	}
	ctx := uint32(int64(minTotal) + int64(uint32(maxCtx-minTotal))*(goal-usedMin)/(sumUsed-usedMin))
	align := uint32(256 * streams)
	t.o.NCtx = max(int(ctx-ctx%align), minTotal)
	t.say("context reduced from %d to %d, where memory would meet the target on a straight line between %d and %d tokens", maxCtx, t.o.NCtx, minTotal, maxCtx)
	return nd <= 1, nil
}

// settings returns the options with the shares.
func (t *fitter) settings(shares []share) (Options, error) {
	o := t.o
	ngl := 0
	if len(shares) > 1 {
		o.TensorSplit = nil
	}
	for _, s := range shares {
		ngl += s.layers
		if len(shares) > 1 {
			o.TensorSplit = append(o.TensorSplit, float32(s.layers))
		}
	}
	o.NGPULayers = &ngl
	o.Overrides = nil
	il := t.layers + 1 - ngl
	for i := range shares {
		s := &shares[i]
		il += s.full()
		for n := range s.partial {
			if len(o.Overrides)+1 >= maxOverrides {
				return o, &UnfitError{"more override patterns than llama.cpp holds"}
			}
			v := Override{fractionMoE.pattern(il), "CPU"}
			if n == 0 {
				v.Pattern = s.first.pattern(il)
				if s.to >= 0 {
					v.Buffer = t.names[s.to]
				}
			}
			o.Overrides = append(o.Overrides, v)
			il++
		}
	}
	return o, nil
}

// try measures the shares.
func (t *fitter) try(shares []share) ([]int64, error) {
	o, err := t.settings(shares)
	if err != nil {
		return nil, err
	}
	u, err := t.measure(&o)
	if err != nil {
		return nil, err
	}
	return u.total, nil
}

// fill gives the devices layers: from back to front, of a mixture of experts
// without its experts, and then, where all of those fit, from front to back
// with them.
func (t *fitter) fill(full *use) (err error) {
	nd, moe := len(t.devices), t.m.NExpert > 0
	var dense int64
	if moe {
		o := t.o
		o.Overrides = []Override{{`blk\.\d+\.ffn_(up|down|gate_up|gate)_(ch|)exps`, "CPU"}}
		u, err := t.measure(&o)
		if err != nil {
			return err
		}
		for i := range u.total {
			dense += t.target[i] - u.total[i]
		}
		t.say("with all experts on the CPU there would be %s to spare", mib(dense))
	}
	t.shares = make([]share, nd)
	for i := range t.shares {
		t.shares[i].to = -1
	}
	if t.mem, err = t.try(t.shares); err != nil {
		return err
	}
	for id := nd - 1; id >= 0; id-- {
		if err := t.fillBack(id, moe); err != nil {
			return err
		}
		t.say("%s: %d layers, %s used of %s", t.names[id], t.shares[id].layers, mib(t.mem[id]), mib(t.target[id]))
	}
	if moe && dense > 0 {
		if err := t.convert(); err != nil {
			return err
		}
	}
	t.o, err = t.settings(t.shares)
	return err
}

// step returns how many of delta layers to try next, by false position.
func step(delta int, target, mem, high int64) int {
	n := uint32(1)
	if high != mem {
		n = uint32(int64(delta) * (target - mem) / (high - mem))
	}
	return int(min(max(n, 1), uint32(delta-1)))
}

// fillBack finds how many of the layers that later devices leave fit on device
// id.
func (t *fitter) fillBack(id int, moe bool) error {
	last := id == len(t.shares)-1
	left := t.layers + 1
	for _, s := range t.shares[id+1:] {
		left -= s.layers
	}
	if left == 0 {
		return nil
	}
	high := clone(t.shares)
	high[id].layers = left
	if moe {
		high[id].partial = left
		if last {
			high[id].partial-- // the output layer is whole
		}
	}
	memHigh, err := t.try(high)
	if err != nil {
		return err
	}
	if memHigh[id] <= t.target[id] {
		t.shares, t.mem = high, memHigh
		return nil
	}
	for delta := high[id].layers - t.shares[id].layers; delta > 1; delta = high[id].layers - t.shares[id].layers {
		n := step(delta, t.target[id], t.mem[id], memHigh[id])
		test := clone(t.shares)
		test[id].layers += n
		if moe {
			if last && test[id].partial == 0 {
				test[id].partial--
			}
			test[id].partial += n
		}
		mem, err := t.try(test)
		if err != nil {
			return err
		}
		if mem[id] <= t.target[id] {
			t.shares, t.mem = test, mem
		} else {
			high, memHigh = test, mem
		}
	}
	return nil
}

// convert moves layers with their experts to the front, until the devices are
// full, and tries a part of one more on each.
func (t *fitter) convert() error {
	nd := len(t.shares)
	start := nd // first device with layers that lack their experts
	for start > 0 && t.shares[start-1].layers > 0 {
		start--
	}
	for id := 0; id <= start && start < nd; id++ {
		high := clone(t.shares)
		for jd := start; jd < nd; jd++ {
			n := high[jd].layers
			if jd == nd-1 {
				n--
			}
			high[id].layers += n
			high[jd].layers -= n
			high[jd].partial = 0
		}
		memHigh, err := t.try(high)
		if err != nil {
			return err
		}
		if memHigh[id] <= t.target[id] {
			t.shares, t.mem, start = high, memHigh, nd-1
		} else {
			for delta := high[id].full() - t.shares[id].full(); delta > 1; delta = high[id].full() - t.shares[id].full() {
				n := step(delta, t.target[id], t.mem[id], memHigh[id])
				test, from := clone(t.shares), start
				for done := 0; from < nd; from++ {
					k := min(n-done, test[from].partial)
					test[from].layers -= k
					test[from].partial -= k
					test[id].layers += k
					done += k
					if test[from].partial > 0 {
						break
					}
				}
				mem, err := t.try(test)
				if err != nil {
					return err
				}
				if mem[id] <= t.target[id] {
					t.shares, t.mem, start = test, mem, from
				} else {
					high, memHigh = test, mem
				}
			}
		}
		if start, err = t.onePart(id, start); err != nil {
			return err
		}
		t.say("%s: %d layers, %d of them without all or some of their experts, %s used of %s",
			t.names[id], t.shares[id].layers, t.shares[id].partial, mib(t.mem[id]), mib(t.target[id]))
	}
	return nil
}

// onePart tries to put a part of one more layer on device id; what is left of
// the layer goes to the next device. It returns the new start.
func (t *fitter) onePart(id, start int) (int, error) {
	nd := len(t.shares)
	least := 0
	if id == nd-1 {
		least = 1
	}
	if start >= nd || t.shares[start].layers <= least {
		return start, nil
	}
	test, from := clone(t.shares), start
	test[from].layers--
	test[from].partial--
	test[id].layers++
	test[id].partial++
	if test[from].partial == 0 {
		from++
	}
	if id < nd-1 {
		test[id].to = id + 1
	}
	// fits measures the test with a fraction of the layer, and takes it over.
	fits := func(f fraction) (bool, error) {
		test[id].first = f
		mem, err := t.try(test)
		if err != nil {
			return false, err
		}
		ok := mem[id] < t.target[id] && (id+1 == nd || mem[id+1] < t.target[id+1])
		if ok {
			t.shares, t.mem = clone(test), mem
			t.say("%s: room for %v of one more layer", t.names[id], f)
		}
		return ok, nil
	}
	up, err := fits(fractionUp)
	if err != nil {
		return start, err
	}
	other := fractionAttn
	if up {
		other = fractionGate
	}
	ok, err := fits(other)
	if up || ok {
		start = from
	}
	return start, err
}

func clone(s []share) []share { return append([]share(nil), s...) }
