package stack

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"time"

	"github.com/sluice-iot/sluice/internal/listen"
)

// life is how long the certificates of a local deployment are good.
const life = 30 * 24 * time.Hour

// issue makes the CA and a certificate for each part.
func (s *Stack) issue() error {
	ca, err := listen.OpenAuthority(s.data("certs"), time.Now())
	if err != nil {
		return err
	}
	for kind, instance := range map[string]string{"function": "identity-0", "router": "router-0", "adapter": "http-0"} {
		if _, err := ca.IssueComponent(s.data("certs"), kind, instance, nil, life); err != nil {
			return err
		}
	}
	return nil
}

// secret is what the template's parameter Secrets names: keys that are made for
// this run, and the function's certificate.
func (s *Stack) secret() (func(secret, key string) (string, error), error) {
	values := map[string]string{}
	for _, key := range []string{"kek", "verified-key"} {
		random := make([]byte, 32)
		if _, err := rand.Read(random); err != nil {
			return nil, err
		}
		values[key] = base64.StdEncoding.EncodeToString(random)
	}
	files := listen.ComponentFiles(s.data("certs"), "function", "identity-0")
	for key, file := range map[string]string{"tls-certificate": files.Certificate, "tls-key": files.Key, "tls-ca": files.CA} {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		values[key] = string(text)
	}
	return func(_, key string) (string, error) {
		v, ok := values[key]
		if !ok {
			return "", fmt.Errorf("there is no such key")
		}
		return v, nil
	}, nil
}
