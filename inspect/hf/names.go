package hf

import (
	_ "embed"
	"strconv"
	"strings"
	"sync"
)

// namesText says what llama.cpp calls the tensors of Hugging Face models. Its
// lines are "tensor ID GGUF-NAME HF-NAME…", '#' standing for the block's number,
// "only ARCH ID HF-NAME…" for names that hold in one architecture, and
// "arch ARCH ID…", the tensors an architecture has.
//
// Source: gguf-py/gguf/tensor_mapping.py and constants.py@v0.5.0.
//
//go:embed names.txt
var namesText string

// A nameTable maps the tensor names of one architecture, without their suffix,
// to GGUF's.
type nameTable map[string]string

// nameTables returns the table of every architecture in namesText.
var nameTables = sync.OnceValue(func() map[string]nameTable {
	type tensor struct {
		gguf string
		hf   []string
	}
	var order []string
	tensors := map[string]*tensor{}
	only := map[string]map[string][]string{}
	tables := map[string]nameTable{}
	for line := range strings.Lines(namesText) {
		f := strings.Fields(line)
		switch f[0] {
		case "tensor":
			order = append(order, f[1])
			tensors[f[1]] = &tensor{gguf: f[2], hf: f[3:]}
		case "only":
			if only[f[1]] == nil {
				only[f[1]] = map[string][]string{}
			}
			only[f[1]][f[2]] = f[3:]
		case "arch":
			has := map[string]bool{}
			for _, id := range f[2:] {
				has[id] = true
			}
			table := nameTable{}
			for _, id := range order {
				if !has[id] {
					continue
				}
				names, ok := only[f[1]][id]
				if !ok {
					names = tensors[id].hf
				}
				table[tensors[id].gguf] = tensors[id].gguf
				for _, n := range names {
					table[n] = tensors[id].gguf
				}
			}
			tables[f[1]] = table
		}
	}
	return tables
})

// lookup returns the GGUF name of an HF tensor and the pattern it comes from,
// both without a suffix that the name may have, and that suffix.
func (t nameTable) lookup(name string, blocks int) (gguf, pattern, suffix string, ok bool) {
	for _, suffix := range []string{"", ".weight", ".bias"} {
		base, cut := strings.CutSuffix(name, suffix)
		if !cut {
			continue
		}
		if p, ok := t[base]; ok && !strings.Contains(p, "#") {
			return p, p, suffix, true
		}
		parts := strings.Split(base, ".")
		for i, part := range parts {
			n, err := strconv.Atoi(part)
			if err != nil || n < 0 || n >= blocks {
				continue
			}
			parts[i] = "#"
			if p, ok := t[strings.Join(parts, ".")]; ok {
				return strings.ReplaceAll(p, "#", part), p, suffix, true
			}
			parts[i] = part
		}
	}
	return "", "", "", false
}
