// The program bench runs `weigh inspect` as a process beside others that read
// the same files and prints their time and memory as a table, for
// docs/BENCHMARKS.md. It needs the source tree and a Go compiler; the program
// in JavaScript is left out, with a notice, where node and npm are not.
package main

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

//go:embed huggingface
var huggingface embed.FS

func main() {
	runs := flag.Int("n", 20, "runs of each program, in turn")
	write := flag.String("write", "", "write the files to this folder and do nothing else")
	flag.Parse()
	err := writeFiles(*write)
	if *write == "" {
		err = bench(*runs)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A program is one that reads model files.
type program struct {
	name string
	args []string // before the file's name
	runs []run
}

// A run is what one process took.
type run struct {
	wall, cpu time.Duration
	rss       uint64 // bytes; 0 where the system does not say
}

func bench(n int) error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// A process of its own, because on Linux a child's peak memory begins with
	// what its parent held.
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := execute(dir, self, "-write", dir); err != nil {
		return err
	}
	weigh, peer := filepath.Join(dir, "weigh.exe"), filepath.Join(dir, "ggufparser.exe")
	for out, pkg := range map[string]string{weigh: "weigh/cmd/weigh", peer: "weigh/cmd/bench/ggufparser"} {
		if err := execute("", "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg); err != nil {
			return err
		}
	}
	ours := func() *program { return &program{name: "weigh inspect", args: []string{weigh, "inspect"}} }
	gguf := []*program{ours(), {name: "gguf-parser-go", args: []string{peer}}}
	if node, err := installNode(dir); err != nil {
		fmt.Fprintln(os.Stderr, "bench: without @huggingface/gguf:", err)
	} else {
		gguf = append(gguf, &program{name: "@huggingface/gguf", args: []string{node, filepath.Join(dir, "huggingface", "main.mjs")}})
	}
	fmt.Printf("%s/%s, %d processors, %d runs of each in turn; best and median.\n\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), n)
	fmt.Println("| file | program | wall ms | CPU ms | memory MiB | CPU, times ours |\n|---|---|---|---|---|---|")
	for _, c := range []struct {
		file     string
		programs []*program
	}{{largeGGUF, gguf}, {manyTensors, []*program{ours()}}, {manyShards, []*program{ours()}}} {
		if err := compare(filepath.Join(dir, c.file), c.programs, n); err != nil {
			return err
		}
		for _, p := range c.programs {
			p.print(c.file, c.programs[0])
		}
	}
	return nil
}

// compare runs the programs in turn, n times, after one run that fills the
// page cache.
func compare(file string, programs []*program, n int) error {
	for i := range n + 1 {
		for _, p := range programs {
			var stderr bytes.Buffer
			cmd := exec.Command(p.args[0], append(slices.Clone(p.args[1:]), file)...)
			cmd.Stderr = &stderr
			start := time.Now()
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("%s: %w: %s", p.name, err, stderr.Bytes())
			}
			if s := cmd.ProcessState; i > 0 {
				p.runs = append(p.runs, run{time.Since(start), s.UserTime() + s.SystemTime(), peak(s)})
			}
		}
	}
	return nil
}

func (p *program) print(file string, ours *program) {
	best, median := spread(p.runs, func(r run) time.Duration { return r.wall })
	cpu, cpuMedian := spread(p.runs, func(r run) time.Duration { return r.cpu })
	_, our := spread(ours.runs, func(r run) time.Duration { return r.cpu })
	_, rss := spread(p.runs, func(r run) uint64 { return r.rss })
	fmt.Printf("| %s | %s | %.1f / %.1f | %.1f / %.1f | %.1f | %.1f |\n", file, p.name, ms(best), ms(median), ms(cpu), ms(cpuMedian),
		float64(rss)/(1<<20), float64(cpuMedian)/float64(our))
}

// spread returns the least and the middle figure.
func spread[T cmp.Ordered](runs []run, of func(run) T) (best, median T) {
	var list []T
	for _, r := range runs {
		list = append(list, of(r))
	}
	slices.Sort(list)
	return list[0], list[len(list)/2]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// installNode installs what the program in JavaScript needs and returns node.
func installNode(dir string) (node string, err error) {
	node, err = exec.LookPath("node")
	if err == nil {
		_, err = exec.LookPath("npm")
	}
	if err != nil {
		return "", err
	}
	names, err := fs.Glob(huggingface, "huggingface/*")
	err = errors.Join(err, os.Mkdir(filepath.Join(dir, "huggingface"), 0o755))
	for _, name := range names {
		b, rerr := huggingface.ReadFile(name)
		err = errors.Join(err, rerr, os.WriteFile(filepath.Join(dir, filepath.FromSlash(name)), b, 0o644))
	}
	if err != nil {
		return "", err
	}
	return node, execute(filepath.Join(dir, "huggingface"), "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
}

// execute runs a command whose output is only wanted when it fails.
func execute(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w\n%s", name, args, err, out)
	}
	return nil
}
