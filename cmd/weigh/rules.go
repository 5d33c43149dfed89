package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"

	gguf_parser "github.com/gpustack/gguf-parser-go"
	"github.com/spf13/cobra"

	"weigh/cmd/weigh/internal/render"
	"weigh/estimate/rules"
	"weigh/estimate/training"
	"weigh/formats"
	"weigh/formats/gguf/parser"
	"weigh/inspect"
	"weigh/inspect/model"
)

// newRulesCmd returns the sub-command that sets published rules of thumb beside
// the exact figure.
func newRulesCmd() *cobra.Command {
	r := &request{}
	var table bool
	cmd := &cobra.Command{
		Use:   "rules MODEL [llama-server flags]",
		Short: "The published rules of thumb beside the exact figure, and why they differ",
		Long: `Rules computes what published rules of thumb and other calculators say of a
model, as published, and sets each beside the exact figure for the same thing:
the weights, running it with these settings, or training it.`,
		Example: `  weigh rules model.gguf
  weigh rules model.gguf -c 8192 --gpu "RTX 4090"
  weigh rules model.gguf --table`,
		DisableFlagParsing: true,
		RunE: weighing(r, func(cmd *cobra.Command, s *session) error {
			if err := s.weigh(); err != nil {
				return err
			}
			d, err := newRulesDocument(s)
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			if r.json {
				return writeJSON(w, d)
			}
			printRules(w, render.StyleOf(w), s, d)
			if table {
				printCalculators(w, d)
				printRuleTables(w)
			}
			return nil
		}),
	}
	addRequestFlags(cmd.Flags(), r)
	cmd.Flags().BoolVar(&table, "table", false, "add the calculators' own tables by precision, and those of parameters × precision, number formats and card classes")
	withLlamaHelp(cmd)
	return cmd
}

// The documents of `weigh rules --json`.
type (
	rulesDocument struct {
		Schema        int             `json:"schema"`
		Model         string          `json:"model"`
		Exact         uint64          `json:"exact"`
		ExactParts    exactDocument   `json:"exact_parts"`
		ExactWeights  uint64          `json:"exact_weights"`
		ExactTraining uint64          `json:"exact_training"`
		NCtx          int             `json:"n_ctx"`
		Bits          int             `json:"nominal_bits"`
		Rules         []ruleDocument  `json:"rules"`
		Advice        adviceDocument  `json:"advice"`
		Table         []tableDocument `json:"table"`
		Accelerate    []calcDocument  `json:"accelerate"`
		CanItRun      []calcDocument  `json:"can_it_run_llm"`
		Precisions    []precisionDoc  `json:"precisions"`
		Classes       []classDocument `json:"card_classes"`
		Notes         []string        `json:"notes"`
	}
	ruleDocument struct {
		Name    string  `json:"name"`
		Source  string  `json:"source"`
		Formula string  `json:"formula"`
		Purpose string  `json:"purpose"`
		Bytes   uint64  `json:"bytes"`
		Exact   uint64  `json:"exact"`
		Ratio   float64 `json:"ratio_to_exact"`
		Why     string  `json:"why"`
	}
	adviceDocument struct {
		CardClassGB     int      `json:"card_class_gb"`
		CardClass       string   `json:"card_class"`
		GPUs            *int     `json:"gpus_can_it_run_llm"`
		LMStudioLayers  *int     `json:"lm_studio_layers"`
		KoboldCppLayers *int     `json:"koboldcpp_layers"`
		LoRA            *uint64  `json:"lora_can_it_run_llm"`
		WhenShort       []string `json:"when_memory_runs_out"`
	}
	// exactDocument divides the exact figure of running the model.
	exactDocument struct {
		Model   uint64 `json:"model"`
		Context uint64 `json:"context"`
		Compute uint64 `json:"compute"`
	}
	// calcDocument is a line of a calculator's own table; null is what it leaves
	// out.
	calcDocument struct {
		DType     string  `json:"dtype"`
		Largest   *uint64 `json:"largest_layer"`
		Total     uint64  `json:"total"`
		Inference *uint64 `json:"inference"`
		Training  *uint64 `json:"training_adam"`
	}
	tableDocument struct {
		Billions int    `json:"billions"`
		FP32     uint64 `json:"fp32"`
		FP16     uint64 `json:"fp16"`
		INT8     uint64 `json:"int8"`
		INT4     uint64 `json:"int4"`
	}
	precisionDoc struct {
		Name          string  `json:"name"`
		BytesPer1000  float64 `json:"bytes_per_1000_weights"`
		PercentOfFP32 float64 `json:"percent_of_fp32"`
		Use           string  `json:"use"`
	}
	classDocument struct {
		GB     int    `json:"gb"`
		Advice string `json:"advice"`
	}
)

