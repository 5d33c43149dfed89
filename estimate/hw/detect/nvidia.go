package detect

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"weigh/estimate/hw"
)

// An nvidiaReport is what one way of asking an NVIDIA driver answered.
type nvidiaReport struct {
	Way      string // "nvml" or "nvidia-smi"; "" when neither answered
	Library  string // the file that was loaded
	Driver   string
	CUDA     string // the highest version the driver takes
	GPUs     []reading
	Unsliced int      // GPUs in MIG mode without a slice
	Tried    []string // each thing asked, and its answer
	Problem  string   // why there are no GPUs to read
	Hint     string
	NoDriver bool // Problem only says that there is no NVIDIA driver
}

// problems says what an answer to nvmlInit means and what to do. nvidia-smi ends
// with the same numbers.
//
// Source: nvml.h, nvmlReturn_t; the manual of nvidia-smi, return value.
var problems = map[int]struct{ says, hint string }{
	4:  {"this user may not ask the NVIDIA driver", "give the user access to /dev/nvidia*; in a container pass the devices in"},
	9:  {"NVIDIA's driver is installed but not loaded", "modprobe nvidia, or restart the machine; with Secure Boot the module must be signed"},
	12: {"no NVIDIA driver", ""},
	15: {"the GPU fell off the bus", "restart the machine"},
	17: {"the system keeps this process from the GPU", "in a container, pass the devices and their control group in"},
	18: {"NVIDIA's driver and its library are of different versions", "restart the machine: the driver was updated while it ran"},
}

// A reading is what the driver says of one GPU or slice; nil is unsaid.
type reading struct {
	Name, UUID       string
	Total, Free      *uint64
	Reserved         uint64
	SharesHostMemory bool // the driver does not count memory for this part
	Major, Minor     int
	Cores, SMs       int
	BusWidth         int // bits
	MemoryMHz        int // highest memory clock
	PCIe             hw.PCIe
	PowerMilliW      uint64
	Display          *bool
	WDDM, MIG        bool
	ParentMemory     uint64 // bytes of the GPU that a slice is of
	Processes        []hw.Process
	Unknown          map[string]string // field -> why
}

// lost notes why a field is unknown.
func (r *reading) lost(field, why string) {
	if r.Unknown == nil {
		r.Unknown = map[string]string{}
	}
	r.Unknown[field] = why
}

// nvidia asks NVML in a process of its own, and nvidia-smi where that cannot be
// or does not answer.
func (s Source) nvidia(ctx context.Context) nvidiaReport {
	limit := s.Limit
	if limit == 0 {
		limit = probeLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var report nvidiaReport
	if s.OS == "linux" && nvmlBuilt && len(s.Probe) > 0 {
		report = s.probe(ctx, limit)
		if report.Way != "" || report.NoDriver && !exists(s.Root, "proc/driver/nvidia/version") {
			return report
		}
	}
	smi := s.nvidiaSMI(ctx)
	if smi.Way != "" {
		smi.Tried = append(report.Tried, smi.Tried...)
		return smi
	}
	report.Tried = append(report.Tried, smi.Tried...)
	if report.Problem == "" {
		report.Problem, report.Hint, report.NoDriver = smi.Problem, smi.Hint, smi.NoDriver
	}
	return report
}

// probe runs the child that asks NVML.
func (s Source) probe(ctx context.Context, limit time.Duration) nvidiaReport {
	out, err := s.Command(ctx, s.Probe[0], s.Probe[1:]...)
	if ctx.Err() != nil {
		return nvidiaReport{
			Tried:   []string{fmt.Sprintf("NVML: no answer within %v", limit)},
			Problem: fmt.Sprintf("the NVIDIA driver did not answer within %v", limit),
			Hint:    "see whether nvidia-smi answers; a driver that hangs needs a restart of the machine. --gpu names the hardware meanwhile",
		}
	}
	if err != nil {
		why := err.Error()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && len(bytes.TrimSpace(exit.Stderr)) > 0 {
			why += ": " + firstLine(exit.Stderr)
		}
		return nvidiaReport{
			Tried:   []string{"NVML: the probe ended with " + why},
			Problem: "the NVIDIA driver's library ended the probe: " + why,
			Hint:    "the library does not suit this driver, or the program was linked with -z now or run with LD_BIND_NOW",
		}
	}
	var report nvidiaReport
	if err := json.NewDecoder(bytes.NewReader(out)).Decode(&report); err != nil {
		return nvidiaReport{
			Tried:   []string{"NVML: the probe's answer is not readable: " + err.Error()},
			Problem: "the probe of the NVIDIA driver gave no readable answer",
		}
	}
	return report
}

// firstLine returns the first line of a program's complaint, at most 200 bytes.
func firstLine(b []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(b), []byte("\n"))
	return string(line[:min(len(line), 200)])
}

