package vllm

import "fmt"

// A Generation is how transformers' generate is called. The zero value of a
// field is the default named in its comment.
type Generation struct {
	Batch     int  // sequences; 1
	Tokens    int  // of prompt and answer together; the model's context length
	AllLogits bool // keep the logits of every token, as forward does, not the last one's
	GPUs      int  // that share the layers (device_map="auto"); 1
}

// Transformers estimates what transformers holds on a GPU, on the fullest of
// several: the terms of its memory, which grows as it generates, at the end of the last sequence. The
// cache is exact, keys and values in 16 bits, sliding layers no longer than
// their window.
//
// Source: transformers, cache_utils.py (DynamicCache), generation/utils.py.
func Transformers(m Model, g Generation) ([]Term, error) {
	if g.Batch < 0 || g.Tokens < 0 || g.GPUs < 0 {
		return nil, fmt.Errorf("batch %d, tokens %d or GPUs %d is negative", g.Batch, g.Tokens, g.GPUs)
	}
	if g.Batch == 0 {
		g.Batch = 1
	}
	if g.Tokens == 0 {
		g.Tokens = max(m.ContextLength, 1)
	}
	batch, tokens := uint64(g.Batch), uint64(g.Tokens)
	o := Options{TensorParallel: 1, PipelineParallel: min(max(g.GPUs, 1), max(len(m.Layers), 1))}
	weights := m.fullest(&o, func(t *Tensor) uint64 {
		if t.Name == "output.weight" && m.Tied {
			return 0
		}
		return t.Bytes
	})
	of := ""
	if o.PipelineParallel > 1 {
		of = fmt.Sprintf(", on the fullest of %d GPUs", o.PipelineParallel)
	}
	var cache uint64
	starts := stages(len(m.Layers), o.PipelineParallel)
	for stage := range o.PipelineParallel {
		cache = max(cache, dynamicCache(m.Layers[starts[stage]:starts[stage+1]], batch, tokens))
	}
	logits, kept := batch, "the last token of each sequence"
	if g.AllLogits {
		logits, kept = mul(batch, tokens), "every token"
	}
	logits = mul(logits, uint64(m.Vocab), 2+4)
	layer := mul(batch, tokens, 2, add(mul(3, uint64(m.Hidden)), mul(3, uint64(m.FF))))
	return []Term{
		{"weights", weights, weights, "all tensors as stored" + of, "transformers, modeling_utils.py; accelerate, infer_auto_device_map"},
		{"cache", cache, cache, fmt.Sprintf("%d tokens × %d sequences, keys and values of every layer", tokens, batch) + of, "transformers, cache_utils.py"},
		{"logits", logits, logits, kept + ", in 16 and in 32 bits", "transformers, generation/utils.py"},
		{"activations", layer, mul(2, layer), fmt.Sprintf("one to two times %d tokens × (3 × %d + 3 × %d) × 2 B", mul(batch, tokens), m.Hidden, m.FF), "the widest layer of the prompt; modelled"},
		{"driver and kernels", 3 * gib / 10, 13 * gib / 10, "0.3 to 1.3 GiB", "transformers, perf_train_gpu_one.md: 1,343 MB on a V100"},
	}, nil
}

// dynamicCache returns the bytes that layers keep of so many tokens of each
// sequence.
func dynamicCache(layers []Layer, batch, tokens uint64) (n uint64) {
	for _, l := range layers {
		kept := tokens
		switch l.Kind {
		case Stateless:
			continue
		case Recurrent:
			n = add(n, mul(batch, l.StateBytes))
			continue
		case SlidingAttention, ChunkedAttention:
			kept = min(tokens, uint64(max(l.Window, 1)))
		}
		n = add(n, mul(batch, kept, l.perToken(1, Auto)))
	}
	return n
}
