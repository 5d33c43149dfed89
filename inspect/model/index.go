package model

import (
	"strconv"
	"strings"
)

// An Index finds tensors by name without building names.
type Index struct {
	global map[string]int32
	layer  []map[string]int32
}

// NewIndex indexes tensors named "blk.N.rest" by N and rest, all others by
// their whole name.
func NewIndex(tensors []Tensor) *Index {
	x := &Index{global: map[string]int32{}}
	for i := range tensors {
		il, rest := SplitName(tensors[i].Name)
		if il < 0 {
			x.global[rest] = int32(i)
			continue
		}
		for len(x.layer) <= il {
			x.layer = append(x.layer, nil)
		}
		if x.layer[il] == nil {
			x.layer[il] = make(map[string]int32, 16)
		}
		x.layer[il][rest] = int32(i)
	}
	return x
}

// maxIndexed bounds the layer numbers that are indexed; a file may name any.
const maxIndexed = 1 << 12

// SplitName splits "blk.12.attn_q.weight" into 12 and "attn_q.weight"; the
// layer is -1 and the rest the whole name where there is none.
func SplitName(name string) (il int, rest string) {
	s, ok := strings.CutPrefix(name, "blk.")
	if !ok {
		return -1, name
	}
	num, rest, ok := strings.Cut(s, ".")
	if !ok {
		return -1, name
	}
	il, err := strconv.Atoi(num)
	if err != nil || il < 0 || il >= maxIndexed {
		return -1, name
	}
	return il, rest
}

// Layer returns the tensor "blk.il.rest", -1 when there is none.
func (x *Index) Layer(il int, rest string) int {
	if il < 0 || il >= len(x.layer) {
		return -1
	}
	if i, ok := x.layer[il][rest]; ok {
		return int(i)
	}
	return -1
}

// Global returns the tensor with a name outside the blocks, -1 when there is
// none.
func (x *Index) Global(name string) int {
	if i, ok := x.global[name]; ok {
		return int(i)
	}
	return -1
}
