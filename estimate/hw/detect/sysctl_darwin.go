package detect

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// sysctl returns a value of the system as text.
func sysctl(name string) (string, error) {
	switch name {
	case "hw.memsize":
		n, err := unix.SysctlUint64(name)
		return strconv.FormatUint(n, 10), err
	case "machdep.cpu.brand_string":
		return unix.Sysctl(name)
	}
	n, err := unix.SysctlUint32(name)
	return strconv.FormatUint(uint64(n), 10), err
}
