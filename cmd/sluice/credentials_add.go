package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

func newSetPasswordCommand() *cobra.Command {
	var stdin, keep bool
	var output string
	cmd := &cobra.Command{
		Use:   "set-password TENANT DEVICE [AUTH-ID]",
		Short: "Give a device a password",
		Long: `Give a device a new password: one of 256 random bits, which is printed this once,
or with --stdin the first line of standard input. AUTH-ID is the name that the
device logs in with, as AUTH-ID@TENANT; if it is left out it is that of the one
password that the device has, or else the id of the device.

The new password replaces those that the AUTH-ID has, and connections that were
made with them are closed; with --keep they stay good beside it, for a change of
passwords without a gap. With -o json one object is printed.`,
		Example: `  sluice credentials set-password DEMO 4711
  printf '%s\n' "$PASSWORD" | sluice credentials set-password DEMO 4711 sensor1 --stdin`,
		Args:              namesArgs(2, 3),
		ValidArgsFunction: completeTenantDevice(2),
	}
	cmd.Flags().BoolVar(&stdin, "stdin", false, "read the password from standard input")
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the passwords that are there")
	outputFlag(cmd, &output)
	return managed(cmd, func(cmd *cobra.Command, c *managementClient, args []string) error {
		asJSON, err := checkOutput(output)
		if err != nil {
			return err
		}
		password, secret := "", iot.Secret{}
		if stdin {
			if secret.PwdPlain, err = firstLine(cmd); err != nil {
				return err
			}
		} else {
			password, secret = registry.GeneratePassword()
		}
		set, err := c.credentials(cmd, args)
		if err != nil {
			return err
		}
		authID, err := set.passwordID(args)
		if err != nil {
			return err
		}
		if err := set.put(iot.HashedPassword, authID, secret, keep); err != nil {
			return err
		}
		if err := c.store(cmd, set); err != nil {
			return err
		}
		return printSecret(cmd.OutOrStdout(), asJSON, authID+"@"+args[0], password)
	})
}

// firstLine is a password from standard input.
func firstLine(cmd *cobra.Command) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(newInterruptible(cmd.Context(), cmd.InOrStdin()), 4096)).ReadString('\n')
	line = strings.TrimRight(line, "\r\n")
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return "", err
	case line == "":
		return "", errors.New("standard input has no password in its first line")
	}
	return line, nil
}

// printSecret tells a user name and the password that was made, if one was.
func printSecret(out io.Writer, asJSON bool, user, password string) error {
	if asJSON {
		o := map[string]string{"user": user}
		if password != "" {
			o["password"] = password
		}
		return encodeJSON(out, o)
	}
	if password == "" {
		_, err := fmt.Fprintf(out, "user      %s\n", oneLine(user))
		return err
	}
	_, err := fmt.Fprintf(out, "user      %s\npassword  %s\nThe password is not shown again.\n", oneLine(user), password)
	return err
}

// passwordID is whose password is set.
func (s *credentialSet) passwordID(args []string) (string, error) {
	if len(args) == 3 {
		return args[2], nil
	}
	var ids []string
	for _, c := range s.list {
		if id, _ := c["auth-id"].(string); c["type"] == iot.HashedPassword {
			ids = append(ids, id)
		}
	}
	switch len(ids) {
	case 0:
		return args[1], nil
	case 1:
		return ids[0], nil
	}
	return "", fmt.Errorf("%s has passwords for %s: say whose is meant", s.label, strings.Join(ids, ", "))
}

// put gives a credential a secret, instead of its own or beside them.
func (s *credentialSet) put(kind, authID string, secret any, keep bool) error {
	at, err := s.find(kind, authID)
	if err != nil {
		return err
	}
	if at < 0 {
		s.list = append(s.list, object{"type": kind, "auth-id": authID, "secrets": []any{secret}})
		return nil
	}
	var secrets []any
	if keep {
		secrets, _ = s.list[at]["secrets"].([]any)
	}
	s.list[at]["secrets"] = append(secrets, secret)
	return nil
}

func newCredentialsAddCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "add",
		Aliases: []string{"create"},
		Short:   "Add a pre-shared key or a certificate",
		Long:    "Add a pre-shared key, or the subject of a client certificate. A password is set by: sluice credentials set-password",
	}
	cmd.AddCommand(newAddPSKCommand(), newAddX509Command())
	return cmd
}

