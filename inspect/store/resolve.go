package store

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// schemes begin the names of models in a store, and name its kind.
var schemes = []struct{ prefix, kind string }{
	{"ollama:", Ollama}, {"hf:", HuggingFace}, {"lmstudio:", LMStudio},
}

// IsRef reports whether name is ollama:NAME[:TAG], hf:ORG/REPO[@REV][/FILE] or
// lmstudio:NAME rather than a path.
func IsRef(name string) bool {
	return slices.ContainsFunc(schemes, func(s struct{ prefix, kind string }) bool { return strings.HasPrefix(name, s.prefix) })
}

// A NotFoundError says that a store holds no model of a name, or several.
type NotFoundError struct {
	Ref  string
	Near []string // what comes closest, or what the name may mean
	Many bool     // the name means every one of Near
	Dirs []string // where was looked
}

func (e *NotFoundError) Error() string {
	near := e.Near[:min(len(e.Near), 6)]
	list := strings.Join(near, ", ")
	if len(near) < len(e.Near) {
		list += ", …"
	}
	switch {
	case e.Many:
		return fmt.Sprintf("%s: %d models are called so: name one of %s", e.Ref, len(e.Near), list)
	case len(e.Dirs) == 0:
		return e.Ref + ": there is no such store on this machine"
	case len(near) > 0:
		return fmt.Sprintf("%s: no such model in %s; there is %s", e.Ref, strings.Join(e.Dirs, ", "), list)
	}
	return fmt.Sprintf("%s: no such model in %s", e.Ref, strings.Join(e.Dirs, ", "))
}

// Resolve finds the model that a reference names. A model that is broken or
// partial is returned with its fault. An error is a *NotFoundError or the
// context's.
func Resolve(ctx context.Context, e Env, ref string) (Model, error) {
	var kind, name string
	for _, s := range schemes {
		if n, ok := strings.CutPrefix(ref, s.prefix); ok {
			kind, name = s.kind, n
		}
	}
	var in []Store
	notFound := &NotFoundError{Ref: ref}
	for _, s := range Stores(e) {
		// llama.cpp keeps a Hugging Face cache where LLAMA_CACHE says.
		if s.Kind == kind || kind == HuggingFace && s.Kind == LlamaCpp {
			in = append(in, s)
			notFound.Dirs = append(notFound.Dirs, s.Dir)
		}
	}
	all, _, err := List(ctx, in, nil)
	if err != nil {
		return Model{}, err
	}
	all = slices.DeleteFunc(all, func(m Model) bool { return m.Kind != kind })
	find := map[string]func([]Model, string) []Model{Ollama: findOllama, HuggingFace: findHF, LMStudio: findLMStudio}[kind]
	found := find(all, name)
	// A copy that can be opened answers for one that cannot.
	if slices.ContainsFunc(found, whole) {
		found = pick(found, func(m *Model) bool { return whole(*m) })
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1 && found[0].Name == found[1].Name: // in two places: the first is asked first
		return found[0], nil
	case len(found) > 1:
		notFound.Many = true
		notFound.Near = names(found)
	default:
		notFound.Near = nearest(all, name)
	}
	return Model{}, notFound
}

// whole reports whether a model can be opened.
func whole(m Model) bool { return m.Fault == nil }

func names(models []Model) (out []string) {
	for _, m := range models {
		if m.Name != "" && !slices.Contains(out, m.Name) {
			out = append(out, m.Name)
		}
	}
	return out
}

// nearest returns the names that share a word with name, else all.
func nearest(all []Model, name string) []string {
	want := words(strings.NewReplacer("/", " ", ":", " ", "@", " ").Replace(name))
	var near []Model
	for _, m := range all {
		if slices.ContainsFunc(want, func(w string) bool { return strings.Contains(strings.ToLower(m.Name), w) }) {
			near = append(near, m)
		}
	}
	if near == nil {
		near = all
	}
	return names(near)
}

// pick returns the models for which is holds.
func pick(all []Model, is func(*Model) bool) (out []Model) {
	for i := range all {
		if is(&all[i]) {
			out = append(out, all[i])
		}
	}
	return out
}

