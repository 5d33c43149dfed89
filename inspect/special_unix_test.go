//go:build unix

package inspect_test

import (
	"io/fs"
	"net"
	"os"
	"syscall"
	"testing"

	"weigh/formats"
	"weigh/inspect"
)

func (d dir) fifo(name string) dir {
	d.Helper()
	d.must(syscall.Mkfifo(d.at(name), 0o600))
	return d
}

// Nothing here has a writer: opening any of the pipes would wait for ever.
func TestOpenWaitsForNoPipeAndOpensNoDevice(t *testing.T) {
	tests := map[string]struct {
		fill func(dir) dir
		path string
		want any
	}{
		"a pipe":                         {func(d dir) dir { return d.fifo("m.gguf") }, "m.gguf", inspect.ErrNotAFile},
		"a pipe in a folder":             {func(d dir) dir { return d.fifo("m.gguf") }, ".", inspect.ErrNotAFile},
		"a link to a pipe":               {func(d dir) dir { return d.fifo("p").link("p", "m.gguf") }, "m.gguf", inspect.ErrNotAFile},
		"a device":                       {func(d dir) dir { return d.link("/dev/zero", "m.gguf") }, "m.gguf", inspect.ErrNotAFile},
		"a socket":                       {socket, "m.gguf", inspect.ErrNotAFile},
		"a shard that is a pipe":         {func(d dir) dir { return d.shards().remove(shard(1)).fifo(shard(1)) }, shard(0), formats.ErrNotRegular},
		"a shard that is a device":       {func(d dir) dir { return d.shards().remove(shard(1)).link("/dev/zero", shard(1)) }, shard(0), formats.ErrNotRegular},
		"weights that are a pipe":        {func(d dir) dir { return d.write("config.json", "{}").fifo("model.safetensors") }, ".", formats.ErrNotRegular},
		"an index that is a pipe":        {func(d dir) dir { return d.fifo("model.safetensors.index.json") }, ".", formats.ErrNotRegular},
		"a configuration that is a pipe": {func(d dir) dir { return d.safetensors("model.safetensors").fifo("config.json") }, ".", formats.ErrNotRegular},
		"a configuration of zeros":       {func(d dir) dir { return d.safetensors("model.safetensors").link("/dev/zero", "config.json") }, ".", formats.ErrNotRegular},
		"a part that is a pipe": {func(d dir) dir {
			return pipeline(d, "unet").remove("unet/model.safetensors").fifo("unet/model.safetensors")
		}, ".", formats.ErrNotRegular},
		"an unreadable file":   {func(d dir) dir { return unreadable(d.gguf("m.gguf"), "m.gguf") }, "m.gguf", fs.ErrPermission},
		"an unreadable shard":  {func(d dir) dir { return unreadable(d.shards(), shard(1)) }, shard(0), fs.ErrPermission},
		"an unreadable folder": {func(d dir) dir { return unreadable(d.write("in/x", ""), "in") }, "in", fs.ErrPermission},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := newDir(t)
			d.TB = t
			tt.fill(d)
			refuses(t, d.at(tt.path), tt.want)
		})
	}
	t.Run("a vocabulary that is a pipe is not counted", func(t *testing.T) {
		d := newDir(t).hf(label).fifo("tokenizer.json").fifo("modules.json")
		m, err := inspect.Open(d.path)
		d.must(err)
		d.must(m.Close())
	})
}

func socket(d dir) dir {
	d.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: d.at("m.gguf"), Net: "unix"})
	if err != nil {
		d.Skip("no socket can be made here:", err)
	}
	d.Cleanup(func() { l.Close() })
	return d
}

func unreadable(d dir, name string) dir {
	d.Helper()
	if os.Geteuid() == 0 {
		d.Skip("root reads every file")
	}
	d.must(os.Chmod(d.at(name), 0))
	d.Cleanup(func() { os.Chmod(d.at(name), 0o700) })
	return d
}
