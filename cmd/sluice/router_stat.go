package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-iot/sluice/router/manage"
)

// table is how one type of entity is shown to people.
type table struct {
	word, kind string
	columns    []column // none = one line per attribute
}

type column struct {
	title, attribute string
	form             func(any) string // nil = as it is
}

var tables = []table{
	{word: "router", kind: "router"},
	{word: "listeners", kind: "listener", columns: []column{
		{"ADDRESS", "address", nil}, {"ROLE", "role", nil}, {"TLS", "isEncrypted", yes}, {"MECHANISMS", "saslMechanisms", words},
		{"OPEN", "connectionCount", nil}, {"ACCEPTED", "acceptedCount", nil}}},
	{word: "connections", kind: "connection", columns: []column{
		{"ID", "identity", nil}, {"USER", "user", nil}, {"KIND", "kind", nil}, {"CONTAINER", "container", nil}, {"HOST", "host", nil},
		{"SASL", "sasl", nil}, {"TLS", "isEncrypted", yes}, {"SESSIONS", "sessionCount", nil}, {"LINKS", "linkCount", nil},
		{"UNSETTLED", "unsettledCount", nil}, {"IN", "bytesIn", size}, {"OUT", "bytesOut", size}, {"UP", "uptimeSeconds", seconds}}},
	{word: "links", kind: "link", columns: []column{
		{"ID", "identity", nil}, {"DIR", "linkDir", nil}, {"ADDRESS", "owningAddr", orAnonymous}, {"USER", "user", nil}, {"CREDIT", "credit", nil},
		{"UNSETTLED", "unsettledCount", nil}, {"DELIVERIES", "deliveryCount", nil}, {"SND", "sndSettleMode", nil}, {"RCV", "rcvSettleMode", nil},
		{"NAME", "linkName", nil}}},
	{word: "addresses", kind: "address", columns: []column{
		{"ADDRESS", "identity", nil}, {"DISTRIBUTION", "distribution", nil}, {"SENDERS", "senderCount", nil}, {"RECEIVERS", "receiverCount", nil},
		{"SURPLUS", "surplusCount", nil}, {"CREDIT", "givenCredit", nil}, {"FORWARDED", "forwardedCount", nil}, {"REJECTED", "rejectedCount", nil},
		{"RELEASED", "releasedCount", nil}, {"DROPPED", "droppedCount", nil}, {"OVERRUN", "overrunCount", nil}}},
	{word: "identities", kind: "identity", columns: []column{
		{"NAME", "identity", nil}, {"KIND", "kind", nil}, {"CONNECTIONS", "connectionCount", nil}, {"MAX", "maxConnections", nil},
		{"AUTHORITIES", "authorities", words}}},
}

func tableOf(word string) *table {
	for i := range tables {
		if tables[i].word == word {
			return &tables[i]
		}
	}
	return nil
}

func newRouterStatCommand() *cobra.Command {
	var f routerFlags
	var output string
	var known []string
	for _, t := range tables {
		known = append(known, t.word)
	}
	cmd := &cobra.Command{
		Use:   "stat [" + strings.Join(known, "|") + "]",
		Short: "Show what a running router has: itself, or one of the lists",
		Long:  "Show what a running router has. The numbers of deliveries count from when the router,\nthe address or the link came to be.\n" + routerFlagsHelp,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 1 && !slices.Contains(known, args[0]) {
				return fmt.Errorf("%q: expected one of %s, as in: sluice router stat connections", strings.Join(args, " "), strings.Join(known, ", "))
			}
			return nil
		},
		ValidArgs: known,
		RunE: func(cmd *cobra.Command, args []string) error {
			asJSON, err := checkOutput(output)
			if err != nil {
				return err
			}
			t := &tables[0]
			if len(args) == 1 {
				t = tableOf(args[0])
			}
			if err := f.complete(); err != nil {
				return err
			}
			m, err := f.open(cmd.Context())
			if err != nil {
				return err
			}
			defer m.close()
			names, rows, err := m.entities(cmd.Context(), t.kind)
			if err != nil {
				return err
			}
			if asJSON {
				return printEntities(cmd.OutOrStdout(), names, rows)
			}
			return t.print(cmd.OutOrStdout(), names, rows)
		},
	}
	f.add(cmd.Flags())
	outputFlag(cmd, &output)
	return cmd
}

