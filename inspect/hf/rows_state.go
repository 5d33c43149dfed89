package hf

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"weigh/formats/hfconfig"
)

// stateRows are the models with a recurrent state, alone or beside attention.
var stateRows = []row{
	{
		hf: []string{"MambaForCausalLM", "MambaLMHeadModel", "FalconMambaForCausalLM"}, arch: "mamba", own: true,
		params: func(c *converter) {
			d := c.int("hidden_size", "d_model")
			c.mambaKeys(d, c.orDefault(2*d, "intermediate_size", "d_inner"), c.orDefault(16, "state_size", "d_state"))
			c.put("ssm.time_step_rank", c.orDefault((d+15)/16, "time_step_rank", "dt_rank"))
			c.put("ssm.dt_b_c_rms", c.h.String("model_type") == "falcon_mamba")
		},
		prepare: padVocabulary(8), filter: noTiedHead, modify: squeezeConv,
	},
	{
		hf: []string{"Mamba2ForCausalLM"}, arch: "mamba2", own: true, prepare: all(padVocabulary(16), mamba2Prepare),
		params: mamba2Params, filter: mamba2Filter, modify: mamba2Tensor,
	},
	{
		hf: []string{"FalconH1ForCausalLM"}, arch: "falcon-h1", own: true,
		prepare: func(c *converter) { c.prefixed("mamba"); mamba2Prepare(c) },
		params: all(mamba2Params, keys(`vocab_size=vocab_size
			context_length=max_position_embeddings
			feed_forward_length=intermediate_size
			attention.head_count=num_attention_heads
			attention.head_count_kv=num_key_value_heads
			attention.key_length=head_dim
			attention.value_length=head_dim`), func(c *converter) { c.put("rope.freq_base", c.rope["rope_theta"]) }),
		filter: mamba2Filter,
		modify: func(c *converter, t tensor) []tensor {
			if strings.Contains(t.name, "mamba.norm") {
				return []tensor{t.with(t.name, uint64(c.scratch["groups"]), uint64(c.scratch["inner"]/max(c.scratch["groups"], 1)))}
			}
			return mamba2Tensor(c, t)
		},
	},
	{
		hf: []string{"JambaForCausalLM"}, arch: "jamba", own: true,
		params: func(c *converter) {
			d := c.int("hidden_size", "mamba_d_model")
			kv, offset, period := c.int("num_key_value_heads"), c.int("attn_layer_offset"), c.int("attn_layer_period")
			c.put("context_length", c.h.Find("max_position_embeddings", "n_ctx"))
			c.put("attention.head_count_kv", c.perBlock(func(i int) int64 {
				if n := int64(i) - offset; period > 0 && n >= 0 && n%period == 0 {
					return kv
				}
				return 0
			}))
			c.put("ssm.conv_kernel", c.orDefault(4, "mamba_d_conv"))
			c.put("ssm.inner_size", c.int("mamba_expand")*d)
			c.put("ssm.state_size", c.orDefault(16, "mamba_d_state"))
			c.put("ssm.time_step_rank", c.orDefault((d+15)/16, "mamba_dt_rank"))
			c.put("attention.layer_norm_rms_epsilon", c.realOr(1e-6, "layer_norm_epsilon", "rms_norm_eps"))
			c.apply(`embedding_length=hidden_size|mamba_d_model
				feed_forward_length=intermediate_size
				attention.head_count=num_attention_heads
				expert_count=num_local_experts|num_experts
				expert_used_count=num_experts_per_tok|num_experts_per_token`)
			blockCount(c)
		},
		filter: func(c *converter, name string) string {
			name = strings.ReplaceAll(name, ".moe.", ".feed_forward.")
			// A layer between the expert layers has one expert, a dense FFN.
			if n := int64(layerOf(name)) - c.int("expert_layer_offset"); n < 0 || c.int("expert_layer_period") == 0 || n%c.int("expert_layer_period") != 0 {
				name = strings.ReplaceAll(name, ".experts.0.", ".")
			}
			return name
		},
		modify: squeezeConv,
	},
	{
		hf: []string{"GraniteMoeHybridForCausalLM", "BambaForCausalLM"}, arch: "granitehybrid", set: graniteScales + graniteShared,
		prepare: func(c *converter) {
			c.prefixed("mamba")
			delete(c.h, "head_dim")
			attn := graniteAttention(c)
			if len(attn) == c.blocks {
				c.arch = "granite"
				if c.int("num_experts_per_tok", "num_experts_per_token") != 0 {
					c.arch = "granitemoe"
				}
			}
			hybridState(c, attn, nil)
		},
		params: all(llamaBase, hybridParams),
		filter: chain(graniteFilter, mamba2Filter),
		modify: func(c *converter, t tensor) []tensor {
			if strings.Contains(t.name, "block_sparse_moe.input_linear") || strings.Contains(t.name, "shared_mlp") {
				return graniteFused(c, t)
			}
			return mamba2Tensor(c, t)
		},
	},
	{
		hf: []string{"NemotronHForCausalLM"}, arch: "nemotron_h", set: graniteScales + graniteShared,
		prepare: func(c *converter) {
			c.prefixed("mamba")
			blocks := nemotronBlocks(c)
			if len(blocks) > 0 {
				c.layers, c.blocks = len(blocks), len(blocks)
				c.h["num_hidden_layers"] = int64(len(blocks))
			}
			isMoE := c.h.Has("num_experts_per_tok")
			if isMoE {
				c.arch = "nemotron_h_moe"
			}
			var attn, ffn []int
			for i, kind := range blocks {
				switch kind {
				case "*", "attention", "full_attention":
					attn = append(attn, i)
				case "E", "moe", "-":
					if isMoE != (kind == "-") {
						ffn = append(ffn, i)
					}
				}
			}
			if isMoE && c.int("num_nextn_predict_layers") == 1 {
				attn, ffn = append(attn, c.blocks), append(ffn, c.blocks)
				c.blocks++
				c.scratch["nextn"] = 1
			}
			c.h["weigh.head_dim"] = c.h.Find("head_dim", "attention_head_dim")
			delete(c.h, "head_dim")
			hybridState(c, attn, ffn)
		},
		params: nemotronParams,
		filter: func(c *converter, name string) string {
			if strings.HasPrefix(name, "mtp.") {
				return nemotronNext(c, name)
			}
			if strings.HasPrefix(name, "model.layers.") && strings.Contains(name, ".mixer.") {
				name = strings.Replace(name, "model.layers.", "backbone.layers.", 1)
			}
			if base, ok := strings.CutSuffix(name, "mixer.dt_bias"); ok && c.arch == "nemotron_h_moe" {
				return base + "mixer.dt.bias"
			}
			return chain(graniteFilter, mamba2Filter)(c, name)
		},
		modify: func(c *converter, t tensor) []tensor {
			// The converter tells a router by its layer's number before it
			// renames the predicting layer's.
			if c.scratch["nextn"] > 0 && layerOf(t.name) == c.layers && strings.HasSuffix(t.name, ".mixer.gate.weight") {
				t = t.forced(c.out)
			}
			return mamba2Tensor(c, t)
		},
	},
	{
		hf: []string{"NemotronHPuzzleForCausalLM"}, arch: "nemotron_h_moe", set: graniteScales + graniteShared,
		prepare: func(c *converter) {
			c.prefixed("mamba")
			var attn, ffn []int
			list := c.h.List("block_configs")
			for i, v := range list {
				switch b, _ := v.(hfconfig.Object); b.String("block_type") {
				case "attention", "full_attention":
					attn = append(attn, i)
				case "moe":
					ffn = append(ffn, i)
				}
			}
			c.layers, c.blocks = len(list), len(list)
			c.h["weigh.head_dim"] = c.h.Find("head_dim", "attention_head_dim")
			delete(c.h, "head_dim")
			hybridState(c, attn, ffn)
		},
		params: all(nemotronParams, func(c *converter) {
			per := func(key string) []int64 {
				list := c.h.List("block_configs")
				return c.perBlock(func(i int) int64 {
					b, _ := list[i].(hfconfig.Object)
					n, _ := b.Int(key)
					return n
				})
			}
			c.put("feed_forward_length", per("moe_intermediate_size"))
			c.put("expert_feed_forward_length", per("moe_intermediate_size"))
			c.put("expert_used_count", per("num_experts_per_tok"))
		}),
		filter: func(c *converter, name string) string {
			if strings.HasPrefix(name, "mtp.") {
				return ""
			}
			if rest, ok := strings.CutPrefix(name, "model."); ok {
				name = "backbone." + rest
			}
			if base, ok := strings.CutSuffix(name, "mixer.dt_bias"); ok {
				return base + "mixer.dt.bias"
			}
			return chain(graniteFilter, mamba2Filter)(c, name)
		},
		modify: mamba2Tensor,
	},
	{
		hf: []string{"Lfm2ForCausalLM", "LFM2ForCausalLM", "Lfm2Model", "Lfm2BidirectionalModel"}, arch: "lfm2", prepare: lfm2Prepare,
		set: "vocab_size=vocab_size\nshortconv.l_cache=conv_L_cache\nattention.layer_norm_rms_epsilon=norm_eps",
		params: func(c *converter) {
			c.put("feed_forward_length", lfm2Width(c))
			if c.class != "Lfm2ForCausalLM" && c.class != "LFM2ForCausalLM" {
				pool(c)
			}
			if c.class == "Lfm2BidirectionalModel" {
				c.put("attention.causal", false)
			}
		},
		filter: func(c *converter, name string) string {
			if c.class == "Lfm2Model" || c.class == "Lfm2BidirectionalModel" {
				return "model." + name
			}
			return strings.ReplaceAll(name, "lfm.", "model.")
		},
		modify: lfm2Conv,
	},
	{
		hf: []string{"Lfm2MoeForCausalLM"}, arch: "lfm2moe", prepare: lfm2Prepare, filter: expertBias, modify: lfm2Conv,
		set: `expert_feed_forward_length=moe_intermediate_size
			leading_dense_block_count=num_dense_layers
			expert_gating_func==2
			vocab_size=vocab_size
			shortconv.l_cache=conv_L_cache`,
	},
	{
		hf: []string{"KimiLinearModel", "KimiLinearForCausalLM"}, arch: "kimi-linear", prepare: latentPrepare,
		set:    kimiDelta,
		params: kimiParams,
		filter: dtBias, modify: kimiTensor,
	},
	{
		hf: []string{"KimiK3ForConditionalGeneration"}, arch: "kimi-k3", prepare: latentPrepare,
		set: kimiDelta + `
			attention.value_length=kv_lora_rank
			expert_weights_norm=moe_renormalize
			expert_gating_func==2
			expert_latent_length=routed_expert_hidden_size
			activation.situ_beta=activation_situ_beta
			activation.situ_linear_beta=activation_situ_linear_beta
			attn_res.block_size=attn_res_block_size`,
		params: all(kimiParams, func(c *converter) {
			c.put("kda.gate_lower_bound", c.h.Object("linear_attn_config")["gate_lower_bound"])
		}),
		filter: func(_ *converter, name string) string {
			if strings.HasPrefix(name, "vision_tower.") || strings.HasPrefix(name, "mm_projector.") {
				return ""
			}
			return dtBias(nil, strings.ReplaceAll(name, "language_model.", ""))
		},
		modify: func(c *converter, t tensor) []tensor {
			for part, name := range map[string]string{"self_attention_res": "attn_res_score", "mlp_res": "ffn_res_score", "output_attn_res": "output_res_score"} {
				// The norm and the projection are multiplied into one vector.
				if strings.HasSuffix(t.name, part+"_norm.weight") {
					return nil
				}
				if strings.HasSuffix(t.name, part+"_proj.weight") {
					n, _ := elements(t.shape)
					if part == "output_attn_res" {
						return []tensor{t.with(name+".weight", n)}
					}
					return []tensor{t.with(block(t, name), n)}
				}
			}
			if strings.HasSuffix(t.name, ".self_attn.g_proj.weight") {
				if kimiFull(c)[layerOf(t.name)] {
					return []tensor{t.with(block(t, "attn_gate"))}
				}
				return []tensor{t.with(block(t, "ssm_g"))}
			}
			if strings.HasSuffix(t.name, ".A_log") {
				t = t.resized(0, uint64(c.int("num_attention_heads")))
			}
			return kimiTensor(c, t)
		},
	},
	{
		hf: []string{"BailingMoeV3ForCausalLM"}, arch: "bailingmoe3", prepare: all(latentPrepare, nextPredicting),
		set: moe + `expert_shared_feed_forward_length=moe_shared_expert_intermediate_size
			vocab_size=vocab_size
			ssm.conv_kernel=short_conv_kernel_size
			kda.head_dim=head_dim
			kda.safe_gate=kda_safe_gate
			kda.gate_lower_bound=kda_lower_bound
			attention.q_lora_rank=q_lora_rank
			attention.kv_lora_rank=kv_lora_rank
			rope.dimension_count=qk_rope_head_dim
			attention.value_length_mla=v_head_dim`,
		params: all(writeNext, func(c *converter) {
			full := bailing3Full(c)
			c.put("attention.head_count_kv", c.ifTrue(full, 1, 0))
			c.put("attention.key_length", c.int("kv_lora_rank")+c.int("qk_rope_head_dim"))
			c.put("attention.key_length_mla", c.int("qk_nope_head_dim")+c.int("qk_rope_head_dim"))
			for key, name := range map[string]string{"swiglu_clamp_exp": "expert_swiglu_limit_list", "swiglu_clamp_shexp": "share_expert_swiglu_limit_list"} {
				if list := c.h.List(name); list != nil {
					c.put(key, padded(list, c.blocks))
				}
			}
		}),
		filter: chain(expertBias, dtBias),
		modify: func(c *converter, t tensor) []tensor {
			full := false
			if il := layerOf(t.name); il >= 0 && il < c.blocks {
				full = bailing3Full(c)[il]
			}
			switch {
			case strings.HasSuffix(t.name, ".A_log"):
				n, _ := elements(t.shape)
				t = t.with(t.name, n, 1)
			case strings.HasSuffix(t.name, ".attention.f_proj.weight"):
				return []tensor{t.with(block(t, "ssm_f_a"))}
			case strings.HasSuffix(t.name, ".attention.g_proj.weight") && full:
				return []tensor{t.with(block(t, "attn_gate"))}
			case strings.HasSuffix(t.name, ".attention.g_proj.weight"):
				return []tensor{t.with(block(t, "ssm_g_a"))}
			case strings.HasSuffix(t.name, ".attention.kv_b_proj.weight"):
				s := splitLatent(t, c.int("num_attention_heads"), c.int("qk_nope_head_dim"), c.int("v_head_dim"))
				if len(s) == 2 {
					s[0].name, s[1].name = block(t, "attn_k_b"), block(t, "attn_v_b")
				}
				return s
			}
			return kimiConv(t)
		},
	},
	{
		hf: []string{"Plamo2ForCausalLM", "PLaMo2ForCausalLM"}, arch: "plamo2", own: true,
		params: func(c *converter) {
			step := max(c.intOr(2, "mamba_step"), 1)
			if on, ok := c.h["mamba_enabled"].(bool); on || !ok {
				attn := make([]bool, c.blocks)
				for i := range attn {
					attn[i] = int64(i)%step == step/2
					if int64(c.blocks) <= step/2 {
						attn[i] = i == c.blocks-1
					}
				}
				c.put("attention.head_count_kv", c.ifTrue(attn, c.intOr(4, "num_key_value_heads"), 0))
				c.put("attention.head_count", c.ifTrue(attn, c.intOr(32, "num_attention_heads"), 0))
			}
			head := c.intOr(128, "hidden_size_per_head")
			blockCount(c)
			c.put("vocab_size", c.h["vocab_size"])
			c.put("context_length", c.intOr(2048, "max_position_embeddings"))
			c.put("embedding_length", c.intOr(4096, "hidden_size"))
			c.put("attention.key_length", head)
			c.put("attention.value_length", head)
			c.put("attention.layer_norm_rms_epsilon", c.floatOr(1e-6, c.h, "rms_norm_eps"))
			c.put("rope.freq_base", c.floatOr(10000, c.rope, "rope_theta"))
			c.put("ssm.state_size", c.intOr(64, "mamba_d_state"))
			c.put("ssm.conv_kernel", c.intOr(4, "mamba_d_conv"))
			c.put("ssm.time_step_rank", c.intOr(64, "mamba_num_heads"))
			c.put("ssm.inner_size", c.intOr(64, "mamba_num_heads")*head)
			c.put("ssm.group_count", 0)
			c.put("feed_forward_length", c.intOr(13312, "intermediate_size"))
		},
		filter: func(_ *converter, name string) string {
			for _, p := range []string{"dt_norm", "B_norm", "C_norm", "k", "q"} {
				if base, ok := strings.CutSuffix(name, "."+p+"_weight"); ok {
					return base + "." + p + ".weight"
				}
			}
			return dtBias(nil, name)
		},
		modify: squeezeConv,
	},
	{
		hf: []string{"MiniMaxText01ForCausalLM", "MiniMaxM1ForCausalLM"}, arch: "minimax-01",
		set: "residual_scale=layernorm_full_attention_alpha\nrope.dimension_count=rotary_dim",
	},
	{
		hf: []string{"Rwkv6ForCausalLM"}, arch: "rwkv6", own: true, modify: rwkv6Tensor,
		params: func(c *converter) {
			d := c.int("hidden_size")
			rwkv(c, c.orDefault(int64(float64(d)*3.5)/32*32, "intermediate_size"))
			mix, decay := int64(32), int64(64)
			if d == 4096 {
				mix, decay = 64, 128
			}
			c.put("time_mix_extra_dim", mix)
			c.put("time_decay_extra_dim", decay)
			c.apply("attention.layer_norm_epsilon=layer_norm_epsilon\nrescale_every_n_layers=rescale_every\nwkv.head_size=head_size")
		},
	},
	{
		hf: []string{"RWKV6Qwen2ForCausalLM"}, arch: "rwkv6qwen2", own: true, modify: rwkv6Tensor,
		params: func(c *converter) {
			d := c.int("hidden_size")
			rwkv(c, c.int("intermediate_size"))
			mix, decay := int64(32), int64(64)
			if d >= 4096 {
				mix, decay = 64, 128
			}
			c.put("time_mix_extra_dim", c.intOr(mix, "lora_rank_tokenshift"))
			c.put("time_decay_extra_dim", c.intOr(decay, "lora_rank_decay"))
			c.put("wkv.head_size", div(d, c.int("num_attention_heads")))
			c.apply("attention.layer_norm_rms_epsilon=rms_norm_eps\ntoken_shift_count==1\nattention.head_count_kv=num_key_value_heads")
		},
	},
	{
		hf: []string{"Rwkv7ForCausalLM", "RWKV7ForCausalLM"}, arch: "rwkv7", own: true, filter: rwkv7Filter, modify: rwkv7Tensor,
		params: func(c *converter) {
			d := c.int("hidden_size")
			rwkv(c, c.orDefault(4*d, "intermediate_size"))
			c.apply("attention.layer_norm_epsilon=layer_norm_epsilon|norm_eps\nwkv.head_size=head_size|head_dim")
			rank := func(exponent, factor float64) int64 {
				return max(1, int64(math.RoundToEven(math.Pow(float64(d), exponent)*factor/32))) * 32
			}
			c.put("attention.decay_lora_rank", c.orDefault(rank(0.5, 1.8), "lora_rank_decay", "decay_low_rank_dim"))
			c.put("attention.iclr_lora_rank", c.orDefault(rank(0.5, 1.8), "lora_rank_iclr", "a_low_rank_dim"))
			c.put("attention.value_residual_mix_lora_rank", c.orDefault(rank(0.5, 1.3), "lora_rank_value_residual_mix", "v_low_rank_dim"))
			c.put("attention.gate_lora_rank", c.orDefault(rank(0.8, 0.6), "lora_rank_gate", "gate_low_rank_dim"))
		},
	},
	{
		hf: []string{"RwkvHybridForCausalLM"}, arch: "arwkv7", own: true, filter: rwkv7Filter, modify: rwkv7Tensor,
		params: func(c *converter) {
			rwkv(c, c.int("intermediate_size"))
			gate := int64(0)
			if c.h.Bool("wkv_has_gate") {
				gate = 128
			}
			c.put("attention.gate_lora_rank", gate)
			c.apply(`attention.layer_norm_rms_epsilon=rms_norm_eps
				wkv.head_size=head_size
				attention.decay_lora_rank==64
				attention.iclr_lora_rank==64
				attention.value_residual_mix_lora_rank==32
				token_shift_count==1`)
		},
	},
}

