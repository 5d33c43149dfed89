package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"weigh/estimate/hw"
	"weigh/estimate/hw/detect"
)

// An apiCommand is a command that the page may run. The answer is the document
// that the command prints with --json, byte for byte.
type apiCommand struct {
	make func() *cobra.Command
	on   target
}

// A target is what a command of the API is about.
type target uint8

const (
	aModel     target = iota // the one that is asked for
	theMachine               // no model
	theLibrary               // the folders that weigh serve was given, or the stores
)

var apiCommands = map[string]apiCommand{
	"estimate":  {newEstimateCmd, aModel},
	"inspect":   {newInspectCmd, aModel},
	"quants":    {newQuantsCmd, aModel},
	"plan":      {newPlanCmd, aModel},
	"placement": {newPlacementCmd, aModel},
	"ladder":    {newLadderCmd, aModel},
	"gpus":      {newGPUsCmd, theMachine},
	"scan":      {newScanCmd, theLibrary},
}

// apiFlags are the flags that the page may give: how many words follow them.
// None of them names a file or a host. Those of apiModelFlags name a model of
// the library.
var (
	apiFlags = map[string]int{
		"-c": 1, "-b": 1, "-ub": 1, "-np": 1, "-kvu": 0, "-no-kvu": 0, "-fa": 1, "-ctk": 1, "-ctv": 1, "-nkvo": 0, "--swa-full": 0,
		"-ngl": 1, "-sm": 1, "-ts": 1, "-mg": 1, "-dev": 1, "-ot": 1, "-cmoe": 0, "-ncmoe": 1, "-ncffn": 1, "--n-cpu-ffn": 1,
		"-cram": 1, "-ctxcp": 1, "-fit": 1, "-fitt": 1, "-fitc": 1, "--no-host": 0, "--no-repack": 0, "--no-mmap": 0,
		"--gpu": 1, "--host-memory": 1, "--backend": 1, "--reserve": 1, "--n-outputs-max": 1, "--mtp": 0, "--explain": 0,
		"--metadata": 0, "--tensors": 0, "--full": 0, "--catalog": 0, "--type": 1, "--sizes-only": 0, "--over": 1,
		"--sort": 1, "--reverse": 0, "--filter": 1, "--only": 1, "--quick": 0,
		"--prefer": 1, "--min-tps": 1, "--ctx": 1,
	}
	apiModelFlags = map[string]bool{"-mm": true, "-md": true}
)

// newAPI returns the API over the models of lib.
func newAPI(lib *library) http.Handler {
	mux := http.NewServeMux()
	var m recent
	mux.HandleFunc("GET /api/models", func(w http.ResponseWriter, r *http.Request) {
		if _, err := lib.list(r.Context()); err != nil {
			refuse(w, http.StatusInternalServerError, err)
			return
		}
		writeDocument(w, http.StatusOK, lib.document())
	})
	for name, c := range apiCommands {
		run := func(w http.ResponseWriter, r *http.Request) { lib.answer(w, m.in(r), c) }
		mux.HandleFunc("GET /api/"+name, run)
		mux.HandleFunc("POST /api/"+name, run)
	}
	return mux
}

// A recent is the machine as it was detected a moment ago: asking a driver takes
// longer than an estimate, and a bar that follows the hand needs many.
type recent struct {
	mu       sync.Mutex
	until    time.Time
	machine  hw.Machine
	findings []detect.Finding
}

// recentKey finds the recent of a context.
type recentKey struct{}

// in returns the request with the recent in its context.
func (m *recent) in(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), recentKey{}, m))
}

