package plan

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"weigh/estimate"
	"weigh/estimate/speed"
	"weigh/inspect/model"
)

// A layout says where the layers are: the first cpu of them on the host, the
// others on the devices in order, of which those before lean leave their experts
// (of a dense model: their feed-forward weights) on the host; and which of the
// tensors left there are on a device after all.
type layout struct {
	cpu, lean int
	counts    []int          // layers of each device, the output layer counts
	kept      map[string]int // device of a tensor's base name ("blk.7.ffn_up_exps")
	allKept   bool           // there is room for all that the lean layers would leave
}

// full reports whether all layers are whole and on devices.
func (l *layout) full() bool { return l.cpu == 0 && l.lean == 0 && len(l.counts) > 0 }

// A load is what a layer takes of its device, and what of it may stay on the
// host.
type load struct {
	fixed, lean uint64     // bytes: with its cache but without what may leave; what may leave
	own, leaves speed.Work // of the same
	units       []unit
}

// A unit is a weight, with its bias and scale, that can be placed by itself.
type unit struct {
	name  string
	bytes uint64
	work  speed.Work
}

// A table is what every layer takes, from uses with everything on a device.
type table struct {
	uses   []estimate.Use
	remote []bool       // by device: reached over a network
	leaves []string     // by use: its base name, "" for what does not leave its layer's device
	layers []load       // the output layer last
	rates  []speed.Rate // of the host, then of each device
	gather bool         // on as few devices as hold it, instead of equally full ones
}

// leaves returns the base name of a tensor that --n-cpu-moe, or for a dense model
// --n-cpu-ffn, leaves on the host, and "" for any other.
func leaves(m *model.Model, name string) string {
	il, rest := model.SplitName(name)
	if il < 0 || !strings.HasPrefix(rest, "ffn_") {
		return ""
	}
	ok := false
	what, _, _ := strings.Cut(rest, ".")
	if m.NExpert > 0 {
		ok = strings.HasSuffix(what, "exps")
	} else {
		ok = what == "ffn_up" || what == "ffn_down" || what == "ffn_gate"
	}
	if !ok {
		return ""
	}
	return name[:len(name)-len(rest)+len(what)]
}

// newTable measures every layer on one device. With gather, layers are for as few
// devices as hold them.
func newTable(m *model.Model, o estimate.Options, q speed.Query, gather bool) (*table, error) {
	rates := speed.Rates(m, &o, q.Factors)
	o.NGPULayers, o.TensorSplit, o.Overrides = nil, nil, nil
	if len(o.Devices) > 1 {
		o.TensorSplit = []float32{1}
	}
	uses, err := estimate.Uses(m, o)
	if err != nil {
		return nil, err
	}
	t := &table{uses: uses, leaves: make([]string, len(uses)), layers: make([]load, m.NLayerAll+1), rates: rates, gather: gather}
	for i := range o.Devices {
		t.remote = append(t.remote, o.Devices[i].Remote != "")
	}
	for i := range uses {
		u := &uses[i]
		if u.Tensor >= 0 {
			t.leaves[i] = leaves(m, m.Tensors[u.Tensor].Name)
		}
		if u.Device < 0 || u.Layer < 0 || u.Layer > m.NLayerAll {
			continue
		}
		l := &t.layers[u.Layer]
		if base := t.leaves[i]; base != "" {
			l.lean += u.Bytes
			l.leaves.Add(u, q.Depth)
			l.add(base, u)
			continue
		}
		l.fixed += u.Bytes
		l.own.Add(u, q.Depth)
	}
	return t, nil
}

func (l *load) add(name string, u *estimate.Use) {
	i := slices.IndexFunc(l.units, func(x unit) bool { return x.name == name })
	if i < 0 {
		i = len(l.units)
		l.units = append(l.units, unit{name: name})
	}
	l.units[i].bytes += u.Bytes
	l.units[i].work.Add(u, 0)
}

// bytes is what layer il takes of its device when those before lean leave their
// experts.
func (t *table) bytes(il, lean int) uint64 {
	if il < lean {
		return t.layers[il].fixed
	}
	return t.layers[il].fixed + t.layers[il].lean
}