// ProbeMain is the hidden sub-command ProbeCommand: it asks NVML of this machine
// and writes what it answers as JSON.
func ProbeMain(w io.Writer) error {
	s := Local()
	return json.NewEncoder(w).Encode(probeNVML(s.libraries()))
}

// libraries returns where the NVML library may be, in the order to try: as told
// by WEIGH_NVML, WSL's own (a distribution's package may put a dead one first),
// the loader's, and the folders of NixOS, of the Red Hat family and of container
// platforms.
func (s Source) libraries() []string {
	const name = "libnvidia-ml.so.1"
	var paths []string
	if p, ok := s.Env("WEIGH_NVML"); ok && p != "" {
		return []string{p}
	}
	if release, _ := text(s.Root, "proc/sys/kernel/osrelease"); strings.Contains(strings.ToLower(release), "microsoft") {
		paths = append(paths, "/usr/lib/wsl/lib/"+name)
	}
	paths = append(paths, name)
	for _, dir := range []string{"/run/opengl-driver/lib/", "/usr/lib64/", "/usr/local/nvidia/lib64/", "/usr/lib/wsl/lib/"} {
		if _, err := os.Stat(dir + name); err == nil && !slices.Contains(paths, dir+name) {
			paths = append(paths, dir+name)
		}
	}
	return paths
}

// devices turns the report into devices, and says what is wrong or worth
// knowing.
func (r nvidiaReport) devices(s Source, host hw.Host) ([]hw.Device, []Finding) {
	var findings []Finding
	say := func(severity, message, hint string, tried ...string) {
		findings = append(findings, Finding{severity, "nvidia", message, tried, hint})
	}
	if r.Problem != "" {
		severity := Error
		if r.NoDriver {
			severity = Info
			if cards := nvidiaCards(s.Root); s.OS == "linux" && cards > 0 {
				severity, r.Hint = Warning, "install NVIDIA's driver; the open nouveau driver cannot run CUDA"
				r.Problem = fmt.Sprintf("%d NVIDIA device(s) on the bus, but no NVIDIA driver", cards)
			}
		}
		say(severity, r.Problem, r.Hint, r.Tried...)
		return nil, findings
	}
	if r.Way != "" {
		message := fmt.Sprintf("NVIDIA driver %s answers through %s", cmp.Or(r.Driver, "of unknown version"), r.Way)
		if r.CUDA != "" {
			message += ", for CUDA up to " + r.CUDA
		}
		say(OK, message, "", r.Tried...)
	}
	var devices []hw.Device
	for i, gpu := range r.GPUs {
		if why, ok := gpu.Unknown["device"]; ok {
			say(Error, fmt.Sprintf("NVIDIA device %d does not answer: %s", i, why), "see nvidia-smi; a device that fell off the bus needs a restart of the machine")
			continue
		}
		d := gpu.device(r.Way, host)
		d.Driver, d.CUDA = r.Driver, r.CUDA
		if model := s.jetsonModel(); d.Unified && model != "" {
			fillJetson(&d, model, host)
		}
		for j := range d.UsedBy {
			if p := &d.UsedBy[j]; p.Name == "" {
				p.Name = processName(s.Root, p.PID)
			}
		}
		if d.MemoryTotal == nil {
			say(Warning, fmt.Sprintf("the memory of %s is unknown: %s", d.Name, gpu.Unknown["memory"]), "--gpu says what it has")
		}
		devices = append(devices, d)
	}
	if r.Unsliced > 0 {
		say(Warning, fmt.Sprintf("%d GPU(s) are in MIG mode but have no slice: CUDA cannot use them", r.Unsliced), "nvidia-smi mig -cgi creates slices; nvidia-smi -mig 0 ends the mode")
	} else if len(r.GPUs) == 0 && r.Way != "" {
		say(Info, "the NVIDIA driver has no device", "", r.Tried...)
	}
	devices, found := visible(s.Env, devices)
	if slices.ContainsFunc(devices, func(d hw.Device) bool { return d.MIG }) && len(devices) > 1 {
		found = append(found, Finding{Severity: Info, Subject: "nvidia", Message: "CUDA gives one process a single MIG slice: llama.cpp will see one of these", Hint: "CUDA_VISIBLE_DEVICES=UUID chooses it"})
	}
	return devices, append(findings, found...)
}

