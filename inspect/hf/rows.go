package hf

import (
	"slices"
	"strings"
)

// rows is the table of Hugging Face architectures; the families add theirs.
//
// Source of all of it: llama.cpp conversion/*.py@v0.5.0; a family's file is
// named where its rules are more than keys and names.
var rows = slices.Concat(llamaRows, qwenRows, gemmaRows, deepseekRows, stateRows, encoderRows, expertRows, olderRows, otherRows)

// rowOf returns the row of a class, or nil.
func rowOf(class string) *row {
	for i := range rows {
		if slices.Contains(rows[i].hf, class) {
			return &rows[i]
		}
	}
	return nil
}

// all runs several of a row's functions in turn.
func all(fs ...func(c *converter)) func(c *converter) {
	return func(c *converter) {
		for _, f := range fs {
			f(c)
		}
	}
}

// keys returns a function that writes the keys of a row's set.
func keys(set string) func(c *converter) { return func(c *converter) { c.apply(set) } }

// rotateHead says that whole heads are rotated.
func rotateHead(c *converter) { c.put("rope.dimension_count", c.headDim()) }

// rotatePart returns a function that says what part of a head is rotated, def
// when the configuration does not.
func rotatePart(def float64) func(c *converter) {
	return func(c *converter) { c.put("rope.dimension_count", c.partial(c.headDim(), def)) }
}

// window writes the sliding window and, where layer_types says them, the layers
// that have it.
func window(c *converter) {
	c.put("attention.sliding_window", c.h["sliding_window"])
	c.put("attention.sliding_window_pattern", c.types("sliding_attention"))
}

// nextPredicting adds the layers that predict further tokens to the blocks.
func nextPredicting(c *converter) {
	n := max(c.int("num_nextn_predict_layers"), 0)
	c.blocks += int(n)
	c.scratch["nextn"] = int(n)
}

// writeNext writes how many of the blocks predict further tokens.
func writeNext(c *converter) {
	if n := c.scratch["nextn"]; n > 0 {
		c.put("nextn_predict_layers", n)
	}
}

// moe are the keys of most mixtures of experts in DeepSeek's spelling.
const moe = moeNoNorm + "expert_weights_norm=norm_topk_prob\n"

const moeNoNorm = `expert_feed_forward_length=moe_intermediate_size
	expert_shared_count=n_shared_experts|num_shared_experts
	expert_weights_scale=routed_scaling_factor
	leading_dense_block_count=first_k_dense_replace
	`

// llama3Rope adds the frequency factors of Llama 3's rotary embedding.
func llama3Rope(c *converter) []tensor {
	if strings.ToLower(c.fullRope().String("rope_type")) != "llama3" {
		return nil
	}
	return []tensor{{name: "rope_freqs.weight", shape: []uint64{uint64(c.headDim()+1) / 2}}}
}

// longRope adds the frequency factors of a long context.
func longRope(c *converter) []tensor {
	long, short := c.rope.List("long_factor"), c.rope.List("short_factor")
	if len(long) == 0 || len(short) == 0 {
		return nil
	}
	return []tensor{
		{name: "rope_factors_long.weight", shape: []uint64{uint64(len(long))}},
		{name: "rope_factors_short.weight", shape: []uint64{uint64(len(short))}},
	}
}

// rename returns a filter that replaces text in names: pairs of old and new.
func rename(pairs ...string) func(*converter, string) string {
	r := strings.NewReplacer(pairs...)
	return func(_ *converter, name string) string { return r.Replace(name) }
}

// cut returns a filter that takes a prefix away.
func cut(prefixes ...string) func(*converter, string) string {
	return func(_ *converter, name string) string {
		for _, p := range prefixes {
			name = strings.TrimPrefix(name, p)
		}
		return name
	}
}

// weightEnd returns a filter that adds ".weight" to names with one of the
// endings.
func weightEnd(ends ...string) func(*converter, string) string {
	return func(_ *converter, name string) string {
		for _, e := range ends {
			if strings.HasSuffix(name, e) {
				return name + ".weight"
			}
		}
		return name
	}
}

// without returns a filter that leaves tensors out whose name has one of the
// parts.
func without(parts ...string) func(*converter, string) string {
	return func(_ *converter, name string) string {
		for _, p := range parts {
			if strings.Contains(name, p) {
				return ""
			}
		}
		return name
	}
}

// chain runs filters in turn until one leaves the tensor out.
func chain(filters ...func(*converter, string) string) func(*converter, string) string {
	return func(c *converter, name string) string {
		for _, f := range filters {
			if name == "" {
				return ""
			}
			name = f(c, name)
		}
		return name
	}
}

// noHead leaves the head out, which is the embedding again.
func noHead(_ *converter, name string) string {
	if name == "lm_head.weight" {
		return ""
	}
	return name
}

// noTiedHead leaves the head out when the configuration says that it is the
// embedding.
func noTiedHead(c *converter, name string) string {
	if c.h.Bool("tie_word_embeddings") && (name == "lm_head.weight" || name == "model.lm_head.weight") {
		return ""
	}
	return name
}

// dtBias renames Mamba's bias of the time step.
func dtBias(_ *converter, name string) string {
	if base, ok := strings.CutSuffix(name, ".dt_bias"); ok {
		return base + ".dt_proj.bias"
	}
	return name
}

// expertBias gives the bias of a router its ending.
func expertBias(_ *converter, name string) string {
	if strings.HasSuffix(name, ".expert_bias") {
		return name + ".bias"
	}
	return name
}

// halves splits dimension i of a tensor into two of equal size.
func halves(t tensor, i int, first, second string) []tensor {
	n := t.dim(i) / 2
	return []tensor{t.resized(i, n).with(first), t.resized(i, n).with(second)}
}

// parts splits the first dimension of a tensor into consecutive parts, written
// under the names; the last takes what is left.
func parts(t tensor, names []string, sizes ...int64) []tensor {
	var out []tensor
	left := t.dim(0)
	for i, name := range names {
		n := left
		if i < len(sizes) {
			n = min(uint64(max(sizes[i], 0)), left)
		}
		left -= n
		out = append(out, t.resized(0, n).with(name))
	}
	return out
}

// fusedExperts splits the experts' fused gate and up projections along their
// rows, as Qwen's classes write them.
func fusedExperts(_ *converter, t tensor) []tensor {
	name := strings.TrimSuffix(t.name, ".weight")
	if base, ok := strings.CutSuffix(name, "mlp.experts.gate_up_proj"); ok {
		return halves(t, -2, base+"mlp.experts.gate_proj.weight", base+"mlp.experts.up_proj.weight")
	}
	if strings.HasSuffix(name, "mlp.experts.down_proj") {
		t.name = name + ".weight"
	}
	return []tensor{t}
}

// squeezeConv drops the inner dimension of a convolution over time.
func squeezeConv(_ *converter, t tensor) []tensor {
	if strings.Contains(t.name, "conv1d") {
		t = t.squeezed()
	}
	return []tensor{t}
}
