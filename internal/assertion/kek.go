package assertion

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// KEK is the key-encryption key that seals private keys before they are
// stored. The label is authenticated with the key: a sealed key that is moved
// under another name does not open. Safe for concurrent use.
type KEK interface {
	Wrap(ctx context.Context, key, label []byte) ([]byte, error)
	Unwrap(ctx context.Context, wrapped, label []byte) ([]byte, error)
}

// KEKSize is the length of a local key-encryption key in bytes (AES-256).
const KEKSize = 32

// wrapVersion is the first byte of everything a localKEK sealed; nonce and
// ciphertext with tag follow.
const wrapVersion = 1

type localKEK struct{ aead cipher.AEAD }

// NewKEK returns a KEK that seals with AES-256-GCM under key, which must have
// [KEKSize] bytes.
func NewKEK(key []byte) (KEK, error) {
	if len(key) != KEKSize {
		return nil, fmt.Errorf("assertion: key-encryption key has %d bytes, want %d", len(key), KEKSize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("assertion: key-encryption key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("assertion: key-encryption key: %w", err)
	}
	return &localKEK{aead: aead}, nil
}

// ParseKEK is [NewKEK] for a key written in standard Base64 with padding, as
// an environment variable or a secret file holds it.
func ParseKEK(text string) (KEK, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return nil, errors.New("assertion: key-encryption key is not Base64 with padding")
	}
	return NewKEK(key)
}

// FileKEK reads the key-encryption key from path and creates it at the first
// start: a random key, file mode 0600, folder 0700. A file that others may
// read is refused. Two processes that start at once agree on one key.
func FileKEK(path string) (KEK, error) {
	if err := createKEKFile(path); err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("assertion: key-encryption key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("assertion: %s has mode %#o and others may read it: want 0600", path, mode)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("assertion: key-encryption key: %w", err)
	}
	kek, err := ParseKEK(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return kek, nil
}

// createKEKFile makes path appear with its whole content or not at all: the
// link fails where another process was first.
func createKEKFile(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil // there, or reported by the caller's own look
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("assertion: folder of the key-encryption key: %w", err)
	}
	key := make([]byte, KEKSize)
	rand.Read(key) // never fails
	tmp, err := os.CreateTemp(dir, ".kek-*")
	if err != nil {
		return fmt.Errorf("assertion: create key-encryption key: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Link(tmp.Name(), path)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("assertion: create key-encryption key: %w", err)
	}
	return nil
}

func (k *localKEK) Wrap(_ context.Context, key, label []byte) ([]byte, error) {
	out := make([]byte, 1+k.aead.NonceSize(), 1+k.aead.NonceSize()+len(key)+k.aead.Overhead())
	out[0] = wrapVersion
	rand.Read(out[1:])
	return k.aead.Seal(out, out[1:], key, label), nil
}

func (k *localKEK) Unwrap(_ context.Context, wrapped, label []byte) ([]byte, error) {
	n := 1 + k.aead.NonceSize()
	if len(wrapped) < n || wrapped[0] != wrapVersion {
		return nil, errors.New("assertion: sealed key is of an unknown form")
	}
	key, err := k.aead.Open(nil, wrapped[1:n], wrapped[n:], label)
	if err != nil {
		return nil, errors.New("assertion: sealed key does not open: it was sealed by another key-encryption key or changed since")
	}
	return key, nil
}
