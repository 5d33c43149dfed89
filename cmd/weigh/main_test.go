package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weigh/fixtures"
	"weigh/fixtures/sysfs"
)

// onMachine lets the program run on a machine of the fixtures.
func onMachine(t *testing.T, name string) {
	t.Helper()
	tree, err := sysfs.Tree(name)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, tree); err != nil {
		t.Fatal(err)
	}
	t.Setenv("WEIGH_SYSROOT", dir)
	t.Setenv("XDG_CONFIG_HOME", t.TempDir()) // llama.cpp's configuration files would count
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "LLAMA_ARG_") {
			t.Setenv(name, "")
		}
	}
}

func TestScreens(t *testing.T) {
	for name, tt := range map[string]struct {
		model string
		args  []string
		code  int
	}{
		"a model that fits a card":                      {"Llama-3.1-8B-Q4_K_M", []string{"MODEL", "--gpu", "RTX 4090", "--host-memory", "64GiB"}, 0},
		"a model that fits two cards":                   {"Llama-3.1-8B-Q8_0", []string{"MODEL", "--gpu", "2x8GiB", "--host-memory", "64GiB", "-c", "8192"}, 0},
		"experts that overflow to the host":             {"Qwen3-30B-A3B-Q4_K_M", []string{"MODEL", "--gpu", "RTX 3060 12GB", "--host-memory", "64GiB", "-c", "16384"}, 0},
		"a model that nothing here holds":               {"DeepSeek-R1-671B-Q4_K_M", []string{"MODEL", "--gpu", "24GiB", "--host-memory", "64GiB"}, 1},
		"the machine's own card":                        {"Llama-3.2-1B-Q4_K_M", []string{"MODEL", "-c", "4096"}, 0},
		"flags of the server are kept":                  {"Llama-3.1-8B-Q4_K_M", []string{"llama-server", "-m", "MODEL", "--temp", "0.7", "--gpu", "6GiB", "--host-memory", "32GiB", "-ctk", "q8_0", "-ctv", "q8_0", "-fa", "on", "--port", "8081"}, 0},
		"estimate takes settings as they are":           {"Llama-3.1-8B-Q4_K_M", []string{"estimate", "MODEL", "-ngl", "20", "-c", "8192", "-np", "1", "--gpu", "24GiB", "--host-memory", "64GiB"}, 0},
		"estimate takes a figure apart":                 {"Llama-3.2-1B-Q4_K_M", []string{"estimate", "MODEL", "-ngl", "99", "-c", "4096", "--gpu", "24GiB", "--host-memory", "64GiB", "--explain"}, 0},
		"inspect names what is in the file":             {"Qwen3-30B-A3B-Q4_K_M", []string{"inspect", "MODEL"}, 0},
		"inspect lists layers of two kinds":             {"Qwen3.5-27B-Q4_K_M", []string{"inspect", "MODEL", "--layers"}, 0},
		"inspect shows metadata, counting the arrays":   {"Qwen2.5-0.5B-Q8_0", []string{"inspect", "MODEL", "--metadata"}, 0},
		"a line that fits where the server's would not": {"Llama-3.1-8B-Q4_K_M", []string{"MODEL", "--gpu", "none", "--host-memory", "16GiB"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			onMachine(t, "rx7900xtx")
			path := modelFile(t, tt.model)
			for i, a := range tt.args {
				if a == "MODEL" {
					tt.args[i] = path
				}
			}
			out, trouble, code := weigh(t, tt.args...)
			if code != tt.code || trouble != "" {
				t.Errorf("exit code %d, want %d; stderr %q", code, tt.code, trouble)
			}
			golden(t, "screens/"+strings.ReplaceAll(name, " ", "-"), []byte(strings.ReplaceAll(out, filepath.Dir(path)+string(filepath.Separator), "")))
		})
	}
}

