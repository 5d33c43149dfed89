package detect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"weigh/estimate/hw"
	"weigh/fixtures/nvml"
)

// TestMain lets the test binary stand for the program when it is started to
// probe.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == ProbeCommand {
		if err := ProbeMain(os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fakeNVML builds the stand-in library and makes child processes load it; it
// returns the folder that also holds the machines it can play.
func fakeNVML(t *testing.T, flags ...string) string {
	t.Helper()
	if !nvmlBuilt {
		t.Skip("SKIP: this build does not load NVML (linux with cgo does)")
	}
	dir := t.TempDir()
	if _, err := nvml.Build(dir, flags...); errors.Is(err, nvml.ErrNoCompiler) {
		t.Skip("SKIP:", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Setenv("LD_LIBRARY_PATH", dir)
	return dir
}

// aHost is a machine of 64 GiB.
func aHost() fstest.MapFS {
	return fstest.MapFS{"proc/meminfo": {Data: []byte("MemTotal: 67108864 kB\nMemAvailable: 50331648 kB\n")}}
}

// source is a Linux machine with the tree for its files, and no NVIDIA driver.
func source(root fs.FS) Source {
	return Source{
		OS: "linux", Root: root,
		Env:     func(string) (string, bool) { return "", false },
		Command: func(context.Context, string, ...string) ([]byte, error) { return nil, exec.ErrNotFound },
	}
}

// probing is a Linux machine whose NVIDIA driver is asked through the real way:
// a child process that loads the library.
func probing(t *testing.T, root fs.FS) Source {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := source(root)
	s.Probe = []string{self, ProbeCommand}
	s.Command = func(ctx context.Context, name string, args ...string) ([]byte, error) {
		if name != self {
			return nil, exec.ErrNotFound
		}
		return runCommand(ctx, name, args...)
	}
	return s
}

// brief writes a device on one line, in MiB and GB/s; ? is unknown.
func brief(d hw.Device) string {
	mib := func(p *uint64) string {
		if p == nil {
			return "?"
		}
		return fmt.Sprint(*p >> 20)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s %s %s/%s", d.Index, d.Backend, d.Name, mib(d.MemoryFree), mib(d.MemoryTotal))
	if d.MemoryReserved > 0 {
		fmt.Fprintf(&b, " reserved %d", d.MemoryReserved>>20)
	}
	if d.Unified {
		b.WriteString(" unified")
	}
	if d.MIG {
		b.WriteString(" MIG")
	}
	fmt.Fprintf(&b, " cc %s%s SM %d %d GB/s PCIe %dx%d", d.ComputeCapability, d.Arch, d.SMs, d.BandwidthBps/1e9, d.PCIe.Gen, d.PCIe.Width)
	if d.DisplayActive {
		b.WriteString(" display")
	}
	for _, p := range d.UsedBy {
		fmt.Fprintf(&b, " [%d %s %s]", p.PID, p.Name, mib(p.Bytes))
	}
	return b.String()
}

// check compares the devices, and that the findings say what is expected.
func check(t *testing.T, m hw.Machine, findings []Finding, devices, says []string) {
	t.Helper()
	var got []string
	for _, d := range m.Devices {
		got = append(got, brief(d))
		if d.MemoryTotal != nil && d.Source["memory_total"] == "" || d.MemoryFree != nil && d.Source["memory_free"] == "" ||
			d.BandwidthBps > 0 && d.Source["bandwidth_bytes_per_second"] == "" || d.SMs > 0 && d.Source["multiprocessors"] == "" {
			t.Errorf("a figure lacks its source: %+v", d)
		}
	}
	if g, w := strings.Join(got, "\n"), strings.Join(devices, "\n"); g != w {
		t.Errorf("devices are\n%s\nwant\n%s", g, w)
	}
	var all strings.Builder
	for _, f := range findings {
		if f.Severity == OK {
			continue
		}
		fmt.Fprintf(&all, "%s %s: %s; %s; %s\n", f.Severity, f.Subject, f.Message, strings.Join(f.Tried, "; "), f.Hint)
	}
	for _, s := range says {
		if !strings.Contains(all.String(), s) {
			t.Errorf("findings are\n%swant %q in them", all.String(), s)
		}
	}
	if len(says) == 0 && all.Len() > 0 {
		t.Errorf("findings are\n%swant none", all.String())
	}
}

func TestNVML(t *testing.T) {
	dir := fakeNVML(t)
	a100 := "%d cuda NVIDIA A100-SXM4-80GB %d/81920 reserved 601 cc 8.0 SM 108 2039 GB/s PCIe 4x16"
	sixteen := []string{fmt.Sprintf(a100, 0, 81920-601-70000) + " [7001 /opt/vllm/bin/python3 69900]"}
	for i := 1; i < 16; i++ {
		sixteen = append(sixteen, fmt.Sprintf(a100, i, 81920-601-4))
	}
	tests := map[string]struct {
		devices, says []string
	}{
		"desktop": {[]string{
			"0 cuda NVIDIA GeForce RTX 4090 18657/24564 reserved 487 cc 8.9 SM 128 1008 GB/s PCIe 4x16 display [4242 /usr/bin/llama-server 4608] [1201 /usr/lib/xorg/Xorg 412] [1502 /usr/bin/gnome-shell 400]",
			"1 cuda NVIDIA GeForce GTX 1060 6GB 6073/6144 reserved 71 cc 6.1 SM 10 192 GB/s PCIe 3x4",
		}, []string{"CUDA numbers the fastest first", "CUDA_DEVICE_ORDER=PCI_BUS_ID"}},
		"gb10": {[]string{
			"0 cuda NVIDIA GB10 49152/65536 unified cc 12.1 SM 48 273 GB/s PCIe 1x1 [900 /usr/lib/xorg/Xorg 18]",
		}, nil},
		"h100-mig": {[]string{
			"0 cuda NVIDIA H100 80GB HBM3 MIG 3g.40gb 40384/40448 MIG cc 9.0 SM 60 1676 GB/s PCIe 5x16",
			"1 cuda NVIDIA H100 80GB HBM3 MIG 1g.10gb 9841/9856 MIG cc 9.0 SM 16 419 GB/s PCIe 5x16",
		}, []string{"a single MIG slice"}},
		"mig-empty": {[]string{
			"0 cuda NVIDIA A30 24276/24576 reserved 300 cc 8.0 SM 56 933 GB/s PCIe 4x16",
		}, []string{"warning nvidia: 1 GPU(s) are in MIG mode but have no slice", "nvidia-smi mig -cgi"}},
		"lost": {[]string{
			"0 cuda NVIDIA GeForce RTX 3090 ?/? cc 8.6 SM 82 936 GB/s PCIe 4x16",
			"1 cuda NVIDIA GeForce RTX 3090 24256/24576 reserved 320 cc 8.6 SM 82 936 GB/s PCIe 4x8",
		}, []string{"device 0 does not answer: the GPU is lost", "the memory of NVIDIA GeForce RTX 3090 is unknown: the driver says: the GPU is lost"}},
		"mismatch": {nil, []string{"error nvidia: NVIDIA's driver and its library are of different versions", "restart the machine", "nvmlInit: driver and library versions differ (18)"}},
		"unloaded": {nil, []string{"error nvidia: NVIDIA's driver is installed but not loaded", "modprobe nvidia"}},
		"denied":   {nil, []string{"error nvidia: this user may not ask the NVIDIA driver", "/dev/nvidia*"}},
		"absent":   {nil, []string{"error nvidia: NVIDIA's driver is installed but not loaded"}}, // no such file of answers
		"sixteen":  {sixteen, nil},
		"forged": {[]string{
			"0 cuda NVIDIA GeForce RTX 4090 ?/? cc 8.9 SM 128 1008 GB/s PCIe 4x16",
			"1 cuda NVIDIA GeForce RTX 4090 ?/? cc 8.9 SM 128 1008 GB/s PCIe 4x16",
			"2 cuda NVIDIA GeForce RTX 4090 ?/? cc 8.9 SM 128 1008 GB/s PCIe 4x16",
			"3 cuda NVIDIA GeForce RTX 4090 24464/24564 cc 8.9 SM 128 1008 GB/s PCIe 4x16",
		}, []string{"free of 25757220864", "the driver says 0 bytes", "the driver says 2251799813685248 bytes"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv("FAKE_NVML_CONFIG", filepath.Join(dir, name+".ini"))
			m, findings := probing(t, aHost()).Machine(t.Context())
			check(t, m, findings, tt.devices, tt.says)
		})
	}
}

// TestNVMLOfAJetson is a board whose driver names the chip alone.
func TestNVMLOfAJetson(t *testing.T) {
	dir := fakeNVML(t)
	name := filepath.Join(dir, "orin.ini")
	if err := os.WriteFile(name, []byte("[system]\ndriver = 540.4.0\n[gpu]\nname = Orin (nvgpu)\ncc = 8.7\nprocs =\ngprocs =\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FAKE_NVML_CONFIG", name)
	root := aHost()
	root["proc/device-tree/model"] = &fstest.MapFile{Data: []byte("NVIDIA Jetson AGX Orin Developer Kit\x00")}
	m, findings := probing(t, root).Machine(t.Context())
	check(t, m, findings, []string{"0 cuda Orin (nvgpu) 49152/65536 unified cc 8.7 SM 16 204 GB/s PCIe 0x0"}, nil)
	if m.Devices[0].Source["display_active"] != "" {
		t.Error("the driver did not say whether a screen is driven, but that is known")
	}
}

func TestNVMLOfAnOldDriver(t *testing.T) {
	dir := fakeNVML(t, "-DOLD_DRIVER")
	t.Setenv("FAKE_NVML_CONFIG", filepath.Join(dir, "desktop.ini"))
	m, findings := probing(t, aHost()).Machine(t.Context())
	check(t, m, findings, []string{
		"0 cuda NVIDIA GeForce RTX 4090 18657/24564 cc 8.9 SM 128 1008 GB/s PCIe 4x16 display [4242 /usr/bin/llama-server 4608] [1201 /usr/lib/xorg/Xorg 412] [1502 /usr/bin/gnome-shell 400]",
		"1 cuda NVIDIA GeForce GTX 1060 6GB 6073/6144 cc 6.1 SM 10 192 GB/s PCIe 3x4",
	}, []string{"CUDA numbers the fastest first"})
	if got := m.Devices[0].Source["bandwidth_bytes_per_second"]; got != "catalogue" {
		t.Errorf("the bandwidth is from %q: this driver has no bus width", got)
	}
}

func TestNVMLOfAnotherLibrary(t *testing.T) {
	fakeNVML(t, "-DNOT_NVML")
	m, findings := probing(t, aHost()).Machine(t.Context())
	check(t, m, findings, nil, []string{"is not NVIDIA's management library"})
}

func TestNVMLThatIsNoLibrary(t *testing.T) {
	dir := fakeNVML(t)
	if err := os.WriteFile(filepath.Join(dir, "libnvidia-ml.so.1"), []byte("junk"), 0o644); err != nil {
		t.Fatal(err)
	}
	m, findings := probing(t, aHost()).Machine(t.Context())
	check(t, m, findings, nil, []string{"info nvidia: no NVIDIA driver", "file too short"})
}

func TestNVMLThatHangs(t *testing.T) {
	dir := fakeNVML(t)
	t.Setenv("FAKE_NVML_CONFIG", filepath.Join(dir, "hang.ini"))
	s := probing(t, aHost())
	s.Limit = 300 * time.Millisecond
	m, findings := s.Machine(t.Context())
	check(t, m, findings, nil, []string{"error nvidia: the NVIDIA driver did not answer within 300ms", "--gpu names the hardware"})
}

func TestProbeThatDies(t *testing.T) {
	if !nvmlBuilt {
		t.Skip("SKIP: this build does not load NVML (linux with cgo does)")
	}
	s := source(aHost())
	s.Probe = []string{"sh", "-c", "echo symbol lookup error: undefined symbol: nvmlInit >&2; exit 127"}
	s.Command = func(ctx context.Context, name string, args ...string) ([]byte, error) {
		if name != "sh" {
			return nil, exec.ErrNotFound
		}
		return runCommand(ctx, name, args...)
	}
	m, findings := s.Machine(t.Context())
	check(t, m, findings, nil, []string{"exit status 127: symbol lookup error: undefined symbol: nvmlInit", "-z now"})
	s.Probe = []string{"sh", "-c", "echo not json"}
	m, findings = s.Machine(t.Context())
	check(t, m, findings, nil, []string{"no readable answer"})
}

func TestNoNVIDIADriver(t *testing.T) {
	m, findings := source(aHost()).Machine(t.Context())
	check(t, m, findings, nil, []string{"info nvidia: no NVIDIA driver"})

	root := aHost()
	root["sys/bus/pci/devices/0000:01:00.0/vendor"] = &fstest.MapFile{Data: []byte("0x10de\n")}
	root["sys/bus/pci/devices/0000:01:00.0/class"] = &fstest.MapFile{Data: []byte("0x030000\n")}
	root["sys/bus/pci/devices/0000:01:00.1/vendor"] = &fstest.MapFile{Data: []byte("0x10de\n")}
	root["sys/bus/pci/devices/0000:01:00.1/class"] = &fstest.MapFile{Data: []byte("0x040300\n")}
	m, findings = source(root).Machine(t.Context())
	check(t, m, findings, nil, []string{"warning nvidia: 1 NVIDIA device(s) on the bus, but no NVIDIA driver", "nouveau"})
}

func TestNVIDIASMI(t *testing.T) {
	const full = "NVIDIA GeForce RTX 3060, 12288, 11000, 1021, GPU-aa, 8.6, 551.61, 4, 8, 7501, 170.00, Enabled, WDDM, 267, [N/A]\n"
	type answers map[int]string // by the number of fields asked for
	tests := map[string]struct {
		os            string
		tables        answers
		devices, says []string
	}{
		"Windows": {"windows", answers{15: full}, []string{
			"0 cuda NVIDIA GeForce RTX 3060 11000/12288 reserved 267 cc 8.6 SM 28 360 GB/s PCIe 4x8 display [77 C:\\llama\\llama-server.exe ?]",
		}, nil},
		"an older one that refuses new fields": {"linux", answers{4: "Tesla K80, 11441, 11441, 0\n"}, []string{
			"0 cuda Tesla K80 11441/11441 cc 3.7 SM 13 240 GB/s PCIe 3x16",
		}, nil},
		"shared memory": {"linux", answers{15: "NVIDIA GB10, [N/A], [N/A], [N/A], GPU-bb, 12.1, 580.95, 1, 1, [N/A], [N/A], Disabled, [N/A], [N/A], [N/A]\n"}, []string{
			"0 cuda NVIDIA GB10 49152/65536 unified cc 12.1 SM 48 273 GB/s PCIe 1x1",
		}, nil},
		"slices": {"linux", answers{15: "NVIDIA H100 80GB HBM3, 81559, 81000, 559, GPU-cc, 9.0, 570.1, 5, 16, 2619, 700.00, Disabled, [N/A], 400, Enabled\n"}, []string{
			"0 cuda NVIDIA H100 80GB HBM3 ?/? cc 9.0 SM 132 3352 GB/s PCIe 5x16",
		}, []string{"split into MIG slices"}},
		"a figure that cannot be": {"linux", answers{15: strings.Replace(full, "12288", "-5", 1)}, []string{
			"0 cuda NVIDIA GeForce RTX 3060 ?/? cc 8.6 SM 28 360 GB/s PCIe 4x8 display [77 C:\\llama\\llama-server.exe ?]",
		}, []string{`nvidia-smi says "-5"`}},
		"what is free cannot be": {"linux", answers{15: strings.Replace(full, "11000", "NaN", 1)}, []string{
			"0 cuda NVIDIA GeForce RTX 3060 ?/12288 reserved 267 cc 8.6 SM 28 360 GB/s PCIe 4x8 display [77 C:\\llama\\llama-server.exe ?]",
		}, nil},
		"what is reserved cannot be": {"linux", answers{15: strings.Replace(full, "267", "lots", 1)}, []string{
			"0 cuda NVIDIA GeForce RTX 3060 11000/12288 cc 8.6 SM 28 360 GB/s PCIe 4x8 display [77 C:\\llama\\llama-server.exe ?]",
		}, nil},
		"rates that cannot be": {"linux", answers{15: strings.Replace(strings.Replace(full, ", 4, 8, 7501,", ", NaN, Inf, -Inf,", 1), "170.00", "NaN", 1)}, []string{
			"0 cuda NVIDIA GeForce RTX 3060 11000/12288 reserved 267 cc 8.6 SM 28 360 GB/s PCIe 4x16 display [77 C:\\llama\\llama-server.exe ?]",
		}, nil},
		"no devices": {"linux", answers{15: "No devices were found\n"}, nil, []string{"info nvidia: the NVIDIA driver has no device"}},
		"no table":   {"linux", answers{15: "hello\n", 10: "hello\n", 4: "hello\n"}, nil, []string{"error nvidia: nvidia-smi: its answer is no table of 4 columns"}},
		"a failure":  {"linux", answers{}, nil, []string{"error nvidia: nvidia-smi does not answer", "unknown field"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := source(aHost())
			s.OS = tt.os
			s.Native = func() (hw.Host, error) { return hw.Host{Source: map[string]string{}}, nil }
			s.Adapters = func() ([]adapter, error) { return nil, nil }
			s.Command = func(_ context.Context, name string, args ...string) ([]byte, error) {
				if strings.HasPrefix(args[0], "--query-compute-apps") {
					return []byte("GPU-aa, 77, [N/A], C:\\llama\\llama-server.exe\n"), nil
				}
				if out, ok := tt.tables[1+strings.Count(args[0], ",")]; ok {
					return []byte(out), nil
				}
				return nil, errors.New("exit status 2: unknown field")
			}
			m, findings := s.Machine(t.Context())
			check(t, m, findings, tt.devices, tt.says)
			if name == "Windows" && !m.Devices[0].WDDM {
				t.Error("Windows owns the memory, but the device does not say so")
			}
		})
	}
}

// TestNVIDIASMIThatFails holds that an exit code of nvidia-smi, which is NVML's
// answer, is said with what to do.
func TestNVIDIASMIThatFails(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("SKIP: no sh")
	}
	tests := map[string]struct {
		script string
		says   []string
	}{
		"versions that differ":       {"echo Failed to initialize NVML: Driver/library version mismatch; exit 18", []string{"error nvidia: NVIDIA's driver and its library are of different versions", "restart the machine", "exit status 18: Failed to initialize"}},
		"a driver that is not there": {"echo NVIDIA-SMI has failed; exit 9", []string{"error nvidia: NVIDIA's driver is installed but not loaded", "modprobe nvidia"}},
		"no permission":              {"exit 4", []string{"this user may not ask the NVIDIA driver"}},
		"no devices":                 {"echo No devices were found; exit 6", []string{"info nvidia: the NVIDIA driver has no device"}},
		"another failure":            {"echo boom >&2; exit 77", []string{"nvidia-smi does not answer: exit status 77: boom"}},
		"an answer without end":      {"yes NVIDIA, 1, 2, 3", []string{"it wrote more than 32 MiB"}},
		"noise":                      {"head -c 65536 /dev/zero | tr '\\0' '\\351'", []string{"error nvidia: nvidia-smi: its answer is no table"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := source(aHost())
			s.Command = func(ctx context.Context, _ string, _ ...string) ([]byte, error) {
				return runCommand(ctx, "sh", "-c", tt.script)
			}
			m, findings := s.Machine(t.Context())
			check(t, m, findings, nil, tt.says)
		})
	}
}

// TestNVIDIASMIOfWSL holds that WSL's own program is asked where there is one, and
// the one on the PATH in a container that WSL runs.
func TestNVIDIASMIOfWSL(t *testing.T) {
	for name, want := range map[string]string{"own": "/usr/lib/wsl/lib/nvidia-smi", "container": "nvidia-smi"} {
		t.Run(name, func(t *testing.T) {
			root := aHost()
			root["proc/sys/kernel/osrelease"] = &fstest.MapFile{Data: []byte("5.15.153.1-microsoft-standard-WSL2\n")}
			if name == "own" {
				root["usr/lib/wsl/lib/nvidia-smi"] = &fstest.MapFile{}
			}
			s, asked := source(root), ""
			s.Command = func(_ context.Context, program string, _ ...string) ([]byte, error) {
				asked = program
				return nil, exec.ErrNotFound
			}
			s.Machine(t.Context())
			if asked != want {
				t.Errorf("asked %q, want %q", asked, want)
			}
		})
	}
}

// TestManyProcesses holds that a machine full of processes with long names is
// still read.
func TestManyProcesses(t *testing.T) {
	dir := fakeNVML(t)
	var ini strings.Builder
	ini.WriteString("[system]\n")
	var procs []string
	for i := range 60 {
		fmt.Fprintf(&ini, "pid.%d = /opt/%s\x1b[2J%d\n", 100+i, strings.Repeat("\x01", 900), i)
		procs = append(procs, fmt.Sprintf("%d:4", 100+i))
	}
	for range 16 {
		fmt.Fprintf(&ini, "[gpu]\nname = NVIDIA A100-SXM4-80GB\ncc = 8.0\ntotal = 81920M\nused = 400M\nprocs = %s\ngprocs =\n", strings.Join(procs, ", "))
	}
	name := filepath.Join(dir, "many.ini")
	if err := os.WriteFile(name, []byte(ini.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FAKE_NVML_CONFIG", name)
	m, findings := probing(t, aHost()).Machine(t.Context())
	if len(m.Devices) != 16 || len(m.Devices[15].UsedBy) != 60 {
		t.Fatalf("%d devices, findings %v; want 16 with 60 processes each", len(m.Devices), findings)
	}
	for _, p := range m.Devices[15].UsedBy {
		if len(p.Name) > maxName {
			t.Errorf("a name of %d bytes is kept", len(p.Name))
		}
	}
}

func TestVisible(t *testing.T) {
	a, b, c := hw.Device{Name: "A", UUID: "GPU-a1"}, hw.Device{Name: "B", UUID: "GPU-b2"}, hw.Device{Name: "A", UUID: "GPU-a3"}
	tests := map[string]struct {
		devices []hw.Device
		env     map[string]string
		want    string
		says    string
	}{
		"not set":                            {[]hw.Device{a, c}, nil, "GPU-a1 GPU-a3", ""},
		"not set, and the devices differ":    {[]hw.Device{a, b}, nil, "GPU-a1 GPU-b2", "fastest first"},
		"one by number":                      {[]hw.Device{a, c}, map[string]string{"CUDA_VISIBLE_DEVICES": "1"}, "GPU-a3", "hides 1 of 2"},
		"both, turned round":                 {[]hw.Device{a, c}, map[string]string{"CUDA_VISIBLE_DEVICES": "1, 0"}, "GPU-a3 GPU-a1", ""},
		"by the start of a UUID":             {[]hw.Device{a, b}, map[string]string{"CUDA_VISIBLE_DEVICES": "GPU-b"}, "GPU-b2", "hides 1 of 2"},
		"by number where numbers are unsure": {[]hw.Device{a, b}, map[string]string{"CUDA_VISIBLE_DEVICES": "0"}, "GPU-a1 GPU-b2", "only CUDA knows"},
		"by number in the order of the bus":  {[]hw.Device{a, b}, map[string]string{"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "GPU-b2", "hides 1 of 2"},
		"none":                               {[]hw.Device{a, c}, map[string]string{"CUDA_VISIBLE_DEVICES": ""}, "", "hides 2 of 2"},
		"minus one":                          {[]hw.Device{a, c}, map[string]string{"CUDA_VISIBLE_DEVICES": "-1"}, "", "hides 2 of 2"},
		"an unknown one ends the list":       {[]hw.Device{a, c}, map[string]string{"CUDA_VISIBLE_DEVICES": "0,7,1"}, "GPU-a1", "hides 1 of 2"},
		"one twice":                          {[]hw.Device{a, c}, map[string]string{"CUDA_VISIBLE_DEVICES": "1,1"}, "", "hides 2 of 2"},
		"no devices":                         {nil, map[string]string{"CUDA_VISIBLE_DEVICES": "0"}, "", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			kept, findings := visible(func(k string) (string, bool) { v, ok := tt.env[k]; return v, ok }, tt.devices)
			var got []string
			for _, d := range kept {
				got = append(got, d.UUID)
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("visible() = %v, want %s", got, tt.want)
			}
			if said := fmt.Sprint(findings); (tt.says == "") != (len(findings) == 0) || !strings.Contains(said, tt.says) {
				t.Errorf("visible() says %s, want %q", said, tt.says)
			}
		})
	}
}

func FuzzParseSMI(f *testing.F) {
	f.Add("NVIDIA GeForce RTX 3060, 12288, 11000, 1021, GPU-aa, 8.6, 551.61, 4, 8, 7501, 170.00, Enabled, WDDM, 267, [N/A]")
	f.Add("Tesla, NaN, NaN, NaN, , NaN, , NaN, NaN, NaN, NaN, , , NaN, Enabled")
	f.Add("Tesla, 1e300, -1, NaN, , 9.99, , 99, Inf, 1e9, -0, , , [Unknown Error], Enabled")
	f.Fuzz(func(t *testing.T, table string) {
		gpus, _, err := parseSMI(smiFields[0], table)
		if err != nil && gpus != nil {
			t.Error("both devices and an error")
		}
		for _, r := range gpus {
			d := r.device("nvidia-smi", hw.Host{})
			if value(d.MemoryFree) > value(d.MemoryTotal) || d.SMs < 0 || d.PCIe.Width < 0 || d.PCIe.Width > 32 {
				t.Errorf("%q is read as %s", table, brief(d))
			}
		}
	})
}
