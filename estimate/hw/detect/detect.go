// Package detect finds the devices and the host memory of this machine: NVIDIA
// through NVML or nvidia-smi, AMD and Intel through sysfs or the registry of
// Windows, Apple through sysctl, the host through proc, control groups or the system's own calls.
//
// Whatever cannot be read is left unknown, and a Finding says why. Importing the
// package loads nothing and asks nobody.
package detect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"time"

	"weigh/estimate/hw"
)

// ProbeCommand is the hidden sub-command of the program that runs ProbeMain.
const ProbeCommand = "__probe-nvml"

// probeLimit is how long a driver may take. A cold start of NVML on a machine of
// many cards takes some seconds.
const probeLimit = 10 * time.Second

// Severities of a Finding.
const (
	OK      = "ok" // it answered
	Info    = "info"
	Warning = "warning"
	Error   = "error"
)

// A Finding is what detection has to say beside the figures: a driver that does
// not answer, a value it did not believe, a setting that changes the numbers.
type Finding struct {
	Severity string   `json:"severity"` // OK, Info, Warning or Error
	Subject  string   `json:"subject"`  // "nvidia", "amd", "intel", "apple", "host", "rpc"
	Message  string   `json:"message"`
	Tried    []string `json:"tried,omitempty"` // what was asked, and what it answered
	Hint     string   `json:"hint,omitempty"`  // what to do
}

// A Source is where detection looks. Local is this machine; tests put their own
// trees and answers in its place.
type Source struct {
	OS   string // as GOOS: which of the ways below are taken
	Root fs.FS  // proc, sys, etc, usr of a Linux system
	Env  func(string) (string, bool)

	// Probe is the command that writes NVML's answers to its standard output. It
	// runs apart because a driver can hang, and because a symbol the driver lacks
	// ends the process.
	Probe []string
	// Command runs a program and returns its standard output.
	Command func(ctx context.Context, name string, args ...string) ([]byte, error)
	// Limit is how long a driver may take; 0 means 10 seconds.
	Limit time.Duration

	Sysctl   func(name string) (string, error) // of macOS
	Adapters func() ([]adapter, error)         // of Windows
	Native   func() (hw.Host, error)           // the host, where there is no proc
	Disk     func() (uint64, error)            // bytes free in the current folder
}

// Local is the machine the program runs on. A directory named by the
// environment variable WEIGH_SYSROOT, with proc and sys in it, takes the place of
// the root of the file system; the disk of that machine is unknown.
func Local() Source {
	s := Source{OS: runtime.GOOS, Root: os.DirFS("/"), Env: os.LookupEnv, Command: runCommand, Sysctl: sysctl, Adapters: adapters, Native: nativeHost, Disk: diskFree}
	if dir := os.Getenv("WEIGH_SYSROOT"); dir != "" {
		s.OS, s.Root, s.Disk = "linux", os.DirFS(dir), nil
	}
	probing := len(os.Args) > 1 && os.Args[1] == ProbeCommand // a program that does not know the command must not start itself again
	if self, err := os.Executable(); err == nil && !probing {
		s.Probe = []string{self, ProbeCommand}
	}
	return s
}

// Machine detects this machine.
func Machine(ctx context.Context) (hw.Machine, []Finding) { return Local().Machine(ctx) }

// Host detects the host alone, and asks no driver: for devices that the user
// names.
func Host() (hw.Host, []Finding) { return Local().host() }

// Machine detects the machine that s shows. It returns what it could read and
// never an error: the findings say what it could not.
func (s Source) Machine(ctx context.Context) (hw.Machine, []Finding) {
	cards := make(chan nvidiaReport, 1)
	if s.OS == "linux" || s.OS == "windows" {
		go func() { cards <- s.nvidia(ctx) }()
	} else {
		cards <- nvidiaReport{}
	}
	var m hw.Machine
	var findings []Finding
	add := func(devices []hw.Device, found []Finding) {
		m.Devices = append(m.Devices, devices...)
		findings = append(findings, found...)
	}
	var found []Finding
	m.Host, found = s.host()
	add(nil, found)

	report := <-cards
	add(report.devices(s, m.Host))
	switch s.OS {
	case "linux":
		if len(report.GPUs) == 0 {
			add(s.jetson(m.Host), nil)
		}
		add(s.amd(m.Host))
		add(s.intel(m.Host))
	case "darwin":
		add(s.apple())
	case "windows":
		add(s.windows(m.Host))
	}
	for i := range m.Devices {
		m.Devices[i].Index = i
		slices.SortFunc(m.Devices[i].UsedBy, func(a, b hw.Process) int {
			return cmp.Or(cmp.Compare(value(b.Bytes), value(a.Bytes)), cmp.Compare(a.PID, b.PID))
		})
	}
	return m, findings
}

// value returns *p, or 0.
func value(p *uint64) uint64 {
	if p == nil {
		return 0
	}
	return *p
}

// maxOutput bounds what a program may write: the probe's report of a machine full
// of cards and processes is far smaller.
const maxOutput = 32 << 20

// errOutput says that a program writes without end.
var errOutput = fmt.Errorf("it wrote more than %d MiB", maxOutput>>20)

// A bounded writer keeps what a program writes, and refuses what is too much,
// which ends the program.
type bounded struct {
	kept []byte
	left int
	full bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.left {
		b.full = true
		return 0, errOutput
	}
	b.left -= len(p)
	b.kept = append(b.kept, p...)
	return len(p), nil
}

// runCommand runs a program and returns what it writes. It comes back when ctx
// ends, even if the program cannot be killed because its driver hangs.
func runCommand(ctx context.Context, name string, args ...string) ([]byte, error) {
	type result struct {
		out []byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.WaitDelay = time.Second
		out, trouble := bounded{left: maxOutput}, bounded{left: maxText}
		cmd.Stdout, cmd.Stderr = &out, &trouble
		err := cmd.Run()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			exit.Stderr = trouble.kept
		}
		if out.full || trouble.full {
			err = errOutput // and not that its pipe was closed on it
		}
		done <- result{out.kept, err}
	}()
	select {
	case r := <-done:
		return r.out, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
