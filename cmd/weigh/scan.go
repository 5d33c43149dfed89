package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/spf13/cobra"

	"weigh/cmd/weigh/internal/render"
	"weigh/estimate/hw"
	"weigh/estimate/speed"
	"weigh/inspect"
	"weigh/inspect/store"
)

// scanFlags are the flags of `weigh scan` beside the common ones.
type scanFlags struct {
	sort    string
	reverse bool
	filter  []string
	only    []string
	quick   bool
	hash    bool
}

// The verdicts of a scan, best first.
const (
	fitsWhole   = "fits"    // every layer on the devices, or in the host's memory when there are none
	fitsPartial = "partial" // with some weights in the host's memory
	fitsNot     = "no"
)

// The states of what a scan lists.
const (
	stateOK      = "ok"
	statePartial = "partial" // a download that has not ended
	stateBroken  = "broken"
)

// A scanned is a model of a store with what its header says and how it fits.
type scanned struct {
	store.Model
	state     string
	reason    error // of a state that is not ok
	kind      string
	sum       *inspectDocument // nil unless ok
	verdict   string           // "" when it is not weighed
	unweighed error            // why not
	nCtx      int              // that the verdict is for
	layers    int              // on the devices
	speed     *speed.Speed
	header    int64       // bytes of the first file's header
	info      os.FileInfo // of the first file
	group     int         // of copies, from 1; 0: there is no other
	sameFile  bool        // an earlier row is this very file
}

// newScanCmd returns the sub-command that lists the models on this machine.
func newScanCmd() *cobra.Command {
	r := &request{}
	var o scanFlags
	cmd := &cobra.Command{
		Use:   "scan [DIR...]",
		Short: "The models in the local stores, and which fit this machine",
		Long: `Scan lists the models of LM Studio, Ollama, the Hugging Face cache, llama.cpp,
text-generation-webui, GPT4All and Jan, or those below the folders it is given.
It reads headers only. Each is weighed as weigh MODEL does, with its projector
and the flags given here:

  fits     every layer on the GPUs (in memory, where there is none)
  partial  with some of the weights in the host's memory
  no       not on this machine

Broken files and downloads that have not ended are listed with the reason. What
stands under "name" works in every command.`,
		Example: `  weigh scan
  weigh scan --only fits --sort speed
  weigh scan ~/models /mnt/nas --filter qwen3 --filter q4_k -c 32768
  weigh scan --only duplicate --hash --json`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if helpAsked(cmd, args) {
				return nil
			}
			limitMemory(math.MaxInt64)
			dirs, err := parseRequest(cmd, r, args)
			if err != nil {
				return err
			}
			stores, err := storesOf(dirs)
			if err != nil {
				return err
			}
			if err := o.valid(); err != nil {
				return err
			}
			scan, err := runScan(cmd.Context(), stores, r, &o, newProgress(cmd.ErrOrStderr()))
			if err != nil {
				return err
			}
			rows := o.choose(scan.rows)
			w := cmd.OutOrStdout()
			if r.json {
				return writeJSON(w, newScanDocument(stores, scan, rows))
			}
			return printScan(w, render.StyleOf(w), stores, scan, rows)
		},
	}
	addRequestFlags(cmd.Flags(), r)
	f := cmd.Flags()
	f.StringVar(&o.sort, "sort", "store", "by store, name, size, parameters, architecture, type, fit or speed")
	f.BoolVar(&o.reverse, "reverse", false, "the other way round")
	f.StringSliceVar(&o.filter, "filter", nil, "only those with this `text` in name, store, architecture or type (repeatable: all of them)")
	f.StringSliceVar(&o.only, "only", nil, "only those that are fits, partial, no, broken, incomplete or duplicate")
	f.BoolVar(&o.quick, "quick", false, "do not weigh them: what the headers say only")
	f.BoolVar(&o.hash, "hash", false, "compare the whole contents of files that look alike")
	return cmd
}

