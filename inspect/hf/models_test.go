package hf

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"weigh/fixtures"
	"weigh/inspect/arch"
	"weigh/inspect/model"
)

// TestFolderAndGGUFAreTheSameModel compares a folder with the header of the
// published GGUF of the same model: the hyper-parameters, which decide every
// cache, and the names and shapes of all tensors.
func TestFolderAndGGUFAreTheSameModel(t *testing.T) {
	tests := []struct {
		folder, gguf string
		// What is known to differ: the GGUF was made with other options.
		field, here, there string
	}{
		{"llama-3.1-8b", "Llama-3.1-8B-Q8_0", "", "", ""},
		{"mixtral-8x7b", "Mixtral-8x7B-Q4_K_M", "", "", ""},
		{"qwen3-0.6b", "Qwen3-0.6B-BF16", "", "output.weight[1024 151936]", "cls.output.weight[1024]"},
		{"qwen3-8b", "Qwen3-8B-Q4_K_M", "", "", ""},
		{"phi3-mini-slerp", "Phi-3-mini-4k-Q4_K_M", "", "", ""},
		{"gpt-oss-20b", "gpt-oss-20b-MXFP4", "", "", ""},
		{"lfm2-1.2b", "LFM2-1.2B-Q4_K_M", "", "", ""},
		{"bert-base-uncased", "BERT-base-F16", "Pooling", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.folder, func(t *testing.T) {
			m := openFixture(t, tt.folder)
			got, err := arch.Load(*m.Source)
			if err != nil {
				t.Fatal(err)
			}
			g := fixtures.Model(tt.gguf)
			want, err := arch.Load(sourceOf(g))
			if err != nil {
				t.Fatal(err)
			}
			a, b := reflect.ValueOf(got.HParams), reflect.ValueOf(want.HParams)
			for i := range a.NumField() {
				if f := a.Type().Field(i); f.IsExported() && f.Name != tt.field && !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
					t.Errorf("%s: %v, the GGUF has %v", f.Name, a.Field(i), b.Field(i))
				}
			}
			if len(m.Files) == 0 {
				return
			}
			if d := onlyIn(shapesOf(m.Source.Tensors), shapesOf(sourceOf(g).Tensors)); len(d) > 0 && d[0] != tt.here {
				t.Errorf("only in the folder: %v", d)
			}
			if d := onlyIn(shapesOf(sourceOf(g).Tensors), shapesOf(m.Source.Tensors)); len(d) > 0 && d[0] != tt.there {
				t.Errorf("only in the GGUF: %v", d)
			}
		})
	}
}

func shapesOf(tensors []model.Tensor) (out []string) {
	for i := range tensors {
		out = append(out, fmt.Sprint(tensors[i].Name, tensors[i].Shape))
	}
	slices.Sort(out)
	return out
}

// sourceOf returns a fixture's header as a source.
func sourceOf(g *fixtures.GGUF) model.Source {
	m := meta{}
	for _, kv := range g.KVs {
		v := reflect.ValueOf(kv.Value)
		switch {
		case kv.Key == "tokenizer.ggml.tokens":
			m[kv.Key] = model.Len(v.Len())
		case v.CanInt():
			m[kv.Key] = v.Int()
		case v.CanUint():
			m[kv.Key] = int64(v.Uint())
		case v.CanFloat():
			m[kv.Key] = v.Float()
		case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Bool, v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.String:
			m[kv.Key] = kv.Value
		case v.Kind() == reflect.Slice:
			list := make([]int64, 0, v.Len())
			floats := make([]float64, 0, v.Len())
			for i := range v.Len() {
				if e := v.Index(i); e.CanInt() {
					list = append(list, e.Int())
				} else if e.CanUint() {
					list = append(list, int64(e.Uint()))
				} else {
					floats = append(floats, e.Float())
				}
			}
			m[kv.Key] = list
			if len(floats) > 0 {
				m[kv.Key] = floats
			}
		default:
			m[kv.Key] = kv.Value
		}
	}
	s := model.Source{Meta: m}
	for _, x := range g.Tensors {
		s.Tensors = append(s.Tensors, model.Tensor{Name: x.Name, Type: x.Type, Shape: x.Shape})
	}
	return s
}
