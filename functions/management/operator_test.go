package management_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/sluice-iot/sluice/functions/management"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
)

func TestDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identities.yaml")
	secret, err := auth.AddOperator(path, "someone", map[string]auth.Activity{"T": auth.Read})
	if err != nil {
		t.Fatal(err)
	}
	directory, err := auth.Open(path, auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	operators := management.Directory(directory)
	if _, err := operators.Password(t.Context(), "someone", secret+"x"); !errors.Is(err, iot.ErrUnauthenticated) {
		t.Fatalf("got %v, want %v", err, iot.ErrUnauthenticated)
	}
	who, err := operators.Password(t.Context(), "someone", secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		tenant iot.TenantID
		action management.Action
		want   bool
	}{
		{"T", management.Read, true}, {"T", management.Write, false}, {"U", management.Read, false},
		{management.AllTenants, management.Read, false}, {"T", 0, false},
	} {
		if got := who.May(c.tenant, c.action); got != c.want {
			t.Errorf("%s %d: got %t", c.tenant, c.action, got)
		}
	}
}
