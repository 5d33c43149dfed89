package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"weigh/fixtures"
	"weigh/formats"
)

// TestDrafts holds drafts, which run with the settings of the model they draft
// for and read its weights and caches, to llama.cpp v0.5.0's own figures.
func TestDrafts(t *testing.T) {
	onMachine(t, "rx7900xtx")
	tests := map[string]struct {
		args []string
		want []buffer // of the draft
	}{
		"EAGLE-3 on the embeddings of a Llama": {
			[]string{modelFile(t, "llama-Q4_K_M"), "-md", modelFile(t, "eagle3-Q4_K_M")},
			[]buffer{{"CUDA0", 87166976, 16777216, 73924608}, {"CUDA_Host", 0, 0, 12595200}},
		},
		"DFlash, a block at once": {
			[]string{modelFile(t, "llama-Q4_K_M"), "-md", modelFile(t, "dflash-swa-Q4_K_M")},
			[]buffer{{"CUDA0", 114758656, 41943040, 73924608}, {"CUDA_Host", 0, 0, 9981952}},
		},
		"a Gemma 4 assistant on the caches of its model": {
			[]string{modelFile(t, "gemma4-Q4_K_M"), "-md", modelFile(t, "gemma4-assistant-Q4_K_M")},
			[]buffer{{"CUDA0", 72765952, 0, 38799488}, {"CUDA_Host", 26880000, 0, 13635616}},
		},
		"a model of its own": {
			[]string{modelFile(t, "Qwen3-8B-Q4_K_M"), "-md", modelFile(t, "Qwen3-0.6B-Q8_0")},
			[]buffer{{"CUDA0", 633499648, 939524096, 31467648}, {"CUDA_Host", 165306368, 0, 8400928}},
		},
		"multi-token prediction on the model's own weights": {
			[]string{modelFile(t, "qwen35-mtp-Q4_K_M"), "--spec-type", "draft-mtp"},
			[]buffer{{"CUDA0", 0, 16777216, 46153856}, {"CUDA_Host", 0, 0, 12601376}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"estimate"}, tt.args...)
			out, trouble, code := weigh(t, append(args, "--json", "--gpu", "24GiB", "-c", "8192", "-np", "2", "--fit", "off", "--host-memory", "64GiB")...)
			if code != 0 {
				t.Fatalf("exit code %d: %s", code, trouble)
			}
			var d estimateDocument
			if err := json.Unmarshal([]byte(out), &d); err != nil {
				t.Fatal(err)
			}
			if len(d.Parts) != 1 || d.Parts[0].Kind != "draft" || !slices.Equal(d.Parts[0].Use, tt.want) {
				t.Errorf("the parts are %+v, want one draft with %+v", d.Parts, tt.want)
			}
		})
	}
}

// TestTroubleIsSaid holds that a driver that fails is not passed over in silence
// where a model is then planned for the CPU.
func TestTroubleIsSaid(t *testing.T) {
	onMachine(t, "mixed") // with an NVIDIA card that has no driver
	out, trouble, code := weigh(t, "estimate", modelFile(t, "Llama-3.2-1B-Q4_K_M"), "-c", "4096", "--json")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, trouble)
	}
	var d estimateDocument
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(d.Notes, func(n string) bool {
		return strings.Contains(n, "no NVIDIA driver") && strings.Contains(n, "weigh doctor")
	}) {
		t.Errorf("notes are %q, want one of the card without a driver", d.Notes)
	}
	if notes := strings.Join(d.Notes, "; "); !strings.Contains(notes, "built for rocm and vulkan") {
		t.Errorf("notes are %q, want one of the two backends that its cards want", notes)
	}
}

