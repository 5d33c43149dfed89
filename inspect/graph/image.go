package graph

import "weigh/formats"

// The modes and flags of Interpolate (enum ggml_scale_mode, ggml_scale_flag).
const (
	ScaleNearest      = 0
	ScaleBilinear     = 1
	ScaleBicubic      = 2
	ScaleAlignCorners = 1 << 8
	ScaleAntialias    = 1 << 9
)

// Upscale multiplies the first two dimensions of a (F32). Params: 0 mode.
func (g *Graph) Upscale(a *Tensor, factor, mode int) *Tensor {
	g.need(OpUpscale, a, a)
	if factor <= 1 || factor > maxStep {
		g.fail(OpUpscale, "factor %d is out of range", factor)
	}
	return g.Interpolate(a, a.Ne[0]*int64(factor), a.Ne[1]*int64(factor), a.Ne[2], a.Ne[3], mode)
}

// Interpolate gives a (F32) the given dimensions. Params: 0 mode.
func (g *Graph) Interpolate(a *Tensor, ne0, ne1, ne2, ne3 int64, mode int) *Tensor {
	g.need(OpUpscale, a, a)
	g.must1(OpUpscale, a.Type == formats.F32, "want F32", a)
	if mode&0xff > ScaleBicubic || mode&ScaleAntialias != 0 && mode&0xff != ScaleBilinear {
		g.fail(OpUpscale, "mode %#x is unknown", mode)
	}
	t := g.node(OpUpscale, formats.F32, [4]int64{ne0, ne1, ne2, ne3})
	t.Src[0] = a
	t.Params[0] = int32(mode)
	return t
}

// Pad adds p0 to p3 elements behind the four dimensions. Params as for PadExt.
func (g *Graph) Pad(a *Tensor, p0, p1, p2, p3 int) *Tensor {
	return g.PadExt(a, 0, p0, 0, p1, 0, p2, 0, p3)
}

// PadExt adds lp elements before and rp behind each dimension. Params: 0 to 3
// the lp, 4 set when the padding repeats the data (PadCircular).
func (g *Graph) PadExt(a *Tensor, lp0, rp0, lp1, rp1, lp2, rp2, lp3, rp3 int) *Tensor {
	g.need(OpPad, a, a)
	t := g.node(OpPad, a.Type, [4]int64{
		g.padded(OpPad, a.Ne[0], lp0, rp0), g.padded(OpPad, a.Ne[1], lp1, rp1),
		g.padded(OpPad, a.Ne[2], lp2, rp2), g.padded(OpPad, a.Ne[3], lp3, rp3),
	})
	t.Src[0] = a
	t.Params = [6]int32{int32(lp0), int32(lp1), int32(lp2), int32(lp3)}
	return t
}

// PadCircular is Pad with repeated data.
func (g *Graph) PadCircular(a *Tensor, p0, p1, p2, p3 int) *Tensor {
	t := g.Pad(a, p0, p1, p2, p3)
	t.Params[4] = 1
	return t
}

// padded returns the length of a dimension of n elements with padding. A
// negative padding takes elements away.
func (g *Graph) padded(op Op, n int64, left, right int) int64 {
	if int64(left) < -maxDim || int64(left) > maxDim || int64(right) < -maxDim || int64(right) > maxDim {
		g.fail(op, "padding %d or %d is out of range", left, right)
	}
	return n + int64(left) + int64(right)
}

// PadReflect1D adds p0 mirrored elements before and p1 behind each row of the
// packed tensor a (F32). Params: 0 p0, 1 p1.
func (g *Graph) PadReflect1D(a *Tensor, p0, p1 int) *Tensor {
	g.need(OpPadReflect1D, a, a)
	g.must1(OpPadReflect1D, a.Contiguous() && a.Type == formats.F32, "want packed F32", a)
	if p0 < 0 || p1 < 0 || int64(p0) >= a.Ne[0] || int64(p1) >= a.Ne[0] {
		g.fail(OpPadReflect1D, "padding %d or %d does not fit rows of %d elements", p0, p1, a.Ne[0])
	}
	t := g.node(OpPadReflect1D, a.Type, [4]int64{g.padded(OpPadReflect1D, a.Ne[0], p0, p1), a.Ne[1], a.Ne[2], a.Ne[3]})
	t.Src[0] = a
	t.Params = [6]int32{int32(p0), int32(p1)}
	return t
}

