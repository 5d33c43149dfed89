package main

import (
	"strings"
	"testing"
)

func TestTrain(t *testing.T) {
	path := modelFile(t, "Llama-3.1-8B-Q4_K_M")
	const parameters = 8030261248 // without the frequencies of the rotary embedding
	tests := map[string]struct {
		args      string
		code      int
		weights   uint64 // of the parameters, bytes
		gradients uint64
		optimizer uint64
		trainable uint64
	}{
		"mixed AdamW, 16 bytes a parameter":    {"--gpu 24GiB", 1, 2, 2, 12, parameters},
		"FP32 AdamW":                           {"--precision fp32 --gpu none", 0, 4, 4, 8, parameters},
		"pure BF16":                            {"--precision bf16 --gpu none", 0, 2, 2, 4, parameters},
		"plain SGD":                            {"--precision fp32 --optimizer sgd --gpu none", 0, 4, 4, 0, parameters},
		"the third stage of ZeRO over 64 GPUs": {"--sharding zero3 --gpus 64 --gpu 80GiB", 0, 0, 0, 0, parameters},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var d trainDocument
			weighJSON(t, tt.code, &d, append([]string{"train", path, "--host-memory", "64GiB"}, strings.Fields(tt.args)...)...)
			if d.Trainable != tt.trainable || d.Total != parameters {
				t.Errorf("%d of %d parameters are trained, want %d of %d", d.Trainable, d.Total, tt.trainable, parameters)
			}
			p := d.PerGPU
			if sum := p.Weights + p.Gradients + p.Optimizer + p.Activations + p.Logits + p.Overhead; sum != p.Total {
				t.Errorf("the parts sum to %d, the total is %d", sum, p.Total)
			}
			if tt.weights > 0 && (p.Weights != tt.weights*parameters || p.Gradients != tt.gradients*parameters || p.Optimizer != tt.optimizer*parameters) {
				t.Errorf("weights %d, gradients %d, optimizer %d; want %d, %d and %d bytes a parameter", p.Weights, p.Gradients, p.Optimizer, tt.weights, tt.gradients, tt.optimizer)
			}
			if tt.weights == 0 && p.Weights+p.Gradients+p.Optimizer > parameters/2 {
				t.Errorf("%d bytes of states on each of 64 GPUs", p.Weights+p.Gradients+p.Optimizer)
			}
		})
	}
}

// What frameworks train of a folder: a stored head that is the embedding, and
// blocks that predict further tokens, are left out.
func TestTrainFolders(t *testing.T) {
	for folder, want := range map[string]uint64{"qwen3-0.6b": 596049920, "gemma-2-2b-it": 2614341888} {
		var d trainDocument
		weighJSON(t, 0, &d, "train", hfFolder(t, folder), "--gpu", "none")
		if d.Trainable != want {
			t.Errorf("%s: %d parameters are trained, want %d", folder, d.Trainable, want)
		}
	}
	var with, without trainDocument
	weighJSON(t, 0, &with, "train", modelFile(t, "glm4-mtp-Q4_K_M"), "--gpu", "none")
	weighJSON(t, 0, &without, "train", modelFile(t, "glm4-Q4_K_M"), "--gpu", "none")
	var draft trainDocument
	weighJSON(t, 0, &draft, "train", modelFile(t, "gemma4-assistant-Q4_K_M"), "--gpu", "none")
	if draft.PerGPU.Activations == 0 || draft.Trainable < 10e6 {
		t.Errorf("a model of nothing but such blocks: %d parameters, activations of %d bytes", draft.Trainable, draft.PerGPU.Activations)
	}
	if with.Trainable != without.Trainable {
		t.Errorf("%d parameters with a block that predicts further tokens, %d without", with.Trainable, without.Trainable)
	}
}

