package mqtt_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/mqtt"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// trusting lets in whoever has a token, as Device.
type trusting struct{ adaptertest.Invoker }

func (i *trusting) Invoke(ctx context.Context, r events.Request) (events.Reply, error) {
	if q, ok := r.(events.Admit); ok && q.Credential != nil && q.Credential.JWT != "" {
		q.Credential = &events.Credential{Type: iot.HashedPassword, AuthID: q.Credential.AuthID, Password: adaptertest.Password}
		r = q
	}
	return i.Invoker.Invoke(ctx, r)
}

// TestExpired checks what ends the connection of a client whose token has
// expired since it came in (contract: adapters 8.9).
func TestExpired(t *testing.T) {
	ping := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}}
	for name, tt := range map[string]struct {
		pk       *packets.Packet
		reported bool
	}{
		"PUBLISH":     {message("telemetry", 7, "x"), true},
		"SUBSCRIBE":   {subscribe("error///#"), false},
		"UNSUBSCRIBE": {&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe}, PacketID: 1, Filters: packets.Subscriptions{{Filter: "error///#"}}}, false},
		"a command":   {nil, false},
		"PUBACK":      {&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: 1}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				adm := adapters.NewAdmissions(adapters.AdmissionOptions{Invoker: &trusting{}, MaxAge: time.Hour})
				commands := adapters.NewCommands(adapters.CommandsOptions{})
				pipeline := adapters.NewPipeline(adapters.Options{Type: mqtt.Type, Admissions: adm, Downstream: adaptertest.Discard{}, Commands: commands})
				sessions := adapters.NewSessions(pipeline, adapters.SessionOptions{})
				a := mqtt.New(mqtt.Options{Pipeline: pipeline, Sessions: sessions})
				near, far := net.Pipe()
				ln := &memoryListener{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
				ln.conns <- far
				served := make(chan error, 1)
				go func() { served <- a.Serve(t.Context(), ln, nil) }()

				encode := base64.RawURLEncoding.EncodeToString
				token := encode([]byte(`{"typ":"JWT"}`)) + "." + encode(fmt.Appendf(nil, `{"aud":"hono-adapter","tid":"tenant-1","sub":"device-1","exp":%d}`, time.Now().Add(time.Hour).Unix())) + ".c2ln"
				c := newClient(t, near, 5)
				near.SetDeadline(time.Time{})
				c.send(connectPacket(5, as("", token)))
				if ack := c.want(packets.Connack); ack.ReasonCode != 0 {
					t.Fatalf("got %#x %q", ack.ReasonCode, ack.Properties.ReasonString)
				}
				c.send(subscribe("error///#", "c///q/#"))
				c.want(packets.Suback)
				time.Sleep(time.Hour + 9*time.Minute) // clocks may differ by ten minutes
				c.send(message("t", 1, "x"))
				if ack := c.want(packets.Puback); ack.ReasonCode != 0 {
					t.Errorf("got PUBACK %#x", ack.ReasonCode)
				}
				time.Sleep(time.Minute)
				c.send(ping)
				c.want(packets.Pingresp)
				if tt.pk == nil {
					wantOutcome(t, send(commands, brightness(nil)), iot.ErrUnavailable, "")
				} else {
					c.send(tt.pk)
				}
				if tt.reported {
					c.wantReport("", 401, "the credentials have expired", 1)
				}
				c.wantClosed(0x87)

				if err := a.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				if err := <-served; err != nil {
					t.Error(err)
				}
				sessions.Close()
				adm.Close()
			})
		})
	}
}
