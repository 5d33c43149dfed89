package main

import (
	"os"
	"syscall"
)

// peak returns the most memory the process held, in bytes.
func peak(s *os.ProcessState) uint64 {
	if u, ok := s.SysUsage().(*syscall.Rusage); ok {
		return uint64(u.Maxrss) << 10
	}
	return 0
}
