package main

import (
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"weigh/cmd/weigh/internal/llama"
	"weigh/cmd/weigh/internal/render"
	"weigh/estimate"
	"weigh/estimate/plan"
	"weigh/estimate/speed"
	"weigh/formats"
)

// tableFlags are the flags of `weigh table` beside the common ones.
type tableFlags struct {
	by, format string
	contexts   []int
	types      []string
}

// newTableCmd returns the sub-command that compares models, cards, contexts and
// layers.
func newTableCmd() *cobra.Command {
	r := &request{}
	var o tableFlags
	cmd := &cobra.Command{
		Use:   "table MODEL... [llama-server flags]",
		Short: "Models × GPUs (or × context, × KV type, × layers): what fits, how fast",
		Long: `Table compares. Several models, or several --gpu: for each pair the deepest level
of offload that fits and the tokens per second at it. One model and one machine:
the offload ladder, from no layer on the devices to all, with the memory and the
speed of each step. --by context: contexts × cache types, the speed with the context half full.

Here each --gpu is a machine of its own; "2x RTX 3090" is one with two cards.
Exit code 1: nothing in the table fits.`,
		Example: `  weigh table a.gguf b.gguf --gpu "RTX 4090" --gpu "2x RTX 3060"
  weigh table model.gguf --by context --gpu "RTX 3060"
  weigh table model.gguf --by layers --format csv`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if helpAsked(cmd, args) {
				return nil
			}
			words, err := parseRequest(cmd, r, args)
			if err != nil {
				return err
			}
			if r.Model != "" {
				words = append([]string{r.Model}, words...)
			}
			if len(words) == 0 {
				return errors.New("no model is named")
			}
			if r.json {
				o.format = "json"
			}
			return runTable(cmd, r, &o, words)
		},
	}
	addRequestFlags(cmd.Flags(), r)
	f := cmd.Flags()
	f.StringVar(&o.by, "by", "", "what to compare: gpu, context or layers; gpu with several models or --gpu, else layers")
	f.StringVar(&o.format, "format", "text", "text, csv, markdown or json")
	f.IntSliceVar(&o.contexts, "contexts", nil, "contexts to compare (doublings from 4096 to what the model was trained on)")
	f.StringSliceVar(&o.types, "kv-types", []string{"f16", "q8_0", "q4_0"}, "cache `types` to compare")
	withLlamaHelp(cmd)
	return cmd
}

// A cell is one row of the long form of the table: one model on one machine with
// one setting.
type cell struct {
	Model     string              `json:"model"`
	Type      string              `json:"type,omitempty"` // quantization
	Hardware  string              `json:"hardware"`
	NCtx      int                 `json:"n_ctx"`
	TypeK     string              `json:"cache_type_k"`
	TypeV     string              `json:"cache_type_v"`
	Level     string              `json:"level"` // "full", "experts on host", "partial", "host", "none"
	Layers    int                 `json:"n_gpu_layers"`
	LayersAll int                 `json:"n_layers"` // the output layer counts
	NCPUMoE   int                 `json:"n_cpu_moe,omitempty"`
	NCPUFFN   int                 `json:"n_cpu_ffn,omitempty"`
	Devices   []uint64            `json:"devices"` // bytes of each
	Host      uint64              `json:"host"`
	Fits      bool                `json:"fits"`
	TPS       map[string]tpsRange `json:"tokens_per_second,omitempty"`
	Why       string              `json:"why,omitempty"`
}

type comparison struct {
	Schema int    `json:"schema"`
	By     string `json:"by"`
	Rows   []cell `json:"rows"`
}

func runTable(cmd *cobra.Command, r *request, o *tableFlags, models []string) error {
	specs := r.gpus
	if o.by == "" {
		o.by = "layers"
		if len(models) > 1 || len(specs) > 1 {
			o.by = "gpu"
		}
	}
	if !slices.Contains([]string{"gpu", "context", "layers"}, o.by) {
		return fmt.Errorf("--by %s: want gpu, context or layers", o.by)
	}
	if !slices.Contains([]string{"text", "csv", "markdown", "json"}, o.format) {
		return fmt.Errorf("--format %s: want text, csv, markdown or json", o.format)
	}
	if o.by != "gpu" && len(models)*max(len(specs), 1) > 1 {
		return fmt.Errorf("--by %s takes one model and one --gpu: there are %d and %d", o.by, len(models), len(specs))
	}
	if len(specs) == 0 {
		specs = []string{""}
	}
	d := &comparison{Schema: 1, By: o.by, Rows: []cell{}}
	for _, name := range models {
		for _, spec := range specs {
			rows, err := tableCells(cmd, r, o, name, spec)
			if err != nil {
				return err
			}
			d.Rows = append(d.Rows, rows...)
		}
	}
	d.tellApart(models)
	if err := writeTable(cmd.OutOrStdout(), d, o.format); err != nil {
		return err
	}
	if !slices.ContainsFunc(d.Rows, func(c cell) bool { return c.Fits }) {
		return errNo
	}
	return nil
}

