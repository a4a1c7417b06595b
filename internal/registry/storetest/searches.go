package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// path turns a JSON pointer without escapes into a path.
func path(pointer string) []string { return strings.Split(pointer[1:], "/") }

func equals(pointer string, value any) registry.Filter {
	return registry.Filter{Path: path(pointer), Value: value}
}

func by(pointer string) registry.Order { return registry.Order{Path: path(pointer)} }

func down(pointer string) registry.Order {
	return registry.Order{Path: path(pointer), Descending: true}
}

// searchCase is a search and what it finds: the total and the ids of the page.
type searchCase struct {
	name   string
	search registry.Search
	want   string
}

func filtered(filters ...registry.Filter) registry.Search {
	return registry.Search{Filters: filters, Limit: 30}
}

func findDevices(t *testing.T, s registry.Backend, q registry.Search) string {
	t.Helper()
	page, err := s.SearchDevices(t.Context(), "T", q)
	must(t, err)
	var found strings.Builder
	fmt.Fprint(&found, page.Total)
	for _, d := range page.Devices {
		fmt.Fprint(&found, " ", d.ID)
		one, err := s.Device(t.Context(), "T", d.ID)
		must(t, err)
		wantEqual(t, d, one)
	}
	return found.String()
}

func testSearchTenants(t *testing.T, s registry.Backend) {
	page, err := s.SearchTenants(t.Context(), registry.Search{Limit: 3})
	must(t, err)
	wantEqual(t, page.Total, 0)
	for i, id := range []iot.TenantID{"t5", "t1", "t3", "t2", "t4", "t6"} {
		r := tenant(id)
		r.Tenant.Ext = json.RawMessage(fmt.Sprintf(`{"n":%d,"even":%t}`, i, i%2 == 0))
		r.Tenant.Alias = "alias-of-" + string(id)
		r.Tenant.Adapters = []iot.Adapter{{Type: "hono-mqtt"}, {Type: fmt.Sprint("a", i)}}
		must(t, s.CreateTenant(t.Context(), r))
	}
	for _, c := range []searchCase{
		{"all", registry.Search{Limit: 30}, "6 t1 t2 t3 t4 t5 t6"},
		{"first page", registry.Search{Limit: 4}, "6 t1 t2 t3 t4"},
		{"last page", registry.Search{Limit: 4, Offset: 4}, "6 t5 t6"},
		{"beyond", registry.Search{Limit: 4, Offset: 8}, "6"},
		{"sorted", registry.Search{Limit: 2, Sort: []registry.Order{down("/ext/n")}}, "6 t6 t4"},
		{"sorted by id", registry.Search{Limit: 2, Sort: []registry.Order{down("/id")}}, "6 t6 t5"},
		{"id", filtered(equals("/id", "t3")), "1 t3"},
		{"ids", filtered(equals("/id", "t?")), "6 t1 t2 t3 t4 t5 t6"},
		{"alias", filtered(equals("/alias", "*-t4")), "1 t4"},
		{"inside an array", filtered(equals("/adapters/type", "a2")), "1 t3"},
		{"and", filtered(equals("/adapters/type", "hono-*"), equals("/ext/even", true), equals("/ext/n", 4.0)), "1 t4"},
		{"none", filtered(equals("/ext/n", 9.0)), "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			page, err := s.SearchTenants(t.Context(), c.search)
			must(t, err)
			got := fmt.Sprint(page.Total)
			for _, r := range page.Tenants {
				got += " " + string(r.ID)
				one, err := s.Tenant(t.Context(), r.ID)
				must(t, err)
				wantEqual(t, r, one)
			}
			wantEqual(t, got, c.want)
		})
	}
}

