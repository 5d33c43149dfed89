package graph

import (
	"math"

	"weigh/formats"
)

// The modes of rotary position embedding (GGML_ROPE_TYPE_*).
const (
	RopeNormal = 0
	RopeNeoX   = 2
	RopeMRope  = 8
	RopeVision = 24
	RopeIMRope = 40
)

// SoftMax normalises each row of the packed tensor a.
func (g *Graph) SoftMax(a *Tensor) *Tensor { return g.softMax(g.like(OpSoftMax, a), a, nil, 0) }

// SoftMaxInplace is SoftMax in the memory of a.
func (g *Graph) SoftMaxInplace(a *Tensor) *Tensor {
	return g.softMax(g.over(OpSoftMax, a), a, nil, 0)
}

// SoftMaxExt normalises each row of the packed tensor a after scaling it and
// adding mask (F16 or F32, nil for none) with ALiBi slopes of up to maxBias.
// Params: 1 the bits of maxBias.
func (g *Graph) SoftMaxExt(a, mask *Tensor, maxBias float32) *Tensor {
	return g.softMax(g.like(OpSoftMax, a), a, mask, maxBias)
}

// SoftMaxExtInplace is SoftMaxExt in the memory of a.
func (g *Graph) SoftMaxExtInplace(a, mask *Tensor, maxBias float32) *Tensor {
	return g.softMax(g.over(OpSoftMax, a), a, mask, maxBias)
}

func (g *Graph) softMax(t, a, mask *Tensor, maxBias float32) *Tensor {
	g.must1(OpSoftMax, a.Contiguous(), "want packed memory", a)
	if mask != nil {
		g.must(OpSoftMax, mask.Type == formats.F16 || mask.Type == formats.F32, "want an F16 or F32 mask", a, mask)
		g.must(OpSoftMax, mask.Contiguous() && mask.Ne[0] == a.Ne[0] && mask.Ne[1] >= a.Ne[1] &&
			divides(mask.Ne[2], a.Ne[2]) && divides(mask.Ne[3], a.Ne[3]), "the mask does not fit", a, mask)
	} else if maxBias > 0 {
		g.fail(OpSoftMax, "a bias needs a mask")
	}
	t.Src[1] = mask
	t.Params[1] = int32(math.Float32bits(maxBias))
	return t
}

// SoftMaxAddSinks gives the soft max t one sink (F32) per head, or none for
// nil: operand 2.
func (g *Graph) SoftMaxAddSinks(t, sinks *Tensor) {
	g.addSinks(OpSoftMax, t, sinks, 2)
}

func (g *Graph) addSinks(op Op, t, sinks *Tensor, at int) {
	g.need(op, t, t)
	if sinks == nil {
		t.Src[at] = nil
		return
	}
	if t.Op != op || t.Src[at] != nil {
		g.fail(op, "sinks are given to %v, or twice", t.Op)
	}
	g.must(op, t.Src[0].Ne[2] == sinks.Ne[0] && sinks.Type == formats.F32, "want an F32 sink for each head", t.Src[0], sinks)
	t.Src[at] = sinks
}

// DiagMaskInf masks what follows the position of each row.
func (g *Graph) DiagMaskInf(a *Tensor) *Tensor { return g.like(OpDiagMaskInf, a) }

// DiagMaskInfInplace is DiagMaskInf in the memory of a.
func (g *Graph) DiagMaskInfInplace(a *Tensor) *Tensor { return g.over(OpDiagMaskInf, a) }

// Rope rotates nRot elements of each row of a [n, n_head, n_tokens] by the
// positions pos (I32, one per token, four in the M-RoPE modes); freqs (F32) are
// frequency factors, nil for none. Params: 1 nRot, 2 mode, 3 the offset given
// to RopeSetOffset.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_rope_impl.
func (g *Graph) Rope(a, pos, freqs *Tensor, nRot, mode int) *Tensor {
	return g.rope(g.like(OpRope, a), a, pos, freqs, nRot, mode)
}

// RopeInplace is Rope in the memory of a.
func (g *Graph) RopeInplace(a, pos, freqs *Tensor, nRot, mode int) *Tensor {
	return g.rope(g.over(OpRope, a), a, pos, freqs, nRot, mode)
}

