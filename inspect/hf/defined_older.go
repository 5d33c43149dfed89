package hf

import (
	"slices"

	"weigh/formats/hfconfig"
)

// moreDefinitions are the classes that share little with the usual decoder.
func moreDefinitions(put func(f func(d *definition), classes ...string)) {
	put(gpt2Definition, "GPT2LMHeadModel")
	put(bigCodeDefinition, "GPTBigCodeForCausalLM")
	put(neoXDefinition, "GPTNeoXForCausalLM")
	put(bloomDefinition, "BloomForCausalLM", "BloomModel")
	put(falconDefinition, "FalconForCausalLM", "RWForCausalLM")
	put(mptDefinition, "MPTForCausalLM")
	put(dbrxDefinition, "DbrxForCausalLM")
	put(phi2Definition, "PhiForCausalLM")
	put(phiMoEDefinition, "PhiMoEForCausalLM")
	put(starcoder2Definition, "Starcoder2ForCausalLM")
	put(stableLMDefinition, "StableLmForCausalLM")
	put(internLM2Definition, "InternLM2ForCausalLM")
	put(chatGLMDefinition, "ChatGLMModel", "ChatGLMForConditionalGeneration")
	put(llama4Definition, "Llama4ForConditionalGeneration", "Llama4ForCausalLM")
	put(gemma3nDefinition, "Gemma3nForConditionalGeneration", "Gemma3nForCausalLM")
	put(gemma4Definition, "Gemma4ForConditionalGeneration", "Gemma4ForCausalLM")
	put(kimiLinearDefinition, "KimiLinearForCausalLM")
	put(modernBertDefinition, "ModernBertModel", "ModernBertForMaskedLM")
	put(deciDefinition, "DeciLMForCausalLM")
	put(decoder{qk: headNorm, mlp: func(d *definition, _ int, p string) {
		n, ff := d.int("num_experts"), d.int("moe_intermediate_size")
		d.add(p+"mlp.gate.weight", n, d.width)
		d.add(p+"mlp.experts.gate_up_proj", n, d.width, 2*ff)
		d.add(p+"mlp.experts.down_proj", n, ff, d.width)
	}}.define, "Qwen3VLMoeForConditionalGeneration")
	put(decoder{qk: headNorm, mlp: func(d *definition, i int, p string) { sharedExperts(d, i, p, true) }}.define, "Dots1ForCausalLM")
	put(decoder{qk: headNorm, q: "query_layernorm", k: "key_layernorm", mlp: hunyuanExperts}.define, "HunYuanMoEV1ForCausalLM")
	put(decoder{mlp: ernieExperts}.define, "Ernie4_5_MoeForCausalLM")
	put(decoder{norms: []string{"attention_layernorm", "feedforward_layernorm"}, qk: headNorm, mlp: plainNetwork}.define, "ApertusForCausalLM")
	put(decoder{mlp: plainNetwork}.define, "ArceeForCausalLM")
	put(nemotron4Definition, "NemotronForCausalLM")
	put(exaone3Definition, "ExaoneForCausalLM")
	put(latent3Definition, "MiniCPM3ForCausalLM")
	put(olmoDefinition, "OlmoForCausalLM")
	put(baichuanDefinition, "BaichuanForCausalLM", "BaiChuanForCausalLM")
	put(miniMax01Definition, "MiniMaxText01ForCausalLM", "MiniMaxM1ForCausalLM")
	put(nomicDefinition, "NomicBertModel")
	put(func(d *definition) {
		d.h = d.h.Merge(hfconfig.Object{"tie_word_embeddings": true}) // its files have no head
		decoder{}.define(d)
	}, "MiniCPMForCausalLM")
}

// layerNorm adds a norm with a bias.
func (d *definition) layerNorm(names ...string) {
	for _, n := range names {
		d.add(n+".weight", d.width)
		d.add(n+".bias", d.width)
	}
}

// untied adds a head unless the configuration ties it, which is the default
// where tied is.
func (d *definition) untied(name string, tied bool) {
	if said, ok := d.h["tie_word_embeddings"].(bool); ok {
		tied = said
	}
	if !tied {
		d.add(name+".weight", d.vocab, d.width)
	}
}

