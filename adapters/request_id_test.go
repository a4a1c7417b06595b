package adapters_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
)

func TestRequestID(t *testing.T) {
	long := strings.Repeat("c", 255)
	for _, tt := range []struct {
		name                       string
		device, correlation, reply string
		want                       string // "" = none can be built
	}{
		{"plain", "4711", "abc", "reply-1", "003abcreply-1"},
		{"reply id of the device", "4711", "abc", "4711/reply-1", "103abcreply-1"},
		{"reply id of another device", "4711", "abc", "4712/reply-1", "003abc4712/reply-1"},
		{"reply id begins like the device", "4711", "abc", "47112", "003abc47112"},
		{"reply id is the device and a slash", "4711", "abc", "4711/", "103abc"},
		{"longest correlation id", "4711", long, "r", "0ff" + long + "r"},
		{"16", "4711", "0123456789abcdef", "r", "0100123456789abcdefr"},
		{"beyond ASCII", "4711", "grün", "r", "004grünr"},
		{"beyond 16 bits", "4711", "a😀", "r", "003a😀r"},
		{"correlation id too long", "4711", long + "c", "r", ""},
		{"correlation id too long in UTF-16", "4711", strings.Repeat("😀", 128), "r", ""},
		{"no correlation id", "4711", "", "r", ""},
		{"no device", "", "abc", "r", ""},
		{"one-way", "4711", "abc", "", ""},
		{"no UTF-8", "4711", "\xff", "r", ""},
		{"reply id too long", "4711", "abc", strings.Repeat("r", 5000), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := adapters.Command{Device: iot.DeviceID(tt.device), CorrelationID: tt.correlation, ReplyID: tt.reply}
			got, err := c.RequestID()
			if got != tt.want || (err == nil) != (tt.want != "") || err != nil && !errors.Is(err, iot.ErrInvalid) {
				t.Fatalf("got %q and error %v, want %q", got, err, tt.want)
			}
			if err != nil {
				return
			}
			to, err := adapters.ParseRequestID(got, c.Device)
			if want := (adapters.ResponseTo{CorrelationID: tt.correlation, ReplyID: tt.reply}); err != nil || to != want {
				t.Errorf("read back: got %+v and error %v, want %+v", to, err, want)
			}
		})
	}
}

func TestParseRequestIDRefuses(t *testing.T) {
	for name, id := range map[string]string{
		"empty":                              "",
		"flag alone":                         "0",
		"no correlation id":                  "003",
		"length 0":                           "000r",
		"correlation id too short":           "004abc",
		"no reply id":                        "003abc",
		"flag is no digit":                   "x03abcr",
		"flag of another messaging system":   "203abcr",
		"flag of one that does not exist":    "603abcr",
		"length in upper case":               "00Aabcdefghijr",
		"length is no number":                "0zzabcr",
		"length cuts a character":            "002a😀r",
		"length cuts the only character":     "001😀r",
		"no UTF-8":                           "003abc\xff",
		"longer than a device may say it is": "003abc" + strings.Repeat("r", 5000),
	} {
		t.Run(name, func(t *testing.T) {
			if to, err := adapters.ParseRequestID(id, "4711"); !errors.Is(err, iot.ErrInvalid) {
				t.Errorf("got %+v and error %v, want %v", to, err, iot.ErrInvalid)
			}
		})
	}
	if to, err := adapters.ParseRequestID("103abcr", ""); !errors.Is(err, iot.ErrInvalid) {
		t.Errorf("for no device: got %+v and error %v, want %v", to, err, iot.ErrInvalid)
	}
}

// FuzzRequestID: no id ends the process, what is read from one can be said again with
// the same meaning, and what a command says is read.
func FuzzRequestID(f *testing.F) {
	for _, id := range []string{"", "003abcreply-1", "103abcr", "0ffabc", "002a😀r", "203abcr", "00\xff"} {
		f.Add(id, "4711")
	}
	f.Fuzz(func(t *testing.T, id, device string) {
		to, err := adapters.ParseRequestID(id, iot.DeviceID(device))
		if err != nil {
			if !errors.Is(err, iot.ErrInvalid) {
				t.Errorf("error %v, want one that wraps %v", err, iot.ErrInvalid)
			}
		} else if !utf8.ValidString(device) || device == "" {
			return // no registry has such a device
		} else {
			again(t, device, to.CorrelationID, to.ReplyID)
		}
		if cut := len(id) / 2; utf8.ValidString(id) && utf8.ValidString(device) {
			again(t, device, id[:cut], id[cut:])
		}
	})
}

// again says and reads back where a response goes, where that is possible.
func again(t *testing.T, device, correlation, reply string) {
	c := adapters.Command{Device: iot.DeviceID(device), CorrelationID: correlation, ReplyID: reply}
	id, err := c.RequestID()
	if err != nil {
		return
	}
	to, err := adapters.ParseRequestID(id, c.Device)
	if want := (adapters.ResponseTo{CorrelationID: correlation, ReplyID: reply}); err != nil || to != want {
		t.Errorf("%q for %q: got %+v and error %v, want %+v", id, device, to, err, want)
	}
}
