package check

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	err := each(ctx, ins, len(ins.Files), func(ctx context.Context, files []*os.File, i int) error {
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
	err := each(ctx, ins, len(pieces), func(ctx context.Context, files []*os.File, i int) error {
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

// The longest manifest that is read, and the longest of its entries: names and
// shapes of real ones take a few hundred bytes.
const (
	maxManifest = 64 << 20
	maxEntry    = 128 << 10
)

// ReadManifest reads a manifest. What it holds is bounded by its length: an
// entry without a whole hash is refused when it is met.
func ReadManifest(path string) (*Manifest, error) {
	f, size, err := openRegular(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	if size > maxManifest {
		return nil, fmt.Errorf("%s: %d bytes are over the limit of %d for a manifest", path, size, maxManifest)
	}
	in := &limited{src: io.LimitReader(f, maxManifest)}
	r := manifestReader{json.NewDecoder(in), in}
	m, err := r.manifest()
	if err != nil {
		return nil, fmt.Errorf("%s: manifest: at byte %d: %w", path, r.InputOffset(), err)
	}
	return m, nil
}

type manifestReader struct {
	*json.Decoder
	in *limited
}

// more reports whether an object or a list goes on, and lets the decoder read the
// next part of it, which it holds as a whole.
func (r manifestReader) more() bool {
	r.in.until = r.InputOffset() + maxEntry
	return r.More()
}

// A limited reader reads up to an offset, which moves.
type limited struct {
	src       io.Reader
	at, until int64
}

func (l *limited) Read(b []byte) (int, error) {
	if l.at >= l.until {
		return 0, fmt.Errorf("an entry is over the limit of %d bytes", maxEntry)
	}
	n, err := l.src.Read(b[:min(int64(len(b)), l.until-l.at)])
	l.at += int64(n)
	return n, err
}

func (r manifestReader) manifest() (*Manifest, error) {
	m := &Manifest{}
	r.in.until = maxEntry
	if err := r.delim('{'); err != nil {
		return nil, err
	}
	for r.more() {
		key, err := r.Token()
		if err != nil {
			return nil, err
		}
		switch key {
		case "schema":
			err = r.Decode(&m.Schema)
		case "files":
			m.Files, err = entries(r, func(f *FileHash) (name, hash string) { return f.Name, f.SHA256 })
		case "tensors":
			m.Tensors, err = entries(r, func(t *ManifestTensor) (name, hash string) { return t.Name, t.SHA256 })
		default:
			err = fmt.Errorf("%.40q is no field of a manifest", key)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := r.delim('}'); err != nil {
		return nil, err
	}
	if _, err := r.Token(); err != io.EOF {
		return nil, errors.New("more text follows the manifest")
	}
	if m.Schema != 1 {
		return nil, fmt.Errorf("schema %d, want 1", m.Schema)
	}
	return m, nil
}

func (r manifestReader) delim(want json.Delim) error {
	got, err := r.Token()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err == nil && got != want {
		err = fmt.Errorf("%.40q, want %q", fmt.Sprint(got), want.String())
	}
	return err
}

// entries reads a list of hashes.
func entries[T any](r manifestReader, of func(*T) (name, hash string)) (list []T, err error) {
	if err := r.delim('['); err != nil {
		return nil, err
	}
	for r.more() {
		var entry T
		if err := r.Decode(&entry); err != nil {
			return nil, err
		}
		name, hash := of(&entry)
		if sum, err := hex.DecodeString(hash); err != nil || len(sum) != sha256.Size {
			return nil, fmt.Errorf("%.200q has the sha256 %.80q, want %d hexadecimal digits", name, hash, 2*sha256.Size)
		}
		list = append(list, entry)
	}
	return list, r.delim(']')
}

// Compare lists how the hashes of a model differ from a manifest of it: every
// tensor, and the files where the manifest has them.
func (m *Manifest) Compare(now *Manifest) (problems []Problem) {
	add := func(code, field, format string, args ...any) {
		problems = append(problems, Problem{formats.Problem{Severity: formats.SeverityError, Code: code, Field: field, Offset: -1, Message: fmt.Sprintf(format, args...)}, ""})
	}
	want := map[string][]ManifestTensor{} // by name: two shards may hold one of the same
	for _, t := range m.Tensors {
		want[t.Name] = append(want[t.Name], t)
	}
	for _, t := range now.Tensors {
		left := want[t.Name]
		if len(left) == 0 {
			add("not-in-manifest", t.Name, "the manifest has no such tensor")
			continue
		}
		w := left[0]
		want[t.Name] = left[1:]
		switch {
		case w.Type != t.Type || !slices.Equal(w.Shape, t.Shape):
			add("manifest-mismatch", t.Name, "%s %v, the manifest has %s %v", t.Type, t.Shape, w.Type, w.Shape)
		case !strings.EqualFold(w.SHA256, t.SHA256):
			add("manifest-mismatch", t.Name, "sha256 %s, the manifest has %s", t.SHA256, w.SHA256)
		}
	}
	for _, t := range m.Tensors {
		if len(want[t.Name]) > 0 {
			want[t.Name] = want[t.Name][1:]
			add("missing-tensor", t.Name, "the manifest has it, the model has not")
		}
	}
	hashes, named := map[string]bool{}, map[string]string{}
	for _, f := range m.Files {
		hashes[strings.ToLower(f.SHA256)], named[f.Name] = true, f.SHA256
	}
	for _, f := range now.Files {
		switch w, ok := named[f.Name]; {
		case hashes[f.SHA256]: // under this name or another: it may have been renamed
		case ok:
			add("manifest-mismatch", f.Name, "sha256 %s, the manifest has %s", f.SHA256, w)
		default:
			add("not-in-manifest", f.Name, "the manifest has no file of this name or content")
		}
	}
	return problems
}
