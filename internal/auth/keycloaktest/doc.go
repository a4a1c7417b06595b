// Package keycloaktest starts a real Keycloak for a test: a process of its own
// with its database in a temporary folder, on a free port of the loopback, in plain
// text. It takes some twenty seconds, so a test binary starts one and imports a
// realm for each test. tests/deps unpacks and prepares the distribution in
// build/keycloak, as pom.xml in this folder names it.
//
//	k := keycloaktest.Start(t) // skips unless SLUICE_TEST_ALL=1
//	k.Import(t, realm)         // JSON as of an export
//	issuer := k.Issuer("plant")
package keycloaktest
