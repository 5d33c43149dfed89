package arch

import (
	"weigh/inspect/graph"
)

// The gated delta rule of linear attention, shared by Qwen3-Next, Qwen3.5,
// Kimi and Ling.
//
// Source: src/models/delta-net-base.cpp@v0.5.0.

// gdnNorm scales each row to unit length. (build_gdn_l2_norm)
func (b *Builder) gdnNorm(t *graph.Tensor) *graph.Tensor { return b.Scale(b.RMSNorm(t)) }

// seqTokens and seqs are the tokens of each sequence and the sequences of the
// batch.
func (b *Builder) seqTokens() int64 { return int64(b.U.NSeqTokens) }
func (b *Builder) seqs() int64      { return int64(b.U.NSeqs) }

// perSeq splits the tokens of a matrix by sequence.
func (b *Builder) perSeq(t *graph.Tensor) *graph.Tensor {
	return b.Reshape3D(t, t.Ne[0], b.seqTokens(), b.seqs())
}

// f32Row returns the bytes of n F32 values.
func f32Row(n int64) uint64 { return uint64(n) * 4 }

// ConvState appends the load of layer il's rolling state, the concatenation
// with the new inputs qkv [channels][tokens][seqs], and the store of the state
// that remains; it returns the convolution's input. (build_conv_state)
func (b *Builder) ConvState(in *RSInput, qkv *graph.Tensor, kernel, channels int64, il int) *graph.Tensor {
	all := b.StateR(il)
	old := b.RS(in, all, b.Mem.RS.NEmbdR, b.U.NSeqs, nil)
	old = b.Reshape3D(old, kernel-1, channels, b.seqs())
	input := b.Concat(old, b.Transpose(qkv), 0)
	row := (kernel - 1) * channels
	k := int64(b.C.NRsSeq) + 1
	for t := int64(1); t <= k; t++ {
		first := max(0, input.Ne[0]-old.Ne[0]-k+t)
		last := b.View3D(input, kernel-1, channels, b.seqs(), input.Nb[1], input.Nb[2], f32Row(first))
		at := uint64(k-t) * uint64(in.State.Cells) * f32Row(row)
		b.Expand(b.Cpy(last, b.View2D(all, row, b.seqs(), all.Nb[1], at)))
	}
	return input
}

// RecurrentAttn appends the delta rule of layer il over q, k [S][Hk][tokens]
// [seqs] and v [S][H][tokens][seqs] with gate g, step size beta and the state
// s [S][S][H][seqs], and the store of the new state. (build_recurrent_attn)
func (b *Builder) RecurrentAttn(q, k, v, g, beta, s *graph.Tensor, il int) *graph.Tensor {
	all := b.StateS(il)
	if b.C.NRsSeq == 0 {
		out, state := b.DeltaNet(q, k, v, g, beta, s, il)
		b.Expand(b.Cpy(state, b.View2D(all, int64(b.Mem.RS.NEmbdS), b.seqs(), all.Nb[1], 0)))
		return out
	}
	snaps := int64(b.C.NRsSeq) + 1
	res := b.fusedDelta(q, k, v, g, beta, s, snaps, il)
	sv, h, tokens, seqs := s.Ne[0], s.Ne[2], q.Ne[2], s.Ne[3]
	d := sv * sv * h
	written := min(tokens, snaps)
	out := b.deltaOut(res, sv, h, tokens, seqs)
	src := b.View3D(res, d, seqs, written, f32Row(d), f32Row(d*seqs), f32Row(sv*h*tokens*seqs))
	dst := b.View3D(all, d, seqs, written, all.Nb[1], uint64(b.Mem.RS.Cells)*f32Row(int64(b.Mem.RS.NEmbdS)), 0)
	b.Expand(b.Cpy(src, dst))
	return out
}

