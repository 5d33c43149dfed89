package arch

import (
	"cmp"
	"strings"
)

// A presence says whether a loader asks for a tensor, and must find it.
type presence uint8

const (
	unasked presence = iota
	maybe
	must
)

// ask asks for a tensor as its presence says.
func (w *wants) ask(p presence, il int, name string, ne ...int) {
	switch p {
	case maybe:
		w.may(il, name, ne...)
	case must:
		w.need(il, name, ne...)
	}
}

// A stack asks for the tensors of a plain decoder, as its wiring builds it.
type stack struct {
	output presence               // of output.weight
	bias   presence               // of the norms' biases
	norms  string                 // of a layer; attn_norm and ffn_norm unless it says others
	attn   func(w *wants, il int) // heads of their own width in place of nil
	outB   presence               // of attn_output.bias
	ffn    func(w *wants, il int) // a gated block without biases in place of nil
	more   each                   // what else a layer has
}

func (s stack) ask(w *wants) {
	w.need(-1, "token_embd.weight", w.NEmbd, w.nVocab)
	w.head(s.output, s.bias)
	for il := range w.NLayer() {
		s.layer(w, il)
	}
}

// head asks for the last norm and the output matrix.
func (w *wants) head(output, bias presence) {
	w.norm(bias, -1, "output_norm")
	w.ask(output, -1, "output.weight", w.NEmbd, w.nVocab)
}

func (s stack) layer(w *wants, il int) {
	for _, name := range strings.Fields(cmp.Or(s.norms, "attn_norm ffn_norm")) {
		w.norm(s.bias, il, name)
	}
	if s.attn == nil {
		s.attn = (*wants).heads
	}
	if s.ffn == nil {
		s.ffn = gated(unasked)
	}
	s.attn(w, il)
	w.ask(s.outB, il, "attn_output.bias", w.NEmbd)
	s.ffn(w, il)
	for _, more := range s.more {
		more(w, il)
	}
}

// norm asks for a norm of the residual stream.
func (w *wants) norm(bias presence, il int, name string) {
	w.need(il, name+".weight", w.NEmbd)
	w.ask(bias, il, name+".bias", w.NEmbd)
}

// attn asks for the projections of layer il and the output projection of their
// heads, q wide.
func (w *wants) attn(il, q, k, v int) {
	w.qkv(0, il, w.NEmbd, q, k, v)
	w.need(il, "attn_output.weight", q, w.NEmbd)
}

// heads are heads whose width may have a key of its own.
func (w *wants) heads(il int) {
	w.attn(il, w.NEmbdHeadK(0)*w.NHead(0), w.NEmbdKGQA(0), w.NEmbdVGQA(0))
}

// evenHeads are heads with keys as wide as their values.
func (w *wants) evenHeads(il int) {
	w.attn(il, w.NEmbdHeadK(0)*w.NHead(0), w.NEmbdVGQA(0), w.NEmbdVGQA(0))
}

// square are heads that are together as wide as the model.
func (w *wants) square(il int) { w.attn(il, w.NEmbd, w.NEmbdVGQA(0), w.NEmbdVGQA(0)) }

// fused are the same with their projections in one matrix.
func fused(bias presence) func(w *wants, il int) {
	return func(w *wants, il int) {
		n := w.NEmbd + 2*w.NEmbdVGQA(0)
		w.need(il, "attn_qkv.weight", w.NEmbd, n)
		w.ask(bias, il, "attn_qkv.bias", n)
		w.need(il, "attn_output.weight", w.NEmbd, w.NEmbd)
	}
}

// qkNorms asks for the norms of queries and keys, head by head.
func (w *wants) qkNorms(il int) { w.headNorms(0, il) }

// gated is a gated block.
func gated(bias presence) func(w *wants, il int) {
	up := ungated(bias)
	return func(w *wants, il int) {
		w.need(il, "ffn_gate.weight", w.NEmbd, w.NFF(0))
		w.ask(bias, il, "ffn_gate.bias", w.NFF(0))
		up(w, il)
	}
}

// ungated is a block without a gate.
func ungated(bias presence) func(w *wants, il int) {
	return func(w *wants, il int) {
		w.need(il, "ffn_up.weight", w.NEmbd, w.NFF(0))
		w.need(il, "ffn_down.weight", w.NFF(0), w.NEmbd)
		w.ask(bias, il, "ffn_up.bias", w.NFF(0))
		w.ask(bias, il, "ffn_down.bias", w.NEmbd)
	}
}

// upGated is a block whose up projection holds the gate.
func upGated(w *wants, il int) {
	w.need(il, "ffn_up.weight", w.NEmbd, 2*w.NFF(0))
	w.need(il, "ffn_down.weight", w.NFF(0), w.NEmbd)
}

// factors asks for the frequency factors that all layers share.
func (w *wants) factors(int) { w.ropeFactors() }

// freqs is factors of a loader that knows none for long contexts.
func (w *wants) freqs(int) { w.may(-1, "rope_freqs.weight", w.NRot(0)/2) }

// each are asked for in each layer.
type each []func(w *wants, il int)
