package main

import (
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
)

// A tally counts rows.
type tally struct {
	name          string
	rows, refused int // measured; of these, refused by llama.cpp and by us
	failed        int // an error or a figure where the other has none
	skipped       int // no builder
	exact, below  [3]int
	over          [3]float64
	worst         [3]string // row of over
}

func (t *tally) add(r *result) {
	if r.noRow {
		t.skipped++
		return
	}
	t.rows++
	switch {
	case r.err != nil && !r.OK:
		t.refused++
		return
	case r.err != nil || !r.OK:
		t.failed++
		return
	}
	for p, v := range r.parts {
		if !v.wrong {
			t.exact[p]++
		}
		if v.below {
			t.below[p]++
		}
		if v.over > t.over[p] {
			t.over[p], t.worst[p] = v.over, r.id
		}
	}
}

// figures is the number of rows with figures on both sides.
func (t *tally) figures() int { return t.rows - t.refused - t.failed }

func (t *tally) share(p int) float64 {
	if t.figures() == 0 {
		return 100
	}
	return 100 * float64(t.exact[p]) / float64(t.figures())
}

// A report is the comparison summed up.
type report struct {
	all    tally
	archs  []*tally
	below  []*result
	failed []*result

	fits, fitSame int
	fitWrong      []*fitRow
}

func (rep *report) addFit(r *fitRow) {
	if r.noRow {
		return
	}
	rep.fits++
	if r.err != nil || len(r.diffs) > 0 {
		rep.fitWrong = append(rep.fitWrong, r)
		return
	}
	rep.fitSame++
}

func summarise(results []*result) *report {
	rep := &report{all: tally{name: "all"}}
	by := map[string]*tally{}
	for _, r := range results {
		rep.all.add(r)
		t := by[r.Arch]
		if t == nil {
			t = &tally{name: r.Arch}
			by[r.Arch] = t
			rep.archs = append(rep.archs, t)
		}
		t.add(r)
		if r.noRow {
			continue
		}
		if (r.err != nil) == r.OK {
			rep.failed = append(rep.failed, r)
		}
		for _, v := range r.parts {
			if v.below {
				rep.below = append(rep.below, r)
				break
			}
		}
	}
	sort.Slice(rep.archs, func(i, j int) bool { return rep.archs[i].name < rep.archs[j].name })
	return rep
}

func (rep *report) print(out io.Writer) {
	fmt.Fprintf(out, "%-18s %5s %7s %7s %7s %6s %8s  %s\n", "architecture", "rows", "model%", "ctx%", "comp%", "below", "maxover%", "failed")
	missing := []string{}
	for _, t := range append(rep.archs, &rep.all) {
		if t.rows == 0 {
			missing = append(missing, t.name)
			continue
		}
		fmt.Fprintf(out, "%-18s %5d %7.1f %7.1f %7.1f %6d %8.2f  %d\n", t.name, t.rows, t.share(0), t.share(1), t.share(2),
			max(t.below[0], t.below[1], t.below[2]), max(t.over[0], t.over[1], t.over[2]), t.failed)
	}
	if len(missing) > 0 {
		fmt.Fprintf(out, "no builder: %d rows of %d architectures: %s\n", rep.all.skipped, len(missing), strings.Join(missing, " "))
	}
	if rep.fits > 0 {
		fmt.Fprintf(out, "fit: %d of %d rows the same (%.1f%%)\n", rep.fitSame, rep.fits, 100*float64(rep.fitSame)/float64(rep.fits))
	}
	for i, r := range rep.failed {
		if i == 12 {
			fmt.Fprintf(out, "… %d more\n", len(rep.failed)-i)
			break
		}
		msg := fmt.Sprint(r.err)
		if r.err == nil {
			msg = "no error, measured: " + r.Error
		}
		fmt.Fprintf(out, "failed %s %s: %s\n", r.id, r.GGUF, msg)
	}
}

// write writes the report for people.
func (rep *report) write(path string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Accuracy\n\nWritten by `make accuracy`. Each row is a model with settings, measured with llama.cpp v0.5.0 without allocation\n"+
		"on devices with CUDA's rules, and estimated from the header alone. A part of a row is exact when every buffer (each device,\n"+
		"each kind of host memory) is equal to the byte.\n\n")
	a := &rep.all
	fmt.Fprintf(&b, "%d rows; %d refused by both; %d where one refuses and the other does not.\n\n", a.rows, a.refused, a.failed)
	b.WriteString("| part | exact | rows below | most above |\n|---|---|---|---|\n")
	for p, n := range partNames {
		fmt.Fprintf(&b, "| %s | %.2f%% | %d | %.2f%% (%s) |\n", n, a.share(p), a.below[p], a.over[p], orNone(a.worst[p]))
	}
	b.WriteString("\n## By architecture\n\n| architecture | rows | model exact | context exact | compute exact | below | most above |\n|---|---|---|---|---|---|---|\n")
	for _, t := range rep.archs {
		if t.rows == 0 {
			continue
		}
		p := 0
		for i := range 3 {
			if t.over[i] > t.over[p] {
				p = i
			}
		}
		fmt.Fprintf(&b, "| %s | %d | %.1f%% | %.1f%% | %.1f%% | %d | %.2f%% (%s) |\n", t.name, t.rows, t.share(0), t.share(1), t.share(2),
			max(t.below[0], t.below[1], t.below[2]), t.over[p], orNone(t.worst[p]))
	}
	fmt.Fprintf(&b, "\n## What --fit chooses\n\n%d of %d rows are the same in context, layers, split, overrides and bytes.\n", rep.fitSame, rep.fits)
	for _, r := range rep.fitWrong {
		fmt.Fprintf(&b, "\n- %s %s on %v MiB: %.300s", r.id, r.GGUF, r.GPUMiB, strings.Join(r.diffs, "; "))
		if r.err != nil {
			fmt.Fprintf(&b, " %v", r.err)
		}
	}
	if len(rep.below) > 0 {
		b.WriteString("\n## Rows below\n\n")
		for _, r := range rep.below {
			fmt.Fprintf(&b, "- %s %s, %s:", r.id, r.GGUF, r.Settings.String())
			for _, d := range r.diffs {
				if d.got < d.want {
					fmt.Fprintf(&b, " %s %s %d of %d;", d.buffer, partNames[d.part], d.got, d.want)
				}
			}
			b.WriteString("\n")
		}
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
