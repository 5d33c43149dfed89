package estimate

import (
	"fmt"
	"strings"

	"weigh/formats"
	"weigh/inspect/graph"
	"weigh/inspect/model"
	"weigh/inspect/projector"
)

// A Companion is a file that is loaded beside the model.
type Companion struct {
	Name    string
	Tensors []model.Tensor

	Projector *projector.Projector // towers of a multimodal projector
	OnCPU     bool                 // --no-mmproj-offload
}

// A PartUse is what one companion takes, by row of the breakdown, whose figures
// include it.
type PartUse struct {
	Kind string // "draft", "mmproj", "lora", "control vector"
	Name string
	Use  []Memory
}

// companions adds what is loaded beside the model.
func (r *run) companions(b *Breakdown) error {
	for _, l := range r.o.LoRA {
		u, err := r.lora(l)
		if err != nil {
			return err
		}
		b.join("lora", l.Name, u)
		b.Basis.Compute = Modelled
		b.Notes = append(b.Notes, fmt.Sprintf("the nodes that LoRA adapter %.80q adds to the graph are not in the compute figure", l.Name))
	}
	if r.o.ControlVector {
		u := r.buffers()
		for il := 1; il < r.m.NLayer(); il++ {
			buf, err := r.p.pickFor(model.Tensor{Type: formats.F32, Shape: []uint64{uint64(r.m.NEmbd)}}, graph.OpAdd, il)
			if err != nil {
				return err
			}
			u[buf].add(Weights, "vector", padded(&r.p.c.Buffers[buf], formats.F32, [4]int64{int64(r.m.NEmbd), 1, 1, 1}), Exact, "one for each layer")
		}
		b.join("control vector", "", u)
	}
	if r.o.MMProj != nil {
		if err := r.mmproj(b); err != nil {
			return err
		}
	}
	if d := r.o.Draft; d != nil {
		o := d.Options
		o.NCtx = r.s.NCtx
		if o.Devices == nil {
			o.Devices = r.o.Devices
		}
		db, err := Run(d.Model, o)
		if err != nil {
			return fmt.Errorf("draft: %w", err)
		}
		var u []Memory
		for _, list := range [][]Memory{db.Devices, db.Host} {
			for _, m := range list {
				if d.Shares {
					m.Model = 0
				}
				m.Overhead, m.Terms = 0, nil
				u = append(u, m)
			}
		}
		b.join("draft", d.Name, u)
	}
	return nil
}

// lora places an adapter's tensors with the tensors they adapt; what adapts
// repacked weights goes to plain host memory.
//
// Source: src/llama-adapter.cpp@v0.5.0, llama_adapter_lora_init_impl.
func (r *run) lora(l Companion) ([]Memory, error) {
	u := r.buffers()
	for i := range l.Tensors {
		t := &l.Tensors[i]
		base, ok := strings.CutSuffix(t.Name, ".lora_a")
		if !ok {
			base, ok = strings.CutSuffix(t.Name, ".lora_b")
		}
		if !ok {
			continue
		}
		il, rest := model.SplitName(base)
		at := r.m.Index.Global(rest)
		if il >= 0 {
			at = r.m.Index.Layer(il, rest)
		}
		if at < 0 || r.p.buf[at] < 0 {
			return nil, refuse("--lora", "tensor %.80q of %.80q adapts nothing in this model: was it made for another base?", t.Name, l.Name)
		}
		if err := check(&model.Model{Tensors: l.Tensors[i : i+1]}); err != nil {
			return nil, err
		}
		buf := int(r.p.buf[at])
		if buf == r.p.c.Packed {
			buf = r.p.c.CPU
		}
		u[buf].add(Weights, "adapter", padded(&r.p.c.Buffers[buf], t.Type, dims(t.Shape)), Exact, "its tensors, beside those they adapt")
	}
	return u, nil
}

// buffers returns an empty row for each buffer type.
func (r *run) buffers() []Memory {
	u := make([]Memory, len(r.p.c.Buffers))
	for i := range u {
		u[i].Name = r.p.c.Buffers[i].Name
	}
	return u
}

// join adds a companion to the rows and to the list of parts.
func (b *Breakdown) join(kind, name string, use []Memory) {
	p := PartUse{Kind: kind, Name: name}
	for _, u := range use {
		if u.Total() == 0 {
			continue
		}
		p.Use = append(p.Use, u)
		m := b.row(u.Name)
		why := strings.TrimSpace(kind + " " + name)
		m.add(Weights, kind+" weights", u.Model, Exact, why)
		m.add(Context, kind+" context", u.Context, Exact, why)
		m.add(Compute, kind+" compute", u.Compute, Exact, why)
		m.add(Overhead, kind+" growth", u.Overhead, Modelled, why)
	}
	b.Parts = append(b.Parts, p)
}

// row returns the row of a buffer type, a new one of host memory if need be.
func (b *Breakdown) row(name string) *Memory {
	for _, list := range [][]Memory{b.Devices, b.Host} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	b.Host = append(b.Host, Memory{Name: name, Device: -1})
	return &b.Host[len(b.Host)-1]
}
