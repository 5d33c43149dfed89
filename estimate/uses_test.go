package estimate

import (
	"testing"

	"weigh/fixtures"
)

// TestUsesSumToRun holds every use against the figures of the breakdown, and the
// operators against the graph of a micro-batch.
func TestUsesSumToRun(t *testing.T) {
	for _, name := range fixtures.Models() {
		m := load(t, name)
		for label, o := range map[string]Options{
			"all on one device":   {Devices: cards(1), NCtx: 512, NParallel: 1},
			"partly on two":       {Devices: cards(2), NCtx: 512, NParallel: 2, NGPULayers: new(m.NLayerAll / 2)},
			"experts on the host": {Devices: cards(1), NCtx: 512, NParallel: 1, Overrides: []Override{CPUMoE()}},
		} {
			b, err := Run(m, o)
			if err != nil {
				continue
			}
			uses, err := Uses(m, o)
			if err != nil {
				t.Fatalf("%s, %s: %v", name, label, err)
			}
			sums, operators := make([]uint64, len(o.Devices)+1), 0
			for _, u := range uses {
				sums[u.Device+1] += u.Bytes
				operators += u.Operators
			}
			if operators == 0 || operators >= b.Settings.Nodes {
				t.Errorf("%s, %s: %d operators in a graph of %d nodes", name, label, operators, b.Settings.Nodes)
			}
			for i := range b.Devices {
				d := &b.Devices[i]
				rope := termOf(d, "copies")
				if want := d.Model + d.Context; sums[d.Device+1] > want || sums[d.Device+1]+rope < want {
					t.Errorf("%s, %s: uses of %s sum to %d, want %d", name, label, d.Name, sums[d.Device+1], want)
				}
			}
		}
	}
}

func termOf(m *Memory, name string) (n uint64) {
	for _, t := range m.Terms {
		if t.Name == name {
			n += t.Bytes
		}
	}
	return n
}
