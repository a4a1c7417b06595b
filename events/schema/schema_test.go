package schema_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/events/schema"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

const prefix = "https://sluice.io/schemas/"

var (
	noon  = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	tru   = true
	whole = events.TenantObject{
		ID: "DEMO", Enabled: true, MinimumMessageSize: 4, Defaults: map[string]any{"ttl": 3},
		Adapters:  []events.TenantAdapter{{Type: "hono-http", Enabled: true, DeviceAuthenticationRequired: &tru}},
		Tracing:   json.RawMessage(`{"sampling-mode":"all"}`),
		TrustedCA: []json.RawMessage{json.RawMessage(`{"subject-dn":"CN=a","public-key":"AQID","auto-provisioning-enabled":false}`)},
	}
	registration = events.Registration{DeviceID: "4711", Via: []iot.DeviceID{"gw"}, Defaults: map[string]any{"a": 1}}
	jwt          = "e30.e30.AA"
	partition    = eventstore.PartitionID{Number: 5}

	connection    = events.Connection{TenantID: "T", DeviceID: "D", RemoteID: "c", Source: "hono-mqtt", Data: json.RawMessage(`{"a":1}`), At: noon}
	deviceChanged = events.RegistryChanged{Type: events.TypeDeviceChanged, TenantID: "T", Sequence: 2, DeviceID: "D", Change: "UPDATE", At: noon}
)

