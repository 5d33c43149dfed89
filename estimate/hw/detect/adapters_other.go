//go:build !windows

package detect

import "errors"

// adapters are those of Windows.
func adapters() ([]adapter, error) { return nil, errors.ErrUnsupported }
