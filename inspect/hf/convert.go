package hf

import (
	"cmp"
	"fmt"
	"iter"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"weigh/formats"
	"weigh/formats/hfconfig"
	"weigh/inspect/model"
)

// A tensor is a weight on its way to GGUF.
type tensor struct {
	name   string        // as the folder names it; GGUF's own name when a row has set it
	shape  []uint64      // of the weights: slowest dimension first
	stored formats.DType // in the folder
	as     formats.DType
	fixed  bool // as is what it becomes, whatever the rules say
	// of so many parameters, held stored bytes: those of the weight that it is,
	// or is a part of
	params, bytes uint64
	// sides are the endings of NVFP4's scales of a whole matrix, written as
	// tensors of their own: one number for a matrix, or one for each expert.
	sides sides
}

// Types that rows name.
const (
	f32 = formats.F32
	i32 = formats.I32
	i64 = formats.I64
)

// with returns a copy under another name, and of another shape when one is
// given.
func (t tensor) with(name string, shape ...uint64) tensor {
	t.name = name
	if shape != nil {
		t.shape = shape
	}
	return t
}

// rename returns a copy with old in its name replaced by new.
func (t tensor) rename(old, new string) tensor {
	return t.with(strings.ReplaceAll(t.name, old, new))
}

// dim returns the size of the i-th dimension, counted from the last when i is
// negative; 1 when there is none.
func (t tensor) dim(i int) uint64 {
	if i < 0 {
		i += len(t.shape)
	}
	if i < 0 || i >= len(t.shape) {
		return 1
	}
	return t.shape[i]
}

// resized returns a copy whose i-th dimension, counted as in dim, is n.
func (t tensor) resized(i int, n uint64) tensor {
	if i < 0 {
		i += len(t.shape)
	}
	if i < 0 || i >= len(t.shape) {
		return t
	}
	t.shape = slices.Clone(t.shape)
	t.shape[i] = n
	return t
}

// swapped returns a copy with the last two dimensions exchanged.
func (t tensor) swapped() tensor {
	if n := len(t.shape); n >= 2 {
		t.shape = slices.Clone(t.shape)
		t.shape[n-1], t.shape[n-2] = t.shape[n-2], t.shape[n-1]
	}
	return t
}

// squeezed returns a copy without the dimensions of one element.
func (t tensor) squeezed() tensor {
	t.shape = slices.DeleteFunc(slices.Clone(t.shape), func(d uint64) bool { return d == 1 })
	return t
}

// forced returns a copy that becomes typ.
func (t tensor) forced(typ formats.DType) tensor {
	t.as, t.fixed = typ, true
	return t
}

// A row is one architecture of Hugging Face: which classes it covers and how
// its folder becomes a GGUF. A nil function does nothing.
type row struct {
	hf   []string // values of config.json "architectures"
	arch string   // general.architecture

	// own says that the common keys are not written, only set and params.
	own bool
	// set writes further keys: lines "key=name|name…", the first of the
	// configuration's names that is present, and "key==value".
	set string
	// prepare completes the configuration, the architecture or the number of
	// blocks before anything is read from them.
	prepare func(c *converter)
	// params writes the keys that set cannot say.
	params func(c *converter)
	// filter returns the name a tensor goes on under, "" to leave it out.
	filter func(c *converter, name string) string
	// modify returns what a tensor becomes; nothing when it is left out. The
	// experts of a matrix come as one tensor without their numbers.
	modify func(c *converter, t tensor) []tensor
	// extra returns tensors that the folder does not hold.
	extra func(c *converter) []tensor
}

// A converter turns a folder's configuration and weights into a GGUF's metadata
// and tensors, as llama.cpp's convert_hf_to_gguf.py does.
//
// Source: conversion/base.py@v0.5.0, ModelBase and TextModel.
type converter struct {
	row    *row
	class  string // the class that chose the row
	arch   string
	h      hfconfig.Object // the text model's hyper-parameters
	rope   hfconfig.Object // rope_parameters in the form of transformers 5
	layers int             // num_hidden_layers
	blocks int             // layers and those that predict further tokens
	out    formats.DType   // what matrices become

	meta    meta
	tensors []model.Tensor
	held    []uint64 // stored bytes of each of tensors
	names   nameTable
	pooling int64 // that of modules.json, -1 for none
	stacks  map[string]*stack
	order   []string         // keys of stacks
	scratch map[string]int   // counts that a row keeps
	weights iter.Seq[string] // names of the weights, after the filter where it has run
	notes   []string
	unknown int // tensors without a GGUF name

	fields map[string]string   // the hyper-parameter that a key is
	made   map[string][]string // the hyper-parameters that were read for a key, where it is none of them
	fresh  []string            // those that were read since the last key
	read   []string            // all that were read
	fault  *fieldError         // the first field whose value cannot be
}

