// Package hw describes the machine a model would run on: its devices, its host
// memory, the catalogue of known cards and what llama.cpp can use of a device.
//
// It is plain data and arithmetic. It asks no driver and reads no file: that is
// the work of hw/detect.
package hw

import (
	"fmt"
	"slices"
)

// A Machine is what a model can run on.
type Machine struct {
	Devices []Device
	Host    Host
}

// Names of backends: the buffer rules of llama.cpp that a device follows.
const (
	CUDA   = "cuda"
	ROCm   = "rocm"
	Vulkan = "vulkan"
	Metal  = "metal"
	SYCL   = "sycl"
)

// A Device is one GPU, or one slice of a GPU, as a runtime would see it.
// A pointer that is nil and any other field at its zero value is unknown.
type Device struct {
	Index   int    // position in the order detected or named
	Number  int    // that its backend names it by plus one: 2 of CUDA1; 0: its place among the backend's
	Name    string // as the driver or the catalogue writes it
	Vendor  string // "nvidia", "amd", "intel", "apple"; "" for a bare size
	UUID    string
	Backend string // CUDA, ROCm, Vulkan, Metal or SYCL; "" of a remote device whose server does not say
	Driver  string // version of the driver
	CUDA    string // highest version of CUDA that the driver takes

	MemoryTotal    *uint64 // bytes
	MemoryFree     *uint64 // bytes, before a new process's own context
	MemoryReserved uint64  // bytes the driver keeps for itself, already out of MemoryFree
	Unified        bool    // shares the host's memory: count it once
	OwnFree        uint64  // bytes free of what the firmware sets aside for a Unified device, which the host does not have
	HostMemory     uint64  // bytes that the machine of an assumed Unified device has
	UsedBy         []Process

	ComputeCapability Capability // of an NVIDIA device
	Arch              string     // "gfx1100" of an AMD device
	SMs               int        // multiprocessors, compute units, Xe cores or GPU cores
	BandwidthBps      uint64     // bytes per second, peak
	FP16Flops         uint64     // operations per second, peak dense matrix rate with 32-bit sums
	FP32Flops         uint64     // operations per second, peak vector rate
	PCIe              PCIe       // of a remote device: of its own host
	LinkBps           uint64     // bytes per second to a remote device; 0 unknown
	PowerLimitMilliW  uint64

	DisplayActive bool   // a screen is driven, so a desktop holds some memory
	WDDM          bool   // Windows owns the memory and pages it silently
	Assumed       bool   // named by the user, not found in this machine
	MIG           bool   // a slice of a larger GPU
	Remote        string // host:port of the rpc-server that has it; "": in this machine

	Source map[string]string // field as the JSON spells it -> where it was read
	Notes  []string
}

// OnHost returns how much of n bytes on the device is taken of the host's memory:
// all of it where that is shared, but for what is set aside for the device, which
// is taken first.
func (d *Device) OnHost(n uint64) uint64 {
	if !d.Unified {
		return 0
	}
	return n - min(n, d.OwnFree)
}

// Taken returns the devices that llama.cpp runs a model on when it is not told
// which, and why it leaves the others: integrated ones where there is another
// (those of rpc-servers do not count), all slices of split GPUs but the first,
// which is all that CUDA shows to one process, and what is beyond MaxDevices. So
// is a device whose memory is unknown: --fit assigns nothing to one.
//
// Source: llama.cpp src/llama.cpp@v0.5.0, llama_prepare_model_devices, and common/fit.cpp; NVIDIA's
// MIG user guide, CUDA device enumeration.
func Taken(devices []Device) (taken []Device, left []string) {
	unknown := func(d Device) bool { return d.MemoryTotal == nil && d.MemoryFree == nil }
	others := slices.ContainsFunc(devices, func(d Device) bool { return d.Remote == "" && !d.Unified && !unknown(d) })
	slice := false
	for _, d := range devices {
		switch {
		case unknown(d):
			left = append(left, d.Name+" is left out: its memory is unknown; --gpu or --rpc-memory says what it has")
		case d.Remote == "" && d.Unified && others:
			left = append(left, d.Name+" is left out, as llama.cpp does with an integrated device beside others; -dev names it")
		case d.MIG && slice:
			left = append(left, d.Name+" is left out: CUDA gives one process a single MIG slice; CUDA_VISIBLE_DEVICES=UUID chooses it")
		case len(taken) == MaxDevices:
			left = append(left, fmt.Sprintf("%s (device %d) is left out: llama.cpp takes at most %d; CUDA_VISIBLE_DEVICES chooses them", d.Name, d.Index, MaxDevices))
		default:
			taken = append(taken, d)
			slice = slice || d.MIG
		}
	}
	return taken, left
}

// A Process holds memory of a device.
type Process struct {
	PID   int
	Name  string  // untrusted text; "" unknown
	Bytes *uint64 // nil when the driver does not say
}

// A Capability is a CUDA compute capability.
type Capability struct{ Major, Minor int }

// Known reports whether the capability was read or named.
func (c Capability) Known() bool { return c.Major > 0 }

// String returns "8.9", or "" when unknown.
func (c Capability) String() string {
	if !c.Known() {
		return ""
	}
	return fmt.Sprintf("%d.%d", c.Major, c.Minor)
}

// PCIe is the link between a device and its host.
type PCIe struct {
	Gen   int // the highest both ends can do; an idle link trains lower
	Width int // lanes in use
}

// laneBps is what one lane carries in one direction, bytes per second, by
// generation: transfer rate times the line code (8b/10b, 128b/130b, 242B/256B).
var laneBps = []uint64{0, 250_000_000, 500_000_000, 984_615_384, 1_969_230_769, 3_938_461_538, 7_562_500_000}

// Bps returns the peak rate of the link in one direction, bytes per second, and
// 0 when the link is unknown.
func (p PCIe) Bps() uint64 {
	if p.Gen < 1 || p.Gen >= len(laneBps) || p.Width < 1 || p.Width > 32 {
		return 0
	}
	return laneBps[p.Gen] * uint64(p.Width)
}

// A Host is the memory and the processor beside the devices.
type Host struct {
	OS          string // as GOOS
	Environment string // "wsl", "container" or ""
	CPU         string // model name

	MemoryTotal     *uint64 // bytes
	MemoryAvailable *uint64 // bytes that can be had without swapping, within Limit
	SwapFree        *uint64 // bytes
	HugePagesFree   uint64  // bytes in reserved huge pages
	Limit           *uint64 // bytes a control group allows this process; nil: none
	LimitSource     string  // the file the limit was read from

	Cores        int      // physical
	Threads      int      // logical
	SIMD         []string // of "sse4.2", "avx", "avx2", "avx512", "amx", "neon", "sve" …, lowest first
	BandwidthBps uint64   // measured or catalogued, bytes per second
	DiskFree     *uint64  // bytes free where the model lies, or in the current folder

	Source map[string]string
	Notes  []string
}

// Usable returns the host memory a model can take and where the figure comes
// from, and false when nothing is known.
func (h Host) Usable() (bytes uint64, source string, ok bool) {
	switch {
	case h.MemoryAvailable != nil:
		return *h.MemoryAvailable, h.Source["memory_available"], true
	case h.Limit != nil:
		return *h.Limit, h.LimitSource, true
	case h.MemoryTotal != nil:
		return *h.MemoryTotal, h.Source["memory_total"], true
	}
	return 0, "", false
}
