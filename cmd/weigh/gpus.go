package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
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
				return printCatalog(w, render.StyleOf(w), strings.Join(args, " "), o.json)
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
	var m hw.Machine
	var findings []detect.Finding
	if len(gpus) == 0 {
		m, findings = detected(ctx)
	} else {
		devices, err := namedDevices(gpus)
		if err != nil {
			return hw.Machine{}, nil, err
		}
		m.Devices = devices
		m.Host, findings = detect.Host()
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
		if host, port, err := net.SplitHostPort(endpoint); err != nil || host == "" || port == "" {
			return nil, fmt.Errorf("--rpc %q: a server is written host:port", endpoint)
		}
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
		if size == 0 || size > 1<<50 {
			return nil, fmt.Errorf("--rpc-memory %s: no device has that much", memory[i])
		}
		d := hw.Remote(endpoint, &size, &size, "flag")
		d.Assumed = true
		devices = append(devices, d)
	}
	return devices, nil
}

// shownProcesses is how many of a device's processes are listed for people, those
// that hold most; --json has all.
const shownProcesses = 10

// barWidth is the width of a bar of memory, in columns: less on a narrow terminal.
func barWidth(style render.Style) int {
	if style.Width > 0 && style.Width < 100 {
		return 10
	}
	return 32
}

// printFacts writes facts in a line below a heading, in more where the terminal
// is narrow.
func printFacts(w io.Writer, style render.Style, facts []string) {
	if len(facts) > 0 {
		style.Prose(w, 0, "  "+style.Dim(strings.Join(facts, ", ")))
	}
}

// printMachine writes the machine for people.
func printMachine(w io.Writer, style render.Style, m hw.Machine, findings []detect.Finding, reserve uint64) {
	if len(m.Devices) == 0 {
		fmt.Fprint(w, "No GPU that llama.cpp could use: models run on the CPU.\n\n")
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
		fmt.Fprintln(w)
		render.Prose(w, 2, severity(style, f.Severity)+": "+render.Text(f.Message))
		if f.Hint != "" {
			render.Prose(w, 0, "  "+render.Text(f.Hint))
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
	printFacts(w, style, aboutDevice(d))
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
	for _, p := range d.UsedBy[:min(len(d.UsedBy), shownProcesses)] {
		fmt.Fprintf(w, "  %10s  %s %s\n", render.Size(p.Bytes), processLabel(p), style.Dim(fmt.Sprintf("(%d)", p.PID)))
	}
	if more := len(d.UsedBy) - shownProcesses; more > 0 {
		var rest *uint64 // unknown where one of them is
		for i, sum := shownProcesses, uint64(0); i < len(d.UsedBy) && d.UsedBy[i].Bytes != nil; i++ {
			if sum += *d.UsedBy[i].Bytes; i == len(d.UsedBy)-1 {
				rest = &sum
			}
		}
		fmt.Fprintf(w, "  %10s  %d more processes\n", render.Size(rest), more)
	}
	if freed, names := freeable(d); freed > 0 {
		fmt.Fprintf(w, "  %s could be freed by ending %s\n", render.Bytes(freed), names)
	}
	for _, note := range d.Notes {
		render.Prose(w, 2, "  "+style.Dim(render.Text(note)))
	}
}

// unitName is what a maker calls the units that Device.SMs counts.
var unitName = map[string]string{"nvidia": "multiprocessors", "amd": "compute units", "intel": "Xe cores", "apple": "GPU cores"}

// aboutDevice lists what is known of a device beside its memory.
func aboutDevice(d hw.Device) (facts []string) {
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
	return facts
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
	bar := style.Bar(*d.MemoryTotal-min(*d.MemoryFree, *d.MemoryTotal), *d.MemoryTotal, barWidth(style))
	if bar != "" {
		bar += " "
	}
	return fmt.Sprintf("%s%s free of %s%s", bar, render.Bytes(*d.MemoryFree), render.Bytes(*d.MemoryTotal), from)
}

// longestName is as much of a program's name as fits its line.
const longestName = 48

// processLabel is the last part of a program's path.
func processLabel(p hw.Process) string {
	if p.Name == "" {
		return "a process"
	}
	name := []rune(render.Text(path.Base(strings.ReplaceAll(p.Name, `\`, "/"))))
	if len(name) > longestName {
		return string(name[:longestName-1]) + "…"
	}
	return string(name)
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
	printFacts(w, style, facts)
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
		render.Prose(w, 2, "  "+style.Dim(render.Text(note)))
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
	bar := style.Bar(*h.MemoryTotal-min(*h.MemoryAvailable, *h.MemoryTotal), *h.MemoryTotal, barWidth(style))
	if bar != "" {
		bar += " "
	}
	return fmt.Sprintf("%s%s available of %s%s", bar, render.Bytes(*h.MemoryAvailable), render.Bytes(*h.MemoryTotal), style.Dim("  "+render.Text(h.Source["memory_available"])))
}