// storesOf returns the given folders as stores, the machine's without any.
func storesOf(dirs []string) ([]store.Store, error) {
	if len(dirs) == 0 {
		return store.Stores(store.Local()), nil
	}
	var stores []store.Store
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			return nil, fmt.Errorf("%s: a file, not a folder: weigh inspect reads it", dir)
		}
		stores = append(stores, store.Store{Kind: store.Folder, Dir: dir})
	}
	return stores, nil
}

var (
	scanOrders = map[string]func(a, b *scanned) int{
		"store":        func(a, b *scanned) int { return 0 },
		"name":         func(a, b *scanned) int { return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) },
		"size":         func(a, b *scanned) int { return cmp.Compare(b.Bytes, a.Bytes) },
		"parameters":   func(a, b *scanned) int { return cmp.Compare(b.parameters(), a.parameters()) },
		"architecture": func(a, b *scanned) int { return strings.Compare(a.architecture(), b.architecture()) },
		"type":         func(a, b *scanned) int { return strings.Compare(a.quant(), b.quant()) },
		"fit":          func(a, b *scanned) int { return cmp.Compare(a.rank(), b.rank()) },
		"speed":        func(a, b *scanned) int { return cmp.Compare(b.tps(), a.tps()) },
	}
	scanKinds = map[string]func(*scanned) bool{
		fitsWhole:    func(r *scanned) bool { return r.verdict == fitsWhole },
		fitsPartial:  func(r *scanned) bool { return r.verdict == fitsPartial },
		fitsNot:      func(r *scanned) bool { return r.verdict == fitsNot },
		"broken":     func(r *scanned) bool { return r.state == stateBroken },
		"incomplete": func(r *scanned) bool { return r.state == statePartial },
		"duplicate":  func(r *scanned) bool { return r.group > 0 },
	}
)

func (o *scanFlags) valid() error {
	if scanOrders[o.sort] == nil {
		return fmt.Errorf("--sort %s: want %s", o.sort, strings.Join(sortedNames(scanOrders), ", "))
	}
	for _, k := range o.only {
		if scanKinds[k] == nil {
			return fmt.Errorf("--only %s: want %s", k, strings.Join(sortedNames(scanKinds), ", "))
		}
	}
	return nil
}

func sortedNames[V any](m map[string]V) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// choose returns the rows that are asked for in their order.
func (o *scanFlags) choose(rows []*scanned) []*scanned {
	var chosen []*scanned
	for _, r := range rows {
		text := strings.ToLower(r.Name + " " + r.Kind + " " + r.architecture() + " " + r.quant())
		if slices.ContainsFunc(o.filter, func(f string) bool { return !strings.Contains(text, strings.ToLower(f)) }) {
			continue
		}
		if len(o.only) == 0 || slices.ContainsFunc(o.only, func(k string) bool { return scanKinds[k](r) }) {
			chosen = append(chosen, r)
		}
	}
	slices.SortStableFunc(chosen, scanOrders[o.sort])
	if o.reverse {
		slices.Reverse(chosen)
	}
	return chosen
}

func (r *scanned) parameters() uint64 {
	if r.sum == nil || r.sum.Parameters == nil {
		return 0
	}
	return *r.sum.Parameters
}

func (r *scanned) architecture() string {
	if r.sum == nil {
		return ""
	}
	return r.sum.Architecture
}

func (r *scanned) quant() string {
	if r.sum == nil {
		return ""
	}
	return r.sum.Quantization.Label
}

func (r *scanned) tps() float64 {
	if r.speed == nil {
		return 0
	}
	return r.speed.Decode.Mid
}

func (r *scanned) rank() int {
	return slices.Index([]string{fitsWhole, fitsPartial, fitsNot}, cmp.Or(r.verdict, fitsNot))
}

// A scan is what was found in the stores.
type scan struct {
	rows       []*scanned
	duplicates []duplicate
	errs       []error // folders that could not be read
}

