package main

import (
	"fmt"
	"io"
	"strings"

	"weigh/cmd/weigh/internal/render"
	"weigh/estimate/hw"
)

// A cardDocument is the JSON of a card of the catalogue. What is unknown is null.
type cardDocument struct {
	Name              string   `json:"name"`
	Vendor            string   `json:"vendor"`
	Memory            *uint64  `json:"memory"`
	MemorySizes       []uint64 `json:"memory_sizes,omitempty"` // of a part sold in several
	UnifiedMemory     bool     `json:"unified_memory"`
	BandwidthBps      *uint64  `json:"bandwidth_bytes_per_second"`
	FP16Flops         *uint64  `json:"fp16_flops"`
	FP32Flops         *uint64  `json:"fp32_flops"`
	ComputeCapability *string  `json:"compute_capability"`
	Architecture      *string  `json:"architecture"`
	Multiprocessors   *int     `json:"multiprocessors"`
	Source            string   `json:"source"`
}

// printCatalog writes the cards whose maker and name have every word of the
// pattern, else the card that the pattern names as --gpu would.
func printCatalog(w io.Writer, style render.Style, pattern string, asJSON bool) error {
	var cards []hw.Card
	for _, c := range hw.Catalogue() {
		if matches(c.Vendor+" "+c.Name, pattern) {
			cards = append(cards, c)
		}
	}
	if len(cards) == 0 {
		c, err := hw.Lookup(pattern)
		if err != nil {
			return err // which names the nearest
		}
		cards = append(cards, c)
	}
	if asJSON {
		docs := []cardDocument{}
		for _, c := range cards {
			docs = append(docs, cardDocument{
				c.Name, c.Vendor, known(c.Memory), c.Sizes, c.Unified, known(c.BandwidthBps), known(c.FP16Flops), known(c.FP32Flops),
				known(c.ComputeCapability.String()), known(c.Arch), known(c.Units), c.Source,
			})
		}
		return writeJSON(w, struct {
			Schema int            `json:"schema"`
			Cards  []cardDocument `json:"cards"`
		}{1, docs})
	}
	rows := [][]string{{"NAME", "MEMORY", "GB/s", "FP16 TFLOPS", "FP32 TFLOPS", "CC", "UNITS", "SOURCE"}}
	for _, c := range cards {
		memory := "shared"
		if c.Memory > 0 {
			memory = render.Bytes(c.Memory)
		}
		rows = append(rows, []string{
			c.Name, memory, fmt.Sprint(c.BandwidthBps / 1e9), tera(c.FP16Flops), tera(c.FP32Flops),
			c.ComputeCapability.String() + c.Arch, blank(c.Units), c.Source,
		})
	}
	rows, right := narrow(rows, style.Width, []int{7, 6, 4, 5}, 1, 2, 3, 4, 6)
	render.Columns(w, rows, right...)
	return nil
}

// matches reports whether name has every word of the pattern, in any case.
func matches(name, pattern string) bool {
	name = strings.ToLower(name)
	for word := range strings.FieldsSeq(strings.ToLower(pattern)) {
		if !strings.Contains(name, word) {
			return false
		}
	}
	return true
}

// tera writes a rate in 10^12 operations per second, and nothing for an unknown one.
func tera(flops uint64) string {
	if flops == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", float64(flops)/1e12)
}

// blank writes a number, and nothing for an unknown one.
func blank(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
