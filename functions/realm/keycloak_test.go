package realm_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/functions/realm"
	"github.com/sluice-iot/sluice/internal/auth/keycloaktest"
	"github.com/sluice-iot/sluice/internal/auth/oidc"
	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	clientSecret = "secret/of the+client%"
	password     = "p\u00e4ss&word=1"
)

// TestKeycloak checks passwords at a real Keycloak.
func TestKeycloak(t *testing.T) {
	k := keycloaktest.Start(t)
	text, err := os.ReadFile("testdata/realm.json")
	if err != nil {
		t.Fatal(err)
	}
	k.Import(t, text)
	var log bytes.Buffer
	r := ofKeycloak(t, k, "sluice-devices", clientSecret, &log)
	verify := func(user, password string) (iot.DeviceID, error) {
		device, until, err := r.Verify(t.Context(), "plant", "ACME", user, password)
		if err == nil && (time.Until(until) > 5*time.Minute || time.Until(until) < 4*time.Minute) {
			t.Errorf("%s holds for %v", user, time.Until(until))
		}
		return device, err
	}
	admitted := func(t *testing.T, want iot.DeviceID, user, password string) {
		t.Helper()
		if got, err := verify(user, password); err != nil || got != want {
			t.Errorf("got %q, %v; want %q\n%s", got, err, want, &log)
		}
	}
	refused := func(t *testing.T, user, password string) {
		t.Helper()
		if got, err := verify(user, password); !errors.Is(err, iot.ErrUnauthenticated) || err.Error() != "bad credentials" {
			t.Errorf("%s: got %q, %v; want bad credentials\n%s", user, got, err, &log)
		}
	}
	t.Run("passwords", func(t *testing.T) {
		admitted(t, "4711", "sensor1", password)
		for name, tt := range map[string][2]string{
			"wrong password":          {"sensor1", "wrong"},
			"unknown user":            {"nobody", "wrong"},
			"another spelling":        {"Sensor1", password},
			"by e-mail address":       {"sensor1@plant.example", password},
			"disabled user":           {"sensor2", "hunter2"},
			"user without the device": {"sensor3", "hunter3"},
			"user of another tenant":  {"sensor4", "hunter4"},
		} {
			t.Run(name, func(t *testing.T) { refused(t, tt[0], tt[1]) })
		}
	})
	t.Run("a user is disabled and enabled", func(t *testing.T) {
		k.SetUser(t, "plant", "sensor1", map[string]any{"enabled": false})
		refused(t, "sensor1", password)
		k.SetUser(t, "plant", "sensor1", map[string]any{"enabled": true})
		admitted(t, "4711", "sensor1", password)
	})
	t.Run("a client that is not set up", func(t *testing.T) {
		for id, secret := range map[string]string{"sluice-devices": "wrong", "no-grants": "x", "nobody": "x"} {
			_, _, err := ofKeycloak(t, k, id, secret, &log).Verify(t.Context(), "plant", "ACME", "sensor1", password)
			if !errors.Is(err, iot.ErrUnavailable) {
				t.Errorf("%s: got %v; want unavailable", id, err)
			}
		}
	})
	t.Run("rotated key", func(t *testing.T) {
		k.Rotate(t, "plant")
		eventually(t, func() error {
			_, err := verify("sensor1", password)
			return err
		})
		admitted(t, "4711", "sensor1", password)
		refused(t, "sensor1", "wrong")
	})
	t.Run("down and up again", func(t *testing.T) {
		k.Stop(t)
		for _, password := range []string{password, "wrong"} {
			if _, err := verify("sensor1", password); !errors.Is(err, iot.ErrUnavailable) || iot.RetryAfter(err) <= 0 {
				t.Errorf("got %v, retry after %v; want unavailable", err, iot.RetryAfter(err))
			}
		}
		k.Restart(t)
		admitted(t, "4711", "sensor1", password)
		refused(t, "sensor1", "wrong")
	})
	for _, secret := range []string{clientSecret, "word=1", "hunter", "eyJ"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log has %s:\n%s", secret, &log)
		}
	}
}

func ofKeycloak(t *testing.T, k *keycloaktest.Server, id, secret string, log *bytes.Buffer) *realm.Realms {
	t.Helper()
	c, err := oidc.NewClient(oidc.ClientConfig{Issuer: k.Issuer("plant"), ID: id, Secret: secret, Conns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	r, err := realm.New([]realm.Provider{{
		Name: "plant", Issuer: c, Tenants: []iot.TenantID{"ACME"}, DeviceClaim: "sluice-device", TenantClaim: "sluice-tenant", Timeout: 30 * time.Second,
	}}, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// eventually waits out the pause between two questions for keys.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return
		}
		if !errors.Is(err, iot.ErrUnavailable) {
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