// plainNetwork adds a network without a gate.
func plainNetwork(d *definition, _ int, p string) {
	bias := d.h.Bool("mlp_bias")
	d.linear(p+"mlp.up_proj", d.ff, d.width, bias)
	d.linear(p+"mlp.down_proj", d.width, d.ff, bias)
}

func gpt2Definition(d *definition) {
	ff := d.orDefault(4*d.width, "n_inner")
	d.add("wte.weight", d.vocab, d.width)
	d.add("wpe.weight", d.int("n_positions", "n_ctx"), d.width)
	d.layerNorm("ln_f")
	d.untied("lm_head", true)
	turned := func(name string, in, out int64) {
		d.add(name+".weight", in, out)
		d.add(name+".bias", out)
	}
	d.eachLayer("h.", func(_ int, p string) {
		d.layerNorm(p+"ln_1", p+"ln_2")
		turned(p+"attn.c_attn", d.width, 3*d.width)
		turned(p+"attn.c_proj", d.width, d.width)
		turned(p+"mlp.c_fc", d.width, ff)
		turned(p+"mlp.c_proj", ff, d.width)
	})
}

func bigCodeDefinition(d *definition) {
	ff := d.orDefault(4*d.width, "n_inner")
	kv := d.width
	if multi, ok := d.h["multi_query"].(bool); multi || !ok {
		kv = d.head
	}
	d.add("transformer.wte.weight", d.vocab, d.width)
	d.add("transformer.wpe.weight", d.int("n_positions"), d.width)
	d.layerNorm("transformer.ln_f")
	d.untied("lm_head", true)
	d.eachLayer("transformer.h.", func(_ int, p string) {
		d.layerNorm(p+"ln_1", p+"ln_2")
		d.linear(p+"attn.c_attn", d.width+2*kv, d.width, true)
		d.linear(p+"attn.c_proj", d.width, d.width, true)
		d.linear(p+"mlp.c_fc", ff, d.width, true)
		d.linear(p+"mlp.c_proj", d.width, ff, true)
	})
}

func neoXDefinition(d *definition) {
	d.add("gpt_neox.embed_in.weight", d.vocab, d.width)
	d.layerNorm("gpt_neox.final_layer_norm")
	d.untied("embed_out", false)
	d.eachLayer("gpt_neox.layers.", func(_ int, p string) {
		d.layerNorm(p+"input_layernorm", p+"post_attention_layernorm")
		d.linear(p+"attention.query_key_value", 3*d.width, d.width, true)
		d.linear(p+"attention.dense", d.width, d.width, true)
		d.linear(p+"mlp.dense_h_to_4h", d.ff, d.width, true)
		d.linear(p+"mlp.dense_4h_to_h", d.width, d.ff, true)
	})
}

func bloomDefinition(d *definition) {
	d.add("transformer.word_embeddings.weight", d.vocab, d.width)
	d.layerNorm("transformer.word_embeddings_layernorm", "transformer.ln_f")
	d.eachLayer("transformer.h.", func(_ int, p string) {
		d.layerNorm(p+"input_layernorm", p+"post_attention_layernorm")
		d.linear(p+"self_attention.query_key_value", 3*d.width, d.width, true)
		d.linear(p+"self_attention.dense", d.width, d.width, true)
		d.linear(p+"mlp.dense_h_to_4h", 4*d.width, d.width, true)
		d.linear(p+"mlp.dense_4h_to_h", d.width, 4*d.width, true)
	})
}

