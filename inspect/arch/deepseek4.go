package arch

import (
	"weigh/formats"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// DeepSeek-V4: several residual streams that hyper-connections mix, attention
// over a window of keys and over compressed ones further back.
var _ = register(&Arch{
	Name: "deepseek4", Rope: model.RopeNorm, Hybrid: true, Rollback: true, SameKV: true, Budget: deltaBudget,
	Quirk: Quirk{ClampedSwiGLU: true, ClampedMoE: true},
	Load:  loadDeepseek4, Memory: DSV4Memory, Build: deepseek4,
	Tensors: (*wants).deepseek4,
	Needs:   "attention.layer_norm_rms_epsilon attention.q_lora_rank attention.sliding_window expert_feed_forward_length expert_shared_count expert_gating_func expert_weights_scale expert_weights_norm attention.output_group_count attention.output_lora_rank attention.compress_rope_freq_base hyper_connection.count hyper_connection.sinkhorn_iterations hyper_connection.epsilon swiglu_clamp_exp attention.indexer.head_count attention.indexer.key_length attention.indexer.top_k attention.compress_ratios hash_layer_count",
	Source:  "src/models/deepseek4.cpp@v0.5.0",
})

// maxSinkhorn bounds the rounds in which a hyper-connection balances its
// matrix, each of which is several operators.
const maxSinkhorn = 256

// v4Streams are DeepSeek-V4's residual streams.
const v4Streams = 4

func loadDeepseek4(k *Keys, h *model.HParams) {
	if h.NLayerNext > 0 && k.index.Layer(h.NLayer(), "nextn.eh_proj.weight") < 0 {
		h.NLayerNext = 0
	}
	loadV4Layers(k, h)
	loadIndexer(k, h)
	h.DSV4HashLayerCount = k.Need("hash_layer_count")
	h.NEmbdOutImpl = h.DSV4HCMult * h.NEmbd
	for il, r := range k.compressRatios(h.NLayerAll) {
		if r != 0 && r != ratioCSA && r != ratioHCA {
			k.fail("attention.compress_ratios", "%d in layer %d, llama.cpp knows 0, %d and %d", r, il, ratioCSA, ratioHCA)
		}
		h.Layers[il].CompressRatio = r
	}
}

// loadV4Layers reads what every layer of DeepSeek-V4 needs, a draft's too.
func loadV4Layers(k *Keys, h *model.HParams) {
	loadMoE(model.GatingNone)(k, h)
	h.NLayerDenseLead = 0
	h.NLoraQ = k.Need("attention.q_lora_rank")
	k.window(h, "attention.sliding_window")
	exp := k.Floats("swiglu_clamp_exp", h.NLayerAll)
	shared := k.Floats("swiglu_clamp_shexp", h.NLayerAll)
	if shared == nil {
		shared = exp
	}
	for il := range h.Layers {
		l := &h.Layers[il]
		l.SWA = true
		if exp != nil {
			l.SwigluClampExp, l.SwigluClampShexp = exp[il], shared[il]
		}
	}
	h.DSV4OGroupCount = k.Need("attention.output_group_count")
	if n := h.DSV4OGroupCount; n < 1 || h.NHead(0)%n != 0 {
		k.fail("attention.output_group_count", "%d, do not divide %d heads", n, h.NHead(0))
	}
	if h.NEmbdHeadK(0) != h.NEmbdHeadV(0) {
		k.fail("attention.value_length", "%d, llama.cpp wants the keys' %d", h.NEmbdHeadV(0), h.NEmbdHeadK(0))
	}
	h.DSV4OLoraRank = k.Need("attention.output_lora_rank")
	if h.DSV4HCMult = k.streams(); h.DSV4HCMult != v4Streams {
		k.fail("hyper_connection.count", "%d, llama.cpp wants %d", h.DSV4HCMult, v4Streams)
	}
	h.DSV4HCSinkhornIters = k.Need("hyper_connection.sinkhorn_iterations")
	if n := h.DSV4HCSinkhornIters; n < 1 || n > maxSinkhorn {
		k.fail("hyper_connection.sinkhorn_iterations", "%d, want 1 to %d", n, maxSinkhorn)
	}
	if h.ExpertGating != model.GatingSqrtSoftplus {
		k.fail("expert_gating_func", "%d, want %d", h.ExpertGating, model.GatingSqrtSoftplus)
	}
}

// dsv4 are the inputs of a graph of DeepSeek-V4.
type dsv4 struct {
	pos           *graph.Tensor
	raw           *KVInput
	csa, hca, lid *compInput
	mtp           *ISWAInput // instead of the others
}

// compInput are the inputs of one kind of compressed keys; absent ones are nil.
type compInput struct {
	compressor
	cache                  *Cache
	pos                    *graph.Tensor // row of the position table for each token
	persistSrc, persistDst *graph.Tensor // tokens that stay in the state
	restoreSrc, restoreDst *graph.Tensor // rollback
	snapSrc, snapDst       *graph.Tensor
	read, write, writePos  *graph.Tensor // states of each block, its cell and its position
	mask, rotK             *graph.Tensor
}

// inpDSV4 returns the inputs of attention over a window and compressed keys, as
// a context reserves them. (build_inp_dsv4)
func (b *Builder) inpDSV4(pos *graph.Tensor) *dsv4 {
	mem, seqs := b.Mem, int64(b.U.NSeqs)
	mask := func(c *Cache, typ formats.DType) *graph.Tensor {
		return b.InputT("attn_inp_kq_mask", typ, int64(c.Size), int64(b.NTokens)/seqs, 1, seqs)
	}
	comp := func(c compressor, cache *Cache, typ formats.DType) *compInput {
		n := int64(b.NTokens)
		list := func(typ formats.DType, n int64) *graph.Tensor {
			if n == 0 {
				return nil
			}
			return b.InputT("dsv4_"+c.name, typ, n)
		}
		rows := int64(c.Rows * b.C.NSeqMax)
		persist, snaps := min(n, rows), int64(b.C.NRsSeq)*rows
		restore := int64(0)
		if snaps > 0 {
			restore = rows
		}
		blocks := n/int64(c.ratio) + seqs
		read := int64(c.ratio) * blocks
		if c.overlap {
			read *= 2
		}
		return &compInput{
			compressor: c, cache: cache,
			pos:        list(formats.I32, n),
			persistSrc: list(formats.I32, persist), persistDst: list(formats.I32, persist),
			restoreSrc: list(formats.I32, restore), restoreDst: list(formats.I32, restore),
			snapSrc: list(formats.I32, snaps), snapDst: list(formats.I32, snaps),
			read: list(formats.I32, read), write: list(formats.I64, blocks), writePos: list(formats.I32, blocks),
			mask: mask(cache, typ), rotK: b.rot(cache.RotK, "attn_inp_k_rot"),
		}
	}
	csa, hca, lid := compressors(b.HParams)
	raw := &KVInput{Cache: mem.SWA, KIdxs: b.KIdxs(), Mask: mask(mem.SWA, b.maskType()), RotK: b.rot(mem.SWA.RotK, "attn_inp_k_rot")}
	return &dsv4{
		pos: pos, raw: raw,
		csa: comp(csa, mem.CSA, b.maskType()), hca: comp(hca, mem.HCA, b.maskType()), lid: comp(lid, mem.Idx, formats.F16),
	}
}

// compState returns the rows of one kind of state of layer il, [width][rows].
func (b *Builder) compState(c *compressor, what byte, il int) *graph.Tensor {
	key := cacheKey{c.name, il, what}
	t := b.caches[key]
	rows, planes := int64(c.Rows), int64(b.C.NSeqMax*(1+b.C.NRsSeq))
	if t == nil {
		t = b.Leaf("state", formats.F32, int64(c.Width), rows, planes)
		t.Buf, t.Layer = b.place.Cache(il), int32(il)
		b.caches[key] = t
	}
	return b.View2D(t, t.Ne[0], rows*planes, t.Nb[1], 0)
}

// compNames are the weights of a compressor.
type compNames struct{ kv, gate, ape, norm string }

var (
	attnComp  = compNames{"attn_compressor_kv.weight", "attn_compressor_gate.weight", "attn_compressor_ape.weight", "attn_compressor_norm.weight"}
	indexComp = compNames{"indexer_compressor_kv.weight", "indexer_compressor_gate.weight", "indexer_compressor_ape.weight", "indexer_compressor_norm.weight"}
)

// compress appends the compressed keys of the blocks that the batch completes,
// head values wide, and the rolling state that remains.
func (b *Builder) compress(in *compInput, w compNames, cur *graph.Tensor, head int64, il int) {
	kv := b.MM(b.W(il, w.kv), cur, nil)
	score := b.MM(b.W(il, w.gate), cur, nil)
	score = b.Add(score, b.GetRows(b.W(il, w.ape), in.pos))

	restored := func(what byte) *graph.Tensor {
		t := b.compState(&in.compressor, what, il)
		if in.restoreSrc == nil {
			return t
		}
		return b.SetRows(b.compState(&in.compressor, what, il), b.GetRows(t, in.restoreSrc), in.restoreDst)
	}
	oldKV, oldScore := restored('k'), restored('s')
	source := func(old, cur *graph.Tensor) *graph.Tensor {
		now := b.View2D(old, old.Ne[0], int64(in.Rows*b.C.NSeqMax), old.Nb[1], 0)
		return b.Concat(now, cur, 1)
	}
	keys := b.compressed(in, source(oldKV, kv), source(oldScore, score), b.W(il, w.norm), head, il)
	if in.rotK != nil {
		keys = b.hadamard(keys, in.rotK)
	}
	b.StoreK(in.cache, keys, in.write, il)

	store := func(what byte, from, src, dst *graph.Tensor) {
		b.Expand(b.SetRows(b.compState(&in.compressor, what, il), b.GetRows(from, src), dst))
	}
	if in.snapSrc != nil {
		store('k', b.Concat(oldKV, kv, 1), in.snapSrc, in.snapDst)
		store('s', b.Concat(oldScore, score, 1), in.snapSrc, in.snapDst)
	}
	store('k', kv, in.persistSrc, in.persistDst)
	store('s', score, in.persistSrc, in.persistDst)
}

// compressed pools the states of each block, normed and rotated, [head][1]
// [blocks]. (build_overlap_compressed_kv_from_state,
// build_hca_compressed_kv_from_state)
func (b *Builder) compressed(in *compInput, kv, score, norm *graph.Tensor, head int64, il int) *graph.Tensor {
	ratio, blocks := int64(in.ratio), in.writePos.Ne[0]
	gather := func(t *graph.Tensor) *graph.Tensor {
		if !in.overlap {
			return b.Reshape3D(b.GetRows(t, in.read), head, ratio, blocks)
		}
		zero := b.Reshape2D(b.Scale(b.View1D(t, t.Ne[0], 0)), t.Ne[0], 1)
		rows := b.GetRows(b.Concat(t, zero, 1), in.read)
		n := ratio * blocks
		half := func(at uint64) *graph.Tensor {
			return b.Reshape3D(b.Cont(b.View2D(rows, head, n, rows.Nb[1], at)), head, ratio, blocks)
		}
		return b.Concat(half(0), half(uint64(n)*rows.Nb[1]+f32Row(head)), 1)
	}
	swap := func(t *graph.Tensor) *graph.Tensor { return b.Cont(b.Permute(t, 1, 0, 2, 3)) }
	comp := b.Mul(swap(gather(kv)), b.SoftMax(swap(gather(score))))
	comp = b.Norm(swap(b.SumRows(comp)), norm, nil, NormRMS, il)
	return b.ropeTail(comp, in.writePos, int(head))
}

// ropeTail rotates the end of heads that are head values wide.
func (b *Builder) ropeTail(t, pos *graph.Tensor, head int) *graph.Tensor {
	n := b.NRot(0)
	return b.RopeSetOffset(b.Rot(t, pos, nil, n), head-n)
}

// dsv4Attention appends the attention of layer il. (build_attention_impl)
func (b *Builder) dsv4Attention(in *dsv4, cur *graph.Tensor, il int) *graph.Tensor {
	head, heads, n := b.NEmbdHeadK(0), int64(b.NHead(0)), int64(b.NTokens)
	groups := int64(b.DSV4OGroupCount)
	if groups < 1 || heads%groups != 0 {
		b.Fail("%d heads in %d output groups", heads, groups)
	}
	qr := b.latentQ(cur, il)
	q := b.RMSNorm(b.Reshape3D(b.MM(b.W(il, "attn_q_b.weight"), qr, nil), int64(head), heads, n))
	q = b.ropeTail(q, in.pos, head)
	kv := b.Norm(b.MM(b.W(il, "attn_kv.weight"), cur, nil), b.W(il, "attn_kv_a_norm.weight"), nil, NormRMS, il)
	kv = b.ropeTail(b.Reshape3D(kv, int64(head), 1, n), in.pos, head)

	a := Attn{Q: q, K: kv, V: kv, Sinks: b.W(il, "attn_sinks.weight")}
	var out *graph.Tensor
	ratio := b.Layers[il].CompressRatio
	switch {
	case in.mtp != nil && ratio != 0:
		b.Fail("NextN block %d compresses its keys", il)
	case in.mtp != nil:
		out = b.AttendKISWA(in.mtp, a, il)
	case ratio == ratioCSA:
		b.compress(in.csa, attnComp, cur, int64(head), il)
		b.compress(in.lid, indexComp, cur, int64(b.IndexerHeadSize), il)
		topK := b.dsv4TopK(in, qr, cur, il)
		mask := b.chosen(in.csa.mask, topK, b.maskType())
		a.NKVMax = int(min(in.raw.Mask.Ne[0], int64(b.NSWA)) + topK.Ne[0])
		out = b.attendBeyond(in.raw, a, in.csa.cache, mask, il)
	case ratio == ratioHCA:
		b.compress(in.hca, attnComp, cur, int64(head), il)
		out = b.attendBeyond(in.raw, a, in.hca.cache, in.hca.mask, il)
	default:
		out = b.attendBeyond(in.raw, a, nil, nil, il)
	}

	out = b.RopeBack(b.Reshape3D(out, int64(head), heads, n), in.pos, nil, b.NRot(0), int(b.RopeType))
	out = b.RopeSetOffset(out, head-b.NRot(0))
	group := heads / groups * int64(head)
	out = b.Permute(b.Reshape3D(out, group, groups, n), 0, 2, 1, 3)
	rank := int64(b.DSV4OLoraRank)
	out = b.MulMat(b.As(b.need(il, "attn_output_a.weight"), group, rank, groups), out)
	out = b.Cont2D(b.Permute(out, 0, 2, 1, 3), rank*groups, n)
	return b.MM(b.W(il, "attn_output_b.weight"), out, nil)
}

// attendBeyond appends attention over the window and, unless it is nil, a
// cache of compressed keys under mask. (build_raw_attention,
// build_hca_attention, build_csa_lid_attention)
func (b *Builder) attendBeyond(in *KVInput, a Attn, comp *Cache, mask *graph.Tensor, il int) *graph.Tensor {
	q, kv := a.Q, a.K
	if in.RotK != nil {
		q, kv = b.hadamard(q, in.RotK), b.hadamard(kv, in.RotK)
	}
	b.Expand(q)
	b.Expand(kv)
	b.StoreK(in.Cache, kv, in.KIdxs, il)
	k := b.GetK(in.Cache, il)
	all := in.Mask
	if comp != nil {
		k = b.Concat(k, b.same(b.GetK(comp, il)), 2)
		all = b.Concat(all, mask, 0)
	}
	out := b.MHA(q, k, k, all, a, il)
	if in.RotK != nil {
		out = b.hadamard(out, in.RotK)
	}
	return out
}

// same views all of t.
func (b *Builder) same(t *graph.Tensor) *graph.Tensor {
	return b.View4D(t, t.Ne[0], t.Ne[1], t.Ne[2], t.Ne[3], t.Nb[1], t.Nb[2], t.Nb[3], 0)
}

// dsv4TopK appends the lightning indexer over compressed keys.
// (build_lid_top_k)
func (b *Builder) dsv4TopK(in *dsv4, qr, cur *graph.Tensor, il int) *graph.Tensor {
	q := b.MM(b.W(il, "indexer.attn_q_b.weight"), qr, nil)
	q = b.Reshape3D(q, int64(b.IndexerHeadSize), int64(b.IndexerNHead), int64(b.NTokens))
	q = b.ropeTail(q, in.pos, b.IndexerHeadSize)
	if in.lid.rotK == nil {
		b.Fail("the indexer's keys are not rotated")
	}
	q = b.hadamard(q, in.lid.rotK)
	weights := b.Scale(b.MM(b.W(il, "indexer.proj.weight"), cur, nil))
	k := b.same(b.GetK(in.lid.cache, il))
	return b.best(k, q, b.perStream(weights, k.Ne[3]), in.lid.mask, il)
}

func deepseek4(b *Builder) {
	hc, embd, n := int64(b.DSV4HCMult), int64(b.NEmbd), int64(b.NTokens)
	if b.U.Kind == GraphMTP {
		deepseek4MTP(b)
		return
	}
	inp := b.InpEmbd()
	pos := b.InpPos()
	outIDs := b.InpOutIDs()
	in := b.inpDSV4(pos)
	b.Expand(in.raw.Mask)
	inpL := b.Repeat4D(b.Reshape3D(inp, embd, 1, n), embd, hc, n, 1)
	for il := range b.NLayer() {
		inpL = b.dsv4Layer(in, inpL, il)
		inpL = b.CVec(inpL, il)
		b.Name(inpL, "l_last", il)
	}
	flat := b.GetRows(b.Reshape2D(inpL, embd*hc, n), outIDs)
	cur := b.hcHead(b.Reshape3D(flat, embd, hc, int64(b.U.NOutputs)))
	cur = b.Norm(cur, b.OutputNorm(), nil, NormRMS, -1)
	b.Embd(cur)
	b.Logits(b.MulMat(b.OutputW(), cur))
}

// dsv4Layer appends layer il over the residual streams.
func (b *Builder) dsv4Layer(in *dsv4, inpL *graph.Tensor, il int) *graph.Tensor {
	cur, post, comb := b.hcPre(inpL, "hc_attn", il)
	cur = b.dsv4Attention(in, b.LayerNorm(cur, "attn_norm", NormRMS, il), il)
	inpL = b.hcPost(cur, inpL, post, comb, il)

	cur, post, comb = b.hcPre(inpL, "hc_ffn", il)
	if in.mtp == nil {
		b.Expand(inpL)
		b.Expand(post)
		b.Expand(comb)
	}
	cur = b.LayerNorm(cur, "ffn_norm", NormRMS, il)
	m := b.routed(il, routing{})
	m.UpS, m.GateS, m.DownS = nil, nil, nil
	if il < b.DSV4HashLayerCount {
		m.ProbsB = nil
		m.Selected = b.GetRows(b.need(il, "ffn_gate_tid2eid.weight"), b.inpTokens)
	}
	shared := FFN{Up: b.W(il, "ffn_up_shexp.weight"), Gate: b.W(il, "ffn_gate_shexp.weight"), Down: b.W(il, "ffn_down_shexp.weight")}
	cur = b.Add(b.Experts(cur, m, il), b.FeedForward(cur, shared, il))
	return b.hcPost(cur, inpL, post, comb, il)
}

// deepseek4MTP drafts with the NextN block: a layer with a window.
func deepseek4MTP(b *Builder) {
	b.onlyNextN()
	il := b.NLayer()
	hc, embd, n := int64(b.DSV4HCMult), int64(b.NEmbd), int64(b.NTokens)
	if il < b.DSV4HashLayerCount {
		b.Fail("NextN block %d routes by hash", il)
	}
	ids := b.InputT("inp_tokens", formats.I32, n)
	hidden := b.InputT("mtp_h_input", formats.F32, int64(b.NEmbdOut()), n)
	table := b.W(il, "nextn.embed_tokens.weight")
	if table == nil {
		table = b.TokEmbd()
	}
	pos := b.InpPos()
	outIDs := b.InpOutIDs()
	in := &dsv4{pos: pos, mtp: b.InpKISWA()}
	h := b.LayerNorm(b.Reshape3D(hidden, embd, hc, n), "nextn.hnorm", NormRMS, il)
	e := b.LayerNorm(b.GetRows(table, ids), "nextn.enorm", NormRMS, il)
	e = b.Repeat4D(b.Reshape3D(e, embd, 1, n), embd, hc, n, 1)
	inpL := b.MM(b.W(il, "nextn.eh_proj.weight"), b.Concat(e, h, 0), b.W(il, "nextn.eh_proj.scale"))
	inpL = b.dsv4Layer(in, inpL, il)

	flat := b.GetRows(b.Reshape2D(inpL, embd*hc, n), outIDs)
	b.HNextN(flat)
	cur := b.hcHead(b.Reshape3D(flat, embd, hc, int64(b.U.NOutputs)))
	norm := b.W(il, "nextn.shared_head_norm.weight")
	if norm == nil {
		norm = b.OutputNorm()
	}
	cur = b.Norm(cur, norm, nil, NormRMS, -1)
	b.Embd(cur)
	head := b.W(il, "nextn.shared_head_head.weight")
	if head == nil {
		head = b.OutputW()
	}
	b.Logits(b.MulMat(head, cur))
}

// hyperHead asks for what sums the residual streams at the end.
func (w *wants) hyperHead() {
	n := w.DSV4HCMult
	w.need(-1, "output_hc_fn.weight", n*w.NEmbd, n)
	w.need(-1, "output_hc_base.weight", n)
	w.need(-1, "output_hc_scale.weight", 1)
}

// hyper asks for the two hyper-connections of layer il: mixes coefficients in
// so many kinds.
func (w *wants) hyper(flags, il, mixes, kinds int) {
	for _, part := range []string{"hc_attn", "hc_ffn"} {
		w.tensor(flags, il, part+"_fn.weight", w.DSV4HCMult*w.NEmbd, mixes)
		w.tensor(flags, il, part+"_base.weight", mixes)
		w.tensor(flags, il, part+"_scale.weight", kinds)
	}
}

// v4Block asks for what the layers of DeepSeek-V4 and of its drafts have.
func (w *wants) v4Block(flags, il int) {
	d, q, groups := w.NEmbdHeadK(0), w.NHead(0)*w.NEmbdHeadK(0), w.DSV4OGroupCount
	w.tensor(flags, il, "attn_norm.weight", w.NEmbd)
	w.tensor(flags, il, "attn_sinks.weight", w.NHead(0))
	w.latentQ(flags, il, q)
	w.tensor(flags, il, "attn_kv.weight", w.NEmbd, d)
	w.tensor(flags, il, "attn_kv_a_norm.weight", d)
	w.tensor(flags|reshaped, il, "attn_output_a.weight", quotient(q, groups), w.DSV4OLoraRank, groups)
	w.tensor(flags, il, "attn_output_b.weight", groups*w.DSV4OLoraRank, w.NEmbd)
	w.hyper(flags, il, (2+w.DSV4HCMult)*w.DSV4HCMult, 3)
	w.tensor(flags, il, "ffn_norm.weight", w.NEmbd)
	w.experts(flags, il, w.NFFExp(0))
	w.ffn(flags, il, "_shexp", w.NFFExp(0)*w.NExpertShared)
}

func (w *wants) deepseek4() {
	w.output(0, w.nVocab)
	w.hyperHead()
	d := w.NEmbdHeadK(0)
	w.blocks(func(flags, il int) {
		w.v4Block(flags, il)
		ratio, n := w.Layers[il].CompressRatio, d
		if ratio == ratioCSA {
			n = 2 * d // its blocks overlap
		}
		if ratio != 0 {
			w.tensor(flags, il, "attn_compressor_kv.weight", w.NEmbd, n)
			w.tensor(flags, il, "attn_compressor_gate.weight", w.NEmbd, n)
			w.tensor(flags, il, "attn_compressor_ape.weight", n, ratio)
			w.tensor(flags, il, "attn_compressor_norm.weight", d)
		}
		if ratio == ratioCSA {
			size := w.IndexerHeadSize
			w.tensor(flags, il, "indexer.proj.weight", w.NEmbd, w.IndexerNHead)
			w.tensor(flags, il, "indexer.attn_q_b.weight", w.NLoraQ, w.IndexerNHead*size)
			w.tensor(flags, il, "indexer_compressor_kv.weight", w.NEmbd, 2*size)
			w.tensor(flags, il, "indexer_compressor_gate.weight", w.NEmbd, 2*size)
			w.tensor(flags, il, "indexer_compressor_ape.weight", 2*size, ratio)
			w.tensor(flags, il, "indexer_compressor_norm.weight", size)
		}
		if il < w.DSV4HashLayerCount {
			w.tensor(flags, il, "ffn_gate_tid2eid.weight", w.NExpertUsed(0), w.nVocab)
		} else {
			w.tensor(flags, il, "exp_probs_b.bias", w.NExpert)
		}
		w.tensor(flags|optional, il, "exp_probs_b_vl.bias", w.NExpert)
		if il >= w.NLayer() {
			w.nextN(flags, flags, il)
		}
	})
}
