package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// Encoders, which see the whole batch at once and keep nothing.
var _ = register(
	&Arch{
		Name: "bert", Rope: model.RopeNeoX, NoMemory: true, Tie: TieNone,
		Build:  func(b *Builder) { b.bert(bertFFN(ActGELU, true)) },
		Needs:  "attention.layer_norm_epsilon",
		Source: "src/models/bert.cpp@v0.5.0",
	},
	&Arch{
		Name: "nomic-bert", Rope: model.RopeNeoX, NoMemory: true, Tie: TieNone,
		Build:  func(b *Builder) { b.bert(bertFFN(ActSiLU, false)) },
		Needs:  "attention.layer_norm_epsilon",
		Source: "src/models/nomic-bert.cpp@v0.5.0",
	},
	&Arch{
		Name: "nomic-bert-moe", Rope: model.RopeNeoX, NoMemory: true, Tie: TieNone, Load: loadNomicMoE,
		Build:  func(b *Builder) { b.bert(nomicExperts) },
		Needs:  "attention.layer_norm_epsilon",
		Source: "src/models/nomic-bert-moe.cpp@v0.5.0",
	},
	&Arch{
		Name: "jina-bert-v2", Rope: model.RopeNone, NoMemory: true, Tie: TieNone,
		Load:   func(_ *Keys, h *model.HParams) { h.MaxAlibiBias = 8 },
		Build:  func(b *Builder) { b.bert(jinaFFN) },
		Needs:  "attention.layer_norm_epsilon",
		Source: "src/models/jina-bert-v2.cpp@v0.5.0",
	},
	&Arch{
		Name: "jina-bert-v3", Rope: model.RopeNeoX, NoMemory: true, Tie: TieNone,
		Build:  func(b *Builder) { b.bert(bertFFN(ActGELU, true)) },
		Needs:  "attention.layer_norm_epsilon",
		Source: "src/models/jina-bert-v3.cpp@v0.5.0",
	},
	&Arch{
		Name: "modern-bert", Rope: model.RopeNeoX, NoMemory: true, Tie: TieNone, Quirk: Quirk{RankMean: true}, Load: loadModernBERT,
		Build:  modernBERT,
		Needs:  "attention.layer_norm_epsilon",
		Source: "src/models/modern-bert.cpp@v0.5.0",
	},
	&Arch{
		Name: "neo-bert", Rope: model.RopeNorm, NoMemory: true, Tie: TieNone,
		Build: func(b *Builder) {
			b.Expand(b.decoder(wiring{attend: (*Builder).uncached, noBiasO: true, ffn: fusedFFN(ActSwiGLU)}))
		},
		Needs:  "attention.layer_norm_rms_epsilon",
		Source: "src/models/neo-bert.cpp@v0.5.0",
	},
	&Arch{
		Name: "eurobert", Rope: model.RopeNeoX, NoMemory: true, Tie: TieNone,
		Build: func(b *Builder) {
			b.Expand(b.decoder(wiring{attend: (*Builder).uncached, noBiasO: true, ffn: bertFFN(ActSiLU, false)}))
		},
		Needs:  "attention.layer_norm_rms_epsilon",
		Source: "src/models/eurobert.cpp@v0.5.0",
	},
)

// ffnBlock is a feed-forward block of a layer.
type ffnBlock = func(b *Builder, cur *graph.Tensor, il int) *graph.Tensor

// bertFFN is a dense block that ignores the weights' scales; with biases, it
// has no gate.
func bertFFN(act Act, biased bool) ffnBlock {
	return func(b *Builder, cur *graph.Tensor, il int) *graph.Tensor {
		f := FFN{Up: b.W(il, "ffn_up.weight"), Down: b.W(il, "ffn_down.weight"), Act: act}
		if biased {
			f.UpB, f.DownB = b.W(il, "ffn_up.bias"), b.W(il, "ffn_down.bias")
		} else {
			f.Gate = b.W(il, "ffn_gate.weight")
		}
		return b.FeedForward(cur, f, il)
	}
}

// fusedFFN is a dense block whose up projection holds the gate.
func fusedFFN(act Act) ffnBlock {
	return func(b *Builder, cur *graph.Tensor, il int) *graph.Tensor {
		return b.FeedForward(cur, FFN{Up: b.W(il, "ffn_up.weight"), Down: b.W(il, "ffn_down.weight"), Act: act, Seq: true}, il)
	}
}

