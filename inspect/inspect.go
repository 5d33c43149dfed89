// Package inspect opens a model, whatever files it is in: one GGUF or all its
// shards, a safetensors file, a Hugging Face folder. It reads headers only; no
// weights.
//
// Stability: before version 1.0 of weigh a release may change what this package
// exports; the changelog names every such change.
package inspect

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"weigh/formats"
	"weigh/formats/gguf"
	"weigh/inspect/arch"
	"weigh/inspect/hf"
	"weigh/inspect/model"
)

// The formats that Open knows.
const (
	GGUF        = "gguf"
	Safetensors = "safetensors"
)

// A File is one file of a model.
type File struct {
	Path  string
	Bytes int64
}

// An Inspection is an opened model. Exactly one of GGUF and HF is set.
type Inspection struct {
	Path   string // as given
	Format string // GGUF or Safetensors
	Files  []File // with weights, in the order they are read
	GGUF   *gguf.Set
	HF     *hf.Model

	// Model is what estimates start from. It is nil with a Reason when the
	// files are no language model that llama.cpp could run.
	Model  *model.Model
	Reason error

	open []*os.File
}

// ErrNotAFile is the error for what is neither a regular file nor a folder.
var ErrNotAFile = errors.New("neither a file nor a folder")

// Open opens the model at path: a GGUF file (any shard of a split one), a
// safetensors file or index, a configuration, or a folder with one of these.
// Close it when its
// metadata is no longer wanted.
func Open(path string) (*Inspection, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, plainPathError(err)
	case info.IsDir():
		model, err := FolderModel(path)
		switch {
		case err != nil:
			return nil, err
		case model == path:
			return openHF(path)
		}
		return Open(model)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: %w (%v)", path, ErrNotAFile, info.Mode().Type())
	}
	return openFile(path)
}

// Close closes the model's files.
func (m *Inspection) Close() error {
	var errs []error
	for _, f := range m.open {
		errs = append(errs, f.Close())
	}
	m.open = nil
	return errors.Join(errs...)
}

// FileBytes returns the bytes of all files with weights.
func (m *Inspection) FileBytes() (n uint64) {
	for _, f := range m.Files {
		n += uint64(max(f.Bytes, 0))
	}
	return n
}

// openFile opens a file by what is in it, not by its name.
func openFile(path string) (*Inspection, error) {
	switch name := strings.ToLower(path); {
	case strings.HasSuffix(name, ".safetensors"), strings.HasSuffix(name, ".index.json"):
		return openHF(path)
	case strings.HasSuffix(name, ".json"):
		return openHF(filepath.Dir(path)) // a configuration stands for its folder
	}
	f, size, err := formats.Open(path)
	if err != nil {
		return nil, plainPathError(err)
	}
	defer f.Close()
	head := make([]byte, 8)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	head = head[:n]
	if p := formats.ReadLFSPointer(f, size); p != nil {
		return nil, fmt.Errorf("%s: %w", path, p)
	}
	if kind := foreign(head); kind != "" {
		return nil, fmt.Errorf("%s: %s at byte 0, want \"GGUF\" or a safetensors header", path, kind)
	}
	if len(head) == 8 && string(head[:4]) != "GGUF" && looksLikeSafetensors(f, size) {
		return openHF(path)
	}
	return openGGUF(path)
}

// looksLikeSafetensors reports whether the file begins as safetensors do: the
// length of a header that fits, then a brace.
func looksLikeSafetensors(f io.ReaderAt, size int64) bool {
	b := make([]byte, 9)
	if n, _ := f.ReadAt(b, 0); n < 9 {
		return false
	}
	var n uint64
	for i := range 8 {
		n |= uint64(b[i]) << (8 * i)
	}
	return n < uint64(size) && (b[8] == '{' || b[8] == ' ')
}

// foreign names the formats that people take for a model file.
func foreign(head []byte) string {
	has := func(s string) bool { return strings.HasPrefix(string(head), s) }
	switch {
	case has("PK\x03\x04"):
		return "a zip archive (a PyTorch checkpoint is one)"
	case len(head) > 1 && head[0] == 0x80 && head[1] <= 5:
		return "a Python pickle (a PyTorch checkpoint)"
	case has("ggjt"), has("tjgg"), has("lmgg"), has("fmgg"):
		return "a GGML file from before GGUF"
	case has("\x89HDF"):
		return "an HDF5 file"
	case has("<!DOC"), has("<html"), has("<HTML"):
		return "an HTML page"
	}
	return ""
}

