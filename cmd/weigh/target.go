package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"weigh/inspect"
	"weigh/inspect/store"
)

// openTarget opens the model that a word on the command line names: a path, or
// a model in a local store.
func openTarget(name string) (*inspect.Inspection, error) {
	if !store.IsRef(name) {
		return inspect.Open(name)
	}
	m, err := store.Resolve(context.Background(), store.Local(), name)
	if err != nil {
		return nil, err
	}
	return openStored(&m)
}

// openStored opens a model of a store. One without a name of its own has the
// store's.
func openStored(m *store.Model) (*inspect.Inspection, error) {
	if m.Path == "" || m.Fault != nil {
		return nil, fmt.Errorf("%s: %w", m.Name, m.Fault)
	}
	ins, err := inspect.Open(m.Path)
	if err != nil {
		return nil, err
	}
	if ins.Model != nil && (strings.HasPrefix(ins.Model.Name, "sha256") || ins.Model.Name == filepath.Base(m.Path)) {
		ins.Model.Name = m.Name
	}
	return ins, nil
}
