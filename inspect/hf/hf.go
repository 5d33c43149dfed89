// Package hf reads Hugging Face folders, single safetensors files, adapters and
// diffusion pipelines. A language model becomes the GGUF that llama.cpp's
// converter would make of it; beside that the package says what the files
// themselves hold. It reads headers and small files, no weights.
package hf

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"weigh/formats"
	"weigh/formats/hfconfig"
	"weigh/formats/safetensors"
	"weigh/inspect/model"
)

// SideFiles are the files of a folder, beside the weights, of which each says
// that there is a model.
var SideFiles = []string{"config.json", "params.json", "adapter_config.json", "model_index.json"}

// ErrNoModel is the error for a folder without anything this package reads.
var ErrNoModel = errors.New("no config.json and no safetensors file")

// A Model is what a folder or a file says of itself.
type Model struct {
	Path    string // as given
	Class   string // the first of config.json's "architectures"
	Type    string // "model_type"
	Context int64  // trained context by config.json, 0 when it does not say; a converted GGUF may say another
	Files   []File // with weights, in the order they are read
	LeftOut []string

	Weights        []Weight // the parameters, packed ones put together
	Params         uint64   // sum over Weights; stored twice counts twice
	Bytes          uint64   // of all stored tensors, scales and buffers included; of the Defined ones as the configuration's type has them
	StoredElements uint64   // product of stored shapes, summed: what counting packed elements as parameters gives
	StoredTensors  int
	Towers         bool    // the configuration has other models beside the language model's
	Defined        bool    // no weights are here: Weights are the language model's by its class, Params counts them
	BitsPerWeight  float64 // 8·Bytes / Params; 0 without weights

	Quant      *Quant // nil for plain weights
	TieFlag    *bool  // "tie_word_embeddings"; nil when absent
	Tied       bool   // the head is the embedding: no tensor of its own is stored, or the flag makes the stored one superfluous
	Adapter    *Adapter
	Components []Component // parts of a pipeline or of a checkpoint with several models
	Diffusion  bool        // a checkpoint of a diffusion model in one file

	// Source is the GGUF that the folder would become; nil when llama.cpp has
	// no architecture for it. Its tensors are empty without weights.
	Source *model.Source
	// Held is the bytes that the files hold for each of Source.Tensors, scales
	// included; 0 for a tensor that no weight was made into.
	Held []uint64
	// Arch is general.architecture, "" without Source.
	Arch string
	// Fault is what of the configuration cannot be; nil when nothing is.
	Fault *FieldError
	// Refused says why llama.cpp's converter would not convert the weights, ""
	// when it would. Source then stands for the same model unpacked.
	Refused string

	Config   hfconfig.Object
	Problems []formats.Problem // what is odd but not fatal
	Notes    []string          // for people, in order of importance

	fields map[string]string // places of the configuration by the keys of Source that hold their values
	parts  map[string]string // places by the keys that are computed from their values
}

// A FieldError is the error for a field of a configuration whose value cannot be.
type FieldError struct {
	Field string // its file and its place in it, such as "config.json: hidden_size"
	Why   string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Why }

// Field returns the file and the place in it that a key of Source is made of,
// such as "config.json: text_config.hidden_size"; "" when that is not known.
func (m *Model) Field(key string) string {
	if field := m.fields[key]; field != "" {
		return field
	}
	v, _ := m.Source.Meta.Lookup(key)
	if field := where(m.Config, v); field != "" {
		return "config.json: " + field
	}
	return ""
}

// Parts returns the file and the places in it that a key of Source is computed
// from, such as "config.json: mamba_expand, hidden_size"; "" when that is not
// known.
func (m *Model) Parts(key string) string {
	if v, _ := m.Source.Meta.Lookup(key); len(allWhere(m.Config, v)) > 0 {
		return "" // it is one of several fields
	}
	return m.parts[key]
}

// A File is one file of weights.
type File struct {
	Name        string // relative to the folder
	Bytes       int64
	HeaderBytes int64
	Tensors     []safetensors.Tensor
	Metadata    map[string]string
}

// A Quant is how a folder's weights are packed.
type Quant struct {
	Method        string   // the configuration's, or what the tensors show
	Format        string   // a variant of the method
	Bits          int      // per packed weight; 0 when they differ or are not said
	Group         int      // weights per scale; 0 unknown, -1 a whole row
	Weights       int      // packed weights
	Params        uint64   // packed parameters
	Bytes         uint64   // of the packed weights with their scales
	BitsPerWeight float64  // 8·Bytes / Params
	Plain         []string // names of the matrices left unpacked, in order, at most 20
	PlainParams   uint64   // parameters left unpacked
	PlainBytes    uint64
}

