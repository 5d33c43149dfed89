package main

import (
	"errors"
	"io/fs"
	"strings"

	"weigh/cmd/weigh/internal/llama"
	"weigh/estimate"
	"weigh/estimate/hw"
	"weigh/formats"
	"weigh/inspect"
	"weigh/inspect/hf"
	"weigh/inspect/store"
)

// hintFor returns the next step after an error, "" when there is none to name.
func hintFor(err error) string {
	var lfs *formats.LFSPointer
	var unknown *llama.UnknownError
	var several *inspect.SeveralModelsError
	var refused *estimate.RefusedError
	var faulty *faultyModelError
	var card *hw.UnknownCardError
	var notFound *store.NotFoundError
	text := err.Error()
	switch {
	case errors.Is(err, errNoModel):
		return "name a file, a folder, or a model that weigh scan lists"
	case errors.As(err, &lfs):
		return "fetch the real file: git lfs pull"
	case errors.As(err, &several):
		return "weigh scan " + several.Dir + " lists them all"
	case errors.As(err, &notFound):
		return "weigh scan lists the models on this machine; nothing is downloaded"
	case errors.As(err, &unknown):
		return "weigh estimate --help lists the flags"
	case errors.As(err, &card):
		return "weigh gpus --catalog lists the known cards; a size such as --gpu 24GiB works too"
	case errors.As(err, &faulty):
		return "weigh check " + quote(faulty.path) + " lists what of the file contradicts itself"
	case errors.As(err, &refused):
		return "llama.cpp refuses this setting as well"
	case errors.Is(err, hf.ErrNoModel):
		return "name a .gguf file, a .safetensors file, or a folder with either"
	case strings.Contains(text, "is missing") && errors.Is(err, fs.ErrNotExist):
		return "all shards lie in one folder under their original names; download the missing one"
	case errors.Is(err, fs.ErrNotExist):
		return "check the path; weigh scan lists the models on this machine"
	case errors.Is(err, fs.ErrPermission):
		return "the file is there, but may not be read: check its owner and mode"
	case strings.Contains(text, "pickle"), strings.Contains(text, "zip archive"):
		return "convert it first: llama.cpp's convert_hf_to_gguf.py reads the folder it came in"
	case strings.Contains(text, "bytes short"):
		return "the download stopped early: resume it"
	}
	return ""
}
