package training

// DeepSpeed returns what DeepSpeed's own estimators give for the states of the
// recipe, bytes per GPU and per node's host. They differ from the ZeRO paper: a
// third stage counts 18 bytes per parameter, a second 16 beside the weights, and
// the host half as much again for buffers. ok is false for a recipe that they do
// not cover.
func (e *Estimate) DeepSpeed() (gpu, host uint64, ok bool) {
	r := &e.Recipe
	if r.Method != Full {
		return 0, 0, false
	}
	return deepSpeed(e.Total, e.largest, r.PerNode, r.GPUs/r.PerNode, r.Sharding, r.Offload)
}

// deepSpeed estimates the states of n parameters, the largest module of which
// has largest.
//
// Source: deepspeed/runtime/zero/stage_1_and_2.py, estimate_zero2_model_states_mem_needs;
// deepspeed/runtime/zero/stage3.py, estimate_zero3_model_states_mem_needs.
func deepSpeed(n, largest uint64, perNode, nodes int, s Sharding, o Offload) (gpu, host uint64, ok bool) {
	local, gpus := uint64(perNode), mul(uint64(perNode), uint64(nodes))
	if gpus == 0 {
		return 0, 0, false
	}
	loaded := mul(4, local)
	switch {
	case s == ZeRO2 && o == NoOffload:
		return add(mul(4, n), mul(16, n)/gpus), half(mul(n, loaded)), true
	case s == ZeRO2 && o == OffloadOptimizer:
		return mul(2, n), half(mul(n, max(loaded, 16))), true
	case s == ZeRO3 && o == NoOffload:
		return add(mul(4, largest), mul(18, n)/gpus), half(mul(n, loaded)), true
	case s == ZeRO3 && o == OffloadOptimizer:
		return add(mul(4, largest), mul(2, n)/gpus), half(mul(n, max(loaded, 16))), true
	case s == ZeRO3 && o == OffloadAll:
		return mul(4, largest), half(mul(n, max(loaded, ceil(18, uint64(nodes))))), true
	}
	return 0, 0, false
}

// half adds the half that the estimators allow for buffers.
func half(n uint64) uint64 { return add(n, n/2) }
