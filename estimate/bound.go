package estimate

import (
	"fmt"

	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// UpperBound is [Run] with the compute buffers of a model whose graph is not
// known: a bound from its tensors.
func UpperBound(m *model.Model, o Options) (*Breakdown, error) {
	r, err := newRun(m, &o)
	if err != nil {
		return nil, err
	}
	r.upperBound()
	return r.breakdown(), nil
}

// upperBound sets compute buffers that are not exceeded, as far as the tensors
// tell: of the widest layer the results of all products, twice over for what is
// made of them in between; attention scores of all heads, as without flash
// attention; masks; the logits; and the largest weight that a device fetches.
// It holds on every measured row of every architecture; a new kind of layer can
// have larger intermediates than its weights show.
func (r *run) upperBound() {
	h := &r.m.HParams
	tokens := uint64(pad(min(r.c.NCtx, r.c.NUBatch), r.c.NSeqMax))
	outputs := min(tokens, uint64(r.s.NOutputs))
	used, heads := 1, 1
	for il := range h.Layers {
		used = max(used, h.NExpertUsed(il))
		heads = max(heads, h.NHead(il))
	}
	widths := make([]uint64, h.NLayerAll+1)
	var largest uint64
	tied := r.m.Index.Global("output.weight") < 0
	for i := range r.m.Tensors {
		t := &r.m.Tensors[i]
		k := r.p.kinds[i]
		if k.layer == inBlock || k.layer == inOutput || tied && t.Name == "token_embd.weight" {
			largest = max(largest, t.Bytes)
		}
		if r.p.buf[i] < 0 || len(t.Shape) < 2 || k.layer != inBlock {
			continue
		}
		il, _, _ := parse(t.Name)
		if il < 0 || il >= h.NLayerAll {
			il = h.NLayerAll
		}
		n := t.Shape[0] + t.Shape[1]
		switch k.op {
		case graph.OpMulMat:
			if len(t.Shape) > 2 { // a matrix for each head
				n *= t.Shape[2]
			}
		case graph.OpMulMatID:
			n *= uint64(used)
		default:
			continue
		}
		widths[il] += n
	}
	var widest uint64
	for _, w := range widths[:h.NLayerAll] {
		widest = max(widest, w)
	}
	widest += widths[h.NLayerAll]

	cells, streams := uint64(0), uint64(1)
	var keys uint64 // elements of one layer's keys and values
	if r.mem != nil {
		for _, k := range r.mem.Caches() {
			cells = max(cells, uint64(k.Size))
			streams = max(streams, uint64(k.Streams))
			for _, l := range k.Layers {
				keys = max(keys, uint64(l.NEmbdK+l.NEmbdV)*uint64(k.Size)*uint64(k.Streams))
			}
		}
	}
	cells = max(cells, tokens)
	attention := cells * tokens / streams * streams
	masks := 6 * attention
	scores := 2 * 4 * attention * uint64(heads)
	if h.NRelAttnBkts > 0 { // the bias of every head and pair of positions, and its copies
		scores *= 3
	}
	states := uint64(0)
	if r.mem != nil && r.mem.RS != nil {
		s := r.mem.RS
		states = 6 * 4 * uint64(s.NEmbdR+s.NEmbdS+s.NEmbdP) * uint64(s.Rows)
		states += 8 * 4 * tokens * uint64(s.NEmbdR+h.SSMDInner*4)
	}
	embd := uint64(h.NEmbd)
	base := 4*tokens*(2*widest+16*embd) + states + 4*outputs*uint64(r.m.NVocab) + masks + scores + 4*keys
	inputs := 4*tokens*embd*4 + 2*masks
	r.bound = make([]uint64, len(r.p.c.Devices))
	for i := range r.bound {
		n := base + inputs
		if r.pipeline() {
			n += 3 * inputs * 2
			if h.NRelAttnBkts > 0 {
				n += 4 * scores
			}
		}
		if !r.o.NoOpOffload && r.p.ngl <= h.NLayerAll || len(r.o.Overrides) > 0 {
			n += 2 * largest
		}
		r.bound[i] = n
	}
	r.notes = append(r.notes, fmt.Sprintf("the graph of architecture %.40q is not known: compute buffers are an upper bound from its tensors", r.m.Arch))
}
