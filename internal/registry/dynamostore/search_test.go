package dynamostore_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/dynamostore"
)

// sites makes devices with a site, a number and tags.
func sites(t *testing.T, s *dynamostore.Store, n int) {
	t.Helper()
	must(t, s.CreateTenant(t.Context(), tenant("T")))
	var writes []registry.DeviceWrite
	for i := range n {
		d := device(iot.DeviceID(fmt.Sprintf("D%03d", i)))
		site := []string{"north", "northern", "south", "a\x00b", "a", strings.Repeat("long", 100) + fmt.Sprint(i)}[i%6]
		d.Device.Ext = fmt.Appendf(nil, `{"site":%q,"n":%d,"tags":["t%d","all"],"long id":true}`, strings.ReplaceAll(site, "\x00", "?"), i%4, i%3)
		if i%6 == 3 {
			d.Device.Ext = fmt.Appendf(nil, `{"site":"a\u0000b","n":-0.5,"tags":[]}`)
		}
		if i == 10 {
			d.ID = iot.DeviceID(strings.Repeat("D", 700))
		}
		d.Device.MemberOf = map[bool][]string{true: {"g"}}[i%5 == 0]
		if i%7 == 0 {
			d.Device.Via = []iot.DeviceID{"D001", "nobody"}
		}
		writes = append(writes, registry.DeviceWrite{Op: registry.CreateOp, Device: d, CredentialsVersion: "c"})
	}
	results, err := s.ApplyDevices(t.Context(), "T", writes, -1)
	must(t, append(results, err)...)
}

var searches = map[string]registry.Search{
	"equal":            {Filters: []registry.Filter{{Path: []string{"ext", "site"}, Value: "north"}}},
	"equal, second":    {Filters: []registry.Filter{{Path: []string{"ext", "site"}, Value: "north"}}, Offset: 3},
	"beyond":           {Filters: []registry.Filter{{Path: []string{"ext", "site"}, Value: "north"}}, Offset: 300},
	"prefix":           {Filters: []registry.Filter{{Path: []string{"ext", "site"}, Value: "nor*"}}, Offset: 2},
	"one character":    {Filters: []registry.Filter{{Path: []string{"ext", "site"}, Value: "nor?h"}}},
	"zero byte":        {Filters: []registry.Filter{{Path: []string{"ext", "site"}, Value: "a"}}},
	"with zero byte":   {Filters: []registry.Filter{{Path: []string{"ext", "site"}, Value: "a\x00b"}}},
	"long":             {Filters: []registry.Filter{{Path: []string{"ext", "site"}, Value: strings.Repeat("long", 100) + "5"}}},
	"number":           {Filters: []registry.Filter{{Path: []string{"ext", "n"}, Value: 2.0}}},
	"of an array":      {Filters: []registry.Filter{{Path: []string{"ext", "tags"}, Value: "t*"}}},
	"two filters":      {Filters: []registry.Filter{{Path: []string{"ext", "site"}, Value: "north"}, {Path: []string{"ext", "n"}, Value: 2.0}}},
	"sorted":           {Filters: []registry.Filter{{Path: []string{"ext", "tags"}, Value: "all"}}, Sort: []registry.Order{{Path: []string{"ext", "site"}, Descending: true}}},
	"id":               {Filters: []registry.Filter{{Path: []string{"id"}, Value: "D007"}}},
	"id, prefix":       {Filters: []registry.Filter{{Path: []string{"id"}, Value: "D00*"}}, Offset: 2},
	"id, pattern":      {Filters: []registry.Filter{{Path: []string{"id"}, Value: "D0?1"}}},
	"gateways":         {IsGateway: ptr(true)},
	"gateways of site": {IsGateway: ptr(true), Filters: []registry.Filter{{Path: []string{"ext", "site"}, Value: "north"}}},
	"no gateways":      {IsGateway: ptr(false), Offset: 7},
	"plain":            {Offset: 5},
	"enabled":          {Filters: []registry.Filter{{Path: []string{"enabled"}, Value: true}}},
}

