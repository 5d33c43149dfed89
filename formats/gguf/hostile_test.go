package gguf_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"weigh/fixtures"
	"weigh/formats"
	"weigh/formats/gguf"
)

// maxAlloc is the memory that no file with less than 100 MB of header may
// exceed, all allocations counted.
const maxAlloc = 64 << 20

// allocated returns the bytes that call allocates.
func allocated(call func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	call()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// both reads and checks a file, takes every value of it and holds what comes
// out against what must be so.
func both(t testing.TB, src io.ReaderAt, size int64) {
	f, err := gguf.Read(src, size)
	problems := gguf.Check(src, size)
	fatal := firstFatal(problems)
	if (err == nil) != (fatal == nil) {
		t.Fatalf("Read() error = %v, Check() = %v", err, problems)
	}
	for _, p := range problems {
		if p.Offset < 0 || p.Offset > size || p.Code == "" || p.Field == "" || p.Message == "" {
			t.Errorf("problem %+v in a file of %d bytes", p, size)
		}
	}
	if err != nil {
		var ferr *formats.Error
		switch {
		case f != nil:
			t.Error("Read() returned both a file and an error")
		case !errors.As(err, &ferr):
			t.Errorf("Read() error = %v, want a *formats.Error", err)
		case ferr.Offset != fatal.Offset || ferr.Field != fatal.Field:
			t.Errorf("Read() error = %v, Check() has %+v first", err, *fatal)
		}
		return
	}
	inferred := f.BigEndian
	for _, kv := range f.KVs {
		if kv.Offset < 24 || kv.ValueOffset < kv.Offset || uint64(size-kv.ValueOffset) < kv.Bytes {
			t.Errorf("%+v lies outside of %d bytes", kv, size)
		}
		v, ok := f.Lookup(kv.Key)
		if !ok || v == nil {
			t.Errorf("%q has no value", kv.Key)
		}
		if kv.Type != gguf.Array {
			continue
		}
		a, err := f.Array(kv.Key)
		if err != nil {
			t.Fatal(err)
		}
		n := uint64(0)
		for _, err := range a.All() {
			if err != nil {
				t.Errorf("%q element %d: %v", kv.Key, n, err)
			}
			if n++; n == 1000 {
				break
			}
		}
		if n != min(a.Count, 1000) {
			t.Errorf("%q has %d elements, %d read", kv.Key, a.Count, n)
		}
	}
	if f.DataOffset > size || f.Alignment&(f.Alignment-1) != 0 {
		t.Errorf("data at %d, alignment %d", f.DataOffset, f.Alignment)
	}
	for _, ti := range f.Tensors {
		if ti.Offset+ti.Bytes < ti.Offset || ti.Offset+ti.Bytes > f.DataBytes() || ti.HeaderOffset < 24 || len(ti.Shape) > 4 {
			t.Errorf("%+v lies outside of %d bytes", ti, f.DataBytes())
		}
		inferred = inferred || ti.Inferred
	}
	if got := errorsIn(problems) == 0; got == inferred {
		t.Errorf("Check() valid = %v of a file that is big-endian or has unknown types: %v", got, inferred)
	}
}

func seeds(t testing.TB) [][]byte {
	paths, err := filepath.Glob(filepath.Join(conformance, "*.gguf.gz"))
	if err != nil || len(paths) == 0 {
		t.Fatal("no conformance files", err)
	}
	out := [][]byte{small().Bytes()}
	big := small()
	big.BigEndian = true
	out = append(out, big.Bytes())
	for _, p := range paths {
		name := filepath.Base(p)
		if b := conformanceFile(t, name[:len(name)-3]); len(b) < 1<<17 {
			out = append(out, b)
		}
	}
	return out
}

func FuzzRead(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if n := allocated(func() { both(t, bytes.NewReader(in), int64(len(in))) }); n > maxAlloc {
			t.Errorf("%d bytes allocated for a file of %d", n, len(in))
		}
	})
}

