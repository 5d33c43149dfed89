package hw

import (
	"errors"
	"reflect"
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
			if got, err := Lookup(c.Name); err != nil || !reflect.DeepEqual(got, c) {
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
	if !reflect.DeepEqual(c, want) {
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
		"the number alone":                 {"4090", "GeForce RTX 4090"},
		"the number and its words":         {"4070 Ti Super", "GeForce RTX 4070 Ti SUPER"},
		"a number of AMD":                  {"7900xtx", "Radeon RX 7900 XTX"},
		"a number that is not AMD's Ti":    {"1080ti", "GeForce GTX 1080 Ti"},
		"a workstation card's number":      {"A6000", "RTX A6000"},
		"a number of Intel":                {"B580", "Intel Arc B580"},
		"a maker and a number":             {"geforce 4090", "GeForce RTX 4090"},
		"a number with its size":           {"4060 Ti 16GB", "GeForce RTX 4060 Ti 16GB"},
		"a board's socket":                 {"H100 SXM5", "H100 80GB HBM3"},
		"a size that has one board":        {"V100 SXM2 32GB", "Tesla V100-SXM2-32GB"},
		"a Mac by its size":                {"M3 Max 64GB", "Apple M3 Max (40-core GPU)"},
		"a smaller Mac by its size":        {"Apple M3 Max 36GB", "Apple M3 Max (30-core GPU)"},
		"M4 is not the Tesla M40":          {"M4 16GB", "Apple M4"},
		"the Tesla M40 is not M4":          {"M40", "Tesla M40"},
		"the mobile variant":               {"RTX 4090 Mobile", "GeForce RTX 4090 Laptop GPU"},
		"the machine for its chip":         {"DGX Spark", "GB10"},
		"the processor for its graphics":   {"AMD Ryzen AI Max+ 395 128GB", "Radeon 8060S"},
		"Max-Q without its ornaments":      {"RTX 2080 Super Max-Q", "GeForce RTX 2080 Super with Max-Q Design"},
		"an edition without the word":      {"RTX PRO 6000 Blackwell Workstation", "RTX PRO 6000 Blackwell Workstation Edition"},
		"an accelerator":                   {"mi300x", "Instinct MI300X"},
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
		"a name that is not released":   {"RTX 5080 Ti", "GeForce RTX 5080"},
		"a size no such card has":       {"RTX 4090 48GB", "GeForce RTX 4090"},
		"a typing error":                {"RXT 4090", "GeForce RTX 4090"},
		"a name before its number":      {"M45", "Tesla M40"},
		"a Mac of no such size":         {"M4 Max 256GB", "Apple M4 Max (40-core GPU)"},
		"another maker's card":          {"Radeon RTX 4090", "GeForce RTX 4090"},
		"another maker's number":        {"GeForce 7900 XTX", "Radeon RX 7900 XTX"},
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
	several := map[string]struct{ name, want string }{
		"two sizes of memory":    {"RTX 4060 Ti", "GeForce RTX 4060 Ti 16GB, GeForce RTX 4060 Ti 8GB"},
		"two generations":        {"RTX 6000", "Quadro RTX 6000, RTX 6000 Ada Generation"},
		"two boards of one size": {"A100 80GB", "A100-SXM4-80GB, A100 80GB PCIe"},
		"two boards":             {"H100", "H100 80GB HBM3, H100 PCIe"},
		"h200 is not the GH200":  {"GH200", "GH200 480GB, GH200 144G HBM3e"},
		"two variants of a Mac":  {"M4 Max", "Apple M4 Max (32-core GPU), Apple M4 Max (40-core GPU)"},
		"a series and a number":  {"1060", "GeForce GTX 1060 6GB, GeForce GTX 1060 3GB"},
		"three editions":         {"RTX PRO 6000", "RTX PRO 6000 Blackwell Workstation Edition, RTX PRO 6000 Blackwell Max-Q Workstation Edition, RTX PRO 6000 Blackwell Server Edition"},
	}
	for name, tt := range several {
		t.Run(name, func(t *testing.T) {
			c, err := Lookup(tt.name)
			var unknown *UnknownCardError
			if !errors.As(err, &unknown) || strings.Join(unknown.Several, ", ") != tt.want {
				t.Errorf("Lookup(%q) = %q, %v, want the choice of %s", tt.name, c.Name, err, tt.want)
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
		"the smaller of two names":           {"Tesla M40", 11448 * mib, "Tesla M40"},
		"the larger, which has its own name": {"Tesla M40 24GB", 22945 * mib, "Tesla M40 24GB"},
		"a Mac by its size":                  {"Apple M3 Max", 65536 * mib, "Apple M3 Max (40-core GPU)"},
		"a Mac of a size that is not sold":   {"Apple M3 Max", 16384 * mib, ""},
		"a board of another name":            {"NVIDIA B300 SXM6 AC", 275040 * mib, "B300"},
		"an accelerator as libdrm names it":  {"AMD Instinct MI300X OAM", 196592 * mib, "Instinct MI300X"},
		"two cards of one entry":             {"AMD Radeon RX 570 Series", 8192 * mib, "Radeon RX 570 8GB"},
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
