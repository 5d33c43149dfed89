// Package llama reads llama-server's command line: its flags in all their
// spellings, its environment variables, its defaults (v0.5.0). What does not
// change memory is accepted and left aside.
package llama

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"weigh/estimate"
	"weigh/formats"
	"weigh/inspect/model"
)

// Flags is a llama-server command line as far as memory depends on it.
type Flags struct {
	Model   string // -m
	HFRepo  string // -hf
	HFFile  string // -hff
	MMProj  string // -mm
	RPC     []string
	Devices []string       // -dev; nil: all, "none" alone: no GPU
	Meta    map[string]any // --override-kv: int64, float64, bool or string

	Options estimate.Options // everything about the model's own context
	Fit     bool             // --fit
	FitOpts estimate.FitOptions

	CacheRAM      int // -cram, MiB; -1: no limit
	Checkpoints   int // -ctxcp
	LoadMode      string
	MMProjOffload bool
	MMProjDevice  string // -mmdev; "": follows -dev
	MMProjAuto    bool   // of a model that is named by its repository
	ImageTokens   int    // --image-max-tokens; 0: the model's own
	BatchTokens   int    // --mtmd-batch-max-tokens; 0: 1024

	Draft struct {
		Model      string // -md
		HFRepo     string // -hfd
		NGPULayers *int
		TypeK      *formats.DType
		TypeV      *formats.DType
		Overrides  []estimate.Override
		Devices    []string
		NMax       int
		Types      []string       // --spec-type; nil: what the draft's file implies
		NGram      map[string]int // most tokens that a type without a model drafts, where it is given
	}
	LoRA           []string
	ControlVectors []string
	KVPerSlot      int // --kv-unified-per-slot

	Set   map[string]bool // canonical names of the flags that were given
	Given []string        // the command line's llama-server flags, each value a word of its own, but for the model
	Notes []string        // of flags that llama-server takes otherwise than one may think
}

// Defaults returns llama-server's own.
//
// Source: common/common.h@v0.5.0, common_params.
func Defaults() *Flags {
	f := &Flags{Fit: true, CacheRAM: 8192, Checkpoints: 32, LoadMode: "auto", MMProjOffload: true, MMProjAuto: true, Set: map[string]bool{}}
	f.Draft.NMax = 3
	return f
}

// A flag is one row of the table.
type flag struct {
	names []string // short, long
	not   []string // spellings that turn it off
	value string   // what the value is called; "" for none
	env   string
	help  string
	ready bool                           // it stands for a model with settings
	set   func(f *Flags, v string) error // v is "true" or "false" without a value
}

