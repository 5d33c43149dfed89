package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"weigh/estimate"
	"weigh/formats"
	"weigh/inspect/arch"
)

// A fitRow is what --fit chose on stated free memory.
type fitRow struct {
	id          string
	arch        string
	GGUF        string
	GPUMiB      []uint64 `json:"gpu_mib"`
	NParallel   int      `json:"n_parallel"`
	KVUnified   bool     `json:"kv_unified"`
	NOutputsMax int      `json:"n_outputs_max"`
	NCtxReq     int      `json:"n_ctx_req"`
	MarginMiB   uint64   `json:"margin_mib"`
	FitCtx      int      `json:"fit_ctx"`
	NCtx        int      `json:"n_ctx"`
	NGPULayers  int      `json:"n_gpu_layers"`
	TensorSplit []int    `json:"tensor_split"`
	Overrides   []string
	Devices     []struct {
		Name                    string
		Model, Context, Compute int64
	}

	noRow bool
	err   error
	steps []string
	diffs []string
}

func readFit(o *options) ([]*fitRow, error) {
	var rows []*fitRow
	n := 0
	err := lines("fit", func(line []byte) error {
		n++
		r := &fitRow{id: fmt.Sprintf("F%d", n)}
		if o.rows != nil && !o.rows[r.id] {
			return nil
		}
		if err := json.Unmarshal(line, r); err != nil {
			return fmt.Errorf("%s: %w", r.id, err)
		}
		if contains(r.GGUF, o.models) {
			rows = append(rows, r)
		}
		return nil
	})
	return rows, err
}

// check compares a row with the estimate's choice.
func (r *fitRow) check(t *truth, o *options) {
	defer func() {
		if p := recover(); p != nil {
			r.err = fmt.Errorf("PANIC %v", p)
		}
	}()
	m, err := t.model(r.GGUF)
	if err != nil {
		r.err = err
		return
	}
	r.arch = m.Arch
	if a := arch.Lookup(m.Arch); a == nil || a.Build == nil || (o.archs != nil && !o.archs[m.Arch]) {
		r.noRow = true
		return
	}
	f16 := formats.F16
	eo := estimate.Options{
		Devices: gpus(len(r.GPUMiB), r.GPUMiB...), NCtx: r.NCtxReq, NParallel: r.NParallel, KVUnified: &r.KVUnified,
		NOutputs: &r.NOutputsMax, TypeK: &f16, TypeV: &f16,
	}
	fo := estimate.FitOptions{Target: []uint64{r.MarginMiB << 20}, MinCtx: r.FitCtx}
	got, steps, err := estimate.Fit(m, eo, fo)
	r.steps = steps
	if err != nil {
		r.err = err
		return
	}
	differ := func(what string, want, got any) {
		if w, g := fmt.Sprint(want), fmt.Sprint(got); w != g {
			r.diffs = append(r.diffs, fmt.Sprintf("%s: want %s got %s", what, w, g))
		}
	}
	differ("n_ctx", r.NCtx, got.NCtx)
	ngl := -1
	if got.NGPULayers != nil {
		ngl = *got.NGPULayers
	}
	differ("n_gpu_layers", r.NGPULayers, ngl)
	ts := []int{0} // how the measurements write a split that is not set
	for i, v := range got.TensorSplit {
		ts = append(ts[:i], int(v))
	}
	differ("tensor_split", r.TensorSplit, ts)
	var over []string
	for _, v := range got.Overrides {
		over = append(over, v.Pattern+"="+v.Buffer)
	}
	differ("overrides", strings.Join(r.Overrides, ","), strings.Join(over, ","))
	b, err := estimate.Run(m, got)
	if err != nil {
		r.err = err
		return
	}
	for i, d := range r.Devices {
		if i < len(b.Devices) {
			g := &b.Devices[i]
			differ(d.Name, [3]int64{d.Model, d.Context, d.Compute}, [3]uint64{g.Model, g.Context, g.Compute})
		}
	}
}

func (r *fitRow) print(out io.Writer) {
	fmt.Fprintf(out, "fit %s %s MiB=%v np=%d n_ctx=%d\n", r.id, r.GGUF, r.GPUMiB, r.NParallel, r.NCtxReq)
	if r.err != nil {
		fmt.Fprintf(out, "    error: %v\n", r.err)
	}
	for _, d := range r.diffs {
		fmt.Fprintf(out, "    %s\n", d)
	}
	for _, s := range r.steps {
		fmt.Fprintf(out, "      %s\n", s)
	}
}
