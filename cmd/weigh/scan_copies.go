package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
)

// A duplicate is a group of rows with the same contents.
type duplicate struct {
	rows   []*scanned
	wasted uint64 // bytes of all copies but one; several names of one file are one copy
	basis  string
}

// How sure it is that files are the same.
const (
	byName    = "sha256 named by the store"
	bySample  = "size, header and samples"
	byContent = "sha256"
)

// Samples of a file's data.
const (
	sampleCount = 8
	sampleBytes = 4 << 10
	headerBytes = 64 << 10 // of each end of a header
)

// findDuplicates groups the rows that have the same contents: of the same size,
// then with the same header and samples of the data, then, with hash, the same
// SHA-256. A SHA-256 that stores name files by decides without reading.
func findDuplicates(ctx context.Context, rows []*scanned, hash bool, bar *progress) ([]duplicate, error) {
	bySize := map[int64][]*scanned{}
	for _, r := range rows {
		if r.state == stateOK && r.info != nil && r.Bytes > 0 {
			bySize[r.Bytes] = append(bySize[r.Bytes], r)
		}
	}
	var alike []*scanned
	for _, same := range bySize {
		if len(same) < 2 {
			continue
		}
		for i, r := range same {
			r.sameFile = slices.ContainsFunc(same[:i], func(o *scanned) bool { return os.SameFile(o.info, r.info) })
		}
		alike = append(alike, same...)
	}
	type key struct {
		bytes int64
		print string
	}
	keys := make([]key, len(alike))
	each(ctx, len(alike), func(i int) {
		keys[i] = key{alike[i].Bytes, fingerprint(ctx, alike[i], hash)}
		bar.show("comparing files", uint64(i), uint64(len(alike)))
	})
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	groups := map[key][]*scanned{}
	for i, k := range keys {
		if k.print != "" {
			groups[k] = append(groups[k], alike[i])
		}
	}
	var found []duplicate
	for _, g := range groups {
		// Names that the stores give by SHA-256 tell apart what looks alike.
		for _, same := range splitByDigest(g) {
			if len(same) < 2 {
				continue
			}
			d := duplicate{rows: same, basis: bySample}
			for _, r := range same {
				if !r.sameFile {
					d.wasted += uint64(r.Bytes)
				}
			}
			d.wasted -= min(d.wasted, uint64(same[0].Bytes))
			switch {
			case hash:
				d.basis = byContent
			case same[0].Digest != "" && !slices.ContainsFunc(same, func(r *scanned) bool { return r.Digest != same[0].Digest }):
				d.basis = byName
			}
			found = append(found, d)
		}
	}
	position := map[*scanned]int{}
	for i, r := range rows {
		position[r] = i
	}
	for _, d := range found {
		slices.SortFunc(d.rows, func(a, b *scanned) int { return position[a] - position[b] })
	}
	slices.SortFunc(found, func(a, b duplicate) int {
		return cmp.Or(cmp.Compare(b.wasted, a.wasted), position[a.rows[0]]-position[b.rows[0]])
	})
	for i, d := range found {
		for _, r := range d.rows {
			r.group = i + 1
		}
	}
	return found, nil
}

// splitByDigest parts rows whose stores name different SHA-256.
func splitByDigest(rows []*scanned) [][]*scanned {
	by := map[string][]*scanned{}
	for _, r := range rows {
		by[r.Digest] = append(by[r.Digest], r)
	}
	if len(by) <= 2 && len(by[""]) > 0 || len(by) == 1 {
		return [][]*scanned{rows}
	}
	var out [][]*scanned
	for digest, same := range by {
		if digest != "" {
			out = append(out, same)
		}
	}
	return out
}

// fingerprint returns a hash of what the files' headers and samples of their
// data are, of all they hold when whole is set; "" when they cannot be read.
func fingerprint(ctx context.Context, r *scanned, whole bool) string {
	h := sha256.New()
	for _, path := range r.Files {
		f, err := os.Open(path)
		if err != nil {
			return ""
		}
		err = func() error {
			defer f.Close()
			info, err := f.Stat()
			if err != nil || !info.Mode().IsRegular() {
				return fmt.Errorf("%s: not a regular file: %w", path, err)
			}
			if whole {
				_, err := io.Copy(h, &cancelReader{ctx, f})
				return err
			}
			return sample(h, f, info.Size(), r.header)
		}()
		if err != nil {
			return ""
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// sample writes the header and samples of the data behind it to w.
func sample(w io.Writer, f io.ReaderAt, size, header int64) error {
	if header == 0 { // of safetensors: its length comes first
		var b [8]byte
		if _, err := f.ReadAt(b[:], 0); err == nil {
			if n := binary.LittleEndian.Uint64(b[:]); n < uint64(size) {
				header = int64(n) + 8
			}
		}
	}
	// Between a header's ends lies the vocabulary, which models of a family share.
	header = min(header, size)
	end := max(header-headerBytes, 0)
	for _, at := range []int64{0, end} {
		if _, err := io.Copy(w, io.NewSectionReader(f, at, min(headerBytes, header-at))); err != nil {
			return err
		}
	}
	for i := range int64(sampleCount) {
		at := header + (size-header)/sampleCount*i
		if _, err := io.Copy(w, io.NewSectionReader(f, at, sampleBytes)); err != nil {
			return err
		}
	}
	_, err := io.Copy(w, io.NewSectionReader(f, max(size-sampleBytes, 0), sampleBytes))
	return err
}

// A cancelReader reads until its context ends.
type cancelReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}
