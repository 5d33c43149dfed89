package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weigh/cmd/weigh/internal/llama"
	"weigh/cmd/weigh/internal/render"
	"weigh/estimate/hw"
	"weigh/inspect/store"
)

// completionTime bounds the search of the stores while a shell waits.
const completionTime = 2 * time.Second

// flagValues completes the values of flags of our own and of llama-server's, by
// their names without dashes.
var flagValues = map[string]func(toComplete string) []string{
	"gpu":          completeGPU,
	"backend":      words(hw.CUDA, hw.ROCm, hw.Vulkan, hw.Metal, hw.SYCL, "cpu"),
	"sort":         words(sortedNames(scanOrders)...),
	"only":         words(sortedNames(scanKinds)...),
	"prefer":       words("speed", "context", "quality"),
	"engine":       words("llama.cpp", "vllm"),
	"ctk":          words("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"),
	"fa":           words("on", "off", "auto"),
	"sm":           words("layer", "row", "none", "tensor"),
	"lm":           words("auto", "none", "mmap", "mlock", "mmap+mlock", "dio"),
	"fit":          words("on", "off"),
	"pooling":      words("none", "mean", "cls", "last", "rank"),
	"m":            completeModel,
	"hf":           func(s string) []string { return strip(completeModel("hf:"+s), "hf:") },
	"host-memory":  words(),
	"reserve":      words(),
	"ngl":          words("all", "auto"),
	"c":            words("4096", "8192", "16384", "32768", "65536", "131072"),
	"n-gpu-layers": words("all", "auto"),
}

// sameValues names flags that take the values of another.
var sameValues = map[string]string{
	"cache-type-k": "ctk", "ctv": "ctk", "cache-type-v": "ctk", "ctkd": "ctk", "ctvd": "ctk", "cache-type-k-draft": "ctk", "cache-type-v-draft": "ctk",
	"flash-attn": "fa", "split-mode": "sm", "load-mode": "lm", "model": "m", "md": "m", "model-draft": "m", "mm": "m", "mmproj": "m", "lora": "m",
	"hf-repo": "hf", "hfr": "hf", "ctx-size": "c", "gpu-layers": "ngl",
}

func words(list ...string) func(string) []string { return func(string) []string { return list } }

func strip(list []string, prefix string) (out []string) {
	for _, s := range list {
		out = append(out, strings.TrimPrefix(s, prefix))
	}
	return out
}

// addCompletion completes models, folders, flags and their values in every
// command below root that names a model.
func addCompletion(root *cobra.Command) {
	for _, cmd := range append(root.Commands(), root) {
		if cmd.ValidArgsFunction == nil && len(cmd.ValidArgs) == 0 {
			switch {
			case strings.Contains(cmd.Use, "MODEL"), strings.Contains(cmd.Use, "DIR"):
				cmd.ValidArgsFunction = completeLine
			default:
				cmd.ValidArgsFunction = cobra.NoFileCompletions
			}
		}
		if cmd.DisableFlagParsing {
			continue
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if of := flagValues[f.Name]; of != nil {
				_ = cmd.RegisterFlagCompletionFunc(f.Name, func(_ *cobra.Command, _ []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
					return matching(of(toComplete), toComplete), cobra.ShellCompDirectiveNoFileComp
				})
			}
		})
	}
}

// completeLine completes the last word of a command that takes llama-server's
// flags, which cobra does not parse: a flag, the value of one, or a model. Where
// nothing matches, the shell completes files.
func completeLine(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if cmd.DisableFlagParsing && len(args) > 0 {
		if of, takes := valuesOf(cmd, args[len(args)-1]); of != nil {
			found := matching(of(toComplete), toComplete)
			return found, cobra.ShellCompDirectiveDefault
		} else if takes {
			return nil, cobra.ShellCompDirectiveDefault
		}
	}
	if cmd.DisableFlagParsing && strings.HasPrefix(toComplete, "-") {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, "--"+f.Name)
			}
		})
		if cmd.Flags().Lookup("gpu") != nil {
			names = append(names, llama.Names()...)
		}
		return matching(names, toComplete), cobra.ShellCompDirectiveNoFileComp
	}
	return matching(completeModel(toComplete), toComplete), cobra.ShellCompDirectiveDefault
}

// valuesOf returns what completes the value of the flag that a word is, and
// whether it takes one.
func valuesOf(cmd *cobra.Command, word string) (of func(string) []string, takes bool) {
	name := strings.TrimLeft(word, "-")
	if name == word || strings.Contains(word, "=") {
		return nil, false
	}
	if same, ok := sameValues[name]; ok {
		name = same
	}
	if of := flagValues[name]; of != nil {
		return of, true
	}
	if f := cmd.Flags().Lookup(name); f != nil && strings.HasPrefix(word, "--") {
		return nil, f.NoOptDefVal == ""
	}
	return nil, llama.TakesValue(word)
}

func matching(list []string, prefix string) []cobra.Completion {
	out := []cobra.Completion{}
	for _, s := range list {
		if cutFold(s, prefix) && render.Text(s) == s {
			out = append(out, s)
		}
	}
	return out
}

func cutFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// completeGPU completes the name of a card, behind a count such as 2x.
func completeGPU(toComplete string) []string {
	count := ""
	if n, _, ok := strings.Cut(toComplete, "x"); ok && n != "" && strings.Trim(n, "0123456789") == "" {
		count = n + "x"
	}
	names := []string{"none"}
	for _, c := range hw.Catalogue() {
		names = append(names, count+c.Name)
		_, short, _ := strings.Cut(c.Name, " ") // without GeForce or Radeon
		if same, err := hw.Lookup(short); err == nil && same.Name == c.Name {
			names = append(names, count+short)
		}
	}
	return names
}

// completeModel completes the names of the models in the local stores that
// begin with one, such as ollama:NAME.
func completeModel(toComplete string) (refs []string) {
	ctx, stop := context.WithTimeout(context.Background(), completionTime)
	defer stop()
	var in []store.Store
	for _, s := range store.Stores(store.Local()) {
		switch s.Kind {
		case store.Ollama, store.LMStudio, store.HuggingFace, store.LlamaCpp:
			in = append(in, s)
		}
	}
	models, _, _ := store.List(ctx, in, nil)
	for _, m := range models {
		if store.IsRef(m.Ref) {
			refs = append(refs, m.Ref)
		}
	}
	return refs
}
