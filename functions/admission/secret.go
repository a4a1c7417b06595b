package admission

import (
	"context"
	"errors"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// decoy is a credential whose password nobody knows: a random one, hashed once
// at the default cost and thrown away.
var decoy = iot.Credential{
	Type: iot.HashedPassword,
	Secrets: []iot.Secret{{
		HashFunction: registry.Bcrypt,
		PwdHash:      "$2a$10$.ojuZPG3shkyViV9GtxUpuaOAnrcRx5vbtjIHFs/82yPnSoduo26q",
	}},
}

// verify checks what the device proves itself with and puts into out what
// comes of it.
func (f *Function) verify(ctx context.Context, req *events.Admit, s *registry.Snapshot, out *events.Admitted) error {
	proof, c := req.Credential, s.Credential
	if c != nil && (!c.IsEnabled() || !registry.MatchesContext(c, req.Context)) {
		c = nil
	}
	switch {
	case proof.SecretID != "":
		return f.recheck(c, proof.SecretID, out)
	case proof.Type == iot.PSK:
		return f.key(c, out)
	case c == nil:
		return f.refuse(ctx, nil, proof.Password)
	}
	id, err := f.passwords.Verify(ctx, c, proof.Password, f.now())
	if errors.Is(err, iot.ErrUnauthenticated) {
		return f.refuse(ctx, c, proof.Password)
	}
	out.SecretID = id
	return err
}

// recheck asks whether the secret that a connected device came in with still holds.
func (f *Function) recheck(c *iot.Credential, secretID string, out *events.Admitted) error {
	if c == nil || !registry.HasSecret(c, secretID, f.now()) {
		return errBadCredentials
	}
	out.SecretID = secretID
	return nil
}

// key hands out the first usable pre-shared key: the handshake itself, at the
// adapter, shows whether the device has it.
func (f *Function) key(c *iot.Credential, out *events.Admitted) error {
	if c == nil {
		return errBadCredentials
	}
	for s := range registry.Candidates(c, f.now()) {
		out.PSK, out.SecretID = s.Key, s.ID
		return nil
	}
	return errBadCredentials
}

// refuse answers a wrong password. Every refusal costs one slow hash at least,
// so that the time it takes tells neither whether the tenant or the auth-id
// exists nor how its secrets are kept: the decoy is hashed where checking c
// was cheap.
func (f *Function) refuse(ctx context.Context, c *iot.Credential, password string) error {
	if c != nil {
		for s := range registry.Candidates(c, f.now()) {
			if s.HashFunction == registry.Bcrypt {
				return errBadCredentials // that hash was just computed
			}
		}
	}
	_, err := f.passwords.Verify(ctx, &decoy, password, f.now())
	if err == nil || errors.Is(err, iot.ErrUnauthenticated) {
		return errBadCredentials
	}
	return err
}
