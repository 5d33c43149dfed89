package hf

import (
	"math"
	"strings"

	"weigh/formats/hfconfig"
)

// otherRows are the remaining decoders.
var otherRows = []row{
	{
		hf: []string{"CohereForCausalLM"}, arch: "command-r", set: "logit_scale=logit_scale\nrope.scaling.type==none",
		prepare: func(c *converter) {
			c.h["max_position_embeddings"] = c.h.Find("model_max_length", "max_position_embeddings")
		},
	},
	{
		hf: []string{"Cohere2ForCausalLM"}, arch: "cohere2", set: "logit_scale=logit_scale\nattention.sliding_window=sliding_window\nvocab_size=vocab_size\nrope.scaling.type==none", filter: noBias,
		params: func(c *converter) {
			part := c.floatOr(1, c.h, "rotary_pct")
			c.put("rope.dimension_count", int64(part*float64(div(c.int("hidden_size"), c.int("num_attention_heads")))))
		},
	},
	{hf: []string{"OLMoForCausalLM", "OlmoForCausalLM"}, arch: "olmo", set: "attention.layer_norm_epsilon==1e-05\nattention.clamp_kqv=clip_qkv"},
	{
		hf: []string{"Olmo2ForCausalLM", "Olmo3ForCausalLM"}, arch: "olmo2",
		params: func(c *converter) {
			if !c.h.Has("sliding_window") {
				return
			}
			window(c)
			if !c.h.Has("layer_types") {
				c.put("attention.sliding_window_pattern", everyNth(c.blocks, 4))
			}
		},
	},
	{hf: []string{"SeedOssForCausalLM"}, arch: "seed_oss"},
	{hf: []string{"MaincoderForCausalLM"}, arch: "maincoder", set: "rope.dimension_count=head_dim"},
	{
		hf: []string{"ExaoneForCausalLM"}, arch: "exaone", extra: llama3Rope,
		params: func(c *converter) {
			c.put("rope.dimension_count", c.partial(div(c.int("hidden_size"), c.int("num_attention_heads")), 1))
		},
	},
	{
		hf: []string{"Exaone4ForCausalLM", "Exaone4_5_ForConditionalGeneration"}, arch: "exaone4", extra: llama3Rope, set: "vocab_size=vocab_size",
		prepare: func(c *converter) {
			if c.class == "Exaone4_5_ForConditionalGeneration" {
				nextPredicting(c)
			}
		},
		params: all(exaone4, writeNext), filter: exaoneNext,
	},
	{hf: []string{"Glm4ForCausalLM", "Glm4vForConditionalGeneration"}, arch: "glm4", params: rotatePart(0.5)},
	{hf: []string{"GlmOcrForConditionalGeneration"}, arch: "glm4", prepare: nextPredicting, params: all(rotatePart(0.5), writeNext)},
	{
		hf: []string{"NemotronForCausalLM"}, arch: "nemotron", set: "vocab_size=vocab_size\nattention.layer_norm_epsilon=layer_norm_eps|layer_norm_epsilon|norm_epsilon|norm_eps",
		params: func(c *converter) {
			c.put("rope.dimension_count", div(c.partial(c.int("hidden_size", "n_embd"), 1), c.int("num_attention_heads", "n_head")))
			factor := c.h["factor"]
			if factor == nil {
				factor = c.rope["factor"]
			}
			c.put("rope.scaling.type", "none")
			if factor != nil {
				c.put("rope.scaling.type", "linear")
				c.put("rope.scaling.factor", factor)
			}
		},
	},
	{hf: []string{"Ernie4_5_ForCausalLM", "Ernie4_5ForCausalLM"}, arch: "ernie4_5", filter: rename("ernie.", "model."), modify: ernieSplit},
	{hf: []string{"PaddleOCRVLForConditionalGeneration"}, arch: "paddleocr", filter: rename("ernie.", "model."), modify: ernieSplit},
	{
		hf: []string{"HunYuanDenseV1ForCausalLM", "HunYuanVLForConditionalGeneration"}, arch: "hunyuan-dense", filter: noTiedHead,
		prepare: func(c *converter) {
			delete(c.h, "num_experts")
			if c.class == "HunYuanVLForConditionalGeneration" {
				c.arch = "hunyuan_vl"
				if c.rope.String("rope_type") == "dynamic" && c.rope["mrope_section"] != nil {
					c.rope["rope_type"] = "xdrope"
				}
			}
		},
		params: func(c *converter) {
			hunyuanRope(c, 50, c.int("head_dim"), "dynamic", "xdrope")
			if c.arch != "hunyuan_vl" || c.rope.String("rope_type") != "xdrope" {
				return
			}
			c.put("rope.freq_base", c.rope["rope_theta"])
			c.put("rope.scaling.alpha", c.rope["alpha"])
			c.put("rope.scaling.factor", c.floatOr(1, c.rope, "factor"))
			c.put("rope.scaling.original_context_length", c.h["max_position_embeddings"])
			c.put("context_length", c.h["max_position_embeddings"])
			c.put("rope.dimension_sections", c.rope["mrope_section"])
		},
	},
	{
		hf: []string{"MiniCPMForCausalLM"}, arch: "minicpm", set: "embedding_scale=scale_emb", extra: longRope,
		params: func(c *converter) {
			depth, _ := c.h.Float("scale_depth")
			c.put("residual_scale", depth/math.Sqrt(float64(max(c.layers, 1))))
			c.put("logit_scale", float64(c.int("hidden_size"))/float64(max(c.int("dim_model_base"), 1)))
		},
	},
	{
		hf: []string{"MiniCPM3ForCausalLM"}, arch: "minicpm3", own: true, extra: longRope,
		set: `context_length=max_position_embeddings
			embedding_length=hidden_size
			feed_forward_length=intermediate_size
			attention.head_count=num_attention_heads
			attention.head_count_kv=num_key_value_heads
			attention.layer_norm_rms_epsilon=rms_norm_eps
			vocab_size=vocab_size
			attention.q_lora_rank=q_lora_rank
			attention.kv_lora_rank=kv_lora_rank
			rope.dimension_count=qk_rope_head_dim`,
		params: func(c *converter) {
			blockCount(c)
			c.put("attention.key_length", c.int("qk_nope_head_dim")+c.int("qk_rope_head_dim"))
		},
	},
	{
		hf: []string{"PLMForCausalLM"}, arch: "plm", set: "vocab_size=vocab_size\nattention.kv_lora_rank=kv_lora_rank\nattention.value_length=v_head_dim\nrope.dimension_count=qk_rope_head_dim",
		params: func(c *converter) {
			c.put("attention.key_length", c.int("qk_nope_head_dim")+c.int("qk_rope_head_dim"))
		},
	},
	{
		hf: []string{"PanguEmbeddedForCausalLM"}, arch: "pangu-embedded", set: "vocab_size=vocab_size", filter: noTiedHead,
		params: all(rotateHead, func(c *converter) {
			c.put("attention.key_length", c.headDim())
			c.put("attention.value_length", c.headDim())
		}),
	},
	{
		hf: []string{"Plamo3ForCausalLM", "PLaMo3ForCausalLM"}, arch: "plamo3", set: "vocab_size=vocab_size",
		params: func(c *converter) {
			if w := c.h.Find("window_size", "sliding_window"); w != nil {
				c.put("attention.sliding_window", w)
				c.put("attention.sliding_window_pattern", c.h["sliding_window_pattern"])
			}
		},
	},
	{hf: []string{"BitnetForCausalLM", "BitNetForCausalLM"}, arch: "bitnet", set: "rope.scaling.type==linear\nrope.scaling.factor==1"},
	{hf: []string{"ChameleonForCausalLM", "ChameleonForConditionalGeneration"}, arch: "chameleon", set: "swin_norm==false\nswin_norm=swin_norm", filter: without("model.vqmodel")},
	{hf: []string{"DreamModel"}, arch: "dream", params: pool, set: "attention.causal==false\ntokenizer.ggml.mask_token_id=mask_token_id"},
	{
		hf: []string{"LLaDAModelLM"}, arch: "llada", set: "vocab_size=vocab_size\nattention.causal==false\ndiffusion.shift_logits==false",
		params: func(c *converter) {
			rotateHead(c)
			pool(c)
			c.put("context_length", c.intOr(4096, "max_sequence_length"))
			c.put("embedding_length", c.intOr(4096, "d_model"))
			c.put("feed_forward_length", c.intOr(12288, "mlp_hidden_size"))
		},
	},
	{
		hf: []string{"DeciLMForCausalLM"}, arch: "deci", extra: llama3Rope, set: "vocab_size=vocab_size",
		own: true,
		params: func(c *converter) {
			rotateHead(c)
			if !c.h.Has("block_configs") {
				c.base()
				c.put("attention.head_count_kv", c.h["num_key_value_heads_per_layer"])
				return
			}
			blockCount(c)
			c.put("rope.freq_base", c.rope["rope_theta"])
			c.apply("context_length=max_position_embeddings\nembedding_length=hidden_size\nattention.layer_norm_rms_epsilon=rms_norm_eps")
			heads := c.int("num_attention_heads")
			head := div(c.int("hidden_size"), heads)
			c.put("attention.key_length", head)
			c.put("attention.value_length", head)
			at := func(i int, part string) hfconfig.Object {
				if list := c.h.List("block_configs"); i < len(list) {
					b, _ := list[i].(hfconfig.Object)
					return b.Object(part)
				}
				return nil
			}
			c.put("attention.head_count", c.perBlock(func(i int) int64 {
				if a := at(i, "attention"); a["n_heads_in_group"] == nil && !a.Bool("replace_with_linear") {
					return 0
				}
				return heads
			}))
			c.put("attention.head_count_kv", c.perBlock(func(i int) int64 {
				n, _ := at(i, "attention").Int("n_heads_in_group")
				return div(heads, n)
			}))
			c.put("feed_forward_length", c.perBlock(func(i int) int64 {
				f, _ := at(i, "ffn").Float("ffn_mult")
				return (int64(2*f*float64(c.int("hidden_size"))/3) + 255) / 256 * 256
			}))
		},
	},
	{
		hf: []string{"HrmTextForCausalLM"}, arch: "hrm_text",
		prepare: func(c *converter) {
			n := c.intOr(int64(c.layers), "num_layers_per_stack")
			c.scratch["stack"] = int(n)
			c.blocks = int(min(max(n*c.int("H_cycles")*(c.int("L_cycles")+1), 2*n), maxBlocks))
		},
		set: "embedding_scale=embedding_scale\nhrm.h_cycles=H_cycles\nhrm.l_cycles=L_cycles\nhrm.prefix_lm==false\nhrm.prefix_lm=prefix_lm",
		params: all(rotateHead, func(c *converter) {
			c.put("block_count", int64(c.scratch["stack"])*c.int("H_cycles")*(c.int("L_cycles")+1))
			c.put("hrm.layers_per_stack", c.scratch["stack"])
		}),
		modify: func(c *converter, t tensor) []tensor {
			if t.name == "model.z_L_init" {
				return []tensor{t.with("hrm_z_L_init")}
			}
			for prefix, first := range map[string]int{"model.L_module.layers.": 0, "model.H_module.layers.": c.scratch["stack"]} {
				rest, ok := strings.CutPrefix(t.name, prefix)
				if !ok {
					continue
				}
				num, rest, _ := strings.Cut(rest, ".")
				if strings.HasPrefix(rest, "attn.") {
					rest = "self_" + rest
				}
				t.name = "model.layers." + itoa(first+layerOf(num)) + "." + rest
			}
			switch n := int64(t.dim(0)); {
			case strings.HasSuffix(t.name, "self_attn.gqkv_proj.weight"):
				return parts(t, []string{block(t, "attn_gate"), block(t, "attn_q"), block(t, "attn_k"), block(t, "attn_v")}, n/4, n/4, n/4)
			case strings.HasSuffix(t.name, "mlp.gate_up_proj.weight"):
				return halves(t, 0, block(t, "ffn_gate"), block(t, "ffn_up"))
			}
			return []tensor{t}
		},
	},
	{
		hf: []string{"MuseGlimmerForConditionalGeneration"}, arch: "muse-glimmer", set: "final_logit_softcapping=final_logit_softcapping\nlogit_scale=output_multiplier", params: window,
		modify: func(c *converter, t tensor) []tensor {
			if !strings.HasSuffix(t.name, ".self_attn.q_proj.weight") {
				return []tensor{t}
			}
			// Queries and keys are scaled by norms that the folder does not hold.
			head := uint64(c.int("head_dim"))
			return []tensor{{name: block(t, "attn_q_norm"), shape: []uint64{head}}, {name: block(t, "attn_k_norm"), shape: []uint64{head}}, t}
		},
	},
	{
		hf: []string{"Spark2_5ForCausalLM"}, arch: "spark2_5", set: "vocab_size=vocab_size", params: all(window, rotateKinds),
		modify: func(_ *converter, t tensor) []tensor {
			if strings.HasSuffix(t.name, ".self_attn.q_k_v_proj.weight") {
				t.name = block(t, "attn_qkv")
			}
			return []tensor{t}
		},
	},
	{
		hf: []string{"TalkieForCausalLM"}, arch: "talkie", set: "attention.layer_norm_rms_epsilon==1.1920928955078125e-07",
		filter: without("lm_head_gain.w_g"),
		modify: func(_ *converter, t tensor) []tensor {
			switch {
			case strings.HasSuffix(t.name, ".attn_gain.a_g"):
				return []tensor{t.with("blk." + itoa(layerOf(t.name)) + ".attn_output.scale")}
			case strings.HasSuffix(t.name, ".mlp_gain.a_g"):
				return []tensor{t.with("blk." + itoa(layerOf(t.name)) + ".ffn_down.scale")}
			case strings.HasSuffix(t.name, "attn.head_gain.head_g"):
				t = t.with(t.name, append(t.shape[:len(t.shape):len(t.shape)], 1)...)
			}
			if !strings.HasSuffix(t.name, ".weight") {
				t.name += ".weight"
			}
			return []tensor{t}
		},
	},
	{
		// Adapters that a token switches on are stored beside every matrix.
		hf: []string{"GraniteSwitchForCausalLM"}, arch: "graniteswitch", set: graniteScales + graniteShared + `
			adapters.count=num_adapters
			adapters.lora_rank=max_lora_rank
			adapters.token_ids_activate=adapter_token_ids
			adapters.token_ids_substitute=adapter_substitute_token_ids
			adapters.router_gain==15
			adapters.router_gain=control_token_gain`,
		prepare: func(c *converter) { noHeadDim(c); c.blocks-- },
		params: all(llamaBase, func(c *converter) {
			if c.int("num_local_experts") == 0 {
				c.put("expert_used_count", 0)
			}
		}),
		filter: func(_ *converter, name string) string {
			if strings.HasPrefix(name, "model.switch.") || strings.HasPrefix(name, "switch.") || strings.HasSuffix(name, "adapter_token_ids") || strings.HasSuffix(name, "control_to_substitute_lut") {
				return ""
			}
			return noHead(nil, name)
		},
		modify: graniteSwitch,
	},
}

