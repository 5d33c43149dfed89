package estimate

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"weigh/estimate/hw"
	"weigh/estimate/sched"
	"weigh/formats"
	"weigh/inspect/arch"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// A placement says where a model's layers and tensors are.
type placement struct {
	m       *model.Model
	row     *arch.Arch
	o       *Options
	c       *sched.Config
	devices []hw.Device // that the model uses
	ngl     int         // layers asked to be on devices, at least 0

	layer   []int8  // device of each layer and, last, of the output; the CPU's index is len(devices)
	on      []int   // layers on each device
	lists   [][]int // buffer types that weights of a device's layers may be in, best first; the CPU's last
	over    []override
	hit     []bool  // by override: whether it matched a tensor
	buf     []int16 // buffer of each tensor, -1 for one that is not loaded
	kinds   []kind
	copies  map[copyKey]int16   // buffers of tensors that several layers keep a copy of
	tensors int                 // tensors that are loaded, copies too
	bytes   []uint64            // by buffer: the weights, padded
	groups  [][groupCount]tally // the same by group

	target *placement // of the model that this one drafts for, nil for none

	supported map[opKey]uint64 // by operator: a bit for each buffer type, and one in the upper half for each that was asked about
}

type copyKey struct{ tensor, layer int32 }

type opKey struct {
	op  graph.Op
	typ formats.DType
	ne  [4]int64
}

// machine returns the devices that the model uses, with their rules.
//
// Source: src/llama.cpp@v0.5.0, llama_model_load_from_file_impl.
func machine(o *Options) ([]hw.Device, *sched.Config, error) {
	devices := o.Devices[:len(o.Devices)-min(o.Spare, len(o.Devices))]
	if o.SplitMode == SplitNone && len(devices) > 0 {
		switch {
		case o.MainGPU < 0:
			devices = nil
		case o.MainGPU >= len(devices):
			return nil, nil, refuse("-mg", "device %d of %d", o.MainGPU, len(devices))
		default:
			devices = devices[o.MainGPU : o.MainGPU+1]
		}
	}
	rules := make([]sched.Device, 0, len(devices))
	for i, d := range o.Devices {
		used := false
		for j := range devices {
			used = used || &devices[j] == &o.Devices[i]
		}
		if !used {
			continue
		}
		r, err := rulesOf(d, numberOf(o.Devices, i))
		if err != nil {
			return nil, nil, err
		}
		rules = append(rules, r)
	}
	cpu := sched.CPU()
	if !o.NoRepack {
		cpu.Packed = sched.Repacked()
	}
	return devices, sched.NewConfig(rules, cpu), nil
}

// numberOf returns the number in the name of device i.
func numberOf(devices []hw.Device, i int) (n int) {
	if devices[i].Number > 0 {
		return devices[i].Number - 1
	}
	for _, d := range devices[:i] {
		if d.Backend == devices[i].Backend && d.Remote == "" {
			n++
		}
	}
	return n
}

// alchemist matches the names of Intel's first discrete GPUs: "Intel(R) Arc(TM)
// A770 Graphics".
var alchemist = regexp.MustCompile(`\bArc(\(TM\))? (Pro )?A[0-9]`)

func syclOptions(d hw.Device) sched.SYCLOptions {
	return sched.SYCLOptions{Alchemist: alchemist.MatchString(d.Name)}
}