// detected returns the machine, as it was up to two seconds ago where the
// context has a recent.
func detected(ctx context.Context) (hw.Machine, []detect.Finding) {
	m, ok := ctx.Value(recentKey{}).(*recent)
	if !ok {
		return detect.Machine(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Now().After(m.until) {
		m.machine, m.findings = detect.Machine(context.WithoutCancel(ctx))
		m.until = time.Now().Add(2 * time.Second)
	}
	now := m.machine
	now.Devices = slices.Clone(now.Devices)
	return now, m.findings
}

// A question is what the page asks of a command.
type question struct {
	Model string   `json:"model"`
	Args  []string `json:"args"`
}

// answer runs a command for a request.
func (lib *library) answer(w http.ResponseWriter, r *http.Request, c apiCommand) {
	q, status, err := readQuestion(r)
	if err != nil {
		refuse(w, status, err)
		return
	}
	if err := lib.allow(&q, c); err != nil {
		refuse(w, http.StatusForbidden, err)
		return
	}
	var args []string
	switch c.on {
	case aModel:
		args = append(args, q.Model)
	case theLibrary:
		args = append(args, lib.folders()...)
	}
	out, err := runCommand(r.Context(), c.make(), append(append(args, q.Args...), "--json"))
	switch {
	case errors.Is(err, errNo), err == nil:
		w.Header().Set("Weigh-Exit", strconv.Itoa(map[bool]int{true: exitOK, false: exitNo}[err == nil]))
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(out)
	case errors.Is(err, fs.ErrNotExist):
		refuse(w, http.StatusNotFound, err)
	default:
		refuse(w, http.StatusUnprocessableEntity, err)
	}
}

// runCommand runs a command as the command line does and returns what it prints.
func runCommand(ctx context.Context, cmd *cobra.Command, args []string) ([]byte, error) {
	var out, trouble bytes.Buffer
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&trouble)
	err := cmd.ExecuteContext(ctx)
	return out.Bytes(), err
}

// readQuestion reads a question: JSON that is posted, or the query model=…&arg=….
func readQuestion(r *http.Request) (q question, status int, err error) {
	if r.Method == http.MethodGet {
		v := r.URL.Query()
		return question{v.Get("model"), v["arg"]}, 0, nil
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return q, http.StatusUnsupportedMediaType, errors.New("want Content-Type: application/json")
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		var long *http.MaxBytesError
		if errors.As(err, &long) {
			return q, http.StatusRequestEntityTooLarge, err
		}
		return q, http.StatusBadRequest, fmt.Errorf("request: %w", err)
	}
	return q, 0, nil
}

// allow refuses models that are not in the library and flags that could name
// other files or hosts. It puts the models' paths in the place of what the page
// was shown of them.
func (lib *library) allow(q *question, c apiCommand) error {
	model := func(word *string) error {
		path, ok := lib.path(*word)
		if !ok {
			return fmt.Errorf("%q is not among the models that weigh serve was given", *word)
		}
		*word = path
		return nil
	}
	if c.on == aModel {
		if err := model(&q.Model); err != nil {
			return err
		}
	}
	if c.on == theLibrary && len(lib.names) > 0 && len(lib.folders()) == 0 {
		return errors.New("weigh serve was given no folder to scan")
	}
	for i := 0; i < len(q.Args); i++ {
		flag := q.Args[i]
		values, known := apiFlags[flag]
		if apiModelFlags[flag] {
			values, known = 1, true
		}
		if !known {
			return fmt.Errorf("the page may not use %q", flag)
		}
		if values == 0 {
			continue
		}
		if i++; i == len(q.Args) {
			return fmt.Errorf("%s wants a value after it", flag)
		}
		if value := q.Args[i]; strings.HasPrefix(value, "-") && !isDigits(value[1:]) {
			return fmt.Errorf("%s: %q is no value", flag, value)
		}
		if apiModelFlags[flag] {
			if err := model(&q.Args[i]); err != nil {
				return fmt.Errorf("%s: %w", flag, err)
			}
		}
	}
	return nil
}

func isDigits(s string) bool {
	return s != "" && !slices.ContainsFunc([]byte(s), func(b byte) bool { return b < '0' || b > '9' })
}

// An errorDocument is the answer to what cannot be answered.
type errorDocument struct {
	Schema int    `json:"schema"`
	Error  string `json:"error"`
	Hint   string `json:"hint,omitempty"`
}

func refuse(w http.ResponseWriter, status int, err error) {
	writeDocument(w, status, errorDocument{1, err.Error(), hintFor(err)})
}

func writeDocument(w http.ResponseWriter, status int, document any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = writeJSON(w, document)
}
