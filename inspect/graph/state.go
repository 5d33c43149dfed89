package graph

import (
	"math"

	"weigh/formats"
)

// SSMConv convolves sx [d_conv-1+n_t, d_inner, n_s], the last inputs of each
// sequence and the new ones, with c [d_conv, d_inner]: F32 of [d_inner, n_t,
// n_s].
func (g *Graph) SSMConv(sx, c *Tensor) *Tensor {
	g.need(OpSSMConv, sx, c)
	n := sx.Ne[0] - c.Ne[0] + 1
	g.must(OpSSMConv, sx.Ne[3] == 1 && c.matrix() && sx.Ne[1] == c.Ne[1] && n >= 0, "the kernel does not fit", sx, c)
	t := g.node(OpSSMConv, formats.F32, [4]int64{c.Ne[1], n, sx.Ne[2], 1})
	t.Src[0], t.Src[1] = sx, c
	return t
}

// SSMScan runs the state space s [d_state, head_dim, n_head, ...] over x
// [head_dim, n_head, n_seq_tokens, n_seqs] with dt [n_head, n_seq_tokens,
// n_seqs], A [1 or d_state, n_head], B and C [d_state, n_group, n_seq_tokens,
// n_seqs]; ids [n_seqs] (I32) names the states. The result is one F32 row: the
// outputs, then k snapshots of the states. Params: 0 k.
func (g *Graph) SSMScan(s, x, dt, A, B, C, ids *Tensor, k int64) *Tensor {
	g.need3(OpSSMScan, s, x, dt)
	g.need3(OpSSMScan, A, B, C)
	g.need(OpSSMScan, ids, ids)
	g.must(OpSSMScan, s.Contiguous() && s.Ne[1] == x.Ne[0] && s.Ne[2] == x.Ne[1] && packedPlanes(x), "states do not fit inputs", s, x)
	g.must(OpSSMScan, dt.Contiguous() && dt.Ne == [4]int64{x.Ne[1], x.Ne[2], x.Ne[3], 1}, "time steps do not fit inputs", x, dt)
	g.must(OpSSMScan, B.Ne == C.Ne && packedPlanes(B) && packedPlanes(C), "want B and C of one shape", B, C)
	g.must(OpSSMScan, B.Ne[0] == s.Ne[0] && B.Ne[2] == x.Ne[2] && B.Ne[3] == x.Ne[3], "B does not fit inputs", B, x)
	g.must(OpSSMScan, ids.Type == formats.I32 && ids.vector() && ids.Ne[0] == x.Ne[3], "want an I32 state number for each sequence", x, ids)
	g.must(OpSSMScan, A.Contiguous() && A.matrix() && A.Ne[1] == x.Ne[1] && (A.Ne[0] == 1 || A.Ne[0] == s.Ne[0] && k == 1),
		"A does not fit states", A, s)
	if k < 1 || k > math.MaxInt32 {
		g.fail(OpSSMScan, "%d snapshots are out of range", k)
	}
	state := product([4]int64{s.Ne[0], s.Ne[1], s.Ne[2], ids.Ne[0]})
	states := product([4]int64{state, k, 1, 1})
	if states < 0 {
		g.fail(OpSSMScan, "%d snapshots of %v for %d sequences are too large to address", k, s.Ne, ids.Ne[0])
	}
	t := g.node(OpSSMScan, formats.F32, [4]int64{x.Elements() + states, 1, 1, 1})
	t.Src[0], t.Src[1], t.Src[2], t.Src[3], t.Src[4], t.Src[5], t.Src[6] = s, x, dt, A, B, C, ids
	t.Params[0] = int32(k)
	return t
}

// packedPlanes reports whether the first two dimensions lie without gaps.
func packedPlanes(t *Tensor) bool {
	_, b := t.Type.Block()
	return t.Nb[0] == b && t.Nb[1] == uint64(t.Ne[0])*b
}

