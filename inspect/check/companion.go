package check

import (
	"strings"

	"weigh/formats/gguf"
	"weigh/inspect/model"
	"weigh/inspect/projector"
)

// companion looks at a file that is loaded beside a model: an adapter, a
// multimodal projector, an importance matrix. It reports whether the file is one.
func (c *checker) companion() bool {
	text := func(key string) string {
		v, _ := c.file.Lookup(key)
		s, _ := v.(string)
		return s
	}
	switch kind := text("general.type"); {
	case kind == "adapter":
		c.adapter(text("adapter.type"))
	case kind == "imatrix":
		for _, key := range []string{"imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"} {
			if c.keyAt(key) < 0 {
				c.refuse("bad-metadata", key, -1, "missing: llama-quantize does not take it for an importance matrix")
			}
		}
	case kind == "mmproj", text("general.architecture") == "clip":
		c.projector()
	default:
		return false
	}
	return true
}

// adapter lists what llama.cpp refuses of a LoRA adapter, whatever model it is
// used with.
//
// Source: src/llama-adapter.cpp@v0.5.0, llama_adapter_lora_init_impl.
func (c *checker) adapter(kind string) {
	if kind != "lora" {
		c.refuse("bad-metadata", "adapter.type", c.keyAt("adapter.type"), "%q, llama.cpp loads adapters of type lora only", kind)
	}
	if kv, ok := c.file.KV("adapter.lora.alpha"); ok && kv.Type != gguf.Float32 {
		c.refuse("wrong-type", kv.Key, kv.Offset, "is %s, llama.cpp reads f32 only", kv.TypeName())
	}
	const a, b = ".lora_a", ".lora_b"
	pairs := map[string][2]*gguf.Tensor{}
	for _, t := range c.ins.GGUF.Tensors() {
		name, second := strings.CutSuffix(t.Name, b)
		if !second {
			var first bool
			if name, first = strings.CutSuffix(t.Name, a); !first {
				if !strings.HasSuffix(t.Name, "_norm.weight") {
					c.refuse("unknown-tensor", t.Name, t.HeaderOffset, "its name ends neither in %s nor in %s", a, b)
				}
				continue
			}
		}
		pair := pairs[name]
		if second {
			pair[1] = t
		} else {
			pair[0] = t
		}
		pairs[name] = pair
	}
	for _, t := range c.ins.GGUF.Tensors() {
		name, second := strings.CutSuffix(t.Name, b)
		if !second {
			name = strings.TrimSuffix(t.Name, a)
		}
		switch pair, ok := pairs[name]; {
		case !ok:
		case pair[0] == nil:
			c.refuse("missing-tensor", name+a, -1, "missing: %s is there", t.Name)
		case pair[1] == nil:
			c.refuse("missing-tensor", name+b, -1, "missing: %s is there", t.Name)
		case second && !strings.HasSuffix(name, "token_embd.weight") && dim(pair[0], 1) != dim(t, 0):
			c.refuse("wrong-shape", t.Name, t.HeaderOffset, "is %v, its other half %v: their ranks differ", t.Shape, pair[0].Shape)
		}
	}
}

// dim returns dimension d of a tensor, fastest first.
func dim(t *gguf.Tensor, d int) uint64 {
	if d < len(t.Shape) {
		return t.Shape[d]
	}
	return 1
}

// projector lists what llama.cpp refuses of a multimodal projector.
//
// Source: tools/mtmd/clip.cpp@v0.5.0, clip_model_loader.
func (c *checker) projector() {
	var tensors []model.Tensor
	for _, t := range c.ins.GGUF.Tensors() {
		tensors = append(tensors, model.Tensor{Name: t.Name, Type: t.Type, Shape: t.Shape, Bytes: t.Bytes})
	}
	p, err := projector.Read(c.file, tensors, 0)
	if err != nil {
		key, why, ok := strings.Cut(err.Error(), ": ")
		if !ok || strings.Contains(key, " ") {
			key, why = "metadata", err.Error()
		}
		c.refuse("bad-metadata", key, c.keyAt(key), "%s", why)
		return
	}
	for _, t := range p.Towers {
		for _, name := range t.Lost() {
			c.refuse("missing-tensor", name, -1, "missing: llama.cpp refuses to load a projector of type %.40q without it", t.Type)
		}
		if !t.Known() {
			continue
		}
		if _, err := t.Build(t.WarmUp(), true, 0); err != nil {
			c.refuse("not-loadable", "tensors", -1, "%v", err)
		}
	}
}
