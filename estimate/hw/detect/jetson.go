package detect

import (
	"cmp"
	"strings"

	"weigh/estimate/hw"
)

// jetsonFamilies are the names of the Jetson boards as the device tree has them,
// the longest first, their compute capability and their name in the catalogue.
//
// Source: developer.nvidia.com/cuda-gpus.
var jetsonFamilies = []struct {
	name       string
	capability hw.Capability
	card       string
}{
	{"Thor", hw.Capability{Major: 11, Minor: 0}, "Jetson AGX Thor"},
	{"AGX Orin", hw.Capability{Major: 8, Minor: 7}, "Jetson AGX Orin"},
	{"Orin NX", hw.Capability{Major: 8, Minor: 7}, "Jetson Orin NX"},
	{"Orin Nano", hw.Capability{Major: 8, Minor: 7}, "Jetson Orin Nano"},
	{"Orin", hw.Capability{Major: 8, Minor: 7}, ""},
	{"AGX Xavier", hw.Capability{Major: 7, Minor: 2}, "Jetson AGX Xavier"},
	{"Xavier NX", hw.Capability{Major: 7, Minor: 2}, "Jetson Xavier NX"},
	{"Xavier", hw.Capability{Major: 7, Minor: 2}, ""},
	{"TX2", hw.Capability{Major: 6, Minor: 2}, "Jetson TX2"},
	{"Nano", hw.Capability{Major: 5, Minor: 3}, "Jetson Nano"},
}

// jetsonModel returns the name of the board that the device tree has, "" of
// another machine.
func (s Source) jetsonModel() string {
	model, _ := text(s.Root, "proc/device-tree/model")
	model = strings.TrimRight(model, "\x00")
	if !strings.Contains(model, "Jetson") {
		return ""
	}
	return model
}

// fillJetson adds what is known of the GPU of a board of that name, whose memory
// the host shares.
func fillJetson(d *hw.Device, model string, host hw.Host) {
	for _, j := range jetsonFamilies {
		if !strings.Contains(model, j.name) {
			continue
		}
		if !d.ComputeCapability.Known() {
			d.ComputeCapability = j.capability
			d.Source["compute_capability"] = "device tree"
		}
		var board hw.Card // the smallest of the family that has this memory
		for _, c := range hw.Catalogue() {
			if j.card != "" && strings.HasPrefix(c.Name, j.card) && c.Memory >= value(host.MemoryTotal) && (board.Memory == 0 || c.Memory < board.Memory) {
				board = c
			}
		}
		if d.BandwidthBps == 0 && board.BandwidthBps > 0 {
			d.BandwidthBps = board.BandwidthBps
			d.Source["bandwidth_bytes_per_second"] = "catalogue, by the device tree"
		}
		if d.SMs == 0 && board.Units > 0 {
			d.SMs = board.Units
			d.Source["multiprocessors"] = "catalogue, by the device tree"
		}
		return
	}
}

// jetson returns the GPU of a Jetson whose system is too old to have NVML: the
// board's name and the host's memory, which it shares.
func (s Source) jetson(host hw.Host) []hw.Device {
	if !exists(s.Root, "etc/nv_tegra_release") {
		return nil
	}
	d := hw.Device{
		Name: cmp.Or(s.jetsonModel(), "NVIDIA Jetson"), Vendor: "nvidia", Backend: hw.CUDA, Unified: true,
		MemoryTotal: host.MemoryTotal, MemoryFree: host.MemoryAvailable,
		Source: map[string]string{"memory_total": host.Source["memory_total"], "memory_free": host.Source["memory_available"]},
		Notes:  []string{"shares the host's memory, which is counted once"},
	}
	fillJetson(&d, d.Name, host)
	return []hw.Device{d}
}
