package training

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

// llama8B is Llama-3.1-8B: 8,030,261,248 parameters.
func llama8B() Model {
	m := Model{Hidden: 4096, Vocab: 128256, Tensors: []Tensor{
		{"token_embd.weight", []uint64{4096, 128256}}, {"output.weight", []uint64{4096, 128256}}, {"output_norm.weight", []uint64{4096}},
	}}
	for i := range 32 {
		for _, t := range []Tensor{
			{"attn_norm.weight", []uint64{4096}},
			{"ffn_norm.weight", []uint64{4096}},
			{"attn_q.weight", []uint64{4096, 4096}},
			{"attn_k.weight", []uint64{4096, 1024}},
			{"attn_v.weight", []uint64{4096, 1024}},
			{"attn_output.weight", []uint64{4096, 4096}},
			{"ffn_gate.weight", []uint64{4096, 14336}},
			{"ffn_up.weight", []uint64{4096, 14336}},
			{"ffn_down.weight", []uint64{14336, 4096}},
		} {
			m.Tensors = append(m.Tensors, Tensor{fmt.Sprintf("blk.%d.%s", i, t.Name), t.Shape})
		}
		m.Layers = append(m.Layers, Layer{Query: 4096, KeyValue: 1024, Heads: 32, FF: 14336, Gated: true})
	}
	return m
}

const (
	params8B = 8030261248
	linear8B = 32 * (2*4096*4096 + 2*4096*1024 + 3*4096*14336)
	rest8B   = params8B - linear8B
)

func estimate(t testing.TB, m Model, r Recipe) *Estimate {
	t.Helper()
	e, err := New(m, r)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// blob is a model of n parameters and nothing else.
func blob(n uint64) Model {
	return Model{Tensors: []Tensor{{"blk.0.x.weight", []uint64{n / 100, 100}}}}
}

func TestBytesPerParameter(t *testing.T) {
	const n = 256_000_000
	tests := map[string]struct {
		r                         Recipe
		weights, gradients, state float64
	}{
		"AdamW in 32 bits":            {Recipe{Precision: FP32}, 4, 4, 8},
		"AdamW mixed, as in ZeRO":     {Recipe{}, 2, 2, 12},
		"AdamW under autocast":        {Recipe{Precision: Autocast}, 6, 4, 8},
		"AdamW in 16 bits":            {Recipe{Precision: BF16}, 2, 2, 4},
		"8-bit AdamW in 16 bits":      {Recipe{Precision: BF16, Optimizer: AdamW8bit}, 2, 2, 2 + 8./256},
		"8-bit AdamW in 32 bits":      {Recipe{Precision: FP32, Optimizer: AdamW8bit}, 4, 4, 2 + 8./256},
		"SGD":                         {Recipe{Precision: FP32, Optimizer: SGD}, 4, 4, 0},
		"SGD with momentum":           {Recipe{Precision: FP32, Optimizer: SGDMomentum}, 4, 4, 4},
		"Lion":                        {Recipe{Precision: FP32, Optimizer: Lion}, 4, 4, 4},
		"8-bit Lion":                  {Recipe{Precision: FP32, Optimizer: Lion8bit}, 4, 4, 1 + 4./256},
		"Muon":                        {Recipe{Precision: FP32, Optimizer: Muon}, 4, 4, 4},
		"Adafactor":                   {Recipe{Precision: FP32, Optimizer: Adafactor}, 4, 4, 4 * (n/100 + 100) / float64(n)},
		"mixed with 32-bit gradients": {Recipe{FP32Gradients: true}, 2, 4, 12},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := estimate(t, blob(n), tt.r)
			for kind, want := range map[Kind]float64{Weights: tt.weights, Gradients: tt.gradients, States: tt.state} {
				if got := float64(e.PerGPU(kind)) / n; got != want {
					t.Errorf("%s: %v bytes per parameter, want %v", kind, got, want)
				}
			}
		})
	}
}

// states are the bytes that ZeRO divides.
func states(e *Estimate) float64 {
	return float64(e.PerGPU(Weights, Gradients, States))
}

func TestShardingAsInTheZeROPaper(t *testing.T) {
	for sharding, want := range map[Sharding]float64{DDP: 120, ZeRO1: 31.4, ZeRO2: 16.6, ZeRO3: 1.88, FSDPGradOp: 16.6, FSDP: 1.88} {
		got := states(estimate(t, blob(7_500_000_000), Recipe{Sharding: sharding, GPUs: 64})) / 1e9
		if math.Abs(got-want) > want/200 {
			t.Errorf("%s: %.3f GB, want %v", sharding, got, want)
		}
	}
	hybrid := states(estimate(t, blob(8_000_000_000), Recipe{Sharding: HybridShard, GPUs: 64, PerNode: 8}))
	if want := 16e9; hybrid != want {
		t.Errorf("hybrid sharding within nodes of 8: %v bytes, want %v", hybrid, want)
	}
}

