package projector

import "weigh/inspect/graph"

// A mobileBlock names one block of a stage: v.blk.STAGE.INDEX.
type mobileBlock struct{ stage, index int }

// mobileStages is the most stages of the network.
const mobileStages = 4

// mobileNet is Gemma 3n's MobileNetV5.
//
// Source: tools/mtmd/models/mobilenetv5.cpp@v0.5.0.
func mobileNet(b *builder) *graph.Tensor {
	cur := b.padSame(b.raw(3), 3, 2)
	cur = b.bias(b.direct(b.need("v.conv_stem.conv.weight"), cur, 2, 0), b.w("v.conv_stem.conv.bias"))
	cur = b.GELU(b.rms2D(cur, b.w("v.conv_stem.bn.weight")))

	var blocks []mobileBlock
	var ends []int
	for s := range mobileStages {
		n := 0
		for b.mobileExists(s, n) {
			blocks = append(blocks, mobileBlock{s, n})
			n++
		}
		if n > 0 {
			ends = append(ends, len(blocks)-1)
		}
	}
	fused := map[int]bool{len(blocks) - 1: true}
	if len(ends) >= mobileStages {
		fused = map[int]bool{ends[2]: true, ends[3]: true}
	}
	var features []*graph.Tensor
	for i, k := range blocks {
		stride := 1
		if k.index == 0 {
			stride = 2
		}
		cur = b.mobile(cur, k, stride)
		if fused[i] {
			features = append(features, cur)
		}
	}
	if len(features) > 0 {
		cur = b.mobileFuse(features)
	}
	w, h, c, n := cur.Ne[0], cur.Ne[1], cur.Ne[2], cur.Ne[3]
	cur = b.Cont(b.Permute(b.Permute(cur, 2, 1, 0, 3), 0, 2, 1, 3))
	cur = b.Scale(b.Cont(b.Reshape3D(cur, c, w*h, n)))
	cur = b.Mul(b.RMSNorm(cur), b.need("mm.soft_emb_norm.weight"))
	return b.RMSNorm(b.mm(b.need("mm.input_projection.weight"), cur))
}

func (b *builder) mw(k mobileBlock, name string) *graph.Tensor {
	return b.w(at("v.blk.%d.%d.%s.weight", k.stage, k.index, name))
}

func (b *builder) mobileExists(stage, index int) bool {
	k := mobileBlock{stage, index}
	return b.mw(k, "conv_exp") != nil || b.mw(k, "dw_start.conv") != nil || b.mw(k, "pw_exp.conv") != nil || b.mw(k, "attn.query.proj") != nil
}

// direct convolves in one operator.
func (b *builder) direct(w, x *graph.Tensor, s, p int) *graph.Tensor {
	if w == nil {
		b.Fail("a kernel is missing")
	}
	return b.Conv2DDirect(w, x, s, s, p, p, 1, 1)
}

// depthwise convolves each channel by itself.
func (b *builder) depthwise(w, x *graph.Tensor, s, p int) *graph.Tensor {
	return b.Conv2DDW(w, x, s, s, p, p, 1, 1)
}

// rms2D norms over channels, where there is a weight.
func (b *builder) rms2D(x, w *graph.Tensor) *graph.Tensor {
	if w == nil {
		return x
	}
	x = b.Mul(b.RMSNorm(b.Cont(b.Permute(x, 2, 1, 0, 3))), w)
	return b.Cont(b.Permute(x, 2, 1, 0, 3))
}

// padSame pads so that a kernel k with stride s covers all.
func (b *builder) padSame(x *graph.Tensor, k, s int) *graph.Tensor {
	lack := func(n int64) int {
		out := (n + int64(s) - 1) / int64(s)
		return int(max(0, (out-1)*int64(s)+int64(k-1)+1-n))
	}
	w, h := lack(x.Ne[0]), lack(x.Ne[1])
	if w == 0 && h == 0 {
		return x
	}
	return b.PadExt(x, w/2, w-w/2, h/2, h-h/2, 0, 0, 0, 0)
}

