package speed

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"

	"weigh/estimate"
	"weigh/inspect/model"
)

// A Bench is one row of llama-bench: a prompt read (NGen 0) or tokens generated
// (NPrompt 0) after Depth tokens.
type Bench struct {
	NPrompt, NGen, Depth int
	NGPULayers           int     // 99 where the row does not say; negative: all
	NCPUMoE              int     // layers whose experts are on the host
	NUBatch              int     // 0: 512
	Params               uint64  // of the model that was measured; 0: not said
	TPS                  float64 // tokens per second, the mean
}

// maxBench bounds what is read of a benchmark's output.
const maxBench = 4 << 20

// ParseBench reads llama-bench's output in any of its formats: JSON, JSON lines,
// CSV, SQL or the markdown table that it writes by default.
//
// Source: tools/llama-bench/llama-bench.cpp@v0.5.0, the printers.
func ParseBench(r io.Reader) ([]Bench, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxBench+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxBench {
		return nil, fmt.Errorf("longer than %d bytes: llama-bench writes less", maxBench)
	}
	text = bytes.TrimSpace(text)
	var rows []Bench
	switch {
	case len(text) == 0:
		return nil, errors.New("is empty")
	case text[0] == '[', text[0] == '{':
		rows, err = benchJSON(text)
	case bytes.Contains(text, []byte("INSERT INTO")):
		rows, err = benchSQL(string(text))
	case bytes.Contains(text, []byte("t/s")) && bytes.Contains(text, []byte("|")):
		rows, err = benchMarkdown(string(text))
	default:
		rows, err = benchCSV(string(text))
	}
	if err != nil {
		return nil, err
	}
	kept := rows[:0]
	for _, b := range rows {
		if b.TPS > 0 && b.TPS < 1e9 && min(b.NCPUMoE, b.NUBatch) >= 0 && max(b.NCPUMoE, b.NUBatch) < 1<<20 && (b.NGen > 0) != (b.NPrompt > 0) && min(b.NGen, b.NPrompt, b.Depth) >= 0 && max(b.NGen, b.NPrompt, b.Depth) < 1<<24 {
			kept = append(kept, b)
		}
	}
	if len(kept) == 0 {
		return nil, errors.New("no test of llama-bench with a speed is in it: it writes JSON (-o json, -o jsonl), CSV (-o csv), SQL (-o sql) or a markdown table")
	}
	return kept, nil
}

