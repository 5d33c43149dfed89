package rules

import (
	"fmt"
	"math"
	"strings"
)

// A Fact is something of a model that makes a rule differ from the exact figure.
type Fact int

// The facts.
const (
	Bits     Fact = iota // the bits that a weight really takes
	Floats               // weights of fewer than 16 bits
	Groups               // heads that share keys and values
	Layers               // layers that do not keep every token of every head
	HeadSize             // heads that are not hidden ÷ heads wide
	Output               // an output matrix apart from the embedding
)

// Reason returns why the rule differs from the exact figure for this model: its
// general reason, and what of the model it does not see.
func (r *Rule) Reason(m Model) string {
	parts := []string{r.Why}
	for _, f := range r.Blind {
		parts = append(parts, f.of(m)...)
	}
	return strings.Join(parts, "; ")
}

// of says what the fact is of a model; nothing where it makes no difference.
func (f Fact) of(m Model) (says []string) {
	say := func(format string, args ...any) { says = append(says, fmt.Sprintf(format, args...)) }
	switch f {
	case Bits:
		if m.Parameters == 0 {
			break
		}
		if bits := 8 * float64(m.WeightBytes) / float64(m.Parameters); math.Abs(bits-float64(m.Bits)) >= 0.05 {
			say("here a weight takes %.2f bits, not %d", bits, m.Bits)
		}
	case Floats:
		if m.Bits < 16 {
			say("here weights of %d bits count as 16", m.Bits)
		}
	case Groups:
		if m.HeadsKV > 0 && m.Heads > m.HeadsKV && !m.Latent {
			say("here %d heads share %d keys", m.Heads, m.HeadsKV)
		}
	case Layers:
		if n := m.Layers - m.FullLayers - m.States; n > 0 && m.FullLayers > 0 && m.Window > 0 {
			say("here %d of %d layers keep %d tokens at most", n, m.Layers, m.Window)
		}
		if m.States > 0 {
			say("here %d of %d layers keep a state, no tokens", m.States, m.Layers)
		}
		if m.Latent {
			say("here one latent row is kept for all heads")
		}
	case HeadSize:
		if m.Heads > 0 && m.HeadDim > 0 && m.HeadDim != m.Hidden/m.Heads && !m.Latent {
			say("here a head is %d wide, not %d", m.HeadDim, m.Hidden/m.Heads)
		}
	case Output:
		if m.OutputTensor > 0 {
			say("here that leaves out %.2f B parameters", float64(m.OutputTensor)/1e9)
		}
	}
	return says
}