// table holds the flags that change memory, in the order of the help.
var table = []flag{
	{names: []string{"-m", "--model"}, value: "FILE", env: "LLAMA_ARG_MODEL", help: "the model", set: text(func(f *Flags) *string { return &f.Model })},
	{names: []string{"-hf", "-hfr", "--hf-repo"}, value: "ORG/REPO[:QUANT]", env: "LLAMA_ARG_HF_REPO", help: "a model in the local Hugging Face cache", set: text(func(f *Flags) *string { return &f.HFRepo })},
	{names: []string{"-hff", "--hf-file"}, value: "FILE", env: "LLAMA_ARG_HF_FILE", help: "the file of -hf, instead of its quantization", set: text(func(f *Flags) *string { return &f.HFFile })},
	{names: []string{"-c", "--ctx-size"}, value: "N", env: "LLAMA_ARG_CTX_SIZE", help: "context of all sequences, tokens; 0: as trained", set: contextSize},
	{names: []string{"-b", "--batch-size"}, value: "N", env: "LLAMA_ARG_BATCH", help: "logical batch (2048)", set: count(1, maxTokens, func(f *Flags) *int { return &f.Options.NBatch })},
	{names: []string{"-ub", "--ubatch-size"}, value: "N", env: "LLAMA_ARG_UBATCH", help: "micro-batch (512); 0: the batch", set: microBatch},
	{names: []string{"-np", "--parallel"}, value: "N", env: "LLAMA_ARG_N_PARALLEL", help: "parallel sequences; -1: 4 with one cache", set: parallel},
	{names: []string{"-kvu", "--kv-unified"}, not: []string{"-no-kvu", "--no-kv-unified"}, env: "LLAMA_ARG_KV_UNIFIED", help: "one cache for all sequences", set: func(f *Flags, v string) error {
		b := v == "true"
		f.Options.KVUnified = &b
		return nil
	}},
	{names: []string{"--kv-unified-per-slot"}, value: "N", env: "LLAMA_ARG_KV_UNIFIED_PER_SLOT", help: "size of the shared cache for each sequence", set: count(0, maxTokens, func(f *Flags) *int { return &f.KVPerSlot })},
	{names: []string{"-ngl", "--gpu-layers", "--n-gpu-layers"}, value: "N|auto|all", env: "LLAMA_ARG_N_GPU_LAYERS", help: "layers on the GPUs, the output layer counts", set: layers(func(f *Flags) **int { return &f.Options.NGPULayers })},
	{names: []string{"-sm", "--split-mode"}, value: "layer|row|none|tensor", env: "LLAMA_ARG_SPLIT_MODE", help: "how several GPUs share the model", set: splitMode},
	{names: []string{"-ts", "--tensor-split"}, value: "N0,N1,…", env: "LLAMA_ARG_TENSOR_SPLIT", help: "shares of the GPUs", set: tensorSplit},
	{names: []string{"-mg", "--main-gpu"}, value: "N", env: "LLAMA_ARG_MAIN_GPU", help: "the GPU of -sm none", set: count(-1, 127, func(f *Flags) *int { return &f.Options.MainGPU })},
	{names: []string{"-dev", "--device"}, value: "NAME,…|none", env: "LLAMA_ARG_DEVICE", help: "the devices to use", set: names(func(f *Flags) *[]string { return &f.Devices })},
	{names: []string{"-ot", "--override-tensor"}, value: "PATTERN=BUFFER,…", env: "LLAMA_ARG_OVERRIDE_TENSOR", help: "where tensors go whose names match", set: overrides(func(f *Flags) *[]estimate.Override { return &f.Options.Overrides })},
	{names: []string{"-cmoe", "--cpu-moe"}, env: "LLAMA_ARG_CPU_MOE", help: "all experts on the CPU", set: func(f *Flags, _ string) error {
		f.Options.Overrides = append(f.Options.Overrides, estimate.CPUMoE())
		return nil
	}},
	{names: []string{"-ncmoe", "--n-cpu-moe"}, value: "N", env: "LLAMA_ARG_N_CPU_MOE", help: "experts of the first N layers on the CPU", set: firstLayers(estimate.NCPUMoE, func(f *Flags) *[]estimate.Override { return &f.Options.Overrides })},
	{names: []string{"-ncffn", "--n-cpu-ffn"}, value: "N", env: "LLAMA_ARG_N_CPU_FFN", help: "feed-forward weights of the first N layers on the CPU", set: firstLayers(estimate.NCPUFFN, func(f *Flags) *[]estimate.Override { return &f.Options.Overrides })},
	{names: []string{"-fa", "--flash-attn"}, value: "on|off|auto", env: "LLAMA_ARG_FLASH_ATTN", help: "flash attention", set: flashAttn},
	{names: []string{"-ctk", "--cache-type-k"}, value: "TYPE", env: "LLAMA_ARG_CACHE_TYPE_K", help: "type of cached keys (f16)", set: cacheType(func(f *Flags) **formats.DType { return &f.Options.TypeK })},
	{names: []string{"-ctv", "--cache-type-v"}, value: "TYPE", env: "LLAMA_ARG_CACHE_TYPE_V", help: "type of cached values (f16)", set: cacheType(func(f *Flags) **formats.DType { return &f.Options.TypeV })},
	{names: []string{"-kvo", "--kv-offload"}, not: []string{"-nkvo", "--no-kv-offload"}, env: "LLAMA_ARG_KV_OFFLOAD", help: "the cache on the GPUs", set: off(func(f *Flags) *bool { return &f.Options.NoKVOffload })},
	{names: []string{"--op-offload"}, not: []string{"--no-op-offload"}, help: "large products of host weights on the GPU", set: off(func(f *Flags) *bool { return &f.Options.NoOpOffload })},
	{names: []string{"--swa-full"}, env: "LLAMA_ARG_SWA_FULL", help: "full-size cache for windowed layers", set: on(func(f *Flags) *bool { return &f.Options.SWAFull })},
	{names: []string{"--repack"}, not: []string{"-nr", "--no-repack"}, env: "LLAMA_ARG_REPACK", help: "repack host weights for the CPU", set: off(func(f *Flags) *bool { return &f.Options.NoRepack })},
	{names: []string{"--no-host"}, env: "LLAMA_ARG_NO_HOST", help: "no pinned host buffers", set: on(func(f *Flags) *bool { return &f.Options.NoHost })},
	{names: []string{"-lm", "--load-mode"}, value: "MODE", env: "LLAMA_ARG_LOAD_MODE", help: "auto, none, mmap, mlock, mmap+mlock or dio", set: loadMode},
	{names: []string{"--mmap"}, not: []string{"--no-mmap"}, help: "map the weights (older spelling of -lm)", set: func(f *Flags, v string) error {
		f.LoadMode = map[string]string{"true": "mmap", "false": "none"}[v]
		f.note("--mmap and --no-mmap are of older releases: this one wants -lm mmap or -lm none")
		return nil
	}},
	{names: []string{"--mlock"}, help: "keep the weights in memory (older spelling of -lm)", set: func(f *Flags, _ string) error {
		f.LoadMode = "mlock"
		f.note("--mlock is of older releases: this one wants -lm mlock")
		return nil
	}},
	{names: []string{"--override-kv"}, value: "KEY=TYPE:VALUE,…", help: "metadata of the model instead of the file's", set: overrideMeta},
	{names: []string{"-cram", "--cache-ram"}, value: "MIB", env: "LLAMA_ARG_CACHE_RAM", help: "prompt cache on the host (8192)", set: count(math.MinInt32, 1<<30, func(f *Flags) *int { return &f.CacheRAM })},
	{names: []string{"-ctxcp", "--ctx-checkpoints", "--swa-checkpoints"}, value: "N", env: "LLAMA_ARG_CTX_CHECKPOINTS", help: "checkpoints of each sequence (32)", set: count(math.MinInt32, 1<<20, func(f *Flags) *int { return &f.Checkpoints })},
	{names: []string{"--embedding", "--embeddings"}, env: "LLAMA_ARG_EMBEDDINGS", help: "serve embeddings", set: on(func(f *Flags) *bool { return &f.Options.Embeddings })},
	{names: []string{"--rerank", "--reranking"}, env: "LLAMA_ARG_RERANKING", help: "serve reranking", set: func(f *Flags, _ string) error {
		rank := model.PoolingRank
		f.Options.Embeddings, f.Options.Pooling = true, &rank
		return nil
	}},
	{names: []string{"--pooling"}, value: "TYPE", env: "LLAMA_ARG_POOLING", help: "none, mean, cls, last or rank", set: pooling},
	{names: []string{"-fit", "--fit"}, value: "on|off", env: "LLAMA_ARG_FIT", help: "choose what is not set so that it fits", set: func(f *Flags, v string) (err error) { f.Fit, err = onOff(v); return err }},
	{names: []string{"-fitt", "--fit-target"}, value: "MIB,…", env: "LLAMA_ARG_FIT_TARGET", help: "memory to leave free on each device (1024)", set: fitTarget},
	{names: []string{"-fitc", "--fit-ctx"}, value: "N", env: "LLAMA_ARG_FIT_CTX", help: "least context that --fit goes down to (4096)", set: count(1, math.MaxInt32, func(f *Flags) *int { return &f.FitOpts.MinCtx })},
	{names: []string{"-mm", "--mmproj"}, value: "FILE", env: "LLAMA_ARG_MMPROJ", help: "the multimodal projector", set: text(func(f *Flags) *string { return &f.MMProj })},
	{names: []string{"--mmproj-auto"}, not: []string{"--no-mmproj", "--no-mmproj-auto"}, env: "LLAMA_ARG_MMPROJ_AUTO", help: "take the projector that lies beside the model", set: func(f *Flags, v string) error { f.MMProjAuto = v == "true"; return nil }},
	{names: []string{"--mmproj-offload"}, not: []string{"--no-mmproj-offload"}, env: "LLAMA_ARG_MMPROJ_OFFLOAD", help: "the projector on the GPU", set: func(f *Flags, v string) error { f.MMProjOffload = v == "true"; return nil }},
	{names: []string{"-mmdev", "--mmproj-device"}, value: "NAME|none", env: "MTMD_BACKEND_DEVICE", help: "the projector's device", set: text(func(f *Flags) *string { return &f.MMProjDevice })},
	{names: []string{"--image-max-tokens"}, value: "N", env: "LLAMA_ARG_IMAGE_MAX_TOKENS", help: "most tokens of an image", set: count(0, maxTokens, func(f *Flags) *int { return &f.ImageTokens })},
	{names: []string{"--mtmd-batch-max-tokens"}, value: "N", env: "LLAMA_ARG_MTMD_BATCH_MAX_TOKENS", help: "most tokens of images that are encoded at once (1024)", set: func(f *Flags, v string) error {
		n, err := number(v, math.MinInt32, maxTokens)
		f.BatchTokens = max(n, 1) // an image alone is encoded whatever it says
		return err
	}},
	{names: []string{"-bs", "--backend-sampling"}, env: "LLAMA_ARG_BACKEND_SAMPLING", help: "sample on the GPUs", set: func(f *Flags, _ string) error {
		f.note("what sampling on the GPUs (--backend-sampling) takes is not counted: some numbers for each token of the vocabulary and sequence")
		return nil
	}},
	{names: []string{"-md", "--model-draft", "--spec-draft-model"}, value: "FILE", env: "LLAMA_ARG_SPEC_DRAFT_MODEL", help: "draft model", set: text(func(f *Flags) *string { return &f.Draft.Model })},
	{names: []string{"-hfd", "-hfrd", "--hf-repo-draft", "--spec-draft-hf"}, value: "ORG/REPO[:QUANT]", env: "LLAMA_ARG_SPEC_DRAFT_HF_REPO", help: "a draft model in the local Hugging Face cache", set: text(func(f *Flags) *string { return &f.Draft.HFRepo })},
	{names: []string{"-ngld", "--gpu-layers-draft", "--n-gpu-layers-draft", "--spec-draft-ngl"}, value: "N|auto|all", env: "LLAMA_ARG_N_GPU_LAYERS_DRAFT", help: "its layers on the GPUs", set: layers(func(f *Flags) **int { return &f.Draft.NGPULayers })},
	{names: []string{"-devd", "--device-draft", "--spec-draft-device"}, value: "NAME,…", help: "its devices", set: names(func(f *Flags) *[]string { return &f.Draft.Devices })},
	{names: []string{"-ctkd", "--cache-type-k-draft", "--spec-draft-type-k"}, value: "TYPE", env: "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K", help: "type of its cached keys", set: cacheType(func(f *Flags) **formats.DType { return &f.Draft.TypeK })},
	{names: []string{"-ctvd", "--cache-type-v-draft", "--spec-draft-type-v"}, value: "TYPE", env: "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_V", help: "type of its cached values", set: cacheType(func(f *Flags) **formats.DType { return &f.Draft.TypeV })},
	{names: []string{"-otd", "--override-tensor-draft", "--spec-draft-override-tensor"}, value: "PATTERN=BUFFER,…", help: "where its tensors go", set: overrides(func(f *Flags) *[]estimate.Override { return &f.Draft.Overrides })},
	{names: []string{"-cmoed", "--cpu-moe-draft", "--spec-draft-cpu-moe"}, env: "LLAMA_ARG_SPEC_DRAFT_CPU_MOE", help: "its experts on the CPU", set: func(f *Flags, _ string) error {
		f.Draft.Overrides = append(f.Draft.Overrides, estimate.CPUMoE())
		return nil
	}},
	{names: []string{"-ncmoed", "--n-cpu-moe-draft", "--spec-draft-n-cpu-moe", "--spec-draft-ncmoe"}, value: "N", env: "LLAMA_ARG_SPEC_DRAFT_N_CPU_MOE", help: "experts of its first N layers on the CPU", set: firstLayers(estimate.NCPUMoE, func(f *Flags) *[]estimate.Override { return &f.Draft.Overrides })},
	{names: []string{"--spec-draft-n-max"}, value: "N", env: "LLAMA_ARG_SPEC_DRAFT_N_MAX", help: "most tokens drafted at once (3)", set: count(0, maxDraft, func(f *Flags) *int { return &f.Draft.NMax })},
	{names: []string{"--draft", "--draft-n", "--draft-max"}, value: "N", env: "LLAMA_ARG_DRAFT_MAX", help: "the same in older releases", set: func(f *Flags, v string) (err error) {
		f.Draft.NMax, err = number(v, 0, maxDraft)
		f.note("--draft-max is of older releases: this one wants --spec-draft-n-max")
		return err
	}},
	{names: []string{"--spec-type"}, value: "TYPE,…", env: "LLAMA_ARG_SPEC_TYPE", help: "kinds of speculative decoding; draft-mtp loads the NextN layers", set: specTypes},
	{names: []string{"--spec-ngram-simple-size-m"}, value: "N", help: "most tokens that ngram-simple drafts (48)", set: ngram("ngram-simple", 1)},
	{names: []string{"--spec-ngram-map-k-size-m"}, value: "N", help: "most tokens that ngram-map-k drafts (48)", set: ngram("ngram-map-k", 1)},
	{names: []string{"--spec-ngram-map-k4v-size-m"}, value: "N", help: "most tokens that ngram-map-k4v drafts (48)", set: ngram("ngram-map-k4v", 1)},
	{names: []string{"--spec-ngram-mod-n-max"}, value: "N", help: "most tokens that ngram-mod drafts (64)", set: ngram("ngram-mod", 0)},
	{names: []string{"--spec-default"}, help: "--spec-type ngram-mod", set: func(f *Flags, _ string) error {
		delete(f.Draft.NGram, "ngram-mod")
		return specTypes(f, "ngram-mod")
	}},
	{names: []string{"--lora"}, value: "FILE,…", help: "LoRA adapters", set: list(func(f *Flags) *[]string { return &f.LoRA })},
	{names: []string{"--lora-scaled"}, value: "FILE:SCALE,…", help: "LoRA adapters with a scale", set: scaled(func(f *Flags) *[]string { return &f.LoRA })},
	{names: []string{"--control-vector"}, value: "FILE,…", help: "control vectors", set: list(func(f *Flags) *[]string { return &f.ControlVectors })},
	{names: []string{"--control-vector-scaled"}, value: "FILE:SCALE,…", help: "control vectors with a scale", set: scaled(func(f *Flags) *[]string { return &f.ControlVectors })},
	{names: []string{"--rpc"}, value: "HOST:PORT,…", env: "LLAMA_ARG_RPC", help: "devices of rpc-servers", set: list(func(f *Flags) *[]string { return &f.RPC })},
	{names: []string{"--embd-gemma-default"}, help: "EmbeddingGemma 300M with its settings", ready: true, set: preset("embeddinggemma-300M-qat-q4_0-GGUF", "embeddinggemma-300M-qat-Q4_0.gguf", 2048, 2048, 32, 2048*32, func(f *Flags) { f.Options.Embeddings = true })},
	{names: []string{"--fim-qwen-1.5b-default"}, help: "Qwen 2.5 Coder 1.5B with its settings", ready: true, set: preset("Qwen2.5-Coder-1.5B-Q8_0-GGUF", "qwen2.5-coder-1.5b-q8_0.gguf", 1024, 1024, 0, 0, nil)},
	{names: []string{"--fim-qwen-3b-default"}, help: "Qwen 2.5 Coder 3B with its settings", ready: true, set: preset("Qwen2.5-Coder-3B-Q8_0-GGUF", "qwen2.5-coder-3b-q8_0.gguf", 1024, 1024, 0, 0, nil)},
	{names: []string{"--fim-qwen-7b-default"}, help: "Qwen 2.5 Coder 7B with its settings", ready: true, set: preset("Qwen2.5-Coder-7B-Q8_0-GGUF", "qwen2.5-coder-7b-q8_0.gguf", 1024, 1024, 0, 0, nil)},
	{names: []string{"--fim-qwen-7b-spec"}, help: "Qwen 2.5 Coder 7B with a draft", ready: true, set: preset("Qwen2.5-Coder-7B-Q8_0-GGUF", "qwen2.5-coder-7b-q8_0.gguf", 1024, 1024, 0, 0, qwenDraft)},
	{names: []string{"--fim-qwen-14b-spec"}, help: "Qwen 2.5 Coder 14B with a draft", ready: true, set: preset("Qwen2.5-Coder-14B-Q8_0-GGUF", "qwen2.5-coder-14b-q8_0.gguf", 1024, 1024, 0, 0, qwenDraft)},
	{names: []string{"--fim-qwen-30b-default"}, help: "Qwen 3 Coder 30B A3B with its settings", ready: true, set: preset("Qwen3-Coder-30B-A3B-Instruct-Q8_0-GGUF", "qwen3-coder-30b-a3b-instruct-q8_0.gguf", 1024, 1024, 0, 0, nil)},
	{names: []string{"--gpt-oss-20b-default"}, help: "gpt-oss-20b with its settings", ready: true, set: preset("gpt-oss-20b-GGUF", "gpt-oss-20b-mxfp4.gguf", 2048, 32768, 2, 131072*2, nil)},
	{names: []string{"--gpt-oss-120b-default"}, help: "gpt-oss-120b with its settings", ready: true, set: preset("gpt-oss-120b-GGUF", "", 2048, 32768, 2, 131072*2, nil)},
	{names: []string{"--vision-gemma-4b-default"}, help: "Gemma 3 4B QAT with its settings", ready: true, set: preset("gemma-3-4b-it-qat-GGUF", "", 0, 0, 0, 0, nil)},
	{names: []string{"--vision-gemma-12b-default"}, help: "Gemma 3 12B QAT with its settings", ready: true, set: preset("gemma-3-12b-it-qat-GGUF", "", 0, 0, 0, 0, nil)},
}

