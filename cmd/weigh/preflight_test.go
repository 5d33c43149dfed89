package main

import (
	"path/filepath"
	"strings"
	"testing"

	"weigh/estimate"
	"weigh/fixtures"
)

func TestJoinOverrides(t *testing.T) {
	for name, tt := range map[string]struct {
		in   []estimate.Override
		want string
	}{
		"none":                          {nil, ""},
		"one layer":                     {[]estimate.Override{{Pattern: `blk\.3\.ffn_down`, Buffer: "CPU"}}, `blk\.3\.ffn_down=CPU`},
		"layers that differ in nothing": {[]estimate.Override{{Pattern: `blk\.3\.x`, Buffer: "CPU"}, {Pattern: `blk\.12\.x`, Buffer: "CPU"}}, `blk\.(3|12)\.x=CPU`},
		"two buffers":                   {[]estimate.Override{{Pattern: `blk\.3\.x`, Buffer: "CUDA1"}, {Pattern: `blk\.4\.x`, Buffer: "CPU"}, {Pattern: `blk\.5\.x`, Buffer: "CPU"}}, `blk\.3\.x=CUDA1,blk\.(4|5)\.x=CPU`},
		"a layer with two patterns, whose order counts": {[]estimate.Override{{Pattern: `blk\.3\.x`, Buffer: "CUDA1"}, {Pattern: `blk\.4\.x`, Buffer: "CUDA1"}, {Pattern: `blk\.3\..*`, Buffer: "CPU"}}, `blk\.3\.x=CUDA1,blk\.4\.x=CUDA1,blk\.3\..*=CPU`},
		"a pattern that names no layer":                 {[]estimate.Override{{Pattern: `blk\.3\.x`, Buffer: "CPU"}, {Pattern: `exps`, Buffer: "CPU"}}, `blk\.3\.x=CPU,exps=CPU`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := joinOverrides(tt.in); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{
		"model.gguf": "model.gguf", "a b": "'a b'", "it's": `'it'\''s'`, "": "''", "$(x)": "'$(x)'", `blk\.(3|12)\.x=CPU`: `'blk\.(3|12)\.x=CPU'`,
	} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) is %s, want %s", in, got, want)
		}
	}
}

// The line to run asks for the context that was weighed, not for what llama.cpp
// rounds it up to: the batch, and with it the compute buffers, would be larger.
func TestTheLineToRunIsWhatWasWeighed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := fixtures.Model("llama-Q4_K_M").Set("llama.context_length", uint32(300)).WriteSparse(path); err != nil {
		t.Fatal(err)
	}
	machine := []string{"--gpu", "24GiB", "--host-memory", "64GiB"}
	var d estimateDocument
	weighJSON(t, 0, &d, append([]string{path}, machine...)...)
	_, flags, ok := strings.Cut(d.Command, path)
	if !ok || !strings.Contains(flags, "-c 1200 ") {
		t.Fatalf("the line is %q, want -c 1200: four sequences of 300 tokens", d.Command)
	}
	var again estimateDocument
	weighJSON(t, 0, &again, append(append([]string{"estimate", path}, strings.Fields(flags)...), machine...)...)
	if again.Devices[0].Compute != d.Devices[0].Compute || again.Settings.NBatch != d.Settings.NBatch {
		t.Errorf("it takes %d bytes for a batch of %d, %d for %d were weighed", again.Devices[0].Compute, again.Settings.NBatch, d.Devices[0].Compute, d.Settings.NBatch)
	}
}