func newRulesDocument(s *session) (*rulesDocument, error) {
	if s.TensorBytes() == 0 {
		return nil, fmt.Errorf("%s: there are no weights here, only their description", s.Path)
	}
	m, run := rulesModel(s.Inspection), rulesRun(s)
	d := &rulesDocument{Schema: 1, Model: s.Model.Name, ExactWeights: s.TensorBytes(), NCtx: s.breakdown.Settings.NCtx, Bits: m.Bits, Notes: []string{}}
	sum, _ := s.host()
	for _, m := range append(s.breakdown.Devices[:len(s.breakdown.Devices):len(s.breakdown.Devices)], sum) {
		d.ExactParts.Model += m.Model
		d.ExactParts.Context += m.Context
		d.ExactParts.Compute += m.Compute
	}
	d.Exact = d.ExactParts.Model + d.ExactParts.Context + d.ExactParts.Compute
	e, err := training.New(trainingModel(s.Inspection), training.Recipe{})
	if err != nil {
		return nil, err
	}
	d.ExactTraining = e.PerGPU()
	exact := map[rules.Purpose]uint64{rules.Loading: d.ExactWeights, rules.Inference: d.Exact, rules.Training: d.ExactTraining}
	add := func(doc ruleDocument, purpose rules.Purpose) {
		doc.Purpose, doc.Exact = string(purpose), exact[purpose]
		if doc.Exact > 0 {
			doc.Ratio = float64(doc.Bytes) / float64(doc.Exact)
		}
		d.Rules = append(d.Rules, doc)
	}
	for _, r := range rules.All {
		if n, ok := r.Bytes(m, run); ok {
			add(ruleDocument{Name: r.Name, Source: r.Source, Formula: r.Formula, Bytes: n, Why: r.Reason(m)}, r.Purpose)
		}
	}
	if s.GGUF != nil {
		n, err := secondOpinion(s)
		if err != nil {
			d.Notes = append(d.Notes, "gguf-parser-go has no estimate of this file: "+err.Error())
		} else {
			add(ruleDocument{
				Name: "gguf-parser-go", Source: "github.com/gpustack/gguf-parser-go v0.28.1, EstimateLLaMACppRun", Bytes: n,
				Formula: "its own formulas for weights, cache and compute", Why: "a second opinion: formulas stand for the compute graph, and some architectures' caches and layers are counted otherwise",
			}, rules.Inference)
		}
	}
	if h := s.HF; h != nil && h.Quant != nil && h.Quant.Params > 0 && !slices.ContainsFunc(s.Model.Tensors, func(t model.Tensor) bool { return t.Type.Quantized() }) {
		d.Notes = append(d.Notes, fmt.Sprintf("running it is weighed as llama.cpp does it, with the weights (%s) unpacked to 16 bits", h.Quant.Method))
	}
	d.advise(s, m, run)
	d.Accelerate, d.CanItRun = calculator(rules.Accelerate(m)), calculator(rules.CanItRun(m))
	for _, r := range rules.Table() {
		d.Table = append(d.Table, tableDocument(r))
	}
	for _, p := range rules.Precisions {
		d.Precisions = append(d.Precisions, precisionDoc{p.Name, float64(p.Size) * 1000 / float64(p.Elements), p.PercentOfFP32(), p.Use})
	}
	for _, c := range rules.CardClasses {
		d.Classes = append(d.Classes, classDocument{c.GB, c.Advice})
	}
	return d, nil
}

