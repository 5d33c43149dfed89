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
	"regexp"
	"slices"
	"strconv"
	"strings"

	"weigh/estimate"
	"weigh/formats"
	"weigh/inspect/model"
)

// Flags is a llama-server command line as far as memory depends on it.
type Flags struct {
	Model   string // -m
	HFRepo  string // -hf
	MMProj  string // -mm
	RPC     []string
	Devices []string // -dev; nil: all, "none" alone: no GPU

	Options estimate.Options // everything about the model's own context
	Fit     bool             // --fit
	FitOpts estimate.FitOptions

	CacheRAM      int // -cram, MiB; -1: no limit
	Checkpoints   int // -ctxcp
	LoadMode      string
	MMProjOffload bool
	MMProjAuto    bool // of a model that is named by its repository
	ImageTokens   int  // --image-max-tokens; 0: the model's own

	Draft struct {
		Model      string // -md
		NGPULayers *int
		TypeK      *formats.DType
		TypeV      *formats.DType
		Overrides  []estimate.Override
		Devices    []string
		NMax       int
		Types      []string // --spec-type
	}
	LoRA           []string
	ControlVectors []string
	KVPerSlot      int // --kv-unified-per-slot

	Set   map[string]bool // canonical names of the flags that were given
	Given []string        // the command line's llama-server flags with their values, as given, but for the model
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
	set   func(f *Flags, v string) error // v is "true" or "false" without a value
}