// jinaFFN is gated where the layer has a gate, of its own or in the up
// projection.
func jinaFFN(b *Builder, cur *graph.Tensor, il int) *graph.Tensor {
	f := FFN{
		Up: b.need(il, "ffn_up.weight"), UpB: b.W(il, "ffn_up.bias"), Gate: b.W(il, "ffn_gate.weight"),
		Down: b.W(il, "ffn_down.weight"), DownB: b.W(il, "ffn_down.bias"), Act: ActGELU,
	}
	if f.Gate == nil && f.Up.Ne[1] != int64(b.NFF(0)) {
		f.Act = ActGEGLU
	}
	return b.FeedForward(cur, f, il)
}

func loadNomicMoE(k *Keys, h *model.HParams) {
	h.MoEEveryNLayers = k.Int("moe_every_n_layers", 0)
}

// nomicExperts is a block of experts in one of every few layers.
func nomicExperts(b *Builder, cur *graph.Tensor, il int) *graph.Tensor {
	if b.MoEEveryNLayers <= 0 || il%b.MoEEveryNLayers != 1 {
		return bertFFN(ActGELU, true)(b, cur, il)
	}
	m := b.LayerMoE(il, ActGELU)
	m.Gate, m.GateS, m.UpS, m.DownS, m.NormW = nil, nil, nil, nil, false
	return b.Experts(cur, m, il)
}

// bert norms after attention and after feed-forward.
func (b *Builder) bert(ffn ffnBlock) {
	var pos *graph.Tensor
	if b.RopeType != model.RopeNone {
		pos = b.InpPos()
	}
	inpL := b.InpEmbd()
	if w := b.T("token_types.weight"); w != nil {
		inpL = b.Add(inpL, b.View1D(w, int64(b.NEmbd), 0))
	}
	learned := pos != nil && b.T("position_embd.weight") != nil
	if learned {
		inpL = b.Add(b.GetRows(b.T("position_embd.weight"), pos), inpL)
	}
	inpL = b.tokNorm(inpL)
	attn := b.uncached()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		d := b.NEmbdHeadV(0)
		q, k, v := b.QKV(inpL, d, b.NHead(0), b.NHeadKV(0), il)
		q, k = b.normFlat(q, "attn_q_norm", il), b.normFlat(k, "attn_k_norm", il)
		if pos != nil && !learned {
			q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
		}
		cur := attn(Attn{Q: q, K: k, V: v}.WithOut(b, il), il)
		b.LastRows(il, outIDs, &cur, &inpL)
		cur = b.LayerNorm(b.Add(cur, inpL), "attn_output_norm", NormLayer, il)
		if b.W(il, "attn_norm_2.weight") != nil {
			cur = b.LayerNorm(b.Add(cur, inpL), "attn_norm_2", NormLayer, il)
		}
		in := cur
		cur = b.Add(ffn(b, cur, il), in)
		inpL = b.LayerNorm(cur, "layer_output_norm", NormLayer, il)
	}
	b.Embd(inpL)
	b.Expand(inpL)
}

// tokNorm norms the embeddings.
func (b *Builder) tokNorm(cur *graph.Tensor) *graph.Tensor {
	return b.Norm(cur, b.T("token_embd_norm.weight"), b.T("token_embd_norm.bias"), NormLayer, 0)
}

// normFlat norms across all heads where the layer has such a norm.
func (b *Builder) normFlat(t *graph.Tensor, name string, il int) *graph.Tensor {
	if b.W(il, name+".weight") == nil {
		return t
	}
	d, heads, n := t.Ne[0], t.Ne[1], t.Ne[2]
	return b.Reshape3D(b.LayerNorm(b.Reshape2D(t, d*heads, n), name, NormLayer, il), d, heads, n)
}

func loadModernBERT(k *Keys, h *model.HParams) {
	if k.optionalWindow(h, 3, true); h.SWAType != model.SWANone {
		h.SWAType = model.SWASymmetric
	}
	h.HiddenAct = k.Str("hidden_activation", "")
}

// modernActs are the activations of Modern BERT by hidden_activation; gated
// GELU stands for all others.
var modernActs = map[string]Act{"silu": ActSwiGLU, "swish": ActSwiGLU, "swiglu": ActSwiGLU, "relu": ActReLU, "reglu": ActReGLU}

// modernBERT has no attention norm in its first layer.
func modernBERT(b *Builder) {
	act, ok := modernActs[b.HiddenAct]
	if !ok {
		act = ActGEGLU
	}
	b.Expand(b.decoder(wiring{
		attend: (*Builder).uncached, embd: (*Builder).tokNorm, layer: true, bareFirst: true, noBiasO: true, ffn: fusedFFN(act),
	}))
}
