package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"weigh/cmd/weigh/internal/render"
	"weigh/estimate/hw"
	"weigh/estimate/training"
	"weigh/inspect"
	"weigh/inspect/model"
)

// trainFlags are a recipe as the command line spells it.
type trainFlags struct {
	recipe                                          training.Recipe
	method, precision, optimizer, sharding, offload string
	gpus                                            []string
	hostMemory                                      string
	json                                            bool
}

// newTrainCmd returns the sub-command that says what fine-tuning takes.
func newTrainCmd() *cobra.Command {
	var o trainFlags
	cmd := &cobra.Command{
		Use:   "train MODEL",
		Short: "Memory for full fine-tuning, LoRA and QLoRA, by optimizer, sharding, sequence length",
		Long: `Train gives the memory of fine-tuning a model on each GPU and on the host, line
by line with its formula and where that is from. Weights, gradients and optimizer
states are exact for the recipe; activations and overhead are modelled.

Exit code 1: it does not fit the GPUs that are there or that --gpu names.`,
		Example: `  weigh train model-folder --method qlora --sequence 4096 --checkpointing
  weigh train model.gguf --optimizer adamw-8bit --gpu "8x A100 80GB" --sharding fsdp
  weigh train model-folder --method lora --rank 64 --gpu "RTX 4090" --json`,
		Args: models(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runTrain(cmd, args[0], &o) },
	}
	f, r := cmd.Flags(), &o.recipe
	f.StringVar(&o.method, "method", string(training.Full), "full, lora or qlora")
	f.StringVar(&o.precision, "precision", string(training.Mixed), "mixed, autocast, fp32 or bf16")
	f.StringVar(&o.optimizer, "optimizer", string(training.AdamW), "adamw, adamw-8bit, sgd, sgd-momentum, adafactor, lion, lion-8bit or muon")
	f.StringVar(&o.sharding, "sharding", string(training.DDP), "ddp, zero1, zero2, zero3, fsdp, fsdp-grad-op or fsdp-hybrid")
	f.StringVar(&o.offload, "offload", string(training.NoOffload), "none, optimizer or all: what is kept on the host")
	f.IntVar(&r.GPUs, "gpus", 0, "GPUs over all nodes; 0: those that are there")
	f.IntVar(&r.PerNode, "gpus-per-node", 0, "GPUs of a node; 0: all")
	f.IntVar(&r.Batch, "batch", 1, "sequences per GPU and step")
	f.IntVar(&r.Sequence, "sequence", 2048, "tokens per sequence")
	f.BoolVar(&r.Checkpointing, "checkpointing", false, "gradient checkpointing: keep each layer's input alone")
	f.BoolVar(&r.EagerAttn, "eager-attention", false, "attention that keeps its scores, not flash attention")
	f.BoolVar(&r.Fused, "fused", false, "fused norms and chunked logits (Liger kernels)")
	f.BoolVar(&r.FP32Gradients, "fp32-gradients", false, "accumulate 16-bit gradients in 32 bits")
	f.IntVar(&r.Rank, "rank", 16, "rank of the adapters")
	f.StringSliceVar(&r.Targets, "target", nil, "`names` of the matrices adapted, PEFT's (q_proj) or parts of GGUF's (attn_q); default: all linear layers")
	f.BoolVar(&r.DoRA, "dora", false, "adapters with a magnitude per output")
	f.BoolVar(&r.SingleQuant, "single-quant", false, "QLoRA without double quantization")
	f.StringArrayVar(&o.gpus, "gpu", nil, "use this `hardware` instead of what is detected")
	f.StringVar(&o.hostMemory, "host-memory", "", "host memory to assume")
	f.BoolVar(&o.json, "json", false, "write one JSON document")
	return cmd
}

