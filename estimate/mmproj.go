package estimate

import (
	"fmt"

	"weigh/estimate/hw"
	"weigh/estimate/sched"
	"weigh/inspect/graph"
	"weigh/inspect/model"
	"weigh/inspect/projector"
)

// A towerUse is what one tower of a projector takes.
type towerUse struct {
	tower   *projector.Tower
	weights uint64 // bytes of its buffer
	bytes   uint64 // of its tensors, which llama.cpp counts
	warm    []uint64
	largest []uint64         // by device, at least warm
	input   []projector.Size // those that largest is of
	known   bool             // the graph is
}

// A projection is what a multimodal projector takes on a machine of its own:
// the first GPU, if there is one and it is not to be left alone, and the CPU.
type projection struct {
	c      *sched.Config
	device int // index into Options.Devices, or their number for the CPU
	towers []towerUse
}

// clipNodes is the node budget of a projector's graph (clip_ctx::max_nodes).
const clipNodes = 8192

// projection measures the projector.
//
// Source: tools/mtmd/clip.cpp@v0.5.0, clip_ctx::clip_ctx,
// clip_model_loader::load_tensors and warmup.
func (o *Options) projection() (*projection, error) {
	p := &projection{device: len(o.Devices)}
	var gpus []sched.Device
	if !o.MMProj.OnCPU && len(o.Devices) > 0 {
		p.device = firstGPU(o.Devices)
		if at := o.MMProjDevice; at != nil && *at >= 0 && *at < len(o.Devices) {
			p.device = *at
		}
		d, err := rulesOf(o.Devices[p.device], numberOf(o.Devices, p.device))
		if err != nil {
			return nil, err
		}
		d.Pinned = nil
		gpus = append(gpus, d)
	}
	p.c = sched.NewConfig(gpus, sched.CPU())
	p.c.MaxNodes = clipNodes
	for _, t := range o.MMProj.Projector.Towers {
		u := towerUse{tower: t, known: t.Known()}
		w := t.Weights()
		if err := check(&model.Model{Tensors: w}); err != nil {
			return nil, err
		}
		for i := range w {
			u.weights += padded(&p.c.Buffers[0], w[i].Type, dims(w[i].Shape))
			u.bytes += w[i].Bytes
		}
		var err error
		if u.warm, err = p.encode(t, t.WarmUp(), o.FlashAttn); err != nil {
			return nil, err
		}
		u.largest = u.warm
		for _, size := range t.Largest() {
			more, err := p.encode(t, size, o.FlashAttn)
			if err != nil {
				return nil, err
			}
			u.largest, u.input = most(u.largest, more), append(u.input, size)
		}
		p.towers = append(p.towers, u)
	}
	return p, nil
}

// firstGPU returns the device that a projector runs on: the first that is not
// integrated, or else the first.
func firstGPU(devices []hw.Device) int {
	for i := range devices {
		if !devices[i].Unified {
			return i
		}
	}
	return 0
}

// most returns the larger bytes of each device.
func most(a, b []uint64) []uint64 {
	m := make([]uint64, len(a))
	for i := range m {
		m[i] = max(a[i], b[i])
	}
	return m
}

// encode returns the compute buffers for one input: as llama.cpp does, with
// flash attention if the device has it, and what was tried before stays.
func (p *projection) encode(t *projector.Tower, size projector.Size, fa FlashAttn) ([]uint64, error) {
	if !t.Known() {
		n := make([]uint64, len(p.c.Devices))
		for i := range n {
			n[i] = t.Bound(size)
		}
		return n, nil
	}
	with := func(flash bool) ([]uint64, bool, error) {
		g, err := t.Build(size, flash, 0)
		if err != nil {
			return nil, false, err
		}
		res, err := sched.Pack(g, p.c)
		if err != nil {
			return nil, false, fmt.Errorf("projector: %w", err)
		}
		for _, n := range g.Nodes {
			if n.Op == graph.OpFlashAttnExt && !p.c.Devices[0].Supports(n) {
				return res.Compute, false, nil
			}
		}
		return res.Compute, true, nil
	}
	n, ok, err := with(fa != FlashAttnOff)
	if err != nil || ok || fa == FlashAttnOn {
		return n, err
	}
	without, _, err := with(false)
	if err != nil {
		return nil, err
	}
	return most(n, without), nil
}

// target returns what llama-server adds to the target of --fit, the tensors and
// the first buffers, and for which device; the CPU comes after the GPUs.
//
// Source: tools/mtmd/mtmd.cpp@v0.5.0, mtmd_get_memory_usage;
// tools/server/server-context.cpp@v0.5.0, server_context_impl::load_model.
func (p *projection) target() (device int, n uint64) {
	for _, u := range p.towers {
		n += u.bytes + u.warm[0]
	}
	return p.device, n
}

// mmproj adds the projector to the breakdown.
func (r *run) mmproj(b *Breakdown) error {
	p := r.o.MMProj
	q, err := r.o.projection()
	if err != nil {
		return fmt.Errorf("--mmproj: %w", err)
	}
	use := make([]Memory, len(q.c.Devices))
	for i := range use {
		use[i].Name = q.c.Buffers[q.c.Compute[i]].Name
	}
	if q.device < len(r.o.Devices) {
		b.device(r, use[0].Name, q.device)
	}
	for _, u := range q.towers {
		kind := "images"
		if u.tower.Audio {
			kind = "audio"
		}
		use[0].add(Weights, "projector", u.weights, Exact, "all tensors of the tower for "+kind+", on one device (clip_model_loader::load_tensors)")
		basis := Exact
		if !u.tower.Measured() {
			basis, b.Basis.Compute = Modelled, Modelled
		}
		switch {
		case u.known && !u.tower.Measured():
			b.Notes = append(b.Notes, fmt.Sprintf("the graph of projector type %.40q follows llama.cpp's source, but has not been compared with it", u.tower.Type))
		case !u.known:
			b.Notes = append(b.Notes, fmt.Sprintf("the graph of projector type %.40q is not known: its compute buffer is an upper bound from its tensors", u.tower.Type))
		}
		for i := range use {
			at := u.tower.WarmUp()
			use[i].add(Compute, "encoder", u.warm[i], basis, fmt.Sprintf("the graph of %s of %d by %d, reserved at the start (clip_model_loader::warmup)", kind, at.X, at.Y))
			if more := u.largest[i] - u.warm[i]; more > 0 {
				use[i].add(Overhead, "largest image", more, Modelled, "the compute buffer grows when an image needs it: "+sizes(u.input))
			}
		}
		if u.largest[0] > u.warm[0] {
			b.Notes = append(b.Notes, fmt.Sprintf("the projector's buffer grows with the image; counted is the largest it takes (%s): --image-max-tokens bounds it", sizes(u.input)))
		}
		if u.tower.Audio {
			b.Notes = append(b.Notes, "the projector's buffer for audio is that of 30 seconds, the length it is reserved for")
		}
	}
	b.join("mmproj", p.Name, use)
	return nil
}

// sizes says what the largest inputs are.
func sizes(list []projector.Size) string {
	s := ""
	for i, z := range list {
		if i > 0 {
			s += ", or "
		}
		if z.Batch > 1 {
			s += fmt.Sprintf("%d of ", z.Batch)
		}
		s += fmt.Sprintf("%d by %d pixels", z.X, z.Y)
	}
	return s
}
