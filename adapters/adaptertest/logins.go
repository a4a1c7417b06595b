package adaptertest

import (
	"crypto/tls"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

func byCertificate(c tls.Certificate, serverName string) Upload {
	return with(func(u *Upload) { u.Login = Login{Certificate: &c, ServerName: serverName} })
}

// byToken logs in with a JWT, beside which the protocol may name Device.
func byToken(token string) Upload {
	return with(func(u *Upload) {
		u.Login = Login{Token: token, Tenant: Tenant, AuthID: string(Device)}
		u.TargetTenant, u.TargetDevice = Tenant, Device
	})
}

// logins checks the ways to prove who one is, and who may act for whom.
func (h Harness) logins(t *testing.T) {
	type login struct {
		name   string
		upload Upload
		want   error
		tenant iot.TenantID
		device iot.DeviceID
	}
	cases := []login{
		{"password of the tenant's alias", with(func(u *Upload) { u.Tenant = Alias }), nil, Tenant, Device},
		{"password in another tenant", with(func(u *Upload) { u.Tenant = OtherTenant }), nil, OtherTenant, Device},
		{"gateway that may register devices", with(func(u *Upload) {
			u.AuthID, u.TargetDevice = string(ProvisioningGateway), Provisioned+"1"
		}), nil, Tenant, Provisioned + "1"},
		{"gateway that may not register devices", asGateway("", Provisioned+"2"), iot.ErrNotFound, "", ""},
	}
	if h.Certificates {
		cases = append(cases,
			login{"certificate", byCertificate(Certificate(), ""), nil, Tenant, Device},
			login{"certificate and a host name of no tenant", byCertificate(Certificate(), "adapter.example"), nil, Tenant, Device},
			login{"certificate and host name", byCertificate(CertificateOfUnknownIssuer(), string(Tenant)+".example"), nil, Tenant, Device},
			login{"certificate and host name of the alias", byCertificate(CertificateOfUnknownIssuer(), string(Alias)+".example"), nil, Tenant, Device},
			login{"certificate and host name of an unknown tenant", byCertificate(CertificateOfUnknownIssuer(), "nowhere.example"), iot.ErrUnauthenticated, "", ""},
			login{"certificate of an unknown issuer", byCertificate(CertificateOfUnknownIssuer(), ""), iot.ErrUnauthenticated, "", ""},
			login{"certificate of a stranger", byCertificate(StrangeCertificate(), ""), iot.ErrUnauthenticated, "", ""},
		)
	}
	if h.Tokens {
		cases = append(cases,
			login{"token", byToken(Token()), nil, Tenant, Device},
			login{"token, named by the protocol", byToken(TokenWithoutClaims()), nil, Tenant, Device},
			login{"token of nobody", byToken(StrangeToken()), iot.ErrUnauthenticated, "", ""},
			login{"token, another device named", with(func(u *Upload) {
				u.Login = Login{Token: TokenWithoutClaims(), Tenant: Tenant, AuthID: string(Device2)}
				u.TargetTenant, u.TargetDevice = Tenant, Device2
			}), iot.ErrUnauthenticated, "", ""},
		)
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			e := h.start(t)
			e.check(t, tt.upload, tt.want)
			sent := e.down.Sent()
			if tt.want != nil {
				if len(sent) != 0 {
					t.Errorf("%d messages left, want none", len(sent))
				}
				return
			}
			if len(sent) != 1 || sent[0].Tenant != tt.tenant || sent[0].Device != tt.device {
				t.Errorf("got %d messages, want one of %s/%s: %+v", len(sent), tt.tenant, tt.device, sent)
			}
		})
	}
}

// defaults checks that tenant's and device's are added to messages.
func (h Harness) defaults(t *testing.T) {
	e := h.start(t)
	e.inv.Defaults(map[string]any{"content-type": "tenant/type", "color": "blue", "size": 1.0}, map[string]any{"size": 2.0}, "")
	e.check(t, with(func(u *Upload) { u.ContentType = "" }), nil)
	e.check(t, own(), nil)
	for i, want := range []string{"tenant/type", "text/plain"} {
		sent := e.down.Sent()
		if len(sent) != 2 {
			t.Fatalf("got %d messages, want 2", len(sent))
		}
		if m := sent[i]; m.ContentType != want || m.Properties["color"] != "blue" || m.Properties["size"] != int32(2) {
			t.Errorf("got content type %q and properties %v, want %q, color blue and size 2", m.ContentType, m.Properties, want)
		}
	}
}

// ttl checks how long events are of use.
func (h Harness) ttl(t *testing.T) {
	event := with(func(u *Upload) { u.Endpoint, u.TTL = iot.Event, 30*time.Second })
	for _, tt := range []struct {
		name   string
		limits string
		want   time.Duration
	}{
		{"as the device says", "", 30 * time.Second},
		{"below the tenant's limit", `{"max-ttl":60}`, 30 * time.Second},
		{"above the tenant's limit", `{"max-ttl":20}`, 20 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := h.start(t)
			e.inv.Defaults(nil, nil, tt.limits)
			e.check(t, event, nil)
			if sent := e.down.Sent(); len(sent) != 1 || sent[0].TTL != tt.want {
				t.Errorf("got %+v, want one message with a ttl of %v", sent, tt.want)
			}
		})
	}
}