// maxTokens bounds token counts, as the estimate does; maxDraft those drafted at
// once, maxOverrides the patterns of -ot (llama_max_tensor_buft_overrides).
const (
	maxTokens    = 1 << 28
	maxDraft     = 1 << 16
	maxOverrides = 4096
)

// An UnknownError is a flag that llama-server does not have.
type UnknownError struct{ Flag, Nearest string }

func (e *UnknownError) Error() string {
	if e.Nearest == "" {
		return fmt.Sprintf("unknown flag %q", e.Flag)
	}
	return fmt.Sprintf("unknown flag %q: did you mean %s?", e.Flag, e.Nearest)
}

// entry is what a spelling stands for.
type entry struct {
	f      *flag
	off    bool // the spelling turns the flag off
	values int  // words that follow it
}

var spellings = sync.OnceValue(func() map[string]entry {
	m := map[string]entry{}
	for line := range strings.Lines(ignored) {
		words := strings.Fields(line)
		for _, name := range words[min(1, len(words)):] {
			n, _ := strconv.Atoi(words[0])
			m[name] = entry{values: n}
		}
	}
	for i := range table {
		f := &table[i]
		values := min(len(f.value), 1)
		for _, n := range f.names {
			m[n] = entry{f: f, values: values}
		}
		for _, n := range f.not {
			m[n] = entry{f: f, off: true}
		}
	}
	return m
})

