package mqtt

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	maxClientID = 1024  // bytes; it is kept as long as the connection
	maxReceive  = 65535 // the largest Receive Maximum
	unsupported = 1     // return code of MQTT 3.1.1: unacceptable protocol version
)

var (
	errRefused = errors.New("connection refused") // the CONNACK said why
	errVersion = errors.New("unsupported protocol version: want MQTT 3.1.1 or 5")
)

// welcome takes the CONNECT and answers it (contract: adapters 8.2, 8.3).
func (c *conn) welcome(ctx context.Context) error {
	h, body, err := c.next(maxConnect)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errNotInTime
	case err != nil:
		return err
	case h.Type != packets.Connect:
		return errFirstPacket
	}
	if c.version, err = protocolVersion(body); errors.Is(err, errVersion) {
		c.refuse(connack{unsupported, unsupported}, "", err)
		return errRefused
	} else if err != nil {
		return err
	}
	pk := packets.Packet{FixedHeader: h.FixedHeader}
	if err := c.decode(&pk, body); err != nil {
		return c.refused(err)
	}
	if err := c.check(&pk); err != nil {
		return c.refused(err)
	}
	if err := c.enter(ctx, &pk.Connect); err != nil {
		return c.refused(err)
	}
	assigned := c.identify(&pk)
	if err := c.tellConnected(ctx); err != nil {
		return c.refused(err)
	}
	c.accept(&pk, assigned)
	return nil
}

// protocolVersion reads the level of a CONNECT, which decides how the rest of
// it is read.
func protocolVersion(body []byte) (byte, error) {
	name, level := "", byte(0)
	if len(body) > 2 {
		if n := int(binary.BigEndian.Uint16(body)); n <= 6 && len(body) > 2+n {
			name, level = string(body[2:2+n]), body[2+n]
		}
	}
	switch {
	case name == "MQTT" && (level == 4 || level == 5), name == "MQIsdp" && level == 3:
		return level, nil
	case name == "MQTT", name == "MQIsdp":
		return 0, errVersion
	}
	return 0, errFirstPacket
}

// check finds what is wrong with a CONNECT by itself and takes over what it
// says about the connection. An empty password and an empty will are allowed.
func (c *conn) check(pk *packets.Packet) error {
	p, id := &pk.Connect, pk.Connect.ClientIdentifier
	switch {
	case pk.ReservedBit != 0:
		return &fault{packets.ErrProtocolViolation.Code, "reserved flag of CONNECT is set"}
	case p.WillQos > 2 || !p.WillFlag && (p.WillQos > 0 || p.WillRetain):
		return &fault{packets.ErrProtocolViolation.Code, "will flags contradict each other"}
	case pk.Properties.AuthenticationMethod != "":
		return &fault{packets.ErrBadAuthenticationMethod.Code, "enhanced authentication is not available"}
	case len(id) > maxClientID:
		return &fault{packets.ErrClientIdentifierNotValid.Code, "client identifier has more than 1024 bytes"}
	case id == "" && c.version < 5 && !p.Clean:
		return &fault{packets.ErrClientIdentifierNotValid.Code, "client identifier is empty and Clean Session is not set"}
	}
	c.keepAlive = time.Duration(p.Keepalive) * time.Second
	if c.version == 5 {
		c.quiet = pk.Properties.RequestProblemInfoFlag && pk.Properties.RequestProblemInfo == 0
		c.maxSize = int(min(pk.Properties.MaximumPacketSize, 1<<28))
		c.receive = pk.Properties.ReceiveMaximum
	}
	if c.receive == 0 {
		c.receive = maxReceive
	}
	return c.takeWill(pk)
}

// enter opens the session of the client, by the first of its proofs that holds:
// certificate, token, password (contract: adapters 2.7).
func (c *conn) enter(ctx context.Context, p *packets.ConnectParams) error {
	sessions := c.a.o.Sessions
	if sessions.Full() {
		sessions.Refused(c.cipher(), adapters.ErrInstanceConnections)
		return adapters.ErrInstanceConnections
	}
	if c.a.o.NoAuthentication {
		return c.open(ctx, adapters.Login{})
	}
	l, some, err := adapters.CertificateLogin(c.tls)
	if some && err == nil {
		if err = c.login(ctx, l, p.ClientIdentifier); err == nil || !passes(err) {
			return err
		}
	}
	next, failed := credentials(p)
	switch {
	case failed == nil:
		return c.login(ctx, next, p.ClientIdentifier)
	case err != nil: // of a certificate that stands alone
		failed = iot.Errorf(iot.ErrUnauthenticated, "%s", shown(err))
	}
	if !some { // else the certificate has been counted
		sessions.Refused(c.cipher(), failed)
	}
	return failed
}