// orDefault returns the value of the first present key, or def when that is
// absent, null, 0 or a word such as "auto".
func (c *converter) orDefault(def int64, keys ...string) int64 {
	if n := c.int(keys...); n != 0 {
		return n
	}
	return def
}

func (c *converter) realOr(def float64, keys ...string) float64 {
	if f, ok := c.h.Float(keys...); ok && f != 0 {
		return f
	}
	return def
}

// prefixed lets keys be found without the prefix that they have in the
// configuration; those that have none win.
func (c *converter) prefixed(prefix string) {
	h := c.h.Merge(nil)
	for k, v := range c.h {
		if plain, ok := strings.CutPrefix(k, prefix+"_"); ok {
			if _, ok := h[plain]; !ok && !slices.Contains([]string{"head_dim", "hidden_size"}, plain) {
				h["weigh."+plain] = v
			}
		}
	}
	c.h = h
}

// find returns a value under one of the names, or, behind all of them, under one
// of the names with a prefix that prefixed has taken away.
func (c *converter) find(keys ...string) int64 {
	for _, k := range keys {
		if _, ok := c.h[k]; ok {
			return c.int(k)
		}
	}
	for _, k := range keys {
		if _, ok := c.h["weigh."+k]; ok {
			return c.int("weigh." + k)
		}
	}
	return 0
}

