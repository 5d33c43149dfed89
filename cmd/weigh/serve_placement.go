package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"github.com/spf13/cobra"

	"weigh/estimate"
	"weigh/estimate/speed"
)

// newPlacementCmd returns the command behind the page's map of layers: what lies
// where, how fast that is, and the line to run.
func newPlacementCmd() *cobra.Command {
	r := &request{}
	cmd := &cobra.Command{
		Use:                "placement MODEL [llama-server flags]",
		DisableFlagParsing: true,
		RunE: weighing(r, func(cmd *cobra.Command, s *session) error {
			if err := s.weigh(); err != nil {
				return err
			}
			d, err := newPlacementDocument(s)
			if err != nil {
				return err
			}
			return writeJSON(cmd.OutOrStdout(), d)
		}),
	}
	addRequestFlags(cmd.Flags(), r)
	return cmd
}

// The document of /api/placement.
type (
	placementDocument struct {
		Schema  int             `json:"schema"`
		Command string          `json:"command"`
		Args    []string        `json:"args"`
		Speed   *placementSpeed `json:"speed"`   // null where it is unknown
		Devices []string        `json:"devices"` // what a device of the layers is called
		Layers  []layerPlace    `json:"layers"`  // the input first, the output last
		Experts bool            `json:"experts"`
	}
	// A placementSpeed is a speed whose decode is null for a model that generates
	// nothing.
	placementSpeed struct {
		speedDocument
		Decode *tpsRange `json:"decode"`
	}
	// A layerPlace says where a layer runs and what of it lies where.
	layerPlace struct {
		Index int         `json:"index"` // -1: the input
		Home  int         `json:"home"`  // index into devices; -1: the host
		Parts []partPlace `json:"parts"`
	}
	partPlace struct {
		Kind   string `json:"kind"` // weights, experts or cache
		Device int    `json:"device"`
		Bytes  uint64 `json:"bytes"`
		Read   uint64 `json:"read"` // for one token; of a cache for each token before it
	}
)

func newPlacementDocument(s *session) (*placementDocument, error) {
	uses, err := estimate.Uses(s.Model, s.options)
	if err != nil {
		return nil, err
	}
	d := &placementDocument{Schema: 1, Command: s.command(), Args: s.args(), Experts: s.Model.NExpert > 0, Devices: make([]string, len(s.options.Devices))}
	for i := range s.breakdown.Devices {
		m := &s.breakdown.Devices[i]
		d.Devices[m.Device] = m.Name
	}
	if sp := speed.Of(s.Model, &s.options, uses, speed.Query{}); sp != nil && sp.Decode.Mid > 0 {
		d.Speed = &placementSpeed{speedDocument: newSpeedDocument(sp)}
		if s.generates() {
			d.Speed.Decode = &d.Speed.speedDocument.Decode
		}
	}
	d.Layers = make([]layerPlace, s.Model.NLayerAll+2)
	for i := range d.Layers {
		d.Layers[i] = layerPlace{Index: i - 1, Home: -1, Parts: []partPlace{}}
	}
	for i := range uses {
		u := &uses[i]
		if u.Layer < -1 || u.Layer > s.Model.NLayerAll {
			continue
		}
		l := &d.Layers[u.Layer+1]
		l.Home = u.Home
		if u.Operators == 0 {
			l.add(partOf(u), u)
		}
	}
	return d, nil
}

func partOf(u *estimate.Use) string {
	switch {
	case u.Tensor < 0:
		return "cache"
	case u.Experts:
		return "experts"
	}
	return "weights"
}

func (l *layerPlace) add(kind string, u *estimate.Use) {
	for i := range l.Parts {
		if p := &l.Parts[i]; p.Kind == kind && p.Device == u.Device {
			p.Bytes += u.Bytes
			p.Read += u.Read
			return
		}
	}
	l.Parts = append(l.Parts, partPlace{kind, u.Device, u.Bytes, u.Read})
}

