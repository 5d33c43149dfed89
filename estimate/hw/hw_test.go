package hw

import (
	"slices"
	"strings"
	"testing"
)

func TestOnHost(t *testing.T) {
	const gib = 1 << 30
	tests := map[string]struct {
		device  Device
		n, want uint64
	}{
		"a card of its own":                     {Device{}, 8 * gib, 0},
		"a device that shares everything":       {Device{Unified: true}, 8 * gib, 8 * gib},
		"within what is set aside":              {Device{Unified: true, OwnFree: 96 * gib}, 64 * gib, 0},
		"more than is set aside":                {Device{Unified: true, OwnFree: 4 * gib}, 10 * gib, 6 * gib},
		"a free memory that no one sets aside ": {Device{OwnFree: 4 * gib}, 10 * gib, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.device.OnHost(tt.n); got != tt.want {
				t.Errorf("OnHost(%d) = %d, want %d", tt.n, got, tt.want)
			}
		})
	}
}

func TestTaken(t *testing.T) {
	gib := uint64(1 << 30)
	card, chip := Device{Name: "card", MemoryTotal: &gib}, Device{Name: "chip", MemoryTotal: &gib, Unified: true}
	remote, slice := Device{Name: "remote", MemoryTotal: &gib, Remote: "host:1"}, Device{Name: "slice", MemoryTotal: &gib, MIG: true}
	lost := Device{Name: "lost"}
	many := slices.Repeat([]Device{card}, MaxDevices+1)
	tests := map[string]struct {
		all         []Device
		taken, left string
	}{
		"none":                            {nil, "", ""},
		"a card":                          {[]Device{card}, "card", ""},
		"an integrated device alone":      {[]Device{chip}, "chip", ""},
		"one beside a card":               {[]Device{chip, card}, "card", "chip is left out, as llama.cpp does with an integrated device"},
		"one beside a server's device":    {[]Device{remote, chip}, "remote chip", ""},
		"a card, one and a server's":      {[]Device{remote, card, chip}, "remote card", "chip is left out"},
		"a server's that shares a memory": {[]Device{card, {Name: "far", MemoryTotal: &gib, Remote: "host:1", Unified: true}}, "card far", ""},
		"two slices":                      {[]Device{slice, slice}, "slice", "slice is left out: CUDA gives one process a single MIG slice"},
		"a card and a slice":              {[]Device{card, slice}, "card slice", ""},
		"a card whose memory is unknown":  {[]Device{lost, card}, "card", "lost is left out: its memory is unknown"},
		"one beside an integrated device": {[]Device{lost, chip}, "chip", "lost is left out"},
		"nothing but such a card":         {[]Device{lost}, "", "lost is left out"},
		"more than llama.cpp takes":       {many, strings.TrimSpace(strings.Repeat("card ", MaxDevices)), "at most 16"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			taken, left := Taken(tt.all)
			var names []string
			for _, d := range taken {
				names = append(names, d.Name)
			}
			if got := strings.Join(names, " "); got != tt.taken {
				t.Errorf("Taken() = %q, want %q", got, tt.taken)
			}
			if len(left) != len(tt.all)-len(taken) || !strings.Contains(strings.Join(left, "; "), tt.left) {
				t.Errorf("Taken() says %q, want %q", left, tt.left)
			}
		})
	}
}
