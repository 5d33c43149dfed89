package hf

import "hash/maphash"

// A byName finds the places of names in a list, in a quarter of the room that a
// map of the names takes.
type byName struct {
	seed  maphash.Seed
	slots []int32 // one more than the place; 0 is free
	name  func(i int) string
}

// newByName indexes n names; of equal ones the last
// is found.
func newByName(n int, name func(i int) string) *byName {
	size := 8
	for size < n+n/2 {
		size *= 2
	}
	x := &byName{seed: maphash.MakeSeed(), slots: make([]int32, size), name: name}
	for i := range n {
		*x.slot(name(i)) = int32(i + 1)
	}
	return x
}

// slot returns the slot of a name: the one that has it, or the free one it
// would take.
func (x *byName) slot(name string) *int32 {
	mask := len(x.slots) - 1
	for i := int(maphash.String(x.seed, name)) & mask; ; i = (i + 1) & mask {
		if s := &x.slots[i]; *s == 0 || x.name(int(*s-1)) == name {
			return s
		}
	}
}

// find returns the place of a name, -1 when it is not in the list.
func (x *byName) find(name string) int { return int(*x.slot(name)) - 1 }
