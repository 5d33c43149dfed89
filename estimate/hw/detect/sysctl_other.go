//go:build !darwin

package detect

import "errors"

// sysctl is macOS's.
func sysctl(string) (string, error) { return "", errors.ErrUnsupported }
