package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

func newTenantExportCommand() *cobra.Command {
	var f managementFlags
	cmd := &cobra.Command{
		Use:   "export TENANT [FILE]",
		Short: "Write a tenant with all devices and credentials to a file",
		Long: `Write a tenant, its devices and their credentials to a file, one a line; without
FILE, or with -, to standard output. It holds password hashes and keys: the file
is for its owner alone (mode 0600), and the operator's scopes must say "export".

A file that is there is replaced when the export is complete, not before. That
nothing is missing is checked: the exit code is 1 otherwise.
` + managementFlagsHelp,
		Example:           "  sluice tenant export ACME acme.ndjson",
		Args:              tenantAndFile,
		ValidArgsFunction: completeTenantDevice(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := f.open()
			if err != nil {
				return err
			}
			defer client.close()
			devices := 0
			export := func(w io.Writer) (err error) {
				devices, err = client.export(cmd.Context(), args[0], w)
				return err
			}
			if len(args) < 2 || args[1] == "-" {
				err = export(escapedFor(cmd.OutOrStdout()))
			} else {
				err = privateFile(args[1], export)
			}
			if err == nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "exported %s with %s\n", args[0], counted(devices, "device"))
			}
			return f.scopesFor(err, args)
		},
	}
	f.add(cmd.Flags())
	return cmd
}

// export writes an export to w and checks that it is complete.
func (c *managementClient) export(ctx context.Context, tenant string, w io.Writer) (devices int, err error) {
	reply, end, err := c.do(ctx, http.MethodGet, "/v1/export/"+url.PathEscape(tenant), nil, 0)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", c.base.Host, err)
	}
	defer end()
	if reply.StatusCode != http.StatusOK {
		text, _ := failureText(reply)
		return 0, &apiError{reply.StatusCode, text}
	}
	var last lastLine
	_, err = io.Copy(io.MultiWriter(&last, w), reply.Body)
	if err == nil || last.failure() != "" {
		return last.devices(err)
	}
	return 0, fmt.Errorf("the export is not complete: %w", err)
}

// maxEnd is more than the last line of an export can have.
const maxEnd = 4096

// lastLine keeps the last line of what is written to it, and counts the lines.
type lastLine struct {
	lines int
	text  []byte // its first bytes, if it is long
	ended bool   // by the last byte that was written
}

func (l *lastLine) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		if l.ended || l.lines == 0 {
			l.lines, l.text, l.ended = l.lines+1, l.text[:0], false
		}
		part := b
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			part, l.ended = b[:i+1], true
		}
		l.text = append(l.text, part[:min(len(part), maxEnd-len(l.text))]...)
		b = b[len(part):]
	}
	return n, nil
}

// failure is what the server said when it ended an export early.
func (l *lastLine) failure() string {
	var said struct{ Error string }
	if json.Unmarshal(l.text, &said) != nil {
		return ""
	}
	return oneLine(said.Error)
}

// devices checks the end of an export. err is how reading it ended.
func (l *lastLine) devices(err error) (int, error) {
	if text := l.failure(); text != "" {
		return 0, fmt.Errorf("the export is not complete: %s", text)
	}
	line := inputLine{text: bytes.TrimSpace(l.text)}
	n, ok := asEnd(&line)
	switch {
	case err != nil:
		return 0, err
	case !ok:
		return 0, errors.New("the export is not complete: its last line is missing")
	case n != l.lines-2:
		return 0, fmt.Errorf("the export is not complete: it has %d devices, its last line says %d", l.lines-2, n)
	}
	return n, nil
}

// privateFile has a file written that only its owner can read: whole or not at
// all. What is there and no file, such as a pipe, is written to as it is.
func privateFile(path string, write func(io.Writer) error) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	// CreateTemp makes files of mode 0600.
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if err := write(tmp); err != nil {
		tmp.Close()
		return err
	}
	if err := errors.Join(tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
