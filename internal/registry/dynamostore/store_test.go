package dynamostore_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/dynamostore"
	"github.com/sluice-iot/sluice/internal/registry/dynamotest"
)

func TestMain(m *testing.M) { os.Exit(dynamotest.Run(m)) }

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func options(t testing.TB) dynamostore.Options {
	return dynamostore.Options{Table: "t-" + rand.Text(), Endpoint: dynamotest.Endpoint(t), Region: dynamotest.Region, Create: true,
		Credentials: credentials.NewStaticCredentialsProvider(dynamotest.AccessKey, dynamotest.SecretKey, "")}
}

func open(t testing.TB, o dynamostore.Options) *dynamostore.Store {
	t.Helper()
	s, err := dynamostore.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func tenant(id iot.TenantID) registry.TenantRecord {
	return registry.TenantRecord{ID: id, Version: "v1", Created: at}
}

func device(id iot.DeviceID) registry.DeviceRecord {
	return registry.DeviceRecord{Tenant: "T", ID: id, Version: "v1", Status: iot.DeviceStatus{Created: iot.Timestamp{Time: at}}}
}

func password(authID string) iot.Credential {
	return iot.Credential{Type: iot.HashedPassword, AuthID: authID, Secrets: []iot.Secret{{ID: "s1", HashFunction: "sha-256", PwdHash: "aGFzaA=="}}}
}

func set(device iot.DeviceID, version string, all ...iot.Credential) registry.CredentialsRecord {
	return registry.CredentialsRecord{Tenant: "T", Device: device, Version: version, Set: all}
}

func TestReopen(t *testing.T) {
	o := options(t)
	key := assertion.StoredKey{KID: "k1", Algorithm: assertion.EdDSA, Wrapped: []byte{1}, PublicJWK: []byte(`{}`), Created: time.UnixMilli(5).UTC()}
	old := assertion.StoredKey{KID: "k2", Algorithm: assertion.ES256, PublicJWK: []byte(`{}`), Created: time.UnixMilli(4).UTC()}
	s := open(t, o)
	must(t, s.CreateTenant(t.Context(), tenant("T")), s.PutSigningKey(t.Context(), key), s.PutSigningKey(t.Context(), old), s.Close(), s.Close())
	if _, err := s.Tenant(t.Context(), "T"); !errors.Is(err, iot.ErrUnavailable) {
		t.Fatalf("a closed store answers %v, want iot.ErrUnavailable", err)
	}
	o.Create = false
	s = open(t, o)
	got, err := s.Tenant(t.Context(), "T")
	must(t, err)
	if d := cmp.Diff(tenant("T"), got); d != "" {
		t.Fatal(d)
	}
	keys, err := s.SigningKeys(t.Context())
	must(t, err)
	if d := cmp.Diff([]assertion.StoredKey{old, key}, keys); d != "" {
		t.Fatal(d)
	}
}

func TestOpenErrors(t *testing.T) {
	o := options(t)
	o.Create = false
	for _, c := range []struct {
		name   string
		change func(*dynamostore.Options)
		want   []string
	}{
		{"no such table", func(*dynamostore.Options) {}, []string{o.Table, "does not exist", "create it", "pk", "sk", "expires"}},
		{"no table", func(o *dynamostore.Options) { o.Table = "" }, []string{"no table is named"}},
		{"no region", func(o *dynamostore.Options) { o.Region = "" }, []string{"AWS_REGION"}},
		{"no credentials", func(o *dynamostore.Options) { o.Credentials = nil }, []string{"AWS_ACCESS_KEY_ID"}},
		{"empty index", func(o *dynamostore.Options) { o.Indexes = [][]string{{}} }, []string{"index path"}},
		{"nobody there", func(o *dynamostore.Options) { o.Endpoint = "http://127.0.0.1:1" }, []string{o.Table, "refused"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
				"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
				t.Setenv(name, "")
			}
			o := o
			c.change(&o)
			_, err := dynamostore.Open(t.Context(), o)
			if err == nil || strings.Contains(err.Error(), "\n") {
				t.Fatalf("got %v, want one line", err)
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Fatalf("%q does not say %q", err, part)
				}
			}
		})
	}
}

func TestOpenTogether(t *testing.T) {
	o := options(t)
	o.Indexes = [][]string{{"ext", "site"}}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			s, err := dynamostore.Open(t.Context(), o)
			if err != nil {
				t.Error(err)
				return
			}
			s.Close()
		})
	}
	all.Wait()
}

