package config

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/internal/config/strictyaml"
)

// Mechanisms are the SASL mechanisms that are served.
var Mechanisms = []string{"PLAIN", "EXTERNAL", "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2", "ANONYMOUS"}

// maxBcryptCost is where one check takes about a minute; more is a slip.
const maxBcryptCost = 20

func (l *Loaded) validate() error {
	checks := []func() error{l.checkListeners, l.checkOwnTLS, l.checkWhole, l.checkURLs, l.checkAddresses, l.checkRegistry, l.checkEvents, l.checkProviders, l.checkLimits, l.checkManagement, l.checkMQTT, l.checkAnonymous}
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// errorf names the value and where it came from.
func (l *Loaded) errorf(path, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if s := l.Source(path); s.Kind != "default" {
		return fmt.Errorf("%s: %s (%s)", path, text, s)
	}
	return fmt.Errorf("%s: %s", path, text)
}

func (l *Loaded) checkListeners() error {
	taken := map[string]int{}
	for i := range l.Listeners {
		path := fmt.Sprintf("listeners[%d]", i)
		if err := l.checkListener(path, &l.Listeners[i]); err != nil {
			return err
		}
		address := l.Listeners[i].Address
		if first, ok := taken[address]; ok && !strings.HasSuffix(address, ":0") {
			return l.errorf(path, "address %s is taken by listeners[%d]", address, first)
		}
		taken[address] = i
	}
	return nil
}

func (l *Loaded) checkListener(path string, s *Listener) error {
	if !slices.Contains(Roles, s.Role) {
		return l.errorf(path, "role %q is not served; nearest known role: %q", s.Role, strictyaml.Nearest(s.Role, Roles))
	}
	host, port, err := net.SplitHostPort(s.Address)
	if err != nil {
		return l.errorf(path, "address %q of role %s: expected host:port, such as 127.0.0.1:8080", s.Address, s.Role)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return l.errorf(path, "address %q of role %s: port %q is not a number from 0 to 65535", s.Address, s.Role, port)
	}
	if err := l.checkListenerTLS(path, s); err != nil {
		return err
	}
	if err := l.checkMechanisms(path, s); err != nil {
		return err
	}
	if s.TLS == nil && !isLoopback(host) {
		if !l.Insecure && !s.Insecure {
			return l.errorf(path, "role %s would listen in plain text on %s, which is not a loopback address; give it tls, or allow it with --insecure or insecure: true", s.Role, s.Address)
		}
		l.Warnings = append(l.Warnings, fmt.Sprintf("insecure: role %s listens in plain text on %s", s.Role, s.Address))
	}
	return nil
}

func (l *Loaded) checkListenerTLS(path string, s *Listener) error {
	if s.TLS == nil {
		if s.ForComponents() {
			return l.errorf(path, "role %s needs tls: components prove themselves by client certificates", s.Role)
		}
		return nil
	}
	if (s.TLS.Certificate == "") != (s.TLS.Key == "") {
		return l.errorf(path, "tls of role %s: certificate and key go together", s.Role)
	}
	if s.TLS.NoClientCertificates && (!s.ForDevices() || s.TLS.ClientCA != "") {
		return l.errorf(path, "tls of role %s: no-client-certificates is for listeners of devices without client-ca", s.Role)
	}
	for _, p := range s.TLS.More {
		if p.Certificate == "" || p.Key == "" {
			return l.errorf(path, "tls of role %s: each of more needs certificate and key", s.Role)
		}
	}
	if v := s.TLS.MinVersion; v != "" && v != "1.2" && v != "1.3" {
		return l.errorf(path, "tls of role %s: min-version %q; expected 1.2 or 1.3", s.Role, v)
	}
	return nil
}

func (l *Loaded) checkMechanisms(path string, s *Listener) error {
	if len(s.Mechanisms) > 0 && !s.SpeaksAMQP() {
		return l.errorf(path, "role %s speaks no SASL; mechanisms belong to %s", s.Role, RoleNorthbound)
	}
	for _, m := range s.Mechanisms {
		switch {
		case !slices.Contains(Mechanisms, m):
			return l.errorf(path, "mechanism %q is not served; expected some of %s", m, strings.Join(Mechanisms, ", "))
		case m != "EXTERNAL" && s.ForComponents():
			return l.errorf(path, "role %s takes EXTERNAL only", s.Role)
		case m == "EXTERNAL" && s.TLS == nil:
			return l.errorf(path, "mechanism EXTERNAL needs tls with client-ca")
		case m == "EXTERNAL" && s.TLS.ClientCA == "" && !s.ForComponents():
			return l.errorf(path, "mechanism EXTERNAL needs client-ca: whose client certificates to believe")
		case m == "ANONYMOUS":
			l.Warnings = append(l.Warnings, fmt.Sprintf("role %s on %s admits whoever comes, as the identity anonymous", s.Role, s.Address))
		}
	}
	return nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func (l *Loaded) checkOwnTLS() error {
	if (l.TLS.Certificate == "") != (l.TLS.Key == "") {
		return l.errorf("tls.certificate", "certificate and key go together")
	}
	return nil
}

func (l *Loaded) checkWhole() error {
	if l.Name == "" || strings.ContainsAny(l.Name, " \t\r\n") {
		return l.errorf("name", "%q: expected a name without spaces", l.Name)
	}
	for path, choice := range map[string]struct {
		got   string
		known []string
	}{
		"log.level":            {l.Log.Level, []string{"debug", "info", "warn", "error"}},
		"log.format":           {l.Log.Format, []string{"auto", "text", "json"}},
		"registry.store":       {l.Registry.Store, []string{"sqlite", "postgres", "dynamodb"}},
		"assertions.algorithm": {l.Assertions.Algorithm, []string{"EdDSA", "ES256"}},
	} {
		if !slices.Contains(choice.known, choice.got) {
			return l.errorf(path, "%q: expected one of %s", choice.got, strings.Join(choice.known, ", "))
		}
	}
	return nil
}

func (l *Loaded) checkURLs() error {
	for i, r := range l.Routers {
		if err := l.checkURL(fmt.Sprintf("routers[%d]", i), r, "amqps", "amqp"); err != nil {
			return err
		}
	}
	for i, r := range l.Notices.Ingresses {
		if err := l.checkURL(fmt.Sprintf("notices.ingresses[%d]", i), r, "https", "http"); err != nil {
			return err
		}
	}
	if l.Notices.Broker != "" {
		if err := l.checkURL("notices.broker", strings.TrimPrefix(l.Notices.Broker, QueueScheme), "https", "http"); err != nil {
			return err
		}
	}
	urls := 0
	for path, where := range map[string]string{"functions.identity": l.Functions.Identity, "functions.events": l.Functions.Events} {
		switch name, ok := strings.CutPrefix(where, "lambda:"); {
		case where == "":
		case ok && name == "":
			return l.errorf(path, "lambda: without the name or ARN of a function")
		case !ok:
			if err := l.checkURL(path, where, "https", "http"); err != nil {
				return err
			}
			urls++
		}
	}
	switch {
	case urls == 0 && l.Functions.TokenFile != "":
		return l.errorf("functions.token-file", "a token goes with a URL in functions.identity or functions.events")
	case urls == 0 && l.Functions.CA != "":
		return l.errorf("functions.ca", "a CA goes with a URL in functions.identity or functions.events")
	}
	return nil
}

// checkURL expects the first scheme; the second, plain one only to loopback or
// with insecure.
func (l *Loaded) checkURL(path, text, secure, plain string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || (u.Scheme != secure && u.Scheme != plain) {
		return l.errorf(path, "%s: expected a URL such as %s://name.example:port", hidePassword(text), secure)
	}
	if u.Scheme == plain && !isLoopback(u.Hostname()) {
		if !l.Insecure {
			return l.errorf(path, "%s is plain text to an address that is not loopback; use %s, or allow it with --insecure or insecure: true", u.Redacted(), secure)
		}
		l.Warnings = append(l.Warnings, fmt.Sprintf("insecure: %s is plain text", u.Redacted()))
	}
	return nil
}

func (l *Loaded) checkRegistry() error {
	r := l.Registry
	switch {
	case r.Store == "postgres" && r.URL == "":
		return l.errorf("registry.store", "postgres needs registry.url")
	case r.Store == "dynamodb" && r.Table == "":
		return l.errorf("registry.store", "dynamodb needs registry.table")
	}
	for i, pointer := range r.Indexes {
		if len(pointer) < 2 || pointer[0] != '/' {
			return l.errorf(fmt.Sprintf("registry.indexes[%d]", i), "%q: expected a JSON pointer such as /ext/serial", pointer)
		}
	}
	return nil
}

func (l *Loaded) checkEvents() error {
	e := l.EventStore()
	switch {
	case !slices.Contains([]string{"sqlite", "postgres", "dynamodb"}, e.Store):
		return l.errorf("events.store", "%q: expected one of sqlite, postgres, dynamodb", e.Store)
	case e.Store == "postgres" && e.URL == "":
		return l.errorf("events.store", "postgres needs events.url, or registry.url")
	case e.Store == "dynamodb" && e.Table == "":
		return l.errorf("events.store", "dynamodb needs events.table, or registry.table")
	}
	return nil
}

func (l *Loaded) checkLimits() error {
	http, mqtt, m := &l.Adapters.HTTP, &l.Adapters.MQTT, &l.Management
	for _, c := range []struct {
		path       string
		got, least int64
	}{
		{"credit-wait", int64(l.CreditWait), 0},
		{"send-timeout", int64(l.SendTimeout), 1},
		{"events.max-ttl", int64(l.Events.MaxTTL), 0},
		{"events.max-messages", l.Events.MaxMessages, 0},
		{"events.max-bytes", int64(l.Events.MaxBytes), 0},
		{"events.max-attempts", int64(l.Events.MaxAttempts), 1},
		{"adapters.http.max-payload-size", int64(http.MaxPayloadSize), 1},
		{"adapters.http.idle-timeout", int64(http.IdleTimeout), 1},
		{"adapters.http.connections-per-address", int64(http.ConnectionsPerAddress), 1},
		{"adapters.http.failed-attempts-per-auth-id", int64(http.FailedAttemptsPerAuthID), 1},
		{"adapters.http.failed-attempts-per-address", int64(http.FailedAttemptsPerAddress), 1},
		{"adapters.mqtt.max-payload-size", int64(mqtt.MaxPayloadSize), 1},
		{"adapters.mqtt.max-connections", int64(mqtt.MaxConnections), 0},
		{"adapters.mqtt.connections-per-address", int64(mqtt.ConnectionsPerAddress), 1},
		{"adapters.mqtt.failed-attempts-per-auth-id", int64(mqtt.FailedAttemptsPerAuthID), 1},
		{"adapters.mqtt.failed-attempts-per-address", int64(mqtt.FailedAttemptsPerAddress), 1},
		{"adapters.mqtt.max-in-flight", int64(mqtt.MaxInFlight), 1},
		{"management.max-payload-size", int64(m.MaxPayloadSize), 1},
		{"management.max-bulk-size", int64(m.MaxBulkSize), 1},
		{"assertions.rotate-after", int64(l.Assertions.RotateAfter), 1},
		{"assertions.overlap", int64(l.Assertions.Overlap), 0},
		{"auth.token-lifetime", int64(l.Auth.TokenLifetime), int64(time.Minute)},
		{"management.idle-timeout", int64(m.IdleTimeout), 1},
		{"management.max-bcrypt-cost-factor", int64(m.MaxBcryptCostFactor), 4},
	} {
		if c.got < c.least {
			return l.errorf(c.path, "too small; expected at least %d", c.least)
		}
	}
	return nil
}

func (l *Loaded) checkManagement() error {
	m := &l.Management
	for path, pattern := range map[string]string{"management.tenant-id-pattern": m.TenantIDPattern, "management.device-id-pattern": m.DeviceIDPattern} {
		if _, err := regexp.Compile(pattern); err != nil {
			return l.errorf(path, "%v", err)
		}
	}
	if !m.AuthenticationRequired {
		if err := l.checkOpenManagement(); err != nil {
			return err
		}
	}
	if m.MaxBcryptCostFactor > maxBcryptCost {
		return l.errorf("management.max-bcrypt-cost-factor", "%d is more than %d", m.MaxBcryptCostFactor, maxBcryptCost)
	}
	return nil
}

// checkOpenManagement lets an API that asks nobody who he is be reached from
// this machine only.
func (l *Loaded) checkOpenManagement() error {
	for _, s := range l.ListenersOf(RoleManagement) {
		if host, _, err := net.SplitHostPort(s.Address); err != nil || !isLoopback(host) {
			return l.errorf("management.authentication-required", "false is for loopback addresses only, and the management API would listen on %s", s.Address)
		}
	}
	l.Warnings = append(l.Warnings, "insecure: everybody on this machine may manage the registry")
	return nil
}

func (l *Loaded) checkAnonymous() error {
	for _, a := range []struct {
		path, protocol string
		required       bool
	}{
		{"adapters.http.authentication-required", "HTTP", l.Adapters.HTTP.AuthenticationRequired},
		{"adapters.mqtt.authentication-required", "MQTT", l.Adapters.MQTT.AuthenticationRequired},
	} {
		if a.required {
			continue
		}
		if !l.Insecure {
			return l.errorf(a.path, "devices without credentials need --insecure or insecure: true")
		}
		l.Warnings = append(l.Warnings, "insecure: devices that use "+a.protocol+" prove nothing")
	}
	return nil
}

// What becomes of a will.
const (
	WillPublish = "publish"
	WillIgnore  = "ignore"
)

// Who learns that devices connect and disconnect (contract: adapters 14).
const (
	ConnectionsIgnored = "none"
	ConnectionsLogged  = "logging"
	ConnectionsSent    = "events" // applications, by events
)

func (l *Loaded) checkMQTT() error {
	m := &l.Adapters.MQTT
	switch {
	case m.SendMessageToDeviceTimeout < 0:
		return l.errorf("adapters.mqtt.send-message-to-device-timeout", "%s is negative; expected a duration, or 0 to wait as long as the device is connected", m.SendMessageToDeviceTimeout)
	case !slices.Contains([]string{ConnectionsIgnored, ConnectionsLogged, ConnectionsSent}, m.ConnectionEvents):
		return l.errorf("adapters.mqtt.connection-events", "%q: expected %s, %s or %s", m.ConnectionEvents, ConnectionsIgnored, ConnectionsLogged, ConnectionsSent)
	case m.Will != WillPublish && m.Will != WillIgnore:
		return l.errorf("adapters.mqtt.will", "%q: expected %s or %s", m.Will, WillPublish, WillIgnore)
	case m.MaxInFlight > 65535:
		return l.errorf("adapters.mqtt.max-in-flight", "%d is more than 65535, which is all that MQTT can tell apart", m.MaxInFlight)
	}
	return nil
}