func TestDeepSpeedsOwnEstimates(t *testing.T) {
	const n, largest, gib = 60506624, 16449536, 1 << 30
	for offload, want := range map[Offload]string{OffloadAll: "0.06", OffloadOptimizer: "0.17", NoOffload: "1.08"} {
		gpu, _, ok := deepSpeed(n, largest, 1, 1, ZeRO3, offload)
		if got := fmt.Sprintf("%.2f", float64(gpu)/gib); !ok || got != want {
			t.Errorf("t5-small, stage 3, offload %s: %s GiB, want %s", offload, got, want)
		}
	}
	if gpu, host, _ := deepSpeed(1000, 100, 8, 1, ZeRO2, OffloadOptimizer); gpu != 2000 || host != 1000*32*3/2 {
		t.Errorf("stage 2 with 8 processes loading the model: %d and %d bytes, want 2000 and 48000", gpu, host)
	}
	if _, _, ok := deepSpeed(1000, 100, 8, 1, DDP, NoOffload); ok {
		t.Error("DeepSpeed has an estimate without sharding")
	}
	e := estimate(t, llama8B(), Recipe{Sharding: ZeRO3, GPUs: 8})
	if gpu, _, ok := e.DeepSpeed(); !ok || gpu != 4*4096*128256+18*params8B/8 {
		t.Errorf("llama-3.1-8b on 8 GPUs: %d bytes, want %d", gpu, uint64(4*4096*128256+18*params8B/8))
	}
	if _, _, ok := estimate(t, llama8B(), Recipe{Sharding: ZeRO3, Method: LoRA}).DeepSpeed(); ok {
		t.Error("DeepSpeed's estimators cover adapters")
	}
}

func TestOffload(t *testing.T) {
	m := blob(1_000_000_000)
	tests := map[string]struct {
		r         Recipe
		gpu, host uint64
	}{
		"optimizer of stage 1":              {Recipe{Sharding: ZeRO1, Offload: OffloadOptimizer}, 4e9, 18e9},
		"optimizer of stage 2":              {Recipe{Sharding: ZeRO2, Offload: OffloadOptimizer}, 2e9, 24e9},
		"everything of stage 3":             {Recipe{Sharding: ZeRO3, Offload: OffloadAll}, 0, 27e9},
		"everything of FSDP, no buffers":    {Recipe{Sharding: FSDP, Offload: OffloadAll}, 0, 18e9},
		"two nodes hold half each":          {Recipe{Sharding: ZeRO3, Offload: OffloadAll, GPUs: 16, PerNode: 8}, 0, 13.5e9},
		"stage 3 keeps its weights on GPUs": {Recipe{Sharding: ZeRO3, Offload: OffloadOptimizer, GPUs: 4}, 5e8, 24e9},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := estimate(t, m, tt.r)
			if got := e.PerGPU(Weights, Gradients, States); got != tt.gpu {
				t.Errorf("%d bytes of states on a GPU, want %d", got, tt.gpu)
			}
			if got := e.PerNode(); got != tt.host {
				t.Errorf("%d bytes on the host, want %d", got, tt.host)
			}
		})
	}
}

