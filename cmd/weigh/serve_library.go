package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"weigh/inspect/store"
)

// A library holds the models that the page may open. It reads none of them.
type library struct {
	names []string // files and folders as they were given; none: the stores

	mu     sync.Mutex
	models []libraryModel
	notes  []string
	known  map[string]string // the paths that may be opened, all that were ever listed, by what JSON makes of them
}

// The document of /api/models.
type (
	libraryDocument struct {
		Schema  int            `json:"schema"`
		Version string         `json:"version"`
		Models  []libraryModel `json:"models"`
		Notes   []string       `json:"notes"`
	}
	libraryModel struct {
		Path      string `json:"path"` // what commands take
		Name      string `json:"name"`
		Group     string `json:"group"` // the folder or store that it was found in
		Bytes     *int64 `json:"bytes"`
		Fault     string `json:"fault,omitempty"` // why it cannot be opened
		Projector string `json:"projector,omitempty"`
	}
)

// list looks for the models, again when it did before, and returns their number.
// A name that leads nowhere is an error the first time only.
func (lib *library) list(ctx context.Context) (int, error) {
	lib.mu.Lock()
	defer lib.mu.Unlock()
	var stores []store.Store
	var found []libraryModel
	var notes []string
	for _, name := range lib.names {
		info, err := os.Stat(name)
		switch {
		case err != nil && lib.known == nil:
			return 0, err
		case err != nil:
			notes = append(notes, err.Error())
		case info.IsDir():
			stores = append(stores, store.Store{Kind: store.Folder, Dir: name})
		default:
			size := info.Size()
			found = append(found, libraryModel{Path: name, Name: strings.TrimSuffix(filepath.Base(name), ".gguf"), Group: "given", Bytes: &size})
		}
	}
	if len(lib.names) == 0 {
		stores = store.Stores(store.Local())
	}
	models, errs, err := store.List(ctx, stores, nil)
	if err != nil {
		return 0, err
	}
	for _, err := range errs {
		notes = append(notes, err.Error())
	}
	for i := range models {
		found = append(found, newLibraryModel(&models[i]))
	}
	if lib.known == nil {
		lib.known = map[string]string{}
	}
	for i := range found {
		m := &found[i] // one that vanishes is answered with what became of it
		if ok := lib.add(m.Path) && lib.add(m.Projector); !ok && m.Fault == "" {
			m.Fault = "another model's path reads the same where it is not UTF-8: rename one of them"
		}
	}
	lib.models, lib.notes = found, notes
	return len(found), nil
}

func newLibraryModel(m *store.Model) libraryModel {
	d := libraryModel{Path: m.Path, Name: m.Name, Group: m.Kind, Bytes: &m.Bytes, Projector: m.Projector}
	if m.Kind == store.Ollama && m.Ref != "" {
		d.Path = m.Ref // its files are named by their digests
	}
	if m.Kind == store.Folder && m.Path != "" {
		d.Group = filepath.Dir(m.Path)
	}
	if m.Fault != nil {
		d.Fault = m.Fault.Error()
	}
	return d
}

// add lets the page open path and reports whether no other one reads the same.
func (lib *library) add(path string) bool {
	if path == "" {
		return true
	}
	shown := string([]rune(path)) // of a name that is not UTF-8 JSON replaces each odd byte
	if _, known := lib.known[shown]; !known {
		lib.known[shown] = path
	}
	return lib.known[shown] == path
}

// path returns the path that the page may open and was shown so.
func (lib *library) path(shown string) (path string, ok bool) {
	lib.mu.Lock()
	defer lib.mu.Unlock()
	path, ok = lib.known[shown]
	return path, ok
}

// folders returns what of the library a scan goes through.
func (lib *library) folders() (dirs []string) {
	for _, name := range lib.names {
		if info, err := os.Stat(name); err == nil && info.IsDir() {
			dirs = append(dirs, name)
		}
	}
	return dirs
}

func (lib *library) document() libraryDocument {
	lib.mu.Lock()
	defer lib.mu.Unlock()
	return libraryDocument{1, version(), append([]libraryModel{}, lib.models...), append([]string{}, lib.notes...)}
}

// demos are the models of --demo: of each kind one that people run.
var demos = []string{
	"Llama-3.1-8B-Q4_K_M", "Qwen3-30B-A3B-Q4_K_M", "gpt-oss-20b-MXFP4", "Gemma-3-4B-Q4_K_M", "Qwen3.5-27B-Q4_K_M", "Mistral-Small-24B-Q4_K_M",
	"Qwen2.5-32B-Q4_K_M", "Mixtral-8x7B-Q4_K_M", "GLM-4.5-Air-Q4_K_M", "Granite-4.0-H-Small-Q4_K_M", "DeepSeek-R1-671B-Q4_K_M", "Llama-3.2-1B-F16",
}

// writeDemos writes the demo models as sparse files and returns their paths.
func writeDemos(dir string) (paths []string, err error) {
	for _, name := range demos {
		path, err := writeDemo(dir, name)
		if err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}
