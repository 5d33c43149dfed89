package hw

import (
	"cmp"
	_ "embed"
	"encoding/csv"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
)

// A Card is one row of the catalogue: the data-sheet figures of a device.
// A field at its zero value is unknown.
type Card struct {
	Name              string
	Vendor            string
	Memory            uint64   // bytes, nominal; 0 for a part that shares the host's memory in sizes sold
	Sizes             []uint64 // bytes, of a part whose variants are sold in different sizes; nil: any
	BandwidthBps      uint64
	FP16Flops         uint64 // dense matrix rate, 16-bit factors, 32-bit sums
	FP32Flops         uint64 // vector rate
	ComputeCapability Capability
	Arch              string // AMD
	Units             int    // multiprocessors, compute units, Xe cores
	PCIe              PCIe
	Unified           bool
	ECC               bool // keeps its check bits in the same memory, a sixteenth of it
	Source            string
}

//go:embed catalogue.csv
var catalogueCSV string

// aliasesCSV names cards otherwise than their drivers do: as they are sold,
// and by a part of the name that several cards share.
//
//go:embed aliases.csv
var aliasesCSV string

// Catalogue returns every known card, in the order of the table.
func Catalogue() []Card { return slices.Clone(catalogue().cards) }

// An index is the catalogue and what its names are compared by.
type index struct {
	cards   []Card
	keys    []string         // key of each card's name
	byKey   map[string]int   // a card's own name
	aliases map[string][]int // other names, and names without the size that ends them
}

var catalogue = sync.OnceValue(func() *index {
	cards, err := readCatalogue(catalogueCSV)
	if err != nil {
		panic(err) // the table is part of the program
	}
	ix := &index{cards: cards, byKey: make(map[string]int, len(cards)), aliases: map[string][]int{}}
	for i, c := range cards {
		ix.keys = append(ix.keys, key(c.Name))
		ix.byKey[ix.keys[i]] = i
		if base, size := sizedKey(c.Name); size > 0 {
			ix.aliases[base] = append(ix.aliases[base], i)
		}
	}
	rows, err := csv.NewReader(strings.NewReader(aliasesCSV)).ReadAll()
	if err != nil {
		panic(err)
	}
	for _, r := range rows[1:] {
		i, ok := ix.byKey[key(r[1])]
		if !ok {
			panic(fmt.Sprintf("alias %q of no card: %q", r[0], r[1]))
		}
		if k := key(r[0]); !slices.Contains(ix.aliases[k], i) {
			ix.aliases[k] = append(ix.aliases[k], i)
		}
	}
	return ix
})

// readCatalogue reads the table. Its rates are decimal: 1 GB/s is 10^9 bytes
// per second and 1 TFLOPS 10^12 operations per second.
func readCatalogue(text string) ([]Card, error) {
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("catalogue: %w", err)
	}
	var cards []Card
	for i, r := range rows[1:] {
		bad := func(err error) ([]Card, error) { return nil, fmt.Errorf("catalogue: row %d (%s): %w", i+2, r[0], err) }
		mib, sizes, err := memory(r[2])
		if err != nil {
			return bad(err)
		}
		bps, err := decimal(r[3], 1e9)
		if err != nil {
			return bad(err)
		}
		fp16, err := decimal(r[4], 1e12)
		if err != nil {
			return bad(err)
		}
		fp32, err := decimal(r[5], 1e12)
		if err != nil {
			return bad(err)
		}
		c := Card{Name: r[0], Vendor: r[1], Memory: mib, Sizes: sizes, BandwidthBps: bps, FP16Flops: fp16, FP32Flops: fp32, Unified: r[9] == "yes", ECC: r[10] == "yes", Source: r[11]}
		if strings.HasPrefix(r[6], "gfx") {
			c.Arch = r[6]
		} else if c.ComputeCapability, err = ParseCapability(r[6]); err != nil && r[6] != "" {
			return bad(err)
		}
		if r[7] != "" {
			if c.Units, err = strconv.Atoi(r[7]); err != nil {
				return bad(err)
			}
		}
		if r[8] != "" {
			if _, err := fmt.Sscanf(r[8], "%dx%d", &c.PCIe.Gen, &c.PCIe.Width); err != nil {
				return bad(err)
			}
		}
		cards = append(cards, c)
	}
	return cards, nil
}

// memory reads a size in MiB, or the sizes that a part which shares the host's
// memory is sold with.
func memory(text string) (size uint64, sizes []uint64, err error) {
	if !strings.Contains(text, "|") {
		size, err = decimal(text, 1<<20)
		return size, nil, err
	}
	for s := range strings.SplitSeq(text, "|") {
		n, err := decimal(s, 1<<20)
		if err != nil {
			return 0, nil, err
		}
		sizes = append(sizes, n)
	}
	return 0, sizes, nil
}

