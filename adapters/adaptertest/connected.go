package adaptertest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Connected is a [Client] of a protocol in which devices stay connected.
type Connected interface {
	Client
	// Connect logs in and stays. Errors are those of Send.
	Connect(ctx context.Context, l Login) (Conn, error)
	// Sessions are those of the adapter.
	Sessions() *adapters.Sessions
}

// Conn is a connection of a device.
type Conn interface {
	// Send uploads u on this connection; its Login does not count.
	Send(ctx context.Context, u Upload) error
	// Closed is closed once the adapter has closed the connection.
	Closed() <-chan struct{}
	// Close closes the connection from the device's side.
	Close() error
}

// connections checks what ends the connection of a device, and what does not.
func (h Harness) connections(t *testing.T) {
	if _, ok := h.start(t).Client.(Connected); !ok {
		t.Skip("the protocol has no connections")
	}
	t.Run("ended by notices", h.noticed)
	t.Run("credentials", h.credentials)
	t.Run("tenant's adapters", h.tenantAdapters)
	t.Run("refused", h.connectRefused)
	t.Run("tenant's connections", h.tenantConnections)
	t.Run("closed by the device", h.closedByDevice)
}

func (e env) connect(t *testing.T, l Login) Conn {
	t.Helper()
	c, err := e.Client.(Connected).Connect(t.Context(), l)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (e env) sessions() *adapters.Sessions { return e.Client.(Connected).Sessions() }

func passwordOf(device iot.DeviceID) Login {
	return Login{Tenant: Tenant, AuthID: string(device), Password: Password}
}

// stays checks that a connection is open, and serves.
func stays(t *testing.T, c Conn) {
	t.Helper()
	if err := c.Send(t.Context(), own()); err != nil {
		t.Errorf("a connection that is to stay: upload failed: %v", err)
	}
	select {
	case <-c.Closed():
		t.Error("a connection that is to stay was closed")
	default:
	}
}

func (h Harness) noticed(t *testing.T) {
	device := func(d iot.DeviceID, change string, enabled bool) adapters.Notice {
		return adapters.Notice{Type: adapters.NoticeDevice, Change: change, Tenant: Tenant, Device: d, Enabled: enabled}
	}
	tenant := func(change string, enabled bool) adapters.Notice {
		return adapters.Notice{Type: adapters.NoticeTenant, Change: change, Tenant: Tenant, Enabled: enabled}
	}
	for _, tt := range []struct {
		name            string
		notice          adapters.Notice
		device, gateway bool // closed
	}{
		{"device disabled", device(Device, "UPDATE", false), true, false},
		{"device deleted", device(Device, "DELETE", false), true, false},
		{"device changed", device(Device, "UPDATE", true), false, false},
		{"gateway disabled", device(Gateway, "UPDATE", false), false, true},
		{"gateway deleted", device(Gateway, "DELETE", false), false, true},
		{"device behind the gateway deleted", device(Device2, "DELETE", false), false, false},
		{"all devices deleted", adapters.Notice{Type: adapters.NoticeDevicesDeleted, Tenant: Tenant}, true, true},
		{"tenant disabled", tenant("UPDATE", false), true, true},
		{"tenant deleted", tenant("DELETE", false), true, true},
		{"tenant changed", tenant("UPDATE", true), false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := h.start(t)
			device, gateway := e.connect(t, passwordOf(Device)), e.connect(t, passwordOf(Gateway))
			other := e.connect(t, Login{Tenant: OtherTenant, AuthID: string(Device), Password: Password})
			e.notices.Notice(tt.notice)
			open := 3
			for _, c := range []struct {
				Conn
				closed bool
			}{{device, tt.device}, {gateway, tt.gateway}} {
				if c.closed {
					<-c.Closed()
					open--
				}
			}
			for _, c := range []struct {
				Conn
				closed bool
			}{{device, tt.device}, {gateway, tt.gateway}, {other, false}} {
				if !c.closed {
					stays(t, c)
				}
			}
			e.awaitLen(open)
		})
	}
}

// awaitLen waits until so many sessions are open.
func (e env) awaitLen(want int) { await(func() bool { return e.sessions().Len() == want }) }

// await waits for what other goroutines are about to do.
func await(reached func() bool) {
	for !reached() {
		time.Sleep(time.Millisecond)
	}
}

