package arch

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"

	"weigh/formats"
	"weigh/inspect/model"
)

// A Want is a tensor that llama.cpp asks a model's file for.
type Want struct {
	Name     string
	Shape    []int64 // fastest dimension first; dimensions beyond are 1
	Optional bool    // it may be missing
	Reshaped bool    // only the number of elements counts (TENSOR_ALLOW_RESHAPE)
}

// Fits reports whether a tensor of the given shape is what is asked for.
func (w *Want) Fits(shape []uint64) bool {
	if w.Reshaped {
		have, want := uint64(1), uint64(1)
		for _, n := range shape {
			have *= n
		}
		for _, n := range w.Shape {
			want *= uint64(n)
		}
		return have == want
	}
	for d := range max(len(shape), len(w.Shape)) {
		have, want := uint64(1), uint64(1)
		if d < len(shape) {
			have = shape[d]
		}
		if d < len(w.Shape) {
			want = uint64(w.Shape[d])
		}
		if have != want {
			return false
		}
	}
	return true
}

// Tensors returns what llama.cpp asks the file of model m for when it loads it
// without multi-token prediction. It refuses a file that lacks one of them, has
// one in another shape, or has one more. ok is false for an architecture that
// the table does not have.
//
// Source: src/llama-model.cpp@v0.5.0, llama_model_base::load_tensors; the
// families' load_arch_tensors.
func Tensors(m *model.Model) (list []Want, ok bool) {
	row := Lookup(m.Arch)
	if row == nil || row.Tensors == nil {
		return nil, false
	}
	w := &wants{
		Keys: &Keys{meta: m.Meta, arch: m.Arch, index: m.Index}, HParams: &m.HParams,
		nVocab: m.NVocab, tensors: m.Tensors,
	}
	row.Tensors(w)
	w.scales()
	return w.list, true
}

// How a tensor is asked for (llama_model_loader's TENSOR_ flags). TENSOR_DUPLICATED
// has no counterpart: a second copy asks the file for nothing new.
const (
	optional = 1 << iota // TENSOR_NOT_REQUIRED
	skipped              // TENSOR_SKIP: it counts, but is not loaded
	reshaped             // TENSOR_ALLOW_RESHAPE
	unscaled             // its scales are not asked for, though others of its name have them
)

// wants collects what a loader asks for. Counts are those of LLAMA_LOAD_LOCALS.
type wants struct {
	*Keys
	*model.HParams
	nVocab  int
	tensors []model.Tensor
	list    []Want
	dims    []int64 // the shapes of list, one after the other
	loaded  []loadedWeight
}

// A loadedWeight may have scales.
type loadedWeight struct {
	il   int
	base string
}

// tensor asks for the tensor name, ".weight" and the like included, of layer il,
// or outside the blocks when il is negative. It reports whether it is loaded.
func (w *wants) tensor(flags, il int, name string, ne ...int) bool {
	i := -1
	full := name
	if il < 0 {
		i = w.index.Global(name)
	} else {
		i = w.index.Layer(il, name)
		full = "blk." + strconv.Itoa(il) + "." + name
	}
	at := len(w.dims)
	for _, n := range ne {
		w.dims = append(w.dims, int64(n))
	}
	w.list = append(w.list, Want{Name: full, Shape: slices.Clip(w.dims[at:]), Optional: flags&optional != 0, Reshaped: flags&reshaped != 0})
	if i < 0 || flags&skipped != 0 {
		return false
	}
	if base, ok := strings.CutSuffix(name, ".weight"); ok && flags&unscaled == 0 {
		w.loaded = append(w.loaded, loadedWeight{il, base})
	}
	return true
}

// need asks for a tensor that must be there.
func (w *wants) need(il int, name string, ne ...int) { w.tensor(0, il, name, ne...) }

// may asks for a tensor that may be missing and reports whether it is there.
func (w *wants) may(il int, name string, ne ...int) bool { return w.tensor(optional, il, name, ne...) }