func openGGUF(path string) (*Inspection, error) {
	m := &Inspection{Path: path, Format: GGUF}
	set, err := gguf.ReadSet(m.opener, path)
	if err != nil {
		m.Close()
		return nil, err
	}
	m.GGUF = set
	for i, f := range set.Files {
		m.Files = append(m.Files, File{set.Names[i], f.Size})
	}
	m.Model, m.Reason = Load(set)
	if m.Model != nil && m.Model.Name == "" {
		m.Model.Name = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	}
	return m, nil
}

// Load returns the model of a GGUF that is read already, from a file or not. Its
// name is empty where the GGUF gives none.
func Load(set *gguf.Set) (*model.Model, error) {
	return arch.Load(model.Source{Meta: ggufMeta{set}, Tensors: tensorsOf(set)})
}

// tensorsOf returns a GGUF's tensors as estimates take them.
func tensorsOf(set *gguf.Set) []model.Tensor {
	n := 0
	for _, f := range set.Files {
		n += len(f.Tensors)
	}
	all := make([]model.Tensor, 0, n)
	for i, t := range set.Tensors() {
		all = append(all, model.Tensor{
			Name: t.Name, Type: t.Type, Shape: t.Shape, Bytes: t.Bytes,
			Offset: set.Files[i].DataOffset + int64(t.Offset), File: i,
		})
	}
	return all
}

// Override reads the model again with values of its metadata in place of the
// file's (int64, float64, bool or string), and returns the keys that keep the
// file's: llama.cpp heeds neither a value of another type nor one for an array.
//
// Source: src/llama-model-loader.cpp@v0.5.0, GGUFMeta::GKV::try_override.
func (m *Inspection) Override(values map[string]any) (kept []string) {
	if m.GGUF == nil || len(values) == 0 {
		return nil
	}
	file := ggufMeta{m.GGUF}
	o := overridden{file, map[string]any{}}
	for key, v := range values {
		if was, ok := file.Lookup(key); ok && !sameKind(was, v) {
			kept = append(kept, key)
			continue
		}
		o.values[key] = v
	}
	slices.Sort(kept)
	name := ""
	if m.Model != nil {
		name = m.Model.Name
	}
	m.Model, m.Reason = arch.Load(model.Source{Meta: o, Tensors: tensorsOf(m.GGUF)})
	if m.Model != nil && m.Model.Name == "" {
		m.Model.Name = name
	}
	return kept
}

func sameKind(file, value any) bool {
	if _, ok := file.(uint64); ok {
		file = int64(0)
	}
	return reflect.TypeOf(file) == reflect.TypeOf(value)
}

// overridden is metadata some of whose values are others than the file's.
type overridden struct {
	ggufMeta
	values map[string]any
}

func (o overridden) Lookup(key string) (any, bool) {
	if v, ok := o.values[key]; ok {
		return v, true
	}
	return o.ggufMeta.Lookup(key)
}

// opener opens a shard, which may be a link but not a pipe or a device.
func (m *Inspection) opener(name string) (io.ReaderAt, int64, error) {
	f, size, err := formats.Open(name)
	if err != nil {
		return nil, 0, bareError(err)
	}
	m.open = append(m.open, f)
	return f, size, nil
}

// ggufMeta is a GGUF's metadata as model.Meta.
type ggufMeta struct{ set *gguf.Set }

func (g ggufMeta) Lookup(key string) (any, bool) {
	v, ok := g.set.Lookup(key)
	if n, is := v.(gguf.Len); is {
		return model.Len(n), ok
	}
	return v, ok
}

func openHF(path string) (*Inspection, error) {
	h, err := hf.Open(path)
	if err != nil {
		return nil, plainPathError(err)
	}
	return OfHF(path, h), nil
}

