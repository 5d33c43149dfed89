package hf

import (
	"slices"
	"strings"

	"weigh/formats"
	"weigh/formats/hfconfig"
)

// A definition collects the parameters that a class defines for a
// configuration. Experts stand stacked, one tensor for each of their matrices.
type definition struct {
	*converter
	typ formats.DType
	out []Weight

	width, vocab, heads, kv, head, ff int64
}

// maxDefined is the most layers of a definition: as many as llama.cpp loads.
const maxDefined = 512

// define returns the parameters of the language model that a configuration's
// class defines, nil for a class that is not described here. Layers that
// predict further tokens and other towers are left out.
//
// Source: transformers src/transformers/models/*/modeling_*.py.
func define(class string, h hfconfig.Object, layers int) []Weight {
	f := definitions()[class]
	if f == nil || rowOf(class) == nil || h.String("model_type") == "mistral4" || layers < 1 || layers > maxDefined {
		return nil
	}
	d := &definition{converter: &converter{class: class, arch: rowOf(class).arch, h: h.Merge(nil), layers: layers, blocks: layers, scratch: map[string]int{}}, typ: typeOf(h)}
	d.width, d.vocab = d.int("hidden_size", "n_embd", "n_embed", "d_model"), d.int("vocab_size")
	d.heads = d.int("num_attention_heads", "n_head", "n_heads", "num_heads")
	d.kv, d.head, d.ff = d.intOr(d.heads, "num_key_value_heads"), d.headDim(), d.int("intermediate_size")
	if d.width < 1 || d.vocab < 1 {
		return nil
	}
	f(d)
	for i := range d.out {
		if d.out[i].Params == 0 {
			return nil // a width that the description needs is missing
		}
	}
	return d.out // nil when nothing is certain
}

// typeOf returns the type that a configuration says the weights have.
func typeOf(h hfconfig.Object) formats.DType {
	switch h.String("dtype", "torch_dtype") {
	case "float16":
		return formats.F16
	case "float32":
		return formats.F32
	}
	return formats.BF16
}

func (d *definition) add(name string, shape ...int64) {
	w := Weight{Name: name, Type: d.typ}
	for _, n := range shape {
		w.Shape = append(w.Shape, uint64(min(max(n, 0), 1<<40)))
	}
	w.Params = params(w.Shape)
	w.Bytes = d.typ.RowBytes(min(w.Params, 1<<58))
	d.out = append(d.out, w)
}

// linear adds a matrix, and a bias when it has one.
func (d *definition) linear(name string, out, in int64, bias bool) {
	d.add(name+".weight", out, in)
	if bias {
		d.add(name+".bias", out)
	}
}

// norms adds vectors as wide as the model.
func (d *definition) norms(prefix string, names ...string) {
	for _, n := range names {
		d.add(prefix+n+".weight", d.width)
	}
}

// ends adds the embedding, the last norm and, unless it is tied, the head.
func (d *definition) ends(embed, norm, head string) {
	d.add(embed+".weight", d.vocab, d.width)
	d.norms("", norm)
	if !d.h.Bool("tie_word_embeddings") {
		d.add(head+".weight", d.vocab, d.width)
	}
}

// What norms queries and keys have.
const (
	noNorm   = iota
	headNorm // of a head
	fullNorm // of all heads together
)

// attention adds a layer's projections.
func (d *definition) attention(p string, bias, outBias bool, norm int, q, k string) {
	qd, kd := d.heads*d.head, d.kv*d.head
	d.linear(p+"q_proj", qd, d.width, bias)
	d.linear(p+"k_proj", kd, d.width, bias)
	d.linear(p+"v_proj", kd, d.width, bias)
	d.linear(p+"o_proj", d.width, qd, outBias)
	switch norm {
	case headNorm:
		d.add(p+q+".weight", d.head)
		d.add(p+k+".weight", d.head)
	case fullNorm:
		d.add(p+q+".weight", qd)
		d.add(p+k+".weight", kd)
	}
}

