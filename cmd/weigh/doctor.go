package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"

	"github.com/spf13/cobra"

	"weigh/cmd/weigh/internal/render"
	"weigh/estimate/hw"
	"weigh/estimate/hw/detect"
)

// errUnwell is doctor's answer when a driver does not answer as it should: the
// question was answered, and the answer is no.
var errUnwell = errors.New("a driver does not answer as it should")

// newDoctorCmd returns the sub-command that says what detection asked, what it
// was answered, and what to do about it.
func newDoctorCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Why a GPU is not found: what was tried, what the driver said, what to do",
		Example: `  weigh doctor
  weigh doctor --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := cmd.OutOrStdout()
			m, findings := detect.Machine(cmd.Context())
			if asJSON {
				if err := writeJSON(w, newGPUsDocument(m, findings, defaultReserve)); err != nil {
					return err
				}
			} else {
				printDiagnosis(w, render.StyleOf(w), m, findings, os.LookupEnv)
			}
			if slices.ContainsFunc(findings, func(f detect.Finding) bool { return f.Severity == detect.Error }) {
				return errUnwell
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write one JSON document")
	return cmd
}

// diagnosisEnv are the variables that change what is found.
var diagnosisEnv = []string{
	"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "GGML_CUDA_ENABLE_UNIFIED_MEMORY", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
	"HSA_OVERRIDE_GFX_VERSION", "GGML_VK_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "LD_BIND_NOW", "WEIGH_NVML", "WEIGH_SYSROOT",
}

// printDiagnosis writes what was found out, finding by finding.
func printDiagnosis(w io.Writer, style render.Style, m hw.Machine, findings []detect.Finding, env func(string) (string, bool)) {
	fmt.Fprintf(w, "system    %s/%s", m.Host.OS, runtime.GOARCH)
	if m.Host.Environment != "" {
		fmt.Fprintf(w, ", %s", m.Host.Environment)
	}
	fmt.Fprintln(w)
	for _, name := range diagnosisEnv {
		if v, ok := env(name); ok {
			fmt.Fprintf(w, "variable  %s=%s\n", name, render.Text(v))
		}
	}
	fmt.Fprintf(w, "devices   %d\n", len(m.Devices))
	for _, d := range m.Devices {
		fmt.Fprintf(w, "  %d  %s, %s free of %s\n", d.Index, render.Text(d.Name), render.Size(d.MemoryFree), render.Size(d.MemoryTotal))
		for _, note := range d.Notes {
			fmt.Fprintf(w, "     %s\n", style.Dim(render.Text(note)))
		}
	}
	fmt.Fprintf(w, "host      %s available of %s\n", render.Size(m.Host.MemoryAvailable), render.Size(m.Host.MemoryTotal))
	for _, f := range findings {
		fmt.Fprintln(w)
		render.Prose(w, 2, severity(style, f.Severity)+"  "+f.Subject+": "+render.Text(f.Message))
		for _, tried := range f.Tried {
			render.Prose(w, 7, "  tried  "+render.Text(tried))
		}
		if f.Hint != "" {
			render.Prose(w, 7, "  do     "+render.Text(f.Hint))
		}
	}
}
