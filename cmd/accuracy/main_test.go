package main

import (
	"bytes"
	"strings"
	"testing"
)

// Every measured row is met to the byte, and refused where llama.cpp refuses
// it. With -short every eighth is looked at.
func TestMeasurements(t *testing.T) {
	o := &options{fit: true}
	tr, err := readTruth(o)
	if err != nil {
		t.Fatal(err)
	}
	if len(tr.rows) < 3000 || len(tr.fit) < 400 {
		t.Fatalf("%d rows and %d choices of --fit: the fixtures are not whole", len(tr.rows), len(tr.fit))
	}
	if testing.Short() {
		tr.rows, tr.fit = everyEighth(tr.rows), everyEighth(tr.fit)
	}
	for _, r := range tr.compare(o) {
		if r.noRow {
			t.Errorf("%s: architecture %s has no graph", r.id, r.Arch)
			continue
		}
		if r.wrong() {
			var b bytes.Buffer
			r.print(&b, false)
			t.Errorf("%s", strings.TrimSpace(b.String()))
		}
	}
	for _, r := range tr.fit {
		if r.noRow || r.err != nil || len(r.diffs) > 0 {
			var b bytes.Buffer
			r.print(&b)
			t.Errorf("%s", strings.TrimSpace(b.String()))
		}
	}
}

func everyEighth[T any](s []T) []T {
	var out []T
	for i := 0; i < len(s); i += 8 {
		out = append(out, s[i])
	}
	return out
}