// A Component is one of several models in a folder or a file.
type Component struct {
	Name    string
	Class   string // its class, where the pipeline names one
	Tensors int
	Params  uint64
	Bytes   uint64
}

// Open reads the model at path: a folder, a safetensors file or the index of
// sharded ones. A file that is a shard stands for its whole model.
func Open(path string) (*Model, error) {
	m, err := open(path)
	if err != nil {
		return nil, err
	}
	for i := range m.Problems {
		if p := &m.Problems[i]; p.Severity == formats.SeverityError {
			return nil, fmt.Errorf("%s: %s: %s", path, p.Field, p.Message)
		}
	}
	return m, nil
}

// Check lists every fault of the model at path: of the files' headers, whose
// names it puts before the field, and between the files. The model is that of
// Open, nil when a fault is in its way and for a pipeline.
func Check(path string) (*Model, []formats.Problem, error) {
	f, err := gather(path)
	if err != nil {
		return nil, nil, err
	}
	if err := f.read(safetensors.Check); err != nil {
		return nil, nil, err
	}
	problems := append(slices.Clip(f.problems), f.pointers()...)
	if f.pipeline != nil || slices.ContainsFunc(f.problems, func(p formats.Problem) bool { return p.Severity == formats.SeverityError }) {
		return nil, problems, nil
	}
	m, err := f.model(path)
	return m, problems, err
}

// pointers lists the files beside the weights that Git LFS has not fetched.
func (f *folder) pointers() (problems []formats.Problem) {
	for _, name := range f.names {
		if f.alone || !slices.Contains([]string{".json", ".jinja", ".model", ".tiktoken"}, filepath.Ext(name)) && name != "merges.txt" && name != "vocab.txt" {
			continue
		}
		file, size, err := formats.Open(f.at(name))
		if err != nil {
			continue
		}
		if p := formats.ReadLFSPointer(file, size); p != nil {
			problems = append(problems, formats.Problem{Severity: formats.SeverityError, Code: "lfs-pointer", Message: p.Error(), Field: name + ": file"})
		}
		file.Close()
	}
	return problems
}

func open(path string) (*Model, error) {
	f, err := gather(path)
	if err != nil {
		return nil, err
	}
	if f.pipeline != nil {
		return openPipeline(path, f)
	}
	return f.open(path)
}

// open reads the weights and puts them together with the folder's facts.
func (f *folder) open(path string) (*Model, error) {
	if err := f.read(strict); err != nil {
		return nil, err
	}
	return f.model(path)
}

// A folder is what was found at a path.
type folder struct {
	dir      string
	names    []string // files in dir
	index    *safetensors.Index
	indexAt  string   // its file
	weights  []string // files of weights
	leftOut  []string
	alone    bool // a file that is not part of its folder's model; the side files are not its own
	mistral  bool // params.json stands for config.json
	pipeline hfconfig.Object

	config, quantize, modelopt, adapter hfconfig.Object

	files    []File
	problems []formats.Problem
	notes    []string

	reading struct { // a file whose small tensors are read
		name string
		file *os.File
	}
}

func (f *folder) at(name string) string { return filepath.Join(f.dir, filepath.FromSlash(name)) }

func (f *folder) has(name string) bool { return slices.Contains(f.names, name) }

// json reads a side file; nil when there is none.
func (f *folder) json(name string) (hfconfig.Object, error) {
	if !f.has(name) {
		return nil, nil
	}
	file, size, err := formats.Open(f.at(name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	o, err := hfconfig.Read(file, size, name)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: f.at(name), Err: err}
	}
	return o, nil
}

// gather finds which files make up the model at path and reads the small ones.
func gather(path string) (*folder, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	f := &folder{dir: path}
	file := ""
	if !info.IsDir() {
		f.dir, file = filepath.Split(path)
		f.dir = cmp.Or(f.dir, ".")
	}
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !e.IsDir() {
			f.names = append(f.names, e.Name())
		}
	}
	if err := f.choose(file); err != nil {
		return nil, err
	}
	for _, side := range []struct {
		to   *hfconfig.Object
		name string
	}{
		{&f.config, "config.json"},
		{&f.quantize, "quantize_config.json"},
		{&f.quantize, "quant_config.json"},
		{&f.modelopt, "hf_quant_config.json"},
		{&f.adapter, "adapter_config.json"},
		{&f.pipeline, "model_index.json"},
	} {
		if f.alone {
			break
		}
		if o, err := f.json(side.name); err != nil {
			return nil, err
		} else if o != nil {
			*side.to = o
			f.problems = append(f.problems, impossible(side.name, o)...)
		}
	}
	if f.config == nil && !f.alone && f.has("params.json") {
		o, err := f.json("params.json")
		if err != nil {
			return nil, err
		}
		f.config, f.mistral = hfconfig.FromMistral(o), true
	}
	if f.config == nil && f.adapter == nil && f.pipeline == nil && len(f.weights) == 0 {
		if p := f.pickle(); p != "" {
			return nil, fmt.Errorf("%s: %w; %s is a pickle, which only running it can read: convert it to safetensors", path, ErrNoModel, p)
		}
		return nil, fmt.Errorf("%s: %w", path, ErrNoModel)
	}
	return f, nil
}

