package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"weigh/cmd/weigh/internal/render"
	"weigh/estimate/hw"
	"weigh/estimate/vllm"
	"weigh/inspect/model"
)

// vllmDocument is what `weigh plan --engine vllm --json` writes.
type vllmDocument struct {
	Schema int            `json:"schema"`
	Engine engineDocument `json:"engine"`
	Model  modelDocument  `json:"model"`
	Fits   bool           `json:"fits"`
	Plans  []vllmPlan     `json:"plans"`
	Why    string         `json:"why,omitempty"`
}

type vllmPlan struct {
	TensorParallel   int        `json:"tensor_parallel_size"`
	PipelineParallel int        `json:"pipeline_parallel_size"`
	MaxModelLen      int        `json:"max_model_len"`
	Utilization      float64    `json:"gpu_memory_utilization"`
	KVTokens         uint64     `json:"kv_cache_tokens"`
	KVLow            uint64     `json:"kv_cache_bytes_low"`
	KVHigh           uint64     `json:"kv_cache_bytes_high"`
	Budget           uint64     `json:"budget_per_gpu"`
	Parts            []vllmTerm `json:"per_gpu"`
	Command          string     `json:"command"`
}

type vllmTerm struct {
	Name string `json:"name"`
	Low  uint64 `json:"low"`
	High uint64 `json:"high"`
}

// vllmModel says of a model what vLLM's memory depends on.
func vllmModel(m *model.Model) vllm.Model {
	v := vllm.Model{
		Hidden: m.NEmbd, Vocab: m.NVocab, Heads: m.NHead(0), Experts: m.NExpert, ContextLength: m.NCtxTrain, RotaryDim: m.NRot(0),
		Tied: m.Index.Global("output.weight") < 0,
	}
	for il := range blocks(m) {
		v.FF = max(v.FF, m.NFF(il), m.NFFExp(il))
		l := vllm.Layer{Kind: vllm.FullAttention, HeadsKV: m.NHeadKV(il), KeyDim: m.NEmbdHeadK(il), ValueDim: m.NEmbdHeadV(il)}
		switch {
		case m.IsRecr(il):
			// Convolutions in 16 bits; the rest in 32, which not all models ask for.
			l = vllm.Layer{Kind: vllm.Recurrent, StateBytes: 2*uint64(m.NEmbdR()) + 4*uint64(m.NEmbdS())}
		case m.IsMLA():
			l = vllm.Layer{Kind: vllm.LatentAttention, HeadsKV: 1, KeyDim: m.NEmbdKGQA(il)}
			if m.Layers[il].IndexerFull {
				l.IndexDim = m.IndexerHeadSize
			}
		case m.NHeadKV(il) == 0:
			l = vllm.Layer{}
		case m.IsSWA(il):
			l.Kind, l.Window = vllm.SlidingAttention, m.NSWA
			if m.SWAType == model.SWAChunked {
				l.Kind = vllm.ChunkedAttention
			}
		}
		v.Layers = append(v.Layers, l)
	}
	for _, t := range m.Tensors {
		if il, _ := model.SplitName(t.Name); il < blocks(m) {
			v.Tensors = append(v.Tensors, vllm.Tensor{Name: t.Name, Type: t.Type, Shape: t.Shape, Bytes: t.Bytes})
		}
	}
	return v
}

