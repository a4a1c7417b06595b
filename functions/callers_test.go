package functions_test

import (
	"crypto/tls"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/events"
	cehttpinvoke "github.com/sluice-iot/sluice/events/invoke/http"
	"github.com/sluice-iot/sluice/events/invoke/inproc"
	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/iot"
)

// TestWhoIsNotAComponent drives a host with mutual TLS: a refusal of the
// component never looks like one of a device.
func TestWhoIsNotAComponent(t *testing.T) {
	in, ca := seeded(t), newAuthority(t)
	url := in.host(t, ca)
	stranger := newAuthority(t)
	for _, tt := range []struct {
		name   string
		certs  []tls.Certificate
		status int // 0 = no handshake
	}{
		{"no certificate", nil, 401},
		{"no kind", []tls.Certificate{ca.issue(t, "x-0", "")}, 401},
		{"kind of nobody", []tls.Certificate{ca.issue(t, "x-0", "admin")}, 401},
		{"no name", []tls.Certificate{ca.issue(t, "", "router")}, 401},
		{"not allowed to ask this", []tls.Certificate{ca.issue(t, "adapter-0", "adapter")}, 403},
		{"another CA", []tls.Certificate{stranger.issue(t, "router-0", "router")}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := &tls.Config{RootCAs: ca.pool, Certificates: tt.certs}
			inv, err := cehttpinvoke.New(cehttpinvoke.Config{URL: url, Source: "//sluice.test/routers/x", TLS: cfg})
			if err != nil {
				t.Fatal(err)
			}
			defer inv.Close()
			_, err = inv.Invoke(t.Context(), events.CredentialsGet{TenantID: "DEMO", Type: "psk", AuthID: "psk"})
			if !errors.Is(err, iot.ErrUnavailable) {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
			if tt.status == 0 {
				return
			}
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg}}
			defer client.CloseIdleConnections()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(`{"type":"psk","auth-id":"psk"}`))
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range map[string]string{"specversion": "1.0", "type": events.TypeCredentialsGet, "source": "//x", "id": "1", "tenantid": "DEMO"} {
				req.Header.Set("ce-"+k, v)
			}
			req.Header.Set("Content-Type", "application/json")
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != tt.status {
				t.Errorf("status %d, want %d", resp.StatusCode, tt.status)
			}
		})
	}
}

// TestKeysOverHTTPVerify is a router's way: keys by a call, tokens by the keys.
func TestKeysOverHTTPVerify(t *testing.T) {
	in := seeded(t)
	inv := in.invokers(t)["HTTP"]
	v := assertion.NewVerifier(assertion.VerifierConfig{Issuer: issuer, Keys: functionsKeys(inv)})
	defer v.Close()
	got, err := events.Call(t.Context(), inv, events.RegistrationAssert{TenantID: "DEMO", DeviceID: "4711", GatewayID: "gw-1"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := v.Verify([]byte(got.Assertion), noon)
	if err != nil || !c.Matches("DEMO", "4711") || c.Gateway != "gw-1" {
		t.Errorf("got %+v, %v", c, err)
	}
	// A change of the registry moves the position that later tokens are signed at.
	in.device(t, "DEMO", "new", `{}`, "")
	later, err := events.Call(t.Context(), inv, events.RegistrationAssert{TenantID: "DEMO", DeviceID: "4711"})
	if err != nil {
		t.Fatal(err)
	}
	c2, err := v.Verify([]byte(later.Assertion), noon)
	if err != nil || c2.Rev <= c.Rev {
		t.Errorf("rev %q after %q, %v", c2.Rev, c.Rev, err)
	}
	v.Void("DEMO", "4711", c2.Rev, noon)
	if _, err := v.Verify([]byte(got.Assertion), noon); !errors.Is(err, iot.ErrForbidden) {
		t.Errorf("an overtaken token: %v", err)
	}
	if _, err := v.Verify([]byte(later.Assertion), noon); err != nil {
		t.Errorf("a token of that position: %v", err)
	}
}

func TestSignAndRotateInProcess(t *testing.T) {
	in := seeded(t)
	inv, err := inproc.New(log, in.functions...)
	if err != nil {
		t.Fatal(err)
	}
	old, err := events.Call(t.Context(), inv, events.AssertionSign{TenantID: "DEMO", DeviceID: "4711", Rev: events.Sequence(1)})
	if err != nil || !old.Expires.Equal(noon.Add(24*time.Hour)) {
		t.Fatalf("got %+v, %v", old, err)
	}
	rotated, err := events.Call(t.Context(), inv, events.AssertionRotate{OverlapSeconds: 86400, At: noon})
	if err != nil {
		t.Fatal(err)
	}
	again, err := events.Call(t.Context(), inv, events.AssertionRotate{OverlapSeconds: 86400, At: noon.Add(time.Hour)})
	if err != nil || again.KID != rotated.KID {
		t.Errorf("the same day: %v, %v", again, err)
	}
	keys, err := events.Call(t.Context(), inv, events.AssertionKeys{})
	if err != nil || len(keys.Keys) != 2 || keys.MaxAge() != 24*time.Hour {
		t.Errorf("%d keys for %s, %v", len(keys.Keys), keys.MaxAge(), err)
	}
	for _, seconds := range []int{-1, 1 << 40} {
		if _, err := events.Call(t.Context(), inv, events.AssertionRotate{OverlapSeconds: seconds}); !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("overlap %d: %v", seconds, err)
		}
	}
}
