package events_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

const structured = `{"specversion":"1.0","id":"a","type":"t","source":"//s/a",%s}`

func TestParseJSON(t *testing.T) {
	for members, want := range map[string]struct{ data, contentType string }{
		`"x":"y"`:               {"", ""},
		`"data":{"a": 1}`:       {`{"a": 1}`, "application/json"},
		`"data":5,"x":1`:        {"5", "application/json"},
		`"data_base64":"e30="`:  {"{}", ""},
		`"data_base64": "e30="`: {"{}", ""},
		`"data_base64": "e30=","datacontenttype":"application/json"`:     {"{}", "application/json"},
		`"datacontenttype":"application/json","data_base64":"e3\u0030="`: {"{}", "application/json"},
		`"data_base64":null,"data":{}`:                                   {"{}", "application/json"},
		`"datacontenttype":"text/plain","data":"a\nb"`:                   {"a\nb", "text/plain"},
	} {
		e, err := events.ParseJSON(fmt.Appendf(nil, structured, members))
		if err != nil || string(e.Data()) != want.data || e.DataContentType() != want.contentType {
			t.Errorf("%s: data %q of type %q, %v, want %+v", members, e.Data(), e.DataContentType(), err, want)
		}
	}
}

func TestParseJSONRefuses(t *testing.T) {
	for _, members := range []string{
		`"data_base64":5`, `"data_base64":{}`, `"data_base64":"`, `"data_base64":"?"`, `"data":{},"data_base64":"e30="`,
		`"specversion":"0.3"`, `"time":"noon"`, `"x":{}`, `"x":[1]`, `"x":"a\u0001b"`, `"x":"a\u0085b"`, `"subject":"a\nb"`,
		`"source":"//s/\u0000"`, `"type":"t\u007f"`, `"id":"\t"`,
	} {
		if _, err := events.ParseJSON(fmt.Appendf(nil, structured, members)); !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("%s: %v", members, err)
		}
	}
}

func FuzzParseJSON(f *testing.F) {
	for _, members := range []string{`"data":{}`, `"data_base64":"e30="`, `"data_base64":5`, `"time":"2026-11-22T20:00:00Z","x":true`} {
		f.Add(fmt.Appendf(nil, structured, members))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := events.ParseJSON(b)
		if err != nil || e.Validate() != nil {
			return
		}
		if _, err := e.MarshalJSON(); err != nil {
			t.Errorf("what was read does not write: %v", err)
		}
	})
}
