package model

import "weigh/formats"

// Meta looks up a model's metadata under the keys that GGUF uses
// ("llama.block_count"), whatever file they came from.
type Meta interface {
	// Lookup returns the value of key as one of bool, int64, uint64 (only above
	// the range of int64), float64, string, []bool, []int64, []float64,
	// []string or Len.
	Lookup(key string) (any, bool)
}

// Len is the value of an array that is counted, not read: a vocabulary, its
// scores or its merges.
type Len int64

// A Tensor is one stored tensor.
type Tensor struct {
	Name   string        // as GGUF names it
	Type   formats.DType // element type; may be unknown
	Shape  []uint64      // ne of ggml: fastest dimension first
	Bytes  uint64        // stored bytes, without padding
	Offset int64         // of the data from the start of its file
	File   int           // index into the model's files
}

// Elements returns the number of stored elements.
func (t *Tensor) Elements() uint64 {
	n, _ := formats.Elements(t.Shape)
	return n
}

// A Source is what a model's files say of it, in GGUF's terms: the keys and the
// tensors of the GGUF itself, or those that llama.cpp's converter would write
// for a Hugging Face folder.
type Source struct {
	Meta    Meta
	Tensors []Tensor
}