// runPlanVLLM plans for vLLM: parallel sizes that divide the model among the
// GPUs, the fewest pipeline stages first.
func runPlanVLLM(out io.Writer, s *session, o *planFlags) error {
	if _, err := o.want(s); err != nil {
		return err
	}
	devices := s.asked.Devices
	if len(devices) == 0 {
		return errors.New("vLLM needs a GPU: name some with --gpu")
	}
	g, least := vllm.GPU{}, uint64(0)
	for i, d := range devices {
		if d.MemoryTotal == nil {
			return fmt.Errorf("device %d (%.80q): its memory is not known: say it with --gpu or --rpc-memory", i, d.Name)
		}
		if n := hw.Usable(d, 0).Bytes; i == 0 || n < least {
			least = n
			g = vllm.GPU{Total: *d.MemoryTotal, A100: strings.Contains(d.Name, "A100")}
		}
	}
	m, _ := engineModel(s.Inspection)
	halved(&m)
	// vLLM asks for a part of the whole card, however much of it is free.
	util := min(vllm.DefaultUtilization, float64(uint64(100*float64(least)/float64(g.Total)))/100)
	d := &vllmDocument{Schema: 1, Engine: engineDocument{"vllm", "", cmp.Or(devices[0].Backend, hw.CUDA)}, Model: newModelDocument(s), Plans: []vllmPlan{}}
	sizes := m.TensorParallelSizes(len(devices))
	used := 0
	for i := len(sizes) - 1; i >= 0; i-- {
		tp := sizes[i]
		pp := len(devices) / tp
		if tp*pp < used { // more stages and fewer GPUs than before
			continue
		}
		e, err := vllm.New(m, g, vllm.Options{TensorParallel: tp, PipelineParallel: pp, Utilization: util, MaxModelLen: s.asked.NCtx})
		if err != nil {
			d.Why = err.Error()
			continue
		}
		length := e.Options.MaxModelLen
		if s.asked.NCtx == 0 {
			length = min(length, e.MaxLenLow)
		}
		if length == 0 || s.asked.NCtx > 0 && !e.Fits() {
			d.Why = fmt.Sprintf("with tensor parallel size %d and %d pipeline stages at least %s of each GPU are left for the cache, too little for a sequence of %d tokens: %d fit", tp, pp, render.Bytes(e.KVLow), e.Options.MaxModelLen, e.MaxLenLow)
			continue
		}
		used = tp * pp
		p := vllmPlan{TensorParallel: tp, PipelineParallel: pp, MaxModelLen: length, Utilization: util, KVTokens: e.TokensLow(), KVLow: e.KVLow, KVHigh: e.KVHigh, Budget: e.Budget}
		for _, t := range e.Terms {
			p.Parts = append(p.Parts, vllmTerm{t.Name, t.Low, t.High})
		}
		words := []string{"vllm", "serve", quote(s.served()), "--max-model-len", strconv.Itoa(length), "--gpu-memory-utilization", strconv.FormatFloat(util, 'g', 3, 64)}
		if tp > 1 {
			words = append(words, "--tensor-parallel-size", strconv.Itoa(tp))
		}
		if pp > 1 {
			words = append(words, "--pipeline-parallel-size", strconv.Itoa(pp))
		}
		p.Command = strings.Join(words, " ")
		d.Plans = append(d.Plans, p)
	}
	d.Fits = len(d.Plans) > 0
	if d.Fits {
		d.Why = ""
	}
	if s.req.json {
		if err := writeJSON(out, d); err != nil {
			return err
		}
	} else {
		printPlanVLLM(out, d)
	}
	if !d.Fits {
		return errNo
	}
	return nil
}

// served returns what `vllm serve` is given: the folder of safetensors, a GGUF.
func (s *session) served() string {
	switch {
	case s.HF == nil:
		return s.modelFile()
	case strings.HasSuffix(s.Path, ".safetensors"), strings.HasSuffix(s.Path, ".json"):
		return filepath.Dir(s.Path)
	}
	return s.Path
}

func printPlanVLLM(w io.Writer, d *vllmDocument) {
	if !d.Fits {
		fmt.Fprintf(w, "Nothing fits: %s\n", render.Text(d.Why))
		return
	}
	for i, p := range d.Plans {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "tensor parallel %d, pipeline parallel %d: sequences of %d tokens, room for %d in all\n", p.TensorParallel, p.PipelineParallel, p.MaxModelLen, p.KVTokens)
		var rows [][]string
		for _, t := range p.Parts {
			if t.High == 0 {
				continue
			}
			rows = append(rows, []string{"  " + t.Name, render.Bytes(t.Low), "to " + render.Bytes(t.High)})
		}
		rows = append(rows, []string{"  cache", render.Bytes(p.KVLow), "to " + render.Bytes(p.KVHigh)}, []string{"  of each GPU", render.Bytes(p.Budget), ""})
		render.Columns(w, rows, 1)
		fmt.Fprintf(w, "\n  %s\n", p.Command)
	}
}
