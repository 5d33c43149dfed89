package formats

import (
	"errors"
	"io/fs"
	"os"
)

// ErrNotRegular is the error for a pipe, a device, a socket or a folder found
// where a file should be.
var ErrNotRegular = errors.New("not a regular file")

// Open opens the regular file at path, or the one that a link there leads to,
// and returns its size. Nothing else is opened at all: opening a pipe waits for
// its writer, and opening a device can do anything.
func Open(path string) (*os.File, int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, &fs.PathError{Op: "open", Path: path, Err: ErrNotRegular}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	if info, err = f.Stat(); err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}