// table holds the flags that change memory, in the order of the help.
var table = []flag{
	{names: []string{"-m", "--model"}, value: "FILE", env: "LLAMA_ARG_MODEL", help: "the model", set: text(func(f *Flags) *string { return &f.Model })},
	{names: []string{"-hf", "-hfr", "--hf-repo"}, value: "ORG/REPO[:QUANT]", env: "LLAMA_ARG_HF_REPO", help: "a model in the local Hugging Face cache", set: text(func(f *Flags) *string { return &f.HFRepo })},
	{names: []string{"-c", "--ctx-size"}, value: "N", env: "LLAMA_ARG_CTX_SIZE", help: "context of all sequences, tokens; 0: as trained", set: contextSize},
	{names: []string{"-b", "--batch-size"}, value: "N", env: "LLAMA_ARG_BATCH", help: "logical batch (2048)", set: count(1, maxTokens, func(f *Flags) *int { return &f.Options.NBatch })},
	{names: []string{"-ub", "--ubatch-size"}, value: "N", env: "LLAMA_ARG_UBATCH", help: "micro-batch (512)", set: count(1, maxTokens, func(f *Flags) *int { return &f.Options.NUBatch })},
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
	{names: []string{"-mg", "--main-gpu"}, value: "N", env: "LLAMA_ARG_MAIN_GPU", help: "the GPU of -sm none", set: count(0, 127, func(f *Flags) *int { return &f.Options.MainGPU })},
	{names: []string{"-dev", "--device"}, value: "NAME,…|none", env: "LLAMA_ARG_DEVICE", help: "the devices to use", set: list(func(f *Flags) *[]string { return &f.Devices })},
	{names: []string{"-ot", "--override-tensor"}, value: "PATTERN=BUFFER,…", env: "LLAMA_ARG_OVERRIDE_TENSOR", help: "where tensors go whose names match", set: overrides(func(f *Flags) *[]estimate.Override { return &f.Options.Overrides })},
	{names: []string{"-cmoe", "--cpu-moe"}, env: "LLAMA_ARG_CPU_MOE", help: "all experts on the CPU", set: func(f *Flags, _ string) error {
		f.Options.Overrides = append(f.Options.Overrides, estimate.CPUMoE())
		return nil
	}},
	{names: []string{"-ncmoe", "--n-cpu-moe"}, value: "N", env: "LLAMA_ARG_N_CPU_MOE", help: "experts of the first N layers on the CPU", set: firstLayers(estimate.NCPUMoE)},
	{names: []string{"-ncffn", "--n-cpu-ffn"}, value: "N", env: "LLAMA_ARG_N_CPU_FFN", help: "feed-forward weights of the first N layers on the CPU", set: firstLayers(estimate.NCPUFFN)},
	{names: []string{"-fa", "--flash-attn"}, value: "on|off|auto", env: "LLAMA_ARG_FLASH_ATTN", help: "flash attention", set: flashAttn},
	{names: []string{"-ctk", "--cache-type-k"}, value: "TYPE", env: "LLAMA_ARG_CACHE_TYPE_K", help: "type of cached keys (f16)", set: cacheType(func(f *Flags) **formats.DType { return &f.Options.TypeK })},
	{names: []string{"-ctv", "--cache-type-v"}, value: "TYPE", env: "LLAMA_ARG_CACHE_TYPE_V", help: "type of cached values (f16)", set: cacheType(func(f *Flags) **formats.DType { return &f.Options.TypeV })},
	{names: []string{"-kvo", "--kv-offload"}, not: []string{"-nkvo", "--no-kv-offload"}, env: "LLAMA_ARG_KV_OFFLOAD", help: "the cache on the GPUs", set: off(func(f *Flags) *bool { return &f.Options.NoKVOffload })},
	{names: []string{"--op-offload"}, not: []string{"--no-op-offload"}, help: "large products of host weights on the GPU", set: off(func(f *Flags) *bool { return &f.Options.NoOpOffload })},
	{names: []string{"--swa-full"}, env: "LLAMA_ARG_SWA_FULL", help: "full-size cache for windowed layers", set: on(func(f *Flags) *bool { return &f.Options.SWAFull })},
	{names: []string{"--repack"}, not: []string{"-nr", "--no-repack"}, env: "LLAMA_ARG_REPACK", help: "repack host weights for the CPU", set: off(func(f *Flags) *bool { return &f.Options.NoRepack })},
	{names: []string{"--no-host"}, env: "LLAMA_ARG_NO_HOST", help: "no pinned host buffers", set: on(func(f *Flags) *bool { return &f.Options.NoHost })},
	{names: []string{"-lm", "--load-mode"}, value: "MODE", env: "LLAMA_ARG_LOAD_MODE", help: "auto, none, mmap, mlock, mmap+mlock or dio", set: loadMode},
	{names: []string{"--mmap"}, not: []string{"--no-mmap"}, env: "LLAMA_ARG_MMAP", help: "map the weights (older spelling of -lm)", set: func(f *Flags, v string) error {
		f.LoadMode = map[string]string{"true": "mmap", "false": "none"}[v]
		return nil
	}},
	{names: []string{"--mlock"}, env: "LLAMA_ARG_MLOCK", help: "keep the weights in memory (older spelling of -lm)", set: func(f *Flags, _ string) error { f.LoadMode = "mlock"; return nil }},
	{names: []string{"-cram", "--cache-ram"}, value: "MIB", env: "LLAMA_ARG_CACHE_RAM", help: "prompt cache on the host (8192)", set: count(-1, 1<<30, func(f *Flags) *int { return &f.CacheRAM })},
	{names: []string{"-ctxcp", "--ctx-checkpoints", "--swa-checkpoints"}, value: "N", env: "LLAMA_ARG_CTX_CHECKPOINTS", help: "checkpoints of each sequence (32)", set: count(0, 1<<20, func(f *Flags) *int { return &f.Checkpoints })},
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
	{names: []string{"--image-max-tokens"}, value: "N", env: "LLAMA_ARG_IMAGE_MAX_TOKENS", help: "most tokens of an image", set: count(0, maxTokens, func(f *Flags) *int { return &f.ImageTokens })},
	{names: []string{"-md", "--model-draft", "--spec-draft-model"}, value: "FILE", env: "LLAMA_ARG_SPEC_DRAFT_MODEL", help: "draft model", set: text(func(f *Flags) *string { return &f.Draft.Model })},
	{names: []string{"-ngld", "--gpu-layers-draft", "--n-gpu-layers-draft", "--spec-draft-ngl"}, value: "N", env: "LLAMA_ARG_N_GPU_LAYERS_DRAFT", help: "its layers on the GPUs", set: layers(func(f *Flags) **int { return &f.Draft.NGPULayers })},
	{names: []string{"-devd", "--device-draft", "--spec-draft-device"}, value: "NAME,…", help: "its devices", set: list(func(f *Flags) *[]string { return &f.Draft.Devices })},
	{names: []string{"-ctkd", "--cache-type-k-draft", "--spec-draft-type-k"}, value: "TYPE", env: "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K", help: "type of its cached keys", set: cacheType(func(f *Flags) **formats.DType { return &f.Draft.TypeK })},
	{names: []string{"-ctvd", "--cache-type-v-draft", "--spec-draft-type-v"}, value: "TYPE", env: "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_V", help: "type of its cached values", set: cacheType(func(f *Flags) **formats.DType { return &f.Draft.TypeV })},
	{names: []string{"-otd", "--override-tensor-draft", "--spec-draft-override-tensor"}, value: "PATTERN=BUFFER,…", help: "where its tensors go", set: overrides(func(f *Flags) *[]estimate.Override { return &f.Draft.Overrides })},
	{names: []string{"-cmoed", "--cpu-moe-draft", "--spec-draft-cpu-moe"}, env: "LLAMA_ARG_SPEC_DRAFT_CPU_MOE", help: "its experts on the CPU", set: func(f *Flags, _ string) error {
		f.Draft.Overrides = append(f.Draft.Overrides, estimate.CPUMoE())
		return nil
	}},
	{names: []string{"-ncmoed", "--n-cpu-moe-draft", "--spec-draft-n-cpu-moe", "--spec-draft-ncmoe"}, value: "N", env: "LLAMA_ARG_SPEC_DRAFT_N_CPU_MOE", help: "experts of its first N layers on the CPU", set: func(f *Flags, v string) error {
		n, err := number(v, 0, 512)
		f.Draft.Overrides = append(f.Draft.Overrides, estimate.NCPUMoE(n)...)
		return err
	}},
	{names: []string{"--spec-draft-n-max", "--draft", "--draft-n", "--draft-max"}, value: "N", env: "LLAMA_ARG_SPEC_DRAFT_N_MAX", help: "most tokens drafted at once (3)", set: count(0, 1024, func(f *Flags) *int { return &f.Draft.NMax })},
	{names: []string{"--spec-type"}, value: "TYPE,…", env: "LLAMA_ARG_SPEC_TYPE", help: "kinds of speculative decoding; draft-mtp loads the NextN layers", set: list(func(f *Flags) *[]string { return &f.Draft.Types })},
	{names: []string{"--lora"}, value: "FILE,…", help: "LoRA adapters", set: list(func(f *Flags) *[]string { return &f.LoRA })},
	{names: []string{"--lora-scaled"}, value: "FILE:SCALE,…", help: "LoRA adapters with a scale", set: scaled(func(f *Flags) *[]string { return &f.LoRA })},
	{names: []string{"--control-vector"}, value: "FILE,…", help: "control vectors", set: list(func(f *Flags) *[]string { return &f.ControlVectors })},
	{names: []string{"--control-vector-scaled"}, value: "FILE:SCALE,…", help: "control vectors with a scale", set: scaled(func(f *Flags) *[]string { return &f.ControlVectors })},
	{names: []string{"--rpc"}, value: "HOST:PORT,…", env: "LLAMA_ARG_RPC", help: "devices of rpc-servers", set: list(func(f *Flags) *[]string { return &f.RPC })},
}

