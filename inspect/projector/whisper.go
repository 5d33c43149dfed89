package projector

import "weigh/inspect/graph"

// whisperSizes reads how many frames are joined.
func whisperSizes(need bool) func(k *keys, h *hparams) {
	return func(k *keys, h *hparams) {
		if h.stack = k.int("projector.stack_factor", 0); need {
			h.stack = k.need("projector.stack_factor")
		}
		h.act = geluErf
	}
}

// whisper is Whisper's encoder with the projector of a family.
//
// Source: tools/mtmd/models/whisper-enc.cpp@v0.5.0.
func whisper(b *builder) *graph.Tensor {
	kind := b.t.Type
	n := b.nx / 2
	cur := b.GELUErf(b.Add(b.Conv1DPh(b.need("a.conv1d.1.weight"), b.raw(1), 1, 1), b.need("a.conv1d.1.bias")))
	cur = b.GELUErf(b.Add(b.Conv1DPh(b.need("a.conv1d.2.weight"), cur, 2, 1), b.need("a.conv1d.2.bias")))
	inp := b.Cont(b.Transpose(cur))
	pos := b.need("a.position_embd.weight")
	cur = b.vit(inp, n, vit{
		act: b.act, pos: b.View2D(pos, pos.Ne[0], n, pos.Nb[1], 0),
		pool: kind == "qwen2a" || kind == "voxtral" || kind == "musicflamingo",
	})
	if kind == "ultravox" || kind == "voxtral" || kind == "meralion" {
		cur = b.stacked(cur)
	}
	mm := func(name string) *graph.Tensor { return b.need("mm.a.mlp." + name + ".weight") }
	switch kind {
	case "ultravox":
		cur = b.Mul(b.RMSNorm(cur), b.need("mm.a.norm_pre.weight"))
		cur = b.SwiGLUSwapped(b.mm(mm("1"), cur))
		return b.mm(mm("2"), b.Mul(b.RMSNorm(cur), b.need("mm.a.norm_mid.weight")))
	case "qwen2a":
		return b.linear(cur, "mm.a.fc")
	case "voxtral":
		return b.feed(cur, ffn{up: mm("1"), down: mm("2")}, geluErf)
	case "musicflamingo":
		return b.feed(cur, b.mlp("mm.a.mlp.1", "mm.a.mlp.2"), geluErf)
	case "meralion":
		cur = b.SiLU(b.linear(b.affine(cur, "mm.a.norm_pre"), "mm.a.mlp.0"))
		gate := b.SiLU(b.linear(cur, "mm.a.mlp.1"))
		return b.linear(b.Mul(gate, b.linear(cur, "mm.a.mlp.2")), "mm.a.mlp.3")
	}
	cur = b.stacked(b.affine(cur, "mm.a.norm_pre"))
	cur = b.feed(cur, b.mlp("mm.a.mlp.1", "mm.a.mlp.2"), b.act)
	return b.Concat(b.Concat(b.need("v.boi"), cur, 1), b.need("v.eoi"), 1)
}

// qwen3Audio convolves chunks of 100 frames.
//
// Source: tools/mtmd/models/qwen3a.cpp@v0.5.0.
func qwen3Audio(b *builder) *graph.Tensor {
	const chunk = 100
	raw := b.raw(1)
	chunks := b.nx / chunk
	inp := b.Cont(b.View4D(raw, chunk, b.ny, 1, chunks, row(b.nx), row(chunk), row(chunk), 0))
	for _, name := range []string{"a.conv2d.1", "a.conv2d.2", "a.conv2d.3"} {
		inp = b.conv(b.need(name+".weight"), inp, 2, 1)
		if w := b.w(name + ".bias"); w != nil {
			inp = b.Add(inp, b.Reshape4D(w, 1, 1, inp.Ne[2], 1))
		}
		inp = b.GELUErf(inp)
	}
	inp = b.Cont(b.Permute(inp, 2, 0, 1, 3))
	inp = b.Reshape2D(inp, inp.Ne[0]*inp.Ne[1], inp.Ne[2]*inp.Ne[3])
	inp = b.MulMat(b.need("a.conv_out.weight"), inp)
	n := inp.Ne[1]
	pos := b.need("a.position_embd.weight")
	inp = b.Add(inp, b.Repeat4D(b.View2D(pos, pos.Ne[0], n/chunks, pos.Nb[1], 0), pos.Ne[0], n, 1, 1))
	cur := b.vit(inp, n, vit{act: b.act})
	return b.feed(cur, b.mlp("mm.a.mlp.1", "mm.a.mlp.2"), geluErf)
}
