package main

import (
	"weigh/inspect"
)

// openTarget opens the model that a word on the command line names.
func openTarget(name string) (*inspect.Inspection, error) {
	return inspect.Open(name)
}
