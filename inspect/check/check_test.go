package check

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"weigh/fixtures"
	"weigh/formats"
	"weigh/inspect"
	"weigh/inspect/model"
)

// write writes a file and returns its path.
func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, path string) *inspect.Inspection {
	t.Helper()
	ins, err := inspect.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ins.Close() })
	return ins
}

func codes(problems []Problem) (list []string) {
	for _, p := range problems {
		list = append(list, p.Code+" "+p.Field)
	}
	slices.Sort(list)
	return list
}

// value returns the value of a key of a file to build.
func value(g *fixtures.GGUF, key string) any {
	i := slices.IndexFunc(g.KVs, func(kv fixtures.KV) bool { return kv.Key == key })
	return g.KVs[i].Value
}

func layers(g *fixtures.GGUF) int { return int(value(g, "llama.block_count").(uint32)) }

func kvHeads(g *fixtures.GGUF) int32 {
	return int32(value(g, "llama.attention.head_count_kv").(uint32))
}

func tokens(g *fixtures.GGUF) int { return len(value(g, "tokenizer.ggml.tokens").([]string)) }

func TestModel(t *testing.T) {
	small := func() *fixtures.GGUF { return fixtures.Model("llama-Q4_K_M") }
	without := func(g *fixtures.GGUF, name string) *fixtures.GGUF {
		g.Tensors = slices.DeleteFunc(g.Tensors, func(t fixtures.Tensor) bool { return t.Name == name })
		return g
	}
	drop := func(g *fixtures.GGUF, key string) *fixtures.GGUF {
		g.KVs = slices.DeleteFunc(g.KVs, func(kv fixtures.KV) bool { return kv.Key == key })
		return g
	}
	tests := map[string]struct {
		build   *fixtures.GGUF
		load    error
		codes   []string
		refused bool
	}{
		"a whole model":                     {small(), nil, nil, false},
		"no width":                          {drop(small(), "llama.embedding_length"), nil, []string{"bad-metadata llama.embedding_length"}, true},
		"no architecture":                   {drop(small(), "general.architecture"), nil, []string{"bad-metadata general.architecture"}, true},
		"an architecture nobody knows":      {(&fixtures.GGUF{NoData: true}).Set("general.architecture", "nonesuch").Set("nonesuch.block_count", uint32(1)).Set("nonesuch.context_length", uint32(1)).Set("nonesuch.embedding_length", uint32(8)), nil, []string{"unknown-architecture general.architecture"}, true},
		"a token too many":                  {small().Set("tokenizer.ggml.tokens", []string{"a", "b", "c"}).Set("tokenizer.ggml.token_type", []int32{1, 1}), nil, []string{"vocabulary-mismatch token_embd.weight", "vocabulary-mismatch tokenizer.ggml.token_type", "wrong-shape output.weight"}, true},
		"a special token outside":           {small().Set("tokenizer.ggml.eos_token_id", uint32(1<<30)), nil, []string{"token-out-of-range tokenizer.ggml.eos_token_id"}, false},
		"no vocabulary":                     {drop(drop(small(), "tokenizer.ggml.tokens"), "tokenizer.ggml.model"), nil, []string{"no-vocabulary tokenizer.ggml.model", "no-vocabulary tokenizer.ggml.tokens"}, true},
		"no kinds of token":                 {drop(fixtures.Model("bert-F16"), "tokenizer.ggml.token_type_count"), nil, []string{"bad-metadata tokenizer.ggml.token_type_count"}, true},
		"a tensor lost":                     {without(small(), "blk.3.ffn_up.weight"), os.ErrInvalid, []string{"missing-tensor blk.3.ffn_up.weight"}, true},
		"a norm lost, which no graph needs": {without(small(), "blk.3.ffn_norm.weight"), nil, []string{"missing-tensor blk.3.ffn_norm.weight"}, true},
		"the last norm lost":                {without(small(), "output_norm.weight"), nil, []string{"missing-tensor output_norm.weight"}, true},
		"a block too many":                  {small().Set("llama.block_count", uint32(layers(small())+1)), nil, []string{"missing-layer blk.8"}, true},
		"a block too few":                   {small().Set("llama.block_count", uint32(layers(small())-1)), nil, extraLayer(small(), layers(small())-1), true},
		"no epsilon":                        {drop(small(), "llama.attention.layer_norm_rms_epsilon"), nil, []string{"bad-metadata llama.attention.layer_norm_rms_epsilon"}, true},
		"two keys lost":                     {drop(drop(small(), "llama.attention.layer_norm_rms_epsilon"), "llama.block_count"), nil, []string{"bad-metadata llama.attention.layer_norm_rms_epsilon", "bad-metadata llama.block_count"}, true},
		"another feed-forward length":       {small().Set("llama.feed_forward_length", uint32(1<<20)), nil, wrongShapes(small(), "ffn_"), true},
		"no feed-forward length":            {drop(small(), "llama.feed_forward_length"), nil, wrongShapes(small(), "ffn_"), true},
		"a tensor nobody knows":             {small().Add("blk.1.surplus.weight", formats.F32, 8), nil, []string{"unknown-tensor blk.1.surplus.weight"}, true},
		"counts of another width":           {small().Set("llama.embedding_length", uint64(2048)).Set("llama.rope.freq_base", float64(1e4)), nil, []string{"wrong-type llama.embedding_length", "wrong-type llama.rope.freq_base"}, true},
		"counts for layers":                 {small().Set("llama.attention.head_count_kv", slices.Repeat([]int32{kvHeads(small())}, layers(small()))), nil, nil, false},
		"counts for more layers":            {small().Set("llama.attention.head_count_kv", slices.Repeat([]int32{kvHeads(small())}, layers(small())+1)), nil, []string{"bad-metadata llama.attention.head_count_kv"}, true},
		"experts of another number":         {fixtures.Model("qwen3moe-moe-Q4_K_M").Set("qwen3moe.expert_count", uint32(64)), nil, wrongShapes(fixtures.Model("qwen3moe-moe-Q4_K_M"), "ffn_"), true},
		"experts of another width":          {fixtures.Model("qwen3moe-moe-Q4_K_M").Set("qwen3moe.expert_feed_forward_length", uint32(1<<20)), nil, wrongShapes(fixtures.Model("qwen3moe-moe-Q4_K_M"), "ffn_gate_exps", "ffn_down_exps", "ffn_up_exps"), true},
		"no merges":                         {drop(small(), "tokenizer.ggml.merges").Set("tokenizer.ggml.model", "gpt2"), nil, []string{"no-vocabulary tokenizer.ggml.merges"}, true},
		"tokens that are numbers":           {small().Set("tokenizer.ggml.tokens", make([]int32, tokens(small()))), nil, []string{"wrong-type tokenizer.ggml.tokens"}, true},
		"heads that do not share":           {small().Set("llama.attention.head_count_kv", uint32(3)), os.ErrInvalid, append([]string{"head-mismatch llama.attention.head_count_kv"}, wrongShapes(small(), "attn_k", "attn_v")...), true},
		"a projector":                       {fixtures.Projector("internvl"), nil, nil, false},
		"a projector without a tower":       {(&fixtures.GGUF{NoData: true}).Set("general.architecture", "clip"), nil, []string{"bad-metadata metadata"}, true},
		"a projector without a key":         {drop(fixtures.Projector("internvl"), "clip.vision.block_count"), nil, []string{"bad-metadata clip.vision.block_count"}, true},
		"a projector without a bias":        {without(fixtures.Projector("internvl"), "mm.model.mlp.1.bias"), nil, []string{"missing-tensor mm.model.mlp.1.bias"}, true},
		"a projector without a matrix":      {without(fixtures.Projector("internvl"), "mm.model.mlp.1.weight"), nil, []string{"not-loadable tensors"}, true},
		"an adapter":                        {adapter("lora"), nil, nil, false},
		"an adapter of another kind":        {adapter("ia3"), nil, []string{"bad-metadata adapter.type"}, true},
		"an adapter with half a pair":       {without(adapter("lora"), "blk.0.attn_q.weight.lora_b"), nil, []string{"missing-tensor blk.0.attn_q.weight.lora_b"}, true},
		"an adapter of two ranks":           {without(adapter("lora"), "blk.0.attn_q.weight.lora_b").Add("blk.0.attn_q.weight.lora_b", formats.F32, 8, 64), nil, []string{"wrong-shape blk.0.attn_q.weight.lora_b"}, true},
		"an adapter with a weight":          {adapter("lora").Add("blk.0.attn_q.weight", formats.F32, 64, 64), nil, []string{"unknown-tensor blk.0.attn_q.weight"}, true},
		"an adapter's alpha as a whole":     {adapter("lora").Set("adapter.lora.alpha", uint32(16)), nil, []string{"wrong-type adapter.lora.alpha"}, true},
		"no importance matrix":              {(&fixtures.GGUF{NoData: true}).Set("general.type", "imatrix").Set("imatrix.chunk_size", uint32(512)).Set("imatrix.datasets", []string{"x"}), nil, []string{"bad-metadata imatrix.chunk_count"}, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "m.gguf")
			if err := tt.build.WriteSparse(path); err != nil {
				t.Fatal(err)
			}
			problems, refused := Model(open(t, path), tt.load)
			if got := codes(problems); !slices.Equal(got, tt.codes) || refused != tt.refused {
				t.Errorf("problems %q, refused %v; want %q, %v", got, refused, tt.codes, tt.refused)
			}
			for _, p := range problems {
				if p.Severity != formats.SeverityWarning {
					t.Errorf("%s has severity %s: the file is as its format wants it", p.Code, p.Severity)
				}
			}
		})
	}
}