func TestActivations(t *testing.T) {
	m := llama8B()
	const perToken = 167936 + 4*32 // and the sums of flash attention
	norms := uint64(8 * 4096)
	tests := map[string]struct {
		r    Recipe
		want uint64 // bytes
	}{
		"fused":                         {Recipe{Fused: true, Sequence: 1000}, 32 * 1000 * perToken},
		"two sequences":                 {Recipe{Fused: true, Sequence: 500, Batch: 2}, 32 * 1000 * perToken},
		"norms in 32 bits":              {Recipe{Sequence: 1000}, 32 * 1000 * (perToken + norms)},
		"eager attention":               {Recipe{Fused: true, Sequence: 1000, EagerAttn: true}, 32 * (1000*167936 + 8*32*1000*1000)},
		"eager attention, two at once":  {Recipe{Fused: true, Sequence: 1000, Batch: 2, EagerAttn: true}, 2 * 32 * (1000*167936 + 8*32*1000*1000)},
		"checkpointing":                 {Recipe{Fused: true, Sequence: 1000, Checkpointing: true}, 1000 * (2*4096*32 + perToken)},
		"32 bits":                       {Recipe{Fused: true, Sequence: 1000, Precision: FP32}, 32 * 1000 * (2*167936 + 4*32)},
		"adapters keep their own input": {Recipe{Fused: true, Sequence: 1000, Method: LoRA, Rank: 8}, 32 * 1000 * (perToken + 2*7*8)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := estimate(t, m, tt.r).PerGPU(Activations); got != tt.want {
				t.Errorf("%d bytes, want %d", got, tt.want)
			}
		})
	}
	// Korthikanti et al. count 34·s·b·h for a GELU network of four times the
	// width, of which two bytes are the masks of dropout.
	gpt := Model{Hidden: 1000, Layers: []Layer{{Query: 1000, KeyValue: 1000, FF: 4000}}}
	if got := estimate(t, gpt, Recipe{Fused: true, Sequence: 1}).PerGPU(Activations); got != (34-2)*1000 {
		t.Errorf("a GELU layer keeps %d bytes of a token, want 32 × 1000", got)
	}
	experts := Model{Hidden: 1000, Layers: []Layer{{Query: 1000, KeyValue: 1000, FF: 4000, Experts: 2}}}
	if got := estimate(t, experts, Recipe{Fused: true, Sequence: 1}).PerGPU(Activations); got != (32+2*2)*1000 {
		t.Errorf("with a copy for each of two experts %d bytes, want 36 × 1000", got)
	}
}

func TestLogits(t *testing.T) {
	m := llama8B()
	if got := estimate(t, m, Recipe{Sequence: 4096}).PerGPU(Logits); got != 12*4096*128256 || got/1e8 != 63 {
		t.Errorf("%d bytes, want 6.3 GB", got)
	}
	// 4096 tokens in ceil(128256/4096) = 32 chunks of 128.
	if got := estimate(t, m, Recipe{Sequence: 4096, Fused: true}).PerGPU(Logits); got != 12*128*128256 {
		t.Errorf("%d bytes in chunks, want %d", got, 12*128*128256)
	}
}

func TestAdapters(t *testing.T) {
	m := llama8B()
	tests := map[string]struct {
		r         Recipe
		trainable uint64
	}{
		"all linear layers, rank 16": {Recipe{Method: LoRA}, 41943040},
		"queries and values, rank 8": {Recipe{Method: LoRA, Rank: 8, Targets: []string{"attn_q", "attn_v"}}, 32 * 8 * (8192 + 5120)},
		"by PEFT's names":            {Recipe{Method: LoRA, Rank: 8, Targets: []string{"q_proj", "v_proj"}}, 32 * 8 * (8192 + 5120)},
		"PEFT's name for all":        {Recipe{Method: LoRA, Targets: []string{"all-linear"}}, 41943040},
		"DoRA adds a magnitude":      {Recipe{Method: LoRA, DoRA: true}, 41943040 + 32*(2*4096+2*1024+2*14336+4096)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := estimate(t, m, tt.r)
			if e.Trainable != tt.trainable || e.Total != params8B+tt.trainable {
				t.Errorf("%d of %d parameters are trained, want %d of %d", e.Trainable, e.Total, tt.trainable, params8B+tt.trainable)
			}
			if got, want := e.PerGPU(Weights, Gradients, States), 2*params8B+16*tt.trainable; got != want {
				t.Errorf("%d bytes of states, want %d", got, want)
			}
		})
	}
	e := estimate(t, m, Recipe{Method: LoRA, Precision: BF16})
	if got, want := e.PerGPU(Weights, Gradients, States), uint64(2*params8B+8*41943040); got != want {
		t.Errorf("16-bit adapters: %d bytes of states, want %d", got, want)
	}
	routed := Model{Tensors: []Tensor{
		{"blk.0.ffn_gate_exps.weight", []uint64{100, 50, 4}}, {"blk.0.ffn_gate_shexp.weight", []uint64{100, 50}}, {"blk.0.ffn_gate_inp.weight", []uint64{100, 4}},
	}}
	if e := estimate(t, routed, Recipe{Method: LoRA, Rank: 2, Targets: []string{"gate_proj"}}); e.Trainable != 2*(100+50)*5 {
		t.Errorf("gate_proj has %d parameters, want those of five experts and not of the router, %d", e.Trainable, 2*(100+50)*5)
	}
	experts := Model{Tensors: []Tensor{{"blk.0.ffn_up_exps.weight", []uint64{100, 50, 4}}}}
	if e := estimate(t, experts, Recipe{Method: LoRA, Rank: 2}); e.Trainable != 2*(100+50)*4 {
		t.Errorf("adapters of four experts have %d parameters, want %d", e.Trainable, 2*(100+50)*4)
	}
}

