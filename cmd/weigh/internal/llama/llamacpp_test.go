//go:build llamacpp

package llama

import (
	"cmp"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"weigh/estimate"
	"weigh/fixtures/llamacpp"
	"weigh/formats"
	"weigh/inspect/model"
)

// printed are flags with which llama-server prints something and ends; -h is
// the caller's.
var printed = []string{"-h", "--help"}

// TestLlamacppTakesTheFlags holds our table to llama-server's own, flag by flag.
func TestLlamacppTakesTheFlags(t *testing.T) {
	options, err := server(t).Options()
	if err != nil {
		t.Fatal(err)
	}
	if len(options) < 200 {
		t.Fatalf("llama-server has %d flags", len(options))
	}
	for _, o := range options {
		for _, name := range append(o.Names, o.Not...) {
			e, ok := spellings()[name]
			switch {
			case slices.Contains(printed, name):
			case !ok:
				t.Errorf("%s is not known", name)
			case e.values != o.Values:
				t.Errorf("%s takes %d values, ours takes %d", name, o.Values, e.values)
			case e.f != nil && e.off != slices.Contains(o.Not, name):
				t.Errorf("%s turns off: %v, ours: %v", name, !e.off, e.off)
			case e.f != nil && e.f.env != o.Env:
				t.Errorf("%s has the variable %q, ours %q", name, o.Env, e.f.env)
			}
		}
	}
}

