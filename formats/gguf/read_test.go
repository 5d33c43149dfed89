package gguf_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"weigh/fixtures"
	"weigh/formats"
	"weigh/formats/gguf"
)

const conformance = "../../fixtures/conformance/gguf"

func read(b []byte) (*gguf.File, error) { return gguf.Read(bytes.NewReader(b), int64(len(b))) }
func check(b []byte) []formats.Problem  { return gguf.Check(bytes.NewReader(b), int64(len(b))) }

// small is a good file with a value of every type and three tensors.
func small() *fixtures.GGUF {
	g := &fixtures.GGUF{}
	g.Set("general.architecture", "llama").Set("general.alignment", uint32(32))
	g.Set("t.u8", uint8(200)).Set("t.i8", int8(-3)).Set("t.u16", uint16(60000)).Set("t.i16", int16(-300))
	g.Set("t.u32", uint32(4e9)).Set("t.i32", int32(-7)).Set("t.f32", float32(0.5)).Set("t.bool", true)
	g.Set("t.u64", uint64(1<<63)).Set("t.i64", int64(-1<<62)).Set("t.f64", 1e-300).Set("t.str", " kept \n")
	g.Set("a.u8", []uint8{1, 255}).Set("a.i32", []int32{-1, 0, 7}).Set("a.f32", []float32{0.25, -2}).Set("a.bool", []bool{true, false})
	g.Set("a.u64", []uint64{5, 1 << 63}).Set("a.str", []string{"a", " ", "\x1b[31m", ""}).Set("a.none", []uint32{})
	g.Add("token_embd.weight", formats.F16, 64, 10).Add("blk.0.attn_q.weight", formats.Q4_0, 64, 3).Add("scalar", formats.F32)
	return g
}

func TestRead(t *testing.T) {
	for _, version := range []uint32{2, 3} {
		for _, big := range []bool{false, true} {
			t.Run(fmt.Sprintf("version %d, big-endian %v", version, big), func(t *testing.T) {
				g := small()
				g.Version, g.BigEndian = version, big
				b := g.Build()
				f, err := read(b.Data)
				if err != nil {
					t.Fatal(err)
				}
				if f.Version != version || f.BigEndian != big || f.Alignment != 32 || f.DataOffset != int64(b.DataOffset) || f.Size != int64(len(b.Data)) {
					t.Errorf("version %d, big %v, alignment %d, data %d, size %d", f.Version, f.BigEndian, f.Alignment, f.DataOffset, f.Size)
				}
				want := map[string]any{
					"general.architecture": "llama", "general.alignment": int64(32),
					"t.u8": int64(200), "t.i8": int64(-3), "t.u16": int64(60000), "t.i16": int64(-300),
					"t.u32": int64(4e9), "t.i32": int64(-7), "t.f32": 0.5, "t.bool": true,
					"t.u64": uint64(1 << 63), "t.i64": int64(-1 << 62), "t.f64": 1e-300, "t.str": " kept \n",
					"a.u8": []int64{1, 255}, "a.i32": []int64{-1, 0, 7}, "a.f32": []float64{0.25, -2}, "a.bool": []bool{true, false},
					"a.u64": gguf.Len(2), "a.str": gguf.Len(4), "a.none": []int64{},
				}
				if len(f.KVs) != len(want) {
					t.Errorf("%d keys, want %d", len(f.KVs), len(want))
				}
				for i, kv := range f.KVs {
					if got, _ := f.Lookup(kv.Key); !reflect.DeepEqual(got, want[kv.Key]) {
						t.Errorf("%s = %#v, want %#v", kv.Key, got, want[kv.Key])
					}
					if kv.Key != g.KVs[i].Key || kv.Offset != int64(b.At["key "+kv.Key]) {
						t.Errorf("key %d is %q at byte %d, want %q at byte %d", i, kv.Key, kv.Offset, g.KVs[i].Key, b.At["key "+kv.Key])
					}
				}
				if _, ok := f.Lookup("t.none"); ok {
					t.Error("a key that is not there was found")
				}
				wantTensors := []gguf.Tensor{
					{Name: "token_embd.weight", Type: formats.F16, Shape: []uint64{64, 10}, Offset: 0, Bytes: 1280},
					{Name: "blk.0.attn_q.weight", Type: formats.Q4_0, Shape: []uint64{64, 3}, Offset: 1280, Bytes: 108},
					{Name: "scalar", Type: formats.F32, Shape: []uint64{}, Offset: 1408, Bytes: 4},
				}
				for i := range wantTensors {
					wantTensors[i].HeaderOffset = int64(b.At["tensor "+wantTensors[i].Name])
				}
				if !reflect.DeepEqual(f.Tensors, wantTensors) {
					t.Errorf("tensors\n%+v, want\n%+v", f.Tensors, wantTensors)
				}
				for _, p := range check(b.Data) {
					if p.Code != "big-endian" {
						t.Errorf("problem %+v", p)
					}
				}
			})
		}
	}
}

