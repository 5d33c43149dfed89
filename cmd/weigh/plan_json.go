package main

import (
	"weigh/estimate/plan"
	"weigh/estimate/speed"
)

// The documents of `weigh plan --json`.
type (
	planDocument struct {
		Schema   int                `json:"schema"`
		Engine   engineDocument     `json:"engine"`
		Model    modelDocument      `json:"model"`
		Fits     bool               `json:"fits"`
		Plans    []planItem         `json:"plans"`
		Steps    []string           `json:"steps"`
		Why      string             `json:"why,omitempty"`
		Changes  []changeDocument   `json:"changes,omitempty"`
		Quants   []smallerDocument  `json:"smaller_quants,omitempty"`
		Hardware []purchaseDocument `json:"minimum_hardware,omitempty"`
	}
	planItem struct {
		Role     string           `json:"role"`
		Why      string           `json:"why"`
		Settings settingsDocument `json:"settings"`
		Args     []string         `json:"args"`
		Command  string           `json:"command"`
		Devices  []memoryDocument `json:"devices"`
		Host     memoryDocument   `json:"host"`
		TPS      speedDocument    `json:"tokens_per_second"`
		Fits     bool             `json:"fits"`
		NCPUMoE  int              `json:"n_cpu_moe,omitempty"`
		NCPUFFN  int              `json:"n_cpu_ffn,omitempty"`
		KVOnHost bool             `json:"no_kv_offload,omitempty"`
		CacheMiB *int             `json:"cache_ram_mib,omitempty"`
		Notes    []string         `json:"notes,omitempty"`
	}
	speedDocument struct {
		Decode     tpsRange   `json:"decode"`
		Prefill    tpsRange   `json:"prefill"`
		FirstToken float64    `json:"first_token_seconds"`
		Depth      int        `json:"depth"`
		Prompt     int        `json:"prompt"`
		Basis      string     `json:"basis"`
		Assumed    []string   `json:"assumed,omitempty"`
		Terms      []timeTerm `json:"terms,omitempty"`
	}
	tpsRange struct {
		Low  float64 `json:"low"`
		Mid  float64 `json:"mid"`
		High float64 `json:"high"`
	}
	timeTerm struct {
		Name    string  `json:"name"`
		Bytes   uint64  `json:"bytes"`
		Seconds float64 `json:"seconds"`
		Why     string  `json:"why"`
	}
	changeDocument struct {
		What    string        `json:"what"`
		Args    []string      `json:"args"`
		Command string        `json:"command"`
		TPS     speedDocument `json:"tokens_per_second"`
	}
	smallerDocument struct {
		Type      string        `json:"type"`
		DataBytes uint64        `json:"data_bytes"`
		TPS       speedDocument `json:"tokens_per_second"`
	}
	purchaseDocument struct {
		Name        string        `json:"name"`
		Count       int           `json:"count"`
		MemoryTotal uint64        `json:"memory_total"`
		Need        uint64        `json:"need"`
		TPS         speedDocument `json:"tokens_per_second"`
	}
)

func newPlanDocument(s *session, r *plan.Result, buy []plan.Purchase, smaller []smallerQuant) *planDocument {
	s.options = s.asked
	d := &planDocument{
		Schema: 1, Engine: engineDocument{"llama.cpp", llamacppVersion, s.backend()}, Model: newModelDocument(s),
		Fits: len(r.Plans) > 0, Plans: []planItem{}, Steps: r.Steps, Why: r.Why,
	}
	for i := range r.Plans {
		d.Plans = append(d.Plans, newPlanItem(s, &r.Plans[i]))
	}
	for _, c := range r.Changes {
		d.Changes = append(d.Changes, changeDocument{c.What, c.Args, s.planCommand(c.Plan), newSpeedDocument(c.Plan.Speed)})
	}
	for _, q := range smaller {
		d.Quants = append(d.Quants, smallerDocument{q.name, q.bytes, newSpeedDocument(q.plan.Speed)})
	}
	for _, b := range buy {
		d.Hardware = append(d.Hardware, purchaseDocument{b.Card.Name, b.Count, b.Card.Memory, b.Need, newSpeedDocument(b.Speed)})
	}
	return d
}

func newPlanItem(s *session, p *plan.Plan) planItem {
	e := newEstimateDocument(s.planned(p))
	item := planItem{
		Role: p.Role, Why: p.Why, Settings: e.Settings, Args: s.planArgs(p), Command: s.planCommand(p),
		Devices: e.Devices, Host: e.Host, TPS: newSpeedDocument(p.Speed), Fits: e.Fits,
		KVOnHost: p.Options.NoKVOffload, CacheMiB: p.CacheRAM, Notes: e.Notes,
	}
	if s.Model.NExpert > 0 {
		item.NCPUMoE = p.Lean
	} else {
		item.NCPUFFN = p.Lean
	}
	return item
}

func newSpeedDocument(s *speed.Speed) speedDocument {
	d := speedDocument{
		Decode: tpsRange(s.Decode), Prefill: tpsRange(s.Prefill), FirstToken: s.FirstToken,
		Depth: s.Depth, Prompt: s.Prompt, Basis: s.Basis, Assumed: s.Assumed,
	}
	for _, t := range s.Terms {
		d.Terms = append(d.Terms, timeTerm(t))
	}
	return d
}
