package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-iot/sluice/cmd/internal/command"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/config"
)

func newIdentityCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "identity",
		Short: "Manage who may connect: applications and operators",
		Long: `Manage the entries of the identities file of an installation on this machine:
applications, which connect to a router over AMQP 1.0, and operators, who use the
management API. A running process takes a change up within seconds, and closes
the connections of an entry that is gone.

The file is identities.yaml in the data folder (--data, SLUICE_DATA, ./data or
the XDG data folder), or that of --identities.`,
	}
	cmd.AddCommand(newIdentityAddCommand(), newIdentityListCommand(), newIdentityGetCommand(), newIdentityUpdateCommand(), newIdentityDeleteCommand())
	return cmd
}

// installationOf is the configuration with the file in which the entries are.
func installationOf(s *command.Settings) (*config.Loaded, error) {
	loaded, err := s.Load(nil, true)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Dir(loaded.Identities)); err != nil {
		return nil, fmt.Errorf("no installation at %s: start `sluice up` first, or name it with --data or the file with --identities", filepath.Dir(loaded.Identities))
	}
	return loaded, nil
}

// shownIdentity is an entry as -o json prints it.
type shownIdentity struct {
	Name        string           `json:"name"`
	Kind        string           `json:"kind"` // application or operator
	Proof       []string         `json:"proof"`
	Certificate string           `json:"certificate,omitempty"`
	Authorities []shownAuthority `json:"authorities,omitempty"`
	Scopes      []shownAuthority `json:"scopes,omitempty"`
}

type shownAuthority struct {
	Address   string   `json:"address,omitempty"`
	Operation string   `json:"operation,omitempty"`
	Tenant    string   `json:"tenant,omitempty"`
	May       []string `json:"may"`
}

func show(e *auth.Entry) shownIdentity {
	s := shownIdentity{Name: e.Name, Kind: "application", Certificate: e.Certificate, Proof: []string{}}
	if e.HasSecret {
		s.Proof = append(s.Proof, "secret")
	}
	if e.Certificate != "" || !e.HasSecret {
		s.Proof = append(s.Proof, "certificate")
	}
	for _, a := range e.Authorities {
		s.Authorities = append(s.Authorities, shownAuthority{Address: a.Address, Operation: a.Operation, May: activityWords(a.May)})
	}
	if e.Operator {
		s.Kind = "operator"
		for _, t := range slices.Sorted(maps.Keys(e.Scopes)) {
			s.Scopes = append(s.Scopes, shownAuthority{Tenant: t, May: activityWords(e.Scopes[t])})
		}
	}
	return s
}

func activityWords(a auth.Activity) []string {
	words := []string{}
	for _, one := range []auth.Activity{auth.Read, auth.Write, auth.Execute, auth.Export} {
		if a&one != 0 {
			words = append(words, one.String())
		}
	}
	return words
}

// may is what an entry may do, in words.
func (s *shownIdentity) may() []string {
	var out []string
	for _, a := range slices.Concat(s.Authorities, s.Scopes) {
		what := a.Address + a.Operation
		if a.Tenant == auth.AllTenants {
			what = "all tenants"
		} else if a.Tenant != "" {
			what = "tenant " + a.Tenant
		}
		out = append(out, strings.Join(a.May, "+")+" "+what)
	}
	return out
}

func newIdentityListCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List applications and operators, and what each may do",
		Long:    "List applications and operators, how they prove themselves and what each may do. With -o json one object\na line is printed. Secrets are kept as hashes and cannot be seen.",
		Example: "  sluice identity list --data ./data",
		Args:    noArgs,
	}
	s := addSettings(cmd.Flags())
	outputFlag(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		asJSON, err := checkOutput(output)
		if err != nil {
			return err
		}
		at, err := installationOf(s)
		if err != nil {
			return err
		}
		entries, err := auth.Entries(at.Identities)
		if err != nil {
			return err
		}
		var rows [][]string
		for i := range entries {
			e := show(&entries[i])
			if asJSON {
				if err := encodeJSON(cmd.OutOrStdout(), e); err != nil {
					return err
				}
				continue
			}
			rows = append(rows, []string{oneLine(e.Name), e.Kind, strings.Join(e.Proof, "+"), short(strings.Join(e.may(), ", "), 100)})
		}
		if asJSON {
			return nil
		}
		return printTable(cmd.OutOrStdout(), []string{"NAME", "KIND", "PROOF", "MAY"}, rows)
	}
	return cmd
}

// whichFlags tell an application from an operator of the same name.
type whichFlags struct{ operator, application bool }

func (w *whichFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.operator, "operator", false, "the operator of this name")
	cmd.Flags().BoolVar(&w.application, "application", false, "the application of this name")
}

// find returns the one that is meant.
func (w *whichFlags) find(path, name string) (*auth.Entry, error) {
	entries, err := auth.Entries(path)
	if err != nil {
		return nil, err
	}
	var found *auth.Entry
	for i := range entries {
		e := &entries[i]
		if e.Name != name || w.operator && !e.Operator || w.application && e.Operator {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%q is an application and an operator: say which with --application or --operator", name)
		}
		found = e
	}
	if found == nil {
		return nil, fmt.Errorf("there is no %q in %s", name, path)
	}
	return found, nil
}

