package arch

import (
	"weigh/formats"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// The Granite line: Llama with scales on embeddings, residuals and logits.
var _ = register(
	&Arch{Name: "granite", Rope: model.RopeNorm, EvenHeads: true, Load: loadGranite, Build: granite, Tensors: (*wants).llama, Needs: "attention.layer_norm_rms_epsilon logit_scale", Source: "src/models/granite.cpp@v0.5.0"},
	&Arch{Name: "granitemoe", Rope: model.RopeNorm, EvenHeads: true, Load: loadGraniteMoE, Build: granite, Tensors: (*wants).llama, Needs: "attention.layer_norm_rms_epsilon logit_scale", Source: "src/models/granite-moe.cpp@v0.5.0"},
	&Arch{Name: "granite_swa", Rope: model.RopeNorm, EvenHeads: true, Load: loadGraniteSWA, Build: granite, Tensors: (*wants).graniteSWA, Needs: "attention.layer_norm_rms_epsilon logit_scale attention.sliding_window attention.sliding_window_pattern", Source: "src/models/granite-swa.cpp@v0.5.0"},
	&Arch{Name: "graniteswitch", Rope: model.RopeNorm, EvenHeads: true, NextN: NextNKeep, Load: loadGraniteSwitch, Build: graniteSwitch, Tensors: (*wants).graniteSwitch, Needs: "attention.layer_norm_rms_epsilon logit_scale adapters.count adapters.lora_rank adapters.token_ids_activate adapters.token_ids_substitute", Source: "src/models/granite-switch.cpp@v0.5.0"},
	&Arch{Name: "minicpm", Rope: model.RopeNorm, EvenHeads: true, Load: loadMiniCPM, Build: granite, Tensors: (*wants).llama, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/minicpm.cpp@v0.5.0"},
)

func loadGraniteMoE(k *Keys, h *model.HParams) {
	h.LogitScale = k.Float("logit_scale", 0)
	h.ResidualScale = k.Float("residual_scale", 0)
	h.EmbeddingScale = k.Float("embedding_scale", 0)
	h.NFFShexp = k.Int("expert_shared_feed_forward_length", 0)
}

func loadGranite(k *Keys, h *model.HParams) {
	loadGraniteMoE(k, h)
	k.deepstackMap(h)
	k.noRopeUnlessFinetuned(h, true)
}

func loadGraniteSWA(k *Keys, h *model.HParams) {
	loadGraniteMoE(k, h)
	k.window(h, "attention.sliding_window")
	k.windowPattern(h)
	k.deepstackMap(h)
	for i, on := range k.Ints("attention.rope_pattern") {
		if i < len(h.Layers) {
			h.Layers[i].NoRope = on == 0
		}
	}
}

// deepstackMap reads which layers take in which of the image embeddings.
func (k *Keys) deepstackMap(h *model.HParams) {
	seen := map[int]bool{}
	for i, v := range k.Ints("deepstack_mapping") {
		if i < len(h.Layers) {
			h.Layers[i].Deepstack = v
		}
		if v >= 0 {
			seen[v] = true
		}
	}
	h.NDeepstackLayers = len(seen)
	for v := range seen {
		if v > len(seen) {
			k.fail("deepstack_mapping", "input %d of %d", v, len(seen))
		}
	}
}

func loadMiniCPM(k *Keys, h *model.HParams) {
	h.EmbeddingScale = k.Float("embedding_scale", 12)
	h.ResidualScale = k.Float("residual_scale", 1)
	h.LogitScale = k.Float("logit_scale", 1)
}

// noRopeUnlessFinetuned takes the flag by which Granite models say that their
// layers rotate at all.
func (k *Keys) noRopeUnlessFinetuned(h *model.HParams, def bool) {
	on := k.Bool("rope.scaling.finetuned", def)
	for i := range h.Layers {
		h.Layers[i].NoRope = !on
	}
}

func granite(b *Builder) {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.attendKV()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		if at := b.Layers[il].Deepstack; il > 0 && at >= 0 {
			in := b.inpEmbd
			inpL = b.Add(inpL, b.View2D(in, int64(b.NEmbd), int64(b.NTokens), in.Nb[1], uint64(at)*uint64(b.NEmbd)*4))
		}
		inpSA := inpL
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		cur = b.graniteAttn(cur, pos, attn, il)
		b.LastRows(il, outIDs, &cur, &inpSA)
		inpL = b.graniteFFN(cur, inpSA, il)
	}
	cur := b.MM(b.OutputW(), b.LayerNormOut(inpL, NormRMS), b.T("output.scale"))
	b.Logits(b.Scale(cur))
}

// graniteAttn is attention of layer il.
func (b *Builder) graniteAttn(cur, pos *graph.Tensor, attn attend, il int) *graph.Tensor {
	q, k, v := b.QKV(cur, b.NEmbdHeadV(0), b.NHead(il), b.NHeadKV(il), il)
	if !b.Layers[il].NoRope {
		f := b.RopeFactors(il)
		q, k = b.Rot(q, pos, f, b.NRot(0)), b.Rot(k, pos, f, b.NRot(0))
	}
	return attn(Attn{Q: q, K: k, V: v, Sinks: b.W(il, "attn_sinks.weight")}.WithOut(b, il), il)
}

// graniteFFN is the rest of layer il, with scaled residuals.
func (b *Builder) graniteFFN(cur, inpSA *graph.Tensor, il int) *graph.Tensor {
	cur = b.residual(cur)
	ffnInp := b.Add(cur, inpSA)
	cur = b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il)
	if b.W(il, "ffn_gate_inp.weight") == nil {
		cur = b.FeedForward(cur, b.LayerFFN(il, "", ActSiLU), il)
	} else {
		in := cur
		m := b.LayerMoE(il, ActSiLU)
		m.UpS, m.GateS, m.DownS = nil, nil, nil
		m.GateUp = b.W(il, "ffn_gate_up_exps.weight")
		cur = b.Experts(in, m, il)
		if b.NFFShexp > 0 {
			f := b.LayerFFN(il, "_shexp", ActSiLU)
			if f.Gate == nil {
				f.Act, f.Seq = ActSwiGLU, true
			}
			cur = b.Add(cur, b.FeedForward(in, f, il))
		}
	}
	cur = b.Add(b.residual(cur), ffnInp)
	cur = b.CVec(cur, il)
	b.Name(cur, "l_out", il)
	return cur
}