// TestContainerCredentials has the place of ECS and EKS answer for keys.
func TestContainerCredentials(t *testing.T) {
	o := options(t)
	open(t, o).Close()
	asked := make(chan string, 10)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Get("Authorization")
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"AccessKeyId":"a","SecretAccessKey":"b","Token":"c","Expiration":%q}`, time.Now().Add(time.Hour).Format(time.RFC3339))
	})
	file := t.TempDir() + "/token"
	must(t, os.WriteFile(file, []byte("let me in\n"), 0o600))
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
	t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file)
	o.Credentials, o.Create = nil, false
	open(t, o)
	if got := <-asked; got != "let me in" {
		t.Fatalf("got authorization %q", got)
	}
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/")
	if _, err := dynamostore.Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "example.com") {
		t.Fatalf("got %v, want a refusal of the address", err)
	}
}

func TestTooLarge(t *testing.T) {
	s := open(t, options(t))
	must(t, s.CreateTenant(t.Context(), tenant("T")))
	d := device("D")
	d.Device.Ext = []byte(`{"a":"` + strings.Repeat("x", 401<<10) + `"}`)
	wantTooLarge(t, s.CreateDevice(t.Context(), d, "c", -1))
	d.Device.Ext = nil
	for i := range 41 {
		d.Device.MemberOf = append(d.Device.MemberOf, fmt.Sprint("g", i))
	}
	wantTooLarge(t, s.CreateDevice(t.Context(), d, "c", -1))
	d.Device.MemberOf = d.Device.MemberOf[:40]
	must(t, s.CreateDevice(t.Context(), d, "c", -1))
	for i := range d.Device.MemberOf {
		d.Device.MemberOf[i] += "'"
	}
	must(t, s.UpdateDevice(t.Context(), d, ""), s.DeleteDevice(t.Context(), "T", "D", "", at))
}

func wantTooLarge(t *testing.T, err error) {
	t.Helper()
	var own *iot.Error
	if !errors.Is(err, iot.ErrTooLarge) || !errors.As(err, &own) || !strings.Contains(own.Text, "store") {
		t.Fatalf("got %v, want iot.ErrTooLarge with a text", err)
	}
}

// TestNames has ids and auth-ids that look like the keys of other items, and
// that are longer than keys may be.
func TestNames(t *testing.T) {
	s := open(t, options(t))
	ctx := t.Context()
	must(t, s.CreateTenant(ctx, tenant("T")), s.CreateTenant(ctx, tenant("T#1")), s.CreateTenant(ctx, tenant("counter")))
	long := strings.Repeat("n", 3000)
	must(t, s.CreateDevice(ctx, device("a#b"), "c", -1), s.CreateDevice(ctx, device("a%23b"), "c", -1))
	must(t, s.PutCredentials(ctx, set("a#b", "c2", password(long+"1"), iot.Credential{Type: "x#y", AuthID: "z"}), "", at))
	must(t, s.PutCredentials(ctx, set("a%23b", "c2", password(long+"2"), iot.Credential{Type: "x", AuthID: "y#z"}), "", at))
	for authID, want := range map[string]iot.DeviceID{long + "1": "a#b", long + "2": "a%23b", long: "", "": ""} {
		snap, err := s.Read(ctx, registry.Query{Tenant: registry.TenantKey{ID: "T"}, Type: iot.HashedPassword, AuthID: authID})
		must(t, err)
		if snap.Owner != want {
			t.Fatalf("got owner %q, want %q", snap.Owner, want)
		}
	}
	for _, id := range []iot.DeviceID{"", iot.DeviceID(long)} {
		if _, err := s.Device(ctx, "T", id); !errors.Is(err, iot.ErrNotFound) {
			t.Fatalf("got %v, want iot.ErrNotFound", err)
		}
		if err := s.CreateDevice(ctx, device(id), "c", -1); !errors.Is(err, iot.ErrInvalid) {
			t.Fatalf("got %v, want iot.ErrInvalid", err)
		}
	}
	if err := s.CreateTenant(ctx, tenant(iot.TenantID(long))); !errors.Is(err, iot.ErrInvalid) {
		t.Fatalf("got %v, want iot.ErrInvalid", err)
	}
}

func TestObserve(t *testing.T) {
	s := open(t, options(t))
	var seen []registry.Change
	s.Observe(func(_ context.Context, changes []registry.Change) { seen = append(seen, changes...) })
	must(t, s.CreateTenant(t.Context(), tenant("T")), s.CreateDevice(t.Context(), device("D"), "c", -1))
	s.CreateDevice(t.Context(), device("D"), "c", -1) // exists
	changes, _, err := s.Changes(t.Context(), registry.Position{Sequences: map[iot.TenantID]uint64{"T": 0}}, 10)
	must(t, err)
	if d := cmp.Diff(changes, seen); d != "" {
		t.Fatal(d)
	}
}