// nvidiaCards counts the NVIDIA display devices on the PCI bus.
func nvidiaCards(root fs.FS) int {
	entries, _ := fs.ReadDir(root, "sys/bus/pci/devices")
	n := 0
	for _, e := range entries {
		dir := "sys/bus/pci/devices/" + e.Name()
		vendor, _ := text(root, dir+"/vendor")
		class, _ := text(root, dir+"/class")
		if vendor == "0x10de" && strings.HasPrefix(class, "0x03") {
			n++
		}
	}
	return n
}

// integrated are the names of NVIDIA parts without a memory of their own that
// the catalogue spells otherwise.
func integrated(name string) bool {
	name = strings.ToLower(name)
	return strings.HasSuffix(name, "(nvgpu)") || strings.Contains(name, "tegra") || strings.Contains(name, "jetson") ||
		strings.Contains(name, "orin") || strings.Contains(name, "thor") || strings.Contains(name, "gb10")
}

// coresPerSM returns the CUDA cores of one multiprocessor of a capability.
//
// Source: CUDA C++ programming guide, arithmetic instructions, 32-bit adds.
func coresPerSM(major, minor int) int {
	switch {
	case major == 3:
		return 192
	case major == 6 && minor == 0, major == 7, major == 8 && minor == 0:
		return 64
	}
	return 128
}

// believe makes figures unknown that no GPU has.
func (r *reading) believe() {
	const (
		most       = 1 << 10    // multiprocessors
		mostMilliW = 10_000_000 // a GPU's power limit
	)
	if r.Cores < 0 || r.Cores > most*192 {
		r.lost("cores", fmt.Sprintf("the driver says %d", r.Cores))
		r.Cores = 0
	}
	if r.SMs < 0 || r.SMs > most {
		r.lost("cores", fmt.Sprintf("the driver says %d multiprocessors", r.SMs))
		r.SMs = 0
	}
	if r.Major < 1 || r.Major > 99 || r.Minor < 0 || r.Minor > 9 {
		if r.Major != 0 {
			r.lost("compute capability", fmt.Sprintf("the driver says %d.%d", r.Major, r.Minor))
		}
		r.Major, r.Minor = 0, 0
	}
	if r.PCIe != (hw.PCIe{}) && r.PCIe.Bps() == 0 {
		if r.PCIe.Gen != 0 && r.PCIe.Width != 0 {
			r.lost("PCIe link", fmt.Sprintf("the driver says generation %d, %d lanes", r.PCIe.Gen, r.PCIe.Width))
		}
		r.PCIe = hw.PCIe{}
	}
	if r.PowerMilliW > mostMilliW {
		r.lost("power limit", fmt.Sprintf("the driver says %d mW", r.PowerMilliW))
		r.PowerMilliW = 0
	}
}

