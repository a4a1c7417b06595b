package downstream

import "github.com/sluice-iot/sluice/internal/iot"

// tenantShare is how many times what is left of a room a tenant may have of
// it. Alone it gets three quarters; the more tenants take all they can, the less each has,
// and there is always some left for one that has nothing. Else the devices of one
// tenant, by acknowledging nothing, kept commands from those of all others.
const tenantShare = 3

// load is what the handler has.
type load struct {
	count int // commands
	bytes int // of their messages
}

// inUse is what the handler has of one connection.
type inUse struct {
	load
	tenants map[iot.TenantID]load
}

// take counts a command of a tenant; false = the tenant has its share.
func (u *inUse) take(tenant iot.TenantID, size int) bool {
	has := u.tenants[tenant]
	if has.count > 0 && (has.count >= tenantShare*(maxUnsettled-u.count) ||
		has.bytes+size > tenantShare*(maxCommandBytes-u.bytes)) {
		return false
	}
	if u.tenants == nil {
		u.tenants = map[iot.TenantID]load{}
	}
	u.tenants[tenant] = load{has.count + 1, has.bytes + size}
	u.count++
	u.bytes += size
	return true
}

// give is the end of a command that was taken.
func (u *inUse) give(tenant iot.TenantID, size int) {
	u.count--
	u.bytes -= size
	if has := u.tenants[tenant]; has.count > 1 {
		u.tenants[tenant] = load{has.count - 1, has.bytes - size}
	} else {
		delete(u.tenants, tenant)
	}
}
