package hf

import (
	"math"
	"strings"

	"weigh/formats/hfconfig"
)

// expertRows are the mixtures of experts that belong to no larger family.
var expertRows = []row{
	{
		hf: []string{"GptOssForCausalLM"}, arch: "gpt-oss", set: "attention.sliding_window=sliding_window\nexpert_feed_forward_length=intermediate_size",
		filter: func(_ *converter, name string) string {
			if strings.Contains(name, "sinks") {
				name += ".weight"
			}
			return name
		},
		modify: func(_ *converter, t tensor) []tensor {
			if base, ok := strings.CutSuffix(t.name, "gate_up_proj_bias"); ok {
				return halves(t, -1, base+"gate_proj.bias", base+"up_proj.bias")
			}
			if base, ok := strings.CutSuffix(t.name, "gate_up_proj"); ok {
				if !t.fixed {
					t = t.swapped() // unpacked, it is stored input dimension first
				}
				return halves(t, -2, base+"gate_proj.weight", base+"up_proj.weight")
			}
			if base, ok := strings.CutSuffix(t.name, "down_proj_bias"); ok {
				t.name = base + "down_proj.bias"
			} else if strings.HasSuffix(t.name, "down_proj") {
				if !t.fixed {
					t = t.swapped()
				}
				t.name += ".weight"
			}
			return []tensor{t}
		},
	},
	{
		hf: []string{"Glm4MoeForCausalLM", "Glm4vMoeForConditionalGeneration", "SolarOpenForCausalLM"}, arch: "glm4moe", prepare: nextPredicting,
		set: moe + "expert_count=n_routed_experts\nexpert_gating_func==2", params: all(rotatePart(0.5), writeNext),
	},
	{
		hf: []string{"MiniMaxM2ForCausalLM", "MiniMaxM3SparseForCausalLM", "MiniMaxM3SparseForConditionalGeneration"}, arch: "minimax-m2",
		set: "expert_feed_forward_length=intermediate_size\nrope.dimension_count=rotary_dim",
		prepare: func(c *converter) {
			if strings.HasPrefix(c.class, "MiniMaxM3") {
				c.arch = "minimax-m3"
			}
		},
		params: func(c *converter) {
			if c.arch != "minimax-m3" {
				return
			}
			c.apply("expert_shared_count=n_shared_experts\nexpert_weights_scale=routed_scaling_factor\nexpert_weights_norm==true")
			s := c.h.Object("sparse_attention_config")
			c.put("attention.indexer.head_count", s["sparse_num_index_heads"])
			c.put("attention.indexer.key_length", s["sparse_index_dim"])
			c.put("attention.indexer.top_k", s["sparse_topk_blocks"])
			c.put("attention.indexer.block_size", s["sparse_block_size"])
			c.put("attention.indexer.local_blocks", s["sparse_local_block"])
			n := 0
			for _, v := range c.h.List("moe_layer_freq") {
				if v != int64(0) {
					break
				}
				n++
			}
			c.put("leading_dense_block_count", n)
		},
		modify: func(c *converter, t tensor) []tensor {
			if strings.Contains(t.name, ".indexer.") || strings.Contains(t.name, ".index_") {
				t = t.forced(f32)
			}
			return []tensor{t}
		},
	},
	{hf: []string{"OlmoeForCausalLM"}, arch: "olmoe", set: "attention.layer_norm_rms_epsilon==1e-05"},
	{
		hf: []string{"LLaDAMoEModel", "LLaDAMoEModelLM"}, arch: "llada-moe",
		set: "expert_feed_forward_length=expert_intermediate_size\nattention.causal==false\ntokenizer.ggml.mask_token_id==156895\ndiffusion.shift_logits==false",
	},
	{
		hf: []string{"MellumForCausalLM"}, arch: "mellum", set: "expert_feed_forward_length=moe_intermediate_size",
		params: func(c *converter) {
			if use, ok := c.h["use_sliding_window"].(bool); (use || !ok) && c.h.Has("sliding_window") {
				window(c)
			}
		},
	},
	{
		hf: []string{"MapleForCausalLM"}, arch: "maple", set: "vocab_size=vocab_size\nexpert_feed_forward_length=moe_intermediate_size",
		params: all(rotatePart(1), window, func(c *converter) { c.put("swiglu_clamp_exp", repeat(7, c.blocks)) }),
	},
	{
		hf: []string{"GroveMoeForCausalLM", "modeling_grove_moe.GroveMoeForCausalLM"}, arch: "grovemoe", filter: without(".expert_bias"),
		set:    "expert_feed_forward_length=moe_intermediate_size\nexperts_per_group==2\nexpert_group_scale==0.05",
		params: func(c *converter) { c.put("expert_chunk_feed_forward_length", c.orDefault(128, "head_dim")) },
	},
	{
		hf: []string{"SmallThinkerForCausalLM"}, arch: "smallthinker",
		set: `expert_count=moe_num_primary_experts
			expert_used_count=moe_num_active_primary_experts
			expert_feed_forward_length=moe_ffn_hidden_size
			feed_forward_length=moe_ffn_hidden_size`,
		params: func(c *converter) {
			c.put("expert_gating_func", 2)
			if c.h.Bool("moe_primary_router_apply_softmax") {
				c.put("expert_gating_func", 1)
			}
			for _, v := range c.h.List("sliding_window_layout") {
				if v != int64(0) {
					c.put("attention.sliding_window", c.h["sliding_window_size"])
				}
			}
		},
	},
	{
		hf: []string{"BailingMoeForCausalLM"}, arch: "bailingmoe", set: moe + "vocab_size=vocab_size\nexpert_weights_scale==1.0", params: rotateHead,
		modify: func(c *converter, t tensor) []tensor {
			switch {
			case strings.HasSuffix(t.name, "attention.dense.weight"):
				return []tensor{t.with(block(t, "attn_output"))}
			case strings.HasSuffix(t.name, "query_key_value.weight"):
				return splitQKV(c, t)
			}
			return []tensor{t}
		},
	},
	{
		hf: []string{"BailingMoeV2ForCausalLM", "SarvamMoEForCausalLM", "modeling_sarvam_moe.SarvamMoEForCausalLM"}, arch: "bailingmoe2", prepare: nextPredicting,
		set: moe + "vocab_size=vocab_size", filter: expertBias,
		params: all(writeNext, rotatePart(0.5), func(c *converter) {
			if !strings.HasPrefix(c.class, "Bailing") {
				rotateHead(c)
			}
			c.put("expert_shared_feed_forward_length", c.intOr(c.int("moe_intermediate_size")*c.int("num_shared_experts"), "moe_shared_expert_intermediate_size"))
		}),
	},
	{
		hf: []string{"Ernie4_5_MoeForCausalLM"}, arch: "ernie4_5-moe", modify: ernieSplit,
		filter: chain(rename("ernie.", "model."), without("model.mtp_")),
		set: `expert_count=moe_num_experts
			expert_used_count=moe_k
			interleave_moe_layer_step=moe_layer_interval
			leading_dense_block_count=moe_layer_start_index
			expert_feed_forward_length=moe_intermediate_size
			expert_shared_count=moe_num_shared_experts`,
		params: func(c *converter) {
			if c.int("moe_num_shared_experts") > 0 && c.int("num_key_value_heads") > 0 {
				c.put("expert_shared_feed_forward_length", c.int("intermediate_size")/c.int("num_key_value_heads"))
			}
		},
	},
	{
		hf: []string{"HunYuanMoEV1ForCausalLM"}, arch: "hunyuan-moe", filter: noTiedHead, set: "expert_shared_feed_forward_length=intermediate_size",
		params: func(c *converter) {
			c.put("expert_feed_forward_length", first(c.h["moe_intermediate_size"]))
			c.put("expert_used_count", first(c.h["moe_topk"]))
			c.put("expert_shared_count", first(c.h["num_shared_expert"]))
			hunyuanRope(c, 1000, div(c.int("hidden_size"), c.int("num_attention_heads")), "dynamic")
		},
	},
	{
		hf: []string{"HYV3ForCausalLM"}, arch: "hy_v3", prepare: nextPredicting,
		set: "expert_feed_forward_length=moe_intermediate_size\nexpert_gating_func==2\nexpert_weights_norm==true\nexpert_weights_norm=route_norm\nexpert_weights_scale==1\nexpert_weights_scale=router_scaling_factor",
		params: all(writeNext, func(c *converter) {
			c.put("expert_shared_feed_forward_length", c.int("moe_intermediate_size")*c.intOr(1, "num_shared_experts"))
		}),
		filter: func(c *converter, name string) string {
			if strings.HasPrefix(name, "model.layers.") && layerOf(name) >= c.layers {
				name = strings.ReplaceAll(name, ".final_layernorm.", ".shared_head.norm.")
			}
			return name
		},
	},
	{
		hf: []string{"DbrxForCausalLM"}, arch: "dbrx", own: true,
		params: func(c *converter) {
			blockCount(c)
			f, a := c.h.Object("ffn_config"), c.h.Object("attn_config")
			c.apply("context_length=max_seq_len\nembedding_length=d_model\nattention.head_count=n_heads\nattention.layer_norm_epsilon==1e-05")
			c.put("feed_forward_length", f["ffn_hidden_size"])
			c.put("attention.head_count_kv", a["kv_n_heads"])
			c.put("rope.freq_base", a["rope_theta"])
			c.put("attention.clamp_kqv", a["clip_qkv"])
			c.put("expert_count", f["moe_num_experts"])
			c.put("expert_used_count", f["moe_top_k"])
		},
		modify: func(c *converter, t tensor) []tensor {
			f := c.h.Object("ffn_config")
			n, _ := f.Int("moe_num_experts")
			ff, _ := f.Int("ffn_hidden_size")
			e, m, d := uint64(n), uint64(ff), uint64(c.int("d_model"))
			switch {
			case strings.HasSuffix(t.name, "ffn.experts.mlp.w1"), strings.HasSuffix(t.name, "ffn.experts.mlp.v1"):
				t = t.with(t.name+".weight", e, m, d)
			case strings.HasSuffix(t.name, "ffn.experts.mlp.w2"):
				t = t.with(t.name+".weight", e, d, m)
			}
			if len(t.shape) > 1 {
				t = t.forced(c.out) // the router too
			}
			return []tensor{t}
		},
	},
	{
		hf: []string{"GrokForCausalLM", "Grok1ForCausalLM"}, arch: "grok",
		set: `attn_logit_softcapping==30
			attn_logit_softcapping=attn_logit_softcapping
			router_logit_softcapping==30
			router_logit_softcapping=router_logit_softcapping
			final_logit_softcapping=final_logit_softcapping
			expert_feed_forward_length=moe_intermediate_size
			attention.temperature_length=attn_temperature_len
			attention.output_scale=attn_output_multiplier
			embedding_scale=embedding_multiplier_scale
			logit_scale=output_multiplier_scale`,
		params: func(c *converter) {
			if !c.h.Has("attn_output_multiplier") {
				c.put("attention.output_scale", 1/math.Sqrt(float64(max(c.headDim(), 1))))
			}
			if t := c.h.String("rope_type"); t == "yarn" || t == "original" {
				c.put("rope.scaling.type", "yarn")
				c.apply("rope.scaling.factor=scaling_factor\nrope.scaling.original_context_length=original_max_position_embeddings\nrope.scaling.yarn_ext_factor=extrapolation_factor\nrope.scaling.yarn_attn_factor=attn_factor\nrope.scaling.yarn_beta_fast=beta_fast\nrope.scaling.yarn_beta_slow=beta_slow")
			}
		},
		filter: func(_ *converter, name string) string {
			if i := strings.Index(name, ".moe."); i >= 0 {
				return strings.NewReplacer(".linear.", ".w1.", ".linear_1.", ".w2.", ".linear_v.", ".w3.").Replace(name[:i] + ".experts." + name[i+len(".moe."):])
			}
			return name
		},
		modify: func(_ *converter, t tensor) []tensor {
			for end, name := range map[string]string{".experts.w1.weight": "ffn_gate_exps", ".experts.w2.weight": "ffn_down_exps", ".experts.w3.weight": "ffn_up_exps"} {
				if strings.HasSuffix(t.name, end) {
					return []tensor{t.with(block(t, name))}
				}
			}
			return []tensor{t}
		},
	},
	{hf: []string{"ArcticForCausalLM"}, arch: "arctic", set: "vocab_size=vocab_size", params: rotateHead},
	{
		hf: []string{"PhiMoEForCausalLM"}, arch: "phimoe", own: true, params: phi3, extra: longRope,
		set: phi3Keys + "\nexpert_used_count=num_experts_per_tok|num_experts_per_token\nexpert_count=num_local_experts|num_experts",
	},
	{
		hf: []string{"Cohere2MoeForCausalLM"}, arch: "cohere2moe", prepare: nextPredicting,
		set: `logit_scale=logit_scale
			vocab_size=vocab_size
			expert_feed_forward_length=intermediate_size
			expert_weights_norm==false
			expert_weights_norm=norm_topk_prob
			rope.dimension_count=head_dim
			rope.scaling.type==none`,
		params: all(window, writeNext, func(c *converter) {
			dense := c.int("first_k_dense_replace")
			if c.h.Has("mlp_layer_types") {
				dense = leadingDense(c)
			}
			c.put("leading_dense_block_count", dense)
			swa := c.types("sliding_attention")
			c.put("attention.sliding_window_pattern", swa[:min(len(swa), len(c.h.List("layer_types")))])
			if n := c.int("num_shared_experts"); n > 0 {
				c.put("expert_shared_count", n)
				c.put("expert_shared_feed_forward_length", n*c.int("intermediate_size"))
			}
		}),
		filter: noBias,
	},
	{
		hf: []string{"ExaoneMoEForCausalLM", "ExaoneMoeForCausalLM"}, arch: "exaone-moe", prepare: nextPredicting, extra: llama3Rope, filter: exaoneNext,
		set: moe + "vocab_size=vocab_size\nrope.scaling.type==none\nleading_dense_block_count==0\nleading_dense_block_count=first_k_dense_replace|first_last_k_dense_replace",
		params: all(exaone4, func(c *converter) {
			c.put("nextn_predict_layers", c.scratch["nextn"])
			c.put("expert_shared_feed_forward_length", c.int("moe_intermediate_size")*c.int("num_shared_experts"))
		}),
	},
	{
		hf: []string{"LagunaForCausalLM"}, arch: "laguna",
		set: `vocab_size=vocab_size
			expert_feed_forward_length=moe_intermediate_size
			expert_shared_feed_forward_length=shared_expert_intermediate_size
			expert_weights_norm==true
			expert_weights_scale=moe_routed_scaling_factor
			expert_gating_func==2`,
		params: func(c *converter) {
			heads := c.h["num_attention_heads_per_layer"]
			if heads == nil {
				n := c.int("num_attention_heads")
				heads = c.perBlock(func(int) int64 { return n })
			}
			c.put("attention.head_count", heads)
			if w := c.int("sliding_window"); w > 0 {
				c.put("attention.sliding_window", w)
			}
			c.put("leading_dense_block_count", leadingDense(c))
			rotateKinds(c)
		},
	},
	{
		hf: []string{"MiMoV2FlashForCausalLM", "MiMoV2ForCausalLM"}, arch: "mimo2",
		prepare: func(c *converter) { c.blocks += mimoNext; c.scratch["nextn"] = mimoNext },
		set: `attention.sliding_window=sliding_window
			attention.value_length=v_head_dim
			expert_count=n_routed_experts
			expert_feed_forward_length=moe_intermediate_size
			attention.value_scale=attention_value_scale`,
		params: all(rotatePart(1), writeNext, func(c *converter) {
			pattern := make([]int64, c.blocks)
			list := c.h.List("hybrid_layer_pattern")
			for i := range pattern {
				pattern[i] = 1 // the predicting layers have a window
				if i < len(list) && i < c.layers {
					pattern[i], _ = hfconfig.AsInt(list[i])
				}
			}
			c.put("attention.sliding_window_pattern", pattern)
			full, swa := c.int("num_key_value_heads"), c.int("swa_num_key_value_heads")
			c.put("attention.head_count_kv", c.perBlock(func(i int) int64 {
				if pattern[i] == 1 {
					return swa
				}
				return full
			}))
			c.put("attention.layer_norm_rms_epsilon", c.floatOr(1e-5, c.h, "layernorm_epsilon"))
		}),
		filter: func(c *converter, name string) string {
			if rest, ok := strings.CutPrefix(name, "model.mtp.layers."); ok {
				num, rest, _ := strings.Cut(rest, ".")
				name = "model.layers." + itoa(c.layers+layerOf(num)) + "." + rest
			}
			if strings.Contains(name, "attention_sink") && !strings.HasSuffix(name, ".weight") {
				name += ".weight"
			}
			return name
		},
	},
	{
		hf: []string{"Step3p5ForCausalLM", "Step3p7ForConditionalGeneration"}, arch: "step35",
		prepare: func(c *converter) {
			nextPredicting(c)
			if list := c.h.List("rope_theta"); len(list) >= 2 {
				c.h["rope_theta"], c.h["local_rope_theta"] = list[0], list[1]
				c.rope["rope_theta"] = list[0]
				c.rope["sliding_attention"] = hfconfig.Object{"rope_theta": list[1]}
			}
		},
		set: `attention.sliding_window=sliding_window
			attention.value_length=head_dim
			expert_count=moe_num_experts
			expert_used_count=moe_top_k
			expert_feed_forward_length=moe_intermediate_size
			expert_shared_feed_forward_length=share_expert_dim
			expert_weights_scale=moe_router_scaling_factor
			expert_weights_norm=norm_expert_weight`,
		params: all(writeNext, func(c *converter) {
			swa := c.types("sliding_attention")
			if swa == nil {
				swa = make([]bool, c.blocks)
			}
			other := c.h.Object("attention_other_setting")
			heads, kv := c.int("num_attention_heads"), c.int("num_attention_groups")
			swaHeads, swaKV := heads, kv
			if n, ok := other.Int("num_attention_heads"); ok {
				swaHeads = n
			}
			if n, ok := other.Int("num_attention_groups"); ok {
				swaKV = n
			}
			c.put("attention.head_count", c.ifTrue(swa, swaHeads, heads))
			c.put("attention.head_count_kv", c.ifTrue(swa, swaKV, kv))
			c.put("attention.sliding_window_pattern", swa)
			lead := 0
			if first, _, _ := strings.Cut(strings.TrimSpace(c.h.String("moe_layers_enum")), ","); first != "" {
				lead = max(layerOf(first), 0)
			}
			c.put("leading_dense_block_count", lead)
			c.put("moe_every_n_layers", c.intOr(1, "moe_every_n_layer"))
			c.put("attention.layer_norm_rms_epsilon", c.floatOr(1e-5, c.h, "rms_norm_eps"))
			for key, name := range map[string]string{"swiglu_clamp_exp": "swiglu_limits", "swiglu_clamp_shexp": "swiglu_limits_shared"} {
				if list := c.h.List(name); list != nil {
					c.put(key, padded(list, c.blocks))
				}
			}
		}),
		filter: func(c *converter, name string) string {
			if strings.HasSuffix(name, ".moe.router_bias") {
				name += ".bias"
			}
			if strings.HasPrefix(name, "model.layers.") && layerOf(name) >= c.layers {
				name = strings.ReplaceAll(name, ".transformer.", ".")
				name = strings.ReplaceAll(name, "shared_head.output", "shared_head.head")
			}
			return name
		},
		modify: func(_ *converter, t tensor) []tensor {
			if strings.HasSuffix(t.name, ".self_attn.g_proj.weight") || strings.Contains(t.name, ".moe.") && strings.HasSuffix(t.name, ".weight") {
				t = t.squeezed()
			}
			return []tensor{t}
		},
		extra: llama3Rope,
	},
}

// mimoNext is how many layers of MiMo V2 predict further tokens; its
// configuration does not say.
const mimoNext = 3
