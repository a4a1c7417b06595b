package http_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/internal/iot"
)

// FuzzHTTPAuth gives the adapter a request as it may come from the network, from a
// client whose certificate has the given subject and issuer, both of any form that
// the TLS library lets pass. Whatever it is, it is answered, and what the admission
// function is asked names somebody.
func FuzzHTTPAuth(f *testing.F) {
	whole := base64.StdEncoding.EncodeToString([]byte("device-1@tenant-1:" + adaptertest.Password))
	claims := jwt(jwtHeader, `{"aud":"hono-adapter","tid":"tenant-1","sub":"device-1","iat":1,"exp":4000000000}`)
	device := rdn(f, pkix.Name{CommonName: "device-1", Organization: []string{"Acme"}})
	for _, auth := range []string{"", "Basic", "Basic ====", "Basic " + whole, "basic " + base64.StdEncoding.EncodeToString([]byte(whole+":")),
		"Bearer x", "Bearer " + claims, "Bearer " + jwt(`{"typ":"JWT"}`, `{"aud":[],"exp":1e400}`), "Bearer a.b.c", "Bearer ..", "Digest username=x"} {
		f.Add("POST", "/telemetry?hono-ttl=1", auth, []byte{}, []byte{}, "")
		f.Add("PUT", "/event/tenant-1/device-1", auth, []byte{}, []byte{}, "")
	}
	for _, target := range []string{"/telemetry//device:2", "/telemetry/%2f/%2F", "/event/\x01", "//", "*", "http://x/telemetry", "/telemetry?%zz=;;&hono-ttl=99999999999", "/mqtt"} {
		f.Add("PUT", target, "Basic "+whole, []byte{}, []byte{}, "")
	}
	f.Add("POST", "/telemetry", "", device, device, "tenant-1.example")
	f.Add("PUT", "/telemetry/tenant-1/x", "Bearer "+claims, device, []byte("\x30\x00"), "localhost")
	f.Add("POST", "/telemetry", "", []byte("\x30\x00"), []byte("\x30\x00"), "..")
	f.Add("POST", "/telemetry", "", rdn(f, pkix.Name{CommonName: "a\x00b,+\"\\<>;#=\u202e", ExtraNames: []pkix.AttributeTypeAndValue{
		{Type: asn1.ObjectIdentifier{1, 2, 3}, Value: strings.Repeat("x", 1000)}, {Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: 7}}}), device, "")
	f.Fuzz(func(t *testing.T, method, target, auth string, subject, issuer []byte, sni string) {
		inv := &believer{}
		w := withInvoker(t, inv)
		rec := httptest.NewRecorder()
		r := request(method, target, auth)
		if r == nil {
			return // the server answers by itself
		}
		if leaf := leafOf(subject, issuer); leaf != nil {
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, ServerName: sni}
		}
		w.ServeHTTP(rec, r)
		if rec.Code < 200 || rec.Code >= 500 || rec.Code == 202 && len(inv.asked()) == 0 {
			t.Errorf("got %d %s after %d questions", rec.Code, rec.Body, len(inv.asked()))
		}
		for _, q := range inv.asked() {
			c := q.Credential
			if c == nil || c.AuthID == "" || len(c.AuthID) > 16<<10 {
				t.Fatalf("asked with %+v", c)
			}
			named := q.TenantRef.ID != "" && utf8.ValidString(string(q.TenantRef.ID)) && utf8.ValidString(c.AuthID)
			switch c.Type {
			case iot.HashedPassword:
				named = named && c.Password != ""
			case iot.RPK:
				named = named && c.JWT != ""
			case iot.X509Cert:
				named = len(c.Certificate) > 0 && q.TenantRef.ID == ""
			default:
				named = false
			}
			if !named {
				t.Errorf("asked for tenant %q with %+v", q.TenantRef, c)
			}
		}
	})
}

// request parses one as the server does; nil where that refuses it.
func request(method, target, auth string) *nethttp.Request {
	var b bytes.Buffer
	b.WriteString(method + " " + target + " HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n")
	if auth != "" {
		b.WriteString("Authorization: " + auth + "\r\n")
	}
	b.WriteString("Content-Length: 1\r\n\r\nx")
	r, err := nethttp.ReadRequest(bufio.NewReader(&b))
	if err != nil {
		return nil
	}
	return r
}

func rdn(f *testing.F, name pkix.Name) []byte {
	b, err := asn1.Marshal(name.ToRDNSequence())
	if err != nil {
		f.Fatal(err)
	}
	return b
}

// leafOf is a certificate as the TLS library would hand it over: names in DER that
// can be read; nil where they cannot.
func leafOf(subject, issuer []byte) *x509.Certificate {
	c := &x509.Certificate{Raw: append([]byte("a certificate of "), subject...), RawSubject: subject, RawIssuer: issuer}
	for _, n := range []struct {
		raw  []byte
		name *pkix.Name
	}{{subject, &c.Subject}, {issuer, &c.Issuer}} {
		var seq pkix.RDNSequence
		if rest, err := asn1.Unmarshal(n.raw, &seq); err != nil || len(rest) > 0 {
			return nil
		}
		n.name.FillFromRDNSequence(&seq)
	}
	return c
}
