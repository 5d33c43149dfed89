package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weigh/cmd/weigh/internal/render"
	"weigh/estimate/hw"
	"weigh/estimate/vllm"
	"weigh/formats"
	"weigh/inspect"
)

// engineFlags choose an engine other than llama.cpp and its settings.
type engineFlags struct {
	name      string
	vllm      vllm.Options
	cache     string
	batch     int
	allLogits bool
}

// addEngineFlags defines --engine and the flags of the other engines, spelled
// as vLLM spells them.
func addEngineFlags(f *pflag.FlagSet, o *engineFlags) {
	f.StringVar(&o.name, "engine", "llama.cpp", "llama.cpp, vllm or transformers")
	f.IntVar(&o.vllm.TensorParallel, "tensor-parallel-size", 0, "vllm: GPUs that share each layer; 0: as many as suit the model")
	f.IntVar(&o.vllm.PipelineParallel, "pipeline-parallel-size", 0, "vllm: groups of layers; 0: the GPUs that are left over")
	f.BoolVar(&o.vllm.ExpertParallel, "enable-expert-parallel", false, "vllm: whole experts on each GPU")
	f.Float64Var(&o.vllm.Utilization, "gpu-memory-utilization", 0, "vllm: part of each GPU that it may take; 0: 0.92")
	f.IntVar(&o.vllm.MaxModelLen, "max-model-len", 0, "vllm: tokens of a sequence; 0: -c, or as trained")
	f.IntVar(&o.vllm.MaxNumSeqs, "max-num-seqs", 0, "vllm: sequences at once; 0: by the card")
	f.IntVar(&o.vllm.MaxBatchedTokens, "max-num-batched-tokens", 0, "vllm: tokens of a step; 0: by the card")
	f.IntVar(&o.vllm.BlockSize, "block-size", 0, "vllm: tokens of a page; 0: 16")
	f.StringVar(&o.cache, "kv-cache-dtype", "auto", "vllm: auto, fp8, fp8_per_token_head, fp8_ds_mla or nvfp4")
	f.IntVar(&o.batch, "generate-batch", 1, "transformers: sequences generated at once")
	f.BoolVar(&o.allLogits, "all-logits", false, "transformers: keep every token's logits, as forward does")
}

// other reports whether an engine other than llama.cpp is asked for.
func (o *engineFlags) other() bool { return o.name != "llama.cpp" }

// The documents of `weigh estimate --engine vllm --json`, of the same shape as
// llama.cpp's where they say the same.
type (
	otherEngineDocument struct {
		Schema   int                  `json:"schema"`
		Engine   engineDocument       `json:"engine"`
		Model    modelDocument        `json:"model"`
		Settings map[string]any       `json:"settings"`
		Devices  []memoryDocument     `json:"devices"`
		Terms    []engineTermDocument `json:"terms"`
		KV       *engineCacheDocument `json:"kv_cache"`
		Basis    map[string]string    `json:"basis"`
		Fits     bool                 `json:"fits"`
		Notes    []string             `json:"notes"`
	}
	engineTermDocument struct {
		Name    string `json:"name"`
		Low     uint64 `json:"low"`
		High    uint64 `json:"high"`
		Basis   string `json:"basis"`
		Formula string `json:"formula"`
		Source  string `json:"source"`
	}
	engineCacheDocument struct {
		Low           uint64 `json:"bytes_low"`
		High          uint64 `json:"bytes_high"`
		PageBytes     uint64 `json:"page_bytes"`
		BlockSize     int    `json:"block_size"`
		BlockLayers   int    `json:"block_layers"`
		BlocksLow     uint64 `json:"blocks_low"`
		BlocksHigh    uint64 `json:"blocks_high"`
		RequestBlocks uint64 `json:"request_blocks"`
		TokensLow     uint64 `json:"tokens_low"`
		MaxLenLow     int    `json:"max_model_len_low"`
		MaxLenHigh    int    `json:"max_model_len_high"`
	}
)

