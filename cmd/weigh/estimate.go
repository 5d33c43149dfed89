package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"weigh/cmd/weigh/internal/llama"
	"weigh/cmd/weigh/internal/render"
	"weigh/estimate"
)

// newEstimateCmd returns the sub-command that gives bytes per device for
// exactly the settings it is given.
func newEstimateCmd() *cobra.Command {
	r := &request{}
	var explain bool
	var engine engineFlags
	cmd := &cobra.Command{
		Use:   "estimate MODEL [llama-server flags]",
		Short: "Bytes per device for exactly these settings",
		Example: `  weigh estimate model.gguf -ngl 33 -c 32768 -ctk q8_0
  weigh estimate model.gguf --gpu "2x RTX 3090" --json
  weigh estimate -- llama-server -m model.gguf -ngl 99 -fa on`,
		DisableFlagParsing: true,
		RunE: weighing(r, func(cmd *cobra.Command, s *session) error {
			if engine.other() {
				return runEngine(cmd, s, &engine)
			}
			s.asked.Explain = explain
			if err := s.weigh(); err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			if r.json {
				if err := writeJSON(w, newEstimateDocument(s)); err != nil {
					return err
				}
			} else {
				style := render.StyleOf(w)
				printMemory(w, style, s)
				printSettings(w, s)
				if explain {
					printTerms(w, s)
				}
				printNotes(w, style, s)
			}
			if !s.fits() {
				return errNo
			}
			return nil
		}),
	}
	addRequestFlags(cmd.Flags(), r)
	addEngineFlags(cmd.Flags(), &engine)
	cmd.Flags().BoolVar(&explain, "explain", false, "take every figure apart into its terms")
	withLlamaHelp(cmd)
	return cmd
}

// llamaFlags annotates the commands that take llama-server's flags.
const llamaFlags = "llama-server"

// withLlamaHelp adds llama-server's flags to a command's help.
func withLlamaHelp(cmd *cobra.Command) {
	cmd.Annotations = map[string]string{llamaFlags: ""} // the manual page has them too
	usage := cmd.UsageFunc()
	cmd.SetUsageFunc(func(cmd *cobra.Command) error { // a function, because most runs want no help
		if err := usage(cmd); err != nil {
			return err
		}
		_, err := fmt.Fprint(cmd.OutOrStderr(), "\nllama-server's flags (v0.5.0); those that do not change memory are accepted too:\n", llama.Help())
		return err
	})
}

// weighing is a command on the one model that its arguments name.
func weighing(r *request, run func(*cobra.Command, *session) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if helpAsked(cmd, args) {
			return nil
		}
		s, err := prepare(cmd, r, args)
		if err != nil {
			return err
		}
		defer s.Close()
		return s.blame(run(cmd, s))
	}
}

// prepare parses the arguments and opens the one model they name.
func prepare(cmd *cobra.Command, r *request, args []string) (*session, error) {
	if err := named(cmd, r, args); err != nil {
		return nil, err
	}
	return newSession(cmd.Context(), r.Model, r)
}

// errNoModel is the answer to a command without a model.
var errNoModel = errors.New("no model is named")

// models returns the check that a command is given n models.
func models(n int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) == n:
			return nil
		case len(args) == 0:
			return errNoModel
		}
		return fmt.Errorf("want %s, not %d", plural(n, "model"), len(args))
	}
}

// named parses the arguments and settles which model they name.
func named(cmd *cobra.Command, r *request, args []string) error {
	words, err := parseRequest(cmd, r, args)
	if err != nil {
		return err
	}
	switch {
	case len(words) > 1:
		return fmt.Errorf("one model at a time: %q and %q are given", words[0], words[1])
	case len(words) == 1 && r.Model != "" && words[0] != r.Model:
		return fmt.Errorf("two models are given: %q and -m %q", words[0], r.Model)
	case len(words) == 1:
		r.Model = words[0]
	case r.Model == "" && r.HFRepo != "":
		r.Model = stored(r.HFRepo, r.HFFile)
	case r.Model == "":
		return errNoModel
	}
	return nil
}

