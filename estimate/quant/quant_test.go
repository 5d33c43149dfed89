package quant

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"weigh/formats"
)

const folder = "../../fixtures/quant/"

// lines calls f with the fields of every line that says something.
func lines(t testing.TB, r io.Reader, f func(fields []string)) {
	t.Helper()
	s := bufio.NewScanner(r)
	for s.Scan() {
		if fields := strings.Fields(s.Text()); len(fields) > 0 && fields[0] != "#" {
			f(fields)
		}
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
}

// expand returns the names that a name with {a-b,c} stands for.
func expand(t testing.TB, name string) []string {
	t.Helper()
	head, rest, ok := strings.Cut(name, "{")
	if !ok {
		return []string{name}
	}
	list, tail, _ := strings.Cut(rest, "}")
	var names []string
	for part := range strings.SplitSeq(list, ",") {
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		for i := number(t, first); i <= number(t, last); i++ {
			names = append(names, head+strconv.Itoa(i)+tail)
		}
	}
	return names
}

func number(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func dtype(t testing.TB, s string) formats.DType {
	t.Helper()
	d, ok := formats.ParseDType(s)
	if !ok {
		t.Fatalf("fixture names an unknown type %q", s)
	}
	return d
}

// models reads the models of models.txt.
func models(t testing.TB) map[string]Model {
	t.Helper()
	file, err := os.Open(folder + "models.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	all := map[string]Model{}
	name := ""
	lines(t, file, func(f []string) {
		m := all[name]
		if f[0] == "model" {
			name, m = f[1], Model{}
			for _, kv := range f[2:] {
				switch key, value, _ := strings.Cut(kv, "="); key {
				case "arch":
					m.Arch = value
				case "layers":
					m.Layers = number(t, value)
				case "heads":
					m.HeadCount = number(t, value)
				case "heads_kv":
					m.HeadCountKV = number(t, value)
				case "experts":
					m.ExpertCount = number(t, value)
				default:
					t.Fatalf("models.txt: unknown key %q", key)
				}
			}
			all[name] = m
			return
		}
		var shape []uint64
		for _, d := range f[2:] {
			shape = append(shape, uint64(number(t, d)))
		}
		for _, n := range expand(t, f[1]) {
			m.Tensors = append(m.Tensors, Tensor{Name: n, Type: dtype(t, f[0]), Shape: shape})
		}
		all[name] = m
	})
	return all
}

// A section is what llama.cpp makes of a model at a file type.
type section struct {
	model, fileType string
	def             formats.DType
	differ          map[string]formats.DType
}

func sections(t testing.TB) []section {
	t.Helper()
	file, err := os.Open(folder + "types.txt.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []section
	name := ""
	lines(t, z, func(f []string) {
		switch {
		case f[0] == "model":
			name = f[1]
		case f[0][0] == '[':
			all = append(all, section{name, strings.Trim(f[0], "[]"), dtype(t, f[1]), map[string]formats.DType{}})
		default:
			for _, n := range expand(t, f[1]) {
				all[len(all)-1].differ[n] = dtype(t, f[0])
			}
		}
	})
	return all
}

func source(t testing.TB, m Model) *Source {
	t.Helper()
	s, err := New(m)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func plan(t testing.TB, s *Source, ft FileType, opt Options) *Result {
	t.Helper()
	r, err := s.Plan(ft, opt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEveryTensorGetsTheTypeThatLlamaQuantizeGivesIt(t *testing.T) {
	all := models(t)
	sources := map[string]*Source{}
	seen := map[string]int{}
	for _, sec := range sections(t) {
		seen[sec.model]++
		t.Run(sec.model+"/"+sec.fileType, func(t *testing.T) {
			if sources[sec.model] == nil {
				sources[sec.model] = source(t, all[sec.model])
			}
			s := sources[sec.model]
			ft, err := ParseFileType(sec.fileType)
			if err != nil {
				t.Fatal(err)
			}
			if got := rows[ft].def; got != sec.def {
				t.Errorf("default type %v, want %v", got, sec.def)
			}
			r := plan(t, s, ft, Options{})
			named := 0
			for i, tensor := range s.m.Tensors {
				want, differs := sec.differ[tensor.Name]
				if differs {
					named++
				}
				switch {
				case !s.info[i].allowed:
					want = tensor.Type
				case !differs:
					want = sec.def
				}
				if r.Types[i] != want {
					t.Errorf("%s: %v, want %v", tensor.Name, r.Types[i], want)
				}
			}
			if named != len(sec.differ) {
				t.Errorf("%d of the %d tensors expected are in the model", named, len(sec.differ))
			}
		})
	}
	if len(seen) != 12 {
		t.Errorf("%d models, want 12", len(seen))
	}
	for name, n := range seen {
		if n != 33 {
			t.Errorf("%s: %d file types, want 33", name, n)
		}
	}
}

// The data sections of files that llama-quantize wrote, or would write, from
// F16 sources.
func TestDataSections(t *testing.T) {
	columns := []string{"F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S", "Q4_0", "IQ4_XS", "Q3_K_M", "Q2_K"}
	vectors := map[string][]uint64{
		"llama-3.1-8b":                {16061055232, 8532934912, 6588170496, 5725151488, 4912898304, 4684833024, 4653375744, 4476526848, 4011081984, 3171295488},
		"meta-llama-3.1-70b-instruct": {141110051072, 74967187712, 57880281344, 49941954816, 42512531712, 40339357952, 39961870592, 38261801216, 34259632384, 26367246592},
		"qwen3-14b":                   {29537464320, 15692574720, 12115978240, 10508610560, 8995793920, 8567516160, 8509189120, 8174402560, 7315353600, 5748024320},
	}
	all := models(t)
	for name, want := range vectors {
		s := source(t, all[name])
		for i, column := range columns {
			ft, _ := ParseFileType(column)
			if got := plan(t, s, ft, Options{}).DataBytes; got != want[i] {
				t.Errorf("%s at %s: %d bytes, want %d", name, column, got, want[i])
			}
		}
	}
	imatrix := Options{Imatrix: &Imatrix{File: "imatrix.gguf"}}
	s := source(t, all["llama-3.1-8b"])
	for ft, want := range map[FileType]uint64{IQ4_XS: 4439826688, Q4_0: 4668055808} {
		if got := plan(t, s, ft, imatrix).DataBytes; got != want {
			t.Errorf("llama-3.1-8b at %v with an importance matrix: %d bytes, want %d", ft, got, want)
		}
	}
	small := all["qwen3-0.6b"]
	tied := small
	tied.Tensors = slices.DeleteFunc(slices.Clone(small.Tensors), func(t Tensor) bool { return t.Name == "output.weight" })
	for want, m := range map[uint64]Model{478268416: small, 390753280: tied} {
		if got := plan(t, source(t, m), Q4_K_M, Options{}).DataBytes; got != want {
			t.Errorf("qwen3-0.6b at Q4_K_M with %d tensors: %d bytes, want %d", len(m.Tensors), got, want)
		}
	}
}

// tiny is a model small enough to count by hand.
func tiny(arch string, layers, heads, kv, experts int, tensors ...Tensor) Model {
	return Model{Arch: arch, Layers: layers, HeadCount: heads, HeadCountKV: kv, ExpertCount: experts, Tensors: tensors}
}

func matrix(name string, shape ...uint64) Tensor {
	return Tensor{Name: name, Type: formats.F16, Shape: shape}
}

func TestOptions(t *testing.T) {
	q8, f32, q6 := formats.Q8_0, formats.F32, formats.Q6_K
	override := func(s ...string) (o []TensorType) {
		for _, s := range s {
			tt, err := ParseTensorType(s)
			if err != nil {
				t.Fatal(err)
			}
			o = append(o, tt)
		}
		return o
	}
	m := tiny("llama", 8, 8, 8, 0,
		matrix("token_embd.weight", 256, 512), matrix("output.weight", 256, 512),
		matrix("per_layer_token_embd.weight", 256, 512),
		matrix("blk.0.attn_v.weight", 256, 256), matrix("blk.0.ffn_down.weight", 256, 256))
	tests := map[string]struct {
		ft   FileType
		opt  Options
		want string // types in the order of m
	}{
		"the mixture":          {Q4_K_M, Options{}, "Q4_K Q6_K Q4_K Q6_K Q6_K"},
		"pure":                 {Q4_K_M, Options{Pure: true}, "Q4_K Q4_K Q4_K Q4_K Q4_K"},
		"output left as it is": {Q4_K_M, Options{LeaveOutput: true}, "Q4_K F16 Q4_K Q6_K Q6_K"},
		"output type":          {Q4_K_M, Options{Output: &q8}, "Q4_K Q8_0 Q4_K Q6_K Q6_K"},
		"output type F32":      {Q4_K_M, Options{Output: &f32}, "Q4_K F32 Q4_K Q6_K Q6_K"},
		"embedding type":       {Q4_K_M, Options{TokenEmbedding: &q6}, "Q6_K Q6_K Q6_K Q6_K Q6_K"},
		"embedding type, the per-layer table named":  {Q4_K_M, Options{TokenEmbedding: &q6, TensorTypes: override("per_layer=q5_0")}, "Q6_K Q6_K Q5_0 Q6_K Q6_K"},
		"override by name":                           {Q4_K_M, Options{TensorTypes: override("attn_v=q8_0", "blk=q2_k")}, "Q4_K Q6_K Q4_K Q8_0 Q2_K"},
		"override beside pure":                       {Q4_K_M, Options{Pure: true, TensorTypes: override("ATTN_V=q8_0")}, "Q4_K Q4_K Q4_K Q8_0 Q4_K"},
		"no override without quantization":           {BF16, Options{TensorTypes: override("attn_v=q8_0")}, "BF16 BF16 BF16 BF16 BF16"},
		"an importance matrix helps early down rows": {Q5_0, Options{Imatrix: &Imatrix{}}, "Q5_0 Q6_K Q5_0 Q5_0 Q5_1"},
	}
	s := source(t, m)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := strings.Trim(fmt.Sprint(plan(t, s, tt.ft, tt.opt).Types), "[]"); got != tt.want {
				t.Errorf("types %s, want %s", got, tt.want)
			}
		})
	}
}

func TestRulesThatNoSnapshotShows(t *testing.T) {
	layers := func(part string, n int) (all []Tensor) {
		for i := range n {
			all = append(all, matrix(fmt.Sprintf("blk.%d.%s.weight", i, part), 256, 256))
		}
		return append(all, matrix("output.weight", 256, 256))
	}
	tests := map[string]struct {
		m    Model
		ft   FileType
		opt  Options
		want string
	}{
		"eight experts: value":                      {tiny("llama", 1, 4, 4, 8, layers("attn_v", 1)...), Q4_K_S, Options{}, "Q8_0 Q6_K"},
		"eight experts: key":                        {tiny("llama", 1, 4, 4, 8, layers("attn_k", 1)...), Q4_K_S, Options{}, "Q8_0 Q6_K"},
		"eight experts: key in two bits":            {tiny("llama", 1, 4, 4, 8, layers("attn_k", 1)...), IQ2_XS, Options{}, "Q4_K Q5_K"},
		"eight experts: attention output":           {tiny("llama", 1, 4, 4, 8, layers("attn_output", 1)...), Q4_K_S, Options{}, "Q5_K Q6_K"},
		"eight experts: attention output, IQ1_S":    {tiny("llama", 1, 4, 4, 8, layers("attn_output", 1)...), IQ1_S, Options{}, "Q5_K Q5_K"},
		"eight experts: down, IQ3_M":                {tiny("llama", 8, 4, 4, 8, layers("ffn_down_exps", 4)...), IQ3_M, Options{}, "Q4_K IQ3_S IQ3_S Q4_K Q6_K"},
		"falcon: down":                              {tiny("falcon", 16, 4, 4, 0, layers("ffn_down", 3)...), Q4_K_M, Options{}, "Q6_K Q5_K Q4_K Q8_0"},
		"falcon: down, Q3_K_M":                      {tiny("falcon", 16, 4, 4, 0, layers("ffn_down", 3)...), Q3_K_M, Options{}, "Q5_K Q4_K Q3_K Q8_0"},
		"falcon: attention output":                  {tiny("falcon", 1, 4, 4, 0, layers("attn_output", 1)...), Q3_K_L, Options{}, "Q4_K Q8_0"},
		"falcon: attention output, Q2_K":            {tiny("falcon", 1, 4, 4, 0, layers("attn_output", 1)...), Q2_K, Options{}, "Q2_K Q8_0"},
		"70B of qwen2":                              {tiny("qwen2", 80, 64, 8, 0, layers("attn_v", 1)...), Q3_K_S, Options{}, "Q5_K Q6_K"},
		"65B of llama is not 70B":                   {tiny("llama", 80, 64, 64, 0, layers("attn_v", 1)...), Q3_K_S, Options{}, "Q3_K Q6_K"},
		"few bits: value with an importance matrix": {tiny("llama", 1, 4, 4, 0, layers("attn_v", 1)...), IQ3_XXS, Options{Imatrix: &Imatrix{}}, "IQ3_XXS Q5_K"},
		"few bits: value without":                   {tiny("llama", 1, 4, 4, 0, layers("attn_v", 1)...), IQ3_XXS, Options{}, "IQ3_S Q5_K"},
		"few bits: down with an importance matrix":  {tiny("llama", 1, 4, 4, 0, layers("ffn_down", 1)...), IQ3_XXS, Options{Imatrix: &Imatrix{}}, "IQ3_XXS Q5_K"},
		"few bits: down without":                    {tiny("llama", 1, 4, 4, 0, layers("ffn_down", 1)...), IQ3_XXS, Options{}, "Q3_K Q5_K"},
		"bailingmoe3: latent attention in 3-D":      {tiny("bailingmoe3", 1, 4, 4, 4, matrix("blk.0.attn_k_b.weight", 256, 2, 2), matrix("blk.0.ffn_up_exps.weight", 256, 2, 2)), MXFP4MoE, Options{}, "Q8_0 MXFP4"},
		"deepseek2: latent attention in 3-D":        {tiny("deepseek2", 1, 4, 4, 4, matrix("blk.0.attn_k_b.weight", 256, 2, 2)), MXFP4MoE, Options{}, "MXFP4"},
		"rows of 32":                                {tiny("llama", 1, 4, 4, 0, matrix("blk.0.x.weight", 96, 2), matrix("blk.0.y.weight", 40, 2)), Q2_0, Options{}, "Q4_0 F16"},
		"rows of 40 at Q4_0":                        {tiny("llama", 1, 4, 4, 0, matrix("blk.0.y.weight", 40, 2)), Q4_0, Options{}, "F16"},
		"one row counts as a vector":                {tiny("llama", 1, 4, 4, 0, matrix("blk.0.y.weight", 256, 1)), Q4_0, Options{}, "F16"},
		"layers in order of number, not of name":    {tiny("llama", 16, 4, 4, 0, matrix("blk.10.attn_v.weight", 256, 2), matrix("blk.2.attn_v.weight", 256, 2), matrix("blk.9.attn_v.weight", 256, 2)), Q3_K_M, Options{}, "Q4_K Q5_K Q5_K"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := strings.Trim(fmt.Sprint(plan(t, source(t, tt.m), tt.ft, tt.opt).Types), "[]"); got != tt.want {
				t.Errorf("types %s, want %s", got, tt.want)
			}
		})
	}
}

func TestFileSize(t *testing.T) {
	m := tiny("llama", 1, 4, 4, 0, matrix("token_embd.weight", 256, 4), matrix("blk.0.attn_norm.weight", 256))
	m.Tensors[1].Type = formats.F32
	m.Metadata = []KV{
		{"general.architecture", 8 + 20 + 4 + 8 + 5},
		{"general.file_type", 8 + 17 + 4 + 4},
		{"split.count", 8 + 11 + 4 + 2},
	}
	// Two pairs are copied or replaced, general.quantization_version is new.
	header := uint64(24) + (8 + 20 + 4 + 8 + 5) + (8 + 17 + 8) + (8 + 28 + 8) + (8 + 17 + 4 + 16 + 12) + (8 + 22 + 4 + 8 + 12)
	s := source(t, m)
	r := plan(t, s, Q6_K, Options{})
	if want := (header + 31) / 32 * 32; r.HeaderBytes != want {
		t.Errorf("header of %d bytes, want %d", r.HeaderBytes, want)
	}
	// Four rows of 210 bytes, padded, and 256 floats.
	if want := uint64(864 + 1024); r.DataBytes != want || r.TensorBytes != 840+1024 {
		t.Errorf("data of %d bytes, %d without padding, want %d and %d", r.DataBytes, r.TensorBytes, want, 840+1024)
	}
	if n, ok := r.TotalBytes(); !ok || n != r.HeaderBytes+r.DataBytes {
		t.Errorf("file of %d bytes (%v), want %d", n, ok, r.HeaderBytes+r.DataBytes)
	}
	if got, want := r.BitsPerWeight(), float64(840+1024)*8/(1024+256); got != want {
		t.Errorf("%v bits per weight, want %v", got, want)
	}

	matrixPairs := uint64(8+21+12+127) + (8 + 24 + 12 + 4) + (8 + 30 + 8) + (8 + 29 + 8)
	r = plan(t, s, Q6_K, Options{Imatrix: &Imatrix{File: strings.Repeat("p", 300), Dataset: "wiki", Chunks: 9}})
	if want := (header + matrixPairs + 31) / 32 * 32; r.HeaderBytes != want {
		t.Errorf("header of %d bytes with an importance matrix, want %d", r.HeaderBytes, want)
	}

	m.Tensors[1].File = 1
	split := uint64(8+8+6) + (8 + 11 + 6) + (8 + 19 + 8)
	r = plan(t, source(t, m), Q6_K, Options{KeepSplit: true})
	first := (header - (8 + 22 + 4 + 8 + 12) + split + 31) / 32 * 32
	second := (24 + (8 + 22 + 4 + 8 + 12) + split + 31) / 32 * 32
	if want := []uint64{first + 864, second + 1024}; !slices.Equal(r.FileBytes, want) {
		t.Errorf("files of %v bytes, want %v", r.FileBytes, want)
	}

	m.Metadata = nil
	if _, ok := plan(t, source(t, m), Q6_K, Options{}).TotalBytes(); ok {
		t.Error("the size of a file is known without its metadata")
	}
}

func TestWarnings(t *testing.T) {
	m := tiny("llama", 8, 4, 4, 0, matrix("output.weight", 256, 2), matrix("token_embd.weight", 256, 2),
		matrix("blk.0.attn_q.weight", 256, 2), matrix("blk.0.ffn_down.weight", 192, 2))
	tests := map[string]struct {
		ft        FileType
		opt       Options
		imatrix   string
		fallbacks string
	}{
		"Q4_K_M needs nothing":              {Q4_K_M, Options{}, "", "[{3 Q6_K Q8_0}]"},
		"IQ2_XS needs a matrix":             {IQ2_XS, Options{}, "blk.0.attn_q.weight", "[{3 Q2_K Q4_0}]"},
		"IQ2_XS has one and needs it":       {IQ2_XS, Options{Imatrix: &Imatrix{}}, "blk.0.attn_q.weight", "[{3 Q2_K Q4_0}]"},
		"Q2_K_S needs a matrix for Q2_K":    {Q2_K_S, Options{}, "blk.0.attn_q.weight", "[{3 Q4_K Q5_0}]"},
		"Q2_K does not":                     {Q2_K, Options{}, "", "[{3 Q3_K Q4_0}]"},
		"a named type is not excused":       {Q8_0, Options{TensorTypes: []TensorType{must(ParseTensorType("attn_q=iq1_s"))}}, "blk.0.attn_q.weight", "[]"},
		"F16 needs nothing and never falls": {F16, Options{}, "", "[]"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := plan(t, source(t, m), tt.ft, tt.opt)
			if r.NeedImatrix != tt.imatrix {
				t.Errorf("needs an importance matrix for %q, want %q", r.NeedImatrix, tt.imatrix)
			}
			if got := fmt.Sprint(r.Fallbacks); got != tt.fallbacks {
				t.Errorf("fallbacks %s, want %s", got, tt.fallbacks)
			}
		})
	}
	m.Tensors[2].Type = formats.Q8_0
	if r := plan(t, source(t, m), Q4_K_M, Options{}); !r.Requantize {
		t.Error("a Q8_0 tensor becomes Q4_K without --allow-requantize")
	}
	m.Tensors[2].Type = formats.Q4_K
	if r := plan(t, source(t, m), Q4_K_M, Options{}); r.Requantize {
		t.Error("a tensor that keeps its type wants --allow-requantize")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestRefusals(t *testing.T) {
	integers := tiny("llama", 1, 4, 4, 0, Tensor{Name: "blk.0.x.weight", Type: formats.I32, Shape: []uint64{256, 2}})
	tests := map[string]struct {
		m    Model
		ft   FileType
		want string
	}{
		"a type that GGUF does not have": {tiny("llama", 1, 4, 4, 0, Tensor{Name: "x", Type: formats.F8_E4M3, Shape: []uint64{4}}), Q4_0, `tensor "x": GGUF has no type F8_E4M3`},
		"an unknown type":                {tiny("llama", 1, 4, 4, 0, Tensor{Name: "x", Type: 38, Shape: []uint64{4}}), Q4_0, `tensor "x": GGUF has no type unknown(38)`},
		"more elements than fit":         {tiny("llama", 1, 4, 4, 0, matrix("x", 1<<40, 1<<40)), Q4_0, `tensor "x": shape [1099511627776 1099511627776]: more than 2^56 elements`},
		"too many elements together":     {tiny("llama", 1, 4, 4, 0, matrix("x", 1<<55), matrix("y", 1<<55, 2)), Q4_0, `tensor "y": shape [36028797018963968 2]: more than 2^56 elements`},
		"a file type of the past":        {integers, 4, "file type unknown(4) is not one that llama-quantize writes"},
		"integers":                       {integers, Q4_0, `tensor "blk.0.x.weight": llama-quantize cannot convert I32 to Q4_0`},
		"rows too short for Q1_0":        {tiny("llama", 1, 4, 4, 0, matrix("blk.0.x.weight", 192, 2), matrix("output.weight", 256, 2)), Q1_0, `tensor "blk.0.x.weight": llama-quantize has no type for rows of 192 beside Q1_0, whose blocks are of 128`},
		"an expert outside the layers":   {tiny("llama", 1, 4, 4, 4, matrix("ffn_down_exps.weight", 256, 2, 4), matrix("output.weight", 256, 2)), Q4_K_M, `tensor "ffn_down_exps.weight": layer -1 is not one of the model's 1`},
		"an expert in a layer too many":  {tiny("llama", 1, 4, 4, 4, matrix("blk.1.ffn_up_exps.weight", 256, 2, 4), matrix("output.weight", 256, 2)), Q4_K_M, `tensor "blk.1.ffn_up_exps.weight": layer 1 is not one of the model's 1`},
	}
	q6 := formats.Q6_K
	short := source(t, tiny("llama", 1, 4, 4, 0, matrix("token_embd.weight", 64, 2), matrix("output.weight", 64, 2)))
	for name, opt := range map[string]Options{"token_embd.weight": {TokenEmbedding: &q6}, "output.weight": {Output: &q6}} {
		want := fmt.Sprintf("tensor %q: rows of 64 do not divide into blocks of 256 for the Q6_K asked for", name)
		if _, err := short.Plan(Q8_0, opt); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, err := New(tt.m)
			if err == nil {
				_, err = s.Plan(tt.ft, Options{})
			}
			if err == nil || err.Error() != tt.want {
				t.Errorf("error %v, want %s", err, tt.want)
			}
		})
	}
}

func TestParse(t *testing.T) {
	for s, want := range map[string]FileType{"q4_k": Q4_K_M, "Q3_K": Q3_K_M, "Q5_K": Q5_K_M, "mxfp4_moe": MXFP4MoE, "15": Q4_K_M, "Q1_0": Q1_0, "f32": F32} {
		if got, err := ParseFileType(s); err != nil || got != want {
			t.Errorf("ParseFileType(%q) = %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "Q4", "COPY", "4", "33", "39", "-1", "99999999999"} {
		if got, err := ParseFileType(s); err == nil {
			t.Errorf("ParseFileType(%q) = %v, want an error", s, got)
		}
	}
	if got := len(FileTypes()); got != 35 {
		t.Errorf("%d file types, want 35", got)
	}
	for _, s := range []string{"", "attn_v", "=q8_0", "attn_v=", "attn_v=q9", "attn_v=F8_E4M3", "(=q8_0"} {
		if got, err := ParseTensorType(s); err == nil {
			t.Errorf("ParseTensorType(%q) = %v, want an error", s, got)
		}
	}
}

// No file can make New or Plan panic, nor a plan larger than F32 would be.
func FuzzPlan(f *testing.F) {
	f.Add("blk.1.ffn_down_exps.weight", uint64(96), uint64(4), uint64(2), uint32(1), 15, 2, 8, 1, 8)
	f.Add("output.weight", uint64(0), uint64(1<<40), uint64(1<<40), uint32(12), 38, 0, 0, 0, 0)
	f.Add("weight", uint64(1), uint64(1), uint64(1), uint32(26), 1, -1, -1, -1, -1)
	f.Fuzz(func(t *testing.T, name string, x, y, z uint64, typ uint32, ft, layers, heads, kv, experts int) {
		s, err := New(tiny("llama", layers, heads, kv, experts, Tensor{Name: name, Type: formats.DType(typ), Shape: []uint64{x, y, z}}))
		if err != nil {
			return
		}
		r, err := s.Plan(FileType(ft), Options{})
		if err != nil {
			return
		}
		if elems, bytes := r.Types[0].Block(); r.Types[0].Quantized() && x%elems != 0 && r.Types[0] != s.m.Tensors[0].Type {
			t.Errorf("rows of %d in blocks of %d elements, %d bytes", x, elems, bytes)
		}
		if r.Types[0] != s.m.Tensors[0].Type && r.TensorBytes > 4*r.Elements {
			t.Errorf("%d bytes for %d elements", r.TensorBytes, r.Elements)
		}
		if r.DataBytes < r.TensorBytes || r.DataBytes-r.TensorBytes >= alignment {
			t.Errorf("%d bytes are padded to %d", r.TensorBytes, r.DataBytes)
		}
	})
}

func BenchmarkEveryFileTypeOf70B(b *testing.B) {
	m := models(b)["meta-llama-3.1-70b-instruct"]
	for b.Loop() {
		s, err := New(m)
		if err != nil {
			b.Fatal(err)
		}
		for _, ft := range FileTypes() {
			if _, err := s.Plan(ft, Options{}); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func TestFixturesAgree(t *testing.T) {
	all := models(t)
	for _, sec := range sections(t) {
		if _, ok := all[sec.model]; !ok {
			t.Errorf("no tensors of %s among %v", sec.model, slices.Sorted(maps.Keys(all)))
		}
	}
}
