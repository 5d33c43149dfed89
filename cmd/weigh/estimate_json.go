package main

import (
	"strings"

	"weigh/estimate"
)

// llamacppVersion is the release whose rules the estimate follows.
const llamacppVersion = "0.5.0"

// The documents of `weigh estimate --json`.
type (
	estimateDocument struct {
		Schema   int               `json:"schema"`
		Engine   engineDocument    `json:"engine"`
		Model    modelDocument     `json:"model"`
		Settings settingsDocument  `json:"settings"`
		Devices  []memoryDocument  `json:"devices"`
		Host     memoryDocument    `json:"host"`
		Basis    map[string]string `json:"basis"`
		Fits     bool              `json:"fits"`
		Parts    []partDocument    `json:"parts,omitempty"`
		Steps    []string          `json:"steps,omitempty"`
		Command  string            `json:"command,omitempty"`           // of the pre-flight check
		Speed    *speedDocument    `json:"tokens_per_second,omitempty"` // likewise
		Notes    []string          `json:"notes"`
	}
	engineDocument struct {
		Name    string `json:"name"`
		Version string `json:"version"`
		Backend string `json:"backend"`
	}
	modelDocument struct {
		Path         string  `json:"path"`
		Format       string  `json:"format"`
		Architecture string  `json:"architecture"`
		Name         string  `json:"name"`
		Parameters   uint64  `json:"parameters"`
		FileBytes    *uint64 `json:"file_bytes"` // unknown without weights
	}
	settingsDocument struct {
		NCtx       int                `json:"n_ctx"`
		NCtxSeq    int                `json:"n_ctx_seq"`
		NBatch     int                `json:"n_batch"`
		NUBatch    int                `json:"n_ubatch"`
		NParallel  int                `json:"n_parallel"`
		KVUnified  bool               `json:"kv_unified"`
		NOutputs   int                `json:"n_outputs_max"`
		NGPULayers int                `json:"n_gpu_layers"`
		Split      []float32          `json:"tensor_split,omitempty"`
		Overrides  []overrideDocument `json:"override_tensor,omitempty"`
		FlashAttn  bool               `json:"flash_attn"`
		TypeK      string             `json:"cache_type_k"`
		TypeV      string             `json:"cache_type_v"`
		Pipeline   bool               `json:"pipeline_parallel"`
		Memory     string             `json:"memory_class"`
		Nodes      int                `json:"graph_nodes"`
		Splits     int                `json:"graph_splits"`
		Layers     []int              `json:"layers_on_devices"`
	}
	overrideDocument struct {
		Pattern string `json:"pattern"`
		Buffer  string `json:"buffer"`
	}
	memoryDocument struct {
		Name        string         `json:"name,omitempty"`
		Description string         `json:"description,omitempty"`
		Model       uint64         `json:"model"`
		Context     uint64         `json:"context"`
		Compute     uint64         `json:"compute"`
		Overhead    uint64         `json:"overhead"`
		Total       uint64         `json:"total"`
		MemoryTotal *uint64        `json:"memory_total"`
		MemoryFree  *uint64        `json:"memory_free"`
		Fits        bool           `json:"fits"`
		Buffers     []buffer       `json:"buffers,omitempty"`
		Terms       []termDocument `json:"terms,omitempty"`
	}
	buffer struct {
		Name    string `json:"name"`
		Model   uint64 `json:"model"`
		Context uint64 `json:"context"`
		Compute uint64 `json:"compute"`
	}
	termDocument struct {
		Part  string `json:"part"`
		Name  string `json:"name"`
		Bytes uint64 `json:"bytes"`
		Basis string `json:"basis"`
		Why   string `json:"why"`
	}
	partDocument struct {
		Kind string   `json:"kind"`
		Name string   `json:"name"`
		Use  []buffer `json:"use"`
	}
)

var partNames = [...]string{estimate.Weights: "model", estimate.Context: "context", estimate.Compute: "compute", estimate.Overhead: "overhead"}

func newEstimateDocument(s *session) *estimateDocument {
	b := s.breakdown
	d := &estimateDocument{
		Schema: 1,
		Engine: engineDocument{"llama.cpp", llamacppVersion, s.backend()},
		Model:  newModelDocument(s),
		Basis: map[string]string{
			"model": string(b.Basis.Model), "context": string(b.Basis.Context),
			"compute": string(b.Basis.Compute), "overhead": string(b.Basis.Overhead),
		},
		Settings: newSettingsDocument(s),
		Fits:     s.fits(), Steps: s.steps, Notes: s.allNotes(),
		Devices: []memoryDocument{},
	}
	if s.Defined() {
		d.Basis["model"], d.Basis["compute"] = string(estimate.Modelled), string(estimate.Modelled)
	}
	for i := range b.Devices {
		m := &b.Devices[i]
		dev := &s.options.Devices[m.Device]
		doc := newMemoryDocument(m, m.Terms)
		doc.Name, doc.Description = m.Name, dev.Name
		doc.MemoryTotal, doc.MemoryFree = dev.MemoryTotal, dev.MemoryFree
		doc.Fits = s.device(m).fits
		d.Devices = append(d.Devices, doc)
	}
	sum, v := s.host()
	var terms []estimate.Term
	for i := range b.Host {
		terms = append(terms, b.Host[i].Terms...)
	}
	d.Host = newMemoryDocument(&sum, terms)
	d.Host.Name, d.Host.MemoryTotal, d.Host.MemoryFree, d.Host.Fits = "", s.machine.Host.MemoryTotal, v.free, v.fits
	for i := range b.Host {
		d.Host.Buffers = append(d.Host.Buffers, newBuffer(&b.Host[i]))
	}
	for _, p := range b.Parts {
		doc := partDocument{Kind: p.Kind, Name: p.Name}
		for i := range p.Use {
			doc.Use = append(doc.Use, newBuffer(&p.Use[i]))
		}
		d.Parts = append(d.Parts, doc)
	}
	return d
}

func newModelDocument(s *session) modelDocument {
	d := modelDocument{s.Path, s.Format, s.Model.Arch, s.Model.Name, s.Parameters(), nil}
	if !s.Weightless() {
		d.FileBytes = new(s.FileBytes())
	}
	return d
}

func newSettingsDocument(s *session) settingsDocument {
	t := s.breakdown.Settings
	d := settingsDocument{
		NCtx: t.NCtx, NCtxSeq: t.NCtxSeq, NBatch: t.NBatch, NUBatch: t.NUBatch, NParallel: t.NParallel, KVUnified: t.KVUnified,
		NOutputs: t.NOutputs, NGPULayers: t.NGPULayers, Split: s.options.TensorSplit,
		FlashAttn: t.FlashAttn, TypeK: lower(t.TypeK), TypeV: lower(t.TypeV),
		Pipeline: t.Pipeline, Memory: t.MemoryClass, Nodes: t.Nodes, Splits: t.Splits, Layers: t.LayersOn,
	}
	for _, o := range s.options.Overrides {
		d.Overrides = append(d.Overrides, overrideDocument(o))
	}
	return d
}

func newMemoryDocument(m *estimate.Memory, terms []estimate.Term) memoryDocument {
	d := memoryDocument{Name: m.Name, Model: m.Model, Context: m.Context, Compute: m.Compute, Overhead: m.Overhead, Total: m.Total()}
	for _, t := range terms {
		d.Terms = append(d.Terms, termDocument{partNames[t.Part], t.Name, t.Bytes, string(t.Basis), strings.TrimSpace(t.Why)})
	}
	return d
}

func newBuffer(m *estimate.Memory) buffer { return buffer{m.Name, m.Model, m.Context, m.Compute} }
