package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weigh/fixtures"
)

// serving serves the named models as weigh serve does, and returns the address.
func serving(t *testing.T, names ...string) string {
	t.Helper()
	lib := &library{names: names}
	if _, err := lib.list(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, l, newAPI(lib)) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("serve ended with %v", err)
		}
	})
	return "http://" + l.Addr().String()
}

// post asks a command of the API.
func post(t *testing.T, base, command, model string, args ...string) (status int, body string) {
	t.Helper()
	q, err := json.Marshal(question{model, args})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.Post(base+"/api/"+command, "application/json", bytes.NewReader(q))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// TestServeIsTheCommandLine holds that the API answers what the command line
// prints, byte for byte.
func TestServeIsTheCommandLine(t *testing.T) {
	onMachine(t, "rx7900xtx")
	path := modelFile(t, "Qwen3-30B-A3B-Q4_K_M")
	base := serving(t, path)
	machine := []string{"--gpu", "RTX 3060", "--host-memory", "64GiB"}
	for name, tt := range map[string]struct {
		command string
		args    []string
	}{
		"estimate":                    {"estimate", append([]string{"-ngl", "20", "-c", "8192", "-ctk", "q8_0"}, machine...)},
		"an estimate that is no":      {"estimate", append([]string{"-c", "32768", "-ngl", "99"}, machine...)},
		"an estimate on this machine": {"estimate", []string{"-c", "4096", "--host-memory", "64GiB"}},
		"inspect":                     {"inspect", []string{"--metadata", "--tensors"}},
		"plan":                        {"plan", machine},
		"quants":                      {"quants", append([]string{"-c", "4096"}, machine...)},
	} {
		t.Run(name, func(t *testing.T) {
			want, trouble, code := weigh(t, append(append([]string{tt.command, path}, tt.args...), "--json")...)
			if code == exitError {
				t.Fatal(trouble)
			}
			status, got := post(t, base, tt.command, path, tt.args...)
			if status != http.StatusOK || got != want {
				t.Errorf("status %d; POST answers %s\nthe command line says %s", status, got, want)
			}
			r, err := http.Get(base + "/api/" + tt.command + "?" + url.Values{"model": {path}, "arg": tt.args}.Encode())
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			if b, _ := io.ReadAll(r.Body); string(b) != want {
				t.Errorf("GET answers %s\nthe command line says %s", b, want)
			}
			if exit := r.Header.Get("Weigh-Exit"); exit != string(rune('0'+code)) {
				t.Errorf("Weigh-Exit %q, want %d", exit, code)
			}
		})
	}
	want, _, _ := weigh(t, "gpus", "--gpu", "RTX 4090", "--json")
	if _, got := post(t, base, "gpus", "", "--gpu", "RTX 4090"); got != want {
		t.Errorf("gpus answers %s\nthe command line says %s", got, want)
	}
}

// TestServeRefuses holds that no request reaches a file, a host or a command
// that the user did not name.
func TestServeRefuses(t *testing.T) {
	onMachine(t, "rx7900xtx")
	path := modelFile(t, "Llama-3.2-1B-Q4_K_M")
	other := modelFile(t, "Llama-3.2-1B-F16")
	base := serving(t, path)
	for name, tt := range map[string]struct {
		command, model string
		args           []string
		status         int
		says           string
	}{
		"another model":             {"estimate", other, nil, 403, "is not among the models"},
		"no model":                  {"estimate", "", nil, 403, "is not among the models"},
		"a folder above":            {"inspect", filepath.Dir(path), nil, 403, "is not among the models"},
		"the same file otherwise":   {"inspect", filepath.Dir(path) + "/./" + filepath.Base(path), nil, 403, "is not among the models"},
		"another model by a flag":   {"estimate", path, []string{"-m", other}, 403, `may not use "-m"`},
		"another model as a word":   {"estimate", path, []string{other}, 403, "may not use"},
		"another model as a value":  {"estimate", path, []string{"-mm", other}, 403, "is not among the models"},
		"an adapter":                {"estimate", path, []string{"--lora", other}, 403, "may not use"},
		"a host to connect to":      {"estimate", path, []string{"--rpc", "192.0.2.1:50052"}, 403, "may not use"},
		"an importance matrix":      {"quants", path, []string{"--imatrix=/etc/passwd"}, 403, "may not use"},
		"a bench to read":           {"plan", path, []string{"--calibrate", "/etc/passwd"}, 403, "may not use"},
		"a flag instead of a value": {"estimate", path, []string{"--gpu", "--rpc"}, 403, "is no value"},
		"a value that is missing":   {"estimate", path, []string{"-c"}, 403, "wants a value"},
		"a scan without a folder":   {"scan", "", nil, 403, "no folder"},
		"a value out of range":      {"estimate", path, []string{"-c", "-7"}, 422, "-c -7"},
		"an unknown card":           {"estimate", path, []string{"--gpu", "RTX 9999"}, 422, "RTX 9999"},
		"what llama.cpp refuses":    {"estimate", path, []string{"-ctv", "q8_0", "-fa", "off"}, 422, "flash attention"},
		"a pattern that is none":    {"estimate", path, []string{"-ot", "(=CPU"}, 422, "("},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := post(t, base, tt.command, tt.model, tt.args...)
			var d errorDocument
			if err := json.Unmarshal([]byte(body), &d); err != nil {
				t.Fatalf("%q: %v", body, err)
			}
			if status != tt.status || d.Schema != 1 || !strings.Contains(d.Error, tt.says) {
				t.Errorf("status %d, %q; want %d, %q", status, d.Error, tt.status, tt.says)
			}
		})
	}
	for name, tt := range map[string]struct {
		kind, body string
		want       int
	}{
		"a form":         {"application/x-www-form-urlencoded", "model=x", 415},
		"text":           {"text/plain", `{"model":"x"}`, 415},
		"no JSON":        {"application/json", "model", 400},
		"unknown fields": {"application/json", `{"path":"x"}`, 400},
		"a long body":    {"application/json", `{"model":"` + strings.Repeat("x", 1<<20) + `"}`, 413},
	} {
		r, err := http.Post(base+"/api/estimate", tt.kind, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != tt.want {
			t.Errorf("%s: status %d, want %d", name, r.StatusCode, tt.want)
		}
	}
	for _, command := range []string{"check", "serve", "demo", "..", "estimate/x"} {
		if status, _ := post(t, base, command, path); status != 404 && status != 405 {
			t.Errorf("command %q: status %d", command, status)
		}
	}
}

