package admission_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions/admission"
	"github.com/sluice-iot/sluice/functions/registration"
	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// reader answers every query with one snapshot or error; nothing else is asked
// of it.
type reader struct {
	admission.Registry
	snapshot registry.Snapshot
	err      error
}

func (r reader) Read(context.Context, registry.Query) (registry.Snapshot, error) {
	return r.snapshot, r.err
}

type signer struct{ got []assertion.Subject }

func (s *signer) Sign(_ context.Context, sub assertion.Subject) (assertion.Token, error) {
	s.got = append(s.got, sub)
	return assertion.Token{JWT: "a.b.c", Expires: time.Unix(24*3600, 0)}, nil
}

func function(r admission.Registry, s registration.Signer) *admission.Function {
	return admission.New(admission.Config{
		Registry: r, Passwords: registry.NewPasswords(4, 1), Signer: s, Log: slog.New(slog.DiscardHandler), Now: now,
	})
}

func now() time.Time { return time.Unix(0, 0) }

func snapshot(c *iot.Credential) registry.Snapshot {
	return registry.Snapshot{
		Tenant: registry.TenantRecord{ID: "T"}, Sequence: 42, Credential: c, Owner: "D", DeviceID: "D",
		Device: &registry.DeviceRecord{Tenant: "T", ID: "D"},
	}
}

func password(function, hash string) *iot.Credential {
	return &iot.Credential{Type: "hashed-password", AuthID: "a", Secrets: []iot.Secret{{ID: "s", HashFunction: function, PwdHash: hash}}}
}

func request(secret string) events.Admit {
	return events.Admit{Adapter: "hono-http", TenantRef: events.TenantRef{ID: "T"},
		Credential: &events.Credential{Type: "hashed-password", AuthID: "a", Password: secret}}
}

const sha256OfPW = "MMlS+rEiw/l1nwKm2Vw3WLJGtP7iOZV7LU/uRuJhcMQ="

// TestEveryRefusalCostsASlowHash uses that a slow hash, and nothing else here,
// fails on a context that has ended.
func TestEveryRefusalCostsASlowHash(t *testing.T) {
	ended, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	disabled := password("sha-256", "x")
	no := false
	disabled.Enabled = &no
	for name, r := range map[string]reader{
		"unknown tenant":       {err: iot.Errorf(iot.ErrNotFound, "no such tenant")},
		"unknown auth-id":      {snapshot: snapshot(nil)},
		"disabled credentials": {snapshot: snapshot(disabled)},
		"wrong, fast hash":     {snapshot: snapshot(password("sha-256", "x"))},
		"wrong, unknown hash":  {snapshot: snapshot(password("md5", "x"))},
		"wrong, slow hash":     {snapshot: snapshot(password("bcrypt", "$2a$04$.ojuZPG3shkyViV9GtxUpuaOAnrcRx5vbtjIHFs/82yPnSoduo26q"))},
	} {
		t.Run(name, func(t *testing.T) {
			f := function(r, &signer{})
			if _, err := f.Handle(ended, request("wrong")); !errors.Is(err, iot.ErrTimeout) {
				t.Errorf("got %v: no slow hash was begun", err)
			}
			if _, err := f.Handle(t.Context(), request("wrong")); !errors.Is(err, iot.ErrUnauthenticated) || err.Error() != "bad credentials" {
				t.Errorf("got %v, want bad credentials", err)
			}
		})
	}
}

func TestTheTokenIsSignedAtTheSnapshotsPosition(t *testing.T) {
	s := &signer{}
	sum := password("sha-256", sha256OfPW)
	f := function(reader{snapshot: snapshot(sum)}, s)
	got, err := f.Handle(t.Context(), request("pw"))
	if err != nil {
		t.Fatal(err)
	}
	want := assertion.Subject{Tenant: "T", Device: "D", Rev: "00000000000000000042"}
	if len(s.got) != 1 || s.got[0] != want {
		t.Errorf("signed %+v, want %+v", s.got, want)
	}
	if got.CacheFor != 82800*time.Second || got.SecretID != "s" {
		t.Errorf("got %+v", got)
	}
}

func TestAStoreThatIsDownIsNoRefusal(t *testing.T) {
	f := function(reader{err: iot.Errorf(iot.ErrUnavailable, "down")}, &signer{})
	if _, err := f.Handle(t.Context(), request("pw")); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}
