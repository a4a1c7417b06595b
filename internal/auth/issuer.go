package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-iot/sluice/internal/auth/oidc"
	"github.com/sluice-iot/sluice/internal/iot"
)

// tokenPrefix begins the names of identities that come from tokens. No entry of the
// file may begin so.
const tokenPrefix = "oidc:"

type issuerYAML struct {
	Issuer              string        `yaml:"issuer"`
	Audience            string        `yaml:"audience"`
	AuthoritiesClaim    string        `yaml:"authorities-claim,omitempty"`
	OperatorScopesClaim string        `yaml:"operator-scopes-claim,omitempty"`
	JWKSURL             string        `yaml:"jwks-url,omitempty"`
	Subjects            []subjectYAML `yaml:"subjects,omitempty"`
}

// subjectYAML says what one subject may whose tokens cannot say it themselves,
// such as a service account of Kubernetes.
type subjectYAML struct {
	Subject     string          `yaml:"subject"`
	Authorities []authorityYAML `yaml:"authorities,flow"`
}

// issuer is one whose tokens are believed.
type issuer struct {
	conf     issuerYAML
	verifier *oidc.Verifier
	subjects map[string][]Authority // by claim sub
}

func (s *snapshot) addIssuer(y issuerYAML) error {
	if s.issuers[y.Issuer] != nil {
		return errors.New("given twice")
	}
	if y.AuthoritiesClaim == "" && y.OperatorScopesClaim == "" && len(y.Subjects) == 0 {
		return errors.New("no authorities-claim and no operator-scopes-claim; expected the claim that lists what a token allows, or subjects")
	}
	subjects, err := readSubjects(y.Subjects)
	if err != nil {
		return err
	}
	v, err := oidc.New(oidc.Config{Issuer: y.Issuer, Audience: y.Audience, JWKSURL: y.JWKSURL})
	if err != nil {
		return err
	}
	s.issuers[y.Issuer] = &issuer{y, v, subjects}
	return nil
}

func readSubjects(list []subjectYAML) (map[string][]Authority, error) {
	out := map[string][]Authority{}
	for _, y := range list {
		if y.Subject == "" {
			return nil, errors.New("subjects: one has no subject; expected the claim sub of its tokens")
		}
		if _, ok := out[y.Subject]; ok {
			return nil, fmt.Errorf("subject %q: given twice", y.Subject)
		}
		authorities, err := readAuthorities(y.Authorities)
		if err != nil {
			return nil, fmt.Errorf("subject %q: %w", y.Subject, err)
		}
		if _, err := Compile(authorities); err != nil {
			return nil, fmt.Errorf("subject %q: %w", y.Subject, err)
		}
		out[y.Subject] = authorities
	}
	return out, nil
}

func readAuthorities(list []authorityYAML) ([]Authority, error) {
	var out []Authority
	for _, a := range list {
		g, err := a.authority()
		if err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	return out, nil
}

// Token returns the application that a token of one of the file's issuers stands
// for. It is named oidc:ISSUER#SUBJECT, and ends with the token; see
// [Directory.Authenticate] for the errors.
func (d *Directory) Token(ctx context.Context, token string) (*Identity, error) {
	x, t, err := d.verifyToken(ctx, token)
	if err != nil {
		return nil, err
	}
	if x.conf.AuthoritiesClaim == "" && x.subjects[t.Subject] == nil {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "the issuer's tokens are not for applications, or not those of this subject")
	}
	authorities, err := x.authorities(t)
	if err != nil {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "token: claim %s: %v", x.conf.AuthoritiesClaim, err)
	}
	return &Identity{
		Name: x.name(t), Kind: Application, Limits: DefaultLimits(),
		Expires: t.Expires, authorities: authorities, issuer: x,
	}, nil
}

func (d *Directory) verifyToken(ctx context.Context, token string) (*issuer, *oidc.Token, error) {
	x := d.current.Load().issuers[oidc.IssuerOf(token)]
	if x == nil {
		return nil, nil, iot.Errorf(iot.ErrUnauthenticated, "the token is of no known issuer")
	}
	t, err := x.verifier.Verify(ctx, token)
	return x, t, err
}

func (x *issuer) name(t *oidc.Token) string { return tokenPrefix + x.conf.Issuer + "#" + t.Subject }

// authorities are those that the file gives to the subject, and those of the claim;
// a token without it has none of its own.
func (x *issuer) authorities(t *oidc.Token) (*Authorities, error) {
	given := x.subjects[t.Subject]
	raw, ok := t.Claims[x.conf.AuthoritiesClaim]
	if x.conf.AuthoritiesClaim == "" || !ok {
		return Compile(given)
	}
	var claim []authorityYAML
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&claim); err != nil {
		return nil, errors.New("expected a list such as [{\"address\": \"telemetry/DEMO\", \"may\": [\"read\"]}]")
	}
	own, err := readAuthorities(claim)
	if err != nil {
		return nil, err
	}
	return Compile(slices.Concat(given, own))
}

// checkName keeps the names of tokens apart from those of the file.
func checkName(name string) error {
	if strings.HasPrefix(name, tokenPrefix) {
		return fmt.Errorf("names that begin with %s are those of tokens", tokenPrefix)
	}
	return nil
}