func calculator(rows []rules.Calculator) (docs []calcDocument) {
	known := func(n uint64) *uint64 {
		if n == 0 {
			return nil
		}
		return &n
	}
	for _, c := range rows {
		docs = append(docs, calcDocument{c.DType, known(c.LargestLayer), c.Total, known(c.Inference), known(c.Training)})
	}
	return docs
}

// advise fills in what the rules would do with the first device.
func (d *rulesDocument) advise(s *session, m rules.Model, run rules.Run) {
	class := rules.ClassFor(m.Parameters)
	d.Advice = adviceDocument{CardClassGB: class.GB, CardClass: class.Advice, WhenShort: rules.WhenMemoryRunsOut}
	set := func(n int, ok bool) *int {
		if !ok {
			return nil
		}
		return &n
	}
	d.Advice.LMStudioLayers = set(rules.LMStudioLayers(m, run, 1e9))
	d.Advice.KoboldCppLayers = set(rules.KoboldCppLayers(m, run))
	if n, ok := rules.LoRA(m, 2); ok {
		d.Advice.LoRA = &n
	}
	for _, r := range d.Rules {
		if r.Name == "can-it-run-llm" && run.GPUMemory > 0 {
			n := rules.GPUs(r.Bytes, run.GPUMemory)
			d.Advice.GPUs = &n
		}
	}
}

// rulesModel returns what the rules know of an opened model.
func rulesModel(ins *inspect.Inspection) rules.Model {
	m := ins.Model
	r := rules.Model{
		Parameters: ins.Parameters(), WeightBytes: ins.TensorBytes(), FileBytes: ins.FileBytes(), Bits: nominalBits(ins),
		Hidden: m.NEmbd, FF: m.NFF(0), Layers: m.NLayer(), Heads: m.NHead(0), HeadsKV: m.NHeadKV(0), HeadDim: m.NEmbdHeadKFull, Vocab: m.NVocab, Window: m.NSWA,
	}
	r.Latent = m.IsMLA()
	layers := map[int]uint64{}
	for i := range m.Tensors {
		t := &m.Tensors[i]
		il, _ := model.SplitName(t.Name)
		switch {
		case il >= 0:
			layers[il] += t.Elements()
			r.LargestLayer = max(r.LargestLayer, layers[il])
		case t.Name == "output.weight":
			r.OutputTensor = t.Elements()
		case t.Name == "token_embd.weight":
			r.LargestLayer = max(r.LargestLayer, t.Elements())
		}
	}
	if headIsCopy(ins) {
		r.Parameters -= min(r.OutputTensor, r.Parameters)
		r.OutputTensor = 0
	}
	if ins.GGUF != nil {
		r.GGUF = hfMemFacts(ins)
	}
	for il := range m.NLayer() {
		r.FF, r.Heads, r.HeadsKV = max(r.FF, m.NFF(il), m.NFFExp(il)), max(r.Heads, m.NHead(il)), max(r.HeadsKV, m.NHeadKV(il))
		switch {
		case m.IsRecr(il):
			r.States++
		case !m.IsSWA(il):
			r.FullLayers++
		}
	}
	return r
}

// hfMemFacts returns what hf-mem reads of a GGUF.
func hfMemFacts(ins *inspect.Inspection) *rules.GGUF {
	f, m := ins.GGUF.Files[0], ins.Model
	g := &rules.GGUF{Blocks: m.NLayerAll}
	for _, key := range []string{".attention.head_count", ".attention.head_count_kv"} {
		if _, err := f.Array(m.Arch + key); err == nil {
			g.PerLayer = true
		}
	}
	for i := range m.Tensors {
		n, ok := rules.HFMemBytes(m.Tensors[i].Type, m.Tensors[i].Elements())
		if !ok {
			g.WeightBytes = 0
			break
		}
		g.WeightBytes += n
	}
	return g
}