// searchable makes devices d1..d6 of T, and some of U that nothing may find.
func searchable(t *testing.T, s registry.Backend) {
	t.Helper()
	addTenant(t, s, "T")
	addTenant(t, s, "U")
	for _, c := range []struct{ id, doc string }{
		{"d4", `{"enabled":false,"ext":{"serial":"$id1","n":10,"tags":["x","y"]}}`},
		{"d2", `{"enabled":true,"ext":{"serial":"$id22","n":9,"tags":["y","y"]},"via":["d1","nobody"]}`},
		{"d6", `{"ext":{"serial":"Sid22","n":1e1,"tags":"x"}}`},
		{"d1", `{"ext":{"n":"10","serial":17}}`},
		{"d3", `{"ext":{"serial":"an *","deep":{"a":[{"b":true},{"b":"c"}]}},"memberOf":["g"]}`},
		{"d5", `{"defaults":{"ttl":5},"ext":{"serial":null,"é/~":"ü"}}`},
	} {
		for _, tenant := range []iot.TenantID{"T", "U"} {
			d := device(tenant, iot.DeviceID(c.id))
			must(t, json.Unmarshal([]byte(c.doc), &d.Device))
			d.Status.AutoProvisioned = c.id == "d5"
			addDevice(t, s, d)
		}
	}
	must(t, s.DeleteDevice(t.Context(), "U", "d1", "", at))
}

var deviceSearches = []searchCase{
	{"all", registry.Search{Limit: 30}, "6 d1 d2 d3 d4 d5 d6"},
	{"page", registry.Search{Limit: 2, Offset: 1}, "6 d2 d3"},
	{"last page", registry.Search{Limit: 4, Offset: 4}, "6 d5 d6"},
	{"beyond", registry.Search{Limit: 4, Offset: 6}, "6"},
	{"id", filtered(equals("/id", "d3")), "1 d3"},
	{"id that is not there", filtered(equals("/id", "d9")), "0"},
	{"id is case-sensitive", filtered(equals("/id", "D3")), "0"},
	{"id by prefix", filtered(equals("/id", "d*")), "6 d1 d2 d3 d4 d5 d6"},
	{"id by suffix", filtered(equals("/id", "*5")), "1 d5"},
	{"id is no number", filtered(equals("/id", 1.0)), "0"},
	{"enabled, or not said", filtered(equals("/enabled", true)), "5 d1 d2 d3 d5 d6"},
	{"disabled", filtered(equals("/enabled", false)), "1 d4"},
	{"text", filtered(equals("/ext/serial", "$id1")), "1 d4"},
	{"prefix", filtered(equals("/ext/serial", "$id*")), "2 d2 d4"},
	{"one character", filtered(equals("/ext/serial", "$id?2")), "1 d2"},
	{"inside", filtered(equals("/ext/serial", "*id*2")), "2 d2 d6"},
	{"no pattern of a regular expression", filtered(equals("/ext/serial", ".id22")), "0"},
	{"no pattern of SQL", filtered(equals("/ext/serial", "%id22")), "0"},
	{"a number is no text", filtered(equals("/ext/serial", "17")), "0"},
	{"number", filtered(equals("/ext/serial", 17.0)), "1 d1"},
	{"numbers are equal by value", filtered(equals("/ext/n", 10.0)), "2 d4 d6"},
	{"element", filtered(equals("/ext/tags", "x")), "2 d4 d6"},
	{"element that comes twice", filtered(equals("/ext/tags", "y*")), "2 d2 d4"},
	{"via", filtered(equals("/via", "nobody")), "1 d2"},
	{"deep", filtered(equals("/ext/deep/a/b", "c")), "1 d3"},
	{"odd names", filtered(registry.Filter{Path: []string{"ext", "é/~"}, Value: "?"}), "1 d5"},
	{"number in defaults", filtered(equals("/defaults/ttl", 5.0)), "1 d5"},
	{"status", filtered(equals("/status/auto-provisioned", true)), "1 d5"},
	{"absent", filtered(equals("/ext/none", "*")), "0"},
	{"object", filtered(equals("/ext", "*")), "0"},
	{"and", filtered(equals("/ext/tags", "y"), equals("/ext/n", 9.0)), "1 d2"},
	{"and on one path", filtered(equals("/ext/serial", "$*"), equals("/ext/serial", "*1")), "1 d4"},
	{"and with an id", filtered(equals("/id", "d?"), equals("/ext/serial", "$id22")), "1 d2"},
	{"sorted", registry.Search{Limit: 30, Sort: []registry.Order{by("/ext/n")}}, "6 d3 d5 d2 d4 d6 d1"},
	{"sorted downwards", registry.Search{Limit: 3, Sort: []registry.Order{down("/ext/n")}}, "6 d1 d4 d6"},
	{"sorted by two", registry.Search{Limit: 3, Sort: []registry.Order{down("/ext/n"), down("/id")}}, "6 d1 d6 d4"},
	{"sorted by id", registry.Search{Limit: 2, Offset: 1, Sort: []registry.Order{down("/id")}}, "6 d5 d4"},
	{"found and sorted", registry.Search{Limit: 1, Filters: []registry.Filter{equals("/ext/serial", "$id*")}, Sort: []registry.Order{down("/ext/n")}}, "2 d4"},
	{"found and paged", registry.Search{Limit: 1, Offset: 1, Filters: []registry.Filter{equals("/ext/serial", "$id*")}}, "2 d4"},
	{"element and paged", registry.Search{Limit: 1, Offset: 1, Filters: []registry.Filter{equals("/ext/tags", "y")}}, "2 d4"},
	{"gateways", registry.Search{Limit: 30, IsGateway: ptr(true)}, "2 d1 d3"},
	{"no gateways", registry.Search{Limit: 2, Offset: 2, IsGateway: ptr(false)}, "4 d5 d6"},
	{"gateways that match", registry.Search{Limit: 30, IsGateway: ptr(true), Filters: []registry.Filter{equals("/ext/n", "10")}}, "1 d1"},
	{"no gateways that match", registry.Search{Limit: 30, IsGateway: ptr(false), Filters: []registry.Filter{equals("/ext/n", "10")}}, "0"},
	{"gateways downwards", registry.Search{Limit: 1, IsGateway: ptr(true), Sort: []registry.Order{down("/id")}}, "2 d3"},
}

