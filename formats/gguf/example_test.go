package gguf_test

import (
	"bytes"
	"fmt"

	"weigh/fixtures"
	"weigh/formats"
	"weigh/formats/gguf"
)

func ExampleRead() {
	g := (&fixtures.GGUF{}).Set("general.architecture", "llama").Set("tokenizer.ggml.tokens", []string{"a", "b"})
	data := g.Add("token_embd.weight", formats.Q4_K, 512, 2).Bytes()

	f, err := gguf.Read(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		fmt.Println(err)
		return
	}
	arch, _ := f.Lookup("general.architecture")
	fmt.Println(arch)
	for _, t := range f.Tensors {
		fmt.Println(t.Name, t.Type, t.Shape, t.Bytes)
	}
	tokens, err := f.Array("tokenizer.ggml.tokens")
	if err != nil {
		fmt.Println(err)
		return
	}
	for token := range tokens.Strings() {
		fmt.Printf("%q\n", token)
	}
	// Output:
	// llama
	// token_embd.weight Q4_K [512 2] 576
	// "a"
	// "b"
}

func ExampleCheck() {
	b := (&fixtures.GGUF{}).Add("a", formats.F32, 8).Add("b", formats.F32, 8).Build()
	b.Put64("offset b", 33)
	for _, p := range gguf.Check(bytes.NewReader(b.Data), int64(len(b.Data))) {
		fmt.Printf("%s: %s at byte %d: %s\n", p.Code, p.Field, p.Offset, p.Message)
	}
	// Output:
	// misaligned-tensor: tensor 1 (b) offset at byte 82: 33 is not a multiple of the alignment 32
	// truncated-data: tensor data at byte 160: the file is 1 bytes short: the tensors need 65 bytes, 64 are there
}
