package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"weigh/cmd/weigh/internal/render"
	"weigh/estimate"
	"weigh/formats"
	"weigh/formats/gguf"
	"weigh/inspect"
	"weigh/inspect/check"
)

// checkFlags say how far to look.
type checkFlags struct {
	data, sha256, strict, json bool
	write, against             string
}

// newCheckCmd returns the sub-command that looks for every fault of a model.
func newCheckCmd() *cobra.Command {
	var o checkFlags
	cmd := &cobra.Command{
		Use:   "check MODEL",
		Short: "Is the file whole and well-formed? Every fault with its byte offset",
		Long: `Check lists every fault of a model's files: structure, bounds, shards that are
missing or do not belong together, truncated downloads. What llama.cpp would
refuse to load, metadata and tensors that contradict each other, and chat
templates that reach further than a template should, are warnings.

Of the JSON document "valid" says whether the files are as their format wants
them, "loadable" whether llama.cpp v0.5.0 would load them: true, false, or null
where that is not known, as of files that are not valid, that hold no language
model, or a draft's, which runs with another model only.

Exit codes: 0 valid, 1 not valid (with --strict: or "loadable" is false), 2 could
not be read.`,
		Example: `  weigh check model.gguf
  weigh check model.gguf --data --sha256
  weigh check model.gguf --write-manifest model.sha256.json
  weigh check model.gguf --manifest model.sha256.json`,
		Args: models(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runCheck(cmd, args[0], &o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.data, "data", false, "read the weights: NaN, infinities, invalid block scales, tensors of zeros")
	f.BoolVar(&o.sha256, "sha256", false, "hash the files")
	f.StringVar(&o.write, "write-manifest", "", "write the hash of every file and tensor to `FILE`")
	f.StringVar(&o.against, "manifest", "", "compare with the hashes of `FILE`")
	f.BoolVar(&o.strict, "strict", false, "exit with 1 when llama.cpp would refuse to load the model, too")
	f.BoolVar(&o.json, "json", false, "write one JSON document")
	return cmd
}

// The documents of `weigh check --json`.
type (
	checkDocument struct {
		Schema    int                `json:"schema"`
		Path      string             `json:"path"`
		Format    string             `json:"format"`
		Valid     bool               `json:"valid"`
		Loadable  *bool              `json:"loadable"`
		Problems  []problemDocument  `json:"problems"`
		Templates []templateDocument `json:"templates,omitempty"`
		Files     []check.FileHash   `json:"files,omitempty"`
	}
	problemDocument struct {
		formats.Problem
		File string `json:"file,omitempty"`
	}
	templateDocument struct {
		Name      string   `json:"name"`
		Bytes     int      `json:"bytes"`
		Variables []string `json:"variables"`
		Filters   []string `json:"filters"`
		Calls     []string `json:"calls"`
	}
)

func (d *checkDocument) add(problems []check.Problem) {
	for _, p := range problems {
		d.Problems = append(d.Problems, problemDocument{p.Problem, p.File})
		if p.Severity == formats.SeverityError {
			d.Valid = false
		}
	}
}

func runCheck(cmd *cobra.Command, path string, o *checkFlags) error {
	target, err := targetPath(path)
	if err != nil {
		return err
	}
	var want *check.Manifest
	if o.against != "" {
		if want, err = check.ReadManifest(o.against); err != nil {
			return err
		}
	}
	if err := mayWrite(o.write); err != nil {
		return err
	}
	format, problems, ins, err := check.Structure(target)
	if err != nil {
		return err
	}
	d := &checkDocument{Schema: 1, Path: path, Format: format, Valid: true, Problems: []problemDocument{}}
	d.add(problems)
	if ins == nil {
		ins, err = inspect.Open(target)
	}
	switch {
	case err == nil:
		defer ins.Close()
		err = d.look(cmd, ins, o, want)
	case d.Valid: // nothing may pass for valid that cannot be opened
		var fault *formats.Error
		if !errors.As(err, &fault) {
			return err
		}
		d.add([]check.Problem{{Problem: formats.Problem{Severity: formats.SeverityError, Code: "malformed", Message: fault.Err.Error(), Field: fault.Field, Offset: fault.Offset}}})
		err = nil
	default:
		if o.data || o.sha256 || o.write != "" || o.against != "" {
			fmt.Fprintln(cmd.ErrOrStderr(), "weigh: hint: the weights are not read: the faults of the structure come first")
		}
		err = nil
	}
	if err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	if o.json {
		err = writeJSON(w, d)
	} else {
		printCheck(w, render.StyleOf(w), d)
	}
	if err == nil && (!d.Valid || o.strict && d.Loadable != nil && !*d.Loadable) {
		return errNo
	}
	return err
}

// targetPath returns the path that a word on the command line names: itself,
// or where a local store has the model.
func targetPath(name string) (string, error) {
	if _, err := os.Stat(name); err == nil || !strings.Contains(name, ":") {
		return name, nil
	}
	ins, err := openTarget(name)
	if err != nil {
		return "", err
	}
	defer ins.Close()
	if ins.Format == inspect.GGUF {
		return ins.Files[0].Path, nil
	}
	return ins.Path, nil
}

// hasWeights reports whether a model is more than its description.
func hasWeights(ins *inspect.Inspection) bool { return ins.GGUF != nil || ins.HF.StoredTensors > 0 }

// look goes beyond the structure of an opened model; want is the manifest to
// compare with, nil for none.
func (d *checkDocument) look(cmd *cobra.Command, ins *inspect.Inspection, o *checkFlags, want *check.Manifest) error {
	var load error
	draft := false
	if ins.Model != nil && hasWeights(ins) {
		_, load = estimate.Run(ins.Model, estimate.Options{NCtx: 512})
		if load != nil {
			if _, err := estimate.Run(ins.Model, estimate.Options{NCtx: 512, FlashAttn: estimate.FlashAttnOff}); err == nil {
				d.add([]check.Problem{{Problem: formats.Problem{Severity: formats.SeverityWarning, Code: "needs-fa-off", Field: "tensors", Offset: -1, Message: "runs with -fa off only: " + load.Error()}}})
				load = nil
			}
		}
		if draft = load != nil && strings.Contains(load.Error(), "this is a draft"); draft {
			load = nil
		}
	}
	found, refused := check.Model(ins, load)
	d.add(found)
	if refused || !draft && hasWeights(ins) && ins.Model != nil {
		loadable := !refused
		d.Loadable = &loadable
	}
	for _, t := range templatesOf(ins) {
		d.Templates = append(d.Templates, templateDocument{t.Name, t.Bytes, t.Variables, t.Filters, t.Calls})
		for _, p := range t.Problems {
			d.add([]check.Problem{{Problem: p}})
		}
	}
	ctx := cmd.Context()
	progress := cmd.ErrOrStderr()
	if o.data {
		err := watched(progress, "reading", ins.TensorBytes(), func(read *atomic.Uint64) error {
			problems, err := check.Data(ctx, ins, read)
			d.add(problems)
			return err
		})
		if err != nil {
			return err
		}
	}
	manifest := &check.Manifest{Schema: 1}
	if o.sha256 || o.write != "" || want != nil {
		err := watched(progress, "hashing files", ins.FileBytes(), func(read *atomic.Uint64) (err error) {
			manifest.Files, err = check.Hash(ctx, ins, read)
			return err
		})
		if err != nil {
			return err
		}
		d.Files = manifest.Files
	}
	if o.write == "" && want == nil {
		return nil
	}
	err := watched(progress, "hashing tensors", ins.TensorBytes(), func(read *atomic.Uint64) (err error) {
		manifest.Tensors, err = check.HashTensors(ctx, ins, read)
		return err
	})
	if err != nil {
		return err
	}
	if want != nil {
		d.add(want.Compare(manifest))
	}
	if o.write != "" {
		return writeManifest(o.write, manifest)
	}
	return nil
}

// mayWrite refuses a place for a manifest before the time for it is spent: where
// no file can be, and where there is one that is no manifest, a model's for one.
func mayWrite(path string) error {
	if path == "" {
		return nil
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		_, err = os.Stat(filepath.Dir(path))
	case err == nil && info.IsDir():
		err = fmt.Errorf("%s: a folder, want a file's name", path)
	case err == nil && info.Mode().IsRegular() && info.Size() > 0:
		if _, other := check.ReadManifest(path); other != nil {
			err = fmt.Errorf("%s: is there already and is no manifest: it is not overwritten", path)
		}
	}
	if err != nil {
		return fmt.Errorf("--write-manifest: %w", err)
	}
	return nil
}

// writeManifest writes a manifest whole, or removes what it has written.
func writeManifest(path string, m *check.Manifest) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = errors.Join(json.NewEncoder(f).Encode(m), f.Close())
	if info, statErr := os.Lstat(path); err != nil && statErr == nil && info.Mode().IsRegular() {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// templatesOf reads the chat templates of a model.
func templatesOf(ins *inspect.Inspection) (list []*check.Template) {
	left := check.MaxTemplates // of all together: each is named for its own purpose, and none is long
	add := func(name string, bytes uint64, text func() string) *check.Template {
		const entry = 1 << 10 // bounds how many
		t := check.UnreadTemplate(name, int(bytes))
		if bytes+entry <= uint64(max(left, 0)) {
			t = check.ReadTemplate(name, text())
			left -= int(bytes) + entry
		} else if left < 0 {
			return &check.Template{} // one is listed as unread already
		} else {
			left = -1
		}
		list = append(list, t)
		return t
	}
	if ins.GGUF != nil {
		const key = "tokenizer.chat_template"
		f := ins.GGUF.Files[0]
		for i := range f.KVs {
			kv := &f.KVs[i]
			rest, is := strings.CutPrefix(kv.Key, key)
			if !is || kv.Type != gguf.String || rest != "" && rest[0] != '.' {
				continue
			}
			name := "default"
			if rest != "" {
				name = rest[1:]
			}
			t := add(name, kv.Bytes, func() string {
				text, _ := f.Lookup(kv.Key)
				s, _ := text.(string)
				return s
			})
			for i := range t.Problems {
				t.Problems[i].Offset += kv.ValueOffset
			}
		}
		return list
	}
	dir := ins.Path
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		dir = filepath.Dir(dir)
	}
	paths := []string{filepath.Join(dir, "chat_template.jinja")}
	further := filepath.Join(dir, "additional_chat_templates")
	entries, _ := os.ReadDir(further)
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".jinja" {
			paths = append(paths, filepath.Join(further, e.Name()))
		}
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Size() > check.MaxTemplates {
			add(filepath.Base(path), uint64(info.Size()), nil)
			continue
		}
		text, err := readSmall(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		t := add(filepath.Base(path), uint64(len(text)), func() string { return string(text) })
		if err != nil {
			t.Problems = unread(t.Name, err)
		}
	}
	text, err := readSmall(filepath.Join(dir, "tokenizer_config.json"))
	var config struct {
		Template json.RawMessage `json:"chat_template"`
	}
	if err == nil {
		err = json.Unmarshal(text, &config)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			t := add("tokenizer_config.json", 0, func() string { return "" })
			t.Problems = unread(t.Name, err)
		}
		return list
	}
	var one string
	var several []struct{ Name, Template string }
	switch n := len(config.Template); {
	case n > check.MaxTemplates:
		add("default", uint64(n), nil)
	case json.Unmarshal(config.Template, &one) == nil && one != "":
		add("default", uint64(len(one)), func() string { return one })
	case json.Unmarshal(config.Template, &several) == nil:
		for _, t := range several {
			add(t.Name, uint64(len(t.Template)), func() string { return t.Template })
		}
	}
	return list
}

// unread is the problem of a template that could not be read.
func unread(name string, err error) []formats.Problem {
	return []formats.Problem{{Severity: formats.SeverityWarning, Code: "template-unread", Field: "chat template " + name, Offset: -1, Message: err.Error()}}
}

// maxSmall is the largest side file that is read whole.
const maxSmall = 8 << 20

// readSmall reads a regular file of at most maxSmall bytes.
func readSmall(path string) ([]byte, error) {
	f, size, err := formats.Open(path)
	switch {
	case err != nil:
		return nil, err
	case size > maxSmall:
		f.Close()
		return nil, fmt.Errorf("%s: %d bytes are over the limit of %d", path, size, maxSmall)
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSmall))
}