// findOllama finds NAME[:TAG]; the tag is latest unless it is given.
func findOllama(all []Model, name string) []Model {
	full := name
	if !strings.Contains(name[strings.LastIndex(name, "/")+1:], ":") {
		full += ":latest"
	}
	full = strings.TrimPrefix(strings.TrimPrefix(full, "registry.ollama.ai/"), "library/")
	return pick(all, func(m *Model) bool { return strings.EqualFold(m.Name, full) })
}

// findHF finds ORG/REPO[@REV][:QUANT] and ORG/REPO[@REV]/FILE. Without a file it
// picks among several as llama-server -hf does: QUANT, else Q4_K_M, Q8_0 or the
// first.
//
// Source: common/download.cpp@v0.5.0, find_best_model.
func findHF(all []Model, name string) []Model {
	exact := pick(all, func(m *Model) bool { return strings.EqualFold(m.Name, name) })
	if slices.ContainsFunc(exact, whole) {
		return exact
	}
	// Another file of the repository, not what cannot be opened.
	if sound := pick(all, func(m *Model) bool { return whole(*m) }); len(sound) < len(all) {
		if in := findHF(sound, name); len(in) > 0 {
			return in
		}
	}
	if len(exact) > 0 {
		return exact
	}
	repo, quant, tagged := strings.Cut(name, ":")
	in := pick(all, func(m *Model) bool {
		rest, ok := cutPrefixFold(m.Name, repo)
		return ok && (rest == "" || rest[0] == '/')
	})
	if _, _, revised := strings.Cut(repo, "@"); revised && len(in) == 0 {
		in = atRevision(all, repo)
	}
	in = slices.DeleteFunc(in, func(m Model) bool {
		base := strings.ToLower(filepath.Base(m.Name))
		return slices.ContainsFunc([]string{"mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-"}, func(s string) bool { return strings.Contains(base, s) })
	})
	quants := []string{"Q4_K_M", "Q8_0"}
	if tagged {
		quants = []string{quant}
	}
	for _, q := range quants {
		for _, m := range in {
			rest, _ := cutPrefixFold(m.Name, repo)
			rest, q := strings.ToUpper(rest+"."), strings.ToUpper(q)
			if strings.Contains(rest, q+".") || strings.Contains(rest, q+"-") {
				return []Model{m}
			}
		}
	}
	if tagged || len(in) == 0 {
		return nil
	}
	return in[:1]
}

// atRevision finds ORG/REPO@REV by the beginning of a commit, or a branch that
// shares its commit with another.
func atRevision(all []Model, name string) []Model {
	repo, rev, _ := strings.Cut(name, "@")
	return pick(all, func(m *Model) bool {
		rest, ok := cutPrefixFold(m.Name, repo)
		if !ok || rest != "" && rest[0] != '/' && rest[0] != '@' || m.Path == "" {
			return false
		}
		dir := m.Path
		for filepath.Base(filepath.Dir(dir)) != "snapshots" {
			if up := filepath.Dir(dir); up != dir {
				dir = up
				continue
			}
			return false
		}
		commit := filepath.Base(dir)
		return len(rev) >= 4 && strings.HasPrefix(commit, rev) || slices.Contains(readRefs(filepath.Dir(filepath.Dir(dir)))[commit], rev)
	})
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// findLMStudio finds a model by its path, the end of it, or LM Studio's own key:
// the repository's name in lower case without -gguf, and @QUANT among several.
func findLMStudio(all []Model, name string) []Model {
	name, _ = strings.CutSuffix(name, ".gguf")
	key, quant, _ := strings.Cut(name, "@")
	for _, is := range []func(*Model) bool{
		func(m *Model) bool { return m.Name == name },
		func(m *Model) bool { return strings.EqualFold(m.Name, name) },
		func(m *Model) bool { return strings.HasSuffix(strings.ToLower(m.Name), "/"+strings.ToLower(name)) },
		func(m *Model) bool {
			dir := strings.ToLower(m.Name)
			if m.Path == "" || strings.EqualFold(filepath.Ext(m.Path), ".gguf") { // a file of the repository
				dir = filepath.ToSlash(filepath.Dir(dir))
			}
			k := strings.ToLower(key)
			return (dir == k || strings.HasSuffix(dir, "/"+k) || strings.HasSuffix(strings.TrimSuffix(dir, "-gguf"), "/"+k)) &&
				strings.Contains(strings.ToLower(m.Name), strings.ToLower(quant))
		},
	} {
		if found := pick(all, is); len(found) > 0 {
			return found
		}
	}
	return nil
}
