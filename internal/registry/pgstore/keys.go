package pgstore

import (
	"bytes"
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-iot/sluice/internal/assertion"
)

// SigningKeys implements assertion.KeyStore.
func (s *Store) SigningKeys(ctx context.Context) ([]assertion.StoredKey, error) {
	var keys []assertion.StoredKey
	err := s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		keys = nil
		rows, err := c.Query(ctx, `SELECT kid, algorithm, wrapped, public_jwk, not_before, retire_after, created
			FROM signing_keys ORDER BY created, kid`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var k assertion.StoredKey
			var jwk []byte
			var notBefore, retireAfter, created int64
			if err := rows.Scan(&k.KID, (*string)(&k.Algorithm), &k.Wrapped, &jwk, &notBefore, &retireAfter, &created); err != nil {
				return err
			}
			k.PublicJWK = jwk
			k.NotBefore, k.RetireAfter, k.Created = instant(notBefore), instant(retireAfter), instant(created)
			keys = append(keys, k)
		}
		return rows.Err()
	})
	return keys, err
}

// PutSigningKey implements assertion.KeyStore. To put the same key again
// changes nothing, so that it may be repeated.
func (s *Store) PutSigningKey(ctx context.Context, k assertion.StoredKey) error {
	jwk := bytes.Clone(k.PublicJWK)
	if jwk == nil {
		jwk = []byte{}
	}
	return s.change(ctx, func(ctx context.Context, t *tx) error {
		if err := t.load(ctx, &pgx.Batch{}); err != nil {
			return err
		}
		b := &pgx.Batch{}
		b.Queue(`INSERT INTO signing_keys (kid, algorithm, wrapped, public_jwk, not_before, retire_after, created)
			VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (kid) DO UPDATE SET algorithm = excluded.algorithm, wrapped = excluded.wrapped,
				public_jwk = excluded.public_jwk, not_before = excluded.not_before, retire_after = excluded.retire_after, created = excluded.created`,
			k.KID, string(k.Algorithm), k.Wrapped, jwk, millis(k.NotBefore), millis(k.RetireAfter), millis(k.Created))
		return t.finish(ctx, b)
	})
}
