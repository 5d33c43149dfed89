package rules_test

import (
	"fmt"

	"weigh/estimate/rules"
)

// What the rules that ask for nothing but parameters say of 7B in FP16.
func Example() {
	m := rules.Model{Parameters: 7e9, Bits: 16}
	for _, r := range rules.All[:3] {
		if n, ok := r.Bytes(m, rules.Run{}); ok {
			fmt.Printf("%s: %s = %.1f GB\n", r.Name, r.Formula, float64(n)/1e9)
		}
	}
	// Output:
	// parameters × precision: P × bits ÷ 8 = 14.0 GB
	// NVIDIA: P × bytes × 2 = 28.0 GB
	// 20% overhead: P × bits ÷ 8 × 1.2 = 16.8 GB
}
