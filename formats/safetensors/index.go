package safetensors

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"weigh/formats"
	"weigh/formats/internal/jsonscan"
)

// maxIndex is the largest index file that is read; that of a model with 200,000
// tensors is half of it.
const maxIndex = 48 << 20

// An Index is a "….safetensors.index.json": which shard holds which tensor. It
// names no tensors: CheckShards reads the file again.
type Index struct {
	TotalSize int64    // "metadata.total_size", the bytes of all tensors; -1 when absent or no whole number
	Tensors   int      // entries of "weight_map"
	Files     []string // the shards, in byte order
	size      int64
}

// The most shards that a model may have, and the longest of their names: file
// systems have none that is longer.
const (
	maxShards   = 10_000
	maxFileName = 255
)

// ReadIndex reads the index of size bytes in src. A shard outside the folder of
// the index is refused.
func ReadIndex(src io.ReaderAt, size int64) (*Index, error) {
	if p := formats.ReadLFSPointer(src, size); p != nil {
		return nil, p
	}
	ix := &Index{size: size}
	files := map[string]bool{}
	var err error
	ix.TotalSize, err = scanIndex(src, size, func(s *jsonscan.Scanner, tensor, file string, at int64) {
		ix.Tensors++
		if !files[file] {
			if files[file] = true; len(files) > maxShards {
				s.Fail(at, "more than %d files", maxShards)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	ix.Files = slices.Sorted(maps.Keys(files))
	return ix, nil
}

// scanIndex calls entry with each entry of an index, whose strings it may keep if
// it takes them from the scanner's budget, and returns the total size.
func scanIndex(src io.ReaderAt, size int64, entry func(s *jsonscan.Scanner, tensor, file string, at int64)) (total int64, err error) {
	const name = "safetensors index"
	if size > maxIndex {
		return 0, &formats.Error{Format: name, Field: "file", Err: fmt.Errorf("%d bytes, over the limit of %d", size, maxIndex)}
	}
	total = -1
	s := jsonscan.New(src, 0, size, name, "weight_map")
	found := false
	s.Object(func(key string, at int64) {
		switch k := s.Kind(); {
		case key == "metadata" && k == jsonscan.Object:
			s.Object(func(key string, _ int64) {
				if key == "total_size" && s.Kind() == jsonscan.Number {
					total = wholeNumber(s.Number())
				} else {
					s.Skip()
				}
				s.Refund(key)
			})
		case key != "weight_map":
			s.Skip()
		case k != jsonscan.Object:
			s.Fail(at, "%v, want an object from tensor to file", k)
		default:
			found = true
			s.Object(func(tensor string, at int64) {
				if k := s.Kind(); k != jsonscan.String {
					s.Fail(at, "tensor %.200q has %v as its file, want a name", tensor, k)
					return
				}
				file := s.String()
				switch {
				case !filepath.IsLocal(file) || strings.ContainsAny(file, `\:`):
					s.Fail(at, "tensor %.200q is said to be in %.200q, which is outside the folder of the index", tensor, file)
					return
				case filepath.Clean(file) == "." || len(file) > maxFileName || strings.ContainsRune(file, 0):
					s.Fail(at, "tensor %.200q is said to be in %.200q, which no file can be called", tensor, file)
					return
				}
				entry(s, tensor, file, at)
				s.Refund(tensor)
				s.Refund(file)
			})
		}
		s.Refund(key)
	})
	s.End()
	if s.Err() == nil && !found {
		s.Fail(0, "missing")
	}
	return total, s.Err()
}

// wholeNumber returns a number that is whole, however it is written, or -1.
func wholeNumber(text []byte) int64 {
	f, err := strconv.ParseFloat(string(text), 64)
	n := int64(f)
	if i, ierr := strconv.ParseInt(string(text), 10, 64); ierr == nil {
		return max(i, -1)
	}
	if err != nil || f < 0 || f >= 1<<53 || float64(n) != f {
		return -1
	}
	return n
}

// CheckShards compares the shards that could be read, by name, with each other
// and with the index read from src; both may be nil. A tensor that the index
// promises and no shard holds is an error: the model is not whole.
func CheckShards(ix *Index, src io.ReaderAt, shards map[string]*File) ([]formats.Problem, error) {
	var problems []formats.Problem
	add := func(severity, code, field string, at int64, msg string, args ...any) {
		if len(problems) < maxProblems {
			problems = append(problems, formats.Problem{
				Severity: severity, Code: code, Field: field, Offset: at, Message: fmt.Sprintf(msg, args...),
			})
		}
	}
	if ix == nil && len(shards) < 2 {
		for _, name := range lostSiblings(shards) {
			add(formats.SeverityError, "missing-shard", name, -1, "the file is missing; the names of the others promise it")
		}
		return problems, nil
	}
	held := newHolders(shards)
	var total uint64
	for i := range held.all {
		t := &held.all[i]
		total += t.Bytes
		if last := held.names.Find(t.Name); last != i {
			add(formats.SeverityWarning, "tensor-in-two-shards", held.all[last].shard, -1, "tensor %.200q is in %s too; readers take one of them", t.Name, t.shard)
		}
	}
	if ix == nil {
		for _, name := range lostSiblings(shards) {
			add(formats.SeverityError, "missing-shard", name, -1, "the file is missing; the names of the others promise it")
		}
		return problems, nil
	}
	if ix.Tensors == 0 {
		add(formats.SeverityError, "index-empty", "weight_map", -1, "the index lists no tensors")
		return problems, nil
	}
	type loss struct {
		n     int
		first string
	}
	lost, listed, moved := map[string]loss{}, make([]bool, len(held.all)), 0
	_, err := scanIndex(src, ix.size, func(s *jsonscan.Scanner, tensor, file string, at int64) {
		i := held.names.Find(tensor)
		switch {
		case i < 0:
			l, known := lost[file]
			if !known {
				s.Charge(costMetadata + len(file))
			}
			if l.n++; l.n == 1 || tensor < l.first {
				s.Charge(len(tensor))
				s.Refund(l.first)
				l.first = tensor
			}
			lost[file] = l
			return
		case listed[i]:
			add(formats.SeverityWarning, "index-duplicate-tensor", "weight_map", at, "tensor %.200q is listed twice; readers take the last", tensor)
		case held.all[i].shard != file:
			moved++
		}
		listed[i] = true
	})
	if err != nil {
		return nil, err
	}
	extra, first := 0, ""
	for i := range held.all {
		if !listed[held.names.Find(held.all[i].Name)] {
			if extra++; extra == 1 {
				first = held.all[i].Name
			}
		}
	}
	if extra > 0 {
		add(formats.SeverityWarning, "tensor-not-in-index", "weight_map", -1,
			"%d tensors of the shards are not in the index, the first is %.200q; transformers ignores them, llama.cpp's converter refuses the model", extra, first)
	}
	for _, file := range slices.Sorted(maps.Keys(lost)) {
		l := lost[file]
		if shards[file] == nil {
			add(formats.SeverityError, "missing-shard", file, -1, "the file is missing; the index puts %d tensors in it", l.n)
			continue
		}
		add(formats.SeverityError, "missing-tensor", file, -1, "%d tensors that the index puts here are missing, the first is %.200q", l.n, l.first)
	}
	if moved > 0 {
		add(formats.SeverityWarning, "tensor-in-other-shard", "weight_map", -1, "%d tensors are in another shard than the index says", moved)
	}
	if len(lost) == 0 && extra == 0 && ix.TotalSize >= 0 && uint64(ix.TotalSize) != total {
		add(formats.SeverityWarning, "total-size", "metadata.total_size", -1, "%d, but the tensors take %d bytes", ix.TotalSize, total)
	}
	return problems, nil
}

// holders are the tensors of all shards.
type holders struct {
	all   []heldTensor
	names *formats.Names
}

type heldTensor struct {
	*Tensor
	shard string
}

func newHolders(shards map[string]*File) *holders {
	n := 0
	for _, f := range shards {
		n += len(f.Tensors)
	}
	h := &holders{all: make([]heldTensor, 0, n)}
	for _, name := range slices.Sorted(maps.Keys(shards)) {
		for i := range shards[name].Tensors {
			h.all = append(h.all, heldTensor{&shards[name].Tensors[i], name})
		}
	}
	h.names = formats.NewNames(len(h.all), func(i int) string { return h.all[i].Name })
	return h
}

// lostSiblings returns the names that the shards' own, "…-00001-of-00003",
// promise and that are not there.
func lostSiblings(shards map[string]*File) (lost []string) {
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(shards)) {
		full, ok := strings.CutSuffix(name, ".safetensors")
		stem := shardStem(full)
		if !ok || stem == full {
			continue
		}
		tail := full[len(stem):] // "-00001-of-00003"
		n, err := strconv.Atoi(tail[len(tail)-5:])
		if err != nil || n > maxShards || seen[stem+tail[6:]] {
			continue
		}
		seen[stem+tail[6:]] = true
		for i := 1; i <= n; i++ {
			if s := fmt.Sprintf("%s%c%05d%s.safetensors", stem, tail[0], i, tail[6:]); shards[s] == nil {
				lost = append(lost, s)
			}
		}
	}
	return lost
}

// Weights picks a folder's weight files among the names of its files: the
// index, or, without one, the files themselves. A folder may hold the same
// weights several times; the order of choice is index, "model…", diffusers, a
// sole other set, Mistral's own "consolidated…", an adapter; of these the plain
// one before variants such as "model.fp16", and a whole file before shards.
// Several other sets are an error: they may be different models.
func Weights(names []string) (index string, files []string, err error) {
	const ext, ixExt = ".safetensors", ".safetensors.index.json"
	best, stems := lastRank+1, map[string]bool{}
	for _, n := range slices.Sorted(slices.Values(names)) {
		stem, isIndex := strings.CutSuffix(n, ixExt)
		if !isIndex {
			var ok bool
			if stem, ok = strings.CutSuffix(n, ext); !ok {
				continue
			}
			stem = shardStem(stem)
		}
		r := rankOf(stem)
		if r > best || r == best && isVariant(stem) && !stems[stem] {
			continue
		}
		if r < best {
			best, index, files, stems = r, "", nil, map[string]bool{}
		}
		stems[stem] = true
		if isIndex {
			index = cmp.Or(index, n)
		} else {
			files = append(files, n)
		}
	}
	if index != "" {
		return index, nil, nil
	}
	if best == otherRank && len(stems) > 1 {
		return "", nil, fmt.Errorf("%d safetensors files without an index, among them %s and %s; name the one to read", len(files), files[0], files[1])
	}
	files = slices.DeleteFunc(files, func(n string) bool {
		stem := shardStem(strings.TrimSuffix(n, ext))
		return stem+ext != n && slices.Contains(files, stem+ext)
	})
	return "", files, nil
}

// The places in the order of choice.
const (
	otherRank = 5
	lastRank  = 7
)

// rankOf returns the place of a set of files in the order of choice.
func rankOf(stem string) int {
	switch {
	case stem == "model":
		return 0
	case strings.HasPrefix(stem, "model") && !isVariant(stem):
		return 1
	case strings.HasPrefix(stem, "model"):
		return 2
	case stem == "diffusion_pytorch_model":
		return 3
	case strings.HasPrefix(stem, "diffusion_pytorch_model"):
		return 4
	case strings.HasPrefix(stem, "consolidated"):
		return 6
	case strings.HasPrefix(stem, "adapter_"):
		return lastRank
	}
	return otherRank
}

// isVariant reports whether a stem ends in a variant of the same weights.
func isVariant(stem string) bool {
	base, variant, ok := strings.Cut(stem, ".")
	if !ok || base != "model" && base != "diffusion_pytorch_model" {
		return false
	}
	switch strings.TrimRight(variant, "0123456789") {
	case "fp", "bf", "int", "ema", "non_ema", "fp16_ema":
		return true
	}
	return false
}

// shardStem cuts "-00001-of-00003", or "_00001-of-00003", from a file's name.
func shardStem(stem string) string {
	const tail = len("-00001-of-00003")
	if i := len(stem) - tail; i > 0 && (stem[i] == '-' || stem[i] == '_') && stem[i+6:i+10] == "-of-" {
		if _, err := strconv.ParseUint(stem[i+1:i+6]+stem[i+10:], 10, 64); err == nil {
			return stem[:i]
		}
	}
	return stem
}
