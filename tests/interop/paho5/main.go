// Command paho5 is an MQTT 5 device on paho.golang, driven by JSON lines: its
// options, then commands; see the types below. It writes a line for everything
// that happens. The end of its input ends it without a DISCONNECT.
//
// It is a module of its own, so that nothing else depends on what it is made of.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
)

// patience is how long a packet is waited for.
const patience = 60 * time.Second

type options struct {
	Addr           string // host:port
	CA, Cert, Key  string // files; no CA = plain text
	ServerName     string
	ClientID       string
	User, Password *string
	KeepAlive      uint16
	AuthMethod     string
	SessionExpiry  *uint32
	Will           *message
	WillDelay      *uint32
}

type message struct {
	ID             int
	Topic, Payload string
	QoS            byte
	Retain         bool
	ContentType    string
	Expiry         *uint32
	Alias          *uint16
	Properties     [][2]string // user properties
}

type command struct {
	Cmd string // publish, flood, subscribe, unsubscribe, disconnect, drop
	message
	N       int // flood: messages 0 to N-1, all under way at a time as far as allowed
	Filters []string
	Code    byte
}

var out struct {
	sync.Mutex
	*json.Encoder
}

// facts are the members of one line.
type facts map[string]any

func say(event string, f facts) {
	out.Lock()
	defer out.Unlock()
	if f == nil {
		f = facts{}
	}
	f["event"] = event
	_ = out.Encode(f)
}

func main() {
	out.Encoder = json.NewEncoder(os.Stdout)
	in := json.NewDecoder(os.Stdin)
	var o options
	if err := in.Decode(&o); err != nil {
		fail(err)
	}
	d, err := connect(&o)
	if err != nil {
		say("closed", facts{"reason": err.Error()})
		return
	}
	for {
		var c command
		if in.Decode(&c) != nil {
			return
		}
		d.do(&c)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "paho5:", err)
	os.Exit(1)
}

// device is a connected client.
type device struct {
	client *paho.Client
	conn   net.Conn
}

func connect(o *options) (*device, error) {
	conn, err := dial(o)
	if err != nil {
		return nil, err
	}
	d := &device{conn: conn}
	d.client = paho.NewClient(paho.ClientConfig{
		Conn: packets.NewThreadSafeConn(conn), PacketTimeout: patience, ClientID: o.ClientID,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
			say("message", facts{"topic": r.Packet.Topic, "payload": string(r.Packet.Payload), "qos": r.Packet.QoS})
			return true, nil
		}},
		OnServerDisconnect: func(p *paho.Disconnect) {
			f := facts{"code": p.ReasonCode}
			if p.Properties != nil {
				f["reason"] = p.Properties.ReasonString
			}
			say("disconnect", f)
		},
		OnClientError: func(err error) { say("closed", facts{"reason": err.Error()}) },
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ack, err := d.client.Connect(ctx, o.connect())
	if ack != nil {
		say("connack", connackFacts(ack))
	}
	return d, err
}

func (o *options) connect() *paho.Connect {
	c := &paho.Connect{ClientID: o.ClientID, KeepAlive: o.KeepAlive, CleanStart: true,
		Properties: &paho.ConnectProperties{AuthMethod: o.AuthMethod, SessionExpiryInterval: o.SessionExpiry, RequestProblemInfo: true}}
	if o.User != nil {
		c.Username, c.UsernameFlag = *o.User, true
	}
	if o.Password != nil {
		c.Password, c.PasswordFlag = []byte(*o.Password), true
	}
	if w := o.Will; w != nil {
		c.WillMessage = &paho.WillMessage{Topic: w.Topic, Payload: []byte(w.Payload), QoS: w.QoS, Retain: w.Retain}
		c.WillProperties = &paho.WillProperties{ContentType: w.ContentType, MessageExpiry: w.Expiry, WillDelayInterval: o.WillDelay, User: w.user()}
	}
	return c
}

func (m *message) user() (all paho.UserProperties) {
	for _, p := range m.Properties {
		all.Add(p[0], p[1])
	}
	return all
}