// linear returns the result of a linear attention, without its operands:
// outputs and new states, F32 of [S*H, n_tokens + S*n_seqs]. like is [S, H,
// n_tokens], state [S*S*H, n_seqs].
func (g *Graph) linear(op Op, like, state *Tensor) *Tensor {
	g.need(op, like, state)
	s, h, n := like.Ne[0], like.Ne[1], state.Ne[1]
	g.must(op, state.Contiguous() && state.Elements() == product([4]int64{s, s, h, n}), "states do not fit inputs", like, state)
	return g.node(op, formats.F32, [4]int64{
		product([4]int64{s, h, 1, 1}), like.Ne[2] + max(0, product([4]int64{s, n, 1, 1})), 1, 1,
	})
}

// perToken fails unless a is packed and has the first three dimensions of like.
func (g *Graph) perToken(op Op, like, a *Tensor) {
	g.need(op, like, a)
	g.must(op, a.Contiguous() && a.Ne[0] == like.Ne[0] && a.Ne[1] == like.Ne[1] && a.Ne[2] == like.Ne[2],
		"want packed operands of one shape", like, a)
}

// RWKVWKV6 is the linear attention of RWKV6: k, v, r and td are [S, H,
// n_tokens], state [S*S*H, n_seqs]; F32 of [S*H, n_tokens + S*n_seqs].
func (g *Graph) RWKVWKV6(k, v, r, tf, td, state *Tensor) *Tensor {
	g.need(OpRWKVWKV6, k, tf)
	g.perToken(OpRWKVWKV6, k, k)
	g.perToken(OpRWKVWKV6, k, v)
	g.perToken(OpRWKVWKV6, k, r)
	g.perToken(OpRWKVWKV6, k, td)
	g.must1(OpRWKVWKV6, tf.Contiguous(), "want packed memory", tf)
	t := g.linear(OpRWKVWKV6, k, state)
	t.Src[0], t.Src[1], t.Src[2], t.Src[3], t.Src[4], t.Src[5] = k, v, r, tf, td, state
	return t
}

// GatedLinearAttn is the linear attention of RWKV6 without a first-token bonus:
// k, v, q and gate are [S, H, n_tokens], state [S*S*H, n_seqs]; F32 of [S*H,
// n_tokens + S*n_seqs].
func (g *Graph) GatedLinearAttn(k, v, q, gate, state *Tensor) *Tensor {
	g.perToken(OpGatedLinearAttn, k, k)
	g.perToken(OpGatedLinearAttn, k, v)
	g.perToken(OpGatedLinearAttn, k, q)
	g.perToken(OpGatedLinearAttn, k, gate)
	t := g.linear(OpGatedLinearAttn, k, state)
	t.Src[0], t.Src[1], t.Src[2], t.Src[3], t.Src[4] = k, v, q, gate, state
	return t
}

// RWKVWKV7 is the linear attention of RWKV7: r, w, k, v, a and b are [S, H,
// n_tokens], state [S*S*H, n_seqs]; F32 of [S*H, n_tokens + S*n_seqs].
func (g *Graph) RWKVWKV7(r, w, k, v, a, b, state *Tensor) *Tensor {
	g.need(OpRWKVWKV7, k, r)
	g.must1(OpRWKVWKV7, r.Contiguous(), "want packed memory", r)
	g.perToken(OpRWKVWKV7, k, k)
	g.perToken(OpRWKVWKV7, k, w)
	g.perToken(OpRWKVWKV7, k, v)
	g.perToken(OpRWKVWKV7, k, a)
	g.perToken(OpRWKVWKV7, k, b)
	t := g.linear(OpRWKVWKV7, k, state)
	t.Src[0], t.Src[1], t.Src[2], t.Src[3], t.Src[4], t.Src[5], t.Src[6] = r, w, k, v, a, b, state
	return t
}

