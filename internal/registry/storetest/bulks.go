package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// bulkDevice is a device of T as a bulk write has it: both times are set.
func bulkDevice(id iot.DeviceID, version string, edit func(*iot.Device)) registry.DeviceRecord {
	d := device("T", id)
	d.Version = version
	d.Status.Updated.Time = later(7)
	d.Status.Created.Time = later(5)
	if edit != nil {
		edit(&d.Device)
	}
	return d
}

func credentialsOf(id iot.DeviceID, version string, set ...iot.Credential) *registry.CredentialsRecord {
	return &registry.CredentialsRecord{Tenant: "T", Device: id, Version: version, Set: set}
}

func write(op registry.WriteOp, id iot.DeviceID, version string) registry.DeviceWrite {
	return registry.DeviceWrite{Op: op, Device: bulkDevice(id, version, nil), CredentialsVersion: "e-" + version}
}

// apply makes writes and compares what becomes of each.
func apply(t *testing.T, s registry.Backend, writes []registry.DeviceWrite, want ...error) {
	t.Helper()
	results, err := s.ApplyDevices(t.Context(), "T", writes, -1)
	must(t, err)
	wantResults(t, results, want...)
}

func wantResults(t *testing.T, results []error, want ...error) {
	t.Helper()
	if len(results) != len(want) {
		t.Fatalf("got %d results, want %d", len(results), len(want))
	}
	for i := range want {
		if want[i] == nil && results[i] != nil {
			t.Fatalf("write %d: %v", i, results[i])
		} else if want[i] != nil {
			wantErr(t, results[i], want[i])
		}
	}
}

func disable(d *iot.Device) { d.Enabled = ptr(false) }

func testBulk(t *testing.T, s registry.Backend) {
	ctx := t.Context()
	addTenant(t, s, "T")
	apply(t, s, nil)
	addDevice(t, s, device("T", "old"))
	putCredentials(t, s, "T", "old", password("kept"))

	created := write(registry.CreateOp, "new", "v2")
	created.Device.Device.Ext = json.RawMessage(`{"a":"b"}`)
	created.Device.Device.ViaGroups = []string{"g"}
	created.Device.Status.AutoProvisioned = true
	created.Credentials = credentialsOf("new", "c5", password("fresh"))
	put := write(registry.PutOp, "put", "v3")
	updated := write(registry.UpdateOp, "old", "v4")
	updated.Device.Device.MemberOf = []string{"g"}
	updated.IfVersion = "v1"
	off := registry.DeviceWrite{Op: registry.SetEnabledOp, Device: bulkDevice("put", "v5", disable)}
	again := off
	again.Device.Version = "v6"
	gone := write(registry.CreateOp, "gone", "v7")
	deleted := write(registry.DeleteOp, "gone", "")
	apply(t, s, []registry.DeviceWrite{created, put, updated, off, again, gone, deleted}, nil, nil, nil, nil, nil, nil, nil)

	want := created.Device
	want.Status.Updated = iot.Timestamp{}
	got, err := s.Device(ctx, "T", "new")
	must(t, err)
	wantEqual(t, got, want)
	want = off.Device
	want.Device = iot.Device{Enabled: ptr(false)}
	got, err = s.Device(ctx, "T", "put")
	must(t, err)
	wantEqual(t, got, want)
	want = updated.Device
	want.Status.Created.Time = at
	got, err = s.Device(ctx, "T", "old")
	must(t, err)
	wantEqual(t, got, want)
	_, err = s.Device(ctx, "T", "gone")
	wantErr(t, err, iot.ErrNotFound)
	for _, c := range []*registry.CredentialsRecord{
		created.Credentials, credentialsOf("put", "e-v3", []iot.Credential{}...), credentialsOf("old", "c2", password("kept")),
	} {
		got, err := s.Credentials(ctx, "T", c.Device)
		must(t, err)
		if c.Set == nil {
			c.Set = []iot.Credential{}
		}
		wantEqual(t, got, *c)
	}
	wantEqual(t, read(t, s, registry.Query{Device: "new"}).Members, []iot.DeviceID{"old"})
	wantEqual(t, feed(t, s, "T")[3:], []string{
		"4 device-change-v1 CREATE new enabled=true",
		"5 device-change-v1 CREATE put enabled=true",
		"6 device-change-v1 UPDATE old enabled=true",
		"7 device-change-v1 UPDATE put enabled=false",
		"8 device-change-v1 CREATE gone enabled=true",
		"9 device-change-v1 DELETE gone enabled=false",
	})
	changes, _, err := s.Changes(ctx, registry.Position{Sequences: map[iot.TenantID]uint64{"T": 3}}, 10)
	must(t, err)
	wantEqual(t, changes[0].At, later(5)) // a creation
	wantEqual(t, changes[2].At, later(7))
	wantEqual(t, changes[5].At, later(7))
}

