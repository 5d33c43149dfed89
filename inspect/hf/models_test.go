package hf

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"weigh/fixtures"
	"weigh/formats/hfconfig"
	"weigh/inspect/arch"
	"weigh/inspect/model"
)

// TestFolderAndGGUFAreTheSameModel compares a folder with the header of the
// published GGUF of the same model: the hyper-parameters, which decide every
// cache, and the names and shapes of all tensors.
func TestFolderAndGGUFAreTheSameModel(t *testing.T) {
	tests := []struct {
		folder, gguf string
		// What is known to differ: the GGUF was made with other options.
		field, here, there string
	}{
		{"llama-3.1-8b", "Llama-3.1-8B-Q8_0", "", "", ""},
		{"mixtral-8x7b", "Mixtral-8x7B-Q4_K_M", "", "", ""},
		{"qwen3-0.6b", "Qwen3-0.6B-BF16", "", "output.weight[1024 151936]", "cls.output.weight[1024]"},
		{"qwen3-8b", "Qwen3-8B-Q4_K_M", "", "", ""},
		{"phi3-mini-slerp", "Phi-3-mini-4k-Q4_K_M", "", "", ""},
		{"gpt-oss-20b", "gpt-oss-20b-MXFP4", "", "", ""},
		{"lfm2-1.2b", "LFM2-1.2B-Q4_K_M", "", "", ""},
		{"bert-base-uncased", "BERT-base-F16", "Pooling", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.folder, func(t *testing.T) {
			m := openFixture(t, tt.folder)
			got, err := arch.Load(*m.Source)
			if err != nil {
				t.Fatal(err)
			}
			g := fixtures.Model(tt.gguf)
			want, err := arch.Load(sourceOf(g))
			if err != nil {
				t.Fatal(err)
			}
			a, b := reflect.ValueOf(got.HParams), reflect.ValueOf(want.HParams)
			for i := range a.NumField() {
				if f := a.Type().Field(i); f.IsExported() && f.Name != tt.field && !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
					t.Errorf("%s: %v, the GGUF has %v", f.Name, a.Field(i), b.Field(i))
				}
			}
			if len(m.Files) == 0 {
				return
			}
			if d := onlyIn(shapesOf(m.Source.Tensors), shapesOf(sourceOf(g).Tensors)); len(d) > 0 && d[0] != tt.here {
				t.Errorf("only in the folder: %v", d)
			}
			if d := onlyIn(shapesOf(sourceOf(g).Tensors), shapesOf(m.Source.Tensors)); len(d) > 0 && d[0] != tt.there {
				t.Errorf("only in the GGUF: %v", d)
			}
		})
	}
}

