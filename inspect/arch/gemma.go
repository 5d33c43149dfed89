package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

var _ = register(
	&Arch{
		Name: "gemma", Rope: model.RopeNeoX,
		Build:   wiring{embd: (*Builder).scaledEmbd, noBiasO: true, preAttn: (*Builder).scaledQ, ffn: gegluFFN}.model,
		Tensors: stack{}.ask,
		Needs:   "attention.layer_norm_rms_epsilon",
		Source:  "src/models/gemma.cpp@v0.5.0",
	},
	&Arch{
		Name: "gemma2", Rope: model.RopeNeoX, Load: loadGemma2,
		Build:   func(b *Builder) { b.cappedHead(b.decoder(gemmaWiring((*Builder).cachedISWA, qkNone))) },
		Tensors: stack{norms: gemmaNorms}.ask,
		Needs:   "attention.layer_norm_rms_epsilon",
		Source:  "src/models/gemma2.cpp@v0.5.0",
	},
	&Arch{
		Name: "gemma3", Rope: model.RopeNeoX, Load: loadGemma3,
		Build:   func(b *Builder) { b.cappedHead(b.decoder(gemmaWiring((*Builder).attendKV, qkBefore))) },
		Tensors: (*wants).gemma3,
		Needs:   "attention.layer_norm_rms_epsilon",
		Source:  "src/models/gemma3.cpp@v0.5.0",
	},
	&Arch{
		Name: "gemma-embedding", Rope: model.RopeNeoX, NoMemory: true, Load: loadGemmaEmbedding,
		Build:   func(b *Builder) { b.Expand(b.decoder(gemmaWiring((*Builder).uncached, qkBefore))) },
		Tensors: (*wants).gemma3,
		Needs:   "attention.layer_norm_rms_epsilon attention.sliding_window",
		Source:  "src/models/gemma-embedding.cpp@v0.5.0",
	},
)

func loadGemma2(k *Keys, h *model.HParams) {
	h.SWAType, h.NSWA = model.SWAStandard, k.Int("attention.sliding_window", 4096)
	k.pattern(h, 2)
	h.AttnSoftCap = true
	h.LogitSoftcap = k.Float("attn_logit_softcapping", 50)
	if h.FinalSoftcap = k.Float("final_logit_softcapping", 30); h.FinalSoftcap == 0 {
		h.FinalSoftcap = 30 // the operators are there whatever the value
	}
}

func loadGemma3(k *Keys, h *model.HParams) {
	k.optionalWindow(h, 6, false)
	h.FinalSoftcap = k.Float("final_logit_softcapping", 0)
}

func loadGemmaEmbedding(k *Keys, h *model.HParams) {
	k.window(h, "attention.sliding_window")
	h.SWAType = model.SWASymmetric
	k.pattern(h, 6)
	h.CausalAttn = false
	for _, key := range []string{"dense_2_feat_in", "dense_3_feat_out"} {
		if n := k.Int(key, 0); n != 0 && n != h.NEmbd {
			k.fail(key, "%d, llama.cpp wants the model's width, %d", n, h.NEmbd)
		}
	}
}

// gemmaWiring also norms what attention and feed-forward return.
func gemmaWiring(in func(*Builder) attend, norms qkNorm) wiring {
	return wiring{
		attend: in, embd: (*Builder).scaledEmbd, heads: headsK, qkNorm: norms, preAttn: (*Builder).scaledQ,
		noBiasO: true, postAttn: true, ffn: gegluNormed,
	}
}

// headsK are heads as wide as the keys.
func headsK(b *Builder) int { return b.NEmbdHeadK(0) }

// scaledEmbd scales the embeddings by the square root of their width.
func (b *Builder) scaledEmbd(cur *graph.Tensor) *graph.Tensor { return b.Scale(cur) }

// gegluFFN is a gated GELU block that ignores the weights' scales.
func gegluFFN(b *Builder, cur *graph.Tensor, il int) *graph.Tensor {
	f := b.LayerFFN(il, "", ActGELU)
	f.UpS, f.GateS, f.DownS = nil, nil, nil
	return b.FeedForward(cur, f, il)
}

// gegluNormed is gegluFFN with a norm after it.
func gegluNormed(b *Builder, cur *graph.Tensor, il int) *graph.Tensor {
	return b.Norm(gegluFFN(b, cur, il), b.need(il, "post_ffw_norm.weight"), nil, NormRMS, -1)
}

// cappedHead is lmHead with the logits squeezed where the model says so.
func (b *Builder) cappedHead(cur *graph.Tensor) {
	cur = b.MM(b.OutputW(), cur, b.T("output.scale"))
	if b.FinalSoftcap != 0 {
		cur = b.softcap(cur)
	}
	b.Logits(cur)
}

const gemmaNorms = "attn_norm post_attention_norm ffn_norm post_ffw_norm"

// gemma3 may end in two dense layers, whose widths embedding models have keys
// for: without them, no such layer has the right shape.
func (w *wants) gemma3() {
	wide2, wide3 := 0, 0
	if w.arch == "gemma-embedding" {
		wide2, wide3 = w.Int("dense_2_feat_out", 0), w.Int("dense_3_feat_in", 0)
	}
	w.may(-1, "dense_2.weight", w.NEmbd, wide2)
	w.may(-1, "dense_3.weight", wide3, w.NEmbd)
	stack{output: maybe, norms: gemmaNorms, more: each{(*wants).qkNorms}}.ask(w)
}
