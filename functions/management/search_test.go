package management_test

import (
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/functions/management"
)

// found sends a search and returns total and ids.
func (a *api) found(path string, parameters ...string) (total int, ids []string) {
	a.t.Helper()
	_, reply := a.want(200, "GET", path+"?"+query(parameters...), "")
	var page struct {
		Total  int
		Result []struct {
			ID     string
			Status any
		}
	}
	if err := json.Unmarshal([]byte(reply), &page); err != nil {
		a.t.Fatal(err)
	}
	for _, r := range page.Result {
		ids = append(ids, r.ID)
		if r.Status != nil {
			a.t.Errorf("%s has a status", r.ID)
		}
	}
	return page.Total, ids
}

func query(parameters ...string) string {
	q := url.Values{}
	for _, p := range parameters {
		name, value, _ := strings.Cut(p, "=")
		q.Add(name, value)
	}
	return q.Encode()
}

type searchCase struct {
	name       string
	parameters []string
	total      int
	ids        string // separated by spaces
}

func (c searchCase) run(t *testing.T, a *api, path string) {
	t.Run(c.name, func(t *testing.T) {
		a := &api{a.Server, t}
		if c.total == 0 {
			a.want(404, "GET", path+"?"+query(c.parameters...), "")
			return
		}
		total, ids := a.found(path, c.parameters...)
		if got := strings.Join(ids, " "); total != c.total || got != c.ids {
			t.Fatalf("got %d: %s, want %d: %s", total, got, c.total, c.ids)
		}
	})
}

func TestSearchTenants(t *testing.T) {
	a := start(t, management.Options{})
	a.want(404, "GET", "/v1/tenants", "") // none at all
	for id, body := range map[string]string{
		"t1": `{"enabled":true,"ext":{"id":"$id1","n":1}}`, "t2": `{"enabled":true,"ext":{"id":"$id2","n":2.5}}`,
		"t3": `{"enabled":false,"ext":{"id":"$id12"}}`, "t4": `{"ext":{"id":"other","a/b":{"~":true}}}`,
		"t5": `{"adapters":[{"type":"hono-http"},{"type":"hono-mqtt"}]}`, "t6": ``,
	} {
		a.want(201, "POST", "/v1/tenants/"+id, body)
	}
	for _, c := range []searchCase{
		{"all, by id", nil, 6, "t1 t2 t3 t4 t5 t6"},
		{"page size", []string{"pageSize=2"}, 6, "t1 t2"},
		{"page index", []string{"pageSize=4", "pageOffset=1"}, 6, "t5 t6"},
		{"beyond the end", []string{"pageSize=4", "pageOffset=2"}, 6, ""},
		{"descending", []string{`sortJson={"field":"/ext/id","direction":"desc"}`}, 6, "t4 t2 t3 t1 t5 t6"},
		{"two orders", []string{`sortJson={"field":"/enabled"}`, `sortJson={"field":"/id","direction":"desc"}`}, 6, "t6 t5 t4 t3 t2 t1"},
		{"equal", []string{`filterJson={"field":"/ext/id","value":"$id1"}`}, 1, "t1"},
		{"two filters", []string{`filterJson={"field":"/enabled","value":true}`, `filterJson={"field":"/ext/id","value":"$id*"}`}, 2, "t1 t2"},
		{"two filters on one member", []string{`filterJson={"field":"/ext/id","value":"$id*"}`, `filterJson={"field":"/ext/id","value":"*2"}`}, 2, "t2 t3"},
		{"any run", []string{`filterJson={"field":"/ext/id","value":"$id*"}`}, 3, "t1 t2 t3"},
		{"one character", []string{`filterJson={"field":"/ext/id","value":"$id?2"}`}, 1, "t3"},
		{"inside", []string{`filterJson={"field":"/ext/id","value":"*id*2"}`}, 2, "t2 t3"},
		{"number", []string{`filterJson={"field":"/ext/n","op":"eq","value":2.5}`}, 1, "t2"},
		{"boolean", []string{`filterJson={"field":"/enabled","value":false}`}, 1, "t3"},
		{"effective value", []string{`filterJson={"field":"/enabled","value":true}`}, 5, "t1 t2 t4 t5 t6"},
		{"element of an array", []string{`filterJson={"field":"/adapters/type","value":"hono-mqtt"}`}, 1, "t5"},
		{"escapes", []string{`filterJson={"field":"/ext/a~1b/~0","value":true}`}, 1, "t4"},
		{"id", []string{`filterJson={"field":"/id","value":"t?"}`, "pageSize=1"}, 6, "t1"},
		{"upper case", []string{`filterJson={"field":"/id","value":"T1"}`}, 0, ""},
		{"absent member", []string{`filterJson={"field":"/ext/none","value":"*"}`}, 0, ""},
	} {
		c.run(t, a, "/v1/tenants")
	}
}

