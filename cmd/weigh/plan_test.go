package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestPlanCommandsHold runs each plan's own command line through estimate: it
// means the same bytes, and they fit.
func TestPlanCommandsHold(t *testing.T) {
	onMachine(t, "rx7900xtx")
	for name, tt := range map[string]struct {
		model string
		args  []string
	}{
		"a dense model on one card":      {"Llama-3.1-8B-Q4_K_M", []string{"--gpu", "4GiB", "-c", "16384"}},
		"a dense model on two":           {"Qwen2.5-32B-Q4_K_M", []string{"--gpu", "12GiB", "--gpu", "8GiB"}},
		"experts on one card":            {"Qwen3-30B-A3B-Q4_K_M", []string{"--gpu", "RTX 3060 12GB", "-np", "2"}},
		"experts on two":                 {"GLM-4.5-Air-Q4_K_M", []string{"--gpu", "2x24GiB", "-c", "32768"}},
		"flags of the user are kept":     {"Qwen3-30B-A3B-Q4_K_M", []string{"--gpu", "16GiB", "-ctk", "q8_0", "-ctv", "q8_0", "-ub", "256", "--port", "8081"}},
		"a placement of the user's":      {"Qwen3-30B-A3B-Q4_K_M", []string{"--gpu", "16GiB", "-ngl", "99", "-ncmoe", "30", "-c", "8192"}},
		"a window and a recurrent state": {"Qwen3.5-27B-Q4_K_M", []string{"--gpu", "12GiB", "-c", "32768"}},
		"a host too small for its cache": {"Mistral-7B-v0.3-Q4_K_M", []string{"--gpu", "80GiB", "--host-memory", "2GiB"}},
		"a context too long to split":    {"Gemma-4-26B-A4B-Q4_K_M", []string{"--gpu", "2x24GiB", "-c", "1048576", "--prefer", "quality"}},
		"cards of different speed":       {"Qwen3-30B-A3B-Q4_K_M", []string{"--gpu", "RTX 5090:free=9GiB", "--gpu", "GTX 1080 Ti", "--gpu", "Radeon RX 6600:free=5GiB"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := modelFile(t, tt.model)
			machine := []string{"--host-memory", "128GiB"}
			for i, a := range tt.args {
				if a == "--gpu" || a == "--host-memory" {
					machine = append(machine, a, tt.args[i+1])
				}
			}
			var d planDocument
			weighJSON(t, 0, &d, append([]string{"plan", path, "--host-memory", "128GiB"}, tt.args...)...)

			if len(d.Plans) == 0 {
				t.Fatal("no plan")
			}
			for _, p := range d.Plans {
				var e estimateDocument
				weighJSON(t, 0, &e, append(append([]string{"estimate"}, p.Args...), machine...)...)
				for i := range p.Devices {
					if p.Devices[i].Total != e.Devices[i].Total {
						t.Errorf("%s: %s means %d bytes on %s, the plan says %d", p.Role, p.Command, e.Devices[i].Total, p.Devices[i].Name, p.Devices[i].Total)
					}
				}
				if !p.Fits || !e.Fits || p.Host.Total != e.Host.Total {
					t.Errorf("%s: fits %v, %v; host %d, want %d", p.Role, p.Fits, e.Fits, e.Host.Total, p.Host.Total)
				}
				if s := p.TPS.Decode; !(0 < s.Low && s.Low <= s.Mid && s.Mid <= s.High) {
					t.Errorf("%s: speed %+v", p.Role, s)
				}
			}
		})
	}
}

