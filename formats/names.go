package formats

import "hash/maphash"

// Names finds the places of names in a list, in a quarter of the room that a map
// of the names takes.
type Names struct {
	seed  maphash.Seed
	slots []nameSlot
	name  func(i int) string
}

type nameSlot struct {
	place int32  // plus one; 0 is free
	tag   uint32 // of the name's hash: few other names have the same
}

// NewNames indexes the n names that name returns, now and later; of equal ones
// the last is found.
func NewNames(n int, name func(i int) string) *Names {
	size := 8
	for size < n+n/4 {
		size *= 2
	}
	x := &Names{seed: maphash.MakeSeed(), slots: make([]nameSlot, size), name: name}
	for i := range n {
		s, tag := x.slot(name(i))
		*s = nameSlot{int32(i + 1), tag}
	}
	return x
}

// slot returns the slot of a name, the one that has it or the free one it would
// take, and the name's tag.
func (x *Names) slot(name string) (*nameSlot, uint32) {
	hash := maphash.String(x.seed, name)
	tag, mask := uint32(hash>>32), len(x.slots)-1
	for i := int(hash) & mask; ; i = (i + 1) & mask {
		if s := &x.slots[i]; s.place == 0 || s.tag == tag && x.name(int(s.place-1)) == name {
			return s, tag
		}
	}
}

// Find returns the place of a name, -1 when it is not in the list.
func (x *Names) Find(name string) int {
	s, _ := x.slot(name)
	return int(s.place) - 1
}
