package edge

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-iot/sluice/internal/attempts"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/command"
)

// WithReachable serves what h does and, where the router of this process routes
// commands, below [command.ReachablePath] which devices it reaches: to those who may
// know, or with open to everybody. It may be called once everything is open.
func (p *Process) WithReachable(h http.Handler, open bool) http.Handler {
	if p.router == nil || p.router.CommandDirectory() == nil {
		return h
	}
	permit := func(*http.Request, iot.TenantID) error { return nil }
	if !open {
		permit = newAskers(p.Directory).permit
	}
	reachable := command.NewReachable(command.ReachableOptions{Directory: p.router.CommandDirectory(), Permit: permit,
		Realm: p.cfg.Management.Realm, Logger: p.log})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, command.ReachablePath) {
			reachable.ServeHTTP(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// How often a minute somebody may fail to prove who he is, and how many names and
// addresses are remembered for it.
const (
	failuresPerName    = 10 // with one name from one address
	failuresPerAddress = 100
	maxWatched         = 10_000
)

// askers decides who may learn which devices are reached: whoever may send them
// commands, and operators who may read the tenant.
type askers struct {
	directory *auth.Directory
	logins    *attempts.Logins[attempts.NameAt]
}

func newAskers(d *auth.Directory) *askers {
	return &askers{directory: d, logins: attempts.NewLogins[attempts.NameAt](failuresPerName, failuresPerAddress, maxWatched)}
}

// asker is somebody who was proven: an identity, an operator, or both.
type asker struct {
	identity *auth.Identity
	operator *auth.Operator
}

func (a asker) may(tenant iot.TenantID) bool {
	if strings.Contains(string(tenant), "/") {
		return false // it would be another address
	}
	return a.identity != nil && a.identity.May("command/"+string(tenant), auth.Write) || a.operator != nil && a.operator.May(string(tenant), auth.Read)
}

// permit returns why a request may not learn of a tenant's devices.
func (a *askers) permit(r *http.Request, tenant iot.TenantID) error {
	who, err := a.prove(r)
	if err != nil {
		return err
	}
	if !who.may(tenant) {
		return iot.Errorf(iot.ErrForbidden, "neither write on command/%.80s nor the scope read on the tenant is granted", tenant)
	}
	return nil
}

// prove finds out who asks: by the Authorization header, or without one by the
// certificate of the connection.
func (a *askers) prove(r *http.Request) (asker, error) {
	header := r.Header.Get("Authorization")
	scheme, credentials, _ := strings.Cut(header, " ")
	from := attempts.Remote(r.RemoteAddr)
	switch {
	case header == "":
		if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
			return a.certificate(r.TLS.VerifiedChains[0][0])
		}
	case strings.EqualFold(scheme, "Bearer"):
		return a.attempt(r.Context(), attempts.NameAt{}, from, func() (asker, error) { return a.token(r.Context(), strings.TrimSpace(credentials)) })
	default:
		if name, password, ok := r.BasicAuth(); ok {
			return a.attempt(r.Context(), attempts.At(name, from), from, func() (asker, error) {
				o, err := a.directory.Operator(r.Context(), name, password)
				return asker{operator: o}, err
			})
		}
	}
	return asker{}, iot.Errorf(iot.ErrUnauthenticated, "an operator's HTTP Basic credentials, a bearer token or a client certificate are required")
}

// attempt calls prove unless too many attempts failed.
func (a *askers) attempt(ctx context.Context, name attempts.NameAt, from netip.Addr, prove func() (asker, error)) (who asker, err error) {
	err = a.logins.Try(ctx, name, from, func() (err error) {
		who, err = prove()
		return err
	})
	return who, err
}

// token is that of an application, of an operator, or of somebody who is both.
func (a *askers) token(ctx context.Context, token string) (asker, error) {
	id, err := a.directory.Token(ctx, token)
	if err != nil && !errors.Is(err, iot.ErrUnauthenticated) {
		return asker{}, err
	}
	o, failed := a.directory.OperatorToken(ctx, token)
	if err != nil && failed != nil {
		return asker{}, failed
	}
	return asker{id, o}, nil
}

// certificate is that of a component, of an application, or of an operator.
func (a *askers) certificate(cert *x509.Certificate) (asker, error) {
	if slices.ContainsFunc(cert.Subject.OrganizationalUnit, func(ou string) bool { return auth.Kind(ou).Component() }) {
		id, err := auth.Component(cert)
		return asker{identity: id}, err
	}
	id, err := a.directory.External(cert)
	o, failed := a.directory.OperatorCertificate(cert)
	if err != nil && failed != nil {
		return asker{}, iot.Errorf(iot.ErrUnauthenticated, "the certificate is no application's and no operator's")
	}
	return asker{id, o}, nil
}
