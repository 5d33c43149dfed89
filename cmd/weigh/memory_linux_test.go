package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"weigh/fixtures"
	"weigh/formats"
)

// maxResident is what SECURITY.md promises: the memory of the whole process for
// any file with up to 100 MB of header.
const maxResident = 64 << 20

// measureEnv makes of the test a program that runs its arguments and then writes
// the most memory that they took. A process starts with the figure of the one
// that starts it, and that of the tests is too large.
const measureEnv = "WEIGH_TEST_MEASURE"

func init() {
	if os.Getenv(measureEnv) == "" {
		return
	}
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stderr = os.Stderr
	err := cmd.Run()
	fmt.Printf("\n%d\n", cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss<<10)
	if err != nil {
		os.Exit(cmd.ProcessState.ExitCode())
	}
	os.Exit(0)
}

// TestMemoryOfHostileHeaders runs the program itself on headers that describe as
// much as they can.
func TestMemoryOfHostileHeaders(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program and writes hundreds of megabytes")
	}
	dir := t.TempDir()
	weigh := filepath.Join(dir, "weigh")
	if out, err := exec.Command("go", "build", "-o", weigh, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const header = 96_000_000 // bytes
	repeat := func(what string) func(w io.Writer) {
		return func(w io.Writer) {
			for n := 0; n < header; n += len(what) {
				io.WriteString(w, what)
			}
		}
	}
	// entries writes members of a JSON object until the header is full.
	entries := func(most int, entry func(i int) string) func(w io.Writer) {
		return func(w io.Writer) {
			io.WriteString(w, "{")
			sep := ""
			for i, n := 0, 0; i < most && n < header-1000; i++ {
				e := entry(i)
				n += len(e) + 1
				io.WriteString(w, sep+e)
				sep = ","
			}
			io.WriteString(w, "}")
		}
	}
	between := func(before string, write func(w io.Writer), after string) func(w io.Writer) {
		return func(w io.Writer) {
			io.WriteString(w, before)
			write(w)
			io.WriteString(w, after)
		}
	}
	experts := func(i int) string {
		return fmt.Sprintf(`"model.layers.%d.mlp.experts.%d.w%d.weight":{"dtype":"BF16","shape":[16,16],"data_offsets":[%d,%d]}`, i/384, i/3%128, i%3, 512*i, 512*i+512)
	}
	safetensors := map[string]func(w io.Writer){
		"a hundred thousand tensors": entries(100_000, experts),
		"as many tensors as can be":  entries(header, experts),
		"tensors of short names": entries(header, func(i int) string {
			return fmt.Sprintf(`"%x":{"dtype":"U8","shape":[],"data_offsets":[%d,%d]}`, i, i, i+1)
		}),
		"shapes that all differ": entries(header, func(i int) string {
			return fmt.Sprintf(`"%d":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1,1,%d],"data_offsets":[%d,%d]}`, i, i, i, i+i)
		}),
		"faults in every tensor": entries(header, func(i int) string { return fmt.Sprintf(`"%d":{"dtype":"X","shape":[-1],"data_offsets":1}`, i) }),
		"metadata":               between(`{"__metadata__":`, entries(header, func(i int) string { return fmt.Sprintf(`"%d":""`, i) }), "}"),
		"one value":              between(`{"__metadata__":{"a":"`, repeat("x"), `"}}`),
		"escapes":                between(`{"__metadata__":{"a":"`, repeat(`\u00e4`), `"}}`),
		"one name":               between(`{"`, repeat("x"), `":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}`),
		"one shape":              between(`{"a":{"dtype":"U8","shape":[1`, repeat(",1"), `],"data_offsets":[0,1]}}`),
		"white space":            between("{", repeat(" "), "}"),
		"brackets":               between(`{"a":`, repeat("["), "}"),
	}
	plain := fixtures.Model("Llama-3.1-8B-Q4_K_M")
	ggufs := map[string]*fixtures.GGUF{}
	for name, build := range map[string]func(g *fixtures.GGUF){
		"as many tensors as can be": func(g *fixtures.GGUF) {
			for i := len(g.Tensors); i < 1<<16; i++ {
				g.Add(fmt.Sprintf("blk.%d.surplus%d.weight", i%32, i), formats.F32, 32)
			}
		},
		"tensors of layers that are not there": func(g *fixtures.GGUF) {
			for i := len(g.Tensors); i < 1<<16; i++ {
				g.Add(fmt.Sprintf("blk.%d.attn_q.weight", i), formats.F32, 32, 32)
			}
		},
		"faults in every tensor": func(g *fixtures.GGUF) {
			for i := len(g.Tensors); i < 1<<16; i++ {
				g.Add(fmt.Sprintf("blk.0.%d", i), formats.DType(200), 31, 1<<62, 1<<62)
			}
		},
		"as many keys as can be": func(g *fixtures.GGUF) {
			for i := len(g.KVs); i < 1<<16; i++ {
				g.KVs = append(g.KVs, fixtures.KV{Key: fmt.Sprintf("%d.%s", i, strings.Repeat("k", 100)), Value: uint32(i)})
			}
		},
		"a long template":     func(g *fixtures.GGUF) { g.Set("tokenizer.chat_template", strings.Repeat("{{", header/2)) },
		"values by the layer": func(g *fixtures.GGUF) { g.Set("llama.attention.head_count_kv", make([]uint32, header/4)) },
		"empty tokens":        func(g *fixtures.GGUF) { g.Set("tokenizer.ggml.tokens", make([]string, header/8)) },
	} {
		g := *plain
		build(&g)
		ggufs[name] = &g
	}
	run := func(t *testing.T, args ...string) {
		cmd := exec.Command(os.Args[0], append([]string{weigh}, args...)...)
		cmd.Env = append(os.Environ(), measureEnv+"=1", "HOME="+dir, "GOMEMLIMIT=")
		out, err := cmd.CombinedOutput()
		at := bytes.LastIndexByte(bytes.TrimSpace(out), '\n')
		resident, nerr := strconv.ParseInt(strings.TrimSpace(string(out[at+1:])), 10, 64)
		if err != nil && cmd.ProcessState.ExitCode() > exitError || nerr != nil || bytes.Contains(out, []byte("goroutine ")) {
			t.Fatalf("weigh %s: %v\n%.2000s", args[0], err, out)
		}
		if resident > maxResident {
			t.Errorf("weigh %s took %d bytes, more than %d", args[0], resident, maxResident)
		}
	}
	all := func(t *testing.T, path string) {
		for _, args := range [][]string{{"inspect"}, {"check"}, {"plan", "--gpu", "RTX 4090"}, {"quants"}, {"inspect", "--tensors", "--metadata", "--json"}} {
			run(t, append(args, path)...)
		}
		os.Remove(path)
	}
	for name, write := range safetensors {
		t.Run("safetensors/"+name, func(t *testing.T) {
			path := filepath.Join(dir, "m.safetensors")
			if err := writeHeader(path, write); err != nil {
				t.Fatal(err)
			}
			all(t, path)
		})
	}
	for name, g := range ggufs {
		t.Run("gguf/"+name, func(t *testing.T) {
			path := filepath.Join(dir, "m.gguf")
			if err := g.WriteSparse(path); err != nil {
				t.Fatal(err)
			}
			all(t, path)
		})
	}
}

// writeHeader writes a safetensors file with the header, and a hole for data.
func writeHeader(path string, write func(w io.Writer)) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	w.Write(make([]byte, 8))
	write(w)
	if err := w.Flush(); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var length [8]byte
	binary.LittleEndian.PutUint64(length[:], uint64(info.Size()-8))
	if _, err := f.WriteAt(length[:], 0); err != nil {
		return err
	}
	return f.Truncate(info.Size() + 512*100_000)
}
