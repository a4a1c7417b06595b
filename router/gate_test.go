package router_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router"
)

// keys is an assertion.KeyStore without a database.
type keys struct {
	mu   sync.Mutex
	list []assertion.StoredKey
}

func (k *keys) SigningKeys(context.Context) ([]assertion.StoredKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.list), nil
}

func (k *keys) PutSigningKey(_ context.Context, key assertion.StoredKey) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.list = slices.DeleteFunc(k.list, func(o assertion.StoredKey) bool { return o.KID == key.KID })
	k.list = append(k.list, key)
	return nil
}

// office issues assertions and verifies them.
type office struct {
	signer   *assertion.Signer
	verifier *assertion.Verifier
}

func newOffice(t testing.TB) *office {
	t.Helper()
	kek, err := assertion.NewKEK(make([]byte, assertion.KEKSize))
	if err != nil {
		t.Fatal(err)
	}
	s, err := assertion.NewSigner(assertion.SignerConfig{Store: &keys{}, KEK: kek, Issuer: "//sluice.test"})
	if err != nil {
		t.Fatal(err)
	}
	o := &office{s, assertion.NewVerifier(assertion.VerifierConfig{Issuer: "//sluice.test", Keys: s.KeySource()})}
	t.Cleanup(o.verifier.Close)
	return o
}

func (o *office) sign(t testing.TB, tenant iot.TenantID, device iot.DeviceID) string {
	t.Helper()
	token, err := o.signer.Sign(t.Context(), assertion.Subject{Tenant: tenant, Device: device})
	if err != nil {
		t.Fatal(err)
	}
	return string(token.JWT)
}

// section encodes a map section of string keys and values, in order.
func section(d amqp.Descriptor, symbols bool, entries ...string) []byte {
	var body []byte
	for i, s := range entries {
		if symbols && i%2 == 0 {
			body = append(body, 0xb3, 0, 0, 0, byte(len(s)))
		} else {
			body = append(body, 0xb1, 0, 0, byte(len(s)>>8), byte(len(s)))
		}
		body = append(body, s...)
	}
	size := len(body) + 4
	b := []byte{0, 0x53, byte(d), 0xd1, byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size), 0, 0, 0, byte(len(entries))}
	return append(b, body...)
}

var (
	header     = []byte{0, 0x53, byte(amqp.DescHeader), 0xc0, 2, 1, 0x41}
	properties = []byte{0, 0x53, byte(amqp.DescProperties), 0xc0, 6, 1, 0xa1, 3, 'i', 'd', '1'}
	body       = []byte{0, 0x53, byte(amqp.DescData), 0xa0, 4, 't', 'e', 's', 't'}
)

// upload is what an adapter sends for a device.
type upload struct {
	header      bool
	delivery    []string // delivery annotations
	annotations []string
	props       []string
}

func (u *upload) before() (b []byte) {
	if u.header {
		b = append(b, header...)
	}
	return b
}

func (u *upload) after() (b []byte) {
	if u.annotations != nil {
		b = append(b, section(amqp.DescMessageAnnotations, true, u.annotations...)...)
	}
	b = append(b, properties...)
	if u.props != nil {
		b = append(b, section(amqp.DescApplicationProperties, false, u.props...)...)
	}
	return append(b, body...)
}

func (u *upload) encode() []byte {
	b := u.before()
	if u.delivery != nil {
		b = append(b, section(amqp.DescDeliveryAnnotations, true, u.delivery...)...)
	}
	return append(b, u.after()...)
}

