package main

import (
	"context"
	"io"
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

// bashWords stands for the one function of the bash-completion package that the
// script uses, where that is not installed: the words of the line, of which bash
// has made several at each colon and equals sign.
const bashWords = `if ! declare -F _get_comp_words_by_ref >/dev/null; then
_get_comp_words_by_ref() {
    local i rest=$COMP_LINE
    words=() cword=0
    for ((i = 0; i < ${#COMP_WORDS[@]}; i++)); do
        if ((i > 0)) && [[ $rest != [[:space:]]* ]]; then
            words[${#words[@]}-1]+=${COMP_WORDS[i]}
        else
            words+=("${COMP_WORDS[i]}")
        fi
        rest=${rest#"${rest%%[![:space:]]*}"}
        rest=${rest#"${COMP_WORDS[i]}"}
        ((i == COMP_CWORD)) && cword=$((${#words[@]} - 1))
    done
    cur=${words[cword]} prev=
    ((cword > 0)) && prev=${words[cword-1]}
    return 0
}
fi

`

// addBashWords writes bashWords before bash's script. The output of root must be
// set already.
func addBashWords(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	bash, _, err := root.Find([]string{"completion", "bash"})
	if err != nil || bash.RunE == nil {
		return
	}
	script := bash.RunE
	bash.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := io.WriteString(cmd.OutOrStdout(), bashWords); err != nil {
			return err
		}
		return script(cmd, args)
	}
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
		_, short, _ := strings.Cut(c.Name, " ") // without GeForce or Radeon
		for _, name := range []string{c.Name, short} {
			if !strings.Contains(toComplete, " ") {
				name = oneWord(name)
			}
			if same, err := hw.Lookup(name); err == nil && same.Name == c.Name {
				names = append(names, count+name)
			}
		}
	}
	return names
}

// oneWord writes a card's name without what a shell would take apart, which bash
// does not quote.
func oneWord(name string) string {
	return strings.Join(strings.FieldsFunc(name, func(r rune) bool { return strings.ContainsRune(" ()", r) }), "-")
}

// plainWord reports whether every shell takes s as the word that it is. Others
// are not offered: bash writes what it is given into the line as it stands.
func plainWord(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r < 0x80 && !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+,=", r))
	})
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
		if store.IsRef(m.Ref) && plainWord(m.Ref) {
			refs = append(refs, m.Ref)
		}
	}
	return refs
}
