package sched

import (
	"fmt"
	"slices"

	"weigh/inspect/graph"
)

// The limits of ggml's allocator (ggml/src/ggml-alloc.c@v0.5.0).
const (
	maxFree   = 256     // MAX_FREE_BLOCKS
	maxChunks = 16      // GGML_VBUFFER_MAX_CHUNKS
	unlimited = 1 << 59 // ggml has SIZE_MAX/2; this is beyond any machine too, and sums of maxChunks fit
)

// span is free memory in a chunk.
type span struct{ off, size uint64 }

// A chunk is one allocation: free spans by address, and the highest address
// that was in use.
type chunk struct {
	free []span
	max  uint64
}

// heap is the allocator of one buffer type (ggml_dyn_tallocr).
type heap struct {
	buf    *BufferType
	limit  uint64
	chunks []chunk
	live   []Block // what is allocated, if asked for
	peak   []Block // live when a chunk last grew
}

// at is an address in a heap.
type at struct {
	chunk int
	off   uint64
}

func (h *heap) pad(n uint64) uint64 { return (n + h.buf.Align - 1) &^ (h.buf.Align - 1) }

// alloc takes size bytes: the smallest free span that holds them, the last of
// each chunk only if no other does, and a new chunk if none does.
//
// Source: ggml_dyn_tallocr_alloc.
func (h *heap) alloc(size uint64) (at, error) {
	if size > unlimited-h.buf.Align {
		return at{}, fmt.Errorf("%d bytes are more than an address space", size)
	}
	size = h.pad(size)
	best := at{chunk: -1}
	span := -1
	for c := range h.chunks {
		free := h.chunks[c].free
		fit := uint64(1<<64 - 1)
		for i := 0; i < len(free)-1; i++ {
			if free[i].size >= size && free[i].size <= fit {
				best.chunk, span, fit = c, i, free[i].size
			}
		}
	}
	if span < 0 {
		reuse := int64(-1 << 63)
		for c := range h.chunks {
			free := h.chunks[c].free
			if len(free) == 0 {
				continue
			}
			s := free[len(free)-1]
			// Below zero it is what the chunk has to grow by, above what stays unused.
			r := int64(h.chunks[c].max - s.off - size)
			if s.size >= size && (reuse < 0 && r > reuse || r >= 0 && r < reuse) {
				best.chunk, span, reuse = c, len(free)-1, r
			}
		}
	}
	if span < 0 {
		if len(h.chunks) == maxChunks {
			return at{}, fmt.Errorf("%d bytes do not fit in %d allocations of %s", size, maxChunks, h.buf.Name)
		}
		best.chunk, span = h.grow(size), 0
	}
	c := &h.chunks[best.chunk]
	s := &c.free[span]
	best.off = s.off
	s.off += size
	s.size -= size
	if s.size == 0 {
		c.free = slices.Delete(c.free, span, span+1)
	}
	return best, nil
}

// grow adds a chunk of the largest size there is, or of size if that is more;
// the last one has no limit.
//
// Source: ggml_dyn_tallocr_new_chunk.
func (h *heap) grow(size uint64) int {
	n := max(size, h.limit)
	if len(h.chunks) == maxChunks-1 {
		n = unlimited
	}
	h.chunks = append(h.chunks, chunk{free: append(make([]span, 0, 16), span{0, n})})
	return len(h.chunks) - 1
}

