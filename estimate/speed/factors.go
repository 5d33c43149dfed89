package speed

import "weigh/estimate/hw"

// A Factor says how well a kind of device uses what it has.
type Factor struct {
	Weights float64 // part of the peak bandwidth that reading dense weights reaches; at most 1
	Experts float64 // the same of experts, which are read in pieces
	Cache   float64 // the same of keys and values
	Layer   float64 // seconds of each layer that do not depend on its size: launches, small operators
	Compute float64 // part of the peak matrix rate that a prompt reaches; at most 1
	Spread  float64 // four of five reports lie within Mid/Spread and Mid·Spread
}

// Factors are those of each backend.
type Factors struct {
	CUDA, ROCm, Vulkan, Metal, Host Factor
	Source                          string
}

// Fitted returns the factors of the reports in testdata; TestFactorsAreTheFit
// fits them again and says how the reports were cleaned. Compute is the median
// group's operations over the peak matrix rate. Vulkan has too few
// reports of its own: it takes ROCm's. The host's are not fitted: 70 percent of
// the bandwidth is what a stream of reads reaches with all cores.
func Fitted() *Factors {
	return &Factors{
		CUDA:   Factor{Weights: 0.85, Experts: 0.90, Cache: 0.80, Layer: 60e-6, Compute: 0.80, Spread: 1.35},
		ROCm:   Factor{Weights: 0.65, Experts: 0.30, Cache: 0.30, Layer: 150e-6, Compute: 0.30, Spread: 1.6},
		Vulkan: Factor{Weights: 0.65, Experts: 0.30, Cache: 0.30, Layer: 150e-6, Compute: 0.30, Spread: 1.6},
		Metal:  Factor{Weights: 0.70, Experts: 0.40, Cache: 0.80, Layer: 80e-6, Compute: 0.60, Spread: 1.6},
		Host:   Factor{Weights: 0.70, Experts: 0.60, Cache: 0.60, Layer: 20e-6, Compute: 0.50, Spread: 1.6},
		Source: "bytes read over bandwidth, efficiencies fitted to 66 groups of users' reports",
	}
}

// of returns the factor of a backend; an unknown one is taken for CUDA.
func (f *Factors) of(backend string) *Factor {
	switch backend {
	case hw.ROCm:
		return &f.ROCm
	case hw.Vulkan, hw.SYCL:
		return &f.Vulkan
	case hw.Metal:
		return &f.Metal
	}
	return &f.CUDA
}
