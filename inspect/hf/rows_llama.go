package hf

import (
	"strings"

	"weigh/formats/hfconfig"
)

// llamaBase is what the classes derived from Llama's write.
var llamaBase = all(keys("vocab_size=vocab_size"), rotateHead)

var llamaRows = []row{
	{
		hf: []string{
			"LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "VLlama3ForCausalLM", "LlavaForConditionalGeneration", "VoxtralForConditionalGeneration",
			"IQuestCoderForCausalLM", "LlamaModel", "LlamaForCausalLMEagle3", "Eagle3LlamaForCausalLM", "Eagle3Speculator", "Eagle3DraftModel",
		},
		arch: "llama", prepare: eagle3, params: llamaBase, extra: llama3Rope,
		filter: func(c *converter, name string) string {
			name = strings.ReplaceAll(name, "text_model.", "")
			if c.class == "LlamaModel" {
				name = "model." + name
			}
			if c.arch != "eagle3" {
				return name
			}
			if name == "t2d" {
				return ""
			}
			if strings.HasPrefix(name, "layers.0.") {
				return "model." + name
			}
			if rest, ok := strings.CutPrefix(name, "midlayer."); ok {
				return "model.layers.0." + rest
			}
			return name
		},
		modify: func(c *converter, t tensor) []tensor {
			if c.arch == "eagle3" {
				switch {
				case t.name == "input_norm.weight":
					t.name = "enc.output_norm.weight"
				case strings.HasSuffix(t.name, ".hidden_norm.weight"):
					t.name = "blk.0.attn_norm_2.weight"
				case t.name == "d2t":
					t = t.forced(i64)
				}
			}
			return []tensor{t}
		},
	},
	{hf: []string{"InternLM3ForCausalLM"}, arch: "llama", params: llamaBase, filter: without("vision_model")},
	{
		hf: []string{"JanusForConditionalGeneration"}, arch: "llama", params: llamaBase, extra: llama3Rope,
		filter: without("model.vision_model.", "model.aligner.", "model.vqmodel.", "model.generation_"),
	},
	{
		hf: []string{"Sarashina2VisionForCausalLM"}, arch: "llama", params: llamaBase, extra: llama3Rope,
		filter: func(_ *converter, name string) string {
			if strings.HasPrefix(name, "norm.") {
				return ""
			}
			return strings.TrimPrefix(name, "llm.")
		},
	},
	{hf: []string{"ArceeForCausalLM"}, arch: "arcee", params: all(llamaBase, pool), extra: llama3Rope},
	{hf: []string{"LlamaBidirectionalModel"}, arch: "llama-embed", params: llamaBase, extra: llama3Rope},
	{hf: []string{"SmolLM3ForCausalLM"}, arch: "smollm3", params: llamaBase, extra: llama3Rope},
	{hf: []string{"CogVLMForCausalLM"}, arch: "cogvlm", params: llamaBase, extra: llama3Rope},
	{
		hf: []string{"NanbeigeForCausalLM"}, arch: "nanbeige", extra: llama3Rope, set: "skip_loop_final_norm==false\nskip_loop_final_norm=skip_loop_final_norm",
		params: all(llamaBase, func(c *converter) { c.put("num_loops", max(c.intOr(1, "num_loops"), 1)) }),
	},
	{
		// The parameters of its activation are numbers in tensors.
		hf: []string{"ApertusForCausalLM"}, arch: "apertus", params: llamaBase, extra: llama3Rope,
		filter: without(".act_fn."),
	},
	{
		hf: []string{"Llama4ForConditionalGeneration", "Llama4ForCausalLM"}, arch: "llama4", extra: llama3Rope,
		prepare: func(c *converter) {
			c.h["intermediate_size_moe"], c.h["intermediate_size"] = c.h["intermediate_size"], c.h["intermediate_size_mlp"]
		},
		set: "interleave_moe_layer_step=interleave_moe_layer_step\nexpert_feed_forward_length=intermediate_size_moe",
		params: all(llamaBase, func(c *converter) {
			if full := c.types("full_attention"); full != nil && !contains(full, false) {
				c.put("attention.sliding_window", 0)
			}
		}),
		filter: rename("text_model.", ""),
		modify: func(_ *converter, t tensor) []tensor {
			if base, ok := strings.CutSuffix(t.name, "gate_up_proj"); ok {
				return halves(t.swapped(), -2, base+"gate_proj.weight", base+"up_proj.weight")
			}
			if strings.HasSuffix(t.name, "down_proj") {
				t = t.swapped().with(t.name + ".weight")
			}
			return []tensor{t}
		},
	},
	{
		// conversion/mistral3.py: model_type mistral4 is DeepSeek's design.
		hf: []string{"Mistral3ForConditionalGeneration", "Ministral3ForCausalLM"}, arch: "mistral3", extra: func(c *converter) []tensor {
			if c.arch == "mistral4" {
				return nil
			}
			return llama3Rope(c)
		},
		prepare: func(c *converter) {
			if c.h.String("model_type") == "mistral4" {
				c.arch = "mistral4"
				latentPrepare(c)
			}
		},
		params: func(c *converter) {
			if c.arch == "mistral4" {
				latentParams(c)
				return
			}
			llamaBase(c)
			if c.h.String("model_type") == "ministral3" {
				c.put("rope.scaling.yarn_log_multiplier", c.rope["mscale_all_dim"])
				c.put("attention.temperature_scale", c.rope["llama_4_scaling_beta"])
			}
		},
		filter: func(c *converter, name string) string {
			if c.arch == "mistral4" {
				return noTiedHead(c, name)
			}
			return strings.ReplaceAll(name, "text_model.", "")
		},
		modify: func(c *converter, t tensor) []tensor {
			if c.arch != "mistral4" {
				return []tensor{t}
			}
			if base, ok := strings.CutSuffix(t.name, ".gate_up_proj"); ok && len(t.shape) == 3 {
				return []tensor{t.with(base + ".gate_up_proj.weight")}
			}
			if strings.HasSuffix(t.name, ".down_proj") {
				t.name += ".weight"
			}
			return splitKVB(c, t)
		},
	},
	{
		// Mistral's own files: params.json and consolidated.safetensors.
		hf: []string{mistralClass}, arch: "llama", extra: llama3Rope,
		prepare: func(c *converter) {
			if c.h.Has("llama_4_scaling") {
				c.arch = "mistral3"
			}
		},
		params: all(rotateHead, mistralYarn),
	},
	{
		hf: []string{mistralMoEClass}, arch: "deepseek2",
		prepare: all(latentPrepare, func(c *converter) {
			c.h["norm_topk_prob"], c.h["scoring_func"] = true, "softmax"
		}),
		params: all(latentParams, mistralYarn, func(c *converter) {
			c.put("attention.temperature_length", c.h.Object("yarn")["original_max_position_embeddings"])
			c.put("rope.scaling.yarn_log_multiplier", 0.1)
		}),
		filter: func(_ *converter, name string) string {
			name = strings.ReplaceAll(name, ".wkv_b.", ".kv_b_proj.")
			if strings.Contains(name, ".experts.") {
				name = "model." + strings.NewReplacer(".experts.", ".mlp.experts.", ".w1.", ".gate_proj.", ".w2.", ".down_proj.", ".w3.", ".up_proj.").Replace(name)
			}
			return name
		},
		modify: splitKVB,
	},
	{hf: []string{"GraniteForCausalLM"}, arch: "granite", prepare: noHeadDim, set: graniteScales, params: llamaBase, filter: graniteFilter, extra: llama3Rope},
	{
		hf: []string{"GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"}, arch: "granitemoe", prepare: noHeadDim,
		set: graniteScales + graniteShared, params: llamaBase, filter: graniteFilter, modify: graniteFused, extra: llama3Rope,
	},
	{
		hf: []string{"GraniteSWAForCausalLM", "GraniteMoeSWAForCausalLM"}, arch: "granite_swa", prepare: noHeadDim, set: graniteScales, extra: llama3Rope,
		params: all(llamaBase, func(c *converter) {
			c.put("attention.sliding_window", c.intOr(128, "sliding_window"))
			swa := c.types("sliding_attention")
			if swa == nil {
				swa = make([]bool, c.blocks)
				for i := range swa {
					swa[i] = i%4 != 0
				}
			}
			c.put("attention.sliding_window_pattern", swa)
			var rotated []bool
			for _, v := range c.h.List("no_rope_layers") {
				n, _ := hfconfig.AsInt(v)
				rotated = append(rotated, n != 0 || v == true)
			}
			c.put("attention.rope_pattern", rotated)
			if c.class == "GraniteMoeSWAForCausalLM" {
				c.apply(graniteShared)
			}
		}),
		filter: chain(graniteFilter, weightEnd("sinks")),
		modify: func(_ *converter, t tensor) []tensor {
			for end, name := range map[string]string{
				"block_sparse_moe.experts.gate_up_proj": "ffn_gate_up_exps", "block_sparse_moe.input_linear.weight": "ffn_gate_up_exps",
				"block_sparse_moe.experts.down_proj": "ffn_down_exps", "shared_mlp.input_linear.weight": "ffn_up_shexp", "shared_mlp.output_linear.weight": "ffn_down_shexp",
			} {
				if strings.HasSuffix(t.name, end) {
					return []tensor{t.with(block(t, name))}
				}
			}
			return []tensor{t}
		},
	},
	{
		hf: []string{"AfmoeForCausalLM"}, arch: "afmoe", filter: expertBias, extra: llama3Rope, params: llamaBase,
		set: `expert_shared_count=num_shared_experts
			expert_feed_forward_length=moe_intermediate_size
			leading_dense_block_count=num_dense_layers
			expert_weights_norm=route_norm
			expert_weights_scale=route_scale
			attention.sliding_window=sliding_window`,
	},
}