// The documents of `weigh train --json`.
type (
	trainDocument struct {
		Schema    int                 `json:"schema"`
		Model     string              `json:"model"`
		Recipe    recipeDocument      `json:"recipe"`
		Total     uint64              `json:"parameters"`
		Trainable uint64              `json:"trainable_parameters"`
		PerGPU    perGPUDocument      `json:"per_gpu"`
		PerNode   uint64              `json:"per_node_host"`
		Basis     map[string]string   `json:"basis"`
		Terms     []trainTermDocument `json:"terms"`
		DeepSpeed *deepSpeedDocument  `json:"deepspeed_estimator"`
		GPUMemory *uint64             `json:"gpu_memory_free"`
		Host      *uint64             `json:"host_memory_free"`
		Fits      *bool               `json:"fits"`
		Batch     *int                `json:"largest_batch"`
		Sequence  *int                `json:"longest_sequence"`
		Instead   []insteadDocument   `json:"instead"` // where it does not fit: thriftier recipes
		Notes     []string            `json:"notes"`
	}
	insteadDocument struct {
		Args     []string `json:"args"`
		Total    uint64   `json:"per_gpu_total"`
		Fits     bool     `json:"fits"`
		Batch    *int     `json:"largest_batch"`
		Sequence *int     `json:"longest_sequence"`
	}
	recipeDocument struct {
		Method        string   `json:"method"`
		Precision     string   `json:"precision"`
		Optimizer     string   `json:"optimizer"`
		Sharding      string   `json:"sharding"`
		Offload       string   `json:"offload"`
		GPUs          int      `json:"gpus"`
		PerNode       int      `json:"gpus_per_node"`
		Batch         int      `json:"batch"`
		Sequence      int      `json:"sequence"`
		Checkpointing bool     `json:"checkpointing"`
		EagerAttn     bool     `json:"eager_attention"`
		Fused         bool     `json:"fused"`
		FP32Gradients bool     `json:"fp32_gradients"`
		Rank          int      `json:"rank,omitempty"`
		Targets       []string `json:"targets,omitempty"`
		DoRA          bool     `json:"dora,omitempty"`
		DoubleQuant   bool     `json:"double_quant,omitempty"`
	}
	perGPUDocument struct {
		Weights     uint64 `json:"weights"`
		Gradients   uint64 `json:"gradients"`
		Optimizer   uint64 `json:"optimizer"`
		Activations uint64 `json:"activations"`
		Logits      uint64 `json:"logits"`
		Overhead    uint64 `json:"overhead"`
		OverheadLow uint64 `json:"overhead_low"`
		Total       uint64 `json:"total"`
	}
	trainTermDocument struct {
		Kind    string `json:"kind"`
		Name    string `json:"name"`
		Bytes   uint64 `json:"bytes"`
		Host    bool   `json:"host"`
		Formula string `json:"formula"`
		Source  string `json:"source"`
	}
	deepSpeedDocument struct {
		PerGPU  uint64 `json:"per_gpu"`
		PerNode uint64 `json:"per_node_host"`
	}
)

func runTrain(cmd *cobra.Command, name string, o *trainFlags) error {
	ins, err := openTarget(name)
	if err != nil {
		return err
	}
	defer ins.Close()
	if ins.Model == nil {
		return fmt.Errorf("%s: %w", name, ins.Reason)
	}
	if len(ins.Model.Tensors) == 0 {
		return fmt.Errorf("%s: there are no weights here, only their description", name)
	}
	mach, _, err := machine(cmd.Context(), o.gpus, nil, nil)
	if err != nil {
		return err
	}
	mach.Devices, _ = hw.Taken(mach.Devices)
	r := o.recipe
	r.Method, r.Precision, r.Optimizer = training.Method(o.method), training.Precision(o.precision), training.Optimizer(o.optimizer)
	r.Sharding, r.Offload = training.Sharding(o.sharding), training.Offload(o.offload)
	for _, n := range []struct {
		flag string
		n    int
	}{{"--gpus", r.GPUs}, {"--gpus-per-node", r.PerNode}, {"--batch", r.Batch - 1}, {"--sequence", r.Sequence - 1}, {"--rank", r.Rank - 1}} {
		if n.n < 0 {
			return fmt.Errorf("%s: too small", n.flag)
		}
	}
	if r.GPUs == 0 {
		r.GPUs = max(len(mach.Devices), 1)
	}
	m := trainingModel(ins)
	e, err := training.New(m, r)
	if err != nil {
		return err
	}
	d := newTrainDocument(ins, e)
	if err := d.fit(m, e.Recipe, mach, o, ins.Model.NCtxTrain); err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	if o.json {
		err = writeJSON(w, d)
	} else {
		printTrain(w, render.StyleOf(w), d)
	}
	if err == nil && d.Fits != nil && !*d.Fits {
		return errNo
	}
	return err
}