// adapter is a LoRA adapter of one matrix.
func adapter(kind string) *fixtures.GGUF {
	g := (&fixtures.GGUF{NoData: true}).Set("general.type", "adapter").Set("general.architecture", "llama").Set("adapter.type", kind).Set("adapter.lora.alpha", float32(16))
	return g.Add("blk.0.attn_q.weight.lora_a", formats.F32, 64, 4).Add("blk.0.attn_q.weight.lora_b", formats.F32, 4, 64)
}

func TestModelOfAConfiguration(t *testing.T) {
	const llama = `"architectures":["LlamaForCausalLM"],"num_hidden_layers":2,"max_position_embeddings":64,"intermediate_size":64,"vocab_size":64,`
	tests := map[string]struct {
		config  string
		codes   []string
		refused bool
	}{
		"a whole one":                    {`{` + llama + `"hidden_size":32,"num_attention_heads":4}`, nil, false},
		"a width beyond all numbers":     {`{"architectures":["LlamaForCausalLM"],"hidden_size":1e30}`, []string{"bad-metadata config.json: hidden_size"}, true},
		"layers that are text":           {`{"architectures":["LlamaForCausalLM"],"num_hidden_layers":"two"}`, []string{"bad-metadata config.json: num_hidden_layers"}, true},
		"no layers, as llama.cpp counts": {`{"architectures":["LlamaForCausalLM"],"num_hidden_layers":0,"hidden_size":32,"num_attention_heads":4}`, []string{"bad-metadata config.json: num_hidden_layers"}, true},
		"a class that llama.cpp has not": {`{"architectures":["NonesuchModel"]}`, []string{"no-architecture architecture"}, false},
		"an empty one":                   {`{}`, []string{"no-architecture architecture"}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			problems, refused := Model(open(t, filepath.Dir(write(t, "config.json", []byte(tt.config)))), nil)
			if got := codes(problems); !slices.Equal(got, tt.codes) || refused != tt.refused {
				t.Errorf("problems %+v, refused %v; want %q, %v", problems, refused, tt.codes, tt.refused)
			}
		})
	}
}

