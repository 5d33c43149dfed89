package hfconfig

import (
	"errors"
	"io/fs"
	"math"
	"math/rand/v2"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"

	"weigh/fixtures"
	"weigh/formats"
)

func parse(t *testing.T, s string) Object {
	t.Helper()
	o, err := Parse([]byte(s), "config.json")
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestParseKeepsValuesAsWritten(t *testing.T) {
	o := parse(t, `{"i": 7, "f": 1e6, "big": 18446744073709551615, "inf": [0.0, Infinity], "min": -Infinity, "n": null, "s": "x", "o": {"b": true}, "i": 8}`)
	want := Object{
		"i": int64(8), "f": 1e6, "big": 18446744073709551615.0, "inf": []any{0.0, math.Inf(1)}, "min": math.Inf(-1),
		"n": nil, "s": "x", "o": Object{"b": true},
	}
	if !reflect.DeepEqual(o, want) {
		t.Errorf("Parse() = %v, want %v", o, want)
	}
	if o := parse(t, "\ufeff{\"nan\": NaN}"); !math.IsNaN(o["nan"].(float64)) {
		t.Errorf("NaN behind a byte order mark reads as %v", o)
	}
}

func TestParseRejects(t *testing.T) {
	tests := map[string]struct {
		in, text string
		offset   int64
	}{
		"an array":          {"[1]", "want an object", 0},
		"nothing":           {"", "no value", 0},
		"a cut file":        {`{"a": [1, 2`, "want ','", 11},
		"a word":            {`{"a": yes}`, "want a value", 6},
		"a comment":         {"{// x\n}", "want '\"'", 1},
		"a comma too many":  {`{"a": 1,}`, "comma before", 8},
		"200 nested arrays": {`{"a":` + strings.Repeat("[", 200), "nested more than 127", 131},
		"text at the end":   {`{} x`, "after the end", 3},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(tt.in), "config.json")
			var ferr *formats.Error
			if !errors.As(err, &ferr) || !strings.Contains(err.Error(), tt.text) || ferr.Offset != tt.offset {
				t.Errorf("Parse() error = %v, want …%s… at byte %d", err, tt.text, tt.offset)
			}
		})
	}
}

func TestFindTakesTheFirstPresentKeyEvenIfNull(t *testing.T) {
	o := parse(t, `{"n_inner": null, "hidden_dim": 4, "x": 2.9}`)
	if v := o.Find("intermediate_size", "n_inner", "hidden_dim"); v != nil {
		t.Errorf("Find() = %v, want the null of n_inner", v)
	}
	if n, ok := o.Int("x"); n != 2 || !ok {
		t.Errorf("Int(x) = %d, %v, want 2", n, ok)
	}
}

func TestTextConfigUnderItsNames(t *testing.T) {
	for _, in := range []string{
		`{"a": 1, "text_config": {"a": 2}}`,
		`{"a": 1, "llm_config": {"a": 2}}`,
		`{"a": 1, "language_config": {"a": 2}}`,
		`{"a": 1, "thinker_config": {"text_config": {"a": 2}}}`,
		`{"a": 2, "text_config": null}`,
	} {
		if n, _ := parse(t, in).Text().Int("a"); n != 2 {
			t.Errorf("%s: a = %d, want 2", in, n)
		}
	}
}

