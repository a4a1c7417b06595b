package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/sluice-iot/sluice/functions/management/api"
	"github.com/sluice-iot/sluice/internal/eventstore"
)

func newEventCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "event", Short: "Look at the events that wait for applications, and at those that nobody takes"}
	cmd.AddCommand(newEventStatCommand(), newEventListCommand(), newEventRequeueCommand(), newEventPurgeCommand())
	return cmd
}

// eventCommand completes a command that asks the management API, with a tenant and
// at most so many arguments.
func eventCommand(cmd *cobra.Command, most int, run func(ctx context.Context, c *managementClient, args []string, out io.Writer) error) *cobra.Command {
	cmd.ValidArgsFunction = completeTenantDevice(1)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) < 1 || len(args) > most {
			return wrongNumber(cmd, args)
		}
		return checkName("tenant", args[0])
	}
	return managed(cmd, func(cmd *cobra.Command, c *managementClient, args []string) error {
		return run(cmd.Context(), c, args, cmd.OutOrStdout())
	})
}

func newEventStatCommand() *cobra.Command {
	var f eventOutput
	cmd := &cobra.Command{
		Use:     "stat TENANT",
		Short:   "Count a tenant's events",
		Long:    "Count the events of a tenant that wait to be taken, and its dead letters, in all and by partition.",
		Example: "  sluice event stat DEMO\n  sluice event stat DEMO -o json",
	}
	f.add(cmd)
	return eventCommand(cmd, 1, func(ctx context.Context, c *managementClient, args []string, out io.Writer) error {
		asJSON, err := f.check()
		if err != nil {
			return err
		}
		var s eventstore.Stats
		text, err := c.events(ctx, http.MethodGet, args[0], nil, nil, &s)
		if err == nil && s.Waiting+s.InFlight+s.DeadLetters == 0 {
			err = missingTenant(ctx, c, args[0])
		}
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(out, text)
		}
		t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(t, "PARTITION\tWAITING\tIN FLIGHT\tBYTES\tDEAD LETTERS\tOLDEST\t")
		row := func(name string, waiting, inFlight, size, dead int64, oldest *time.Time) {
			age := "-"
			if oldest != nil {
				age = time.Since(*oldest).Truncate(time.Second).String()
			}
			fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%s\t\n", name, waiting, inFlight, size, dead, age)
		}
		for i := range s.Partitions {
			p := &s.Partitions[i]
			row(p.Partition.String(), p.Waiting, p.InFlight, p.Bytes, p.DeadLetters, p.Oldest)
		}
		row("all", s.Waiting, s.InFlight, s.Bytes, s.DeadLetters, s.Oldest)
		return t.Flush()
	})
}

func newEventListCommand() *cobra.Command {
	var dead bool
	var f eventOutput
	var limit int
	cmd := &cobra.Command{
		Use:     "list TENANT [PARTITION]",
		Short:   "Look at a tenant's events without taking them",
		Long:    "Look at the events of a tenant that wait, or with --dead at its dead letters, in one partition or in all.",
		Example: "  sluice event list DEMO --dead",
	}
	cmd.Flags().BoolVar(&dead, "dead", false, "dead letters")
	f.add(cmd)
	cmd.Flags().IntVar(&limit, "max", 100, "how many at most")
	return eventCommand(cmd, 2, func(ctx context.Context, c *managementClient, args []string, out io.Writer) error {
		asJSON, err := f.check()
		if err != nil {
			return err
		}
		if limit < 1 {
			return fmt.Errorf("--max %d: expected 1 or more", limit)
		}
		partitions := args[1:]
		if len(partitions) == 0 {
			var s eventstore.Stats
			if _, err := c.events(ctx, http.MethodGet, args[0], nil, nil, &s); err != nil {
				return err
			}
			for i := range s.Partitions {
				partitions = append(partitions, s.Partitions[i].Partition.String())
			}
		}
		shown := 0
		for _, partition := range partitions {
			for from := uint64(1); from > 0 && limit > 0; {
				query := url.Values{"dead": {strconv.FormatBool(dead)}, "from": {strconv.FormatUint(from, 10)}, "max": {strconv.Itoa(min(limit, 1000))}}
				var page api.EventsRead
				if _, err := c.events(ctx, http.MethodGet, args[0]+"/"+partition, query, nil, &page); err != nil {
					return err
				}
				for i := range page.Events {
					if err := showEvent(out, partition, &page.Events[i], asJSON); err != nil {
						return err
					}
				}
				from, limit, shown = page.Next, limit-len(page.Events), shown+len(page.Events)
			}
		}
		if shown == 0 {
			return missingTenant(ctx, c, args[0])
		}
		return nil
	})
}