// maxTokens bounds token counts, as the estimate does.
const maxTokens = 1 << 28

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
	values int  // of an ignored flag
}

var spellings = func() map[string]entry {
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
		for _, n := range f.names {
			m[n] = entry{f: f}
		}
		for _, n := range f.not {
			m[n] = entry{f: f, off: true}
		}
	}
	return m
}()

// Known reports whether a word is one of llama-server's flags.
func Known(word string) bool {
	name, _, _ := strings.Cut(word, "=")
	_, ok := spellings[name]
	return ok
}

// Same reports whether two words are spellings of one flag.
func Same(a, b string) bool {
	x, ok := spellings[a]
	y, ok2 := spellings[b]
	return ok && ok2 && x.f != nil && x.f == y.f && x.off == y.off
}

// TakesValue reports whether a word is one of llama-server's flags that is
// followed by a value.
func TakesValue(word string) bool {
	e, ok := spellings[word]
	return ok && (e.values > 0 || e.f != nil && !e.off && e.f.value != "")
}

// Parse takes llama-server's flags out of args and returns the rest: the flags
// that own says are the caller's (with whether they take a value), and words
// that are no flags. The environment counts where the command line says
// nothing. A leading "llama-server" is dropped, so that a whole command line
// can be given.
func Parse(args []string, own func(name string) (known, value bool), env func(string) (string, bool)) (*Flags, []string, error) {
	f := Defaults()
	for i := range table {
		row := &table[i]
		if v, ok := env(row.env); row.env != "" && ok && v != "" {
			if err := f.fromEnv(row, v); err != nil {
				return nil, nil, fmt.Errorf("%s=%s: %w", row.env, v, err)
			}
		}
	}
	given := map[*flag]bool{}
	var rest []string
	for i := 0; i < len(args); i++ {
		word := args[i]
		if word == "--" {
			continue
		}
		if len(word) < 2 || word[0] != '-' || isNumber(word) {
			if !program(word) {
				rest = append(rest, word)
			}
			continue
		}
		name, inline, hasInline := strings.Cut(word, "=")
		e, ok := spellings[name]
		if known, value := own(name); known {
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
		from := i
		if e.f == nil {
			if !hasInline {
				i = min(i+e.values, len(args)-1)
			}
			f.Given = append(f.Given, args[from:i+1]...)
			continue
		}
		v := "true"
		if e.off {
			v = "false"
		}
		if e.f.value != "" {
			switch {
			case hasInline:
				v = inline
			case i+1 < len(args):
				i++
				v = args[i]
			default:
				return nil, nil, fmt.Errorf("%s wants %s after it", name, e.f.value)
			}
		}
		if !given[e.f] {
			given[e.f] = true
			f.reset(e.f)
		}
		if err := e.f.set(f, v); err != nil {
			return nil, nil, fmt.Errorf("%s %s: %w", name, v, err)
		}
		f.Set[e.f.names[len(e.f.names)-1]] = true
		if at := e.f.names[0]; at != "-m" && at != "-hf" {
			f.Given = append(f.Given, args[from:i+1]...)
		}
	}
	return f, rest, f.settle()
}

// reset drops what the environment said of a list, so that the command line
// replaces it.
func (f *Flags) reset(row *flag) {
	if row.names[0] == "--rpc" {
		f.RPC = nil
	}
}

func (f *Flags) fromEnv(row *flag, v string) error {
	if row.value == "" {
		switch strings.ToLower(v) {
		case "1", "true", "on", "enabled":
			v = "true"
		case "0", "false", "off", "disabled":
			v = "false"
		default:
			return errors.New("want 1 or 0")
		}
		if v == "false" && len(row.not) == 0 {
			return nil
		}
	}
	f.Set[row.names[len(row.names)-1]] = true
	return row.set(f, v)
}

// settle applies what llama-server derives from the flags together.
//
// Source: tools/server/server.cpp@v0.5.0, llama_server; common/common.cpp,
// common_model_params_to_llama.
func (f *Flags) settle() error {
	o := &f.Options
	if o.Embeddings {
		ub := cmp.Or(o.NUBatch, 512)
		if cmp.Or(o.NBatch, 2048) > ub {
			o.NBatch = ub
		}
	}
	if f.KVPerSlot > 0 && o.NCtx == 0 && !f.Set["--ctx-size"] {
		o.NCtx = cmp.Or(o.NParallel, 4) * f.KVPerSlot
	}
	if slices.Contains(f.Draft.Types, "draft-mtp") {
		o.MTP = true
	}
	if (f.Draft.Model != "" || o.MTP) && !o.Embeddings {
		n := cmp.Or(o.NParallel, 4) * (1 + f.Draft.NMax)
		o.NOutputs = &n
	}
	for _, t := range []string{"draft-mtp", "draft-eagle3", "draft-dflash", "draft-dspark"} {
		if slices.Contains(f.Draft.Types, t) {
			o.NRsSeq = f.Draft.NMax
		}
	}
	return nil
}

// program reports whether a word is the name of one of llama.cpp's programs, as
// a pasted command line begins.
func program(word string) bool {
	base := strings.TrimSuffix(filepath.Base(word), ".exe")
	return base == "llama-server" || base == "llama-cli" || base == "llama-bench" || base == "llama-fit-params" || base == "llama"
}

func isNumber(word string) bool {
	_, err := strconv.ParseFloat(word, 64)
	return err == nil
}

// nearest returns the known flag with the fewest changed letters, "" when none
// is near.
func nearest(name string) string {
	best, at := "", 3
	for _, s := range slices.Sorted(func(yield func(string) bool) {
		for k := range spellings {
			if !yield(k) {
				return
			}
		}
	}) {
		if d := distance(name, s, at); d < at {
			best, at = s, d
		}
	}
	return best
}

// distance is the edit distance of two words, at most limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range a {
		prev := row[0]
		row[0] = i + 1
		for j := range b {
			cost := prev
			if a[i] != b[j] {
				cost++
			}
			prev = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
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

func list(at func(*Flags) *[]string) func(*Flags, string) error {
	return func(f *Flags, v string) error {
		for item := range strings.SplitSeq(v, ",") {
			if item != "" {
				*at(f) = append(*at(f), item)
			}
		}
		return nil
	}
}

func scaled(at func(*Flags) *[]string) func(*Flags, string) error {
	return func(f *Flags, v string) error {
		for item := range strings.SplitSeq(v, ",") {
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
	n, err := number(v, -1, 256)
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
			if _, err := regexp.Compile(pattern); err != nil {
				return fmt.Errorf("pattern %q: %w", pattern, err)
			}
			*at(f) = append(*at(f), estimate.Override{Pattern: pattern, Buffer: buffer})
		}
		return nil
	}
}

func firstLayers(of func(int) []estimate.Override) func(*Flags, string) error {
	return func(f *Flags, v string) error {
		n, err := number(v, 0, 1024)
		f.Options.Overrides = append(f.Options.Overrides, of(n)...)
		return err
	}
}

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

func fitTarget(f *Flags, v string) error {
	f.FitOpts.Target = nil
	for item := range strings.SplitSeq(v, ",") {
		n, err := number(item, 0, 1<<30)
		if err != nil {
			return err
		}
		f.FitOpts.Target = append(f.FitOpts.Target, uint64(n)<<20)
	}
	return nil
}
