package arch

import (
	"weigh/formats"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// MiniMax-M3: attention to the blocks of positions that an indexer ranks
// highest, one choice for each group of heads.
var _ = register(&Arch{
	Name: "minimax-m3", Rope: model.RopeNeoX, Budget: deltaBudget,
	Load: loadMiniMaxM3, Memory: MSAMemory, Build: miniMaxM3,
	Tensors: (*wants).miniMaxM3,
	Needs:   "attention.layer_norm_rms_epsilon expert_feed_forward_length expert_shared_count expert_gating_func attention.indexer.head_count attention.indexer.key_length attention.indexer.top_k attention.indexer.block_size attention.indexer.local_blocks",
	Source:  "src/models/minimax-m3.cpp@v0.5.0",
})

func loadMiniMaxM3(k *Keys, h *model.HParams) {
	loadMoE(model.GatingNone)(k, h)
	loadIndexer(k, h)
	h.IndexerBlockSize = k.Need("attention.indexer.block_size")
	h.IndexerLocalBlocks = k.Need("attention.indexer.local_blocks")
	if h.IndexerBlockSize < 1 {
		k.fail("attention.indexer.block_size", "%d, want at least 1", h.IndexerBlockSize)
	}
}

// msa are the inputs of block-sparse attention, nil where it is not possible:
// without flash attention, or with several sequences in one stream. Positions
// are those of an empty cache, as a context reserves them.
type msa struct {
	kv                *KVInput
	idxs              *graph.Tensor // cells that the indexer's keys are stored to
	bias              *graph.Tensor // [blocks][tokens], ranks nearby blocks first
	posMask           *graph.Tensor // [positions][tokens]
	slots, slotValues *graph.Tensor // [positions][streams], cells of positions
	cellBlocks, maskF *graph.Tensor // blocks of cells; the mask in F32
	blocks, pos       int64
}

func (b *Builder) inpMSA() *msa {
	in := &msa{kv: b.InpKV()}
	if !b.C.FlashAttn || b.C.NSeqMax > 1 && b.C.KVUnified {
		return in
	}
	block, n, s := int64(b.IndexerBlockSize), int64(b.NTokens), b.streams()
	in.idxs = b.KIdxs()
	in.blocks = (256 + block - 1) / block
	in.pos = in.blocks * block
	in.bias = b.InputT("msa_bias", formats.F32, in.blocks, n)
	in.posMask = b.InputT("msa_pos_mask", formats.F32, in.pos, n)
	in.slots = b.InputT("msa_pos_slot", formats.I32, in.pos, s)
	if n == s {
		in.slotValues = b.InputT("msa_pos_slot", formats.F32, in.pos, s)
		return in
	}
	in.cellBlocks = b.InputT("msa_cell_blk", formats.I32, in.kv.Mask.Ne[0], s)
	in.maskF = b.Cast(in.kv.Mask, formats.F32)
	return in
}

func miniMaxM3(b *Builder) {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	in := b.inpMSA()
	outIDs := b.InpOutIDs()
	cur := b.trunk(inpL, outIDs, func(cur *graph.Tensor, il int) *graph.Tensor {
		q, k, v := b.QKV(cur, b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(0), il)
		norm := func(t *graph.Tensor, name string) *graph.Tensor {
			return b.Rot(b.Norm(t, b.W(il, name+".weight"), nil, NormRMS, il), pos, nil, b.NRot(0))
		}
		a := Attn{Q: norm(q, "attn_q_norm"), K: norm(k, "attn_k_norm"), V: v}.withOut(b, il)
		if in.idxs == nil || il < b.NLayerDenseLead {
			return b.AttendKV(in.kv, a, il)
		}
		return b.attendMSA(in, a, cur, pos, il)
	}, func(cur *graph.Tensor, il int) *graph.Tensor {
		dense := func(suffix string) *graph.Tensor {
			return b.FeedForward(cur, FFN{
				Up: b.W(il, "ffn_up"+suffix+".weight"), Gate: b.W(il, "ffn_gate"+suffix+".weight"),
				Down: b.W(il, "ffn_down"+suffix+".weight"), Act: ActSwiGLUOAI,
			}, il)
		}
		if il < b.NLayerDenseLead {
			return dense("")
		}
		m := b.routed(il, routing{})
		m.Act, m.UpS, m.GateS, m.DownS = ActSwiGLUOAI, nil, nil, nil
		return b.Add(b.Experts(cur, m, il), dense("_shexp"))
	}, nil)
	cur = b.Norm(cur, b.OutputNorm(), nil, NormRMS, -1)
	b.Embd(cur)
	b.Logits(b.MM(b.OutputW(), cur, b.T("output.scale")))
}

// attendMSA appends attention to the best blocks; cur is the layer's normed
// input.
func (b *Builder) attendMSA(in *msa, a Attn, cur, pos *graph.Tensor, il int) *graph.Tensor {
	dim, heads, n := int64(b.IndexerHeadSize), int64(b.IndexerNHead), int64(b.NTokens)
	index := func(what string, heads int64) *graph.Tensor {
		t := b.Reshape3D(b.MM(b.W(il, "indexer."+what+"_proj.weight"), cur, nil), dim, heads, n)
		t = b.Norm(t, b.W(il, "indexer."+what+"_norm.weight"), nil, NormRMS, il)
		return b.Rot(t, pos, nil, b.NRot(0))
	}
	iq, ik := index("q", heads), index("k", 1)
	b.StoreK(b.Mem.Idx, ik, in.idxs, il)
	keys := b.GetK(b.Mem.Idx, il)

	if in.kv.RotK != nil {
		a.Q, a.K = b.hadamard(a.Q, in.kv.RotK), b.hadamard(a.K, in.kv.RotK)
	}
	if in.kv.RotV != nil {
		a.V = b.hadamard(a.V, in.kv.RotV)
	}
	b.Expand(a.Q)
	b.Expand(a.K)
	b.Expand(a.V)
	b.StoreK(in.kv.Cache, a.K, in.kv.KIdxs, il)
	b.StoreV(in.kv.Cache, a.V, in.kv.VIdxs, il)
	k, v := b.GetK(in.kv.Cache, il), b.GetV(in.kv.Cache, il)
	if k.Ne[1] != heads || heads < 1 {
		b.Fail("%d heads of the indexer for %d groups of heads", heads, k.Ne[1])
	}

	var out *graph.Tensor
	if in.slotValues != nil {
		out = b.gatherBlocks(in, a.Q, k, v, iq, keys)
	} else {
		for s := range uint64(k.Ne[3]) {
			one := b.maskBlocks(in, a.Q, k, v, iq, keys, s)
			if out != nil {
				one = b.Concat(out, one, 1)
			}
			out = one
		}
	}
	if in.kv.RotV != nil {
		out = b.hadamard(out, in.kv.RotV)
	}
	return b.project(out, a)
}

// bestBlocks ranks blocks by their best position's score.
func (b *Builder) bestBlocks(in *msa, score, bias *graph.Tensor) *graph.Tensor {
	const poolMax = 0
	block := b.IndexerBlockSize
	best := b.Pool2D(score, poolMax, block, 1, block, 1, 0, 0)
	return b.TopK(b.Add(best, bias), min(int64(b.IndexerTopK), in.blocks))
}

// gatherBlocks attends, for one token of each stream, to the cells of the best
// blocks.
func (b *Builder) gatherBlocks(in *msa, q, k, v, iq, keys *graph.Tensor) *graph.Tensor {
	s, cells, groups, d := k.Ne[3], k.Ne[2], k.Ne[1], k.Ne[0]
	block, dim := int64(b.IndexerBlockSize), int64(b.IndexerHeadSize)
	byPos := b.GetRows(b.View3D(keys, dim, cells, s, keys.Nb[2], keys.Nb[3], 0), in.slots)
	score := b.MulMat(b.Reshape4D(byPos, dim, in.pos, 1, s), b.Reshape4D(iq, dim, groups, 1, s))
	score = b.AddInplace(score, b.Reshape4D(in.posMask, in.pos, 1, 1, s))
	best := b.bestBlocks(in, score, b.Reshape4D(in.bias, in.blocks, 1, 1, s))
	n := best.Ne[0]

	start := b.Reshape4D(b.Scale(b.Cast(best, formats.F32)), 1, n, groups, s)
	at := b.Add(b.Repeat4D(start, block, n, groups, s), b.Reshape3D(b.Arange(0, float32(block), 1), block, 1, 1))
	at = b.Cast(b.Reshape2D(at, block*n*groups, s), formats.I32)
	cell := b.GetRows(b.Reshape3D(in.slotValues, 1, in.pos, s), at)
	cell = b.Reshape4D(cell, block, n, groups, s)
	row := b.Add(b.Scale(cell), b.Reshape3D(b.Arange(0, float32(groups), 1), 1, 1, groups))
	row = b.Cast(b.Reshape2D(row, block*n*groups, s), formats.I32)

	gather := func(t *graph.Tensor) *graph.Tensor {
		typ := t.Type
		if typ.Quantized() {
			typ = formats.F16
		}
		rows := b.GetRows(b.View3D(t, d, groups*cells, s, t.Nb[1], t.Nb[3], 0), row)
		rows = b.Reshape4D(rows, d, block*n, 1, groups*s)
		if rows.Type != typ {
			rows = b.Cast(rows, typ)
		}
		return rows
	}
	k, v = gather(k), gather(v)
	mask := b.GetRows(b.Reshape3D(in.posMask, 1, in.pos, s), at)
	mask = b.Cast(b.Reshape4D(mask, block*n, 1, 1, groups*s), formats.F16)
	return b.attendGroups(q, k, v, mask, groups)
}

// maskBlocks attends to the whole cache of stream s with all but the best
// blocks masked.
func (b *Builder) maskBlocks(in *msa, q, k, v, iq, keys *graph.Tensor, s uint64) *graph.Tensor {
	cells, groups, d := k.Ne[2], k.Ne[1], k.Ne[0]
	dim, n := int64(b.IndexerHeadSize), in.maskF.Ne[1]
	first := s * uint64(n)
	tokens := func(t *graph.Tensor) *graph.Tensor {
		return b.View3D(t, t.Ne[0], t.Ne[1], n, t.Nb[1], t.Nb[2], first*t.Nb[2])
	}
	columns := func(t *graph.Tensor) *graph.Tensor {
		return b.View3D(t, t.Ne[0], 1, n, t.Nb[1], t.Nb[1], first*t.Nb[1])
	}
	stream := func(t *graph.Tensor) *graph.Tensor {
		return b.View4D(t, d, groups, cells, 1, t.Nb[1], t.Nb[2], t.Nb[3], s*t.Nb[3])
	}
	byPos := b.GetRows(
		b.View2D(keys, dim, cells, keys.Nb[2], s*keys.Nb[3]),
		b.View1D(in.slots, in.pos, s*in.slots.Nb[1]))
	score := b.MulMat(byPos, b.Reshape2D(tokens(iq), dim, groups*n))
	score = b.AddInplace(b.Reshape3D(score, in.pos, groups, n), columns(in.posMask))
	bias := columns(in.bias)
	best := b.bestBlocks(in, score, bias)

	closed := b.Repeat4D(b.Cast(b.ScaleBias(bias), formats.F16), in.blocks, groups, n, 1)
	open := b.Scale(b.Cast(best, formats.F32))
	mask := b.SetRows(
		b.Reshape3D(closed, 1, in.blocks, groups*n),
		b.Reshape3D(open, 1, best.Ne[0], groups*n),
		b.Reshape2D(best, best.Ne[0], groups*n))
	mask = b.Cont(b.Permute(b.Reshape3D(mask, in.blocks, groups, n), 0, 2, 1, 3))
	mask = b.Cont(b.Transpose(b.Reshape2D(mask, in.blocks, n*groups)))
	mask = b.GetRows(mask, b.View1D(in.cellBlocks, cells, s*in.cellBlocks.Nb[1]))
	mask = b.Reshape3D(b.Cont(b.Transpose(mask)), cells, n, groups)
	mask = b.AddInplace(mask, b.View3D(in.maskF, cells, n, 1, in.maskF.Nb[1], in.maskF.Nb[3], s*in.maskF.Nb[3]))
	mask = b.Cast(b.Reshape4D(mask, cells, n, 1, groups), formats.F16)

	q = tokens(q)
	k, v = stream(k), stream(v)
	return b.attendGroups(q, b.Permute(k, 0, 3, 1, 2), b.Permute(v, 0, 3, 1, 2), mask, groups)
}

// attendGroups runs each group's heads as a sequence of its own.
// (build_attn_msa_fa)
func (b *Builder) attendGroups(q, k, v, mask *graph.Tensor, groups int64) *graph.Tensor {
	d, heads, n := q.Ne[0], q.Ne[1], q.Ne[2]
	per := heads / groups
	if per < 1 {
		b.Fail("%d heads in %d groups", heads, groups)
	}
	seqs := k.Ne[3]
	q = b.Reshape4D(q, d, per, seqs, heads*n/(per*seqs))
	out := b.FlashAttnExt(b.Permute(q, 0, 2, 3, 1), k, v, mask, b.MaxAlibiBias, 0)
	out = b.Permute(out, 0, 1, 3, 2)
	if !out.Contiguous() {
		out = b.Cont(out)
	}
	return b.Reshape2D(out, d*heads, n)
}

func (w *wants) miniMaxM3() {
	w.output(0, w.nVocab)
	q := w.qWidth()
	for il := range w.NLayer() {
		w.attention(0, il, q, w.NEmbdVGQA(0), w.NEmbdVGQA(0))
		w.headNorms(0, il)
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.deepseekFFN(0, 0, il, false)
		if il >= w.NLayerDenseLead {
			w.need(il, "indexer.q_proj.weight", w.NEmbd, w.IndexerNHead*w.IndexerHeadSize)
			w.need(il, "indexer.k_proj.weight", w.NEmbd, w.IndexerHeadSize)
			w.need(il, "indexer.q_norm.weight", w.IndexerHeadSize)
			w.need(il, "indexer.k_norm.weight", w.IndexerHeadSize)
		}
	}
}