// trainingModel returns what of a model its training depends on. Frequencies of
// rotary embeddings are no parameters, a head that is the embedding is none of
// its own, and frameworks leave out the blocks that predict further tokens.
func trainingModel(ins *inspect.Inspection) training.Model {
	m := ins.Model
	t := training.Model{Hidden: m.NEmbd, Vocab: m.NVocab}
	for i := range m.Tensors {
		name := m.Tensors[i].Name
		il, _ := model.SplitName(name)
		if il >= blocks(m) || strings.Contains(name, "rope_freqs") || strings.Contains(name, "rope_factors") || name == "output.weight" && headIsCopy(ins) {
			continue
		}
		t.Tensors = append(t.Tensors, training.Tensor{Name: name, Shape: m.Tensors[i].Shape})
	}
	if ins.HF != nil {
		for _, w := range ins.HF.Multimodal() {
			shape := slices.Clone(w.Shape)
			slices.Reverse(shape)
			t.Tensors = append(t.Tensors, training.Tensor{Name: w.Name, Shape: shape})
		}
	}
	for il := range blocks(m) {
		t.Layers = append(t.Layers, trainingLayer(m, il))
	}
	if len(t.Layers) > 0 {
		// A decoder beside the encoder attends to itself and to the encoder.
		l := t.Layers[0]
		l.Query, l.KeyValue, l.Heads = 2*l.Query, 2*l.KeyValue, 2*l.Heads
		for il := 0; m.Index.Global(fmt.Sprintf("dec.blk.%d.ffn_up.weight", il)) >= 0; il++ {
			t.Layers = append(t.Layers, l)
		}
	}
	return t
}

// blocks returns how many blocks of a model other engines than llama.cpp load:
// those that predict further tokens only where there are no others.
func blocks(m *model.Model) int { return cmp.Or(m.NLayer(), m.NLayerAll) }

// headIsCopy reports whether a folder stores its head though the configuration
// calls it the embedding.
func headIsCopy(ins *inspect.Inspection) bool { return ins.HF != nil && ins.HF.Tied }

// trainingLayer returns what a block keeps of a token until its backward pass.
func trainingLayer(m *model.Model, il int) training.Layer {
	has := func(rest string) bool { return m.Index.Layer(il, rest+".weight") >= 0 }
	l := training.Layer{}
	switch {
	case m.IsRecr(il):
		// Both halves of the input projection, the convolution's output and the scan's.
		l.Query = max(m.SSMDInner, m.NEmbd)
		l.KeyValue = l.Query
	default:
		l.Heads = m.NHead(il)
		l.Query = m.NHead(il) * m.NEmbdHeadK(il)
		l.KeyValue = max(m.NEmbdKGQA(il), m.NEmbdVGQA(il))
		if m.IsMLA() {
			l.Query, l.KeyValue = m.NHead(il)*m.HeadKMLA(), m.NHead(il)*max(m.HeadKMLA(), m.HeadVMLA())
		}
	}
	l.FF, l.Gated = m.NFF(il), has("ffn_gate") || m.Index.Global(fmt.Sprintf("enc.blk.%d.ffn_gate.weight", il)) >= 0
	if up := m.Index.Layer(il, "ffn_up.weight"); up >= 0 && len(m.Tensors[up].Shape) == 2 && m.Tensors[up].Shape[1] == 2*uint64(l.FF) {
		l.Gated = true // gate and up in one matrix
	}
	if has("ffn_gate_inp") {
		width := m.NFFExp(il)
		if width == 0 {
			width = m.NFF(il)
		}
		l.Experts = m.NExpertUsed(il)
		l.FF = width * l.Experts
		l.Gated = has("ffn_gate_exps") || has("ffn_gate_up_exps")
		if has("ffn_up_shexp") {
			shared := m.NFFShexp
			if shared == 0 {
				shared = width * max(m.NExpertShared, 1)
			}
			l.FF += shared
		}
	}
	return l
}

