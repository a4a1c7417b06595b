//go:build unix

package readme_test

import (
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/internal/registry/dynamotest"
	"github.com/sluice-iot/sluice/internal/registry/pgtest"
)

// What the pages call the administrator of PostgreSQL, and the ports of databases.
const (
	postgresAdmin = "postgres:admin@"
	postgresPort  = "5432"
	dynamoPort    = "8000"
)

// databases starts what a block names, for as long as the section goes on.
func (r *reader) databases(t *testing.T, b block) {
	t.Helper()
	if strings.Contains(b.code, postgresAdmin) {
		onlyWithAll(t)
		_, err := exec.LookPath("psql")
		need(t, "psql", err)
		u, err := url.Parse(pgtest.Start(t).URL)
		if err != nil {
			t.Fatal(err)
		}
		r.free[postgresPort] = u.Port()
		r.admin = strings.NewReplacer(postgresAdmin, u.User.String()+"@")
	}
	if b.lang == "sh" && strings.Contains(b.code, ":"+dynamoPort) {
		onlyWithAll(t)
		u, err := url.Parse(dynamotest.Endpoint(t))
		if err != nil {
			t.Fatal(err)
		}
		r.free[dynamoPort] = u.Port()
	}
}

func onlyWithAll(t *testing.T) {
	t.Helper()
	if !testAll() {
		t.Skip("databases are started with SLUICE_TEST_ALL=1")
	}
}
