package campaign_test

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// Packets of MQTT 3.1.1, as far as devices here need them.
const (
	mqttConnect    = 0x10
	mqttConnack    = 0x20
	mqttPublishQoS = 0x32 // with quality of service 1
	mqttPuback     = 0x40
	mqttPingreq    = 0xc0
)

// mqttLogin is by what a device connects.
type mqttLogin struct {
	addr           string
	source         int         // which of the loopback addresses it comes from
	tls            *tls.Config // nil = plain text
	clientID       string
	user, password string
	keepAlive      uint16 // seconds; 0 = none
}

// mqttRefused is a CONNACK that says no.
type mqttRefused byte

func (e mqttRefused) Error() string { return fmt.Sprintf("CONNACK %#02x", byte(e)) }

// sourceOf is the loopback address of the i-th of many devices: adapters allow a
// thousand connections from one, and one has some 28,000 ports.
func sourceOf(i int) net.Addr {
	n := i/perSource + 2
	return &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+n/250), byte(1+n%250))}
}

// dialMQTT connects and waits for the CONNACK. It keeps no buffer, so that what is
// idle costs little here.
func dialMQTT(l mqttLogin) (net.Conn, error) {
	d := net.Dialer{Timeout: patience, LocalAddr: sourceOf(l.source)}
	c, err := d.Dial("tcp", l.addr)
	if err != nil {
		return nil, err
	}
	if l.tls != nil {
		c = tls.Client(c, l.tls)
	}
	if err = l.connect(c); err != nil {
		abort(c)
		return nil, err
	}
	return c, nil
}

// abort closes a connection without a trace. Those that are closed in order stay known to the system
// for minutes, and it knows only so many.
func abort(c net.Conn) {
	inner := c
	if t, ok := c.(*tls.Conn); ok {
		inner = t.NetConn()
	}
	if tcp, ok := inner.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	inner.Close()
}

func (l *mqttLogin) connect(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	body := append(mqttString(nil, "MQTT"), 4, 0xc2)
	body = binary.BigEndian.AppendUint16(body, l.keepAlive)
	body = mqttString(mqttString(mqttString(body, l.clientID), l.user), l.password)
	if _, err := c.Write(mqttPacket(nil, mqttConnect, body)); err != nil {
		return err
	}
	var answer [4]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return err
	}
	if answer[0] != mqttConnack || answer[1] != 2 {
		return fmt.Errorf("% x in answer to CONNECT", answer)
	}
	if answer[3] != 0 {
		return mqttRefused(answer[3])
	}
	return c.SetDeadline(time.Time{})
}

func mqttString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

func mqttPacket(b []byte, head byte, body []byte) []byte {
	b = binary.AppendUvarint(append(b, head), uint64(len(body))) // the same as a remaining length
	return append(b, body...)
}

// mqttPublish appends a PUBLISH with quality of service 1.
func mqttPublish(b []byte, topic string, id uint16, payload []byte) []byte {
	body := binary.BigEndian.AppendUint16(mqttString(nil, topic), id)
	return mqttPacket(b, mqttPublishQoS, append(body, payload...))
}

// readMQTT returns the next packet.
func readMQTT(r *bufio.Reader) (head byte, body []byte, err error) {
	if head, err = r.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, nil, err
	}
	if n > 1<<20 {
		return 0, nil, fmt.Errorf("a packet of %d bytes", n)
	}
	body = make([]byte, n)
	_, err = io.ReadFull(r, body)
	return head, body, err
}