// runEngine estimates another engine.
func runEngine(cmd *cobra.Command, s *session, o *engineFlags) error {
	var d *otherEngineDocument
	var err error
	switch o.name {
	case "vllm":
		d, err = estimateVLLM(s, o)
	case "transformers":
		d, err = estimateTransformers(s, o)
	default:
		return fmt.Errorf("--engine %s: llama.cpp, vllm and transformers are known", o.name)
	}
	if err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	if s.req.json {
		err = writeJSON(w, d)
	} else {
		printEngine(w, render.StyleOf(w), d)
	}
	if err == nil && !d.Fits {
		return errNo
	}
	return err
}

// engineModel returns the model with its weights as an engine loads them from a
// folder: packed as they are stored, towers for images and sound included, and
// without the head that the configuration calls a copy of the embedding.
func engineModel(ins *inspect.Inspection) (m vllm.Model, notes []string) {
	m = vllmModel(ins.Model)
	h := ins.HF
	if h == nil {
		return m, nil
	}
	m.Tied = m.Tied || h.Tied
	held := make(map[string]uint64, len(h.Held))
	for i, n := range h.Held {
		held[h.Source.Tensors[i].Name] = n
	}
	for i := range m.Tensors {
		t := &m.Tensors[i]
		t.Bytes = held[t.Name]
	}
	for _, w := range h.Multimodal() {
		m.Tensors = append(m.Tensors, vllm.Tensor{Name: w.Name, Bytes: w.Bytes})
	}
	if h.Quant != nil && h.Quant.Params > 0 {
		notes = append(notes, fmt.Sprintf("the weights stay packed as they are stored (%s)", h.Quant.Method))
	}
	return m, notes
}

// halved makes weights of 32 bits into ones of 16: vLLM loads no others unless
// told to.
//
// Source: vllm/config/model.py, _resolve_auto_dtype.
func halved(m *vllm.Model) {
	for i := range m.Tensors {
		t := &m.Tensors[i]
		if n := elements(t.Shape); len(t.Shape) >= 2 && t.Bytes == 4*n {
			t.Bytes = 2 * n
		}
	}
}

// elements returns the product of a stored tensor's dimensions.
func elements(shape []uint64) uint64 {
	n, _ := formats.Elements(shape)
	return n
}

