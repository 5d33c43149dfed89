package arch

import (
	"fmt"

	"weigh/formats"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

var _ = register(
	&Arch{Name: "t5", Rope: model.RopeNone, Encoder: true, Load: loadT5, Build: t5, Tensors: (*wants).t5, Needs: "attention.layer_norm_rms_epsilon attention.relative_buckets_count", Source: "src/models/t5.cpp@v0.5.0"},
	&Arch{Name: "t5encoder", Rope: model.RopeNone, Encoder: true, Load: loadT5, Build: t5Encoder, Tensors: (*wants).t5Encoder, Needs: "attention.layer_norm_rms_epsilon attention.relative_buckets_count", Source: "src/models/t5encoder.cpp@v0.5.0"},
)

func loadT5(k *Keys, h *model.HParams) {
	h.NRelAttnBkts = k.Need("attention.relative_buckets_count")
	h.DecNLayer = k.Int("decoder_block_count", h.NLayer())
	if h.DecNLayer < 0 || h.DecNLayer > h.NLayerAll {
		k.fail("decoder_block_count", "%d, llama.cpp has a device for %d layers", h.DecNLayer, h.NLayerAll)
	}
}

// A part is half of an encoder-decoder model: tensors prefix.blk.N.name.
type part struct {
	*Builder
	prefix string
}

func (p part) w(il int, name string) *graph.Tensor {
	return p.T(fmt.Sprintf("%s.blk.%d.%s.weight", p.prefix, il, name))
}

func (p part) norm(cur *graph.Tensor, name string, il int) *graph.Tensor {
	return p.Norm(cur, p.w(il, name), nil, NormRMS, il)
}

// qkv projects queries from cur, and keys and values from kv of n tokens.
func (p part) qkv(cur, kv *graph.Tensor, n int64, name string, il int) Attn {
	d := int64(p.NEmbdHeadV(0))
	q := p.MM(p.w(il, name+"_q"), cur, nil)
	k := p.MM(p.w(il, name+"_k"), kv, nil)
	v := p.MM(p.w(il, name+"_v"), kv, nil)
	return Attn{
		Q: p.Reshape3D(q, d, int64(p.NHead(0)), int64(p.NTokens)), K: p.Reshape3D(k, d, int64(p.NHeadKV(0)), n),
		V: p.Reshape3D(v, d, int64(p.NHeadKV(0)), n), WO: p.w(il, name+"_o"),
	}
}

// bias returns the relative positions' share of the scores; layers without
// weights for it use the first one's. (build_pos_bias)
func (p part) bias(buckets *graph.Tensor, il int) *graph.Tensor {
	w := p.w(il, "attn_rel_b")
	if w == nil {
		w = p.w(0, "attn_rel_b")
	}
	t := p.GetRows(w, p.Reshape1D(buckets, buckets.Ne[0]*buckets.Ne[1]))
	t = p.Reshape3D(t, t.Ne[0], buckets.Ne[0], buckets.Ne[1])
	return p.Cont(p.Permute(t, 2, 0, 1, 3))
}

// ffn is gated GELU, or ReLU without a gate.
func (p part) ffn(cur *graph.Tensor, il int) *graph.Tensor {
	f := FFN{Up: p.w(il, "ffn_up"), Gate: p.w(il, "ffn_gate"), Down: p.w(il, "ffn_down"), Act: ActReLU}
	if f.Gate != nil {
		f.Act = ActGELU
	}
	return p.Add(p.FeedForward(p.norm(cur, "ffn_norm", il), f, il), cur)
}

func t5Encoder(b *Builder) {
	p := part{b, "enc"}
	n := int64(b.NTokens)
	inpL := b.InpEmbd()
	buckets := b.InputT("pos_bucket_enc", formats.I32, n, n)
	attn := b.uncached()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA := inpL
		cur := p.norm(inpL, "attn_norm", il)
		a := p.qkv(cur, cur, n, "attn", il)
		a.Bias = p.bias(buckets, il)
		cur = attn(a, il)
		b.LastRows(il, outIDs, &cur, &inpSA)
		inpL = p.ffn(b.Add(cur, inpSA), il)
		b.Name(inpL, "l_out", il)
	}
	cur := b.Norm(inpL, b.T("enc.output_norm.weight"), nil, NormRMS, -1)
	b.Embd(cur)
	b.Expand(cur)
}

