package hf

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"weigh/fixtures"
	"weigh/formats"
)

func TestImpossibleNumbersAreListed(t *testing.T) {
	const class = `"architectures":["LlamaForCausalLM"]`
	for name, tt := range map[string]struct {
		file, text string
		want       []string // fields
	}{
		"an adapter":                   {"adapter_config.json", `{"r":16,"lora_alpha":32.5}`, nil},
		"a rank beyond all":            {"adapter_config.json", `{"r":1e30}`, []string{"adapter_config.json: r"}},
		"no rank":                      {"adapter_config.json", `{"r":0,"lora_alpha":Infinity}`, []string{"adapter_config.json: lora_alpha", "adapter_config.json: r"}},
		"half a rank":                  {"adapter_config.json", `{"r":2.5}`, []string{"adapter_config.json: r"}},
		"packing":                      {"quantize_config.json", `{"bits":4.65,"group_size":-1}`, nil},
		"negative bits":                {"quantize_config.json", `{"bits":-4,"group_size":128}`, []string{"quantize_config.json: bits"}},
		"groups beyond all":            {"quant_config.json", `{"w_bit":4,"q_group_size":1e30}`, []string{"quant_config.json: q_group_size"}},
		"ModelOpt's":                   {"hf_quant_config.json", `{"quantization":{"group_size":-7}}`, []string{"hf_quant_config.json: quantization.group_size"}},
		"the configuration's":          {"config.json", `{` + class + `,"quantization_config":{"bits":0,"group_size":0.5}}`, []string{"config.json: quantization_config.bits", "config.json: quantization_config.group_size"}},
		"a group of them":              {"config.json", `{` + class + `,"quantization_config":{"config_groups":{"group_0":{"weights":{"num_bits":1e30}}}}}`, []string{"config.json: quantization_config.config_groups.group_0.weights.num_bits"}},
		"the text model's":             {"config.json", `{` + class + `,"text_config":{"quantization_config":{"bits":NaN}}}`, []string{"config.json: text_config.quantization_config.bits"}},
		"a field of another purpose":   {"config.json", `{` + class + `,"bits":-4,"r":1e30}`, nil},
		"text, which is not looked at": {"quantize_config.json", `{"bits":"4"}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "model.safetensors"), tensorOf("a", 2))
			if err := os.WriteFile(filepath.Join(dir, tt.file), []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			fields := func(problems []formats.Problem) (list []string) {
				for _, p := range problems {
					list = append(list, p.Field)
				}
				return list
			}
			_, problems, err := Check(dir)
			if got := fields(problems); err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("Check() = %q, %v; want %q", got, err, tt.want)
			}
			m, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			if got := fields(m.Problems); !slices.Equal(got, tt.want) {
				t.Errorf("Open() has problems %q, want %q", got, tt.want)
			}
			if q := m.Quant; q != nil && (q.Bits < 0 || q.Group < -1) {
				t.Errorf("%+v is taken over", q)
			}
		})
	}
}

func TestNoFolderHasImpossibleNumbers(t *testing.T) {
	for _, name := range fixtures.HFNames() {
		dir := t.TempDir()
		if err := fixtures.WriteHF(dir, name); err != nil {
			t.Fatal(err)
		}
		f, err := gather(dir)
		if err != nil || len(f.problems) > 0 {
			t.Errorf("%s: %+v, %v", name, f.problems, err)
		}
	}
}
