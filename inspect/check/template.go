package check

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"weigh/formats"
)

// A Template is what a chat template does, read without running it.
type Template struct {
	Name      string   // "default" or the name of an alternative
	Bytes     int      // length of the text
	Variables []string // names it takes from outside
	Filters   []string
	Calls     []string // functions and methods called
	Problems  []formats.Problem
}

// MaxTemplates is how many bytes of chat templates of one model are read; real
// ones have under 100 KB.
const MaxTemplates = 512 << 10

var (
	jinjaRawEnd  = pattern(`\{%[-+]?\s*endraw\s*[-+]?%\}`)
	jinjaString  = pattern(`(?s)'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"`)
	jinjaName    = pattern(`[A-Za-z_][A-Za-z0-9_]*`)
	jinjaDefined = pattern(`\bset\s+([A-Za-z_]\w*(?:\s*,\s*[A-Za-z_]\w*)*)|\bfor\s+([A-Za-z_]\w*(?:\s*,\s*[A-Za-z_]\w*)*)\s+in\b|\bmacro\s+([A-Za-z_]\w*)\s*\(([^)]*)\)`)
	jinjaTag     = pattern(`^\{%[-+]?\s*([a-z]+)`)
	hexEscape    = pattern(`\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\U[0-9a-fA-F]{8}|\\[0-7]{1,3}`)
	namedLine    = pattern(`\\N\{(?i:low line)\}`)
	joined       = pattern(`^[\s~+]*$`)
	computedItem = pattern(`[\w)\]]\s*\[[^\[\]]*(?:~|\|\s*(?:join|format|replace|reverse)\b)[^\[\]]*\]|\battribute\s*=[^,)]*(?:~|\|)`)
	longEncoded  = pattern(`[A-Za-z0-9+/=]{200,}`)
	address      = pattern(`(?i)\bhttps?://[^\s'"<>]{4,}`)
)

// pattern compiles a regular expression when it is first used.
func pattern(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

// jinjaWords are no names of variables: keywords, tests, constants and the
// globals that every template has.
var jinjaWords = words(`and or not in is if else elif endif for endfor set endset block endblock macro endmacro call endcall
	filter endfilter do true false none True False None recursive with without context as loop namespace range dict
	raise_exception strftime_now generation endgeneration break continue defined undefined string mapping iterable
	number sequence boolean integer float callable equalto eq ne lt gt sameas lower upper even odd test import from
	include extends raw endraw autoescape endautoescape ignore missing joiner cycler lipsum`)

// reachWords are names that have no business in a chat template: they lead from
// a value to Python's internals or to the machine.
var reachWords = words(`os sys subprocess popen system eval exec compile open builtins import_module importlib getattr setattr
	globals locals mro subclasses environ request config self cycler joiner lipsum get_flashed_messages url_for
	pickle ctypes socket pty spawn fork check_output
	gi_frame gi_code cr_frame ag_frame tb_frame f_back f_globals f_builtins f_locals func_globals`)

// itemWords are names that no message and no tool has, and that lead to Python's
// internals as texts too: x['mro'].
var itemWords = words(`mro subclasses globals builtins getattribute popen subprocess func_globals gi_frame f_globals f_builtins`)

// plainFilters are the filters of Jinja that compute on values only.
var plainFilters = words(`trim length tojson join string upper lower int float list map select selectattr reject rejectattr first last
	sort dictsort items default d replace capitalize title indent unique sum reverse batch count round abs safe e escape
	max min groupby format wordcount center truncate striptags slice wordwrap`)

func words(s string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(s) {
		m[w] = true
	}
	return m
}

// ReadTemplate reads a chat template: what it can reach, and the constructs in
// it that a chat template has no need for. It never runs it.
func ReadTemplate(name, text string) *Template {
	t := &Template{Name: name, Bytes: len(text)}
	if len(text) > MaxTemplates {
		return UnreadTemplate(name, len(text))
	}
	s := &templateScan{Template: t, defined: map[string]bool{}}
	parts := codeParts(text)
	for _, p := range parts {
		for _, m := range jinjaDefined().FindAllStringSubmatch(text[p[0]:p[1]], -1) {
			for _, group := range m[1:] {
				for _, n := range jinjaName().FindAllString(group, -1) {
					s.defined[n] = true
				}
			}
		}
	}
	for _, p := range parts {
		s.code(text[p[0]:p[1]], p[0])
	}
	s.text(text)
	for _, list := range []*[]string{&t.Variables, &t.Filters, &t.Calls} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return t
}

// codeParts returns where the statements and expressions of a template are. As in
// Jinja's lexer, what stands in a string or between brackets ends none of them,
// and nothing in a comment or a raw block begins one. One that does not end goes
// on to the end of the text.
//
// Source: jinja2 3.1 src/jinja2/lexer.py, Lexer.tokeniter.
func codeParts(text string) (parts [][2]int) {
	endless := false // a raw block without an end
	for at := 0; ; {
		i := strings.IndexByte(text[at:], '{')
		if i < 0 || at+i+2 > len(text) {
			return parts
		}
		at += i
		end := len(text)
		switch text[at : at+2] {
		case "{#":
			if n := strings.Index(text[at+2:], "#}"); n >= 0 {
				end = at + 2 + n + 2
			}
			at = end
			continue
		case "{%", "{{":
		default:
			at++
			continue
		}
		end = codeEnd(text, at)
		parts = append(parts, [2]int{at, end})
		if m := jinjaTag().FindStringSubmatch(text[at:end]); m != nil && m[1] == "raw" && !endless {
			raw := jinjaRawEnd().FindStringIndex(text[end:])
			if endless = raw == nil; !endless {
				end += raw[1]
			}
		}
		at = end
	}
}

// codeEnd returns the end of the statement or expression that begins at byte at.
func codeEnd(text string, at int) int {
	closing := map[byte]string{'%': "%}", '{': "}}"}[text[at+1]]
	open := 0 // brackets
	for i := at + 2; i < len(text); {
		if open == 0 && strings.HasPrefix(text[i:], closing) {
			return i + len(closing)
		}
		switch text[i] {
		case '(', '[', '{':
			open++
		case ')', ']', '}':
			open = max(open-1, 0)
		case '\'', '"':
			n := stringEnd(text[i:])
			if n < 0 {
				return len(text)
			}
			i += n
			continue
		}
		i++
	}
	return len(text)
}

// stringEnd returns the length of the string that s begins with, -1 when it does
// not end.
func stringEnd(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case s[0]:
			return i + 1
		}
	}
	return -1
}

