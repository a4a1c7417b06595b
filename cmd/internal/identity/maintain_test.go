package identity_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/cmd/internal/identity"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/dynamostore"
	"github.com/sluice-iot/sluice/internal/registry/dynamotest"
)

func TestMain(m *testing.M) { os.Exit(dynamotest.Run(m)) }

// TestMaintainDynamoDB removes what many devices leave, and completes an index.
func TestMaintainDynamoDB(t *testing.T) {
	cfg := config.Defaults()
	cfg.Registry = config.Registry{Store: "dynamodb", Table: "maintained", Region: dynamotest.Region, Endpoint: dynamotest.Endpoint(t)}
	t.Setenv("AWS_ACCESS_KEY_ID", dynamotest.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", dynamotest.SecretKey)
	s, err := dynamostore.Open(t.Context(), dynamostore.Options{Table: cfg.Registry.Table, Region: cfg.Registry.Region, Endpoint: cfg.Registry.Endpoint, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.CreateTenant(t.Context(), registry.TenantRecord{ID: "T", Version: "1"}); err != nil {
		t.Fatal(err)
	}
	fill := func(n int) {
		var writes []registry.DeviceWrite
		for i := range n {
			writes = append(writes, registry.DeviceWrite{Op: registry.CreateOp, Device: registry.DeviceRecord{
				Tenant: "T", ID: iot.DeviceID(fmt.Sprint("d", i)), Version: "1", Device: iot.Device{Ext: []byte(`{"site":"Kiel"}`)}}})
		}
		if results, err := s.ApplyDevices(t.Context(), "T", writes, -1); err != nil || results[n-1] != nil {
			t.Fatal(err, results)
		}
	}
	fill(150)
	if err := s.DeleteDevices(t.Context(), "T", time.Now()); err != nil {
		t.Fatal(err)
	}
	fill(3)
	maintain := func() string {
		var out []string
		if err := identity.Maintain(t.Context(), &cfg, nil, func(what, state string) { out = append(out, what+": "+state) }); err != nil {
			t.Fatal(err)
		}
		return strings.Join(out, "\n")
	}
	const swept = "deleted devices: nothing of them is left\n"
	for i, tt := range []struct {
		indexes []string
		want    string
	}{
		{nil, swept + "indexes: complete"},
		{[]string{"/ext/site"}, swept + "indexes: reading every device for /ext/site\nindexes: complete; processes use the new ones from their next start on"},
		{[]string{"/ext/site"}, swept + "indexes: complete"},
	} {
		cfg.Registry.Indexes = tt.indexes
		if got := maintain(); got != tt.want {
			t.Errorf("%d: got\n%s", i, got)
		}
	}
	if more, err := s.Sweep(t.Context(), 1); more || err != nil {
		t.Errorf("something is left: %v, %v", more, err)
	}
	declared, err := dynamostore.Open(t.Context(), dynamostore.Options{Table: cfg.Registry.Table, Region: cfg.Registry.Region, Endpoint: cfg.Registry.Endpoint})
	if err != nil {
		t.Fatal(err)
	}
	defer declared.Close()
	page, err := declared.SearchDevices(t.Context(), "T", registry.Search{
		Filters: []registry.Filter{{Path: []string{"ext", "site"}, Value: "Kiel"}}, Limit: 10, MaxScan: 1})
	if err != nil || len(page.Devices) != 3 {
		t.Errorf("by the index: %d devices, %v", len(page.Devices), err)
	}
}