// DeltaNet appends the delta rule by the fused operator, token by token, or in
// chunks, and returns the outputs [S][H][tokens][seqs] and the new state.
// (build_delta_net)
func (b *Builder) DeltaNet(q, k, v, g, beta, s *graph.Tensor, il int) (out, state *graph.Tensor) {
	switch {
	case q.Ne[2] == 1 && b.C.NoFusedGDNAR:
		return b.deltaToken(q, k, v, g, beta, s)
	case q.Ne[2] != 1 && b.C.NoFusedGDNCH:
		return b.deltaChunks(q, k, v, g, beta, s)
	}
	sv, h, tokens, seqs := v.Ne[0], v.Ne[1], q.Ne[2], q.Ne[3]
	res := b.fusedDelta(q, k, v, g, beta, s, 1, il)
	out = b.deltaOut(res, sv, h, tokens, seqs)
	state = b.View4D(res, sv, sv, h, seqs, f32Row(sv), f32Row(sv*sv), f32Row(sv*sv*h), f32Row(sv*h*tokens*seqs))
	return out, state
}

func (b *Builder) fusedDelta(q, k, v, g, beta, s *graph.Tensor, snaps int64, il int) *graph.Tensor {
	res := b.GatedDeltaNet(q, k, v, g, beta, s, snaps)
	what := FusedGDNCH
	if q.Ne[2] == 1 {
		what = FusedGDNAR
	}
	b.Fuse(res, what, il)
	return res
}

// deltaOut is the part of the fused result that holds the outputs.
func (b *Builder) deltaOut(res *graph.Tensor, sv, h, tokens, seqs int64) *graph.Tensor {
	return b.View4D(res, sv, h, tokens, seqs, f32Row(sv), f32Row(sv*h), f32Row(sv*h*tokens), 0)
}

// deltaToken is the delta rule for one token of each sequence.
// (build_delta_net_autoregressive)
func (b *Builder) deltaToken(q, k, v, g, beta, s *graph.Tensor) (out, state *graph.Tensor) {
	h, seqs := v.Ne[1], q.Ne[3]
	q = b.Permute(b.Scale(q), 0, 2, 1, 3)
	k = b.Permute(k, 0, 2, 1, 3)
	v = b.Permute(v, 0, 2, 1, 3)
	g = b.Reshape4D(g, 1, g.Ne[0], h, seqs)
	beta = b.Reshape4D(beta, 1, 1, h, seqs)
	s = b.Mul(s, b.Exp(g))
	sk := b.SumRows(b.Mul(s, k))
	d := b.Mul(b.Sub(v, b.Transpose(sk)), beta)
	s = b.Add(s, b.Mul(b.Repeat(k, s), b.Transpose(d)))
	out = b.SumRows(b.Mul(s, q))
	return b.Permute(out, 2, 0, 1, 3), s
}

