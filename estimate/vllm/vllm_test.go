package vllm

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"weigh/formats"
)

// shape is a model in few words.
type shape struct {
	layers, hidden, ff, heads, kv, dim, vocab, context, experts int
	linear                                                      float64 // bytes per element of linear layers
	tied, norms                                                 bool
	vision                                                      int // parameters beside the language model
	window                                                      int // of every other layer, the first included
}

func (s shape) model() Model {
	m := Model{Hidden: s.hidden, FF: s.ff, Vocab: s.vocab, Heads: s.heads, Experts: s.experts, ContextLength: s.context, RotaryDim: s.dim, Tied: s.tied}
	put := func(name string, width float64, dims ...int) {
		t := Tensor{Name: name, Type: formats.BF16}
		n := 1.0
		for _, d := range dims {
			t.Shape = append(t.Shape, uint64(d))
			n *= float64(d)
		}
		t.Bytes = uint64(n * width)
		if width < 1 {
			t.Type = formats.MXFP4
		}
		m.Tensors = append(m.Tensors, t)
	}
	put("token_embd.weight", 2, s.hidden, s.vocab)
	put("output_norm.weight", 2, s.hidden)
	if !s.tied {
		put("output.weight", 2, s.hidden, s.vocab)
	}
	if s.vision > 0 {
		put("v.weight", 2, s.vision)
	}
	width := s.linear
	if s.experts > 0 {
		width = 2
	}
	for i := range s.layers {
		matrix := func(name string, in, out int) {
			put(fmt.Sprintf("blk.%d.%s.weight", i, name), width, in, out)
			if s.linear == 1 { // scales per row
				put(fmt.Sprintf("blk.%d.%s.scale", i, name), 4, out)
			}
		}
		matrix("attn_q", s.hidden, s.heads*s.dim)
		matrix("attn_k", s.hidden, s.kv*s.dim)
		matrix("attn_v", s.hidden, s.kv*s.dim)
		matrix("attn_output", s.heads*s.dim, s.hidden)
		put(fmt.Sprintf("blk.%d.attn_norm.weight", i), 2, s.hidden)
		put(fmt.Sprintf("blk.%d.ffn_norm.weight", i), 2, s.hidden)
		if s.norms {
			put(fmt.Sprintf("blk.%d.attn_q_norm.weight", i), 2, s.dim)
			put(fmt.Sprintf("blk.%d.attn_k_norm.weight", i), 2, s.dim)
		}
		if s.experts > 0 {
			put(fmt.Sprintf("blk.%d.ffn_gate_inp.weight", i), 2, s.hidden, s.experts)
			for _, e := range []struct {
				name    string
				in, out int
			}{{"gate", s.hidden, s.ff}, {"up", s.hidden, s.ff}, {"down", s.ff, s.hidden}} {
				put(fmt.Sprintf("blk.%d.ffn_%s_exps.weight", i, e.name), s.linear, e.in, e.out, s.experts)
				put(fmt.Sprintf("blk.%d.ffn_%s_exps.bias", i, e.name), 2, e.out, s.experts)
			}
		} else {
			matrix("ffn_gate", s.hidden, s.ff)
			matrix("ffn_up", s.hidden, s.ff)
			matrix("ffn_down", s.ff, s.hidden)
		}
		l := Layer{Kind: FullAttention, HeadsKV: s.kv, KeyDim: s.dim, ValueDim: s.dim}
		if s.window > 0 && i%2 == 0 {
			l.Kind, l.Window = SlidingAttention, s.window
		}
		m.Layers = append(m.Layers, l)
	}
	return m
}

// pixtral is the parameters of Mistral's vision encoder, merger and projector.
const pixtral = 24*(4*1024*1024+3*1024*4096) + 1024*3*14*14 + 4096*1024 + 1024*5120 + 5120*5120

