package arch

import (
	"bytes"
	"math"
	"slices"
	"testing"

	"weigh/fixtures"
	"weigh/formats"
	"weigh/formats/gguf"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// FuzzKeys changes one number of a model's metadata, or drops it: the model
// is refused, or what it wants of its file is listed and its graph is built, and
// stays of a size that llama.cpp could build as well.
func FuzzKeys(f *testing.F) {
	models := fixtures.Models()
	for i := range models {
		f.Add(uint(i), uint(3*i), int64(i%3-1), false)
	}
	for _, v := range []int64{math.MinInt64, -1, 0, 1, 3, 1 << 20, math.MaxInt32, math.MaxInt64} {
		f.Add(uint(7), uint(11), v, v == 0)
	}
	f.Fuzz(func(t *testing.T, which, key uint, value int64, drop bool) {
		file, src := read(t, models[which%uint(len(models))])
		if numbers := numbers(file); len(numbers) > 0 {
			name := numbers[key%uint(len(numbers))]
			src.Meta = changed{src.Meta, name, value, drop}
			build(t, src, name, value)
		}
	})
}

// FuzzTensors changes one dimension of a tensor, or drops it: the model is
// refused, or its graph is built.
func FuzzTensors(f *testing.F) {
	models := fixtures.Models()
	for i := range models {
		f.Add(uint(i), uint(5*i), uint(i%3), uint64(i%2), i%2 == 0)
	}
	f.Fuzz(func(t *testing.T, which, tensor, dim uint, n uint64, drop bool) {
		_, src := read(t, models[which%uint(len(models))])
		i := int(tensor % uint(len(src.Tensors)))
		x := &src.Tensors[i]
		name := x.Name
		if drop {
			src.Tensors = slices.Delete(src.Tensors, i, i+1)
		} else if len(x.Shape) > 0 {
			x.Shape = slices.Clone(x.Shape)
			x.Shape[dim%uint(len(x.Shape))] = n
		}
		build(t, src, name, int64(n&math.MaxInt64))
	})
}

// read returns a model's header and what it says.
func read(t *testing.T, name string) (*gguf.File, model.Source) {
	b := fixtures.Model(name).Build()
	f, err := gguf.Read(bytes.NewReader(b.Data), b.Size())
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	src := model.Source{Meta: header{f}, Tensors: make([]model.Tensor, len(f.Tensors))}
	for i, x := range f.Tensors {
		src.Tensors[i] = model.Tensor{Name: x.Name, Type: x.Type, Shape: x.Shape, Bytes: x.Bytes}
	}
	return f, src
}

// numbers returns the keys that hold numbers or arrays of them.
func numbers(f *gguf.File) []string {
	var keys []string
	for i := range f.KVs {
		switch v, _ := f.Lookup(f.KVs[i].Key); v.(type) {
		case int64, float64, bool, []int64, []float64, []bool:
			keys = append(keys, f.KVs[i].Key)
		}
	}
	return keys
}

// build loads a model and builds its graphs. Whatever goes wrong must be an
// error.
func build(t *testing.T, src model.Source, key string, value int64) {
	m, err := Load(src)
	if err != nil {
		return
	}
	row := Lookup(m.Arch)
	if row == nil || row.Build == nil {
		t.Fatalf("%s has no row", m.Arch)
	}
	Tensors(m) // whatever they are
	for _, mtp := range []bool{false, true} {
		c := &Context{
			NCtx: 512, NCtxSeq: 256, NBatch: 64, NUBatch: 64, NSeqMax: 2, FlashAttn: !mtp, VTrans: mtp, OffloadKQV: true,
			CausalAttn: m.CausalAttn, MTP: mtp, TypeK: formats.F16, TypeV: formats.F16, Pooling: m.Pooling,
		}
		u := Batch{NTokens: 64, NSeqTokens: 32, NSeqs: 2, NOutputs: 2}
		if mtp {
			u.Kind = GraphMTP
		}
		var mem *Memory
		if graph.Try(func() { mem = NewMemory(m, c) }) != nil {
			continue
		}
		g, err := Build(m, c, mem, u, nowhere{})
		if err == nil && len(g.Nodes) > 1<<20 {
			t.Errorf("%s with %s = %d: %d nodes", m.Arch, key, value, len(g.Nodes))
		}
	}
}

// header gives a file's metadata in the model's terms.
type header struct{ f *gguf.File }

func (h header) Lookup(key string) (any, bool) {
	v, ok := h.f.Lookup(key)
	if n, is := v.(gguf.Len); is {
		return model.Len(n), ok
	}
	return v, ok
}

// changed is metadata with another number for one key, or without it.
type changed struct {
	model.Meta
	key   string
	value int64
	drop  bool
}

func (c changed) Lookup(key string) (any, bool) {
	if key != c.key {
		return c.Meta.Lookup(key)
	}
	return c.value, !c.drop
}

// nowhere puts everything in one place.
type nowhere struct{}

func (nowhere) Weight(int, int) int16             { return 0 }
func (nowhere) Cache(int) int16                   { return 0 }
func (nowhere) TargetCache(int) int16             { return 0 }
func (nowhere) TargetWeight(int, int) int16       { return 0 }
func (nowhere) LayerBackend(int) int8             { return 0 }
func (nowhere) CPU() int8                         { return 1 }
func (nowhere) Supports(int8, *graph.Tensor) bool { return true }
func (nowhere) PinNorms() bool                    { return true }
