package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"weigh/cmd/weigh/internal/render"
	"weigh/estimate/hw"
	"weigh/estimate/hw/detect"
	"weigh/fixtures/sysfs"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestMain lets the test binary stand for the program when detection starts it
// to probe.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == detect.ProbeCommand {
		if err := detect.ProbeMain(os.Stdout); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// golden compares what people read with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	name = filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; got\n%s\nwant\n%s", name, got, want)
	}
}

// fixtureMachine detects a machine of the fixtures.
func fixtureMachine(t *testing.T, name string) (hw.Machine, []detect.Finding) {
	t.Helper()
	tree, err := sysfs.Tree(name)
	if err != nil {
		t.Fatal(err)
	}
	return machineOf(tree).Machine(t.Context())
}

// machineOf is a Linux machine without NVIDIA's driver.
func machineOf(tree fs.FS) detect.Source {
	return detect.Source{
		OS: "linux", Root: tree,
		Env:     func(string) (string, bool) { return "", false },
		Command: func(context.Context, string, ...string) ([]byte, error) { return nil, exec.ErrNotFound },
	}
}

// desktop is a machine with a card that draws a screen, one that is split, and
// names that try to take over the terminal.
func desktop() (hw.Machine, []detect.Finding) {
	size := func(mib uint64) *uint64 { n := mib << 20; return &n }
	m := hw.Machine{
		Devices: []hw.Device{{
			Name: "NVIDIA GeForce RTX 4090", Vendor: "nvidia", Backend: hw.CUDA, Driver: "580.95.05", CUDA: "13.0", UUID: "GPU-1",
			MemoryTotal: size(24564), MemoryFree: size(18657), MemoryReserved: 487 << 20,
			ComputeCapability: hw.Capability{Major: 8, Minor: 9}, SMs: 128, BandwidthBps: 1_008_048_000_000, PCIe: hw.PCIe{Gen: 4, Width: 16},
			PowerLimitMilliW: 450_000, DisplayActive: true,
			UsedBy: []hw.Process{{PID: 4242, Name: "/usr/bin/llama-server", Bytes: size(4608)}, {PID: 1201, Name: "/usr/lib/xorg/Xorg", Bytes: size(412)}, {PID: 7, Name: "evil\x1b[2J", Bytes: nil}},
			Source: map[string]string{"memory_total": "nvml", "memory_free": "nvml"},
		}, {
			Index: 1, Name: "\x1b]0;owned\x07 GPU", Vendor: "nvidia", Backend: hw.CUDA, Source: map[string]string{}, Notes: []string{"memory unknown: the GPU is lost"},
		}},
		Host: hw.Host{OS: "windows", Source: map[string]string{}},
	}
	return m, []detect.Finding{
		{Severity: detect.OK, Subject: "nvidia", Message: "NVIDIA driver 580.95.05 answers through nvml", Tried: []string{"NVML: libnvidia-ml.so.1: driver 580.95.05"}},
		{Severity: detect.Warning, Subject: "nvidia", Message: "the memory of GPU 1 is unknown: the GPU is lost", Hint: "--gpu says what it has"},
	}
}

func TestPrintMachine(t *testing.T) {
	for _, name := range []string{"rx7900xtx", "strix-halo", "arc-b580", "mixed", "cgroup-v2", "wsl"} {
		t.Run(name, func(t *testing.T) {
			m, findings := fixtureMachine(t, name)
			var b bytes.Buffer
			printMachine(&b, render.Style{}, m, findings, defaultReserve)
			golden(t, "gpus/"+name, b.Bytes())
		})
	}
	t.Run("desktop", func(t *testing.T) {
		m, findings := desktop()
		var b bytes.Buffer
		printMachine(&b, render.Style{}, m, findings, defaultReserve)
		golden(t, "gpus/desktop", b.Bytes())
		if bytes.ContainsRune(b.Bytes(), 0x1b) {
			t.Error("an escape character reached the output")
		}
		b.Reset()
		printMachine(&b, render.Style{Bars: true}, m, findings, defaultReserve)
		golden(t, "gpus/desktop-on-a-terminal", b.Bytes())
		b.Reset()
		printMachine(&b, render.Style{Bars: true, Width: 80}, m, findings, defaultReserve)
		for line := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
				t.Errorf("%d columns on a terminal of 80: %s", n, line)
			}
		}
		b.Reset()
		printDiagnosis(&b, render.Style{}, m, findings, func(name string) (string, bool) { return "1", name == "LD_BIND_NOW" })
		golden(t, "gpus/desktop-doctor", bytes.Replace(b.Bytes(), []byte("windows/"+runtime.GOARCH), []byte("windows/GOARCH"), 1))
	})
}

// TestPrintManyProcesses holds that a card of many processes still fits a screen.
func TestPrintManyProcesses(t *testing.T) {
	m, _ := desktop()
	d := m.Devices[0]
	d.UsedBy = nil
	for i := range 60 {
		n := uint64(60-i) << 20
		d.UsedBy = append(d.UsedBy, hw.Process{PID: i, Name: "/opt/" + strings.Repeat("long", 100), Bytes: &n})
	}
	var b bytes.Buffer
	printDevice(&b, render.Style{}, d, 0)
	if n := strings.Count(b.String(), "\n"); n > 25 {
		t.Errorf("%d lines:\n%s", n, b.String())
	}
	if want := "1.25 GiB  50 more processes"; !strings.Contains(b.String(), want) {
		t.Errorf("output is\n%s\nwant %q in it", b.String(), want)
	}
	for line := range strings.Lines(b.String()) {
		if strings.Contains(line, "longlong") && !strings.Contains(line, "could be freed") && len(line) > 90 {
			t.Errorf("a name of any length is written: %s", line)
		}
	}
}

