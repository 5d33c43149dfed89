// Package check looks for what is wrong with a model: with the structure of its
// files, with what the metadata says against the tensors, with the weights
// themselves, and with what its chat template can reach.
package check

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"weigh/formats"
	"weigh/formats/gguf"
	"weigh/inspect"
	"weigh/inspect/hf"
)

// A Problem is a fault of one file of a model.
type Problem struct {
	formats.Problem
	File string // "" when it is of the model as a whole
}

// Structure lists every fault of the structure of the model's files at path: of
// each file's header and its data's bounds, and between the files of one model.
// A file that is no model at all is one problem; the error is for what cannot
// be read. ins is the opened model where that was part of it, nil elsewhere.
func Structure(path string) (format string, problems []Problem, ins *inspect.Inspection, err error) {
	format, path, err = sniff(path)
	if err != nil {
		return "", nil, nil, err
	}
	if format == inspect.Safetensors {
		m, found, err := hf.Check(path)
		if err != nil {
			var fault *formats.Error
			var lfs *formats.LFSPointer
			var of *fs.PathError
			file := ""
			if errors.As(err, &of) {
				file = of.Path
				err = fmt.Errorf("%s: %w", of.Path, of.Err)
			}
			switch {
			case errors.As(err, &fault):
				return format, []Problem{{formats.Problem{Severity: formats.SeverityError, Code: "malformed", Message: fault.Err.Error(), Field: fault.Field, Offset: fault.Offset}, file}}, nil, nil
			case errors.As(err, &lfs):
				return format, []Problem{{formats.Problem{Severity: formats.SeverityError, Code: "lfs-pointer", Message: lfs.Error(), Field: "file"}, file}}, nil, nil
			}
			return "", nil, nil, err
		}
		for _, p := range found {
			problems = append(problems, Problem{p, ""})
		}
		if m != nil {
			ins = inspect.OfHF(path, m)
		}
		return format, problems, ins, nil
	}
	var open []*os.File
	defer func() {
		for _, f := range open {
			f.Close()
		}
	}()
	shards, err := gguf.CheckSet(func(name string) (io.ReaderAt, int64, error) {
		f, size, err := openRegular(name)
		if err == nil {
			open = append(open, f)
		}
		return f, size, err
	}, path)
	if err != nil {
		return "", nil, nil, err
	}
	for _, s := range shards {
		for _, p := range s.Problems {
			problems = append(problems, Problem{p, s.Name})
		}
	}
	return format, problems, nil, nil
}

// openRegular opens a file that is no pipe and no device.
func openRegular(name string) (*os.File, int64, error) {
	f, size, err := formats.Open(name)
	if errors.Is(err, formats.ErrNotRegular) {
		err = inspect.ErrNotAFile
	}
	return f, size, bare(err)
}

// bare is err without the path, which the caller adds.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// sniff tells a model's format, and the path of the one model of a folder,
// without reading it.
func sniff(path string) (format, file string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", path, bare(err))
	}
	if info.IsDir() {
		model, err := inspect.FolderModel(path)
		var several *inspect.SeveralModelsError
		switch {
		case errors.As(err, &several):
			return "", "", err
		case err == nil && model == path:
			return inspect.Safetensors, path, nil
		case err == nil:
			return inspect.GGUF, model, nil
		}
		if found, _ := filepath.Glob(filepath.Join(escape(path), "*.gguf")); len(found) > 0 {
			return inspect.GGUF, found[0], nil
		}
		return inspect.Safetensors, path, nil
	}
	switch name := strings.ToLower(path); filepath.Ext(name) {
	case ".json":
		if strings.HasSuffix(name, ".index.json") {
			return inspect.Safetensors, path, nil
		}
		return inspect.Safetensors, filepath.Dir(path), nil // a configuration stands for its folder
	case ".safetensors":
		return inspect.Safetensors, path, nil
	case ".gguf":
		return inspect.GGUF, path, nil
	}
	f, _, err := openRegular(path)
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	head := make([]byte, 9)
	if n, _ := f.ReadAt(head, 0); n == 9 && string(head[:4]) != "GGUF" && (head[8] == '{' || head[8] == ' ') {
		return inspect.Safetensors, path, nil
	}
	return inspect.GGUF, path, nil
}

// escape makes a folder's name safe in a pattern of filepath.Glob.
func escape(dir string) string {
	return strings.NewReplacer(`*`, `[*]`, `?`, `[?]`, `[`, `[[]`).Replace(dir)
}
