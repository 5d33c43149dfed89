package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"weigh/cmd/weigh/internal/llama"
	"weigh/cmd/weigh/internal/render"
	"weigh/estimate"
	"weigh/formats"
	"weigh/inspect"
)

// verifyFlags say what to verify against.
type verifyFlags struct{ log, dir string }

// newVerifyCmd returns the sub-command that compares our figures with
// llama.cpp's own.
func newVerifyCmd() *cobra.Command {
	r := &request{}
	var o verifyFlags
	cmd := &cobra.Command{
		Use:   "verify MODEL [llama-server flags]",
		Short: "Our figures against the llama.cpp installed on this machine, or its log",
		Long: `Verify compares what weigh predicts with what llama.cpp says, per device and per
part. It runs llama-fit-params where that is installed, or reads a saved log of
llama-server (-lv 4, or --log-jsonl); the context, batch and layers that a log
states are taken from it unless flags say otherwise.

Exit codes: 0 the same, 1 they differ, 2 nothing to compare with.`,
		Example: `  weigh verify model.gguf -ngl 33 -c 8192
  weigh verify model.gguf --llama-cpp ~/llama.cpp/build/bin
  llama-server -m model.gguf -lv 4 2> server.log
  weigh verify model.gguf --gpu "RTX 4090" --log server.log`,
		DisableFlagParsing: true,
		RunE: weighing(r, func(cmd *cobra.Command, s *session) error {
			d, err := verify(cmd.Context(), s, &o)
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			if r.json {
				err = writeJSON(w, d)
			} else {
				printVerification(w, render.StyleOf(w), d)
			}
			if err == nil && !d.Same {
				return errNo
			}
			return err
		}),
	}
	addRequestFlags(cmd.Flags(), r)
	cmd.Flags().StringVar(&o.log, "log", "", "compare with this saved log `FILE` of llama.cpp; - reads the standard input")
	cmd.Flags().StringVar(&o.dir, "llama-cpp", "", "folder with llama-fit-params; default: where the shell finds it")
	withLlamaHelp(cmd)
	return cmd
}

// The documents of `weigh verify --json`.
type (
	verifyDocument struct {
		Schema  int           `json:"schema"`
		Source  string        `json:"source"`
		Version string        `json:"llama_cpp_version"` // "" when it does not say
		Pinned  string        `json:"predicted_for"`
		Same    bool          `json:"same"`
		Rows    []verifiedRow `json:"rows"`
		Notes   []string      `json:"notes"`
	}
	verifiedRow struct {
		Name      string `json:"name"`
		Part      string `json:"part"`
		Predicted uint64 `json:"predicted"`
		// Actual is what llama.cpp printed, in bytes, and Within how far off its
		// rounding can be.
		Actual uint64 `json:"actual"`
		Within uint64 `json:"within"`
		Same   bool   `json:"same"`
	}
)

// A measured is what llama.cpp said of one part of one device or buffer.
type measured struct {
	name    string
	part    estimate.Part
	context int // of the load that it is of, counted from 1; 0 before there is one
	mib     float64
	terms   int  // printed numbers in mib
	whole   bool // MiB cut to whole ones, not rounded to two digits
	maps    bool // the part is mapped from the file: its size is the file's range
}

// An actual is all that llama.cpp said.
type actual struct {
	source   string
	version  string
	devices  bool // the host's buffers are one row, and of the model's own context alone
	mapped   bool // the host's weights may be the file's range
	rows     []measured
	settings map[string]string
	loads    []load
}

// A load is what a log says of one load of a file.
type load struct {
	file     string // base name; "" when it is not named
	contexts int
	rows     []measured
	settings map[string]string // of the first context
}