func estimateVLLM(s *session, o *engineFlags) (*otherEngineDocument, error) {
	devices := s.asked.Devices
	if len(devices) == 0 {
		return nil, errors.New("vLLM needs a GPU: name some with --gpu")
	}
	g := vllm.GPU{}
	for i, d := range devices {
		if d.MemoryTotal == nil {
			return nil, fmt.Errorf("device %d (%.80q): its memory is not known: say it with --gpu", i, d.Name)
		}
		if i == 0 || *d.MemoryTotal < g.Total {
			g = vllm.GPU{Total: *d.MemoryTotal, A100: strings.Contains(d.Name, "A100")}
			if d.MemoryFree != nil {
				g.Free = *d.MemoryFree
			}
		}
	}
	m, notes := engineModel(s.Inspection)
	halved(&m)
	opt := o.vllm
	opt.Cache = vllm.CacheType(o.cache)
	opt.MaxModelLen = cmp.Or(opt.MaxModelLen, s.asked.NCtx)
	if share := math.Floor(100*float64(g.Free)/float64(g.Total)) / 100; opt.Utilization == 0 && g.Free > 0 && 0 < share && share < vllm.DefaultUtilization {
		opt.Utilization = share
		notes = append(notes, fmt.Sprintf("less than %v of a GPU is free, which vLLM would refuse: this is with --gpu-memory-utilization %v", vllm.DefaultUtilization, share))
	}
	if opt.TensorParallel == 0 && opt.PipelineParallel <= 1 {
		opt.TensorParallel = 1
		for _, tp := range m.TensorParallelSizes(len(devices)) {
			if len(devices)%tp == 0 {
				opt.TensorParallel = tp
			}
		}
	}
	opt.TensorParallel = max(opt.TensorParallel, 1)
	if opt.PipelineParallel == 0 {
		opt.PipelineParallel = max(len(devices)/opt.TensorParallel, 1)
	}
	if n := opt.TensorParallel * opt.PipelineParallel; n > len(devices) {
		return nil, fmt.Errorf("tensor parallel size %d with %d pipeline stages wants %d GPUs, there are %d", opt.TensorParallel, opt.PipelineParallel, n, len(devices))
	}
	e, err := vllm.New(m, g, opt)
	if err != nil {
		return nil, err
	}
	d := newOtherEngine(s, "vllm", append(notes, s.Model.Notes...))
	t := e.Options
	d.Settings = map[string]any{
		"tensor_parallel_size": t.TensorParallel, "pipeline_parallel_size": t.PipelineParallel, "enable_expert_parallel": t.ExpertParallel,
		"gpu_memory_utilization": t.Utilization, "max_model_len": t.MaxModelLen, "max_num_seqs": t.MaxNumSeqs,
		"max_num_batched_tokens": t.MaxBatchedTokens, "block_size": t.BlockSize, "kv_cache_dtype": string(t.Cache),
	}
	d.addTerms(e.Terms)
	d.Fits = e.Fits()
	d.KV = &engineCacheDocument{
		e.KVLow, e.KVHigh, e.PageBytes, t.BlockSize, e.BlockLayers, e.BlocksLow, e.BlocksHigh, e.RequestBlocks, e.TokensLow(), e.MaxLenLow, e.MaxLenHigh,
	}
	for i := range t.TensorParallel * t.PipelineParallel {
		d.addDevice(&devices[i], i, e.KVLow, d.Fits)
	}
	return d, nil
}

func estimateTransformers(s *session, o *engineFlags) (*otherEngineDocument, error) {
	m, notes := engineModel(s.Inspection)
	if s.GGUF != nil {
		for i := range m.Tensors {
			t := &m.Tensors[i]
			t.Bytes = max(t.Bytes, 2*elements(t.Shape))
		}
		notes = append(notes, "transformers unpacks the weights of a GGUF: 2 bytes each")
	}
	if unpacks(s) {
		for i := range m.Tensors {
			t := &m.Tensors[i]
			if n := elements(t.Shape); len(t.Shape) >= 2 {
				t.Bytes = max(t.Bytes, 2*n)
			}
		}
		notes = []string{"transformers unpacks FP8 weights to 16 bits on GPUs before compute capability 8.9"}
	}
	if o.batch < 1 {
		return nil, fmt.Errorf("--generate-batch %d: want at least one sequence", o.batch)
	}
	g := vllm.Generation{Batch: o.batch, Tokens: s.asked.NCtx, AllLogits: o.allLogits, GPUs: max(len(s.asked.Devices), 1)}
	terms, err := vllm.Transformers(m, g)
	if err != nil {
		return nil, err
	}
	d := newOtherEngine(s, "transformers", append(notes, s.Model.Notes...))
	d.Settings = map[string]any{"batch": g.Batch, "tokens": cmp.Or(g.Tokens, m.ContextLength), "all_logits": g.AllLogits}
	d.addTerms(terms)
	var high uint64
	for _, t := range terms {
		high += t.High
	}
	d.Fits = true
	held := func(free *uint64) bool { return free == nil || high <= *free }
	for i := range s.asked.Devices {
		dev := &s.asked.Devices[i]
		d.addDevice(dev, i, 0, held(dev.MemoryFree))
		d.Fits = d.Fits && held(dev.MemoryFree)
	}
	if len(s.asked.Devices) == 0 {
		if n, _, ok := s.machine.Host.Usable(); ok {
			d.Fits = held(&n)
			d.Notes = append(d.Notes, "no GPU: compared with the host's memory")
		}
	}
	return d, nil
}