// has reports whether the file has a tensor, without asking for it.
func (w *wants) has(il int, name string) bool {
	if il < 0 {
		return w.index.Global(name) >= 0
	}
	return w.index.Layer(il, name) >= 0
}

// dim returns how large dimension d of a tensor of the file is, def when the
// file has no such tensor.
func (w *wants) dim(il int, name string, d, def int) int {
	i := w.index.Layer(il, name)
	if il < 0 {
		i = w.index.Global(name)
	}
	switch {
	case i < 0:
		return def
	case d >= len(w.tensors[i].Shape):
		return 1
	}
	return int(min(w.tensors[i].Shape[d], math.MaxInt))
}

// ends asks for the embeddings, the last norm and the output matrix, which may
// be the embeddings.
func (w *wants) ends() {
	w.output(optional, w.nVocab)
}

// output is ends for an output matrix of n rows.
func (w *wants) output(flags, n int) {
	w.need(-1, "token_embd.weight", w.NEmbd, w.nVocab)
	w.need(-1, "output_norm.weight", w.NEmbd)
	w.tensor(flags, -1, "output.weight", w.NEmbd, n)
}

// attention asks for the norm and the projections of layer il's attention.
func (w *wants) attention(flags, il, q, k, v int) {
	w.tensor(flags, il, "attn_norm.weight", w.NEmbd)
	w.qkv(flags, il, w.NEmbd, q, k, v)
	w.tensor(flags, il, "attn_output.weight", q, w.NEmbd)
}

// qWidth returns the width of all queries.
func (w *wants) qWidth() int { return w.NEmbdHeadK(0) * w.NHead(0) }

// headNorms asks for the norms of each head's queries and keys.
func (w *wants) headNorms(flags, il int) {
	w.tensor(flags, il, "attn_q_norm.weight", w.NEmbdHeadK(0))
	w.tensor(flags, il, "attn_k_norm.weight", w.NEmbdHeadK(0))
}

// qkv asks for the projections of layer il, in one or apart, with their biases
// where there are any. (create_tensor_qkv)
func (w *wants) qkv(flags, il, nEmbd, q, k, v int) {
	parts := []struct {
		name string
		n    int
	}{{"attn_q", q}, {"attn_k", k}, {"attn_v", v}}
	if flags&skipped != 0 {
		flags |= optional
	}
	opt := flags | optional
	w.tensor(opt, il, "attn_qkv.weight", nEmbd, q+k+v)
	if w.has(il, "attn_qkv.weight") && flags&skipped == 0 {
		if w.may(il, "attn_qkv.bias", q+k+v) {
			return
		}
	} else {
		for _, p := range parts {
			w.tensor(flags, il, p.name+".weight", nEmbd, p.n)
		}
		if flags&skipped != 0 {
			w.tensor(opt, il, "attn_qkv.bias", q+k+v)
		}
	}
	for _, p := range parts {
		w.tensor(opt, il, p.name+".bias", p.n)
	}
}

// gateUpExps asks for the experts' gate and up projections, in one or apart.
// (create_tensor_gate_up_exps)
func (w *wants) gateUpExps(flags, il, nEmbd, nFF, nExpert int) {
	if flags&skipped != 0 {
		flags |= optional
	}
	w.tensor(flags|optional, il, "ffn_gate_up_exps.weight", nEmbd, 2*nFF, nExpert)
	if flags&skipped == 0 && w.has(il, "ffn_gate_up_exps.weight") {
		return
	}
	w.tensor(flags, il, "ffn_gate_exps.weight", nEmbd, nFF, nExpert)
	w.tensor(flags, il, "ffn_up_exps.weight", nEmbd, nFF, nExpert)
}

// experts asks for a router and for experts of width nFF.
func (w *wants) experts(flags, il, nFF int) {
	w.tensor(flags, il, "ffn_gate_inp.weight", w.NEmbd, w.NExpert)
	w.tensor(flags, il, "ffn_gate_exps.weight", w.NEmbd, nFF, w.NExpert)
	w.tensor(flags, il, "ffn_down_exps.weight", nFF, w.NEmbd, w.NExpert)
	w.tensor(flags, il, "ffn_up_exps.weight", w.NEmbd, nFF, w.NExpert)
}

