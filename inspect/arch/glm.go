package arch

import (
	"strings"

	"weigh/inspect/graph"
	"weigh/inspect/model"
)

var _ = register(
	&Arch{Name: "chatglm", Rope: model.RopeNorm, Build: wiring{noBiasO: true, ffn: (*Builder).fusedSwiGLU}.model, Tensors: stack{output: maybe, attn: (*wants).chatGLMAttn, ffn: upGated}.ask, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/chatglm.cpp@v0.5.0"},
	&Arch{Name: "glm4", Rope: model.RopeNorm, NextN: NextNNever, Load: loadGLM4, Build: glm4, Tensors: (*wants).glm4, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/glm4.cpp@v0.5.0"},
)

// fusedSwiGLU is a block whose gate and up projection are one matrix.
func (b *Builder) fusedSwiGLU(cur *graph.Tensor, il int) *graph.Tensor {
	return b.FeedForward(cur, FFN{Up: b.W(il, "ffn_up.weight"), Down: b.W(il, "ffn_down.weight"), Act: ActSwiGLU, Seq: true}, il)
}

func loadGLM4(k *Keys, h *model.HParams) {
	loadSections(k, h)
	if h.UseMRoPE() {
		h.RopeType = model.RopeMRoPE
	}
}

// glm4 norms before and after both attention and feed-forward.
func glm4(b *Builder) {
	inpL := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedKV()
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA := inpL
		cur := b.LayerNorm(inpL, "attn_norm", NormRMS, il)
		q, k, v := b.QKV(cur, b.NEmbdHeadV(0), b.NHead(0), b.NHeadKV(0), il)
		q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
		a := Attn{Q: q, K: k, V: v}.WithOut(b, il)
		a.WOB = nil
		cur = attn(a, il)
		b.LastRows(il, outIDs, &cur, &inpSA)
		ffnInp := b.Add(b.LayerNorm(cur, "post_attention_norm", NormRMS, il), inpSA)
		cur = b.fusedSwiGLU(b.LayerNorm(ffnInp, "ffn_norm", NormRMS, il), il)
		cur = b.LayerNorm(cur, "post_ffw_norm", NormRMS, il)
		inpL = b.CVec(b.Add(cur, ffnInp), il)
		b.Name(inpL, "l_out", il)
	}
	b.lmHead(b.LayerNormOut(inpL, NormRMS))
}

// chatGLMAttn takes heads of any width, and projects them as if they were
// together as wide as the model.
func (w *wants) chatGLMAttn(il int) {
	w.qkv(0, il, w.NEmbd, w.NEmbdHeadK(0)*w.NHead(0), w.NEmbdKGQA(0), w.NEmbdVGQA(0))
	w.need(il, "attn_output.weight", w.NEmbd, w.NEmbd)
}

func (w *wants) glm4() {
	w.ends()
	for il := range w.NLayerAll {
		flags := 0
		if il >= w.NLayer() {
			flags = skipped
		}
		for _, name := range strings.Fields(gemmaNorms) {
			w.tensor(flags, il, name+".weight", w.NEmbd)
		}
		q := w.NEmbdHeadK(0) * w.NHead(0)
		w.qkv(flags, il, w.NEmbd, q, w.NEmbdKGQA(0), w.NEmbdVGQA(0))
		w.tensor(flags, il, "attn_output.weight", q, w.NEmbd)
		w.tensor(flags, il, "ffn_up.weight", w.NEmbd, 2*w.NFF(0))
		w.tensor(flags, il, "ffn_down.weight", w.NFF(0), w.NEmbd)
		if il >= w.NLayer() {
			w.nextN(skipped, skipped, il)
		}
	}
}
