package adapters_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"sync"
	"testing"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/internal/iot"
)

// TestConformanceWithoutProtocol runs the suite with what is here alone: what
// fails there is no protocol's fault.
func TestConformanceWithoutProtocol(t *testing.T) {
	adaptertest.Run(t, adaptertest.Harness{
		Type: "hono-mqtt", Certificates: true, Tokens: true, TTL: true, Connections: true, Commands: true, Notifies: true,
		Report: func(err error) error { return err },
		Start: func(t *testing.T, p *adapters.Pipeline) adaptertest.Client {
			h := &harness{p: p, sessions: adapters.NewSessions(p, adapters.SessionOptions{})}
			t.Cleanup(h.sessions.Close)
			return h
		},
	})
}

// harness is an adapter whose protocol are calls.
type harness struct {
	p        *adapters.Pipeline
	sessions *adapters.Sessions
	uploads  sync.WaitGroup
}

func (h *harness) Sessions() *adapters.Sessions { return h.sessions }

func (h *harness) Stop(context.Context) error {
	h.uploads.Wait()
	return nil
}

func (h *harness) Send(ctx context.Context, u adaptertest.Upload) error {
	c, err := h.Connect(ctx, u.Login)
	if err != nil {
		return reported(err)
	}
	defer c.Close()
	return c.Send(ctx, u)
}

// reported is as fine as what the harness's Report wants: failures of ours that
// are not sentinels are ErrUnavailable.
func reported(err error) error {
	for _, sentinel := range iot.Sentinels {
		if errors.Is(err, sentinel) {
			return err
		}
	}
	if err != nil {
		return iot.ErrUnavailable
	}
	return nil
}

func loginOf(l adaptertest.Login) (adapters.Login, error) {
	switch {
	case l.Certificate != nil:
		leaf, err := x509.ParseCertificate(l.Certificate.Certificate[0])
		if err != nil {
			return adapters.Login{}, err
		}
		got, _, err := adapters.CertificateLogin(&tls.ConnectionState{ServerName: l.ServerName, PeerCertificates: []*x509.Certificate{leaf}})
		return got, err
	case l.Token != "":
		return adapters.TokenLogin(l.Token, l.Tenant, l.AuthID)
	}
	return adapters.PasswordLogin(l.AuthID+"@"+string(l.Tenant), l.Password)
}

func (h *harness) Connect(ctx context.Context, l adaptertest.Login) (adaptertest.Conn, error) {
	got, err := loginOf(l)
	if err != nil {
		return nil, err
	}
	c := &conn{h: h, closed: make(chan struct{})}
	c.Session, err = h.sessions.Open(ctx, got, home, func(error) { close(c.closed) })
	if err != nil {
		return nil, reported(err)
	}
	return c, nil
}

type conn struct {
	*adapters.Session
	h      *harness
	closed chan struct{}
}

func (c *conn) Closed() <-chan struct{} { return c.closed }

func (c *conn) Close() error {
	c.Session.Close()
	return nil
}

func (c *conn) Send(ctx context.Context, u adaptertest.Upload) error {
	c.h.uploads.Add(1)
	defer c.h.uploads.Done()
	who, ok, err := c.TryAdmit(u.TargetTenant, u.TargetDevice)
	if !ok {
		who, err = c.Admit(ctx, u.TargetTenant, u.TargetDevice)
	}
	if err != nil {
		return reported(err)
	}
	up := &adapters.Upload{Endpoint: u.Endpoint, QoS: u.QoS, Address: "memory", ContentType: u.ContentType, Payload: u.Payload}
	if u.TTL > 0 {
		up.TTL = &u.TTL
	}
	done := make(chan error, 1)
	c.h.p.Submit(who, up, func(err error) { done <- err })
	return <-done
}
