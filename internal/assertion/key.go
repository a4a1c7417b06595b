package assertion

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ParseKey reads a symmetric key of [KEKSize] bytes written in standard Base64
// with padding, as an environment variable or a secret file holds it. Such keys
// stay outside the store: the key-encryption key, and the one of the MACs of
// verified passwords.
func ParseKey(text string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return nil, errors.New("key is not Base64 with padding")
	}
	if len(key) != KEKSize {
		return nil, fmt.Errorf("key has %d bytes, want %d", len(key), KEKSize)
	}
	return key, nil
}

// EnvKey reads a key in the form of [ParseKey] from an environment variable.
func EnvKey(name string) ([]byte, error) {
	text, ok := os.LookupEnv(name)
	if !ok || strings.TrimSpace(text) == "" {
		return nil, fmt.Errorf("environment variable %s is not set: want a key of %d bytes in Base64", name, KEKSize)
	}
	key, err := ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("environment variable %s: %w", name, err)
	}
	return key, nil
}

// FileKey reads a key in the form of [ParseKey] from path and creates it at the
// first start: a random key, file mode 0600, folder 0700. A file that others
// may read is refused. Two processes that start at once agree on one key.
func FileKey(path string) ([]byte, error) {
	if err := createKeyFile(path); err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %#o and others may read it: want 0600", path, mode)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	key, err := ParseKey(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// createKeyFile makes path appear with its whole content or not at all: the
// link fails where another process was first.
func createKeyFile(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil // there, or reported by the caller's own look
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("folder of the key file: %w", err)
	}
	key := make([]byte, KEKSize)
	rand.Read(key) // never fails
	tmp, err := os.CreateTemp(dir, ".key-*")
	if err != nil {
		return fmt.Errorf("create key file: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Link(tmp.Name(), path)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create key file: %w", err)
	}
	return nil
}
