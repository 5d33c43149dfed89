package main

import (
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weigh/fixtures"
)

// TestUnknownArchitecture holds that every command answers for a model whose
// architecture is not in the table, with its own keys or with another's, and that
// no line to run is given without saying what it takes.
func TestUnknownArchitecture(t *testing.T) {
	onMachine(t, "rx7900xtx")
	machine := []string{"--gpu", "RTX 3060 12GB", "--gpu", "8GiB", "--host-memory", "64GiB", "-c", "4096"}
	for _, name := range []string{"Llama-3.2-1B-Q4_K_M", "Qwen3-30B-A3B-Q4_K_M", "DeepSeek-V2-Lite-Q4_K_M", "Mamba-2.8B-Q4_K_M", "Qwen3-Next-80B-A3B-Q4_K_M", "Gemma-3n-E4B-Q4_K_M", "BERT-base-F16"} {
		for _, own := range []bool{true, false} {
			g := *fixtures.Model(name)
			g.KVs = slices.Clone(g.KVs)
			for i := range g.KVs {
				switch kv := &g.KVs[i]; {
				case kv.Key == "general.architecture":
					kv.Value = "unheard-of"
				case own && !strings.HasPrefix(kv.Key, "general.") && !strings.HasPrefix(kv.Key, "tokenizer."):
					_, rest, _ := strings.Cut(kv.Key, ".")
					kv.Key = "unheard-of." + rest
				}
			}
			path := filepath.Join(t.TempDir(), "m.gguf")
			if err := g.WriteSparse(path); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{
				append([]string{path}, machine...),
				{path, "--gpu", "none", "-c", "4096"},
				append([]string{"estimate", path, "--explain"}, machine...),
				append([]string{"plan", path, "--explain"}, machine...),
				append([]string{"table", path, "--by", "layers"}, machine[:2]...),
				append([]string{"quants", path}, machine...),
				append([]string{"train", path}, machine[:6]...),
				append([]string{"rules", path}, machine...),
				{"inspect", path, "--layers"},
				{"check", path},
				append([]string{"scan", filepath.Dir(path)}, machine[:6]...),
			} {
				out, trouble, code := weigh(t, args...)
				if code == exitError {
					t.Errorf("%s, own keys %v: weigh %v: exit code %d, %s", name, own, args, code, trouble)
				}
				if strings.Contains(out, "It fits. Run:") {
					t.Errorf("%s, own keys %v: %s", name, own, out)
				}
			}
			base := serving(t, path)
			for _, command := range []string{"placement", "ladder"} {
				if status, body := post(t, base, command, path, machine...); status != http.StatusOK {
					t.Errorf("%s, own keys %v: %s: status %d, %s", name, own, command, status, body)
				}
			}
		}
	}
}
