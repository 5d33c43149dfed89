package llama

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"weigh/estimate"
	"weigh/formats"
	"weigh/inspect/model"
)

func none(string) (bool, bool)                    { return false, false }
func noEnv(string) (string, bool)                 { return "", false }
func words(line string) []string                  { return strings.Fields(line) }
func of[T any](v T) *T                            { return &v }
func parse(line string) (*Flags, []string, error) { return Parse(words(line), none, noEnv) }

func TestFlags(t *testing.T) {
	for line, want := range map[string]func(*Flags){
		"-c 4096":          func(f *Flags) { f.Options.NCtx = 4096 },
		"--ctx-size=4096":  func(f *Flags) { f.Options.NCtx = 4096 },
		"-c 0":             func(f *Flags) { f.FitOpts.MinCtx = math.MaxUint32 },
		"-b 512 -ub 128":   func(f *Flags) { f.Options.NBatch, f.Options.NUBatch = 512, 128 },
		"-np 3 -no-kvu":    func(f *Flags) { f.Options.NParallel, f.Options.KVUnified = 3, of(false) },
		"-np -1 -kvu":      func(*Flags) {},
		"-ngl 20":          func(f *Flags) { f.Options.NGPULayers = of(20) },
		"-ngl auto":        func(*Flags) {},
		"-ngl all":         func(f *Flags) { f.Options.NGPULayers = of(-2) },
		"-ngl -1":          func(*Flags) {},
		"-sm row -mg 1":    func(f *Flags) { f.Options.SplitMode, f.Options.MainGPU = estimate.SplitRow, 1 },
		"-ts 3,1":          func(f *Flags) { f.Options.TensorSplit = []float32{3, 1} },
		"-ts 3/1":          func(f *Flags) { f.Options.TensorSplit = []float32{3, 1} },
		"-dev CUDA0,CUDA1": func(f *Flags) { f.Devices = []string{"CUDA0", "CUDA1"} },
		"-ot exps=CPU,a=CUDA0": func(f *Flags) {
			f.Options.Overrides = []estimate.Override{{Pattern: "exps", Buffer: "CPU"}, {Pattern: "a", Buffer: "CUDA0"}}
		},
		"-cmoe":                    func(f *Flags) { f.Options.Overrides = []estimate.Override{estimate.CPUMoE()} },
		"-ncmoe 2":                 func(f *Flags) { f.Options.Overrides = estimate.NCPUMoE(2) },
		"--n-cpu-ffn 2":            func(f *Flags) { f.Options.Overrides = estimate.NCPUFFN(2) },
		"-fa on":                   func(f *Flags) { f.Options.FlashAttn = estimate.FlashAttnOn },
		"--flash-attn off":         func(f *Flags) { f.Options.FlashAttn = estimate.FlashAttnOff },
		"-fa auto":                 func(*Flags) {},
		"-ctk q8_0 -ctv iq4_nl":    func(f *Flags) { f.Options.TypeK, f.Options.TypeV = of(formats.Q8_0), of(formats.IQ4_NL) },
		"-nkvo --no-op-offload":    func(f *Flags) { f.Options.NoKVOffload, f.Options.NoOpOffload = true, true },
		"-nkvo -kvo":               func(*Flags) {},
		"--swa-full -nr --no-host": func(f *Flags) { f.Options.SWAFull, f.Options.NoRepack, f.Options.NoHost = true, true, true },
		"--no-mmap":                func(f *Flags) { f.LoadMode = "none" },
		"--mlock":                  func(f *Flags) { f.LoadMode = "mlock" },
		"-lm dio":                  func(f *Flags) { f.LoadMode = "dio" },
		"-cram -1 -ctxcp 4":        func(f *Flags) { f.CacheRAM, f.Checkpoints = -1, 4 },
		"--embeddings":             func(f *Flags) { f.Options.Embeddings, f.Options.NBatch = true, 512 },
		"--embeddings -ub 1024":    func(f *Flags) { f.Options.Embeddings, f.Options.NBatch, f.Options.NUBatch = true, 1024, 1024 },
		"--reranking -b 64": func(f *Flags) {
			f.Options.Embeddings, f.Options.NBatch, f.Options.Pooling = true, 64, of(model.PoolingRank)
		},
		"--pooling mean": func(f *Flags) { f.Options.Pooling, f.Options.NOutputs = of(model.PoolingMean), of(0) },
		"--pooling none": func(f *Flags) { f.Options.Pooling = of(model.PoolingNone) },
		"-fit off":       func(f *Flags) { f.Fit = false },
		"-fitt 512,2048 -fitc 8192": func(f *Flags) {
			f.FitOpts = estimate.FitOptions{Target: []uint64{512 << 20, 2 << 30, 1 << 30}, MinCtx: 8192}
		},
		"-mm p.gguf --no-mmproj-offload --image-max-tokens 900": func(f *Flags) { f.MMProj, f.MMProjOffload, f.ImageTokens = "p.gguf", false, 900 },
		"--no-mmproj":                  func(f *Flags) { f.MMProjAuto = false },
		`--lora "a,1.gguf",b.gguf`:     func(f *Flags) { f.LoRA = []string{"a,1.gguf", "b.gguf"} },
		"--lora a.gguf,b.gguf":         func(f *Flags) { f.LoRA = []string{"a.gguf", "b.gguf"} },
		"--lora-scaled C:\\a.gguf:0.5": func(f *Flags) { f.LoRA = []string{"C:\\a.gguf"} },
		"--control-vector v.gguf":      func(f *Flags) { f.ControlVectors = []string{"v.gguf"} },
		"--rpc a:1,b:2":                func(f *Flags) { f.RPC = []string{"a:1", "b:2"} },
		"-md d.gguf -ngld 9 -ctkd q8_0": func(f *Flags) {
			f.Draft.Model, f.Draft.NGPULayers, f.Draft.TypeK = "d.gguf", of(9), of(formats.Q8_0)
		},
		"-md d.gguf --spec-type draft-simple --spec-draft-n-max 7 -np 2": func(f *Flags) {
			f.Draft.Model, f.Draft.Types, f.Draft.NMax = "d.gguf", []string{"draft-simple"}, 7
			f.Options.NParallel, f.Options.NOutputs = 2, of(16)
		},
		"--spec-type ngram-simple,ngram-mod": func(f *Flags) {
			f.Draft.Types, f.Options.NOutputs = []string{"ngram-simple", "ngram-mod"}, of(4*65)
		},
		"--spec-type ngram-mod --spec-ngram-mod-n-max 8 -b 20": func(f *Flags) {
			f.Draft.Types, f.Draft.NGram = []string{"ngram-mod"}, map[string]int{"ngram-mod": 8}
			f.Options.NBatch, f.Options.NOutputs = 20, of(20)
		},
		"--spec-default": func(f *Flags) { f.Draft.Types, f.Options.NOutputs = []string{"ngram-mod"}, of(4*65) },
		"-hfd a/b -devd CUDA1 -mmdev none": func(f *Flags) {
			f.Draft.HFRepo, f.Draft.Devices, f.MMProjDevice = "a/b", []string{"CUDA1"}, "none"
		},
		"--ctx_size 4096 --n_gpu_layers=3": func(f *Flags) { f.Options.NCtx, f.Options.NGPULayers = 4096, of(3) },
		"-dev CUDA0 -dev CUDA1":            func(f *Flags) { f.Devices = []string{"CUDA1"} },
		"-ub 0":                            func(f *Flags) { f.Options.NUBatch = -1 },
		"-np -2 -mg -1":                    func(f *Flags) { f.Options.MainGPU = -1 },
		"-fitt 512":                        func(f *Flags) { f.FitOpts.Target = []uint64{512 << 20} },
		"-c 0 --kv-unified-per-slot 1000":  func(f *Flags) { f.FitOpts.MinCtx, f.KVPerSlot = math.MaxUint32, 1000 },
		"--gpt-oss-20b-default": func(f *Flags) {
			f.HFRepo, f.HFFile = "ggml-org/gpt-oss-20b-GGUF", "gpt-oss-20b-mxfp4.gguf"
			f.Options.NUBatch, f.Options.NBatch, f.Options.NParallel, f.Options.NCtx = 2048, 32768, 2, 262144
		},
		`--override-kv a.b=int:7,c=bool:true,c=bool:false,"d=str:x,y",e=float:-1.5`: func(f *Flags) {
			f.Meta = map[string]any{"a.b": int64(7), "c": true, "d": "x,y", "e": -1.5}
		},
		"--spec-type draft-mtp -np 1": func(f *Flags) {
			f.Draft.Types, f.Options.MTP, f.Options.NParallel = []string{"draft-mtp"}, true, 1
			f.Options.NOutputs, f.Options.NRsSeq = of(4), 3
		},
		"--kv-unified-per-slot 1000 -np 2":                        func(f *Flags) { f.KVPerSlot, f.Options.NParallel, f.Options.NCtx = 1000, 2, 2000 },
		"--temp 0.6 --port 80 --host 0.0.0.0 -t 8":                func(*Flags) {},
		"llama-server -m a.gguf -c 1":                             func(f *Flags) { f.Model, f.Options.NCtx = "a.gguf", 1 },
		"/opt/bin/llama-server.exe -hf a/b:Q4_K_M":                func(f *Flags) { f.HFRepo = "a/b:Q4_K_M" },
		`C:\\llama\\llama-server.exe -c 1`:                        func(f *Flags) { f.Options.NCtx = 1 },
		"llama serve -c 1":                                        func(f *Flags) { f.Options.NCtx = 1 },
		"LLAMA_ARG_CTX_SIZE=7 X=1 llama-server -b 8":              func(f *Flags) { f.Options.NCtx, f.Options.NBatch = 7, 8 },
		"-- nice -n 10 LLAMA_ARG_NO_KV_OFFLOAD=x llama-server":    func(f *Flags) { f.Options.NoKVOffload = true },
		"-m /models/llama-server -md bin/llama-cli --alias llama": func(f *Flags) { f.Model, f.Draft.Model = "/models/llama-server", "bin/llama-cli" },
	} {
		t.Run(line, func(t *testing.T) {
			got, rest, err := parse(line)
			if err != nil || len(rest) > 0 {
				t.Fatalf("rest %q, error %v", rest, err)
			}
			f := Defaults()
			want(f)
			f.Set, f.Given, f.Notes = got.Set, got.Given, got.Notes
			if !reflect.DeepEqual(got, f) {
				t.Errorf("got  %+v\nwant %+v", got, f)
			}
		})
	}
}

