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
		out, state := b.DeltaNet(q, k, v, g, beta, s)
		b.Expand(b.Cpy(state, b.View2D(all, int64(b.Mem.RS.NEmbdS), b.seqs(), all.Nb[1], 0)))
		return out
	}
	snaps := int64(b.C.NRsSeq) + 1
	res := b.GatedDeltaNet(q, k, v, g, beta, s, snaps)
	sv, h, tokens, seqs := s.Ne[0], s.Ne[2], q.Ne[2], s.Ne[3]
	d := sv * sv * h
	written := min(tokens, snaps)
	out := b.deltaOut(res, sv, h, tokens, seqs)
	src := b.View3D(res, d, seqs, written, f32Row(d), f32Row(d*seqs), f32Row(sv*h*tokens*seqs))
	dst := b.View3D(all, d, seqs, written, all.Nb[1], uint64(b.Mem.RS.Cells)*f32Row(int64(b.Mem.RS.NEmbdS)), 0)
	b.Expand(b.Cpy(src, dst))
	return out
}

// DeltaNet appends the delta rule and returns the outputs [S][H][tokens][seqs]
// and the new state. llama.cpp never leaves the fused operator for its parts:
// it does not ask whether the device has it. (build_delta_net_fused)
func (b *Builder) DeltaNet(q, k, v, g, beta, s *graph.Tensor) (out, state *graph.Tensor) {
	sv, h, tokens, seqs := v.Ne[0], v.Ne[1], q.Ne[2], q.Ne[3]
	res := b.GatedDeltaNet(q, k, v, g, beta, s, 1)
	out = b.deltaOut(res, sv, h, tokens, seqs)
	state = b.View4D(res, sv, sv, h, seqs, f32Row(sv), f32Row(sv*sv), f32Row(sv*sv*h), f32Row(sv*h*tokens*seqs))
	return out, state
}

// deltaOut is the part of the fused result that holds the outputs.
func (b *Builder) deltaOut(res *graph.Tensor, sv, h, tokens, seqs int64) *graph.Tensor {
	return b.View4D(res, sv, h, tokens, seqs, f32Row(sv), f32Row(sv*h), f32Row(sv*h*tokens), 0)
}
