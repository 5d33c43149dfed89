package hf

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"weigh/fixtures"
	"weigh/formats"
	"weigh/formats/hfconfig"
)

// shapesByName returns the shapes of a language model's weights, experts
// stacked, without other towers and the layers above the trunk.
func shapesByName(m *Model, layers int) []string {
	stacks := map[string]uint64{}
	shape := map[string][]uint64{}
	for i := range m.Weights {
		w := &m.Weights[i]
		name := strings.ReplaceAll(w.Name, "language_model.", "")
		if !strings.HasPrefix(name, "model.") && strings.HasPrefix(w.Name, "language_model.") {
			name = strings.TrimPrefix(w.Name, "language_model.")
		}
		if isMultimodal(w.Name) || strings.HasPrefix(name, "mtp.") || isBuffer(name) || layerOf(name) >= layers {
			continue
		}
		if merged, n := expertOf(name); n >= 0 {
			stacks[merged]++
			name = merged
		}
		shape[name] = w.Shape
	}
	var out []string
	for name, s := range shape {
		if n := stacks[name]; n > 0 {
			s = append([]uint64{n}, s...)
		}
		out = append(out, fmt.Sprint(name, s))
	}
	slices.Sort(out)
	return out
}

func compareDefinition(t *testing.T, defined, stored *Model, ignore ...string) {
	t.Helper()
	layers := int(key(stored, "block_count") - key(stored, "nextn_predict_layers"))
	drop := func(list []string) []string {
		return slices.DeleteFunc(list, func(s string) bool {
			return slices.ContainsFunc(ignore, func(part string) bool { return strings.Contains(s, part) })
		})
	}
	got, want := drop(shapesByName(defined, layers)), drop(shapesByName(stored, layers))
	if !slices.Equal(got, want) {
		t.Errorf("only defined %v\nonly stored  %v", onlyIn(got, want), onlyIn(want, got))
	}
}

// TestDefinitionsAreWhatFoldersHold compares what a class is said to define with
// the tensors of real folders.
func TestDefinitionsAreWhatFoldersHold(t *testing.T) {
	n := 0
	for _, name := range fixtures.HFNames() {
		stored := openFixture(t, name)
		if len(stored.Files) == 0 || stored.Adapter != nil {
			continue
		}
		n++
		t.Run(name, func(t *testing.T) {
			defined := openConfig(t, stored.Config, nil, 0)
			ignore := []string{"!"}
			if name == "qwen3-0.6b" {
				ignore[0] = "lm_head" // stored though it is the embedding
			}
			compareDefinition(t, defined, stored, ignore...)
		})
	}
	if n < 10 {
		t.Errorf("%d folders compared, want 10", n)
	}
}

// TestDefinitionsCountParameters compares with counts that are published or
// derived by hand.
func TestDefinitionsCountParameters(t *testing.T) {
	for _, name := range fixtures.HFNames() {
		b, err := fs.ReadFile(fixtures.HF, "hf/"+name+"/expected.json")
		if err != nil {
			t.Fatal(err)
		}
		var want struct {
			Params uint64 `json:"expected_logical_params"`
			Text   uint64 `json:"text_params"` // without towers
		}
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatal(err)
		}
		config, err := fs.ReadFile(fixtures.HF, "hf/"+name+"/config.json")
		if err != nil {
			continue // an adapter
		}
		o, err := hfconfig.Parse(config, name)
		if err != nil {
			t.Fatal(err)
		}
		if m, n := openConfig(t, o, nil, 0), cmp.Or(want.Text, want.Params); !m.Defined || m.Params != n {
			t.Errorf("%s: %d parameters, want %d", name, m.Params, n)
		}
	}
}

// TestDefinitionsAreWhatTheConverterTakes compares with the lists of tensors
// that the converter was run on.
func TestDefinitionsAreWhatTheConverterTakes(t *testing.T) {
	golden := readGolden(t, "hf/converted.json.gz")
	n := 0
	for name := range golden {
		g := golden.Object(name)
		config := g.Object("config")
		defined := openConfig(t, config, nil, 0)
		if !defined.Defined || strings.HasPrefix(name, "nvfp4") { // a part of a model
			continue
		}
		n++
		t.Run(name, func(t *testing.T) {
			var tensors []fixtures.SafeTensor
			for _, v := range g.List("stored") {
				f := v.([]any)
				typ, _ := formats.ParseDType(f[1].(string))
				tensors = append(tensors, fixtures.SafeTensor{Name: f[0].(string), Type: typ, Shape: shapeOf(f[2])})
			}
			// The lists have tensors that their configurations do not ask for.
			ignore := []string{"lm_head", "coder.embed_tokens"}
			switch name {
			case "deepseek2lite":
				ignore = append(ignore, "e_score_correction_bias")
			case "falconh1":
				ignore = append(ignore, "mamba.norm")
			case "glm4moe":
				ignore = append(ignore, "_norm", "_proj.bias")
			}
			compareDefinition(t, defined, openConfig(t, config, tensors, 0), ignore...)
		})
	}
	if n < 30 {
		t.Errorf("%d models compared, want 30", n)
	}
}
