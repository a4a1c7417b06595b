package main

import (
	"context"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// completionTimeout is how long the shell waits for names from the API.
const completionTimeout = 2 * time.Second

// completionNames is how many names the shell is given.
const completionNames = 100

// completeFunc completes an argument of a command.
type completeFunc = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective)

// completeTenantDevice completes a tenant, and with most above 1 a device of it:
// the first two arguments. Later ones are files.
func completeTenantDevice(most int) completeFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		switch {
		case len(args) == 0:
			return completeName(cmd, "/v1/tenants", begun)
		case len(args) == 1 && most > 1:
			return completeName(cmd, "/v1/devices/"+url.PathEscape(args[0]), begun)
		}
		return nil, cobra.ShellCompDirectiveDefault
	}
}

// completeDevices completes a tenant and any number of its devices.
func completeDevices(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return completeName(cmd, "/v1/devices/"+url.PathEscape(args[0]), begun)
	}
	return completeName(cmd, "/v1/tenants", begun)
}

// completeConsume completes the kind of messages and a tenant.
func completeConsume(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return []string{"telemetry", "event"}, cobra.ShellCompDirectiveNoFileComp
	case 1:
		return completeName(cmd, "/v1/tenants", begun)
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// completeName asks the management API for ids. Whatever goes wrong, there are
// none: a shell is no place for errors.
func completeName(cmd *cobra.Command, path, begun string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	client := completionClient(cmd)
	if client == nil {
		return nil, none
	}
	defer client.close()
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	query := url.Values{"pageSize": {strconv.Itoa(completionNames)}}
	if begun != "" && !strings.ContainsAny(begun, "*?") {
		filter, _ := json.Marshal(map[string]string{"field": "/id", "value": begun + "*"})
		query.Set("filterJson", string(filter))
	}
	var page searchPage
	if err := client.getJSON(ctx, path, query, &page); err != nil {
		return nil, none
	}
	var names []string
	for _, r := range page.Result {
		if id := idOf(r); strings.HasPrefix(id, begun) {
			names = append(names, id)
		}
	}
	return names, none
}

// completionClient asks where the command would; nil where nobody is known there.
// A command for applications has other flags: of them only --data counts.
func completionClient(cmd *cobra.Command) *managementClient {
	var f managementFlags
	text := func(name string) string {
		if flag := cmd.Flags().Lookup(name); flag != nil {
			return flag.Value.String()
		}
		return ""
	}
	f.data = text("data")
	if given := text("url"); !strings.HasPrefix(given, "amqp") {
		f.url, f.user, f.password, f.ca = given, text("user"), text("password"), text("ca")
	}
	client, err := f.open()
	if err != nil {
		return nil
	}
	return client
}
