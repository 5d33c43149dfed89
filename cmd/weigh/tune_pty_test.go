//go:build unix

package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

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

// A terminal is a real one with the program in it.
type terminal struct {
	t    *testing.T
	pty  *os.File
	tty  *os.File
	cmd  *exec.Cmd
	mu   sync.Mutex
	seen bytes.Buffer
}

func inTerminal(t *testing.T, args ...string) *terminal {
	t.Helper()
	p, tty, err := pty.Open()
	if err != nil {
		t.Skipf("no pseudo-terminal here: %v", err)
	}
	if err := pty.Setsize(p, &pty.Winsize{Rows: 34, Cols: 100}); err != nil {
		t.Fatal(err)
	}
	c := &terminal{t: t, pty: p, tty: tty, cmd: exec.Command(os.Args[0], "-test.run=^TestProgram$")}
	c.cmd.Env = append(os.Environ(), runAsProgram+"="+strings.Join(args, "\n"), "TERM=xterm-256color", "NO_COLOR=1")
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = tty, tty, tty
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := p.Read(b)
			c.mu.Lock()
			c.seen.Write(b[:n])
			c.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { c.cmd.Process.Kill(); tty.Close(); p.Close() })
	return c
}

// expect waits until the program has written text since the last call, and
// returns what it wrote.
func (c *terminal) expect(text string) string {
	c.t.Helper()
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		c.mu.Lock()
		out := c.seen.String()
		if strings.Contains(out, text) {
			c.seen.Reset()
			c.mu.Unlock()
			return out
		}
		c.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t.Fatalf("the terminal does not show %q but %q", text, c.seen.String())
	return ""
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
			if first := c.expect("enter: print the line"); !strings.Contains(first, "\x1b[?1049h") || !strings.Contains(first, "-c 8192 -ngl 33") {
				t.Errorf("the first screen is %q", first)
			}
			c.keys("\x1b[C")
			c.expect("-c 10240 -ngl 33")
			c.keys("\x1b[B")
			c.expect("> layers on GPUs")
			c.keys("\x1b[D")
			c.expect("-c 10240 -ngl 32")
			if err := pty.Setsize(c.pty, &pty.Winsize{Rows: 20, Cols: 50}); err != nil {
				t.Fatal(err)
			}
			c.expect("↑↓ choose")
			c.keys(leave.keys)
			if leave.signal != nil {
				c.cmd.Process.Signal(leave.signal)
			}
			if err := c.cmd.Wait(); err != nil {
				t.Errorf("leaving: %v", err)
			}
			const end = "all of it was written"
			if _, err := io.WriteString(c.tty, end); err != nil {
				t.Fatal(err)
			}
			last := c.expect(end)
			if !strings.Contains(last, "\x1b[?1049l") {
				t.Errorf("the terminal's other screen stays: %q", last)
			}
			if !strings.Contains(last, "\x1b[?25h") {
				t.Errorf("the cursor stays hidden: %q", last)
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