func falconDefinition(d *definition) {
	grouped := d.h.Bool("new_decoder_architecture") || d.class == "RWForCausalLM" && d.h.Has("n_head_kv")
	kv := int64(1)
	switch multi, ok := d.h["multi_query"].(bool); {
	case grouped:
		kv = d.intOr(d.heads, "num_kv_heads", "n_head_kv")
	case ok && !multi:
		kv = d.heads
	}
	parallel := true
	if v, ok := d.h["parallel_attn"].(bool); ok {
		parallel = v
	}
	bias := d.h.Bool("bias")
	d.add("transformer.word_embeddings.weight", d.vocab, d.width)
	d.layerNorm("transformer.ln_f")
	d.untied("lm_head", true)
	d.eachLayer("transformer.h.", func(_ int, p string) {
		switch {
		case grouped && d.intOr(2, "num_ln_in_parallel_attn") == 2:
			d.layerNorm(p+"ln_attn", p+"ln_mlp")
		case parallel:
			d.layerNorm(p + "input_layernorm")
		default:
			d.layerNorm(p+"input_layernorm", p+"post_attention_layernorm")
		}
		d.linear(p+"self_attention.query_key_value", (d.heads+2*kv)*d.head, d.width, bias)
		d.linear(p+"self_attention.dense", d.width, d.width, bias)
		d.linear(p+"mlp.dense_h_to_4h", 4*d.width, d.width, bias)
		d.linear(p+"mlp.dense_4h_to_h", d.width, 4*d.width, bias)
	})
}

func mptDefinition(d *definition) {
	a, ratio := d.h.Object("attn_config"), d.orDefault(4, "expansion_ratio")
	kv := d.heads
	if n, _ := a.Int("kv_n_heads"); n > 0 {
		kv = n
	}
	d.add("transformer.wte.weight", d.vocab, d.width)
	d.norms("transformer.", "norm_f")
	if alibi, ok := a["alibi"].(bool); ok && !alibi {
		d.add("transformer.wpe.weight", d.int("max_seq_len"), d.width)
	}
	d.eachLayer("transformer.blocks.", func(_ int, p string) {
		d.norms(p, "norm_1", "norm_2")
		d.add(p+"attn.Wqkv.weight", (d.heads+2*kv)*d.head, d.width)
		d.add(p+"attn.out_proj.weight", d.width, d.width)
		d.add(p+"ffn.up_proj.weight", ratio*d.width, d.width)
		d.add(p+"ffn.down_proj.weight", d.width, ratio*d.width)
	})
}

func dbrxDefinition(d *definition) {
	f := d.h.Object("ffn_config")
	kv, _ := d.h.Object("attn_config").Int("kv_n_heads")
	n, _ := f.Int("moe_num_experts")
	ff, _ := f.Int("ffn_hidden_size")
	d.add("transformer.wte.weight", d.vocab, d.width)
	d.norms("transformer.", "norm_f")
	d.untied("lm_head", false)
	d.eachLayer("transformer.blocks.", func(_ int, p string) {
		d.norms(p+"norm_attn_norm.", "norm_1", "norm_2")
		d.add(p+"norm_attn_norm.attn.Wqkv.weight", (d.heads+2*kv)*d.head, d.width)
		d.add(p+"norm_attn_norm.attn.out_proj.weight", d.width, d.width)
		d.add(p+"ffn.router.layer.weight", n, d.width)
		for _, m := range []string{"w1", "v1", "w2"} {
			d.add(p+"ffn.experts.mlp."+m, n*ff, d.width)
		}
	})
}

func phi2Definition(d *definition) {
	d.add("model.embed_tokens.weight", d.vocab, d.width)
	d.layerNorm("model.final_layernorm")
	d.untied("lm_head", false)
	d.add("lm_head.bias", d.vocab)
	d.eachLayer("model.layers.", func(_ int, p string) {
		d.layerNorm(p + "input_layernorm")
		for _, m := range []string{"q_proj", "k_proj", "v_proj", "dense"} {
			d.linear(p+"self_attn."+m, d.width, d.width, true)
		}
		d.linear(p+"mlp.fc1", d.ff, d.width, true)
		d.linear(p+"mlp.fc2", d.width, d.ff, true)
	})
}

func phiMoEDefinition(d *definition) {
	d.add("model.embed_tokens.weight", d.vocab, d.width)
	d.layerNorm("model.norm")
	d.untied("lm_head", false)
	d.add("lm_head.bias", d.vocab)
	d.eachLayer("model.layers.", func(i int, p string) {
		d.layerNorm(p+"input_layernorm", p+"post_attention_layernorm")
		d.attention(p+"self_attn.", true, true, noNorm, "", "")
		mixtralExperts(d, i, p)
	})
}

