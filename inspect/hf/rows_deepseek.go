package hf

import (
	"strings"

	"weigh/formats"
)

var deepseekRows = []row{
	{
		hf: []string{"DeepseekForCausalLM"}, arch: "deepseek", params: all(rotateHead, keys(moeNoNorm+`
			rope.scaling.type==none
			vocab_size=vocab_size
			expert_weights_scale==1.0
			expert_count=n_routed_experts`)),
	},
	{
		hf: []string{
			"DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "KimiVLForConditionalGeneration", "KimiK25ForConditionalGeneration",
			"YoutuForCausalLM", "YoutuVLForConditionalGeneration",
		},
		arch: "deepseek2", prepare: latentPrepare, params: latentParams, filter: chain(noTiedHead, mainLayers), modify: splitKVB,
	},
	{
		hf: []string{"DeepseekOCRForCausalLM", "UnlimitedOCRForCausalLM"}, arch: "deepseek2-ocr", prepare: latentPrepare, params: latentParams,
		filter: chain(without("sam_model", "qwen2_model"), noTiedHead, mainLayers), modify: splitKVB,
	},
	{
		hf: []string{"Glm4MoeLiteForCausalLM"}, arch: "deepseek2", prepare: all(latentPrepare, nextPredicting),
		params: all(latentParams, writeNext), filter: noTiedHead, modify: splitKVB,
	},
	{
		hf: []string{"DeepseekV32ForCausalLM"}, arch: "deepseek32", prepare: all(latentPrepare, nextPredicting),
		params: all(latentParams, writeNext, keys(indexer)), filter: noTiedHead, modify: splitKVB,
	},
	{
		hf: []string{"GlmMoeDsaForCausalLM"}, arch: "glm-dsa", prepare: all(latentPrepare, nextPredicting), filter: noTiedHead, modify: splitKVB,
		params: all(latentParams, writeNext, keys(indexer), func(c *converter) {
			c.put("rope.dimension_count", c.partial(c.int("qk_rope_head_dim"), 1))
			c.put("attention.indexer.types", fullIndexers(c, "indexer_types", "full"))
		}),
	},
	{
		hf: []string{"HYV4ForCausalLM"}, arch: "hy_v4",
		prepare: all(latentPrepare, func(c *converter) {
			if c.int("n_group") == 1 && c.int("topk_group") == 1 {
				delete(c.h, "n_group")
				delete(c.h, "topk_group")
			}
			if !c.h.Has("first_k_dense_replace") {
				c.h["first_k_dense_replace"] = leadingDense(c)
			}
		}),
		params: all(latentParams, keys(`expert_gating_func==2
			hyper_connection.count=hc_mult
			hyper_connection.epsilon=hc_eps
			hyper_connection.magnitude=hc_magnitude`), func(c *converter) {
			if f, ok := c.h.Float("swiglu_limit"); ok && f > 0 {
				c.put("swiglu_clamp_exp", repeat(f, c.blocks))
			}
			full := fullIndexers(c, "indexer_types", "full")
			if full == nil {
				full = fullIndexers(c, "layer_types", "sparse_attention", "deepseek_sparse_attention")
			}
			if contains(full, true) {
				c.apply(indexer)
				c.put("attention.indexer.types", full)
			}
		}),
		filter: func(c *converter, name string) string {
			if strings.HasPrefix(name, "model.mtp_layers.") {
				return ""
			}
			return chain(noTiedHead, mainLayers)(c, name)
		},
		modify: func(c *converter, t tensor) []tensor {
			switch {
			case strings.HasSuffix(t.name, "mlp.experts.gate_up_proj"):
				return halves(t, -2, block(t, "ffn_gate_exps"), block(t, "ffn_up_exps"))
			case strings.HasSuffix(t.name, "mlp.experts.down_proj"), strings.HasSuffix(t.name, ".self_attn.learnable_sink_param"),
				strings.Contains(t.name, ".hc_head.hc_head_"), strings.Contains(t.name, ".hc_pre.hc_"):
				t.name += ".weight"
			}
			if strings.HasSuffix(t.name, "hc_fn.weight") || strings.HasSuffix(t.name, "hc_head_fn.weight") || t.name == "lm_head.weight" && c.h.Bool("enable_lm_head_fp32") {
				t = t.forced(f32)
			}
			return splitKVB(c, t)
		},
	},
	{
		hf: []string{"Dots3NoteForCausalLM", "Dots3NoteForConditionalGeneration", "Dots3NoteTextForCausalLM"}, arch: "dots3note",
		prepare: all(latentPrepare, func(c *converter) {
			delete(c.h, "head_dim")
			if c.hasWeight("model.mtp.embed_tokens.weight") {
				c.blocks++
				c.scratch["nextn"] = 1
			}
		}),
		params: all(latentParams, writeNext, keys(indexer+`
			attention.sliding_window=sliding_window_size
			attention.kv_lora_rank_swa=swa_kv_lora_rank
			attention.value_length_swa=swa_kv_lora_rank
			attention.value_length_mla_swa=swa_v_head_dim`), func(c *converter) {
			swa := dots3Windowed(c)
			c.put("attention.head_count", c.ifTrue(swa, c.int("swa_num_attention_heads"), c.int("num_attention_heads")))
			swa = swa[:min(len(swa), c.layers)]
			c.put("attention.sliding_window_pattern", swa)
			c.put("attention.key_length_swa", c.int("swa_kv_lora_rank")+c.int("swa_qk_rope_head_dim"))
			c.put("attention.key_length_mla_swa", c.int("swa_qk_nope_head_dim")+c.int("swa_qk_rope_head_dim"))
			full := make([]bool, len(swa))
			for i := range full {
				full[i] = !swa[i]
			}
			c.put("attention.indexer.types", full)
		}),
		filter: func(c *converter, name string) string {
			if strings.HasPrefix(name, "vision_encoder.") || strings.HasPrefix(name, "audio_encoder.") {
				return ""
			}
			if name == "model.mtp.embed_tokens.weight" {
				return "model.layers." + itoa(c.layers) + ".embed_tokens.weight"
			}
			return noTiedHead(c, name)
		},
		modify: func(c *converter, t tensor) []tensor {
			heads, nope, v := c.int("num_attention_heads"), c.int("qk_nope_head_dim"), c.int("v_head_dim")
			if swa, il := dots3Windowed(c), layerOf(t.name); il >= 0 && il < len(swa) && swa[il] {
				heads, nope, v = c.int("swa_num_attention_heads"), c.int("swa_qk_nope_head_dim"), c.int("swa_v_head_dim")
			}
			return splitLatent(t, heads, nope, v)
		},
	},
	{
		// conversion/deepseek.py, DeepseekV4Model: tensors keep the names of
		// DeepSeek's own code, FP8 becomes Q8_0 and FP4 experts become MXFP4.
		hf: []string{"DeepseekV4ForCausalLM"}, arch: "deepseek4",
		set: `rope.dimension_count=qk_rope_head_dim
			attention.q_lora_rank=q_lora_rank
			attention.sliding_window=sliding_window
			expert_feed_forward_length=moe_intermediate_size
			expert_shared_count=n_shared_experts
			expert_weights_scale=routed_scaling_factor
			expert_weights_norm=norm_topk_prob
			attention.output_group_count=o_groups
			attention.output_lora_rank=o_lora_rank
			attention.compress_ratios=compress_ratios
			attention.compress_rope_freq_base=compress_rope_theta
			hyper_connection.count=hc_mult
			hyper_connection.sinkhorn_iterations=hc_sinkhorn_iters
			hyper_connection.epsilon=hc_eps
			hash_layer_count=num_hash_layers
			` + indexer,
		params: func(c *converter) {
			if f, ok := c.h.Float("swiglu_limit"); ok {
				c.put("swiglu_clamp_exp", repeat(f, c.blocks))
				c.put("swiglu_clamp_shexp", repeat(f, c.blocks))
			}
			c.put("embedding_length_out", c.int("hidden_size")*c.int("hc_mult"))
		},
		filter: func(c *converter, name string) string {
			if strings.HasPrefix(name, "mtp.") || strings.HasPrefix(name, "aligner.") || strings.HasPrefix(name, "image_") {
				return ""
			}
			if strings.HasSuffix(name, ".ffn.gate.bias") && int64(layerOf(name)) < c.int("num_hash_layers") {
				return ""
			}
			return name
		},
		modify: deepseek4Tensor,
	},
}

