package quant

// alignment is what llama-quantize pads the header and each tensor to, whatever
// general.alignment says.
//
// Source: src/llama-quant.cpp@v0.5.0, llama_model_quantize_impl; ggml/include/gguf.h, GGUF_DEFAULT_ALIGNMENT.
const alignment = 32

func pad(n uint64) uint64 { return (n + alignment - 1) / alignment * alignment }

// The encoded size of a pair's value with its type, and of the fixed parts of
// a header: magic, version, tensor count and pair count.
//
// Source: ggml/src/gguf.cpp@v0.5.0, gguf_writer_base.
const (
	fixedBytes = 4 + 4 + 8 + 8
	u16Bytes   = 4 + 2
	u32Bytes   = 4 + 4
)

func keyBytes(key string) uint64 { return 8 + uint64(len(key)) }

func stringBytes(s string) uint64 { return 4 + 8 + uint64(len(s)) }

// maxOverride is the longest string that llama-quantize writes about an
// importance matrix.
//
// Source: include/llama.h@v0.5.0, llama_model_kv_override.val_str.
const maxOverride = 127

// splitKeys are taken from the source's metadata; KeepSplit writes them anew.
var splitKeys = map[string]uint64{"split.no": u16Bytes, "split.count": u16Bytes, "split.tensors.count": u32Bytes}

// files fills in the sizes of the files written.
//
// Source: src/llama-quant.cpp@v0.5.0, llama_model_quantize_impl;
// tools/quantize/quantize.cpp@v0.5.0, llama_quantize.
func (s *Source) files(r *Result, opt *Options) {
	n := 1
	if opt.KeepSplit {
		for i := range s.m.Tensors {
			n = max(n, s.m.Tensors[i].File+1)
		}
	}
	header, data := make([]uint64, n), make([]uint64, n)
	header[0] = s.metadataBytes(opt)
	for i := range header {
		header[i] += fixedBytes
		if n > 1 {
			for key, value := range splitKeys {
				header[i] += keyBytes(key) + value
			}
		}
	}
	for i := range s.m.Tensors {
		t, d, file := &s.m.Tensors[i], &s.info[i], 0
		if opt.KeepSplit {
			file = t.File
		}
		header[file] += keyBytes(t.Name) + 4 + 8*uint64(d.dims) + 4 + 8
		data[file] += pad(d.rows * r.Types[i].RowBytes(d.columns))
	}
	r.FileBytes = make([]uint64, n)
	for i := range header {
		r.HeaderBytes += pad(header[i])
		r.FileBytes[i] = pad(header[i]) + data[i]
	}
}

// metadataBytes returns the encoded size of the pairs of the first file: the
// source's own without those of a split, and those that llama-quantize sets.
func (s *Source) metadataBytes(opt *Options) uint64 {
	set := map[string]uint64{"general.quantization_version": u32Bytes, "general.file_type": u32Bytes}
	if m := opt.Imatrix; m != nil {
		set["quantize.imatrix.file"] = stringBytes(m.File[:min(len(m.File), maxOverride)])
		set["quantize.imatrix.entries_count"] = u32Bytes
		if m.Dataset != "" {
			set["quantize.imatrix.dataset"] = stringBytes(m.Dataset[:min(len(m.Dataset), maxOverride)])
		}
		if m.Chunks > 0 {
			set["quantize.imatrix.chunks_count"] = u32Bytes
		}
	}
	var n uint64
	for key, value := range set {
		n += keyBytes(key) + value
	}
	for _, kv := range s.m.Metadata {
		_, replaced := set[kv.Key]
		_, split := splitKeys[kv.Key]
		if !replaced && !split {
			n += kv.Bytes
		}
	}
	return n
}
