//go:build llamacpp

package estimate

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"weigh/estimate/hw"
	"weigh/fixtures"
	"weigh/fixtures/llamacpp"
)

func TestLlamacppLoadsProjectorsAsWeEstimate(t *testing.T) {
	dir, err := llamacpp.Dir()
	if err != nil {
		t.Fatal(err)
	}
	total := uint64(24 << 30)
	gpu := func(backend, arch string) []hw.Device {
		d := ada()
		d.Backend, d.Arch, d.MemoryTotal, d.Unified = backend, arch, &total, backend == hw.Metal
		return []hw.Device{d}
	}
	machines := map[string][]hw.Device{
		"": nil, "cuda": gpu(hw.CUDA, ""), "rocm": gpu(hw.ROCm, "gfx1100"), "vulkan": gpu(hw.Vulkan, ""), "metal": gpu(hw.Metal, ""),
	}
	for _, name := range fixtures.Projectors() {
		path := filepath.Join(t.TempDir(), "mmproj.gguf")
		if err := fixtures.Projector(name).WriteSparse(path); err != nil {
			t.Fatal(err)
		}
		p := openProjector(t, name)
		for standin, devices := range machines {
			cmd := exec.Command(filepath.Join(dir, "bin", "clip"), path, "gpu")
			if standin == "" {
				cmd.Args[2] = "cpu"
			} else {
				cmd.Env = append(os.Environ(), "ORACLE_BACKEND="+filepath.Join(dir, "bin", "libstandin-"+standin+".so"),
					"STANDIN_LIMITS=alignment=64 map_alignment=64 range=4294967295 buffer=1099511627776 allocation=4292870144")
			}
			out, err := cmd.Output()
			if err != nil {
				t.Errorf("%s on %q: clip: %v", name, standin, err)
				continue
			}
			o := Options{Devices: devices, MMProj: &Companion{Projector: p}}
			got, err := o.projection()
			if err != nil {
				t.Errorf("%s on %q: %v", name, standin, err)
				continue
			}
			bytes := make([]uint64, len(got.c.Devices))
			for _, u := range got.towers {
				bytes[0] += u.bytes
				for i, n := range u.warm {
					bytes[i] += n
				}
			}
			if have := lines(got, bytes); have != string(out) {
				t.Errorf("%s on %q: estimated\n%sclip takes\n%s", name, standin, have, out)
			}
		}
	}
}

// lines prints bytes as clip does: by name of the device.
func lines(p *projection, bytes []uint64) (s string) {
	for i := len(bytes) - 1; i >= 0; i-- { // the CPU's name comes first
		s += fmt.Sprintf("%s %d\n", p.c.Devices[i].Name, bytes[i])
	}
	return s
}
