package estimate

import (
	"strconv"
	"strings"

	"weigh/inspect/graph"
)

// A kind says which part of the model a tensor belongs to and which operator
// reads it: what llama.cpp places it by.
type kind struct {
	layer uint8 // inInput, inOutput or inBlock
	op    graph.Op
}

const (
	inBlock uint8 = iota
	inInput
	inOutput
)

// kinds holds all tensors, by their names without layer and suffix, that are
// not in a block and multiplied with.
//
// Source: src/llama-arch.cpp@v0.5.0, LLM_TENSOR_INFOS and LLM_TENSOR_NAMES.
var kinds = func() map[string]kind {
	k := map[string]kind{}
	add := func(layer uint8, op graph.Op, names string) {
		for _, n := range strings.Fields(names) {
			k[n] = kind{layer, op}
		}
	}
	add(inInput, graph.OpGetRows, "token_embd position_embd token_types per_layer_token_embd")
	add(inInput, graph.OpAdd, "hrm.z_l_init")
	add(inInput, graph.OpNone, "masked_embd_centroids masked_embd_ordering")
	add(inOutput, graph.OpMulMat, `output cls cls.output dense_2 dense_3 output_hc_fn output_hc_down output_hc_up altup_proj
		altup_unembd_proj nextn.post_projection fc markov_w2 conf_proj selector_hidden`)
	add(inOutput, graph.OpMul, "cls.norm output_norm dec.output_norm enc.output_norm output_hc_scale output_hc_norm output_res_score")
	add(inOutput, graph.OpAdd, "output_hc_base")
	add(inOutput, graph.OpGetRows, "d2t markov_w1 selector_predecessor selector_successor")
	add(inBlock, graph.OpRope, "rope_freqs rope_factors_long rope_factors_short")
	add(inBlock, graph.OpMul, `token_embd_norm attn_kv_a_norm hc_attn_scale hc_ffn_scale hc_attn_norm hc_ffn_norm ple_norm_key
		ple_norm_query ple_norm_conv attn_compressor_norm ssm_dt_norm ssm_b_norm ssm_c_norm ssm_d ssm_norm ssm_conv1d_q
		ssm_conv1d_k ssm_conv1d_v attn_res_score ffn_res_score ffn_routed_norm time_mix_lerp_x time_mix_ln channel_mix_lerp_k
		channel_mix_lerp_r time_mix_k_k time_mix_k_a time_mix_r_k attn_norm attn_norm_2 attn_output_norm post_attention_norm
		ffn_norm pre_ffw_norm_2 post_ffw_norm_1 post_ffw_norm_2 post_ffw_norm ffn_norm_exps attn_q_norm attn_k_norm
		layer_output_norm layer_output_scale attn_q_a_norm attn_sub_norm ffn_sub_norm dec.attn_norm dec.cross_attn_norm
		dec.ffn_norm enc.attn_norm enc.ffn_norm per_layer_proj_norm post_norm altup_correct_scale altup_router_norm
		laurel_post_norm posnet.norm posnet.norm1 posnet.norm2 posnet.attn_norm convnext.norm convnext.gamma indexer.k_norm
		indexer.q_norm indexer_compressor_norm nextn.enorm nextn.hnorm nextn.shared_head_norm attn_conv_base ffn_conv_base`)
	add(inBlock, graph.OpAdd, `hc_attn_base hc_ffn_base time_mix_lerp_w time_mix_lerp_k time_mix_lerp_v time_mix_lerp_r
		time_mix_lerp_g time_mix_lerp_fused time_mix_decay time_mix_w0 time_mix_a0 time_mix_v0 exp_probs_b exp_probs_b_vl`)
	add(inBlock, graph.OpSSMConv, "ple_conv1d ssm_conv1d shortconv.conv")
	add(inBlock, graph.OpSSMScan, "ssm_a")
	add(inBlock, graph.OpRWKVWKV6, "time_mix_first")
	add(inBlock, graph.OpGetRows, `attn_compressor_ape dec.attn_rel_b enc.attn_rel_b indexer_compressor_ape ffn_gate_tid2eid
		nextn.embed_tokens`)
	add(inBlock, graph.OpScale, "attn_sinks")
	add(inBlock, graph.OpDiv, "ffn.act")
	add(inBlock, graph.OpMulMatID, `ffn_down_exps ffn_gate_exps ffn_up_exps ffn_gate_up_exps ffn_down_chexps ffn_gate_chexps
		ffn_up_chexps`)
	add(inBlock, graph.OpNone, "dec.cross_attn_rel_b")
	add(inBlock, graph.OpIm2col, "conv1d posnet.conv1 posnet.conv2 convnext.dw")
	return k
}()

// suffixes are the last parts of tensors' names that say how a tensor is used,
// not which it is.
var suffixes = map[string]bool{"weight": true, "bias": true, "scale": true, "input_scale": true, "lora_a": true, "lora_b": true}

// parse takes a tensor's name apart: "dec.blk.3.attn_q.weight" is layer 3,
// "dec.attn_q", "weight". The layer is -1 where the name has none.
func parse(name string) (il int, base, suffix string) {
	il, base = -1, name
	if i := strings.LastIndexByte(base, '.'); i >= 0 && suffixes[base[i+1:]] {
		base, suffix = base[:i], base[i+1:]
	}
	for _, prefix := range [...]string{"blk.", "enc.blk.", "dec.blk.", "posnet.", "convnext."} {
		rest, ok := strings.CutPrefix(base, prefix)
		if !ok {
			continue
		}
		num, rest, ok := strings.Cut(rest, ".")
		n, err := strconv.Atoi(num)
		if !ok || err != nil || n < 0 {
			break
		}
		return n, strings.TrimSuffix(prefix, "blk.") + rest, suffix
	}
	return il, base, suffix
}

// kindOf returns what a tensor is. scan says whether the architecture reads
// ssm_a by a scan; others multiply by it.
//
// Source: src/llama-model-loader.cpp@v0.5.0, llama_model_loader::create_tensor.
func kindOf(base, suffix string, scan bool) kind {
	k, ok := kinds[base]
	if !ok {
		k = kind{inBlock, graph.OpMulMat}
	}
	switch {
	case suffix == "bias" && k.op == graph.OpMulMatID:
		k.op = graph.OpAddID
	case suffix == "bias" && k.op != graph.OpNone:
		k.op = graph.OpAdd
	case suffix == "lora_a" || suffix == "lora_b":
		k.op = graph.OpMulMatID
	case base == "ssm_a" && !scan:
		k.op = graph.OpMul
	}
	return k
}
