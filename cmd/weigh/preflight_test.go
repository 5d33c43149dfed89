package main

import (
	"testing"

	"weigh/estimate"
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