var (
	gptOSS20B  = shape{layers: 24, hidden: 2880, ff: 2880, heads: 64, kv: 8, dim: 64, vocab: 201088, context: 131072, experts: 32, linear: 17. / 32, window: 128}
	gptOSS120B = shape{layers: 36, hidden: 2880, ff: 2880, heads: 64, kv: 8, dim: 64, vocab: 201088, context: 131072, experts: 128, linear: 17. / 32, window: 128}
	llama70B   = shape{layers: 80, hidden: 8192, ff: 28672, heads: 64, kv: 8, dim: 128, vocab: 128256, context: 131072, linear: 1}
	llama8B    = shape{layers: 32, hidden: 4096, ff: 14336, heads: 32, kv: 8, dim: 128, vocab: 128256, context: 131072, linear: 2}
	qwen06B    = shape{layers: 28, hidden: 1024, ff: 3072, heads: 16, kv: 8, dim: 128, vocab: 151936, context: 40960, linear: 2, tied: true, norms: true}
	qwen32B    = shape{layers: 64, hidden: 5120, ff: 25600, heads: 64, kv: 8, dim: 128, vocab: 151936, context: 40960, linear: 2, norms: true}
	mistral24B = shape{layers: 40, hidden: 5120, ff: 32768, heads: 32, kv: 8, dim: 128, vocab: 131072, context: 131072, linear: 2, vision: pixtral}
)

// Measured on an H100 of 79.18 GiB with vLLM 0.11, GiB.
//
// Source: llm-d-planner, docs/empirical-vllm-memory-results.md.
var measured = map[string]struct {
	s                                   shape
	tp                                  int
	utilization                         float64
	weights, activations, driver, graph float64
	kv                                  float64
	within                              float64 // of the weights
}{
	"gpt-oss-20b":           {gptOSS20B, 1, 0.9, 13.47, 7.38, .13, .39, 50.28, 0.01},
	"gpt-oss-120b":          {gptOSS120B, 1, 0.95, 64.38, 7.38, .13, 1.03, 3.33, 0.2},
	"Llama-3.3-70B-FP8 TP2": {llama70B, 2, 0.9, 33.88, 4.84, .55, -.42, 32.00, 0.01},
	"Llama-3.1-8B":          {llama8B, 1, 0.9, 14.99, 4.76, .13, -.45, 51.38, 0.006},
	"Qwen3-0.6B":            {qwen06B, 1, 0.9, 1.12, 5.56, .13, .10, 64.45, 0.006},
	"Qwen3-32B":             {qwen32B, 1, 0.9, 61.03, 5.64, .14, -.88, 4.45, 0.006},
	"Qwen3-32B TP2":         {qwen32B, 2, 0.9, 30.59, 5.64, .54, -.33, 34.49, 0.08},
	"Mistral-Small-3.2":     {mistral24B, 1, 0.95, 44.76, 2.12, .14, -.76, 28.20, 0.006},
}

// h100 is the card that was measured.
func h100() GPU {
	total := 79.18 * gib
	return GPU{Total: uint64(total)}
}