// stricter are the files that llama.cpp's reader accepts and Read does not, and
// why. One without a build is a conformance file.
var stricter = map[string]struct {
	code   string
	reason string
	build  func() repeat
}{
	"data_not_enough.gguf": {"truncated-data", "the reference was asked for the header only; loading the model fails on the missing byte", nil},
	"elements that wrap to zero": {"bad-shape", "2^32 by 2^32 elements are none in 64 bits, which passes for an empty tensor there", func() repeat {
		return repeat{head: (&fixtures.GGUF{NoData: true}).Add("t", formats.F32, 1<<32, 1<<32).Bytes()}
	}},
	"bytes that wrap to zero": {"truncated-data", "a row's bytes times 32 are none in 64 bits, which passes for no data there", func() repeat {
		return repeat{head: (&fixtures.GGUF{NoData: true}).Add("t", formats.Q4_1, 1<<62).Bytes()}
	}},
	"over 65536 keys": {"over-limit", "memory is bounded whatever the file holds; models have under a hundred", func() repeat {
		b := (&fixtures.GGUF{}).Build().Put64("metadata count", 1<<16+1)
		return repeat{b.Data, make([]byte, 20), 1 << 16}
	}},
	"over 65536 tensors": {"over-limit", "memory is bounded whatever the file holds; the most seen, each expert of each layer apart, is under 50000", func() repeat {
		b := (&fixtures.GGUF{}).Build().Put64("tensor count", 1<<16+1)
		return repeat{b.Data, make([]byte, 40), 1 << 16}
	}},
	"key names over 8 MiB together": {"over-limit", "memory is bounded whatever the file holds; names have under a hundred bytes", func() repeat {
		return repeat{head: (&fixtures.GGUF{}).Set(strings.Repeat("k", 8<<20+1), true).Bytes()}
	}},
	"over 256 MiB of strings": {"over-limit", "time is bounded whatever the file holds; the largest headers have 30 MiB", func() repeat {
		b := (&fixtures.GGUF{}).Set("k", []string{}).Build().Put64("count k", 257<<10)
		unit := make([]byte, 1024) // a string of 1016 bytes
		binary.LittleEndian.PutUint64(unit, 1016)
		return repeat{b.Data, unit, 257 << 10}
	}},
}

// A repeat is a file of head and then n units.
type repeat struct {
	head, unit []byte
	n          int
}

func (r repeat) size() int64 { return int64(len(r.head) + r.n*len(r.unit)) }