// mambaKeys writes the keys of a model without attention.
func (c *converter) mambaKeys(d, inner, state int64) {
	blockCount(c)
	c.put("context_length", 1<<20)
	c.put("embedding_length", d)
	c.put("feed_forward_length", 0)
	c.put("attention.head_count", 0)
	kernel := c.find("conv_kernel", "d_conv")
	if kernel == 0 {
		kernel = 4
	}
	c.put("ssm.conv_kernel", kernel)
	c.put("ssm.inner_size", inner)
	c.put("ssm.state_size", state)
	c.put("attention.layer_norm_rms_epsilon", c.realOr(1e-5, "layer_norm_epsilon", "rms_norm_eps"))
}

// padVocabulary returns a function that rounds the vocabulary up as the
// converter does, to a multiple of def unless the configuration says another.
//
// Source: conversion/mamba.py@v0.5.0, MambaModel.set_vocab.
func padVocabulary(def int64) func(c *converter) {
	return func(c *converter) {
		n, of := c.int("vocab_size"), c.intOr(def, "pad_vocab_size_multiple")
		if n > 0 && of > 0 && n < 1<<40 && of < 1<<40 {
			c.h["vocab_size"] = (n + of - 1) / of * of
		}
	}
}

// mamba2Prepare finds the widths that shape Mamba 2's tensors.
func mamba2Prepare(c *converter) {
	d := c.int("hidden_size", "d_model", "dim")
	expand := c.orDefault(2, "mamba_expand", "expand")
	inner := c.orDefault(expand*d, "mamba_d_ssm", "intermediate_size", "d_inner")
	groups := c.find("n_groups")
	c.scratch["inner"], c.scratch["groups"] = int(inner), int(max(groups, 1))
}

