//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestPipesAreNotWaitedFor(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	model := modelFile(t, "Llama-3.2-1B-Q4_K_M")
	hw := []string{"--gpu", "24GiB", "--host-memory", "64GiB"}
	for name, args := range map[string][]string{
		"the model":          {"inspect", pipe},
		"a benchmark":        append([]string{"plan", model, "--calibrate", pipe}, hw...),
		"a matrix":           {"quants", model, "--imatrix=" + pipe},
		"a log":              append([]string{"verify", model, "--log", pipe}, hw...),
		"a manifest":         {"check", model, "--manifest", pipe},
		"an adapter":         append([]string{"estimate", model, "--lora", pipe}, hw...),
		"a projector":        append([]string{"estimate", model, "--mmproj", pipe}, hw...),
		"a draft":            append([]string{"estimate", model, "-md", pipe}, hw...),
		"a model to compare": {"diff", model, pipe},
	} {
		t.Run(name, func(t *testing.T) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				if _, trouble, code := weigh(t, args...); code != exitError || !strings.HasPrefix(trouble, "weigh: error: ") {
					t.Errorf("exit code %d, %q", code, trouble)
				}
			}()
			select {
			case <-done:
			case <-time.After(time.Minute):
				t.Fatal("it waits for a writer")
			}
		})
	}
}

func TestPipesAreRead(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		time.Sleep(50 * time.Millisecond) // the reader finds a writer, and nothing yet
		_, _ = w.WriteString("one")
		time.Sleep(50 * time.Millisecond)
		w.Close()
	}()
	f, err := openText(pipe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 8)
	if n, err := f.Read(b); err != nil || string(b[:n]) != "one" {
		t.Errorf("%q, %v", b[:n], err)
	}
}
