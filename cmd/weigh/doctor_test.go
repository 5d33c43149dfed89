//go:build linux && cgo

package main

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"weigh/fixtures/nvml"
)

func TestDoctor(t *testing.T) {
	dir := t.TempDir()
	if _, err := nvml.Build(dir); errors.Is(err, nvml.ErrNoCompiler) {
		t.Skip("SKIP:", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Setenv("LD_LIBRARY_PATH", dir)
	tests := map[string]struct {
		says []string
		err  error
	}{
		"desktop":  {[]string{"ok  nvidia: NVIDIA driver 580.95.05 answers through nvml, for CUDA up to 13.0", "tried  NVML: libnvidia-ml.so.1"}, nil},
		"mismatch": {[]string{"error  nvidia: NVIDIA's driver and its library are of different versions", "do     restart the machine", "nvmlInit: driver and library versions differ (18)"}, errUnwell},
		"lost":     {[]string{"error  nvidia: NVIDIA device 0 does not answer: the GPU is lost"}, errUnwell},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv("FAKE_NVML_CONFIG", filepath.Join(dir, name+".ini"))
			cmd := newDoctorCmd()
			var b bytes.Buffer
			cmd.SetOut(&b)
			cmd.SilenceUsage, cmd.SilenceErrors = true, true
			cmd.SetArgs(nil)
			if err := cmd.ExecuteContext(t.Context()); !errors.Is(err, tt.err) {
				t.Errorf("error = %v, want %v", err, tt.err)
			}
			for _, s := range tt.says {
				if !strings.Contains(b.String(), s) {
					t.Errorf("output is\n%s\nwant %q in it", b.String(), s)
				}
			}
		})
	}
}
