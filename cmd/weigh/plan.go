package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"weigh/cmd/weigh/internal/render"
	"weigh/estimate/plan"
	"weigh/estimate/quant"
	"weigh/estimate/speed"
)

// planFlags are the flags of `weigh plan` beside the common ones.
type planFlags struct {
	ctx, depth, prompt int
	minTPS             float64
	prefer             string
	calibrate          string
	engine             string
	explain            bool
}

// newPlanCmd returns the sub-command that finds the best settings.
func newPlanCmd() *cobra.Command {
	r := &request{}
	var o planFlags
	cmd := &cobra.Command{
		Use:   "plan MODEL [llama-server flags]",
		Short: "The best settings for this (or a named) machine, with the reasons, and the command line",
		Long: `Plan searches layers per device, experts and feed-forward weights on the host
whole or in part, splits over uneven GPUs, the type and place of the cache and
the micro-batch, with the exact estimate as the judge: no plan is shown that does
not fit, overheads and reserve included. A flag of llama-server's that is given is
kept. Speeds are estimates: bytes read over bandwidth, fitted to users' reports.

Exit code 1: nothing fits; what would is listed, the least harmful first.`,
		Example: `  weigh plan model.gguf --gpu "RTX 4090" --host-memory 64GiB
  weigh plan model.gguf --ctx 32768 --min-tps 10 --explain
  weigh plan model.gguf --gpu "2x RTX 3090" --gpu 12GiB --prefer context --json
  weigh plan model.gguf --calibrate bench.json`,
		DisableFlagParsing: true,
		RunE: weighing(r, func(cmd *cobra.Command, s *session) error {
			switch o.engine {
			case "llama.cpp":
				return runPlan(cmd.Context(), cmd.OutOrStdout(), s, &o)
			case "vllm":
				return runPlanVLLM(cmd.OutOrStdout(), s, &o)
			}
			return fmt.Errorf("--engine %s: want llama.cpp or vllm", o.engine)
		}),
	}
	addRequestFlags(cmd.Flags(), r)
	f := cmd.Flags()
	f.IntVar(&o.ctx, "ctx", 0, "context of all sequences, tokens, as -c; 0: what the devices have room for")
	f.Float64Var(&o.minTPS, "min-tps", 0, "least tokens per second when generating")
	f.StringVar(&o.prefer, "prefer", "speed", "what counts most: speed, context or quality")
	f.IntVar(&o.depth, "depth", 0, "tokens in the cache that generation is timed at (4096, at most half the context)")
	f.IntVar(&o.prompt, "prompt-tokens", 0, "tokens of the prompt that is timed (2048)")
	f.StringVar(&o.calibrate, "calibrate", "", "llama-bench's output for this model on this machine (JSON, CSV, SQL or markdown) `file`: its speeds replace the fitted ones")
	f.StringVar(&o.engine, "engine", "llama.cpp", "llama.cpp or vllm")
	f.BoolVar(&o.explain, "explain", false, "how the plan was found, with the bytes that decided")
	withLlamaHelp(cmd)
	return cmd
}

// want turns the flags into what the plan is searched for.
func (o *planFlags) want(s *session) (w plan.Want, err error) {
	if o.ctx < 0 || o.depth < 0 || o.prompt < 0 {
		return w, fmt.Errorf("--ctx, --depth and --prompt-tokens want 0 or more")
	}
	if o.ctx > 0 {
		if s.asked.NCtx > 0 && s.asked.NCtx != o.ctx {
			return w, fmt.Errorf("two contexts are given: --ctx %d and -c %d", o.ctx, s.asked.NCtx)
		}
		s.asked.NCtx = o.ctx
	}
	if s.asked.NCtx == 0 && s.req.Set["--ctx-size"] {
		s.asked.NCtx = s.Model.NCtxTrain
	}
	w = plan.Want{
		MinTPS: o.minTPS, Prefer: plan.Preference(o.prefer), KeepKVOnGPU: s.req.Set["--kv-offload"] && !s.asked.NoKVOffload, Alternatives: true,
		Speed: speed.Query{Depth: o.depth, Prompt: o.prompt},
	}
	if s.req.reserve != "" || s.req.Set["--fit-target"] {
		if t := s.req.FitOpts.Target; len(t) > 0 {
			w.Reserve = &t[0]
		}
	}
	if o.calibrate != "" {
		f, err := openText(o.calibrate)
		if err != nil {
			return w, fmt.Errorf("--calibrate: %w", err)
		}
		defer f.Close()
		rows, err := speed.ParseBench(f)
		if err != nil {
			return w, fmt.Errorf("--calibrate %s: %w", o.calibrate, err)
		}
		if w.Speed.Factors, err = speed.Calibrate(s.Model, s.asked, rows); err != nil {
			return w, fmt.Errorf("--calibrate %s: %w", o.calibrate, err)
		}
	}
	return w, nil
}

