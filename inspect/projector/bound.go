package projector

import "weigh/formats"

// Bound returns an upper bound on each compute buffer of a tower whose graph is
// not known, from its tensors: the results of all products of the widest layer
// for every patch, twice; scores of all heads between all patches, twice, and
// masks; and the unfolded input of each convolution.
func (t *Tower) Bound(size Size) uint64 {
	h := &t.h
	n := uint64(max(size.X/h.patch, 1)) * uint64(max(size.Y/h.patch, 1))
	if t.Audio {
		n = uint64(size.X)
	}
	n = min(n*uint64(max(size.Batch, 1)), 1<<24) // far beyond any device, and the sums below fit in 64 bits
	widest := uint64(0)
	layers := map[string]uint64{}
	for _, x := range t.Weights() {
		elements, ok := formats.Elements(x.Shape)
		if !ok || len(x.Shape) < 2 {
			continue
		}
		wide := x.Shape[0] + x.Shape[1]
		if len(x.Shape) > 2 { // a kernel: its columns
			wide = elements/max(x.Shape[len(x.Shape)-1], 1) + x.Shape[len(x.Shape)-1]
		}
		l := layerOf(x.Name)
		layers[l] = min(layers[l]+min(wide, 1<<24), 1<<32)
		widest = max(widest, layers[l])
	}
	heads := uint64(min(max(h.heads, 1), 1<<10))
	pixels := uint64(size.X) * uint64(size.Y) * 4 * 4
	return 4*n*(2*widest+16*uint64(h.embd)) + 2*4*n*n*heads + 6*n*n + 4*pixels
}

// layerOf returns the part of a tensor's name up to its last number.
func layerOf(name string) string {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] >= '0' && name[i] <= '9' {
			return name[:i+1]
		}
	}
	return ""
}
