package gguf

import (
	"bytes"
	"math"
	"math/bits"
	"slices"
	"unicode/utf8"

	"weigh/formats"
)

// parse reads the whole header. Source: ggml/src/gguf.cpp@v0.5.0,
// gguf_init_from_reader.
func (p *parser) parse() {
	defer p.finish()
	nTensors, nKVs := p.counts()
	p.readKVs(nKVs)
	p.readAlignment()
	p.readTensors(nTensors)
	p.layOut()
}

// counts reads the fixed fields: magic, version, tensor count, metadata count.
func (p *parser) counts() (tensors, kvs uint64) {
	if magic := p.Bytes("magic", 4, 4); magic != nil && string(magic) != "GGUF" {
		if lfs := formats.ReadLFSPointer(p.file.src, p.file.Size); lfs != nil {
			p.Fail("magic", "%w", lfs)
		}
		p.Fail("magic", "%q, want \"GGUF\"", magic)
	}
	at := p.Offset()
	v := p.U32("version")
	if swapped := bits.ReverseBytes32(v); 0 < swapped && swapped <= 3 {
		// gguf-py leaves the magic as it is and swaps the numbers.
		v = swapped
		p.SetBigEndian()
		p.file.BigEndian = true
		p.mark("big-endian", at, "version", "the file is big-endian; llama.cpp refuses it on little-endian machines")
	}
	if v == 1 {
		p.Fail("version", "1 is no longer supported; convert the model again")
	}
	if v < 2 || v > 3 {
		p.Fail("version", "%d, want 2 or 3", v)
	}
	p.file.Version = v
	return p.Count("tensor count", minTensorBytes, maxTensors), p.Count("metadata count", minKVBytes, maxKVs)
}

func (p *parser) readKVs(n uint64) {
	f := p.file
	f.KVs = make([]KV, 0, n)
	f.keys = make(map[string]int, n)
	for i := range int(n) {
		p.part, p.index, p.name = "key", i, ""
		kv := KV{Offset: p.Offset(), Count: 1}
		size := p.Length("name length", maxString)
		key := p.Bytes("name", size, maxKeys-p.keyBytes)
		if p.stopped() {
			return
		}
		p.keyBytes += size
		kv.Key = string(key)
		if kv.Key == "" {
			p.reject("empty-key", kv.Offset, "name", "is empty")
		}
		p.name = kv.Key
		if !utf8.ValidString(kv.Key) {
			p.warn("not-utf8", kv.Offset+8, "name", "is not valid UTF-8")
		}
		p.readValue(&kv)
		if p.stopped() {
			return
		}
		if first, ok := f.keys[kv.Key]; ok {
			p.reject("duplicate-key", kv.Offset, "name", "is the name of key %d already", first)
		} else {
			f.keys[kv.Key] = len(f.KVs)
		}
		f.KVs = append(f.KVs, kv)
	}
}

// readValue reads the type and the value of kv, or passes over a long value.
func (p *parser) readValue(kv *KV) {
	kv.Type = Type(p.U32("type"))
	if !kv.Type.known() {
		p.Fail("type", "%d, want 0 to %d", uint32(kv.Type), Float64)
	}
	elem := kv.Type
	if kv.Type == Array {
		kv.Elem = Type(p.U32("element type"))
		if elem = kv.Elem; elem == Array {
			p.Fail("element type", "arrays of arrays are not allowed")
		} else if !elem.known() {
			p.Fail("element type", "%d, want 0 to %d", uint32(elem), Float64)
		}
		least := elem.width()
		if elem == String {
			least = 8
		}
		kv.Count = p.Count("element count", max(least, 1), maxArray)
	}
	switch w := elem.width(); {
	case kv.Type == String:
		n := p.Length("length", maxString)
		kv.ValueOffset = p.Offset()
		p.keep(kv, n)
	case kv.Type == Array && elem == String:
		kv.ValueOffset = p.Offset()
		p.SkipStrings("strings", kv.Count, maxString)
	case kv.Type == Array:
		kv.ValueOffset = p.Offset()
		p.keep(kv, kv.Count*w)
	default:
		kv.ValueOffset = p.Offset()
		kv.num = p.Uint("value", w)
		if kv.Type == Bool && kv.num > 1 {
			p.warn("odd-bool", kv.ValueOffset, "value", "%d, want 0 or 1; read as true", kv.num)
		}
	}
	kv.Bytes = uint64(p.Offset() - kv.ValueOffset)
}

// keep passes over the n bytes of a value and keeps a copy of a short one.
func (p *parser) keep(kv *KV, n uint64) {
	if n > maxKept || n > p.keptLeft {
		p.Skip("value", n)
		return
	}
	kv.kept = bytes.Clone(p.Bytes("value", n, n))
	p.keptLeft -= n
}

