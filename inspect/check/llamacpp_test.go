//go:build llamacpp

package check

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weigh/fixtures"
	"weigh/fixtures/llamacpp"
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
