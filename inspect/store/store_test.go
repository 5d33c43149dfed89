package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// write writes a file, with its folders.
func write(t *testing.T, data string, path ...string) string {
	t.Helper()
	p := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func link(t *testing.T, target string, path ...string) {
	t.Helper()
	p := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, p); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
}

// ollamaModel writes a manifest with a blob for each layer, kind=contents.
func ollamaModel(t *testing.T, dir, name string, layers ...string) {
	t.Helper()
	var m manifest
	for _, l := range layers {
		kind, data, _ := strings.Cut(l, "=")
		sum := sha256.Sum256([]byte(data))
		digest := hex.EncodeToString(sum[:])
		write(t, data, dir, "blobs", "sha256-"+digest)
		m.Layers = append(m.Layers, layer{"application/vnd.ollama.image." + kind, "sha256:" + digest, int64(len(data))})
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	write(t, string(b), dir, "manifests", filepath.FromSlash(name))
}

func list(t *testing.T, stores ...Store) []Model {
	t.Helper()
	all, errs, err := List(context.Background(), stores, nil)
	if err != nil || len(errs) > 0 {
		t.Fatalf("List: %v, %v", err, errs)
	}
	return all
}

// shown writes models as lines: name, reference, what goes with it, fault.
func shown(all []Model, dir string) (lines []string) {
	for _, m := range all {
		line := m.Kind + " " + m.Name
		if m.Ref != "" {
			line += " <" + m.Ref + ">"
		}
		if len(m.Files) > 1 {
			line += fmt.Sprintf(" %d files", len(m.Files))
		}
		if m.Projector != "" {
			line += " with " + filepath.Base(m.Projector)
		}
		if len(m.Adapters) > 0 {
			line += fmt.Sprintf(" %d adapters", len(m.Adapters))
		}
		if m.Template != "" {
			line += " own template"
		}
		if m.Partial {
			line += " partial"
		}
		if m.Fault != nil {
			line += ": " + m.Fault.Error()
		}
		lines = append(lines, strings.ReplaceAll(filepath.ToSlash(line), filepath.ToSlash(dir), "DIR"))
	}
	return lines
}

func same(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("listed\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{
		"one.gguf", "UPPER.GGUF", "notes.txt", "config.json",
		"split/m-Q4_0-00001-of-00003.gguf", "split/m-Q4_0-00002-of-00003.gguf", "split/m-Q4_0-00003-of-00003.gguf",
		"cut/m-00002-of-00003.gguf",
		"vision/gemma-3-4b-Q4_K_M.gguf", "vision/mmproj-gemma-3-4b-f16.gguf",
		"two/qwen-7b.gguf", "two/llava-7b.gguf", "two/mmproj-qwen-7b.gguf", "two/mmproj-llava-7b.gguf",
		"lonely/mmproj-f16.gguf",
		"hf/config.json", "hf/model-00001-of-00002.safetensors", "hf/model-00002-of-00002.safetensors", "hf/model.safetensors.index.json",
		"both/config.json", "both/model.safetensors", "both/m.gguf",
		"loras/a.safetensors", "loras/b.safetensors", "loras/c-00001-of-00002.safetensors", "loras/c-00002-of-00002.safetensors",
		"sd/model_index.json", "sd/unet/config.json", "sd/unet/diffusion.safetensors",
		"web/config.json", "web/index.js",
		"got/m.gguf.part", "got/downloading_x.gguf.part", "got/incomplete-y.gguf", "got/z.gguf.downloadInProgress", "got/page.html.part",
		".git/objects/pack.gguf",
		".cache/huggingface/download/model.safetensors.0123.incomplete",
	} {
		write(t, "x", dir, filepath.FromSlash(f))
	}
	same(t, shown(list(t, Store{Folder, dir}), dir), []string{
		"folder .cache/huggingface/download/model.safetensors.0123 partial: a download that has not ended: model.safetensors.0123.incomplete",
		"folder UPPER <DIR/UPPER.GGUF>",
		"folder both <DIR/both/model.safetensors>",
		"folder both/m <DIR/both/m.gguf>",
		"folder cut/m: 2 of 3 shards are missing: file does not exist",
		"folder got/m partial: a download that has not ended: m.gguf.part",
		"folder got/x partial: a download that has not ended: downloading_x.gguf.part",
		"folder got/y partial: a download that has not ended: incomplete-y.gguf",
		"folder got/z partial: a download that has not ended: z.gguf.downloadInProgress",
		"folder hf <DIR/hf> 2 files",
		"folder lonely/mmproj-f16 <DIR/lonely/mmproj-f16.gguf>",
		"folder loras/a <DIR/loras/a.safetensors>",
		"folder loras/b <DIR/loras/b.safetensors>",
		"folder loras/c <DIR/loras/c-00001-of-00002.safetensors> 2 files",
		"folder one <DIR/one.gguf>",
		"folder sd <DIR/sd>",
		"folder split/m-Q4_0 <DIR/split/m-Q4_0-00001-of-00003.gguf> 3 files",
		"folder two/llava-7b <DIR/two/llava-7b.gguf> with mmproj-llava-7b.gguf",
		"folder two/qwen-7b <DIR/two/qwen-7b.gguf> with mmproj-qwen-7b.gguf",
		"folder vision/gemma-3-4b-Q4_K_M <DIR/vision/gemma-3-4b-Q4_K_M.gguf> with mmproj-gemma-3-4b-f16.gguf",
	})
}

func TestLinks(t *testing.T) {
	dir := t.TempDir()
	write(t, "x", dir, "real", "m.gguf")
	link(t, dir, dir, "real", "circle")
	link(t, ".", dir, "self")
	link(t, "real", dir, "again")
	link(t, "gone.gguf", dir, "dangling.gguf")
	link(t, os.DevNull, dir, "null.gguf")
	link(t, filepath.Join("real", "m.gguf"), dir, "file.gguf")
	got := shown(list(t, Store{Folder, dir}), dir)
	want := []string{
		"folder dangling: a link to a file that is not there: file does not exist",
		"folder file <DIR/file.gguf>",
		"folder null: neither a file nor a folder (Dc---------)",
		"folder real/m <DIR/real/m.gguf>",
	}
	if runtime.GOOS == "windows" {
		t.Skip("the null device is another kind of file on Windows")
	}
	same(t, got, want)
}

func TestOllama(t *testing.T) {
	dir := t.TempDir()
	ollamaModel(t, dir, "registry.ollama.ai/library/llama3.2/latest", "model=GGUF one", "template={{ .Prompt }}", "license=MIT")
	ollamaModel(t, dir, "registry.ollama.ai/library/llava/7b", "model=GGUF two", "projector=GGUF clip", "params={}")
	ollamaModel(t, dir, "registry.ollama.ai/me/tuned/v1", "model=GGUF one", "adapter=GGUF lora")
	ollamaModel(t, dir, "hf.co/org/repo/Q4_K_M", "model=GGUF three")
	ollamaModel(t, dir, "registry.ollama.ai/library/mlx/latest", "tensor=a", "tensor; name=b=b")
	ollamaModel(t, dir, "registry.ollama.ai/library/bare/latest", "license=MIT")
	ollamaModel(t, dir, "registry.ollama.ai/library/gone/latest", "model=soon gone")
	os.Remove(filepath.Join(dir, "blobs", "sha256-"+fmt.Sprintf("%x", sha256.Sum256([]byte("soon gone")))))
	ollamaModel(t, dir, "registry.ollama.ai/library/short/latest", "model=soon short")
	write(t, "soon", dir, "blobs", "sha256-"+fmt.Sprintf("%x", sha256.Sum256([]byte("soon short"))))
	write(t, `{"layers":[{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:../../../etc/passwd","size":1}]}`, dir, "manifests/registry.ollama.ai/library/evil/latest")
	write(t, `{"layers":`, dir, "manifests/registry.ollama.ai/library/torn/latest")
	write(t, ``, dir, "manifests/registry.ollama.ai/library/empty/latest")
	write(t, `{"layers":[]}`, dir, "manifests/registry.ollama.ai/library/none/latest")
	part := "sha256-" + strings.Repeat("ab", 32)
	write(t, strings.Repeat("x", 100), dir, "blobs", part+"-partial")
	write(t, `{"N":0,"Offset":0,"Size":50,"Completed":30}`, dir, "blobs", part+"-partial-0")
	write(t, `{"N":1,"Offset":50,"Size":50,"Completed":12}`, dir, "blobs", part+"-partial-1")
	same(t, shown(list(t, Store{Ollama, dir}), dir), []string{
		"ollama bare:latest: the manifest names no model layer",
		"ollama blobs/sha256-abababababab partial: a download that has not ended, 42 of 100 bytes: ollama pull resumes it",
		"ollama empty:latest: the manifest cannot be read: unexpected end of JSON input",
		`ollama evil:latest: the manifest's layer 0 has no SHA-256 digest: "sha256:../../../etc/passwd"`,
		"ollama gone:latest: the model layer: blob " + fmt.Sprintf("%.12x", sha256.Sum256([]byte("soon gone")))[:12] + " is not there",
		"ollama hf.co/org/repo:Q4_K_M <ollama:hf.co/org/repo:Q4_K_M>",
		"ollama llama3.2:latest <ollama:llama3.2:latest> own template",
		"ollama llava:7b <ollama:llava:7b> with sha256-" + fmt.Sprintf("%x", sha256.Sum256([]byte("GGUF clip"))),
		"ollama me/tuned:v1 <ollama:me/tuned:v1> 1 adapters",
		"ollama mlx:latest: the model lies in 2 layers of one tensor each, which llama.cpp does not read",
		"ollama none:latest: the manifest lists no layers",
		"ollama short:latest: the model layer: blob " + fmt.Sprintf("%x", sha256.Sum256([]byte("soon short")))[:12] + " has 4 bytes, the manifest says 10",
		"ollama torn:latest: the manifest cannot be read: unexpected end of JSON input",
	})
}

// hubRepo writes a repository of the Hugging Face cache: files of one commit, as
// links to blobs.
func hubRepo(t *testing.T, hub, repo, commit, ref string, files ...string) {
	t.Helper()
	dir := filepath.Join(hub, "models--"+strings.ReplaceAll(repo, "/", "--"))
	if ref != "" {
		write(t, commit+"\n", dir, "refs", ref)
	}
	for _, f := range files {
		sum := sha256.Sum256([]byte(repo + f))
		name := hex.EncodeToString(sum[:])
		write(t, f, dir, "blobs", name)
		up := strings.Repeat("../", 2+strings.Count(f, "/"))
		link(t, up+"blobs/"+name, dir, "snapshots", commit, filepath.FromSlash(f))
	}
}

func TestHuggingFace(t *testing.T) {
	hub := t.TempDir()
	hubRepo(t, hub, "org/plain", strings.Repeat("1", 40), "main", "config.json", "model.safetensors")
	hubRepo(t, hub, "org/many-GGUF", strings.Repeat("2", 40), "main", "m-Q8_0.gguf", "m-Q4_K_M.gguf", "BF16/m-BF16-00001-of-00002.gguf", "BF16/m-BF16-00002-of-00002.gguf", "mmproj-F16.gguf")
	hubRepo(t, hub, "org/many-GGUF", strings.Repeat("3", 40), "", "m-Q4_K_M.gguf")
	hubRepo(t, hub, "org/many-GGUF", strings.Repeat("4", 40), "v2", "m-Q2_K.gguf")
	hubRepo(t, hub, "gpt2", strings.Repeat("5", 40), "", "model.safetensors")
	hubRepo(t, hub, "org/tokenizer", strings.Repeat("6", 40), "main", "config.json", "tokenizer.json")
	write(t, "half", hub, "models--org--half", "blobs", "abc.incomplete")
	write(t, "x", hub, "datasets--org--data", "snapshots", "1", "train.parquet")
	all := list(t, Store{HuggingFace, hub})
	same(t, shown(all, hub), []string{
		"huggingface gpt2/model <hf:gpt2/model>",
		"huggingface org/half partial: a download that has not ended: 1 of its files are incomplete",
		"huggingface org/many-GGUF/BF16/m-BF16 <hf:org/many-GGUF/BF16/m-BF16> 2 files",
		"huggingface org/many-GGUF/m-Q4_K_M <hf:org/many-GGUF/m-Q4_K_M> with mmproj-F16.gguf",
		"huggingface org/many-GGUF/m-Q8_0 <hf:org/many-GGUF/m-Q8_0> with mmproj-F16.gguf",
		"huggingface org/many-GGUF@33333333/m-Q4_K_M <hf:org/many-GGUF@33333333/m-Q4_K_M>",
		"huggingface org/many-GGUF@v2/m-Q2_K <hf:org/many-GGUF@v2/m-Q2_K>",
		"huggingface org/plain <hf:org/plain>",
	})
	for _, m := range all {
		if m.Name == "org/many-GGUF/m-Q8_0" && len(m.Digest) != 64 {
			t.Errorf("%s: digest %q, want the blob's name", m.Name, m.Digest)
		}
	}
}

// home makes a home folder with a store of every kind.
func home(t *testing.T) Env {
	dir := t.TempDir()
	ollamaModel(t, filepath.Join(dir, ".ollama/models"), "registry.ollama.ai/library/llama3.2/3b", "model=GGUF one")
	ollamaModel(t, filepath.Join(dir, ".ollama/models"), "registry.ollama.ai/library/llama3.2/latest", "model=GGUF one")
	hub := filepath.Join(dir, ".cache/huggingface/hub")
	hubRepo(t, hub, "org/many-GGUF", strings.Repeat("2", 40), "main", "m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-Q2_K.gguf", "mmproj-F16.gguf")
	hubRepo(t, hub, "org/many-GGUF", strings.Repeat("4", 40), "v2", "m-Q2_K.gguf")
	hubRepo(t, hub, "Org/One", strings.Repeat("5", 40), "main", "config.json", "model.safetensors")
	write(t, "x", dir, ".lmstudio/models/bartowski/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Instruct-Q4_K_M.gguf")
	write(t, "x", dir, ".lmstudio/models/bartowski/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Instruct-Q8_0.gguf")
	write(t, "x", dir, ".lmstudio/models/mlx-community/Qwen3-4B/model.safetensors")
	write(t, "{}", dir, ".lmstudio/models/mlx-community/Qwen3-4B/config.json")
	write(t, "x", dir, ".cache/llama.cpp/org_repo_m.gguf")
	write(t, "x", dir, "text-generation-webui/user_data/models/tg.gguf")
	write(t, "x", dir, ".local/share/nomic.ai/GPT4All/g4a.gguf")
	write(t, "x", dir, ".local/share/Jan/data/llamacpp/models/qwen/model.gguf")
	elsewhere := write(t, "x", dir, "Downloads/imported.gguf")
	write(t, "name: imported\nmodel_path: "+elsewhere+"\n", dir, ".local/share/Jan/data/llamacpp/models/imported/model.yml")
	return Env{"linux", dir, func(string) string { return "" }}
}

func TestStores(t *testing.T) {
	e := home(t)
	same(t, shown(list(t, Stores(e)...), e.Home), []string{
		"lmstudio bartowski/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Instruct-Q4_K_M <lmstudio:bartowski/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Instruct-Q4_K_M>",
		"lmstudio bartowski/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Instruct-Q8_0 <lmstudio:bartowski/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Instruct-Q8_0>",
		"lmstudio mlx-community/Qwen3-4B <lmstudio:mlx-community/Qwen3-4B>",
		"ollama llama3.2:3b <ollama:llama3.2:3b>",
		"ollama llama3.2:latest <ollama:llama3.2:latest>",
		"huggingface Org/One <hf:Org/One>",
		"huggingface org/many-GGUF/m-Q2_K <hf:org/many-GGUF/m-Q2_K> with mmproj-F16.gguf",
		"huggingface org/many-GGUF/m-Q4_K_M <hf:org/many-GGUF/m-Q4_K_M> with mmproj-F16.gguf",
		"huggingface org/many-GGUF/m-Q8_0 <hf:org/many-GGUF/m-Q8_0> with mmproj-F16.gguf",
		"huggingface org/many-GGUF@v2/m-Q2_K <hf:org/many-GGUF@v2/m-Q2_K>",
		"llama.cpp org_repo_m <DIR/.cache/llama.cpp/org_repo_m.gguf>",
		"text-generation-webui tg <DIR/text-generation-webui/user_data/models/tg.gguf>",
		"gpt4all g4a <DIR/.local/share/nomic.ai/GPT4All/g4a.gguf>",
		"jan imported <DIR/Downloads/imported.gguf>",
		"jan qwen <DIR/.local/share/Jan/data/llamacpp/models/qwen/model.gguf>",
	})
}

// TestResolveBesideADownload holds that a repository's name means what of it is
// there, and only without that what is not.
func TestResolveBesideADownload(t *testing.T) {
	e := home(t)
	hub := filepath.Join(e.Home, ".cache/huggingface/hub")
	write(t, "", hub, "models--org--many-GGUF/blobs/"+strings.Repeat("5", 64)+".incomplete")
	write(t, "", hub, "models--org--begun/blobs/"+strings.Repeat("6", 64)+".incomplete")
	if m, err := Resolve(t.Context(), e, "hf:org/many-GGUF"); err != nil || m.Name != "org/many-GGUF/m-Q4_K_M" || m.Fault != nil {
		t.Errorf("Resolve() = %q, %v, %v", m.Name, m.Fault, err)
	}
	if m, err := Resolve(t.Context(), e, "hf:org/begun"); err != nil || !m.Partial || m.Fault == nil {
		t.Errorf("Resolve() = %+v, %v", m, err)
	}
}

func TestResolve(t *testing.T) {
	e := home(t)
	for ref, want := range map[string]string{
		"ollama:llama3.2":                            "llama3.2:latest",
		"ollama:llama3.2:3b":                         "llama3.2:3b",
		"ollama:library/Llama3.2:3B":                 "llama3.2:3b",
		"ollama:registry.ollama.ai/library/llama3.2": "llama3.2:latest",
		"hf:org/many-GGUF":                           "org/many-GGUF/m-Q4_K_M",
		"hf:org/many-GGUF:q8_0":                      "org/many-GGUF/m-Q8_0",
		"hf:org/many-GGUF/m-Q2_K":                    "org/many-GGUF/m-Q2_K",
		"hf:org/many-GGUF@v2":                        "org/many-GGUF@v2/m-Q2_K",
		"hf:org/many-GGUF@44444444":                  "org/many-GGUF@v2/m-Q2_K",
		"hf:org/many-GGUF@main":                      "org/many-GGUF/m-Q4_K_M",
		"hf:org/one":                                 "Org/One",
		"lmstudio:qwen3-4b":                          "mlx-community/Qwen3-4B",
		"lmstudio:Llama-3.2-1B-Instruct-Q8_0":        "bartowski/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Instruct-Q8_0",
		"lmstudio:Llama-3.2-1B-Instruct-Q8_0.gguf":   "bartowski/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Instruct-Q8_0",
		"lmstudio:llama-3.2-1b-instruct@q4_k_m":      "bartowski/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Instruct-Q4_K_M",
		"ollama:none":                                "ollama:none: no such model in DIR/.ollama/models; there is llama3.2:3b, llama3.2:latest",
		"hf:org/many-GGUF:Q3_K_S":                    "hf:org/many-GGUF:Q3_K_S: no such model in DIR/.cache/huggingface/hub, DIR/.cache/llama.cpp; there is Org/One, org/many-GGUF/m-Q2_K, org/many-GGUF/m-Q4_K_M, org/many-GGUF/m-Q8_0, org/many-GGUF@v2/m-Q2_K",
		"lmstudio:llama-3.2-1b-instruct":             "lmstudio:llama-3.2-1b-instruct: 2 models are called so: name one of bartowski/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Instruct-Q4_K_M, bartowski/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Instruct-Q8_0",
		"ollama:":                                    "ollama:: no such model in DIR/.ollama/models; there is llama3.2:3b, llama3.2:latest",
		"ollama:../../../../etc/passwd":              "ollama:../../../../etc/passwd: no such model in DIR/.ollama/models; there is llama3.2:3b, llama3.2:latest",
	} {
		t.Run(ref, func(t *testing.T) {
			if !IsRef(ref) {
				t.Fatal("not taken for a reference")
			}
			m, err := Resolve(context.Background(), e, ref)
			got := m.Name
			var missing *NotFoundError
			if errors.As(err, &missing) {
				got = strings.ReplaceAll(filepath.ToSlash(err.Error()), filepath.ToSlash(e.Home), "DIR")
			} else if err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("resolved to %q, want %q", got, want)
			}
		})
	}
	if _, err := Resolve(context.Background(), Env{"linux", t.TempDir(), e.Get}, "ollama:x"); err == nil || !strings.Contains(err.Error(), "no such store") {
		t.Errorf("without a store: %v", err)
	}
}

