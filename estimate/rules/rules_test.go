package rules

import (
	"math"
	"slices"
	"testing"

	"weigh/formats"
)

// rule returns the rule of a name.
func rule(t testing.TB, name string) Rule {
	t.Helper()
	for _, r := range All {
		if r.Name == name {
			return r
		}
	}
	t.Fatalf("no rule %q", name)
	return Rule{}
}

func apply(t testing.TB, name string, m Model, r Run) float64 {
	t.Helper()
	n, ok := rule(t, name).Bytes(m, r)
	if !ok {
		t.Fatalf("%s has no answer", name)
	}
	return float64(n)
}

func near(got, want, within float64) bool { return math.Abs(got-want) <= within }

func TestParametersTimesPrecision(t *testing.T) {
	want := map[int][4]float64{
		1: {4, 2, 1, 0.5}, 2: {8, 4, 2, 1}, 7: {28, 14, 7, 3.5}, 13: {52, 26, 13, 6.5}, 32: {128, 64, 32, 16}, 70: {280, 140, 70, 35},
	}
	for _, row := range Table() {
		for i, got := range []uint64{row.FP32, row.FP16, row.INT8, row.INT4} {
			bits := []int{32, 16, 8, 4}[i]
			if float64(got)/1e9 != want[row.Billions][i] {
				t.Errorf("%dB at %d bits: %d bytes in the table, want %v GB", row.Billions, bits, got, want[row.Billions][i])
			}
			m := Model{Parameters: uint64(row.Billions) * 1e9, Bits: bits}
			if got := apply(t, "parameters × precision", m, Run{}) / 1e9; got != want[row.Billions][i] {
				t.Errorf("%dB at %d bits: %v GB, want %v", row.Billions, bits, got, want[row.Billions][i])
			}
		}
		delete(want, row.Billions)
	}
	if len(want) > 0 {
		t.Errorf("the table has no lines for %v", want)
	}
}

func TestWorkedExamples(t *testing.T) {
	shape7B := Model{Parameters: 7e9, Bits: 16, Layers: 32, Hidden: 4096, Heads: 32, HeadsKV: 32}
	run := Run{Context: 2048, Batch: 1}
	gemma := Model{Parameters: 27e9, Bits: 4, Layers: 46}
	llama8B := Model{Parameters: 8030261248, OutputTensor: 128256 * 4096, Bits: 16, LargestLayer: 128256 * 4096}
	tests := []struct {
		name string
		m    Model
		r    Run
		want float64 // GB
		near float64
	}{
		{"NVIDIA", Model{Parameters: 7e9, Bits: 16}, Run{}, 28, 0},
		{"20% overhead", Model{Parameters: 8e9, Bits: 16}, Run{}, 19.2, 0},
		{"training, AdamW", Model{Parameters: 1e9, Bits: 32}, Run{}, 16, 0},
		{"training, AdamW", Model{Parameters: 1e9, Bits: 16}, Run{}, 8, 0},
		{"training, SGD", Model{Parameters: 1e9, Bits: 32}, Run{}, 12, 0},
		{"CPU memory", shape7B, run, (14 + 1.07 + 0.54 + 7) * 1.2, 0.01},
		{"GPU memory", shape7B, run, (14 + 2.1 + 1.61) * 1.2, 0.01},
		{"LM Studio, least", gemma, Run{}, 14.5, 0},
		{"LM Studio, most", gemma, Run{}, 18.5, 0},
		{"EleutherAI", Model{WeightBytes: 10e9}, Run{}, 12, 0},
		{"Accelerate, total", llama8B, Run{}, 15.0099, 0.0001},
		{"Accelerate, largest layer", llama8B, Run{}, 1.0507, 0.0001},
		{"Accelerate, training", llama8B, Run{}, 60.0394, 0.0001},
		{"can-it-run-llm", Model{Parameters: 8e9, Bits: 4}, Run{}, 4.8, 1e-9},
		{"can-it-run-llm", Model{Parameters: 8e9, Bits: 5}, Run{}, 9.6, 1e-9},
		{"can-it-run-llm, training", Model{Parameters: 8e9, Bits: 16}, Run{}, 64, 0},
	}
	for _, tt := range tests {
		if got := apply(t, tt.name, tt.m, tt.r) / 1e9; !near(got, tt.want, tt.near) {
			t.Errorf("%s of %+v: %v GB, want %v", tt.name, tt.m, got, tt.want)
		}
	}
	if got := cells(shape7B, run) * 2 * 2 / 1e9; !near(got, 1.07, 0.005) {
		t.Errorf("cache of %v GB, want 1.07", got)
	}
	if got := cells(shape7B, run) * 2 / 1e9; !near(got, 0.54, 0.005) {
		t.Errorf("activations of %v GB, want 0.54", got)
	}
}