func TestGate(t *testing.T) {
	const name = "x-opt-reg-assertion"
	o := newOffice(t)
	token := o.sign(t, "T", "d1")
	broken := token[:len(token)-4] + "AAAA"
	about := []string{"tenant_id", "T", "device_id", "d1", "resource", "telemetry/T/d1"}
	props := []string{"device_id", "d1", "qos", "1"}
	with := func(token string) []string { return []string{name, token} }
	for label, c := range map[string]struct {
		upload
		keep     []string // delivery annotations that stay
		optional bool     // forwarded also when it is optional only: required refuses
		refused  string   // "" = forwarded in either way
	}{
		"good":                                {upload: upload{delivery: with(token), annotations: about, props: props}},
		"good behind a header":                {upload: upload{header: true, delivery: with(token), annotations: about, props: props}},
		"others stay":                         {upload: upload{delivery: []string{"a", "1", name, token, "b", "2"}, annotations: about, props: props}, keep: []string{"a", "1", "b", "2"}},
		"assertion twice":                     {upload: upload{delivery: []string{name, token, "a", "1", name, broken}, annotations: about, props: props}, keep: []string{"a", "1"}},
		"none":                                {upload: upload{annotations: about, props: props}, optional: true},
		"none behind a header":                {upload: upload{header: true, annotations: about, props: props}, optional: true},
		"other annotations only":              {upload: upload{delivery: []string{"a", "1"}, annotations: about, props: props}, keep: []string{"a", "1"}, optional: true},
		"bare message":                        {upload: upload{props: props}, optional: true},
		"no annotations":                      {upload: upload{delivery: with(token), props: props}, optional: true},
		"no device annotation":                {upload: upload{delivery: with(token), annotations: about[:2], props: props}, optional: true},
		"signature broken":                    {upload: upload{delivery: with(broken), annotations: about, props: props}, refused: "precondition-failed"},
		"not a token":                         {upload: upload{delivery: with("x"), annotations: about, props: props}, refused: "precondition-failed"},
		"empty":                               {upload: upload{delivery: with(""), annotations: about, props: props}, refused: "precondition-failed"},
		"other tenant's":                      {upload: upload{delivery: with(o.sign(t, "U", "d1")), annotations: about, props: props}, refused: "precondition-failed"},
		"other tenant's with its annotations": {upload: upload{delivery: with(o.sign(t, "U", "d1")), annotations: []string{"tenant_id", "U", "device_id", "d1"}, props: props}, refused: "precondition-failed"},
		"other device's":                      {upload: upload{delivery: with(o.sign(t, "T", "d2")), annotations: about, props: props}, refused: "precondition-failed"},
		"other device in the annotation":      {upload: upload{delivery: with(token), annotations: []string{"tenant_id", "T", "device_id", "d2"}, props: props}, refused: "precondition-failed"},
		"other tenant in the annotation":      {upload: upload{delivery: with(token), annotations: []string{"tenant_id", "U", "device_id", "d1"}, props: props}, refused: "precondition-failed"},
		"other device in the property":        {upload: upload{delivery: with(token), annotations: about, props: []string{"device_id", "d2"}}, refused: "precondition-failed"},
		"no property":                         {upload: upload{delivery: with(token), annotations: about}, refused: "precondition-failed"},
		"property without the device":         {upload: upload{delivery: with(token), annotations: about, props: []string{"qos", "1"}}, refused: "precondition-failed"},
		"device twice in the properties":      {upload: upload{delivery: with(token), annotations: about, props: []string{"device_id", "d1", "device_id", "d2"}}, refused: "decode-error"},
		"device twice in the annotations":     {upload: upload{delivery: with(token), annotations: []string{"tenant_id", "T", "device_id", "d1", "device_id", "d2"}, props: props}, refused: "decode-error"},
	} {
		t.Run(label, func(t *testing.T) {
			for _, required := range []bool{true, false} {
				g := router.NewGate("T", required, o.verifier, time.Now)
				message := c.encode()
				was := slices.Clone(message)
				parts, scratch, refused := g.Admit(message, []byte("kept"))
				if !bytes.Equal(message, was) || !bytes.HasPrefix(scratch, []byte("kept")) {
					t.Error("what belongs to the caller was changed")
				}
				want := c.refused
				if c.optional && required {
					want = "precondition-failed"
				}
				if want != "" {
					if refused == nil || string(refused.Condition) != "amqp:"+want {
						t.Errorf("required %v: got %v, want %s", required, refused, want)
					}
					continue
				}
				if refused != nil {
					t.Errorf("required %v: %v", required, refused)
					continue
				}
				expected := c.before()
				if len(c.keep) > 0 {
					expected = append(expected, section(amqp.DescDeliveryAnnotations, true, c.keep...)...)
				}
				expected = append(expected, c.after()...)
				got := slices.Concat(parts.Head, parts.Mid, parts.Tail)
				if !sameMessage(t, got, expected) {
					t.Errorf("required %v:\n got %x\nwant %x", required, got, expected)
				}
				if strings.Contains(string(got), name) {
					t.Error("the assertion is still there")
				}
			}
		})
	}
}