func mamba2Params(c *converter) {
	state := c.find("state_size", "d_state")
	if state == 0 {
		state = 128
	}
	inner := int64(c.scratch["inner"])
	head := c.orDefault(64, "mamba_d_head", "head_dim")
	c.mambaKeys(c.int("hidden_size", "d_model", "dim"), inner, state)
	c.put("ssm.time_step_rank", inner/head)
	c.put("ssm.group_count", c.scratch["groups"])
}

func mamba2Filter(c *converter, name string) string {
	if strings.HasPrefix(name, "model.backbone") || strings.HasPrefix(name, "model.lm_head") {
		name = strings.TrimPrefix(name, "model.")
	}
	return dtBias(c, name)
}

// mamba2Tensor shapes Mamba 2's vectors as ggml wants them.
func mamba2Tensor(c *converter, t tensor) []tensor {
	if strings.Contains(t.name, ".self_attn.") {
		return []tensor{t}
	}
	switch n, _ := elements(t.shape); {
	case strings.Contains(t.name, "conv1d"):
		t = t.squeezed()
	case strings.HasSuffix(t.name, ".A_log"), strings.HasSuffix(t.name, ".D"):
		t = t.with(t.name, n, 1)
	case strings.HasSuffix(t.name, "mixer.norm.weight"), strings.HasSuffix(t.name, "mamba.norm.weight"):
		if g := uint64(c.scratch["groups"]); g > 0 && n%g == 0 {
			t = t.with(t.name, g, n/g)
		}
	}
	return []tensor{t}
}