const indexer = `attention.indexer.head_count=index_n_heads
	attention.indexer.key_length=index_head_dim
	attention.indexer.top_k=index_topk`

// latentPrepare makes a configuration with latent attention complete. The cache
// holds one latent head whatever num_key_value_heads says, which is that of the
// decompressed form.
func latentPrepare(c *converter) {
	if c.arch != "deepseek2-ocr" {
		c.scratch["heads kv"] = int(c.intOr(c.int("num_attention_heads"), "num_key_value_heads"))
		c.h["num_key_value_heads"] = int64(1)
	}
	if !c.h.Has("rms_norm_eps") {
		c.h["rms_norm_eps"] = 1e-6
	}
}

// latentParams writes the keys of multi-head latent attention.
//
// Source: conversion/deepseek.py@v0.5.0, DeepseekV2Model.set_gguf_parameters.
func latentParams(c *converter) {
	dense := int64(0)
	if !c.h.Has("n_routed_experts") {
		dense = int64(c.layers)
	}
	c.put("leading_dense_block_count", c.intOr(dense, "first_k_dense_replace"))
	c.put("vocab_size", c.h["vocab_size"])
	c.put("attention.q_lora_rank", c.h["q_lora_rank"])
	ropeDim := c.int("qk_rope_head_dim")
	if c.arch != "deepseek2-ocr" {
		rank := c.intOr(512, "kv_lora_rank")
		c.put("attention.kv_lora_rank", rank)
		c.put("attention.key_length", rank+ropeDim)
		c.put("attention.value_length", rank)
		c.put("attention.key_length_mla", c.int("qk_nope_head_dim")+ropeDim)
		c.put("attention.value_length_mla", c.h["v_head_dim"])
	} else if w := c.intOr(c.int("sliding_window"), "sliding_window_size"); w > 0 {
		c.put("attention.sliding_window", w)
	}
	c.apply(`expert_feed_forward_length=intermediate_size
		expert_feed_forward_length=moe_intermediate_size
		expert_count=n_routed_experts
		expert_weights_scale=routed_scaling_factor`)
	c.put("expert_shared_count", c.int("n_shared_experts"))
	if c.h.Bool("norm_topk_prob") {
		c.put("expert_weights_norm", true)
	}
	c.put("rope.dimension_count", ropeDim)
	if f, ok := c.rope.Float("mscale_all_dim"); ok {
		c.put("rope.scaling.yarn_log_multiplier", 0.1*f)
	}
}

