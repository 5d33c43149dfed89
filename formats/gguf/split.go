package gguf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"

	"weigh/formats"
)

// maxShards is the largest split.count, a u16.
const maxShards = 1<<16 - 1

// An Opener opens the file of a name and says its size in bytes. Closing it is
// left to whoever made the Opener.
type Opener func(name string) (src io.ReaderAt, size int64, err error)

// A Set is a model in one file or in all the shards of a split one.
type Set struct {
	Names []string // as given to the Opener, in the order of split.no
	Files []*File
}

// Lookup returns the value of key in the first file, where llama.cpp takes the
// metadata from, as File.Lookup does.
func (s *Set) Lookup(key string) (any, bool) { return s.Files[0].Lookup(key) }

// Tensors yields the tensors of all files with the index of their file.
func (s *Set) Tensors() iter.Seq2[int, *Tensor] {
	return func(yield func(int, *Tensor) bool) {
		for i, f := range s.Files {
			for j := range f.Tensors {
				if !yield(i, &f.Tensors[j]) {
					return
				}
			}
		}
	}
}

// ReadSet reads the model that the named file belongs to: the file alone, or
// when it has a split.count above 1 all its shards, whichever of them it is.
// The shards lie beside it and are named as llama.cpp names them
// (src/llama.cpp@v0.5.0, llama_split_path). They number themselves as their
// names do, hold split.tensors.count tensors together and none of them twice
// (src/llama-model-loader.cpp@v0.5.0, llama_model_loader). An error begins with
// the name of the file at fault; one for a missing shard is a fs.ErrNotExist.
func ReadSet(open Opener, name string) (*Set, error) {
	f, err := readNamed(open, name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	names, fault := f.shardNames(name)
	if fault != nil {
		return nil, fmt.Errorf("%s: %w", name, fault)
	}
	s := &Set{names, make([]*File, len(names))}
	left := maxTensors
	for i, n := range names {
		if s.Files[i] = f; n != name {
			if s.Files[i], err = readNamed(open, n); err != nil {
				return nil, fmt.Errorf("%s: %w", n, missing(i, len(names), err))
			}
		}
		if left -= len(s.Files[i].Tensors); left < 0 {
			return nil, fmt.Errorf("%s: %w", n, splitError(-1, "tensors", "the shards have over %d tensors", maxTensors))
		}
	}
	for i, fault := range s.faults() {
		return nil, fmt.Errorf("%s: %w", names[i], fault.err)
	}
	return s, nil
}

func readNamed(open Opener, name string) (*File, error) {
	src, size, err := open(name)
	if err != nil {
		return nil, err
	}
	return Read(src, size)
}

// missing says which shard it is that could not be opened.
func missing(i, n int, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("shard %d of %d is missing: %w", i+1, n, err)
	}
	return err
}

// A Shard is what CheckSet found in one file.
type Shard struct {
	Name     string
	Problems []formats.Problem
}

