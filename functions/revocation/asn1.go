package revocation

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"hash"
	"math/big"
	"time"

	"golang.org/x/crypto/ocsp"
)

// The parts of RFC 6960, section 4, that package ocsp leaves out: nonces, and
// whose certificate an answer is about.
type (
	requestDER struct{ TBS tbsRequest }
	tbsRequest struct {
		Version    int `asn1:"explicit,tag:0,default:0,optional"`
		Requests   []asn1.RawValue
		Extensions []pkix.Extension `asn1:"explicit,tag:2,optional"`
	}
	responseData struct {
		Version    int `asn1:"optional,default:0,explicit,tag:0"`
		Responder  asn1.RawValue
		ProducedAt time.Time `asn1:"generalized"`
		Responses  []singleResponse
		Extensions []pkix.Extension `asn1:"optional,explicit,tag:1"`
	}
	singleResponse struct{ CertID certID } // what follows is read by package ocsp
	certID         struct {
		Hash              pkix.AlgorithmIdentifier
		NameHash, KeyHash []byte
		Serial            *big.Int
	}
)

var oidNonce = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}

// newRequest makes a question, with a nonce if wanted.
func newRequest(cert, issuer *x509.Certificate, withNonce bool) (der, nonce []byte, err error) {
	if der, err = ocsp.CreateRequest(cert, issuer, nil); err != nil || !withNonce {
		return der, nil, err
	}
	var req requestDER
	if _, err := asn1.Unmarshal(der, &req); err != nil {
		return nil, nil, err
	}
	random := make([]byte, 32)
	rand.Read(random) // never fails
	if nonce, err = asn1.Marshal(random); err != nil {
		return nil, nil, err
	}
	req.TBS.Extensions = []pkix.Extension{{Id: oidNonce, Value: nonce}}
	der, err = asn1.Marshal(req)
	return der, nonce, err
}

// checkData checks that an answer about a serial number is about this issuer's,
// and that it is the answer to this question where it has a nonce.
func checkData(tbs []byte, cert, issuer *x509.Certificate, nonce []byte) error {
	var data responseData
	if _, err := asn1.Unmarshal(tbs, &data); err != nil {
		return errors.New("the answer's data does not decode")
	}
	if !aboutIssuer(&data, cert, issuer) {
		return errors.New("the answer is about a certificate of another issuer")
	}
	if nonce == nil {
		return nil
	}
	for _, e := range data.Extensions {
		if e.Id.Equal(oidNonce) && subtle.ConstantTimeCompare(e.Value, nonce) == 1 {
			return nil
		}
	}
	return errors.New("the answer does not have the question's nonce")
}

// aboutIssuer looks at the first answer about the serial number, the one that
// package ocsp read.
func aboutIssuer(data *responseData, cert, issuer *x509.Certificate) bool {
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(issuer.RawSubjectPublicKeyInfo, &spki); err != nil {
		return false
	}
	for _, r := range data.Responses {
		if r.CertID.Serial == nil || r.CertID.Serial.Cmp(cert.SerialNumber) != 0 {
			continue
		}
		newHash := hashes[r.CertID.Hash.Algorithm.String()]
		return newHash != nil && bytes.Equal(r.CertID.KeyHash, sum(newHash(), spki.Key.RightAlign())) &&
			bytes.Equal(r.CertID.NameHash, sum(newHash(), issuer.RawSubject))
	}
	return false
}

var hashes = map[string]func() hash.Hash{
	"1.3.14.3.2.26":          sha1.New,
	"2.16.840.1.101.3.4.2.1": sha256.New,
	"2.16.840.1.101.3.4.2.2": sha512.New384,
	"2.16.840.1.101.3.4.2.3": sha512.New,
}

func sum(h hash.Hash, b []byte) []byte {
	h.Write(b)
	return h.Sum(nil)
}
