package detect

import (
	"fmt"
	"strings"

	"weigh/estimate/hw"
)

// An adapter is a display adapter as the registry of Windows describes it.
type adapter struct {
	Name   string // DriverDesc
	ID     string // MatchingDeviceId, "PCI\VEN_1002&DEV_744C&..."
	Driver string // DriverVersion
	Memory uint64 // HardwareInformation.qwMemorySize, bytes; 0 unknown
}

// windows returns the AMD and Intel devices of Windows; NVIDIA's own tool knows
// more of its cards. The registry says what memory a card has, not what is free.
//
// A processor's graphics can take what the firmware sets aside for it, if that is
// more than a desktop needs, and half of the host's memory, which is what Windows
// shares with a GPU.
func (s Source) windows(host hw.Host) ([]hw.Device, []Finding) {
	adapters, err := s.Adapters()
	if err != nil {
		return nil, []Finding{{Severity: Warning, Subject: "windows", Message: "the display adapters are unknown: " + err.Error(), Hint: "--gpu names the hardware"}}
	}
	var devices []hw.Device
	for _, a := range adapters {
		d := hw.Device{Name: a.Name, Backend: hw.Vulkan, WDDM: true, Driver: a.Driver, Source: map[string]string{}}
		switch id := strings.ToUpper(a.ID); {
		case strings.Contains(id, "VEN_1002"):
			d.Vendor = "amd"
		case strings.Contains(id, "VEN_8086"):
			d.Vendor = "intel"
		default:
			continue
		}
		card, listed := hw.Identify(a.Name, a.Memory)
		switch {
		case listed && card.Unified, !listed && a.Memory <= 2<<30 && !strings.Contains(a.Name, "RX"):
			d.Unified = true
			d.Notes = append(d.Notes, "shares the host's memory, which is counted once")
			if host.MemoryTotal != nil {
				var own uint64
				if a.Memory > 4<<30 && a.Memory <= maxMemory {
					own = a.Memory
					d.OwnFree = own
				}
				half := *host.MemoryTotal / 2
				total := own + half
				d.MemoryTotal, d.Source["memory_total"] = &total, "assumed: half of the host's memory, and what is set aside"
				if host.MemoryAvailable != nil {
					free := own + min(half, *host.MemoryAvailable)
					d.MemoryFree, d.Source["memory_free"] = &free, host.Source["memory_available"]
				}
			}
		case a.Memory > 0 && a.Memory <= maxMemory:
			d.MemoryTotal, d.Source["memory_total"] = &a.Memory, "registry qwMemorySize"
			d.Notes = append(d.Notes, "the registry does not say how much memory is free")
		default:
			d.Notes = append(d.Notes, fmt.Sprintf("memory unknown: the registry says %d bytes", a.Memory))
		}
		fill(&d, a.Memory)
		devices = append(devices, d)
	}
	return devices, nil
}