// Known reports whether a word is one of llama-server's flags.
func Known(word string) bool {
	name, _, _ := strings.Cut(word, "=")
	_, ok := spellings()[name]
	return ok
}

// Same reports whether two words are spellings of one flag.
func Same(a, b string) bool {
	x, ok := spellings()[a]
	y, ok2 := spellings()[b]
	return ok && ok2 && x.f != nil && x.f == y.f && x.off == y.off
}

// serverOnly are the flags that llama-fit-params does not take, older spellings
// among them; so it does not take the ready-made settings.
var serverOnly = []string{
	"--kv-unified", "--kv-unified-per-slot", "--mmap", "--mlock", "--cache-ram", "--swa-checkpoints", "--embeddings", "--reranking", "--pooling",
	"--mmproj", "--mmproj-auto", "--mmproj-device", "--mmproj-offload", "--image-max-tokens", "--mtmd-batch-max-tokens",
	"--spec-draft-model", "--spec-draft-hf", "--spec-draft-ngl", "--spec-draft-device", "--spec-draft-override-tensor",
	"--spec-draft-cpu-moe", "--spec-draft-ncmoe", "--spec-draft-n-max", "--draft-max", "--spec-type",
	"--spec-ngram-simple-size-m", "--spec-ngram-map-k-size-m", "--spec-ngram-map-k4v-size-m", "--spec-ngram-mod-n-max", "--spec-default",
}