func newTrainDocument(ins *inspect.Inspection, e *training.Estimate) *trainDocument {
	r := e.Recipe
	d := &trainDocument{
		Schema: 1, Model: ins.Model.Name, Total: e.Total, Trainable: e.Trainable, PerNode: e.PerNode(), Notes: []string{},
		Recipe: recipeDocument{
			Method: string(r.Method), Precision: string(r.Precision), Optimizer: string(r.Optimizer), Sharding: string(r.Sharding), Offload: string(r.Offload),
			GPUs: r.GPUs, PerNode: r.PerNode, Batch: r.Batch, Sequence: r.Sequence,
			Checkpointing: r.Checkpointing, EagerAttn: r.EagerAttn, Fused: r.Fused, FP32Gradients: r.FP32Gradients,
		},
		PerGPU: perGPUDocument{
			e.PerGPU(training.Weights), e.PerGPU(training.Gradients), e.PerGPU(training.States), e.PerGPU(training.Activations),
			e.PerGPU(training.Logits), e.PerGPU(training.Overhead), e.OverheadLow, e.PerGPU(),
		},
		Basis: map[string]string{"weights": "exact", "gradients": "exact", "optimizer": "exact", "activations": "modelled", "logits": "modelled", "overhead": "modelled"},
	}
	if r.Method != training.Full {
		d.Recipe.Rank, d.Recipe.Targets, d.Recipe.DoRA = r.Rank, r.Targets, r.DoRA
		d.Recipe.DoubleQuant = r.Method == training.QLoRA && !r.SingleQuant
	}
	for _, t := range e.Terms {
		d.Terms = append(d.Terms, trainTermDocument{string(t.Kind), t.Name, t.Bytes, t.Host, t.Formula, t.Source})
	}
	if gpu, host, ok := e.DeepSpeed(); ok {
		d.DeepSpeed = &deepSpeedDocument{gpu, host}
	}
	if ins.GGUF != nil && ins.TensorBytes() < 2*ins.Parameters() {
		d.Notes = append(d.Notes, "the file is quantized: frameworks train from the original weights, whose shapes are the same")
	}
	return d
}

// fit compares the estimate with the GPUs there are and finds the largest
// recipes that they hold, of a model trained on sequences of so many tokens.
func (d *trainDocument) fit(m training.Model, r training.Recipe, mach hw.Machine, o *trainFlags, trained int) error {
	if o.hostMemory != "" {
		n, err := hw.ParseSize(o.hostMemory)
		if err != nil {
			return fmt.Errorf("--host-memory: %w", err)
		}
		d.Host = &n
	} else if n, _, ok := mach.Host.Usable(); ok {
		d.Host = &n
	}
	for _, dev := range mach.Devices {
		if dev.MemoryFree == nil {
			return nil
		}
		if d.GPUMemory == nil || *dev.MemoryFree < *d.GPUMemory {
			d.GPUMemory = dev.MemoryFree
		}
	}
	if d.GPUMemory == nil {
		return nil
	}
	host := uint64(1 << 62)
	if d.Host != nil {
		host = *d.Host
	}
	fits := d.PerGPU.Total <= *d.GPUMemory && d.PerNode <= host
	if d.PerNode > host {
		d.Notes = append(d.Notes, fmt.Sprintf("the host of each node is %s short", render.Bytes(d.PerNode-host)))
	}
	d.Fits = &fits
	var err error
	if d.Batch, d.Sequence, err = largest(m, r, *d.GPUMemory, host); err != nil {
		return err
	}
	if !fits {
		if d.Instead, err = instead(m, r, *d.GPUMemory, host); err != nil {
			return err
		}
	}
	if d.Sequence != nil && trained > 0 && *d.Sequence > trained {
		d.Notes = append(d.Notes, fmt.Sprintf("the model knows %d positions: a longer sequence, though it fits, wants them extended", trained))
	}
	return nil
}

// largest returns the largest batch and the longest sequence that a recipe
// leaves room for; nil for none.
func largest(m training.Model, r training.Recipe, gpu, host uint64) (batch, sequence *int, err error) {
	b, ok, err := training.Fit(m, r, gpu, host, training.Batch)
	if err != nil {
		return nil, nil, err
	}
	if ok {
		batch = &b.Recipe.Batch
	}
	s, ok, err := training.Fit(m, r, gpu, host, training.Sequence)
	if err == nil && ok {
		sequence = &s.Recipe.Sequence
	}
	return batch, sequence, err
}