// TestNamedMachines holds that a machine named by its chip has all the memory
// that was sold with it, not only what its GPU may take.
func TestNamedMachines(t *testing.T) {
	onMachine(t, "rx7900xtx")
	const gib = 1 << 30
	for gpu, want := range map[string]struct{ device, host uint64 }{
		"M4 Max 128GB":         {96 * gib, 128 * gib},
		"Radeon 8060S 128GB":   {64 * gib, 128 * gib},
		"GB10":                 {128 * gib, 128 * gib},
		"RTX 4090":             {24 * gib, 65536000 << 10},
		"2x RTX 3090:free=1GB": {24 * gib, 65536000 << 10},
	} {
		t.Run(gpu, func(t *testing.T) {
			out, _, _ := weigh(t, "estimate", modelFile(t, "Llama-3.2-1B-Q4_K_M"), "-c", "4096", "--json", "--gpu", gpu)
			var d estimateDocument
			if err := json.Unmarshal([]byte(out), &d); err != nil {
				t.Fatal(err)
			}
			if d.Devices[0].MemoryTotal == nil || *d.Devices[0].MemoryTotal != want.device || d.Host.MemoryTotal == nil || *d.Host.MemoryTotal != want.host || d.Host.MemoryFree == nil || *d.Host.MemoryFree > want.host {
				t.Errorf("device and host are %+v, %+v, want %d and %d bytes", d.Devices[0], d.Host, want.device, want.host)
			}
		})
	}
}

// estimateOf returns the document of an estimate.
func estimateOf(t *testing.T, args ...string) *estimateDocument {
	t.Helper()
	out, trouble, code := weigh(t, append([]string{"estimate", "--json"}, args...)...)
	if code == 2 {
		t.Fatalf("exit code %d: %s", code, trouble)
	}
	var d estimateDocument
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatal(err)
	}
	return &d
}

// TestDevicesKeepTheirNames holds rows to llama.cpp's own names of devices,
// whatever -dev, -devd and -mmdev leave out or turn round.
func TestDevicesKeepTheirNames(t *testing.T) {
	onMachine(t, "rx7900xtx")
	model, draft := modelFile(t, "llama-Q4_K_M"), modelFile(t, "qwen3-Q4_K_M")
	mmproj := projectorFile(t, "mlp")
	cards := []string{"--gpu", "24GiB", "--gpu", "12GiB", "--gpu", "8GiB", "--host-memory", "64GiB", "-c", "4096", "-np", "1", "-fit", "off"}
	free := map[string]uint64{"CUDA0": 24 << 30, "CUDA1": 12 << 30, "CUDA2": 8 << 30}
	for name, tt := range map[string]struct {
		args []string
		rows []string
		part map[string]bool // rows with the companion
	}{
		"all":                            {nil, []string{"CUDA0", "CUDA1", "CUDA2"}, nil},
		"one":                            {[]string{"-dev", "CUDA1"}, []string{"CUDA1"}, nil},
		"turned round":                   {[]string{"-dev", "CUDA2,cuda0"}, []string{"CUDA2", "CUDA0"}, nil},
		"a draft on a device of its own": {[]string{"-dev", "CUDA0", "-md", draft, "-devd", "CUDA2"}, []string{"CUDA0", "CUDA2"}, map[string]bool{"CUDA2": true}},
		"a draft on one of the model's":  {[]string{"-md", draft, "-devd", "CUDA1"}, []string{"CUDA0", "CUDA1", "CUDA2"}, map[string]bool{"CUDA1": true}},
		"a projector on the first":       {[]string{"-mm", mmproj}, []string{"CUDA0", "CUDA1", "CUDA2"}, map[string]bool{"CUDA0": true}},
		"a projector on the first that the model has": {[]string{"-dev", "CUDA1,CUDA0", "-mm", mmproj}, []string{"CUDA1", "CUDA0"}, map[string]bool{"CUDA1": true}},
		"a projector on a device of its own":          {[]string{"-dev", "CUDA0", "-mm", mmproj, "-mmdev", "CUDA1"}, []string{"CUDA0", "CUDA1"}, map[string]bool{"CUDA1": true}},
		"a projector on the CPU":                      {[]string{"-mm", mmproj, "-mmdev", "none"}, []string{"CUDA0", "CUDA1", "CUDA2"}, map[string]bool{}},
		"a model on the CPU, and its projector":       {[]string{"-dev", "none", "-mm", mmproj}, nil, map[string]bool{}},
	} {
		t.Run(name, func(t *testing.T) {
			d := estimateOf(t, append(append([]string{model}, tt.args...), cards...)...)
			var rows []string
			for i := range d.Devices {
				m := &d.Devices[i]
				rows = append(rows, m.Name)
				if m.MemoryFree == nil || *m.MemoryFree != free[m.Name] {
					t.Errorf("%s has %v bytes free, want %d", m.Name, m.MemoryFree, free[m.Name])
				}
				if m.Overhead == 0 || m.Total != m.Model+m.Context+m.Compute+m.Overhead {
					t.Errorf("%s: %+v", m.Name, m)
				}
			}
			if !slices.Equal(rows, tt.rows) {
				t.Errorf("rows %q, want %q", rows, tt.rows)
			}
			if tt.part == nil {
				return
			}
			if len(d.Parts) != 1 {
				t.Fatalf("parts %+v, want one", d.Parts)
			}
			for _, u := range d.Parts[0].Use {
				if _, gpu := free[u.Name]; gpu && !tt.part[u.Name] {
					t.Errorf("%s holds %+v of the %s", u.Name, u, d.Parts[0].Kind)
				}
				delete(tt.part, u.Name)
			}
			if len(tt.part) > 0 {
				t.Errorf("nothing of the %s on %v", d.Parts[0].Kind, tt.part)
			}
		})
	}
}