// FuzzReadSet splits its input in two shards of one model.
func FuzzReadSet(f *testing.F) {
	m := split()
	f.Add(m[shard(0)].Bytes(), m[shard(1)].Bytes(), m[shard(2)].Bytes())
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		shards := map[string][]byte{shard(0): a, shard(1): b, shard(2): c}
		open := func(name string) (io.ReaderAt, int64, error) {
			b, ok := shards[name]
			if !ok {
				return nil, 0, os.ErrNotExist
			}
			return bytes.NewReader(b), int64(len(b)), nil
		}
		set, err := gguf.ReadSet(open, shard(0))
		checked, cerr := gguf.CheckSet(open, shard(0))
		if cerr != nil || len(checked) == 0 {
			t.Fatalf("CheckSet() = %v, %v", checked, cerr)
		}
		valid := true
		for _, s := range checked {
			valid = valid && firstFatal(s.Problems) == nil
		}
		if (err == nil) != valid {
			t.Errorf("ReadSet() error = %v, CheckSet() = %v", err, checked)
		}
		if err == nil && len(set.Files) != len(checked) {
			t.Errorf("%d files, %d checked", len(set.Files), len(checked))
		}
	})
}

// TestMutations changes bytes of good files at random, the same ones each time:
// WEIGH_MUTATIONS of them, or 20,000.
func TestMutations(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	files := seeds(t)
	for range fixtures.Mutations(20000) {
		b := bytes.Clone(files[rnd.IntN(len(files))])
		if len(b) > 2048 {
			b = b[:2048]
		}
		for range 1 + rnd.IntN(3) {
			if len(b) < 8 {
				break
			}
			switch at := rnd.IntN(len(b)); rnd.IntN(3) {
			case 0:
				b[at] ^= 1 << rnd.IntN(8)
			case 1:
				b[at] = byte(rnd.Uint32())
			case 2:
				binary.LittleEndian.PutUint64(b[at&^7:][:8:8], uint64(1)<<rnd.IntN(64)-uint64(rnd.IntN(2)))
			}
		}
		both(t, bytes.NewReader(b), int64(len(b)))
	}
}

// TestForgeriesOf40GB claims huge counts in sparse files that do have the room.
func TestForgeriesOf40GB(t *testing.T) {
	const size = 40 << 30
	kv := func(g *fixtures.GGUF) *fixtures.Built { return g.Set("k", []uint8{1}).Build() }
	tests := map[string]*fixtures.Built{
		"keys":                patch(func(b *fixtures.Built) { b.Put64("metadata count", 1900e6) })(small()),
		"as many as allowed":  patch(func(b *fixtures.Built) { b.Put64("metadata count", 1<<16) })(small()),
		"tensors":             patch(func(b *fixtures.Built) { b.Put64("tensor count", 1<<30) })(small()),
		"tensors as allowed":  patch(func(b *fixtures.Built) { b.Put64("tensor count", 1<<16) })(small()),
		"a key":               patch(func(b *fixtures.Built) { b.Put64("key t.u8", 1<<30) })(small()),
		"a string":            patch(func(b *fixtures.Built) { b.Put64("value t.str", 20e9) })(small()),
		"a string as allowed": patch(func(b *fixtures.Built) { b.Put64("value t.str", 1<<30) })(small()),
		"an array of bytes":   kv((&fixtures.GGUF{})).Put64("count k", 1e9),
		"an array of 30e9":    kv((&fixtures.GGUF{})).Put64("count k", 30e9),
		"an array of u64":     kv((&fixtures.GGUF{})).Put32("elem k", uint32(gguf.Uint64)).Put64("count k", 1<<30),
		"empty strings":       kv((&fixtures.GGUF{})).Put32("elem k", uint32(gguf.String)).Put64("count k", 1<<30),
		"3e9 empty strings":   kv((&fixtures.GGUF{})).Put32("elem k", uint32(gguf.String)).Put64("count k", 3e9),
		"a tensor":            (&fixtures.GGUF{NoData: true}).Add("t", formats.F32, 10<<30).Build(),
		"an unknown tensor":   (&fixtures.GGUF{NoData: true}).Add("t", 139, 10<<30).Build(),
	}
	for name, b := range tests {
		t.Run(name, func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "forged.gguf"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.Write(b.Data); err != nil {
				t.Fatal(err)
			}
			if err := f.Truncate(size); err != nil {
				t.Skip("no room for a sparse file:", err)
			}
			if n := allocated(func() { both(t, f, size) }); n > maxAlloc {
				t.Errorf("%d bytes allocated", n)
			}
		})
	}
}

