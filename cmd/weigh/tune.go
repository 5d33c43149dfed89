package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"weigh/cmd/weigh/internal/llama"
	"weigh/estimate"
	"weigh/estimate/speed"
)

// newTuneCmd returns the sub-command that shows a model's settings as sliders.
func newTuneCmd() *cobra.Command {
	r := &request{}
	cmd := &cobra.Command{
		Use:   "tune MODEL [llama-server flags]",
		Short: "Settings as sliders in the terminal: memory, speed and the command line as they move",
		Long: `Tune fills the terminal: the settings that change memory, what every device then
holds, the speed, and the llama-server line. It begins with what llama-server
would choose for the flags given.

  up, down        choose a setting        left, right       change it
  page up, down   change it in leaps      home, end         least, most
  r               back to the beginning   enter             leave, printing the line
  q               leave`,
		Example: `  weigh tune model.gguf
  weigh tune ollama:llama3.2 --gpu "RTX 3060 12GB" -ctk q8_0`,
		DisableFlagParsing: true,
		RunE: weighing(r, func(cmd *cobra.Command, s *session) error {
			in, out := cmd.InOrStdin(), cmd.OutOrStdout()
			if !isTerminal(in) || !isTerminal(out) {
				return errors.New("tune wants a terminal; in a pipe weigh plan and weigh estimate answer")
			}
			t, err := newTuning(cmd, s)
			if err != nil {
				return err
			}
			take, err := runScreen(cmd.Context(), t, in, out)
			if err == nil && take {
				fmt.Fprintln(out, strings.Join(t.now.words, " "))
			}
			return err
		}),
	}
	addRequestFlags(cmd.Flags(), r)
	withLlamaHelp(cmd)
	return cmd
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// A knob is one setting: a flag of llama-server's and the values it is given,
// the least first.
type knob struct {
	name   string
	flags  []string // the first one is written; all are taken out of the user's
	values []string
	unset  string // the value that is the default: the flag is left out
	at     int    // index into values
	start  int    // where it began
}

func (k *knob) value() string { return k.values[k.at] }

// A tuning is a model with its knobs. Every setting is tried as a command line,
// the one that is shown.
type tuning struct {
	cmd   *cobra.Command
	base  *session // as prepared
	knobs []*knob
	given []string // the user's other flags
	now   tuned
}

// A tuned is what the knobs come to.
type tuned struct {
	words []string // of the line to run, quoted
	s     *session // nil with err
	speed *speed.Speed
	err   error // llama.cpp refuses these settings
}

// newTuning returns the knobs at what llama-server would choose.
func newTuning(cmd *cobra.Command, s *session) (*tuning, error) {
	if err := s.weigh(); err != nil {
		return nil, err
	}
	t := &tuning{cmd: cmd, base: s}
	o, set := s.asked, s.breakdown.Settings
	add := func(name, value, unset string, values []string, flags ...string) *knob {
		k := &knob{name: name, flags: flags, values: values, unset: unset}
		if k.at = slices.Index(values, value); k.at < 0 {
			k.values, k.at = append([]string{value}, values...), 0
		}
		k.start = k.at
		t.knobs = append(t.knobs, k)
		return k
	}
	layers := s.Model.NLayerAll
	add("context", strconv.Itoa(set.NCtx), "", contextValues(s, set.NCtx), "-c", "--ctx-size")
	var lean *knob
	if len(o.Devices) > 0 {
		ngl := add("layers on GPUs", strconv.Itoa(set.NGPULayers), "", numbers(0, layers+1), "-ngl", "--gpu-layers", "--n-gpu-layers")
		if s.Model.NExpert > 0 {
			lean = add("experts on the CPU", strconv.Itoa(leanOf(s.req, "-ncmoe")), "0", numbers(0, layers), "-ncmoe", "--n-cpu-moe")
		} else {
			lean = add("feed-forward on the CPU", strconv.Itoa(leanOf(s.req, "-ncffn")), "0", numbers(0, layers), "-ncffn", "--n-cpu-ffn")
		}
		if len(s.options.Overrides) > len(o.Overrides) { // --fit spilled layers: the nearest that the knobs can say
			ngl.at, ngl.start = len(ngl.values)-1, len(ngl.values)-1
		}
	}
	types := []string{"q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1", "q8_0", "f16", "f32"}
	add("cached keys", lower(set.TypeK), "f16", types, "-ctk", "--cache-type-k")
	add("cached values", lower(set.TypeV), "f16", types, "-ctv", "--cache-type-v")
	parallel := "auto"
	if o.NParallel > 0 {
		parallel = strconv.Itoa(o.NParallel)
	}
	add("sequences", parallel, "auto", []string{"auto", "1", "2", "4", "8", "16", "32", "64"}, "-np", "--parallel")
	add("micro-batch", strconv.Itoa(cmp.Or(o.NUBatch, 512)), "512", []string{"32", "64", "128", "256", "512", "1024", "2048"}, "-ub", "--ubatch-size")
	fa := map[estimate.FlashAttn]string{estimate.FlashAttnAuto: "auto", estimate.FlashAttnOn: "on", estimate.FlashAttnOff: "off"}[o.FlashAttn]
	add("flash attention", fa, "auto", []string{"auto", "on", "off"}, "-fa", "--flash-attn")
	t.given = without(s.req.Given, t.knobs)
	t.weigh()
	if lean != nil && len(s.options.Overrides) > len(o.Overrides) {
		t.spill(lean)
	}
	return t, nil
}

// spill sets the knob to the fewest layers with which the model fits, if any.
func (t *tuning) spill(lean *knob) {
	lo, hi := 0, len(lean.values)-1
	for lo < hi {
		lean.at = (lo + hi) / 2
		if t.weigh(); t.now.fits() {
			hi = lean.at
		} else {
			lo = lean.at + 1
		}
	}
	lean.at, lean.start = lo, lo
	t.weigh()
}

func (u *tuned) fits() bool { return u.err == nil && u.s.fits() }

// contextValues returns four lengths to each doubling, up to what the model was
// trained on, with the given one among them.
func contextValues(s *session, start int) (values []string) {
	var list []int
	for n := 512; n < max(s.Model.NCtxTrain, 1); n *= 2 {
		list = append(list, n, n*5/4, n*3/2, n*7/4)
	}
	most := max(s.Model.NCtxTrain, start)
	list = append(slices.DeleteFunc(list, func(n int) bool { return n > most }), start, most)
	slices.Sort(list)
	for _, n := range slices.Compact(list) {
		values = append(values, strconv.Itoa(n))
	}
	return values
}

func numbers(from, to int) (values []string) {
	for n := from; n <= to; n++ {
		values = append(values, strconv.Itoa(n))
	}
	return values
}

// leanOf returns the number that a flag was given, such as -ncmoe 12.
func leanOf(r *request, flag string) int {
	for i, w := range r.Given {
		if name, inline, ok := strings.Cut(w, "="); llama.Same(name, flag) {
			if !ok && i+1 < len(r.Given) {
				inline = r.Given[i+1]
			}
			n, _ := strconv.Atoi(inline)
			return n
		}
	}
	return 0
}

// without returns given flags less those that the knobs say; each takes a value.
func without(given []string, knobs []*knob) (rest []string) {
	for i := 0; i < len(given); i++ {
		name, _, inline := strings.Cut(given[i], "=")
		if slices.ContainsFunc(knobs, func(k *knob) bool {
			return slices.ContainsFunc(k.flags, func(f string) bool { return llama.Same(name, f) })
		}) {
			if !inline {
				i++
			}
			continue
		}
		rest = append(rest, given[i])
	}
	return rest
}

// args returns llama-server's arguments for the knobs.
func (t *tuning) args() []string {
	args := []string{"-m", t.base.modelFile()}
	for _, k := range t.knobs {
		if k.value() != k.unset {
			args = append(args, k.flags[0], k.value())
		}
	}
	return append(args, t.given...)
}

// turn moves a knob by some steps, as far as it goes.
func (t *tuning) turn(i, steps int) {
	k := t.knobs[i]
	if at := min(max(k.at+steps, 0), len(k.values)-1); at != k.at {
		k.at = at
		t.weigh()
	}
}

// reset puts every knob where it began.
func (t *tuning) reset() {
	for _, k := range t.knobs {
		k.at = k.start
	}
	t.weigh()
}

// weigh estimates the command line of the knobs, as weigh estimate would.
func (t *tuning) weigh() {
	args := t.args()
	t.now = tuned{words: []string{"llama-server"}}
	for _, a := range args {
		t.now.words = append(t.now.words, quote(a))
	}
	r := *t.base.req
	r.machine = &t.base.machine
	r.hostMemory = "" // the machine has it already
	if r.Flags, _, t.now.err = llama.Parse(args, func(string) (bool, bool) { return false, false }, os.LookupEnv, r.configs...); t.now.err != nil {
		return
	}
	r.Fit = false
	s := *t.base
	s.req, s.steps, s.unfit, s.notes = &r, nil, nil, r.Notes
	if t.now.err = s.gather(t.cmd.Context()); t.now.err != nil {
		return
	}
	if t.now.err = s.weigh(); t.now.err != nil {
		return
	}
	t.now.s = &s
	t.now.speed, _ = speed.Estimate(s.Model, s.options, speed.Query{})
}
