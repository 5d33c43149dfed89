package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"weigh/fixtures"
	"weigh/formats"
)

// The files that are read.
const (
	largeGGUF   = "152k tokens, 1,015 tensors.gguf"
	manyTensors = "100,000 tensors.safetensors"
	manyShards  = "16,000 tensors in 163 shards"
)

func writeFiles(dir string) error {
	if dir == "" {
		return nil
	}
	return errors.Join(writeGGUF(filepath.Join(dir, largeGGUF)), writeTensors(filepath.Join(dir, manyTensors)), writeShards(filepath.Join(dir, manyShards)))
}

// writeGGUF writes a header as a 70B model has it, with holes for its weights.
func writeGGUF(file string) error {
	const vocab = 151936
	tokens, merges := make([]string, vocab), make([]string, 151387)
	for i := range tokens {
		tokens[i] = fmt.Sprintf("tok%d", i)
	}
	for i := range merges {
		merges[i] = fmt.Sprintf("mer%d ge%d", i%1000, i)
	}
	g := &fixtures.GGUF{}
	g.Set("general.architecture", "llama").Set("general.name", "large").Set("llama.block_count", uint32(112)).
		Set("llama.embedding_length", uint32(8192)).Set("llama.feed_forward_length", uint32(28672)).Set("llama.context_length", uint32(131072)).
		Set("llama.attention.head_count", uint32(64)).Set("llama.attention.head_count_kv", uint32(8)).
		Set("llama.attention.layer_norm_rms_epsilon", float32(1e-5)).Set("llama.rope.dimension_count", uint32(128)).
		Set("tokenizer.ggml.model", "gpt2").Set("tokenizer.ggml.tokens", tokens).Set("tokenizer.ggml.scores", make([]float32, vocab)).
		Set("tokenizer.ggml.token_type", make([]int32, vocab)).Set("tokenizer.ggml.merges", merges)
	g.Add("token_embd.weight", formats.Q4_K, 8192, vocab).Add("output.weight", formats.Q6_K, 8192, vocab).Add("output_norm.weight", formats.F32, 8192)
	for il := range 112 {
		add := func(name string, t formats.DType, shape ...uint64) {
			g.Add(fmt.Sprintf("blk.%d.%s.weight", il, name), t, shape...)
		}
		add("attn_norm", formats.F32, 8192)
		add("attn_q", formats.Q4_K, 8192, 8192)
		add("attn_k", formats.Q4_K, 8192, 1024)
		add("attn_v", formats.Q6_K, 8192, 1024)
		add("attn_output", formats.Q4_K, 8192, 8192)
		add("ffn_norm", formats.F32, 8192)
		add("ffn_gate", formats.Q4_K, 8192, 28672)
		add("ffn_up", formats.Q4_K, 8192, 28672)
		add("ffn_down", formats.Q6_K, 28672, 8192)
	}
	for i := len(g.Tensors); i < 1015; i++ {
		g.Add(fmt.Sprintf("extra.%d", i), formats.F32, 8192)
	}
	return g.WriteSparse(file)
}

// expert names the i-th tensor of a model with 256 experts in a layer.
func expert(i int) fixtures.SafeTensor {
	return fixtures.SafeTensor{Name: fmt.Sprintf("model.layers.%d.mlp.experts.%d.down_proj.weight_scale_inv", i/256, i%256), Type: formats.F32, Shape: []uint64{16, 56}}
}

func writeTensors(file string) error {
	var tensors []fixtures.SafeTensor
	for i := range 100_000 {
		tensors = append(tensors, expert(i))
	}
	return fixtures.WriteSafetensors(file, tensors, nil)
}

// writeShards writes a folder with an index of 1.6 MB.
func writeShards(dir string) error {
	const shards, tensors = 163, 16_000
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	list := make([][]fixtures.SafeTensor, shards)
	index, sep, total := []byte(`{"weight_map":{`), "", int64(0)
	for i := range tensors {
		t, s := expert(i), i*shards/tensors
		list[s] = append(list[s], t)
		index = fmt.Appendf(index, "%s\n    %q: %q", sep, t.Name, shard(s, shards))
		sep, total = ",", total+t.Bytes()
	}
	index = fmt.Appendf(index, `},"metadata":{"total_size":%d}}`, total)
	err := os.WriteFile(filepath.Join(dir, "model.safetensors.index.json"), index, 0o644)
	for s, tensors := range list {
		err = errors.Join(err, fixtures.WriteSafetensors(filepath.Join(dir, shard(s, shards)), tensors, nil))
	}
	return err
}

func shard(i, n int) string { return fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, n) }
