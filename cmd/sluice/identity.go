package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/config"
)

// newIdentity is what identity add was asked for.
type newIdentity struct {
	name                 string
	tenants              []string
	read, write, execute []string
	operator             bool
	readOnly, export     bool
	certificate          string
}

func newIdentityAddCommand() *cobra.Command {
	var n newIdentity
	var output string
	cmd := &cobra.Command{
		Use:     "add NAME",
		Aliases: []string{"create"},
		Short:   "Add an application or an operator and print its new secret, once",
		Long: "Add an entry to the identities file with a new secret of 256 random bits. Only its hash is kept;\n" +
			"the secret is printed once. A running router takes the entry up within seconds.\n\n" +
			"An application gets what applications of its tenants need (--tenant), or single authorities\n" +
			"(--read, --write, --execute). An operator (--operator) uses the management API. One with --certificate\n" +
			"has no secret: it logs in by a client certificate of a CA that the management listener trusts.",
		Example: "  sluice identity add shop --tenant DEMO\n" +
			"  sluice identity add reader --read 'telemetry/*'\n" +
			"  sluice identity add alice --operator --tenant DEMO\n" +
			"  sluice identity add bob --operator --export --certificate CN=bob,O=ACME",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("expected one name, as in: sluice identity add shop@DEMO --tenant DEMO")
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := cmd.Flags()
	s := addSettings(flags)
	flags.BoolVar(&n.operator, "operator", false, "add an operator of the management API")
	n.addRights(flags)
	flags.StringVar(&n.certificate, "certificate", "", "the operator logs in by the client certificate with this common `name` or subject, and has no secret")
	outputFlag(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		n.name = args[0]
		if _, err := checkOutput(output); err != nil {
			return err
		}
		at, err := installationOf(s)
		if err != nil {
			return err
		}
		secret, err := n.add(at)
		if err != nil {
			return err
		}
		return n.print(cmd.OutOrStdout(), output, secret, at.Identities)
	}
	return cmd
}

// addRights declares the flags that say what an identity may do.
func (n *newIdentity) addRights(flags *pflag.FlagSet) {
	flags.StringSliceVar(&n.tenants, "tenant", nil, "a `tenant` to consume from and send commands to; for operators: to manage (default all)")
	flags.StringSliceVar(&n.read, "read", nil, "an `address` to receive from, such as telemetry/DEMO; one * stands for one segment")
	flags.StringSliceVar(&n.write, "write", nil, "an `address` to send to, such as command/DEMO")
	flags.StringSliceVar(&n.execute, "execute", nil, "an `operation` to have done, such as 'credentials/DEMO:*'")
	flags.BoolVar(&n.readOnly, "read-only", false, "the operator may look, not change")
	flags.BoolVar(&n.export, "export", false, "the operator may export tenants, with hashes of passwords and pre-shared keys, if it may read them")
}

func (n *newIdentity) add(at *config.Loaded) (secret string, err error) {
	switch {
	case n.operator && len(n.read)+len(n.write)+len(n.execute) > 0:
		return "", errors.New("--read, --write and --execute are for applications; an operator has --tenant, --read-only and --export")
	case !n.operator && (n.readOnly || n.export || n.certificate != ""):
		return "", errors.New("--read-only, --export and --certificate go with --operator")
	}
	if err := n.check(at); err != nil {
		return "", err
	}
	authorities := n.authorities()
	switch {
	case n.operator && n.certificate != "":
		return "", auth.AddCertifiedOperator(at.Identities, n.name, n.certificate, n.scopes())
	case n.operator:
		return auth.AddOperator(at.Identities, n.name, n.scopes())
	case len(authorities) == 0:
		return "", errors.New("an application without authorities may do nothing: give --tenant, --read, --write or --execute, or --operator")
	}
	return auth.AddIdentity(at.Identities, n.name, authorities...)
}

// scopes are what an operator may do, by tenant.
func (n *newIdentity) scopes() map[string]auth.Activity {
	may := auth.Read | auth.Write
	if n.readOnly {
		may = auth.Read
	}
	if n.export {
		may |= auth.Export
	}
	scopes := map[string]auth.Activity{}
	for _, t := range n.tenants {
		scopes[t] = may
	}
	if len(scopes) == 0 {
		scopes["*"] = may
	}
	return scopes
}

// scopesBeside are those that an operator has, and what was asked for.
func (n *newIdentity) scopesBeside(has map[string]auth.Activity) map[string]auth.Activity {
	out := maps.Clone(has)
	if len(n.tenants) == 0 { // --export alone
		for t := range out {
			out[t] |= auth.Export
		}
		return out
	}
	for t, may := range n.scopes() {
		out[t] |= may
	}
	return out
}

// authoritiesBeside are those that an application has, and what was asked for.
func (n *newIdentity) authoritiesBeside(has []auth.Authority) []auth.Authority {
	out := slices.Clone(has)
	for _, a := range n.authorities() {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// authorities are what applications of the tenants need, and what was asked for.
func (n *newIdentity) authorities() []auth.Authority {
	var out []auth.Authority
	for _, t := range n.tenants {
		for _, endpoint := range []string{"telemetry", "event", "command_response"} {
			out = append(out, auth.Authority{Address: endpoint + "/" + t, May: auth.Read})
		}
		out = append(out, auth.Authority{Address: "command/" + t, May: auth.Write})
	}
	for _, a := range n.read {
		out = append(out, auth.Authority{Address: a, May: auth.Read})
	}
	for _, a := range n.write {
		out = append(out, auth.Authority{Address: a, May: auth.Write})
	}
	for _, o := range n.execute {
		out = append(out, auth.Authority{Operation: o, May: auth.Execute})
	}
	return out
}

// print tells the secret, or by what the operator logs in instead.
func (n *newIdentity) print(w io.Writer, output, secret, path string) error {
	what, value, last := "secret", secret, "The secret is not shown again.\n"
	if n.certificate != "" {
		what, value, last = "certificate", n.certificate, ""
	}
	if output == "json" {
		return encodeJSON(w, map[string]string{"name": n.name, what: value, "file": path})
	}
	width := len(what) + 2
	_, err := fmt.Fprintf(w, "%-*s%s\n%-*s%s\n%-*s%s\n%s", width, "name", oneLine(n.name), width, what, value, width, "file", path, last)
	return err
}
