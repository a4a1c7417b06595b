package assertion

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
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

var (
	errForm = errors.New("assertion: sealed key was not sealed by a key-encryption key of this kind")
	errOpen = errors.New("assertion: sealed key does not open: it was sealed by another key-encryption key or changed since")
)

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

// EnvKEK is [NewKEK] for the key that an environment variable holds; see [EnvKey].
func EnvKEK(name string) (KEK, error) {
	key, err := EnvKey(name)
	if err != nil {
		return nil, err
	}
	return NewKEK(key)
}

// FileKEK is [NewKEK] for the key of a file; see [FileKey].
func FileKEK(path string) (KEK, error) {
	key, err := FileKey(path)
	if err != nil {
		return nil, err
	}
	return NewKEK(key)
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
		return nil, errForm
	}
	key, err := k.aead.Open(nil, wrapped[1:n], wrapped[n:], label)
	if err != nil {
		return nil, errOpen
	}
	return key, nil
}
