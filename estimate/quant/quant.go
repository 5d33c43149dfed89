// Package quant answers what llama-quantize would make of a model: the type of
// every tensor and the exact size of the file, without reading a weight. It
// follows llama.cpp v0.5.0 and knows nothing of recipes that name their own
// tensor types.
package quant

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"weigh/formats"
	"weigh/inspect/arch"
)

// A Tensor is one tensor of the source.
type Tensor struct {
	Name   string        // as GGUF names it
	Type   formats.DType // element type in the source
	Shape  []uint64      // ne of ggml: fastest dimension first
	File   int           // index of the shard that holds it
	Offset int64         // of the data in that shard; orders the tensors of Options.KeepSplit
}

// A KV is one metadata pair of the source's first file.
type KV struct {
	Key   string
	Bytes uint64 // as encoded: key, type and value
}

// A Model is what of a model decides how it is quantized.
type Model struct {
	Arch        string // general.architecture
	Layers      int    // as llama.cpp counts them (n_layer_all): with those of multi-token prediction, and each loop over them
	HeadCount   int    // attention heads of layer 0
	HeadCountKV int    // key and value heads of layer 0; 0 when it has no attention
	ExpertCount int    // experts per layer; 0 for a dense model
	Metadata    []KV   // nil when the source has no GGUF header: the file size is then unknown
	Tensors     []Tensor
}

// Options are the settings of llama-quantize. The zero value is its default.
type Options struct {
	Imatrix        *Imatrix       // --imatrix; nil for none
	Pure           bool           // --pure: no mixture, one type for all
	LeaveOutput    bool           // --leave-output-tensor
	KeepSplit      bool           // --keep-split: as many files as the source has
	Output         *formats.DType // --output-tensor-type; nil for the type's own rule
	TokenEmbedding *formats.DType // --token-embedding-type; nil for the type's own rule
	TensorTypes    []TensorType   // --tensor-type, in order: the first that matches decides
}

// An Imatrix is an importance matrix. It changes types, and its description is
// written to the file.
type Imatrix struct {
	File    string // path as given to llama-quantize
	Dataset string // name of the calibration text; "" when the matrix does not say
	Chunks  int    // chunks it was computed on; 0 when the matrix does not say
}

// A TensorType overrides the type of the tensors whose names match.
type TensorType struct {
	Pattern *regexp.Regexp
	Type    formats.DType
}

// ParseTensorType reads llama-quantize's NAME=TYPE, where NAME is a regular
// expression, taken in lower case, that may match anywhere in a tensor's name.
func ParseTensorType(s string) (TensorType, error) {
	name, typ, ok := strings.Cut(s, "=")
	if !ok || name == "" || typ == "" {
		return TensorType{}, fmt.Errorf("tensor type %q: want name=type", s)
	}
	t, ok := formats.ParseDType(strings.ToUpper(typ))
	if !ok || !t.GGML() {
		return TensorType{}, fmt.Errorf("tensor type %q: %q is not a type of ggml", s, typ)
	}
	re, err := regexp.Compile(strings.ToLower(name))
	if err != nil {
		return TensorType{}, fmt.Errorf("tensor type %q: %w", s, err)
	}
	return TensorType{re, t}, nil
}

// A Result is a model as llama-quantize would write it.
type Result struct {
	FileType    FileType
	Types       []formats.DType // of Model.Tensors, in the same order
	Elements    uint64          // elements of all tensors
	TensorBytes uint64          // all tensors without padding: the quant size that llama-quantize reports
	DataBytes   uint64          // all tensors, each padded to 32 bytes
	HeaderBytes uint64          // everything before the data, over all files; 0 when unknown
	FileBytes   []uint64        // of each file written; nil when unknown
	NeedImatrix string          // the first tensor that llama-quantize would refuse to convert had it no importance matrix, "" for none
	Requantize  bool            // a quantized tensor changes its type: llama-quantize wants --allow-requantize
	Fallbacks   []Fallback      // the tensors whose rows are no whole number of blocks of the type wanted
}

// A Fallback is a tensor whose rows the type wanted does not divide.
type Fallback struct {
	Tensor       int // index into Model.Tensors
	Wanted, Used formats.DType
}

// BitsPerWeight returns the bits of an average element, without padding.
func (r *Result) BitsPerWeight() float64 {
	if r.Elements == 0 {
		return 0
	}
	return float64(r.TensorBytes) * 8 / float64(r.Elements)
}

// TotalBytes returns the bytes of all files written; ok is false when the
// source had no GGUF header to tell them from.
func (r *Result) TotalBytes() (n uint64, ok bool) {
	for _, f := range r.FileBytes {
		n += f
	}
	return n, r.FileBytes != nil
}

// maxElements bounds the elements of a model, so that no sum of sizes
// overflows: the largest element takes 8 bytes.
const maxElements = 1 << 56

// A Source is a model made ready: what does not depend on the file type.
type Source struct {
	m        Model
	info     []info
	byName   []int // indices of tensors in the order that llama-quantize takes them
	elements uint64
	nValue   int  // tensors that count as attention values
	tied     bool // no output.weight: the token embedding serves as the output
	quirk    arch.QuantQuirk
}