// A bulk of one write is the single operation in all that can be seen later.
func testBulkEqualsSingle(t *testing.T, s registry.Backend) {
	ctx := t.Context()
	addTenant(t, s, "T")
	base := bulkDevice("s", "v1", func(d *iot.Device) { d.Via = []iot.DeviceID{"g"}; d.Ext = json.RawMessage(`{"n":1}`) })
	base.Status.AutoProvisioned, base.Status.AutoProvisioningNotificationSent = true, false
	single := base
	single.Status.Updated = iot.Timestamp{}
	must(t, s.CreateDevice(ctx, single, "c1", -1))
	bulk := base
	bulk.ID = "b"
	apply(t, s, []registry.DeviceWrite{{Op: registry.CreateOp, Device: bulk, CredentialsVersion: "c1"}}, nil)
	same := func() {
		t.Helper()
		one, err := s.Device(ctx, "T", "s")
		must(t, err)
		other, err := s.Device(ctx, "T", "b")
		must(t, err)
		other.ID = "s"
		wantEqual(t, other, one)
		mine, err := s.Credentials(ctx, "T", "s")
		must(t, err)
		theirs, err := s.Credentials(ctx, "T", "b")
		must(t, err)
		theirs.Device = "s"
		for i := range theirs.Set {
			theirs.Set[i].AuthID = mine.Set[i].AuthID
		}
		wantEqual(t, theirs, mine)
	}
	same()
	single.Device, single.Version, single.Status.Updated.Time = iot.Device{Enabled: ptr(false)}, "v2", later(7)
	must(t, s.UpdateDevice(ctx, single, "v1"))
	must(t, s.PutCredentials(ctx, registry.CredentialsRecord{Tenant: "T", Device: "s", Version: "c2", Set: []iot.Credential{password("s")}}, "", later(7)))
	bulk.Device, bulk.Version, bulk.Status.Updated.Time, bulk.Status.AutoProvisioned = single.Device, "v2", later(7), false
	apply(t, s, []registry.DeviceWrite{{Op: registry.PutOp, Device: bulk, IfVersion: "v1", Credentials: credentialsOf("b", "c2", password("b"))}}, nil)
	same()
	wantEqual(t, feed(t, s, "T")[3:], []string{
		"4 device-change-v1 UPDATE s enabled=false",
		"5 credentials-change-v1  s enabled=false",
		"6 device-change-v1 UPDATE b enabled=false",
		"7 credentials-change-v1  b enabled=false",
	})
}

func testBulkNoTrace(t *testing.T, s registry.Backend) {
	ctx := t.Context()
	population(t, s) // D, and G with auth-id a
	before, err := s.Export(ctx, "T", "", 10)
	must(t, err)
	changes := feed(t, s, "T")
	versioned := func(op registry.WriteOp, id iot.DeviceID, version string) registry.DeviceWrite {
		w := write(op, id, "v9")
		w.IfVersion = version
		return w
	}
	claims := func(op registry.WriteOp, id iot.DeviceID, authIDs ...string) registry.DeviceWrite {
		w := write(op, id, "v9")
		w.Device.Device = iot.Device{MemberOf: []string{"m"}, Ext: json.RawMessage(`{"new":true}`)}
		w.Credentials = credentialsOf(id, "c9")
		for _, a := range authIDs {
			w.Credentials.Set = append(w.Credentials.Set, password(a))
		}
		return w
	}
	apply(t, s, []registry.DeviceWrite{
		write(registry.CreateOp, "D", "v9"),
		write(registry.UpdateOp, "X", "v9"),
		write(registry.SetEnabledOp, "X", "v9"),
		write(registry.DeleteOp, "X", ""),
		versioned(registry.UpdateOp, "D", "v0"),
		versioned(registry.PutOp, "D", "v0"),
		versioned(registry.PutOp, "X", "v0"),
		versioned(registry.SetEnabledOp, "D", "v0"),
		versioned(registry.DeleteOp, "D", "v0"),
		claims(registry.CreateOp, "X", "b", "a"),
		claims(registry.PutOp, "X", "b", "b"),
		claims(registry.UpdateOp, "D", "b", "a"),
		{Op: registry.SetEnabledOp, Device: bulkDevice("D", "v9", nil)}, // nothing to do
	}, iot.ErrExists, iot.ErrNotFound, iot.ErrNotFound, iot.ErrNotFound, iot.ErrVersion, iot.ErrVersion, iot.ErrNotFound,
		iot.ErrVersion, iot.ErrVersion, iot.ErrExists, iot.ErrExists, iot.ErrExists, nil)
	after, err := s.Export(ctx, "T", "", 10)
	must(t, err)
	wantEqual(t, after, before)
	wantEqual(t, feed(t, s, "T"), changes)
	page, err := s.SearchDevices(ctx, "T", registry.Search{Limit: 1})
	must(t, err)
	wantEqual(t, page.Total, 2)
	must(t, s.CreateDevice(ctx, device("T", "Y"), "c", 3)) // the failed ones were not counted
	putCredentials(t, s, "T", "Y", password("b"))          // nor is their auth-id taken

	// A failure is seen by the writes after it as if it had not been asked for.
	apply(t, s, []registry.DeviceWrite{
		claims(registry.CreateOp, "X", "c", "a"), claims(registry.CreateOp, "X", "c"), claims(registry.CreateOp, "Z", "c"),
		write(registry.DeleteOp, "G", ""), claims(registry.CreateOp, "Z", "a"),
	}, iot.ErrExists, nil, iot.ErrExists, nil, nil)
	wantEqual(t, read(t, s, registry.Query{Type: iot.HashedPassword, AuthID: "a"}).Owner, iot.DeviceID("Z"))
	wantEqual(t, read(t, s, registry.Query{Type: iot.HashedPassword, AuthID: "c"}).Owner, iot.DeviceID("X"))
}

