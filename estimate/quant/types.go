package quant

import (
	"fmt"
	"strings"

	"weigh/formats"
)

// A category is what a tensor's name says of its role. The first of these that
// matches a name holds.
//
// Source: src/llama-quant.cpp@v0.5.0, tensor_get_category.
type category uint8

const (
	other category = iota
	output
	tokenEmbedding
	attnQKV
	attnKVB
	attnV
	attnK
	attnQ
	attnOutput
	ffnUp
	ffnGate
	ffnDown
)

// roles are the parts of a name that tell its category, in the order tried.
var roles = [...]struct {
	part     string
	category category
}{
	{"attn_qkv.weight", attnQKV},
	{"attn_kv_b.weight", attnKVB},
	{"attn_v.weight", attnV},
	{"attn_k.weight", attnK},
	{"attn_q.weight", attnQ},
	{"attn_output.weight", attnOutput},
	{"ffn_up", ffnUp},
	{"ffn_gate", ffnGate},
	{"ffn_down", ffnDown},
}

func categorize(name string) category {
	switch name {
	case "output.weight":
		return output
	case "token_embd.weight", perLayerEmbedding:
		return tokenEmbedding
	}
	for _, r := range roles {
		if strings.Contains(name, r.part) {
			return r.category
		}
	}
	return other
}

const perLayerEmbedding = "per_layer_token_embd.weight"

// value reports whether the tensor makes attention values, which suffer most
// from few bits.
func (c category) value() bool { return c == attnV || c == attnQKV || c == attnKVB }

// kept are parts of the names of matrices that are never quantized: norms,
// routers, and tables too small or too delicate.
var kept = [...]string{
	"_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight",
	"altup", "laurel", "per_layer_model_proj",
	"ssm_conv1d", "shortconv.conv.weight",
	"indexer.k_proj.weight", "indexer.q_proj.weight",
	"time_mix_first.weight", "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight",
	"time_mix_v0.weight", "time_mix_v1.weight", "time_mix_v2.weight",
	"time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight",
	"time_mix_g1.weight", "time_mix_g2.weight",
	"time_mix_decay_w1.weight", "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight",
	"attn_rel_b.weight",
	".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd", ".patch_merger",
	"a.rvq.codebook", "mm.a.code_embd",
}

// quantizable reports whether a matrix of that name may be quantized;
// --leave-output-tensor aside.
//
// Source: src/llama-quant.cpp@v0.5.0, tensor_allows_quantization.
func quantizable(name string) bool {
	if !strings.HasSuffix(name, "weight") || name == "position_embd.weight" || name == "token_types.weight" {
		return false
	}
	for _, part := range kept {
		if strings.Contains(name, part) {
			return false
		}
	}
	return true
}

// is70B reports whether llama.cpp takes the model for its 70B class, whose
// value matrices are small enough to get more bits.
//
// Source: load_arch_hparams of src/models/{llama,qwen2,deci,olmo,jais2}.cpp@v0.5.0.
func (s *Source) is70B() bool {
	q, m := &s.quirk, &s.m
	return q.Layers70B > 0 && m.Layers == q.Layers70B && (!q.Grouped70B || m.HeadCount != m.HeadCountKV && m.ExpertCount != 8)
}

// A chooser picks types for the tensors of one source at one file type. It
// counts as it goes: the tensors must come in llama-quantize's order.
type chooser struct {
	*Source
	ft                FileType
	opt               *Options
	iValue            int // attention values chosen so far
	iDown, iGate, iUp int // matrices of the feed-forward network chosen so far
}

// choice is a type wanted for a tensor, and the one used when its rows are no
// whole number of the former's blocks.
type choice struct{ wanted, used formats.DType }

// choose picks the type of a tensor that may be quantized.
//
// Source: src/llama-quant.cpp@v0.5.0, llama_tensor_get_type.
func (c *chooser) choose(i int) (choice, error) {
	name, d := c.m.Tensors[i].Name, &c.info[i]
	override, overridden := c.override(name)
	if t := c.opt.TokenEmbedding; t != nil && d.category == tokenEmbedding && !(overridden && name == perLayerEmbedding) {
		return asked(name, *t, d.columns)
	}
	if t := c.opt.Output; t != nil && d.category == output {
		return asked(name, *t, d.columns)
	}
	def := rows[c.ft].def
	switch {
	case !def.Quantized():
		return choice{def, def}, nil
	case overridden:
		return fit(name, override, d.columns)
	case c.opt.Pure:
		return fit(name, def, d.columns)
	}
	t, err := c.mix(i, def)
	if err != nil {
		return choice{}, err
	}
	return fit(name, t, d.columns)
}

