package arch

import (
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// A wiring says how the blocks of a pre-norm decoder are connected: norm,
// attention, residual, norm, feed-forward, residual. Its zero value is the
// plainest one.
type wiring struct {
	attend    func(*Builder) attend // the attention's inputs; nil: one cache
	layer     bool                  // layer norms instead of RMS norms
	qkNorm    qkNorm                // norms of queries and keys
	factors   bool                  // rotary frequency factors
	noRope    func(b *Builder, il int) bool
	noBiasO   bool                                                                // attn_output.bias is not used
	ffnNorm   string                                                              // name of the second norm; "" means ffn_norm
	ffn       func(b *Builder, cur *graph.Tensor, il int) *graph.Tensor           // nil: gated SiLU, or experts where the layer has a router
	postFFN   func(b *Builder, cur *graph.Tensor, il int) *graph.Tensor           // applied to the layer's output
	embd      func(b *Builder, cur *graph.Tensor) *graph.Tensor                   // applied to the embeddings
	qk        func(b *Builder, q, k *graph.Tensor, il int) (qn, kn *graph.Tensor) // norms of queries and keys that qkNorm cannot say
	heads     func(b *Builder) int                                                // width of a head; nil: the values'
	sinks     bool                                                                // attention has sinks
	sumLast   bool                                                                // the feed-forward's result is added to the residual, not the residual to it
	rows      rowsAt                                                              // where the rows of outputs are picked
	preAttn   func(b *Builder, q *graph.Tensor, il int) *graph.Tensor             // applied to the queries last
	postAttn  bool                                                                // what attention returns is normed (post_attention_norm)
	bareFirst bool                                                                // the first layer may be without an attention norm
	scaleQ    func(b *Builder) *graph.Tensor                                      // scales the rotated queries; nil or a nil tensor: nothing
}

// rowsAt says where the rows that outputs are wanted of are picked.
type rowsAt uint8

const (
	rowsLastLayer  rowsAt = iota // in the trunk's last layer, after attention
	rowsBeforeNorm               // after the trunk
	rowsAfterNorm                // after its norm
)

// qkNorm says where queries and keys are normed.
type qkNorm uint8

const (
	qkNone   qkNorm = iota
	qkBefore        // before the rotation
	qkAfter         // after it
)

// decoder appends a trunk of such blocks and returns its normed embeddings.
func (b *Builder) decoder(w wiring) *graph.Tensor {
	typ := NormRMS
	if w.layer {
		typ = NormLayer
	}
	if w.attend == nil {
		w.attend = (*Builder).cachedKV
	}
	if w.heads == nil {
		w.heads = func(b *Builder) int { return b.NEmbdHeadV(0) }
	}
	if w.ffnNorm == "" {
		w.ffnNorm = "ffn_norm"
	}
	if w.ffn == nil {
		w.ffn = (*Builder).siluFFN
	}
	inpL := b.InpEmbd()
	if w.embd != nil {
		inpL = w.embd(b, inpL)
	}
	pos := b.InpPos()
	var scaleQ *graph.Tensor
	if w.scaleQ != nil {
		scaleQ = w.scaleQ(b)
	}
	attn := w.attend(b)
	outIDs := b.InpOutIDs()
	for il := range b.NLayer() {
		inpSA := inpL
		cur := inpL
		if !w.bareFirst || il > 0 || b.W(il, "attn_norm.weight") != nil {
			cur = b.LayerNorm(inpL, "attn_norm", typ, il)
		}
		b.Name(cur, "attn_norm", il)
		q, k, v := b.QKV(cur, w.heads(b), b.NHead(0), b.NHeadKV(0), il)
		if w.qkNorm == qkBefore {
			q, k = b.LayerNorm(q, "attn_q_norm", typ, il), b.LayerNorm(k, "attn_k_norm", typ, il)
		}
		if w.qk != nil {
			q, k = w.qk(b, q, k, il)
		}
		if w.noRope == nil || !w.noRope(b, il) {
			var factors *graph.Tensor
			if w.factors {
				factors = b.RopeFactors(il)
			}
			q, k = b.Rot(q, pos, factors, b.NRot(0)), b.Rot(k, pos, factors, b.NRot(0))
		}
		if w.qkNorm == qkAfter {
			q, k = b.LayerNorm(q, "attn_q_norm", typ, il), b.LayerNorm(k, "attn_k_norm", typ, il)
		}
		if b.UseKQNorm {
			q, k = b.RMSNorm(q), b.RMSNorm(k)
		}
		if scaleQ != nil {
			q = b.Mul(q, scaleQ)
		}
		if w.preAttn != nil {
			q = w.preAttn(b, q, il)
		}
		a := Attn{Q: q, K: k, V: v}.WithOut(b, il)
		if w.noBiasO {
			a.WOB = nil
		}
		if w.sinks {
			a.Sinks = b.W(il, "attn_sinks.weight")
		}
		cur = attn(a, il)
		b.Name(cur, "attn_out", il)
		if w.rows == rowsLastLayer {
			b.LastRows(il, outIDs, &cur, &inpSA)
		}
		if w.postAttn {
			cur = b.LayerNorm(cur, "post_attention_norm", typ, il)
		}
		ffnInp := b.Add(cur, inpSA)
		b.Name(ffnInp, "ffn_inp", il)
		cur = b.LayerNorm(ffnInp, w.ffnNorm, typ, il)
		b.Name(cur, "ffn_norm", il)
		cur = w.ffn(b, cur, il)
		b.Name(cur, "ffn_out", il)
		if w.sumLast {
			cur = b.Add(ffnInp, cur)
		} else {
			cur = b.Add(cur, ffnInp)
		}
		cur = b.CVec(cur, il)
		b.Name(cur, "l_out", il)
		if w.postFFN != nil {
			cur = w.postFFN(b, cur, il)
		}
		inpL = cur
	}
	return b.trunkOut(inpL, outIDs, w.rows, typ)
}

// trunkOut norms the trunk's output and picks its rows on the way.
func (b *Builder) trunkOut(cur, outIDs *graph.Tensor, rows rowsAt, typ NormType) *graph.Tensor {
	if rows == rowsBeforeNorm {
		b.HNextN(cur)
		cur = b.GetRows(cur, outIDs)
	}
	cur = b.LayerNormOut(cur, typ)
	if rows == rowsAfterNorm {
		b.HNextN(cur)
		cur = b.GetRows(cur, outIDs)
		b.Embd(cur)
	}
	return cur
}

// scaledHead is lmHead with the logits scaled where the model says so.
func (b *Builder) scaledHead(cur *graph.Tensor) {
	cur = b.MM(b.OutputW(), cur, b.T("output.scale"))
	if b.LogitScale != 0 {
		cur = b.Scale(cur)
	}
	b.Logits(cur)
}

// attendKV attends over one cache, or two where the model has a window.
func (b *Builder) attendKV() attend {
	if b.SWAType != model.SWANone {
		return b.cachedISWA()
	}
	return b.cachedKV()
}

// lmHead appends the output matrix.
func (b *Builder) lmHead(cur *graph.Tensor) {
	cur = b.MM(b.OutputW(), cur, b.T("output.scale"))
	if bias := b.T("output.bias"); bias != nil {
		cur = b.Add(cur, bias)
	}
	b.Logits(cur)
}

// model builds a decoder with its output matrix.
func (w wiring) model(b *Builder) { b.lmHead(b.decoder(w)) }

// headsRot are heads as wide as what is rotated of them.
func headsRot(b *Builder) int { return b.NRot(0) }

// always leaves every layer without rotary positions.
func always(*Builder, int) bool { return true }

// siluFFN is a gated SiLU block, or experts where the layer has a router.
func (b *Builder) siluFFN(cur *graph.Tensor, il int) *graph.Tensor {
	if b.W(il, "ffn_gate_inp.weight") == nil {
		return b.FeedForward(cur, b.LayerFFN(il, "", ActSiLU), il)
	}
	return b.Experts(cur, b.LayerMoE(il, ActSiLU), il)
}

// denseFFN is a dense block with another activation.
func denseFFN(act Act) func(*Builder, *graph.Tensor, int) *graph.Tensor {
	return func(b *Builder, cur *graph.Tensor, il int) *graph.Tensor {
		return b.FeedForward(cur, b.LayerFFN(il, "", act), il)
	}
}

// An attend appends the attention of one layer.
type attend func(a Attn, il int) *graph.Tensor

// cachedKV attends over the one cache.
func (b *Builder) cachedKV() attend {
	in := b.InpKV()
	return func(a Attn, il int) *graph.Tensor { return b.AttendKV(in, a, il) }
}

// cachedISWA attends over the full-size and the window cache.
func (b *Builder) cachedISWA() attend {
	in := b.InpISWA()
	return func(a Attn, il int) *graph.Tensor { return b.AttendISWA(in, a, il) }
}

// uncached attends within the batch.
func (b *Builder) uncached() attend {
	in := b.InpNoCache()
	return func(a Attn, il int) *graph.Tensor { return b.AttendNoCache(in, a, il) }
}

// LayerNormOut norms the trunk's output and makes it the embeddings.
func (b *Builder) LayerNormOut(cur *graph.Tensor, typ NormType) *graph.Tensor {
	cur = b.Norm(cur, b.OutputNorm(), b.T("output_norm.bias"), typ, -1)
	b.Name(cur, "result_norm", -1)
	b.Embd(cur)
	return cur
}
