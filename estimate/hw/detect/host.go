package detect

import (
	"bufio"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"weigh/estimate/hw"
)

// host reads the memory and the processor of the host.
func (s Source) host() (hw.Host, []Finding) {
	h := hw.Host{Source: map[string]string{}}
	var findings []Finding
	if s.OS == "linux" {
		findings = linuxHost(&h, s.Root)
	} else {
		native, err := s.Native()
		if err != nil {
			findings = append(findings, Finding{Severity: Warning, Subject: "host", Message: "the system does not say everything of its memory and processor: " + err.Error()})
		}
		h = native
	}
	h.OS = s.OS
	if s.Disk != nil {
		if free, err := s.Disk(); err == nil {
			h.DiskFree = &free
			h.Source["disk_free"] = "file system of the current folder"
		}
	}
	if bps := cachedBandwidth(h); bps > 0 {
		h.BandwidthBps = bps
		h.Source["bandwidth_bytes_per_second"] = "measured on this machine earlier"
	}
	return h, findings
}

// linuxHost fills h from proc and the control groups.
func linuxHost(h *hw.Host, root fs.FS) []Finding {
	var findings []Finding
	warn := func(err error) {
		findings = append(findings, Finding{Severity: Warning, Subject: "host", Message: err.Error()})
	}
	if mem, err := text(root, "proc/meminfo"); err != nil {
		warn(fmt.Errorf("host memory is unknown: %w", err))
	} else if err := meminfo(h, mem); err != nil {
		warn(err)
	}
	if cpu, err := text(root, "proc/cpuinfo"); err == nil {
		cpuinfo(h, cpu)
	}
	release, _ := text(root, "proc/sys/kernel/osrelease")
	switch {
	case strings.Contains(strings.ToLower(release), "microsoft"):
		h.Environment = "wsl"
		h.Notes = append(h.Notes, "WSL: the memory is that of the virtual machine, by default half of the host's; .wslconfig changes it")
	case exists(root, ".dockerenv") || exists(root, "run/.containerenv"):
		h.Environment = "container"
	}
	if err := cgroups(h, root); err != nil {
		warn(err)
	}
	return findings
}

// meminfo reads /proc/meminfo.
func meminfo(h *hw.Host, s string) error {
	m := fields(s)
	kib := func(key string) (*uint64, error) {
		v, ok := m[key]
		if !ok {
			return nil, nil
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(v, " kB"), 10, 64)
		if err != nil || n > maxMemory>>10 {
			return nil, fmt.Errorf("proc/meminfo: %s is %.40q, which is no size", key, v)
		}
		n <<= 10
		return &n, nil
	}
	var err [4]error
	h.MemoryTotal, err[0] = kib("MemTotal")
	h.MemoryAvailable, err[1] = kib("MemAvailable")
	h.SwapFree, err[2] = kib("SwapFree")
	page, bad := kib("Hugepagesize")
	err[3] = bad
	for _, e := range err {
		if e != nil {
			return e
		}
	}
	if h.MemoryTotal == nil {
		return fmt.Errorf("proc/meminfo: there is no MemTotal in it, so host memory is unknown")
	}
	h.Source["memory_total"] = "proc/meminfo MemTotal"
	if h.MemoryAvailable != nil {
		if *h.MemoryAvailable > *h.MemoryTotal {
			h.MemoryAvailable = nil
			return fmt.Errorf("proc/meminfo: MemAvailable is more than MemTotal, so what is free is unknown")
		}
		h.Source["memory_available"] = "proc/meminfo MemAvailable"
	}
	if n, err := strconv.ParseUint(m["HugePages_Free"], 10, 32); err == nil && page != nil && *page <= 1<<34 {
		h.HugePagesFree = n * *page
		h.Source["huge_pages_free"] = "proc/meminfo HugePages_Free"
	}
	return nil
}

// simdFlags are the names of /proc/cpuinfo's flags that llama.cpp's CPU
// backend has code for, in our spelling, lowest first.
var simdFlags = []struct{ flag, name string }{
	{"sse4_2", "sse4.2"},
	{"avx", "avx"},
	{"avx2", "avx2"},
	{"avx_vnni", "avx-vnni"},
	{"avx512f", "avx512"},
	{"avx512_vnni", "avx512-vnni"},
	{"avx512_bf16", "avx512-bf16"},
	{"amx_tile", "amx"},
	{"asimd", "neon"},
	{"asimddp", "dotprod"},
	{"i8mm", "i8mm"},
	{"sve", "sve"},
	{"sme", "sme"},
}

