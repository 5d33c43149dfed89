package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"weigh/cmd/weigh/internal/render"
	"weigh/formats/gguf"
	"weigh/formats/hfconfig"
	"weigh/inspect"
)

// maxArray is the longest array that metadata shows whole unless asked to.
const maxArray = 64

// maxShown is the most of a value that a line of metadata shows unless asked to,
// maxKey the widest column of keys.
const (
	maxShown = 120
	maxKey   = 50
)

// maxPiece is how much of a long text is written at once.
const maxPiece = 32 << 10

// A metaEntry is one entry of a model's metadata, read when it is written: the
// values of one file can take as much as its whole header.
type metaEntry struct {
	key   string
	value any // without kv
	file  *gguf.File
	kv    *gguf.KV
}

// metadataOf returns the entries of a model's metadata, sorted by key.
func metadataOf(ins *inspect.Inspection) []metaEntry {
	var all []metaEntry
	if ins.GGUF != nil {
		f := ins.GGUF.Files[0]
		for i := range f.KVs {
			all = append(all, metaEntry{key: f.KVs[i].Key, file: f, kv: &f.KVs[i]})
		}
	} else {
		of := map[string]any{}
		maps.Copy(of, ins.HF.Config)
		for i, f := range ins.HF.Files {
			for k, v := range f.Metadata {
				of[fmt.Sprintf("%s[%d]", k, i)] = v
			}
		}
		for k, v := range of {
			all = append(all, metaEntry{key: k, value: v})
		}
	}
	slices.SortFunc(all, func(a, b metaEntry) int { return strings.Compare(a.key, b.key) })
	return all
}

// read returns what is not an array that is written element by element; counted
// reports whether it stands for a value that is only counted.
func (e *metaEntry) read(full bool) (v any, elements *gguf.ArrayReader, counted bool) {
	if e.kv == nil {
		return jsonable(e.value), nil, false
	}
	if e.kv.Type != gguf.Array {
		v, _ := e.file.Lookup(e.kv.Key)
		if n, ok := v.(gguf.Len); ok {
			return map[string]any{"type": e.kv.TypeName(), "length": int64(n)}, nil, true
		}
		return jsonable(v), nil, false
	}
	a, err := e.file.Array(e.kv.Key)
	if err != nil || a.Count > maxArray && !full {
		return map[string]any{"type": e.kv.TypeName(), "length": e.kv.Count}, nil, true
	}
	return nil, a, false
}

// jsonable turns what JSON cannot hold into text.
func jsonable(v any) any {
	switch v := v.(type) {
	case []byte:
		return string(v)
	case float64:
		if v != v || v > 1e308 || v < -1e308 {
			return strconv.FormatFloat(v, 'g', -1, 64)
		}
	case float32:
		return jsonable(float64(v))
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = jsonable(v[i])
		}
		return list
	case hfconfig.Object:
		o := make(hfconfig.Object, len(v))
		for key := range v {
			o[key] = jsonable(v[key])
		}
		return o
	}
	return v
}

// writeInspectJSON writes the document, its lists of tensors and metadata entry
// by entry.
func writeInspectJSON(w io.Writer, ins *inspect.Inspection, o *inspectFlags) error {
	var head bytes.Buffer
	if err := writeJSON(&head, summarize(ins)); err != nil {
		return err
	}
	out := &jsonOut{Writer: bufio.NewWriterSize(w, maxPiece)}
	_, _ = out.Write(bytes.TrimSuffix(head.Bytes(), []byte("\n}\n")))
	if o.tensors {
		writeList(out, "tensors", listTensors(ins))
	}
	if o.metadata {
		out.metadata(ins, o.full)
	}
	return out.end()
}

// end closes the document.
func (out *jsonOut) end() error {
	if out.err != nil {
		return out.err
	}
	_, _ = out.WriteString("\n}\n")
	return out.Flush()
}

// writeList writes a member with a list, element by element.
func writeList[T any](out *jsonOut, name string, list iter.Seq[T]) {
	fmt.Fprintf(out, ",\n  %q: [", name)
	sep, end := "\n    ", "]"
	for v := range list {
		_, _ = out.WriteString(sep)
		out.value(v, "    ")
		sep, end = ",\n    ", "\n  ]"
	}
	_, _ = out.WriteString(end)
}

