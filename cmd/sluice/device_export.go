package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"
)

func newDeviceExportCommand() *cobra.Command {
	var list listFlags
	var credentials bool
	cmd := &cobra.Command{
		Use:   "export TENANT [FILE]",
		Short: "Write devices to a file that sluice device import takes",
		Long: `Write the devices of a tenant to a file, an item a line that "sluice device import"
takes: it creates those that are not there and replaces the others. Without
FILE, or with -, it goes to standard output. On a terminal you see how far it is.

Credentials are left out, and an import leaves those of devices that are there.
With --credentials they are written, too, with password hashes and keys: the file
is for its owner alone (mode 0600), and the operator's scopes must say "export".
A file that is there is replaced when the export is complete, not before.

--filter chooses devices as in "sluice device list". It reads the list page by
page: of devices that come or go meanwhile, and of those beside them, some may
be missing or twice. The export with --credentials has no such gaps, and is the
faster one; a filter without an index reads all devices for every 200 results.

Exit code 0: the file is complete. Exit code 1: it is not there.`,
		Example: `  sluice device export DEMO devices.ndjson
  sluice device export DEMO --filter ext/site=Kiel | sluice device import ACME
  sluice device export DEMO all.ndjson --credentials`,
		Args:              tenantAndFile,
		ValidArgsFunction: completeTenantDevice(1),
	}
	cmd.Flags().StringArrayVar(&list.filters, "filter", nil, "`field=value`, such as ext/site=K*; repeatable, all have to match")
	cmd.Flags().BoolVar(&credentials, "credentials", false, "with the credentials, password hashes and keys included")
	list.limit, list.all = 1, true
	return managed(cmd, func(cmd *cobra.Command, c *managementClient, args []string) error {
		q, err := list.query()
		if err != nil {
			return err
		}
		if credentials && len(q.filters) > 0 {
			return errors.New("--credentials goes without --filter: it exports all devices")
		}
		e := &deviceExport{client: c, tenant: args[0], query: q, progress: newProgress(cmd.ErrOrStderr(), "devices")}
		write := e.devices
		if credentials {
			write = e.full
		}
		if len(args) < 2 || args[1] == "-" {
			err = write(cmd.Context(), cmd.OutOrStdout())
		} else {
			err = privateFile(args[1], func(w io.Writer) error { return write(cmd.Context(), w) })
		}
		e.progress.end()
		if err == nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "exported %s of %s\n", counted(e.count, "device"), args[0])
		}
		return err
	})
}

// deviceExport writes items of a bulk request.
type deviceExport struct {
	client   *managementClient
	tenant   string
	query    searchQuery
	progress *progress
	count    int
}

// bulkItem is a line that the bulk request takes.
type bulkItem struct {
	Op          string          `json:"op"`
	ID          string          `json:"id"`
	Device      object          `json:"device"`
	Credentials json.RawMessage `json:"credentials,omitempty"`
}

// devices writes what the list of devices has.
func (e *deviceExport) devices(ctx context.Context, w io.Writer) error {
	out := bufio.NewWriter(w)
	_, err := e.client.search(ctx, escaped("/v1/devices", []string{e.tenant}), e.query, func(total int, page []json.RawMessage) error {
		e.progress.total = int64(total)
		for _, text := range page {
			o, err := decodeObject(text)
			if err != nil {
				return err
			}
			id, _ := o["id"].(string)
			o = maps.Clone(o)
			delete(o, "id")
			if err := e.write(out, bulkItem{ID: id, Device: o}); err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(err, out.Flush())
}

func (e *deviceExport) write(out io.Writer, item bulkItem) error {
	item.Op = "put"
	delete(item.Device, "status") // is not taken back
	if err := encodeJSON(out, item); err != nil {
		return err
	}
	e.count++
	e.progress.show(int64(e.count))
	return nil
}

// full writes what the export of the tenant has: its first and last line are no devices.
func (e *deviceExport) full(ctx context.Context, w io.Writer) error {
	var page searchPage
	if e.client.getJSON(ctx, escaped("/v1/devices", []string{e.tenant}), url.Values{"pageSize": {"1"}}, &page) == nil {
		e.progress.total = int64(page.Total)
	}
	reply, end, err := e.client.do(ctx, http.MethodGet, "/v1/export/"+url.PathEscape(e.tenant), nil, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", e.client.base.Host, err)
	}
	defer end()
	if reply.StatusCode != http.StatusOK {
		text, _ := failureText(reply)
		return &apiError{reply.StatusCode, text}
	}
	out := bufio.NewWriter(w)
	err = e.lines(newLineReader(reply.Body), out)
	return errors.Join(err, out.Flush())
}

func (e *deviceExport) lines(in *lineReader, out io.Writer) error {
	if _, err := in.next(); err != nil {
		return fmt.Errorf("the export is not complete: %w", err)
	}
	for {
		l, err := in.next()
		if err != nil {
			return fmt.Errorf("the export is not complete: %w", notEOF(err))
		}
		if n, ok := asEnd(&l); ok {
			if n != e.count {
				return fmt.Errorf("the export is not complete: it has %d devices, its last line says %d", e.count, n)
			}
			return nil
		}
		last := lastLine{text: l.text}
		if said := last.failure(); said != "" && !bytes.Contains(l.text, []byte(`"device"`)) {
			return fmt.Errorf("the export is not complete: %s", said)
		}
		var item bulkItem
		if err := decodeJSON(l.text, &item); err != nil || item.ID == "" || item.Device == nil {
			return fmt.Errorf("line %d of the export is no device", l.number)
		}
		if err := e.write(out, item); err != nil {
			return err
		}
	}
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("its last line is missing")
	}
	return err
}