// examples are values of every type, as Go code makes them.
var examples = map[string][]any{
	events.TypeTenantGet:             {events.TenantGet{ID: "DEMO"}, events.TenantGet{SubjectDN: "CN=a"}},
	events.TypeTenantGet + ".result": {&events.TenantGot{TenantObject: whole}},
	events.TypeCredentialsGet:        {events.CredentialsGet{TenantID: "T", Type: "psk", AuthID: "a", Context: map[string]any{"client-id": "c"}}},
	events.TypeCredentialsGet + ".result": {&events.CredentialsGot{DeviceID: "d", Credential: iot.Credential{
		Type: "psk", AuthID: "a", Secrets: []iot.Secret{{ID: "s", Key: []byte{1}, NotBefore: iot.Timestamp{Time: noon}}}}}},
	events.TypeRegistrationAssert:             {events.RegistrationAssert{TenantID: "T", DeviceID: "4711", GatewayID: "gw"}},
	events.TypeRegistrationAssert + ".result": {&events.RegistrationAsserted{Registration: registration, Assertion: jwt, AssertionExpires: noon}},
	events.TypeAdmit: {
		events.Admit{Adapter: "hono-http", TenantRef: events.TenantRef{ID: "T"}, Credential: &events.Credential{Type: "hashed-password", AuthID: "a", Password: "p"}},
		events.Admit{Adapter: "hono-http", TenantRef: events.TenantRef{SNI: "t.x"}, DeviceID: "d"},
	},
	events.TypeAdmit + ".result":           {&events.Admitted{TenantObject: whole, DeviceID: "d", Registration: registration, Assertion: jwt, AssertionExpires: noon, PSK: []byte{1}}},
	events.TypeAssertionSign:               {events.AssertionSign{TenantID: "T", DeviceID: "D", Rev: events.Sequence(42)}},
	events.TypeAssertionSign + ".result":   {&events.AssertionSigned{Assertion: jwt, Expires: noon}},
	events.TypeAssertionKeys + ".result":   {&events.KeySet{Keys: []json.RawMessage{json.RawMessage(`{"kty":"OKP","crv":"Ed25519","x":"AA","kid":"k","alg":"EdDSA","use":"sig"}`)}}},
	events.TypeAssertionRotate:             {events.AssertionRotate{OverlapSeconds: 3600}},
	events.TypeAssertionRotate + ".result": {&events.AssertionRotated{KID: "k"}},
	events.TypeTenantChanged:               {events.RegistryChanged{Type: events.TypeTenantChanged, TenantID: "T", Sequence: 1, Change: "CREATE", Enabled: true, At: noon}},
	events.TypeDeviceChanged:               {deviceChanged},
	events.TypeCredentialsChanged:          {events.RegistryChanged{Type: events.TypeCredentialsChanged, TenantID: "T", Sequence: 3, DeviceID: "D", At: noon}},
	events.TypeDevicesDeleted:              {events.RegistryChanged{Type: events.TypeDevicesDeleted, TenantID: "T", Sequence: 4, At: noon}},
	events.TypeDeviceProvisioned: {
		events.DeviceProvisioned{TenantID: "T", DeviceID: "D", Method: events.ByCertificate},
		events.DeviceProvisioned{TenantID: "T", DeviceID: "D", GatewayID: "G", Method: events.ByGateway},
	},
	events.TypeRegistryChanges: {
		events.RegistryChanges{Since: noon, Max: 1000},
		events.RegistryChanges{Sequences: map[iot.TenantID]uint64{"T": 41}, Max: 1},
	},
	events.TypeRegistryChanges + ".result": {
		dataOf(&events.ChangesFound{Changes: []events.RegistryChanged{deviceChanged}, More: true, Now: noon}),
		dataOf(&events.ChangesFound{Now: noon}),
	},
	events.TypeNotificationDerive: {events.NotificationDerive{Changes: []events.PresenceChange{
		{Kind: events.Subscribed, TenantID: "T", DeviceID: "D", GatewayID: "G", Adapter: "hono-mqtt", At: noon},
		{Kind: events.Unsubscribed, TenantID: "T", DeviceID: "D", Adapter: "hono-mqtt", At: noon},
		{Kind: events.Uplink, TenantID: "T", DeviceID: "D", Adapter: "hono-http", At: noon, TTDSeconds: 1},
		{Kind: events.Connected, TenantID: "T", DeviceID: "D", Adapter: "hono-mqtt", At: noon, Cause: "connected", RemoteID: "c", Data: json.RawMessage(`{"a":1}`)},
		{Kind: events.Disconnected, TenantID: "T", DeviceID: "D", Adapter: "hono-mqtt", At: noon},
	}}},
	events.TypeNotificationDerive + ".result": {
		dataOf(&events.NotificationDerived{}),
		dataOf(&events.NotificationDerived{Events: []events.PresenceFact{
			events.DeviceTTD{TenantID: "T", DeviceID: "D", GatewayID: "G", TTDSeconds: -1, At: noon}, events.DeviceConnected{Connection: connection}, events.DeviceDisconnected{Connection: connection},
		}}),
	},
	events.TypeDeviceTTD: {
		events.DeviceTTD{TenantID: "T", DeviceID: "D", TTDSeconds: -1, At: noon}, events.DeviceTTD{TenantID: "T", DeviceID: "D", At: noon},
		events.DeviceTTD{TenantID: "T", DeviceID: "D", TTDSeconds: 30, At: noon},
	},
	events.TypeDeviceConnected:    {events.DeviceConnected{Connection: connection}},
	events.TypeDeviceDisconnected: {events.DeviceDisconnected{Connection: connection}},
	events.TypeEventAppend + ".result": {&events.EventAppendResult{AppendResult: eventstore.AppendResult{
		Results: []eventstore.Appended{{Partition: partition, Position: 7, Status: 200, Live: true}, {Partition: partition, Status: 429, Error: "full", RetryAfterSeconds: 10}},
		Holders: []eventstore.Holding{{Tenant: "T", Partition: partition, Ingress: "https://r:8443/events", End: 8}}}}},
	events.TypeEventClaim: {
		events.EventClaim{ClaimRequest: eventstore.ClaimRequest{Tenant: "T", Holder: "r"}},
		events.EventClaim{ClaimRequest: eventstore.ClaimRequest{Tenant: "T", Holder: "r", Ingress: "https://r:8443/events", Partitions: []eventstore.PartitionID{partition}, ClaimMS: 1}},
	},
	events.TypeEventClaim + ".result": {
		&events.EventClaimResult{ClaimResult: eventstore.ClaimResult{Claims: []eventstore.Claim{}}},
		&events.EventClaimResult{ClaimResult: eventstore.ClaimResult{Claims: []eventstore.Claim{{Partition: partition, Fence: 1, Next: 1, End: 1, Retry: 5, Wanted: true, New: true}}, Others: 1, Pending: 1}},
	},
	events.TypeEventRead: {events.EventRead{ReadRequest: eventstore.ReadRequest{Tenant: "T", Partition: partition, Fence: 1, From: 1, MaxRecords: 1000, MaxBytes: 1 << 20}}},
	events.TypeEventSettle: {events.EventSettle{SettleRequest: eventstore.SettleRequest{Tenant: "T", Partition: partition, Fence: 1, Settlements: []eventstore.Settlement{
		{From: 1, To: 5, Outcome: eventstore.Accepted}, {From: 6, To: 6, Attempt: 1, Outcome: eventstore.Modified, DeliveryFailed: true, UndeliverableHere: true, AtOnce: true, Reason: "x"}}}}},
	events.TypeEventSettle + ".result":  {&events.EventSettleResult{SettleResult: eventstore.SettleResult{Wanted: true, Dead: []uint64{4}}}},
	events.TypeEventRelease:             {events.EventRelease{ReleaseRequest: eventstore.ReleaseRequest{Tenant: "T", Partition: partition, Fence: 1, Undelivered: 5}}},
	events.TypeEventRelease + ".result": {&events.EventReleaseResult{}},
	events.TypeEventExpire:              {events.EventExpire{}, events.EventExpire{Until: noon, MaxRecords: 1000}},
	events.TypeEventExpire + ".result":  {&events.EventExpireResult{Expired: 1, More: true}},
	events.TypeEventStats:               {events.EventStats{TenantID: "T"}},
	events.TypeEventStats + ".result": {&events.EventStatsResult{Stats: eventstore.Stats{Tenant: "T", Waiting: 1, Oldest: &noon,
		Partitions: []eventstore.PartitionStats{{Partition: partition, Waiting: 1, Oldest: &noon, Holder: "r"}}}}},
	events.TypeEventBrowse: {events.EventBrowse{BrowseRequest: eventstore.BrowseRequest{Tenant: "T", Partition: partition, Dead: true, From: 3, Max: 10}}},
	events.TypeEventBrowse + ".result": {&events.EventBrowseResult{Next: 4, Events: []events.BrowsedEvent{
		{Position: 3, DeviceID: "D", At: noon, Expires: noon, Attempts: 2, Reason: "rejected", Message: []byte{0, 0x53, 0x75}}, {Position: 4, At: noon, Message: []byte{1}}}}},
	events.TypeEventRequeue:             {events.EventRequeue{RequeueRequest: eventstore.RequeueRequest{Tenant: "T", Partition: partition, Positions: []uint64{3}}}},
	events.TypeEventRequeue + ".result": {&events.EventRequeueResult{Requeued: 1}},
	events.TypeEventPurge:               {events.EventPurge{PurgeRequest: eventstore.PurgeRequest{Tenant: "T", Partition: partition, Dead: true}}},
	events.TypeEventPurge + ".result":   {&events.EventPurgeResult{Purged: 1, More: true}},
	events.TypeEventsAppended:           {events.EventsAppended{TenantID: "T", Partition: partition, End: 8}},
	events.TypeEventDeadLettered:        {events.EventDeadLettered{TenantID: "T", Partition: partition, Position: 3, Attempts: 10, Reason: "rejected"}},
	events.TypeError: {
		events.ErrorDataOf(iot.Errorf(iot.ErrNotFound, "device is disabled or not registered")),
		events.ErrorDataOf(&iot.Error{Sentinel: iot.ErrUnavailable, RetryAfter: 1500 * time.Millisecond}),
	},
}

