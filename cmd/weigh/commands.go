package main

import "github.com/spf13/cobra"

// commands lists the sub-commands beyond the first ones, in the order of the
// help.
func commands() []*cobra.Command {
	return []*cobra.Command{newPlanCmd(), newTuneCmd(), newScanCmd(), newTableCmd(), newQuantsCmd(), newServeCmd(), newCheckCmd(), newTrainCmd(), newRulesCmd(), newDiffCmd(), newVerifyCmd(), newManCmd()}
}