// Flags that llama-server refuses, or takes otherwise, are taken as they were
// meant, and said.
func TestNotes(t *testing.T) {
	for line, want := range map[string]string{
		"--no-mmap":       "-lm none",
		"--mlock":         "-lm mlock",
		"--draft-max 8":   "--spec-draft-n-max",
		"-no-kvu -c 4096": "without -np",
		"-no-kvu -np 4":   "",
		"-lm none":        "",
	} {
		f, _, err := parse(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if got := strings.Join(f.Notes, " "); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%s: notes %q, want one that says %q", line, got, want)
		}
	}
}

func TestRefusedFlags(t *testing.T) {
	for line, want := range map[string]string{
		"-c":                             "-c wants N after it",
		"-c x":                           "whole number",
		"-c 99999999999":                 "whole number",
		"-np 0":                          "1 to 256",
		"-np 300":                        "1 to 256",
		"-ctk q3_k":                      "one of f32, f16",
		"-fa maybe":                      "on, off or auto",
		"-sm diagonal":                   "layer, row, none or tensor",
		"-ts 1,x":                        `"x" is no share`,
		"-ts 1,-1":                       `"-1" is no share`,
		"-ts nan":                        "is no share",
		"-ot exps":                       "PATTERN=BUFFER",
		"-ot (=CPU":                      "pattern",
		"-lm swap":                       "one of auto",
		"--pooling max":                  "none, mean",
		"--lora-scaled a":                "FILE:SCALE",
		"--ctx-siz 4096":                 "did you mean --ctx-size?",
		"--no-such-thing":                `unknown flag "--no-such-thing"`,
		"-nlg 3":                         "did you mean -ngl?",
		"--ctx 3":                        "did you mean --ctx-size?",
		"--gpulayers 3":                  "did you mean --gpu-layers?",
		"--cache_typek f16":              "did you mean --cache-type-k?",
		"--tensor-splt 1":                "did you mean --tensor-split?",
		"-fx on":                         `unknown flag "-fx"`,
		"-fit perhaps":                   "on or off",
		"-ngl many":                      "layers",
		"--temp":                         "--temp wants a value after it",
		"--control-vector-layer-range 1": "wants a value",
		"--swa-full=1":                   "takes no value",
		"-ncmoe 5000":                    "0 to 4095",
		"--spec-type fast":               `"fast" is no kind`,
		"--override-kv a=int:x":          "no value of this type",
		"--override-kv a=1":              "KEY=TYPE:VALUE",
		"-fitt ,":                        "MiB for each device",
	} {
		t.Run(line, func(t *testing.T) {
			if _, _, err := parse(line); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want one that says %q", err, want)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	env := func(vars string) func(string) (string, bool) {
		return func(name string) (string, bool) {
			for _, v := range words(vars) {
				if k, val, _ := strings.Cut(v, "="); k == name {
					return val, true
				}
			}
			return "", false
		}
	}
	for name, tt := range map[string]struct {
		vars, line string
		want       func(*Flags)
	}{
		"a variable":                        {"LLAMA_ARG_CTX_SIZE=4096", "", func(f *Flags) { f.Options.NCtx = 4096 }},
		"the command line wins":             {"LLAMA_ARG_CTX_SIZE=4096", "-c 512", func(f *Flags) { f.Options.NCtx = 512 }},
		"a switch":                          {"LLAMA_ARG_SWA_FULL=1", "", func(f *Flags) { f.Options.SWAFull = true }},
		"a switch that is off":              {"LLAMA_ARG_SWA_FULL=0", "", func(*Flags) {}},
		"a switch of two kinds that is off": {"LLAMA_ARG_KV_OFFLOAD=off", "", func(f *Flags) { f.Options.NoKVOffload = true }},
		"a list of devices is replaced":     {"LLAMA_ARG_DEVICE=CUDA0", "-dev CUDA1", func(f *Flags) { f.Devices = []string{"CUDA1"} }},
		"servers are added":                 {"LLAMA_ARG_RPC=a:1", "--rpc b:2", func(f *Flags) { f.RPC = []string{"a:1", "b:2"} }},
		"a variable that denies":            {"LLAMA_ARG_NO_KV_OFFLOAD=0", "", func(f *Flags) { f.Options.NoKVOffload = true }},
		"a switch without a sense":          {"LLAMA_ARG_SWA_FULL=maybe", "", func(*Flags) {}},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := Parse(words(tt.line), none, env(tt.vars))
			if err != nil {
				t.Fatal(err)
			}
			f := Defaults()
			tt.want(f)
			f.Set, f.Given = got.Set, got.Given
			if !reflect.DeepEqual(got, f) {
				t.Errorf("got  %+v\nwant %+v", got, f)
			}
		})
	}
	if _, _, err := Parse(nil, none, env("LLAMA_ARG_CTX_SIZE=lots")); err == nil || !strings.Contains(err.Error(), "LLAMA_ARG_CTX_SIZE=lots") {
		t.Errorf("error %v does not name the variable", err)
	}
}