// gated adds a gated feed-forward network of width ff.
func (d *definition) gated(p string, ff int64, bias bool) {
	d.linear(p+"gate_proj", ff, d.width, bias)
	d.linear(p+"up_proj", ff, d.width, bias)
	d.linear(p+"down_proj", d.width, ff, bias)
}

// experts adds n gated networks of width ff under three names.
func (d *definition) experts(p string, n, ff int64, gate, up, down string) {
	d.add(p+gate+".weight", n, ff, d.width)
	d.add(p+up+".weight", n, ff, d.width)
	d.add(p+down+".weight", n, d.width, ff)
}

func (d *definition) eachLayer(prefix string, f func(i int, p string)) {
	for i := range d.layers {
		f(i, prefix+itoa(i)+".")
	}
}

// A decoder describes the block that most classes have.
type decoder struct {
	norms         []string // of a layer; nil for the usual two
	bias, outBias bool     // of the projections, whatever attention_bias says
	qk            int
	q, k          string // the norms of queries and keys; "" for the usual names
	mlp           func(d *definition, i int, p string)
}

func (o decoder) define(d *definition) {
	norms := o.norms
	if norms == nil {
		norms = []string{"input_layernorm", "post_attention_layernorm"}
	}
	if o.q == "" {
		o.q, o.k = "q_norm", "k_norm"
	}
	said := d.h.Bool("attention_bias")
	d.ends("model.embed_tokens", "model.norm", "lm_head")
	d.eachLayer("model.layers.", func(i int, p string) {
		d.norms(p, norms...)
		d.attention(p+"self_attn.", o.bias || said, o.outBias || said && !o.bias, o.qk, o.q, o.k)
		if o.mlp != nil {
			o.mlp(d, i, p)
		} else {
			d.gated(p+"mlp.", d.ff, d.h.Bool("mlp_bias"))
		}
	})
}

