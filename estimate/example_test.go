package estimate_test

import (
	"fmt"
	"os"
	"path/filepath"

	"weigh/estimate"
	"weigh/estimate/hw"
	"weigh/fixtures"
	"weigh/inspect"
)

// A model's header and the name of a card are all that it takes.
func ExampleRun() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "model.gguf")
	if err := fixtures.Model("Llama-3.2-1B-Q4_K_M").WriteSparse(path); err != nil {
		fmt.Println(err)
		return
	}

	m, err := inspect.Open(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close()
	gpu, err := hw.ParseSpec("24GiB")
	if err != nil {
		fmt.Println(err)
		return
	}
	b, err := estimate.Run(m.Model, estimate.Options{Devices: gpu, NCtx: 8192})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, d := range b.Devices {
		fmt.Println(d.Name, d.Model, d.Context)
	}
	// Output: CUDA0 799862912 268435456
}
