package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"weigh/cmd/weigh/internal/render"
	"weigh/estimate"
	"weigh/estimate/plan"
	"weigh/estimate/speed"
	"weigh/inspect"
	"weigh/inspect/arch"
	"weigh/inspect/model"
)

// newPreflightCmd returns the root command: everything about one model on one
// screen.
func newPreflightCmd() *cobra.Command {
	r := &request{}
	cmd := &cobra.Command{
		Use:   "weigh MODEL [llama-server flags]",
		Short: "Weigh a model file before you load it",
		Long: `Weigh reads the headers of a GGUF or safetensors model and says what it is, what
it needs, whether it fits this machine, and which llama-server line to run.

MODEL is a .gguf file (any shard of a split one), a .safetensors file or index,
a folder with either, or ollama:NAME[:TAG], hf:ORG/REPO[@REV] or lmstudio:NAME
for a model in a local store.

Exit codes: 0 it fits (or: yes), 1 answered, and the answer is no, 2 could not
answer.`,
		Example: `  weigh Llama-3.1-8B-Q4_K_M.gguf
  weigh model.gguf -c 32768 -ctk q8_0 -ctv q8_0
  weigh model.gguf --gpu "RTX 4090" --host-memory 64GiB`,
		Args:               cobra.ArbitraryArgs,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0, helpAsked(cmd, args):
				if len(args) == 0 {
					return cmd.Help()
				}
				return nil
			case len(args) == 1 && args[0] == "--version":
				fmt.Fprintf(cmd.OutOrStdout(), "weigh %s\n", version())
				return nil
			}
			return preflight(cmd, r, args)
		},
	}
	addRequestFlags(cmd.Flags(), r)
	return cmd
}

func preflight(cmd *cobra.Command, r *request, args []string) error {
	if err := mistyped(cmd, args[0]); err != nil {
		return err
	}
	if err := named(cmd, r, args); err != nil {
		return err
	}
	return show(cmd, r)
}

// mistyped reports a word that is no file but nearly a sub-command.
func mistyped(root *cobra.Command, word string) error {
	if strings.ContainsAny(word, "-./\\:") {
		return nil
	}
	if _, err := os.Lstat(word); err == nil {
		return nil
	}
	root.SuggestionsMinimumDistance = 2
	if near := root.SuggestionsFor(word); len(near) > 0 {
		return fmt.Errorf("%s: neither a file nor a command; is weigh %s meant?", word, strings.Join(near, " or weigh "))
	}
	return nil
}

// show prints the verdict on the model that r names.
func show(cmd *cobra.Command, r *request) error {
	s, err := newSession(cmd.Context(), r.Model, r)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.weigh(); err != nil {
		return s.blame(err)
	}
	var better *plan.Plan
	if !s.fits() {
		if better, err = s.rescue(cmd.Context()); err != nil {
			return err
		}
	}
	command := s.command()
	if better != nil {
		command = s.planCommand(better)
		steps := append(s.steps, "that would not fit: these settings do")
		s = s.planned(better)
		s.steps = steps
	}
	tps, err := speed.Estimate(s.Model, s.options, speed.Query{})
	if err != nil {
		return s.blame(err)
	}
	w := cmd.OutOrStdout()
	if r.json {
		doc := newEstimateDocument(s)
		d := newSpeedDocument(tps)
		doc.Command, doc.Speed = command, &d
		if err := writeJSON(w, doc); err != nil {
			return err
		}
	} else {
		style := render.StyleOf(w)
		printModel(w, style, s.Inspection)
		fmt.Fprintln(w)
		printMemory(w, style, s)
		printSettings(w, s)
		if s.generates() {
			render.Prose(w, 2, fmt.Sprintf("about %s tokens per second at a depth of %d, prompts at %s", spanTPS(tps.Decode), tps.Depth, spanTPS(tps.Prefill)))
		} else {
			fmt.Fprintf(w, "reads about %s tokens per second; it generates none\n", spanTPS(tps.Prefill))
		}
		printNotes(w, style, s)
		printVerdict(w, style, s, command)
	}
	if !s.fits() {
		return errNo
	}
	return nil
}

// generates reports whether the model writes text: one that sees the tokens to
// come is asked for embeddings, ranks or tags.
func (s *session) generates() bool { return s.Model.CausalAttn }

// rescue returns the best plan where llama-server's own choice does not fit,
// nil when nothing does.
func (s *session) rescue(ctx context.Context) (*plan.Plan, error) {
	w, err := (&planFlags{}).want(s)
	if err != nil {
		return nil, err
	}
	w.Alternatives = false
	r, err := plan.Best(ctx, s.Model, s.asked, w)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil || len(r.Plans) == 0 {
		return nil, nil // what does not fit is shown as it is
	}
	return &r.Plans[0], nil
}

