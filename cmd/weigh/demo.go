package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"weigh/fixtures"
)

// newDemoCmd returns the sub-command that weighs a model of which the program
// itself holds the header, so that there is something to see without a
// download.
func newDemoCmd() *cobra.Command {
	r := &request{}
	cmd := &cobra.Command{
		Use:   "demo [NAME] [llama-server flags]",
		Short: "Weigh a model that comes with the program: its real header, without the weights",
		Example: `  weigh demo
  weigh demo Qwen3-30B-A3B-Q4_K_M --gpu "RTX 3060"`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if helpAsked(cmd, args) {
				return nil
			}
			words, err := parseRequest(cmd, r, args)
			if err != nil {
				return err
			}
			name := "Llama-3.1-8B-Q4_K_M"
			if len(words) > 0 {
				name = words[0]
			}
			dir, err := os.MkdirTemp("", "weigh-demo-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			path, err := writeDemo(dir, name)
			if err != nil {
				return err
			}
			r.Model, r.shown = path, filepath.Base(path)
			return show(cmd, r)
		},
	}
	addRequestFlags(cmd.Flags(), r)
	return cmd
}

// writeDemo writes the model as a sparse file: the weights are a hole.
func writeDemo(dir, name string) (string, error) {
	for _, known := range fixtures.Models() {
		if strings.EqualFold(known, name) {
			path := filepath.Join(dir, known+".gguf")
			return path, fixtures.Model(known).WriteSparse(path)
		}
	}
	return "", fmt.Errorf("demo: no model is called %q; there is %s", name, strings.Join(fixtures.Models()[:12], ", ")+", …")
}