func verify(ctx context.Context, s *session, o *verifyFlags) (*verifyDocument, error) {
	d := &verifyDocument{Schema: 1, Pinned: llamacppVersion, Notes: []string{}, Rows: []verifiedRow{}}
	var a *actual
	var err error
	if o.log != "" {
		if a, err = readLog(o.log); err != nil {
			return nil, err
		}
		a.choose(s)
		if err := s.follow(a.settings); err != nil {
			return nil, err
		}
		s.asked.Allocated = true
		if err := s.weigh(); err != nil {
			return nil, err
		}
	} else {
		if s.Format != inspect.GGUF {
			return nil, fmt.Errorf("%s: llama.cpp loads GGUF files", s.Path)
		}
		d.Notes = append(d.Notes, s.asFitParams()...)
		if err := s.weigh(); err != nil {
			return nil, err
		}
		if a, err = runFitParams(ctx, s, o.dir); err != nil {
			return nil, err
		}
	}
	d.Source, d.Version = a.source, a.version
	if a.version != "" && a.version != llamacppVersion {
		d.Notes = append(d.Notes, fmt.Sprintf("this llama.cpp is %s; the figures follow %s", a.version, llamacppVersion))
	}
	d.compare(s, a)
	return d, nil
}

// compare sets each number of llama.cpp beside ours, and ours that it does not
// have beside none.
func (d *verifyDocument) compare(s *session, a *actual) {
	predicted := d.predict(s, a)
	d.Same = len(a.rows) > 0
	seen := map[string]bool{}
	for _, m := range a.rows {
		seen[m.name+" "+partNames[m.part]] = true
		var want uint64
		if p := predicted[m.name]; p != nil {
			want = memoryPart(p, m.part)
		}
		if m.maps || a.mapped && m.name == "Host" && m.part == estimate.Weights && m.mib > float64(want>>20) {
			d.Notes = append(d.Notes, fmt.Sprintf("%s: %.2f MiB are mapped from the file, whole pages and what lies between: not compared", m.name, m.mib))
			for _, h := range s.breakdown.Host { // none is in pinned memory then
				if h.Name != "CPU_REPACK" {
					seen[h.Name+" "+partNames[m.part]] = true
				}
			}
			continue
		}
		row := verifiedRow{Name: m.name, Part: partNames[m.part], Predicted: want, Actual: uint64(math.Round(m.mib * (1 << 20))), Within: uint64(m.terms) * 5244}
		if m.whole {
			row.Within = 1<<20 - 1
			row.Same = want>>20 == row.Actual>>20
		} else {
			row.Same = max(want, row.Actual)-min(want, row.Actual) <= row.Within
		}
		d.Rows = append(d.Rows, row)
		d.Same = d.Same && row.Same
	}
	names := make([]string, 0, len(predicted))
	for n := range predicted {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		for _, part := range []estimate.Part{estimate.Weights, estimate.Context, estimate.Compute} {
			// A buffer under a hundredth of a MiB may go unmentioned.
			if want := memoryPart(predicted[n], part); want > 5244 && !seen[n+" "+partNames[part]] {
				d.Rows = append(d.Rows, verifiedRow{Name: n, Part: partNames[part], Predicted: want, Within: 5244})
				d.Same = false
			}
		}
	}
}

