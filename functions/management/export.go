package management

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/sluice-iot/sluice/functions/management/api"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/status"
)

// exportPage is how many devices of an export are read at once.
const exportPage = 500

// exportHeader is the first line of an export.
type exportHeader struct {
	Format  string       `json:"format"`
	Version int          `json:"version"`
	ID      iot.TenantID `json:"tenant-id"`
	Tenant  iot.Tenant   `json:"tenant"`
}

// exportDevice is a line of an export.
type exportDevice struct {
	ID          iot.DeviceID     `json:"id"`
	Device      iot.Device       `json:"device"`
	Status      iot.DeviceStatus `json:"status"`
	Credentials []iot.Credential `json:"credentials"`
}

// exportEnd is the last line of an export.
type exportEnd struct {
	End     bool `json:"end"`
	Devices int  `json:"devices"`
}

func (s *server) ExportTenant(ctx context.Context, r api.ExportTenantRequestObject) (api.ExportTenantResponseObject, error) {
	id := iot.TenantID(r.TenantID)
	t, err := s.registry.Tenant(ctx, id)
	if err != nil {
		return nil, err
	}
	// The first page tells whether the store answers, while a status can say so.
	page, err := s.exportPage(ctx, id, "")
	if err != nil {
		return nil, err
	}
	leave, err := s.streams.enter(id)
	if err != nil {
		return nil, err
	}
	return api.ExportTenant200Response{Stream: func(w http.ResponseWriter) error {
		defer leave()
		e := exporter{server: s, w: w, rc: http.NewResponseController(w)}
		return e.run(ctx, exportHeader{registry.ExportFormat, registry.ExportVersion, t.ID, t.Tenant}, page)
	}}, nil
}

func (s *server) exportPage(ctx context.Context, tenant iot.TenantID, after iot.DeviceID) ([]registry.FullDevice, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	return s.registry.ExportDevices(ctx, tenant, after, exportPage)
}

// exporter writes one export.
type exporter struct {
	server *server
	w      http.ResponseWriter
	rc     *http.ResponseController
	buffer bytes.Buffer
	count  int
}

func (e *exporter) run(ctx context.Context, header exportHeader, page []registry.FullDevice) error {
	if err := e.line(header); err != nil {
		return err
	}
	for {
		for i := range page {
			d := &page[i]
			if err := e.line(exportDevice{d.Device.ID, d.Device.Device, d.Device.Status, d.Credentials.Set}); err != nil {
				e.abort(header.ID, err)
			}
			e.count++
		}
		if len(page) < exportPage {
			break
		}
		e.flush()
		var err error
		if page, err = e.server.exportPage(ctx, header.ID, page[len(page)-1].Device.ID); err != nil {
			e.abort(header.ID, err)
		}
	}
	if err := e.line(exportEnd{true, e.count}); err != nil {
		e.abort(header.ID, err)
	}
	e.flush()
	e.rc.SetWriteDeadline(time.Time{}) // the connection may serve another request
	return nil
}

func (e *exporter) line(v any) error {
	b, err := api.Encode(v)
	e.buffer.Write(b)
	e.buffer.WriteByte('\n')
	return err
}

func (e *exporter) flush() {
	e.rc.SetWriteDeadline(time.Now().Add(streamTimeout)) // where there is a connection
	_, err := e.buffer.WriteTo(e.w)
	if err == nil {
		err = e.rc.Flush()
	}
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		panic(http.ErrAbortHandler)
	}
}

// abort ends an export so that the client cannot take it for a whole one.
func (e *exporter) abort(tenant iot.TenantID, err error) {
	e.server.options.Log.Error("export ended early", "tenant", tenant, "devices", e.count, "err", err)
	e.line(failure{status.Text(err)})
	e.flush()
	panic(http.ErrAbortHandler)
}

func (s *server) ImportTenant(ctx context.Context, r api.ImportTenantRequestObject) (api.ImportTenantResponseObject, error) {
	id := iot.TenantID(r.TenantID)
	leave, err := s.streams.enter(id)
	if err != nil {
		return nil, err
	}
	return api.ImportTenant200Response{Stream: func(w http.ResponseWriter) error {
		defer leave()
		t := newTransfer(s, w, r.Body, id)
		items := newLines(t.body, s.maxItem())
		first, err := s.importHeader(ctx, id, items)
		if err != nil {
			return err
		}
		var c completeness
		return t.run(ctx, items, c.decode, c.check, first)
	}}, nil
}

// importHeader reads an export's first line and puts its tenant.
func (s *server) importHeader(ctx context.Context, id iot.TenantID, items splitter) (result, error) {
	number, text, bad, err := items.next()
	switch {
	case errors.Is(err, io.EOF):
		return result{}, iot.Errorf(iot.ErrInvalid, "the body is empty, want an export")
	case err != nil:
		return result{}, bodyError(err)
	case bad != nil:
		return result{}, bad
	}
	_, tenant, err := registry.DecodeExportHeader(text)
	if err != nil {
		return result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	if err := s.checkShared(ctx, id, &tenant); err != nil {
		return result{}, err
	}
	version, created, err := s.registry.PutTenant(ctx, id, tenant)
	if err != nil {
		return result{}, err
	}
	r := result{Line: number, Tenant: id, Status: http.StatusNoContent, ETag: version}
	if created {
		r.Status = http.StatusCreated
	}
	return r, nil
}

// completeness tells whether an export was read whole. Its two methods are
// called one after the other.
type completeness struct {
	ended bool
	want  int
	got   int
}

func (c *completeness) decode(text []byte) (registry.BulkItem, error) {
	item, end, devices, err := registry.DecodeExportLine(text)
	if end {
		c.ended, c.want = true, devices
		return item, errSkip
	}
	if c.ended && err == nil {
		err = iot.Errorf(iot.ErrInvalid, "the line comes after the end of the export")
	}
	c.got++
	return item, err
}

func (c *completeness) check() error {
	switch {
	case !c.ended:
		return iot.Errorf(iot.ErrInvalid, "the export was cut off: its last line is missing, after %d devices", c.got)
	case c.got != c.want:
		return iot.Errorf(iot.ErrInvalid, "the export is incomplete: it has %d devices, its last line says %d", c.got, c.want)
	}
	return nil
}