// mainLayers leaves out the layers past num_hidden_layers, which predict
// further tokens.
func mainLayers(c *converter, name string) string {
	plain := strings.ReplaceAll(name, "language_model.", "")
	if strings.HasPrefix(plain, "model.layers.") && layerOf(plain) >= c.layers {
		return ""
	}
	return name
}

// splitKVB splits the projection from the latent into keys and values.
func splitKVB(c *converter, t tensor) []tensor {
	heads := int64(c.scratch["heads kv"])
	return splitLatent(t, heads, c.int("qk_nope_head_dim"), c.intOr(c.int("v_head_dim"), "n_embd_head_v_mla"))
}

// splitLatent splits kv_b_proj [heads × (nope+v), rank] into k_b [heads, rank,
// nope] and v_b [heads, v, rank].
func splitLatent(t tensor, heads, nope, v int64) []tensor {
	base, ok := strings.CutSuffix(t.name, "kv_b_proj.weight")
	if !ok || heads <= 0 || nope <= 0 || v <= 0 || t.dim(0) != uint64(heads*(nope+v)) {
		return []tensor{t}
	}
	return []tensor{
		t.with(base+"k_b_proj.weight", uint64(heads), t.dim(1), uint64(nope)),
		t.with(base+"v_b_proj.weight", uint64(heads), uint64(v), t.dim(1)),
	}
}

