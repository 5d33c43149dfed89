package arch

import "strings"

// Demands returns the keys, without the architecture's name, that llama.cpp
// refuses to load the architecture without.
func (a *Arch) Demands() []string {
	return append(strings.Fields("context_length embedding_length block_count"), strings.Fields(a.Needs)...)
}

// Stored returns the type that llama.cpp wants the value of a key in, as
// gguf.KV.TypeName has it: key is without the architecture's name. perLayer
// reports whether an array of such values, one for each layer, does as well. A
// key that llama.cpp does not read has no type.
//
// Source: src/llama-model-loader.cpp@v0.5.0, llama_model_loader::get_key and
// get_key_or_arr; the fields' types are in src/llama-hparams.h.
func Stored(key string) (typ string, perLayer bool) {
	s := stored[key]
	return strings.TrimSuffix(s, perLayerMark), strings.HasSuffix(s, perLayerMark)
}

// perLayerMark follows the type of a value that may be one for each layer.
const perLayerMark = "*"

var stored = func() map[string]string {
	m := map[string]string{}
	for typ, keys := range map[string]string{
		"u32": `block_count context_length decoder_block_count embedding_length embedding_length_out
			embedding_length_per_layer_input experts_per_group expert_chunk_feed_forward_length expert_count
			expert_gating_func expert_group_count expert_group_used_count expert_latent_length expert_shared_count
			expert_shared_feed_forward_length features_length hash_layer_count interleave_moe_layer_step
			leading_dense_block_count moe_every_n_layers moe_latent_size nextn_predict_layers n_deepstack_layers
			num_loops rescale_every_n_layers rope.dimension_count rope.dimension_count_swa
			rope.scaling.original_context_length shortconv.l_cache ssm.conv_kernel ssm.group_count ssm.inner_size
			ssm.state_size ssm.time_step_rank time_decay_extra_dim time_mix_extra_dim token_shift_count wkv.head_size
			kda.head_dim hyper_connection.count hyper_connection.sinkhorn_iterations
			attention.decay_lora_rank attention.gate_lora_rank attention.group_norm_groups attention.iclr_lora_rank
			attention.indexer.block_size attention.indexer.head_count attention.indexer.key_length
			attention.indexer.local_blocks attention.indexer.top_k attention.key_length attention.key_length_mla
			attention.key_length_mla_swa attention.key_length_swa attention.kv_lora_rank attention.kv_lora_rank_swa
			attention.output_group_count attention.output_lora_rank attention.q_lora_rank
			attention.relative_buckets_count attention.shared_kv_layers attention.sliding_window
			attention.temperature_length attention.value_length attention.value_length_mla
			attention.value_length_mla_swa attention.value_length_swa attention.value_residual_mix_lora_rank`,
		"u32*": `attention.head_count attention.head_count_kv feed_forward_length expert_feed_forward_length expert_used_count`,
		"f32": `activation.situ_beta activation.situ_linear_beta attention.clamp_kqv attention.compress_rope_freq_base
			attention.group_norm_epsilon attention.layer_norm_epsilon attention.layer_norm_rms_epsilon
			attention.max_alibi_bias attention.output_scale attention.scale attention.temperature_scale
			attn_logit_softcapping embedding_scale expert_group_scale expert_weights_scale final_logit_softcapping
			hyper_connection.epsilon hyper_connection.magnitude kda.gate_lower_bound logit_scale residual_scale
			rope.freq_base rope.freq_base_swa rope.scaling.alpha rope.scaling.attn_factor rope.scaling.factor
			rope.scaling.yarn_attn_factor rope.scaling.yarn_beta_fast rope.scaling.yarn_beta_slow
			rope.scaling.yarn_ext_factor rope.scaling.yarn_log_multiplier router_logit_softcapping`,
		"f32*": `swiglu_clamp_exp swiglu_clamp_shexp`,
		"bool": `attention.causal expert_weights_norm hrm.prefix_lm norm_before_fc norm_before_residual rope.scaling.finetuned
			ssm.dt_b_c_rms swin_norm use_parallel_residual`,
		"str": `rope.scaling.type`,
	} {
		for _, k := range strings.Fields(keys) {
			m[k] = typ
		}
	}
	return m
}()
