package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// Decoders that differ from Llama in a turn or two.
var _ = register(
	&Arch{Name: "mistral3", Rope: model.RopeNorm, EvenHeads: true, Load: loadAttnTemp, Build: wiring{factors: true, scaleQ: attnTemp}.model, Tensors: (*wants).llama, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/mistral3.cpp@v0.5.0"},
	&Arch{Name: "arcee", Rope: model.RopeNorm, EvenHeads: true, Build: wiring{factors: true, ffn: denseFFN(ActReLUSqr)}.model, Tensors: stack{output: maybe, ffn: ungated(unasked), more: each{(*wants).freqs}}.ask, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/arcee.cpp@v0.5.0"},
	&Arch{Name: "apertus", Rope: model.RopeNeoX, EvenHeads: true, Load: loadApertus, Build: wiring{factors: true, qkNorm: qkBefore, ffn: (*Builder).xielu}.model, Tensors: (*wants).apertus, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/apertus.cpp@v0.5.0"},
	&Arch{Name: "smollm3", Rope: model.RopeNorm, EvenHeads: true, Build: wiring{noRope: everyFourth}.model, Tensors: stack{output: maybe}.ask, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/smollm3.cpp@v0.5.0"},
	&Arch{Name: "seed_oss", Rope: model.RopeNeoX, EvenHeads: true, Build: wiring{ffnNorm: "post_attention_norm"}.model, Tensors: (*wants).seedOSS, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/seed-oss.cpp@v0.5.0"},
	&Arch{Name: "maincoder", Rope: model.RopeNorm, EvenHeads: true, Build: wiring{qkNorm: qkAfter}.model, Tensors: stack{output: maybe, attn: (*wants).evenHeads, more: each{(*wants).qkNorms}}.ask, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/maincoder.cpp@v0.5.0"},
	&Arch{Name: "pockettts", Rope: model.RopeNorm, EvenHeads: true, Build: wiring{layer: true, noBiasO: true, ffn: denseFFN(ActGELU)}.model, Tensors: stack{bias: must, attn: (*wants).pocketAttn, ffn: ungated(unasked)}.ask, Needs: "attention.layer_norm_epsilon", Source: "src/models/pockettts.cpp@v0.5.0"},
	&Arch{Name: "orion", Rope: model.RopeNeoX, EvenHeads: true, Build: wiring{layer: true, noBiasO: true}.model, Tensors: stack{output: must, bias: must, attn: (*wants).square}.ask, Needs: "attention.layer_norm_epsilon", Source: "src/models/orion.cpp@v0.5.0"},
	&Arch{Name: "xverse", Rope: model.RopeNorm, EvenHeads: true, Build: wiring{noBiasO: true}.model, Tensors: stack{output: must, attn: (*wants).square}.ask, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/xverse.cpp@v0.5.0"},
	&Arch{Name: "internlm2", Rope: model.RopeNorm, EvenHeads: true, Build: wiring{}.model, Tensors: stack{output: must, attn: (*wants).square}.ask, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/internlm2.cpp@v0.5.0"},
	&Arch{Name: "baichuan", Rope: model.RopeNorm, EvenHeads: true, Load: loadBaichuan, Build: wiring{noBiasO: true, noRope: notBaichuan7B}.model, Tensors: stack{output: must, attn: (*wants).square}.ask, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/baichuan.cpp@v0.5.0"},
	&Arch{Name: "jais", Rope: model.RopeNone, Load: loadMPT, Build: wiring{layer: true, noRope: always}.model, Tensors: stack{output: must, bias: must, attn: fused(must), outB: must, ffn: gated(must)}.ask, Needs: "attention.layer_norm_epsilon", Source: "src/models/jais.cpp@v0.5.0"},
	&Arch{Name: "jais2", Rope: model.RopeNeoX, EvenHeads: true, Quant: QuantQuirk{Layers70B: 68}, Build: wiring{layer: true, ffn: denseFFN(ActReLUSqr)}.model, Tensors: stack{output: maybe, bias: must, outB: must, ffn: ungated(must)}.ask, Needs: "attention.layer_norm_epsilon", Source: "src/models/jais2.cpp@v0.5.0"},
	&Arch{Name: "nemotron", Rope: model.RopeNeoX, Build: wiring{layer: true, ffn: denseFFN(ActReLUSqr)}.model, Tensors: stack{output: must, bias: must, attn: (*wants).square, outB: maybe, ffn: ungated(maybe)}.ask, Needs: "attention.layer_norm_epsilon", Source: "src/models/nemotron.cpp@v0.5.0"},
	&Arch{Name: "pangu-embedded", Rope: model.RopeNeoX, EvenHeads: true, Build: wiring{}.model, Tensors: stack{output: maybe, outB: must, more: each{(*wants).factors}}.ask, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/pangu-embed.cpp@v0.5.0"},
	&Arch{Name: "talkie", Rope: model.RopeNeoX, EvenHeads: true, Build: talkie, Tensors: (*wants).talkie, Needs: "attention.layer_norm_rms_epsilon logit_scale", Source: "src/models/talkie.cpp@v0.5.0"},
	&Arch{Name: "spark2_5", Rope: model.RopeNeoX, Load: loadSpark, Build: spark, Tensors: (*wants).spark, Needs: "attention.layer_norm_rms_epsilon attention.sliding_window attention.sliding_window_pattern", Source: "src/models/spark2-5.cpp@v0.5.0"},
)

// loadApertus rejects a model without its activation's parameters.
func loadApertus(k *Keys, h *model.HParams) {
	for _, key := range []string{"xielu.alpha_n", "xielu.alpha_p", "xielu.beta", "xielu.eps"} {
		switch v, _ := k.meta.Lookup(key); v := v.(type) {
		case nil:
			k.reject(key, "missing: llama.cpp refuses to load this architecture without it")
		case []float64:
			if len(v) != h.NLayer() {
				k.reject(key, "%d values for %d layers", len(v), h.NLayer())
			}
		}
	}
}

// loadAttnTemp reads the scale that queries far into the context get.
func loadAttnTemp(k *Keys, h *model.HParams) {
	h.AttnTempScale = k.Float("attention.temperature_scale", 0)
	if h.AttnTempScale != 0 {
		h.AttnTempFloorScale = h.NCtxOrigYarn
		if h.NCtxOrigYarn == 0 {
			k.fail("rope.scaling.original_context_length", "0, where attention.temperature_scale needs it")
		}
	}
}

// attnTemp returns the queries' temperatures where the model has them.
func attnTemp(b *Builder) *graph.Tensor {
	if b.AttnTempScale == 0 {
		return nil
	}
	return b.InpAttnScale()
}

// everyFourth leaves every fourth layer without positions.
func everyFourth(_ *Builder, il int) bool { return (il+1)%4 == 0 }

// xielu is a block without a gate, activated by xIELU.
func (b *Builder) xielu(cur *graph.Tensor, il int) *graph.Tensor {
	up := b.MM(b.W(il, "ffn_up.weight"), cur, nil)
	return b.MM(b.W(il, "ffn_down.weight"), b.XIELU(up), nil)
}

// talkie adds the normed embeddings to every layer's output.
func talkie(b *Builder) {
	inpL := b.RMSNorm(b.InpEmbd())
	skip := inpL
	pos := b.InpPos()
	attn := b.cachedKV()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA, inpSkip := inpL, skip
		cur := b.RMSNorm(inpL)
		q, k, v := b.QKV(cur, b.NEmbdHeadK(0), b.NHead(0), b.NHeadKV(0), il)
		q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
		q, k = b.LayerNorm(q, "attn_q_norm", NormRMS, il), b.RMSNorm(k)
		a := Attn{Q: q, K: k, V: v}.WithOut(b, il)
		a.WOB = nil
		cur = attn(a, il)
		b.LastRows(il, outIDs, &cur, &inpSA, &inpSkip)
		ffnInp := b.Add(cur, inpSA)
		cur = b.FeedForward(b.RMSNorm(ffnInp), b.LayerFFN(il, "", ActSiLU), il)
		cur = b.Add(cur, ffnInp)
		cur = b.Add(cur, b.Mul(inpSkip, b.W(il, "layer_output_scale.weight")))
		inpL = b.CVec(cur, il)
		b.Name(inpL, "l_out", il)
	}
	cur := b.RMSNorm(inpL)
	b.Embd(cur)
	b.Logits(b.Scale(b.MM(b.OutputW(), cur, nil)))
}

// loadSpark reads the window and the layers that have it.
func loadSpark(k *Keys, h *model.HParams) {
	k.window(h, "attention.sliding_window")
	k.windowPattern(h)
}

// spark gates the heads' outputs one by one.
func spark(b *Builder) {
	head := b.NEmbdHeadV(0)
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedISWA()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA := inpL
		in := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		n := int64(b.NHead(il))
		q, k, v := b.QKV(in, head, b.NHead(il), b.NHeadKV(il), il)
		q, k = b.Rot(q, pos, nil, b.NRot(il)), b.Rot(k, pos, nil, b.NRot(il))
		cur := attn(Attn{Q: q, K: k, V: v}, il)
		gate := b.Sigmoid(b.MM(b.W(il, "attn_gate.weight"), in, nil))
		tokens := cur.Ne[1]
		cur = b.Reshape3D(cur, int64(head), n, tokens)
		cur = b.Mul(cur, b.Reshape3D(gate, 1, n, tokens))
		cur = b.Reshape2D(cur, int64(head)*n, tokens)
		cur = b.MM(b.W(il, "attn_output.weight"), cur, b.W(il, "attn_output.scale"))
		b.LastRows(il, outIDs, &cur, &inpSA)
		ffnInp := b.Add(cur, inpSA)
		cur = b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il)
		cur = b.FeedForward(cur, b.LayerFFN(il, "", ActGELU), il)
		inpL = b.CVec(b.Add(cur, ffnInp), il)
		b.Name(inpL, "l_out", il)
	}
	cur := b.LayerNormOut(inpL, NormRMS)
	b.Logits(b.MM(b.OutputW(), cur, nil))
}

// loadBaichuan tells the 13B model, which has ALiBi, by its layers.
func loadBaichuan(_ *Keys, h *model.HParams) {
	if h.NLayer() == 40 {
		h.MaxAlibiBias = 8
	}
}

// notBaichuan7B reports that the model is not the one with rotary positions.
func notBaichuan7B(b *Builder, _ int) bool { return b.NLayer() != 32 }

func (w *wants) apertus() {
	norms := func(w *wants, il int) {
		w.qkNorms(il)
		w.may(il, "attn_q_norm.bias", w.NEmbdHeadK(0))
		w.may(il, "attn_k_norm.bias", w.NEmbdHeadK(0))
	}
	stack{output: must, attn: (*wants).evenHeads, outB: maybe, ffn: ungated(unasked), more: each{norms, (*wants).factors}}.ask(w)
}

func (w *wants) seedOSS() {
	stack{output: maybe, norms: "attn_norm post_attention_norm", attn: func(w *wants, il int) {
		d := w.NEmbdHeadK(0)
		w.attn(il, d*w.NHead(0), d*w.NHeadKV(0), d*w.NHeadKV(0))
	}}.ask(w)
}

// pocketAttn is square, but does without any of its projections.
func (w *wants) pocketAttn(il int) {
	w.qkv(optional, il, w.NEmbd, w.NEmbd, w.NEmbdVGQA(0), w.NEmbdVGQA(0))
	w.need(il, "attn_output.weight", w.NEmbd, w.NEmbd)
}

func (w *wants) talkie() {
	w.need(-1, "token_embd.weight", w.NEmbd, w.nVocab)
	w.need(-1, "output.weight", w.NEmbd, w.nVocab)
	for il := range w.NLayer() {
		w.evenHeads(il)
		w.need(il, "attn_q_norm.weight", 1, w.NHead(0))
		w.ffn(0, il, "", w.NFF(0))
		w.need(il, "layer_output_scale.weight", 1)
	}
}

func (w *wants) spark() {
	stack{output: maybe, attn: func(w *wants, il int) {
		w.attn(il, w.NEmbdHeadK(il)*w.NHead(il), w.NEmbdKGQA(il), w.NEmbdVGQA(il))
		w.need(il, "attn_gate.weight", w.NEmbd, w.NHead(il))
	}}.ask(w)
}