// A fieldError says which hyper-parameter cannot be what it is.
type fieldError struct{ field, why string }

// field returns the hyper-parameter that the value of a key is, the key when
// that is not known.
func (c *converter) field(key string, v any) string {
	return cmp.Or(c.fields[key], where(c.h, v), key)
}

// where returns the one field of an object that holds a value, such as
// "rope_scaling.factor"; "" when none or several do.
func where(o hfconfig.Object, v any) string {
	if places := allWhere(o, v); len(places) == 1 {
		return places[0]
	}
	return ""
}

// allWhere returns all fields of an object that hold a value.
func allWhere(o hfconfig.Object, v any) (places []string) {
	text := fmt.Sprint(v)
	var walk func(o hfconfig.Object, at string)
	walk = func(o hfconfig.Object, at string) {
		for key, has := range o {
			if inner, ok := has.(hfconfig.Object); ok {
				walk(inner, at+key+".")
			} else if fmt.Sprint(has) == text {
				places = append(places, at+key)
			}
		}
	}
	walk(o, "")
	return places
}

// sees notes that a hyper-parameter was read.
func (c *converter) sees(field string) {
	if field == "" || strings.HasPrefix(field, "weigh.") { // one that is not written so
		return
	}
	for _, list := range []*[]string{&c.fresh, &c.read} {
		if !slices.Contains(*list, field) {
			*list = append(*list, field)
		}
	}
}

// parts returns the hyper-parameters that a key is computed from: the negative
// ones among those that were read for it, which are what makes a key impossible,
// or else among all that were read; all that were read for it where none is.
func (c *converter) parts(key string) []string {
	negative := func(list []string) (out []string) {
		for _, field := range list {
			if v, ok := hfconfig.AsFloat(c.h[field]); ok && v < 0 {
				out = append(out, field)
			}
		}
		return out
	}
	for _, list := range [][]string{negative(c.made[key]), negative(c.read)} {
		if len(list) > 0 {
			return list
		}
	}
	return c.made[key]
}

// wrong records that a field is not what the converter wants of it.
func (c *converter) wrong(field string, v any, want string) {
	if c.fault == nil {
		c.fault = &fieldError{field, fmt.Sprintf("%s, want %s", found(v), want)}
	}
}

// found says what a field holds, without quoting the file at length.
func found(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("text %.40q", v)
	case []any:
		return "an array"
	case hfconfig.Object:
		return "an object"
	}
	return fmt.Sprint(v)
}

// meta is a model.Meta held in memory.
type meta map[string]any

// Lookup returns the value of a key.
func (m meta) Lookup(key string) (any, bool) {
	v, ok := m[key]
	return v, ok
}

// A stack is the experts of one matrix of one layer.
type stack struct {
	t       tensor
	n       uint64
	uniform bool
}

func (c *converter) note(format string, args ...any) {
	if s := fmt.Sprintf(format, args...); !slices.Contains(c.notes, s) {
		c.notes = append(c.notes, s)
	}
}

// Short forms of the configuration's accessors.

// maxCount is the largest count that a configuration may have: sums and products
// of a few stay far below the range of a 64-bit integer.
const maxCount = 1 << 31

func (c *converter) int(keys ...string) int64 {
	n, _ := c.count(c.first(keys))
	return n
}

// count returns the value of a field as a count; ok is false when it is null or
// none.
func (c *converter) count(field string, v any) (n int64, ok bool) {
	c.sees(field)
	n, ok = hfconfig.AsInt(v)
	if v != nil && (!ok || n < -maxCount || n > maxCount) {
		c.wrong(field, v, fmt.Sprintf("a whole number of at most %d", maxCount))
		return 0, false
	}
	return n, ok
}

