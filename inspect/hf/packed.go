package hf

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"

	"weigh/formats"
	"weigh/formats/hfconfig"
	"weigh/formats/safetensors"
)

// A Weight is one parameter tensor as the model computes with it, put together
// from the tensors that store it.
type Weight struct {
	Name   string        // of the parameter: "….weight" whatever its stored parts are called
	Shape  []uint64      // logical, slowest dimension first; not to be changed, as others may share it
	Packed string        // how the values are packed: "gptq", "nvfp4", …; "" for plain elements
	Params uint64        // product of Shape
	Bytes  uint64        // of all stored parts: values, scales, zero points, indices
	Type   formats.DType // of the stored tensor that holds the values
	Guess  bool          // the packing does not tell the shape; Params is what the bytes can hold
	scales sides
}

// sides are the scales of a whole NVFP4 matrix that there are.
type sides uint8

const (
	scaleSide sides = 1 << iota
	inputSide
)

// ends yields the endings that GGUF gives them.
func (s sides) ends() iter.Seq[string] {
	return func(yield func(string) bool) {
		if s&scaleSide != 0 && !yield("scale") {
			return
		}
		if s&inputSide != 0 {
			yield("input_scale")
		}
	}
}

// A stored is a tensor as the files hold it.
type stored struct {
	*safetensors.Tensor
	in *holder
}

// A holder is a file of a folder.
type holder struct {
	folder *folder
	name   string
}

// read returns the contents, nil when they are larger than limit or unreadable.
func (s *stored) read(limit int) []byte {
	return s.in.folder.contents(s.in.name, s.Offset, s.Bytes, limit)
}

func (s *stored) dim(i int) uint64 { return tensor{shape: s.Shape}.dim(i) }

// params returns the product of a shape, 0 when it overflows.
func params(shape []uint64) uint64 {
	n, _ := formats.Elements(shape)
	return n
}

// unpack puts the parameters together from what is stored, in the order of the
// tensors that hold the values. It goes by the tensors' names, types and shapes;
// the configuration's word is taken where these leave a choice.
//
// Source: the layouts that the writers' projects document: AutoGPTQ, AutoAWQ,
// bitsandbytes, compressed-tensors, TensorRT Model Optimizer, DeepSeek, Mistral,
// gpt-oss, ExLlamaV2 and V3, MLX, torchao, HQQ.
func unpack(tensors []stored, q *hfconfig.Quantization) []Weight {
	u := &unpacker{
		tensors: tensors, used: make([]bool, len(tensors)), q: q,
		places: formats.NewNames(len(tensors), func(i int) string { return tensors[i].Name }),
	}
	if u.q == nil {
		u.q = &hfconfig.Quantization{}
	}
	var out []Weight
	listed, plain := make([]bool, len(tensors)), make([]bool, len(tensors))
	for i := range tensors {
		t := &tensors[i]
		if u.used[i] {
			continue
		}
		w, ok := u.group(t)
		if !ok {
			if isAuxiliary(t) {
				continue
			}
			plain[i] = true
			w = Weight{Name: t.Name, Shape: t.Shape, Params: params(t.Shape), Type: t.Type, Bytes: t.Bytes}
		}
		listed[i] = true
		out = append(formats.Grow(out, int64(i), int64(len(tensors))), w)
	}
	// A tensor that came before the values that it is a part of is no parameter.
	kept, next := out[:0], 0
	for i := range tensors {
		if !listed[i] {
			continue
		}
		if !plain[i] || !u.used[i] {
			kept = append(kept, out[next])
		}
		next++
	}
	return kept
}

type unpacker struct {
	tensors []stored
	places  *formats.Names
	used    []bool // parts of a weight, the values excepted
	q       *hfconfig.Quantization
}

// named returns base+".weight", in the room of the tensor's own name where that
// begins so.
func named(t *stored, base string) string {
	const end = ".weight"
	if len(t.Name) >= len(base)+len(end) && t.Name[len(base):len(base)+len(end)] == end {
		return t.Name[:len(base)+len(end)]
	}
	return base + end
}