// newLadderCmd returns the command behind the page's curve: the same settings
// with one of them at every value.
func newLadderCmd() *cobra.Command {
	r := &request{}
	var over string
	cmd := &cobra.Command{
		Use:                "ladder MODEL [llama-server flags]",
		DisableFlagParsing: true,
		RunE: weighing(r, func(cmd *cobra.Command, s *session) error {
			d, err := newLadderDocument(cmd.Context(), s, over)
			if err != nil {
				return err
			}
			return writeJSON(cmd.OutOrStdout(), d)
		}),
	}
	addRequestFlags(cmd.Flags(), r)
	cmd.Flags().StringVar(&over, "over", "ngl", "which setting: ngl, ncmoe or ctx")
	return cmd
}

// The document of /api/ladder.
type (
	ladderDocument struct {
		Schema int           `json:"schema"`
		Over   string        `json:"over"`
		Points []ladderPoint `json:"points"`
		Limit  *int          `json:"limit"` // of the context: the longest that fits
	}
	ladderPoint struct {
		Value   int      `json:"value"`
		Devices []uint64 `json:"devices"` // bytes on each
		Host    uint64   `json:"host"`    // without what grows later
		Fits    bool     `json:"fits"`
		Decode  *float64 `json:"decode"` // tokens per second
		Prefill *float64 `json:"prefill"`
		Error   string   `json:"error,omitempty"` // llama.cpp refuses it
	}
)

// newLadderDocument estimates the session's model at every value of a setting.
func newLadderDocument(ctx context.Context, s *session, over string) (*ladderDocument, error) {
	d := &ladderDocument{Schema: 1, Over: over}
	var values []int
	layers := s.Model.NLayerAll
	set := func(o *estimate.Options, n int) { o.NGPULayers = &n }
	switch over {
	case "ngl":
		values = upTo(layers + 1)
	case "ncmoe":
		values = upTo(layers)
		set = func(o *estimate.Options, n int) {
			o.Overrides = append(append([]estimate.Override{}, o.Overrides...), estimate.NCPUMoE(n)...)
		}
	case "ctx":
		values = contexts(s)
		set = func(o *estimate.Options, n int) { o.NCtx = n }
	default:
		return nil, fmt.Errorf("--over %s: want ngl, ncmoe or ctx", over)
	}
	d.Points = make([]ladderPoint, len(values))
	work := make(chan int)
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(values)) {
		wg.Go(func() {
			for i := range work {
				if ctx.Err() == nil {
					d.Points[i] = s.rung(values[i], set)
				}
			}
		})
	}
	for i := range values {
		work <- i
	}
	close(work)
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if over == "ctx" {
		n, ok, err := longest(values[len(values)-1], func(n int) (bool, error) {
			p := s.rung(n, set)
			return p.Fits, ctx.Err()
		})
		if err != nil {
			return nil, err
		}
		if ok {
			d.Limit = &n
		}
	}
	return d, nil
}

// rung estimates the session's model with one setting changed.
func (s *session) rung(n int, set func(*estimate.Options, int)) ladderPoint {
	p := ladderPoint{Value: n, Devices: make([]uint64, len(s.asked.Devices))}
	what := *s
	what.options = s.asked
	set(&what.options, n)
	b, err := estimate.Run(s.Model, what.options)
	if err != nil {
		p.Error = err.Error()
		return p
	}
	what.breakdown = b
	for i := range b.Devices {
		p.Devices[b.Devices[i].Device] = what.device(&b.Devices[i]).need
	}
	_, v := what.host()
	p.Host, p.Fits = v.must, what.fits()
	if sp, err := speed.Estimate(s.Model, what.options, speed.Query{}); err == nil && sp != nil && sp.Decode.Mid > 0 {
		if p.Prefill = &sp.Prefill.Mid; s.generates() {
			p.Decode = &sp.Decode.Mid
		}
	}
	return p
}

// upTo returns 0 to n.
func upTo(n int) []int {
	values := make([]int, n+1)
	for i := range values {
		values[i] = i
	}
	return values
}

// contexts returns lengths from 1024, or an eighth, to what the model was trained
// on, four to each doubling.
func contexts(s *session) (values []int) {
	most := max(s.Model.NCtxTrain, 1)
	for n := max(min(1024, most/8), 4); n < most; n *= 2 {
		for _, v := range []int{n, n * 5 / 4, n * 3 / 2, n * 7 / 4} {
			if v < most {
				values = append(values, v)
			}
		}
	}
	return append(values, most)
}
