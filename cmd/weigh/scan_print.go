package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"weigh/cmd/weigh/internal/render"
	"weigh/inspect/store"
)

// printScan writes the table of models and, below it, what is wrong, what is
// there twice and the sum.
func printScan(w io.Writer, style render.Style, stores []store.Store, s *scan, rows []*scanned) error {
	if len(s.rows) == 0 {
		printNothing(w, stores)
	}
	var bytes uint64
	cells := [][]string{{"name", "architecture", "weights", "size", "type", "files", "with", "tok/s", "here"}}
	for _, r := range rows {
		if !r.sameFile {
			bytes += uint64(max(r.Bytes, 0))
		}
		cells = append(cells, []string{
			render.Text(cmp.Or(r.Ref, r.Kind+": "+r.Name)), render.Text(r.architecture()), countOf(r), sizeOf(r), render.Text(r.quant()),
			filesOf(r), withOf(r), tpsOf(r), r.verdictWord(style),
		})
	}
	if len(rows) > 0 {
		cells, right := narrow(cells, style.Width, []int{5, 6, 2, 1, 7, 4}, 2, 3, 5, 7)
		render.Columns(w, cells, right...)
		fmt.Fprintln(w)
	}
	for _, r := range rows {
		if r.reason != nil {
			render.Prose(w, 2, fmt.Sprintf("%s %s: %s", style.Yellow(map[string]string{stateBroken: "broken:", statePartial: "incomplete:"}[r.state]), render.Text(r.Name), render.Text(reasonOf(r))))
		} else if r.unweighed != nil {
			render.Prose(w, 2, fmt.Sprintf("%s %s: %s", style.Yellow("not weighed:"), render.Text(r.Name), render.Text(r.unweighed.Error())))
		}
	}
	for _, err := range s.errs {
		render.Prose(w, 2, style.Yellow("not read:")+" "+render.Text(err.Error()))
	}
	printDuplicates(w, style, s.duplicates, rows)
	if len(rows) > 0 {
		fmt.Fprintf(w, "%s, %s", plural(len(rows), "model"), render.Bytes(bytes))
		if n := len(s.rows) - len(rows); n > 0 {
			fmt.Fprintf(w, "; %d more are not asked for", n)
		}
		fmt.Fprintln(w)
	}
	return nil
}

// printNothing says where there are no models.
func printNothing(w io.Writer, stores []store.Store) {
	if len(stores) == 0 {
		fmt.Fprintln(w, "no store of LM Studio, Ollama, Hugging Face, llama.cpp, text-generation-webui, GPT4All or Jan is here; name a folder: weigh scan DIR")
		return
	}
	var dirs []string
	for _, s := range stores {
		dirs = append(dirs, render.Text(s.Dir))
	}
	fmt.Fprintln(w, "no models in "+strings.Join(dirs, ", "))
}

func printDuplicates(w io.Writer, style render.Style, all []duplicate, rows []*scanned) {
	asked := map[*scanned]bool{}
	for _, r := range rows {
		asked[r] = true
	}
	var wasted uint64
	for _, d := range all {
		if d.wasted == 0 || !asked[d.rows[0]] {
			continue
		}
		wasted += d.wasted
		line := fmt.Sprintf("%s %s more than once (%s):", style.Yellow("copies:"), render.Bytes(d.wasted), d.basis)
		for i, r := range d.rows {
			line += strings.Repeat(",", min(i, 1)) + " " + render.Text(cmp.Or(r.Ref, r.Path))
		}
		render.Prose(w, 2, line)
	}
	if wasted > 0 {
		fmt.Fprintf(w, "%s could be freed\n", render.Bytes(wasted))
	}
}

// verdictWord says how a row fits, or what is wrong with it.
func (r *scanned) verdictWord(style render.Style) string {
	switch {
	case r.state == stateBroken:
		return style.Red("broken")
	case r.state == statePartial:
		return style.Yellow("incomplete")
	case r.verdict == fitsWhole:
		return style.Green(fitsWhole)
	case r.verdict == fitsPartial:
		return style.Yellow(fitsPartial)
	case r.verdict == fitsNot:
		return style.Red(fitsNot)
	case r.kind != "model":
		return style.Dim(r.kind)
	case r.unweighed != nil:
		return style.Dim("not weighed")
	}
	return ""
}

