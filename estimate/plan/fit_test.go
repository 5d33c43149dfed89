package plan

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"weigh/estimate"
	"weigh/estimate/speed"
	"weigh/fixtures"
	"weigh/inspect/model"
)

// A fitRow is what llama.cpp's --fit chose on devices with all of GPUMiB free.
type fitRow struct {
	GGUF        string
	GPUMiB      []uint64  `json:"gpu_mib"`
	NParallel   int       `json:"n_parallel"`
	KVUnified   bool      `json:"kv_unified"`
	NOutputsMax int       `json:"n_outputs_max"`
	NCtx        int       `json:"n_ctx"`
	NGPULayers  int       `json:"n_gpu_layers"`
	TensorSplit []float32 `json:"tensor_split"`
	Overrides   []string
	Status      int
}

func fitRows(t *testing.T) (rows []fitRow) {
	f, err := fixtures.Truth.Open("truth/fit.jsonl.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(z)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var r fitRow
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, r)
	}
	return rows
}

// TestPlansBeatFit holds the plan against every choice of llama.cpp's --fit at
// the same context: it fits by the whole breakdown, and generates at least as
// fast; on several devices and with experts, mostly faster.
func TestPlansBeatFit(t *testing.T) {
	models := map[string]*model.Model{}
	rows, harder, better, unfit := 0, 0, 0, 0
	for i, r := range fitRows(t) {
		id := fmt.Sprintf("row %d, %s on %v at %d", i+1, r.GGUF, r.GPUMiB, r.NCtx)
		m := models[r.GGUF]
		if m == nil {
			m = fixture(t, strings.TrimSuffix(r.GGUF, ".gguf"))
			models[r.GGUF] = m
		}
		o := estimate.Options{Devices: cards(r.GPUMiB...), NCtx: r.NCtx, NParallel: r.NParallel, KVUnified: &r.KVUnified, NOutputs: &r.NOutputsMax}
		theirs := o
		if r.NGPULayers >= 0 {
			theirs.NGPULayers = &r.NGPULayers
		}
		if len(r.TensorSplit) > 1 {
			theirs.TensorSplit = r.TensorSplit
		}
		for _, v := range r.Overrides {
			pattern, buffer, _ := strings.Cut(v, "=")
			theirs.Overrides = append(theirs.Overrides, estimate.Override{Pattern: pattern, Buffer: buffer})
		}
		s, err := newSearch(t.Context(), m, o, Want{})
		if err != nil {
			t.Fatal(err)
		}
		want, err := speed.Estimate(m, theirs, s.w.Speed)
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		rows++
		hard := m.NExpert > 0 || len(r.GPUMiB) > 1
		_, _, fits, err := s.run(&theirs)
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		if !fits {
			unfit++
		}
		got, err := Best(t.Context(), m, o, Want{})
		if err != nil {
			t.Errorf("%s: %v", id, err)
			continue
		}
		if len(got.Plans) == 0 {
			t.Errorf("%s: no plan (llama.cpp's choice fits: %v): %s", id, fits, got.Why)
			continue
		}
		p := &got.Plans[0]
		for _, d := range p.Breakdown.Devices {
			if d.Total() > r.GPUMiB[d.Device]<<20 {
				t.Errorf("%s: the plan takes %d bytes of %s", id, d.Total(), d.Name)
			}
		}
		ratio := p.Speed.Decode.Mid / want.Decode.Mid
		if ratio < .99999 {
			t.Errorf("%s: %.3f of llama.cpp's choice %.2f (fits %v, %v, -ngl %d -ts %v, %d overrides), %s", id, ratio, want.Decode.Mid, fits, s.why, r.NGPULayers, r.TensorSplit, len(r.Overrides), p.Why)
		}
		// Where everything is on the devices there is nothing to gain.
		if hard && r.NGPULayers >= 0 {
			harder++
			if ratio > 1.001 {
				better++
			}
		}
	}
	t.Logf("%d rows, %d choices of llama.cpp do not fit with overheads and reserve; %d of %d with experts or several devices and not all on devices are faster", rows, unfit, better, harder)
	if better*2 < harder {
		t.Errorf("%d of %d rows with experts or several devices are faster, want most", better, harder)
	}
}
