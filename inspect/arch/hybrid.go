package arch

import (
	"weigh/inspect/model"
)

// What architectures with recurrent layers have in common.

// loadSSM reads the widths of a state-space layer; without groups there is no
// ssm.group_count.
func loadSSM(k *Keys, h *model.HParams, groups bool) {
	h.SSMDConv = k.Need("ssm.conv_kernel")
	h.SSMDInner = k.Need("ssm.inner_size")
	h.SSMDState = k.Need("ssm.state_size")
	h.SSMDtRank = k.Need("ssm.time_step_rank")
	if groups {
		h.SSMNGroup = k.Need("ssm.group_count")
	}
}

// recurrentWithoutKV makes the trunk's layers without KV heads recurrent.
func recurrentWithoutKV(h *model.HParams) {
	for il := range h.NLayer() {
		h.Layers[il].Recr = h.NHeadKV(il) == 0
	}
}

// recurrentInterval reads which layers are recurrent: a flag for each, or all
// but every n-th.
func recurrentInterval(k *Keys, h *model.HParams, n int) {
	if k.Has("attention.recurrent_layers") {
		for il, on := range k.PerLayer("attention.recurrent_layers", h.NLayerAll, 0) {
			h.Layers[il].Recr = on != 0
		}
		return
	}
	n = k.Int("full_attention_interval", n)
	if n < 1 {
		k.fail("full_attention_interval", "%d, want at least 1", n)
		return
	}
	h.SetRecrPattern(n, false)
}

// per returns n/d of two widths from the file.
func (b *Builder) per(n, d int, what string) int64 {
	if d < 1 {
		b.Fail("%s is %d", what, d)
	}
	return int64(n / d)
}

// deltaBudget is the node budget of architectures whose chunked linear
// attention grows with the batch.
func deltaBudget(*model.Model) (perToken, perTensor int) { return 40, 32 }

// onlyNextN refuses an MTP graph of a model with several NextN blocks, which
// llama.cpp does not build.
func (b *Builder) onlyNextN() {
	if b.NLayerNext != 1 {
		b.Fail("%d NextN blocks, llama.cpp builds an MTP graph for one", b.NLayerNext)
	}
}