// asked takes the type that --token-embedding-type or --output-tensor-type
// names, for which llama-quantize has no other to fall back to.
func asked(name string, t formats.DType, columns uint64) (choice, error) {
	if block, _ := t.Block(); columns%block != 0 {
		return choice{}, fmt.Errorf("tensor %q: rows of %d do not divide into blocks of %d for the %v asked for", name, columns, block, t)
	}
	return choice{t, t}, nil
}

func (c *chooser) override(name string) (formats.DType, bool) {
	for _, o := range c.opt.TensorTypes {
		if o.Pattern.MatchString(name) {
			return o.Type, true
		}
	}
	return 0, false
}

// fit replaces a type whose blocks do not divide a tensor's rows by one of
// blocks of 32, or else by F16. Some types of larger blocks have none to fall
// back to.
//
// Source: src/llama-quant.cpp@v0.5.0, tensor_type_fallback.
func fit(name string, t formats.DType, columns uint64) (choice, error) {
	block, _ := t.Block()
	if columns%block == 0 {
		return choice{t, t}, nil
	}
	used := t
	switch t {
	case formats.IQ1_S, formats.IQ1_M, formats.IQ2_XXS, formats.IQ2_XS, formats.IQ2_S,
		formats.IQ3_XXS, formats.IQ3_S, formats.IQ4_XS:
		used = formats.IQ4_NL
	case formats.Q2_0, formats.Q2_K, formats.Q3_K, formats.TQ1_0, formats.TQ2_0:
		used = formats.Q4_0
	case formats.Q4_K:
		used = formats.Q5_0
	case formats.Q5_K:
		used = formats.Q5_1
	case formats.Q6_K:
		used = formats.Q8_0
	default:
		if block > 32 {
			return choice{}, fmt.Errorf("tensor %q: llama-quantize has no type for rows of %d beside %v, whose blocks are of %d", name, columns, t, block)
		}
	}
	if block, _ := used.Block(); columns%block != 0 {
		used = formats.F16
	}
	return choice{t, used}, nil
}

// moreBits reports whether layer i of n is one of the first or last eighth, or
// every third between.
//
// Source: src/llama-quant.cpp@v0.5.0, llama_tensor_get_type_impl, use_more_bits.
func moreBits(i, n int) bool { return i < n/8 || i >= 7*n/8 || (i-n/8)%3 == 2 }

// in reports whether t is one of set.
func (t FileType) in(set ...FileType) bool {
	for _, s := range set {
		if s == t {
			return true
		}
	}
	return false
}

// layer returns the layer of a matrix of the feed-forward network: counted, but
// read from the name in a model of experts.
func (c *chooser) layer(i, counted int) (int, error) {
	if c.m.ExpertCount <= 1 {
		return counted, nil
	}
	n := c.info[i].layer
	if n < 0 || n >= c.m.Layers {
		return 0, fmt.Errorf("tensor %q: layer %d is not one of the model's %d", c.m.Tensors[i].Name, n, c.m.Layers)
	}
	return n, nil
}

// mix picks the type of a tensor by the mixture of the file type, whose
// default is t.
//
// Source: src/llama-quant.cpp@v0.5.0, llama_tensor_get_type_impl.
func (c *chooser) mix(i int, t formats.DType) (formats.DType, error) {
	d := &c.info[i]
	switch {
	case d.category == output || c.tied && d.category == tokenEmbedding:
		return c.mixOutput(d, t), nil
	case c.ft == MXFP4MoE:
		return c.mixMXFP4(i), nil
	case d.category == tokenEmbedding:
		return c.mixEmbedding(t), nil
	case c.ft.in(IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ2_M):
		return c.mixTwoBits(d, t), nil
	case d.category.value():
		return c.mixValue(t), nil
	}
	switch d.category {
	case attnK:
		return c.mixKey(t), nil
	case attnQ:
		return c.mixQuery(t), nil
	case attnOutput:
		return c.mixAttnOutput(t), nil
	case ffnDown:
		return c.mixDown(i, t)
	case ffnGate:
		return c.mixGateUp(i, &c.iGate, t)
	case ffnUp:
		return c.mixGateUp(i, &c.iUp, t)
	}
	return t, nil
}