// pickle returns the first file of the folder that is a pickle, "" without one.
func (f *folder) pickle() string {
	for _, n := range f.names {
		if isPickle(n) {
			return n
		}
	}
	return ""
}

// isPickle reports whether a file is PyTorch's own by its name.
func isPickle(name string) bool {
	return slices.Contains([]string{".bin", ".pt", ".pth", ".ckpt", ".pkl"}, filepath.Ext(name))
}

// choose sets the files of weights: those of the folder's model, or, when file
// names another one in it, that file and its shards alone.
func (f *folder) choose(file string) error {
	index, weights, err := safetensors.Weights(f.names)
	if strings.HasSuffix(file, ".index.json") {
		index, err = file, nil
	}
	if index != "" {
		if err := f.readIndex(index); err != nil {
			return err
		}
		weights = f.index.Files
	}
	if file != "" && file != index && (err != nil || !slices.Contains(weights, file)) {
		f.alone, f.index = true, nil
		_, f.weights, err = safetensors.Weights(shardsOf(file, f.names))
		if len(f.weights) == 0 && !isPickle(file) {
			f.weights = []string{file} // whatever its name says, such as a blob of a cache
		}
		return err
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.dir, err)
	}
	f.weights = weights
	for _, n := range f.names {
		if strings.HasSuffix(n, ".safetensors") && !slices.Contains(weights, n) {
			f.leftOut = append(f.leftOut, n)
		}
	}
	return nil
}

// shardsOf returns the files that are shards of the same model as file.
func shardsOf(file string, names []string) []string {
	stem, _, ok := strings.Cut(file, "-of-")
	if !ok || len(stem) < 6 {
		return []string{file}
	}
	end := file[len(stem):]
	var out []string
	for _, n := range names {
		if len(n) == len(file) && strings.HasPrefix(n, stem[:len(stem)-5]) && strings.HasSuffix(n, end) {
			out = append(out, n)
		}
	}
	return out
}

func (f *folder) readIndex(name string) error {
	file, size, err := formats.Open(f.at(name))
	if err != nil {
		return err
	}
	defer file.Close()
	f.indexAt = f.at(name)
	if f.index, err = safetensors.ReadIndex(file, size); err != nil {
		return &fs.PathError{Op: "read", Path: f.indexAt, Err: err}
	}
	return nil
}

// strict is safetensors.Check for which a fault is an error.
func strict(src io.ReaderAt, size int64) (*safetensors.File, []formats.Problem, error) {
	f, err := safetensors.Read(src, size)
	if err != nil {
		return nil, nil, err
	}
	return f, f.Problems, nil
}

// read reads the headers of the weights and, if none has a fault, compares them.
func (f *folder) read(header func(src io.ReaderAt, size int64) (*safetensors.File, []formats.Problem, error)) error {
	read, whole := map[string]*safetensors.File{}, true
	for _, name := range f.weights {
		file, size, err := formats.Open(f.at(name))
		if errors.Is(err, fs.ErrNotExist) && f.index != nil {
			continue // CheckShards says what is lost
		}
		if err != nil {
			return err
		}
		h, problems, err := header(file, size)
		file.Close()
		if err != nil {
			return &fs.PathError{Op: "read", Path: f.at(name), Err: err}
		}
		for _, p := range problems {
			p.Field = name + ": " + p.Field
			f.problems = append(f.problems, p)
		}
		if h == nil {
			whole = false
			continue
		}
		read[name] = h
		f.files = append(f.files, File{Name: name, Bytes: size, HeaderBytes: h.HeaderBytes, Tensors: h.Tensors, Metadata: h.Metadata})
	}
	if !whole {
		return nil
	}
	var index io.ReaderAt
	if f.index != nil {
		file, _, err := formats.Open(f.indexAt)
		if err != nil {
			return err
		}
		defer file.Close()
		index = file
	}
	problems, err := safetensors.CheckShards(f.index, index, read)
	if err != nil {
		return &fs.PathError{Op: "read", Path: f.indexAt, Err: err}
	}
	f.problems = append(f.problems, problems...)
	return nil
}

