package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"weigh/fixtures"
)

// A browser is a tab of a real Chromium, and what went wrong in it.
type browser struct {
	*testing.T
	ctx context.Context

	mu       sync.Mutex
	troubles []string
	urls     []string
}

// newBrowser starts Chromium, or skips the test where there is none.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless-shell"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Skip("no Chromium is installed: the page is not tested in a browser")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.WindowSize(1360, 1000))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	b := &browser{T: t, ctx: ctx}
	if err := chromedp.Listen(ctx, b.heard); err != nil {
		t.Fatal(err)
	}
	b.ctx, stop = context.WithTimeout(ctx, 15*time.Minute) // of a browser that hangs
	t.Cleanup(stop)
	call(b, log.Enable, cdp.Empty{})
	call(b, network.Enable, network.EnableParams{})
	return b
}

// heard notes what the browser reports.
func (b *browser) heard(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *runtime.EventExceptionThrown:
		text := ev.ExceptionDetails.Text
		if e := ev.ExceptionDetails.Exception; e != nil {
			text += " " + e.Description
		}
		b.troubles = append(b.troubles, text)
	case *log.EventEntryAdded:
		if ev.Entry.Level == log.EntryLevelError {
			b.troubles = append(b.troubles, ev.Entry.Text+" "+ev.Entry.URL)
		}
	case *page.EventJavascriptDialogOpening:
		b.troubles = append(b.troubles, "a dialog: "+ev.Message)
	case *network.EventRequestWillBeSent:
		b.urls = append(b.urls, ev.Request.URL)
	}
}

// call sends a command of the browser's protocol.
func call[P, R any](b *browser, command cdp.Command[P, R], params P) {
	b.Helper()
	if _, err := chromedp.Call(b.ctx, command, params); err != nil {
		b.Fatal(err)
	}
}

func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.Fatal(err)
	}
}

// value evaluates an expression of the page.
func value[T any](b *browser, expression string) T {
	b.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.Fatalf("%s: %v", expression, err)
	}
	return v
}

// run evaluates statements of the page.
func (b *browser) run(statements string) {
	b.Helper()
	value[chromedp.Void](b, "(() => { "+statements+" })()")
}

// wait waits until an expression of the page is true.
func (b *browser) wait(expression string) {
	b.Helper()
	for end := time.Now().Add(3 * time.Minute); !value[bool](b, expression); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("the page never came to %s; it says %q", expression, value[string](b, `document.getElementById("problem").textContent + " " + document.getElementById("answer").textContent`))
		}
	}
}

// settle waits until the page shows everything of the settings of now.
func (b *browser) settle() {
	b.Helper()
	b.wait(`document.body.dataset.settled !== undefined && document.body.dataset.settled === document.body.dataset.args && document.body.dataset.settled === document.body.dataset.wanted`)
}

// open opens the page with a state in its address.
func (b *browser) open(base string, state url.Values) {
	b.Helper()
	b.do(chromedp.Navigate("about:blank"), chromedp.Navigate(base+"/#"+state.Encode()))
	b.settle()
}

// drag moves a slider's thumb with the mouse to a share of its way.
func (b *browser) drag(id string, share float64) {
	b.Helper()
	at := value[[]float64](b, fmt.Sprintf(`(() => { const s = document.getElementById(%q); s.scrollIntoView({block: "center"}); const r = s.getBoundingClientRect(); const k = s.max > 0 ? s.value / s.max : 0; return [r.left + 10 + k * (r.width - 20), r.top + r.height / 2, r.left + 10 + %g * (r.width - 20)] })()`, id, share))
	b.do(chromedp.DragAndDropXY(at[0], at[1], at[2], at[1]))
	b.settle()
}

// A shownRow is a bar of the page.
type shownRow struct {
	Name  string
	Total uint64
	Fits  bool
	Parts map[string]uint64
}

