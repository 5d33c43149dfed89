package hf

import (
	"strings"
)

// encoderRows are the embedding models and the encoder-decoders.
var encoderRows = []row{
	{hf: []string{"BertModel", "BertForMaskedLM", "CamembertModel", "BertForSequenceClassification"}, arch: "bert", params: encoder, filter: bertFilter, modify: bertClassifier},
	{hf: []string{"JinaBertModel", "JinaBertForMaskedLM"}, arch: "jina-bert-v2", params: encoder, filter: bertFilter, modify: bertClassifier},
	{
		hf: []string{"DistilBertModel", "DistilBertForMaskedLM", "DistilBertForSequenceClassification"}, arch: "bert", params: encoder, modify: bertClassifier,
		prepare: func(c *converter) {
			if c.h.Find("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon") == nil {
				c.h["layer_norm_eps"] = 1e-12
			}
		},
		filter: func(c *converter, name string) string {
			name = strings.TrimPrefix(name, "distilbert.")
			if strings.HasPrefix(name, "vocab_") {
				return ""
			}
			return bertFilter(c, name)
		},
	},
	{
		hf: []string{"RobertaModel", "RobertaForSequenceClassification"}, arch: "bert", params: encoder, prepare: positionOffset,
		filter: chain(cut("roberta."), bertFilter), modify: cutPositions,
	},
	{
		hf: []string{"XLMRobertaModel", "XLMRobertaForSequenceClassification"}, arch: "bert", params: encoder,
		prepare: func(c *converter) {
			if len(c.h.List("lora_adaptations")) > 0 {
				c.arch = "jina-bert-v3"
			}
			positionOffset(c)
		},
		filter: func(c *converter, name string) string {
			name = strings.TrimPrefix(name, "roberta.")
			if strings.Contains(name, ".parametrizations.") {
				name = strings.TrimSuffix(strings.ReplaceAll(name, ".parametrizations.", "."), ".original")
			}
			if strings.HasSuffix(name, ".0.lora_A") || strings.HasSuffix(name, ".0.lora_B") {
				return "" // adapters, written to files of their own
			}
			return bertFilter(c, name)
		},
		modify: cutPositions,
	},
	{
		hf: []string{"NomicBertModel"}, arch: "nomic-bert",
		prepare: func(c *converter) {
			if c.int("moe_every_n_layers") > 0 {
				c.arch = "nomic-bert-moe"
			}
			switch positions := c.int("n_positions"); positions {
			case 8192:
				c.h["n_positions"] = int64(2048)
			case 2048:
				c.h["n_positions"] = int64(512)
			}
		},
		params: all(encoder, func(c *converter) {
			if c.arch == "nomic-bert-moe" {
				c.apply("moe_every_n_layers=moe_every_n_layers\nexpert_used_count=moe_top_k")
			}
		}),
		filter: chain(without("mlp.experts.bias"), bertFilter),
		modify: func(c *converter, t tensor) []tensor {
			n, ff, d := uint64(c.int("num_local_experts", "num_experts")), uint64(c.int("n_inner")), uint64(c.int("n_embd"))
			switch {
			case strings.Contains(t.name, "mlp.experts.mlp.w1"):
				t = t.with(t.name+".weight", n, ff, d)
			case strings.Contains(t.name, "mlp.experts.mlp.w2"):
				t = t.with(t.name+".weight", n, d, ff)
			}
			return []tensor{t}
		},
	},
	{
		hf: []string{"NeoBERT", "NeoBERTLMHead", "NeoBERTForSequenceClassification"}, arch: "neo-bert", modify: bertClassifier,
		params: all(encoder, keys("rope.freq_base==10000\nrope.scaling.type==none\npooling_type==2"), func(c *converter) {
			c.put("feed_forward_length", 2*c.int("intermediate_size")/3)
			c.put("attention.layer_norm_rms_epsilon", c.floatOr(1e-6, c.h, "norm_eps"))
		}),
		filter: func(c *converter, name string) string {
			if strings.HasPrefix(name, "decoder.") {
				return ""
			}
			return bertFilter(c, strings.TrimPrefix(name, "model."))
		},
	},
	{hf: []string{"EuroBertModel", "JinaEmbeddingsV5Model"}, arch: "eurobert", params: encoder, set: "rope.scaling.type==none", filter: cut("model.")},
	{
		hf: []string{"ModernBertModel", "ModernBertForMaskedLM", "ModernBertForSequenceClassification"}, arch: "modern-bert", params: encoder,
		set: `attention.sliding_window=local_attention
			attention.sliding_window_pattern=global_attn_every_n_layers
			rope.scaling.type==none
			vocab_size=vocab_size
			hidden_activation=hidden_activation`,
		filter: chain(cut("model."), bertFilter), modify: bertClassifier,
	},
	{
		hf:   []string{"T5ForConditionalGeneration", "T5WithLMHeadModel", "MT5ForConditionalGeneration", "UMT5ForConditionalGeneration", "UMT5Model"},
		arch: "t5", own: true, params: t5, set: "decoder_block_count=num_decoder_layers\ndecoder_start_token_id=decoder_start_token_id", modify: t5Embedding,
	},
	{hf: []string{"T5EncoderModel"}, arch: "t5encoder", own: true, params: t5, modify: t5Embedding},
}

