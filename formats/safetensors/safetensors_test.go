package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weigh/fixtures"
	"weigh/formats"
)

// file returns a safetensors file with the header text and data zero bytes.
func file(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

func TestReferenceVerdictsReproduce(t *testing.T) {
	const dir = "conformance/safetensors"
	tsv, err := fs.ReadFile(fixtures.SafetensorsConformance, path.Join(dir, "verdicts.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(tsv)) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if len(f) < 2 || !strings.HasSuffix(f[0], ".safetensors") {
			continue
		}
		n++
		t.Run(f[0], func(t *testing.T) {
			b, err := fs.ReadFile(fixtures.SafetensorsConformance, path.Join(dir, f[0]))
			if err != nil {
				t.Fatal(err)
			}
			_, err = Read(bytes.NewReader(b), int64(len(b)))
			if got := verdict(err); got != f[1] {
				t.Errorf("%s, the reference says %s (%v): %v", got, f[1], f[2:], err)
			}
		})
	}
	if n < 80 {
		t.Errorf("%d verdicts, want the whole list", n)
	}
}

func verdict(err error) string {
	if err == nil {
		return "ACCEPT"
	}
	return "REJECT"
}

// entryOf is a header with one F32 entry whose fields are the text.
func entryOf(fields string) string { return `{"t":{` + fields + `}}` }

func TestReadRejects(t *testing.T) {
	const ok = `"dtype":"F32","shape":[2],"data_offsets":[0,8]`
	long := binary.LittleEndian.AppendUint64(nil, math.MaxUint64)
	tests := map[string]struct {
		in     []byte
		offset int64
		field  string
		text   string
	}{
		"an empty file":                    {nil, 0, "header length", "need 8 bytes"},
		"seven bytes":                      {make([]byte, 7), 0, "header length", "need 8 bytes"},
		"a header length of 2^64-1":        {long, 0, "header length", "over the limit"},
		"a header longer than the file":    {file("{}", 0)[:9], 0, "header length", "do not fit"},
		"a header of no bytes":             {file("", 0), 8, "header", "no value"},
		"a NUL after the header":           {file("{}\x00", 0), 10, "header", "NUL"},
		"a second JSON text":               {file("{}{}", 0), 10, "header", "after the end"},
		"a byte order mark":                {file("\ufeff{}", 0), 8, "header", "no value"},
		"single quotes":                    {file("{'t':1}", 0), 9, "header", "want '\"'"},
		"a comma before the end":           {file(`{"t":{`+ok+`},}`, 8), 0, "header", "comma before"},
		"nesting of 200":                   {file(entryOf(ok+`,"x":`+strings.Repeat("[", 200)+strings.Repeat("]", 200)), 8), 0, "header", "nested more than 127 deep"},
		"an unknown field out of range":    {file(entryOf(ok+`,"x":1e999`), 8), 0, "header", "out of range"},
		"an unknown field of NaN":          {file(entryOf(ok+`,"x":NaN`), 8), 0, "header", "want a value"},
		"overlong UTF-8 in a name":         {file("{\"\xc0\x80\":{"+ok+"}}", 8), 0, "header", "not UTF-8"},
		"a surrogate in UTF-8":             {file("{\"\xed\xa0\x80\":{"+ok+"}}", 8), 0, "header", "not UTF-8"},
		"a name cut inside a character":    {file("{\"\xe2\x82\":{"+ok+"}}", 8), 0, "header", "not UTF-8"},
		"a lone surrogate escape":          {file(`{"\ud800":{`+ok+`}}`, 8), 0, "header", "surrogate"},
		"a text that ends in a string":     {file(`{"t`, 8), 11, "header", "ends inside a string"},
		"a key without a value":            {file(`{"t"}`, 8), 12, "header", "want ':'"},
		"three data offsets":               {file(entryOf(`"dtype":"F32","shape":[2],"data_offsets":[0,8,8]`), 8), 0, `tensor "t" data_offsets`, "3 values"},
		"one data offset":                  {file(entryOf(`"dtype":"F32","shape":[2],"data_offsets":[0]`), 8), 0, `tensor "t" data_offsets`, "1 values"},
		"a data offset of 8.0":             {file(entryOf(`"dtype":"F32","shape":[2],"data_offsets":[0,8.0]`), 8), 0, `tensor "t" data_offsets`, "not a whole number"},
		"a dimension of -0":                {file(entryOf(`"dtype":"F32","shape":[-0],"data_offsets":[0,8]`), 8), 0, `tensor "t" shape`, "not a whole number"},
		"a dimension of 2^64":              {file(entryOf(`"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,8]`), 8), 0, `tensor "t" shape`, "not a whole number"},
		"a dimension with a leading zero":  {file(entryOf(`"dtype":"F32","shape":[02],"data_offsets":[0,8]`), 8), 0, "header", "leading zero"},
		"a field in capitals":              {file(entryOf(`"DTYPE":"F32","shape":[2],"data_offsets":[0,8]`), 8), 9, `tensor "t" dtype`, "missing"},
		"a field given twice":              {file(entryOf(ok+`,"shape":[2]`), 8), 0, `tensor "t" shape`, "given twice"},
		"a type in lower case":             {file(entryOf(`"dtype":"f32","shape":[2],"data_offsets":[0,8]`), 8), 22, `tensor "t" dtype`, `unknown type "f32"`},
		"a type of ggml":                   {file(entryOf(`"dtype":"Q4_K","shape":[2],"data_offsets":[0,8]`), 8), 0, `tensor "t" dtype`, `unknown type "Q4_K"`},
		"a null entry":                     {file(`{"t":null}`, 0), 9, `tensor "t" entry`, "null, want an object"},
		"an entry of four values":          {file(`{"t":["F32",[2],[0,8],1]}`, 8), 9, `tensor "t" entry`, "more than 3"},
		"metadata in capitals":             {file(`{"__METADATA__":{"a":"b"}}`, 0), 9, `tensor "__METADATA__" dtype`, "missing"},
		"metadata twice":                   {file(`{"__metadata__":{},"__metadata__":{}}`, 0), 0, "__metadata__", "a second"},
		"metadata with a null value":       {file(`{"__metadata__":{"a":null}}`, 0), 0, "__metadata__", "null as its value"},
		"a size that its shape denies":     {file(entryOf(`"dtype":"F32","shape":[3],"data_offsets":[0,8]`), 8), 9, `tensor "t" data_offsets`, "takes 12"},
		"a last data byte that is missing": {file(entryOf(ok), 7), -1, "data", "cut short"},
		"a byte after the data":            {file(entryOf(ok), 9), -1, "data", "1 bytes follow"},
		"a hole before the first tensor":   {file(entryOf(`"dtype":"F32","shape":[2],"data_offsets":[8,16]`), 16), 9, `tensor "t" data_offsets`, "want to begin at 0"},
		"a product that overflows":         {file(entryOf(`"dtype":"F32","shape":[18446744073709551615,18446744073709551615,0],"data_offsets":[0,0]`), 0), 9, `tensor "t" shape`, "do not fit"},
		"bits that overflow":               {file(entryOf(`"dtype":"U8","shape":[2305843009213693952],"data_offsets":[0,0]`), 0), 9, `tensor "t" shape`, "do not fit"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f, err := Read(bytes.NewReader(tt.in), int64(len(tt.in)))
			var ferr *formats.Error
			if !errors.As(err, &ferr) || f != nil {
				t.Fatalf("Read() = %v, %v, want a *formats.Error alone", f, err)
			}
			if ferr.Field != tt.field || !strings.Contains(ferr.Err.Error(), tt.text) {
				t.Errorf("Read() rejected %q: %v, want %q: …%s…", ferr.Field, ferr.Err, tt.field, tt.text)
			}
			if tt.offset != 0 && ferr.Offset != tt.offset {
				t.Errorf("Read() rejected byte %d, want %d: %v", ferr.Offset, tt.offset, err)
			}
			_, problems, err := Check(bytes.NewReader(tt.in), int64(len(tt.in)))
			if err != nil || !slices.ContainsFunc(problems, func(p formats.Problem) bool { return p.Field == tt.field }) {
				t.Errorf("Check() = %v, %v, want the same fault", problems, err)
			}
		})
	}
}

