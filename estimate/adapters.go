package estimate

import (
	"fmt"
	"strings"

	"weigh/formats"
	"weigh/inspect/arch"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// nodesPerAdapter is how far each adapted weight raises the node budget
// (llama_adapter_lora::get_n_nodes).
const nodesPerAdapter = 6

// adapters adds LoRA adapters and control vectors: their tensors, and what
// their nodes make the compute buffers larger. llama.cpp makes the context
// before it loads them, so its own measurement counts neither.
func (r *run) adapters(b *Breakdown) error {
	if len(r.o.LoRA) == 0 && !r.o.ControlVector {
		return nil
	}
	with := *r.c
	nodes := 0
	for _, l := range r.o.LoRA {
		u, pairs, err := r.lora(l)
		if err != nil {
			return err
		}
		b.join("lora", l.Name, u)
		with.LoRA = append(with.LoRA, pairs)
		nodes += nodesPerAdapter * len(pairs)
	}
	if r.o.ControlVector {
		u := r.buffers()
		with.ControlVector = make([]int16, r.m.NLayer())
		for il := range with.ControlVector {
			if with.ControlVector[il] = -1; il == 0 {
				continue
			}
			buf, err := r.p.pickFor(model.Tensor{Type: formats.F32, Shape: []uint64{uint64(r.m.NEmbd)}}, graph.OpAdd, il)
			if err != nil {
				return err
			}
			with.ControlVector[il] = buf
			u[buf].add(Weights, "vector", padded(&r.p.c.Buffers[buf], formats.F32, [4]int64{int64(r.m.NEmbd), 1, 1, 1}), Exact, "one for each layer")
		}
		b.join("control vector", "", u)
	}
	if r.result == nil {
		b.Notes = append(b.Notes, "the graph is not known, nor what adapters add to it")
		return nil
	}
	settings := *r.s
	adapted := *r
	adapted.c, adapted.s, adapted.more = &with, &settings, nodes
	if err := adapted.compute(); err != nil {
		return fmt.Errorf("with adapters: %w", err)
	}
	u := r.buffers()
	basis := Exact
	if len(r.o.LoRA) > 0 { // a few architectures adapt products that their builders take for plain ones
		basis, b.Basis.Compute = Modelled, Modelled
	}
	for i, n := range adapted.result.Compute {
		if less := r.result.Compute[i]; n > less {
			u[r.p.c.Compute[i]].add(Compute, "adapters", n-less, basis, "the graph with their nodes is reserved once they are set (llama_context::sched_reserve)")
		}
	}
	b.join("adapters", "in the graph", u)
	return nil
}

// lora places an adapter's tensors with the tensors they adapt; what adapts
// repacked weights goes to plain host memory.
//
// Source: src/llama-adapter.cpp@v0.5.0, llama_adapter_lora_init_impl.
func (r *run) lora(l Companion) ([]Memory, map[string]arch.Adapter, error) {
	u := r.buffers()
	pairs := map[string]arch.Adapter{}
	for i := range l.Tensors {
		t := &l.Tensors[i]
		base, down := strings.CutSuffix(t.Name, ".lora_a")
		if !down {
			var up bool
			if base, up = strings.CutSuffix(t.Name, ".lora_b"); !up {
				continue
			}
		}
		il, rest := model.SplitName(base)
		at := r.m.Index.Global(rest)
		if il >= 0 {
			at = r.m.Index.Layer(il, rest)
		}
		if at < 0 || r.p.buf[at] < 0 {
			return nil, nil, refuse("--lora", "tensor %.80q of %.80q adapts nothing in this model: was it made for another base?", t.Name, l.Name)
		}
		if err := check(&model.Model{Tensors: l.Tensors[i : i+1]}); err != nil {
			return nil, nil, err
		}
		buf := int(r.p.buf[at])
		if buf == r.p.c.Packed {
			buf = r.p.c.CPU
		}
		u[buf].add(Weights, "adapter", padded(&r.p.c.Buffers[buf], t.Type, dims(t.Shape)), Exact, "its tensors, beside those they adapt")
		a := pairs[base]
		if a.Buf = int16(buf); down {
			a.A = t
		} else {
			a.B = t
		}
		pairs[base] = a
	}
	for name, a := range pairs {
		if a.A == nil || a.B == nil {
			return nil, nil, refuse("--lora", "%.80q of %.80q has one matrix of its pair: want %s.lora_a and .lora_b", name, l.Name, name)
		}
	}
	return u, pairs, nil
}