func ptr[T any](v T) *T { return &v }

func found(t *testing.T, s *dynamostore.Store, q registry.Search) string {
	t.Helper()
	q.Limit = 4
	page, err := s.SearchDevices(t.Context(), "T", q)
	must(t, err)
	text := fmt.Sprint(page.Total)
	for _, d := range page.Devices {
		text += fmt.Sprintf(" %.8s", d.ID)
	}
	return text
}

// TestIndexes compares what a store with indexes finds with what one without
// finds, before and after the indexes are complete and the devices change.
func TestIndexes(t *testing.T) {
	plain := open(t, options(t))
	sites(t, plain, 60)
	fresh := options(t)
	fresh.Indexes = [][]string{{"ext", "site"}, {"ext", "n"}, {"ext", "tags"}, {"enabled"}}
	indexed := open(t, fresh)
	sites(t, indexed, 60)
	late := options(t)
	old := open(t, late)
	sites(t, old, 60)
	late.Indexes = fresh.Indexes
	declared := open(t, late)
	must(t, declared.UpdateDevice(t.Context(), device("D001"), "")) // keeps the new indexes already
	must(t, plain.UpdateDevice(t.Context(), device("D001"), ""), indexed.UpdateDevice(t.Context(), device("D001"), ""))
	stores := map[string]*dynamostore.Store{"indexed": indexed, "incomplete": declared}
	compare := func(t *testing.T) {
		for name, q := range searches {
			want := found(t, plain, q)
			for kind, s := range stores {
				if got := found(t, s, q); got != want {
					t.Errorf("%s, %s: got %s, want %s", name, kind, got, want)
				}
			}
		}
	}
	compare(t)
	must(t, declared.Reindex(t.Context()), declared.Reindex(t.Context()))
	late.Indexes = nil // recorded in the table
	stores["complete"] = open(t, late)
	compare(t)
	for _, s := range []*dynamostore.Store{plain, indexed, stores["complete"]} {
		d := device("D012")
		d.Device.Ext = []byte(`{"site":"south","n":2}`)
		must(t, s.UpdateDevice(t.Context(), d, ""), s.DeleteDevice(t.Context(), "T", "D006", "", at))
	}
	compare(t)
}

func TestScanLimit(t *testing.T) {
	o := options(t)
	o.Indexes = [][]string{{"ext", "n"}}
	s := open(t, o)
	sites(t, s, 40)
	for _, c := range []struct {
		name string
		q    registry.Search
		ok   bool
	}{
		{"scan", registry.Search{Filters: []registry.Filter{{Path: []string{"ext", "site"}, Value: "north"}}}, false},
		{"gateways", registry.Search{IsGateway: ptr(true)}, false},
		{"index", registry.Search{Filters: []registry.Filter{{Path: []string{"ext", "n"}, Value: 2.0}}}, true},
		{"plain", registry.Search{}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.q.MaxScan, c.q.Limit = 20, 5
			_, err := s.SearchDevices(t.Context(), "T", c.q)
			if c.ok {
				must(t, err)
			} else if !errors.Is(err, iot.ErrInvalid) || !strings.Contains(err.Error(), "20") {
				t.Fatalf("got %v, want iot.ErrInvalid that names the limit", err)
			}
		})
	}
}

func TestExportPages(t *testing.T) {
	s := open(t, options(t))
	sites(t, s, 30)
	must(t, s.PutCredentials(t.Context(), set("D004", "c2", password("x"), password("y")), "", at))
	var all []registry.FullDevice
	for after := iot.DeviceID(""); ; {
		some, err := s.Export(t.Context(), "T", after, 7)
		must(t, err)
		all = append(all, some...)
		if len(some) < 7 {
			break
		}
		after = some[len(some)-1].Device.ID
	}
	if len(all) != 30 {
		t.Fatalf("got %d devices, want 30", len(all))
	}
	if d := cmp.Diff([]iot.Credential{password("x"), password("y")}, all[4].Credentials.Set); d != "" {
		t.Fatal(d)
	}
}
