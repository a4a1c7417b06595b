package iot

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"time"
)

// The credential types with rules of their own; any other type is custom.
const (
	HashedPassword = "hashed-password"
	PSK            = "psk"
	X509Cert       = "x509-cert"
	RPK            = "rpk"
)

// Credential is one way for a device to prove itself (contract: registry,
// section 5). (Type, AuthID) is unique within the tenant. It marshals with
// everything it holds, hashes and keys included: what a person may read is
// what the registry's rules leave of it.
type Credential struct {
	Type    string
	AuthID  string
	Enabled *bool // nil = never sent, effective true
	Ext     json.RawMessage
	Comment string
	Cert    []byte // DER; in requests for x509-cert only, never kept
	Secrets []Secret
	Extra   map[string]json.RawMessage // further members of a custom type
}

// IsEnabled reports the effective value of Enabled.
func (c *Credential) IsEnabled() bool { return c.Enabled == nil || *c.Enabled }

// IsCustom reports whether the type has no rules of its own.
func (c *Credential) IsCustom() bool { return isCustom(c.Type) }

func isCustom(credentialType string) bool {
	switch credentialType {
	case HashedPassword, PSK, X509Cert, RPK:
		return false
	}
	return true
}

// Secret is one secret of a credential. Which members beyond the first five
// may be set depends on the credential's type.
type Secret struct {
	ID        string    `json:"id,omitempty"`
	Enabled   *bool     `json:"enabled,omitempty"` // nil = never sent, effective true
	NotBefore Timestamp `json:"not-before,omitzero"`
	NotAfter  Timestamp `json:"not-after,omitzero"`
	Comment   string    `json:"comment,omitempty"`

	HashFunction string `json:"hash-function,omitempty"` // hashed-password: bcrypt, sha-256, sha-512
	PwdHash      string `json:"pwd-hash,omitempty"`
	Salt         []byte `json:"salt,omitempty"`
	PwdPlain     string `json:"pwd-plain,omitempty"` // hashed-password, in requests only

	Key       []byte `json:"key,omitempty"`       // psk: the bytes; rpk: SubjectPublicKeyInfo, DER
	Algorithm string `json:"algorithm,omitempty"` // rpk: RSA or EC
	Cert      []byte `json:"cert,omitempty"`      // rpk, in requests only: DER

	Extra map[string]json.RawMessage `json:"-"` // custom types: every further member
}

// IsEnabled reports the effective value of Enabled.
func (s *Secret) IsEnabled() bool { return s.Enabled == nil || *s.Enabled }

// Usable reports whether the secret is enabled and now lies in its validity
// period, both ends included.
func (s *Secret) Usable(now time.Time) bool {
	return s.IsEnabled() &&
		(s.NotBefore.IsZero() || !now.Before(s.NotBefore.Time)) &&
		(s.NotAfter.IsZero() || !now.After(s.NotAfter.Time))
}

// credentialHead is the JSON of a credential without its secrets' content.
type credentialHead struct {
	Type    string            `json:"type"`
	AuthID  string            `json:"auth-id,omitempty"`
	Enabled *bool             `json:"enabled,omitempty"`
	Ext     json.RawMessage   `json:"ext,omitempty"`
	Comment string            `json:"comment,omitempty"`
	Cert    []byte            `json:"cert,omitempty"`
	Secrets []json.RawMessage `json:"secrets,omitempty"`
}

// customSecret is the part of a custom type's secret that has a meaning.
type customSecret struct {
	ID        string    `json:"id,omitempty"`
	Enabled   *bool     `json:"enabled,omitempty"`
	NotBefore Timestamp `json:"not-before,omitzero"`
	NotAfter  Timestamp `json:"not-after,omitzero"`
	Comment   string    `json:"comment,omitempty"`
}

