//go:build !linux

package detect

import (
	"errors"
	"runtime"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/mem"
	xcpu "golang.org/x/sys/cpu"

	"weigh/estimate/hw"
)

// nativeHost reads the host through the system's own calls.
func nativeHost() (hw.Host, error) {
	h := hw.Host{Source: map[string]string{}}
	var errs []error
	if v, err := mem.VirtualMemory(); err != nil {
		errs = append(errs, err)
	} else {
		h.MemoryTotal, h.MemoryAvailable = &v.Total, &v.Available
		h.Source["memory_total"], h.Source["memory_available"] = "system call", "system call"
	}
	if v, err := mem.SwapMemory(); err == nil {
		h.SwapFree = &v.Free
	}
	h.Threads = runtime.NumCPU()
	if n, err := cpu.Counts(false); err != nil {
		errs = append(errs, err)
	} else {
		h.Cores = n
	}
	if info, err := cpu.Info(); err == nil && len(info) > 0 {
		h.CPU = info[0].ModelName
	}
	for _, f := range []struct {
		has  bool
		name string
	}{
		{xcpu.X86.HasSSE42, "sse4.2"},
		{xcpu.X86.HasAVX, "avx"},
		{xcpu.X86.HasAVX2, "avx2"},
		{xcpu.X86.HasAVXVNNI, "avx-vnni"},
		{xcpu.X86.HasAVX512F, "avx512"},
		{xcpu.X86.HasAVX512VNNI, "avx512-vnni"},
		{xcpu.X86.HasAVX512BF16, "avx512-bf16"},
		{xcpu.X86.HasAMXTile, "amx"},
		{runtime.GOARCH == "arm64", "neon"},
		{xcpu.ARM64.HasASIMDDP, "dotprod"},
		{xcpu.ARM64.HasI8MM, "i8mm"},
		{xcpu.ARM64.HasSVE, "sve"},
	} {
		if f.has {
			h.SIMD = append(h.SIMD, f.name)
		}
	}
	h.Source["cpu"] = "system call"
	return h, errors.Join(errs...)
}

// diskFree returns the bytes free in the current folder.
func diskFree() (uint64, error) {
	u, err := disk.Usage(".")
	if err != nil {
		return 0, err
	}
	return u.Free, nil
}