// A gate stored with the up projection, a decoder beside an encoder.
func TestTrainActivations(t *testing.T) {
	const tokens = 2048
	for name, want := range map[string]uint64{
		// 16 bits of four widths, queries, keys and values, four of the network; 32 of the norms, and sums of heads
		"phi3-Q4_K_M": tokens * 8 * (2*(4*2048+2*2048+2*512+4*4096) + 8*2048 + 4*16),
		"t5-Q8_0":     tokens * 8 * (2*(8*1024+(2+4)*1024+(2+4)*1024+8*2816) + 16*1024 + 4*(16+32)),
	} {
		var d trainDocument
		weighJSON(t, 0, &d, "train", modelFile(t, name), "--gpu", "none")
		if d.PerGPU.Activations != want {
			t.Errorf("%s: activations of %d bytes, want %d", name, d.PerGPU.Activations, want)
		}
	}
}

// Where a recipe does not fit, thriftier ones are tried up to the first that does.
func TestTrainInstead(t *testing.T) {
	path := modelFile(t, "Llama-3.1-8B-Q4_K_M")
	for args, want := range map[string]string{
		"--gpu 24GiB": "--checkpointing --fused --method lora",
		"--gpu 24GiB --method qlora --sequence 8192": "--checkpointing --fused",
		"--gpu 20GiB --method lora --checkpointing":  "--fused",
		"--gpu 8x40GiB":                         "--checkpointing --fused --sharding fsdp",
		"--gpu 16GiB":                           "--checkpointing --fused --method qlora",
		"--gpu 12GiB --method qlora --batch 64": "--checkpointing --fused --batch 1",
	} {
		var d trainDocument
		weighJSON(t, 1, &d, append([]string{"train", path, "--host-memory", "64GiB"}, strings.Fields(args)...)...)
		if len(d.Instead) == 0 {
			t.Errorf("%s: nothing is tried", args)
			continue
		}
		last := d.Instead[len(d.Instead)-1]
		if got := strings.Join(last.Args, " "); got != want || !last.Fits || last.Total > *d.GPUMemory {
			t.Errorf("%s: the last that is tried is %s, %d bytes, fits %v; want %s", args, got, last.Total, last.Fits, want)
		}
		var again trainDocument
		weighJSON(t, 0, &again, append(append([]string{"train", path, "--host-memory", "64GiB"}, strings.Fields(args)...), last.Args...)...)
		if again.PerGPU.Total != last.Total {
			t.Errorf("%s: %v takes %d bytes, promised were %d", args, last.Args, again.PerGPU.Total, last.Total)
		}
	}
}

func TestTrainHost(t *testing.T) {
	out, _, code := weigh(t, "train", modelFile(t, "Llama-3.2-1B-F16"), "--sharding", "zero3", "--offload", "all", "--gpu", "80GiB", "--host-memory", "1GiB")
	if code != 1 || !strings.Contains(out, "fits in 80.0 GiB free on each GPU") || !strings.Contains(out, "does not fit in 1.00 GiB free on the host") {
		t.Errorf("exit code %d; which memory is short is not said:\n%s", code, out)
	}
}

func TestTrainText(t *testing.T) {
	out, _, code := weigh(t, "train", modelFile(t, "Llama-3.2-1B-F16"), "--method", "qlora", "--checkpointing", "--gpu", "8GiB", "--host-memory", "32GiB")
	if code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	golden(t, "train/Llama-3.2-1B-qlora", []byte(out))
}

func TestTrainRefuses(t *testing.T) {
	path := modelFile(t, "Llama-3.2-1B-F16")
	for args, want := range map[string]string{
		"--method lorax":                 "lorax",
		"--optimizer adam":               "adam",
		"--gpus -1":                      "--gpus",
		"--sequence 0":                   "--sequence",
		"--gpus 8 --gpus-per-node 3":     "whole number of nodes",
		"--offload optimizer":            "wants sharding",
		"--method lora --target nothing": "nothing",
	} {
		out, trouble, code := weigh(t, append([]string{"train", path, "--gpu", "none"}, strings.Fields(args)...)...)
		if code != exitError || out != "" || !strings.Contains(trouble, want) {
			t.Errorf("%s: exit code %d, output %q, trouble %q; want %d, nothing and %q", args, code, out, trouble, exitError, want)
		}
	}
}