// reasonOf is a row's reason without the path that the row says already.
func reasonOf(r *scanned) string {
	text := r.reason.Error()
	for _, p := range []string{r.Name, r.Path} {
		if p != "" {
			text = strings.TrimPrefix(text, p+": ")
		}
	}
	if len(r.Files) > 0 {
		text = strings.ReplaceAll(text, filepath.Dir(r.Files[0])+string(os.PathSeparator), "")
	}
	return text
}

func countOf(r *scanned) string {
	if n := r.parameters(); n > 0 {
		return humanCount(n)
	}
	return ""
}

func sizeOf(r *scanned) string {
	if r.Bytes <= 0 {
		return ""
	}
	return render.Bytes(uint64(r.Bytes))
}

func filesOf(r *scanned) string {
	if len(r.Files) < 2 {
		return ""
	}
	return strconv.Itoa(len(r.Files))
}

// withOf names what goes with a model.
func withOf(r *scanned) string {
	var with []string
	if r.Projector != "" {
		with = append(with, "projector")
	}
	if n := len(r.Adapters); n > 0 {
		with = append(with, plural(n, "adapter"))
	}
	return strings.Join(with, ", ")
}

// tpsOf writes generated tokens per second with as many digits as mean
// something.
func tpsOf(r *scanned) string {
	if r.verdict == fitsNot || r.tps() == 0 {
		return ""
	}
	if r.tps() < 10 {
		return strconv.FormatFloat(r.tps(), 'f', 1, 64)
	}
	return strconv.FormatFloat(r.tps(), 'f', 0, 64)
}

// narrow leaves columns out so that rows fit width columns (0: they do): first
// those that say nothing, then, until there is room for the names in the first
// column, those of drop. right are the columns set to the right.
func narrow(rows [][]string, width int, drop []int, right ...int) (_ [][]string, _ []int) {
	if width == 0 {
		return rows, right
	}
	leastName := width * 2 / 5
	widest := make([]int, len(rows[0]))
	for n, row := range rows {
		for i, cell := range row {
			if text := render.Width(cell); text > 0 && (n > 0 || i == 0) {
				widest[i] = max(widest[i], text, render.Width(rows[0][i]))
			}
		}
	}
	room := func() int { // for the names
		n := width
		for _, w := range widest[1:] {
			if w > 0 {
				n -= w + 2
			}
		}
		return n
	}
	for _, i := range drop {
		if room() < min(widest[0], leastName) {
			widest[i] = 0
		}
	}
	out := make([][]string, len(rows))
	var kept []int // the columns that are set to the right, by their new place
	for n, row := range rows {
		out[n] = []string{tail(row[0], room())}
		for i, cell := range row {
			if i == 0 || widest[i] == 0 {
				continue
			}
			if n == 0 && slices.Contains(right, i) {
				kept = append(kept, len(out[n]))
			}
			out[n] = append(out[n], cell)
		}
	}
	return out, kept
}

// tail shortens a name to width columns. What it begins with, up to the store's
// colon, says where it is; its end tells it from others.
func tail(name string, width int) string {
	over := render.Width(name) - width
	if over <= 0 {
		return name
	}
	store, rest, ok := strings.Cut(name, ":")
	if !ok || len(store) > 12 {
		store, rest = "", name
	} else {
		store += ":"
	}
	r := []rune(rest)
	for len(r) > 1 && render.Width(store+string(r)) >= width {
		r = r[1:]
	}
	return store + "…" + string(r)
}