// residual scales what is added to the residual stream, where the model says so.
func (b *Builder) residual(cur *graph.Tensor) *graph.Tensor {
	if b.ResidualScale == 0 {
		return cur
	}
	return b.Scale(cur)
}

// loadGraniteSwitch adds one layer whose single head carries which adapter a
// token runs with.
func loadGraniteSwitch(k *Keys, h *model.HParams) {
	loadGraniteMoE(k, h)
	k.noRopeUnlessFinetuned(h, true)
	k.adapters()
	n := h.NLayer()
	if n >= MaxLayers {
		k.fail("block_count", "%d layers leave no room for the router's", n)
		return
	}
	h.Layers = append(h.Layers[:n:n], model.Layer{NHead: 1, NHeadKV: 1, NoRope: true, Deepstack: -1})
	h.RouterLayer, h.NLayerAll, h.NLayerNext = n, n+1, 1
}

// adapters rejects counts and tokens of adapters that llama.cpp rejects.
func (k *Keys) adapters() {
	const most = 4096
	count := k.Need("adapters.count")
	for _, key := range []string{"adapters.count", "adapters.lora_rank"} {
		if n := k.Need(key); n > most {
			k.fail(key, "%d, llama.cpp takes %d at most", n, most)
		}
	}
	activate, substitute := "adapters.token_ids_activate", "adapters.token_ids_substitute"
	for _, key := range []string{activate, substitute} {
		if n := len(k.Ints(key)); n != count {
			k.fail(key, "%d tokens for %d adapters", n, count)
		}
	}
	for _, token := range k.Ints(substitute) {
		if n := vocabulary(k, nil); token < 0 || token >= n {
			k.fail(substitute, "token %d of %d", token, n)
		}
	}
}

// graniteSwitch adds a low-rank update to every product, chosen token by token.
func graniteSwitch(b *Builder) {
	n := int64(b.NTokens)
	tokens := b.InputT("sub_tokens", formats.I32, n)
	keySig, valSig, query := b.InputT("router_ksig", formats.F32, n), b.InputT("router_vval", formats.F32, n), b.InputT("router_q", formats.F32, n)
	inpL := b.GetRows(b.TokEmbd(), tokens)
	if b.EmbeddingScale != 0 {
		inpL = b.Scale(inpL)
	}
	b.Name(inpL, "embd", -1)
	pos := b.InpPos()
	attn := b.cachedKV()
	lane := func(t *graph.Tensor) *graph.Tensor {
		return b.Pad(b.Reshape3D(t, 1, 1, n), b.NEmbdHeadV(0)-1, 0, 0, 0)
	}
	q, k, v := lane(query), lane(keySig), lane(valSig)
	routed := attn(Attn{Q: q, K: k, V: v}, b.RouterLayer)
	slot := b.Cont(b.View2D(routed, 1, n, routed.Nb[1], 0))
	ids := b.Cast(b.Round(b.Clamp(b.Reshape1D(slot, n))), formats.I32)
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA := inpL
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		cur = b.switchAttn(cur, pos, ids, attn, il)
		if il == b.NLayer()-1 {
			b.LastRows(il, outIDs, &cur, &inpSA)
			ids = b.GetRows(b.Reshape2D(ids, 1, ids.Ne[0]), outIDs)
			ids = b.Reshape1D(ids, outIDs.Ne[0])
		}
		ffnInp := b.Add(b.residual(cur), inpSA)
		cur = b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il)
		gate := b.switchedMM(il, "ffn_gate", cur, ids)
		up := b.switchedMM(il, "ffn_up", cur, ids)
		cur = b.switchedMM(il, "ffn_down", b.Mul(b.SiLU(gate), up), ids)
		inpL = b.CVec(b.Add(b.residual(cur), ffnInp), il)
		b.Name(inpL, "l_out", il)
	}
	b.Logits(b.Scale(b.MM(b.OutputW(), b.LayerNormOut(inpL, NormRMS), b.T("output.scale"))))
}

