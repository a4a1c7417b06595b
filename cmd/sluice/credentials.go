package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
)

func newCredentialsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "credentials",
		Aliases: []string{"credential"},
		Short:   "Manage what a device logs in with",
		Long: `Manage the credentials of a device through the management API of an
installation: passwords, pre-shared keys and client certificates. What is secret
in them can be set and never read.

Each change is made to the credentials that were read just before: when somebody
else has changed them meanwhile, nothing is done and the exit code is 1.`,
	}
	cmd.AddCommand(newCredentialsListCommand(), newSetPasswordCommand(), newCredentialsAddCommand(),
		newCredentialsUpdateCommand(), newCredentialsDeleteCommand())
	return cmd
}

// credentialSet is the credentials of a device, and the version they have.
type credentialSet struct {
	path, label string
	list        []object
	version     string
}

func (c *managementClient) credentials(cmd *cobra.Command, args []string) (*credentialSet, error) {
	s := &credentialSet{path: escaped("/v1/credentials", args[:2]), label: strings.Join(args[:2], "/")}
	reply, err := c.call(cmd.Context(), apiRequest{method: http.MethodGet, path: s.path})
	if err != nil {
		return nil, fmt.Errorf("credentials of %s: %w", s.label, err)
	}
	s.version = reply.version
	return s, decodeJSON(reply.body, &s.list)
}

// store replaces the credentials if nobody else has changed them.
func (c *managementClient) store(cmd *cobra.Command, s *credentialSet) error {
	if s.list == nil {
		s.list = []object{}
	}
	body, err := json.Marshal(s.list)
	if err != nil {
		return err
	}
	if _, err = c.call(cmd.Context(), apiRequest{method: http.MethodPut, path: s.path, body: body, ifMatch: s.version}); err != nil {
		return changeError("credentials of "+s.label, err)
	}
	return nil
}

// find is the index of a credential, -1 where there is none. A kind of "" is any;
// several then are an error.
func (s *credentialSet) find(kind, authID string) (int, error) {
	at := -1
	for i, c := range s.list {
		if c["auth-id"] != authID || kind != "" && c["type"] != kind {
			continue
		}
		if at >= 0 {
			return -1, fmt.Errorf("%s has several credentials with the auth-id %q: say which with --type", s.label, authID)
		}
		at = i
	}
	return at, nil
}

func newCredentialsListCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "list TENANT DEVICE",
		Aliases: []string{"get"},
		Short:   "List the credentials of a device, without what is secret",
		Long: `List the credentials of a device, a line for each secret: the type, the auth-id
that it logs in as, whether it may, and from when to when the secret is valid.
Hashes and keys cannot be read. With -o json it is what the management API gives.`,
		Example:           "  sluice credentials list DEMO 4711",
		Args:              namesArgs(2, 2),
		ValidArgsFunction: completeTenantDevice(2),
	}
	outputFlag(cmd, &output)
	return managed(cmd, func(cmd *cobra.Command, c *managementClient, args []string) error {
		asJSON, err := checkOutput(output)
		if err != nil {
			return err
		}
		set, err := c.credentials(cmd, args)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), []byte(compact(set.list)))
		}
		var rows [][]string
		for _, cred := range set.list {
			rows = append(rows, credentialRows(cred)...)
		}
		return printTable(cmd.OutOrStdout(), []string{"TYPE", "AUTH-ID", "ENABLED", "NOT BEFORE", "NOT AFTER", "COMMENT"}, rows)
	})
}

// credentialRows are the rows of one credential.
func credentialRows(c object) (rows [][]string) {
	secrets, _ := c["secrets"].([]any)
	for _, s := range secrets {
		secret, _ := s.(object)
		enabled := yesNo(enabledWord(c) == "yes" && enabledWord(secret) == "yes")
		comment := secret["comment"]
		if comment == nil {
			comment = c["comment"]
		}
		rows = append(rows, []string{brief(c["type"], 30), brief(c["auth-id"], 60), enabled,
			brief(secret["not-before"], 30), brief(secret["not-after"], 30), brief(comment, 40)})
	}
	return rows
}

