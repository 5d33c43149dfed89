package check

import (
	"fmt"
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
	switch {
	case c.m == nil && ins.HF != nil:
		c.warn("no-architecture", "architecture", -1, "%v", ins.Reason)
	case c.m == nil:
		key, why, found := strings.Cut(ins.Reason.Error(), ": ")
		if !found {
			key, why = "metadata", ins.Reason.Error()
		}
		c.refuse("bad-metadata", key, c.keyAt(key), "%s", why)
	default:
		if arch.Lookup(c.m.Arch) == nil {
			c.refuse("unknown-architecture", "general.architecture", c.keyAt("general.architecture"), "llama.cpp v0.5.0 has no architecture %q", c.m.Arch)
		}
		c.vocabulary()
		if load != nil {
			c.refuse("not-loadable", "tensors", -1, "%v", load)
			c.widths()
			c.heads()
			c.layers()
		}
	}
	if ins.HF != nil && ins.HF.Refused != "" {
		c.refuse("not-convertible", "weights", -1, "llama.cpp's converter would refuse them: %s", ins.HF.Refused)
	}
	return c.problems, c.refused
}

// A checker collects problems.
type checker struct {
	ins      *inspect.Inspection
	m        *model.Model
	file     *gguf.File // the first; nil for safetensors
	problems []Problem
	refused  bool
}

func (c *checker) warn(code, field string, offset int64, format string, args ...any) {
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
	if c.ins.GGUF != nil {
		for _, t := range c.ins.GGUF.Tensors() {
			if t.Name == name {
				return t.HeaderOffset
			}
		}
	}
	return -1
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

// vocabulary compares the tokens with the rows of the embeddings and with what
// is said about them.
func (c *checker) vocabulary() {
	tokens, ok := c.arrayLen("tokenizer.ggml.tokens")
	if ok {
		if t := c.tensor("token_embd.weight"); t != nil && len(t.Shape) == 2 && t.Shape[1] != tokens {
			c.refuse("vocabulary-mismatch", t.Name, c.tensorAt(t.Name), "%d rows for %d tokens: llama.cpp wants a row for each", t.Shape[1], tokens)
		}
		// Models of speech have an output of their own kind, narrower or apart.
		if t := c.tensor("output.weight"); t != nil && len(t.Shape) == 2 && t.Shape[1] != tokens && t.Shape[0] == uint64(c.m.NEmbd) {
			c.warn("vocabulary-mismatch", t.Name, c.tensorAt(t.Name), "%d rows for %d tokens", t.Shape[1], tokens)
		}
		for _, key := range []string{"tokenizer.ggml.scores", "tokenizer.ggml.token_type"} {
			if n, has := c.arrayLen(key); has && n != tokens {
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
	if kind, has := c.m.Meta.Lookup("tokenizer.ggml.model"); c.file != nil && (!has || kind != "no_vocab" && kind != "none") && arch.Lookup(c.m.Arch) != nil {
		c.warn("no-vocabulary", "tokenizer.ggml.tokens", -1, "missing: the file has no vocabulary to run a model with")
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
// each tensor with the same one of the other blocks.
func (c *checker) layers() {
	if len(c.m.Tensors) == 0 {
		return
	}
	promised := c.m.NLayerAll
	if v, ok := c.m.Meta.Lookup(c.m.Arch + ".block_count"); ok {
		if n, ok := v.(int64); ok && n > 0 {
			promised = int(min(n, arch.MaxLayers))
		}
	}
	has := make([]bool, promised)
	type occurrence struct {
		layer int
		at    int
	}
	by := map[string][]occurrence{}
	for i := range c.m.Tensors {
		il, rest := model.SplitName(c.m.Tensors[i].Name)
		switch {
		case il < 0:
		case il >= promised:
			name := c.m.Tensors[i].Name
			c.refuse("extra-layer", name, c.tensorAt(name), "block %d of %d (%s.block_count)", il, promised, c.m.Arch)
		default:
			has[il] = true
			by[rest] = append(by[rest], occurrence{il, i})
		}
	}
	for il, there := range has {
		if !there && il < c.m.NLayer() {
			key := c.m.Arch + ".block_count"
			c.warn("missing-layer", fmt.Sprintf("blk.%d", il), c.keyAt(key), "no tensor of block %d is there, of %d blocks promised", il, promised)
		}
	}
	names := make([]string, 0, len(by))
	for rest := range by {
		names = append(names, rest)
	}
	slices.Sort(names)
	for _, rest := range names {
		list := by[rest]
		// One gap inside an otherwise full row of blocks: a tensor was lost. More
		// gaps are how hybrids and mixtures are made.
		if n := len(list); n >= 4 && n == promised-1 && list[0].layer == 0 && list[n-1].layer == promised-1 {
			for i := range list {
				if list[i].layer != i {
					name := fmt.Sprintf("blk.%d.%s", i, rest)
					c.warn("missing-tensor", name, -1, "missing: the %d other blocks have it", n)
					break
				}
			}
		}
	}
}
