package inspect_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"weigh/inspect"
	"weigh/inspect/hf"
)

// TestNothingStaysOpen opens models, whole and broken: afterwards the process
// has the files and the goroutines that it had before.
func TestNothingStaysOpen(t *testing.T) {
	const missing, broken = "model-00002-of-00004.safetensors", "model-00003-of-00004.safetensors"
	cases := map[string]dir{
		"m.gguf":  newDir(t).gguf("m.gguf"),
		shard(2):  newDir(t).shards(),
		shard(0):  newDir(t).shards().remove(shard(2)),
		shard(1):  newDir(t).shards().write(shard(2), "GGUF"),
		"x.gguf":  newDir(t).write("x.gguf", "GGUF and no more than that"),
		".":       newDir(t).hf(label).write("tokenizer.json", "{").write("modules.json", "["),
		"./":      newDir(t).hf(label).remove(missing),
		"././":    newDir(t).hf(label).write(broken, "12345678{"),
		"./././":  newDir(t).hf(label).write("config.json", "{"),
		"././../": newDir(t),
		"blob":    newDir(t).safetensors("blob"),
		"unet/..": pipeline(newDir(t), "unet", "."),
	}
	all := func() {
		for name, d := range cases {
			path := d.path + string(filepath.Separator) + name
			if m, err := inspect.Open(path); err == nil {
				d.must(m.Close())
				d.must(m.Close()) // twice is once
			}
			hf.Check(path)
		}
	}
	all() // what is made once, such as the poller, is there from now on
	files, goroutines := descriptors(t), runtime.NumGoroutine()
	for range 3 {
		all()
	}
	if n := descriptors(t); n != files {
		t.Errorf("%d files are open, %d before", n, files)
	}
	if n := runtime.NumGoroutine(); n != goroutines {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
}

func descriptors(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