func TestGPUsJSON(t *testing.T) {
	m, findings := desktop()
	var b bytes.Buffer
	if err := writeJSON(&b, newGPUsDocument(m, findings, 0)); err != nil {
		t.Fatal(err)
	}
	golden(t, "gpus/desktop-json", b.Bytes())
	var doc map[string]any
	if err := json.Unmarshal(b.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	lost := doc["devices"].([]any)[1].(map[string]any)
	for _, field := range []string{"memory_total", "memory_free", "memory_used_by", "bandwidth_bytes_per_second", "pcie", "compute_capability", "usable"} {
		if v, there := lost[field]; !there || v != nil {
			t.Errorf("%s of a lost device is %v (there: %v), want null", field, v, there)
		}
	}
}

// runGPUs runs the sub-command and returns what it writes.
func runGPUs(t *testing.T, args ...string) (string, error) {
	t.Helper()
	t.Setenv("LD_LIBRARY_PATH", t.TempDir())
	cmd := newGPUsCmd()
	var b bytes.Buffer
	cmd.SetOut(&b)
	cmd.SetErr(&b)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return b.String(), err
}

func TestGPUsFlags(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	tests := map[string]struct {
		args  string
		out   []string
		error string
	}{
		"a named card":             {"--gpu|RTX 4090", []string{"GPU 0 GeForce RTX 4090", "24.0 GiB"}, ""},
		"two and a size":           {"--gpu|2x RTX 3090:free=22GiB|--gpu|24GiB", []string{"GPU 1 GeForce RTX 3090", "22.0 GiB free of 24.0 GiB", "GPU 2 CUDA device"}, ""},
		"no card":                  {"--gpu|none", []string{"models run on the CPU"}, ""},
		"none beside another":      {"--gpu|none|--gpu|24GiB", nil, "stands alone"},
		"an unknown card":          {"--gpu|RTX 4090 Super", nil, "nearest"},
		"more than llama.cpp has":  {"--gpu|16x24GiB|--gpu|24GiB", nil, "at most 16"},
		"a server by its memory":   {"--gpu|none|--rpc|box:50052|--rpc-memory|24GiB", []string{"GPU 0 RPC", "at box:50052"}, ""},
		"a server without a port":  {"--rpc|box|--rpc-memory|24GiB", nil, "host:port"},
		"a server of no memory":    {"--rpc|box:50052|--rpc-memory|0GiB", nil, "no device has that much"},
		"a size too many":          {"--rpc|box:50052|--rpc-memory|24GiB,8GiB", nil, "2 sizes for 1 servers"},
		"a server that is not":     {"--rpc|" + nobody, nil, "--rpc-memory"},
		"an argument":              {"4090", nil, "--catalog"},
		"a reserve without a unit": {"--reserve|1024", nil, "--reserve"},
		"the catalogue":            {"--catalog|4090|laptop", []string{"GeForce RTX 4090 Laptop GPU", "576"}, ""},
		"a maker's cards":          {"--catalog|intel|b580", []string{"Intel Arc B580"}, ""},
		"a card as drivers write":  {"--catalog|NVIDIA GeForce RTX 4090 D", []string{"GeForce RTX 4090 D"}, ""},
		"a card without spaces":    {"--catalog|rtx4090d", []string{"GeForce RTX 4090 D"}, ""},
		"a name of several":        {"--gpu|RTX 4060 Ti", nil, "GeForce RTX 4060 Ti 16GB, GeForce RTX 4060 Ti 8GB"},
		"nothing in the catalogue": {"--catalog|RXT 4090", nil, "the nearest are GeForce RTX 4090"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			out, err := runGPUs(t, strings.Split(tt.args, "|")...)
			if tt.error != "" {
				if err == nil || !strings.Contains(err.Error(), tt.error) {
					t.Errorf("error = %v, want %q", err, tt.error)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.out {
				if !strings.Contains(out, want) {
					t.Errorf("output is\n%s\nwant %q in it", out, want)
				}
			}
		})
	}
	for _, args := range [][]string{{"--json"}, {"--catalog", "--json"}, {"--gpu", "RTX 4090", "--json"}} {
		out, err := runGPUs(t, args...)
		var doc struct{ Schema int }
		if jerr := json.Unmarshal([]byte(out), &doc); err != nil || jerr != nil || doc.Schema != 1 {
			t.Errorf("gpus %v wrote schema %d, error %v, %v", args, doc.Schema, err, jerr)
		}
	}
}

func TestCatalogOnANarrowTerminal(t *testing.T) {
	var b bytes.Buffer
	if err := printCatalog(&b, render.Style{Width: 80}, "", false); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns on a terminal of 80: %s", n, line)
		}
	}
}
