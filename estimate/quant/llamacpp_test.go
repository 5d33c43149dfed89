//go:build llamacpp

package quant

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"weigh/fixtures"
	"weigh/fixtures/llamacpp"
	"weigh/formats"
	"weigh/formats/gguf"
)

// A job is a question to llama.cpp, as fixtures/llamacpp/native/quantize.cpp
// reads it.
type job struct {
	In             string   `json:"in"`
	Out            string   `json:"out,omitempty"`
	FileType       FileType `json:"ftype"`
	Imatrix        *string  `json:"imatrix,omitempty"`
	Dataset        *string  `json:"dataset,omitempty"`
	Chunks         int      `json:"chunks,omitempty"`
	Pure           bool     `json:"pure"`
	LeaveOutput    bool     `json:"leave_output"`
	KeepSplit      bool     `json:"keep_split"`
	Output         *uint32  `json:"output,omitempty"`
	TokenEmbedding *uint32  `json:"token_embedding,omitempty"`
	TensorTypes    [][2]any `json:"tensor_types,omitempty"`
}

// newJob asks about the model in path with our options.
func newJob(path string, ft FileType, opt Options) job {
	j := job{
		In: path, FileType: ft, Pure: opt.Pure, LeaveOutput: opt.LeaveOutput, KeepSplit: opt.KeepSplit,
		Output: (*uint32)(opt.Output), TokenEmbedding: (*uint32)(opt.TokenEmbedding),
	}
	if m := opt.Imatrix; m != nil {
		j.Imatrix, j.Chunks = &m.File, m.Chunks
		if m.Dataset != "" {
			j.Dataset = &m.Dataset
		}
	}
	for _, t := range opt.TensorTypes {
		j.TensorTypes = append(j.TensorTypes, [2]any{t.Pattern.String(), t.Type})
	}
	return j
}

type answer struct {
	OK           bool              `json:"ok"`
	Error        string            `json:"error"`
	NeedsImatrix bool              `json:"needs_imatrix"`
	Types        map[string]string `json:"types"`
}

// A quantizer is llama.cpp's, running.
type quantizer struct {
	in  io.Writer
	out *bufio.Reader
}

func startQuantizer(t *testing.T) *quantizer {
	t.Helper()
	dir, err := llamacpp.Dir()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "bin", "quantize"))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (make llamacpp builds it)", err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	return &quantizer{in, bufio.NewReader(out)}
}

func (q *quantizer) ask(t *testing.T, j job) (a answer) {
	t.Helper()
	line, err := json.Marshal(j)
	if err == nil {
		_, err = q.in.Write(append(line, '\n'))
	}
	if err == nil {
		line, err = q.out.ReadBytes('\n')
	}
	if err == nil {
		err = json.Unmarshal(line, &a)
	}
	if err != nil {
		t.Fatalf("llama.cpp ended without an answer to %+v: %v", j, err)
	}
	return a
}

func pick[T any](r *rand.Rand, choices ...T) T { return choices[r.IntN(len(choices))] }

