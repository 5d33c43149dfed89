package graph

import (
	"errors"
	"testing"

	"weigh/formats"
)

// shape is what a test expects of a result: strides and offset in bytes.
type shape struct {
	op   Op
	typ  formats.DType
	ne   [4]int64
	nb   [4]uint64
	view *Tensor
	offs uint64
}

func check(t *testing.T, got *Tensor, want shape) {
	t.Helper()
	if got.Op != want.op || got.Type != want.typ || got.Ne != want.ne || got.Nb != want.nb {
		t.Errorf("got %v %v ne %v nb %v, want %v %v ne %v nb %v",
			got.Op, got.Type, got.Ne, got.Nb, want.op, want.typ, want.ne, want.nb)
	}
	if got.ViewSrc != want.view || got.ViewOffs != want.offs {
		t.Errorf("got a view of %v at %d, want of %v at %d", got.ViewSrc, got.ViewOffs, want.view, want.offs)
	}
}

func TestShapes(t *testing.T) {
	g := New(256)
	x := g.Leaf("x", formats.F32, 64, 10)
	x3 := g.Leaf("x3", formats.F32, 16, 4, 10)
	w := g.Leaf("w", formats.Q8_0, 64, 32)
	q4 := g.Leaf("q4", formats.Q4_K, 256, 8, 4)
	h := g.Leaf("h", formats.F16, 64, 10)
	pos := g.Leaf("pos", formats.I32, 10)
	ids := g.Leaf("ids", formats.I32, 2, 10)
	cache := g.Leaf("cache", formats.F16, 64, 256)
	img := g.Leaf("img", formats.F32, 28, 28, 3)
	kernel := g.Leaf("kernel", formats.F16, 14, 14, 3, 8)
	mask := g.Leaf("mask", formats.F16, 256, 10)
	view := g.View2D(cache, 32, 256, 128, 64)

	tests := map[string]struct {
		got  *Tensor
		want shape
	}{
		"a quantized leaf has strides of whole blocks": {
			q4,
			shape{OpNone, formats.Q4_K, [4]int64{256, 8, 4, 1}, [4]uint64{144, 144, 1152, 4608}, nil, 0},
		},
		"an addition keeps the first shape": {
			g.Add(x, g.Leaf("b", formats.F32, 64)),
			shape{OpAdd, formats.F32, [4]int64{64, 10, 1, 1}, [4]uint64{4, 256, 2560, 2560}, nil, 0},
		},
		"an addition in place is a view": {
			g.AddInplace(x, x),
			shape{OpAdd, formats.F32, [4]int64{64, 10, 1, 1}, [4]uint64{4, 256, 2560, 2560}, x, 0},
		},
		"a packed result of a view with gaps is dense": {
			g.Scale(g.View2D(x, 32, 10, 256, 0)),
			shape{OpScale, formats.F32, [4]int64{32, 10, 1, 1}, [4]uint64{4, 128, 1280, 1280}, nil, 0},
		},
		"a product is F32 of rows by rows": {
			g.MulMat(w, x),
			shape{OpMulMat, formats.F32, [4]int64{32, 10, 1, 1}, [4]uint64{4, 128, 1280, 1280}, nil, 0},
		},
		"a product by expert has a row for each expert used": {
			g.MulMatID(q4, g.Leaf("b", formats.F32, 256, 1, 10), ids),
			shape{OpMulMatID, formats.F32, [4]int64{8, 2, 10, 1}, [4]uint64{4, 32, 64, 640}, nil, 0},
		},
		"an outer product spans both rows": {
			g.OutProd(g.Leaf("a", formats.F32, 3, 5), g.Leaf("b", formats.F32, 7, 5, 2)),
			shape{OpOutProd, formats.F32, [4]int64{3, 7, 2, 1}, [4]uint64{4, 12, 84, 168}, nil, 0},
		},
		"rows of a quantized table are F32": {
			g.GetRows(w, g.Leaf("i", formats.I32, 5)),
			shape{OpGetRows, formats.F32, [4]int64{64, 5, 1, 1}, [4]uint64{4, 256, 1280, 1280}, nil, 0},
		},
		"rows set in a cache are the cache": {
			g.SetRows(cache, x, g.Leaf("i", formats.I64, 10)),
			shape{OpSetRows, formats.F16, [4]int64{64, 256, 1, 1}, [4]uint64{2, 128, 32768, 32768}, cache, 0},
		},
		"a copy is a view of its destination": {
			g.Cpy(x, h),
			shape{OpCpy, formats.F16, [4]int64{64, 10, 1, 1}, [4]uint64{2, 128, 1280, 1280}, h, 0},
		},
		"a cast has memory of its own": {
			g.Cast(x, formats.BF16),
			shape{OpCpy, formats.BF16, [4]int64{64, 10, 1, 1}, [4]uint64{2, 128, 1280, 1280}, nil, 0},
		},
		"a reshape is a packed view": {
			g.Reshape3D(x, 16, 4, 10),
			shape{OpReshape, formats.F32, [4]int64{16, 4, 10, 1}, [4]uint64{4, 64, 256, 2560}, x, 0},
		},
		"a view of rows ends with equal strides": {
			view,
			shape{OpView, formats.F16, [4]int64{32, 256, 1, 1}, [4]uint64{2, 128, 32768, 32768}, cache, 64},
		},
		"a view of a view adds offsets and names the root": {
			g.View1D(view, 8, 256),
			shape{OpView, formats.F16, [4]int64{8, 1, 1, 1}, [4]uint64{2, 16, 16, 16}, cache, 320},
		},
		"a view of three dimensions closes the fourth stride": {
			g.View3D(cache, 16, 4, 10, 32, 128, 128),
			shape{OpView, formats.F16, [4]int64{16, 4, 10, 1}, [4]uint64{2, 32, 128, 1280}, cache, 128},
		},
		"a permutation moves dimensions and strides": {
			g.Permute(x3, 0, 2, 1, 3),
			shape{OpPermute, formats.F32, [4]int64{16, 10, 4, 1}, [4]uint64{4, 256, 64, 2560}, x3, 0},
		},
		"a permutation to the given axes is not its inverse": {
			g.Permute(x3, 1, 2, 0, 3),
			shape{OpPermute, formats.F32, [4]int64{10, 16, 4, 1}, [4]uint64{256, 4, 64, 2560}, x3, 0},
		},
		"a transposition swaps two dimensions": {
			g.Transpose(x),
			shape{OpTranspose, formats.F32, [4]int64{10, 64, 1, 1}, [4]uint64{256, 4, 2560, 2560}, x, 0},
		},
		"a packed copy of a transposition is dense": {
			g.Cont(g.Transpose(x)),
			shape{OpCont, formats.F32, [4]int64{10, 64, 1, 1}, [4]uint64{4, 40, 2560, 2560}, nil, 0},
		},
		"an operator in place of a view keeps its strides and root": {
			g.NormInplace(g.Transpose(g.View2D(x, 32, 10, 256, 128))),
			shape{OpNorm, formats.F32, [4]int64{10, 32, 1, 1}, [4]uint64{256, 4, 2560, 2560}, x, 128},
		},
		"a concatenation adds one dimension": {
			g.Concat(x3, x3, 1),
			shape{OpConcat, formats.F32, [4]int64{16, 8, 10, 1}, [4]uint64{4, 64, 512, 5120}, nil, 0},
		},
		"a repetition takes the second shape": {
			g.Repeat(g.Leaf("r", formats.F32, 16, 1), x3),
			shape{OpRepeat, formats.F32, [4]int64{16, 4, 10, 1}, [4]uint64{4, 64, 256, 2560}, nil, 0},
		},
		"a gated activation halves the rows": {
			g.SwiGLU(x),
			shape{OpGLU, formats.F32, [4]int64{32, 10, 1, 1}, [4]uint64{4, 128, 1280, 1280}, nil, 0},
		},
		"a split gated activation keeps the rows": {
			g.SwiGLUSplit(x, x),
			shape{OpGLU, formats.F32, [4]int64{64, 10, 1, 1}, [4]uint64{4, 256, 2560, 2560}, nil, 0},
		},
		"a rotation keeps the shape": {
			g.Rope(x3, pos, nil, 16, RopeNeoX),
			shape{OpRope, formats.F32, [4]int64{16, 4, 10, 1}, [4]uint64{4, 64, 256, 2560}, nil, 0},
		},
		"flash attention puts heads before tokens": {
			g.FlashAttnExt(g.Leaf("q", formats.F32, 64, 10, 8), g.Leaf("k", formats.F16, 64, 256, 2), g.Leaf("v", formats.F16, 32, 256, 2), mask, 0, 0),
			shape{OpFlashAttnExt, formats.F32, [4]int64{32, 8, 10, 1}, [4]uint64{4, 128, 1024, 10240}, nil, 0},
		},
		"the largest elements are a view of the sorted ones": {
			g.ArgsortTopK(x, 2).Src[0],
			shape{OpArgsort, formats.I32, [4]int64{64, 10, 1, 1}, [4]uint64{4, 256, 2560, 2560}, nil, 0},
		},
		"sums of rows are columns": {
			g.SumRows(x3),
			shape{OpSumRows, formats.F32, [4]int64{1, 4, 10, 1}, [4]uint64{4, 4, 16, 160}, nil, 0},
		},
		"the mean of F16 is F32": {
			g.Mean(h),
			shape{OpMean, formats.F32, [4]int64{1, 10, 1, 1}, [4]uint64{4, 4, 40, 40}, nil, 0},
		},
		"an image unfolds into F16 columns": {
			g.Im2col(kernel, img, 14, 14, 0, 0, 1, 1, true, formats.F16),
			shape{OpIm2col, formats.F16, [4]int64{588, 2, 2, 1}, [4]uint64{2, 1176, 2352, 4704}, nil, 0},
		},
		"a convolution ends in a packed copy": {
			g.Conv2D(kernel, img, 14, 14, 0, 0, 1, 1),
			shape{OpCont, formats.F32, [4]int64{2, 2, 8, 1}, [4]uint64{4, 8, 16, 128}, nil, 0},
		},
		"a direct convolution has the type of its data": {
			g.Conv2DDirect(kernel, img, 2, 2, 7, 7, 1, 1),
			shape{OpConv2D, formats.F32, [4]int64{15, 15, 8, 1}, [4]uint64{4, 60, 900, 7200}, nil, 0},
		},
		"windows are counted with padding": {
			g.Pool2D(img, PoolAvg, 3, 3, 2, 2, 1, 1),
			shape{OpPool2D, formats.F32, [4]int64{14, 14, 3, 1}, [4]uint64{4, 56, 784, 2352}, nil, 0},
		},
		"padding goes behind each dimension": {
			g.Pad(img, 4, 0, 1, 0),
			shape{OpPad, formats.F32, [4]int64{32, 28, 4, 1}, [4]uint64{4, 128, 3584, 14336}, nil, 0},
		},
		"a state space convolution gives tokens": {
			g.SSMConv(g.Leaf("sx", formats.F32, 13, 32, 2), g.Leaf("c", formats.F32, 4, 32)),
			shape{OpSSMConv, formats.F32, [4]int64{32, 10, 2, 1}, [4]uint64{4, 128, 1280, 2560}, nil, 0},
		},
		"a state space scan gives outputs and states": {
			g.SSMScan(g.Leaf("s", formats.F32, 16, 8, 4, 3), g.Leaf("x", formats.F32, 8, 4, 5, 2), g.Leaf("dt", formats.F32, 4, 5, 2),
				g.Leaf("A", formats.F32, 1, 4), g.Leaf("B", formats.F32, 16, 1, 5, 2), g.Leaf("C", formats.F32, 16, 1, 5, 2), g.Leaf("ids", formats.I32, 2), 1),
			shape{OpSSMScan, formats.F32, [4]int64{320 + 1024, 1, 1, 1}, [4]uint64{4, 5376, 5376, 5376}, nil, 0},
		},
		"a gated delta rule gives outputs and snapshots": {
			g.GatedDeltaNet(g.Leaf("q", formats.F32, 16, 4, 5, 2), g.Leaf("k", formats.F32, 16, 4, 5, 2), g.Leaf("v", formats.F32, 16, 4, 5, 2),
				g.Leaf("g", formats.F32, 1, 4, 5, 2), g.Leaf("b", formats.F32, 1, 4, 5, 2), g.Leaf("s", formats.F32, 16, 16, 4, 2), 3),
			shape{OpGatedDeltaNet, formats.F32, [4]int64{64, 10 + 96, 1, 1}, [4]uint64{4, 256, 27136, 27136}, nil, 0},
		},
		"an indexer gives a score for each key": {
			g.LightningIndexer(g.Leaf("q", formats.F32, 128, 8, 10), g.Leaf("k", formats.F16, 128, 1, 256), g.Leaf("w", formats.F32, 8, 10), mask),
			shape{OpLightningIndexer, formats.F32, [4]int64{256, 10, 1, 1}, [4]uint64{4, 1024, 10240, 10240}, nil, 0},
		},
		"counting includes a broken step": {
			g.Arange(0, 10, 3),
			shape{OpArange, formats.F32, [4]int64{4, 1, 1, 1}, [4]uint64{4, 16, 16, 16}, nil, 0},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { check(t, tt.got, tt.want) })
	}
}

