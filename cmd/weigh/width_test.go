//go:build unix

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"weigh/cmd/weigh/internal/render"
	"weigh/fixtures"
)

// wideTable are commands whose tables want more than 60 columns.
var wideTable = map[string]bool{"quants": true, "rules": true, "train": true, "table": true, "diff": true, "inspect": true, "doctor": true, "estimate": true, "plan": true, "gpus": true}

// toCopy are lines that are copied: they are as long as they are.
var toCopy = regexp.MustCompile(`llama-server -m|llama-quantize |vllm serve|convert_hf_to_gguf`)

// shown returns what the program writes on a terminal of cols columns.
func shown(t *testing.T, cols int, args ...string) string {
	t.Helper()
	c := inTerminalOf(t, cols, 50, args...)
	_ = c.cmd.Wait() // the answer may be no
	out := strings.ReplaceAll(c.all(), "\r\n", "\n")
	if i := strings.LastIndexByte(out, '\r'); i >= 0 {
		out = out[i+1:] // the progress before it
	}
	return out
}

// TestFitsTheTerminal holds that what people read is as wide as their terminal,
// and whole with --wide.
func TestFitsTheTerminal(t *testing.T) {
	if testing.Short() {
		t.Skip("nothing here happens at once")
	}
	onMachine(t, "rx7900xtx")
	dir := t.TempDir()
	t.Chdir(dir)
	for _, name := range []string{"Qwen3-30B-A3B-Q4_K_M", "Llama-3.1-8B-Q4_K_M", "BERT-base-F16"} {
		if err := fixtures.Model(name).WriteSparse(name + ".gguf"); err != nil {
			t.Fatal(err)
		}
	}
	long := filepath.Join("a folder with a long name", "and another below it of the same kind", "Qwen3-8B-模型-"+strings.Repeat("x", 40)+"-Q4_K_M.gguf")
	if err := os.MkdirAll(filepath.Dir(long), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := fixtures.Model("Qwen3-8B-Q4_K_M").WriteSparse(long); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("broken-with-a-name-of-some-length.gguf", []byte("no model, but something else"), 0o644); err != nil {
		t.Fatal(err)
	}
	const model = "Qwen3-30B-A3B-Q4_K_M.gguf"
	hardware := []string{"--gpu", "GeForce RTX 3060", "--gpu", "RTX 6000 Ada Generation", "--host-memory", "64GiB"}
	for _, args := range [][]string{
		append([]string{model}, hardware...),
		{model, "--gpu", "2GiB", "--host-memory", "8GiB"},
		append([]string{"estimate", model, "-ngl", "20", "--explain"}, hardware...),
		append([]string{"plan", model, "--explain"}, hardware...),
		append([]string{"quants", model}, hardware...),
		append([]string{"rules", model}, hardware...),
		append([]string{"train", model}, hardware...),
		append([]string{"scan", dir}, hardware...),
		{"table", model, "Llama-3.1-8B-Q4_K_M.gguf", "--gpu", "GeForce RTX 3060", "--gpu", "RTX 6000 Ada Generation"},
		{"table", model, "--gpu", "RTX 3060", "--by", "layers"},
		{"inspect", model, "--layers"},
		{"inspect", model, "--tensors"},
		{"inspect", model, "--metadata"},
		{"inspect", model, "--tokenizer"},
		{"diff", model, "Llama-3.1-8B-Q4_K_M.gguf"},
		{"gpus"},
		{"gpus", "--catalog"},
		{"doctor"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			for _, cols := range []int{80, 60} {
				out := shown(t, cols, args...)
				if strings.Count(out, "\n") < 2 {
					t.Fatalf("it says %q", out)
				}
				for line := range strings.Lines(out) {
					line = strings.TrimSuffix(line, "\n")
					if n := render.Width(line); n > cols && !toCopy.MatchString(line) && (cols == 80 || !wideTable[args[0]]) {
						t.Errorf("%d columns on a terminal of %d: %s", n, cols, line)
					}
				}
			}
			if out := shown(t, 60, append(args, "--wide")...); strings.ContainsRune(out, '…') {
				t.Errorf("--wide cuts: %s", out)
			}
		})
	}
}

func TestNarrow(t *testing.T) {
	rows := [][]string{
		{"name", "architecture", "weights", "size", "type", "files", "with", "tok/s", "here"},
		{"lmstudio:unsloth/Qwen3-30B-A3B-GGUF/Qwen3-30B-A3B-Q4_K_M", "qwen3moe", "30.5 B", "17.3 GiB", "Q4_K_M", "", "", "41", "partial"},
		{"/models/Llama-3.1-8B-Q4_K_M.gguf", "llama", "8.03 B", "4.58 GiB", "Q4_K_M", "", "", "120", "fits"},
	}
	for cols, want := range map[int]string{
		0:   "name|architecture|weights|size|type|files|with|tok/s|here",
		120: "name|architecture|weights|size|type|tok/s|here",
		80:  "name|architecture|size|type|tok/s|here",
		60:  "name|size|type|tok/s|here",
	} {
		cut, right := narrow(rows, cols, []int{5, 6, 2, 1, 7, 4}, 2, 3, 5, 7)
		if got := strings.Join(cut[0], "|"); got != want {
			t.Errorf("%d columns: %s, want %s", cols, got, want)
		}
		for _, i := range right {
			if h := cut[0][i]; h != "weights" && h != "size" && h != "files" && h != "tok/s" {
				t.Errorf("%d columns: %s is set to the right", cols, h)
			}
		}
	}
	for width, want := range map[int]string{80: "lmstudio:unsloth/Qwen3-30B-A3B-GGUF/Qwen3-30B-A3B-Q4_K_M", 32: "lmstudio:…Qwen3-30B-A3B-Q4_K_M"} {
		got := tail(rows[1][0], width)
		if render.Width(got) > width || got != want && !strings.HasPrefix(got, "lmstudio:…") {
			t.Errorf("%d columns: %s", width, got)
		}
		if width == 80 && got != want {
			t.Errorf("%d columns: %s, want %s", width, got, want)
		}
	}
}
