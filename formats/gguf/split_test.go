package gguf_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"reflect"
	"strings"
	"testing"

	"weigh/fixtures"
	"weigh/formats"
	"weigh/formats/gguf"
)

// files is an Opener of files in memory.
type files map[string]*fixtures.GGUF

func (m files) open(name string) (io.ReaderAt, int64, error) {
	g, ok := m[name]
	if !ok {
		return nil, 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	b := g.Bytes()
	return bytes.NewReader(b), int64(len(b)), nil
}

// split is a model of three shards; the first holds the metadata only, as
// llama-gguf-split can write it.
func split() files {
	m := files{}
	for i := range 3 {
		g := &fixtures.GGUF{}
		if i == 0 {
			g.Set("general.architecture", "llama")
		}
		g.Set("split.no", uint16(i)).Set("split.count", uint16(3)).Set("split.tensors.count", int32(3))
		m[shard(i)] = g
	}
	m[shard(1)].Add("a", formats.F32, 32).Add("b", formats.F32, 32)
	m[shard(2)].Add("c", formats.F32, 32)
	return m
}

func shard(i int) string { return fmt.Sprintf("dir/m-%05d-of-00003.gguf", i+1) }

func TestReadSetFindsAllShardsFromAny(t *testing.T) {
	for i := range 3 {
		set, err := gguf.ReadSet(split().open, shard(i))
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{shard(0), shard(1), shard(2)}; !reflect.DeepEqual(set.Names, want) {
			t.Errorf("names %q, want %q", set.Names, want)
		}
		var tensors []string
		for file, ti := range set.Tensors() {
			tensors = append(tensors, fmt.Sprint(file, ti.Name))
		}
		if want := []string{"1a", "1b", "2c"}; !reflect.DeepEqual(tensors, want) {
			t.Errorf("tensors %q, want %q", tensors, want)
		}
		if arch, _ := set.Lookup("general.architecture"); arch != "llama" {
			t.Errorf("architecture %v from shard %d, want that of the first", arch, i)
		}
		shards, err := gguf.CheckSet(split().open, shard(i))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range shards {
			if len(s.Problems) > 0 {
				t.Errorf("%s: %v", s.Name, s.Problems)
			}
		}
	}
}

func TestReadSetTakesAWholeFileAlone(t *testing.T) {
	g := &fixtures.GGUF{}
	for _, name := range []string{"m.gguf", "m-00001-of-99999.gguf"} {
		set, err := gguf.ReadSet(files{name: g}.open, name)
		if err != nil || len(set.Files) != 1 {
			t.Errorf("ReadSet(%s) = %v, %v, want one file", name, set, err)
		}
	}
}

func TestReadSetRejects(t *testing.T) {
	tests := map[string]struct {
		change func(files)
		from   int
		file   int
		code   string
		want   string
	}{
		"a missing shard":           {func(m files) { delete(m, shard(1)) }, 0, 1, "missing-shard", "shard 2 of 3 is missing"},
		"a missing first shard":     {func(m files) { delete(m, shard(0)) }, 2, 0, "missing-shard", "shard 1 of 3 is missing"},
		"a shard in another place":  {func(m files) { m[shard(1)].Set("split.no", uint16(2)) }, 0, 1, "wrong-shard", "split.no"},
		"a shard of another split":  {func(m files) { m[shard(2)].Set("split.count", uint16(4)) }, 0, 2, "wrong-shard", "split.count"},
		"a tensor in two shards":    {func(m files) { m[shard(2)].Add("b", formats.F32, 1) }, 0, 2, "duplicate-tensor", "tensor 1 (b) name"},
		"a tensor too few":          {func(m files) { m[shard(0)].Set("split.tensors.count", int32(4)) }, 1, 0, "split-tensor-count", "want 3"},
		"a count that is no number": {func(m files) { m[shard(0)].Set("split.tensors.count", "3") }, 1, 0, "split-tensor-count", "want 3"},
		"a number out of range":     {func(m files) { m[shard(0)].Set("split.no", uint16(3)) }, 0, 0, "split-name", "from 0 to 2"},
		"a count out of range":      {func(m files) { m[shard(0)].Set("split.count", int64(1<<40)) }, 0, 0, "split-name", "over the limit"},
		"a renamed shard":           {func(m files) { m[shard(0)].Set("split.no", uint16(1)) }, 0, 0, "split-name", "-00002-of-00003.gguf"},
		"a malformed shard":         {func(m files) { m[shard(1)].Version = 9 }, 0, 1, "malformed-header", "version"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := split()
			tt.change(m)
			_, err := gguf.ReadSet(m.open, shard(tt.from))
			if err == nil || !strings.HasPrefix(err.Error(), shard(tt.file)+": ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("ReadSet() error = %v, want %q in %s", err, tt.want, shard(tt.file))
			}
			if got, want := errors.Is(err, fs.ErrNotExist), tt.code == "missing-shard"; got != want {
				t.Errorf("error is fs.ErrNotExist: %v, want %v", got, want)
			}
			shards, err := gguf.CheckSet(m.open, shard(tt.from))
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, s := range shards {
				for _, p := range s.Problems {
					found = found || s.Name == shard(tt.file) && p.Code == tt.code
				}
			}
			if !found {
				t.Errorf("CheckSet() = %+v, want %s in %s", shards, tt.code, shard(tt.file))
			}
		})
	}
}

func TestCheckSetOfAMissingFileIsAnError(t *testing.T) {
	if _, err := gguf.CheckSet(files{}.open, "m.gguf"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error = %v, want fs.ErrNotExist", err)
	}
}