func estimate(t testing.TB, m Model, g GPU, o Options) *Estimate {
	t.Helper()
	e, err := New(m, g, o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *Estimate) term(name string) Term {
	i := slices.IndexFunc(e.Terms, func(t Term) bool { return t.Name == name })
	return e.Terms[i]
}

func TestMeasuredOnAnH100(t *testing.T) {
	for name, tt := range measured {
		t.Run(name, func(t *testing.T) {
			e := estimate(t, tt.s.model(), h100(), Options{TensorParallel: tt.tp, Utilization: tt.utilization})
			weights := float64(e.term("weights").Low+e.term("rotary table").Low) / gib
			if math.Abs(weights-tt.weights) > tt.within {
				t.Errorf("weights of %.3f GiB, measured %v", weights, tt.weights)
			}
			for term, got := range map[string]float64{"activations": tt.activations, "driver and NCCL": tt.driver, "CUDA graphs": max(tt.graph, 0)} {
				low, high := float64(e.term(term).Low)/gib, float64(e.term(term).High)/gib
				if got < low || got > high {
					t.Errorf("%s: measured %v GiB, not within %.2f to %.2f", term, got, low, high)
				}
			}
			if low, high := float64(e.KVLow)/gib, float64(e.KVHigh)/gib; tt.kv < low-0.01 || tt.kv > high+0.01 {
				t.Errorf("cache: measured %v GiB, not within %.2f to %.2f", tt.kv, low, high)
			}
			// What the budget leaves beside the measured parts is the cache as measured.
			left := float64(e.Budget)/gib - tt.weights - tt.activations - tt.driver
			if math.Abs(left-tt.kv) > 0.02 {
				t.Errorf("the budget leaves %.2f GiB, measured %v", left, tt.kv)
			}
		})
	}
}

func TestPagesAsMeasured(t *testing.T) {
	m := mistral24B.model()
	e := estimate(t, m, h100(), Options{MaxModelLen: 15049, BlockSize: 128})
	if got := e.PageBytes * uint64(e.BlockLayers) / 128; got != 163840 {
		t.Errorf("%d bytes per token, want 163840", got)
	}
	if e.RequestBlocks != 118 {
		t.Errorf("15049 tokens take %d blocks of 128, want 118", e.RequestBlocks)
	}
	if e := estimate(t, llama70B.model(), h100(), Options{TensorParallel: 2}); e.PageBytes*uint64(e.BlockLayers)/16 != 163840 {
		t.Errorf("a page of %d bytes in %d layers, want 163840 bytes per token", e.PageBytes, e.BlockLayers)
	}
	// 28.20 GiB of Mistral's cache were 184,832 tokens; GiB are given to 0.005.
	s := layout(m.Layers, &Options{TensorParallel: 1, BlockSize: 16, Cache: Auto})
	low, high := 28.195*gib, 28.205*gib
	if l, h := s.blocks(uint64(low))*16, s.blocks(uint64(high))*16; l > 184832 || h < 184832 {
		t.Errorf("28.20 GiB hold %d to %d tokens, want 184832", l, h)
	}
	l4, want := 4.91*gib, uint64(40208)
	s = layout(llama8B.model().Layers, &Options{TensorParallel: 1, BlockSize: 16, Cache: Auto})
	if got := s.blocks(uint64(l4)) * 16; got < want-48 || got > want+48 {
		t.Errorf("4.91 GiB of Llama-3.1-8B hold %d tokens, want %d", got, want)
	}
}

func TestBytesOfATokenInALayer(t *testing.T) {
	gqa := Layer{Kind: FullAttention, HeadsKV: 8, KeyDim: 128, ValueDim: 128}
	mla := Layer{Kind: LatentAttention, HeadsKV: 1, KeyDim: 576}
	tests := map[string]struct {
		l    Layer
		tp   int
		t    CacheType
		want uint64
	}{
		"grouped queries":                      {gqa, 1, Auto, 4096},
		"on two GPUs":                          {gqa, 2, Auto, 2048},
		"on more GPUs than heads":              {gqa, 16, Auto, 512},
		"in 8 bits":                            {gqa, 1, FP8, 2048},
		"in 8 bits with scales":                {gqa, 1, PerTokenHead, 2048 + 2*8*4},
		"in NVFP4":                             {gqa, 1, NVFP4, 8 * 2 * (64 + 8)},
		"latent attention":                     {mla, 1, Auto, 1152},
		"latent attention, on every GPU whole": {mla, 8, Auto, 1152},
		"latent attention in DeepSeek's FP8":   {mla, 8, FP8DeepSeek, 656},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.l.perToken(tt.tp, tt.t); got != tt.want {
				t.Errorf("%d bytes, want %d", got, tt.want)
			}
		})
	}
}