// UnreadTemplate stands for a template that is too long to be read.
func UnreadTemplate(name string, bytes int) *Template {
	t := &Template{Name: name, Bytes: bytes}
	t.warn("template-too-long", 0, "%d bytes, of which none are read: real templates have under 100 KB together", bytes)
	return t
}

// warn lists a construct once for each message.
func (t *Template) warn(code string, at int, format string, args ...any) {
	p := formats.Problem{Severity: formats.SeverityWarning, Code: code, Field: "chat template " + t.Name, Offset: int64(at), Message: fmt.Sprintf(format, args...)}
	if len(t.Problems) < 100 && !slices.ContainsFunc(t.Problems, func(q formats.Problem) bool { return q.Code == p.Code && q.Message == p.Message }) {
		t.Problems = append(t.Problems, p)
	}
}

type templateScan struct {
	*Template
	defined map[string]bool
}

// code reads one statement or expression that begins at byte base.
func (s *templateScan) code(code string, base int) {
	if m := jinjaTag().FindStringSubmatch(code); m != nil {
		switch m[1] {
		case "include", "import", "from", "extends":
			s.warn("template-loads-file", base, "%q loads another file", m[1])
		}
	}
	s.literals(code, base)
	// The literals' text would pass for names.
	bare := jinjaString().ReplaceAllStringFunc(code, func(l string) string { return `"` + strings.Repeat(" ", len(l)-2) + `"` })
	if m := computedItem().FindStringIndex(bare); m != nil {
		s.warn("template-computes-name", base+m[0], "%.60s computes the name of what it takes", code[m[0]:m[1]])
	}
	for _, m := range jinjaName().FindAllStringIndex(bare, -1) {
		word, before, after := bare[m[0]:m[1]], lastByte(bare[:m[0]]), firstByte(bare[m[1]:])
		at := base + m[0]
		if strings.HasPrefix(word, "__") {
			s.warn("template-reaches-internals", at, "%s leads to Python's internals", word)
		}
		switch {
		case before == '|':
			s.Filters = append(s.Filters, word)
			if !plainFilters[word] {
				s.warn("template-odd-filter", at, "the filter %s is none that chat templates need", word)
			}
		case before == '.':
			if after == '(' {
				s.Calls = append(s.Calls, "."+word)
			}
			if reachWords[word] {
				s.warn("template-reaches-machine", at, ".%s leads out of the template", word)
			}
		case after == '(' && before != '.':
			s.Calls = append(s.Calls, word)
			if reachWords[word] && !s.defined[word] {
				s.warn("template-reaches-machine", at, "%s() leads out of the template", word)
			}
		case after == '=' && !strings.HasPrefix(strings.TrimLeft(bare[m[1]:], " "), "=="):
			// the name of an argument
		case jinjaWords[word] || s.defined[word]:
			if reachWords[word] && !s.defined[word] {
				s.warn("template-reaches-machine", at, "%s leads out of the template", word)
			}
		default:
			s.Variables = append(s.Variables, word)
			if reachWords[word] {
				s.warn("template-reaches-machine", at, "%s leads out of the template", word)
			}
		}
	}
}

