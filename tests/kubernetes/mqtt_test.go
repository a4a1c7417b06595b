package kubernetes_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// Packets of MQTT 3.1.1 by their first byte.
const (
	mqttConnect = 0x10
	mqttConnack = 0x20
	mqttPublish = 0x32 // QoS 1
	mqttPuback  = 0x40
	mqttAgain   = 0x08 // flag of a PUBLISH
)

// mqttSender is a device that speaks as much MQTT 3.1.1 as a load needs: one PUBLISH
// with QoS 1 at a time. When it loses its connection it makes another one, and
// publishes again what it has no PUBACK for.
type mqttSender struct {
	s        *site
	device   string
	clientID string
	conn     net.Conn // nil = none
	packet   uint16   // identifier of the latest PUBLISH
	lost     int      // connections
}

var mqttClients atomic.Int64

func newMQTTSender(s *site, device string) *mqttSender {
	return &mqttSender{s: s, device: device, clientID: fmt.Sprintf("%s-%d", device, mqttClients.Add(1))}
}

func (d *mqttSender) close() int {
	if d.conn != nil {
		d.conn.Close()
		d.conn = nil
	}
	return d.lost
}

// send returns 202 for a PUBACK, and what a CONNACK says in terms of HTTP when the
// device is refused. It gives up after patience.
func (d *mqttSender) send(ctx context.Context, kind, text string) (int, error) {
	began, flags := time.Now(), byte(0)
	d.packet = d.packet%1000 + 1
	for {
		code, err := d.connect(ctx)
		if err == nil && code != http.StatusAccepted {
			return code, nil
		}
		if err == nil {
			if err = d.publish(flags, kind, text); err == nil {
				return http.StatusAccepted, nil
			}
			flags = mqttAgain
		}
		d.lost++
		d.close()
		if time.Since(began) > patience {
			return 0, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// connect logs in where there is no connection.
func (d *mqttSender) connect(ctx context.Context) (int, error) {
	if d.conn != nil {
		return http.StatusAccepted, nil
	}
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: d.s.trust}
	conn, err := dialer.DialContext(ctx, "tcp", d.s.mqtt)
	if err != nil {
		return 0, err
	}
	d.conn = conn
	body := mqttString(nil, "MQTT")
	body = append(body, 4, 0xC2, 0, 0) // version, user name, password and clean session, no keep-alive
	for _, text := range []string{d.clientID, d.device + "@" + tenant, secret} {
		body = mqttString(body, text)
	}
	answer, err := d.exchange(mqttConnect, body)
	if err != nil {
		return 0, err
	}
	if answer[0] != mqttConnack {
		return 0, fmt.Errorf("%#x instead of a CONNACK", answer)
	}
	if answer[3] != 0 {
		d.close()
	}
	code, known := map[byte]int{0: http.StatusAccepted, 3: http.StatusServiceUnavailable, 4: http.StatusUnauthorized, 5: http.StatusForbidden}[answer[3]]
	if !known {
		return 0, fmt.Errorf("CONNACK %d", answer[3])
	}
	return code, nil
}

// publish waits for the PUBACK.
func (d *mqttSender) publish(flags byte, topic, text string) error {
	body := binary.BigEndian.AppendUint16(mqttString(nil, topic), d.packet)
	answer, err := d.exchange(mqttPublish|flags, append(body, text...))
	if err != nil {
		return err
	}
	if want := binary.BigEndian.AppendUint16([]byte{mqttPuback, 2}, d.packet); string(answer) != string(want) {
		return fmt.Errorf("%#x instead of the PUBACK %#x", answer, want)
	}
	return nil
}

// exchange sends a packet and reads one, which has four bytes: CONNACK and PUBACK do.
func (d *mqttSender) exchange(first byte, body []byte) ([]byte, error) {
	if err := d.conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, err
	}
	packet := append(binary.AppendUvarint([]byte{first}, uint64(len(body))), body...)
	if _, err := d.conn.Write(packet); err != nil {
		return nil, err
	}
	answer := make([]byte, 4)
	_, err := io.ReadFull(d.conn, answer)
	return answer, err
}

func mqttString(b []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(text))), text...)
}

// awaitEnd waits until the other side closes the connection.
func (d *mqttSender) awaitEnd() error {
	defer d.close()
	if err := d.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	n, err := d.conn.Read(make([]byte, 1))
	var timeout net.Error
	switch {
	case n > 0:
		return errors.New("something came")
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("not closed within %s", patience)
	}
	return nil
}

// testPublish has a device reach the application by MQTT, from outside of the cluster.
func testPublish(t *testing.T, s *site, a *application, device string) {
	d := newMQTTSender(s, device)
	defer d.close()
	code, err := d.send(t.Context(), telemetry, "by MQTT")
	if err != nil || code != http.StatusAccepted {
		t.Fatalf("%d, %v", code, err)
	}
	if !a.has("by MQTT") {
		t.Error("acknowledged, but not arrived")
	}
}