// FitParams returns those of the given flags that change memory and that
// llama-fit-params takes too.
func FitParams(given []string) (rest []string) {
	for i := 0; i < len(given); i++ {
		e := spellings()[given[i]]
		if e.f != nil && !e.f.ready && !slices.Contains(serverOnly, e.f.names[len(e.f.names)-1]) {
			rest = append(rest, given[i:i+1+e.values]...)
		}
		i += e.values
	}
	return rest
}

// TakesValue reports whether a word is one of llama-server's flags that is
// followed by a value.
func TakesValue(word string) bool {
	return spellings()[word].values > 0
}

// Parse takes llama-server's flags out of args and returns the rest: the flags
// that own says are the caller's (with whether they take a value), and words
// that are no flags. The environment counts where the command line says
// nothing, configuration files, a later one first, where neither does. What
// comes before a "llama-server" is dropped, but for variables that are set
// there, so that a whole command line can be given.
//
// Source: common/arg.cpp@v0.5.0, common_params_parse_ex.
func Parse(args []string, own func(name string) (known, value bool), env func(string) (string, bool), configs ...Config) (*Flags, []string, error) {
	f := Defaults()
	for _, c := range configs {
		if err := f.configure(c); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", c.Path, err)
		}
	}
	args, set := afterProgram(args, own)
	for i := range table {
		row := &table[i]
		if row.env == "" {
			continue
		}
		lookup := func(name string) (string, bool) {
			if v, ok := set[name]; ok {
				return v, true
			}
			return env(name)
		}
		v, ok := lookup(row.env)
		if _, off := lookup(strings.Replace(row.env, "LLAMA_ARG_", "LLAMA_ARG_NO_", 1)); off && len(row.not) > 0 {
			v, ok = "0", true
		}
		if ok && v != "" {
			if err := f.fromEnv(row, v); err != nil {
				return nil, nil, fmt.Errorf("%s=%s: %w", row.env, v, err)
			}
		}
	}
	var rest []string
	for i := 0; i < len(args); i++ {
		word := args[i]
		if word == "--" {
			continue
		}
		if len(word) < 2 || word[0] != '-' || isNumber(word) {
			rest = append(rest, word)
			continue
		}
		name, inline, hasInline := strings.Cut(word, "=")
		if strings.HasPrefix(name, "--") {
			name = strings.ReplaceAll(name, "_", "-")
		}
		e, ok := spellings()[name]
		if known, value := own(name); known {
			if hasInline {
				word = name + "=" + inline
			} else {
				word = name
			}
			rest = append(rest, word)
			if value && !hasInline && i+1 < len(args) {
				i++
				rest = append(rest, args[i])
			}
			continue
		}
		if !ok {
			return nil, nil, &UnknownError{name, nearest(name)}
		}
		var values []string
		if hasInline {
			values = append(values, inline)
		}
		for len(values) < e.values {
			if i++; i == len(args) {
				what := "a value"
				if e.f != nil {
					what = e.f.value
				}
				return nil, nil, fmt.Errorf("%s wants %s after it", name, what)
			}
			values = append(values, args[i])
		}
		if len(values) > e.values {
			return nil, nil, fmt.Errorf("%s takes no value, %q is given", name, inline)
		}
		if e.f == nil {
			f.Given = append(append(f.Given, name), values...)
			continue
		}
		v := "true"
		switch {
		case e.values > 0:
			v = values[0]
		case e.off:
			v = "false"
		}
		if err := e.f.set(f, v); err != nil {
			return nil, nil, fmt.Errorf("%s %s: %w", name, v, err)
		}
		f.Set[e.f.names[len(e.f.names)-1]] = true
		if at := e.f.names[0]; at != "-m" && at != "-hf" && at != "-hff" {
			f.Given = append(append(f.Given, name), values...)
		}
	}
	f.settle()
	return f, rest, nil
}

// assignment matches a variable that is set before a command.
var assignment = pattern(`^[A-Za-z_][A-Za-z0-9_]*=`)