// tellApart names models of the same name by their type of quantization too, and
// those that share it by what the user wrote.
func (d *comparison) tellApart(asked []string) {
	each := len(d.Rows) / max(len(asked), 1) // rows of a model
	for _, by := range []func(i int) string{
		func(i int) string { return d.Rows[i].Type },
		func(i int) string { return asked[i/each] },
	} {
		of := map[string]map[int]bool{}
		for i, r := range d.Rows {
			if of[r.Model] == nil {
				of[r.Model] = map[int]bool{}
			}
			of[r.Model][i/each] = true
		}
		for i := range d.Rows {
			if r := &d.Rows[i]; len(of[r.Model]) > 1 {
				r.Model = strings.TrimSpace(r.Model + " " + by(i))
			}
		}
	}
}

// tableCells returns the rows of one model on one machine.
func tableCells(cmd *cobra.Command, r *request, o *tableFlags, name, spec string) ([]cell, error) {
	one := *r
	one.Model, one.gpus = name, nil
	if spec != "" {
		one.gpus = []string{spec}
	}
	s, err := newSession(cmd.Context(), name, &one)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	label := spec
	if label == "" {
		label = "this machine"
	}
	w := plan.Want{}
	if t := one.FitOpts.Target; one.reserve != "" && len(t) > 0 {
		w.Reserve = &t[0]
	}
	base := cell{Model: cmp.Or(s.Model.Name, name), Type: summarize(s.Inspection).Quantization.Label, Hardware: label, LayersAll: s.Model.NLayerAll + 1, Devices: []uint64{}}
	var cells []cell
	switch o.by {
	case "context":
		cells, err = s.byContext(cmd.Context(), base, w, o)
	case "layers":
		cells, err = s.byLayers(cmd.Context(), base, w)
	default:
		var c cell
		c, err = s.planCell(cmd.Context(), base, s.asked, w)
		cells = []cell{c}
	}
	return cells, s.blame(err)
}

// planCell is the best plan with the settings.
func (s *session) planCell(ctx context.Context, c cell, o estimate.Options, w plan.Want) (cell, error) {
	r, err := plan.Best(ctx, s.Model, o, w)
	if err != nil {
		return c, err
	}
	c.NCtx, c.TypeK, c.TypeV = o.NCtx, typeName(o.TypeK), typeName(o.TypeV)
	if len(r.Plans) == 0 {
		c.Level, c.Why = "none", r.Why
		return c, nil
	}
	p := &r.Plans[0]
	c.fill(p.Options, p.Breakdown, p.Speed)
	c.Fits, c.Why = true, p.Why
	switch {
	case s.onDevices(p):
		c.Level = "full"
	case c.Layers == 0:
		c.Level = "host"
	case p.Lean > 0 && s.Model.NExpert > 0 && c.Layers == c.LayersAll:
		c.Level = "experts on host"
	default:
		c.Level = "partial"
	}
	if s.Model.NExpert > 0 {
		c.NCPUMoE = p.Lean
	} else {
		c.NCPUFFN = p.Lean
	}
	return c, nil
}

func typeName(t *formats.DType) string {
	if t == nil {
		return lower(formats.F16)
	}
	return lower(*t)
}

// fill sets a cell's figures.
func (c *cell) fill(o estimate.Options, b *estimate.Breakdown, sp *speed.Speed) {
	t := b.Settings
	c.NCtx, c.Layers, c.TypeK, c.TypeV = t.NCtx, t.NGPULayers, lower(t.TypeK), lower(t.TypeV)
	c.Devices = make([]uint64, len(o.Devices))
	for i := range b.Devices {
		c.Devices[b.Devices[i].Device] = b.Devices[i].Total()
	}
	c.Host = 0
	for i := range b.Host {
		c.Host += b.Host[i].Total()
	}
	c.TPS = map[string]tpsRange{"decode": tpsRange(sp.Decode), "prefill": tpsRange(sp.Prefill)}
}

