package hf

import (
	"strconv"
	"strings"

	"weigh/formats/hfconfig"
)

const qwenMoE = `expert_feed_forward_length=moe_intermediate_size
	expert_shared_feed_forward_length=shared_expert_intermediate_size`

var qwenRows = []row{
	{hf: []string{"QWenLMHeadModel"}, arch: "qwen"},
	{
		hf:   []string{"Qwen2ForCausalLM", "Qwen2Model", "Qwen2AudioForConditionalGeneration", "KORMoForCausalLM", "AudioFlamingo3ForConditionalGeneration", "DotsOCRForCausalLM"},
		arch: "qwen2", filter: qwenBare("Qwen2Model"), params: pool,
	},
	{hf: []string{"Qwen3ForCausalLM", "Qwen3Model", "StepVLForConditionalGeneration"}, arch: "qwen3", filter: qwenBare("Qwen2Model"), params: pool},
	{hf: []string{"Qwen2VLModel", "Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration", "Qwen2_5OmniModel"}, arch: "qwen2vl", filter: rename("thinker.", "")},
	{hf: []string{"Qwen3VLForConditionalGeneration"}, arch: "qwen3vl", filter: rename("thinker.", ""), params: deepstack},
	{hf: []string{"Qwen3ASRForConditionalGeneration"}, arch: "qwen3vl", filter: rename("thinker.", ""), set: "n_deepstack_layers==0"},
	{hf: []string{"Qwen2MoeForCausalLM"}, arch: "qwen2moe", set: qwenMoE, modify: fusedExperts},
	{hf: []string{"Qwen3MoeForCausalLM"}, arch: "qwen3moe", set: qwenMoE, modify: fusedExperts},
	{hf: []string{"Qwen3VLMoeForConditionalGeneration"}, arch: "qwen3vlmoe", set: qwenMoE, filter: rename("thinker.", ""), params: deepstack, modify: turnedExperts},
	{hf: []string{"Qwen3OmniMoeForConditionalGeneration"}, arch: "qwen3vlmoe", set: qwenMoE + "\nn_deepstack_layers==0", filter: rename("thinker.", ""), modify: turnedExperts},
	{hf: []string{"RND1"}, arch: "rnd1", set: qwenMoE + "\nattention.causal==false\ntokenizer.ggml.mask_token_id=mask_token_id", modify: fusedExperts},
	{
		hf: []string{"Dots1ForCausalLM"}, arch: "dots1", set: qwenMoE + "\n" + moe, modify: fusedExperts,
		prepare: func(c *converter) { c.h["num_experts"] = c.h["n_routed_experts"] },
	},
	{hf: []string{"Qwen3NextForCausalLM"}, arch: "qwen3next", prepare: qwenNext, set: qwenMoE, params: deltaNet, filter: qwenNextFilter, modify: deltaNetTensor},
	{hf: []string{"Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM"}, arch: "qwen35", prepare: qwenNext, set: qwenMoE, params: all(deltaNet, mropeDefault), filter: qwenNextFilter, modify: deltaNetTensor},
	{hf: []string{"Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM"}, arch: "qwen35moe", prepare: qwenNext, set: qwenMoE, params: all(deltaNet, mropeDefault), filter: qwenNextFilter, modify: deltaNetTensor},
	{
		hf: []string{"MiniCPMV4_6ForConditionalGeneration"}, arch: "qwen35", prepare: qwenNext, set: qwenMoE, params: all(deltaNet, mropeDefault), modify: deltaNetTensor,
		filter: func(_ *converter, name string) string {
			if strings.HasPrefix(name, "model.merger.") || strings.HasPrefix(name, "mtp") {
				return ""
			}
			return name
		},
	},
	{
		hf: []string{"Qwen4ExpForConditionalGeneration", "Qwen4ExpForCausalLM"}, arch: "qwen4exp",
		set: qwenMoE + `
			hyper_connection.count=hc_count
			hyper_connection.low_rank=hc_lowrank
			attention.indexer.head_count=indexer_n_heads
			attention.indexer.key_length=indexer_head_dim
			attention.indexer.top_k=indexer_budget`,
		params: all(deltaNet, mropeDefault, func(c *converter) {
			c.put("attention.compress_ratios", c.ifTrue(c.types("full_attention"), c.int("indexer_compress_ratio"), 0))
			var layers []int64
			for _, v := range c.h.List("ple_layer_ids") {
				n, _ := hfconfig.AsInt(v)
				layers = append(layers, n-1)
			}
			if layers == nil {
				return
			}
			c.put("ple.layers", layers)
			c.apply(`ple.ngram_size=ngram_size
				ple.heads_per_ngram=heads_per_ngram
				ple.conv_kernel=ple_conv_kernel_size
				ple.image_token_id=image_token_id
				ple.eos_token_id=eos_token_id`)
			if list := c.h.List("eos_token_id"); len(list) > 0 {
				c.put("ple.eos_token_id", list[len(list)-1])
			}
			if n := c.scratch["ple row"]; n > 0 {
				c.put("embedding_length_per_layer_input", n)
			}
		}),
		filter: qwenNextDrop,
		modify: func(c *converter, t tensor) []tensor {
			switch {
			case strings.Contains(t.name, "ple_embedding.") && !strings.Contains(t.name, ".shard_"):
				return nil // constants of the hash, written as metadata
			case strings.Contains(t.name, ".ngram_embedding.shard_"):
				// The shards are one table; the first stands for all.
				c.scratch["ple row"] = int(t.dim(-1))
				c.scratch["ple rows"] += int(t.dim(0))
				c.scratch["ple shards"]++
				if int64(c.scratch["ple shards"]) < c.int("split_ngram_parts") {
					return nil
				}
				return []tensor{t.with("per_layer_token_embd.weight", uint64(c.scratch["ple rows"]), t.dim(-1))}
			case strings.Contains(t.name, ".indexer.index_qk_proj.weight"):
				n := c.int("indexer_n_heads") * c.int("indexer_head_dim")
				return parts(t, []string{block(t, "indexer.q_proj"), block(t, "indexer.k_proj")}, n)
			}
			return deltaNetTensor(c, t)
		},
	},
	{
		// Drafts in Qwen's shape that attend to the target's hidden states.
		hf: []string{"DFlashDraftModel", "DFlash2DraftModel", "Qwen3DSparkModel", "DSparkDraftModel", "DSparkSpeculator", "Lfm2DSparkDraftModel", "LingDSparkModel"}, arch: "dflash",
		params: func(c *converter) {
			d := c.h.Object("dflash_config")
			both := d.Merge(nil)
			for _, k := range []string{"block_size", "output_multiplier", "final_logit_softcapping", "input_embedding_scale", "target_layer_ids"} {
				if both[k] == nil {
					both[k] = c.h[k]
				}
			}
			c.put("block_size", 16)
			c.put("block_size", both["block_size"])
			c.put("conv_kernel_size", d["conv_kernel_size"])
			c.put("conv_group_size", d["conv_group_size"])
			c.put("selector_rank", d["selector_rank"])
			c.put("selector_top_k", d["selector_top_k"])
			c.put("logit_scale", both["output_multiplier"])
			c.put("final_logit_softcapping", both["final_logit_softcapping"])
			c.put("embedding_scale", both["input_embedding_scale"])
			var target []int64
			for _, v := range both.List("target_layer_ids") {
				n, _ := hfconfig.AsInt(v)
				target = append(target, n+1)
			}
			c.put("target_layers", target)
			if !strings.HasPrefix(c.class, "DFlash") {
				_, outer := c.h["transformer_layer_config"]
				_, aux := c.h["aux_hidden_state_layer_ids"]
				c.put("sample_from_anchor", !outer && !aux)
				c.put("sample_from_anchor", c.h["sample_from_anchor"])
				confident := false
				for name := range c.weights {
					confident = confident || strings.Contains(name, "confidence_head.proj")
				}
				c.put("has_confidence_head", confident)
			}
			w := d.Find("swa_window_size")
			if w == nil {
				w = c.h["sliding_window"]
			}
			if w != nil && (c.h.Bool("use_sliding_window") || d.Bool("use_swa")) {
				swa := c.types("sliding_attention")
				if d.Bool("use_swa") {
					swa = make([]bool, c.blocks)
					for i := range swa {
						swa[i] = true
					}
				}
				c.put("attention.sliding_window", w)
				c.put("attention.sliding_window_pattern", swa)
			}
			if causal, ok := d["causal"].(bool); ok {
				c.put("attention.causal", causal)
			}
		},
		filter: func(_ *converter, name string) string {
			if name == "t2d" || name == "d2t" {
				return ""
			}
			if !strings.HasPrefix(name, "model.") {
				name = "model." + name
			}
			if strings.Contains(name, "sink") && !strings.HasSuffix(name, ".weight") || strings.HasSuffix(name, "_codebook") {
				name += ".weight"
			}
			return name
		},
	},
	{
		hf: []string{"MuseGlimmerAssistantModel"}, arch: "dflash", set: "block_size=block_size",
		params: func(c *converter) {
			var target []int64
			for _, v := range c.h.List("target_layer_ids") {
				n, _ := hfconfig.AsInt(v)
				target = append(target, n+1)
			}
			c.put("target_layers", target)
			if c.h.Has("sliding_window") && c.h.Has("layer_types") {
				window(c)
			}
		},
	},
}

