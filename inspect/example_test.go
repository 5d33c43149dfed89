package inspect_test

import (
	"fmt"
	"os"
	"path/filepath"

	"weigh/fixtures"
	"weigh/inspect"
)

func ExampleOpen() {
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
	fmt.Println(m.Format, m.Model.Arch, m.Parameters(), "parameters")
	// Output: gguf llama 1235814432 parameters
}