// definitions are the classes that are described.
func definitions() map[string]func(d *definition) {
	all := map[string]func(d *definition){}
	put := func(f func(d *definition), classes ...string) {
		for _, c := range classes {
			all[c] = f
		}
	}
	after := []string{"post_attention_layernorm", "post_feedforward_layernorm"}
	put(decoder{}.define, "LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM", "Mistral3ForConditionalGeneration", "Ministral3ForCausalLM", "LlavaForConditionalGeneration", "VLlama3ForCausalLM", "SmolLM3ForCausalLM", "GraniteForCausalLM", "Ernie4_5ForCausalLM", "InternLM3ForCausalLM")
	put(decoder{mlp: mixtralExperts}.define, "MixtralForCausalLM")
	put(decoder{bias: true}.define, "Qwen2ForCausalLM", "Qwen2AudioForConditionalGeneration", "Qwen2_5OmniModel", "Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration")
	put(decoder{qk: headNorm}.define, "Qwen3ForCausalLM", "Qwen3VLForConditionalGeneration")
	put(decoder{bias: true, mlp: qwenExperts}.define, "Qwen2MoeForCausalLM")
	put(decoder{qk: headNorm, mlp: qwenExperts}.define, "Qwen3MoeForCausalLM")
	put(decoder{}.define, "GemmaForCausalLM")
	put(decoder{norms: gemmaNorms}.define, "Gemma2ForCausalLM")
	put(decoder{norms: gemmaNorms, qk: headNorm}.define, "Gemma3ForCausalLM", "Gemma3ForConditionalGeneration")
	put(decoder{norms: after, qk: fullNorm}.define, "Olmo2ForCausalLM", "Olmo3ForCausalLM")
	put(decoder{norms: after, qk: headNorm}.define, "Exaone4ForCausalLM")
	put(decoder{qk: fullNorm, mlp: func(d *definition, _ int, p string) {
		d.add(p+"mlp.gate.weight", d.int("num_experts"), d.width)
		d.experts(p+"mlp.experts.", d.int("num_experts"), d.ff, "gate_proj", "up_proj", "down_proj")
	}}.define, "OlmoeForCausalLM")
	put(decoder{qk: headNorm, q: "query_layernorm", k: "key_layernorm"}.define, "HunYuanDenseV1ForCausalLM")
	put(decoder{norms: []string{"input_layernorm"}}.define, "CohereForCausalLM", "Cohere2ForCausalLM")
	put(seedOSS, "SeedOssForCausalLM")
	put(phi3Definition, "Phi3ForCausalLM")
	put(glm4Definition, "Glm4ForCausalLM")
	put(glm4MoEDefinition, "Glm4MoeForCausalLM", "Glm4vMoeForConditionalGeneration")
	put(decoder{qk: fullNorm, mlp: func(d *definition, _ int, p string) {
		e := d.int("num_local_experts")
		d.add(p+"block_sparse_moe.gate.weight", e, d.width)
		d.add(p+"block_sparse_moe.e_score_correction_bias", e)
		d.experts(p+"block_sparse_moe.experts.", e, d.ff, "w1", "w3", "w2")
	}}.define, "MiniMaxM2ForCausalLM")
	put(gptOSSDefinition, "GptOssForCausalLM")
	put(latentDefinition, "DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "KimiVLForConditionalGeneration", "KimiK25ForConditionalGeneration", "Glm4MoeLiteForCausalLM", "DeepseekV32ForCausalLM")
	put(decoder{mlp: func(d *definition, i int, p string) { sharedExperts(d, i, p, false) }}.define, "DeepseekForCausalLM")
	put(lfm2Definition, "Lfm2ForCausalLM", "Lfm2MoeForCausalLM")
	put(jambaDefinition, "JambaForCausalLM")
	put(graniteDefinition, "GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM", "GraniteMoeHybridForCausalLM")
	put(nemotronDefinition, "NemotronHForCausalLM")
	put(qwenNextDefinition, "Qwen3NextForCausalLM", "Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM", "Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM")
	put(falconH1Definition, "FalconH1ForCausalLM")
	put(mambaDefinition, "MambaForCausalLM", "MambaLMHeadModel", "FalconMambaForCausalLM", "Mamba2ForCausalLM")
	put(bertDefinition, "BertModel", "XLMRobertaModel", "RobertaModel")
	put(t5Definition, "T5ForConditionalGeneration")
	moreDefinitions(put)
	return all
}

func seedOSS(d *definition) {
	bias := true
	if v, ok := d.h["attention_bias"].(bool); ok {
		bias = v
	}
	out := d.h.Bool("attention_out_bias")
	d.h = d.h.Merge(hfconfig.Object{"attention_bias": false})
	decoder{bias: bias, outBias: out}.define(d)
}

func mixtralExperts(d *definition, _ int, p string) {
	n := d.int("num_local_experts")
	d.add(p+"block_sparse_moe.gate.weight", n, d.width)
	d.experts(p+"block_sparse_moe.experts.", n, d.ff, "w1", "w3", "w2")
}

// qwenExperts adds the experts of Qwen's classes, with the shared one that some
// have, and the dense network of the layers that have none.
func qwenExperts(d *definition, i int, p string) {
	step := max(d.intOr(1, "decoder_sparse_step"), 1)
	if slices.Contains(d.h.List("mlp_only_layers"), any(int64(i))) || (int64(i)+1)%step != 0 {
		d.gated(p+"mlp.", d.ff, false)
		return
	}
	n := d.int("num_experts", "num_local_experts")
	d.add(p+"mlp.gate.weight", n, d.width)
	if ff := d.int("moe_intermediate_size"); strings.HasPrefix(d.class, "Qwen3_5Moe") {
		d.add(p+"mlp.experts.gate_up_proj", n, 2*ff, d.width)
		d.add(p+"mlp.experts.down_proj", n, d.width, ff)
	} else {
		d.experts(p+"mlp.experts.", n, ff, "gate_proj", "up_proj", "down_proj")
	}
	if ff := d.int("shared_expert_intermediate_size"); ff > 0 {
		d.gated(p+"mlp.shared_expert.", ff, false)
		d.add(p+"mlp.shared_expert_gate.weight", 1, d.width)
	}
}

func phi3Definition(d *definition) {
	d.ends("model.embed_tokens", "model.norm", "lm_head")
	d.eachLayer("model.layers.", func(_ int, p string) {
		d.norms(p, "input_layernorm", "post_attention_layernorm")
		d.add(p+"self_attn.qkv_proj.weight", (d.heads+2*d.kv)*d.head, d.width)
		d.add(p+"self_attn.o_proj.weight", d.width, d.heads*d.head)
		d.add(p+"mlp.gate_up_proj.weight", 2*d.ff, d.width)
		d.add(p+"mlp.down_proj.weight", d.width, d.ff)
	})
}

func glm4Definition(d *definition) {
	decoder{
		norms: []string{"input_layernorm", "post_attention_layernorm", "post_self_attn_layernorm", "post_mlp_layernorm"},
		mlp: func(d *definition, _ int, p string) {
			d.add(p+"mlp.gate_up_proj.weight", 2*d.ff, d.width)
			d.add(p+"mlp.down_proj.weight", d.width, d.ff)
		},
	}.define(d)
}

// sharedExperts adds DeepSeek's experts, or the dense network of the first
// layers.
func sharedExperts(d *definition, i int, p string, corrected bool) {
	if int64(i) < d.int("first_k_dense_replace") {
		d.gated(p+"mlp.", d.ff, false)
		return
	}
	n, ff := d.int("n_routed_experts", "num_experts", "num_local_experts"), d.int("moe_intermediate_size")
	d.add(p+"mlp.gate.weight", n, d.width)
	if corrected {
		d.add(p+"mlp.gate.e_score_correction_bias", n)
	}
	d.experts(p+"mlp.experts.", n, ff, "gate_proj", "up_proj", "down_proj")
	if s := d.int("n_shared_experts"); s > 0 {
		d.gated(p+"mlp.shared_experts.", s*ff, false)
	}
}

func glm4MoEDefinition(d *definition) {
	qk := noNorm
	if d.h.Bool("use_qk_norm") {
		qk = headNorm
	}
	bias := d.h.Bool("attention_bias")
	d.h = d.h.Merge(hfconfig.Object{"attention_bias": false})
	decoder{bias: bias, qk: qk, mlp: func(d *definition, i int, p string) { sharedExperts(d, i, p, true) }}.define(d)
}

func gptOSSDefinition(d *definition) {
	d.h = d.h.Merge(hfconfig.Object{"attention_bias": false})
	packed := ""
	if d.h.Object("quantization_config").String("quant_method") == "mxfp4" {
		packed = "mxfp4"
	}
	decoder{bias: true, outBias: true, mlp: func(d *definition, _ int, p string) {
		n := d.int("num_local_experts", "num_experts")
		d.add(p+"self_attn.sinks", d.heads)
		d.linear(p+"mlp.router", n, d.width, true)
		expert := func(name string, out, in int64) {
			d.add(p+"mlp.experts."+name+"_bias", n, out)
			if packed == "" { // as it is stored, input dimension first
				out, in = in, out
			}
			d.add(p+"mlp.experts."+name, n, out, in)
			d.out[len(d.out)-1].Packed = packed
		}
		expert("gate_up_proj", 2*d.ff, d.width)
		expert("down_proj", d.width, d.ff)
	}}.define(d)
}

func latentDefinition(d *definition) {
	nope, rot, v := d.int("qk_nope_head_dim"), d.int("qk_rope_head_dim"), d.int("v_head_dim")
	q, kv := d.int("q_lora_rank"), d.int("kv_lora_rank")
	corrected := d.class != "DeepseekV2ForCausalLM" || d.h.String("topk_method") == "noaux_tc"
	d.ends("model.embed_tokens", "model.norm", "lm_head")
	d.eachLayer("model.layers.", func(i int, p string) {
		d.norms(p, "input_layernorm", "post_attention_layernorm")
		a := p + "self_attn."
		if q > 0 {
			d.add(a+"q_a_proj.weight", q, d.width)
			d.add(a+"q_a_layernorm.weight", q)
			d.add(a+"q_b_proj.weight", d.heads*(nope+rot), q)
		} else {
			d.add(a+"q_proj.weight", d.heads*(nope+rot), d.width)
		}
		d.add(a+"kv_a_proj_with_mqa.weight", kv+rot, d.width)
		d.add(a+"kv_a_layernorm.weight", kv)
		d.add(a+"kv_b_proj.weight", d.heads*(nope+v), kv)
		d.add(a+"o_proj.weight", d.width, d.heads*v)
		if n, head := d.int("index_n_heads"), d.int("index_head_dim"); n > 0 && head > 0 {
			x := a + "indexer."
			d.add(x+"wq_b.weight", n*head, q)
			d.add(x+"wk.weight", head, d.width)
			d.add(x+"k_norm.weight", head)
			d.add(x+"k_norm.bias", head)
			d.add(x+"weights_proj.weight", n, d.width)
		}
		sharedExperts(d, i, p, corrected)
	})
}

func lfm2Definition(d *definition) {
	moe := d.class == "Lfm2MoeForCausalLM"
	ff := d.ff
	if !moe {
		ff = lfm2Width(d.converter)
	}
	full := lfm2Attention(d.converter)
	d.ends("model.embed_tokens", "model.embedding_norm", "lm_head")
	d.eachLayer("model.layers.", func(i int, p string) {
		d.norms(p, "operator_norm", "ffn_norm")
		if full[i] {
			a := p + "self_attn."
			d.add(a+"q_proj.weight", d.heads*d.head, d.width)
			d.add(a+"k_proj.weight", d.kv*d.head, d.width)
			d.add(a+"v_proj.weight", d.kv*d.head, d.width)
			d.add(a+"out_proj.weight", d.width, d.heads*d.head)
			d.add(a+"q_layernorm.weight", d.head)
			d.add(a+"k_layernorm.weight", d.head)
		} else {
			d.add(p+"conv.conv.weight", d.width, 1, d.int("conv_L_cache"))
			d.linear(p+"conv.in_proj", 3*d.width, d.width, d.h.Bool("conv_bias"))
			d.linear(p+"conv.out_proj", d.width, d.width, d.h.Bool("conv_bias"))
		}
		f := p + "feed_forward."
		if moe && int64(i) >= d.int("num_dense_layers") {
			n := d.int("num_experts")
			d.add(f+"gate.weight", n, d.width)
			if use, ok := d.h["use_expert_bias"].(bool); use || !ok {
				d.add(f+"expert_bias", n)
			}
			d.experts(f+"experts.", n, d.int("moe_intermediate_size"), "w1", "w3", "w2")
			return
		}
		d.add(f+"w1.weight", ff, d.width)
		d.add(f+"w3.weight", ff, d.width)
		d.add(f+"w2.weight", d.width, ff)
	})
}

// mamba1 adds a mixer of the first Mamba.
func (d *definition) mamba1(p string, inner, state, kernel, rank int64) {
	d.add(p+"in_proj.weight", 2*inner, d.width)
	d.add(p+"conv1d.weight", inner, 1, kernel)
	d.add(p+"conv1d.bias", inner)
	d.add(p+"x_proj.weight", rank+2*state, inner)
	d.linear(p+"dt_proj", inner, rank, true)
	d.add(p+"A_log", inner, state)
	d.add(p+"D", inner)
	d.add(p+"out_proj.weight", d.width, inner)
}

// mamba2 adds a mixer of the second.
func (d *definition) mamba2(p string, inner, state, groups, heads, kernel int64, bias, norm bool) {
	conv := inner + 2*groups*state
	d.linear(p+"in_proj", inner+conv+heads, d.width, bias)
	d.add(p+"conv1d.weight", conv, 1, kernel)
	d.add(p+"conv1d.bias", conv)
	d.add(p+"dt_bias", heads)
	d.add(p+"A_log", heads)
	d.add(p+"D", heads)
	if norm {
		d.add(p+"norm.weight", inner)
	}
	d.linear(p+"out_proj", d.width, inner, bias)
}

func jambaDefinition(d *definition) {
	rank := d.orDefault((d.width+15)/16, "mamba_dt_rank")
	state := d.orDefault(16, "mamba_d_state")
	every := func(i int, offset, period string) bool {
		n, of := int64(i)-d.int(offset), d.int(period)
		return of > 0 && n >= 0 && n%of == 0
	}
	d.ends("model.embed_tokens", "model.final_layernorm", "lm_head")
	d.eachLayer("model.layers.", func(i int, p string) {
		d.norms(p, "input_layernorm", "pre_ff_layernorm")
		if every(i, "attn_layer_offset", "attn_layer_period") {
			d.attention(p+"self_attn.", false, false, noNorm, "", "")
		} else {
			d.mamba1(p+"mamba.", d.int("mamba_expand")*d.width, state, d.orDefault(4, "mamba_d_conv"), rank)
			d.add(p+"mamba.dt_layernorm.weight", rank)
			d.add(p+"mamba.b_layernorm.weight", state)
			d.add(p+"mamba.c_layernorm.weight", state)
		}
		if n := d.int("num_experts", "num_local_experts"); n > 1 && every(i, "expert_layer_offset", "expert_layer_period") {
			d.add(p+"feed_forward.router.weight", n, d.width)
			d.experts(p+"feed_forward.experts.", n, d.ff, "gate_proj", "up_proj", "down_proj")
			return
		}
		d.gated(p+"feed_forward.", d.ff, false)
	})
}

func graniteDefinition(d *definition) {
	d.prefixed("mamba")
	attn := graniteAttention(d.converter)
	hybrid := d.class == "GraniteMoeHybridForCausalLM"
	delete(d.h, "head_dim")
	d.head = d.headDim()
	heads, n := d.int("mamba_n_heads"), d.int("num_local_experts")
	inner := d.int("mamba_expand") * d.width
	d.ends("model.embed_tokens", "model.norm", "lm_head")
	d.eachLayer("model.layers.", func(i int, p string) {
		d.norms(p, "input_layernorm", "post_attention_layernorm")
		if !hybrid || slices.Contains(attn, i) {
			bias := d.h.Bool("attention_bias")
			d.attention(p+"self_attn.", bias, bias, noNorm, "", "")
		} else {
			d.mamba2(p+"mamba.", inner, d.int("mamba_d_state"), d.int("mamba_n_groups"), heads, d.int("mamba_d_conv"), d.h.Bool("mamba_proj_bias"), true)
		}
		if n > 0 {
			d.add(p+"block_sparse_moe.router.layer.weight", n, d.width)
			d.add(p+"block_sparse_moe.input_linear.weight", n, 2*d.ff, d.width)
			d.add(p+"block_sparse_moe.output_linear.weight", n, d.width, d.ff)
		}
		if ff := d.int("shared_intermediate_size"); ff > 0 {
			d.add(p+"shared_mlp.input_linear.weight", 2*ff, d.width)
			d.add(p+"shared_mlp.output_linear.weight", d.width, ff)
		}
	})
}

func nemotronDefinition(d *definition) {
	blocks := nemotronBlocks(d.converter)
	if len(blocks) > maxDefined {
		return
	}
	if len(blocks) > 0 {
		d.layers = len(blocks)
	}
	if n, ok := d.h.Int("head_dim", "attention_head_dim"); ok {
		d.head = n
	}
	heads := d.int("mamba_num_heads")
	inner := heads * d.int("mamba_head_dim")
	d.ends("backbone.embeddings", "backbone.norm_f", "lm_head")
	d.eachLayer("backbone.layers.", func(i int, p string) {
		d.norms(p, "norm")
		p += "mixer."
		kind := ""
		if i < len(blocks) {
			kind = blocks[i]
		}
		switch kind {
		case "*", "attention", "full_attention":
			d.attention(p, false, false, noNorm, "", "")
		case "-", "mlp":
			d.add(p+"up_proj.weight", d.ff, d.width)
			d.add(p+"down_proj.weight", d.width, d.ff)
		case "E", "moe":
			n, ff := d.int("n_routed_experts"), d.int("moe_intermediate_size")
			d.add(p+"gate.weight", n, d.width)
			d.add(p+"gate.e_score_correction_bias", n)
			in := d.width
			if latent := d.int("moe_latent_size"); latent > 0 {
				in = latent
				d.add(p+"fc1_latent_proj.weight", latent, d.width)
				d.add(p+"fc2_latent_proj.weight", d.width, latent)
			}
			d.add(p+"experts.up_proj.weight", n, ff, in)
			d.add(p+"experts.down_proj.weight", n, in, ff)
			if shared := d.int("moe_shared_expert_intermediate_size") * max(d.int("n_shared_experts"), 1); shared > 0 {
				d.add(p+"shared_experts.up_proj.weight", shared, d.width)
				d.add(p+"shared_experts.down_proj.weight", d.width, shared)
			}
		default:
			d.mamba2(p, inner, d.int("ssm_state_size"), d.int("n_groups"), heads, d.int("conv_kernel"), d.h.Bool("use_bias"), true)
		}
	})
}

func qwenNextDefinition(d *definition) {
	k := d.int("linear_key_head_dim") * d.int("linear_num_key_heads")
	nv := d.int("linear_num_value_heads")
	v := d.int("linear_value_head_dim") * nv
	linear := d.types("linear_attention")
	every := max(d.intOr(4, "full_attention_interval"), 1)
	split := d.class != "Qwen3NextForCausalLM"
	d.ends("model.embed_tokens", "model.norm", "lm_head")
	d.eachLayer("model.layers.", func(i int, p string) {
		d.norms(p, "input_layernorm", "post_attention_layernorm")
		if linear != nil && linear[i] || linear == nil && (int64(i)+1)%every != 0 {
			l := p + "linear_attn."
			if split {
				d.add(l+"in_proj_qkv.weight", 2*k+v, d.width)
				d.add(l+"in_proj_z.weight", v, d.width)
				d.add(l+"in_proj_b.weight", nv, d.width)
				d.add(l+"in_proj_a.weight", nv, d.width)
			} else {
				d.add(l+"in_proj_qkvz.weight", 2*k+2*v, d.width)
				d.add(l+"in_proj_ba.weight", 2*nv, d.width)
			}
			d.add(l+"conv1d.weight", 2*k+v, 1, d.int("linear_conv_kernel_dim"))
			d.add(l+"dt_bias", nv)
			d.add(l+"A_log", nv)
			d.add(l+"norm.weight", d.int("linear_value_head_dim"))
			d.add(l+"out_proj.weight", d.width, v)
		} else {
			a := p + "self_attn."
			d.add(a+"q_proj.weight", 2*d.heads*d.head, d.width) // with a gate for each value
			d.add(a+"k_proj.weight", d.kv*d.head, d.width)
			d.add(a+"v_proj.weight", d.kv*d.head, d.width)
			d.add(a+"o_proj.weight", d.width, d.heads*d.head)
			d.add(a+"q_norm.weight", d.head)
			d.add(a+"k_norm.weight", d.head)
		}
		if d.int("num_experts") > 0 {
			qwenExperts(d, i, p)
			return
		}
		d.gated(p+"mlp.", d.ff, false)
	})
}

func falconH1Definition(d *definition) {
	d.prefixed("mamba")
	inner := d.orDefault(d.intOr(2, "mamba_expand")*d.width, "mamba_d_ssm")
	d.ends("model.embed_tokens", "model.final_layernorm", "lm_head")
	d.eachLayer("model.layers.", func(_ int, p string) {
		d.norms(p, "input_layernorm", "pre_ff_layernorm")
		bias := d.h.Bool("attention_bias")
		d.attention(p+"self_attn.", bias, bias, noNorm, "", "")
		d.mamba2(p+"mamba.", inner, d.int("mamba_d_state"), d.int("mamba_n_groups"), d.int("mamba_n_heads"), d.int("mamba_d_conv"), d.h.Bool("mamba_proj_bias"), d.h.Bool("mamba_rms_norm"))
		d.gated(p+"feed_forward.", d.ff, d.h.Bool("mlp_bias"))
	})
}

func mambaDefinition(d *definition) {
	second := d.class == "Mamba2ForCausalLM"
	if d.h.Has("ssm_cfg") { // its authors' form, which rounds the vocabulary itself
		padVocabulary(map[bool]int64{false: 8, true: 16}[second])(d.converter)
		d.vocab = d.int("vocab_size")
	}
	inner := d.orDefault(d.orDefault(2, "expand")*d.width, "intermediate_size", "d_inner")
	d.add("backbone.embeddings.weight", d.vocab, d.width)
	d.add("backbone.norm_f.weight", d.width)
	if tied, ok := d.h["tie_word_embeddings"].(bool); ok && !tied || !ok && second && !d.h.Bool("tie_embeddings") {
		d.add("lm_head.weight", d.vocab, d.width)
	}
	kernel := d.orDefault(4, "conv_kernel", "d_conv")
	d.eachLayer("backbone.layers.", func(_ int, p string) {
		d.norms(p, "norm")
		if second {
			heads := d.orDefault(div(inner, d.orDefault(64, "head_dim", "headdim")), "num_heads")
			d.mamba2(p+"mixer.", inner, d.orDefault(128, "state_size", "d_state"), d.orDefault(1, "n_groups", "ngroups"), heads, kernel, d.h.Bool("use_bias"), true)
			return
		}
		d.mamba1(p+"mixer.", inner, d.orDefault(16, "state_size", "d_state"), kernel, d.orDefault((d.width+15)/16, "time_step_rank", "dt_rank"))
	})
}

func bertDefinition(d *definition) {
	norm := func(name string) {
		d.add(name+".weight", d.width)
		d.add(name+".bias", d.width)
	}
	d.add("embeddings.word_embeddings.weight", d.vocab, d.width)
	d.add("embeddings.position_embeddings.weight", d.int("max_position_embeddings"), d.width)
	d.add("embeddings.token_type_embeddings.weight", d.intOr(2, "type_vocab_size"), d.width)
	norm("embeddings.LayerNorm")
	d.eachLayer("encoder.layer.", func(_ int, p string) {
		for _, n := range []string{"self.query", "self.key", "self.value", "output.dense"} {
			d.linear(p+"attention."+n, d.width, d.width, true)
		}
		norm(p + "attention.output.LayerNorm")
		d.linear(p+"intermediate.dense", d.ff, d.width, true)
		d.linear(p+"output.dense", d.width, d.ff, true)
		norm(p + "output.LayerNorm")
	})
	d.linear("pooler.dense", d.width, d.width, true)
}

func t5Definition(d *definition) {
	inner, ff := d.heads*d.int("d_kv"), d.int("d_ff")
	gated := strings.HasPrefix(d.h.String("feed_forward_proj"), "gated")
	d.add("shared.weight", d.vocab, d.width)
	if tied, ok := d.h["tie_word_embeddings"].(bool); ok && !tied {
		d.add("lm_head.weight", d.vocab, d.width)
	}
	for _, stack := range []string{"encoder.", "decoder."} {
		layers := d.layers
		if stack == "decoder." {
			layers = int(min(max(d.intOr(int64(d.layers), "num_decoder_layers"), 0), maxBlocks))
		}
		for i := range layers {
			p := stack + "block." + itoa(i) + ".layer."
			attention := func(n, name string) {
				for _, m := range []string{"q", "k", "v"} {
					d.add(p+n+"."+name+"."+m+".weight", inner, d.width)
				}
				d.add(p+n+"."+name+".o.weight", d.width, inner)
				d.add(p+n+".layer_norm.weight", d.width)
			}
			attention("0", "SelfAttention")
			if i == 0 {
				d.add(p+"0.SelfAttention.relative_attention_bias.weight", d.int("relative_attention_num_buckets"), d.heads)
			}
			last := "1"
			if stack == "decoder." {
				attention("1", "EncDecAttention")
				last = "2"
			}
			if gated {
				d.add(p+last+".DenseReluDense.wi_0.weight", ff, d.width)
				d.add(p+last+".DenseReluDense.wi_1.weight", ff, d.width)
			} else {
				d.add(p+last+".DenseReluDense.wi.weight", ff, d.width)
			}
			d.add(p+last+".DenseReluDense.wo.weight", d.width, ff)
			d.add(p+last+".layer_norm.weight", d.width)
		}
		d.add(stack+"final_layer_norm.weight", d.width)
	}
}