// wrongShapes are the problems of a model whose matrices with such names in the
// blocks have a wrong width.
func wrongShapes(g *fixtures.GGUF, names ...string) (codes []string) {
	for _, t := range g.Tensors {
		has := func(name string) bool { return strings.Contains(t.Name, "."+name) }
		if len(t.Shape) > 1 && slices.ContainsFunc(names, has) {
			codes = append(codes, "wrong-shape "+t.Name)
		}
	}
	slices.Sort(codes)
	return codes
}

// extraLayer are the problems of a model with tensors of a block too many.
func extraLayer(g *fixtures.GGUF, il int) (codes []string) {
	for _, t := range g.Tensors {
		if n, _ := model.SplitName(t.Name); n == il {
			codes = append(codes, "extra-layer "+t.Name)
		}
	}
	slices.Sort(codes)
	return codes
}

// tensorFile is a GGUF of one tensor of two blocks, each byte 0x38, which makes
// every scale a small number, and where its data is.
func tensorFile(typ formats.DType) (file []byte, data int) {
	elements, _ := typ.Block()
	g := (&fixtures.GGUF{}).Set("general.architecture", "llama").Add("t", typ, max(2*elements, 8))
	b := g.Build()
	for i := b.DataOffset; i < len(b.Data); i++ {
		b.Data[i] = 0x38
	}
	return b.Data, b.DataOffset
}

