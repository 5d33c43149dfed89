package estimate

import "weigh/inspect/model"

// Grow counts as overhead what the compute buffers of b, the breakdown of m with
// the settings o, really take beyond llama.cpp's own measurement without
// allocation, which is what the breakdown gives and --fit goes by.
func Grow(m *model.Model, o Options, b *Breakdown) error {
	o.Allocated, o.Explain = true, false
	real, err := Run(m, o)
	if err != nil {
		return err
	}
	add := func(to, from []Memory) {
		for i := range to {
			if more := from[i].Compute - min(to[i].Compute, from[i].Compute); more > 0 {
				to[i].add(Overhead, "graphs of all kinds", more, Exact,
					"compute buffers grow to the largest of the graphs for prompts, single tokens and single sequences; the breakdown counts the first alone")
			}
		}
	}
	add(b.Devices, real.Devices)
	add(b.Host, real.Host)
	return nil
}
