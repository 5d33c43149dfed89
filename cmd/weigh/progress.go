package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"weigh/cmd/weigh/internal/render"
)

// A progress is a line on a terminal that says how far a command is. Elsewhere
// it writes nothing.
type progress struct {
	mu    sync.Mutex
	w     io.Writer // nil: no terminal
	style render.Style
	last  time.Time
	shown bool
}

// progressEvery is how often the line changes.
const progressEvery = 50 * time.Millisecond

// newProgress returns the progress of a command whose messages go to w.
func newProgress(w io.Writer) *progress {
	p := &progress{style: render.StyleOf(w), last: time.Now()}
	if p.style.Bars {
		p.w = w
	}
	return p
}

// show writes that part of whole is done, with a bar; whole 0 is unknown.
func (p *progress) show(what string, part, whole uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w == nil || time.Since(p.last) < progressEvery {
		return
	}
	p.last, p.shown = time.Now(), true
	line := fmt.Sprintf("%s %d", what, part)
	if whole > 0 {
		line = fmt.Sprintf("%s %s %d of %d", p.style.Bar(part, whole, 24), what, part, whole)
	}
	r := []rune(line)
	fmt.Fprintf(p.w, "\r%s\x1b[K", string(r[:min(len(r), cmp.Or(p.style.Width, 80)-1)]))
}

// done takes the line away.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", cmp.Or(p.style.Width, 80)-1))
		p.shown = false
	}
}