func TestSearchDevices(t *testing.T) {
	a := start(t, management.Options{})
	a.want(404, "GET", "/v1/devices/T", "")
	a.want(404, "GET", "/v1/devices/a%20b", "") // the pattern is not looked at
	a.want(201, "POST", "/v1/tenants/T", "")
	a.want(201, "POST", "/v1/tenants/U", "")
	a.want(404, "GET", "/v1/devices/T", "") // no devices
	a.want(201, "POST", "/v1/devices/U/other", `{"ext":{"id":"1"}}`)
	for id, body := range map[string]string{
		"d1": `{"enabled":true,"via":["g1"],"ext":{"id":"1"}}`, "d2": `{"enabled":true,"viaGroups":["group"],"ext":{"id":"2"}}`,
		"g1": `{"ext":{"id":"3"}}`, "g2": `{"memberOf":"group"}`,
	} {
		a.want(201, "POST", "/v1/devices/T/"+id, body)
	}
	for _, c := range []searchCase{
		{"all, by id", nil, 4, "d1 d2 g1 g2"},
		{"descending", []string{`sortJson={"field":"/ext/id","direction":"desc"}`, "pageSize=3"}, 4, "g1 d2 d1"},
		{"page index", []string{"pageSize=3", "pageOffset=1"}, 4, "g2"},
		{"filter", []string{`filterJson={"field":"/via","value":"g*"}`}, 1, "d1"},
		{"gateways", []string{"isGateway=true"}, 2, "g1 g2"},
		{"gateways, upper case", []string{"isGateway=TRUE"}, 2, "g1 g2"},
		{"no gateways", []string{"isGateway=false"}, 2, "d1 d2"},
		{"anything else is false", []string{"isGateway=1"}, 2, "d1 d2"},
		{"empty is unset", []string{"isGateway="}, 4, "d1 d2 g1 g2"},
		{"gateways and a filter", []string{"isGateway=true", `filterJson={"field":"/ext/id","value":"3"}`}, 1, "g1"},
		{"status", []string{`filterJson={"field":"/status/created","value":"20*"}`}, 4, "d1 d2 g1 g2"},
		{"nothing", []string{`filterJson={"field":"/ext/id","value":"4"}`}, 0, ""},
	} {
		c.run(t, a, "/v1/devices/T")
	}
}

