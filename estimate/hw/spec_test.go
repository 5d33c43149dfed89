package hw

import (
	"errors"
	"strings"
	"testing"
)

func TestParseSpec(t *testing.T) {
	const mib = 1 << 20
	tests := map[string]struct {
		spec        string
		n           int
		name        string
		total, free uint64
		cc, backend string
	}{
		"a name":                          {"RTX 4090", 1, "GeForce RTX 4090", 24576 * mib, 24064 * mib, "8.9", CUDA},
		"a size":                          {"24GiB", 1, "CUDA device", 24576 * mib, 24576 * mib, "8.9", CUDA},
		"a fraction of a size":            {"22.5GiB", 1, "CUDA device", 23040 * mib, 23040 * mib, "8.9", CUDA},
		"a decimal size":                  {"24GB", 1, "CUDA device", 24_000_000_000, 24_000_000_000, "8.9", CUDA},
		"what is free":                    {"24GiB:free=22GiB", 1, "CUDA device", 24576 * mib, 22528 * mib, "8.9", CUDA},
		"nothing free":                    {"24GiB:free=0B", 1, "CUDA device", 24576 * mib, 0, "8.9", CUDA},
		"a capability":                    {"16GiB:cc=7.5", 1, "CUDA device", 16384 * mib, 16384 * mib, "7.5", CUDA},
		"both":                            {"16GiB:cc=7.5:free=15GiB", 1, "CUDA device", 16384 * mib, 15360 * mib, "7.5", CUDA},
		"two of a name":                   {"2x RTX 3090:free=22GiB", 2, "GeForce RTX 3090", 24576 * mib, 22528 * mib, "8.6", CUDA},
		"two, as a shell joins the name":  {"2xRTX 3090", 2, "GeForce RTX 3090", 24576 * mib, 24064 * mib, "8.6", CUDA},
		"two, with quotes kept":           {`2x"RTX 3090"`, 2, "GeForce RTX 3090", 24576 * mib, 24064 * mib, "8.6", CUDA},
		"four of a size":                  {"4x24GiB", 4, "CUDA device", 24576 * mib, 24576 * mib, "8.9", CUDA},
		"a card with check bits":          {"T4", 1, "Tesla T4", 16384 * mib, 16384 * mib * 11 / 12 / mib * mib, "7.5", CUDA},
		"an AMD card":                     {"RX 7900 XTX", 1, "Radeon RX 7900 XTX", 24576 * mib, 24064 * mib, "", ROCm},
		"an Intel card":                   {"Arc B580", 1, "Intel Arc B580", 12288 * mib, 12032 * mib, "", Vulkan},
		"a name that begins like a count": {"7900xtx", 1, "Radeon RX 7900 XTX", 24576 * mib, 24064 * mib, "", ROCm},
		"two of such a name":              {"2x 7900 XTX", 2, "Radeon RX 7900 XTX", 24576 * mib, 24064 * mib, "", ROCm},
		"a count with a capital":          {"2X24GiB", 2, "CUDA device", 24576 * mib, 24576 * mib, "8.9", CUDA},
		"the sign of multiplication":      {"2×24GiB", 2, "CUDA device", 24576 * mib, 24576 * mib, "8.9", CUDA},
		"a Mac by its size":               {"M3 Max 64GB", 1, "Apple M3 Max (40-core GPU)", 49152 * mib, 49152 * mib, "", Metal},
		"a Mac":                           {"M4 Max (40-core GPU) 128GB", 1, "Apple M4 Max (40-core GPU)", 98304 * mib, 98304 * mib, "", Metal},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			devices, err := ParseSpec(tt.spec)
			if err != nil || len(devices) != tt.n {
				t.Fatalf("ParseSpec(%q) = %d devices, %v, want %d", tt.spec, len(devices), err, tt.n)
			}
			for i, d := range devices {
				if d.Index != i || !d.Assumed || d.Name != tt.name || d.Backend != tt.backend || d.ComputeCapability.String() != tt.cc ||
					*d.MemoryTotal != tt.total || *d.MemoryFree>>20 != tt.free>>20 {
					t.Errorf("ParseSpec(%q)[%d] = %+v (total %d, free %d), want %+v", tt.spec, i, d, *d.MemoryTotal, *d.MemoryFree, tt)
				}
				for _, field := range []string{"memory_total", "memory_free"} {
					if d.Source[field] == "" {
						t.Errorf("%s has no source", field)
					}
				}
			}
		})
	}
	if _, err := ParseSpec("none"); !errors.Is(err, ErrNoDevice) {
		t.Errorf(`ParseSpec("none") error = %v, want ErrNoDevice`, err)
	}
}

