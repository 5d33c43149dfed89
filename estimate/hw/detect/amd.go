package detect

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"weigh/estimate/hw"
)

// apuArchs are processors with graphics: their video memory is a part of the
// host's, set aside by the firmware, however large.
var apuArchs = []string{"gfx902", "gfx909", "gfx90c", "gfx1013", "gfx1033", "gfx1035", "gfx1036", "gfx1037", "gfx1103", "gfx1150", "gfx1151", "gfx1152", "gfx1153"}

// amd returns the GPUs of the amdgpu driver.
func (s Source) amd(host hw.Host) ([]hw.Device, []Finding) {
	nodes := kfdNodes(s.Root)
	var devices []hw.Device
	var findings []Finding
	for _, c := range drmCards(s.Root, "0x1002") {
		d := hw.Device{
			Vendor: "amd", Backend: hw.Vulkan, UUID: c.slot, PCIe: c.link(s.Root), DisplayActive: c.displays(s.Root),
			Source: map[string]string{"uuid": "sysfs", "display_active": "sysfs"},
		}
		if d.PCIe.Gen > 0 {
			d.Source["pcie"] = "sysfs"
		}
		if c.driver != "amdgpu" {
			findings = append(findings, Finding{
				Severity: Warning, Subject: "amd",
				Message: fmt.Sprintf("the AMD device at %s is driven by %q, not by amdgpu: nothing is known of its memory", c.slot, c.driver),
			})
			continue
		}
		if node, ok := nodes[c.slot]; ok {
			node.fill(&d, s.Root)
		}
		d.Name = c.amdName(s.Root)
		if err := c.amdMemory(&d, s.Root, host); err != nil {
			d.Notes = append(d.Notes, "memory unknown: "+err.Error())
			findings = append(findings, Finding{Severity: Warning, Subject: "amd", Message: fmt.Sprintf("the memory of %s is unknown: %v", d.Name, err), Hint: "--gpu says what it has"})
		}
		fill(&d, value(d.MemoryTotal))
		devices = append(devices, d)
	}
	if len(devices) > 0 {
		findings = append(findings, Finding{Severity: OK, Subject: "amd", Message: fmt.Sprintf("amdgpu shows %d device(s), ROCm's kernel driver %d", len(devices), len(nodes))})
	}
	for _, name := range []string{"HSA_OVERRIDE_GFX_VERSION", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES"} {
		if v, set := s.Env(name); set && len(devices) > 0 {
			findings = append(findings, Finding{
				Severity: Info, Subject: "amd", Message: fmt.Sprintf("%s=%.80q changes which devices the runtime shows, or as what; all are listed here as they are", name, v),
				Hint: "unset it, or name the hardware with --gpu",
			})
		}
	}
	return devices, findings
}

// amdName returns the name for the device and its revision, which alone tells
// some parts apart, from libdrm's list, else from the list of PCI devices.
func (c drmCard) amdName(root fs.FS) string {
	revision, _ := text(root, c.dir+"/revision")
	want := [2]string{strings.TrimPrefix(c.device, "0x"), strings.TrimPrefix(revision, "0x")}
	ids, _ := text(root, "usr/share/libdrm/amdgpu.ids")
	for line := range strings.SplitSeq(ids, "\n") {
		f := strings.SplitN(line, ",", 3)
		if len(f) == 3 && strings.EqualFold(strings.TrimSpace(f[0]), want[0]) && strings.EqualFold(strings.TrimSpace(f[1]), want[1]) {
			return strings.TrimSpace(f[2])
		}
	}
	if name, err := text(root, c.dir+"/product_name"); err == nil && name != "" {
		return name
	}
	if name := pciName(root, c.vendor, c.device); name != "" {
		return name
	}
	return "AMD device " + strings.TrimPrefix(c.device, "0x")
}

// amdMemory reads the memory of a card. A processor's graphics can use the part
// of the host's memory that is set aside for it and what the driver lets it map
// (GTT); the latter is free only as far as the host has memory available.
func (c drmCard) amdMemory(d *hw.Device, root fs.FS, host hw.Host) error {
	pool := func(kind string) (total, used uint64, err error) {
		total, err1 := size(root, c.dir+"/mem_info_"+kind+"_total")
		used, err2 := size(root, c.dir+"/mem_info_"+kind+"_used")
		if err := errors.Join(err1, err2); err != nil {
			return 0, 0, err
		}
		if used > total {
			return 0, 0, fmt.Errorf("%s/mem_info_%s_used: %d bytes used of %d", c.dir, kind, used, total)
		}
		return total, used, nil
	}
	vram, used, err := pool("vram")
	if err != nil {
		return err
	}
	d.Source["memory_total"], d.Source["memory_free"] = "sysfs mem_info_vram_total", "sysfs mem_info_vram_used"
	total, free := vram, vram-used
	gtt, gttUsed, gttErr := pool("gtt")
	own := exists(root, c.dir+"/mem_info_vram_vendor") || exists(root, c.dir+"/board_info")
	if slices.Contains(apuArchs, d.Arch) || !own && gttErr == nil && vram <= 4<<30 && gtt >= 8<<30 && gtt >= 4*vram {
		if gttErr != nil {
			return gttErr
		}
		d.Unified = true
		mapped := gtt - gttUsed
		if host.MemoryAvailable != nil {
			mapped = min(mapped, *host.MemoryAvailable)
		}
		d.OwnFree = free
		total, free = total+gtt, free+mapped
		d.Source["memory_total"] = "sysfs mem_info_vram_total + mem_info_gtt_total"
		d.Source["memory_free"] = "sysfs, as far as the host has memory available"
		d.Notes = append(d.Notes, fmt.Sprintf("%d MiB set aside by the firmware, %d MiB of the host's memory that the driver may map (ttm.pages_limit raises it)", vram>>20, gtt>>20))
	}
	if card, ok := hw.Identify(d.Name, 0); ok && card.Unified && card.Memory > 0 {
		// An accelerator whose memory is the host's too (MI300A).
		d.Unified = true
		if host.MemoryAvailable != nil {
			free = min(free, *host.MemoryAvailable)
		}
		d.Notes = append(d.Notes, "shares the host's memory, which is counted once")
	}
	if total == 0 {
		return fmt.Errorf("%s/mem_info_vram_total is 0", c.dir)
	}
	d.MemoryTotal, d.MemoryFree = &total, &free
	return nil
}

