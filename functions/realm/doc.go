// Package realm checks the passwords of devices at identity providers: realms of
// Keycloak, or any other OpenID Connect issuer that logs users in by password for
// a confidential client (RFC 6749, section 4.3). Claims of the ID token say which
// device of which tenant a user is.
//
// It keeps no password, no hash, no token and no answer: what it found out holds
// until the end that it returns, in the cache of who asked. Everything else about
// the device is in the registry, as for other devices.
//
//	client, err := oidc.NewClient(oidc.ClientConfig{Issuer: "https://id.example/realms/plant", ID: "sluice", Secret: secret})
//	realms, err := realm.New([]realm.Provider{{Name: "plant", Issuer: client, Tenants: []iot.TenantID{"ACME"}}}, log, time.Now)
//	device, until, err := realms.Verify(ctx, "plant", "ACME", "sensor1", password)
package realm