// graniteSwitch names the matrices of Granite Switch and stacks the adapters
// with one of zeros, for tokens that switch none on.
func graniteSwitch(_ *converter, t tensor) []tensor {
	for part, names := range map[string][]string{
		"self_attn.qkv_proj": {"attn_q", "attn_k", "attn_v"}, "self_attn.o_proj": {"attn_output"},
		"shared_mlp.input_linear": {"ffn_gate", "ffn_up"}, "shared_mlp.output_linear": {"ffn_down"},
	} {
		_, rest, ok := strings.Cut(t.name, part)
		if !ok {
			continue
		}
		i := max(layerOf(rest), 0) % len(names)
		blk := "blk." + itoa(layerOf(t.name)) + "." + names[i]
		lora := t.squeezed()
		lora = lora.resized(0, lora.dim(0)+1)
		switch {
		case strings.Contains(rest, "lora_A"):
			return []tensor{lora.with(blk + ".lora_a")}
		case strings.Contains(rest, "lora_B"):
			return []tensor{lora.with(blk + ".lora_b")}
		case part == "self_attn.qkv_proj":
			return []tensor{t.with(block(t, "attn_qkv"))}
		case part == "shared_mlp.input_linear":
			return halves(t, 0, block(t, "ffn_gate"), block(t, "ffn_up"))
		}
		return []tensor{t.with(block(t, names[0]))}
	}
	return []tensor{t}
}

