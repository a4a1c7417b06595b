package manage

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/router/forward"
)

var looked = []string{Read}

// entityTypes are what there is to see.
var entityTypes = []*entityType{
	{
		name: "router", operations: looked, keys: routerKeys, read: readRouter,
		attributes: []string{"version", "startedAt", "uptimeSeconds", "draining", "connectionCount", "linkCount", "addressCount",
			"surplusCount", "forwardedCount", "rejectedCount", "releasedCount", "droppedCount", "overrunCount"},
	},
	{
		name: "listener", operations: looked, keys: listenerKeys, read: readListener,
		attributes: []string{"address", "role", "isEncrypted", "saslMechanisms", "connectionCount", "acceptedCount"},
	},
	{
		name: "connection", operations: []string{Read, Delete}, keys: connectionKeys, read: readConnection, remove: closeConnection,
		attributes: []string{"container", "host", "dir", "user", "kind", "sasl", "isEncrypted", "openedAt", "uptimeSeconds",
			"sessionCount", "linkCount", "unsettledCount", "bytesIn", "bytesOut", "unsentBytes", "heldBytes"},
	},
	{
		name: "link", operations: looked, keys: linkKeys, read: readLink,
		attributes: []string{"connection", "session", "handle", "linkName", "linkDir", "owningAddr", "user", "credit", "drain",
			"unsettledCount", "deliveryCount", "sndSettleMode", "rcvSettleMode"},
	},
	{
		name: "address", operations: looked, keys: addressKeys, read: readAddress,
		attributes: []string{"distribution", "senderCount", "receiverCount", "surplusCount", "givenCredit", "grantedCredit",
			"forwardedCount", "rejectedCount", "releasedCount", "droppedCount", "overrunCount"},
	},
	{
		name: "identity", operations: looked, keys: identityKeys, read: readIdentity,
		attributes: []string{"kind", "connectionCount", "maxConnections", "maxSessions", "maxLinks", "maxMessageSize", "authorities"},
	},
}

func timestamp(t time.Time) amqp.Timestamp { return amqp.TimestampOf(t) }

func seconds(since time.Time) int64 { return int64(time.Since(since) / time.Second) }

func routerKeys(v *view) []string { return []string{v.node.o.Name} }

func readRouter(v *view, key string) ([]any, bool) {
	o := &v.node.o
	if key != o.Name {
		return nil, false
	}
	links := 0
	for _, c := range v.connections() {
		c.Conn.Lock()
		_, n := c.Conn.Engine().Sizes()
		c.Conn.Unlock()
		links += n
	}
	addresses, surplus := 0, 0
	o.Router.Addresses(nil, func(a forward.AddressInfo) {
		addresses++
		surplus += a.Surplus
	})
	s := o.Router.Stats()
	return []any{o.Version, timestamp(o.Started), seconds(o.Started), o.Router.Draining(), int64(len(v.connections())), int64(links),
		int64(addresses), int64(surplus), s.Forwarded, s.Rejected, s.Released, s.Dropped, s.Overrun}, true
}

// listenerName is the role and the address.
func listenerName(l *Listener) string { return l.Role + "/" + l.Address }

func listenerKeys(v *view) []string {
	var keys []string
	for _, l := range v.node.o.Listeners() {
		keys = append(keys, listenerName(&l))
	}
	slices.Sort(keys)
	return keys
}

func readListener(v *view, key string) ([]any, bool) {
	for _, l := range v.node.o.Listeners() {
		if listenerName(&l) == key {
			return []any{l.Address, l.Role, l.TLS, listOf(l.Mechanisms), l.Open, l.Accepted}, true
		}
	}
	return nil, false
}

func connectionKeys(v *view) []string {
	keys := make([]string, 0, len(v.connections()))
	for _, c := range v.order {
		keys = append(keys, strconv.FormatUint(c.ID, 10))
	}
	return keys
}

func (v *view) connectionOf(key string) (forward.ConnInfo, bool) {
	id, err := strconv.ParseUint(key, 10, 64)
	if err != nil {
		return forward.ConnInfo{}, false
	}
	return v.connection(id)
}

// user is who the peer of a connection is.
func user(c *peer.Conn) (name, kind string) {
	if id, _ := c.Identity().(*auth.Identity); id != nil {
		return id.Name, string(id.Kind)
	}
	return "", ""
}

func readConnection(v *view, key string) ([]any, bool) {
	c, ok := v.connectionOf(key)
	if !ok {
		return nil, false
	}
	name, kind := user(c.Conn)
	info := c.Conn.Info()
	c.Conn.Lock()
	e := c.Conn.Engine()
	sessions, links := e.Sizes()
	in, out := e.Bytes()
	container, sasl, unsettled, unsent := e.Remote().ContainerID, string(e.Mechanism()), e.Unsettled(), e.Unsent()
	c.Conn.Unlock()
	return []any{container, info.RemoteAddr, "in", name, kind, sasl, info.TLS, timestamp(c.Opened), seconds(c.Opened),
		int64(sessions), int64(links), int64(unsettled), int64(in), int64(out), int64(unsent), int64(c.Conn.Held())}, true
}