// mobile appends one block.
func (b *builder) mobile(in *graph.Tensor, k mobileBlock, stride int) *graph.Tensor {
	switch {
	case b.mw(k, "conv_exp") != nil:
		cur := in
		if stride == 2 {
			cur = b.direct(b.mw(k, "conv_exp"), b.padSame(in, 3, 2), 2, 0)
		} else {
			cur = b.direct(b.mw(k, "conv_exp"), in, 1, 1)
		}
		cur = b.GELU(b.rms2D(cur, b.mw(k, "bn1")))
		cur = b.rms2D(b.direct(b.mw(k, "conv_pwl"), cur, 1, 0), b.mw(k, "bn2"))
		if stride == 1 && in.Ne[2] == cur.Ne[2] && in.Ne[0] == cur.Ne[0] {
			cur = b.Add(cur, in)
		}
		return cur
	case b.mw(k, "attn.query.proj") != nil:
		return b.mobileAttend(in, k)
	}
	cur := in
	if w := b.mw(k, "dw_start.conv"); w != nil {
		cur = b.rms2D(b.depthwise(w, cur, 1, int(w.Ne[0]/2)), b.mw(k, "dw_start.bn"))
	}
	if w := b.mw(k, "pw_exp.conv"); w != nil {
		cur = b.GELU(b.rms2D(b.direct(w, cur, 1, 0), b.mw(k, "pw_exp.bn")))
	}
	if w := b.mw(k, "dw_mid.conv"); w != nil {
		if stride > 1 {
			cur = b.depthwise(w, b.padSame(cur, int(w.Ne[0]), stride), stride, 0)
		} else {
			cur = b.depthwise(w, cur, 1, int(w.Ne[0]/2))
		}
		cur = b.GELU(b.rms2D(cur, b.mw(k, "dw_mid.bn")))
	}
	if w := b.mw(k, "pw_proj.conv"); w != nil {
		cur = b.rms2D(b.direct(w, cur, 1, 0), b.mw(k, "pw_proj.bn"))
	}
	if g := b.gamma(k); g != nil {
		cur = b.Mul(cur, g)
	}
	if in.Ne[0] == cur.Ne[0] && in.Ne[1] == cur.Ne[1] && in.Ne[2] == cur.Ne[2] {
		cur = b.Add(cur, in)
	}
	return cur
}

func (b *builder) gamma(k mobileBlock) *graph.Tensor {
	return b.w(at("v.blk.%d.%d.layer_scale.gamma", k.stage, k.index))
}

// mobileAttend is attention with one head of keys and values, on a coarser
// grid.
func (b *builder) mobileAttend(in *graph.Tensor, k mobileBlock) *graph.Tensor {
	cur := b.rms2D(in, b.mw(k, "norm"))
	q := b.direct(b.mw(k, "attn.query.proj"), cur, 1, 0)
	coarse := func(name string) *graph.Tensor {
		x := cur
		if w := b.mw(k, "attn."+name+".down_conv"); w != nil {
			x = b.depthwise(w, b.padSame(cur, int(w.Ne[0]), 2), 2, 0)
			x = b.rms2D(x, b.mw(k, "attn."+name+".norm"))
		}
		return b.direct(b.mw(k, "attn."+name+".proj"), x, 1, 0)
	}
	key, val := coarse("key"), coarse("value")
	w, h, batch, d := cur.Ne[0], cur.Ne[1], cur.Ne[3], key.Ne[2]
	heads, n, m := q.Ne[2]/d, w*h, key.Ne[0]*key.Ne[1]
	q = b.Cont(b.Permute(b.Reshape4D(b.Reshape3D(q, n, d*heads, batch), n, d, heads, batch), 1, 0, 2, 3))
	key = b.Cont(b.Permute(b.Reshape4D(b.Reshape3D(key, m, d, batch), m, d, 1, batch), 1, 0, 2, 3))
	val = b.Cont(b.Reshape4D(b.Reshape3D(val, m, d, batch), m, d, 1, batch))
	out := b.MulMat(val, b.SoftMax(b.Scale(b.MulMat(key, q))))
	out = b.Cont(b.Permute(out, 1, 0, 2, 3))
	out = b.Cont(b.Reshape4D(b.Reshape3D(out, n, d*heads, batch), w, h, d*heads, batch))
	cur = b.direct(b.mw(k, "attn.output.proj"), out, 1, 0)
	if in.Ne[0] == cur.Ne[0] && in.Ne[2] == cur.Ne[2] {
		if g := b.gamma(k); g != nil {
			cur = b.Mul(cur, g)
		}
		cur = b.Add(cur, in)
	}
	return cur
}

// mobileFuse joins features of several scales and reduces them to 16 by 16.
func (b *builder) mobileFuse(features []*graph.Tensor) *graph.Tensor {
	high := features[0]
	var cur *graph.Tensor
	for _, f := range features {
		if f.Ne[0] < high.Ne[0] || f.Ne[1] < high.Ne[1] {
			f = b.Upscale(f, int(high.Ne[0]/f.Ne[0]), graph.ScaleNearest)
		}
		if cur == nil {
			cur = f
			continue
		}
		cur = b.Concat(cur, f, 2)
	}
	if w := b.w("v.msfa.ffn.pw_exp.conv.weight"); w != nil {
		cur = b.GELU(b.rms2D(b.direct(w, cur, 1, 0), b.w("v.msfa.ffn.pw_exp.bn.weight")))
	}
	if w := b.w("v.msfa.ffn.pw_proj.conv.weight"); w != nil {
		cur = b.rms2D(b.direct(w, cur, 1, 0), b.w("v.msfa.ffn.pw_proj.bn.weight"))
	}
	const out = 16
	if s := int(cur.Ne[0] / out); cur.Ne[0] > out {
		cur = b.Pool2D(cur, graph.PoolAvg, s, s, s, s, 0, 0)
	}
	return b.rms2D(cur, b.w("v.msfa.norm.weight"))
}