// TestConfigurationAndGGUFAreTheSameModel compares configurations, as their
// authors published them, with the header of the published GGUF: the
// hyper-parameters, and where the class is described the tensors' shapes.
func TestConfigurationAndGGUFAreTheSameModel(t *testing.T) {
	// Fields and tensors that differ: the GGUF was made with other options, or
	// from a configuration that says more.
	differ := map[string][]string{
		"GLM-4.5-Air-Q4_K_M":         {"NExpertGroups", "NGroupUsed", "blk.46."},
		"DeepSeek-V2-Lite-Q4_K_M":    {"NExpertGroups", "NGroupUsed"},
		"bge-m3-F16":                 {"Pooling"},
		"Qwen2.5-32B-Q4_K_M":         {"NCtxTrain", "NCtxOrigYarn"},
		"Granite-4.0-H-Small-Q4_K_M": {"NCtxTrain", "NCtxOrigYarn", "Layers"},
		"Gemma-3-4B-Q4_K_M":          {"RopeFreqScale", "token_embd"},
	}
	for name, text := range map[string]string{
		"Qwen3-30B-A3B-Q4_K_M":       `{"architectures":["Qwen3MoeForCausalLM"],"model_type":"qwen3_moe","head_dim":128,"hidden_size":2048,"intermediate_size":6144,"num_attention_heads":32,"num_key_value_heads":4,"num_hidden_layers":48,"max_position_embeddings":40960,"vocab_size":151936,"moe_intermediate_size":768,"num_experts_per_tok":8,"num_experts":128,"norm_topk_prob":true,"decoder_sparse_step":1,"mlp_only_layers":[],"sliding_window":null,"rms_norm_eps":1e-06}`,
		"DeepSeek-V2-Lite-Q4_K_M":    `{"architectures":["DeepseekV2ForCausalLM"],"model_type":"deepseek_v2","first_k_dense_replace":1,"hidden_size":2048,"intermediate_size":10944,"kv_lora_rank":512,"max_position_embeddings":163840,"moe_intermediate_size":1408,"moe_layer_freq":1,"n_group":1,"n_routed_experts":64,"n_shared_experts":2,"num_attention_heads":16,"num_experts_per_tok":6,"num_hidden_layers":27,"num_key_value_heads":16,"q_lora_rank":null,"qk_nope_head_dim":128,"qk_rope_head_dim":64,"v_head_dim":128,"rms_norm_eps":1e-06,"rope_scaling":{"beta_fast":32,"beta_slow":1,"factor":40,"mscale":0.707,"mscale_all_dim":0.707,"original_max_position_embeddings":4096,"type":"yarn"},"routed_scaling_factor":1.0,"scoring_func":"softmax","topk_method":"greedy","topk_group":1,"vocab_size":102400,"norm_topk_prob":false}`,
		"GLM-4.5-Air-Q4_K_M":         `{"architectures":["Glm4MoeForCausalLM"],"model_type":"glm4_moe","attention_bias":true,"head_dim":128,"hidden_size":4096,"intermediate_size":10944,"moe_intermediate_size":1408,"n_group":1,"n_routed_experts":128,"n_shared_experts":1,"norm_topk_prob":true,"num_attention_heads":96,"num_experts_per_tok":8,"num_hidden_layers":46,"num_key_value_heads":8,"num_nextn_predict_layers":1,"partial_rotary_factor":0.5,"first_k_dense_replace":1,"max_position_embeddings":131072,"vocab_size":151552,"rms_norm_eps":1e-05,"routed_scaling_factor":1.0,"topk_group":1,"use_qk_norm":false}`,
		"MiniMax-M2-Q4_K_M":          `{"architectures":["MiniMaxM2ForCausalLM"],"model_type":"minimax_m2","attn_type_list":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"head_dim":128,"hidden_size":3072,"intermediate_size":1536,"num_attention_heads":48,"num_key_value_heads":8,"num_hidden_layers":62,"num_local_experts":256,"num_experts_per_tok":8,"max_position_embeddings":196608,"rotary_dim":64,"vocab_size":200064,"rms_norm_eps":1e-06,"scoring_func":"sigmoid","use_mtp":true,"num_mtp_modules":3,"use_qk_norm":true,"use_routing_bias":true}`,
		"Phi-4-Q4_K_M":               `{"architectures":["Phi3ForCausalLM"],"model_type":"phi3","hidden_size":5120,"intermediate_size":17920,"num_attention_heads":40,"num_hidden_layers":40,"num_key_value_heads":10,"max_position_embeddings":16384,"original_max_position_embeddings":16384,"rope_theta":250000,"rope_scaling":null,"sliding_window":null,"vocab_size":100352,"rms_norm_eps":1e-05}`,
		"Qwen3-Next-80B-A3B-Q4_K_M":  `{"architectures":["Qwen3NextForCausalLM"],"model_type":"qwen3_next","head_dim":256,"hidden_size":2048,"intermediate_size":5120,"linear_conv_kernel_dim":4,"linear_key_head_dim":128,"linear_num_key_heads":16,"linear_num_value_heads":32,"linear_value_head_dim":128,"full_attention_interval":4,"max_position_embeddings":262144,"mlp_only_layers":[],"moe_intermediate_size":512,"num_attention_heads":16,"num_experts":512,"num_experts_per_tok":10,"num_hidden_layers":48,"num_key_value_heads":2,"partial_rotary_factor":0.25,"rms_norm_eps":1e-06,"rope_theta":10000000,"shared_expert_intermediate_size":512,"vocab_size":151936,"tie_word_embeddings":false}`,
		"Granite-4.0-H-Small-Q4_K_M": `{"architectures":["GraniteMoeHybridForCausalLM"],"model_type":"granitemoehybrid","hidden_size":4096,"intermediate_size":768,"num_attention_heads":32,"num_hidden_layers":40,"num_key_value_heads":8,"num_local_experts":72,"num_experts_per_tok":10,"shared_intermediate_size":1536,"mamba_chunk_size":256,"mamba_conv_bias":true,"mamba_d_conv":4,"mamba_d_head":64,"mamba_d_state":128,"mamba_expand":2,"mamba_n_groups":1,"mamba_n_heads":128,"mamba_proj_bias":false,"position_embedding_type":"nope","max_position_embeddings":131072,"vocab_size":100352,"rms_norm_eps":1e-05,"attention_multiplier":0.0078125,"embedding_multiplier":12,"logits_scaling":16,"residual_multiplier":0.22,"tie_word_embeddings":true,"layer_types":["mamba","mamba","mamba","mamba","mamba","attention","mamba","mamba","mamba","mamba","mamba","mamba","mamba","mamba","mamba","attention","mamba","mamba","mamba","mamba","mamba","mamba","mamba","mamba","mamba","attention","mamba","mamba","mamba","mamba","mamba","mamba","mamba","mamba","mamba","attention","mamba","mamba","mamba","mamba"]}`,
		"Gemma-3-4B-Q4_K_M":          `{"architectures":["Gemma3ForConditionalGeneration"],"model_type":"gemma3","text_config":{"hidden_size":2560,"intermediate_size":10240,"model_type":"gemma3_text","num_hidden_layers":34,"rope_scaling":{"factor":8.0,"rope_type":"linear"},"sliding_window":1024},"vision_config":{}}`,
		"Gemma-3n-E4B-Q4_K_M":        `{"architectures":["Gemma3nForConditionalGeneration"],"model_type":"gemma3n","text_config":{"activation_sparsity_pattern":[0.95,0.95,0.95,0.95,0.95,0.95,0.95,0.95,0.95,0.95,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0],"head_dim":256,"hidden_size":2048,"hidden_size_per_layer_input":256,"intermediate_size":[16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384,16384],"layer_types":["sliding_attention","sliding_attention","sliding_attention","sliding_attention","full_attention","sliding_attention","sliding_attention","sliding_attention","sliding_attention","full_attention","sliding_attention","sliding_attention","sliding_attention","sliding_attention","full_attention","sliding_attention","sliding_attention","sliding_attention","sliding_attention","full_attention","sliding_attention","sliding_attention","sliding_attention","sliding_attention","full_attention","sliding_attention","sliding_attention","sliding_attention","sliding_attention","full_attention","sliding_attention","sliding_attention","sliding_attention","sliding_attention","full_attention"],"laurel_rank":64,"max_position_embeddings":32768,"model_type":"gemma3n_text","num_attention_heads":8,"num_hidden_layers":35,"num_key_value_heads":2,"num_kv_shared_layers":15,"altup_num_inputs":4,"rms_norm_eps":1e-06,"sliding_window":512,"vocab_size":262400,"vocab_size_per_layer_input":262144,"rope_theta":1000000.0,"rope_local_base_freq":10000.0}}`,
		"Gemma-2-9B-Q4_K_M":          `{"architectures":["Gemma2ForCausalLM"],"model_type":"gemma2","hidden_size":3584,"intermediate_size":14336,"num_attention_heads":16,"num_key_value_heads":8,"num_hidden_layers":42,"head_dim":256,"max_position_embeddings":8192,"vocab_size":256000,"rms_norm_eps":1e-06,"sliding_window":4096,"query_pre_attn_scalar":144}`,
		"Mamba-2.8B-Q4_K_M":          `{"architectures":["MambaForCausalLM"],"model_type":"mamba","hidden_size":2560,"intermediate_size":5120,"state_size":16,"conv_kernel":4,"num_hidden_layers":64,"time_step_rank":160,"vocab_size":50280,"layer_norm_epsilon":1e-05}`,
		"bge-m3-F16":                 `{"architectures":["XLMRobertaModel"],"model_type":"xlm-roberta","hidden_size":1024,"intermediate_size":4096,"num_attention_heads":16,"num_hidden_layers":24,"max_position_embeddings":8194,"vocab_size":250002,"layer_norm_eps":1e-05,"pad_token_id":1,"type_vocab_size":1}`,
		"BLOOM-7B1-Q4_K_M":           `{"architectures":["BloomForCausalLM"],"model_type":"bloom","n_embed":4096,"num_attention_heads":32,"n_layer":30,"vocab_size":250880,"seq_length":2048,"layer_norm_epsilon":1e-05}`,
		"StarCoder2-7B-Q4_K_M":       `{"architectures":["Starcoder2ForCausalLM"],"model_type":"starcoder2","hidden_size":4608,"intermediate_size":18432,"num_attention_heads":36,"num_hidden_layers":32,"num_key_value_heads":4,"max_position_embeddings":16384,"sliding_window":4096,"vocab_size":49152,"norm_epsilon":1e-05}`,
		"GPT-2-XL-F16":               `{"architectures":["GPT2LMHeadModel"],"model_type":"gpt2","n_embd":1600,"n_head":25,"n_layer":48,"n_positions":1024,"n_ctx":1024,"vocab_size":50257,"layer_norm_epsilon":1e-05}`,
		"Mistral-7B-v0.3-Q4_K_M":     `{"architectures":["MistralForCausalLM"],"model_type":"mistral","hidden_size":4096,"intermediate_size":14336,"num_attention_heads":32,"num_key_value_heads":8,"num_hidden_layers":32,"max_position_embeddings":32768,"vocab_size":32768,"rms_norm_eps":1e-05,"sliding_window":null,"rope_theta":1000000.0}`,
		"Mistral-Small-24B-Q4_K_M":   `{"architectures":["MistralForCausalLM"],"model_type":"mistral","hidden_size":5120,"head_dim":128,"intermediate_size":32768,"num_attention_heads":32,"num_key_value_heads":8,"num_hidden_layers":40,"max_position_embeddings":32768,"vocab_size":131072,"rms_norm_eps":1e-05,"sliding_window":null,"rope_theta":100000000.0}`,
		"Qwen2.5-0.5B-Q4_K_M":        `{"architectures":["Qwen2ForCausalLM"],"model_type":"qwen2","hidden_size":896,"intermediate_size":4864,"max_window_layers":70,"num_attention_heads":14,"num_key_value_heads":2,"num_hidden_layers":24,"max_position_embeddings":32768,"vocab_size":151936,"sliding_window":32768,"use_sliding_window":false,"tie_word_embeddings":true,"rms_norm_eps":1e-06}`,
		"Qwen2.5-32B-Q4_K_M":         `{"architectures":["Qwen2ForCausalLM"],"model_type":"qwen2","hidden_size":5120,"intermediate_size":27648,"max_window_layers":28,"num_attention_heads":40,"num_key_value_heads":8,"num_hidden_layers":64,"max_position_embeddings":131072,"vocab_size":152064,"sliding_window":131072,"use_sliding_window":false,"rms_norm_eps":1e-06}`,
		"Llama-3.2-1B-Q4_K_M":        `{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":2048,"head_dim":64,"intermediate_size":8192,"num_attention_heads":32,"num_key_value_heads":8,"num_hidden_layers":16,"max_position_embeddings":131072,"vocab_size":128256,"rms_norm_eps":1e-05,"tie_word_embeddings":true,"rope_theta":500000.0,"rope_scaling":{"factor":32.0,"high_freq_factor":4.0,"low_freq_factor":1.0,"original_max_position_embeddings":8192,"rope_type":"llama3"}}`,
		"Qwen3.5-9B-Q4_K_M":          `{"architectures":["Qwen3_5ForConditionalGeneration"],"model_type":"qwen3_5","text_config":{"model_type":"qwen3_5_text","hidden_size":4096,"num_hidden_layers":32,"intermediate_size":12288,"max_position_embeddings":262144}}`,
		"Qwen3.5-35B-A3B-Q4_K_M":     `{"architectures":["Qwen3_5MoeForConditionalGeneration"],"model_type":"qwen3_5_moe","text_config":{"model_type":"qwen3_5_moe_text","max_position_embeddings":262144}}`,
	} {
		t.Run(name, func(t *testing.T) {
			config, err := hfconfig.Parse([]byte(text), "config.json")
			if err != nil {
				t.Fatal(err)
			}
			m := openConfig(t, config, nil, 0)
			got, err := arch.Load(*m.Source)
			if err != nil {
				t.Fatal(err)
			}
			g := fixtures.Model(name)
			want, err := arch.Load(sourceOf(g))
			if err != nil {
				t.Fatal(err)
			}
			a, b := reflect.ValueOf(got.HParams), reflect.ValueOf(want.HParams)
			for i := range a.NumField() {
				f := a.Type().Field(i)
				if f.IsExported() && !slices.Contains(differ[name], f.Name) && !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
					t.Errorf("%s: %v, the GGUF has %v", f.Name, a.Field(i), b.Field(i))
				}
			}
			if !m.Defined {
				return
			}
			shapes := func(tensors []model.Tensor) []string {
				list := shapesOf(tensors)
				for i := range list {
					list[i] = strings.Replace(list[i], " 1]", "]", 1)
				}
				return slices.DeleteFunc(list, func(s string) bool {
					return slices.ContainsFunc(differ[name], func(d string) bool { return strings.HasPrefix(s, d) })
				})
			}
			if d := onlyIn(shapes(m.Source.Tensors), shapes(sourceOf(g).Tensors)); len(d) > 0 {
				t.Errorf("only in the definition: %v", d)
			}
			if d := onlyIn(shapes(sourceOf(g).Tensors), shapes(m.Source.Tensors)); len(d) > 0 {
				t.Errorf("only in the GGUF: %v", d)
			}
		})
	}
}