func TestQLoRA(t *testing.T) {
	m := llama8B()
	for name, tt := range map[string]struct {
		single bool
		bits   float64
	}{
		"double quantization": {false, 4 + 8./64 + 32./(64*256)},
		"single quantization": {true, 4.5},
	} {
		t.Run(name, func(t *testing.T) {
			e := estimate(t, m, Recipe{Method: QLoRA, SingleQuant: tt.single})
			want := uint64(linear8B*tt.bits/8) + 4*rest8B + 4*41943040
			if got := e.PerGPU(Weights); got != want {
				t.Errorf("%d bytes of weights, want %d", got, want)
			}
		})
	}
	if got := nf4Bytes(65, true); got != 33+2+4 {
		t.Errorf("65 elements take %d bytes, want 39", got)
	}
}

// FSDP gathers frozen weights as they are packed.
func TestPackedUnits(t *testing.T) {
	m := Model{Tensors: []Tensor{
		{"blk.0.attn_q.weight", []uint64{16384, 1000}},
		{"blk.0.attn_norm.weight", []uint64{1000}},
		{"blk.1.attn_q.weight", []uint64{16384, 500}},
		{"token_embd.weight", []uint64{1000, 1000}},
	}}
	const packed = 16384*1000/2 + 16384*1000/64 + 4*1000 + 4*1000 // halves, scales, their scales, a norm in 32 bits
	for _, term := range estimate(t, m, Recipe{Method: QLoRA, Sharding: FSDP, GPUs: 4}).Terms {
		if term.Name == "two gathered units" && term.Bytes == 2*packed {
			return
		}
	}
	t.Errorf("no term of two units of %d bytes", packed)
}

// Frozen weights of 32 bits are gathered as such.
func TestGatheredWeights(t *testing.T) {
	m := Model{Tensors: []Tensor{{"blk.0.attn_q.weight", []uint64{1000, 1000}}}}
	for precision, want := range map[Precision]uint64{FP32: 2 * 4e6, BF16: 2 * 2e6} {
		for _, term := range estimate(t, m, Recipe{Method: LoRA, Precision: precision, Sharding: FSDP, GPUs: 4}).Terms {
			if strings.HasPrefix(term.Name, "two gathered units") && term.Bytes != want {
				t.Errorf("%s: %d bytes, want %d", precision, term.Bytes, want)
			}
		}
	}
}

func TestFit(t *testing.T) {
	m := llama8B()
	const gpu = uint64(24 << 30)
	for name, tt := range map[string]struct {
		r    Recipe
		vary Variable
		get  func(Recipe) int
	}{
		"batch":    {Recipe{Method: QLoRA, Checkpointing: true, Sequence: 512}, Batch, func(r Recipe) int { return r.Batch }},
		"sequence": {Recipe{Method: QLoRA, Checkpointing: true, EagerAttn: true}, Sequence, func(r Recipe) int { return r.Sequence }},
	} {
		t.Run(name, func(t *testing.T) {
			e, ok, err := Fit(m, tt.r, gpu, math.MaxUint64, tt.vary)
			if err != nil || !ok {
				t.Fatalf("nothing fits: %v", err)
			}
			if e.PerGPU() > gpu {
				t.Errorf("%d bytes do not fit in %d", e.PerGPU(), gpu)
			}
			r := e.Recipe
			switch tt.vary {
			case Batch:
				r.Batch++
			case Sequence:
				r.Sequence++
			}
			if next := estimate(t, m, r); next.PerGPU() <= gpu {
				t.Errorf("%d fits, and so does one more", tt.get(e.Recipe))
			}
		})
	}
	if _, ok, err := Fit(m, Recipe{}, gpu, math.MaxUint64, Batch); ok || err != nil {
		t.Errorf("full fine-tuning of 8B fits 24 GiB (%v, %v)", ok, err)
	}
	if _, ok, _ := Fit(m, Recipe{Sharding: ZeRO3, Offload: OffloadAll, Checkpointing: true}, gpu, 1<<30, Batch); ok {
		t.Error("an offloaded 8B fits a host of 1 GiB")
	}
}