// isTheEstimate holds that bytes, verdict and command line are what the command
// line says for the settings of the page, and returns those settings.
func (b *browser) isTheEstimate(model string) (args []string) {
	b.Helper()
	if err := json.Unmarshal([]byte(value[string](b, `document.body.dataset.args`)), &args); err != nil {
		b.Fatal(err)
	}
	rows := value[[]shownRow](b, `[...document.querySelectorAll("#bars .bar")].map((el) => ({Name: el.dataset.name, Total: +el.dataset.total, Fits: el.dataset.fits === "true", Parts: Object.fromEntries([...el.querySelectorAll(".seg")].map((s) => [s.dataset.part, +s.dataset.bytes]))}))`)
	fits := value[string](b, `document.getElementById("verdict").dataset.fits`)
	command := value[string](b, `document.getElementById("command").textContent`)
	compare := func(how string, words []string) {
		b.Helper()
		out, trouble, code := weigh(b.T, append(words, "--json")...)
		if code == exitError {
			b.Fatalf("%s: %s", how, trouble)
		}
		var d estimateDocument
		if err := json.Unmarshal([]byte(out), &d); err != nil {
			b.Fatal(err)
		}
		if fits != fmt.Sprint(d.Fits) || d.Fits != (code == exitOK) {
			b.Errorf("%s: the page says fits %s, the command line %v with exit code %d", how, fits, d.Fits, code)
		}
		d.Host.Name = "host"
		want := append(d.Devices, d.Host)
		if len(rows) != len(want) {
			b.Fatalf("%s: %d bars for %d rows", how, len(rows), len(want))
		}
		for i, m := range want {
			r := rows[i]
			if r.Name != m.Name || r.Total != m.Total || r.Fits != m.Fits {
				b.Errorf("%s: the page shows %s %d fits %v, the command line %s %d fits %v", how, r.Name, r.Total, r.Fits, m.Name, m.Total, m.Fits)
			}
			for part, pair := range map[string][2]uint64{
				"weights": {r.Parts["weights"] + r.Parts["experts"], m.Model}, "cache": {r.Parts["context"], m.Context},
				"compute": {r.Parts["compute"], m.Compute}, "overhead": {r.Parts["overhead"] + r.Parts["grows"], m.Overhead},
			} {
				if pair[0] != pair[1] {
					b.Errorf("%s: %s %s: the page shows %d bytes, the command line %d", how, m.Name, part, pair[0], pair[1])
				}
			}
		}
	}
	compare("the page's settings", append([]string{"estimate", model}, args...))
	var words []string // the line is what a POSIX shell splits it into
	out, err := exec.Command("sh", "-c", "printf '%s\\n' "+command).Output()
	if err != nil {
		b.Logf("no shell splits the command line: %v", err)
		return args
	}
	words = append(words, "estimate", "--")
	words = append(words, strings.Split(strings.TrimSpace(string(out)), "\n")...)
	for i := 0; i+1 < len(args); i++ {
		if args[i] == "--gpu" || args[i] == "--host-memory" {
			words = append(words, args[i], args[i+1])
		}
	}
	compare("the command line to copy", words)
	return args
}

// untroubled holds that nothing failed in the page and that it asked no one but
// the program.
func (b *browser) untroubled(base string) {
	b.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, text := range b.troubles {
		b.Errorf("in the page: %s", text)
	}
	for _, u := range b.urls {
		if !strings.HasPrefix(u, base+"/") && u != "about:blank" {
			b.Errorf("the page asked for %s", u)
		}
	}
}