// get returns the tensor of a name, nil when there is none.
func (u *unpacker) get(name string) *stored {
	if i := u.places.Find(name); i >= 0 {
		return &u.tensors[i]
	}
	return nil
}

// take claims the tensor base+end as a part, and returns it, nil when there is
// none.
func (u *unpacker) take(base, end string) *stored {
	i := u.places.Find(base + end)
	if i < 0 {
		return nil
	}
	u.used[i] = true
	return &u.tensors[i]
}

// weight makes a weight of values and the parts with the given endings.
func (u *unpacker) weight(values *stored, name, packed string, shape []uint64, base string, ends ...string) (Weight, bool) {
	w := Weight{Name: name, Shape: shape, Params: params(shape), Type: values.Type, Bytes: values.Bytes, Packed: packed}
	for _, end := range ends {
		p := u.take(base, end)
		if p == nil || p == values {
			continue
		}
		w.Bytes += p.Bytes
		switch end {
		case ".weight_scale_2", ".weight_global_scale":
			w.scales |= scaleSide
		case ".input_scale", ".input_global_scale":
			w.scales |= inputSide
		}
	}
	return w, true
}

// scales are the endings of the tensors that scale plain or FP8 values.
var scaleEnds = []string{
	".weight_scale", ".weight_scale_inv", ".weight_scale_2", ".weight_global_scale", ".input_scale", ".input_global_scale", ".activation_scale",
	".weight_scales", ".weight_offset", ".qscale_weight", ".qscale_act", ".input_scale_ub", ".act_scale", ".pre_quant_scale", ".scale_weight", ".scale_input", ".weight_zero_point", ".input_zero_point", ".weight_g_idx", ".weight_shape", ".scale", ".comfy_quant",
	"_scale_inv", "_scale",
}

// group returns the weight whose values t holds, when it is packed.
func (u *unpacker) group(t *stored) (Weight, bool) {
	if base, ok := strings.CutSuffix(t.Name, ".qweight"); ok {
		return u.gptq(t, base)
	}
	if base, ok := strings.CutSuffix(t.Name, ".weight_packed"); ok {
		return u.compressed(t, base)
	}
	if base, ok := strings.CutSuffix(t.Name, "_blocks"); ok && t.Type == formats.U8 && len(t.Shape) >= 2 && u.get(base+"_scales") != nil {
		// [experts, rows, blocks, 16]: 32 weights of 4 bits in a block.
		n := len(t.Shape)
		shape := append(slices.Clone(t.Shape[:n-2]), t.dim(-2)*t.dim(-1)*2)
		return u.weight(t, base, "mxfp4", shape, base, "_scales")
	}
	if base, ok := strings.CutSuffix(t.Name, ".q_weight"); ok {
		return u.exl2(t, base)
	}
	if base, ok := strings.CutSuffix(t.Name, ".trellis"); ok && len(t.Shape) == 3 {
		return u.weight(t, base+".weight", "exl3", []uint64{16 * t.dim(1), 16 * t.dim(0)}, base, ".suh", ".svh", ".su", ".sv", ".mcg", ".mul1")
	}
	if base, ok := strings.CutSuffix(t.Name, "._weight_qdata"); ok {
		return u.torchao(t, base)
	}
	if base, ok := strings.CutSuffix(t.Name, ".W_q"); ok {
		return u.hqq(t, base)
	}
	if base, ok := strings.CutSuffix(t.Name, ".codes"); ok && u.get(base+".codebooks") != nil {
		// [outputs/a, inputs/b, books] codes for a×b weights, from books of
		// [books, entries, a, b].
		c := u.get(base + ".codebooks")
		return u.weight(t, base+".weight", "aqlm", []uint64{t.dim(0) * c.dim(2), t.dim(1) * c.dim(3)}, base, ".codebooks", ".scales")
	}
	if base, ok := strings.CutSuffix(t.Name, ".indices"); ok && u.get(base+".centroids.weight") != nil {
		return u.vptq(t, base)
	}
	if base, ok := strings.CutSuffix(t.Name, ".weight.compressed"); ok && u.get(base+".weight.bitmask") != nil {
		// A bit for every weight says which are stored, the others being zero.
		m := u.get(base + ".weight.bitmask")
		return u.weight(t, base+".weight", "sparse-bitmask", []uint64{m.dim(0), 8 * m.dim(1)}, base, ".weight.bitmask", ".weight.shape", ".weight.row_offsets", ".weight_scale", ".weight_zero_point", ".input_scale")
	}
	for _, end := range []string{".weight._data", ".weight._data._data"} {
		if base, ok := strings.CutSuffix(t.Name, end); ok {
			return u.quanto(t, base)
		}
	}
	if base, ok := strings.CutSuffix(t.Name, ".B"); ok && t.Type == formats.I32 && u.get(base+".s") != nil {
		// Marlin's tiles of 16 inputs, 8 weights of 4 bits in each I32.
		return u.weight(t, base+".weight", "marlin", []uint64{t.dim(1) / 2, 16 * t.dim(0)}, base, ".s", ".workspace")
	}
	base, ok := strings.CutSuffix(t.Name, ".weight")
	if !ok {
		return u.bare(t)
	}
	switch {
	case u.get(t.Name+".absmax") != nil:
		return u.nf4(t)
	case u.get(base+".SCB") != nil:
		return u.weight(t, t.Name, "int8", t.Shape, base, ".SCB", ".weight_format")
	case t.Type == formats.U32 && u.get(base+".scales") != nil:
		return u.mlx(t, base)
	}
	return u.scaled(t, base)
}