// CheckSet checks each file that ReadSet would read, as Check does, and then
// that they belong together. The error is that of opening the named file.
func CheckSet(open Opener, name string) ([]Shard, error) {
	src, size, err := open(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	first := Shard{name, Check(src, size)}
	f, err := Read(src, size)
	if err != nil {
		return []Shard{first}, nil
	}
	names, fault := f.shardNames(name)
	if fault != nil {
		first.Problems = append(first.Problems, problem("split-name", fault))
		return []Shard{first}, nil
	}
	s := &Set{names, make([]*File, len(names))}
	shards := make([]Shard, len(names))
	absent := 0
	for i, n := range names {
		if shards[i].Name = n; n == name {
			shards[i], s.Files[i] = first, f
			continue
		}
		src, size, err := open(n)
		if err != nil {
			if absent++; absent <= maxProblems {
				shards[i].Problems = []formats.Problem{problem("missing-shard", splitError(-1, "file", "%w", missing(i, len(names), err)))}
			}
			continue
		}
		shards[i].Problems = Check(src, size)
		s.Files[i], _ = Read(src, size)
	}
	for i, fault := range s.faults() {
		if ps := &shards[i].Problems; len(*ps) <= maxProblems {
			*ps = append(*ps, problem(fault.code, fault.err))
		}
	}
	return shards, nil
}

func problem(code string, err *formats.Error) formats.Problem {
	return formats.Problem{Severity: formats.SeverityError, Code: code, Message: err.Err.Error(), Offset: err.Offset, Field: err.Field}
}

func splitError(offset int64, field, format string, args ...any) *formats.Error {
	return &formats.Error{Format: "gguf", Offset: offset, Field: field, Err: fmt.Errorf(format, args...)}
}

// splitKey returns an integer key of the split and its offset.
func (f *File) splitKey(key string) (v, offset int64, ok bool) {
	kv, ok := f.KV(key)
	if !ok {
		return 0, -1, false
	}
	v, ok = f.value(kv).(int64)
	return v, kv.Offset, ok
}

// shardNames returns the names of all shards of the split that the file of the
// given name is one of; that name alone when it is whole.
func (f *File) shardNames(name string) ([]string, *formats.Error) {
	count, at, ok := f.splitKey("split.count")
	if !ok || count <= 1 {
		return []string{name}, nil
	}
	if count > maxShards {
		return nil, splitError(at, "split.count", "%d shards are over the limit of %d", count, maxShards)
	}
	no, at, ok := f.splitKey("split.no")
	if !ok || no < 0 || no >= count {
		return nil, splitError(at, "split.no", "want a number from 0 to %d", count-1)
	}
	prefix, ok := strings.CutSuffix(name, shardSuffix(int(no), int(count)))
	if !ok {
		return nil, splitError(at, "split.no", "this is shard %d of %d, but its name does not end in %q; give it back its name",
			no+1, count, shardSuffix(int(no), int(count)))
	}
	names := make([]string, count)
	for i := range names {
		names[i] = prefix + shardSuffix(i, int(count))
	}
	return names, nil
}

// shardSuffix ends the name of shard i of n.
func shardSuffix(i, n int) string { return fmt.Sprintf("-%05d-of-%05d.gguf", i+1, n) }

// A setFault is what keeps shards from being one model.
type setFault struct {
	code string
	err  *formats.Error
}

// faults yields what is wrong between the files, those that were read, with
// the index of the file.
func (s *Set) faults() iter.Seq2[int, setFault] {
	return func(yield func(int, setFault) bool) {
		if len(s.Files) == 1 {
			return
		}
		tensors := 0
		seen := map[string]int{}
		for i, f := range s.Files {
			if f == nil {
				tensors = -1
				continue
			}
			if no, at, ok := f.splitKey("split.no"); !ok || no != int64(i) {
				if !yield(i, setFault{"wrong-shard", splitError(at, "split.no", "want %d, as the file's name says", i)}) {
					return
				}
			}
			if n, at, ok := f.splitKey("split.count"); !ok || n != int64(len(s.Files)) {
				if !yield(i, setFault{"wrong-shard", splitError(at, "split.count", "want %d, as the file's name says", len(s.Files))}) {
					return
				}
			}
			for j := range f.Tensors {
				t := &f.Tensors[j]
				first, ok := seen[t.Name]
				if !ok {
					seen[t.Name] = i
				} else if !yield(i, setFault{"duplicate-tensor", splitError(t.HeaderOffset, fmt.Sprintf("tensor %d (%s) name", j, printable(t.Name)),
					"shard %d has this tensor already", first+1)}) {
					return
				}
			}
			if tensors >= 0 {
				tensors += len(f.Tensors)
			}
		}
		if f := s.Files[0]; f != nil && tensors >= 0 {
			if n, at, ok := f.splitKey("split.tensors.count"); !ok || n != int64(tensors) {
				yield(0, setFault{"split-tensor-count", splitError(at, "split.tensors.count", "want %d, the tensors of all shards", tensors)})
			}
		}
	}
}
