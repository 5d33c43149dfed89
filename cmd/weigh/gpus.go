package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"weigh/cmd/weigh/internal/render"
	"weigh/estimate/hw"
	"weigh/estimate/hw/detect"
)

// defaultReserve is what llama.cpp leaves free of each device.
//
// Source: llama.cpp common/common.h@v0.5.0, fit_params_target.
const defaultReserve = 1 << 30

// newGPUsCmd returns the sub-command that lists the devices and the host memory.
func newGPUsCmd() *cobra.Command {
	var o struct {
		json, catalog, measure bool
		gpus, rpc, rpcMemory   []string
		reserve                string
	}
	cmd := &cobra.Command{
		Use:   "gpus",
		Short: "The GPUs and the host memory: what is free, who holds the rest, where each figure is from",
		Example: `  weigh gpus
  weigh gpus --json
  weigh gpus --gpu "2x RTX 3090:free=22GiB"
  weigh gpus --catalog 4090
  weigh gpus --rpc 192.168.1.20:50052`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			w := cmd.OutOrStdout()
			if o.catalog {
				return printCatalog(w, strings.Join(args, " "), o.json)
			}
			if len(args) > 0 {
				return fmt.Errorf("gpus takes no argument but with --catalog, and there is %q", args[0])
			}
			reserve, err := hw.ParseSize(o.reserve)
			if err != nil {
				return fmt.Errorf("--reserve: %w", err)
			}
			m, findings, err := machine(cmd.Context(), o.gpus, o.rpc, o.rpcMemory)
			if err != nil {
				return err
			}
			if o.measure {
				bps, err := detect.MeasureBandwidth(cmd.Context(), m.Host)
				if err != nil {
					return fmt.Errorf("--measure: %w", err)
				}
				m.Host.BandwidthBps = bps
				m.Host.Source["bandwidth_bytes_per_second"] = "measured now"
			}
			if o.json {
				return writeJSON(w, newGPUsDocument(m, findings, reserve))
			}
			printMachine(w, render.StyleOf(w), m, findings, reserve)
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.json, "json", false, "write one JSON document")
	f.BoolVar(&o.catalog, "catalog", false, "list the known cards, or those whose name has every word given")
	f.BoolVar(&o.measure, "measure", false, "measure the bandwidth of the host memory, and keep the result")
	f.StringArrayVar(&o.gpus, "gpu", nil, "show this hardware instead of what is detected")
	f.StringSliceVar(&o.rpc, "rpc", nil, "add the devices of llama.cpp's rpc-server at `host:port`")
	f.StringSliceVar(&o.rpcMemory, "rpc-memory", nil, "memory of each --rpc server, instead of asking it")
	f.StringVar(&o.reserve, "reserve", "1GiB", "memory to leave free on each device")
	return cmd
}

// machine returns the machine to plan for: the one detected, or with the devices
// of --gpu instead of its own, and those of --rpc after them.
func machine(ctx context.Context, gpus, rpc, rpcMemory []string) (hw.Machine, []detect.Finding, error) {
	m, findings := detect.Machine(ctx)
	if len(gpus) > 0 {
		devices, err := namedDevices(gpus)
		if err != nil {
			return hw.Machine{}, nil, err
		}
		m.Devices, findings = devices, nil
	}
	remote, err := remoteDevices(ctx, rpc, rpcMemory)
	if err != nil {
		return hw.Machine{}, nil, err
	}
	m.Devices = append(m.Devices, remote...)
	for i := range m.Devices {
		m.Devices[i].Index = i
	}
	return m, findings, nil
}