// TestLargestHeaders fills a file with as many entries as are allowed.
func TestLargestHeaders(t *testing.T) {
	le := binary.LittleEndian
	header := func(tensors, kvs uint64) []byte {
		return le.AppendUint64(le.AppendUint64(le.AppendUint32([]byte("GGUF"), 3), tensors), kvs)
	}
	kvs := header(0, 1<<16)
	for i := range 1 << 16 {
		kvs = le.AppendUint64(kvs, 8)
		kvs = le.AppendUint64(kvs, uint64(i))
		kvs = append(le.AppendUint32(kvs, uint32(gguf.Uint8)), 0)
	}
	tensors := header(1<<16, 0)
	for i := range 1 << 16 {
		tensors = le.AppendUint64(tensors, 60)
		tensors = fmt.Appendf(tensors, "%060d", i)
		tensors = le.AppendUint32(tensors, 4)
		for _, d := range []uint64{1, 1, 1, 0} {
			tensors = le.AppendUint64(tensors, d)
		}
		tensors = le.AppendUint32(tensors, uint32(formats.F32))
		tensors = le.AppendUint64(tensors, 0)
	}
	strings := header(0, 64)
	for i := range 64 {
		strings = le.AppendUint64(strings, 1)
		strings = le.AppendUint32(append(strings, byte(i)), uint32(gguf.String))
		strings = le.AppendUint64(strings, 1<<20)
		strings = append(strings, make([]byte, 1<<20)...)
	}
	tensors = append(tensors, make([]byte, -len(tensors)&31)...)
	for name, b := range map[string][]byte{"keys": kvs, "tensors": tensors, "strings": strings} {
		t.Run(name, func(t *testing.T) {
			n := allocated(func() {
				if _, err := read(b); err != nil {
					t.Error(err)
				}
			})
			if n > maxAlloc {
				t.Errorf("%d bytes allocated for a header of %d", n, len(b))
			}
		})
	}
}

// flaky fails at every read past a byte, or cuts them short.
type flaky struct {
	io.ReaderAt
	at  int64
	err error
}

func (f flaky) ReadAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) > f.at {
		n, _ := f.ReaderAt.ReadAt(b[:max(0, min(int64(len(b)), f.at-off))], off)
		return n, f.err
	}
	return f.ReaderAt.ReadAt(b, off)
}

func TestFilesThatFailOrShrinkWhileRead(t *testing.T) {
	b := small().Build()
	for _, want := range []error{io.EOF, iotest.ErrTimeout, nil} {
		for at := range int64(b.At["offset scalar"] + 8) {
			f, err := gguf.Read(flaky{bytes.NewReader(b.Data), at, want}, int64(len(b.Data)))
			if f != nil || err == nil {
				t.Fatalf("Read() of a file that gives %v at byte %d succeeds", want, at)
			}
			if want == iotest.ErrTimeout && !errors.Is(err, want) {
				t.Fatalf("Read() error = %v, want %v", err, want)
			}
		}
	}
}

func TestLongValuesAreReadOnDemand(t *testing.T) {
	for _, big := range []bool{false, true} {
		t.Run(fmt.Sprintf("big-endian %v", big), func(t *testing.T) { testLongValues(t, big) })
	}
}