// release gives size bytes back and joins them with a free neighbour.
//
// Source: ggml_dyn_tallocr_free_bytes.
func (h *heap) release(a at, size uint64) error {
	size = h.pad(size)
	c := &h.chunks[a.chunk]
	for i := range c.free {
		s := &c.free[i]
		if s.off+s.size == a.off {
			s.size += size
			if i+1 < len(c.free) && s.off+s.size == c.free[i+1].off {
				s.size += c.free[i+1].size
				c.free = slices.Delete(c.free, i+1, i+2)
			}
			return nil
		}
		if a.off+size == s.off {
			s.off = a.off
			s.size += size
			if i > 0 && c.free[i-1].off+c.free[i-1].size == s.off {
				c.free[i-1].size += s.size
				c.free = slices.Delete(c.free, i, i+1)
			}
			return nil
		}
	}
	if len(c.free) >= maxFree {
		return fmt.Errorf("more than %d gaps in the compute buffer, where llama.cpp ends with an assertion", maxFree)
	}
	i := 0
	for i < len(c.free) && c.free[i].off < a.off {
		i++
	}
	c.free = slices.Insert(c.free, i, span{a.off, size})
	return nil
}

// state is what the allocator knows of a tensor.
type state struct {
	children, views int32 // readers and views that are still to come
	heap            int16
	owned           bool // holds memory of the heap
	at              at
}

// packer places the tensors of a graph (ggml_gallocr).
type packer struct {
	w      *work
	heaps  []*heap
	of     []int16 // heap of each device
	states []state // by ID
}

// pack places the split graph and fills in the memory that it needs.
func (w *work) pack(r *Result) (*packer, error) {
	p := &packer{w: w, states: make([]state, w.count)}
	for d, b := range w.c.Compute {
		i := slices.Index(w.c.Compute, b)
		if i < d {
			p.of = append(p.of, p.of[i])
			continue
		}
		h := &heap{buf: &w.c.Buffers[b], limit: unlimited}
		if m := h.buf.MaxSize; m > 0 {
			h.limit = min(m, unlimited)
		}
		p.of = append(p.of, int16(len(p.heaps)))
		p.heaps = append(p.heaps, h)
	}
	if err := p.run(); err != nil {
		return nil, err
	}
	r.Compute = make([]uint64, len(p.of))
	r.Chunks = make([][]uint64, len(p.of))
	if w.c.Explain {
		r.Peak = make([][]Block, len(p.of))
	}
	for d, i := range p.of {
		h := p.heaps[i]
		for _, c := range h.chunks {
			r.Compute[d] += c.max
			r.Chunks[d] = append(r.Chunks[d], c.max)
		}
		if w.c.Explain {
			r.Peak[d] = h.peak
		}
	}
	return p, nil
}

// run places leafs, then inputs, then every node in order, and frees what has
// no reader left.
//
// Source: ggml_gallocr_alloc_graph_impl.
func (p *packer) run() error {
	for _, s := range p.w.seqLeafs {
		if err := p.place(s.t, s.device); err != nil {
			return err
		}
	}
	for _, s := range p.w.seq {
		if s.t.ViewSrc != nil && s.t.Op != graph.OpNone {
			p.states[s.t.ViewSrc.ID].views++
		}
		if s.t.Is(graph.Input) {
			if err := p.place(s.t, s.device); err != nil {
				return err
			}
		}
		for _, o := range s.t.Src {
			if o == nil {
				continue
			}
			p.states[o.ID].children++
			if o.Is(graph.Input) {
				if err := p.place(o, s.device); err != nil {
					return err
				}
			}
		}
	}
	for _, s := range p.w.seq {
		for _, o := range s.t.Src {
			if o == nil {
				continue
			}
			if err := p.place(o, s.device); err != nil {
				return err
			}
		}
		if err := p.place(s.t, s.device); err != nil {
			return err
		}
		for _, o := range s.t.Src {
			if o == nil {
				continue
			}
			if err := p.done(o); err != nil {
				return err
			}
		}
	}
	return nil
}

// done notes that one reader of t has run.
func (p *packer) done(t *graph.Tensor) error {
	st := &p.states[t.ID]
	st.children--
	if st.children != 0 || st.views != 0 {
		return nil
	}
	if t.ViewSrc != nil {
		t = t.ViewSrc
		st = &p.states[t.ID]
		st.views--
		if st.children != 0 || st.views != 0 {
			return nil
		}
	}
	if !st.owned || t.Is(graph.Output) {
		return nil
	}
	st.owned = false
	h := p.heaps[st.heap]
	p.forget(h, st.at)
	return p.failed(t, h.release(st.at, h.buf.AllocSize(t)))
}

