package store

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ollamaDirs are where Ollama keeps its models: the user's and, on Linux, those
// of the service.
func ollamaDirs(e Env) []string {
	if dir := e.Get("OLLAMA_MODELS"); dir != "" {
		return []string{dir}
	}
	dirs := under(e.Home, ".ollama/models")
	if e.OS == "linux" {
		dirs = append(dirs, "/usr/share/ollama/.ollama/models", "/var/lib/ollama/.ollama/models", "/var/lib/ollama/models")
	}
	return dirs
}

// Limits of a manifest.
const (
	maxManifest = 4 << 20 // bytes
	maxPart     = 4 << 10 // bytes of the state of one part of a download
)

// A manifest lists the layers of a model, each a blob.
type manifest struct {
	Layers []layer `json:"layers"`
}

type layer struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"` // sha256:HEX
	Size      int64  `json:"size"`
}

// parseManifest decodes a manifest and refuses digests that are none, so that
// they can be parts of paths.
func parseManifest(b []byte) (*manifest, error) {
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("the manifest cannot be read: %w", err)
	}
	if len(m.Layers) == 0 {
		return nil, fmt.Errorf("the manifest lists no layers")
	}
	for i, l := range m.Layers {
		if sha256Of(l.Digest) == "" {
			return nil, fmt.Errorf("the manifest's layer %d has no SHA-256 digest: %q", i, l.Digest)
		}
		if l.Size < 0 {
			return nil, fmt.Errorf("the manifest's layer %d has a size of %d", i, l.Size)
		}
	}
	return &m, nil
}

// sha256Of returns the hexadecimal digits of a digest sha256:HEX or
// sha256-HEX, "" when it is none.
func sha256Of(digest string) string {
	hex, ok := strings.CutPrefix(digest, "sha256:")
	if !ok {
		hex, ok = strings.CutPrefix(digest, "sha256-")
	}
	if !ok || !isSHA256(hex) {
		return ""
	}
	return hex
}

func isSHA256(hex string) bool {
	return len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}

// ollama lists a folder with manifests and blobs: one model for each manifest,
// and the downloads that have no manifest yet.
func (w *walker) ollama(dir string) {
	root := filepath.Join(dir, "manifests")
	filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case w.ctx.Err() != nil:
			return w.ctx.Err()
		case err != nil:
			w.errs = append(w.errs, err)
			return nil
		case d.IsDir():
			if rel, err := filepath.Rel(root, path); err == nil && strings.Count(filepath.ToSlash(rel), "/") > 6 {
				return fs.SkipDir
			}
			return nil
		}
		w.tick(1)
		rel, err := filepath.Rel(root, path)
		if name := ollamaName(filepath.ToSlash(rel)); err == nil && name != "" {
			m := readOllama(path, filepath.Join(dir, "blobs"))
			m.Kind, m.Name = Ollama, name
			if m.Fault == nil {
				m.Ref = "ollama:" + name
			}
			w.models = append(w.models, m)
		}
		return nil
	})
	w.ollamaParts(filepath.Join(dir, "blobs"))
}

// ollamaName returns what Ollama calls the model of the manifest at
// HOST/NAMESPACE/MODEL/TAG, without the parts that are the default; "" for a
// file elsewhere.
func ollamaName(rel string) string {
	p := strings.Split(rel, "/")
	if len(p) < 4 || strings.HasPrefix(p[len(p)-1], ".") {
		return ""
	}
	host, space, model, tag := p[0], strings.Join(p[1:len(p)-2], "/"), p[len(p)-2], p[len(p)-1]
	switch {
	case host != "registry.ollama.ai":
		return host + "/" + space + "/" + model + ":" + tag
	case space != "library":
		return space + "/" + model + ":" + tag
	}
	return model + ":" + tag
}

// readOllama follows a manifest to the blobs of its model.
func readOllama(path, blobs string) (m Model) {
	b, err := readSmall(path, maxManifest)
	if err != nil {
		m.Fault = err
		return m
	}
	list, err := parseManifest(b)
	if err != nil {
		m.Fault = err
		return m
	}
	tensors := 0
	for _, l := range list.Layers {
		kind, _ := strings.CutPrefix(l.MediaType, "application/vnd.ollama.image.")
		kind, _, _ = strings.Cut(kind, ";")
		if kind == "tensor" {
			tensors++
			continue
		}
		if kind != "model" && kind != "projector" && kind != "adapter" && kind != "template" {
			continue
		}
		file, err := blob(blobs, l)
		if err != nil {
			if m.Fault == nil {
				m.Fault = fmt.Errorf("the %s layer: %w", kind, err)
			}
			continue
		}
		switch {
		case kind == "model" && m.Path == "":
			m.Path, m.Digest, m.Bytes, m.Files = file, sha256Of(l.Digest), l.Size, []string{file}
		case kind == "model":
			m.Files, m.Digest, m.Bytes = append(m.Files, file), "", m.Bytes+l.Size
		case kind == "projector":
			m.Projector = file
		case kind == "adapter":
			m.Adapters = append(m.Adapters, file)
		case kind == "template":
			m.Template = file
		}
	}
	switch {
	case m.Path != "" || m.Fault != nil:
	case tensors > 0:
		m.Fault = fmt.Errorf("the model lies in %d layers of one tensor each, which llama.cpp does not read", tensors)
	default:
		m.Fault = fmt.Errorf("the manifest names no model layer")
	}
	return m
}

// blob returns the file of a layer, which is as long as the manifest says.
func blob(dir string, l layer) (string, error) {
	hex := sha256Of(l.Digest)
	for _, sep := range []string{"-", ":"} { // ":" until Ollama 0.1.30
		path := filepath.Join(dir, "sha256"+sep+hex)
		info, err := os.Stat(path)
		switch {
		case err != nil:
			continue
		case !info.Mode().IsRegular():
			return "", fmt.Errorf("blob %s: %w", hex[:12], errSpecial)
		case info.Size() != l.Size:
			return "", fmt.Errorf("blob %s has %d bytes, the manifest says %d", hex[:12], info.Size(), l.Size)
		}
		return path, nil
	}
	return "", fmt.Errorf("blob %s %w", hex[:12], errGone)
}

// ollamaParts adds the blobs that are still being downloaded. Ollama writes the
// manifest last, so no name is known.
func (w *walker) ollamaParts(blobs string) {
	list, err := os.ReadDir(blobs)
	if err != nil {
		w.errs = append(w.errs, err)
		return
	}
	w.tick(len(list))
	done := map[string]int64{}
	for _, d := range list {
		name, part, ok := strings.Cut(d.Name(), "-partial-")
		if !ok || part == "" || sha256Of(name) == "" {
			continue
		}
		var state struct{ Completed int64 }
		if b, err := readSmall(filepath.Join(blobs, d.Name()), maxPart); err == nil && json.Unmarshal(b, &state) == nil && state.Completed > 0 {
			done[name] += state.Completed
		}
	}
	for _, d := range list {
		name, ok := strings.CutSuffix(d.Name(), "-partial")
		if !ok || sha256Of(name) == "" {
			continue
		}
		m := Model{Kind: Ollama, Name: "blobs/" + name[:19], Partial: true, Files: []string{filepath.Join(blobs, d.Name())}, Bytes: done[name]}
		m.Fault = fmt.Errorf("a download that has not ended: ollama pull resumes it")
		if info, err := d.Info(); err == nil && info.Size() > 0 {
			m.Fault = fmt.Errorf("a download that has not ended, %d of %d bytes: ollama pull resumes it", done[name], info.Size())
		}
		w.models = append(w.models, m)
	}
}