func TestReadAccepts(t *testing.T) {
	const ok = `"dtype":"F32","shape":[2],"data_offsets":[0,8]`
	tests := map[string]struct {
		header string
		data   int
		want   []Tensor
	}{
		"no tensors":                        {"{}", 0, nil},
		"white space around":                {" \t\r\n{} \n", 0, nil},
		"an empty name":                     {`{"":{` + ok + `}}`, 8, []Tensor{{Name: ""}}},
		"an escaped name":                   {`{"\u0074\ud83d\ude00\n":{` + ok + `}}`, 8, []Tensor{{Name: "t😀\n"}}},
		"an entry as an array":              {`{"t":["F32",[2],[0,8]]}`, 8, []Tensor{{Name: "t"}}},
		"a type as an object":               {entryOf(`"dtype":{"F32":null},"shape":[2],"data_offsets":[0,8]`), 8, []Tensor{{Name: "t"}}},
		"a dimension 0 before an overflow":  {entryOf(`"dtype":"F32","shape":[0,18446744073709551615,9],"data_offsets":[0,0]`), 0, []Tensor{{Name: "t"}}},
		"tensors out of order":              {`{"b":{"dtype":"U8","shape":[1],"data_offsets":[8,9]},"a":{` + ok + `}}`, 9, []Tensor{{Name: "a"}, {Name: "b"}}},
		"an unknown field with any content": {entryOf(ok + `,"stride":[1,{"a":[null,true,-1.5e3,"x"]}]`), 8, []Tensor{{Name: "t"}}},
		"a character over the read window":  {`{"__metadata__":{"a":"` + strings.Repeat("é", 70_000) + `"},"t":{` + ok + `}}`, 8, []Tensor{{Name: "t"}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := file(tt.header, tt.data)
			f, err := Read(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			if len(f.Tensors) != len(tt.want) {
				t.Fatalf("%d tensors, want %d", len(f.Tensors), len(tt.want))
			}
			for i, w := range tt.want {
				if f.Tensors[i].Name != w.Name {
					t.Errorf("tensor %d is %q, want %q", i, f.Tensors[i].Name, w.Name)
				}
			}
		})
	}
}

func TestDuplicateTensorCountsOnceAndIsReported(t *testing.T) {
	b := file(`{"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8)
	f, err := Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Tensors) != 1 || f.Tensors[0].Type != formats.F32 || f.DataBytes() != 8 {
		t.Errorf("tensors %+v, want the last one alone", f.Tensors)
	}
	if len(f.Problems) != 1 || f.Problems[0].Code != "duplicate-tensor" || f.Problems[0].Severity != formats.SeverityWarning {
		t.Errorf("problems %+v, want one duplicate-tensor warning", f.Problems)
	}
}

func TestCheckListsEveryFault(t *testing.T) {
	b := file(`{"a":{"dtype":"X1","shape":[1],"data_offsets":[0,4]},`+
		`"b":{"dtype":"F32","shape":[-1],"data_offsets":[4,8]},`+
		`"c":{"dtype":"F32","shape":[3],"data_offsets":[8,16]}}`, 20)
	_, problems, err := Check(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	for _, p := range problems {
		codes = append(codes, p.Code)
	}
	if want := []string{"trailing-data", "unknown-dtype", "number-list", "size"}; !slices.Equal(codes, want) {
		t.Errorf("codes %v, want %v", codes, want)
	}
}

func TestLFSPointerNamesTheRealSize(t *testing.T) {
	b := []byte("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4976698672\n")
	_, err := Read(bytes.NewReader(b), int64(len(b)))
	var p *formats.LFSPointer
	if !errors.As(err, &p) || p.Size != 4976698672 || p.OID != "sha256:4d7a" {
		t.Errorf("Read() error = %v, want an LFS pointer to 4976698672 bytes", err)
	}
}

func TestHostileHeaderStaysInBudget(t *testing.T) {
	const entry = `":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},`
	var b strings.Builder
	b.WriteString("{")
	for i := range 400_000 {
		fmt.Fprintf(&b, `"%x%s`, i, entry)
	}
	in := file(strings.TrimSuffix(b.String(), ",")+"}", 0)
	if _, err := Read(bytes.NewReader(in), int64(len(in))); err == nil || !strings.Contains(err.Error(), "in memory") {
		t.Errorf("Read() error = %v, want the memory limit", err)
	}
}

// manyFiles returns the entries of an index of n tensors in as many files.
func manyFiles(n int) string {
	entries := make([]string, n)
	for i := range entries {
		entries[i] = fmt.Sprintf(`"%d":"m-%d"`, i, i)
	}
	return strings.Join(entries, ",")
}

func TestReadIndex(t *testing.T) {
	tests := map[string]struct {
		in    string
		total int64
		files []string
		err   string
	}{
		"an index":                      {`{"metadata":{"total_size":12,"x":[1]},"weight_map":{"a":"m-1","b":"m-2","c":"m-1"}}`, 12, []string{"m-1", "m-2"}, ""},
		"a total written as a float":    {`{"metadata":{"total_size":12.0},"weight_map":{"a":"m"}}`, 12, []string{"m"}, ""},
		"no total":                      {`{"weight_map":{"a":"m"}}`, -1, []string{"m"}, ""},
		"no weight map":                 {`{"metadata":{}}`, 0, nil, "weight_map at byte 0: missing"},
		"a path above the folder":       {`{"weight_map":{"a":"../m"}}`, 0, nil, "outside the folder"},
		"an absolute path":              {`{"weight_map":{"a":"/etc/passwd"}}`, 0, nil, "outside the folder"},
		"a path of another system":      {`{"weight_map":{"a":"C:\\m"}}`, 0, nil, "outside the folder"},
		"a number for a file":           {`{"weight_map":{"a":1}}`, 0, nil, "a number as its file"},
		"a weight map that is an array": {`{"weight_map":[]}`, 0, nil, "want an object"},
		"the folder for a file":         {`{"weight_map":{"a":"./"}}`, 0, nil, "no file can be called"},
		"a name with a NUL":             {`{"weight_map":{"a":"m\u0000"}}`, 0, nil, "no file can be called"},
		"a name that is too long":       {`{"weight_map":{"a":"` + strings.Repeat("m", maxName+1) + `"}}`, 0, nil, "no file can be called"},
		"more files than a model has":   {`{"weight_map":{` + manyFiles(maxShards+1) + `}}`, 0, nil, "more than 10000 files"},
		"cut in the middle":             {`{"weight_map":{"a":"m`, 0, nil, "ends inside a string"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ix, err := ReadIndex(strings.NewReader(tt.in), int64(len(tt.in)))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("ReadIndex() error = %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || ix.TotalSize != tt.total || !slices.Equal(ix.Files, tt.files) {
				t.Errorf("ReadIndex() = %+v, %v, want total %d and files %v", ix, err, tt.total, tt.files)
			}
		})
	}
}

func TestCheckShards(t *testing.T) {
	shard := func(names ...string) *File {
		f := &File{}
		for _, n := range names {
			f.Tensors = append(f.Tensors, Tensor{Name: n, Bytes: 4})
		}
		return f
	}
	index := func(total int64, pairs ...string) string {
		var entries []string
		for i := 0; i < len(pairs); i += 2 {
			entries = append(entries, fmt.Sprintf("%q:%q", pairs[i], pairs[i+1]))
		}
		return fmt.Sprintf(`{"metadata":{"total_size":%d},"weight_map":{%s}}`, total, strings.Join(entries, ","))
	}
	tests := map[string]struct {
		ix     string // "" for none
		shards map[string]*File
		codes  []string
	}{
		"all as promised":           {index(8, "a", "1", "b", "2"), map[string]*File{"1": shard("a"), "2": shard("b")}, nil},
		"no index":                  {"", map[string]*File{"1": shard("a"), "2": shard("b")}, nil},
		"a missing shard":           {index(8, "a", "1", "b", "2"), map[string]*File{"1": shard("a")}, []string{"missing-shard"}},
		"a missing tensor":          {index(8, "a", "1", "b", "1"), map[string]*File{"1": shard("a")}, []string{"missing-tensor"}},
		"a tensor too many":         {index(4, "a", "1"), map[string]*File{"1": shard("a", "b")}, []string{"tensor-not-in-index"}},
		"a tensor in two shards":    {"", map[string]*File{"1": shard("a"), "2": shard("a")}, []string{"tensor-in-two-shards"}},
		"a tensor in another file":  {index(8, "a", "1", "b", "1"), map[string]*File{"1": shard("a"), "2": shard("b")}, []string{"tensor-in-other-shard"}},
		"a shard by its name":       {"", map[string]*File{"m-00001-of-00003.safetensors": shard("a"), "m-00003-of-00003.safetensors": shard("b")}, []string{"missing-shard"}},
		"all shards by their names": {"", map[string]*File{"m-00001-of-00002.safetensors": shard("a"), "m-00002-of-00002.safetensors": shard("b")}, nil},
		"an index of nothing":       {index(8), map[string]*File{}, []string{"index-empty"}},
		"a tensor listed twice":     {index(4, "a", "1", "a", "1"), map[string]*File{"1": shard("a")}, []string{"index-duplicate-tensor"}},
		"a wrong total":             {index(9, "a", "1"), map[string]*File{"1": shard("a")}, []string{"total-size"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var ix *Index
			if tt.ix != "" {
				var err error
				if ix, err = ReadIndex(strings.NewReader(tt.ix), int64(len(tt.ix))); err != nil {
					t.Fatal(err)
				}
			}
			problems, err := CheckShards(ix, strings.NewReader(tt.ix), tt.shards)
			if err != nil {
				t.Fatal(err)
			}
			var codes []string
			for _, p := range problems {
				codes = append(codes, p.Code)
			}
			if !slices.Equal(codes, tt.codes) {
				t.Errorf("codes %v, want %v", codes, tt.codes)
			}
		})
	}
}

func TestWeights(t *testing.T) {
	tests := map[string]struct {
		names []string
		index string
		files []string
		err   bool
	}{
		"an index wins over all":            {[]string{"model.safetensors", "model.safetensors.index.json", "consolidated.safetensors"}, "model.safetensors.index.json", nil, false},
		"shards without an index":           {[]string{"model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors"}, "", []string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}, false},
		"a whole model wins over a variant": {[]string{"model.fp16.safetensors", "model.safetensors"}, "", []string{"model.safetensors"}, false},
		"shards win over Mistral's copy":    {[]string{"consolidated.safetensors", "model-00001-of-00001.safetensors"}, "", []string{"model-00001-of-00001.safetensors"}, false},
		"Mistral's own alone":               {[]string{"consolidated.safetensors", "params.json"}, "", []string{"consolidated.safetensors"}, false},
		"one file of any name":              {[]string{"flux1-dev.safetensors", "README.md"}, "", []string{"flux1-dev.safetensors"}, false},
		"two models of other names":         {[]string{"a.safetensors", "b.safetensors"}, "", nil, true},
		"an adapter alone":                  {[]string{"adapter_model.safetensors", "adapter_config.json"}, "", []string{"adapter_model.safetensors"}, false},
		"a model beside the adapter in it":  {[]string{"adapter_model.safetensors", "model.safetensors"}, "", []string{"model.safetensors"}, false},
		"a variant's shards":                {[]string{"diffusion_pytorch_model.fp16-00001-of-00002.safetensors", "diffusion_pytorch_model.fp16-00002-of-00002.safetensors"}, "", []string{"diffusion_pytorch_model.fp16-00001-of-00002.safetensors", "diffusion_pytorch_model.fp16-00002-of-00002.safetensors"}, false},
		"a diffusion model and its variant": {[]string{"diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.safetensors"}, "", []string{"diffusion_pytorch_model.safetensors"}, false},
		"two variants":                      {[]string{"model.fp16.safetensors", "model.fp32.safetensors"}, "", []string{"model.fp16.safetensors"}, false},
		"a whole file beside its shards":    {[]string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors"}, "", []string{"model.safetensors"}, false},
		"a file for each tensor":            {[]string{"model.embed.safetensors", "model.norm.safetensors"}, "", []string{"model.embed.safetensors", "model.norm.safetensors"}, false},
		"nothing of the kind":               {[]string{"pytorch_model.bin"}, "", nil, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			index, files, err := Weights(tt.names)
			if index != tt.index || !slices.Equal(files, tt.files) || (err != nil) != tt.err {
				t.Errorf("Weights() = %q, %q, %v, want %q, %q", index, files, err, tt.index, tt.files)
			}
		})
	}
}

