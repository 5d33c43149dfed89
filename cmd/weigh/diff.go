package main

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"

	"weigh/cmd/weigh/internal/render"
	"weigh/formats"
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
converting changes them. Into how many files a model is cut makes no difference.

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
			defer d.close()
			w := cmd.OutOrStdout()
			switch {
			case asJSON:
				err = d.writeJSON(w)
			case !brief:
				d.print(w, render.StyleOf(w))
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

// The documents of `weigh diff --json`; after the metadata it has "tensors", a
// list of tensorChange.
type (
	diffDocument struct {
		Schema   int              `json:"schema"`
		A        string           `json:"a"`
		B        string           `json:"b"`
		Same     bool             `json:"same"`
		ByName   string           `json:"compared_by"` // "stored names" or "logical names"
		Metadata []metadataChange `json:"metadata"`

		shown uint64 // bytes of text in Metadata
		sides [2]*diffSide
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

// A diffSide is what is compared of one model: no more of it is kept, so that
// there is room for two.
type diffSide struct {
	format   string
	metadata map[string]any
	tensors  []namedTensor     // by name
	sha256   map[string]string // of each, where it is compared
	close    func() error
}

// A namedTensor is a tensor with the name that it is compared by.
type namedTensor struct {
	name  string
	shape []uint64
	bytes uint64
	typ   formats.DType
}

// document returns a tensor as the document has it, nil for none.
func (s *diffSide) document(t *namedTensor) *diffTensor {
	if t == nil {
		return nil
	}
	return &diffTensor{t.typ.String(), append([]uint64{}, t.shape...), t.bytes, s.sha256[t.name]}
}

func diffModels(cmd *cobra.Command, a, b string, data bool) (_ *diffDocument, err error) {
	d := &diffDocument{Schema: 1, A: a, B: b, ByName: "stored names", Metadata: []metadataChange{}}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if err := d.open(func(ins *inspect.Inspection) (*diffSide, error) { return storedSide(ins), nil }); err != nil {
		return nil, err
	}
	across := d.sides[0].format != d.sides[1].format
	switch {
	case across && data:
		return nil, errors.New("--data: the weights of different formats cannot be the same bytes; convert one of the models first")
	case across:
		d.ByName = "logical names"
		err = d.open(logicalSide)
	case data:
		err = d.open(func(ins *inspect.Inspection) (*diffSide, error) { return hashedSide(cmd, ins) })
	}
	if err != nil {
		return nil, err
	}
	x, y := d.sides[0].metadata, d.sides[1].metadata
	for _, key := range bothKeys(x, y) {
		if !sameValue(x[key], y[key]) {
			d.Metadata = append(d.Metadata, metadataChange{key, d.shownValue(x[key]), d.shownValue(y[key])})
		}
	}
	d.Same = len(d.Metadata) == 0
	for range d.changes() {
		d.Same = false
		break
	}
	return d, nil
}

// open reads both models, one after the other.
func (d *diffDocument) open(read func(*inspect.Inspection) (*diffSide, error)) error {
	d.close()
	for i, path := range []string{d.A, d.B} {
		ins, err := openTarget(path)
		if err != nil {
			return err
		}
		side, err := read(ins)
		if err != nil {
			ins.Close()
			return err
		}
		side.format, side.close = ins.Format, ins.Close
		forget(ins)
		slices.SortStableFunc(side.tensors, func(a, b namedTensor) int { return strings.Compare(a.name, b.name) })
		d.sides[i] = side
	}
	return nil
}

// forget drops what a side has taken from a model, or does not need: all but the
// metadata of a GGUF, which is read when it is compared.
func forget(ins *inspect.Inspection) {
	ins.HF, ins.Model = nil, nil
	if ins.GGUF != nil {
		for _, f := range ins.GGUF.Files {
			f.Tensors = nil
		}
	}
}

func (d *diffDocument) close() {
	for i, s := range d.sides {
		if s != nil {
			s.close()
		}
		d.sides[i] = nil
	}
}

// changes goes through the tensors that differ, by name.
func (d *diffDocument) changes() iter.Seq[tensorChange] {
	return func(yield func(tensorChange) bool) {
		a, b := d.sides[0].tensors, d.sides[1].tensors
		for len(a) > 0 || len(b) > 0 {
			var x, y *namedTensor
			inA := len(b) == 0 || len(a) > 0 && a[0].name <= b[0].name
			inB := len(a) == 0 || len(b) > 0 && b[0].name <= a[0].name
			if inA {
				x, a = &a[0], a[1:]
			}
			if inB {
				y, b = &b[0], b[1:]
			}
			name := cmp.Or(x, y).name
			what := differs(x, y)
			if d.sides[0].sha256[name] != d.sides[1].sha256[name] && x != nil && y != nil {
				what = append(what, "data")
			}
			if what != nil && !yield(tensorChange{name, d.sides[0].document(x), d.sides[1].document(y), what}) {
				return
			}
		}
	}
}

// differs says in what two tensors differ before their contents are known; one of
// them may be nil.
func differs(a, b *namedTensor) (what []string) {
	switch {
	case a == nil:
		return []string{"only in b"}
	case b == nil:
		return []string{"only in a"}
	}
	if a.typ != b.typ {
		what = append(what, "type")
	}
	if !slices.Equal(a.shape, b.shape) {
		what = append(what, "shape")
	}
	return what
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

// storedSide is a model's tensors and metadata as its files have them.
func storedSide(ins *inspect.Inspection) *diffSide {
	s := &diffSide{metadata: allMetadata(ins)}
	if ins.Model = nil; ins.HF != nil {
		ins.HF.Weights, ins.HF.Source = nil, nil // make room
	}
	n := 0
	for range check.Pieces(ins) {
		n++
	}
	s.tensors = make([]namedTensor, 0, n)
	for p := range check.Pieces(ins) {
		s.tensors = append(s.tensors, namedTensor{name: p.Name, typ: p.Type, shape: p.Shape, bytes: p.Bytes})
	}
	return s
}

// hashedSide is storedSide with the hashes of the weights.
func hashedSide(cmd *cobra.Command, ins *inspect.Inspection) (*diffSide, error) {
	s := &diffSide{metadata: allMetadata(ins), sha256: map[string]string{}}
	return s, watched(cmd.ErrOrStderr(), "hashing", ins.TensorBytes(), func(read *atomic.Uint64) error {
		hashes, err := check.HashTensors(cmd.Context(), ins, read)
		for _, h := range hashes {
			typ, _ := formats.ParseDType(h.Type)
			s.tensors = append(s.tensors, namedTensor{h.Name, h.Shape, h.Bytes, typ})
			s.sha256[h.Name] = h.SHA256
		}
		return err
	})
}

// logicalSide is a model's tensors under the names that they have in a GGUF,
// without the trailing dimensions of one, and what its shape rests on.
func logicalSide(ins *inspect.Inspection) (*diffSide, error) {
	if ins.Model == nil {
		return nil, fmt.Errorf("%s: it has no names in common with another format: %w", ins.Path, ins.Reason)
	}
	s := &diffSide{metadata: shapeOf(ins)}
	for i := range ins.Model.Tensors {
		t := &ins.Model.Tensors[i]
		shape := t.Shape
		for len(shape) > 1 && shape[len(shape)-1] == 1 {
			shape = shape[:len(shape)-1]
		}
		s.tensors = append(s.tensors, namedTensor{name: t.Name, typ: t.Type, shape: shape, bytes: t.Bytes})
	}
	return s, nil
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
	if ins.HF != nil {
		maps.Copy(all, ins.HF.Config)
		for i, f := range ins.HF.Files {
			for k, v := range f.Metadata {
				if key := k + "[0]"; all[key] != v { // what all files say is said once
					all[fmt.Sprintf("%s[%d]", k, i)] = v
				}
			}
		}
		return all
	}
	for _, e := range metadataOf(ins) {
		switch {
		case strings.HasPrefix(e.key, "split."):
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
		return jsonable(v)
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

// writeJSON writes the document, the tensors one by one.
func (d *diffDocument) writeJSON(w io.Writer) error {
	var head bytes.Buffer
	if err := writeJSON(&head, d); err != nil {
		return err
	}
	out := &jsonOut{Writer: bufio.NewWriterSize(w, maxPiece)}
	_, _ = out.Write(bytes.TrimSuffix(head.Bytes(), []byte("\n}\n")))
	writeList(out, "tensors", d.changes())
	return out.end()
}

// printBatch is how many tensors are aligned with each other.
const printBatch = 1000

// print writes the differences.
func (d *diffDocument) print(w io.Writer, style render.Style) {
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
	n := 0
	for c := range d.changes() {
		if n++; n == 1 {
			fmt.Fprintf(w, "%s\n", style.Bold("tensors"))
		}
		rows = append(rows, []string{"  " + render.Text(c.Name), tensor(c.A), "->", tensor(c.B), strings.Join(c.What, ", ")})
		if len(rows) == printBatch {
			render.Columns(w, rows)
			rows = rows[:0]
		}
	}
	if n == 0 {
		return
	}
	render.Columns(w, rows)
	fmt.Fprintf(w, "%s of metadata and %s differ\n", plural(len(d.Metadata), "key"), plural(n, "tensor"))
}
