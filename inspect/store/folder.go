package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// unfinished ends the name of a file that a browser or a download tool is still
// writing; starts begins it.
var (
	unfinished = []string{".part", ".partial", ".incomplete", ".downloadinprogress", ".crdownload", ".aria2", ".download", ".tmp", ".opdownload"}
	starts     = []string{"incomplete-", "downloading_"}
)

// partialOf returns the name that a file will have once it is whole.
func partialOf(name string) (whole string, ok bool) {
	low := strings.ToLower(name)
	whole = name
	for _, s := range unfinished {
		if strings.HasSuffix(low, s) {
			whole, ok = name[:len(name)-len(s)], true
			break
		}
	}
	for _, s := range starts {
		if strings.HasPrefix(strings.ToLower(whole), s) {
			whole, ok = whole[len(s):], true
			break
		}
	}
	if low := strings.ToLower(whole); !strings.Contains(low, ".gguf") && !strings.Contains(low, ".safetensors") {
		ok = false
	}
	return whole, ok
}

// interesting reports whether a file may be part of a model, by its name.
func interesting(name string) bool {
	low := strings.ToLower(name)
	switch {
	case strings.HasSuffix(low, ".gguf"), strings.HasSuffix(low, ".safetensors"), strings.HasSuffix(low, ".safetensors.index.json"):
		return true
	case low == "config.json", low == "model_index.json", low == "adapter_config.json", low == janModel:
		return true
	}
	_, partial := partialOf(name)
	return partial
}

var shardName = regexp.MustCompile(`(?i)^(.*)-(\d{5})-of-(\d{5})\.(gguf|safetensors)$`)

// folder lists the models among the files of one folder. It reports whether the
// folder is a model as a whole, so that nothing below is one of its own.
func (w *walker) folder(dir string, files []entry) (whole bool) {
	var tensors, projectors []entry
	sets := map[string][]entry{}
	has := map[string]*entry{}
	for i, f := range files {
		low := strings.ToLower(f.name)
		has[low] = &files[i]
		next, partial := partialOf(f.name)
		switch shard := shardName.FindStringSubmatch(f.name); {
		case partial:
			w.add(dir, next, Model{Partial: true, Bytes: f.size, Files: []string{f.path}, Fault: fmt.Errorf("a download that has not ended: %s", f.name)})
		case strings.HasSuffix(low, ".safetensors"):
			tensors = append(tensors, f)
		case !strings.HasSuffix(low, ".gguf"):
		case strings.Contains(low, "mmproj"):
			projectors = append(projectors, f)
		case shard != nil:
			sets[shard[1]+"-of-"+shard[3]] = append(sets[shard[1]+"-of-"+shard[3]], f)
		default:
			sets[f.name] = append(sets[f.name], f)
		}
	}
	w.ggufs(dir, sets, projectors)
	index := has["model.safetensors.index.json"]
	switch {
	case has["model_index.json"] != nil:
		w.hf(dir, dir, tensors)
		return true
	case len(tensors) == 0 && index == nil:
	case len(sets) > 0 && (has["config.json"] != nil || index != nil):
		if index == nil {
			index = &tensors[0]
		}
		w.hf(dir, index.path, tensors) // the folder itself stands for its GGUF
	case has["config.json"] != nil, has["adapter_config.json"] != nil, index != nil:
		w.hf(dir, dir, tensors)
	default:
		w.loose(dir, tensors)
	}
	if y := has[janModel]; y != nil {
		w.janImport(dir, y.path)
	}
	return false
}

// ggufs adds the GGUF files of a folder, shards as one model, each with its
// projector. A projector that goes with none is listed by itself.
func (w *walker) ggufs(dir string, sets map[string][]entry, projectors []entry) {
	used := map[string]bool{}
	for _, key := range sortedKeys(sets) {
		m := gather(sets[key])
		name := sets[key][0].name
		if p := bestProjector(name, projectors); p != "" && m.Fault == nil {
			m.Projector = p
			used[p] = true
		}
		if s := shardName.FindStringSubmatch(name); s != nil {
			name = s[1] + ".gguf"
		}
		w.add(dir, name, m)
	}
	for _, p := range projectors {
		if !used[p.path] {
			w.add(dir, p.name, gather([]entry{p}))
		}
	}
}

// gather makes one model of a file, or of the shards that are there.
func gather(files []entry) (m Model) {
	s := shardName.FindStringSubmatch(files[0].name)
	n := 1
	if s != nil {
		n, _ = strconv.Atoi(s[3])
	}
	for _, f := range files {
		m.Bytes += f.size
		m.Fault = cmp.Or(m.Fault, f.fault)
	}
	slices.SortFunc(files, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	m.Path = files[0].path
	for _, f := range files {
		m.Files = append(m.Files, f.path)
	}
	if len(files) == 1 {
		m.Digest = digestOf(files[0])
	}
	if s != nil && len(files) < n && m.Fault == nil {
		m.Fault = fmt.Errorf("%d of %d shards are missing: %w", n-len(files), n, fs.ErrNotExist)
	}
	return m
}

// bestProjector returns the projector whose name has the most in common with
// the model's, as llama.cpp picks one among several of a repository.
//
// Source: common/download.cpp@v0.5.0, find_best_sibling.
func bestProjector(model string, projectors []entry) (path string) {
	common := -1
	for _, p := range projectors {
		if p.fault != nil {
			continue
		}
		a, b := words(model), words(p.name)
		n := 0
		for _, word := range a {
			if slices.Contains(b, word) {
				n++
			}
		}
		if n > common {
			common, path = n, p.path
		}
	}
	return path
}

func words(name string) []string {
	return strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return strings.ContainsRune("-_. ", r) })
}

// hf adds the model that a folder of safetensors is.
func (w *walker) hf(dir, path string, tensors []entry) {
	m := Model{Path: path}
	for _, t := range tensors {
		m.Files = append(m.Files, t.path)
		m.Bytes += t.size
		m.Fault = cmp.Or(m.Fault, t.fault)
	}
	w.add(dir, "", m)
}

// loose adds safetensors files without a config: shards as one model, others
// each by itself.
func (w *walker) loose(dir string, tensors []entry) {
	sets := map[string][]entry{}
	for _, t := range tensors {
		key := t.name
		if s := shardName.FindStringSubmatch(t.name); s != nil {
			key = s[1] + ".safetensors"
		}
		sets[key] = append(sets[key], t)
	}
	for _, key := range sortedKeys(sets) {
		w.add(dir, key, gather(sets[key]))
	}
}

// add names a model found in dir and keeps it: by its path below the store, with
// what the store's kind makes of that.
func (w *walker) add(dir, file string, m Model) {
	rel, err := filepath.Rel(w.root, dir)
	if err != nil {
		rel = dir
	}
	name := filepath.ToSlash(filepath.Join(rel, file))
	for _, ext := range []string{".gguf", ".safetensors"} {
		if strings.HasSuffix(strings.ToLower(name), ext) {
			name = name[:len(name)-len(ext)]
		}
	}
	if name == "." {
		name = filepath.Base(dir)
	}
	m.Kind = cmp.Or(m.Kind, w.kind)
	m.Name = cmp.Or(m.Name, name)
	if m.Path != "" && m.Fault == nil && m.Ref == "" {
		m.Ref = m.Path
		if w.kind == LMStudio {
			m.Ref = "lmstudio:" + m.Name
		}
	}
	if w.kind == Jan {
		m.Name = strings.TrimSuffix(m.Name, "/model")
	}
	w.models = append(w.models, m)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// errGone is a fault of a manifest that names what is not there.
var errGone = errors.New("is not there")