// Classes of the folders that have Mistral's params.json alone.
const (
	mistralClass    = "params.json"
	mistralMoEClass = "params.json with experts"
)

// eagle3 recognises a draft model that predicts from a larger model's states.
func eagle3(c *converter) {
	if c.h.Has("draft_vocab_size") && c.layers == 1 {
		c.arch = "eagle3"
		c.note("an EAGLE-3 draft; it also needs the width and layer count of its target model")
		c.put("target_hidden_size", c.h["target_hidden_size"])
		c.put("norm_before_residual", c.h.Bool("norm_before_residual"))
		c.put("norm_before_fc", c.h.Bool("norm_before_fc"))
		c.put("target_layers", c.h["eagle_aux_hidden_state_layer_ids"])
	}
}

// mistralYarn writes the scaling of params.json.
func mistralYarn(c *converter) {
	if y := c.h.Object("yarn"); y != nil {
		log := 0.0
		if !y.Bool("apply_scale") {
			log = 1
		}
		c.put("rope.scaling.type", "yarn")
		c.put("rope.scaling.factor", y["factor"])
		c.put("rope.scaling.yarn_beta_fast", y["beta"])
		c.put("rope.scaling.yarn_beta_slow", y["alpha"])
		c.put("rope.scaling.yarn_log_multiplier", log)
		c.put("rope.scaling.original_context_length", y["original_max_position_embeddings"])
	}
	c.put("attention.temperature_scale", c.h.Object("llama_4_scaling")["beta"])
}

