package hf

import (
	"strings"

	"weigh/formats/hfconfig"
)

const gemmaKeys = `context_length=max_position_embeddings
	embedding_length=hidden_size
	feed_forward_length=intermediate_size
	attention.head_count=num_attention_heads
	attention.head_count_kv=num_key_value_heads|num_attention_heads
	attention.layer_norm_rms_epsilon=rms_norm_eps
	attention.key_length=head_dim
	attention.value_length=head_dim
	attn_logit_softcapping=attn_logit_softcapping
	final_logit_softcapping=final_logit_softcapping
	attention.sliding_window=sliding_window`

var gemmaRows = []row{
	{
		hf: []string{"GemmaForCausalLM"}, arch: "gemma", own: true, params: blockCount, filter: noHead,
		set: strings.Join(strings.Split(gemmaKeys, "\n")[:8], "\n"),
	},
	{hf: []string{"Gemma2ForCausalLM"}, arch: "gemma2", own: true, params: blockCount, filter: noHead, set: gemmaKeys},
	{hf: []string{"Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"}, arch: "gemma3", params: gemma3, modify: gemma3Vocabulary},
	{hf: []string{"Gemma3TextModel"}, arch: "gemma-embedding", params: all(gemma3, keys("attention.sliding_window=sliding_window"), pool), modify: gemma3Vocabulary},
	{
		hf: []string{"Gemma3nForCausalLM", "Gemma3nForConditionalGeneration"}, arch: "gemma3n",
		set: `altup.active_idx=altup_active_idx
			altup.num_inputs=altup_num_inputs
			embedding_length_per_layer_input=hidden_size_per_layer_input
			attention.shared_kv_layers=num_kv_shared_layers`,
		params: all(gemma3, func(c *converter) {
			c.put("attention.sliding_window_pattern", c.types("sliding_attention"))
			var scale []float64
			for _, v := range c.h.List("activation_sparsity_pattern") {
				s, _ := hfconfig.AsFloat(v)
				scale = append(scale, normalQuantile(s))
			}
			c.put("activation_sparsity_scale", scale)
		}),
		filter: weightEnd("_scale"),
		modify: func(c *converter, t tensor) []tensor {
			switch {
			case strings.Contains(t.name, "embed_tokens.weight"), strings.Contains(t.name, "embed_tokens_per_layer"):
				t = t.resized(0, max(t.dim(0), uint64(c.intOr(262400, "vocab_size"))))
			case strings.Contains(t.name, "altup_unembed_projections"):
				return stack3(c, t, "model.altup_unembed_projections.weight")
			case strings.Contains(t.name, "altup_projections"):
				return stack3(c, t, "model.altup_projections.weight")
			}
			return []tensor{t}
		},
	},
	{
		hf: []string{"Gemma4ForConditionalGeneration", "Gemma4ForCausalLM", "Gemma4UnifiedForConditionalGeneration"}, arch: "gemma4",
		prepare: gemma4Layers, params: gemma4, filter: gemma4Filter, modify: gemma4Tensor, extra: gemma4Rope,
	},
	{
		hf: []string{"Gemma4AssistantForCausalLM", "Gemma4UnifiedAssistantForCausalLM"}, arch: "gemma4-assistant", prepare: gemma4Layers,
		params: all(gemma4, keys("embedding_length_out=backbone_hidden_size"), func(c *converter) { c.put("nextn_predict_layers", c.blocks) }),
		filter: chain(without("masked_embedding"), gemma4Filter), modify: gemma4Tensor, extra: gemma4Rope,
	},
}

func blockCount(c *converter) { c.put("block_count", c.blocks) }

// gemma3 writes what Gemma 3 adds, with its class's defaults.
func gemma3(c *converter) {
	c.put("context_length", c.intOr(131072, "max_position_embeddings"))
	c.put("attention.head_count", c.intOr(8, "num_attention_heads"))
	c.put("attention.head_count_kv", c.intOr(4, "num_key_value_heads"))
	c.put("attention.layer_norm_rms_epsilon", c.floatOr(1e-6, c.h, "rms_norm_eps"))
	c.put("attention.key_length", c.intOr(256, "head_dim"))
	c.put("attention.value_length", c.intOr(256, "head_dim"))
	c.put("rope.freq_base", c.floatOr(1e6, c.fullRope(), "rope_theta"))
	if f, ok := c.h.Float("final_logit_softcapping"); ok && f != 0 {
		c.put("final_logit_softcapping", f)
	}
	if c.intOr(0, "sliding_window_pattern") != 1 {
		c.put("attention.sliding_window", c.h["sliding_window"])
	}
}

