package speed

import (
	"math"
	"slices"
	"strings"
	"testing"

	"weigh/estimate"
	"weigh/estimate/hw"
)

func TestParseBench(t *testing.T) {
	want := []Bench{
		{NPrompt: 512, NGPULayers: 20, NCPUMoE: 3, NUBatch: 256, Params: 8030000000, TPS: 900.5},
		{NGen: 128, Depth: 4096, NGPULayers: 20, NCPUMoE: 3, NUBatch: 256, Params: 8030000000, TPS: 45.25},
	}
	for name, text := range map[string]string{
		"JSON": `[{"n_prompt":512,"n_gen":0,"n_depth":0,"n_gpu_layers":20,"n_cpu_moe":3,"n_ubatch":256,"model_n_params":8030000000,"avg_ts":900.5},
			{"n_prompt":0,"n_gen":128,"n_depth":4096,"n_gpu_layers":20,"n_cpu_moe":3,"n_ubatch":256,"model_n_params":8030000000,"avg_ts":45.25}]`,
		"JSON lines": `{"n_prompt":512,"n_gpu_layers":20,"n_cpu_moe":3,"n_ubatch":256,"model_n_params":8030000000,"avg_ts":900.5}
			{"n_gen":128,"n_depth":4096,"n_gpu_layers":20,"n_cpu_moe":3,"n_ubatch":256,"model_n_params":8030000000,"avg_ts":45.25}`,
		"CSV": "build_commit,n_gpu_layers,n_cpu_moe,n_ubatch,model_n_params,n_prompt,n_gen,n_depth,avg_ts\n" +
			"\"b1\",\"20\",\"3\",\"256\",\"8030000000\",\"512\",\"0\",\"0\",\"900.5\"\n\"b1\",\"20\",\"3\",\"256\",\"8030000000\",\"0\",\"128\",\"4096\",\"45.25\"\n",
		"markdown": "| model | params | ngl | n_cpu_moe | n_ubatch | test | t/s |\n| --- | --: | --: | --: | --: | --: | --: |\n" +
			"| m | 8.03 B | 20 | 3 | 256 | pp512 | 900.5 ± 1.2 |\n| m | 8.03 B | 20 | 3 | 256 | tg128 @ d4096 | 45.25 ± 0.1 |\n| m | 8.03 B | 20 | 3 | 256 | pp512+tg128 | 300 ± 1 |\n\nbuild: b1\n",
		"SQL": "CREATE TABLE IF NOT EXISTS llama_bench (\n  build_commit TEXT,\n  avg_ts REAL\n);\n\n" +
			"INSERT INTO llama_bench (cpu_info, n_gpu_layers, n_cpu_moe, n_ubatch, model_n_params, n_prompt, n_gen, n_depth, avg_ts) VALUES ('a, b (c)', '20', '3', '256', '8030000000', '512', '0', '0', '900.5');\n" +
			"INSERT INTO llama_bench (cpu_info, n_gpu_layers, n_cpu_moe, n_ubatch, model_n_params, n_prompt, n_gen, n_depth, avg_ts) VALUES ('a, b (c)', '20', '3', '256', '8030000000', '0', '128', '4096', '45.25');\n",
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

// TestCalibrateMeetsTheBenchmark holds the calibrated estimate against the
// benchmark that it is calibrated to.
func TestCalibrateMeetsTheBenchmark(t *testing.T) {
	m := fixture(t, "Qwen3-30B-A3B-Q4_K_M")
	card, err := hw.Lookup("RTX 3060")
	if err != nil {
		t.Fatal(err)
	}
	d, err := card.Device()
	if err != nil {
		t.Fatal(err)
	}
	o := estimate.Options{Devices: []hw.Device{d}, Host: hw.Host{BandwidthBps: 50e9, Cores: 8}}
	const params, other = 30532122624, 8030261312
	for name, tt := range map[string]struct {
		rows []Bench
		host bool // its factors change
	}{
		"all layers on the card":      {[]Bench{{NGen: 128, NGPULayers: 99, TPS: 90}}, false},
		"all layers by another name":  {[]Bench{{NGen: 128, NGPULayers: -1, Params: params, TPS: 90}}, false},
		"experts on the host":         {[]Bench{{NGen: 128, NGPULayers: 99, NCPUMoE: 24, TPS: 30}}, true},
		"some layers":                 {[]Bench{{NGen: 128, NGPULayers: 20, TPS: 14}}, true},
		"rows of another model, too":  {[]Bench{{NGen: 128, NGPULayers: 99, Params: params, TPS: 90}, {NGen: 128, NGPULayers: 99, Params: other, TPS: 5}}, false},
		"a prompt":                    {[]Bench{{NPrompt: 512, NGPULayers: 99, NUBatch: 256, TPS: 1500}}, false},
		"twice, half as fast at last": {[]Bench{{NGen: 128, NGPULayers: 99, TPS: 60}, {NGen: 128, NGPULayers: 99, TPS: 60}}, false},
	} {
		f, err := Calibrate(m, o, tt.rows)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := tt.rows[0].estimate(m, o, f); err != nil || math.Abs(got/tt.rows[0].TPS-1) > .05 {
			t.Errorf("%s: %.1f tokens per second, %v, want %.1f", name, got, err, tt.rows[0].TPS)
		}
		if changed := f.Host != Fitted().Host; changed != tt.host {
			t.Errorf("%s: the host's factors change: %v, want %v", name, changed, tt.host)
		}
	}
	for name, rows := range map[string][]Bench{
		"another model":                {{NGen: 128, NGPULayers: 99, Params: other, TPS: 90}},
		"a speed that cannot be meant": {{NGen: 128, NGPULayers: 99, TPS: 1e6}},
	} {
		if f, err := Calibrate(m, o, rows); err == nil {
			t.Errorf("%s: %+v, want an error", name, f)
		}
	}
}

func FuzzParseBench(f *testing.F) {
	f.Add(`[{"n_gen":128,"avg_ts":45}]`)
	f.Add("| test | t/s |\n| tg128 | 45 ± 1 |\n")
	f.Add("n_gen,avg_ts\n128,45\n")
	f.Add("INSERT INTO t (n_gen, avg_ts) VALUES ('128', '45');")
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