// nominalBits returns the whole bits per weight of the type that holds most
// bytes: 4 for Q4_K and its kin.
func nominalBits(ins *inspect.Inspection) int {
	if ins.HF != nil && ins.HF.Quant != nil {
		if b := ins.HF.Quant.Bits; b > 0 {
			return b
		}
		if b := int(ins.HF.Quant.BitsPerWeight); b > 0 {
			return b
		}
	}
	by := map[formats.DType]uint64{}
	var most formats.DType
	for i := range ins.Model.Tensors {
		t := &ins.Model.Tensors[i]
		by[t.Type] += t.Bytes
		if n := by[t.Type]; n > by[most] || n == by[most] && t.Type < most {
			most = t.Type
		}
	}
	elements, bytes := most.Block()
	if elements == 0 {
		return 0
	}
	return int(8 * bytes / elements)
}

// rulesRun returns how the session runs the model, in the rules' terms.
func rulesRun(s *session) rules.Run {
	t := s.breakdown.Settings
	r := rules.Run{Context: t.NCtx, Batch: 1, Ubatch: t.NUBatch, CacheBits: 16, GPULayers: min(t.NGPULayers, s.Model.NLayer())}
	if !t.KVUnified {
		r.Context, r.Batch = t.NCtxSeq, t.NParallel
	}
	if elements, bytes := t.TypeK.Block(); elements > 0 && bytes*8/elements < 16 {
		r.CacheBits = 4
		if bytes*8/elements >= 8 {
			r.CacheBits = 8
		}
	}
	if len(s.options.Devices) > 0 {
		if d := s.options.Devices[0]; d.MemoryTotal != nil {
			r.GPUMemory = *d.MemoryTotal
			if d.MemoryFree != nil && *d.MemoryFree < r.GPUMemory {
				r.GPUUsed = r.GPUMemory - *d.MemoryFree
			}
		}
	}
	return r
}

// secondOpinion returns gguf-parser-go's estimate of the same run: all memory on
// all devices and the host.
func secondOpinion(s *session) (uint64, error) {
	t := s.breakdown.Settings
	opts := []gguf_parser.GGUFRunEstimateOption{
		gguf_parser.WithLLaMACppContextSize(int32(t.NCtx)), gguf_parser.WithLLaMACppLogicalBatchSize(int32(t.NBatch)),
		gguf_parser.WithLLaMACppPhysicalBatchSize(int32(t.NUBatch)), gguf_parser.WithParallelSize(int32(t.NParallel)),
		gguf_parser.WithLLaMACppOffloadLayers(uint64(t.NGPULayers)),
		gguf_parser.WithLLaMACppCacheKeyType(gguf_parser.GGMLType(t.TypeK)), gguf_parser.WithLLaMACppCacheValueType(gguf_parser.GGMLType(t.TypeV)),
	}
	if t.FlashAttn {
		opts = append(opts, gguf_parser.WithFlashAttention())
	}
	g := parser.File(s.GGUF.Files[0], s.GGUF.Files[1:]...)
	e, err := parser.Estimate(g, opts...)
	if err != nil {
		return 0, err
	}
	var n uint64
	for _, d := range e.Devices {
		n += uint64(d.Footprint + d.Weight.Sum() + d.KVCache.Sum() + d.Computation.Sum())
	}
	return n, nil
}

