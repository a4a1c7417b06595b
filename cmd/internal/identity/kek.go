package identity

import (
	"errors"
	"io/fs"
	"os"

	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/config"
)

// KEKVariable names the environment variable that may hold the key-encryption
// key: 32 bytes in standard Base64 with padding. Without it the key is the file
// keys/kek of the data folder, made at the first start. Every process that
// shares a store needs the same key.
const KEKVariable = "SLUICE_KEK"

// NeedsData reports whether cfg and the environment leave something to be kept
// in a data folder.
func NeedsData(cfg *config.Config) bool {
	return cfg.Registry.Store == "sqlite" || os.Getenv(KEKVariable) == ""
}

// PreviousKEKVariable names the environment variable that may hold the
// key-encryption key that was replaced, in the same form: signing keys that it
// sealed still open. Without it the key is the file keys/kek.previous of the data
// folder, where there is one.
const PreviousKEKVariable = "SLUICE_KEK_PREVIOUS"

func openKEK(data *config.DataFolder) (assertion.KEK, error) {
	current, err := currentKEK(data)
	if err != nil {
		return nil, err
	}
	older, err := previousKEK(data)
	if err != nil || older == nil {
		return current, err
	}
	return assertion.NewKEKs(current, older), nil
}

func currentKEK(data *config.DataFolder) (assertion.KEK, error) {
	if os.Getenv(KEKVariable) != "" {
		return assertion.EnvKEK(KEKVariable)
	}
	return assertion.FileKEK(data.File("keys", "kek"))
}

// previousKEK returns nil where no key was replaced.
func previousKEK(data *config.DataFolder) (assertion.KEK, error) {
	if os.Getenv(PreviousKEKVariable) != "" {
		return assertion.EnvKEK(PreviousKEKVariable)
	}
	if data == nil {
		return nil, nil
	}
	path := data.File("keys", "kek.previous")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil // FileKEK would make it
	}
	return assertion.FileKEK(path)
}

// MACVariable names the environment variable that may hold the key of the MACs of
// verified passwords, in the same form. Without it the key is the file
// keys/verified of the data folder; without that there are no MACs, and every
// restarted process computes slow hashes again.
const MACVariable = "SLUICE_VERIFIED_KEY"

func openMACKey(cfg *config.Config, data *config.DataFolder) ([]byte, error) {
	switch {
	case !cfg.Admission.KeepVerified:
		return nil, nil
	case os.Getenv(MACVariable) != "":
		return assertion.EnvKey(MACVariable)
	case data == nil:
		return nil, nil
	}
	return assertion.FileKey(data.File("keys", "verified"))
}
