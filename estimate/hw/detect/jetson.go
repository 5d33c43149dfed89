package detect

import (
	"strings"

	"weigh/estimate/hw"
)

// jetsonCapabilities are the compute capabilities of the Jetson families.
//
// Source: developer.nvidia.com/cuda-gpus.
var jetsonCapabilities = []struct {
	name       string
	capability hw.Capability
}{
	{"Thor", hw.Capability{Major: 11, Minor: 0}},
	{"Orin", hw.Capability{Major: 8, Minor: 7}},
	{"Xavier", hw.Capability{Major: 7, Minor: 2}},
	{"TX2", hw.Capability{Major: 6, Minor: 2}},
	{"Nano", hw.Capability{Major: 5, Minor: 3}},
}

// jetson returns the GPU of a Jetson whose system is too old to have NVML: the
// board's name and the host's memory, which it shares.
func (s Source) jetson(host hw.Host) []hw.Device {
	if !exists(s.Root, "etc/nv_tegra_release") {
		return nil
	}
	model, _ := text(s.Root, "proc/device-tree/model")
	d := hw.Device{
		Name: strings.TrimRight(model, "\x00"), Vendor: "nvidia", Backend: hw.CUDA, Unified: true,
		MemoryTotal: host.MemoryTotal, MemoryFree: host.MemoryAvailable,
		Source: map[string]string{"memory_total": host.Source["memory_total"], "memory_free": host.Source["memory_available"]},
		Notes:  []string{"shares the host's memory, which is counted once"},
	}
	if d.Name == "" {
		d.Name = "NVIDIA Jetson"
	}
	for _, j := range jetsonCapabilities {
		if strings.Contains(d.Name, j.name) {
			d.ComputeCapability = j.capability
			d.Source["compute_capability"] = "device tree"
			break
		}
	}
	return []hw.Device{d}
}
