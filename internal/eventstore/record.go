package eventstore

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Limits of one append and of one read (contract: events, section 4.4).
const (
	MaxRecords      = 1000
	MaxBatchBytes   = 1 << 20
	MaxMessageBytes = 256 << 10
	// MaxIDBytes bounds the identifiers of tenants and devices in a record.
	MaxIDBytes = 1<<16 - 1
)

// RecordID names a record for as long as it may be appended again: 8 random
// bytes of the writer's start, then its counter.
type RecordID struct {
	Writer  uint64
	Counter uint64 // from 1, one more for each record of the writer
}

// Record is one stored event. The byte slice is shared, not copied.
type Record struct {
	ID       RecordID
	Expires  int64  // Unix ms; 0 = never
	Attempt  uint16 // deliveries that failed before; 0 on append
	Position uint64 // in its partition, from 1; 0 on append
	Tenant   iot.TenantID
	Device   iot.DeviceID
	Message  []byte // encoded AMQP message without delivery annotations
}

// recordHead is what a record has besides its identifiers and its message,
// without the length in front of it.
const recordHead = 16 + 8 + 2 + 8 + 2 + 2

// Size is the length of the record's encoding in bytes.
func (r *Record) Size() int {
	return 4 + recordHead + len(r.Tenant) + len(r.Device) + len(r.Message)
}

// Append appends the encoding of the contract: a length, then the record.
func (r *Record) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(r.Size()-4))
	b = binary.BigEndian.AppendUint64(b, r.ID.Writer)
	b = binary.BigEndian.AppendUint64(b, r.ID.Counter)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Expires))
	b = binary.BigEndian.AppendUint16(b, r.Attempt)
	b = binary.BigEndian.AppendUint64(b, r.Position)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Tenant)))
	b = append(b, r.Tenant...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Device)))
	b = append(b, r.Device...)
	return append(b, r.Message...)
}

// Check refuses what cannot be stored: iot.ErrInvalid, or iot.ErrTooLarge.
func (r *Record) Check() error {
	switch {
	case r.Tenant == "" || len(r.Tenant) > MaxIDBytes:
		return iot.Errorf(iot.ErrInvalid, "a record needs a tenant of at most %d bytes", MaxIDBytes)
	case len(r.Device) > MaxIDBytes:
		return iot.Errorf(iot.ErrInvalid, "device id has %d bytes, at most %d are accepted", len(r.Device), MaxIDBytes)
	case !plain(string(r.Tenant)) || !plain(string(r.Device)):
		return iot.Errorf(iot.ErrInvalid, "tenant and device ids hold no control characters, and are UTF-8")
	case len(r.Message) == 0:
		return iot.Errorf(iot.ErrInvalid, "a record needs a message")
	case len(r.Message) > MaxMessageBytes:
		return iot.Errorf(iot.ErrTooLarge, "message has %d bytes, at most %d are stored", len(r.Message), MaxMessageBytes)
	case r.ID.Counter == 0:
		return iot.Errorf(iot.ErrInvalid, "the counter of a record begins at 1")
	case r.Expires < 0:
		return iot.Errorf(iot.ErrInvalid, "expiry %d lies before 1970", r.Expires)
	}
	return nil
}

// Decode reads the first record of b, which goes on at rest. The message is a
// part of b. Errors wrap iot.ErrInvalid and name the fault.
func Decode(b []byte) (r Record, rest []byte, err error) {
	if len(b) < 4 {
		return r, nil, short("the length of a record", len(b), 4)
	}
	size := int64(binary.BigEndian.Uint32(b))
	b = b[4:]
	switch {
	case size < recordHead:
		return r, nil, short("a record", int(size), recordHead)
	case size > int64(len(b)):
		return r, nil, short("a record", len(b), int(size))
	}
	body, rest := b[:size:size], b[size:]
	r.ID = RecordID{binary.BigEndian.Uint64(body), binary.BigEndian.Uint64(body[8:])}
	r.Expires = int64(binary.BigEndian.Uint64(body[16:]))
	r.Attempt = binary.BigEndian.Uint16(body[24:])
	r.Position = binary.BigEndian.Uint64(body[26:])
	body = body[34:]
	tenant, body, err := text(body, "tenant", 2)
	if err != nil {
		return r, nil, err
	}
	device, body, err := text(body, "device", 0)
	if err != nil {
		return r, nil, err
	}
	r.Tenant, r.Device, r.Message = iot.TenantID(tenant), iot.DeviceID(device), body
	return r, rest, nil
}

// text reads a string with its length in front, behind which more bytes must remain.
func text(b []byte, what string, more int) (s string, rest []byte, err error) {
	if len(b) < 2 {
		return "", nil, short("the length of a record's "+what, len(b), 2)
	}
	n := int(binary.BigEndian.Uint16(b))
	if len(b) < 2+n+more {
		return "", nil, short("a record's "+what, len(b)-2, n+more)
	}
	return string(b[2 : 2+n]), b[2+n:], nil
}

func short(what string, have, want int) error {
	return iot.Errorf(iot.ErrInvalid, "%s has %d bytes, want %d", what, have, want)
}

// DecodeAll reads up to limit records, all that b has.
func DecodeAll(b []byte, limit int) ([]Record, error) {
	var all []Record
	for len(b) > 0 {
		if len(all) == limit {
			return nil, iot.Errorf(iot.ErrTooLarge, "more than %d records", limit)
		}
		r, rest, err := Decode(b)
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", len(all)+1, err)
		}
		all, b = append(all, r), rest
	}
	return all, nil
}

// plain reports whether a text may stand in an attribute of a CloudEvent.
func plain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
