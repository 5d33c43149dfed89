package hf

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weigh/fixtures"
	"weigh/formats"
)

// le32 returns numbers as little-endian I32.
func le32(v ...uint32) (b []byte) {
	for _, n := range v {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return b
}

// The packed matrices of these tests have 256 outputs and 512 inputs unless
// said otherwise.
const (
	outs   = 256
	ins    = 512
	matrix = outs * ins
)

func TestPackingsDecode(t *testing.T) {
	typed := func(name string, typ formats.DType, shape ...uint64) fixtures.SafeTensor {
		return fixtures.SafeTensor{Name: name, Type: typ, Shape: shape}
	}
	with := func(x fixtures.SafeTensor, data []byte) fixtures.SafeTensor {
		x.Data = data
		return x
	}
	state := []byte(`{"quant_type":"nf4","blocksize":64,"dtype":"bfloat16","shape":[256,512]}`)
	tests := map[string]struct {
		config  string
		tensors []fixtures.SafeTensor
		params  uint64
		packed  string
		bits    float64 // per packed weight
		refused string
	}{
		"plain BF16": {
			"", []fixtures.SafeTensor{typed("m.weight", formats.BF16, outs, ins)}, matrix, "", 0, "",
		},
		"GPTQ of 4 bits": {
			`{"quant_method":"gptq","bits":4,"group_size":128}`, []fixtures.SafeTensor{
				typed("m.qweight", formats.I32, ins/8, outs), typed("m.qzeros", formats.I32, ins/128, outs/8),
				typed("m.scales", formats.F16, ins/128, outs), typed("m.g_idx", formats.I32, ins),
			}, matrix, "gptq", 4 + 20.0/128 + 32.0/outs, "",
		},
		"GPTQ of 3 bits": {
			`{"quant_method":"gptq","bits":3,"group_size":128}`, []fixtures.SafeTensor{
				typed("m.qweight", formats.I32, ins*3/32, outs), typed("m.qzeros", formats.I32, ins/128, outs*3/32),
				typed("m.scales", formats.F16, ins/128, outs), typed("m.g_idx", formats.I32, ins),
			}, matrix, "gptq", 3 + 19.0/128 + 32.0/outs, "3 bits",
		},
		"GPTQ without g_idx": {
			`{"quant_method":"gptq","bits":8,"group_size":-1}`, []fixtures.SafeTensor{
				typed("m.qweight", formats.I32, ins/4, outs), typed("m.qzeros", formats.I32, 1, outs/4),
				typed("m.scales", formats.F16, 1, outs),
			}, matrix, "gptq", 8 + 24.0/ins, "",
		},
		"AWQ": {
			`{"quant_method":"awq","bits":4,"group_size":128,"version":"gemm"}`, []fixtures.SafeTensor{
				typed("m.qweight", formats.I32, ins, outs/8), typed("m.qzeros", formats.I32, ins/128, outs/8),
				typed("m.scales", formats.F16, ins/128, outs),
			}, matrix, "awq", 4 + 20.0/128, "awq",
		},
		"AWQ for vectors": {
			`{"quant_method":"awq","bits":4,"group_size":128,"version":"gemv"}`, []fixtures.SafeTensor{
				typed("m.qweight", formats.I32, outs, ins/8), typed("m.qzeros", formats.I32, outs, 1),
				typed("m.scales", formats.F16, outs, 8),
			}, matrix, "awq", 4 + 32.0/ins + 128.0/ins, "awq",
		},
		"bitsandbytes NF4": {
			`{"quant_method":"bitsandbytes","load_in_4bit":true,"bnb_4bit_quant_type":"nf4"}`, []fixtures.SafeTensor{
				typed("m.weight", formats.U8, matrix/2, 1), typed("m.weight.absmax", formats.F32, matrix/64),
				typed("m.weight.quant_map", formats.F32, 16), with(typed("m.weight.quant_state.bitsandbytes__nf4", formats.U8, uint64(len(state))), state),
			}, matrix, "nf4", 4.5 + 8*float64(64+len(state))/matrix, "nf4",
		},
		"bitsandbytes NF4 with quantized scales in BF16 storage": {
			`{"quant_method":"bitsandbytes","load_in_4bit":true}`, []fixtures.SafeTensor{
				typed("m.weight", formats.BF16, matrix/4, 1), typed("m.weight.absmax", formats.U8, matrix/64),
				typed("m.weight.nested_absmax", formats.F32, matrix/64/256), typed("m.weight.nested_quant_map", formats.F32, 256), typed("m.weight.quant_map", formats.F32, 16),
			}, matrix, "nf4", 4 + 8.0/64 + 32.0/(64*256) + 8*float64(1024+64)/matrix, "nf4",
		},
		"bitsandbytes int8": {
			`{"quant_method":"bitsandbytes","load_in_8bit":true}`, []fixtures.SafeTensor{typed("m.weight", formats.I8, outs, ins), typed("m.SCB", formats.F32, outs), typed("m.weight_format", formats.U8)}, matrix, "int8", 8 + 32.0/ins + 8.0/matrix, "int8",
		},
		"compressed-tensors of 4 bits": {
			`{"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":{"group_0":{"weights":{"num_bits":4,"group_size":128}}}}`, []fixtures.SafeTensor{
				typed("m.weight_packed", formats.I32, outs, ins/8),
				typed("m.weight_scale", formats.BF16, outs, ins/128), with(typed("m.weight_shape", formats.I32, 2), le32(outs, ins)),
			}, matrix, "pack-quantized", 4 + 16.0/128 + 64.0/matrix, "",
		},
		"compressed-tensors of 3 bits with zero points": {
			`{"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":{"group_0":{"weights":{"num_bits":3,"group_size":128}}}}`, []fixtures.SafeTensor{
				typed("m.weight_packed", formats.I32, outs, (ins*3+31)/32),
				typed("m.weight_scale", formats.BF16, outs, ins/128), typed("m.weight_zero_point", formats.I32, outs*3/32, ins/128),
			}, matrix, "pack-quantized", 3 + 16.0/128 + 3.0/128, "",
		},
		"compressed-tensors whose shape lies": {
			`{"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":{"group_0":{"weights":{"num_bits":4,"group_size":128}}}}`, []fixtures.SafeTensor{
				typed("m.weight_packed", formats.I32, outs, ins/8),
				typed("m.weight_scale", formats.BF16, outs, ins/128), with(typed("m.weight_shape", formats.I32, 2), le32(1<<30, 1<<30)),
			}, matrix, "pack-quantized", 4 + 16.0/128 + 64.0/matrix, "",
		},
		"compressed-tensors FP8 by channel": {
			`{"quant_method":"compressed-tensors","format":"float-quantized","config_groups":{"group_0":{"weights":{"num_bits":8}}}}`, []fixtures.SafeTensor{typed("m.weight", formats.F8_E4M3, outs, ins), typed("m.weight_scale", formats.BF16, outs, 1)}, matrix, "f8_e4m3", 8 + 16.0/ins, "",
		},
		"compressed-tensors NVFP4": {
			`{"quant_method":"compressed-tensors","format":"nvfp4-pack-quantized","config_groups":{"group_0":{"weights":{"num_bits":4}}}}`, []fixtures.SafeTensor{typed("m.weight_packed", formats.U8, outs, ins/2), typed("m.weight_scale", formats.F8_E4M3, outs, ins/16), typed("m.weight_global_scale", formats.F32, 1)}, matrix, "nvfp4", 4.5 + 32.0/matrix, "",
		},
		"compressed-tensors MXFP4": {
			`{"quant_method":"compressed-tensors","format":"mxfp4-pack-quantized","config_groups":{"group_0":{"weights":{"num_bits":4}}}}`, []fixtures.SafeTensor{typed("m.weight_packed", formats.U8, outs, ins/2), typed("m.weight_scale", formats.U8, outs, ins/32)}, matrix, "mxfp4", 4.25, "mxfp4",
		},
		"compressed-tensors MXFP8": {
			`{"quant_method":"compressed-tensors","format":"mxfp8-quantized","config_groups":{"group_0":{"weights":{"num_bits":8}}}}`, []fixtures.SafeTensor{typed("m.weight", formats.F8_E4M3, outs, ins), typed("m.weight_scale", formats.U8, outs, ins/32)}, matrix, "mxfp8", 8.25, "mxfp8",
		},
		"two groups of compressed-tensors": {
			`{"quant_method":"compressed-tensors","format":"mixed-precision","config_groups":{"a":{},"b":{}}}`, []fixtures.SafeTensor{typed("m.weight", formats.F8_E4M3, outs, ins), typed("m.weight_scale", formats.F32)}, matrix, "f8_e4m3", 8 + 32.0/matrix, "only one group",
		},
		"ModelOpt NVFP4": {
			`{"quant_method":"modelopt","quant_algo":"NVFP4"}`, []fixtures.SafeTensor{typed("m.weight", formats.U8, outs, ins/2), typed("m.weight_scale", formats.F8_E4M3, outs, ins/16), typed("m.weight_scale_2", formats.F32), typed("m.input_scale", formats.F32)}, matrix, "nvfp4", 4.5 + 64.0/matrix, "",
		},
		"DeepSeek's FP8 by block": {
			`{"quant_method":"fp8","weight_block_size":[128,128]}`, []fixtures.SafeTensor{typed("m.weight", formats.F8_E4M3, outs, ins), typed("m.weight_scale_inv", formats.F32, outs/128, ins/128)}, matrix, "f8_e4m3", 8 + 32.0/(128*128), "",
		},
		"Mistral's FP8": {
			`{"quant_method":"fp8"}`, []fixtures.SafeTensor{typed("m.weight", formats.F8_E4M3, outs, ins), typed("m.qscale_weight", formats.F32), typed("m.qscale_act", formats.F32)}, matrix, "f8_e4m3", 8 + 64.0/matrix, "",
		},
		"ComfyUI's FP8": {
			"", []fixtures.SafeTensor{typed("m.weight", formats.F8_E4M3, outs, ins), typed("m.scale_weight", formats.F32), typed("scaled_fp8", formats.F8_E4M3, 2)}, matrix, "f8_e4m3", 8 + 32.0/matrix, "",
		},
		"fused experts of gpt-oss": {
			`{"quant_method":"mxfp4"}`, []fixtures.SafeTensor{typed("m.experts.down_proj_blocks", formats.U8, 4, outs, ins/32, 16), typed("m.experts.down_proj_scales", formats.U8, 4, outs, ins/32)}, 4 * matrix, "mxfp4", 4.25, "",
		},
		"BitNet": {
			`{"quant_method":"bitnet"}`, []fixtures.SafeTensor{typed("m.weight", formats.U8, outs/4, ins), typed("m.weight_scale", formats.BF16, 1)}, matrix, "bitnet", 2 + 16.0/matrix, "",
		},
		"EXL2": {
			`{"quant_method":"exl2","bits":4.0}`,
			[]fixtures.SafeTensor{typed("m.q_weight", formats.I32, ins/8, outs), typed("m.q_scale", formats.I32, 4, outs/8), typed("m.q_scale_max", formats.F16, 4), typed("m.q_groups", formats.I16, 8), typed("m.q_invperm", formats.I32, ins)},
			matrix, "exl2", 4 + 8*float64(4*outs/2+8+16+4*ins)/matrix, "exl2",
		},
		"EXL3 of 3.5 bits": {
			`{"quant_method":"exl3"}`, []fixtures.SafeTensor{typed("m.trellis", formats.I16, ins/16, outs/16, 56), typed("m.suh", formats.F16, ins), typed("m.svh", formats.F16, outs)}, matrix, "exl3", 3.5 + 16*float64(ins+outs)/matrix, "exl3",
		},
		"MLX of 4 bits": {
			"mlx:" + `{"group_size":64,"bits":4}`, []fixtures.SafeTensor{typed("m.weight", formats.U32, outs, ins/8), typed("m.scales", formats.BF16, outs, ins/64), typed("m.biases", formats.BF16, outs, ins/64)}, matrix, "mlx", 4.5, "mlx",
		},
		"MLX with a module of its own bits": {
			"mlx:" + `{"group_size":64,"bits":4,"m":{"group_size":32,"bits":6}}`, []fixtures.SafeTensor{typed("m.weight", formats.U32, outs, ins*6/32), typed("m.scales", formats.BF16, outs, ins/32), typed("m.biases", formats.BF16, outs, ins/32)}, matrix, "mlx", 7, "mlx",
		},
		"torchao of 8 bits": {
			`{"quant_method":"torchao"}`, []fixtures.SafeTensor{typed("m._weight_qdata", formats.I8, outs, ins), typed("m._weight_scale", formats.F32, outs)}, matrix, "torchao", 8 + 32.0/ins, "torchao",
		},
		"torchao of 4 bits": {
			`{"quant_method":"torchao"}`, []fixtures.SafeTensor{typed("m._weight_qdata", formats.U8, outs, ins/2), typed("m._weight_scale", formats.BF16, outs, ins/32)}, matrix, "torchao", 4.5, "torchao",
		},
		"HQQ": {
			`{"quant_method":"hqq"}`, []fixtures.SafeTensor{
				typed("m.W_q", formats.U8, matrix/2/64, 64), typed("m.scale", formats.BF16, matrix/64, 1), typed("m.zero", formats.BF16, matrix/64, 1),
				with(typed("m.shape", formats.I32, 2), le32(outs, ins)), with(typed("m.nbits", formats.I32, 1), le32(4)),
			}, matrix, "hqq", 4.5 + 96.0/matrix, "hqq",
		},
		"AutoRound in GPTQ's layout, a module of its own bits": {
			`{"quant_method":"auto-round","bits":4,"group_size":128,"packing_format":"auto_round:exllamav2"}`, []fixtures.SafeTensor{
				typed("m.qweight", formats.I32, ins/4, outs), typed("m.qzeros", formats.I32, ins/128, outs/4), typed("m.scales", formats.F16, ins/128, outs),
			}, matrix, "gptq", 8 + 24.0/128, "auto-round",
		},
		"AutoRound in AWQ's layout": {
			`{"quant_method":"auto-round","bits":4,"group_size":128,"packing_format":"auto_round:auto_awq"}`, []fixtures.SafeTensor{
				typed("m.qweight", formats.I32, ins, outs/8), typed("m.qzeros", formats.I32, ins/128, outs/8), typed("m.scales", formats.F16, ins/128, outs),
			}, matrix, "awq", 4 + 20.0/128, "awq",
		},
		"FP-Quant": {
			`{"quant_method":"fp_quant","forward_dtype":"mxfp4"}`, []fixtures.SafeTensor{
				typed("m.qweight", formats.U8, outs, ins/2), typed("m.scales", formats.U8, outs, ins/32), typed("m.weight_global_scale", formats.F32, 1),
			}, matrix, "mxfp4", 4.25 + 32.0/matrix, "fp_quant",
		},
		"SVDQuant": {
			"", []fixtures.SafeTensor{typed("m.qweight", formats.I8, outs, ins/2), typed("m.wscales", formats.BF16, ins/64, outs), typed("m.smooth", formats.BF16, ins)}, matrix, "int4", 4 + 16.0/64 + 16.0/outs, "int4",
		},
		"compressed-tensors of several widths": {
			`{"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":{"a":{"weights":{"num_bits":4}},"b":{"weights":{"num_bits":2}}}}`, []fixtures.SafeTensor{
				typed("m.weight_packed", formats.I32, outs, ins/16), typed("m.weight_scale", formats.BF16, outs, ins/128), with(typed("m.weight_shape", formats.I32, 2), le32(outs, ins)),
			}, matrix, "pack-quantized", 2 + 16.0/128 + 64.0/matrix, "only one group",
		},
		"compressed-tensors, two weights of four zero, for Marlin": {
			`{"quant_method":"compressed-tensors","format":"marlin-24","config_groups":{"a":{"weights":{"num_bits":4,"group_size":128}}}}`, []fixtures.SafeTensor{
				typed("m.weight_packed", formats.I32, ins/32, outs*2), typed("m.scale_packed", formats.F16, ins/128, outs), typed("m.meta", formats.I16, ins/32, outs*2),
			}, matrix, "pack-quantized", 2 + 1 + 16.0/128, "marlin-24",
		},
		"compressed-tensors with a bitmask": {
			`{"quant_method":"compressed-tensors","format":"sparse-24-bitmask"}`, []fixtures.SafeTensor{typed("m.weight.compressed", formats.BF16, outs, ins/2), typed("m.weight.bitmask", formats.U8, outs, ins/8)}, matrix, "sparse-bitmask", 9, "sparse-24-bitmask",
		},
		"ModelOpt INT4_AWQ": {
			`{"quant_method":"modelopt","quant_algo":"INT4_AWQ"}`, []fixtures.SafeTensor{typed("m.weight", formats.U8, outs/2, ins), typed("m.weight_scale", formats.F32, outs, ins/128), typed("m.pre_quant_scale", formats.BF16, ins)}, matrix, "int4", 4 + 32.0/128 + 16.0/outs, "int4",
		},
		"fused experts in NVFP4": {
			`{"quant_method":"modelopt","quant_algo":"NVFP4"}`, []fixtures.SafeTensor{
				typed("m.experts.down_proj", formats.U8, 4, outs, ins/2), typed("m.experts.down_proj_weight_scale", formats.F8_E4M3, 4, outs, ins/16), typed("m.experts.down_proj_weight_scale_2", formats.F32, 4),
			}, 4 * matrix, "nvfp4", 4.5 + 32.0/matrix, "",
		},
		"Quark of 4 bits": {
			`{"quant_method":"quark"}`, []fixtures.SafeTensor{typed("m.weight", formats.I32, ins, outs/8), typed("m.weight_scale", formats.BF16, ins/128, outs), typed("m.weight_zero_point", formats.I32, ins/128, outs/8)}, matrix, "int4", 4 + 20.0/128, "int4",
		},
		"AQLM": {
			`{"quant_method":"aqlm"}`, []fixtures.SafeTensor{typed("m.codes", formats.I16, outs, ins/8, 2), typed("m.codebooks", formats.F16, 2, 64, 1, 8), typed("m.scales", formats.F16, outs, 1, 1, 1)}, matrix, "aqlm", 4 + 16.0/ins + 16*2*64*8.0/matrix, "aqlm",
		},
		"VPTQ": {
			`{"quant_method":"vptq","config_for_layers":{"m":{"in_features":512,"out_features":256}}}`, []fixtures.SafeTensor{
				typed("m.indices", formats.I32, 1, ins, outs/16), typed("m.centroids.weight", formats.BF16, 1, 1024), typed("m.weight_scale", formats.BF16, ins), typed("m.weight_bias", formats.BF16, ins), typed("m.perm", formats.U16, ins),
			}, matrix, "vptq", 2 + 48.0/outs + 16*1024.0/matrix, "vptq",
		},
		"quanto of 8 bits": {
			`{"quant_method":"quanto","weights":"int8"}`, []fixtures.SafeTensor{typed("m.weight._data", formats.I8, outs, ins), typed("m.weight._scale", formats.BF16, outs, 1)}, matrix, "quanto", 8 + 16.0/ins, "quanto",
		},
		"quanto of 4 bits": {
			`{"quant_method":"quanto","weights":"int4"}`, []fixtures.SafeTensor{typed("m.weight._data._data", formats.U8, outs, ins/2), typed("m.weight._scale", formats.BF16, outs, ins/128), typed("m.weight._shift", formats.BF16, outs, ins/128)}, matrix, "quanto", 4 + 32.0/128, "quanto",
		},
		"EETQ": {
			`{"quant_method":"eetq"}`, []fixtures.SafeTensor{typed("m.weight", formats.I8, ins, outs), typed("m.weight_scales", formats.F16, outs)}, matrix, "i8", 8 + 16.0/ins, "eetq",
		},
		"Marlin": {
			`{"quant_method":"marlin"}`, []fixtures.SafeTensor{typed("m.B", formats.I32, ins/16, outs*2), typed("m.s", formats.F16, ins/128, outs)}, matrix, "marlin", 4 + 16.0/128, "marlin",
		},
		"a method of the future": {
			`{"quant_method":"quip9"}`, []fixtures.SafeTensor{typed("m.weight", formats.BF16, outs, ins)}, matrix, "", 0, "quip9",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			// What is never a parameter stands beside it everywhere.
			tensors := append(slices.Clone(tt.tensors), typed("m.k_scale", formats.F32), typed("a.rotary_emb.inv_freq", formats.F32, 64))
			if err := fixtures.WriteSafetensors(filepath.Join(dir, "model.safetensors"), tensors, nil); err != nil {
				t.Fatal(err)
			}
			config := map[string]any{"model_type": "x", "architectures": []string{"XForCausalLM"}}
			if text, mlx := strings.CutPrefix(tt.config, "mlx:"); mlx {
				config["quantization"] = json.RawMessage(text)
			} else if text != "" {
				config["quantization_config"] = json.RawMessage(text)
			}
			b, err := json.Marshal(config)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "config.json"), b, 0o644); err != nil {
				t.Fatal(err)
			}
			m, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			if len(m.Weights) != 1 || m.Params != tt.params || m.Weights[0].Packed != tt.packed {
				t.Fatalf("weights %+v, want one of %d parameters packed as %q", m.Weights, tt.params, tt.packed)
			}
			got := 0.0
			if m.Quant != nil {
				got = m.Quant.BitsPerWeight
			}
			if d := got - tt.bits; d > 1e-9 || d < -1e-9 {
				t.Errorf("%v bits per packed weight, want %v", got, tt.bits)
			}
			if (m.Refused == "") != (tt.refused == "") || !strings.Contains(m.Refused, tt.refused) {
				t.Errorf("refused %q, want …%s…", m.Refused, tt.refused)
			}
		})
	}
}