// TestEstimateAddsUp holds what the contract says of the document, on models of
// different kinds.
func TestEstimateAddsUp(t *testing.T) {
	onMachine(t, "rx7900xtx")
	for _, name := range []string{"Llama-3.1-8B-Q4_K_M", "Gemma-3-4B-Q4_K_M", "Qwen3.5-27B-Q4_K_M", "DeepSeek-V2-Lite-Q4_K_M", "Qwen3-30B-A3B-Q4_K_M"} {
		t.Run(name, func(t *testing.T) {
			path := modelFile(t, name)
			out, trouble, code := weigh(t, "estimate", path, "--json", "-ngl", "9", "-c", "4096", "--gpu", "16GiB", "--gpu", "RTX 3060 12GB", "--host-memory", "128GiB")
			if code != 0 {
				t.Fatalf("exit code %d: %s", code, trouble)
			}
			var d estimateDocument
			if err := json.Unmarshal([]byte(out), &d); err != nil {
				t.Fatal(err)
			}
			if d.Schema != 1 || len(d.Devices) != 2 || d.Engine.Backend != "cuda" || d.Settings.NCtx != 4096 || d.Settings.NGPULayers != 9 {
				t.Errorf("schema %d, %d devices, backend %q, context %d, %d layers on GPUs", d.Schema, len(d.Devices), d.Engine.Backend, d.Settings.NCtx, d.Settings.NGPULayers)
			}
			for _, m := range append(d.Devices, d.Host) {
				if m.Total != m.Model+m.Context+m.Compute+m.Overhead {
					t.Errorf("%s: total %d is not the sum of its parts", m.Name, m.Total)
				}
				parts := map[string]uint64{}
				for _, term := range m.Terms {
					parts[term.Part] += term.Bytes
				}
				for part, want := range map[string]uint64{"model": m.Model, "context": m.Context, "compute": m.Compute, "overhead": m.Overhead} {
					if parts[part] != want {
						t.Errorf("%s: the terms of %s add up to %d, want %d", m.Name, part, parts[part], want)
					}
				}
			}
			for _, part := range []string{"model", "context", "compute", "overhead"} {
				if b := d.Basis[part]; b != "exact" && b != "derived" && b != "modelled" {
					t.Errorf("basis of %s is %q", part, b)
				}
			}
		})
	}
}

// TestIntegratedDevices holds what llama.cpp takes of a machine with integrated
// graphics, and that memory set aside for them is not asked of the host.
func TestIntegratedDevices(t *testing.T) {
	tests := map[string]struct {
		machine, model string
		flags          []string
		devices        []string
		note           string
	}{
		"beside a card they are left out":                 {"ryzen-desktop", "Qwen3-8B-Q4_K_M", nil, []string{"AMD Radeon RX 7900 XTX"}, "AMD Radeon Graphics is left out"},
		"they are taken when named":                       {"ryzen-desktop", "Qwen3-8B-Q4_K_M", []string{"-dev", "ROCm1"}, []string{"AMD Radeon Graphics"}, ""},
		"they are taken where there is nothing else":      {"intel-igpu", "Qwen3-8B-Q4_K_M", nil, []string{"Intel Iris Xe Graphics"}, ""},
		"a model larger than the host fits in their part": {"strix-halo", "Qwen3-Next-80B-A3B-Q4_K_M", nil, []string{"AMD Radeon 8060S Graphics"}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			onMachine(t, tt.machine)
			out, trouble, code := weigh(t, append([]string{"estimate", modelFile(t, tt.model), "--json", "-c", "4096", "-cram", "0"}, tt.flags...)...)
			if code != 0 {
				t.Errorf("exit code %d: %s", code, trouble)
			}
			var d estimateDocument
			if err := json.Unmarshal([]byte(out), &d); err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, device := range d.Devices {
				names = append(names, device.Description)
			}
			if !slices.Equal(names, tt.devices) || !d.Fits {
				t.Errorf("devices are %q, fits %v; want %q, which fit", names, d.Fits, tt.devices)
			}
			if notes := strings.Join(d.Notes, "; "); strings.Contains(notes, "is left out") != (tt.note != "") || !strings.Contains(notes, tt.note) {
				t.Errorf("notes are %q, want %q", notes, tt.note)
			}
		})
	}
}