// rulesOf returns the buffer rules of the n-th device of its backend.
func rulesOf(d hw.Device, n int) (sched.Device, error) {
	if d.Remote != "" {
		local := d
		local.Remote = ""
		r, err := rulesOf(local, n)
		return sched.RPC(d.Remote, r), err
	}
	switch d.Backend {
	case hw.CUDA, "":
		return sched.CUDA(n, 100*d.ComputeCapability.Major+10*d.ComputeCapability.Minor, sched.CUDAOptions{Integrated: d.Unified}), nil
	case hw.ROCm:
		gfx, _ := strconv.ParseUint(strings.TrimPrefix(d.Arch, "gfx"), 16, 16)
		return sched.ROCm(n, int(gfx), sched.CUDAOptions{Integrated: d.Unified}), nil
	case hw.Vulkan:
		limits := sched.DiscreteVulkan()
		if strings.Contains(d.Name, "llvmpipe") {
			limits = sched.Lavapipe()
		}
		limits.Integrated = d.Unified
		return sched.Vulkan(n, limits), nil
	case hw.Metal:
		return sched.Metal(sched.MetalOptions{Private: !d.Unified}), nil
	case hw.SYCL:
		return sched.SYCL(n, syclOptions(d)), nil
	}
	return sched.Device{}, fmt.Errorf("--backend: the buffer rules of %q are not known: those of cuda, rocm, vulkan, metal and sycl are", d.Backend)
}

// place decides where everything is.
//
// Source: src/llama-model.cpp@v0.5.0, llama_model_base::load_tensors.
func place(m *model.Model, row *arch.Arch, o *Options) (*placement, error) {
	devices, c, err := machine(o)
	if err != nil {
		return nil, err
	}
	switch o.SplitMode {
	case SplitRow:
		if slices.ContainsFunc(devices, func(d hw.Device) bool { return d.Backend == hw.SYCL }) {
			return nil, errors.New("-sm row: memory of SYCL's split buffers is not modelled: use -sm layer")
		}
		if len(devices) > 0 {
			return nil, refuse("-sm row", "device %s does not support split buffers: use -sm layer", c.Devices[0].Name)
		}
	case SplitTensor:
		return nil, errors.New("-sm tensor: memory of the tensor split mode is not modelled: use -sm layer")
	}
	if err := check(m); err != nil {
		return nil, err
	}
	p := &placement{m: m, row: row, o: o, c: c, devices: devices, supported: map[opKey]uint64{}}
	if err := p.layers(); err != nil {
		return nil, err
	}
	p.bufferLists()
	if err := p.overrides(); err != nil {
		return nil, err
	}
	return p, p.weights()
}

// layers gives each layer, and the output, a device.
func (p *placement) layers() error {
	n := p.m.NLayerAll
	p.ngl = n + 1
	if p.o.NGPULayers != nil && *p.o.NGPULayers >= 0 {
		p.ngl = *p.o.NGPULayers
	}
	nd := len(p.devices)
	cpu := int8(nd)
	p.layer = make([]int8, n+1)
	p.on = make([]int, nd)
	splits, err := p.splits()
	if err != nil {
		return err
	}
	start, active := max(n+1-p.ngl, 0), min(p.ngl, n+1)
	for il := range p.layer {
		p.layer[il] = cpu
		if nd == 0 || il < start || il-start >= active {
			continue
		}
		at := float32(il-start) / float32(active)
		d := sort.Search(nd, func(i int) bool { return splits[i] > at })
		if d == nd {
			return refuse("-ts", "the shares %v leave layer %d without a device", p.o.TensorSplit, il)
		}
		p.layer[il] = int8(d)
		p.on[d]++
	}
	return nil
}

// splits returns the cumulated shares of the devices.
func (p *placement) splits() ([]float32, error) {
	s := make([]float32, len(p.devices))
	given := false
	for _, v := range p.o.TensorSplit {
		if !(v >= 0 && v < 1e30) {
			return nil, refuse("-ts", "share %v, want 0 or more", v)
		}
	}
	for i := range min(len(s), len(p.o.TensorSplit)) {
		s[i] = p.o.TensorSplit[i]
		given = given || s[i] != 0
	}
	if !given {
		for i, d := range p.devices {
			s[i] = float32(free(d, p.o.Host))
		}
	}
	var sum float32
	for i := range s {
		sum += s[i]
		s[i] = sum
	}
	for i := range s {
		if sum == 0 {
			s[i] = float32(i+1) / float32(len(s))
			continue
		}
		s[i] /= sum
	}
	return s, nil
}

