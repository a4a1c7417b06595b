package dynamostore

import (
	"encoding/json"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// device is a device's item.
type device struct {
	rec         registry.DeviceRecord
	doc         []byte // of rec.Device
	credentials string // version of the set of credentials
	generation  string // names the put that made the set; "" = never put
	refs        []ref  // the set, in the order it was put
	index       []string
	mark        string // of the last reindexing since the item was written
	sequence    uint64 // of the change that wrote the item
}

// ref names a credential of a device.
type ref struct{ Type, AuthID string }

// MarshalJSON implements [json.Marshaler]: a pair.
func (r ref) MarshalJSON() ([]byte, error) { return json.Marshal([2]string{r.Type, r.AuthID}) }

// UnmarshalJSON implements [json.Unmarshaler].
func (r *ref) UnmarshalJSON(b []byte) error {
	var pair [2]string
	err := json.Unmarshal(b, &pair)
	r.Type, r.AuthID = pair[0], pair[1]
	return err
}

func (d *device) item() (item, error) {
	i := item{
		"doc": blob(d.doc), "version": str(d.rec.Version), "q": number(int64(d.sequence)),
		"created": millis(d.rec.Status.Created.Time), "updated": millis(d.rec.Status.Updated.Time),
		"cversion": str(d.credentials),
	}
	if d.rec.Status.AutoProvisioned {
		i["provisioned"] = flag(true)
	}
	if d.rec.Status.AutoProvisioningNotificationSent {
		i["notified"] = flag(true)
	}
	if d.generation != "" {
		i["generation"] = str(d.generation)
	}
	if len(d.refs) > 0 {
		refs, err := json.Marshal(d.refs)
		if err != nil {
			return nil, err
		}
		i["refs"] = blob(refs)
	}
	if len(d.index) > 0 {
		i["index"] = strs(d.index)
	}
	return i, nil
}

func decodeDevice(t iot.TenantID, i item) (*device, error) {
	d := &device{
		doc: i.bytes("doc"), credentials: i.str("cversion"), generation: i.str("generation"),
		index: i.strs("index"), mark: i.str("marked"), sequence: uint64(i.num("q")),
	}
	d.rec = registry.DeviceRecord{Tenant: t, ID: iot.DeviceID(i.str("sk")), Version: i.str("version"), Status: iot.DeviceStatus{
		Created: iot.Timestamp{Time: i.time("created")}, Updated: iot.Timestamp{Time: i.time("updated")},
		AutoProvisioned: i.flag("provisioned"), AutoProvisioningNotificationSent: i.flag("notified"),
	}}
	if refs := i.bytes("refs"); refs != nil {
		if err := decode(refs, &d.refs); err != nil {
			return nil, err
		}
	}
	return d, decode(d.doc, &d.rec.Device)
}

// groups returns the groups that the device is member of, each once.
func (d *device) groups() []string {
	groups := slices.Clone([]string(d.rec.Device.MemberOf))
	slices.Sort(groups)
	return slices.Compact(groups)
}

// slotPrefix begins the attributes of an auth-id's item that hold a
// credential; the rest of the name is the generation that it belongs to.
const slotPrefix = "s:"

// slot is one credential beside the device that put it. It counts only
// while the device is there and has the same generation. So one write to the
// device replaces its whole set, whatever its size, and what is left over of an
// older set needs no cleaning up to be gone.
type slot struct {
	device     iot.DeviceID
	generation string
	doc        []byte
	verified   item // by the ids of secrets
}

func slotItem(d iot.DeviceID, doc []byte) types.AttributeValue {
	return &types.AttributeValueMemberM{Value: item{"device": str(string(d)), "doc": blob(doc),
		"verified": &types.AttributeValueMemberM{Value: item{}}}}
}

// slots returns what an auth-id's item holds.
func slots(i item) []slot {
	var all []slot
	for name := range i {
		if len(name) > len(slotPrefix) && name[:len(slotPrefix)] == slotPrefix {
			m := i.sub(name)
			all = append(all, slot{device: iot.DeviceID(m.str("device")), generation: name[len(slotPrefix):],
				doc: m.bytes("doc"), verified: m.sub("verified")})
		}
	}
	return all
}

// slotOf returns the slot of a generation, or nil.
func slotOf(i item, generation string) *slot {
	if m := i.sub(slotPrefix + generation); m != nil {
		return &slot{device: iot.DeviceID(m.str("device")), generation: generation, doc: m.bytes("doc"), verified: m.sub("verified")}
	}
	return nil
}
