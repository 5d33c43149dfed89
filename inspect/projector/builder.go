package projector

import (
	"fmt"
	"slices"

	"weigh/formats"
	"weigh/inspect/graph"
)

// A builder appends one encoder's graph, operator by operator in the order of
// llama.cpp.
//
// Source of all blocks: tools/mtmd/clip.cpp@v0.5.0, clip_graph.
type builder struct {
	*graph.Graph
	*hparams
	t      *Tower
	flash  bool
	buf    int16
	leafs  map[int]*graph.Tensor
	nx, ny int64 // pixels, or frames and mel bins
	px, py int64 // patches
	n      int64 // patches in all
	e, dh  int64 // embedding and head width
	batch  int64
	clamp  bool // products are clipped
}

// An act is the activation of a feed-forward block (enum ffn_op_type).
type act uint8

const (
	gelu act = iota
	geluErf
	silu
	geluQuick
	reluSqr
)

// w returns a weight, nil when the file has none.
func (b *builder) w(name string) *graph.Tensor {
	i, ok := b.t.p.index[name]
	if !ok {
		return nil
	}
	if t := b.leafs[i]; t != nil {
		return t
	}
	x := &b.t.p.tensors[i]
	ne := make([]int64, 4)
	for d := range ne {
		ne[d] = 1
		if d < len(x.Shape) {
			ne[d] = int64(x.Shape[d])
		}
	}
	t := b.Leaf(x.Name, x.Type, ne...)
	t.Flags, t.Buf = graph.Weight, b.buf
	b.leafs[i] = t
	return t
}

// need is w for a weight that must be there.
func (b *builder) need(name string) *graph.Tensor {
	t := b.w(name)
	if t == nil {
		b.Fail("tensor %.80q is missing", name)
	}
	return t
}