func TestParamsAndOperands(t *testing.T) {
	g := New(64)
	x3 := g.Leaf("x3", formats.F32, 16, 4, 10)
	h := g.Leaf("h", formats.F16, 16, 40)
	pos, idx := g.Leaf("pos", formats.I32, 10), g.Leaf("idx", formats.I64, 10)
	src, cache := g.Leaf("src", formats.F32, 16, 10), g.Leaf("cache", formats.F16, 16, 40)

	if c := g.Cast(x3, formats.F16); c.Src[0] != x3 || c.Src[1] != c {
		t.Error("a cast is not its own second operand")
	}
	if s := g.SetRows(cache, src, idx); s.Src[0] != src || s.Src[1] != idx || s.Src[2] != cache {
		t.Error("the operands of SetRows are not rows, indices, destination")
	}
	if r := g.RopeSetOffset(g.Rope(x3, pos, nil, 8, RopeNeoX), 8); r.Params != [6]int32{0, 8, 2, 8} {
		t.Errorf("rope has parameters %v", r.Params)
	}
	if m := g.MulMat(h, h).SetPrec(PrecF32).SetPrecSrc(PrecBF16, 1); m.Params != [6]int32{10, 0, 0, 15} {
		t.Errorf("a product has parameters %v", m.Params)
	}
	if u := g.SiLU(x3); u.Sub != UnarySiLU || u.Op != OpUnary {
		t.Errorf("SiLU is %v %d", u.Op, u.Sub)
	}
	if p := g.SoftMaxExt(x3, nil, 0).SetPrec(PrecF32); p.Params != [6]int32{} {
		t.Errorf("a soft max took a precision: %v", p.Params)
	}
}

