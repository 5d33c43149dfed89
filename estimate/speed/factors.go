package speed

import (
	"strings"

	"weigh/estimate/hw"
)

// A Factor says how well a kind of device uses what it has.
type Factor struct {
	Weights  float64 // part of the peak bandwidth that reading dense weights reaches; at most 1
	Experts  float64 // the same of experts, which are read in pieces
	Cache    float64 // the same of keys and values
	Unpack   float64 // bytes that could be read in the time that each weight takes besides its reading
	Operator float64 // seconds of each operator that do not depend on its size: launch, wait, small results
	Compute  float64 // part of the peak matrix rate that a prompt reaches; at most 1
	Spread   float64 // four of five reports lie within Mid/Spread and Mid·Spread
}

// Factors are those of each kind of device.
type Factors struct {
	CUDA   Factor
	Pascal Factor // NVIDIA's before compute capability 7.0
	HBM    Factor // NVIDIA's with stacked memory from 8.0 on: it is faster than the products of one token can ask for
	ROCm   Factor
	CDNA   Factor // AMD's with stacked memory, gfx9
	Vulkan Factor
	Arc    Factor // Intel's cards by Vulkan or SYCL
	Shared Factor // graphics units of processors, in the host's memory, but Apple's
	Metal  Factor
	Host   Factor
	Source string
}

// Fitted returns the factors, rounded, of the reports and benchmarks in testdata;
// TestFactorsAreTheFit holds them against the best fit of each kind and says how
// the reports were cleaned. Cache is from speeds of one model at two depths,
// Compute the median group's operations over the peak matrix rate. Of Pascal, HBM,
// CDNA and Arc few measurements are at hand. The host's are not fitted: 70 percent
// of the bandwidth is what a stream of reads reaches with all cores.
func Fitted() *Factors {
	return &Factors{
		CUDA:   Factor{Weights: 0.95, Experts: 0.95, Cache: 0.70, Unpack: 0.08, Operator: 1.6e-6, Compute: 0.80, Spread: 1.35},
		Pascal: Factor{Weights: 0.75, Experts: 0.75, Cache: 0.70, Unpack: 0.08, Operator: 2e-6, Compute: 1, Spread: 1.6},
		HBM:    Factor{Weights: 0.55, Experts: 0.55, Cache: 0.70, Unpack: 0.08, Operator: 1.6e-6, Compute: 0.25, Spread: 1.6},
		ROCm:   Factor{Weights: 0.75, Experts: 0.50, Cache: 0.80, Unpack: 0.08, Operator: 4e-6, Compute: 0.30, Spread: 1.6},
		CDNA:   Factor{Weights: 0.50, Experts: 0.40, Cache: 0.80, Unpack: 0.08, Operator: 4e-6, Compute: 0.30, Spread: 2},
		Vulkan: Factor{Weights: 0.90, Experts: 0.80, Cache: 0.70, Unpack: 0.08, Operator: 2.5e-6, Compute: 0.30, Spread: 1.6},
		Arc:    Factor{Weights: 0.65, Experts: 0.50, Cache: 0.50, Unpack: 0.08, Operator: 7e-6, Compute: 0.20, Spread: 1.6},
		Shared: Factor{Weights: 0.90, Experts: 0.60, Cache: 0.80, Unpack: 0.08, Operator: 2.5e-6, Compute: 0.30, Spread: 1.6},
		Metal:  Factor{Weights: 0.85, Experts: 0.60, Cache: 0.30, Unpack: 0.18, Operator: 2.5e-6, Compute: 0.60, Spread: 1.6},
		Host:   Factor{Weights: 0.70, Experts: 0.60, Cache: 0.60, Operator: 1e-6, Compute: 0.50, Spread: 1.6},
		Source: "bytes read over bandwidth and time of operators, efficiencies fitted to 142 groups of users' reports and benchmarks",
	}
}

// devices returns the factors of all kinds but the host.
func (f *Factors) devices() []*Factor {
	return []*Factor{&f.CUDA, &f.Pascal, &f.HBM, &f.ROCm, &f.CDNA, &f.Vulkan, &f.Arc, &f.Shared, &f.Metal}
}

// of returns the factor of a device; one of an unknown make is taken for CUDA.
func (f *Factors) of(d *hw.Device) *Factor {
	switch d.Backend {
	case hw.Metal:
		return &f.Metal
	case hw.ROCm, hw.Vulkan, hw.SYCL:
		switch {
		case d.Unified:
			return &f.Shared
		case d.Backend == hw.SYCL || d.Vendor == "intel":
			return &f.Arc
		case d.Backend == hw.Vulkan:
			return &f.Vulkan
		case strings.HasPrefix(d.Arch, "gfx9"):
			return &f.CDNA
		}
		return &f.ROCm
	}
	switch c := d.ComputeCapability; {
	case c.Known() && c.Major < 7:
		return &f.Pascal
	case c.Major == 8 && c.Minor == 0, c.Major == 9, c.Major == 10:
		return &f.HBM
	}
	return &f.CUDA
}
