package arch

import (
	"strings"

	"weigh/inspect/graph"
	"weigh/inspect/model"
)

var _ = register(
	&Arch{
		Name: "gemma4", Rope: model.RopeNeoX, Tie: TieTwice, Load: loadGemma4, Memory: sharedTail, Build: gemma4,
		Layer: fullAttnFactors, Tensors: (*wants).gemma4, Needs: "attention.layer_norm_rms_epsilon attention.sliding_window attention.key_length_swa attention.value_length_swa attention.sliding_window_pattern embedding_length_per_layer_input", Source: "src/models/gemma4.cpp@v0.5.0",
	},
)

func loadGemma4(k *Keys, h *model.HParams) {
	loadExpertFF(k, h)
	k.window(h, "attention.sliding_window")
	k.windowPattern(h)
	k.someWindow(h)
	h.NLayerKVFromStart = h.NLayerAll - k.Int("attention.shared_kv_layers", 0)
	if h.NLayerKVFromStart < 2 || h.NLayerKVFromStart > h.NLayerAll {
		k.fail("attention.shared_kv_layers", "%d of %d layers, llama.cpp wants two with a cache of their own", h.NLayerAll-h.NLayerKVFromStart, h.NLayerAll)
	}
	h.NEmbdPerLayer = k.Need("embedding_length_per_layer_input")
	h.NEmbdHeadKSWA, h.NEmbdHeadVSWA = k.Need("attention.key_length_swa"), k.Need("attention.value_length_swa")
	h.FinalSoftcap = k.Float("final_logit_softcapping", 30)
	if h.NEmbdHeadKFull != h.NEmbdHeadVFull || h.NEmbdHeadKSWA != h.NEmbdHeadVSWA {
		k.fail("attention.value_length", "keys and values of different widths, llama.cpp wants the same")
	}
}

// fullAttnFactors leaves the rotary factors to the layers with full attention.
func fullAttnFactors(m *model.Model, name string, il int) int {
	if name == "rope_freqs.weight" && m.IsSWA(il) {
		return -1
	}
	return il
}

// gemma4 has wider heads in the layers without a window, values that may be
// the keys, and experts beside the dense block.
func gemma4(b *Builder) {
	inpL := b.Scale(b.InpEmbd())
	pos := b.InpPos()
	iswa := b.InpISWA()
	outIDs := b.InpOutIDs()
	var perLayer *graph.Tensor
	if b.NEmbdPerLayer > 0 {
		perLayer = b.perLayerInputs(inpL, int64(b.NEmbdPerLayer))
	}
	for il := range b.NLayer() {
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		cur = b.AttendISWA(iswa, b.gemma4QKV(cur, pos, il), il)
		cur = b.LayerNorm(cur, "post_attention_norm", NormRMS, il)
		attn := b.Add(cur, inpL)
		cur = b.Norm(b.gemma4FFN(attn, il), b.W(il, "post_ffw_norm.weight"), nil, NormRMS, -1)
		cur = b.Add(cur, attn)
		if perLayer != nil {
			in := cur
			cur = b.Add(in, b.perLayerGate(cur, b.slice(perLayer, il), il))
		}
		if s := b.W(il, "layer_output_scale.weight"); s != nil {
			cur = b.Mul(cur, s)
		}
		inpL = b.CVec(cur, il)
		b.Name(inpL, "l_out", il)
	}
	b.cappedHead(b.trunkOut(inpL, outIDs, rowsAfterNorm, NormRMS))
}

