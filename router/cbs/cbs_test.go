package cbs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/router/cbs"
)

// tokens makes tokens of the name, or fails.
type tokens struct{ err error }

func (t tokens) Issue(id *auth.Identity) (string, error) { return "token-of-" + id.Name, t.err }

func identity(t *testing.T, grants string) *auth.Identity {
	t.Helper()
	path := filepath.Join(t.TempDir(), "permissions.json")
	text := fmt.Sprintf(`{"roles":{"r":[%s]},"users":{"u":{"mechanism":"EXTERNAL","authorities":["r"]}}}`, grants)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := auth.Open(path, auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return dir.Current("u")
}

func TestMessage(t *testing.T) {
	u := identity(t, "")
	for _, tt := range []struct {
		name string
		id   *auth.Identity
		err  error
		want amqp.Symbol
	}{
		{"token", u, nil, ""},
		{"identity gone", nil, nil, amqp.CondUnauthorizedAccess},
		{"no key", u, errors.New("no key"), amqp.CondInternalError},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := cbs.New(tokens{tt.err}, func(*peer.Conn) *auth.Identity { return tt.id }, nil).Access()
			if a.Presettled == nil || a.Presettled.Condition != amqp.CondInvalidField {
				t.Errorf("presettled: %v", a.Presettled)
			}
			b, refused := a.Handout(nil)
			if tt.want != "" {
				if refused == nil || refused.Condition != tt.want {
					t.Errorf("got %v, want %s", refused, tt.want)
				}
				return
			}
			m, err := amqp.DecodeMessage(b)
			if refused != nil || err != nil {
				t.Fatal(refused, err)
			}
			want := &amqp.Message{ApplicationProperties: amqp.Map{{Key: "type", Value: "amqp:jwt"}}, Value: "token-of-u", HasValue: true}
			if diff := cmp.Diff(want, m); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnswer(t *testing.T) {
	const grants = `{"resource":"telemetry/*","activities":["WRITE"]},{"resource":"telemetry/*","activities":["READ"]},
		{"resource":"event/T","activities":["READ"]},{"resource":"x","activities":["EXECUTE"]},{"operation":"tenant/*:*","activities":["EXECUTE"]}`
	words := func(w ...any) amqp.Array { return amqp.Array{Code: 0xb1, Values: w} }
	authz := amqp.Map{{Key: "telemetry/*", Value: words("recv", "send")}, {Key: "event/T", Value: words("recv")}}
	sub := amqp.Map{{Key: "sub", Value: "u"}}
	asked := []amqp.Symbol{"OTHER", "ADDRESS-AUTHZ"}
	version := func(v any) amqp.Map { return amqp.Map{{Key: amqp.Symbol("version"), Value: v}} }
	for _, tt := range []struct {
		name     string
		desired  []amqp.Symbol
		remote   amqp.Map
		maxFrame uint32
		want     any // authenticated-identity; nil = nothing is offered
	}{
		{"not asked", []amqp.Symbol{"OTHER"}, nil, 16384, nil},
		{"asked", asked, nil, 16384, sub},
		{"1.4", asked, version("1.4.1"), 16384, sub},
		{"1.3", asked, version("1.3.0"), 16384, "u"},
		{"0.8", asked, version("0.8"), 16384, "u"},
		{"2.0", asked, version("2.0"), 16384, sub},
		{"a version that is none", asked, version("next"), 16384, sub},
		{"a version of another type", asked, version(int32(1)), 16384, sub},
		{"too small a frame", asked, nil, 1024, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			remote := &amqp.Open{DesiredCapabilities: tt.desired, MaxFrameSize: tt.maxFrame}
			if tt.remote != nil {
				remote.Properties, _ = amqp.AppendMap(nil, tt.remote)
			}
			had, err := amqp.AppendMap(nil, amqp.Map{{Key: amqp.Symbol("product"), Value: "p"}})
			if err != nil {
				t.Fatal(err)
			}
			own := &amqp.Open{OfferedCapabilities: []amqp.Symbol{"ANONYMOUS-RELAY"}, Properties: had}
			cbs.Answer(identity(t, grants))(remote, own)
			got, _, err := amqp.DecodeValue(own.Properties)
			if err != nil {
				t.Fatal(err)
			}
			want := amqp.Map{{Key: amqp.Symbol("product"), Value: "p"}}
			capabilities := []amqp.Symbol{"ANONYMOUS-RELAY"}
			if tt.want != nil {
				want = append(want, amqp.Pair{Key: amqp.Symbol("authenticated-identity"), Value: tt.want},
					amqp.Pair{Key: amqp.Symbol("address-authz"), Value: authz})
				capabilities = append(capabilities, "ADDRESS-AUTHZ")
			}
			if diff := cmp.Diff(any(want), got); diff != "" {
				t.Errorf("properties (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(capabilities, own.OfferedCapabilities); diff != "" {
				t.Errorf("capabilities (-want +got):\n%s", diff)
			}
		})
	}
}