// conformance returns the small files of the conformance folder.
func conformance(t testing.TB) (files [][]byte) {
	entries, err := fs.ReadDir(fixtures.SafetensorsConformance, "conformance/safetensors")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := fs.ReadFile(fixtures.SafetensorsConformance, path.Join("conformance/safetensors", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if path.Ext(e.Name()) == ".safetensors" {
			files = append(files, b)
		}
	}
	return files
}

func FuzzRead(f *testing.F) {
	for _, b := range conformance(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) { both(t, in) })
}

// both reads and checks a file and holds what comes out against what must be
// so.
func both(t *testing.T, in []byte) {
	file, err := Read(bytes.NewReader(in), int64(len(in)))
	if (file == nil) == (err == nil) {
		t.Fatalf("Read() = %v, %v, want one of them", file, err)
	}
	_, problems, cerr := Check(bytes.NewReader(in), int64(len(in)))
	faulty := slices.ContainsFunc(problems, func(p formats.Problem) bool { return p.Severity == formats.SeverityError })
	if cerr != nil || faulty != (err != nil) {
		t.Fatalf("Read() error = %v, but Check() = %v, %v", err, problems, cerr)
	}
	if err != nil {
		return
	}
	if got := uint64(8+file.HeaderBytes) + file.DataBytes(); got != uint64(len(in)) {
		t.Errorf("header and tensors take %d bytes of %d", got, len(in))
	}
	// What was read, written again, reads as the same.
	var tensors []fixtures.SafeTensor
	for _, x := range file.Tensors {
		if x.Bytes > 0 {
			tensors = append(tensors, fixtures.SafeTensor{Name: x.Name, Type: x.Type, Shape: x.Shape})
		}
	}
	head, data := fixtures.SafetensorsHeader(tensors, file.Metadata)
	again, err := Read(bytes.NewReader(append(head, make([]byte, data)...)), int64(len(head))+data)
	if err != nil || len(again.Tensors) != len(tensors) || !maps.Equal(again.Metadata, file.Metadata) {
		t.Errorf("written again: %v, %v", again, err)
	}
}

