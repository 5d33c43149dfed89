package arch

import (
	"fmt"

	"weigh/inspect/graph"
	"weigh/inspect/model"
)

var _ = register(&Arch{
	Name: "wavtokenizer-dec", Rope: model.RopeNone, NoMemory: true, Tie: TieNone, Load: loadWavTokenizer, Build: wavTokenizer,
	Tensors: (*wants).wavTokenizer,
	Needs:   "attention.layer_norm_epsilon attention.group_norm_epsilon attention.group_norm_groups features_length posnet.embedding_length posnet.block_count convnext.embedding_length convnext.block_count",
	Source:  "src/models/wavtokenizer-dec.cpp@v0.5.0",
})

func loadWavTokenizer(k *Keys, h *model.HParams) {
	h.NEmbdOutImpl = h.NEmbd
	h.NEmbd = k.Need("features_length")
	headWidths(k, h)
	h.NNormGroups = k.Need("attention.group_norm_groups")
	h.PosnetNEmbd, h.PosnetNLayer = k.Need("posnet.embedding_length"), k.Need("posnet.block_count")
	h.ConvnextNEmbd, h.ConvnextNLayer = k.Need("convnext.embedding_length"), k.Need("convnext.block_count")
	if h.PosnetNLayer > 6 || h.PosnetNLayer > h.NLayerAll {
		k.fail("posnet.block_count", "%d, llama.cpp has 6 in a model of as many layers", h.PosnetNLayer)
	}
	if h.PosnetNEmbd != h.ConvnextNEmbd {
		k.fail("convnext.embedding_length", "%d, llama.cpp wants as many as posnet.embedding_length, %d", h.ConvnextNEmbd, h.PosnetNEmbd)
	}
	if h.ConvnextNLayer > h.NLayerAll {
		k.fail("convnext.block_count", "%d of %d layers", h.ConvnextNLayer, h.NLayerAll)
	}
}

// wavTokenizer decodes audio tokens: a stack of residual convolutions around
// one attention, then a stack of ConvNeXt blocks. Convolutions run along the
// tokens, so that most tensors are [NTokens][width].
func wavTokenizer(b *Builder) {
	turn := func(t *graph.Tensor) *graph.Tensor { return b.Cont(b.Transpose(t)) }
	conv := func(t *graph.Tensor, name string) *graph.Tensor {
		return b.Add(b.Conv1DPh(b.T(name+".weight"), t, 1, 1), b.T(name+".bias"))
	}
	norm := func(t *graph.Tensor, name string, typ NormType, il int) *graph.Tensor {
		return b.Norm(t, b.T(name+".weight"), b.T(name+".bias"), typ, il)
	}
	swish := func(t *graph.Tensor) *graph.Tensor { return b.Mul(b.Sigmoid(t), t) }

	cur := conv(turn(b.InpEmbd()), "conv1d")
	for il := range b.PosnetNLayer {
		inpL, at := cur, fmt.Sprintf("posnet.%d.", il)
		switch il {
		case 2:
			cur = norm(cur, at+"attn_norm", NormGroup, 0)
			var qkv [3]*graph.Tensor
			for i, name := range []string{"attn_q", "attn_k", "attn_v"} {
				qkv[i] = b.Conv1DPh(b.T(at+name+".weight"), cur, 1, 1)
			}
			for i, name := range []string{"attn_q", "attn_k", "attn_v"} {
				qkv[i] = b.Add(qkv[i], b.T(at+name+".bias"))
			}
			q, k := turn(qkv[0]), turn(qkv[1])
			kq := b.SoftMaxExt(b.MulMat(k, q), nil, 0)
			cur = b.Add(conv(b.MulMat(kq, qkv[2]), at+"attn_output"), inpL)
		case 5:
			cur = norm(cur, at+"attn_norm", NormGroup, 0)
		default:
			cur = conv(swish(norm(cur, at+"norm1", NormGroup, 0)), at+"conv1")
			cur = conv(swish(norm(cur, at+"norm2", NormGroup, 0)), at+"conv2")
			cur = b.Add(cur, inpL)
		}
	}
	inpL := turn(norm(turn(cur), "token_embd_norm", NormLayer, 0))
	for il := range b.ConvnextNLayer {
		at := fmt.Sprintf("convnext.%d.", il)
		cur = b.Add(b.Conv1DDWPh(b.T(at+"dw.weight"), inpL, 1, 1), b.T(at+"dw.bias"))
		cur = norm(turn(cur), at+"norm", NormLayer, -1)
		cur = b.FeedForward(cur, FFN{
			Up: b.T(at + "pw1.weight"), UpB: b.T(at + "pw1.bias"),
			Down: b.T(at + "pw2.weight"), DownB: b.T(at + "pw2.bias"), Act: ActGELU,
		}, il)
		inpL = b.Add(turn(b.Mul(cur, b.T(at+"gamma.weight"))), inpL)
	}
	cur = norm(turn(inpL), "output_norm", NormLayer, -1)
	cur = b.Add(b.MM(b.OutputW(), cur, b.T("output.scale")), b.T("output.bias"))
	b.Embd(cur)
	b.Expand(cur)
}

func (w *wants) wavTokenizer() {
	n, pos, next := w.NEmbd, w.PosnetNEmbd, w.ConvnextNEmbd
	conv := func(name string, width int, shape ...int) {
		w.need(-1, name+".weight", shape...)
		w.need(-1, name+".bias", 1, width)
	}
	w.need(-1, "token_embd.weight", n, w.nVocab)
	conv("conv1d", pos, 7, n, pos)
	for il := range w.PosnetNLayer {
		at := fmt.Sprintf("posnet.%d.", il)
		switch il {
		case 2:
			conv(at+"attn_norm", pos, 1, pos)
			for _, name := range []string{"attn_q", "attn_k", "attn_v", "attn_output"} {
				conv(at+name, pos, 1, pos, pos)
			}
		case 5:
			conv(at+"attn_norm", pos, 1, pos)
		default:
			conv(at+"norm1", pos, 1, pos)
			conv(at+"conv1", pos, 3, pos, pos)
			conv(at+"norm2", pos, 1, pos)
			conv(at+"conv2", pos, 3, pos, pos)
		}
	}
	w.normed(0, -1, "token_embd_norm", pos)
	for il := range w.ConvnextNLayer {
		at := fmt.Sprintf("convnext.%d.", il)
		conv(at+"dw", next, 7, 1, next)
		w.normed(0, -1, at+"norm", next)
		w.need(-1, at+"pw1.weight", next, w.NFF(0))
		w.need(-1, at+"pw1.bias", w.NFF(0))
		w.need(-1, at+"pw2.weight", w.NFF(0), next)
		w.need(-1, at+"pw2.bias", next)
		w.need(-1, at+"gamma.weight", next)
	}
	w.normed(0, -1, "output_norm", next)
	w.need(-1, "output.weight", next, w.NEmbdOut())
	w.need(-1, "output.bias", w.NEmbdOut())
}
