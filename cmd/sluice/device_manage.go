package main

import "github.com/spf13/cobra"

// devices is how devices are managed.
var devices = &resource{
	kind: "device", names: 2, use: "TENANT DEVICE", example: "DEMO meter-1",
	path: func(args []string) string { return escaped("/v1/devices", args) },
	lists: []listFlag{
		{flag: "via", member: "via"}, {flag: "via-groups", member: "viaGroups"},
		{flag: "member-of", member: "memberOf"}, {flag: "authority", member: "authorities"},
	},
	heading: []string{"DEVICE", "ENABLED", "VIA", "MEMBER OF", "EXT"},
	row: func(o object) []string {
		return []string{brief(o["id"], 60), enabledWord(o), brief(o["via"], 30), brief(o["memberOf"], 30), brief(o["ext"], 50)}
	},
}

func newDeviceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "device",
		Short: "Manage the devices of a tenant, one or many, and see which can be reached",
		Long: `Manage the devices of a tenant through the management API of an installation:
create, get, list, update and delete them; import and export many; and see which
can be reached with a command. What a device logs in with are its credentials:
sluice credentials`,
	}
	cmd.AddCommand(devices.createCommand(), devices.getCommand(), devices.listCommand(), devices.updateCommand(),
		devices.deleteCommand(" with its credentials", "Its credentials go with it, and its connections are closed."), newDeviceReachableCommand(), newDeviceImportCommand(), newDeviceExportCommand())
	return cmd
}
