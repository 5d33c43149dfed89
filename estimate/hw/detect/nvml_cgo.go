//go:build linux && cgo && !nonvml

package detect

import (
	"fmt"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"weigh/estimate/hw"
)

const nvmlBuilt = true

// notAvailable is the size of a process's memory when the driver does not count
// it (NVML_VALUE_NOT_AVAILABLE), as under WDDM.
const notAvailable = ^uint64(0)

// maxGPUs is more than any machine has, and than any GPU has slices: a driver
// that counts more is not asked for all of them.
const maxGPUs = 256

// answers are NVML's return codes in words; the library's own text is a symbol
// that it may lack.
var answers = map[nvml.Return]string{
	nvml.ERROR_UNINITIALIZED: "uninitialized", nvml.ERROR_INVALID_ARGUMENT: "invalid argument",
	nvml.ERROR_NOT_SUPPORTED: "not supported", nvml.ERROR_NO_PERMISSION: "no permission",
	nvml.ERROR_NOT_FOUND: "not found", nvml.ERROR_INSUFFICIENT_POWER: "power cables not attached",
	nvml.ERROR_DRIVER_NOT_LOADED: "driver not loaded", nvml.ERROR_TIMEOUT: "time-out", nvml.ERROR_IRQ_ISSUE: "interrupt not delivered",
	nvml.ERROR_LIBRARY_NOT_FOUND: "library not found", nvml.ERROR_FUNCTION_NOT_FOUND: "function not found",
	nvml.ERROR_GPU_IS_LOST: "the GPU is lost", nvml.ERROR_RESET_REQUIRED: "the GPU needs a reset",
	nvml.ERROR_OPERATING_SYSTEM: "blocked by the system", nvml.ERROR_LIB_RM_VERSION_MISMATCH: "driver and library versions differ",
	nvml.ERROR_IN_USE: "in use", nvml.ERROR_MEMORY: "no memory", nvml.ERROR_UNKNOWN: "unknown error",
}

// answer returns a return code in words.
func answer(ret nvml.Return) string {
	if s, ok := answers[ret]; ok {
		return s
	}
	return fmt.Sprintf("error %d", int(ret))
}

// nvmlLibrary is the one library of this process. The symbols of NVML are bound
// when first called, to the first library that has them, and stay bound; a call
// of a symbol that it lacks ends the process. So no second library is ever
// loaded, and each call is guarded by has.
type nvmlLibrary struct {
	nvml.Interface
	file *dl.DynamicLibrary
}

// has reports whether the library has any of the symbols.
func (l nvmlLibrary) has(symbols ...string) bool {
	for _, s := range symbols {
		if l.file.Lookup(s) == nil {
			return true
		}
	}
	return false
}

// probeNVML loads the first of the libraries that opens and asks it everything.
func probeNVML(paths []string) (report nvidiaReport) {
	lib := nvmlLibrary{}
	for _, path := range paths {
		file := dl.New(path, dl.RTLD_LAZY|dl.RTLD_GLOBAL)
		if err := file.Open(); err != nil {
			report.Tried = append(report.Tried, "NVML: "+err.Error())
			continue
		}
		lib = nvmlLibrary{nvml.New(nvml.WithLibraryPath(path)), file}
		report.Library = path
		break
	}
	if lib.file == nil {
		report.Problem, report.NoDriver = "no NVIDIA driver", true
		return report
	}
	if !lib.has("nvmlInit_v2", "nvmlInit") || !lib.has("nvmlShutdown") || !lib.has("nvmlDeviceGetCount_v2", "nvmlDeviceGetCount") ||
		!lib.has("nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex") {
		report.Problem = report.Library + " is not NVIDIA's management library"
		report.Tried = append(report.Tried, "NVML: "+report.Problem)
		return report
	}
	if ret := lib.Init(); ret != nvml.SUCCESS {
		report.Tried = append(report.Tried, fmt.Sprintf("NVML: %s: nvmlInit: %s (%d)", report.Library, answer(ret), int(ret)))
		p, ok := problems[int(ret)]
		if !ok {
			p.says = "the NVIDIA driver does not start: " + answer(ret)
		}
		report.Problem, report.Hint = p.says, p.hint
		return report
	}
	defer lib.Shutdown()
	report.Way = "nvml"
	if lib.has("nvmlSystemGetDriverVersion") {
		report.Driver, _ = lib.SystemGetDriverVersion()
	}
	if lib.has("nvmlSystemGetCudaDriverVersion") {
		if v, ret := lib.SystemGetCudaDriverVersion(); ret == nvml.SUCCESS {
			report.CUDA = fmt.Sprintf("%d.%d", v/1000, v%1000/10)
		}
	}
	report.Tried = append(report.Tried, fmt.Sprintf("NVML: %s: driver %s", report.Library, report.Driver))
	count, ret := lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		report.Way, report.Problem = "", "the NVIDIA driver does not count its devices: "+answer(ret)
		return report
	}
	for i := range min(count, maxGPUs) {
		device, ret := lib.DeviceGetHandleByIndex(i)
		if ret != nvml.SUCCESS {
			r := reading{}
			r.lost("device", answer(ret))
			report.GPUs = append(report.GPUs, r)
			continue
		}
		gpus := lib.readings(device)
		if len(gpus) == 0 {
			report.Unsliced++
		}
		report.GPUs = append(report.GPUs, gpus...)
	}
	return report
}

