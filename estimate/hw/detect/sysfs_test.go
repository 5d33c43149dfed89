package detect

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"weigh/estimate/hw"
	"weigh/fixtures/sysfs"
)

// machine is a Linux machine of the fixtures, and no NVIDIA driver.
func machine(t *testing.T, name string) Source {
	t.Helper()
	tree, err := sysfs.Tree(name)
	if err != nil {
		t.Fatal(err)
	}
	return source(tree)
}

func TestSysfsDevices(t *testing.T) {
	tests := map[string]struct{ devices, says []string }{
		"rx7900xtx": {[]string{
			"0 rocm AMD Radeon RX 7900 XTX 22548/24560 cc gfx1100 SM 96 959 GB/s PCIe 4x16 display [4242 llama-server 1536]",
		}, nil},
		"ryzen-desktop": {[]string{
			"0 rocm AMD Radeon RX 7900 XTX 22548/24560 cc gfx1100 SM 96 959 GB/s PCIe 4x16 display [4242 llama-server 1536]",
			"1 rocm AMD Radeon Graphics 32481/32512 unified cc gfx1036 SM 2 0 GB/s PCIe 4x16",
		}, nil},
		"ryzen-apu":   {[]string{"0 rocm AMD Radeon 780M Graphics 15484/15872 unified cc gfx1103 SM 12 89 GB/s PCIe 4x16 display"}, nil},
		"strix-halo":  {[]string{"0 rocm AMD Radeon 8060S Graphics 113102/114176 unified cc gfx1151 SM 40 256 GB/s PCIe 4x16 display"}, nil},
		"arc-b580":    {[]string{"0 vulkan Intel Arc B580 ?/12288 cc  SM 20 456 GB/s PCIe 4x8 display"}, nil},
		"intel-igpu":  {[]string{"0 vulkan Intel Iris Xe Graphics 10240/16000 unified cc  SM 0 0 GB/s PCIe 0x0 display"}, nil},
		"jetson":      {[]string{"0 cuda NVIDIA Jetson AGX Orin Developer Kit 26214/30623 unified cc 8.7 SM 14 204 GB/s PCIe 0x0"}, nil},
		"cgroup-none": {nil, nil},
		"mixed": {[]string{
			"0 rocm AMD Radeon RX 7900 XT 20438/20464 cc gfx1100 SM 84 799 GB/s PCIe 4x16",
			"1 vulkan Intel Arc A770 ?/16239 cc  SM 32 560 GB/s PCIe 4x8",
		}, []string{"warning nvidia: 1 NVIDIA device(s) on the bus"}},
		"forged": {[]string{
			"0 vulkan AMD device 744c ?/? cc  SM 0 0 GB/s PCIe 4x16 display",
			"1 vulkan AMD device 744c ?/? cc  SM 0 0 GB/s PCIe 4x16 display",
			"2 vulkan AMD device 744c ?/? cc  SM 0 0 GB/s PCIe 4x16 display",
			"3 vulkan AMD device 744c ?/? cc  SM 0 0 GB/s PCIe 4x16 display",
			"4 vulkan Intel Arc B580 ?/? cc  SM 20 456 GB/s PCIe 4x8",
		}, []string{
			"99999999999 bytes used of 25753026560", `"-1" is not a number`, "9223372036854775807 bytes is more than any machine has",
			"mem_info_vram_used: file does not exist", `"lots" is not a number`, `driven by "radeon"`,
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m, findings := machine(t, name).Machine(t.Context())
			findings = slices.DeleteFunc(findings, func(f Finding) bool { return f.Severity == Info && f.Subject == "nvidia" })
			check(t, m, findings, tt.devices, tt.says)
		})
	}
}

func TestBankBps(t *testing.T) {
	tests := map[string]struct {
		width, mhz uint64
		arch       string
		want       uint64 // GB/s
	}{
		"RX 7900 XTX, GDDR6":   {384, 1249, "gfx1100", 959},
		"RX 580, GDDR5":        {256, 2000, "gfx803", 256},
		"Radeon VII, HBM2":     {4096, 1000, "gfx906", 1024},
		"MI210, HBM2e":         {4096, 1600, "gfx90a", 1638},
		"MI300X, HBM3":         {8192, 1300, "gfx942", 5324},
		"a processor's memory": {128, 2400, "gfx1036", 0},
		"nothing said":         {0, 0, "gfx1100", 0},
		"more than can be":     {65535, 65535, "gfx1100", 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := bankBps(tt.width, tt.mhz, tt.arch) / 1e9; got != tt.want {
				t.Errorf("bankBps(%d, %d, %q) is %d GB/s, want %d", tt.width, tt.mhz, tt.arch, got, tt.want)
			}
		})
	}
}