func TestPlaces(t *testing.T) {
	for name, tt := range map[string]struct {
		e    Env
		dirs func(Env) []string
		want string
	}{
		"ollama's own variable":        {Env{"linux", "/h", envOf("OLLAMA_MODELS=/m")}, ollamaDirs, "/m"},
		"ollama of the service":        {Env{"linux", "/h", envOf()}, ollamaDirs, "/usr/share/ollama/.ollama/models"},
		"the hub's variable":           {Env{"linux", "/h", envOf("HF_HUB_CACHE=/m", "HF_HOME=/n")}, huggingFaceDirs, "/m"},
		"the hub's home":               {Env{"linux", "/h", envOf("HF_HOME=/n")}, huggingFaceDirs, "/n/hub"},
		"the hub below the cache":      {Env{"linux", "/h", envOf("XDG_CACHE_HOME=/c")}, huggingFaceDirs, "/c/huggingface/hub"},
		"llama.cpp on macOS":           {Env{"darwin", "/h", envOf()}, llamaCppDirs, "/h/Library/Caches/llama.cpp"},
		"llama.cpp on Windows":         {Env{"windows", "/h", envOf("LOCALAPPDATA=/l")}, llamaCppDirs, "/l/llama.cpp"},
		"gpt4all on macOS":             {Env{"darwin", "/h", envOf()}, gpt4AllDirs, "/h/Library/Application Support/nomic.ai/GPT4All"},
		"jan on Windows":               {Env{"windows", "/h", envOf("APPDATA=/a")}, janDirs, "/a/Jan/data/llamacpp/models"},
		"lm studio without a home":     {Env{"linux", "", envOf()}, lmStudioDirs, ""},
		"lm studio before it moved":    {Env{"linux", "/h", envOf()}, lmStudioDirs, "/h/.cache/lm-studio/models"},
		"no cache folder without home": {Env{"linux", "", envOf()}, llamaCppDirs, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, d := range tt.dirs(tt.e) {
				got = append(got, filepath.ToSlash(d))
			}
			if tt.want == "" && len(got) > 0 || tt.want != "" && !slices.Contains(got, tt.want) {
				t.Errorf("looks in %q, want %q among them", got, tt.want)
			}
		})
	}
}