// TestMutations changes bytes of the conformance files at random, the same ones
// each time: WEIGH_MUTATIONS of them, or 20,000.
func TestMutations(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	files := conformance(t)
	for range fixtures.Mutations(20000) {
		b := files[rnd.IntN(len(files))]
		b = fixtures.MutateJSON(rnd, b[:min(len(b), 2048)])
		if rnd.IntN(2) == 0 && len(b) > 8 { // make the length fit again, or the rest is never looked at
			b[0] = byte(min(len(b)-8, 255))
		}
		both(t, b)
	}
}

func TestEveryTruncationIsAnError(t *testing.T) {
	head, data := fixtures.SafetensorsHeader([]fixtures.SafeTensor{
		{Name: "a.weight", Type: formats.BF16, Shape: []uint64{2, 3}}, {Name: "b", Type: formats.F32},
	}, map[string]string{"format": "pt"})
	whole := append(head, make([]byte, data)...)
	for n := range whole {
		if f, err := Read(bytes.NewReader(whole[:n]), int64(n)); f != nil || err == nil {
			t.Errorf("the first %d bytes of %d are read as a whole file", n, len(whole))
		}
		// A file cut while it is read still says that it is long.
		if f, err := Read(bytes.NewReader(whole[:n]), int64(len(whole))); n < len(head) && (f != nil || err == nil) {
			t.Errorf("a header that ends after %d bytes of %d is read", n, len(head))
		}
	}
	if _, err := Read(bytes.NewReader(whole), int64(len(whole))); err != nil {
		t.Error(err)
	}
}

