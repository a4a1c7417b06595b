// Package authtoken makes the tokens by which Hono's components prove to each other
// who they are and what they may do: the JWTs of the Authentication API (contract:
// messaging 13). It is no use for devices, whose tokens are those of
// internal/assertion.
//
// An [Issuer] signs with one key pair, made at the first start and kept in a file.
// Processes that stand behind one name share that file, because whoever verifies
// their tokens asks any of them for the keys: [Issuer.Handler] serves them at
// /validating-keys, together with others.
//
//	tokens, err := authtoken.Open("data/keys/auth-token.pem", authtoken.Options{})
//	jws, err := tokens.Issue(identity)
//	http.Handle("GET /validating-keys", tokens.Handler(nil))
package authtoken