// TestDraftFollowsTheSplit holds that a draft is split over the devices as
// --fit has split its model.
func TestDraftFollowsTheSplit(t *testing.T) {
	onMachine(t, "rx7900xtx")
	args := []string{modelFile(t, "Qwen3-8B-Q4_K_M"), "-md", modelFile(t, "Qwen3-0.6B-Q8_0"), "--gpu", "5GiB", "--gpu", "1GiB", "--host-memory", "64GiB", "-c", "4096", "-np", "1", "-fitt", "64"}
	fitted := estimateOf(t, args...)
	if len(fitted.Settings.Split) != 2 {
		t.Fatalf("--fit splits the model %v: %q", fitted.Settings.Split, fitted.Steps)
	}
	var ts []string
	for _, v := range fitted.Settings.Split {
		ts = append(ts, strconv.Itoa(int(v)))
	}
	given := estimateOf(t, append(args, "-ts", strings.Join(ts, ","), "-ngl", strconv.Itoa(fitted.Settings.NGPULayers))...)
	if !slices.Equal(fitted.Parts[0].Use, given.Parts[0].Use) {
		t.Errorf("the draft is %+v, with the same split given %+v", fitted.Parts[0].Use, given.Parts[0].Use)
	}
}

// TestPlanLeavesADraftItsDevice holds that a plan puts no layer on a device that
// only the draft may use.
func TestPlanLeavesADraftItsDevice(t *testing.T) {
	onMachine(t, "rx7900xtx")
	var d planDocument
	weighJSON(t, 0, &d, "plan", modelFile(t, "llama-Q4_K_M"), "--gpu", "512MiB", "--gpu", "24GiB", "--host-memory", "64GiB",
		"-dev", "CUDA0", "-md", modelFile(t, "qwen3-Q4_K_M"), "-devd", "CUDA1", "-c", "512", "-np", "1", "--reserve", "1MiB")
	if len(d.Plans) == 0 {
		t.Fatal("no plan")
	}
	for i, v := range d.Plans[0].Args {
		if v == "-ts" && !strings.HasSuffix(d.Plans[0].Args[i+1], ",0") {
			t.Errorf("-ts %s gives layers to the draft's device", d.Plans[0].Args[i+1])
		}
	}
}