// tensors returns every stored tensor once, by file and name, as the converter
// reads them; of a name in two files the last counts.
func (f *folder) tensors() []stored {
	n := 0
	for i := range f.files {
		n += len(f.files[i].Tensors)
	}
	all := make([]stored, 0, n)
	for i := range f.files {
		file, first := &f.files[i], len(all)
		in := &holder{f, file.Name}
		for i := range file.Tensors {
			all = append(all, stored{&file.Tensors[i], in})
		}
		slices.SortFunc(all[first:], func(a, b stored) int { return cmp.Compare(a.Name, b.Name) })
	}
	if len(f.files) < 2 {
		return all // a file alone has no name twice
	}
	places := formats.NewNames(len(all), func(i int) string { return all[i].Name })
	out, placed := make([]stored, 0, n), make([]bool, n)
	for i := range all {
		if last := places.Find(all[i].Name); !placed[last] {
			out, placed[last] = append(out, all[last]), true
		}
	}
	return out
}

// contents reads the data of a small tensor, nil when that fails. The file stays
// open for the next one; release closes it.
func (f *folder) contents(name string, off int64, size uint64, limit int) []byte {
	if size > uint64(limit) {
		return nil
	}
	if f.reading.name != name {
		f.release()
		file, _, err := formats.Open(f.at(name))
		if err != nil {
			return nil
		}
		f.reading.name, f.reading.file = name, file
	}
	b := make([]byte, size)
	if _, err := f.reading.file.ReadAt(b, off); err != nil {
		return nil
	}
	return b
}

// release closes the file that contents was last read from.
func (f *folder) release() {
	if f.reading.file != nil {
		f.reading.file.Close()
	}
	f.reading.name, f.reading.file = "", nil
}

// model puts the folder's facts together.
func (f *folder) model(path string) (*Model, error) {
	m := &Model{Path: path, Files: f.files, LeftOut: f.leftOut, Config: f.config, Problems: f.problems, Notes: f.notes}
	all := f.tensors()
	m.StoredTensors = len(all)
	for _, t := range all {
		m.Bytes += t.Bytes
		m.StoredElements += params(t.Shape)
	}
	q := hfconfig.ReadQuantization(f.config, f.quantize, f.modelopt)
	m.Weights = unpack(all, q)
	f.release()
	for i := range m.Weights {
		m.Params += m.Weights[i].Params
	}
	m.BitsPerWeight = perWeight(m.Bytes, m.Params)
	m.Quant = quantOf(q, m.Weights)
	if slices.ContainsFunc(m.Weights, func(w Weight) bool { return w.Guess }) {
		m.Notes = append(m.Notes, "the packing of some weights does not tell their shape; parameters are what the bytes can hold")
	}
	if q != nil && m.Quant.Weights == 0 && slices.ContainsFunc(m.Weights, func(w Weight) bool {
		return len(w.Shape) >= 2 && slices.Contains([]formats.DType{formats.I16, formats.I32, formats.I64, formats.U8, formats.U16, formats.U32}, w.Type)
	}) {
		m.Notes = append(m.Notes, fmt.Sprintf("the packing of the method %.40q is not known: parameters count what is stored", q.Method))
	}
	if len(f.leftOut) > 0 {
		m.Notes = append(m.Notes, fmt.Sprintf("%d more safetensors in the folder are not part of the model: %s", len(f.leftOut), strings.Join(f.leftOut[:min(len(f.leftOut), 3)], ", ")))
	}
	if m.Adapter = adapterOf(f, m); m.Adapter != nil {
		if len(f.files) == 0 {
			m.Notes = append(m.Notes, "the folder has an adapter's configuration and no weights")
		}
		return m, nil
	}
	m.Components, m.Diffusion = checkpointComponents(m.Weights)
	if list := f.config.Architectures(); len(list) > 0 {
		m.Class = list[0]
	}
	m.Type = f.config.String("model_type")
	if v, ok := f.config.Text()["tie_word_embeddings"].(bool); ok {
		m.TieFlag = &v
	}
	m.Context, _ = f.config.Text().Int("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length", "model_max_length")
	m.Tied = isTied(m)
	m.Towers = slices.ContainsFunc([]string{"vision_config", "audio_config", "vit_config", "thinker_config", "visual"}, f.config.Has)
	m.Refused = refusal(m.Class, q, m.Weights)
	f.convert(m)
	if p := f.pickle(); p != "" && len(f.files) == 0 {
		m.Notes = append(m.Notes, p+" is a pickle, which only running it can read: convert it to safetensors")
	}
	switch {
	case m.Defined:
		m.Notes = append(m.Notes, "the folder has a configuration and no weights: they are taken to be those that the class defines, unpacked, without towers and further-token layers")
	case len(f.files) == 0:
		m.Notes = append(m.Notes, "the folder has a configuration and no weights: sizes are not known")
	}
	return m, nil
}

