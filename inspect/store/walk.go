package store

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxDepth bounds how deep a folder is searched.
const maxDepth = 32

// A walker searches folders. It follows links to folders, each folder once, so
// that links in a circle end.
type walker struct {
	ctx    context.Context
	tick   func(int)
	seen   map[string]bool // folders, by their path without links
	root   string
	kind   string
	models []Model
	errs   []error
}

// An entry is what a folder holds.
type entry struct {
	name  string
	path  string
	size  int64
	link  bool  // a symbolic link
	fault error // a file that cannot be one: a link to nothing, a pipe
}

// skipped folders hold no models and many files.
var skipped = map[string]bool{".git": true, "node_modules": true, "__pycache__": true, ".venv": true, ".locks": true, ".no_exist": true, ".Trash": true}

// walk lists the models in dir and below; real is its path without links.
func (w *walker) walk(dir, real string, depth int) {
	if w.seen[real] || depth > maxDepth || w.ctx.Err() != nil {
		return
	}
	w.seen[real] = true
	files, dirs, err := w.read(dir)
	if err != nil {
		w.errs = append(w.errs, err)
		return
	}
	has := func(name string) bool { return dirs[name] != nil }
	switch name := filepath.Base(dir); {
	case has("manifests") && has("blobs"):
		w.ollama(dir)
		return
	case strings.HasPrefix(name, repoPrefix) && (has("snapshots") || has("blobs")):
		w.repo(dir)
		return
	}
	if whole := w.folder(dir, files); whole {
		return
	}
	for _, linked := range []bool{false, true} { // a folder is listed under its own name, if it has one
		for _, name := range sortedKeys(dirs) {
			if d := dirs[name]; d.link == linked && !skipped[name] {
				below := filepath.Join(real, name)
				if linked {
					if below, err = filepath.EvalSymlinks(d.path); err != nil {
						continue
					}
				}
				w.walk(d.path, below, depth+1)
			}
		}
	}
}

// read returns a folder's files, those that may belong to a model, and folders.
func (w *walker) read(dir string) (files []entry, dirs map[string]*entry, err error) {
	list, err := os.ReadDir(dir)
	if err != nil && len(list) == 0 {
		return nil, nil, err
	}
	w.tick(len(list))
	dirs = map[string]*entry{}
	for _, d := range list {
		e := entry{name: d.Name(), path: filepath.Join(dir, d.Name()), link: d.Type()&fs.ModeSymlink != 0}
		if d.IsDir() {
			dirs[e.name] = &e
			continue
		}
		if !e.link && !interesting(e.name) {
			continue
		}
		info, err := os.Stat(e.path) // of a link's target
		switch {
		case err != nil && e.link:
			e.fault = fmt.Errorf("a link to a file that is not there: %w", fs.ErrNotExist)
		case err != nil:
			e.fault = err
		case info.IsDir():
			dirs[e.name] = &e
			continue
		case !info.Mode().IsRegular():
			e.fault = fmt.Errorf("%w (%v)", errSpecial, info.Mode().Type())
		default:
			e.size = info.Size()
		}
		if interesting(e.name) {
			files = append(files, e)
		}
	}
	return files, dirs, nil
}

// readSmall returns the contents of a regular file of at most limit bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: %w", path, errSpecial)
	case info.Size() > limit:
		return nil, fmt.Errorf("%s: %d bytes are over the limit of %d", path, info.Size(), limit)
	}
	return os.ReadFile(path)
}