// TestMemoryOfTheHostAsWell is an MI300A: its memory is all that the host has.
func TestMemoryOfTheHostAsWell(t *testing.T) {
	const d = "sys/class/drm/card0/device/"
	root := aHost()
	for name, value := range map[string]string{
		d + "vendor": "0x1002", d + "device": "0x74a0", d + "revision": "0x00", d + "uevent": "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:01:00.0",
		d + "mem_info_vram_total": "137438953472", d + "mem_info_vram_used": "1073741824", d + "board_info": "type : oem",
		"usr/share/libdrm/amdgpu.ids": "74A0,	00,	AMD Instinct MI300A",
	} {
		root[name] = &fstest.MapFile{Data: []byte(value)}
	}
	m, findings := source(root).Machine(t.Context())
	findings = slices.DeleteFunc(findings, func(f Finding) bool { return f.Severity == Info })
	check(t, m, findings, []string{"0 vulkan AMD Instinct MI300A 49152/131072 unified cc gfx942 SM 228 5300 GB/s PCIe 0x0"}, nil)
}

func TestHost(t *testing.T) {
	const gib = 1 << 30
	const half, all = 104857600 << 10, 131072000 << 10
	tests := map[string]struct {
		total, available, limit uint64 // 0: unknown or none
		source, environment     string
		says                    string
	}{
		"cgroup-none":         {all, half, 0, "proc/meminfo MemAvailable", "", ""},
		"cgroup-v2":           {all, 10 * gib, 12 * gib, "sys/fs/cgroup/weigh.slice/memory.max, less what the group holds", "", ""},
		"cgroup-v2-container": {all, 1 * gib, 6 * gib, "sys/fs/cgroup/memory.high, less what the group holds", "container", ""},
		"cgroup-v1":           {all, 3*gib + gib/2, 4 * gib, "sys/fs/cgroup/memory/user.slice/job/memory.limit_in_bytes, less what the group holds", "", ""},
		"cgroup-forged":       {all, half, 0, "proc/meminfo MemAvailable", "", `"a lot" is no memory limit`},
		"wsl":                 {16384000 << 10, 15000000 << 10, 0, "proc/meminfo MemAvailable", "wsl", ""},
		"meminfo-forged":      {16384000 << 10, 0, 0, "", "", "MemAvailable is more than MemTotal"},
		"meminfo-absurd":      {0, 1 << 10, 0, "", "", `MemTotal is "lots kB", which is no size`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m, findings := machine(t, name).Machine(t.Context())
			h := m.Host
			if value(h.MemoryTotal) != tt.total || value(h.MemoryAvailable) != tt.available || value(h.Limit) != tt.limit ||
				h.Source["memory_available"] != tt.source || h.Environment != tt.environment {
				t.Errorf("host has %d available of %d, limit %d, from %q in %q; want %+v",
					value(h.MemoryAvailable), value(h.MemoryTotal), value(h.Limit), h.Source["memory_available"], h.Environment, tt)
			}
			said := fmt.Sprint(findings)
			if !strings.Contains(said, tt.says) || tt.says == "" && strings.Contains(said, "host") {
				t.Errorf("findings are %s, want %q", said, tt.says)
			}
		})
	}
}

func TestHostProcessor(t *testing.T) {
	m, _ := machine(t, "mixed").Machine(t.Context())
	h := m.Host
	if h.CPU != "Intel(R) Xeon(R) w5-2465X" || h.Cores != 4 || h.Threads != 8 || strings.Join(h.SIMD, " ") != "sse4.2 avx avx2 avx512 avx512-vnni amx" {
		t.Errorf("processor is %q of %d cores and %d threads with %v", h.CPU, h.Cores, h.Threads, h.SIMD)
	}
	if want := uint64(512 * 2048 << 10); h.HugePagesFree != want {
		t.Errorf("free huge pages hold %d bytes, want %d", h.HugePagesFree, want)
	}
	if value(h.SwapFree) != 8388604<<10 {
		t.Errorf("free swap is %d", value(h.SwapFree))
	}
}

