package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

var _ = register(
	&Arch{
		Name: "gemma4", Rope: model.RopeNeoX, Tie: TieTwice, Load: loadGemma4, Memory: sharedTail, Build: gemma4,
		Layer: fullAttnFactors, Needs: "attention.layer_norm_rms_epsilon attention.sliding_window attention.key_length_swa attention.value_length_swa attention.sliding_window_pattern embedding_length_per_layer_input", Source: "src/models/gemma4.cpp@v0.5.0",
	},
)

func loadGemma4(k *Keys, h *model.HParams) {
	loadExpertFF(k, h)
	k.window(h, "attention.sliding_window")
	k.windowPattern(h)
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