func newRouterCloseCommand() *cobra.Command {
	var f routerFlags
	cmd := &cobra.Command{
		Use:   "close-connection ID",
		Short: "Close one connection of a running router",
		Long: "Close one connection of a running router with amqp:connection:forced. IDs are those of\n" +
			"`sluice router stat connections`; none is used twice while the router runs.\n" + routerFlagsHelp,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("expected the ID of a connection, as sluice router stat connections shows it")
			}
			if _, err := strconv.ParseUint(args[0], 10, 64); err != nil {
				return fmt.Errorf("%q is no ID of a connection: expected a number, as sluice router stat connections shows it", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.complete(); err != nil {
				return err
			}
			m, err := f.open(cmd.Context())
			if err != nil {
				return err
			}
			defer m.close()
			_, err = m.ask(cmd.Context(), map[string]any{"operation": manage.Delete, "type": "connection", "identity": args[0]}, nil)
			if hasStatus(err, http.StatusForbidden) {
				return f.grantable(fmt.Errorf("%s may not close connections: %w", f.user, err), mayClose)
			}
			return err
		},
	}
	f.add(cmd.Flags())
	return cmd
}

// printEntities writes one JSON object per entity, its attributes in their order.
func printEntities(w io.Writer, names []string, rows [][]any) error {
	out := bytes.NewBufferString("[")
	for i, row := range rows {
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteString("\n  {")
		for k, name := range names {
			if k > 0 {
				out.WriteString(", ")
			}
			key, _ := json.Marshal(name)
			value, err := json.Marshal(row[k])
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			fmt.Fprintf(out, "%s: %s", key, value)
		}
		out.WriteByte('}')
	}
	out.WriteString("\n]\n")
	_, err := io.WriteString(w, escapeJSON(out.String()))
	return err
}

func (t *table) print(w io.Writer, names []string, rows [][]any) error {
	var lines [][]string
	if len(t.columns) == 0 {
		for _, row := range rows {
			for i, name := range names {
				lines = append(lines, []string{name, cell(row[i], nil)})
			}
		}
		return printRows(w, lines)
	}
	titles := make([]string, len(t.columns))
	for i, c := range t.columns {
		titles[i] = c.title
	}
	for _, row := range rows {
		cells := make([]string, len(t.columns))
		for i, c := range t.columns {
			if at := slices.Index(names, c.attribute); at >= 0 {
				cells[i] = cell(row[at], c.form)
			}
		}
		lines = append(lines, cells)
	}
	return printTable(w, titles, lines)
}

// cell is a value on one line, whatever a peer put into it.
func cell(v any, form func(any) string) string {
	if form != nil {
		return oneLine(form(v))
	}
	switch v := v.(type) {
	case nil:
		return "-"
	case string:
		if v == "" {
			return "-"
		}
		return oneLine(v)
	case time.Time:
		return v.Local().Format(time.RFC3339)
	}
	return oneLine(fmt.Sprint(v))
}

func yes(v any) string {
	if v == true {
		return "yes"
	}
	return "no"
}

func orAnonymous(v any) string {
	if s, _ := v.(string); s != "" {
		return s
	}
	return "(anonymous)"
}

func words(v any) string {
	var out []string
	for _, e := range asList(v) {
		out = append(out, fmt.Sprint(e))
	}
	if len(out) == 0 {
		return "-"
	}
	return strings.Join(out, ", ")
}

func seconds(v any) string {
	n, _ := v.(int64)
	return (time.Duration(n) * time.Second).String()
}

// size is a number of bytes with a unit.
func size(v any) string {
	n, _ := v.(int64)
	if n < 1024 {
		return strconv.FormatInt(n, 10)
	}
	f, unit := float64(n)/1024, 0
	for f >= 1024 && unit < 3 {
		f, unit = f/1024, unit+1
	}
	return fmt.Sprintf("%.1f%ciB", f, "KMGT"[unit])
}