// readAlignment takes general.alignment, which must be a u32 and a power of
// two.
func (p *parser) readAlignment() {
	if p.stopped() {
		return
	}
	p.part = ""
	kv, ok := p.file.KV("general.alignment")
	if !ok {
		return
	}
	switch {
	case kv.Type != Uint32:
		p.reject("bad-alignment", kv.ValueOffset, "general.alignment", "is %s, want u32", kv.TypeName())
	case kv.num == 0 || kv.num&(kv.num-1) != 0:
		p.reject("bad-alignment", kv.ValueOffset, "general.alignment", "%d is not a power of two", kv.num)
	default:
		p.file.Alignment = kv.num
	}
}

func (p *parser) readTensors(n uint64) {
	if p.stopped() {
		return
	}
	f := p.file
	f.Tensors = make([]Tensor, 0, n)
	names := make(map[string]int, n)
	var shapes []uint64 // backs the shapes of the next tensors
	for i := range int(n) {
		p.part, p.index, p.name = "tensor", i, ""
		t := Tensor{HeaderOffset: p.Offset()}
		t.Name = p.tensorName(t.HeaderOffset)
		p.name = t.Name
		nDims := p.U32("dimension count")
		if nDims > maxDims {
			p.Fail("dimension count", "%d, want at most %d", nDims, maxDims)
		}
		if p.stopped() {
			return
		}
		if cap(shapes)-len(shapes) < int(nDims) {
			shapes = make([]uint64, 0, 1024)
		}
		at, from := p.Offset(), len(shapes)
		for range nDims {
			shapes = append(shapes, p.U64("dimensions"))
		}
		t.Shape = slices.Clip(shapes[from:])
		typeAt := p.Offset()
		raw := p.U32("type")
		t.Offset = p.U64("offset")
		if p.stopped() {
			return
		}
		p.setType(&t, raw, typeAt)
		p.setBytes(&t, at)
		// ggml holds names as C strings and compares them as such.
		cname := t.Name
		if j := bytes.IndexByte([]byte(cname), 0); j >= 0 {
			cname = cname[:j]
			p.warn("nul-in-name", t.HeaderOffset+8, "name", "has a NUL byte, where llama.cpp ends it")
		}
		if first, ok := names[cname]; ok {
			p.reject("duplicate-tensor", t.HeaderOffset, "name", "is the name of tensor %d already", first)
		}
		names[cname] = i
		if p.stopped() {
			return
		}
		f.Tensors = append(f.Tensors, t)
	}
}

// tensorName reads the name of the tensor whose entry is at byte at.
func (p *parser) tensorName(at int64) string {
	n := p.Length("name length", maxString)
	if n > maxName {
		p.reject("long-tensor-name", at, "name length", "%d, want at most %d", n, maxName)
		p.keyBytes += min(n, maxKeys-p.keyBytes)
	}
	name := string(p.Bytes("name", n, max(maxName, maxKeys-p.keyBytes)))
	if !utf8.ValidString(name) {
		p.warn("not-utf8", at+8, "name", "is not valid UTF-8")
	}
	return name
}

// setType takes the type number of a tensor, at byte at of the file.
func (p *parser) setType(t *Tensor, raw uint32, at int64) {
	t.Type = formats.DType(raw)
	if t.Type.GGML() {
		return
	}
	t.Inferred = true
	if t.Type.Known() {
		// A number that formats uses for a type of another format.
		t.Type |= 1 << 31
	}
	p.mark("unknown-type", at, "type", "%d is no type of llama.cpp v0.5.0; its size is taken from where the next tensor begins", raw)
}

// setBytes checks the shape of a tensor, at byte at of the file, against its
// type and sets the bytes of its data.
func (p *parser) setBytes(t *Tensor, at int64) {
	for i, d := range t.Shape {
		if d > math.MaxInt64 {
			p.badShape(t, at+8*int64(i), "dimension %d is %d, over the range of int64", i, d)
			return
		}
	}
	elems := uint64(1)
	if slices.Contains(t.Shape, 0) {
		elems = 0
	}
	for i, d := range t.Shape {
		// As llama.cpp has it: a product of 2^63-1 is too many already.
		if i > 0 && elems > 0 && math.MaxInt64/d <= elems {
			p.badShape(t, at, "%d have 2^63 elements or more", t.Shape)
			return
		}
		elems *= d
	}
	if elems == 0 {
		p.warn("empty-tensor", at, "dimensions", "%d have no elements", t.Shape)
	}
	if t.Inferred {
		return
	}
	blockElems, blockBytes := t.Type.Block()
	if row := t.row(); row%blockElems != 0 {
		p.badShape(t, at, "a row of %d elements is not whole blocks of %d, as %v has", row, blockElems, t.Type)
		return
	}
	hi, lo := bits.Mul64(elems/blockElems, blockBytes)
	if hi != 0 || lo > math.MaxInt64 {
		p.badShape(t, at, "%d of %v take 2^63 bytes or more", t.Shape, t.Type)
		return
	}
	t.Bytes = lo
}

