// Package cbs is the address cbs of a router: Hono's Authentication API, at which a
// component or application that has logged in fetches a token that says who it is
// and what it may do (contract: messaging 13).
//
// A receiver on cbs gets one message, whose body is the token, and is closed when
// it has settled it. Tokens are made elsewhere; see [Tokens]. A message router that
// leaves log-ins to us asks for the capability [CapabilityAddressAuthz] in its
// open, and is told in ours what the identity may do: see [Answer].
package cbs