func TestDataFindsEveryScale(t *testing.T) {
	// Bytes of a block of two bytes that make its scale infinite, as ggml's
	// structures place them.
	at := map[formats.DType][]int{
		formats.F16: {0}, formats.BF16: nil, formats.Q4_0: {0}, formats.Q4_1: {0, 2}, formats.Q5_0: {0}, formats.Q5_1: {0, 2}, formats.Q8_0: {0},
		formats.Q2_K: {80, 82}, formats.Q3_K: {108}, formats.Q4_K: {0, 2}, formats.Q5_K: {0, 2}, formats.Q6_K: {208},
		formats.IQ1_S: {0}, formats.IQ2_XXS: {0}, formats.IQ2_XS: {0}, formats.IQ2_S: {0}, formats.IQ3_XXS: {0}, formats.IQ3_S: {0},
		formats.IQ4_NL: {0}, formats.IQ4_XS: {0}, formats.TQ1_0: {52}, formats.TQ2_0: {64}, formats.Q1_0: {0}, formats.Q2_0: {0}, formats.I32: nil,
	}
	for typ, want := range at {
		t.Run(typ.String(), func(t *testing.T) {
			file, data := tensorFile(typ)
			_, block := typ.Block()
			var got []int
			for o := 0; o+2 <= int(block); o += 2 {
				broken := slices.Clone(file)
				binary.LittleEndian.PutUint16(broken[data+o:], 0x7c00)
				problems, err := Data(t.Context(), open(t, write(t, "m.gguf", broken)), nil)
				if err != nil {
					t.Fatal(err)
				}
				if len(problems) == 1 && problems[0].Code == "not-a-number" && problems[0].Offset == int64(data+o) {
					got = append(got, o)
				} else if len(problems) > 0 {
					t.Fatalf("byte %d: %+v", o, problems)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("scales found at %v, want %v", got, want)
			}
		})
	}
}

func TestData(t *testing.T) {
	set := func(bytes ...byte) func(b []byte) { return func(b []byte) { copy(b, bytes) } }
	tests := map[string]struct {
		typ  formats.DType
		do   func(data []byte)
		code string
	}{
		"numbers":                 {formats.F32, set(), ""},
		"a NaN":                   {formats.F32, set(0, 0, 0, 0, 1, 0, 0xc0, 0x7f), "not-a-number"},
		"an infinity of BF16":     {formats.BF16, set(0x80, 0xff), "not-a-number"},
		"the largest F16":         {formats.F16, set(0xff, 0x7b, 0xff, 0xfb), ""},
		"the smallest F32":        {formats.F32, set(1, 0, 0, 0), ""},
		"a NaN of F64":            {formats.F64, set(1, 0, 0, 0, 0, 0, 0xf0, 0x7f), "not-a-number"},
		"a scale that is none":    {formats.MXFP4, set(0xff), "not-a-number"},
		"any scale of NVFP4":      {formats.NVFP4, set(0x7f, 0xff), ""},
		"a split scale of IQ1_M":  {formats.IQ1_M, func(b []byte) { copy(b[48:], "\x00\x00\x00\x00\x00\xc0\x00\x70") }, "not-a-number"},
		"a scale of Q8_K":         {formats.Q8_K, set(0, 0, 0x80, 0x7f), "not-a-number"},
		"nothing but zeros":       {formats.F16, func(b []byte) { clear(b) }, "all-zero"},
		"zeros with a sign":       {formats.F32, func(b []byte) { clear(b); b[3] = 0x80 }, "all-zero"},
		"blocks scaled to zero":   {formats.Q8_0, func(b []byte) { b[0], b[1], b[34], b[35] = 0, 0, 0, 0x80 }, "all-zero"},
		"integers of any pattern": {formats.I8, set(0xff, 0x7f), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			file, data := tensorFile(tt.typ)
			tt.do(file[data:])
			problems, err := Data(t.Context(), open(t, write(t, "m.gguf", file)), nil)
			if err != nil {
				t.Fatal(err)
			}
			var got string
			for _, p := range problems {
				got += p.Code
			}
			if got != tt.code {
				t.Errorf("problems %+v, want %q", problems, tt.code)
			}
		})
	}
}

