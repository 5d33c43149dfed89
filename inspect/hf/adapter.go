package hf

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"weigh/formats/hfconfig"
)

// An Adapter is a LoRA or another set of weights beside a base model's.
type Adapter struct {
	Kind    string         // "LORA", "DORA" or the configuration's peft_type
	Base    string         // the model it belongs to, "" when not said
	Alpha   float64        // scales the product; 0 when not said
	Ranks   map[int]int    // modules by rank, read from the shapes
	Modules map[string]int // adapted matrices by the last part of their name
	Params  uint64         // of all its tensors
	Saved   uint64         // of them, parameters of modules stored whole
}

// Rank returns the rank that most modules have.
func (a *Adapter) Rank() int {
	best := 0
	for _, r := range slices.Sorted(maps.Keys(a.Ranks)) {
		if a.Ranks[r] > a.Ranks[best] || best == 0 {
			best = r
		}
	}
	return best
}

// loraDown are the endings of the matrix that leads down to the rank, with the
// dimension the rank is: PEFT's, kohya's and diffusers'.
var loraDown = map[string]int{
	".lora_A.weight": 0, ".lora_A.default.weight": 0, ".lora_embedding_A": 0, ".lora_down.weight": 0, ".lora.down.weight": 0, ".lora_a": 0, "_lora.down.weight": 0,
}

// moduleOf returns the last part of a module's path: what stands behind the last
// dot, or, in kohya's names, which have underscores for dots, behind the last
// number that something follows.
func moduleOf(path string) string {
	path = path[strings.LastIndexByte(path, '.')+1:]
	if !strings.HasPrefix(path, "lora_") {
		return path
	}
	parts := strings.Split(path, "_")
	for i := len(parts) - 2; i > 0; i-- {
		if _, err := strconv.Atoi(parts[i]); err == nil {
			return strings.Join(parts[i+1:], "_")
		}
	}
	return path
}

// adapterOf returns the adapter that the weights are, nil when they are a model.
func adapterOf(f *folder, m *Model) *Adapter {
	weights := m.Weights
	a := &Adapter{Kind: "LORA", Ranks: map[int]int{}, Modules: map[string]int{}}
	for i := range weights {
		w := &weights[i]
		a.Params += w.Params
		lora := strings.Contains(w.Name, "lora_") || strings.Contains(w.Name, ".lora.") || strings.HasSuffix(w.Name, ".alpha")
		if !lora {
			a.Saved += w.Params
		}
		if strings.Contains(w.Name, "lora_magnitude_vector") {
			a.Kind = "DORA"
		}
		for end, dim := range loraDown {
			if base, ok := strings.CutSuffix(w.Name, end); ok && len(w.Shape) >= 2 {
				a.Ranks[int(min(w.Shape[dim], 1<<30))]++
				a.Modules[moduleOf(base)]++
			}
		}
	}
	cfg := hfconfig.ReadAdapter(f.adapter)
	if f.adapter != nil {
		a.Kind, a.Base, a.Alpha = cmp.Or(cfg.Type, a.Kind), cfg.Base, cfg.Alpha
		if cfg.DoRA {
			a.Kind = "DORA"
		}
	}
	if len(f.files) > 0 {
		meta := f.files[0].Metadata
		a.Base = cmp.Or(a.Base, meta["ss_base_model_version"], meta["ss_sd_model_name"])
		if v, err := strconv.ParseFloat(meta["ss_network_alpha"], 64); err == nil && a.Alpha == 0 && alphaRule.ok(v) {
			a.Alpha = v
		}
	}
	switch {
	case len(a.Ranks) == 0 && (f.adapter == nil || f.config != nil):
		return nil
	case f.adapter == nil && f.config != nil && 2*a.Saved > a.Params:
		return nil // a model with adapters inside
	case len(a.Ranks) == 0 && cfg.Rank > 0:
		a.Ranks[cfg.Rank] = 0 // no weights tell
	}
	if r := a.Rank(); f.adapter != nil && cfg.Rank > 0 && r != cfg.Rank && len(a.Ranks) == 1 {
		m.Notes = append(m.Notes, fmt.Sprintf("adapter_config.json says rank %d, the tensors have rank %d", cfg.Rank, r))
	}
	return a
}