func TestPage(t *testing.T) {
	b := newBrowser(t)
	onMachine(t, "rx7900xtx")
	model := modelFile(t, "Qwen3-30B-A3B-Q4_K_M")
	base := serving(t, model)
	start := url.Values{"model": {model}, "gpus": {"RTX 3060"}, "host": {"64GiB"}}
	b.open(base, start)
	if !value[bool](b, `document.getElementById("verdict").dataset.state === "fits"`) {
		t.Error("the plan that the page begins with does not fit")
	}
	first := b.isTheEstimate(model)

	seen := map[string]bool{strings.Join(first, " "): true}
	verdicts := map[string]bool{}
	for _, step := range []struct {
		slider string
		share  float64
	}{{"s-c", 0.9}, {"s-ngl", 0.3}, {"s-c", 0.2}, {"s-ncmoe", 1}, {"s-ngl", 1}, {"s-np", 0.5}, {"s-ub", 0.9}, {"s-ncmoe", 0}} {
		b.drag(step.slider, step.share)
		args := strings.Join(b.isTheEstimate(model), " ")
		if seen[args] {
			t.Errorf("dragging %s to %g changed nothing: %s", step.slider, step.share, args)
		}
		seen[args] = true
		verdicts[value[string](b, `document.getElementById("verdict").dataset.state`)] = true
	}
	if !verdicts["no"] || len(verdicts) < 2 {
		t.Errorf("dragging went through the verdicts %v only", verdicts)
	}

	put := func(id, v string) {
		t.Helper()
		b.run(fmt.Sprintf(`const s = document.getElementById(%q); s.value = %q; s.dispatchEvent(new Event("change"))`, id, v))
	}
	choose := func(id, v string) {
		t.Helper()
		put(id, v)
		b.settle()
		b.isTheEstimate(model)
	}
	choose("ctk", "q8_0")
	choose("ctv", "q4_0")
	choose("fa", "on")
	choose("n-ncmoe", "24")
	b.do(chromedp.Click("#nkvo"))
	b.settle()
	b.isTheEstimate(model)

	// The keyboard alone.
	was := value[string](b, `document.getElementById("s-c").value`)
	b.do(chromedp.Focus("#s-c"), chromedp.KeyEvent(kb.ArrowLeft))
	b.settle()
	if value[string](b, `document.getElementById("s-c").value`) == was {
		t.Error("an arrow key does not move the slider")
	}
	b.isTheEstimate(model)

	// A link shares the state.
	command := value[string](b, `document.getElementById("command").textContent`)
	b.wait(`location.hash.includes("&c=" + document.getElementById("n-c").value + "&") && location.hash.includes("&nkvo=1")`)
	link := value[string](b, `location.href`)
	b.do(chromedp.Navigate("about:blank"), chromedp.Navigate(link))
	b.settle()
	if got := value[string](b, `document.getElementById("command").textContent`); got != command {
		t.Errorf("the link shows %q, was %q", got, command)
	}

	// Every preset is what it promises.
	n := value[int](b, `document.querySelectorAll("#presets [data-args]").length`)
	if n < 2 {
		t.Errorf("%d presets", n)
	}
	for i := range n {
		b.run(fmt.Sprintf(`document.querySelectorAll("#presets [data-args]")[%d].click()`, i))
		b.settle()
		b.isTheEstimate(model)
		if !value[bool](b, fmt.Sprintf(`document.querySelectorAll("#presets [data-args]")[%d].getAttribute("aria-pressed") === "true" && document.getElementById("verdict").dataset.fits === "true"`, i)) {
			t.Errorf("preset %d is not what is set, or does not fit", i)
		}
	}

	// Two cards from the catalogue.
	b.do(chromedp.Click("#add-card"), chromedp.SendKeys("#catalog-filter", "4090"+kb.Enter))
	b.settle()
	b.isTheEstimate(model)
	if got := value[int](b, `document.querySelectorAll("#bars .bar").length`); got != 3 {
		t.Errorf("%d bars for two cards and the host", got)
	}

	// A number says how it came about.
	b.run(`document.querySelector("#bars .seg[data-part=context]").dispatchEvent(new PointerEvent("pointerover", {bubbles: true}))`)
	if tip := value[string](b, `document.getElementById("tip").textContent`); !strings.Contains(tip, "layers x") || !strings.Contains(tip, "keys") {
		t.Errorf("the cache explains itself with %q", tip)
	}
	for _, id := range []string{"decode", "prefill", "first"} {
		b.run(fmt.Sprintf(`document.querySelector("#%s dd").dispatchEvent(new PointerEvent("pointerover", {bubbles: true}))`, id))
		if value[bool](b, `document.getElementById("tip").hidden`) {
			t.Errorf("%s does not explain itself", id)
		}
	}

	// The keyboard goes through a chart.
	if value[bool](b, `document.querySelector("dialog[open]") !== null`) {
		t.Error("a dialog is still open")
	}
	b.run(`document.querySelector("#map svg").focus()`)
	b.do(chromedp.KeyEvent(kb.ArrowRight))
	if tip := value[string](b, `document.getElementById("tip").hidden ? "" : document.getElementById("tip").textContent`); !strings.Contains(tip, "Layer 0, runs on") {
		t.Errorf("the layer map explains itself with %q", tip)
	}

	// The model's own type is in sight among the quantizations.
	if !value[bool](b, `(() => { const box = document.getElementById("quants").getBoundingClientRect(); const row = document.querySelector("#quants tr.own").getBoundingClientRect(); return row.top >= box.top && row.bottom <= box.bottom })()`) {
		t.Error("the row of the model's own type is out of sight")
	}

	// A refusal is said, and taken back.
	b.untroubled(base)
	put("ctv", "q8_0")
	put("fa", "off")
	b.wait(`!document.getElementById("problem").hidden && document.getElementById("problem").textContent.includes("flash attention")`)
	put("fa", "auto")
	b.wait(`document.getElementById("problem").hidden`)
	b.settle()

	// A file that vanishes is said.
	if err := os.Remove(model); err != nil {
		t.Fatal(err)
	}
	put("ctk", "f16")
	b.wait(`!document.getElementById("problem").hidden && document.getElementById("problem").textContent.includes("no such file")`)
}