// The documents of `weigh scan --json`.
type (
	scanDocument struct {
		Schema     int                 `json:"schema"`
		Stores     []storeDocument     `json:"stores"`
		Models     []scannedDocument   `json:"models"`
		Duplicates []duplicateDocument `json:"duplicates"`
		Notes      []string            `json:"notes"`
	}
	storeDocument struct {
		Kind string `json:"kind"`
		Path string `json:"path"`
	}
	scannedDocument struct {
		Name          string         `json:"name"`
		Ref           *string        `json:"ref"` // what commands take for MODEL
		Store         string         `json:"store"`
		Path          *string        `json:"path"`
		Files         []string       `json:"files"`
		State         string         `json:"state"` // ok, partial or broken
		Reason        string         `json:"reason,omitempty"`
		Kind          *string        `json:"kind"`
		Format        *string        `json:"format"`
		Architecture  *string        `json:"architecture"`
		Title         *string        `json:"title"` // what the file calls itself
		Parameters    *uint64        `json:"parameters"`
		FileBytes     int64          `json:"file_bytes"`
		Quantization  *string        `json:"quantization"`
		BitsPerWeight *float64       `json:"bits_per_weight"`
		NCtxTrain     *int           `json:"n_ctx_train"`
		Projector     *string        `json:"projector"`
		Adapters      []string       `json:"adapters"`
		Template      *string        `json:"template"`
		Verdict       *string        `json:"verdict"` // fits, partial or no
		NCtx          *int           `json:"n_ctx"`   // that the verdict is for
		NGPULayers    *int           `json:"n_gpu_layers"`
		TPS           *speedDocument `json:"tokens_per_second"`
		Duplicate     *int           `json:"duplicate"` // index into duplicates
	}
	duplicateDocument struct {
		Bytes  int64    `json:"bytes"` // of one copy
		Wasted uint64   `json:"wasted"`
		Basis  string   `json:"basis"`
		Paths  []string `json:"paths"`
	}
)

func newScanDocument(stores []store.Store, s *scan, rows []*scanned) *scanDocument {
	d := &scanDocument{Schema: 1, Stores: []storeDocument{}, Models: []scannedDocument{}, Duplicates: []duplicateDocument{}, Notes: []string{}}
	for _, st := range stores {
		d.Stores = append(d.Stores, storeDocument{st.Kind, st.Dir})
	}
	for _, r := range rows {
		d.Models = append(d.Models, newScannedDocument(r))
	}
	for _, c := range s.duplicates {
		doc := duplicateDocument{Bytes: c.rows[0].Bytes, Wasted: c.wasted, Basis: c.basis}
		for _, r := range c.rows {
			doc.Paths = append(doc.Paths, r.Path)
		}
		d.Duplicates = append(d.Duplicates, doc)
	}
	for _, err := range s.errs {
		d.Notes = append(d.Notes, err.Error())
	}
	return d
}

func newScannedDocument(r *scanned) scannedDocument {
	d := scannedDocument{
		Name: r.Name, Ref: known(r.Ref), Store: r.Kind, Path: known(r.Path), Files: append([]string{}, r.Files...), State: r.state, FileBytes: r.Bytes,
		Kind: known(r.kind), Projector: known(r.Projector), Adapters: append([]string{}, r.Adapters...), Template: known(r.Template), Verdict: known(r.verdict),
	}
	if err := cmp.Or(r.reason, r.unweighed); err != nil {
		d.Reason = err.Error()
	}
	if s := r.sum; s != nil {
		d.Format, d.Architecture, d.Title, d.Parameters, d.Quantization = known(s.Format), known(s.Architecture), known(s.Name), s.Parameters, known(s.Quantization.Label)
		d.BitsPerWeight, d.NCtxTrain = s.Quantization.BitsPerWeight, s.NCtxTrain
	}
	if r.verdict != "" {
		d.NCtx, d.NGPULayers = &r.nCtx, &r.layers
	}
	if r.speed != nil && r.verdict != fitsNot {
		doc := newSpeedDocument(r.speed)
		doc.Terms = nil
		d.TPS = &doc
	}
	if r.group > 0 {
		i := r.group - 1
		d.Duplicate = &i
	}
	return d
}
