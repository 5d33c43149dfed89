package main

import (
	"fmt"
	"io"
	"iter"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"weigh/cmd/weigh/internal/render"
	"weigh/estimate"
	"weigh/estimate/quant"
	"weigh/formats"
	"weigh/formats/gguf"
	"weigh/inspect"
	"weigh/inspect/hf"
	"weigh/inspect/model"
)

// inspectFlags say which details are wanted.
type inspectFlags struct {
	tensors, layers, metadata, tokenizer, template, full, json bool
}

// newInspectCmd returns the sub-command that says what is in a file.
func newInspectCmd() *cobra.Command {
	var o inspectFlags
	cmd := &cobra.Command{
		Use:   "inspect MODEL",
		Short: "What is in the file: architecture, layers, widths, tensor types, quantization",
		Example: `  weigh inspect model.gguf
  weigh inspect model.gguf --tensors | grep ffn_down
  weigh inspect model-folder --json --metadata`,
		Args: models(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ins, err := openTarget(args[0])
			if err != nil {
				return err
			}
			defer ins.Close()
			w := cmd.OutOrStdout()
			if o.json {
				return writeInspectJSON(w, ins, &o)
			}
			return printInspection(w, ins, &o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.tensors, "tensors", false, "list the tensors")
	f.BoolVar(&o.layers, "layers", false, "list the layers with their bytes")
	f.BoolVar(&o.metadata, "metadata", false, "list the metadata; long arrays are counted")
	f.BoolVar(&o.full, "full", false, "with --metadata: whole arrays")
	f.BoolVar(&o.tokenizer, "tokenizer", false, "show the tokenizer")
	f.BoolVar(&o.template, "template", false, "show the chat template")
	f.BoolVar(&o.json, "json", false, "write one JSON document")
	return cmd
}

// The documents of `weigh inspect --json`.
type (
	inspectDocument struct {
		Schema       int                  `json:"schema"`
		Format       string               `json:"format"`
		Path         string               `json:"path"`
		Files        []fileDocument       `json:"files"`
		Architecture string               `json:"architecture"`
		Name         string               `json:"name"`
		Parameters   *uint64              `json:"parameters"` // unknown without weights, like the bytes
		FileBytes    *uint64              `json:"file_bytes"`
		TensorBytes  *uint64              `json:"tensor_bytes"`
		NLayer       *int                 `json:"n_layer"`                 // without those for multi-token prediction
		NLayerNextN  *int                 `json:"n_layer_nextn,omitempty"` // these
		NEmbd        *int                 `json:"n_embd"`
		NFF          any                  `json:"n_ff"`
		NHead        any                  `json:"n_head"`
		NHeadKV      any                  `json:"n_head_kv"`
		NVocab       *int                 `json:"n_vocab"`
		NCtxTrain    *int                 `json:"n_ctx_train"`
		NExpert      *int                 `json:"n_expert"`
		NExpertUsed  any                  `json:"n_expert_used"`
		NSWA         *int                 `json:"n_swa"`
		Cache        *cacheDocument       `json:"cache,omitempty"`
		Tied         *bool                `json:"tied_embeddings,omitempty"` // the head is the embedding
		Quantization quantizationDocument `json:"quantization"`
		Adapter      *adapterDocument     `json:"adapter,omitempty"`
		Components   []componentDocument  `json:"components,omitempty"` // of a pipeline or a checkpoint with several models
		LeftOut      []string             `json:"files_left_out,omitempty"`
		Layers       []layerDocument      `json:"layers"`
		Notes        []string             `json:"notes"`

		// With --tensors and --metadata: "tensors", a list of tensorDocument, and
		// "metadata", an object.
	}
	fileDocument struct {
		Path  string `json:"path"`
		Bytes int64  `json:"bytes"`
	}
	// cacheDocument is how the caches grow: bytes of F16 for each token, of the
	// layers that keep all and of those that keep a window, and the state of a
	// sequence.
	cacheDocument struct {
		PerToken       uint64 `json:"bytes_per_token"`
		PerTokenWindow uint64 `json:"bytes_per_token_window"`
		State          uint64 `json:"state_bytes_per_sequence"`
	}
	quantizationDocument struct {
		Label         string         `json:"label"`
		BitsPerWeight *float64       `json:"bits_per_weight"` // unknown without weights
		Types         []typeDocument `json:"types"`
		packingDocument
	}
	// packingDocument is how a folder's weights are packed; nothing for others.
	packingDocument struct {
		Method           string   `json:"method,omitempty"`
		Format           string   `json:"format,omitempty"`
		Bits             int      `json:"bits,omitempty"`
		Group            int      `json:"group_size,omitempty"` // -1: a row
		Packed           int      `json:"packed_weights,omitempty"`
		PackedParameters uint64   `json:"packed_parameters,omitempty"`
		PackedBytes      uint64   `json:"packed_bytes,omitempty"`
		PackedBits       float64  `json:"packed_bits_per_weight,omitempty"`
		Plain            []string `json:"unquantized,omitempty"` // matrices, the first twenty
		PlainParameters  uint64   `json:"unquantized_parameters,omitempty"`
		PlainBytes       uint64   `json:"unquantized_bytes,omitempty"`
		Convertible      *bool    `json:"convertible,omitempty"` // by llama.cpp's converter
	}
	adapterDocument struct {
		Kind       string         `json:"kind"`
		Base       string         `json:"base"`
		Rank       int            `json:"rank"`
		Ranks      map[int]int    `json:"modules_by_rank"`
		Alpha      float64        `json:"alpha,omitempty"`
		Modules    map[string]int `json:"modules"`
		Parameters uint64         `json:"parameters"`
		Saved      uint64         `json:"saved_parameters"` // of modules stored whole
	}
	componentDocument struct {
		Name       string `json:"name"`
		Class      string `json:"class,omitempty"`
		Tensors    int    `json:"tensors"`
		Parameters uint64 `json:"parameters"`
		Bytes      uint64 `json:"bytes"`
	}
	typeDocument struct {
		Type     string `json:"type"`
		Tensors  int    `json:"tensors"`
		Elements uint64 `json:"elements"`
		Bytes    uint64 `json:"bytes"`
	}
	layerDocument struct {
		Index      int    `json:"index"`
		Bytes      uint64 `json:"bytes"`
		Parameters uint64 `json:"parameters"`
		Kind       string `json:"kind,omitempty"`
	}
	tensorDocument struct {
		Name     string   `json:"name"`
		Type     string   `json:"type"`
		Shape    []uint64 `json:"shape"`
		Elements uint64   `json:"elements"`
		Bytes    uint64   `json:"bytes"`
		Offset   int64    `json:"offset"`
		File     int      `json:"file"`
	}
)

// summarize returns the document without its lists of tensors and metadata.
func summarize(ins *inspect.Inspection) *inspectDocument {
	d := &inspectDocument{
		Schema: 1, Format: ins.Format, Path: ins.Path,
		Notes: []string{}, Layers: []layerDocument{}, Files: []fileDocument{},
	}
	switch {
	case !ins.Weightless():
		d.Parameters, d.FileBytes, d.TensorBytes = new(ins.Parameters()), new(ins.FileBytes()), new(ins.TensorBytes())
	case ins.Defined() && !ins.HF.Towers:
		d.Parameters = new(ins.Parameters())
	}
	for _, f := range ins.Files {
		d.Files = append(d.Files, fileDocument{f.Path, f.Bytes})
	}
	if m := ins.Model; m != nil {
		d.Architecture, d.Name = m.Arch, m.Name
		n := m.NLayer()
		if m.NLayerNext > 0 {
			d.NLayerNextN = &m.NLayerNext
		}
		d.NLayer, d.NEmbd, d.NVocab, d.NCtxTrain, d.NExpert = &n, &m.NEmbd, &m.NVocab, &m.NCtxTrain, &m.NExpert
		d.NFF, d.NHead, d.NHeadKV = perLayer(m, m.NFF), perLayer(m, m.NHead), perLayer(m, cachedHeads(m))
		d.NExpertUsed = perLayer(m, m.NExpertUsed)
		if m.NSWA > 0 {
			d.NSWA = &m.NSWA
		}
		if m.NCtxTrain == 0 {
			d.NCtxTrain = nil
		}
		if g, ok := estimate.CacheGrowth(m); ok {
			d.Cache = &cacheDocument{g.Full, g.Window, g.State}
		}
		d.Notes = append(d.Notes, m.Notes...)
	}
	if ins.Reason != nil {
		d.Notes = append(d.Notes, ins.Reason.Error())
	}
	if h := ins.HF; h != nil {
		if d.Architecture == "" {
			d.Architecture = h.Type
		}
		if n := int(h.Context); n > 0 {
			d.NCtxTrain = &n // a converter may write another
		}
		d.Notes = append(d.Notes, h.Notes...)
		for i := range h.Problems {
			d.Notes = append(d.Notes, h.Problems[i].Field+": "+h.Problems[i].Message)
		}
		if h.Refused != "" {
			d.Notes = append(d.Notes, "llama.cpp's converter would refuse it: "+h.Refused)
		}
		summarizeHF(d, h)
	}
	if d.Architecture == "" && ins.GGUF != nil {
		v, _ := ins.GGUF.Lookup("general.architecture")
		d.Architecture, _ = v.(string)
	}
	packing := d.Quantization.packingDocument
	d.Quantization = quantizationOf(ins, listTensors(ins))
	d.Quantization.packingDocument = packing
	d.Layers = layersOf(ins)
	return d
}

// summarizeHF adds what only folders and files of Hugging Face have.
func summarizeHF(d *inspectDocument, h *hf.Model) {
	if h.Source != nil {
		d.Tied = &h.Tied
	}
	d.LeftOut = h.LeftOut
	if q := h.Quant; q != nil {
		d.Quantization.packingDocument = packingDocument{
			q.Method, q.Format, q.Bits, q.Group, q.Weights, q.Params, q.Bytes, q.BitsPerWeight, q.Plain, q.PlainParams, q.PlainBytes, new(h.Refused == ""),
		}
	}
	if a := h.Adapter; a != nil {
		d.Adapter = &adapterDocument{a.Kind, a.Base, a.Rank(), a.Ranks, a.Alpha, a.Modules, a.Params, a.Saved}
	}
	for _, c := range h.Components {
		d.Components = append(d.Components, componentDocument{c.Name, c.Class, c.Tensors, c.Params, c.Bytes})
	}
}

// perLayer returns one value, or all of them where they differ by layer.
func perLayer(m *model.Model, of func(int) int) any {
	all := make([]int, m.NLayer())
	for i := range all {
		all[i] = of(i)
	}
	if len(all) > 0 && slices.Min(all) == slices.Max(all) {
		return all[0]
	}
	return all
}

// cachedHeads returns the KV heads of each layer: none of those that are
// recurrent where others are not. Where all are, they stand beside attention.
func cachedHeads(m *model.Model) func(int) int {
	mixed := slices.ContainsFunc(m.Layers[:m.NLayer()], func(l model.Layer) bool { return !l.Recr })
	return func(il int) int {
		if mixed && m.IsRecr(il) {
			return 0
		}
		return m.NHeadKV(il)
	}
}

// listTensors goes through the stored tensors, as the files name and shape them.
func listTensors(ins *inspect.Inspection) iter.Seq[tensorDocument] {
	shapeOf := func(shape []uint64) []uint64 {
		if shape == nil {
			return []uint64{}
		}
		return shape
	}
	return func(yield func(tensorDocument) bool) {
		if ins.GGUF != nil {
			for i, t := range ins.GGUF.Tensors() {
				n, _ := formats.Elements(t.Shape)
				if !yield(tensorDocument{t.Name, t.Type.String(), shapeOf(t.Shape), n, t.Bytes, ins.GGUF.Files[i].DataOffset + int64(t.Offset), i}) {
					return
				}
			}
			return
		}
		for i, f := range ins.HF.Files {
			for j := range f.Tensors {
				t := &f.Tensors[j]
				if !yield(tensorDocument{t.Name, t.Type.String(), shapeOf(t.Shape), t.Elements(), t.Bytes, t.Offset, i}) {
					return
				}
			}
		}
	}
}

// quantizationOf counts the tensors by type, most bytes first.
func quantizationOf(ins *inspect.Inspection, tensors iter.Seq[tensorDocument]) quantizationDocument {
	by := map[string]*typeDocument{}
	var bytes uint64
	for t := range tensors {
		d := by[t.Type]
		if d == nil {
			d = &typeDocument{Type: t.Type}
			by[t.Type] = d
		}
		d.Tensors++
		d.Elements += t.Elements
		d.Bytes += t.Bytes
		bytes += t.Bytes
	}
	q := quantizationDocument{Types: []typeDocument{}}
	for _, d := range by {
		q.Types = append(q.Types, *d)
	}
	slices.SortFunc(q.Types, func(a, b typeDocument) int {
		if a.Bytes != b.Bytes {
			if a.Bytes > b.Bytes {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Type, b.Type)
	})
	if p := ins.Parameters(); p > 0 && bytes > 0 {
		q.BitsPerWeight = new(8 * float64(bytes) / float64(p))
	}
	q.Label = label(ins, q.Types)
	return q
}

// label names the quantization: what the file says of itself, or the type that
// holds most bytes.
func label(ins *inspect.Inspection, types []typeDocument) string {
	if ins.GGUF != nil {
		if v, ok := ins.GGUF.Lookup("general.file_type"); ok {
			if n, ok := v.(int64); ok && n >= 0 && n < 1024 {
				if ft := quant.FileType(n); ft.Valid() {
					return ft.String()
				}
			}
		}
	}
	if ins.HF != nil && ins.HF.Quant != nil {
		return ins.HF.Quant.Method
	}
	if len(types) > 0 {
		return types[0].Type
	}
	if ins.Defined() {
		return ins.HF.Weights[0].Type.String()
	}
	return ""
}

// layersOf sums tensors by block.
func layersOf(ins *inspect.Inspection) []layerDocument {
	layers := []layerDocument{}
	if ins.Model == nil {
		return layers
	}
	at := map[int]int{}
	for i := range ins.Model.Tensors {
		t := &ins.Model.Tensors[i]
		il, _ := model.SplitName(t.Name)
		if il < 0 {
			continue
		}
		j, ok := at[il]
		if !ok {
			j = len(layers)
			at[il] = j
			layers = append(layers, layerDocument{Index: il, Kind: kindOf(ins.Model, il)})
		}
		layers[j].Bytes += t.Bytes
		layers[j].Parameters += t.Elements()
	}
	slices.SortFunc(layers, func(a, b layerDocument) int { return a.Index - b.Index })
	return layers
}

// kindOf says what a layer is made of.
func kindOf(m *model.Model, il int) string {
	if il >= len(m.Layers) {
		return ""
	}
	l := &m.Layers[il]
	var kind []string
	switch {
	case il >= m.NLayer():
		kind = append(kind, "next-token prediction")
	case l.Recr:
		kind = append(kind, "recurrent")
	case l.SWA:
		kind = append(kind, "window attention")
	case l.NHead > 0:
		kind = append(kind, "attention")
	}
	if m.Index.Layer(il, "ffn_gate_inp.weight") >= 0 {
		kind = append(kind, "experts")
	}
	return strings.Join(kind, ", ")
}

// printInspection writes the model and the details that are asked for.
func printInspection(w io.Writer, ins *inspect.Inspection, o *inspectFlags) error {
	style := render.StyleOf(w)
	printModel(w, style, ins)
	d := summarize(ins)
	printParts(w, style, d)
	for _, n := range d.Notes {
		render.Prose(w, 6, style.Yellow("note:")+" "+render.Text(n))
	}
	if o.layers {
		fmt.Fprintln(w)
		rows := [][]string{{"layer", "bytes", "weights", ""}}
		for _, l := range d.Layers {
			rows = append(rows, []string{strconv.Itoa(l.Index), render.Bytes(l.Bytes), humanCount(l.Parameters), l.Kind})
		}
		render.Columns(w, rows, 0, 1, 2)
	}
	if o.tensors {
		fmt.Fprintln(w)
		rows := [][]string{{"tensor", "type", "shape", "bytes", "offset"}}
		for t := range listTensors(ins) {
			shape := make([]string, len(t.Shape))
			for i, n := range t.Shape {
				shape[i] = strconv.FormatUint(n, 10)
			}
			rows = append(rows, []string{render.Text(t.Name), t.Type, strings.Join(shape, "x"), render.Bytes(t.Bytes), strconv.FormatInt(t.Offset, 10)})
		}
		render.Columns(w, rows, 3, 4)
	}
	if o.metadata {
		fmt.Fprintln(w)
		if err := printMetadata(w, style, ins, o.full); err != nil {
			return err
		}
	}
	if o.tokenizer {
		fmt.Fprintln(w)
		printTokenizer(w, ins)
	}
	if o.template {
		fmt.Fprintln(w)
		printTemplate(w, ins)
	}
	return nil
}

// printParts writes how the caches grow, how the weights are packed, what an
// adapter adapts and which models a pipeline has.
func printParts(w io.Writer, style render.Style, d *inspectDocument) {
	line := func(facts []string) {
		if len(facts) > 0 {
			fmt.Fprintf(w, "  %s\n", wrap(facts, "  ", style.Width))
		}
	}
	if c := d.Cache; c != nil {
		var facts []string
		if c.PerToken > 0 || c.PerTokenWindow == 0 && c.State == 0 {
			facts = append(facts, "cache "+render.Bytes(c.PerToken)+" a token")
		}
		if c.PerTokenWindow > 0 {
			facts = append(facts, render.Bytes(c.PerTokenWindow)+" a token of the window")
		}
		if c.State > 0 {
			facts = append(facts, "state "+render.Bytes(c.State)+" a sequence")
		}
		line(facts)
	}
	if q := &d.Quantization; q.Packed > 0 {
		facts := []string{"packed by " + render.Text(strings.TrimSpace(q.Method+" "+q.Format))}
		switch {
		case q.Group > 0:
			facts = append(facts, fmt.Sprintf("groups of %d", q.Group))
		case q.Group < 0:
			facts = append(facts, "groups of a row")
		}
		facts = append(facts, fmt.Sprintf("%s, %s parameters at %.2f bits", plural(q.Packed, "weight"), humanCount(q.PackedParameters), q.PackedBits),
			fmt.Sprintf("%s left unpacked", humanCount(q.PlainParameters)))
		line(facts)
	}
	if a := d.Adapter; a != nil {
		facts := []string{fmt.Sprintf("%s adapter of rank %d", render.Text(a.Kind), a.Rank)}
		if a.Base != "" {
			facts = append(facts, "for "+render.Text(a.Base))
		}
		for _, name := range slices.Sorted(maps.Keys(a.Modules)) {
			facts = append(facts, fmt.Sprintf("%d %s", a.Modules[name], render.Text(name)))
		}
		line(facts)
	}
	if len(d.Components) > 0 {
		var rows [][]string
		for _, c := range d.Components {
			rows = append(rows, []string{"  " + render.Text(c.Name), render.Text(c.Class), humanCount(c.Parameters) + " parameters", render.Bytes(c.Bytes)})
		}
		render.Columns(w, rows, 2, 3)
	}
}

// printTokenizer writes the vocabulary's facts and its special tokens.
func printTokenizer(w io.Writer, ins *inspect.Inspection) {
	if ins.GGUF == nil {
		fmt.Fprintln(w, "the tokenizer of a folder is in files of its own: "+filepath.Join(render.Text(ins.Path), "tokenizer.json"))
		return
	}
	set := ins.GGUF
	text := func(key string) string {
		v, ok := set.Lookup(key)
		if !ok {
			return ""
		}
		if n, is := v.(gguf.Len); is {
			return strconv.FormatInt(int64(n), 10)
		}
		return fmt.Sprint(v)
	}
	tokens, _ := set.Files[0].Array("tokenizer.ggml.tokens")
	rows := [][]string{{"model", text("tokenizer.ggml.model")}, {"pre-tokenizer", text("tokenizer.ggml.pre")}, {"tokens", text("tokenizer.ggml.tokens")}, {"merges", text("tokenizer.ggml.merges")}}
	for _, name := range []string{"bos", "eos", "eot", "eom", "unknown", "padding", "separator", "mask"} {
		v, ok := set.Lookup("tokenizer.ggml." + name + "_token_id")
		id, isInt := v.(int64)
		if !ok || !isInt {
			continue
		}
		word := ""
		if tokens != nil && id >= 0 && uint64(id) < tokens.Count {
			if t, err := tokens.At(uint64(id)); err == nil {
				word = fmt.Sprintf("%q", fmt.Sprint(jsonable(t)))
			}
		}
		rows = append(rows, []string{name, fmt.Sprintf("%d %s", id, word)})
	}
	var shown [][]string
	for _, r := range rows {
		if r[1] != "" {
			shown = append(shown, []string{r[0], render.Text(r[1])})
		}
	}
	render.Columns(w, shown)
}

// printTemplate writes the chat template line by line, sanitised.
func printTemplate(w io.Writer, ins *inspect.Inspection) {
	if ins.GGUF == nil {
		fmt.Fprintln(w, "the chat template of a folder is in "+filepath.Join(render.Text(ins.Path), "tokenizer_config.json"))
		return
	}
	v, _ := ins.GGUF.Lookup("tokenizer.chat_template")
	s, ok := v.(string)
	if !ok {
		fmt.Fprintln(w, "no chat template")
		return
	}
	for line := range strings.Lines(s) {
		fmt.Fprintln(w, render.Text(strings.TrimRight(line, "\r\n")))
	}
}