// TestPageWithoutGPU holds that a machine without a GPU is not asked about
// layers on one, and that a model that writes no text is not said to.
func TestPageWithoutGPU(t *testing.T) {
	b := newBrowser(t)
	onMachine(t, "rx7900xtx")
	chat, embeds := modelFile(t, "Qwen3-30B-A3B-Q4_K_M"), modelFile(t, "BERT-base-F16")
	base := serving(t, chat, embeds)
	hidden := func(id string) bool {
		return value[bool](b, fmt.Sprintf(`document.getElementById(%q).offsetParent === null`, id))
	}
	for _, model := range []string{chat, embeds} {
		b.open(base, url.Values{"model": {model}, "gpus": {"none"}, "host": {"64GiB"}})
		b.isTheEstimate(model)
		if !hidden("s-ngl") || !hidden("s-ncmoe") || value[string](b, `document.getElementById("over").textContent`) != "Context" {
			t.Errorf("%s: settings of a GPU are offered where there is none", model)
		}
		if got := value[string](b, `document.getElementById("ladder").textContent`); !strings.Contains(got, "memory of the host") {
			t.Errorf("%s: the curve shows %q", model, got)
		}
		writes := model == chat
		if got := value[string](b, `document.getElementById("decode").textContent`); strings.Contains(got, "writes no text") == writes {
			t.Errorf("%s generates: %s", model, got)
		}
	}
	b.untroubled(base)

	// A card that is not known leaves nothing on the page that could be taken
	// for an answer.
	b.do(chromedp.Navigate("about:blank"), chromedp.Navigate(base+"/#"+url.Values{"model": {chat}, "gpus": {"no such card"}}.Encode()))
	b.wait(`!document.getElementById("problem").hidden && document.getElementById("problem").textContent.includes("no such card")`)
	if !hidden("memory") || !hidden("run") {
		t.Error("there is an answer to what cannot be answered")
	}
}

// TestPageOfTheLastModel holds that the answers for a model that is left come
// too late.
func TestPageOfTheLastModel(t *testing.T) {
	b := newBrowser(t)
	onMachine(t, "rx7900xtx")
	first, second := modelFile(t, "DeepSeek-R1-671B-Q4_K_M"), modelFile(t, "Llama-3.2-1B-Q4_K_M")
	base := serving(t, first, second)
	b.open(base, url.Values{"model": {second}, "gpus": {"RTX 3060"}, "host": {"512GiB"}})
	for range 3 {
		b.run(fmt.Sprintf(`const go = (model) => { location.hash = new URLSearchParams({model, gpus: "RTX 3060", host: "512GiB", c: "4096"}); }; go(%q); setTimeout(go, 30, %q)`, first, second))
		b.wait(fmt.Sprintf(`location.hash.includes(encodeURIComponent(%q)) && document.getElementById("command").textContent.includes(%q)`, second, second))
		b.settle()
		b.isTheEstimate(second)
		if got := value[string](b, `document.getElementById("model-name").textContent`); !strings.Contains(got, "Llama-3.2-1B") {
			t.Errorf("the page shows %s", got)
		}
	}
	b.untroubled(base)
}

