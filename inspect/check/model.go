package check

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"weigh/formats"
	"weigh/formats/gguf"
	"weigh/inspect"
	"weigh/inspect/arch"
	"weigh/inspect/model"
)

// Model lists what contradicts itself in a well-formed model: metadata that
// llama.cpp v0.5.0 misses or refuses, tensors that do not have the shapes the
// metadata says. All of them are warnings, for the files are as their format
// wants them. load is the error of building the model's graph, nil when it can
// be built: what then looks odd is how its architecture is made. refused reports
// whether llama.cpp would refuse to load the model.
func Model(ins *inspect.Inspection, load error) (problems []Problem, refused bool) {
	c := &checker{ins: ins, m: ins.Model}
	if ins.GGUF != nil {
		c.file = ins.GGUF.Files[0]
		switch kind, _ := c.file.Lookup("general.type"); kind {
		case "adapter", "mmproj", "imatrix":
			return nil, false
		}
		if name, _ := c.file.Lookup("general.architecture"); name == "clip" {
			return nil, false
		}
	}
	if c.file != nil {
		name, _ := c.file.Lookup("general.architecture")
		if name, ok := name.(string); ok {
			c.keys(name)
		}
	}
	switch {
	case c.m == nil && ins.HF != nil:
		c.warn("no-architecture", "architecture", -1, "%v", ins.Reason)
	case c.m == nil:
		key, why, found := strings.Cut(ins.Reason.Error(), ": ")
		if !found {
			key, why = "metadata", ins.Reason.Error()
		}
		if !slices.ContainsFunc(c.problems, func(p Problem) bool { return p.Field == key }) {
			c.refuse("bad-metadata", key, c.keyAt(key), "%s", why)
		}
	default:
		if arch.Lookup(c.m.Arch) == nil {
			c.refuse("unknown-architecture", "general.architecture", c.keyAt("general.architecture"), "llama.cpp v0.5.0 has no architecture %q", c.m.Arch)
		}
		wants, known := arch.Tensors(c.m)
		c.vocabulary(!known)
		if known {
			c.wanted(wants)
		} else {
			c.tensors()
		}
		if load != nil {
			c.refuse("not-loadable", "tensors", -1, "%v", load)
			c.widths()
			c.heads()
		}
		c.layers(load != nil, !known)
	}
	if ins.HF != nil && ins.HF.Refused != "" {
		c.refuse("not-convertible", "weights", -1, "llama.cpp's converter would refuse them: %s", ins.HF.Refused)
	}
	return c.problems, c.refused
}

// maxListed bounds the problems that are listed.
const maxListed = 1000

// A checker collects problems.
type checker struct {
	ins      *inspect.Inspection
	m        *model.Model
	file     *gguf.File // the first; nil for safetensors
	offsets  []int64
	problems []Problem
	refused  bool
}

func (c *checker) warn(code, field string, offset int64, format string, args ...any) {
	if len(c.problems) == maxListed {
		return
	}
	c.problems = append(c.problems, Problem{formats.Problem{
		Severity: formats.SeverityWarning, Code: code, Field: field, Offset: offset, Message: fmt.Sprintf(format, args...),
	}, ""})
}

// refuse reports what llama.cpp does not load.
func (c *checker) refuse(code, field string, offset int64, format string, args ...any) {
	c.refused = true
	c.warn(code, field, offset, format, args...)
}

// keyAt returns where a key is in the first file, -1 when it is not there.
func (c *checker) keyAt(key string) int64 {
	if c.file != nil {
		if kv, ok := c.file.KV(key); ok {
			return kv.Offset
		}
	}
	return -1
}

// tensorAt returns where a tensor's entry is in its file's header, -1 when that
// is not known.
func (c *checker) tensorAt(name string) int64 {
	if c.ins.GGUF == nil {
		return -1
	}
	if c.offsets == nil { // in the order of the model's tensors
		for _, t := range c.ins.GGUF.Tensors() {
			c.offsets = append(c.offsets, t.HeaderOffset)
		}
	}
	if i := c.place(name); i >= 0 {
		return c.offsets[i]
	}
	return -1
}

// place returns a tensor's place in the model, -1 when it has none of the name.
func (c *checker) place(name string) int {
	if il, rest := model.SplitName(name); il >= 0 {
		return c.m.Index.Layer(il, rest)
	}
	return c.m.Index.Global(name)
}

// tensor returns a tensor outside the blocks.
func (c *checker) tensor(name string) *model.Tensor {
	if i := c.m.Index.Global(name); i >= 0 {
		return &c.m.Tensors[i]
	}
	return nil
}

// arrayLen returns the elements of an array.
func (c *checker) arrayLen(key string) (n uint64, ok bool) {
	if c.file == nil {
		return 0, false
	}
	kv, ok := c.file.KV(key)
	if !ok || kv.Type != gguf.Array {
		return 0, false
	}
	return kv.Count, true
}