func testLongValues(t *testing.T, big bool) {
	long := bytes.Repeat([]byte("chat "), 1<<15)
	ids := make([]int32, 50000)
	ids[49999] = -9
	g := (&fixtures.GGUF{}).Set("long", string(long)).Set("ids", ids).Set("many", make([]uint8, 70000)).Set("words", []string{"a", string(long), "c"})
	g.BigEndian = big
	b := g.Bytes()
	src := &flaky{bytes.NewReader(b), 1 << 62, io.EOF}
	f, err := gguf.Read(src, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := f.Lookup("long"); v != string(long) {
		t.Errorf("the long string has %d bytes, want %d", len(v.(string)), len(long))
	}
	if v, _ := f.Lookup("ids"); v.([]int64)[49999] != -9 {
		t.Error("the last of 50000 numbers is wrong")
	}
	if v, _ := f.Lookup("many"); v != gguf.Len(70000) {
		t.Errorf("70000 numbers = %v, want their count", v)
	}
	words, err := f.Array("words")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := words.At(2); v != "c" || err != nil {
		t.Errorf("words[2] = %v, %v", v, err)
	}
	if _, err := words.At(3); err == nil {
		t.Error("an element past the end was read")
	}
	if _, err := words.Ints(0, 1); err == nil {
		t.Error("strings were read as numbers")
	}
	numbers, err := f.Array("ids")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := numbers.Ints(49998, 2); err != nil || v[0] != 0 || v[1] != -9 {
		t.Errorf("ids[49998:] = %v, %v", v, err)
	}
	if v, err := numbers.Floats(49999, 1); err != nil || v[0] != -9 {
		t.Errorf("ids[49999] = %v, %v", v, err)
	}
	if v, err := numbers.At(49999); err != nil || v != int64(-9) {
		t.Errorf("ids[49999] = %v, %v", v, err)
	}
	if _, err := numbers.Ints(49999, 2); err == nil {
		t.Error("numbers past the end were read")
	}
	for _, err := range numbers.Strings() {
		if err == nil {
			t.Error("numbers were read as strings")
		}
	}
	if _, err := f.Array("long"); err == nil {
		t.Error("a string was taken for an array")
	}
	if _, err := f.Array("none"); err == nil {
		t.Error("a key that is not there was taken for an array")
	}
	// What can no longer be read is counted, not silently missing.
	src.at = 0
	if v, ok := f.Lookup("ids"); v != gguf.Len(50000) || !ok {
		t.Errorf("numbers that cannot be read = %v, %v, want their count", v, ok)
	}
	for _, err := range words.Strings() {
		if err == nil {
			t.Error("strings were read from a file that is gone")
		}
	}
}

func TestStringsAcrossWindows(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	words := make([]string, 30000)
	for i := range words {
		n := rnd.IntN(12)
		if rnd.IntN(1000) == 0 {
			n = rnd.IntN(100000)
		}
		words[i] = strings.Repeat(string(rune('a'+i%26)), n)
	}
	for _, big := range []bool{false, true} {
		g := (&fixtures.GGUF{BigEndian: big}).Set("words", words).Set("after", "here")
		f, err := read(g.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if v, _ := f.Lookup("after"); v != "here" {
			t.Errorf("the key after the strings is %v", v)
		}
		a, err := f.Array("words")
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		for word, err := range a.Strings() {
			if err != nil {
				t.Fatal(err)
			}
			if string(word) != words[i] {
				t.Fatalf("big-endian %v: word %d is %q, want %q", big, i, word, words[i])
			}
			i++
		}
		for _, i := range []int{0, 1, 15000, 29999} {
			if v, err := a.At(uint64(i)); err != nil || v != words[i] {
				t.Errorf("big-endian %v: At(%d) = %v, %v, want %q", big, i, v, err, words[i])
			}
		}
	}
}

func TestLFSPointersAreRecognised(t *testing.T) {
	b := []byte("version https://git-lfs.github.com/spec/v1\noid sha256:1f2e\nsize 4920734272\n")
	_, err := read(b)
	var lfs *formats.LFSPointer
	if !errors.As(err, &lfs) || lfs.Size != 4920734272 {
		t.Errorf("Read() error = %v, want that it is a pointer", err)
	}
	if problems := check(b); len(problems) != 1 || problems[0].Code != "lfs-pointer" {
		t.Errorf("Check() = %v, want an lfs-pointer", problems)
	}
}
