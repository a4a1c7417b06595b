package pgstore

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// Credentials implements registry.Store.
func (s *Store) Credentials(ctx context.Context, tenant iot.TenantID, device iot.DeviceID) (registry.CredentialsRecord, error) {
	var r registry.CredentialsRecord
	err := s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		r = registry.CredentialsRecord{Tenant: tenant, Device: device, Set: []iot.Credential{}}
		rows, err := c.Query(ctx, `SELECT d.credentials_version, c.doc FROM tenants t
			LEFT JOIN devices d ON d.tenant = t.id AND d.id = $2
			LEFT JOIN credentials c ON c.tenant = d.tenant AND c.device = d.id
			WHERE t.id = $1 ORDER BY c.position`, text(tenant), text(device))
		if err != nil {
			return err
		}
		defer rows.Close()
		known := false
		for rows.Next() {
			known = true
			if err := scanCredential(rows, &r); err != nil {
				return err
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if !known {
			return errNoTenant
		}
		return nil
	})
	return r, err
}

func scanCredential(rows pgx.Rows, r *registry.CredentialsRecord) error {
	var version pgtype.Text
	var doc pgtype.DriverBytes
	if err := rows.Scan(&version, &doc); err != nil {
		return err
	}
	if !version.Valid {
		return errNoDevice
	}
	r.Version = version.String
	if doc == nil {
		return nil
	}
	var c iot.Credential
	if err := decode(doc, &c); err != nil {
		return err
	}
	r.Set = append(r.Set, c)
	return nil
}

// PutCredentials implements registry.Store.
func (s *Store) PutCredentials(ctx context.Context, r registry.CredentialsRecord, ifVersion string, at time.Time) error {
	set, err := encodeCredentials(r.Set)
	if err != nil {
		return err
	}
	w := wanted{ids: []iot.DeviceID{r.Device}, keys: keysOf(set)}
	return s.alter(ctx, r.Tenant, w, func(u *unit) error {
		if err := u.checkTenant(); err != nil {
			return err
		}
		d, err := u.find(r.Device, "")
		if err != nil {
			return err
		}
		if ifVersion != "" && ifVersion != d.credentialsVersion {
			return errVersion
		}
		if err := u.canPut(r.Device, set); err != nil {
			return err
		}
		u.put(d, set, r.Version)
		u.note(registry.Change{Kind: registry.CredentialsChanged, Device: r.Device, At: at})
		return nil
	})
}

func keysOf(set []credentialRow) []credentialKey {
	keys := make([]credentialKey, len(set))
	for i := range set {
		keys[i] = set[i].key
	}
	return keys
}

// proof is what is kept beside a secret, in a JSON object by the secret's id.
type proof struct {
	MAC   []byte `json:"mac"`
	Until int64  `json:"until"` // Unix milliseconds
}

// KeepVerified implements registry.Prover.
func (s *Store) KeepVerified(ctx context.Context, tenant iot.TenantID, credentialType, authID string, v registry.Verified) error {
	if !storable(v.SecretID) {
		return nil // no credential has such a secret
	}
	kept, err := json.Marshal(map[string]proof{v.SecretID: {MAC: v.MAC, Until: millis(v.Until)}})
	if err != nil {
		return err
	}
	return s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, `UPDATE credentials SET verified = coalesce(verified, '{}') || $4::jsonb
			WHERE tenant = $1 AND type = $2 AND auth_id = $3`, text(tenant), text(credentialType), text(authID), kept)
		return err
	})
}

// decodeVerified returns what is kept, in the order of the secrets' ids.
func decodeVerified(doc []byte) ([]registry.Verified, error) {
	if doc == nil {
		return nil, nil
	}
	var kept map[string]proof
	if err := decode(doc, &kept); err != nil {
		return nil, err
	}
	all := make([]registry.Verified, 0, len(kept))
	for id, p := range kept {
		all = append(all, registry.Verified{SecretID: id, MAC: p.MAC, Until: instant(p.Until)})
	}
	slices.SortFunc(all, func(a, b registry.Verified) int { return strings.Compare(a.SecretID, b.SecretID) })
	return all, nil
}