// UnmarshalJSON implements [json.Unmarshaler]. Members that the type does not
// know are an error, except for custom types, which keep them in Extra.
func (c *Credential) UnmarshalJSON(b []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil || members == nil {
		return fmt.Errorf("credential: want an object, got %s", kindOf(b))
	}
	var credentialType string
	if err := json.Unmarshal(members["type"], &credentialType); err != nil || credentialType == "" {
		return fmt.Errorf("credential: member type: want a non-empty string")
	}
	custom := isCustom(credentialType)
	known := []string{"type", "auth-id", "enabled", "ext", "comment", "secrets"}
	if credentialType == X509Cert {
		known = append(known, "cert")
	}
	var h credentialHead
	extra, err := split(members, &h, known...)
	if err != nil {
		return fmt.Errorf("credential of type %.40q: %w", credentialType, err)
	}
	if name, unknown := first(extra); unknown && !custom {
		return fmt.Errorf("credential of type %.40q: unknown member %.40q", h.Type, name)
	}
	*c = Credential{Type: h.Type, AuthID: h.AuthID, Enabled: h.Enabled, Ext: h.Ext, Comment: h.Comment, Cert: h.Cert, Extra: extra}
	if h.Secrets != nil {
		c.Secrets = make([]Secret, len(h.Secrets))
	}
	for i, raw := range h.Secrets {
		if err := c.Secrets[i].decode(raw, h.Type); err != nil {
			return fmt.Errorf("credential of type %.40q: secrets[%d]: %w", h.Type, i, err)
		}
	}
	return nil
}

// secretMembers lists what a secret of each type may hold besides the common members.
var secretMembers = map[string][]string{
	HashedPassword: {"hash-function", "pwd-hash", "salt", "pwd-plain"},
	PSK:            {"key"},
	RPK:            {"key", "algorithm", "cert"},
	X509Cert:       nil,
}

func (s *Secret) decode(raw json.RawMessage, credentialType string) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil || members == nil {
		return fmt.Errorf("want an object, got %s", kindOf(raw))
	}
	known := []string{"id", "enabled", "not-before", "not-after", "comment"}
	if isCustom(credentialType) {
		var h customSecret
		extra, err := split(members, &h, known...)
		*s = Secret{ID: h.ID, Enabled: h.Enabled, NotBefore: h.NotBefore, NotAfter: h.NotAfter, Comment: h.Comment, Extra: extra}
		return err
	}
	type plain Secret
	extra, err := split(members, (*plain)(s), append(known, secretMembers[credentialType]...)...)
	if name, unknown := first(extra); err == nil && unknown {
		return fmt.Errorf("unknown member %.40q", name)
	}
	return err
}

// split decodes the members called known into dst and returns the others.
func split(members map[string]json.RawMessage, dst any, known ...string) (map[string]json.RawMessage, error) {
	mine := make(map[string]json.RawMessage, len(members))
	for _, name := range known {
		if v, ok := members[name]; ok {
			mine[name] = v
			delete(members, name)
		}
	}
	b, err := json.Marshal(mine)
	if err != nil {
		return nil, err
	}
	if len(members) == 0 {
		members = nil
	}
	return members, json.Unmarshal(b, dst)
}

func first(m map[string]json.RawMessage) (string, bool) {
	for name := range m {
		return name, true
	}
	return "", false
}

func kindOf(b []byte) string {
	switch b = bytes.TrimSpace(b); {
	case len(b) == 0:
		return "nothing"
	case b[0] == '[':
		return "an array"
	case b[0] == '"':
		return "a string"
	case string(b) == "null":
		return "null"
	case b[0] == '{':
		return "a malformed object"
	}
	return "a number or boolean"
}

// MarshalJSON implements [json.Marshaler].
func (c Credential) MarshalJSON() ([]byte, error) {
	h := credentialHead{Type: c.Type, AuthID: c.AuthID, Enabled: c.Enabled, Ext: c.Ext, Comment: c.Comment, Cert: c.Cert}
	for i := range c.Secrets {
		b, err := c.Secrets[i].MarshalJSON()
		if err != nil {
			return nil, err
		}
		h.Secrets = append(h.Secrets, b)
	}
	return join(h, c.Extra)
}

// MarshalJSON implements [json.Marshaler].
func (s Secret) MarshalJSON() ([]byte, error) {
	type plain Secret
	return join(plain(s), s.Extra)
}

// join writes v's members followed by the extra ones in the order of their names.
func join(v any, extra map[string]json.RawMessage) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil || len(extra) == 0 {
		return b, err
	}
	all := maps.Clone(extra)
	var own map[string]json.RawMessage
	if err := json.Unmarshal(b, &own); err != nil {
		return nil, err
	}
	maps.Copy(all, own)
	return json.Marshal(all)
}