// qwenBare returns a filter for folders that hold the model without its head,
// whose tensors have no "model." in front.
func qwenBare(class string) func(*converter, string) string {
	return func(c *converter, name string) string {
		if c.class == class {
			return "model." + name
		}
		return name
	}
}

func deepstack(c *converter) {
	c.put("n_deepstack_layers", len(c.h.Object("vision_config").List("deepstack_visual_indexes")))
}

// turnedExperts splits fused experts that are stored input dimension first.
func turnedExperts(_ *converter, t tensor) []tensor {
	name := strings.TrimSuffix(t.name, ".weight")
	if base, ok := strings.CutSuffix(name, "mlp.experts.gate_up_proj"); ok {
		return halves(t.swapped(), -2, base+"mlp.experts.gate_proj.weight", base+"mlp.experts.up_proj.weight")
	}
	if strings.HasSuffix(name, "mlp.experts.down_proj") {
		return []tensor{t.swapped().with(name + ".weight")}
	}
	return []tensor{t}
}

// qwenNext adds the layers that predict further tokens.
func qwenNext(c *converter) {
	n := max(c.int("mtp_num_hidden_layers"), 0)
	if n == 0 {
		for name := range c.weights {
			if rest, ok := strings.CutPrefix(strings.TrimPrefix(name, "model."), "mtp.layers."); ok {
				n = max(n, int64(layerOf(rest))+1)
			}
		}
	}
	c.blocks += int(n)
	c.scratch["nextn"] = int(n)
}