// GatedDeltaNet is the gated delta rule: v is [S_v, H, n_tokens, n_seqs], gate
// [1 or S_v, H, ...], beta [1, ...], state [S_v, S_v, H, n_seqs], all F32. The
// result is F32 of [S_v*H, n_tokens*n_seqs + snapshots*S_v*n_seqs]. Params: 0
// snapshots.
func (g *Graph) GatedDeltaNet(q, k, v, gate, beta, state *Tensor, snapshots int64) *Tensor {
	g.need3(OpGatedDeltaNet, q, k, v)
	g.need3(OpGatedDeltaNet, gate, beta, state)
	g.must(OpGatedDeltaNet, q.ContiguousRows() && k.ContiguousRows() && q.Type == formats.F32 && k.Type == formats.F32,
		"want F32 queries and keys with packed rows", q, k)
	g.must(OpGatedDeltaNet, gate.Contiguous() && beta.Contiguous() && gate.Type == formats.F32 && beta.Type == formats.F32 &&
		beta.Ne[0] == 1 && (gate.Ne[0] == 1 || gate.Ne[0] == v.Ne[0]), "want packed F32 gates", gate, beta)
	g.must(OpGatedDeltaNet, v.ContiguousRows() && v.Type == formats.F32 && state.Contiguous() && state.Type == formats.F32 &&
		state.Ne == [4]int64{v.Ne[0], v.Ne[0], v.Ne[1], v.Ne[3]}, "states do not fit values", v, state)
	if snapshots < 1 || snapshots > math.MaxInt32 {
		g.fail(OpGatedDeltaNet, "%d snapshots are out of range", snapshots)
	}
	tokens, states := product([4]int64{v.Ne[2], v.Ne[3], 1, 1}), product([4]int64{snapshots, v.Ne[0], v.Ne[3], 1})
	if tokens < 0 || states < 0 {
		g.fail(OpGatedDeltaNet, "%d snapshots of %v are too large to address", snapshots, state.Ne)
	}
	t := g.node(OpGatedDeltaNet, formats.F32, [4]int64{product([4]int64{v.Ne[0], v.Ne[1], 1, 1}), tokens + states, 1, 1})
	t.Src[0], t.Src[1], t.Src[2], t.Src[3], t.Src[4], t.Src[5] = q, k, v, gate, beta, state
	t.Params[0] = int32(snapshots)
	return t
}

// SolveTri solves a x = b for the packed lower triangular matrices a [n, n, ...]
// and b [m, n, ...], both F32: the shape of b.
func (g *Graph) SolveTri(a, b *Tensor) *Tensor {
	g.need(OpSolveTri, a, b)
	g.must(OpSolveTri, a.Type == formats.F32 && b.Type == formats.F32 && a.Contiguous() && b.Contiguous() &&
		a.Ne[0] == a.Ne[1] && a.Ne[1] == b.Ne[1] && a.Ne[2] == b.Ne[2] && a.Ne[3] == b.Ne[3], "want packed F32 systems", a, b)
	t := g.node(OpSolveTri, formats.F32, b.Ne)
	t.Src[0], t.Src[1] = a, b
	return t
}

// LightningIndexer scores the keys k [n, 1, n_kv, n_stream] for the queries q
// [n, n_head, n_tokens, n_stream] (F32) with weights [n_head, n_tokens, 1,
// n_stream] (F32) under mask [n_kv, n_tokens, 1, ...] (F16): F32 of [n_kv,
// n_tokens, 1, n_stream].
func (g *Graph) LightningIndexer(q, k, weights, mask *Tensor) *Tensor {
	const op = OpLightningIndexer
	g.need3(op, q, k, weights)
	g.need(op, mask, mask)
	g.must(op, q.Type == formats.F32 && q.Ne[0] == k.Ne[0] && k.Ne[1] == 1 && q.Ne[3] == k.Ne[3], "keys do not fit queries", q, k)
	g.must(op, weights.Type == formats.F32 && weights.Ne == [4]int64{q.Ne[1], q.Ne[2], 1, k.Ne[3]}, "weights do not fit queries", q, weights)
	g.must(op, mask.Type == formats.F16 && mask.Ne[0] == k.Ne[2] && mask.Ne[1] == q.Ne[2] && mask.Ne[2] == 1 &&
		divides(mask.Ne[3], weights.Ne[3]), "the mask does not fit keys", k, mask)
	t := g.node(op, formats.F32, [4]int64{k.Ne[2], q.Ne[2], 1, q.Ne[3]})
	t.Src[0], t.Src[1], t.Src[2], t.Src[3] = q, k, weights, mask
	return t
}

