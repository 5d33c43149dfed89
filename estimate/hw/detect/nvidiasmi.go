package detect

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"strconv"
	"strings"

	"weigh/estimate/hw"
)

// smiFields are what nvidia-smi is asked, then what an older one knows: it
// refuses the whole question for one field it does not know.
var smiFields = [][]string{
	{
		"name", "memory.total", "memory.free", "memory.used", "uuid", "compute_cap", "driver_version", "pcie.link.gen.max", "pcie.link.width.current",
		"clocks.max.memory", "power.limit", "display_active", "driver_model.current", "memory.reserved", "mig.mode.current",
	},
	{"name", "memory.total", "memory.free", "memory.used", "uuid", "driver_version", "pcie.link.gen.max", "pcie.link.width.current", "power.limit", "display_active"},
	{"name", "memory.total", "memory.free", "memory.used"},
}

// nvidiaSMI asks nvidia-smi.
func (s Source) nvidiaSMI(ctx context.Context) nvidiaReport {
	program := "nvidia-smi"
	if release, _ := text(s.Root, "proc/sys/kernel/osrelease"); strings.Contains(strings.ToLower(release), "microsoft") {
		// WSL's own is seldom on the PATH; in a container there is only the one that is.
		if own := "/usr/lib/wsl/lib/nvidia-smi"; exists(s.Root, own[1:]) {
			program = own
		}
	}
	var report nvidiaReport
	for _, fields := range smiFields {
		out, err := s.Command(ctx, program, "--query-gpu="+strings.Join(fields, ","), "--format=csv,noheader,nounits")
		if ctx.Err() != nil {
			report.Problem = "nvidia-smi did not answer in time"
			report.Hint = "a driver that hangs needs a restart of the machine. --gpu names the hardware meanwhile"
			report.Tried = append(report.Tried, "nvidia-smi: no answer in time")
			return report
		}
		if errors.Is(err, exec.ErrNotFound) || absent(err) {
			report.Problem, report.NoDriver = "no NVIDIA driver", true
			report.Tried = append(report.Tried, "nvidia-smi: not found")
			return report
		}
		if bytes.HasPrefix(bytes.TrimSpace(out), []byte("No devices")) {
			report.Way, report.Problem = "nvidia-smi", ""
			report.Tried = append(report.Tried, "nvidia-smi: no devices")
			return report
		}
		if err != nil {
			why, code := err.Error(), 0
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				why += ": " + firstLine(append(exit.Stderr, out...))
				code = exit.ExitCode()
			}
			report.Tried = append(report.Tried, "nvidia-smi: "+why)
			if p, ok := problems[code]; ok {
				report.Problem, report.Hint = p.says, p.hint
				return report
			}
			report.Problem = "nvidia-smi does not answer: " + why
			continue
		}
		gpus, driver, err := parseSMI(fields, string(out))
		if err != nil {
			report.Problem = err.Error()
			report.Tried = append(report.Tried, err.Error())
			continue
		}
		report.Way, report.Problem, report.GPUs, report.Driver = "nvidia-smi", "", gpus, driver
		report.Tried = append(report.Tried, "nvidia-smi: driver "+driver)
		s.smiProcesses(ctx, program, report.GPUs)
		return report
	}
	return report
}

// parseSMI reads the table that nvidia-smi writes for the fields. A value that
// it does not have is [N/A], N/A or [Not Supported].
func parseSMI(fields []string, out string) (gpus []reading, driver string, err error) {
	rows := csv.NewReader(strings.NewReader(out))
	rows.TrimLeadingSpace = true
	rows.LazyQuotes = true
	rows.FieldsPerRecord = len(fields)
	records, err := rows.ReadAll()
	if err != nil {
		return nil, "", fmt.Errorf("nvidia-smi: its answer is no table of %d columns: %w", len(fields), err)
	}
	for _, record := range records {
		var r reading
		for i, field := range fields {
			v := strings.TrimSpace(record[i])
			if v == "N/A" || strings.HasPrefix(v, "[") {
				if field == "memory.total" {
					r.SharesHostMemory = strings.Contains(v, "N/A") || strings.Contains(v, "Not Supported")
				}
				continue
			}
			if field == "driver_version" {
				driver = v
			}
			r.set(field, v)
		}
		if r.Total == nil && !r.SharesHostMemory && r.Unknown["memory"] == "" {
			r.lost("memory", "nvidia-smi does not say")
		}
		if r.Unknown["mig"] != "" {
			r.Total, r.Free = nil, nil
			r.lost("memory", "the GPU is split into MIG slices, which nvidia-smi's table does not list")
		}
		gpus = append(gpus, r)
	}
	return gpus, driver, nil
}

// set takes one value of nvidia-smi's table; one that cannot be is left out.
func (r *reading) set(field, v string) {
	n, err := strconv.ParseFloat(v, 64)
	if math.IsNaN(n) {
		err = strconv.ErrSyntax
	}
	mib := func(what string) *uint64 {
		if err != nil || n < 0 || n > maxMemory>>20 {
			r.lost(what, fmt.Sprintf("nvidia-smi says %.40q", v))
			return nil
		}
		b := uint64(n) << 20
		return &b
	}
	count := func(most float64) int {
		if err != nil || n < 0 || n > most {
			return 0
		}
		return int(n)
	}
	switch field {
	case "name":
		r.Name = v
	case "uuid":
		r.UUID = v
	case "memory.total":
		r.Total = mib("memory")
	case "memory.free":
		r.Free = mib("free memory")
	case "memory.reserved":
		if b := mib("reserved memory"); b != nil {
			r.Reserved = *b
		}
	case "compute_cap":
		if c, err := hw.ParseCapability(v); err == nil {
			r.Major, r.Minor = c.Major, c.Minor
		}
	case "pcie.link.gen.max":
		r.PCIe.Gen = count(8)
	case "pcie.link.width.current":
		r.PCIe.Width = count(32)
	case "clocks.max.memory":
		r.MemoryMHz = count(100_000)
	case "power.limit":
		if err == nil && n > 0 && n < 1e5 {
			r.PowerMilliW = uint64(n * 1000)
		}
	case "display_active":
		active := v == "Enabled" || v == "Yes"
		if active || v == "Disabled" || v == "No" {
			r.Display = &active
		}
	case "driver_model.current":
		r.WDDM = v == "WDDM" || v == "MCDM"
	case "mig.mode.current":
		if v == "Enabled" {
			r.lost("mig", "split")
		}
	}
}

// smiProcesses adds the processes that compute; nvidia-smi's table has no others.
func (s Source) smiProcesses(ctx context.Context, program string, gpus []reading) {
	out, err := s.Command(ctx, program, "--query-compute-apps=gpu_uuid,pid,used_memory,process_name", "--format=csv,noheader,nounits")
	if err != nil {
		return
	}
	for line := range strings.SplitSeq(string(out), "\n") {
		f := strings.SplitN(strings.TrimSpace(line), ", ", 4)
		if len(f) != 4 {
			continue
		}
		pid, err := strconv.Atoi(f[1])
		if err != nil {
			continue
		}
		p := hw.Process{PID: pid, Name: f[3][:min(len(f[3]), maxName)]}
		if strings.HasPrefix(p.Name, "[") { // [Insufficient Permissions], [N/A]
			p.Name = ""
		}
		if mib, err := strconv.ParseUint(f[2], 10, 64); err == nil && mib <= maxMemory>>20 {
			b := mib << 20
			p.Bytes = &b
		}
		for i := range gpus {
			if gpus[i].UUID == f[0] {
				gpus[i].Processes = append(gpus[i].Processes, p)
			}
		}
	}
}
