package revocation_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/sluice-iot/sluice/functions/admission"
	"github.com/sluice-iot/sluice/functions/revocation"
	"github.com/sluice-iot/sluice/internal/iot"
)

var _ admission.Revocation = (*revocation.Checker)(nil)

// party is a certificate with its key.
type party struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// issue makes a certificate that by issued; a nil by is a root.
func issue(t *testing.T, cn string, serial int64, by *party, change func(*x509.Certificate)) *party {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: cn},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	if change != nil {
		change(tmpl)
	}
	parent, signer := tmpl, crypto.Signer(key)
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &party{cert, key}
}

func root(t *testing.T, cn string) *party {
	return issue(t, cn, 1, nil, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true })
}

func forOCSP(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} }

func anchorOf(p *party, uri string) *iot.TrustAnchor {
	return &iot.TrustAnchor{PublicKey: p.cert.RawSubjectPublicKeyInfo, OCSPRevocationEnabled: true, OCSPResponderURI: uri}
}

// serve answers every question in the same way.
func serve(t *testing.T, status int, body []byte) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if _, parseErr := ocsp.ParseRequest(b); err != nil || parseErr != nil || r.Header.Get("Content-Type") != "application/ocsp-request" {
			t.Errorf("not an OCSP request: %v", parseErr)
		}
		w.WriteHeader(status)
		w.Write(body)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestCheck(t *testing.T) {
	now := time.Now()
	ca, other := root(t, "ca"), root(t, "other")
	delegate := issue(t, "delegate", 3, ca, forOCSP)
	device := issue(t, "device", 7, ca, nil)
	answer := func(issuer, responder *party, embed bool, change func(*ocsp.Response)) []byte {
		r := ocsp.Response{Status: ocsp.Good, SerialNumber: device.cert.SerialNumber, ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(10 * time.Minute)}
		if embed {
			r.Certificate = responder.cert
		}
		if change != nil {
			change(&r)
		}
		b, err := ocsp.CreateResponse(issuer.cert, responder.cert, r, responder.key)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := answer(ca, ca, false, nil)
	for _, tt := range []struct {
		name   string
		status int
		body   []byte
		change func(*iot.TrustAnchor)
		err    string
		until  time.Duration
	}{
		{"good", 200, good, nil, "", 10 * time.Minute},
		{"good, by a delegate", 200, answer(ca, delegate, true, nil), nil, "", 10 * time.Minute},
		{"good, by the responder named", 200, answer(ca, other, false, nil), func(a *iot.TrustAnchor) { a.OCSPResponderCert = other.cert.Raw }, "", 10 * time.Minute},
		{"the CA named as its responder", 200, good, func(a *iot.TrustAnchor) { a.OCSPResponderCert = ca.cert.Raw }, "", 10 * time.Minute},
		{"good for days", 200, answer(ca, ca, false, func(r *ocsp.Response) { r.NextUpdate = now.Add(72 * time.Hour) }), nil, "", time.Hour},
		{"good, for how long is not said", 200, answer(ca, ca, false, func(r *ocsp.Response) { r.NextUpdate = time.Time{} }), nil, "", 5 * time.Minute},

		{"revoked", 200, answer(ca, ca, false, func(r *ocsp.Response) { r.Status, r.RevokedAt = ocsp.Revoked, now.Add(-time.Hour) }), nil, "revoked at", 0},
		{"unknown", 200, answer(ca, ca, false, func(r *ocsp.Response) { r.Status = ocsp.Unknown }), nil, "does not know", 0},
		{"expired", 200, answer(ca, ca, false, func(r *ocsp.Response) { r.NextUpdate = now.Add(-time.Hour) }), nil, "expired", 0},
		{"old", 200, answer(ca, ca, false, func(r *ocsp.Response) { r.ThisUpdate, r.NextUpdate = now.Add(-48*time.Hour), time.Time{} }), nil, "a day old", 0},
		{"from the future", 200, answer(ca, ca, false, func(r *ocsp.Response) { r.ThisUpdate = now.Add(time.Hour); r.NextUpdate = now.Add(2 * time.Hour) }), nil, "future", 0},
		{"about another certificate", 200, answer(ca, ca, false, func(r *ocsp.Response) { r.SerialNumber = big.NewInt(8) }), nil, "no response matching", 0},
		{"about another issuer's certificate", 200, answer(other, ca, false, nil), nil, "another issuer", 0},
		{"signed by a stranger", 200, answer(ca, other, false, nil), nil, "nobody who may", 0},
		{"signed by a stranger who says who he is", 200, answer(ca, other, true, nil), nil, "nobody who may", 0},
		{"signed by another device", 200, answer(ca, device, true, nil), nil, "not one for OCSP", 0},
		{"without the nonce", 200, good, func(a *iot.TrustAnchor) { a.OCSPNonceEnabled = true }, "nonce", 0},
		{"try later", 200, ocsp.TryLaterErrorResponse, nil, "try later", 0},
		{"garbage", 200, []byte("<html>"), nil, "asn1", 0},
		{"too much", 200, make([]byte, 65<<10), nil, "more than", 0},
		{"redirected", 302, good, nil, "302", 0},
		{"refused", 500, good, nil, "500", 0},
		{"no responder", 200, good, func(a *iot.TrustAnchor) { a.OCSPResponderURI = "" }, "names a responder", 0},
		{"a file", 200, good, func(a *iot.TrustAnchor) { a.OCSPResponderURI = "file:///etc/passwd" }, "names a responder", 0},
		{"a cloud's own address", 200, good, func(a *iot.TrustAnchor) { a.OCSPResponderURI = "http://169.254.169.254/" }, "not one of an OCSP responder", 0},
		{"nobody there", 200, good, func(a *iot.TrustAnchor) { a.OCSPResponderURI = "http://127.0.0.1:1/" }, "refused", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			anchor := anchorOf(ca, serve(t, tt.status, tt.body))
			if tt.change != nil {
				tt.change(anchor)
			}
			until, err := revocation.New(func() time.Time { return now }).Check(t.Context(), device.cert, anchor)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := until.Sub(now.Add(tt.until)); d < -2*time.Second || d > 2*time.Second { // OCSP has whole seconds
				t.Errorf("relied on for %s, want %s", until.Sub(now), tt.until)
			}
		})
	}
}

