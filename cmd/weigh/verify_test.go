package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// serverLog writes an estimate as llama-server logs it.
func serverLog(e *estimateDocument, extra uint64) string {
	var b strings.Builder
	line := func(where, name, kind string, n uint64) {
		if n > 0 {
			fmt.Fprintf(&b, "0.00.100.000 I %s: %10s %s buffer size = %8.2f MiB\n", where, name, kind, float64(n)/(1<<20))
		}
	}
	b.WriteString("version: 0.5.0 (build 1, commit abc)\nllama_model_loader: loaded meta data with 30 key-value pairs\n")
	line("load_tensors", "CUDA0", "model", 1<<30) // of a load before
	b.WriteString("\x1b[34mllama_model_loader: loaded meta data with 30 key-value pairs\x1b[0m\n")
	fmt.Fprintf(&b, "load_tensors: offloaded %d/33 layers to GPU\n", e.Settings.NGPULayers)
	fmt.Fprintf(&b, "llama_context: n_seq_max     = %d\nllama_context: n_ctx         = %d\nllama_context: kv_unified    = %v\nllama_context: flash_attn    = enabled\n", e.Settings.NParallel, e.Settings.NCtx, e.Settings.KVUnified)
	for _, d := range e.Devices {
		line("load_tensors", d.Name, "model", d.Model)
		line("llama_kv_cache", d.Name, "KV", d.Context/2)
		line("llama_memory_recurrent", d.Name, "RS", d.Context-d.Context/2)
		line("sched_reserve", d.Name, "compute", 12345678)
		line("sched_reserve", d.Name, "compute", d.Compute+extra)
	}
	for _, m := range e.Host.Buffers {
		name := m.Name
		if name == "CPU" {
			name = "CPU_Mapped"
		}
		line("load_tensors", name, "model", m.Model)
		line("llama_context", m.Name, " output", 1<<20) // not in the breakdown
		line("llama_kv_cache", m.Name, "KV", m.Context)
		line("sched_reserve", m.Name, "compute", m.Compute)
	}
	return b.String()
}

// breakdownEvent writes an estimate as --log-jsonl does at the end.
func breakdownEvent(e *estimateDocument, extra uint64) string {
	row := func(kind, name string, m *memoryDocument) map[string]any {
		return map[string]any{"kind": kind, "name": name, "model": m.Model >> 20, "context": m.Context >> 20, "compute": (m.Compute + extra) >> 20}
	}
	rows := []any{}
	for i := range e.Devices {
		rows = append(rows, row("device", e.Devices[i].Name, &e.Devices[i]))
	}
	rows = append(rows, row("host", "Host", &e.Host))
	line, _ := json.Marshal(map[string]any{"type": "fit_memory_breakdown", "data": map[string]any{"unit": "MiB", "rows": rows}})
	return `{"type":"log","time":1,"level":"info","msg":"llama_context: n_ctx         = 8192\n"}` + "\n" + string(line) + "\n"
}

// breakdownTable writes an estimate as llama.cpp's table of memory.
func breakdownTable(e *estimateDocument, extra uint64) string {
	var b strings.Builder
	b.WriteString("llama_memory_breakdown_print: | memory breakdown [MiB] | total   free     self   model   context   compute    unaccounted |\n")
	for _, d := range e.Devices {
		fmt.Fprintf(&b, "llama_memory_breakdown_print: |   - %s (RTX 4090) | 24564 = 1000 + (%d = %d + %d + %d) + 300 |\n", d.Name, (d.Model+d.Context+d.Compute)>>20, d.Model>>20, d.Context>>20, (d.Compute+extra)>>20)
	}
	h := e.Host
	fmt.Fprintf(&b, "llama_memory_breakdown_print: |   - Host             |                 %d = %d + %d + %d                |\n", (h.Model+h.Context+h.Compute)>>20, h.Model>>20, h.Context>>20, h.Compute>>20)
	return b.String()
}

