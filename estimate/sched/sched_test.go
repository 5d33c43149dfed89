package sched

import (
	"errors"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"weigh/formats"
	"weigh/inspect/graph"
)

// machine is a CUDA GPU and a CPU. Buffer 0 is the GPU's.
func machine(gpus int) *Config {
	var d []Device
	for i := range gpus {
		d = append(d, CUDA(i, 0, CUDAOptions{}))
	}
	c := NewConfig(d, CPU())
	c.Explain = true
	return c
}

// weight returns a leaf in a buffer.
func weight(g *graph.Graph, buf int, ne ...int64) *graph.Tensor {
	w := g.Leaf("weight", formats.F32, ne...)
	w.Buf, w.Flags = int16(buf), graph.Weight
	return w
}

func TestComputeBuffers(t *testing.T) {
	const row = 1024 * 4 // bytes of the vectors below
	tests := map[string]struct {
		gpus   int
		build  func(g *graph.Graph, c *Config)
		want   []uint64 // of each device, the CPU last
		splits int
	}{
		"an operator works in place of an operand that nothing else reads": {0, func(g *graph.Graph, c *Config) {
			x := g.Leaf("x", formats.F32, 1024).SetInput()
			g.Expand(g.SiLU(g.Sqr(g.SiLU(x))))
		}, []uint64{row}, 1},
		"an output keeps its memory": {0, func(g *graph.Graph, c *Config) {
			x := g.Leaf("x", formats.F32, 1024).SetInput()
			g.Expand(g.SiLU(g.Sqr(x).SetOutput()))
		}, []uint64{2 * row}, 1},
		"a value lives until its last reader": {0, func(g *graph.Graph, c *Config) {
			x := g.Leaf("x", formats.F32, 1024).SetInput()
			a := g.Sqr(x)
			b := g.SiLU(a)
			g.Expand(g.Add(g.Exp(b), a))
		}, []uint64{2 * row}, 1},
		"a view holds what it looks at": {0, func(g *graph.Graph, c *Config) {
			x := g.Leaf("x", formats.F32, 1024).SetInput()
			a := g.Sqr(x)
			v := g.View1D(a, 512, 0)
			g.Expand(g.Mul(g.Sqr(v), v))
		}, []uint64{row + row/2}, 1},
		"inputs start on the CPU and are copied to the GPU that has the weights": {1, func(g *graph.Graph, c *Config) {
			x := g.Leaf("x", formats.F32, 1024).SetInput()
			g.Expand(g.Mul(x, weight(g, 0, 1024)))
		}, []uint64{row, row}, 1},
		"with pipeline parallelism there are four copies of what crosses devices": {2, func(g *graph.Graph, c *Config) {
			c.Copies = 4
			x := g.Leaf("x", formats.F32, 1024).SetInput()
			g.Expand(g.Mul(g.Mul(x, weight(g, 0, 1024)), weight(g, 1, 1024)))
		}, []uint64{5 * row, 5 * row, 4 * row}, 2},
		"weights in host memory are fetched for a large batch": {1, func(g *graph.Graph, c *Config) {
			x := g.Leaf("x", formats.F32, 1024, 32).SetInput()
			g.Expand(g.MulMat(weight(g, c.CPU, 1024, 8), x))
		}, []uint64{32*row + 8*row + 8*32*4, 32 * row}, 1},
		"but not for a small one": {1, func(g *graph.Graph, c *Config) {
			x := g.Leaf("x", formats.F32, 1024, 31).SetInput()
			g.Expand(g.MulMat(weight(g, c.CPU, 1024, 8), x))
		}, []uint64{0, 31*row + 8*31*4}, 1},
		"nor when fetching is off": {1, func(g *graph.Graph, c *Config) {
			c.OpOffload = false
			x := g.Leaf("x", formats.F32, 1024, 32).SetInput()
			g.Expand(g.MulMat(weight(g, c.CPU, 1024, 8), x))
		}, []uint64{0, 32*row + 8*32*4}, 1},
		"a demanded device is kept": {1, func(g *graph.Graph, c *Config) {
			y := g.Mul(g.Leaf("x", formats.F32, 1024).SetInput(), weight(g, 0, 1024))
			z := g.Sqr(y)
			z.Backend = 1
			g.Expand(z)
		}, []uint64{row, row}, 2},
		"unless nothing is to be allocated": {1, func(g *graph.Graph, c *Config) {
			c.NoAlloc = true
			y := g.Mul(g.Leaf("x", formats.F32, 1024).SetInput(), weight(g, 0, 1024))
			z := g.Sqr(y)
			z.Backend = 1
			g.Expand(z)
		}, []uint64{row, row}, 1},
		"a limit on single allocations makes several": {1, func(g *graph.Graph, c *Config) {
			c.Buffers[0].MaxSize = row + row/2
			y := g.Mul(g.Leaf("x", formats.F32, 1024).SetInput(), weight(g, 0, 1024))
			a := g.Sqr(y)
			g.Expand(g.Add(g.Add(a, g.Exp(y)), y))
		}, []uint64{3 * row, row}, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c, g := machine(test.gpus), graph.New(16)
			test.build(g, c)
			r, err := Pack(g, c)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(r.Compute, test.want) || r.Splits != test.splits {
				t.Errorf("compute buffers %v in %d splits, want %v in %d; peak %+v", r.Compute, r.Splits, test.want, test.splits, r.Peak)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	tests := map[string]struct {
		build func(g *graph.Graph, c *Config)
		want  string
	}{
		"memory where no device runs the operator": {func(g *graph.Graph, c *Config) {
			a := g.Leaf("cache", formats.Q4_K, 256)
			a.Buf = 0
			g.Expand(g.Cpy(g.Leaf("x", formats.F32, 256), a))
		}, `"" lies in CUDA0, where no device can run CPY`},
		"an operator that no device runs": {func(g *graph.Graph, c *Config) {
			c.Devices[1].Supports = c.Devices[0].Supports
			g.Expand(g.MulMat(g.Leaf("w", formats.TQ1_0, 256, 4), g.Leaf("x", formats.F32, 256).SetInput()))
		}, "no device can run MUL_MAT"},
		"a buffer that is not there": {func(g *graph.Graph, c *Config) {
			x := g.Leaf("x", formats.F32, 4)
			x.Buf = 9
			g.Expand(g.Sqr(x))
		}, `"x" is in buffer 9 of 3`},
		"an operand that is not in the graph": {func(g *graph.Graph, c *Config) {
			g.Nodes = append(g.Nodes, g.Sqr(g.Leaf("x", formats.F32, 4)))
		}, "is read but is not in the graph"},
		"tensors beyond any memory": {func(g *graph.Graph, c *Config) {
			g.Expand(g.Sqr(g.Leaf("x", formats.F32, 1<<30, 1<<28).SetInput()))
		}, "more than an address space"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c, g := machine(1), graph.New(16)
			test.build(g, c)
			if _, err := Pack(g, c); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want one with %q", err, test.want)
			}
		})
	}
	t.Run("more nodes than llama.cpp has room for", func(t *testing.T) {
		c, g := machine(0), graph.New(16)
		x := g.Leaf("x", formats.F32, 4).SetInput()
		for range 9 {
			x = g.Sqr(x)
		}
		g.Expand(x)
		c.MaxNodes = 8
		var e *BudgetError
		if _, err := Pack(g, c); !errors.As(err, &e) || e.Nodes != 9 || e.Leafs != 1 || e.Budget != 11 {
			t.Errorf("got error %v", err)
		}
	})
}

// attend returns flash attention as llama.cpp builds it.
func attend(dk, dv, heads, kv, queries, keys int64, typ formats.DType) *graph.Tensor {
	g := graph.New(8)
	q := g.Leaf("q", formats.F32, dk, queries, heads)
	k, v := g.Leaf("k", typ, dk, keys, kv), g.Leaf("v", typ, dv, keys, kv)
	return g.FlashAttnExt(q, k, v, g.Leaf("mask", formats.F16, keys, queries), 0, 0)
}

func TestCUDAAttention(t *testing.T) {
	tests := []struct {
		name string
		cc   int
		op   *graph.Tensor
		want attention
	}{
		{"a prompt on Ada", 890, attend(128, 128, 32, 8, 512, 4096, formats.F16), attentionMMA},
		{"a token on Ada", 890, attend(128, 128, 32, 8, 1, 4096, formats.F16), attentionVec},
		{"a token with a long context and many heads per key", 890, attend(128, 128, 64, 8, 1, 8192, formats.F16), attentionMMA},
		{"two tokens with quantized keys on Ada", 890, attend(128, 128, 32, 8, 2, 4096, formats.Q8_0), attentionVec},
		{"two tokens with quantized keys on Ampere", 860, attend(128, 128, 32, 8, 2, 4096, formats.Q8_0), attentionMMA},
		{"a prompt on Pascal", 610, attend(128, 128, 32, 8, 512, 4096, formats.F16), attentionTile},
		{"a prompt on Volta", 700, attend(128, 128, 32, 8, 512, 4096, formats.F16), attentionMMA},
		{"a few tokens on Volta", 700, attend(128, 128, 32, 8, 4, 4096, formats.F16), attentionTile},
		{"heads of 40 have no tensor-core kernel", 890, attend(40, 40, 8, 8, 512, 4096, formats.F16), attentionTile},
		{"heads of 48 have none at all", 890, attend(48, 48, 8, 8, 512, 4096, formats.F16), attentionNone},
		{"latent attention", 890, attend(576, 512, 16, 1, 512, 4096, formats.F16), attentionMMA},
		{"latent attention without a padded cache", 890, attend(576, 512, 16, 1, 512, 4000, formats.F16), attentionNone},
		{"keys of 192 with too few heads per key", 890, attend(192, 128, 16, 4, 512, 4096, formats.F16), attentionNone},
		{"keys in IQ4_NL", 890, attend(128, 128, 32, 8, 512, 4096, formats.IQ4_NL), attentionNone},
	}
	for _, test := range tests {
		if got := bestAttention(test.cc, test.op); got != test.want {
			t.Errorf("%s: kernel %d, want %d", test.name, got, test.want)
		}
	}
}

func TestAttentionHasRoomForKeysIn16Bits(t *testing.T) {
	out := uint64(128 * 32 * 512 * 4)
	wide := uint64(128 * 4096 * 8 * 2)
	for typ, want := range map[formats.DType]uint64{formats.F16: out, formats.Q8_0: out + 2*wide, formats.BF16: out + 2*wide} {
		if got := cudaSize(890, attend(128, 128, 32, 8, 512, 4096, typ)); got != want {
			t.Errorf("%v: %d bytes, want %d", typ, got, want)
		}
	}
}

func TestCUDAPadsQuantizedRows(t *testing.T) {
	g := graph.New(1)
	// 1408 elements are 2 whole 512 and 384 more: 128 in 4 blocks are missing.
	if got, want := cudaSize(890, g.Leaf("w", formats.Q8_0, 1408, 8)), uint64(8*1408/32*34+4*34); got != want {
		t.Errorf("%d bytes, want %d", got, want)
	}
}

// arbitrary builds a graph from bytes: three of them make a node.
func arbitrary(b []byte, buffers int) *graph.Graph {
	g := graph.New(64)
	all := []*graph.Tensor{g.Leaf("x", formats.F32, 64, 32).SetInput(), g.Leaf("y", formats.F32, 64, 32).SetInput()}
	g.Expand(all[1])
	for ; len(b) >= 3 && len(all) < 600; b = b[3:] {
		x, y := all[int(b[1])%len(all)], all[int(b[2])%len(all)]
		var t *graph.Tensor
		switch b[0] % 8 {
		case 0:
			t = g.Add(x, y)
		case 1:
			t = g.RMSNorm(x)
		case 2:
			t = g.Mul(x, weight(g, int(b[2])%buffers, 64, 32))
		case 3:
			t = g.MulMat(weight(g, int(b[2])%buffers, 64, 64), x)
		case 4:
			t = g.Reshape(g.Reshape2D(x, 32, 64), x)
		case 5:
			t = g.Cont(x)
		case 6:
			t = g.SiLU(x)
		case 7:
			t = g.Sqr(x)
			if y.Op != graph.OpNone {
				t.SetOutput()
			}
		}
		g.Expand(t)
		all = append(all, t)
	}
	g.Expand(g.Sqr(all[0]))
	return g
}

// FuzzPack checks what holds for any graph on any machine.
func FuzzPack(f *testing.F) {
	f.Add(uint8(0), []byte("one device"))
	f.Add(uint8(2|4), []byte("two GPUs with four copies of what crosses, and many nodes to cross"))
	f.Add(uint8(1|8), []byte("Vulkan reorders its nodes, which must not lose any of them"))
	f.Add(uint8(1|16), []byte("Metal reorders its nodes, which must not lose any of them"))
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		var gpus []Device
		for i := range int(kind & 3) {
			switch {
			case kind&8 != 0:
				gpus = append(gpus, Vulkan(i, Lavapipe()))
			case kind&16 != 0 && i == 0:
				gpus = append(gpus, Metal(MetalOptions{}))
			default:
				gpus = append(gpus, CUDA(i, 0, CUDAOptions{}))
			}
		}
		c := NewConfig(gpus, CPU())
		c.Explain = true
		if kind&4 != 0 {
			c.Copies = 4
		}
		g := arbitrary(b, len(c.Buffers))
		before := make([]graph.Tensor, len(g.Nodes))
		for i, n := range g.Nodes {
			before[i] = *n
		}
		r, err := Pack(g, c)
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range g.Nodes {
			if *n != before[i] {
				t.Fatalf("node %d was modified", i)
			}
		}
		again, err := Pack(g, c)
		if err != nil || !reflect.DeepEqual(r, again) {
			t.Fatalf("packing twice differs: %v", err)
		}
		for d := range r.Compute {
			align := c.Buffers[c.Compute[d]].Align
			top, chunk := uint64(0), 0
			for _, x := range r.Peak[d] {
				if x.Chunk != chunk {
					top, chunk = 0, x.Chunk
				}
				if x.Offset < top || x.Offset%align != 0 {
					t.Fatalf("%s: %+v overlaps or is not aligned", c.Devices[d].Name, x)
				}
				top = x.Offset + x.Bytes
			}
			if top > r.Compute[d] {
				t.Fatalf("%s: peak %d is above %d", c.Devices[d].Name, top, r.Compute[d])
			}
		}
		w, err := split(g, c)
		if err != nil {
			t.Fatal(err)
		}
		at := map[int32]int{}
		for i, n := range w.nodes {
			at[n.ID] = i + 1
			for _, s := range n.Src {
				if s != nil && s.Op != graph.OpNone && at[s.ID] == 0 {
					t.Fatalf("%v %d runs before its operand %d", n.Op, n.ID, s.ID)
				}
			}
		}
		if len(at) != len(g.Nodes) {
			t.Fatalf("%d nodes, want %d", len(at), len(g.Nodes))
		}
	})
}

func BenchmarkPack(b *testing.B) {
	paths, err := filepath.Glob(filepath.Join(*dumps, "*.jsonl*"))
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range paths {
		b.Run(filepath.Base(path), func(b *testing.B) {
			r := load(b, path)
			c := r.config(b, Lavapipe())
			c.Explain = false
			b.ReportMetric(float64(len(r.g.Nodes)), "nodes")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Pack(r.g, c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