func TestWrongShapesAreErrors(t *testing.T) {
	g := New(64)
	x, y := g.Leaf("x", formats.F32, 64, 10), g.Leaf("y", formats.F32, 48, 10)
	empty := g.Leaf("empty", formats.F32, 64, 10, 0)
	tests := map[string]struct {
		op Op
		f  func()
	}{
		"rows of different length":       {OpMulMat, func() { g.MulMat(x, y) }},
		"a product by nothing":           {OpMulMat, func() { g.MulMat(empty, x) }},
		"a missing operand":              {OpAdd, func() { g.Add(x, nil) }},
		"a missing only operand":         {OpRMSNorm, func() { g.RMSNorm(nil) }},
		"no repetition":                  {OpAdd, func() { g.Add(x, y) }},
		"a reshape that loses elements":  {OpReshape, func() { g.Reshape2D(x, 64, 9) }},
		"a reshape that wraps around":    {OpReshape, func() { g.Reshape4D(x, 1<<40, 1<<40, 1<<40, 640) }},
		"a reshape of a transposition":   {OpReshape, func() { g.Reshape1D(g.Transpose(x), 640) }},
		"a view behind the end":          {OpView, func() { g.View1D(x, 64, 2560-252) }},
		"a view far behind the end":      {OpView, func() { g.View1D(x, 1, 1<<64-4) }},
		"a stride that wraps around":     {OpView, func() { g.View2D(x, 1, 10, 1<<63, 0) }},
		"a negative dimension":           {OpView, func() { g.View1D(x, -1, 0) }},
		"a dimension out of range":       {OpNone, func() { g.Leaf("w", formats.F32, 1<<41) }},
		"a tensor larger than addresses": {OpNone, func() { g.Leaf("w", formats.F32, 1<<40, 1<<40) }},
		"a broken block":                 {OpNone, func() { g.Leaf("w", formats.Q4_K, 100) }},
		"an unknown type":                {OpNone, func() { g.Leaf("w", formats.DType(63), 32) }},
		"five dimensions":                {OpNone, func() { g.Leaf("w", formats.F32, 1, 1, 1, 1, 1) }},
		"an axis named twice":            {OpPermute, func() { g.Permute(x, 0, 0, 1, 2) }},
		"an unknown axis":                {OpPermute, func() { g.Permute(x, 0, 1, 2, 4) }},
		"a kernel larger than its image": {OpIm2col, func() { g.Conv2D(x, g.Leaf("i", formats.F32, 2, 2), 1, 1, 0, 0, 1, 1) }},
		"a stride of nothing":            {OpIm2col, func() { g.Conv2D(x, x, 0, 1, 0, 0, 1, 1) }},
		"positions that are not I32":     {OpRope, func() { g.Rope(x, x, nil, 64, RopeNeoX) }},
		"a bias without a mask":          {OpSoftMax, func() { g.SoftMaxExt(x, nil, 8) }},
		"sinks on a sum":                 {OpSoftMax, func() { g.SoftMaxAddSinks(g.Add(x, x), x) }},
		"counting by nothing":            {OpArange, func() { g.Arange(0, 10, 0) }},
		"more than the largest":          {OpTopK, func() { g.TopK(x, 65) }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := Try(tt.f)
			var serr *ShapeError
			if !errors.As(err, &serr) || serr.Op != tt.op {
				t.Fatalf("got error %v, want a *ShapeError of %v", err, tt.op)
			}
		})
	}
}