// fullIndexers returns which layers choose the keys to attend to themselves,
// nil when the configuration does not say.
func fullIndexers(c *converter, key string, words ...string) []bool {
	list := c.h.Strings(key)
	if list == nil {
		return nil
	}
	full := make([]bool, min(len(list), c.blocks))
	for i := range full {
		full[i] = contains(words, list[i])
	}
	return full
}

// leadingDense counts the dense layers at the start of mlp_layer_types.
func leadingDense(c *converter) int64 {
	n := int64(0)
	for _, t := range c.h.Strings("mlp_layer_types") {
		if t != "dense" {
			break
		}
		n++
	}
	return n
}

// dots3Windowed returns which blocks of Dots 3 have a window; that which predicts
// further tokens has one.
func dots3Windowed(c *converter) []bool {
	swa := c.types("sliding_attention")
	for i := c.layers; i < len(swa); i++ {
		swa[i] = true
	}
	return swa
}

// deepseek4Names are the GGUF names of DeepSeek V4's tensors.
var deepseek4Names = map[string]string{
	"attn.attn_sink": "attn_sinks", "attn.wq_a": "attn_q_a", "attn.wq_b": "attn_q_b", "attn.q_norm": "attn_q_a_norm", "attn.wkv": "attn_kv",
	"attn.kv_norm": "attn_kv_a_norm", "attn.wo_a": "attn_output_a", "attn.wo_b": "attn_output_b",
	"attn.compressor.ape": "attn_compressor_ape", "attn.compressor.wkv": "attn_compressor_kv", "attn.compressor.wgate": "attn_compressor_gate",
	"attn.compressor.norm": "attn_compressor_norm", "attn.indexer.wq_b": "indexer.attn_q_b", "attn.indexer.weights_proj": "indexer.proj",
	"attn.indexer.compressor.ape": "indexer_compressor_ape", "attn.indexer.compressor.wkv": "indexer_compressor_kv",
	"attn.indexer.compressor.wgate": "indexer_compressor_gate", "attn.indexer.compressor.norm": "indexer_compressor_norm",
	"ffn.gate": "ffn_gate_inp", "ffn.gate.tid2eid": "ffn_gate_tid2eid",
	"ffn.experts.w1": "ffn_gate_exps", "ffn.experts.w2": "ffn_down_exps", "ffn.experts.w3": "ffn_up_exps",
	"ffn.shared_experts.w1": "ffn_gate_shexp", "ffn.shared_experts.w2": "ffn_down_shexp", "ffn.shared_experts.w3": "ffn_up_shexp",
}

// deepseek4Tensor names a tensor of DeepSeek V4. Types follow the stored ones.
func deepseek4Tensor(_ *converter, t tensor) []tensor {
	switch {
	case strings.Contains(t.name, ".ffn.experts."):
		t = t.forced(formats.MXFP4)
	case t.stored == formats.F8_E4M3 && len(t.shape) >= 2:
		t = t.forced(formats.Q8_0)
	case t.stored == formats.F32, t.stored == formats.BF16 && len(t.shape) >= 2:
		t = t.forced(t.stored)
	}
	root := map[string]string{
		"embed.weight": "token_embd.weight", "norm.weight": "output_norm.weight", "head.weight": "output.weight",
		"hc_head_fn": "output_hc_fn.weight", "hc_head_base": "output_hc_base.weight", "hc_head_scale": "output_hc_scale.weight",
	}
	if name, ok := root[t.name]; ok {
		return []tensor{t.with(name)}
	}
	rest, ok := strings.CutPrefix(t.name, "layers.")
	if !ok {
		return []tensor{t}
	}
	num, rest, _ := strings.Cut(rest, ".")
	switch {
	case rest == "ffn.gate.bias":
		return []tensor{t.with("blk." + num + ".exp_probs_b.bias")}
	case rest == "ffn.gate.bias_vl":
		return []tensor{t.with("blk." + num + ".exp_probs_b_vl.bias")}
	case rest == "ffn.gate.tid2eid":
		t = t.forced(i32)
	}
	base := strings.TrimSuffix(rest, ".weight")
	if name, ok := deepseek4Names[base]; ok {
		base = name
	}
	return []tensor{t.with("blk." + num + "." + base + ".weight")}
}
