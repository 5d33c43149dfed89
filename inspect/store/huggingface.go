package store

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// huggingFaceDirs are the cache of huggingface_hub, which llama.cpp shares.
func huggingFaceDirs(e Env) []string {
	for _, v := range []string{"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"} {
		if dir := e.Get(v); dir != "" {
			return []string{dir}
		}
	}
	if dir := e.Get("HF_HOME"); dir != "" {
		return under(dir, "hub")
	}
	if dir := e.Get("XDG_CACHE_HOME"); dir != "" {
		return under(dir, "huggingface/hub")
	}
	return under(e.Home, ".cache/huggingface/hub")
}

// repoPrefix begins the folder of a repository: models--ORG--REPO.
const repoPrefix = "models--"

// repoName returns ORG/REPO of a repository's folder.
func repoName(dir string) string {
	return strings.ReplaceAll(strings.TrimPrefix(filepath.Base(dir), repoPrefix), "--", "/")
}

// repo lists a repository of the Hugging Face cache: the models of each
// snapshot, named by the branch or tag that points at it, and what is still
// being downloaded.
func (w *walker) repo(dir string) {
	refs := readRefs(dir)
	snapshots, err := os.ReadDir(filepath.Join(dir, "snapshots"))
	if err != nil && !os.IsNotExist(err) {
		w.errs = append(w.errs, err)
	}
	for _, s := range snapshots {
		commit := s.Name()
		name := repoName(dir)
		switch at := refs[commit]; {
		case slices.Contains(at, "main"), len(at) == 0 && len(snapshots) == 1:
		case len(at) > 0:
			name += "@" + at[0]
		default:
			name += "@" + commit[:min(len(commit), 8)]
		}
		w.snapshot(filepath.Join(dir, "snapshots", commit), name)
	}
	w.incomplete(filepath.Join(dir, "blobs"), repoName(dir))
}

// readRefs returns the names that point at each commit.
func readRefs(dir string) map[string][]string {
	refs := map[string][]string{}
	list, _ := os.ReadDir(filepath.Join(dir, "refs"))
	for _, r := range list {
		if b, err := readSmall(filepath.Join(dir, "refs", r.Name()), 256); err == nil && !r.IsDir() {
			commit := strings.TrimSpace(string(b))
			refs[commit] = append(refs[commit], r.Name())
		}
	}
	return refs
}

// snapshot lists the models of one snapshot as models of the repository.
func (w *walker) snapshot(dir, name string) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		w.errs = append(w.errs, err)
		return
	}
	in := &walker{ctx: w.ctx, tick: w.tick, seen: w.seen, root: dir, kind: HuggingFace}
	in.walk(dir, real, 0)
	w.errs = append(w.errs, in.errs...)
	for _, m := range in.models {
		file := m.Name
		m.Name = name
		if m.Path != dir && file != filepath.Base(dir) {
			m.Name += "/" + file
		}
		if m.Ref != "" {
			m.Ref = "hf:" + m.Name
		}
		w.models = append(w.models, m)
	}
}

// incomplete adds the blobs of a repository that are still being downloaded.
func (w *walker) incomplete(blobs, name string) {
	list, err := os.ReadDir(blobs)
	if err != nil {
		return // a snapshot of copies has none
	}
	w.tick(len(list))
	m := Model{Kind: HuggingFace, Name: name, Partial: true}
	for _, d := range list {
		if info, err := d.Info(); strings.HasSuffix(d.Name(), ".incomplete") && err == nil {
			m.Files = append(m.Files, filepath.Join(blobs, d.Name()))
			m.Bytes += info.Size()
		}
	}
	if n := len(m.Files); n > 0 {
		m.Fault = fmt.Errorf("a download that has not ended: %d of its files are incomplete", n)
		w.models = append(w.models, m)
	}
}

// digestOf returns the SHA-256 that the name of a link's target is in the
// Hugging Face cache, where large files are blobs named so.
func digestOf(f entry) string {
	if !f.link {
		return ""
	}
	target, err := os.Readlink(f.path)
	if base := filepath.Base(target); err == nil && isSHA256(base) && filepath.Base(filepath.Dir(target)) == "blobs" {
		return base
	}
	return ""
}