// instead returns what thriftier recipes than r take, up to the first that fits.
func instead(m training.Model, r training.Recipe, gpu, host uint64) (list []insteadDocument, err error) {
	var args []string
	for _, step := range []struct {
		arg  string
		take func() bool // changes r, where there is something to change
	}{
		{"--checkpointing", func() bool { was := r.Checkpointing; r.Checkpointing = true; return !was }},
		{"--fused", func() bool { was := r.Fused; r.Fused = true; return !was }},
		{"--sharding fsdp", func() bool {
			if r.GPUs < 2 || r.Sharding != training.DDP {
				return false
			}
			r.Sharding = training.FSDP
			return true
		}},
		{"--method lora", func() bool {
			was := r.Method
			if was == training.Full {
				r.Method = training.LoRA
			}
			return was == training.Full
		}},
		{"--method qlora", func() bool { was := r.Method; r.Method = training.QLoRA; return was != training.QLoRA }},
		{"--batch 1", func() bool { was := r.Batch; r.Batch = 1; return was > 1 }},
	} {
		if !step.take() {
			continue
		}
		name, _, _ := strings.Cut(step.arg, " ")
		args = slices.DeleteFunc(slices.Clone(args), func(a string) bool { return strings.HasPrefix(a, name+" ") })
		args = append(args, step.arg)
		e, err := training.New(m, r)
		if err != nil {
			return nil, err
		}
		one := insteadDocument{Args: strings.Fields(strings.Join(args, " ")), Total: e.PerGPU(), Fits: e.PerGPU() <= gpu && e.PerNode() <= host}
		if one.Batch, one.Sequence, err = largest(m, r, gpu, host); err != nil {
			return nil, err
		}
		list = append(list, one)
		if one.Fits {
			break
		}
	}
	return list, nil
}

// printTrain writes the recipe and its terms.
func printTrain(w io.Writer, style render.Style, d *trainDocument) {
	r := &d.Recipe
	fmt.Fprintf(w, "%s  %s of %s parameters trained\n", style.Bold(render.Text(d.Model)), humanCount(d.Trainable), humanCount(d.Total))
	facts := []string{
		r.Method, r.Precision, r.Optimizer, r.Sharding, "offload " + r.Offload, plural(r.GPUs, "GPU"),
		"batch " + strconv.Itoa(r.Batch), "sequence " + strconv.Itoa(r.Sequence),
	}
	if r.Checkpointing {
		facts = append(facts, "checkpointing")
	}
	fmt.Fprintf(w, "  %s\n\n", wrap(facts, "  ", style.Width))
	rows := [][]string{{"per GPU", "bytes", "how", "source"}}
	for _, host := range []bool{false, true} {
		for _, t := range d.Terms {
			if t.Host == host {
				name := t.Name
				if host {
					name = "host: " + name
				}
				rows = append(rows, []string{name, render.Bytes(t.Bytes), t.Formula, t.Source})
			}
		}
	}
	rows = append(rows, []string{"total", render.Bytes(d.PerGPU.Total)})
	render.Columns(w, rows, 1)
	if d.PerNode > 0 {
		fmt.Fprintf(w, "\nhost memory of each node: %s\n", render.Bytes(d.PerNode))
	}
	if ds := d.DeepSpeed; ds != nil {
		fmt.Fprintln(w)
		render.Prose(w, 2, fmt.Sprintf("DeepSpeed's own estimator, states alone: %s per GPU, %s on the host of each node", render.Bytes(ds.PerGPU), render.Bytes(ds.PerNode)))
	}
	if d.Fits != nil {
		verdict := style.Green("fits")
		if d.PerGPU.Total > *d.GPUMemory {
			verdict = style.Red("does not fit")
		}
		fmt.Fprintf(w, "\n%s in %s free on each GPU\n", verdict, render.Size(d.GPUMemory))
		if d.PerNode > 0 && !*d.Fits && d.PerGPU.Total <= *d.GPUMemory {
			fmt.Fprintf(w, "%s in %s free on the host of each node\n", style.Red("does not fit"), render.Size(d.Host))
		}
		largest := func(n *int, what string) {
			if n != nil {
				fmt.Fprintf(w, "%s that fits: %d\n", what, *n)
			}
		}
		largest(d.Batch, "largest batch")
		largest(d.Sequence, "longest sequence")
	}
	if len(d.Instead) > 0 {
		fmt.Fprintln(w, "\nthriftier:")
		var rows [][]string
		for _, i := range d.Instead {
			verdict := style.Red("does not fit")
			if i.Fits {
				verdict = style.Green("fits")
			}
			rows = append(rows, []string{"  " + strings.Join(i.Args, " "), render.Bytes(i.Total), verdict})
		}
		render.Columns(w, rows, 1)
	}
	for _, n := range d.Notes {
		render.Prose(w, 6, style.Yellow("note:")+" "+n)
	}
}