// Multimodal returns the weights of the towers and projectors for images and
// sound, which are no part of Source.
func (m *Model) Multimodal() (weights []Weight) {
	for i := range m.Weights {
		if isMultimodal(m.Weights[i].Name) {
			weights = append(weights, m.Weights[i])
		}
	}
	return weights
}

// perWeight returns bits per parameter.
func perWeight(bytes, params uint64) float64 {
	if params == 0 {
		return 0
	}
	return 8 * float64(bytes) / float64(params)
}

// isTied reports whether the head's weights are the embedding's.
func isTied(m *Model) bool {
	head := false
	for i := range m.Weights {
		switch name := strings.TrimPrefix(m.Weights[i].Name, "model."); {
		case strings.HasSuffix(name, "lm_head.weight"), slices.Contains([]string{"embed_out.weight", "output.weight", "head.weight", "output_layer.weight", "transformer.output_layer.weight", "transformer.ff_out.weight"}, name):
			head = true
		}
	}
	switch {
	case m.TieFlag != nil:
		return *m.TieFlag
	case len(m.Weights) > 0:
		return !head
	}
	return complete(m.Config.Text(), m.Config).Bool("tie_word_embeddings")
}

// quantOf sums up the packed weights.
func quantOf(q *hfconfig.Quantization, weights []Weight) *Quant {
	out := &Quant{}
	kinds := map[string]int{}
	for i := range weights {
		w := &weights[i]
		if w.Packed == "" {
			out.PlainParams += w.Params
			out.PlainBytes += w.Bytes
			if len(w.Shape) >= 2 && len(out.Plain) < 20 {
				out.Plain = append(out.Plain, w.Name)
			}
			continue
		}
		kinds[w.Packed]++
		out.Weights++
		out.Params += w.Params
		out.Bytes += w.Bytes
	}
	if q == nil && out.Weights == 0 {
		return nil
	}
	out.BitsPerWeight = perWeight(out.Bytes, out.Params)
	if q != nil {
		out.Method, out.Format, out.Bits, out.Group = q.Method, q.Format, q.Bits, q.Group
	}
	if out.Method == "" {
		names := slices.Sorted(maps.Keys(kinds))
		slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(kinds[b], kinds[a]) })
		out.Method = strings.Join(names, "+")
	}
	return out
}

// defaultsText has the values that a class of transformers gives to keys its
// config.json leaves out, by model_type; the converter sees them through
// AutoConfig.
//
// Source: transformers src/transformers/models/*/configuration_*.py.
//
//go:embed defaults.json
var defaultsText []byte

var classDefaults = sync.OnceValue(func() hfconfig.Object {
	o, err := hfconfig.Parse(defaultsText, "defaults.json")
	if err != nil {
		panic(err)
	}
	return o
})

// Bounds of what a folder may claim: its layers, and the tensors of the GGUF it
// would become, of which no GGUF that is read has more.
const (
	maxBlocks    = 4096
	maxConverted = 1 << 16
)

// convert makes the GGUF of a language model.
func (f *folder) convert(m *Model) {
	class := classOf(f.config)
	h := f.config.Text()
	if f.mistral {
		class = mistralClass
		if h.Has("moe") {
			class = mistralMoEClass
		}
	}
	if class == "" {
		if class = typeClasses[cmp.Or(h.String("model_type"), m.Type)]; class != "" {
			m.Notes = append(m.Notes, "config.json names no class, which llama.cpp's converter requires; it is taken from model_type")
		}
	}
	if rowOf(class) == nil {
		switch {
		case f.config == nil:
			f.shapesOnly(m)
		case class != "":
			m.Notes = append(m.Notes, fmt.Sprintf("the class %.80q has no rule of conversion to a GGUF", class))
		default:
			f.shapesOnly(m)
		}
		return
	}
	h = complete(h, f.config)
	if len(f.files) == 0 && len(m.Weights) == 0 {
		layers, _ := h.Int(layerKeys...)
		if m.Weights = define(class, h, int(min(layers, maxDefined+1))); m.Weights != nil {
			m.Defined = true
			for i := range m.Weights {
				m.Params += m.Weights[i].Params
				m.Bytes += m.Weights[i].Bytes
			}
		}
	}
	m.convertAs(class, h, f)
}

// layerKeys are the names of the number of layers.
var layerKeys = []string{"n_layers", "num_hidden_layers", "n_layer", "num_layers", "num_transformer_layers"}

