package realm

import (
	"encoding/json"
	"fmt"
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/internal/auth/oidc"
	"github.com/sluice-iot/sluice/internal/iot"
)

// maxID bounds the id of a device in a claim, in bytes.
const maxID = 255

// device reads which device of the tenant a token's user is. Its errors name
// claims, and not what is in them.
func (p *provider) device(t *oidc.Token, tenant iot.TenantID, authID string) (iot.DeviceID, error) {
	if users := texts(t, p.UserClaim); len(users) != 1 || users[0] != authID {
		return "", fmt.Errorf("claim %s is not the auth-id", p.UserClaim)
	}
	if p.TenantClaim != "" && !slices.Contains(texts(t, p.TenantClaim), string(tenant)) {
		return "", fmt.Errorf("claim %s does not hold the tenant", p.TenantClaim)
	}
	devices := texts(t, p.DeviceClaim)
	if len(devices) != 1 || !isID(devices[0]) {
		return "", fmt.Errorf("claim %s does not hold the id of one device", p.DeviceClaim)
	}
	return iot.DeviceID(devices[0]), nil
}

// texts reads a claim that is a text or a list of texts; anything else is none.
func texts(t *oidc.Token, claim string) []string {
	var one string
	if json.Unmarshal(t.Claims[claim], &one) == nil && one != "" {
		return []string{one}
	}
	var list []string
	if json.Unmarshal(t.Claims[claim], &list) != nil {
		return nil
	}
	return list
}

func isID(s string) bool {
	return s != "" && len(s) <= maxID && utf8.ValidString(s) && !slices.ContainsFunc([]rune(s), func(r rune) bool { return !unicode.IsPrint(r) })
}
