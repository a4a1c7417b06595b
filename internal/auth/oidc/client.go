package oidc

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	// maxAnswer bounds what a token endpoint may answer, in bytes.
	maxAnswer = 64 * 1024
	// idleFor is how long a connection to the token endpoint is kept for the next login.
	idleFor = 30 * time.Second
	// retryAfter is the pause that is asked for when the issuer does not say, and
	// maxRetryAfter the longest that it may ask for.
	retryAfter, maxRetryAfter = 5 * time.Second, 5 * time.Minute
)

// ClientConfig is a confidential client of an issuer that may log users in by
// their passwords.
type ClientConfig struct {
	Issuer string
	ID     string
	Secret string
	Roots  *x509.CertPool // who may certify the issuer's server; nil = those of the system
	Conns  int            // connections to the token endpoint at a time; 0 = no limit
}

// Client logs users in (RFC 6749, section 4.3, and OpenID Connect Core 1.0,
// section 3.1.3). Safe for concurrent use.
type Client struct {
	verifier   *Verifier
	id, secret string
	http       *http.Client
}

// NewClient checks the configuration. It asks the issuer for nothing yet.
func NewClient(c ClientConfig) (*Client, error) {
	if c.ID == "" || c.Secret == "" {
		return nil, errors.New("a client has an id and a secret; expected both")
	}
	v, err := New(Config{Issuer: c.Issuer, Audience: c.ID, Party: c.ID, Roots: c.Roots})
	if err != nil {
		return nil, err
	}
	transport := newTransport(c.Roots)
	transport.MaxConnsPerHost, transport.MaxIdleConnsPerHost = c.Conns, c.Conns
	transport.IdleConnTimeout = idleFor
	return &Client{verifier: v, id: c.ID, secret: c.Secret, http: &http.Client{
		Transport: transport,
		// The password goes to the token endpoint and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Close ends the connections that are idle.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Login trades a user's password for an ID token, which is made for this client
// alone, and verifies it. Its errors wrap iot.ErrUnauthenticated when the issuer
// refuses the user, and otherwise iot.ErrUnavailable, with the time to wait, or
// context.Canceled. Their texts are for the log: they say what the issuer
// answered, and neither name nor password nor token.
func (c *Client) Login(ctx context.Context, user, password string) (*Token, error) {
	endpoint, err := c.verifier.keys.tokenEndpoint(ctx)
	if err != nil {
		return nil, c.failed(ctx, fmt.Errorf("discovery: %s", c.verifier.keys.fault()))
	}
	a, err := c.ask(ctx, endpoint, url.Values{
		"grant_type": {"password"}, "scope": {"openid"}, "username": {user}, "password": {password},
	})
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	if a.status != http.StatusOK {
		return nil, a.refusal()
	}
	if a.IDToken == "" {
		return nil, c.failed(ctx, errors.New("the token endpoint answers without id_token"))
	}
	t, err := c.verifier.Verify(ctx, a.IDToken)
	if err != nil {
		return nil, c.failed(ctx, fmt.Errorf("the token endpoint's id_token: %w", err))
	}
	if end := time.Now().Add(time.Duration(a.ExpiresIn) * time.Second); a.ExpiresIn > 0 && end.Before(t.Expires) {
		t.Expires = end
	}
	return t, nil
}

// failed is a login that could not be decided.
func (c *Client) failed(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return &iot.Error{Sentinel: iot.ErrUnavailable, Text: err.Error(), RetryAfter: retryAfter}
}

// answer is what a token endpoint says (RFC 6749, sections 5.1 and 5.2).
type answer struct {
	IDToken     string `json:"id_token"`
	ExpiresIn   int32  `json:"expires_in"` // seconds
	Error       string `json:"error"`
	Description string `json:"error_description"`

	status int
	retry  time.Duration
}

func (c *Client) ask(ctx context.Context, endpoint string, form url.Values) (*answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	// Asking twice does no harm, so a connection that the server closed meanwhile is
	// replaced; the header without a value says so to net/http and is not sent.
	r.Header["X-Idempotency-Key"] = nil
	// Both are encoded as in a form (RFC 6749, section 2.3.1).
	r.SetBasicAuth(url.QueryEscape(c.id), url.QueryEscape(c.secret))
	res, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", endpoint, err)
	case len(data) > maxAnswer:
		return nil, fmt.Errorf("%s: longer than %d bytes", endpoint, maxAnswer)
	}
	a := &answer{status: res.StatusCode, retry: pause(res.Header.Get("Retry-After"))}
	if err := json.Unmarshal(data, a); err != nil && res.StatusCode == http.StatusOK {
		return nil, fmt.Errorf("%s: no JSON object of a token", endpoint)
	}
	return a, nil
}

// refusal tells a user who is refused from a client, or an issuer, that is not set
// up for this.
func (a *answer) refusal() error {
	if a.Error == "invalid_grant" && (a.status == http.StatusBadRequest || a.status == http.StatusUnauthorized) {
		return iot.Errorf(iot.ErrUnauthenticated, "the issuer refuses the user: %s", shown(a.Description))
	}
	return &iot.Error{Sentinel: iot.ErrUnavailable, RetryAfter: a.retry,
		Text: fmt.Sprintf("the token endpoint answers %d %s %s", a.status, shown(a.Error), shown(a.Description))}
}

// shown is a text of the issuer's, fit for a log.
func shown(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s[:min(len(s), 200)])
}

// pause reads Retry-After in seconds.
func pause(header string) time.Duration {
	n, err := strconv.Atoi(header)
	if err != nil || n <= 0 {
		return retryAfter
	}
	return min(time.Duration(min(n, 1<<20))*time.Second, maxRetryAfter)
}