func TestHostWithoutProc(t *testing.T) {
	m, findings := source(fstest.MapFS{}).Machine(t.Context())
	if m.Host.MemoryTotal != nil || m.Host.MemoryAvailable != nil || !strings.Contains(fmt.Sprint(findings), "host memory is unknown") {
		t.Errorf("host is %+v, findings %v", m.Host, findings)
	}
}

// TestUnreadableFile stands for a file that only root may read.
func TestUnreadableFile(t *testing.T) {
	tree := deniedFS{aHost(), "proc/self/cgroup"}
	m, findings := source(tree).Machine(t.Context())
	if m.Host.Limit != nil || !strings.Contains(fmt.Sprint(findings), "limit of the control group is unknown") {
		t.Errorf("host is %+v, findings %v", m.Host, findings)
	}
}

// deniedFS refuses one of its files.
type deniedFS struct {
	fs.FS
	name string
}

func (d deniedFS) Open(name string) (fs.File, error) {
	if name == d.name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return d.FS.Open(name)
}

func TestApple(t *testing.T) {
	tests := map[string]struct {
		sysctl        map[string]string
		devices, says []string
	}{
		"a limit that is set": {map[string]string{
			"hw.optional.arm64": "1", "hw.memsize": "68719476736", "machdep.cpu.brand_string": "Apple M1 Max", "iogpu.wired_limit_mb": "57344",
		}, []string{"0 metal Apple M1 Max 57344/57344 unified cc  SM 0 409 GB/s PCIe 0x0"}, nil},
		"no limit set": {map[string]string{
			"hw.optional.arm64": "1", "hw.memsize": "68719476736", "machdep.cpu.brand_string": "Apple M1 Max", "iogpu.wired_limit_mb": "0",
		}, []string{"0 metal Apple M1 Max 49152/49152 unified cc  SM 0 409 GB/s PCIe 0x0"}, nil},
		"a chip of two variants has no one bandwidth": {map[string]string{
			"hw.optional.arm64": "1", "hw.memsize": "17179869184", "machdep.cpu.brand_string": "Apple M3 Max",
		}, []string{"0 metal Apple M3 Max 10922/10922 unified cc  SM 0 0 GB/s PCIe 0x0"}, nil},
		"a limit above the memory": {map[string]string{
			"hw.optional.arm64": "1", "hw.memsize": "17179869184", "machdep.cpu.brand_string": "Apple M2", "iogpu.wired_limit_mb": "99999999",
		}, []string{"0 metal Apple M2 10922/10922 unified cc  SM 0 102 GB/s PCIe 0x0"}, nil},
		"an Intel Mac":       {map[string]string{"hw.memsize": "17179869184"}, nil, []string{"not one of Apple's own chips"}},
		"no size of memory":  {map[string]string{"hw.optional.arm64": "1"}, nil, []string{"hw.memsize"}},
		"a negative size":    {map[string]string{"hw.optional.arm64": "1", "hw.memsize": "-1"}, nil, []string{`hw.memsize is "-1"`}},
		"an absurd size":     {map[string]string{"hw.optional.arm64": "1", "hw.memsize": "18446744073709551615"}, nil, []string{"hw.memsize is"}},
		"a size of no bytes": {map[string]string{"hw.optional.arm64": "1", "hw.memsize": "0"}, nil, []string{"hw.memsize is"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := Source{
				OS: "darwin", Env: os.LookupEnv,
				Native: func() (hw.Host, error) { return hw.Host{Source: map[string]string{}}, nil },
				Sysctl: func(name string) (string, error) {
					if v, ok := tt.sysctl[name]; ok {
						return v, nil
					}
					return "", errors.New("unknown oid " + name)
				},
			}
			m, findings := s.Machine(t.Context())
			check(t, m, findings, tt.devices, tt.says)
		})
	}
}

// TestSysroot reads a machine from a folder, as the built program does when
// WEIGH_SYSROOT names one.
func TestSysroot(t *testing.T) {
	tree, err := sysfs.Tree("rx7900xtx")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "root")
	if err := os.CopyFS(dir, tree); err != nil {
		t.Fatal(err)
	}
	t.Setenv("WEIGH_SYSROOT", dir)
	s := Local()
	s.Probe = nil
	m, _ := s.Machine(t.Context())
	if len(m.Devices) != 1 || m.Devices[0].Name != "AMD Radeon RX 7900 XTX" {
		t.Errorf("devices are %+v, want the RX 7900 XTX of the folder", m.Devices)
	}
	if m.Host.DiskFree != nil {
		t.Errorf("free disk is %d, want unknown: the disk is not the folder's", *m.Host.DiskFree)
	}
}