// gptq reads GPTQ's and AWQ's layout: several weights in each I32, down the
// input in GPTQ and along the output in AWQ. The scales have a column for every
// output, and the zero points are packed along it as the weights of a module
// are, whatever the configuration says of the others.
func (u *unpacker) gptq(t *stored, base string) (Weight, bool) {
	scales, zeros, idx := u.get(base+".scales"), u.get(base+".qzeros"), u.get(base+".g_idx")
	parts := []string{".qzeros", ".scales", ".g_idx", ".workspace"}
	name := base + ".weight"
	if t.Type == formats.U8 || t.Type == formats.I8 {
		return u.pairs(t, base)
	}
	bits := uint64(max(u.q.Bits, 0))
	if scales != nil && zeros != nil && scales.dim(-1) > 0 && zeros.Type == t.Type {
		if b := 32 * zeros.dim(-1) / scales.dim(-1); b >= 1 && b <= 8 {
			bits = b
		}
	}
	bits = cmp.Or(bits, 4)
	switch {
	case strings.HasPrefix(u.q.Raw.String("version"), "gemv"):
		return u.weight(t, name, "awq", []uint64{t.dim(0), t.dim(1) * 32 / cmp.Or(uint64(max(u.q.Bits, 0)), 4)}, base, parts...)
	case idx != nil:
		return u.weight(t, name, "gptq", []uint64{t.dim(1), params(idx.Shape)}, base, parts...)
	case scales != nil && scales.dim(-1) != t.dim(1):
		return u.weight(t, name, "awq", []uint64{scales.dim(-1), t.dim(0)}, base, parts...)
	case scales != nil || u.q.Method == "gptq" || strings.HasSuffix(u.q.Format, "gptq"):
		return u.weight(t, name, "gptq", []uint64{t.dim(1), t.dim(0) * 32 / bits}, base, parts...)
	}
	return u.weight(t, name, "awq", []uint64{t.dim(1) * 32 / bits, t.dim(0)}, base, parts...)
}

// pairs reads FP-Quant's and SVDQuant's layout: two weights of 4 bits in each
// byte.
func (u *unpacker) pairs(t *stored, base string) (Weight, bool) {
	n := len(t.Shape)
	if n == 0 {
		return Weight{}, false
	}
	packed := "int4"
	if s := u.get(base + ".scales"); s != nil && s.Type == formats.F8_E4M3 {
		packed = "nvfp4"
	} else if s != nil && (s.Type == formats.U8 || s.Type == formats.F8_E8M0) {
		packed = "mxfp4"
	}
	return u.weight(t, base+".weight", packed, append(slices.Clone(t.Shape[:n-1]), 2*t.dim(-1)), base,
		".scales", ".wscales", ".wzeros", ".wcscales", ".wtscale", ".weight_global_scale", ".act_global_scale", ".smooth", ".smooth_orig", ".smooth_factor", ".smooth_factor_orig", ".forward_hadamard_matrix", ".backward_hadamard_matrix")
}

