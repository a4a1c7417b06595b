// Package service makes the addresses tenant, registration/T, credentials/T and
// cmd_router/T of a router what they are to any component of Hono: requests of the
// Tenant, Device Registration and Credentials API come in over AMQP, are asked of
// functions as CloudEvents calls, and are answered on the reply link (contract:
// messaging 2 to 5, events 4.1). Those of the Command Router API (messaging 6) go to
// a [CommandRouter].
//
// [Server] is a [forward.Service]. It settles a request before it is worked on,
// bounds how many are, and gives each a deadline; whoever made it ends it by
// [Server.Close]. Which links may be attached is decided by the router, which asks
// [CheckTarget] and [CheckReply] for the form of an address. No answer is kept
// here: the functions say how long their callers may keep theirs.
//
// What a program wires:
//
//	router.Options.Invoker  answers the calls; nil = there are no service addresses
//	router.Options.Tokens   an *authtoken.Issuer; nil = there is no cbs
//	router.Listener.Scope   ScopeAll for the roles northbound and internal, ScopeServices
//	                        for registry, ScopeTokens for auth
//	authtoken.Open          with the file keys/auth-token.pem of the data folder, and of the
//	                        configuration auth.issuer, auth.audience, auth.token-lifetime
//	authtoken.Issuer.Handler at GET /validating-keys of the listeners of role health,
//	                        with the keys of the assertions as the others
//
// The router's Run and Shutdown end what is in flight.
package service
