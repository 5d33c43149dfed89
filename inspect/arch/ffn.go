package arch

import (
	"weigh/formats"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// Act is the activation of a feed-forward block (enum llm_ffn_op_type).
type Act uint8

// The activations.
const (
	ActSiLU Act = iota
	ActGELU
	ActReLU
	ActReLUSqr
	ActSwiGLU
	ActGEGLU
	ActReGLU
	ActSwiGLUOAI
	ActSiTU
)

// FFN is a dense feed-forward block. Nil weights are absent.
type FFN struct {
	Up, UpB, UpS       *graph.Tensor
	Gate, GateB, GateS *graph.Tensor
	Down, DownB, DownS *graph.Tensor
	ActScales          *graph.Tensor
	Act                Act
	Seq                bool // the gate follows the up projection instead of running beside it
}

// LayerFFN collects the dense block of layer il from its tensors' usual names,
// suffix included: "" or "_shexp".
func (b *Builder) LayerFFN(il int, suffix string, act Act) FFN {
	up, gate, down := "ffn_up", "ffn_gate", "ffn_down"
	if suffix != "" {
		up, gate, down = up+suffix, gate+suffix, down+suffix
	}
	return FFN{
		Up: b.W(il, up+".weight"), UpB: b.W(il, up+".bias"), UpS: b.W(il, up+".scale"),
		Gate: b.W(il, gate+".weight"), GateB: b.W(il, gate+".bias"), GateS: b.W(il, gate+".scale"),
		Down: b.W(il, down+".weight"), DownB: b.W(il, down+".bias"), DownS: b.W(il, down+".scale"),
		Act: act,
	}
}

// FeedForward appends a dense block. (build_ffn)
func (b *Builder) FeedForward(cur *graph.Tensor, f FFN, il int) *graph.Tensor {
	tmp := cur
	if f.Up != nil {
		tmp = b.MM(f.Up, cur, nil)
	}
	b.Name(tmp, "ffn_up", il)
	tmp = b.biasScale(tmp, f.UpB, f.UpS)

	par := f.Gate != nil && !f.Seq
	switch {
	case par:
		cur = b.MM(f.Gate, cur, nil)
		b.Name(cur, "ffn_gate", il)
		cur = b.biasScale(cur, f.GateB, f.GateS)
	case f.Gate != nil:
		cur = b.MM(f.Gate, tmp, nil)
		b.Name(cur, "ffn_gate", il)
		cur = b.biasScale(cur, f.GateB, f.GateS)
	default:
		cur = tmp
	}

	cur = b.activate(cur, tmp, f, par, il)
	if f.Down != nil {
		cur = b.MM(f.Down, cur, nil)
	}
	if f.DownB != nil {
		b.Name(cur, "ffn_down", il)
		cur = b.Add(cur, f.DownB)
	}
	if f.DownS != nil {
		cur = b.Mul(cur, f.DownS)
	}
	return cur
}

func (b *Builder) biasScale(cur, bias, scale *graph.Tensor) *graph.Tensor {
	if bias != nil {
		cur = b.Add(cur, bias)
	}
	if scale != nil {
		cur = b.Mul(cur, scale)
	}
	return cur
}

// activate applies the activation, and the gate that runs beside it.
func (b *Builder) activate(cur, up *graph.Tensor, f FFN, par bool, il int) *graph.Tensor {
	switch f.Act {
	case ActSiLU:
		if !par {
			return b.SiLU(cur)
		}
		if il >= 0 && b.Layers[il].SwigluClampShexp > 1e-6 {
			if b.Row.Quirk.ClampedSwiGLU {
				return b.SwiGLUClamp(cur, up)
			}
			up = b.Clamp(up)
			return b.Mul(b.Clamp(b.SiLU(cur)), up)
		}
		return b.SwiGLUSplit(cur, up)
	case ActGELU:
		if par {
			return b.GEGLUSplit(cur, up)
		}
		cur = b.GELU(cur)
		if f.ActScales != nil {
			cur = b.Div(cur, f.ActScales)
		}
		return cur
	case ActReLU:
		if par {
			return b.ReGLUSplit(cur, up)
		}
		return b.ReLU(cur)
	case ActReLUSqr:
		cur = b.Sqr(b.ReLU(cur))
	case ActSwiGLU:
		cur = b.SwiGLU(cur)
	case ActGEGLU:
		cur = b.GEGLU(cur)
	case ActReGLU:
		cur = b.ReGLU(cur)
	case ActSwiGLUOAI:
		return b.SwiGLUOAI(cur, up)
	}
	if par {
		cur = b.Mul(cur, up)
	}
	return cur
}

// MoE is a block of experts. Nil weights are absent.
type MoE struct {
	GateInp, GateInpB  *graph.Tensor // router
	Up, UpB, UpS       *graph.Tensor
	Gate, GateB, GateS *graph.Tensor
	Down, DownB, DownS *graph.Tensor
	GateUp, GateUpB    *graph.Tensor // gate and up in one
	ProbsB             *graph.Tensor // bias of the selection only
	Probs              *graph.Tensor // router logits computed elsewhere
	Selected           *graph.Tensor // experts chosen elsewhere
	NExpert, NUsed     int
	Act                Act
	NormW              bool
	WScale             float32
	Gating             model.ExpertGating
}

// LayerMoE collects the experts of layer il from their tensors' usual names.
func (b *Builder) LayerMoE(il int, act Act) MoE {
	return MoE{
		GateInp: b.W(il, "ffn_gate_inp.weight"), GateInpB: nil,
		Up: b.W(il, "ffn_up_exps.weight"), UpS: b.W(il, "ffn_up_exps.scale"),
		Gate: b.W(il, "ffn_gate_exps.weight"), GateS: b.W(il, "ffn_gate_exps.scale"),
		Down: b.W(il, "ffn_down_exps.weight"), DownS: b.W(il, "ffn_down_exps.scale"),
		NExpert: b.NExpert, NUsed: b.NExpertUsed(0), Act: act, Gating: model.GatingSoftmax,
		NormW: true, WScale: b.ExpertWeightsScale,
	}
}

// Experts appends a block of experts. (build_moe_ffn)
func (b *Builder) Experts(cur *graph.Tensor, m MoE, il int) *graph.Tensor {
	nEmbd, nTokens := cur.Ne[0], cur.Ne[1]
	nExpert, nUsed := int64(m.NExpert), int64(m.NUsed)
	q := &b.Row.Quirk

	logits := m.Probs
	if logits == nil {
		logits = b.MM(m.GateInp, cur, nil)
		b.Name(logits, "ffn_moe_logits", il)
	}
	if m.GateInpB != nil {
		logits = b.Add(logits, m.GateInpB)
		b.Name(logits, "ffn_moe_logits_biased", il)
	}
	probs := logits
	switch m.Gating {
	case model.GatingSoftmax:
		probs = b.SoftMax(logits)
	case model.GatingSigmoid:
		probs = b.Sigmoid(logits)
	case model.GatingSqrtSoftplus:
		probs = b.Sqrt(b.Softplus(logits))
	case model.GatingSoftmaxWeight:
	default:
		b.Fail("expert_gating_func: %d is none that llama.cpp knows", m.Gating)
	}
	b.Name(probs, "ffn_moe_probs", il)

	selection := probs
	if m.ProbsB != nil {
		selection = b.Add(probs, m.ProbsB)
		b.Name(selection, "ffn_moe_probs_biased", il)
	}
	if q.SelectLogits {
		selection = logits
	}
	if q.SelectSigmoid {
		selection = b.Sigmoid(logits)
		b.Name(selection, "ffn_moe_probs_biased", il)
	}
	if b.NExpertGroups > 1 && nTokens > 0 {
		selection = b.maskGroups(selection, nExpert, nTokens, il)
	}

	selected := m.Selected
	if selected == nil {
		selected = b.ArgsortTopK(selection, nUsed)
		b.Name(selected.Src[0], "ffn_moe_argsort", il)
	}
	b.Name(selected, "ffn_moe_topk", il)

	if q.ExpertGroups && int(nExpert) != b.NExpert {
		f := b.Cast(selected, formats.F32)
		selected = b.Cast(b.Scale(f), formats.I32)
		probs = b.Reshape3D(probs, 1, int64(b.NExpert), nTokens)
	} else {
		probs = b.Reshape3D(probs, 1, nExpert, nTokens)
	}
	weights := b.GetRows(probs, selected)
	b.Name(weights, "ffn_moe_weights", il)
	if m.Gating == model.GatingSoftmaxWeight {
		weights = b.Reshape2D(weights, nUsed, nTokens)
		weights = b.SoftMax(weights)
		weights = b.Reshape3D(weights, 1, nUsed, nTokens)
		b.Name(weights, "ffn_moe_weights_softmax", il)
	}
	if m.NormW {
		weights = b.Reshape2D(weights, nUsed, nTokens)
		sum := b.SumRows(weights)
		b.Name(sum, "ffn_moe_weights_sum", il)
		sum = b.Clamp(sum)
		b.Name(sum, "ffn_moe_weights_sum_clamped", il)
		weights = b.Div(weights, sum)
		b.Name(weights, "ffn_moe_weights_norm", il)
		weights = b.Reshape3D(weights, 1, nUsed, nTokens)
	}
	if m.WScale != 0 && m.WScale != 1 {
		weights = b.Scale(weights)
		b.Name(weights, "ffn_moe_weights_scaled", il)
	}
	b.Expand(weights)

	cur = b.Reshape3D(cur, nEmbd, 1, nTokens)
	if q.WeightBeforeFFN {
		cur = b.Mul(b.Repeat4D(cur, nEmbd, nUsed, nTokens, 1), weights)
		b.Name(cur, "ffn_moe_weighted", il)
	}
	cur = b.activateExperts(cur, selected, m, il)

	experts := b.MMID(m.Down, cur, selected, m.DownS)
	if q.MoEDownF32 {
		experts.SetPrecSrc(graph.PrecF32, 1)
	}
	b.Name(experts, "ffn_moe_down", il)
	if m.DownB != nil {
		experts = b.AddID(experts, m.DownB, selected)
		b.Name(experts, "ffn_moe_down_biased", il)
	}
	if !q.WeightBeforeFFN {
		experts = b.Mul(experts, weights)
		b.Name(experts, "ffn_moe_weighted", il)
	}
	b.Expand(experts)

	n := b.NExpertUsed(il)
	views := make([]*graph.Tensor, n)
	for i := range views {
		views[i] = b.View2D(experts, nEmbd, nTokens, experts.Nb[2], uint64(i)*experts.Nb[1])
		b.Expand(views[i])
	}
	if n == 0 {
		b.Fail("layer %d has experts but uses none", il)
	}
	out := views[0]
	for _, v := range views[1:] {
		out = b.Add(out, v)
		b.Expand(out)
	}
	if n == 1 {
		out = b.Cont(out)
	}
	b.Name(out, "ffn_moe_out", il)
	return out
}

// maskGroups leaves only the experts of the best groups selectable.
func (b *Builder) maskGroups(selection *graph.Tensor, nExpert, nTokens int64, il int) *graph.Tensor {
	groups := int64(b.NExpertGroups)
	sel := b.Reshape3D(selection, nExpert/groups, groups, nTokens)
	scores := b.ArgsortTopK(sel, 2)
	scores = b.GetRows(b.Reshape4D(sel, 1, sel.Ne[0], sel.Ne[1], sel.Ne[2]), scores)
	scores = b.SumRows(b.Reshape3D(scores, scores.Ne[1], scores.Ne[2], scores.Ne[3]))
	scores = b.Reshape2D(scores, scores.Ne[1], scores.Ne[2])
	best := b.ArgsortTopK(scores, int64(b.NGroupUsed))
	b.Name(best, "ffn_moe_group_topk", il)
	masked := b.GetRows(sel, best)
	masked = b.SetRows(b.Fill(sel), masked, best)
	masked = b.Reshape2D(masked, nExpert, nTokens)
	b.Name(masked, "ffn_moe_probs_masked", il)
	return masked
}

// activateExperts appends the up and gate projections and the activation.
func (b *Builder) activateExperts(cur, selected *graph.Tensor, m MoE, il int) *graph.Tensor {
	var up *graph.Tensor
	if m.GateUp != nil {
		gu := b.MMID(m.GateUp, cur, selected, m.UpS)
		b.Name(gu, "ffn_moe_gate_up", il)
		if m.GateUpB != nil {
			gu = b.AddID(gu, m.GateUpB, selected)
		}
		n := gu.Ne[0] / 2
		cur = b.View3D(gu, n, gu.Ne[1], gu.Ne[2], gu.Nb[1], gu.Nb[2], 0)
		b.Name(cur, "ffn_moe_gate", il)
		up = b.View3D(gu, n, gu.Ne[1], gu.Ne[2], gu.Nb[1], gu.Nb[2], uint64(n)*gu.Nb[0])
		b.Name(up, "ffn_moe_up", il)
	} else {
		up = b.MMID(m.Up, cur, selected, m.UpS)
		b.Name(up, "ffn_moe_up", il)
		if m.UpB != nil {
			up = b.AddID(up, m.UpB, selected)
		}
		if m.Gate != nil {
			cur = b.MMID(m.Gate, cur, selected, m.GateS)
			b.Name(cur, "ffn_moe_gate", il)
		} else {
			cur = up
		}
		if m.GateB != nil {
			cur = b.AddID(cur, m.GateB, selected)
		}
	}
	gated := m.Gate != nil || m.GateUp != nil
	switch m.Act {
	case ActSiLU:
		if m.Gate != nil && il >= 0 && b.Layers[il].SwigluClampExp > 1e-6 {
			if b.Row.Quirk.ClampedMoE {
				return b.SwiGLUClamp(cur, up)
			}
			up = b.Clamp(up)
			return b.Mul(b.Clamp(b.SiLU(cur)), up)
		}
		if gated {
			return b.SwiGLUSplit(cur, up)
		}
		return b.SiLU(cur)
	case ActSiTU:
		act := b.Scale(b.Tanh(b.Scale(cur)))
		act = b.Mul(act, b.Sigmoid(cur))
		if b.SituLinearBeta > 0 {
			up = b.Scale(b.Tanh(b.Scale(up)))
		}
		return b.Mul(act, up)
	case ActGELU:
		if gated {
			return b.GEGLUSplit(cur, up)
		}
		return b.GELU(cur)
	case ActSwiGLUOAI:
		return b.SwiGLUOAI(cur, up)
	case ActReLU:
		if gated {
			return b.ReGLUSplit(cur, up)
		}
		return b.ReLU(cur)
	case ActReLUSqr:
		return b.Sqr(b.ReLU(cur))
	}
	b.Fail("experts of layer %d have an activation that llama.cpp does not build", il)
	return nil
}