// place gives t memory unless it has some: that of an operand that nothing else
// reads if the operator can work in place, or new memory of the device.
//
// Source: ggml_gallocr_allocate_node.
func (p *packer) place(t *graph.Tensor, device int8) error {
	st := &p.states[t.ID]
	if t.Buf >= 0 || t.ViewSrc != nil || st.owned {
		return nil
	}
	st.owned = true
	if inPlace(t.Op) {
		for _, o := range t.Src {
			if o == nil {
				continue
			}
			from := &p.states[o.ID]
			if !from.owned || o.Is(graph.Output) || o.Type != t.Type || o.Ne != t.Ne || o.Nb != t.Nb ||
				from.children != 1 || from.views != 0 {
				continue
			}
			st.heap, st.at = from.heap, from.at
			from.owned = false
			return p.failed(t, p.shrink(t, o, st))
		}
	}
	st.heap = p.of[device]
	h := p.heaps[st.heap]
	size := h.buf.AllocSize(t)
	a, err := h.alloc(size)
	if err != nil {
		return p.failed(t, err)
	}
	st.at = a
	p.note(h, t, a, h.pad(size))
	return nil
}

// shrink gives back what t, which took the place of o, does not need.
//
// Source: ggml_gallocr_free_extra_space.
func (p *packer) shrink(t, o *graph.Tensor, st *state) error {
	h := p.heaps[st.heap]
	had, has := h.pad(h.buf.AllocSize(o)), h.pad(h.buf.AllocSize(t))
	p.forget(h, st.at)
	p.note(h, t, st.at, has)
	if had <= has {
		return nil
	}
	return h.release(at{st.at.chunk, st.at.off + has}, had-has)
}

func (p *packer) failed(t *graph.Tensor, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("placing tensor %s: %w", label(t), err)
}

// note records that t lies at a, and whether that made its chunk grow.
func (p *packer) note(h *heap, t *graph.Tensor, a at, size uint64) {
	c := &h.chunks[a.chunk]
	grew := a.off+size > c.max
	if grew {
		c.max = a.off + size
	}
	if !p.w.c.Explain || size == 0 {
		return
	}
	b := Block{Name: t.Name, Layer: t.Layer, Op: t.Op, Chunk: a.chunk, Offset: a.off, Bytes: size}
	i, _ := slices.BinarySearchFunc(h.live, b, func(x, y Block) int {
		if x.Chunk != y.Chunk {
			return x.Chunk - y.Chunk
		}
		if x.Offset < y.Offset {
			return -1
		}
		if x.Offset > y.Offset {
			return 1
		}
		return 0
	})
	h.live = slices.Insert(h.live, i, b)
	if grew {
		h.peak = append(h.peak[:0], h.live...)
	}
}

// forget removes the record of what lies at a.
func (p *packer) forget(h *heap, a at) {
	if !p.w.c.Explain {
		return
	}
	h.live = slices.DeleteFunc(h.live, func(b Block) bool { return b.Chunk == a.chunk && b.Offset == a.off })
}

// inPlace reports whether the result may overwrite an operand of the same
// layout.
//
// Source: ggml_op_can_inplace.
func inPlace(o graph.Op) bool {
	switch o {
	case graph.OpFill, graph.OpScale, graph.OpDiagMaskZero, graph.OpDiagMaskInf, graph.OpAdd, graph.OpAddID,
		graph.OpAdd1, graph.OpSub, graph.OpMul, graph.OpDiv, graph.OpSqr, graph.OpSqrt, graph.OpLog, graph.OpUnary,
		graph.OpRope, graph.OpRopeBack, graph.OpSiLUBack, graph.OpRMSNorm, graph.OpRMSNormBack, graph.OpClamp,
		graph.OpSoftMax, graph.OpSoftMaxBack:
		return true
	}
	return false
}