// sameMessage compares byte for byte, but for the size of the delivery
// annotations' map, of which there is more than one form.
func sameMessage(t *testing.T, got, want []byte) bool {
	a, err := amqp.ScanSections(got)
	b, err2 := amqp.ScanSections(want)
	if errors.Join(err, err2) != nil {
		t.Fatal(err, err2)
	}
	return bytes.Equal(a.Header.Of(got), b.Header.Of(want)) &&
		bytes.Equal(got[a.DeliveryAnnotations.End:][max(0, a.Header.End-a.DeliveryAnnotations.End):], want[b.DeliveryAnnotations.End:][max(0, b.Header.End-b.DeliveryAnnotations.End):]) &&
		(a.DeliveryAnnotations.Len() > 0) == (b.DeliveryAnnotations.Len() > 0)
}

func TestGateMalformed(t *testing.T) {
	o := newOffice(t)
	u := upload{delivery: []string{"x-opt-reg-assertion", o.sign(t, "T", "d1")}, annotations: []string{"tenant_id", "T", "device_id", "d1"}, props: []string{"device_id", "d1"}}
	whole := u.encode()
	required := router.NewGate("T", true, o.verifier, time.Now)
	for n := range len(whole) - len(body) {
		if _, _, err := required.Admit(whole[:n:n], nil); err == nil {
			t.Errorf("the first %d bytes were admitted", n)
		}
	}
}

func TestGateTime(t *testing.T) {
	o := newOffice(t)
	u := upload{delivery: []string{"x-opt-reg-assertion", o.sign(t, "T", "d1")}, annotations: []string{"tenant_id", "T", "device_id", "d1"}, props: []string{"device_id", "d1"}}
	now := time.Now()
	g := router.NewGate("T", true, o.verifier, func() time.Time { return now })
	if _, _, err := g.Admit(u.encode(), nil); err != nil {
		t.Fatal(err)
	}
	now = now.Add(48 * time.Hour)
	if _, _, err := g.Admit(u.encode(), nil); err == nil || err.Description != router.DescriptionNoDevice {
		t.Errorf("got %v for an assertion that has expired", err)
	}
}

func TestGateVoid(t *testing.T) {
	o := newOffice(t)
	token, err := o.signer.Sign(t.Context(), assertion.Subject{Tenant: "T", Device: "d1", Rev: "1"})
	if err != nil {
		t.Fatal(err)
	}
	u := upload{delivery: []string{"x-opt-reg-assertion", string(token.JWT)}, annotations: []string{"tenant_id", "T", "device_id", "d1"}, props: []string{"device_id", "d1"}}
	g := router.NewGate("T", true, o.verifier, time.Now)
	if _, _, err := g.Admit(u.encode(), nil); err != nil {
		t.Fatal(err)
	}
	o.verifier.Void("T", "d1", "2", time.Now())
	if _, _, err := g.Admit(u.encode(), nil); err == nil || err.Condition != amqp.CondPreconditionFailed {
		t.Errorf("got %v for an assertion that is void", err)
	}
}

