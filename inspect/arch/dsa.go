package arch

import (
	"strings"

	"weigh/formats"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// Sparse latent attention: a lightning indexer chooses the keys that each
// token attends to.
var _ = register(
	&Arch{
		Name: "deepseek32", Rope: model.RopeNorm, SameKV: true, NextN: NextNKeep, Skip: skipDraft, Load: loadDeepseek32,
		Memory:  func(m *model.Model, c *Context) *Memory { return DSAMemory(m, c, true, inTrunk(m)) },
		Build:   func(b *Builder) { sparse(b, indexer{rope: model.RopeNeoX}) },
		Tensors: func(w *wants) { w.sparse(0) },
		Needs:   "attention.layer_norm_rms_epsilon attention.q_lora_rank attention.kv_lora_rank expert_feed_forward_length expert_shared_count expert_gating_func attention.indexer.head_count attention.indexer.key_length attention.indexer.top_k",
		Source:  "src/models/deepseek32.cpp@v0.5.0",
	},
	&Arch{
		Name: "glm-dsa", Rope: model.RopeNorm, SameKV: true, NextN: NextNKeep, Skip: skipDraft, Load: loadGLMDSA,
		Memory:  func(m *model.Model, c *Context) *Memory { return DSAMemory(m, c, true, indexerLayers(m)) },
		Build:   func(b *Builder) { sparse(b, indexer{rope: model.RopeNorm}) },
		Tensors: func(w *wants) { w.sparse(optional) },
		Needs:   "attention.layer_norm_rms_epsilon attention.q_lora_rank attention.kv_lora_rank expert_feed_forward_length expert_shared_count attention.indexer.head_count attention.indexer.key_length attention.indexer.top_k",
		Source:  "src/models/glm-dsa.cpp@v0.5.0",
	},
	&Arch{
		Name: "dots3note", Rope: model.RopeNorm, SameKV: true, NextN: NextNNever, Load: loadDots3Note,
		Memory:  DSAISWAMemory,
		Build:   dots3Note,
		Tensors: (*wants).dots3Note,
		Needs:   "attention.layer_norm_rms_epsilon attention.q_lora_rank attention.kv_lora_rank attention.sliding_window leading_dense_block_count expert_feed_forward_length expert_shared_count expert_gating_func attention.key_length_mla attention.value_length_mla attention.indexer.head_count attention.indexer.key_length attention.indexer.top_k attention.kv_lora_rank_swa attention.key_length_mla_swa attention.value_length_mla_swa rope.freq_base_swa attention.sliding_window_pattern attention.indexer.types",
		Source:  "src/models/dots3note.cpp@v0.5.0",
	},
)

// skipDraft leaves out the NextN blocks unless they draft, except for the bias
// of their routers, which llama.cpp loads all the same.
func skipDraft(m *model.Model, name string, il int, mtp bool) bool {
	return il >= m.NLayer() && !mtp && !strings.HasSuffix(name, ".exp_probs_b.bias")
}

func loadIndexer(k *Keys, h *model.HParams) {
	h.IndexerNHead = k.Need("attention.indexer.head_count")
	h.IndexerHeadSize = k.Need("attention.indexer.key_length")
	h.IndexerTopK = k.Need("attention.indexer.top_k")
}

// needMLA rejects a model without the widths of latent attention.
func needMLA(k *Keys, h *model.HParams) {
	if !h.IsMLA() {
		k.fail("attention.key_length_mla", "missing or 0: the architecture has latent attention")
	}
}

// loadSparse reads what all models of sparse latent attention have.
func loadSparse(gating model.ExpertGating) func(*Keys, *model.HParams) {
	return func(k *Keys, h *model.HParams) {
		loadSections(k, h)
		loadMoE(gating)(k, h)
		h.NLoraQ = k.Need("attention.q_lora_rank")
		loadMLA(k, h)
		needMLA(k, h)
		loadIndexer(k, h)
	}
}

func loadDeepseek32(k *Keys, h *model.HParams) {
	loadSparse(model.GatingNone)(k, h)
	for il := range h.Layers {
		h.Layers[il].IndexerFull = true
	}
}

// loadGLMDSA knows which layers own an indexer where the file does not say.
func loadGLMDSA(k *Keys, h *model.HParams) {
	loadSparse(model.GatingSigmoid)(k, h)
	const glm52Layers = 78
	for il := range h.Layers {
		h.Layers[il].IndexerFull = h.NCtxTrain < 1<<20 || il < 2 || il < glm52Layers && il%4 == 2
	}
	if k.Has("attention.indexer.types") {
		loadIndexerTypes(k, h)
	}
}

// loadIndexerTypes reads which layers of the trunk own an indexer.
func loadIndexerTypes(k *Keys, h *model.HParams) {
	for il, full := range k.PerLayer("attention.indexer.types", h.NLayer(), 0) {
		h.Layers[il].IndexerFull = full != 0
	}
}

func loadDots3Note(k *Keys, h *model.HParams) {
	loadSparse(model.GatingNone)(k, h)
	h.NLoraKVSWA = k.Need("attention.kv_lora_rank_swa")
	h.NEmbdHeadKMLASWA = k.Need("attention.key_length_mla_swa")
	h.NEmbdHeadVMLASWA = k.Need("attention.value_length_mla_swa")
	k.window(h, "attention.sliding_window")
	flags := func(key string, set func(l *model.Layer, on bool)) {
		for il, on := range k.Ints(key) {
			if il < h.NLayerAll {
				set(&h.Layers[il], on != 0)
			}
		}
	}
	flags("attention.sliding_window_pattern", func(l *model.Layer, on bool) { l.SWA = on })
	flags("attention.indexer.types", func(l *model.Layer, on bool) { l.IndexerFull = on })
}

// DSAInput are the inputs of sparse attention: of the attention proper and of
// the indexer.
type DSAInput struct{ Attn, Idx *KVInput }

// InpDSA returns the inputs of sparse attention. (build_attn_inp_k_dsa)
func (b *Builder) InpDSA() *DSAInput {
	in := &DSAInput{Attn: b.InpK(), Idx: &KVInput{Cache: b.Mem.Idx, KIdxs: b.KIdxs()}}
	in.Idx.Mask = b.KQMask(b.Mem.Idx, formats.F16)
	in.Idx.RotK = b.rot(b.Mem.Idx.RotK, "attn_inp_k_rot")
	return in
}

// AttendDSA appends attention to the keys that topK chooses for each token.
// (build_attn, k_dsa)
func (b *Builder) AttendDSA(in *DSAInput, a Attn, topK *graph.Tensor, il int) *graph.Tensor {
	kv := in.Attn
	b.Expand(a.Q)
	b.Expand(a.V)
	b.Expand(a.K)
	b.StoreK(kv.Cache, a.K, kv.KIdxs, il)
	k, v := b.KeysAsValues(kv.Cache, a.V, il)
	a.NKVMax = int(topK.Ne[0])
	cur := b.MHA(a.Q, k, v, b.chosen(kv.Mask, topK, formats.F32), a, il)
	b.Name(cur, "kqv_out", il)
	return b.project(cur, a)
}

// chosen returns mask with all but the keys of topK masked; typ is the type of
// the values that open it.
func (b *Builder) chosen(mask, topK *graph.Tensor, typ formats.DType) *graph.Tensor {
	none := b.Fill(mask)
	none = b.View4D(none, 1, none.Ne[0], none.Ne[1], none.Ne[3], none.Nb[0], none.Nb[1], none.Nb[2], 0)
	ids := b.View4D(topK, topK.Ne[0], topK.Ne[1], topK.Ne[3], 1, topK.Nb[1], topK.Nb[2], uint64(topK.Ne[3])*topK.Nb[3], 0)
	zeros := b.Fill(b.Leaf("zeros", typ, 1, ids.Ne[0], ids.Ne[1], ids.Ne[2]))
	open := b.SetRows(none, zeros, ids)
	open = b.View4D(open, open.Ne[1], open.Ne[2], 1, open.Ne[3], open.Nb[2], open.Nb[3], open.Nb[3], 0)
	return b.Add(open, mask)
}

// An indexer says how a lightning indexer's heads are rotated.
type indexer struct {
	rope model.RopeType
	tail bool // the end of each head is rotated, and nothing else
}

// topK appends the lightning indexer of layer il and returns the keys that it
// chooses for each token; cur is the layer's normed input, qr its compressed
// queries.
func (b *Builder) topK(in *KVInput, x indexer, cur, qr, pos *graph.Tensor, il int) *graph.Tensor {
	n, size := int64(b.NTokens), int64(b.IndexerHeadSize)
	rotate := func(t *graph.Tensor) *graph.Tensor {
		t = b.Rope(t, pos, nil, b.NRot(0), int(x.rope))
		switch {
		case x.tail:
			return b.RopeSetOffset(t, b.IndexerHeadSize-b.NRot(0))
		default:
			return b.MulMat(in.RotK, t)
		}
	}
	q := b.MulMat(b.W(il, "indexer.attn_q_b.weight"), qr)
	q = rotate(b.Reshape3D(q, size, int64(b.IndexerNHead), n))
	k := b.MulMat(b.W(il, "indexer.attn_k.weight"), cur)
	k = b.LayerNorm(k, "indexer.k_norm", NormLayer, il)
	k = rotate(b.Reshape3D(k, size, 1, n))
	b.StoreK(in.Cache, k, in.KIdxs, il)
	weights := b.MulMat(b.W(il, "indexer.proj.weight"), cur)
	k = b.GetK(in.Cache, il)
	return b.best(k, q, b.Scale(b.perStream(weights, k.Ne[3])), in.Mask, il)
}

// perStream splits the tokens of an indexer's weights by streams.
func (b *Builder) perStream(w *graph.Tensor, s int64) *graph.Tensor {
	return b.View4D(w, w.Ne[0], w.Ne[1]/s, w.Ne[2], s, w.Nb[1], w.Nb[2]/uint64(s), w.Nb[3]/uint64(s), 0)
}

// best scores an indexer's cached keys k and returns the best ones for each
// token.
func (b *Builder) best(k, q, weights, mask *graph.Tensor, il int) *graph.Tensor {
	s := k.Ne[3]
	q = b.View4D(q, q.Ne[0], q.Ne[1], q.Ne[2]/s, s, q.Nb[1], q.Nb[2], q.Nb[3]/uint64(s), 0)
	score := b.LightningIndexer(q, k, weights, mask)
	b.Fuse(score, FusedLightningIndexer, il)
	return b.Cont(b.TopK(score, min(score.Ne[0], int64(b.IndexerTopK))))
}

// sparse is a trunk of sparse latent attention; layers without an indexer of
// their own follow the last one.
func sparse(b *Builder, x indexer) {
	if b.U.Kind == GraphMTP {
		latentMTP(b, b.deepseekFFN(true))
		return
	}
	w := b.latent()
	inpL := b.InpEmbd()
	pos := b.InpPos()
	in := b.InpDSA()
	outIDs := b.InpOutIDs()
	var chosen *graph.Tensor
	cur := b.trunk(inpL, outIDs, func(cur *graph.Tensor, il int) *graph.Tensor {
		qr := b.latentQ(cur, il)
		if b.Layers[il].IndexerFull {
			chosen = b.topK(in.Idx, x, cur, qr, pos, il)
		}
		if chosen == nil {
			b.Fail("layer %d has no indexer, nor has one before it", il)
		}
		q := b.MulMat(b.W(il, "attn_q_b.weight"), qr)
		kv, kPE := b.latentKV(cur, w, il)
		a := b.absorbed(q, kv, b.Rot(kPE, pos, nil, b.NRot(0)), pos, w, il)
		return b.AttendDSA(in, a.withOut(b, il), chosen, il)
	}, b.deepseekFFN(true), nil)
	b.plainHead(cur)
}

// dots3Note has sparse attention in its full layers, other widths in those
// with a window, and a gate for each head.
func dots3Note(b *Builder) {
	if b.U.Kind == GraphMTP {
		b.Fail("llama.cpp builds no MTP graph for this architecture")
	}
	inpL := b.InpEmbd()
	pos := b.InpPos()
	in := b.InpDSA()
	swa := b.inpKeys(b.Mem.SWA)
	outIDs := b.InpOutIDs()
	n := int64(b.NTokens)
	cur := b.trunk(inpL, outIDs, func(cur *graph.Tensor, il int) *graph.Tensor {
		w := b.latent()
		w.heads = int64(b.NHead(il))
		if b.IsSWA(il) {
			w.k, w.v, w.rank = int64(b.NEmbdHeadKMLASWA), int64(b.NEmbdHeadVMLASWA), int64(b.NLoraKVSWA)
		}
		qr := b.latentQ(cur, il)
		var chosen *graph.Tensor
		if !b.IsSWA(il) {
			chosen = b.topK(in.Idx, indexer{rope: model.RopeNeoX}, cur, qr, pos, il)
		}
		q := b.MulMat(b.W(il, "attn_q_b.weight"), qr)
		kv, kPE := b.latentKV(cur, w, il)
		kPE = b.Norm(kPE, b.W(il, "attn_k_norm.weight"), nil, NormRMS, il)
		a := b.absorbed(q, kv, b.Rot(kPE, pos, nil, b.NRot(0)), pos, w, il)
		var out *graph.Tensor
		if b.IsSWA(il) {
			out = b.AttendK(swa, a, il)
		} else {
			out = b.AttendDSA(in, a, chosen, il)
		}
		gate := b.Sigmoid(b.MM(b.W(il, "attn_gate.weight"), cur, nil))
		out = b.Mul(b.Reshape3D(out, w.v, w.heads, n), b.Reshape3D(gate, 1, w.heads, n))
		return b.MM(b.W(il, "attn_output.weight"), b.Reshape2D(out, w.v*w.heads, n), b.W(il, "attn_output.scale"))
	}, b.deepseekFFN(true), nil)
	cur = b.Norm(cur, b.OutputNorm(), nil, NormRMS, -1)
	b.Embd(cur)
	b.Logits(b.MulMat(b.OutputW(), cur))
}

// indexer asks for a lightning indexer.
func (w *wants) indexer(flags, il int) {
	w.tensor(flags, il, "indexer.k_norm.weight", w.IndexerHeadSize)
	w.tensor(flags, il, "indexer.k_norm.bias", w.IndexerHeadSize)
	w.tensor(flags, il, "indexer.proj.weight", w.NEmbd, w.IndexerNHead)
	w.tensor(flags, il, "indexer.attn_k.weight", w.NEmbd, w.IndexerHeadSize)
	w.tensor(flags, il, "indexer.attn_q_b.weight", w.NLoraQ, w.IndexerNHead*w.IndexerHeadSize)
}

// sparse is a trunk of sparse latent attention; indexer flags the indexers,
// which not all layers need to have.
func (w *wants) sparse(indexer int) {
	w.ends()
	l := w.latent()
	w.blocks(func(flags, il int) {
		w.tensor(flags, il, "attn_norm.weight", w.NEmbd)
		w.latentQ(flags, il, int(l.heads*l.k))
		w.latentKV(flags, il, l)
		w.absorbed(flags, il, l)
		w.indexer(flags|indexer, il)
		w.tensor(flags, il, "ffn_norm.weight", w.NEmbd)
		w.deepseekFFN(flags, optional, il, false)
		if il >= w.NLayer() {
			w.nextN(flags, flags, il)
		}
	})
}

// dots3Note has NextN blocks with a window and a dense block, which are never
// loaded.
func (w *wants) dots3Note() {
	w.ends()
	for il := range w.NLayerAll {
		next, flags := il >= w.NLayer(), 0
		if next {
			flags = skipped | optional
		}
		l := w.latent()
		l.heads = int64(w.NHead(il))
		if next || w.IsSWA(il) {
			l.k, l.v, l.rank = int64(w.NEmbdHeadKMLASWA), int64(w.NEmbdHeadVMLASWA), int64(w.NLoraKVSWA)
		}
		w.tensor(flags, il, "attn_norm.weight", w.NEmbd)
		w.latentQ(flags, il, int(l.heads*l.k))
		w.latentKV(flags, il, l)
		w.absorbed(flags, il, l)
		w.tensor(flags, il, "attn_k_norm.weight", int(l.rope))
		w.tensor(flags, il, "attn_gate.weight", w.NEmbd, int(l.heads))
		w.tensor(flags, il, "ffn_norm.weight", w.NEmbd)
		if !next {
			if w.Layers[il].IndexerFull {
				w.indexer(flags, il)
			}
			w.deepseekFFN(flags, 0, il, false)
			continue
		}
		w.ffn(flags, il, "", w.NFF(0))
		w.nextNInput(flags, il)
		w.tensor(flags, il, "nextn.embed_tokens.weight", w.NEmbd, w.nVocab)
		w.tensor(flags, il, "nextn.shared_head_norm.weight", w.NEmbd)
	}
}