// oneIdentity completes a command on one entry.
func oneIdentity(cmd *cobra.Command, run func(cmd *cobra.Command, at *config.Loaded, e *auth.Entry) error) *cobra.Command {
	var w whichFlags
	w.add(cmd)
	s := addSettings(cmd.Flags())
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("expected one name: %s", cmd.UseLine())
		}
		return nil
	}
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, begun string) (names []string, _ cobra.ShellCompDirective) {
		if at, err := installationOf(s); err == nil && len(args) == 0 {
			entries, _ := auth.Entries(at.Identities)
			for _, e := range entries {
				if strings.HasPrefix(e.Name, begun) && !slices.Contains(names, e.Name) {
					names = append(names, e.Name)
				}
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		at, err := installationOf(s)
		if err != nil {
			return err
		}
		e, err := w.find(at.Identities, args[0])
		if err != nil {
			return err
		}
		return run(cmd, at, e)
	}
	return cmd
}

func newIdentityGetCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "get NAME",
		Short:   "Show an application or an operator",
		Long:    "Show an application or an operator: how it proves itself and what it may do. Exit code 1 when there is none.",
		Example: "  sluice identity get admin",
	}
	outputFlag(cmd, &output)
	return oneIdentity(cmd, func(cmd *cobra.Command, at *config.Loaded, e *auth.Entry) error {
		asJSON, err := checkOutput(output)
		if err != nil {
			return err
		}
		s := show(e)
		if asJSON {
			return encodeJSON(cmd.OutOrStdout(), s)
		}
		rows := [][]string{{"kind", s.Kind}, {"proof", strings.Join(s.Proof, "+")}}
		if s.Certificate != "" {
			rows = append(rows, []string{"certificate", oneLine(s.Certificate)})
		}
		for _, may := range s.may() {
			rows = append(rows, []string{"may", oneLine(may)})
		}
		return printTable(cmd.OutOrStdout(), []string{"name", oneLine(s.Name)}, append(rows, []string{"file", at.Identities}))
	})
}

func newIdentityUpdateCommand() *cobra.Command {
	var n newIdentity
	var newSecret, add bool
	var output string
	cmd := &cobra.Command{
		Use:   "update NAME",
		Short: "Change what an application or an operator may do, or its secret",
		Long: `Change what an application or an operator may do: what --tenant, --read, --write,
--execute, --read-only and --export say stands instead of everything before, or
with --add beside it; an operator's --export without --tenant is then for all
tenants that he has. A running process takes the change up within seconds. With
--new-secret it gets a new secret, which is printed this once; the one before is
good no longer.`,
		Example: "  sluice identity update shop --new-secret\n  sluice identity update shop --add --tenant ACME\n  sluice identity update alice --tenant DEMO --tenant ACME --read-only",
	}
	n.addRights(cmd.Flags())
	cmd.Flags().BoolVar(&newSecret, "new-secret", false, "make a new secret and print it, once")
	cmd.Flags().BoolVar(&add, "add", false, "give it more, and keep what it has")
	outputFlag(cmd, &output)
	return oneIdentity(cmd, func(cmd *cobra.Command, at *config.Loaded, e *auth.Entry) error {
		if _, err := checkOutput(output); err != nil {
			return err
		}
		n.name = e.Name
		c := auth.Change{NewSecret: newSecret}
		rights := slices.ContainsFunc([]string{"tenant", "read", "write", "execute", "read-only", "export"}, cmd.Flags().Changed)
		switch {
		case !rights && !newSecret:
			return errors.New("nothing to change: give --new-secret, --tenant, --read, --write, --execute, --read-only or --export")
		case e.Operator && len(n.read)+len(n.write)+len(n.execute) > 0:
			return errors.New("--read, --write and --execute are for applications; an operator has --tenant, --read-only and --export")
		case !e.Operator && (n.readOnly || n.export):
			return errors.New("--read-only and --export are for operators")
		case add && !rights:
			return errors.New("--add goes with what is added: --tenant, --read, --write, --execute or --export")
		case add && n.readOnly && len(n.tenants) == 0:
			return errors.New("--add takes nothing away: --read-only goes with --tenant, or without --add")
		case add && e.Operator:
			c.Scopes = n.scopesBeside(e.Scopes)
		case add:
			c.Authorities = n.authoritiesBeside(e.Authorities)
		case rights && e.Operator:
			c.Scopes = n.scopes()
		case rights:
			c.Authorities = n.authorities()
		}
		if err := n.check(at); err != nil {
			return err
		}
		secret, err := auth.UpdateEntry(at.Identities, e.Name, e.Operator, c)
		if err != nil {
			return err
		}
		if newSecret {
			return n.print(cmd.OutOrStdout(), output, secret, at.Identities)
		}
		if output == "json" {
			return encodeJSON(cmd.OutOrStdout(), map[string]string{"name": e.Name, "file": at.Identities})
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "updated %s in %s\n", oneLine(e.Name), at.Identities)
		return err
	})
}

func newIdentityDeleteCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Remove an application or an operator",
		Long: `Remove an application or an operator from the identities file. Running processes
close its connections within seconds. A person at a terminal is asked first;
elsewhere, and to be not asked, --yes is needed.`,
		Example: "  sluice identity delete shop --yes",
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return oneIdentity(cmd, func(cmd *cobra.Command, at *config.Loaded, e *auth.Entry) error {
		kind := show(e).Kind
		if err := confirm(cmd, yes, fmt.Sprintf("Delete the %s %s from %s?", kind, oneLine(e.Name), at.Identities)); err != nil {
			return err
		}
		if err := auth.RemoveEntry(at.Identities, e.Name, e.Operator); err != nil {
			return err
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "deleted %s %s\n", kind, oneLine(e.Name))
		return err
	})
}