// RopeMulti is Rope with sections of the row rotated by different positions;
// sections change no shape.
func (g *Graph) RopeMulti(a, pos, freqs *Tensor, nRot, mode int) *Tensor {
	return g.Rope(a, pos, freqs, nRot, mode)
}

// RopeBack undoes Rope.
func (g *Graph) RopeBack(a, pos, freqs *Tensor, nRot, mode int) *Tensor {
	return g.rope(g.like(OpRopeBack, a), a, pos, freqs, nRot, mode)
}

func (g *Graph) rope(t, a, pos, freqs *Tensor, nRot, mode int) *Tensor {
	g.need(OpRope, a, pos)
	if mode&1 != 0 {
		g.fail(OpRope, "mode %d is not supported", mode)
	}
	n := a.Ne[2]
	if mode&RopeMRope != 0 {
		n *= 4
	}
	g.must(OpRope, pos.vector() && pos.Type == formats.I32 && pos.Ne[0] == n, "want I32 positions for each token", a, pos)
	if freqs != nil {
		g.must(OpRope, freqs.Type == formats.F32 && freqs.Ne[0] >= int64(nRot/2), "want an F32 factor for each frequency", a, freqs)
	}
	t.Src[1], t.Src[2] = pos, freqs
	t.Params[1], t.Params[2] = int32(nRot), int32(mode)
	return t
}

// RopeSetOffset makes the rope t rotate from element nOffs of each row on.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_rope_set_offset.
func (g *Graph) RopeSetOffset(t *Tensor, nOffs int) *Tensor {
	g.need(OpRope, t, t)
	if t.Op != OpRope && t.Op != OpRopeBack || nOffs < 0 || t.Params[2] == RopeVision {
		g.fail(OpRope, "%v cannot take offset %d", t.Op, nOffs)
	}
	t.Params[3] = int32(nOffs)
	return t
}

// FlashAttnExt attends with the queries q [n_embd_k, n_tokens, n_head,
// n_stream] to the keys k [n_embd_k, n_kv, n_head_kv, n_stream] and values v
// [n_embd_v, n_kv, n_head_kv, n_stream] under mask (F16, nil for none): F32 of
// [n_embd_v, n_head, n_tokens, n_stream]. Params: 1 and 2 the bits of maxBias
// and softcap, 3 the precision, 4 the bound given to FlashAttnExtSetNKVMax.
func (g *Graph) FlashAttnExt(q, k, v, mask *Tensor, maxBias, softcap float32) *Tensor {
	g.need3(OpFlashAttnExt, q, k, v)
	g.must(OpFlashAttnExt, canMulMat(k, q) && q.Ne[3] == k.Ne[3], "keys do not fit queries", q, k)
	g.must(OpFlashAttnExt, q.Ne[3] == v.Ne[3], "values do not fit queries", q, v)
	if mask != nil {
		g.must(OpFlashAttnExt, mask.Type == formats.F16 && mask.Contiguous() &&
			divides(mask.Ne[2], q.Ne[2]) && divides(mask.Ne[3], q.Ne[3]), "want a packed F16 mask that fits queries", q, mask)
	} else if maxBias > 0 {
		g.fail(OpFlashAttnExt, "a bias needs a mask")
	}
	t := g.node(OpFlashAttnExt, formats.F32, [4]int64{v.Ne[0], q.Ne[2], q.Ne[1], q.Ne[3]})
	t.Src[0], t.Src[1], t.Src[2], t.Src[3] = q, k, v, mask
	t.Params[1], t.Params[2] = int32(math.Float32bits(maxBias)), int32(math.Float32bits(softcap))
	return t
}

// FlashAttnExtAddSinks gives the flash attention t one sink (F32) per head, or
// none for nil: operand 4.
func (g *Graph) FlashAttnExtAddSinks(t, sinks *Tensor) {
	g.addSinks(OpFlashAttnExt, t, sinks, 4)
}

// FlashAttnExtSetNKVMax bounds the finite mask entries of each row, 0 for no
// bound.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_flash_attn_ext_set_n_kv_max.
func (g *Graph) FlashAttnExtSetNKVMax(t *Tensor, nKVMax int) {
	g.need(OpFlashAttnExt, t, t)
	if t.Op != OpFlashAttnExt || nKVMax < 0 || nKVMax > math.MaxInt32 {
		g.fail(OpFlashAttnExt, "%v cannot take the bound %d", t.Op, nKVMax)
	}
	t.Params[4] = int32(nKVMax)
}
