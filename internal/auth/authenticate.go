package auth

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"net/netip"
	"strings"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/internal/iot"
)

// errDenied says the same whatever was wrong, so that names cannot be probed.
func errDenied() error {
	return iot.Errorf(iot.ErrUnauthenticated, "wrong name or secret")
}

// Authenticate checks the client's response of SASL PLAIN or EXTERNAL, which have but
// one; for the others see [Directory.Begin]. cert is the
// client's certificate, which the caller has verified, or nil. Errors wrap
//
//	iot.ErrUnauthenticated  SASL outcome auth: wrong, malformed or unknown mechanism
//	iot.ErrUnavailable      SASL outcome sys-temp: too many checks at once, or ctx ended
//	iot.ErrQuota            SASL outcome sys-temp: too many failed before; only in [Directory.BeginFrom]
//
// Checking may take a fraction of a second of processor time.
func (d *Directory) Authenticate(ctx context.Context, mechanism string, response []byte, cert *x509.Certificate) (*Identity, error) {
	return d.authenticate(ctx, netip.Addr{}, mechanism, response, cert)
}

func (d *Directory) authenticate(ctx context.Context, from netip.Addr, mechanism string, response []byte, cert *x509.Certificate) (*Identity, error) {
	switch mechanism {
	case Plain:
		return d.plain(ctx, from, response)
	case External:
		return d.External(cert)
	}
	return nil, iot.Errorf(iot.ErrUnauthenticated, "mechanism %q is not served", mechanism)
}

// plain is RFC 4616. An authorization identity counts only from those who may act
// for others, and only if it names somebody; else it is passed over (messaging 13).
func (d *Directory) plain(ctx context.Context, from netip.Addr, response []byte) (*Identity, error) {
	if len(response) > 4*maxPassword || !utf8.Valid(response) {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "malformed PLAIN response")
	}
	fields := strings.Split(string(response), "\x00")
	if len(fields) != 3 || fields[1] == "" || fields[2] == "" {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "malformed PLAIN response: expected 3 fields, name and secret not empty")
	}
	var id *Identity
	if err := d.attempt(ctx, fields[1], from, func() (err error) {
		id, err = d.password(ctx, from, fields[1], fields[2])
		return err
	}); err != nil {
		return nil, err
	}
	return d.actingFor(id, fields[0]), nil
}

// Password returns the application by that name if the secret is right; see
// [Directory.Authenticate] for the errors. How often somebody guesses is the
// caller's to bound.
func (d *Directory) Password(ctx context.Context, name, password string) (*Identity, error) {
	return d.password(ctx, netip.Addr{}, name, password)
}

func (d *Directory) password(ctx context.Context, from netip.Addr, name, password string) (*Identity, error) {
	s := d.current.Load()
	v, e := s.dummy, s.entries[name]
	if e != nil && !e.verifier.secret.IsZero() {
		v = e.verifier
	}
	ok, err := d.verify(ctx, from, v, password)
	if err != nil {
		return nil, err
	}
	if !ok || e == nil || v == s.dummy {
		return nil, errDenied()
	}
	return e.identity, nil
}

// verify computes cheap secrets beside costly ones, which may take a second each:
// they would wait for nothing else.
func (d *Directory) verify(ctx context.Context, from netip.Addr, v *verifier, password string) (bool, error) {
	if len(password) > maxPassword {
		return false, nil
	}
	g := d.gates[0]
	if v.secret.cost() > costly {
		g = d.gates[1]
	}
	return v.verify(ctx, g, from, password)
}

// External returns the application that the certificate stands for: the one whose
// name is its CN, where the CN is the first part of the subject's RFC 2253 form,
// which is the last in the certificate (messaging 13). The application must have no
// secret in identities.yaml, or mechanism EXTERNAL in permissions.json. For
// components see [Component].
func (d *Directory) External(cert *x509.Certificate) (*Identity, error) {
	if cert == nil {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "EXTERNAL without a client certificate")
	}
	name, ok := firstCN(cert)
	if !ok {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "the certificate's subject does not start with CN")
	}
	e := d.current.Load().entries[name]
	if e == nil || !e.external {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "no identity for the certificate's CN")
	}
	return e.identity, nil
}

// oidCN is id-at-commonName (X.520).
var oidCN = asn1.ObjectIdentifier{2, 5, 4, 3}

func firstCN(cert *x509.Certificate) (string, bool) {
	names := cert.Subject.Names
	if len(names) == 0 || !names[len(names)-1].Type.Equal(oidCN) {
		return "", false
	}
	name, ok := names[len(names)-1].Value.(string)
	return name, ok && name != ""
}
