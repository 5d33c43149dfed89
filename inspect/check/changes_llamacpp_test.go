//go:build llamacpp

package check

import (
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"weigh/fixtures"
	"weigh/formats"
	"weigh/inspect"
	"weigh/inspect/arch"
	"weigh/inspect/model"
)

// A change is one thing that is made different in a model.
type change struct {
	what string
	make func(g *fixtures.GGUF)
}

// lostTensors lose and reshape the first tensor of each name that does not count
// blocks, and add tensors that nobody knows.
func lostTensors(g *fixtures.GGUF) []change {
	list := []change{
		{"surplus.weight", func(g *fixtures.GGUF) { g.Add("surplus.weight", formats.F32, 32) }},
		{"blk.0.surplus.weight", func(g *fixtures.GGUF) { g.Add("blk.0.surplus.weight", formats.F32, 32) }},
	}
	seen := map[string]bool{}
	for i, ten := range g.Tensors {
		_, kind := model.SplitName(ten.Name)
		if seen[kind] {
			continue
		}
		seen[kind] = true
		list = append(list, change{"without " + ten.Name, func(g *fixtures.GGUF) { g.Tensors = slices.Delete(g.Tensors, i, i+1) }})
		for d := range ten.Shape {
			step := uint64(1)
			if d == 0 {
				step, _ = ten.Type.Block()
			}
			list = append(list, change{fmt.Sprintf("%s with dimension %d larger", ten.Name, d), func(g *fixtures.GGUF) {
				g.Tensors[i].Shape = slices.Clone(g.Tensors[i].Shape)
				g.Tensors[i].Shape[d] += step
				g.Tensors[i].Bytes = 0
			}})
		}
	}
	return list
}

// addedTensors add each tensor that the model may have and has not, once in the
// shape that is asked for and once in another.
func addedTensors(t *testing.T, g *fixtures.GGUF) (list []change) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := g.WriteSparse(path); err != nil {
		t.Fatal(err)
	}
	ins, err := inspect.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ins.Close()
	seen := map[string]bool{}
	for _, ten := range g.Tensors {
		seen[ten.Name] = true
	}
	wants, _ := arch.Tensors(ins.Model)
	for _, w := range wants {
		_, kind := model.SplitName(w.Name)
		if seen[w.Name] || seen[kind] || len(w.Shape) == 0 || slices.Min(w.Shape) < 1 {
			continue
		}
		seen[kind] = true
		for wrong := range uint64(2) {
			var shape []uint64
			for _, n := range w.Shape {
				shape = append(shape, uint64(n))
			}
			shape[0] += wrong
			list = append(list, change{fmt.Sprintf("with %s %v", w.Name, shape), func(g *fixtures.GGUF) { g.Add(w.Name, formats.F32, shape...) }})
		}
	}
	return list
}

// changedKeys take away or change each of the architecture's keys.
func changedKeys(g *fixtures.GGUF) (list []change) {
	prefix := value(g, "general.architecture").(string) + "."
	for _, kv := range g.KVs {
		if !strings.HasPrefix(kv.Key, prefix) {
			continue
		}
		set := func(v any) {
			list = append(list, change{fmt.Sprintf("%s %v", kv.Key, v), func(g *fixtures.GGUF) { g.Set(kv.Key, v) }})
		}
		list = append(list, change{"without " + kv.Key, func(g *fixtures.GGUF) {
			g.KVs = slices.DeleteFunc(g.KVs, func(other fixtures.KV) bool { return other.Key == kv.Key })
		}})
		switch v := kv.Value.(type) {
		case uint32:
			for _, n := range []uint32{0, v + 1, max(v, 1) - 1, 2 * v, v / 2} { // counts over 2^31 are refused, whatever llama.cpp makes of them
				set(n)
			}
		case float32:
			set(float32(0))
		case bool:
			set(!v)
		default:
			if list := reflect.ValueOf(v); list.Kind() == reflect.Slice && list.Len() > 0 {
				set(list.Slice(0, list.Len()-1).Interface())
				set(reflect.AppendSlice(list, list.Slice(0, 1)).Interface())
				set(reflect.MakeSlice(list.Type(), list.Len(), list.Len()).Interface())
			}
		}
	}
	return list
}
