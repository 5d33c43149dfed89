package hf

import (
	"os"
	"testing"

	"weigh/fixtures"
	"weigh/formats"
	"weigh/formats/hfconfig"
)

// What the files hold is shared out among the tensors of the GGUF to the byte.
func TestHeld(t *testing.T) {
	for name, without := range map[string]uint64{
		"gemma-2-2b-it": 0, "gpt-oss-20b": 0, "llama-2-13b-chat-gptq": 0, "mixtral-8x7b": 0, "phi3-mini-slerp": 0,
		"granite-3.3-8b-fp8-ct": 0, "kimi-k2.5-cut2": 0, "llama-3.1-8b-bnb-int8": 0, "qwen3-14b-mlx-4bit": 0,
		"deepseek-v3-cut4": 15424227552, // a block that predicts a further token
	} {
		dir := t.TempDir()
		if err := fixtures.WriteHF(dir, name); err != nil {
			t.Fatal(err)
		}
		m, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Held) != len(m.Source.Tensors) {
			t.Fatalf("%s: %d of %d tensors", name, len(m.Held), len(m.Source.Tensors))
		}
		sum := without
		for _, n := range m.Held {
			sum += n
		}
		if sum != m.Bytes {
			t.Errorf("%s: %d bytes are held for tensors, the files hold %d", name, sum, m.Bytes)
		}
	}
}

// A tower for images is no part of the language model and no GGUF tensor.
func TestMultimodal(t *testing.T) {
	text, err := os.ReadFile("../../fixtures/hf/qwen2.5-vl-7b/config.json")
	if err != nil {
		t.Fatal(err)
	}
	config, err := hfconfig.Parse(text, "config.json")
	if err != nil {
		t.Fatal(err)
	}
	tensors := []fixtures.SafeTensor{
		{Name: "model.embed_tokens.weight", Type: formats.BF16, Shape: []uint64{64, 3584}},
		{Name: "model.layers.0.self_attn.q_proj.weight", Type: formats.BF16, Shape: []uint64{3584, 3584}},
		{Name: "visual.blocks.0.attn.qkv.weight", Type: formats.BF16, Shape: []uint64{3840, 1280}},
		{Name: "visual.merger.ln_q.weight", Type: formats.BF16, Shape: []uint64{1280}},
	}
	m := openConfig(t, config, tensors, 0)
	var held, tower uint64
	for _, n := range m.Held {
		held += n
	}
	for _, w := range m.Multimodal() {
		tower += w.Bytes
	}
	if tower != 2*(3840*1280+1280) || held+tower != m.Bytes {
		t.Errorf("%d bytes of the language model and %d of the tower, want %d in all and %d of the tower", held, tower, m.Bytes, 2*(3840*1280+1280))
	}
}