func TestPagesOfAHybrid(t *testing.T) {
	full := Layer{Kind: FullAttention, HeadsKV: 2, KeyDim: 256, ValueDim: 256}
	state := Layer{Kind: Recurrent, StateBytes: 2 << 20}
	sliding := Layer{Kind: SlidingAttention, Window: 1024, HeadsKV: 2, KeyDim: 256, ValueDim: 256}
	repeat := func(l Layer, n int) []Layer { return slices.Repeat([]Layer{l}, n) }
	wide := full
	wide.HeadsKV = 4
	tests := map[string]struct {
		layers       []Layer
		page         uint64
		block, layer int
		groups       int
		request      uint64 // blocks of 100,000 tokens
	}{
		"full attention alone":        {repeat(full, 10), 2048 * 16, 16, 10, 1, 6250},
		"as many sliding as full":     {append(repeat(full, 10), repeat(sliding, 10)...), 2048 * 16, 16, 10, 2, 6250 + 193}, // ⌈(1023 + 2048) ÷ 16⌉ + 1
		"five times as many":          {append(repeat(full, 4), repeat(sliding, 20)...), 2048 * 16, 16, 4, 6, 6250 + 5*193},
		"a few more are padded":       {append(repeat(full, 10), repeat(sliding, 14)...), 2048 * 16, 16, 14, 2, 6250 + 193},
		"half as many more are not":   {append(repeat(full, 10), repeat(sliding, 15)...), 2048 * 16, 16, 10, 3, 6250 + 2*193},
		"a state stretches the block": {append(repeat(full, 10), repeat(state, 30)...), 2 << 20, 1024, 10, 4, 98 + 3},
		"states alone":                {repeat(state, 8), 2 << 20, 16, 8, 1, 1},
		"layers without memory":       {append(repeat(full, 10), repeat(Layer{}, 40)...), 2048 * 16, 16, 10, 1, 6250},
		"nothing remembers":           {repeat(Layer{}, 40), 0, 0, 0, 0, 0},
		"two widths share a page":     {append(repeat(full, 10), repeat(wide, 5)...), (10*2048 + 5*4096) * 16, 16, 1, 1, 6250},
		"chunked attention":           {repeat(Layer{Kind: ChunkedAttention, Window: 8192, HeadsKV: 2, KeyDim: 256, ValueDim: 256}, 4), 2048 * 16, 16, 4, 1, 640},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := Options{TensorParallel: 1, BlockSize: 16, Cache: Auto, MaxBatchedTokens: 2048}
			s := layout(tt.layers, &o)
			if s.page != tt.page || s.block != tt.block || s.layers != tt.layer || s.groups() != tt.groups {
				t.Errorf("pages of %d bytes for %d tokens in %d groups of %d layers, want %d, %d, %d and %d",
					s.page, s.block, s.groups(), s.layers, tt.page, tt.block, tt.groups, tt.layer)
			}
			if got := s.request(&o, 100_000); got != tt.request {
				t.Errorf("a request takes %d blocks, want %d", got, tt.request)
			}
			if n := s.longest(&o, tt.request, 1<<20); s.request(&o, n) > tt.request || n < 100_000 {
				t.Errorf("%d blocks hold a sequence of %d tokens", tt.request, n)
			}
		})
	}
}

func TestSharesOfTensorParallelism(t *testing.T) {
	m := llama8B.model()
	m.Experts = 10
	tests := map[string]struct {
		t    Tensor
		o    Options
		want uint64
	}{
		"queries":                            {Tensor{Name: "blk.0.attn_q.weight", Bytes: 1600}, Options{TensorParallel: 16}, 100},
		"keys divide by heads":               {Tensor{Name: "blk.0.attn_k.weight", Bytes: 1600}, Options{TensorParallel: 4}, 400},
		"a head's keys repeat":               {Tensor{Name: "blk.0.attn_k.weight", Bytes: 1600}, Options{TensorParallel: 16}, 200},
		"fused: 32 heads, and 8 twice":       {Tensor{Name: "blk.0.attn_qkv.weight", Bytes: 4800}, Options{TensorParallel: 16}, 400},
		"norms are whole":                    {Tensor{Name: "blk.0.attn_norm.weight", Bytes: 1600}, Options{TensorParallel: 16}, 1600},
		"routers are whole":                  {Tensor{Name: "blk.0.ffn_gate_inp.weight", Bytes: 1600}, Options{TensorParallel: 16}, 1600},
		"latent down-projections are whole":  {Tensor{Name: "blk.0.attn_kv_a_mqa.weight", Bytes: 1600}, Options{TensorParallel: 16}, 1600},
		"biases after the sum are whole":     {Tensor{Name: "blk.0.ffn_down.bias", Bytes: 1600}, Options{TensorParallel: 16}, 1600},
		"biases of columns divide":           {Tensor{Name: "blk.0.ffn_up.bias", Bytes: 1600}, Options{TensorParallel: 16}, 100},
		"the vocabulary is padded":           {Tensor{Name: "output.weight", Shape: []uint64{10, 100}, Bytes: 2000}, Options{TensorParallel: 4}, 640},
		"experts divide":                     {Tensor{Name: "blk.0.ffn_up_exps.weight", Bytes: 1600}, Options{TensorParallel: 4}, 400},
		"whole experts":                      {Tensor{Name: "blk.0.ffn_up_exps.weight", Bytes: 1600}, Options{TensorParallel: 4, ExpertParallel: true}, 480},
		"MXFP4 experts are padded":           {Tensor{Name: "blk.0.ffn_up_exps.weight", Type: formats.MXFP4, Shape: []uint64{32, 128, 1}, Bytes: 128 * 17}, Options{TensorParallel: 1}, 256 * 17},
		"in a name that only looks like one": {Tensor{Name: "blk.", Bytes: 16}, Options{TensorParallel: 4}, 16},
		"what vision adds is whole":          {Tensor{Name: "v.blk.0.attn_q.weight", Bytes: 1600}, Options{TensorParallel: 4}, 1600},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := m.share(&tt.t, &tt.o, padRows); got != tt.want {
				t.Errorf("%d bytes, want %d", got, tt.want)
			}
		})
	}
}

