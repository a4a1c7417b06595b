package auth

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-iot/sluice/internal/iot"
)

// AllTenants stands for every tenant in a scope.
const AllTenants = "*"

// Operator is a proven user of the management API.
type Operator struct {
	Name   string
	scopes map[string]Activity // by tenant; "*" is every tenant
}

// May reports whether the operator may do what, Read, Write or Export, with the
// tenant. The tenant "*" asks for all tenants.
func (o *Operator) May(tenant string, what Activity) bool {
	return what != 0 && (o.scopes[AllTenants]|o.scopes[tenant])&what == what
}

// Tenants returns the tenants that the operator may do what with, sorted. all
// means every tenant there is.
func (o *Operator) Tenants(what Activity) (tenants []string, all bool) {
	if o.May(AllTenants, what) {
		return nil, true
	}
	for _, t := range slices.Sorted(maps.Keys(o.scopes)) {
		if t != AllTenants && o.May(t, what) {
			tenants = append(tenants, t)
		}
	}
	return tenants, false
}

type operatorYAML struct {
	Name        string      `yaml:"name"`
	Secret      string      `yaml:"secret,omitempty"`
	Certificate string      `yaml:"certificate,omitempty"`
	Scopes      []scopeYAML `yaml:"scopes,flow"`
}

type scopeYAML struct {
	Tenant string   `yaml:"tenant" json:"tenant"`
	May    []string `yaml:"may,flow" json:"may"`
}

type operatorEntry struct {
	operator *Operator
	verifier *verifier
}

func (s *snapshot) addOperator(y *operatorYAML, allowPlain bool) error {
	if y.Name == "" {
		return fmt.Errorf("no name")
	}
	if s.operators[y.Name] != nil {
		return fmt.Errorf("given twice")
	}
	if err := checkName(y.Name); err != nil {
		return err
	}
	scopes, err := compileScopes(y.Scopes)
	if err != nil {
		return err
	}
	e := &operatorEntry{operator: &Operator{Name: y.Name, scopes: scopes}, verifier: &verifier{}}
	if y.Secret == "" && y.Certificate == "" {
		return errors.New("neither secret nor certificate; expected one or both")
	}
	if y.Secret != "" {
		if e.verifier.secret, err = ParseSecret(y.Secret, allowPlain); err != nil {
			return err
		}
	}
	if y.Certificate != "" {
		if s.certified[y.Certificate] != nil {
			return fmt.Errorf("certificate %q is another operator's, too", y.Certificate)
		}
		s.certified[y.Certificate] = e.operator
	}
	s.operators[y.Name] = e
	return nil
}

func compileScopes(list []scopeYAML) (map[string]Activity, error) {
	scopes := make(map[string]Activity, len(list))
	for _, scope := range list {
		if scope.Tenant == "" {
			return nil, fmt.Errorf(`a scope names no tenant; expected one, or "*" for all`)
		}
		may, err := activities(scope.May)
		if err != nil {
			return nil, err
		}
		if may&Execute != 0 {
			return nil, fmt.Errorf("a scope may read, write and export only")
		}
		scopes[scope.Tenant] |= may
	}
	return scopes, nil
}

// Operator returns the operator by that name if the secret is right; see
// [Directory.Authenticate] for the errors.
func (d *Directory) Operator(ctx context.Context, name, password string) (*Operator, error) {
	s := d.current.Load()
	v, e := s.dummy, s.operators[name]
	if e != nil && !e.verifier.secret.IsZero() {
		v = e.verifier
	}
	ok, err := d.verify(ctx, netip.Addr{}, v, password)
	if err != nil {
		return nil, err
	}
	if !ok || e == nil || v == s.dummy {
		return nil, errDenied()
	}
	return e.operator, nil
}

// OperatorToken returns the operator that a token of one of the file's issuers
// stands for: its scopes are those of the issuer's operator-scopes-claim, a list
// such as [{"tenant": "ACME", "may": ["read"]}]; without the claim it may do
// nothing. It is named oidc:ISSUER#SUBJECT. For the errors see [Directory.Authenticate].
func (d *Directory) OperatorToken(ctx context.Context, token string) (*Operator, error) {
	x, t, err := d.verifyToken(ctx, token)
	if err != nil {
		return nil, err
	}
	claim := x.conf.OperatorScopesClaim
	if claim == "" {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "the issuer's tokens are not for operators")
	}
	o := &Operator{Name: x.name(t)}
	raw, ok := t.Claims[claim]
	if !ok {
		return o, nil
	}
	var list []scopeYAML
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&list); err != nil {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "token: claim %s: expected a list such as [{\"tenant\": \"ACME\", \"may\": [\"read\"]}]", claim)
	}
	if o.scopes, err = compileScopes(list); err != nil {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "token: claim %s: %v", claim, err)
	}
	return o, nil
}

// OperatorCertificate returns the operator whose member certificate is the
// certificate's common name, found as in [Directory.External], or its subject in
// the form CN=alice,O=ACME. The caller has verified the certificate. One of a
// component of an installation stands for no operator.
func (d *Directory) OperatorCertificate(cert *x509.Certificate) (*Operator, error) {
	if cert == nil {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "no client certificate")
	}
	for _, ou := range cert.Subject.OrganizationalUnit {
		if Kind(ou).Component() {
			return nil, iot.Errorf(iot.ErrUnauthenticated, "the certificate is a component's")
		}
	}
	s := d.current.Load()
	if o := s.certified[cert.Subject.String()]; o != nil {
		return o, nil
	}
	if name, ok := firstCN(cert); ok && !strings.Contains(name, "=") {
		if o := s.certified[name]; o != nil {
			return o, nil
		}
	}
	return nil, iot.Errorf(iot.ErrUnauthenticated, "the certificate is no operator's")
}