// complete adds the values that the classes of config give to keys that its
// hyper-parameters h leave out: the text model's class, then the outer one's.
func complete(h, config hfconfig.Object) hfconfig.Object {
	outer, text := config.String("model_type"), config.TextConfig()
	types := []string{outer}
	if text != nil {
		types = []string{cmp.Or(text.String("model_type"), textTypes[outer]), outer}
	}
	h = h.Merge(nil)
	for _, typ := range types {
		for key, v := range classDefaults().Object(typ) {
			if !hasAny(h, spellings(key)) {
				h[key] = v
			}
		}
	}
	return h
}

// textTypes are the text models that outer classes take when their text_config
// has no model_type.
//
// Source: transformers src/transformers/models/*/configuration_*.py, sub_configs.
var textTypes = map[string]string{
	"aya_vision": "cohere2", "gemma3": "gemma3_text", "gemma3n": "gemma3n_text", "gemma4": "gemma4_text", "glm4v": "glm4v_text", "glm4v_moe": "glm4v_moe_text",
	"idefics3": "llama", "internvl": "qwen2", "lfm2_vl": "lfm2", "llama4": "llama4_text", "llava": "llama", "llava_next": "llama", "llava_onevision": "qwen2",
	"mistral3": "mistral", "qwen2_5_vl": "qwen2_5_vl_text", "qwen2_audio": "qwen2", "qwen2_vl": "qwen2_vl_text", "qwen3_5": "qwen3_5_text", "qwen3_5_moe": "qwen3_5_moe_text",
	"qwen3_vl": "qwen3_vl_text", "qwen3_vl_moe": "qwen3_vl_moe_text", "smolvlm": "llama", "voxtral": "llama",
}

// keySpellings are names that classes take for one another (attribute_map).
var keySpellings = [][]string{
	{"hidden_size", "n_embd", "n_embed", "d_model", "dim"},
	{"num_hidden_layers", "n_layer", "n_layers", "num_layers"},
	{"num_attention_heads", "n_head", "n_heads", "num_heads"},
	{"num_key_value_heads", "n_kv_heads", "n_head_kv", "num_kv_heads"},
	{"max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length"},
	{"intermediate_size", "n_inner", "hidden_dim", "d_ff", "ffn_dim"},
	{"num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"},
	{"num_experts_per_tok", "num_experts_per_token", "moe_k"},
}

// spellings returns the names of a key, itself included.
func spellings(key string) []string {
	for _, names := range keySpellings {
		if slices.Contains(names, key) {
			return names
		}
	}
	return []string{key}
}

// hasAny reports whether one of the keys is present; null is a value.
func hasAny(o hfconfig.Object, keys []string) bool {
	return slices.ContainsFunc(keys, func(k string) bool { _, ok := o[k]; return ok })
}

// classOf returns the class that the converter goes by: that of the text model,
// but for a few whose outer class decides.
//
// Source: conversion/base.py@v0.5.0, get_model_architecture.
func classOf(config hfconfig.Object) string {
	class := ""
	if ssm := config.Object("ssm_cfg"); ssm != nil {
		class = cmp.Or(ssm.String("layer"), "Mamba") + "ForCausalLM"
	}
	if list := config.Architectures(); len(list) > 0 {
		class = list[0]
	}
	switch class {
	case "StepVLForConditionalGeneration", "Sarashina2VisionForCausalLM", "Exaone4_5_ForConditionalGeneration", "Step3p7ForConditionalGeneration", "KimiK3ForConditionalGeneration":
		return class
	}
	if list := config.TextConfig().Architectures(); len(list) > 0 {
		class = list[0]
	}
	return class
}