// compressed reads compressed-tensors' packed layouts.
func (u *unpacker) compressed(t *stored, base string) (Weight, bool) {
	ends := []string{".weight_scale", ".weight_global_scale", ".weight_shape", ".weight_zero_point", ".weight_g_idx", ".input_global_scale", ".input_scale", ".scale_packed", ".meta"}
	n := len(t.Shape)
	if n == 0 {
		return Weight{}, false
	}
	name, scale := named(t, base), u.get(base+".weight_scale")
	last := func(in uint64) []uint64 { return append(slices.Clone(t.Shape[:n-1]), in) }
	if t.Type == formats.U8 {
		packed := "mxfp4"
		if u.get(base+".weight_global_scale") != nil || scale != nil && scale.Type == formats.F8_E4M3 {
			packed = "nvfp4"
		}
		return u.weight(t, name, packed, last(2*t.dim(-1)), base, ends...)
	}
	shape := []uint64(nil)
	if s := u.get(base + ".weight_shape"); s != nil {
		shape = integers(s)
	}
	bits := uint64(max(u.q.Bits, 1))
	// What the values can hold bounds what the shape may say.
	held := t.Bytes * 8 / bits
	if u.q.Bits == 0 { // modules differ
		bits = 4
	}
	if u.get(base+".meta") != nil { // every second weight is zero and not stored
		held *= 2
		if s := u.get(base + ".scale_packed"); s != nil && s.dim(-1) > 0 && len(shape) == 0 {
			shape = []uint64{s.dim(-1), t.Bytes * 8 / bits * 2 / s.dim(-1)}
		}
	}
	if len(shape) == 0 || params(shape) == 0 || params(shape) > held {
		in := t.dim(-1) * 32 / bits
		if scale != nil && u.q.Group > 0 && scale.dim(-1)*uint64(u.q.Group) <= in {
			in = scale.dim(-1) * uint64(u.q.Group)
		}
		shape = last(in)
	}
	return u.weight(t, name, "pack-quantized", shape, base, ends...)
}

// nf4 reads bitsandbytes' 4-bit layout: a flat run of bytes, whose shape is in
// a small JSON tensor.
func (u *unpacker) nf4(t *stored) (Weight, bool) {
	packed, shape := "nf4", []uint64(nil)
	ends := []string{".absmax", ".nested_absmax", ".quant_map", ".nested_quant_map"}
	for _, kind := range []string{"nf4", "fp4"} {
		end := ".quant_state.bitsandbytes__" + kind
		s := u.get(t.Name + end)
		if s == nil {
			continue
		}
		packed = kind
		ends = append(ends, end)
		if b := s.read(64 << 10); b != nil {
			if o, err := hfconfig.Parse(b, s.Name); err == nil {
				for _, v := range o.List("shape") {
					n, _ := hfconfig.AsInt(v)
					shape = append(shape, uint64(max(n, 0)))
				}
			}
		}
	}
	guess := false
	if n := params(shape); len(shape) == 0 || n == 0 || n > 2*t.Bytes || n+1 < 2*t.Bytes {
		shape, guess = []uint64{2 * t.Bytes}, true
	}
	w, ok := u.weight(t, t.Name, packed, shape, t.Name, ends...)
	w.Guess = guess
	return w, ok
}

// mlx reads MLX's layout: bits-wide weights packed along the input in U32.
func (u *unpacker) mlx(t *stored, base string) (Weight, bool) {
	scales := u.get(base + ".scales")
	bits, group := uint64(max(u.q.Bits, 0)), uint64(max(u.q.Group, 0))
	if o := u.q.Raw.Object(base); o != nil { // a module's own setting
		b, _ := o.Int("bits")
		g, _ := o.Int("group_size")
		bits, group = uint64(max(b, 0)), uint64(max(g, 0))
	}
	in := uint64(0)
	switch {
	case group > 0:
		in = scales.dim(-1) * group
	case bits > 0:
		in = t.dim(-1) * 32 / bits
	default:
		in = t.dim(-1) * 8
	}
	in = min(in, t.dim(-1)*32) // no fewer than one bit each
	shape := append(slices.Clone(t.Shape[:max(len(t.Shape)-1, 0)]), in)
	return u.weight(t, t.Name, "mlx", shape, base, ".scales", ".biases")
}

