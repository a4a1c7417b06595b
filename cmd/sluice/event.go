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

// eventCommand completes a command that asks the management API.
func eventCommand(cmd *cobra.Command, run func(ctx context.Context, c *managementClient, args []string, out io.Writer) error) *cobra.Command {
	cmd.ValidArgsFunction = completeTenantDevice(1)
	return managed(cmd, func(cmd *cobra.Command, c *managementClient, args []string) error {
		return run(cmd.Context(), c, args, cmd.OutOrStdout())
	})
}

func newEventStatCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "stat TENANT",
		Short:   "Count a tenant's events",
		Long:    "Count the events of a tenant that wait to be taken, and its dead letters, in all and by partition.",
		Example: "  sluice event stat DEMO",
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what the API answers")
	return eventCommand(cmd, func(ctx context.Context, c *managementClient, args []string, out io.Writer) error {
		var s eventstore.Stats
		text, err := c.events(ctx, http.MethodGet, args[0], nil, nil, &s)
		if err != nil || asJSON {
			_, _ = out.Write(text)
			return err
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
	var dead, asJSON bool
	var limit int
	cmd := &cobra.Command{
		Use:     "list TENANT [PARTITION]",
		Short:   "Look at a tenant's events without taking them",
		Long:    "Look at the events of a tenant that wait, or with --dead at its dead letters, in one partition or in all.",
		Example: "  sluice event list DEMO --dead",
		Args:    cobra.RangeArgs(1, 2),
	}
	cmd.Flags().BoolVar(&dead, "dead", false, "dead letters")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print each event as the API answers it, one a line")
	cmd.Flags().IntVar(&limit, "max", 100, "how many at most")
	return eventCommand(cmd, func(ctx context.Context, c *managementClient, args []string, out io.Writer) error {
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
		for _, partition := range partitions {
			for from := uint64(1); from > 0 && limit > 0; {
				query := url.Values{"dead": {strconv.FormatBool(dead)}, "from": {strconv.FormatUint(from, 10)}, "max": {strconv.Itoa(min(limit, 1000))}}
				var page api.EventsRead
				if _, err := c.events(ctx, http.MethodGet, args[0]+"/"+partition, query, nil, &page); err != nil {
					return err
				}
				for i := range page.Events {
					showEvent(out, partition, &page.Events[i], asJSON)
				}
				from, limit = page.Next, limit-len(page.Events)
			}
		}
		return nil
	})
}

// showEvent prints one line.
func showEvent(out io.Writer, partition string, e *api.EventRead, asJSON bool) {
	if asJSON {
		text, _ := json.Marshal(struct {
			Partition string `json:"partition"`
			*api.EventRead
		}{partition, e})
		fmt.Fprintf(out, "%s\n", text)
		return
	}
	fmt.Fprintf(out, "%s %d %s %s attempts=%d", partition, e.Position, e.At.Format(time.RFC3339), e.DeviceID, e.Attempts)
	if e.Reason != "" {
		fmt.Fprintf(out, " reason=%q", e.Reason)
	}
	if e.ContentType != "" {
		fmt.Fprintf(out, " %s", e.ContentType)
	}
	const shown = 80
	if text := e.Payload; utf8.Valid(text) && len(text) <= shown {
		fmt.Fprintf(out, " %q\n", text)
	} else {
		fmt.Fprintf(out, " %d bytes\n", len(text))
	}
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
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&partition, "partition", "", "of one `partition` only")
	cmd.Flags().StringSliceVar(&positions, "position", nil, "these `positions` only, by commas")
	return eventCommand(cmd, func(ctx context.Context, c *managementClient, args []string, out io.Writer) error {
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
		return c.untilDone(ctx, out, "requeued", func(done *api.EventsDone) error {
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
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&dead, "dead", false, "dead letters, not what waits")
	cmd.Flags().BoolVar(&yes, "yes", false, "do it: nothing brings them back")
	return eventCommand(cmd, func(ctx context.Context, c *managementClient, args []string, out io.Writer) error {
		if !yes {
			return fmt.Errorf("nothing brings purged events back: repeat the command with --yes")
		}
		return c.untilDone(ctx, out, "purged", func(done *api.EventsDone) error {
			_, err := c.events(ctx, http.MethodDelete, args[0], url.Values{"dead": {strconv.FormatBool(dead)}}, nil, done)
			return err
		})
	})
}

// untilDone repeats a request while there is more to do.
func (c *managementClient) untilDone(ctx context.Context, out io.Writer, what string, do func(*api.EventsDone) error) error {
	sum := int64(0)
	for more := true; more && ctx.Err() == nil; {
		var done api.EventsDone
		if err := do(&done); err != nil {
			return fmt.Errorf("after %d events: %w", sum, err)
		}
		sum, more = sum+done.Events, done.More
	}
	fmt.Fprintf(out, "%s %s\n", what, counted(int(sum), "event"))
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