// draw returns the files of a model at random, in shards: shapes that divide
// into blocks and shapes that do not, every role, experts or none.
func draw(r *rand.Rand, shards, layers int) []*fixtures.GGUF {
	arch := pick(r, "llama", "llama", "llama", "qwen2", "falcon", "olmo", "deci", "jais2", "llama-embed")
	kv := pick(r, 8, 4, 2, 1, 0)
	experts := pick(r, 0, 0, 0, 2, 4, 8, 8, 16)
	g := &fixtures.GGUF{}
	g.Set("general.architecture", arch)
	set := func(key string, v uint32) { g.Set(arch+"."+key, v) }
	set("block_count", uint32(layers))
	set("context_length", 128)
	set("embedding_length", 256)
	set("feed_forward_length", 256)
	set("attention.head_count", 8)
	set("attention.head_count_kv", uint32(kv))
	if experts > 0 {
		set("expert_count", uint32(experts))
		set("expert_used_count", 2)
	}
	g.Set(arch+".attention.layer_norm_rms_epsilon", float32(1e-5)).Set(arch+".attention.layer_norm_epsilon", float32(1e-5))
	if r.IntN(2) == 0 {
		g.Set("general.file_type", uint32(1))
	}
	if r.IntN(2) == 0 {
		g.Set("quantize.imatrix.file", "older.dat")
	}
	files := []*fixtures.GGUF{g}
	for range shards - 1 {
		files = append(files, &fixtures.GGUF{})
	}
	add := func(name string, shape ...uint64) {
		f := files[r.IntN(shards)]
		f.Add(name, pick(r, formats.F16, formats.F16, formats.BF16, formats.F32), shape...)
	}
	columns := func() uint64 { return pick[uint64](r, 256, 256, 512, 256, 128, 192, 96, 64, 32, 40) }
	words := func() uint64 { return pick[uint64](r, 256, 256, 192, 64, 32) } // blocks of 32, which Options may ask for, divide all
	add("token_embd.weight", words(), 4)
	if r.IntN(3) > 0 {
		add("output.weight", words(), 4)
	}
	if r.IntN(4) == 0 {
		add("per_layer_token_embd.weight", words(), 4)
	}
	add("output_norm.weight", 256)
	for i := range layers {
		for _, role := range []string{
			"attn_q", "attn_k", "attn_v", "attn_output", "attn_qkv", "attn_kv_b", "attn_norm", "attn_gate",
			"ffn_gate", "ffn_up", "ffn_down", "ffn_gate_shexp", "ffn_down_shexp", "ssm_conv1d", "ffn_gate_inp", "ssm_in",
		} {
			if r.IntN(3) > 0 {
				add(fmt.Sprintf("blk.%d.%s.weight", i, role), columns(), pick[uint64](r, 1, 2, 3))
			}
		}
		if experts > 0 {
			for _, role := range []string{"ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"} {
				add(fmt.Sprintf("blk.%d.%s.weight", i, role), columns(), 2, uint64(experts))
			}
		}
		add(fmt.Sprintf("blk.%d.attn_q.bias", i), 8)
	}
	if shards > 1 {
		n := 0
		for _, f := range files {
			n += len(f.Tensors)
		}
		for i, f := range files {
			f.Set("split.no", uint16(i)).Set("split.count", uint16(shards)).Set("split.tensors.count", int32(n))
		}
	}
	return files
}

