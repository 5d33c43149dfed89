package sched

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"weigh/formats"
	"weigh/inspect/graph"
)

var dumps = flag.String("dumps", "testdata", "folder of graphs that llama.cpp split and packed")

// recorded is one line of a recording: the graph that llama.cpp v0.5.0 measured
// for a model, or a tensor of it.
type recorded struct {
	Graph *struct {
		Leafs  int               `json:"n_leafs"`
		Walk   int               `json:"walk_leafs"`
		Copies int               `json:"n_copies"`
		Sizes  map[string]uint64 `json:"sizes"`
		Splits []recordedSplit   `json:"splits"`
	}
	ID, Op, Name, Type, Flags, Backend, Buft, In string
	Ne                                           [4]int64
	Nb                                           [4]uint64
	Src                                          [][]any
	ViewSrc                                      string `json:"view_src"`
	ViewOffs                                     uint64 `json:"view_offs"`
	Split                                        *int
	Chunk                                        int
	Offset                                       *uint64
}

type recordedSplit struct {
	Backend    string
	Start, End int
	Inputs     []string
}

// recording is a graph as llama.cpp's model built it, and what its scheduler
// made of it.
type recording struct {
	head    recorded
	g       *graph.Graph
	lines   map[*graph.Tensor]recorded
	gpus    int
	cc      int // compute capability, 0 for 8.9
	vulkan  int
	offload bool
	byID    []*graph.Tensor

	reordered *reordered
}

// reordered is what became of a graph when Vulkan's optimiser reordered it.
type reordered struct {
	Sizes map[string]uint64
	Nodes []placed
}

// placed is a node as it was placed: its operator, name, offset and chunk.
type placed struct {
	name   string
	offset *uint64
	chunk  int
}

func (p *placed) UnmarshalJSON(b []byte) error {
	var chunk *int
	var op string
	if err := json.Unmarshal(b, &[]any{&op, &p.name, &p.offset, &chunk}); err != nil {
		return err
	}
	if chunk != nil {
		p.chunk = *chunk
	}
	return nil
}

func opByName(t testing.TB, name string) (graph.Op, uint8) {
	for o := graph.OpNone; o <= graph.OpGLU; o++ {
		if o.String() == name {
			return o, 0
		}
	}
	if strings.Contains(name, "GLU") {
		return graph.OpGLU, 0
	}
	unary := []string{
		"ABS", "SGN", "NEG", "STEP", "TANH", "ELU", "RELU", "SIGMOID", "GELU", "GELU_QUICK", "SILU",
		"HARDSWISH", "HARDSIGMOID", "EXP", "EXPM1", "SOFTPLUS", "GELU_ERF", "XIELU", "FLOOR", "CEIL", "ROUND", "TRUNC",
	}
	if i := slices.Index(unary, name); i >= 0 {
		return graph.OpUnary, uint8(i)
	}
	t.Fatalf("unknown operator %q", name)
	return 0, 0
}

