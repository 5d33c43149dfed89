package hw

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestCatalogueRows(t *testing.T) {
	seen := map[string]string{}
	for _, c := range Catalogue() {
		t.Run(c.Name, func(t *testing.T) {
			k := key(c.Name)
			if other, ok := seen[k]; ok {
				t.Errorf("is compared as %q, like %q", k, other)
			}
			seen[k] = c.Name
			if got, err := Lookup(c.Name); err != nil || got != c {
				t.Errorf("Lookup() = %+v, %v, want the row itself", got, err)
			}
			if c.Source == "" || c.BandwidthBps == 0 {
				t.Errorf("lacks its source or its bandwidth: %+v", c)
			}
			if _, ok := backendOf[c.Vendor]; !ok {
				t.Errorf("vendor %q has no backend", c.Vendor)
			}
			if c.Memory == 0 && !c.Unified {
				t.Error("has its own memory, but no size")
			}
			if (c.Vendor == "nvidia") != c.ComputeCapability.Known() || (c.Vendor == "amd") != strings.HasPrefix(c.Arch, "gfx") {
				t.Errorf("vendor %q has capability %v and arch %q", c.Vendor, c.ComputeCapability, c.Arch)
			}
			if c.FP16Flops > 0 && c.FP16Flops < c.FP32Flops {
				t.Errorf("matrix rate %d is below the vector rate %d", c.FP16Flops, c.FP32Flops)
			}
			if c.PCIe.Gen != 0 && c.PCIe.Bps() == 0 {
				t.Errorf("no such link: %+v", c.PCIe)
			}
		})
	}
}

func TestCatalogueFigures(t *testing.T) {
	// The data sheet of one card, digit by digit, guards the columns' order and units.
	c, err := Lookup("rtx 4090")
	if err != nil {
		t.Fatal(err)
	}
	want := Card{
		Name: "GeForce RTX 4090", Vendor: "nvidia", Memory: 24 << 30, BandwidthBps: 1_008_000_000_000,
		FP16Flops: 165_200_000_000_000, FP32Flops: 82_600_000_000_000,
		ComputeCapability: Capability{8, 9}, Units: 128, PCIe: PCIe{4, 16}, Source: c.Source,
	}
	if c != want {
		t.Errorf("Lookup() =\n%+v, want\n%+v", c, want)
	}
	if got, want := c.PCIe.Bps(), uint64(31_507_692_304); got != want {
		t.Errorf("PCIe 4.0 x16 carries %d B/s, want %d", got, want)
	}
}

func TestLookup(t *testing.T) {
	tests := map[string]struct{ name, want string }{
		"without the maker":                {"RTX 4090", "GeForce RTX 4090"},
		"as the driver writes it":          {"NVIDIA GeForce RTX 4090", "GeForce RTX 4090"},
		"without spaces":                   {"rtx4070tisuper", "GeForce RTX 4070 Ti SUPER"},
		"Ti is another card":               {"RTX 3080 Ti", "GeForce RTX 3080 Ti"},
		"a laptop is another card":         {"RTX 4090 Laptop", "GeForce RTX 4090 Laptop GPU"},
		"D is another card":                {"RTX 4090 D", "GeForce RTX 4090 D"},
		"a size the name itself has":       {"RTX 4060 Ti 16 GB", "GeForce RTX 4060 Ti 16GB"},
		"a size that the card has":         {"RTX 3090 24GB", "GeForce RTX 3090"},
		"a size that makes another card":   {"RTX 3080 12GB", "GeForce RTX 3080 12GB"},
		"signs of trade marks":             {"AMD Radeon(TM) RX 7900 XTX", "Radeon RX 7900 XTX"},
		"a data-centre card":               {"NVIDIA H100 80GB HBM3", "H100 80GB HBM3"},
		"Quadro RTX 6000 is not the Ada":   {"Quadro RTX 6000", "Quadro RTX 6000"},
		"RTX 6000 Ada":                     {"NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada Generation"},
		"integrated graphics with a size":  {"Radeon 8060S 128GB", "Radeon 8060S"},
		"a Mac with a size":                {"M4 Max (40-core GPU) 128 GB", "Apple M4 Max (40-core GPU)"},
		"two sizes, the second is memory":  {"Jetson AGX Orin 64GB", "Jetson AGX Orin 64GB"},
		"Max-Q is another card":            {"RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTX PRO 6000 Blackwell Max-Q Workstation Edition"},
		"the older names of the A100 side": {"A100 SXM4 80GB", "A100-SXM4-80GB"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := Lookup(tt.name)
			if err != nil || c.Name != tt.want {
				t.Errorf("Lookup(%q) = %q, %v, want %q", tt.name, c.Name, err, tt.want)
			}
		})
	}
}

