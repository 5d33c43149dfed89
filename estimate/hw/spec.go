package hw

import (
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxDevices is the most devices llama.cpp takes.
//
// Source: llama.cpp src/llama.cpp@v0.5.0, llama_max_devices.
const MaxDevices = 16

// ErrNoDevice is what ParseSpec returns for "none": run on the CPU alone.
var ErrNoDevice = errors.New("no device")

// ParseSpec returns the devices that a --gpu value names:
//
//	[Nx](NAME | SIZE)[:free=SIZE][:cc=MAJOR.MINOR][:display]
//
// NAME is a card of the catalogue, SIZE ("24GiB") an otherwise unknown CUDA card
// of compute capability 8.9. ":free" says what is free before the model loads,
// ":display" that the card also draws a desktop. "none" is ErrNoDevice.
//
// What is free of a card of the catalogue is its nominal memory less what the
// driver keeps; see Reserved.
func ParseSpec(spec string) ([]Device, error) {
	s := strings.TrimSpace(spec)
	if strings.EqualFold(s, "none") {
		return nil, ErrNoDevice
	}
	name, options, _ := strings.Cut(s, ":")
	count, name, err := cutCount(name)
	if err != nil {
		return nil, fmt.Errorf("gpu %q: %w", spec, err)
	}
	d, err := named(strings.Trim(name, ` "'`))
	if err != nil {
		return nil, fmt.Errorf("gpu %q: %w", spec, err)
	}
	if options != "" {
		for o := range strings.SplitSeq(options, ":") {
			if err := d.apply(strings.TrimSpace(o)); err != nil {
				return nil, fmt.Errorf("gpu %q: %w", spec, err)
			}
		}
	}
	devices := make([]Device, count)
	for i := range devices {
		total, free := *d.MemoryTotal, *d.MemoryFree
		devices[i] = d
		devices[i].Index, devices[i].MemoryTotal, devices[i].MemoryFree = i, &total, &free
		devices[i].Source = maps.Clone(d.Source)
	}
	return devices, nil
}

// cutCount splits "2x RTX 3090" after its count. A card's own name may begin like
// one: "7900 XTX".
func cutCount(s string) (int, string, error) {
	digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
	rest := strings.TrimLeft(s[digits:], " ")
	sign, n := utf8.DecodeRuneInString(rest)
	if digits == 0 || !strings.ContainsRune("xX×", sign) || len(catalogue().find(s)) > 0 {
		return 1, s, nil
	}
	count, err := strconv.Atoi(s[:digits])
	if err != nil || count < 1 || count > MaxDevices {
		return 0, "", fmt.Errorf("%s devices: llama.cpp takes 1 to %d", s[:digits], MaxDevices)
	}
	return count, strings.TrimSpace(rest[n:]), nil
}

// apply sets one option of a spec.
func (d *Device) apply(option string) error {
	name, value, _ := strings.Cut(option, "=")
	switch name {
	case "free":
		n, err := ParseSize(value)
		if err != nil {
			return err
		}
		if n > *d.MemoryTotal {
			return fmt.Errorf("free=%s is more than the card's %d bytes", value, *d.MemoryTotal)
		}
		d.MemoryFree, d.MemoryReserved = &n, 0
		d.Source["memory_free"] = "flag"
	case "cc":
		c, err := ParseCapability(value)
		if err != nil {
			return err
		}
		if d.Vendor != "nvidia" {
			return fmt.Errorf("cc=%s: %s has no compute capability, which is NVIDIA's", value, d.Name)
		}
		d.ComputeCapability = c
		d.Source["compute_capability"] = "flag"
	case "display":
		d.DisplayActive = true
		d.Source["display_active"] = "flag"
	default:
		return fmt.Errorf("unknown option %q; there are free=SIZE, cc=MAJOR.MINOR and display", option)
	}
	return nil
}

// named returns one device for a size or a name of the catalogue.
func named(name string) (Device, error) {
	size, err := ParseSize(name)
	if err == nil && len(catalogue().find(name)) == 0 { // a Radeon 780M is not one of 780 MiB
		return bare(size)
	}
	if len(name) <= 3 && strings.Trim(name, "0123456789.") == "" {
		return Device{}, err // a size that lacks its unit, not a card
	}
	c, unknown := Lookup(name)
	if unknown != nil {
		if strings.ContainsRune("0123456789+-.", rune(name[0])) {
			return Device{}, fmt.Errorf("%w; nor is it a size such as 24GiB", unknown)
		}
		return Device{}, unknown
	}
	return c.Device()
}

// maxMemory is more than any device has.
const maxMemory = 1 << 50

// bare returns a CUDA card of which only the size is known.
func bare(size uint64) (Device, error) {
	if size == 0 {
		return Device{}, errors.New(`a card of no memory; say "none" to run on the CPU alone`)
	}
	if size > maxMemory {
		return Device{}, fmt.Errorf("%d bytes is more than any device has", size)
	}
	return Device{
		Name: "CUDA device", Vendor: "nvidia", Backend: CUDA, Assumed: true,
		MemoryTotal: &size, MemoryFree: &size,
		ComputeCapability: Capability{8, 9},
		Source:            map[string]string{"memory_total": "flag", "memory_free": "flag", "compute_capability": "assumed"},
	}, nil
}

// backendOf is the backend a maker's devices run llama.cpp with, unless told.
var backendOf = map[string]string{"nvidia": CUDA, "amd": ROCm, "intel": Vulkan, "apple": Metal}

// Device returns the card as an assumed device: with the memory of the data
// sheet, less what the driver keeps, free.
func (c Card) Device() (Device, error) {
	if c.Memory == 0 {
		return Device{}, fmt.Errorf("%s shares the host's memory, which comes in several sizes: write the size after the name, as in %q", c.Name, c.Name+" 64GB")
	}
	d := Device{
		Name: c.Name, Vendor: c.Vendor, Backend: backendOf[c.Vendor], Assumed: true, Unified: c.Unified,
		ComputeCapability: c.ComputeCapability, Arch: c.Arch, SMs: c.Units,
		BandwidthBps: c.BandwidthBps, FP16Flops: c.FP16Flops, FP32Flops: c.FP32Flops, PCIe: c.PCIe,
	}
	total, reserved, why := c.Memory, uint64(0), "catalogue"
	switch {
	case c.Vendor == "apple":
		total, why = MetalWorkingSet(c.Memory), "estimate from the catalogue"
	case c.Unified && c.Vendor == "amd":
		total, why = c.Memory/2, "assumed: half of the memory, the driver's default"
	default:
		reserved = Reserved(c)
	}
	free := total - reserved
	if c.Unified {
		d.HostMemory = c.Memory
	}
	d.MemoryTotal, d.MemoryFree, d.MemoryReserved = &total, &free, reserved
	d.Source = map[string]string{"memory_total": why, "memory_free": why + ", less what the driver keeps (assumed)"}
	for field, known := range map[string]bool{
		"compute_capability":         c.ComputeCapability.Known() || c.Arch != "",
		"bandwidth_bytes_per_second": c.BandwidthBps > 0,
		"fp16_flops":                 c.FP16Flops > 0,
		"fp32_flops":                 c.FP32Flops > 0,
		"multiprocessors":            c.Units > 0,
		"pcie":                       c.PCIe.Gen > 0,
	} {
		if known {
			d.Source[field] = "catalogue"
		}
	}
	return d, nil
}

// Reserved returns the bytes of a card's nominal memory that no process can
// have: 1/48 of it, which covers what NVIDIA's driver was seen to keep (RTX 4090
// 499 MiB of 24576, RTX 5090 663 of 32768, RTX PRO 6000 1057 of 98304), and 1/12
// of a memory shared with a system or with its own check bits (1/16).
func Reserved(c Card) uint64 {
	if c.Unified || c.ECC {
		return c.Memory / 12
	}
	return c.Memory / 48
}

// MetalWorkingSet estimates Metal's recommendedMaxWorkingSetSize of a Mac with
// total bytes of memory: two thirds up to 32 GiB, three quarters above (seen:
// 10922.67 MiB of 16 GiB, 48 GiB of 64, 96 GiB of 128). Newer systems allow a
// little more of a small memory.
func MetalWorkingSet(total uint64) uint64 {
	if total <= 32<<30 {
		return total / 3 * 2
	}
	return total / 4 * 3
}

// sizeUnits are the units of ParseSize. A single letter means the binary unit,
// as in llama.cpp's and every memory tool's output.
var sizeUnits = map[string]uint64{
	"b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
	"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40,
	"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
}

// ParseSize reads a size in bytes, such as "24GiB", "22.5 GiB", "512m" or
// "24GB" (decimal). It is exact, rounds a fraction of a byte down, and takes no
// number without a unit.
func ParseSize(s string) (uint64, error) {
	s = strings.TrimSpace(s)
	n := len(s) - len(strings.TrimLeft(s, "0123456789."))
	unit, ok := sizeUnits[strings.ToLower(strings.TrimSpace(s[n:]))]
	if n == 0 || !ok {
		return 0, fmt.Errorf("%q is not a size such as 24GiB or 512MiB", s)
	}
	size, err := decimal(s[:n], unit)
	if err != nil || strings.HasSuffix(s[:n], ".") || strings.HasPrefix(s, ".") || bits.Len64(size) > 62 {
		return 0, fmt.Errorf("%q is not a size such as 24GiB or 512MiB", s)
	}
	return size, nil
}