// unpacks reports whether transformers unpacks the weights because the GPU has no
// arithmetic for them.
//
// Source: transformers, quantizers/quantizer_finegrained_fp8.py, validate_environment.
func unpacks(s *session) bool {
	if s.HF == nil || s.HF.Quant == nil || s.HF.Quant.Method != "fp8" || len(s.asked.Devices) == 0 {
		return false
	}
	c := s.asked.Devices[0].ComputeCapability
	return c.Known() && (c.Major < 8 || c.Major == 8 && c.Minor < 9)
}

func newOtherEngine(s *session, name string, notes []string) *otherEngineDocument {
	backend := "cpu"
	if len(s.asked.Devices) > 0 {
		backend = cmp.Or(s.asked.Devices[0].Backend, hw.CUDA)
	}
	return &otherEngineDocument{
		Schema: 1, Engine: engineDocument{name, "", backend}, Model: newModelDocument(s), Devices: []memoryDocument{}, Terms: []engineTermDocument{},
		Basis: map[string]string{"model": "exact", "context": "exact", "compute": "modelled", "overhead": "modelled"}, Notes: append([]string{}, notes...),
	}
}

func (d *otherEngineDocument) addTerms(terms []vllm.Term) {
	for _, t := range terms {
		basis := "exact"
		if t.Low != t.High {
			basis = "modelled"
		}
		d.Terms = append(d.Terms, engineTermDocument{t.Name, t.Low, t.High, basis, t.Formula, t.Source})
	}
}

// addDevice adds a device's row: the upper ends of the terms, and the cache.
func (d *otherEngineDocument) addDevice(dev *hw.Device, i int, cache uint64, fits bool) {
	row := memoryDocument{Name: fmt.Sprintf("GPU%d", i), Description: dev.Name, Context: cache, MemoryTotal: dev.MemoryTotal, MemoryFree: dev.MemoryFree, Fits: fits}
	for _, t := range d.Terms {
		switch name := strings.ToLower(t.Name); {
		case strings.Contains(name, "weight"):
			row.Model += t.High
		case strings.Contains(name, "cache"), strings.Contains(name, "state"):
			row.Context += t.High
		case strings.Contains(name, "driver"), strings.Contains(name, "context"):
			row.Overhead += t.High
		default:
			row.Compute += t.High
		}
	}
	row.Total = row.Model + row.Context + row.Compute + row.Overhead
	d.Devices = append(d.Devices, row)
}

// printEngine writes the terms of a GPU, and the cache that is left.
func printEngine(w io.Writer, style render.Style, d *otherEngineDocument) {
	fmt.Fprintf(w, "%s with %s, on %s\n\n", style.Bold(render.Text(d.Model.Name)), d.Engine.Name, plural(max(len(d.Devices), 1), "device"))
	rows := [][]string{{"each", "from", "to", "how"}}
	for _, t := range d.Terms {
		if t.High == 0 {
			continue
		}
		rows = append(rows, []string{t.Name, render.Bytes(t.Low), render.Bytes(t.High), t.Formula})
	}
	if c := d.KV; c != nil {
		rows = append(rows, []string{"left for the cache", render.Bytes(c.Low), render.Bytes(c.High), fmt.Sprintf("blocks of %d tokens: %d to %d", c.BlockSize, c.BlocksLow, c.BlocksHigh)})
	}
	render.Columns(w, rows, 1, 2)
	if c := d.KV; c != nil {
		fmt.Fprintln(w)
		render.Prose(w, 2, fmt.Sprintf("room for %d tokens over all sequences; one sequence of %v takes %d blocks; the longest has %d to %d tokens",
			c.TokensLow, d.Settings["max_model_len"], c.RequestBlocks, c.MaxLenLow, c.MaxLenHigh))
	}
	if d.Fits {
		fmt.Fprintln(w, style.Green("It fits."))
	} else {
		fmt.Fprintln(w, style.Red("It does not fit."))
	}
	for _, n := range d.Notes {
		render.Prose(w, 6, style.Yellow("note:")+" "+render.Text(n))
	}
}