// fitPrint writes an estimate as llama-fit-params -fitp does.
func fitPrint(e *estimateDocument, extra uint64) string {
	var b strings.Builder
	for _, d := range e.Devices {
		fmt.Fprintf(&b, "%s %d %d %d \n", d.Name, d.Model>>20, d.Context>>20, (d.Compute+extra)>>20)
	}
	fmt.Fprintf(&b, "Host %d %d %d \n", e.Host.Model>>20, e.Host.Context>>20, e.Host.Compute>>20)
	return b.String()
}

func TestVerifyLog(t *testing.T) {
	path := modelFile(t, "Llama-3.1-8B-Q4_K_M")
	machine := []string{path, "--gpu", "24GiB", "--host-memory", "64GiB"}
	flags := append(machine, "-c", "8192", "-ngl", "20", "-np", "2")
	var e estimateDocument
	weighJSON(t, 0, &e, append([]string{"estimate"}, flags...)...)
	for name, tt := range map[string]struct {
		log  func(e *estimateDocument, extra uint64) string
		args []string
	}{
		"the lines of a log, which has its settings": {serverLog, machine},
		"the event of a log of JSON":                 {breakdownEvent, flags},
		"the table at the end":                       {breakdownTable, flags},
	} {
		t.Run(name, func(t *testing.T) {
			for _, extra := range []uint64{0, 4 << 20} {
				log := filepath.Join(t.TempDir(), "server.log")
				if err := os.WriteFile(log, []byte(tt.log(&e, extra)), 0o600); err != nil {
					t.Fatal(err)
				}
				code := exitOK
				if extra > 0 {
					code = exitNo
				}
				var d verifyDocument
				weighJSON(t, code, &d, append(append([]string{"verify"}, tt.args...), "--log", log)...)
				if d.Same != (extra == 0) || len(d.Rows) < 4 {
					t.Errorf("%d bytes off: same %v, rows %+v", extra, d.Same, d.Rows)
				}
			}
		})
	}
}

// TestVerifyRecorded compares with what llama.cpp v0.5.0 logged on the CPU.
func TestVerifyRecorded(t *testing.T) {
	log := filepath.Join("testdata", "verify", "gemma3-Q4_K_M.log")
	path := modelFile(t, "gemma3-Q4_K_M")
	var d verifyDocument
	weighJSON(t, 0, &d, "verify", path, "--gpu", "none", "-nr", "--log", log)
	if len(d.Rows) != 3 {
		t.Errorf("rows %+v", d.Rows)
	}
	weighJSON(t, 1, &d, "verify", path, "--gpu", "none", "-nr", "-ub", "256", "--log", log)

	// With part of the layers on a device the host's weights, which a measurement
	// has in pinned memory, are mapped.
	log = filepath.Join("testdata", "verify", "llama-Q4_K_M-vulkan.log")
	device := []string{"verify", modelFile(t, "llama-Q4_K_M"), "--gpu", "2GiB", "--backend", "vulkan", "--log", log}
	weighJSON(t, 0, &d, device...)
	if len(d.Rows) != 5 || len(d.Notes) != 1 || !strings.Contains(d.Notes[0], "mapped") {
		t.Errorf("rows %+v, notes %q", d.Rows, d.Notes)
	}
	weighJSON(t, 1, &d, append(device, "-ngl", "3")...)
}