// encoder marks a model without a causal mask, how many kinds of token it tells
// apart, and how its states are pooled.
func encoder(c *converter) {
	c.put("attention.causal", false)
	types := int64(1)
	if c.h.Find("type_vocab_size") != nil {
		types = c.int("type_vocab_size")
	}
	c.put("tokenizer.ggml.token_type_count", types)
	pool(c)
}

func bertFilter(_ *converter, name string) string {
	name = strings.TrimPrefix(name, "bert.")
	if base, ok := strings.CutSuffix(name, ".gamma"); ok {
		name = base + ".weight"
	}
	if base, ok := strings.CutSuffix(name, ".beta"); ok {
		name = base + ".bias"
	}
	switch {
	case name == "pooler.dense.weight", name == "pooler.dense.bias",
		strings.HasPrefix(name, "cls.predictions"), strings.HasPrefix(name, "cls.seq_relationship"):
		return ""
	}
	return name
}

// bertClassifier names the head of a classifier that has labels of its own.
func bertClassifier(c *converter, t tensor) []tensor {
	labels := c.h.Object("id2label")
	if len(labels) == 0 || len(labels) == 2 && labels["0"] == "LABEL_0" {
		return []tensor{t}
	}
	if end, ok := strings.CutPrefix(t.name, "classifier."); ok && (end == "weight" || end == "bias") {
		t.name = "classifier.out_proj." + end
	}
	return []tensor{t}
}

// positionOffset takes the positions off that RoBERTa keeps for padding.
func positionOffset(c *converter) {
	if pad, ok := c.h.Int("pad_token_id"); ok {
		c.scratch["offset"] = int(1 + pad)
		if n, ok := c.h.Int("max_position_embeddings"); ok {
			c.h["max_position_embeddings"] = n - 1 - pad
		}
	}
}

func cutPositions(c *converter, t tensor) []tensor {
	if off := uint64(max(c.scratch["offset"], 0)); t.name == "embeddings.position_embeddings.weight" && t.dim(0) > off {
		t = t.resized(0, t.dim(0)-off)
	}
	return bertClassifier(c, t)
}

func t5(c *converter) {
	blockCount(c)
	c.put("context_length", c.intOr(512, "n_positions"))
	c.apply(`embedding_length=d_model
		feed_forward_length=d_ff
		attention.head_count=num_heads
		attention.key_length=d_kv
		attention.value_length=d_kv
		attention.layer_norm_epsilon=layer_norm_epsilon
		attention.layer_norm_rms_epsilon=layer_norm_epsilon
		attention.relative_buckets_count=relative_attention_num_buckets`)
}

// t5Embedding keeps the first of the equal embeddings of encoder and decoder.
func t5Embedding(c *converter, t tensor) []tensor {
	switch t.name {
	case "decoder.embed_tokens.weight", "encoder.embed_tokens.weight", "shared.weight":
		if c.scratch["embedding"]++; c.scratch["embedding"] > 1 {
			return nil
		}
		t.name = "shared.weight"
	}
	return []tensor{t}
}
