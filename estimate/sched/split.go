package sched

import (
	"fmt"
	"slices"

	"weigh/inspect/graph"
)

// work is a graph that is being split and packed. Splitting replaces operands
// and marks inputs; restore undoes that.
type work struct {
	c      *Config
	nodes  []*graph.Tensor
	leafs  []*graph.Tensor
	own    int     // tensors of the caller's graph; those that splitting adds have higher IDs
	count  int32   // all tensors
	device []int8  // by ID
	uses   []int32 // operands that are the tensor, by ID

	splits []part
	copies []int32           // by ID and device: 1 + index into groups, 0 for none
	groups [][]*graph.Tensor // the copies of an input on a device
	inputs []*graph.Tensor   // inputs of the graph, if there are several copies
	keep   map[int32][]*graph.Tensor

	seq      []step // the nodes in order, with the dependencies that splitting adds
	seqLeafs []step

	slab   []graph.Tensor
	undone []change
}

// A change is an operand of the caller's graph that was replaced, or, with src
// below zero, a tensor whose flags were changed.
type change struct {
	t     *graph.Tensor
	src   int
	was   *graph.Tensor
	flags graph.Flags
}

// A part is a run of nodes on one device.
type part struct {
	device     int8
	start, end int
	inputs     []*graph.Tensor // what has to be copied to the device first
}

// A step is a tensor for the allocator to place, and the device to place it on.
type step struct {
	t      *graph.Tensor
	device int8
}

// isView reports whether the scheduler passes over the operator because it only
// looks at memory in another way.
func isView(o graph.Op) bool {
	return o == graph.OpView || o == graph.OpReshape || o == graph.OpPermute || o == graph.OpTranspose
}

// split does all that ggml_backend_sched_split_graph does. Unless it
// fails the caller restores the graph.
func split(g *graph.Graph, c *Config) (*work, error) {
	if c.MaxNodes > 0 {
		budget := hashSize(c.MaxNodes)
		if n := len(g.Nodes) + len(g.Leafs); n > budget || len(g.Nodes) > c.MaxNodes || len(g.Leafs) > c.MaxNodes {
			return nil, &BudgetError{Nodes: len(g.Nodes), Leafs: len(g.Leafs), Budget: budget}
		}
	}
	w := &work{c: c}
	if err := w.read(g); err != nil {
		return nil, err
	}
	if err := w.place(); err != nil {
		return nil, err
	}
	w.expand()
	w.upgrade()
	if err := w.rest(); err != nil {
		return nil, err
	}
	if err := w.cut(); err != nil {
		w.restore()
		return nil, err
	}
	w.optimize()
	w.sequence()
	return w, nil
}

// read checks that the graph is whole and counts its operands.
func (w *work) read(g *graph.Graph) error {
	last := int32(-1)
	for _, list := range [2][]*graph.Tensor{g.Leafs, g.Nodes} {
		for _, t := range list {
			last = max(last, t.ID)
		}
	}
	w.own = int(last) + 1
	w.count = last + 1
	in := make([]bool, w.own)
	w.device = make([]int8, w.own, w.own+w.own/4)
	w.uses = make([]int32, w.own)
	for i := range w.device {
		w.device[i] = -1
	}
	w.nodes, w.leafs = slices.Clone(g.Nodes), g.Leafs
	for _, list := range [2][]*graph.Tensor{w.leafs, w.nodes} {
		for _, t := range list {
			in[t.ID] = true
			if t.Buf >= 0 && int(t.Buf) >= len(w.c.Buffers) {
				return fmt.Errorf("tensor %s is in buffer %d of %d", label(t), t.Buf, len(w.c.Buffers))
			}
		}
	}
	for _, list := range [2][]*graph.Tensor{w.leafs, w.nodes} {
		for _, t := range list {
			if v := t.ViewSrc; v != nil && (int(v.ID) >= w.own || !in[v.ID]) {
				return fmt.Errorf("tensor %s is read but is not in the graph", label(v))
			}
			for _, s := range t.Src {
				if s == nil {
					continue
				}
				if int(s.ID) >= w.own || !in[s.ID] {
					return fmt.Errorf("tensor %s is read but is not in the graph", label(s))
				}
				w.uses[s.ID]++
			}
			if t.Backend >= 0 && !w.c.NoAlloc {
				w.device[t.ID] = t.Backend
			}
		}
	}
	return nil
}