// showEvent prints one line.
func showEvent(out io.Writer, partition string, e *api.EventRead, asJSON bool) error {
	if asJSON {
		return encodeJSON(out, struct {
			Partition string `json:"partition"`
			*api.EventRead
		}{partition, e})
	}
	line := fmt.Sprintf("%s %d %s %s attempts=%d", partition, e.Position, e.At.Format(time.RFC3339), oneLine(string(e.DeviceID)), e.Attempts)
	if e.Reason != "" {
		line += fmt.Sprintf(" reason=%q", e.Reason)
	}
	if e.ContentType != "" {
		line += " " + oneLine(e.ContentType)
	}
	const shown = 80
	if text := e.Payload; utf8.Valid(text) && len(text) <= shown {
		line += fmt.Sprintf(" %q", text)
	} else {
		line += fmt.Sprintf(" %d bytes", len(text))
	}
	_, err := fmt.Fprintln(out, line)
	return err
}

// eventOutput is how events are printed: --json is the older name of -o json.
type eventOutput struct {
	output string
	json   bool
}

func (f *eventOutput) add(cmd *cobra.Command) {
	outputFlag(cmd, &f.output)
	cmd.Flags().BoolVar(&f.json, "json", false, "the same as -o json")
}

func (f *eventOutput) check() (asJSON bool, err error) {
	asJSON, err = checkOutput(f.output)
	return asJSON || f.json, err
}

func newEventRequeueCommand() *cobra.Command {
	var partition string
	var positions []string
	cmd := &cobra.Command{
		Use:   "requeue TENANT",
		Short: "Deliver dead letters again",
		Long: "Make dead letters of a tenant events again, behind those that wait: all of them, those of one\n" +
			"partition, or single ones of it. What has expired meanwhile is thrown away.",
		Example: "  sluice event requeue DEMO\n  sluice event requeue DEMO --partition 0-5 --position 17",
	}
	cmd.Flags().StringVar(&partition, "partition", "", "of one `partition` only")
	cmd.Flags().StringSliceVar(&positions, "position", nil, "these `positions` only, by commas")
	return eventCommand(cmd, 1, func(ctx context.Context, c *managementClient, args []string, out io.Writer) error {
		body := map[string]any{}
		if partition != "" {
			body["partition"] = partition
		}
		if len(positions) > 0 {
			list := make([]uint64, len(positions))
			for i, text := range positions {
				n, err := strconv.ParseUint(text, 10, 64)
				if err != nil {
					return fmt.Errorf("--position %q: expected a number", text)
				}
				list[i] = n
			}
			body["positions"] = list
		}
		var send any // nothing = all
		if len(body) > 0 {
			send = body
		}
		return c.untilDone(ctx, out, args[0], "requeued", func(done *api.EventsDone) error {
			_, err := c.events(ctx, http.MethodPost, args[0]+"/requeue", nil, send, done)
			return err
		})
	})
}

func newEventPurgeCommand() *cobra.Command {
	var dead, yes bool
	cmd := &cobra.Command{
		Use:   "purge TENANT --yes",
		Short: "Throw a tenant's events away",
		Long: "Throw away all events of a tenant that wait to be taken, or with --dead its dead letters. What\n" +
			"applications have at that moment they keep.",
		Example: "  sluice event purge DEMO --dead --yes",
	}
	cmd.Flags().BoolVar(&dead, "dead", false, "dead letters, not what waits")
	cmd.Flags().BoolVar(&yes, "yes", false, "do it: nothing brings them back")
	return eventCommand(cmd, 1, func(ctx context.Context, c *managementClient, args []string, out io.Writer) error {
		if !yes {
			return fmt.Errorf("nothing brings purged events back: repeat the command with --yes")
		}
		return c.untilDone(ctx, out, args[0], "purged", func(done *api.EventsDone) error {
			_, err := c.events(ctx, http.MethodDelete, args[0], url.Values{"dead": {strconv.FormatBool(dead)}}, nil, done)
			return err
		})
	})
}

// untilDone repeats a request while there is more to do.
func (c *managementClient) untilDone(ctx context.Context, out io.Writer, tenant, what string, do func(*api.EventsDone) error) error {
	sum := int64(0)
	for more := true; more && ctx.Err() == nil; {
		var done api.EventsDone
		if err := do(&done); err != nil {
			if sum == 0 {
				return err
			}
			return fmt.Errorf("after %s: %w", counted(int(sum), "event"), err)
		}
		sum, more = sum+done.Events, done.More
	}
	if sum == 0 {
		if err := missingTenant(ctx, c, tenant); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(out, "%s %s\n", what, counted(int(sum), "event")); err != nil {
		return err
	}
	return ctx.Err()
}

// events makes one request below /v1/events and decodes its answer.
func (c *managementClient) events(ctx context.Context, method, path string, query url.Values, body, into any) ([]byte, error) {
	q := apiRequest{method: method, path: "/v1/events/" + path, query: query}
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		q.body = text
	}
	reply, err := c.call(ctx, q)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(reply.body, into); err != nil {
		return nil, fmt.Errorf("%s answers what is no JSON: %v", c.base.Host, err)
	}
	return reply.body, nil
}