// badShape rejects a shape. The data's size is then as unknown as the shape.
func (p *parser) badShape(t *Tensor, at int64, format string, args ...any) {
	p.reject("bad-shape", at, "dimensions", format, args...)
	t.Inferred = true
}

// row returns the elements of the first dimension.
func (t *Tensor) row() uint64 {
	if len(t.Shape) == 0 {
		return 1
	}
	return t.Shape[0]
}

// layOut finds the data and checks that the tensors' data lies there in the
// order of the table, each at the first aligned byte after the one before it.
func (p *parser) layOut() {
	if p.stopped() {
		return
	}
	p.part = ""
	f := p.file
	start := uint64(p.Offset())
	if len(f.Tensors) > 0 {
		start = pad(start, f.Alignment)
	}
	f.DataOffset = int64(start)
	if start > uint64(f.Size) {
		p.reject("truncated-header", p.Offset(), "padding", "the data should begin at byte %d, %d bytes after the end of the file",
			start, start-uint64(f.Size))
		f.DataOffset = f.Size
		return
	}
	p.part = "tensor"
	held := f.DataBytes()
	next := uint64(0) // where the next tensor's data should begin
	end := uint64(0)  // of all data
	for i := range f.Tensors {
		t := &f.Tensors[i]
		p.index, p.name = i, t.Name
		at := t.HeaderOffset + 8 + int64(len(t.Name)) + 4 + 8*int64(len(t.Shape)) + 4
		inferred := i > 0 && f.Tensors[i-1].Inferred
		switch {
		case t.Offset%f.Alignment != 0:
			p.reject("misaligned-tensor", at, "offset", "%d is not a multiple of the alignment %d", t.Offset, f.Alignment)
		case t.Offset < next:
			p.reject("tensor-overlap", at, "offset", "%d, want %d: it lies in the data of the tensor before", t.Offset, next)
		case inferred && t.Offset <= math.MaxInt64:
			f.Tensors[i-1].Bytes = t.Offset - f.Tensors[i-1].Offset
			next = t.Offset
		case t.Offset > next:
			p.reject("tensor-gap", at, "offset", "%d, want %d: %d bytes belong to no tensor", t.Offset, next, t.Offset-next)
		}
		if p.stopped() {
			return
		}
		if t.Offset <= held {
			next = t.Offset // so that one fault does not look like many
		}
		if next += t.Bytes; next > math.MaxInt64 {
			p.reject("truncated-data", at, "offset", "the data ends at byte %d of the data section, of which %d bytes are there", next, held)
			return
		}
		end = max(end, next)
		next = pad(next, f.Alignment)
	}
	if n := len(f.Tensors); n > 0 && f.Tensors[n-1].Inferred {
		last := &f.Tensors[n-1]
		last.Bytes = held - min(last.Offset, held)
		end = max(end, last.Offset, held)
	}
	p.part = ""
	p.checkEnd(end)
}

// checkEnd compares the data section with what the tensors need: end bytes, and
// the padding after the last one.
func (p *parser) checkEnd(end uint64) {
	f := p.file
	held, padded := f.DataBytes(), pad(end, f.Alignment)
	if len(f.Tensors) == 0 {
		padded = pad(uint64(f.DataOffset), f.Alignment) - uint64(f.DataOffset)
	}
	switch {
	case held < end:
		p.reject("truncated-data", f.Size, "tensor data", "the file is %d bytes short: the tensors need %d bytes, %d are there",
			end-held, end, held)
	case len(f.Tensors) > 0 && f.Tensors[len(f.Tensors)-1].Inferred:
	case held > padded:
		p.warn("trailing-bytes", f.DataOffset+int64(padded), "end", "%d bytes follow the last tensor", held-padded)
	case held < padded && len(f.Tensors) > 0:
		p.warn("unpadded-end", f.Size, "end", "%d bytes of padding are missing after the last tensor", padded-held)
	}
}

// pad rounds n up to a multiple of align, a power of two; n is below 2^63 and
// align at most 2^31.
func pad(n, align uint64) uint64 { return (n + align - 1) &^ (align - 1) }