// first returns the first of the fields that is present, and its value.
func (c *converter) first(names []string) (field string, v any) {
	for _, name := range names {
		if v, ok := c.h[name]; ok {
			return name, v
		}
	}
	return "", nil
}

// intOr returns the value of key, or def when it is absent or null.
func (c *converter) intOr(def int64, keys ...string) int64 {
	for _, k := range keys {
		if n, ok := c.count(k, c.h[k]); ok {
			return n
		}
	}
	return def
}

func (c *converter) floatOr(def float64, o hfconfig.Object, key string) float64 {
	if f, ok := o.Float(key); ok {
		return f
	}
	return def
}

// headDim returns head_dim, or the width of a head by division.
func (c *converter) headDim() int64 {
	if n := c.int("head_dim"); n > 0 {
		return n
	}
	return div(c.int("hidden_size", "n_embd", "d_model"), c.int("num_attention_heads", "n_head", "n_heads"))
}

// div divides, and returns 0 for a division by 0.
func div(a, b int64) int64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// types returns, for every block, whether layer_types has one of the given
// words; false past its end. It returns nil when the configuration has no
// layer_types.
func (c *converter) types(words ...string) []bool {
	if !c.h.Has("layer_types") {
		return nil
	}
	list := c.h.Strings("layer_types")
	is := make([]bool, c.blocks)
	for i := range is {
		is[i] = i < len(list) && slices.Contains(words, list[i])
	}
	return is
}

// perBlock returns a value for every block.
func (c *converter) perBlock(value func(i int) int64) []int64 {
	v := make([]int64, c.blocks)
	for i := range v {
		v[i] = value(i)
	}
	return v
}

// ifTrue returns, for every block, yes where is holds and no elsewhere.
func (c *converter) ifTrue(is []bool, yes, no int64) []int64 {
	return c.perBlock(func(i int) int64 {
		if i < len(is) && is[i] {
			return yes
		}
		return no
	})
}

// pool writes how sentence-transformers pools the states, where its modules.json
// says so.
//
// Source: conversion/base.py@v0.5.0, TextModel._try_set_pooling_type.
func pool(c *converter) {
	if c.pooling >= 0 {
		c.put("pooling_type", c.pooling)
	}
}

// realKeys are the endings of keys whose values are floating-point numbers.
var realKeys = []string{"epsilon", "freq_base", "freq_base_swa", "_scale", "softcapping", "scaling.factor", "attn_factor", "log_multiplier", "ext_factor", "beta_fast", "beta_slow", "alibi_bias", "clamp_kqv", "scaling.alpha", "lower_bound", "_beta", "router_gain", "magnitude", ".scale"}

// countKeys are the endings of keys whose values are never negative.
var countKeys = []string{".head_count", ".head_count_kv", ".feed_forward_length", ".expert_used_count", ".embedding_length", ".context_length"}

// put writes a key of the architecture, or of the whole file when it names a
// section. A nil value writes nothing.
func (c *converter) put(key string, v any) {
	key = c.key(key)
	c.made[key], c.fresh = c.fresh, nil
	isReal := slices.ContainsFunc(realKeys, func(end string) bool { return strings.HasSuffix(key, end) })
	switch x := v.(type) {
	case nil:
		return
	case int:
		v = int64(x)
	case int64:
		if x < 0 && slices.ContainsFunc(countKeys, func(end string) bool { return strings.HasSuffix(key, end) }) {
			c.wrong(c.field(key, v), x, "a count")
			return
		}
	case []any:
		if v = typedList(x); v == nil {
			c.wrong(c.field(key, x), x, "one of values of one kind")
			return
		}
	case hfconfig.Object:
		c.wrong(c.field(key, v), x, "a single value")
		return
	}
	if f, ok := hfconfig.AsFloat(v); ok && isReal {
		v = f
	}
	if f, ok := v.(float64); ok && !isReal {
		n, whole := hfconfig.AsInt(f)
		if !whole {
			c.wrong(c.field(key, v), f, "a whole number")
			return
		}
		v = n
	}
	switch x := v.(type) {
	case []int64:
		if x == nil {
			return
		}
	case []bool:
		if x == nil {
			return
		}
	case []float64:
		if x == nil {
			return
		}
	}
	c.meta[key] = v
}

