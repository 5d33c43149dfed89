package estimate

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"weigh/fixtures"
	"weigh/formats/gguf"
	"weigh/inspect"
)

// FuzzRun estimates models of which one number of the metadata, or one
// dimension of a tensor, is another: each is refused, or its figures are sums
// without overflow that do not fall when the context grows on the same
// placement.
func FuzzRun(f *testing.F) {
	names := fixtures.Models()
	for i := range names {
		f.Add(uint(i), uint(3*i), int64(1)<<(i%63), i%2 == 0, uint(i%5), uint16(7*i))
	}
	for _, v := range []int64{math.MinInt64, -1, 0, 1, math.MaxInt32, math.MaxInt64} {
		f.Add(uint(3), uint(5), v, true, uint(2), uint16(1))
	}
	f.Fuzz(func(t *testing.T, which, at uint, value int64, key bool, gpus uint, ctx uint16) {
		g := *fixtures.Model(names[which%uint(len(names))])
		change(&g, at, value, key)
		g.NoData = true
		b := g.Build()
		file, err := gguf.Read(bytes.NewReader(b.Data), b.Size())
		if err != nil {
			return
		}
		m, err := inspect.Load(&gguf.Set{Files: []*gguf.File{file}})
		if err != nil {
			return
		}
		o := Options{Devices: cards(int(gpus % 3)), NCtx: 256 * (1 + int(ctx%64)), NParallel: 1 + int(gpus/3%2), KVUnified: new(false), NOutputs: new(8)}
		if gpus%2 == 1 {
			o.NGPULayers = new(m.NLayerAll / 2)
		}
		small, err := Run(m, o)
		if err != nil {
			var refused *RefusedError
			if errors.As(err, &refused) && refused.Setting == "" {
				t.Errorf("refused without naming a setting: %v", err)
			}
			return
		}
		adds(t, small)
		o.NCtx *= 2
		large, err := Run(m, o)
		if err != nil {
			return
		}
		adds(t, large)
		for i := range small.Devices {
			if a, b := &small.Devices[i], &large.Devices[i]; b.Context < a.Context || b.Model != a.Model {
				t.Errorf("%s: %s takes %d + %d bytes with a context of %d, %d + %d with twice that", m.Arch, a.Name, a.Model, a.Context, o.NCtx/2, b.Model, b.Context)
			}
		}
		if a, b := total(small), total(large); b < a {
			t.Errorf("%s: %d bytes with a context of %d, %d with twice that", m.Arch, a, o.NCtx/2, b)
		}
	})
}

// change gives a number of the metadata, or a dimension of a tensor, another
// value. The file is otherwise as it was.
func change(g *fixtures.GGUF, at uint, value int64, key bool) {
	if !key {
		if len(g.Tensors) == 0 {
			return
		}
		x := &g.Tensors[at%uint(len(g.Tensors))]
		if len(x.Shape) > 0 {
			x.Shape = append([]uint64(nil), x.Shape...)
			x.Shape[int(at/7)%len(x.Shape)] = uint64(value)
		}
		return
	}
	kvs := append([]fixtures.KV(nil), g.KVs...)
	g.KVs = kvs
	n := len(kvs)
	for i := range n {
		kv := &kvs[(int(at%uint(n))+i)%n]
		switch kv.Value.(type) {
		case uint32:
			kv.Value = uint32(value)
		case int32:
			kv.Value = int32(value)
		case float32:
			kv.Value = math.Float32frombits(uint32(value))
		case uint64:
			kv.Value = uint64(value)
		case bool:
			kv.Value = value%2 == 0
		default:
			continue
		}
		return
	}
}

// adds fails unless every row is the sum of its terms and far from overflow.
func adds(t *testing.T, b *Breakdown) {
	t.Helper()
	for _, list := range [][]Memory{b.Devices, b.Host} {
		for i := range list {
			row := &list[i]
			var sum [4]uint64
			for _, term := range row.Terms {
				sum[term.Part] += term.Bytes
			}
			if want := [4]uint64{row.Model, row.Context, row.Compute, row.Overhead}; sum != want {
				t.Errorf("%s: terms sum to %v, want %v", row.Name, sum, want)
			}
			for _, n := range sum {
				if n > 1<<62 {
					t.Errorf("%s takes %d bytes", row.Name, n)
				}
			}
		}
	}
}

// total is all memory that llama.cpp allocates, wherever.
func total(b *Breakdown) (n uint64) {
	for _, list := range [][]Memory{b.Devices, b.Host} {
		for i := range list {
			n += list[i].Model + list[i].Context + list[i].Compute
		}
	}
	return n
}
