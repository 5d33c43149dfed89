package estimate

import (
	"weigh/formats"
	"weigh/inspect/arch"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// A Use is one tensor in memory, and what of it one token's generation reads.
type Use struct {
	Tensor  int  // index into the model's tensors; -1 for a cache or a state
	Layer   int  // -1 the input, NLayerAll the output
	Home    int  // device of the layer, as index into Options.Devices; -1 the host
	Device  int  // device whose memory holds the tensor; -1 the host
	Experts bool // only the experts that a token passes are read
	Bytes   uint64
	// Read is in bytes. Of weights and states it is for the token; of a cache,
	// for each token before it, at most Cells of them.
	Read  uint64
	Cells int
	Ops   uint64 // multiplications for the token; of a cache for each token before it
	// Operators of the layer's graph for the token, but for those that only give a
	// tensor another shape. Such a use holds and reads nothing.
	Operators int
}

// Uses returns what lies where and how much of it generation reads, for one
// sequence, and what each layer computes. It builds the graph of one token, packs
// none and takes a fraction of [Run]'s time. Without companions and compute
// buffers, Bytes sum to Run's figures.
func Uses(m *model.Model, o Options) ([]Use, error) {
	r, err := newRun(m, &o)
	if err != nil {
		return nil, err
	}
	devices := make([]int, len(r.p.c.Buffers))
	for b := range devices {
		devices[b] = -1
		if b < len(r.p.devices) {
			devices[b] = deviceIndex(o.Devices, &r.p.devices[b])
		}
	}
	uses := make([]Use, 0, len(m.Tensors)+4*m.NLayerAll)
	add := func(u Use, buffer int16) {
		u.Device, u.Home = devices[buffer], -1
		if d := int(r.p.LayerBackend(u.Layer)); d < len(r.p.devices) {
			u.Home = devices[d]
		}
		uses = append(uses, u)
	}
	for i := range m.Tensors {
		if r.p.buf[i] >= 0 {
			add(r.weight(i), r.p.buf[i])
		}
	}
	if u, b, ok := r.tied(); ok {
		add(u, b)
	}
	r.cached(add)
	operators, err := r.operators()
	if err != nil {
		return nil, err
	}
	for il, n := range operators {
		u := Use{Tensor: -1, Layer: il, Home: -1, Operators: n}
		if d := int(r.p.LayerBackend(il)); d < len(r.p.devices) {
			u.Home = devices[d]
		}
		u.Device = u.Home
		uses = append(uses, u)
	}
	return uses, nil
}

// operatorsPerTensor is how many operators a layer has for each of its tensors, as
// plain transformers do.
const operatorsPerTensor = 3

// operators counts those of the graph of one token of each sequence by layer, the
// output last. What belongs to no layer counts for the output. Without a graph
// they are taken to be some for each tensor.
func (r *run) operators() ([]int, error) {
	if r.row.Build == nil {
		n := make([]int, r.m.NLayerAll+1)
		for i := range r.m.Tensors {
			il, _, _ := parse(r.m.Tensors[i].Name)
			if il < 0 || il > r.m.NLayerAll {
				il = r.m.NLayerAll
			}
			n[il] += operatorsPerTensor
		}
		return n, nil
	}
	g, err := r.graph(r.c.NSeqMax, r.c.NSeqMax)
	if err != nil {
		return nil, err
	}
	n := make([]int, r.m.NLayerAll+1)
	il := r.m.NLayerAll
	for _, t := range g.Nodes {
		switch t.Op {
		case graph.OpNone, graph.OpReshape, graph.OpView, graph.OpPermute, graph.OpTranspose:
			continue
		}
		// Not all that a layer computes is named: it follows what is.
		if t.Layer >= 0 && int(t.Layer) < r.m.NLayerAll {
			il = int(t.Layer)
		}
		n[il]++
	}
	return n, nil
}

// weight returns the use of tensor i in the buffer it was placed in.
func (r *run) weight(i int) Use {
	t := &r.m.Tensors[i]
	k := r.p.kinds[i]
	il, _, _ := parse(t.Name)
	switch {
	case k.layer == inInput:
		il = -1
	case k.layer == inOutput:
		il = r.m.NLayerAll
	case il < 0:
		il = 0
	}
	if r.row.Layer != nil {
		il = r.row.Layer(r.m, t.Name, il)
	}
	u := Use{Tensor: i, Layer: il, Bytes: padded(&r.p.c.Buffers[r.p.buf[i]], t.Type, dims(t.Shape)), Read: t.Bytes}
	switch {
	case k.op == graph.OpGetRows:
		u.Read /= max(t.Elements()/max(uint64(dims(t.Shape)[0]), 1), 1)
	case k.op == graph.OpMulMatID || k.op == graph.OpAddID:
		u.Experts = true
		n, used := uint64(1), uint64(1)
		if len(t.Shape) > 1 {
			n = t.Shape[len(t.Shape)-1]
		}
		if il >= 0 && il < r.m.NLayerAll {
			used = uint64(max(r.m.NExpertUsed(il), 1))
		}
		u.Read = u.Read / max(n, 1) * min(used, n)
		u.Ops = t.Elements() / max(n, 1) * min(used, n)
	case k.op == graph.OpMulMat:
		u.Ops = t.Elements()
	}
	return u
}

// tied returns the use of the token embeddings as the output matrix, or of that
// as the embeddings.
func (r *run) tied() (Use, int16, bool) {
	i := r.m.Index.Global("token_embd.weight")
	if out := r.m.Index.Global("output.weight"); r.row.Tie == arch.TieInput && i < 0 && out >= 0 {
		u := r.weight(out)
		u.Layer, u.Ops, u.Read = -1, 0, u.Read/uint64(max(r.m.NVocab, 1))
		return u, r.p.buf[out], true
	}
	if i < 0 || r.p.buf[i] < 0 || r.row.Tie == arch.TieNone || r.m.Index.Global("output.weight") >= 0 {
		return Use{}, 0, false
	}
	t := &r.m.Tensors[i]
	u := Use{Tensor: i, Layer: r.m.NLayerAll, Read: t.Bytes, Ops: t.Elements()}
	b, copied := r.p.copies[copyKey{int32(i), int32(r.m.NLayerAll)}]
	if !copied {
		b = r.p.buf[i]
	}
	if b != r.p.buf[i] || r.row.Tie == arch.TieTwice {
		u.Bytes = padded(&r.p.c.Buffers[b], t.Type, dims(t.Shape))
	}
	return u, b, true
}

// cached adds the uses of what the context keeps.
func (r *run) cached(add func(Use, int16)) {
	size := func(b int16, typ formats.DType, ne ...int64) uint64 {
		return padded(&r.p.c.Buffers[b], typ, [4]int64{ne[0], ne[1], ne[2], 1})
	}
	if r.mem == nil {
		return
	}
	for _, k := range r.mem.Caches() {
		for _, l := range k.Layers {
			b := r.p.Cache(l.Layer)
			u := Use{Tensor: -1, Layer: l.Layer, Cells: k.Size, Read: k.TypeK.RowBytes(uint64(l.NEmbdK))}
			group := uint64(max(r.m.NHead(min(l.Layer, r.m.NLayerAll-1)), 1)) / uint64(max(l.HeadsKV, 1))
			u.Ops = 2 * max(group, 1) * uint64(l.NEmbdK)
			if !l.SharedWith {
				u.Bytes = size(b, k.TypeK, int64(l.NEmbdK), int64(k.Size), int64(k.Streams))
			}
			if !k.NoV {
				u.Read += k.TypeV.RowBytes(uint64(l.NEmbdV))
				if !l.SharedWith {
					u.Bytes += size(b, k.TypeV, int64(l.NEmbdV), int64(k.Size), int64(k.Streams))
				}
			}
			add(u, b)
		}
	}
	if s := r.mem.RS; s != nil {
		for _, il := range s.Layers {
			b := r.p.Cache(il)
			u := Use{Tensor: -1, Layer: il, Read: 2 * 4 * uint64(s.NEmbdR+s.NEmbdS)} // read and written
			u.Bytes = size(b, formats.F32, int64(s.NEmbdR), int64(s.Rows), 1) + size(b, formats.F32, int64(s.NEmbdS), int64(s.Rows), 1)
			if s.PLE[il] {
				u.Bytes += size(b, formats.F32, int64(s.NEmbdP), int64(s.Rows), 1)
			}
			add(u, b)
		}
	}
	for _, h := range r.mem.More {
		b := r.p.Cache(h.Layer)
		add(Use{Tensor: -1, Layer: h.Layer, Bytes: size(b, h.Type, h.Ne[0], h.Ne[1], h.Ne[2])}, b)
	}
}