// decimal returns floor(text × unit) exactly; "" is 0.
func decimal(text string, unit uint64) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	whole, frac, _ := strings.Cut(text, ".")
	digits := whole + frac
	if len(digits) > 18 || digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, fmt.Errorf("%q is not a decimal number", text)
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, err
	}
	scale := uint64(1)
	for range frac {
		scale *= 10
	}
	hi, lo := bits.Mul64(n, unit)
	if hi >= scale {
		return 0, fmt.Errorf("%q is too large", text)
	}
	q, _ := bits.Div64(hi, lo, scale)
	return q, nil
}

// ParseCapability reads a compute capability such as "8.9".
func ParseCapability(s string) (Capability, error) {
	major, minor, dot := strings.Cut(s, ".")
	ma, err1 := strconv.ParseUint(major, 10, 8)
	mi, err2 := strconv.ParseUint(minor, 10, 8)
	if !dot || err1 != nil || err2 != nil || ma == 0 || mi > 9 {
		return Capability{}, fmt.Errorf("%q is not a compute capability such as 8.9", s)
	}
	return Capability{int(ma), int(mi)}, nil
}

// makerWords name a maker or one of its brands. They are left out when names are
// compared, but a name with one means no card of another maker.
var makerWords = map[string]string{
	"nvidia": "nvidia", "geforce": "nvidia", "tesla": "nvidia",
	"amd": "amd", "radeon": "amd", "instinct": "amd",
	"intel": "intel", "apple": "apple",
}

// softWords are ornaments that one source writes and another does not. Every
// other word counts: Ti, SUPER, XT, D, Laptop, Max-Q, Quadro make another card.
var softWords = map[string]bool{
	"corporation": true, "inc": true, "graphics": true, "gpu": true, "r": true, "tm": true, "generation": true,
	"with": true, "design": true, "edition": true,
}

// sameWords are two words for one thing.
var sameWords = map[string]string{"mobile": "laptop", "notebook": "laptop"}

// seriesWords are the series that people leave out where the number says it:
// "4090", "A6000", "7900 XTX", "B580".
var seriesWords = []string{"rtx", "gtx", "rx", "arc"}

// words splits a name into the lower-case words it is compared by.
func words(name string) []string {
	w := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	w = slices.DeleteFunc(w, func(w string) bool { return softWords[w] || makerWords[w] != "" })
	for i := range w {
		w[i] = cmp.Or(sameWords[w[i]], w[i])
	}
	return w
}

// maker returns the maker that a name mentions, "" when it mentions none.
func maker(name string) string {
	for w := range strings.FieldsFuncSeq(strings.ToLower(name), func(r rune) bool { return !unicode.IsLetter(r) }) {
		if m := makerWords[w]; m != "" {
			return m
		}
	}
	return ""
}

// key reduces a name to what it is compared by: its hard words in lower case,
// without spaces or signs.
func key(name string) string { return strings.Join(words(name), "") }

// sizedKey is key of a name that ends in a memory size, without that size, and
// the size in bytes. A name that does not has size 0.
func sizedKey(name string) (base string, size uint64) {
	w := words(name)
	last := len(w) - 1
	if last > 0 && (w[last] == "gb" || w[last] == "gib") {
		w[last-1] += "gb"
		w, last = w[:last], last-1
	}
	if last < 1 {
		return strings.Join(w, ""), 0
	}
	gib, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSuffix(w[last], "gib"), "gb"), 10, 10)
	if err != nil || !strings.HasSuffix(w[last], "b") {
		return strings.Join(w, ""), 0
	}
	return strings.Join(w[:last], ""), gib << 30
}

// An UnknownCardError says that a name is in no row of the catalogue, and which
// rows come nearest; or that it is in several, and in which.
type UnknownCardError struct {
	Name    string
	Several []string // what the name can mean
	Nearest []string
}

// Error names the rows; none of them is taken instead.
func (e *UnknownCardError) Error() string {
	switch {
	case len(e.Several) > 0:
		return fmt.Sprintf("%q is the name of several cards: %s", e.Name, strings.Join(e.Several, ", "))
	case len(e.Nearest) == 0:
		return fmt.Sprintf("no card named %q", e.Name)
	}
	return fmt.Sprintf("no card named %q; the nearest are %s", e.Name, strings.Join(e.Nearest, ", "))
}

// Lookup returns the card of that name. Names match when they are equal but for
// case, spaces, signs, the maker's name and a series that the number implies; a
// size after the name ("RTX 3060 12GB") must be the card's own, and gives a part
// that shares the host's memory its size ("Apple M4 Max 64GB").
//
// Any other name is an *UnknownCardError: a near match is never taken, nor one of
// several.
func Lookup(name string) (Card, error) {
	ix := catalogue()
	found := ix.find(name)
	if len(found) == 1 {
		c := ix.cards[found[0]]
		if _, size := sizedKey(name); c.Memory == 0 {
			c.Memory = size
		}
		return c, nil
	}
	unknown := &UnknownCardError{Name: name}
	for _, i := range found {
		unknown.Several = append(unknown.Several, ix.cards[i].Name)
	}
	if len(found) == 0 {
		unknown.Nearest = ix.nearest(name)
	}
	return Card{}, unknown
}

