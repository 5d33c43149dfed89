package projector

import (
	"weigh/formats"
	"weigh/inspect/graph"
)

// resamplerQueries are the tokens that MiniCPM-V makes of an image.
func resamplerQueries(k *keys, h *hparams) {
	k.prefix = "clip."
	h.queries = k.int("minicpmv_query_num", 0)
	version := k.int("minicpmv_version", 0)
	k.prefix = "clip.vision."
	if h.queries == 0 {
		if h.queries = 96; version >= 3 && version <= 6 || version == 100045 {
			h.queries = 64
		}
	}
}

// miniCPMV resamples patches into a fixed number of tokens.
//
// Source: tools/mtmd/models/minicpmv.cpp@v0.5.0.
func miniCPMV(b *builder) *graph.Tensor {
	proj := b.need("resampler.proj.weight")
	omega := b.input(f32, proj.Ne[0]/4)
	h, w := b.input(f32, 1, b.n), b.input(f32, 1, b.n)
	pos := b.GetRows(b.need("v.position_embd.weight"), b.ids(b.n))
	cur := b.vit(b.patches(), b.n, vit{act: b.act, pos: pos})
	q := b.need("resampler.query")
	v := b.mm(b.need("resampler.kv.weight"), cur)
	q, v = b.affine(q, "resampler.ln_q"), b.affine(v, "resampler.ln_kv")
	wide := b.Repeat4D(omega, omega.Ne[0], b.n, 1, 1)
	x, y := b.Mul(wide, w), b.Mul(wide, h)
	wave := func(t *graph.Tensor) *graph.Tensor { return b.Concat(b.Sin(t), b.Cos(t), 0) }
	k := b.Add(v, b.Concat(wave(x), wave(y), 0))
	const d = 128
	heads := proj.Ne[0] / d
	part := func(t *graph.Tensor, name string, n int64) *graph.Tensor {
		return b.Reshape3D(b.linear(t, "resampler.attn."+name), d, heads, n)
	}
	cur = b.attend(part(q, "q", int64(b.queries)), part(k, "k", b.n), part(v, "v", b.n),
		attn{out: b.need("resampler.attn.out.weight"), outB: b.w("resampler.attn.out.bias")})
	return b.mm(proj, b.affine(cur, "resampler.ln_post"))
}

func miniCPMV46Sizes(k *keys, h *hparams) {
	h.merge = k.int("projector.scale_factor", 4)
	if at := k.ints("wa_layer_indexes"); len(at) > 0 {
		h.insert = at[0]
	}
}

// miniCPMV46 merges squares of patches after a layer, and once more at the end.
//
// Source: tools/mtmd/models/minicpmv.cpp@v0.5.0, clip_graph_minicpmv4_6.
func miniCPMV46(b *builder) *graph.Tensor {
	hh, hw := b.py/2, b.px/2
	half := hh * hw
	quarter := half
	if b.merge != 2 {
		quarter = hh / 2 * (hw / 2)
	}
	cur := b.Add(b.patches(), b.GetRows(b.need("v.position_embd.weight"), b.ids(b.n)))
	if w := b.w("v.pre_ln.weight"); w != nil {
		cur = b.norm(cur, w, b.w("v.pre_ln.bias"), false)
	}
	heads := int64(b.heads)
	layers := func(in *graph.Tensor, from, to int, n int64) *graph.Tensor {
		for il := from; il < to; il++ {
			cur := b.layerNorm(il, "ln1", in, false)
			part := func(name string) *graph.Tensor {
				t := b.bias(b.mm(b.lw(il, name+".weight"), cur), b.lw(il, name+".bias"))
				return b.Reshape3D(t, b.dh, heads, n)
			}
			q, k, v := part("attn_q"), part("attn_k"), part("attn_v")
			in = b.Add(b.scaled(b.attend(q, k, v, b.layerAttn(il)), il, "ls1.weight"), in)
			cur = b.feed(b.layerNorm(il, "ln2", in, false), b.layerFFN(il), b.act)
			in = b.Add(in, b.scaled(cur, il, "ls2.weight"))
		}
		return in
	}
	// four takes the four neighbours of each of n positions.
	four := func(in *graph.Tensor, n int64) (p [4]*graph.Tensor, joined *graph.Tensor) {
		for i := range p {
			p[i] = b.GetRows(in, b.ids(n))
		}
		return p, b.Concat(b.Concat(b.Concat(p[0], p[1], 0), p[2], 0), p[3], 0)
	}
	if b.merge == 2 {
		cur = layers(cur, 0, b.layers, b.n)
	} else {
		if b.insert >= b.layers {
			b.Fail("the merger is after layer %d of %d", b.insert, b.layers)
		}
		cur = layers(cur, 0, b.insert+1, b.n)
		mask := b.input(f32, b.n, b.n)
		if b.flash {
			mask = b.Cast(mask, formats.F16)
		}
		in := b.GetRows(b.normNamed(cur, "v.vit_merger.ln1", false), b.ids(b.n))
		part := func(name string) *graph.Tensor {
			return b.Reshape3D(b.linear(in, "v.vit_merger."+name), b.dh, heads, b.n)
		}
		q, k, v := part("attn_q"), part("attn_k"), part("attn_v")
		out := b.attend(q, k, v, attn{out: b.need("v.vit_merger.attn_out.weight"), outB: b.w("v.vit_merger.attn_out.bias"), mask: mask})
		cur = b.Add(b.GetRows(out, b.ids(b.n)), cur)
		p, joined := four(cur, half)
		mean := b.Scale(b.Add(b.Add(b.Add(p[0], p[1]), p[2]), p[3]))
		joined = b.normNamed(joined, "v.vit_merger.ds_ln", false)
		cur = b.Add(b.feed(joined, b.mlp("v.vit_merger.ds_ffn_up", "v.vit_merger.ds_ffn_down"), gelu), mean)
		cur = layers(cur, b.insert+1, b.layers, half)
	}
	cur = b.postNorm(cur, false)
	_, joined := four(cur, quarter)
	return b.feed(b.normNamed(joined, "mm.input_norm", false), b.mlp("mm.up", "mm.down"), geluErf)
}
