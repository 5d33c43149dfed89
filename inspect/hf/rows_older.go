package hf

import (
	"math"
	"strings"

	"weigh/formats"
	"weigh/formats/hfconfig"
)

// olderRows are the first generations of open models.
var olderRows = []row{
	{
		hf: []string{"GPT2LMHeadModel"}, arch: "gpt2", own: true, params: all(blockCount, gpt2Width), filter: gpt2Mask, modify: gpt2Turned,
		set: "context_length=n_ctx|n_positions\nembedding_length=n_embd\nattention.head_count=n_head\nattention.layer_norm_epsilon=layer_norm_epsilon",
	},
	{
		hf: []string{"RuGPT3XLForCausalLM"}, arch: "gpt2",
		modify: func(c *converter, t tensor) []tensor {
			for _, p := range []string{".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj."} {
				if strings.Contains(t.name, p) {
					suffix := t.name[strings.LastIndex(t.name, "."):]
					key := "qkv" + suffix + itoa(layerOf(t.name))
					if c.scratch[key]++; c.scratch[key] < 3 {
						return nil
					}
					return []tensor{t.resized(0, 3*t.dim(0)).with("blk." + itoa(layerOf(t.name)) + ".attn_qkv" + suffix)}
				}
			}
			return []tensor{t}
		},
	},
	{
		hf: []string{"JAISLMHeadModel"}, arch: "jais", own: true, params: blockCount, filter: gpt2Mask,
		set: "context_length=n_positions\nembedding_length=n_embd\nfeed_forward_length=n_inner\nattention.head_count=n_head\nattention.layer_norm_epsilon=layer_norm_epsilon\nattention.max_alibi_bias==8",
		modify: func(c *converter, t tensor) []tensor {
			if strings.HasSuffix(t.name, "relative_pe.slopes") {
				return nil
			}
			return gpt2Turned(c, t)
		},
	},
	{hf: []string{"Jais2ForCausalLM"}, arch: "jais2", params: rotateHead},
	{
		hf: []string{"GPTBigCodeForCausalLM"}, arch: "starcoder", own: true, params: all(blockCount, gpt2Width), filter: gpt2Mask,
		set: "context_length=n_positions\nembedding_length=n_embd\nattention.head_count=n_head\nattention.head_count_kv==1\nattention.layer_norm_epsilon=layer_norm_epsilon",
	},
	{hf: []string{"Starcoder2ForCausalLM"}, arch: "starcoder2"},
	{
		hf: []string{"CodeShellForCausalLM"}, arch: "codeshell", own: true, params: all(blockCount, gpt2Width),
		set: "context_length=n_positions\nembedding_length=n_embd\nattention.head_count=n_head\nattention.head_count_kv=num_query_groups\nattention.layer_norm_epsilon=layer_norm_epsilon\nrope.freq_base==10000\nrope.scaling.type==linear\nrope.scaling.factor==1",
	},
	{
		hf: []string{"GPTRefactForCausalLM"}, arch: "refact", own: true,
		set: "context_length=n_positions\nembedding_length=n_embd\nattention.head_count=n_head\nattention.head_count_kv==1\nattention.layer_norm_rms_epsilon=layer_norm_epsilon",
		params: func(c *converter) {
			blockCount(c)
			c.put("feed_forward_length", refactWidth(c))
		},
		modify: func(c *converter, t tensor) []tensor {
			switch {
			case strings.HasSuffix(t.name, ".attn.kv.weight"):
				return parts(t, []string{block(t, "attn_k"), block(t, "attn_v")}, div(c.int("n_embd"), c.int("n_head")))
			case strings.HasSuffix(t.name, ".attn.q.weight"):
				return []tensor{t.with(block(t, "attn_q"))}
			case strings.HasSuffix(t.name, ".mlp.gate_up_proj.weight"):
				return parts(t, []string{block(t, "ffn_gate"), block(t, "ffn_up")}, refactWidth(c))
			}
			return []tensor{t}
		},
	},
	{
		hf: []string{"GPTNeoXForCausalLM"}, arch: "gptneox", own: true,
		set: "context_length=max_position_embeddings\nembedding_length=hidden_size\nfeed_forward_length=intermediate_size\nattention.head_count=num_attention_heads\nuse_parallel_residual==true\nuse_parallel_residual=use_parallel_residual\nattention.layer_norm_epsilon=layer_norm_eps",
		params: func(c *converter) {
			blockCount(c)
			part, _ := c.h.Float("rotary_pct")
			c.put("rope.dimension_count", int64(part*float64(div(c.int("hidden_size"), c.int("num_attention_heads")))))
		},
	},
	{
		hf: []string{"BloomForCausalLM", "BloomModel"}, arch: "bloom", own: true, filter: rename("transformer.", ""),
		params: func(c *converter) {
			blockCount(c)
			d, heads := c.intOr(c.int("n_embed"), "hidden_size"), c.intOr(c.int("num_attention_heads"), "n_head")
			c.put("context_length", c.intOr(d, "seq_length"))
			c.put("embedding_length", d)
			c.put("feed_forward_length", 4*d)
			c.put("attention.head_count", heads)
			c.put("attention.head_count_kv", heads)
			c.put("attention.layer_norm_epsilon", c.h["layer_norm_epsilon"])
		},
	},
	{
		hf: []string{"FalconForCausalLM", "RWForCausalLM"}, arch: "falcon", own: true,
		set: "context_length==2048\ntensor_data_layout==jploski\nembedding_length=hidden_size\nattention.head_count=num_attention_heads|n_head\nattention.layer_norm_epsilon=layer_norm_epsilon",
		params: func(c *converter) {
			blockCount(c)
			c.put("feed_forward_length", 4*c.int("hidden_size"))
			kv := c.intOr(1, "num_kv_heads", "n_head_kv")
			if multi, ok := c.h["multi_query"].(bool); ok && !c.h.Bool("new_decoder_architecture") {
				// The first Falcons attend with one key-value head or with all,
				// whatever transformers fills in for num_kv_heads.
				if kv = 1; !multi {
					kv = c.int("num_attention_heads", "n_head")
				}
			}
			c.put("attention.head_count_kv", kv)
		},
	},
	{
		hf: []string{"MPTForCausalLM"}, arch: "mpt", own: true,
		params: func(c *converter) {
			blockCount(c)
			a := c.h.Object("attn_config")
			c.apply("context_length=max_seq_len\nembedding_length=d_model\nattention.head_count=n_heads\nattention.layer_norm_epsilon==1e-05")
			c.put("feed_forward_length", 4*c.int("d_model"))
			if n, _ := a.Int("kv_n_heads"); n > 0 {
				c.put("attention.head_count_kv", n)
			}
			c.put("attention.clamp_kqv", a["clip_qkv"])
			c.put("attention.max_alibi_bias", 0)
			if a.Bool("alibi") {
				c.put("attention.max_alibi_bias", a["alibi_bias_max"])
			}
		},
	},
	{
		hf: []string{"StableLmForCausalLM", "StableLMEpochForCausalLM", "LlavaStableLMEpochForCausalLM"}, arch: "stablelm", own: true,
		set: "context_length=max_position_embeddings\nembedding_length=hidden_size\nfeed_forward_length=intermediate_size\nattention.head_count=num_attention_heads\nattention.head_count_kv=num_key_value_heads\nuse_parallel_residual==true\nuse_parallel_residual=use_parallel_residual\nattention.layer_norm_epsilon=layer_norm_eps|norm_eps",
		params: func(c *converter) {
			blockCount(c)
			c.put("rope.dimension_count", c.partial(div(c.int("hidden_size"), c.int("num_attention_heads")), 1))
		},
	},
	{
		hf: []string{"PhiForCausalLM"}, arch: "phi2", own: true,
		set: "context_length=n_positions|max_position_embeddings\nembedding_length=hidden_size|n_embd\nattention.head_count=num_attention_heads|n_head\nattention.head_count_kv=num_attention_heads|n_head\nattention.layer_norm_epsilon=layer_norm_epsilon|layer_norm_eps\ntokenizer.ggml.add_bos_token==false",
		params: func(c *converter) {
			blockCount(c)
			d := c.int("hidden_size", "n_embd")
			c.put("feed_forward_length", 4*d)
			c.put("rope.dimension_count", div(c.partial(d, 1), c.int("num_attention_heads", "n_head")))
		},
	},
	{hf: []string{"Phi3ForCausalLM", "Phi4ForCausalLMV"}, arch: "phi3", own: true, set: phi3Keys, params: phi3, extra: longRope},
	{
		hf: []string{"BaichuanForCausalLM", "BaiChuanForCausalLM"}, arch: "baichuan", set: "tensor_data_layout==Meta AI original pth", params: rotateWidth,
		modify: func(_ *converter, t tensor) []tensor {
			if strings.HasSuffix(t.name, ".self_attn.W_pack.weight") {
				n := int64(t.dim(0) / 3)
				return parts(t, []string{block(t, "attn_q"), block(t, "attn_k"), block(t, "attn_v")}, n, n, n)
			}
			return []tensor{t}
		},
	},
	{hf: []string{"XverseForCausalLM"}, arch: "xverse", set: "tensor_data_layout==Meta AI original pth", params: rotateWidth},
	{
		hf: []string{"OrionForCausalLM"}, arch: "orion", own: true, params: blockCount,
		set: "tensor_data_layout==Meta AI original pth\ncontext_length=max_sequence_length|max_position_embeddings|model_max_length\nembedding_length=hidden_size\nfeed_forward_length=intermediate_size\nattention.head_count=num_attention_heads\nattention.head_count_kv=num_key_value_heads|num_attention_heads\nattention.layer_norm_epsilon=rms_norm_eps",
	},
	{
		hf: []string{"InternLM2ForCausalLM"}, arch: "internlm2",
		modify: func(c *converter, t tensor) []tensor {
			if strings.Contains(t.name, ".attention.wqkv") {
				return splitQKV(c, t)
			}
			return []tensor{t}
		},
	},
	{
		hf: []string{"GlmForCausalLM", "ChatGLMModel", "ChatGLMForConditionalGeneration"}, arch: "chatglm", own: true, filter: cut("transformer."),
		params: func(c *converter) {
			blockCount(c)
			d, heads := c.intOr(c.int("n_embed"), "hidden_size"), c.intOr(c.int("num_attention_heads"), "n_head")
			c.put("context_length", c.intOr(d, "seq_length"))
			c.put("embedding_length", d)
			c.put("feed_forward_length", c.intOr(4*d, "ffn_hidden_size", "intermediate_size"))
			c.put("attention.head_count", heads)
			c.put("attention.head_count_kv", c.intOr(heads, "multi_query_group_num", "num_key_value_heads"))
			c.put("attention.layer_norm_rms_epsilon", c.floatOr(1e-5, c.h, "layernorm_epsilon"))
			c.put("rope.dimension_count", c.partial(c.intOr(div(d, heads), "attention_dim"), 0.5))
			c.put("rope.freq_base", 10000*c.floatOr(1, c.h, "rope_ratio"))
			c.put("tokenizer.ggml.add_bos_token", false)
		},
	},
	{
		hf: []string{"PlamoForCausalLM"}, arch: "plamo", own: true, params: blockCount,
		set: "context_length==4096\nembedding_length=hidden_size\nfeed_forward_length=intermediate_size\nattention.head_count=num_attention_heads\nattention.head_count_kv==5\nattention.layer_norm_rms_epsilon=rms_norm_eps",
	},
	{
		hf: []string{"OpenELMForCausalLM"}, arch: "openelm", own: true,
		set: "context_length=max_context_length\nembedding_length=model_dim\nattention.head_count=num_query_heads\nattention.head_count_kv=num_kv_heads\nrope.freq_base=rope_freq_constant\nattention.layer_norm_rms_epsilon==1e-06\nrope.dimension_count=head_dim\nattention.key_length=head_dim\nattention.value_length=head_dim",
		params: func(c *converter) {
			blockCount(c)
			c.put("feed_forward_length", c.perBlock(func(i int) int64 { return openELMWidth(c, i) }))
		},
		modify: func(c *converter, t tensor) []tensor {
			if strings.HasSuffix(t.name, ".ffn.proj_1.weight") {
				return parts(t, []string{block(t, "ffn_gate"), block(t, "ffn_up")}, openELMWidth(c, layerOf(t.name)))
			}
			return []tensor{t}
		},
	},
}

