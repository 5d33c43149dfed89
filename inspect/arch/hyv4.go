package arch

import (
	"weigh/formats"
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
	Build:  hyV4,
	Source: "src/models/hy-v4.cpp@v0.5.0",
})

func loadHyV4(k *Keys, h *model.HParams) {
	loadMoE(model.GatingNone)(k, h)
	h.NLoraQ = k.Need("attention.q_lora_rank")
	loadMLA(k, h)
	needMLA(k, h)
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
}

// maxStreams bounds the residual streams, which hyper-connections handle one
// by one.
const maxStreams = 64

// streams reads the number of residual streams.
func (k *Keys) streams() int {
	n := k.Need("hyper_connection.count")
	if k.err == nil && (n < 1 || n > maxStreams) {
		k.fail("hyper_connection.count", "%d, want 1 to %d", n, maxStreams)
	}
	return n
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
	mixes := b.hcMixes(inpL, b.T("output_hc_fn.weight"))
	pre := b.Add(b.Mul(mixes, b.T("output_hc_scale.weight")), b.T("output_hc_base.weight"))
	cur := b.hcReduce(inpL, b.ScaleBias(b.Sigmoid(pre)))
	cur = b.Norm(cur, b.OutputNorm(), nil, NormRMS, -1)
	b.Embd(cur)
	b.Logits(b.MulMat(b.OutputW(), cur))
}

// hcMixes projects the normed streams x [NEmbd][streams][tokens] to the
// coefficients of a hyper-connection.
func (b *Builder) hcMixes(x, fn *graph.Tensor) *graph.Tensor {
	return b.MulMat(fn, b.RMSNorm(b.Reshape2D(x, x.Ne[0]*x.Ne[1], x.Ne[2])))
}

// ihcPre reduces the streams x to a block's input, and returns the gates that
// spread its output again. (build_hc_pre)
func (b *Builder) ihcPre(x *graph.Tensor, name string, il int) (cur, post *graph.Tensor) {
	hc := int64(b.DSV4HCMult)
	scale, base := b.need(il, name+"_scale.weight"), b.need(il, name+"_base.weight")
	mixes := b.hcMixes(x, b.W(il, name+"_fn.weight"))
	gates := func(i int64) *graph.Tensor {
		t := b.Mul(b.View2D(mixes, hc, mixes.Ne[1], mixes.Nb[1], f32Row(i*hc)), b.View1D(scale, 1, f32Row(i)))
		return b.Sigmoid(b.Add(t, b.View1D(base, hc, f32Row(i*hc))))
	}
	pre := b.ScaleBias(gates(0))
	post = b.ScaleBias(b.Scale(gates(1)))
	return b.hcReduce(x, pre), post
}

// hcReduce sums the streams x, weighted by w [streams][tokens].
func (b *Builder) hcReduce(x, w *graph.Tensor) *graph.Tensor {
	f := b.Cast(x, formats.F32)
	var sum *graph.Tensor
	for i := range uint64(x.Ne[1]) {
		cur := b.Mul(b.View2D(f, f.Ne[0], f.Ne[2], f.Nb[2], i*f.Nb[1]), b.View2D(w, 1, f.Ne[2], w.Nb[1], i*w.Nb[0]))
		if sum != nil {
			cur = b.Add(sum, cur)
		}
		sum = cur
	}
	return b.Cast(sum, x.Type)
}

// ihcPost adds a block's output to each stream, weighted by its gate.
// (build_hc_post)
func (b *Builder) ihcPost(cur, residual, post *graph.Tensor) *graph.Tensor {
	n := cur.Ne[1]
	x, w, res := b.Cast(cur, formats.F32), b.Cast(post, formats.F32), b.Cast(residual, formats.F32)
	var out *graph.Tensor
	for i := range uint64(residual.Ne[1]) {
		one := b.View2D(res, res.Ne[0], n, res.Nb[2], i*res.Nb[1])
		one = b.Add(one, b.Mul(x, b.View2D(w, 1, n, w.Nb[1], i*w.Nb[0])))
		one = b.Reshape3D(one, res.Ne[0], 1, n)
		if out != nil {
			one = b.Concat(out, one, 1)
		}
		out = one
	}
	return b.Cast(out, residual.Type)
}
