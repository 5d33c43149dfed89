package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"weigh/cmd/weigh/internal/render"
	"weigh/estimate"
	"weigh/estimate/quant"
	"weigh/formats"
	"weigh/formats/gguf"
	"weigh/inspect"
	"weigh/inspect/model"
)

// quantsFlags are llama-quantize's options and what to show.
type quantsFlags struct {
	imatrix                    string // "" for none, unnamedImatrix without a file
	pure, leaveOutput          bool
	keepSplit, tensors, noFits bool
	each                       bool
	output, embedding          string
	tensorTypes, types         []string
}

// unnamedImatrix stands for an importance matrix of which nothing is known.
const unnamedImatrix = "\x00"

// newQuantsCmd returns the sub-command that says what llama-quantize would
// make of a model.
func newQuantsCmd() *cobra.Command {
	r := &request{}
	var o quantsFlags
	cmd := &cobra.Command{
		Use:   "quants MODEL [llama-server flags]",
		Short: "The exact size at every llama-quantize type, and which fit",
		Long: `Quants says what llama-quantize would make of a model at each of its types: the
type of every tensor, and the size of the file to the byte when the model is a
GGUF; from safetensors the size of the tensors. A type fits when all layers on
the GPUs do, with the context that -c asks for or the longest that leaves room.
Types that need an importance matrix are shown all the same, and marked. With
--each every --gpu is a machine of its own, else they are one machine together.

Exit code 1: --gpu names hardware, and no type fits it.`,
		Example: `  weigh quants model-F16.gguf
  weigh quants model-folder --gpu "RTX 3060" -c 16384
  weigh quants model-F16.gguf --each --gpu "RTX 3060" --gpu "RTX 4090" --gpu "2x RTX 3090"
  weigh quants model-F16.gguf --imatrix=imatrix.gguf --type Q4_K_M --tensors`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if helpAsked(cmd, args) {
				return nil
			}
			if err := named(cmd, r, joinImatrix(args)); err != nil {
				return err
			}
			if !o.each || len(r.gpus) < 2 {
				return runQuants(cmd, []*request{r}, &o)
			}
			var machines []*request
			for _, spec := range r.gpus {
				one := *r
				one.gpus = []string{spec}
				machines = append(machines, &one)
			}
			return runQuants(cmd, machines, &o)
		},
	}
	addRequestFlags(cmd.Flags(), r)
	f := cmd.Flags()
	f.StringVar(&o.imatrix, "imatrix", "", "with an importance matrix; `=FILE` counts its description too")
	f.Lookup("imatrix").NoOptDefVal = unnamedImatrix
	f.Bool("allow-requantize", false, "taken, as llama-quantize's own: a quantized source is always answered for")
	f.BoolVar(&o.pure, "pure", false, "no mixture: one type for all tensors")
	f.BoolVar(&o.leaveOutput, "leave-output-tensor", false, "leave output.weight as it is")
	f.BoolVar(&o.keepSplit, "keep-split", false, "as many files as the source has")
	f.StringVar(&o.output, "output-tensor-type", "", "`type` of output.weight")
	f.StringVar(&o.embedding, "token-embedding-type", "", "`type` of the token embeddings")
	f.StringArrayVar(&o.tensorTypes, "tensor-type", nil, "`NAME=TYPE`: type of the tensors whose names match")
	f.StringSliceVar(&o.types, "type", nil, "only these `types`")
	f.BoolVar(&o.tensors, "tensors", false, "list every tensor's type")
	f.BoolVar(&o.each, "each", false, "each --gpu is a machine of its own")
	f.BoolVar(&o.noFits, "sizes-only", false, "do not ask what fits")
	withLlamaHelp(cmd)
	return cmd
}

// joinImatrix joins --imatrix to the file after it, as llama-quantize has it,
// where that is one.
func joinImatrix(args []string) []string {
	for i := range len(args) - 1 {
		if args[i] == "--imatrix" {
			if _, err := readImatrix(args[i+1]); err == nil {
				return slices.Concat(args[:i], []string{"--imatrix=" + args[i+1]}, args[i+2:])
			}
		}
	}
	return args
}

