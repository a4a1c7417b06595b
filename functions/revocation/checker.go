package revocation

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	// timeout ends one question.
	timeout = 3 * time.Second
	// maxResponse is the longest answer in bytes.
	maxResponse = 64 << 10
	// skew is how far the responder's clock may be off.
	skew = 5 * time.Minute
	// holdsFor bounds how long an answer is relied on, whatever it says itself.
	holdsFor = time.Hour
	// holdsUnsaid is how long one that does not say is relied on.
	holdsUnsaid = 5 * time.Minute
)

// Checker asks. Safe for concurrent use.
type Checker struct {
	client *http.Client
	now    func() time.Time
}

// New returns a checker; a nil now is time.Now. Redirections are not followed
// and link-local addresses, where clouds keep what a machine may know of
// itself, are not asked: who configures a tenant chooses the responder.
func New(now func() time.Time) *Checker {
	if now == nil {
		now = time.Now
	}
	dialer := &net.Dialer{Timeout: timeout, Control: notLinkLocal}
	return &Checker{now: now, client: &http.Client{
		Transport:     &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func notLinkLocal(_, address string, _ syscall.RawConn) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsLinkLocalUnicast() || ip.IsUnspecified() || ip.IsMulticast() {
		return fmt.Errorf("address %s is not one of an OCSP responder", host)
	}
	return nil
}

// Check returns until when the answer may be relied on that cert, which the
// anchor issued, is good. Revoked, unknown and every failure is an error.
func (c *Checker) Check(ctx context.Context, cert *x509.Certificate, anchor *iot.TrustAnchor) (time.Time, error) {
	issuer, err := issuerOf(cert, anchor)
	if err != nil {
		return time.Time{}, err
	}
	request, nonce, err := newRequest(cert, issuer, anchor.OCSPNonceEnabled)
	if err != nil {
		return time.Time{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	body, err := c.ask(ctx, cert, anchor, request)
	if err != nil {
		return time.Time{}, fmt.Errorf("ocsp: %w", err)
	}
	until, err := c.judge(body, cert, issuer, anchor, nonce)
	if err != nil {
		return time.Time{}, fmt.Errorf("ocsp: %w", err)
	}
	return until, nil
}

// issuerOf is an anchor in the shape of a certificate: name and key.
func issuerOf(cert *x509.Certificate, anchor *iot.TrustAnchor) (*x509.Certificate, error) {
	key, err := x509.ParsePKIXPublicKey(anchor.PublicKey)
	if err != nil {
		return nil, errors.New("ocsp: the trust anchor's public key does not decode")
	}
	return &x509.Certificate{RawSubject: cert.RawIssuer, RawSubjectPublicKeyInfo: anchor.PublicKey, PublicKey: key}, nil
}

func (c *Checker) ask(ctx context.Context, cert *x509.Certificate, anchor *iot.TrustAnchor, request []byte) ([]byte, error) {
	target := anchor.OCSPResponderURI
	if target == "" && len(cert.OCSPServer) > 0 {
		target = cert.OCSPServer[0]
	}
	if u, err := url.Parse(target); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, errors.New("neither trust anchor nor certificate names a responder with an http or https URI")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	req.Header.Set("Accept", "application/ocsp-response")
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the responder answers %s", resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse+1))
	if err == nil && len(body) > maxResponse {
		err = fmt.Errorf("the answer has more than %d bytes", maxResponse)
	}
	return body, err
}

func (c *Checker) judge(body []byte, cert, issuer *x509.Certificate, anchor *iot.TrustAnchor, nonce []byte) (time.Time, error) {
	resp, err := ocsp.ParseResponseForCert(body, cert, nil)
	if err != nil {
		return time.Time{}, err
	}
	now := c.now()
	if err := signedFor(resp, issuer, anchor, now); err != nil {
		return time.Time{}, err
	}
	if err := checkData(resp.TBSResponseData, cert, issuer, nonce); err != nil {
		return time.Time{}, err
	}
	until := now.Add(holdsUnsaid)
	switch {
	case resp.Status == ocsp.Revoked:
		return time.Time{}, errors.New("the certificate was revoked at " + resp.RevokedAt.UTC().Format(time.RFC3339))
	case resp.Status != ocsp.Good:
		return time.Time{}, errors.New("the responder does not know the certificate")
	case resp.ThisUpdate.After(now.Add(skew)):
		return time.Time{}, errors.New("the answer is from the future")
	case resp.NextUpdate.IsZero() && resp.ThisUpdate.Before(now.Add(-24*time.Hour)):
		return time.Time{}, errors.New("the answer is over a day old")
	case !resp.NextUpdate.IsZero() && resp.NextUpdate.Before(now.Add(-skew)):
		return time.Time{}, errors.New("the answer has expired")
	case !resp.NextUpdate.IsZero():
		until = resp.NextUpdate
	}
	if last := now.Add(holdsFor); until.After(last) {
		until = last
	}
	return until, nil
}

// signedFor checks who signed an answer: the issuer, the responder that the
// anchor names, or one to whom the issuer delegated it (RFC 6960, 4.2.2.2).
func signedFor(resp *ocsp.Response, issuer *x509.Certificate, anchor *iot.TrustAnchor, now time.Time) error {
	if len(anchor.OCSPResponderCert) > 0 {
		named, err := x509.ParseCertificate(anchor.OCSPResponderCert)
		if err != nil {
			return errors.New("the trust anchor's ocsp-responder-cert does not decode")
		}
		if resp.CheckSignatureFrom(named) == nil {
			return nil
		}
	}
	if resp.CheckSignatureFrom(issuer) == nil {
		return nil
	}
	d := resp.Certificate
	if d == nil || resp.CheckSignatureFrom(d) != nil || issuer.CheckSignature(d.SignatureAlgorithm, d.RawTBSCertificate, d.Signature) != nil {
		return errors.New("the answer is signed by nobody who may: want the issuer, ocsp-responder-cert, or one whom the issuer delegated")
	}
	for _, usage := range d.ExtKeyUsage {
		if usage == x509.ExtKeyUsageOCSPSigning && !now.Before(d.NotBefore) && !now.After(d.NotAfter) {
			return nil
		}
	}
	return errors.New("the certificate that signed the answer is not one for OCSP, or not valid now")
}
