// Package gguf reads the header of GGUF model files: versions 2 and 3, little
// and big endian, whole or split. It keeps every key and tensor as written,
// reads no weights and trusts no number in the file: what Read returns lies
// within the file, and reading takes under 64 MiB whatever the file claims.
//
// The rules are those of llama.cpp v0.5.0 (ggml/src/gguf.cpp,
// gguf_init_from_reader), with limits on top where a count alone could cost
// memory or time. What the metadata means is not decided here.
package gguf

import (
	"io"

	"weigh/formats"
)

// Limits. The first four are llama.cpp's (ggml/src/gguf.cpp and
// ggml/include/ggml.h at v0.5.0); the others bound memory: 65536 tensors and as
// many keys take about 35 MiB.
const (
	maxString  = 1 << 30 // GGUF_MAX_STRING_LENGTH, bytes
	maxArray   = 1 << 30 // GGUF_MAX_ARRAY_ELEMENTS
	maxName    = 63      // GGML_MAX_NAME less its terminator, bytes
	maxDims    = 4       // GGML_MAX_DIMS
	maxKVs     = 1 << 16
	maxTensors = 1 << 16
	maxKeys    = 8 << 20 // bytes of all keys
	maxText    = 8 << 20 // bytes of a string that a lookup or an array element returns
	maxKept    = 64 << 10
	maxKeptAll = 4 << 20 // values up to maxKept bytes are kept in memory while they take no more than this
	maxDecode  = 1 << 16 // elements of an array that a lookup decodes
)

// The smallest encodings: of a key, an empty name, its type and one byte; of a
// tensor, an empty name, no dimensions, the type and the offset.
const (
	minKVBytes     = 13
	minTensorBytes = 24
)

// defaultAlignment applies without the key general.alignment
// (GGUF_DEFAULT_ALIGNMENT).
const defaultAlignment = 32

// A File is the header of one GGUF file. It reads long values from its source
// on demand, so the source stays open as long as they are wanted; short ones
// are kept. A File may be used by several goroutines if its source may.
type File struct {
	Version    uint32
	BigEndian  bool
	Alignment  uint64 // of every tensor's offset; a power of two
	DataOffset int64  // where the tensors' data begins, from the start of the file
	Size       int64  // of the whole file, bytes
	KVs        []KV   // in file order
	Tensors    []Tensor

	src  io.ReaderAt
	keys map[string]int // index into KVs
}

// A Tensor is one entry of the tensor table.
type Tensor struct {
	Name         string        // byte for byte as written
	Type         formats.DType // element type; not one of ggml's when Inferred
	Shape        []uint64      // fastest dimension first; none for a scalar
	Offset       uint64        // of the data, from File.DataOffset
	Bytes        uint64        // of the data, without padding
	HeaderOffset int64         // of this entry, from the start of the file
	Inferred     bool          // the type is unknown: Bytes is the distance to the next tensor or to the end
}

// Read reads the header of the GGUF file of size bytes in src. An error is a
// *formats.Error that names the field and its offset: the first fault that
// Check would report, except that a tensor of an unknown type and big-endian
// order are kept and marked rather than refused.
func Read(src io.ReaderAt, size int64) (*File, error) {
	p := newParser(src, size)
	p.parse()
	if p.err != nil {
		return nil, p.err
	}
	return p.file, nil
}

// KV returns the entry of a key.
func (f *File) KV(key string) (*KV, bool) {
	i, ok := f.keys[key]
	if !ok {
		return nil, false
	}
	return &f.KVs[i], true
}

// Lookup returns the value of key as one of bool, int64, uint64 (only above
// the range of int64), float64, string, []bool, []int64, []float64 or Len. An
// array is a Len when it holds strings, over 65536 elements or a number over
// the range of int64; so is a value that is too long to return or that could
// not be read.
func (f *File) Lookup(key string) (any, bool) {
	kv, ok := f.KV(key)
	if !ok {
		return nil, false
	}
	return f.value(kv), true
}

// DataBytes returns the bytes from DataOffset to the end of the file.
func (f *File) DataBytes() uint64 { return uint64(max(f.Size-f.DataOffset, 0)) }
