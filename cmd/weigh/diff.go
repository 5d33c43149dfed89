package main

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"

	"weigh/cmd/weigh/internal/render"
	"weigh/formats/gguf"
	"weigh/inspect"
	"weigh/inspect/check"
)

// newDiffCmd returns the sub-command that says what differs between two models.
func newDiffCmd() *cobra.Command {
	var data, asJSON, brief bool
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "What differs: metadata, tensors, types, shapes",
		Long: `Diff compares two models: metadata, tensors, their types and shapes, and with
--data their contents by hash. Models of different formats are compared by the
names and shapes that the tensors have in a GGUF; their contents are not, for
converting changes them.

Exit codes: 0 the same, 1 they differ, 2 could not be compared.`,
		Example: `  weigh diff a.gguf b.gguf
  weigh diff model-folder model-BF16.gguf
  weigh diff a.gguf b.gguf --data --quiet`,
		Args: models(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := diffModels(cmd, args[0], args[1], data)
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			switch {
			case asJSON:
				err = writeJSON(w, d)
			case !brief:
				printDiff(w, render.StyleOf(w), d)
			}
			if err == nil && !d.Same {
				return errNo
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&data, "data", false, "compare the weights by hash")
	f.BoolVar(&brief, "quiet", false, "write nothing: the exit code answers")
	f.BoolVar(&asJSON, "json", false, "write one JSON document")
	return cmd
}

// The documents of `weigh diff --json`.
type (
	diffDocument struct {
		Schema   int              `json:"schema"`
		A        string           `json:"a"`
		B        string           `json:"b"`
		Same     bool             `json:"same"`
		ByName   string           `json:"compared_by"` // "stored names" or "logical names"
		Metadata []metadataChange `json:"metadata"`
		Tensors  []tensorChange   `json:"tensors"`

		shown uint64 // bytes of text in Metadata
	}
	metadataChange struct {
		Key string `json:"key"`
		A   any    `json:"a"` // null: only in B
		B   any    `json:"b"`
	}
	tensorChange struct {
		Name string      `json:"name"`
		A    *diffTensor `json:"a"`
		B    *diffTensor `json:"b"`
		What []string    `json:"differs"` // "only in a", "only in b", "type", "shape", "data"
	}
	diffTensor struct {
		Type   string   `json:"type"`
		Shape  []uint64 `json:"shape"`
		Bytes  uint64   `json:"bytes"`
		SHA256 string   `json:"sha256,omitempty"`
	}
)

func diffModels(cmd *cobra.Command, a, b string, data bool) (*diffDocument, error) {
	d := &diffDocument{Schema: 1, A: a, B: b, ByName: "stored names", Metadata: []metadataChange{}, Tensors: []tensorChange{}}
	insA, err := openTarget(a)
	if err != nil {
		return nil, err
	}
	defer insA.Close()
	insB, err := openTarget(b)
	if err != nil {
		return nil, err
	}
	defer insB.Close()
	across := insA.Format != insB.Format
	if across {
		d.ByName = "logical names"
		if data {
			return nil, errors.New("--data: the weights of different formats cannot be the same bytes; convert one of the models first")
		}
		for _, ins := range []*inspect.Inspection{insA, insB} {
			if ins.Model == nil {
				return nil, fmt.Errorf("%s: it has no names in common with another format: %w", ins.Path, ins.Reason)
			}
		}
	}
	d.compareMetadata(insA, insB, across)
	ta, err := diffTensors(cmd, insA, across, data)
	if err != nil {
		return nil, err
	}
	tb, err := diffTensors(cmd, insB, across, data)
	if err != nil {
		return nil, err
	}
	for _, name := range bothKeys(ta, tb) {
		x, y := ta[name], tb[name]
		var what []string
		switch {
		case x == nil:
			what = []string{"only in b"}
		case y == nil:
			what = []string{"only in a"}
		default:
			if x.Type != y.Type {
				what = append(what, "type")
			}
			if !slices.Equal(x.Shape, y.Shape) {
				what = append(what, "shape")
			}
			if x.SHA256 != y.SHA256 {
				what = append(what, "data")
			}
		}
		if what != nil {
			d.Tensors = append(d.Tensors, tensorChange{name, x, y, what})
		}
	}
	d.Same = len(d.Metadata) == 0 && len(d.Tensors) == 0
	return d, nil
}

// bothKeys returns the keys of two maps, sorted.
func bothKeys[T any](a, b map[string]T) (keys []string) {
	for k := range a {
		keys = append(keys, k)
	}
	for k := range b {
		if _, too := a[k]; !too {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

// diffTensors returns a model's tensors: as stored, or under the names that
// they have in a GGUF, without the trailing dimensions of one.
func diffTensors(cmd *cobra.Command, ins *inspect.Inspection, logical, data bool) (map[string]*diffTensor, error) {
	tensors := map[string]*diffTensor{}
	if logical {
		for i := range ins.Model.Tensors {
			t := &ins.Model.Tensors[i]
			shape := slices.Clone(t.Shape)
			for len(shape) > 1 && shape[len(shape)-1] == 1 {
				shape = shape[:len(shape)-1]
			}
			tensors[t.Name] = &diffTensor{Type: t.Type.String(), Shape: shape, Bytes: t.Bytes}
		}
		return tensors, nil
	}
	if !data {
		for _, p := range check.Pieces(ins) {
			tensors[p.Name] = &diffTensor{Type: p.Type.String(), Shape: p.Shape, Bytes: p.Bytes}
		}
		return tensors, nil
	}
	err := watched(cmd.ErrOrStderr(), "hashing", ins.TensorBytes(), func(read *atomic.Uint64) error {
		hashes, err := check.HashTensors(cmd.Context(), ins, read)
		for _, h := range hashes {
			tensors[h.Name] = &diffTensor{h.Type, h.Shape, h.Bytes, h.SHA256}
		}
		return err
	})
	return tensors, err
}

// compareMetadata compares what the files say: all of it within a format, what
// the model's shape rests on across formats.
func (d *diffDocument) compareMetadata(a, b *inspect.Inspection, across bool) {
	var x, y map[string]any
	if across {
		x, y = shapeOf(a), shapeOf(b)
	} else {
		x, y = allMetadata(a), allMetadata(b)
	}
	for _, key := range bothKeys(x, y) {
		if !sameValue(x[key], y[key]) {
			d.Metadata = append(d.Metadata, metadataChange{key, d.shownValue(x[key]), d.shownValue(y[key])})
		}
	}
}

// shapeOf returns what of a model is the same in every format.
func shapeOf(ins *inspect.Inspection) map[string]any {
	s := summarize(ins)
	m := ins.Model
	return map[string]any{
		"architecture": m.Arch, "n_layer": m.NLayerAll, "n_embd": m.NEmbd, "n_head": s.NHead, "n_head_kv": s.NHeadKV, "n_ff": s.NFF,
		"n_expert": m.NExpert, "n_expert_used": s.NExpertUsed, "n_ctx_train": m.NCtxTrain, "n_swa": m.NSWA,
	}
}

// A storedValue is a string or an array of a GGUF, read only when it is compared.
type storedValue struct {
	file *gguf.File
	kv   *gguf.KV
}

// allMetadata returns the metadata of a model.
func allMetadata(ins *inspect.Inspection) map[string]any {
	all := map[string]any{}
	for _, e := range metadataOf(ins) {
		switch {
		case e.kv == nil:
			all[e.key] = e.value
		case e.kv.Type == gguf.Array, e.kv.Type == gguf.String:
			all[e.key] = storedValue{e.file, e.kv}
		default:
			v, _ := e.file.Lookup(e.key)
			all[e.key] = jsonable(v)
		}
	}
	return all
}

// sameValue compares two values of metadata.
func sameValue(a, b any) bool {
	x, isX := a.(storedValue)
	y, isY := b.(storedValue)
	if !isX || !isY {
		return isX == isY && fmt.Sprintf("%T %v", a, a) == fmt.Sprintf("%T %v", b, b)
	}
	switch {
	case x.kv.TypeName() != y.kv.TypeName() || x.kv.Count != y.kv.Count:
		return false
	case x.kv.Bytes == y.kv.Bytes && x.file.BigEndian == y.file.BigEndian && gguf.SameBytes(x.file, x.kv, y.file, y.kv):
		return true
	case x.kv.Type == gguf.String:
		return false
	}
	p, err := x.file.Array(x.kv.Key)
	q, err2 := y.file.Array(y.kv.Key)
	if err != nil || err2 != nil {
		return false
	}
	return sameArray(p, q)
}

// sameArray compares two arrays of one type and length.
func sameArray(a, b *gguf.ArrayReader) bool {
	if a.Elem == gguf.String {
		next, stop := iter.Pull2(b.Strings())
		defer stop()
		for s, err := range a.Strings() {
			t, err2, ok := next()
			if err != nil || err2 != nil || !ok || string(s) != string(t) {
				return false
			}
		}
		return true
	}
	const step = 4096
	for i := uint64(0); i < a.Count; i += step {
		n := min(step, a.Count-i)
		if x, err := a.Ints(i, n); err == nil {
			y, err := b.Ints(i, n)
			if err != nil || !slices.Equal(x, y) {
				return false
			}
			continue
		}
		x, err := a.Floats(i, n)
		y, err2 := b.Floats(i, n)
		if err != nil || err2 != nil || !slices.EqualFunc(x, y, func(p, q float64) bool { return p == q || p != p && q != q }) {
			return false
		}
	}
	return true
}

// maxShownText is the longest text that the document holds; of a longer one it
// says the length, and of all once the texts together reach maxShownTexts.
const (
	maxShownText  = 16 << 10
	maxShownTexts = 4 << 20
)

// shownValue is a value as the document holds it.
func (d *diffDocument) shownValue(v any) any {
	s, ok := v.(storedValue)
	if !ok {
		return v
	}
	if s.kv.Type == gguf.String && s.kv.Bytes <= maxShownText && d.shown+s.kv.Bytes < maxShownTexts {
		d.shown += s.kv.Bytes
		text, _ := s.file.Lookup(s.kv.Key)
		return text
	}
	length := s.kv.Count
	if s.kv.Type == gguf.String {
		length = s.kv.Bytes
	}
	return map[string]any{"type": s.kv.TypeName(), "length": length}
}

// printDiff writes the differences.
func printDiff(w io.Writer, style render.Style, d *diffDocument) {
	if d.Same {
		fmt.Fprintln(w, style.Green("the same")+" by "+d.ByName)
		return
	}
	text := func(v any) string {
		if v == nil {
			return "(none)"
		}
		s := render.Text(fmt.Sprint(v))
		if m, ok := v.(map[string]any); ok && m["length"] != nil {
			s = fmt.Sprintf("%v of %v", m["type"], m["length"])
		}
		if r := []rune(s); len(r) > 60 {
			s = string(r[:57]) + "..."
		}
		return s
	}
	if len(d.Metadata) > 0 {
		fmt.Fprintf(w, "%s\n", style.Bold("metadata"))
		var rows [][]string
		for _, c := range d.Metadata {
			rows = append(rows, []string{"  " + render.Text(c.Key), text(c.A), "->", text(c.B)})
		}
		render.Columns(w, rows)
	}
	if len(d.Tensors) == 0 {
		return
	}
	fmt.Fprintf(w, "%s\n", style.Bold("tensors"))
	tensor := func(t *diffTensor) string {
		if t == nil {
			return "(none)"
		}
		shape := make([]string, len(t.Shape))
		for i, n := range t.Shape {
			shape[i] = strconv.FormatUint(n, 10)
		}
		return t.Type + " " + strings.Join(shape, "x")
	}
	var rows [][]string
	for _, c := range d.Tensors {
		rows = append(rows, []string{"  " + render.Text(c.Name), tensor(c.A), "->", tensor(c.B), strings.Join(c.What, ", ")})
	}
	render.Columns(w, rows)
	fmt.Fprintf(w, "%s of metadata and %s differ\n", plural(len(d.Metadata), "key"), plural(len(d.Tensors), "tensor"))
}
