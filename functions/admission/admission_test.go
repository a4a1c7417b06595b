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
		"wrong, slow hash":     {snapshot: snapshot(password("bcrypt", bcryptOfRandom))},
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

const bcryptOfRandom = "$2a$04$.ojuZPG3shkyViV9GtxUpuaOAnrcRx5vbtjIHFs/82yPnSoduo26q"

// keeper is a registry that keeps proofs.
type keeper struct {
	reader
	kept []registry.Verified
	err  error
}

func (k *keeper) KeepVerified(ctx context.Context, _ *registry.Snapshot, v registry.Verified) error {
	if _, bounded := ctx.Deadline(); !bounded || ctx.Err() != nil {
		return errors.New("kept with the caller's time")
	}
	if k.err != nil {
		return k.err
	}
	k.kept = append(k.kept, v)
	k.snapshot.Verified = []registry.Verified{v}
	return nil
}

// TestVerifiedPasswordsCostNoSlowHash uses the ended context as above: only
// what costs no slow hash passes on it.
func TestVerifiedPasswordsCostNoSlowHash(t *testing.T) {
	ended, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	passwords := registry.NewPasswords(4, 1)
	hash, err := passwords.Hash(t.Context(), "pw")
	if err != nil {
		t.Fatal(err)
	}
	macs, err := registry.NewMACs(make([]byte, registry.MACKeySize))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(0, 0)
	k := &keeper{reader: reader{snapshot: snapshot(password("bcrypt", hash))}}
	build := func(m *registry.MACs) *admission.Function {
		return admission.New(admission.Config{Registry: k, Passwords: passwords, Signer: &signer{}, MACs: m,
			Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return at }})
	}
	f := build(macs)
	admit := func(ctx context.Context, f *admission.Function, pw string, want error) {
		t.Helper()
		got, err := f.Handle(ctx, request(pw))
		if !errors.Is(err, want) || (err == nil && got.SecretID != "s") {
			t.Errorf("got %+v, %v, want %v", got, err, want)
		}
	}
	admit(ended, f, "pw", iot.ErrTimeout) // nothing is known yet
	k.err = errors.New("disk full")
	admit(t.Context(), f, "pw", nil) // what cannot be kept keeps nobody out
	k.err = nil
	admit(t.Context(), f, "pw", nil)
	admit(ended, f, "pw", nil)
	if len(k.kept) != 1 {
		t.Errorf("kept %d times", len(k.kept))
	}
	admit(ended, f, "pw2", iot.ErrTimeout) // a wrong one costs as much as ever
	admit(t.Context(), f, "pw2", iot.ErrUnauthenticated)
	admit(ended, build(nil), "pw", iot.ErrTimeout) // switched off

	at = at.Add(23*time.Hour + time.Minute)
	admit(ended, f, "pw", nil)
	if len(k.kept) != 2 || !k.kept[1].Until.Equal(at.Add(24*time.Hour)) {
		t.Errorf("in the last hour: kept %+v", k.kept)
	}
	at = at.Add(24 * time.Hour)
	admit(ended, f, "pw", iot.ErrTimeout)

	k.snapshot.Credential.Secrets[0].PwdHash = bcryptOfRandom
	at = at.Add(-time.Hour)
	admit(ended, f, "pw", iot.ErrTimeout) // the secret was changed
	admit(t.Context(), f, "pw", iot.ErrUnauthenticated)
}