// restore makes the caller's graph what it was.
func (w *work) restore() {
	for _, c := range slices.Backward(w.undone) {
		if c.src >= 0 {
			c.t.Src[c.src] = c.was
		} else {
			c.t.Flags = c.flags
		}
	}
}

// label names a tensor in an error.
func label(t *graph.Tensor) string {
	if t.Layer >= 0 {
		return fmt.Sprintf("%q of layer %d", t.Name, t.Layer)
	}
	return fmt.Sprintf("%q", t.Name)
}

// add returns a new tensor that the graph's author does not know.
func (w *work) add() *graph.Tensor {
	if len(w.slab) == cap(w.slab) {
		w.slab = make([]graph.Tensor, 0, 64)
	}
	w.slab = w.slab[:len(w.slab)+1]
	t := &w.slab[len(w.slab)-1]
	t.ID, t.Buf, t.Backend, t.Layer = w.count, graph.Unplaced, -1, -1
	w.count++
	return t
}

// buffer returns the buffer type that holds t before the graph is packed, -1
// for none.
func buffer(t *graph.Tensor) int {
	if t.ViewSrc != nil {
		t = t.ViewSrc
	}
	return int(t.Buf)
}

// supports reports whether the device can run op where its operands lie.
func (w *work) supports(device int, op *graph.Tensor) bool {
	d := &w.c.Devices[device]
	for _, s := range op.Src {
		if s == nil || s.Buf < 0 {
			continue
		}
		b := &w.c.Buffers[s.Buf]
		if b.kind != d.Kind {
			continue
		}
		if b.device != device {
			if d.Local {
				return false
			}
			continue
		}
		if b.Runs != nil && !isView(op.Op) && op.Op != graph.OpNone {
			return b.Runs(op)
		}
	}
	return d.Supports(op)
}

// from returns the first device that reads t's buffer and runs op, -1 for none.
//
// Source: ggml_backend_sched_backend_from_buffer.
func (w *work) from(t, op *graph.Tensor) int8 {
	b := buffer(t)
	if b < 0 {
		return -1
	}
	for i := range w.c.Devices {
		if w.c.reads[i][b] && w.supports(i, op) {
			return int8(i)
		}
	}
	return -1
}

// place is pass 1: nodes go where their memory, or their weights, already are.
//
// Source: ggml_backend_sched_backend_id_from_cur.
func (w *work) place() error {
	for _, list := range [2][]*graph.Tensor{w.leafs, w.nodes} {
		for _, t := range list {
			if w.device[t.ID] >= 0 {
				continue
			}
			d, err := w.current(t)
			if err != nil {
				return err
			}
			w.device[t.ID] = d
		}
	}
	return nil
}

func (w *work) current(t *graph.Tensor) (int8, error) {
	last := int8(len(w.c.Devices) - 1)
	if d := w.from(t, t); d >= 0 {
		return d, nil
	}
	if b := buffer(t); b >= 0 {
		return -1, fmt.Errorf("tensor %s lies in %s, where no device can run %v", label(t), w.c.Buffers[b].Name, t.Op)
	}
	if t.Is(graph.Input) {
		return last, nil
	}
	// Frequencies and sinks are too small to decide where attention runs.
	if t.Op == graph.OpRope || t.Op == graph.OpFlashAttnExt {
		return -1, nil
	}
	for _, s := range t.Src {
		if s == nil || s.Buf < 0 || !s.Is(graph.Weight) {
			continue
		}
		d := w.from(s, t)
		if w.c.OpOffload && d == last && w.c.Buffers[s.Buf].Host {
			for i := range w.c.Devices[:last] {
				if f := w.c.Devices[i].Offload; f != nil && w.supports(i, t) && f(t) {
					return int8(i), nil
				}
			}
		}
		return d, nil
	}
	return -1, nil
}

