package projector_test

import (
	"bytes"
	"testing"

	"weigh/fixtures"
	"weigh/formats/gguf"
	"weigh/inspect/model"
	"weigh/inspect/projector"
)

// FuzzRead changes a projector's keys and shapes: it is refused, or its graph
// is built or refused, and never more than an error.
func FuzzRead(f *testing.F) {
	names := fixtures.Projectors()
	f.Add(uint(0), uint(0), uint32(1), uint(0), uint64(1))
	f.Add(uint(3), uint(5), uint32(0), uint(7), uint64(0))
	f.Fuzz(func(t *testing.T, which, key uint, value uint32, tensor uint, width uint64) {
		g := fixtures.Projector(names[which%uint(len(names))])
		if k := &g.KVs[key%uint(len(g.KVs))]; k.Key != "general.architecture" {
			k.Value = value
		}
		b := g.Build()
		file, err := gguf.Read(bytes.NewReader(b.Data), b.Size())
		if err != nil {
			return
		}
		var tensors []model.Tensor
		for i, x := range file.Tensors {
			shape := append([]uint64(nil), x.Shape...)
			if uint(i) == tensor%uint(len(file.Tensors)) && len(shape) > 0 {
				shape[0] = width
			}
			tensors = append(tensors, model.Tensor{Name: x.Name, Type: x.Type, Shape: shape, Bytes: x.Bytes})
		}
		p, err := projector.Read(file, tensors, 0)
		if err != nil {
			return
		}
		for _, tower := range p.Towers {
			g, err := tower.Build(tower.WarmUp(), true, 0)
			if (g == nil) == (err == nil) {
				t.Errorf("Build returned graph %v and error %v", g != nil, err)
			}
		}
	})
}