// typeClasses are the usual classes of common model types.
var typeClasses = map[string]string{
	"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "mixtral": "MixtralForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen2_moe": "Qwen2MoeForCausalLM",
	"qwen3": "Qwen3ForCausalLM", "qwen3_moe": "Qwen3MoeForCausalLM", "qwen3_next": "Qwen3NextForCausalLM", "qwen3_5": "Qwen3_5ForCausalLM", "qwen3_5_moe": "Qwen3_5MoeForCausalLM",
	"qwen2_vl": "Qwen2VLForConditionalGeneration", "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration", "gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM",
	"gemma3": "Gemma3ForConditionalGeneration", "gemma3_text": "Gemma3ForCausalLM", "gemma3n": "Gemma3nForConditionalGeneration", "phi": "PhiForCausalLM", "phi3": "Phi3ForCausalLM",
	"phimoe": "PhiMoEForCausalLM", "gpt_oss": "GptOssForCausalLM", "deepseek_v2": "DeepseekV2ForCausalLM", "deepseek_v3": "DeepseekV3ForCausalLM", "kimi_k2": "DeepseekV3ForCausalLM",
	"granite": "GraniteForCausalLM", "granitemoe": "GraniteMoeForCausalLM", "granitemoehybrid": "GraniteMoeHybridForCausalLM", "jamba": "JambaForCausalLM", "mamba": "MambaForCausalLM",
	"mamba2": "Mamba2ForCausalLM", "falcon": "FalconForCausalLM", "falcon_mamba": "FalconMambaForCausalLM", "falcon_h1": "FalconH1ForCausalLM", "lfm2": "Lfm2ForCausalLM",
	"nemotron_h": "NemotronHForCausalLM", "bert": "BertModel", "roberta": "RobertaModel", "xlm-roberta": "XLMRobertaModel", "modernbert": "ModernBertModel", "t5": "T5ForConditionalGeneration",
	"gpt2": "GPT2LMHeadModel", "bloom": "BloomForCausalLM", "gpt_neox": "GPTNeoXForCausalLM", "mpt": "MPTForCausalLM", "starcoder2": "Starcoder2ForCausalLM", "stablelm": "StableLmForCausalLM",
	"olmo2": "Olmo2ForCausalLM", "olmoe": "OlmoeForCausalLM", "glm4": "Glm4ForCausalLM", "glm4_moe": "Glm4MoeForCausalLM", "cohere": "CohereForCausalLM", "cohere2": "Cohere2ForCausalLM",
	"smollm3": "SmolLM3ForCausalLM", "exaone4": "Exaone4ForCausalLM", "minimax_m2": "MiniMaxM2ForCausalLM", "kimi_linear": "KimiLinearForCausalLM", "llama4_text": "Llama4ForCausalLM", "dbrx": "DbrxForCausalLM",
}

// convertAs makes the GGUF of a class with complete hyper-parameters.
func (m *Model) convertAs(class string, h hfconfig.Object, f *folder) {
	r := rowOf(class)
	c := &converter{
		row: r, class: class, arch: r.arch, h: h, meta: meta{}, pooling: f.poolingType(), stacks: map[string]*stack{}, scratch: map[string]int{}, out: formats.F16,
		fields: map[string]string{}, made: map[string][]string{},
	}
	c.weights = func(yield func(string) bool) {
		for i := range m.Weights {
			if !yield(m.Weights[i].Name) {
				return
			}
		}
	}
	field, claimed := c.first(layerKeys)
	layers, ok := hfconfig.AsInt(claimed)
	if claimed == nil {
		layers, ok = int64(countLayers(m.Weights)), true
	}
	if !ok || layers < 0 || layers > maxBlocks {
		c.wrong(field, claimed, fmt.Sprintf("a whole number of at most %d", maxBlocks))
		m.Fault = c.faultIn(f)
		return
	}
	c.layers, c.blocks = int(layers), int(layers)
	c.rope = ropeParameters(c.h)
	if f.has("tokenizer.json") && !f.has("tokenizer.model") {
		c.scratch["tokens"] = f.countTokens()
	}
	if r.prepare != nil {
		r.prepare(c)
	}
	if c.blocks < 0 || c.blocks > maxBlocks {
		c.wrong(field, c.blocks, fmt.Sprintf("at most %d layers, those that predict further tokens included", maxBlocks))
		m.Fault = c.faultIn(f)
		return
	}
	c.names = nameTables()[c.arch]
	c.out = outType(m.Weights)
	c.convert(m.Weights)
	if len(c.tensors)+len(c.stacks) > maxConverted {
		m.Notes = append(m.Notes, fmt.Sprintf("the weights would make a GGUF of more than %d tensors; its figures are left out", maxConverted))
		return
	}
	c.meta["general.architecture"] = c.arch
	c.fresh = nil
	if !r.own {
		c.base()
	}
	c.apply(r.set)
	if r.params != nil {
		r.params(c)
	}
	if key := c.arch + ".context_length"; c.meta[key] == nil {
		// Not known is not nothing: the rest of the model can still be said.
		c.meta[key] = int64(0)
		if f.config != nil {
			c.note("the configuration does not say the trained context, without which llama.cpp does not load the GGUF")
		}
	}
	m.Fault = c.faultIn(f)
	m.fields, m.parts = map[string]string{}, map[string]string{}
	for key, field := range c.fields {
		m.fields[key] = f.field(field)
	}
	for key := range c.made {
		m.parts[key] = f.field(c.parts(key)...)
	}
	c.finish(m)
}