// load undoes what the scheduler did to a recorded graph: operands that it
// replaced by copies are put back.
func load(t testing.TB, path string) *recording {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var in io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if in, err = gzip.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	r := &recording{g: &graph.Graph{}, lines: map[*graph.Tensor]recorded{}}
	var lines []recorded
	s := bufio.NewScanner(in)
	s.Buffer(nil, 64<<20)
	for s.Scan() {
		var l recorded
		if strings.HasPrefix(s.Text(), `{"model"`) {
			var last struct {
				GPUs, Vulkan, Cc int
				Offload          bool `json:"op_offload"`
				Reordered        *reordered
			}
			if err := json.Unmarshal(s.Bytes(), &last); err != nil {
				t.Fatal(err)
			}
			r.gpus, r.cc, r.vulkan, r.offload, r.reordered = last.GPUs, last.Cc, last.Vulkan, last.Offload, last.Reordered
			break
		}
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			t.Fatalf("%v in %.200s", err, s.Text())
		}
		lines = append(lines, l)
	}
	if s.Err() != nil || len(lines) < 2 || lines[0].Graph == nil {
		t.Fatalf("%d lines, %v", len(lines), s.Err())
	}
	r.head = lines[0]
	walk := r.head.Graph.Walk
	leafs, nodes := lines[1+walk-r.head.Graph.Leafs:1+walk], lines[1+walk:]
	of := map[string]string{}
	for i := 1; i < len(nodes); i++ {
		d, c := nodes[i-1], nodes[i]
		if d.Split == nil && c.Split == nil && d.ViewSrc != "" && c.ViewSrc == "" && len(c.Src) == 0 {
			of[c.ID] = d.Src[0][1].(string)
		}
	}
	byID := map[string]*graph.Tensor{}
	get := func(id string) *graph.Tensor {
		if o, ok := of[id]; ok {
			id = o
		}
		return byID[id]
	}
	add := func(l recorded) *graph.Tensor {
		x := &graph.Tensor{Name: l.Name, Ne: l.Ne, Nb: l.Nb, Buf: graph.Unplaced, Backend: -1, Layer: -1, ID: int32(len(byID))}
		x.Op, x.Sub = opByName(t, l.Op)
		typ, ok := formats.ParseDType(strings.ToUpper(l.Type))
		if !ok {
			t.Fatalf("unknown type %q", l.Type)
		}
		x.Type = typ
		if strings.Contains(l.Flags, "i") {
			x.Flags |= graph.Input
		}
		if strings.Contains(l.Flags, "o") && !(r.head.Graph.Copies > 1 && strings.Contains(l.Flags, "i")) {
			x.Flags |= graph.Output
		}
		byID[l.ID] = x
		for _, s := range l.Src {
			i := int(s[0].(float64))
			if x.Src[i] = get(s[1].(string)); x.Src[i] == nil {
				t.Fatalf("%s reads unknown %v", l.ID, s)
			}
		}
		if l.ViewSrc != "" {
			if x.ViewSrc, x.ViewOffs = get(l.ViewSrc), l.ViewOffs; x.ViewSrc == nil {
				t.Fatalf("%s is a view of unknown %s", l.ID, l.ViewSrc)
			}
		}
		r.lines[x] = l
		r.byID = append(r.byID, x)
		return x
	}
	for _, l := range leafs {
		x := add(l)
		if l.In != "" && !strings.HasPrefix(l.Name, "cache_") {
			x.Flags |= graph.Weight
		}
		r.g.Leafs = append(r.g.Leafs, x)
	}
	for _, l := range nodes {
		if l.Split != nil {
			r.g.Nodes = append(r.g.Nodes, add(l))
		}
	}
	return r
}

// TestSameAsLlamaCpp splits and packs graphs that llama.cpp split and packed,
// and compares every device, offset and size.
func TestSameAsLlamaCpp(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(*dumps, "*.jsonl*"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no recordings in %s: %v", *dumps, err)
	}
	for _, path := range paths {
		t.Run(strings.SplitN(filepath.Base(path), ".jsonl", 2)[0], func(t *testing.T) {
			r := load(t, path)
			limits := Lavapipe()
			limits.NoReorder = true
			c := r.config(t, limits)
			w := r.compareSplits(t, c)
			r.comparePacked(t, w, r.head.Graph.Sizes)
			if r.reordered == nil {
				return
			}
			// The same graph as the driver's optimiser left it.
			if w, err = split(r.g, r.config(t, Lavapipe())); err != nil {
				t.Fatal(err)
			}
			for i, want := range r.reordered.Nodes {
				x := w.nodes[i]
				if x.Name != want.name {
					t.Fatalf("node %d after reordering is %v %s, want %s", i, x.Op, x.Name, want.name)
				}
				l := r.lines[r.byID[x.ID]]
				l.Offset, l.Chunk = want.offset, want.chunk
				r.lines[r.byID[x.ID]] = l
			}
			r.comparePacked(t, w, r.reordered.Sizes)
		})
	}
}