// exl2 reads ExLlamaV2's layout, whose rows have several widths.
func (u *unpacker) exl2(t *stored, base string) (Weight, bool) {
	in, out := t.dim(0), t.dim(1)
	if p := u.get(base + ".q_invperm"); p != nil {
		in = params(p.Shape)
	} else if p := u.get(base + ".q_perm"); p != nil {
		in = params(p.Shape)
	}
	return u.weight(t, base+".weight", "exl2", []uint64{out, in}, base, ".q_scale", ".q_scale_max", ".q_groups", ".q_invperm", ".q_perm", ".q_group_map")
}

// torchao reads torchao's flattened tensors; how many weights a byte holds is
// not in the header.
func (u *unpacker) torchao(t *stored, base string) (Weight, bool) {
	shape, guess := slices.Clone(t.Shape), false
	kind := strings.ToLower(u.q.Raw.String("quant_type") + fmt.Sprint(u.q.Raw["quant_type"]))
	if n := len(shape); n > 0 {
		switch {
		case t.Type == formats.I32:
			shape[n-1], guess = shape[n-1]*8, true
		case t.Type == formats.U8 || strings.Contains(kind, "int4") && t.Type == formats.I8:
			shape[n-1], guess = shape[n-1]*2, true
		}
	}
	w, ok := u.weight(t, base+".weight", "torchao", shape, base, "._weight_scale", "._weight_zero_point", "._weight_scale_and_zero", "._weight_per_tensor_scale", "._weight_act_scale")
	w.Guess = guess
	return w, ok
}

// vptq reads VPTQ's indices into books of vectors, whose matrices the
// configuration measures.
func (u *unpacker) vptq(t *stored, base string) (Weight, bool) {
	o := u.q.Raw.Object("config_for_layers").Object(base)
	in, _ := o.Int("in_features")
	out, _ := o.Int("out_features")
	shape, guess := []uint64{uint64(max(out, 0)), uint64(max(in, 0))}, false
	if n := params(shape); n == 0 || n > t.Bytes*64 { // a vector of 16 in two bits is as far as it goes
		shape, guess = slices.Clone(t.Shape), true
	}
	w, ok := u.weight(t, base+".weight", "vptq", shape, base, ".centroids.weight", ".res_centroids.weight", ".outlier_centroids.weight", ".outlier_indices", ".perm", ".weight_scale", ".weight_bias")
	w.Guess = guess
	return w, ok
}

// quanto reads optimum-quanto's flattened tensors: bytes as they are, 4 bits two
// to a byte, 2 bits four.
func (u *unpacker) quanto(t *stored, base string) (Weight, bool) {
	shape, guess := slices.Clone(t.Shape), false
	if n := len(shape); n > 0 && t.Type == formats.U8 {
		each := uint64(2)
		if u.q.Raw.String("weights") == "int2" || u.q.Raw.String("weights") == "qint2" {
			each = 4
		}
		shape[n-1], guess = each*shape[n-1], true
	}
	w, ok := u.weight(t, base+".weight", "quanto", shape, base, ".weight._scale", ".weight._shift", ".input_scale", ".output_scale")
	w.Guess = guess
	return w, ok
}

// hqq reads HQQ's layout.
func (u *unpacker) hqq(t *stored, base string) (Weight, bool) {
	bits := uint64(max(u.q.Bits, 0))
	if s := u.get(base + ".nbits"); s != nil {
		if v := integers(s); len(v) == 1 {
			bits = v[0]
		}
	}
	if bits == 0 {
		bits = 4
	}
	var shape []uint64
	guess := false
	if s := u.get(base + ".shape"); s != nil {
		shape = integers(s)
	}
	if n := params(shape); len(shape) == 0 || n == 0 || n > t.Bytes*8/bits+32 {
		shape, guess = []uint64{t.Bytes * 8 / bits}, true
	}
	w, ok := u.weight(t, base+".weight", "hqq", shape, base, ".scale", ".zero", ".nbits", ".axis", ".group_size", ".shape", ".packing", ".view_as_float", ".channel_wise", ".optimize", ".round_zero", ".unpack_view_dtype", ".compute_dtype", ".quant_scale", ".quant_zero", ".offload_meta", ".stores_quant_config")
	w.Guess = guess
	return w, ok
}

