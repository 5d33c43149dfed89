//go:build !linux || !cgo || nonvml

package detect

// nvmlBuilt says whether this build can load NVML.
const nvmlBuilt = false

// probeNVML needs cgo; nvidia-smi is asked instead.
func probeNVML([]string) nvidiaReport {
	return nvidiaReport{Problem: "this build does not load NVML", NoDriver: true}
}
