package main

import (
	"bytes"
	"encoding/json"
	"io"

	"weigh/cmd/weigh/internal/render"
	"weigh/estimate/hw"
	"weigh/estimate/hw/detect"
)

// writeJSON writes one indented document.
func writeJSON(w io.Writer, document any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(document); err != nil {
		return err
	}
	_, err := w.Write(render.JSON(b.Bytes()))
	return err
}

// A gpusDocument is the JSON of gpus. What is unknown is null.
type gpusDocument struct {
	Schema   int              `json:"schema"`
	Devices  []deviceDocument `json:"devices"`
	Host     hostDocument     `json:"host"`
	Findings []detect.Finding `json:"findings"`
}

type deviceDocument struct {
	Index             int               `json:"index"`
	Name              string            `json:"name"`
	Vendor            *string           `json:"vendor"`
	UUID              *string           `json:"uuid"`
	Backend           *string           `json:"backend"`
	Driver            *string           `json:"driver"`
	CUDA              *string           `json:"cuda_version"`
	MemoryTotal       *uint64           `json:"memory_total"`
	MemoryFree        *uint64           `json:"memory_free"`
	MemoryReserved    *uint64           `json:"memory_reserved"`
	MemoryUsedBy      []processDocument `json:"memory_used_by"`
	ComputeCapability *string           `json:"compute_capability"`
	Architecture      *string           `json:"architecture"`
	Multiprocessors   *int              `json:"multiprocessors"`
	BandwidthBps      *uint64           `json:"bandwidth_bytes_per_second"`
	FP16Flops         *uint64           `json:"fp16_flops"`
	FP32Flops         *uint64           `json:"fp32_flops"`
	PCIe              *pcieDocument     `json:"pcie"`
	PowerLimitMilliW  *uint64           `json:"power_limit_milliwatts"`
	UnifiedMemory     bool              `json:"unified_memory"`
	DisplayActive     *bool             `json:"display_active"`
	MIG               bool              `json:"mig"`
	Assumed           bool              `json:"assumed"`
	Remote            *string           `json:"remote"`
	LinkBps           *uint64           `json:"link_bytes_per_second"`
	Usable            *usableDocument   `json:"usable"`
	Source            map[string]string `json:"source"`
	Notes             []string          `json:"notes"`
}

type processDocument struct {
	PID   int     `json:"pid"`
	Name  *string `json:"name"`
	Bytes *uint64 `json:"bytes"`
}

type pcieDocument struct {
	Generation     int    `json:"generation"`
	Width          int    `json:"width"`
	BytesPerSecond uint64 `json:"bytes_per_second"`
}

type usableDocument struct {
	Bytes uint64         `json:"bytes"`
	Lines []lineDocument `json:"lines"`
}

type lineDocument struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	Basis  string `json:"basis"`
	Source string `json:"source"`
}

type hostDocument struct {
	OS              string            `json:"os"`
	Environment     *string           `json:"environment"`
	CPU             *string           `json:"cpu"`
	MemoryTotal     *uint64           `json:"memory_total"`
	MemoryAvailable *uint64           `json:"memory_available"`
	Limit           *uint64           `json:"limit"`
	LimitSource     *string           `json:"limit_source"`
	SwapFree        *uint64           `json:"swap_free"`
	HugePagesFree   *uint64           `json:"huge_pages_free"`
	Cores           *int              `json:"cores"`
	Threads         *int              `json:"threads"`
	SIMD            []string          `json:"simd"`
	BandwidthBps    *uint64           `json:"bandwidth_bytes_per_second"`
	DiskFree        *uint64           `json:"disk_free"`
	Source          map[string]string `json:"source"`
	Notes           []string          `json:"notes"`
}

// known returns a pointer to v, or nil when v is its type's zero value.
func known[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// list returns s, and an empty list for nil.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// newGPUsDocument returns the JSON of a machine.
func newGPUsDocument(m hw.Machine, findings []detect.Finding, reserve uint64) gpusDocument {
	doc := gpusDocument{Schema: 1, Devices: []deviceDocument{}, Findings: list(findings)}
	for _, d := range m.Devices {
		doc.Devices = append(doc.Devices, newDeviceDocument(d, reserve))
	}
	h := m.Host
	doc.Host = hostDocument{
		OS: h.OS, Environment: known(h.Environment), CPU: known(h.CPU),
		MemoryTotal: h.MemoryTotal, MemoryAvailable: h.MemoryAvailable, Limit: h.Limit, LimitSource: known(h.LimitSource),
		SwapFree: h.SwapFree, Cores: known(h.Cores), Threads: known(h.Threads),
		SIMD: list(h.SIMD), BandwidthBps: known(h.BandwidthBps), DiskFree: h.DiskFree, Source: h.Source, Notes: list(h.Notes),
	}
	if h.Source["huge_pages_free"] != "" {
		doc.Host.HugePagesFree = &h.HugePagesFree
	}
	return doc
}

// newDeviceDocument returns the JSON of a device.
func newDeviceDocument(d hw.Device, reserve uint64) deviceDocument {
	doc := deviceDocument{
		Index: d.Index, Name: d.Name, Vendor: known(d.Vendor), UUID: known(d.UUID), Backend: known(d.Backend), Driver: known(d.Driver), CUDA: known(d.CUDA),
		MemoryTotal: d.MemoryTotal, MemoryFree: d.MemoryFree, MemoryReserved: known(d.MemoryReserved),
		ComputeCapability: known(d.ComputeCapability.String()), Architecture: known(d.Arch), Multiprocessors: known(d.SMs),
		BandwidthBps: known(d.BandwidthBps), FP16Flops: known(d.FP16Flops), FP32Flops: known(d.FP32Flops),
		PowerLimitMilliW: known(d.PowerLimitMilliW), UnifiedMemory: d.Unified, MIG: d.MIG,
		Assumed: d.Assumed, Remote: known(d.Remote), LinkBps: known(d.LinkBps), Source: d.Source, Notes: list(d.Notes),
	}
	if d.DisplayActive || d.Assumed || d.Source["display_active"] != "" {
		doc.DisplayActive = &d.DisplayActive
	}
	if d.UsedBy != nil {
		doc.MemoryUsedBy = []processDocument{}
	}
	for _, p := range d.UsedBy {
		doc.MemoryUsedBy = append(doc.MemoryUsedBy, processDocument{p.PID, known(p.Name), p.Bytes})
	}
	if bps := d.PCIe.Bps(); bps > 0 {
		doc.PCIe = &pcieDocument{d.PCIe.Gen, d.PCIe.Width, bps}
	}
	if b := hw.Usable(d, reserve); b.Known {
		doc.Usable = &usableDocument{Bytes: b.Bytes}
		for _, l := range b.Lines {
			doc.Usable.Lines = append(doc.Usable.Lines, lineDocument(l))
		}
	}
	return doc
}
