package check

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"weigh/formats"
	"weigh/inspect"
)

// A Manifest is the hashes of a model's files and of each tensor's data.
type Manifest struct {
	Schema  int              `json:"schema"`
	Files   []FileHash       `json:"files"`
	Tensors []ManifestTensor `json:"tensors"`
}

// A FileHash is the hash of a whole file.
type FileHash struct {
	Name   string `json:"name"` // without its folder
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// A ManifestTensor is the hash of a tensor's data.
type ManifestTensor struct {
	Name   string   `json:"name"`
	Type   string   `json:"type"`
	Shape  []uint64 `json:"shape"`
	Bytes  uint64   `json:"bytes"`
	SHA256 string   `json:"sha256"`
}

// Hash hashes the model's files. read, which may be nil, counts the bytes.
func Hash(ctx context.Context, ins *inspect.Inspection, read *atomic.Uint64) ([]FileHash, error) {
	hashes := make([]FileHash, len(ins.Files))
	err := each(ctx, ins, len(ins.Files), func(files []*os.File, i int) error {
		info, err := files[i].Stat()
		if err != nil {
			return err
		}
		h := sha256.New()
		p := Piece{Bytes: uint64(info.Size())}
		if err := chunks(ctx, files[i], &p, chunkBytes, read, func(b []byte, _ int64) { h.Write(b) }); err != nil {
			return err
		}
		hashes[i] = FileHash{filepath.Base(ins.Files[i].Path), info.Size(), hex.EncodeToString(h.Sum(nil))}
		return nil
	})
	return hashes, err
}

// HashTensors hashes each tensor's data, on all cores. read, which may be nil,
// counts the bytes.
func HashTensors(ctx context.Context, ins *inspect.Inspection, read *atomic.Uint64) ([]ManifestTensor, error) {
	pieces := slices.Collect(Pieces(ins))
	hashes := make([]ManifestTensor, len(pieces))
	err := each(ctx, ins, len(pieces), func(files []*os.File, i int) error {
		p := &pieces[i]
		h := sha256.New()
		if err := chunks(ctx, files[p.File], p, chunkBytes, read, func(b []byte, _ int64) { h.Write(b) }); err != nil {
			return err
		}
		hashes[i] = ManifestTensor{p.Name, p.Type.String(), slices.Clone(p.Shape), p.Bytes, hex.EncodeToString(h.Sum(nil))}
		return nil
	})
	return hashes, err
}

// maxManifest is the longest manifest that is read.
const maxManifest = 64 << 20

// ReadManifest reads a manifest.
func ReadManifest(path string) (*Manifest, error) {
	f, size, err := openRegular(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	if size > maxManifest {
		return nil, fmt.Errorf("%s: %d bytes are over the limit of %d for a manifest", path, size, maxManifest)
	}
	m := &Manifest{}
	if err := json.NewDecoder(io.LimitReader(f, maxManifest)).Decode(m); err != nil {
		return nil, fmt.Errorf("%s: manifest: %w", path, err)
	}
	if m.Schema != 1 {
		return nil, fmt.Errorf("%s: manifest: schema %d, want 1", path, m.Schema)
	}
	return m, nil
}

// Compare lists how the hashes of a model differ from a manifest of it: every
// tensor, and the files where the manifest has them.
func (m *Manifest) Compare(now *Manifest) (problems []Problem) {
	add := func(code, field, format string, args ...any) {
		problems = append(problems, Problem{formats.Problem{Severity: formats.SeverityError, Code: code, Field: field, Offset: -1, Message: fmt.Sprintf(format, args...)}, ""})
	}
	want := map[string]ManifestTensor{}
	for _, t := range m.Tensors {
		want[t.Name] = t
	}
	for _, t := range now.Tensors {
		w, ok := want[t.Name]
		delete(want, t.Name)
		switch {
		case !ok:
			add("not-in-manifest", t.Name, "the manifest has no such tensor")
		case w.Type != t.Type || !slices.Equal(w.Shape, t.Shape):
			add("manifest-mismatch", t.Name, "%s %v, the manifest has %s %v", t.Type, t.Shape, w.Type, w.Shape)
		case w.SHA256 != t.SHA256:
			add("manifest-mismatch", t.Name, "sha256 %s, the manifest has %s", t.SHA256, w.SHA256)
		}
	}
	for _, t := range m.Tensors {
		if _, left := want[t.Name]; left {
			add("missing-tensor", t.Name, "the manifest has it, the model has not")
		}
	}
	files, hashes := map[string]FileHash{}, map[string]bool{}
	for _, f := range m.Files {
		files[f.Name], hashes[f.SHA256] = f, true
	}
	for _, f := range now.Files {
		switch w, ok := files[f.Name]; {
		case ok && w.SHA256 != f.SHA256:
			add("manifest-mismatch", f.Name, "sha256 %s, the manifest has %s", f.SHA256, w.SHA256)
		case !ok && !hashes[f.SHA256]: // a file may have been renamed
			add("not-in-manifest", f.Name, "the manifest has no file of this name or content")
		}
	}
	return problems
}