// printRules writes the exact figures and the rules, purpose by purpose.
func printRules(w io.Writer, style render.Style, s *session, d *rulesDocument) {
	fmt.Fprintf(w, "%s  %s parameters, %d nominal bits, context %d\n", style.Bold(render.Text(d.Model)), humanCount(s.Parameters()), d.Bits, d.NCtx)
	for _, p := range []struct {
		purpose rules.Purpose
		title   string
		exact   uint64
	}{
		{rules.Loading, "the weights", d.ExactWeights},
		{rules.Inference, "running it, on all devices and the host", d.Exact},
		{rules.Training, "training every weight: AdamW, mixed precision, 2048 tokens (modelled)", d.ExactTraining},
	} {
		fmt.Fprintf(w, "\n%s: %s\n", style.Bold(p.title), render.Bytes(p.exact))
		if p.purpose == rules.Inference {
			e := d.ExactParts
			fmt.Fprintf(w, "  weights %s, cache %s, compute %s\n", render.Bytes(e.Model), render.Bytes(e.Context), render.Bytes(e.Compute))
		}
		var rows [][]string
		for _, r := range d.Rules {
			if r.Purpose == string(p.purpose) {
				rows = append(rows, []string{"  " + r.Name, render.Bytes(r.Bytes), fmt.Sprintf("%.2f×", r.Ratio), r.Why})
			}
		}
		render.Columns(w, rows, 1, 2)
	}
	a := d.Advice
	fmt.Fprintf(w, "\npublished advice for this size: a card of %d GB (%s)\n", a.CardClassGB, a.CardClass)
	for _, l := range []struct {
		who string
		n   *int
	}{{"LM Studio's rule puts on the first card", a.LMStudioLayers}, {"KoboldCpp's ratio puts on it", a.KoboldCppLayers}} {
		if l.n != nil {
			render.Prose(w, 2, fmt.Sprintf("%s %d layers; the model has %d and its output", l.who, *l.n, s.Model.NLayer()))
		}
	}
	if a.GPUs != nil {
		fmt.Fprintf(w, "can-it-run-llm asks for %s like the first\n", plural(*a.GPUs, "card"))
	}
	for _, n := range d.Notes {
		render.Prose(w, 6, style.Yellow("note:")+" "+render.Text(n))
	}
}

// printCalculators writes the tables that calculators print of the model.
func printCalculators(w io.Writer, d *rulesDocument) {
	size := func(n *uint64) string {
		if n == nil {
			return "–"
		}
		return render.Bytes(*n)
	}
	for _, c := range []struct {
		name string
		rows []calcDocument
	}{{"accelerate estimate-memory", d.Accelerate}, {"can-it-run-llm", d.CanItRun}} {
		rows := [][]string{{c.name, "largest layer", "total", "inference", "training with Adam"}}
		for _, r := range c.rows {
			rows = append(rows, []string{r.DType, size(r.Largest), render.Bytes(r.Total), size(r.Inference), size(r.Training)})
		}
		fmt.Fprintln(w)
		render.Columns(w, rows, 1, 2, 3, 4)
	}
}

// printRuleTables writes the reference tables.
func printRuleTables(w io.Writer) {
	gb := func(n uint64) string { return strconv.FormatFloat(float64(n)/1e9, 'g', -1, 64) + " GB" }
	rows := [][]string{{"parameters", "FP32", "FP16", "INT8", "INT4"}}
	for _, r := range rules.Table() {
		rows = append(rows, []string{strconv.Itoa(r.Billions) + "B", gb(r.FP32), gb(r.FP16), gb(r.INT8), gb(r.INT4)})
	}
	fmt.Fprintln(w)
	render.Columns(w, rows, 0, 1, 2, 3, 4)
	rows = [][]string{{"format", "of FP32", "used for"}}
	for _, p := range rules.Precisions {
		rows = append(rows, []string{p.Name, fmt.Sprintf("%.4g%%", p.PercentOfFP32()), p.Use})
	}
	fmt.Fprintln(w)
	render.Columns(w, rows, 1)
	rows = [][]string{{"card", "published advice"}}
	for _, c := range rules.CardClasses {
		rows = append(rows, []string{strconv.Itoa(c.GB) + " GB", c.Advice})
	}
	fmt.Fprintln(w)
	render.Columns(w, rows, 0)
	fmt.Fprintln(w, "\nwhen memory runs out, published advice tries in turn:")
	for _, step := range rules.WhenMemoryRunsOut {
		fmt.Fprintf(w, "  %s\n", step)
	}
}