// t5 attends to the encoder's output after its own tokens.
func t5(b *Builder) {
	if b.U.Kind == GraphEncoder {
		t5Encoder(b)
		return
	}
	p := part{b, "dec"}
	enc := int64(b.NCtxTrain)
	inpL := b.InpEmbd()
	encoded := b.InputT("cross_embd", formats.F32, int64(b.NEmbdInp()), enc)
	buckets := b.InputT("pos_bucket_dec", formats.I32, int64(b.Mem.KV.Size), int64(b.NTokens))
	attn := b.cachedKV()
	cross := b.InpCross()
	outIDs := b.InpOutIDs()
	for il := range b.DecNLayer {
		inpSA := inpL
		cur := p.norm(inpL, "attn_norm", il)
		a := p.qkv(cur, cur, int64(b.NTokens), "attn", il)
		a.Bias = p.bias(buckets, il)
		inpCA := b.Add(attn(a, il), inpSA)
		cur = p.norm(inpCA, "cross_attn_norm", il)
		cur = b.AttendCross(cross, p.qkv(cur, encoded, enc, "cross_attn", il), il)
		if il == b.DecNLayer-1 {
			cur, inpCA = b.GetRows(cur, outIDs), b.GetRows(inpCA, outIDs)
		}
		inpL = p.ffn(b.Add(cur, inpCA), il)
		b.Name(inpL, "l_out", il)
	}
	cur := b.Norm(inpL, b.T("dec.output_norm.weight"), nil, NormRMS, -1)
	b.Embd(cur)
	b.Logits(b.MM(b.OutputW(), cur, b.T("output.scale")))
}

// t5Half asks for one half of n blocks.
func (w *wants) t5Half(half string, n int) {
	w.need(-1, half+".output_norm.weight", w.NEmbd)
	for il := range n {
		at := fmt.Sprintf("%s.blk.%d.", half, il)
		w.t5Attn(at + "attn")
		if half == "dec" {
			w.t5Attn(at + "cross_attn")
		}
		w.need(-1, at+"ffn_norm.weight", w.NEmbd)
		w.may(-1, at+"ffn_gate.weight", w.NEmbd, w.NFF(0))
		w.need(-1, at+"ffn_down.weight", w.NFF(0), w.NEmbd)
		w.need(-1, at+"ffn_up.weight", w.NEmbd, w.NFF(0))
	}
}

// t5Attn asks for attention, whose tensors' names start with at.
func (w *wants) t5Attn(at string) {
	k, v := w.NEmbdKGQA(0), w.NEmbdVGQA(0)
	w.need(-1, at+"_norm.weight", w.NEmbd)
	w.may(-1, at+"_rel_b.weight", w.NHead(0), w.NRelAttnBkts)
	w.need(-1, at+"_q.weight", w.NEmbd, k)
	w.need(-1, at+"_k.weight", w.NEmbd, k)
	w.need(-1, at+"_v.weight", w.NEmbd, v)
	w.need(-1, at+"_o.weight", v, w.NEmbd)
}

func (w *wants) t5() {
	w.t5Encoder()
	w.t5Half("dec", w.DecNLayer)
}

func (w *wants) t5Encoder() {
	w.need(-1, "token_embd.weight", w.NEmbd, w.nVocab)
	w.may(-1, "output.weight", w.NEmbd, w.nVocab)
	w.t5Half("enc", w.NLayer())
}
