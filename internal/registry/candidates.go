package registry

import (
	"encoding/json"
	"iter"
	"reflect"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Candidates yields the secrets of an enabled credential that are usable now.
func Candidates(c *iot.Credential, now time.Time) iter.Seq[*iot.Secret] {
	return func(yield func(*iot.Secret) bool) {
		if !c.IsEnabled() {
			return
		}
		for i := range c.Secrets {
			if c.Secrets[i].Usable(now) && !yield(&c.Secrets[i]) {
				return
			}
		}
	}
}

// HasSecret reports whether the secret that a device came in with is still
// usable: the re-check of a connected device after its credentials changed.
func HasSecret(c *iot.Credential, secretID string, now time.Time) bool {
	for s := range Candidates(c, now) {
		if s.ID == secretID {
			return true
		}
	}
	return false
}

// MatchesContext reports whether a client context fits the credential: each
// member that is in both the context and the credential's ext must be equal
// (contract: registry, section 10).
func MatchesContext(c *iot.Credential, context map[string]any) bool {
	if len(c.Ext) == 0 || len(context) == 0 {
		return true
	}
	var ext map[string]any
	if json.Unmarshal(c.Ext, &ext) != nil {
		return false
	}
	for name, want := range ext {
		if got, ok := context[name]; ok && !reflect.DeepEqual(plain(got), want) {
			return false
		}
	}
	return true
}

// plain turns a Go value into what encoding/json decodes into an any.
func plain(v any) any {
	switch v.(type) {
	case string, bool, float64, nil:
		return v
	}
	b, err := json.Marshal(v)
	if err != nil {
		return v
	}
	var p any
	if json.Unmarshal(b, &p) != nil {
		return v
	}
	return p
}