// keys lists the keys that are missing for the architecture and those of a type
// that llama.cpp does not read.
func (c *checker) keys(name string) {
	if row := arch.Lookup(name); row != nil {
		for _, key := range row.Demands() {
			if key = name + "." + key; c.keyAt(key) < 0 {
				c.refuse("bad-metadata", key, -1, "missing: llama.cpp refuses to load this architecture without it")
			}
		}
	}
	layers, _ := c.file.Lookup(name + ".block_count")
	for i := range c.file.KVs {
		kv := &c.file.KVs[i]
		key, ok := strings.CutPrefix(kv.Key, name+".")
		if !ok {
			continue
		}
		want, perLayer := arch.Stored(key)
		switch got := kv.TypeName(); {
		case want == "" || got == want:
		case perLayer && kv.Type == gguf.Array:
			if n, ok := layers.(int64); ok && uint64(n) != kv.Count {
				c.refuse("bad-metadata", kv.Key, kv.Offset, "%d values for %d layers", kv.Count, n)
			} else if got != "arr["+want+"]" && (want != "u32" || kv.Elem != gguf.Int32) {
				c.refuse("wrong-type", kv.Key, kv.Offset, "is %s, llama.cpp reads %s or arr[%s] only", got, want, want)
			}
		default:
			c.refuse("wrong-type", kv.Key, kv.Offset, "is %s, llama.cpp reads %s only", got, want)
		}
	}
}

// wanted compares the tensors with those that llama.cpp asks for.
//
// Source: src/llama-model-loader.cpp@v0.5.0, check_tensor_dims and
// done_getting_tensors.
func (c *checker) wanted(wants []arch.Want) {
	asked := make(map[string]bool, len(wants))
	for i := range c.problems {
		asked[c.problems[i].Field] = true
	}
	for i := range wants {
		w := &wants[i]
		if asked[w.Name] {
			continue
		}
		asked[w.Name] = true
		var t *model.Tensor
		if i := c.place(w.Name); i >= 0 {
			t = &c.m.Tensors[i]
		}
		switch {
		case t == nil && !w.Optional:
			c.refuse("missing-tensor", w.Name, -1, "missing: llama.cpp wants one of shape %v", w.Shape)
		case t != nil && !w.Fits(t.Shape):
			c.refuse("wrong-shape", t.Name, c.tensorAt(t.Name), "is %v, llama.cpp wants %v%s", t.Shape, w.Shape, c.saying(t.Shape, w.Shape))
		}
	}
	for i := range c.m.Tensors {
		if name := c.m.Tensors[i].Name; !asked[name] {
			c.refuse("unknown-tensor", name, c.tensorAt(name), "llama.cpp knows no such tensor in this architecture, and refuses files with tensors it does not use")
		}
	}
}

// saying names the key, if there is one, that holds the first number in which
// the wanted shape differs.
func (c *checker) saying(is []uint64, want []int64) string {
	for d, n := range want {
		if d < len(is) && uint64(n) == is[d] || c.file == nil {
			continue
		}
		for i := range c.file.KVs {
			key := c.file.KVs[i].Key
			if !strings.HasPrefix(key, c.m.Arch+".") {
				continue
			}
			if v, _ := c.file.Lookup(key); v == n {
				return fmt.Sprintf(", as %s says %d", key, n)
			}
		}
		break
	}
	return ", by its metadata"
}

// tensors looks for what almost every model has.
//
// Source: src/llama-model.cpp@v0.5.0, the shapes that load_arch_tensors asks for.
func (c *checker) tensors() {
	const norm = "output_norm.weight"
	ends := c.m.Index.Layer(0, "attn_norm.weight") < 0 // as others than decoders begin their blocks
	for i := range c.m.Tensors {
		name := c.m.Tensors[i].Name
		ends = ends || strings.HasSuffix(name, norm) || name == "token_embd_norm.weight"
	}
	if !ends {
		c.refuse("missing-tensor", norm, -1, "missing: the model's last norm")
	}
	for il := range c.m.Layers {
		if c.widthsOf(il) {
			return // the others are as wrong
		}
	}
}