// graniteAttention returns the layers with attention.
func graniteAttention(c *converter) []int {
	var attn []int
	types := c.types("attention")
	offset, period := c.int("attn_layer_offset"), c.int("attn_layer_period")
	listed := c.h.List("attn_layer_indices")
	for i := range c.blocks {
		switch {
		case types != nil:
			if types[i] {
				attn = append(attn, i)
			}
		case listed != nil:
			if slices.Contains(listed, any(int64(i))) {
				attn = append(attn, i)
			}
		case period > 0 && int64(i)%period == offset:
			attn = append(attn, i)
		}
	}
	return attn
}

// hybridState keeps which layers attend and which have a feed-forward network,
// and the widths of Granite's and Nemotron's Mamba 2.
func hybridState(c *converter, attn, ffn []int) {
	for _, i := range attn {
		c.scratch["attn "+itoa(i)] = 1
	}
	for _, i := range ffn {
		c.scratch["ffn "+itoa(i)] = 1
	}
	c.scratch["attn"] = len(attn)
	c.scratch["groups"] = int(c.find("n_groups", "num_groups"))
	head := c.int("mamba_head_dim")
	if head == 0 {
		head = c.int("hidden_size", "d_model")
	}
	times := c.find("expand", "num_heads")
	if strings.HasPrefix(c.arch, "nemotron") {
		times = c.find("num_heads")
	}
	c.scratch["inner"] = int(times * head)
}