// watched runs f and shows on a terminal how far it has come.
func watched(w io.Writer, what string, total uint64, f func(read *atomic.Uint64) error) error {
	var read atomic.Uint64
	style := render.StyleOf(w)
	if !style.Bars {
		return f(&read)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				fmt.Fprint(w, "\r\x1b[K")
				return
			case <-tick.C:
				n := read.Load()
				fmt.Fprintf(w, "\r\x1b[K%s %s %s of %s", what, style.Bar(n, total, 30), render.Bytes(n), render.Bytes(total))
			}
		}
	}()
	err := f(&read)
	stop()
	<-done
	return err
}

// printCheck writes the verdict and the problems.
func printCheck(w io.Writer, style render.Style, d *checkDocument) {
	verdict := style.Green("valid")
	if !d.Valid {
		verdict = style.Red("not valid")
	}
	if d.Loadable != nil && !*d.Loadable {
		verdict += ", and llama.cpp would refuse to load it"
	}
	fmt.Fprintf(w, "%s: %s: %s\n", render.Text(d.Path), d.Format, verdict)
	for _, p := range d.Problems {
		word := style.Yellow(p.Severity)
		if p.Severity == formats.SeverityError {
			word = style.Red(p.Severity)
		}
		where := ""
		if p.Offset >= 0 {
			where = fmt.Sprintf(" at byte %d", p.Offset)
		}
		file := ""
		if p.File != "" && p.File != d.Path {
			file = render.Text(filepath.Base(p.File)) + ": "
		}
		fmt.Fprintf(w, "  %s: %s%s%s: %s (%s)\n", word, file, render.Text(p.Field), where, render.Text(p.Message), p.Code)
	}
	for _, t := range d.Templates {
		fmt.Fprintf(w, "  chat template %s: %d bytes, takes %s; filters %s; calls %s\n", render.Text(t.Name), t.Bytes, listed(t.Variables), listed(t.Filters), listed(t.Calls))
	}
	for _, f := range d.Files {
		fmt.Fprintf(w, "%s  %s\n", f.SHA256, render.Text(f.Name))
	}
}

// listed joins names for one line.
func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	const most = 12
	more := ""
	if len(names) > most {
		more = fmt.Sprintf(" and %d more", len(names)-most)
	}
	return render.Text(strings.Join(slices.Clip(names[:min(len(names), most)]), ", ")) + more
}