// TestPlanWithoutADevice weighs a plan's alternatives, the CPU among them, when
// what is loaded beside the model has devices of its own.
func TestPlanWithoutADevice(t *testing.T) {
	onMachine(t, "rx7900xtx")
	args := []string{
		"plan", modelFile(t, "Llama-3.1-8B-Q4_K_M"), "--gpu", "256MiB", "--gpu", "24GiB", "--host-memory", "512MiB",
		"-dev", "CUDA0", "-md", modelFile(t, "qwen3-Q4_K_M"), "-devd", "CUDA1", "-mm", projectorFile(t, "mlp"), "-c", "512", "-np", "1", "-cram", "0",
	}
	for _, mmdev := range []string{"CUDA0", "CUDA1"} {
		if _, trouble, code := weigh(t, append(args, "-mmdev", mmdev)...); code != exitNo {
			t.Errorf("-mmdev %s: exit code %d, want 1: %s", mmdev, code, trouble)
		}
	}
}

// TestOutputsOfSpeculation holds how many outputs llama-server sizes the graph
// for: one for each sequence and one for each token that is drafted.
func TestOutputsOfSpeculation(t *testing.T) {
	onMachine(t, "rx7900xtx")
	model := modelFile(t, "llama-Q4_K_M")
	for name, tt := range map[string]struct {
		args []string
		want int
	}{
		"none":                             {nil, 4},
		"a draft that nothing uses":        {[]string{"-md", modelFile(t, "qwen3-Q4_K_M")}, 4},
		"a draft":                          {[]string{"-md", modelFile(t, "qwen3-Q4_K_M"), "--spec-type", "draft-simple"}, 16},
		"a draft whose file says its kind": {[]string{"-md", modelFile(t, "dflash-Q4_K_M")}, 16},
		"an n-gram":                        {[]string{"--spec-type", "ngram-mod", "-np", "2"}, 130},
		"vectors of whole batches":         {[]string{"--pooling", "mean"}, 2048},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{model, "--gpu", "24GiB", "-c", "4096"}, tt.args...)
			if got := estimateOf(t, args...).Settings.NOutputs; got != tt.want {
				t.Errorf("%d outputs, want %d", got, tt.want)
			}
		})
	}
}

// TestOverriddenMetadata holds --override-kv to what it changes: with twice the
// experts the graph of a mixture of experts grows.
func TestOverriddenMetadata(t *testing.T) {
	onMachine(t, "rx7900xtx")
	model := modelFile(t, "Qwen3-30B-A3B-Q4_K_M")
	args := []string{model, "--gpu", "24GiB", "-c", "4096", "-fit", "off"}
	as := estimateOf(t, args...)
	more := estimateOf(t, append(args, "--override-kv", "qwen3moe.expert_used_count=int:16")...)
	if as.Devices[0].Compute >= more.Devices[0].Compute || as.Devices[0].Model != more.Devices[0].Model {
		t.Errorf("8 experts: %+v, 16: %+v", as.Devices[0], more.Devices[0])
	}
	kept := estimateOf(t, append(args, "--override-kv", "qwen3moe.expert_used_count=float:16")...)
	if kept.Devices[0].Compute != as.Devices[0].Compute || !slices.ContainsFunc(kept.Notes, func(n string) bool {
		return strings.Contains(n, "qwen3moe.expert_used_count") && strings.Contains(n, "another type")
	}) {
		t.Errorf("a float for an integer: %+v, notes %q", kept.Devices[0], kept.Notes)
	}
}

// TestImagesAtOnce holds that the images that are encoded at once are bounded.
func TestImagesAtOnce(t *testing.T) {
	onMachine(t, "rx7900xtx")
	args := []string{modelFile(t, "Gemma-3-4B-Q4_K_M"), "-mm", projectorFile(t, "internvl"), "--gpu", "24GiB", "-c", "4096", "-fit", "off"}
	growth := func(more ...string) (n uint64) {
		for _, term := range estimateOf(t, append(args, more...)...).Devices[0].Terms {
			if term.Name == "mmproj growth" {
				n += term.Bytes
			}
		}
		return n
	}
	if four, two, one := growth(), growth("--mtmd-batch-max-tokens", "512"), growth("--mtmd-batch-max-tokens", "0"); !(four > two && two > one && one == 0) {
		t.Errorf("4 images at once grow the buffer by %d, 2 by %d, 1 by %d", four, two, one)
	}
}

