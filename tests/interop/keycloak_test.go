package interop_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	goamqp "github.com/Azure/go-amqp"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/auth/keycloaktest"
	"github.com/sluice-iot/sluice/tests/interop/wire"
)

// realmInstallation is an installation whose devices, applications and operators
// are those of a realm, as docs/keycloak.md sets it up.
type realmInstallation struct {
	*installation
	k *keycloaktest.Server
}

// TestKeycloak has one realm know everybody.
func TestKeycloak(t *testing.T) {
	in := startWithRealm(t)
	alice := in.operator(t)
	eventually(t, "make the tenant", func() error {
		return in.manage(t, http.MethodPost, "tenants/ACME", alice, `{"ext": {"identity-provider": "plant"}}`, http.StatusCreated)
	})
	if err := in.manage(t, http.MethodPost, "devices/ACME/4711", alice, `{}`, http.StatusCreated); err != nil {
		t.Fatal(err)
	}
	for path, token := range map[string]string{"tenants/OTHER": alice, "tenants/ACME": in.application(t)} {
		if err := in.manage(t, http.MethodGet, path, token, "", http.StatusForbidden); err != nil {
			t.Error(err)
		}
	}
	if err := in.manage(t, http.MethodGet, "tenants/ACME", alice+"x", "", http.StatusUnauthorized); err != nil {
		t.Error(err)
	}
	in.consume(t)
	in.uploads(t, "hunter2", http.StatusAccepted)
	in.uploads(t, "wrong", http.StatusUnauthorized)

	t.Run("applications", func(t *testing.T) { in.testApplications(t) })
	t.Run("disabled user", func(t *testing.T) {
		in.k.SetUser(t, "plant", "sensor1", map[string]any{"enabled": false})
		in.comesTo(t, "hunter2", http.StatusUnauthorized) // when the login before has ended
		in.k.SetUser(t, "plant", "sensor1", map[string]any{"enabled": true})
		in.comesTo(t, "hunter2", http.StatusAccepted)
	})
	t.Run("rotated key", func(t *testing.T) {
		in.k.Rotate(t, "plant")
		in.comesTo(t, "hunter2", http.StatusAccepted)
		fresh := in.operator(t)
		eventually(t, "a token of the new key", func() error { return in.manage(t, http.MethodGet, "tenants/ACME", fresh, "", http.StatusOK) })
		eventually(t, "an application with a token of the new key", func() error {
			c, err := wire.Dial(wire.Options{Addr: in.northbound, Bearer: in.application(t)})
			if err == nil {
				c.Conn.Close()
			}
			return err
		})
	})
	t.Run("down and up again", func(t *testing.T) {
		token := in.operator(t)
		in.k.Stop(t)
		in.comesTo(t, "hunter2", http.StatusServiceUnavailable)
		if err := in.manage(t, http.MethodGet, "tenants/ACME", token, "", http.StatusOK); err != nil {
			t.Errorf("the operator whose keys are known: %v", err)
		}
		in.k.Restart(t)
		in.comesTo(t, "hunter2", http.StatusAccepted)
		in.comesTo(t, "wrong", http.StatusUnauthorized)
	})
	for _, secret := range []string{"a-secret-of", "hunter2", "eyJ"} {
		if text := in.stdout.String() + in.stderr.String(); strings.Contains(text, secret) {
			t.Errorf("the program printed %s", secret)
		}
	}
}

// saved returns the block of docs/keycloak.md that a reader saves under a name.
func saved(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository(), "docs", "keycloak.md"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?ms)^```[a-z]+ file=" + regexp.QuoteMeta(name) + "$(.*?)^```$").FindSubmatch(text)
	if m == nil {
		t.Fatalf("docs/keycloak.md has no %s", name)
	}
	return string(m[1])
}

func startWithRealm(t *testing.T) *realmInstallation {
	t.Helper()
	k := keycloaktest.Start(t)
	k.Import(t, []byte(saved(t, "plant.json")))
	here := func(text string) string { return strings.ReplaceAll(text, "http://127.0.0.1:8180", k.URL) }
	_, providers, _ := strings.Cut(saved(t, "sluice.yaml"), "identity-providers:")
	in, config := layout(t, "identity-providers:"+here(providers)+"    max-age: 1s\n")
	writeFile(t, filepath.Join(filepath.Dir(config), "devices.secret"), "a-secret-of-devices\n")
	identities := writeFile(t, filepath.Join(t.TempDir(), "identities.yaml"), here(saved(t, "identities.yaml")))
	in.child = startChild(t, "sluice up", exec.Command(program(t), "up", "--data", in.dir, "--config", config, "--identities", identities), nil)
	eventually(t, "ready", func() error { return getOK("http://" + in.health + "/readiness") })
	return &realmInstallation{in, k}
}

