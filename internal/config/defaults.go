package config

import "time"

// Defaults returns the configuration of a program that nobody configured: all in
// one process, on loopback only. The data folder and the identities file are
// chosen by [Load].
func Defaults() Config {
	return Config{
		Name:        "sluice.local",
		Log:         Log{Level: "info", Format: "auto"},
		Listeners:   DefaultListeners(),
		Registry:    Registry{Store: "sqlite"},
		Events:      Events{MaxBytes: 1 << 30, MaxAttempts: 10},
		Assertions:  Assertions{Algorithm: "EdDSA", RotateAfter: 30 * 24 * time.Hour, Overlap: 25 * time.Hour},
		Admission:   Admission{KeepVerified: true},
		Auth:        Auth{Issuer: "https://hono.eclipse.org/auth-server", TokenLifetime: 10 * time.Minute},
		CreditWait:  200 * time.Millisecond,
		SendTimeout: time.Second,
		Adapters: Adapters{HTTP: HTTPAdapter{
			MaxPayloadSize:           2048,
			IdleTimeout:              75 * time.Second,
			Realm:                    "Hono",
			CORSAllowedOrigin:        "*",
			AuthenticationRequired:   true,
			DefaultsEnabled:          true,
			ConnectionsPerAddress:    1000,
			FailedAttemptsPerAuthID:  10,
			FailedAttemptsPerAddress: 1000,
		}, MQTT: MQTTAdapter{
			MaxPayloadSize:           2048,
			AuthenticationRequired:   true,
			DefaultsEnabled:          true,
			ConnectionsPerAddress:    1000,
			FailedAttemptsPerAuthID:  10,
			FailedAttemptsPerAddress: 1000,
			MaxInFlight:              100,
			Will:                     WillPublish,

			SendMessageToDeviceTimeout: time.Second,
			ConnectionEvents:           ConnectionsLogged,
		}},
		Management: Management{
			AuthenticationRequired: true,
			MaxPayloadSize:         2048,
			MaxBulkSize:            256 << 20,
			IdleTimeout:            60 * time.Second,
			Realm:                  "Hono",
			CORSAllowedOrigin:      "*",
			TenantIDPattern:        `^[a-zA-Z0-9-_\.]+$`,
			DeviceIDPattern:        `^[a-zA-Z0-9-_\.:=]+$`,
			MaxBcryptCostFactor:    10,
		},
	}
}

// DefaultListeners is the list of `sluice up`.
func DefaultListeners() []Listener {
	return []Listener{
		{Role: RoleNorthbound, Address: "127.0.0.1:15672"},
		{Role: RoleNorthbound, Address: "127.0.0.1:15671", TLS: &ListenerTLS{}},
		{Role: RoleHTTPAdapter, Address: "127.0.0.1:8080"},
		{Role: RoleHTTPAdapter, Address: "127.0.0.1:8443", TLS: &ListenerTLS{}},
		{Role: RoleMQTTAdapter, Address: "127.0.0.1:1883"},
		{Role: RoleMQTTAdapter, Address: "127.0.0.1:8883", TLS: &ListenerTLS{}},
		{Role: RoleManagement, Address: "127.0.0.1:28080"},
		{Role: RoleManagement, Address: "127.0.0.1:28443", TLS: &ListenerTLS{}},
		{Role: RoleHealth, Address: "127.0.0.1:8088"},
	}
}

// RouterListeners is the list of `sluice router`.
func RouterListeners() []Listener {
	return []Listener{
		{Role: RoleNorthbound, Address: "127.0.0.1:15672"},
		{Role: RoleNorthbound, Address: "127.0.0.1:15671", TLS: &ListenerTLS{}},
		{Role: RoleInternal, Address: "127.0.0.1:5673", TLS: &ListenerTLS{}},
		{Role: RoleIngress, Address: "127.0.0.1:8445", TLS: &ListenerTLS{}},
		{Role: RoleHealth, Address: "127.0.0.1:8088"},
	}
}

// AdapterListeners is the list of `sluice adapter` with the named adapters.
func AdapterListeners(names ...string) []Listener {
	var roles []string
	for _, name := range names {
		roles = append(roles, "adapter/"+name)
	}
	all := Config{Listeners: DefaultListeners()}
	return all.ListenersOf(append(roles, RoleHealth)...)
}

// IdentityFunctionListeners is the list of `sluice function identity`.
func IdentityFunctionListeners() []Listener {
	return []Listener{
		{Role: RoleFunction, Address: "127.0.0.1:8444", TLS: &ListenerTLS{}},
		{Role: RoleManagement, Address: "127.0.0.1:28080"},
		{Role: RoleManagement, Address: "127.0.0.1:28443", TLS: &ListenerTLS{}},
		{Role: RoleHealth, Address: "127.0.0.1:8088"},
	}
}