// TestResponderOfTheCertificate finds the responder in the certificate.
func TestResponderOfTheCertificate(t *testing.T) {
	ca := root(t, "ca")
	uri := serve(t, 200, ocsp.TryLaterErrorResponse)
	device := issue(t, "device", 7, ca, func(c *x509.Certificate) { c.OCSPServer = []string{uri} })
	if _, err := revocation.New(nil).Check(t.Context(), device.cert, anchorOf(ca, "")); err == nil || !strings.Contains(err.Error(), "try later") {
		t.Errorf("got %v", err)
	}
}

// TestOpenSSL has OpenSSL's responder answer, which knows nonces.
func TestOpenSSL(t *testing.T) {
	program, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("SLUICE_TEST_ALL") == "1" {
			t.Fatal("openssl is not installed")
		}
		t.Skip("openssl is not installed")
	}
	ca := root(t, "ca")
	good, bad := issue(t, "good", 0x10, ca, nil), issue(t, "bad", 0x11, ca, nil)
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := x509.MarshalPKCS8PrivateKey(ca.key)
	if err != nil {
		t.Fatal(err)
	}
	caFile := write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})))
	keyFile := write("ca.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	end := time.Now().Add(time.Hour).UTC().Format("060102150405Z")
	index := write("index.txt", fmt.Sprintf("V\t%s\t\t10\tunknown\t/CN=good\nR\t%s\t%s\t11\tunknown\t/CN=bad\n", end, end, time.Now().Add(-time.Hour).UTC().Format("060102150405Z")))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		out := filepath.Join(dir, "response")
		cmd := exec.CommandContext(r.Context(), program, "ocsp", "-index", index, "-CA", caFile, "-rsigner", caFile, "-rkey", keyFile,
			"-nmin", "5", "-reqin", write("request", string(b)), "-respout", out)
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("openssl: %v: %s", err, text)
		}
		answer, _ := os.ReadFile(out)
		w.Write(answer)
	}))
	defer srv.Close()
	anchor := anchorOf(ca, srv.URL)
	anchor.OCSPNonceEnabled = true
	checker := revocation.New(nil)
	if until, err := checker.Check(t.Context(), good.cert, anchor); err != nil || time.Until(until) > 6*time.Minute {
		t.Errorf("good: %s, %v", time.Until(until), err)
	}
	if _, err := checker.Check(t.Context(), bad.cert, anchor); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("revoked: %v", err)
	}
}