// Roll rotates the four dimensions. Params: 0 to 3 the shifts.
func (g *Graph) Roll(a *Tensor, shift0, shift1, shift2, shift3 int) *Tensor {
	t := g.like(OpRoll, a)
	_, size := a.Type.Block()
	g.must1(OpRoll, a.Nb[0] == size, "want packed rows", a)
	for i, s := range [4]int{shift0, shift1, shift2, shift3} {
		if int64(max(s, -s)) >= a.Ne[i] {
			g.fail(OpRoll, "shift %d is not within dimension %d of %v", s, i, a.Ne)
		}
		t.Params[i] = int32(s)
	}
	return t
}

// WinPart parts a [c, w, h] (F32) into padded windows: [c, w, w, n].
// Params: 0 and 1 windows in both directions, 2 w.
func (g *Graph) WinPart(a *Tensor, w int) *Tensor {
	g.need(OpWinPart, a, a)
	g.must1(OpWinPart, a.Ne[3] == 1 && a.Type == formats.F32, "want F32 of three dimensions", a)
	if w <= 0 || w > maxStep {
		g.fail(OpWinPart, "window %d is out of range", w)
	}
	n := int64(w)
	npx, npy := (a.Ne[1]+n-1)/n, (a.Ne[2]+n-1)/n
	t := g.node(OpWinPart, formats.F32, [4]int64{a.Ne[0], n, n, product([4]int64{npx, npy, 1, 1})})
	t.Src[0] = a
	t.Params = [6]int32{int32(npx), int32(npy), int32(w)}
	return t
}

// WinUnpart joins windows into [a.Ne[0], w0, h0] (F32). Params: 0 w.
func (g *Graph) WinUnpart(a *Tensor, w0, h0, w int) *Tensor {
	g.need(OpWinUnpart, a, a)
	g.must1(OpWinUnpart, a.Type == formats.F32, "want F32", a)
	t := g.node(OpWinUnpart, formats.F32, [4]int64{a.Ne[0], int64(w0), int64(h0), 1})
	t.Src[0] = a
	t.Params[0] = int32(w)
	return t
}

// GetRelPos gathers relative positions: F16 of [a.Ne[0], kh, qh].
func (g *Graph) GetRelPos(a *Tensor, qh, kh int) *Tensor {
	g.need(OpGetRelPos, a, a)
	if qh != kh || qh > maxStep || 2*int64(qh)-1 != a.Ne[1] {
		g.fail(OpGetRelPos, "%d by %d positions do not fit %v", qh, kh, a.Ne)
	}
	t := g.node(OpGetRelPos, formats.F16, [4]int64{a.Ne[0], int64(kh), int64(qh), 1})
	t.Src[0] = a
	return t
}

// AddRelPos adds relative positions in both directions to the scores a.
func (g *Graph) AddRelPos(a, pw, ph *Tensor) *Tensor {
	return g.addRelPos(g.like(OpAddRelPos, a), a, pw, ph)
}

// AddRelPosInplace is AddRelPos in the memory of a. Params: 0 set.
func (g *Graph) AddRelPosInplace(a, pw, ph *Tensor) *Tensor {
	t := g.addRelPos(g.over(OpAddRelPos, a), a, pw, ph)
	t.Params[0] = 1
	return t
}

func (g *Graph) addRelPos(t, a, pw, ph *Tensor) *Tensor {
	g.need3(OpAddRelPos, a, pw, ph)
	g.must(OpAddRelPos, pw.Ne == ph.Ne && pw.Contiguous() && ph.Contiguous() && pw.Type == formats.F32 && ph.Type == formats.F32,
		"want packed F32 of one shape", pw, ph)
	g.must(OpAddRelPos, a.Contiguous() && pw.Ne[3] == a.Ne[2] && product([4]int64{pw.Ne[0], pw.Ne[0], 1, 1}) == a.Ne[0] &&
		product([4]int64{pw.Ne[1], pw.Ne[2], 1, 1}) == a.Ne[1], "positions do not fit", a, pw)
	t.Src[1], t.Src[2] = pw, ph
	return t
}