func TestRest(t *testing.T) {
	own := func(name string) (known, value bool) { return name == "--gpu" || name == "--json", name == "--gpu" }
	f, rest, err := Parse(words("model.gguf --gpu 24GiB -c 512 --temp -0.5 --json --gpu=8GiB -- -ngl 3"), own, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	if want := words("model.gguf --gpu 24GiB --json --gpu=8GiB"); !slices.Equal(rest, want) {
		t.Errorf("rest is %q, want %q", rest, want)
	}
	if want := words("-c 512 --temp -0.5 -ngl 3"); !slices.Equal(f.Given, want) {
		t.Errorf("given flags are %q, want %q", f.Given, want)
	}
}

// FuzzParse holds that any command line is taken or refused, and that what is
// taken again in its own words means the same.
func FuzzParse(f *testing.F) {
	for _, line := range []string{"-c 4096 -ngl 3", "-ot a=b -ts 1,2", "--lora-scaled x:1 -np -1", "-- llama-server -m x", "--ctx-size=", "-ngl=-5 -", "--temp"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		a, rest, err := parse(line)
		if err != nil {
			var unknown *UnknownError
			if errors.As(err, &unknown) && Known(unknown.Flag) {
				t.Errorf("%q is unknown and known", unknown.Flag)
			}
			return
		}
		for _, w := range rest {
			if len(w) > 1 && w[0] == '-' && !isNumber(w) {
				t.Errorf("flag %q was left over", w)
			}
		}
		b, _, err := Parse(a.Given, none, noEnv)
		if err != nil {
			t.Fatalf("%q was taken, %q is not: %v", line, a.Given, err)
		}
		b.Model, b.HFRepo, b.HFFile, b.Set = a.Model, a.HFRepo, a.HFFile, a.Set
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%q means\n%+v\nits flags %q mean\n%+v", line, a, a.Given, b)
		}
	})
}