func TestTryPassesOtherPanicsThrough(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a panic that is no ShapeError was swallowed")
		}
	}()
	_ = Try(func() { panic("bug") })
}

func TestExpandPutsOperandsFirst(t *testing.T) {
	g := New(16)
	a, b, w := g.Leaf("a", formats.F32, 32, 4), g.Leaf("b", formats.F32, 32, 4), g.Leaf("w", formats.F32, 32, 32)
	late := g.Mul(a, b)
	mm := g.MulMat(w, a)
	sum := g.Add(mm, late)
	cast := g.Cast(sum, formats.F16)
	g.Expand(cast)
	g.Expand(sum)
	unused := g.Sqr(b)
	if got := g.Select(0, sum, unused); got != sum {
		t.Error("Select returned another tensor")
	}
	for i, want := range []*Tensor{mm, late, sum, cast, unused} {
		if g.Nodes[i] != want {
			t.Errorf("node %d is %v, want %v", i, g.Nodes[i].Op, want.Op)
		}
	}
	for i, want := range []*Tensor{w, a, b} {
		if g.Leafs[i] != want {
			t.Errorf("leaf %d is %q, want %q", i, g.Leafs[i].Name, want.Name)
		}
	}
	if len(g.Nodes) != 5 || len(g.Leafs) != 3 {
		t.Errorf("got %d nodes and %d leafs, want 5 and 3", len(g.Nodes), len(g.Leafs))
	}
}