func envOf(pairs ...string) func(string) string {
	return func(name string) string {
		for _, p := range pairs {
			if k, v, _ := strings.Cut(p, "="); k == name {
				return v
			}
		}
		return ""
	}
}

// FuzzManifest holds that a manifest that is taken can be turned into paths.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"sha256:` + strings.Repeat("0", 64) + `"},"layers":[{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:` + strings.Repeat("a1", 32) + `","size":12}]}`))
	f.Add([]byte(`{"layers":[{"mediaType":"application/vnd.ollama.image.tensor; name=a","digest":"sha256-` + strings.Repeat("a1", 32) + `","size":-1}]}`))
	f.Add([]byte(`{"layers":[{"digest":"sha256:../../x"}]}`))
	f.Add([]byte(`[]`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseManifest(b)
		if err != nil {
			if m != nil {
				t.Error("a manifest and an error")
			}
			return
		}
		for _, l := range m.Layers {
			if hex := sha256Of(l.Digest); len(hex) != 64 || strings.ContainsAny(hex, `/\.:`) {
				t.Errorf("digest %q became %q", l.Digest, hex)
			}
			if l.Size < 0 {
				t.Errorf("size %d", l.Size)
			}
		}
		path := filepath.Join(dir, "manifest")
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if got := readOllama(path, dir); got.Fault == nil {
			t.Errorf("a model without blobs: %+v", got)
		}
	})
}

// BenchmarkList lists 10,000 files: 1,000 folders with a model of ten shards
// each.
func BenchmarkList(b *testing.B) {
	dir := b.TempDir()
	for i := range 1000 {
		d := filepath.Join(dir, fmt.Sprintf("org%02d", i/50), fmt.Sprintf("repo%d", i))
		if err := os.MkdirAll(d, 0o755); err != nil {
			b.Fatal(err)
		}
		for j := range 10 {
			if err := os.WriteFile(filepath.Join(d, fmt.Sprintf("m-%05d-of-00010.gguf", j+1)), nil, 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	for b.Loop() {
		if all, _, err := List(context.Background(), []Store{{Folder, dir}}, nil); err != nil || len(all) != 1000 {
			b.Fatalf("%d models, %v", len(all), err)
		}
	}
}
