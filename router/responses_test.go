package router_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router"
)

// TestCommandResponses shows that an adapter's response reaches the application that
// receives at its reply address, if the device is vouched for, and that without a receiver
// there is no credit.
func TestCommandResponses(t *testing.T) {
	o := newOffice(t)
	path := filepath.Join(t.TempDir(), "identities.yaml")
	if err := auth.AddIdentityWith(path, "appT", secret, commanders["appT"]...); err != nil {
		t.Fatal(err)
	}
	dir, err := auth.Open(path, auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &routing{Router: router.New(router.Options{Name: "r", Directory: dir, Verifier: o.verifier, Invoker: functions(registered)}), t: t, dir: dir, ctx: ctx}
	r.wg.Go(func() { r.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		r.wg.Wait()
	})
	if r.component, err = auth.NewComponent(auth.Adapter, "ad"); err != nil {
		t.Fatal(err)
	}
	response := func(device iot.DeviceID, token string) *goamqp.Message {
		m := goamqp.NewMessage([]byte("done"))
		to := "command_response/T/R/1"
		m.Properties = &goamqp.MessageProperties{To: &to, CorrelationID: "c"}
		m.DeliveryAnnotations = goamqp.Annotations{"x-opt-reg-assertion": token}
		m.Annotations = goamqp.Annotations{"device_id": string(device), "tenant_id": "T"}
		m.ApplicationProperties = map[string]any{"device_id": string(device), "tenant_id": "T", "status": int32(200)}
		return m
	}
	link := r.sender("component", "command_response/T/R/1")
	soon, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := link.SendWithReceipt(soon, response("d", o.sign(t, "T", "d")), nil); err == nil {
		t.Fatal("there is credit without a receiver")
	}
	link = r.sender("component", "command_response/T/R/1")
	in, err := r.session("appT").NewReceiver(t.Context(), "command_response/T/R/1", &goamqp.ReceiverOptions{Credit: 10})
	if err != nil {
		t.Fatal(err)
	}
	receipt := sending(t, link, response("d", o.sign(t, "T", "d")))
	m, err := in.Receive(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.DeliveryAnnotations) > 0 || m.ApplicationProperties["status"] != int32(200) || in.AcceptMessage(t.Context(), m) != nil {
		t.Errorf("the response came as %+v", m)
	}
	if got := settled(t, receipt); got != "accepted" {
		t.Errorf("a response: %s", got)
	}
	for name, m := range map[string]*goamqp.Message{
		"of another device":   response("d", o.sign(t, "T", "e")),
		"of another tenant":   response("d", o.sign(t, "U", "d")),
		"without a token":     response("d", ""),
		"with a broken one":   response("d", "x.y.z"),
		"of no device at all": response("", o.sign(t, "T", "d")),
	} {
		if got := outcome(t, link, m); got != "rejected amqp:precondition-failed: "+router.DescriptionNoDevice {
			t.Errorf("a response %s: %s", name, got)
		}
	}
}