// expand is pass 2: neighbours of a placed node go with it, first those of
// accelerators, then those of the CPU.
func (w *work) expand() {
	last := int8(len(w.c.Devices) - 1)
	n := len(w.nodes)
	for pass := range 4 {
		cur := int8(-1)
		for i := range n {
			t := w.nodes[i]
			if pass%2 == 1 {
				t = w.nodes[n-1-i]
			}
			if isView(t.Op) {
				continue
			}
			d := &w.device[t.ID]
			switch {
			case *d >= 0 && pass < 2 && *d == last:
				cur = -1
			case *d >= 0:
				cur = *d
			case cur >= 0 && w.supports(int(cur), t):
				*d = cur
			}
		}
	}
}

// reads reports whether the device can read t where it is or will be.
//
// Source: ggml_backend_sched_buffer_supported.
func (w *work) reads(t *graph.Tensor, device int) bool {
	b := buffer(t)
	if b < 0 {
		d := w.device[t.ID]
		if d < 0 && t.ViewSrc != nil {
			d = w.device[t.ViewSrc.ID]
		}
		if d < 0 {
			return false
		}
		b = w.c.Compute[d]
	}
	return w.c.reads[device][b]
}

// upgrade is pass 3: a node moves to a device of higher priority that computes
// in the same memory, and one without a device goes where most operands are.
func (w *work) upgrade() {
	for _, t := range w.nodes {
		if isView(t.Op) {
			continue
		}
		d := &w.device[t.ID]
		if *d < 0 {
			best := -1
			for i := range w.c.Devices {
				if !w.supports(i, t) {
					continue
				}
				n := 0
				for _, s := range t.Src {
					if s == nil {
						continue
					}
					known := w.device[s.ID] >= 0 || s.ViewSrc != nil && w.device[s.ViewSrc.ID] >= 0
					if known && w.reads(s, i) {
						n++
					}
				}
				if n > best {
					best, *d = n, int8(i)
				}
			}
			continue
		}
		for i := range int(*d) {
			if w.c.Compute[i] == w.c.Compute[*d] && w.supports(i, t) && w.readsAll(t, i) {
				*d = int8(i)
				break
			}
		}
	}
}

func (w *work) readsAll(t *graph.Tensor, device int) bool {
	for _, s := range t.Src {
		if s != nil && !w.reads(s, device) {
			return false
		}
	}
	return true
}

// rest is pass 4: operands without a device go to that of their reader, views
// to that of what they look at.
func (w *work) rest() error {
	for _, t := range w.nodes {
		d := &w.device[t.ID]
		if t.ViewSrc != nil && *d < 0 {
			*d = w.device[t.ViewSrc.ID]
		}
		for _, s := range t.Src {
			if s == nil || w.device[s.ID] >= 0 {
				continue
			}
			if s.ViewSrc != nil {
				w.device[s.ID] = w.device[s.ViewSrc.ID]
			} else {
				w.device[s.ID] = *d
			}
		}
		for i := 0; i < len(w.c.Devices) && *d < 0; i++ {
			if w.supports(i, t) {
				*d = int8(i)
			}
		}
		if *d < 0 {
			return fmt.Errorf("no device can run %v (tensor %s)", t.Op, label(t))
		}
	}
	return nil
}

// nCopies is the number of copies of an input.
func (w *work) nCopies() int { return max(w.c.Copies, 1) }

// group returns where the copies of t on a device are noted.
func (w *work) group(t *graph.Tensor, device int8) *int32 {
	return &w.copies[int(t.ID)*len(w.c.Devices)+int(device)]
}

// addGroup notes copies of t on a device. With several copies the first may be
// t itself.
func (w *work) addGroup(t *graph.Tensor, device int8, first *graph.Tensor) {
	n := w.nCopies()
	list := make([]*graph.Tensor, n)
	for i := range list {
		if i == 0 && first != nil {
			list[i] = first
			w.undone = append(w.undone, change{t: first, src: -1, flags: first.Flags})
		} else {
			d := w.add()
			d.Name, d.Type, d.Ne, d.Nb, d.Layer = t.Name, t.Type, t.Ne, t.Nb, t.Layer
			list[i] = d
		}
		if n > 1 {
			list[i].Flags |= graph.Input | graph.Output
		}
	}
	w.groups = append(w.groups, list)
	*w.group(t, device) = int32(len(w.groups))
}

