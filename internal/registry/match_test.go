package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

func find(t *testing.T, s registry.Search, docs map[string]string) (int, []string) {
	t.Helper()
	sel := registry.NewSelection(s)
	for id, doc := range docs {
		status := &iot.DeviceStatus{AutoProvisioned: id == "d2", Created: iot.Timestamp{Time: time.Unix(0, 0)}}
		if err := sel.Offer(registry.Candidate{ID: id, Doc: []byte(doc), Status: status, Gateway: id == "d3"}); err != nil {
			t.Fatal(err)
		}
	}
	return sel.Page()
}

func path(pointer string) []string { return strings.Split(pointer[1:], "/") }

func TestSelection(t *testing.T) {
	docs := map[string]string{
		"d1": `{"enabled":true,"ext":{"n":1,"s":"$id1","deep":{"x":[{"y":"a"},{"y":"b"}]}},"via":["g1","g2"]}`,
		"d2": `{"enabled":false,"ext":{"n":1.0,"s":"$id22","b":false}}`,
		"d3": `{"ext":{"n":-3e2,"s":"x*y","b":true}}`,
		"d4": `{"ext":{"n":"1","s":"ä"},"via":[]}`,
	}
	yes, no := true, false
	filter := func(p string, v any) registry.Search {
		return registry.Search{Limit: 10, Filters: []registry.Filter{{Path: path(p), Value: v}}}
	}
	for _, tt := range []struct {
		name   string
		search registry.Search
		want   string
	}{
		{"all", registry.Search{Limit: 10}, "d1 d2 d3 d4"},
		{"enabled, absent counts as true", filter("/enabled", true), "d1 d3 d4"},
		{"disabled", filter("/enabled", false), "d2"},
		{"number", filter("/ext/n", 1.0), "d1 d2"},
		{"number is no text", filter("/ext/n", "1"), "d4"},
		{"negative", filter("/ext/n", -300.0), "d3"},
		{"absent", filter("/ext/q", "x"), ""},
		{"absent is not false", filter("/ext/b", false), "d2"},
		{"array", filter("/via", "g2"), "d1"},
		{"index of array", filter("/via/0", "g2"), ""},
		{"through arrays", filter("/ext/deep/x/y", "b"), "d1"},
		{"object is no value", filter("/ext", "*"), ""},
		{"run", filter("/ext/s", "$id*"), "d1 d2"},
		{"one", filter("/ext/s", "$id?2"), "d2"},
		{"inside", filter("/ext/s", "*id*2"), "d2"},
		{"one is a character", filter("/ext/s", "?"), "d4"},
		{"star itself", filter("/ext/s", "x**y"), "d3"},
		{"id", filter("/id", "d?"), "d1 d2 d3 d4"},
		{"case", filter("/id", "D1"), ""},
		{"status", filter("/status/auto-provisioned", true), "d2"},
		{"through a scalar", filter("/enabled/x", true), ""},
		{"gateways", registry.Search{Limit: 10, IsGateway: &yes}, "d3"},
		{"no gateways", registry.Search{Limit: 10, IsGateway: &no}, "d1 d2 d4"},
		{"and", registry.Search{Limit: 10, Filters: []registry.Filter{{Path: path("/ext/s"), Value: "$*"}, {Path: path("/ext/s"), Value: "*1"}}}, "d1"},
		{"page", registry.Search{Limit: 2, Offset: 1}, "d2 d3"},
		{"beyond", registry.Search{Limit: 2, Offset: 9}, ""},
		{"sorted", registry.Search{Limit: 10, Sort: []registry.Order{{Path: path("/ext/n")}}}, "d3 d1 d2 d4"},
		{"descending", registry.Search{Limit: 10, Sort: []registry.Order{{Path: path("/ext/n"), Descending: true}}}, "d4 d1 d2 d3"},
		{"missing first", registry.Search{Limit: 10, Sort: []registry.Order{{Path: path("/ext/b")}, {Path: path("/id"), Descending: true}}}, "d4 d1 d2 d3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			total, ids := find(t, tt.search, docs)
			if got := strings.Join(ids, " "); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if tt.search.Offset == 0 && total != len(strings.Fields(tt.want)) {
				t.Errorf("got total %d, want %d", total, len(strings.Fields(tt.want)))
			}
		})
	}
}

func TestSelectionIsBounded(t *testing.T) {
	sel := registry.NewSelection(registry.Search{Limit: 3, Offset: 2, MaxScan: 10_000, Sort: []registry.Order{{Path: path("/ext/n"), Descending: true}}})
	for i := range 10_000 {
		if err := sel.Offer(registry.Candidate{ID: fmt.Sprintf("%05d", i*7919%10_000), Doc: fmt.Appendf(nil, `{"ext":{"n":%d}}`, i*7919%10_000)}); err != nil {
			t.Fatal(err)
		}
	}
	total, ids := sel.Page()
	if want := []string{"09997", "09996", "09995"}; total != 10_000 || !slices.Equal(ids, want) {
		t.Errorf("got %d, %v, want 10000, %v", total, ids, want)
	}
	err := sel.Offer(registry.Candidate{ID: "more", Doc: []byte("{}")})
	if !errors.Is(err, iot.ErrInvalid) || !strings.Contains(err.Error(), "10000 documents") || !strings.Contains(err.Error(), "/ext/n") {
		t.Errorf("got %v", err)
	}
}

