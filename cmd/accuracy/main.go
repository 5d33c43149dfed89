// Accuracy compares the estimates with what llama.cpp v0.5.0 was measured to
// allocate: thousands of rows of (model, settings), which the fixtures hold. It
// is a tool for developers:
//
//	go run ./cmd/accuracy                    a summary, and the worst rows
//	go run ./cmd/accuracy -arch qwen3 -v     every wrong row of an architecture, buffer by buffer
//	go run ./cmd/accuracy -row A17 -peak     one row, and what lay in its compute buffers
//	go run ./cmd/accuracy -write FILE        the report
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"sort"
	"strings"
	"sync"

	"weigh/estimate"
	"weigh/estimate/sched"
	"weigh/inspect/arch"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

func main() {
	if err := run(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "accuracy:", err)
		os.Exit(2)
	}
}

type options struct {
	archs, models, rows map[string]bool
	verbose, peak, all  bool
	fit, bound          bool
	write, truth        string
}

func set(s string) map[string]bool {
	if s == "" {
		return nil
	}
	m := map[string]bool{}
	for _, v := range strings.Split(s, ",") {
		m[v] = true
	}
	return m
}

func run(out io.Writer, args []string) error {
	f := flag.NewFlagSet("accuracy", flag.ContinueOnError)
	archs := f.String("arch", "", "only these `architectures` (comma separated)")
	models := f.String("model", "", "only `files` whose name contains one of these (comma separated)")
	rows := f.String("row", "", "only these `rows`: L3 is the third of llamacpp.jsonl, A3 of architectures.jsonl, F3 of fit.jsonl")
	var o options
	f.BoolVar(&o.verbose, "v", false, "print each wrong row")
	f.BoolVar(&o.all, "vv", false, "print each row")
	f.BoolVar(&o.peak, "peak", false, "with -v or -vv: print what lay in each compute buffer at its peak")
	f.StringVar(&o.truth, "truth", "", "compare the rows of a `file` that the oracle wrote, instead of those of the fixtures")
	f.BoolVar(&o.bound, "bound", false, "compare the upper bound for architectures without a graph, on all architectures")
	f.BoolVar(&o.fit, "fit", true, "compare the choices of --fit too")
	f.StringVar(&o.write, "write", "", "write the report to `file`")
	if err := f.Parse(args); err != nil {
		return err
	}
	o.archs, o.models, o.rows = set(*archs), set(*models), set(*rows)
	o.verbose = o.verbose || o.all || o.rows != nil
	o.all = o.all || o.rows != nil

	t, err := readTruth(&o)
	if err != nil {
		return err
	}
	results := t.compare(&o)
	rep := summarise(results)
	for _, r := range t.fit {
		rep.addFit(r)
		if o.verbose && (o.all || len(r.diffs) > 0 || r.err != nil) && !r.noRow {
			r.print(out)
		}
	}
	if o.verbose {
		for _, r := range results {
			if o.all || r.wrong() {
				r.print(out, o.peak)
			}
		}
	}
	rep.print(out)
	if o.write != "" {
		return rep.write(o.write)
	}
	return nil
}

// A result is one row beside its estimate.
type result struct {
	*row
	b     *estimate.Breakdown
	err   error
	noRow bool // the architecture has no builder
	diffs []diff
	parts [3]verdict
}

type diff struct {
	buffer    string
	part      int
	want, got uint64
}

// A verdict is how one part of a row compares.
type verdict struct {
	wrong, below bool
	over         float64 // the most that a buffer is too high, percent
	under        float64
}

var partNames = [3]string{"model", "context", "compute"}

// wrong reports whether anything differs.
func (r *result) wrong() bool {
	if r.noRow {
		return false
	}
	return len(r.diffs) > 0 || (r.err != nil) != !r.OK
}

// compare estimates all rows, a few at a time.
func (t *truth) compare(o *options) []*result {
	results := make([]*result, len(t.rows))
	next := make(chan func())
	var wg sync.WaitGroup
	for range runtime.NumCPU() {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for f := range next {
				f()
			}
		}()
	}
	for i, r := range t.rows {
		next <- func() { results[i] = t.check(r, o) }
	}
	for _, r := range t.fit {
		next <- func() { r.check(t, o) }
	}
	close(next)
	wg.Wait()
	return results
}