func TestPaddingOfBothWidths(t *testing.T) {
	m := gptOSS20B.model()
	e := estimate(t, m, h100(), Options{})
	// 24 layers of 32 experts, three matrices of 2880 × 2880 at 17 bytes per 32.
	const stored, one, both = 2880 * 2880, 2880 * 3072, 3072 * 3072
	if got, want := e.term("MXFP4 padding").High, uint64(24*32*3*(both-one)*17/32); got != want {
		t.Errorf("padding of up to %d bytes, want %d", got, want)
	}
	if got, want := e.term("weights").Low, uint64(24*32*3*(one-stored)*17/32); got-want != bytes(m) {
		t.Errorf("weights of %d bytes, want the %d stored and %d", got, bytes(m), want)
	}
}

// bytes is what the tensors of m take as stored.
func bytes(m Model) (n uint64) {
	for _, t := range m.Tensors {
		n += t.Bytes
	}
	return n
}

func TestPipelineStages(t *testing.T) {
	for _, tt := range []struct {
		layers, pp int
		want       []int
	}{{32, 1, []int{0, 32}}, {32, 4, []int{0, 8, 16, 24, 32}}, {61, 4, []int{0, 15, 30, 46, 61}}, {7, 4, []int{0, 2, 4, 6, 7}}} {
		if got := stages(tt.layers, tt.pp); !slices.Equal(got, tt.want) {
			t.Errorf("%d layers in %d stages begin at %v, want %v", tt.layers, tt.pp, got, tt.want)
		}
	}
	m := llama8B.model()
	one, two := estimate(t, m, h100(), Options{}), estimate(t, m, h100(), Options{PipelineParallel: 2})
	blocks := uint64(16) * 2 * (2*4096*4096 + 2*4096*1024 + 3*4096*14336 + 2*4096)
	if got, want := two.term("weights").Low, blocks+2*4096*128256+2*4096; got != want {
		t.Errorf("the last of two stages holds %d bytes, want %d", got, want)
	}
	if two.BlockLayers != 16 || one.BlockLayers != 32 {
		t.Errorf("pages span %d layers of a stage, want 16", two.BlockLayers)
	}
	m.Tied = true
	m.Tensors = slices.DeleteFunc(m.Tensors, func(t Tensor) bool { return t.Name == "output.weight" })
	if got, want := estimate(t, m, h100(), Options{PipelineParallel: 2}).term("weights").Low, blocks+2*4096*128256+2*4096; got != want {
		t.Errorf("with a tied embedding the last stage holds %d bytes, want %d", got, want)
	}
}

