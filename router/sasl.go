package router

import (
	"context"
	"crypto/x509"
	"errors"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/cbs"
)

// door authenticates the peers of one listener.
type door struct {
	r          *Router
	components bool
	secure     bool // the listener has TLS
	mechanisms []string
	scope      Scope
}

// Mechanisms implements [peer.Authenticator]. A peer without TLS where TLS is asked
// for is refused whatever it says; it is offered what such a peer looks for.
func (d *door) Mechanisms(info *peer.PeerInfo) []amqp.Symbol {
	switch {
	case d.secure && !info.TLS:
		return []amqp.Symbol{auth.Plain}
	case d.components || info.Local != nil || d.r.directory == nil:
		return []amqp.Symbol{auth.External}
	}
	var list []amqp.Symbol
	for _, m := range d.r.directory.Mechanisms(d.mechanisms, len(info.Certificates) > 0) {
		list = append(list, amqp.Symbol(m))
	}
	return list
}

// Begin implements [peer.Authenticator].
func (d *door) Begin(info *peer.PeerInfo, mechanism amqp.Symbol) (peer.Exchange, error) {
	return &dialogue{d: d, info: info, mechanism: string(mechanism)}, nil
}

// Limit implements [peer.Limiter]: what the identity may have, and no more than the
// router gives to anybody.
func (d *door) Limit(identity any, c *peer.Config) {
	id, ok := identity.(*auth.Identity)
	if !ok {
		return
	}
	if n := id.Limits.Sessions; n > 0 {
		c.ChannelMax = uint16(min(int(c.ChannelMax), n-1))
	}
	c.LinkMax = id.Limits.Links
	if n := uint64(id.Limits.MessageSize); n > 0 {
		c.MaxMessageSize = min(c.MaxMessageSize, n)
	}
	if d.r.tokens != nil && d.scope != ScopeServices {
		c.Answer = cbs.Answer(id)
	}
}

// dialogue is a SASL dialogue with one peer.
type dialogue struct {
	d         *door
	info      *peer.PeerInfo
	mechanism string
	exchange  auth.Exchange // with an application
}

// Step implements [peer.Exchange].
func (x *dialogue) Step(ctx context.Context, response []byte) ([]byte, any, error) {
	challenge, id, err := x.step(ctx, response)
	switch {
	case errors.Is(err, iot.ErrUnauthenticated):
		x.d.r.log.Info("authentication failed", "remote", x.info.RemoteAddr, "mechanism", x.mechanism, "err", err)
		return nil, nil, &peer.AuthError{Code: amqp.SASLAuth}
	case errors.Is(err, iot.ErrQuota):
		x.d.r.log.Debug("authentication is refused for a while", "remote", x.info.RemoteAddr, "mechanism", x.mechanism, "err", err)
		return nil, nil, err
	case err != nil:
		x.d.r.log.Warn("authentication is not available", "remote", x.info.RemoteAddr, "mechanism", x.mechanism, "err", err)
		return nil, nil, err
	case challenge != nil:
		return challenge, nil, nil
	}
	return nil, id, nil
}

func (x *dialogue) step(ctx context.Context, response []byte) ([]byte, *auth.Identity, error) {
	if id, ok := x.info.Local.(*auth.Identity); ok {
		return nil, id, nil
	}
	var cert *x509.Certificate
	if len(x.info.Certificates) > 0 {
		cert = x.info.Certificates[0]
	}
	if x.d.components || x.d.r.directory == nil {
		id, err := auth.Component(cert)
		return nil, id, err
	}
	if x.exchange == nil {
		x.exchange = x.d.r.directory.BeginFrom(x.mechanism, cert, originOf(x.info.RemoteAddr))
	}
	return x.exchange.Step(ctx, response)
}