// metadata writes the member with all metadata.
func (out *jsonOut) metadata(ins *inspect.Inspection, full bool) {
	_, _ = out.WriteString(",\n  \"metadata\": {")
	sep := "\n    "
	for _, e := range metadataOf(ins) {
		_, _ = out.WriteString(sep)
		out.value(e.key, "")
		_, _ = out.WriteString(": ")
		switch v, a, _ := e.read(full); {
		case a == nil:
			out.value(v, "    ")
		case a.Count == 0:
			_, _ = out.WriteString("[]")
		default:
			sep := "[\n      "
			for v, err := range a.All() {
				if err != nil {
					out.err = err
					break
				}
				_, _ = out.WriteString(sep)
				out.value(jsonable(v), "")
				sep = ",\n      "
			}
			_, _ = out.WriteString("\n    ]")
		}
		sep = ",\n    "
	}
	_, _ = out.WriteString("\n  }")
}

// A jsonOut writes JSON values of any size.
type jsonOut struct {
	*bufio.Writer
	buf bytes.Buffer
	err error
}

// value writes one value, whose further lines begin with indent.
func (o *jsonOut) value(v any, indent string) {
	switch v := v.(type) {
	case int64:
		_, _ = o.Write(strconv.AppendInt(o.AvailableBuffer(), v, 10))
		return
	case string:
		_ = o.WriteByte('"')
		for piece := range pieces(v) {
			b := o.encode(piece, "")
			_, _ = o.Write(b[1 : len(b)-1])
		}
		_ = o.WriteByte('"')
		return
	}
	_, _ = o.Write(o.encode(v, indent))
}

// encode returns a value as JSON, valid until the next call.
func (o *jsonOut) encode(v any, indent string) []byte {
	o.buf.Reset()
	e := json.NewEncoder(&o.buf)
	e.SetIndent(indent, "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		o.err = err
	}
	return render.JSON(bytes.TrimSuffix(o.buf.Bytes(), []byte("\n")))
}

// pieces cuts a text between characters, into parts of at most maxPiece bytes.
func pieces(s string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for len(s) > maxPiece {
			n := maxPiece
			for n > maxPiece-utf8.UTFMax && !utf8.RuneStart(s[n]) {
				n--
			}
			if !yield(s[:n]) {
				return
			}
			s = s[n:]
		}
		yield(s)
	}
}

// printMetadata writes a line for each entry.
func printMetadata(out io.Writer, style render.Style, ins *inspect.Inspection, full bool) error {
	all := metadataOf(ins)
	width := 0
	for i := range all {
		width = max(width, utf8.RuneCountInString(all[i].key))
	}
	width = min(width, maxKey)
	shown := maxShown
	if style.Width > 0 {
		shown = max(style.Width-width-2, 10)
	}
	w := bufio.NewWriterSize(out, maxPiece)
	for i := range all {
		key := render.Text(all[i].key)
		fmt.Fprintf(w, "%s%s  ", key, strings.Repeat(" ", max(0, width-utf8.RuneCountInString(key))))
		v, a, counted := all[i].read(full)
		switch m, _ := v.(map[string]any); {
		case a != nil && full:
			writeArray(w, a)
		case a != nil:
			var b strings.Builder
			writeArray(&b, a)
			_, _ = w.WriteString(cut(b.String(), shown))
		case counted:
			fmt.Fprintf(w, "%v of %v", m["type"], m["length"])
		case full:
			for piece := range pieces(fmt.Sprint(v)) {
				_, _ = w.WriteString(render.Text(piece))
			}
		default:
			_, _ = w.WriteString(cut(fmt.Sprint(v), shown))
		}
		if err := w.WriteByte('\n'); err != nil {
			return err
		}
	}
	return w.Flush()
}

// writeArray writes the elements as fmt prints a slice, for a terminal.
func writeArray(w io.Writer, a *gguf.ArrayReader) {
	sep := "["
	for v, err := range a.All() {
		if err != nil {
			v = err
		}
		_, _ = io.WriteString(w, sep)
		sep = " "
		if n, ok := v.(int64); ok {
			_, _ = io.WriteString(w, strconv.FormatInt(n, 10))
			continue
		}
		for piece := range pieces(fmt.Sprint(jsonable(v))) {
			_, _ = io.WriteString(w, render.Text(piece))
		}
	}
	if a.Count == 0 {
		_, _ = io.WriteString(w, sep)
	}
	_, _ = io.WriteString(w, "]")
}

// cut returns the beginning of a value, at most limit characters.
func cut(s string, limit int) string {
	more := len(s) > limit*utf8.UTFMax
	if more {
		s = s[:limit*utf8.UTFMax]
	}
	r := []rune(render.Text(s))
	if more || len(r) > limit {
		return string(r[:min(len(r), limit-3)]) + "..."
	}
	return string(r)
}
