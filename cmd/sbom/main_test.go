package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestModulesOfAProgram(t *testing.T) {
	program := filepath.Join(t.TempDir(), "weigh")
	if out, err := exec.Command("go", "build", "-o", program, "weigh/cmd/weigh").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	var b bytes.Buffer
	if err := run(&b, []string{program}); err != nil {
		t.Fatal(err)
	}
	var doc document
	if err := json.Unmarshal(b.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	names := map[string]component{}
	for _, c := range doc.Components {
		names[c.Name] = c
	}
	for _, name := range []string{"github.com/spf13/pflag", "github.com/gpustack/gguf-parser-go", "github.com/dustin/go-humanize"} {
		if c := names[name]; c.Version == "" || c.PURL != "pkg:golang/"+name+"@"+c.Version || len(c.Properties) != 1 {
			t.Errorf("%s is listed as %+v", name, c)
		}
	}
	if err := run(&b, []string{"main.go"}); err == nil {
		t.Error("a source file has modules")
	}
}
