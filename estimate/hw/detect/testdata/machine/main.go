// Command machine writes what detection finds, as JSON: the smallest program
// that links the package, for the tests of the built binary.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"weigh/estimate/hw/detect"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "machine:", err)
		os.Exit(2)
	}
}

func run() error {
	if len(os.Args) == 2 && os.Args[1] == detect.ProbeCommand {
		return detect.ProbeMain(os.Stdout)
	}
	m, _ := detect.Machine(context.Background())
	return json.NewEncoder(os.Stdout).Encode(m)
}