// gemma3Vocabulary cuts the embedding down to the tokenizer's tokens.
func gemma3Vocabulary(c *converter, t tensor) []tensor {
	if n := c.scratch["tokens"]; n > 0 && strings.Contains(t.name, "embed_tokens.weight") {
		t = t.resized(0, min(t.dim(0), uint64(n)))
	}
	return []tensor{t}
}

// stack3 stacks the three projections of an alternating update.
func stack3(c *converter, t tensor, name string) []tensor {
	if c.scratch[name]++; c.scratch[name] < 3 {
		return nil
	}
	return []tensor{t.with(name, append([]uint64{3}, t.shape...)...)}
}

// ofFullLayers returns the value that layers with full attention have: the
// global one, or that of the first such layer in per_layer_config.
func ofFullLayers(c *converter, global, perLayer string) (int64, bool) {
	if n, ok := c.h.Int(global); ok {
		return n, true
	}
	full := c.types("full_attention")
	for i := range full {
		if n, ok := c.h.Object("per_layer_config").Object(itoa(i)).Int(perLayer); ok && full[i] {
			return n, true
		}
	}
	return 0, false
}

// gemma4Layers fills layer_types in as the class does: every sixth layer has
// full attention, and the last.
//
// Source: transformers src/transformers/models/gemma4/configuration_gemma4.py.
func gemma4Layers(c *converter) {
	if c.h.Has("layer_types") {
		return
	}
	types := make([]any, c.blocks)
	for i := range types {
		types[i] = "sliding_attention"
		if i%6 == 5 || i == len(types)-1 {
			types[i] = "full_attention"
		}
	}
	c.h["layer_types"] = types
}

func gemma4(c *converter) {
	gemma3(c)
	shared := c.int("num_kv_shared_layers")
	c.put("attention.shared_kv_layers", shared)
	c.put("embedding_length_per_layer_input", c.int("hidden_size_per_layer_input"))
	swa := c.types("sliding_attention")
	c.put("attention.sliding_window_pattern", swa)
	head := c.int("head_dim")
	full, ok := ofFullLayers(c, "global_head_dim", "head_dim")
	if !ok {
		full = head
	}
	c.put("attention.key_length", full)
	c.put("attention.value_length", full)
	c.put("attention.key_length_swa", head)
	c.put("attention.value_length_swa", head)
	c.apply("expert_feed_forward_length=expert_intermediate_size|moe_intermediate_size")
	if ff := c.int("intermediate_size"); c.h.Bool("use_double_wide_mlp") {
		c.put("feed_forward_length", c.perBlock(func(i int) int64 {
			if int64(i) < int64(c.blocks)-shared {
				return ff
			}
			return 2 * ff
		}))
	}
	if kvFull, ok := ofFullLayers(c, "num_global_key_value_heads", "num_key_value_heads"); ok && c.h.Has("num_key_value_heads") {
		c.put("attention.head_count_kv", c.ifTrue(swa, c.int("num_key_value_heads"), kvFull))
	}
	c.put("rope.dimension_count", full)
	c.put("rope.dimension_count_swa", c.partial(head, 1))
}

func gemma4Filter(_ *converter, name string) string {
	if strings.HasSuffix(name, "per_dim_scale") || strings.HasSuffix(name, "layer_scalar") ||
		strings.Contains(name, ".experts.") && !strings.HasSuffix(name, ".weight") {
		return name + ".weight"
	}
	return name
}

func gemma4Tensor(_ *converter, t tensor) []tensor {
	switch {
	case strings.HasSuffix(t.name, "router.scale"):
		t.name = strings.TrimSuffix(block(t, "ffn_gate_inp"), ".weight") + ".scale"
	case strings.Contains(t.name, ".per_expert_scale"):
		t.name = strings.TrimSuffix(block(t, "ffn_down_exps"), ".weight") + ".scale"
	}
	return []tensor{t}
}

// gemma4Rope adds the factors that leave part of a head unrotated.
func gemma4Rope(c *converter) []tensor {
	full, ok := ofFullLayers(c, "global_head_dim", "head_dim")
	if !ok {
		full = c.int("head_dim")
	}
	return []tensor{{name: "rope_freqs.weight", shape: []uint64{uint64(full / 2)}}}
}