// afterProgram drops the name of llama.cpp's program, and what comes between
// "--" and it: variables, which it returns, and what runs the program.
func afterProgram(args []string, own func(string) (known, value bool)) ([]string, map[string]string) {
	dashes := -1
	for i := 0; i < len(args); i++ {
		name, _, inline := strings.Cut(args[i], "=")
		known, value := own(name)
		switch {
		case args[i] == "--" && dashes < 0:
			dashes = i
		case inline:
		case known && value:
			i++
		case known:
		case spellings()[name].values > 0:
			i += spellings()[name].values
		case program(args[i:]) > 0:
			from := i
			if dashes >= 0 {
				from = dashes
			}
			for from > 0 && assignment().MatchString(args[from-1]) {
				from--
			}
			set := map[string]string{}
			for _, w := range args[from:i] {
				if k, v, ok := strings.Cut(w, "="); ok && assignment().MatchString(w) {
					set[k] = v
				}
			}
			return append(slices.Clone(args[:from]), args[i+program(args[i:]):]...), set
		}
	}
	return args, nil
}

func (f *Flags) note(text string) {
	if !slices.Contains(f.Notes, text) {
		f.Notes = append(f.Notes, text)
	}
}

func (f *Flags) fromEnv(row *flag, v string) error {
	if row.value == "" {
		on, err := onOff(v)
		switch {
		case len(row.not) == 0 && !on: // llama.cpp takes no notice
			return nil
		case err != nil:
			return errors.New("want 1 or 0")
		}
		v = strconv.FormatBool(on)
	}
	f.Set[row.names[len(row.names)-1]] = true
	return row.set(f, v)
}

// settle applies what llama-server derives from the flags together.
//
// Source: tools/server/server.cpp@v0.5.0, llama_server.
func (f *Flags) settle() {
	o := &f.Options
	if o.Embeddings && o.NUBatch >= 0 {
		if ub := cmp.Or(o.NUBatch, 512); cmp.Or(o.NBatch, 2048) > ub {
			o.NBatch = ub
		}
	}
	if o.NParallel == 0 && o.KVUnified != nil {
		if !*o.KVUnified {
			f.note("without -np llama-server shares one cache among 4 sequences: --no-kv-unified has no effect")
		}
		o.KVUnified = nil
	}
	if f.KVPerSlot > 0 && o.NCtx == 0 && f.FitOpts.MinCtx != math.MaxUint32 {
		o.NCtx = cmp.Or(o.NParallel, 4) * f.KVPerSlot
	}
	f.Speculate(o)
}

// Speculate sets in o what the kinds of speculative decoding change of the
// model's own context.
//
// Source: tools/server/server-context.cpp@v0.5.0, server_output_limits;
// common/common.h, common_params_speculative; common/speculative.cpp,
// common_speculative_n_max.
func (f *Flags) Speculate(o *estimate.Options) {
	drafted := 0
	for _, t := range f.Draft.Types {
		n, simple := ngramMax[t]
		if given, ok := f.Draft.NGram[t]; ok {
			n = given
		} else if !simple && t != "none" {
			n = f.Draft.NMax
		}
		drafted = max(drafted, n)
		switch t {
		case "draft-mtp":
			o.MTP = true
			fallthrough
		case "draft-eagle3", "draft-dflash", "draft-dspark":
			o.NRsSeq = f.Draft.NMax
		}
	}
	switch {
	case o.Embeddings:
	case o.Pooling != nil && *o.Pooling != model.PoolingNone:
		batch := 0
		o.NOutputs = &batch
	case drafted > 0:
		n := min(cmp.Or(o.NBatch, 2048), cmp.Or(o.NParallel, 4)*(1+drafted))
		o.NOutputs = &n
	}
}

// ngramMax is how many tokens the types without a model draft at most.
var ngramMax = map[string]int{"ngram-simple": 48, "ngram-map-k": 48, "ngram-map-k4v": 48, "ngram-mod": 64, "ngram-cache": 8}

// program returns how many words name one of llama.cpp's programs, as a pasted
// command line begins.
func program(words []string) int {
	name := words[0]
	if i := strings.LastIndexByte(name, '\\'); i >= 0 { // as Windows writes it
		name = name[i+1:]
	}
	switch strings.TrimSuffix(filepath.Base(name), ".exe") {
	case "llama-server", "llama-cli", "llama-bench", "llama-fit-params":
		return 1
	case "llama": // app/llama.cpp
		if len(words) > 1 && slices.Contains([]string{"serve", "server", "cli", "client", "fit-params"}, words[1]) {
			return 2
		}
	}
	return 0
}

func isNumber(word string) bool {
	_, err := strconv.ParseFloat(word, 64)
	return err == nil
}

// nearest returns the known flag that begins so, or else the one with the fewest
// changed letters, "" when none is near. Of several, one that changes memory
// comes first, then the shortest.
func nearest(name string) string {
	type candidate struct {
		flag    string
		changed int
	}
	most := max(2, len(name)/4)
	var near []candidate
	for flag := range spellings() {
		if len(strings.TrimLeft(name, "-")) > 2 && strings.HasPrefix(flag, name) {
			near = append(near, candidate{flag, 0})
		} else if n := distance(name, flag, most+1); n <= most && n < len(strings.TrimLeft(name, "-")) {
			near = append(near, candidate{flag, n})
		}
	}
	if len(near) == 0 {
		return ""
	}
	return slices.MinFunc(near, func(a, b candidate) int {
		ignored := func(c candidate) int {
			if spellings()[c.flag].f == nil {
				return 1
			}
			return 0
		}
		return cmp.Or(a.changed-b.changed, ignored(a)-ignored(b), len(a.flag)-len(b.flag), strings.Compare(a.flag, b.flag))
	}).flag
}

// distance is how many letters are changed, added, left out or exchanged with
// the next between two words, at most limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range a {
		before, last, row = last, row, before
		row[0] = i + 1
		for j := range b {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, row[j]+1, last[j+1]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return min(row[len(b)], limit)
}

