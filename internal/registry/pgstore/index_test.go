package pgstore_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/pgstore"
	"github.com/sluice-iot/sluice/internal/registry/pgtest"
)

var site = []string{"ext", "site"}

func atSite(id string, sites ...string) registry.DeviceRecord {
	d := device(id)
	d.Device.Ext, _ = json.Marshal(map[string]any{"site": sites})
	return d
}

// find searches by site, with a scan limit that only an index stays below.
func find(t *testing.T, s *pgstore.Store, value string) (ids []string, total int, err error) {
	t.Helper()
	page, err := s.SearchDevices(t.Context(), "T", registry.Search{Limit: 100, MaxScan: 3, Filters: []registry.Filter{{Path: site, Value: value}}})
	for _, d := range page.Devices {
		ids = append(ids, string(d.ID))
	}
	return ids, page.Total, err
}

func wantFound(t *testing.T, s *pgstore.Store, value string, want ...string) {
	t.Helper()
	ids, total, err := find(t, s, value)
	if err != nil || !slices.Equal(ids, want) || total != len(want) {
		t.Fatalf("%s: got %v of %d, %v, want %v", value, ids, total, err, want)
	}
}

// A path that is declared later finds what was there before, and what stores
// change that were opened before it.
func TestIndexDeclaredLater(t *testing.T) {
	db := pgtest.Start(t)
	old := open(t, db.URL, pgstore.Options{})
	addTenant(t, old)
	for i := range 20 {
		if err := old.CreateDevice(t.Context(), atSite(fmt.Sprint("D", i), fmt.Sprint("s", i), "all"), "c", -1); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := find(t, old, "s1"); !errors.Is(err, iot.ErrInvalid) {
		t.Fatalf("got %v, want %v", err, iot.ErrInvalid)
	}
	s := open(t, db.URL, pgstore.Options{Indexes: [][]string{site, {"ext", "other"}}})
	wantFound(t, s, "s1", "D1")
	wantFound(t, s, "s1*", "D1", "D10", "D11", "D12", "D13", "D14", "D15", "D16", "D17", "D18", "D19")
	wantFound(t, old, "s2", "D2")

	moved := atSite("D1", "north")
	if err := old.UpdateDevice(t.Context(), moved, ""); err != nil {
		t.Fatal(err)
	}
	if err := old.CreateDevice(t.Context(), atSite("D20", "north", "northern"), "c", -1); err != nil {
		t.Fatal(err)
	}
	if err := old.DeleteDevice(t.Context(), "T", "D2", "", at); err != nil {
		t.Fatal(err)
	}
	wantFound(t, s, "s1")
	wantFound(t, s, "s2")
	wantFound(t, s, "north", "D1", "D20")
	wantFound(t, s, "north*", "D1", "D20")
	if err := s.DeleteDevices(t.Context(), "T", at); err != nil {
		t.Fatal(err)
	}
	wantFound(t, s, "north")

	again := open(t, db.URL, pgstore.Options{Indexes: [][]string{{"ext", "other"}}})
	for i := range 5 {
		if err := s.CreateDevice(t.Context(), atSite(fmt.Sprint("D", i), "s"), "c", -1); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := find(t, again, "s"); !errors.Is(err, iot.ErrInvalid) {
		t.Fatalf("got %v, want %v: the path was dropped", err, iot.ErrInvalid)
	}
	for _, path := range [][]string{{}, {"id"}, {"status", "created"}} {
		if _, err := pgstore.Open(t.Context(), db.URL, pgstore.Options{Indexes: [][]string{path}}); err == nil {
			t.Errorf("the path %q was taken", path)
		}
	}
}

// The range of what begins with a text ends before the next text of all.
func TestPrefixes(t *testing.T) {
	s := open(t, pgtest.Start(t).URL, pgstore.Options{Indexes: [][]string{site}})
	addTenant(t, s)
	texts := []string{"a", "a\x7f", "a\x7fz", "b", "\ud7ff", "\ud7ffx", "\ue000", "\U0010ffff", "\U0010ffffx", "x\U0010ffff", "x\U0010ffff!", "y"}
	for _, text := range texts {
		if err := s.CreateDevice(t.Context(), atSite(text, text), "c", -1); err != nil {
			t.Fatal(err)
		}
	}
	for _, prefix := range texts {
		want := slices.DeleteFunc(slices.Clone(texts), func(s string) bool { return !strings.HasPrefix(s, prefix) })
		slices.Sort(want)
		for _, path := range [][]string{site, {"id"}} {
			page, err := s.SearchDevices(t.Context(), "T", registry.Search{Limit: 100, MaxScan: 3, Filters: []registry.Filter{{Path: path, Value: prefix + "*"}}})
			var got []string
			for _, d := range page.Devices {
				got = append(got, string(d.ID))
			}
			if err != nil || !slices.Equal(got, want) || page.Total != len(want) {
				t.Errorf("%v %q: got %q of %d, %v, want %q", path, prefix, got, page.Total, err, want)
			}
		}
	}
}

// While devices change, paths are declared and dropped; in the end the index
// holds what the documents do.
func TestIndexDeclaredMeanwhile(t *testing.T) {
	db := pgtest.Start(t)
	s := open(t, db.URL, pgstore.Options{})
	addTenant(t, s)
	const workers, rounds = 4, 60
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range rounds {
				id := fmt.Sprintf("D%d-%d", w, i%7)
				err := s.CreateDevice(t.Context(), atSite(id, "first"), "c", -1)
				if err == nil || errors.Is(err, iot.ErrExists) {
					err = s.UpdateDevice(t.Context(), atSite(id, fmt.Sprintf("w%d", w)), "")
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 6 {
		indexes := [][]string{site}
		if i%2 == 0 {
			indexes = [][]string{}
		}
		open(t, db.URL, pgstore.Options{Indexes: indexes, MaxConns: 1})
	}
	all.Wait()
	for w := range workers {
		want := []string{}
		for i := range 7 {
			want = append(want, fmt.Sprintf("D%d-%d", w, i))
		}
		wantFound(t, s, fmt.Sprint("w", w), want...)
	}
	wantFound(t, s, "first")
}

// What the feed keeps no longer than it must is removed beside a change.
func TestFeedIsShortened(t *testing.T) {
	s := open(t, pgtest.Start(t).URL, pgstore.Options{})
	for i, at := range []time.Time{at, at.Add(time.Hour), at.Add(registry.FeedRetention + time.Minute)} {
		if err := s.DeleteDevices(t.Context(), "T", at); err != nil {
			t.Fatal(i, err)
		}
	}
	changes, _, err := s.Changes(t.Context(), registry.Position{Sequences: map[iot.TenantID]uint64{"T": 0}}, 10)
	if err != nil || len(changes) != 2 || changes[0].Sequence != 2 {
		t.Fatalf("got %+v, %v, want the changes 2 and 3", changes, err)
	}
}

func TestSigningKeys(t *testing.T) {
	s := open(t, pgtest.Start(t).URL, pgstore.Options{})
	b := assertion.StoredKey{KID: "b", Algorithm: assertion.ES256, PublicJWK: []byte(`{"kid":"b"}`), Wrapped: []byte("w"), Created: at, NotBefore: at}
	a := assertion.StoredKey{KID: "a", Algorithm: assertion.EdDSA, PublicJWK: []byte(`{"kid":"a"}`), Wrapped: []byte("x"), Created: at.Add(1e9)}
	c := assertion.StoredKey{KID: "c", Algorithm: assertion.EdDSA, PublicJWK: []byte(`{"kid":"c"}`), Created: at, RetireAfter: at}
	for _, k := range []assertion.StoredKey{a, b, c} {
		if err := s.PutSigningKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	a.Wrapped, a.RetireAfter = nil, at.Add(2e9)
	if err := s.PutSigningKey(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	got, err := s.SigningKeys(t.Context())
	if d := cmp.Diff([]assertion.StoredKey{b, c, a}, got); err != nil || d != "" {
		t.Fatalf("%v, -want +got:\n%s", err, d)
	}
}
