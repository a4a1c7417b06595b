package adaptertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"sync"
	"time"
)

// Certificate is the client certificate of Device, whose issuer leads to Tenant.
var Certificate = sync.OnceValue(func() tls.Certificate { return certificate("device-1") })

// CertificateOfUnknownIssuer is one of Device, too, which needs a host name to
// say of which tenant.
var CertificateOfUnknownIssuer = sync.OnceValue(func() tls.Certificate { return certificate("device-1 elsewhere") })

// StrangeCertificate is nobody's.
var StrangeCertificate = sync.OnceValue(func() tls.Certificate { return certificate("stranger") })

// certificate makes a self-signed client certificate.
func certificate(name string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Organization: []string{"Sluice"}},
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().AddDate(100, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Token is the JWT of Device that names tenant and auth-id itself.
var Token = sync.OnceValue(func() string {
	return token(map[string]any{"aud": "hono-adapter", "tid": Tenant, "sub": Device})
})

// TokenWithoutClaims is one of Device that needs the protocol to say of which
// tenant and device.
var TokenWithoutClaims = sync.OnceValue(func() string { return token(map[string]any{}) })

// StrangeToken has the form of a token, and nobody's signature.
var StrangeToken = sync.OnceValue(func() string {
	return token(map[string]any{"aud": []string{"hono-adapter"}, "tid": Tenant, "sub": Device, "jti": "strange"})
})

// token makes a JWT that is valid for a day. The fake compares it as a whole:
// no key signed it.
func token(claims map[string]any) string {
	claims["iat"], claims["exp"] = time.Now().Unix(), time.Now().Add(24*time.Hour).Unix()
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"typ":"JWT","alg":"ES256"}`)) + "." + encode(payload) + "." + encode([]byte("signature"))
}