func testBulkLimit(t *testing.T, s registry.Backend) {
	addTenant(t, s, "T")
	addDevice(t, s, device("T", "D0"))
	results, err := s.ApplyDevices(t.Context(), "T", []registry.DeviceWrite{
		write(registry.CreateOp, "D1", "v1"),
		write(registry.PutOp, "D2", "v1"),
		write(registry.CreateOp, "D2", "v1"), // the limit comes before the duplicate
		write(registry.PutOp, "D3", "v1"),
		write(registry.PutOp, "D1", "v2"), // an update
		write(registry.DeleteOp, "D0", ""),
		write(registry.CreateOp, "D2", "v1"),
		write(registry.CreateOp, "D3", "v1"),
		write(registry.CreateOp, "D4", "v1"),
	}, 3)
	must(t, err)
	wantResults(t, results, nil, nil, iot.ErrForbidden, iot.ErrForbidden, nil, nil, iot.ErrExists, nil, iot.ErrForbidden)
	wantEqual(t, findDevices(t, s, registry.Search{Limit: 9}), "3 D1 D2 D3")
	results, err = s.ApplyDevices(t.Context(), "T", []registry.DeviceWrite{write(registry.CreateOp, "D9", "v1")}, 0)
	must(t, err)
	wantResults(t, results, iot.ErrForbidden)
}

func testBulkCredentials(t *testing.T, s registry.Backend) {
	ctx := t.Context()
	population(t, s)
	with := func(op registry.WriteOp, id iot.DeviceID, version string, set ...iot.Credential) registry.DeviceWrite {
		w := write(op, id, version)
		w.Credentials = credentialsOf(id, "c-"+version, set...)
		return w
	}
	apply(t, s, []registry.DeviceWrite{
		with(registry.UpdateOp, "G", "v2"), // gives a up
		with(registry.CreateOp, "N", "v3", iot.Credential{Type: iot.PSK, AuthID: "a"}, password("a")), // takes it
		with(registry.PutOp, "G", "v4", password("g2"), password("g1")),
		with(registry.PutOp, "G", "v5", password("g1"), password("g3")), // keeps one
	}, nil, nil, nil, nil)
	wantEqual(t, read(t, s, registry.Query{Type: iot.HashedPassword, AuthID: "a"}).Owner, iot.DeviceID("N"))
	got, err := s.Credentials(ctx, "T", "G")
	must(t, err)
	wantEqual(t, got, *credentialsOf("G", "c-v5", password("g1"), password("g3")))
	if snap := read(t, s, registry.Query{Type: iot.HashedPassword, AuthID: "g2"}); snap.Credential != nil {
		t.Fatal("a credential that was replaced is still found")
	}
	wantEqual(t, feed(t, s, "T")[4:], []string{
		"5 device-change-v1 UPDATE G enabled=true", "6 credentials-change-v1  G enabled=false",
		"7 device-change-v1 CREATE N enabled=true",
		"8 device-change-v1 UPDATE G enabled=true", "9 credentials-change-v1  G enabled=false",
		"10 device-change-v1 UPDATE G enabled=true", "11 credentials-change-v1  G enabled=false",
	})
	apply(t, s, []registry.DeviceWrite{write(registry.DeleteOp, "G", "")}, nil)
	if snap := read(t, s, registry.Query{Type: iot.HashedPassword, AuthID: "g1"}); snap.Credential != nil {
		t.Fatal("a credential outlives its device")
	}
}