// qwenNextFilter names the tensors of the predicting layers as those of blocks.
func qwenNextFilter(c *converter, name string) string {
	rest, ok := strings.CutPrefix(strings.TrimPrefix(name, "model."), "mtp.")
	if !ok {
		return name
	}
	if rest, ok := strings.CutPrefix(rest, "layers."); ok {
		num, rest, _ := strings.Cut(rest, ".")
		if n, err := strconv.Atoi(num); err == nil {
			return "model.layers." + strconv.Itoa(c.layers+n) + "." + rest
		}
		return name
	}
	part, end, _ := strings.Cut(rest, ".")
	if to := map[string]string{"fc": "eh_proj", "pre_fc_norm_embedding": "enorm", "pre_fc_norm_hidden": "hnorm", "norm": "shared_head.norm"}[part]; to != "" {
		return "model.layers." + strconv.Itoa(c.layers) + "." + to + "." + end
	}
	return name
}

// qwenNextDrop leaves the predicting layers out.
func qwenNextDrop(_ *converter, name string) string {
	if strings.HasPrefix(strings.TrimPrefix(name, "model."), "mtp.") {
		return ""
	}
	return name
}

// deltaNet writes the keys of Qwen's gated delta network.
func deltaNet(c *converter) {
	writeNext(c)
	c.apply(`ssm.conv_kernel=linear_conv_kernel_dim
		ssm.state_size=linear_key_head_dim
		ssm.group_count=linear_num_key_heads
		ssm.time_step_rank=linear_num_value_heads
		full_attention_interval==4
		full_attention_interval=full_attention_interval`)
	c.put("ssm.inner_size", c.int("linear_value_head_dim")*c.int("linear_num_value_heads"))
	c.put("attention.recurrent_layers", c.types("linear_attention"))
	rotatePart(0.25)(c)
}

// mropeDefault is the split of the rotary dimensions that Qwen 3.5 has when its
// configuration does not say one.
func mropeDefault(c *converter) {
	if c.rope["mrope_section"] == nil {
		c.put("rope.dimension_sections", []int64{11, 11, 10, 0})
	}
}

// deltaNetTensor splits and names the tensors of a gated delta network.
func deltaNetTensor(c *converter, t tensor) []tensor {
	switch {
	case strings.HasSuffix(t.name, ".dt_bias"):
		t.name = strings.TrimSuffix(t.name, ".dt_bias") + ".dt_proj.bias"
	case strings.Contains(t.name, "conv1d"):
		t = t.squeezed()
	case strings.Contains(t.name, "in_proj_qkvz.weight"):
		k := c.int("linear_key_head_dim") * c.int("linear_num_key_heads")
		v := c.int("linear_value_head_dim") * c.int("linear_num_value_heads")
		return parts(t, []string{block(t, "attn_qkv"), block(t, "attn_gate")}, 2*k+v)
	}
	return fusedExperts(c, t)
}