// predict returns our rows by the names that llama.cpp gives them, of what its
// figures are of.
func (d *verifyDocument) predict(s *session, a *actual) map[string]*estimate.Memory {
	rows := map[string]*estimate.Memory{}
	for _, list := range [][]estimate.Memory{s.breakdown.Devices, s.breakdown.Host} {
		for i := range list {
			m := list[i]
			rows[m.Name] = &m
		}
	}
	left := map[string]bool{}
	for _, p := range s.breakdown.Parts {
		if p.Kind != "mmproj" && !(a.devices && p.Kind != "adapters") {
			continue
		}
		left[p.Kind] = true
		for _, u := range p.Use {
			m := rows[u.Name]
			m.Model, m.Context, m.Compute = m.Model-min(u.Model, m.Model), m.Context-min(u.Context, m.Context), m.Compute-min(u.Compute, m.Compute)
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(left)) {
		d.Notes = append(d.Notes, "llama.cpp's figures are without the "+kind+", which is left out here")
	}
	if !a.devices {
		return rows
	}
	// Repacked weights are no host memory to llama.cpp: they have a row of their
	// own, or none.
	host := &estimate.Memory{Name: "Host", Device: -1}
	for i := range s.breakdown.Host {
		m := rows[s.breakdown.Host[i].Name]
		if m.Name != "CPU_REPACK" {
			host.Model, host.Context, host.Compute = host.Model+m.Model, host.Context+m.Context, host.Compute+m.Compute
			delete(rows, m.Name)
		} else if !slices.ContainsFunc(a.rows, func(r measured) bool { return r.name == m.Name }) {
			delete(rows, m.Name)
		}
	}
	for name, m := range rows { // a device of an rpc-server, without its address
		if short, _, ok := strings.Cut(name, "["); ok {
			delete(rows, name)
			rows[short] = m
		}
	}
	rows["Host"] = host
	return rows
}

// asFitParams leaves out what llama-fit-params cannot be asked, and says so.
func (s *session) asFitParams() (notes []string) {
	o := &s.asked
	leave := func(is bool, what string) {
		if is {
			notes = append(notes, "llama-fit-params does not measure "+what+": compared without")
		}
	}
	leave(o.KVUnified != nil && *o.KVUnified, "one cache for all sequences (-kvu)")
	leave(o.Embeddings || o.Pooling != nil, "embeddings")
	leave(o.Draft != nil || o.MTP, "speculative decoding")
	leave(o.MMProj != nil, "projectors")
	leave(len(o.LoRA) > 0 || o.ControlVector, "adapters")
	one, whole := false, 0
	o.NParallel, o.KVUnified = max(o.NParallel, 1), &one
	o.Embeddings, o.Pooling, o.NOutputs, o.NRsSeq = false, nil, &whole, 0
	o.Draft, o.MTP, o.MMProj, o.LoRA, o.ControlVector = nil, false, nil, nil, false
	return notes
}

func memoryPart(m *estimate.Memory, p estimate.Part) uint64 {
	switch p {
	case estimate.Weights:
		return m.Model
	case estimate.Context:
		return m.Context
	}
	return m.Compute
}

// follow takes the settings that a log states where no flag does.
func (s *session) follow(settings map[string]string) error {
	o := &s.asked
	outputs := 0
	if n, err := strconv.Atoi(settings["n_rs_seq"]); err == nil && n >= 0 && n < 1<<16 {
		o.NRsSeq = n
	}
	for key, to := range map[string]**formats.DType{"type_k": &o.TypeK, "type_v": &o.TypeV} {
		if t, ok := formats.ParseDType(strings.ToUpper(settings[key])); ok && *to == nil {
			*to = &t
		}
	}
	for _, f := range []struct {
		key, flag string
		to        *int
	}{{"n_ctx", "--ctx-size", &o.NCtx}, {"n_batch", "--batch-size", &o.NBatch}, {"n_ubatch", "--ubatch-size", &o.NUBatch}, {"n_seq_max", "--parallel", &o.NParallel}, {"n_outputs_max", "", &outputs}} {
		text, ok := settings[f.key]
		if !ok || s.req.Set[f.flag] {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1<<31-1 {
			return fmt.Errorf("log: %s = %.40q, want a count", f.key, text)
		}
		*f.to = n
	}
	if outputs > 0 && o.NOutputs == nil {
		o.NOutputs = &outputs
	}
	if v, ok := settings["kv_unified"]; ok && o.KVUnified == nil {
		unified := v == "true" || v == "1"
		o.KVUnified = &unified
	}
	switch settings["flash_attn"] {
	case "enabled", "1":
		o.FlashAttn = estimate.FlashAttnOn
	case "disabled", "0":
		o.FlashAttn = estimate.FlashAttnOff
	}
	if v, ok := settings["offloaded"]; ok && o.NGPULayers == nil {
		n, err := strconv.Atoi(v)
		if err != nil {
			return fmt.Errorf("log: offloaded %.40q layers, want a count", v)
		}
		o.NGPULayers = &n
	}
	s.req.Fit = s.req.Fit && len(settings) == 0 // a log says what --fit came to
	return nil
}

// maxLog is how much of a log is read, maxLogLine the longest line that is.
const (
	maxLog     = 256 << 20
	maxLogLine = 1 << 20
)

// readLog reads a saved log.
func readLog(path string) (*actual, error) {
	var r io.Reader = os.Stdin
	if path != "-" {
		f, err := openText(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	a, err := parseLog(io.LimitReader(r, maxLog))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	a.source = path
	return a, nil
}

// openText opens a file of text. It may be a pipe, such as a shell puts in place
// of <(command), but one that nobody writes to is not waited for.
func openText(path string) (*os.File, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("%s: a folder, want a text", path)
	}
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

var (
	logBuffer   = pattern(`(\S+)\s+(model|KV|RS|compute|DSV4 \S+ state|LoRA) buffer size =\s*([0-9]+\.[0-9]+) MiB`)
	logSetting  = pattern(`llama_context: (n_ctx|n_batch|n_ubatch|n_seq_max|n_rs_seq|n_outputs_max|kv_unified|flash_attn)\s+= (\S+)`)
	logTypes    = pattern(`cache\S*: size = .*, K \((\w+)\): .*, V \((\w+)\):`)
	logOffload  = pattern(`offloaded (\d+)/\d+ layers to GPU`)
	logTable    = pattern(`\|\s+- (Host|CPU_REPACK|[A-Za-z]+\d+)\b[^|]*\|[^|]*?(?:\(\s*)?(\d+) =\s*(\d+) \+\s*(\d+) \+\s*(\d+)`)
	logVersion  = pattern(`(?:^|\s)(?:build_info|version|build)\s*[:=]\s*v?(\d+\.\d+\.\d+|\d+|b\d+)\b`)
	logLoad     = pattern(`llama_model_loader: loaded meta data(?:.* tensors from (.*) \(version)?`)
	logContext  = pattern(`llama_context: constructing llama_context`)
	logColor    = pattern("\x1b\\[[0-9;]*m")
	errNoFigure = errors.New("no line gives a buffer's size: run llama-server with -lv 4 or --log-jsonl")
)

// logWords are words of which each line that one of the patterns matches has
// one: most lines of a log have none, and looking for a word is far quicker.
var logWords = []string{" buffer size = ", "llama_context: ", ": size = ", "offloaded ", " - ", "version", "build", "llama_model_loader: "}

// pattern compiles a regular expression when it is first used.
func pattern(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

// maxRows and maxLoads bound what is kept of a log.
const (
	maxRows  = 1 << 10
	maxLoads = 1 << 8
)

// parseLog reads the buffer sizes of a log: its lines "… buffer size = … MiB",
// the table of its end, or the fit_memory_breakdown of --log-jsonl. Of several
// loads in one log the last counts.
//
// Source: src/llama-context.cpp, src/llama-model.cpp, src/llama-kv-cache.cpp,
// common/fit.cpp@v0.5.0 (common_memory_breakdown_print).
func parseLog(r io.Reader) (*actual, error) {
	a := &actual{settings: map[string]string{}, loads: []load{{settings: map[string]string{}}}}
	var table, rows []measured
	scan := bufio.NewScanner(r)
	scan.Buffer(make([]byte, 64<<10), maxLogLine)
	for scan.Scan() {
		text := scan.Text()
		if strings.Contains(text, "\x1b") {
			text = logColor().ReplaceAllString(text, "")
		}
		if strings.HasPrefix(text, "{") {
			var event map[string]any
			if json.Unmarshal([]byte(text), &event) == nil {
				if found := breakdownRows(event, 4); found != nil {
					rows = found
				}
				text, _ = event["msg"].(string)
			}
		}
		for line := range strings.Lines(text) {
			if !slices.ContainsFunc(logWords, func(word string) bool { return strings.Contains(line, word) }) {
				continue
			}
			m := logTable().FindStringSubmatch(line)
			if m == nil {
				if from := logLoad().FindStringSubmatch(line); from != nil {
					table, rows = nil, nil
					a.begin(from[1])
				}
				a.line(line)
				continue
			}
			for i, part := range []estimate.Part{estimate.Weights, estimate.Context, estimate.Compute} {
				table = add(table, measured{name: m[1], part: part, mib: number(m[3+i]), whole: true}, true)
			}
		}
	}
	if err := scan.Err(); err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	if rows == nil {
		rows = table
	}
	a.loads = slices.DeleteFunc(a.loads, func(l load) bool { return len(l.rows) == 0 })
	switch {
	case len(a.loads) > 0:
		last := &a.loads[len(a.loads)-1]
		a.rows, a.settings = last.sum(last.contexts), last.settings
	case len(rows) > 0:
		a.rows, a.devices, a.mapped = rows, true, true
	default:
		return nil, errNoFigure
	}
	return a, nil
}

// begin notes that a file is loaded.
func (a *actual) begin(file string) {
	if len(a.loads) > maxLoads {
		a.loads = slices.Delete(a.loads, 0, 1)
	}
	file = file[strings.LastIndexAny(file, `/\`)+1:]
	a.loads = append(a.loads, load{file: file, settings: map[string]string{}})
}

// choose takes the last load of the session's model, and with it that of the
// draft; without one under its name, the last of all.
func (a *actual) choose(s *session) {
	last := func(path string) *load {
		for i := len(a.loads) - 1; i >= 0; i-- {
			if l := &a.loads[i]; l.file != "" && l.file == filepath.Base(path) {
				return l
			}
		}
		return nil
	}
	a.mapped = a.mapped && !s.asked.NoMmap
	l := last(s.modelFile())
	if l == nil {
		return
	}
	contexts := 1
	draft := s.asked.Draft
	if draft != nil && draft.Shares {
		contexts = l.contexts
	}
	a.rows, a.settings = l.sum(contexts), l.settings
	if draft == nil || draft.Shares {
		return
	}
	if other := last(s.req.Draft.Model); other != nil && other != l {
		for _, m := range other.sum(other.contexts) {
			a.rows = add(a.rows, m, false)
		}
	}
}

// sum returns the rows of the first contexts as one list.
func (l *load) sum(contexts int) (rows []measured) {
	for _, m := range l.rows {
		if m.context <= max(contexts, 1) {
			m.context = 0
			rows = add(rows, m, false)
		}
	}
	return rows
}

// line reads one line of a log.
func (a *actual) line(line string) {
	l := &a.loads[len(a.loads)-1]
	if logContext().MatchString(line) {
		l.contexts++
	}
	// The projector's own buffers are not in llama.cpp's breakdown.
	if m := logBuffer().FindStringSubmatch(line); m != nil && !strings.Contains(line, "reserve_compute_meta: ") && len(l.rows) < maxRows {
		name, mapped := strings.CutSuffix(m[1], "_Mapped")
		row := measured{name: name, part: estimate.Context, context: l.contexts, mib: number(m[3])}
		switch m[2] {
		case "model", "LoRA":
			row.part, row.maps = estimate.Weights, mapped
		case "compute":
			row.part = estimate.Compute
		}
		// Graphs are reserved again; caches of several kinds, and weights in several
		// buffers, add up. The output buffer is not in llama.cpp's breakdown.
		l.rows = add(l.rows, row, m[2] == "compute")
		return
	}
	if m := logSetting().FindStringSubmatch(line); m != nil && l.contexts <= 1 {
		l.settings[m[1]] = m[2]
	}
	if m := logTypes().FindStringSubmatch(line); m != nil && l.contexts <= 1 {
		l.settings["type_k"], l.settings["type_v"] = m[1], m[2]
	}
	if m := logOffload().FindStringSubmatch(line); m != nil {
		l.settings["offloaded"] = m[1]
	}
	if m := logVersion().FindStringSubmatch(line); m != nil && a.version == "" {
		a.version = m[1]
	}
}

// add adds a number to the row of its name, part and context, or replaces it.
func add(rows []measured, m measured, replace bool) []measured {
	m.terms = max(m.terms, 1)
	for i := range rows {
		if r := &rows[i]; r.name == m.name && r.part == m.part && r.context == m.context {
			if replace {
				*r = m
			} else {
				r.mib, r.terms, r.maps = r.mib+m.mib, r.terms+m.terms, r.maps || m.maps
			}
			return rows
		}
	}
	return append(rows, m)
}

func number(s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= 0) || f > 1<<40 {
		return 0
	}
	return f
}

// breakdownRows finds the rows of a fit_memory_breakdown in a line of
// --log-jsonl.
func breakdownRows(v map[string]any, depth int) (rows []measured) {
	list, ok := v["rows"].([]any)
	if !ok {
		for _, inner := range v {
			if m, ok := inner.(map[string]any); ok && depth > 0 {
				if found := breakdownRows(m, depth-1); found != nil {
					return found
				}
			}
		}
		return nil
	}
	for _, e := range list {
		row, _ := e.(map[string]any)
		name, _ := row["name"].(string)
		if name == "" {
			continue
		}
		for key, part := range map[string]estimate.Part{"model": estimate.Weights, "context": estimate.Context, "compute": estimate.Compute} {
			if n, ok := row[key].(float64); ok && n >= 0 && n < 1<<40 {
				rows = add(rows, measured{name: name, part: part, mib: n, whole: true}, true)
			}
		}
	}
	slices.SortFunc(rows, func(a, b measured) int { return strings.Compare(a.name, b.name)*4 + int(a.part) - int(b.part) })
	return rows
}

// runFitParams asks the llama-fit-params that is installed.
func runFitParams(ctx context.Context, s *session, dir string) (*actual, error) {
	const program = "llama-fit-params"
	path := program
	if dir != "" {
		path = filepath.Join(dir, program)
	}
	path, err := exec.LookPath(path)
	if err != nil {
		return nil, fmt.Errorf("%s is not installed here (--llama-cpp says where it is; --log compares with a saved log): %w", program, errors.Unwrap(err))
	}
	ctx, stop := context.WithTimeout(ctx, 5*time.Minute)
	defer stop()
	args := []string{"-fitp", "on", "-m", s.modelFile()}
	for _, a := range settledArgs(s.Model, &s.options, &s.breakdown.Settings, s.req.Set) {
		args = append(args, unquote(a))
	}
	args = append(args, llama.FitParams(s.req.Given)...)
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &limited{&stdout, maxLogLine}, &limited{&stderr, maxLogLine}
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", path, strings.Join(args, " "), err, lastLine(stderr.String()))
	}
	a := &actual{source: path, devices: true, loads: make([]load, 1)}
	a.loads[0].settings = map[string]string{}
	for line := range strings.Lines(stderr.String()) {
		a.line(line)
	}
	if a.version == "" {
		out, _ := exec.CommandContext(ctx, path, "--version").CombinedOutput()
		for line := range strings.Lines(string(out)) {
			a.line(line)
		}
	}
	if a.rows, err = parseFitPrint(stdout.String()); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

// parseFitPrint reads what llama-fit-params -fitp prints: device, model, context
// and compute, whole MiB.
func parseFitPrint(out string) (rows []measured, err error) {
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) != 4 {
			continue
		}
		for i, part := range []estimate.Part{estimate.Weights, estimate.Context, estimate.Compute} {
			n, err := strconv.ParseUint(f[1+i], 10, 40)
			if err != nil {
				return nil, fmt.Errorf("%.80q: want a device and three sizes", line)
			}
			rows = add(rows, measured{name: f[0], part: part, mib: float64(n), whole: true}, true)
		}
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("%.80q: no device with its sizes", out)
	}
	return rows, nil
}

// unquote undoes quote.
func unquote(word string) string {
	if len(word) > 1 && word[0] == '\'' && word[len(word)-1] == '\'' {
		return strings.ReplaceAll(word[1:len(word)-1], `'\''`, "'")
	}
	return word
}

// limited keeps the first bytes written to it.
type limited struct {
	*bytes.Buffer
	most int
}

func (l *limited) Write(b []byte) (int, error) {
	if left := l.most - l.Len(); left > 0 {
		l.Buffer.Write(b[:min(left, len(b))])
	}
	return len(b), nil
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// printVerification writes the rows.
func printVerification(w io.Writer, style render.Style, d *verifyDocument) {
	version := "of unknown version"
	if d.Version != "" {
		version = d.Version
	}
	fmt.Fprintf(w, "weigh (for llama.cpp %s) against llama.cpp %s: %s\n\n", d.Pinned, render.Text(version), render.Text(d.Source))
	rows := [][]string{{"", "part", "predicted", "llama.cpp", ""}}
	mib := func(n uint64) string { return fmt.Sprintf("%.2f MiB", float64(n)/(1<<20)) }
	for _, r := range d.Rows {
		word := style.Green("same")
		if !r.Same {
			word = style.Red(fmt.Sprintf("%+.2f MiB", (float64(r.Predicted)-float64(r.Actual))/(1<<20)))
		}
		rows = append(rows, []string{render.Text(r.Name), r.Part, mib(r.Predicted), mib(r.Actual), word})
	}
	render.Columns(w, rows, 2, 3)
	for _, n := range d.Notes {
		render.Prose(w, 6, style.Yellow("note:")+" "+render.Text(n))
	}
}