// scaled reads weights that have scales beside them: FP8 and integers as they
// are, FP4 two to a byte, ternary four.
func (u *unpacker) scaled(t *stored, base string) (Weight, bool) {
	scale := u.get(base + ".weight_scale")
	plain := u.get(base + ".scale")
	n := len(t.Shape)
	last := func(k uint64) []uint64 { return append(slices.Clone(t.Shape[:n-1]), k*t.dim(-1)) }
	switch byteWide := t.Type == formats.U8 || t.Type == formats.I8; {
	case n >= 2 && t.Type == formats.U8 && scale != nil && scale.Type == formats.F8_E4M3:
		return u.weight(t, t.Name, "nvfp4", last(2), base, scaleEnds...)
	case n >= 2 && t.Type == formats.U8 && scale != nil && (scale.Type == formats.U8 || scale.Type == formats.F8_E8M0) && scale.dim(-1)*16 == t.dim(-1):
		return u.weight(t, t.Name, "mxfp4", last(2), base, scaleEnds...)
	case n >= 2 && byteWide && plain != nil && plain.dim(-1)*16 == t.dim(-1):
		return u.weight(t, t.Name, "mxfp4", last(2), base, scaleEnds...) // DeepSeek V4's experts
	case n >= 2 && t.Type == formats.U8 && scale != nil && u.q.Method == "bitnet":
		return u.weight(t, t.Name, "bitnet", append([]uint64{4 * t.dim(0)}, t.Shape[1:]...), base, scaleEnds...)
	}
	if n == 2 && t.Type == formats.U8 && scale != nil && scale.dim(0) == 2*t.dim(0) {
		return u.weight(t, t.Name, "int4", []uint64{2 * t.dim(0), t.dim(1)}, base, scaleEnds...) // ModelOpt's INT4_AWQ
	}
	if n == 2 && (t.Type == formats.I32 || t.Type == formats.U32) && scale != nil {
		// Quark's integers; which way they are packed the scales tell.
		bits := cmp.Or(uint64(max(u.q.Bits, 0)), 4)
		shape, guess := []uint64{t.dim(0), t.dim(1) * 32 / bits}, true
		if out := t.dim(1) * 32 / bits; scale.dim(-1) == out || scale.dim(0) == out {
			shape, guess = []uint64{out, t.dim(0)}, false
		}
		w, ok := u.weight(t, t.Name, "int"+strconv.FormatUint(bits, 10), shape, base, scaleEnds...)
		w.Guess = guess
		return w, ok
	}
	if !isQuantized(t.Type) {
		return Weight{}, false
	}
	packed := ""
	for _, end := range scaleEnds {
		if u.get(base+end) != nil {
			packed = strings.ToLower(t.Type.String())
		}
	}
	if packed == "" {
		return Weight{}, false
	}
	if s := scale; s != nil && (s.Type == formats.U8 || s.Type == formats.F8_E8M0) {
		packed = "mxfp8"
	}
	return u.weight(t, t.Name, packed, t.Shape, base, scaleEnds...)
}

// bare reads FP8 and FP4 parameters whose name has no ".weight", such as fused
// experts.
func (u *unpacker) bare(t *stored) (Weight, bool) {
	for _, end := range []string{"_scale", "_weight_scale"} {
		s, n := u.get(t.Name+end), len(t.Shape)
		if s == nil || t.Type != formats.U8 || n < 2 {
			continue
		}
		packed := ""
		switch s.Type {
		case formats.F8_E4M3:
			packed = "nvfp4"
		case formats.U8, formats.F8_E8M0:
			packed = "mxfp4"
		}
		if packed != "" {
			return u.weight(t, t.Name, packed, append(slices.Clone(t.Shape[:n-1]), 2*t.dim(-1)), t.Name, end, end+"_2", "_input_scale", "_input_global_scale", "_weight_global_scale")
		}
	}
	if !isQuantized(t.Type) || u.get(t.Name+"_scale_inv") == nil && u.get(t.Name+"_scale") == nil {
		return Weight{}, false
	}
	return u.weight(t, t.Name, strings.ToLower(t.Type.String()), t.Shape, t.Name, "_scale_inv", "_scale", "_input_scale")
}