// dataOf is what a reply looks like that is encoded by the envelope.
func dataOf(rep events.Reply) json.RawMessage {
	call, err := events.EncodeRequest(events.RegistryChanges{Max: 1}, events.Envelope{Source: "//sluice.local/router/r", ID: "1", Time: noon, Timeout: time.Second})
	if err != nil {
		panic(err)
	}
	e, err := events.EncodeReply(&call, "//sluice.local/functions/registry", rep, noon)
	if err != nil {
		panic(err)
	}
	return e.Data()
}

// wrong is, for every type, data that must not pass.
var wrong = map[string]string{
	events.TypeTenantGet:                      `{}`,
	events.TypeTenantGet + ".result":          `{"tenant-id":"T","enabled":true,"adapters":[]}`,
	events.TypeCredentialsGet:                 `{"type":"#illegal","auth-id":"a"}`,
	events.TypeCredentialsGet + ".result":     `{"device-id":"d","type":"psk","auth-id":"a","secrets":[]}`,
	events.TypeRegistrationAssert:             `{"gateway-id":"g"}`,
	events.TypeRegistrationAssert + ".result": `{"device-id":"d","via":["g","g"],"assertion":"a.b.c","assertion-expires":"2026-11-22T12:00:00Z"}`,
	events.TypeAdmit:                          `{"adapter":"a","tenant":{"id":"T","sni":"t.x"},"device-id":"d"}`,
	events.TypeAdmit + ".result":              `{"device-id":"d"}`,
	events.TypeAssertionSign:                  `{"tenant-id":"T","device-id":"D","rev":"42"}`,
	events.TypeAssertionSign + ".result":      `{"assertion":"no token","expires":"2026-11-22T12:00:00Z"}`,
	events.TypeAssertionKeys + ".result":      `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA","d":"AA","kid":"k","alg":"EdDSA","use":"sig"}]}`,
	events.TypeAssertionRotate:                `{"overlap-seconds":-1}`,
	events.TypeAssertionRotate + ".result":    `{}`,
	events.TypeTenantChanged:                  `{"type":"tenant-change-v1","source":"device-registry","creation-time":"2026-11-22T12:00:00Z","tenant-id":"T","change":"CREATE","enabled":true}`,
	events.TypeDeviceChanged:                  `{"type":"device-change-v1","source":"device-registry","creation-time":"2026-11-22T12:00:00Z","tenant-id":"T","device-id":"D","change":"DELETE","enabled":true}`,
	events.TypeCredentialsChanged:             `{"type":"credentials-change-v1","source":"device-registry","creation-time":"2026-11-22T12:00:00Z","tenant-id":"T","device-id":"D","secrets":[]}`,
	events.TypeDevicesDeleted:                 `{"type":"device-change-v1","source":"device-registry","creation-time":"2026-11-22T12:00:00Z","tenant-id":"T"}`,
	events.TypeDeviceProvisioned:              `{"tenant-id":"T","device-id":"D","method":"gateway"}`,
	events.TypeRegistryChanges:                `{"after":{"tenants":{"T":41}},"max":10}`,
	events.TypeRegistryChanges + ".result":    `{"changes":[{"specversion":"1.0"}],"more":false,"now":"2026-11-22T12:00:00Z"}`,
	events.TypeNotificationDerive:             `{"changes":[{"kind":"subscribed","tenant-id":"T","device-id":"D","adapter":"a","at":"2026-11-22T12:00:00Z","ttd-seconds":1}]}`,
	events.TypeNotificationDerive + ".result": `{"events":[{"specversion":"1.0","type":"io.sluice.device.ttd"}]}`,
	events.TypeDeviceTTD:                      `{"ttd-seconds":-1,"until":"2026-11-22T12:00:00Z"}`,
	events.TypeDeviceConnected:                `{"cause":"disconnected","remote-id":"c","source":"a"}`,
	events.TypeDeviceDisconnected:             `{"cause":"disconnected","remote-id":"","source":"a"}`,
	events.TypeEventAppend + ".result":        `{"results":[]}`,
	events.TypeEventClaim:                     `{"tenant-id":"T"}`,
	events.TypeEventClaim + ".result":         `{"claims":[{"partition":"0-1","fence":0,"next":1,"end":1}]}`,
	events.TypeEventRead:                      `{"tenant-id":"T","fence":1,"from":1}`,
	events.TypeEventSettle:                    `{"tenant-id":"T","partition":"0-1","fence":1,"settlements":[{"from":1,"to":2,"outcome":"lost"}]}`,
	events.TypeEventSettle + ".result":        `{"dead":[0]}`,
	events.TypeEventRelease:                   `{"tenant-id":"T","partition":"one","fence":1}`,
	events.TypeEventRelease + ".result":       `{"released":true}`,
	events.TypeEventExpire:                    `{"max-records":1001}`,
	events.TypeEventExpire + ".result":        `{"expired":1}`,
	events.TypeEventStats:                     `{}`,
	events.TypeEventStats + ".result":         `{"tenant-id":"T","waiting":1}`,
	events.TypeEventBrowse:                    `{"tenant-id":"T","partition":"0-1","max":1001}`,
	events.TypeEventBrowse + ".result":        `{"events":[{"position":1,"device-id":"D","at":"2026-11-22T12:00:00Z","message":"?"}]}`,
	events.TypeEventRequeue:                   `{"tenant-id":"T","partition":"0-1","positions":[0]}`,
	events.TypeEventRequeue + ".result":       `{"requeued":-1,"more":false}`,
	events.TypeEventPurge:                     `{"tenant-id":"T","dead":true}`,
	events.TypeEventPurge + ".result":         `{"purged":1}`,
	events.TypeEventsAppended:                 `{"tenant-id":"T","partition":"0-1"}`,
	events.TypeEventDeadLettered:              `{"partition":"0-1","position":1,"attempts":0,"reason":"r"}`,
	events.TypeError:                          `{"status":404,"code":"not-found","error":"","retry-after-seconds":1}`,
}