func testBulkFull(t *testing.T, s registry.Backend) {
	addTenant(t, s, "T")
	writes := make([]registry.DeviceWrite, registry.MaxBatch)
	for i := range writes {
		id := iot.DeviceID(fmt.Sprintf("d%04d", i*7919%len(writes)))
		writes[i] = write(registry.CreateOp, id, "v1")
		writes[i].Credentials = credentialsOf(id, "c1", password("auth-"+string(id)))
	}
	results, err := s.ApplyDevices(t.Context(), "T", writes, -1)
	must(t, errors.Join(append(results, err)...))
	wantEqual(t, findDevices(t, s, registry.Search{Limit: 2, Offset: 998}), "1000 d0998 d0999")
	snap := read(t, s, registry.Query{Type: iot.HashedPassword, AuthID: "auth-d0500"})
	wantEqual(t, [2]any{snap.Owner, snap.Sequence}, [2]any{iot.DeviceID("d0500"), uint64(1001)})
	for i := range writes {
		writes[i].Op, writes[i].Credentials = registry.DeleteOp, nil
	}
	results, err = s.ApplyDevices(t.Context(), "T", writes, -1)
	must(t, errors.Join(append(results, err)...))
	wantEqual(t, findDevices(t, s, registry.Search{Limit: 2}), "0")
	wantEqual(t, read(t, s, registry.Query{}).Sequence, uint64(2001))
}

func testBulkUnknown(t *testing.T, s registry.Backend) {
	writes := []registry.DeviceWrite{write(registry.CreateOp, "D", "v1")}
	_, err := s.ApplyDevices(t.Context(), "T", writes, -1)
	wantErr(t, err, iot.ErrNotFound)
	addTenant(t, s, "T")
	addDevice(t, s, device("T", "D"))
	must(t, s.DeleteTenant(t.Context(), "T", "", at))
	_, err = s.ApplyDevices(t.Context(), "T", []registry.DeviceWrite{write(registry.DeleteOp, "D", "")}, -1)
	wantErr(t, err, iot.ErrNotFound)
	addTenant(t, s, "T")
	wantEqual(t, findDevices(t, s, registry.Search{Limit: 2}), "1 D")
	wantEqual(t, len(feed(t, s, "T")), 4)
}

// Bulks and single changes of one tenant at once: each is made or refused, and
// the sequence has no gap.
func testBulkDense(t *testing.T, s registry.Backend) {
	const workers, rounds, size = 4, 5, 20
	addTenant(t, s, "T")
	made := make([]int, workers)
	together(workers, func(i int) {
		for round := range rounds {
			writes := make([]registry.DeviceWrite, 0, size)
			for n := range size - 1 {
				writes = append(writes, write(registry.CreateOp, iot.DeviceID(fmt.Sprint("w", i, "-", round, "-", n)), "v1"))
			}
			writes = append(writes, write(registry.CreateOp, iot.DeviceID(fmt.Sprint("same", round)), "v1")) // one worker gets it
			results, err := s.ApplyDevices(t.Context(), "T", writes, -1)
			if err != nil {
				t.Error(err)
				return
			}
			for _, err := range results {
				if err == nil {
					made[i]++
				} else if !errors.Is(err, iot.ErrExists) {
					t.Error(err)
				}
			}
			if err := s.UpdateDevice(t.Context(), device("T", writes[0].Device.ID), ""); err != nil {
				t.Error(err)
			}
		}
	})
	total := 0
	for _, n := range made {
		total += n
	}
	wantEqual(t, total, workers*rounds*(size-1)+rounds)
	changes, _, err := s.Changes(t.Context(), registry.Position{Sequences: map[iot.TenantID]uint64{"T": 0}}, 10_000)
	must(t, err)
	wantEqual(t, len(changes), 1+total+workers*rounds)
	for i := range changes {
		if changes[i].Sequence != uint64(i+1) {
			t.Fatalf("change %d has sequence %d", i+1, changes[i].Sequence)
		}
	}
	page, err := s.SearchDevices(t.Context(), "T", registry.Search{Limit: 1})
	must(t, err)
	wantEqual(t, page.Total, total)
}

// sameChanges compares two lists of changes.
func sameChanges(t *testing.T, got, want []registry.Change) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("-want +got:\n%s", d)
	}
}