// readings returns what the driver says of a GPU, or of its slices when it is
// split, which are then all that a process can use.
func (l nvmlLibrary) readings(device nvml.Device) []reading {
	whole := l.reading(device)
	if !l.has("nvmlDeviceGetMigMode") || !l.has("nvmlDeviceGetMaxMigDeviceCount") || !l.has("nvmlDeviceGetMigDeviceHandleByIndex") {
		return []reading{whole}
	}
	if mode, _, ret := device.GetMigMode(); ret != nvml.SUCCESS || mode != nvml.DEVICE_MIG_ENABLE {
		return []reading{whole}
	}
	most, ret := device.GetMaxMigDeviceCount()
	if ret != nvml.SUCCESS {
		whole.lost("slices", answer(ret))
		return []reading{whole}
	}
	var slices []reading
	for i := range min(most, maxGPUs) {
		slice, ret := device.GetMigDeviceHandleByIndex(i)
		if ret != nvml.SUCCESS {
			continue // no slice at this place
		}
		r := l.reading(slice)
		r.MIG = true
		if r.Total != nil { // the driver counts no memory for the part, but does for the slice
			r.SharesHostMemory = false
		}
		if whole.Total != nil {
			r.ParentMemory = *whole.Total
		}
		if !strings.Contains(r.Name, "MIG") {
			r.Name = whole.Name + " MIG"
		}
		if r.Major == 0 {
			r.Major, r.Minor = whole.Major, whole.Minor
		}
		r.BusWidth, r.MemoryMHz, r.PCIe, r.Cores = whole.BusWidth, whole.MemoryMHz, whole.PCIe, 0
		r.PowerMilliW = whole.PowerMilliW
		for _, field := range []string{"memory bus width", "memory clock", "PCIe link", "power limit", "cores", "display"} {
			delete(r.Unknown, field)
		}
		if l.has("nvmlDeviceGetAttributes", "nvmlDeviceGetAttributes_v2") {
			if a, ret := slice.GetAttributes(); ret == nvml.SUCCESS {
				r.SMs = int(a.MultiprocessorCount)
			}
		}
		slices = append(slices, r)
	}
	return slices
}

// ask calls f if the library has one of its symbols, and notes why there is no
// answer.
func ask[T any](l nvmlLibrary, r *reading, field string, f func() (T, nvml.Return), symbols ...string) (T, nvml.Return) {
	if !l.has(symbols...) {
		r.lost(field, "the driver is too old to say")
		var zero T
		return zero, nvml.ERROR_FUNCTION_NOT_FOUND
	}
	v, ret := f()
	if ret != nvml.SUCCESS {
		r.lost(field, "the driver says: "+answer(ret))
	}
	return v, ret
}

