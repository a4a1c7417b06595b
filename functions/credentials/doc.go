// Package credentials answers io.sluice.credentials.get: a device's
// credentials of a type and auth-id with their secrets, for those who verify
// them themselves (contract: messaging 5, registry 10). Devices admitted by
// our own adapters never cause this call.
package credentials
