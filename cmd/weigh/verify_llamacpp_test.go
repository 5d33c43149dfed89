//go:build llamacpp

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"weigh/fixtures/llamacpp"
)

// TestLlamacppVerifies runs verify against the real llama-fit-params, with and
// without a device, and against what llama.cpp logs of a real load.
func TestLlamacppVerifies(t *testing.T) {
	dir, err := llamacpp.Dir()
	if err != nil {
		t.Fatal(err)
	}
	models := map[string]string{}
	for _, name := range []string{"llama-Q4_K_M", "qwen3moe-moe-Q4_K_M", "gemma3-Q4_K_M"} {
		models[name] = modelFile(t, name)
	}
	drivers, err := filepath.Glob("/usr/share/vulkan/icd.d/lvp_icd*.json")
	if err != nil || len(drivers) == 0 {
		t.Fatal("no Vulkan software device: install mesa-vulkan-drivers")
	}
	t.Chdir(filepath.Join(dir, "lib")) // where it looks for its CPU backends
	for name, path := range models {
		for label, tt := range map[string]struct {
			backend string
			args    []string
		}{
			"a device":           {llamacpp.StandInCUDA, []string{"--gpu", "24GiB", "-c", "4096"}},
			"a part on a device": {llamacpp.StandInCUDA, []string{"--gpu", "24GiB", "-c", "4096", "-ngl", "2", "-np", "3", "-ub", "64", "-cram", "0", "--temp", "1"}},
			"no device":          {"", []string{"--gpu", "none", "-c", "4096", "-np", "2", "-kvu"}},
		} {
			t.Run(name+" "+label, func(t *testing.T) {
				t.Setenv("GGML_BACKEND_PATH", "")
				if tt.backend != "" {
					t.Setenv("GGML_BACKEND_PATH", filepath.Join(dir, tt.backend))
				}
				var d verifyDocument
				weighJSON(t, 0, &d, append([]string{"verify", path, "--llama-cpp", filepath.Join(dir, "bin")}, tt.args...)...)
				if d.Version != llamacppVersion || len(d.Rows) == 0 {
					t.Errorf("version %q, rows %+v", d.Version, d.Rows)
				}
			})
		}
		for label, settings := range map[string][]string{
			"mapped": {"mmap=true", "n_gpu_layers=2"},
			"read":   {"mmap=false", "n_gpu_layers=2", "type_k=q8_0", "type_v=q8_0", "n_seq_max=2"},
			"whole":  {"mmap=true", "n_gpu_layers=99", "n_ubatch=128"},
		} {
			t.Run(name+" a log, "+label, func(t *testing.T) {
				cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "bin", "oracle"), append([]string{"gguf=" + path, "n_ctx=2048", "allocate=true"}, settings...)...)
				cmd.Env = append(os.Environ(), "ORACLE_VERBOSE=1", "ORACLE_BACKEND="+filepath.Join(dir, llamacpp.Vulkan), "GGML_VK_VISIBLE_DEVICES=0", "VK_ICD_FILENAMES="+drivers[0])
				var log bytes.Buffer
				cmd.Stderr = &log
				if out, err := cmd.Output(); err != nil || !strings.Contains(string(out), `"ok":true`) {
					t.Fatalf("%v: %s", err, out)
				}
				file := filepath.Join(t.TempDir(), "server.log")
				if err := os.WriteFile(file, log.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
				var d verifyDocument
				weighJSON(t, 0, &d, "verify", path, "--gpu", "2GiB", "--backend", "vulkan", "--log", file)
				if len(d.Rows) < 4 {
					t.Errorf("rows %+v", d.Rows)
				}
			})
		}
	}
}
