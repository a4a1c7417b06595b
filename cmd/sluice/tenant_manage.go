package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// tenants is how tenants are managed.
var tenants = &resource{
	kind: "tenant", names: 1, use: "TENANT", example: "ACME",
	path:    func(args []string) string { return escaped("/v1/tenants", args) },
	extra:   tenantFlags,
	heading: []string{"TENANT", "ENABLED", "ALIAS", "ADAPTERS", "EXT"},
	row: func(o object) []string {
		return []string{brief(o["id"], 60), enabledWord(o), brief(o["alias"], 30), adapterNames(o["adapters"]), brief(o["ext"], 50)}
	},
}

// adapterNames are the adapters that a tenant's devices may use.
func adapterNames(v any) string {
	list, ok := v.([]any)
	if !ok {
		return "all"
	}
	var names []any
	for _, e := range list {
		if a, _ := e.(object); a["enabled"] == true {
			names = append(names, a["type"])
		}
	}
	if names == nil {
		return "none"
	}
	return brief(names, 50)
}

func newTenantCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tenant",
		Short: "Manage tenants, and move a whole one to a file and back",
		Long: `Manage the tenants of an installation through its management API: create, get,
list, update and delete them, and move one with its devices and credentials to
a file and back.`,
	}
	cmd.AddCommand(tenants.createCommand(), tenants.getCommand(), tenants.listCommand(), tenants.updateCommand(),
		tenants.deleteCommand("", "Its devices can no longer log in or be read. They are there again when a tenant of that id is made, unless\n"+
			"they are deleted, too: sluice device delete TENANT --all"),
		newTenantExportCommand(), newTenantImportCommand())
	return cmd
}

// tenantFlags declares what only tenants have.
func tenantFlags(cmd *cobra.Command) func(object) error {
	var alias string
	var adapters []string
	cmd.Flags().StringVar(&alias, "alias", "", "another `name` of the tenant, of lower-case letters, digits and -")
	cmd.Flags().StringSliceVar(&adapters, "adapter", nil, "`type` of an adapter that its devices may use, such as hono-mqtt; repeatable (default all)")
	return func(o object) error {
		if cmd.Flags().Changed("alias") {
			if o["alias"] = alias; alias == "" {
				o["alias"] = nil
			}
		}
		if !cmd.Flags().Changed("adapter") {
			return nil
		}
		var list []any
		for _, a := range adapters {
			if a == "" {
				return fmt.Errorf("--adapter: expected a type such as hono-http")
			}
			list = append(list, object{"type": a, "enabled": true, "device-authentication-required": true})
		}
		o["adapters"] = list
		return nil
	}
}