func TestGateWithoutKeys(t *testing.T) {
	o := newOffice(t)
	v := assertion.NewVerifier(assertion.VerifierConfig{Issuer: "//sluice.test", KeyWait: time.Millisecond,
		Keys: func(context.Context) (assertion.KeySet, time.Duration, error) {
			return assertion.KeySet{}, 0, errors.New("no route")
		}})
	t.Cleanup(v.Close)
	u := upload{delivery: []string{"x-opt-reg-assertion", o.sign(t, "T", "d1")}, annotations: []string{"tenant_id", "T", "device_id", "d1"}, props: []string{"device_id", "d1"}}
	if _, _, err := router.NewGate("T", false, v, time.Now).Admit(u.encode(), nil); err == nil || err.Condition != amqp.CondInternalError {
		t.Errorf("got %v, want amqp:internal-error", err)
	}
}

func TestAdmitAllocatesNothing(t *testing.T) {
	admit := admitter(t)
	if n := testing.AllocsPerRun(100, admit); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAdmit(b *testing.B) {
	admit := admitter(b)
	b.ReportAllocs()
	for b.Loop() {
		admit()
	}
}

// admitter admits a message whose token has been seen before.
func admitter(t testing.TB) func() {
	o := newOffice(t)
	u := upload{delivery: []string{"x-opt-reg-assertion", o.sign(t, "T", "d1")}, annotations: []string{"tenant_id", "T", "device_id", "d1"}, props: []string{"device_id", "d1"}}
	message, g, scratch := u.encode(), router.NewGate("T", true, o.verifier, time.Now), make([]byte, 0, 4096)
	return func() {
		if _, _, err := g.Admit(message, scratch); err != nil {
			t.Fatal(err)
		}
	}
}

// The mode of 2018: the token is an application property and is dropped there.
func TestGateProperty(t *testing.T) {
	o := newOffice(t)
	token := o.sign(t, "T", "d1")
	g := router.NewPropertyGate("T", o.verifier, time.Now)
	for _, tt := range []struct {
		name  string
		props []string
		want  amqp.Symbol
	}{
		{"good", []string{"device_id", "d1", "reg_assertion", token, "x", "y"}, ""},
		{"only the two", []string{"reg_assertion", token, "device_id", "d1"}, ""},
		{"no token", []string{"device_id", "d1"}, amqp.CondPreconditionFailed},
		{"no device", []string{"reg_assertion", token}, amqp.CondDecodeError},
		{"no properties", nil, amqp.CondDecodeError},
		{"another device", []string{"device_id", "d2", "reg_assertion", token}, amqp.CondPreconditionFailed},
		{"another tenant", []string{"device_id", "d1", "reg_assertion", o.sign(t, "U", "d1")}, amqp.CondPreconditionFailed},
		{"two devices", []string{"device_id", "d1", "device_id", "d2", "reg_assertion", token}, amqp.CondDecodeError},
		{"broken", []string{"device_id", "d1", "reg_assertion", token + "x"}, amqp.CondPreconditionFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := upload{header: true, props: tt.props}
			parts, _, err := g.Admit(u.encode(), nil)
			if tt.want != "" {
				if err == nil || err.Condition != tt.want {
					t.Fatalf("got %v, want %s", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			kept := slices.DeleteFunc(slices.Clone(tt.props), func(s string) bool { return s == "reg_assertion" || s == token })
			got, err2 := amqp.DecodeMessage(slices.Concat(parts.Head, parts.Mid, parts.Tail))
			want, err3 := amqp.DecodeMessage((&upload{header: true, props: kept}).encode())
			if errors.Join(err2, err3) != nil {
				t.Fatal(err2, err3)
			}
			if d := cmp.Diff(want.ApplicationProperties, got.ApplicationProperties, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("application properties (-want +got):\n%s", d)
			}
			if !cmp.Equal(want.Data, got.Data) || !cmp.Equal(want.Properties, got.Properties) || got.Header == nil {
				t.Error("another section changed")
			}
		})
	}
}
