package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sluice-iot/sluice/internal/config"
)

func newConfigCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the configuration in force and where each value came from",
		Long: "Print every setting that `sluice up` would run with, its value and where that came from:\n" +
			"default, file (with line), environment or flag.",
		Args: noArgs,
	}
	s := addSettings(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		loaded, err := s.Load(nil, false)
		if err != nil {
			return err
		}
		for _, w := range loaded.Warnings {
			fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
		}
		return printConfig(cmd.OutOrStdout(), loaded, output)
	}
	return cmd
}

func printConfig(w io.Writer, loaded *config.Loaded, output string) error {
	switch output {
	case "text":
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "KEY\tVALUE\tSOURCE")
		for _, v := range loaded.Values() {
			fmt.Fprintf(table, "%s\t%s\t%s\n", v.Path, v.Text(), v.Source)
		}
		return table.Flush()
	case "json":
		type line struct {
			Key    string `json:"key"`
			Value  any    `json:"value"`
			Source string `json:"source"`
		}
		lines := []line{}
		for _, v := range loaded.Values() {
			lines = append(lines, line{v.Path, v.Value, v.Source.String()})
		}
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(lines)
	}
	return fmt.Errorf("--output %s: expected text or json", output)
}
