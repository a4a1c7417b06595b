package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router"
)

// The tenant whose devices the assertions are about, and how many there are: an adapter
// presents many tokens, not one again and again.
const (
	assertedTenant  = "BENCH"
	assertedDevices = 1000
	assertedIssuer  = "//bench"
)

// serveAsserted runs the router as a process of its own that verifies assertions, with a
// key made for the occasion, and writes tokens for the generator to a file. The program
// itself learns keys from the identity function, which has no part in what is measured.
func serveAsserted(args []string) error {
	fs := flag.NewFlagSet("asserted", flag.ContinueOnError)
	addr := fs.String("listen", "", "host:port")
	identities := fs.String("identities", "", "identities file")
	tokens := fs.String("tokens", "", "file to write")
	if err := fs.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	directory, err := auth.Open(*identities, auth.Options{AllowPlain: true})
	if err != nil {
		return err
	}
	signer, err := newSigner()
	if err != nil {
		return err
	}
	if err := writeTokens(ctx, signer, *tokens); err != nil {
		return err
	}
	verifier := assertion.NewVerifier(assertion.VerifierConfig{Issuer: assertedIssuer, Keys: signer.KeySource()})
	defer verifier.Close()
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	r := router.New(router.Options{Name: "bench", Directory: directory, Verifier: verifier})
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	err = r.Serve(ctx, router.Listener{Listener: listener})
	running.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func newSigner() (*assertion.Signer, error) {
	key := make([]byte, assertion.KEKSize)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	kek, err := assertion.NewKEK(key)
	if err != nil {
		return nil, err
	}
	return assertion.NewSigner(assertion.SignerConfig{Store: &memoryKeys{}, KEK: kek, Issuer: assertedIssuer, Lifetime: time.Hour})
}

func writeTokens(ctx context.Context, signer *assertion.Signer, file string) error {
	var b strings.Builder
	for i := range assertedDevices {
		device := fmt.Sprintf("device-%d", i)
		token, err := signer.Sign(ctx, assertion.Subject{Tenant: assertedTenant, Device: iot.DeviceID(device)})
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, device, token.JWT)
	}
	return os.WriteFile(file, []byte(b.String()), 0o600)
}

// memoryKeys is a key store without a database.
type memoryKeys struct {
	mu   sync.Mutex
	keys []assertion.StoredKey
}

// SigningKeys implements [assertion.KeyStore].
func (m *memoryKeys) SigningKeys(context.Context) ([]assertion.StoredKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]assertion.StoredKey(nil), m.keys...), nil
}

// PutSigningKey implements [assertion.KeyStore]; the signer puts one key only.
func (m *memoryKeys) PutSigningKey(_ context.Context, k assertion.StoredKey) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys = append(m.keys, k)
	return nil
}
