package eventstore_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

var example = eventstore.Record{ID: eventstore.RecordID{Writer: 0x0102030405060708, Counter: 0x1112131415161718}, Expires: 0x21, Attempt: 0x3132,
	Position: 0x41, Tenant: "TN", Device: "dev", Message: []byte{0xfe, 0xff}}

// The contract's encoding, byte by byte.
const exampleBytes = "0000002d" + // the length of the rest
	"0102030405060708" + "1112131415161718" + // id
	"0000000000000021" + // expiry
	"3132" + // attempt
	"0000000000000041" + // position
	"0002" + "544e" + // tenant
	"0003" + "646576" + // device
	"feff" // message

func TestRecord(t *testing.T) {
	got := example.Append([]byte{9})
	if hex.EncodeToString(got) != "09"+exampleBytes {
		t.Fatalf("encoded as\n%x, want\n09%s", got, exampleBytes)
	}
	if example.Size() != len(got)-1 {
		t.Errorf("size %d, want %d", example.Size(), len(got)-1)
	}
	back, rest, err := eventstore.Decode(append(got[1:], 7))
	if err != nil || len(rest) != 1 {
		t.Fatalf("decoded with rest %x, %v", rest, err)
	}
	if diff := cmp.Diff(example, back); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeTruncated(t *testing.T) {
	whole := example.Append(nil)
	for n := range len(whole) {
		if _, _, err := eventstore.Decode(whole[:n]); !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
		if _, err := eventstore.DecodeAll(append(bytes.Clone(whole), whole[:n]...), 5); n > 0 && !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("a record and %d bytes: %v", n, err)
		}
	}
}

func TestDecodeMalformed(t *testing.T) {
	for name, x := range map[string]string{
		"length below the least":       "00000025" + exampleBytes[8:],
		"length of nothing":            "00000000",
		"length of 4 GiB":              "ffffffff" + exampleBytes[8:],
		"tenant longer than the rest":  exampleBytes[:76] + "ffff" + exampleBytes[80:],
		"tenant that leaves no device": exampleBytes[:76] + "0008" + exampleBytes[80:],
		"device longer than the rest":  exampleBytes[:84] + "0006" + exampleBytes[88:],
	} {
		b, err := hex.DecodeString(x)
		if err != nil {
			t.Fatal(err)
		}
		if r, _, err := eventstore.Decode(b); !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("%s: %+v, %v, want iot.ErrInvalid", name, r, err)
		}
	}
}

func TestDecodeAllLimit(t *testing.T) {
	three := example.Append(example.Append(example.Append(nil)))
	if list, err := eventstore.DecodeAll(three, 3); err != nil || len(list) != 3 {
		t.Errorf("%d records, %v", len(list), err)
	}
	if _, err := eventstore.DecodeAll(three, 2); !errors.Is(err, iot.ErrTooLarge) {
		t.Errorf("more than the limit: %v", err)
	}
	if list, err := eventstore.DecodeAll(nil, 0); err != nil || len(list) != 0 {
		t.Errorf("nothing: %v, %v", list, err)
	}
}

func TestRecordCheck(t *testing.T) {
	for name, x := range map[string]struct {
		spoil func(*eventstore.Record)
		want  error
	}{
		"right":             {func(*eventstore.Record) {}, nil},
		"no device":         {func(r *eventstore.Record) { r.Device = "" }, nil},
		"longest tenant":    {func(r *eventstore.Record) { r.Tenant = iot.TenantID(strings.Repeat("t", 65535)) }, nil},
		"largest message":   {func(r *eventstore.Record) { r.Message = make([]byte, 256<<10) }, nil},
		"never expires":     {func(r *eventstore.Record) { r.Expires = 0 }, nil},
		"no tenant":         {func(r *eventstore.Record) { r.Tenant = "" }, iot.ErrInvalid},
		"long tenant":       {func(r *eventstore.Record) { r.Tenant = iot.TenantID(make([]byte, 65536)) }, iot.ErrInvalid},
		"long device":       {func(r *eventstore.Record) { r.Device = iot.DeviceID(make([]byte, 65536)) }, iot.ErrInvalid},
		"control in tenant": {func(r *eventstore.Record) { r.Tenant = "a\x00b" }, iot.ErrInvalid},
		"line in device":    {func(r *eventstore.Record) { r.Device = "a\r\nb" }, iot.ErrInvalid},
		"device not UTF-8":  {func(r *eventstore.Record) { r.Device = "a\xffb" }, iot.ErrInvalid},
		"no message":        {func(r *eventstore.Record) { r.Message = nil }, iot.ErrInvalid},
		"large message":     {func(r *eventstore.Record) { r.Message = make([]byte, 256<<10+1) }, iot.ErrTooLarge},
		"no counter":        {func(r *eventstore.Record) { r.ID.Counter = 0 }, iot.ErrInvalid},
		"negative expiry":   {func(r *eventstore.Record) { r.Expires = math.MinInt64 }, iot.ErrInvalid},
	} {
		r := example
		x.spoil(&r)
		if err := r.Check(); !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(example.Append(nil))
	f.Add((&eventstore.Record{ID: eventstore.RecordID{Counter: 1}, Tenant: "T", Message: []byte("m")}).Append(example.Append(nil)))
	f.Add([]byte{0, 0, 0, 38})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := eventstore.DecodeAll(b, 10)
		if err != nil {
			if !errors.Is(err, iot.ErrInvalid) && !errors.Is(err, iot.ErrTooLarge) {
				t.Errorf("error %v", err)
			}
			return
		}
		var again []byte
		for i := range list {
			before := len(again)
			if again = list[i].Append(again); len(again)-before != list[i].Size() {
				t.Errorf("record %d has %d bytes, its size is %d", i, len(again)-before, list[i].Size())
			}
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%x becomes %x", b, again)
		}
	})
}

func TestPartitionID(t *testing.T) {
	for text, want := range map[string]eventstore.PartitionID{"0-0": {}, "0-5": {Number: 5}, "3-65535": {Generation: 3, Number: 65535}} {
		var got eventstore.PartitionID
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
		if b, err := want.MarshalText(); err != nil || string(b) != text {
			t.Errorf("%v: %s, %v", want, b, err)
		}
	}
	for _, text := range []string{"", "5", "0-", "-5", "0-65536", "65536-0", "0-5-1", "a-b", "0--1", "+0-1"} {
		var got eventstore.PartitionID
		if err := got.UnmarshalText([]byte(text)); !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

// The partition of a device is part of the contract: other programs may compute it.
func TestPartitionOf(t *testing.T) {
	for device, want := range map[iot.DeviceID]uint16{"": 0x811c9dc5 % 8, "a": 0xe40c292c % 8, "foobar": 0xbf9cf968 % 8} {
		if got := eventstore.PartitionOf(device); got != (eventstore.PartitionID{Number: want}) {
			t.Errorf("%q lies in %v, want number %d", device, got, want)
		}
	}
	seen := map[eventstore.PartitionID]int{}
	for n := range 8000 {
		seen[eventstore.PartitionOf(iot.DeviceID(hex.EncodeToString([]byte{byte(n >> 8), byte(n)})))]++
	}
	for _, id := range eventstore.FirstGeneration() {
		if seen[id] < 800 || seen[id] > 1200 {
			t.Errorf("%v has %d of 8,000 devices", id, seen[id])
		}
	}
}