func runPlan(ctx context.Context, out io.Writer, s *session, o *planFlags) error {
	w, err := o.want(s)
	if err != nil {
		return err
	}
	r, err := plan.Best(ctx, s.Model, s.asked, w)
	if err != nil {
		return err
	}
	var buy []plan.Purchase
	var smaller []smallerQuant
	if len(r.Plans) == 0 || !s.onDevices(&r.Plans[0]) {
		if buy, err = plan.Hardware(ctx, s.Model, s.asked, w); err != nil {
			return err
		}
	}
	if len(r.Plans) == 0 {
		smaller = s.smallerQuants(ctx, w)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.req.json {
		err = writeJSON(out, newPlanDocument(s, r, buy, smaller))
	} else {
		printPlan(out, s, r, buy, smaller, o.explain)
	}
	if err == nil && len(r.Plans) == 0 {
		return errNo
	}
	return err
}

// onDevices reports whether a plan has all layers whole on devices.
func (s *session) onDevices(p *plan.Plan) bool {
	t := p.Breakdown.Settings
	return p.Lean == 0 && len(p.Options.Overrides) == 0 && t.NGPULayers == s.Model.NLayerAll+1
}

// planned returns the session with a plan's settings.
func (s *session) planned(p *plan.Plan) *session {
	t := *s
	t.options, t.breakdown, t.steps, t.unfit = p.Options, p.Breakdown, nil, nil
	return &t
}

// planned flags are those that a plan says itself; true: with a value.
var (
	planSettings = map[string]bool{
		"-c": true, "--ctx-size": true, "-ngl": true, "--gpu-layers": true, "--n-gpu-layers": true, "-ts": true, "--tensor-split": true,
		"-ctk": true, "--cache-type-k": true, "-ctv": true, "--cache-type-v": true, "-ub": true, "--ubatch-size": true,
		"-kvo": false, "--kv-offload": false, "-nkvo": false, "--no-kv-offload": false, "-cram": true, "--cache-ram": true,
	}
	placeSettings = map[string]bool{
		"-ot": true, "--override-tensor": true, "-cmoe": false, "--cpu-moe": false, "-ncmoe": true, "--n-cpu-moe": true, "-ncffn": true, "--n-cpu-ffn": true,
	}
)

// otherFlags returns the flags given that a plan does not say itself. It says
// the overrides unless they are the user's.
func otherFlags(given []string, overrides bool) (rest []string) {
	for i := 0; i < len(given); i++ {
		name, _, inline := strings.Cut(given[i], "=")
		value, known := planSettings[name]
		if overrides && !known {
			value, known = placeSettings[name]
		}
		switch {
		case !known:
			rest = append(rest, given[i])
		case value && !inline:
			i++
		}
	}
	return rest
}

// planArgs returns llama-server's arguments of a plan: its exceptions before what
// they are exceptions from, for the first pattern that matches counts.
func (s *session) planArgs(p *plan.Plan) []string {
	o := p.Options
	own := p.Lean > 0 || len(o.Overrides) == 0 // the overrides are the plan's
	o.Overrides = nil
	if p.Lean > 0 {
		o.Overrides = p.Kept
	}
	args := append([]string{"-m", s.modelFile()}, settledArgs(s.Model, &o, &p.Breakdown.Settings, nil)...)
	add := func(words ...string) { args = append(args, words...) }
	switch moe := s.Model.NExpert > 0; {
	case p.Lean > 0 && moe && p.Lean >= s.Model.NLayerAll:
		add("-cmoe")
	case p.Lean > 0 && moe:
		add("-ncmoe", strconv.Itoa(p.Lean))
	case p.Lean > 0:
		add("--n-cpu-ffn", strconv.Itoa(p.Lean))
	}
	if o.TypeK != nil {
		add("-ctk", lower(*o.TypeK))
	}
	if o.TypeV != nil {
		add("-ctv", lower(*o.TypeV))
	}
	if o.NUBatch > 0 {
		add("-ub", strconv.Itoa(o.NUBatch))
	}
	if o.NoKVOffload {
		add("-nkvo")
	}
	if len(o.Devices) == 0 && len(s.asked.Devices) > 0 {
		add("-dev", "none")
	}
	switch {
	case p.CacheRAM != nil:
		add("-cram", strconv.Itoa(*p.CacheRAM))
	case s.req.Set["--cache-ram"]:
		add("-cram", strconv.Itoa(s.req.CacheRAM))
	}
	return append(args, otherFlags(s.req.Given, own)...)
}

func (s *session) planCommand(p *plan.Plan) string {
	words := []string{"llama-server"}
	for _, a := range s.planArgs(p) {
		words = append(words, quote(a))
	}
	return strings.Join(words, " ")
}

// A smallerQuant is a llama-quantize type with which the model fits.
type smallerQuant struct {
	name  string
	bytes uint64
	plan  plan.Plan
}

// maxSmaller is the number of smaller types that are proposed.
const maxSmaller = 2

// smallerQuants returns the largest types below the model's own that fit.
func (s *session) smallerQuants(ctx context.Context, w plan.Want) (found []smallerQuant) {
	m, err := quantModel(s.Inspection)
	if err != nil {
		return nil
	}
	src, err := quant.New(m)
	if err != nil {
		return nil
	}
	own := s.FileBytes()
	if s.Weightless() {
		for i := range s.Model.Tensors {
			own += s.Model.Tensors[i].Bytes
		}
	}
	var results []*quant.Result
	for _, ft := range quant.FileTypes() {
		if r, err := src.Plan(ft, quant.Options{Imatrix: &quant.Imatrix{}}); err == nil && r.DataBytes < own {
			results = append(results, r)
		}
	}
	slices.SortFunc(results, func(a, b *quant.Result) int { return int(int64(b.DataBytes) - int64(a.DataBytes)) })
	w.Alternatives = false
	for _, r := range results {
		t := s.as(r)
		best, err := plan.Best(ctx, t.Model, s.asked, w)
		if err != nil || len(best.Plans) == 0 {
			continue
		}
		if found = append(found, smallerQuant{r.FileType.String(), r.DataBytes, best.Plans[0]}); len(found) == maxSmaller {
			break
		}
	}
	return found
}

// printPlan writes the plans, or what would make one possible.
func printPlan(w io.Writer, s *session, r *plan.Result, buy []plan.Purchase, smaller []smallerQuant, explain bool) {
	style := render.StyleOf(w)
	if explain {
		for i, step := range r.Steps {
			render.Prose(w, 4, fmt.Sprintf("%2d. %s", i+1, render.Text(step)))
		}
		fmt.Fprintln(w)
	}
	for i := range r.Plans {
		p := &r.Plans[i]
		if i > 0 {
			fmt.Fprintln(w)
		}
		render.Prose(w, 2, style.Bold(p.Role)+": "+render.Text(p.Why))
		t := s.planned(p)
		if i == 0 {
			printMemory(w, style, t)
		} else {
			printTotals(w, t)
		}
		if s.generates() {
			render.Prose(w, 2, fmt.Sprintf("  generates %s tokens per second at a depth of %d; reads prompts at %s, the first token of %d after %.1f s",
				spanTPS(p.Speed.Decode), p.Speed.Depth, spanTPS(p.Speed.Prefill), p.Speed.Prompt, p.Speed.FirstToken))
		} else {
			fmt.Fprintf(w, "  reads %s tokens per second; it generates none\n", spanTPS(p.Speed.Prefill))
		}
		if explain && i == 0 {
			printTimes(w, p.Speed)
		}
		fmt.Fprintf(w, "\n  %s\n", s.planCommand(p))
	}
	if len(r.Plans) > 0 {
		fmt.Fprintln(w)
		note := "speeds are " + r.Plans[0].Speed.Basis
		for _, a := range r.Plans[0].Speed.Assumed {
			note += "; assumed " + a
		}
		render.Prose(w, 6, style.Yellow("note:")+" "+render.Text(note))
		printNotes(w, style, s.planned(&r.Plans[0]))
	} else {
		verdict := "Nothing fits:"
		if r.Slow {
			verdict = "Nothing is fast enough:"
		}
		render.Prose(w, 2, style.Red(verdict)+" "+render.Text(r.Why))
		if len(r.Changes)+len(smaller) > 0 {
			fmt.Fprintln(w, "What would, the least harmful first:")
		}
		for _, c := range r.Changes {
			render.Prose(w, 2, fmt.Sprintf("  %s: %s", c.What, render.Text(c.Plan.Why)))
			fmt.Fprintf(w, "      %s\n", s.planCommand(c.Plan))
		}
		for _, q := range smaller {
			render.Prose(w, 2, fmt.Sprintf("  quantized to %s, %s: %s", q.name, render.Bytes(q.bytes), render.Text(q.plan.Why)))
		}
	}
	if len(buy) > 0 {
		fmt.Fprintln(w, "\nThe smallest hardware that has all layers at this context:")
		rows := [][]string{}
		for _, b := range buy {
			rows = append(rows, []string{fmt.Sprintf("  %d x %s", b.Count, b.Card.Name), render.Bytes(b.Card.Memory), "needs " + render.Bytes(b.Need), fmt.Sprintf("about %.0f tokens per second", b.Speed.Decode.Mid)})
		}
		render.Columns(w, rows)
	}
}

// printTotals writes one line of what each row takes.
func printTotals(w io.Writer, s *session) {
	var parts []string
	for i := range s.breakdown.Devices {
		d := &s.breakdown.Devices[i]
		parts = append(parts, fmt.Sprintf("%s %s of %s", d.Name, render.Bytes(d.Total()), render.Size(s.options.Devices[d.Device].MemoryFree)))
	}
	sum, _ := s.host()
	parts = append(parts, "host "+render.Bytes(sum.Total()))
	fmt.Fprintf(w, "  %s\n", strings.Join(parts, ", "))
}

// printTimes takes the time of a token apart.
func printTimes(w io.Writer, sp *speed.Speed) {
	var rows [][]string
	for _, t := range sp.Terms {
		bytes := ""
		if t.Bytes > 0 {
			bytes = render.Bytes(t.Bytes)
		}
		rows = append(rows, []string{"    " + render.Text(t.Name), bytes, fmt.Sprintf("%.2f ms", t.Seconds*1e3), t.Why})
	}
	render.Columns(w, rows, 1, 2)
}

// spanTPS writes an estimate with its range.
func spanTPS(r speed.Range) string {
	return fmt.Sprintf("%s (%s to %s)", perSecond(r.Mid), perSecond(r.Low), perSecond(r.High))
}

// perSecond writes a rate with as many digits as it is good for.
func perSecond(v float64) string {
	if v >= 100 {
		scale := math.Pow(10, math.Floor(math.Log10(v))-1)
		return strconv.FormatFloat(math.Round(v/scale)*scale, 'f', 0, 64)
	}
	return fmt.Sprintf("%.2g", v)
}
