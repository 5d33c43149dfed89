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
