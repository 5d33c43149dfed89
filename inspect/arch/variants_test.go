package arch

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"weigh/fixtures"
	"weigh/formats"
	"weigh/formats/gguf"
	"weigh/inspect/model"
)

// TestVariants builds what no model of the fixtures has. The numbers of nodes
// are those of llama.cpp v0.5.0 for the same files.
func TestVariants(t *testing.T) {
	markov := func(g *fixtures.GGUF, draft uint64) {
		g.Add("markov_w1.weight", formats.Q4_K, 256, 32000).Add("markov_w2.weight", formats.Q4_K, 256, draft)
	}
	confident := func(g *fixtures.GGUF) {
		markov(g, 32000)
		g.Add("conf_proj.weight", formats.F16, 2048+256, 1)
	}
	tests := map[string]struct {
		base   string
		change func(g *fixtures.GGUF)
		tokens int // of a micro-batch
		embd   bool
		want   int
	}{
		"a Markov head on a block":             {"dflash-Q4_K_M", func(g *fixtures.GGUF) { markov(g, 32000) }, 12, false, 236},
		"no Markov head on more than a block":  {"dflash-Q4_K_M", func(g *fixtures.GGUF) { markov(g, 32000) }, 512, false, 160},
		"a Markov head that knows its doubts":  {"dflash-Q4_K_M", func(g *fixtures.GGUF) { confident(g); g.Add("conf_proj.bias", formats.F32, 1) }, 12, false, 324},
		"a Markov head behind an anchor":       {"dflash-Q4_K_M", func(g *fixtures.GGUF) { confident(g); g.Set("dflash.sample_from_anchor", false) }, 12, false, 307},
		"a Markov head on DeepSeek-V4":         {"dflash-dspark-Q4_K_M", func(g *fixtures.GGUF) { confident(g); g.Add("conf_proj.bias", formats.F32, 1) }, 12, false, 510},
		"a draft with fewer tokens":            {"dflash-Q4_K_M", func(g *fixtures.GGUF) { fewer(g); markov(g, 16000) }, 12, false, 301},
		"a draft with convolutions":            {"dflash-Q4_K_M", convolved, 12, false, 890},
		"a draft whose keys serve as values":   {"dflash-Q4_K_M", func(g *fixtures.GGUF) { drop(g, "attn_v") }, 512, false, 160},
		"EAGLE-3 with everything of its own":   {"eagle3-Q4_K_M", eagleAlone, 512, false, 43},
		"Gemma 4 whose keys serve as values":   {"gemma4-Q4_K_M", func(g *fixtures.GGUF) { drop(g, "attn_v") }, 512, false, 477},
		"Jina's gate in the up projection":     {"jina-bert-v2-F16", jinaFused, 512, true, 563},
		"Nomic without token types":            {"nomic-bert-F16", func(g *fixtures.GGUF) { drop(g, "token_types") }, 512, true, 333},
		"Modern BERT as a reranker, with SiLU": {"modern-bert-Q8_0", modernRanker, 512, true, 301},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := fixtures.Model(tt.base)
			tt.change(g)
			m := loadFixture(t, g)
			c := &Context{
				NCtx: 4096, NCtxSeq: 4096, NBatch: 2048, NUBatch: tt.tokens, NSeqMax: 1, FlashAttn: true, OffloadKQV: true,
				CausalAttn: m.CausalAttn, Embeddings: tt.embd, TypeK: formats.F16, TypeV: formats.F16, Pooling: m.Pooling,
			}
			u := Batch{NTokens: tt.tokens, NSeqTokens: tt.tokens, NSeqs: 1, NOutputs: tt.tokens}
			got, err := Build(m, c, NewMemory(m, c), u, nowhere{})
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Nodes) != tt.want {
				t.Errorf("%d nodes, llama.cpp has %d", len(got.Nodes), tt.want)
			}
		})
	}
}

func loadFixture(t *testing.T, g *fixtures.GGUF) *model.Model {
	t.Helper()
	b := g.Build()
	f, err := gguf.Read(bytes.NewReader(b.Data), b.Size())
	if err != nil {
		t.Fatal(err)
	}
	src := model.Source{Meta: header{f}}
	for _, x := range f.Tensors {
		src.Tensors = append(src.Tensors, model.Tensor{Name: x.Name, Type: x.Type, Shape: x.Shape, Bytes: x.Bytes})
	}
	m, err := Load(src)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// drop removes the tensors whose names contain part.
func drop(g *fixtures.GGUF, part string) {
	g.Tensors = slices.DeleteFunc(g.Tensors, func(t fixtures.Tensor) bool { return strings.Contains(t.Name, part) })
}

// fewer gives a draft half the tokens.
func fewer(g *fixtures.GGUF) {
	for i := range g.Tensors {
		if g.Tensors[i].Name == "output.weight" {
			g.Tensors[i].Shape[1] = 16000
		}
	}
	g.Add("d2t", formats.I64, 16000)
}

// convolved makes a draft a DFlash 2.
func convolved(g *fixtures.GGUF) {
	for key, v := range map[string]uint32{"conv_kernel_size": 4, "conv_group_size": 64, "selector_rank": 256, "selector_top_k": 8} {
		g.Set("dflash."+key, v)
	}
	g.Set("dflash.final_logit_softcapping", float32(30)).Set("dflash.logit_scale", float32(0.5))
	g.Add("selector_predecessor.weight", formats.Q4_K, 256, 32000).Add("selector_successor.weight", formats.Q4_K, 256, 32000)
	g.Add("selector_hidden.weight", formats.Q4_K, 2048, 256)
	for i := range 4 {
		for _, part := range []string{".attn_conv", ".ffn_conv"} {
			at := fmt.Sprintf("blk.%d%s", i, part)
			g.Add(at+"_base", formats.F32, 2048, 4, 2).Add(at+"_proj.weight", formats.Q4_K, 2048, 2*4*32)
		}
	}
}

func eagleAlone(g *fixtures.GGUF) {
	fewer(g)
	g.Set("eagle3.norm_before_residual", true).Set("eagle3.norm_before_fc", true)
	g.Add("token_embd.weight", formats.Q4_K, 2048, 32000)
	g.Add("enc.output_norm.weight", formats.F32, 6144).Add("rope_freqs.weight", formats.F32, 64)
}

// jinaFused is a Jina encoder with all norms and its gate in the up projection.
func jinaFused(g *fixtures.GGUF) {
	drop(g, "ffn_gate")
	for i := range g.Tensors {
		if x := &g.Tensors[i]; strings.Contains(x.Name, "ffn_up") {
			x.Shape[len(x.Shape)-1] *= 2
		}
	}
	for _, x := range slices.Clone(g.Tensors) {
		if at, ok := strings.CutSuffix(x.Name, "layer_output_norm.weight"); ok {
			for _, norm := range []string{"attn_norm_2", "attn_q_norm", "attn_k_norm"} {
				g.Add(at+norm+".weight", formats.F32, 768).Add(at+norm+".bias", formats.F32, 768)
			}
		}
	}
}

func modernRanker(g *fixtures.GGUF) {
	g.Set("modern-bert.hidden_activation", "silu").Set("modern-bert.pooling_type", uint32(model.PoolingRank))
	g.Add("cls.weight", formats.F32, 768, 768).Add("cls.norm.weight", formats.F32, 768).Add("cls.output.weight", formats.F32, 768, 1)
}
