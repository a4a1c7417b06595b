package storetest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// indexedPaths are declared by the tests of indexes.
var indexedPaths = [][]string{{"ext", "serial"}, {"enabled"}, {"ext", "tags"}, {"ext", "n"}, {"via"}}

// RunIndexed runs the tests of declared indexes: that they change nothing but
// how much is read. open returns an empty store with indexes on the paths.
func RunIndexed(t *testing.T, open func(t *testing.T, indexes [][]string) registry.Backend) {
	t.Run("search devices", func(t *testing.T) { testSearchDevices(t, open(t, indexedPaths)) })
	t.Run("same as without", func(t *testing.T) { testIndexEquivalence(t, open(t, indexedPaths), open(t, nil)) })
	t.Run("bound", func(t *testing.T) { testIndexBound(t, open(t, indexedPaths)) })
	t.Run("long values", func(t *testing.T) { testIndexLong(t, open(t, indexedPaths)) })
}

// testIndexEquivalence makes the same changes in two stores and asks both the same.
func testIndexEquivalence(t *testing.T, with, without registry.Backend) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, s := range []registry.Backend{with, without} {
		addTenant(t, s, "T")
		addTenant(t, s, "U")
	}
	for round := range 25 {
		change := randomChange(random, round)
		must(t, change(t, with))
		must(t, change(t, without))
		for _, q := range indexSearches {
			if got, want := findDevices(t, with, q), findDevices(t, without, q); got != want {
				t.Fatalf("round %d: %+v: got %s, want %s", round, q, got, want)
			}
		}
	}
}

var indexSearches = []registry.Search{
	filtered(equals("/enabled", true)),
	filtered(equals("/enabled", false)),
	filtered(equals("/ext/serial", "s1")),
	filtered(equals("/ext/serial", "s*")),
	filtered(equals("/ext/serial", "s1*")),
	filtered(equals("/ext/serial", "s?1")),
	filtered(equals("/ext/tags", "a")),
	filtered(equals("/ext/tags", "a*")),
	filtered(equals("/ext/n", 1.0)),
	filtered(equals("/ext/n", "1")),
	filtered(equals("/via", "d3")),
	filtered(equals("/ext/tags", "b"), equals("/enabled", true)),
	{Limit: 2, Offset: 2, Filters: []registry.Filter{equals("/enabled", true)}},
	{Limit: 2, Offset: 1, Filters: []registry.Filter{equals("/ext/serial", "s*")}},
	{Limit: 3, Filters: []registry.Filter{equals("/enabled", true)}, Sort: []registry.Order{down("/ext/serial")}},
	{Limit: 3, Filters: []registry.Filter{equals("/ext/tags", "a")}, IsGateway: ptr(true)},
}

// randomChange returns a change that is the same for every store.
func randomChange(random *rand.Rand, round int) func(*testing.T, registry.Backend) error {
	version := fmt.Sprint("v", round)
	some := func() registry.DeviceRecord { return randomDevice(random, version) }
	switch random.IntN(6) {
	case 0:
		d := some()
		return func(t *testing.T, s registry.Backend) error { s.CreateDevice(t.Context(), d, "c", -1); return nil }
	case 1:
		d := some()
		return func(t *testing.T, s registry.Backend) error { s.UpdateDevice(t.Context(), d, ""); return nil }
	case 2:
		id := some().ID
		return func(t *testing.T, s registry.Backend) error { s.DeleteDevice(t.Context(), "T", id, "", at); return nil }
	case 3:
		if random.IntN(4) == 0 {
			return func(t *testing.T, s registry.Backend) error { return s.DeleteDevices(t.Context(), "T", at) }
		}
	}
	writes := make([]registry.DeviceWrite, 12)
	for i := range writes {
		op := registry.CreateOp + registry.WriteOp(random.IntN(5))
		if op == registry.DeleteOp && random.IntN(2) == 0 {
			op = registry.PutOp
		}
		writes[i] = registry.DeviceWrite{Op: op, Device: some(), CredentialsVersion: "c"}
	}
	return func(t *testing.T, s registry.Backend) error {
		other := writes[0].Device // the same document in another tenant
		other.Tenant = "U"
		s.CreateDevice(t.Context(), other, "c", -1)
		_, err := s.ApplyDevices(t.Context(), "T", writes, -1)
		return err
	}
}

func randomDevice(random *rand.Rand, version string) registry.DeviceRecord {
	d := device("T", iot.DeviceID(fmt.Sprint("d", random.IntN(15))))
	d.Version = version
	d.Status.Updated.Time = later(1)
	ext := map[string]any{}
	switch random.IntN(4) {
	case 0:
	case 1:
		ext["serial"] = random.IntN(3)
	default:
		ext["serial"] = fmt.Sprint("s", random.IntN(25))
	}
	ext["tags"] = [][]string{{}, {"a"}, {"a", "ab"}, {"b", "a", "b"}}[random.IntN(4)]
	ext["n"] = []any{1, 1.0, "1", nil, true, json.RawMessage("1e0")}[random.IntN(6)]
	d.Device.Ext, _ = json.Marshal(ext) // cannot fail
	if n := random.IntN(3); n < 2 {
		d.Device.Enabled = ptr(n == 0)
	}
	if random.IntN(3) == 0 {
		d.Device.Via = []iot.DeviceID{"d3", iot.DeviceID(fmt.Sprint("d", random.IntN(15)))}
	}
	return d
}

func testIndexBound(t *testing.T, s registry.Backend) {
	addTenant(t, s, "T")
	for i := range 12 {
		d := device("T", iot.DeviceID(fmt.Sprintf("d%02d", i)))
		d.Device.Ext = json.RawMessage(fmt.Sprintf(`{"serial":"%c%d","other":%d}`, 'a'+i%4, i, i))
		addDevice(t, s, d)
	}
	q := registry.Search{Limit: 2, MaxScan: 5, Filters: []registry.Filter{equals("/ext/serial", "b*")}}
	wantEqual(t, findDevices(t, s, q), "3 d01 d05")
	q.Filters = []registry.Filter{equals("/ext/serial", "b5"), equals("/ext/other", 5.0)}
	wantEqual(t, findDevices(t, s, q), "1 d05")
	for _, filter := range []registry.Filter{equals("/ext/serial", "*5"), equals("/ext/other", 5.0)} {
		q.Filters = []registry.Filter{filter}
		_, err := s.SearchDevices(t.Context(), "T", q)
		wantErr(t, err, iot.ErrInvalid)
	}
}

// Values longer than an index holds are told apart all the same.
func testIndexLong(t *testing.T, s registry.Backend) {
	addTenant(t, s, "T")
	long := strings.Repeat("ä", 600)
	for i, v := range []string{long + "1", long + "2", long, "\x00", "\x01\x01", "", "ä"} {
		d := device("T", iot.DeviceID(fmt.Sprint("d", i)))
		ext, err := json.Marshal(map[string]string{"serial": v})
		must(t, err)
		d.Device.Ext = ext
		addDevice(t, s, d)
	}
	for value, want := range map[string]string{
		long: "1 d2", long + "2": "1 d1", long + "*": "3 d0 d1 d2", "ä*": "4 d0 d1 d2 d6", long + "?": "2 d0 d1",
		"\x00": "1 d3", "\x01*": "1 d4", "\x01\x01": "1 d4", "": "1 d5", "ä": "1 d6", "*": "7 d0 d1 d2 d3 d4 d5 d6",
	} {
		wantEqual(t, findDevices(t, s, filtered(equals("/ext/serial", value))), want)
	}
}