func compile(t *testing.T, typ string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	c.AssertContent()
	b, err := schema.Files.ReadFile(typ + ".json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if id := doc.(map[string]any)["$id"]; id != prefix+typ+".json" {
		t.Errorf("$id is %v", id)
	}
	if err := c.AddResource(prefix+typ+".json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(prefix + typ + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestExamplesFitTheirSchema(t *testing.T) {
	for typ, list := range examples {
		t.Run(typ, func(t *testing.T) {
			s := compile(t, typ)
			for _, v := range list {
				b, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(b)))
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Validate(doc); err != nil {
					t.Errorf("%s: %v", b, err)
				}
			}
			bad, err := jsonschema.UnmarshalJSON(strings.NewReader(wrong[typ]))
			if err != nil {
				t.Fatalf("no wrong example: %v", err)
			}
			if s.Validate(bad) == nil {
				t.Errorf("%s passes", wrong[typ])
			}
		})
	}
}

func TestEveryTypeHasItsSchemaAndExamples(t *testing.T) {
	want := map[string]bool{events.TypeError: true}
	for _, k := range events.Catalogue() {
		want[k.Type] = k.Type != events.TypeAssertionKeys && k.Type != events.TypeEventAppend
		want[k.ReplyType()] = k.Type != events.TypeEventRead
	}
	for _, typ := range events.FactTypes() {
		want[typ] = true
	}
	files, err := schema.Files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, f := range files {
		typ := strings.TrimSuffix(f.Name(), ".json")
		found[typ] = true
		if !want[typ] {
			t.Errorf("%s is of no type in the catalogue", f.Name())
		}
	}
	for typ, needed := range want {
		if needed && (!found[typ] || len(examples[typ]) == 0) {
			t.Errorf("%s: schema %v, %d examples", typ, found[typ], len(examples[typ]))
		}
	}
}