// byContext returns the best plans for contexts and cache types.
func (s *session) byContext(ctx context.Context, base cell, w plan.Want, o *tableFlags) (cells []cell, err error) {
	contexts := o.contexts
	if len(contexts) == 0 {
		for n := 4096; n < s.Model.NCtxTrain && len(contexts) < 12; n *= 2 {
			contexts = append(contexts, n)
		}
		if s.Model.NCtxTrain == 0 {
			return nil, errors.New("--contexts: the trained context is not known: say which")
		}
		contexts = append(contexts, s.Model.NCtxTrain)
	}
	for _, n := range contexts {
		for _, name := range o.types {
			i := slices.IndexFunc(llama.CacheTypes, func(t formats.DType) bool { return lower(t) == name })
			if i < 0 {
				return nil, fmt.Errorf("--kv-types %s: no such cache type", name)
			}
			ao := s.asked
			ao.NCtx, ao.TypeK, ao.TypeV = n, &llama.CacheTypes[i], &llama.CacheTypes[i]
			if n < 1 {
				return nil, fmt.Errorf("--contexts %d: want 1 or more", n)
			}
			var refused *estimate.RefusedError
			w.Speed.Depth = max(n/2, 1)
			c, err := s.planCell(ctx, base, ao, w)
			switch {
			case errors.As(err, &refused):
				c = base
				c.NCtx, c.TypeK, c.TypeV, c.Level, c.Why = n, name, name, "none", refused.Why
			case err != nil:
				return nil, err
			}
			cells = append(cells, c)
		}
	}
	return cells, nil
}

// byLayers returns the offload ladder: no layer on the devices, one, … all.
func (s *session) byLayers(ctx context.Context, base cell, w plan.Want) (cells []cell, err error) {
	o := s.asked
	if len(o.Devices) == 0 {
		return nil, errors.New("--by layers: there is no device to put layers on: name one with --gpu")
	}
	if o.NCtx == 0 {
		o.NCtx = min(8192, s.Model.NCtxTrain)
	}
	for n := range base.LayersAll + 1 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		o.NGPULayers = &n
		b, err := estimate.Run(s.Model, o)
		if err != nil {
			return nil, err
		}
		sp, err := speed.Estimate(s.Model, o, w.Speed)
		if err != nil {
			return nil, err
		}
		c := base
		c.fill(o, b, sp)
		t := *s
		t.options, t.breakdown = o, b
		if c.Fits = t.fits(); c.Fits {
			c.Level = map[bool]string{true: "full", false: "partial"}[n == base.LayersAll]
			if n == 0 {
				c.Level = "host"
			}
		} else {
			c.Level = "none"
		}
		cells = append(cells, c)
	}
	return cells, nil
}

// writeTable writes the rows in a format.
func writeTable(w io.Writer, d *comparison, format string) error {
	switch format {
	case "json":
		return writeJSON(w, d)
	case "csv":
		return tableCSV(w, d)
	}
	rows := tableText(d)
	if format == "markdown" {
		for i, row := range rows {
			for j := range row {
				row[j] = strings.ReplaceAll(row[j], "|", `\|`)
			}
			fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
			if i == 0 {
				fmt.Fprintf(w, "|%s\n", strings.Repeat(" --- |", len(row)))
			}
		}
		return nil
	}
	render.Columns(w, rows)
	if d.By == "layers" {
		plotLadder(w, d.Rows)
	}
	return nil
}

