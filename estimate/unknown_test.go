package estimate

import (
	"reflect"
	"strings"
	"testing"

	"weigh/fixtures"
)

// novel is a model of the fixtures under the name of an architecture that
// llama.cpp does not have.
func novel(name string) *fixtures.GGUF {
	g := fixtures.Model(name)
	old := ""
	for _, kv := range g.KVs {
		if kv.Key == "general.architecture" {
			old = kv.Value.(string)
		}
	}
	for i := range g.KVs {
		if rest, ok := strings.CutPrefix(g.KVs[i].Key, old+"."); ok {
			g.KVs[i].Key = "novel." + rest
		}
	}
	return g.Set("general.architecture", "novel")
}

// What an architecture without a row is given is not below what it takes once
// llama.cpp knows it, and nothing of it is called exact.
func TestUnknownArchitectureIsBounded(t *testing.T) {
	for _, name := range []string{
		"Llama-3.2-1B-Q4_K_M", "Mamba-2.8B-Q4_K_M", "mamba2-Q4_K_M", "RWKV7-World-2.9B-Q4_K_M", "rwkv6-Q4_K_M", "Granite-4.0-H-Small-Q4_K_M",
		"GLM-4.5-Air-Q4_K_M", "Qwen3-Next-80B-A3B-Q4_K_M", "qwen35-mtp-Q4_K_M", "LFM2-1.2B-Q4_K_M", "kimi-linear-moe-Q4_K_M", "glm-dsa-mtp-Q4_K_M",
		"minimax-m3-moe-Q4_K_M", "hy_v3-mtp-Q4_K_M", "falcon-h1-Q4_K_M", "Gemma-3-4B-Q8_0", "gemma3n-Q4_K_M", "DeepSeek-R1-671B-Q4_K_M",
	} {
		known, unknown := load(t, name), read(t, novel(name))
		if all := strings.Join(unknown.Notes, "\n"); !strings.Contains(all, `no architecture "novel"`) {
			t.Errorf("%s: notes are %q, want one that llama.cpp does not have it", name, all)
		}
		for label, o := range map[string]Options{
			"one GPU":        {Devices: cards(1), NCtx: 8192},
			"half offloaded": {Devices: cards(1), NCtx: 8192, NGPULayers: new(known.NLayerAll / 2)},
			"none offloaded": {Devices: cards(1), NCtx: 4096, NGPULayers: new(0), NOutputs: new(0)},
			"no GPU":         {NCtx: 4096, NParallel: 4, KVUnified: new(false)},
			"with NextN":     {Devices: cards(2), NCtx: 4096, MTP: true},
		} {
			exact, err := Run(known, o)
			if err != nil {
				t.Fatalf("%s, %s: %v", name, label, err)
			}
			bound, err := Run(unknown, o)
			if err != nil {
				t.Errorf("%s, %s: %v", name, label, err)
				continue
			}
			if bound.Basis != (Bases{Modelled, Modelled, Modelled, Modelled}) {
				t.Errorf("%s, %s: the basis is %v, want modelled", name, label, bound.Basis)
			}
			for _, m := range append(bound.Devices, bound.Host...) {
				for _, term := range m.Terms {
					if term.Basis == Exact && term.Part != Overhead {
						t.Errorf("%s, %s: %s of %s is called exact", name, label, term.Name, m.Name)
					}
				}
			}
			below := func(where string, a, b [3]uint64) {
				for i, part := range []string{"weights", "context", "compute"} {
					if a[i] < b[i] {
						t.Errorf("%s, %s: %d bytes of %s on %s are below the %d it takes", name, label, a[i], part, where, b[i])
					}
				}
			}
			for i := range exact.Devices {
				u, e := bound.Devices[i], exact.Devices[i]
				below(e.Name, [3]uint64{u.Model, u.Context, u.Compute}, [3]uint64{e.Model, e.Context, e.Compute})
			}
			below("the host", host(bound), host(exact))
		}
	}
}

func host(b *Breakdown) (sum [3]uint64) {
	for _, m := range b.Host {
		sum[0], sum[1], sum[2] = sum[0]+m.Model, sum[1]+m.Context, sum[2]+m.Compute
	}
	return sum
}

// A file that is another architecture's in all but the name is read by its keys.
func TestUnknownArchitectureWithAnothersKeys(t *testing.T) {
	const name = "Granite-4.0-H-Small-Q4_K_M"
	m := read(t, fixtures.Model(name).Set("general.architecture", "novel"))
	own := read(t, novel(name))
	if !reflect.DeepEqual(m.HParams, own.HParams) {
		t.Errorf("the hyper-parameters are %+v, want %+v", m.HParams, own.HParams)
	}
	if all := strings.Join(m.Notes, "\n"); !strings.Contains(all, "the keys of granitehybrid") {
		t.Errorf("notes are %q, want one that the keys are of granitehybrid", all)
	}
}
