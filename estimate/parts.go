package estimate

import (
	"fmt"
	"strings"

	"weigh/estimate/hw"
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
	if err := r.adapters(b); err != nil {
		return err
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
			o.Devices, o.Spare = r.o.Devices, r.o.Spare
		}
		o.Allocated = r.o.Allocated
		o.TensorSplit = r.o.TensorSplit // as --fit left it (common_base_params_to_speculative)
		if d.Shares {
			o.NGPULayers, o.Overrides = r.o.NGPULayers, r.o.Overrides
		} else {
			o.Target, o.TargetOptions = r.m, r.o
		}
		db, err := Run(d.Model, o)
		if err != nil {
			return &DraftError{err}
		}
		var u []Memory
		for _, list := range [][]Memory{db.Devices, db.Host} {
			for _, m := range list {
				if d.Shares {
					m.Model = 0
				}
				if m.Device >= 0 {
					at := sameDevice(r.o.Devices, o.Devices, m.Device)
					if at < 0 {
						return fmt.Errorf("draft: its device %s is not among the devices", m.Name)
					}
					b.device(r, m.Name, at)
				}
				m.Overhead, m.Terms = 0, nil
				u = append(u, m)
			}
		}
		b.join("draft", d.Name, u)
	}
	return nil
}

// sameDevice returns the index among all of device i of the others, -1 for none.
func sameDevice(all, others []hw.Device, i int) int {
	for j := range all {
		if a, b := &all[j], &others[i]; a.Backend == b.Backend && a.Remote == b.Remote && numberOf(all, j) == numberOf(others, i) {
			return j
		}
	}
	return -1
}

// device makes sure that there is a row for a device, which may be one that the
// model itself does not use.
func (b *Breakdown) device(r *run, name string, index int) {
	for i := range b.Devices {
		if b.Devices[i].Name == name {
			return
		}
	}
	m := Memory{Name: name, Device: index}
	if n, why := hw.Context(r.o.Devices[index]); n > 0 {
		m.add(Overhead, "CUDA context", n, Modelled, why)
	}
	b.Devices = append(b.Devices, m)
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
