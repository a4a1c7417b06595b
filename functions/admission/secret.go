package admission

import (
	"context"
	"errors"
	"time"

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

// verify checks what the device proves itself with and notes what comes of it.
// again as in round.
func (f *Function) verify(ctx context.Context, v *visit) (again bool, err error) {
	proof, c := v.req.Credential, v.s.Credential
	if proof.Type == iot.HashedPassword {
		if provider, named := v.s.Tenant.Tenant.IdentityProvider(); named {
			return f.external(ctx, v, provider)
		} else if v.proven != nil {
			return false, errMoved
		}
	}
	if c != nil && (!c.IsEnabled() || !registry.MatchesContext(c, v.req.Context)) {
		c = nil
	}
	switch {
	case v.cert != nil:
		return f.certificate(ctx, v, c)
	case v.jwt != nil:
		err = f.signature(v, c)
	case proof.SecretID != "":
		err = f.recheck(v, c)
	case proof.Type == iot.PSK:
		err = f.key(v, c)
	default:
		err = f.password(ctx, v, c)
	}
	return false, err
}

// prove notes which secret proved the device.
func (v *visit) prove(s *iot.Secret) {
	v.out.SecretID = s.ID
	v.until(s.NotAfter.Time)
}

// password compares a password, by the MAC kept of it where there is one.
func (f *Function) password(ctx context.Context, v *visit, c *iot.Credential) error {
	proof, now := v.req.Credential.Password, f.Now()
	if c == nil {
		return f.refuse(ctx, nil, proof)
	}
	if s, renew := f.MACs.Recognise(&v.s, proof, now); s != nil {
		v.prove(s)
		if renew {
			f.remember(ctx, v, s.ID)
		}
		return nil
	}
	id, err := f.Passwords.Verify(ctx, c, proof, now)
	if errors.Is(err, iot.ErrUnauthenticated) {
		return f.refuse(ctx, c, proof)
	}
	if err != nil {
		return err
	}
	for i := range c.Secrets {
		if c.Secrets[i].ID == id {
			v.prove(&c.Secrets[i])
			break
		}
	}
	f.remember(ctx, v, id)
	return nil
}

// keepWait bounds how long keeping a proof may take.
const keepWait = 500 * time.Millisecond

// remember keeps a MAC of the password that was verified, even when the caller
// has gone meanwhile: it comes again, and the slow hash was paid. A device is
// not turned away because that fails: it pays its slow hash again.
func (f *Function) remember(ctx context.Context, v *visit, secretID string) {
	proof, ok := f.MACs.Proof(&v.s, secretID, v.req.Credential.Password, f.Now())
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepWait)
	defer cancel()
	if err := f.Registry.KeepVerified(ctx, &v.s, proof); err != nil {
		f.Log.WarnContext(ctx, "the proof of a verified password is not kept", "tenant", string(v.s.Tenant.ID), "device", string(v.s.Owner), "err", err)
	}
}

// signature checks a JWT against the keys of its credential.
func (f *Function) signature(v *visit, c *iot.Credential) error {
	if c == nil {
		return errBadCredentials
	}
	s, ok := v.jwt.signedBy(c, f.Now())
	if !ok || (v.req.Credential.SecretID != "" && v.req.Credential.SecretID != s.ID) {
		return errBadCredentials
	}
	v.prove(s)
	v.until(v.jwt.end())
	return nil
}

// recheck asks whether the secret that a connected device came in with still
// holds; what the device proved with it is not asked again.
func (f *Function) recheck(v *visit, c *iot.Credential) error {
	id := v.req.Credential.SecretID
	if c == nil {
		return errBadCredentials
	}
	if c.Type == iot.X509Cert {
		if _, ok := certificateSecret(c, id); !ok {
			return errBadCredentials
		}
		v.out.SecretID = id
		return nil
	}
	for s := range registry.Candidates(c, f.Now()) {
		if s.ID == id {
			v.prove(s)
			return nil
		}
	}
	return errBadCredentials
}

// key hands out the first usable pre-shared key: the handshake itself, at the
// adapter, shows whether the device has it.
func (f *Function) key(v *visit, c *iot.Credential) error {
	if c == nil {
		return errBadCredentials
	}
	for s := range registry.Candidates(c, f.Now()) {
		v.out.PSK = s.Key
		v.prove(s)
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
		for s := range registry.Candidates(c, f.Now()) {
			if s.HashFunction == registry.Bcrypt {
				return errBadCredentials // that hash was just computed
			}
		}
	}
	_, err := f.Passwords.Verify(ctx, &decoy, password, f.Now())
	if err == nil || errors.Is(err, iot.ErrUnauthenticated) {
		return errBadCredentials
	}
	return err
}
