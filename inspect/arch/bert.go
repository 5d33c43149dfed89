package arch

import (
	"cmp"
	"slices"
	"strings"

	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// Encoders, which see the whole batch at once and keep nothing.
var _ = register(
	&Arch{
		Name: "bert", Rope: model.RopeNeoX, NoMemory: true, Tie: TieNone, Load: loadBERT,
		Build:   func(b *Builder) { b.bert(bertFFN(ActGELU, true)) },
		Tensors: (*wants).bert,
		Needs:   "attention.layer_norm_epsilon",
		Source:  "src/models/bert.cpp@v0.5.0",
	},
	&Arch{
		Name: "nomic-bert", Rope: model.RopeNeoX, NoMemory: true, Tie: TieNone, Load: loadBERT,
		Build:   func(b *Builder) { b.bert(bertFFN(ActSiLU, false)) },
		Tensors: bertStack{ffn: nomicFFN}.ask,
		Needs:   "attention.layer_norm_epsilon",
		Source:  "src/models/nomic-bert.cpp@v0.5.0",
	},
	&Arch{
		Name: "nomic-bert-moe", Rope: model.RopeNeoX, NoMemory: true, Tie: TieNone, Load: loadNomicMoE,
		Build:   func(b *Builder) { b.bert(nomicExperts) },
		Tensors: bertStack{ffn: (*wants).nomicExperts}.ask,
		Needs:   "attention.layer_norm_epsilon",
		Source:  "src/models/nomic-bert-moe.cpp@v0.5.0",
	},
	&Arch{
		Name: "jina-bert-v2", Rope: model.RopeNone, NoMemory: true, Tie: TieNone,
		Load:    func(k *Keys, h *model.HParams) { loadEncoder(k, h); h.MaxAlibiBias = 8 },
		Build:   func(b *Builder) { b.bert(jinaFFN) },
		Tensors: (*wants).jinaBERT,
		Needs:   "attention.layer_norm_epsilon",
		Source:  "src/models/jina-bert-v2.cpp@v0.5.0",
	},
	&Arch{
		Name: "jina-bert-v3", Rope: model.RopeNeoX, NoMemory: true, Tie: TieNone, Load: loadBERT,
		Build:   func(b *Builder) { b.bert(bertFFN(ActGELU, true)) },
		Tensors: bertStack{ffn: ungated(maybe)}.ask,
		Needs:   "attention.layer_norm_epsilon",
		Source:  "src/models/jina-bert-v3.cpp@v0.5.0",
	},
	&Arch{
		Name: "modern-bert", Rope: model.RopeNeoX, NoMemory: true, Tie: TieNone, Quirk: Quirk{RankMean: true}, Load: loadModernBERT,
		Build:   modernBERT,
		Tensors: (*wants).modernBERT,
		Needs:   "attention.layer_norm_epsilon",
		Source:  "src/models/modern-bert.cpp@v0.5.0",
	},
	&Arch{
		Name: "neo-bert", Rope: model.RopeNorm, NoMemory: true, Tie: TieNone, Load: loadEncoder,
		Build: func(b *Builder) {
			b.Expand(b.decoder(wiring{attend: (*Builder).uncached, noBiasO: true, ffn: fusedFFN(ActSwiGLU)}))
		},
		Tensors: (*wants).neoBERT,
		Needs:   "attention.layer_norm_rms_epsilon",
		Source:  "src/models/neo-bert.cpp@v0.5.0",
	},
	&Arch{
		Name: "eurobert", Rope: model.RopeNeoX, NoMemory: true, Tie: TieNone, Load: loadEncoder,
		Build: func(b *Builder) {
			b.Expand(b.decoder(wiring{attend: (*Builder).uncached, noBiasO: true, ffn: bertFFN(ActSiLU, false)}))
		},
		Tensors: stack{attn: (*wants).square}.ask,
		Needs:   "attention.layer_norm_rms_epsilon",
		Source:  "src/models/eurobert.cpp@v0.5.0",
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

// tokenTypes is the key of the number of kinds of token.
const tokenTypes = "tokenizer.ggml.token_type_count"

func (k *Keys) tokenTypes() int {
	v, _ := k.meta.Lookup(tokenTypes)
	n, _ := toInt(v)
	return n
}

func loadBERT(k *Keys, h *model.HParams) {
	loadEncoder(k, h)
	if k.tokenTypes() == 0 {
		k.reject(tokenTypes, "missing or 0: llama.cpp refuses to load this architecture without it")
	}
}

// loadEncoder rejects keys and values of different widths, which the shapes of
// an encoder's tensors do not show.
func loadEncoder(k *Keys, h *model.HParams) {
	if h.NEmbdHeadK(0) != h.NEmbdHeadV(0) {
		k.fail("attention.key_length", "%d, llama.cpp wants the values' %d", h.NEmbdHeadK(0), h.NEmbdHeadV(0))
	}
}

func loadNomicMoE(k *Keys, h *model.HParams) {
	loadBERT(k, h)
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
	loadEncoder(k, h)
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

// A bertStack asks for the tensors of an encoder that norms after attention and
// after feed-forward.
type bertStack struct {
	types presence // of token_types.weight, maybe unless it says otherwise
	outB  presence // of attn_output.bias, maybe unless it says otherwise
	ffn   func(w *wants, il int)
	more  each
}

func (s bertStack) ask(w *wants) {
	w.need(-1, "token_embd.weight", w.NEmbd, w.nVocab)
	w.ask(cmp.Or(s.types, maybe), -1, "token_types.weight", w.NEmbd, w.tokenTypes())
	w.norm(must, -1, "token_embd_norm")
	for il := range w.NLayer() {
		w.square(il)
		w.ask(cmp.Or(s.outB, maybe), il, "attn_output.bias", w.NEmbd)
		w.norm(must, il, "attn_output_norm")
		s.ffn(w, il)
		w.norm(must, il, "layer_output_norm")
		for _, more := range s.more {
			more(w, il)
		}
	}
}

// classifier asks for the layers that rank texts.
func (w *wants) classifier(bias presence) {
	w.may(-1, "cls.weight", w.NEmbd, w.NEmbd)
	w.ask(bias, -1, "cls.bias", w.NEmbd)
	w.may(-1, "cls.output.weight", w.NEmbd, w.NClsOut)
	w.may(-1, "cls.output.bias", w.NClsOut)
}

func (w *wants) bert() {
	w.need(-1, "position_embd.weight", w.NEmbd, w.NCtxTrain)
	w.classifier(maybe)
	bertStack{ffn: ungated(maybe)}.ask(w)
}

func nomicFFN(w *wants, il int) {
	ungated(maybe)(w, il)
	w.need(il, "ffn_gate.weight", w.NEmbd, w.NFF(0))
}

func (w *wants) nomicExperts(il int) {
	if n := w.MoEEveryNLayers; n <= 0 || il%n != 1 {
		ungated(maybe)(w, il)
		return
	}
	w.need(il, "ffn_gate_inp.weight", w.NEmbd, w.NExpert)
	w.need(il, "ffn_up_exps.weight", w.NEmbd, w.NFF(0), w.NExpert)
	w.need(il, "ffn_down_exps.weight", w.NFF(0), w.NEmbd, w.NExpert)
}

// jinaBERT takes up projections with a gate in them, and without.
func (w *wants) jinaBERT() {
	w.may(-1, "cls.weight", w.NEmbd, 1)
	w.may(-1, "cls.bias", 1)
	bertStack{types: must, outB: must, ffn: func(w *wants, il int) {
		up := w.NFF(0)
		if i := w.index.Layer(il, "ffn_up.weight"); i >= 0 && slices.Equal(w.tensors[i].Shape, []uint64{uint64(w.NEmbd), uint64(2 * up)}) {
			up *= 2
		}
		w.may(il, "ffn_gate.weight", w.NEmbd, w.NFF(0))
		w.need(il, "ffn_up.weight", w.NEmbd, up)
		w.may(il, "ffn_up.bias", up)
		w.need(il, "ffn_down.weight", w.NFF(0), w.NEmbd)
		w.need(il, "ffn_down.bias", w.NEmbd)
	}, more: each{func(w *wants, il int) {
		for _, name := range strings.Fields("attn_q_norm attn_k_norm attn_norm_2") {
			w.may(il, name+".weight", w.NEmbd)
			w.may(il, name+".bias", w.NEmbd)
		}
	}}}.ask(w)
}

func (w *wants) modernBERT() {
	w.norm(unasked, -1, "token_embd_norm")
	w.may(0, "attn_norm.weight", w.NEmbd)
	w.classifier(unasked)
	w.may(-1, "cls.norm.weight", w.NEmbd)
	stack{norms: "ffn_norm", ffn: upGated, attn: func(w *wants, il int) {
		if il > 0 {
			w.norm(unasked, il, "attn_norm")
		}
		w.need(il, "attn_qkv.weight", w.NEmbd, 3*w.NEmbd)
		w.need(il, "attn_output.weight", w.NEmbd, w.NEmbd)
	}}.ask(w)
}

// neoBERT names its last norm an encoder's.
func (w *wants) neoBERT() {
	w.need(-1, "token_embd.weight", w.NEmbd, w.nVocab)
	w.norm(unasked, -1, "enc.output_norm")
	w.classifier(maybe)
	for il := range w.NLayer() {
		stack{attn: fused(unasked), ffn: upGated}.layer(w, il)
	}
}