var llama3 = Model{
	Parameters: 8030261248, Bits: 4, WeightBytes: 4912898304, Hidden: 4096, FF: 14336, Layers: 32,
	Heads: 32, HeadsKV: 8, HeadDim: 128, Vocab: 128256, OutputTensor: 128256 * 4096, LargestLayer: 128256 * 4096,
}

func TestVRAMEstimator(t *testing.T) {
	m, r := llama3, Run{Context: 8192, Batch: 1}
	m.Bits = 16
	scores := (2 + 1 + 2) * 32. * 8192 * 8192
	if !near(scores/1e9, 10.7, 0.05) {
		t.Errorf("scores of %v GB, want 10.7", scores/1e9)
	}
	const s, h = 8192., 4096.
	layer := 2*s*h + 2*2*s*h + 2*2*s*1024 + scores + s*h // attention
	layer += 2*s*h + 2*2*s*14336 + s*h                   // feed-forward network
	layer += 2 * 2 * s * h                               // norms
	want := 1000*1048576 + 2*8030261248 + 4*s*128256 + layer
	if got := apply(t, "VRAM Estimator", m, r); got != want {
		t.Errorf("inference in half precision: %v bytes, want %v", got, want)
	}
	want = 1000*1048576 + (6+12)*8030261248 + 2*4*s*128256 + 32*layer
	if got := apply(t, "VRAM Estimator, training", m, r); got != want {
		t.Errorf("mixed training: %v bytes, want %v", got, want)
	}
	m.Bits = 32
	if got := apply(t, "VRAM Estimator, training", m, Run{Context: 1, Batch: 1}); got < 16*8030261248 || got > 17*8030261248 {
		t.Errorf("full training takes %v bytes, want 16 per parameter and little more", got)
	}
}

func TestHFMem(t *testing.T) {
	r := Run{Context: 8192, Batch: 1, CacheBits: 16}
	if got, want := apply(t, "hf-mem", llama3, r), float64(4912898304+8192*131072); got != want {
		t.Errorf("%v bytes, want %v", got, want)
	}
	m := llama3
	m.FullLayers, m.Window = 8, 1024
	if got, want := apply(t, "hf-mem", m, r), float64(4912898304+(8*8192+24*1024)*4096); got != want {
		t.Errorf("with a window: %v bytes, want %v", got, want)
	}
	m.Window = 0
	if got, want := apply(t, "hf-mem", m, r), float64(4912898304+8192*131072); got != want {
		t.Errorf("linear layers without a window: %v bytes, want %v", got, want)
	}
}

func TestHFMemOfGGUF(t *testing.T) {
	m := llama3
	m.HeadDim = 256 // it does not look
	m.GGUF = &GGUF{Blocks: 33, WeightBytes: 4912000000}
	m.FullLayers, m.Window = 8, 1024
	r := Run{Context: 8192, Batch: 2, CacheBits: 16}
	if got, want := apply(t, "hf-mem", m, r), float64(4912000000+33*2*8*128*8192*2*2); got != want {
		t.Errorf("%v bytes, want %v", got, want)
	}
	r.CacheBits = 8
	if got, want := apply(t, "hf-mem", m, r), 4912000000+33*2*8*128*8192*2*8.5/8; got != want {
		t.Errorf("a cache in Q8_0: %v bytes, want %v", got, want)
	}
	for name, g := range map[string]*GGUF{"heads per layer": {Blocks: 32, WeightBytes: 1, PerLayer: true}, "unknown types": {Blocks: 32}} {
		m.GGUF = g
		if n, ok := rule(t, "hf-mem").Bytes(m, r); ok {
			t.Errorf("%s: %d bytes, want no answer", name, n)
		}
	}
	for typ, want := range map[formats.DType]uint64{
		formats.IQ2_S: 80000, formats.Q4_K: 144 * 1000, formats.IQ3_XXS: 97920, formats.Q6_K: 210 * 1000, formats.BF16: 512000,
	} {
		if got, ok := HFMemBytes(typ, 256000); !ok || got != want {
			t.Errorf("%v: %d bytes of 256000 elements (%v), want %d", typ, got, ok, want)
		}
	}
	if _, ok := HFMemBytes(formats.NVFP4, 64); ok {
		t.Error("hf-mem knows NVFP4")
	}
}