// FuzzViews builds chains of views and checks that a root is never a view and
// that packed results lie within it.
func FuzzViews(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7}, uint16(64), uint16(10))
	f.Fuzz(func(t *testing.T, steps []byte, n, m uint16) {
		g := New(len(steps) + 1)
		_ = Try(func() {
			cur := g.Leaf("x", formats.F16, int64(n), int64(m))
			for _, s := range steps[:min(len(steps), 64)] {
				k := int64(s >> 3)
				switch s & 7 {
				case 0:
					cur = g.Transpose(cur)
				case 1:
					cur = g.Permute(cur, 0, 2, 1, 3)
				case 2:
					cur = g.View1D(cur, k, uint64(k)*2)
				case 3:
					cur = g.View2D(cur, cur.Ne[0]/2, cur.Ne[1], cur.Nb[1], uint64(k))
				case 4:
					cur = g.Reshape1D(cur, cur.Elements())
				case 5:
					cur = g.ScaleInplace(cur)
				case 6:
					cur = g.Cont(cur)
				case 7:
					cur = g.Reshape2D(cur, cur.Elements()/(k+1), k+1)
				}
				if cur.ViewSrc == nil {
					continue
				}
				if cur.ViewSrc.ViewSrc != nil {
					t.Fatalf("%v has a view as root", cur.Op)
				}
				if dense := uint64(cur.Elements()) * 2; dense > 0 && cur.ViewOffs+dense > cur.ViewSrc.Bytes() {
					t.Fatalf("%v of %d bytes at %d leaves its root of %d", cur.Op, dense, cur.ViewOffs, cur.ViewSrc.Bytes())
				}
			}
		})
	})
}