func TestDataLooksAtNoBigEndianValues(t *testing.T) {
	g := (&fixtures.GGUF{BigEndian: true}).Set("general.architecture", "llama").Add("t", formats.F32, 8)
	b := g.Build()
	copy(b.Data[b.DataOffset:], "\x3f\x80\x80\x7f") // just above 1
	problems, err := Data(t.Context(), open(t, write(t, "m.gguf", b.Data)), nil)
	if err != nil || !slices.Equal(codes(problems), []string{"big-endian tensors"}) {
		t.Errorf("Data() = %+v, %v", problems, err)
	}
}

func TestScannersOfBytes(t *testing.T) {
	for typ, nan := range map[formats.DType]int{formats.F8_E5M2FNUZ: 0x80, formats.F8_E4M3FNUZ: 0x80, formats.F8_E8M0: 0xff, formats.F4: -1, formats.F6_E2M3: -1, formats.F6_E3M2: -1} {
		for v := range 256 {
			y := &tally{at: -1, zero: true}
			scanners[typ](y, []byte{byte(v)}, 7)
			if found := y.bad == 1 && y.at == 7; found != (v == nan) || y.zero != (v == 0) {
				t.Errorf("%v %#x: %+v", typ, v, y)
			}
		}
	}
	for typ := formats.DType(0); typ < 256; typ++ {
		if typ.Known() && scanners[typ] == nil && typ != formats.Q8_1 {
			t.Errorf("nothing looks at the values of %v", typ)
		}
	}
}

func TestManifest(t *testing.T) {
	file, data := tensorFile(formats.F32)
	hash := func(b []byte) *Manifest {
		ins := open(t, write(t, "m.gguf", b))
		tensors, err := HashTensors(t.Context(), ins, nil)
		if err != nil {
			t.Fatal(err)
		}
		files, err := Hash(t.Context(), ins, nil)
		if err != nil {
			t.Fatal(err)
		}
		return &Manifest{Schema: 1, Files: files, Tensors: tensors}
	}
	was := hash(file)
	if problems := was.Compare(hash(file)); len(problems) > 0 {
		t.Errorf("the same file differs: %+v", problems)
	}
	file[data]++
	if got := codes(was.Compare(hash(file))); !slices.Equal(got, []string{"manifest-mismatch m.gguf", "manifest-mismatch t"}) {
		t.Errorf("a changed byte: %q", got)
	}
	now := hash(file)
	now.Files[0].Name = "renamed.gguf"
	if got := codes(hash(file).Compare(now)); len(got) > 0 {
		t.Errorf("a renamed file: %q", got)
	}
	now.Tensors = was.Tensors // as where the header alone was changed
	if got := codes(was.Compare(now)); !slices.Equal(got, []string{"not-in-manifest renamed.gguf"}) {
		t.Errorf("a renamed file with another header: %q", got)
	}
	twice := &Manifest{Schema: 1, Tensors: []ManifestTensor{{Name: "t", Type: "F32"}, {Name: "t", Type: "F16"}}}
	if got := codes(twice.Compare(twice)); len(got) > 0 {
		t.Errorf("a tensor in two shards: %q", got)
	}
	if got := codes(twice.Compare(&Manifest{Tensors: twice.Tensors[:1]})); !slices.Equal(got, []string{"missing-tensor t"}) {
		t.Errorf("one of two tensors of a name: %q", got)
	}
}

