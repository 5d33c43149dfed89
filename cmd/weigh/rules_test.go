package main

import (
	"strings"
	"testing"
)

func TestRules(t *testing.T) {
	path := modelFile(t, "Llama-3.1-8B-Q4_K_M")
	args := []string{path, "--gpu", "24GiB", "--host-memory", "64GiB", "-c", "8192"}
	var e estimateDocument
	weighJSON(t, 0, &e, append([]string{"estimate"}, args...)...)
	exact := e.Host.Model + e.Host.Context + e.Host.Compute
	for _, d := range e.Devices {
		exact += d.Model + d.Context + d.Compute
	}
	var d rulesDocument
	weighJSON(t, 0, &d, append([]string{"rules"}, args...)...)
	if d.Exact != exact || d.Bits != 4 || d.NCtx != 8192 {
		t.Errorf("exact %d, %d bits, context %d; want %d, 4 and 8192", d.Exact, d.Bits, d.NCtx, exact)
	}
	by := map[string]ruleDocument{}
	for _, r := range d.Rules {
		by[r.Name] = r
		if r.Source == "" || r.Formula == "" || r.Why == "" || r.Exact == 0 {
			t.Errorf("rule %+v lacks its source, formula, reason or counterpart", r)
		}
	}
	const parameters = 8030261312
	for name, want := range map[string]uint64{
		"parameters × precision": parameters / 2, "NVIDIA": parameters, "can-it-run-llm": parameters * 6 / 10, "LM Studio, least": parameters/2 + 1e9,
	} {
		if got := by[name].Bytes; got > want+1 || got+1 < want {
			t.Errorf("%s: %d bytes, want %d", name, got, want)
		}
	}
	// hf-mem knows a GGUF's heads as hidden ÷ heads, and all its layers as full.
	if got, want := by["hf-mem"].Bytes, *e.Model.FileBytes+32*2*8*128*8192*2; got > want || got < want-want/50 {
		t.Errorf("hf-mem: %d bytes, want little less than %d", got, want)
	}
	if got, want := by["Ollama"].Bytes, *e.Model.FileBytes+32*2*8*128*8192*2; got != want {
		t.Errorf("Ollama: %d bytes, want %d", got, want)
	}
	if p := d.ExactParts; p.Model+p.Context+p.Compute != exact {
		t.Errorf("the parts %+v do not sum to %d", p, exact)
	}
	if len(d.Accelerate) != 4 || len(d.CanItRun) != 4 || d.Accelerate[2].Training != nil || *d.CanItRun[1].Inference != (parameters*12+2)/5 {
		t.Errorf("calculators %+v and %+v", d.Accelerate, d.CanItRun)
	}
	if r := by["gguf-parser-go"]; r.Ratio < 0.5 || r.Ratio > 2 {
		t.Errorf("the second opinion is %+v", r)
	}
}

func TestRulesOfEveryFamily(t *testing.T) {
	for _, name := range []string{"Mamba-2.8B-Q4_K_M", "DeepSeek-V2-Lite-Q4_K_M", "Gemma-3n-E4B-Q4_K_M", "bert-F16", "t5-Q8_0", "RWKV7-World-2.9B-Q4_K_M"} {
		var d rulesDocument
		weighJSON(t, 0, &d, "rules", modelFile(t, name), "--gpu", "24GiB", "--host-memory", "64GiB", "-c", "512")
		if len(d.Rules) < 5 {
			t.Errorf("%s: %d rules apply", name, len(d.Rules))
		}
	}
	bare := folder(t, map[string]string{"config.json": `{"architectures":["XverseForCausalLM"],"hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,"intermediate_size":128,"vocab_size":100,"max_position_embeddings":128,"rms_norm_eps":1e-5}`}, nil)
	out, trouble, code := weigh(t, "rules", bare, "--gpu", "none")
	if code != exitError || out != "" || !strings.Contains(trouble, "no weights") {
		t.Errorf("a folder without weights: exit code %d, output %q, trouble %q", code, out, trouble)
	}
}

// A head that is the embedding counts once though it is stored, and packed
// weights are said to be unpacked.
func TestRulesOfFolders(t *testing.T) {
	var d rulesDocument
	weighJSON(t, 0, &d, "rules", hfFolder(t, "qwen3-0.6b"), "--gpu", "24GiB", "--host-memory", "64GiB", "-c", "512")
	for _, r := range d.Rules {
		if want := uint64(2 * 596049920); (r.Name == "parameters × precision" || r.Name == "Accelerate, total") && r.Bytes != want {
			t.Errorf("%s: %d bytes, want %d", r.Name, r.Bytes, want)
		}
	}
	out, _, _ := weigh(t, "rules", hfFolder(t, "llama-2-13b-chat-gptq"), "--gpu", "48GiB", "--host-memory", "64GiB", "-c", "512")
	if !strings.Contains(out, "(gptq) unpacked to 16 bits") {
		t.Errorf("packed weights are not said to be unpacked:\n%s", out)
	}
}

func TestRulesText(t *testing.T) {
	out, _, code := weigh(t, "rules", modelFile(t, "Llama-3.2-1B-F16"), "--gpu", "8GiB", "--host-memory", "32GiB", "-c", "4096", "--table")
	if code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	golden(t, "rules/Llama-3.2-1B-F16", []byte(out))
}