// isQuantized reports whether a type stands for weights only with a scale.
func isQuantized(t formats.DType) bool {
	return t == formats.I8 || t >= formats.F4
}

// isAuxiliary reports whether a tensor that belongs to no weight is no
// parameter either: a buffer, or a scale of activations or of the cache.
func isAuxiliary(t *stored) bool {
	if isBuffer(t.Name) {
		return true
	}
	for _, end := range []string{".running_mean", ".running_var", ".num_batches_tracked", ".act_scale", ".k_scale", ".v_scale", ".kv_scale", ".q_scale", ".prob_scale", ".input_scale", ".output_scale", ".weight_scale", ".weight_scale_2", ".activation_scale", ".qscale_act", ".input_scale_ub", "scaled_fp8"} {
		if strings.HasSuffix(t.Name, end) {
			return true
		}
	}
	return strings.HasSuffix(t.Name, ".attn.bias") && len(t.Shape) == 4 // GPT-2's mask
}

// integers returns the contents of a small tensor of whole numbers.
func integers(t *stored) []uint64 {
	width := map[formats.DType]int{formats.I32: 4, formats.U32: 4, formats.I64: 8, formats.U64: 8}[t.Type]
	b := t.read(1 << 10)
	if width == 0 || b == nil {
		return nil
	}
	var out []uint64
	for ; len(b) >= width; b = b[width:] {
		v := uint64(binary.LittleEndian.Uint32(b))
		if width == 8 {
			v = binary.LittleEndian.Uint64(b)
		}
		if v > math.MaxInt32 {
			return nil
		}
		out = append(out, v)
	}
	return out
}

// refusal returns why llama.cpp's converter does not read the packing of a
// class's weights, or "".
//
// Source: conversion/base.py@v0.5.0, ModelBase.dequant_model and
// prepare_tensors.
func refusal(class string, q *hfconfig.Quantization, weights []Weight) string {
	packed := map[string]bool{}
	for i := range weights {
		packed[weights[i].Packed] = true
	}
	for _, p := range []string{"awq", "nf4", "fp4", "int8", "exl2", "exl3", "mlx", "torchao", "hqq", "int4", "aqlm", "vptq", "quanto", "marlin"} {
		if packed[p] {
			return "llama.cpp's converter does not read " + p + " weights"
		}
	}
	if q == nil {
		return ""
	}
	switch q.Method {
	case "", "bitnet", "fp8", "modelopt", "mxfp4", "mlx":
	case "gptq":
		if q.Bits == 3 {
			return "llama.cpp's converter does not read GPTQ weights of 3 bits"
		}
	case "compressed-tensors":
		nvfp4 := q.Format == "nvfp4-pack-quantized" || q.Format == "mixed-precision" && packed["nvfp4"] && !packed["pack-quantized"]
		if q.Groups > 1 && !nvfp4 {
			return "llama.cpp's converter reads only one group of compressed-tensors settings, here are " + strconv.Itoa(q.Groups)
		}
		switch q.Format {
		case "float-quantized", "int-quantized", "naive-quantized", "pack-quantized", "nvfp4-pack-quantized", "mixed-precision":
		case "mxfp4-pack-quantized":
			if class != "KimiK3ForConditionalGeneration" {
				return "llama.cpp's converter reads compressed-tensors' mxfp4 for Kimi K3 alone"
			}
		default:
			return fmt.Sprintf("llama.cpp's converter does not read the compressed-tensors format %.40q", q.Format)
		}
	default:
		return fmt.Sprintf("llama.cpp's converter does not read the quantization method %.40q", q.Method)
	}
	return ""
}