func TestReadManifestRefuses(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	tests := map[string]struct{ text, want string }{
		"nothing":                   {"", "unexpected EOF"},
		"no JSON":                   {"{", "unexpected EOF"},
		"no object":                 {"[]", `"[", want "{"`},
		"another schema":            {`{"schema":2}`, "schema 2, want 1"},
		"text after it":             {`{"schema":1} {}`, "more text"},
		"another document":          {`{"schema":1,"problems":[]}`, `"problems" is no field`},
		"no list":                   {`{"schema":1,"files":{}}`, `"{", want "["`},
		"entries without hashes":    {`{"schema":1,"tensors":[` + strings.Repeat("{},", 1<<20) + `{}]}`, "64 hexadecimal digits"},
		"a hash that is too short":  {`{"schema":1,"files":[{"name":"a","sha256":"` + hash[2:] + `"}]}`, `"a" has the sha256`},
		"a hash that is none":       {`{"schema":1,"files":[{"name":"a","sha256":"` + strings.Repeat("xy", 32) + `"}]}`, `"a" has the sha256`},
		"an entry without end":      {`{"schema":1,"files":[{"name":"` + strings.Repeat("a", maxEntry) + `"}]}`, "over the limit"},
		"more digits than fit":      {`{"schema":1,"tensors":[{"name":"a","bytes":1e99,"sha256":"` + hash + `"}]}`, "bytes"},
		"arrays in arrays in these": {`{"schema":` + strings.Repeat("[", 1<<16), "depth"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ReadManifest(write(t, "m.json", []byte(tt.text)))
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "at byte") {
				t.Errorf("ReadManifest() error = %v, want %s and a byte", err, tt.want)
			}
		})
	}
}

// An entry is refused before it is held.
func TestReadManifestHoldsNoLongEntry(t *testing.T) {
	long := strings.Repeat("x", 20<<20)
	for name, text := range map[string]string{
		"a long name":  `{"schema":1,"files":[{"name":"` + long + `"}]}`,
		"a long field": `{"` + long + `":1}`,
		"a long space": `{"schema":1,"files":[` + strings.ReplaceAll(long, "x", " ") + `]}`,
		"a long shape": `{"schema":1,"tensors":[{"shape":[` + strings.ReplaceAll(long, "x", "1,") + `1]}]}`,
		"nothing else": strings.ReplaceAll(long, "x", " "),
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, "m.json", []byte(text))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := ReadManifest(path)
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), "over the limit") {
				t.Errorf("error = %v, want one about a limit", err)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > 4<<20 {
				t.Errorf("%d bytes are allocated for it", took)
			}
		})
	}
}

func TestAFileThatChangesIsNotReadAsOne(t *testing.T) {
	whole := new(fixtures.GGUF).Set("general.architecture", "llama").Add("t", formats.F32, 1<<20).Bytes()
	for name, change := range map[string]func(path string) error{
		"it shrinks":     func(path string) error { return os.Truncate(path, int64(len(whole)-1)) },
		"it grows":       func(path string) error { return os.Truncate(path, int64(len(whole)+1)) },
		"it is replaced": func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) },
		"it is gone":     os.Remove,
		"it is a folder": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"it is a link":   func(path string) error { return errors.Join(os.Remove(path), os.Symlink(path, path)) },
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, "m.gguf", whole)
			ins := open(t, path)
			if err := change(path); err != nil {
				t.Fatal(err)
			}
			for what, read := range map[string]func() error{
				"Data":        func() error { _, err := Data(t.Context(), ins, nil); return err },
				"Hash":        func() error { _, err := Hash(t.Context(), ins, nil); return err },
				"HashTensors": func() error { _, err := HashTensors(t.Context(), ins, nil); return err },
			} {
				if err := read(); err == nil || !strings.Contains(err.Error(), path) {
					t.Errorf("%s() error = %v, want one about %s", what, err, path)
				}
			}
		})
	}
	path := write(t, "m.gguf", whole)
	ins := open(t, path)
	stop := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := Data(ctx, ins, nil); !errors.Is(err, stop) {
		t.Errorf("cancelled: error = %v, want %v", err, stop)
	}
	if err := each(t.Context(), ins, 2, func(ctx context.Context, _ []*os.File, i int) error {
		if i == 0 {
			return stop
		}
		<-ctx.Done() // what one finds ends the others
		return context.Cause(ctx)
	}); !errors.Is(err, stop) {
		t.Errorf("a failed piece: error = %v, want %v", err, stop)
	}
	err := each(t.Context(), ins, 1, func(context.Context, []*os.File, int) error { return os.Chtimes(path, time.Time{}, time.Unix(1, 0)) })
	if err == nil || !strings.Contains(err.Error(), "changed while it was read") {
		t.Errorf("a file written meanwhile: error = %v", err)
	}
}