// exaone4 writes EXAONE 4's sliding layers, which its configuration says as a
// list, as a word such as "LLLG", or as a number.
func exaone4(c *converter) {
	if !c.h.Has("sliding_window") {
		return
	}
	c.put("attention.sliding_window", c.h["sliding_window"])
	swa := c.types("sliding_attention")
	if swa != nil {
		swa = swa[:min(len(swa), len(c.h.List("layer_types")))]
	} else if word := c.h.String("sliding_window_pattern"); word != "" {
		swa = make([]bool, c.layers)
		for i := range swa {
			swa[i] = word[i%len(word)] == 'L'
		}
	} else if n := c.int("sliding_window_pattern"); n > 0 {
		swa = everyNth(c.layers, n)
	}
	c.put("attention.sliding_window_pattern", swa)
}

// everyNth is true but for every n-th layer.
func everyNth(layers int, n int64) []bool {
	is := make([]bool, layers)
	for i := range is {
		is[i] = int64(i+1)%n != 0
	}
	return is
}

// exaoneNext names the tensors of the predicting layers as those of blocks.
func exaoneNext(c *converter, name string) string {
	if strings.HasPrefix(name, "mtp.") && c.scratch["nextn"] == 0 {
		return ""
	}
	return qwenNextFilter(c, name)
}

