package dynamostore

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/sluice-iot/sluice/internal/iot"
)

// key is the primary key of an item. See the table in the package's comment.
type key struct{ pk, sk string }

func (k key) item() item { return item{"pk": str(k.pk), "sk": str(k.sk)} }

const (
	only = "-" // the sort key of items that are alone in their partition

	// DynamoDB limits a partition key to 2048 bytes and a sort key to 1024.
	maxPK, maxSK = 2048, 1024
)

var (
	metaKey     = key{"meta", "schema"}
	tenantsPK   = "tenants"
	garbagePK   = "garbage"
	signingPK   = "signing-keys"
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
	sum := sha256.Sum256([]byte(b.String()))
	return kind + "##" + hex.EncodeToString(sum[:])
}

func counterKey(t iot.TenantID) key { return key{join("t", string(t)), "counter"} }
func tenantKey(t iot.TenantID) key  { return key{join("t", string(t)), "tenant"} }
func listKey(t iot.TenantID) key    { return key{tenantsPK, string(t)} }

// nameKey claims an id or an alias: one space of names.
func nameKey(name string) key { return key{join("n", name), only} }
func anchorKey(dn string) key { return key{join("x", dn), only} }

func devicesPK(t iot.TenantID, epoch int64) string {
	return join("d", strconv.FormatInt(epoch, 10), string(t))
}

func deviceKey(t iot.TenantID, epoch int64, d iot.DeviceID) key {
	return key{devicesPK(t, epoch), string(d)}
}

func authKey(t iot.TenantID, epoch int64, credentialType, authID string) key {
	return key{join("a", strconv.FormatInt(epoch, 10), string(t), credentialType, authID), only}
}

func groupPK(t iot.TenantID, epoch int64, group string) string {
	return join("m", strconv.FormatInt(epoch, 10), string(t), group)
}

func feedPK(t iot.TenantID) string { return join("f", string(t)) }

// feedKey has the sequence with leading zeros, so that bytes order as numbers.
func feedKey(t iot.TenantID, sequence uint64) key {
	return key{feedPK(t), fmt.Sprintf("%020d", sequence)}
}

// hourOf names the bucket of a time: 2026-03-01T12.
func hourOf(at time.Time) string { return at.UTC().Format("2006-01-02T15") }

func hourKey(hour string, t iot.TenantID) key { return key{join("h", hour), string(t)} }

func garbageKey(t iot.TenantID, epoch int64) key {
	return key{garbagePK, strconv.FormatInt(epoch, 10) + "#" + string(t)}
}

// storable reports whether a name can be a sort key. One that cannot is not
// in the table.
func storable(name string) bool { return name != "" && len(name) <= maxSK }

// item is an item, or its key.
type item map[string]types.AttributeValue

func (i item) key() key { return key{i.str("pk"), i.str("sk")} }

func str(v string) types.AttributeValue    { return &types.AttributeValueMemberS{Value: v} }
func flag(v bool) types.AttributeValue     { return &types.AttributeValueMemberBOOL{Value: v} }
func strs(v []string) types.AttributeValue { return &types.AttributeValueMemberSS{Value: v} }
func number(v int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(v, 10)}
}

// blob keeps nil as no bytes, which is a value.
func blob(v []byte) types.AttributeValue {
	if v == nil {
		v = []byte{}
	}
	return &types.AttributeValueMemberB{Value: v}
}

func millis(t time.Time) types.AttributeValue {
	if t.IsZero() {
		return number(0)
	}
	return number(t.UnixMilli())
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

func (i item) time(name string) time.Time {
	ms := i.num(name)
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func (i item) flag(name string) bool {
	v, ok := i[name].(*types.AttributeValueMemberBOOL)
	return ok && v.Value
}

func (i item) bytes(name string) []byte {
	if v, ok := i[name].(*types.AttributeValueMemberB); ok {
		return v.Value
	}
	return nil
}

func (i item) strs(name string) []string {
	if v, ok := i[name].(*types.AttributeValueMemberSS); ok {
		return v.Value
	}
	return nil
}

func (i item) sub(name string) item {
	if v, ok := i[name].(*types.AttributeValueMemberM); ok {
		return v.Value
	}
	return nil
}

// size is about what DynamoDB counts for an item: the bytes of its names and values.
func (i item) size() int {
	n := 0
	for name, v := range i {
		n += len(name) + sizeOf(v)
	}
	return n
}

func sizeOf(v types.AttributeValue) int {
	switch v := v.(type) {
	case *types.AttributeValueMemberS:
		return len(v.Value)
	case *types.AttributeValueMemberB:
		return len(v.Value)
	case *types.AttributeValueMemberN:
		return len(v.Value)/2 + 2
	case *types.AttributeValueMemberSS:
		n := 3
		for _, s := range v.Value {
			n += len(s) + 1
		}
		return n
	case *types.AttributeValueMemberM:
		return 3 + len(v.Value) + item(v.Value).size()
	}
	return 1
}
