package dynamostore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

const (
	// maxPath is the longest path of an index, in bytes.
	maxPath = 512
	// maxEntryID is the longest device id that a key of an index holds as it is.
	maxEntryID = 400
)

var (
	pointerParts   = strings.NewReplacer("~", "~0", "/", "~1")
	pointerMembers = strings.NewReplacer("~1", "/", "~0", "~")
	// textParts keeps the zero byte for what separates a value from a device.
	textParts = strings.NewReplacer("\x00", "\x01\x01", "\x01", "\x01\x02")
)

// pointer names a path in an index: an RFC 6901 pointer.
func pointer(path []string) string {
	var b strings.Builder
	for _, member := range path {
		b.WriteByte('/')
		pointerParts.WriteString(&b, member)
	}
	return b.String()
}

func pathOf(pointer string) []string {
	members := strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	for i := range members {
		members[i] = pointerMembers.Replace(members[i])
	}
	return members
}

// indexEntries returns what the indexes say of a device: for every path the
// values there, each as pointer, a zero byte and the text of the value.
func indexEntries(pointers []string, d *device) []string {
	var entries []string
	for _, p := range pointers {
		for _, text := range registry.IndexValues(d.doc, pathOf(p)) {
			entries = append(entries, p+"\x00"+textParts.Replace(text))
		}
	}
	slices.Sort(entries)
	return slices.Compact(entries)
}

// entryKey is where an entry of a device lies: in the partition of its path,
// ordered by value and then by device.
func entryKey(t iot.TenantID, epoch int64, entry string, d iot.DeviceID) key {
	p, text, _ := strings.Cut(entry, "\x00")
	return key{indexPK(t, epoch, p), text + "\x00" + entryID(d)}
}

func indexPK(t iot.TenantID, epoch int64, pointer string) string {
	return join("i", strconv.FormatInt(epoch, 10), string(t), pointer)
}

// entryID is the device's id, or a digest of one that is too long for the
// key: it orders last, and the item has the id as an attribute.
func entryID(d iot.DeviceID) string {
	if len(d) <= maxEntryID {
		return string(d)
	}
	sum := sha256.Sum256([]byte(d))
	return "\U0010ffff" + hex.EncodeToString(sum[:])
}

// entryItem is what an item in a group or an index holds.
func entryItem(k key, d *device) item {
	i := item{"q": number(int64(d.sequence))}
	if !strings.HasSuffix(k.sk, string(d.rec.ID)) {
		i["device"] = str(string(d.rec.ID))
	}
	return i
}

// entryDevice is the device of an index entry.
func entryDevice(i item) iot.DeviceID {
	if id := i.str("device"); id != "" {
		return iot.DeviceID(id)
	}
	_, id, _ := strings.Cut(i.str("sk"), "\x00")
	return iot.DeviceID(id)
}

// Pending are the pointers of the indexes that [Store.Reindex] has to complete,
// as they were when the table was opened.
func (s *Store) Pending() (pointers []string) {
	for _, p := range s.indexes {
		if !slices.ContainsFunc(s.ready, func(path []string) bool { return pointer(path) == p }) {
			pointers = append(pointers, p)
		}
	}
	return pointers
}

// Reindex completes the indexes of the paths in Options.Indexes that were
// added to a table with devices in it. Searches use such a path in processes
// that open the table after that; until then they read documents. Every
// process that writes must have been started with the path declared somewhere
// before Reindex begins: opening a table records what is declared, and all
// that open it later write those indexes too.
func (s *Store) Reindex(ctx context.Context) error {
	var tenants []iot.TenantID
	_, err := s.query(ctx, question{pk: tenantsPK}, func(i item) (bool, error) {
		tenants = append(tenants, iot.TenantID(i.str("sk"))) // also those whose devices outlive them
		return false, nil
	})
	for _, t := range tenants {
		if err == nil {
			err = s.reindexTenant(ctx, t)
		}
	}
	if err == nil {
		err = s.addMeta(ctx, "ready", s.indexes)
	}
	return err
}

func (s *Store) reindexTenant(ctx context.Context, t iot.TenantID) error {
	st, err := s.readState(ctx, t)
	if err != nil {
		return err
	}
	for after := iot.DeviceID(""); ; {
		devices, err := s.page(ctx, t, st.epoch, after, 100)
		if err != nil || len(devices) == 0 {
			return err
		}
		for _, d := range devices {
			if err := s.reindexDevice(ctx, st.epoch, d); err != nil {
				return err
			}
		}
		after = devices[len(devices)-1].rec.ID
	}
}

// reindexDevice brings the entries of one device in line. The mark that it
// leaves makes a change that read the device before fail and read it again.
func (s *Store) reindexDevice(ctx context.Context, epoch int64, d *device) error {
	t := d.rec.Tenant
	for try := 0; ; try++ {
		entries := indexEntries(s.indexes, d)
		if slices.Equal(entries, sortedStrings(d.index)) {
			return nil
		}
		_, err := s.transact(ctx, s.reindexWrites(epoch, d, entries), newToken())
		if err == nil {
			return nil
		}
		if err != errTaken && err != errBusy && err != errMoved {
			return err
		}
		if err := s.pause(ctx, try); err != nil {
			return err
		}
		i, err := s.get(ctx, deviceKey(t, epoch, d.rec.ID))
		if err != nil || i == nil {
			return err
		}
		if d, err = decodeDevice(t, i); err != nil {
			return err
		}
	}
}

func sortedStrings(all []string) []string {
	all = slices.Clone(all)
	slices.Sort(all)
	return all
}

func (s *Store) reindexWrites(epoch int64, d *device, entries []string) []types.TransactWriteItem {
	t := d.rec.Tenant
	update := &types.Update{TableName: &s.table, Key: deviceKey(t, epoch, d.rec.ID).item(),
		UpdateExpression:          aws.String("REMOVE #index SET marked = :mark"),
		ConditionExpression:       aws.String("q = :q"),
		ExpressionAttributeNames:  map[string]string{"#index": "index"},
		ExpressionAttributeValues: item{":q": number(int64(d.sequence)), ":mark": str(newToken())}}
	if len(entries) > 0 {
		update.UpdateExpression = aws.String("SET marked = :mark, #index = :index")
		update.ExpressionAttributeValues[":index"] = strs(entries)
	}
	writes := []types.TransactWriteItem{{Update: update}}
	for _, e := range d.index {
		if !slices.Contains(entries, e) {
			writes = append(writes, types.TransactWriteItem{Delete: &types.Delete{TableName: &s.table, Key: entryKey(t, epoch, e, d.rec.ID).item()}})
		}
	}
	for _, e := range entries {
		if !slices.Contains(d.index, e) {
			k := entryKey(t, epoch, e, d.rec.ID)
			i := entryItem(k, d)
			i["pk"], i["sk"] = str(k.pk), str(k.sk)
			writes = append(writes, types.TransactWriteItem{Put: &types.Put{TableName: &s.table, Item: i}})
		}
	}
	return writes
}
