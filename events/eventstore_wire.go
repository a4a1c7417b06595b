package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// RecordsType is the media type of stored records, one after the other (contract:
// events, section 4.4): the data of an append and of the reply to a read.
const RecordsType = "application/vnd.sluice.records"

// Extension attributes of calls about stored events. Positions are strings of
// decimal digits: an Integer has 32 bits.
const (
	AttrHolder       = "holder"       // append: who appends, as it claims
	AttrNextPosition = "nextposition" // reply to read: the from of the next one
	AttrEndPosition  = "endposition"  // reply to read: the next position to be given
	AttrNextAt       = "nextat"       // replies to read and settle: when the next event is due again
	AttrWanted       = "wanted"       // reply to read: another holder waits for the partition
)

// noPartition stands for one that was not named.
var noPartition = eventstore.PartitionID{Generation: 1<<16 - 1, Number: 1<<16 - 1}

func needPartition(id *eventstore.PartitionID, err error) error {
	if err == nil && *id == noPartition {
		return errors.New("member partition is missing")
	}
	return err
}

// limited is a list of at most as many elements as one call has. What is beyond is
// not read.
type limited[T any] []T

// UnmarshalJSON implements [json.Unmarshaler].
func (l *limited[T]) UnmarshalJSON(b []byte) error {
	*l = nil
	d := json.NewDecoder(bytes.NewReader(b))
	switch start, err := d.Token(); {
	case err != nil:
		return err
	case start == nil: // null
		return nil
	case start != json.Delim('['):
		return errors.New("want a list")
	}
	for d.More() {
		if len(*l) == eventstore.MaxRecords {
			return iot.Errorf(iot.ErrTooLarge, "a list has more than %d elements", eventstore.MaxRecords)
		}
		var v T
		if err := d.Decode(&v); err != nil {
			return err
		}
		*l = append(*l, v)
	}
	return nil
}

func (q EventAppend) encodeTo(e *event.Event) error {
	if q.Holder != "" {
		if err := setText(e, AttrHolder, q.Holder); err != nil {
			return err
		}
	}
	return setRecords(e, q.Records)
}

func (EventAppend) decodeFrom(e *event.Event) (Request, error) {
	holder, err := extension(e, AttrHolder)
	if err != nil {
		return nil, errors.New("attribute holder is no string")
	}
	records, err := decodeRecords(e.Data())
	if err != nil {
		return nil, err
	}
	for i := range records {
		switch r := &records[i]; {
		case r.Attempt != 0 || r.Position != 0:
			return nil, iot.Errorf(iot.ErrInvalid, "record %d has an attempt or a position, which the store gives", i+1)
		case !utf8.ValidString(string(r.Tenant)) || !utf8.ValidString(string(r.Device)):
			return nil, iot.Errorf(iot.ErrInvalid, "record %d: tenant or device is not valid UTF-8", i+1)
		}
	}
	return EventAppend{eventstore.AppendRequest{Records: records, Holder: holder}}, nil
}

// setRecords makes records the data of e: iot.ErrTooLarge for more than one call carries.
func setRecords(e *event.Event, records []eventstore.Record) error {
	if len(records) > eventstore.MaxRecords {
		return iot.Errorf(iot.ErrTooLarge, "%d records, at most %d are carried at once", len(records), eventstore.MaxRecords)
	}
	size := 0
	for i := range records {
		r := &records[i]
		if len(r.Tenant) > eventstore.MaxIDBytes || len(r.Device) > eventstore.MaxIDBytes {
			return iot.Errorf(iot.ErrInvalid, "record %d: an identifier has more than %d bytes", i+1, eventstore.MaxIDBytes)
		}
		size += r.Size()
	}
	if size > eventstore.MaxBatchBytes {
		return iot.Errorf(iot.ErrTooLarge, "%d bytes of records, at most %d are carried at once", size, eventstore.MaxBatchBytes)
	}
	b := make([]byte, 0, size)
	for i := range records {
		b = records[i].Append(b)
	}
	e.SetDataContentType(RecordsType)
	e.DataEncoded, e.DataBase64 = b, true
	return nil
}

func decodeRecords(b []byte) ([]eventstore.Record, error) {
	if len(b) > eventstore.MaxBatchBytes {
		return nil, iot.Errorf(iot.ErrTooLarge, "%d bytes of records, at most %d are carried at once", len(b), eventstore.MaxBatchBytes)
	}
	return eventstore.DecodeAll(b, eventstore.MaxRecords)
}

func (r *EventReadResult) encodeTo(e *event.Event) error { return setRecords(e, r.Records) }

func (r *EventReadResult) decodeFrom(e *event.Event) (err error) {
	if len(e.Data()) > 0 && !isMedia(e.DataContentType(), RecordsType) {
		return iot.Errorf(iot.ErrInvalid, "datacontenttype is %.80q, want %s", e.DataContentType(), RecordsType)
	}
	r.Records, err = decodeRecords(e.Data())
	return err
}

func (r *EventReadResult) setAttributes(e *event.Event) {
	e.SetExtension(AttrNextPosition, strconv.FormatUint(r.Next, 10))
	e.SetExtension(AttrEndPosition, strconv.FormatUint(r.End, 10))
	setNextAt(e, r.NextAt)
	if r.Wanted {
		e.SetExtension(AttrWanted, true)
	}
}

func (r *EventReadResult) readAttributes(e *event.Event) (err error) {
	if r.Next, err = position(e, AttrNextPosition); err != nil {
		return err
	}
	if r.End, err = position(e, AttrEndPosition); err != nil {
		return err
	}
	if v, ok := e.Extensions()[AttrWanted]; ok {
		if r.Wanted, err = types.ToBool(v); err != nil {
			return errors.New("attribute wanted is no Boolean")
		}
	}
	r.NextAt, err = nextAt(e)
	return err
}

func (r *EventSettleResult) setAttributes(e *event.Event) { setNextAt(e, r.NextAt) }

func (r *EventSettleResult) readAttributes(e *event.Event) (err error) {
	r.NextAt, err = nextAt(e)
	return err
}

func setNextAt(e *event.Event, t time.Time) {
	if !t.IsZero() {
		e.SetExtension(AttrNextAt, types.Timestamp{Time: wireTime(t)})
	}
}

// nextAt is zero where nothing is due again.
func nextAt(e *event.Event) (time.Time, error) {
	v, ok := e.Extensions()[AttrNextAt]
	if !ok {
		return time.Time{}, nil
	}
	t, err := types.ToTime(v)
	if err != nil {
		return t, errors.New("attribute nextat is no time")
	}
	return wireTime(t), nil
}

func position(e *event.Event, name string) (uint64, error) {
	text, err := extension(e, name)
	if err != nil {
		return 0, errors.New("attribute " + name + " is no string")
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, errors.New("attribute " + name + " is no position")
	}
	return n, nil
}
