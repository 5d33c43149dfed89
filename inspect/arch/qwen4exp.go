package arch

import (
	"math"

	"weigh/formats"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// Qwen4: gated delta nets and gated attention over several residual streams;
// an indexer picks the blocks of tokens to attend to, and hashed n-grams have
// embeddings of their own.
var _ = register(&Arch{
	Name: "qwen4exp", Rope: model.RopeIMRoPE, Hybrid: true, Rollback: true, Budget: deltaBudget,
	Load: loadQwen4, Memory: HybridIdxMemory, Build: qwen4, Tensors: (*wants).qwen4,
	Needs:  "attention.layer_norm_rms_epsilon ssm.conv_kernel ssm.inner_size ssm.state_size ssm.time_step_rank ssm.group_count rope.dimension_sections hyper_connection.count hyper_connection.low_rank attention.indexer.head_count attention.indexer.key_length attention.indexer.top_k",
	Source: "src/models/qwen4exp.cpp@v0.5.0",
})

// Bounds of counts that the graph loops over.
const (
	maxRatio      = 1024
	maxPLEKernel  = 256
	maxPLENgram   = 8  // LLAMA_MAX_PLE_NGRAM
	maxPLEHeads   = 64 // LLAMA_MAX_PLE_HEADS
	maxIndexHeads = 1024
)

func loadQwen4(k *Keys, h *model.HParams) {
	loadExpertFF(k, h)
	loadSections(k, h)
	loadSSM(k, h, true)
	h.DSV4HCMult = k.streams()
	if h.DSV4HCMult == 1 {
		k.fail("hyper_connection.count", "1, want more than one")
	}
	h.HCLowRank = k.Need("hyper_connection.low_rank")
	h.NEmbdOutImpl = h.DSV4HCMult * h.NEmbd
	loadIndexer(k, h)
	if n := h.IndexerNHead; n < 1 || n > maxIndexHeads || h.IndexerHeadSize < 1 || h.IndexerTopK < 1 {
		k.fail("attention.indexer.head_count", "%d heads of %d values, the best %d", n, h.IndexerHeadSize, h.IndexerTopK)
	}
	for il, r := range k.PerLayer("attention.compress_ratios", h.NLayerAll, 0) {
		if r < 0 || r > maxRatio {
			k.fail("attention.compress_ratios", "%d in layer %d, want 0 to %d", r, il, maxRatio)
		}
		h.Layers[il].CompressRatio = r
	}
	recurrentInterval(k, h, 4)
	if ple := k.Ints("ple.layers"); len(ple) > 0 {
		loadPLE(k, h, ple)
	}
}

// loadPLE reads the widths of n-gram embeddings and the one layer that has
// them.
func loadPLE(k *Keys, h *model.HParams, layers []int) {
	if len(layers) != 1 || layers[0] < 0 || layers[0] >= h.NLayerAll || !h.IsRecr(layers[0]) {
		k.fail("ple.layers", "want one layer, of linear attention")
		return
	}
	h.Layers[layers[0]].PLE = true
	h.PLENgramSize = k.Need("ple.ngram_size")
	h.PLEHeadsPerNgram = k.Need("ple.heads_per_ngram")
	h.PLEConvKernel = k.Need("ple.conv_kernel")
	h.NEmbdPerLayer = k.Need("embedding_length_per_layer_input")
	h.PLEHeadDim = h.NEmbdPerLayer
	if h.PLENgramSize < 2 || h.PLENgramSize > maxPLENgram {
		k.fail("ple.ngram_size", "%d, want 2 to %d", h.PLENgramSize, maxPLENgram)
	}
	if h.PLEConvKernel < 1 || h.PLEConvKernel > maxPLEKernel {
		k.fail("ple.conv_kernel", "%d, want 1 to %d", h.PLEConvKernel, maxPLEKernel)
	}
	h.PLENHeads = (h.PLENgramSize - 1) * h.PLEHeadsPerNgram
	if h.PLENHeads < 1 || h.PLENHeads > maxPLEHeads {
		k.fail("ple.heads_per_ngram", "%d heads in all, want 1 to %d", h.PLENHeads, maxPLEHeads)
	}
	if !k.Has("ple.eos_token_id") {
		k.fail("ple.eos_token_id", "missing: llama.cpp wants it with ple.layers")
	}
	loadPLEHash(k, h)
}

// loadPLEHash rejects n-grams' hashes that llama.cpp rejects. A model that is
// not converted yet has none.
func loadPLEHash(k *Keys, h *model.HParams) {
	const times, offsets, sizes = "ple.layer_multipliers", "ple.head_offsets", "ple.head_vocab_sizes"
	if !k.Has(times) && !k.Has(offsets) && !k.Has(sizes) {
		return
	}
	atLeast := func(key string, want int) {
		if n := k.arrayLen(k.arch + "." + key); n < want {
			k.fail(key, "%d values, want %d", n, want)
		}
	}
	atLeast(times, h.PLENgramSize)
	atLeast(offsets, h.PLENHeads)
	atLeast(sizes, h.PLENHeads)
	at, n := k.Ints(offsets), k.Ints(sizes)
	for i := range min(len(at), len(n), h.PLENHeads) {
		if at[i] < 0 || n[i] < 1 || at[i]+n[i] > math.MaxInt32 {
			k.fail(sizes, "%d rows from %d on", n[i], at[i])
			return
		}
	}
}

func qwen4(b *Builder) {
	if b.U.Kind == GraphMTP {
		b.Fail("llama.cpp builds no MTP graph for this architecture")
	}
	embd, hc, n := int64(b.NEmbd), int64(b.DSV4HCMult), int64(b.NTokens)
	inpL := b.InpEmbd()
	in := b.InpHybrid()
	pos := b.InpPos()
	outIDs := b.InpOutIDs()
	var ngrams *graph.Tensor
	if b.PLENHeads > 0 {
		rows := b.InputT("ple_rows", formats.I32, int64(b.PLENHeads)*n)
		ngrams = b.GetRows(b.T("per_layer_token_embd.weight"), rows)
		ngrams = b.Reshape2D(ngrams, int64(b.PLEHeadDim*b.PLENHeads), n)
		b.Expand(ngrams)
	}
	q := &qsa{kv: in.Attn, pos: pos, byRatio: map[int]*qsaInput{}}
	res := b.Repeat4D(b.Reshape3D(inpL, embd, 1, n), embd, hc, n, 1)
	for il := range b.NLayer() {
		if b.Layers[il].PLE {
			res = b.ple(in.RS, ngrams, res, il)
		}
		cur, inject := b.lowRankPre(res, "hc_attn", il)
		b.Expand(cur)
		if b.IsRecr(il) {
			cur = b.qwen4Linear(in.RS, cur, il)
		} else {
			cur = b.qsaAttention(q, cur, il)
		}
		if il == b.NLayer()-1 {
			cur, inject = b.GetRows(cur, outIDs), b.GetRows(inject, outIDs)
			res = b.GetRows(b.Reshape2D(res, embd*hc, res.Ne[2]), outIDs)
			res = b.Reshape3D(res, embd, hc, res.Ne[1])
		}
		res = b.lowRankPost(res, cur, inject, il)
		cur, inject = b.lowRankPre(res, "hc_ffn", il)
		res = b.lowRankPost(res, b.gatedSharedExperts(cur, il), inject, il)
		b.Name(res, "l_last", il)
	}
	cur := b.lowRankHead(res)
	b.Embd(cur)
	b.Logits(b.MM(b.OutputW(), cur, b.T("output.scale")))
}

// lowRankPre reduces the streams x to a block's input by a gate of low rank,
// and returns the weights that spread its output again. (build_hc_mix)
func (b *Builder) lowRankPre(x *graph.Tensor, name string, il int) (cur, inject *graph.Tensor) {
	w := func(what string) *graph.Tensor { return b.need(il, name+"_"+what+".weight") }
	xn, gate := b.lowRankGate(x, w("norm"), w("down"), w("up"))
	if b.C.NoFusedHCPre {
		cur = b.gatedMean(xn, gate)
	} else {
		split := func(t *graph.Tensor) *graph.Tensor { return b.Reshape3D(t, x.Ne[0], x.Ne[1], x.Ne[2]) }
		cur = b.DSV4HCPreGated(split(xn), split(gate))
		b.Fuse(cur, FusedHCPre, il)
	}
	return cur, b.MM(w("inject"), xn, nil)
}

// lowRankHead reduces the streams to the output's normed input.
func (b *Builder) lowRankHead(x *graph.Tensor) *graph.Tensor {
	norm := b.T("output_hc_norm.weight")
	if norm == nil {
		b.Fail("output_hc_norm.weight: missing")
	}
	return b.gatedMean(b.lowRankGate(x, norm, b.T("output_hc_down.weight"), b.T("output_hc_up.weight")))
}

// lowRankGate returns the normed streams and their gates, [NEmbd·streams]
// [tokens].
func (b *Builder) lowRankGate(x, norm, down, up *graph.Tensor) (xn, gate *graph.Tensor) {
	xn = b.Mul(b.RMSNorm(x), b.As(norm, x.Ne[0], x.Ne[1]))
	xn = b.Reshape2D(xn, x.Ne[0]*x.Ne[1], x.Ne[2])
	return xn, b.MM(up, b.SiLU(b.Scale(b.MM(down, xn, nil))), nil)
}

// gatedMean averages the gated streams.
func (b *Builder) gatedMean(xn, gate *graph.Tensor) *graph.Tensor {
	embd, hc := int64(b.NEmbd), int64(b.DSV4HCMult)
	all := b.Reshape3D(b.Mul(xn, b.Sigmoid(gate)), embd, hc, xn.Ne[1])
	stream := func(i int64) *graph.Tensor {
		return b.View2D(all, embd, xn.Ne[1], f32Row(embd)*uint64(hc), f32Row(embd*i))
	}
	sum := b.Cont(stream(0))
	for i := int64(1); i < hc; i++ {
		sum = b.Add(sum, stream(i))
	}
	return b.Scale(sum)
}

// lowRankPost adds a block's output to each stream, weighted by inject.
// (build_hc_combine)
func (b *Builder) lowRankPost(residual, out, inject *graph.Tensor, il int) *graph.Tensor {
	w := b.Scale(b.Sigmoid(b.Scale(inject)))
	if !b.C.NoFusedHCPost {
		cur := b.DSV4HCPost(out, residual, w, nil)
		b.Fuse(cur, FusedHCPost, il)
		return cur
	}
	embd, hc, n := residual.Ne[0], residual.Ne[1], residual.Ne[2]
	w = b.Reshape3D(w, 1, hc, n)
	out = b.Repeat4D(b.Reshape3D(out, embd, 1, n), embd, hc, n, 1)
	return b.Add(residual, b.Mul(out, w))
}

// qwen4Linear is the linear attention of Qwen3.5 with another output gate.
func (b *Builder) qwen4Linear(in *RSInput, cur *graph.Tensor, il int) *graph.Tensor {
	h := b.deltaHeads()
	qkv, z := b.qkvz(cur, h, 0, il)
	beta := b.MM(b.W(il, "ssm_beta.weight"), cur, b.W(il, "ssm_beta.scale"))
	beta = b.Sigmoid(b.Reshape4D(beta, 1, h.nv, b.seqTokens(), b.seqs()))
	alpha := b.perSeq(b.MM(b.W(il, "ssm_alpha.weight"), cur, b.W(il, "ssm_alpha.scale")))
	conv := func(qkv *graph.Tensor, kernel, channels int64) *graph.Tensor {
		return b.convStateAt(in, b.StateR(il), qkv, kernel-1, channels)
	}
	return b.gatedDelta(in, qkv, z, beta, alpha, h, deltaWay{conv: conv, gate: b.Sigmoid}, il)
}

// convStateAt is ConvState for a rolling state all of any kind, cols positions
// long. (build_conv_state_at)
func (b *Builder) convStateAt(in *RSInput, all, x *graph.Tensor, cols, channels int64) *graph.Tensor {
	rows := b.RS(in, all, int(all.Ne[0]), b.U.NSeqs, nil)
	state := b.Reshape3D(rows, cols, channels, b.seqs())
	input := b.Concat(state, b.Transpose(x), 0)
	for slot := range int64(b.C.NRsSeq) + 1 {
		first := max(0, input.Ne[0]-cols-slot)
		tail := b.View3D(input, cols, channels, b.seqs(), input.Nb[1], input.Nb[2], f32Row(first))
		at := uint64(slot) * uint64(in.State.Cells) * f32Row(all.Ne[0])
		b.Expand(b.Cpy(b.Cont(tail), b.View2D(all, cols*channels, b.seqs(), all.Nb[1], at)))
	}
	return input
}

// qsa are the inputs of attention to blocks of tokens, those of a block length
// shared by its layers.
type qsa struct {
	kv      *KVInput
	pos     *graph.Tensor
	byRatio map[int]*qsaInput
}

type qsaInput struct{ idxs, cellBlocks, blockCells, blockPos, bias *graph.Tensor }

// qsaAttention appends gated attention to the blocks that the layer's indexer
// ranks highest, or to all where it has none.
func (b *Builder) qsaAttention(in *qsa, cur *graph.Tensor, il int) *graph.Tensor {
	d, heads, n := int64(b.NEmbdHeadV(0)), int64(b.NHead(0)), int64(b.NTokens)
	var best *graph.Tensor
	if b.Layers[il].CompressRatio > 0 {
		best = b.qsaTopK(in, cur, il)
	}
	project := func(what string) *graph.Tensor {
		return b.MM(b.W(il, "attn_"+what+".weight"), cur, b.W(il, "attn_"+what+".scale"))
	}
	full := project("q")
	half := func(at int64) *graph.Tensor {
		return b.View3D(full, d, heads, n, f32Row(2*d), f32Row(2*d*heads), f32Row(at))
	}
	norm := func(t *graph.Tensor, name string) *graph.Tensor {
		return b.Rot(b.Norm(t, b.W(il, name), nil, NormRMS, il), in.pos, nil, b.NRot(0))
	}
	split := func(t *graph.Tensor) *graph.Tensor { return b.Reshape3D(t, d, int64(b.NHeadKV(0)), n) }
	a := Attn{Q: norm(half(0), "attn_q_norm.weight"), K: norm(split(project("k")), "attn_k_norm.weight"), V: split(project("v"))}
	gate := b.Sigmoid(b.Cont2D(half(d), d*heads, n))
	if best != nil {
		cur = b.attendQSA(in.kv, a, best, il)
	} else {
		cur = b.AttendKV(in.kv, a, il)
	}
	return b.MM(b.W(il, "attn_output.weight"), b.Mul(cur, gate), b.W(il, "attn_output.scale"))
}

// attendQSA is AttendKV with all but the keys of topK masked. (build_attn_qsa)
func (b *Builder) attendQSA(in *KVInput, a Attn, topK *graph.Tensor, il int) *graph.Tensor {
	if in.RotK != nil {
		a.Q, a.K = b.hadamard(a.Q, in.RotK), b.hadamard(a.K, in.RotK)
	}
	if in.RotV != nil {
		a.V = b.hadamard(a.V, in.RotV)
	}
	b.Expand(a.Q)
	b.Expand(a.V)
	b.Expand(a.K)
	b.StoreK(in.Cache, a.K, in.KIdxs, il)
	b.StoreV(in.Cache, a.V, in.VIdxs, il)
	a.NKVMax = int(topK.Ne[0])
	mask := b.chosen(in.Mask, topK, formats.F32)
	cur := b.MHA(a.Q, b.GetK(in.Cache, il), b.GetV(in.Cache, il), mask, a, il)
	if in.RotV != nil {
		cur = b.hadamard(cur, in.RotV)
	}
	return cur
}

// qsaTopK appends the indexer of layer il: blocks are ranked by their mean key,
// and all tokens of the best ones are chosen. (build_qsa_top_k)
func (b *Builder) qsaTopK(in *qsa, cur *graph.Tensor, il int) *graph.Tensor {
	dim, heads, n := int64(b.IndexerHeadSize), int64(b.IndexerNHead), int64(b.NTokens)
	ratio, cells, s := int64(b.Layers[il].CompressRatio), int64(b.Mem.Idx.Size), b.streams()
	blocks, tokens := (cells+ratio-1)/ratio, n/s
	byBlock := b.C.CausalAttn && !b.UseAlibi
	inp := in.byRatio[int(ratio)]
	if inp == nil {
		width := cells
		if byBlock {
			width = blocks
		}
		inp = &qsaInput{
			idxs:       b.KIdxs(),
			cellBlocks: b.InputT("qsa_cell_blk", formats.I32, cells, s),
			blockCells: b.InputT("qsa_blk_cells", formats.I32, ratio*blocks, s),
			blockPos:   b.InputT("qsa_blk_pos", formats.I32, 4*blocks*s),
			bias:       b.InputT("qsa_bias", formats.F32, width, tokens, s),
		}
		in.byRatio[int(ratio)] = inp
	}
	raw := b.Reshape3D(b.MM(b.W(il, "indexer.k_proj.weight"), cur, nil), dim, 1, n)
	b.StoreK(b.Mem.Idx, raw, inp.idxs, il)
	all := b.GetK(b.Mem.Idx, il)
	all = b.View3D(all, dim, cells, s, all.Nb[2], all.Nb[3], 0)
	members := b.Reshape4D(b.GetRows(all, inp.blockCells), dim, ratio, blocks, s)
	var pooled *graph.Tensor
	for i := range uint64(ratio) {
		one := b.Cont(b.View3D(members, dim, blocks, s, members.Nb[2], members.Nb[3], i*members.Nb[1]))
		if pooled != nil {
			one = b.Add(pooled, one)
		}
		pooled = one
	}
	pooled = b.Reshape3D(b.Scale(pooled), dim, blocks*s, 1)
	pooled = b.Norm(pooled, b.W(il, "indexer.k_norm.weight"), nil, NormRMS, il)
	pooled = b.Rot(b.Reshape3D(pooled, dim, 1, blocks*s), inp.blockPos, nil, b.NRot(0))
	pooled = b.Reshape3D(pooled, dim, blocks, s)

	q := b.Reshape3D(b.MM(b.W(il, "indexer.q_proj.weight"), cur, nil), dim, heads, n)
	q = b.Norm(q, b.W(il, "indexer.q_norm.weight"), nil, NormRMS, il)
	q = b.Rot(q, in.pos, nil, b.NRot(0))
	score := b.MulMat(pooled, b.Reshape3D(q, dim, heads*tokens, s))
	score = b.ReLU(b.Reshape4D(score, blocks, heads, tokens, s))
	var sum *graph.Tensor
	for h := range uint64(heads) {
		one := b.View3D(score, blocks, tokens, s, score.Nb[2], score.Nb[3], h*score.Nb[1])
		if sum == nil {
			sum = b.Cont(one)
		} else {
			sum = b.Add(sum, one)
		}
	}
	bias := inp.bias
	if byBlock {
		sum = b.Add(sum, bias)
		bias = in.kv.Mask
		if bias.Type != formats.F32 {
			bias = b.Cast(bias, formats.F32)
		}
		bias = b.Reshape3D(bias, cells, tokens, s)
	}
	swap := func(t *graph.Tensor) *graph.Tensor { return b.Cont(b.Permute(t, 1, 0, 2, 3)) }
	each := b.Add(swap(b.GetRows(swap(sum), inp.cellBlocks)), bias)
	width := min(cells, int64(b.IndexerTopK)+ratio-1)
	return b.Reshape4D(b.Cont(b.TopK(each, width)), width, tokens, 1, s)
}

// ple adds the embeddings of the n-grams that end in each token, gated and
// convolved, to the streams hidden. (build_ple)
func (b *Builder) ple(in *RSInput, ngrams, hidden *graph.Tensor, il int) *graph.Tensor {
	embd, hc, n := int64(b.NEmbd), int64(b.DSV4HCMult), int64(b.NTokens)
	norm := func(t *graph.Tensor, name string) *graph.Tensor {
		return b.Mul(b.RMSNorm(b.Reshape3D(t, embd, hc, n)), b.As(b.need(il, name), embd, hc))
	}
	key := norm(b.MM(b.W(il, "ple_key.weight"), ngrams, nil), "ple_norm_key.weight")
	value := b.MM(b.W(il, "ple_value.weight"), ngrams, nil)
	query := norm(hidden, "ple_norm_query.weight")
	s := b.Scale(b.SumRows(b.Mul(key, query)))
	gate := b.Sigmoid(b.Mul(b.Sgn(s), b.Sqrt(b.Clamp(b.Abs(s)))))
	gated := b.Mul(b.Repeat4D(b.Reshape3D(value, embd, 1, n), embd, hc, n, 1), gate)
	normed := norm(b.Reshape2D(gated, embd*hc, n), "ple_norm_conv.weight")
	normed = b.Reshape2D(normed, embd*hc, n)

	kernel, step := int64(b.PLEConvKernel), int64(b.PLENgramSize)
	input := b.convStateAt(in, b.StateP(il), b.perSeq(normed), (kernel-1)*step, embd*hc)
	taps := b.need(il, "ple_conv1d.weight")
	var sum *graph.Tensor
	for k := range kernel {
		shifted := b.View3D(input, b.seqTokens(), embd*hc, b.seqs(), input.Nb[1], input.Nb[2], f32Row(k*step))
		shifted = b.Cont(b.Transpose(shifted))
		tap := b.Cont(b.View2D(taps, 1, embd*hc, taps.Nb[1], uint64(k)*taps.Nb[0]))
		tap = b.Reshape1D(tap, embd*hc)
		if tap.Type != formats.F32 {
			tap = b.Cast(tap, formats.F32)
		}
		term := b.Mul(shifted, tap)
		if sum != nil {
			term = b.Add(sum, term)
		}
		sum = term
	}
	out := b.Reshape3D(b.Cont(b.SiLU(sum)), embd, hc, n)
	return b.Add(hidden, b.Add(gated, out))
}

func (w *wants) qwen4() {
	hc := w.DSV4HCMult
	all, low := hc*w.NEmbd, w.HCLowRank
	w.need(-1, "token_embd.weight", w.NEmbd, w.nVocab)
	w.tensor(reshaped, -1, "output_hc_norm.weight", w.NEmbd, hc)
	w.need(-1, "output_hc_down.weight", all, low)
	w.need(-1, "output_hc_up.weight", low, all)
	w.may(-1, "output.weight", w.NEmbd, w.nVocab)
	if w.PLENHeads > 0 {
		w.need(-1, "per_layer_token_embd.weight", w.PLEHeadDim, w.pleRows())
	}
	for il := range w.NLayer() {
		for _, block := range []string{"hc_attn", "hc_ffn"} {
			w.tensor(reshaped, il, block+"_norm.weight", w.NEmbd, hc)
			w.need(il, block+"_down.weight", all, low)
			w.need(il, block+"_up.weight", low, all)
			w.need(il, block+"_inject.weight", all, hc)
		}
		if w.IsRecr(il) {
			w.delta(0, 0, il)
			w.qwen35Steps(0, il)
		} else {
			w.gatedAttention(0, il)
			w.need(il, "indexer.q_proj.weight", w.NEmbd, w.IndexerNHead*w.IndexerHeadSize)
			w.need(il, "indexer.k_proj.weight", w.NEmbd, w.IndexerHeadSize)
			w.need(il, "indexer.q_norm.weight", w.IndexerHeadSize)
			w.need(il, "indexer.k_norm.weight", w.IndexerHeadSize)
		}
		if w.Layers[il].PLE {
			w.need(il, "ple_key.weight", w.NEmbd, all)
			w.need(il, "ple_value.weight", w.NEmbd, w.NEmbd)
			for _, of := range []string{"key", "query", "conv"} {
				w.tensor(reshaped, il, "ple_norm_"+of+".weight", w.NEmbd, hc)
			}
			w.need(il, "ple_conv1d.weight", w.PLEConvKernel, all)
		}
		w.gatedShared(0, il, w.NFF(0))
	}
}

// pleRows returns how many rows the table of n-grams has: those the file has, if
// they are enough for all heads.
func (w *wants) pleRows() (rows int) {
	at, n := w.Ints("ple.head_offsets"), w.Ints("ple.head_vocab_sizes")
	for h := range min(len(at), len(n), w.PLENHeads) {
		rows = max(rows, at[h]+n[h])
	}
	if i := w.index.Global("per_layer_token_embd.weight"); i >= 0 {
		if shape := w.tensors[i].Shape; len(shape) > 1 {
			rows = max(rows, int(min(shape[1], math.MaxInt)))
		}
	}
	return rows
}
