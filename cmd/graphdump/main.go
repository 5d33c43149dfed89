// Graphdump prints the graph that a model is estimated with, node by node, to
// be compared with the one that llama.cpp builds. Settings are key=value pairs
// named as in the oracle: n_ctx=8192 n_seq_max=4 flash_attn=off.
package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"weigh/formats"
	"weigh/inspect"
	"weigh/inspect/arch"
	"weigh/inspect/graph"
	"weigh/inspect/model"
)

type place struct{}

func (p place) Weight(i, layer int) int16             { return 0 }
func (p place) Cache(il int) int16                    { return 0 }
func (p place) TargetWeight(i, layer int) int16       { return 0 }
func (p place) TargetCache(il int) int16              { return 0 }
func (p place) LayerBackend(il int) int8              { return 0 }
func (p place) CPU() int8                             { return 1 }
func (p place) Supports(b int8, t *graph.Tensor) bool { return true }
func (p place) PinNorms() bool                        { return true }

// load returns the model of a file.
func load(path string) *model.Model {
	ins, err := inspect.Open(path)
	if err == nil && ins.Model == nil {
		err = ins.Reason
	}
	if err != nil {
		panic(err)
	}
	return ins.Model
}

func main() {
	path := os.Args[1]
	opt := map[string]string{}
	for _, a := range os.Args[2:] {
		k, v, _ := strings.Cut(a, "=")
		opt[k] = v
	}
	num := func(k string, d int) int {
		if v, ok := opt[k]; ok {
			n, _ := strconv.Atoi(v)
			return n
		}
		return d
	}
	m := load(path)
	np := num("n_seq_max", 1)
	c := &arch.Context{
		NCtx: num("n_ctx", 4096), NBatch: num("n_batch", 2048), NUBatch: num("n_ubatch", 512), NSeqMax: np, KVUnified: num("kv_unified", 0) == 1,
		FlashAttn: opt["flash_attn"] != "off", VTrans: opt["flash_attn"] == "off", OffloadKQV: true, CausalAttn: m.CausalAttn, TypeK: formats.F16, TypeV: formats.F16, Pooling: m.Pooling,
		Embeddings: num("embeddings", 0) == 1, MTP: opt["ctx_type"] == "mtp",
	}
	if opt["type_k"] != "" {
		c.TypeK, _ = formats.ParseDType(strings.ToUpper(opt["type_k"]))
	}
	if opt["type_v"] != "" {
		c.TypeV, _ = formats.ParseDType(strings.ToUpper(opt["type_v"]))
	}
	if row := arch.Lookup(m.Arch); row != nil && row.Rollback {
		c.NRsSeq = num("n_rs_seq", 0)
	}
	c.NCtxSeq = c.NCtx
	if !c.KVUnified {
		c.NCtxSeq = (c.NCtx/np + 255) / 256 * 256
		c.NCtx = c.NCtxSeq * np
	}
	if t := opt["target"]; t != "" {
		tc := *c
		c.Target = load(t)
		c.TargetMemory = arch.NewMemory(c.Target, &tc)
	}
	mem := arch.NewMemory(m, c)
	nt := min(c.NCtx, c.NUBatch)
	nt = (nt + np - 1) / np * np
	nout := num("n_outputs_max", 0)
	if nout == 0 {
		nout = c.NBatch
	}
	u := arch.Batch{NTokens: nt, NSeqTokens: nt / np, NSeqs: np, NOutputs: min(nt, nout)}
	if c.MTP {
		u.Kind = arch.GraphMTP
	}
	g, err := arch.Build(m, c, mem, u, place{})
	if err != nil {
		fmt.Println("ERR", err)
		os.Exit(1)
	}
	for i, n := range g.Nodes {
		var s []string
		for _, x := range n.Src {
			if x != nil {
				s = append(s, x.Name)
			}
		}
		fmt.Printf("%d %s %s %v %s-%d [%s]\n", i, n.Op, strings.ToLower(n.Type.String()), n.Ne, n.Name, n.Layer, strings.Join(s, ","))
	}
}
