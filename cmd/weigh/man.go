package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"weigh/cmd/weigh/internal/llama"
)

// newManCmd returns the hidden sub-command that writes the manual pages.
func newManCmd() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages to a folder",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := newRootCmd()
			root.InitDefaultCompletionCmd()
			for _, c := range append(root.Commands(), root) {
				if takesLlamaFlags(c) {
					c.Long = strings.TrimSpace(c.Long+"\n\n"+c.Short) + ".\n\n# LLAMA-SERVER FLAGS\nThose that do not change memory are accepted too.\n\n```\n" + llama.Help() + "```\n"
				}
				c.DisableAutoGenTag = true // pages without a date are the same from every build
			}
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return doc.GenManTree(root, &doc.GenManHeader{Title: "WEIGH", Section: "1", Source: "weigh " + version(), Manual: "weigh"}, args[0])
		},
	}
}

// takesLlamaFlags reports whether a command's help lists llama-server's flags.
func takesLlamaFlags(c *cobra.Command) bool {
	_, ok := c.Annotations[llamaFlags]
	return ok
}