func dial(o *options) (net.Conn, error) {
	if o.CA == "" {
		return net.Dial("tcp", o.Addr)
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: o.ServerName}
	ca, err := os.ReadFile(o.CA)
	if err != nil {
		fail(err)
	}
	config.RootCAs.AppendCertsFromPEM(ca)
	if o.ServerName != "" { // one that the certificate need not be for
		config.InsecureSkipVerify = true
	}
	if o.Cert != "" {
		pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
		if err != nil {
			fail(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return tls.Dial("tcp", o.Addr, config)
}

func connackFacts(ack *paho.Connack) facts {
	f := facts{"code": ack.ReasonCode, "sessionPresent": ack.SessionPresent}
	if p := ack.Properties; p != nil {
		f["reason"], f["clientId"] = p.ReasonString, p.AssignedClientID
		f["limits"] = facts{"receiveMaximum": p.ReceiveMaximum, "maximumPacketSize": p.MaximumPacketSize, "maximumQoS": p.MaximumQoS,
			"topicAliasMaximum": p.TopicAliasMaximum, "sessionExpiry": p.SessionExpiryInterval, "serverKeepAlive": p.ServerKeepAlive,
			"retain": p.RetainAvailable, "sharedSubscriptions": p.SharedSubAvailable, "subscriptionIds": p.SubIDAvailable}
	}
	return f
}

func (d *device) do(c *command) {
	switch c.Cmd {
	case "publish":
		go d.publish(c.message)
	case "flood":
		var all sync.WaitGroup
		for i := range c.N {
			m := c.message
			m.ID, m.Payload = c.ID+i, fmt.Sprintf("%s%d", c.Payload, i)
			all.Go(func() { d.publish(m) })
		}
		go func() { all.Wait(); say("flooded", nil) }()
	case "subscribe":
		d.subscribe(c)
	case "unsubscribe":
		ack, err := d.client.Unsubscribe(context.Background(), &paho.Unsubscribe{Topics: c.Filters})
		if ack == nil {
			say("failed", facts{"reason": err.Error()})
			return
		}
		f := facts{"codes": numbers(ack.Reasons)}
		if ack.Properties != nil {
			f["reason"] = ack.Properties.ReasonString
		}
		say("unsuback", f)
	case "disconnect":
		_ = d.client.Disconnect(&paho.Disconnect{ReasonCode: c.Code})
	case "drop":
		if tcp, ok := d.conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		d.conn.Close()
	}
}

func (d *device) subscribe(c *command) {
	s := &paho.Subscribe{}
	for _, f := range c.Filters {
		s.Subscriptions = append(s.Subscriptions, paho.SubscribeOptions{Topic: f, QoS: c.QoS})
	}
	ack, err := d.client.Subscribe(context.Background(), s)
	if ack == nil {
		say("failed", facts{"reason": err.Error()})
		return
	}
	f := facts{"codes": numbers(ack.Reasons)}
	if ack.Properties != nil {
		f["reason"] = ack.Properties.ReasonString
	}
	say("suback", f)
}

// numbers keeps JSON from writing bytes as Base64.
func numbers(b []byte) []int {
	n := make([]int, len(b))
	for i := range b {
		n[i] = int(b[i])
	}
	return n
}

// publish says what came of a message: sent with quality of service 0, else the PUBACK.
func (d *device) publish(m message) {
	p := &paho.Publish{Topic: m.Topic, QoS: m.QoS, Retain: m.Retain, Payload: []byte(m.Payload),
		Properties: &paho.PublishProperties{ContentType: m.ContentType, MessageExpiry: m.Expiry, TopicAlias: m.Alias, User: m.user()}}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ack, err := d.client.Publish(ctx, p)
	switch {
	case ack == nil:
		say("failed", facts{"id": m.ID, "reason": err.Error()})
	case m.QoS == 0:
		say("sent", facts{"id": m.ID})
	default:
		f := facts{"id": m.ID, "code": ack.ReasonCode}
		if ack.Properties != nil {
			f["reason"] = ack.Properties.ReasonString
		}
		say("puback", f)
	}
}