// free returns the free bytes that a device reports to llama.cpp: without the
// context that it has made by then, except for a device of which nothing but
// the size is said. It is the host's where the device reports none.
func free(d hw.Device, h hw.Host) uint64 {
	switch {
	case d.MemoryFree != nil && d.Assumed && d.SMs == 0:
		return *d.MemoryFree
	case d.MemoryFree != nil:
		n, _ := hw.Context(d)
		return *d.MemoryFree - min(n, *d.MemoryFree)
	case d.MemoryTotal != nil:
		return *d.MemoryTotal
	}
	b, _, _ := h.Usable()
	return b
}

// bufferLists lists the buffer types of each device's weights.
//
// Source: src/llama-model.cpp@v0.5.0, make_cpu_buft_list and
// make_gpu_buft_list.
func (p *placement) bufferLists() {
	var cpu []int
	if !p.o.NoHost && p.c.Pinned >= 0 {
		cpu = append(cpu, p.c.Pinned)
	}
	if p.c.Packed >= 0 {
		cpu = append(cpu, p.c.Packed)
	}
	cpu = append(cpu, p.c.CPU)
	for i := range p.devices {
		p.lists = append(p.lists, append([]int{i}, cpu...))
	}
	p.lists = append(p.lists, cpu)
}

// overrides compiles the patterns of --override-tensor.
func (p *placement) overrides() error {
	p.hit = make([]bool, len(p.o.Overrides))
	for _, o := range p.o.Overrides {
		re, err := CompilePattern(o.Pattern)
		if err != nil {
			return refuse("-ot", "pattern %.80q: %v", o.Pattern, err)
		}
		v := override{Pattern: re, buffer: -1}
		for i, b := range p.c.Buffers {
			if b.Name == o.Buffer && (i < len(p.devices) || i == p.c.CPU) {
				v.buffer, v.cpu = i, i == p.c.CPU
			}
		}
		if v.buffer < 0 {
			return refuse("-ot", "unknown buffer type %.80q: want CPU or a device's name", o.Buffer)
		}
		p.over = append(p.over, v)
	}
	return nil
}

// weights gives each tensor, and each copy of one, a buffer.
//
// Source: src/llama-model-loader.cpp@v0.5.0,
// llama_model_loader::create_tensor.
func (p *placement) weights() error {
	n := len(p.m.Tensors)
	p.buf, p.kinds = make([]int16, n), make([]kind, n)
	p.bytes = make([]uint64, len(p.c.Buffers))
	p.groups = make([][groupCount]tally, len(p.c.Buffers))
	p.copies = map[copyKey]int16{}
	for i := range p.m.Tensors {
		t := &p.m.Tensors[i]
		il, base, suffix := parse(t.Name)
		k := kindOf(base, suffix, p.row.Scan)
		p.kinds[i], p.buf[i] = k, -1
		if k.op == graph.OpNone || p.skipped(t.Name, base, il) {
			continue
		}
		if k.op == graph.OpRope && il < 0 {
			if err := p.ropeFactors(i); err != nil {
				return err
			}
			continue
		}
		switch {
		case k.layer == inInput:
			il = -1
		case k.layer == inOutput:
			il = p.m.NLayerAll
		case il < 0:
			il = 0
		}
		if p.row.Layer != nil {
			il = p.row.Layer(p.m, t.Name, il)
		}
		b, err := p.pick(i, k.op, il)
		if err != nil {
			return err
		}
		p.buf[i] = b
		p.add(i, b, groupOf(k))
		if p.row.Build == nil && il == 0 && !strings.Contains(t.Name, "blk.") { // of the first layer, or the output
			if b, err = p.pick(i, k.op, p.m.NLayerAll); err != nil {
				return err
			}
			p.copy(i, p.m.NLayerAll, b)
		}
	}
	return p.tied()
}

