// Package sched says which device runs each node of a compute graph and how
// many bytes of compute buffer each device needs for it, by the rules of ggml's
// scheduler and graph allocator (ggml/src/ggml-backend.cpp and
// ggml/src/ggml-alloc.c at llama.cpp v0.5.0), so that the figures are the same
// to the byte. Nothing is computed or allocated.
//
// What a device can run and how it lays tensors out are data of its kind:
// [CUDA], [Vulkan], [Metal], [SYCL] and [CPU]. [NewConfig] puts devices together.
package sched

import (
	"fmt"

	"weigh/inspect/graph"
)

// A BufferType is a kind of memory (ggml_backend_buffer_type_t).
type BufferType struct {
	Name    string
	Align   uint64                       // bytes, a power of two
	MaxSize uint64                       // largest single allocation, bytes; 0 for no limit
	Host    bool                         // the CPU can read and write it
	Size    func(t *graph.Tensor) uint64 // bytes that t takes in it; nil for t.Bytes()
	Runs    func(op *graph.Tensor) bool  // whether op may read it, for a layout that only some operators know; nil for any
	kind    string                       // kind of device that owns it
	device  int                          // backend that owns it
}

// AllocSize returns the bytes that t takes in the buffer type, before they are
// rounded up to the alignment.
func (b *BufferType) AllocSize(t *graph.Tensor) uint64 {
	if b.Size == nil {
		return t.Bytes()
	}
	return b.Size(t)
}

// A Device is a device's rules: what it can run and what its memory is like.
type Device struct {
	Name   string      // "CUDA0"
	Kind   string      // "CUDA"
	Local  bool        // it never runs an operator with an operand in another device of its kind
	Buffer BufferType  // the memory it computes in
	Pinned *BufferType // host memory it can reach faster; nil for none
	Shared bool        // it reads Pinned like its own memory (an integrated GPU)
	Packed *BufferType // memory with weights in a layout of its own; nil for none
	Async  bool        // it has queues and events, which pipeline parallelism needs

	Supports func(op *graph.Tensor) bool // whether it can run op
	Offload  func(op *graph.Tensor) bool // whether it would fetch op's weights from host memory to run it; nil for never
	Optimize func(s *Section)            // what it changes in its part of a graph; nil for nothing
}

// A Section is a run of nodes on one device, as its optimiser sees it.
type Section struct {
	Nodes []*graph.Tensor // may be reordered, not changed in number
	w     *work
}

// Uses returns how many operands in the whole graph are t
// (ggml_node_get_use_count).
func (s *Section) Uses(t *graph.Tensor) int { return int(s.w.uses[t.ID]) }

// Keep holds the memory of t until the node until, which must be one of the
// section, has run.
func (s *Section) Keep(t, until *graph.Tensor) {
	for _, k := range s.w.keep[until.ID] {
		if k == t {
			return
		}
	}
	if s.w.keep == nil {
		s.w.keep = map[int32][]*graph.Tensor{}
	}
	s.w.keep[until.ID] = append(s.w.keep[until.ID], t)
}

// Config is the machine that a graph is packed for. [NewConfig] makes one.
type Config struct {
	Devices []Device     // in order of priority; the last is the CPU
	Buffers []BufferType // graph.Tensor.Buf is an index into it
	Compute []int        // Compute[i] is the buffer type that Devices[i] computes in

	CPU    int // index in Buffers of plain host memory
	Pinned int // of the first device's pinned memory, which the CPU computes in; -1 for none
	Packed int // of the CPU's repacked weights; -1 for none

	OpOffload bool // devices may fetch weights from host memory (op_offload)
	Copies    int  // copies of every input that crosses devices: 4 with pipeline parallelism (GGML_SCHED_MAX_COPIES), otherwise 0 or 1
	NoAlloc   bool // forget the backends that the graph demands, as llama.cpp's measurement without allocation does (ggml_backend_sched_reserve_size)
	MaxNodes  int  // node budget of the graph (llama_context::graph_max_nodes); 0 for no check
	Explain   bool // fill Result.Peak

	reads [][]bool // reads[device][buffer]
}