// TestServeLibrary holds what is listed, and that what vanishes is said.
func TestServeLibrary(t *testing.T) {
	onMachine(t, "rx7900xtx")
	path := modelFile(t, "Llama-3.2-1B-Q4_K_M")
	dir := filepath.Dir(path)
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("no model"), 0o644); err != nil {
		t.Fatal(err)
	}
	base := serving(t, dir)
	r, err := http.Get(base + "/api/models")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var d libraryDocument
	if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
		t.Fatal(err)
	}
	if len(d.Models) != 1 || d.Models[0].Path != path || d.Models[0].Bytes == nil {
		t.Fatalf("the library is %+v", d)
	}
	want, _, _ := weigh(t, "scan", dir, "--gpu", "8GiB", "--json")
	if _, got := post(t, base, "scan", "", "--gpu", "8GiB"); got != want {
		t.Errorf("scan answers %s\nthe command line says %s", got, want)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if status, body := post(t, base, "estimate", path); status != 404 || !strings.Contains(body, "no such file") {
		t.Errorf("a vanished file: status %d, %s", status, body)
	}
}

// A name that is not UTF-8 reads in JSON as another one, by which it is opened.
func TestServeOpensNamesThatAreNotUTF8(t *testing.T) {
	onMachine(t, "rx7900xtx")
	dir := t.TempDir()
	for _, name := range []string{"caf\xe9.gguf", "caf\xe8.gguf", "plain.gguf"} {
		if err := fixtures.Model("llama-Q4_K_M").WriteSparse(filepath.Join(dir, name)); err != nil {
			t.Skip("this system has no such names:", err)
		}
	}
	base := serving(t, dir)
	r, err := http.Get(base + "/api/models")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var d libraryDocument
	if err := json.NewDecoder(r.Body).Decode(&d); err != nil || len(d.Models) != 3 {
		t.Fatalf("the library is %+v, %v; want 3 models", d, err)
	}
	faults := 0
	for _, m := range d.Models {
		if m.Fault != "" {
			faults++
			continue
		}
		if status, body := post(t, base, "estimate", m.Path, "-c", "4096", "--gpu", "24GiB"); status != 200 {
			t.Errorf("%q: status %d, %s", m.Path, status, body)
		}
	}
	if faults != 1 {
		t.Errorf("%d of two that read the same cannot be opened, want 1", faults)
	}
}

func TestServeCannotListen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, tt := range map[string]struct{ listen, says string }{
		"a port in use":    {l.Addr().String(), "--listen 127.0.0.1:0 takes any free port"},
		"no port":          {"127.0.0.1", "want address:port"},
		"a name":           {"example.com:8117", "want an IP address"},
		"every address":    {":8117", "want an IP address"},
		"a port too large": {"127.0.0.1:99999", "invalid port"},
	} {
		t.Run(name, func(t *testing.T) {
			_, trouble, code := weigh(t, "serve", "--listen", tt.listen, "--demo")
			if code != exitError || !strings.HasPrefix(trouble, "weigh: error: --listen ") || !strings.Contains(trouble, tt.says) {
				t.Errorf("exit code %d, %q does not say %q", code, trouble, tt.says)
			}
		})
	}
	if _, trouble, code := weigh(t, "serve", "--listen", "127.0.0.1:0", filepath.Join(t.TempDir(), "none.gguf")); code != exitError || !strings.Contains(trouble, "no such file") {
		t.Errorf("a model that is not there: exit code %d, %q", code, trouble)
	}
}

// TestServeStops holds that an answer that is under way is finished.
func TestServeStops(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	begun := make(chan struct{})
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-ctx.Done()
		time.Sleep(20 * time.Millisecond)
		_, _ = io.WriteString(w, "whole")
	})
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, l, api) }()
	answer := make(chan string, 1)
	go func() {
		r, err := http.Get("http://" + l.Addr().String() + "/api/x")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		answer <- string(b)
	}()
	<-begun
	stop()
	if got := <-answer; got != "whole" {
		t.Errorf("answer %q", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("serve ended with %v", err)
	}
}