func BenchmarkLayers(b *testing.B) {
	for b.Loop() {
		g := New(4096)
		x := g.Leaf("x", formats.F32, 4096, 512)
		w := g.Leaf("w", formats.Q4_K, 4096, 4096)
		for range 500 {
			y := g.MulMat(w, g.Mul(g.RMSNorm(x), g.Leaf("n", formats.F32, 4096)))
			x = g.Add(x, g.SwiGLUSplit(y, y))
		}
		g.Expand(x)
	}
}

func TestHeadsThatAreNoWholeBlocks(t *testing.T) {
	g := New(16)
	cache := g.Leaf("cache", formats.Q8_0, 224, 256)
	row := RowSize(formats.Q8_0, 112)
	heads := g.View4D(cache, 112, 2, 256, 1, row, cache.Nb[1], 256*cache.Nb[1], 0)
	check(t, heads, shape{
		op: OpView, typ: formats.Q8_0, ne: [4]int64{112, 2, 256, 1},
		nb: [4]uint64{34, 119, 238, 60928}, view: cache,
	})
	if got, want := heads.Bytes(), uint64(119+119+255*238); got != want {
		t.Errorf("the view has %d bytes, want %d", got, want)
	}
	check(t, g.Permute(heads, 0, 2, 1, 3), shape{
		op: OpPermute, typ: formats.Q8_0, ne: [4]int64{112, 256, 2, 1},
		nb: [4]uint64{34, 238, 119, 60928}, view: cache,
	})
	if err := Try(func() { g.Leaf("odd", formats.Q8_0, 112, 2) }); err == nil {
		t.Error("a tensor of its own with a part of a block in each row was built")
	}
}