// field returns the file and the places in it that hyper-parameters are read
// from, "" when they are from none.
func (f *folder) field(names ...string) string {
	if f.config == nil || len(names) == 0 {
		return ""
	}
	file, place := "config.json: ", f.config.TextField
	if f.mistral {
		file, place = "params.json: ", hfconfig.MistralName
	}
	var places []string
	for _, name := range names {
		places = append(places, place(name))
	}
	return file + strings.Join(places, ", ")
}

// faultIn returns the first fault of the configuration, with its place.
func (c *converter) faultIn(f *folder) *FieldError {
	if c.fault == nil {
		return nil
	}
	return &FieldError{cmp.Or(f.field(c.fault.field), c.fault.field), c.fault.why}
}

// finish hands the GGUF over.
func (c *converter) finish(m *Model) {
	m.Arch = c.arch
	if c.unknown > 1 {
		c.note("%d tensors have no name in a GGUF; they are counted as they are", c.unknown)
	}
	vocabulary := c.int("vocab_size", "padded_vocab_size")
	for i := range c.tensors {
		if t := &c.tensors[i]; t.Name == "token_embd.weight" && len(t.Shape) == 2 {
			if vocabulary == 0 || uint64(vocabulary) > t.Shape[1] || c.scratch["tokens"] > 0 && strings.HasPrefix(c.arch, "gemma3") {
				vocabulary = int64(t.Shape[1])
			}
		}
	}
	if vocabulary > 0 {
		c.meta["tokenizer.ggml.tokens"] = model.Len(vocabulary)
	}
	c.meta["general.file_type"] = c.fileType()
	m.Source, m.Held = &model.Source{Meta: c.meta, Tensors: c.tensors}, c.held
	m.Notes = append(m.Notes, c.notes...)
}

// fileType returns the number of the mix of types.
//
// Source: gguf-py/gguf/constants.py@v0.5.0, LlamaFileType.
func (c *converter) fileType() int64 {
	const f16, bf16, mxfp4, nvfp4 = 1, 32, 38, 39
	for i := range c.tensors {
		switch c.tensors[i].Type {
		case formats.NVFP4:
			return nvfp4
		case formats.MXFP4:
			return mxfp4
		}
	}
	if c.out == formats.BF16 {
		return bf16
	}
	return f16
}

// outType returns what matrices become under --outtype auto: the type of the
// first that is BF16 or F16.
//
// Source: conversion/base.py@v0.5.0, ModelBase.__init__.
func outType(weights []Weight) formats.DType {
	for i := range weights {
		if w := &weights[i]; len(w.Shape) >= 2 && (w.Type == formats.BF16 || w.Type == formats.F16) {
			return w.Type
		}
	}
	return formats.F16
}

// countLayers returns one more than the highest layer number in the names.
func countLayers(weights []Weight) int {
	n := 0
	for i := range weights {
		for _, mark := range []string{"layers.", "h.", "blocks.", "layer.", "block."} {
			name := weights[i].Name
			at := strings.Index(name, mark)
			if at < 0 || at > 0 && name[at-1] != '.' {
				continue
			}
			if il := layerOf(strings.SplitN(name[at+len(mark):], ".", 2)[0]); il >= 0 && il < maxBlocks {
				n = max(n, il+1)
			}
		}
	}
	return n
}

// poolingType returns GGUF's number for the pooling in the folder that
// modules.json names, -1 without one.
func (f *folder) poolingType() int64 {
	const mean, cls, last = 1, 2, 3
	file, size, err := formats.Open(f.at("modules.json"))
	if err != nil {
		return -1
	}
	defer file.Close()
	modules, err := hfconfig.ReadList(file, size, "modules.json")
	if err != nil {
		return -1
	}
	for _, v := range modules {
		o, _ := v.(hfconfig.Object)
		sub := o.String("path")
		if !strings.HasSuffix(o.String("type"), "Pooling") || !filepath.IsLocal(sub) {
			continue
		}
		file, size, err := formats.Open(filepath.Join(f.at(sub), "config.json"))
		if err != nil {
			return -1
		}
		defer file.Close()
		p, err := hfconfig.Read(file, size, "config.json")
		mode := p.String("pooling_mode")
		switch {
		case err != nil:
		case p.Bool("pooling_mode_mean_tokens") || mode == "mean":
			return mean
		case p.Bool("pooling_mode_cls_token") || mode == "cls":
			return cls
		case p.Bool("pooling_mode_lasttoken") || mode == "lasttoken":
			return last
		}
		return -1
	}
	return -1
}

// countTokens returns the tokens of tokenizer.json, 0 when it cannot be read.
func (f *folder) countTokens() int {
	file, size, err := formats.Open(f.at("tokenizer.json"))
	if err != nil {
		return 0
	}
	defer file.Close()
	return hfconfig.CountTokens(file, size)
}
