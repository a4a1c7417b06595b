package command

import (
	"encoding/json"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	// MaxAnnouncement is the largest announcement, in bytes of its data section.
	MaxAnnouncement = 60 * 1024
	// MaxAnnouncedRows is how many rows one announcement has at most.
	MaxAnnouncedRows = 1000
	// maxID is the longest tenant or device id in bytes, and maxAdapter the longest
	// name of an adapter process or type.
	maxID      = 256
	maxAdapter = 256
	// maxTime is the last time of a row, in Unix ms: numbers in JSON are exact up to there.
	maxTime = 1 << 53
)

// announcement is what an adapter process says on device_directory.
type announcement struct {
	adapter string
	reset   bool // what the link announced before is void
	set     []Row
	drop    []key
	via     []gatewayOf // the last known gateways
}

type gatewayOf struct {
	key
	gateway iot.DeviceID
}

// announced is an announcement on the wire.
type announced struct {
	Adapter string  `json:"adapter"`
	Reset   bool    `json:"reset"`
	Set     [][]any `json:"set"`  // tenant, device, at, until, adapter type, 1 = for all devices of the gateway
	Drop    [][]any `json:"drop"` // tenant, device
	Via     [][]any `json:"via"`  // tenant, device, gateway
}

// readAnnouncement decodes the message of an announcement.
func readAnnouncement(message []byte) (*announcement, *amqp.Error) {
	s, err := amqp.ScanSections(message)
	if err != nil {
		return nil, badRequest("malformed announcement: %v", err)
	}
	m, err := amqp.DecodeMessage(message[s.Body:])
	if err != nil {
		return nil, badRequest("malformed announcement: %v", err)
	}
	if len(m.Data) != 1 {
		return nil, badRequest("an announcement has one data section: got %d", len(m.Data))
	}
	return parseAnnouncement(m.Data[0])
}

func parseAnnouncement(data []byte) (*announcement, *amqp.Error) {
	if len(data) > MaxAnnouncement {
		return nil, badRequest("an announcement has at most %d bytes: got %d", MaxAnnouncement, len(data))
	}
	var w announced
	if err := json.Unmarshal(data, &w); err != nil {
		return nil, badRequest("an announcement is a JSON object with adapter, reset, set, drop and via: %v", err)
	}
	if n := len(w.Set) + len(w.Drop) + len(w.Via); n > MaxAnnouncedRows {
		return nil, badRequest("an announcement has at most %d rows: got %d", MaxAnnouncedRows, n)
	}
	if w.Adapter == "" || len(w.Adapter) > maxAdapter {
		return nil, badRequest("member adapter: expected the name of the process, of 1 to %d bytes", maxAdapter)
	}
	a := &announcement{adapter: w.Adapter, reset: w.Reset,
		set: make([]Row, len(w.Set)), drop: make([]key, len(w.Drop)), via: make([]gatewayOf, len(w.Via))}
	for i, row := range w.Set {
		if !a.set[i].read(row) {
			return nil, badRequest("set[%d]: expected [tenant, device, at, until, adapter type, 0 or 1]", i)
		}
	}
	for i, row := range w.Drop {
		if len(row) != 2 || !a.drop[i].read(row) {
			return nil, badRequest("drop[%d]: expected [tenant, device]", i)
		}
	}
	for i, row := range w.Via {
		if len(row) != 3 || !a.via[i].read(row) || !id(row[2], &a.via[i].gateway) {
			return nil, badRequest("via[%d]: expected [tenant, device, gateway]", i)
		}
	}
	return a, nil
}

// read takes a row as JSON has it.
func (r *Row) read(row []any) bool {
	if len(row) != 6 {
		return false
	}
	var k key
	adapter, ok := row[4].(string)
	all, isNumber := row[5].(float64)
	if !k.read(row) || !ok || len(adapter) > maxAdapter || !isNumber || all != 0 && all != 1 || !millis(row[2], &r.At) || !millis(row[3], &r.Until) {
		return false
	}
	r.Tenant, r.Device, r.Adapter, r.All = k.tenant, k.device, adapter, all == 1
	return true
}

func (k *key) read(row []any) bool { return id(row[0], &k.tenant) && id(row[1], &k.device) }

// id takes a tenant or device id.
func id[T ~string](v any, to *T) bool {
	s, ok := v.(string)
	*to = T(s)
	return ok && s != "" && len(s) <= maxID && utf8.ValidString(s)
}

// millis takes a time in whole ms.
func millis(v any, to *int64) bool {
	f, ok := v.(float64)
	if !ok || f < 0 || f > maxTime {
		return false
	}
	*to = int64(f)
	return float64(*to) == f
}