// key returns the whole name of a key that put takes.
func (c *converter) key(name string) string {
	for _, section := range []string{"general.", "tokenizer.", "xielu.", "diffusion."} {
		if strings.HasPrefix(name, section) {
			return name
		}
	}
	return c.arch + "." + name
}

// typedList returns a list of one kind as a typed slice, nil when it is mixed.
func typedList(list []any) any {
	ints, floats, bools, texts := []int64{}, []float64{}, []bool{}, []string{}
	for _, v := range list {
		switch v := v.(type) {
		case int64:
			ints, floats = append(ints, v), append(floats, float64(v))
		case float64:
			floats = append(floats, v)
		case bool:
			bools = append(bools, v)
		case string:
			texts = append(texts, v)
		}
	}
	switch len(list) {
	case len(ints):
		return ints
	case len(floats):
		return floats
	case len(bools):
		return bools
	case len(texts):
		return texts
	}
	return nil
}

// apply writes the keys of a row's set.
func (c *converter) apply(set string) {
	for line := range strings.Lines(set) {
		key, expr, ok := strings.Cut(strings.TrimSpace(line), "=")
		switch {
		case !ok:
		case strings.HasPrefix(expr, "="):
			c.put(key, literal(expr[1:]))
		default:
			names := strings.Split(expr, "|")
			i := max(slices.IndexFunc(names, c.h.Has), 0)
			c.fields[c.key(key)] = names[i]
			c.put(key, c.h[names[i]])
		}
	}
}

// literal returns the value that a row's text stands for.
func literal(s string) any {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		return f
	}
	if s == "true" || s == "false" {
		return s == "true"
	}
	return s
}

// gating are the numbers of the routers' functions.
//
// Source: gguf-py/gguf/constants.py@v0.5.0, ExpertGatingFuncType.
var gating = map[string]int64{"softmax": 1, "sigmoid": 2, "sqrtsoftplus": 4}

