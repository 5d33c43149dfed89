package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

var _ = register(
	&Arch{Name: "qwen", Rope: model.RopeNeoX, Build: wiring{noBiasO: true}.model, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/qwen.cpp@v0.5.0"},
	&Arch{Name: "qwen2", Rope: model.RopeNeoX, Quant: QuantQuirk{Layers70B: 80}, Build: wiring{}.model, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/qwen2.cpp@v0.5.0"},
	&Arch{Name: "qwen2vl", Rope: model.RopeMRoPE, Load: loadSections, Build: wiring{}.model, Needs: "rope.dimension_sections", Source: "src/models/qwen2vl.cpp@v0.5.0"},
	&Arch{Name: "qwen2moe", Rope: model.RopeNeoX, Load: loadExpertFF, Build: wiring{ffn: (*Builder).qwen2Experts}.model, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/qwen2moe.cpp@v0.5.0"},
	&Arch{Name: "qwen3", Rope: model.RopeNeoX, Quirk: Quirk{RankSoftmax: true}, Build: wiring{qkNorm: qkBefore}.model, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/qwen3.cpp@v0.5.0"},
	&Arch{Name: "qwen3moe", Rope: model.RopeNeoX, Load: loadExpertFF, Build: wiring{qkNorm: qkBefore}.model, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/qwen3moe.cpp@v0.5.0"},
	&Arch{Name: "qwen3vl", Rope: model.RopeIMRoPE, Quirk: Quirk{RankSoftmax: true}, Load: loadDeepstack, Build: qwen3VL, Needs: "attention.layer_norm_rms_epsilon rope.dimension_sections", Source: "src/models/qwen3vl.cpp@v0.5.0"},
	&Arch{Name: "qwen3vlmoe", Rope: model.RopeIMRoPE, Load: loadDeepstack, Build: wiring{qkNorm: qkBefore, postFFN: deepstack}.model, Needs: "attention.layer_norm_rms_epsilon rope.dimension_sections", Source: "src/models/qwen3vlmoe.cpp@v0.5.0"},
	&Arch{Name: "qwen3tts", Rope: model.RopeIMRoPE, Load: loadDeepstack, Build: qwen3VL, Needs: "attention.layer_norm_rms_epsilon rope.dimension_sections", Source: "src/models/qwen3tts.cpp@v0.5.0"},

	// Diffusion models: attention within the batch, nothing kept.
	&Arch{Name: "dream", Rope: model.RopeNeoX, NoMemory: true, Load: loadNonCausal, Build: wiring{attend: (*Builder).uncached}.model, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/dream.cpp@v0.5.0"},
	&Arch{Name: "llada", Rope: model.RopeNorm, NoMemory: true, Load: loadNonCausal, Build: wiring{attend: (*Builder).uncached, noBiasO: true}.model, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/llada.cpp@v0.5.0"},
	&Arch{
		Name: "llada-moe", Rope: model.RopeNeoX, NoMemory: true, Load: loadNonCausal,
		Build:  wiring{attend: (*Builder).uncached, qkNorm: qkBefore, noBiasO: true, ffn: (*Builder).rawExperts}.model,
		Needs:  "attention.layer_norm_rms_epsilon",
		Source: "src/models/llada-moe.cpp@v0.5.0",
	},
	&Arch{Name: "rnd1", Rope: model.RopeNeoX, NoMemory: true, Load: loadNonCausal, Build: wiring{attend: (*Builder).uncached, qkNorm: qkBefore}.model, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/rnd1.cpp@v0.5.0"},
)

// loadSections reads the sections of multi-axis rotary positions.
func loadSections(k *Keys, h *model.HParams) {
	copy(h.RopeSections[:], k.Ints("rope.dimension_sections"))
}

// loadExpertFF reads the experts' widths.
func loadExpertFF(k *Keys, h *model.HParams) {
	for i, n := range k.PerLayer("expert_feed_forward_length", h.NLayerAll, 0) {
		h.Layers[i].NFFExp = n
	}
	h.NFFShexp = k.Int("expert_shared_feed_forward_length", 0)
}

// loadNonCausal is loadExpertFF for models that see the whole batch at once.
func loadNonCausal(k *Keys, h *model.HParams) {
	loadExpertFF(k, h)
	h.CausalAttn = false
}

// loadDeepstack reads the image embeddings that enter the first layers.
func loadDeepstack(k *Keys, h *model.HParams) {
	loadSections(k, h)
	loadExpertFF(k, h)
	h.NDeepstackLayers = k.Int("n_deepstack_layers", 0)
	if h.NDeepstackLayers < 0 || h.NDeepstackLayers > MaxLayers {
		k.fail("n_deepstack_layers", "%d", h.NDeepstackLayers)
	}
}

// deepstack adds the image embeddings of layer il to its output.
func deepstack(b *Builder, cur *graph.Tensor, il int) *graph.Tensor {
	if il >= b.NDeepstackLayers {
		return cur
	}
	ds := b.View2D(b.inpEmbd, int64(b.NEmbd), int64(b.NTokens), b.inpEmbd.Nb[1], uint64(il+1)*uint64(b.NEmbd)*4)
	return b.Add(cur, ds)
}

// qwen3VL pads the logits where the embeddings have more rows than the output
// matrix.
func qwen3VL(b *Builder) {
	cur := b.decoder(wiring{qkNorm: qkBefore, postFFN: deepstack})
	out := b.OutputW()
	cur = b.MM(out, cur, b.T("output.scale"))
	if pad := b.TokEmbd().Ne[1] - out.Ne[1]; pad > 0 {
		fill := b.ScaleBias(b.View1D(b.OutputNorm(), 1, 0))
		cur = b.Concat(b.Repeat4D(fill, pad, cur.Ne[1], 1, 1), cur, 0)
	}
	b.Logits(cur)
}

// rawExperts routes by weights that are not normalised.
func (b *Builder) rawExperts(cur *graph.Tensor, il int) *graph.Tensor {
	m := b.LayerMoE(il, ActSiLU)
	m.NormW = false
	return b.Experts(cur, m, il)
}

// qwen2Experts adds a shared expert, gated by a sigmoid of its own.
func (b *Builder) qwen2Experts(cur *graph.Tensor, il int) *graph.Tensor {
	out := b.rawExperts(cur, il)
	gateInp := b.MM(b.W(il, "ffn_gate_inp_shexp.weight"), cur, nil)
	gate := b.Div(b.SiLU(gateInp), gateInp)
	shared := b.FeedForward(cur, b.LayerFFN(il, "_shexp", ActSiLU), il)
	return b.Add(out, b.Mul(shared, gate))
}
