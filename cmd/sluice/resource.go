package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// resource is what tenants and devices have in common as things that are
// created, read, listed, changed and deleted.
type resource struct {
	kind    string // tenant or device
	names   int    // that lead to one: 1 or 2
	use     string // of the arguments that name one
	example string // such arguments
	path    func(args []string) string
	lists   []listFlag
	extra   func(*cobra.Command) func(object) error // further flags; nil = none
	heading []string
	row     func(o object) []string
}

func (r *resource) complete() completeFunc { return completeTenantDevice(r.names) }

// label is how one is called towards a person.
func (r *resource) label(args []string) string {
	return strings.Join(args, "/")
}

func (r *resource) createCommand() *cobra.Command {
	f := objectFlags{lists: slices.Clone(r.lists)}
	var output string
	cmd := &cobra.Command{
		Use:   "create " + r.use[:strings.LastIndexByte(r.use, ' ')+1] + "[" + r.use[strings.LastIndexByte(r.use, ' ')+1:] + "]",
		Short: "Create a " + r.kind,
		Long: "Create a " + r.kind + ", with an id that is made if none is given, and print its id. What it is to have\n" +
			"comes from --file, as the management API takes it, and from the other flags, which come on top.\n" +
			"With -o json the id and the version are printed as an object.\n\n" +
			"Exit code 1 with the reason when it exists already (409), or is not valid (400).",
		Example:           "  sluice " + r.kind + " create " + r.example + " --ext site=Kiel\n  sluice " + r.kind + " create " + r.example + " --file " + r.kind + ".json",
		Args:              namesArgs(r.names-1, r.names),
		ValidArgsFunction: completeTenantDevice(r.names - 1),
	}
	f.add(cmd, r.extra)
	outputFlag(cmd, &output)
	return managed(cmd, func(cmd *cobra.Command, c *managementClient, args []string) error {
		asJSON, err := checkOutput(output)
		if err != nil {
			return err
		}
		o, err := f.object(cmd)
		if err != nil {
			return err
		}
		body, err := json.Marshal(without(o))
		if err != nil {
			return err
		}
		reply, err := c.call(cmd.Context(), apiRequest{method: http.MethodPost, path: r.path(args), body: body})
		if err != nil {
			return fmt.Errorf("create %s: %w", r.label(args), err)
		}
		id := idOf(reply.body)
		if asJSON {
			return encodeJSON(cmd.OutOrStdout(), map[string]string{"id": id, "version": reply.version})
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "created %s %s\n", r.kind, oneLine(id))
		return err
	})
}

func (r *resource) getCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "get " + r.use,
		Short: "Show a " + r.kind,
		Long: "Show a " + r.kind + ": a line for each value, with the path to it, and at last the version, which --if-match of\n" +
			"update and delete takes. With -o json it is what the management API gives, which --file takes back.\n\n" +
			"Exit code 1 when there is none.",
		Example:           "  sluice " + r.kind + " get " + r.example + "\n  sluice " + r.kind + " get " + r.example + " -o json > " + r.kind + ".json",
		Args:              namesArgs(r.names, r.names),
		ValidArgsFunction: r.complete(),
	}
	outputFlag(cmd, &output)
	return managed(cmd, func(cmd *cobra.Command, c *managementClient, args []string) error {
		asJSON, err := checkOutput(output)
		if err != nil {
			return err
		}
		reply, err := c.call(cmd.Context(), apiRequest{method: http.MethodGet, path: r.path(args)})
		if err != nil {
			return fmt.Errorf("%s: %w", r.label(args), err)
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), reply.body)
		}
		return printObject(cmd.OutOrStdout(), [][2]string{{"id", args[len(args)-1]}}, [][2]string{{"version", reply.version}}, reply.body)
	})
}

