package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"weigh/estimate"
	"weigh/estimate/hw"
	"weigh/fixtures"
	"weigh/formats"
	"weigh/formats/gguf"
	"weigh/inspect"
	"weigh/inspect/model"
)

// A row is one measurement.
type row struct {
	id       string
	Arch     string
	GGUF     string
	Settings settings
	OK       bool
	Error    string
	Devices  map[string]struct{ Model, Context, Compute uint64 }
	NCtx     int `json:"n_ctx_actual"`
	Graph    string
	FAAuto   string `json:"fa_auto"`
	Pipeline bool
}

type settings struct {
	GPUs        int       `json:"gpus"`
	NGPULayers  int       `json:"n_gpu_layers"`
	NCtx        int       `json:"n_ctx"`
	NBatch      int       `json:"n_batch"`
	NUBatch     int       `json:"n_ubatch"`
	NSeqMax     int       `json:"n_seq_max"`
	KVUnified   any       `json:"kv_unified"`
	FlashAttn   string    `json:"flash_attn"`
	TypeK       string    `json:"type_k"`
	TypeV       string    `json:"type_v"`
	OffloadKQV  bool      `json:"offload_kqv"`
	OpOffload   bool      `json:"op_offload"`
	SWAFull     bool      `json:"swa_full"`
	SplitMode   string    `json:"split_mode"`
	MainGPU     int       `json:"main_gpu"`
	TensorSplit []float32 `json:"tensor_split"`
	NCPUMoE     int       `json:"n_cpu_moe"`
	NCPUFFN     any       `json:"n_cpu_ffn"`
	OTCPU       string    `json:"ot_cpu"`
	Embeddings  bool      `json:"embeddings"`
	NOutputsMax int       `json:"n_outputs_max"`
	LoadMTP     bool      `json:"load_mtp"`
	CtxType     string    `json:"ctx_type"`
	NRsSeq      int       `json:"n_rs_seq"`
	NoHost      bool      `json:"no_host"`
	Repack      bool      `json:"repack"`
	Target      string    `json:"target"`
}

// String returns the settings that are not the measurements' usual ones.
func (s *settings) String() string {
	var b strings.Builder
	add := func(name string, v any, usual bool) {
		if !usual {
			fmt.Fprintf(&b, "%s=%v ", name, v)
		}
	}
	add("gpus", s.GPUs, s.GPUs == 1)
	add("ngl", s.NGPULayers, s.NGPULayers == -1)
	add("n_ctx", s.NCtx, false)
	add("ub", s.NUBatch, s.NUBatch == 512)
	add("n_seq_max", s.NSeqMax, s.NSeqMax == 1)
	add("kv_unified", s.KVUnified, s.KVUnified != true)
	add("fa", s.FlashAttn, s.FlashAttn == "auto")
	add("type_k", s.TypeK, s.TypeK == "f16")
	add("type_v", s.TypeV, s.TypeV == "f16")
	add("offload_kqv", s.OffloadKQV, s.OffloadKQV)
	add("op_offload", s.OpOffload, s.OpOffload)
	add("swa_full", s.SWAFull, !s.SWAFull)
	add("split_mode", s.SplitMode, s.SplitMode == "layer")
	add("main_gpu", s.MainGPU, s.MainGPU == 0)
	add("tensor_split", s.TensorSplit, len(s.TensorSplit) == 0)
	add("n_cpu_moe", s.NCPUMoE, s.NCPUMoE == 0)
	add("n_cpu_ffn", s.NCPUFFN, s.NCPUFFN == nil)
	add("ot_cpu", s.OTCPU, s.OTCPU == "")
	add("embeddings", s.Embeddings, !s.Embeddings)
	add("n_outputs_max", s.NOutputsMax, s.NOutputsMax == 0)
	add("load_mtp", s.LoadMTP, !s.LoadMTP)
	add("ctx_type", s.CtxType, s.CtxType == "default")
	add("n_rs_seq", s.NRsSeq, s.NRsSeq == 0)
	add("no_host", s.NoHost, !s.NoHost)
	add("repack", s.Repack, s.Repack)
	add("target", s.Target, s.Target == "")
	return strings.TrimSpace(b.String())
}

// deviceMiB is the memory of each device of the measurements.
const deviceMiB = 24576

func gpus(n int, mib ...uint64) []hw.Device {
	d := make([]hw.Device, n)
	for i := range d {
		size := uint64(deviceMiB) << 20
		if i < len(mib) {
			size = mib[i] << 20
		}
		d[i] = hw.Device{
			Index: i, Name: fmt.Sprintf("CUDA%d", i), Backend: hw.CUDA, ComputeCapability: hw.Capability{Major: 8, Minor: 9}, Assumed: true,
			MemoryTotal: &size, MemoryFree: &size,
		}
	}
	return d
}

