package downstream

import (
	"encoding/binary"
	"encoding/json"
	"strconv"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
)

// What an announcement holds at most, be it less where the router takes less.
const (
	maxAnnouncement = 60 << 10
	maxRows         = 1000
	maxVias         = 100
	maxID           = 256 // bytes of a tenant or device id
)

// via says that a gateway acted for a device.
type via struct {
	deviceKey
	gateway iot.DeviceID
}

// announcement makes the messages of device_directory: one data section with
//
//	{"adapter":"A","reset":true,"set":[["T","D",at,until,"hono-mqtt",1]],"drop":[["T","D"]],"via":[["T","D","G"]]}
//
// where times are Unix ms and members without content are left out.
type announcement struct {
	out, set, drop, via []byte
	limit               int // bytes of the whole message
	left                int // rows that may still be added
}

// begin begins a message of at most limit bytes.
func (a *announcement) begin(adapter string, reset bool, limit int) {
	a.limit, a.left = limit, maxRows
	a.set, a.drop, a.via = a.set[:0], a.drop[:0], a.via[:0]
	a.out = amqp.AppendDescriptor(a.out[:0], amqp.DescData)
	a.out = append(a.out, 0xb0, 0, 0, 0, 0) // the size follows
	a.out = appendJSON(append(a.out, `{"adapter":`...), adapter)
	if reset {
		a.out = append(a.out, `,"reset":true`...)
	}
}

// frame is what the members take around their rows.
const frame = len(`,"set":[],"drop":[],"via":[]}`)

func (a *announcement) fits() bool {
	return len(a.out)+len(a.set)+len(a.drop)+len(a.via)+frame <= a.limit
}

// rows adds as many as there is room for, and returns how many. Rows that no router
// takes are left out: with one of them it takes nothing of a message.
func (a *announcement) rows(rows []adapters.Announcement) int {
	rows = rows[:min(len(rows), a.left)]
	for i := range rows {
		if !isID(rows[i].Tenant) || !isID(rows[i].Device) {
			continue
		}
		set, drop := len(a.set), len(a.drop)
		a.row(&rows[i])
		if !a.fits() {
			a.set, a.drop = a.set[:set], a.drop[:drop]
			a.left -= i
			return i
		}
	}
	a.left -= len(rows)
	return len(rows)
}

// isID reports whether routers take an id.
func isID[T ~string](id T) bool { return id != "" && len(id) <= maxID }

func (a *announcement) row(r *adapters.Announcement) {
	if r.Gone {
		a.drop = append(appendPair(a.drop, r.Tenant, r.Device), "],"...)
		return
	}
	b := append(appendPair(a.set, r.Tenant, r.Device), ',')
	b = append(strconv.AppendInt(b, r.At, 10), ',')
	b = append(strconv.AppendInt(b, r.Until, 10), ',')
	b = appendJSON(b, r.Adapter)
	if r.All {
		b = append(b, ",1],"...)
	} else {
		b = append(b, ",0],"...)
	}
	a.set = b
}

// vias adds as many as there is room for, and returns how many.
func (a *announcement) vias(vias []via) int {
	vias = vias[:min(len(vias), maxVias, a.left)]
	for i, v := range vias {
		if !isID(v.tenant) || !isID(v.device) || !isID(v.gateway) {
			continue
		}
		n := len(a.via)
		b := append(appendPair(a.via, v.tenant, v.device), ',')
		a.via = append(appendJSON(b, string(v.gateway)), "],"...)
		if !a.fits() {
			a.via = a.via[:n]
			return i
		}
	}
	return len(vias)
}

// message ends the message.
func (a *announcement) message() []byte {
	b := a.out
	for _, m := range [...]struct {
		name string
		rows []byte
	}{{`,"set":[`, a.set}, {`,"drop":[`, a.drop}, {`,"via":[`, a.via}} {
		if n := len(m.rows); n > 0 {
			b = append(append(append(b, m.name...), m.rows[:n-1]...), ']') // without the last comma
		}
	}
	b = append(b, '}')
	const at = 4 // behind descriptor and constructor
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	a.out = b
	return b
}

func appendPair(b []byte, tenant iot.TenantID, device iot.DeviceID) []byte {
	b = append(appendJSON(append(b, '['), string(tenant)), ',')
	return appendJSON(b, string(device))
}

// appendJSON appends s as a JSON string.
func appendJSON(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil { // there is no string of which this is true
				quoted = []byte(`""`)
			}
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
