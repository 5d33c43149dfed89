package detect

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
)

// maxMemory is more than any device or host has: a larger figure is a forged or
// broken one.
const maxMemory = 1 << 50

// maxBandwidth is more than the memory of any device carries, bytes per second.
const maxBandwidth = 100_000_000_000_000

// maxName is as much of a process's name as is kept, in bytes.
const maxName = 256

// maxText bounds a file of proc or sys, all of which are far smaller.
const maxText = 4 << 20

// text reads a small file without the white space around it.
func text(root fs.FS, name string) (string, error) {
	f, err := root.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxText))
	if err != nil {
		return "", err
	}
	return string(bytes.TrimSpace(b)), nil
}

// number reads a file that holds one number, decimal or with its prefix.
func number(root fs.FS, name string) (uint64, error) {
	s, err := text(root, name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %.40q is not a number", name, s)
	}
	return n, nil
}

// size reads a file that holds a number of bytes, and refuses an absurd one.
func size(root fs.FS, name string) (uint64, error) {
	n, err := number(root, name)
	if err == nil && n > maxMemory {
		return 0, fmt.Errorf("%s: %d bytes is more than any machine has", name, n)
	}
	return n, err
}

// exists reports whether the tree has the file.
func exists(root fs.FS, name string) bool {
	_, err := fs.Stat(root, name)
	return err == nil
}

// absent reports whether an error only says that there is no such file.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// fields reads lines of "key value", as KFD and meminfo write them, into a map.
func fields(s string) map[string]string {
	m := map[string]string{}
	for line := range strings.SplitSeq(s, "\n") {
		k, v, _ := strings.Cut(strings.TrimSpace(line), " ")
		m[strings.TrimSuffix(k, ":")] = strings.TrimSpace(v)
	}
	return m
}