// DSV4HCComb makes the matrices that combine the hyper-connections: mixes [24,
// n_tokens], scale [3 or more], base [24], all F32; F32 of [4, 4, n_tokens].
func (g *Graph) DSV4HCComb(mixes, scale, base *Tensor) *Tensor {
	const op, hc, mix = OpDSV4HCComb, 4, 24 // (2+hc)*hc values are mixed, and ggml takes four connections only
	g.need3(op, mixes, scale, base)
	g.must1(op, mixes.Type == formats.F32 && mixes.Ne[0] == mix && mixes.matrix(), "want mixes of four connections", mixes)
	g.must(op, scale.Type == formats.F32 && scale.vector() && scale.Ne[0] >= 3 &&
		base.Type == formats.F32 && base.vector() && base.Ne[0] == mix, "want F32 rows of 3 and 24", scale, base)
	t := g.node(op, formats.F32, [4]int64{hc, hc, mixes.Ne[1], 1})
	t.Src[0], t.Src[1], t.Src[2] = mixes, scale, base
	return t
}

// DSV4HCPre sums the connections x [n_embd, hc, n_tokens] by weights [hc,
// n_tokens], both F32: F32 of [n_embd, n_tokens].
func (g *Graph) DSV4HCPre(x, weights *Tensor) *Tensor {
	g.need(OpDSV4HCPre, x, weights)
	return g.dsv4HCPre(x, weights, [4]int64{x.Ne[1], x.Ne[2], 1, 1}, 0)
}

// DSV4HCPreGated is DSV4HCPre with a gate [n_embd, hc, n_tokens]. Params: 1 set.
func (g *Graph) DSV4HCPreGated(x, gate *Tensor) *Tensor {
	g.need(OpDSV4HCPre, x, gate)
	return g.dsv4HCPre(x, gate, [4]int64{x.Ne[0], x.Ne[1], x.Ne[2], 1}, 1)
}

func (g *Graph) dsv4HCPre(x, weights *Tensor, want [4]int64, gated int32) *Tensor {
	g.must(OpDSV4HCPre, x.Type == formats.F32 && weights.Type == formats.F32 && x.Ne[1] > 0 && x.Ne[3] == 1 && weights.Ne == want,
		"weights do not fit connections", x, weights)
	t := g.node(OpDSV4HCPre, formats.F32, [4]int64{x.Ne[0], x.Ne[2], 1, 1})
	t.Src[0], t.Src[1] = x, weights
	t.Params[1] = gated
	return t
}

// DSV4HCPost spreads x [n_embd, n_tokens] over the connections residual
// [n_embd, hc, n_tokens] by post [hc, n_tokens] and comb [hc, hc, n_tokens]
// (nil for none), all F32: F32 of [n_embd, hc, n_tokens].
func (g *Graph) DSV4HCPost(x, residual, post, comb *Tensor) *Tensor {
	const op = OpDSV4HCPost
	g.need3(op, x, residual, post)
	hc, n := residual.Ne[1], x.Ne[1]
	g.must(op, x.Type == formats.F32 && residual.Type == formats.F32 && x.matrix() && hc > 0 &&
		residual.Ne == [4]int64{x.Ne[0], hc, n, 1}, "connections do not fit", x, residual)
	g.must(op, post.Type == formats.F32 && post.Ne == [4]int64{hc, n, 1, 1}, "weights do not fit connections", residual, post)
	if comb != nil {
		g.must(op, comb.Type == formats.F32 && comb.Ne == [4]int64{hc, hc, n, 1}, "combinations do not fit connections", residual, comb)
	}
	t := g.node(op, formats.F32, [4]int64{x.Ne[0], hc, n, 1})
	t.Src[0], t.Src[1], t.Src[2], t.Src[3] = x, residual, post, comb
	return t
}