// gpt2Width says that the feed-forward network is four times as wide.
func gpt2Width(c *converter) { c.put("feed_forward_length", 4*c.int("n_embd")) }

// gpt2Mask leaves the causal mask out that old files store.
func gpt2Mask(_ *converter, name string) string {
	if strings.HasSuffix(name, ".attn.bias") || strings.HasSuffix(name, ".attn.masked_bias") {
		return ""
	}
	return name
}

// gpt2Turned turns the matrices of GPT-2's convolutions of width one.
func gpt2Turned(_ *converter, t tensor) []tensor {
	for _, end := range []string{".c_attn.weight", ".c_proj.weight", ".c_fc.weight", ".c_fc2.weight"} {
		if strings.HasSuffix(t.name, end) {
			t = t.swapped()
		}
	}
	return []tensor{t}
}

// refactWidth is the width of a gated network with as many weights as one of
// four times the model's width, rounded up to 256.
func refactWidth(c *converter) int64 {
	return (8*c.int("n_embd")/3 + 255) / 256 * 256
}

// openELMWidth is the width of a layer's feed-forward network.
func openELMWidth(c *converter, il int) int64 {
	list, of := c.h.List("ffn_multipliers"), float64(max(c.int("ffn_dim_divisor"), 1))
	if il < 0 || il >= len(list) {
		return 0
	}
	f, _ := hfconfig.AsFloat(list[il])
	v := f * float64(c.int("model_dim"))
	n := max(of, math.Floor(math.Trunc(v+of/2)/of)*of)
	if n < 0.9*v {
		n += of
	}
	return int64(n)
}