// write writes the files of a model and returns the path of the first and what
// our reader makes of them.
func write(t *testing.T, dir string, files []*fixtures.GGUF) (string, Model) {
	t.Helper()
	var m Model
	first := ""
	for i, f := range files {
		path := filepath.Join(dir, fmt.Sprintf("m-%05d-of-%05d.gguf", i+1, len(files)))
		built := f.Build()
		data := built.Data
		for k := built.DataOffset; k < len(data); k++ {
			data[k] = 0x38 + byte(k*k%7) // any of these, in any order, make small finite numbers of 16 and 32 bits
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		g, err := gguf.Read(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = path
			arch, _ := g.Lookup("general.architecture")
			m.Arch = arch.(string)
			for key, field := range map[string]*int{
				"block_count": &m.Layers, "attention.head_count": &m.HeadCount,
				"attention.head_count_kv": &m.HeadCountKV, "expert_count": &m.ExpertCount,
			} {
				if v, ok := g.Lookup(m.Arch + "." + key); ok {
					*field = int(v.(int64))
				}
			}
			for k := range g.KVs {
				kv := &g.KVs[k]
				m.Metadata = append(m.Metadata, KV{kv.Key, uint64(kv.ValueOffset-kv.Offset) + kv.Bytes})
			}
		}
		for _, tensor := range g.Tensors {
			m.Tensors = append(m.Tensors, Tensor{Name: tensor.Name, Type: tensor.Type, Shape: tensor.Shape, File: i, Offset: int64(tensor.Offset)})
		}
	}
	return first, m
}

// drawOptions returns settings of llama-quantize at random, mostly its defaults.
func drawOptions(r *rand.Rand) (o Options) {
	wide := func() formats.DType {
		return pick(r, formats.Q4_K, formats.Q8_0, formats.F16, formats.Q6_K, formats.IQ4_NL, formats.F32)
	}
	small := func() *formats.DType {
		t := pick(r, formats.Q8_0, formats.F16, formats.F32, formats.Q5_1)
		return &t
	}
	if r.IntN(2) == 0 {
		o.Imatrix = &Imatrix{File: strings.Repeat("i", 1+r.IntN(200)), Dataset: pick(r, "", "wiki"), Chunks: pick(r, 0, 7)}
	}
	o.Pure, o.LeaveOutput = r.IntN(8) == 0, r.IntN(8) == 0
	if r.IntN(6) == 0 {
		o.Output = small()
	}
	if r.IntN(6) == 0 {
		o.TokenEmbedding = small()
	}
	for r.IntN(4) == 0 {
		pattern := pick(r, "attn_v", `blk\.[02]\.`, "ffn_down$", "exps", "token", `ffn_(up|gate)\.weight`)
		o.TensorTypes = append(o.TensorTypes, TensorType{regexp.MustCompile(pattern), wide()})
	}
	return o
}

func TestLlamacppTypes(t *testing.T) {
	q := startQuantizer(t)
	refused := 0
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(1, seed))
		path, m := write(t, t.TempDir(), draw(r, 1, pick(r, 1, 2, 7, 16, 68, 80)))
		s := source(t, m)
		ft := pick(r, FileTypes()...)
		opt := drawOptions(r)
		a := q.ask(t, newJob(path, ft, opt))
		got, err := s.Plan(ft, opt)
		if (err == nil) != a.OK {
			t.Fatalf("seed %d, %v of %s: error %v, llama.cpp's %q", seed, ft, m.Arch, err, a.Error)
		}
		if err != nil {
			refused++
			continue
		}
		if len(a.Types) != len(m.Tensors) {
			t.Fatalf("seed %d: llama.cpp lists %d tensors of %d", seed, len(a.Types), len(m.Tensors))
		}
		for i, tensor := range m.Tensors {
			if want := strings.ToUpper(a.Types[tensor.Name]); got.Types[i].String() != want {
				t.Errorf("seed %d, %v of %s, %+v: %s %v is %v, llama.cpp's %s", seed, ft, m.Arch, opt, tensor.Name, tensor.Shape, got.Types[i], want)
			}
		}
		if opt.Imatrix == nil && a.NeedsImatrix != (got.NeedImatrix != "") {
			t.Errorf("seed %d, %v of %s: %q needs an importance matrix, for llama.cpp %v", seed, ft, m.Arch, got.NeedImatrix, a.NeedsImatrix)
		}
	}
	if refused > 100 {
		t.Errorf("%d of 400 models are refused: too few are compared", refused)
	}
}

func TestLlamacppFileSizes(t *testing.T) {
	q := startQuantizer(t)
	compared := 0
	for seed := range uint64(120) {
		r := rand.New(rand.NewPCG(2, seed))
		shards := pick(r, 1, 1, 2, 3)
		dir := t.TempDir()
		path, m := write(t, dir, draw(r, shards, 2))
		ft := pick(r, FileTypes()...)
		opt := drawOptions(r)
		opt.KeepSplit = r.IntN(2) == 0
		got, err := source(t, m).Plan(ft, opt)
		if err != nil || got.NeedImatrix != "" {
			continue
		}
		j := newJob(path, ft, opt)
		j.Out = filepath.Join(dir, "out")
		if a := q.ask(t, j); !a.OK {
			t.Fatalf("seed %d, %v: llama.cpp refuses: %s", seed, ft, a.Error)
		}
		outs, err := filepath.Glob(j.Out + "*")
		if err != nil || len(outs) != len(got.FileBytes) {
			t.Fatalf("seed %d: files %v, want %d", seed, outs, len(got.FileBytes))
		}
		for i, out := range outs { // Glob sorts them
			st, err := os.Stat(out)
			if err != nil {
				t.Fatal(err)
			}
			if uint64(st.Size()) != got.FileBytes[i] {
				t.Errorf("seed %d, %v, %d shards, %+v: file %d of %d bytes, llama.cpp's has %d", seed, ft, shards, opt, i, got.FileBytes[i], st.Size())
			}
		}
		compared++
	}
	if compared < 40 {
		t.Errorf("only %d of 120 files are compared", compared)
	}
}