func TestRecipesThatNoFrameworkTakes(t *testing.T) {
	for want, r := range map[string]Recipe{
		`method "lorra" is not one of [full lora qlora]`:                    {Method: "lorra"},
		`GPUs -1 is negative`:                                               {GPUs: -1},
		`10 GPUs are no whole number of nodes of 8`:                         {GPUs: 10, PerNode: 8},
		`offload "optimizer" wants sharding: zero1 serves one GPU too`:      {Offload: OffloadOptimizer},
		`offload "optimizer" is DeepSpeed's: with fsdp it is all or none`:   {Offload: OffloadOptimizer, Sharding: FSDP},
		`offload "all" wants the weights sharded: zero3 or fsdp, not zero2`: {Offload: OffloadAll, Sharding: ZeRO2},
		`no matrix of the model has "wq" in its name`:                       {Method: LoRA, Targets: []string{"attn_q", "wq"}},
	} {
		if _, err := New(llama8B(), r); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// Sharding over more GPUs never takes more, a longer sequence never less, and
// the largest numbers do not overflow.
func TestMonotone(t *testing.T) {
	m := llama8B()
	for _, method := range []Method{Full, LoRA, QLoRA} {
		for _, s := range []Sharding{ZeRO1, ZeRO2, ZeRO3, FSDP, FSDPGradOp, HybridShard} {
			last := uint64(math.MaxUint64)
			for n := 1; n <= 64; n *= 2 {
				got := estimate(t, m, Recipe{Method: method, Sharding: s, GPUs: n}).PerGPU()
				if got > last {
					t.Errorf("%s, %s: %d bytes on each of %d GPUs, %d on half as many", method, s, got, n, last)
				}
				last = got
			}
		}
		last := uint64(0)
		for n := 1; n < math.MaxInt32/2; n *= 2 {
			got := estimate(t, m, Recipe{Method: method, Sequence: n, Batch: n, EagerAttn: true}).PerGPU()
			if got < last {
				t.Errorf("%s: %d bytes for %d tokens, %d for half as many", method, got, n, last)
			}
			last = got
		}
		if last != math.MaxUint64 {
			t.Errorf("%s: 2^60 tokens take %d bytes, want saturation", method, last)
		}
	}
}

func TestEveryTermSaysHowAndWhence(t *testing.T) {
	m := llama8B()
	for _, r := range []Recipe{
		{},
		{Precision: Autocast, GPUs: 8},
		{Method: QLoRA, Optimizer: AdamW8bit, Checkpointing: true, Sharding: FSDP, GPUs: 2},
		{Sharding: ZeRO3, Offload: OffloadAll, GPUs: 8},
		{Optimizer: Muon},
		{Optimizer: Adafactor},
		{Optimizer: Lion8bit, Fused: true},
	} {
		e := estimate(t, m, r)
		var sum uint64
		for _, term := range e.Terms {
			if term.Formula == "" || term.Source == "" || term.Name == "" || strings.Contains(term.Formula, "%!") {
				t.Errorf("%+v: the term %+v does not say how", r, term)
			}
			if !term.Host {
				sum += term.Bytes
			}
		}
		if sum != e.PerGPU() || sum != e.PerGPU(Weights, Gradients, States, Activations, Logits, Overhead) {
			t.Errorf("%+v: the terms sum to %d, the total is %d", r, sum, e.PerGPU())
		}
		if e.OverheadLow > e.PerGPU(Overhead) {
			t.Errorf("%+v: overhead from %d to %d", r, e.OverheadLow, e.PerGPU(Overhead))
		}
	}
}

func BenchmarkFit(b *testing.B) {
	m := llama8B()
	for b.Loop() {
		if _, _, err := Fit(m, Recipe{Method: QLoRA}, 24<<30, 1<<40, Sequence); err != nil {
			b.Fatal(err)
		}
	}
}

// No tensor makes New panic, nor less memory than its weights take.
func FuzzNew(f *testing.F) {
	f.Add("blk.0.attn_q.weight", uint64(4096), uint64(1024), uint64(1), 0, 0, 8)
	f.Add("token_embd.weight", uint64(1<<40), uint64(1<<30), uint64(0), 1, 3, -1)
	f.Add("output.weight", uint64(0), uint64(1), uint64(1<<63), 2, 6, 3)
	methods := []Method{Full, LoRA, QLoRA}
	shardings := []Sharding{DDP, ZeRO1, ZeRO2, ZeRO3, FSDP, FSDPGradOp, HybridShard}
	f.Fuzz(func(t *testing.T, name string, x, y, z uint64, method, sharding, width int) {
		m := Model{Tensors: []Tensor{{name, []uint64{x, y, z}}}, Hidden: width, Vocab: width, Layers: []Layer{{Query: width, KeyValue: width, Heads: width, FF: width}}}
		e, err := New(m, Recipe{Method: methods[uint(method)%3], Sharding: shardings[uint(sharding)%7], Optimizer: Adafactor})
		if err != nil {
			return
		}
		if least := e.Total / 4; e.PerGPU() < least {
			t.Errorf("%d parameters in %d bytes", e.Total, e.PerGPU())
		}
	})
}