func tableCSV(w io.Writer, d *comparison) error {
	c := csv.NewWriter(w)
	_ = c.Write([]string{"model", "hardware", "n_ctx", "cache_type_k", "cache_type_v", "level", "n_gpu_layers", "n_layers", "n_cpu_moe", "n_cpu_ffn", "device_bytes", "host_bytes", "fits", "decode_low", "decode_mid", "decode_high", "prefill_mid", "type"})
	f := func(v float64) string { // empty: not known, for nothing fits
		if v == 0 {
			return ""
		}
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	for _, r := range d.Rows {
		var device uint64
		for _, n := range r.Devices {
			device += n
		}
		dec, pre := r.TPS["decode"], r.TPS["prefill"]
		_ = c.Write([]string{
			r.Model, r.Hardware, strconv.Itoa(r.NCtx), r.TypeK, r.TypeV, r.Level, strconv.Itoa(r.Layers), strconv.Itoa(r.LayersAll), strconv.Itoa(r.NCPUMoE), strconv.Itoa(r.NCPUFFN),
			strconv.FormatUint(device, 10), strconv.FormatUint(r.Host, 10), strconv.FormatBool(r.Fits), f(dec.Low), f(dec.Mid), f(dec.High), f(pre.Mid), r.Type,
		})
	}
	c.Flush()
	return c.Error()
}

// tableText returns the table for people: a grid of models and machines or of
// contexts and cache types, or the ladder line by line.
func tableText(d *comparison) [][]string {
	key := func(c *cell) (row, col string) { return render.Text(c.Model), render.Text(c.Hardware) }
	corner := ""
	switch d.By {
	case "layers":
		return ladderText(d.Rows)
	case "context":
		corner = "context"
		key = func(c *cell) (string, string) { return strconv.Itoa(c.NCtx), c.TypeK }
	}
	rows := [][]string{{corner}}
	at := map[string]int{}
	for i := range d.Rows {
		c := &d.Rows[i]
		r, col := key(c)
		if _, ok := at["r"+r]; !ok {
			at["r"+r] = len(rows)
			rows = append(rows, []string{r})
		}
		if _, ok := at["c"+col]; !ok {
			at["c"+col] = len(rows[0])
			rows[0] = append(rows[0], col)
		}
		row := &rows[at["r"+r]]
		for len(*row) <= at["c"+col] {
			*row = append(*row, "")
		}
		(*row)[at["c"+col]] = c.String()
	}
	return rows
}

// String writes the level of offload and the speed of a cell.
func (c *cell) String() string {
	tps := fmt.Sprintf("%.3g t/s", c.TPS["decode"].Mid)
	switch c.Level {
	case "none":
		return "does not fit"
	case "full":
		return "full, " + tps
	case "host":
		return "host, " + tps
	case "experts on host":
		return fmt.Sprintf("experts of %d on host, %s", c.NCPUMoE, tps)
	}
	if c.NCPUFFN > 0 && c.Layers == c.LayersAll {
		return fmt.Sprintf("feed-forward of %d on host, %s", c.NCPUFFN, tps)
	}
	return fmt.Sprintf("%d/%d layers, %s", c.Layers, c.LayersAll, tps)
}

func ladderText(cells []cell) [][]string {
	rows := [][]string{{"layers", "devices", "host", "t/s", ""}}
	for i := range cells {
		c := &cells[i]
		var parts []string
		for _, n := range c.Devices {
			parts = append(parts, render.Bytes(n))
		}
		word := ""
		if !c.Fits {
			word = "does not fit"
		}
		rows = append(rows, []string{strconv.Itoa(i), strings.Join(parts, " + "), render.Bytes(c.Host), fmt.Sprintf("%.3g", c.TPS["decode"].Mid), word})
	}
	return rows
}

// Size of the plot, in characters.
const plotWidth, plotHeight = 60, 12

// plotLadder draws tokens per second over layers; what does not fit is dotted.
func plotLadder(w io.Writer, cells []cell) {
	most := 0.0
	for _, c := range cells {
		most = max(most, c.TPS["decode"].Mid)
	}
	if most <= 0 || len(cells) < 2 {
		return
	}
	grid := make([][]rune, plotHeight)
	for y := range grid {
		grid[y] = []rune(strings.Repeat(" ", plotWidth))
	}
	for x := range plotWidth {
		c := &cells[x*(len(cells)-1)/(plotWidth-1)]
		y := int(c.TPS["decode"].Mid / most * (plotHeight - 1))
		mark := '█'
		if !c.Fits {
			mark = '·'
		}
		for i := range y + 1 {
			grid[plotHeight-1-i][x] = mark
		}
	}
	fmt.Fprintln(w)
	for y, row := range grid {
		label := ""
		switch y {
		case 0:
			label = fmt.Sprintf("%.3g t/s", most)
		case plotHeight - 1:
			label = "0"
		}
		fmt.Fprintf(w, "%10s ┤%s\n", label, strings.TrimRight(string(row), " "))
	}
	end := strconv.Itoa(len(cells) - 1)
	const name = "layers on devices"
	left := (plotWidth - len(name)) / 2
	fmt.Fprintf(w, "%10s └%s\n%12s%-*s%s%*s\n", "", strings.Repeat("─", plotWidth), "", left, "0", name, plotWidth-left-len(name), end)
}
