package arch

import (
	"cmp"

	"weigh/inspect/graph"
	"weigh/inspect/model"
)

var _ = register(
	&Arch{Name: "qwen", Rope: model.RopeNeoX, Build: wiring{noBiasO: true}.model, Tensors: (*wants).qwen, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/qwen.cpp@v0.5.0"},
	&Arch{Name: "qwen2", Rope: model.RopeNeoX, EvenHeads: true, Quant: QuantQuirk{Layers70B: 80}, Build: wiring{}.model, Tensors: (*wants).qwen2, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/qwen2.cpp@v0.5.0"},
	&Arch{Name: "qwen2vl", Rope: model.RopeMRoPE, EvenHeads: true, Load: loadSections, Build: wiring{}.model, Tensors: (*wants).qwen2, Needs: "rope.dimension_sections", Source: "src/models/qwen2vl.cpp@v0.5.0"},
	&Arch{Name: "qwen2moe", Rope: model.RopeNeoX, EvenHeads: true, Load: loadExpertFF, Build: wiring{ffn: (*Builder).qwen2Experts}.model, Tensors: (*wants).qwen2moe, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/qwen2moe.cpp@v0.5.0"},
	&Arch{Name: "qwen3", Rope: model.RopeNeoX, EvenHeads: true, Quirk: Quirk{RankSoftmax: true}, Build: wiring{qkNorm: qkBefore}.model, Tensors: (*wants).qwen3, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/qwen3.cpp@v0.5.0"},
	&Arch{Name: "qwen3moe", Rope: model.RopeNeoX, EvenHeads: true, Load: loadExpertFF, Build: wiring{qkNorm: qkBefore}.model, Tensors: (*wants).qwen3moe, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/qwen3moe.cpp@v0.5.0"},
	&Arch{Name: "qwen3vl", Rope: model.RopeIMRoPE, EvenHeads: true, Quirk: Quirk{RankSoftmax: true}, Load: loadDeepstack, Build: qwen3VL, Tensors: (*wants).qwen3, Needs: "attention.layer_norm_rms_epsilon rope.dimension_sections", Source: "src/models/qwen3vl.cpp@v0.5.0"},
	&Arch{Name: "qwen3vlmoe", Rope: model.RopeIMRoPE, EvenHeads: true, Load: loadDeepstack, Build: wiring{qkNorm: qkBefore, postFFN: deepstack}.model, Tensors: (*wants).qwen3moe, Needs: "attention.layer_norm_rms_epsilon rope.dimension_sections", Source: "src/models/qwen3vlmoe.cpp@v0.5.0"},
	&Arch{Name: "qwen3tts", Rope: model.RopeIMRoPE, EvenHeads: true, Load: loadDeepstack, Build: qwen3VL, Tensors: (*wants).qwen3TTS, Needs: "attention.layer_norm_rms_epsilon rope.dimension_sections", Source: "src/models/qwen3tts.cpp@v0.5.0"},

	// Diffusion models: attention within the batch, nothing kept.
	&Arch{Name: "dream", Rope: model.RopeNeoX, EvenHeads: true, NoMemory: true, Load: loadNonCausal, Build: wiring{attend: (*Builder).uncached}.model, Tensors: (*wants).qwen2, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/dream.cpp@v0.5.0"},
	&Arch{Name: "llada", Rope: model.RopeNorm, EvenHeads: true, NoMemory: true, Load: loadNonCausal, Build: wiring{attend: (*Builder).uncached, noBiasO: true}.model, Tensors: (*wants).llada, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/llada.cpp@v0.5.0"},
	&Arch{
		Name: "llada-moe", Rope: model.RopeNeoX, EvenHeads: true, NoMemory: true, Load: loadNonCausal,
		Build:   wiring{attend: (*Builder).uncached, qkNorm: qkBefore, noBiasO: true, ffn: (*Builder).rawExperts}.model,
		Tensors: (*wants).lladaMoE,
		Needs:   "attention.layer_norm_rms_epsilon",
		Source:  "src/models/llada-moe.cpp@v0.5.0",
	},
	&Arch{Name: "rnd1", Rope: model.RopeNeoX, EvenHeads: true, NoMemory: true, Load: loadNonCausal, Build: wiring{attend: (*Builder).uncached, qkNorm: qkBefore}.model, Tensors: (*wants).qwen3moe, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/rnd1.cpp@v0.5.0"},
)

// loadSections reads the sections of multi-axis rotary positions.
func loadSections(k *Keys, h *model.HParams) {
	copy(h.RopeSections[:], k.PerLayer("rope.dimension_sections", len(h.RopeSections), 0))
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

func (w *wants) qwen() {
	w.output(0, w.nVocab)
	for il := range w.NLayer() {
		w.need(il, "attn_norm.weight", w.NEmbd)
		w.need(il, "attn_qkv.weight", w.NEmbd, 3*w.NEmbd)
		w.need(il, "attn_qkv.bias", 3*w.NEmbd)
		w.need(il, "attn_output.weight", w.NEmbd, w.NEmbd)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.ffn(0, il, "", w.NFF(0)/2)
	}
}

func (w *wants) qwen2() {
	w.ends()
	w.may(-1, "output.bias", w.nVocab)
	for il := range w.NLayer() {
		w.attention(0, il, w.NEmbd, w.NEmbdVGQA(0), w.NEmbdVGQA(0))
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.ffn(0, il, "", w.NFF(0))
	}
}

func (w *wants) qwen2moe() {
	w.output(0, w.nVocab)
	for il := range w.NLayer() {
		w.attention(0, il, w.NEmbd, w.NEmbdVGQA(0), w.NEmbdVGQA(0))
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.experts(0, il, w.expertFF())
		w.need(il, "ffn_gate_inp_shexp.weight", w.NEmbd)
		w.ffn(0, il, "_shexp", cmp.Or(w.NFFShexp, w.NFF(0)))
	}
}

func (w *wants) qwen3() { w.qwen3Rows(w.nVocab) }

// qwen3TTS says the tokens of its first codebook only.
func (w *wants) qwen3TTS() { w.qwen3Rows(3072) }

func (w *wants) qwen3Rows(output int) {
	w.output(optional, output)
	w.may(-1, "cls.output.weight", w.NEmbd, w.NClsOut)
	for il := range w.NLayer() {
		w.attention(0, il, w.qWidth(), w.NEmbdVGQA(0), w.NEmbdVGQA(0))
		w.headNorms(0, il)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.ffn(0, il, "", w.NFF(0))
	}
}

func (w *wants) qwen3moe() {
	w.ends()
	w.normedExperts(w.qWidth(), w.expertFF())
}

// normedExperts are layers of experts with norms of queries and keys.
func (w *wants) normedExperts(q, nFF int) {
	for il := range w.NLayer() {
		w.attention(0, il, q, w.NEmbdVGQA(0), w.NEmbdVGQA(0))
		w.headNorms(0, il)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.experts(0, il, nFF)
	}
}

func (w *wants) llada() {
	w.ends()
	w.may(-1, "rope_freqs.weight", w.NRot(0)/2)
	for il := range w.NLayer() {
		w.attention(0, il, w.qWidth(), w.NEmbdKGQA(0), w.NEmbdVGQA(0))
		w.may(il, "attn_output.bias", w.NEmbd)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.ffn(0, il, "", w.NFF(0))
		w.ffnBiases(il, w.NFF(0))
	}
}

func (w *wants) lladaMoE() {
	w.output(0, w.nVocab)
	w.normedExperts(w.NEmbd, w.expertFF())
}