// A kfdNode is a GPU as ROCm's kernel driver shows it.
type kfdNode struct {
	dir        string
	gpuID      string
	properties map[string]string
}

// kfdNodes returns the GPUs of the KFD topology by their slot on the bus.
func kfdNodes(root fs.FS) map[string]kfdNode {
	const base = "sys/class/kfd/kfd/topology/nodes"
	nodes := map[string]kfdNode{}
	entries, _ := fs.ReadDir(root, base)
	for _, e := range entries {
		dir := base + "/" + e.Name()
		s, err := text(root, dir+"/properties")
		if err != nil {
			continue
		}
		p := fields(s)
		location, err1 := strconv.ParseUint(p["location_id"], 10, 16)
		domain, err2 := strconv.ParseUint(p["domain"], 10, 32)
		if p["simd_count"] == "0" || err1 != nil || err2 != nil {
			continue // a processor
		}
		slot := fmt.Sprintf("%04x:%02x:%02x.%d", domain, location>>8, location>>3&31, location&7)
		id, _ := text(root, dir+"/gpu_id")
		nodes[slot] = kfdNode{dir, id, p}
	}
	return nodes
}

// fill adds what KFD says: the architecture, the compute units, the bandwidth
// and who holds memory. A device that KFD has can run ROCm.
func (n kfdNode) fill(d *hw.Device, root fs.FS) {
	if arch := gfxName(n.properties["gfx_target_version"]); arch != "" {
		d.Arch, d.Backend = arch, hw.ROCm
		d.Source["compute_capability"] = "kfd"
	}
	simds, _ := strconv.Atoi(n.properties["simd_count"])
	perCU, _ := strconv.Atoi(n.properties["simd_per_cu"])
	if simds > 0 && simds < 1<<12 && perCU > 0 {
		d.SMs = simds / perCU
		d.Source["multiprocessors"] = "kfd"
	}
	if s, err := text(root, n.dir+"/mem_banks/0/properties"); err == nil {
		bank := fields(s)
		width, _ := strconv.ParseUint(bank["width"], 10, 16)
		mhz, _ := strconv.ParseUint(bank["mem_clk_max"], 10, 16)
		if bps := bankBps(width, mhz, d.Arch); bps > 0 {
			d.BandwidthBps = bps
			d.Source["bandwidth_bytes_per_second"] = "kfd memory width x clock"
		}
	}
	n.processes(d, root)
}

// gfxName turns KFD's number of an architecture into its name: 110003 is
// gfx1103 and 90010 is gfx90a.
func gfxName(version string) string {
	v, err := strconv.ParseUint(version, 10, 32)
	if err != nil || v < 10000 {
		return ""
	}
	return fmt.Sprintf("gfx%d%x%x", v/10000, v/100%100, v%100)
}

// bankBps returns the bandwidth of a memory of width bits whose clock KFD gives
// in MHz: 16 transfers a clock for GDDR6 (1249 MHz x 384 bit is the 959 GB/s of
// an RX 7900 XTX), 4 for the HBM3 of gfx94 and gfx95 (1300 MHz x 8192 bit is the
// 5.3 TB/s of an MI300X), 2 for the 1024 bits and more of older HBM, 4 for the
// GDDR5 of gfx8. Shared memory is none of these and gives 0.
func bankBps(width, mhz uint64, arch string) uint64 {
	rate := uint64(16)
	switch {
	case slices.Contains(apuArchs, arch):
		return 0
	case strings.HasPrefix(arch, "gfx94"), strings.HasPrefix(arch, "gfx95"):
		rate = 4
	case width >= 1024:
		rate = 2
	case strings.HasPrefix(arch, "gfx80"):
		rate = 4
	}
	bps := width / 8 * mhz * 1_000_000 * rate
	if bps > maxBandwidth {
		return 0
	}
	return bps
}

// processes lists who holds video memory of the device through ROCm.
func (n kfdNode) processes(d *hw.Device, root fs.FS) {
	const base = "sys/class/kfd/kfd/proc"
	entries, err := fs.ReadDir(root, base)
	if err != nil || n.gpuID == "" {
		return
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		held, err := size(root, base+"/"+e.Name()+"/vram_"+n.gpuID)
		if err != nil || held == 0 {
			continue
		}
		d.UsedBy = append(d.UsedBy, hw.Process{PID: pid, Name: processName(root, pid), Bytes: &held})
		d.Source["memory_used_by"] = "kfd"
	}
}
