package arch

import (
	"weigh/formats"
	"weigh/inspect/graph"
)

// nextN is how a NextN block starts: the normed embeddings of the next tokens
// beside the normed hidden state, projected to one. It returns the block's
// layer as well.
func (b *Builder) nextN(typ NormType) (cur *graph.Tensor, il int) {
	il = b.NLayer()
	if il >= b.NLayerAll {
		b.Fail("the model has no NextN block")
	}
	w := b.W(il, "nextn.embed_tokens.weight")
	if w == nil {
		w = b.TokEmbd()
	}
	n := int64(b.NTokens)
	tokens := b.GetRows(w, b.InputT("inp_tokens", formats.I32, n))
	hidden := b.InputT("mtp_h_input", formats.F32, int64(b.NEmbd), n)
	h := b.Norm(hidden, b.W(il, "nextn.hnorm.weight"), nil, typ, il)
	e := b.Norm(tokens, b.W(il, "nextn.enorm.weight"), nil, typ, il)
	return b.MM(b.W(il, "nextn.eh_proj.weight"), b.Concat(e, h, 0), b.W(il, "nextn.eh_proj.scale")), il
}

// nextNHead norms a NextN block's output, picks the rows of outputs, unless
// outIDs is nil, and returns the logits. norm is the weight that stands in for
// nextn.shared_head_norm.
func (b *Builder) nextNHead(cur, outIDs, norm *graph.Tensor, typ NormType, il int) *graph.Tensor {
	if w := b.W(il, "nextn.shared_head_norm.weight"); w != nil {
		norm = w
	}
	cur = b.Norm(cur, norm, nil, typ, -1)
	b.HNextN(cur)
	if outIDs != nil {
		cur = b.GetRows(cur, outIDs)
	}
	head, scale := b.W(il, "nextn.shared_head_head.weight"), b.W(il, "nextn.shared_head_head.scale")
	if head == nil {
		head, scale = b.OutputW(), b.T("output.scale")
	}
	return b.MM(head, cur, scale)
}