// base writes the keys that nearly every architecture has.
//
// Source: conversion/base.py@v0.5.0, TextModel.set_gguf_parameters.
func (c *converter) base() {
	find := func(key string, names ...string) {
		field, v := c.first(names)
		c.fields[c.key(key)] = cmp.Or(field, names[0])
		c.put(key, v)
	}
	c.fields[c.key("block_count")], _ = c.first(layerKeys)
	c.put("block_count", c.blocks)
	find("context_length", "max_position_embeddings", "n_ctx", "n_positions", "max_length", "max_sequence_length", "model_max_length")
	find("embedding_length", "hidden_size", "n_embd", "dim")
	find("feed_forward_length", "prefix_dense_intermediate_size", "dense_intermediate_size", "intermediate_size", "n_inner", "hidden_dim")
	find("attention.head_count", "num_attention_heads", "n_head", "n_heads")
	find("attention.head_count_kv", "num_key_value_heads", "n_kv_heads")
	if causal, ok := c.h["is_causal"].(bool); ok && !causal {
		c.put("attention.causal", false)
	}
	full := c.fullRope()
	c.baseRope(full)
	if m := c.rope.List("mrope_section"); m != nil {
		in, _ := c.first(ropeNames)
		c.fields[c.key("rope.dimension_sections")] = in + ".mrope_section"
		for len(m) < 4 {
			m = append(m, int64(0))
		}
		c.put("rope.dimension_sections", m[:4])
	}
	c.put("rope.freq_base", full["rope_theta"])
	c.put("rope.freq_base_swa", c.rope.Object("sliding_attention")["rope_theta"])
	find("attention.layer_norm_rms_epsilon", "rms_norm_eps", "norm_eps")
	find("attention.layer_norm_epsilon", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")
	find("expert_count", "num_local_experts", "num_experts", "n_routed_experts")
	find("expert_used_count", "num_experts_per_tok", "num_experts_per_token", "top_k_experts")
	find("expert_group_count", "n_group")
	find("expert_group_used_count", "topk_group")
	if f := c.h.String("score_function", "scoring_func", "score_func", "moe_router_activation", "moe_router_activation_func", "expert_selection_fn"); f != "" {
		if n, ok := gating[f]; ok {
			c.put("expert_gating_func", n)
		} else {
			c.note("llama.cpp has no expert gating function %.40q", f)
		}
	}
	find("attention.key_length", "head_dim")
	find("attention.value_length", "head_dim")
}

// baseRope writes how the rotary embedding is scaled.
func (c *converter) baseRope(r hfconfig.Object) {
	factor := r["factor"]
	switch typ := strings.ToLower(r.String("rope_type")); {
	case typ == "linear" && factor != nil:
		c.put("rope.scaling.type", "linear")
		c.put("rope.scaling.factor", factor)
	case typ == "yarn" && factor != nil:
		c.put("rope.scaling.type", "yarn")
		c.put("rope.scaling.factor", factor)
		c.put("rope.scaling.original_context_length", r["original_max_position_embeddings"])
		c.put("rope.scaling.yarn_ext_factor", r["extrapolation_factor"])
		c.put("rope.scaling.yarn_attn_factor", r.Find("attention_factor", "attn_factor"))
		c.put("rope.scaling.yarn_beta_fast", r["beta_fast"])
		c.put("rope.scaling.yarn_beta_slow", r["beta_slow"])
	case typ == "su" || typ == "longrope":
		c.put("rope.scaling.type", "longrope")
	}
}

// ropeNames are the fields that hold how the rotary embedding is scaled.
var ropeNames = []string{"rope_parameters", "rope_scaling"}

// ropeParameters returns rope_parameters as transformers 5 writes it, whatever
// the configuration has.
//
// Source: conversion/base.py@v0.5.0, TextModel.__init__.
func ropeParameters(h hfconfig.Object) hfconfig.Object {
	r := h.Object(ropeNames...).Merge(nil)
	if r["full_attention"] != nil || r["sliding_attention"] != nil {
		return r
	}
	if v := h.Find("local_rope_theta", "rope_local_theta", "rope_theta_local", "swa_rope_theta", "rope_local_base_freq"); v != nil {
		r["sliding_attention"] = hfconfig.Object{"rope_theta": v}
	}
	mirror := func(key string, names ...string) {
		if _, ok := r[key]; !ok {
			if v := h.Find(names...); v != nil {
				r[key] = v
			}
		}
	}
	mirror("rope_theta", "global_rope_theta", "rope_global_theta", "rope_theta_global", "rope_theta", "rotary_emb_base")
	if _, ok := r["rope_type"]; !ok && r["type"] != nil {
		r["rope_type"] = r["type"]
	}
	mirror("partial_rotary_factor", "partial_rotary_factor", "rope_pct", "rope_percent")
	mirror("original_max_position_embeddings", "original_max_position_embeddings")
	return r
}

// fullRope returns the rotary parameters of layers with full attention.
func (c *converter) fullRope() hfconfig.Object {
	if full := c.rope.Object("full_attention"); full != nil {
		return full
	}
	return c.rope
}

// partial returns int(width × the part of it that is rotated).
func (c *converter) partial(width int64, def float64) int64 {
	return int64(float64(width) * c.floatOr(def, c.rope, "partial_rotary_factor"))
}

// alwaysF32 are the tensors, as GGUF names them, that stay F32 whatever the
// output type.
//
// Source: conversion/base.py@v0.5.0, ModelBase.prepare_tensors.
var alwaysF32 = map[string]bool{
	"blk.#.ffn_gate_inp": true, "blk.#.ffn_gate_inp_shexp": true, "position_embd": true, "token_types": true,
	"blk.#.ssm_conv1d": true, "blk.#.shortconv.conv": true, "blk.#.time_mix_first": true, "blk.#.time_mix_w1": true,
	"blk.#.time_mix_w2": true, "blk.#.time_mix_decay_w1": true, "blk.#.time_mix_decay_w2": true, "blk.#.time_mix_lerp_fused": true,
	"blk.#.altup_correct_coef": true, "blk.#.altup_predict_coef": true, "blk.#.ssm_conv1d_q": true, "blk.#.ssm_conv1d_k": true,
	"blk.#.ssm_conv1d_v": true, "blk.#.indexer.proj": true,
}

// emit adds a tensor to the GGUF under the name that the table has for it.
func (c *converter) emit(t tensor) {
	name, pattern, suffix, ok := c.names.lookup(t.name, c.blocks)
	if !ok {
		// An expert matrix goes by different names in different folders.
		if i := strings.Index(t.name, ".experts."); i >= 0 {
			layer := layerOf(t.name)
			for _, form := range []string{"model.layers.%d.mlp.experts.", "layers.%d.feed_forward.experts.", "model.layers.%d.block_sparse_moe.experts."} {
				if name, pattern, suffix, ok = c.names.lookup(fmt.Sprintf(form, layer)+t.name[i+len(".experts."):], c.blocks); ok {
					break
				}
			}
		}
	}
	if !ok {
		name, pattern, suffix = t.name, "", ""
		if !isGGUF(t.name) {
			c.unknown++
			if c.unknown == 1 {
				c.note("llama.cpp's converter has no name for tensor %.200q in %s", t.name, c.arch)
			}
		}
	}
	c.add(t, name+suffix, pattern)
	for side := range t.sides.ends() {
		n := uint64(1)
		if len(t.shape) == 3 {
			n = t.shape[0]
		}
		c.add(tensor{shape: []uint64{n}}, name+"."+side, "")
	}
}

// isGGUF reports whether a row named the tensor as GGUF does.
func isGGUF(name string) bool {
	return strings.HasPrefix(name, "blk.") || !strings.Contains(name, ".layers.") && strings.Count(name, ".") <= 1
}

// add adds a tensor whose GGUF name is known.
func (c *converter) add(t tensor, name, pattern string) {
	typ := c.out
	switch {
	case t.fixed:
		typ = t.as
	case len(t.shape) <= 1, strings.HasSuffix(name, "_norm.weight"), alwaysF32[pattern] && strings.HasSuffix(name, ".weight"),
		!strings.HasSuffix(name, ".weight") && !strings.HasSuffix(name, ".lora_a") && !strings.HasSuffix(name, ".lora_b"):
		typ = formats.F32
	}
	ne := slices.Clone(t.shape)
	slices.Reverse(ne)
	if len(ne) == 0 {
		ne = []uint64{1}
	}
	rows, ok := formats.Elements(ne[1:])
	row := typ.RowBytes(ne[0])
	if !ok || row != 0 && rows > 1<<62/row {
		c.note("tensor %.200q is larger than any file", name)
		return
	}
	c.tensors = append(c.tensors, model.Tensor{Name: name, Type: typ, Shape: ne, Bytes: rows * row})
	c.held = append(c.held, t.held())
}

// held returns the stored bytes of what the tensor has of its weight.
func (t tensor) held() uint64 {
	n := params(t.shape)
	if n == t.params {
		return t.bytes
	}
	hi, lo := bits.Mul64(n, t.bytes)
	if hi >= t.params {
		return 0 // made of nothing stored, or larger than any file
	}
	held, _ := bits.Div64(hi, lo, t.params)
	return held
}

// layerOf returns the first number in a tensor's name, -1 when it has none.
func layerOf(name string) int {
	for part := range strings.SplitSeq(name, ".") {
		if n, err := strconv.Atoi(part); err == nil && n >= 0 {
			return n
		}
	}
	return -1
}

// multimodal are the parts of names that belong to another file, the
// multimodal projector.
//
// Source: conversion/base.py@v0.5.0, TextModel.filter_tensors.
var (
	multimodalPrefix = []string{"mlp", "vit.", "vpm.", "siglip2.", "conformer.", "merger.", "resampler.", "sound_encoder.", "sound_projection.", "speech_embeddings."}
	multimodalPart   = []string{"visual.", "vision.", "audio.", "talker.", "vision_", "audio_", "token2wav.", "code2wav.", "projector.", "pre_mm_projector_norm", "image_newline", "view_seperator", "patch_embed", "patch_embedding", "patch_merger.", "patch_merge_mlp.", "model.connector."}
)

// isMultimodal reports whether a tensor belongs to the projector's file.
func isMultimodal(name string) bool {
	return slices.ContainsFunc(multimodalPrefix, func(p string) bool { return strings.HasPrefix(name, p) }) ||
		slices.ContainsFunc(multimodalPart, func(p string) bool { return strings.Contains(name, p) })
}

// baseFilter applies the common filter.
func baseFilter(name string) string {
	if isMultimodal(name) {
		return ""
	}
	name = strings.ReplaceAll(name, "e_score_correction_bias", "e_score_correction.bias")
	const part = "language_model."
	return strings.ReplaceAll(strings.TrimPrefix(name, part), part, "") // a name that only begins so takes no room of its own
}

// isBuffer reports whether a tensor is stored but is no weight.
func isBuffer(name string) bool {
	for _, end := range []string{".attention.masked_bias", ".attn.masked_bias", ".attention.bias", ".rotary_emb.inv_freq", ".rotary_pos_emb.inv_freq", "embeddings.position_ids"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return false
}

// expertOf splits "….experts.N.rest" into the name without the number; the
// number is -1 when the tensor is no single expert's.
func expertOf(name string) (string, int) {
	for _, mark := range []string{".experts.", ".chunk_experts.", ".norms."} {
		i := strings.Index(name, mark)
		if i < 0 {
			continue
		}
		num, rest, ok := strings.Cut(name[i+len(mark):], ".")
		n, err := strconv.Atoi(num)
		if !ok || err != nil || n < 0 {
			continue
		}
		if mark == ".norms." {
			return name[:i] + "." + rest, n // per-head norms: q_layernorm.norms.N.weight
		}
		return name[:i+len(mark)] + rest, n
	}
	return name, -1
}

// convert runs the rows' rules over the weights.
func (c *converter) convert(weights []Weight) {
	type keeper struct {
		name string
		w    *Weight
	}
	kept := make([]keeper, 0, len(weights))
	for i := range weights {
		name := weights[i].Name
		if c.row.filter != nil {
			name = c.row.filter(c, name)
		}
		if name != "" {
			name = baseFilter(name)
		}
		if name != "" && !isBuffer(name) {
			kept = append(kept, keeper{name, &weights[i]})
		}
	}
	c.weights = func(yield func(string) bool) {
		for _, k := range kept {
			if !yield(k.name) {
				return
			}
		}
	}
	if c.row.extra != nil {
		for _, t := range c.row.extra(c) {
			c.emit(t)
		}
	}
	for _, k := range kept {
		if len(c.tensors)+len(c.stacks) > maxConverted {
			return
		}
		c.one(toConvert(k.w).with(k.name))
	}
	for _, key := range c.order {
		s := c.stacks[key]
		if !s.uniform {
			c.note("experts of %.200q differ in shape; the largest stands for all", key)
		}
		s.t.shape = append([]uint64{s.n}, s.t.shape...)
		s.t.name = key
		for _, t := range c.modify(s.t) {
			c.emit(t)
		}
	}
}

// hasWeight reports whether a weight is kept under a name.
func (c *converter) hasWeight(name string) bool {
	for n := range c.weights {
		if n == name {
			return true
		}
	}
	return false
}

// toConvert returns a weight as the converter takes it up: unpacked, unless ggml
// packs it in the same way.
func toConvert(w *Weight) tensor {
	t := tensor{name: w.Name, shape: w.Shape, stored: w.Type, params: w.Params, bytes: w.Bytes}
	switch {
	case w.Packed == "nvfp4" && len(w.Shape) > 0 && w.Shape[len(w.Shape)-1]%64 == 0:
		t = t.forced(formats.NVFP4)
		t.sides = w.scales
	case w.Packed == "mxfp4" && len(w.Shape) > 0 && w.Shape[len(w.Shape)-1]%32 == 0:
		t = t.forced(formats.MXFP4)
	}
	return t
}

// one converts a tensor, or puts it on the stack of its layer's experts.
func (c *converter) one(t tensor) {
	if merged, n := expertOf(t.name); n >= 0 {
		s := c.stacks[merged]
		if s == nil {
			s = &stack{t: t, uniform: true}
			c.stacks[merged] = s
			c.order = append(c.order, merged)
		}
		if !slices.Equal(s.t.shape, t.shape) {
			s.uniform = false
			a, _ := formats.Elements(s.t.shape)
			if b, _ := formats.Elements(t.shape); b > a {
				s.t.shape = t.shape
			}
		}
		if s.n > 0 {
			s.t.params += t.params
			s.t.bytes += t.bytes
		}
		s.n++
		return
	}
	for _, t := range c.modify(t) {
		c.emit(t)
	}
}

func (c *converter) modify(t tensor) []tensor {
	if c.row.modify == nil {
		return []tensor{t}
	}
	return c.row.modify(c, t)
}
