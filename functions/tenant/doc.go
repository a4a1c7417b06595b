// Package tenant answers io.sluice.tenant.get: the tenant as the Tenant API
// shows it, enabled or not (contract: messaging 3, registry 10). It decides
// nothing about the tenant's devices.
package tenant
