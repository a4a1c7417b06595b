package config

import (
	"cmp"
	"slices"
	"time"
)

// Config holds every setting of the program. The yaml tag of a field is its key
// in the file; its path in capitals after SLUICE_ is its name in the environment.
type Config struct {
	// Name of the installation: CloudEvents source and token issuer.
	Name string `yaml:"name"`
	// Data is the data folder. Load makes it absolute.
	Data string `yaml:"data"`
	// Insecure allows plain-text listeners on public addresses, plain secrets in
	// the identities file and devices that prove nothing.
	Insecure   bool       `yaml:"insecure"`
	Log        Log        `yaml:"log"`
	Listeners  []Listener `yaml:"listeners"`
	TLS        OwnTLS     `yaml:"tls"`
	Routers    []string   `yaml:"routers"` // amqp:// or amqps:// URLs; empty = the router of this process
	Functions  Functions  `yaml:"functions"`
	Registry   Registry   `yaml:"registry"`
	Events     Events     `yaml:"events"`
	Notices    Notices    `yaml:"notices"`
	Assertions Assertions `yaml:"assertions"`
	Admission  Admission  `yaml:"admission"`
	Auth       Auth       `yaml:"auth"`
	Identities string     `yaml:"identities"` // Load makes it absolute
	// IdentityProviders check devices' passwords for tenants that name one of them.
	IdentityProviders []IdentityProvider `yaml:"identity-providers"`
	// Addresses say how the router distributes; the first that matches wins, and
	// behind them stand [HonoAddresses].
	Addresses []Address `yaml:"addresses"`
	// CreditWait is how long an upload waits for credit, all routers asked at once.
	CreditWait time.Duration `yaml:"credit-wait"`
	// SendTimeout is how long an upload waits for its outcome.
	SendTimeout time.Duration `yaml:"send-timeout"`
	Adapters    Adapters      `yaml:"adapters"`
	Management  Management    `yaml:"management"`
}

// Log says what is logged and how.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // auto (text on a terminal, else json), text, json
}

// OwnTLS is what this process proves itself with to other components and, on
// listeners whose own tls key names no files, to everybody. Without it the
// development certificates of the data folder are used.
type OwnTLS struct {
	Certificate string `yaml:"certificate"` // PEM, leaf first
	Key         string `yaml:"key"`
	CA          string `yaml:"ca"` // of the installation: whom to believe, and whose clients are components
}

// Functions names the URL of each deployed group of functions; an empty one runs
// in this process.
type Functions struct {
	// Identity is tenant, credentials, registration, assertion and admission: a URL,
	// or lambda: and the name or ARN of a Lambda function.
	Identity string `yaml:"identity"`
	// Events is the event store, likewise; a router without one keeps no events.
	Events string `yaml:"events"`
	// TokenFile holds the bearer token that proves this process to functions behind
	// a URL; it is read again when it changes.
	TokenFile string `yaml:"token-file"`
	// CA holds the authorities that functions behind a URL are certified by, where
	// they are not the installation's: those of a platform; "" = those of tls.ca.
	CA string `yaml:"ca"`
}

// Registry chooses the store of tenants, devices and credentials. In the file
// "registry: sqlite" is short for its first key.
type Registry struct {
	Store    string `yaml:"store"`    // sqlite, postgres, dynamodb
	URL      string `yaml:"url"`      // postgres
	Table    string `yaml:"table"`    // dynamodb
	Region   string `yaml:"region"`   // dynamodb; "" = AWS_REGION
	Endpoint string `yaml:"endpoint"` // dynamodb; "" = that of the region
	// Indexes are the members that devices and tenants are found by quickly, as
	// JSON pointers such as /ext/serial. Filters on others read documents.
	Indexes []string `yaml:"indexes"`
}

// Events chooses where events wait for applications, and what is kept of them. In the file
// "events: sqlite" is short for its first key. What is empty is as it is for the registry.
type Events struct {
	Store    string `yaml:"store"`    // sqlite, postgres, dynamodb; "" = registry.store
	URL      string `yaml:"url"`      // postgres; "" = registry.url
	Table    string `yaml:"table"`    // dynamodb; "" = registry.table with -events behind it
	Region   string `yaml:"region"`   // dynamodb; "" = registry.region
	Endpoint string `yaml:"endpoint"` // dynamodb; "" = registry.endpoint
	// MaxTTL bounds how long any event is kept; 0 = as long as it says itself.
	MaxTTL time.Duration `yaml:"max-ttl"`
	// MaxMessages and MaxBytes bound what waits of each tenant; 0 = unlimited.
	MaxMessages int64 `yaml:"max-messages"`
	MaxBytes    Size  `yaml:"max-bytes"`
	// MaxAttempts is how often a delivery may fail before the event becomes a dead letter.
	MaxAttempts int `yaml:"max-attempts"`
}

// FromScalar reads the short form.
func (e *Events) FromScalar(isScalar bool, text string) (bool, error) {
	if isScalar && text != "" {
		e.Store = text
		return true, nil
	}
	return false, nil
}