func closeConnection(v *view, key string) status {
	c, ok := v.connectionOf(key)
	if !ok {
		return failed(404, "no connection %.64q", key)
	}
	by, _ := user(v.asker)
	name, _ := user(c.Conn)
	v.node.o.Logger.Info("connection closed by an operator", "connection", c.ID, "user", name, "remote", c.Conn.Info().RemoteAddr, "by", by)
	v.after = func() {
		c.Conn.Close(&amqp.Error{Condition: amqp.CondConnectionForced, Description: "closed by an operator"})
	}
	return status{204, "No Content"}
}

// A link's identity is connection/session/handle.
func linkKeys(v *view) []string {
	var keys []string
	for _, c := range v.connections() {
		c.Conn.Lock()
		links := c.Conn.Engine().LinkIDs()
		c.Conn.Unlock()
		slices.SortFunc(links, func(a, b peer.LinkID) int {
			return cmp.Or(cmp.Compare(a.Channel, b.Channel), cmp.Compare(a.Handle, b.Handle))
		})
		for _, l := range links {
			keys = append(keys, fmt.Sprintf("%d/%d/%d", c.ID, l.Channel, l.Handle))
		}
	}
	return keys
}

func readLink(v *view, key string) ([]any, bool) {
	id, rest, _ := strings.Cut(key, "/")
	channel, handle, _ := strings.Cut(rest, "/")
	c, ok := v.connectionOf(id)
	ch, err1 := strconv.ParseUint(channel, 10, 16)
	h, err2 := strconv.ParseUint(handle, 10, 32)
	if !ok || err1 != nil || err2 != nil {
		return nil, false
	}
	name, _ := user(c.Conn)
	c.Conn.Lock()
	defer c.Conn.Unlock()
	l := c.Conn.Engine().Link(peer.LinkID{Channel: uint16(ch), Handle: uint32(h)})
	if l == nil {
		return nil, false
	}
	dir := "in"
	if l.Role() == amqp.RoleSender {
		dir = "out"
	}
	return []any{id, int64(ch), int64(h), l.Name(), dir, shown(forward.LinkAddress(l)), name, int64(l.Credit()), l.Drain(),
		int64(l.Unsettled()), int64(l.DeliveryCount()), l.SenderSettleMode().String(), l.ReceiverSettleMode().String()}, true
}

// shown hides the random part of a dynamic address, which is all that is needed
// to send to it, behind a digest.
func shown(address string) string {
	if !forward.IsDynamic(address) {
		return address
	}
	sum := sha256.Sum256([]byte(address))
	prefix, _, _ := strings.Cut(address, "/")
	return prefix + "/#" + hex.EncodeToString(sum[:8])
}

func addressKeys(v *view) []string {
	keys := v.node.o.Router.AddressNames()
	v.dynamic = map[string]string{}
	for i, k := range keys {
		if forward.IsDynamic(k) {
			keys[i] = shown(k)
			v.dynamic[keys[i]] = k
		}
	}
	return keys
}

// addressName turns what was shown back into the name.
func (v *view) addressName(key string) (string, bool) {
	if !forward.IsDynamic(key) {
		return key, true
	}
	if v.dynamic == nil {
		addressKeys(v)
	}
	name, ok := v.dynamic[key]
	return name, ok
}

var distributions = map[forward.Distribution]string{
	forward.Balanced: "balanced", forward.Closest: "closest", forward.Multicast: "multicast",
	forward.Closed: "closed", forward.Local: "local", forward.Stored: "stored",
}

func readAddress(v *view, key string) ([]any, bool) {
	name, ok := v.addressName(key)
	if !ok {
		return nil, false
	}
	a, ok := v.node.o.Router.Address(name)
	if !ok {
		return nil, false
	}
	return []any{distributions[a.Distribution], int64(a.Senders), int64(a.Receivers), int64(a.Surplus), int64(a.Given), int64(a.Granted),
		a.Counts.Forwarded, a.Counts.Rejected, a.Counts.Released, a.Counts.Dropped, a.Counts.Overrun}, true
}

// connected is an identity and how many connections it has.
type connected struct {
	identity    *auth.Identity
	connections int
}

func (v *view) identities() map[string]*connected {
	if v.users == nil {
		v.users = map[string]*connected{}
		for _, c := range v.connections() {
			id, _ := c.Conn.Identity().(*auth.Identity)
			if id == nil {
				continue
			}
			u := v.users[id.Name]
			if u == nil {
				u = &connected{}
				v.users[id.Name] = u
			}
			u.identity = id // the latest: it may have been changed since
			u.connections++
		}
	}
	return v.users
}

func identityKeys(v *view) []string { return slices.Sorted(maps.Keys(v.identities())) }

func readIdentity(v *view, key string) ([]any, bool) {
	u := v.identities()[key]
	if u == nil {
		return nil, false
	}
	authorities := amqp.List{}
	for _, a := range u.identity.Authorities() {
		if a.Operation != "" {
			authorities = append(authorities, "execute "+a.Operation)
		} else {
			authorities = append(authorities, a.May.String()+" "+a.Address)
		}
	}
	l := &u.identity.Limits
	return []any{string(u.identity.Kind), int64(u.connections), int64(l.Connections), int64(l.Sessions), int64(l.Links),
		int64(l.MessageSize), authorities}, true
}
