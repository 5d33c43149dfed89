package plan

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"weigh/estimate"
	"weigh/estimate/hw"
	"weigh/estimate/speed"
	"weigh/inspect/model"
)

// A Purchase is hardware that runs a model with all its layers.
type Purchase struct {
	Card  hw.Card
	Count int
	Need  uint64 // bytes of the fullest card, reserve excluded
	Speed *speed.Speed
}

// purchases is the most that are proposed for one number of cards.
const purchases = 3

// largeCard is the memory of cards that are asked for so seldom alone that fours
// and eights of smaller ones are named too.
const largeCard = 96 << 30

// Hardware returns the smallest cards of the catalogue, alone and in pairs (fours
// and eights where pairs are too small or very large), that run m with all layers, o's
// settings and the speed asked for. Parts of laptops, parts that share the host's memory
// and cards that are no longer made (of PCIe 3.0 and before, or whose matrix rate is
// unknown) are left out.
func Hardware(ctx context.Context, m *model.Model, o estimate.Options, w Want) ([]Purchase, error) {
	if o.NCtx == 0 {
		o.NCtx = (&search{m: m, o: o}).wanted()
	}
	o.NGPULayers, o.TensorSplit, o.Overrides, o.SplitMode, o.NoKVOffload = nil, nil, nil, estimate.SplitLayer, false
	var cards []hw.Card
	for _, c := range hw.Catalogue() {
		made := c.FP16Flops > 0 && (c.PCIe.Gen > 3 || c.PCIe.Gen == 0)
		if made && c.Memory > 0 && !c.Unified && !strings.Contains(c.Name, "Laptop") && !strings.Contains(c.Name, "Max-Q") {
			cards = append(cards, c)
		}
	}
	slices.SortStableFunc(cards, func(a, b hw.Card) int {
		return cmp.Or(cmp.Compare(a.Memory, b.Memory), -cmp.Compare(a.BandwidthBps, b.BandwidthBps))
	})
	var all []Purchase
	for _, count := range []int{1, 2, 4, 8} {
		if count > 2 && len(all) > 0 && all[0].Card.Memory <= largeCard {
			break
		}
		found, err := smallest(ctx, m, o, w, cards, count)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// smallest returns the first cards, count of each, that hold everything.
func smallest(ctx context.Context, m *model.Model, o estimate.Options, w Want, cards []hw.Card, count int) (found []Purchase, err error) {
	o.Spare, o.MMProjDevice = 0, nil // what is loaded beside the model follows it
	if d := o.Draft; d != nil {
		follows := *d
		follows.Devices, follows.Spare = nil, 0
		o.Draft = &follows
	}
	// On cards without limit the fullest shows what is needed at least.
	huge := uint64(1) << 50
	o.Devices = slices.Repeat([]hw.Device{{Backend: hw.CUDA, ComputeCapability: hw.Capability{Major: 8, Minor: 9}, MemoryTotal: &huge, MemoryFree: &huge, Assumed: true}}, count)
	b, err := estimate.Run(m, o)
	if err != nil {
		return nil, err
	}
	var sum uint64
	for i := range b.Devices {
		sum += b.Devices[i].Total() - b.Devices[i].Overhead
	}
	if free, _, ok := o.Host.Usable(); ok {
		if must, _ := hostNeed(b); must > free {
			return nil, nil // no card makes the host larger
		}
	}
	for _, c := range cards {
		if len(found) == purchases {
			break
		}
		d, err := c.Device()
		if err != nil || *d.MemoryFree*uint64(count) < sum {
			continue
		}
		o.Devices = make([]hw.Device, count)
		for i := range o.Devices {
			o.Devices[i] = d
			o.Devices[i].Index, o.Devices[i].Number = i, 0
		}
		s, err := newSearch(ctx, m, o, w)
		if err != nil {
			return nil, err
		}
		if w.MinTPS > 0 {
			if sp, err := speed.Estimate(m, o, s.w.Speed); err != nil || sp.Decode.Mid < w.MinTPS {
				continue
			}
		}
		p, l, err := s.place(o)
		if err != nil {
			return nil, err
		}
		if p == nil || !l.full() || p.Speed.Decode.Mid < w.MinTPS {
			continue
		}
		need := uint64(0)
		for i := range p.Breakdown.Devices {
			need = max(need, p.Breakdown.Devices[i].Total())
		}
		found = append(found, Purchase{Card: c, Count: count, Need: need, Speed: p.Speed})
	}
	return found, nil
}
