package auth_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/sluice-iot/sluice/internal/attempts"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
)

// guessed makes a directory with two applications that log in by either mechanism.
func guessed(t *testing.T) *auth.Directory {
	t.Helper()
	path := filepath.Join(t.TempDir(), "identities.yaml")
	for _, name := range []string{"app", "other"} {
		if err := auth.AddIdentityWith(path, name, "right", auth.Authority{Address: "telemetry/T", May: auth.Read}); err != nil {
			t.Fatal(err)
		}
	}
	d, err := auth.Open(path, auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// logins tries a secret by each mechanism.
var logins = map[string]func(t *testing.T, d *auth.Directory, from netip.Addr, name, secret string) error{
	auth.Plain: func(t *testing.T, d *auth.Directory, from netip.Addr, name, secret string) error {
		_, _, err := d.BeginFrom(auth.Plain, nil, from).Step(t.Context(), []byte("\x00"+name+"\x00"+secret))
		return err
	},
	auth.ScramSHA256: func(t *testing.T, d *auth.Directory, from netip.Addr, name, secret string) error {
		_, _, err := scramLogin(t, d.BeginFrom(auth.ScramSHA256, nil, from), "n,,", name, secret)
		return err
	},
}

func TestGuessesAreLimited(t *testing.T) {
	here, there := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for mechanism, login := range logins {
		t.Run(mechanism, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := guessed(t)
				for _, name := range []string{"app", "nobody"} {
					for i := range 10 {
						if err := login(t, d, here, name, "wrong"); !errors.Is(err, iot.ErrUnauthenticated) {
							t.Fatalf("%s, attempt %d: %v", name, i, err)
						}
					}
					if err := login(t, d, here, name, "right"); !errors.Is(err, iot.ErrQuota) {
						t.Fatalf("%s: after ten that failed: %v", name, err)
					}
				}
				if d.Refused() != 2 {
					t.Errorf("%d were refused", d.Refused())
				}
				if err := errors.Join(login(t, d, there, "app", "right"), login(t, d, here, "other", "right")); err != nil {
					t.Errorf("another address, another name: %v", err)
				}
				time.Sleep(attempts.Window)
				if err := login(t, d, here, "app", "right"); err != nil {
					t.Errorf("a minute later: %v", err)
				}
			})
		})
	}
}

// TestANewSecretIsNotShutOut has an application try before its entry is there.
func TestANewSecretIsNotShutOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identities.yaml")
	if err := auth.AddIdentityWith(path, "app", "right", auth.Authority{Address: "telemetry/T", May: auth.Read}); err != nil {
		t.Fatal(err)
	}
	d, err := auth.Open(path, auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	login := func(name string) error {
		return logins[auth.Plain](t, d, netip.MustParseAddr("192.0.2.1"), name, "right")
	}
	for range 10 {
		_ = login("late")
	}
	if err := login("late"); !errors.Is(err, iot.ErrQuota) {
		t.Fatalf("got %v", err)
	}
	if err := auth.AddIdentityWith(path, "late", "right", auth.Authority{Address: "telemetry/T", May: auth.Read}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Reload(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(login("late"), login("app")); err != nil {
		t.Error(err)
	}
}

// TestGuessesOfOneAddress tries many names from one network.
func TestGuessesOfOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := guessed(t)
		login := logins[auth.ScramSHA256]
		from := netip.MustParseAddr("2001:db8::")
		for i := range 1000 {
			from = from.Next() // of one /64
			if err := login(t, d, from, "name"+strconv.Itoa(i), "wrong"); !errors.Is(err, iot.ErrUnauthenticated) {
				t.Fatalf("attempt %d: %v", i, err)
			}
		}
		if err := login(t, d, from, "app", "right"); !errors.Is(err, iot.ErrQuota) {
			t.Errorf("after a thousand that failed: %v", err)
		}
		if err := login(t, d, netip.Addr{}, "app", "right"); err != nil {
			t.Errorf("without an address: %v", err)
		}
	})
}

// TestCostlySecretsDoNotHoldUpOthers keeps every check of a costly secret waiting.
func TestCostlySecretsDoNotHoldUpOthers(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("right"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	cheap, err := auth.HashSecret("right")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "identities.yaml")
	if err := os.WriteFile(path, []byte("identities:\n- {name: costly, secret: '{bcrypt}"+string(hash)+"'}\n- {name: cheap, secret: '"+cheap+"'}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := auth.Open(path, auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	leave := auth.EnterCostly(t, d)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	plain := func(ctx context.Context, name string) error {
		_, _, err := d.BeginFrom(auth.Plain, nil, netip.MustParseAddr("192.0.2.1")).Step(ctx, []byte("\x00"+name+"\x00right"))
		return err
	}
	if err := plain(ctx, "costly"); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("costly: %v", err)
	}
	if err := plain(t.Context(), "cheap"); err != nil {
		t.Errorf("cheap: %v", err)
	}
	leave()
	if err := plain(t.Context(), "costly"); err != nil {
		t.Errorf("costly, when there is room: %v", err)
	}
}