// config returns the machine of a recording, and puts its tensors in its
// buffers.
func (r *recording) config(t testing.TB, limits VulkanLimits) *Config {
	var gpus []Device
	for i := range r.gpus {
		gpus = append(gpus, CUDA(i, r.cc, CUDAOptions{}))
	}
	for i := range r.vulkan {
		gpus = append(gpus, Vulkan(i, limits))
	}
	cpu := CPU()
	cpu.Packed = Repacked()
	c := NewConfig(gpus, cpu)
	c.NoAlloc, c.Copies, c.Explain, c.OpOffload = true, r.head.Graph.Copies, true, r.offload
	for x, l := range r.lines {
		if x.Op == graph.OpNone && l.In != "" {
			i := slices.IndexFunc(c.Buffers, func(b BufferType) bool { return b.Name == l.In })
			if i < 0 {
				t.Fatalf("no buffer type %q", l.In)
			}
			x.Buf = int16(i)
		}
		if x.Op == graph.OpSSMScan {
			x.Params[0] = 1
		}
	}
	return c
}

func (r *recording) compareSplits(t *testing.T, c *Config) *work {
	w, err := split(r.g, c)
	if err != nil {
		t.Fatal(err)
	}
	bad := 0
	for i, x := range r.g.Nodes {
		if got, want := c.Devices[w.device[x.ID]].Name, r.lines[x].Backend; got != want {
			t.Errorf("node %d, %v %s: runs on %s, want %s", i, x.Op, x.Name, got, want)
			if bad++; bad > 5 {
				t.FailNow()
			}
		}
	}
	want := r.head.Graph.Splits
	if len(w.splits) != len(want) {
		t.Errorf("%d splits, want %d", len(w.splits), len(want))
	}
	for i := range min(len(w.splits), len(want)) {
		p := w.splits[i]
		got := recordedSplit{Backend: c.Devices[p.device].Name, Start: p.start, End: p.end, Inputs: []string{}}
		for _, x := range p.inputs {
			got.Inputs = append(got.Inputs, x.Name)
		}
		if !reflect.DeepEqual(got, want[i]) {
			t.Fatalf("split %d is %+v, want %+v", i, got, want[i])
		}
	}
	return w
}

func (r *recording) comparePacked(t *testing.T, w *work, want map[string]uint64) {
	res := w.result()
	p, err := w.pack(res)
	if err != nil {
		t.Fatal(err)
	}
	bad := 0
	for i, x := range w.nodes {
		l := r.lines[r.byID[x.ID]]
		if l.Offset == nil || x.ViewSrc != nil {
			continue
		}
		if a := p.states[x.ID].at; a.off != *l.Offset || a.chunk != l.Chunk {
			t.Errorf("node %d, %v %s: at %d of chunk %d, want %d of %d", i, x.Op, x.Name, a.off, a.chunk, *l.Offset, l.Chunk)
			if bad++; bad > 5 {
				break
			}
		}
	}
	sizes := map[string]uint64{}
	for d, n := range res.Compute {
		name := w.c.Devices[d].Name
		sizes[w.c.Buffers[w.c.Compute[d]].Name] = n
		top, chunk, sum := uint64(0), 0, uint64(0)
		for _, b := range res.Peak[d] {
			if b.Chunk != chunk {
				top, chunk = 0, b.Chunk
			}
			if b.Offset < top {
				t.Errorf("%s: %q at %d overlaps its neighbour, which ends at %d", name, b.Name, b.Offset, top)
			}
			top = b.Offset + b.Bytes
		}
		for _, c := range res.Chunks[d] {
			sum += c
		}
		if sum != n {
			t.Errorf("%s: chunks are %d bytes, want %d", name, sum, n)
		}
		if len(res.Chunks[d]) == 1 && top != n {
			t.Errorf("%s: the peak ends at %d, want %d", name, top, n)
		}
	}
	for name, n := range want {
		if sizes[name] != n {
			t.Errorf("%s takes %d bytes, want %d", name, sizes[name], n)
		}
	}
}
