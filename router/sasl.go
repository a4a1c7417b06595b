package router

import (
	"context"
	"crypto/x509"
	"errors"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
)

// door authenticates the peers of one listener.
type door struct {
	r          *Router
	components bool
	mechanisms []amqp.Symbol
}

// Mechanisms implements [peer.Authenticator].
func (d *door) Mechanisms(info *peer.PeerInfo) []amqp.Symbol {
	if d.components || info.Local != nil {
		return []amqp.Symbol{auth.External}
	}
	if len(d.mechanisms) > 0 {
		return d.mechanisms
	}
	if len(info.Certificates) > 0 {
		return []amqp.Symbol{auth.External, auth.Plain}
	}
	return []amqp.Symbol{auth.Plain}
}

// Begin implements [peer.Authenticator].
func (d *door) Begin(info *peer.PeerInfo, mechanism amqp.Symbol) (peer.Exchange, error) {
	return &dialogue{d, info, string(mechanism)}, nil
}

// dialogue is one that ends after the client's first response.
type dialogue struct {
	d         *door
	info      *peer.PeerInfo
	mechanism string
}

// Step implements [peer.Exchange].
func (x *dialogue) Step(ctx context.Context, response []byte) ([]byte, any, error) {
	id, err := x.authenticate(ctx, response)
	if errors.Is(err, iot.ErrUnauthenticated) {
		x.d.r.log.Info("authentication failed", "remote", x.info.RemoteAddr, "mechanism", x.mechanism, "err", err)
		return nil, nil, &peer.AuthError{Code: amqp.SASLAuth}
	}
	if err != nil {
		return nil, nil, err
	}
	return nil, id, nil
}

func (x *dialogue) authenticate(ctx context.Context, response []byte) (*auth.Identity, error) {
	if id, ok := x.info.Local.(*auth.Identity); ok {
		return id, nil
	}
	var cert *x509.Certificate
	if len(x.info.Certificates) > 0 {
		cert = x.info.Certificates[0]
	}
	if x.d.components {
		return auth.Component(cert)
	}
	return x.d.r.directory.Authenticate(ctx, x.mechanism, response, cert)
}