func TestPlanAnswers(t *testing.T) {
	onMachine(t, "rx7900xtx")
	bench := filepath.Join(t.TempDir(), "bench.json")
	if err := os.WriteFile(bench, []byte(`[{"n_gen":128,"avg_ts":150.2,"n_gpu_layers":99}]`), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args []string
		code int
		says string
	}{
		"a plan that fits":                 {[]string{"--gpu", "RTX 4090"}, 0, "llama-server -m"},
		"how it was found":                 {[]string{"--gpu", "RTX 4090", "--explain"}, 0, "weights +"},
		"speeds of a benchmark":            {[]string{"--gpu", "RTX 4090", "--calibrate", bench}, 0, "calibrated to 1 rows"},
		"vLLM":                             {[]string{"--gpu", "2x24GiB", "--engine", "vllm"}, 0, "--tensor-parallel-size 2"},
		"a card without free memory":       {[]string{"--gpu", "24GiB:free=0B"}, 1, "-dev none"},
		"a placement that does not fit":    {[]string{"--gpu", "3GiB", "-ngl", "99", "-nkvo"}, 1, "let the placement be chosen"},
		"a host without memory":            {[]string{"--gpu", "none", "--host-memory", "1GiB"}, 1, "smallest hardware"},
		"vLLM on a card too small":         {[]string{"--gpu", "4GiB", "--engine", "vllm"}, 1, "Nothing fits"},
		"two contexts":                     {[]string{"--gpu", "24GiB", "--ctx", "4096", "-c", "8192"}, 2, "two contexts"},
		"an engine that there is not":      {[]string{"--gpu", "24GiB", "--engine", "x"}, 2, "llama.cpp or vllm"},
		"a benchmark that is none":         {[]string{"--gpu", "24GiB", "--calibrate", os.DevNull}, 2, "is empty"},
		"a preference that there is not":   {[]string{"--gpu", "24GiB", "--prefer", "x"}, 2, "speed, context or quality"},
		"a split mode that is not offered": {[]string{"--gpu", "2x24GiB", "-sm", "row"}, 2, "-sm layer"},
	} {
		t.Run(name, func(t *testing.T) {
			out, trouble, code := weigh(t, append([]string{"plan", modelFile(t, "Llama-3.1-8B-Q4_K_M"), "--host-memory", "64GiB"}, tt.args...)...)
			if code != tt.code || !strings.Contains(out+trouble, tt.says) {
				t.Errorf("exit code %d, want %d; wrote %q and %q, want %q", code, tt.code, out, trouble, tt.says)
			}
		})
	}
}

func TestTable(t *testing.T) {
	onMachine(t, "rx7900xtx")
	a, b := modelFile(t, "Llama-3.1-8B-Q4_K_M"), modelFile(t, "Qwen3-30B-A3B-Q4_K_M")
	host := []string{"--host-memory", "64GiB"}
	for name, tt := range map[string]struct {
		args []string
		code int
		says string
	}{
		"models and cards":           {[]string{a, b, "--gpu", "RTX 4090", "--gpu", "2x RTX 3060"}, 0, "Qwen3-30B-A3B  full"},
		"the same in Markdown":       {[]string{a, b, "--gpu", "RTX 4090", "--gpu", "6GiB", "--format", "markdown"}, 0, "| --- | --- | --- |"},
		"contexts and cache types":   {[]string{a, "--gpu", "8GiB", "--by", "context", "--contexts", "4096,65536"}, 0, "q8_0"},
		"the same as CSV":            {[]string{a, "--gpu", "8GiB", "--by", "context", "--contexts", "4096", "--format", "csv"}, 0, "device_bytes"},
		"the ladder with its plot":   {[]string{a, "--gpu", "RTX 4090"}, 0, "layers on devices"},
		"nothing that fits":          {[]string{a, b, "--gpu", "24GiB:free=0B"}, 1, "does not fit"},
		"the ladder without a card":  {[]string{a, "--gpu", "none"}, 2, "no device"},
		"the ladder of two models":   {[]string{a, b, "--by", "layers"}, 2, "takes one model"},
		"a format that there is not": {[]string{a, "--gpu", "8GiB", "--format", "x"}, 2, "markdown or json"},
		"a type that there is not":   {[]string{a, "--gpu", "8GiB", "--by", "context", "--kv-types", "q9"}, 2, "no such cache type"},
		"no model":                   {nil, 2, "no model"},
	} {
		t.Run(name, func(t *testing.T) {
			out, trouble, code := weigh(t, append(append([]string{"table"}, tt.args...), host...)...)
			if code != tt.code || !strings.Contains(out+trouble, tt.says) {
				t.Errorf("exit code %d, want %d; wrote %q and %q, want %q", code, tt.code, out, trouble, tt.says)
			}
		})
	}
	var d comparison
	weighJSON(t, 0, &d, append([]string{"table", a, "--gpu", "RTX 4090"}, host...)...)
	if len(d.Rows) != 34 {
		t.Fatalf("%d rows of the ladder, want 34", len(d.Rows))
	}
	for i := 1; i < len(d.Rows); i++ {
		if d.Rows[i].Devices[0] <= d.Rows[i-1].Devices[0] || d.Rows[i].TPS["decode"].Mid <= d.Rows[i-1].TPS["decode"].Mid {
			t.Errorf("layer %d: %+v after %+v", i, d.Rows[i], d.Rows[i-1])
		}
	}
}

