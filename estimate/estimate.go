package estimate

import (
	"fmt"
	"slices"

	"weigh/estimate/hw"
	"weigh/estimate/sched"
	"weigh/formats"
	"weigh/inspect/arch"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// A Basis says how sure a figure is.
type Basis string

// The bases.
const (
	Exact    Basis = "exact"    // the same as llama.cpp's own, to the byte
	Derived  Basis = "derived"  // by llama.cpp's rules from what is assumed of the driver
	Modelled Basis = "modelled" // an upper bound, or fitted to measurements
)

// A Part is what memory is for.
type Part uint8

// The parts of llama.cpp's memory breakdown, and what it does not count.
const (
	Weights Part = iota
	Context
	Compute
	Overhead
)

// A Term is one addend of an estimate.
type Term struct {
	Part  Part
	Name  string
	Bytes uint64
	Basis Basis
	Why   string // how it comes about, with its arithmetic
}

// A Memory is one device's, or one kind of host memory's, share.
type Memory struct {
	Name                              string // of the buffer type: "CUDA0", "CUDA_Host", "CPU", "CPU_REPACK"
	Device                            int    // index into Options.Devices; -1 for host memory
	Model, Context, Compute, Overhead uint64 // bytes
	Terms                             []Term
	Peak                              []sched.Block // what lay in the compute buffer at its peak, if Options.Explain is set
}

// Total returns the sum of all parts.
func (m *Memory) Total() uint64 { return m.Model + m.Context + m.Compute + m.Overhead }

// Bases say how sure the figures of each part are.
type Bases struct{ Model, Context, Compute, Overhead Basis }

// A Breakdown is what llama.cpp allocates. Model, Context and Compute of each
// Memory are the figures of llama_get_memory_breakdown for a model loaded
// without allocation, as llama-fit-params prints them.
type Breakdown struct {
	Devices  []Memory // that the model uses
	Host     []Memory // by kind
	Settings Settings
	Basis    Bases
	Parts    []PartUse // companions, which the rows include
	Notes    []string
}

// Run returns what llama.cpp allocates for m with the settings o. An error is a
// [*RefusedError] where llama.cpp would refuse the settings, and a [*ModelError]
// where it would refuse the model.
func Run(m *model.Model, o Options) (*Breakdown, error) {
	r, err := newRun(m, &o)
	if err != nil {
		return nil, err
	}
	if err := r.compute(); err != nil {
		return nil, err
	}
	b := r.breakdown()
	r.overheads(b)
	r.remarks(b)
	return b, r.companions(b)
}

// measured is what llama.cpp's own measurement sees: the breakdown without
// overheads and companions.
func measured(m *model.Model, o *Options) (*Breakdown, error) {
	r, err := newRun(m, o)
	if err != nil {
		return nil, err
	}
	if err := r.compute(); err != nil {
		return nil, err
	}
	return r.breakdown(), nil
}

// A run is an estimate in the making.
type run struct {
	m   *model.Model
	o   *Options
	row *arch.Arch
	p   *placement
	c   *arch.Context
	s   *Settings
	mem *arch.Memory

	context []uint64 // bytes by buffer
	caches  []cacheTally
	g       *graph.Graph // of a full micro-batch
	result  *sched.Result
	more    int      // nodes that adapters add to the budget
	bound   []uint64 // upper bound of compute by device, where there is no graph
	notes   []string
}

func newRun(m *model.Model, o *Options) (*run, error) {
	r := &run{m: m, o: o, row: arch.Row(m.Arch)}
	var err error
	if r.p, err = place(m, r.row, o); err != nil {
		return nil, err
	}
	if r.c, r.s, err = o.context(m, r.row); err != nil {
		return nil, err
	}
	r.s.NGPULayers, r.s.LayersOn = min(r.p.ngl, m.NLayerAll+1), r.p.on
	if len(r.p.devices) == 0 {
		r.s.NGPULayers = 0
	}
	if o.Target != nil && o.TargetOptions != nil {
		t, err := newRun(o.Target, o.TargetOptions)
		if err != nil {
			return nil, fmt.Errorf("target: %w", err)
		}
		r.c.TargetMemory, r.p.target = t.mem, t.p
	}
	return r, r.memory()
}

// memory lays out what the context keeps.
func (r *run) memory() error {
	if err := graph.Try(func() { r.mem = arch.NewMemory(r.m, r.c) }); err != nil {
		return err
	}
	r.s.MemoryClass = "none"
	if r.mem != nil {
		r.s.MemoryClass = r.mem.Class
	}
	r.context = make([]uint64, len(r.p.c.Buffers))
	var bad error
	r.mem.Tensors(func(il int, typ formats.DType, ne [3]int64, name string) {
		e, _ := typ.Block()
		n, ok := formats.Elements([]uint64{uint64(ne[0]), uint64(ne[1]), uint64(ne[2])})
		if e == 0 || min(ne[0], ne[1], ne[2]) < 0 || !ok || n > 1<<56 || uint64(ne[0])%e != 0 {
			if bad == nil {
				bad = refuse("-ctk", "cache %s of layer %d cannot be %v of type %v", name, il, ne, typ)
			}
			return
		}
		b := r.p.Cache(il)
		size := padded(&r.p.c.Buffers[b], typ, [4]int64{ne[0], ne[1], ne[2], 1})
		r.context[b] += size
		r.tallyCache(int(b), name, typ, ne, size)
	})
	return bad
}

// pipeline reports whether several micro-batches run at once.
//
// Source: src/llama-context.cpp@v0.5.0, llama_context::llama_context.
func (r *run) pipeline() bool {
	return len(r.p.devices) > 1 && r.p.ngl > r.m.NLayerAll && r.o.SplitMode == SplitLayer &&
		!r.o.NoKVOffload && len(r.o.Overrides) == 0 && r.p.c.Pipelines()
}

// copies is the number of input copies of pipeline parallelism
// (GGML_SCHED_MAX_COPIES).
const copies = 4

// compute packs the worst-case graph.
//
// Source: src/llama-context.cpp@v0.5.0, llama_context::sched_reserve.
func (r *run) compute() error {
	if r.row.Build == nil {
		r.upperBound()
		return nil
	}
	c := r.p.c
	r.s.Pipeline = r.pipeline()
	c.OpOffload, c.Copies = !r.o.NoOpOffload, 1
	if r.s.Pipeline {
		c.Copies = copies
	}
	tokens := min(r.c.NCtx, r.c.NUBatch)
	c.MaxNodes = r.maxNodes(tokens)
	g, err := r.resolved(tokens)
	if err != nil {
		return err
	}
	changed := false
	for what, off := range map[arch.Fused]*bool{
		arch.FusedHCPre: &r.c.NoFusedHCPre, arch.FusedHCComb: &r.c.NoFusedHCComb, arch.FusedHCPost: &r.c.NoFusedHCPost,
	} {
		if !fused(g, what) {
			continue
		}
		on, err := r.onLayers(what)
		if err != nil {
			return err
		}
		*off = !on
		changed = changed || !on
	}
	if changed {
		if g, err = r.prompt(tokens); err != nil {
			return err
		}
	}
	c.NoAlloc, c.Explain = !r.o.Allocated, r.o.Explain
	r.result, err = sched.Pack(g, c)
	if err != nil {
		return &ModelError{"", err}
	}
	var one *graph.Graph
	if r.row.OneSeq && r.c.NSeqMax > 1 {
		if one, err = r.batch(tokens, 1, min(tokens, r.s.NOutputs)); err != nil {
			return err
		}
	}
	if r.o.Allocated {
		if err := r.generation(one); err != nil {
			return err
		}
	}
	r.g = g
	r.s.Nodes, r.s.Splits = len(g.Nodes), r.result.Splits
	return nil
}

// resolved returns the graph of a full micro-batch, with flash attention
// settled.
func (r *run) resolved(tokens int) (*graph.Graph, error) {
	if !r.s.FlashAttnAuto {
		return r.prompt(tokens)
	}
	// With everything on devices all operators of a layer run where the layer
	// is, if they can: the graph of one token need not be split to see it.
	if len(r.p.devices) == 0 || r.p.PinNorms() && !r.o.NoKVOffload && len(r.o.Overrides) == 0 {
		g, err := r.prompt(tokens)
		if err != nil || r.supported(g, arch.FusedFlashAttn) {
			return g, err
		}
	}
	on, err := r.onLayers(arch.FusedFlashAttn)
	if err != nil {
		return nil, err
	}
	r.c.FlashAttn, r.s.FlashAttn = on, on
	return r.prompt(tokens)
}

// supported reports whether the layers' devices can run all fused operators of
// a kind.
func (r *run) supported(g *graph.Graph, what arch.Fused) bool {
	for _, n := range g.FusedNodes {
		if n.What == uint8(what) && !r.p.Supports(r.p.LayerBackend(int(n.Layer)), n.Tensor) {
			return false
		}
	}
	return true
}

// generation packs the other graphs that llama.cpp reserves, and keeps the most
// that any of them takes.
func (r *run) generation(one *graph.Graph) error {
	seqs := r.c.NSeqMax
	tg, err := r.graph(seqs, seqs)
	if err != nil {
		return err
	}
	graphs := []*graph.Graph{tg}
	if one != nil {
		graphs = append(graphs, one)
	}
	for i, g := range graphs {
		res, err := sched.Pack(g, r.p.c)
		if err != nil {
			return &ModelError{"", err}
		}
		if i == 0 {
			r.s.NodesTG, r.s.SplitsTG = len(g.Nodes), res.Splits
		}
		for d, n := range res.Compute {
			r.result.Compute[d] = max(r.result.Compute[d], n)
		}
	}
	return nil
}

// prompt returns the graph of a full micro-batch.
func (r *run) prompt(tokens int) (*graph.Graph, error) {
	return r.graph(pad(tokens, r.c.NSeqMax), min(tokens, r.s.NOutputs))
}

func (r *run) graph(tokens, outputs int) (*graph.Graph, error) {
	return r.batch(tokens, r.c.NSeqMax, outputs)
}

// batch returns the graph of a micro-batch. A graph that cannot be built is
// where llama.cpp ends with an assertion.
func (r *run) batch(tokens, seqs, outputs int) (*graph.Graph, error) {
	u := arch.Batch{NTokens: tokens, NSeqs: seqs, NSeqTokens: tokens / seqs, NOutputs: outputs}
	if r.c.MTP {
		u.Kind = arch.GraphMTP
	}
	g, err := arch.Build(r.m, r.c, r.mem, u, r.p)
	if err != nil {
		return nil, badTensor("", "llama.cpp v0.5.0 would abort on this model with these settings: %w", err)
	}
	return g, nil
}

// maxNodes returns llama.cpp's node budget.
//
// Source: src/llama-context.cpp@v0.5.0, llama_context::graph_max_nodes.
func (r *run) maxNodes(tokens int) int {
	perToken, perTensor := 0, 8
	if r.row.Budget != nil {
		perToken, perTensor = r.row.Budget(r.m)
	}
	floor := 1024
	if perToken > 0 {
		floor = perToken * tokens
	}
	n := max(floor, perTensor*r.p.tensors)
	if r.row.Budget == nil {
		n += r.more
	}
	return n
}

func fused(g *graph.Graph, what arch.Fused) bool {
	for _, n := range g.FusedNodes {
		if n.What == uint8(what) {
			return true
		}
	}
	return false
}

// onLayers reports whether all fused operators of a kind would run on their
// layers' devices.
//
// Source: src/llama-context.cpp@v0.5.0, llama_context::resolve_fused_ops.
func (r *run) onLayers(what arch.Fused) (bool, error) {
	g, err := r.graph(r.c.NSeqMax, r.c.NSeqMax)
	if err != nil {
		return false, err
	}
	r.p.c.NoAlloc = false
	res, err := sched.Split(g, r.p.c)
	if err != nil {
		return false, &ModelError{"", err}
	}
	for _, n := range g.FusedNodes {
		if n.What == uint8(what) && res.Device[n.Tensor.ID] != r.p.LayerBackend(int(n.Layer)) {
			return false, nil
		}
	}
	return true, nil
}

// breakdown puts the figures together.
func (r *run) breakdown() *Breakdown {
	b := &Breakdown{Settings: *r.s, Notes: r.notes}
	b.Basis.Model, b.Basis.Context, b.Basis.Compute, b.Basis.Overhead = Exact, Exact, Exact, Modelled
	if arch.Lookup(r.m.Arch) == nil {
		b.Basis.Model, b.Basis.Context = Modelled, Modelled
	}
	if r.result == nil {
		b.Basis.Compute = Modelled
	}
	if slices.ContainsFunc(r.p.devices, func(d hw.Device) bool { return d.Backend == hw.Vulkan }) {
		if b.Basis.Compute == Exact {
			b.Basis.Compute = Derived
		}
		b.Notes = append(b.Notes, "Vulkan's buffers are aligned as the drivers of current GPUs ask at most: some bytes less where yours asks for less")
	}
	if slices.ContainsFunc(r.p.devices, func(d hw.Device) bool { return d.Backend == hw.SYCL }) {
		b.Notes = append(b.Notes, "SYCL is taken to be built with oneDNN, its drivers to allocate less than 4 GiB at once")
	}
	c := r.p.c
	compute := make([]uint64, len(c.Buffers))
	peak := make([][]sched.Block, len(c.Buffers))
	for i, buf := range c.Compute {
		switch {
		case r.result == nil:
			compute[buf] = r.bound[i]
		default:
			compute[buf] = r.result.Compute[i]
			if len(r.result.Peak) > i {
				peak[buf] = r.result.Peak[i]
			}
		}
	}
	for i := range c.Buffers {
		m := Memory{Name: c.Buffers[i].Name, Device: -1, Model: r.p.bytes[i], Context: r.context[i], Compute: compute[i], Peak: peak[i]}
		m.Terms = r.terms(i, compute[i], b.Basis)
		if i < len(r.p.devices) {
			m.Device = deviceIndex(r.o.Devices, &r.p.devices[i])
			b.Devices = append(b.Devices, m)
			continue
		}
		if m.Total() > 0 {
			b.Host = append(b.Host, m)
		}
	}
	return b
}

func deviceIndex(all []hw.Device, d *hw.Device) int {
	for i := range all {
		if &all[i] == d {
			return i
		}
	}
	return -1
}