func (h Harness) credentials(t *testing.T) {
	changed := adapters.Notice{Type: adapters.NoticeCredentials, Tenant: Tenant, Device: Device}
	second := passwordOf(Device)
	second.Password = "another"
	start := func(t *testing.T) (e env, first, other, gateway Conn) {
		e = h.start(t)
		e.inv.AddSecret(Device, "password-2", second.Password)
		return e, e.connect(t, passwordOf(Device)), e.connect(t, second), e.connect(t, passwordOf(Gateway))
	}
	checks := func(e env) (n int) {
		for _, q := range e.inv.Calls() {
			if q.Credential != nil && q.Credential.SecretID != "" {
				n++
			}
		}
		return n
	}
	t.Run("one removed", func(t *testing.T) {
		e, first, other, gateway := start(t)
		e.inv.RemoveSecret(Device, PasswordSecret)
		e.notices.Notice(changed)
		<-first.Closed()
		await(func() bool { return checks(e) >= 2 })
		stays(t, other)
		stays(t, gateway)
		e.awaitLen(2)
		for _, q := range e.inv.Calls()[3:] {
			if q.Credential.Password != "" || q.TenantRef.ID != Tenant {
				t.Errorf("a check took the password along, or named tenant %q: want the secret's id and %q", q.TenantRef.ID, Tenant)
			}
		}
	})
	t.Run("one added", func(t *testing.T) {
		e, first, other, gateway := start(t)
		e.inv.AddSecret(Device, "password-3", "a third")
		e.notices.Notice(changed)
		await(func() bool { return checks(e) >= 2 })
		stays(t, first)
		stays(t, other)
		stays(t, gateway)
	})
	t.Run("nobody answers for a while", func(t *testing.T) {
		e, first, other, _ := start(t)
		e.inv.RemoveSecret(Device, PasswordSecret)
		e.inv.Fail(iot.Errorf(iot.ErrUnavailable, "store is down"))
		e.notices.Notice(changed)
		await(func() bool { return checks(e) >= 2 })
		select {
		case <-first.Closed():
			t.Error("closed before anybody knew")
		default:
		}
		e.inv.Fail(nil)
		<-first.Closed()
		stays(t, other)
	})
	t.Run("certificate", func(t *testing.T) {
		if !h.Certificates {
			t.Skip("the client has no certificates")
		}
		e, first, other, _ := start(t)
		cert := Certificate()
		third := e.connect(t, Login{Certificate: &cert})
		e.inv.RemoveSecret(Device, CertificateSecret)
		e.notices.Notice(changed)
		<-third.Closed()
		stays(t, first)
		stays(t, other)
	})
	t.Run("token", func(t *testing.T) {
		if !h.Tokens {
			t.Skip("the client has no tokens")
		}
		e, first, other, _ := start(t)
		third := e.connect(t, Login{Token: Token(), Tenant: Tenant, AuthID: string(Device)})
		e.inv.RemoveSecret(Device, TokenSecret)
		e.notices.Notice(changed)
		<-third.Closed()
		stays(t, first)
		stays(t, other)
	})
}

func (h Harness) tenantAdapters(t *testing.T) {
	e := h.start(t)
	c := e.connect(t, passwordOf(Device))
	changed := adapters.Notice{Type: adapters.NoticeTenant, Change: "UPDATE", Tenant: Tenant, Enabled: true}
	e.inv.Adapters(events.TenantAdapter{Type: h.Type, Enabled: true}, events.TenantAdapter{Type: "hono-other"})
	e.notices.Notice(changed)
	await(func() bool { return e.inv.Lookups() > 0 })
	stays(t, c)
	e.inv.Adapters(events.TenantAdapter{Type: h.Type})
	e.notices.Notice(changed)
	<-c.Closed()
	e.awaitLen(0)
}

func (h Harness) connectRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		tenant iot.TenantID
		device iot.DeviceID
		secret string
		want   error
	}{
		{"wrong password", Tenant, Device, "wrong", iot.ErrUnauthenticated},
		{"unknown tenant", "nowhere", Device, Password, iot.ErrUnauthenticated},
		{"adapter disabled", OffTenant, Device, Password, iot.ErrForbidden},
		{"device disabled", Tenant, DisabledDevice, Password, iot.ErrNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := h.start(t)
			c, err := e.Client.(Connected).Connect(t.Context(), Login{Tenant: tt.tenant, AuthID: string(tt.device), Password: tt.secret})
			if !errors.Is(err, h.Report(tt.want)) {
				t.Errorf("got error %v, want one that wraps %q", err, h.Report(tt.want))
			}
			if err == nil {
				c.Close()
			}
			e.awaitLen(0)
		})
	}
}

func (h Harness) tenantConnections(t *testing.T) {
	e := h.start(t)
	e.inv.Defaults(nil, nil, `{"max-connections":1}`)
	first := e.connect(t, passwordOf(Device))
	c, err := e.Client.(Connected).Connect(t.Context(), passwordOf(Gateway))
	if !errors.Is(err, h.Report(iot.ErrQuota)) {
		t.Errorf("the second connection of a tenant that may have one: got error %v, want one that wraps %q", err, h.Report(iot.ErrQuota))
	}
	if err == nil {
		c.Close()
	}
	stays(t, first)
	e.connect(t, Login{Tenant: OtherTenant, AuthID: string(Device), Password: Password})
	first.Close()
	e.awaitLen(1)
	stays(t, e.connect(t, passwordOf(Gateway)))
}

func (h Harness) closedByDevice(t *testing.T) {
	e := h.start(t)
	c := e.connect(t, passwordOf(Device))
	stays(t, c)
	c.Close()
	e.awaitLen(0)
	if got := len(e.inv.Calls()); got != 1 {
		t.Errorf("a connection with an upload cost %d admissions, want 1", got)
	}
}