// device turns a reading into a device.
func (r reading) device(way string, host hw.Host) hw.Device {
	r.believe()
	d := hw.Device{
		Name: cmp.Or(r.Name, "NVIDIA GPU"), UUID: r.UUID, Vendor: "nvidia", Backend: hw.CUDA, MIG: r.MIG, WDDM: r.WDDM,
		ComputeCapability: hw.Capability{Major: r.Major, Minor: r.Minor},
		PCIe:              r.PCIe, DisplayActive: r.Display != nil && *r.Display, PowerLimitMilliW: r.PowerMilliW,
		UsedBy: r.Processes, Source: map[string]string{},
	}
	for field, known := range map[string]bool{
		"compute_capability": d.ComputeCapability.Known(), "pcie": d.PCIe.Gen > 0 && d.PCIe.Width > 0,
		"uuid": r.UUID != "", "power_limit": r.PowerMilliW > 0, "memory_used_by": r.Processes != nil, "display_active": r.Display != nil,
	} {
		if known {
			d.Source[field] = way
		}
	}
	d.SMs = r.SMs
	if d.SMs == 0 && r.Cores > 0 && r.Major > 0 {
		d.SMs = r.Cores / coresPerSM(r.Major, r.Minor)
	}
	if d.SMs > 0 {
		d.Source["multiprocessors"] = way
	}
	if r.BusWidth >= 32 && r.MemoryMHz >= 100 && r.BusWidth <= 16384 && r.MemoryMHz <= 100_000 {
		// Two transfers a clock and wire: reproduces the data sheets of GDDR5, GDDR6X and HBM3.
		d.BandwidthBps = uint64(r.BusWidth) / 8 * uint64(r.MemoryMHz) * 1e6 * 2
		d.Source["bandwidth_bytes_per_second"] = way + " bus width x clock"
	}
	r.memory(&d, way, host)
	total := value(d.MemoryTotal)
	if r.MIG {
		r.slice(&d, way)
	} else {
		fill(&d, total)
	}
	for field, why := range r.Unknown {
		d.Notes = append(d.Notes, field+" unknown: "+why)
	}
	slices.Sort(d.Notes)
	return d
}

// memory sets the memory of a device. A part that shares the host's has what
// the host has, counted once: either the driver does not count it, or it answers
// with the host's own total.
func (r *reading) memory(d *hw.Device, way string, host hw.Host) {
	if c, ok := hw.Identify(r.Name, 0); ok && c.Unified || integrated(r.Name) {
		d.Unified = true
	}
	same := r.Total != nil && host.MemoryTotal != nil && *r.Total>>20 == *host.MemoryTotal>>20
	if r.SharesHostMemory || same || d.Unified {
		d.Unified = true
		d.MemoryTotal, d.MemoryFree = host.MemoryTotal, host.MemoryAvailable
		d.Source["memory_total"], d.Source["memory_free"] = host.Source["memory_total"], host.Source["memory_available"]
		d.Notes = append(d.Notes, "shares the host's memory, which is counted once")
		if d.MemoryTotal == nil {
			r.lost("memory", "it is the host's, which is unknown")
		}
		delete(r.Unknown, "memory bus width")
		delete(r.Unknown, "memory clock")
		return
	}
	switch {
	case r.Total == nil:
	case *r.Total == 0 || *r.Total > maxMemory:
		r.lost("memory", fmt.Sprintf("the driver says %d bytes", *r.Total))
	case r.Free != nil && *r.Free > *r.Total:
		r.lost("memory", fmt.Sprintf("the driver says %d bytes free of %d", *r.Free, *r.Total))
	default:
		d.MemoryTotal, d.MemoryFree, d.MemoryReserved = r.Total, r.Free, r.Reserved
		d.Source["memory_total"] = way
		if r.Free != nil {
			d.Source["memory_free"] = way
		}
	}
}