func testSearchDevices(t *testing.T, s registry.Backend) {
	searchable(t, s)
	for _, c := range deviceSearches {
		t.Run(c.name, func(t *testing.T) { wantEqual(t, findDevices(t, s, c.search), c.want) })
	}
}

func testSearchGateways(t *testing.T, s registry.Backend) {
	ctx := t.Context()
	addTenant(t, s, "T")
	addTenant(t, s, "U")
	for _, id := range []iot.DeviceID{"a", "b", "c", "d"} {
		addDevice(t, s, device("T", id))
	}
	gateways := registry.Search{Limit: 30, IsGateway: ptr(true)}
	others := registry.Search{Limit: 30, IsGateway: ptr(false)}
	check := func(yes, no string) {
		t.Helper()
		wantEqual(t, findDevices(t, s, gateways), yes)
		wantEqual(t, findDevices(t, s, others), no)
	}
	check("0", "4 a b c d")
	other := device("U", "z")
	other.Device.Via = []iot.DeviceID{"d"}
	addDevice(t, s, other) // means nothing for T
	via := func(id iot.DeviceID, gateways ...iot.DeviceID) registry.DeviceRecord {
		d := device("T", id)
		d.Device.Via = gateways
		return d
	}
	must(t, s.UpdateDevice(ctx, via("a", "b", "c", "b"), ""))
	must(t, s.UpdateDevice(ctx, via("d", "b"), ""))
	check("2 b c", "2 a d")
	must(t, s.UpdateDevice(ctx, via("a"), ""))
	check("1 b", "3 a c d")
	must(t, s.DeleteDevice(ctx, "T", "d", "", at))
	check("0", "3 a b c")
	member := device("T", "c")
	member.Device.MemberOf = []string{"g", "h"}
	must(t, s.UpdateDevice(ctx, member, ""))
	check("1 c", "2 a b")
	results, err := s.ApplyDevices(ctx, "T", []registry.DeviceWrite{
		{Op: registry.PutOp, Device: bulkDevice("e", "v1", func(d *iot.Device) { d.Via = []iot.DeviceID{"later", "a"} })},
		{Op: registry.CreateOp, Device: bulkDevice("later", "v1", nil)},
	}, -1)
	must(t, errors.Join(append(results, err)...))
	check("3 a c later", "2 b e")
	must(t, s.DeleteDevices(ctx, "T", at))
	addDevice(t, s, device("T", "a"))
	check("0", "1 a")
}

