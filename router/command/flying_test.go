package command_test

import (
	"testing"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/command"
)

// TestCommandsOfOneTenantLeaveRoom: those of one, which nobody settles, keep nobody else's out.
func TestCommandsOfOneTenantLeaveRoom(t *testing.T) {
	var f command.Flying
	has := map[iot.TenantID]int{}
	fill := func(tenant iot.TenantID) int {
		for f.Take(tenant) {
			has[tenant]++
		}
		return has[tenant]
	}
	if n := fill("T"); n != command.MaxFlying*3/4 {
		t.Errorf("alone a tenant has %d, want three quarters of %d", n, command.MaxFlying)
	}
	for _, tenant := range []iot.TenantID{"U", "V", "W"} {
		if n := fill(tenant); n < 1000 {
			t.Errorf("%s has room for %d", tenant, n)
		}
	}
	for tenant, n := range has {
		for range n {
			f.Give(tenant)
		}
	}
	if !f.Idle() {
		t.Error("something is left of what has ended")
	}
}
