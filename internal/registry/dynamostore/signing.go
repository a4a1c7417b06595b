package dynamostore

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/sluice-iot/sluice/internal/assertion"
)

// SigningKeys implements assertion.KeyStore.
func (s *Store) SigningKeys(ctx context.Context) ([]assertion.StoredKey, error) {
	var keys []assertion.StoredKey
	_, err := s.query(ctx, question{pk: signingPK}, func(i item) (bool, error) {
		k := assertion.StoredKey{KID: i.str("sk"), Algorithm: assertion.Algorithm(i.str("algorithm")), PublicJWK: i.bytes("jwk"),
			NotBefore: i.time("notbefore"), RetireAfter: i.time("retire"), Created: i.time("created")}
		if w := i.bytes("wrapped"); len(w) > 0 {
			k.Wrapped = w
		}
		keys = append(keys, k)
		return false, nil
	})
	slices.SortFunc(keys, func(a, b assertion.StoredKey) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.KID, b.KID))
	})
	return keys, err
}

// PutSigningKey implements assertion.KeyStore.
func (s *Store) PutSigningKey(ctx context.Context, k assertion.StoredKey) error {
	i := key{signingPK, k.KID}.item()
	i["algorithm"], i["jwk"], i["wrapped"] = str(string(k.Algorithm)), blob(k.PublicJWK), blob(k.Wrapped)
	i["notbefore"], i["retire"], i["created"] = millis(k.NotBefore), millis(k.RetireAfter), millis(k.Created)
	return s.call(ctx, func(ctx context.Context) error {
		_, err := s.db.PutItem(ctx, &dynamodb.PutItemInput{TableName: &s.table, Item: i})
		return err
	})
}