// TestBadInput holds that what cannot be read is said in one line, with exit
// code 2.
func TestBadInput(t *testing.T) {
	onMachine(t, "rx7900xtx")
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	whole := fixtures.Model("Llama-3.2-1B-Q4_K_M").Bytes()
	model := modelFile(t, "Llama-3.2-1B-Q4_K_M")
	for name, tt := range map[string]struct {
		args []string
		says string
		hint string
	}{
		"nothing there":                {[]string{filepath.Join(dir, "none.gguf")}, "no such file", "check the path"},
		"a header cut short":           {[]string{write("cut.gguf", whole[:900])}, "cut.gguf: gguf: ", ""},
		"a file without its weights":   {[]string{write("short.gguf", whole)}, "bytes short", "the download stopped early"},
		"not a model":                  {[]string{write("text.gguf", []byte("hello, I am no model at all"))}, "magic at byte 0", ""},
		"an empty file":                {[]string{write("empty.gguf", nil)}, "empty.gguf: ", ""},
		"a pointer of Git LFS":         {[]string{write("lfs.gguf", []byte("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"))}, "12345 bytes", "git lfs pull"},
		"a pickle":                     {[]string{write("pytorch_model.bin", []byte("\x80\x02}q\x00."))}, "pickle", "convert"},
		"a folder without a model":     {[]string{filepath.Dir(write("empty/README", []byte("x")))}, "no model here", ""},
		"a config without weights":     {[]string{filepath.Dir(write("bare/config.json", []byte(`{"architectures":["XverseForCausalLM"],"model_type":"xverse","hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,"intermediate_size":128,"vocab_size":100,"max_position_embeddings":128,"rms_norm_eps":1e-5}`)))}, "no weights", ""},
		"a device":                     {[]string{os.DevNull}, "neither a file nor a folder", ""},
		"an unknown flag":              {[]string{model, "--ctx-sizes", "3"}, `unknown flag "--ctx-sizes": did you mean --ctx-size?`, "--help"},
		"a flag without its value":     {[]string{model, "-c"}, "-c wants N after it", ""},
		"a value out of range":         {[]string{model, "-c", "-7"}, "-c -7: want a whole number", ""},
		"two models":                   {[]string{model, "-m", "other.gguf"}, "two models are given", ""},
		"no model":                     {[]string{"estimate"}, "no model is named", "weigh scan"},
		"no model to inspect":          {[]string{"inspect"}, "no model is named", "weigh scan"},
		"one model to compare":         {[]string{"diff", "a"}, "want 2 models, not 1", ""},
		"a sub-command mistyped":       {[]string{"insepct", "m.gguf"}, "is weigh inspect meant?", ""},
		"an unknown card":              {[]string{model, "--gpu", "RTX 9999"}, "RTX 9999", "--catalog"},
		"a control sequence in a name": {[]string{filepath.Join(dir, "\x1b[2Jevil.gguf")}, "evil.gguf", ""},
	} {
		t.Run(name, func(t *testing.T) {
			out, trouble, code := weigh(t, tt.args...)
			if code != 2 || out != "" {
				t.Errorf("exit code %d, stdout %q", code, out)
			}
			lines := strings.Split(strings.TrimRight(trouble, "\n"), "\n")
			if !strings.HasPrefix(lines[0], "weigh: error: ") || !strings.Contains(lines[0], tt.says) {
				t.Errorf("stderr %q does not say %q", trouble, tt.says)
			}
			if tt.hint != "" && (len(lines) < 2 || !strings.HasPrefix(lines[1], "weigh: hint: ") || !strings.Contains(lines[1], tt.hint)) {
				t.Errorf("stderr %q does not hint at %q", trouble, tt.hint)
			}
			if len(lines) > 2 || strings.ContainsRune(trouble, '\x1b') {
				t.Errorf("stderr %q is more than an error and a hint", trouble)
			}
		})
	}
}

func TestVersionAndHelp(t *testing.T) {
	if out, _, code := weigh(t, "--version"); code != 0 || !strings.HasPrefix(out, "weigh ") {
		t.Errorf("--version: exit code %d, %q", code, out)
	}
	for _, args := range [][]string{{}, {"--help"}, {"estimate", "--help"}, {"inspect", "--help"}} {
		if out, trouble, code := weigh(t, args...); code != 0 || !strings.Contains(out, "Usage:") || trouble != "" {
			t.Errorf("weigh %v: exit code %d, stderr %q", args, code, trouble)
		}
	}
	out, _, _ := weigh(t, "estimate", "--help")
	for _, flag := range []string{"-ctk, --cache-type-k", "-ncmoe, --n-cpu-moe", "--gpu", "--n-outputs-max"} {
		if !strings.Contains(out, flag) {
			t.Errorf("the help does not name %s", flag)
		}
	}
}

// A command ends with its context, even one that waits for what does not come.
func TestUntilStuck(t *testing.T) {
	failed := errors.New("failed")
	for name, tt := range map[string]struct {
		f    func(context.Context) error
		want error
	}{
		"one that ends by itself": {func(context.Context) error { return failed }, failed},
		"one that hears":          {func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, context.Canceled},
		"one that does not hear":  {func(context.Context) error { select {} }, errStuck},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(50*time.Millisecond, cancel)
			if err := untilStuck(ctx, 200*time.Millisecond, tt.f); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}
