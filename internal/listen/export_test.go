package listen

import "crypto/x509"

// OpenDevelopmentAt is OpenDevelopment at another time.
var OpenDevelopmentAt = openDevelopment

// Pool holds the authority's certificate alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate)
	return pool
}