// find returns the cards that a name means: by itself, else with the series that
// it leaves out.
func (ix *index) find(name string) []int {
	found := ix.called(name)
	if len(found) > 0 {
		return found
	}
	for _, series := range seriesWords {
		for _, i := range ix.called(series + " " + name) {
			if !slices.Contains(found, i) {
				found = append(found, i)
			}
		}
	}
	return found
}

// called returns the cards of that name: those of the whole name, else those of
// the name before a size that they have.
func (ix *index) called(name string) []int {
	by := maker(name)
	of := func(k string, size uint64) (found []int) {
		i, ok := ix.byKey[k]
		if all := ix.aliases[k]; !ok || size > 0 {
			found = slices.Clone(all)
		}
		if ok && !slices.Contains(found, i) {
			found = append(found, i)
		}
		return slices.DeleteFunc(found, func(i int) bool {
			c := &ix.cards[i]
			return by != "" && by != c.Vendor || size > 0 && !c.has(size)
		})
	}
	if found := of(key(name), 0); len(found) > 0 {
		return found
	}
	if base, size := sizedKey(name); size > 0 {
		return of(base, size)
	}
	return nil
}

// has reports whether the card is sold with that size of memory.
func (c *Card) has(size uint64) bool {
	return c.Memory == size || c.Memory == 0 && (c.Sizes == nil || slices.Contains(c.Sizes, size))
}

// Identify returns the card that a driver's name and memory size mean. Where
// the catalogue tells cards of one name apart by size (RTX 4060 Ti 8GB and
// 16GB), the size decides, if only one has it.
// total 0 is an unknown size.
func Identify(name string, total uint64) (Card, bool) {
	ix := catalogue()
	k, by := key(name), maker(name)
	candidates := slices.Clone(ix.aliases[k])
	if i, ok := ix.byKey[k]; ok {
		if total == 0 || len(candidates) == 0 {
			candidates = nil
		}
		candidates = append(candidates, i)
	}
	candidates = slices.DeleteFunc(candidates, func(i int) bool {
		c := &ix.cards[i]
		switch {
		case by != "" && by != c.Vendor:
			return true
		case total == 0:
			return false
		case c.Unified:
			return c.Sizes != nil && !slices.Contains(c.Sizes, total)
		}
		return !within(total, c.Memory)
	})
	if len(candidates) != 1 {
		return Card{}, false
	}
	return ix.cards[candidates[0]], true
}

// within reports whether a driver's total can be a card's nominal memory: it is
// never above it, and lacks what the firmware and check bits take, up to 7
// percent (a Tesla T4 of 16384 MiB has 15360, a K80 of 12288 has 11441).
func within(total, nominal uint64) bool { return total <= nominal && nominal-total <= nominal/13 }

// maxNameLen bounds the name that nearest compares.
const maxNameLen = 64

// nearest returns up to five names of the catalogue: those that the name is a
// part of, then those that differ least from it.
func (ix *index) nearest(name string) []string {
	name = name[:min(len(name), maxNameLen)]
	k, p := key(name), parts(name)
	type scored struct {
		name string
		dist int
	}
	var all []scored
	base, size := sizedKey(name)
	var otherSizes []int
	if size > 0 {
		otherSizes = ix.find(base)
	}
	for i, c := range ix.cards {
		ck := ix.keys[i]
		d, within := editDistance(k, ck), parts(c.Name)
		switch {
		case slices.Contains(otherSizes, i):
			d = -1
		case len(p) > 0 && !slices.ContainsFunc(p, func(s string) bool { return !slices.Contains(within, s) }):
			d = -1
		case k != "" && (strings.Contains(ck, k) || len(ck) > 4 && strings.Contains(k, ck)):
			d = min(d, 1) // a word too few or too many
		}
		if d <= len(k)/2 {
			all = append(all, scored{c.Name, d})
		}
	}
	slices.SortStableFunc(all, func(a, b scored) int { return a.dist - b.dist })
	var names []string
	for _, s := range all[:min(5, len(all))] {
		names = append(names, s.name)
	}
	return names
}

// parts splits the words of a name into runs of letters and of digits.
func parts(name string) []string {
	var p []string
	for _, w := range words(name) {
		for w != "" {
			n := len(w) - len(strings.TrimLeft(w, "0123456789"))
			if n == 0 {
				if n = strings.IndexAny(w, "0123456789"); n < 0 {
					n = len(w)
				}
			}
			p, w = append(p, w[:n]), w[n:]
		}
	}
	return p
}

// editDistance is Levenshtein's, over bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag = row[j+1]
			row[j+1] = min(cost, row[j]+1, diag+1)
		}
	}
	return row[len(b)]
}
