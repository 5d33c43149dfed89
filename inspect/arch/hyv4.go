package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// Hunyuan 4: latent attention, sparse where the model has an indexer, over
// several residual streams.
var _ = register(&Arch{
	Name: "hy_v4", Rope: model.RopeNorm, SameKV: true, Quirk: Quirk{ClampedMoE: true}, Budget: deltaBudget,
	Load: loadHyV4,
	Memory: func(m *model.Model, c *Context) *Memory {
		if m.IndexerTopK == 0 {
			return &Memory{Class: "kv", KV: NewCache(m, c, CacheOptions{})}
		}
		return DSAMemory(m, c, false, indexerLayers(m))
	},
	Build:   hyV4,
	Tensors: (*wants).hyV4,
	Needs:   "attention.layer_norm_rms_epsilon attention.q_lora_rank attention.kv_lora_rank expert_feed_forward_length expert_shared_count attention.key_length_mla attention.value_length_mla hyper_connection.count hyper_connection.epsilon hyper_connection.magnitude",
	Source:  "src/models/hy-v4.cpp@v0.5.0",
})

func loadHyV4(k *Keys, h *model.HParams) {
	loadMoE(model.GatingNone)(k, h)
	h.NLoraQ = k.Need("attention.q_lora_rank")
	loadMLA(k, h)
	needMLA(k, h)
	needUnrotated(k, h)
	if clamp := k.Floats("swiglu_clamp_exp", h.NLayerAll); clamp != nil {
		for il := range h.Layers {
			h.Layers[il].SwigluClampExp = clamp[il]
		}
	}
	h.DSV4HCMult = k.streams()
	h.IndexerNHead = k.Count("attention.indexer.head_count", 0)
	h.IndexerHeadSize = k.Count("attention.indexer.key_length", 0)
	h.IndexerTopK = k.Count("attention.indexer.top_k", 0)
	if h.IndexerTopK == 0 {
		return
	}
	if h.IndexerNHead == 0 || h.IndexerHeadSize <= h.NRot(0) {
		k.fail("attention.indexer.key_length", "%d for %d heads and %d rotated values", h.IndexerHeadSize, h.IndexerNHead, h.NRot(0))
	}
	loadIndexerTypes(k, h)
	if !h.Layers[0].IndexerFull {
		k.fail("attention.indexer.types", "the first layer has no indexer, and none before it to share")
	}
}

func hyV4(b *Builder) {
	w := b.latent()
	hc, n := int64(b.DSV4HCMult), int64(b.NTokens)
	inp := b.InpEmbd()
	pos := b.InpPos()
	var in *DSAInput
	var dense *KVInput
	if b.IndexerTopK > 0 {
		in = b.InpDSA()
	} else {
		dense = b.InpK()
	}
	outIDs := b.InpOutIDs()
	var chosen *graph.Tensor
	inpL := b.Repeat4D(b.Reshape3D(inp, int64(b.NEmbd), 1, n), int64(b.NEmbd), hc, n, 1)
	ffn := b.deepseekFFN(false)
	for il := range b.NLayer() {
		cur, post := b.ihcPre(inpL, "hc_attn", il)
		cur = b.LayerNorm(cur, "attn_norm", NormRMS, il)
		qr := b.latentQ(cur, il)
		if in != nil && b.Layers[il].IndexerFull {
			chosen = b.topK(in.Idx, indexer{rope: b.RopeType, tail: true}, cur, qr, pos, il)
		}
		q := b.MulMat(b.W(il, "attn_q_b.weight"), qr)
		kv, kPE := b.latentKV(cur, w, il)
		a := b.absorbed(q, kv, b.Rot(kPE, pos, nil, b.NRot(0)), pos, w, il)
		a.Sinks = b.W(il, "attn_sinks.weight")
		var out *graph.Tensor
		switch {
		case in == nil:
			out = b.AttendK(dense, a, il)
		case chosen == nil:
			b.Fail("layer %d has no indexer, nor has one before it", il)
		default:
			out = b.AttendDSA(in, a, chosen, il)
		}
		gate := b.Sigmoid(b.MulMat(b.W(il, "attn_gate.weight"), cur))
		cur = b.MM(b.W(il, "attn_output.weight"), b.Mul(out, gate), nil)
		inpL = b.ihcPost(cur, inpL, post)

		cur, post = b.ihcPre(inpL, "hc_ffn", il)
		cur = ffn(b.LayerNorm(cur, "ffn_norm", NormRMS, il), il)
		inpL = b.ihcPost(cur, inpL, post)
		b.Name(inpL, "l_out", il)
	}
	flat := b.GetRows(b.Reshape2D(inpL, int64(b.NEmbd)*hc, n), outIDs)
	inpL = b.Reshape3D(flat, int64(b.NEmbd), hc, int64(b.U.NOutputs))
	cur := b.ihcSum(inpL, b.hcHeadWeights(inpL))
	cur = b.Norm(cur, b.OutputNorm(), nil, NormRMS, -1)
	b.Embd(cur)
	b.Logits(b.MulMat(b.OutputW(), cur))
}

func (w *wants) hyV4() {
	w.output(0, w.nVocab)
	w.hyperHead()
	l := w.latent()
	for il := range w.NLayer() {
		w.need(il, "attn_norm.weight", w.NEmbd)
		w.need(il, "attn_sinks.weight", w.NHead(0))
		w.latentQ(0, il, int(l.heads*l.k))
		w.latentKV(0, il, l)
		w.absorbed(0, il, l)
		w.need(il, "attn_gate.weight", w.NEmbd, int(l.heads*l.v))
		if w.IndexerTopK > 0 && w.Layers[il].IndexerFull {
			w.indexer(0, il)
		}
		w.hyper(0, il, 2*w.DSV4HCMult, 2)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.deepseekFFN(0, optional, il, false)
	}
}