// everything is what weights and caches take, wherever they are.
func (t *table) everything() (n uint64) {
	for i := range t.uses {
		n += t.uses[i].Bytes
	}
	return n
}

// total is what all layers take.
func (t *table) total() (n int64) {
	for il := range t.layers {
		n += int64(t.bytes(il, 0))
	}
	return n
}

// even reports whether the devices are equally fast.
func (t *table) even() bool {
	for i := 2; i < len(t.rates); i++ {
		if t.rates[i] != t.rates[1] {
			return false
		}
	}
	return true
}

// packs reports whether the layers from cpu on fit into the rooms in order.
func (t *table) packs(rooms []int64, cpu, lean int) bool {
	d := 0
	left := int64(-1)
	if len(rooms) > 0 {
		left = rooms[0]
	}
	for il := cpu; il < len(t.layers); il++ {
		n := int64(t.bytes(il, lean))
		for d < len(rooms) && left < n {
			if d++; d < len(rooms) {
				left = rooms[d]
			}
		}
		if d >= len(rooms) {
			return false
		}
		left -= n
	}
	return true
}

// leanest returns the fewest layers that must leave their experts so that the
// layers from cpu on fit, and false when not even that helps.
func (t *table) leanest(rooms []int64, cpu int) (int, bool) {
	n := len(t.layers)
	if !t.packs(rooms, cpu, n) {
		return 0, false
	}
	lo, hi := cpu, n // hi packs
	if t.packs(rooms, cpu, cpu) {
		return cpu, true
	}
	for lo+1 < hi {
		if mid := (lo + hi) / 2; t.packs(rooms, cpu, mid) {
			hi = mid
		} else {
			lo = mid
		}
	}
	return hi, true
}

// spread gives each device its number of layers so that their time is least; equal
// devices get equal parts of their rooms, or with gather as few as hold it.
func (t *table) spread(rooms []int64, cpu, lean int) []int {
	n, nd := len(t.layers)-cpu, len(rooms)
	bytes, seconds := make([]float64, n+1), make([]float64, n+1)
	for i := range n {
		bytes[i+1] = bytes[i] + float64(t.bytes(cpu+i, lean))
	}
	cost := make([]float64, n+1)
	for i := range cost {
		cost[i] = math.Inf(1)
	}
	cost[0] = 0
	from := make([][]int, nd)
	for d := range nd {
		rate := &t.rates[d+1]
		for i := range n {
			l := &t.layers[cpu+i]
			seconds[i+1] = seconds[i] + rate.Seconds(&l.own)
			if cpu+i >= lean {
				seconds[i+1] += rate.Seconds(&l.leaves)
			}
		}
		hop, even := 0.0, 1e-5
		if t.gather {
			hop, even = rate.Hop, 1e-9
		}
		next := make([]float64, n+1)
		from[d] = make([]int, n+1)
		for j := range next {
			next[j] = math.Inf(1)
			for i := j; i >= 0; i-- {
				b := bytes[j] - bytes[i]
				if i < j && b > float64(rooms[d]) {
					break
				}
				c := cost[i]
				if i < j {
					fill := b / max(float64(rooms[d]), 1)
					c += seconds[j] - seconds[i] + hop + even*fill*fill
				}
				if c < next[j] {
					next[j], from[d][j] = c, i
				}
			}
		}
		cost = next
	}
	if math.IsInf(cost[n], 1) {
		return nil
	}
	counts := make([]int, nd)
	for d, j := nd-1, n; d >= 0; d-- {
		counts[d] = j - from[d][j]
		j = from[d][j]
	}
	return counts
}

// home returns the device of layer il, -1 the host.
func (l *layout) home(il int) int {
	at := l.cpu
	for d, n := range l.counts {
		if at += n; il >= l.cpu && il < at {
			return d
		}
	}
	return -1
}

