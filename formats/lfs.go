package formats

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
)

// An LFSPointer is the error for a Git LFS pointer found where a model file
// should be: a clone without LFS leaves a small text that names the real file.
type LFSPointer struct {
	OID  string // hash of the real file, "sha256:…"
	Size int64  // bytes of the real file
}

// Error says what the file is and how large the real one is.
func (p *LFSPointer) Error() string {
	return fmt.Sprintf("a Git LFS pointer, not the file itself; the real file is %d bytes", p.Size)
}

// maxLFSPointer is the largest pointer file that Git LFS itself accepts.
//
// Source: github.com/git-lfs/git-lfs docs/spec.md.
const maxLFSPointer = 1024

// ReadLFSPointer returns the pointer that the size bytes of src are, or nil
// when they are something else.
func ReadLFSPointer(src io.ReaderAt, size int64) *LFSPointer {
	const version = "version https://git-lfs.github.com/spec/v1\n"
	if size < int64(len(version)) || size >= maxLFSPointer {
		return nil
	}
	b := make([]byte, size)
	if n, _ := src.ReadAt(b, 0); n < len(b) || !bytes.HasPrefix(b, []byte(version)) {
		return nil
	}
	p := &LFSPointer{Size: -1}
	for line := range bytes.Lines(b[len(version):]) {
		key, value, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(" "))
		switch string(key) {
		case "oid":
			p.OID = string(value)
		case "size":
			if n, err := strconv.ParseInt(string(value), 10, 64); err == nil && n >= 0 {
				p.Size = n
			}
		}
	}
	if p.OID == "" || p.Size < 0 {
		return nil
	}
	return p
}