func TestReadTemplate(t *testing.T) {
	tests := map[string]struct {
		text string
		code string // of the only kind of problem; "" for none
	}{
		"a plain template":         {`{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}`, ""},
		"tools and dates":          {`{%- set date = strftime_now("%d %b %Y") %}{% macro f(x, y=true) %}{{ x | tojson(indent=4) }}{% endmacro %}{{ f(tools) }}{% set ns = namespace(found=false) %}{% if not ns.found %}{{ raise_exception('no') }}{% endif %}`, ""},
		"names in text only":       {`os.system eval() {{ 'import os; eval' }}`, ""},
		"a comment":                {`{# __class__ os.system #}{{ bos_token }}`, ""},
		"Python's internals":       {`{{ ''.__class__.__mro__ }}`, "template-reaches-internals"},
		"internals by name":        {`{{ messages['__globals__'] }}`, "template-reaches-internals"},
		"the machine":              {`{{ cycler.next(os.popen('id')) }}`, "template-reaches-machine"},
		"an attribute by a filter": {`{{ x | attr('a') }}`, "template-odd-filter"},
		"another file":             {`{% include 'secret' %}`, "template-loads-file"},
		"behind a string's end":    {`{{ "}}" ~ x.__class__ }}`, "template-reaches-internals"},
		"behind a tag's end":       {`{% if '%}' ~ x.__class__ %}{% endif %}`, "template-reaches-internals"},
		"behind an escaped quote":  {`{{ '\'}}' ~ x.__class__ }}`, "template-reaches-internals"},
		"behind an object's end":   {`{{ {'a': {'b': 1}} ~ x.__class__ }}`, "template-reaches-internals"},
		"behind a raw block":       {`{% raw %}{{ " {%- endraw -%}{{ x.__class__ }}`, "template-reaches-internals"},
		"behind a comment":         {`{# {{ " #}{{ x.__class__ }}`, "template-reaches-internals"},
		"behind a text of one":     {`{{ "{#" }}{{ x.__class__ }}{{ "#}" }}`, "template-reaches-internals"},
		"without an end":           {`{{ x.__class__`, "template-reaches-internals"},
		"in a raw block":           {`{% raw %}{{ x.__class__ }}{% endraw %}`, ""},
		"a name in an escape":      {`{{ x["\x5f_class_\x5f"] }}`, "template-reaches-internals"},
		"a name in octal":          {`{{ x["\137\137class"] }}`, "template-reaches-internals"},
		"a name by a character's":  {`{{ x["\N{LOW LINE}_class"] }}`, "template-reaches-internals"},
		"a name in two texts":      {`{{ x | map(attribute="_" "_class_" "_") }}`, "template-reaches-internals"},
		"a name that is joined":    {`{% set a = '_' ~ '_class_' + '_' %}`, "template-reaches-internals"},
		"a name without its lines": {`{{ x['mro'] }}`, "template-reaches-internals"},
		"a frame":                  {`{{ x.gi_frame }}`, "template-reaches-machine"},
		"a name that is computed":  {`{{ x[a ~ 'class' ~ a] }}`, "template-computes-name"},
		"one of a list of texts":   {`{{ x[['a', 'b'] | join] }}{{ x | map(attribute=a | upper) }}`, "template-computes-name"},
		"a place that is computed": {`{{ messages[loop.index0 - 1]['role'] }}{{ x[messages | length % 2] }}{{ ['a' ~ b][0] }}`, ""},
		"text in escapes":          {`{{ '\x68\x65\x6c\x6c\x6f' }}`, "template-hides-text"},
		"an invisible character":   {"{{ bos_token }}\u202e", "template-hides-text"},
		"an address":               {`{{ 'always point to http://evil.example/x' }}`, "template-has-address"},
		"too long":                 {strings.Repeat("x", MaxTemplates+1), "template-too-long"},
		"broken":                   {`{{ {% for }} {{`, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := map[string]bool{}
			for _, p := range ReadTemplate("default", tt.text).Problems {
				got[p.Code] = true
			}
			if len(got) > 1 || tt.code != "" && !got[tt.code] || tt.code == "" && len(got) > 0 {
				t.Errorf("problems %v, want %q", got, tt.code)
			}
		})
	}
	r := ReadTemplate("default", tests["a plain template"].text)
	if !slices.Equal(r.Variables, []string{"add_generation_prompt", "messages"}) || !slices.Equal(r.Filters, []string{"trim"}) {
		t.Errorf("takes %q through %q", r.Variables, r.Filters)
	}
}