func (b *Builder) gemma4QKV(cur, pos *graph.Tensor, il int) Attn {
	d, heads, kv, n := int64(b.NEmbdHeadK(il)), int64(b.NHead(il)), int64(b.NHeadKV(il)), int64(b.NTokens)
	a := Attn{}.WithOut(b, il)
	a.WOB = nil
	var factors *graph.Tensor
	if !b.IsSWA(il) {
		factors = b.Shared("rope_freqs.weight", il)
	}
	var fused, q, k, v *graph.Tensor
	part := func(from, width int64) *graph.Tensor {
		return b.Cont(b.View2D(fused, width, n, fused.Nb[1], fused.Nb[0]*uint64(from)))
	}
	if w := b.W(il, "attn_qkv.weight"); w != nil {
		fused = b.MM(w, cur, b.W(il, "attn_qkv.scale"))
		q = part(0, d*heads)
	} else {
		q = b.MM(b.W(il, "attn_q.weight"), cur, b.W(il, "attn_q.scale"))
	}
	q = b.LayerNorm(b.Reshape3D(q, d, heads, n), "attn_q_norm", NormRMS, il)
	a.Q = b.Rot(q, pos, factors, b.NRot(il))
	if !b.HasKV(il) {
		return a
	}
	if fused != nil {
		k, v = part(d*heads, d*kv), part(d*(heads+kv), d*kv)
	} else {
		k = b.MM(b.W(il, "attn_k.weight"), cur, b.W(il, "attn_k.scale"))
		v = k
		if w := b.W(il, "attn_v.weight"); w != nil {
			v = b.MM(w, cur, b.W(il, "attn_v.scale"))
		}
	}
	k, v = b.Reshape3D(k, d, kv, n), b.Reshape3D(v, d, kv, n)
	k = b.LayerNorm(k, "attn_k_norm", NormRMS, il)
	a.V = b.RMSNorm(v)
	a.K = b.Rot(k, pos, factors, b.NRot(il))
	return a
}

// gemma4FFN is a dense block, beside experts where the layer has a router.
func (b *Builder) gemma4FFN(attn *graph.Tensor, il int) *graph.Tensor {
	cur := b.FeedForward(b.LayerNorm(attn, "ffn_norm", NormRMS, il), b.LayerFFN(il, "", ActGELU), il)
	router := b.W(il, "ffn_gate_inp.weight")
	if router == nil {
		return cur
	}
	cur = b.LayerNorm(cur, "post_ffw_norm_1", NormRMS, il)
	m := b.LayerMoE(il, ActGELU)
	in := b.LayerNorm(attn, "pre_ffw_norm_2", NormRMS, il)
	m.Probs = b.MM(router, b.Mul(b.Scale(b.RMSNorm(attn)), b.W(il, "ffn_gate_inp.scale")), nil)
	b.Name(m.Probs, "ffn_moe_logits", il)
	m.GateUp, m.WScale = b.W(il, "ffn_gate_up_exps.weight"), 1
	out := b.LayerNorm(b.Experts(in, m, il), "post_ffw_norm_2", NormRMS, il)
	return b.Add(cur, out)
}

func (w *wants) gemma4() {
	w.ends()
	if w.NEmbdPerLayer > 0 {
		w.perLayerEnds(w.NEmbdPerLayer)
	}
	for il := range w.NLayer() {
		for _, name := range strings.Fields(gemmaNorms) {
			w.norm(unasked, il, name)
		}
		w.gemma4Attn(il)
		w.ffn(0, il, "", w.NFF(il))
		w.gemma4Experts(il)
		if w.NEmbdPerLayer > 0 {
			w.perLayerGate(il, w.NEmbdPerLayer)
		}
		w.may(il, "layer_output_scale.weight", 1)
	}
}

func (w *wants) gemma4Attn(il int) {
	d, k, v := w.NEmbdHeadK(il), w.NEmbdKGQA(il), w.NEmbdVGQA(il)
	q, cached := d*w.NHead(il), 0
	if !w.HasKV(il) {
		cached = optional
	}
	if !w.may(il, "attn_qkv.weight", w.NEmbd, q+k+v) {
		w.need(il, "attn_q.weight", w.NEmbd, q)
		w.tensor(cached, il, "attn_k.weight", w.NEmbd, k)
		w.may(il, "attn_v.weight", w.NEmbd, v)
	}
	w.need(il, "attn_output.weight", q, w.NEmbd)
	w.need(il, "attn_q_norm.weight", d)
	w.tensor(cached, il, "attn_k_norm.weight", d)
	if !w.IsSWA(il) {
		w.need(-1, "rope_freqs.weight", d/2)
	}
}

// gemma4Experts asks for the experts of layer il, which has them when it has a
// router.
func (w *wants) gemma4Experts(il int) {
	if !w.may(il, "ffn_gate_inp.weight", w.NEmbd, w.NExpert) {
		return
	}
	w.need(il, "ffn_gate_inp.scale", w.NEmbd)
	for _, name := range []string{"pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"} {
		w.norm(unasked, il, name)
	}
	w.gateUpExps(0, il, w.NEmbd, w.NFFExp(0), w.NExpert)
	w.need(il, "ffn_down_exps.weight", w.NFFExp(0), w.NEmbd, w.NExpert)
}
