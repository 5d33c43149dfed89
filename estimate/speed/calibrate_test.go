package speed

import (
	"math"
	"slices"
	"strings"
	"testing"
)

func TestParseBench(t *testing.T) {
	want := []Bench{{NPrompt: 512, NGPULayers: 20, TPS: 900.5}, {NGen: 128, Depth: 4096, NGPULayers: 20, TPS: 45.25}}
	for name, text := range map[string]string{
		"JSON":       `[{"n_prompt":512,"n_gen":0,"n_depth":0,"n_gpu_layers":20,"avg_ts":900.5},{"n_prompt":0,"n_gen":128,"n_depth":4096,"n_gpu_layers":20,"avg_ts":45.25}]`,
		"JSON lines": "{\"n_prompt\":512,\"n_gpu_layers\":20,\"avg_ts\":900.5}\n{\"n_gen\":128,\"n_depth\":4096,\"n_gpu_layers\":20,\"avg_ts\":45.25}\n",
		"CSV":        "build_commit,n_gpu_layers,n_prompt,n_gen,n_depth,avg_ts\n\"b1\",\"20\",\"512\",\"0\",\"0\",\"900.5\"\n\"b1\",\"20\",\"0\",\"128\",\"4096\",\"45.25\"\n",
		"markdown":   "| model | ngl | test | t/s |\n| --- | --: | --: | --: |\n| m | 20 | pp512 | 900.5 ± 1.2 |\n| m | 20 | tg128 @ d4096 | 45.25 ± 0.1 |\n\nbuild: b1\n",
	} {
		got, err := ParseBench(strings.NewReader(text))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s is read as %+v, %v, want %+v", name, got, err, want)
		}
	}
	for name, text := range map[string]string{
		"nothing": "", "prose": "hello", "cut JSON": `[{"n_gen":`, "no speed": `[{"n_gen":128}]`, "a speed of zero": `[{"n_gen":128,"avg_ts":0}]`,
		"both lengths": `[{"n_gen":128,"n_prompt":128,"avg_ts":1}]`, "a huge length": `[{"n_gen":99999999999,"avg_ts":1}]`, "too much": strings.Repeat(" ", maxBench+1),
	} {
		if got, err := ParseBench(strings.NewReader(text)); err == nil {
			t.Errorf("%s is read as %+v, want an error", name, got)
		}
	}
}

func FuzzParseBench(f *testing.F) {
	f.Add(`[{"n_gen":128,"avg_ts":45}]`)
	f.Add("| test | t/s |\n| tg128 | 45 ± 1 |\n")
	f.Add("n_gen,avg_ts\n128,45\n")
	f.Fuzz(func(t *testing.T, text string) {
		rows, err := ParseBench(strings.NewReader(text))
		if (err == nil) != (len(rows) > 0) {
			t.Errorf("%d rows and error %v", len(rows), err)
		}
		for _, r := range rows {
			if !(r.TPS > 0) || math.IsInf(r.TPS, 0) || r.NGen < 0 || r.NPrompt < 0 || r.Depth < 0 {
				t.Errorf("row %+v", r)
			}
		}
	})
}

// TestSpeedNeverExceedsBandwidth holds every report's estimate against the time
// that peak bandwidth needs for its bytes.
func TestSpeedNeverExceedsBandwidth(t *testing.T) {
	for _, r := range clean(t) {
		s := r.speed(nil)
		var read uint64
		for _, u := range r.uses {
			n := u.Read
			if u.Cells > 0 {
				n *= uint64(min(u.Cells, r.depth))
			}
			read += n
		}
		if most := float64(r.device.BandwidthBps) / float64(read); s.Decode.High > most*1.0001 || s.Decode.Mid > s.Decode.High || s.Decode.Low > s.Decode.Mid {
			t.Errorf("%s: %+v of at most %.1f", r.group, s.Decode, most)
		}
	}
}
