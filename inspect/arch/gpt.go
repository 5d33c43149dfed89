package arch

import (
	"strings"

	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// The GPT-2 line: layer norms, a GELU block without a gate, learned positions
// or ALiBi.
var _ = register(
	&Arch{Name: "gpt2", Rope: model.RopeNone, Build: wiring{layer: true, embd: posEmbd, noRope: always, ffn: denseFFN(ActGELU)}.model, Tensors: (*wants).gpt2, Needs: "attention.layer_norm_epsilon", Source: "src/models/gpt2.cpp@v0.5.0"},
	&Arch{Name: "starcoder", Rope: model.RopeNorm, Build: wiring{layer: true, embd: posEmbd, noRope: always, ffn: denseFFN(ActGELU)}.model, Tensors: (*wants).gpt2, Needs: "attention.layer_norm_epsilon", Source: "src/models/starcoder.cpp@v0.5.0"},
	&Arch{Name: "starcoder2", Rope: model.RopeNeoX, EvenHeads: true, Build: wiring{layer: true, ffn: denseFFN(ActGELU)}.model, Tensors: stack{output: maybe, bias: must, attn: (*wants).square, outB: must, ffn: ungated(must)}.ask, Needs: "attention.layer_norm_epsilon", Source: "src/models/starcoder2.cpp@v0.5.0"},
	&Arch{Name: "codeshell", Rope: model.RopeNeoX, EvenHeads: true, Tie: TieInput, Build: wiring{layer: true, ffn: denseFFN(ActGELU)}.model, Tensors: (*wants).codeshell, Needs: "attention.layer_norm_epsilon", Source: "src/models/codeshell.cpp@v0.5.0"},
	&Arch{Name: "bloom", Rope: model.RopeNone, Load: loadAlibi, Build: wiring{layer: true, embd: embdNorm, noRope: always, ffn: denseFFN(ActGELU)}.model, Tensors: (*wants).bloom, Needs: "attention.layer_norm_epsilon", Source: "src/models/bloom.cpp@v0.5.0"},
	&Arch{Name: "mpt", Rope: model.RopeNone, Load: loadMPT, Build: wiring{layer: true, embd: posEmbd, noRope: always, qk: flatQKNorm, ffn: (*Builder).mptFFN}.model, Tensors: (*wants).mpt, Needs: "attention.layer_norm_epsilon", Source: "src/models/mpt.cpp@v0.5.0"},
	&Arch{Name: "refact", Rope: model.RopeNone, Load: loadAlibi, Build: wiring{noRope: always, noBiasO: true, ffn: denseFFN(ActSiLU)}.model, Tensors: (*wants).llama, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/refact.cpp@v0.5.0"},
	&Arch{Name: "gptneox", Rope: model.RopeNeoX, Load: loadParallel, Build: neox, Tensors: stack{output: must, bias: must, attn: fused(must), outB: must, ffn: ungated(must)}.ask, Needs: "attention.layer_norm_epsilon use_parallel_residual", Source: "src/models/gptneox.cpp@v0.5.0"},
	&Arch{Name: "falcon", Rope: model.RopeNeoX, Quant: QuantQuirk{FewerBits: true}, Load: loadLlama, Build: falcon, Tensors: (*wants).falcon, Needs: "attention.layer_norm_epsilon", Source: "src/models/falcon.cpp@v0.5.0"},
	&Arch{Name: "stablelm", Rope: model.RopeNeoX, Build: stablelm, Tensors: (*wants).stablelm, Needs: "attention.layer_norm_epsilon", Source: "src/models/stablelm.cpp@v0.5.0"},
)

func loadAlibi(_ *Keys, h *model.HParams) { h.MaxAlibiBias = 8 }

func loadMPT(k *Keys, h *model.HParams) {
	h.ClampKQV = k.Float("attention.clamp_kqv", 0)
	h.MaxAlibiBias = k.Float("attention.max_alibi_bias", 0)
}

func loadParallel(k *Keys, h *model.HParams) { h.UseParRes = k.Bool("use_parallel_residual", false) }

// posEmbd adds learned positions where the model has them.
func posEmbd(b *Builder, cur *graph.Tensor) *graph.Tensor {
	w := b.T("position_embd.weight")
	if w == nil {
		return cur
	}
	return b.Add(cur, b.GetRows(w, b.InpPos()))
}

// embdNorm norms the embeddings.
func embdNorm(b *Builder, cur *graph.Tensor) *graph.Tensor {
	return b.Norm(cur, b.T("token_embd_norm.weight"), b.T("token_embd_norm.bias"), NormLayer, 0)
}

// flatQKNorm norms queries and keys across all heads, where there are weights.
func flatQKNorm(b *Builder, q, k *graph.Tensor, il int) (qn, kn *graph.Tensor) {
	if b.W(il, "attn_q_norm.weight") == nil {
		return q, k
	}
	one := func(t *graph.Tensor, name string) *graph.Tensor {
		d, heads := t.Ne[0], t.Ne[1]
		t = b.LayerNorm(b.Reshape2D(t, d*heads, int64(b.NTokens)), name, NormLayer, il)
		return b.Reshape3D(t, d, heads, int64(b.NTokens))
	}
	return one(q, "attn_q_norm"), one(k, "attn_k_norm")
}

func (b *Builder) mptFFN(cur *graph.Tensor, il int) *graph.Tensor {
	f := b.LayerFFN(il, "", ActGELU)
	f.ActScales = b.W(il, "ffn_act.scales")
	return b.FeedForward(cur, f, il)
}

// neox runs attention and feed-forward side by side where the model says so.
func neox(b *Builder) {
	if !b.UseParRes {
		wiring{layer: true, ffn: denseFFN(ActGELU)}.model(b)
		return
	}
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedKV()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		cur := b.LayerNorm(inpL, "attn_norm", NormLayer, il)
		q, k, v := b.QKV(cur, b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(0), il)
		q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
		out := attn(Attn{Q: q, K: k, V: v}.WithOut(b, il), il)
		b.LastRows(il, outIDs, &out, &inpL)
		cur = b.LayerNorm(inpL, "ffn_norm", NormLayer, il)
		cur = b.FeedForward(cur, b.LayerFFN(il, "", ActGELU), il)
		cur = b.Add(b.Add(cur, inpL), out)
		inpL = b.CVec(cur, il)
		b.Name(inpL, "l_out", il)
	}
	b.lmHead(b.LayerNormOut(inpL, NormLayer))
}

// falcon feeds one norm, or two, to attention and feed-forward side by side.
func falcon(b *Builder) {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedKV()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		norm := b.LayerNorm(inpL, "attn_norm", NormLayer, il)
		cur := norm
		if b.W(il, "attn_norm_2.weight") != nil {
			cur = b.LayerNorm(inpL, "attn_norm_2", NormLayer, il)
		}
		q, k, v := b.QKV(cur, b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(0), il)
		q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
		a := Attn{Q: q, K: k, V: v}.WithOut(b, il)
		a.WOB = nil
		out := attn(a, il)
		b.LastRows(il, outIDs, &out, &inpL, &norm)
		cur = b.FeedForward(norm, b.LayerFFN(il, "", ActGELU), il)
		cur = b.Add(b.Add(cur, out), inpL)
		inpL = b.CVec(cur, il)
		b.Name(inpL, "l_out", il)
	}
	b.lmHead(b.LayerNormOut(inpL, NormLayer))
}