// skipped reports whether the tensor is not loaded.
func (p *placement) skipped(name, base string, il int) bool {
	if p.row.Skip != nil && p.row.Skip(p.m, name, il, p.o.MTP) {
		return true
	}
	if p.m.NLayerNext == 0 || p.m.RouterLayer >= 0 || il < p.m.NLayer() || slices.Contains(p.row.Always, base) {
		return false
	}
	return p.row.NextN == arch.NextNNever || p.row.NextN == arch.NextNMTP && !p.o.MTP
}

// ropeFactors places the frequency factors that all layers share: one copy in
// each buffer type.
func (p *placement) ropeFactors(i int) error {
	for il := range p.m.NLayerAll {
		if p.skipped(p.m.Tensors[i].Name, "", il) {
			continue
		}
		at := il
		if p.row.Layer != nil {
			if at = p.row.Layer(p.m, p.m.Tensors[i].Name, il); at < 0 {
				continue
			}
		}
		b, err := p.pick(i, graph.OpRope, at)
		if err != nil {
			return err
		}
		p.copy(i, il, b)
	}
	return nil
}

// tied places the token embeddings once more, as the output matrix, or that as
// the embeddings.
func (p *placement) tied() error {
	x := p.m.Index
	i := x.Global("token_embd.weight")
	if out := x.Global("output.weight"); p.row.Tie == arch.TieInput && i < 0 && out >= 0 {
		p.add(out, p.buf[out], groupCopies)
		return nil
	}
	twice := p.row.Tie == arch.TieTwice
	if p.row.Tie != arch.TieCopy && !twice || i < 0 || p.buf[i] < 0 || x.Global("output.weight") >= 0 {
		return nil
	}
	b, err := p.pick(i, graph.OpMulMat, p.m.NLayerAll)
	if err != nil {
		return err
	}
	if twice && p.buf[i] == b {
		p.add(i, b, groupCopies)
		return nil
	}
	p.copy(i, p.m.NLayerAll, b)
	return nil
}

// copy notes that a layer's copy of tensor i is in buffer b, which holds at
// most one.
func (p *placement) copy(i, layer int, b int16) {
	have := p.buf[i] == b
	if p.buf[i] < 0 {
		p.buf[i] = b
	}
	for k, other := range p.copies {
		have = have || int(k.tensor) == i && other == b
	}
	p.copies[copyKey{int32(i), int32(layer)}] = b
	if !have {
		p.add(i, b, groupCopies)
	}
}

// add counts tensor i in buffer b.
func (p *placement) add(i int, b int16, g group) {
	t := &p.m.Tensors[i]
	n := padded(&p.c.Buffers[b], t.Type, dims(t.Shape))
	p.tensors++
	p.bytes[b] += n
	p.groups[b][g].n++
	p.groups[b][g].bytes += n
}

// check rejects tensors that ggml has no type for or whose size would not fit
// in the arithmetic.
func check(m *model.Model) error {
	if len(m.Tensors) == 0 {
		return &ModelError{"", errors.New("the file has no tensors: it is a vocabulary or settings without weights")}
	}
	for i := range m.Tensors {
		t := &m.Tensors[i]
		if !t.Type.GGML() {
			return badTensor(t.Name, "llama.cpp v0.5.0 has no element type %v: convert the model first", t.Type)
		}
		n, ok := formats.Elements(t.Shape)
		e, _ := t.Type.Block()
		if !ok || n > 1<<56 || len(t.Shape) > 4 || (len(t.Shape) > 0 && t.Shape[0]%e != 0) {
			return badTensor(t.Name, "shape %v is not one of %v", t.Shape, t.Type)
		}
	}
	return nil
}