func starcoder2Definition(d *definition) {
	bias := true
	if v, ok := d.h["use_bias"].(bool); ok {
		bias = v
	}
	d.add("model.embed_tokens.weight", d.vocab, d.width)
	d.layerNorm("model.norm")
	d.untied("lm_head", true)
	d.eachLayer("model.layers.", func(_ int, p string) {
		d.layerNorm(p+"input_layernorm", p+"post_attention_layernorm")
		d.attention(p+"self_attn.", bias, bias, noNorm, "", "")
		d.linear(p+"mlp.c_fc", d.ff, d.width, bias)
		d.linear(p+"mlp.c_proj", d.width, d.ff, bias)
	})
}

func stableLMDefinition(d *definition) {
	d.add("model.embed_tokens.weight", d.vocab, d.width)
	d.layerNorm("model.norm")
	d.untied("lm_head", false)
	d.eachLayer("model.layers.", func(_ int, p string) {
		d.layerNorm(p + "input_layernorm")
		if !d.h.Bool("use_parallel_residual") {
			d.layerNorm(p + "post_attention_layernorm")
		}
		d.attention(p+"self_attn.", d.h.Bool("use_qkv_bias"), false, noNorm, "", "")
		if d.h.Bool("qk_layernorm") {
			d.add(p+"self_attn.q_layernorm.weight", d.heads, d.head)
			d.add(p+"self_attn.k_layernorm.weight", d.kv, d.head)
		}
		d.gated(p+"mlp.", d.ff, false)
	})
}

func internLM2Definition(d *definition) {
	bias := d.h.Bool("bias")
	d.add("model.tok_embeddings.weight", d.vocab, d.width)
	d.norms("model.", "norm")
	d.untied("output", false)
	d.eachLayer("model.layers.", func(_ int, p string) {
		d.norms(p, "attention_norm", "ffn_norm")
		d.linear(p+"attention.wqkv", (d.heads+2*d.kv)*d.head, d.width, bias)
		d.linear(p+"attention.wo", d.width, d.heads*d.head, bias)
		d.add(p+"feed_forward.w1.weight", d.ff, d.width)
		d.add(p+"feed_forward.w3.weight", d.ff, d.width)
		d.add(p+"feed_forward.w2.weight", d.width, d.ff)
	})
}

func chatGLMDefinition(d *definition) {
	kv := d.heads
	if d.h.Bool("multi_query_attention") || d.h.Has("multi_query_group_num") {
		kv = d.intOr(d.heads, "multi_query_group_num")
	}
	bias, ff := d.h.Bool("add_bias_linear"), d.int("ffn_hidden_size")
	head := d.intOr(d.head, "kv_channels")
	d.add("transformer.embedding.word_embeddings.weight", d.intOr(d.vocab, "padded_vocab_size"), d.width)
	d.norms("transformer.encoder.", "final_layernorm")
	d.add("transformer.output_layer.weight", d.intOr(d.vocab, "padded_vocab_size"), d.width)
	d.eachLayer("transformer.encoder.layers.", func(_ int, p string) {
		d.norms(p, "input_layernorm", "post_attention_layernorm")
		d.linear(p+"self_attention.query_key_value", (d.heads+2*kv)*head, d.width, bias || d.h.Bool("add_qkv_bias"))
		d.linear(p+"self_attention.dense", d.width, d.heads*head, bias)
		d.linear(p+"mlp.dense_h_to_4h", 2*ff, d.width, bias)
		d.linear(p+"mlp.dense_4h_to_h", d.width, ff, bias)
	})
}