// Llama 3.1 8B without its head has 7.50 B parameters: 27.96 GiB in FP32.
func TestCalculatorTables(t *testing.T) {
	m := llama3
	total := uint64(4 * (8030261248 - 128256*4096))
	want := []Calculator{
		{"float32", 32, 4 * 128256 * 4096, total, 0, 4 * total},
		{"float16/bfloat16", 16, 2 * 128256 * 4096, total / 2, 0, 2 * total},
		{"int8", 8, 128256 * 4096, total / 4, 0, 0},
		{"int4", 4, 128256 * 4096 / 2, total / 8, 0, 0},
	}
	if got := Accelerate(m); !slices.Equal(got, want) {
		t.Errorf("Accelerate's table is %+v, want %+v", got, want)
	}
	m.Parameters = 8e9
	want = []Calculator{
		{"float32", 32, 0, 32e9, 38.4e9, 128e9},
		{"float16/bfloat16", 16, 0, 16e9, 19.2e9, 64e9},
		{"int8", 8, 0, 8e9, 9.6e9, 32e9},
		{"int4", 4, 0, 4e9, 4.8e9, 16e9},
	}
	if got := CanItRun(m); !slices.Equal(got, want) {
		t.Errorf("can-it-run-llm's table is %+v, want %+v", got, want)
	}
}

// Rules that look at a file count its header too.
func TestFileSize(t *testing.T) {
	m, r := llama3, Run{Context: 4096, Batch: 1, CacheBits: 16}
	for _, name := range []string{"Ollama", "KolosalAI"} {
		m.FileBytes = 0
		least := apply(t, name, m, r)
		m.FileBytes = m.WeightBytes + 7_000_000
		if got := apply(t, name, m, r); got != least+7e6 {
			t.Errorf("%s: %v bytes more for a header of 7 MB", name, got-least)
		}
	}
}

func TestOobabooga(t *testing.T) {
	// 4685.31 MiB over 32 layers, 8 heads × 16 bits × 8192 tokens.
	perLayer := 4912898304./1048576/32 - 17.99552795246051 + 3.148552680382576e-05*8*16*8192
	want := perLayer*(32+0.9690636483914102) + 1516.522943869404 // ⌊25.4⌋ + 9.99 exceeds 16
	r := Run{Context: 8192, Batch: 1, CacheBits: 16, GPULayers: 33}
	if got := apply(t, "oobabooga", llama3, r) / 1048576; !near(got, want, 1e-3) {
		t.Errorf("%v MiB, want %v", got, want)
	}
	if got := apply(t, "oobabooga, 95%", llama3, r) / 1048576; !near(got, want+577, 1e-3) {
		t.Errorf("%v MiB with its margin, want %v", got, want+577)
	}
	r.Context = 1 << 20
	perLayer = 4912898304./1048576/32 - 17.99552795246051 + 3.148552680382576e-05*8*16*(1<<20)
	want = perLayer*(32+16-9.987899908205632) + 1516.522943869404
	if got := apply(t, "oobabooga", llama3, r) / 1048576; !near(got, want, 1e-2) {
		t.Errorf("at a context of a million: %v MiB, want %v", got, want)
	}
	r.CacheBits = 5
	if got := apply(t, "oobabooga", llama3, r) / 1048576; !near(got, want, 1e-2) {
		t.Errorf("a cache of 5 bits: %v MiB, want that of 16, %v", got, want)
	}
}

func TestCalculatorsByPart(t *testing.T) {
	r := Run{Context: 4096, Batch: 1, CacheBits: 16}
	const file, cache = 4912898304., 4096 * 131072.
	for name, want := range map[string]float64{
		"Ollama":    file + cache,
		"KolosalAI": file + cache + 0.02*8030261248 + 0.15e9,
		"llmfit":    0.58*8030261248 + cache + 0.5e9,
		"whichllm":  file + 3.5*1048576*8.030261248*4.096 + 400e6 + 0.08*8030261248 + 150e6,
	} {
		if got := apply(t, name, llama3, r); !near(got, want, 1) {
			t.Errorf("%s: %v bytes, want %v", name, got, want)
		}
	}
}