// rotateWidth says that heads as wide as the model allows are rotated whole.
func rotateWidth(c *converter) {
	c.put("rope.dimension_count", div(c.int("hidden_size"), c.int("num_attention_heads")))
}

const phi3Keys = `context_length=n_positions|max_position_embeddings
	embedding_length=hidden_size|n_embd
	feed_forward_length=intermediate_size
	attention.head_count=num_attention_heads|n_head
	attention.head_count_kv=num_key_value_heads|n_head_kv
	attention.layer_norm_rms_epsilon=rms_norm_eps`

func phi3(c *converter) {
	blockCount(c)
	c.put("rope.scaling.original_context_length", c.rope["original_max_position_embeddings"])
	c.put("rope.dimension_count", div(c.partial(c.int("hidden_size", "n_embd"), 1), c.int("num_attention_heads", "n_head")))
	c.put("rope.freq_base", c.fullRope()["rope_theta"])
	c.put("attention.sliding_window", c.int("sliding_window"))
	if len(c.rope.List("long_factor")) == 0 {
		return
	}
	orig, _ := c.rope.Float("original_max_position_embeddings")
	scale, factor := float64(c.int("n_positions", "max_position_embeddings"))/orig, 1.0
	if scale > 1 {
		factor = math.Sqrt(1 + math.Log(scale)/math.Log(orig))
		if c.rope.String("rope_type") == "yarn" {
			factor = 0.1*math.Log(scale) + 1
		}
	}
	c.put("rope.scaling.attn_factor", factor)
}