// hybridParams writes the keys of attention and Mamba 2 side by side.
func hybridParams(c *converter) {
	c.put("ssm.conv_kernel", c.find("conv_kernel", "d_conv"))
	c.put("ssm.state_size", c.find("state_size", "d_state", "state_dim", "ssm_state_size"))
	c.put("ssm.group_count", c.scratch["groups"])
	c.put("ssm.inner_size", c.scratch["inner"])
	c.put("ssm.time_step_rank", c.find("n_heads", "num_heads"))
	kv := c.int("num_key_value_heads", "n_head_kv")
	c.put("rope.dimension_count", c.h["attn_rotary_emb"])
	c.put("attention.head_count_kv", c.perBlock(func(i int) int64 { return kv * int64(c.scratch["attn "+itoa(i)]) }))
	rope := c.class == "BambaForCausalLM" || c.scratch["attn"] == c.layers
	c.put("rope.scaling.finetuned", rope)
	if !rope {
		c.put("context_length", 1<<20)
	}
}

// nemotronBlocks returns the kind of every layer.
func nemotronBlocks(c *converter) []string {
	if s := c.h.String("hybrid_override_pattern"); s != "" {
		return strings.Split(s[:min(len(s), maxBlocks+1)], "")
	}
	return c.h.Strings("layers_block_type")
}

func nemotronParams(c *converter) {
	llamaBase(c)
	hybridParams(c)
	head := c.h["weigh.head_dim"]
	c.put("attention.key_length", head)
	c.put("attention.value_length", head)
	perLayer := func(n int64) []int64 {
		return c.perBlock(func(i int) int64 { return n * int64(c.scratch["ffn "+itoa(i)]) })
	}
	if c.arch != "nemotron_h_moe" {
		c.put("feed_forward_length", perLayer(c.int("intermediate_size", "n_inner", "hidden_dim")))
		return
	}
	c.put("feed_forward_length", perLayer(c.int("moe_intermediate_size")))
	c.apply(`expert_used_count=num_experts_per_tok
		expert_feed_forward_length=moe_intermediate_size
		expert_shared_feed_forward_length=moe_shared_expert_intermediate_size
		expert_count=n_routed_experts
		expert_shared_count=n_shared_experts
		expert_weights_norm=norm_topk_prob
		expert_weights_scale=routed_scaling_factor
		expert_group_count=n_group
		moe_latent_size=moe_latent_size`)
	writeNext(c)
}