// TestVerifySeveralLoads reads the log of a model that --fit tried before, with
// a draft and a projector loaded after it.
func TestVerifySeveralLoads(t *testing.T) {
	onMachine(t, "rx7900xtx")
	model, draft, mmproj := modelFile(t, "llama-Q4_K_M"), modelFile(t, "qwen3-Q4_K_M"), projectorFile(t, "mlp")
	flags := []string{"--gpu", "24GiB", "--host-memory", "64GiB", "-c", "8192", "-np", "2", "-fit", "off"}
	both := append([]string{model, "-md", draft, "--spec-type", "draft-simple", "-mm", mmproj}, flags...)
	var e estimateDocument
	weighJSON(t, 0, &e, append([]string{"estimate"}, both...)...)
	var log strings.Builder
	line := func(where, name, kind string, n uint64) {
		if n > 0 {
			fmt.Fprintf(&log, "%s: %10s %s buffer size = %8.2f MiB\n", where, name, kind, float64(n)/(1<<20))
		}
	}
	begin := func(path string) {
		fmt.Fprintf(&log, "llama_model_loader: loaded meta data with 30 key-value pairs and 99 tensors from %s (version GGUF V3 (latest))\n", path)
	}
	begin(model)
	line("load_tensors", "CUDA0", "model", 1<<33)
	begin(model)
	rows := map[string]buffer{}
	for i := range e.Devices {
		m := &e.Devices[i]
		rows[m.Name] = buffer{m.Name, m.Model, m.Context, m.Compute}
	}
	for _, b := range e.Host.Buffers {
		rows[b.Name] = b
	}
	write := func(list map[string]buffer, outputs int) {
		for name, b := range list {
			line("load_tensors", name, "model", b.Model)
		}
		fmt.Fprintf(&log, "llama_context: constructing llama_context\nllama_context: n_outputs_max         = %d\n", outputs)
		for name, b := range list {
			line("llama_kv_cache", name, "KV", b.Context)
			line("sched_reserve", name, "compute", b.Compute)
		}
	}
	var drafted map[string]buffer
	for _, p := range e.Parts {
		if p.Kind == "draft" {
			drafted = map[string]buffer{}
		}
		for _, u := range p.Use {
			if p.Kind == "draft" {
				drafted[u.Name] = u
			}
			b := rows[u.Name]
			b.Model, b.Context, b.Compute = b.Model-u.Model, b.Context-u.Context, b.Compute-u.Compute
			rows[u.Name] = b
		}
	}
	if len(e.Parts) != 2 || len(drafted) == 0 {
		t.Fatalf("parts %+v", e.Parts)
	}
	write(rows, 8)
	begin(draft)
	write(drafted, 2)
	line("reserve_compute_meta", "CUDA0", "compute", 1<<30) // of the projector
	path := filepath.Join(t.TempDir(), "server.log")
	if err := os.WriteFile(path, []byte(log.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	var d verifyDocument
	weighJSON(t, 0, &d, append(append([]string{"verify"}, both...), "--log", path)...)
	if !slices.ContainsFunc(d.Notes, func(n string) bool { return strings.Contains(n, "without the mmproj") }) {
		t.Errorf("notes %q", d.Notes)
	}
	weighJSON(t, 0, &d, append(append([]string{"verify", model}, flags...), "--log", path)...)
}

// TestVerifyRepacked holds that repacked weights are in a row of their own, or
// in none.
func TestVerifyRepacked(t *testing.T) {
	onMachine(t, "rx7900xtx")
	path := modelFile(t, "llama-Q4_K_M")
	flags := []string{path, "--gpu", "none", "--host-memory", "64GiB", "-c", "4096", "-np", "1", "-lm", "none"}
	var e estimateDocument
	weighJSON(t, 0, &e, append([]string{"estimate"}, flags...)...)
	var host, packed buffer
	for _, b := range e.Host.Buffers {
		to := &host
		if b.Name == "CPU_REPACK" {
			to = &packed
		}
		to.Model, to.Context, to.Compute = to.Model+b.Model, to.Context+b.Context, to.Compute+b.Compute
	}
	if packed.Model == 0 {
		t.Fatalf("buffers %+v: nothing is repacked", e.Host.Buffers)
	}
	row := func(name string, b buffer) string {
		return fmt.Sprintf("common_memory_breakdown_print: |   - %-10s | %d = %d + %d + %d |\n", name, (b.Model+b.Context+b.Compute)>>20, b.Model>>20, b.Context>>20, b.Compute>>20)
	}
	var d verifyDocument
	for name, text := range map[string]string{
		"a row":  row("Host", host) + row("CPU_REPACK", packed),
		"no row": row("Host", host),
	} {
		log := filepath.Join(t.TempDir(), "server.log")
		if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Log(name)
		weighJSON(t, 0, &d, append(append([]string{"verify"}, flags...), "--log", log)...)
	}
}

func TestVerifyInstalled(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the stand-in for llama-fit-params is a shell script")
	}
	path := modelFile(t, "Llama-3.2-1B-Q4_K_M")
	flags := []string{path, "--gpu", "24GiB", "--host-memory", "64GiB", "-c", "4096"}
	var e estimateDocument
	weighJSON(t, 0, &e, append(append([]string{"estimate"}, flags...), "--n-outputs-max", "0")...)
	dir := t.TempDir()
	install := func(extra uint64, version string) {
		script := fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'version: %s (build 1, commit abc)' >&2; exit; fi\n[ \"$1 $2 $3\" = '-fitp on -m' ] || exit 3\ncase \" $* \" in *' -kvu '*|*' -cram '*|*' --port '*) echo \"error: invalid argument\" >&2; exit 1;; esac\ncat <<'E'\n%sE\n", version, fitPrint(&e, extra))
		if err := os.WriteFile(filepath.Join(dir, "llama-fit-params"), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	install(0, llamacppVersion)
	var d verifyDocument
	weighJSON(t, 0, &d, append(append([]string{"verify"}, flags...), "--llama-cpp", dir)...)
	if d.Version != llamacppVersion || len(d.Notes) > 0 || len(d.Rows) != 6 {
		t.Errorf("version %q, notes %q, rows %+v", d.Version, d.Notes, d.Rows)
	}
	// What llama-fit-params has no flag for is left out, and said where it matters.
	weighJSON(t, 0, &d, append(append([]string{"verify"}, flags...), "--llama-cpp", dir, "-np", "1", "-kvu", "-cram", "0", "--port", "80")...)
	if len(d.Notes) != 1 || !strings.Contains(d.Notes[0], "-kvu") {
		t.Errorf("notes %q", d.Notes)
	}
	install(8<<20, "0.6.1")
	weighJSON(t, 1, &d, append(append([]string{"verify"}, flags...), "--llama-cpp", dir)...)
	if d.Version != "0.6.1" || len(d.Notes) == 0 {
		t.Errorf("another version is %q, notes %q", d.Version, d.Notes)
	}
	if _, trouble, code := weigh(t, append(append([]string{"verify"}, flags...), "--llama-cpp", t.TempDir())...); code != exitError || !strings.Contains(trouble, "not installed") {
		t.Errorf("nothing installed: exit code %d, %q", code, trouble)
	}
}

func TestParseLogRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":          "",
		"another log":      "hello\nworld\n",
		"a broken event":   `{"rows": [{"name": 1, "model": "x"}, 7]}`,
		"a line too long":  strings.Repeat("x", maxLogLine+1),
		"sizes of nothing": "CUDA0 model buffer size = MiB\n",
	} {
		if a, err := parseLog(strings.NewReader(text)); err == nil {
			t.Errorf("%s: read as %+v", name, a)
		}
	}
}

func TestALongLogIsReadQuickly(t *testing.T) {
	const line = "0.12.345 D slot update_slots: id 0 | task 12 | prompt processing progress, n_tokens = 2048\n"
	log := strings.Repeat(line, (32<<20)/len(line))
	start := time.Now()
	a, err := parseLog(strings.NewReader(log + "load_tensors: CUDA0 model buffer size = 1.50 MiB\n" + log))
	if err != nil || len(a.rows) != 1 || a.rows[0].mib != 1.5 {
		t.Errorf("parseLog() = %+v, %v", a, err)
	}
	if took := time.Since(start); took > 10*time.Second { // half a second is usual
		t.Errorf("64 MiB take %v", took)
	}
}

func FuzzParseLog(f *testing.F) {
	f.Add(serverLog(&estimateDocument{Devices: []memoryDocument{{Name: "CUDA0", Model: 1 << 30, Context: 1 << 20, Compute: 1 << 20}}}, 0))
	f.Add(breakdownEvent(&estimateDocument{}, 0))
	f.Add(breakdownTable(&estimateDocument{}, 0))
	f.Fuzz(func(t *testing.T, text string) {
		a, err := parseLog(strings.NewReader(text))
		if err == nil && len(a.rows) == 0 {
			t.Error("a log is read and has no rows")
		}
		if err == nil {
			for _, r := range a.rows {
				if !(r.mib >= 0) || r.mib > 1e16 {
					t.Errorf("row %+v", r)
				}
			}
		}
	})
}
