package hf

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"weigh/formats"
	"weigh/formats/hfconfig"
)

// A numberRule says which numbers a field of a side file can have.
type numberRule struct {
	ok   func(v float64) bool
	want string
}

func whole(v float64) bool { return v == math.Trunc(v) }

// The rules, by the names that the methods of packing and PEFT use.
var (
	bitsRule  = numberRule{func(v float64) bool { return v > 0 && v <= 64 }, "0 to 64 bits"} // EXL2 has fractions
	groupRule = numberRule{func(v float64) bool { return whole(v) && v >= -1 && v <= maxCount }, fmt.Sprintf("a whole number of at most %d, or -1 for a row", maxCount)}
	rankRule  = numberRule{func(v float64) bool { return whole(v) && v >= 1 && v <= maxCount }, fmt.Sprintf("a whole number from 1 to %d", maxCount)}
	alphaRule = numberRule{func(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }, "a number"}

	packingRules = map[string]numberRule{
		"bits": bitsRule, "w_bit": bitsRule, "weight_bits": bitsRule, "num_bits": bitsRule, "nbits": bitsRule,
		"group_size": groupRule, "q_group_size": groupRule,
	}
	adapterRules = map[string]numberRule{"r": rankRule, "lora_alpha": alphaRule}
)

// maxImpossible bounds the problems that are listed of a file.
const maxImpossible = 20

// impossible lists the numbers of a side file that cannot be: of how weights are
// packed, and of an adapter. They are warnings, for the tensors tell what is so.
func impossible(name string, o hfconfig.Object) (problems []formats.Problem) {
	var walk func(o hfconfig.Object, at string, rules map[string]numberRule)
	walk = func(o hfconfig.Object, at string, rules map[string]numberRule) {
		for _, key := range slices.Sorted(maps.Keys(o)) {
			if len(problems) == maxImpossible {
				return
			}
			if inner, ok := o[key].(hfconfig.Object); ok {
				walk(inner, at+fmt.Sprintf("%.80s.", key), rules)
				continue
			}
			rule, known := rules[key]
			if v, number := hfconfig.AsFloat(o[key]); known && number && !rule.ok(v) {
				problems = append(problems, formats.Problem{
					Severity: formats.SeverityWarning, Code: "bad-metadata", Field: name + ": " + at + key, Offset: -1,
					Message: fmt.Sprintf("%s, want %s", found(o[key]), rule.want),
				})
			}
		}
	}
	switch name {
	case "adapter_config.json":
		walk(o, "", adapterRules)
	case "quantize_config.json", "quant_config.json", "hf_quant_config.json":
		walk(o, "", packingRules)
	case "config.json":
		for _, key := range []string{"quantization_config", "compression_config", "quantization"} {
			walk(o.Object(key), key+".", packingRules)
			if text := o.TextConfig(); text.Has(key) {
				walk(text.Object(key), o.TextField(key)+".", packingRules)
			}
		}
	}
	return problems
}