func TestThisMachine(t *testing.T) {
	s := Local()
	s.Probe = nil
	m, findings := s.Machine(t.Context())
	if m.Host.MemoryTotal == nil || m.Host.Threads < 1 || m.Host.DiskFree == nil {
		t.Errorf("host is %+v, findings %v", m.Host, findings)
	}
}

func BenchmarkMachine(b *testing.B) {
	for b.Loop() {
		Local().Machine(b.Context())
	}
}

func FuzzHostFiles(f *testing.F) {
	f.Add([]byte("MemTotal: 1 kB\nMemAvailable: 1 kB\n"), []byte("processor : 0\nflags : avx\n"), []byte("0::/a/b"), []byte("1024"), []byte("512"))
	f.Add([]byte("MemTotal: 18446744073709551615 kB"), []byte(""), []byte("1:memory:/../.."), []byte("-1"), []byte("max"))
	f.Fuzz(func(t *testing.T, meminfo, cpuinfo, groups, limit, used []byte) {
		root := fstest.MapFS{
			"proc/meminfo": {Data: meminfo}, "proc/cpuinfo": {Data: cpuinfo}, "proc/self/cgroup": {Data: groups},
			"sys/fs/cgroup/memory.max": {Data: limit}, "sys/fs/cgroup/memory.current": {Data: used},
			"sys/fs/cgroup/memory/memory.limit_in_bytes": {Data: limit}, "sys/fs/cgroup/memory/memory.usage_in_bytes": {Data: used},
		}
		h, _ := source(root).host()
		if h.MemoryTotal != nil && value(h.MemoryAvailable) > *h.MemoryTotal || h.Limit != nil && value(h.MemoryAvailable) > *h.Limit {
			t.Errorf("%d bytes available of %d with limit %d", value(h.MemoryAvailable), value(h.MemoryTotal), value(h.Limit))
		}
	})
}

func FuzzGPUFiles(f *testing.F) {
	f.Add([]byte("25753026560"), []byte("0"), []byte("simd_count 192\nsimd_per_cu 2\ngfx_target_version 110000\nlocation_id 768\ndomain 0\n"), []byte("width 384\nmem_clk_max 1249\n"))
	f.Add([]byte("0x300000000"), []byte("1"), []byte("location_id 65535"), []byte("width 65535\nmem_clk_max 65535"))
	f.Fuzz(func(t *testing.T, total, used, properties, bank []byte) {
		const a, i, n = "sys/class/drm/card0/device/", "sys/class/drm/card1/device/", "sys/class/kfd/kfd/topology/nodes/1/"
		root := fstest.MapFS{
			a + "vendor": {Data: []byte("0x1002")}, a + "uevent": {Data: []byte("DRIVER=amdgpu\nPCI_SLOT_NAME=0000:03:00.0")},
			a + "mem_info_vram_total": {Data: total}, a + "mem_info_vram_used": {Data: used},
			a + "mem_info_gtt_total": {Data: total}, a + "mem_info_gtt_used": {Data: used},
			n + "properties": {Data: properties}, n + "mem_banks/0/properties": {Data: bank},
			i + "vendor": {Data: []byte("0x8086")}, i + "uevent": {Data: []byte("PCI_SLOT_NAME=0000:04:00.0")},
			i + "tile0/physical_vram_size_bytes": {Data: total}, i + "max_link_speed": {Data: bank}, i + "current_link_width": {Data: used},
		}
		m, _ := source(root).Machine(t.Context())
		if len(m.Devices) != 2 {
			t.Fatalf("%d devices, want 2", len(m.Devices))
		}
		for _, d := range m.Devices {
			if d.MemoryTotal == nil && d.MemoryFree != nil && !d.Unified || d.MemoryTotal != nil && value(d.MemoryFree) > *d.MemoryTotal || value(d.MemoryTotal) > 2*maxMemory {
				t.Errorf("%d bytes free of %d: %+v", value(d.MemoryFree), value(d.MemoryTotal), d)
			}
		}
	})
}
