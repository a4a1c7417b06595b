package assertion

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// KMS is a key management service: it encrypts small texts under a key that
// never leaves it. The context is authenticated with the text, and must be the
// same to decrypt. Both calls cross a network and end with ctx. Implementors
// return an error that wraps iot.ErrInvalid for a ciphertext that the service
// refuses; every other error means that the service could not be asked. AWS
// KMS fits as it is (Encrypt, Decrypt and EncryptionContext); a private key in
// PKCS #8 is far below its limit of 4096 bytes.
type KMS interface {
	Encrypt(ctx context.Context, plaintext []byte, context map[string]string) (ciphertext []byte, err error)
	Decrypt(ctx context.Context, ciphertext []byte, context map[string]string) (plaintext []byte, err error)
}

const (
	// kmsVersion is the first byte of everything that a KMS sealed.
	kmsVersion = 2
	// kmsTimeout ends one call of a KMS.
	kmsTimeout = 5 * time.Second
	// kmsLabel names the label in the context of a KMS.
	kmsLabel = "label"
)

type kmsKEK struct{ kms KMS }

// NewKMSKEK returns a KEK whose key is kept by kms. It is asked when a signing
// key is made and when an instance first signs with one, not for each token.
// Errors wrap iot.ErrUnavailable where it could not be asked.
func NewKMSKEK(kms KMS) KEK { return &kmsKEK{kms} }

func (k *kmsKEK) Wrap(ctx context.Context, key, label []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, kmsTimeout)
	defer cancel()
	sealed, err := k.kms.Encrypt(ctx, key, map[string]string{kmsLabel: string(label)})
	if err != nil {
		return nil, fmt.Errorf("assertion: key management service: %w: %w", iot.ErrUnavailable, err)
	}
	return append([]byte{kmsVersion}, sealed...), nil
}

func (k *kmsKEK) Unwrap(ctx context.Context, wrapped, label []byte) ([]byte, error) {
	if len(wrapped) < 2 || wrapped[0] != kmsVersion {
		return nil, errForm
	}
	ctx, cancel := context.WithTimeout(ctx, kmsTimeout)
	defer cancel()
	key, err := k.kms.Decrypt(ctx, wrapped[1:], map[string]string{kmsLabel: string(label)})
	switch {
	case errors.Is(err, iot.ErrInvalid):
		return nil, errOpen
	case err != nil:
		return nil, fmt.Errorf("assertion: key management service: %w: %w", iot.ErrUnavailable, err)
	}
	return key, nil
}

type kekList []KEK

// NewKEKs returns a KEK that seals with the first and opens what any of them
// sealed: how a key-encryption key is replaced. The older ones may go when the
// signing keys that they sealed are retired, one life time of tokens after the
// next rotation.
func NewKEKs(current KEK, older ...KEK) KEK {
	return append(kekList{current}, older...)
}

func (l kekList) Wrap(ctx context.Context, key, label []byte) ([]byte, error) {
	return l[0].Wrap(ctx, key, label)
}

func (l kekList) Unwrap(ctx context.Context, wrapped, label []byte) ([]byte, error) {
	var errs []error
	for _, k := range l {
		key, err := k.Unwrap(ctx, wrapped, label)
		if err == nil {
			return key, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