// widthsOf compares the feed-forward tensors of a block with the counts, and
// reports whether they contradict each other.
func (c *checker) widthsOf(il int) (found bool) {
	const expertWidth = "expert_feed_forward_length"
	for _, of := range []struct {
		name string
		dim  int
		key  string
		want int
	}{
		{"ffn_down.weight", 0, "feed_forward_length", c.m.NFF(il)},
		{"ffn_up.weight", 1, "feed_forward_length", c.m.NFF(il)},
		{"ffn_down_exps.weight", 0, expertWidth, cmp.Or(c.m.NFFExp(il), c.m.NFF(il))},
		{"ffn_down_exps.weight", 2, "expert_count", c.m.NExpert},
		{"ffn_up_exps.weight", 2, "expert_count", c.m.NExpert},
		{"ffn_gate_exps.weight", 2, "expert_count", c.m.NExpert},
	} {
		i := c.m.Index.Layer(il, of.name)
		if i < 0 {
			continue
		}
		t, want := &c.m.Tensors[i], uint64(max(of.want, 0))
		if len(t.Shape) <= of.dim {
			continue
		}
		n := t.Shape[of.dim]
		// The gate may be in one with the up projection, or be counted with it; a
		// dense block beside experts may be as wide as the model.
		if n == want || of.key == "feed_forward_length" && want > 0 && (n == 2*want || 2*n == want || n == uint64(max(c.m.NEmbd, 0))) {
			continue
		}
		if of.key == expertWidth && (n == uint64(max(c.m.NFF(il), 0)) || c.m.NFFExp(il) == 0 && want > 0) {
			continue // the architecture counts them in another way
		}
		key := c.m.Arch + "." + of.key
		c.refuse("width-mismatch", t.Name, c.tensorAt(t.Name), "is %v, where %s says %d", t.Shape, key, of.want)
		found = true
	}
	return found
}

// vocabulary compares the tokens with the rows of the embeddings and with what
// is said about them, and with those of the output matrix if guess is set.
func (c *checker) vocabulary(guess bool) {
	c.tokenizer()
	tokens, ok := c.arrayLen("tokenizer.ggml.tokens")
	if ok {
		if t := c.tensor("token_embd.weight"); t != nil && len(t.Shape) == 2 && t.Shape[1] != tokens {
			c.refuse("vocabulary-mismatch", t.Name, c.tensorAt(t.Name), "%d rows for %d tokens: llama.cpp wants a row for each", t.Shape[1], tokens)
		}
		// Models of speech have an output of their own kind, narrower or apart.
		if t := c.tensor("output.weight"); guess && t != nil && len(t.Shape) == 2 && t.Shape[1] != tokens && t.Shape[0] == uint64(c.m.NEmbd) {
			c.warn("vocabulary-mismatch", t.Name, c.tensorAt(t.Name), "%d rows for %d tokens", t.Shape[1], tokens)
		}
		for _, key := range []string{"tokenizer.ggml.scores", "tokenizer.ggml.token_type"} {
			n, has := c.arrayLen(key)
			switch {
			case has && n < tokens:
				c.refuse("vocabulary-mismatch", key, c.keyAt(key), "%d values for %d tokens", n, tokens)
			case has && n > tokens:
				c.warn("vocabulary-mismatch", key, c.keyAt(key), "%d values for %d tokens", n, tokens)
			}
		}
		for _, kv := range c.file.KVs {
			name, is := strings.CutPrefix(kv.Key, "tokenizer.ggml.")
			if !is || !strings.HasSuffix(name, "_token_id") {
				continue
			}
			if v, _ := c.file.Lookup(kv.Key); v != nil {
				if id, ok := v.(int64); ok && (id < 0 || uint64(id) >= tokens) && id != 0xffffffff && id != -1 {
					c.warn("token-out-of-range", kv.Key, kv.Offset, "token %d of %d", id, tokens)
				}
			}
		}
		return
	}
}

// tokenizer lists what llama.cpp misses of a tokenizer.
//
// Source: src/llama-vocab.cpp@v0.5.0, llama_vocab::impl::load.
func (c *checker) tokenizer() {
	if c.file == nil || arch.Lookup(c.m.Arch) == nil {
		return
	}
	const model, tokens, merges = "tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"
	v, _ := c.file.Lookup(model)
	kind, ok := v.(string)
	switch {
	case !ok:
		c.refuse("no-vocabulary", model, c.keyAt(model), "missing or not text: it says what kind of tokenizer the model has, or none")
	case kind == "no_vocab", kind == "none":
		return
	}
	texts := func(key, why string) {
		if kv, ok := c.file.KV(key); !ok {
			c.refuse("no-vocabulary", key, -1, "missing: %s", why)
		} else if kv.TypeName() != "arr[str]" {
			c.refuse("wrong-type", key, kv.Offset, "is %s, llama.cpp reads arr[str] only", kv.TypeName())
		}
	}
	texts(tokens, "the file has no vocabulary to run a model with")
	switch pre, _ := c.file.Lookup("tokenizer.ggml.pre"); kind {
	case "gpt2", "gemma4", "hybriddna", "whitespace":
		if kind == "gemma4" || pre != "kimi-k2" {
			texts(merges, "a tokenizer of the kind "+kind+" needs it")
		}
	}
}