func (c *chooser) mixOutput(d *info, t formats.DType) formats.DType {
	block, _ := t.Block()
	switch {
	case c.opt.Output != nil:
		return *c.opt.Output
	case c.ft == MXFP4MoE, c.quirk.FewerBits, d.columns%block != 0:
		return formats.Q8_0
	case c.ft.in(IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ2_M, IQ3_XXS):
		return formats.Q5_K
	case t != formats.Q8_0:
		return formats.Q6_K
	}
	return t
}

// mixMXFP4 tells experts by their third dimension, or by their names where
// latent attention has three dimensions too.
func (c *chooser) mixMXFP4(i int) formats.DType {
	shape, cat := c.m.Tensors[i].Shape, c.info[i].category
	if len(shape) > 2 && shape[2] > 1 &&
		(!c.quirk.NamedExperts || cat == ffnUp || cat == ffnGate || cat == ffnDown) {
		return formats.MXFP4
	}
	return formats.Q8_0
}

func (c *chooser) mixEmbedding(t formats.DType) formats.DType {
	switch c.ft {
	case IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS:
		return formats.Q2_K
	case IQ2_S, IQ2_M, IQ3_XXS:
		return formats.IQ3_S
	case TQ1_0, TQ2_0, Q2_0:
		return formats.Q4_K
	}
	return t
}

// mixTwoBits serves the types of one and two bits, where the down matrices are
// counted even in a model of experts.
func (c *chooser) mixTwoBits(d *info, t formats.DType) formats.DType {
	large := c.ft.in(IQ2_S, IQ2_M)
	better := formats.Q2_K
	if large {
		better = formats.IQ3_S
	}
	switch {
	case d.category.value():
		if c.gqa() >= 4 || c.m.ExpertCount >= 4 {
			return formats.Q4_K
		}
		return better
	case d.category == attnK && c.m.ExpertCount == 8:
		return formats.Q4_K
	case d.category == ffnDown:
		c.iDown++
		if c.iDown-1 < c.m.Layers/8 {
			return better
		}
	case d.category == attnOutput && c.m.ExpertCount == 8:
		return formats.Q5_K
	case d.category == attnOutput && c.ft.in(IQ1_S, IQ1_M):
		return formats.IQ2_XXS
	case d.category == attnOutput && large:
		return formats.IQ3_S
	}
	return t
}

// gqa returns how many heads of layer 0 share a key; 0 when it has no keys.
//
// Source: src/llama-hparams.cpp@v0.5.0, llama_hparams::n_gqa.
func (c *chooser) gqa() int {
	if c.m.HeadCountKV <= 0 {
		return 0
	}
	return c.m.HeadCount / c.m.HeadCountKV
}

func (c *chooser) mixValue(t formats.DType) formats.DType {
	i, shared := c.iValue, c.gqa() >= 4
	c.iValue++
	switch {
	case c.ft == Q2_K && !shared:
		t = formats.Q3_K
	case c.ft == IQ3_XXS && !shared && c.opt.Imatrix == nil:
		t = formats.IQ3_S
	case c.ft.in(Q2_K, Q2_K_S, IQ3_XXS, IQ3_XS, IQ3_S) && shared, c.ft == IQ3_M:
		t = formats.Q4_K
	case c.ft == Q3_K_M && i < 2, c.ft == Q3_K_L, c.ft.in(IQ4_NL, IQ4_XS) && shared, c.ft == Q4_K_S && i < 4:
		t = formats.Q5_K
	case c.ft == Q3_K_M:
		t = formats.Q4_K
	case c.ft.in(Q4_K_M, Q5_K_M) && moreBits(i, c.nValue):
		t = formats.Q6_K
	}
	if c.is70B() && (t == formats.Q3_K || t == formats.Q4_K) {
		t = formats.Q5_K
	}
	if c.m.ExpertCount == 8 {
		t = formats.Q8_0
	}
	return t
}