func TestParseSpecRejects(t *testing.T) {
	tests := map[string]struct{ spec, says string }{
		"nothing":                      {"", "not a size"},
		"a number without a unit":      {"24", "24GiB"},
		"an unknown name":              {"RTX 9999", "no card named"},
		"more free than there is":      {"24GiB:free=25GiB", "more than"},
		"a free that is no size":       {"24GiB:free=much", "not a size"},
		"a negative free":              {"24GiB:free=-1GiB", "not a size"},
		"a capability without a dot":   {"24GiB:cc=89", "compute capability"},
		"an unknown option":            {"24GiB:fre=1GiB", "unknown option"},
		"no devices":                   {"0x24GiB", "1 to 16"},
		"too many devices":             {"17x24GiB", "1 to 16"},
		"a count beyond any integer":   {"99999999999999999999x24GiB", "1 to 16"},
		"a card of no memory":          {"0GiB", "none"},
		"a Mac without its size":       {"Apple M1 Max", "64GB"},
		"a size beyond any device":     {"9999999999TiB", "no card"},
		"a size with an exponent":      {"1e3GiB", "no card"},
		"a negative size":              {"-1GiB", "nor is it a size"},
		"a size of other digits":       {"1,5GiB", "nor is it a size"},
		"more than any device has":     {"2048TiB", "more than any device"},
		"a capability of AMD":          {"RX 7900 XTX:cc=7.5", "no compute capability"},
		"a name of several cards":      {"2x A100 80GB", "A100-SXM4-80GB, A100 80GB PCIe"},
		"a card that reads as a size":  {"780M", "Radeon 780M shares the host's memory"},
		"an AMD integrated part, bare": {"Radeon 780M", "shares the host's memory"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			devices, err := ParseSpec(tt.spec)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("ParseSpec(%q) = %+v, %v, want an error with %q", tt.spec, devices, err, tt.says)
			}
		})
	}
}

func TestMetalWorkingSet(t *testing.T) {
	const mib = 1 << 20
	for total, want := range map[uint64]uint64{16384 * mib: 10922 * mib, 65536 * mib: 49152 * mib, 131072 * mib: 98304 * mib} {
		if got := MetalWorkingSet(total); got/mib != want/mib {
			t.Errorf("MetalWorkingSet(%d MiB) = %d MiB, want %d", total/mib, got/mib, want/mib)
		}
	}
}

func FuzzParseSpec(f *testing.F) {
	for _, s := range []string{"2x RTX 3090:free=22GiB", "24GiB:cc=7.5", "none", "4090", "Apple M1 64GB", "×:::", "1x1x1B"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		devices, err := ParseSpec(spec)
		if (err == nil) != (len(devices) > 0) || len(devices) > MaxDevices {
			t.Errorf("ParseSpec(%q) = %d devices and error %v", spec, len(devices), err)
		}
		for _, d := range devices {
			if *d.MemoryFree > *d.MemoryTotal || Usable(d, 0).Bytes > *d.MemoryFree {
				t.Errorf("ParseSpec(%q) has %d bytes free of %d", spec, *d.MemoryFree, *d.MemoryTotal)
			}
		}
	})
}
