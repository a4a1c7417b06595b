package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sluice-iot/sluice/cmd/internal/identity"
	"github.com/sluice-iot/sluice/internal/config"
)

func newRegistryCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "registry", Short: "Look after the store of tenants, devices and credentials"}
	cmd.AddCommand(newRegistryMaintainCommand())
	return cmd
}

func newRegistryMaintainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "maintain",
		Short: "Do what the store has left for later",
		Long: "Open the store of the configuration and do what it has left for later: in DynamoDB, remove what\n" +
			"deleted devices left, and complete indexes (registry.indexes) that were declared when\n" +
			"there were devices already. It may run beside everything else, be interrupted and run again. Before\n" +
			"it completes an index, restart the processes that write with the new registry.indexes.\n\n" +
			"SQLite and Postgres leave nothing for later: their indexes are completed when the store is opened.\n" +
			"The file of SQLite can be opened only while no other process has its data folder.",
		Example: "  sluice registry maintain --set registry.store=dynamodb --set registry.table=sluice",
		Args:    noArgs,
	}
	s := addSettings(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		loaded, err := s.Load(nil, true)
		if err != nil {
			return err
		}
		data, err := openRegistryData(&loaded.Config)
		if err != nil {
			return err
		}
		if data != nil {
			defer data.Close()
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%-17s%s\n", "store", loaded.Registry.Store)
		return identity.Maintain(cmd.Context(), &loaded.Config, data, func(what, state string) {
			fmt.Fprintf(cmd.OutOrStdout(), "%-17s%s\n", what, state)
		})
	}
	return cmd
}

// openRegistryData locks the data folder where the store is in it, nil elsewhere.
func openRegistryData(cfg *config.Config) (*config.DataFolder, error) {
	if cfg.Registry.Store != "sqlite" {
		return nil, nil
	}
	file := filepath.Join(cfg.Data, "registry.db")
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no registry at %s: name the installation with --data, or the store with --config", file)
	}
	data, err := config.OpenData(cfg.Data)
	if err != nil {
		return nil, fmt.Errorf("%w; the store sqlite is for one process: stop that one, which does the same by itself when it starts", err)
	}
	return data, nil
}