// info is what the rules need of one tensor.
type info struct {
	category category
	layer    int  // of blk.N., -1 for a tensor outside the layers
	allowed  bool // may be quantized
	dims     int
	rows     uint64
	columns  uint64
}

// New makes a model ready to be planned. It refuses tensors of a type that
// GGUF does not have and more elements than any machine can hold.
func New(m Model) (*Source, error) {
	s := &Source{m: m, info: make([]info, len(m.Tensors)), byName: make([]int, len(m.Tensors)), tied: true}
	if row := arch.Lookup(m.Arch); row != nil {
		s.quirk = row.Quant
	}
	for i := range m.Tensors {
		t := &m.Tensors[i]
		if !t.Type.GGML() {
			return nil, fmt.Errorf("tensor %q: GGUF has no type %v", t.Name, t.Type)
		}
		n, ok := formats.Elements(t.Shape)
		if !ok || n > maxElements || s.elements+n > maxElements {
			return nil, fmt.Errorf("tensor %q: shape %v: more than 2^56 elements", t.Name, t.Shape)
		}
		s.elements += n
		s.byName[i] = i
		d := &s.info[i]
		*d = info{category: categorize(t.Name), layer: layerOf(t.Name), dims: dimensions(t.Shape), columns: 1}
		if len(t.Shape) > 0 {
			d.columns = t.Shape[0]
		}
		if d.columns > 0 {
			d.rows = n / d.columns
		}
		d.allowed = d.dims >= 2 && quantizable(t.Name)
		if d.category.value() {
			s.nValue++
		}
		if d.category == output {
			s.tied = false
		}
	}
	slices.SortStableFunc(s.byName, func(a, b int) int {
		return cmp.Or(cmp.Compare(s.info[a].layer, s.info[b].layer), strings.Compare(m.Tensors[a].Name, m.Tensors[b].Name))
	})
	return s, nil
}

// Plan returns the model as llama-quantize would write it at type ft. It fails
// where llama-quantize fails whatever flags it is given.
func (s *Source) Plan(ft FileType, opt Options) (*Result, error) {
	if !ft.Valid() {
		return nil, fmt.Errorf("file type %v is not one that llama-quantize writes", ft)
	}
	r := &Result{FileType: ft, Types: make([]formats.DType, len(s.m.Tensors)), Elements: s.elements}
	c := chooser{Source: s, ft: ft, opt: &opt}
	order := s.byName
	if opt.KeepSplit {
		order = slices.Clone(order)
		slices.SortStableFunc(order, func(a, b int) int {
			x, y := &s.m.Tensors[a], &s.m.Tensors[b]
			return cmp.Or(cmp.Compare(x.File, y.File), cmp.Compare(x.Offset, y.Offset))
		})
	}
	for _, i := range order {
		t, d := &s.m.Tensors[i], &s.info[i]
		used := t.Type
		if d.allowed && !(opt.LeaveOutput && d.category == output) {
			wanted, err := c.choose(i)
			if err != nil {
				return nil, err
			}
			used = wanted.used
			if wanted.used != wanted.wanted {
				r.Fallbacks = append(r.Fallbacks, Fallback{i, wanted.wanted, wanted.used})
			}
			if r.NeedImatrix == "" && needsImatrix(t.Name, used, ft) {
				r.NeedImatrix = t.Name
			}
		}
		if used != t.Type {
			if !convertible(t.Type, used) {
				return nil, fmt.Errorf("tensor %q: llama-quantize cannot convert %v to %v", t.Name, t.Type, used)
			}
			r.Requantize = r.Requantize || t.Type.Quantized()
		}
		r.Types[i] = used
		n := d.rows * used.RowBytes(d.columns)
		r.TensorBytes += n
		r.DataBytes += pad(n)
	}
	if s.m.Metadata != nil {
		s.files(r, &opt)
	}
	return r, nil
}

// convertible reports whether llama-quantize can read elements of type from and
// write them as type to.
//
// Source: ggml/src/ggml.c@v0.5.0, type_traits and ggml_quantize_chunk.
func convertible(from, to formats.DType) bool {
	readable := from == formats.F32 || from == formats.F16 || from == formats.BF16 ||
		from.Quantized() && from != formats.Q8_1 && from != formats.Q8_K
	writable := to == formats.F32 || to == formats.F16 || to == formats.BF16 ||
		to.Quantized() && to != formats.Q8_1 && to != formats.Q8_K
	return readable && writable
}

// dimensions returns the dimensions that count: trailing ones do not, and there
// is at least one.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_n_dims.
func dimensions(shape []uint64) int {
	n := len(shape)
	for n > 1 && shape[n-1] == 1 {
		n--
	}
	return max(n, 1)
}

// layerOf returns N of a name that starts with "blk.N", and -1 for any other.
//
// Source: src/llama-model-loader.h@v0.5.0, weight_name_comparer.
func layerOf(name string) int {
	digits, ok := strings.CutPrefix(name, "blk.")
	if !ok {
		return -1
	}
	if end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		digits = digits[:end]
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil {
		return -1
	}
	return int(n)
}
