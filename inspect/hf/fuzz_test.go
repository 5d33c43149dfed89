package hf

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"weigh/fixtures"
	"weigh/formats"
	"weigh/formats/hfconfig"
)

// FuzzConfig feeds configurations to every rule: none may panic, hang or make
// more than its tensors and its layers justify.
func FuzzConfig(f *testing.F) {
	for _, name := range fixtures.HFNames() {
		if b, err := fs.ReadFile(fixtures.HF, path.Join("hf", name, "config.json")); err == nil {
			f.Add(b, uint16(0))
		}
	}
	for i := range rows {
		f.Add([]byte(`{"num_hidden_layers":3,"hidden_size":64,"num_attention_heads":4,"num_key_value_heads":2,"layer_types":["full_attention"],"intermediate_size":-1,"head_dim":1e300}`), uint16(i))
	}
	names := []string{
		"model.embed_tokens.weight", "lm_head.weight", "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.kv_b_proj.weight", "model.layers.1.mlp.experts.0.gate_proj.weight",
		"model.layers.1.mlp.experts.gate_up_proj", "model.layers.99999999999999999999.x", "mtp.layers.0.x.weight", "model.layers.0.linear_attn.in_proj_qkvz.weight", "backbone.layers.0.mixer.norm.weight",
		"model.layers.0.attention.query_key_value.weight", "transformer.layers.0.ffn.proj_1.weight", "layers.0.ffn.experts.0.w1.weight", "model.layers.0.self_attn.g_proj.weight", "experts", "", ".",
		"model.layers.0.mamba.A_log", "model.layers.0.attn.x_r", "blk.0.attn_q.weight", "model.ngram_embedding.shard_0", "model.layers.2.self_attn.qkv_proj.weight", "model.layers.0.self_attn.o_proj.lora_A",
	}
	f.Fuzz(func(t *testing.T, config []byte, class uint16) {
		o, err := hfconfig.Parse(config, "config.json")
		if err != nil {
			return
		}
		m := &Model{Config: o}
		for i, n := range names {
			for _, shape := range [][]uint64{{4, 6}, {}, {1 << 40, 1 << 20}, {2, 3, 4}} {
				m.Weights = append(m.Weights, Weight{Name: strings.ReplaceAll(n, "0", string(rune('0'+i%3))), Shape: shape, Type: formats.BF16})
			}
		}
		dir := &folder{config: o}
		dir.convert(m)
		if class > 0 {
			r := &rows[int(class)%len(rows)]
			m.convertAs(r.hf[0], o.Text(), dir)
			for _, name := range r.hf {
				if defined := define(name, complete(o.Text(), o), 3); len(defined) > 64*maxDefined {
					t.Errorf("%s defines %d weights", name, len(defined))
				}
			}
		}
		if m.Source == nil {
			return
		}
		// A stacked or split tensor makes up to four; few rules add their own.
		if max := 4*len(m.Weights) + 16; len(m.Source.Tensors) > max {
			t.Errorf("%d tensors of %d", len(m.Source.Tensors), len(m.Weights))
		}
		for i := range m.Source.Tensors {
			x := &m.Source.Tensors[i]
			if len(x.Shape) == 0 || x.Type.Known() && x.Elements() > 0 && x.Bytes == 0 {
				t.Errorf("tensor %+v", x)
			}
		}
	})
}

// FuzzOpen feeds safetensors files to Open.
func FuzzOpen(f *testing.F) {
	head, _ := fixtures.SafetensorsHeader([]fixtures.SafeTensor{{Name: "m.qweight", Type: formats.I32, Shape: []uint64{1, 2}}, {Name: "m.scales", Type: formats.F16, Shape: []uint64{1, 2}}}, nil)
	f.Add(append(head, make([]byte, 12)...), []byte(`{"quantization_config":{"quant_method":"awq","bits":4}}`))
	head, _ = fixtures.SafetensorsHeader([]fixtures.SafeTensor{{Name: "m.weight", Type: formats.U32}, {Name: "m.scales", Type: formats.F16}}, nil)
	f.Add(append(head, make([]byte, 6)...), []byte(`{"quantization":{"bits":-4}}`))
	for _, n := range []string{"m.weight_packed", "m.q_weight", "m.trellis", "m._weight_qdata", "m.W_q", "x_blocks", "m.lora_A.weight"} {
		head, _ = fixtures.SafetensorsHeader([]fixtures.SafeTensor{{Name: n, Type: formats.U8}}, nil)
		f.Add(append(head, 0), []byte(`{}`))
	}
	f.Fuzz(func(t *testing.T, file, config []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "model.safetensors"), file, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644); err != nil {
			t.Fatal(err)
		}
		m, err := Open(dir)
		if (m == nil) == (err == nil) {
			t.Fatalf("Open() = %v, %v, want one of them", m, err)
		}
		if m == nil {
			return
		}
		var bytes uint64
		for i := range m.Weights {
			bytes += m.Weights[i].Bytes
		}
		if bytes > m.Bytes {
			t.Errorf("weights take %d bytes of %d stored", bytes, m.Bytes)
		}
	})
}