// padded returns the bytes that a tensor takes of a buffer.
//
// Source: ggml/src/ggml-alloc.c@v0.5.0,
// ggml_backend_alloc_ctx_tensors_from_buft_size.
func padded(b *sched.BufferType, typ formats.DType, ne [4]int64) uint64 {
	e, size := typ.Block()
	t := graph.Tensor{Type: typ, Ne: ne, Buf: graph.Unplaced, Backend: -1}
	t.Nb[0] = size
	t.Nb[1] = size * (uint64(ne[0]) / e)
	t.Nb[2] = t.Nb[1] * uint64(ne[1])
	t.Nb[3] = t.Nb[2] * uint64(ne[2])
	return (b.AllocSize(&t) + b.Align - 1) / b.Align * b.Align
}

// pick returns the buffer of tensor i, which op of layer il reads; -1 is the
// input, NLayerAll the output.
func (p *placement) pick(i int, op graph.Op, il int) (int16, error) {
	return p.pickFor(p.m.Tensors[i], op, il)
}

func (p *placement) pickFor(t model.Tensor, op graph.Op, il int) (int16, error) {
	cpu := p.lists[len(p.devices)]
	list := cpu
	if il >= len(p.layer) {
		return 0, badTensor(t.Name, "layer %d of %d", il, p.m.NLayerAll)
	}
	if il >= 0 {
		list = p.lists[p.layer[il]]
	}
	for j := range p.over {
		v := &p.over[j]
		if !v.Match(t.Name) {
			continue
		}
		p.hit[j] = true
		if !v.cpu {
			return int16(v.buffer), nil
		}
		list = cpu
		break
	}
	for _, b := range list {
		if p.runs(&t, op, b) {
			return int16(b), nil
		}
	}
	if p.row.Build == nil { // which operator reads it is a guess
		return int16(list[0]), nil
	}
	return 0, badTensor(t.Name, "no device can run %v on %v %v", op, t.Type, t.Shape)
}

// runs reports whether op can read tensor t in buffer b.
func (p *placement) runs(t *model.Tensor, op graph.Op, b int) bool {
	key := opKey{op, t.Type, dims(t.Shape)}
	known := p.supported[key]
	ask := uint64(1) << (32 + b)
	if known&ask == 0 {
		known |= ask
		if p.probe(key, b) {
			known |= 1 << b
		}
		p.supported[key] = known
	}
	return known>>b&1 == 1
}

// probe asks the device of buffer b about op with weights of the key's shape.
//
// Source: src/llama-model-loader.cpp@v0.5.0, weight_buft_supported.
func (p *placement) probe(k opKey, b int) bool {
	device := len(p.devices) // the CPU
	switch {
	case b < len(p.devices):
		device = b
	case b == p.c.Pinned:
		device = 0
	case b == p.c.Packed:
		if !p.o.Repack.packs(k.op, k.typ, k.ne) {
			return false
		}
	}
	ok := false
	_, err := graph.Build(8, func(g *graph.Graph) {
		w := g.Leaf("", k.typ, k.ne[:]...)
		w.Buf, w.Flags = int16(b), graph.Weight
		ok = p.c.Devices[device].Supports(p.example(g, k.op, w))
	})
	return err == nil && ok
}