func benchJSON(text []byte) (rows []Bench, err error) {
	type row struct {
		NPrompt    int     `json:"n_prompt"`
		NGen       int     `json:"n_gen"`
		NDepth     int     `json:"n_depth"`
		NGPULayers *int    `json:"n_gpu_layers"`
		NCPUMoE    int     `json:"n_cpu_moe"`
		NUBatch    int     `json:"n_ubatch"`
		Params     uint64  `json:"model_n_params"`
		TPS        float64 `json:"avg_ts"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	for {
		var all []row
		var raw json.RawMessage
		if err := d.Decode(&raw); err == io.EOF {
			return rows, nil
		} else if err != nil {
			return nil, fmt.Errorf("JSON at byte %d: %w", d.InputOffset(), err)
		}
		if raw[0] == '[' {
			err = json.Unmarshal(raw, &all)
		} else {
			all = make([]row, 1)
			err = json.Unmarshal(raw, &all[0])
		}
		if err != nil {
			return nil, fmt.Errorf("JSON: %w", err)
		}
		for _, r := range all {
			b := Bench{NPrompt: r.NPrompt, NGen: r.NGen, Depth: r.NDepth, NGPULayers: 99, NCPUMoE: r.NCPUMoE, NUBatch: r.NUBatch, Params: r.Params, TPS: r.TPS}
			if r.NGPULayers != nil {
				b.NGPULayers = *r.NGPULayers
			}
			rows = append(rows, b)
		}
	}
}

func benchCSV(text string) (rows []Bench, err error) {
	r := csv.NewReader(strings.NewReader(text))
	r.FieldsPerRecord = -1
	lines, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("CSV: %w", err)
	}
	for _, line := range lines[1:] {
		rows = append(rows, benchRow(lines[0], line))
	}
	return rows, nil
}

// benchRow reads the values of one test by the names of its fields.
func benchRow(names, values []string) Bench {
	b := Bench{NGPULayers: 99}
	for i, name := range names[:min(len(names), len(values))] {
		v, err := strconv.ParseFloat(strings.TrimSpace(values[i]), 64)
		if err != nil || math.IsNaN(v) || math.Abs(v) > 1e15 {
			continue
		}
		n := int(max(min(v, math.MaxInt32), math.MinInt32))
		switch strings.TrimSpace(name) {
		case "n_prompt":
			b.NPrompt = n
		case "n_gen":
			b.NGen = n
		case "n_depth":
			b.Depth = n
		case "n_gpu_layers":
			b.NGPULayers = n
		case "n_cpu_moe":
			b.NCPUMoE = n
		case "n_ubatch":
			b.NUBatch = n
		case "model_n_params":
			b.Params = uint64(max(v, 0))
		case "avg_ts":
			b.TPS = v
		}
	}
	return b
}

func benchSQL(text string) (rows []Bench, err error) {
	for line := range strings.Lines(text) {
		head, values, ok := strings.Cut(strings.TrimSuffix(strings.TrimSpace(line), ");"), " VALUES (")
		_, names, insert := strings.Cut(head, "(")
		if !ok || !insert || !strings.HasPrefix(line, "INSERT INTO") {
			continue
		}
		names, _, _ = strings.Cut(names, ")")
		rows = append(rows, benchRow(strings.Split(names, ","), strings.Split(strings.Trim(values, "'"), "', '")))
	}
	return rows, nil
}

// test is a cell such as "pp512", "tg128" or "tg128 @ d4096".
var test = regexp.MustCompile(`^(pp|tg)(\d{1,9})(?: @ d(\d{1,9}))?$`)

func benchMarkdown(text string) (rows []Bench, err error) {
	var head []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			continue
		}
		var cells []string
		for c := range strings.SplitSeq(strings.Trim(line, "|"), "|") {
			cells = append(cells, strings.TrimSpace(c))
		}
		if head == nil {
			head = cells
			continue
		}
		b := Bench{NGPULayers: 99}
		for i, c := range cells[:min(len(cells), len(head))] {
			switch head[i] {
			case "ngl":
				if n, err := strconv.Atoi(c); err == nil {
					b.NGPULayers = n
				}
			case "n_cpu_moe":
				b.NCPUMoE, _ = strconv.Atoi(c)
			case "n_ubatch":
				b.NUBatch, _ = strconv.Atoi(c)
			case "params":
				b.Params = inUnits(c)
			case "test":
				m := test.FindStringSubmatch(c)
				if m == nil {
					continue
				}
				n, _ := strconv.Atoi(m[2])
				if m[1] == "pp" {
					b.NPrompt = n
				} else {
					b.NGen = n
				}
				b.Depth, _ = strconv.Atoi(m[3])
			case "t/s":
				mean, _, _ := strings.Cut(c, "±")
				b.TPS, _ = strconv.ParseFloat(strings.TrimSpace(mean), 64)
			}
		}
		rows = append(rows, b)
	}
	return rows, nil
}

// inUnits reads a number such as "8.03 B" or "606.14 M"; 0 for none.
func inUnits(cell string) uint64 {
	number, unit, _ := strings.Cut(cell, " ")
	v, err := strconv.ParseFloat(number, 64)
	scale := map[string]float64{"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}[unit]
	if err != nil || !(v > 0) || v*scale > 1e15 {
		return 0
	}
	return uint64(math.Round(v * scale))
}

// sameModel is how far apart the parameters of one model may be: they are rounded,
// and a matrix that is used twice can count once or twice.
const sameModel = 1.1

// calibratedSpread is how far a speed may lie from a calibrated estimate.
const calibratedSpread = 1.15

// Calibrate returns factors with which the estimates of m on o's devices meet
// the benchmark, on the average of its rows. Rows with all layers on devices set
// the devices' factors, others the host's too. Rows of other models are left out.
func Calibrate(m *model.Model, o estimate.Options, all []Bench) (*Factors, error) {
	var params uint64
	for i := range m.Tensors {
		params += m.Tensors[i].Elements()
	}
	var rows []Bench
	for _, r := range all {
		if x := float64(r.Params) / float64(max(params, 1)); r.Params == 0 || x < sameModel && x > 1/sameModel {
			rows = append(rows, r)
		}
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("it measured a model of %d parameters, this one has %d", all[0].Params, params)
	}
	f := *Fitted()
	f.Source = fmt.Sprintf("bytes read over bandwidth, calibrated to %d rows of llama-bench", len(rows))
	set := f.devices()
	host := len(o.Devices) == 0
	for _, r := range rows {
		host = host || r.NGPULayers >= 0 && r.NGPULayers <= m.NLayerAll || r.NCPUMoE > 0
	}
	if host {
		set = append(set, &f.Host)
	}
	for _, generation := range []bool{true, false} {
		for range 4 { // a bandwidth is at most its peak, so that a round can fall short
			sum, n := 0.0, 0
			for _, r := range rows {
				if (r.NGen > 0) != generation {
					continue
				}
				got, err := r.estimate(m, o, &f)
				if err != nil {
					return nil, err
				}
				sum += math.Log(r.TPS / got)
				n++
			}
			if n == 0 {
				break
			}
			x := math.Exp(sum / float64(n))
			if !(x > 1./50 && x < 50) {
				return nil, fmt.Errorf("its speeds are %.3g of the estimate: was it measured with this model on this machine?", x)
			}
			for _, v := range set {
				if generation {
					v.Weights, v.Experts, v.Cache = min(v.Weights*x, 1), min(v.Experts*x, 1), min(v.Cache*x, 1)
					v.Operator /= x
				} else {
					v.Compute = min(v.Compute*x, 1)
				}
				v.Spread = calibratedSpread
			}
		}
	}
	return &f, nil
}

// estimate returns the speed of the row by the factors.
func (b *Bench) estimate(m *model.Model, o estimate.Options, f *Factors) (float64, error) {
	ngl := b.NGPULayers
	o.NGPULayers, o.NCtx, o.NParallel, o.KVUnified = &ngl, max(b.NPrompt+b.NGen+b.Depth, 256), 1, nil
	o.NUBatch = b.NUBatch
	if o.TensorSplit, o.Overrides = nil, nil; b.NCPUMoE > 0 {
		o.Overrides = estimate.NCPUMoE(min(b.NCPUMoE, m.NLayerAll))
	}
	s, err := Estimate(m, o, Query{Depth: max(b.Depth+b.NGen/2, 1), Prompt: max(b.NPrompt, 1), Factors: f})
	switch {
	case err != nil:
		return 0, err
	case b.NGen > 0 && s.Decode.Mid > 0:
		return s.Decode.Mid, nil
	case b.NGen == 0 && s.Prefill.Mid > 0:
		return s.Prefill.Mid, nil
	}
	return 0, errors.New("this model generates nothing")
}
