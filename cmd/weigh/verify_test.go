package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
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
		script := fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'version: %s (build 1, commit abc)' >&2; exit; fi\n[ \"$1 $2 $3\" = '-fitp on -m' ] || exit 3\ncat <<'E'\n%sE\n", version, fitPrint(&e, extra))
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