// Help returns the flags with what they do, one a line.
func Help() string {
	var b strings.Builder
	for i := range table {
		f := &table[i]
		names := strings.Join(append(slices.Clone(f.names), f.not...), ", ")
		if f.value != "" {
			names += " " + f.value
		}
		fmt.Fprintf(&b, "  %-58s %s\n", names, f.help)
	}
	return b.String()
}

// Names returns every spelling of the flags that change memory.
func Names() (names []string) {
	for i := range table {
		names = append(names, table[i].names...)
		names = append(names, table[i].not...)
	}
	return names
}

func text(at func(*Flags) *string) func(*Flags, string) error {
	return func(f *Flags, v string) error { *at(f) = v; return nil }
}

// list adds the items of a value, each of which may be quoted, as llama.cpp's
// parse_csv_row reads them.
func list(at func(*Flags) *[]string) func(*Flags, string) error {
	return func(f *Flags, v string) error {
		for _, item := range items(v) {
			if item != "" {
				*at(f) = append(*at(f), item)
			}
		}
		return nil
	}
}

// items splits a value at the commas outside of double quotes.
func items(v string) (out []string) {
	var item strings.Builder
	quoted := false
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case c == '"' && quoted && i+1 < len(v) && v[i+1] == '"':
			item.WriteByte(c)
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			out = append(out, item.String())
			item.Reset()
		default:
			item.WriteByte(c)
		}
	}
	return append(out, item.String())
}

// names replaces a list of devices.
func names(at func(*Flags) *[]string) func(*Flags, string) error {
	return func(f *Flags, v string) error {
		if v == "" {
			return errors.New("want the names of devices, or none")
		}
		*at(f) = strings.Split(v, ",")
		return nil
	}
}

func scaled(at func(*Flags) *[]string) func(*Flags, string) error {
	return func(f *Flags, v string) error {
		for _, item := range items(v) {
			i := strings.LastIndex(item, ":")
			if i < 0 {
				return errors.New("want FILE:SCALE")
			}
			if _, err := strconv.ParseFloat(item[i+1:], 32); err != nil {
				return errors.New("want FILE:SCALE, the scale a number")
			}
			*at(f) = append(*at(f), item[:i])
		}
		return nil
	}
}

func number(v string, lo, hi int) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < lo || n > hi {
		return 0, fmt.Errorf("want a whole number from %d to %d", lo, hi)
	}
	return n, nil
}

func count(lo, hi int, at func(*Flags) *int) func(*Flags, string) error {
	return func(f *Flags, v string) (err error) { *at(f), err = number(v, lo, hi); return err }
}

// microBatch takes -ub; 0 stands for the batch, whatever it is.
func microBatch(f *Flags, v string) error {
	n, err := number(v, 0, maxTokens)
	if n == 0 {
		n = -1
	}
	f.Options.NUBatch = n
	return err
}

// contextSize takes -c; 0 also keeps --fit from reducing the context.
func contextSize(f *Flags, v string) (err error) {
	f.Options.NCtx, err = number(v, 0, maxTokens)
	if err == nil && f.Options.NCtx == 0 {
		f.FitOpts.MinCtx = math.MaxUint32
	}
	return err
}

func on(at func(*Flags) *bool) func(*Flags, string) error {
	return func(f *Flags, v string) error { *at(f) = v == "true"; return nil }
}

func off(at func(*Flags) *bool) func(*Flags, string) error {
	return func(f *Flags, v string) error { *at(f) = v != "true"; return nil }
}

func onOff(v string) (bool, error) {
	switch v {
	case "on", "true", "1", "enabled":
		return true, nil
	case "off", "false", "0", "disabled":
		return false, nil
	}
	return false, errors.New("want on or off")
}

func parallel(f *Flags, v string) error {
	n, err := number(v, math.MinInt32, 256)
	if err != nil || n == 0 {
		return errors.New("want 1 to 256 sequences, or -1")
	}
	f.Options.NParallel = max(n, 0)
	return nil
}

func layers(at func(*Flags) **int) func(*Flags, string) error {
	return func(f *Flags, v string) error {
		switch v {
		case "auto":
			*at(f) = nil
			return nil
		case "all":
			n := -2
			*at(f) = &n
			return nil
		}
		n, err := strconv.Atoi(v)
		if err != nil {
			return errors.New("want a number of layers, auto or all")
		}
		if n == -1 {
			*at(f) = nil
			return nil
		}
		*at(f) = &n
		return nil
	}
}

func splitMode(f *Flags, v string) error {
	for _, m := range []estimate.SplitMode{estimate.SplitLayer, estimate.SplitNone, estimate.SplitRow, estimate.SplitTensor} {
		if m.String() == v {
			f.Options.SplitMode = m
			return nil
		}
	}
	return errors.New("want layer, row, none or tensor")
}

func tensorSplit(f *Flags, v string) error {
	f.Options.TensorSplit = nil
	for _, p := range strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == '/' }) {
		x, err := strconv.ParseFloat(p, 32)
		if err != nil || x < 0 || math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Errorf("%q is no share: want numbers from 0 up", p)
		}
		f.Options.TensorSplit = append(f.Options.TensorSplit, float32(x))
	}
	return nil
}

func overrides(at func(*Flags) *[]estimate.Override) func(*Flags, string) error {
	return func(f *Flags, v string) error {
		for item := range strings.SplitSeq(v, ",") {
			pattern, buffer, ok := strings.Cut(item, "=")
			if !ok || pattern == "" || buffer == "" {
				return fmt.Errorf("%q: want PATTERN=BUFFER", item)
			}
			if _, err := estimate.CompilePattern(pattern); err != nil {
				return fmt.Errorf("pattern %q: %w", pattern, err)
			}
			*at(f) = append(*at(f), estimate.Override{Pattern: pattern, Buffer: buffer})
		}
		return nil
	}
}

func firstLayers(of func(int) []estimate.Override, at func(*Flags) *[]estimate.Override) func(*Flags, string) error {
	return func(f *Flags, v string) error {
		n, err := number(v, 0, maxOverrides-1)
		*at(f) = append(*at(f), of(n)...)
		return err
	}
}