// The documents of `weigh quants --json`.
type (
	quantsDocument struct {
		Schema int             `json:"schema"`
		Path   string          `json:"path"`
		Source string          `json:"source"`
		Quants []quantDocument `json:"quants"`
		Notes  []string        `json:"notes"`
	}
	quantDocument struct {
		Type            string        `json:"type"`
		DataBytes       uint64        `json:"data_bytes"`
		FileBytes       *uint64       `json:"file_bytes"`
		TensorBytes     uint64        `json:"tensor_bytes"`
		BitsPerWeight   float64       `json:"bits_per_weight"`
		Imatrix         bool          `json:"imatrix"`
		RequiresImatrix bool          `json:"requires_imatrix"`
		Exact           bool          `json:"exact"`
		Requantize      bool          `json:"requantize"`
		Fallbacks       int           `json:"fallbacks"`
		Error           string        `json:"error,omitempty"`
		Fits            *bool         `json:"fits"`
		NCtx            *int          `json:"n_ctx"`
		GPULayers       *int          `json:"n_gpu_layers"`
		HostLayers      *uint64       `json:"host_layer_bytes"`   // of layers that the GPUs were to hold
		Machines        []quantFit    `json:"machines,omitempty"` // with --each; fits and n_ctx are then those of the best
		Tensors         []quantTensor `json:"tensors,omitempty"`
		result          *quant.Result `json:"-"`
	}
	quantFit struct {
		GPU        string  `json:"gpu"`
		Fits       bool    `json:"fits"`
		NCtx       *int    `json:"n_ctx"`
		HostLayers *uint64 `json:"host_layer_bytes"`
	}
	quantTensor struct {
		Name   string `json:"name"`
		Type   string `json:"type"`
		Bytes  uint64 `json:"bytes"`
		Wanted string `json:"wanted,omitempty"`
	}
)

// MarshalJSON leaves out the figures of a type that llama-quantize refuses.
func (q quantDocument) MarshalJSON() ([]byte, error) {
	type plain quantDocument
	if q.Error == "" {
		return json.Marshal(plain(q))
	}
	return json.Marshal(struct {
		plain
		DataBytes       *uint64  `json:"data_bytes"`
		TensorBytes     *uint64  `json:"tensor_bytes"`
		BitsPerWeight   *float64 `json:"bits_per_weight"`
		RequiresImatrix *bool    `json:"requires_imatrix"`
		Requantize      *bool    `json:"requantize"`
		Fallbacks       *int     `json:"fallbacks"`
	}{plain: plain(q)})
}

// maxQuantTensors bounds the tensors that are listed, over all types.
const maxQuantTensors = 100_000

// runQuants answers for the model of the first request, and what fits on the
// machine of each.
func runQuants(cmd *cobra.Command, machines []*request, o *quantsFlags) error {
	s, err := newSession(cmd.Context(), machines[0].Model, machines[0])
	if err != nil {
		return err
	}
	defer s.Close()
	opt, err := o.options()
	if err != nil {
		return err
	}
	types, err := o.fileTypes()
	if err != nil {
		return err
	}
	m, err := quantModel(s.Inspection)
	if err != nil {
		return err
	}
	if !o.noFits { // what has no estimate in its own types has none in others
		if _, err := estimate.Run(s.Model, s.asked); err != nil {
			return s.blame(err)
		}
	}
	if n := len(m.Tensors) * len(types); o.tensors && n > maxQuantTensors {
		return fmt.Errorf("--tensors: %d types of %d tensors are too much for one answer: name fewer with --type", len(types), len(m.Tensors))
	}
	src, err := quant.New(m)
	if err != nil {
		return err
	}
	d := &quantsDocument{Schema: 1, Path: s.Path, Source: label(s.Inspection, summarize(s.Inspection).Quantization.Types), Notes: quantNotes(s.Inspection)}
	for _, ft := range types {
		d.Quants = append(d.Quants, newQuantDocument(src, &m, ft, opt, o))
	}
	if !o.noFits {
		err := fitQuants(cmd.Context(), s, d.Quants)
		if err == nil && len(machines) > 1 {
			err = d.fitOthers(cmd.Context(), machines)
		}
		if err != nil {
			return err
		}
	}
	w := cmd.OutOrStdout()
	if s.req.json {
		err = writeJSON(w, d)
	} else {
		printQuants(w, render.StyleOf(w), s, d, !o.noFits)
	}
	if err == nil && !o.noFits && len(s.req.gpus) > 0 && !slices.ContainsFunc(d.Quants, func(q quantDocument) bool { return q.Fits != nil && *q.Fits }) {
		return errNo
	}
	return err
}