// TestLlamacppReadsTheLine holds what we make of a command line and of
// variables to what llama-server makes of them: of lines drawn at random from
// values right and wrong.
func TestLlamacppReadsTheLine(t *testing.T) {
	o := server(t)
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("WEIGH_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("WEIGH_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	for range 400 {
		var line []string
		env := map[string]string{}
		for range 1 + r.IntN(5) {
			e := lines[r.IntN(len(lines))]
			value := e.values[r.IntN(len(e.values))]
			if e.env != "" && r.IntN(4) == 0 {
				env[e.env] = cmp.Or(value, "1")
				continue
			}
			name := e.names[r.IntN(len(e.names))]
			if r.IntN(6) == 0 && strings.HasPrefix(name, "--") {
				name = "--" + strings.ReplaceAll(name[2:], "-", "_")
			}
			if line = append(line, name); value != "" {
				line = append(line, value)
			}
		}
		var want params
		err := o.Command(line, env, &want)
		var crash *llamacpp.Crash
		refused := errors.As(err, &crash)
		if err != nil && !refused {
			t.Fatal(err)
		}
		f, _, err := Parse(line, none, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
		if refused || !want.OK {
			if err == nil {
				t.Errorf("%v %q: llama-server refuses it", env, line)
			}
			continue
		}
		if err != nil {
			t.Errorf("%v %q: %v", env, line, err)
			continue
		}
		slices.Sort(want.Meta)
		want.Meta = slices.Compact(want.Meta)
		if got := paramsOf(f, &want); !reflect.DeepEqual(got, want) {
			t.Errorf("%v %q\nours  %+v\nwant  %+v", env, line, got, want)
		}
	}
}

func server(t *testing.T) *llamacpp.Oracle {
	t.Helper()
	o, err := llamacpp.Start(t.Context(), llamacpp.Config{Backend: llamacpp.StandInCUDA, GPUs: []llamacpp.GPU{{FreeMiB: 1024}, {FreeMiB: 512}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

// lines are what command lines are drawn from; a value of "" is none.
var lines = []struct {
	names  []string
	env    string
	values []string
}{
	{[]string{"-c", "--ctx-size"}, "LLAMA_ARG_CTX_SIZE", []string{"0", "512", "4096"}},
	{[]string{"-b", "--batch-size"}, "LLAMA_ARG_BATCH", []string{"1", "512"}},
	{[]string{"-ub", "--ubatch-size"}, "LLAMA_ARG_UBATCH", []string{"0", "64", "4096"}},
	{[]string{"-np", "--parallel"}, "LLAMA_ARG_N_PARALLEL", []string{"-1", "1", "5", "0", "-3"}},
	{[]string{"-kvu", "--kv-unified", "-no-kvu", "--no-kv-unified"}, "LLAMA_ARG_KV_UNIFIED", []string{""}},
	{[]string{"-ngl", "--gpu-layers", "--n-gpu-layers"}, "LLAMA_ARG_N_GPU_LAYERS", []string{"all", "auto", "-1", "-5", "0", "33", "many"}},
	{[]string{"-sm", "--split-mode"}, "LLAMA_ARG_SPLIT_MODE", []string{"none", "layer", "row", "tensor", "rows"}},
	{[]string{"-ts", "--tensor-split"}, "LLAMA_ARG_TENSOR_SPLIT", []string{"3,1", "0.5/0.5", "1", "0,0", "1,x"}},
	{[]string{"-mg", "--main-gpu"}, "LLAMA_ARG_MAIN_GPU", []string{"0", "1", "-1"}},
	{[]string{"-dev", "--device"}, "LLAMA_ARG_DEVICE", []string{"CUDA0", "CUDA1,CUDA0", "none"}},
	{[]string{"-ot", "--override-tensor"}, "LLAMA_ARG_OVERRIDE_TENSOR", []string{"exps=CPU", "a=CUDA0,b=CUDA1", "nothing"}},
	{[]string{"-cmoe", "--cpu-moe"}, "LLAMA_ARG_CPU_MOE", []string{""}},
	{[]string{"-ncmoe", "--n-cpu-moe"}, "LLAMA_ARG_N_CPU_MOE", []string{"0", "3", "-1"}},
	{[]string{"-ncffn", "--n-cpu-ffn"}, "LLAMA_ARG_N_CPU_FFN", []string{"2"}},
	{[]string{"-fa", "--flash-attn"}, "LLAMA_ARG_FLASH_ATTN", []string{"on", "off", "auto", "1", "0", "-1", "enabled", "maybe"}},
	{[]string{"-ctk", "--cache-type-k"}, "LLAMA_ARG_CACHE_TYPE_K", []string{"f32", "bf16", "q8_0", "iq4_nl", "q5_1", "q4_K", "Q8_0"}},
	{[]string{"-ctv", "--cache-type-v"}, "LLAMA_ARG_CACHE_TYPE_V", []string{"f16", "q4_1", "q5_0"}},
	{[]string{"-kvo", "--kv-offload", "-nkvo", "--no-kv-offload"}, "LLAMA_ARG_KV_OFFLOAD", []string{""}},
	{[]string{"--op-offload", "--no-op-offload"}, "", []string{""}},
	{[]string{"--swa-full"}, "LLAMA_ARG_SWA_FULL", []string{""}},
	{[]string{"--repack", "-nr", "--no-repack"}, "LLAMA_ARG_REPACK", []string{""}},
	{[]string{"--no-host"}, "LLAMA_ARG_NO_HOST", []string{""}},
	{[]string{"-lm", "--load-mode"}, "LLAMA_ARG_LOAD_MODE", []string{"auto", "none", "mmap", "mlock", "mmap+mlock", "dio", "swap"}},
	{[]string{"-cram", "--cache-ram"}, "LLAMA_ARG_CACHE_RAM", []string{"-1", "0", "100"}},
	{[]string{"-ctxcp", "--ctx-checkpoints", "--swa-checkpoints"}, "LLAMA_ARG_CTX_CHECKPOINTS", []string{"0", "7"}},
	{[]string{"--embedding", "--embeddings"}, "LLAMA_ARG_EMBEDDINGS", []string{""}},
	{[]string{"--rerank", "--reranking"}, "LLAMA_ARG_RERANKING", []string{""}},
	{[]string{"--pooling"}, "LLAMA_ARG_POOLING", []string{"none", "mean", "cls", "last", "rank", "max"}},
	{[]string{"-fit", "--fit"}, "LLAMA_ARG_FIT", []string{"on", "off", "0", "true", "perhaps"}},
	{[]string{"-fitt", "--fit-target"}, "LLAMA_ARG_FIT_TARGET", []string{"512", "512,2048", "1/2/3", "0"}},
	{[]string{"-fitc", "--fit-ctx"}, "LLAMA_ARG_FIT_CTX", []string{"256", "8192"}},
	{[]string{"-mm", "--mmproj"}, "LLAMA_ARG_MMPROJ", []string{"p.gguf"}},
	{[]string{"--mmproj-auto", "--no-mmproj", "--no-mmproj-auto"}, "LLAMA_ARG_MMPROJ_AUTO", []string{""}},
	{[]string{"--mmproj-offload", "--no-mmproj-offload"}, "LLAMA_ARG_MMPROJ_OFFLOAD", []string{""}},
	{[]string{"--image-max-tokens"}, "LLAMA_ARG_IMAGE_MAX_TOKENS", []string{"64"}},
	{[]string{"-md", "--model-draft", "--spec-draft-model"}, "LLAMA_ARG_SPEC_DRAFT_MODEL", []string{"d.gguf"}},
	{[]string{"-hfd", "--spec-draft-hf"}, "LLAMA_ARG_SPEC_DRAFT_HF_REPO", []string{"a/b"}},
	{[]string{"-ngld", "--spec-draft-ngl", "--n-gpu-layers-draft"}, "LLAMA_ARG_N_GPU_LAYERS_DRAFT", []string{"all", "auto", "4"}},
	{[]string{"-devd", "--device-draft"}, "", []string{"CUDA1", "none"}},
	{[]string{"-ctkd", "--cache-type-k-draft"}, "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K", []string{"q8_0"}},
	{[]string{"-ctvd", "--spec-draft-type-v"}, "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_V", []string{"q8_0"}},
	{[]string{"-otd", "--override-tensor-draft"}, "", []string{"x=CPU"}},
	{[]string{"-cmoed", "--cpu-moe-draft"}, "LLAMA_ARG_SPEC_DRAFT_CPU_MOE", []string{""}},
	{[]string{"-ncmoed", "--spec-draft-ncmoe"}, "LLAMA_ARG_SPEC_DRAFT_N_CPU_MOE", []string{"1"}},
	{[]string{"--spec-draft-n-max"}, "LLAMA_ARG_SPEC_DRAFT_N_MAX", []string{"0", "8", "-1"}},
	{[]string{"--spec-type"}, "LLAMA_ARG_SPEC_TYPE", []string{"none", "draft-mtp", "draft-simple,ngram-map-k", "draft-eagle3,none", "ngram-cache", "fast"}},
	{[]string{"--spec-ngram-mod-n-max"}, "", []string{"0", "9", "2000"}},
	{[]string{"--spec-ngram-map-k-size-m"}, "", []string{"0", "9"}},
	{[]string{"--spec-default"}, "", []string{""}},
	{[]string{"--lora"}, "", []string{"a.gguf", `a.gguf,"b,c.gguf"`}},
	{[]string{"--lora-scaled"}, "", []string{"a.gguf:0.5,b.gguf:1", "a.gguf"}},
	{[]string{"--control-vector"}, "", []string{"v.gguf"}},
	{[]string{"--control-vector-scaled"}, "", []string{"v.gguf:2", "v.gguf:x"}},
	{[]string{"--override-kv"}, "", []string{"a=int:1", "b=bool:true,c=str:x", "d=bool:yes", "e"}},
	{[]string{"-m", "--model"}, "LLAMA_ARG_MODEL", []string{"m.gguf"}},
	{[]string{"-hf", "--hf-repo"}, "LLAMA_ARG_HF_REPO", []string{"a/b:Q8_0"}},
	{[]string{"-hff", "--hf-file"}, "LLAMA_ARG_HF_FILE", []string{"b.gguf"}},
	{[]string{"--gpt-oss-20b-default", "--fim-qwen-7b-spec", "--embd-gemma-default", "--vision-gemma-4b-default"}, "", []string{""}},
	{[]string{"--temp", "--top-p", "-s", "--port", "-t"}, "", []string{"1", "-1"}},
	{[]string{"--jinja", "--no-webui", "-cb", "--metrics", "--no-warmup"}, "", []string{""}},
}

// params are llama-server's parameters as native/oracle.cpp names them.
type params struct {
	OK              bool      `json:"ok"`
	Model           string    `json:"model"`
	HFRepo          string    `json:"hf_repo"`
	HFFile          string    `json:"hf_file"`
	NCtx            int       `json:"n_ctx"`
	NBatch          int       `json:"n_batch"`
	NUBatch         int       `json:"n_ubatch"`
	NParallel       int       `json:"n_parallel"`
	KVUnified       bool      `json:"kv_unified"`
	NGPULayers      int       `json:"n_gpu_layers"`
	SplitMode       int       `json:"split_mode"`
	TensorSplit     []float32 `json:"tensor_split"`
	MainGPU         int       `json:"main_gpu"`
	Devices         []string  `json:"devices"`
	Overrides       []string  `json:"overrides"`
	FlashAttn       int       `json:"flash_attn"`
	TypeK           string    `json:"type_k"`
	TypeV           string    `json:"type_v"`
	NoKVOffload     bool      `json:"no_kv_offload"`
	NoOpOffload     bool      `json:"no_op_offload"`
	SWAFull         bool      `json:"swa_full"`
	NoRepack        bool      `json:"no_repack"`
	NoHost          bool      `json:"no_host"`
	LoadMode        int       `json:"load_mode"`
	CacheRAM        int       `json:"cache_ram"`
	Checkpoints     int       `json:"checkpoints"`
	Embeddings      bool      `json:"embeddings"`
	Pooling         int       `json:"pooling"`
	Fit             bool      `json:"fit"`
	FitCtx          int       `json:"fit_ctx"`
	FitTarget       []uint64  `json:"fit_target"`
	MMProj          string    `json:"mmproj"`
	NoMMProj        bool      `json:"no_mmproj"`
	ImageTokens     int       `json:"image_tokens"`
	Draft           string    `json:"draft"`
	DraftRepo       string    `json:"draft_repo"`
	DraftNGPULayers int       `json:"draft_layers"`
	DraftTypeK      string    `json:"draft_k"`
	DraftTypeV      string    `json:"draft_v"`
	DraftDevices    []string  `json:"draft_devices"`
	DraftOverrides  []string  `json:"draft_overrides"`
	Types           []string  `json:"types"`
	Drafted         int       `json:"drafted"`
	RSSeq           int       `json:"rs_seq"`
	LoRA            []string  `json:"lora"`
	ControlVectors  []string  `json:"control_vectors"`
	Meta            []string  `json:"meta"`
}

// paramsOf returns our reading by llama-server's names. What settle derives is
// taken from want where llama-server derives it later.
func paramsOf(f *Flags, want *params) params {
	o := &f.Options
	text := func(t *formats.DType) string {
		if t == nil {
			return "f16"
		}
		return strings.ToLower(t.String())
	}
	layers := func(n *int) int {
		if n == nil {
			return -1
		}
		return *n
	}
	devices := func(names []string) []string {
		out := []string{}
		for _, n := range names {
			out = append(out, strings.Replace(n, "none", "", 1))
		}
		if len(out) > 0 && out[0] != "" {
			out = append(out, "")
		}
		return out
	}
	patterns := func(over []estimate.Override) []string {
		out := []string{}
		for _, v := range over {
			out = append(out, v.Pattern+"="+v.Buffer)
		}
		return out
	}
	p := params{
		OK: true, Model: f.Model, HFRepo: f.HFRepo, HFFile: f.HFFile,
		NCtx: o.NCtx, NBatch: cmp.Or(o.NBatch, 2048), NUBatch: cmp.Or(o.NUBatch, 512), NParallel: cmp.Or(o.NParallel, -1),
		NGPULayers: layers(o.NGPULayers), TensorSplit: append(slices.Clone(o.TensorSplit), make([]float32, 4)...)[:4],
		SplitMode: map[estimate.SplitMode]int{estimate.SplitNone: 0, estimate.SplitLayer: 1, estimate.SplitRow: 2, estimate.SplitTensor: 3}[o.SplitMode],
		MainGPU:   o.MainGPU, Devices: devices(f.Devices), Overrides: patterns(o.Overrides),
		FlashAttn: map[estimate.FlashAttn]int{estimate.FlashAttnAuto: -1, estimate.FlashAttnOff: 0, estimate.FlashAttnOn: 1}[o.FlashAttn],
		TypeK:     text(o.TypeK), TypeV: text(o.TypeV), NoKVOffload: o.NoKVOffload, NoOpOffload: o.NoOpOffload, SWAFull: o.SWAFull,
		NoRepack: o.NoRepack, NoHost: o.NoHost, LoadMode: slices.Index([]string{"auto", "none", "mmap", "mlock", "mmap+mlock", "dio"}, f.LoadMode) - 1,
		CacheRAM: f.CacheRAM, Checkpoints: f.Checkpoints, Embeddings: o.Embeddings, Pooling: -1,
		Fit: f.Fit, FitCtx: cmp.Or(f.FitOpts.MinCtx, 4096), MMProj: f.MMProj, NoMMProj: !f.MMProjAuto, ImageTokens: cmp.Or(f.ImageTokens, -1),
		Draft: f.Draft.Model, DraftRepo: f.Draft.HFRepo, DraftNGPULayers: layers(f.Draft.NGPULayers),
		DraftTypeK: text(f.Draft.TypeK), DraftTypeV: text(f.Draft.TypeV), DraftDevices: devices(f.Draft.Devices), DraftOverrides: patterns(f.Draft.Overrides),
		Types: append([]string{"none"}, f.Draft.Types...), RSSeq: o.NRsSeq,
		LoRA: append([]string{}, f.LoRA...), ControlVectors: append([]string{}, f.ControlVectors...), Meta: []string{},
	}
	if p.NUBatch < 0 {
		p.NUBatch = 0
	}
	if o.Embeddings { // settle
		p.NBatch = want.NBatch
	}
	switch {
	case o.KVUnified != nil:
		p.KVUnified = *o.KVUnified
	case o.NParallel == 0: // settle
		p.KVUnified, p.NParallel = want.KVUnified, min(want.NParallel, p.NParallel)
	}
	if o.Pooling != nil {
		p.Pooling = map[model.Pooling]int{model.PoolingNone: 0, model.PoolingMean: 1, model.PoolingCLS: 2, model.PoolingLast: 3, model.PoolingRank: 4}[*o.Pooling]
	}
	if p.FitCtx == math.MaxUint32 {
		p.FitCtx = -1
	}
	for i := range 4 {
		n := uint64(estimate.DefaultFitTarget)
		if have := len(f.FitOpts.Target); have > 0 {
			n = f.FitOpts.Target[min(i, have-1)]
		}
		p.FitTarget = append(p.FitTarget, n)
	}
	p.Drafted = want.Drafted
	if !o.Embeddings && (o.Pooling == nil || *o.Pooling == model.PoolingNone) {
		seqs := cmp.Or(o.NParallel, 4)
		outputs := seqs
		if o.NOutputs != nil {
			outputs = *o.NOutputs
		}
		if outputs != min(seqs*(1+want.Drafted), p.NBatch) && (o.NOutputs != nil || want.Drafted > 0) {
			p.Drafted = outputs/seqs - 1
		}
	}
	for key := range f.Meta {
		p.Meta = append(p.Meta, key)
	}
	slices.Sort(p.Meta)
	return p
}

// TestLlamacppReadsTheConfiguration holds what we make of a configuration file
// to what llama-server makes of it.
func TestLlamacppReadsTheConfiguration(t *testing.T) {
	for name, text := range map[string]string{
		"all kinds": "ctx-size = 4096 ; of all\n" +
			"[*]\nc = 1\nLLAMA_ARG_CACHE_TYPE_K = q8_0\nport=80\nno-such-flag = 7\n\n# a comment\n" +
			"[my/model:Q8_0]\nngl = 9\n" +
			"[default]\nb = 1024\nno-kv-offload = on\nrepack = off\nswa-full = 0\nub = 64#x\nno-mmproj = maybe\nots = x\nts = 3,1\n",
		"before any section": "c = 0\nnp=2\r\nLLAMA_ARG_NO_KV_OFFLOAD = off\nkv-unified = 1\n",
		"a section twice":    "[default]\nc = 1\n[*]\nb = 7\n[default]\nub = 3\n",
		"no value":           "ctx-size 4096\n",
		"a wrong value":      "split-mode = rows\n",
		"indented":           " c = 3\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "llama.cpp", "config.ini")
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("XDG_CONFIG_HOME", dir)
			var want params
			err := server(t).Command([]string{"--pooling", "none"}, nil, &want)
			var crash *llamacpp.Crash
			if err != nil && !errors.As(err, &crash) {
				t.Fatal(err)
			}
			f, _, parsed := Parse([]string{"--pooling", "none"}, none, noEnv, Config{path, text})
			if err != nil || !want.OK {
				if parsed == nil {
					t.Errorf("llama-server refuses it (%v)", err)
				}
				return
			}
			if parsed != nil {
				t.Fatal(parsed)
			}
			if got := paramsOf(f, &want); !reflect.DeepEqual(got, want) {
				t.Errorf("ours  %+v\nwant  %+v", got, want)
			}
		})
	}
}