func (t *truth) check(r *row, o *options) (res *result) {
	res = &result{row: r}
	defer func() {
		if p := recover(); p != nil {
			buf := make([]byte, 4096)
			res.err = fmt.Errorf("PANIC %v\n%s", p, buf[:runtime.Stack(buf, false)])
		}
	}()
	m, err := t.model(r.GGUF)
	if err != nil {
		res.err = err
		return res
	}
	r.Arch = m.Arch // a row that was refused early does not say it
	if a := arch.Lookup(r.Arch); (a == nil || a.Build == nil) && !o.bound {
		res.noRow = true
		return res
	}
	eo, err := r.options(t)
	if err != nil {
		res.err = err
		return res
	}
	eo.Explain = o.peak
	res.b, res.err = o.estimate(m, eo)
	if res.err != nil || !r.OK {
		return res
	}
	got := map[string][3]uint64{}
	for _, list := range [][]estimate.Memory{res.b.Devices, res.b.Host} {
		for i := range list {
			got[list[i].Name] = [3]uint64{list[i].Model, list[i].Context, list[i].Compute}
		}
	}
	names := map[string]bool{}
	for n := range got {
		names[n] = true
	}
	for n := range r.Devices {
		names[n] = true
	}
	for _, n := range sorted(names) {
		want := [3]uint64{r.Devices[n].Model, r.Devices[n].Context, r.Devices[n].Compute}
		for p := range 3 {
			if w, g := want[p], got[n][p]; w != g {
				res.diffs = append(res.diffs, diff{n, p, w, g})
				v := &res.parts[p]
				v.wrong = true
				pct := 100 * (float64(g) - float64(w)) / float64(max(w, 1))
				v.over, v.under = max(v.over, pct), min(v.under, pct)
				v.below = v.below || g < w
			}
		}
	}
	return res
}

func (o *options) estimate(m *model.Model, eo estimate.Options) (*estimate.Breakdown, error) {
	if o.bound {
		return estimate.UpperBound(m, eo)
	}
	return estimate.Run(m, eo)
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func (r *result) print(out io.Writer, peak bool) {
	mark := "ok   "
	if r.wrong() {
		mark = "WRONG"
	}
	if r.noRow {
		mark = "no builder"
	}
	fmt.Fprintf(out, "%s %s %s (%s) %s\n", mark, r.id, r.GGUF, r.Arch, r.Settings.String())
	var refused *estimate.RefusedError
	var budget *sched.BudgetError
	var shape *graph.ShapeError
	switch {
	case r.err != nil && (errors.As(r.err, &refused) || errors.As(r.err, &budget) || errors.As(r.err, &shape)) && !r.OK:
		fmt.Fprintf(out, "    refused: %v\n    measured: %s\n", r.err, r.Error)
	case r.err != nil:
		fmt.Fprintf(out, "    error: %v\n", r.err)
	case !r.OK && !r.noRow:
		fmt.Fprintf(out, "    measured: %s\n", r.Error)
	}
	for _, d := range r.diffs {
		fmt.Fprintf(out, "    %-10s %-8s want %13d got %13d  %+d (%+.2f%%)\n", d.buffer, partNames[d.part], d.want, d.got,
			int64(d.got)-int64(d.want), 100*(float64(d.got)-float64(d.want))/float64(max(d.want, 1)))
	}
	if r.b == nil {
		return
	}
	s := &r.b.Settings
	fmt.Fprintf(out, "    nodes %d splits %d n_ctx %d fa %v pipeline %v | measured: %s, n_ctx %d, fa %s, pipeline %v\n",
		s.Nodes, s.Splits, s.NCtx, s.FlashAttn, s.Pipeline, r.Graph, r.NCtx, r.FAAuto, r.Pipeline)
	if !peak {
		return
	}
	for _, list := range [][]estimate.Memory{r.b.Devices, r.b.Host} {
		for i := range list {
			if len(list[i].Peak) > 0 {
				fmt.Fprintf(out, "    %s at its peak:\n", list[i].Name)
			}
			for _, b := range list[i].Peak {
				fmt.Fprintf(out, "      %12d %12d %s-%d %v\n", b.Offset, b.Bytes, b.Name, b.Layer, b.Op)
			}
		}
	}
}