func TestSettings(t *testing.T) {
	m := llama8B.model()
	if got, want := m.TensorParallelSizes(64), []int{1, 2, 4, 8, 16, 32}; !slices.Equal(got, want) {
		t.Errorf("tensor parallel sizes %v, want %v", got, want)
	}
	small := estimate(t, m, GPU{Total: 24 * gib}, Options{})
	if o := small.Options; o.MaxNumSeqs != 256 || o.MaxBatchedTokens != 2048 || o.MaxModelLen != 131072 || o.BlockSize != 16 || o.Utilization != 0.92 {
		t.Errorf("defaults %+v", o)
	}
	if small.Fits() || small.MaxLenLow >= 131072 || small.MaxLenLow < 20000 {
		t.Errorf("24 GiB: a sequence of 131072 fits is %v, the longest is %d", small.Fits(), small.MaxLenLow)
	}
	if o := estimate(t, m, GPU{Total: 24 * gib}, Options{MaxModelLen: small.MaxLenLow}); !o.Fits() {
		t.Errorf("the longest sequence that fits, %d, does not", small.MaxLenLow)
	}
	if e := estimate(t, m, GPU{Total: 80 * gib, A100: true}, Options{}); e.Options.MaxNumSeqs != 256 {
		t.Errorf("an A100 takes %d sequences, want 256", e.Options.MaxNumSeqs)
	}
	if e := estimate(t, m, GPU{Total: 8 * gib}, Options{}); e.KVHigh != 0 || e.BlocksHigh != 0 || e.Fits() || e.MaxLenHigh != 0 {
		t.Errorf("8 GiB hold a cache of %d bytes beside 15 GiB of weights", e.KVHigh)
	}
	if e := estimate(t, Model{Layers: make([]Layer, 2)}, h100(), Options{}); e.BlocksHigh != 0 || e.PageBytes != 0 {
		t.Errorf("a model without memory has %d pages", e.BlocksHigh)
	}
	if got := small.TokensLow(); got != small.BlocksLow*16 {
		t.Errorf("%d blocks hold %d tokens", small.BlocksLow, got)
	}
	for want, tt := range map[string]struct {
		g GPU
		o Options
	}{
		"32 attention heads do not divide among 3 GPUs":                                                      {h100(), Options{TensorParallel: 3}},
		"32 layers do not divide into 33 pipeline stages":                                                    {h100(), Options{PipelineParallel: 33}},
		"block size -1 is negative":                                                                          {h100(), Options{BlockSize: -1}},
		"gpu memory utilization 1.5 is not above 0 and at most 1":                                            {h100(), Options{Utilization: 1.5}},
		`cache type "q8" is not one of [auto fp8 fp8_per_token_head fp8_ds_mla nvfp4]`:                       {h100(), Options{Cache: "q8"}},
		"1000 bytes of 25769803776 are free, fewer than the 23708219473 that a utilization of 0.92 asks for": {GPU{Total: 24 * gib, Free: 1000}, Options{}},
	} {
		if _, err := New(m, tt.g, tt.o); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func TestTransformers(t *testing.T) {
	terms, err := Transformers(llama8B.model(), Generation{Batch: 2, Tokens: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, term := range terms {
		want, exact := map[string]uint64{"weights": 16060522496, "cache": 2 * 1000 * 131072, "logits": 2 * 128256 * 6}[term.Name]
		if exact && (term.Low != want || term.High != want) {
			t.Errorf("%s: %d to %d bytes, want %d", term.Name, term.Low, term.High, want)
		}
		if term.Low > term.High || term.Formula == "" || term.Source == "" {
			t.Errorf("term %+v", term)
		}
	}
	half, _ := Transformers(gptOSS20B.model(), Generation{Tokens: 1000, AllLogits: true})
	if got, want := half[1].Low, uint64(12*2048*(1000+128)); got != want {
		t.Errorf("a cache of %d bytes with windows, want %d", got, want)
	}
	if got, want := half[2].Low, uint64(1000*201088*6); got != want {
		t.Errorf("logits of every token take %d bytes, want %d", got, want)
	}
	if _, err := Transformers(Model{}, Generation{Batch: -1}); err == nil {
		t.Error("a negative batch is taken")
	}
}

func TestNothingOverflows(t *testing.T) {
	m := llama8B.model()
	m.ContextLength, m.Vocab, m.RotaryDim = math.MaxInt, math.MaxInt, math.MaxInt
	m.Tensors[0].Bytes, m.Tensors[0].Shape = math.MaxUint64, []uint64{1, math.MaxUint64}
	e := estimate(t, m, h100(), Options{})
	if e.KVHigh != 0 || e.term("activations").High != math.MaxUint64 {
		t.Errorf("a model of any size leaves %d bytes of cache", e.KVHigh)
	}
}

// No tensor or layer makes New panic, nor a share larger than the padded whole.
func FuzzNew(f *testing.F) {
	f.Add("blk.0.attn_qkv.weight", uint64(4096), uint64(6144), uint64(1<<20), 0, 8, 128, 2, 1)
	f.Add("blk.", uint64(0), uint64(0), uint64(1<<63), 4, 1, 576, 1, 2)
	f.Add("blk.99999999999999999999.x", uint64(1), uint64(3), uint64(9), 3, 0, -1, 16, 1)
	kinds := []LayerKind{FullAttention, SlidingAttention, ChunkedAttention, LatentAttention, Recurrent, Stateless}
	f.Fuzz(func(t *testing.T, name string, x, y, n uint64, kind, kv, dim, tp, pp int) {
		l := Layer{Kind: kinds[uint(kind)%6], HeadsKV: kv, KeyDim: dim, ValueDim: dim, Window: dim, StateBytes: n}
		m := Model{
			Heads: 16, FF: 16, Hidden: dim, Vocab: dim, ContextLength: dim, Layers: []Layer{l, l, {}},
			Tensors: []Tensor{{Name: name, Type: formats.MXFP4, Shape: []uint64{x, y, 2}, Bytes: n}},
		}
		e, err := New(m, h100(), Options{TensorParallel: tp, PipelineParallel: pp})
		if err != nil {
			return
		}
		if e.KVLow > e.KVHigh || e.BlocksLow > e.BlocksHigh || e.MaxLenLow > e.MaxLenHigh {
			t.Errorf("cache of %d to %d bytes, %d to %d blocks, %d to %d tokens", e.KVLow, e.KVHigh, e.BlocksLow, e.BlocksHigh, e.MaxLenLow, e.MaxLenHigh)
		}
		if e.KVHigh > e.Budget {
			t.Errorf("a cache of %d bytes in a budget of %d", e.KVHigh, e.Budget)
		}
	})
}

// Packed up-projections of latent attention are kept in 16 bits too, plain ones
// only once.
func TestLatentProjections(t *testing.T) {
	shape := []uint64{128, 512, 128} // of keys, 128 heads
	for name, tt := range map[string]struct {
		bytes, want uint64
	}{"packed in 8 bits": {128 * 512 * 128, 2 * 128 * 512 * 128 / 8}, "plain": {2 * 128 * 512 * 128, 0}} {
		m := Model{Heads: 128, Layers: []Layer{{Kind: LatentAttention, HeadsKV: 1, KeyDim: 576}}, Tensors: []Tensor{
			{"blk.0.attn_k_b.weight", formats.F8_E4M3, shape, tt.bytes},
			{"blk.0.attn_q_a.weight", formats.F8_E4M3, []uint64{7168, 1536}, 7168 * 1536},
		}}
		e, err := New(m, GPU{Total: 80 << 30}, Options{TensorParallel: 8})
		if err != nil {
			t.Fatal(err)
		}
		for _, term := range e.Terms {
			if term.Name == "latent projections in 16 bits" && (term.Low != tt.want || term.High != tt.want) {
				t.Errorf("%s: %d to %d bytes, want %d", name, term.Low, term.High, tt.want)
			}
			if want := tt.bytes/8 + 7168*1536; term.Name == "weights" && term.Low != want {
				t.Errorf("%s: %d bytes of weights, want %d", name, term.Low, want)
			}
		}
	}
}

// An indexer keeps a key of 8 bits with a scale beside each latent row.
func TestIndexKey(t *testing.T) {
	l := Layer{Kind: LatentAttention, HeadsKV: 1, KeyDim: 576, IndexDim: 128}
	for cache, want := range map[CacheType]uint64{Auto: 1152 + 132, FP8DeepSeek: 656 + 132} {
		if got := l.perToken(8, cache); got != want {
			t.Errorf("%s: %d bytes of a token, want %d", cache, got, want)
		}
	}
}

func TestTablesAreShared(t *testing.T) {
	m := Model{Heads: 8, Layers: []Layer{{Kind: FullAttention, HeadsKV: 2, KeyDim: 256, ValueDim: 256}}, Tensors: []Tensor{
		{"per_layer_token_embd.weight", formats.BF16, []uint64{7680, 262144}, 2 * 7680 * 262144},
		{"per_layer_model_proj.weight", formats.BF16, []uint64{2048, 7680}, 2 * 2048 * 7680},
	}}
	e, err := New(m, GPU{Total: 24 << 30}, Options{TensorParallel: 2})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := e.Terms[0].Low, uint64(7680*262144+2*2048*7680); got != want {
		t.Errorf("%d bytes of weights, want %d", got, want)
	}
}
