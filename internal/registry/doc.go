// Package registry keeps tenants, devices and their credentials: the rules of
// Hono's Device Registry Management API (contract: registry) and the ports
// [Store] and [Feed] behind which a database keeps them.
//
// [Service] is what the management function and the identity functions share.
// Reading for an admission is one call, [Store.Read], that sees one consistent
// state. Every change writes its row of the change feed in its own
// transaction; telling others about it is not done here.
//
//	s, err := registry.New(store, registry.Options{})
//	id, version, err := s.CreateTenant(ctx, "DEMO", iot.Tenant{})
package registry