// printMemory writes the table of devices and host.
func printMemory(w io.Writer, style render.Style, s *session) {
	head := []string{"", "weights", "cache", "compute", "overhead", "total", "free", ""}
	rows := [][]string{head}
	line := func(name string, m *estimate.Memory, v verdict) {
		word := style.Green("fits")
		switch {
		case v.free == nil:
			word = "free memory unknown"
		case !v.fits:
			word = style.Red("short of " + render.Bytes(v.must-*v.free))
		case !v.atLimits:
			word = style.Yellow("fits, not with its caches full")
		}
		rows = append(rows, []string{name, render.Bytes(m.Model), render.Bytes(m.Context), render.Bytes(m.Compute), render.Bytes(m.Overhead), render.Bytes(v.need), render.Size(v.free), word})
	}
	for i := range s.breakdown.Devices {
		m := &s.breakdown.Devices[i]
		line(m.Name+" "+render.Text(s.options.Devices[m.Device].Name), m, s.device(m))
	}
	sum, v := s.host()
	line("host", &sum, v)
	if style.Width == 0 || style.Width >= leastTable {
		render.Columns(w, rows, 1, 2, 3, 4, 5, 6)
		return
	}
	for _, row := range rows[1:] {
		render.Prose(w, 2, style.Bold(row[0])+"  "+row[7])
		var parts []string
		for i, cell := range row[1:5] {
			parts = append(parts, head[i+1]+" "+cell)
		}
		render.Prose(w, 2, fmt.Sprintf("  %s of %s free: %s", row[5], row[6], strings.Join(parts, ", ")))
	}
}

// leastTable is the width below which the table of devices is a list.
const leastTable = 78

// printSettings writes what llama.cpp settles on.
func printSettings(w io.Writer, s *session) {
	t := s.breakdown.Settings
	fa := "off"
	if t.FlashAttn {
		fa = "on"
	}
	if t.FlashAttnAuto {
		fa += " (auto)"
	}
	cache := "one cache each"
	if t.KVUnified {
		cache = "one cache"
	}
	fmt.Fprintln(w)
	render.Prose(w, 2, fmt.Sprintf("context %d (%d a sequence), %s with %s, batch %d/%d, %d layers on GPUs, flash attention %s, cache %s/%s",
		t.NCtx, t.NCtxSeq, plural(t.NParallel, "sequence"), cache, t.NBatch, t.NUBatch, t.NGPULayers, fa, lower(t.TypeK), lower(t.TypeV)))
	for _, p := range s.breakdown.Parts {
		line := fmt.Sprintf("with %s %s:", p.Kind, render.Text(p.Name))
		for _, u := range p.Use {
			line += fmt.Sprintf(" %s %s", u.Name, render.Bytes(u.Total()))
		}
		render.Prose(w, 2, line)
	}
}

// printTerms writes every addend with its arithmetic.
func printTerms(w io.Writer, s *session) {
	for _, list := range [][]estimate.Memory{s.breakdown.Devices, s.breakdown.Host} {
		for i := range list {
			m := &list[i]
			fmt.Fprintf(w, "\n%s\n", m.Name)
			var rows [][]string
			for _, t := range m.Terms {
				rows = append(rows, []string{"  " + t.Name, render.Bytes(t.Bytes), string(t.Basis), render.Text(t.Why)})
			}
			for _, b := range m.Peak {
				name := b.Name
				if b.Layer >= 0 {
					name = fmt.Sprintf("%s-%d", b.Name, b.Layer)
				}
				rows = append(rows, []string{"  at the compute peak", render.Bytes(b.Bytes), "exact", strings.TrimSpace(name + " " + b.Op.String())})
			}
			render.Columns(w, rows, 1)
		}
	}
}

// printNotes writes what a reader should know.
func printNotes(w io.Writer, style render.Style, s *session) {
	for _, n := range s.allNotes() {
		render.Prose(w, 6, style.Yellow("note:")+" "+render.Text(n))
	}
}

// allNotes returns the notes of the model, the estimate and the fit.
func (s *session) allNotes() []string {
	notes := append([]string{}, s.Model.Notes...)
	notes = append(notes, s.notes...)
	if s.breakdown != nil {
		notes = append(notes, s.breakdown.Notes...)
	}
	if s.unfit != nil {
		notes = append(notes, s.unfit.Error())
	}
	return notes
}
