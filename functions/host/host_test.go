package host_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions/host"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
)

func says(c host.Caller, err error) host.CallerFunc {
	return func(*http.Request) (host.Caller, error) { return c, err }
}

func TestFirstOf(t *testing.T) {
	adapter := host.Caller{Kind: host.Adapter, Instance: "a"}
	stranger := iot.Errorf(iot.ErrUnauthenticated, "who are you")
	down := iot.Errorf(iot.ErrUnavailable, "issuer down")
	for name, tt := range map[string]struct {
		ways []host.CallerFunc
		want host.Caller
		err  error
	}{
		"nobody asked": {nil, host.Caller{}, iot.ErrUnauthenticated},
		"the second":   {[]host.CallerFunc{says(host.Caller{}, stranger), says(adapter, nil)}, adapter, nil},
		"neither":      {[]host.CallerFunc{says(host.Caller{}, stranger), says(host.Caller{}, stranger)}, host.Caller{}, iot.ErrUnauthenticated},
		"not known":    {[]host.CallerFunc{says(host.Caller{}, down), says(adapter, nil)}, host.Caller{}, iot.ErrUnavailable},
	} {
		got, err := host.FirstOf(tt.ways...)(httptest.NewRequest(http.MethodPost, "/", nil))
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// tokens are those of an issuer that is down.
type tokens struct{ asked int }

func (s *tokens) Token(context.Context, string) (*auth.Identity, error) {
	s.asked++
	return nil, iot.Errorf(iot.ErrUnavailable, "issuer down")
}

func TestTokenCaller(t *testing.T) {
	s := &tokens{}
	for header, want := range map[string]error{
		"": iot.ErrUnauthenticated, "Basic YTpi": iot.ErrUnauthenticated, "Bearer ": iot.ErrUnauthenticated, "Bearer x": iot.ErrUnavailable, "bearer x": iot.ErrUnavailable,
	} {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.Header.Set("Authorization", header)
		if _, err := host.TokenCaller(s)(r); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", header, err, want)
		}
	}
	if s.asked != 2 {
		t.Errorf("asked %d times", s.asked)
	}
}

func TestNobodyOutsideSignsOrRotates(t *testing.T) {
	everybody := append([]host.Kind{host.Operator, ""}, host.Kinds...)
	for _, typ := range []string{events.TypeAssertionSign, events.TypeAssertionRotate, "io.sluice.nothing"} {
		if err := host.Permit(typ, everybody...); !errors.Is(err, iot.ErrForbidden) {
			t.Errorf("%s: %v", typ, err)
		}
	}
	for _, k := range events.Catalogue() {
		if err := host.Permit(k.Type); !errors.Is(err, iot.ErrForbidden) {
			t.Errorf("nobody may ask %s: %v", k.Type, err)
		}
	}
}