// namedDevices returns the devices of all --gpu values; "none" stands alone.
func namedDevices(specs []string) ([]hw.Device, error) {
	var devices []hw.Device
	for _, spec := range specs {
		d, err := hw.ParseSpec(spec)
		if errors.Is(err, hw.ErrNoDevice) {
			if len(specs) > 1 {
				return nil, errors.New("--gpu none stands alone: it runs on the CPU")
			}
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		devices = append(devices, d...)
	}
	if len(devices) > hw.MaxDevices {
		return nil, fmt.Errorf("%d devices: llama.cpp takes at most %d", len(devices), hw.MaxDevices)
	}
	for i := range devices {
		devices[i].Index = i
	}
	return devices, nil
}

// remoteDevices returns the devices of the rpc-servers: with the memory that the
// user says they have, else as they answer.
func remoteDevices(ctx context.Context, endpoints, memory []string) ([]hw.Device, error) {
	if len(memory) > 0 && len(memory) != len(endpoints) {
		return nil, fmt.Errorf("--rpc-memory has %d sizes for %d servers of --rpc", len(memory), len(endpoints))
	}
	var devices []hw.Device
	for i, endpoint := range endpoints {
		if len(memory) == 0 {
			d, err := detect.RPC(ctx, endpoint)
			if err != nil {
				return nil, fmt.Errorf("%w; --rpc-memory says what it has without asking", err)
			}
			devices = append(devices, d...)
			continue
		}
		size, err := hw.ParseSize(memory[i])
		if err != nil {
			return nil, fmt.Errorf("--rpc-memory: %w", err)
		}
		d := hw.Remote(endpoint, &size, &size, "flag")
		d.Assumed = true
		devices = append(devices, d)
	}
	return devices, nil
}

// writeJSON writes one indented document.
func writeJSON(w io.Writer, document any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(document)
}

// barWidth is the width of a bar of memory, in columns.
const barWidth = 32

// printMachine writes the machine for people.
func printMachine(w io.Writer, style render.Style, m hw.Machine, findings []detect.Finding, reserve uint64) {
	if len(m.Devices) == 0 {
		fmt.Fprintln(w, "No GPU that llama.cpp could use: models run on the CPU.")
	}
	for _, d := range m.Devices {
		printDevice(w, style, d, reserve)
		fmt.Fprintln(w)
	}
	printHost(w, style, m.Host)
	for _, f := range findings {
		if f.Severity == detect.OK || f.Severity == detect.Info && f.Hint == "" {
			continue
		}
		fmt.Fprintf(w, "\n%s: %s\n", severity(style, f.Severity), render.Text(f.Message))
		if f.Hint != "" {
			fmt.Fprintf(w, "  %s\n", render.Text(f.Hint))
		}
	}
}

// severity colours a severity.
func severity(style render.Style, s string) string {
	switch s {
	case detect.Error:
		return style.Red(s)
	case detect.Warning:
		return style.Yellow(s)
	case detect.OK:
		return style.Green(s)
	}
	return s
}

// printDevice writes one device: what it is, what is free and from where, what a
// model can use of it, and who holds the rest.
func printDevice(w io.Writer, style render.Style, d hw.Device, reserve uint64) {
	fmt.Fprintf(w, "%s %s\n", style.Bold(fmt.Sprintf("GPU %d", d.Index)), style.Bold(render.Text(d.Name)))
	if about := aboutDevice(d); about != "" {
		fmt.Fprintf(w, "  %s\n", style.Dim(about))
	}
	rows := [][]string{{"  memory", memoryLine(style, d)}}
	if b := hw.Usable(d, reserve); b.Known {
		for _, l := range b.Lines[1:] {
			amount := render.Bytes(uint64(-l.Bytes)) + "  "
			if l.Bytes == 0 {
				amount = ""
			}
			rows = append(rows, []string{"  - " + l.Name, amount + style.Dim(render.Text(l.Source)+" ("+l.Basis+")")})
		}
		rows = append(rows, []string{"  usable", style.Bold(render.Bytes(b.Bytes))})
	}
	render.Columns(w, rows)
	for _, p := range d.UsedBy {
		fmt.Fprintf(w, "  %10s  %s %s\n", render.Size(p.Bytes), processLabel(p), style.Dim(fmt.Sprintf("(%d)", p.PID)))
	}
	if freed, names := freeable(d); freed > 0 {
		fmt.Fprintf(w, "  %s could be freed by ending %s\n", render.Bytes(freed), names)
	}
	for _, note := range d.Notes {
		fmt.Fprintf(w, "  %s\n", style.Dim(render.Text(note)))
	}
}

// unitName is what a maker calls the units that Device.SMs counts.
var unitName = map[string]string{"nvidia": "multiprocessors", "amd": "compute units", "intel": "Xe cores", "apple": "GPU cores"}

// aboutDevice lists what is known of a device beside its memory.
func aboutDevice(d hw.Device) string {
	var facts []string
	add := func(known bool, format string, args ...any) {
		if known {
			facts = append(facts, fmt.Sprintf(format, args...))
		}
	}
	add(d.Backend != "", "%s", d.Backend)
	add(d.ComputeCapability.Known(), "compute capability %s", d.ComputeCapability)
	add(d.Arch != "", "%s", render.Text(d.Arch))
	add(d.SMs > 0, "%d %s", d.SMs, unitName[d.Vendor])
	add(d.BandwidthBps > 0, "%d GB/s", d.BandwidthBps/1e9)
	add(d.PCIe.Bps() > 0, "PCIe %d.0 x%d", d.PCIe.Gen, d.PCIe.Width)
	add(d.PowerLimitMilliW > 0, "%d W", d.PowerLimitMilliW/1000)
	add(d.Driver != "", "driver %s", render.Text(d.Driver))
	add(d.DisplayActive, "draws a screen")
	add(d.Remote != "", "at %s", render.Text(d.Remote))
	return strings.Join(facts, ", ")
}

// memoryLine says what of the memory is used and free, and who says so.
func memoryLine(style render.Style, d hw.Device) string {
	from := d.Source["memory_free"]
	if d.MemoryFree == nil {
		from = d.Source["memory_total"]
	}
	if from != "" {
		from = style.Dim("  " + render.Text(from))
	}
	switch {
	case d.MemoryTotal == nil:
		return "unknown"
	case d.MemoryFree == nil:
		return render.Bytes(*d.MemoryTotal) + ", what is free is unknown" + from
	}
	bar := style.Bar(*d.MemoryTotal-min(*d.MemoryFree, *d.MemoryTotal), *d.MemoryTotal, barWidth)
	if bar != "" {
		bar += " "
	}
	return fmt.Sprintf("%s%s free of %s%s", bar, render.Bytes(*d.MemoryFree), render.Bytes(*d.MemoryTotal), from)
}

// processLabel is the last part of a program's path.
func processLabel(p hw.Process) string {
	if p.Name == "" {
		return "a process"
	}
	return render.Text(path.Base(strings.ReplaceAll(p.Name, `\`, "/")))
}

// desktopPrograms draw the screen: ending them ends the session.
var desktopPrograms = map[string]bool{
	"Xorg": true, "Xwayland": true, "X": true, "gnome-shell": true, "kwin_x11": true, "kwin_wayland": true, "plasmashell": true,
	"sway": true, "Hyprland": true, "weston": true, "cosmic-comp": true, "mutter": true, "dwm.exe": true, "explorer.exe": true,
}

// freeable returns what would be free without the processes that do not draw the
// screen, and their names.
func freeable(d hw.Device) (bytes uint64, names string) {
	var list []string
	for _, p := range d.UsedBy {
		if p.Bytes != nil && *p.Bytes > 0 && !desktopPrograms[processLabel(p)] {
			bytes += *p.Bytes
			list = append(list, processLabel(p))
		}
	}
	if len(list) > 3 {
		list = append(list[:3], fmt.Sprintf("%d more", len(list)-3))
	}
	return bytes, strings.Join(list, ", ")
}

// printHost writes the host's memory and processor.
func printHost(w io.Writer, style render.Style, h hw.Host) {
	fmt.Fprintln(w, style.Bold("Host"))
	var facts []string
	if h.CPU != "" {
		facts = append(facts, render.Text(h.CPU))
	}
	if h.Cores > 0 {
		facts = append(facts, fmt.Sprintf("%d cores, %d threads", h.Cores, h.Threads))
	}
	if len(h.SIMD) > 0 {
		facts = append(facts, strings.Join(h.SIMD, " "))
	}
	if h.BandwidthBps > 0 {
		facts = append(facts, fmt.Sprintf("%d GB/s", h.BandwidthBps/1e9))
	}
	if h.Environment != "" {
		facts = append(facts, h.Environment)
	}
	if len(facts) > 0 {
		fmt.Fprintf(w, "  %s\n", style.Dim(strings.Join(facts, ", ")))
	}
	rows := [][]string{{"  memory", hostMemoryLine(style, h)}}
	if h.Limit != nil {
		rows = append(rows, []string{"  limit", render.Bytes(*h.Limit) + style.Dim("  "+render.Text(h.LimitSource))})
	}
	if h.SwapFree != nil && *h.SwapFree > 0 {
		rows = append(rows, []string{"  swap", render.Bytes(*h.SwapFree) + " free"})
	}
	if h.HugePagesFree > 0 {
		rows = append(rows, []string{"  huge pages", render.Bytes(h.HugePagesFree) + " free"})
	}
	if h.DiskFree != nil {
		rows = append(rows, []string{"  disk", render.Bytes(*h.DiskFree) + " free in this folder"})
	}
	render.Columns(w, rows)
	for _, note := range h.Notes {
		fmt.Fprintf(w, "  %s\n", style.Dim(render.Text(note)))
	}
}

// hostMemoryLine says what of the host's memory is available.
func hostMemoryLine(style render.Style, h hw.Host) string {
	if h.MemoryTotal == nil {
		return "unknown"
	}
	if h.MemoryAvailable == nil {
		return render.Bytes(*h.MemoryTotal) + ", what is available is unknown"
	}
	bar := style.Bar(*h.MemoryTotal-min(*h.MemoryAvailable, *h.MemoryTotal), *h.MemoryTotal, barWidth)
	if bar != "" {
		bar += " "
	}
	return fmt.Sprintf("%s%s available of %s%s", bar, render.Bytes(*h.MemoryAvailable), render.Bytes(*h.MemoryTotal), style.Dim("  "+render.Text(h.Source["memory_available"])))
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
	DisplayActive     bool              `json:"display_active"`
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
	HugePagesFree   uint64            `json:"huge_pages_free"`
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
		SwapFree: h.SwapFree, HugePagesFree: h.HugePagesFree, Cores: known(h.Cores), Threads: known(h.Threads),
		SIMD: list(h.SIMD), BandwidthBps: known(h.BandwidthBps), DiskFree: h.DiskFree, Source: h.Source, Notes: list(h.Notes),
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
		PowerLimitMilliW: known(d.PowerLimitMilliW), UnifiedMemory: d.Unified, DisplayActive: d.DisplayActive, MIG: d.MIG,
		Assumed: d.Assumed, Remote: known(d.Remote), LinkBps: known(d.LinkBps), Source: d.Source, Notes: list(d.Notes),
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

type cardDocument struct {
	Name              string  `json:"name"`
	Vendor            string  `json:"vendor"`
	Memory            *uint64 `json:"memory"`
	UnifiedMemory     bool    `json:"unified_memory"`
	BandwidthBps      *uint64 `json:"bandwidth_bytes_per_second"`
	FP16Flops         *uint64 `json:"fp16_flops"`
	FP32Flops         *uint64 `json:"fp32_flops"`
	ComputeCapability *string `json:"compute_capability"`
	Architecture      *string `json:"architecture"`
	Multiprocessors   *int    `json:"multiprocessors"`
	Source            string  `json:"source"`
}

// printCatalog writes the cards whose name has every word of the pattern.
func printCatalog(w io.Writer, pattern string, asJSON bool) error {
	var cards []hw.Card
	for _, c := range hw.Catalogue() {
		if matches(c.Name, pattern) {
			cards = append(cards, c)
		}
	}
	if len(cards) == 0 {
		_, err := hw.Lookup(pattern) // names the nearest
		return err
	}
	if asJSON {
		docs := []cardDocument{}
		for _, c := range cards {
			docs = append(docs, cardDocument{
				c.Name, c.Vendor, known(c.Memory), c.Unified, known(c.BandwidthBps), known(c.FP16Flops), known(c.FP32Flops),
				known(c.ComputeCapability.String()), known(c.Arch), known(c.Units), c.Source,
			})
		}
		return writeJSON(w, struct {
			Schema int            `json:"schema"`
			Cards  []cardDocument `json:"cards"`
		}{1, docs})
	}
	rows := [][]string{{"NAME", "MEMORY", "BANDWIDTH", "FP16", "FP32", "CC", "UNITS", "SOURCE"}}
	for _, c := range cards {
		memory := "shared"
		if c.Memory > 0 {
			memory = render.Bytes(c.Memory)
		}
		rows = append(rows, []string{
			c.Name, memory, fmt.Sprintf("%d GB/s", c.BandwidthBps/1e9), tera(c.FP16Flops), tera(c.FP32Flops),
			c.ComputeCapability.String() + c.Arch, blank(c.Units), c.Source,
		})
	}
	render.Columns(w, rows, 1, 2, 3, 4, 6)
	return nil
}

// matches reports whether name has every word of the pattern, in any case.
func matches(name, pattern string) bool {
	name = strings.ToLower(name)
	for word := range strings.FieldsSeq(strings.ToLower(pattern)) {
		if !strings.Contains(name, word) {
			return false
		}
	}
	return true
}

// tera writes a rate in TFLOPS, and nothing for an unknown one.
func tera(flops uint64) string {
	if flops == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f TFLOPS", float64(flops)/1e12)
}

// blank writes a number, and nothing for an unknown one.
func blank(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