func TestLookupTakesNoNearMatch(t *testing.T) {
	tests := map[string]struct{ name, nearest string }{
		"an unknown suffix":             {"RTX 4090 Super", "GeForce RTX 4090"},
		"a name of two cards":           {"RTX 4060 Ti", "GeForce RTX 4060 Ti 16GB"},
		"a name of two generations":     {"RTX 6000", "Quadro RTX 6000"},
		"a size no such card has":       {"RTX 4090 48GB", "GeForce RTX 4090"},
		"the number alone":              {"4090", "GeForce RTX 4090"},
		"a typing error":                {"RXT 4090", "GeForce RTX 4090"},
		"m4 is not the Tesla M40":       {"M40", "Tesla M40 24GB"},
		"h200 is not the GH200":         {"GH200", "GH200 480GB"},
		"an unknown variant of a Mac":   {"M4 Max", "Apple M4 Max (40-core GPU)"},
		"a laptop card as desktop card": {"RTX 3090 Laptop GPU", "GeForce RTX 3090"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := Lookup(tt.name)
			var unknown *UnknownCardError
			if !errors.As(err, &unknown) {
				t.Fatalf("Lookup(%q) = %q, %v, want an *UnknownCardError", tt.name, c.Name, err)
			}
			if !slices.Contains(unknown.Nearest, tt.nearest) {
				t.Errorf("Lookup(%q) offers %q, want %q among them", tt.name, unknown.Nearest, tt.nearest)
			}
		})
	}
	if _, err := Lookup(strings.Repeat("x", 1<<20)); err == nil || strings.Contains(err.Error(), "nearest") {
		t.Error("a megabyte of x has neighbours")
	}
}

func TestIdentify(t *testing.T) {
	const mib = 1 << 20
	tests := map[string]struct {
		name  string
		total uint64
		want  string
	}{
		"a size a little below the nominal":  {"NVIDIA GeForce RTX 4090", 24564 * mib, "GeForce RTX 4090"},
		"the size tells two cards apart":     {"NVIDIA GeForce RTX 4060 Ti", 16380 * mib, "GeForce RTX 4060 Ti 16GB"},
		"the smaller of two":                 {"NVIDIA GeForce RTX 4060 Ti", 8188 * mib, "GeForce RTX 4060 Ti 8GB"},
		"a variant under the common name":    {"NVIDIA GeForce RTX 3060", 8192 * mib, "GeForce RTX 3060 8GB"},
		"the common variant":                 {"NVIDIA GeForce RTX 3060", 12288 * mib, "GeForce RTX 3060"},
		"a modified card is not in it":       {"NVIDIA GeForce RTX 4090", 49140 * mib, ""},
		"an unknown size of a unique name":   {"NVIDIA GeForce RTX 4090", 0, "GeForce RTX 4090"},
		"an unknown size of an unclear name": {"NVIDIA GeForce RTX 4060 Ti", 0, ""},
		"shared memory of any size":          {"NVIDIA GB10", 122502 * mib, "GB10"},
		"a card that lacks its check bits":   {"Tesla T4", 15360 * mib, "Tesla T4"},
		"an old card that lacks them":        {"Tesla K80", 11441 * mib, "Tesla K80"},
		"an unknown name":                    {"NVIDIA Graphics Device", 24564 * mib, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, ok := Identify(tt.name, tt.total)
			if c.Name != tt.want || ok != (tt.want != "") {
				t.Errorf("Identify(%q, %d) = %q, %v, want %q", tt.name, tt.total, c.Name, ok, tt.want)
			}
		})
	}
}
