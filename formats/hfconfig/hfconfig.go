// Package hfconfig reads the JSON files that stand beside the weights of a
// Hugging Face model: config.json, its quantization_config, adapter_config.json
// and the like. Every value stays as written; the typed views read what several
// producers spell alike.
package hfconfig

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"weigh/formats"
	"weigh/formats/internal/jsonscan"
)

// MaxFile is the largest file that is read.
const MaxFile = 32 << 20

// budget is what the values of one file may take in memory.
const budget = 20 << 20

// An Object is a JSON object. Its values are nil, bool, int64, float64 (for
// every other number), string, []any and Object.
type Object map[string]any

// Read reads the JSON object of size bytes in src, called name in errors. The
// words NaN, Infinity and -Infinity are numbers, as Python's json module writes
// and reads them; of equal keys the last counts, as there.
func Read(src io.ReaderAt, size int64, name string) (Object, error) {
	v, err := read(src, size, name, jsonscan.Object)
	o, _ := v.(Object)
	return o, err
}

// ReadList is Read for a file that holds an array.
func ReadList(src io.ReaderAt, size int64, name string) ([]any, error) {
	v, err := read(src, size, name, jsonscan.Array)
	list, _ := v.([]any)
	return list, err
}

func read(src io.ReaderAt, size int64, name string, kind jsonscan.Kind) (any, error) {
	if size > MaxFile {
		return nil, &formats.Error{Format: name, Field: "file", Err: fmt.Errorf("%d bytes, over the limit of %d", size, MaxFile)}
	}
	if p := formats.ReadLFSPointer(src, size); p != nil {
		return nil, p
	}
	s := jsonscan.New(src, skipMark(src), size, name, "JSON")
	s.Python, s.Budget = true, budget
	if k := s.Kind(); k != kind {
		s.Fail(s.Offset(), "%v, want %v", k, kind)
	}
	v := value(s)
	s.End()
	if err := s.Err(); err != nil {
		return nil, err
	}
	return v, nil
}

// Parse reads an object held in memory.
func Parse(b []byte, name string) (Object, error) {
	return Read(bytes.NewReader(b), int64(len(b)), name)
}

// skipMark returns the length of a byte order mark.
func skipMark(src io.ReaderAt) int64 {
	b := make([]byte, 3)
	if n, _ := src.ReadAt(b, 0); n == 3 && string(b) == "\ufeff" {
		return 3
	}
	return 0
}

// value reads the next value.
func value(s *jsonscan.Scanner) any {
	const perValue, perObject, perMember = 64, 250, 100 // bytes of memory, roughly
	s.Charge(perValue)
	switch s.Kind() {
	case jsonscan.Object:
		s.Charge(perObject)
		o := Object{}
		s.Object(func(key string, _ int64) {
			s.Charge(perMember)
			o[key] = value(s)
		})
		return o
	case jsonscan.Array:
		a := []any{}
		s.Array(func(int) { a = append(a, value(s)) })
		return a
	case jsonscan.String:
		return s.String()
	case jsonscan.Number:
		return number(string(s.Number()))
	case jsonscan.Bool:
		return s.Bool()
	}
	s.Skip() // null, or the fault that there is no value
	return nil
}

func number(text string) any {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	f, _ := strconv.ParseFloat(text, 64) // NaN, Infinity and -Infinity too
	return f
}

// Find returns the value of the first of the keys that is present, as
// llama.cpp's converter picks among spellings; nil when that value is null.
func (o Object) Find(keys ...string) any {
	for _, k := range keys {
		if v, ok := o[k]; ok {
			return v
		}
	}
	return nil
}

// Int returns the first present key's value as a whole number. A fraction is
// cut off.
func (o Object) Int(keys ...string) (int64, bool) { return AsInt(o.Find(keys...)) }

// AsInt returns a number as a whole one; a fraction is cut off.
func AsInt(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case float64:
		if math.Abs(v) < 1<<53 { // not NaN
			return int64(v), true
		}
	}
	return 0, false
}

// Float returns the first present key's value as a number.
func (o Object) Float(keys ...string) (float64, bool) { return AsFloat(o.Find(keys...)) }

