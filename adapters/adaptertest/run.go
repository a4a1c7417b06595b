package adaptertest

import (
	"context"
	"crypto/tls"
	"errors"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// Login is how the harness has to log in: by certificate, by token or by
// password, where the ones before are not set.
type Login struct {
	Tenant   iot.TenantID
	AuthID   string
	Password string

	Token string // JWT; where it names nobody, the protocol names Tenant and AuthID

	Certificate *tls.Certificate
	ServerName  string // asked for in the TLS handshake, "" = none
}

// Upload is one message that the harness has to send in its protocol.
type Upload struct {
	Login

	TargetTenant iot.TenantID // named in URI or topic; "" = left out
	TargetDevice iot.DeviceID // named in URI or topic; "" = the device itself

	Endpoint    iot.Endpoint
	QoS         iot.QoS
	ContentType string
	TTL         time.Duration // 0 = not given
	Payload     []byte
}

// Client speaks the protocol to a started adapter. Safe for concurrent use.
type Client interface {
	// Send uploads u on whatever connection it needs and returns nil, or an
	// error that wraps the sentinel of iot that the protocol's answer stands
	// for. Where an answer stands for several, [Harness.Report] tells.
	Send(ctx context.Context, u Upload) error
	// Stop stops the adapter and lets uploads in flight finish.
	Stop(ctx context.Context) error
}

// Harness starts one adapter.
type Harness struct {
	Type string // adapter type

	// What the client can do, and is asked for then: log in by Login.Certificate
	// and by Login.Token, and send with Upload.TTL.
	Certificates, Tokens, TTL bool
	// Connections says that devices are admitted for each connection, as in a
	// client that connects for each upload.
	Connections bool
	// Commands says that devices take commands: the client is [Commanded]. Notifies says
	// that applications are told by notifications when a device listens.
	Commands, Notifies bool
	// Start runs the adapter on p; it is stopped with t.
	Start func(t *testing.T, p *adapters.Pipeline) Client
	// Report maps a sentinel to the one that Client.Send returns for it; nil =
	// [ReportHTTP].
	Report func(error) error
}

// ReportHTTP is [Harness.Report] for protocols whose answers are as fine as
// HTTP statuses: whatever is a 503 counts as ErrUnavailable.
func ReportHTTP(sentinel error) error {
	if status.HTTP(sentinel) >= 500 {
		return iot.ErrUnavailable
	}
	return sentinel
}

// env is one adapter between two fakes.
type env struct {
	Client
	inv     *Invoker
	down    *Downstream
	notices adapters.NoticeHandlers
	h       Harness

	commands  *adapters.Commands
	announcer *Announcer
}

func (h Harness) start(t *testing.T) env {
	e := env{inv: &Invoker{}, down: &Downstream{}, h: h, commands: adapters.NewCommands(adapters.CommandsOptions{}), announcer: &Announcer{}}
	e.commands.AnnounceTo(e.announcer)
	adm := adapters.NewAdmissions(adapters.AdmissionOptions{Invoker: e.inv, MaxAge: time.Hour})
	t.Cleanup(adm.Close)
	presence := adapters.NewPresence(adapters.PresenceOptions{Invoker: e.inv})
	t.Cleanup(presence.Close)
	e.Client = h.Start(t, adapters.NewPipeline(adapters.Options{
		Type: h.Type, Admissions: adm, Downstream: e.down, Commands: e.commands, Presence: presence,
	}))
	e.notices = adapters.NoticeHandlers{adm}
	if c, ok := e.Client.(Connected); ok {
		e.notices = append(e.notices, c.Sessions())
	}
	e.notices.Following(true)
	return e
}

// check sends u and compares the outcome; want nil = accepted.
func (e env) check(t *testing.T, u Upload, want error) {
	t.Helper()
	got := e.Send(t.Context(), u)
	if want == nil {
		if got != nil {
			t.Errorf("upload: got error %v, want none", got)
		}
		return
	}
	if !errors.Is(got, e.h.Report(want)) {
		t.Errorf("upload: got error %v, want one that wraps %q", got, e.h.Report(want))
	}
}

// own is an upload of Device for itself.
func own() Upload {
	return Upload{
		Login:    Login{Tenant: Tenant, AuthID: string(Device), Password: Password},
		Endpoint: iot.Telemetry, QoS: iot.AtLeastOnce, ContentType: "text/plain", Payload: []byte("22.5"),
	}
}

func with(change func(*Upload)) Upload {
	u := own()
	change(&u)
	return u
}

func asGateway(tenant iot.TenantID, device iot.DeviceID) Upload {
	return with(func(u *Upload) { u.AuthID, u.TargetTenant, u.TargetDevice = string(Gateway), tenant, device })
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	if h.Report == nil {
		h.Report = ReportHTTP
	}
	t.Run("message", h.message)
	t.Run("statuses", h.statuses)
	t.Run("outcomes", h.outcomes)
	t.Run("events", h.events)
	t.Run("logins", h.logins)
	t.Run("defaults", h.defaults)
	if h.TTL {
		t.Run("ttl", h.ttl)
	}
	if !h.Connections {
		t.Run("concurrent uploads cost one admission", h.collapse)
	}
	t.Run("a void assertion is renewed once", h.renewal)
	t.Run("failed attempts are bounded", h.attempts)
	t.Run("stop finishes uploads in flight", h.stop)
	t.Run("connections", h.connections)
	t.Run("commands", h.commandSuite)
}
