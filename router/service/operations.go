package service

import (
	"context"
	"encoding/json"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/iot"
)

// registrationAge is how long Hono's components keep a registration (contract:
// messaging 2.5).
const registrationAge = 300 * time.Second

// operation answers one subject of one endpoint.
type operation func(s *Server, ctx context.Context, c *peer.Conn, q *request) answer

// operations are those of each endpoint, by the subject on the wire.
var operations = map[string]map[string]operation{
	Tenant:       {"get": (*Server).tenantGet},
	Registration: {"assert": (*Server).registrationAssert},
	Credentials:  {"get": (*Server).credentialsGet},
	Commands: {
		registerConsumer: (*Server).registerCommandConsumer, unregisterConsumer: (*Server).unregisterCommandConsumer,
		setLastGateway: (*Server).setLastKnownGateway, enableRouting: (*Server).enableCommandRouting,
	},
}

// tenantGet is messaging 3. A client that names the tenant in its body may have
// named it by an alias or a trust anchor, so what it may see is known only when the
// tenant is.
func (s *Server) tenantGet(ctx context.Context, c *peer.Conn, q *request) answer {
	call, err := tenantCriteria(q)
	if err != nil {
		return failure(err)
	}
	if q.bare() && !s.o.May(c, Tenant+"/"+string(call.ID), q.operation) {
		return forbidden(q)
	}
	got, err := events.Call(ctx, s.o.Invoker, call)
	if err != nil {
		return failure(err)
	}
	if !s.o.May(c, Tenant+"/"+string(got.ID), q.operation) {
		return forbidden(q)
	}
	return answer{status: 200, body: &got.TenantObject, tenant: string(got.ID), maxAge: got.MaxAge()}
}

// tenantCriteria are those of the body or, where there is none, the application
// property of older clients.
func tenantCriteria(q *request) (events.TenantGet, error) {
	if q.bare() {
		if id := q.text("tenant_id"); id != "" {
			return events.TenantGet{ID: iot.TenantID(id)}, nil
		}
	}
	body, err := q.object()
	if err != nil {
		return events.TenantGet{}, err
	}
	var call events.TenantGet
	if json.Unmarshal(body, &call) != nil {
		return events.TenantGet{}, iot.Errorf(iot.ErrInvalid, "the body is no JSON object whose tenant-id and subject-dn are strings")
	}
	if call.ID == "" && call.SubjectDN == "" {
		return events.TenantGet{}, iot.Errorf(iot.ErrInvalid, "tenant-id or subject-dn is required")
	}
	if call.ID != "" {
		call.SubjectDN = ""
	}
	return call, nil
}

// registrationAssert is messaging 4.
func (s *Server) registrationAssert(ctx context.Context, c *peer.Conn, q *request) answer {
	tenant, device := tenantOf(q.address), q.text("device_id")
	if device == "" {
		return failed(400, "application property device_id is missing: expected a string")
	}
	got, err := events.Call(ctx, s.o.Invoker, events.RegistrationAssert{
		TenantID: iot.TenantID(tenant), DeviceID: iot.DeviceID(device), GatewayID: iot.DeviceID(q.text("gateway_id"))})
	if err != nil {
		return failure(err)
	}
	a := answer{status: 200, body: &got.Registration, tenant: tenant, device: device, maxAge: registrationAge}
	if s.o.Asserts != nil && s.o.Asserts(c) {
		// An adapter of 2018 sends the token on with the device's messages (messaging 18.4).
		a.body = &struct {
			*events.Registration
			Assertion string `json:"assertion"`
		}{&got.Registration, got.Assertion}
	}
	return a
}

// credentialsGet is messaging 5.
func (s *Server) credentialsGet(ctx context.Context, _ *peer.Conn, q *request) answer {
	tenant := tenantOf(q.address)
	body, err := q.object()
	if err != nil {
		return failure(err)
	}
	var members map[string]json.RawMessage
	call := events.CredentialsGet{}
	if json.Unmarshal(body, &members) != nil || json.Unmarshal(body, &call) != nil {
		return failed(400, "the body is no JSON object whose type and auth-id are strings and whose client-certificate is Base64")
	}
	_, byAuthID := members["auth-id"]
	_, byDevice := members["device-id"]
	switch {
	case byDevice && byAuthID:
		return failed(400, "auth-id and device-id exclude each other")
	case byDevice:
		return failed(501, "credentials are not looked up by device-id: expected type and auth-id")
	case call.Type == "":
		return failed(400, "type is missing")
	case call.AuthID == "":
		return failed(400, "auth-id is missing")
	}
	call.TenantID = iot.TenantID(tenant)
	got, err := events.Call(ctx, s.o.Invoker, call)
	if err != nil {
		return failure(err)
	}
	a := answer{status: 200, body: got, tenant: tenant, device: q.text("device_id"), maxAge: got.MaxAge()}
	if got.Provisioned {
		a.status = 201
	}
	return a
}

func forbidden(q *request) answer {
	return failed(403, "%.64q is not granted", q.operation)
}