func llama4Definition(d *definition) {
	step, n, ff := max(d.intOr(1, "interleave_moe_layer_step"), 1), d.int("num_local_experts"), d.int("intermediate_size_mlp")
	listed := d.h.List("moe_layers")
	decoder{mlp: func(d *definition, i int, p string) {
		p += "feed_forward."
		moe := (int64(i)+1)%step == 0
		if len(listed) > 0 {
			moe = slices.Contains(listed, any(int64(i)))
		}
		if !moe {
			d.gated(p, ff, false)
			return
		}
		d.add(p+"router.weight", n, d.width)
		d.add(p+"experts.gate_up_proj", n, d.width, 2*d.ff)
		d.add(p+"experts.down_proj", n, d.ff, d.width)
		d.gated(p+"shared_expert.", d.ff, false)
	}}.define(d)
}

var gemmaNorms = []string{"input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"}

// perLayerInputs adds the embeddings that Gemma's layers take beside the states.
func (d *definition) perLayerInputs() int64 {
	n := d.int("hidden_size_per_layer_input")
	if n > 0 {
		d.add("model.embed_tokens_per_layer.weight", d.intOr(d.vocab, "vocab_size_per_layer_input"), int64(d.layers)*n)
		d.add("model.per_layer_model_projection.weight", int64(d.layers)*n, d.width)
		d.add("model.per_layer_projection_norm.weight", n)
	}
	return n
}

// perLayerInput adds a layer's part of them.
func (d *definition) perLayerInput(p string, n int64) {
	if n > 0 {
		d.add(p+"per_layer_input_gate.weight", n, d.width)
		d.add(p+"per_layer_projection.weight", d.width, n)
		d.norms(p, "post_per_layer_input_norm")
	}
}

func gemma3nDefinition(d *definition) {
	inputs, laurel := d.intOr(4, "altup_num_inputs"), d.intOr(64, "laurel_rank")
	widths := d.h.List("intermediate_size")
	d.add("model.embed_tokens.weight", d.vocab, d.width)
	d.norms("model.", "norm")
	n := d.perLayerInputs()
	for i := range min(max(inputs-1, 0), 64) {
		d.add("model.altup_projections."+itoa(int(i))+".weight", d.width, d.width)
		d.add("model.altup_unembed_projections."+itoa(int(i))+".weight", d.width, d.width)
	}
	d.eachLayer("model.layers.", func(i int, p string) {
		ff := d.ff
		if i < len(widths) {
			ff, _ = hfconfig.AsInt(widths[i])
		}
		d.norms(p, gemmaNorms...)
		d.attention(p+"self_attn.", false, false, headNorm, "q_norm", "k_norm")
		d.gated(p+"mlp.", ff, false)
		d.add(p+"altup.correct_output_scale", d.width)
		d.add(p+"altup.correction_coefs.weight", inputs, inputs)
		d.add(p+"altup.prediction_coefs.weight", inputs*inputs, inputs)
		d.add(p+"altup.modality_router.weight", inputs, d.width)
		d.norms(p, "altup.router_norm")
		d.add(p+"laurel.linear_left.weight", laurel, d.width)
		d.add(p+"laurel.linear_right.weight", d.width, laurel)
		d.norms(p, "laurel.post_laurel_norm")
		d.perLayerInput(p, n)
	})
}