// OfHF is Open for a model of Hugging Face at path that is read already.
func OfHF(path string, h *hf.Model) *Inspection {
	m := &Inspection{Path: path, Format: Safetensors, HF: h}
	dir := path
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		dir = filepath.Dir(path)
	}
	for _, f := range h.Files {
		m.Files = append(m.Files, File{filepath.Join(dir, f.Name), f.Bytes})
	}
	switch {
	case h.Fault != nil:
		m.Reason = h.Fault
	case h.Source != nil:
		m.Model, m.Reason = arch.Load(*h.Source)
		m.Reason = inConfig(h, m.Reason)
		if m.Model != nil && m.Model.Name == "" {
			m.Model.Name = filepath.Base(filepath.Clean(path))
		}
	case h.Adapter != nil:
		m.Reason = errors.New("an adapter, no model of its own")
	case h.Diffusion:
		m.Reason = errors.New("a diffusion model, no language model")
	case h.Class != "" || h.Type != "":
		m.Reason = fmt.Errorf("llama.cpp has no architecture for %s", cmpOr(h.Class, h.Type))
	default:
		m.Reason = errors.New("no config.json says what the tensors are of")
	}
	return m
}

// inConfig says of an error about a key of the GGUF that a configuration would
// become which field of the configuration it is about.
func inConfig(h *hf.Model, err error) error {
	var fault *arch.KeyError
	if !errors.As(err, &fault) {
		return err
	}
	if field := h.Field(fault.Key); field != "" {
		return &hf.FieldError{Field: field, Why: fault.Why}
	}
	if parts := h.Parts(fault.Key); parts != "" {
		return &hf.FieldError{Field: parts, Why: "the " + fault.Key + " made of it: " + fault.Why}
	}
	return fmt.Errorf("the GGUF it would become: %w", err)
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// FolderModel returns the path of the one model of a folder: of a GGUF, or of the
// folder itself for one of Hugging Face.
func FolderModel(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", plainPathError(err)
	}
	var models []string
	st := false
	for _, e := range entries {
		name := e.Name()
		switch {
		case e.IsDir():
		case strings.HasSuffix(name, ".safetensors"), strings.HasSuffix(name, ".safetensors.index.json"), slices.Contains(hf.SideFiles, name):
			st = true
		case strings.HasSuffix(strings.ToLower(name), ".gguf") && firstShard(name) && !strings.HasPrefix(name, "mmproj"):
			models = append(models, name)
		}
	}
	switch {
	case len(models) == 1:
		return filepath.Join(dir, models[0]), nil
	case len(models) > 1:
		slices.Sort(models)
		return "", &SeveralModelsError{dir, models}
	case st:
		return dir, nil
	}
	return "", fmt.Errorf("%s: no model here: no .gguf, no .safetensors, no config.json", dir)
}

// firstShard reports whether a file's name is no later shard of a split model.
func firstShard(name string) bool {
	base := strings.TrimSuffix(strings.ToLower(name), ".gguf")
	i := strings.LastIndex(base, "-of-")
	if i < 5 || len(base) != i+9 {
		return true
	}
	return base[i-5:i] == "00001"
}

// A SeveralModelsError says that a folder holds more than one model.
type SeveralModelsError struct {
	Dir   string
	Names []string
}

func (e *SeveralModelsError) Error() string {
	return fmt.Sprintf("%s: %d models here: name one of %s", e.Dir, len(e.Names), strings.Join(e.Names[:min(len(e.Names), 6)], ", "))
}

// plainPathError is err without the system call's name.
func plainPathError(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("%s: %w", p.Path, p.Err)
	}
	return err
}

// bareError is err without the path, which the caller adds.
func bareError(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// Weightless reports whether no weights are here: there is a configuration
// alone, or a vocabulary.
func (m *Inspection) Weightless() bool { return len(m.Files) == 0 }

// Defined reports whether the weights of a Weightless model are known all the
// same, by what its class defines.
func (m *Inspection) Defined() bool { return m.HF != nil && m.HF.Defined }

// Parameters returns the logical weights: packed elements count as what they
// encode.
func (m *Inspection) Parameters() (n uint64) {
	if m.HF != nil {
		return m.HF.Params
	}
	for _, t := range m.GGUF.Tensors() {
		e, _ := formats.Elements(t.Shape)
		n += e
	}
	return n
}

// TensorBytes returns the stored bytes of all tensors, without padding.
func (m *Inspection) TensorBytes() (n uint64) {
	if m.HF != nil {
		return m.HF.Bytes
	}
	for _, t := range m.GGUF.Tensors() {
		n += t.Bytes
	}
	return n
}
