// The program ggufparser prints what is in the GGUF file named on the command
// line, by gguf-parser-go in its fastest mode: the file mapped, long arrays
// skipped. It does what that library's own command does without an estimate.
package main

import (
	"fmt"
	"os"

	parser "github.com/gpustack/gguf-parser-go"
)

func main() {
	f, err := parser.ParseGGUFFile(os.Args[1], parser.UseMMap(), parser.SkipLargeMetadata())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("%+v\n%+v\n%+v\n", f.Metadata(), f.Architecture(), f.Tokenizer())
}
