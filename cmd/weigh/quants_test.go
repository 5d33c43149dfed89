package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weigh/fixtures"
)

// modelFile writes a model of the fixtures, without data, and returns its path.
func modelFile(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".gguf")
	if err := fixtures.Model(name).WriteSparse(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// hfFolder writes a folder of the fixtures and returns its path.
func hfFolder(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := fixtures.WriteHF(dir, name); err != nil {
		t.Fatal(err)
	}
	return dir
}

// weigh runs the program and returns what it writes and its exit code.
func weigh(t *testing.T, args ...string) (out, trouble string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(args, &stdout, &stderr)
	return stdout.String(), stderr.String(), code
}

// weighJSON runs the program with --json and decodes its document.
func weighJSON(t *testing.T, want int, doc any, args ...string) {
	t.Helper()
	out, trouble, code := weigh(t, append(args, "--json")...)
	if code != want {
		t.Fatalf("weigh %v: exit code %d, want %d; %s", args, code, want, trouble)
	}
	if err := json.Unmarshal([]byte(out), doc); err != nil {
		t.Fatalf("weigh %v wrote %q: %v", args, out, err)
	}
}

func TestQuants(t *testing.T) {
	path := modelFile(t, "Llama-3.1-8B-Q8_0")
	var d quantsDocument
	weighJSON(t, 0, &d, "quants", path, "--gpu", "8GiB", "-c", "4096")
	by := map[string]quantDocument{}
	for _, q := range d.Quants {
		by[q.Type] = q
	}
	// Data sections of Llama 3.1 8B as llama-quantize writes them.
	for name, want := range map[string]uint64{
		"F16": 16061055232, "Q8_0": 8532934912, "Q6_K": 6588170496, "Q5_K_M": 5725151488, "Q4_K_M": 4912898304,
		"Q4_K_S": 4684833024, "Q4_0": 4653375744, "IQ4_XS": 4476526848, "Q3_K_M": 4011081984, "Q2_K": 3171295488,
	} {
		q := by[name]
		if q.DataBytes != want || !q.Exact {
			t.Errorf("%s: %d bytes (exact: %v), want %d", name, q.DataBytes, q.Exact, want)
		}
		if q.FileBytes == nil || *q.FileBytes <= want {
			t.Errorf("%s: file of %v bytes, want more than its data", name, q.FileBytes)
		}
		if fits := want < 7<<30; q.Fits == nil || *q.Fits != fits {
			t.Errorf("%s in 8 GiB: fits is %v, want %v", name, q.Fits, fits)
		}
	}
	if q := by["IQ2_XS"]; !q.RequiresImatrix || by["Q4_K_M"].RequiresImatrix {
		t.Errorf("IQ2_XS requires an importance matrix: %v; Q4_K_M: %v", q.RequiresImatrix, by["Q4_K_M"].RequiresImatrix)
	}

	weighJSON(t, 0, &d, "quants", path, "--gpu", "none", "--host-memory", "64GiB", "--imatrix", "--type", "IQ4_XS,Q4_0", "--sizes-only")
	for i, want := range []uint64{4439826688, 4668055808} {
		if q := d.Quants[i]; q.DataBytes != want || !q.Imatrix || q.FileBytes != nil {
			t.Errorf("%s with an unnamed importance matrix: %d bytes, file %v, want %d, file unknown", q.Type, q.DataBytes, q.FileBytes, want)
		}
	}
	d = quantsDocument{}
	weighJSON(t, 1, &d, "quants", path, "--gpu", "1GiB", "--host-memory", "1GiB", "--type", "Q4_K_M", "--tensors")
	if len(d.Quants) != 1 || len(d.Quants[0].Tensors) != 292 || d.Quants[0].NCtx != nil {
		t.Errorf("Q4_K_M on 1 GiB: %+v", d.Quants)
	}
}

func TestQuantsOfFolder(t *testing.T) {
	var d quantsDocument
	weighJSON(t, 0, &d, "quants", hfFolder(t, "qwen3-0.6b"), "--type", "Q4_K_M", "--sizes-only")
	if q := d.Quants[0]; q.DataBytes == 0 || q.FileBytes != nil {
		t.Errorf("from a folder: %+v, want data and no file size", q)
	}
}

func TestQuantsText(t *testing.T) {
	out, _, code := weigh(t, "quants", modelFile(t, "Llama-3.2-1B-F16"), "--gpu", "2GiB", "--host-memory", "16GiB", "-c", "16384", "-np", "1")
	if code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	golden(t, "quants/Llama-3.2-1B-F16", []byte(out))
}

func TestQuantsRefuses(t *testing.T) {
	path := modelFile(t, "bert-F16")
	tests := map[string]struct {
		args  []string
		error string
	}{
		"an unknown type":           {[]string{"--type", "Q9"}, "--type"},
		"an unknown tensor type":    {[]string{"--tensor-type", "attn=Q9"}, "not a type of ggml"},
		"a pattern that is broken":  {[]string{"--tensor-type", "(=Q8_0"}, "missing closing"},
		"an unknown output type":    {[]string{"--output-tensor-type", "Q4_K_M"}, "--output-tensor-type Q4_K_M"},
		"an importance matrix gone": {[]string{"--imatrix=" + filepath.Join(t.TempDir(), "gone")}, "no such file"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			out, trouble, code := weigh(t, append([]string{"quants", path}, tt.args...)...)
			if code != exitError || out != "" || !strings.Contains(trouble, tt.error) {
				t.Errorf("exit code %d, output %q, trouble %q; want %d, nothing and %q", code, out, trouble, exitError, tt.error)
			}
		})
	}
}