func TestReadQuantization(t *testing.T) {
	tests := map[string]struct {
		config, quantize, modelopt string
		want                       Quantization
	}{
		"GPTQ":                          {`{"quantization_config":{"quant_method":"gptq","bits":4,"group_size":128}}`, "", "", Quantization{Method: "gptq", Bits: 4, Group: 128}},
		"GPTQ's own file":               {`{}`, `{"bits":4,"group_size":-1,"desc_act":true}`, "", Quantization{Method: "gptq", Bits: 4, Group: -1}},
		"AWQ's own file":                {`{}`, `{"w_bit":4,"q_group_size":128,"zero_point":true}`, "", Quantization{Method: "awq", Bits: 4, Group: 128}},
		"bitsandbytes in 4 bits":        {`{"quantization_config":{"quant_method":"bitsandbytes","load_in_4bit":true,"bnb_4bit_quant_type":"nf4","llm_int8_skip_modules":["lm_head"]}}`, "", "", Quantization{Method: "bitsandbytes", Format: "nf4", Bits: 4, Skipped: []string{"lm_head"}}},
		"MLX with a copy":               {`{"quantization":{"group_size":64,"bits":4},"quantization_config":{"group_size":64,"bits":4}}`, "", "", Quantization{Method: "mlx", Bits: 4, Group: 64}},
		"compressed-tensors":            {`{"text_config":{"quantization_config":{"quant_method":"compressed-tensors","format":"pack-quantized","ignore":["a"],"config_groups":{"group_0":{"weights":{"num_bits":4,"group_size":32}}}}}}`, "", "", Quantization{Method: "compressed-tensors", Format: "pack-quantized", Bits: 4, Group: 32, Groups: 1, Skipped: []string{"a"}}},
		"compressed-tensors' older key": {`{"compression_config":{"quant_method":"compressed-tensors","format":"float-quantized","config_groups":{"group_0":{"weights":{"num_bits":8}}}}}`, "", "", Quantization{Method: "compressed-tensors", Format: "float-quantized", Bits: 8, Groups: 1}},
		"ModelOpt in its own file":      {`{}`, "", `{"quantization":{"quant_algo":"NVFP4","group_size":16,"exclude_modules":["lm_head"]}}`, Quantization{Method: "modelopt", Format: "NVFP4", Group: 16, Skipped: []string{"lm_head"}}},
		"EXL2 with a fraction of bits":  {`{"quantization_config":{"quant_method":"exl2","bits":4.65}}`, "", "", Quantization{Method: "exl2"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			opt := func(s string) Object {
				if s == "" {
					return nil
				}
				return parse(t, s)
			}
			got := ReadQuantization(opt(tt.config), opt(tt.quantize), opt(tt.modelopt))
			if got == nil {
				t.Fatal("nothing found")
			}
			got.Raw = nil
			if !reflect.DeepEqual(*got, tt.want) {
				t.Errorf("got %+v, want %+v", *got, tt.want)
			}
		})
	}
	if q := ReadQuantization(parse(t, `{"quantization_config":null}`), nil, nil); q != nil {
		t.Errorf("an unquantized model reads as %+v", q)
	}
}

func TestReadAdapter(t *testing.T) {
	a := ReadAdapter(parse(t, `{"peft_type":"LORA","r":16,"lora_alpha":32,"target_modules":["q_proj","v_proj"],"base_model_name_or_path":"b"}`))
	if a.Rank != 16 || a.Alpha != 32 || a.Base != "b" || !slices.Equal(a.Modules, []string{"q_proj", "v_proj"}) {
		t.Errorf("got %+v", a)
	}
	if a := ReadAdapter(parse(t, `{"target_modules":"all-linear"}`)); !slices.Equal(a.Modules, []string{"all-linear"}) {
		t.Errorf("got %+v", a)
	}
}

func TestEveryFixtureParses(t *testing.T) {
	n := 0
	err := fs.WalkDir(fixtures.HF, "hf", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(p, ".json") {
			return err
		}
		n++
		b, err := fs.ReadFile(fixtures.HF, p)
		if err == nil {
			_, err = Parse(b, p)
		}
		if err != nil {
			t.Errorf("%v", err)
		}
		return nil
	})
	if err != nil || n < 40 {
		t.Errorf("%d files, %v", n, err)
	}
}

// configs returns the fixtures' configurations.
func configs(t testing.TB) (texts [][]byte) {
	for _, name := range fixtures.HFNames() {
		b, err := fs.ReadFile(fixtures.HF, path.Join("hf", name, "config.json"))
		if err == nil {
			texts = append(texts, b)
		}
	}
	if len(texts) == 0 {
		t.Fatal("no configurations")
	}
	return append(texts, []byte(`{"a": [1, 2.5, null, true, "x\u00e9", {"b": NaN}]}`))
}

func FuzzParse(f *testing.F) {
	for _, b := range configs(f) {
		f.Add(b)
	}
	f.Fuzz(parses)
}

// TestMutations changes configurations at random, the same way each time.
func TestMutations(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	texts := configs(t)
	for range fixtures.Mutations(5000) {
		parses(t, fixtures.MutateJSON(rnd, texts[rnd.IntN(len(texts))]))
	}
}

// parses reads a configuration: it is an object or an error, and whatever the
// types of its values, they are read.
func parses(t *testing.T, in []byte) {
	o, err := Parse(in, "config.json")
	if (o == nil) == (err == nil) {
		t.Fatalf("Parse() = %v, %v, want one of them", o, err)
	}
	var ferr *formats.Error
	if err != nil && (!errors.As(err, &ferr) || ferr.Offset > int64(len(in))) {
		t.Fatalf("Parse() error = %v, want a *formats.Error within %d bytes", err, len(in))
	}
	ReadQuantization(o, o, o)
	ReadAdapter(o)
	FromMistral(o)
}
