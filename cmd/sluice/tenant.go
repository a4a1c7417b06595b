package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/cobra"
)

func newTenantImportCommand() *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use:   "import TENANT [FILE]",
		Short: "Create or replace a tenant and its devices from an export",
		Long: `Create the tenant and the devices of an export with their credentials, or replace
those that are there; others stay. TENANT need not be the tenant that was
exported. Without FILE, or with -, the export is read from standard input.

An export that was cut off is noticed at its end: what it holds is there then,
and the exit code is 1. With -o json the results go to standard output, one a
line, and at last the sums.
` + importFlagsHelp + managementFlagsHelp,
		Example:           "  sluice tenant import ACME acme.ndjson\n  sluice tenant export ACME - --url https://old:28443 | sluice tenant import ACME",
		Args:              tenantAndFile,
		ValidArgsFunction: completeTenantDevice(1),
	}
	f.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return f.send(cmd, args, "/v1/import/"+url.PathEscape(args[0]), importExport)
	}
	return cmd
}

// importExport sends an export. Each request has the header of the whole and an
// end of its own; that nothing is missing is seen here.
func importExport(ctx context.Context, s *sender, in *lineReader) error {
	header, err := in.next()
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("the export is empty")
	case err != nil:
		return err
	}
	var e exportEnd
	if first, err := in.next(); err == nil {
		e.ahead = &first
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	if end, ok := asEnd(e.ahead); ok && end == 0 {
		// There is no device whose request would bring the tenant.
		if err := s.tenantAlone(ctx, header); err != nil {
			return err
		}
	}
	s.wrap = func(n int) ([]byte, int, []byte) {
		return append(header.text[:len(header.text):len(header.text)], '\n'), 1, fmt.Appendf(nil, "{\"end\":true,\"devices\":%d}\n", n)
	}
	if err := s.run(ctx, func() (inputLine, error) { return e.next(in) }); err != nil {
		return err
	}
	return e.check()
}

// tenantAlone sends an export without devices.
func (s *sender) tenantAlone(ctx context.Context, header inputLine) error {
	s.wrap = func(int) ([]byte, int, []byte) {
		return append(header.text[:len(header.text):len(header.text)], '\n'), 1, []byte("{\"end\":true,\"devices\":0}\n")
	}
	for try := 1; ; try++ {
		_, tooLarge, again, err := s.post(ctx, nil)
		switch {
		case tooLarge != "":
			return fmt.Errorf("%s (413)", tooLarge)
		case again == 0 || try == maxAgain:
			return err
		}
		if err := s.pause(ctx, again, err); err != nil {
			return err
		}
	}
}

// exportEnd passes the devices of an export on and looks for its last line.
type exportEnd struct {
	ahead *inputLine // read already
	ended bool
	want  int
	got   int
}

func (e *exportEnd) next(in *lineReader) (inputLine, error) {
	var l inputLine
	var err error
	if e.ahead != nil {
		l, e.ahead = *e.ahead, nil
	} else if l, err = in.next(); err != nil {
		return l, err
	}
	if e.ended {
		return l, fmt.Errorf("line %d comes after the end of the export", l.number)
	}
	if n, ok := asEnd(&l); ok {
		e.ended, e.want = true, n
		return e.next(in)
	}
	e.got++
	return l, nil
}

// check says whether the export was whole.
func (e *exportEnd) check() error {
	switch {
	case !e.ended:
		return fmt.Errorf("the export was cut off: its last line is missing, after %d devices", e.got)
	case e.got != e.want:
		return fmt.Errorf("the export is incomplete: it has %d devices, its last line says %d", e.got, e.want)
	}
	return nil
}

// asEnd reads the last line of an export: how many devices it has.
func asEnd(l *inputLine) (devices int, ok bool) {
	if l == nil || len(l.text) > 100 {
		return 0, false
	}
	var end struct {
		End     bool
		Devices *int
	}
	if json.Unmarshal(l.text, &end) != nil || !end.End || end.Devices == nil {
		return 0, false
	}
	return *end.Devices, true
}
