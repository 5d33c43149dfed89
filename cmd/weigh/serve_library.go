package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"weigh/fixtures"
)

// A library holds the paths of the models that the page may open. It reads no
// model.
type library struct {
	names []string // files and folders as they were given; none: the stores

	mu     sync.Mutex
	models []libraryModel
	known  map[string]bool
	notes  []string
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
		Path  string `json:"path"`
		Name  string `json:"name"`
		Group string `json:"group"` // the folder or store that it was found in
		Bytes *int64 `json:"bytes"` // of the file, of all its shards
	}
)

// maxListed bounds the models of a library.
const maxListed = 20000

// list looks for the models again and returns their number.
func (lib *library) list() (int, error) {
	lib.mu.Lock()
	defer lib.mu.Unlock()
	first := lib.known == nil
	var found []libraryModel
	var notes []string
	for _, name := range lib.names {
		info, err := os.Stat(name)
		if err != nil {
			if first {
				return 0, err
			}
			notes = append(notes, err.Error())
			continue
		}
		switch {
		case !info.IsDir():
			size := info.Size()
			found = append(found, libraryModel{name, filepath.Base(name), filepath.Dir(name), &size})
		case isModelFolder(name):
			found = append(found, libraryModel{name, filepath.Base(filepath.Clean(name)), filepath.Dir(filepath.Clean(name)), nil})
		default:
			models, err := modelsBelow(name)
			if err != nil {
				notes = append(notes, err.Error())
			}
			found = append(found, models...)
		}
	}
	if lib.known == nil {
		lib.known = map[string]bool{}
	}
	for _, m := range found {
		lib.known[m.Path] = true // one that vanished later is answered with what happened to it
	}
	lib.models, lib.notes = found, notes
	return len(found), nil
}

// has reports whether the page may open path.
func (lib *library) has(path string) bool {
	lib.mu.Lock()
	defer lib.mu.Unlock()
	return lib.known[path]
}

func (lib *library) document() libraryDocument {
	lib.mu.Lock()
	defer lib.mu.Unlock()
	return libraryDocument{1, version(), append([]libraryModel{}, lib.models...), append([]string{}, lib.notes...)}
}

// isModelFolder reports whether a folder is a model of its own, as Hugging Face
// lays them out.
func isModelFolder(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "config.json"))
	return err == nil
}

var errEnough = fmt.Errorf("more than %d models: the rest is not listed", maxListed)

// shardName matches the name of a shard: its number and how many there are.
var shardName = regexp.MustCompile(`^(.*)-(\d{5})-of-\d{5}\.gguf$`)

// modelsBelow returns the models in a folder and those below it, by path. Links
// to files are followed, links to folders are not.
func modelsBelow(root string) ([]libraryModel, error) {
	var found []libraryModel
	shards := map[string]*int64{} // size of each split model, by its path without the numbers
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if path == root {
				return err
			}
			return nil // a folder that may not be read hides its models only
		}
		if len(found) > maxListed {
			return errEnough
		}
		dir := filepath.Dir(path)
		if d.IsDir() {
			if path != root && isModelFolder(path) {
				found = append(found, libraryModel{path, d.Name(), dir, nil})
			}
			return nil
		}
		if !strings.EqualFold(filepath.Ext(path), ".gguf") {
			return nil
		}
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			return nil
		}
		size := info.Size()
		if m := shardName.FindStringSubmatch(d.Name()); m != nil {
			whole := filepath.Join(dir, m[1])
			if sum := shards[whole]; sum != nil {
				*sum += size
				return nil
			}
			shards[whole] = &size
		}
		found = append(found, libraryModel{path, strings.TrimSuffix(d.Name(), filepath.Ext(path)), dir, &size})
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	slices.SortStableFunc(found, func(a, b libraryModel) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)))
	})
	return found, err
}

// demos are the models of --demo: of each kind one that people run.
var demos = []string{
	"Llama-3.1-8B-Q4_K_M", "Qwen3-30B-A3B-Q4_K_M", "gpt-oss-20b-MXFP4", "Gemma-3-4B-Q4_K_M", "Qwen3.5-27B-Q4_K_M", "Mistral-Small-24B-Q4_K_M",
	"Qwen2.5-32B-Q4_K_M", "Mixtral-8x7B-Q4_K_M", "GLM-4.5-Air-Q4_K_M", "Granite-4.0-H-Small-Q4_K_M", "DeepSeek-R1-671B-Q4_K_M", "Llama-3.2-1B-F16",
}

// writeDemos writes the demo models as sparse files.
func writeDemos(dir string) error {
	for _, name := range demos {
		if err := fixtures.Model(name).WriteSparse(filepath.Join(dir, name+".gguf")); err != nil {
			return err
		}
	}
	return nil
}
