package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weigh/fixtures"
	"weigh/formats"
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

// The description of an importance matrix, of either form, is written to the
// file.
func TestQuantsImatrix(t *testing.T) {
	path := modelFile(t, "Llama-3.2-1B-F16")
	size := func(args ...string) uint64 {
		var d quantsDocument
		weighJSON(t, 0, &d, append([]string{"quants", path, "--type", "Q6_K", "--sizes-only"}, args...)...)
		return *d.Quants[0].FileBytes
	}
	dir := t.TempDir()
	old := binary.LittleEndian.AppendUint32(nil, 2)
	for _, name := range []string{"blk.0.attn_q.weight", "blk.0.attn_k.weight"} {
		old = append(binary.LittleEndian.AppendUint32(old, uint32(len(name))), name...)
		old = binary.LittleEndian.AppendUint32(old, 7)
		old = append(binary.LittleEndian.AppendUint32(old, 3), make([]byte, 12)...)
	}
	tail := append(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, 125), 8), "wiki.txt"...)
	g := (&fixtures.GGUF{}).Set("imatrix.datasets", []string{"wiki.txt"}).Set("imatrix.chunk_count", uint32(125)).Set("imatrix.chunk_size", uint32(512))
	g.Add("blk.0.attn_q.weight.in_sum2", formats.F32, 3, 1)
	plain := size("--allow-requantize")
	for name, tt := range map[string]struct {
		data []byte
		rest int // of the data set and the chunks
	}{
		"old":            {slices.Concat(old, tail), 2*8 + len("quantize.imatrix.dataset") + 4 + 8 + len("wiki.txt") + len("quantize.imatrix.chunks_count") + 8},
		"old, no ending": {old, 0},
		"gguf":           {g.Build().Data, 2*8 + len("quantize.imatrix.dataset") + 4 + 8 + len("wiki.txt") + len("quantize.imatrix.chunks_count") + 8},
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, tt.data, 0o600); err != nil {
			t.Fatal(err)
		}
		if a, b := size("--imatrix="+file), size("--imatrix", file); a != b {
			t.Errorf("%s: %d bytes with =FILE, %d with the file as a word of its own", name, a, b)
		}
		more := uint64(2*8 + len("quantize.imatrix.file") + 4 + 8 + min(len(file), 127) + len("quantize.imatrix.entries_count") + 8 + tt.rest)
		if got := size("--imatrix=" + file); got+32 < plain+more || got > plain+more+32 || got%32 != 0 {
			t.Errorf("%s: %d bytes more than without, want %d before padding", name, got-plain, more)
		}
	}
	for name, data := range map[string][]byte{
		"empty": nil, "cut short": old[:40], "a model": fixtures.Model("Llama-3.2-1B-F16").Build().Data,
		"a long name": binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, 1), 1<<31-1),
		"no matrices": make([]byte, 16), "less than none": bytes.Repeat([]byte{0xff}, 64),
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, trouble, code := weigh(t, "quants", path, "--imatrix="+file); code != exitError || !strings.Contains(trouble, "imatrix") {
			t.Errorf("%s: exit code %d, trouble %q", name, code, trouble)
		}
	}
}

// What llama-quantize refuses has no size.
func TestQuantsWithoutAnswer(t *testing.T) {
	out, _, code := weigh(t, "quants", modelFile(t, "gpt-oss-20b-MXFP4"), "--type", "Q1_0", "--json", "--gpu", "8GiB")
	var d struct {
		Quants []map[string]any `json:"quants"`
	}
	if err := json.Unmarshal([]byte(out), &d); err != nil || len(d.Quants) != 1 || code != 1 {
		t.Fatalf("exit code %d, %v: %s", code, err, out)
	}
	q := d.Quants[0]
	for _, key := range []string{"data_bytes", "file_bytes", "tensor_bytes", "bits_per_weight", "fits", "n_ctx"} {
		if v, ok := q[key]; !ok || v != nil {
			t.Errorf("%s is %v, want null", key, v)
		}
	}
	if q["type"] != "Q1_0" || q["exact"] != false || !strings.Contains(q["error"].(string), "no type for rows") {
		t.Errorf("%v", q)
	}
}

// Each --gpu a machine of its own: the answers of each alone.
func TestQuantsEach(t *testing.T) {
	args := []string{"quants", modelFile(t, "Llama-3.1-8B-Q4_K_M"), "--host-memory", "64GiB", "--type", "Q8_0,Q4_K_M,Q2_K"}
	gpus := []string{"4GiB", "8GiB", "2x 24GiB"}
	var each, alone quantsDocument
	weighJSON(t, 0, &each, append(args, "--each", "--gpu", gpus[0], "--gpu", gpus[1], "--gpu", gpus[2])...)
	for i, gpu := range gpus {
		alone = quantsDocument{}
		weighJSON(t, 0, &alone, append(args, "--gpu", gpu)...)
		for k, q := range alone.Quants {
			m := each.Quants[k].Machines[i]
			if m.GPU != gpu || m.Fits != *q.Fits || (m.NCtx == nil) != (q.NCtx == nil) || m.NCtx != nil && *m.NCtx != *q.NCtx {
				t.Errorf("%s on %s: %+v, alone fits is %v", q.Type, gpu, m, *q.Fits)
			}
		}
	}
	if q := each.Quants[0]; !*q.Fits || *q.NCtx != 131072 || q.Machines[0].Fits || !q.Machines[1].Fits || *q.Machines[1].NCtx >= 131072 {
		t.Errorf("Q8_0 on each: %+v", q)
	}
	out, _, _ := weigh(t, append(args, "--each", "--gpu", "4GiB", "--gpu", "8GiB")...)
	if !strings.Contains(out, "longest context on each") || !strings.Contains(out, "bits/weight") || strings.Count(out, "does not fit") != 2 {
		t.Errorf("each GPU:\n%s", out)
	}
}

// What of a model a GPU cannot compute with is not on it.
func TestQuantsOnTheHost(t *testing.T) {
	var d quantsDocument
	weighJSON(t, 0, &d, "quants", modelFile(t, "Llama-3.2-1B-F16"), "--gpu", "12GiB", "--host-memory", "64GiB", "-c", "4096", "--type", "TQ2_0,Q4_0")
	if ternary, plain := d.Quants[0].HostLayers, d.Quants[1].HostLayers; ternary == nil || *ternary < 100<<20 || plain == nil || *plain != 0 {
		t.Errorf("layers on the host: TQ2_0 %v, Q4_0 %v", ternary, plain)
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