func (b *Builder) switchAttn(cur, pos, ids *graph.Tensor, attn attend, il int) *graph.Tensor {
	d, nq, nk, n := int64(b.NEmbdHeadV(0)), int64(b.NHead(il)), int64(b.NHeadKV(il)), int64(b.NTokens)
	qkv := b.MulMat(b.W(il, "attn_qkv.weight"), cur)
	part := func(heads, at int64) *graph.Tensor {
		return b.Cont(b.View2D(qkv, d*heads, qkv.Ne[1], qkv.Nb[1], uint64(at*d)*qkv.Nb[0]))
	}
	q, k, v := part(nq, 0), part(nk, nq), part(nk, nq+nk)
	q = b.Add(q, b.switchedDelta(il, "attn_q", cur, ids))
	k = b.Add(k, b.switchedDelta(il, "attn_k", cur, ids))
	v = b.Add(v, b.switchedDelta(il, "attn_v", cur, ids))
	q, k, v = b.Reshape3D(q, d, nq, n), b.Reshape3D(k, d, nk, n), b.Reshape3D(v, d, nk, n)
	if !b.Layers[il].NoRope {
		f := b.RopeFactors(il)
		q, k = b.Rot(q, pos, f, b.NRot(0)), b.Rot(k, pos, f, b.NRot(0))
	}
	return b.switchedMM(il, "attn_output", attn(Attn{Q: q, K: k, V: v}, il), ids)
}

// switchedDelta is the chosen adapter's low-rank product.
func (b *Builder) switchedDelta(il int, name string, cur, ids *graph.Tensor) *graph.Tensor {
	n := cur.Ne[1]
	x := b.Reshape3D(cur, cur.Ne[0], 1, n)
	i := b.Reshape2D(ids, 1, n)
	d := b.MulMatID(b.W(il, name+".lora_b"), b.MulMatID(b.W(il, name+".lora_a"), x, i), i)
	return b.Reshape2D(d, d.Ne[0], n)
}

func (b *Builder) switchedMM(il int, name string, cur, ids *graph.Tensor) *graph.Tensor {
	base := b.MulMat(b.W(il, name+".weight"), cur)
	return b.Add(base, b.switchedDelta(il, name, cur, ids))
}

func (w *wants) graniteSWA() {
	ffn := gated(unasked)
	stack{output: maybe, outB: maybe, more: each{(*wants).factors}, ffn: func(w *wants, il int) {
		w.need(il, "attn_sinks.weight", w.NHead(0))
		if w.NExpert == 0 {
			ffn(w, il)
			w.ffnBiases(il, w.NFF(0))
			return
		}
		w.need(il, "ffn_gate_inp.weight", w.NEmbd, w.NExpert)
		w.need(il, "ffn_down_exps.weight", w.NFF(0), w.NEmbd, w.NExpert)
		w.gateUpExps(0, il, w.NEmbd, w.NFF(0), w.NExpert)
		if w.NFFShexp > 0 {
			w.need(il, "ffn_up_shexp.weight", w.NEmbd, 2*w.NFFShexp)
			w.need(il, "ffn_down_shexp.weight", w.NFFShexp, w.NEmbd)
		}
	}}.ask(w)
}

// graniteSwitch has the adapters' matrices, stacked after the one that changes
// nothing.
func (w *wants) graniteSwitch() {
	rank, slots := w.Int("adapters.lora_rank", 0), w.Int("adapters.count", 0)+1
	adapted := func(il int, name string, in, out int) {
		w.need(il, name+".lora_a", in, rank, slots)
		w.need(il, name+".lora_b", rank, out, slots)
	}
	q, kv, ff := w.NEmbdHeadK(0)*w.NHead(0), w.NEmbdKGQA(0), w.NFF(0)
	stack{output: maybe, attn: func(w *wants, il int) {
		w.need(il, "attn_qkv.weight", w.NEmbd, q+2*kv)
		w.need(il, "attn_output.weight", q, w.NEmbd)
		adapted(il, "attn_q", w.NEmbd, q)
		adapted(il, "attn_k", w.NEmbd, kv)
		adapted(il, "attn_v", w.NEmbd, kv)
		adapted(il, "attn_output", q, w.NEmbd)
		adapted(il, "ffn_gate", w.NEmbd, ff)
		adapted(il, "ffn_up", w.NEmbd, ff)
		adapted(il, "ffn_down", ff, w.NEmbd)
	}}.ask(w)
}