// expertFF returns the width of an expert: that of the dense block is shared out
// among the experts in use where the model does not say.
func (w *wants) expertFF() int {
	return cmp.Or(w.NFFExp(0), quotient(w.NFF(0), w.NExpertUsed(0)))
}

// quotient is 0 where llama.cpp ends in a division by zero: no tensor has that
// width.
func quotient(a, b int) int {
	if b == 0 {
		return 0
	}
	return a / b
}

// ffn asks for the three matrices of a gated feed-forward block of width nFF,
// whose names end in suffix: "" or "_shexp".
func (w *wants) ffn(flags, il int, suffix string, nFF int) {
	w.tensor(flags, il, "ffn_gate"+suffix+".weight", w.NEmbd, nFF)
	w.tensor(flags, il, "ffn_down"+suffix+".weight", nFF, w.NEmbd)
	w.tensor(flags, il, "ffn_up"+suffix+".weight", w.NEmbd, nFF)
}

// ffnBiases asks for the biases that a gated block of width nFF may have.
func (w *wants) ffnBiases(il, nFF int) {
	w.may(il, "ffn_gate.bias", nFF)
	w.may(il, "ffn_down.bias", w.NEmbd)
	w.may(il, "ffn_up.bias", nFF)
}

// nextN asks for what a NextN block has beside a layer's tensors; own are the
// flags of those that may stand in for the model's.
func (w *wants) nextN(flags, own, il int) {
	w.tensor(flags, il, "nextn.eh_proj.weight", 2*w.NEmbd, w.NEmbd)
	w.tensor(flags, il, "nextn.enorm.weight", w.NEmbd)
	w.tensor(flags, il, "nextn.hnorm.weight", w.NEmbd)
	w.tensor(own|optional, il, "nextn.embed_tokens.weight", w.NEmbd, w.nVocab)
	w.tensor(own|optional, il, "nextn.shared_head_head.weight", w.NEmbd, w.nVocab)
	w.tensor(own|optional, il, "nextn.shared_head_norm.weight", w.NEmbd)
}

// parts returns the flags of the trunk's tensors and of the NextN blocks', for a
// file that may hold only one of the two.
func (w *wants) parts() (trunk, next int) {
	next = skipped
	if w.NLayerNext > 0 && !w.has(0, "attn_norm.weight") {
		trunk = optional
	}
	if w.NLayerNext > 0 && !w.has(w.NLayer(), "nextn.eh_proj.weight") {
		next |= optional
	}
	return trunk, next
}

// ropeFactors asks for the frequency factors that all layers share.
func (w *wants) ropeFactors() {
	half := w.NRot(0) / 2
	if w.RopeScalingLong {
		w.may(-1, "rope_factors_long.weight", half)
		w.may(-1, "rope_factors_short.weight", half)
		return
	}
	w.may(-1, "rope_freqs.weight", half)
}

// The weights that any architecture's file may have scales of.
var (
	scaled = strings.Fields(`attn_q attn_k attn_v attn_output attn_qkv attn_gate ffn_gate ffn_down ffn_up ffn_gate_shexp
		ffn_down_shexp ffn_up_shexp ssm_in ssm_out ssm_alpha ssm_beta nextn.eh_proj nextn.shared_head_head`)
	scaledExperts = strings.Fields(`ffn_gate_exps ffn_down_exps ffn_up_exps`)
)

// scales asks for the scales of the loaded weights.
func (w *wants) scales() {
	for _, l := range w.loaded {
		n := 1
		switch {
		case l.il >= 0 && slices.Contains(scaledExperts, l.base):
			n = w.NExpert
		case l.il >= 0 && slices.Contains(scaled, l.base):
		case l.il < 0 && l.base == "output" && w.tensors[w.index.Global("output.weight")].Type == formats.NVFP4:
		default:
			continue
		}
		w.may(l.il, l.base+".scale", n)
		w.may(l.il, l.base+".input_scale", n)
	}
}