// projectorFile writes a projector of the fixtures and returns its path.
func projectorFile(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mmproj-"+name+".gguf")
	if err := fixtures.Projector(name).WriteSparse(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// What llama.cpp would refuse to load is said wherever a model is weighed.
func TestRefusedModelsAreNoted(t *testing.T) {
	tests := map[string]struct {
		build *fixtures.GGUF
		args  []string
		note  string // "" for none
	}{
		"a model that loads":         {tinyLlama(), nil, ""},
		"a tensor nobody knows":      {tinyLlama().Add("blk.0.surplus.weight", formats.F32, 8), nil, "refuse to load this model: blk.0.surplus.weight"},
		"a tensor of another shape":  {tinyLlama().Add("blk.0.attn_q.bias", formats.F32, 1), nil, "refuse to load this model: blk.0.attn_q.bias: is [1]"},
		"a key lost":                 {lacking(tinyLlama(), "llama.attention.layer_norm_rms_epsilon"), nil, "layer_norm_rms_epsilon: missing"},
		"a key lost, which is given": {lacking(tinyLlama(), "llama.attention.layer_norm_rms_epsilon"), []string{"--override-kv", "llama.attention.layer_norm_rms_epsilon=float:1e-5"}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "m.gguf")
			if err := os.WriteFile(path, tt.build.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, command := range [][]string{{path}, {"estimate", path}, {"plan", path}} {
				args := append(append(command, "--gpu", "24GiB", "--host-memory", "64GiB"), tt.args...)
				for _, args := range [][]string{args, append(slices.Clip(args), "--json")} {
					out, trouble, code := weigh(t, args...)
					out = strings.Join(strings.Fields(out), " ") // prose is broken into lines
					if code != exitOK || !strings.Contains(out, tt.note) || strings.Contains(out, "refuse to load") != (tt.note != "") {
						t.Errorf("weigh %q: exit code %d, %s; want the note %q in\n%s", args, code, trouble, tt.note, out)
					}
				}
			}
		})
	}
}

// lacking returns the file without a key.
func lacking(g *fixtures.GGUF, key string) *fixtures.GGUF {
	g.KVs = slices.DeleteFunc(g.KVs, func(kv fixtures.KV) bool { return kv.Key == key })
	return g
}

// An error about a model says which file, what contradicts itself and what to do.
func TestModelsThatCannotBeWeighed(t *testing.T) {
	misshapen := tinyLlama()
	for i := range misshapen.Tensors {
		if x := &misshapen.Tensors[i]; x.Name == "blk.0.attn_q.weight" {
			x.Type, x.Shape = formats.Q8_0, []uint64{32, 48}
		}
	}
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := os.WriteFile(path, misshapen.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	whole := modelFile(t, "llama-Q4_K_M")
	for name, tt := range map[string]struct {
		args []string
		want []string
	}{
		"the screen": {[]string{path}, nil},
		"estimate":   {[]string{"estimate", path}, nil},
		"plan":       {[]string{"plan", path}, nil},
		"table":      {[]string{"table", path, "--by", "context"}, nil},
		"quants":     {[]string{"quants", path}, nil},
		"rules":      {[]string{"rules", path}, nil},
		"as a draft": {[]string{whole, "-md", path}, []string{"error: " + path + ": draft: llama.cpp", "hint: weigh check " + path}},
	} {
		t.Run(name, func(t *testing.T) {
			want := tt.want
			if want == nil {
				want = []string{"error: " + path + ": llama.cpp", "blk.0.attn_q.weight: is [32 48], llama.cpp wants [32 32]", "hint: weigh check " + path}
			}
			_, trouble, code := weigh(t, append(tt.args, "--gpu", "24GiB", "--host-memory", "64GiB")...)
			for _, w := range want {
				if code != exitError || !strings.Contains(trouble, w) {
					t.Errorf("exit code %d, %s; want %q", code, trouble, w)
				}
			}
		})
	}
}
