package main

import (
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestImportsPointOneWay keeps the packages in their order: bytes, header,
// model, estimate, plan, report.
func TestImportsPointOneWay(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}}: {{join .Imports \" \"}}", "weigh/...").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	// from: what a package whose path begins so may not import, by beginning.
	rules := []struct{ from, not, but string }{
		{"weigh/formats", "weigh/inspect weigh/estimate weigh/cmd weigh/fixtures", ""},
		{"weigh/inspect/model", "weigh/inspect/ weigh/estimate weigh/cmd weigh/fixtures weigh/formats/", ""},
		{"weigh/inspect", "weigh/estimate weigh/cmd weigh/fixtures", ""},
		{"weigh/estimate", "weigh/cmd weigh/fixtures weigh/formats/gguf weigh/formats/safetensors weigh/formats/hfconfig weigh/inspect/hf weigh/inspect/store os net net/http time", "weigh/estimate/hw/detect"},
		{"weigh/estimate", "weigh/estimate/hw/detect", ""},
		{"weigh/cmd/weigh/internal", "weigh/cmd/weigh/serve", ""},
		{"weigh/fixtures", "weigh/cmd weigh/estimate weigh/inspect", "weigh/fixtures/llamacpp"},
	}
	matches := func(pkg, list string) bool {
		for _, p := range strings.Fields(list) {
			if pkg == p || strings.HasPrefix(pkg, strings.TrimSuffix(p, "/")+"/") {
				return true
			}
		}
		return false
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		pkg, imports, _ := strings.Cut(strings.TrimSpace(line), ": ")
		seen++
		for _, r := range rules {
			if !matches(pkg, r.from) || r.but != "" && matches(pkg, r.but) {
				continue
			}
			for _, imp := range strings.Fields(imports) {
				if imp != pkg && matches(imp, r.not) && !matches(imp, pkg) {
					t.Errorf("%s imports %s", pkg, imp)
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("go list named %d packages only", seen)
	}
}

// TestArchitecturesAreRows keeps what is known of single architectures in their
// table, and in that of Hugging Face's classes: nothing else asks for a name.
func TestArchitecturesAreRows(t *testing.T) {
	named := regexp.MustCompile(`\.Arch(itecture)? *[!=]= *"[a-z]|switch .*\.Arch(itecture)? *{`)
	root, seen := os.DirFS("../.."), 0
	err := fs.WalkDir(root, ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "inspect/arch/") || strings.HasPrefix(path, "inspect/hf/") {
			return err
		}
		src, err := fs.ReadFile(root, path)
		seen++
		if found := named.Find(src); found != nil {
			t.Errorf("%s: %s", path, found)
		}
		return err
	})
	if err != nil || seen < 100 {
		t.Errorf("%d files read: %v", seen, err)
	}
}
