package hf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"weigh/formats/hfconfig"
)

// checkpointParts name the models inside a single-file checkpoint by the prefix
// of their tensors.
var checkpointParts = []struct{ prefix, name string }{
	{"model.diffusion_model.", "diffusion model"},
	{"first_stage_model.", "VAE"},
	{"vae.", "VAE"},
	{"cond_stage_model.", "text encoder"},
	{"conditioner.embedders.0.", "text encoder"},
	{"conditioner.embedders.1.", "text encoder 2"},
	{"text_encoders.", "text encoders"},
	{"model_ema.", "averaged copy of the diffusion model"},
	{"joint_blocks.", "diffusion model"},
	{"double_blocks.", "diffusion model"},
	{"single_blocks.", "diffusion model"},
}

// checkpointComponents returns the models in a single-file checkpoint, and for a
// language model with other towers what belongs to each; nil when all is one.
// diffusion says that it is the former.
func checkpointComponents(weights []Weight) (parts []Component, diffusion bool) {
	add := func(name string, w *Weight) {
		i := slices.IndexFunc(parts, func(c Component) bool { return c.Name == name })
		if i < 0 {
			i = len(parts)
			parts = append(parts, Component{Name: name})
		}
		parts[i].Tensors++
		parts[i].Params += w.Params
		parts[i].Bytes += w.Bytes
	}
	diffusion = slices.ContainsFunc(weights, func(w Weight) bool {
		return slices.ContainsFunc(checkpointParts, func(p struct{ prefix, name string }) bool { return strings.HasPrefix(w.Name, p.prefix) })
	})
	// Without a prefix for it, the diffusion model has all that is not another's.
	rest := "other"
	if slices.ContainsFunc(weights, func(w Weight) bool {
		return slices.ContainsFunc([]string{"joint_blocks.", "double_blocks.", "single_blocks."}, func(p string) bool { return strings.HasPrefix(w.Name, p) })
	}) {
		rest = "diffusion model"
	}
	for i := range weights {
		w := &weights[i]
		name := "language model"
		if diffusion {
			name = rest
			for _, p := range checkpointParts {
				if strings.HasPrefix(w.Name, p.prefix) {
					name = p.name
					break
				}
			}
		} else if isMultimodal(w.Name) {
			name = "vision and audio"
		}
		add(name, w)
	}
	if len(parts) == 1 && !diffusion {
		return nil, false
	}
	return parts, diffusion
}

// openPipeline reads a diffusers folder: model_index.json and a subfolder for
// each model.
func openPipeline(path string, f *folder) (*Model, error) {
	m := &Model{Path: path, Config: f.pipeline, Class: f.pipeline.String("_class_name"), Type: "pipeline"}
	names := make([]string, 0, len(f.pipeline))
	for name, v := range f.pipeline {
		if list, ok := v.([]any); ok && len(list) == 2 && list[1] != nil && filepath.IsLocal(name) && !strings.ContainsAny(name, `/\`) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		sub := filepath.Join(f.dir, name)
		if info, err := os.Stat(sub); err != nil || !info.IsDir() {
			continue
		}
		inner, err := gather(sub)
		if errors.Is(err, ErrNoModel) || errors.Is(err, fs.ErrNotExist) || err == nil && inner.pipeline != nil {
			continue // a scheduler, a tokenizer; a pipeline in a pipeline may be the same one again
		}
		if err != nil {
			return nil, err
		}
		part, err := inner.open(sub)
		if err != nil {
			return nil, err
		}
		if len(part.Files) == 0 {
			m.Notes = append(m.Notes, name+" has no weights that are read here")
			if p := inner.pickle(); p != "" {
				m.Notes[len(m.Notes)-1] = fmt.Sprintf("%s is not counted: %s is a pickle, which only running it can read", name, p)
			}
			continue
		}
		class, _ := f.pipeline[name].([]any)[1].(string)
		m.Components = append(m.Components, Component{Name: name, Class: class, Tensors: part.StoredTensors, Params: part.Params, Bytes: part.Bytes})
		for _, file := range part.Files {
			file.Name = name + "/" + file.Name
			m.Files = append(m.Files, file)
		}
		for _, p := range part.Problems {
			p.Field = name + "/" + p.Field
			m.Problems = append(m.Problems, p)
		}
		m.Weights = append(m.Weights, part.Weights...)
		m.Params += part.Params
		m.Bytes += part.Bytes
		m.StoredElements += part.StoredElements
		m.StoredTensors += part.StoredTensors
	}
	if len(m.Files) == 0 {
		return nil, &fs.PathError{Op: "open", Path: path, Err: ErrNoModel}
	}
	m.BitsPerWeight = perWeight(m.Bytes, m.Params)
	m.Quant = quantOf(hfconfig.ReadQuantization(nil, nil, nil), m.Weights)
	return m, nil
}