// TestPageShowsHostileText holds that what a model says of itself is text.
func TestPageShowsHostileText(t *testing.T) {
	b := newBrowser(t)
	onMachine(t, "rx7900xtx")
	const evil = `<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>"'${window.pwned=1}` + "\u202e"
	path := filepath.Join(t.TempDir(), `<b onmouseover=alert(1)>evil.gguf`)
	m := fixtures.Model("Llama-3.2-1B-Q4_K_M").Set("general.name", evil).Set("tokenizer.chat_template", "{{ '"+evil+"' }}").Set(evil, evil)
	if err := m.WriteSparse(path); err != nil {
		t.Fatal(err)
	}
	base := serving(t, filepath.Dir(path))
	b.open(base, url.Values{"model": {path}, "gpus": {"8GiB"}, "host": {"16GiB"}})
	b.run(`document.getElementById("metadata").open = true`)
	b.do(chromedp.Click("#pick"))
	b.wait(`document.getElementById("models-list").textContent.includes("evil")`)
	b.do(chromedp.Sleep(300 * time.Millisecond)) // for what the text would do
	if got := value[string](b, `document.getElementById("model-name").textContent`); got != evil {
		t.Errorf("the name reads %q", got)
	}
	if got := value[string](b, `document.getElementById("metadata-list").textContent`); strings.Count(got, evil) != 4 {
		t.Errorf("the metadata reads %q", got)
	}
	if value[bool](b, `window.pwned !== undefined || document.querySelectorAll("img").length !== 1 || document.querySelectorAll("script").length !== 1 || document.querySelectorAll("[onmouseover], [onerror]").length > 0`) {
		t.Error("the model's text became markup")
	}
	b.isTheEstimate(path)
	b.untroubled(base)
}

// TestPagePictures writes the pictures of the documentation with -update, and
// holds otherwise that the page is as wide as its window.
func TestPagePictures(t *testing.T) {
	b := newBrowser(t)
	onMachine(t, "rx7900xtx")
	docs, err := filepath.Abs("../../docs")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	for _, name := range []string{"Qwen3-30B-A3B-Q4_K_M", "Llama-3.1-8B-Q4_K_M"} {
		if err := fixtures.Model(name).WriteSparse(name + ".gguf"); err != nil {
			t.Fatal(err)
		}
	}
	base := serving(t, "Qwen3-30B-A3B-Q4_K_M.gguf", "Llama-3.1-8B-Q4_K_M.gguf")
	for _, p := range []struct {
		file          string
		width, height int64
		scheme        string
		state         url.Values
	}{
		{"serve-light.png", 1280, 1660, "light", url.Values{"model": {"Qwen3-30B-A3B-Q4_K_M.gguf"}, "gpus": {"RTX 4070"}, "host": {"64GiB"}}},
		{"serve-dark.png", 1280, 1120, "dark", url.Values{"model": {"Llama-3.1-8B-Q4_K_M.gguf"}, "gpus": {"RTX 3060", "RTX 3050 8GB"}, "host": {"32GiB"}, "c": {"131072"}, "ngl": {"33"}}},
		{"serve-phone.png", 390, 844, "light", url.Values{"model": {"Qwen3-30B-A3B-Q4_K_M.gguf"}, "gpus": {"RTX 4070"}, "host": {"64GiB"}}},
	} {
		t.Run(p.file, func(t *testing.T) {
			b.T = t
			b.do(chromedp.EmulateViewport(p.width, p.height))
			call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: p.scheme}}})
			b.open(base, p.state)
			b.isTheEstimate(p.state.Get("model"))
			if w := value[int64](b, `document.documentElement.scrollWidth`); w > p.width {
				t.Errorf("the page is %d wide in a window of %d", w, p.width)
			}
			if !*update {
				return
			}
			b.do(chromedp.Sleep(300 * time.Millisecond))
			picture, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(docs, p.file), picture, 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
	b.T = t
	b.untroubled(base)
}
