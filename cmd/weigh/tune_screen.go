package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/charmbracelet/x/ansi"

	"weigh/cmd/weigh/internal/render"
	"weigh/estimate"
)

// A screen shows a tuning in the whole terminal.
type screen struct {
	t             *tuning
	style         render.Style
	width, height int
	chosen        int  // knob
	take          bool // left to run the line
}

// runScreen shows t until the user leaves, and reports whether the line is
// wanted.
func runScreen(ctx context.Context, t *tuning, in any, out any) (take bool, err error) {
	w := out.(io.Writer)
	s := &screen{t: t, style: render.StyleOf(w), width: 80, height: 24}
	p := tea.NewProgram(s, tea.WithInput(in.(io.Reader)), tea.WithOutput(w), tea.WithoutSignalHandler())
	stop := context.AfterFunc(ctx, p.Quit) // a signal leaves as a key does: the terminal is given back whole
	defer stop()
	_, err = p.Run()
	return s.take, err
}

// Init asks for nothing.
func (s *screen) Init() tea.Cmd { return nil }

// Update takes a key or the terminal's new size.
func (s *screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		s.width, s.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return s, s.press(msg.String())
	}
	return s, nil
}

// leap is how many steps page up and page down take.
const leap = 8

func (s *screen) press(key string) tea.Cmd {
	last := len(s.t.knobs) - 1
	k := s.t.knobs[s.chosen]
	switch key {
	case "q", "esc", "ctrl+c", "ctrl+d":
		return tea.Quit
	case "enter":
		s.take = true
		return tea.Quit
	case "up", "k", "shift+tab":
		s.chosen = max(s.chosen-1, 0)
	case "down", "j", "tab":
		s.chosen = min(s.chosen+1, last)
	case "left", "h", "-":
		s.t.turn(s.chosen, -1)
	case "right", "l", "+":
		s.t.turn(s.chosen, 1)
	case "pgdown", "shift+left", "H":
		s.t.turn(s.chosen, -leap)
	case "pgup", "shift+right", "L":
		s.t.turn(s.chosen, leap)
	case "home":
		s.t.turn(s.chosen, -len(k.values))
	case "end":
		s.t.turn(s.chosen, len(k.values))
	case "r":
		s.t.reset()
	}
	return nil
}

// View shows the screen on the terminal's other page.
func (s *screen) View() tea.View {
	v := tea.NewView(s.draw())
	v.AltScreen = true
	return v
}

// draw returns the lines of the screen, cut to the terminal's size. What the
// settings mean stays in sight on a low terminal: first the blank lines go, then
// the bars, then the settings far from the chosen one, then the line to run.
func (s *screen) draw() string {
	sum := summarize(s.t.base.Inspection)
	title := []string{s.style.Bold(render.Cut(render.Text(sum.Name), s.width-len(sum.Quantization.Label)-2)) + "  " + render.Text(sum.Quantization.Label)}
	var knobs []string
	for i, k := range s.t.knobs {
		knobs = append(knobs, s.slider(i, k))
	}
	var memory, heads, speed []string
	if now := &s.t.now; now.err != nil {
		heads = []string{s.style.Red(s.cut("llama.cpp refuses this: "+render.Text(now.err.Error()), s.width))}
		memory = heads
	} else {
		memory, heads = s.memory(now.s)
		speed = []string{s.cut(speedLine(now), s.width)}
	}
	command := breakWords(s.t.now.words, s.width)
	keys := []string{s.style.Dim(s.cut("↑↓ choose  ←→ change  page: leaps  r reset  enter: print the line  q: leave", s.width))}

	blank := []string{""}
	parts := [][]string{title, blank, knobs, blank, memory, blank, speed, blank, command}
	room := s.height - len(keys)
	size := func() (n int) {
		for _, p := range parts {
			n += len(p)
		}
		return n
	}
	for _, i := range []int{7, 5, 1, 3} {
		if size() > room {
			parts[i] = nil
		}
	}
	if size() > room {
		parts[4] = heads
	}
	if over := size() - room; over > 0 {
		n := max(len(knobs)-over, min(len(knobs), 3))
		from := min(max(s.chosen-n/2, 0), len(knobs)-n)
		parts[2] = knobs[from : from+n]
	}
	lines := slices.Concat(parts...)
	for len(lines) < room {
		lines = append(lines, "")
	}
	return strings.Join(append(lines[:max(room, 0)], keys...), "\n")
}

