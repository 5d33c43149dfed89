package detect

import (
	"errors"

	"golang.org/x/sys/unix"

	"weigh/estimate/hw"
)

// nativeHost is not needed where there is proc.
func nativeHost() (hw.Host, error) {
	return hw.Host{Source: map[string]string{}}, errors.ErrUnsupported
}

// diskFree returns the bytes free in the current folder.
func diskFree() (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(".", &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil
}
