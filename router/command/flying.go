package command

import "github.com/sluice-iot/sluice/internal/iot"

// flyingShare is how many times what is left of the room a tenant may have of it: alone
// it gets three quarters. Else the commands of one, to an adapter of its own that
// never answers, kept those of all others out.
const flyingShare = 3

// flying counts the commands that are under way. Not safe for concurrent use.
type flying struct {
	all     int
	tenants map[iot.TenantID]int
}

// take counts one of a tenant; false = there is no room.
func (f *flying) take(tenant iot.TenantID) bool {
	has, left := f.tenants[tenant], maxFlying-f.all
	if left <= 0 || has >= flyingShare*left {
		return false
	}
	if f.tenants == nil {
		f.tenants = map[iot.TenantID]int{}
	}
	f.all++
	f.tenants[tenant]++
	return true
}

// give is the end of one that was taken.
func (f *flying) give(tenant iot.TenantID) {
	f.all--
	if f.tenants[tenant]--; f.tenants[tenant] == 0 {
		delete(f.tenants, tenant)
	}
}