func TestSearchParameters(t *testing.T) {
	a := start(t, management.Options{})
	a.want(201, "POST", "/v1/tenants/T", "")
	a.want(201, "POST", "/v1/devices/T/D", "")
	filter := `filterJson={"field":"/id","value":"T"}`
	for _, p := range []string{
		"pageSize=-100", "pageSize=0", "pageSize=201", "pageSize=x", "pageSize=1.5", "pageOffset=-1", "pageOffset=x", "pageOffset=99999999999",
		"filterJson=", "filterJson=x", `filterJson="x"`, "filterJson=null", "filterJson=[]", "filterJson={}", `filterJson={"field":"/id"}`,
		`filterJson={"field":"/id","value":null}`, `filterJson={"field":"/id","value":{}}`, `filterJson={"field":"/id","value":["T"]}`,
		`filterJson={"field":"id","value":"T"}`, `filterJson={"field":"","value":"T"}`, `filterJson={"field":"/a~2","value":"T"}`,
		`filterJson={"field":"/a~","value":"T"}`, `filterJson={"field":1,"value":"T"}`, `filterJson={"field":null,"value":"T"}`,
		`filterJson={"field":"/id","op":"ne","value":"T"}`, `filterJson={"field":"/id","op":"in","value":"T"}`, `filterJson={"Field":"/id","value":"T"}`,
		`filterJson={"field":"/id","value":"T","x":1}`, `filterJson={"field":"/id","value":"T"} {}`, `filterJson={"field":"/n","value":1e999}`,
		`filterJson={"field":"` + strings.Repeat("/a", 33) + `","value":"T"}`,
		"sortJson=x", "sortJson={}", `sortJson={"field":"id"}`, `sortJson={"field":"/id","direction":"DESC"}`, `sortJson={"field":"/id","direction":1}`,
		`sortJson={"field":"/id","x":1}`, `sortJson={"direction":"asc"}`,
	} {
		t.Run(p[:min(len(p), 60)], func(t *testing.T) {
			a := &api{a.Server, t}
			a.want(400, "GET", "/v1/tenants?"+query(p), "")
			a.want(400, "GET", "/v1/devices/T?"+query(p), "")
		})
	}
	a.want(400, "GET", "/v1/tenants?"+query(slices.Repeat([]string{filter}, 33)...), "")
	a.want(200, "GET", "/v1/tenants?"+query(slices.Repeat([]string{filter}, 32)...), "")
	a.want(400, "GET", "/v1/tenants?filterJson=%zz", "")
	a.want(400, "GET", "/v1/tenants?pageSize=1;pageOffset=0", "")
	for _, n := range []int{1, 200} {
		a.want(200, "GET", "/v1/tenants?pageSize="+strconv.Itoa(n), "")
	}
}

// TestSearchInScope expects an operator to find what he may read.
func TestSearchInScope(t *testing.T) {
	a := start(t, management.Options{})
	for _, id := range []string{"S", "T", "U", "V"} {
		a.want(201, "POST", "/v1/tenants/"+id, `{"ext":{"id":"`+id+`"}}`)
	}
	for _, c := range []struct {
		who        string
		parameters []string
		status     int
		total      int
		ids        string
	}{
		{"admin", nil, 200, 4, "S T U V"},
		{"reader", nil, 200, 2, "T V"},
		{"owner", nil, 200, 1, "T"},
		{"exporter", nil, 403, 0, ""},
		{"reader", []string{`sortJson={"field":"/ext/id","direction":"desc"}`, "pageSize=1"}, 200, 2, "V"},
		{"reader", []string{"pageSize=1", "pageOffset=1"}, 200, 2, "V"},
		{"reader", []string{`filterJson={"field":"/id","value":"V"}`}, 200, 1, "V"},
		{"reader", []string{`filterJson={"field":"/id","value":"S"}`}, 404, 0, ""},
		{"reader", []string{"pageSize=0"}, 400, 0, ""},
	} {
		_, reply := a.want(c.status, "GET", "/v1/tenants?"+query(c.parameters...), "", "Authorization", "Bearer "+c.who)
		var page struct {
			Total  int
			Result []struct{ ID string }
		}
		if err := json.Unmarshal([]byte(reply), &page); err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, r := range page.Result {
			ids = append(ids, r.ID)
		}
		if got := strings.Join(ids, " "); page.Total != c.total || got != c.ids {
			t.Errorf("%s %v: got %d: %s", c.who, c.parameters, page.Total, got)
		}
	}
	a.want(404, "DELETE", "/v1/tenants/W", "")
	a.want(204, "DELETE", "/v1/tenants/T", "")
	a.want(204, "DELETE", "/v1/tenants/V", "")
	a.want(404, "GET", "/v1/tenants", "", "Authorization", "Bearer reader") // they are gone
	a.want(403, "GET", "/v1/devices/S", "", "Authorization", "Bearer reader")
}