func TestAdapters(t *testing.T) {
	tests := map[string]struct {
		config  string
		tensors []fixtures.SafeTensor
		rank    int
		kind    string
		params  uint64
		saved   uint64
		modules []string
	}{
		"PEFT without a configuration": {
			"", []fixtures.SafeTensor{tensorOf("base_model.model.layers.0.q_proj.lora_A.weight", 8, 64), tensorOf("base_model.model.layers.0.q_proj.lora_B.weight", 32, 8)}, 8, "LORA", 8 * 96, 0, []string{"q_proj"},
		},
		"DoRA with a module stored whole": {
			`{"peft_type":"LORA","r":4,"use_dora":true,"modules_to_save":["lm_head"]}`, []fixtures.SafeTensor{
				tensorOf("base_model.model.layers.0.q_proj.lora_A.weight", 4, 64), tensorOf("base_model.model.layers.0.q_proj.lora_B.weight", 32, 4),
				tensorOf("base_model.model.layers.0.q_proj.lora_magnitude_vector", 32), tensorOf("base_model.model.lm_head.weight", 100, 64),
			}, 4, "DORA", 4*96 + 32 + 6400, 6400, []string{"q_proj"},
		},
		"kohya": {
			"", []fixtures.SafeTensor{tensorOf("lora_unet_down_blocks_0_to_q.lora_down.weight", 16, 64, 1, 1), tensorOf("lora_unet_down_blocks_0_to_q.lora_up.weight", 64, 16, 1, 1), tensorOf("lora_unet_down_blocks_0_to_q.alpha")}, 16, "LORA", 2*16*64 + 1, 0, []string{"to_q"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "adapter_model.safetensors"), tt.tensors...)
			if tt.config != "" {
				if err := os.WriteFile(filepath.Join(dir, "adapter_config.json"), []byte(tt.config), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			m, err := Open(dir)
			if err != nil || m.Adapter == nil {
				t.Fatalf("Open() = %+v, %v, want an adapter", m, err)
			}
			a := m.Adapter
			if a.Rank() != tt.rank || a.Kind != tt.kind || a.Params != tt.params || a.Saved != tt.saved {
				t.Errorf("%+v, want rank %d, kind %s, %d parameters, %d saved", a, tt.rank, tt.kind, tt.params, tt.saved)
			}
			for _, mod := range tt.modules {
				if a.Modules[mod] == 0 {
					t.Errorf("modules %v, want %s", a.Modules, mod)
				}
			}
		})
	}
}