func specTypes(f *Flags, v string) error {
	var types []string
	for _, t := range strings.Split(v, ",") {
		_, simple := ngramMax[t]
		switch {
		case t == "none":
			types = []string{t}
		case simple || slices.Contains([]string{"draft-simple", "draft-eagle3", "draft-mtp", "draft-dflash", "draft-dspark"}, t):
			types = append(types, t)
			continue
		default:
			return fmt.Errorf("%q is no kind of speculative decoding: want none, draft-simple, draft-eagle3, draft-mtp, draft-dflash, draft-dspark, ngram-simple, ngram-map-k, ngram-map-k4v, ngram-mod or ngram-cache", t)
		}
		break
	}
	f.Draft.Types = append(f.Draft.Types, types...)
	return nil
}

// ngram takes how many tokens a type without a model drafts.
func ngram(kind string, least int) func(*Flags, string) error {
	return func(f *Flags, v string) error {
		n, err := number(v, least, 1024)
		if f.Draft.NGram == nil {
			f.Draft.NGram = map[string]int{}
		}
		f.Draft.NGram[kind] = n
		return err
	}
}

// overrideMeta takes --override-kv; the first override of a key counts.
//
// Source: common/common.cpp@v0.5.0, string_parse_kv_override.
func overrideMeta(f *Flags, v string) error {
	for _, item := range items(v) {
		key, typed, _ := strings.Cut(item, "=")
		kind, text, ok := strings.Cut(typed, ":")
		if !ok || key == "" {
			return fmt.Errorf("%.80q: want KEY=TYPE:VALUE", item)
		}
		var value any
		var err error
		switch kind {
		case "int":
			value, err = strconv.ParseInt(text, 10, 64)
		case "float":
			value, err = strconv.ParseFloat(text, 64)
		case "bool":
			value, err = text == "true", nil
			if text != "true" && text != "false" {
				err = errors.New("want true or false")
			}
		case "str":
			value = text
		default:
			err = errors.New("want one of int, float, bool and str")
		}
		if err != nil {
			return fmt.Errorf("%.80q: no value of this type: %w", item, err)
		}
		if f.Meta == nil {
			f.Meta = map[string]any{}
		}
		if _, twice := f.Meta[key]; !twice {
			f.Meta[key] = value
		}
	}
	return nil
}

// preset takes one of llama-server's ready-made settings: a model of ggml-org
// with its batches, sequences and context; 0 keeps what is set, but for the
// context, which 0 leaves to --fit.
//
// Source: common/arg.cpp@v0.5.0, common_params_parser_init ("presets").
func preset(repo, file string, ubatch, batch, parallel, ctx int, more func(*Flags)) func(*Flags, string) error {
	return func(f *Flags, _ string) error {
		o := &f.Options
		f.HFRepo = "ggml-org/" + repo
		f.HFFile = cmp.Or(file, f.HFFile)
		o.NUBatch, o.NBatch = cmp.Or(ubatch, o.NUBatch), cmp.Or(batch, o.NBatch)
		o.NParallel, o.NCtx = cmp.Or(parallel, o.NParallel), ctx
		if more != nil {
			more(f)
		}
		return nil
	}
}

func qwenDraft(f *Flags) { f.Draft.HFRepo = "ggml-org/Qwen2.5-Coder-0.5B-Q8_0-GGUF" }

func flashAttn(f *Flags, v string) error {
	switch v {
	case "auto", "-1":
		f.Options.FlashAttn = estimate.FlashAttnAuto
		return nil
	}
	b, err := onOff(v)
	if err != nil {
		return errors.New("want on, off or auto")
	}
	f.Options.FlashAttn = estimate.FlashAttnOff
	if b {
		f.Options.FlashAttn = estimate.FlashAttnOn
	}
	return nil
}

// CacheTypes are the types a cache may have (kv_cache_types).
var CacheTypes = []formats.DType{
	formats.F32, formats.F16, formats.BF16, formats.Q8_0, formats.Q4_0, formats.Q4_1, formats.IQ4_NL, formats.Q5_0, formats.Q5_1,
}

func cacheType(at func(*Flags) **formats.DType) func(*Flags, string) error {
	return func(f *Flags, v string) error {
		var names []string
		for _, t := range CacheTypes {
			if name := strings.ToLower(t.String()); name == v {
				*at(f) = &t
				return nil
			} else {
				names = append(names, name)
			}
		}
		return fmt.Errorf("want one of %s", strings.Join(names, ", "))
	}
}

func loadMode(f *Flags, v string) error {
	modes := []string{"auto", "none", "mmap", "mlock", "mmap+mlock", "dio"}
	if !slices.Contains(modes, v) {
		return fmt.Errorf("want one of %s", strings.Join(modes, ", "))
	}
	f.LoadMode = v
	return nil
}

func pooling(f *Flags, v string) error {
	kinds := map[string]model.Pooling{"none": model.PoolingNone, "mean": model.PoolingMean, "cls": model.PoolingCLS, "last": model.PoolingLast, "rank": model.PoolingRank}
	p, ok := kinds[v]
	if !ok {
		return errors.New("want none, mean, cls, last or rank")
	}
	f.Options.Pooling = &p
	return nil
}

// fitTarget takes -fitt: one margin for all devices, or one each for the first,
// the others keeping theirs.
func fitTarget(f *Flags, v string) error {
	var target []uint64
	for _, item := range strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == '/' }) {
		n, err := number(item, 0, 1<<30)
		if err != nil {
			return err
		}
		target = append(target, uint64(n)<<20)
	}
	switch old := f.FitOpts.Target; {
	case target == nil:
		return errors.New("want MiB for each device")
	case len(target) == 1:
	case old == nil:
		target = append(target, estimate.DefaultFitTarget)
	default:
		target = append(target, old[min(len(target), len(old)-1):]...)
	}
	f.FitOpts.Target = target
	return nil
}
