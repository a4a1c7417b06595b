package iot

import "encoding/json"

// Tenant is a tenant as the management API shows it (contract: registry,
// section 3.1). Its id is kept beside it. The zero value is a valid tenant
// with every default. Free-form members hold the JSON object as it was sent
// and are nil when it was absent or empty.
type Tenant struct {
	Enabled            *bool               `json:"enabled,omitempty"` // nil = never sent, effective true
	Alias              string              `json:"alias,omitempty" null:"refuse" empty:"refuse"`
	Ext                json.RawMessage     `json:"ext,omitempty"`
	Defaults           json.RawMessage     `json:"defaults,omitempty"` // default message properties
	Adapters           []Adapter           `json:"adapters,omitempty"` // nil = every adapter enabled with defaults
	MinimumMessageSize int                 `json:"minimum-message-size,omitempty" null:"refuse"`
	ResourceLimits     *ResourceLimits     `json:"resource-limits,omitempty"`
	RegistrationLimits *RegistrationLimits `json:"registration-limits,omitempty"`
	Tracing            *Tracing            `json:"tracing,omitempty"`
	TrustAnchorGroup   string              `json:"trust-anchor-group,omitempty"`
	TrustedCA          []TrustAnchor       `json:"trusted-ca,omitempty"`
}

// IsEnabled reports the effective value of Enabled.
func (t *Tenant) IsEnabled() bool { return t.Enabled == nil || *t.Enabled }

// Adapter returns the configuration of an adapter type: the entry of that
// type, the defaults (enabled, authentication required) when the tenant lists
// no adapter at all, or a disabled one when it lists others only.
func (t *Tenant) Adapter(adapterType string) Adapter {
	for _, a := range t.Adapters {
		if a.Type == adapterType {
			return a
		}
	}
	return Adapter{Type: adapterType, Enabled: len(t.Adapters) == 0, DeviceAuthenticationRequired: true}
}

// InvalidatesCaches reports the boolean ext member invalidate-cache-on-update.
func (t *Tenant) InvalidatesCaches() bool {
	var ext struct {
		Invalidate any `json:"invalidate-cache-on-update"`
	}
	if len(t.Ext) == 0 || json.Unmarshal(t.Ext, &ext) != nil {
		return false
	}
	yes, _ := ext.Invalidate.(bool)
	return yes
}

// IdentityProvider returns the ext member identity-provider: the name of the
// identity provider that knows the passwords of the tenant's devices. named
// reports that there is such a member, also where it is no text; without it the
// registry knows them.
func (t *Tenant) IdentityProvider() (name string, named bool) {
	var ext struct {
		Provider any `json:"identity-provider"`
	}
	if len(t.Ext) == 0 || json.Unmarshal(t.Ext, &ext) != nil {
		return "", false
	}
	name, _ = ext.Provider.(string)
	return name, ext.Provider != nil
}

// Adapter configures one adapter type for a tenant (section 3.2).
type Adapter struct {
	Type                         string          `json:"type"` // such as hono-http; required
	Enabled                      bool            `json:"enabled"`
	DeviceAuthenticationRequired bool            `json:"device-authentication-required"` // true when not sent
	Ext                          json.RawMessage `json:"ext,omitempty"`
}

// UnmarshalJSON implements [json.Unmarshaler]; it applies the defaults.
func (a *Adapter) UnmarshalJSON(b []byte) error {
	type plain Adapter
	p := plain{DeviceAuthenticationRequired: true}
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	*a = Adapter(p)
	return nil
}

// ResourceLimits bounds what a tenant may use (section 3.3). A nil limit is
// unlimited; TTLs are seconds.
type ResourceLimits struct {
	MaxConnections        *int64              `json:"max-connections,omitempty"`
	MaxTTL                *int64              `json:"max-ttl,omitempty"`
	MaxTTLTelemetryQoS0   *int64              `json:"max-ttl-telemetry-qos0,omitempty"`
	MaxTTLTelemetryQoS1   *int64              `json:"max-ttl-telemetry-qos1,omitempty"`
	MaxTTLCommandResponse *int64              `json:"max-ttl-command-response,omitempty"`
	DataVolume            *DataVolume         `json:"data-volume,omitempty"`
	ConnectionDuration    *ConnectionDuration `json:"connection-duration,omitempty"`
	Ext                   json.RawMessage     `json:"ext,omitempty"`
}

// DataVolume limits payload bytes in each accounting period.
type DataVolume struct {
	EffectiveSince Timestamp `json:"effective-since"`
	MaxBytes       *int64    `json:"max-bytes,omitempty"` // nil = unlimited
	Period         Period    `json:"period"`
}

// ConnectionDuration limits the minutes that devices are connected in each
// accounting period.
type ConnectionDuration struct {
	EffectiveSince Timestamp `json:"effective-since"`
	MaxMinutes     *int64    `json:"max-minutes,omitempty"` // nil = unlimited
	Period         Period    `json:"period"`
}

// Period is an accounting period: Mode is monthly, days or unknown.
type Period struct {
	Mode     string `json:"mode" null:"refuse" empty:"refuse" absent:"refuse"`
	NoOfDays int    `json:"no-of-days,omitempty"` // for mode days
}

// RegistrationLimits bounds what may be registered; -1 is unlimited (section 3.4).
type RegistrationLimits struct {
	MaxDevices              int64 `json:"max-devices"`
	MaxCredentialsPerDevice int64 `json:"max-credentials-per-device"`
}

// UnmarshalJSON implements [json.Unmarshaler]; absent members become -1.
func (l *RegistrationLimits) UnmarshalJSON(b []byte) error {
	type plain RegistrationLimits
	p := plain{MaxDevices: -1, MaxCredentialsPerDevice: -1}
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	*l = RegistrationLimits(p)
	return nil
}

// Tracing says how much is sampled: default, all or none (section 3.5).
type Tracing struct {
	SamplingMode          string            `json:"sampling-mode,omitempty"`
	SamplingModePerAuthID map[string]string `json:"sampling-mode-per-auth-id,omitempty"`
}

// TrustAnchor is one trusted CA of a tenant (section 3.6). Cert exists in
// requests only; the members derived from it are what is kept.
type TrustAnchor struct {
	ID             string    `json:"id,omitempty"`
	Cert           []byte    `json:"cert,omitempty"` // DER; write only
	SubjectDN      string    `json:"subject-dn,omitempty"`
	SubjectDNBytes []byte    `json:"subject-dn-bytes,omitempty"` // DER
	PublicKey      []byte    `json:"public-key,omitempty"`       // SubjectPublicKeyInfo, DER
	Algorithm      string    `json:"algorithm,omitempty"`        // RSA when absent
	NotBefore      Timestamp `json:"not-before,omitzero" null:"refuse"`
	NotAfter       Timestamp `json:"not-after,omitzero" null:"refuse"`

	AuthIDTemplate                   string `json:"auth-id-template,omitempty"`
	AutoProvisioningEnabled          bool   `json:"auto-provisioning-enabled"`
	AutoProvisionAsGateway           bool   `json:"auto-provision-as-gateway"`
	AutoProvisioningDeviceIDTemplate string `json:"auto-provisioning-device-id-template,omitempty"`

	OCSPRevocationEnabled bool   `json:"ocsp-revocation-enabled,omitempty"`
	OCSPResponderURI      string `json:"ocsp-responder-uri,omitempty"`
	OCSPResponderCert     []byte `json:"ocsp-responder-cert,omitempty"` // DER
	OCSPNonceEnabled      bool   `json:"ocsp-nonce-enabled,omitempty"`
}
