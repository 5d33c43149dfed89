package llama

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// A Config is one of llama.cpp's configuration files, which hold flags without
// their dashes, or variables, as keys.
type Config struct {
	Path string
	Text string
}

var (
	configSection = pattern(`^\[[ \t]*([^\]]*?)[ \t]*\][ \t]*([;#].*)?$`)
	configKey     = pattern(`^([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=[ \t]*(.*)$`)
	configEmpty   = pattern(`^[ \t]*([;#].*)?$`)
)

// pattern compiles a regular expression when it is first used.
func pattern(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

// configure applies a configuration file: what it says for all presets, then
// what it says for the default one. Keys that are no flags are ignored.
//
// Source: common/preset.cpp@v0.5.0, parse_ini_from_file and
// common_preset::apply_to_params; common/arg.cpp,
// common_params_apply_system_config.
func (f *Flags) configure(c Config) error {
	type entry struct{ key, value string }
	sections := map[string][]entry{}
	section := "default"
	text := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(c.Text)
	for n, line := range strings.Split(text, "\n") {
		if m := configSection().FindStringSubmatch(line); m != nil {
			section = m[1]
			delete(sections, section)
			continue
		}
		m := configKey().FindStringSubmatch(line)
		switch {
		case m != nil:
			value, _, _ := strings.Cut(m[2], "#")
			value, _, _ = strings.Cut(value, ";")
			sections[section] = slices.DeleteFunc(sections[section], func(e entry) bool { return e.key == m[1] })
			sections[section] = append(sections[section], entry{m[1], strings.TrimRight(value, " \t")})
		case !configEmpty().MatchString(line):
			return fmt.Errorf("line %d: %.80q: want KEY = VALUE, [SECTION] or a comment", n+1, line)
		}
	}
	var set []string
	for _, section := range []string{"*", "default"} {
		for _, e := range sections[section] {
			row, off := rowOf(e.key)
			if row == nil {
				continue
			}
			v := e.value
			switch {
			case row.value != "":
			case len(row.not) == 0:
				v = "true" // whatever the file says
			default:
				on, err := onOff(v)
				v = fmt.Sprint(err == nil && on != off)
				if err != nil && off {
					v = "true"
				}
			}
			if err := row.set(f, v); err != nil {
				return fmt.Errorf("%s = %.80s: %w", e.key, e.value, err)
			}
			f.Set[row.names[len(row.names)-1]] = true
			set = append(set, e.key)
		}
	}
	if len(set) > 0 {
		f.note(fmt.Sprintf("%s, which llama-server reads as well, sets %s", c.Path, strings.Join(set, ", ")))
	}
	return nil
}

// rowOf returns the flag that a key of a configuration names, nil for one that
// does not change memory, and whether it is a spelling that turns it off.
func rowOf(key string) (row *flag, off bool) {
	for i := range table {
		row := &table[i]
		has := func(names []string) bool {
			return slices.ContainsFunc(names, func(n string) bool { return strings.TrimLeft(n, "-") == key })
		}
		denies := ""
		if row.env != "" && len(row.not) > 0 {
			denies = strings.Replace(row.env, "LLAMA_ARG_", "LLAMA_ARG_NO_", 1)
		}
		switch {
		case has(row.not):
			return row, true
		case has(row.names), row.env != "" && row.env == key, denies != "" && denies == key:
			return row, false
		}
	}
	return nil, false
}