func testSearchUnknown(t *testing.T, s registry.Backend) {
	_, err := s.SearchDevices(t.Context(), "T", registry.Search{Limit: 3})
	wantErr(t, err, iot.ErrNotFound)
	addTenant(t, s, "T")
	page, err := s.SearchDevices(t.Context(), "T", registry.Search{Limit: 3})
	must(t, err)
	wantEqual(t, page.Total, 0)
	addDevice(t, s, device("T", "D"))
	must(t, s.DeleteTenant(t.Context(), "T", "", at))
	for _, q := range []registry.Search{{Limit: 3}, filtered(equals("/id", "D")), filtered(equals("/ext/n", 1.0))} {
		_, err = s.SearchDevices(t.Context(), "T", q)
		wantErr(t, err, iot.ErrNotFound)
	}
}

func testSearchBound(t *testing.T, s registry.Backend) {
	addTenant(t, s, "T")
	addTenant(t, s, "U")
	for i := range 6 {
		addDevice(t, s, device("T", iot.DeviceID(fmt.Sprint("d", i))))
	}
	q := registry.Search{Limit: 2, MaxScan: 5}
	wantEqual(t, findDevices(t, s, q), "6 d0 d1")
	q.Filters = []registry.Filter{equals("/id", "d3")}
	wantEqual(t, findDevices(t, s, q), "1 d3")
	for _, filter := range []registry.Filter{equals("/ext/n", 1.0), equals("/ext/n", "a*")} {
		q.Filters = []registry.Filter{filter}
		_, err := s.SearchDevices(t.Context(), "T", q)
		wantErr(t, err, iot.ErrInvalid)
		for _, part := range []string{"5 documents", "/ext/n"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("error %q does not name %q", err, part)
			}
		}
	}
	q.MaxScan = 6
	wantEqual(t, findDevices(t, s, q), "0")
}

func testExport(t *testing.T, s registry.Backend) {
	ctx := t.Context()
	all, err := s.Export(ctx, "T", "", 10)
	must(t, err)
	wantEqual(t, len(all), 0)
	addTenant(t, s, "T")
	addTenant(t, s, "U")
	var want []registry.FullDevice
	for i, id := range []iot.DeviceID{"A", "a", "a-b", "a.b", "a:b", "b", "c"} {
		addDevice(t, s, device("T", id))
		addDevice(t, s, device("U", id+"x"))
		full := registry.FullDevice{Device: device("T", id),
			Credentials: registry.CredentialsRecord{Tenant: "T", Device: id, Set: []iot.Credential{}, Version: "c1"}}
		if i%2 == 0 {
			full.Credentials.Set = []iot.Credential{password(fmt.Sprint("z", i)), {Type: iot.PSK, AuthID: "b" + fmt.Sprint(i), Secrets: []iot.Secret{{ID: "s", Key: []byte("k")}}}}
			full.Credentials.Version = "c2"
			putCredentials(t, s, "T", id, full.Credentials.Set...)
		}
		want = append(want, full)
	}
	for _, size := range []int{1, 2, 6, 7, 100} {
		var got []registry.FullDevice
		after, calls := iot.DeviceID(""), 0
		for {
			some, err := s.Export(ctx, "T", after, size)
			must(t, err)
			got = append(got, some...)
			if calls++; len(some) < size || calls > len(want)+1 {
				break
			}
			after = some[len(some)-1].Device.ID
		}
		wantEqual(t, got, want)
	}
	must(t, s.DeleteTenant(ctx, "T", "", at))
	some, err := s.Export(ctx, "T", "b", 10)
	must(t, err)
	wantEqual(t, some, want[6:])
}
