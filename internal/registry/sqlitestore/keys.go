package sqlitestore

import (
	"bytes"
	"context"
	"database/sql"

	"github.com/sluice-iot/sluice/internal/assertion"
)

// SigningKeys implements assertion.KeyStore.
func (s *Store) SigningKeys(ctx context.Context) ([]assertion.StoredKey, error) {
	var keys []assertion.StoredKey
	err := s.read(ctx, func(ctx context.Context, c *conn) error {
		return c.each(ctx, `SELECT kid, algorithm, wrapped, public_jwk, not_before, retire_after, created
			FROM signing_keys ORDER BY created, kid`, nil, func(rows *sql.Rows) error {
			var k assertion.StoredKey
			var algorithm string
			var jwk []byte
			var notBefore, retireAfter, created int64
			if err := rows.Scan(&k.KID, &algorithm, &k.Wrapped, &jwk, &notBefore, &retireAfter, &created); err != nil {
				return err
			}
			k.Algorithm, k.PublicJWK = assertion.Algorithm(algorithm), jwk
			k.NotBefore, k.RetireAfter, k.Created = instant(notBefore), instant(retireAfter), instant(created)
			keys = append(keys, k)
			return nil
		})
	})
	return keys, err
}

// PutSigningKey implements assertion.KeyStore.
func (s *Store) PutSigningKey(ctx context.Context, k assertion.StoredKey) error {
	jwk := bytes.Clone(k.PublicJWK)
	if jwk == nil {
		jwk = []byte{}
	}
	return s.write(ctx, func(ctx context.Context, c *conn) error {
		_, err := c.exec(ctx, `INSERT OR REPLACE INTO signing_keys (kid, algorithm, wrapped, public_jwk, not_before, retire_after, created)
			VALUES (?, ?, ?, ?, ?, ?, ?)`, k.KID, string(k.Algorithm), k.Wrapped, jwk,
			millis(k.NotBefore), millis(k.RetireAfter), millis(k.Created))
		return err
	})
}
