package main

import (
	"bytes"
	"encoding/json"
	"testing"
)

// TestPlacementHoldsOnlyMemory holds the parts of layers: each has bytes, and a cache
// in the host's memory is nowhere else.
func TestPlacementHoldsOnlyMemory(t *testing.T) {
	onMachine(t, "rx7900xtx")
	var out bytes.Buffer
	cmd := newPlacementCmd()
	cmd.SetOut(&out)
	cmd.SetArgs([]string{modelFile(t, "Llama-3.1-8B-Q4_K_M"), "--gpu", "24GiB", "--host-memory", "64GiB", "-ngl", "20", "-nkvo", "-c", "4096"})
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	var d placementDocument
	if err := json.Unmarshal(out.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	if d.Speed == nil || len(d.Layers) != 34 {
		t.Fatalf("speed %v, %d layers", d.Speed, len(d.Layers))
	}
	for _, l := range d.Layers {
		for _, p := range l.Parts {
			if p.Bytes == 0 || p.Kind == "cache" && p.Device != -1 {
				t.Errorf("layer %d: %s of %d bytes on %d", l.Index, p.Kind, p.Bytes, p.Device)
			}
		}
	}
}
