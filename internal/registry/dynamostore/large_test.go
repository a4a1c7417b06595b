package dynamostore_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/dynamostore"
)

// many makes n credentials with auth-ids from first on.
func many(first, n int) []iot.Credential {
	all := make([]iot.Credential, n)
	for i := range all {
		all[i] = password(fmt.Sprint("a", first+i))
	}
	return all
}

func owner(t *testing.T, s *dynamostore.Store, authID string) iot.DeviceID {
	t.Helper()
	snap, err := s.Read(t.Context(), registry.Query{Tenant: registry.TenantKey{ID: "T"}, Type: iot.HashedPassword, AuthID: authID})
	must(t, err)
	return snap.Owner
}

func sizes(t *testing.T, s *dynamostore.Store, device iot.DeviceID, want []iot.Credential) {
	t.Helper()
	got, err := s.Credentials(t.Context(), "T", device)
	must(t, err)
	if d := cmp.Diff(want, got.Set); d != "" {
		t.Fatal(d)
	}
}

// TestLargeSets puts sets that no transaction has room for.
func TestLargeSets(t *testing.T) {
	s := open(t, options(t))
	ctx := t.Context()
	must(t, s.CreateTenant(ctx, tenant("T")), s.CreateDevice(ctx, device("D"), "c1", -1), s.CreateDevice(ctx, device("E"), "c1", -1))
	for _, c := range []struct {
		name     string
		first, n int
	}{{"first", 0, 250}, {"other half", 125, 250}, {"few", 200, 3}, {"many again", 0, 120}, {"none", 0, 0}, {"last", 0, 250}} {
		t.Run(c.name, func(t *testing.T) {
			must(t, s.PutCredentials(t.Context(), set("D", c.name, many(c.first, c.n)...), "", at))
			sizes(t, s, "D", many(c.first, c.n))
			for i := 0; i < 400; i += 25 {
				want := iot.DeviceID("")
				if i >= c.first && i < c.first+c.n {
					want = "D"
				}
				if got := owner(t, s, fmt.Sprint("a", i)); got != want {
					t.Fatalf("auth-id a%d belongs to %q, want %q", i, got, want)
				}
			}
		})
	}
	refused := append(many(300, 150), password("a249"))
	if err := s.PutCredentials(ctx, set("E", "c2", refused...), "", at); !errors.Is(err, iot.ErrExists) {
		t.Fatalf("got %v, want iot.ErrExists", err)
	}
	if err := s.PutCredentials(ctx, set("E", "c2", many(300, 150)...), "c9", at); !errors.Is(err, iot.ErrVersion) {
		t.Fatalf("got %v, want iot.ErrVersion", err)
	}
	sizes(t, s, "E", []iot.Credential{})
	must(t, s.DeleteDevice(ctx, "T", "D", "", at))
	if got := owner(t, s, "a200"); got != "" {
		t.Fatalf("a credential of a deleted device belongs to %q", got)
	}
	must(t, s.PutCredentials(ctx, set("E", "c2", many(0, 60)...), "c1", at)) // all free again
	must(t, s.PutCredentials(ctx, set("E", "c3", many(100, 150)...), "c2", at))
	must(t, s.CreateDevice(ctx, device("D"), "c1", -1)) // nothing of the old one comes back
	sizes(t, s, "D", []iot.Credential{})
	must(t, s.PutCredentials(ctx, set("D", "c2", password("a0")), "", at))
	sizes(t, s, "E", many(100, 150))
}

// TestHeavySet puts few credentials that are too heavy for one transaction.
func TestHeavySet(t *testing.T) {
	s := open(t, options(t))
	must(t, s.CreateTenant(t.Context(), tenant("T")), s.CreateDevice(t.Context(), device("D"), "c1", -1))
	heavy := many(0, 30)
	for i := range heavy {
		heavy[i].Comment = strings.Repeat("x", 200<<10)
	}
	must(t, s.PutCredentials(t.Context(), set("D", "c2", heavy...), "c1", at))
	got, err := s.Credentials(t.Context(), "T", "D")
	must(t, err)
	if len(got.Set) != len(heavy) || len(got.Set[29].Comment) != 200<<10 {
		t.Fatalf("got %d credentials, want all of them whole", len(got.Set))
	}
	heavy[0].Comment = strings.Repeat("x", 400<<10)
	wantTooLarge(t, s.PutCredentials(t.Context(), set("D", "c3", heavy...), "c2", at))
	must(t, s.DeleteDevice(t.Context(), "T", "D", "", at))
}