// slice scales the bandwidth of the whole GPU to a MIG slice, which has as many
// eighths of the memory's channels as of its bytes.
func (r reading) slice(d *hw.Device, way string) {
	name, _, _ := strings.Cut(r.Name, " MIG")
	parent := hw.Device{Name: name, Source: map[string]string{}, BandwidthBps: d.BandwidthBps}
	fill(&parent, r.ParentMemory)
	whole := r.ParentMemory
	if c, ok := hw.Identify(name, r.ParentMemory); ok {
		whole = c.Memory
	}
	d.BandwidthBps = 0
	delete(d.Source, "bandwidth_bytes_per_second")
	if d.MemoryTotal == nil || whole == 0 || parent.BandwidthBps == 0 {
		return
	}
	if eighths := min(8, (*d.MemoryTotal*8+whole/2)/whole); eighths > 0 {
		d.BandwidthBps = parent.BandwidthBps / 8 * eighths
		d.Source["bandwidth_bytes_per_second"] = fmt.Sprintf("%d/8 of the GPU's", eighths)
	}
	if parent.SMs > 0 && d.SMs > 0 {
		d.FP16Flops = parent.FP16Flops / uint64(parent.SMs) * uint64(d.SMs)
		d.FP32Flops = parent.FP32Flops / uint64(parent.SMs) * uint64(d.SMs)
		d.Source["fp16_flops"], d.Source["fp32_flops"] = "catalogue, by multiprocessors", "catalogue, by multiprocessors"
	}
}

// visible keeps the devices that CUDA_VISIBLE_DEVICES shows to CUDA, in its
// order. It names devices by UUID, by the start of one, or by number; the
// numbers are CUDA's own, which follow the bus only when CUDA_DEVICE_ORDER says
// so or all devices are alike.
func visible(env func(string) (string, bool), devices []hw.Device) ([]hw.Device, []Finding) {
	order, _ := env("CUDA_DEVICE_ORDER")
	alike := !slices.ContainsFunc(devices, func(d hw.Device) bool { return d.Name != devices[0].Name && !d.MIG })
	byBus := order == "PCI_BUS_ID" || alike
	list, set := env("CUDA_VISIBLE_DEVICES")
	if !set {
		if !byBus {
			return devices, []Finding{{
				Severity: Info, Subject: "nvidia",
				Message: "the devices differ: CUDA numbers the fastest first, this list follows the PCI bus",
				Hint:    "CUDA_DEVICE_ORDER=PCI_BUS_ID makes CUDA0, CUDA1 … the same in both",
			}}
		}
		return devices, nil
	}
	var kept []hw.Device
	var taken []int
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		n, err := strconv.Atoi(item)
		if err == nil && !byBus {
			return devices, []Finding{{
				Severity: Warning, Subject: "nvidia",
				Message: fmt.Sprintf("CUDA_VISIBLE_DEVICES=%.80q numbers devices that differ: which ones it means only CUDA knows, so all are listed", list),
				Hint:    "set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name them by UUID",
			}}
		}
		i := n
		if err != nil {
			i = slices.IndexFunc(devices, func(d hw.Device) bool { return item != "" && strings.HasPrefix(d.UUID, item) })
		}
		if i < 0 || i >= len(devices) {
			break // CUDA ends the list at the first device it does not know
		}
		if slices.Contains(taken, i) {
			kept = nil // and takes none of a list that repeats one
			break
		}
		taken = append(taken, i)
		kept = append(kept, devices[i])
	}
	if len(kept) == len(devices) {
		return kept, nil
	}
	return kept, []Finding{{
		Severity: Info, Subject: "nvidia",
		Message: fmt.Sprintf("CUDA_VISIBLE_DEVICES=%.80q hides %d of %d devices", list, len(devices)-len(kept), len(devices)),
	}}
}