// NewConfig returns the machine with the given accelerators, in the order of
// their priority, and CPU. Buffers[i] is the memory of accelerators[i].
//
// Source: src/llama-context.cpp@v0.5.0, llama_context::llama_context (backends
// and their buffer types).
func NewConfig(accelerators []Device, cpu Device) *Config {
	c := &Config{Pinned: -1, Packed: -1, OpOffload: true, Copies: 1}
	c.Devices = append(append(c.Devices, accelerators...), cpu)
	last := len(accelerators)
	pinned := map[string]int{}
	for i, d := range accelerators {
		c.addBuffer(d.Buffer, d.Kind, i)
		c.Compute = append(c.Compute, i)
	}
	for i, d := range accelerators {
		if d.Pinned == nil {
			continue
		}
		if _, ok := pinned[d.Pinned.Name]; !ok {
			pinned[d.Pinned.Name] = c.addBuffer(*d.Pinned, "", -1)
		}
		if i == 0 {
			c.Pinned = pinned[d.Pinned.Name]
		}
	}
	c.CPU = c.addBuffer(cpu.Buffer, cpu.Kind, last)
	if cpu.Packed != nil {
		c.Packed = c.addBuffer(*cpu.Packed, cpu.Kind, last)
	}
	c.Compute = append(c.Compute, c.CPU)
	if c.Pinned >= 0 {
		c.Compute[last] = c.Pinned
	}
	c.reads = make([][]bool, len(c.Devices))
	for i, d := range c.Devices {
		c.reads[i] = make([]bool, len(c.Buffers))
		for j, b := range c.Buffers {
			c.reads[i][j] = b.device == i || (i == last && b.Host) ||
				(d.Shared && d.Pinned != nil && d.Pinned.Name == b.Name)
		}
	}
	return c
}

func (c *Config) addBuffer(b BufferType, kind string, device int) int {
	b.kind, b.device = kind, device
	c.Buffers = append(c.Buffers, b)
	return len(c.Buffers) - 1
}

// Pipelines reports whether every accelerator has what pipeline parallelism
// needs. Whether llama.cpp then uses it also depends on the model's placement.
//
// Source: src/llama-context.cpp@v0.5.0, llama_context::llama_context.
func (c *Config) Pipelines() bool {
	for _, d := range c.Devices[:len(c.Devices)-1] {
		if !d.Async {
			return false
		}
	}
	return len(c.Devices) > 2
}

// A Block is a tensor's place in a compute buffer.
type Block struct {
	Name   string // of the tensor, "" for one without a name
	Layer  int32  // -1 for none
	Op     graph.Op
	Chunk  int    // the allocation it is in, 0 unless the buffer type has a MaxSize
	Offset uint64 // bytes from the start of the chunk
	Bytes  uint64 // padded to the alignment
}

// A Result says where a graph runs and what it needs.
type Result struct {
	Device  []int8     // device of each tensor, by its ID; -1 for one that is not in the graph
	Splits  int        // parts that run on one device without interruption
	Nodes   int        // nodes of the graph
	Leafs   int        // leafs of the graph
	Compute []uint64   // bytes of compute buffer of each device; devices that share a buffer type name the same bytes
	Chunks  [][]uint64 // the allocations that Compute is the sum of
	Peak    [][]Block  // if asked for: what lay in each device's compute buffer when it last grew, by chunk and offset; gaps are unused
}

// A BudgetError reports a graph with more nodes than llama.cpp sets aside room
// for, where it ends with an assertion.
type BudgetError struct {
	Nodes, Leafs int
	Budget       int // room for nodes and leafs together
}

func (e *BudgetError) Error() string {
	return fmt.Sprintf("graph of %d nodes and %d leafs is over llama.cpp's budget of %d; use fewer sequences or a smaller micro-batch", e.Nodes, e.Leafs, e.Budget)
}

// Split says which device runs each node, without packing: Compute, Chunks and
// Peak of the result are nil. The graph is as before afterwards, but not
// meanwhile.
//
// Source: ggml/src/ggml-backend.cpp@v0.5.0, ggml_backend_sched_split_graph.
func Split(g *graph.Graph, c *Config) (*Result, error) {
	w, err := split(g, c)
	if err != nil {
		return nil, err
	}
	defer w.restore()
	return w.result(), nil
}

// Pack splits the graph and returns the compute buffers that it needs. The
// graph is as before afterwards, but not meanwhile.
//
// Source: ggml/src/ggml-backend.cpp@v0.5.0, ggml_backend_sched_reserve and
// ggml_backend_sched_reserve_size; ggml/src/ggml-alloc.c@v0.5.0,
// ggml_gallocr_reserve_n.
func Pack(g *graph.Graph, c *Config) (*Result, error) {
	w, err := split(g, c)
	if err != nil {
		return nil, err
	}
	defer w.restore()
	r := w.result()
	if _, err := w.pack(r); err != nil {
		return nil, err
	}
	return r, nil
}

func (w *work) result() *Result {
	return &Result{Device: w.device[:w.own], Splits: len(w.splits), Nodes: len(w.nodes), Leafs: len(w.leafs)}
}

// hashSize returns the size of ggml's hash set for n keys: the first prime
// after a power of two that is not below n. Sizes above the table are odd.
//
// Source: ggml/src/ggml.c@v0.5.0, ggml_hash_size.
func hashSize(n int) int {
	for _, p := range [...]int{
		2, 3, 5, 11, 17, 37, 67, 131, 257, 521, 1031, 2053, 4099, 8209, 16411, 32771, 65537, 131101, 262147, 524309,
		1048583, 2097169, 4194319, 8388617, 16777259, 33554467, 67108879, 134217757, 268435459, 536870923, 1073741827,
	} {
		if p >= n {
			return p
		}
	}
	return n | 1
}
