// Package store lists the models that other programs keep on this machine, by
// their layout on the disk: LM Studio, Ollama, the Hugging Face cache,
// llama.cpp, text-generation-webui, GPT4All, Jan and plain folders. It knows
// paths, names and manifests; it opens no model and writes nothing.
package store

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
)

// The kinds of stores.
const (
	Ollama      = "ollama"
	LMStudio    = "lmstudio"
	HuggingFace = "huggingface"
	LlamaCpp    = "llama.cpp"
	TextGen     = "text-generation-webui"
	GPT4All     = "gpt4all"
	Jan         = "jan"
	Folder      = "folder"
)

// A Store is one place with models. What lies in it decides how it is read, so
// a folder may hold an Ollama store or a Hugging Face cache anywhere below.
type Store struct {
	Kind string
	Dir  string
}

// A Model is what a store lists: something to open, or a download that is not
// whole.
type Model struct {
	Kind      string   // of the store, or of the layout found in it
	Name      string   // as the store calls it; untrusted text
	Ref       string   // what every command takes for MODEL; "" when nothing can be opened
	Path      string   // what inspect.Open takes; "" when there is nothing to open
	Files     []string // with weights, shards in their order; "" for a missing one
	Projector string   // the multimodal projector that goes with it
	Adapters  []string
	Template  string // the file of a chat template that overrides the model's own
	Digest    string // SHA-256 of the one file in hexadecimal, as the store names it; "" when it does not
	Bytes     int64  // of Files
	Partial   bool   // a download that has not ended
	Fault     error  // why it is broken or partial; nil when nothing is known against it
}

// An Env is what the places of the stores depend on.
type Env struct {
	OS   string // as runtime.GOOS
	Home string // the user's folder; "" when it is unknown
	Get  func(string) string
}

// Local returns the environment of this process.
func Local() Env {
	home, _ := os.UserHomeDir()
	return Env{runtime.GOOS, home, os.Getenv}
}

// places lists where each program keeps its models; the rows stand in the files
// named after the programs.
var places = []struct {
	kind string
	dirs func(Env) []string
}{
	{LMStudio, lmStudioDirs},
	{Ollama, ollamaDirs},
	{HuggingFace, huggingFaceDirs},
	{LlamaCpp, llamaCppDirs},
	{TextGen, textGenDirs},
	{GPT4All, gpt4AllDirs},
	{Jan, janDirs},
}

// Stores returns the stores that exist, each folder once.
func Stores(e Env) []Store {
	var found []Store
	seen := map[string]bool{}
	for _, p := range places {
		for _, dir := range p.dirs(e) {
			real, err := filepath.EvalSymlinks(dir)
			if info, serr := os.Stat(dir); err != nil || serr != nil || !info.IsDir() || seen[real] {
				continue
			}
			seen[real] = true
			found = append(found, Store{p.kind, dir})
		}
	}
	return found
}

// List returns the models of all stores by store and name, each folder once,
// and what could not be read. It calls tick, unless it is nil, with the number
// of entries of every folder it has read. An error is the context's.
func List(ctx context.Context, stores []Store, tick func(entries int)) ([]Model, []error, error) {
	w := &walker{ctx: ctx, tick: tick, seen: map[string]bool{}}
	if tick == nil {
		w.tick = func(int) {}
	}
	var all []Model
	for _, s := range stores {
		w.root, w.kind, w.models = s.Dir, s.Kind, nil
		real, err := filepath.EvalSymlinks(s.Dir)
		if err != nil {
			w.errs = append(w.errs, err)
			continue
		}
		w.walk(s.Dir, real, 0)
		slices.SortStableFunc(w.models, func(a, b Model) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Path, b.Path)) })
		all = append(all, w.models...)
	}
	return all, w.errs, ctx.Err()
}

// errSpecial refuses pipes, devices and sockets.
var errSpecial = errors.New("neither a file nor a folder")

// under returns the paths below base, none when base is unknown.
func under(base string, names ...string) []string {
	if base == "" {
		return nil
	}
	var out []string
	for _, n := range names {
		out = append(out, filepath.Join(base, filepath.FromSlash(n)))
	}
	return out
}