// cpuinfo reads /proc/cpuinfo of x86 and Arm.
func cpuinfo(h *hw.Host, s string) {
	cores := map[string]bool{}
	var physical string
	flags := map[string]bool{}
	lines := bufio.NewScanner(strings.NewReader(s))
	lines.Buffer(nil, maxText)
	for lines.Scan() {
		k, v, _ := strings.Cut(lines.Text(), ":")
		v = strings.TrimSpace(v)
		switch strings.TrimSpace(k) {
		case "processor":
			h.Threads++
		case "model name":
			h.CPU = v
		case "physical id":
			physical = v
		case "core id":
			cores[physical+"/"+v] = true
		case "flags", "Features":
			if len(flags) == 0 {
				for f := range strings.FieldsSeq(v) {
					flags[f] = true
				}
			}
		}
	}
	h.Cores = len(cores)
	if h.Cores == 0 {
		h.Cores = h.Threads
	}
	for _, f := range simdFlags {
		if flags[f.flag] {
			h.SIMD = append(h.SIMD, f.name)
		}
	}
	h.Source["cpu"] = "proc/cpuinfo"
}

// A cgroup says how one version of control groups spells a memory limit.
type cgroup struct {
	mount    string
	limits   []string
	current  string
	inactive string // page cache that can be dropped, in memory.stat
}

var (
	cgroupV2 = []cgroup{
		{"sys/fs/cgroup", []string{"memory.max", "memory.high"}, "memory.current", "inactive_file"},
		{"sys/fs/cgroup/unified", []string{"memory.max", "memory.high"}, "memory.current", "inactive_file"},
	}
	cgroupV1 = []cgroup{{"sys/fs/cgroup/memory", []string{"memory.limit_in_bytes"}, "memory.usage_in_bytes", "total_inactive_file"}}
)

// cgroups lowers what is available to what the control groups of this process
// allow. Each group up to the root may set a limit and the smallest holds; what
// a group has in use counts against its limit, but for the page cache that it
// would drop first (a model mapped from its file is mostly that).
//
// In a container the path that /proc/self/cgroup names may lie outside of what
// is mounted; then the walk meets no file until the root, which is the
// container's own group.
func cgroups(h *hw.Host, root fs.FS) error {
	s, err := text(root, "proc/self/cgroup")
	if absent(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the memory limit of the control group is unknown: %w", err)
	}
	for line := range strings.SplitSeq(s, "\n") {
		id, rest, _ := strings.Cut(line, ":")
		controllers, dir, ok := strings.Cut(rest, ":")
		kinds := cgroupV2
		switch {
		case !ok:
			continue
		case id == "0" && controllers == "":
		case slices.Contains(strings.Split(controllers, ","), "memory"):
			kinds = cgroupV1
		default:
			continue
		}
		for _, kind := range kinds {
			if err := kind.walk(h, root, dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// walk applies the limits of the group dir and of all above it.
func (c cgroup) walk(h *hw.Host, root fs.FS, dir string) error {
	for dir = path.Clean("/" + dir); ; dir = path.Dir(dir) {
		at := path.Join(c.mount, dir)
		for _, file := range c.limits {
			name := path.Join(at, file)
			s, err := text(root, name)
			if absent(err) || s == "max" {
				continue
			}
			if err != nil {
				return fmt.Errorf("the memory limit of the control group is unknown: %w", err)
			}
			limit, err := strconv.ParseUint(s, 10, 64)
			if err != nil {
				return fmt.Errorf("%s: %.40q is no memory limit", name, s)
			}
			if limit < uint64(math.MaxInt64)/2 && (h.MemoryTotal == nil || limit < *h.MemoryTotal) {
				lower(h, limit, name, c.used(root, at))
			}
		}
		if dir == "/" {
			return nil
		}
	}
}

// used returns what a group holds and cannot drop at once; 0 when it does not
// say.
func (c cgroup) used(root fs.FS, at string) uint64 {
	current, err := number(root, path.Join(at, c.current))
	if err != nil {
		return 0
	}
	stat, _ := text(root, path.Join(at, "memory.stat"))
	inactive, _ := strconv.ParseUint(fields(stat)[c.inactive], 10, 64)
	return current - min(inactive, current)
}

// lower applies one limit, of which used bytes are taken.
func lower(h *hw.Host, limit uint64, name string, used uint64) {
	if h.Limit == nil || limit < *h.Limit {
		h.Limit, h.LimitSource = &limit, name
	}
	if free := limit - min(used, limit); h.MemoryAvailable == nil || free < *h.MemoryAvailable {
		h.MemoryAvailable = &free
		h.Source["memory_available"] = name + ", less what the group holds"
	}
}
