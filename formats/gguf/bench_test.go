package gguf_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	gguf_parser "github.com/gpustack/gguf-parser-go"

	"weigh/fixtures"
	"weigh/formats"
	"weigh/formats/gguf"
)

// large builds a header as a 70B model with a vocabulary of 151,936 tokens has
// it, 1,015 tensors; the data is left out.
var large = sync.OnceValue(func() *fixtures.Built {
	const vocab = 151936
	tokens, merges := make([]string, vocab), make([]string, 151387)
	for i := range tokens {
		tokens[i] = fmt.Sprintf("tok%d", i)
	}
	for i := range merges {
		merges[i] = fmt.Sprintf("mer%d ge%d", i%1000, i)
	}
	g := &fixtures.GGUF{NoData: true}
	g.Set("general.architecture", "llama").Set("general.name", "large").Set("llama.block_count", uint32(84))
	g.Set("llama.embedding_length", uint32(8192)).Set("llama.attention.head_count", uint32(64)).Set("llama.context_length", uint32(131072))
	g.Set("tokenizer.ggml.tokens", tokens).Set("tokenizer.ggml.scores", make([]float32, vocab))
	g.Set("tokenizer.ggml.token_type", make([]int32, vocab)).Set("tokenizer.ggml.merges", merges)
	g.Add("token_embd.weight", formats.Q4_K, 8192, vocab)
	for i := range 84 {
		for j := range 12 {
			g.Add(fmt.Sprintf("blk.%d.part_%d.weight", i, j), formats.Q4_K, 8192, 1024)
		}
	}
	for i := len(g.Tensors); i < 1015; i++ {
		g.Add(fmt.Sprintf("extra.%d", i), formats.F32, 8192)
	}
	return g.Build()
})

// largeFile is that header with a hole for its data.
func largeFile(b *testing.B) *os.File {
	built := large()
	f, err := os.Create(filepath.Join(b.TempDir(), "large.gguf"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	if _, err := f.Write(built.Data); err != nil {
		b.Fatal(err)
	}
	if err := f.Truncate(int64(built.DataOffset) + int64(built.DataBytes)); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(built.Data)))
	b.ReportAllocs()
	return f
}

func size(b *testing.B, f *os.File) int64 {
	info, err := f.Stat()
	if err != nil {
		b.Fatal(err)
	}
	return info.Size()
}

func BenchmarkRead(b *testing.B) {
	f := largeFile(b)
	for b.Loop() {
		if _, err := gguf.Read(f, size(b, f)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	f := largeFile(b)
	for b.Loop() {
		if problems := gguf.Check(f, size(b, f)); len(problems) > 0 {
			b.Fatal(problems)
		}
	}
}

var total int // keeps what is benchmarked from being optimised away

// BenchmarkTouch reads the header and adds up its bytes, one at a time.
func BenchmarkTouch(b *testing.B) {
	walk(b, func(buf []byte) (sum int) {
		for _, c := range buf {
			sum += int(c)
		}
		return sum
	})
}

// BenchmarkCount reads the header and counts a byte, with vector instructions.
func BenchmarkCount(b *testing.B) {
	walk(b, func(buf []byte) int { return bytes.Count(buf, []byte{'G'}) })
}

// BenchmarkCopy only reads the header.
func BenchmarkCopy(b *testing.B) { walk(b, func(buf []byte) int { return len(buf) }) }

func walk(b *testing.B, look func([]byte) int) {
	f := largeFile(b)
	buf := make([]byte, 32<<10)
	for b.Loop() {
		for off, end := int64(0), int64(len(large().Data)); off < end; {
			n, err := f.ReadAt(buf[:min(int64(len(buf)), end-off)], off)
			if err != nil && err != io.EOF {
				b.Fatal(err)
			}
			total += look(buf[:n])
			off += int64(n)
		}
	}
}

// BenchmarkGGUFParser is gguf-parser-go in its fastest mode on the same file.
func BenchmarkGGUFParser(b *testing.B) {
	f := largeFile(b)
	for b.Loop() {
		if _, err := gguf_parser.ParseGGUFFile(f.Name(), gguf_parser.UseMMap(), gguf_parser.SkipLargeMetadata()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTokens(b *testing.B) {
	f := largeFile(b)
	file, err := gguf.Read(f, size(b, f))
	if err != nil {
		b.Fatal(err)
	}
	tokens, err := file.Array("tokenizer.ggml.tokens")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		for token, err := range tokens.Strings() {
			if err != nil {
				b.Fatal(err)
			}
			total += len(token)
		}
	}
}