// nemotronNext names the tensors of the predicting layers as those of the block
// past the last.
func nemotronNext(c *converter, name string) string {
	if c.scratch["nextn"] == 0 {
		return ""
	}
	at := itoa(c.layers)
	if to := map[string]string{
		"mtp.layers.0.enorm.weight": "enorm.weight", "mtp.layers.0.hnorm.weight": "hnorm.weight", "mtp.layers.0.eh_proj.weight": "eh_proj.weight",
		"mtp.layers.1.norm.weight": "post_attention_layernorm.weight", "mtp.layers.1.final_layernorm.weight": "shared_head.norm.weight",
	}[name]; to != "" {
		return "model.layers." + at + "." + to
	}
	if f := strings.SplitN(name, ".", 4); len(f) == 4 {
		return "backbone.layers." + at + "." + f[3]
	}
	return name
}

// lfm2Prepare gives every layer its number of key-value heads.
func lfm2Prepare(c *converter) {
	kv := c.int("num_key_value_heads")
	heads := make([]any, c.blocks)
	for i, full := range lfm2Attention(c) {
		heads[i] = int64(0)
		if full {
			heads[i] = kv
		}
	}
	c.h["num_key_value_heads"] = heads
}

// lfm2Attention returns which layers attend.
func lfm2Attention(c *converter) []bool {
	attn := c.types("full_attention")
	if conv := c.types("conv"); c.arch == "lfm2" && conv != nil {
		for i := range conv {
			attn[i] = !conv[i]
		}
	}
	if attn != nil {
		return attn
	}
	attn = make([]bool, c.blocks)
	for i := range attn {
		attn[i] = slices.Contains(c.h.List("full_attn_idxs"), any(int64(i)))
	}
	return attn
}

// lfm2Width is the width of the feed-forward networks.
func lfm2Width(c *converter) int64 {
	ff := c.int("block_ff_dim", "intermediate_size")
	if auto, ok := c.h["block_auto_adjust_ff_dim"].(bool); auto || !ok {
		of := max(c.intOr(256, "block_multiple_of"), 1)
		ff = int64(float64(2*ff) / 3)
		if m, ok := c.h.Float("block_ffn_dim_multiplier"); ok {
			ff = int64(m * float64(ff))
		}
		ff = (ff + of - 1) / of * of
	}
	return ff
}

func lfm2Conv(_ *converter, t tensor) []tensor {
	if strings.Contains(t.name, "conv.conv") && len(t.shape) == 3 {
		t = t.with(t.name, t.dim(0), t.dim(2))
	}
	return []tensor{t}
}

const kimiDelta = moeNoNorm + `vocab_size=vocab_size
	attention.q_lora_rank=q_lora_rank|n_lora_q
	attention.kv_lora_rank=kv_lora_rank|n_lora_kv
	rope.dimension_count=qk_rope_head_dim|n_rot
	attention.value_length_mla=n_embd_head_v_mla|v_head_dim`

// kimiFull returns which layers have full attention; the configuration counts
// them from 1.
func kimiFull(c *converter) []bool {
	full := make([]bool, max(c.blocks, 1))
	for _, v := range c.h.Object("linear_attn_config").List("full_attn_layers") {
		if n, ok := hfconfig.AsInt(v); ok && n >= 1 && n <= int64(len(full)) {
			full[n-1] = true
		}
	}
	return full
}

func kimiParams(c *converter) {
	linear := c.h.Object("linear_attn_config")
	c.put("attention.head_count_kv", c.ifTrue(kimiFull(c), 1, 0))
	c.put("ssm.conv_kernel", linear["short_conv_kernel_size"])
	c.put("kda.head_dim", linear["head_dim"])
	rope := c.int("qk_rope_head_dim", "n_rot")
	c.put("attention.key_length", c.int("kv_lora_rank", "n_lora_kv")+rope)
	c.put("attention.key_length_mla", c.intOr(c.int("qk_nope_head_dim")+rope, "n_embd_head_k_mla"))
}

func kimiTensor(c *converter, t tensor) []tensor {
	if strings.HasSuffix(t.name, "kv_b_proj.weight") {
		// The converter sets the latent head's count before it splits.
		return splitKVB(c, t)
	}
	return kimiConv(t)
}