// cut is pass 5: the graph is cut where the device changes, and operands that
// the device cannot read are replaced by copies.
func (w *work) cut() error {
	w.copies = make([]int32, w.own*len(w.c.Devices))
	i := 0
	for i < len(w.nodes) && isView(w.nodes[i].Op) {
		i++
	}
	cur := int8(0)
	if i < len(w.nodes) {
		cur = w.device[w.nodes[i].ID]
	}
	w.splits = append(make([]part, 0, 16), part{device: cur})
	p := &w.splits[0]
	for ; i < len(w.nodes); i++ {
		t := w.nodes[i]
		if isView(t.Op) {
			continue
		}
		d := w.device[t.ID]
		if d != cur || len(p.inputs) > 0 && w.fetches(t, cur) {
			p.end = i
			w.splits = append(w.splits, part{device: d, start: i})
			p = &w.splits[len(w.splits)-1]
			cur = d
		}
		for j, s := range t.Src {
			if s == nil || int(s.ID) >= w.own {
				continue
			}
			sd := w.device[s.ID]
			if sd < 0 {
				return fmt.Errorf("tensor %s has no device", label(s))
			}
			if s.Is(graph.Input) && w.nCopies() > 1 && *w.group(s, sd) == 0 {
				w.addGroup(s, sd, s)
				w.inputs = append(w.inputs, s)
			}
			if sd == cur || w.reads(s, int(cur)) {
				continue
			}
			if *w.group(s, cur) == 0 {
				w.addGroup(s, cur, nil)
				p.inputs = append(p.inputs, s)
			}
			w.undone = append(w.undone, change{t: t, src: j, was: s})
			t.Src[j] = w.groups[*w.group(s, cur)-1][0]
		}
	}
	p.end = len(w.nodes)
	return nil
}

// fetches reports whether t reads weights that have to be copied to the device:
// a new part lets them take the memory of those that were fetched before.
func (w *work) fetches(t *graph.Tensor, device int8) bool {
	for _, s := range t.Src {
		if s != nil && s.Buf >= 0 && s.Is(graph.Weight) && w.device[s.ID] != device && !w.reads(s, int(device)) {
			return true
		}
	}
	return false
}

// optimize lets each device change its parts.
func (w *work) optimize() {
	for _, p := range w.splits {
		if f := w.c.Devices[p.device].Optimize; f != nil {
			f(&Section{Nodes: w.nodes[p.start:p.end], w: w})
		}
	}
}

// hold returns a node that only reads: what it reads lives until then.
func (w *work) hold(ts []*graph.Tensor) *graph.Tensor {
	d := w.add()
	d.ViewSrc = ts[0]
	if ts[0].ViewSrc != nil {
		d.ViewSrc = ts[0].ViewSrc
	}
	copy(d.Src[:], ts)
	return d
}

// sequence lists what the allocator has to place: before each part its inputs
// and their copies, then its nodes, each followed by what was kept for it.
func (w *work) sequence() {
	n := len(w.nodes)
	for _, p := range w.splits {
		n += 2 * len(p.inputs)
	}
	for _, k := range w.keep {
		n += (len(k) + graph.MaxSrc - 1) / graph.MaxSrc
	}
	w.seq = make([]step, 0, n)
	for _, p := range w.splits {
		for _, s := range p.inputs {
			w.seq = append(w.seq,
				step{w.hold([]*graph.Tensor{s}), w.device[s.ID]},
				step{w.groups[*w.group(s, p.device)-1][0], p.device})
		}
		for _, t := range w.nodes[p.start:p.end] {
			w.seq = append(w.seq, step{t, w.device[t.ID]})
			for k := w.keep[t.ID]; len(k) > 0; k = k[min(len(k), graph.MaxSrc):] {
				w.seq = append(w.seq, step{w.hold(k[:min(len(k), graph.MaxSrc)]), p.device})
			}
		}
	}
	if w.nCopies() > 1 {
		for _, s := range w.inputs {
			w.leafGroup(s, w.device[s.ID])
		}
		for _, p := range w.splits {
			for _, s := range p.inputs {
				w.leafGroup(s, p.device)
			}
		}
	}
	for _, t := range w.leafs {
		w.seqLeafs = append(w.seqLeafs, step{t, w.device[t.ID]})
	}
}

func (w *work) leafGroup(t *graph.Tensor, device int8) {
	for _, c := range w.groups[*w.group(t, device)-1] {
		w.seqLeafs = append(w.seqLeafs, step{c, device})
	}
}