func (c *chooser) mixKey(t formats.DType) formats.DType {
	if c.m.ExpertCount == 8 {
		return formats.Q8_0
	}
	return c.mixQuery(t)
}

func (c *chooser) mixQuery(t formats.DType) formats.DType {
	switch c.ft {
	case IQ3_XS:
		return formats.IQ3_XXS
	case IQ3_XXS:
		return formats.IQ2_S
	}
	return t
}

func (c *chooser) mixAttnOutput(t formats.DType) formats.DType {
	switch {
	case c.quirk.FewerBits:
		if c.ft == Q3_K_L {
			return formats.Q4_K
		}
		return t
	case c.m.ExpertCount == 8:
		if c.ft.in(Q2_K, IQ3_XS, IQ3_XXS, Q3_K_S, Q3_K_M, IQ4_NL, Q4_K_S, Q4_K_M, IQ3_S, IQ3_M, IQ4_XS) {
			return formats.Q5_K
		}
		return t
	}
	switch c.ft {
	case Q2_K:
		return formats.Q3_K
	case IQ3_XXS:
		return formats.IQ3_S
	case Q3_K_M, IQ3_M:
		return formats.Q4_K
	case Q3_K_L:
		return formats.Q5_K
	}
	return t
}

func (c *chooser) mixDown(index int, t formats.DType) (formats.DType, error) {
	i, err := c.layer(index, c.iDown)
	if err != nil {
		return 0, err
	}
	c.iDown++
	n := c.m.Layers
	fewer, imatrix := c.quirk.FewerBits, c.opt.Imatrix != nil
	first, more := i < n/8, moreBits(i, n)
	switch {
	case c.ft == Q2_K:
		return formats.Q3_K, nil
	case c.ft == Q2_K_S && first:
		return formats.Q4_K, nil
	case c.ft == IQ3_XXS && !imatrix:
		if first {
			return formats.Q4_K, nil
		}
		return formats.Q3_K, nil
	case c.ft == Q3_K_M:
		if i < n/16 {
			return formats.Q5_K, nil
		}
		if !fewer || more {
			return formats.Q4_K, nil
		}
		return formats.Q3_K, nil
	case c.ft == IQ3_M && (first || c.m.ExpertCount == 8 && more):
		return formats.Q4_K, nil
	case c.ft == Q3_K_L && fewer:
		return formats.Q4_K, nil
	case c.ft == Q3_K_L:
		return formats.Q5_K, nil
	case c.ft == Q4_K_M && fewer:
		if i < n/16 {
			return formats.Q6_K, nil
		}
		if more {
			return formats.Q5_K, nil
		}
		return formats.Q4_K, nil
	case c.ft.in(Q4_K_M, Q5_K_M) && more:
		return formats.Q6_K, nil
	case c.ft.in(IQ4_NL, IQ4_XS) && first && !imatrix, c.ft == Q4_K_S && first && !fewer:
		return formats.Q5_K, nil
	case c.ft == Q4_0 && imatrix && first:
		return formats.Q4_1, nil
	case c.ft == Q5_0 && imatrix && first:
		return formats.Q5_1, nil
	}
	return t, nil
}

// mixGateUp serves the gate and the up matrices, each with its own counter.
func (c *chooser) mixGateUp(index int, counter *int, t formats.DType) (formats.DType, error) {
	i, err := c.layer(index, *counter)
	if err != nil {
		return 0, err
	}
	*counter++
	if n := c.m.Layers; c.ft == IQ3_XS && i >= n/8 && i < 7*n/8 {
		return formats.IQ3_XXS, nil
	}
	return t, nil
}

// needsImatrix reports whether llama-quantize refuses to write a tensor at that
// type without an importance matrix.
//
// Source: src/llama-quant.cpp@v0.5.0, tensor_requires_imatrix.
func needsImatrix(name string, t formats.DType, ft FileType) bool {
	if c := categorize(name); c == output || c == tokenEmbedding {
		return false
	}
	switch t {
	case formats.IQ3_XXS, formats.IQ2_XXS, formats.IQ2_XS, formats.IQ2_S, formats.IQ1_M, formats.IQ1_S:
		return true
	case formats.Q2_K:
		return ft == Q2_K_S
	}
	return false
}
