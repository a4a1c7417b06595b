package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// listFlags say what is listed, and how.
type listFlags struct {
	filters, sort []string
	limit         int
	all           bool
	output        string
}

func (f *listFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.filters, "filter", nil, "`field=value`, such as ext/site=K* or enabled=true; repeatable, all have to match")
	cmd.Flags().StringArrayVar(&f.sort, "sort", nil, "`field` to sort by, such as ext/site; -ext/site for descending; repeatable (default id)")
	cmd.Flags().IntVar(&f.limit, "limit", 100, "how many at most")
	cmd.Flags().BoolVar(&f.all, "all", false, "all of them, whatever --limit says")
	outputFlag(cmd, &f.output)
}

// query is the search that is meant.
func (f *listFlags) query() (q searchQuery, err error) {
	if f.limit < 1 {
		return q, fmt.Errorf("--limit %d: expected 1 or more, or --all", f.limit)
	}
	if q.limit = f.limit; f.all {
		q.limit = 0
	}
	for _, text := range f.filters {
		filter, err := parseFilter(text)
		if err != nil {
			return q, err
		}
		q.filters = append(q.filters, filter)
	}
	for _, field := range f.sort {
		direction := "asc"
		if rest, ok := strings.CutPrefix(field, "-"); ok {
			field, direction = rest, "desc"
		}
		if field == "" {
			return q, fmt.Errorf("--sort: expected a field, such as ext/site")
		}
		q.sort = append(q.sort, compact(map[string]string{"field": pointer(field), "direction": direction}))
	}
	return q, nil
}

// parseFilter makes a filter of the API of field=value. A value that is a
// number or a boolean is one; in quotes it is text.
func parseFilter(text string) (string, error) {
	field, value, ok := strings.Cut(text, "=")
	if !ok || field == "" {
		return "", fmt.Errorf("--filter %q: expected field=value, such as ext/site=Kiel", text)
	}
	v := jsonOrText(value)
	switch v.(type) {
	case bool, json.Number, string:
	default:
		v = value
	}
	return compact(map[string]any{"field": pointer(field), "value": v}), nil
}

// pointer is the JSON pointer that a field stands for.
func pointer(field string) string {
	if strings.HasPrefix(field, "/") {
		return field
	}
	return "/" + field
}

const listHelp = `

--filter compares a field, which is the path to a value such as ext/site, via or
id. In text * stands for any run of characters, ? for one. true, false and
numbers are compared as such, in double quotes as text. A list matches by any of
its elements. A field that the installation has no index for (registry.indexes)
costs reading all, again for every 200 results.

With -o json one object a line is printed, as the management API gives it.`

func (r *resource) listCommand() *cobra.Command {
	var f listFlags
	var gateways bool
	scope, in := r.use[:strings.LastIndexByte(r.use, ' ')+1], r.example[:strings.LastIndexByte(r.example, ' ')+1]
	cmd := &cobra.Command{
		Use:   strings.TrimSpace("list " + scope),
		Short: "List " + r.kind + "s",
		Long:  "List " + r.kind + "s, sorted by their ids, 100 at most unless --limit or --all says otherwise. Without any there\nis only the heading, and the exit code is 0." + listHelp,
		Example: strings.ReplaceAll("  sluice "+r.kind+" list "+in+"\n"+
			"  sluice "+r.kind+" list "+in+"--filter 'ext/site=K*' --sort -ext/floor --all -o json", " \n", "\n"),
		Args:              namesArgs(r.names-1, r.names-1),
		ValidArgsFunction: completeTenantDevice(r.names - 1),
	}
	f.add(cmd)
	if r.names > 1 {
		cmd.Flags().BoolVar(&gateways, "gateways", false, "only gateways; --gateways=false: only other devices")
	}
	return managed(cmd, func(cmd *cobra.Command, c *managementClient, args []string) error {
		asJSON, err := checkOutput(f.output)
		if err != nil {
			return err
		}
		q, err := f.query()
		if err != nil {
			return err
		}
		if flag := cmd.Flags().Lookup("gateways"); flag != nil && flag.Changed {
			q.gateways = flag.Value.String()
		}
		var rows [][]string
		shown := 0
		total, err := c.search(cmd.Context(), r.path(args), q, func(_ int, page []json.RawMessage) error {
			shown += len(page)
			for _, text := range page {
				if asJSON {
					if err := printJSON(cmd.OutOrStdout(), text); err != nil {
						return err
					}
					continue
				}
				o, err := decodeObject(text)
				if err != nil {
					return err
				}
				rows = append(rows, r.row(o))
			}
			return nil
		})
		if err != nil {
			if len(args) > 0 {
				return fmt.Errorf("list %ss of %s: %w", r.kind, args[0], err)
			}
			return fmt.Errorf("list %ss: %w", r.kind, err)
		}
		if !asJSON {
			if err := printTable(cmd.OutOrStdout(), r.heading, rows); err != nil {
				return err
			}
		}
		if shown < total {
			fmt.Fprintf(cmd.ErrOrStderr(), "%d of %s; --all or --limit shows more\n", shown, counted(total, r.kind))
		}
		return nil
	})
}

// enabledWord is the effective value of enabled.
func enabledWord(o object) string {
	on, ok := o["enabled"].(bool)
	return yesNo(on || !ok)
}

// brief is a member for a column, - where there is none.
func brief(v any, most int) string {
	if v == nil {
		return "-"
	}
	if text := short(inWords(v), most); text != "" {
		return text
	}
	return "-"
}
