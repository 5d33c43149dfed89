package main

import (
	"encoding/json"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// tuningOf returns the knobs of a model of the fixtures.
func tuningOf(t *testing.T, model string, args ...string) (*tuning, string) {
	t.Helper()
	onMachine(t, "rx7900xtx")
	path := modelFile(t, model)
	r := &request{}
	cmd := &cobra.Command{}
	cmd.SetContext(t.Context())
	addRequestFlags(cmd.Flags(), r)
	s, err := prepare(cmd, r, append([]string{path}, args...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	tune, err := newTuning(cmd, s)
	if err != nil {
		t.Fatal(err)
	}
	return tune, path
}

func knobOf(t *testing.T, tune *tuning, name string) int {
	t.Helper()
	for i, k := range tune.knobs {
		if k.name == name {
			return i
		}
	}
	t.Fatalf("no knob %q", name)
	return 0
}

// TestTuneIsEstimate holds that the screen's bytes are those of weigh estimate
// for the line it shows, wherever the knobs are.
func TestTuneIsEstimate(t *testing.T) {
	for name, tt := range map[string]struct {
		model string
		args  []string
		turns map[string]int
	}{
		"as it begins":             {"Llama-3.1-8B-Q4_K_M", []string{"--gpu", "8GiB", "--host-memory", "32GiB"}, nil},
		"fewer layers, more cache": {"Llama-3.1-8B-Q4_K_M", []string{"--gpu", "24GiB", "--host-memory", "32GiB", "-c", "8192", "--port", "8081"}, map[string]int{"layers on GPUs": -9, "context": 3, "sequences": 2}},
		"smaller cache types":      {"Llama-3.2-1B-Q4_K_M", []string{"--gpu", "4GiB", "--host-memory", "32GiB", "-ctk=q8_0", "-fa", "on"}, map[string]int{"cached values": -1, "micro-batch": -2}},
		"experts on the host":      {"Qwen3-30B-A3B-Q4_K_M", []string{"--gpu", "12GiB", "--host-memory", "64GiB", "-c", "8192"}, map[string]int{"experts on the CPU": 5}},
		"no card":                  {"Llama-3.2-1B-Q4_K_M", []string{"--gpu", "none", "--host-memory", "16GiB"}, map[string]int{"context": -4}},
	} {
		t.Run(name, func(t *testing.T) {
			tune, path := tuningOf(t, tt.model, tt.args...)
			for knob, steps := range tt.turns {
				tune.turn(knobOf(t, tune, knob), steps)
			}
			if tune.now.err != nil {
				t.Fatal(tune.now.err)
			}
			args := append([]string{"estimate", "--json", "-fit", "off"}, tune.args()...)
			for i := 0; i < len(tt.args); i++ {
				if a := tt.args[i]; a == "--gpu" || a == "--host-memory" {
					args = append(args, a, tt.args[i+1])
					i++
				}
			}
			out, trouble, code := weigh(t, args...)
			var want estimateDocument
			if err := json.Unmarshal([]byte(out), &want); err != nil {
				t.Fatalf("exit code %d, %s: %v", code, trouble, err)
			}
			got := newEstimateDocument(tune.now.s)
			if len(got.Devices) != len(want.Devices) || got.Host.Total != want.Host.Total || got.Fits != want.Fits {
				t.Fatalf("host %d, fits %v; weigh estimate %q says %d, %v", got.Host.Total, got.Fits, args, want.Host.Total, want.Fits)
			}
			for i := range got.Devices {
				if got.Devices[i].Total != want.Devices[i].Total {
					t.Errorf("%s: %d bytes; weigh estimate %q says %d", got.Devices[i].Name, got.Devices[i].Total, args, want.Devices[i].Total)
				}
			}
			if strings.Count(strings.Join(tune.now.words, " "), "-ctk") > 1 || !strings.Contains(strings.Join(tune.now.words, " "), filepath.Base(path)) {
				t.Errorf("the line is %q", tune.now.words)
			}
		})
	}
}

// TestTuneSpills holds that experts which --fit moves to the host begin there.
func TestTuneSpills(t *testing.T) {
	tune, _ := tuningOf(t, "Qwen3-30B-A3B-Q4_K_M", "--gpu", "12GiB", "--host-memory", "64GiB", "-c", "8192")
	i := knobOf(t, tune, "experts on the CPU")
	if tune.knobs[i].at == 0 || !tune.now.fits() {
		t.Fatalf("%s experts on the CPU, fits %v", tune.knobs[i].value(), tune.now.fits())
	}
	if tune.turn(i, -1); tune.now.fits() {
		t.Error("one layer more on the card fits as well")
	}
}

func TestTuneKeys(t *testing.T) {
	tune, _ := tuningOf(t, "Llama-3.1-8B-Q4_K_M", "--gpu", "8GiB", "--host-memory", "32GiB", "-c", "8192")
	s := &screen{t: tune, width: 80, height: 30}
	start := s.draw()
	context := tune.knobs[0]
	for _, step := range []struct{ key, value string }{
		{"right", "10240"}, {"left", "8192"}, {"end", "131072"}, {"right", "131072"}, {"home", "512"}, {"left", "512"}, {"pgup", "2048"},
	} {
		if s.press(step.key); context.value() != step.value {
			t.Errorf("after %s the context is %s, want %s", step.key, context.value(), step.value)
		}
	}
	s.press("r")
	if s.draw() != start {
		t.Error("reset does not bring the first screen back")
	}
	s.press("up")
	for range 20 {
		s.press("down")
	}
	if s.chosen != len(tune.knobs)-1 {
		t.Errorf("knob %d is chosen, want the last", s.chosen)
	}
	if s.press("enter") == nil || !s.take {
		t.Error("enter does not leave with the line")
	}
}

// TestTuneScreen holds that the screen is as wide and high as the terminal at
// most, at any size, and says the same as ever.
func TestTuneScreen(t *testing.T) {
	tune, path := tuningOf(t, "Llama-3.1-8B-Q4_K_M", "--gpu", "8GiB", "--host-memory", "32GiB", "-c", "8192")
	for i := range tune.now.words {
		tune.now.words[i] = strings.ReplaceAll(tune.now.words[i], path, "/models/m.gguf")
	}
	golden(t, "tune/Llama-3.1-8B-Q4_K_M", []byte((&screen{t: tune, width: 90, height: 32}).draw()+"\n"))
	for _, width := range []int{0, 1, 10, 40, 200} {
		for _, height := range []int{0, 1, 10, 60} {
			view := (&screen{t: tune, width: width, height: height}).draw()
			lines := strings.Split(view, "\n")
			if len(lines) > max(height, 1) {
				t.Errorf("%dx%d: %d lines", width, height, len(lines))
			}
			for _, l := range lines {
				if n := len([]rune(l)); n > max(width, 48) {
					t.Errorf("%dx%d: %d columns: %q", width, height, n, l)
				}
			}
		}
	}
}

func TestTuneWantsATerminal(t *testing.T) {
	onMachine(t, "rx7900xtx")
	out, trouble, code := weigh(t, "tune", modelFile(t, "Llama-3.2-1B-Q4_K_M"))
	if code != exitError || out != "" || !strings.Contains(trouble, "wants a terminal") {
		t.Errorf("exit code %d, %q, %q", code, out, trouble)
	}
}

func TestBreakWords(t *testing.T) {
	words := []string{"llama-server", "-m", "'a model with spaces.gguf'", "-c", "8192"}
	lines := breakWords(words, 30)
	joined := strings.ReplaceAll(strings.Join(lines, "\n"), " \\\n  ", " ")
	if joined != strings.Join(words, " ") {
		t.Errorf("broken into %q", lines)
	}
	if got := breakWords([]string{strings.Repeat("x", 100)}, 30); len(got) != 4 {
		t.Errorf("a long word became %s lines", strconv.Itoa(len(got)))
	}
}
