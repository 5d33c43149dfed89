package arch

import (
	"weigh/formats"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

// QKV appends the query, key and value projections of layer il, fused or
// apart, as [head][heads][NTokens]. (build_qkv)
func (b *Builder) QKV(cur *graph.Tensor, headDim, nHead, nHeadKV, il int) (q, k, v *graph.Tensor) {
	return b.QKVDims(cur, headDim, nHead, headDim, nHeadKV, headDim, nHeadKV, il)
}

// QKVDims is QKV with head widths of their own.
func (b *Builder) QKVDims(cur *graph.Tensor, dq, nq, dk, nk, dv, nv, il int) (q, k, v *graph.Tensor) {
	q, k, v, fused := b.qkvFlat(cur, dq*nq, dk*nk, il, true)
	n := int64(b.NTokens)
	if fused != nil {
		row := func(elems int) uint64 { return fused.Type.RowBytes(uint64(elems)) }
		q = b.View3D(fused, int64(dq), int64(nq), n, row(dq), fused.Nb[1], 0)
		k = b.View3D(fused, int64(dk), int64(nk), n, row(dk), fused.Nb[1], row(dq*nq))
		v = b.View3D(fused, int64(dv), int64(nv), n, row(dv), fused.Nb[1], row(dq*nq+dk*nk))
	} else {
		q = b.Reshape3D(q, int64(dq), int64(nq), n)
		k = b.Reshape3D(k, int64(dk), int64(nk), n)
		v = b.Reshape3D(v, int64(dv), int64(nv), n)
	}
	b.Name(q, "Qcur", il)
	b.Name(k, "Kcur", il)
	b.Name(v, "Vcur", il)
	return q, k, v
}

// QKVFlat is QKV without the split into heads: contiguous [width][NTokens].
func (b *Builder) QKVFlat(cur *graph.Tensor, nq, nk, nv, il int) (q, k, v *graph.Tensor) {
	q, k, v, fused := b.qkvFlat(cur, nq, nk, il, false)
	if fused == nil {
		return q, k, v
	}
	n := int64(b.NTokens)
	row := func(elems int) uint64 { return fused.Type.RowBytes(uint64(elems)) }
	q = b.View2D(fused, int64(nq), n, fused.Nb[1], 0)
	k = b.View2D(fused, int64(nk), n, fused.Nb[1], row(nq))
	v = b.View2D(fused, int64(nv), n, fused.Nb[1], row(nq+nk))
	return b.Cont(q), b.Cont(k), b.Cont(v)
}

// qkvFlat projects; fused is set, and the others nil, when one matrix holds all.
func (b *Builder) qkvFlat(cur *graph.Tensor, _, _, il int, clamp bool) (q, k, v, fused *graph.Tensor) {
	clamp = clamp && b.ClampKQV > 0
	if w := b.W(il, "attn_qkv.weight"); w != nil {
		fused = b.MM(w, cur, b.W(il, "attn_qkv.scale"))
		b.Name(fused, "wqkv", il)
		if bias := b.W(il, "attn_qkv.bias"); bias != nil {
			fused = b.Add(fused, bias)
		} else if bq, bk, bv := b.W(il, "attn_q.bias"), b.W(il, "attn_k.bias"), b.W(il, "attn_v.bias"); bq != nil && bk != nil && bv != nil {
			fused = b.Add(fused, b.Concat(b.Concat(bq, bk, 0), bv, 0))
		}
		if clamp {
			fused = b.Clamp(fused)
		}
		return nil, nil, nil, fused
	}
	one := func(name, label string) *graph.Tensor {
		t := b.MM(b.W(il, name+".weight"), cur, b.W(il, name+".scale"))
		b.Name(t, label, il)
		if bias := b.W(il, name+".bias"); bias != nil {
			t = b.Add(t, bias)
		}
		if clamp {
			t = b.Clamp(t)
		}
		return t
	}
	q = one("attn_q", "Qcur")
	k = one("attn_k", "Kcur")
	v = one("attn_v", "Vcur")
	return q, k, v, nil
}

// RopeFactors returns the frequency factors of layer il, nil for none.
//
// Source: src/llama-model.cpp@v0.5.0, llama_model::get_rope_factors.
func (b *Builder) RopeFactors(il int) *graph.Tensor {
	if t := b.perLayerOrShared(il, "rope_freqs.weight"); t != nil {
		return t
	}
	if b.C.NCtxSeq > b.NCtxOrigYarn {
		return b.perLayerOrShared(il, "rope_factors_long.weight")
	}
	return b.perLayerOrShared(il, "rope_factors_short.weight")
}

func (b *Builder) perLayerOrShared(il int, name string) *graph.Tensor {
	if t := b.W(il, name); t != nil {
		return t
	}
	return b.Shared(name, il)
}

// Rot applies rotary positions with the model's own kind and n dimensions.
func (b *Builder) Rot(t, pos, factors *graph.Tensor, n int) *graph.Tensor {
	return b.Rope(t, pos, factors, n, int(b.RopeType))
}

// KVInput are the inputs of attention over one cache.
type KVInput struct {
	Cache        *Cache
	KIdxs, VIdxs *graph.Tensor
	Mask         *graph.Tensor
	RotK, RotV   *graph.Tensor
}

// maskType returns the element type of attention masks.
func (b *Builder) maskType() formats.DType {
	if b.C.FlashAttn {
		return formats.F16
	}
	return formats.F32
}

// streams returns how many parts the batch's attention falls into.
func (b *Builder) streams() int64 {
	if b.C.KVUnified {
		return 1
	}
	return int64(b.U.NSeqs)
}

// KQMask returns the mask of a cache. (build_attn_inp_kq_mask)
func (b *Builder) KQMask(k *Cache, typ formats.DType) *graph.Tensor {
	s := b.streams()
	return b.InputT("attn_inp_kq_mask", typ, int64(k.Size), int64(b.NTokens)/s, 1, s)
}

// KIdxs returns the cells that keys are stored to. (build_input_k_idxs)
func (b *Builder) KIdxs() *graph.Tensor {
	return b.InputT("attn_inp_k_idxs", formats.I64, int64(b.NTokens))
}

// VIdxs returns the cells that values are stored to. (build_input_v_idxs)
func (b *Builder) VIdxs(k *Cache) *graph.Tensor {
	n := int64(b.NTokens)
	if k.VTrans {
		n *= int64(k.H.NEmbdVGQAMax())
	}
	return b.InputT("attn_inp_v_idxs", formats.I64, n)
}

// rot returns a rotation matrix, nil for none.
func (b *Builder) rot(n int, name string) *graph.Tensor {
	if n == 0 {
		return nil
	}
	return b.InputT(name, formats.F32, int64(n), int64(n))
}

// InpKV returns the inputs of attention over a plain cache.
// (build_attn_inp_kv)
func (b *Builder) InpKV() *KVInput { return b.inpKV(b.Mem.KV, true) }

// InpK is InpKV for a cache whose keys serve as values. (build_attn_inp_k)
func (b *Builder) InpK() *KVInput { return b.inpKeys(b.Mem.KV) }

func (b *Builder) inpKeys(k *Cache) *KVInput {
	b.kept(k != nil)
	in := &KVInput{Cache: k, KIdxs: b.KIdxs()}
	in.Mask = b.KQMask(k, b.maskType())
	return in
}

func (b *Builder) inpKV(k *Cache, values bool) *KVInput {
	b.kept(k != nil)
	in := &KVInput{Cache: k, KIdxs: b.KIdxs()}
	if values {
		in.VIdxs = b.VIdxs(k)
	}
	in.Mask = b.KQMask(k, b.maskType())
	in.RotK = b.rot(k.RotK, "attn_inp_k_rot")
	if values {
		in.RotV = b.rot(k.RotV, "attn_inp_v_rot")
	}
	return in
}

// ISWAInput are the inputs of attention over a full-size and a window cache.
type ISWAInput struct{ Base, SWA *KVInput }

// InpISWA returns the inputs of attention with a sliding window.
// (build_attn_inp_kv_iswa)
func (b *Builder) InpISWA() *ISWAInput {
	return &ISWAInput{Base: b.inpKV(b.Mem.KV, true), SWA: b.inpKV(b.Mem.SWA, true)}
}

// InpKISWA is InpISWA for caches whose keys serve as values.
// (build_attn_inp_k_iswa)
func (b *Builder) InpKISWA() *ISWAInput {
	return &ISWAInput{Base: b.inpKV(b.Mem.KV, false), SWA: b.inpKV(b.Mem.SWA, false)}
}

// Of returns the inputs of layer il.
func (in *ISWAInput) Of(b *Builder, il int) *KVInput {
	if b.IsSWA(il) {
		return in.SWA
	}
	return in.Base
}

// CacheK returns the keys of layer il, as they are stored.
func (b *Builder) CacheK(k *Cache, il int) *graph.Tensor { return b.cached(k, il, 'K') }

// CacheV returns the values of layer il, as they are stored.
func (b *Builder) CacheV(k *Cache, il int) *graph.Tensor { return b.cached(k, il, 'V') }

func (b *Builder) cached(k *Cache, il int, what byte) *graph.Tensor {
	l := b.cacheLayer(k, il)
	key := cacheKey{k, l.Layer, what}
	if t := b.caches[key]; t != nil {
		return t
	}
	n, typ := l.NEmbdK, k.TypeK
	if what == 'V' {
		n, typ = l.NEmbdV, k.TypeV
	}
	t := b.Leaf("cache", typ, int64(n), int64(k.Size), int64(k.Streams))
	t.Buf, t.Layer = b.place.Cache(l.Layer), int32(l.Layer)
	if l.SharedWith {
		t.Buf = b.place.TargetCache(l.TargetLayer)
	}
	b.caches[key] = t
	return t
}

func (b *Builder) cacheLayer(k *Cache, il int) *CacheLayer {
	if k == nil || il >= len(k.At) || k.At[il] < 0 {
		b.Fail("layer %d has no cache", il)
	}
	return &k.Layers[k.At[il]]
}

// GetK returns the keys of layer il as attention reads them,
// [head][heads][cells][streams]. (llama_kv_cache::get_k)
func (b *Builder) GetK(k *Cache, il int) *graph.Tensor {
	t := b.CacheK(k, il)
	row := func(n int64) uint64 { return graph.RowSize(t.Type, n) }
	d := int64(k.H.NEmbdHeadK(il))
	return b.View4D(t, d, int64(k.H.NHeadKV(il)), int64(k.Size), int64(k.Streams),
		row(d), row(t.Ne[0]), row(t.Ne[0]*int64(k.Size)), 0)
}

// GetV returns the values of layer il as attention reads them.
// (llama_kv_cache::get_v)
func (b *Builder) GetV(k *Cache, il int) *graph.Tensor {
	t := b.CacheV(k, il)
	row := func(n int64) uint64 { return graph.RowSize(t.Type, n) }
	d, heads, size := int64(k.H.NEmbdHeadV(il)), int64(k.H.NHeadKV(il)), int64(k.Size)
	if !k.VTrans {
		return b.View4D(t, d, heads, size, int64(k.Streams), row(d), row(t.Ne[0]), row(t.Ne[0]*size), 0)
	}
	return b.View4D(t, size, heads, d, int64(k.Streams), row(size*d), row(size), row(size*t.Ne[0]), 0)
}

// StoreK appends the copy of new keys into the cache.
// (llama_kv_cache::cpy_k)
func (b *Builder) StoreK(k *Cache, cur, idxs *graph.Tensor, il int) {
	t := b.CacheK(k, il)
	n := cur.Ne[0] * cur.Ne[1]
	cur = b.View2D(cur, n, cur.Ne[2], cur.Nb[2], 0)
	if t.Ne[2] > 1 {
		t = b.Reshape2D(t, n, int64(k.Size)*t.Ne[2])
	}
	b.Expand(b.SetRows(t, cur, idxs))
}

// StoreV appends the copy of new values into the cache.
// (llama_kv_cache::cpy_v)
func (b *Builder) StoreV(k *Cache, cur, idxs *graph.Tensor, il int) {
	t := b.CacheV(k, il)
	n, tokens := cur.Ne[0]*cur.Ne[1], cur.Ne[2]
	if !k.VTrans {
		cur = b.View2D(cur, n, tokens, cur.Nb[2], 0)
		if t.Ne[2] > 1 {
			t = b.Reshape2D(t, n, int64(k.Size)*t.Ne[2])
		}
		b.Expand(b.SetRows(t, cur, idxs))
		return
	}
	if cur.Type.RowBytes(uint64(n)) == cur.Nb[2] {
		cur = b.Reshape2D(cur, n, tokens)
	} else {
		cur = b.Cont2D(cur, n, tokens)
	}
	if n < t.Ne[0] {
		cur = b.Pad(cur, int(t.Ne[0]-n), 0, 0, 0)
	}
	view := b.Reshape2D(t, 1, t.Elements())
	cur = b.Reshape2D(cur, 1, cur.Elements())
	b.Expand(b.SetRows(view, cur, idxs))
}

// hadamard rotates the heads' values. (llama_mul_mat_hadamard)
func (b *Builder) hadamard(cur, rot *graph.Tensor) *graph.Tensor {
	n := rot.Ne[0]
	var res *graph.Tensor
	if cur.Contiguous() {
		res = b.Reshape2D(cur, n, cur.Elements()/n)
	} else {
		res = b.Cont2D(cur, n, cur.Elements()/n)
	}
	res = b.SetHint(b.MulMat(rot, res), 1)
	return b.Reshape4D(res, cur.Ne[0], cur.Ne[1], cur.Ne[2], cur.Ne[3])
}

// Attn holds what one attention of layer il needs besides its inputs. Nil
// tensors are absent.
type Attn struct {
	Q, K, V    *graph.Tensor // new queries, keys, values; K and V nil: nothing is stored
	WO, WOB    *graph.Tensor
	WOS        *graph.Tensor
	Bias       *graph.Tensor // added to the scores
	Sinks      *graph.Tensor
	VMLA       *graph.Tensor // decompresses the values
	NKVMax     int           // finite mask entries of a row are no more than these, 0 for no bound
	HeadDimOut int
}

// WithOut adds the output projection of layer il under its usual name.
func (a Attn) WithOut(b *Builder, il int) Attn {
	a.WO, a.WOB, a.WOS = b.W(il, "attn_output.weight"), b.W(il, "attn_output.bias"), b.W(il, "attn_output.scale")
	return a
}

// project appends the output projection.
func (b *Builder) project(cur *graph.Tensor, a Attn) *graph.Tensor {
	if a.WO != nil {
		cur = b.MM(a.WO, cur, a.WOS)
	}
	if a.WOB != nil {
		cur = b.Add(cur, a.WOB)
	}
	return cur
}

// AttendKV appends attention over a plain cache. (build_attn, kv)
func (b *Builder) AttendKV(in *KVInput, a Attn, il int) *graph.Tensor {
	if in.RotK != nil {
		a.Q, a.K = b.hadamard(a.Q, in.RotK), b.hadamard(a.K, in.RotK)
	}
	if in.RotV != nil {
		a.V = b.hadamard(a.V, in.RotV)
	}
	b.Expand(a.Q)
	b.Expand(a.V)
	b.Expand(a.K)
	b.StoreK(in.Cache, a.K, in.KIdxs, il)
	b.StoreV(in.Cache, a.V, in.VIdxs, il)
	k, v := b.GetK(in.Cache, il), b.GetV(in.Cache, il)
	cur := b.MHA(a.Q, k, v, in.Mask, a, il)
	b.Name(cur, "kqv_out", il)
	if in.RotV != nil {
		cur = b.hadamard(cur, in.RotV)
	}
	return b.project(cur, a)
}

// AttendK appends attention over a cache whose keys serve as values.
// (build_attn, k)
func (b *Builder) AttendK(in *KVInput, a Attn, il int) *graph.Tensor {
	b.Expand(a.Q)
	b.Expand(a.V)
	b.Expand(a.K)
	b.StoreK(in.Cache, a.K, in.KIdxs, il)
	k, v := b.KeysAsValues(in.Cache, a.V, il)
	cur := b.MHA(a.Q, k, v, in.Mask, a, il)
	b.Name(cur, "kqv_out", il)
	return b.project(cur, a)
}

// KeysAsValues returns the keys of layer il, and the part of them that serves
// as values as wide as v.
func (b *Builder) KeysAsValues(c *Cache, v *graph.Tensor, il int) (keys, values *graph.Tensor) {
	k := b.GetK(c, il)
	return k, b.View4D(k, v.Ne[0], k.Ne[1], k.Ne[2], k.Ne[3], k.Nb[1], k.Nb[2], k.Nb[3], 0)
}

// AttendISWA appends attention over the cache that layer il uses; without new
// keys or values nothing is stored. (build_attn, kv_iswa)
func (b *Builder) AttendISWA(iswa *ISWAInput, a Attn, il int) *graph.Tensor {
	in := iswa.Of(b, il)
	if in.RotK != nil {
		a.Q = b.hadamard(a.Q, in.RotK)
		if a.K != nil {
			a.K = b.hadamard(a.K, in.RotK)
		}
	}
	if in.RotV != nil && a.V != nil {
		a.V = b.hadamard(a.V, in.RotV)
	}
	b.Expand(a.Q)
	b.Expand(a.K)
	b.Expand(a.V)
	if a.K != nil {
		b.StoreK(in.Cache, a.K, in.KIdxs, il)
	}
	if a.V != nil {
		b.StoreV(in.Cache, a.V, in.VIdxs, il)
	}
	k, v := b.GetK(in.Cache, il), b.GetV(in.Cache, il)
	cur := b.MHA(a.Q, k, v, in.Mask, a, il)
	b.Name(cur, "kqv_out", il)
	if in.RotV != nil {
		cur = b.hadamard(cur, in.RotV)
	}
	return b.project(cur, a)
}

// AttendKISWA is AttendISWA for caches whose keys serve as values.
// (build_attn, k_iswa)
func (b *Builder) AttendKISWA(iswa *ISWAInput, a Attn, il int) *graph.Tensor {
	in := iswa.Of(b, il)
	if in.RotK != nil {
		a.Q = b.hadamard(a.Q, in.RotK)
		if a.K != nil {
			a.K = b.hadamard(a.K, in.RotK)
		}
	}
	b.Expand(a.Q)
	b.Expand(a.K)
	if a.K != nil {
		b.StoreK(in.Cache, a.K, in.KIdxs, il)
	}
	k, v := b.KeysAsValues(in.Cache, a.V, il)
	cur := b.MHA(a.Q, k, v, in.Mask, a, il)
	b.Name(cur, "kqv_out", il)
	if in.RotK != nil {
		cur = b.hadamard(cur, in.RotK)
	}
	return b.project(cur, a)
}

// NoCacheInput are the masks of attention within the batch.
type NoCacheInput struct{ Mask, MaskSWA *graph.Tensor }

// InpNoCache returns the inputs of attention without a cache.
// (build_attn_inp_no_cache)
func (b *Builder) InpNoCache() *NoCacheInput {
	n := int64(b.NTokens)
	in := &NoCacheInput{Mask: b.InputT("self_kq_mask", b.maskType(), n, n)}
	if b.SWAType != model.SWANone {
		in.MaskSWA = b.InputT("self_kq_mask_swa", b.maskType(), n, n)
	}
	return in
}

// AttendNoCache appends attention within the batch. (build_attn, no_cache)
func (b *Builder) AttendNoCache(in *NoCacheInput, a Attn, il int) *graph.Tensor {
	b.Expand(a.Q)
	b.Expand(a.K)
	b.Expand(a.V)
	mask := in.Mask
	if b.IsSWA(il) {
		mask = in.MaskSWA
	}
	cur := b.MHA(a.Q, a.K, a.V, mask, a, il)
	b.Name(cur, "kqv_out", il)
	return b.project(cur, a)
}

// InpCross returns the mask of attention to the encoder's output.
// (build_attn_inp_cross)
func (b *Builder) InpCross() *graph.Tensor {
	return b.InputT("cross_kq_mask", b.maskType(), int64(b.NCtxTrain), int64(b.NTokens))
}

// AttendCross appends attention to the encoder's output. (build_attn, cross)
func (b *Builder) AttendCross(mask *graph.Tensor, a Attn, il int) *graph.Tensor {
	b.Expand(a.Q)
	b.Expand(a.K)
	b.Expand(a.V)
	cur := b.MHA(a.Q, a.K, a.V, mask, a, il)
	b.Name(cur, "kqv_out", il)
	return b.project(cur, a)
}

// MHA appends the attention proper; of a it uses Bias, Sinks and VMLA.
// (build_attn_mha)
func (b *Builder) MHA(q, k, v, mask *graph.Tensor, a Attn, il int) *graph.Tensor {
	trans := v.Nb[1] > v.Nb[2]
	ns := k.Ne[3]
	q = b.View4D(q, q.Ne[0], q.Ne[1], q.Ne[2]/ns, ns, q.Nb[1], q.Nb[2], q.Nb[3]/uint64(ns), 0)
	q = b.Permute(q, 0, 2, 1, 3)
	k = b.Permute(k, 0, 2, 1, 3)
	v = b.Permute(v, 0, 2, 1, 3)

	var cur *graph.Tensor
	if b.C.FlashAttn && a.Bias == nil {
		if trans {
			v = b.Transpose(v)
		}
		if k.Type == formats.F32 {
			k = b.Cast(k, formats.F16)
		}
		if v.Type == formats.F32 {
			v = b.Cast(v, formats.F16)
		}
		softcap := float32(0)
		if b.AttnSoftCap {
			softcap = b.LogitSoftcap
		}
		cur = b.FlashAttnExt(q, k, v, mask, b.MaxAlibiBias, softcap)
		b.Fuse(cur, FusedFlashAttn, il)
		if a.Sinks != nil {
			b.FlashAttnExtAddSinks(cur, a.Sinks)
		}
		b.FlashAttnExtSetNKVMax(cur, a.NKVMax)
		if a.VMLA != nil {
			cur = b.Permute(cur, 0, 2, 1, 3)
			cur = b.MulMat(a.VMLA, cur)
			b.Name(cur, "fattn_mla", il)
			cur = b.Permute(cur, 0, 2, 1, 3)
			cur = b.Cont(cur)
		}
		cur = b.Reshape2D(cur, cur.Ne[0]*cur.Ne[1], cur.Ne[2]*cur.Ne[3])
	} else {
		cur = b.scores(q, k, v, mask, a, trans, il)
	}
	b.Expand(cur)
	return cur
}

// scores is attention without the fused operator.
func (b *Builder) scores(q, k, v, mask *graph.Tensor, a Attn, trans bool, il int) *graph.Tensor {
	kq := b.MulMat(k, q)
	b.Name(kq, "kq", il)
	if b.Row.Quirk.ScoreTanh {
		kq = b.Scale(b.Tanh(b.Scale(kq)))
	}
	if b.AttnSoftCap {
		kq = b.Scale(b.Tanh(b.Scale(kq)))
	}
	if a.Bias != nil {
		kq = b.Add(kq, a.Bias)
	}
	kq = b.SoftMaxExt(kq, mask, b.MaxAlibiBias)
	if a.Sinks != nil {
		b.SoftMaxAddSinks(kq, a.Sinks)
	}
	b.Name(kq, "kq_soft_max", il)
	if !trans {
		v = b.Cont(b.Transpose(v))
		b.Name(v, "v_cont", il)
	}
	kqv := b.MulMat(v, kq)
	b.Name(kqv, "kqv", il)
	if a.VMLA != nil {
		kqv = b.MulMat(a.VMLA, kqv)
		b.Name(kqv, "kqv_mla", il)
	}
	cur := b.Permute(kqv, 0, 2, 1, 3)
	cur = b.Cont2D(cur, cur.Ne[0]*cur.Ne[1], cur.Ne[2]*cur.Ne[3])
	if !b.C.OffloadKQV {
		cur.Backend = b.place.CPU()
	}
	return cur
}

// Fused says which fused operator a node is.
type Fused uint8

// The fused operators that llama.cpp tries (enum llm_fused_op).
const (
	FusedFlashAttn Fused = iota
	FusedLightningIndexer
	FusedHCPre
	FusedHCComb
	FusedHCPost
)

// Fuse records a fused operator of layer il for the context to check.
func (b *Builder) Fuse(t *graph.Tensor, what Fused, il int) {
	b.FusedNodes = append(b.FusedNodes, graph.FusedNode{Tensor: t, What: uint8(what), Layer: int32(il)})
}
