package detect

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"weigh/estimate/hw"
	"weigh/fixtures/sysfs"
)

// TestBuiltBinary builds a program as a release is built and steers it by its
// environment alone. NVML's symbols are bound when first called, so a linker
// that binds them at start (-z now, the default of hardened toolchains) would
// end the program before main; "-z lazy" comes last and must win.
func TestBuiltBinary(t *testing.T) {
	dir := fakeNVML(t)
	program := filepath.Join(t.TempDir(), "machine")
	build := exec.Command("go", "build", "-ldflags", "-extldflags '-Wl,-z,now -Wl,-z,lazy'", "-o", program, "./testdata/machine")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	if readelf, err := exec.LookPath("readelf"); err != nil {
		t.Log("SKIP: no readelf to look at the binary's flags with")
	} else {
		out, err := exec.Command(readelf, "-d", program).Output()
		if err != nil {
			t.Fatal(err)
		}
		if now := regexp.MustCompile(`.*(BIND_NOW|FLAGS.*NOW).*`).Find(out); now != nil {
			t.Errorf("the binary binds its symbols at start: %s", now)
		}
	}
	tree, err := sysfs.Tree("rx7900xtx")
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "root")
	if err := os.CopyFS(root, tree); err != nil {
		t.Fatal(err)
	}
	run := exec.Command(program)
	run.Env = append(os.Environ(), "FAKE_NVML_CONFIG="+filepath.Join(dir, "desktop.ini"), "WEIGH_SYSROOT="+root)
	out, err := run.Output()
	if err != nil {
		t.Fatalf("run: %v", err)
	}
	var m hw.Machine
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatal(err)
	}
	check(t, m, nil, []string{
		"0 cuda NVIDIA GeForce RTX 4090 18657/24564 reserved 487 cc 8.9 SM 128 1008 GB/s PCIe 4x16 display [4242 /usr/bin/llama-server 4608] [1201 /usr/lib/xorg/Xorg 412] [1502 /usr/bin/gnome-shell 400]",
		"1 cuda NVIDIA GeForce GTX 1060 6GB 6073/6144 reserved 71 cc 6.1 SM 10 192 GB/s PCIe 3x4",
		"2 rocm AMD Radeon RX 7900 XTX 22548/24560 cc gfx1100 SM 96 959 GB/s PCIe 4x16 display [4242 llama-server 1536]",
	}, nil)
}