// widths compares the tensors outside the blocks with the model's width.
func (c *checker) widths() {
	for _, name := range []string{"token_embd.weight", "output.weight", "output_norm.weight"} {
		t := c.tensor(name)
		if t == nil || len(t.Shape) == 0 || c.m.NEmbd == 0 || t.Shape[0] == uint64(c.m.NEmbd) {
			continue
		}
		if odd := c.m.NEmbdInp() == int(t.Shape[0]) || c.m.NEmbdOut() == int(t.Shape[0]) || c.m.NEmbdInpEnc() == int(t.Shape[0]); !odd {
			c.warn("width-mismatch", name, c.tensorAt(name), "rows of %d, the model is %d wide (%s.embedding_length)", t.Shape[0], c.m.NEmbd, c.m.Arch)
		}
	}
	if len(c.m.Tensors) > 0 && c.tensor("token_embd.weight") == nil {
		c.warn("missing-tensor", "token_embd.weight", -1, "missing: the model has no token embeddings")
	}
}

// heads compares the numbers of heads with each other.
func (c *checker) heads() {
	for il := range c.m.Layers {
		l := &c.m.Layers[il]
		if l.NHead > 0 && l.NHeadKV > 0 && l.NHead%l.NHeadKV != 0 {
			key := c.m.Arch + ".attention.head_count_kv"
			c.warn("head-mismatch", key, c.keyAt(key), "%d heads in layer %d do not share %d key and value heads evenly", l.NHead, il, l.NHeadKV)
			return
		}
	}
	if n := c.m.NHead(0); n > 0 && c.m.NEmbd%n != 0 {
		if _, has := c.m.Meta.Lookup(c.m.Arch + ".attention.key_length"); !has {
			key := c.m.Arch + ".attention.head_count"
			c.warn("head-mismatch", key, c.keyAt(key), "%d heads do not divide a width of %d, and no key_length says theirs", n, c.m.NEmbd)
		}
	}
}

// layers compares the blocks there are with those the metadata promises, and
// each tensor with the same one of the other blocks. refused says that llama.cpp
// does not load the model, whatever the reason.
func (c *checker) layers(refused, guess bool) {
	if len(c.m.Tensors) == 0 {
		return
	}
	promised := c.m.NLayerAll
	if v, ok := c.m.Meta.Lookup(c.m.Arch + ".block_count"); ok {
		if n, ok := v.(int64); ok && n > 0 {
			promised = int(min(n, arch.MaxLayers))
		}
	}
	sets := make([]map[string]bool, promised)
	for i := range c.m.Tensors {
		il, rest := model.SplitName(c.m.Tensors[i].Name)
		switch {
		case il < 0:
		case il >= promised:
			name := c.m.Tensors[i].Name
			c.refuse("extra-layer", name, c.tensorAt(name), "block %d of %d (%s.block_count)", il, promised, c.m.Arch)
		default:
			if sets[il] == nil {
				sets[il] = map[string]bool{}
			}
			sets[il][rest] = true
		}
	}
	for il, there := range sets {
		if there == nil && il < c.m.NLayer() && refused {
			key := c.m.Arch + ".block_count"
			c.warn("missing-layer", fmt.Sprintf("blk.%d", il), c.keyAt(key), "no tensor of block %d is there, of %d blocks promised", il, promised)
		}
	}
	if guess {
		c.lost(sets[:min(len(sets), c.m.NLayer())])
	}
}

// lost finds the block that has all tensors of another but one, when no other
// block is like it. First blocks are made without their first norm, and of few
// tensors llama.cpp can do without in any one block.
func (c *checker) lost(sets []map[string]bool) {
	alike := maps.Equal[map[string]bool, map[string]bool]
	for il, set := range sets {
		if set == nil || slices.ContainsFunc(sets[:il], func(s map[string]bool) bool { return alike(s, set) }) ||
			slices.ContainsFunc(sets[il+1:], func(s map[string]bool) bool { return alike(s, set) }) {
			continue
		}
		for jl, other := range sets {
			name, ok := missingOne(set, other)
			if !ok || il == 0 && name == "attn_norm.weight" {
				continue
			}
			full := fmt.Sprintf("blk.%d.%s", il, name)
			if strings.HasSuffix(name, ".weight") && name != "ffn_gate_exps.weight" && !strings.Contains(name, "rope_f") {
				c.refuse("missing-tensor", full, -1, "missing: block %d has it, and all others that this one has", jl)
			} else {
				c.warn("missing-tensor", full, -1, "missing: block %d has it, and all others that this one has", jl)
			}
			break
		}
	}
}

// missingOne returns the one name that most has and set has not, if that is all
// they differ in.
func missingOne(set, most map[string]bool) (name string, ok bool) {
	if len(most) != len(set)+1 {
		return "", false
	}
	for n := range most {
		switch {
		case set[n]:
		case name != "":
			return "", false
		default:
			name = n
		}
	}
	return name, true
}
