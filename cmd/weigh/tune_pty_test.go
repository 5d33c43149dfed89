//go:build unix

package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
	"golang.org/x/term"
)

// TestMain's process runs the program instead of the tests when this is set to
// its arguments, a line each.
const runAsProgram = "WEIGH_TEST_ARGS"

// TestProgram is the program, in a process that another test starts.
func TestProgram(t *testing.T) {
	if args, ok := os.LookupEnv(runAsProgram); ok {
		os.Exit(run(strings.Split(args, "\n"), os.Stdout, os.Stderr))
	}
}

// A terminal is a real one with the program in it: what the program writes
// is shown on a screen, which answers what it is asked.
type terminal struct {
	t   *testing.T
	pty *os.File
	tty *os.File
	cmd *exec.Cmd

	mu     sync.Mutex
	seen   bytes.Buffer
	screen *vt.Emulator // its answers apart
}

// inTerminal runs the program in a terminal of 100 columns and 34 rows.
func inTerminal(t *testing.T, args ...string) *terminal {
	t.Helper()
	return inTerminalOf(t, 100, 34, args...)
}

func inTerminalOf(t *testing.T, cols, rows int, args ...string) *terminal {
	t.Helper()
	p, tty, err := pty.Open()
	if err != nil {
		t.Skipf("no pseudo-terminal here: %v", err)
	}
	c := &terminal{t: t, pty: p, tty: tty, cmd: exec.Command(os.Args[0], "-test.run=^TestProgram$"), screen: vt.NewEmulator(cols, rows)}
	c.resize(cols, rows)
	c.cmd.Env = append(os.Environ(), runAsProgram+"="+strings.Join(args, "\n"), "TERM=xterm-256color", "NO_COLOR=1")
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = tty, tty, tty
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	answers, end := c.screen, c.screen.InputPipe().(io.Closer)
	go func() { _, _ = io.Copy(p, answers) }()
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := p.Read(b)
			c.mu.Lock()
			c.seen.Write(b[:n])
			_, _ = c.screen.Write(b[:n])
			c.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { c.cmd.Process.Kill(); tty.Close(); p.Close(); end.Close() })
	return c
}

func (c *terminal) resize(cols, rows int) {
	c.t.Helper()
	c.mu.Lock()
	c.screen.Resize(cols, rows)
	c.mu.Unlock()
	if err := pty.Setsize(c.pty, &pty.Winsize{Rows: uint16(rows), Cols: uint16(cols)}); err != nil {
		c.t.Fatal(err)
	}
}

// until waits until what is shown, on the screen or in all that was written, is
// as wanted, and returns it.
func (c *terminal) until(show func() string, want func(string) bool) string {
	c.t.Helper()
	var shown string
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if shown = show(); want(shown) {
			return shown
		}
	}
	c.t.Fatalf("the terminal shows %q", shown)
	return ""
}

// shown returns what the screen shows.
func (c *terminal) shown() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.screen.String()
}

// otherScreen reports whether the program shows the terminal's other screen.
func (c *terminal) otherScreen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.screen.IsAltScreen()
}

// see waits until the screen shows text, and returns the screen.
func (c *terminal) see(text string) string {
	c.t.Helper()
	return c.until(c.shown, func(s string) bool { return strings.Contains(s, text) })
}

// all waits until the program has ended, and returns all it ever wrote.
func (c *terminal) all() string {
	c.t.Helper()
	const end = "all of it was written"
	if _, err := c.tty.WriteString(end); err != nil {
		c.t.Fatal(err)
	}
	written := func() string {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.seen.String()
	}
	return strings.TrimSuffix(c.until(written, func(s string) bool { return strings.HasSuffix(s, end) }), end)
}

func (c *terminal) keys(s string) {
	if _, err := io.WriteString(c.pty, s); err != nil {
		c.t.Fatal(err)
	}
}

// TestTuneInATerminal drives the screen by keys, changes the terminal's size,
// and finds the terminal as it was before.
func TestTuneInATerminal(t *testing.T) {
	onMachine(t, "rx7900xtx")
	path := modelFile(t, "Llama-3.1-8B-Q4_K_M")
	for name, leave := range map[string]struct {
		keys, says string
		signal     os.Signal
	}{
		"enter prints the line": {"\r", "-c 10240 -ngl 32", nil},
		"q leaves":              {"q", "", nil},
		"ctrl-c leaves":         {"\x03", "", nil},
		"a signal leaves":       {"", "", syscall.SIGTERM},
	} {
		t.Run(name, func(t *testing.T) {
			c := inTerminal(t, "tune", path, "--gpu", "24GiB", "--host-memory", "64GiB", "-c", "8192")
			before, err := term.GetState(int(c.tty.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			if first := c.see("enter: print the line"); !c.otherScreen() || !strings.Contains(first, "-c 8192 -ngl 33") {
				t.Errorf("the first screen is %q", first)
			}
			c.keys("\x1b[C")
			c.see("-c 10240 -ngl 33")
			c.keys("\x1b[B")
			c.see("> layers on GPUs")
			c.keys("\x1b[D")
			c.see("-c 10240 -ngl 32")
			c.resize(50, 13)
			c.until(c.shown, func(s string) bool { // what it means stays in sight
				return !slices.ContainsFunc([]string{"Llama", "> layers on GPUs", "CUDA0", "fits", "-ngl 32", "↑↓ choose"}, func(text string) bool { return !strings.Contains(s, text) })
			})
			c.keys(leave.keys)
			if leave.signal != nil {
				c.cmd.Process.Signal(leave.signal)
			}
			if err := c.cmd.Wait(); err != nil {
				t.Errorf("leaving: %v", err)
			}
			last := c.all()
			if c.otherScreen() || strings.LastIndex(last, "\x1b[?25h") < strings.LastIndex(last, "\x1b[?25l") {
				t.Errorf("the other screen stays, or the cursor hidden: %q", last)
			}
			if _, after, _ := strings.Cut(last, "\x1b[?1049l"); !strings.Contains(after, leave.says) {
				t.Errorf("after leaving the terminal shows %q, want %q", after, leave.says)
			}
			after, err := term.GetState(int(c.tty.Fd()))
			if err != nil || *after != *before {
				t.Errorf("the terminal's modes are not as they were: %v", err)
			}
		})
	}
}

// TestAsksNoTerminal holds that a command writes its answer alone: a terminal
// that is asked what it is, and does not know how to answer, is waited for.
func TestAsksNoTerminal(t *testing.T) {
	c := inTerminal(t, "--version")
	if err := c.cmd.Wait(); err != nil {
		t.Error(err)
	}
	if out := c.all(); strings.ContainsRune(out, '\x1b') || !strings.HasPrefix(out, "weigh ") {
		t.Errorf("the terminal is written %q", out)
	}
}