// TestLargeRace has large and small sets of several devices and processes ask for one auth-id.
func TestLargeRace(t *testing.T) {
	const devices = 6
	o := options(t)
	s := open(t, o)
	must(t, s.CreateTenant(t.Context(), tenant("T")))
	for i := range devices {
		must(t, s.CreateDevice(t.Context(), device(iot.DeviceID(fmt.Sprint("D", i))), "c", -1))
	}
	var won atomic.Int64
	var winner atomic.Value
	var all sync.WaitGroup
	for i := range devices {
		s := open(t, o)
		all.Go(func() {
			wanted := []iot.Credential{password("wanted")}
			if i%3 > 0 {
				wanted = append(many(1000*i, 120), wanted...)
			}
			id := iot.DeviceID(fmt.Sprint("D", i))
			if err := s.PutCredentials(t.Context(), set(id, "c2", wanted...), "c", at); err == nil {
				won.Add(1)
				winner.Store(id)
			} else if !errors.Is(err, iot.ErrExists) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 || owner(t, s, "wanted") != winner.Load() {
		t.Fatalf("%d devices got the auth-id, the last is %v, it belongs to %q", won.Load(), winner.Load(), owner(t, s, "wanted"))
	}
}

// items counts what is in the table, besides the feed.
func items(t *testing.T, o dynamostore.Options) map[byte]int {
	t.Helper()
	db := dynamodb.New(dynamodb.Options{Region: o.Region, Credentials: o.Credentials, BaseEndpoint: &o.Endpoint})
	out, err := db.Scan(t.Context(), &dynamodb.ScanInput{TableName: &o.Table})
	must(t, err)
	counts := make(map[byte]int)
	for _, i := range out.Items {
		counts[dynamostore.PartitionOf(i)[0]]++
	}
	return counts
}

// TestSweep deletes more devices than one call removes.
func TestSweep(t *testing.T) {
	o := options(t)
	o.Indexes = [][]string{{"ext", "site"}}
	s := open(t, o)
	ctx := t.Context()
	must(t, s.CreateTenant(ctx, tenant("T")))
	fill := func(n int) {
		var writes []registry.DeviceWrite
		for i := range n {
			d := device(iot.DeviceID(fmt.Sprint("D", i)))
			d.Device.MemberOf = []string{"g"}
			d.Device.Ext = []byte(`{"site":"north"}`)
			c := set(d.ID, "c", password(string(d.ID)))
			writes = append(writes, registry.DeviceWrite{Op: registry.CreateOp, Device: d, Credentials: &c})
		}
		results, err := s.ApplyDevices(ctx, "T", writes, -1)
		must(t, append(results, err)...)
	}
	fill(240)
	must(t, s.DeleteDevices(ctx, "T", at))
	if got := items(t, o); got['d'] != 140 || got['a'] != 140 || got['i'] != 140 || got['m'] != 141 || got['g'] != 1 {
		t.Fatalf("got %v, want 140 devices left to be removed and a note of that", got)
	}
	fill(3) // under the same names
	for more := true; more; {
		var err error
		if more, err = s.Sweep(ctx, 50); err != nil {
			t.Fatal(err)
		}
	}
	if got := items(t, o); got['d'] != 3 || got['a'] != 3 || got['i'] != 3 || got['m'] != 4 || got['g'] != 0 {
		t.Fatalf("got %v, want the 3 new devices only", got)
	}
	if got := owner(t, s, "D1"); got != "D1" {
		t.Fatalf("the new device's credential belongs to %q", got)
	}
}