func newAddPSKCommand() *cobra.Command {
	var file, output string
	var keep bool
	cmd := &cobra.Command{
		Use:   "psk TENANT DEVICE IDENTITY",
		Short: "Add a pre-shared key",
		Long: `Give a device a pre-shared key for DTLS or TLS under an IDENTITY: one of 256
random bits, which is printed this once in base64, or with --file the bytes of a
file (- is standard input). It replaces the key that the identity has; with
--keep that one stays good beside it.`,
		Example:           "  sluice credentials add psk DEMO 4711 sensor1\n  sluice credentials add psk DEMO 4711 sensor1 --file key.bin",
		Args:              namesArgs(3, 3),
		ValidArgsFunction: completeTenantDevice(2),
	}
	cmd.Flags().StringVar(&file, "file", "", "read the key from a `file`")
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the keys that are there")
	outputFlag(cmd, &output)
	return managed(cmd, func(cmd *cobra.Command, c *managementClient, args []string) error {
		asJSON, err := checkOutput(output)
		if err != nil {
			return err
		}
		secret, shown := iot.Secret{}, ""
		if file != "" {
			secret.Key, err = (&objectFlags{file: file}).content(cmd)
			if err == nil && len(secret.Key) == 0 {
				err = fmt.Errorf("%s is empty", file)
			}
			if err != nil {
				return err
			}
		} else {
			secret.Key = make([]byte, 32)
			rand.Read(secret.Key) // never fails
			b, _ := json.Marshal(secret.Key)
			shown = strings.Trim(string(b), `"`)
		}
		set, err := c.credentials(cmd, args)
		if err != nil {
			return err
		}
		if err := set.put(iot.PSK, args[2], secret, keep); err != nil {
			return err
		}
		if err := c.store(cmd, set); err != nil {
			return err
		}
		return printKey(cmd.OutOrStdout(), asJSON, args[2], shown)
	})
}

func printKey(out io.Writer, asJSON bool, identity, key string) error {
	if asJSON {
		o := map[string]string{"identity": identity}
		if key != "" {
			o["key"] = key
		}
		return encodeJSON(out, o)
	}
	if key == "" {
		_, err := fmt.Fprintf(out, "identity  %s\n", identity)
		return err
	}
	_, err := fmt.Fprintf(out, "identity  %s\nkey       %s\nThe key is not shown again.\n", identity, key)
	return err
}

func newAddX509Command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "x509 TENANT DEVICE FILE",
		Short: "Let a device log in with a client certificate",
		Long: `Let a device log in with the client certificate in a PEM file, or with another one
of the same subject that a CA of the tenant has signed: the subject and the time
of validity are kept, not the certificate. It replaces a credential for the same
subject. Only the first certificate of the file counts.`,
		Example:           "  sluice credentials add x509 DEMO 4711 sensor1.crt",
		Args:              namesArgs(3, 3),
		ValidArgsFunction: completeTenantDevice(2),
	}
	return managed(cmd, func(cmd *cobra.Command, c *managementClient, args []string) error {
		cert, err := readCertificate(args[2])
		if err != nil {
			return err
		}
		set, err := c.credentials(cmd, args)
		if err != nil {
			return err
		}
		subject, err := registry.SubjectDN(cert.RawSubject)
		if err != nil {
			return fmt.Errorf("%s: %w", args[2], err)
		}
		at, err := set.find(iot.X509Cert, subject)
		if err != nil {
			return err
		}
		cred := object{"type": iot.X509Cert, "cert": cert.Raw}
		if at < 0 {
			set.list = append(set.list, cred)
		} else {
			set.list[at] = cred
		}
		if err := c.store(cmd, set); err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "subject     %s\nnot before  %s\nnot after   %s\n", oneLine(subject), shortTime(&cert.NotBefore, "-"), shortTime(&cert.NotAfter, "-"))
		return err
	})
}

// readCertificate reads the first certificate of a PEM file.
func readCertificate(path string) (*x509.Certificate, error) {
	content, err := readFile(path)
	if err != nil {
		return nil, err
	}
	for rest := bytes.TrimSpace(content); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, fmt.Errorf("%s has no certificate; expected a PEM file with -----BEGIN CERTIFICATE-----", path)
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return cert, nil
	}
}
