// Package formats holds what the readers of model files share: how a file is
// opened, the element types and the error that says where a file is wrong.
//
// Stability: before version 1.0 of weigh a release may change what this package
// and those below it export; the changelog names every such change. What a
// reader accepts follows the reference implementation of its format.
package formats

import "fmt"

// An Error reports a malformed file.
type Error struct {
	Format string // "gguf", "safetensors", "config.json", …
	Offset int64  // byte offset of the rejected field from the start of the file, -1 when the fault is no single place
	Field  string // the field being read, e.g. "tensor 17 dimension count"
	Err    error
}

// Error names the format, the field and, where there is one, the byte offset.
func (e *Error) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("%s: %s: %v", e.Format, e.Field, e.Err)
	}
	return fmt.Sprintf("%s: %s at byte %d: %v", e.Format, e.Field, e.Offset, e.Err)
}

// Unwrap returns the fault itself.
func (e *Error) Unwrap() error { return e.Err }
