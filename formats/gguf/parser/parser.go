// Package parser hands files that our own reader has checked to gguf-parser-go,
// for its views of a model and its estimate as a second opinion. The library's
// own file reader is not used: a forged file can make it panic or exhaust
// memory. Panics in the library become errors here.
package parser

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"

	gguf_parser "github.com/gpustack/gguf-parser-go"

	"weigh/formats"
	"weigh/formats/gguf"
)

const (
	maxBlocks = 512     // LLAMA_MAX_LAYERS (src/llama-hparams.h@v0.5.0); the library allocates by block_count
	maxArray  = 1 << 16 // elements of an array that the library may copy
)

// texts and lists are keys that the library reads as a string or as an array
// without looking at their type. Of another type they are left out.
var (
	texts = []string{
		"general.type", "general.architecture", "general.name", "general.author", "general.url",
		"general.description", "general.license", "controlvector.model_hint", "tokenizer.ggml.model",
	}
	lists = []string{"tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.added_tokens"}
)

// File returns the library's form of a file, or of the shards of one model,
// first shard first. Left out is what would make the library fail: tensors of
// unknown type, keys of the wrong type, empty arrays, and arrays that are
// longer than 65536 elements or hold strings, other than a tokenizer's, which
// are counted. A block_count over 512 is 512. Strings are as in the file, where
// the library's own reader trims them.
func File(first *gguf.File, more ...*gguf.File) *gguf_parser.GGUFFile {
	g := &gguf_parser.GGUFFile{}
	g.Header.Magic = gguf_parser.GGUFMagicGGUFLe
	if first.BigEndian {
		g.Header.Magic = gguf_parser.GGUFMagicGGUFBe
	}
	g.Header.Version = gguf_parser.GGUFVersion(first.Version)
	for i := range first.KVs {
		if kv, ok := convert(first, &first.KVs[i]); ok {
			g.Header.MetadataKV = append(g.Header.MetadataKV, kv)
		}
	}
	g.Header.MetadataKVCount = uint64(len(g.Header.MetadataKV))
	elements := uint64(0)
	for _, f := range append([]*gguf.File{first}, more...) {
		for i := range f.Tensors {
			if t := &f.Tensors[i]; !t.Inferred {
				g.TensorInfos = append(g.TensorInfos, tensor(t))
				elements = add(elements, t)
			}
		}
		start, padding := dataStart(f)
		// A file of a vocabulary alone may end before the padding; the library's
		// own reader makes that a size of almost 2^64.
		model := gguf_parser.GGUFBytesScalar(max(f.Size-start, 0))
		g.SplitPaddings = append(g.SplitPaddings, padding)
		g.SplitTensorDataStartOffsets = append(g.SplitTensorDataStartOffsets, start)
		g.SplitSizes = append(g.SplitSizes, gguf_parser.GGUFBytesScalar(f.Size))
		g.SplitModelSizes = append(g.SplitModelSizes, model)
		g.Size += gguf_parser.GGUFBytesScalar(f.Size)
		g.ModelSize += model
	}
	if len(more) == 0 {
		g.Padding, g.TensorDataStartOffset = g.SplitPaddings[0], g.SplitTensorDataStartOffsets[0]
	}
	g.Header.TensorCount = uint64(len(g.TensorInfos))
	g.ModelParameters = gguf_parser.GGUFParametersScalar(elements)
	if elements > 0 {
		g.ModelBitsPerWeight = gguf_parser.GGUFBitsPerWeightScalar(float64(g.ModelSize) * 8 / float64(elements))
	}
	return g
}

// add adds the elements of t to n and stops at the largest number.
func add(n uint64, t *gguf.Tensor) uint64 {
	e, _ := formats.Elements(t.Shape)
	sum, carry := bits.Add64(n, e, 0)
	if carry > 0 {
		return math.MaxUint64
	}
	return sum
}

func tensor(t *gguf.Tensor) gguf_parser.GGUFTensorInfo {
	return gguf_parser.GGUFTensorInfo{
		Name:        t.Name,
		NDimensions: uint32(len(t.Shape)),
		Dimensions:  t.Shape,
		Type:        gguf_parser.GGMLType(t.Type),
		Offset:      t.Offset,
		StartOffset: t.HeaderOffset,
	}
}

