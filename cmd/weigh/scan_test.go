package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weigh/fixtures"
	"weigh/inspect/store"
)

// put writes a file below dir, with its folders.
func put(t testing.TB, data []byte, path ...string) string {
	t.Helper()
	p := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

// putModel writes a model of the fixtures below dir.
func putModel(t testing.TB, name string, path ...string) string {
	t.Helper()
	p := put(t, nil, path...)
	if err := fixtures.Model(name).WriteSparse(p); err != nil {
		t.Fatal(err)
	}
	return p
}

// putOllama makes a file a model of the Ollama store in dir.
func putOllama(t testing.TB, dir, name, file string) {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	digest := fmt.Sprintf("%x", sha256.Sum256([]byte(name)))
	put(t, []byte(fmt.Sprintf(`{"schemaVersion":2,"layers":[{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:%s","size":%d}]}`, digest, info.Size())),
		dir, "manifests", filepath.FromSlash(name))
	blob := put(t, nil, dir, "blobs", "sha256-"+digest)
	os.Remove(blob)
	if err := os.Rename(file, blob); err != nil {
		t.Fatal(err)
	}
}

// emptyHome lets the program run with a home folder without any store, and
// returns it.
func emptyHome(t *testing.T) string {
	home := t.TempDir()
	for _, v := range []string{"OLLAMA_MODELS", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "LLAMA_CACHE"} {
		t.Setenv(v, "")
	}
	for _, v := range []string{"HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"} {
		t.Setenv(v, home)
	}
	return home
}

// stores makes a home folder with models in several stores: whole, twice,
// broken, incomplete, and with names that try to take over the terminal.
func stores(t *testing.T) string {
	onMachine(t, "rx7900xtx")
	home := emptyHome(t)
	lm, ollama := filepath.Join(home, ".lmstudio", "models"), filepath.Join(home, ".ollama", "models")
	putModel(t, "Llama-3.2-1B-Q4_K_M", lm, "bartowski", "Llama-3.2-1B-Instruct-GGUF", "Llama-3.2-1B-Instruct-Q4_K_M.gguf")
	putModel(t, "Qwen3-30B-A3B-Q4_K_M", lm, "unsloth", "Qwen3-30B-A3B-GGUF", "Qwen3-30B-A3B-Q4_K_M.gguf")
	putModel(t, "DeepSeek-R1-671B-Q4_K_M", lm, "unsloth", "DeepSeek-R1-GGUF", "DeepSeek-R1-Q4_K_M.gguf")
	put(t, []byte("half"), lm, "unsloth", "Qwen3-30B-A3B-GGUF", "downloading_Qwen3-30B-A3B-Q8_0.gguf.part")
	putOllama(t, ollama, "registry.ollama.ai/library/llama3.2/1b", putModel(t, "Llama-3.2-1B-Q4_K_M", home, "pulled"))
	put(t, []byte(`{"layers":[{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:`+strings.Repeat("0", 64)+`","size":7}]}`),
		ollama, "manifests", "registry.ollama.ai", "library", "gone", "latest")
	hub := filepath.Join(home, ".cache", "huggingface", "hub", "models--Qwen--Qwen3-0.6B")
	put(t, []byte("c1"), hub, "refs", "main")
	snapshot := filepath.Join(hub, "snapshots", "c1")
	if err := os.MkdirAll(snapshot, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := fixtures.WriteHF(snapshot, "qwen3-0.6b"); err != nil {
		t.Fatal(err)
	}
	return home
}

func TestScan(t *testing.T) {
	home := stores(t)
	for name, args := range map[string][]string{
		"stores of the machine": {},
		"only what fits":        {"--only", "fits", "--sort", "speed"},
		"one family by size":    {"--filter", "qwen", "--sort", "size", "--quick"},
	} {
		t.Run(name, func(t *testing.T) {
			args = append([]string{"scan", "--gpu", "RTX 3060 12GB", "--host-memory", "64GiB", "-c", "8192"}, args...)
			out, trouble, code := weigh(t, args...)
			if code != 0 || trouble != "" {
				t.Errorf("exit code %d, %s", code, trouble)
			}
			golden(t, "scan/"+strings.ReplaceAll(name, " ", "-"), []byte(strings.ReplaceAll(out, home, "HOME")))
		})
	}
}

func TestScanJSON(t *testing.T) {
	stores(t)
	var d scanDocument
	weighJSON(t, 0, &d, "scan", "--gpu", "RTX 3060 12GB", "--host-memory", "64GiB", "-c", "8192")
	if d.Schema != 1 || len(d.Stores) != 3 || len(d.Models) != 7 || len(d.Duplicates) != 1 {
		t.Fatalf("schema %d, %d stores, %d models, %d duplicates", d.Schema, len(d.Stores), len(d.Models), len(d.Duplicates))
	}
	by := map[string]scannedDocument{}
	for _, m := range d.Models {
		by[m.Name] = m
	}
	for name, verdict := range map[string]string{
		"llama3.2:1b": fitsWhole, "unsloth/Qwen3-30B-A3B-GGUF/Qwen3-30B-A3B-Q4_K_M": fitsPartial, "unsloth/DeepSeek-R1-GGUF/DeepSeek-R1-Q4_K_M": fitsNot, "Qwen/Qwen3-0.6B": fitsWhole,
	} {
		m, ok := by[name]
		if !ok || m.Verdict == nil || *m.Verdict != verdict || m.State != stateOK {
			t.Errorf("%s: %+v, want %s", name, m, verdict)
			continue
		}
		// What the scan says is what the command says of the model it names.
		want := 0
		if verdict == fitsNot {
			want = 1
		}
		var e estimateDocument
		weighJSON(t, want, &e, *m.Ref, "--gpu", "RTX 3060 12GB", "--host-memory", "64GiB", "-c", "8192")
		if e.Settings.NCtx != *m.NCtx || e.Settings.NGPULayers != *m.NGPULayers || e.Model.Architecture != *m.Architecture {
			t.Errorf("%s: context %d, %d layers; weigh says %d, %d", name, *m.NCtx, *m.NGPULayers, e.Settings.NCtx, e.Settings.NGPULayers)
		}
	}
	for name, state := range map[string]string{"gone:latest": stateBroken, "unsloth/Qwen3-30B-A3B-GGUF/Qwen3-30B-A3B-Q8_0": statePartial} {
		if m := by[name]; m.State != state || m.Reason == "" || m.Ref != nil || m.Verdict != nil {
			t.Errorf("%s: %+v, want %s with a reason", name, m, state)
		}
	}
	if c := d.Duplicates[0]; len(c.Paths) != 2 || int64(c.Wasted) != c.Bytes || c.Basis != bySample {
		t.Errorf("duplicate %+v", c)
	}
}

// TestScanCopies tells copies from names of one file and from files that only
// look alike.
func TestScanCopies(t *testing.T) {
	onMachine(t, "rx7900xtx")
	dir := t.TempDir()
	a := putModel(t, "Llama-3.2-1B-Q4_K_M", dir, "a.gguf")
	putModel(t, "Llama-3.2-1B-Q4_K_M", dir, "copy.gguf")
	if err := os.Link(a, filepath.Join(dir, "hardlink.gguf")); err != nil {
		t.Skipf("no links here: %v", err)
	}
	other := putModel(t, "Llama-3.2-1B-Q4_K_M", dir, "tuned.gguf")
	f, err := os.OpenFile(other, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, _ := f.Stat()
	if _, err := f.WriteAt([]byte{1}, info.Size()-1); err != nil {
		t.Fatal(err)
	}
	f.Close()
	putModel(t, "Llama-3.2-1B-F16", dir, "larger.gguf")
	var d scanDocument
	weighJSON(t, 0, &d, "scan", dir, "--quick")
	if len(d.Models) != 5 || len(d.Duplicates) != 1 || len(d.Duplicates[0].Paths) != 3 || int64(d.Duplicates[0].Wasted) != info.Size() {
		t.Errorf("%d models, duplicates %+v, want one of three names and two copies", len(d.Models), d.Duplicates)
	}
}

// TestScanHostile holds that names and headers come out as text, and that
// nothing stops the listing.
func TestScanHostile(t *testing.T) {
	onMachine(t, "rx7900xtx")
	dir := t.TempDir()
	g := fixtures.Model("Llama-3.2-1B-Q4_K_M")
	g.Set("general.name", "\x1b]0;owned\x07evil\n\x1b[2Jname")
	p := put(t, nil, dir, "good.gguf")
	if err := g.WriteSparse(p); err != nil {
		t.Fatal(err)
	}
	whole := fixtures.Model("Llama-3.2-1B-Q4_K_M").Bytes()
	for name, data := range map[string][]byte{
		"\x1b[31mred.gguf": whole, "two\nlines.gguf": whole[:300], "empty.gguf": nil, "html.gguf": []byte("<html>404"),
		"noise.gguf": bytes.Repeat([]byte{0xff}, 4096), "st.safetensors": []byte("\xff\xff\xff\xff\xff\xff\xff\x7f{}"),
		"huge-00001-of-99999.gguf": whole,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Skipf("no such names here: %v", err)
		}
	}
	put(t, []byte(`{"architectures":[`), dir, "torn", "config.json")
	put(t, []byte("{}"), dir, "torn", "model.safetensors")
	out, trouble, code := weigh(t, "scan", dir, "--gpu", "24GiB", "--host-memory", "64GiB")
	if code != 0 || trouble != "" {
		t.Errorf("exit code %d, stderr %q", code, trouble)
	}
	if strings.ContainsAny(out, "\x1b\x07") {
		t.Errorf("control characters in %q", out)
	}
	if n := strings.Count(out, "broken:"); n != 8 || !strings.Contains(out, "9 models") {
		t.Errorf("%d broken, want 8 of 9 models:\n%s", n, out)
	}
	var d scanDocument
	weighJSON(t, 0, &d, "scan", dir, "--only", "fits", "--gpu", "24GiB", "--host-memory", "64GiB")
	if len(d.Models) != 1 || d.Models[0].Name != "good" {
		t.Errorf("what fits: %+v", d.Models)
	}
}

func TestScanRefuses(t *testing.T) {
	onMachine(t, "rx7900xtx")
	home := emptyHome(t)
	file := putModel(t, "Llama-3.2-1B-Q4_K_M", home, "m.gguf")
	for name, tt := range map[string]struct {
		args []string
		says string
	}{
		"no such folder":          {[]string{filepath.Join(home, "none")}, "no such file"},
		"a file for a folder":     {[]string{file}, "a file, not a folder"},
		"an unknown order":        {[]string{"--sort", "colour"}, "--sort colour: want architecture, fit"},
		"an unknown kind":         {[]string{"--only", "nice"}, "--only nice: want broken"},
		"an unknown card":         {[]string{home, "--gpu", "RTX 9999"}, "RTX 9999"},
		"a card's memory unknown": {[]string{home, "--gpu", "x"}, "x"},
	} {
		t.Run(name, func(t *testing.T) {
			out, trouble, code := weigh(t, append([]string{"scan"}, tt.args...)...)
			if code != exitError || out != "" || !strings.Contains(trouble, tt.says) {
				t.Errorf("exit code %d, %q, %q, want %q", code, out, trouble, tt.says)
			}
		})
	}
	if out, _, code := weigh(t, "scan"); code != 0 || !strings.Contains(out, "no store of") {
		t.Errorf("without a store: exit code %d, %q", code, out)
	}
}

// TestNamesOfStores holds that a model of a store is named the same way in
// every command.
func TestNamesOfStores(t *testing.T) {
	stores(t)
	for _, args := range [][]string{
		{"ollama:llama3.2:1b"},
		{"inspect", "ollama:llama3.2:1b"},
		{"estimate", "hf:Qwen/Qwen3-0.6B"},
		{"inspect", "lmstudio:llama-3.2-1b-instruct"},
		{"estimate", "-hf", "qwen/qwen3-0.6b"},
		{"quants", "hf:Qwen/Qwen3-0.6B@main", "--sizes-only", "--type", "Q4_K_M"},
	} {
		if len(args) == 1 || args[0] == "estimate" {
			args = append(args, "--gpu", "24GiB", "--host-memory", "64GiB")
		}
		if _, trouble, code := weigh(t, args...); code != 0 {
			t.Errorf("weigh %v: exit code %d, %s", args, code, trouble)
		}
	}
	for ref, says := range map[string]string{
		"ollama:llama3.3": "there is", "ollama:gone": "is not there", "hf:org/none": "no such model", "lmstudio:qwen3-30b-a3b@q8_0": "has not ended",
	} {
		out, trouble, code := weigh(t, "inspect", ref)
		if code != exitError || out != "" || !strings.Contains(trouble, says) {
			t.Errorf("%s: exit code %d, %q, want %q", ref, code, trouble, says)
		}
	}
}

// BenchmarkScan reads a store of 10,000 files: 1,000 models, each with nine
// files that belong to none.
func BenchmarkScan(b *testing.B) {
	dir := b.TempDir()
	var models []string
	for _, name := range []string{"Llama-3.2-1B-Q4_K_M", "Llama-3.1-8B-Q4_K_M", "Qwen2.5-0.5B-Q8_0", "Gemma-3-4B-Q4_K_M"} {
		models = append(models, putModel(b, name, b.TempDir(), "model.gguf"))
	}
	for i := range 1000 {
		repo := filepath.Join(dir, fmt.Sprintf("org%d", i%40), fmt.Sprintf("repo%d", i))
		if err := os.MkdirAll(repo, 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.Link(models[i%len(models)], filepath.Join(repo, "model.gguf")); err != nil {
			b.Skipf("no links here: %v", err)
		}
		for j := range 9 {
			put(b, nil, repo, fmt.Sprintf("README%d.md", j))
		}
	}
	r := &request{gpus: []string{"24GiB"}, hostMemory: "64GiB", nOutputs: -1}
	cmd := newScanCmd()
	if _, err := parseRequest(cmd, r, nil); err != nil {
		b.Fatal(err)
	}
	in := []store.Store{{Kind: store.Folder, Dir: dir}}
	for name, quick := range map[string]bool{"headers": true, "weighed": false} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s, err := runScan(context.Background(), in, r, &scanFlags{quick: quick}, newProgress(io.Discard))
				if err != nil || len(s.rows) != 1000 || slices.ContainsFunc(s.rows, func(r *scanned) bool { return r.state != stateOK }) {
					b.Fatalf("%d rows, %v", len(s.rows), err)
				}
			}
		})
	}
}
