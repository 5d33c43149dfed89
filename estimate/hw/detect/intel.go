package detect

import (
	"cmp"
	"fmt"
	"io/fs"
	"strings"

	"weigh/estimate/hw"
)

// intelNames are the brands of the discrete cards by their PCI device, for
// systems without a list of PCI devices.
var intelNames = map[string]string{
	"0x56a0": "Intel Arc A770", "0x56a1": "Intel Arc A750", "0x56a2": "Intel Arc A580", "0x56a5": "Intel Arc A380", "0x56a6": "Intel Arc A310",
	"0x5690": "Intel Arc A770M", "0x5691": "Intel Arc A730M", "0x5692": "Intel Arc A550M", "0x5693": "Intel Arc A370M", "0x5694": "Intel Arc A350M",
	"0x56b1": "Intel Arc Pro A40/A50", "0x56b3": "Intel Arc Pro A60",
	"0xe20b": "Intel Arc B580", "0xe20c": "Intel Arc B570",
	"0xe211": "Intel Arc Pro B60", "0xe212": "Intel Arc Pro B50", "0xe222": "Intel Arc Pro B65", "0xe223": "Intel Arc Pro B70",
}

// intel returns the GPUs of the xe and i915 drivers. A card's own memory is in
// a file of either driver; one without is part of the processor and shares the
// host's memory. Neither driver says what is free.
func (s Source) intel(host hw.Host) ([]hw.Device, []Finding) {
	var devices []hw.Device
	var findings []Finding
	for _, c := range drmCards(s.Root, "0x8086") {
		d := hw.Device{
			Name: c.intelName(s.Root), Vendor: "intel", Backend: hw.Vulkan, UUID: c.slot, DisplayActive: c.displays(s.Root),
			Source: map[string]string{"uuid": "sysfs", "display_active": "sysfs"},
		}
		own, from, err := c.intelMemory(s.Root)
		switch {
		case err != nil:
			d.Notes = append(d.Notes, "memory unknown: "+err.Error())
			findings = append(findings, Finding{Severity: Warning, Subject: "intel", Message: fmt.Sprintf("the memory of %s is unknown: %v", d.Name, err), Hint: "--gpu says what it has"})
		case own > 0:
			d.MemoryTotal = &own
			d.Source["memory_total"] = from
			if d.PCIe = c.link(s.Root); d.PCIe.Gen > 0 {
				d.Source["pcie"] = "sysfs"
			}
			d.Notes = append(d.Notes, "the driver does not say how much memory is free")
		default:
			d.Unified = true
			d.MemoryTotal, d.MemoryFree = host.MemoryTotal, host.MemoryAvailable
			d.Source["memory_total"], d.Source["memory_free"] = host.Source["memory_total"], host.Source["memory_available"]
			d.Notes = append(d.Notes, "shares the host's memory, which is counted once")
		}
		fill(&d, own)
		devices = append(devices, d)
		findings = append(findings, Finding{Severity: OK, Subject: "intel", Message: fmt.Sprintf("%s answers through %s", d.Name, cmp.Or(c.driver, "sysfs"))})
	}
	return devices, findings
}

// intelName returns the brand of the card.
func (c drmCard) intelName(root fs.FS) string {
	if name, ok := intelNames[strings.ToLower(c.device)]; ok {
		return name
	}
	if name := pciName(root, c.vendor, c.device); name != "" {
		if !strings.HasPrefix(name, "Intel") {
			name = "Intel " + name
		}
		return name
	}
	return "Intel device " + strings.TrimPrefix(c.device, "0x")
}

// intelMemory returns the bytes of a card's own memory, summed over the tiles of
// xe; 0 is a card without.
func (c drmCard) intelMemory(root fs.FS) (bytes uint64, from string, err error) {
	tiles, _ := fs.Glob(root, c.dir+"/tile*/physical_vram_size_bytes")
	for _, tile := range tiles {
		n, err := size(root, tile)
		if err != nil {
			return 0, "", err
		}
		bytes += n
	}
	if len(tiles) > 0 {
		return bytes, "sysfs physical_vram_size_bytes", nil
	}
	bytes, err = size(root, c.card+"/lmem_total_bytes")
	if absent(err) {
		return 0, "", nil
	}
	return bytes, "sysfs lmem_total_bytes", err
}
