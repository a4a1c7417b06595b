package dynamostore

import (
	"context"
	"maps"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// KeepVerified implements registry.Prover. The value lies inside the slot of
// the credential, so that it goes when that is put anew.
func (s *Store) KeepVerified(ctx context.Context, tenant iot.TenantID, credentialType, authID string, v registry.Verified) error {
	st, err := s.readState(ctx, tenant)
	if err != nil || !st.live {
		return err
	}
	k := authKey(tenant, st.epoch, credentialType, authID)
	i, err := s.get(ctx, k)
	if err != nil {
		return err
	}
	for _, sl := range slots(i) {
		if err := s.keep(ctx, k, slotPrefix+sl.generation, &v); err != nil {
			return err
		}
	}
	return nil
}

// keep writes beside one slot, where that is still there.
func (s *Store) keep(ctx context.Context, k key, name string, v *registry.Verified) error {
	value := &types.AttributeValueMemberM{Value: item{"mac": blob(v.MAC), "until": millis(v.Until)}}
	err := s.call(ctx, func(ctx context.Context) error {
		_, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: &s.table, Key: k.item(),
			UpdateExpression:          aws.String("SET #slot.verified.#secret = :v"),
			ConditionExpression:       aws.String("attribute_exists(#slot)"),
			ExpressionAttributeNames:  map[string]string{"#slot": name, "#secret": secretName(v.SecretID)},
			ExpressionAttributeValues: item{":v": value},
		})
		return err
	})
	if hasCode(err, "ConditionalCheckFailedException") {
		return nil
	}
	return err
}

// secretName keeps a secret's id from being an empty attribute name.
func secretName(id string) string { return "i" + id }

func decodeVerified(m item) []registry.Verified {
	var all []registry.Verified
	for _, name := range slices.Sorted(maps.Keys(m)) {
		v := m.sub(name)
		all = append(all, registry.Verified{SecretID: name[1:], MAC: v.bytes("mac"), Until: v.time("until")})
	}
	return all
}
