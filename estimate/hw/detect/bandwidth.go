package detect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"weigh/estimate/hw"
)

// A bandwidthRecord is what an earlier measurement of this machine found.
type bandwidthRecord struct {
	Host string `json:"host"` // which machine it was
	Bps  uint64 `json:"bytes_per_second"`
}

// machineKey tells machines apart that share a home folder.
func machineKey(h hw.Host) string {
	return fmt.Sprintf("%s, %d threads, %d bytes", h.CPU, h.Threads, value(h.MemoryTotal))
}

// bandwidthFile is where the measurement is kept.
func bandwidthFile() (string, error) {
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "weigh", "host-bandwidth.json"), err
}

// cachedBandwidth returns what MeasureBandwidth found on this machine earlier,
// or 0.
func cachedBandwidth(h hw.Host) uint64 {
	name, err := bandwidthFile()
	if err != nil {
		return 0
	}
	b, err := os.ReadFile(name)
	var r bandwidthRecord
	if err != nil || json.Unmarshal(b, &r) != nil || r.Host != machineKey(h) {
		return 0
	}
	return r.Bps
}

// MeasureBandwidth measures how fast all cores together read host memory, in
// bytes per second, and keeps the result for Machine. It takes about half a
// second and up to 64 MiB a core, less where memory is short.
func MeasureBandwidth(ctx context.Context, h hw.Host) (uint64, error) {
	const least = 16 << 20 // smaller buffers would be read from the caches
	workers := max(1, h.Threads)
	if h.Threads == 0 {
		workers = runtime.NumCPU()
	}
	each := uint64(64 << 20)
	if free, _, ok := h.Usable(); ok {
		each = min(each, free/4/uint64(workers))
	}
	if each < least {
		return 0, errors.New("too little memory is free to measure its bandwidth")
	}
	buffers := make([][]uint64, workers)
	for i := range buffers {
		buffers[i] = make([]uint64, each/8)
		for j := range buffers[i] {
			buffers[i][j] = uint64(j) // touch every page
		}
	}
	passes := make([]uint64, workers)
	sums := make([]uint64, workers) // so that no read is left out
	start := time.Now()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for time.Since(start) < 200*time.Millisecond && ctx.Err() == nil {
				var a, b, c, d uint64
				buf := buffers[w]
				for i := 0; i+3 < len(buf); i += 4 {
					a, b, c, d = a+buf[i], b+buf[i+1], c+buf[i+2], d+buf[i+3]
				}
				sums[w] += a + b + c + d
				passes[w]++
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	var read uint64
	for _, n := range passes {
		read += n * each
	}
	bps := read * uint64(time.Second/time.Microsecond) / uint64(elapsed/time.Microsecond)
	return bps, keepBandwidth(bandwidthRecord{machineKey(h), bps})
}

// keepBandwidth writes the record for later runs.
func keepBandwidth(r bandwidthRecord) error {
	name, err := bandwidthFile()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(name, b, 0o644)
}
