package vllm

import "fmt"

// A Generation is how transformers' generate is called. The zero value of a
// field is the default named in its comment.
type Generation struct {
	Batch     int  // sequences; 1
	Tokens    int  // of prompt and answer together; the model's context length
	AllLogits bool // keep the logits of every token, as forward does, not the last one's
}

// Transformers estimates what transformers holds on one GPU: the terms of its
// memory, which grows as it generates, at the end of the last sequence. The
// cache is exact, keys and values in 16 bits, sliding layers no longer than
// their window.
//
// Source: transformers, cache_utils.py (DynamicCache), generation/utils.py.
func Transformers(m Model, g Generation) ([]Term, error) {
	if g.Batch < 0 || g.Tokens < 0 {
		return nil, fmt.Errorf("batch %d or tokens %d is negative", g.Batch, g.Tokens)
	}
	if g.Batch == 0 {
		g.Batch = 1
	}
	if g.Tokens == 0 {
		g.Tokens = max(m.ContextLength, 1)
	}
	batch, tokens := uint64(g.Batch), uint64(g.Tokens)
	var weights, cache uint64
	for _, t := range m.Tensors {
		if t.Name != "output.weight" || !m.Tied {
			weights = add(weights, t.Bytes)
		}
	}
	for _, l := range m.Layers {
		kept := tokens
		switch l.Kind {
		case Stateless:
			continue
		case Recurrent:
			cache = add(cache, mul(batch, l.StateBytes))
			continue
		case SlidingAttention, ChunkedAttention:
			kept = min(tokens, uint64(max(l.Window, 1)))
		}
		cache = add(cache, mul(batch, kept, l.perToken(1, Auto)))
	}
	logits, kept := batch, "the last token of each sequence"
	if g.AllLogits {
		logits, kept = mul(batch, tokens), "every token"
	}
	logits = mul(logits, uint64(m.Vocab), 2+4)
	layer := mul(batch, tokens, 2, add(mul(3, uint64(m.Hidden)), mul(3, uint64(m.FF))))
	return []Term{
		{"weights", weights, weights, "all tensors as stored", "transformers, modeling_utils.py"},
		{"cache", cache, cache, fmt.Sprintf("%d tokens × %d sequences, keys and values of every layer", tokens, batch), "transformers, cache_utils.py"},
		{"logits", logits, logits, kept + ", in 16 and in 32 bits", "transformers, generation/utils.py"},
		{"activations", layer, mul(2, layer), fmt.Sprintf("one to two times %d tokens × (3 × %d + 3 × %d) × 2 B", mul(batch, tokens), m.Hidden, m.FF), "the widest layer of the prompt; modelled"},
		{"driver and kernels", 3 * gib / 10, 13 * gib / 10, "0.3 to 1.3 GiB", "transformers, perf_train_gpu_one.md: 1,343 MB on a V100"},
	}, nil
}