// stablelm may feed the attention's norm to the feed-forward as well.
func stablelm(b *Builder) {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedKV()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		cur := b.LayerNorm(inpL, "attn_norm", NormLayer, il)
		inpSA := cur
		q, k, v := b.QKV(cur, b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(0), il)
		if w := b.W(il, "attn_q_norm.weight"); w != nil {
			q = b.Norm(q, w, nil, NormLayer, il)
		}
		if w := b.W(il, "attn_k_norm.weight"); w != nil {
			k = b.Norm(k, w, nil, NormLayer, il)
		}
		q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
		a := Attn{Q: q, K: k, V: v}.WithOut(b, il)
		a.WOB = nil
		cur = attn(a, il)
		b.LastRows(il, outIDs, &cur, &inpL, &inpSA)
		ffnInp := b.Add(cur, inpL)
		cur = inpSA
		if b.W(il, "ffn_norm.weight") != nil {
			cur = b.LayerNorm(ffnInp, "ffn_norm", NormLayer, il)
		}
		cur = b.FeedForward(cur, b.LayerFFN(il, "", ActSiLU), il)
		inpL = b.CVec(b.Add(cur, ffnInp), il)
		b.Name(inpL, "l_out", il)
	}
	b.lmHead(b.LayerNormOut(inpL, NormLayer))
}

// gptStack is biased throughout.
var gptStack = stack{output: maybe, bias: must, attn: fused(must), outB: must, ffn: ungated(must)}

func (w *wants) gpt2() {
	w.need(-1, "position_embd.weight", w.NEmbd, w.NCtxTrain)
	gptStack.ask(w)
}

func (w *wants) bloom() {
	w.norm(must, -1, "token_embd_norm")
	gptStack.ask(w)
}

// codeshell embeds by its output matrix when it has no embeddings.
func (w *wants) codeshell() {
	w.may(-1, "token_embd.weight", w.NEmbd, w.nVocab)
	s := stack{bias: must, attn: (*wants).square, outB: must, ffn: ungated(must)}
	w.head(must, s.bias)
	for il := range w.NLayer() {
		s.layer(w, il)
	}
}

func (w *wants) mpt() {
	w.may(-1, "position_embd.weight", w.NEmbd, w.NCtxTrain)
	stack{output: maybe, bias: maybe, attn: fused(maybe), outB: maybe, ffn: ungated(maybe), more: each{func(w *wants, il int) {
		for _, name := range strings.Fields("attn_q_norm.weight attn_q_norm.bias attn_k_norm.weight attn_k_norm.bias") {
			w.may(il, name, w.NEmbd)
		}
		w.may(il, "ffn.act.scales", w.NFF(0))
	}}}.ask(w)
}

func (w *wants) falcon() {
	stack{output: maybe, bias: must, norms: "attn_norm", attn: fused(unasked), ffn: ungated(unasked), more: each{func(w *wants, il int) {
		w.may(il, "attn_norm_2.weight", w.NEmbd)
		w.may(il, "attn_norm_2.bias", w.NEmbd)
	}}}.ask(w)
}

func (w *wants) stablelm() {
	stack{output: must, bias: must, norms: "attn_norm", attn: (*wants).square, more: each{func(w *wants, il int) {
		w.may(il, "attn_q_norm.weight", w.NEmbdHeadK(0), w.NHead(0))
		w.may(il, "attn_k_norm.weight", w.NEmbdHeadK(0), w.NHeadKV(0))
		w.may(il, "ffn_norm.weight", w.NEmbd)
		w.may(il, "ffn_norm.bias", w.NEmbd)
	}}}.ask(w)
}