// literals reads the strings of a part, those that are put together as one.
func (s *templateScan) literals(code string, base int) {
	found := jinjaString().FindAllStringIndex(code, -1)
	for i := 0; i < len(found); {
		at, end := found[i][0], found[i][1]
		var whole strings.Builder
		whole.WriteString(unescaped(code[at+1 : end-1]))
		for i++; i < len(found) && joined().MatchString(code[end:found[i][0]]); i++ {
			whole.WriteString(unescaped(code[found[i][0]+1 : found[i][1]-1]))
			end = found[i][1]
		}
		s.literal(code[at:end], whole.String(), base+at)
	}
}

// unescaped returns the text between the quotes of a string, as far as its
// escapes stand for letters, digits and lines.
func unescaped(l string) string {
	if !strings.Contains(l, `\`) {
		return l
	}
	l = namedLine().ReplaceAllString(l, "_")
	return hexEscape().ReplaceAllStringFunc(l, func(e string) string {
		digits, radix := e[1:], 8
		if strings.ContainsAny(e[1:2], "xuU") {
			digits, radix = e[2:], 16
		}
		n, err := strconv.ParseUint(digits, radix, 32)
		if err != nil || n > unicode.MaxRune {
			return e
		}
		return string(rune(n))
	})
}

// literal reads a string of the template's code: as it is written, and the text
// that it stands for.
func (s *templateScan) literal(l, text string, at int) {
	switch word := strings.Trim(text, "_"); {
	case strings.ContainsAny(text, " \n<"):
	case strings.Contains(text, "__") && jinjaName().MatchString(text), itemWords[word]:
		s.warn("template-reaches-internals", at, "the text %.60s names Python's internals", l)
	}
	if n := len(hexEscape().FindAllString(l, -1)); n >= 4 && n*4 > len(l)/2 {
		s.warn("template-hides-text", at, "the text %.60s is written in escapes", l)
	}
}

// text reads the whole template.
func (s *templateScan) text(text string) {
	if m := longEncoded().FindStringIndex(text); m != nil && varied(text[m[0]:m[1]]) {
		s.warn("template-hides-text", m[0], "%d characters that look encoded", m[1]-m[0])
	}
	for _, m := range address().FindAllStringIndex(text, 10) {
		s.warn("template-has-address", m[0], "the address %.80s goes into every prompt or hides in the code", text[m[0]:m[1]])
	}
	for at, r := range text {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
		case r == unicode.ReplacementChar, unicode.Is(unicode.Cf, r) && r != '\u200d', unicode.Is(unicode.Cc, r), r >= 0xe0000 && r <= 0xe007f:
			s.warn("template-hides-text", at, "the invisible character %U", r)
		}
	}
}

// varied reports whether a text has as many different characters as an encoded
// one.
func varied(s string) bool {
	seen := map[byte]bool{}
	for i := range len(s) {
		seen[s[i]] = true
	}
	return len(seen) >= 12
}

// lastByte returns the last byte of s that is no space, 0 for none.
func lastByte(s string) byte {
	s = strings.TrimRight(s, " \t\r\n")
	if s == "" {
		return 0
	}
	return s[len(s)-1]
}

// firstByte returns the first byte of s that is no space, 0 for none.
func firstByte(s string) byte {
	s = strings.TrimLeft(s, " \t\r\n")
	if s == "" {
		return 0
	}
	return s[0]
}
