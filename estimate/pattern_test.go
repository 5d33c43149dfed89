package estimate

import (
	"fmt"
	"testing"
)

func TestPattern(t *testing.T) {
	for expr, names := range map[string]map[string]bool{
		`\.ffn_(up|down)\.`:         {"blk.0.ffn_up.weight": true, "blk.0.ffn_gate.weight": false},
		`blk\.(?!0\.)[0-9]+\.attn_`: {"blk.0.attn_q.weight": false, "blk.1.attn_q.weight": true, "blk.10.attn_q.weight": true, "blk.10.ffn_up.weight": false},
		`blk\.([0-9])\1\.`:          {"blk.11.attn_q.weight": true, "blk.12.attn_q.weight": false},
	} {
		p, err := CompilePattern(expr)
		if err != nil {
			t.Fatalf("%s: %v", expr, err)
		}
		for name, want := range names {
			if got := p.Match(name); got != want {
				t.Errorf("%s matches %s: %v, want %v", expr, name, got, want)
			}
		}
	}
	if p, err := CompilePattern("("); err == nil {
		t.Errorf("( compiles to %v", p)
	}
}

// TestPatternsThatAgree holds that a pattern with lookahead places as the list of
// the layers it leaves over does.
func TestPatternsThatAgree(t *testing.T) {
	m := load(t, "Llama-3.1-8B-Q4_K_M")
	var list []Override
	for il := 1; il < m.NLayer(); il++ {
		list = append(list, Override{fmt.Sprintf(`blk\.%d\.ffn_`, il), "CPU"})
	}
	var weights [2]uint64
	for i, o := range [][]Override{list, {{`blk\.(?!0\.)[0-9]+\.ffn_`, "CPU"}}} {
		b, err := Run(m, Options{Devices: cards(1), NCtx: 4096, Overrides: o})
		if err != nil {
			t.Fatal(err)
		}
		weights[i] = b.Devices[0].Model
	}
	if weights[0] != weights[1] {
		t.Errorf("%d bytes of weights on the device by lookahead, %d by the list", weights[1], weights[0])
	}
}