// deltaChunks is the delta rule for runs of tokens, chunk by chunk; a gate for
// each channel takes smaller chunks. (build_delta_net_chunking)
func (b *Builder) deltaChunks(q, k, v, g, beta, s *graph.Tensor) (out, state *graph.Tensor) {
	sk, hk, tokens, seqs := q.Ne[0], q.Ne[1], q.Ne[2], q.Ne[3]
	sv, h := v.Ne[0], v.Ne[1]
	kda := g.Ne[0] == sk && g.Ne[1] == hk
	cs := int64(64)
	if kda {
		cs = 16
	}
	pad := (cs - tokens%cs) % cs
	chunks := (tokens + pad) / cs

	heads := func(t *graph.Tensor) *graph.Tensor { return b.Pad(b.Permute(t, 0, 2, 1, 3), 0, int(pad), 0, 0) }
	chunked := func(t *graph.Tensor, heads int64) *graph.Tensor {
		return b.Reshape4D(t, t.Ne[0], cs, chunks, heads*seqs)
	}
	transposed := func(t *graph.Tensor) *graph.Tensor { return b.Cont(b.Transpose(t)) }

	q, k, v, g, beta = heads(b.Scale(q)), heads(k), heads(v), heads(g), heads(beta)
	vb, kb := chunked(b.Mul(v, beta), h), chunked(b.Mul(k, beta), h)
	q, k, g = chunked(q, hk), chunked(k, hk), chunked(g, h)
	gcs := b.Cumsum(transposed(g))

	kk, kq := b.chunkScores(q, k, kb, gcs, kda, h, seqs)
	kq = b.Tri(kq, graph.TriLowerDiag)
	attn := b.Tri(kk, graph.TriLower)
	identity := b.Diag(b.Fill(b.View1D(attn, cs, 0)))
	solved := b.SolveTri(b.Add(attn, identity), b.Neg(attn))
	attn = b.Add(solved, identity)

	v = b.MulMat(transposed(vb), attn)
	gexp := b.Exp(gcs)
	kcd := b.MulMat(b.Mul(transposed(kb), gexp), attn)
	qg := b.Mul(q, transposed(gexp))
	last := b.View4D(gcs, 1, gcs.Ne[1], gcs.Ne[2], gcs.Ne[3], gcs.Nb[1], gcs.Nb[2], gcs.Nb[3], f32Row(gcs.Ne[0]-1))
	last = b.Cont(last)
	lastExp := b.Transpose(b.Exp(last))
	diff := transposed(b.Exp(b.Neg(b.Sub(gcs, last))))
	kgt := transposed(b.Mul(k, diff))
	s = b.Reshape4D(s, sv, sv, 1, h*seqs)
	vt := transposed(v)

	slice := func(t *graph.Tensor, c int64) *graph.Tensor {
		return b.View4D(t, t.Ne[0], t.Ne[1], 1, t.Ne[3], t.Nb[1], t.Nb[2], t.Nb[3], t.Nb[2]*uint64(c))
	}
	for c := range chunks {
		vnew := b.Sub(slice(vt, c), b.MulMat(slice(kcd, c), s))
		vattn := b.MulMat(vnew, slice(kq, c))
		inter := b.MulMat(s, slice(qg, c))
		v = b.SetInplace(v, b.Add(inter, vattn), v.Nb[1], v.Nb[2], v.Nb[3], uint64(c)*v.Nb[2])
		kgv := b.MulMat(slice(kgt, c), vnew)
		s = b.Add(b.Mul(s, slice(lastExp, c)), kgv)
	}
	out = b.View4D(v, sv, tokens, h, seqs, f32Row(sv), f32Row(sv*cs*chunks), f32Row(sv*cs*chunks*h), 0)
	return b.Permute(out, 0, 2, 1, 3), b.Reshape4D(s, sv, sv, h, seqs)
}

// chunkScores returns the decayed products of keys with step-sized keys and
// with queries, [CS][CS][chunks][heads].
func (b *Builder) chunkScores(q, k, kb, gcs *graph.Tensor, kda bool, h, seqs int64) (kk, kq *graph.Tensor) {
	sk, cs, chunks := k.Ne[0], k.Ne[1], k.Ne[2]
	decay := func(gi, gj *graph.Tensor, n2, n3 int64) *graph.Tensor {
		gj = b.Repeat4D(gj, cs, cs, n2, n3)
		return b.Exp(b.Tri(b.Sub(gj, gi), graph.TriLowerDiag))
	}
	if !kda {
		mask := decay(gcs, b.Reshape4D(gcs, 1, cs, chunks, h*seqs), chunks, h*seqs)
		return b.Mul(b.MulMat(k, kb), mask), b.Mul(b.MulMat(k, q), mask)
	}
	chb := chunks * k.Ne[3]
	mask := decay(b.Reshape4D(gcs, cs, 1, sk, chb), b.Reshape4D(gcs, 1, cs, sk, chb), sk, chb)
	mask = b.Cont4D(b.Permute(mask, 2, 1, 0, 3), sk, cs, cs, chb)
	kj := b.Reshape4D(k, sk, 1, cs, chb)
	score := func(t *graph.Tensor) *graph.Tensor {
		t = b.MulMat(b.Mul(mask, b.Reshape4D(t, sk, cs, 1, chb)), kj)
		return b.Cont(b.Transpose(b.Reshape4D(t, cs, cs, chunks, h*seqs)))
	}
	return score(kb), score(q)
}
