package estimate

import (
	"regexp"
	"strings"

	"github.com/dlclark/regexp2"
)

// A Pattern is a compiled regular expression of --override-tensor.
type Pattern struct {
	re      *regexp.Regexp
	literal string          // that every match begins with
	ecma    *regexp2.Regexp // where re is nil
}

// CompilePattern compiles a pattern. llama.cpp's are ECMAScript's (std::regex):
// those beyond Go's own engine, which have negative lookahead above all, run on
// another that backtracks as llama.cpp's does.
func CompilePattern(expr string) (*Pattern, error) {
	re, err := regexp.Compile(expr)
	if err == nil {
		p := &Pattern{re: re}
		p.literal, _ = re.LiteralPrefix()
		return p, nil
	}
	if ecma, err2 := regexp2.Compile(expr, regexp2.ECMAScript); err2 == nil {
		return &Pattern{ecma: ecma}, nil
	}
	return nil, err
}

// Match reports whether the pattern matches somewhere in a tensor's name.
func (p *Pattern) Match(name string) bool {
	if p.re != nil {
		return strings.Contains(name, p.literal) && p.re.MatchString(name)
	}
	ok, err := p.ecma.MatchString(name)
	return ok && err == nil
}
