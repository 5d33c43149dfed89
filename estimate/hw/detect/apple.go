package detect

import (
	"fmt"
	"strconv"

	"weigh/estimate/hw"
)

// apple returns the GPU of a Mac with Apple's own chip. Its memory is what
// Metal lets one process keep resident: iogpu.wired_limit_mb when that is set,
// else an estimate of recommendedMaxWorkingSetSize. Metal's free memory leaves
// out only what the process itself holds, so that all of it is free.
func (s Source) apple() ([]hw.Device, []Finding) {
	unknown := func(format string, args ...any) ([]hw.Device, []Finding) {
		return nil, []Finding{{Severity: Warning, Subject: "apple", Message: fmt.Sprintf(format, args...)}}
	}
	if arm, err := s.Sysctl("hw.optional.arm64"); err != nil || arm != "1" {
		return nil, []Finding{{Severity: Info, Subject: "apple", Message: "not one of Apple's own chips: llama.cpp runs on the CPU here"}}
	}
	memsize, err := s.Sysctl("hw.memsize")
	if err != nil {
		return unknown("the size of the memory is unknown: sysctl hw.memsize: %v", err)
	}
	total, err := strconv.ParseUint(memsize, 10, 64)
	if err != nil || total == 0 || total > maxMemory {
		return unknown("the size of the memory is unknown: sysctl hw.memsize is %.40q", memsize)
	}
	name, err := s.Sysctl("machdep.cpu.brand_string")
	if err != nil {
		name = "Apple GPU"
	}
	usable, from := hw.MetalWorkingSet(total), "estimate from hw.memsize"
	if v, err := s.Sysctl("iogpu.wired_limit_mb"); err == nil {
		if mib, err := strconv.ParseUint(v, 10, 64); err == nil && mib > 0 && mib <= total>>20 {
			usable, from = mib<<20, "sysctl iogpu.wired_limit_mb"
		}
	}
	d := hw.Device{
		Name: name, Vendor: "apple", Backend: hw.Metal, Unified: true,
		MemoryTotal: &usable, MemoryFree: &usable,
		Source: map[string]string{"memory_total": from, "memory_free": from},
	}
	fill(&d, total)
	if from != "sysctl iogpu.wired_limit_mb" {
		d.Notes = append(d.Notes, "the share of the memory that Metal allows is estimated; sudo sysctl iogpu.wired_limit_mb=N sets it")
	}
	return []hw.Device{d}, nil
}