// example returns op reading the weights w, as llama.cpp asks about it.
func (p *placement) example(g *graph.Graph, op graph.Op, w *graph.Tensor) *graph.Tensor {
	f := func(ne ...int64) *graph.Tensor { return g.Leaf("", formats.F32, ne...) }
	ids := func(ne ...int64) *graph.Tensor { return g.Leaf("", formats.I32, ne...) }
	h := &p.m.HParams
	used := int64(1)
	if h.RouterLayer < 0 || op == graph.OpAddID {
		used = 0
		for il := range h.Layers {
			used = max(used, int64(h.NExpertUsed(il)))
		}
	}
	ne := w.Ne
	const n = 512
	switch op {
	case graph.OpGetRows:
		return g.GetRows(w, ids(n))
	case graph.OpMulMat:
		return g.MulMat(w, f(ne[0], n, ne[2], ne[3]))
	case graph.OpMulMatID:
		return g.MulMatID(w, f(ne[0], used, n), ids(used, n))
	case graph.OpAdd:
		return g.Add(f(ne[:]...), w)
	case graph.OpAddID:
		return g.AddID(f(ne[0], used, n), w, ids(used, n))
	case graph.OpMul:
		return g.Mul(f(ne[:]...), w)
	case graph.OpDiv:
		return g.Div(f(ne[0]), w)
	case graph.OpRope:
		return g.Rope(f(int64(h.NEmbdHeadV(0)), int64(h.NHead(0)), n), ids(n), w, 0, 0)
	case graph.OpSSMConv:
		return g.SSMConv(f(ne[0]-1+n, ne[1], 3), w)
	case graph.OpSSMScan:
		state := ne[0]
		if state == 1 {
			state = int64(h.SSMDState)
		}
		heads := ne[1]
		dim, group := int64(h.SSMDInner)/max(heads, 1), max(int64(h.SSMNGroup), 1)
		return g.SSMScan(f(state, dim, heads, 3), f(dim, heads, n, 3), f(heads, n, 3), w, f(state, group, n, 3), f(state, group, n, 3), ids(3), 1)
	case graph.OpRWKVWKV6:
		const n = 123 // of everything: a state that not every Vulkan driver can bind
		like := f(n, n, n)
		return g.RWKVWKV6(like, like, like, w, like, f(n, n, n, n))
	case graph.OpIm2col:
		return g.Im2col(w, f(int64(h.NEmbdInp()), ne[1], 1, 1), 1, 0, 0, 0, 1, 0, false, formats.F16)
	case graph.OpScale:
		return g.Scale(w)
	}
	t := *w
	t.Op, t.Src = op, [graph.MaxSrc]*graph.Tensor{w, w, w, w, w, w}
	return &t
}

// dims returns a shape as ggml's four dimensions.
func dims(shape []uint64) [4]int64 {
	ne := [4]int64{1, 1, 1, 1}
	for i := range min(len(shape), 4) {
		ne[i] = int64(shape[i])
	}
	return ne
}

// Weight implements [arch.Placer].
func (p *placement) Weight(i, layer int) int16 {
	if b, ok := p.copies[copyKey{int32(i), int32(layer)}]; ok {
		return b
	}
	return p.buf[i]
}

// Cache implements [arch.Placer].
func (p *placement) Cache(il int) int16 {
	if p.o.NoKVOffload || il >= len(p.layer) || int(p.layer[il]) == len(p.devices) {
		return int16(p.c.CPU)
	}
	return int16(p.layer[il])
}

// TargetWeight implements [arch.Placer].
func (p *placement) TargetWeight(i, layer int) int16 {
	if p.target == nil {
		return int16(p.c.CPU)
	}
	return p.here(p.target.Weight(i, layer))
}

// TargetCache implements [arch.Placer].
func (p *placement) TargetCache(il int) int16 {
	if p.target == nil {
		return int16(p.c.CPU)
	}
	return p.here(p.target.Cache(il))
}

// here returns the draft's own number of a buffer of the target, the CPU's
// where the draft does not use its device.
func (p *placement) here(b int16) int16 {
	if b >= 0 {
		for i := range p.c.Buffers {
			if p.c.Buffers[i].Name == p.target.c.Buffers[b].Name {
				return int16(i)
			}
		}
	}
	return int16(p.c.CPU)
}

// LayerBackend implements [arch.Placer].
func (p *placement) LayerBackend(il int) int8 {
	if il < 0 || il >= len(p.layer) {
		return p.CPU()
	}
	return p.layer[il]
}

// CPU implements [arch.Placer].
func (p *placement) CPU() int8 { return int8(len(p.devices)) }

// Supports implements [arch.Placer].
func (p *placement) Supports(backend int8, t *graph.Tensor) bool {
	return p.c.Devices[backend].Supports(t)
}

// PinNorms implements [arch.Placer].
func (p *placement) PinNorms() bool { return p.ngl > p.m.NLayerAll }
