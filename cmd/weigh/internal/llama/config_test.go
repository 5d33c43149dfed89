package llama

import (
	"math"
	"reflect"
	"strings"
	"testing"

	"weigh/formats"
)

func TestConfig(t *testing.T) {
	const text = "ctx-size = 4096 ; of all\r\n" +
		"  # a comment\n\n" +
		"n_gpu_layers = 3\n" + // no flag has underscores here
		"[*]\nctx-size = 1\nLLAMA_ARG_CACHE_TYPE_K = q8_0\nport=80\nno-such-flag = 7\n" +
		"[ my/model:Q8_0 ]\nngl = 9\n" +
		"[default]\nc = 8192\nno-kv-offload = on\nrepack = off\nswa-full = 0\nub = 64#x\n"
	f, _, err := Parse(words("-ub 128"), none, noEnv, Config{"/etc/a.ini", text}, Config{"b.ini", "c = 0\n"})
	if err != nil {
		t.Fatal(err)
	}
	want := Defaults()
	want.Options.TypeK, want.Options.NUBatch = of(formats.Q8_0), 128
	want.Options.NoKVOffload, want.Options.NoRepack, want.Options.SWAFull = true, true, true
	want.FitOpts.MinCtx = math.MaxUint32
	if len(f.Notes) != 2 || !strings.Contains(f.Notes[0], "/etc/a.ini") || !strings.Contains(f.Notes[0], "no-kv-offload") || strings.Contains(f.Notes[0], "port") {
		t.Errorf("notes %q", f.Notes)
	}
	f.Set, f.Given, f.Notes = want.Set, want.Given, nil
	if !reflect.DeepEqual(f, want) {
		t.Errorf("got  %+v\nwant %+v", f, want)
	}
	for text, want := range map[string]string{
		"ctx-size 4096":           "x.ini: line 1",
		"[default]\n\n = 3":       "x.ini: line 3",
		"ctx-size = lots":         "x.ini: ctx-size = lots: want a whole number",
		" indented = not allowed": "line 1",
	} {
		if _, _, err := Parse(nil, none, noEnv, Config{"x.ini", text}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one that says %q", text, err, want)
		}
	}
}
