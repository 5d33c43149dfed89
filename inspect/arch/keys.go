package arch

import (
	"fmt"
	"math"
	"strings"

	"weigh/inspect/model"
)

// maxInt is the largest count that a key may hold: products of a few of them
// stay far below the range of a 64-bit integer.
const maxInt = 1 << 31

// Keys reads typed values of one architecture's keys. The first bad value
// fails all later reads.
type Keys struct {
	meta model.Meta
	arch string
	err  error

	index *model.Index
}

// A KeyError is the error for a key whose value cannot be.
type KeyError struct {
	Key string // with its architecture
	Why string
}

func (e *KeyError) Error() string { return e.Key + ": " + e.Why }

// fail rejects a key, unless an earlier one was rejected.
func (k *Keys) fail(key, format string, args ...any) { k.reject(k.arch+"."+key, format, args...) }

// reject is fail of a key by its whole name.
func (k *Keys) reject(key, format string, args ...any) {
	if k.err == nil {
		k.err = &KeyError{key, fmt.Sprintf(format, args...)}
	}
}

func (k *Keys) get(key string) (any, bool) { return k.meta.Lookup(k.arch + "." + key) }

// Has reports whether the key is present.
func (k *Keys) Has(key string) bool { _, ok := k.get(key); return ok }

// Int returns a count, or def when the key is absent.
func (k *Keys) Int(key string, def int) int {
	v, ok := k.get(key)
	if !ok {
		return def
	}
	n, ok := toInt(v)
	if !ok {
		k.fail(key, "%s, want a whole number of at most %d", describe(v), maxInt)
		return def
	}
	return n
}

// must rejects a model without one of the keys, which are apart by spaces.
func (k *Keys) must(keys string) {
	for _, key := range strings.Fields(keys) {
		if !k.Has(key) {
			k.fail(key, "missing: llama.cpp refuses to load this architecture without it")
		}
	}
}

// Need is Int for a key that must be there.
func (k *Keys) Need(key string) int {
	if k.must(key); !k.Has(key) {
		return 0
	}
	n := k.Int(key, 0)
	if n < 0 {
		k.fail(key, "%d is negative", n)
	}
	return n
}

// Count is Int for a value that is never negative.
func (k *Keys) Count(key string, def int) int {
	n := k.Int(key, def)
	if n < 0 {
		k.fail(key, "%d is negative", n)
		return def
	}
	return n
}

// Float returns a number, or def when the key is absent.
func (k *Keys) Float(key string, def float32) float32 {
	v, ok := k.get(key)
	if !ok {
		return def
	}
	switch v := v.(type) {
	case float64:
		return float32(v)
	case int64:
		return float32(v)
	}
	k.fail(key, "%s, want a number", describe(v))
	return def
}

// Bool returns a flag, or def when the key is absent.
func (k *Keys) Bool(key string, def bool) bool {
	v, ok := k.get(key)
	if !ok {
		return def
	}
	b, ok := v.(bool)
	if !ok {
		k.fail(key, "%s, want true or false", describe(v))
	}
	return b
}

// Str returns text, or def when the key is absent.
func (k *Keys) Str(key, def string) string {
	v, ok := k.get(key)
	if !ok {
		return def
	}
	s, ok := v.(string)
	if !ok {
		k.fail(key, "%s, want text", describe(v))
	}
	return s
}

// PerLayer returns n values: the key's array, its single value n times, or def.
// An array must have just n values.
//
// Source: src/llama-model-loader.cpp@v0.5.0, llama_model_loader::get_key_or_arr.
func (k *Keys) PerLayer(key string, n, def int) []int {
	out := make([]int, n)
	v, ok := k.get(key)
	if !ok {
		return fill(out, def)
	}
	vals, ok := ints(v)
	if !ok {
		k.fail(key, "%s, want a count or one for each layer", describe(v))
		return fill(out, def)
	}
	if _, scalar := toInt(v); scalar {
		return fill(out, vals[0])
	}
	if len(vals) != n {
		k.fail(key, "%d values, want %d", len(vals), n)
		return fill(out, def)
	}
	copy(out, vals)
	return out
}

// counts is PerLayer for values that are never negative, 0 when absent.
func (k *Keys) counts(key string, n int) []int {
	vals := k.PerLayer(key, n, 0)
	for il, v := range vals {
		if v < 0 {
			k.fail(key, "%d in layer %d is negative", v, il)
			return fill(vals, 0)
		}
	}
	return vals
}