// reading asks everything of one GPU or slice.
func (l nvmlLibrary) reading(d nvml.Device) reading {
	var r reading
	r.Name, _ = ask(l, &r, "name", d.GetName, "nvmlDeviceGetName")
	r.UUID, _ = ask(l, &r, "uuid", d.GetUUID, "nvmlDeviceGetUUID")
	l.memory(&r, d)
	if l.has("nvmlDeviceGetCudaComputeCapability") {
		if major, minor, ret := d.GetCudaComputeCapability(); ret == nvml.SUCCESS && major > 0 && minor >= 0 {
			r.Major, r.Minor = major, minor
		}
	}
	if n, ret := ask(l, &r, "cores", d.GetNumGpuCores, "nvmlDeviceGetNumGpuCores"); ret == nvml.SUCCESS {
		r.Cores = n
	}
	if n, ret := ask(l, &r, "memory bus width", d.GetMemoryBusWidth, "nvmlDeviceGetMemoryBusWidth"); ret == nvml.SUCCESS {
		r.BusWidth = int(n)
	}
	clock := func() (uint32, nvml.Return) { return d.GetMaxClockInfo(nvml.CLOCK_MEM) }
	if n, ret := ask(l, &r, "memory clock", clock, "nvmlDeviceGetMaxClockInfo"); ret == nvml.SUCCESS {
		r.MemoryMHz = int(n)
	}
	// An idle link trains down to its lowest generation but keeps its lanes.
	gen, ret1 := ask(l, &r, "PCIe link", d.GetMaxPcieLinkGeneration, "nvmlDeviceGetMaxPcieLinkGeneration")
	width, ret2 := ask(l, &r, "PCIe link", d.GetCurrPcieLinkWidth, "nvmlDeviceGetCurrPcieLinkWidth")
	if ret1 == nvml.SUCCESS && ret2 == nvml.SUCCESS {
		r.PCIe = hw.PCIe{Gen: gen, Width: width}
	}
	if mw, ret := ask(l, &r, "power limit", d.GetEnforcedPowerLimit, "nvmlDeviceGetEnforcedPowerLimit"); ret == nvml.SUCCESS {
		r.PowerMilliW = uint64(mw)
	}
	if on, ret := ask(l, &r, "display", d.GetDisplayActive, "nvmlDeviceGetDisplayActive"); ret == nvml.SUCCESS {
		active := on == nvml.FEATURE_ENABLED
		r.Display = &active
	}
	l.processes(&r, d)
	return r
}

// memory asks what the GPU has and what is free. The first version of the call
// counts the driver's own share as used; the second tells it apart.
func (l nvmlLibrary) memory(r *reading, d nvml.Device) {
	m, ret := ask(l, r, "memory", d.GetMemoryInfo, "nvmlDeviceGetMemoryInfo")
	if ret == nvml.ERROR_NOT_SUPPORTED {
		r.SharesHostMemory = true // nvml.h: the answer of a GPU that is part of a system chip
		delete(r.Unknown, "memory")
		return
	}
	if ret != nvml.SUCCESS {
		return
	}
	r.Total, r.Free = &m.Total, &m.Free
	if l.has("nvmlDeviceGetMemoryInfo_v2") {
		if m, ret := d.GetMemoryInfo_v2(); ret == nvml.SUCCESS && m.Reserved <= m.Total {
			r.Reserved = m.Reserved
		}
	}
}

// processes asks who holds memory. The same process may compute and draw.
func (l nvmlLibrary) processes(r *reading, d nvml.Device) {
	byPID := map[uint32]int{}
	for _, kind := range []struct {
		list    func() ([]nvml.ProcessInfo, nvml.Return)
		symbols []string
	}{
		{d.GetComputeRunningProcesses, []string{"nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetComputeRunningProcesses_v2", "nvmlDeviceGetComputeRunningProcesses_v3"}},
		{d.GetGraphicsRunningProcesses, []string{"nvmlDeviceGetGraphicsRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses_v2", "nvmlDeviceGetGraphicsRunningProcesses_v3"}},
	} {
		list, ret := ask(l, r, "processes", kind.list, kind.symbols...)
		if ret != nvml.SUCCESS {
			continue
		}
		if r.Processes == nil {
			r.Processes = []hw.Process{}
		}
		for _, p := range list {
			var held *uint64
			if p.UsedGpuMemory != notAvailable && p.UsedGpuMemory <= maxMemory {
				held = &p.UsedGpuMemory
			}
			if i, ok := byPID[p.Pid]; ok {
				if r.Processes[i].Bytes == nil {
					r.Processes[i].Bytes = held
				}
				continue
			}
			byPID[p.Pid] = len(r.Processes)
			q := hw.Process{PID: int(p.Pid), Bytes: held}
			if l.has("nvmlSystemGetProcessName") {
				q.Name, _ = l.SystemGetProcessName(q.PID)
				q.Name = q.Name[:min(len(q.Name), maxName)]
			}
			r.Processes = append(r.Processes, q)
		}
	}
	if r.Processes != nil {
		delete(r.Unknown, "processes")
	}
}