// fitOthers takes what was found of the first machine as one of several, and
// asks the others too.
func (d *quantsDocument) fitOthers(ctx context.Context, machines []*request) error {
	keep := func(r *request, quants []quantDocument) {
		for i := range quants {
			q, to := &quants[i], &d.Quants[i]
			if q.Fits == nil {
				continue
			}
			to.Machines = append(to.Machines, quantFit{r.gpus[0], *q.Fits, q.NCtx, q.HostLayers})
			if q.NCtx != nil && (to.NCtx == nil || *q.NCtx > *to.NCtx) {
				to.Fits, to.NCtx, to.GPULayers, to.HostLayers = q.Fits, q.NCtx, q.GPULayers, q.HostLayers
			}
		}
	}
	keep(machines[0], d.Quants)
	for _, r := range machines[1:] {
		s, err := newSession(ctx, r.Model, r)
		if err != nil {
			return err
		}
		quants := slices.Clone(d.Quants)
		for i := range quants {
			q := &quants[i]
			q.Fits, q.NCtx, q.GPULayers, q.HostLayers = nil, nil, nil, nil
		}
		err = fitQuants(ctx, s, quants)
		s.Close()
		if err != nil {
			return fmt.Errorf("%.80q: %w", r.gpus[0], err)
		}
		keep(r, quants)
	}
	return nil
}

// options turns the flags into llama-quantize's.
func (o *quantsFlags) options() (opt quant.Options, err error) {
	opt = quant.Options{Pure: o.pure, LeaveOutput: o.leaveOutput, KeepSplit: o.keepSplit}
	for _, f := range []struct {
		flag, value string
		to          **formats.DType
	}{{"--output-tensor-type", o.output, &opt.Output}, {"--token-embedding-type", o.embedding, &opt.TokenEmbedding}} {
		if f.value == "" {
			continue
		}
		t, ok := formats.ParseDType(strings.ToUpper(f.value))
		if !ok || !t.GGML() {
			return opt, fmt.Errorf("%s %s: not a type of ggml", f.flag, f.value)
		}
		*f.to = &t
	}
	for _, v := range o.tensorTypes {
		t, err := quant.ParseTensorType(v)
		if err != nil {
			return opt, fmt.Errorf("--tensor-type: %w", err)
		}
		opt.TensorTypes = append(opt.TensorTypes, t)
	}
	switch o.imatrix {
	case "":
	case unnamedImatrix:
		opt.Imatrix = &quant.Imatrix{}
	default:
		if opt.Imatrix, err = readImatrix(o.imatrix); err != nil {
			return opt, fmt.Errorf("--imatrix: %w", err)
		}
	}
	return opt, nil
}

// fileTypes returns the types asked for, all of them by size when none is.
func (o *quantsFlags) fileTypes() ([]quant.FileType, error) {
	if len(o.types) == 0 {
		return quant.FileTypes(), nil
	}
	var types []quant.FileType
	for _, name := range o.types {
		ft, err := quant.ParseFileType(name)
		if err != nil {
			return nil, fmt.Errorf("--type: %w", err)
		}
		types = append(types, ft)
	}
	return types, nil
}

