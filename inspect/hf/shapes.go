package hf

import (
	"strings"

	"weigh/formats/hfconfig"
)

// shapesOnly makes the GGUF of a language model without a config.json from the
// names and shapes of its tensors, where they are Llama's. What no shape tells
// stays unknown: the trained context, the rotary embedding, windows, how many
// experts are used, and how the query and key rows divide into heads.
func (f *folder) shapesOnly(m *Model) {
	if len(m.Components) > 0 || len(m.Weights) == 0 {
		return
	}
	without := "there is no config.json"
	if f.config != nil {
		without = "config.json names no known class"
	}
	shape := map[string][]uint64{} // outside the layers, and of the first
	for i := range m.Weights {
		if name := m.Weights[i].Name; !strings.HasPrefix(name, "model.layers.") || strings.HasPrefix(name, "model.layers.0.") {
			shape[name] = m.Weights[i].Shape
		}
	}
	dim := func(name string, i int) int64 { return int64(min(tensor{shape: shape[name]}.dim(i), 1<<40)) }
	embed := "model.embed_tokens.weight"
	const layer = "model.layers.0."
	layers := countLayers(m.Weights)
	if len(shape[embed]) != 2 || len(shape[layer+"self_attn.q_proj.weight"]) != 2 || len(shape[layer+"self_attn.k_proj.weight"]) != 2 || layers == 0 {
		m.Notes = append(m.Notes, without+", and the tensors' names are no language model's that their shapes alone describe")
		return
	}
	qRows, kRows := dim(layer+"self_attn.q_proj.weight", 0), dim(layer+"self_attn.k_proj.weight", 0)
	head := int64(0)
	exact := false
	for _, n := range []string{"self_attn.q_norm.weight", "self_attn.k_norm.weight"} {
		if s := shape[layer+n]; len(s) == 1 && int64(s[0]) < qRows {
			head, exact = int64(s[0]), true
		}
	}
	if s := shape[layer+"self_attn.sinks"]; len(s) == 1 && s[0] > 0 && qRows%int64(s[0]) == 0 {
		head, exact = qRows/int64(s[0]), true
	}
	if head == 0 {
		// The largest usual head that divides both: the cache needs only the rows.
		for _, h := range []int64{128, 64, 96, 80, 256, 32} {
			if qRows%h == 0 && kRows%h == 0 {
				head = h
				break
			}
		}
	}
	if head == 0 || qRows%head != 0 || kRows%head != 0 {
		m.Notes = append(m.Notes, without+", and the projections divide into no usual heads")
		return
	}
	h := hfconfig.Object{
		"num_hidden_layers": int64(layers), "hidden_size": dim(embed, 1), "vocab_size": dim(embed, 0),
		"num_attention_heads": qRows / head, "num_key_value_heads": kRows / head, "head_dim": head,
	}
	class := "LlamaForCausalLM"
	if exact && shape[layer+"self_attn.q_norm.weight"] != nil {
		class = "Qwen3ForCausalLM"
	}
	experts := int64(0)
	for name := range shape {
		if rest, ok := strings.CutPrefix(name, layer); ok {
			if _, n := expertOf(rest); n >= 0 && n < 1<<20 {
				experts = max(experts, int64(n)+1)
			}
		}
	}
	for _, n := range []string{"mlp.gate_proj.weight", "mlp.up_proj.weight"} {
		if len(shape[layer+n]) == 2 {
			h["intermediate_size"] = dim(layer+n, 0)
		}
	}
	if experts > 0 {
		h["num_local_experts"] = experts
		for name, s := range shape {
			if strings.HasPrefix(name, layer) && len(s) == 2 && (strings.HasSuffix(name, ".0.gate_proj.weight") || strings.HasSuffix(name, ".0.w1.weight")) {
				h["intermediate_size"], h["moe_intermediate_size"] = int64(min(s[0], 1<<40)), int64(min(s[0], 1<<40))
			}
		}
		if class == "Qwen3ForCausalLM" {
			class = "Qwen3MoeForCausalLM"
		}
	}
	m.Notes = append(m.Notes, without+": layers, widths and heads are read from the tensors' shapes, the trained context and the rotary embedding are not known")
	if !exact {
		m.Notes = append(m.Notes, "the head size is a guess that leaves the cache's size unchanged")
	}
	m.Class = ""
	m.convertAs(class, h, f)
}