// options turns a row's settings into the estimate's.
func (r *row) options(t *truth) (estimate.Options, error) {
	s := &r.Settings
	unified := s.KVUnified == true
	o := estimate.Options{
		Devices: gpus(s.GPUs), NCtx: s.NCtx, NBatch: s.NBatch, NUBatch: s.NUBatch, NParallel: s.NSeqMax, KVUnified: &unified,
		NOutputs: &s.NOutputsMax, NRsSeq: s.NRsSeq, NoKVOffload: !s.OffloadKQV, NoOpOffload: !s.OpOffload, SWAFull: s.SWAFull,
		Embeddings: s.Embeddings, NGPULayers: &s.NGPULayers, MainGPU: s.MainGPU, TensorSplit: s.TensorSplit,
		NoHost: s.NoHost, NoRepack: !s.Repack, MTP: s.LoadMTP, MTPContext: s.CtxType == "mtp",
	}
	switch s.FlashAttn {
	case "on":
		o.FlashAttn = estimate.FlashAttnOn
	case "off":
		o.FlashAttn = estimate.FlashAttnOff
	}
	switch s.SplitMode {
	case "none":
		o.SplitMode = estimate.SplitNone
	case "row":
		o.SplitMode = estimate.SplitRow
	}
	for _, v := range []struct {
		name string
		to   **formats.DType
	}{{s.TypeK, &o.TypeK}, {s.TypeV, &o.TypeV}} {
		typ, ok := formats.ParseDType(strings.ToUpper(v.name))
		if !ok {
			return o, fmt.Errorf("cache type %q", v.name)
		}
		*v.to = &typ
	}
	if s.NCPUMoE < 0 {
		o.Overrides = append(o.Overrides, estimate.CPUMoE())
	}
	o.Overrides = append(o.Overrides, estimate.NCPUMoE(s.NCPUMoE)...)
	if n, ok := s.NCPUFFN.(float64); ok {
		o.Overrides = append(o.Overrides, estimate.NCPUFFN(int(n))...)
	}
	if s.OTCPU != "" {
		o.Overrides = append(o.Overrides, estimate.Override{Pattern: s.OTCPU, Buffer: "CPU"})
	}
	if s.Target != "" {
		m, err := t.model(s.Target)
		if err != nil {
			return o, err
		}
		to := o
		o.Target, o.TargetOptions = m, &to
	}
	return o, nil
}

// truth is the measurements and their models.
type truth struct {
	rows []*row
	fit  []*fitRow

	mu     sync.Mutex
	models map[string]*loading
}

type loading struct {
	once sync.Once
	m    *model.Model
	err  error
}

// readTruth reads the rows that the options ask for.
func readTruth(o *options) (*truth, error) {
	t := &truth{models: map[string]*loading{}}
	files := []struct{ file, id string }{{"llamacpp", "L"}, {"architectures", "A"}}
	if o.truth != "" {
		files, o.fit = files[:1], false
	}
	for _, f := range files {
		n := 0
		read := lines
		if o.truth != "" {
			read = func(_ string, f func(line []byte) error) error { return plainLines(o.truth, f) }
		}
		err := read(f.file, func(line []byte) error {
			n++
			r := &row{id: fmt.Sprintf("%s%d", f.id, n)}
			if o.rows != nil && !o.rows[r.id] {
				return nil
			}
			if err := json.Unmarshal(line, r); err != nil {
				return fmt.Errorf("%s: %w", r.id, err)
			}
			if o.archs != nil && !o.archs[r.Arch] || !contains(r.GGUF, o.models) {
				return nil
			}
			t.rows = append(t.rows, r)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if !o.fit {
		return t, nil
	}
	var err error
	t.fit, err = readFit(o)
	return t, err
}

func contains(name string, parts map[string]bool) bool {
	for p := range parts {
		if strings.Contains(name, p) {
			return true
		}
	}
	return parts == nil
}

func lines(name string, f func(line []byte) error) error {
	path := "truth/" + name + ".jsonl.gz"
	file, err := fixtures.Truth.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	z, err := gzip.NewReader(file)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return scan(path, z, f)
}

func plainLines(path string, f func(line []byte) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return scan(path, file, f)
}

func scan(path string, r io.Reader, f func(line []byte) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if err := f(s.Bytes()); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return s.Err()
}

// model returns the model of a file, from its header.
func (t *truth) model(name string) (*model.Model, error) {
	t.mu.Lock()
	l := t.models[name]
	if l == nil {
		l = &loading{}
		t.models[name] = l
	}
	t.mu.Unlock()
	l.once.Do(func() { l.m, l.err = t.load(strings.TrimSuffix(filepath.Base(name), ".gguf")) })
	return l.m, l.err
}

func (t *truth) load(name string) (*model.Model, error) {
	b := fixtures.Model(name).Build()
	f, err := gguf.Read(bytes.NewReader(b.Data), b.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return inspect.Load(&gguf.Set{Files: []*gguf.File{f}})
}