func gemma4Definition(d *definition) {
	if d.int("num_kv_shared_layers") > 0 {
		return // files differ in whether such layers keep projections that nothing uses
	}
	gemma4Layers(d.converter)
	sliding := d.types("sliding_attention")
	full, ok := ofFullLayers(d.converter, "global_head_dim", "head_dim")
	if !ok {
		full = d.head
	}
	fullKV := d.kv
	if n, ok := ofFullLayers(d.converter, "num_global_key_value_heads", "num_key_value_heads"); ok && d.h.Bool("attention_k_eq_v") {
		fullKV = n
	}
	d.add("model.embed_tokens.weight", d.vocab, d.width)
	d.norms("model.", "norm")
	n := d.perLayerInputs()
	d.eachLayer("model.layers.", func(i int, p string) {
		head, kv, same := d.head, d.kv, false
		if !sliding[i] {
			head, kv, same = full, fullKV, d.h.Bool("attention_k_eq_v")
		}
		a := p + "self_attn."
		d.norms(p, gemmaNorms...)
		d.add(a+"q_proj.weight", d.heads*head, d.width)
		d.add(a+"o_proj.weight", d.width, d.heads*head)
		d.add(a+"q_norm.weight", head)
		d.add(a+"k_proj.weight", kv*head, d.width)
		if !same {
			d.add(a+"v_proj.weight", kv*head, d.width)
		}
		d.add(a+"k_norm.weight", head)
		d.gated(p+"mlp.", d.ff, false)
		d.add(p+"layer_scalar", 1)
		d.perLayerInput(p, n)
		if d.h.Bool("enable_moe_block") {
			e, w := d.int("num_experts"), d.int("moe_intermediate_size", "expert_intermediate_size")
			d.norms(p, "post_feedforward_layernorm_1", "post_feedforward_layernorm_2", "pre_feedforward_layernorm_2")
			d.add(p+"router.scale", d.width)
			d.add(p+"router.proj.weight", e, d.width)
			d.add(p+"router.per_expert_scale", e)
			d.add(p+"experts.gate_up_proj", e, 2*w, d.width)
			d.add(p+"experts.down_proj", e, d.width, w)
		}
	})
}

func kimiLinearDefinition(d *definition) {
	full, l := kimiFull(d.converter), d.h.Object("linear_attn_config")
	nope, rot, v, rank := d.int("qk_nope_head_dim"), d.int("qk_rope_head_dim"), d.int("v_head_dim"), d.int("kv_lora_rank")
	head, _ := l.Int("head_dim")
	heads, _ := l.Int("num_heads")
	kernel, _ := l.Int("short_conv_kernel_size")
	d.ends("model.embed_tokens", "model.norm", "lm_head")
	d.eachLayer("model.layers.", func(i int, p string) {
		d.norms(p, "input_layernorm", "post_attention_layernorm")
		a := p + "self_attn."
		if full[i] {
			d.add(a+"q_proj.weight", d.heads*(nope+rot), d.width)
			d.add(a+"kv_a_proj_with_mqa.weight", rank+rot, d.width)
			d.add(a+"kv_a_layernorm.weight", rank)
			d.add(a+"kv_b_proj.weight", d.heads*(nope+v), rank)
			d.add(a+"o_proj.weight", d.width, d.heads*v)
		} else {
			for _, m := range []string{"q", "k", "v"} {
				d.add(a+m+"_proj.weight", heads*head, d.width)
				d.add(a+m+"_conv1d.weight", heads*head, 1, kernel)
			}
			d.add(a+"A_log", 1, 1, heads, 1)
			d.add(a+"dt_bias", heads*head)
			d.add(a+"b_proj.weight", heads, d.width)
			for _, m := range []string{"f", "g"} {
				d.add(a+m+"_a_proj.weight", head, d.width)
				d.add(a+m+"_b_proj.weight", heads*head, head)
			}
			d.add(a+"o_norm.weight", head)
			d.add(a+"o_proj.weight", d.width, heads*head)
		}
		if int64(i) < d.int("first_k_dense_replace") {
			d.gated(p+"mlp.", d.ff, false)
			return
		}
		n, ff := d.int("num_experts"), d.int("moe_intermediate_size")
		b := p + "block_sparse_moe."
		d.add(b+"gate.weight", n, d.width)
		d.add(b+"gate.e_score_correction_bias", n)
		d.experts(b+"experts.", n, ff, "w1", "w3", "w2")
		if s := d.int("num_shared_experts"); s > 0 {
			d.gated(b+"shared_experts.", s*ff, false)
		}
	})
}

func modernBertDefinition(d *definition) {
	prefix := ""
	if d.class == "ModernBertForMaskedLM" {
		prefix = "model."
	}
	d.add(prefix+"embeddings.tok_embeddings.weight", d.vocab, d.width)
	d.norms(prefix, "embeddings.norm", "final_norm")
	d.eachLayer(prefix+"layers.", func(i int, p string) {
		if i > 0 { // the embedding's norm is the first layer's
			d.norms(p, "attn_norm")
		}
		d.add(p+"attn.Wqkv.weight", 3*d.width, d.width)
		d.add(p+"attn.Wo.weight", d.width, d.width)
		d.norms(p, "mlp_norm")
		d.add(p+"mlp.Wi.weight", 2*d.ff, d.width)
		d.add(p+"mlp.Wo.weight", d.width, d.ff)
	})
}