// TestForgeriesOf40GB promises more than a header holds, in sparse files that
// have the room.
func TestForgeriesOf40GB(t *testing.T) {
	const size = 40 << 30
	tests := map[string]string{
		"no JSON":                "",
		"an open object":         "{",
		"an open name":           `{"`,
		"an open shape":          `{"a":{"dtype":"F32","shape":[`,
		"open brackets":          `{"a":` + strings.Repeat("[", 1<<20),
		"a shape of many ones":   `{"a":{"dtype":"F32","shape":[1` + strings.Repeat(",1", 1<<20),
		"many tensors of a name": `{"a":{}` + strings.Repeat(`,"a":{}`, 1<<18),
		"a long number":          `{"a":` + strings.Repeat("9", 1<<20),
		"a tensor of 40 GB":      `{"a":{"dtype":"F32","shape":[10737418240],"data_offsets":[0,42949672960]}}`,
	}
	for name, text := range tests {
		for _, n := range []uint64{uint64(len(text)), MaxHeader, MaxHeader + 1, 1 << 63} {
			t.Run(fmt.Sprintf("%s, length %d", name, n), func(t *testing.T) {
				f, err := os.Create(filepath.Join(t.TempDir(), "forged.safetensors"))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if _, err := f.Write(append(binary.LittleEndian.AppendUint64(nil, n), text...)); err != nil {
					t.Fatal(err)
				}
				if err := f.Truncate(size); err != nil {
					t.Skip("no room for a sparse file:", err)
				}
				if file, err := Read(f, size); file != nil || err == nil {
					t.Errorf("Read() = %v, %v", file, err)
				}
				if _, _, err := Check(f, size); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

var indexes = []string{
	`{"metadata":{"total_size":12},"weight_map":{"a":"m-1","b":"m-2"}}`,
	`{"weight_map":{"a":"../m"}}`,
}

func FuzzReadIndex(f *testing.F) {
	for _, s := range indexes {
		f.Add([]byte(s))
	}
	f.Fuzz(readsIndex)
}

func TestMutatedIndexes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range fixtures.Mutations(20000) {
		readsIndex(t, fixtures.MutateJSON(rnd, []byte(indexes[rnd.IntN(len(indexes))])))
	}
}

// readsIndex reads an index and holds what comes out against what must be so.
func readsIndex(t *testing.T, in []byte) {
	ix, err := ReadIndex(bytes.NewReader(in), int64(len(in)))
	if (ix == nil) == (err == nil) {
		t.Fatalf("ReadIndex() = %v, %v, want one of them", ix, err)
	}
	if ix == nil {
		return
	}
	for _, file := range ix.Files {
		if !filepath.IsLocal(filepath.FromSlash(file)) {
			t.Errorf("accepted the shard %q", file)
		}
	}
}

func BenchmarkRead100kTensors(b *testing.B) {
	var tensors []fixtures.SafeTensor
	for i := range 100_000 {
		tensors = append(tensors, fixtures.SafeTensor{
			Name: fmt.Sprintf("model.layers.%d.mlp.experts.%d.gate_proj.weight_scale_inv", i/1000, i%1000), Type: formats.F32, Shape: []uint64{16, 56},
		})
	}
	head, data := fixtures.SafetensorsHeader(tensors, nil)
	src := bytes.NewReader(head)
	b.SetBytes(int64(len(head)))
	b.ReportAllocs()
	for b.Loop() {
		f, err := Read(src, int64(len(head))+data)
		if err != nil || len(f.Tensors) != len(tensors) {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadIndex16kTensors(b *testing.B) {
	var text bytes.Buffer
	text.WriteString(`{"metadata":{"total_size":1},"weight_map":{`)
	for i := range 16_000 {
		if i > 0 {
			text.WriteByte(',')
		}
		fmt.Fprintf(&text, "\n    \"model.layers.%d.mlp.experts.%d.down_proj.weight_scale\": \"model-%05d-of-00163.safetensors\"", i/256, i%256, i/100)
	}
	text.WriteString("}}")
	src := bytes.NewReader(text.Bytes())
	b.SetBytes(src.Size())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadIndex(src, src.Size()); err != nil {
			b.Fatal(err)
		}
	}
}