func (r *resource) updateCommand() *cobra.Command {
	f := objectFlags{lists: slices.Clone(r.lists)}
	var replace bool
	var version, output string
	cmd := &cobra.Command{
		Use:   "update " + r.use,
		Short: "Change a " + r.kind,
		Long: "Change the members of a " + r.kind + " that are given by --file and the other flags, and leave the others; null\n" +
			"removes one (JSON merge patch, RFC 7396). With --replace it has what is given afterwards, and nothing else.\n\n" +
			"The change is made to the version that was read just before, or to that of --if-match: when another\n" +
			"has changed the " + r.kind + " meanwhile, nothing is done and the exit code is 1. With -o json the id and\n" +
			"the new version are printed as an object.",
		Example: "  sluice " + r.kind + " update " + r.example + " --ext site=Kiel --ext floor=null\n" +
			"  sluice " + r.kind + " get " + r.example + " -o json | sluice " + r.kind + " update " + r.example + " --replace --file -",
		Args:              namesArgs(r.names, r.names),
		ValidArgsFunction: r.complete(),
	}
	f.add(cmd, r.extra)
	cmd.Flags().BoolVar(&replace, "replace", false, "replace the whole "+r.kind)
	cmd.Flags().StringVar(&version, "if-match", "", "change this `version` only")
	outputFlag(cmd, &output)
	return managed(cmd, func(cmd *cobra.Command, c *managementClient, args []string) error {
		asJSON, err := checkOutput(output)
		if err != nil {
			return err
		}
		o, err := f.object(cmd)
		if err != nil {
			return err
		}
		if len(o) == 0 && f.file == "" {
			return fmt.Errorf("nothing to change: give --ext, --default, --enabled, --disabled or --file")
		}
		q := apiRequest{method: http.MethodPatch, path: r.path(args), contentType: "application/merge-patch+json", ifMatch: version}
		if replace {
			q.method, q.contentType, o = http.MethodPut, "", without(o)
		}
		if q.ifMatch == "" {
			before, err := c.call(cmd.Context(), apiRequest{method: http.MethodGet, path: q.path})
			if err != nil {
				return fmt.Errorf("%s: %w", r.label(args), err)
			}
			q.ifMatch = before.version
		}
		if q.body, err = json.Marshal(o); err != nil {
			return err
		}
		reply, err := c.call(cmd.Context(), q)
		if err != nil {
			return changeError(r.label(args), err)
		}
		id := args[len(args)-1]
		if asJSON {
			return encodeJSON(cmd.OutOrStdout(), map[string]string{"id": id, "version": reply.version})
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "updated %s %s, version %s\n", r.kind, id, reply.version)
		return err
	})
}

// changeError explains why a change was not made.
func changeError(what string, err error) error {
	if hasStatus(err, http.StatusPreconditionFailed) {
		return fmt.Errorf("%s is not the expected version any more: somebody else has changed it, and nothing was done; look at it and repeat the command (412)", what)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// deleteCommand makes the command that deletes. with goes into the question that a
// person is asked, loss into the help.
func (r *resource) deleteCommand(with, loss string) *cobra.Command {
	var yes, all bool
	var version string
	cmd := &cobra.Command{
		Use:   "delete " + r.use + "...",
		Short: "Delete " + r.kind + "s",
		Long: "Delete " + r.kind + "s. A person at a terminal is asked first; elsewhere, and to be not asked, --yes is needed.\n" +
			"With --if-match one is deleted only while it has that version.\n\n" + loss + "\n\n" +
			"Exit code 1 when one of them could not be deleted; the others are.",
		Example: "  sluice " + r.kind + " delete " + r.example + " --yes",
		Args: func(cmd *cobra.Command, args []string) error {
			least := r.names
			if all {
				least = r.names - 1
			}
			if err := namesArgs(least, -1)(cmd, args); err != nil {
				return err
			}
			for _, a := range args {
				if err := checkName(r.kind, a); err != nil {
					return err
				}
			}
			if all && len(args) > least {
				return fmt.Errorf("--all deletes every %s: expected no others", r.kind)
			}
			if version != "" && (all || len(args) > r.names) {
				return fmt.Errorf("--if-match goes with one %s", r.kind)
			}
			return nil
		},
		ValidArgsFunction: completeDevices,
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().StringVar(&version, "if-match", "", "delete this `version` only")
	if r.names > 1 {
		cmd.Flags().BoolVar(&all, "all", false, "delete all "+r.kind+"s of the tenant")
	}
	return managed(cmd, func(cmd *cobra.Command, c *managementClient, args []string) error {
		scope, ids := args[:r.names-1], args[r.names-1:]
		if all || len(ids) > 1 {
			with = strings.ReplaceAll(with, " its ", " their ")
		}
		question := fmt.Sprintf("Delete %s %s%s?", plural(r.kind, len(ids)), strings.Join(ids, ", "), with)
		if all {
			question = fmt.Sprintf("Delete ALL %ss of %s%s?", r.kind, scope[0], with)
			ids = []string{""}
		}
		if err := confirm(cmd, yes, question); err != nil {
			return err
		}
		failed := 0
		for _, id := range ids {
			one := slices.Concat(scope, []string{id})
			if all {
				one = scope
			}
			if _, err := c.call(cmd.Context(), apiRequest{method: http.MethodDelete, path: r.path(one), ifMatch: version}); err != nil {
				err = changeError(r.label(one), err)
				if len(ids) == 1 {
					return err
				}
				failed++
				fmt.Fprintln(cmd.ErrOrStderr(), harmless(err.Error()))
				continue
			}
			if all {
				fmt.Fprintf(cmd.OutOrStdout(), "deleted all %ss of %s\n", r.kind, scope[0])
			} else {
				fmt.Fprintf(cmd.OutOrStdout(), "deleted %s %s\n", r.kind, id)
			}
		}
		if failed > 0 {
			return fmt.Errorf("%d of %s could not be deleted", failed, counted(len(ids), r.kind))
		}
		return nil
	})
}

func plural(word string, n int) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// escaped joins a path of variable parts.
func escaped(prefix string, parts []string) string {
	for _, p := range parts {
		prefix += "/" + url.PathEscape(p)
	}
	return prefix
}