// dataStart returns where the library takes the data to begin, which is padded
// even when there are no tensors, and the padding.
func dataStart(f *gguf.File) (start, padding int64) {
	end := f.DataOffset
	if n := len(f.Tensors); n > 0 {
		t := &f.Tensors[n-1]
		end = t.HeaderOffset + 8 + int64(len(t.Name)) + 4 + 8*int64(len(t.Shape)) + 4 + 8
	}
	align := int64(f.Alignment)
	padding = (align - end%align) % align
	return end + padding, padding
}

// convert returns the library's form of an entry; ok is false when it is left
// out.
func convert(f *gguf.File, kv *gguf.KV) (out gguf_parser.GGUFMetadataKV, ok bool) {
	switch {
	case strings.HasPrefix(kv.Key, "split."),
		kv.Type != gguf.String && slices.Contains(texts, kv.Key),
		kv.Type != gguf.Array && slices.Contains(lists, kv.Key):
		return out, false
	}
	out.Key, out.ValueType = kv.Key, gguf_parser.GGUFMetadataValueType(kv.Type)
	if kv.Type == gguf.Array {
		out.Value, ok = array(f, kv)
		return out, ok
	}
	v, _ := f.Lookup(kv.Key)
	if strings.HasSuffix(kv.Key, ".block_count") {
		n, small := v.(int64)
		if !small || n < 0 {
			return out, false
		}
		v = min(n, maxBlocks)
	}
	if _, long := v.(gguf.Len); long {
		return out, false
	}
	out.Value = narrow(kv.Type, v)
	return out, true
}

func array(f *gguf.File, kv *gguf.KV) (out gguf_parser.GGUFMetadataKVArrayValue, ok bool) {
	out = gguf_parser.GGUFMetadataKVArrayValue{
		Type:        gguf_parser.GGUFMetadataValueType(kv.Elem),
		Len:         kv.Count,
		StartOffset: kv.ValueOffset - 12, // of the element type
		Size:        int64(kv.Bytes),
	}
	if strings.HasPrefix(kv.Key, "tokenizer.") {
		return out, true
	}
	if kv.Count == 0 || kv.Count > maxArray || kv.Elem == gguf.String {
		return out, false
	}
	a, err := f.Array(kv.Key)
	if err != nil {
		return out, false
	}
	for v, err := range a.All() {
		if err != nil {
			return out, false
		}
		out.Array = append(out.Array, narrow(kv.Elem, v))
	}
	return out, true
}

// narrow returns a value in the Go type that the library gives it.
func narrow(t gguf.Type, v any) any {
	switch n := v.(type) {
	case int64:
		switch t {
		case gguf.Uint8:
			return uint8(n)
		case gguf.Int8:
			return int8(n)
		case gguf.Uint16:
			return uint16(n)
		case gguf.Int16:
			return int16(n)
		case gguf.Uint32:
			return uint32(n)
		case gguf.Int32:
			return int32(n)
		case gguf.Uint64:
			return uint64(n)
		}
	case float64:
		if t == gguf.Float32 {
			return float32(n)
		}
	}
	return v
}

// Metadata returns the library's view of the general metadata.
func Metadata(g *gguf_parser.GGUFFile) (gguf_parser.GGUFMetadata, error) {
	return guard("metadata", g.Metadata)
}

// Architecture returns the library's view of the model's dimensions.
func Architecture(g *gguf_parser.GGUFFile) (gguf_parser.GGUFArchitecture, error) {
	return guard("architecture", g.Architecture)
}

// Tokenizer returns the library's view of the vocabulary.
func Tokenizer(g *gguf_parser.GGUFFile) (gguf_parser.GGUFTokenizer, error) {
	return guard("tokenizer", g.Tokenizer)
}

// Estimate returns the library's estimate of a llama.cpp run, a second opinion
// that is not exact. It takes flash attention as off unless told.
func Estimate(g *gguf_parser.GGUFFile, opts ...gguf_parser.GGUFRunEstimateOption) (gguf_parser.LLaMACppRunEstimate, error) {
	return guard("estimate", func() gguf_parser.LLaMACppRunEstimate { return g.EstimateLLaMACppRun(opts...) })
}

// guard calls the library and returns its panic as an error.
func guard[T any](what string, call func() T) (out T, err error) {
	defer func() {
		if r := recover(); r != nil {
			var zero T
			out, err = zero, fmt.Errorf("gguf-parser-go: %s: %v", what, r)
		}
	}()
	return call(), nil
}