// TestTableTellsModelsApart compares two quantizations of one model.
func TestTableTellsModelsApart(t *testing.T) {
	onMachine(t, "rx7900xtx")
	a, b := modelFile(t, "Llama-3.1-8B-Q4_K_M"), modelFile(t, "Llama-3.1-8B-Q8_0")
	out, trouble, code := weigh(t, "table", a, b, "--gpu", "RTX 3060", "--host-memory", "64GiB")
	if code != 0 || !strings.Contains(out, "Llama-3.1-8B Q4_K_M") || !strings.Contains(out, "Llama-3.1-8B Q8_0") {
		t.Errorf("exit code %d, want a row for each: %q %q", code, out, trouble)
	}
	out, _, code = weigh(t, "table", a, "--gpu", "2GiB", "--host-memory", "1GiB", "--by", "gpu", "--format", "csv")
	if code != 1 || !strings.Contains(out, ",false,,,,,") {
		t.Errorf("exit code %d, want no speed where nothing fits: %q", code, out)
	}
}

// TestVLLMServesWhatIsThere holds the command line of folders and files, and the
// parallel sizes.
func TestVLLMServesWhatIsThere(t *testing.T) {
	onMachine(t, "rx7900xtx")
	folder, file := hfFolder(t, "llama-3.1-8b"), modelFile(t, "Llama-3.1-8B-Q8_0")
	for name, tt := range map[string]struct {
		model, served string
		cards         int
		sizes         [][2]int // tensor and pipeline parallel
	}{
		"a folder":             {folder, folder, 4, [][2]int{{4, 1}, {2, 2}, {1, 4}}},
		"a GGUF file":          {file, file, 2, [][2]int{{2, 1}, {1, 2}}},
		"three cards":          {folder, folder, 3, [][2]int{{2, 1}, {1, 3}}},
		"twelve heads on four": {hfFolder(t, "bert-base-uncased"), "", 4, [][2]int{{4, 1}, {2, 2}, {1, 4}}},
	} {
		var d vllmDocument
		weighJSON(t, 0, &d, "plan", tt.model, "--engine", "vllm", "--gpu", strconv.Itoa(tt.cards)+"x RTX 4090", "--host-memory", "64GiB")
		var sizes [][2]int
		for _, p := range d.Plans {
			sizes = append(sizes, [2]int{p.TensorParallel, p.PipelineParallel})
			if !strings.HasPrefix(p.Command, "vllm serve "+tt.served) {
				t.Errorf("%s: %s, want it to serve %s", name, p.Command, tt.served)
			}
		}
		if !slices.Equal(sizes, tt.sizes) {
			t.Errorf("%s: parallel sizes %v, want %v", name, sizes, tt.sizes)
		}
	}
}
