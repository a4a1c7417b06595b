package realm_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/functions/realm"
	"github.com/sluice-iot/sluice/internal/auth/oidc"
	"github.com/sluice-iot/sluice/internal/iot"
)

// issuer is an issuer by a function.
type issuer func(ctx context.Context, user, password string) (*oidc.Token, error)

func (i issuer) Login(ctx context.Context, user, password string) (*oidc.Token, error) {
	return i(ctx, user, password)
}

// says is an issuer whose tokens have the claims and end in an hour.
func says(claims string) issuer {
	return func(context.Context, string, string) (*oidc.Token, error) {
		t := &oidc.Token{Subject: "s", Expires: time.Now().Add(time.Hour)}
		return t, json.Unmarshal([]byte(claims), &t.Claims)
	}
}

func realms(t *testing.T, p realm.Provider) *realm.Realms {
	t.Helper()
	p.Name = "plant"
	if p.Tenants == nil {
		p.Tenants = []iot.TenantID{"ACME"}
	}
	r, err := realm.New([]realm.Provider{p}, slog.New(slog.DiscardHandler), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestClaims(t *testing.T) {
	long := strings.Repeat("x", 256)
	for name, tt := range map[string]struct {
		claims   string
		provider realm.Provider
		want     iot.DeviceID // "" = refused
	}{
		"the user is the device": {claims: `{"preferred_username":"sensor1"}`, want: "sensor1"},
		"a claim names it":       {claims: `{"preferred_username":"sensor1","device":"4711"}`, provider: realm.Provider{DeviceClaim: "device"}, want: "4711"},
		"a list of one":          {claims: `{"preferred_username":"sensor1","device":["4711"]}`, provider: realm.Provider{DeviceClaim: "device"}, want: "4711"},
		"two devices":            {claims: `{"preferred_username":"sensor1","device":["4711","4712"]}`, provider: realm.Provider{DeviceClaim: "device"}},
		"no claim":               {claims: `{"preferred_username":"sensor1"}`, provider: realm.Provider{DeviceClaim: "device"}},
		"empty claim":            {claims: `{"preferred_username":"sensor1","device":""}`, provider: realm.Provider{DeviceClaim: "device"}},
		"claim of another kind":  {claims: `{"preferred_username":"sensor1","device":4711}`, provider: realm.Provider{DeviceClaim: "device"}},
		"no id":                  {claims: `{"preferred_username":"sensor1","device":"a\u0000b"}`, provider: realm.Provider{DeviceClaim: "device"}},
		"long":                   {claims: `{"preferred_username":"sensor1","device":"` + long + `"}`, provider: realm.Provider{DeviceClaim: "device"}},
		"another spelling":       {claims: `{"preferred_username":"Sensor1"}`},
		"no user":                {claims: `{}`},
		"another user claim":     {claims: `{"email":"sensor1","preferred_username":"d"}`, provider: realm.Provider{UserClaim: "email"}, want: "d"},
		"the tenant":             {claims: `{"preferred_username":"sensor1","t":"ACME"}`, provider: realm.Provider{TenantClaim: "t"}, want: "sensor1"},
		"one of its tenants":     {claims: `{"preferred_username":"sensor1","t":["B","ACME"]}`, provider: realm.Provider{TenantClaim: "t", Tenants: []iot.TenantID{"*"}}, want: "sensor1"},
		"another tenant":         {claims: `{"preferred_username":"sensor1","t":"B"}`, provider: realm.Provider{TenantClaim: "t"}},
		"no tenant":              {claims: `{"preferred_username":"sensor1"}`, provider: realm.Provider{TenantClaim: "t"}},
	} {
		t.Run(name, func(t *testing.T) {
			tt.provider.Issuer = says(tt.claims)
			got, until, err := realms(t, tt.provider).Verify(t.Context(), "plant", "ACME", "sensor1", "pw")
			if tt.want == "" {
				if !errors.Is(err, iot.ErrUnauthenticated) || err.Error() != "bad credentials" {
					t.Errorf("got %q, %v; want bad credentials", got, err)
				}
				return
			}
			if err != nil || got != tt.want || time.Until(until) > realm.DefaultMaxAge {
				t.Errorf("got %q until %v, %v; want %q", got, until, err, tt.want)
			}
		})
	}
}

func TestHowLongItHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct{ maxAge, token, want time.Duration }{
			{0, time.Hour, 5 * time.Minute}, {0, time.Minute, time.Minute}, {time.Second, time.Minute, time.Second},
		} {
			r := realms(t, realm.Provider{MaxAge: tt.maxAge, Issuer: issuer(func(ctx context.Context, _, _ string) (*oidc.Token, error) {
				tok, err := says(`{"preferred_username":"a"}`)(ctx, "", "")
				tok.Expires = time.Now().Add(tt.token)
				return tok, err
			})})
			if _, until, err := r.Verify(t.Context(), "plant", "ACME", "a", "pw"); err != nil || time.Until(until) != tt.want {
				t.Errorf("%v, token %v: holds for %v, %v; want %v", tt.maxAge, tt.token, time.Until(until), err, tt.want)
			}
		}
	})
}

func TestErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		err    error
		want   error
		text   string
		retry  time.Duration
		tenant iot.TenantID
		name   string
	}{
		"refused":          {err: iot.Errorf(iot.ErrUnauthenticated, "Account disabled"), want: iot.ErrUnauthenticated, text: "bad credentials"},
		"down":             {err: errors.New("secret detail"), want: iot.ErrUnavailable, text: "the identity provider cannot be asked now", retry: 5 * time.Second},
		"wants a pause":    {err: &iot.Error{Sentinel: iot.ErrUnavailable, Text: "x", RetryAfter: time.Minute}, want: iot.ErrUnavailable, text: "the identity provider cannot be asked now", retry: time.Minute},
		"slow":             {err: context.DeadlineExceeded, want: iot.ErrUnavailable, text: "the identity provider cannot be asked now", retry: 5 * time.Second},
		"caller gone":      {err: context.Canceled, want: context.Canceled, text: "context canceled"},
		"another tenant":   {tenant: "B", want: iot.ErrUnavailable, text: "the identity provider cannot be asked now", retry: 5 * time.Second},
		"unknown provider": {name: "x", want: iot.ErrUnavailable, text: "the identity provider cannot be asked now", retry: 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.tenant == "" {
				tt.tenant = "ACME"
			}
			if tt.name == "" {
				tt.name = "plant"
			}
			r := realms(t, realm.Provider{Issuer: issuer(func(context.Context, string, string) (*oidc.Token, error) { return nil, tt.err })})
			_, _, err := r.Verify(t.Context(), tt.name, tt.tenant, "a", "pw")
			if !errors.Is(err, tt.want) || err.Error() != tt.text || iot.RetryAfter(err) != tt.retry {
				t.Errorf("got %v, retry after %v; want %v, %s, %v", err, iot.RetryAfter(err), tt.want, tt.text, tt.retry)
			}
		})
	}
	r := realms(t, realm.Provider{Issuer: says(`{"preferred_username":"a\u0001"}`)})
	if _, _, err := r.Verify(t.Context(), "plant", "ACME", "a\x01", "pw"); !errors.Is(err, iot.ErrUnauthenticated) {
		t.Errorf("control characters: %v", err)
	}
}

// TestPlaces has more logins than places, and an issuer that never answers.
func TestPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		now, most, calls := 0, 0, 0
		r := realms(t, realm.Provider{MaxCalls: 2, Timeout: time.Second, Issuer: issuer(func(ctx context.Context, _, _ string) (*oidc.Token, error) {
			mu.Lock()
			now, calls = now+1, calls+1
			most = max(most, now)
			mu.Unlock()
			<-ctx.Done()
			mu.Lock()
			now--
			mu.Unlock()
			return nil, ctx.Err()
		})})
		began := time.Now()
		var wg sync.WaitGroup
		var at [100]time.Duration
		for i := range at {
			wg.Go(func() {
				_, _, err := r.Verify(t.Context(), "plant", "ACME", "a", "pw")
				if at[i] = time.Since(began); !errors.Is(err, iot.ErrUnavailable) {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if most != 2 {
			t.Errorf("%d logins at a time, want 2", most)
		}
		turnedAway := 0
		for _, d := range at {
			switch d {
			case 0:
				turnedAway++
			case time.Second:
			default:
				t.Errorf("answered after %v, want at once or after 1s", d)
			}
		}
		if want := 100 - 2*17; turnedAway != want {
			t.Errorf("%d turned away at once, want %d", turnedAway, want)
		}
	})
}

func TestProvidersAreChecked(t *testing.T) {
	good := realm.Provider{Name: "a", Issuer: says(`{}`), Tenants: []iot.TenantID{"T"}}
	with := func(change func(*realm.Provider)) []realm.Provider {
		p := good
		change(&p)
		return []realm.Provider{p}
	}
	for text, list := range map[string][]realm.Provider{
		"no name":      with(func(p *realm.Provider) { p.Name = "" }),
		"no issuer":    with(func(p *realm.Provider) { p.Issuer = nil }),
		"no tenants":   with(func(p *realm.Provider) { p.Tenants = nil }),
		"tenant-claim": with(func(p *realm.Provider) { p.Tenants = []iot.TenantID{"*"} }),
		"negative":     with(func(p *realm.Provider) { p.MaxAge = -1 }),
		"given twice":  {good, good},
	} {
		if _, err := realm.New(list, slog.New(slog.DiscardHandler), time.Now); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %s", err, text)
		}
	}
}