func (r repeat) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	if off < int64(len(r.head)) {
		n = copy(b, r.head[off:])
	}
	for n < len(b) && off+int64(n) < r.size() {
		n += copy(b[n:], r.unit[(off+int64(n)-int64(len(r.head)))%int64(len(r.unit)):])
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func TestStricterThanTheReference(t *testing.T) {
	for name, tt := range stricter {
		if tt.build == nil {
			continue // TestConformance reads it
		}
		t.Run(name, func(t *testing.T) {
			src := tt.build()
			f, err := gguf.Read(src, src.size())
			if f != nil || err == nil {
				t.Errorf("Read() accepts it, but %s", tt.reason)
			}
			if p := firstFatal(gguf.Check(src, src.size())); p == nil || p.Code != tt.code {
				t.Errorf("Check() = %+v, want %s", p, tt.code)
			}
		})
	}
}

// lenient are the files that llama.cpp refuses and Read keeps, for a person to
// look at: Check calls them invalid all the same.
var lenient = map[string]string{
	"be_v3_magic_GGUF.gguf":     "a whole big-endian file, as gguf-py writes it",
	"hdr_version_50331648.gguf": "a whole big-endian file without keys",
	"t_bad_type_43.gguf":        "a type newer than llama.cpp v0.5.0",
	"t_bad_type_max.gguf":       "a type newer than llama.cpp v0.5.0",
	"t_removed_q4_2.gguf":       "a type that ggml has removed",
	"t_removed_q4_0_4_4.gguf":   "a type that ggml has removed",
}

func TestConformance(t *testing.T) {
	tsv, err := os.Open(filepath.Join(conformance, "verdicts.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	defer tsv.Close()
	r := csv.NewReader(tsv)
	r.Comma, r.LazyQuotes = '\t', true
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) < 2 {
		t.Fatal("no verdicts")
	}
	for _, row := range rows[1:] {
		name, verdict, reference := row[0], row[1], row[2]
		t.Run(name, func(t *testing.T) {
			data := conformanceFile(t, name)
			problems := check(data)
			strict, isStrict := stricter[name]
			if p := firstFatal(problems); isStrict && (p == nil || p.Code != strict.code) {
				t.Errorf("Check() = %v, want %s", problems, strict.code)
			}
			accepted := verdict == "ACCEPT" && !isStrict
			if got := errorsIn(problems) == 0; got != accepted {
				t.Errorf("Check() valid = %v, want %v (reference: %s)\n%v", got, accepted, reference, problems)
			}
			f, err := read(data)
			if got, want := err == nil, accepted || lenient[name] != ""; got != want {
				t.Errorf("Read() accepts = %v, want %v (reference: %s): %v", got, want, reference, err)
			}
			if err == nil && verdict == "ACCEPT" {
				got := fmt.Sprintf("ACCEPT v%d kv=%d t=%d off=%d", f.Version, len(f.KVs), len(f.Tensors), f.DataOffset)
				if got != reference {
					t.Errorf("Read() = %s, the reference %s", got, reference)
				}
			}
		})
	}
}

func errorsIn(problems []formats.Problem) (n int) {
	for _, p := range problems {
		if p.Severity == formats.SeverityError {
			n++
		}
	}
	return n
}

func conformanceFile(t testing.TB, name string) []byte {
	f, err := os.Open(filepath.Join(conformance, name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestEveryFaultIsNamed changes one thing of a good file at a time. The cases
// follow llama.cpp's tests/test-gguf.cpp@v0.5.0.
func TestEveryFaultIsNamed(t *testing.T) {
	const name = "blk.0.attn_q.weight"
	tests := map[string]struct {
		build func(g *fixtures.GGUF) *fixtures.Built
		code  string
		field string
		at    string // name of the field at fault
		skip  int    // bytes after its beginning
	}{
		"forged magic":             {patch(func(b *fixtures.Built) { b.Data[3] = 'L' }), "malformed-header", "magic", "", 0},
		"version 0":                {patch(func(b *fixtures.Built) { b.Put32("version", 0) }), "malformed-header", "version", "version", 0},
		"version 1":                {patch(func(b *fixtures.Built) { b.Put32("version", 1) }), "malformed-header", "version", "version", 0},
		"a later version":          {patch(func(b *fixtures.Built) { b.Put32("version", 4) }), "malformed-header", "version", "version", 0},
		"too many tensors":         {patch(func(b *fixtures.Built) { b.Put64("tensor count", 1<<62) }), "truncated-header", "tensor count", "tensor count", 0},
		"negative tensor count":    {patch(func(b *fixtures.Built) { b.Put64("tensor count", 1<<64-1) }), "truncated-header", "tensor count", "tensor count", 0},
		"too many keys":            {patch(func(b *fixtures.Built) { b.Put64("metadata count", 1<<62) }), "truncated-header", "metadata count", "metadata count", 0},
		"key name past the end":    {patch(func(b *fixtures.Built) { b.Put64("key t.u8", 1<<40) }), "truncated-header", "key 2 name length", "key t.u8", 0},
		"key of 2^64 bytes":        {patch(func(b *fixtures.Built) { b.Put64("key t.u8", 1<<64-1) }), "truncated-header", "key 2 name length", "key t.u8", 0},
		"empty key":                {set("", uint8(1)), "empty-key", "key 21 name", "key ", 0},
		"value type 13":            {patch(func(b *fixtures.Built) { b.Put32("type t.u8", 13) }), "malformed-header", "t.u8 type", "type t.u8", 0},
		"negative value type":      {patch(func(b *fixtures.Built) { b.Put32("type t.u8", 1<<32-1) }), "malformed-header", "t.u8 type", "type t.u8", 0},
		"array of unknown type":    {patch(func(b *fixtures.Built) { b.Put32("elem a.u8", 99) }), "malformed-header", "a.u8 element type", "elem a.u8", 0},
		"array of arrays":          {patch(func(b *fixtures.Built) { b.Put32("elem a.u8", 9) }), "malformed-header", "a.u8 element type", "elem a.u8", 0},
		"array past the end":       {patch(func(b *fixtures.Built) { b.Put64("count a.i32", 1<<32) }), "truncated-header", "a.i32 element count", "count a.i32", 0},
		"strings past the end":     {patch(func(b *fixtures.Built) { b.Put64("count a.str", 1<<30) }), "truncated-header", "a.str element count", "count a.str", 0},
		"string element too long":  {patch(func(b *fixtures.Built) { b.Put64("value a.str", 1<<63) }), "truncated-header", "a.str strings element 0 length", "value a.str", 0},
		"string past the end":      {patch(func(b *fixtures.Built) { b.Put64("value t.str", 1<<33) }), "truncated-header", "t.str length", "value t.str", 0},
		"duplicate key":            {patch(func(b *fixtures.Built) { b.PutBytes("key t.i8", 8, "t.u8") }), "duplicate-key", "t.u8 name", "key t.i8", 0},
		"alignment of no power":    {set("general.alignment", uint32(13)), "bad-alignment", "general.alignment", "value general.alignment", 0},
		"alignment 0":              {set("general.alignment", uint32(0)), "bad-alignment", "general.alignment", "value general.alignment", 0},
		"alignment of wrong type":  {set("general.alignment", int32(32)), "bad-alignment", "general.alignment", "value general.alignment", 0},
		"alignment not followed":   {set("general.alignment", uint32(16)), "tensor-gap", "tensor 2 (scalar) offset", "offset scalar", 0},
		"tensor name too long":     {patch(func(b *fixtures.Built) { b.Put64("tensor "+name, 64) }), "long-tensor-name", "tensor 1 name length", "tensor " + name, 0},
		"tensor name past the end": {patch(func(b *fixtures.Built) { b.Put64("tensor "+name, 1<<50) }), "truncated-header", "tensor 1 name length", "tensor " + name, 0},
		"five dimensions":          {patch(func(b *fixtures.Built) { b.Put32("dims "+name, 5) }), "malformed-header", "tensor 1 (" + name + ") dimension count", "dims " + name, 0},
		"negative dimension":       {shape(name, 1<<64-1, 1), "bad-shape", "tensor 1 (" + name + ") dimensions", "shape " + name, 0},
		"second one negative":      {shape(name, 64, 1<<63), "bad-shape", "tensor 1 (" + name + ") dimensions", "shape " + name, 8},
		"too many elements":        {shape(name, 1<<32, 1<<31), "bad-shape", "tensor 1 (" + name + ") dimensions", "shape " + name, 0},
		"elements that wrap to 0":  {shape(name, 1<<32, 1<<32), "bad-shape", "tensor 1 (" + name + ") dimensions", "shape " + name, 0},
		"too many bytes":           {shape("token_embd.weight", 1<<31, 1<<31), "bad-shape", "tensor 0 (token_embd.weight) dimensions", "shape token_embd.weight", 0},
		"row of half a block":      {shape(name, 48, 4), "bad-shape", "tensor 1 (" + name + ") dimensions", "shape " + name, 0},
		"offset off by one":        {patch(func(b *fixtures.Built) { b.Put64("offset "+name, 1281) }), "misaligned-tensor", "tensor 1 (" + name + ") offset", "offset " + name, 0},
		"offset of 2^64-1":         {patch(func(b *fixtures.Built) { b.Put64("offset "+name, 1<<64-1) }), "misaligned-tensor", "tensor 1 (" + name + ") offset", "offset " + name, 0},
		"gap before a tensor":      {patch(func(b *fixtures.Built) { b.Put64("offset "+name, 1312) }), "tensor-gap", "tensor 1 (" + name + ") offset", "offset " + name, 0},
		"overlap with the last":    {patch(func(b *fixtures.Built) { b.Put64("offset "+name, 1248) }), "tensor-overlap", "tensor 1 (" + name + ") offset", "offset " + name, 0},
		"duplicate tensor":         {func(g *fixtures.GGUF) *fixtures.Built { return g.Add("scalar", formats.F32).Build() }, "duplicate-tensor", "tensor 3 (scalar) name", "tensor scalar", 0},
		"same name up to a NUL": {func(g *fixtures.GGUF) *fixtures.Built {
			return g.Add("scalar\x00x", formats.F32).Build()
		}, "duplicate-tensor", `tensor 3 ("scalar\x00x") name`, "tensor scalar\x00x", 0},
		"no data": {func(g *fixtures.GGUF) *fixtures.Built { g.NoData = true; return g.Build() }, "truncated-data", "tensor data", "data", 0},
	}
	for title, tt := range tests {
		t.Run(title, func(t *testing.T) {
			b := tt.build(small())
			_, err := read(b.Data)
			var ferr *formats.Error
			if !errors.As(err, &ferr) {
				t.Fatalf("Read() error = %v, want a *formats.Error", err)
			}
			problems := check(b.Data)
			first := firstFatal(problems)
			if first == nil {
				t.Fatalf("Read() error = %v, but Check() finds %v", err, problems)
			}
			if first.Offset != ferr.Offset || first.Field != ferr.Field || first.Message != ferr.Err.Error() {
				t.Errorf("Check() = %+v, Read() = %v", first, err)
			}
			if first.Code != tt.code {
				t.Errorf("code %s, want %s: %v", first.Code, tt.code, err)
			}
			if want := int64(b.At[tt.at] + tt.skip); ferr.Field != tt.field || ferr.Offset != want {
				t.Errorf("Read() rejected %q at byte %d, want %q at byte %d: %v", ferr.Field, ferr.Offset, tt.field, want, err)
			}
		})
	}
}

// firstFatal returns the first problem that Read does not tolerate.
func firstFatal(problems []formats.Problem) *formats.Problem {
	for i, p := range problems {
		if p.Severity == formats.SeverityError && p.Code != "unknown-type" && p.Code != "big-endian" {
			return &problems[i]
		}
	}
	return nil
}

func patch(change func(*fixtures.Built)) func(*fixtures.GGUF) *fixtures.Built {
	return func(g *fixtures.GGUF) *fixtures.Built {
		b := g.Build()
		change(b)
		return b
	}
}

func set(key string, value any) func(*fixtures.GGUF) *fixtures.Built {
	return func(g *fixtures.GGUF) *fixtures.Built { return g.Set(key, value).Build() }
}

func shape(tensor string, dims ...uint64) func(*fixtures.GGUF) *fixtures.Built {
	return patch(func(b *fixtures.Built) {
		for i, d := range dims {
			b.At["dimension"] = b.At["shape "+tensor] + 8*i
			b.Put64("dimension", d)
		}
	})
}

func TestEveryTruncationIsAnError(t *testing.T) {
	whole := small().Bytes()
	f, err := read(whole)
	if err != nil {
		t.Fatal(err)
	}
	last := f.Tensors[len(f.Tensors)-1]
	end := int(f.DataOffset) + int(last.Offset+last.Bytes)
	for n := range whole {
		_, err := read(whole[:n])
		if got, want := err == nil, n >= end; got != want {
			t.Errorf("the first %d of %d bytes: Read() accepts = %v, want %v: %v", n, len(whole), got, want, err)
		}
		if err != nil && n >= int(f.DataOffset) && !strings.Contains(err.Error(), fmt.Sprintf("%d bytes short", end-n)) {
			t.Errorf("the first %d bytes: %v does not say that %d are missing", n, err, end-n)
		}
	}
}

func TestUnknownTypesAreKept(t *testing.T) {
	g := &fixtures.GGUF{}
	g.Tensors = []fixtures.Tensor{
		{Name: "a", Type: formats.F32, Shape: []uint64{8}},
		{Name: "b", Type: 139, Shape: []uint64{256}, Bytes: 136},
		{Name: "c", Type: formats.BOOL, Shape: []uint64{256}, Bytes: 64},
		{Name: "d", Type: formats.F32, Shape: []uint64{8}},
		{Name: "e", Type: 4, Shape: []uint64{32}, Bytes: 20},
	}
	b := g.Build()
	f, err := read(b.Data)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		bytes    uint64
		inferred bool
	}{{32, false}, {160, true}, {64, true}, {32, false}, {32, true}} {
		if got := f.Tensors[i]; got.Bytes != want.bytes || got.Inferred != want.inferred || got.Type.GGML() == want.inferred {
			t.Errorf("tensor %d = %+v, want %+v", i, got, want)
		}
	}
	if f.Tensors[2].Type.Known() {
		t.Errorf("type 64 of the file reads as %v", f.Tensors[2].Type)
	}
	var codes []string
	for _, p := range check(b.Data) {
		codes = append(codes, p.Code)
	}
	if want := []string{"unknown-type", "unknown-type", "unknown-type"}; !reflect.DeepEqual(codes, want) {
		t.Errorf("Check() = %v, want %v", codes, want)
	}
}

func TestCheckFindsEveryFault(t *testing.T) {
	g := small()
	g.Set("", "x").Set("odd\x1b[2J", true)
	g.Add("scalar", formats.F32).Add("empty", formats.F32, 0).Add("half", formats.Q4_0, 48)
	b := g.Build()
	b.Data[b.At["value t.bool"]] = 2
	b.Put64("offset blk.0.attn_q.weight", 1312)
	b.Data = append(b.Data, "garbage"...)
	var codes []string
	for _, p := range check(b.Data) {
		codes = append(codes, string(p.Severity)+" "+p.Code)
		if strings.ContainsFunc(p.Field+p.Message, func(r rune) bool { return r < ' ' }) {
			t.Errorf("control character in %+v", p)
		}
	}
	want := []string{
		"warning odd-bool", "error empty-key", "error duplicate-tensor", "warning empty-tensor", "error bad-shape",
		"error tensor-gap", "error tensor-overlap",
	}
	if !reflect.DeepEqual(codes, want) {
		t.Errorf("Check() = %v, want %v", codes, want)
	}
}

func TestCheckIsBounded(t *testing.T) {
	g := &fixtures.GGUF{}
	for range 5000 {
		g.Add("same", formats.F32, 1)
	}
	if got := len(check(g.Bytes())); got != 1001 {
		t.Errorf("%d problems, want 1000 and the note that there are more", got)
	}
}
