package events

import (
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// TypeCredentialsGet asks for the credentials of a type and auth-id. The answer
// carries hashes and keys (contract: events 4.1, messaging 5).
const TypeCredentialsGet = "io.sluice.credentials.get"

// CredentialsGet names credentials. In JSON the members of Context stand
// beside the others.
type CredentialsGet struct {
	TenantID          iot.TenantID // attribute tenantid; never an alias
	Type              string
	AuthID            string
	ClientCertificate []byte         // DER; lets a device be provisioned
	Context           map[string]any // client context, matched against the credentials' ext
}

// EventType implements [Request].
func (CredentialsGet) EventType() string { return TypeCredentialsGet }

// Tenant implements [Request].
func (g CredentialsGet) Tenant() iot.TenantID { return g.TenantID }

// ReplyType implements [RequestOf].
func (CredentialsGet) ReplyType() *CredentialsGot { return nil }

func (g CredentialsGet) withTenant(t iot.TenantID) Request {
	g.TenantID = t
	return g
}

// MarshalJSON implements [json.Marshaler].
func (g CredentialsGet) MarshalJSON() ([]byte, error) {
	m := maps.Clone(g.Context)
	if m == nil {
		m = map[string]any{}
	}
	m["type"], m["auth-id"] = g.Type, g.AuthID
	if g.ClientCertificate != nil {
		m["client-certificate"] = g.ClientCertificate
	}
	return json.Marshal(m)
}

// UnmarshalJSON implements [json.Unmarshaler].
func (g *CredentialsGet) UnmarshalJSON(b []byte) error {
	var known struct {
		Type              string `json:"type"`
		AuthID            string `json:"auth-id"`
		ClientCertificate []byte `json:"client-certificate"`
	}
	if err := json.Unmarshal(b, &known); err != nil {
		return err
	}
	var rest map[string]any
	if err := json.Unmarshal(b, &rest); err != nil {
		return err
	}
	for _, name := range []string{"type", "auth-id", "client-certificate"} {
		delete(rest, name)
	}
	if len(rest) == 0 {
		rest = nil
	}
	g.Type, g.AuthID, g.ClientCertificate, g.Context = known.Type, known.AuthID, known.ClientCertificate, rest
	return nil
}

// CredentialsGot is a device's credentials with their secrets.
type CredentialsGot struct {
	DeviceID    iot.DeviceID
	Credential  iot.Credential
	Provisioned bool // the device was created for this call: status 201
	CacheFor    time.Duration
}

// MaxAge implements [Reply].
func (g *CredentialsGot) MaxAge() time.Duration     { return g.CacheFor }
func (g *CredentialsGot) setMaxAge(d time.Duration) { g.CacheFor = d }

func (g *CredentialsGot) statusCode() int {
	if g.Provisioned {
		return 201
	}
	return 200
}

func (g *CredentialsGot) setStatusCode(code int) { g.Provisioned = code == 201 }

// MarshalJSON implements [json.Marshaler]: the credential with its device-id.
func (g *CredentialsGot) MarshalJSON() ([]byte, error) {
	b, err := json.Marshal(g.Credential)
	if err != nil {
		return nil, err
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	if m["device-id"], err = json.Marshal(g.DeviceID); err != nil {
		return nil, err
	}
	return json.Marshal(m)
}

// UnmarshalJSON implements [json.Unmarshaler].
func (g *CredentialsGot) UnmarshalJSON(b []byte) error {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	if err := json.Unmarshal(m["device-id"], &g.DeviceID); err != nil {
		return fmt.Errorf("device-id: %w", err)
	}
	delete(m, "device-id")
	rest, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return json.Unmarshal(rest, &g.Credential)
}
