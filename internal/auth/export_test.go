package auth

import (
	"context"
	"net/netip"
	"testing"
)

// WithNonce makes the server's part of the nonce of a SCRAM dialogue known.
func WithNonce(x Exchange, nonce string) Exchange {
	x.(*scramExchange).nonce = func() string { return nonce }
	return x
}

// The parsers of what clients say.
var (
	ParseClientFirst = func(text string) (name, nonce string, err error) {
		m, err := parseClientFirst(text)
		return m.name, m.nonce, err
	}
	ParseClientFinal = func(text string) (nonce string, proof []byte, err error) {
		m, err := parseClientFinal(text)
		return m.nonce, m.proof, err
	}
	ParseOAuthBearer = parseOAuthBearer
	ParseXOAuth2     = parseXOAuth2
)

// Gate is a gate of n checks at a time.
type Gate struct{ *gate }

// NewGate returns one.
func NewGate(n int) Gate {
	g := newGate()
	g.free = n
	return Gate{g}
}

func (g Gate) Enter(ctx context.Context, from netip.Addr) error { return g.enter(ctx, from) }
func (g Gate) Leave()                                           { g.leave() }

// EnterCostly takes every check of costly secrets until leave is called.
func EnterCostly(t *testing.T, d *Directory) (leave func()) {
	g := d.gates[1]
	n := g.free
	for range n {
		if err := g.enter(t.Context(), netip.Addr{}); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		for range n {
			g.leave()
		}
	}
}
