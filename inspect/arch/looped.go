package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// Architectures that run the same blocks several times: each pass has a cache
// of its own, the weights are stored once.
var _ = register(
	&Arch{Name: "nanbeige", Rope: model.RopeNorm, Budget: deltaBudget, Load: loadLoops, Build: nanbeige, Tensors: (*wants).nanbeige, Needs: "attention.layer_norm_rms_epsilon", Source: "src/models/nanbeige.cpp@v0.5.0"},
	&Arch{Name: "hrm_text", Rope: model.RopeNeoX, Budget: hrmBudget, Load: loadHRM, Build: hrm, Tensors: (*wants).hrm, Needs: "attention.layer_norm_rms_epsilon hrm.layers_per_stack hrm.h_cycles hrm.l_cycles", Source: "src/models/hrm-text.cpp@v0.5.0"},
)

// loadLoops turns block_count stored blocks into as many layers as are run.
func loadLoops(k *Keys, h *model.HParams) {
	loops := k.Int("num_loops", 1)
	if loops < 1 || loops*h.NLayer() > MaxLayers {
		k.fail("num_loops", "%d passes over %d blocks, llama.cpp runs at most %d layers", loops, h.NLayer(), MaxLayers)
		return
	}
	phys := h.Layers
	for range loops - 1 {
		h.Layers = append(h.Layers, phys...)
	}
	h.NLayerAll = len(h.Layers)
	h.NHRMLayersPerStack = len(phys)
}

// nanbeige norms the hidden state between passes.
func nanbeige(b *Builder) {
	phys := b.NHRMLayersPerStack
	b.Blocks = make([]int, b.NLayerAll)
	for il := range b.Blocks {
		b.Blocks[il] = il % phys
	}
	between := func(b *Builder, cur *graph.Tensor, il int) *graph.Tensor {
		if (il+1)%phys != 0 || il+1 >= b.NLayer() || metaBool(b.M, "skip_loop_final_norm") {
			return cur
		}
		return b.Norm(cur, b.OutputNorm(), nil, NormRMS, il)
	}
	wiring{factors: true, postFFN: between}.model(b)
}

func metaBool(m *model.Model, key string) bool {
	v, _ := m.Meta.Lookup(m.Arch + "." + key)
	flag, _ := v.(bool)
	return flag
}

func loadHRM(k *Keys, h *model.HParams) {
	h.EmbeddingScale = k.Float("embedding_scale", 0)
	h.NHRMLayersPerStack = k.Need("hrm.layers_per_stack")
	h.NHRMHCycles = k.Need("hrm.h_cycles")
	h.NHRMLCycles = k.Need("hrm.l_cycles")
	s, hc, lc := h.NHRMLayersPerStack, h.NHRMHCycles, h.NHRMLCycles
	if s < 1 || hc < 1 || lc < 1 || s > MaxLayers || hc > MaxLayers || lc > MaxLayers || s*hc*(lc+1) != h.NLayer() {
		k.fail("hrm.layers_per_stack", "%d layers a stack, %d high and %d low cycles do not make %d layers", s, hc, lc, h.NLayer())
	}
}

func hrmBudget(*model.Model) (perToken, perTensor int) { return 80, 64 }

// hrm runs a low and a high stack in turns: blocks [0, n) are the low stack's,
// [n, 2n) the high one's.
func hrm(b *Builder) {
	n, low := b.NHRMLayersPerStack, b.NHRMLCycles
	b.Blocks = make([]int, b.NLayerAll)
	for slot := range b.Blocks {
		b.Blocks[slot] = slot % n
		if slot/n%(low+1) == low {
			b.Blocks[slot] += n
		}
	}
	zH := b.InpEmbd()
	pos := b.InpPos()
	attn := b.cachedKV()
	outIDs := b.InpOutIDs()
	zL := b.T("hrm.z_l_init")
	slot := 0
	for range b.NHRMHCycles {
		for range low {
			zL = b.hrmStack(b.Add(zH, zL), pos, attn, slot)
			slot += n
		}
		zH = b.hrmStack(b.Add(zH, zL), pos, attn, slot)
		slot += n
	}
	cur := b.GetRows(zH, outIDs)
	b.Embd(cur)
	b.lmHead(cur)
}

// hrmStack runs one stack from cache slot first on.
func (b *Builder) hrmStack(cur, pos *graph.Tensor, attn attend, first int) *graph.Tensor {
	for il := first; il < first+b.NHRMLayersPerStack; il++ {
		inpSA := cur
		cur = b.RMSNorm(cur)
		gate := b.MM(b.W(il, "attn_gate.weight"), cur, nil)
		q, k, v := b.QKV(cur, b.NEmbdHeadK(0), b.NHead(0), b.NHeadKV(0), il)
		q, k = b.Rot(q, pos, nil, b.NRot(0)), b.Rot(k, pos, nil, b.NRot(0))
		cur = attn(Attn{Q: q, K: k, V: v}, il)
		cur = b.Mul(cur, b.Sigmoid(gate))
		cur = b.MM(b.W(il, "attn_output.weight"), cur, b.W(il, "attn_output.scale"))
		cur = b.Add(cur, inpSA)
		inpSA = cur
		cur = b.RMSNorm(cur)
		cur = b.FeedForward(cur, b.LayerFFN(il, "", ActSiLU), il)
		cur = b.CVec(b.Add(cur, inpSA), il)
		b.Name(cur, "l_out", il)
	}
	return b.RMSNorm(cur)
}

func (w *wants) nanbeige() {
	w.ends()
	w.may(-1, "rope_freqs.weight", w.NRot(0)/2)
	q := w.qWidth()
	for il := range w.NHRMLayersPerStack {
		w.attention(0, il, q, w.NEmbdKGQA(0), w.NEmbdVGQA(0))
		w.need(il, "ffn_norm.weight", w.NEmbd)
		w.ffn(0, il, "", w.NFF(0))
	}
}

// hrm has two stacks and no norms with weights.
func (w *wants) hrm() {
	w.need(-1, "token_embd.weight", w.NEmbd, w.nVocab)
	w.may(-1, "output.weight", w.NEmbd, w.nVocab)
	w.need(-1, "hrm.z_l_init", w.NEmbd)
	q := w.qWidth()
	for il := range 2 * w.NHRMLayersPerStack {
		w.qkv(0, il, w.NEmbd, q, w.NEmbdKGQA(0), w.NEmbdVGQA(0))
		w.need(il, "attn_gate.weight", w.NEmbd, q)
		w.need(il, "attn_output.weight", q, w.NEmbd)
		w.ffn(0, il, "", w.NFF(0))
	}
}
