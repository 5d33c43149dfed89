package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weigh/estimate/hw"
)

func TestCompletion(t *testing.T) {
	stores(t)
	for name, tt := range map[string]struct {
		line []string // the words of the command line, the last one being typed
		has  []string
		not  []string
	}{
		"sub-commands":                  {[]string{""}, []string{"scan", "estimate", "inspect"}, []string{"man"}},
		"models of Ollama":              {[]string{"inspect", "oll"}, []string{"ollama:llama3.2:1b"}, []string{"ollama:gone:latest", "hf:Qwen/Qwen3-0.6B"}},
		"models on the root":            {[]string{"hf:"}, []string{"hf:Qwen/Qwen3-0.6B"}, nil},
		"models in any case":            {[]string{"estimate", "HF:qwen/"}, []string{"hf:Qwen/Qwen3-0.6B"}, nil},
		"a model after -m":              {[]string{"estimate", "-m", "lmstudio:bart"}, []string{"lmstudio:bartowski/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Instruct-Q4_K_M"}, nil},
		"a repository after -hf":        {[]string{"estimate", "-hf", "Q"}, []string{"Qwen/Qwen3-0.6B"}, nil},
		"cards":                         {[]string{"estimate", "m.gguf", "--gpu", "RTX 309"}, []string{"RTX 3090"}, []string{"RTX 4090"}},
		"cards in one word":             {[]string{"estimate", "m.gguf", "--gpu", "RTX-309"}, []string{"RTX-3090", "RTX-3090-Ti"}, nil},
		"a card's maker first":          {[]string{"estimate", "m.gguf", "--gpu", "GeForce"}, []string{"GeForce-RTX-3090"}, []string{"GeForce RTX 3090"}},
		"several cards":                 {[]string{"plan", "m.gguf", "--gpu", "2xRTX 309"}, []string{"2xRTX 3090"}, nil},
		"flags of the server":           {[]string{"estimate", "m.gguf", "--cache-type"}, []string{"--cache-type-k", "--cache-type-v"}, nil},
		"flags of our own":              {[]string{"scan", "--so"}, []string{"--sort"}, []string{"--reverse"}},
		"values of the server's flags":  {[]string{"m.gguf", "-ctk", "q"}, []string{"q8_0", "q4_0"}, []string{"f16"}},
		"values of our own":             {[]string{"scan", "--sort", "s"}, []string{"size", "speed", "store"}, nil},
		"an order of a parsed command":  {[]string{"scan", "--only", ""}, []string{"fits", "broken"}, nil},
		"nothing for a number":          {[]string{"estimate", "m.gguf", "-ub", ""}, nil, []string{"ollama:llama3.2:1b"}},
		"nothing for a command without": {[]string{"doctor", ""}, nil, []string{"ollama:llama3.2:1b"}},
	} {
		t.Run(name, func(t *testing.T) {
			out, _, code := weigh(t, append([]string{"__complete"}, tt.line...)...)
			lines := strings.Split(out, "\n")
			for i, l := range lines {
				lines[i], _, _ = strings.Cut(l, "\t")
			}
			for _, want := range tt.has {
				if !slices.Contains(lines, want) {
					t.Errorf("exit code %d: %q is not in %q", code, want, out)
				}
			}
			for _, bad := range tt.not {
				if slices.Contains(lines, bad) {
					t.Errorf("%q is in %q", bad, out)
				}
			}
		})
	}
}

// TestCompletionOfCards holds that every card that is offered is the one meant,
// and one word.
func TestCompletionOfCards(t *testing.T) {
	names := completeGPU("")
	found := map[string]bool{}
	for _, name := range names[1:] {
		c, err := hw.Lookup(name)
		if err != nil || !plainWord(name) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		found[c.Name] = true
	}
	for _, c := range hw.Catalogue() {
		if !found[c.Name] {
			t.Errorf("%s is not offered", c.Name)
		}
	}
}

func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if out, trouble, code := weigh(t, "completion", shell); code != 0 || !strings.Contains(out, "weigh") || trouble != "" {
			t.Errorf("%s: exit code %d, %d bytes, %s", shell, code, len(out), trouble)
		}
	}
}

// TestMan holds that every command has a page that says its flags.
func TestMan(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	if _, trouble, code := weigh(t, "man", dir); code != 0 {
		t.Fatalf("exit code %d, %s", code, trouble)
	}
	for _, c := range newRootCmd().Commands() {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
			continue
		}
		page, err := os.ReadFile(filepath.Join(dir, "weigh-"+c.Name()+".1"))
		if err != nil {
			t.Error(err)
			continue
		}
		if !strings.Contains(string(page), ".TH") || !strings.Contains(string(page), "SYNOPSIS") {
			t.Errorf("%s: no manual page: %.200s", c.Name(), page)
		}
	}
	for page, says := range map[string]string{"weigh.1": `\-\-gpu`, "weigh-estimate.1": `\-\-cache\-type\-k`, "weigh-scan.1": `\-\-sort`} {
		b, err := os.ReadFile(filepath.Join(dir, page))
		if text := string(b); err != nil || !strings.Contains(text, says) && !strings.Contains(text, strings.ReplaceAll(says, `\`, "")) {
			t.Errorf("%s does not name %s: %v", page, says, err)
		}
	}
}