func shapesOf(tensors []model.Tensor) (out []string) {
	for i := range tensors {
		out = append(out, fmt.Sprint(tensors[i].Name, tensors[i].Shape))
	}
	slices.Sort(out)
	return out
}

// sourceOf returns a fixture's header as a source.
func sourceOf(g *fixtures.GGUF) model.Source {
	m := meta{}
	for _, kv := range g.KVs {
		v := reflect.ValueOf(kv.Value)
		switch {
		case kv.Key == "tokenizer.ggml.tokens":
			m[kv.Key] = model.Len(v.Len())
		case v.CanInt():
			m[kv.Key] = v.Int()
		case v.CanUint():
			m[kv.Key] = int64(v.Uint())
		case v.CanFloat():
			m[kv.Key] = v.Float()
		case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Bool, v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.String:
			m[kv.Key] = kv.Value
		case v.Kind() == reflect.Slice:
			list := make([]int64, 0, v.Len())
			floats := make([]float64, 0, v.Len())
			for i := range v.Len() {
				if e := v.Index(i); e.CanInt() {
					list = append(list, e.Int())
				} else if e.CanUint() {
					list = append(list, int64(e.Uint()))
				} else {
					floats = append(floats, e.Float())
				}
			}
			m[kv.Key] = list
			if len(floats) > 0 {
				m[kv.Key] = floats
			}
		default:
			m[kv.Key] = kv.Value
		}
	}
	s := model.Source{Meta: m}
	for _, x := range g.Tensors {
		s.Tensors = append(s.Tensors, model.Tensor{Name: x.Name, Type: x.Type, Shape: x.Shape})
	}
	return s
}