// noHeadDim drops head_dim, which Granite's converter ignores.
func noHeadDim(c *converter) { delete(c.h, "head_dim") }

const graniteScales = `attention.scale=attention_multiplier
	embedding_scale=embedding_multiplier
	residual_scale=residual_multiplier
	logit_scale=logits_scaling
	`

// graniteShared is the key of Granite's models with experts.
const graniteShared = "expert_shared_feed_forward_length=shared_intermediate_size"

// graniteFilter leaves out the towers of Granite's speech and vision models.
func graniteFilter(_ *converter, name string) string {
	if strings.HasPrefix(name, "encoder.") {
		return ""
	}
	return without("image_", "layerwise_projectors", "spatial_projectors")(nil, strings.ReplaceAll(name, "text_model.", ""))
}

// graniteFused splits Granite's fused projections, which are those of a dense
// layer when there are no experts.
func graniteFused(c *converter, t tensor) []tensor {
	gate, up, down := "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"
	if c.int("num_local_experts") == 0 {
		gate, up, down = "ffn_gate", "ffn_up", "ffn_down"
	}
	switch {
	case strings.HasSuffix(t.name, "block_sparse_moe.input_linear.weight"):
		return halves(t, -2, block(t, "ffn_gate_exps"), block(t, "ffn_up_exps"))
	case strings.HasSuffix(t.name, "shared_mlp.input_linear.weight"):
		return halves(t, -2, block(t, gate), block(t, up))
	case strings.HasSuffix(t.name, "shared_mlp.output_linear.weight"):
		return []tensor{t.with(block(t, down))}
	}
	return []tensor{t}
}
