package check

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"weigh/formats"
	"weigh/formats/gguf"
	"weigh/inspect"
	"weigh/inspect/arch"
	"weigh/inspect/hf"
	"weigh/inspect/model"
)

// Model lists what contradicts itself in a well-formed model: metadata that
// llama.cpp v0.5.0 misses or refuses, tensors that do not have the shapes the
// metadata says. All of them are warnings, for the files are as their format
// wants them. load is the error of building the model's graph, nil when it can
// be built: what then looks odd is how its architecture is made. refused reports
// whether llama.cpp would refuse to load the model.
func Model(ins *inspect.Inspection, load error) (problems []Problem, refused bool) {
	c := look(ins, load)
	return c.problems, c.refused != nil
}

// Refusal returns the first reason why llama.cpp v0.5.0 would refuse to load the
// model, nil when it knows of none. It does not try to build the model's graph.
func Refusal(ins *inspect.Inspection) *Problem { return look(ins, nil).refused }

// look goes through a model.
func look(ins *inspect.Inspection, load error) *checker {
	c := &checker{ins: ins, m: ins.Model}
	if ins.GGUF != nil {
		c.file = ins.GGUF.Files[0]
		if c.companion() {
			return c
		}
	}
	if c.file != nil {
		name, _ := c.file.Lookup("general.architecture")
		if name, ok := name.(string); ok {
			c.keys(name)
		}
	}
	switch {
	case c.m == nil:
		key, why := faultOf(ins.Reason)
		if key == "" && ins.HF != nil {
			c.warn("no-architecture", "architecture", -1, "%v", ins.Reason)
			break
		}
		if key = cmp.Or(key, "metadata"); !slices.ContainsFunc(c.problems, func(p Problem) bool { return p.Field == key }) {
			c.refuse("bad-metadata", key, c.keyAt(key), "%s", why)
		}
	default:
		if arch.Lookup(c.m.Arch) == nil {
			c.refuse("unknown-architecture", "general.architecture", c.keyAt("general.architecture"), "llama.cpp v0.5.0 has no architecture %q", c.m.Arch)
		}
		c.vocabulary()
		if wants, ok := arch.Tensors(c.m); ok && len(c.m.Tensors) > 0 && !ins.Weightless() {
			c.wanted(wants)
		}
		if load != nil {
			if c.refused == nil {
				c.refuse("not-loadable", "tensors", -1, "%v", load)
			}
			c.heads()
		}
	}
	if ins.HF != nil && ins.HF.Refused != "" {
		c.refuse("not-convertible", "weights", -1, "llama.cpp's converter would refuse them: %s", ins.HF.Refused)
	}
	return c
}

// faultOf returns the key or the field of a configuration that an error is about,
// "" when it is about none.
func faultOf(err error) (key, why string) {
	var field *hf.FieldError
	var fault *arch.KeyError
	switch {
	case errors.As(err, &field):
		return field.Field, field.Why
	case errors.As(err, &fault):
		return fault.Key, fault.Why
	}
	return "", err.Error()
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
	refused  *Problem // the first of those for which llama.cpp refuses the model
}

func newProblem(code, field string, offset int64, format string, args ...any) Problem {
	return Problem{formats.Problem{
		Severity: formats.SeverityWarning, Code: code, Field: cmp.Or(field, "a tensor without a name"), Offset: offset, Message: fmt.Sprintf(format, args...),
	}, ""}
}

func (c *checker) warn(code, field string, offset int64, format string, args ...any) {
	if len(c.problems) < maxListed {
		c.problems = append(c.problems, newProblem(code, field, offset, format, args...))
	}
}

// refuse reports what llama.cpp does not load.
func (c *checker) refuse(code, field string, offset int64, format string, args ...any) {
	if c.refused == nil {
		p := newProblem(code, field, offset, format, args...)
		c.refused = &p
	}
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

// lookup returns the value of a key, which may be overridden; nil when there is
// none.
func (c *checker) lookup(key string) any {
	if c.m != nil {
		v, _ := c.m.Meta.Lookup(key)
		return v
	}
	v, _ := c.file.Lookup(key)
	return v
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
			if key = name + "." + key; c.keyAt(key) < 0 && c.lookup(key) == nil {
				c.refuse("bad-metadata", key, -1, "missing: llama.cpp refuses to load this architecture without it")
			}
		}
	}
	layers := c.lookup(name + ".block_count")
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

// wanted compares the tensors with those that llama.cpp asks for. Of a block of
// which there is nothing it says so once.
//
// Source: src/llama-model-loader.cpp@v0.5.0, check_tensor_dims and
// done_getting_tensors.
func (c *checker) wanted(wants []arch.Want) {
	asked := make(map[string]bool, len(wants))
	for i := range c.problems {
		asked[c.problems[i].Field] = true
	}
	count := c.m.Arch + ".block_count"
	there := make([]bool, c.m.NLayerAll)
	for i := range c.m.Tensors {
		if il, _ := model.SplitName(c.m.Tensors[i].Name); il >= 0 && il < len(there) {
			there[il] = true
		}
	}
	for i := range wants {
		w := &wants[i]
		if asked[w.Name] {
			continue
		}
		asked[w.Name] = true
		if i := c.place(w.Name); i >= 0 {
			if t := &c.m.Tensors[i]; !w.Fits(t.Shape) {
				c.refuse("wrong-shape", t.Name, c.tensorAt(t.Name), "is %v, llama.cpp wants %v%s", t.Shape, w.Shape, c.saying(t.Shape, w.Shape))
			}
			continue
		}
		if w.Optional {
			continue
		}
		il, _ := model.SplitName(w.Name)
		switch block := fmt.Sprintf("blk.%d", il); {
		case il < 0 || il >= len(there) || there[il]:
			c.refuse("missing-tensor", w.Name, -1, "missing: llama.cpp wants one of shape %v", w.Shape)
		case !asked[block]:
			asked[block] = true
			c.refuse("missing-layer", block, c.keyAt(count), "no tensor of block %d is there, of %d blocks that %s promises", il, c.m.NLayerAll, count)
		}
	}
	for i := range c.m.Tensors {
		name := c.m.Tensors[i].Name
		switch il, _ := model.SplitName(name); {
		case asked[name]:
		case il >= len(there):
			c.refuse("extra-layer", name, c.tensorAt(name), "of block %d, where %s promises %d", il, count, len(there))
		default:
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

// vocabulary compares the tokens with the rows of the embeddings and with what
// is said about them.
func (c *checker) vocabulary() {
	c.tokenizer()
	tokens, ok := c.arrayLen("tokenizer.ggml.tokens")
	if ok {
		if t := c.tensor("token_embd.weight"); t != nil && len(t.Shape) == 2 && t.Shape[1] != tokens {
			c.refuse("vocabulary-mismatch", t.Name, c.tensorAt(t.Name), "%d rows for %d tokens: llama.cpp wants a row for each", t.Shape[1], tokens)
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
	kind, ok := c.lookup(model).(string)
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