// operator logs in as docs/keycloak.md does.
func (in *realmInstallation) operator(t *testing.T) string {
	t.Helper()
	return in.k.Token(t, "plant", url.Values{"grant_type": {"password"}, "client_id": {"sluice-cli"}, "username": {"alice"}, "password": {"wonderland"}})
}

func (in *realmInstallation) application(t *testing.T) string {
	t.Helper()
	return in.k.Token(t, "plant", url.Values{"grant_type": {"client_credentials"}, "client_id": {"shop"}, "client_secret": {"a-secret-of-shop"}})
}

// manage makes a request to the management API with a token.
func (in *realmInstallation) manage(t *testing.T, method, path, token, body string, want int) error {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+in.management+"/v1/"+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != want {
		return fmt.Errorf("%s %s: %s %s; want %d", method, path, resp.Status, text, want)
	}
	return nil
}

// upload sends telemetry as the realm's device.
func (in *realmInstallation) upload(t *testing.T, password string) answer {
	t.Helper()
	got, err := call(t, http.MethodPost, "http://"+in.device+"/telemetry", "sensor1@ACME", password, "text/plain", []byte("21"))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func (in *realmInstallation) uploads(t *testing.T, password string, want int) {
	t.Helper()
	if got := in.upload(t, password); got.status != want {
		t.Errorf("got %+v, want %d", got, want)
	}
}

// comesTo waits for the answer; one of 503 has to say when to come again.
func (in *realmInstallation) comesTo(t *testing.T, password string, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("an upload is answered with %d", want), func() error {
		got := in.upload(t, password)
		if got.status == http.StatusServiceUnavailable && got.retryAfter == "" {
			t.Errorf("got %+v without Retry-After", got)
		}
		if got.status != want {
			return fmt.Errorf("got %+v", got)
		}
		return nil
	})
}

// consume takes all telemetry as the application, with XOAUTH2, until the test ends.
func (in *realmInstallation) consume(t *testing.T) {
	t.Helper()
	conn, err := in.xoauth2(t, in.application(t))
	if err != nil {
		t.Fatal(err)
	}
	session, err := conn.NewSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	receiver, err := session.NewReceiver(t.Context(), "telemetry/ACME", &goamqp.ReceiverOptions{Credit: 100})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			m, err := receiver.Receive(ctx, nil)
			if err != nil || receiver.AcceptMessage(ctx, m) != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		conn.Close()
	})
}

func (in *realmInstallation) xoauth2(t *testing.T, token string) (*goamqp.Conn, error) {
	t.Helper()
	return goamqp.Dial(t.Context(), "amqp://"+in.northbound, &goamqp.ConnOptions{SASLType: goamqp.SASLTypeXOAUTH2("shop", token, 16<<10)})
}

func (in *realmInstallation) testApplications(t *testing.T) {
	token := in.application(t)
	c, err := wire.Dial(wire.Options{Addr: in.northbound, Bearer: token})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Conn.Close()
	attached(t, c, wire.Receiver(0, "own", "telemetry/ACME"))
	write(t, c, wire.Receiver(1, "foreign", "telemetry/OTHER"), nil)
	if d, _ := await[*amqp.Detach](t, c); d.Handle != 1 || d.Error == nil || d.Error.Condition != "amqp:unauthorized-access" {
		t.Errorf("another tenant: %+v", d)
	}
	operators, err := wire.Dial(wire.Options{Addr: in.northbound, Bearer: in.operator(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer operators.Conn.Close()
	write(t, operators, wire.Receiver(0, "r", "telemetry/ACME"), nil)
	if d, _ := await[*amqp.Detach](t, operators); d.Error == nil || d.Error.Condition != "amqp:unauthorized-access" {
		t.Errorf("a token that allows nothing: %+v", d)
	}
	if conn, err := in.xoauth2(t, token+"x"); err == nil {
		conn.Close()
		t.Error("a token that was changed is taken")
	} else if ended := new(goamqp.ConnError); errors.As(err, &ended) && ended.RemoteErr != nil {
		t.Errorf("got %v, want a refused login", err)
	}
}
