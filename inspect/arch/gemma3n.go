package arch

import (
	"weigh/formats"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

var _ = register(
	&Arch{
		Name: "gemma3n", Rope: model.RopeNeoX, Tie: TieTwice, Load: loadGemma3n, Memory: sharedTail, Build: gemma3n,
		Tensors: (*wants).gemma3n,
		Needs:   "attention.layer_norm_rms_epsilon attention.sliding_window",
		Source:  "src/models/gemma3n.cpp@v0.5.0",
	},
)

// sparseLayers is the number of Gemma 3n's layers with sparse activations.
const sparseLayers = 10

func loadGemma3n(k *Keys, h *model.HParams) {
	k.window(h, "attention.sliding_window")
	k.pattern(h, 5)
	k.someWindow(h)
	h.NLayerKVFromStart = 20
}

// someWindow rejects a pattern that gives the window to no layer: there is no
// cache for that.
func (k *Keys) someWindow(h *model.HParams) {
	if !h.AnySWA() {
		k.fail("attention.sliding_window_pattern", "no layer has the window")
	}
}

// sharedTail is the memory of models whose last layers read the caches of the
// last layers, one of each kind, that have their own.
func sharedTail(m *model.Model, c *Context) *Memory {
	from := m.NLayerKVFromStart
	return PlainMemory(m, c, CacheOptions{Reuse: func(il int) int {
		switch {
		case il < from:
			return -1
		case m.IsSWA(il):
			return from - 2
		}
		return from - 1
	}})
}

// perLayerInputs returns the embeddings that each layer has of its own,
// [width][NTokens][layers]; project builds on the residual stream inp.
func (b *Builder) perLayerInputs(inp *graph.Tensor, width int64) *graph.Tensor {
	n, layers := int64(b.NTokens), int64(b.NLayer())
	tokens := b.InputT("inp_tokens", formats.I32, n)
	own := b.Scale(b.Reshape3D(b.GetRows(b.T("per_layer_token_embd.weight"), tokens), width, layers, n))
	b.Name(own, "inp_per_layer_selected", -1)
	b.Expand(own)
	proj := b.Scale(b.MulMat(b.T("per_layer_model_proj.weight"), inp))
	proj = b.Norm(b.Reshape3D(proj, width, layers, n), b.T("per_layer_proj_norm.weight"), nil, NormRMS, -1)
	own = b.Scale(b.Add(proj, own))
	return b.Cont(b.Permute(own, 0, 2, 1, 3))
}

// slice returns the i-th matrix of t.
func (b *Builder) slice(t *graph.Tensor, i int) *graph.Tensor {
	return b.View2D(t, t.Ne[0], t.Ne[1], t.Type.RowBytes(uint64(t.Ne[0])), uint64(i)*t.Nb[2])
}

// rest returns all but the first matrix of the altup streams t.
func (b *Builder) rest(t *graph.Tensor) *graph.Tensor {
	row := t.Type.RowBytes(uint64(b.NEmbd))
	n := uint64(b.NTokens)
	return b.View3D(t, int64(b.NEmbd), int64(b.NTokens), int64(b.NAltup-1), row, row*n, row*n)
}

// magnitude returns the length of each row.
func (b *Builder) magnitude(t *graph.Tensor) *graph.Tensor { return b.Sqrt(b.SumRows(b.Sqr(t))) }

// sameLength projects t by w and gives its rows the lengths of like's.
func (b *Builder) sameLength(w, t, length *graph.Tensor) *graph.Tensor {
	t = b.MulMat(w, t)
	m := b.magnitude(t)
	return b.Div(b.Mul(t, length), m)
}

// gemma3n runs several residual streams (AltUp), of which a layer computes one
// and corrects the others.
func gemma3n(b *Builder) {
	inpL := b.Scale(b.InpEmbd())
	pos := b.InpPos()
	iswa := b.InpISWA()
	perLayer := b.perLayerInputs(inpL, int64(b.NEmbdAltup))
	target := b.magnitude(inpL)
	others := b.Repeat4D(inpL, int64(b.NEmbd), int64(b.NTokens), int64(b.NAltup-1), 1)
	inpL = b.Concat(inpL, b.sameLength(b.T("altup_proj.weight"), others, target), 2)
	for il := range b.NLayer() {
		predictions := b.altupPredict(inpL, il)
		active := b.slice(predictions, b.IAltupAct)
		cur := b.LayerNorm(active, "attn_norm", NormRMS, il)
		laurel := b.MM(b.W(il, "laurel_r.weight"), b.MM(b.W(il, "laurel_l.weight"), cur, nil), nil)
		laurel = b.Add(b.LayerNorm(laurel, "laurel_post_norm", NormRMS, il), cur)
		cur = b.AttendISWA(iswa, b.gemma3nQKV(cur, pos, il), il)
		cur = b.Add(b.LayerNorm(cur, "post_attention_norm", NormRMS, il), active)
		attn := b.Scale(b.Add(cur, laurel))
		cur = b.LayerNorm(attn, "ffn_norm", NormRMS, il)
		up, gate := b.MM(b.W(il, "ffn_up.weight"), cur, nil), b.MM(b.W(il, "ffn_gate.weight"), cur, nil)
		if il < sparseLayers {
			gate = b.gaussianTopK(gate)
		}
		cur = b.MM(b.W(il, "ffn_down.weight"), b.Mul(up, b.GELU(gate)), nil)
		cur = b.Norm(cur, b.W(il, "post_ffw_norm.weight"), nil, NormRMS, -1)
		corrected := b.altupCorrect(predictions, b.Add(cur, attn), il)
		first := b.Mul(b.slice(corrected, b.IAltupAct), b.W(il, "altup_correct_scale.weight"))
		first = b.perLayerGate(first, b.slice(perLayer, il), il)
		one := b.slice(corrected, 0)
		inpL = b.Concat(one, b.Add(b.rest(corrected), first), 2)
		b.Name(inpL, "l_out", il)
	}
	target = b.magnitude(b.slice(inpL, b.IAltupAct))
	others = b.sameLength(b.T("altup_unembd_proj.weight"), b.rest(inpL), target)
	cur := b.slice(inpL, 0)
	for i := range b.NAltup - 1 {
		cur = b.Add(cur, b.slice(others, i))
	}
	cur = b.GetRows(b.Scale(cur), b.InpOutIDs())
	b.cappedHead(b.LayerNormOut(cur, NormRMS))
}

// perLayerGate gates a layer's own embeddings by cur and projects them.
func (b *Builder) perLayerGate(cur, own *graph.Tensor, il int) *graph.Tensor {
	cur = b.GELU(b.MM(b.W(il, "inp_gate.weight"), cur, b.W(il, "inp_gate.scale")))
	cur = b.MM(b.W(il, "proj.weight"), b.Mul(cur, own), b.W(il, "proj.scale"))
	return b.LayerNorm(cur, "post_norm", NormRMS, il)
}

// gemma3nQKV norms queries, keys and values; the last layers have queries only.
func (b *Builder) gemma3nQKV(cur, pos *graph.Tensor, il int) Attn {
	d := b.NEmbdHeadK(0)
	a := Attn{}.WithOut(b, il)
	a.WOB = nil
	if b.HasKV(il) {
		q, k, v := b.QKV(cur, d, b.NHead(0), b.NHeadKV(0), il)
		q, k = b.LayerNorm(q, "attn_q_norm", NormRMS, il), b.LayerNorm(k, "attn_k_norm", NormRMS, il)
		a.V = b.RMSNorm(v)
		a.Q, a.K = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
		return a
	}
	var q *graph.Tensor
	if w := b.W(il, "attn_qkv.weight"); w != nil {
		qkv := b.MM(w, cur, nil)
		q = b.Cont(b.View2D(qkv, int64(d*b.NHead(0)), int64(b.NTokens), qkv.Nb[1], 0))
	} else {
		q = b.MM(b.W(il, "attn_q.weight"), cur, nil)
	}
	q = b.LayerNorm(b.Reshape3D(q, int64(d), int64(b.NHead(0)), int64(b.NTokens)), "attn_q_norm", NormRMS, il)
	a.Q = b.Rot(q, pos, nil, b.NRot(0))
	return a
}

// gaussianTopK cuts all but the largest values off, as if they were normally
// distributed.
func (b *Builder) gaussianTopK(x *graph.Tensor) *graph.Tensor {
	mean := b.Mean(x)
	std := b.Sqrt(b.Scale(b.SumRows(b.Sqr(b.Sub(x, mean)))))
	return b.ReLU(b.Sub(x, b.Add(mean, b.Scale(std))))
}

// altupRouter returns the modalities of x.
func (b *Builder) altupRouter(x *graph.Tensor, il int) *graph.Tensor {
	return b.Tanh(b.MulMat(b.W(il, "altup_router.weight"), b.Scale(b.LayerNorm(x, "altup_router_norm", NormRMS, il))))
}

// altupPredict predicts all streams after a layer from those before it.
func (b *Builder) altupPredict(cur *graph.Tensor, il int) *graph.Tensor {
	coefs := b.MM(b.W(il, "altup_predict_coef.weight"), b.altupRouter(b.slice(cur, b.IAltupAct), il), nil)
	coefs = b.Reshape3D(coefs, int64(b.NAltup), int64(b.NAltup), int64(b.NTokens))
	p := b.MulMat(b.Cont(b.Permute(cur, 1, 2, 0, 3)), coefs)
	return b.Add(b.Cont(b.Permute(p, 0, 2, 1, 3)), cur)
}

// altupCorrect corrects the predicted streams by the one that was computed.
func (b *Builder) altupCorrect(predictions, activated *graph.Tensor, il int) *graph.Tensor {
	modalities := b.altupRouter(activated, il)
	innovation := b.Sub(activated, b.slice(predictions, b.IAltupAct))
	coefs := b.ScaleBias(b.MM(b.W(il, "altup_correct_coef.weight"), modalities, nil))
	coefs = b.Cont3D(b.Transpose(coefs), 1, int64(b.NTokens), int64(b.NAltup))
	innovation = b.Repeat4D(innovation, int64(b.NEmbd), int64(b.NTokens), int64(b.NAltup), 1)
	return b.Add(b.Mul(innovation, coefs), predictions)
}

func (w *wants) gemma3n() {
	w.perLayerEnds(w.NEmbdAltup)
	w.need(-1, "altup_proj.weight", w.NEmbd, w.NEmbd, w.NAltup-1)
	w.need(-1, "altup_unembd_proj.weight", w.NEmbd, w.NEmbd, w.NAltup-1)
	stack{output: maybe, norms: gemmaNorms, more: each{(*wants).qkNorms, (*wants).altup}}.ask(w)
}

// perLayerEnds asks for what embeds the tokens for each layer, n wide.
func (w *wants) perLayerEnds(n int) {
	w.need(-1, "per_layer_token_embd.weight", n*w.NLayer(), w.nVocab)
	w.need(-1, "per_layer_model_proj.weight", w.NEmbd, n*w.NLayer())
	w.need(-1, "per_layer_proj_norm.weight", n)
}

// perLayerGate asks for what brings those embeddings into layer il.
func (w *wants) perLayerGate(il, n int) {
	w.need(il, "inp_gate.weight", w.NEmbd, n)
	w.need(il, "proj.weight", n, w.NEmbd)
	w.need(il, "post_norm.weight", w.NEmbd)
}

// altup asks for what layer il has beside attention and feed-forward.
func (w *wants) altup(il int) {
	n := w.NAltup
	w.perLayerGate(il, w.NEmbdAltup)
	w.need(il, "altup_correct_coef.weight", n, n)
	w.need(il, "altup_correct_scale.weight", w.NEmbd)
	w.need(il, "altup_predict_coef.weight", n, n*n)
	w.need(il, "altup_router.weight", w.NEmbd, n)
	w.need(il, "altup_router_norm.weight", w.NEmbd)
	w.need(il, "laurel_l.weight", w.NEmbd, w.LaurelRank)
	w.need(il, "laurel_r.weight", w.LaurelRank, w.NEmbd)
	w.need(il, "laurel_post_norm.weight", w.NEmbd)
}
