// Weigh weighs a model file before it is loaded: what it is, what it needs,
// whether it fits, and what to run.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"weigh/cmd/weigh/internal/render"
	"weigh/estimate/hw/detect"
)

// Exit codes, as documented in the help text.
const (
	exitOK    = 0
	exitNo    = 1 // the question was answered, and the answer is no
	exitError = 2 // the question could not be answered
)

// errNo is a command's answer when it is no; what there is to say has been said.
var errNo = errors.New("no")

// softLimit is the memory, in bytes, above which the collector runs more often
// instead of letting the heap grow to twice what is held.
const softLimit = 32 << 20

func main() {
	limitMemory(softLimit)
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// limitMemory sets the soft limit, unless the user has, and keeps it above what is
// held: a collector that cannot get below its limit would run all the time.
// Commands that hold many models lift it: what they hold is worth more than the
// collector's time.
func limitMemory(n int64) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	debug.SetMemoryLimit(n)
	if n != softLimit {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	var atNextCollection func()
	atNextCollection = func() {
		runtime.SetFinalizer(new([16]byte), func(*[16]byte) {
			metrics.Read(live)
			if held := int64(live[0].Value.Uint64()); debug.SetMemoryLimit(-1) < math.MaxInt64 {
				debug.SetMemoryLimit(max(softLimit, held+max(held/4, softLimit/5)))
			}
			atNextCollection()
		})
	}
	atNextCollection()
}

// run is main without the process: it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 1 && args[0] == detect.ProbeCommand {
		if err := detect.ProbeMain(stdout); err != nil {
			return exitError
		}
		return exitOK
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	root := newRootCmd()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	addBashWords(root)
	err := untilStuck(ctx, grace, root.ExecuteContext)
	switch {
	case err == nil, errors.Is(err, syscall.EPIPE):
		return exitOK
	case errors.Is(err, errNo), errors.Is(err, errUnwell):
		return exitNo
	}
	fmt.Fprintf(stderr, "weigh: error: %s\n", render.Text(err.Error()))
	if hint := hintFor(err); hint != "" {
		fmt.Fprintf(stderr, "weigh: hint: %s\n", render.Text(hint))
	}
	return exitError
}

// grace is how long a command may take to end after a signal: weigh serve
// finishes what it is answering.
const grace = 4 * time.Second

// errStuck is the error for a command that does not end with its context.
var errStuck = errors.New("interrupted, while a file, a driver or a server did not answer")

// untilStuck runs f and leaves it behind when it does not end soon after ctx has:
// a read of a file, such as /proc/kmsg, can wait for ever, and nothing ends it.
func untilStuck(ctx context.Context, grace time.Duration, f func(context.Context) error) error {
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(grace):
		return errStuck
	}
}

// newRootCmd returns the command with all its sub-commands.
func newRootCmd() *cobra.Command {
	root := newPreflightCmd()
	root.AddCommand(newInspectCmd(), newEstimateCmd(), newGPUsCmd(), newDoctorCmd(), newDemoCmd())
	root.AddCommand(commands()...)
	root.Version = version()
	root.SetVersionTemplate("weigh {{.Version}}\n")
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.HiddenDefaultCmd = true
	addCompletion(root)
	addWide(root)
	for _, cmd := range root.Commands() {
		if !slices.Contains([]string{"completion", "man", "serve", "tune"}, cmd.Name()) {
			addWide(cmd)
		}
	}
	return root
}

// addWide adds the flag that keeps what a command prints from being fitted to
// the terminal.
func addWide(cmd *cobra.Command) {
	cmd.Flags().BoolFunc("wide", "nothing is cut or broken to fit the terminal", func(s string) error {
		wide, err := strconv.ParseBool(s)
		if wide {
			cmd.SetOut(render.Wide{Writer: cmd.OutOrStdout()})
		}
		return err
	})
}

// version returns the module's version, or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" || v == "(devel)" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return "devel-" + s.Value[:min(12, len(s.Value))]
			}
		}
		return "devel"
	}
	return strings.TrimPrefix(v, "v")
}