// splitQKV splits a fused projection into queries, keys and values.
func splitQKV(c *converter, t tensor) []tensor {
	head := c.headDim()
	q, kv := c.int("num_attention_heads")*head, c.intOr(c.int("num_attention_heads"), "num_key_value_heads")*head
	return parts(t, []string{block(t, "attn_q"), block(t, "attn_k"), block(t, "attn_v")}, q, kv, kv)
}

// block returns the GGUF name of a matrix in the tensor's layer.
func block(t tensor, name string) string {
	return "blk." + itoa(layerOf(t.name)) + "." + name + ".weight"
}

// elements returns the product of a shape.
func elements(shape []uint64) (uint64, bool) { return formats.Elements(shape) }

// contains reports whether a list has a value.
func contains[T comparable](list []T, v T) bool {
	for _, x := range list {
		if x == v {
			return true
		}
	}
	return false
}

// repeat returns n times v.
func repeat(v float64, n int) []float64 {
	list := make([]float64, max(n, 0))
	for i := range list {
		list[i] = v
	}
	return list
}

// padded returns n numbers of a list, 0 where it has none.
func padded(list []any, n int) []float64 {
	out := make([]float64, max(n, 0))
	for i := range min(len(list), len(out)) {
		out[i], _ = hfconfig.AsFloat(list[i])
	}
	return out
}

// first returns the first element of a list, or the value itself.
func first(v any) any {
	if list, ok := v.([]any); ok {
		if len(list) == 0 {
			return nil
		}
		return list[0]
	}
	return v
}

// normalQuantile is the inverse of the standard normal distribution.
func normalQuantile(p float64) float64 { return math.Sqrt2 * math.Erfinv(2*p-1) }