func TestLayers(t *testing.T) {
	gemma := Model{Parameters: 27e9, Bits: 4, Layers: 46}
	for gb, want := range map[uint64]int{19: 46, 8: 10, 4: 0} {
		if got, ok := LMStudioLayers(gemma, Run{GPUMemory: gb * 1e9}, 5e9); !ok || got != want {
			t.Errorf("LM Studio puts %d layers on %d GB, want %d", got, gb, want)
		}
	}
	tests := map[string]struct {
		r    Run
		want int
	}{
		"a card of 24 GiB holds all and more": {Run{Context: 4096, Ubatch: 512, GPUMemory: 24 << 30}, 35},
		"a card of 6 GiB, by file and cache": {
			Run{Context: 4096, Ubatch: 512, GPUMemory: 6 << 30},
			25,
		}, // 32 × (6 GiB − 1.5 GiB − 32·4·128·4096·4·1.5) ÷ (4912898304 + 32·8·128·4096·4·1.1) = 25.75
		"a card of 6 GiB, half of it taken": {
			Run{Context: 2048, Ubatch: 512, GPUMemory: 6 << 30, GPUUsed: 3 << 30},
			15,
		}, // 32 × (6 GiB − 3.5 GiB − 32·4·128·2048·4·1.5) ÷ (4912898304 + 32·8·128·2048·4·1.1) = 15.25
		"a card that is full": {Run{Context: 4096, Ubatch: 512, GPUMemory: 6 << 30, GPUUsed: 7 << 30}, 0},
	}
	for name, tt := range tests {
		if got, ok := KoboldCppLayers(llama3, tt.r); !ok || got != tt.want {
			t.Errorf("%s: %d layers, want %d", name, got, tt.want)
		}
	}
	headless := llama3
	headless.HeadsKV = 0 // 32 × 6 GiB ÷ (4912898304 × 1.2 × 1.55) = 22.5
	if got, _ := KoboldCppLayers(headless, Run{Context: 4096, Ubatch: 512, GPUMemory: 6 << 30}); got != 22 {
		t.Errorf("without attention %d layers, want 22", got)
	}
	if _, ok := KoboldCppLayers(llama3, Run{}); ok {
		t.Error("KoboldCpp knows layers without a card")
	}
}

func TestAdvice(t *testing.T) {
	for billions, want := range map[float64]int{0.6: 8, 1.5: 8, 3: 16, 7.6: 16, 8.03: 24, 13: 24, 32.8: 32, 70: 48, 671: 48} {
		if got := ClassFor(uint64(billions * 1e9)).GB; got != want {
			t.Errorf("%vB: a card of %d GB, want %d", billions, got, want)
		}
	}
	for _, tt := range []struct {
		n, memory uint64
		want      int
	}{{0, 24, 0}, {24, 24, 1}, {25, 24, 2}, {5, 0, 0}, {math.MaxUint64, 1, math.MaxInt32}} {
		if got := GPUs(tt.n, tt.memory); got != tt.want {
			t.Errorf("%d bytes take %d cards of %d, want %d", tt.n, got, tt.memory, tt.want)
		}
	}
	if got, _ := LoRA(Model{Parameters: 8e9, Bits: 16}, 2); !near(float64(got), 1.2*(16e9+8e9*0.02*8), 1) {
		t.Errorf("LoRA of 2%%: %d bytes", got)
	}
	want := map[string]float64{"FP32": 100, "FP16": 50, "BF16": 50, "INT8": 25, "INT4": 12.5, "MXFP4": 13.28125, "NVFP4": 14.0625}
	for _, p := range Precisions {
		if w, ok := want[p.Name]; ok && p.PercentOfFP32() != w {
			t.Errorf("%s is %v%% of FP32, want %v", p.Name, p.PercentOfFP32(), w)
		}
	}
}

func TestEveryRuleExplainsItself(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range All {
		if r.Name == "" || r.Source == "" || r.Formula == "" || r.Why == "" || r.Bytes == nil || seen[r.Name] {
			t.Errorf("rule %q is not complete, or there twice", r.Name)
		}
		seen[r.Name] = true
		if n, ok := r.Bytes(Model{}, Run{}); ok {
			t.Errorf("%s: %d bytes for nothing known", r.Name, n)
		}
		m := llama3
		m.Bits = 16
		if n, ok := r.Bytes(m, Run{Context: 8192, Batch: 1, Ubatch: 512, CacheBits: 16, GPULayers: 32}); !ok || n < 1e8 {
			t.Errorf("%s: %d bytes (%v) for a model of 8B", r.Name, n, ok)
		}
	}
	if n, ok := rule(t, "training, AdamW").Bytes(Model{Parameters: 1e9, Bits: 4}, Run{}); ok {
		t.Errorf("4-bit weights train in %d bytes", n)
	}
}

func TestNoModelOverflows(t *testing.T) {
	huge := Model{
		Parameters: math.MaxUint64, Bits: 32, WeightBytes: math.MaxUint64, Hidden: math.MaxInt, FF: math.MaxInt, Layers: math.MaxInt,
		Heads: 1, HeadsKV: math.MaxInt, HeadDim: math.MaxInt, Vocab: math.MaxInt, LargestLayer: math.MaxUint64,
	}
	for _, r := range All {
		if n, ok := r.Bytes(huge, Run{Context: math.MaxInt, Batch: math.MaxInt, CacheBits: 16}); ok && n < 1<<60 {
			t.Errorf("%s: %d bytes", r.Name, n)
		}
	}
	for _, x := range []float64{math.NaN(), -1, math.Inf(-1)} {
		if got := round(x); got != 0 {
			t.Errorf("round(%v) = %d", x, got)
		}
	}
	if got := round(math.Inf(1)); got != math.MaxUint64 {
		t.Errorf("round(+Inf) = %d", got)
	}
}