func deciDefinition(d *definition) {
	blocks, perLayer := d.h.List("block_configs"), d.h.List("num_key_value_heads_per_layer")
	d.ends("model.embed_tokens", "model.norm", "lm_head")
	d.eachLayer("model.layers.", func(i int, p string) {
		if i < len(perLayer) {
			d.kv, _ = hfconfig.AsInt(perLayer[i])
		}
		if len(blocks) == 0 {
			d.norms(p, "input_layernorm", "post_attention_layernorm")
			d.attention(p+"self_attn.", false, false, noNorm, "", "")
			d.gated(p+"mlp.", d.ff, false)
			return
		}
		var b hfconfig.Object
		if i < len(blocks) {
			b, _ = blocks[i].(hfconfig.Object)
		}
		a, f := b.Object("attention"), b.Object("ffn")
		switch n, ok := a.Int("n_heads_in_group"); {
		case a.Bool("replace_with_linear"):
			d.norms(p, "input_layernorm")
			d.add(p+"self_attn.linear_attn.weight", d.width, d.width)
		case ok && n > 0:
			d.norms(p, "input_layernorm")
			d.kv = div(d.heads, n)
			d.attention(p+"self_attn.", false, false, noNorm, "", "")
		}
		if m, ok := f.Float("ffn_mult"); ok && m > 0 {
			d.norms(p, "post_attention_layernorm")
			d.gated(p+"mlp.", (int64(2*m*float64(d.width)/3)+255)/256*256, false)
		}
	})
}

func hunyuanExperts(d *definition, _ int, p string) {
	number := func(key string) int64 {
		n, _ := hfconfig.AsInt(first(d.h[key]))
		return n
	}
	n, ff := d.int("num_experts"), number("moe_intermediate_size")
	d.add(p+"mlp.gate.wg.weight", n, d.width)
	d.experts(p+"mlp.experts.", n, ff, "gate_proj", "up_proj", "down_proj")
	if s := number("num_shared_expert"); s > 0 {
		d.gated(p+"mlp.shared_mlp.", s*d.ff, false)
	}
}

func ernieExperts(d *definition, i int, p string) {
	n, ff, step := d.int("moe_num_experts"), d.int("moe_intermediate_size"), max(d.intOr(1, "moe_layer_interval"), 1)
	last := d.intOr(-1, "moe_layer_end_index")
	if last < 0 {
		last = int64(d.layers) - 1
	}
	if il := int64(i); il < d.int("moe_layer_start_index") || il > last || (il+1)%step != 0 {
		d.gated(p+"mlp.", d.ff, false)
		return
	}
	d.add(p+"mlp.gate.weight", n, d.width)
	d.add(p+"mlp.moe_statics.e_score_correction_bias", 1, n)
	d.experts(p+"mlp.experts.", n, ff, "gate_proj", "up_proj", "down_proj")
	if s := d.int("moe_num_shared_experts"); s > 0 {
		d.gated(p+"mlp.shared_experts.", s*ff, false)
	}
}

func nemotron4Definition(d *definition) {
	d.add("model.embed_tokens.weight", d.vocab, d.width)
	d.layerNorm("model.norm")
	d.untied("lm_head", false)
	bias := d.h.Bool("attention_bias")
	d.eachLayer("model.layers.", func(i int, p string) {
		d.layerNorm(p+"input_layernorm", p+"post_attention_layernorm")
		d.attention(p+"self_attn.", bias, bias, noNorm, "", "")
		plainNetwork(d, i, p)
	})
}

