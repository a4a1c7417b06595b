package listen

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	caFile, caKeyFile = "ca.crt", "ca.key"

	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 90 * 24 * time.Hour
	// renewBefore leaves a month to notice that renewal fails.
	renewBefore = 30 * 24 * time.Hour
	// clockSkew is how far a peer's clock may be behind ours.
	clockSkew = time.Hour
)

// Authority is the certificate authority of an installation, kept in a folder as
// ca.crt and ca.key (mode 0600).
type Authority struct {
	Certificate *x509.Certificate
	dir         string
	key         crypto.Signer
}

// OpenAuthority reads the authority in dir, or makes one with ECDSA P-256 that is
// valid for 10 years.
func OpenAuthority(dir string, now time.Time) (*Authority, error) {
	a, err := readAuthority(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return newAuthority(dir, now)
	}
	if err != nil {
		return nil, err
	}
	if now.After(a.Certificate.NotAfter) {
		return nil, fmt.Errorf("%s: expired on %s", filepath.Join(dir, caFile), a.Certificate.NotAfter.Format(time.DateOnly))
	}
	return a, nil
}

// CAFile is the path of the authority's certificate.
func (a *Authority) CAFile() string { return filepath.Join(a.dir, caFile) }

// readAuthority wraps fs.ErrNotExist if there is neither file. One without the
// other is an error: a new authority would make every certificate worthless.
func readAuthority(dir string) (*Authority, error) {
	f := Files{Certificate: filepath.Join(dir, caFile), Key: filepath.Join(dir, caKeyFile)}
	_, certErr := os.Stat(f.Certificate)
	_, keyErr := os.Stat(f.Key)
	if errors.Is(certErr, fs.ErrNotExist) != errors.Is(keyErr, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s and %s go together; one is missing", f.Certificate, f.Key)
	}
	pair, err := readPair(f)
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return nil, fmt.Errorf("%s: not a certificate authority", f.Certificate)
	}
	return &Authority{Certificate: pair.Leaf, dir: dir, key: key}, nil
}

func newAuthority(dir string, now time.Time) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fileError(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{Organization: []string{"Sluice"}, CommonName: "Sluice CA " + now.UTC().Format(time.DateOnly)},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		MaxPathLenZero:        true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("create CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("create CA: %w", err)
	}
	if err := writePair(filepath.Join(dir, caFile), filepath.Join(dir, caKeyFile), der, key); err != nil {
		return nil, err
	}
	return &Authority{Certificate: cert, dir: dir, key: key}, nil
}

// Leaf says what a certificate is for. It serves both sides of TLS.
type Leaf struct {
	CommonName string
	Kind       string   // OU; "" for a server that is no component
	Hosts      []string // DNS names and IP addresses
	Life       time.Duration
}

// Issue makes a key and a certificate and writes them, the key with mode 0600.
func (a *Authority) Issue(f Files, leaf Leaf, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("generate key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{Organization: []string{"Sluice"}, CommonName: leaf.CommonName},
		NotBefore:    now.Add(-clockSkew),
		NotAfter:     earlier(now.Add(leaf.Life), a.Certificate.NotAfter),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if leaf.Kind != "" {
		template.Subject.OrganizationalUnit = []string{leaf.Kind}
	}
	for _, h := range leaf.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Certificate, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("certificate for %s: %w", leaf.CommonName, err)
	}
	return writePair(f.Certificate, f.Key, der, key)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// serial is a random number of 127 bits, as RFC 5280 wants it positive.
func serial() *big.Int {
	raw := make([]byte, 16)
	rand.Read(raw) // never fails
	raw[0] &= 0x7f
	return new(big.Int).SetBytes(raw)
}

func writePair(certFile, keyFile string, der []byte, key *ecdsa.PrivateKey) error {
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	if err := replaceFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return err
	}
	return replaceFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// replaceFile writes beside the file and renames: readers see one version whole.
func replaceFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fileError(err)
	}
	_, err = f.Write(data)
	for _, step := range []func() error{func() error { return f.Chmod(mode) }, f.Sync} {
		if err == nil {
			err = step()
		}
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, fileError(err))
	}
	return nil
}
