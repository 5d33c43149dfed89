package detect

import (
	"errors"
	"testing"

	"weigh/estimate/hw"
)

func TestWindowsAdapters(t *testing.T) {
	total, available := uint64(32<<30), uint64(10<<30)
	tests := map[string]struct {
		adapters      []adapter
		err           error
		devices, says []string
	}{
		"a Radeon beside the processor's graphics and an NVIDIA card": {[]adapter{
			{"AMD Radeon RX 7800 XT", `PCI\VEN_1002&DEV_747E`, "31.0", 17163091968},
			{"AMD Radeon(TM) Graphics", `PCI\VEN_1002&DEV_164E`, "31.0", 536870912},
			{"NVIDIA GeForce RTX 4090", `PCI\VEN_10DE&DEV_2684`, "32.0", 25757220864},
		}, nil, []string{
			"0 vulkan AMD Radeon RX 7800 XT ?/16368 cc gfx1101 SM 60 624 GB/s PCIe 4x16",
			"1 vulkan AMD Radeon(TM) Graphics 10240/16384 unified cc  SM 0 0 GB/s PCIe 0x0",
		}, nil},
		"an Arc card": {
			[]adapter{{"Intel(R) Arc(TM) B580 Graphics", `pci\ven_8086&dev_e20b`, "", 12884901888}},
			nil,
			[]string{"0 vulkan Intel(R) Arc(TM) B580 Graphics ?/12288 cc  SM 20 456 GB/s PCIe 4x8"},
			nil,
		},
		"an absurd size": {
			[]adapter{{"AMD Radeon RX 7800 XT", `PCI\VEN_1002`, "", 1 << 60}},
			nil,
			[]string{"0 vulkan AMD Radeon RX 7800 XT ?/? cc  SM 0 0 GB/s PCIe 0x0"},
			nil,
		},
		"an old card of a size that the catalogue lacks": {
			[]adapter{{"Radeon RX 580 Series", `PCI\VEN_1002`, "", 2147483648}},
			nil,
			[]string{"0 vulkan Radeon RX 580 Series ?/2048 cc  SM 0 0 GB/s PCIe 0x0"},
			nil,
		},
		"a processor with much set aside": {
			[]adapter{{"AMD Radeon(TM) 8060S Graphics", `PCI\VEN_1002`, "", 64 << 30}},
			nil,
			[]string{"0 vulkan AMD Radeon(TM) 8060S Graphics 75776/81920 unified cc gfx1151 SM 40 256 GB/s PCIe 0x0"},
			nil,
		},
		"a remote desktop's adapter": {[]adapter{{"Microsoft Remote Display Adapter", "", "", 0}}, nil, nil, nil},
		"no access":                  {nil, errors.New("access is denied"), nil, []string{"access is denied", "--gpu"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := Source{Adapters: func() ([]adapter, error) { return tt.adapters, tt.err }}
			devices, findings := s.windows(hw.Host{MemoryTotal: &total, MemoryAvailable: &available, Source: map[string]string{"memory_available": "system call"}})
			for i := range devices {
				devices[i].Index = i
			}
			check(t, hw.Machine{Devices: devices}, findings, tt.devices, tt.says)
		})
	}
}