func exaone3Definition(d *definition) {
	d.ends("transformer.wte", "transformer.ln_f", "lm_head")
	d.eachLayer("transformer.h.", func(_ int, p string) {
		d.norms(p, "ln_1", "ln_2")
		a := p + "attn.attention."
		d.add(a+"q_proj.weight", d.heads*d.head, d.width)
		d.add(a+"k_proj.weight", d.kv*d.head, d.width)
		d.add(a+"v_proj.weight", d.kv*d.head, d.width)
		d.add(a+"out_proj.weight", d.width, d.heads*d.head)
		d.add(p+"mlp.c_fc_0.weight", d.ff, d.width)
		d.add(p+"mlp.c_fc_1.weight", d.ff, d.width)
		d.add(p+"mlp.c_proj.weight", d.width, d.ff)
	})
}

// latent3Definition is MiniCPM 3, whose values are as wide as a head's plain
// part when the configuration does not say.
func latent3Definition(d *definition) {
	v := d.intOr(div(d.width, d.heads), "v_head_dim")
	d.h = d.h.Merge(hfconfig.Object{"tie_word_embeddings": true, "v_head_dim": v, "first_k_dense_replace": int64(d.layers)})
	latentDefinition(d)
}

// olmoDefinition has norms without weights.
func olmoDefinition(d *definition) {
	bias := d.h.Bool("attention_bias")
	d.add("model.embed_tokens.weight", d.vocab, d.width)
	d.untied("lm_head", false)
	d.eachLayer("model.layers.", func(_ int, p string) {
		d.attention(p+"self_attn.", bias, bias, noNorm, "", "")
		d.gated(p+"mlp.", d.ff, false)
	})
}

func baichuanDefinition(d *definition) {
	d.ends("model.embed_tokens", "model.norm", "lm_head")
	d.eachLayer("model.layers.", func(_ int, p string) {
		d.norms(p, "input_layernorm", "post_attention_layernorm")
		d.add(p+"self_attn.W_pack.weight", 3*d.width, d.width)
		d.add(p+"self_attn.o_proj.weight", d.width, d.width)
		d.gated(p+"mlp.", d.ff, false)
	})
}

func miniMax01Definition(d *definition) {
	kinds, inner := d.h.List("attn_type_list"), d.heads*d.head
	d.ends("model.embed_tokens", "model.norm", "lm_head")
	d.eachLayer("model.layers.", func(i int, p string) {
		a := p + "self_attn."
		d.norms(p, "input_layernorm", "post_attention_layernorm")
		if i < len(kinds) && kinds[i] == any(int64(1)) {
			d.attention(a, false, false, noNorm, "", "")
		} else {
			d.add(a+"qkv_proj.weight", 3*inner, d.width)
			d.add(a+"output_gate.weight", inner, d.width)
			d.add(a+"out_proj.weight", d.width, inner)
			d.add(a+"norm.weight", inner)
		}
		mixtralExperts(d, i, p)
	})
}

func nomicDefinition(d *definition) {
	if d.int("num_experts") > 0 {
		return
	}
	ff, bias := d.orDefault(4*d.width, "n_inner"), d.h.Bool("qkv_proj_bias")
	gated := d.h.String("activation_function") == "swiglu"
	d.add("embeddings.word_embeddings.weight", d.vocab, d.width)
	d.add("embeddings.token_type_embeddings.weight", d.intOr(2, "type_vocab_size"), d.width)
	d.layerNorm("emb_ln")
	d.eachLayer("encoder.layers.", func(_ int, p string) {
		d.layerNorm(p+"norm1", p+"norm2")
		d.linear(p+"attn.Wqkv", 3*d.width, d.width, bias)
		d.linear(p+"attn.out_proj", d.width, d.width, bias)
		if gated {
			d.linear(p+"mlp.fc11", ff, d.width, d.h.Bool("mlp_fc1_bias"))
			d.linear(p+"mlp.fc12", ff, d.width, d.h.Bool("mlp_fc1_bias"))
		} else {
			d.linear(p+"mlp.fc1", ff, d.width, d.h.Bool("mlp_fc1_bias"))
		}
		d.linear(p+"mlp.fc2", d.width, ff, d.h.Bool("mlp_fc2_bias"))
	})
}
