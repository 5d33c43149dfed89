package arch

import (
	"fmt"

	"weigh/formats"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// A Builder appends one micro-batch's graph, operator by operator in the order
// of llama.cpp, whose choice of names and order decides where nodes run and
// when their memory is free again.
//
// Source of all blocks: src/llama-graph.cpp@v0.5.0, llm_graph_context.
type Builder struct {
	*graph.Graph
	*model.HParams
	M   *model.Model
	Row *Arch
	C   *Context
	U   Batch
	Mem *Memory

	NTokens int
	Blocks  []int // the block whose weights a layer uses, where layers share them; nil: its own

	place   Placer
	leafs   []*graph.Tensor // weights by tensor index
	extra   map[[2]int]*graph.Tensor
	caches  map[cacheKey]*graph.Tensor
	logits  *graph.Tensor
	embd    *graph.Tensor
	pooled  *graph.Tensor
	hNextN  *graph.Tensor
	inpEmbd *graph.Tensor

	inpTokens *graph.Tensor
	pairs     map[[2]*model.Tensor][2]*graph.Tensor // matrices of adapters
}

type cacheKey struct {
	cache any
	il    int
	what  byte
}

// Build returns the graph of one micro-batch of model m. A shape that does not
// fit, because the file's tensors and keys contradict each other, is an error.
func Build(m *model.Model, c *Context, mem *Memory, u Batch, p Placer) (*graph.Graph, error) {
	row := Lookup(m.Arch)
	if row == nil || row.Build == nil {
		return nil, fmt.Errorf("the architecture %.80q has no graph", m.Arch)
	}
	b := &Builder{
		Graph: graph.New(64 + 48*m.NLayerAll), HParams: &m.HParams, M: m, Row: row, C: c, U: u, Mem: mem,
		NTokens: u.NTokens, place: p,
		leafs: make([]*graph.Tensor, len(m.Tensors)), caches: make(map[cacheKey]*graph.Tensor, 4*m.NLayerAll),
	}
	err := graph.Try(func() {
		row.Build(b)
		b.pooling()
		b.denseOut()
		for _, t := range []*graph.Tensor{b.logits, b.embd, b.pooled, b.hNextN} {
			if t != nil {
				t.Flags |= graph.Output
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return b.Graph, nil
}

// W returns the weight "blk.il.name", nil when the file has none.
func (b *Builder) W(il int, name string) *graph.Tensor {
	if b.Blocks != nil && il >= 0 && il < len(b.Blocks) {
		il = b.Blocks[il]
	}
	return b.weight(b.M.Index.Layer(il, name), il)
}

// T returns a weight outside the blocks, nil when the file has none.
func (b *Builder) T(name string) *graph.Tensor {
	return b.weight(b.M.Index.Global(name), -1)
}

// Shared returns a weight outside the blocks as layer il sees it: the likes of
// rope_freqs have a copy on every device.
func (b *Builder) Shared(name string, il int) *graph.Tensor {
	i := b.M.Index.Global(name)
	if i < 0 {
		return nil
	}
	return b.copyFor(i, il)
}

// TokEmbd returns the token embeddings.
func (b *Builder) TokEmbd() *graph.Tensor {
	if t := b.T("token_embd.weight"); t != nil || b.Row.Tie != TieInput {
		return t
	}
	return b.T("output.weight")
}

// OutputNorm returns the weight of the norm before the output matrix, or of the
// encoder's last one.
func (b *Builder) OutputNorm() *graph.Tensor {
	if t := b.T("output_norm.weight"); t != nil {
		return t
	}
	return b.T("enc.output_norm.weight")
}

// As gives a stored weight the shape that llama.cpp loads it with
// (TENSOR_ALLOW_RESHAPE).
func (b *Builder) As(w *graph.Tensor, ne ...int64) *graph.Tensor {
	like := b.Leaf(w.Name, w.Type, ne...)
	if like.Elements() != w.Elements() {
		b.Fail("%s: %v elements, want %v", w.Name, w.Ne, ne)
	}
	w.Ne, w.Nb = like.Ne, like.Nb
	return w
}

// OutputW returns the output matrix: the file's own, or what stands in for it.
func (b *Builder) OutputW() *graph.Tensor {
	if t := b.T("output.weight"); t != nil {
		return t
	}
	i := b.M.Index.Global("token_embd.weight")
	if i < 0 {
		return nil
	}
	if b.Row.Tie == TieShare {
		return b.weight(i, -1)
	}
	return b.copyFor(i, b.NLayerAll)
}

// copyFor returns the copy of tensor i that layer il uses: the same leaf for
// all layers of one buffer.
func (b *Builder) copyFor(i, il int) *graph.Tensor {
	buf := b.place.Weight(i, il)
	key := [2]int{i, int(buf)}
	if t := b.extra[key]; t != nil {
		return t
	}
	if t := b.leafs[i]; t != nil && t.Buf == buf {
		return t
	}
	if b.extra == nil {
		b.extra = map[[2]int]*graph.Tensor{}
	}
	t := b.weightLeaf(i, buf)
	b.extra[key] = t
	return t
}

func (b *Builder) weight(i, il int) *graph.Tensor {
	if i < 0 {
		return nil
	}
	if b.leafs[i] == nil {
		b.leafs[i] = b.weightLeaf(i, b.place.Weight(i, il))
	}
	return b.leafs[i]
}

func (b *Builder) weightLeaf(i int, buf int16) *graph.Tensor { return b.leaf(&b.M.Tensors[i], buf) }

// leaf returns the weight mt in a buffer.
func (b *Builder) leaf(mt *model.Tensor, buf int16) *graph.Tensor {
	var ne [4]int64
	for d := range ne {
		ne[d] = 1
		if d < len(mt.Shape) {
			ne[d] = int64(mt.Shape[d])
		}
	}
	t := b.Leaf(mt.Name, mt.Type, ne[0], ne[1], ne[2], ne[3])
	t.Flags, t.Buf = graph.Weight, buf
	return t
}

// Name is llama.cpp's graph callback: it names a node, and pins norms to their
// layer's device.
//
// Source: src/llama-context.cpp@v0.5.0, llama_context::graph_get_cb.
func (b *Builder) Name(t *graph.Tensor, name string, il int) {
	t.Name, t.Layer = name, int32(il)
	if il != -1 && (name == "norm" || name == "l_last") && (b.NTokens < 32 || b.place.PinNorms()) {
		if be := b.place.LayerBackend(il); b.place.Supports(be, t) {
			t.Backend = be
		}
	}
}

// InputT returns a tensor that the host fills before the graph runs.
func (b *Builder) InputT(name string, typ formats.DType, ne ...int64) *graph.Tensor {
	t := b.Leaf(name, typ, ne...)
	t.Flags |= graph.Input
	return t
}

// Inputs and outputs of every graph.

// InpEmbd returns the embeddings of the batch's tokens, [NEmbd][NTokens].
// (build_inp_embd)
func (b *Builder) InpEmbd() *graph.Tensor {
	inp := int64(b.NEmbdInp())
	tokens := b.InputT("inp_tokens", formats.I32, int64(b.NTokens))
	embd := b.InputT("inp_embd", formats.F32, inp, int64(b.NTokens))
	cur := b.GetRows(b.TokEmbd(), tokens)
	b.adapters(b.TokEmbd(), func(down, up *graph.Tensor) {
		cur = b.Add(cur, b.Scale(b.MulMat(up, b.GetRows(down, tokens))))
	})
	if int(inp) != b.NEmbd {
		cur = b.Pad(cur, int(inp)-b.NEmbd, 0, 0, 0)
	}
	b.Expand(cur)
	b.Expand(embd)
	if int(inp) != b.NEmbd {
		cur = b.View2D(cur, int64(b.NEmbd), int64(b.NTokens), cur.Nb[1], 0)
	}
	b.inpTokens, b.inpEmbd = tokens, cur
	if b.EmbeddingScale != 0 {
		if !cur.Contiguous() {
			cur = b.Cont(cur)
		}
		cur = b.Scale(cur)
	}
	b.Name(cur, "embd", -1)
	b.Expand(cur)
	return cur
}

// InpPos returns the tokens' positions. (build_inp_pos)
func (b *Builder) InpPos() *graph.Tensor {
	return b.InputT("inp_pos", formats.I32, int64(b.NTokens*b.NPosPerEmbd()))
}

// InpAttnScale returns the tokens' attention temperatures. (build_inp_attn_scale)
func (b *Builder) InpAttnScale() *graph.Tensor {
	return b.InputT("inp_attn_scale", formats.F32, 1, 1, int64(b.NTokens))
}

// InpOutIDs returns the rows that the batch wants outputs of. (build_inp_out_ids)
func (b *Builder) InpOutIDs() *graph.Tensor {
	return b.InputT("out_ids", formats.I32, int64(b.U.NOutputs))
}

// Logits sets the graph's result and appends all it depends on.
func (b *Builder) Logits(t *graph.Tensor) {
	b.Name(t, "result_output", -1)
	b.logits = t
	b.Expand(t)
}

// Embd sets the graph's embeddings, without appending them.
func (b *Builder) Embd(t *graph.Tensor) { b.embd = t }

// HNextN sets the hidden state that a NextN block starts from.
func (b *Builder) HNextN(t *graph.Tensor) { b.hNextN = t }

// Head is how most graphs end: norm, embeddings, output matrix.
func (b *Builder) Head(cur *graph.Tensor, typ NormType) {
	cur = b.Norm(cur, b.OutputNorm(), b.T("output_norm.bias"), typ, -1)
	b.Name(cur, "result_norm", -1)
	b.embd = cur
	b.Logits(b.MM(b.OutputW(), cur, b.T("output.scale")))
}

// CVec adds layer il's control vector, where there is one. (build_cvec)
func (b *Builder) CVec(cur *graph.Tensor, il int) *graph.Tensor {
	if il < 0 || il >= len(b.C.ControlVector) || b.C.ControlVector[il] < 0 {
		return cur
	}
	v := b.Leaf("control_vector", formats.F32, int64(b.NEmbd))
	v.Buf = b.C.ControlVector[il]
	return b.Add(cur, v)
}

// adapters calls f with the matrices of each adapter of the weight w.
func (b *Builder) adapters(w *graph.Tensor, f func(down, up *graph.Tensor)) {
	if w == nil || w.Op != graph.OpNone {
		return
	}
	for i, l := range b.C.LoRA {
		a, ok := l[w.Name]
		if !ok {
			continue
		}
		key := [2]*model.Tensor{a.A, a.B}
		pair, ok := b.pairs[key]
		if !ok {
			pair = [2]*graph.Tensor{b.leaf(a.A, a.Buf), b.leaf(a.B, a.Buf)}
			for _, t := range pair {
				t.Flags = 0 // llama.cpp does not mark them as weights
			}
			if b.pairs == nil {
				b.pairs = make(map[[2]*model.Tensor][2]*graph.Tensor, len(b.C.LoRA[i]))
			}
			b.pairs[key] = pair
		}
		f(pair[0], pair[1])
	}
}

// MM multiplies by a weight, and by its scale where it has one, and adds what
// its adapters make of the operand. (build_lora_mm)
func (b *Builder) MM(w, cur, scale *graph.Tensor) *graph.Tensor {
	res := b.MulMat(w, cur)
	if scale != nil {
		res = b.Mul(res, scale)
	}
	b.adapters(w, func(down, up *graph.Tensor) {
		res = b.Add(res, b.Scale(b.MulMat(up, b.MulMat(down, cur))))
	})
	return res
}

// MMID multiplies by the experts' weights that ids select. (build_lora_mm_id)
func (b *Builder) MMID(w, cur, ids, scale *graph.Tensor) *graph.Tensor {
	res := b.MulMatID(w, cur, ids)
	if scale != nil {
		s := b.Reshape3D(scale, 1, scale.Ne[0], 1)
		s = b.Repeat4D(s, 1, scale.Ne[0], cur.Ne[2], 1)
		s = b.GetRows(s, ids)
		res = b.Mul(res, s)
	}
	b.adapters(w, func(down, up *graph.Tensor) {
		res = b.Add(res, b.Scale(b.MulMatID(up, b.MulMatID(down, cur, ids), ids)))
	})
	return res
}

// NormType is the kind of a norm (enum llm_norm_type).
type NormType uint8

// The kinds of norm.
const (
	NormLayer NormType = iota
	NormRMS
	NormGroup
)

// Norm normalises, scales by mw and adds mb, each where it is not nil.
// (build_norm)
func (b *Builder) Norm(cur, mw, mb *graph.Tensor, typ NormType, il int) *graph.Tensor {
	switch typ {
	case NormLayer:
		cur = b.Graph.Norm(cur)
	case NormRMS:
		cur = b.RMSNorm(cur)
	case NormGroup:
		cur = b.Reshape3D(cur, cur.Ne[0], 1, cur.Ne[1])
		cur = b.GroupNorm(cur, b.NNormGroups)
		cur = b.Reshape2D(cur, cur.Ne[0], cur.Ne[2])
	}
	if mw != nil || mb != nil {
		b.Name(cur, "norm", il)
	}
	if mw != nil {
		cur = b.Mul(cur, mw)
		if mb != nil {
			b.Name(cur, "norm_w", il)
		}
	}
	if mb != nil {
		cur = b.Add(cur, mb)
	}
	return cur
}

// LayerNorm is Norm with the weight and bias named name of layer il.
func (b *Builder) LayerNorm(cur *graph.Tensor, name string, typ NormType, il int) *graph.Tensor {
	return b.Norm(cur, b.W(il, name+".weight"), b.W(il, name+".bias"), typ, il)
}

// LastRows keeps the rows that outputs are wanted of, in the trunk's last layer.
func (b *Builder) LastRows(il int, ids *graph.Tensor, ts ...**graph.Tensor) {
	if il != b.NLayer()-1 || ids == nil {
		return
	}
	for _, t := range ts {
		*t = b.GetRows(*t, ids)
	}
}

// pooling appends the pooling of embeddings. (build_pooling)
func (b *Builder) pooling() {
	if !b.C.Embeddings {
		return
	}
	inp := b.embd
	if inp == nil {
		b.Fail("the graph has no embeddings to pool")
	}
	var cur *graph.Tensor
	seqs := int64(b.U.NSeqs)
	mean := func() *graph.Tensor {
		m := b.InputT("mean", formats.F32, int64(b.NTokens), seqs)
		return b.MulMat(b.Cont(b.Transpose(inp)), m)
	}
	cls := func() *graph.Tensor { return b.GetRows(inp, b.InputT("cls", formats.I32, seqs)) }
	switch b.C.Pooling {
	case model.PoolingMean:
		cur = mean()
	case model.PoolingCLS, model.PoolingLast:
		cur = cls()
	case model.PoolingRank:
		cur = b.rank(mean, cls)
	default:
		cur = inp
	}
	b.Name(cur, "result_embd_pooled", -1)
	b.pooled = cur
	b.Expand(cur)
}

// rank appends a classification head.
func (b *Builder) rank(mean, cls func() *graph.Tensor) *graph.Tensor {
	var cur *graph.Tensor
	if b.Row.Quirk.RankMean {
		cur = mean()
	} else {
		cur = cls()
	}
	if w := b.T("cls.weight"); w != nil {
		cur = b.MulMat(w, cur)
		if bias := b.T("cls.bias"); bias != nil {
			cur = b.Add(cur, bias)
		}
		if b.Row.Quirk.RankMean {
			cur = b.GELU(cur)
		} else {
			cur = b.Tanh(cur)
		}
		if n := b.T("cls.norm.weight"); n != nil {
			cur = b.Norm(cur, n, nil, NormLayer, -1)
		}
	}
	if w := b.T("cls.output.weight"); w != nil {
		cur = b.MulMat(w, cur)
		if bias := b.T("cls.output.bias"); bias != nil {
			cur = b.Add(cur, bias)
		}
	}
	if b.Row.Quirk.RankSoftmax {
		cur = b.SoftMax(cur)
	}
	return cur
}

// denseOut appends the dense layers of sentence-transformers. (build_dense_out)
func (b *Builder) denseOut() {
	d2, d2b, d3 := b.T("dense_2.weight"), b.T("dense_2.bias"), b.T("dense_3.weight")
	cur := b.pooled
	if cur == nil {
		cur = b.embd
	}
	if !b.C.Embeddings || cur == nil || (d2 == nil && d2b == nil && d3 == nil) {
		return
	}
	if d2 != nil {
		cur = b.MulMat(d2, cur)
	}
	if d2b != nil {
		cur = b.Add(cur, d2b)
	}
	if d3 != nil {
		cur = b.MulMat(d3, cur)
	}
	b.Name(cur, "result_embd_pooled", -1)
	b.pooled = cur
	b.Expand(cur)
}
