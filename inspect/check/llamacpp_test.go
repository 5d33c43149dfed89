//go:build llamacpp

package check

import (
	"flag"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"weigh/estimate"
	"weigh/fixtures"
	"weigh/fixtures/llamacpp"
	"weigh/inspect"
	"weigh/inspect/arch"
)

// TestLlamacppDemands asks llama.cpp to load each model without each of the keys
// that its architecture is said to need.
func TestLlamacppDemands(t *testing.T) {
	o, err := llamacpp.Start(t.Context(), llamacpp.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	path := filepath.Join(t.TempDir(), "m.gguf")
	refuses := func(name, key string) bool {
		g := fixtures.Model(name)
		g.KVs = slices.DeleteFunc(g.KVs, func(kv fixtures.KV) bool { return kv.Key == key })
		if err := g.WriteSparse(path); err != nil {
			t.Fatal(err)
		}
		s := llamacpp.Defaults()
		s.GPUs, s.NCtx = 0, 128
		r, _ := o.Ask(llamacpp.Job{GGUF: path, Settings: s}) // an abort is no answer here
		return strings.Contains(r.Error, "key not found in model: "+key)
	}
	asked, seen := 0, map[string]bool{}
	for _, name := range fixtures.Models() {
		g := fixtures.Model(name)
		prefix := value(g, "general.architecture").(string)
		row := arch.Lookup(prefix)
		if row == nil || seen[prefix] {
			continue
		}
		seen[prefix] = true
		for _, key := range row.Demands() {
			asked++
			if !refuses(name, prefix+"."+key) {
				t.Errorf("%s: llama.cpp does not refuse it without %s", name, key)
			}
		}
	}
	if asked < len(arch.Names()) {
		t.Errorf("%d keys were asked about, of %d architectures", asked, len(arch.Names()))
	}
}

var nFaults = flag.Int("faults", 4, "changes to each model, drawn at random; 0: all")

// TestLlamacppLoads changes each model in one thing at a time, a tensor or a key,
// and compares what check says of loading the file with what llama.cpp does.
func TestLlamacppLoads(t *testing.T) {
	rng := draws(t)
	o, err := llamacpp.Start(t.Context(), llamacpp.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	path := filepath.Join(t.TempDir(), "m.gguf")
	targets := draftTargets()
	for _, name := range fixtures.Models() {
		t.Run(name, func(t *testing.T) {
			s := llamacpp.Defaults()
			s.GPUs, s.NCtx = 0, 128
			if target := targets[name]; target != "" {
				s.Target = filepath.Join(t.TempDir(), target+".gguf")
				if err := fixtures.Model(target).WriteSparse(s.Target); err != nil {
					t.Fatal(err)
				}
			}
			g := fixtures.Model(name)
			all := append(append(lostTensors(g), addedTensors(t, g)...), changedKeys(g)...)
			rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			if *nFaults > 0 {
				all = all[:min(len(all), *nFaults)]
			}
			for _, c := range append(all, change{"whole", func(*fixtures.GGUF) {}}) {
				g := fixtures.Model(name)
				c.make(g)
				if err := g.WriteSparse(path); err != nil {
					t.Fatal(err)
				}
				r, err := o.Ask(llamacpp.Job{GGUF: path, Settings: s})
				if err != nil {
					r.Error = err.Error() // an abort
				}
				refused, why := refusal(t, path, s.Target)
				if refused == r.OK {
					t.Errorf("%s: refused %t: %q, llama.cpp %t: %.300q", c.what, refused, why, !r.OK, r.Error)
				}
			}
		})
	}
}

// draftTargets returns the models that the recorded drafts drafted for.
func draftTargets() map[string]string {
	of := map[string]string{}
	for _, row := range llamacpp.Measured() {
		if target, ok := strings.CutSuffix(row.Settings.Target, ".gguf"); ok {
			of[strings.TrimSuffix(row.GGUF, ".gguf")] = target
		}
	}
	return of
}

// refusal returns what check says of loading a file; target is the model that
// the file's model drafts for, if any.
func refusal(t *testing.T, path, target string) (refused bool, why string) {
	opts := estimate.Options{NCtx: 128}
	if target != "" {
		ins, err := inspect.Open(target)
		if err != nil {
			t.Fatal(err)
		}
		defer ins.Close()
		opts.Target, opts.TargetOptions = ins.Model, &estimate.Options{NCtx: 128}
	}
	ins, err := inspect.Open(path)
	if err != nil {
		return true, err.Error()
	}
	defer ins.Close()
	if ins.Model != nil {
		if _, err := estimate.Run(ins.Model, opts); err != nil {
			refused, why = true, err.Error()
		}
	}
	problems, modelRefused := Model(ins, nil)
	for _, p := range problems {
		if p.Severity == "warning" && modelRefused {
			why += " " + p.Code + " " + p.Field + " " + p.Message
		}
	}
	return refused || modelRefused, why
}

// TestLlamacppLoadsProjectors loses tensors of multimodal projectors, one at a
// time, and compares what check says of loading the file with what clip does.
func TestLlamacppLoadsProjectors(t *testing.T) {
	dir, err := llamacpp.Dir()
	if err != nil {
		t.Fatal(err)
	}
	rng := draws(t)
	path := filepath.Join(t.TempDir(), "mmproj.gguf")
	for range 12 {
		names := fixtures.Projectors()
		name := names[rng.IntN(len(names))]
		g := fixtures.Projector(name)
		lost := rng.IntN(len(g.Tensors))
		what := g.Tensors[lost].Name
		g.Tensors = slices.Delete(g.Tensors, lost, lost+1)
		if err := g.WriteSparse(path); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(filepath.Join(dir, "bin", "clip"), path, "cpu").CombinedOutput()
		refused, why := refusal(t, path, "")
		if refused != (err != nil) {
			t.Errorf("%s without %s: refused %t: %q, clip: %v %.300q", name, what, refused, why, err, out)
		}
	}
}

// draws returns the source of what is drawn at random: WEIGH_SEED's, or another
// each time.
func draws(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("WEIGH_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
