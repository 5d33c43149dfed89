package arch

import (
	"slices"
	"strings"

	"weigh/inspect/model"
)

// unknown stands for every architecture without a row: whatever the file holds
// is loaded, and all that the header gives a width to is kept, in each layer
// that can have it, so that weights and caches are upper bounds.
var unknown = &Arch{
	Rollback: true, Tie: TieTwice, NextN: NextNKeep,
	Load: loadUnknown, Memory: unknownMemory,
}

// Row is Lookup, with a row without Build for the architectures that have none.
func Row(name string) *Arch {
	if row := Lookup(name); row != nil {
		return row
	}
	return unknown
}

// loadUnknown reads the widths of states, and of an indexer's keys, by the
// names that llama.cpp's architectures share.
func loadUnknown(k *Keys, h *model.HParams) {
	h.SSMDConv = k.Count("ssm.conv_kernel", 0)
	h.SSMDInner = k.Count("ssm.inner_size", 0)
	h.SSMDState = k.Count("ssm.state_size", 0)
	h.SSMDtRank = k.Count("ssm.time_step_rank", 0)
	h.SSMNGroup = k.Count("ssm.group_count", 0)
	h.WKVHeadSize = k.Count("wkv.head_size", 0)
	h.TokenShiftCount = k.Count("token_shift_count", 2)
	h.NShortconvLCache = k.Count("shortconv.l_cache", 0)
	h.NEmbdHeadKDA = k.Count("kda.head_dim", 0)
	h.IndexerHeadSize = k.Count("attention.indexer.key_length", 0)
}

// borrowed returns the architecture by whose name the file's keys go where they
// do not go by its own, "" for none.
func (k *Keys) borrowed() string {
	const key = "block_count"
	if k.Has(key) {
		return ""
	}
	names := Names()
	slices.Sort(names)
	for _, name := range names {
		if _, ok := k.meta.Lookup(name + "." + key); ok {
			return name
		}
	}
	return ""
}

// unknownMemory keeps keys and values, at full size, and an indexer's keys for
// all layers with KV heads, and a state for the layers with a recurrent
// block's tensors.
func unknownMemory(m *model.Model, c *Context) *Memory {
	mem := &Memory{Class: "kv", KV: NewCache(m, c, CacheOptions{})}
	if m.IndexerHeadSize > 0 {
		mem.Idx = newIndexerCache(m, c, false, nil)
	}
	if m.NEmbdR() > 0 || m.NEmbdS() > 0 {
		mem.Class, mem.RS = "hybrid", NewState(m, c, recurrentByTensors(m))
	}
	return mem
}

// recurrentByTensors selects the layers with tensors of a recurrent block; nil,
// for all layers, when none shows one.
func recurrentByTensors(m *model.Model) func(il int) bool {
	has := make([]bool, m.NLayerAll)
	for i := range m.Tensors {
		il, rest := model.SplitName(m.Tensors[i].Name)
		for _, block := range []string{"ssm_", "time_mix_", "shortconv."} {
			if il >= 0 && il < len(has) && strings.HasPrefix(rest, block) {
				has[il] = true
			}
		}
	}
	if !slices.Contains(has, true) {
		return nil
	}
	return func(il int) bool { return has[il] }
}