// keep puts what the lean layers leave into the room that is over, from the last
// of them on: on their own device, or else on the one with the most room, where
// it shortens a token's time.
func (t *table) keep(l *layout, rooms []int64) {
	left := slices.Clone(rooms)
	for il := l.cpu; il < len(t.layers); il++ {
		if d := l.home(il); d >= 0 {
			left[d] -= int64(t.bytes(il, l.lean))
		}
	}
	l.kept, l.allKept = map[string]int{}, l.cpu == 0
	for il := min(l.lean, len(t.layers)) - 1; il >= l.cpu; il-- {
		own := l.home(il)
		for i := range t.layers[il].units {
			u := &t.layers[il].units[i]
			at := own
			if own < 0 || left[own] < int64(u.bytes) {
				at = slices.Index(left, slices.Max(left))
			}
			gain := t.rates[0].Seconds(&u.work) - t.rates[at+1].Seconds(&u.work)
			if at != own {
				gain -= moveSeconds
			}
			if left[at] < int64(u.bytes) || gain <= 0 || t.remote[at] {
				l.allKept = false
				continue
			}
			left[at] -= int64(u.bytes)
			l.kept[u.name] = at
		}
	}
}

// moveSeconds is the least that a weight on another device than its layer's must
// save of a token: it is reached from the host and left again.
const moveSeconds = 40e-6

// options returns the settings of the layout.
func (l *layout) options(m *model.Model, o estimate.Options, names []string) estimate.Options {
	ngl := m.NLayerAll + 1 - l.cpu
	o.NGPULayers = &ngl
	o.TensorSplit = nil
	if len(l.counts) > 1 {
		for _, n := range l.counts {
			o.TensorSplit = append(o.TensorSplit, float32(n))
		}
	}
	o.Overrides = append(l.exceptions(names), l.leans(m)...)
	return o
}

// exceptions returns the overrides of what is kept on devices, one for each layer
// and device.
func (l *layout) exceptions(names []string) []estimate.Override {
	type key struct{ layer, device int }
	by := map[key][]string{}
	for name, d := range l.kept {
		il, rest := model.SplitName(name)
		by[key{il, d}] = append(by[key{il, d}], regexp.QuoteMeta(rest))
	}
	var keys []key
	for k := range by {
		keys = append(keys, k)
		slices.Sort(by[k])
	}
	slices.SortFunc(keys, func(a, b key) int { return 1000*(a.layer-b.layer) + a.device - b.device })
	var over []estimate.Override
	for _, k := range keys {
		rest := by[k][0]
		if len(by[k]) > 1 {
			rest = "(" + strings.Join(by[k], "|") + ")"
		}
		over = append(over, estimate.Override{Pattern: fmt.Sprintf(`blk\.%d\.%s\.`, k.layer, rest), Buffer: names[k.device]})
	}
	return over
}

// leans returns the overrides of what stays on the host.
func (l *layout) leans(m *model.Model) []estimate.Override {
	switch {
	case l.lean <= l.cpu:
		return nil
	case m.NExpert > 0 && l.lean >= m.NLayerAll:
		return []estimate.Override{estimate.CPUMoE()}
	case m.NExpert > 0:
		return estimate.NCPUMoE(l.lean)
	}
	return estimate.NCPUFFN(min(l.lean, m.NLayerAll))
}

// moved returns the uses as they are under the layout.
func (t *table) moved(l *layout, nkvo bool) []estimate.Use {
	homes := make([]int, len(t.layers))
	for il := range homes {
		homes[il] = l.home(il)
	}
	uses := slices.Clone(t.uses)
	for i := range uses {
		u := &uses[i]
		if u.Layer < 0 || u.Layer >= len(homes) {
			continue
		}
		onDevice := u.Device >= 0
		u.Home, u.Device = homes[u.Layer], -1
		if onDevice {
			u.Device = u.Home
		}
		if u.Tensor < 0 {
			if nkvo {
				u.Device = -1
			}
			continue
		}
		if base := t.leaves[i]; base != "" && u.Layer < l.lean {
			u.Device = -1
			if d, kept := l.kept[base]; kept {
				u.Device = d
			}
		}
	}
	return uses
}