// kimiConv shapes the three convolutions of Kimi's delta attention.
func kimiConv(t tensor) []tensor {
	for _, end := range []string{".q_conv1d.weight", ".k_conv1d.weight", ".v_conv1d.weight"} {
		if strings.HasSuffix(t.name, end) && len(t.shape) >= 2 {
			t = t.with(t.name, 1, t.dim(0), 1, t.dim(-1))
		}
	}
	return []tensor{t}
}

// bailing3Full returns which blocks have full attention: the last of every
// group, those past the last whole group, and those that predict.
func bailing3Full(c *converter) []bool {
	full := make([]bool, c.blocks)
	group := max(int(c.int("layer_group_size")), 1)
	for i := range full {
		full[i] = i >= c.layers || (i+1)%group == 0 || i >= c.layers/group*group
	}
	return full
}

// rwkv writes the keys of every RWKV.
func rwkv(c *converter, ff int64) {
	blockCount(c)
	c.put("context_length", 1<<20)
	c.put("embedding_length", c.h["hidden_size"])
	c.put("feed_forward_length", ff)
	c.put("attention.head_count", 0)
}

// rwkv6Tensor turns and fuses the tensors of RWKV 6. The five interpolations of
// a layer become one.
func rwkv6Tensor(c *converter, t tensor) []tensor {
	name, _, suffix, ok := c.names.lookup(t.name, c.blocks)
	if !ok {
		return []tensor{t}
	}
	if suffix == "" {
		suffix = ".weight"
	}
	t.name = name + suffix
	switch {
	case strings.HasSuffix(name, "time_mix_w1"), strings.HasSuffix(name, "time_mix_decay_w1"), strings.HasSuffix(name, "time_mix_decay_w2"):
		t = t.swapped()
	case strings.HasSuffix(name, "time_mix_w2"):
		t = t.swapped()
	case strings.HasSuffix(name, "time_mix_decay"), strings.Contains(name, "lerp"):
		t = t.squeezed()
	}
	if strings.Contains(name, "time_mix_lerp") && !strings.Contains(name, "time_mix_lerp_x") {
		key := "lerp " + itoa(layerOf(t.name))
		if c.scratch[key]++; c.scratch[key] < 5 {
			return nil
		}
		return []tensor{t.with(block(t, "time_mix_lerp_fused"), 5, 1, 1, t.dim(-1))}
	}
	return []tensor{t}
}

func rwkv7Filter(c *converter, name string) string {
	name = strings.NewReplacer("blocks", "layers", "ffn", "feed_forward").Replace(name)
	name = strings.ReplaceAll(strings.ReplaceAll(name, "self_attn", "attention"), "attn", "attention")
	name = strings.ReplaceAll(name, "attentionention", "attention")
	if strings.Contains(name, "_lora.lora") {
		c.scratch["turned"] = 1 // matrices are stored as linear layers already
	}
	name = strings.NewReplacer("time_mixer.", "", "feed_forward_norm", "ln2", "g_norm", "ln_x").Replace(name)
	return strings.NewReplacer("_lora.lora.0.weight", "1.weight", "_lora.lora.2.weight", "2.weight", "_lora.lora.2.bias", "0.weight").Replace(name)
}

// rwkv7Tensor turns and fuses the tensors of RWKV 7.
func rwkv7Tensor(c *converter, t tensor) []tensor {
	lerps := 6
	if gate, ok := c.h["wkv_has_gate"].(bool); ok && !gate {
		lerps = 5
	}
	il := layerOf(t.name)
	if strings.Contains(t.name, "attention.x_x") {
		return []tensor{t.with(block(t, "time_mix_lerp_fused"), uint64(lerps), 1, 1, t.dim(-1))}
	}
	if strings.Contains(t.name, "attention.x_") {
		key := "lerp " + itoa(il)
		if c.scratch[key]++; c.scratch[key] < lerps {
			return nil
		}
		return []tensor{t.with(block(t, "time_mix_lerp_fused"), append([]uint64{uint64(lerps)}, t.shape...)...)}
	}
	name, _, suffix, ok := c.names.lookup(t.name, c.blocks)
	if !ok {
		return []tensor{t}
	}
	if strings.Contains(t.name, "attention.v") && !strings.Contains(name, "value") && il == 0 {
		return nil // the first layer has no value residual; its tensor is written twice below
	}
	if suffix == "" {
		suffix = ".weight"
	}
	t = t.squeezed().with(name + suffix)
	if strings.Contains(name, "r_k") {
		n, _ := elements(t.shape)
		t = t.with(t.name, n)
	}
	if c.scratch["turned"] == 0 {
		for _, end := range []string{"w1", "w2", "a1", "a2", "v1", "v2", "g1", "g2"} {
			if strings.HasSuffix(name, "time_mix_"+end) {
				t = t.swapped()
			}
		}
	}
	if il == 0 && strings.Contains(name, "time_mix_a") {
		return []tensor{t.rename("time_mix_a", "time_mix_v"), t}
	}
	return []tensor{t}
}

func itoa(n int) string { return strconv.Itoa(n) }