// ernieSplit splits Ernie's fused projections.
func ernieSplit(c *converter, t tensor) []tensor {
	if base, ok := strings.CutSuffix(t.name, "qkv_proj.weight"); ok {
		head := c.headDim()
		q, kv := c.int("num_attention_heads")*head, c.int("num_key_value_heads")*head
		return parts(t, []string{base + "q_proj.weight", base + "k_proj.weight", base + "v_proj.weight"}, q, kv, kv)
	}
	if base, ok := strings.CutSuffix(t.name, "up_gate_proj.weight"); ok {
		return halves(t, 0, base+"gate_proj.weight", base+"up_proj.weight")
	}
	return []tensor{t}
}

// hunyuanRope writes the base frequency that HunYuan's dynamic scaling comes
// to, and the context that it is for.
func hunyuanRope(c *converter, alpha float64, dim int64, types ...string) {
	typ := c.rope.String("rope_type")
	if !contains(types, typ) || dim <= 2 {
		return
	}
	base := c.floatOr(10000, c.rope, "rope_theta")
	a := c.floatOr(alpha, c.rope, "alpha")
	c.put("rope.freq_base", base*math.Pow(a, float64(dim)/float64(dim-2)))
	c.put("rope.scaling.type", "none")
	c.put("rope.scaling.factor", 1)
	if typ == "dynamic" {
		c.put("rope.scaling.original_context_length", 256<<10)
		c.put("context_length", 256<<10)
	}
}

// rotateKinds writes what part of a head is rotated in each kind of layer.
func rotateKinds(c *converter) {
	head := float64(c.int("head_dim"))
	c.put("rope.dimension_count", int64(head*c.floatOr(1, c.fullRope(), "partial_rotary_factor")))
	if swa := c.rope.Object("sliding_attention"); swa != nil {
		c.put("rope.dimension_count_swa", int64(head*c.floatOr(1, swa, "partial_rotary_factor")))
	}
}

// noBias leaves biases out; the converter requires them to be zero.
func noBias(_ *converter, name string) string {
	if strings.HasSuffix(name, ".bias") {
		return ""
	}
	return name
}