// EventStore is Events with what it leaves to the registry.
func (c *Config) EventStore() Events {
	e, r := c.Events, &c.Registry
	if e.Store == "" {
		e.Store = r.Store
	}
	e.URL = cmp.Or(e.URL, r.URL)
	e.Region, e.Endpoint = cmp.Or(e.Region, r.Region), cmp.Or(e.Endpoint, r.Endpoint)
	if e.Table == "" && r.Table != "" {
		e.Table = r.Table + "-events"
	}
	return e
}

// QueueScheme is before the URL of a queue in Notices.Broker.
const QueueScheme = "sqs:"

// Notices says where changes of the registry are told.
type Notices struct {
	// Ingresses are the URLs of the routers' ingresses, every address behind each
	// name; a router of the same process needs none.
	Ingresses []string `yaml:"ingresses"`
	// Broker takes, as CloudEvents over HTTP, what a router did not: something that
	// delivers it to the routers' ingresses later. With [QueueScheme] before it, it is
	// the URL of a queue of SQS.
	Broker string `yaml:"broker"`
}

// Assertions configures the tokens that vouch for devices.
type Assertions struct {
	Algorithm string `yaml:"algorithm"` // EdDSA, ES256
	// RotateAfter is how old a signing key becomes.
	RotateAfter time.Duration `yaml:"rotate-after"`
	// Overlap is how long the key before it verifies; less than the day that a token
	// lives ends tokens early.
	Overlap time.Duration `yaml:"overlap"`
}

// Admission configures how devices are let in.
type Admission struct {
	// KeepVerified keeps the MAC of a password beside its slow hash for a day, so
	// that a restarted adapter does not make every device pay for the hash again.
	KeepVerified bool `yaml:"keep-verified"`
}

// Auth configures the tokens that the address cbs hands to Hono's components
// (contract: messaging, section 13).
type Auth struct {
	Issuer        string        `yaml:"issuer"`
	Audience      string        `yaml:"audience"` // "" = none
	TokenLifetime time.Duration `yaml:"token-lifetime"`
}

// FromScalar reads the short form.
func (r *Registry) FromScalar(isScalar bool, text string) (bool, error) {
	if isScalar && text != "" {
		*r = Registry{Store: text}
		return true, nil
	}
	return false, nil
}

// Adapters holds the settings of each protocol adapter.
type Adapters struct {
	HTTP HTTPAdapter `yaml:"http"`
	MQTT MQTTAdapter `yaml:"mqtt"`
}

// MQTTAdapter is for devices that speak MQTT 3.1.1 or 5. Fields that HTTPAdapter has
// too mean the same.
type MQTTAdapter struct {
	MaxPayloadSize           Size `yaml:"max-payload-size"`
	AuthenticationRequired   bool `yaml:"authentication-required"`
	DefaultsEnabled          bool `yaml:"defaults-enabled"`
	MaxConnections           int  `yaml:"max-connections"` // of this process; 0 = no limit but the operating system's
	ConnectionsPerAddress    int  `yaml:"connections-per-address"`
	FailedAttemptsPerAuthID  int  `yaml:"failed-attempts-per-auth-id"`
	FailedAttemptsPerAddress int  `yaml:"failed-attempts-per-address"`
	// MaxInFlight is how many messages of one connection may await their outcome.
	MaxInFlight int `yaml:"max-in-flight"`
	// Will is what becomes of the will of a device whose connection breaks: publish or ignore.
	Will string `yaml:"will"`
	// SendMessageToDeviceTimeout is how long a device may take to acknowledge a command; 0 = as
	// long as it is connected.
	SendMessageToDeviceTimeout time.Duration `yaml:"send-message-to-device-timeout"`
	// ConnectionEvents says who learns that devices connect and disconnect: none, logging or events.
	ConnectionEvents string `yaml:"connection-events"`
}

// HTTPAdapter is for devices that speak HTTP.
type HTTPAdapter struct {
	MaxPayloadSize    Size          `yaml:"max-payload-size"`
	IdleTimeout       time.Duration `yaml:"idle-timeout"` // of a connection between requests
	Realm             string        `yaml:"realm"`        // in WWW-Authenticate
	CORSAllowedOrigin string        `yaml:"cors-allowed-origin"`
	// AuthenticationRequired false lets devices name themselves; it needs insecure.
	AuthenticationRequired bool `yaml:"authentication-required"`
	// DefaultsEnabled adds the tenant's and the device's defaults to messages.
	DefaultsEnabled bool `yaml:"defaults-enabled"`
	// ConnectionsPerAddress bounds open connections per remote address.
	ConnectionsPerAddress int `yaml:"connections-per-address"`
	// Failed attempts a minute after which 429 is answered without asking anybody.
	FailedAttemptsPerAuthID  int `yaml:"failed-attempts-per-auth-id"`
	FailedAttemptsPerAddress int `yaml:"failed-attempts-per-address"`
}

