package hw

import (
	"math"
	"strings"
	"testing"
)

func TestUsable(t *testing.T) {
	const mib = 1 << 20
	size := func(n uint64) *uint64 { return &n }
	tests := map[string]struct {
		device  Device
		reserve uint64
		lines   []string
		mib     uint64 // of the result, rounded down
	}{
		"a detected card": {
			Device{Backend: CUDA, SMs: 128, MemoryTotal: size(24564 * mib), MemoryFree: size(24000 * mib)},
			1024 * mib,
			[]string{"free", "own CUDA context", "reserve"},
			24000 - 383 - 1024,
		},
		"a detected card with a screen has the desktop in its figures": {
			Device{Backend: CUDA, SMs: 20, DisplayActive: true, MemoryTotal: size(8192 * mib), MemoryFree: size(7000 * mib)},
			0,
			[]string{"free", "desktop", "own CUDA context"},
			7000 - 68,
		},
		"an assumed card with a screen": {
			Device{Backend: CUDA, SMs: 20, DisplayActive: true, Assumed: true, MemoryTotal: size(8192 * mib), MemoryFree: size(8000 * mib)},
			0,
			[]string{"free", "desktop", "own CUDA context"},
			8000 - 600 - 68,
		},
		"under Windows": {
			Device{Backend: CUDA, SMs: 20, WDDM: true, MemoryTotal: size(8000 * mib), MemoryFree: size(7900 * mib)},
			0,
			[]string{"free", "Windows's budget for one process", "Windows's spill", "own CUDA context"},
			7600 - 512 - 68,
		},
		"an unknown number of multiprocessors is taken as the most": {
			Device{Backend: CUDA, ComputeCapability: Capability{8, 9}, MemoryTotal: size(24576 * mib), MemoryFree: size(24576 * mib)},
			0,
			[]string{"free", "own CUDA context"},
			24576 - 383,
		},
		"an AMD card": {
			Device{Backend: ROCm, SMs: 96, MemoryTotal: size(24560 * mib), MemoryFree: size(24000 * mib)},
			1024 * mib,
			[]string{"free", "reserve"},
			24000 - 1024,
		},
		"a detected card whose driver does not say what is free": {
			Device{Backend: Vulkan, DisplayActive: true, MemoryTotal: size(12288 * mib)},
			1024 * mib,
			[]string{"memory", "driver", "desktop", "reserve"},
			12288 - 256 - 600 - 1024,
		},
		"less free than the context": {
			Device{Backend: CUDA, SMs: 128, MemoryTotal: size(24564 * mib), MemoryFree: size(100 * mib)},
			1024 * mib,
			[]string{"free", "own CUDA context", "reserve"},
			0,
		},
		"an absurd reserve": {
			Device{Backend: ROCm, MemoryFree: size(100 * mib)},
			math.MaxInt64,
			[]string{"free", "reserve"},
			0,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := Usable(tt.device, tt.reserve)
			if !b.Known || b.Bytes/mib != tt.mib {
				t.Errorf("Usable() = %d MiB (known %v), want %d: %+v", b.Bytes/mib, b.Known, tt.mib, b.Lines)
			}
			var names []string
			var sum int64
			for _, l := range b.Lines {
				names = append(names, l.Name)
				sum += l.Bytes
			}
			if got, want := strings.Join(names, "|"), strings.Join(tt.lines, "|"); got != want {
				t.Errorf("lines are %s, want %s", got, want)
			}
			if sum > 0 && uint64(sum) != b.Bytes {
				t.Errorf("the lines sum to %d, the result is %d", sum, b.Bytes)
			}
		})
	}
	if b := Usable(Device{Backend: CUDA}, 0); b.Known || len(b.Lines) != 0 {
		t.Errorf("Usable() of an unknown free memory = %+v, want unknown", b)
	}
}

// TestContextMeetsTheMeasurements pins the formula to the public measurements
// that it was fitted to.
func TestContextMeetsTheMeasurements(t *testing.T) {
	for sms, mib := range map[int]uint64{188: 555, 170: 506, 142: 426, 34: 107} {
		got, _ := Context(Device{Backend: CUDA, SMs: sms})
		if got>>20+3 < mib || got>>20 > mib+3 {
			t.Errorf("context of %d multiprocessors = %d MiB, want %d within 3", sms, got>>20, mib)
		}
	}
}
