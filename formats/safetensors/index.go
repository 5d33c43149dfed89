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
// tensors is a tenth of it.
const maxIndex = 256 << 20

// An Index is a "….safetensors.index.json": which shard holds which tensor.
type Index struct {
	TotalSize int64             // "metadata.total_size", the bytes of all tensors; -1 when absent or no whole number
	Shard     map[string]string // "weight_map": file by tensor
	Problems  []formats.Problem // what is odd about an index that can be read
}

// ReadIndex reads the index of size bytes in src. A shard outside the folder of
// the index is refused.
func ReadIndex(src io.ReaderAt, size int64) (*Index, error) {
	const name = "safetensors index"
	if p := formats.ReadLFSPointer(src, size); p != nil {
		return nil, p
	}
	if size > maxIndex {
		return nil, &formats.Error{Format: name, Field: "file", Err: fmt.Errorf("%d bytes, over the limit of %d", size, maxIndex)}
	}
	ix := &Index{TotalSize: -1}
	s := jsonscan.New(src, 0, size, name, "weight_map")
	files := map[string]string{} // each shard's name once
	s.Object(func(key string, at int64) {
		switch k := s.Kind(); {
		case key == "metadata" && k == jsonscan.Object:
			s.Object(func(key string, _ int64) {
				if key == "total_size" && s.Kind() == jsonscan.Number {
					ix.TotalSize = wholeNumber(s.Number())
					return
				}
				s.Skip()
			})
		case key != "weight_map":
			s.Skip()
		case k != jsonscan.Object:
			s.Fail(at, "%v, want an object from tensor to file", k)
		default:
			ix.Shard = map[string]string{}
			s.Object(func(tensor string, at int64) {
				if k := s.Kind(); k != jsonscan.String {
					s.Fail(at, "tensor %.200q has %v as its file, want a name", tensor, k)
					return
				}
				file := s.String()
				if !filepath.IsLocal(file) || strings.ContainsAny(file, `\:`) {
					s.Fail(at, "tensor %.200q is said to be in %.200q, which is outside the folder of the index", tensor, file)
					return
				}
				if _, twice := ix.Shard[tensor]; twice && len(ix.Problems) < maxProblems {
					ix.Problems = append(ix.Problems, formats.Problem{
						Severity: formats.SeverityWarning, Code: "index-duplicate-tensor", Field: "weight_map",
						Message: fmt.Sprintf("tensor %.200q is listed twice; readers take the last", tensor), Offset: at,
					})
				}
				if known, ok := files[file]; ok {
					file = known
				} else {
					files[file] = file
				}
				s.Charge(100)
				ix.Shard[tensor] = file
			})
		}
	})
	s.End()
	if s.Err() == nil && ix.Shard == nil {
		s.Fail(0, "missing")
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	return ix, nil
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

// Files returns the shards' names in byte order.
func (ix *Index) Files() []string {
	seen := map[string]bool{}
	for _, f := range ix.Shard {
		seen[f] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// CheckShards compares the shards that could be read, by name, with each other and
// with the index, which may be nil. A tensor that the index promises and no
// shard holds is an error: the model is not whole.
func CheckShards(ix *Index, shards map[string]*File) []formats.Problem {
	var problems []formats.Problem
	add := func(severity, code, field, msg string, args ...any) {
		problems = append(problems, formats.Problem{
			Severity: severity, Code: code, Field: field, Offset: -1, Message: fmt.Sprintf(msg, args...),
		})
	}
	holder := map[string]string{}
	var total uint64
	var extra []string
	for _, name := range slices.Sorted(maps.Keys(shards)) {
		if ix == nil && len(shards) == 1 {
			break // there is nothing to compare it with
		}
		for i := range shards[name].Tensors {
			t := &shards[name].Tensors[i]
			total += t.Bytes
			if first, twice := holder[t.Name]; twice {
				add(formats.SeverityWarning, "tensor-in-two-shards", name, "tensor %.200q is in %s too; readers take one of them", t.Name, first)
			}
			holder[t.Name] = name
			if ix != nil && ix.Shard[t.Name] == "" {
				extra = append(extra, t.Name)
			}
		}
	}
	if ix == nil {
		for _, name := range lostSiblings(shards) {
			add(formats.SeverityError, "missing-shard", name, "the file is missing; the names of the others promise it")
		}
		return problems
	}
	if len(ix.Shard) == 0 {
		add(formats.SeverityError, "index-empty", "weight_map", "the index lists no tensors")
		return problems
	}
	if len(extra) > 0 {
		add(formats.SeverityWarning, "tensor-not-in-index", "weight_map",
			"%d tensors of the shards are not in the index, the first is %.200q; transformers ignores them, llama.cpp's converter refuses the model", len(extra), extra[0])
	}
	lost := map[string][]string{} // by shard
	moved := 0
	for tensor, file := range ix.Shard {
		switch holder[tensor] {
		case file:
		case "":
			lost[file] = append(lost[file], tensor)
		default:
			moved++
		}
	}
	for _, file := range slices.Sorted(maps.Keys(lost)) {
		if shards[file] == nil {
			add(formats.SeverityError, "missing-shard", file, "the file is missing; the index puts %d tensors in it", len(lost[file]))
			continue
		}
		add(formats.SeverityError, "missing-tensor", file, "%d tensors that the index puts here are missing, the first is %.200q", len(lost[file]), slices.Min(lost[file]))
	}
	if moved > 0 {
		add(formats.SeverityWarning, "tensor-in-other-shard", "weight_map", "%d tensors are in another shard than the index says", moved)
	}
	if len(lost) == 0 && len(extra) == 0 && ix.TotalSize >= 0 && uint64(ix.TotalSize) != total {
		add(formats.SeverityWarning, "total-size", "metadata.total_size", "%d, but the tensors take %d bytes", ix.TotalSize, total)
	}
	return problems
}

// maxShards is the most shards whose absence is looked for by name.
const maxShards = 10_000

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