func (s *screen) cut(text string, width int) string {
	if width < 1 {
		return ""
	}
	return ansi.Truncate(text, width, "…")
}

// slider draws a knob: its name, its value and where that lies.
func (s *screen) slider(i int, k *knob) string {
	const nameWidth, valueWidth = 24, 8
	mark := "  "
	if i == s.chosen {
		mark = "> "
	}
	text := fmt.Sprintf("%s%-*s%*s ", mark, nameWidth, k.name, valueWidth, k.value())
	if room := min(s.width-len(text), 44); room > 4 {
		at := 0
		if len(k.values) > 1 {
			at = k.at * (room - 1) / (len(k.values) - 1)
		}
		text += strings.Repeat("─", at) + "●" + strings.Repeat("─", room-1-at)
	}
	text = s.cut(text, s.width)
	if i == s.chosen {
		return s.style.Bold(text)
	}
	return text
}

// memory draws a bar for every device and the host; heads are what is said above
// each.
func (s *screen) memory(now *session) (lines, heads []string) {
	draw := func(name string, m *estimate.Memory, v verdict) {
		word := s.style.Green("fits")
		switch {
		case v.free == nil:
			word = "free memory unknown"
		case !v.fits:
			word = s.style.Red("short of " + render.Bytes(v.must-*v.free))
		case !v.atLimits:
			word = s.style.Yellow("fits, not with its caches full")
		}
		amount := fmt.Sprintf(": %s of %s free  ", render.Bytes(v.need), render.Size(v.free))
		head := s.cut(render.Cut(name, max(s.width-len(amount)-render.Width(word), 5))+amount+word, s.width)
		heads = append(heads, head)
		lines = append(lines, head, s.stack(m, v))
	}
	for i := range now.breakdown.Devices {
		m := &now.breakdown.Devices[i]
		draw(m.Name+" "+render.Text(now.options.Devices[m.Device].Name), m, now.device(m))
	}
	sum, v := now.host()
	draw("host", &sum, v)
	return append(lines, s.style.Dim(s.cut("█ weights  ▓ cache  ▒ compute  ░ overhead  · free", s.width))), heads
}

// stack draws what a device holds as a bar as wide as what is free, or as what
// is needed where that is more.
func (s *screen) stack(m *estimate.Memory, v verdict) string {
	width := s.width - 2
	whole := m.Total()
	if v.free != nil {
		whole = max(whole, *v.free)
	}
	if width < 1 || whole == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("  ")
	var sum uint64
	drawn := 0
	for i, part := range []uint64{m.Model, m.Context, m.Compute, m.Overhead} {
		sum += part
		to := int(float64(sum) / float64(whole) * float64(width))
		b.WriteString(strings.Repeat(string([]rune("█▓▒░")[i]), to-drawn))
		drawn = to
	}
	b.WriteString(strings.Repeat("·", width-drawn))
	if !v.fits {
		return s.style.Red(b.String())
	}
	return b.String()
}

// speedLine writes how fast a placement is.
func speedLine(now *tuned) string {
	if now.speed == nil || now.speed.Decode.Mid == 0 {
		return "speed unknown"
	}
	d, p := now.speed.Decode, now.speed.Prefill
	if !now.s.generates() {
		return fmt.Sprintf("reads about %s tokens per second; modelled", spanTPS(p))
	}
	return fmt.Sprintf("about %s tokens per second, prompts %s; modelled", spanTPS(d), spanTPS(p))
}

// breakWords breaks a command line between words, with the backslash that lets
// a shell take it whole. A word that is wider than the screen is cut.
func breakWords(words []string, width int) (lines []string) {
	width = max(width, 20)
	row := ""
	flush := func(end string) {
		r := []rune(row + end)
		for ; len(r) > width; r = r[width:] {
			lines = append(lines, string(r[:width]))
		}
		lines = append(lines, string(r))
	}
	for _, word := range words {
		if row != "" && len([]rune(row))+1+len([]rune(word)) > width-2 {
			flush(` \`)
			row = "  " + word
			continue
		}
		if row != "" {
			row += " "
		}
		row += word
	}
	flush("")
	return lines
}
