package dynamostore

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// key is the primary key of an item. See the table in the package's comment.
type key struct{ pk, sk string }

func (k key) item() item { return item{"pk": str(k.pk), "sk": str(k.sk)} }

const (
	// DynamoDB limits a partition key to 2048 bytes and a sort key to 1024.
	maxPK, maxSK = 2048, 1024
	// expiryShards is over how many keys the list of what expires is spread.
	expiryShards = 8
)

var (
	metaKey     = key{"meta", "schema"}
	tenantsPK   = "tenants"
	escapeParts = strings.NewReplacer("%", "%25", "#", "%23")
)

// join makes one string of parts, so that different parts never make the same
// one. What DynamoDB would refuse as too long becomes a digest.
func join(kind string, parts ...string) string {
	var b strings.Builder
	b.WriteString(kind)
	for _, p := range parts {
		b.WriteByte('#')
		escapeParts.WriteString(&b, p)
	}
	if b.Len() <= maxPK {
		return b.String()
	}
	return kind + "##" + digest(b.String())
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// storable refuses what cannot be a sort key.
func storable(t iot.TenantID) error {
	if t == "" || len(t) > maxSK || !utf8.ValidString(string(t)) {
		return iot.Errorf(iot.ErrInvalid, "the tenant's id has %d bytes, want 1 to %d of UTF-8", len(t), maxSK)
	}
	return nil
}

func tenantKey(t iot.TenantID) key { return key{tenantsPK, string(t)} }

func statesPK(t iot.TenantID) string { return join("p", string(t)) }

func stateKey(k eventstore.Key) key {
	return key{statesPK(k.Tenant), fmt.Sprintf("%05d-%05d", k.Partition.Generation, k.Partition.Number)}
}

func partitionOf(sk string) (id eventstore.PartitionID, err error) {
	err = id.UnmarshalText([]byte(sk))
	return id, err
}

func batchesPK(k eventstore.Key) string { return join("b", string(k.Tenant), k.Partition.String()) }
func deadPK(k eventstore.Key) string    { return join("l", string(k.Tenant), k.Partition.String()) }

// position has leading zeros, so that bytes order as numbers.
func position(n uint64) string { return fmt.Sprintf("%020d", n) }

func shardPK(shard int) string { return "expiry#" + strconv.Itoa(shard) }

// expiryKey is where it is noted that a partition has batches that expire in
// an hour, none before.
func expiryKey(k eventstore.Key, hour int64) key {
	name := join(string(k.Tenant), k.Partition.String())
	h := fnv.New32a()
	h.Write([]byte(name))
	return key{shardPK(int(h.Sum32() % expiryShards)), fmt.Sprintf("%010d#%s", hour, digest(name))}
}

// item is an item, or its key.
type item map[string]types.AttributeValue

func (i item) key() key { return key{i.str("pk"), i.str("sk")} }

func str(v string) types.AttributeValue  { return &types.AttributeValueMemberS{Value: v} }
func blob(v []byte) types.AttributeValue { return &types.AttributeValueMemberB{Value: v} }
func number[N int | int64 | uint64 | uint16](v N) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: fmt.Sprint(v)}
}

func (i item) str(name string) string {
	if v, ok := i[name].(*types.AttributeValueMemberS); ok {
		return v.Value
	}
	return ""
}

func (i item) num(name string) int64 {
	if v, ok := i[name].(*types.AttributeValueMemberN); ok {
		n, _ := strconv.ParseInt(v.Value, 10, 64) // we wrote it
		return n
	}
	return 0
}

func (i item) position(name string) uint64 {
	if v, ok := i[name].(*types.AttributeValueMemberN); ok {
		n, _ := strconv.ParseUint(v.Value, 10, 64)
		return n
	}
	return 0
}

func (i item) bytes(name string) []byte {
	if v, ok := i[name].(*types.AttributeValueMemberB); ok {
		return v.Value
	}
	return nil
}
