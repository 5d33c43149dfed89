package detect

import (
	"os"
	"testing"

	"weigh/estimate/hw"
)

func TestMeasureBandwidth(t *testing.T) {
	for _, name := range []string{"XDG_CACHE_HOME", "HOME", "LocalAppData"} {
		t.Setenv(name, t.TempDir())
	}
	free := uint64(1 << 30)
	h := hw.Host{CPU: "a processor", Threads: 1, MemoryTotal: &free, MemoryAvailable: &free}
	if bps := cachedBandwidth(h); bps != 0 {
		t.Fatalf("%d bytes per second before any measurement", bps)
	}
	bps, err := MeasureBandwidth(t.Context(), h)
	if err != nil || bps < 100e6 || bps > 10e12 {
		t.Fatalf("MeasureBandwidth() = %d, %v", bps, err)
	}
	if got := cachedBandwidth(h); got != bps {
		t.Errorf("kept %d bytes per second, measured %d", got, bps)
	}
	h.CPU = "another processor"
	if got := cachedBandwidth(h); got != 0 {
		t.Errorf("%d bytes per second of another machine", got)
	}
	h.CPU = "a processor"
	name, err := bandwidthFile()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte("junk"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := cachedBandwidth(h); got != 0 {
		t.Errorf("%d bytes per second from a file of junk", got)
	}
	free = 10 << 20
	if _, err := MeasureBandwidth(t.Context(), h); err == nil {
		t.Error("measured with no memory to read")
	}
}
