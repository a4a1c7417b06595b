package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/listen"
)

// maxCertDays keeps a certificate that is lost from being good for a decade.
const maxCertDays = 825

func newCertsCommand() *cobra.Command {
	var out string
	var hosts []string
	var days int
	cmd := &cobra.Command{
		Use:   "certs --out DIR KIND/INSTANCE...",
		Short: "Make the certificates by which the parts of an installation prove themselves",
		Long: "Make a certificate authority in DIR, unless there is one, and with it a certificate and key per part:\n" +
			"DIR/KIND-INSTANCE.crt and .key, where KIND is adapter, router or function.\n" +
			"Each is good for both sides of TLS and for localhost, 127.0.0.1, ::1 and the --host names.\n" +
			"Keep DIR/ca.key to yourself; the parts need ca.crt and their own two files.",
		Example: "  sluice certs --out certs --host router.example adapter/http-0 router/router-0 function/identity-0",
	}
	cmd.Flags().StringVar(&out, "out", "", "`folder` for the files")
	cmd.Flags().StringSliceVar(&hosts, "host", nil, "a further host `name` or IP address of every part named")
	cmd.Flags().IntVar(&days, "days", 365, "days that the certificates are valid")
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		if out == "" {
			return errors.New("--out is missing: the folder for the files")
		}
		if days < 1 || days > maxCertDays {
			return fmt.Errorf("--days %d: expected 1 to %d", days, maxCertDays)
		}
		parts, err := parseParts(names)
		if err != nil {
			return err
		}
		return makeCerts(cmd.OutOrStdout(), out, parts, hosts, time.Duration(days)*24*time.Hour)
	}
	return cmd
}

// part is one component of an installation.
type part struct {
	kind     auth.Kind
	instance string
}

func parseParts(names []string) ([]part, error) {
	if len(names) == 0 {
		return nil, errors.New("no names; expected some such as adapter/http-0, router/router-0 or function/identity-0")
	}
	var parts []part
	for _, n := range names {
		kind, instance, ok := strings.Cut(n, "/")
		if !ok {
			return nil, fmt.Errorf("%q: expected KIND/INSTANCE, such as adapter/http-0", n)
		}
		if err := auth.CheckInstance(auth.Kind(kind), instance); err != nil {
			return nil, fmt.Errorf("%q: %w", n, err)
		}
		parts = append(parts, part{auth.Kind(kind), instance})
	}
	return parts, nil
}

func makeCerts(w io.Writer, dir string, parts []part, hosts []string, life time.Duration) error {
	authority, err := listen.OpenAuthority(dir, time.Now())
	if err != nil {
		return err
	}
	fmt.Fprintln(w, authority.CAFile())
	for _, p := range parts {
		f, err := authority.IssueComponent(dir, string(p.kind), p.instance, hosts, life)
		if err != nil {
			return err
		}
		fmt.Fprintln(w, f.Certificate)
		fmt.Fprintln(w, f.Key)
	}
	return nil
}