// printModel writes what a model is.
func printModel(w io.Writer, style render.Style, ins *inspect.Inspection) {
	sum := summarize(ins)
	name := sum.Name
	if name == "" {
		name = ins.Path
	}
	fmt.Fprintf(w, "%s  %s\n", style.Bold(render.Text(name)), render.Text(sum.Quantization.Label))
	var facts []string
	add := func(format string, args ...any) { facts = append(facts, fmt.Sprintf(format, args...)) }
	if sum.Architecture != "" {
		add("%s", render.Text(sum.Architecture))
	}
	if sum.Parameters != nil {
		add("%s parameters", humanCount(*sum.Parameters))
	}
	if ins.Weightless() {
		add("no weights here")
	} else {
		add("%s in %s", render.Bytes(*sum.FileBytes), plural(len(ins.Files), "file"))
	}
	if m := ins.Model; m != nil {
		add("%d layers", m.NLayer())
		add("hidden %d", m.NEmbd)
		if heads := span(sum.NHead); heads != "" {
			add("heads %s, KV %s", heads, span(sum.NHeadKV))
		}
		if ff := span(sum.NFF); ff != "" && ff != "0" {
			add("feed-forward %s", ff)
		}
		if m.NExpert > 0 {
			add("%d experts, %s used", m.NExpert, span(perLayer(m, m.NExpertUsed)))
		}
		if m.NSWA > 0 {
			add("window %d", m.NSWA)
		}
		add("vocabulary %d", m.NVocab)
		if m.NCtxTrain > 0 {
			add("trained on %d tokens", m.NCtxTrain)
		}
	}
	fmt.Fprintf(w, "  %s\n", wrap(facts, "  ", style.Width))
	var types []string
	for _, t := range sum.Quantization.Types {
		types = append(types, fmt.Sprintf("%s %s %s", t.Type, plural(t.Tensors, "tensor"), render.Bytes(t.Bytes)))
	}
	if len(types) > 0 {
		if bits := sum.Quantization.BitsPerWeight; bits != nil {
			types = append(types, fmt.Sprintf("%.2f bits per weight", *bits))
		}
		fmt.Fprintf(w, "  %s\n", wrap(types, "  ", style.Width))
	}
}