func TestSelectionOfOddInput(t *testing.T) {
	for _, doc := range []string{"", "null", "[]", "7", `{"ext":`, `{"ext":null}`, `{"ext":[[["x"]]]}`, `{"":{"":"x"}}`} {
		for _, p := range [][]string{nil, {}, {""}, {"ext"}, {"ext", "0", "0"}, {"status"}, {"status", "created", "x"}, {"id", "x"}} {
			for _, v := range []any{"*", "", "x", true, 1.0, nil, []int{1}} {
				sel := registry.NewSelection(registry.Search{Filters: []registry.Filter{{Path: p, Value: v}}, Sort: []registry.Order{{Path: p}}})
				_ = sel.Offer(registry.Candidate{ID: "d", Doc: []byte(doc)})
				sel.Page()
			}
		}
	}
}

// What an index finds is what looking at every document finds.
func TestIndexAgreesWithSelection(t *testing.T) {
	long := strings.Repeat("ä", 200)
	values := []any{"", "a", "ab", "b", "a*", long, long + "x", long[:256], true, false, 0.0, -1.5, 1e300, "true", "1"}
	docs := map[string]string{"none": `{}`, "list": `{"ext":{"v":["a","b",true,1]}}`, "null": `{"ext":{"v":null}}`}
	for i, v := range values {
		b, _ := json.Marshal(v)
		docs[fmt.Sprint("d", i)] = fmt.Sprintf(`{"ext":{"v":%s}}`, b)
	}
	filters := append(slices.Clone(values), "a*", "*", "?", long+"*", long[:255]+"*", "a?")
	for _, v := range filters {
		s := registry.Search{Limit: 100, Filters: []registry.Filter{{Path: path("/ext/v"), Value: v}}}
		total, want := find(t, s, docs)
		use, ok := s.UseIndex([][]string{path("/ext/w"), path("/ext/v")})
		if !ok {
			continue
		}
		found := map[string]string{}
		for id, doc := range docs {
			for _, text := range registry.IndexValues([]byte(doc), path("/ext/v")) {
				if use.Exact && text == use.Text || !use.Exact && strings.HasPrefix(text, use.Text) {
					found[id] = doc
				}
			}
		}
		if use.Only && len(found) != total {
			t.Errorf("%q: the index alone finds %d, want %d", v, len(found), total)
		}
		if _, got := find(t, s, found); !slices.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", v, got, want)
		}
	}
	if use, ok := (&registry.Search{Filters: []registry.Filter{{Path: path("/id"), Value: "d*"}, {Path: path("/ext/v"), Value: "x"}}}).UseIndex([][]string{path("/ext/v")}); !ok || use.ID || use.Only || use.Path != 0 {
		t.Errorf("got %+v, %v, want the exact value", use, ok)
	}
}

func TestIndexIsChosenByWhatItFinds(t *testing.T) {
	indexed := [][]string{path("/enabled"), path("/ext/v"), path("/status/created")}
	for _, tt := range []struct {
		filters []registry.Filter
		want    int // -1 = none helps
	}{
		{[]registry.Filter{{Path: path("/enabled"), Value: true}, {Path: path("/ext/v"), Value: "ab*"}}, 1},
		{[]registry.Filter{{Path: path("/ext/v"), Value: "a"}, {Path: path("/enabled"), Value: true}}, 0},
		{[]registry.Filter{{Path: path("/ext/v"), Value: "ab*"}, {Path: path("/ext/v"), Value: "a"}}, 1},
		{[]registry.Filter{{Path: path("/ext/v"), Value: "a"}, {Path: path("/id"), Value: "d"}}, 1},
		{[]registry.Filter{{Path: path("/ext/v"), Value: "*a"}, {Path: path("/ext/w"), Value: "a"}}, -1},
		{[]registry.Filter{{Path: path("/status/created"), Value: "2026*"}}, -1},
	} {
		use, ok := (&registry.Search{Filters: tt.filters}).UseIndex(indexed)
		if ok != (tt.want >= 0) || ok && use.Filter != tt.want {
			t.Errorf("%v: got %+v, %v, want filter %d", tt.filters, use, ok, tt.want)
		}
	}
}

func BenchmarkOffer(b *testing.B) {
	sel := registry.NewSelection(registry.Search{Limit: 30, MaxScan: 1 << 60, Filters: []registry.Filter{{Path: path("/ext/model"), Value: "m7"}}})
	doc := []byte(`{"enabled":true,"ext":{"serial":"0123456789","model":"m8"},"defaults":{"content-type":"application/json"},"via":["gateway-1"]}`)
	b.ReportAllocs()
	for b.Loop() {
		if err := sel.Offer(registry.Candidate{ID: "d", Doc: doc}); err != nil {
			b.Fatal(err)
		}
	}
}

// What devices hold is up to those who write it, and what is asked up to those
// who search: neither may take all memory, or a processor for ever.
func TestSelectionKeepsLittle(t *testing.T) {
	sort := slices.Repeat([]registry.Order{{Path: path("/ext/s")}}, registry.MaxOrders)
	sel := registry.NewSelection(registry.Search{Limit: 200, Offset: 100_000, Sort: sort})
	doc := fmt.Appendf(nil, `{"ext":{"s":%q}}`, strings.Repeat("x", 70_000))
	var err error
	offered := 0
	for ; err == nil && offered < 1000; offered++ {
		err = sel.Offer(registry.Candidate{ID: fmt.Sprint(offered), Doc: doc})
	}
	if !errors.Is(err, iot.ErrInvalid) || offered > 64<<20/(registry.MaxOrders*70_000)+1 {
		t.Errorf("got %v after %d candidates of %d bytes", err, offered, registry.MaxOrders*70_000)
	}
}

func TestSelectionOfNobody(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	sel := registry.NewSelection(registry.Search{Limit: 1, Done: ctx.Done()})
	if err := sel.Offer(registry.Candidate{ID: "a", Doc: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := sel.Offer(registry.Candidate{ID: "b", Doc: []byte("{}")}); !errors.Is(err, iot.ErrTimeout) {
		t.Errorf("got %v, want a timeout", err)
	}
}