// runScan lists the stores and reads and weighs their models, several at a
// time. A model that cannot be read is a row with the reason.
func runScan(ctx context.Context, stores []store.Store, r *request, o *scanFlags, bar *progress) (*scan, error) {
	defer bar.done()
	var seen atomic.Int64
	models, errs, err := store.List(ctx, stores, func(n int) { bar.show("files found:", uint64(seen.Add(int64(n))), 0) })
	if err != nil {
		return nil, err
	}
	s := &scan{errs: errs, rows: make([]*scanned, len(models))}
	var m hw.Machine
	if !o.quick {
		if m, _, err = machine(ctx, r.gpus, r.RPC, r.rpcMemory); err != nil {
			return nil, err
		}
	}
	weighed := 0
	var mu sync.Mutex
	each(ctx, len(models), func(i int) {
		row := &scanned{Model: models[i], state: stateOK}
		row.read(ctx, r, &m, o.quick)
		mu.Lock()
		defer mu.Unlock()
		s.rows[i] = row
		weighed++
		bar.show("models read:", uint64(weighed), uint64(len(models)))
	})
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.duplicates, err = findDuplicates(ctx, s.rows, o.hash, bar)
	return s, err
}

// each calls do for 0 to n-1, on all processors, until the context ends.
func each(ctx context.Context, n int, do func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), n) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	wg.Wait()
}

// read opens the model and weighs it on the machine m unless quick is set.
func (row *scanned) read(ctx context.Context, r *request, m *hw.Machine, quick bool) {
	if row.Partial {
		row.state, row.reason = statePartial, row.Fault
		return
	}
	ins, err := openStored(&row.Model)
	if err != nil {
		row.state, row.reason = stateBroken, err
		return
	}
	defer ins.Close()
	row.sum = summarize(ins)
	row.kind = kindOfFile(ins)
	row.Bytes = int64(ins.FileBytes())
	if len(ins.Files) > 0 {
		row.info, _ = os.Stat(ins.Files[0].Path)
		row.Files = nil
		for _, f := range ins.Files {
			row.Files = append(row.Files, f.Path)
		}
	}
	if ins.GGUF != nil {
		row.header = ins.GGUF.Files[0].DataOffset
	}
	switch {
	case quick:
	case row.kind != "model":
	case ins.Model == nil:
		row.unweighed = ins.Reason
	case len(ins.Files) == 0:
		row.unweighed = errors.New("no weights are here")
	default:
		row.unweighed = row.weigh(ctx, ins, r, m)
	}
	row.sum.Layers = nil
}

// weigh settles how the model fits the machine.
func (row *scanned) weigh(ctx context.Context, ins *inspect.Inspection, r *request, m *hw.Machine) error {
	own, flags := *r, *r.Flags // each model has a projector of its own
	own.Flags, own.machine = &flags, m
	if flags.MMProj == "" {
		flags.MMProj = row.Projector
	}
	flags.LoRA = append(slices.Clone(flags.LoRA), row.Adapters...)
	s := &session{Inspection: ins, req: &own}
	if err := s.gather(ctx); err != nil {
		return err
	}
	if err := s.weigh(); err != nil {
		return err
	}
	t := s.breakdown.Settings
	row.nCtx, row.layers = t.NCtx, t.NGPULayers
	switch {
	case !s.fits():
		row.verdict = fitsNot
	case len(s.options.Devices) == 0, t.NGPULayers > s.Model.NLayerAll && len(s.options.Overrides) == 0:
		row.verdict = fitsWhole
	default:
		row.verdict = fitsPartial
	}
	if s.generates() {
		row.speed, _ = speed.Estimate(s.Model, s.options, speed.Query{})
	}
	return nil
}

// kindOfFile says what a file is: a model, or what goes with one.
//
// Source: gguf-py/gguf/constants.py@v0.5.0, GGUFType.
func kindOfFile(ins *inspect.Inspection) string {
	if ins.GGUF == nil {
		if ins.HF.Adapter != nil {
			return "adapter"
		}
		return "model"
	}
	text := func(key string) string {
		v, _ := ins.GGUF.Lookup(key)
		s, _ := v.(string)
		return s
	}
	switch kind := text("general.type"); {
	case kind == "mmproj", text("general.architecture") == "clip":
		return "projector"
	case kind == "adapter", kind == "imatrix", kind == "vocab":
		return kind
	case text("general.architecture") == "controlvector":
		return "control vector"
	}
	return "model"
}