// at returns the name of a numbered weight.
func at(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// lw returns a weight of layer il.
func (b *builder) lw(il int, name string) *graph.Tensor {
	if b.t.Audio {
		return b.w(at("a.blk.%d.%s", il, name))
	}
	return b.w(at("v.blk.%d.%s", il, name))
}

// global returns a weight of the tower outside its layers.
func (b *builder) global(name string) *graph.Tensor {
	if b.t.Audio {
		return b.w("a." + name)
	}
	return b.w("v." + name)
}

// input returns a tensor that is filled before the graph runs.
func (b *builder) input(typ formats.DType, ne ...int64) *graph.Tensor {
	t := b.Leaf("", typ, ne...)
	t.Flags |= graph.Input
	return t
}

func (b *builder) ids(n int64) *graph.Tensor { return b.input(formats.I32, n) }

// mm multiplies by a weight. (build_mm)
func (b *builder) mm(w, x *graph.Tensor) *graph.Tensor {
	if w == nil {
		b.Fail("a matrix is missing")
	}
	if b.clamp {
		return b.Clamp(b.MulMat(w, b.Clamp(x)))
	}
	return b.MulMat(w, x)
}

// bias adds a weight, if there is one.
func (b *builder) bias(x, w *graph.Tensor) *graph.Tensor {
	if w == nil {
		return x
	}
	return b.Add(x, w)
}

// norm normalises, scales and shifts. (build_norm)
func (b *builder) norm(x, w, bias *graph.Tensor, rms bool) *graph.Tensor {
	if rms {
		x = b.RMSNorm(x)
	} else {
		x = b.Norm(x)
	}
	if w != nil {
		x = b.Mul(x, w)
	}
	return b.bias(x, bias)
}

func (b *builder) layerNorm(il int, name string, x *graph.Tensor, rms bool) *graph.Tensor {
	return b.norm(x, b.lw(il, name+".weight"), b.lw(il, name+".bias"), rms)
}

// normNamed norms by the weights of that name.
func (b *builder) normNamed(x *graph.Tensor, name string, rms bool) *graph.Tensor {
	return b.norm(x, b.w(name+".weight"), b.w(name+".bias"), rms)
}

// An ffn holds the weights of a feed-forward block.
type ffn struct{ up, upB, gate, gateB, down, downB *graph.Tensor }

// mlp returns the block of two named matrices.
func (b *builder) mlp(up, down string) ffn {
	return ffn{up: b.need(up + ".weight"), upB: b.w(up + ".bias"), down: b.need(down + ".weight"), downB: b.w(down + ".bias")}
}

// layerFFN returns the block of layer il, turned round where old files have it
// so.
//
// Source: clip_model_loader::load_tensors, is_ffn_swapped.
func (b *builder) layerFFN(il int) ffn {
	f := ffn{
		b.lw(il, "ffn_up.weight"), b.lw(il, "ffn_up.bias"), b.lw(il, "ffn_gate.weight"), b.lw(il, "ffn_gate.bias"),
		b.lw(il, "ffn_down.weight"), b.lw(il, "ffn_down.bias"),
	}
	if b.t.family.swaps && f.up != nil && f.down != nil && f.down.Ne[0] == b.e {
		f.up, f.upB, f.down, f.downB = f.down, f.downB, f.up, f.upB
	}
	return f
}

// feed appends a feed-forward block. (build_ffn)
func (b *builder) feed(cur *graph.Tensor, f ffn, a act) *graph.Tensor {
	up := cur
	if f.up != nil {
		up = b.mm(f.up, cur)
	}
	up = b.bias(up, f.upB)
	if f.gate == nil {
		cur = b.activate(up, a)
	} else {
		gate := b.bias(b.mm(f.gate, cur), f.gateB)
		switch a {
		case silu:
			cur = b.SwiGLUSplit(gate, up)
		case gelu:
			cur = b.GEGLUSplit(gate, up)
		case geluErf:
			cur = b.GEGLUErfSplit(gate, up)
		case geluQuick:
			cur = b.GEGLUQuickSplit(gate, up)
		default:
			cur = b.activate(gate, a)
		}
	}
	if f.down != nil {
		cur = b.mm(f.down, cur)
	}
	return b.bias(cur, f.downB)
}

func (b *builder) activate(x *graph.Tensor, a act) *graph.Tensor {
	switch a {
	case silu:
		return b.SiLU(x)
	case gelu:
		return b.GELU(x)
	case geluErf:
		return b.GELUErf(x)
	case geluQuick:
		return b.GELUQuick(x)
	}
	return b.Sqr(b.ReLU(x))
}

// An attn is what attention reads besides queries, keys and values.
type attn struct{ out, outB, mask, sinks *graph.Tensor }

func (b *builder) layerAttn(il int) attn {
	a := attn{out: b.lw(il, "attn_out.weight"), outB: b.lw(il, "attn_out.bias")}
	if a.out == nil {
		b.Fail("tensor attn_out.weight of layer %d is missing", il)
	}
	return a
}

// attend appends attention over [d_head, n_head, n_pos, batch]. (build_attn)
func (b *builder) attend(q, k, v *graph.Tensor, a attn) *graph.Tensor {
	b.Expand(q)
	b.Expand(k)
	b.Expand(v)
	q, k = b.Permute(q, 0, 2, 1, 3), b.Permute(k, 0, 2, 1, 3)
	var cur *graph.Tensor
	if b.flash {
		v = b.Permute(v, 0, 2, 1, 3)
		k, v = b.Cast(k, formats.F16), b.Cast(v, formats.F16)
		mask := a.mask
		if mask != nil {
			mask = b.Cast(mask, formats.F16)
		}
		cur = b.FlashAttnExt(q, k, v, mask, 0, 0)
		cur.SetPrec(graph.PrecF32)
		if a.sinks != nil {
			b.FlashAttnExtAddSinks(cur, a.sinks)
		}
		cur = b.Reshape2D(cur, cur.Ne[0]*cur.Ne[1], cur.Ne[2]*cur.Ne[3])
	} else {
		v = b.Cont(b.Permute(v, 1, 2, 0, 3))
		kq := b.SoftMaxExt(b.MulMat(k, q), a.mask, 0)
		if a.sinks != nil {
			b.SoftMaxAddSinks(kq, a.sinks)
		}
		cur = b.Permute(b.MulMat(v, kq), 0, 2, 1, 3)
		cur = b.Cont2D(cur, cur.Ne[0]*cur.Ne[1], cur.Ne[2]*cur.Ne[3])
	}
	if a.out != nil {
		cur = b.mm(a.out, cur)
	}
	return b.bias(cur, a.outB)
}

// A vit says how a vision transformer is wired.
type vit struct {
	rms  bool
	act  act
	pos  *graph.Tensor                     // learned positions, nil for none
	rot  func(*graph.Tensor) *graph.Tensor // applied to queries and keys, nil for nothing
	mask *graph.Tensor
	out  func(cur *graph.Tensor, il int) // sees each layer after attention, nil for nothing
	vRMS bool                            // values are normed
	pool bool                            // pairs of positions are averaged at the end
}

// vit appends a vision transformer over inp [n_embd, n_pos, batch]. (build_vit)
func (b *builder) vit(inp *graph.Tensor, nPos int64, o vit) *graph.Tensor {
	batch := inp.Ne[2]
	inp = b.bias(inp, o.pos)
	in := b.Reshape2D(inp, b.e, nPos*batch)
	if w := b.global("pre_ln.weight"); w != nil {
		in = b.norm(in, w, b.global("pre_ln.bias"), o.rms)
	}
	for il := range b.layers {
		cur := b.layerNorm(il, "ln1", in, o.rms)
		a := b.layerAttn(il)
		a.mask = o.mask
		q, k, v := b.qkv(cur, nPos, batch, il, o.rms)
		if o.rot != nil {
			q, k = o.rot(q), o.rot(k)
		}
		if o.vRMS {
			v = b.RMSNorm(v)
		}
		cur = b.attend(q, k, v, a)
		cur = b.scaled(cur, il, "ls1.weight")
		if w := b.lw(il, "attn_post_norm.weight"); w != nil {
			cur = b.norm(cur, w, nil, o.rms)
		}
		cur = b.Add(cur, in)
		in = cur
		if o.out != nil {
			o.out(cur, il)
		}
		cur = b.layerNorm(il, "ln2", cur, o.rms)
		if b.lw(il, "ffn_gate_exps.weight") != nil {
			cur = b.experts(cur, il)
		} else {
			cur = b.feed(cur, b.layerFFN(il), o.act)
		}
		if w := b.lw(il, "ffn_post_norm.weight"); w != nil {
			cur = b.norm(cur, w, nil, o.rms)
		}
		cur = b.Add(in, b.scaled(cur, il, "ls2.weight"))
		in = b.scaled(cur, il, "out_scale.weight")
	}
	if o.pool {
		in = b.Cont(b.Transpose(in))
		in = b.Pool1D(in, graph.PoolAvg, 2, 2, 0)
		in = b.Cont(b.Transpose(in))
	}
	in = b.postNorm(in, o.rms)
	return b.Reshape3D(in, b.e, in.Ne[1]/batch, batch)
}

// postNorm norms after the last layer, where there is such a norm.
func (b *builder) postNorm(cur *graph.Tensor, rms bool) *graph.Tensor {
	w, bias := b.global("post_ln.weight"), b.global("post_ln.bias")
	if b.t.family.postNorm != "" {
		w, bias = b.need(b.t.family.postNorm), nil
	}
	if w == nil {
		return cur
	}
	return b.norm(cur, w, bias, rms)
}

// scaled multiplies by a scale of layer il, where there is one.
func (b *builder) scaled(cur *graph.Tensor, il int, name string) *graph.Tensor {
	if w := b.lw(il, name); w != nil {
		return b.Mul(cur, w)
	}
	return cur
}

// qkv returns queries, keys and values as [d_head, n_head, n_pos, batch].
func (b *builder) qkv(cur *graph.Tensor, nPos, batch int64, il int, rms bool) (q, k, v *graph.Tensor) {
	heads, headsKV := int64(b.heads), int64(b.headsKV)
	qn, kn := b.lw(il, "attn_q_norm.weight"), b.lw(il, "attn_k_norm.weight")
	norms := func() {
		if qn != nil {
			q = b.norm(q, qn, nil, rms)
		}
		if kn != nil {
			k = b.norm(k, kn, nil, rms)
		}
	}
	if w := b.lw(il, "attn_qkv.weight"); w != nil {
		cur = b.bias(b.mm(w, cur), b.lw(il, "attn_qkv.bias"))
		part := func(i uint64) *graph.Tensor {
			return b.View4D(cur, b.dh, heads, nPos, batch, row(b.dh), cur.Nb[1], cur.Nb[1]*uint64(nPos), i*row(heads*b.dh))
		}
		q, k, v = part(0), part(1), part(2)
		norms()
		return q, k, v
	}
	q = b.bias(b.mm(b.lw(il, "attn_q.weight"), cur), b.lw(il, "attn_q.bias"))
	k = b.bias(b.mm(b.lw(il, "attn_k.weight"), cur), b.lw(il, "attn_k.bias"))
	v = b.bias(b.mm(b.lw(il, "attn_v.weight"), cur), b.lw(il, "attn_v.bias"))
	perHead := qn != nil && qn.Ne[0] == b.dh
	if !perHead {
		norms()
	}
	q = b.Reshape4D(q, b.dh, heads, nPos, batch)
	k = b.Reshape4D(k, b.dh, headsKV, nPos, batch)
	v = b.Reshape4D(v, b.dh, headsKV, nPos, batch)
	if perHead {
		norms()
	}
	return q, k, v
}

// row returns the bytes of n F32 elements.
func row(n int64) uint64 { return 4 * uint64(n) }

// experts appends a block of experts. (build_moe_ffn)
func (b *builder) experts(cur *graph.Tensor, il int) *graph.Tensor {
	gateW := b.lw(il, "ffn_gate_exps.weight")
	n, all := cur.Ne[1], gateW.Ne[2]
	used := min(int64(b.expert), all)
	if used <= 0 {
		b.Fail("no expert of layer %d is used", il)
	}
	probs := b.Sigmoid(b.mm(b.lw(il, "ffn_gate_inp.weight"), cur))
	selected := b.TopK(b.bias(probs, b.lw(il, "exp_probs_b.weight")), used)
	weights := b.GetRows(b.Reshape3D(probs, 1, all, n), selected)
	weights = b.Reshape2D(weights, used, n)
	weights = b.Div(weights, b.SumRows(weights))
	weights = b.Reshape3D(weights, 1, used, n)
	cur = b.Reshape3D(cur, cur.Ne[0], 1, n)
	gate := b.MulMatID(gateW, cur, selected)
	up := b.MulMatID(b.lw(il, "ffn_up_exps.weight"), cur, selected)
	cur = b.Mul(b.SiLU(gate), up)
	cur = b.MulMatID(b.lw(il, "ffn_down_exps.weight"), cur, selected)
	cur = b.Mul(cur, weights)
	var out *graph.Tensor
	for i := range used {
		v := b.View2D(cur, cur.Ne[0], n, cur.Nb[2], uint64(i)*cur.Nb[1])
		if out == nil {
			out = v
			continue
		}
		out = b.Add(out, v)
	}
	if used == 1 {
		out = b.Cont(out)
	}
	return out
}

// raw returns the image, [nx, ny, channels, batch]. (build_inp_raw)
func (b *builder) raw(channels int64) *graph.Tensor {
	return b.input(f32, b.nx, b.ny, channels, b.batch)
}

// conv convolves with stride s and padding p.
func (b *builder) conv(w, x *graph.Tensor, s, p int) *graph.Tensor {
	if w == nil {
		b.Fail("a kernel is missing")
	}
	return b.Conv2D(w, x, s, s, p, p, 1, 1)
}

// patches returns the embedded patches, [n_embd, n_patches, batch]. (build_inp)
func (b *builder) patches() *graph.Tensor {
	return b.bias(b.flat(b.conv(b.need("v.patch_embd.weight"), b.raw(3), b.patch, 0)), b.w("v.patch_embd.bias"))
}

// flat makes rows of embeddings of convolved patches.
func (b *builder) flat(inp *graph.Tensor) *graph.Tensor {
	return b.Cont(b.Transpose(b.Reshape3D(inp, b.n, b.e, b.batch)))
}

// twoFrames returns patches of which two frames are summed, regrouped so that
// the four of a token follow each other: [n_embd, n_patches].
func (b *builder) twoFrames() *graph.Tensor {
	raw := b.raw(3)
	inp := b.Add(b.conv(b.need("v.patch_embd.weight"), raw, b.patch, 0), b.conv(b.need("v.patch_embd.weight.1"), raw, b.patch, 0))
	return b.regroup(b.Permute(inp, 1, 2, 0, 3), 2)
}

// regroup lets the m by m patches of a token follow each other.
func (b *builder) regroup(x *graph.Tensor, m int64) *graph.Tensor {
	x = b.Cont4D(x, b.e*m, b.px/m, b.py, 1)
	x = b.Reshape4D(x, b.e*m, b.px/m, m, b.py/m)
	return b.Cont3D(b.Permute(x, 0, 2, 1, 3), b.e, b.n, 1)
}

// positions returns the learned positions, stretched to the image.
// (resize_position_embeddings)
func (b *builder) positions(mode int) *graph.Tensor {
	pos := b.need("v.position_embd.weight")
	side := int64(0)
	for (side+1)*(side+1) <= pos.Ne[1] {
		side++
	}
	if b.px == side && b.py == side {
		return pos
	}
	pos = b.Permute(b.Reshape3D(pos, b.e, side, side), 2, 0, 1, 3)
	pos = b.Permute(b.Interpolate(pos, b.px, b.py, b.e, 1, mode), 1, 2, 0, 3)
	return b.Cont2D(pos, b.e, b.n)
}

// stretch is how positions are stretched unless a model says otherwise.
const stretch = graph.ScaleBilinear | graph.ScaleAntialias

// rope2D rotates one half of each head by each position. (build_rope_2d)
func (b *builder) rope2D(first, second *graph.Tensor, mode int) func(*graph.Tensor) *graph.Tensor {
	return func(x *graph.Tensor) *graph.Tensor {
		half := int(x.Ne[0] / 2)
		return b.RopeSetOffset(b.Rope(b.Rope(x, first, nil, half, mode), second, nil, half, mode), half)
	}
}

// ropeVision rotates by four positions for each patch.
func (b *builder) ropeVision() func(*graph.Tensor) *graph.Tensor {
	pos := b.ids(b.n * 4)
	return func(x *graph.Tensor) *graph.Tensor { return b.RopeMulti(x, pos, nil, int(b.dh/2), graph.RopeVision) }
}

// shuffle merges squares of m by m patches into one token each.
// (build_patch_merge_permute)
func (b *builder) shuffle(cur *graph.Tensor) *graph.Tensor {
	m := int64(b.merge)
	if m < 2 {
		b.Fail("projector scale %d, want at least 2", m)
	}
	e, w, h := cur.Ne[0], b.px, b.py
	padW, padH := (m-w%m)%m, (m-h%m)%m
	cur = b.Reshape3D(cur, e, w, h)
	if padW > 0 || padH > 0 {
		cur = b.Pad(cur, 0, int(padW), int(padH), 0)
		w, h = w+padW, h+padH
	}
	cur = b.Permute(b.Reshape3D(cur, e*m, w/m, h), 0, 2, 1, 3)
	cur = b.Permute(b.Cont3D(cur, e*m*m, h/m, w/m), 0, 2, 1, 3)
	return b.Cont2D(cur, cur.Ne[0], cur.Ne[1]*cur.Ne[2])
}

// stacked joins frames of audio. (build_stack)
func (b *builder) stacked(cur *graph.Tensor) *graph.Tensor {
	if b.stack <= 1 {
		return cur
	}
	stride := b.e * int64(b.stack)
	n := cur.Elements()
	padded := (n + stride - 1) / stride * stride
	if padded > n {
		cur = b.Pad(b.View1D(cur, n, 0), int(padded-n), 0, 0, 0)
	}
	return b.View2D(cur, stride, padded/stride, row(stride), 0)
}

// isFeature reports whether layer il's input is an output of the tower.
func (b *builder) isFeature(il int) bool { return slices.Contains(b.features, il) }