// readImatrix reads what llama-quantize copies of an importance matrix: a GGUF,
// or the older form, which has no magic number.
//
// Source: common/imatrix-loader.cpp@v0.5.0, common_imatrix_load.
func readImatrix(path string) (*quant.Imatrix, error) {
	f, size, err := formats.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m := &quant.Imatrix{File: path}
	var magic [4]byte
	if _, err := f.ReadAt(magic[:], 0); err != nil || string(magic[:]) != "GGUF" {
		if err := readOldImatrix(m, io.NewSectionReader(f, 0, size)); err != nil {
			return nil, fmt.Errorf("%s: not an importance matrix: %w", path, err)
		}
		return m, nil
	}
	g, err := gguf.Read(f, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, key := range []string{"imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"} {
		if _, ok := g.KV(key); !ok {
			return nil, fmt.Errorf("%s: not an importance matrix: it has no %s", path, key)
		}
	}
	if sets, err := g.Array("imatrix.datasets"); err == nil && sets.Count > 0 {
		if v, err := sets.At(0); err == nil {
			m.Dataset, _ = v.(string)
		}
	}
	if v, ok := g.Lookup("imatrix.chunk_count"); ok {
		if n, ok := v.(int64); ok {
			m.Chunks = int(n)
		}
	}
	return m, nil
}

// readOldImatrix reads the older form: for each of a number of matrices its name
// and values; then, if anything, the chunks and the data set.
//
// Source: common/imatrix-loader.cpp@v0.5.0, common_imatrix_load_legacy.
func readOldImatrix(m *quant.Imatrix, r *io.SectionReader) error {
	var broken error
	count := func(what string) int64 {
		var n int32
		if err := binary.Read(r, binary.LittleEndian, &n); err != nil {
			broken = cmp.Or(broken, fmt.Errorf("it ends before its %s", what))
			return 0
		}
		return int64(n)
	}
	skip := func(n, least int64, what string) {
		at, _ := r.Seek(0, io.SeekCurrent)
		if n < least || n > r.Size()-at {
			broken = cmp.Or(broken, fmt.Errorf("%d bytes of a %s at offset %d of %d", n, what, at, r.Size()))
			return
		}
		r.Seek(n, io.SeekCurrent)
	}
	n := count("number of matrices")
	if broken == nil && n < 1 {
		return fmt.Errorf("%d matrices", n)
	}
	for i := int64(0); i < n && broken == nil; i++ {
		skip(count("name"), 1, "name")
		count("calls")
		skip(4*count("values"), 4, "matrix")
	}
	if broken != nil {
		return broken
	}
	if at, _ := r.Seek(0, io.SeekCurrent); at < r.Size() {
		m.Chunks = int(count("chunks"))
		var text [1 << 10]byte // llama-quantize copies no more than 127 bytes
		size, _ := io.ReadFull(r, text[:max(0, min(count("data set"), int64(len(text))))])
		m.Dataset, _, _ = strings.Cut(string(text[:size]), "\x00")
	}
	return nil
}

// quantModel returns what of an opened model llama-quantize goes by.
func quantModel(ins *inspect.Inspection) (quant.Model, error) {
	m := ins.Model
	if len(m.Tensors) == 0 {
		return quant.Model{}, fmt.Errorf("%s: there are no weights here, only their description", ins.Path)
	}
	q := quant.Model{Arch: m.Arch, Layers: m.NLayerAll, HeadCount: m.NHead(0), HeadCountKV: m.NHeadKV(0), ExpertCount: m.NExpert}
	for i := range m.Tensors {
		t := &m.Tensors[i]
		q.Tensors = append(q.Tensors, quant.Tensor{Name: t.Name, Type: t.Type, Shape: t.Shape, File: t.File, Offset: t.Offset})
	}
	if ins.GGUF != nil {
		f := ins.GGUF.Files[0]
		q.Metadata = make([]quant.KV, len(f.KVs))
		for i := range f.KVs {
			kv := &f.KVs[i]
			q.Metadata[i] = quant.KV{Key: kv.Key, Bytes: uint64(kv.ValueOffset-kv.Offset) + kv.Bytes}
		}
	}
	return q, nil
}

// quantNotes says what the sizes rest on.
func quantNotes(ins *inspect.Inspection) (notes []string) {
	if ins.HF != nil {
		notes = append(notes, "from safetensors the tensors are exact; the file adds its metadata, the vocabulary above all (6 to 16 MB for 128,000 to 262,000 tokens)")
		if ins.HF.Refused != "" {
			notes = append(notes, "llama.cpp's converter would refuse these weights: "+ins.HF.Refused)
		}
	}
	return append(notes, "files made with recipes of their own (UD-, _L, _XL) name types for single tensors: --tensor-type says the same here")
}

// newQuantDocument plans one type.
func newQuantDocument(src *quant.Source, m *quant.Model, ft quant.FileType, opt quant.Options, o *quantsFlags) quantDocument {
	d := quantDocument{Type: ft.String(), Imatrix: opt.Imatrix != nil}
	r, err := src.Plan(ft, opt)
	if err != nil {
		d.Error = err.Error()
		return d
	}
	d.result = r
	d.DataBytes, d.TensorBytes, d.BitsPerWeight = r.DataBytes, r.TensorBytes, r.BitsPerWeight()
	d.RequiresImatrix, d.Requantize, d.Fallbacks, d.Exact = r.NeedImatrix != "", r.Requantize, len(r.Fallbacks), true
	if n, ok := r.TotalBytes(); ok && o.imatrix != unnamedImatrix {
		d.FileBytes = &n
	}
	if o.tensors {
		wanted := map[int]string{}
		for _, f := range r.Fallbacks {
			wanted[f.Tensor] = f.Wanted.String()
		}
		for i := range m.Tensors {
			t := &m.Tensors[i]
			d.Tensors = append(d.Tensors, quantTensor{t.Name, r.Types[i].String(), storedBytes(r.Types[i], t.Shape), wanted[i]})
		}
	}
	r.Fallbacks = nil
	return d
}

// storedBytes returns the bytes of a tensor, row by row.
func storedBytes(t formats.DType, shape []uint64) uint64 {
	if len(shape) == 0 {
		return t.RowBytes(1)
	}
	rows, _ := formats.Elements(shape[1:])
	return rows * t.RowBytes(shape[0])
}

// fitQuants asks of each planned type whether it fits and with how much
// context.
func fitQuants(ctx context.Context, s *session, quants []quantDocument) error {
	const many = 2000 // tensors of a model whose estimates take much memory
	g, ctx := errgroup.WithContext(ctx)
	if g.SetLimit(min(runtime.GOMAXPROCS(0), 8)); len(s.Model.Tensors) > many {
		g.SetLimit(1)
	}
	for i := range quants {
		if q := &quants[i]; q.result != nil {
			g.Go(func() error {
				if err := ctx.Err(); err != nil {
					return err
				}
				return s.as(q.result).fitQuant(q)
			})
		}
	}
	return g.Wait()
}

// as returns the session with its model's tensors in the types of a plan.
func (s *session) as(r *quant.Result) *session {
	m := *s.Model
	m.Tensors = make([]model.Tensor, len(s.Model.Tensors))
	for i, t := range s.Model.Tensors {
		t.Type, t.Bytes = r.Types[i], storedBytes(r.Types[i], t.Shape)
		m.Tensors[i] = t
	}
	ins := *s.Inspection
	ins.Model = &m
	what := *s
	what.Inspection = &ins
	return &what
}

// fitQuant estimates the session's model with all layers on the devices, with
// the context asked for or else the longest that fits.
func (s *session) fitQuant(q *quantDocument) error {
	fitsWith := func(n int) (bool, error) {
		s.options = s.asked
		s.options.NCtx = n
		b, err := estimate.Run(s.Model, s.options)
		if err != nil {
			return false, err
		}
		s.breakdown = b
		return s.fits(), nil
	}
	train := max(s.Model.NCtxTrain, 1)
	n, fits := s.asked.NCtx, false
	var err error
	if n > 0 || s.req.Set["--ctx-size"] {
		fits, err = fitsWith(cmp.Or(n, train))
		n = cmp.Or(n, train)
	} else {
		n, fits, err = longest(train, fitsWith)
	}
	q.Fits = &fits
	if fits {
		q.NCtx = &n
		if len(s.asked.Devices) > 0 {
			if fits, err := fitsWith(n); err == nil && fits {
				q.GPULayers = &s.breakdown.Settings.NGPULayers
				q.HostLayers = hostLayers(s.breakdown)
			}
		}
	}
	return err
}

// hostLayers returns the bytes of layers in the host's memory: of types that the
// GPUs cannot compute with, unless the settings put them there.
func hostLayers(b *estimate.Breakdown) *uint64 {
	var n uint64
	for i := range b.Host {
		for _, t := range b.Host[i].Terms {
			if t.Part == estimate.Weights && (t.Name == "layers" || t.Name == "experts") {
				n += t.Bytes
			}
		}
	}
	return &n
}

// ctxStep is what context lengths are multiples of.
const ctxStep = 256

// longest returns the largest context up to most, in steps of 256, that fits.
// What fits is taken to fit when shorter too.
func longest(most int, fits func(n int) (bool, error)) (n int, ok bool, err error) {
	if ok, err = fits(most); ok || err != nil {
		return most, ok, err
	}
	lo, hi := 0, (most+ctxStep-1)/ctxStep // lo fits (or is 0), hi does not
	for hi-lo > 1 {
		mid := lo + (hi-lo)/2
		ok, err := fits(mid * ctxStep)
		switch {
		case err != nil:
			return 0, false, err
		case ok:
			lo = mid
		default:
			hi = mid
		}
	}
	return lo * ctxStep, lo > 0, nil
}

// printQuants writes the table, smallest first.
func printQuants(w io.Writer, style render.Style, s *session, d *quantsDocument, fits bool) {
	fmt.Fprintf(w, "%s  as %s\n\n", style.Bold(render.Text(s.Model.Name)), render.Text(d.Source))
	list := slices.Clone(d.Quants)
	slices.SortStableFunc(list, func(a, b quantDocument) int { return cmp.Compare(a.DataBytes, b.DataBytes) })
	head, right := []string{"type", "file", "bytes", "bits/weight"}, []int{1, 2, 3}
	if fits {
		of := "longest context"
		if s.req.Set["--ctx-size"] {
			of = "context"
		}
		names := []string{of}
		if i := slices.IndexFunc(list, func(q quantDocument) bool { return len(q.Machines) > 0 }); i >= 0 {
			fmt.Fprintf(w, "%s on each\n\n", of)
			names = nil
			for _, m := range list[i].Machines {
				names = append(names, render.Text(m.GPU))
			}
		}
		for _, name := range names {
			right, head = append(right, len(head)), append(head, name)
		}
	}
	rows := [][]string{append(head, "")}
	for i := range list {
		rows = append(rows, list[i].row(style, fits, len(head)))
	}
	render.Columns(w, rows, right...)
	for _, q := range list {
		if len(q.Tensors) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s\n", q.Type)
		var rows [][]string
		for _, t := range q.Tensors {
			why := ""
			if t.Wanted != "" {
				why = "instead of " + t.Wanted
			}
			rows = append(rows, []string{"  " + render.Text(t.Name), t.Type, strconv.FormatUint(t.Bytes, 10), why})
		}
		render.Columns(w, rows, 2)
	}
	if slices.ContainsFunc(list, func(q quantDocument) bool { return q.Requantize }) {
		fmt.Fprintln(w)
		render.Prose(w, 6, style.Yellow("note:")+" the source is quantized: llama-quantize wants --allow-requantize, and loses more than from F16")
	}
	for _, n := range d.Notes {
		render.Prose(w, 6, style.Yellow("note:")+" "+render.Text(n))
	}
}

// row returns a line of the table, with so many columns before the remarks.
func (q *quantDocument) row(style render.Style, fits bool, columns int) []string {
	if q.Error != "" {
		row := make([]string, columns+1)
		row[0], row[columns] = q.Type, render.Text(q.Error)
		return row
	}
	size := q.DataBytes
	if q.FileBytes != nil {
		size = *q.FileBytes
	}
	row := []string{q.Type, render.Bytes(size), strconv.FormatUint(size, 10), fmt.Sprintf("%.4f", q.BitsPerWeight)}
	context := func(n *int) {
		word := style.Red("does not fit")
		if n != nil {
			word = strconv.Itoa(*n)
		}
		row = append(row, word)
	}
	for _, m := range q.Machines {
		context(m.NCtx)
	}
	if fits && len(q.Machines) == 0 {
		context(q.NCtx)
	}
	var remarks []string
	if q.HostLayers != nil && *q.HostLayers > q.DataBytes/100 {
		remarks = append(remarks, render.Bytes(*q.HostLayers)+" of its layers stay on the host")
	}
	if q.RequiresImatrix && !q.Imatrix {
		remarks = append(remarks, "needs an imatrix")
	}
	if q.Fallbacks > 0 {
		remarks = append(remarks, plural(q.Fallbacks, "tensor")+" in another type: rows that the blocks do not divide")
	}
	return append(row, strings.Join(remarks, "; "))
}