// wrap joins items with dots, breaking lines at width columns (100 when it is
// unknown).
func wrap(items []string, indent string, width int) string {
	if width == 0 {
		width = 100
	}
	var b strings.Builder
	col := len(indent)
	for i, item := range items {
		n := len([]rune(item))
		switch {
		case i == 0:
		case col+3+n > width:
			b.WriteString("\n" + indent)
			col = len(indent)
		default:
			b.WriteString(" · ")
			col += 3
		}
		b.WriteString(item)
		col += n
	}
	return b.String()
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// humanCount writes a count of weights, such as 8.03 B.
func humanCount(n uint64) string {
	v, unit := humanize.ComputeSI(float64(n))
	if unit == "G" {
		unit = "B"
	}
	return strings.TrimSpace(fmt.Sprintf("%.3g %s", v, unit))
}

// span writes one value, or the range of values that differ by layer.
func span(v any) string {
	switch v := v.(type) {
	case int:
		return strconv.Itoa(v)
	case []int:
		if len(v) == 0 {
			return ""
		}
		lo, hi := slices.Min(v), slices.Max(v)
		if lo == hi {
			return strconv.Itoa(lo)
		}
		return fmt.Sprintf("%d to %d", lo, hi)
	}
	return ""
}

// printVerdict writes whether the model fits and the line to run.
func printVerdict(w io.Writer, style render.Style, s *session, command string) {
	fmt.Fprintln(w)
	for _, step := range s.steps {
		render.Prose(w, 2, "  "+style.Dim(render.Text(step)))
	}
	switch {
	case s.fits() && s.Defined():
		fmt.Fprintln(w, style.Green("It would fit.")+" Once its weights are here, run:")
	case s.fits() && s.refused != "":
		fmt.Fprintln(w, style.Green("It would fit.")+" Once it is mended, run:")
	case s.fits() && arch.Lookup(s.Model.Arch) == nil:
		fmt.Fprintln(w, style.Green("It would fit.")+" With a llama.cpp that knows the architecture, run:")
	case s.fits():
		fmt.Fprintln(w, style.Green("It fits.")+" Run:")
	default:
		fmt.Fprintln(w, style.Red("It does not fit.")+" What llama-server would try:")
	}
	fmt.Fprintln(w)
	if s.Format != inspect.GGUF {
		fmt.Fprintf(w, "  convert_hf_to_gguf.py %s --outtype auto --outfile %s\n", quote(s.Path), quote(s.modelFile()))
	}
	fmt.Fprintf(w, "  %s\n", command)
	if !s.fits() {
		fmt.Fprintf(w, "\nWhat would make it fit: weigh plan %s\n", quote(s.modelFile()))
	}
}

// command returns the llama-server line with the settled options.
func (s *session) command() string {
	words := []string{"llama-server"}
	for _, a := range s.args() {
		words = append(words, quote(a))
	}
	return strings.Join(words, " ")
}

// args returns llama-server's arguments: the model, what was settled, and the
// flags that were given.
func (s *session) args() []string {
	return append(append([]string{"-m", s.modelFile()}, settledArgs(s.Model, &s.options, &s.breakdown.Settings, s.req.Set)...), s.req.Given...)
}

// settledArgs returns the flags of the settings that --fit or a plan chooses
// and that are not given.
func settledArgs(m *model.Model, o *estimate.Options, t *estimate.Settings, given map[string]bool) (args []string) {
	add := func(canonical, flag, value string) {
		if !given[canonical] {
			args = append(args, flag, value)
		}
	}
	// Not t.NCtx, which is rounded up: the batch is cut to what is asked for.
	add("--ctx-size", "-c", strconv.Itoa(cmp.Or(o.NCtx, m.NCtxTrain, t.NCtx)))
	if len(o.Devices) > 0 {
		ngl := t.NGPULayers
		if o.NGPULayers == nil || *o.NGPULayers < 0 {
			ngl = m.NLayerAll + 1
		}
		add("--n-gpu-layers", "-ngl", strconv.Itoa(ngl))
	}
	if slices.ContainsFunc(o.TensorSplit, func(f float32) bool { return f != 0 }) {
		var parts []string
		for _, f := range o.TensorSplit {
			parts = append(parts, strconv.FormatFloat(float64(f), 'g', -1, 32))
		}
		add("--tensor-split", "-ts", strings.Join(parts, ","))
	}
	if over := joinOverrides(o.Overrides); over != "" && !given["--cpu-moe"] && !given["--n-cpu-moe"] && !given["--n-cpu-ffn"] {
		add("--override-tensor", "-ot", over)
	}
	return args
}

// layerPattern splits a pattern for tensors of one layer, such as
// blk\.7\.ffn_down, into the layer and the rest.
func layerPattern(pattern string) (il int, rest string, ok bool) {
	layer, rest, ok := strings.Cut(strings.TrimPrefix(pattern, `blk\.`), `\.`)
	il, err := strconv.Atoi(layer)
	return il, rest, ok && err == nil && strings.HasPrefix(pattern, `blk\.`)
}

// joinOverrides writes overrides as a value of -ot, those that differ only in
// their layer as one pattern. Patterns for single layers are joined only when
// every layer has one, so that the order does not matter.
func joinOverrides(overrides []estimate.Override) string {
	seen := map[int]bool{}
	for _, v := range overrides {
		il, _, ok := layerPattern(v.Pattern)
		if !ok || seen[il] {
			seen = nil
			break
		}
		seen[il] = true
	}
	var out []string
	layers := map[estimate.Override][]string{}
	var order []estimate.Override
	for _, v := range overrides {
		if seen == nil {
			out = append(out, v.Pattern+"="+v.Buffer)
			continue
		}
		il, rest, _ := layerPattern(v.Pattern)
		key := estimate.Override{Pattern: rest, Buffer: v.Buffer}
		if layers[key] == nil {
			order = append(order, key)
		}
		layers[key] = append(layers[key], strconv.Itoa(il))
	}
	for _, key := range order {
		list := strings.Join(layers[key], "|")
		if len(layers[key]) > 1 {
			list = "(" + list + ")"
		}
		out = append(out, `blk\.`+list+`\.`+key.Pattern+"="+key.Buffer)
	}
	return strings.Join(out, ",")
}

// modelFile returns the file that llama-server is given: the first shard, or
// what a conversion is to write.
func (s *session) modelFile() string {
	switch {
	case s.req.shown != "":
		return s.req.shown
	case s.Format == inspect.GGUF:
		return s.Files[0].Path
	}
	base := filepath.Base(filepath.Clean(s.Path))
	if abs, err := filepath.Abs(s.Path); err == nil {
		base = filepath.Base(abs)
	}
	base = strings.TrimSuffix(strings.TrimSuffix(base, ".index.json"), ".safetensors")
	return base + ".gguf"
}

// quote makes a word safe in a POSIX shell.
func quote(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+,=", r)
	}
	if word != "" && strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(render.Text(word), "'", `'\''`) + "'"
}