// cipher is the name of the TLS cipher suite, "" = none.
func (c *conn) cipher() string {
	if c.tls == nil {
		return ""
	}
	return tls.CipherSuiteName(c.tls.CipherSuite)
}

// passes reports whether a certificate was refused for what it is, so that
// another proof may stand in for it.
func passes(err error) bool {
	return errors.Is(err, iot.ErrUnauthenticated) || errors.Is(err, iot.ErrInvalid)
}

// credentials reads the password: a token, or what belongs to the user name.
func credentials(p *packets.ConnectParams) (adapters.Login, error) {
	if !p.PasswordFlag && !p.UsernameFlag {
		return adapters.Login{}, iot.Errorf(iot.ErrUnauthenticated, "credentials are missing: want a user name auth-id@tenant with a password, a token or a client certificate")
	}
	user, password := string(p.Username), string(p.Password)
	if adapters.IsToken(password) {
		tenant, authID := clientIDAddress(p.ClientIdentifier)
		l, err := adapters.TokenLogin(password, tenant, authID)
		if err == nil {
			return l, nil
		}
		if l, failed := adapters.PasswordLogin(user, password); failed == nil {
			return l, nil
		}
		return l, err
	}
	return adapters.PasswordLogin(user, password)
}

// clientIDAddress finds tenant and auth-id in a client identifier such as
// tenants/T/devices/D; they are empty where it has less than three segments.
func clientIDAddress(id string) (iot.TenantID, string) {
	s := strings.Split(id, "/")
	if len(s) < 3 {
		return "", ""
	}
	return iot.TenantID(strings.Clone(s[len(s)-3])), strings.Clone(s[len(s)-1])
}

// login opens a session with the client identifier as context.
func (c *conn) login(ctx context.Context, l adapters.Login, id string) error {
	if id != "" {
		if l.Context == nil {
			l.Context = make(map[string]any, 1)
		}
		l.Context["client-id"] = strings.Clone(id)
	}
	c.claims = l.Credential.AuthID + "@" + string(l.Tenant.ID)
	return c.open(ctx, l)
}

func (c *conn) open(ctx context.Context, l adapters.Login) (err error) {
	l.CipherSuite = c.cipher()
	c.session, err = c.a.o.Sessions.Open(ctx, l, c.remote, c.revoke)
	if err == nil && !c.session.Anonymous() {
		c.who = owner{c.session.Tenant(), c.session.Device(), c.session.Alias()}
	}
	return err
}

// identify names the client, which may leave that to us.
func (c *conn) identify(pk *packets.Packet) (assigned bool) {
	c.id = strings.Clone(pk.Connect.ClientIdentifier)
	if assigned = c.id == ""; assigned {
		c.id = rand.Text()
	}
	return assigned
}

// accept tells the client that it is in. A client of the same device with the
// same identifier goes.
func (c *conn) accept(pk *packets.Packet, assigned bool) {
	ack := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}}
	c.tls, c.claims = nil, ""
	if assigned {
		ack.Properties.AssignedClientID = c.id
	} else {
		c.a.takeOver(c)
	}
	p := &ack.Properties
	p.ReceiveMaximum = uint16(c.a.o.MaxInFlight)
	p.MaximumQos, p.MaximumQosFlag = 1, true
	p.MaximumPacketSize = uint32(c.a.maxPacket + 1 + lengthSize(c.a.maxPacket))
	p.SubIDAvailableFlag, p.SharedSubAvailableFlag = true, true // and not available
	p.SessionExpiryIntervalFlag = pk.Properties.SessionExpiryInterval > 0
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.send(&ack) {
		c.abandon("client takes no packet as large as a CONNACK")
		return
	}
	c.connected = true
	c.debug("connected", "version", c.version, "client", c.id)
	c.left()
	c.kick()
}

// lengthSize is how many bytes a remaining length takes.
func lengthSize(n int) int {
	size := 1
	for ; n > 127; n >>= 7 {
		size++
	}
	return size
}

// refused answers a CONNECT that failed with err. A client of MQTT 3.1.1 that
// breaks the rules of the protocol gets no answer.
func (c *conn) refused(err error) error {
	code, text := connackOf(err)
	if code.v3 == 0 && c.version < 5 {
		return err
	}
	c.refuse(code, text, err)
	return errRefused
}

// refuse sends a CONNACK, and nothing after it.
func (c *conn) refuse(code connack, text string, err error) {
	c.debug("connection refused", "version", c.version, "user", c.claims, "err", err)
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}, ReasonCode: code.v3}
	if c.version == 5 {
		pk.ReasonCode, pk.Properties.ReasonString = code.v5, reasonString(text)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.send(&pk)
	c.markEnded("refused: " + err.Error())
}
