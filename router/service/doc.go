// Package service makes the addresses tenant, registration/T and credentials/T of
// a router what they are to any component of Hono: requests of the Tenant, Device
// Registration and Credentials API come in over AMQP, are asked of functions as
// CloudEvents calls, and are answered on the reply link (contract: messaging 2 to 5,
// events 4.1).
//
// [Server] is a [forward.Service]. It settles a request before it is worked on,
// bounds how many are, and gives each a deadline; whoever made it ends it by
// [Server.Close]. Which links may be attached is decided by the router, which asks
// [CheckTarget] and [CheckReply] for the form of an address. No answer is kept
// here: the functions say how long their callers may keep theirs.
//
// What a program wires, all in [router.Options] and [router.Listener]:
//
//	router.Options.Invoker    events.Invoker; nil = there are no service addresses
//	router.Options.Tokens     router.Tokens, an *authtoken.Issuer; nil = there is no cbs
//	router.Listener.Scope     router.ScopeAll (roles northbound, internal), router.ScopeServices
//	                          (role registry), router.ScopeTokens (role auth)
//	authtoken.Open(path, authtoken.Options{Issuer, Audience, Lifetime, Algorithm})
//	                          path is DATA/keys/auth-token.pem, made with mode 0600
//	Issuer.Keys()             JWKs to be listed at /validating-keys beside the assertion keys
//
// The router's Run and Shutdown end what is in flight.
package service