func newCredentialsUpdateCommand() *cobra.Command {
	var file, version string
	var enabled, disabled bool
	var kind string
	cmd := &cobra.Command{
		Use:   "update TENANT DEVICE [AUTH-ID]",
		Short: "Enable or disable one credential, or replace all",
		Long: `Enable or disable the credential with an AUTH-ID, or replace all credentials of a
device by a JSON array from --file, as "sluice credentials list -o json" prints
it. A secret that has only the id of a stored one keeps what is secret in it;
what is missing is deleted.`,
		Example: `  sluice credentials update DEMO 4711 sensor1 --disabled
  sluice credentials list DEMO 4711 -o json > c.json; edit c.json; sluice credentials update DEMO 4711 --file c.json`,
		Args:              namesArgs(2, 3),
		ValidArgsFunction: completeTenantDevice(2),
	}
	cmd.Flags().StringVar(&file, "file", "", "all credentials, as JSON from a `file`; - is standard input")
	cmd.Flags().BoolVar(&enabled, "enabled", false, "enable the credential")
	cmd.Flags().BoolVar(&disabled, "disabled", false, "disable the credential")
	cmd.Flags().StringVar(&kind, "type", "", "`type` of the credential, where several have this AUTH-ID")
	cmd.Flags().StringVar(&version, "if-match", "", "change this `version` only")
	return managed(cmd, func(cmd *cobra.Command, c *managementClient, args []string) error {
		if (file == "") != (len(args) == 3) || file == "" && enabled == disabled || file != "" && (enabled || disabled) {
			return fmt.Errorf("expected an AUTH-ID with --enabled or --disabled, or --file without an AUTH-ID")
		}
		set, err := c.credentials(cmd, args)
		if err != nil {
			return err
		}
		if version != "" {
			set.version = version
		}
		if file != "" {
			content, err := (&objectFlags{file: file}).content(cmd)
			if err != nil {
				return err
			}
			set.list = nil
			if err := decodeJSON(content, &set.list); err != nil {
				return fmt.Errorf("--file %s: %w", file, err)
			}
		} else {
			at, err := set.must(kind, args[2])
			if err != nil {
				return err
			}
			set.list[at]["enabled"] = enabled
		}
		if err := c.store(cmd, set); err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "updated the credentials of %s\n", set.label)
		return err
	})
}

// must is find where there has to be one.
func (s *credentialSet) must(kind, authID string) (int, error) {
	at, err := s.find(kind, authID)
	if err == nil && at < 0 {
		err = fmt.Errorf("%s has no credential %s", s.label, strings.TrimSpace(kind+" "+authID))
	}
	return at, err
}

func newCredentialsDeleteCommand() *cobra.Command {
	var kind string
	var yes, all bool
	cmd := &cobra.Command{
		Use:   "delete TENANT DEVICE [AUTH-ID]",
		Short: "Delete a credential of a device, or all",
		Long: `Delete the credential with an AUTH-ID, with all its secrets; or with --all all
credentials of the device. Connections that it has made are closed. A person at a
terminal is asked first; elsewhere, and to be not asked, --yes is needed.`,
		Example:           "  sluice credentials delete DEMO 4711 sensor1 --yes",
		Args:              namesArgs(2, 3),
		ValidArgsFunction: completeTenantDevice(2),
	}
	cmd.Flags().StringVar(&kind, "type", "", "`type` of the credential, where several have this AUTH-ID")
	cmd.Flags().BoolVar(&all, "all", false, "all credentials of the device")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return managed(cmd, func(cmd *cobra.Command, c *managementClient, args []string) error {
		if all == (len(args) == 3) {
			return fmt.Errorf("expected an AUTH-ID, or --all")
		}
		set, err := c.credentials(cmd, args)
		if err != nil {
			return err
		}
		what := "all credentials"
		if all {
			set.list = nil
		} else {
			at, err := set.must(kind, args[2])
			if err != nil {
				return err
			}
			what = fmt.Sprintf("the %v credential %s", set.list[at]["type"], args[2])
			set.list = append(set.list[:at:at], set.list[at+1:]...)
		}
		if err := confirm(cmd, yes, fmt.Sprintf("Delete %s of %s?", what, set.label)); err != nil {
			return err
		}
		if err := c.store(cmd, set); err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "deleted %s of %s\n", what, set.label)
		return err
	})
}