// Management is the registry's HTTP API (contract: registry, sections 1.2, 2.1, 5.3).
type Management struct {
	// AuthenticationRequired false opens the API on loopback addresses to everybody.
	AuthenticationRequired bool          `yaml:"authentication-required"`
	MaxPayloadSize         Size          `yaml:"max-payload-size"`
	MaxBulkSize            Size          `yaml:"max-bulk-size"` // of one bulk request or import
	IdleTimeout            time.Duration `yaml:"idle-timeout"`
	Realm                  string        `yaml:"realm"`
	CORSAllowedOrigin      string        `yaml:"cors-allowed-origin"`
	TenantIDPattern        string        `yaml:"tenant-id-pattern"`
	DeviceIDPattern        string        `yaml:"device-id-pattern"`
	MaxBcryptCostFactor    int           `yaml:"max-bcrypt-cost-factor"`
	// HashAlgorithmsAllowList names the hash functions that may be stored; empty = all.
	HashAlgorithmsAllowList []string `yaml:"hash-algorithms-allow-list"`
}

// Listener is one address on which the program accepts connections.
type Listener struct {
	Role    string `yaml:"role" json:"role"`       // one of the Role constants
	Address string `yaml:"address" json:"address"` // host:port; port 0 = any free one
	// TLS is nil on a plain-text listener. An empty one takes the process's own
	// certificate.
	TLS *ListenerTLS `yaml:"tls,omitempty" json:"tls,omitempty"`
	// Mechanisms are the SASL mechanisms offered, best first. Empty = PLAIN, EXTERNAL
	// to clients with a verified certificate, SCRAM-SHA-256 if every secret of the
	// identities file has that form, and OAUTHBEARER and XOAUTH2 if it names issuers.
	// ANONYMOUS is offered only where it is named.
	Mechanisms []string `yaml:"mechanisms,omitempty" json:"mechanisms,omitempty"`
	// Insecure allows this one listener to be plain text on a public address.
	Insecure bool `yaml:"insecure,omitempty" json:"insecure,omitempty"`
}

// ListenerTLS names the files of one listener; empty ones are those of [OwnTLS].
type ListenerTLS struct {
	Certificate string `yaml:"certificate,omitempty" json:"certificate,omitempty"`
	Key         string `yaml:"key,omitempty" json:"key,omitempty"`
	// ClientCA makes client certificates verified. Listeners for components always
	// verify and require them, by default with the installation's CA.
	ClientCA string `yaml:"client-ca,omitempty" json:"client-ca,omitempty"`
	// NoClientCertificates has a listener for devices ask for none, for browsers,
	// which do not open a WebSocket where they are asked for one.
	NoClientCertificates bool   `yaml:"no-client-certificates,omitempty" json:"no-client-certificates,omitempty"`
	MinVersion           string `yaml:"min-version,omitempty" json:"min-version,omitempty"` // 1.2 (default) or 1.3
	// More are further certificates, chosen by the host name that the client
	// asks for (SNI); the one above answers for every other name.
	More []KeyPair `yaml:"more,omitempty" json:"more,omitempty"`
}

// KeyPair names the files of a certificate and its key, both PEM.
type KeyPair struct {
	Certificate string `yaml:"certificate" json:"certificate"`
	Key         string `yaml:"key" json:"key"`
}

// The roles of listeners.
const (
	RoleNorthbound  = "northbound"   // AMQP: applications and the service addresses
	RoleInternal    = "internal"     // AMQP: components only
	RoleRegistry    = "registry"     // AMQP: the service addresses of the registry only
	RoleAuth        = "auth"         // AMQP: the Authentication API only
	RoleIngress     = "ingress"      // HTTP: facts from functions to a router
	RoleFunction    = "function"     // HTTP: CloudEvents calls of components
	RoleManagement  = "management"   // HTTP: registry management API
	RoleHealth      = "health"       // HTTP: health, metrics and keys
	RoleHTTPAdapter = "adapter/http" // HTTP: devices
	RoleMQTTAdapter = "adapter/mqtt" // MQTT: devices
)

// Roles lists the roles that are served.
var Roles = []string{RoleNorthbound, RoleInternal, RoleRegistry, RoleAuth, RoleIngress, RoleFunction, RoleManagement, RoleHealth, RoleHTTPAdapter, RoleMQTTAdapter}

// ForComponents reports whether the listener admits components only, which prove
// themselves by a client certificate.
func (l *Listener) ForComponents() bool {
	return l.Role == RoleInternal || l.Role == RoleFunction
}

// ForDevices reports whether devices come to the listener.
func (l *Listener) ForDevices() bool {
	return l.Role == RoleHTTPAdapter || l.Role == RoleMQTTAdapter
}

// SpeaksAMQP reports whether SASL decides who is let in.
func (l *Listener) SpeaksAMQP() bool {
	switch l.Role {
	case RoleNorthbound, RoleInternal, RoleRegistry, RoleAuth:
		return true
	}
	return false
}

// ListenersOf returns the listeners of the given roles in the configured order.
func (c *Config) ListenersOf(roles ...string) []Listener {
	var out []Listener
	for _, l := range c.Listeners {
		if slices.Contains(roles, l.Role) {
			out = append(out, l)
		}
	}
	return out
}
