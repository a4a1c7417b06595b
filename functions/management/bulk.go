package management

import (
	"context"
	"io"
	"mime"
	"net/http"

	"github.com/sluice-iot/sluice/functions/management/api"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// ndjson is the media type of one JSON object a line.
const ndjson = "application/x-ndjson"

// maxItem is how many bytes an item of a long request may have: what single
// requests may send of a device and its credentials, with room to spare.
func (s *server) maxItem() int { return int(min(4*s.options.MaxBody, 64<<20)) + 64<<10 }

func (s *server) BulkDevices(ctx context.Context, r api.BulkDevicesRequestObject) (api.BulkDevicesResponseObject, error) {
	tenant := iot.TenantID(r.TenantID)
	if err := s.checkTenant(ctx, tenant); err != nil {
		return nil, err
	}
	leave, err := s.streams.enter(tenant)
	if err != nil {
		return nil, err
	}
	return api.BulkDevices200Response{Stream: func(w http.ResponseWriter) error {
		defer leave()
		t := newTransfer(s, w, r.Body, tenant)
		var items splitter
		if mediaType, _, _ := mime.ParseMediaType(r.MediaType); mediaType == ndjson {
			items = newLines(t.body, s.maxItem())
		} else {
			items = newElements(t.body, s.maxItem())
		}
		return t.run(ctx, items, registry.DecodeBulkItem, nil)
	}}, nil
}

func (s *server) checkTenant(ctx context.Context, id iot.TenantID) error {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	_, err := s.registry.Tenant(ctx, id)
	return err
}

// limited is a body that must not be longer than left.
type limited struct {
	r     io.Reader
	limit int64
	left  int64
}

func (l *limited) Read(b []byte) (int, error) {
	n, err := l.r.Read(b[:min(int64(len(b)), l.left+1)])
	if l.left -= int64(n); l.left < 0 {
		return 0, tooLargeBulk(l.limit)
	}
	return n, err
}
