package hw

import "fmt"

// Bases of a figure, from what holds to what is guessed.
const (
	Measured = "measured" // read from this machine
	Told     = "told"     // by a flag
	Modelled = "modelled" // from a formula fitted to measurements
	Assumed  = "assumed"  // typical; nothing of this machine went into it
)

// A Line is one step from a device's free memory to what a model can use.
type Line struct {
	Name   string
	Bytes  int64  // positive adds, negative takes away
	Basis  string // Measured, Told, Modelled or Assumed
	Source string // where the figure comes from
}

// A Budget is what a model can use of one device, and how it comes about.
type Budget struct {
	Lines []Line // sum to Bytes, unless more is taken than there is
	Bytes uint64
	Known bool // false when the free memory of the device is unknown
}

// Sizes of what else takes memory of a device.
const (
	contextPerSM  = 292 << 20 / 100 // CUDA context, bytes a multiprocessor
	contextBase   = 9 << 20         // CUDA context, bytes a device
	desktopMemory = 600 << 20       // compositor and shell of a Linux desktop: 0.3 to 1.1 GiB seen
	windowsMemory = 1 << 30         // desktop window manager and applications
	wddmHeadroom  = 512 << 20       // kept from the budget Windows gives one process
)

// Context returns the bytes that a process's own context takes of the device
// before it loads anything, and how that is known.
//
// A CUDA context grows with the multiprocessors: 2.92 MiB each and 9 MiB, the
// least-squares line through 555 MiB (188), 506 MiB (170), 426 MiB (142) and 107
// MiB (34 multiprocessors), which it meets within 3 MiB. When their number is
// unknown, the most that a card of the catalogue of this capability and size has
// is taken. HIP and Metal were seen to take nothing that their free memory does
// not already leave out.
func Context(d Device) (bytes uint64, why string) {
	if d.Backend != CUDA {
		return 0, ""
	}
	sms, of := d.SMs, ""
	if sms == 0 {
		sms = mostSMs(d)
		of = ", the most of a card of this capability and size"
	}
	return uint64(sms)*contextPerSM + contextBase, fmt.Sprintf("%d multiprocessors x 2.92 MiB + 9 MiB%s", sms, of)
}

// mostSMs returns the most multiprocessors among catalogue cards that the
// device could be: of its capability and at most its size; where there is none,
// of its capability; else of all.
func mostSMs(d Device) int {
	var fitting, capable, all int
	for _, c := range catalogue().cards {
		if c.Vendor != "nvidia" {
			continue
		}
		all = max(all, c.Units)
		if c.ComputeCapability == d.ComputeCapability {
			capable = max(capable, c.Units)
			if d.MemoryTotal == nil || c.Memory <= *d.MemoryTotal+*d.MemoryTotal/20 {
				fitting = max(fitting, c.Units)
			}
		}
	}
	switch {
	case fitting > 0:
		return fitting
	case capable > 0:
		return capable
	}
	return all
}

// Usable returns what a model can use of a device: its free memory less the
// process's own context, what a desktop or Windows takes, and the reserve to
// leave free (llama.cpp's --fit-target).
//
// Where the driver does not say what is free, the memory less what it keeps is
// taken, and a desktop comes off that; so it does of a device that is assumed. A
// desktop is already out of a free memory that was read. Under WDDM a process is given at most 95 percent of
// the memory and spills into host memory without an error beyond it, so the
// budget stays below that.
func Usable(d Device, reserve uint64) Budget {
	var b Budget
	read := false // whether the free memory is this machine's
	switch {
	case d.MemoryFree != nil:
		basis := Measured
		if d.Assumed && d.Source["memory_free"] == "flag" {
			basis = Told
		} else if d.Assumed {
			basis = Assumed
		}
		read = basis == Measured
		b = Budget{Known: true, Bytes: *d.MemoryFree, Lines: []Line{{"free", int64(*d.MemoryFree), basis, d.Source["memory_free"]}}}
	case d.MemoryTotal != nil:
		b = Budget{Known: true, Bytes: *d.MemoryTotal, Lines: []Line{{"memory", int64(*d.MemoryTotal), Assumed, d.Source["memory_total"] + "; what is free of it is not known"}}}
		b.take("driver", *d.MemoryTotal/48, Modelled, "what a driver keeps, at most")
	default:
		return Budget{}
	}
	if d.WDDM {
		if limit := total(d, b.Bytes) / 20 * 19; b.Bytes > limit {
			b.take("Windows's budget for one process", b.Bytes-limit, Modelled, "95 percent of the memory")
		}
		b.take("Windows's spill", wddmHeadroom, Modelled, "kept free so that Windows does not page to host memory")
	}
	if d.DisplayActive {
		switch {
		case read:
			b.take("desktop", 0, Measured, "already out of the free memory")
		case d.WDDM:
			b.take("desktop", windowsMemory, Assumed, "window manager and applications")
		default:
			b.take("desktop", desktopMemory, Assumed, "compositor and shell")
		}
	}
	if n, why := Context(d); n > 0 {
		b.take("own CUDA context", n, Modelled, why)
	}
	if reserve > 0 {
		b.take("reserve", reserve, Told, "left free on each device")
	}
	return b
}

// take adds a line that takes n bytes away.
func (b *Budget) take(name string, n uint64, basis, source string) {
	b.Lines = append(b.Lines, Line{name, -int64(n), basis, source})
	b.Bytes -= min(n, b.Bytes)
}

// total returns the memory of a device, or free when that is unknown.
func total(d Device, free uint64) uint64 {
	if d.MemoryTotal != nil {
		return *d.MemoryTotal
	}
	return free
}