// AsFloat returns any number as a float.
func AsFloat(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

// String returns the first present key's value when it is a string, or "".
func (o Object) String(keys ...string) string {
	s, _ := o.Find(keys...).(string)
	return s
}

// Bool returns the first present key's value when it is a boolean, or false.
func (o Object) Bool(keys ...string) bool {
	b, _ := o.Find(keys...).(bool)
	return b
}

// Object returns the first present key's value when it is an object, or nil,
// which reads as an empty one.
func (o Object) Object(keys ...string) Object {
	v, _ := o.Find(keys...).(Object)
	return v
}

// List returns the first present key's value when it is an array, or nil.
func (o Object) List(keys ...string) []any {
	v, _ := o.Find(keys...).([]any)
	return v
}

// Strings returns the strings of an array.
func (o Object) Strings(keys ...string) []string {
	var out []string
	for _, v := range o.List(keys...) {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// Has reports whether the key is present and not null.
func (o Object) Has(key string) bool { return o[key] != nil }

// Merge returns a new object with the keys of o and, over them, those of top.
func (o Object) Merge(top Object) Object {
	m := make(Object, len(o)+len(top))
	for _, src := range []Object{o, top} {
		for k, v := range src {
			m[k] = v
		}
	}
	return m
}

// Text returns the hyper-parameters of the language model in a config.json:
// those at the root and, over them, those of the nested text configuration
// under any of its names.
//
// Source: llama.cpp conversion/base.py@v0.5.0, ModelBase.load_hparams and
// TextModel.__init__.
func (o Object) Text() Object { return o.Merge(o.TextConfig()) }

// TextConfig returns the nested text configuration alone, nil when the
// hyper-parameters stand at the root.
func (o Object) TextConfig() Object {
	_, text := o.text()
	return text
}

// TextField returns where [Object.Text] has a hyper-parameter from, such as
// "text_config.hidden_size".
func (o Object) TextField(name string) string {
	if at, text := o.text(); text != nil {
		first, _, _ := strings.Cut(name, ".")
		if _, nested := text[first]; nested {
			return at + "." + name
		}
	}
	return name
}

// text returns the nested text configuration and its place.
func (o Object) text() (at string, text Object) {
	at, text = "text_config", o.Object("text_config")
	for _, alias := range []string{"llm_config", "lm_config", "thinker_config", "language_config", "lfm"} {
		if v, ok := o[alias].(Object); ok {
			at, text = alias, v
			if alias == "thinker_config" {
				at, text = alias+".text_config", v.Object("text_config")
			}
		}
	}
	return at, text
}

// Architectures returns the model classes a config.json names.
func (o Object) Architectures() []string { return o.Strings("architectures") }

// A Quantization is how a folder says its weights are packed. It is advice: the
// tensors tell what is packed and how.
type Quantization struct {
	Method  string // "gptq", "awq", "bitsandbytes", "compressed-tensors", "modelopt", "fp8", "mxfp4", "exl2", "exl3", "mlx", "torchao", …
	Format  string // of compressed-tensors: "pack-quantized", …; of ModelOpt: the algorithm; of bitsandbytes: "nf4", "fp4", "int8"
	Bits    int    // per packed weight; 0 when not said or not whole
	Group   int    // weights per scale; 0 when not said, -1 for a whole row
	Skipped []string
	Groups  int // configuration groups of compressed-tensors
	Raw     Object
}

// ReadQuantization returns what the configuration and the side files say of
// packing, any of which may be nil: config.json, quantize_config.json (GPTQ's
// and AWQ's own, older place), hf_quant_config.json (ModelOpt). It returns nil
// when none says anything.
func ReadQuantization(config, quantize, modelopt Object) *Quantization {
	// compressed-tensors' first name for it was compression_config.
	raw := config.Object("quantization_config", "compression_config")
	if raw == nil {
		raw = config.Text().Object("quantization_config", "compression_config")
	}
	// MLX writes "quantization" and a copy of it without a method.
	if mlx := config.Object("quantization"); mlx != nil && raw.String("quant_method") == "" {
		if mlx.Has("qformat_weight") {
			return &Quantization{Method: "fp8", Format: mlx.String("qformat_weight"), Bits: 8, Raw: mlx}
		}
		return (&Quantization{Method: "mlx", Format: mlx.String("mode"), Raw: mlx}).fill()
	}
	if inner := modelopt.Object("quantization"); inner != nil && raw == nil {
		q := &Quantization{Method: "modelopt", Format: inner.String("quant_algo"), Raw: inner}
		return q.fill()
	}
	if raw == nil {
		raw = quantize
	}
	if raw == nil {
		return nil
	}
	q := &Quantization{Method: raw.String("quant_method"), Format: raw.String("format", "fmt", "quant_algo", "packing_format"), Raw: raw}
	switch {
	case q.Method == "" && raw.Has("w_bit"):
		q.Method = "awq"
	case q.Method == "" && raw.Has("desc_act"):
		q.Method = "gptq"
	case q.Method == "bitsandbytes" && raw.Bool("load_in_4bit", "_load_in_4bit"):
		q.Format, q.Bits = raw.String("bnb_4bit_quant_type"), 4
	case q.Method == "bitsandbytes":
		q.Format, q.Bits = "int8", 8
	}
	return q.fill()
}

// fill reads the fields that most methods share.
func (q *Quantization) fill() *Quantization {
	raw := q.Raw
	if groups := raw.Object("config_groups"); groups != nil {
		q.Groups = len(groups)
		for _, g := range groups {
			w := g
			if o, ok := g.(Object); ok {
				w = o.Object("weights")
			}
			if w, ok := w.(Object); ok && q.Groups == 1 {
				q.Bits, q.Group = intOf(w, "num_bits"), intOf(w, "group_size")
			}
		}
	}
	if q.Bits == 0 {
		q.Bits = intOf(raw, "bits", "w_bit", "weight_bits")
	}
	if q.Group == 0 {
		q.Group = intOf(raw, "group_size", "q_group_size")
	}
	if q.Bits < 0 || q.Bits > 64 {
		q.Bits = 0 // of a number that cannot be nothing follows
	}
	if q.Group < -1 {
		q.Group = 0
	}
	for _, k := range []string{"ignore", "modules_to_not_convert", "llm_int8_skip_modules", "exclude_modules"} {
		q.Skipped = append(q.Skipped, raw.Strings(k)...)
	}
	return q
}

func intOf(o Object, keys ...string) int {
	f, ok := o.Float(keys...)
	if !ok || f != math.Trunc(f) || math.Abs(f) > 1<<31 {
		return 0
	}
	return int(f)
}

// An Adapter is an adapter_config.json of PEFT.
type Adapter struct {
	Type    string   // peft_type, "LORA"
	Base    string   // base_model_name_or_path
	Rank    int      // r
	Alpha   float64  // lora_alpha
	Modules []string // target_modules; one entry for a pattern such as "all-linear"
	Saved   []string // modules_to_save: trained and stored whole
	DoRA    bool     // use_dora
	RSLoRA  bool     // use_rslora
}

// ReadAdapter returns the typed view of an adapter_config.json.
func ReadAdapter(o Object) *Adapter {
	a := &Adapter{
		Type: o.String("peft_type"), Base: o.String("base_model_name_or_path"), Rank: max(intOf(o, "r"), 0),
		Modules: o.Strings("target_modules"), Saved: o.Strings("modules_to_save"),
		DoRA: o.Bool("use_dora"), RSLoRA: o.Bool("use_rslora"),
	}
	if alpha, ok := o.Float("lora_alpha"); ok && !math.IsNaN(alpha) && !math.IsInf(alpha, 0) {
		a.Alpha = alpha
	}
	if s := o.String("target_modules"); s != "" {
		a.Modules = []string{s}
	}
	return a
}

// The names of Mistral's hyper-parameters, and of those under "moe", in a
// config.json.
var (
	mistralNames = map[string]string{
		"dim": "hidden_size", "norm_eps": "rms_norm_eps", "n_kv_heads": "num_key_value_heads", "n_layers": "num_hidden_layers",
		"n_heads": "num_attention_heads", "hidden_dim": "intermediate_size",
	}
	mistralMoENames = map[string]string{
		"route_every_n": "moe_layer_freq", "first_k_dense_replace": "first_k_dense_replace", "num_experts_per_tok": "num_experts_per_tok",
		"num_experts": "n_routed_experts", "expert_hidden_dim": "moe_intermediate_size", "routed_scale": "routed_scaling_factor",
		"num_shared_experts": "n_shared_experts", "num_expert_groups": "n_group", "num_expert_groups_per_tok": "topk_group",
	}
)

// MistralName returns the name in a params.json of what [FromMistral] returns
// under another one.
func MistralName(name string) string {
	for mistral, as := range mistralNames {
		if as == name {
			return mistral
		}
	}
	for mistral, as := range mistralMoENames {
		if as == name {
			return "moe." + mistral
		}
	}
	return name
}

// FromMistral returns the hyper-parameters of a params.json, Mistral's own
// configuration file, under the names that config.json uses beside its own.
//
// Source: llama.cpp conversion/mistral.py@v0.5.0, MistralModel and
// MistralMoeModel.
func FromMistral(params Object) Object {
	o := params.Merge(nil)
	for key, name := range mistralNames {
		if v, ok := params[key]; ok {
			o[name] = v
		}
	}
	for key, name := range mistralMoENames {
		if v, ok := params.Object("moe")[key]; ok {
			o[name] = v
		}
	}
	if !o.Has("max_position_embeddings") && o.Has("max_seq_len") {
		o["max_position_embeddings"] = o["max_seq_len"]
	}
	return o
}

// maxTokenizer is the largest tokenizer.json that is read, which bounds the
// time; those of the largest vocabularies take 35 MB.
const maxTokenizer = 64 << 20

// CountTokens returns how many tokens the tokenizer.json of size bytes in src
// lists, the added ones included; 0 when it cannot be followed. It keeps
// nothing of the file.
func CountTokens(src io.ReaderAt, size int64) (n int) {
	if size > maxTokenizer {
		return 0
	}
	s := jsonscan.New(src, 0, size, "tokenizer.json", "JSON")
	s.Budget = 1 << 40 // spent on keys that are dropped at once
	count := func() {
		switch s.Kind() {
		case jsonscan.Object:
			s.Object(func(string, int64) { n++; s.Skip() })
		case jsonscan.Array:
			s.Array(func(int) { n++; s.Skip() })
		default:
			s.Skip()
		}
	}
	if s.Kind() != jsonscan.Object {
		return 0
	}
	s.Object(func(key string, _ int64) {
		switch {
		case key == "added_tokens":
			count()
		case key == "model" && s.Kind() == jsonscan.Object:
			s.Object(func(key string, _ int64) {
				if key == "vocab" {
					count()
					return
				}
				s.Skip()
			})
		default:
			s.Skip()
		}
	})
	if s.Err() != nil {
		return 0
	}
	return n
}
