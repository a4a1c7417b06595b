package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// reachableDevice is a device that can be reached now.
type reachableDevice struct {
	Device    string     `json:"device-id"`
	Reachable *bool      `json:"reachable,omitempty"` // asked of one device only
	Via       string     `json:"via,omitempty"`       // gateway
	Adapter   string     `json:"adapter,omitempty"`
	Since     *time.Time `json:"since,omitempty"`
	Until     *time.Time `json:"until,omitempty"` // nil = until further notice
	Gateway   bool       `json:"gateway,omitempty"`
}

// reachablePage is a part of a list.
type reachablePage struct {
	Result []json.RawMessage `json:"result"`
	Next   string            `json:"next"` // "" = this was the last one
}

func newDeviceReachableCommand() *cobra.Command {
	var output string
	var limit int
	cmd := &cobra.Command{
		Use:   "reachable TENANT [DEVICE]",
		Short: "Show which devices can be reached with a command now",
		Long: `Show which devices of a tenant are subscribed to commands, or wait for one after
an upload with a ttd: through which adapter, since when, and until when, where
that is known. GATEWAY yes is a gateway that takes commands for all its devices.
Of one DEVICE it says also through which gateway it can be reached.

Where routers are processes of their own, ask one of them: --url then is that of
its ingress listener, such as https://router:8445.

With -o json one object a line is printed, as the management API gives it.

Exit code 0: the list was printed, or DEVICE can be reached. Exit code 1: DEVICE
cannot be reached, or the question failed, which standard error tells.`,
		Example: `  sluice device reachable DEMO
  sluice device reachable DEMO 4711 && sluice command DEMO 4711 reboot --one-way`,
		Args:              namesArgs(1, 2),
		ValidArgsFunction: completeTenantDevice(2),
	}
	cmd.Flags().IntVar(&limit, "limit", 0, "how many at most (default all)")
	outputFlag(cmd, &output)
	return managed(cmd, func(cmd *cobra.Command, c *managementClient, args []string) error {
		asJSON, err := checkOutput(output)
		if err != nil {
			return err
		}
		if limit < 0 {
			return fmt.Errorf("--limit %d: expected 1 or more, or 0 for all", limit)
		}
		if len(args) == 2 {
			return reachableOne(cmd, c, args, asJSON)
		}
		return reachableAll(cmd, c, args[0], limit, asJSON)
	})
}

func reachableOne(cmd *cobra.Command, c *managementClient, args []string, asJSON bool) error {
	var text json.RawMessage
	if err := c.getJSON(cmd.Context(), escaped("/v1/reachable", args), nil, &text); err != nil {
		return reachableError(c, strings.Join(args, "/"), err)
	}
	var d reachableDevice
	if err := json.Unmarshal(text, &d); err != nil || d.Reachable == nil {
		return fmt.Errorf("%s answers what is not expected: does its version know which devices can be reached?", c.base.Host)
	}
	if asJSON {
		if err := printJSON(cmd.OutOrStdout(), text); err != nil {
			return err
		}
	}
	if !*d.Reachable {
		return fmt.Errorf("%s cannot be reached: it is not connected or not subscribed to commands", args[1])
	}
	if asJSON {
		return nil
	}
	via := ""
	if d.Via != "" {
		via = " via " + oneLine(d.Via)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s can be reached%s through %s since %s until %s\n", args[1], via, oneLine(d.Adapter), shortTime(d.Since, "-"), shortTime(d.Until, "further notice"))
	return err
}

// reachablePageSize is how many are asked for at a time.
const reachablePageSize = 1000

func reachableAll(cmd *cobra.Command, c *managementClient, tenant string, limit int, asJSON bool) error {
	var rows [][]string
	query := url.Values{}
	for left := limit; ; {
		size := reachablePageSize
		if limit > 0 {
			size = min(size, left)
		}
		query.Set("max", strconv.Itoa(size))
		var page reachablePage
		if err := c.getJSON(cmd.Context(), escaped("/v1/reachable", []string{tenant}), query, &page); err != nil {
			return reachableError(c, tenant, err)
		}
		if len(page.Result) == 0 && !query.Has("after") {
			if err := missingTenant(cmd.Context(), c, tenant); err != nil {
				return err
			}
		}
		for _, text := range page.Result {
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), text); err != nil {
					return err
				}
				continue
			}
			var d reachableDevice
			if err := json.Unmarshal(text, &d); err != nil {
				return fmt.Errorf("%s answers what is not expected: %w", c.base.Host, err)
			}
			rows = append(rows, d.row())
		}
		left -= len(page.Result)
		if page.Next == "" || page.Next == query.Get("after") || limit > 0 && left <= 0 {
			break
		}
		query.Set("after", page.Next)
	}
	if asJSON {
		return nil
	}
	return printReachable(cmd.OutOrStdout(), rows)
}

// reachableError says what could not be asked. A management API without a router
// in its process does not have the resource.
func reachableError(c *managementClient, what string, err error) error {
	var e *apiError
	if errors.As(err, &e) && e.status == http.StatusNotFound && e.text == "no such resource" {
		return fmt.Errorf("%s does not know which devices can be reached (404): where routers are processes of their own, one has to be asked, at its ingress listener, such as --url https://127.0.0.1:8445", c.base.Host)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// missingTenant is an error when the tenant does not exist: who is asked for the
// list knows only who can be reached. Not every one that has the list has tenants.
func missingTenant(ctx context.Context, c *managementClient, tenant string) error {
	_, err := c.call(ctx, apiRequest{method: http.MethodGet, path: escaped("/v1/tenants", []string{tenant})})
	var e *apiError
	if errors.As(err, &e) && e.status == http.StatusNotFound && strings.Contains(e.text, "tenant") {
		return fmt.Errorf("%s: %w", tenant, err)
	}
	return nil
}

func printReachable(out io.Writer, rows [][]string) error {
	return printTable(out, []string{"DEVICE", "ADAPTER", "SINCE", "UNTIL", "GATEWAY"}, rows)
}

func (d *reachableDevice) row() []string {
	return []string{oneLine(d.Device), brief(d.Adapter, 60), shortTime(d.Since, "-"), shortTime(d.Until, "-"), yesNo(d.Gateway)}
}

// shortTime is a time to the second, in UTC.
func shortTime(t *time.Time, none string) string {
	if t == nil || t.IsZero() {
		return none
	}
	return t.UTC().Format(time.RFC3339)
}
