//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCompletionInBash completes in a real bash, without the bash-completion
// package: sub-commands, the values of flags, and names with colons.
func TestCompletionInBash(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash is here")
	}
	script, _, _ := weigh(t, "completion", "bash")
	dir := t.TempDir()
	put(t, []byte(script), dir, "completion")
	home := stores(t)
	if err := os.MkdirAll(filepath.Join(home, ".lmstudio", "models", "evil", "x;touch pwned", "y"), 0o755); err != nil {
		t.Fatal(err)
	}
	putModel(t, "Llama-3.2-1B-Q4_K_M", home, ".lmstudio", "models", "evil", "x;touch pwned", "y.gguf")
	put(t, []byte("#!/bin/sh\nIFS='\n'\n"+runAsProgram+"=\"$(printf '%s\\n' \"$@\"; echo x)\"\nexport "+runAsProgram+"="+"\"${"+runAsProgram+"%?x}\"\nexec "+os.Args[0]+" -test.run='^TestProgram$'\n"), dir, "weigh")
	if err := os.Chmod(filepath.Join(dir, "weigh"), 0o755); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"weigh sc|":                    "scan",
		"weigh m.gguf -ctk q8|":        "q8_0",
		"weigh plan --gpu RTX-409|":    "RTX-4090",
		"weigh ollama : llama3|":       "ollama:llama3.2:1b",
		"weigh inspect lmstudio : ev|": "",
	} {
		t.Run(line, func(t *testing.T) {
			words := strings.Fields(strings.TrimSuffix(line, "|"))
			typed := strings.ReplaceAll(strings.Join(words, " "), " : ", ":")
			quoted := make([]string, len(words))
			for i, w := range words {
				quoted[i] = quote(w)
			}
			cmd := exec.Command(bash, "--norc", "--noprofile", "-c", `PATH=`+quote(dir)+`:$PATH; compopt() { :; }; . completion
				COMP_WORDS=(`+strings.Join(quoted, " ")+`); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); COMP_LINE=`+quote(typed)+`; COMP_POINT=${#COMP_LINE}
				__start_weigh; printf '%s\n' "${COMPREPLY[@]}"`)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			got := strings.Fields(string(out))
			if want == "" && len(got) == 0 {
				return
			}
			if len(got) == 0 || !strings.HasSuffix(want, got[0]) || want == "" {
				t.Errorf("bash offers %q, want %q", got, want)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "pwned")); err == nil {
		t.Error("a model's name was run")
	}
}