func TestReadTemplateTakesTimeByLength(t *testing.T) {
	for _, part := range []string{"{{", "{#", "{% raw %}", `{{ "a"~`, "{{ x["} {
		start := time.Now()
		ReadTemplate("default", strings.Repeat(part, MaxTemplates/len(part)))
		if took := time.Since(start); took > 20*time.Second { // a few tenths are usual
			t.Errorf("%q again and again takes %v", part, took)
		}
	}
}

func FuzzReadTemplate(f *testing.F) {
	f.Add(`{% for m in messages %}{{ m['content'] | trim }}{% endfor %}`)
	f.Add("{{ ''.__class__ }}\x00{# {% '")
	f.Fuzz(func(t *testing.T, text string) {
		for _, p := range ReadTemplate("default", text).Problems {
			if p.Offset < 0 || p.Offset > int64(len(text)) {
				t.Errorf("a problem at byte %d of %d", p.Offset, len(text))
			}
		}
	})
}

func TestModelsOfAllArchitecturesAreLoadable(t *testing.T) {
	for _, name := range fixtures.Models() {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "m.gguf")
			if err := fixtures.Model(name).WriteSparse(path); err != nil {
				t.Fatal(err)
			}
			if problems, refused := Model(open(t, path), nil); refused {
				t.Errorf("%+v", problems)
			}
		})
	}
}

// FuzzModel looks at files that are broken anywhere. What cannot be opened has a
// fault in its structure, and what is said is said of something.
func FuzzModel(f *testing.F) {
	for _, g := range []*fixtures.GGUF{fixtures.Model("llama-Q4_K_M"), fixtures.Projector("internvl"), adapter("lora")} {
		f.Add(g.Build().Data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "m.gguf")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		size := int64(len(data)) + 1<<36 // room for data of any size
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		_, structure, _, err := Structure(path)
		if err != nil {
			t.Fatal(err)
		}
		ins, err := inspect.Open(path)
		if err != nil {
			if len(structure) == 0 {
				t.Errorf("nothing is wrong with a file that cannot be opened: %v", err)
			}
			return
		}
		defer ins.Close()
		problems, refused := Model(ins, nil)
		if refused && len(problems) == 0 {
			t.Error("refused without a reason")
		}
		for _, p := range problems {
			if p.Code == "" || p.Field == "" || p.Message == "" || p.Offset >= size {
				t.Errorf("a problem of nothing: %+v", p)
			}
		}
	})
}

// Of the folders llama.cpp's converter refuses some, and what it makes of the
// others is loaded.
func TestFoldersAreLoadable(t *testing.T) {
	for _, name := range fixtures.HFNames() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := fixtures.WriteHF(dir, name); err != nil {
				t.Fatal(err)
			}
			if p := Refusal(open(t, dir)); p != nil && p.Code != "not-convertible" {
				t.Errorf("%+v", p)
			}
		})
	}
}