// compressRatios returns a ratio for each layer, of an array that may be longer.
func (k *Keys) compressRatios(n int) []int {
	const key = "attention.compress_ratios"
	out, vals := make([]int, n), k.Ints(key)
	if len(vals) < n || len(vals) > MaxLayers || k.arrayLen(k.arch+"."+key) == 0 {
		k.fail(key, "%d values for %d layers", len(vals), n)
		return out
	}
	copy(out, vals)
	return out
}

// Ints returns the values of an array of counts or flags, nil when absent.
func (k *Keys) Ints(key string) []int {
	v, ok := k.get(key)
	if !ok {
		return nil
	}
	vals, ok := ints(v)
	if !ok {
		k.fail(key, "%s, want counts", describe(v))
	}
	return vals
}

// Floats returns n values, of an array of as many or of a single number; nil when
// absent.
func (k *Keys) Floats(key string, n int) []float32 {
	v, ok := k.get(key)
	if !ok {
		return nil
	}
	out := make([]float32, n)
	switch v := v.(type) {
	case float64:
		for i := range out {
			out[i] = float32(v)
		}
	case []float64:
		if len(v) != n {
			k.fail(key, "%d values for %d layers", len(v), n)
			return nil
		}
		for i := range out {
			out[i] = float32(v[i])
		}
	default:
		k.fail(key, "%s, want a number or one for each layer", describe(v))
		return nil
	}
	return out
}

func (k *Keys) text(key string) string {
	v, _ := k.meta.Lookup(key)
	s, _ := v.(string)
	return s
}

// arrayLen returns the length of an array, 0 for anything else.
func (k *Keys) arrayLen(key string) int {
	v, _ := k.meta.Lookup(key)
	switch v := v.(type) {
	case model.Len:
		return int(min(v, maxInt))
	case []string:
		return len(v)
	case []int64:
		return len(v)
	case []float64:
		return len(v)
	}
	return 0
}

func toInt(v any) (int, bool) {
	switch v := v.(type) {
	case int64:
		if v >= -maxInt && v <= maxInt {
			return int(v), true
		}
	case float64:
		if v == math.Trunc(v) && math.Abs(v) <= maxInt {
			return int(v), true
		}
	}
	return 0, false
}

func ints(v any) ([]int, bool) {
	switch v := v.(type) {
	case []int64:
		out := make([]int, len(v))
		for i, n := range v {
			if n < -maxInt || n > maxInt {
				return nil, false
			}
			out[i] = int(n)
		}
		return out, true
	case []bool:
		out := make([]int, len(v))
		for i, b := range v {
			if b {
				out[i] = 1
			}
		}
		return out, true
	case bool:
		if v {
			return []int{1}, true
		}
		return []int{0}, true
	}
	n, ok := toInt(v)
	return []int{n}, ok
}

func fill(s []int, v int) []int {
	for i := range s {
		s[i] = v
	}
	return s
}

// describe says what was found, without quoting a file's text at length.
func describe(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("text %.40q", v)
	case []int64, []float64, []bool, []string, model.Len:
		return "an array"
	default:
		return fmt.Sprintf("%v", v)
	}
}

// window reads a sliding window that the architecture must have.
func (k *Keys) window(h *model.HParams, key string) {
	h.NSWA = k.Need(key)
	h.SWAType = model.SWAStandard
}

// windowPattern reads which layers have the window: a flag for each, none for
// those past the array's end.
//
// Source: src/llama-model-loader.cpp@v0.5.0, llama_model_loader::get_arr.
func (k *Keys) windowPattern(h *model.HParams) {
	const key = "attention.sliding_window_pattern"
	v, _ := k.get(key)
	on, ok := ints(v)
	if _, scalar := toInt(v); !ok || scalar {
		k.fail(key, "%s, want a flag for each layer", describe(v))
		return
	}
	if len(on) > MaxLayers {
		k.fail(key, "%d values, llama.cpp takes %d", len(on), MaxLayers)
		return
	}
	for i := range h.Layers {
		h.Layers[i].SWA = i < len(on) && on[i] != 0
	}
}

// pattern reads which layers have the window: one flag for each layer, the
// period of the layers without it, or def for that period.
//
// Source: src/llama-model.cpp@v0.5.0, llama_model_base::load_swa_pattern.
func (k *Keys) pattern(h *model.HParams, def int) {
	v, ok := k.get("attention.sliding_window_pattern")
	if !ok {
		h.SetSWAPattern(def, false)
		return
	}
	if n, ok := toInt(v); ok {
		if n < 0 {
			k.fail("attention.sliding_window_pattern", "%d is negative", n)
			return
		}
		h.SetSWAPattern(n, false)
		return
	}
	k.windowPattern(h)
}
