package listen_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/listen"
)

// selfSigned is a certificate that no authority vouches for.
func selfSigned(t *testing.T, from, until time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "device-1"}, NotBefore: from, NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func deviceTLS(t *testing.T, l config.ListenerTLS, own listen.Files, authenticate bool) *tls.Config {
	t.Helper()
	c, err := listen.DeviceTLS(config.Listener{Role: config.RoleHTTPAdapter, TLS: &l}, own, authenticate, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDeviceCertificates(t *testing.T) {
	d := development(t)
	now := time.Now()
	issued, err := d.Authority.IssueComponent(t.TempDir(), "", "device-1", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := tls.LoadX509KeyPair(issued.Certificate, issued.Key)
	if err != nil {
		t.Fatal(err)
	}
	stranger := selfSigned(t, now.Add(-time.Hour), now.Add(time.Hour))
	any, none, verified := config.ListenerTLS{}, config.ListenerTLS{NoClientCertificates: true}, config.ListenerTLS{ClientCA: d.Files().CA}
	for _, tt := range []struct {
		name         string
		listener     config.ListenerTLS
		authenticate bool
		cert         *tls.Certificate
		seen         int    // certificates
		refused      string // "" = is let in
	}{
		{"none", any, true, nil, 0, ""},
		{"of nobody known", any, true, &stranger, 1, ""},
		{"expired", any, true, ptr(selfSigned(t, now.Add(-2*time.Hour), now.Add(-time.Hour))), 0, "expired at"},
		{"not yet valid", any, true, ptr(selfSigned(t, now.Add(time.Hour), now.Add(2*time.Hour))), 0, "not valid before"},
		{"not asked for", any, false, &stranger, 0, ""},
		{"not wanted", none, true, &stranger, 0, ""},
		{"none, CA named", verified, true, nil, 0, ""},
		{"of the CA named", verified, true, &trusted, 1, ""},
		{"not of the CA named", verified, true, &stranger, 0, "unknown authority"},
		{"not of the CA named, no authentication", verified, false, &stranger, 0, "unknown authority"},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(tt.name+" "+tls.VersionName(version), func(t *testing.T) {
				client := clientFor(t, listen.Files{CA: d.Files().CA})("localhost")
				client.MaxVersion = version
				client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					if tt.cert == nil {
						return &tls.Certificate{}, nil
					}
					return tt.cert, nil
				}
				state, serverErr, clientErr := handshake(deviceTLS(t, tt.listener, d.Files(), tt.authenticate), client)
				if tt.refused != "" {
					if serverErr == nil || clientErr == nil || !strings.Contains(serverErr.Error(), tt.refused) {
						t.Errorf("got %v at the server, %v at the client, want %q", serverErr, clientErr, tt.refused)
					}
					return
				}
				if serverErr != nil || clientErr != nil || len(state.PeerCertificates) != tt.seen {
					t.Errorf("got %v, %v and %d certificates, want %d", serverErr, clientErr, len(state.PeerCertificates), tt.seen)
				}
			})
		}
	}
}

func ptr[T any](v T) *T { return &v }

// A resumed session stands for the certificate it began with, and ends with it.
func TestDeviceSessionsAreResumed(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := development(t)
				server := deviceTLS(t, config.ListenerTLS{}, d.Files(), true)
				client := clientFor(t, listen.Files{CA: d.Files().CA})("localhost")
				client.MaxVersion, client.ClientSessionCache = version, tls.NewLRUClientSessionCache(1)
				client.Certificates = []tls.Certificate{selfSigned(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))}
				for i := range 2 {
					state, serverErr, clientErr := handshake(server, client)
					if serverErr != nil || clientErr != nil {
						t.Fatal(serverErr, clientErr)
					}
					if state.DidResume != (i == 1) || len(state.PeerCertificates) != 1 || state.PeerCertificates[0].Subject.CommonName != "device-1" {
						t.Errorf("handshake %d: resumed %v with %d certificates", i, state.DidResume, len(state.PeerCertificates))
					}
				}
				time.Sleep(2 * time.Hour)
				if _, serverErr, _ := handshake(server, client); serverErr == nil {
					t.Error("the session outlived its certificate")
				}
			})
		})
	}
}
